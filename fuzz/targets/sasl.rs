//! Logins, both ways: a client that knows no password is never let in by our server, whatever it answers; a server that
//! knows no password is never believed by our client, whatever it asks.
#![no_main]

#[path = "played.rs"]
mod played;

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use mailweir::config::{AuthMechanism, Listener, ListenerAuth, Users};
use mailweir::deliver::sasl::{Account, Exchange};
use played::listener::{Mood, listener};
use played::{users, with_client};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream};

const MECHANISMS: [(AuthMechanism, &str); 6] = [
    (AuthMechanism::Plain, "PLAIN"),
    (AuthMechanism::Login, "LOGIN"),
    (AuthMechanism::CramMd5, "CRAM-MD5"),
    (AuthMechanism::ScramSha256, "SCRAM-SHA-256"),
    (AuthMechanism::XOauth2, "XOAUTH2"),
    (AuthMechanism::OauthBearer, "OAUTHBEARER"),
];

/// Passwords that no input has: new in each process.
static USERS: LazyLock<Arc<Users>> = LazyLock::new(|| {
    let secret = || (0..24).map(|_| fastrand::alphanumeric()).collect::<String>();
    users(&secret(), &secret())
});

/// How a response is spoiled.
fn spoiled(response: &str, with: &[u8]) -> Vec<u8> {
    match with.split_first() {
        None | Some((0, _)) => response.as_bytes().to_vec(),
        Some((1, other)) => other.iter().filter(|b| !matches!(b, b'\r' | b'\n')).copied().collect(),
        Some((at, other)) => {
            let mut bytes = response.as_bytes().to_vec();
            let start = usize::from(*at).min(bytes.len());
            bytes.splice(start.., other.iter().filter(|b| !matches!(b, b'\r' | b'\n')).copied());
            bytes
        }
    }
}

/// A client without a password logs in, and then sends mail all the same.
fn client(mechanism: (AuthMechanism, &str), name: &str, password: &str, spoils: &[&[u8]]) {
    let options = Listener { auth: ListenerAuth::Required, accept_any: false, users: USERS.clone(), ..listener() };
    let talk = async |client: DuplexStream| {
        let (read, mut write) = tokio::io::split(client);
        let (mut lines, mut said) = (BufReader::new(read).lines(), String::new());
        let account = Account { user: name, secret: password, host: "x.example", port: 25 };
        let mut exchange = Exchange::new(mechanism.0, account);
        let _ = write.write_all(format!("EHLO x\r\nAUTH {}\r\n", mechanism.1).as_bytes()).await;
        let mut spoils = spoils.iter().copied();
        while let Ok(Some(line)) = lines.next_line().await {
            said.push_str(&format!("{line}\n"));
            let Some(challenge) = line.strip_prefix("334") else {
                if line.starts_with('5') || line.starts_with("235") || line.starts_with('4') {
                    break;
                }
                continue;
            };
            let response = exchange.respond(challenge.trim()).map(|text| text.to_string()).unwrap_or("*".into());
            let line = [&spoiled(&response, spoils.next().unwrap_or_default())[..], b"\r\n"].concat();
            if write.write_all(&line).await.is_err() {
                break;
            }
        }
        let mail = "MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n";
        let _ = write.write_all(mail.as_bytes()).await;
        while let Ok(Some(line)) = lines.next_line().await {
            said.push_str(&format!("{line}\n"));
        }
        said
    };
    let (said, inbox) = with_client(options, Mood::Works, 1 << 16, talk);
    assert!(!said.lines().any(|line| line.starts_with("235")), "let in without a password: {said}");
    assert!(inbox.memory.stored.lock().is_empty(), "mail of nobody is taken: {said}");
    assert!(password.len() < 8 || !said.contains(password), "a password is said back: {said}");
}

/// A server asks what it likes.
fn server(mechanism: AuthMechanism, challenges: &[&[u8]]) {
    let account = Account { user: "app", secret: "a-secret-of-ours", host: "x.example", port: 25 };
    let mut exchange = Exchange::new(mechanism, account);
    for challenge in challenges {
        let Ok(challenge) = std::str::from_utf8(challenge) else { return };
        if exchange.repeats(challenge) {
            continue;
        }
        let Ok(response) = exchange.respond(challenge) else { break };
        assert!(response.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b)), "more than base64 is said");
    }
    assert!(exchange.error().is_none_or(|told| told.len() <= 504 && !told.contains(char::is_control)));
    assert!(mechanism != AuthMechanism::ScramSha256 || exchange.check().is_err(), "a server that knows no password");
}

fuzz_target!(|input: (u8, &str, &str, Vec<&[u8]>)| {
    let (which, name, password, mut lines) = input;
    lines.truncate(8);
    let mechanism = MECHANISMS[usize::from(which) % MECHANISMS.len()];
    if which & 0x80 != 0 {
        return server(mechanism.0, &lines);
    }
    // Half of them are somebody's names.
    let name = match which & 0x60 {
        0x20 => "app",
        0x40 => "user",
        _ => name,
    };
    client(mechanism, name, password, &lines);
});
