//! Who may do what at the listeners of the real program: places of strangers, proxies in front that tell whose their
//! connections are, and what users have of their own.

use crate::ca;
use crate::support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use ca::Authority;
use support::client::Client;
use support::daemon::{Daemon, Setup};
use support::mail::{message, split_received};
use support::sink::Sink;
use support::{Port, SOON, TestDir, program, run, wait_for};

/// smtplib over TLS from the first byte, from an address of this machine, and behind bytes that go ahead of TLS:
/// port, authority, address, user, password, bytes ahead.
const SMTPS: &str = r#"
import smtplib, socket, ssl, sys
port, ca, source, user, password, ahead = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
class Behind(smtplib.SMTP_SSL):
    def _get_socket(self, host, port, timeout):
        plain = socket.create_connection((host, port), timeout, (source, 0))
        plain.sendall(ahead.encode("latin-1").decode("unicode_escape").encode("latin-1"))
        return context.wrap_socket(plain, server_hostname="127.0.0.1")
smtp = Behind("127.0.0.1", int(port), context=context, timeout=30)
if user:
    print(smtp.login(user, password))
smtp.sendmail("a@sender.test", ["b@example.test"], sys.stdin.buffer.read())
"#;

const DEADLINE: Duration = Duration::from_secs(120);

/// AUTH PLAIN of `bob` with `pencil`.
const BOB: &str = "AUTH PLAIN AGJvYgBwZW5jaWw=";

fn secret(dir: &TestDir) -> String {
    let path = dir.write("secret", "pencil\n");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("a mode");
    path.display().to_string()
}

fn smtps(port: u16, authority: &Path, source: &str, login: (&str, &str), ahead: &str, subject: &str) -> (bool, String) {
    let mut command = Command::new(program("python3"));
    let authority = authority.display().to_string();
    command.args(["-c", SMTPS, &port.to_string(), &authority, source, login.0, login.1, ahead]);
    let output = run(&mut command, &message(subject), DEADLINE);
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// A connection from an address of this machine that says nothing.
fn silent(source: [u8; 4], address: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((source, 0)).into()).expect("an address of this machine");
    socket.connect(&address.into()).expect("a connection");
    TcpStream::from(socket)
}

/// As many connections as one address can make, silent or stuck in their TLS handshake, keep no user of another
/// address out; one line tells of them.
#[test]
fn connections_of_one_address_that_say_nothing_keep_no_user_out() {
    let Pair { dir: _dir, mut daemon, sink, implicit, authority, _ports } =
        pair("allow = [\"10.0.0.0/8\"]\nmax_connections = 64");
    for (address, encrypted) in [(daemon.smtp, false), (implicit, true)] {
        // Of four places one address has one. What has no place is closed.
        let _held: Vec<TcpStream> = (0..20).map(|_| silent([127, 0, 0, 50], address)).collect();
        for n in 0..3 {
            let subject = format!("bob {encrypted} {n}");
            if encrypted {
                let (well, said) = smtps(address.port(), &authority, "127.0.0.60", ("bob", "pencil"), "", &subject);
                assert!(well, "{said}");
            } else {
                let mut bob = Client::connect_from([127, 0, 0, 60], address);
                bob.command(235, BOB);
                bob.send("<a@sender.test>", &["<b@example.test>"], &message(&subject));
            }
            sink.wait_subject(&subject, SOON);
        }
        let told = |line: &support::daemon::LogLine| {
            line.event().starts_with("too many connections of clients that have not logged in")
                && line.get("address").ends_with(&address.port().to_string())
        };
        let line = daemon.wait_log("who takes the places", told);
        assert_eq!((line.get("client"), line.get("places")), ("127.0.0.50".into(), "4".into()));
        let lines = daemon.log_lines().iter().filter(|line| told(line)).count();
        assert!(lines <= 2, "{lines} lines for 20 connections");
    }
    daemon.stop();
}

/// All that a program says on a connection to its end, or to `until`.
fn heard(stream: &mut TcpStream, until: &str) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("an option");
    let mut said = Vec::new();
    let mut piece = [0; 512];
    while until.is_empty() || !String::from_utf8_lossy(&said).contains(until) {
        match stream.read(&mut piece) {
            Ok(n @ 1..) => said.extend_from_slice(&piece[..n]),
            _ => break,
        }
    }
    String::from_utf8_lossy(&said).into_owned()
}

/// A relay with the user `bob` and two listeners of the same `keys`, one with TLS from the first byte, and a provider.
struct Pair {
    dir: TestDir,
    daemon: Daemon,
    sink: Sink,
    implicit: SocketAddr,
    authority: PathBuf,
    _ports: [Port; 2],
}

fn pair(keys: &str) -> Pair {
    let (dir, port, second) = (TestDir::new(), Port::reserve(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let authority = Authority::new(&dir, "test-ca");
    let made = authority.certificate(&dir, "127.0.0.1");
    let implicit = SocketAddr::from(([127, 0, 0, 1], second.at(1).port()));
    let daemon = Setup::new(&dir)
        .listener(keys)
        .with(&format!(
            "[[listener]]\naddress = \"{implicit}\"\n{keys}\ntls = {{ mode = \"implicit\", cert = \"{}\", key = \"{}\" }}\n\
             [[user]]\nname = \"bob\"\npassword = {{ file = \"{}\" }}\n",
            made.file.display(),
            made.key.display(),
            secret(&dir)
        ))
        .via("example", "example.test", sink.address, "rate = []")
        .start();
    Pair { authority: authority.file.clone(), dir, daemon, sink, implicit, _ports: [port, second] }
}

fn behind_a_proxy() -> Pair {
    // The harness looks for a greeting from 127.0.0.1.
    pair("allow = [\"203.0.113.0/24\"]\nproxy_from = [\"127.0.0.3\"]")
}

/// The address that a proxy tells counts: for who may relay, in the log, in `Received:`, for logins that fail.
#[test]
fn the_client_that_a_proxy_tells_of_is_the_client() {
    let mut world = behind_a_proxy();
    let smtp = SocketAddr::from(([127, 0, 0, 1], world.daemon.smtp.port()));
    let dialog = "EHLO app.test\r\nMAIL FROM:<a@sender.test>\r\nRCPT TO:<b@example.test>\r\nQUIT\r\n";
    let says = |header: &[u8]| {
        let mut stream = silent([127, 0, 0, 3], smtp);
        // In pieces, with the client's first words behind it in one of them.
        let bytes = [header, dialog.as_bytes()].concat();
        let at = header.len() / 2;
        stream.write_all(&bytes[..at]).expect("written");
        stream.write_all(&bytes[at..]).expect("written");
        heard(&mut stream, "")
    };
    let inside = says(b"PROXY TCP4 203.0.113.9 198.51.100.1 4660 25\r\n");
    assert!(inside.starts_with("220 ") && inside.contains("\r\n250 2.1.5 "), "{inside}");
    let outside = says(b"PROXY TCP4 198.51.100.7 198.51.100.1 4660 25\r\n");
    assert!(outside.starts_with("220 ") && outside.contains("\r\n554 5.7.1 "), "{outside}");
    // The proxy itself may not relay, nor somebody of whom it does not know who he is.
    let local = says(b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00");
    assert!(local.starts_with("220 ") && local.contains("\r\n554 5.7.1 "), "{local}");
    assert!(says(b"PROXY UNKNOWN\r\n").contains("\r\n554 5.7.1 "));
    // Whoever comes without a header, or is no proxy and has one, is nobody.
    assert_eq!(says(b""), "");
    world.daemon.wait_log("a proxy without a header", |line| line.event().starts_with("a proxy has told of no client"));
    let mut other = silent([127, 0, 0, 2], smtp);
    other.write_all(b"PROXY TCP4 203.0.113.9 198.51.100.1 4660 25\r\n").expect("written");
    let said = heard(&mut other, "");
    assert!(said.starts_with("220 ") && said.contains("\r\n421 4.7.0 No PROXY header"), "{said}");
    // Before TLS on a listener that begins with it, and the client may hand in mail.
    let header = "PROXY TCP4 203.0.113.9 198.51.100.1 4660 465\\r\\n";
    let port = world.implicit.port();
    let (well, said) = smtps(port, &world.authority, "127.0.0.3", ("", ""), header, "by version 1");
    assert!(well, "{said}");
    let header =
        "\\r\\n\\r\\n\\0\\r\\nQUIT\\n\\x21\\x11\\0\\x0c\\xcb\\0\\x71\\x09\\xc6\\x33\\x64\\x01\\x12\\x34\\x01\\xd1";
    let (well, said) = smtps(port, &world.authority, "127.0.0.3", ("", ""), header, "by version 2");
    assert!(well, "{said}");
    for subject in ["by version 1", "by version 2"] {
        let arrived = world.sink.wait_subject(subject, SOON);
        let (received, _) = split_received(&arrived.content);
        assert!(received.contains("[203.0.113.9]") && received.contains("ESMTPS"), "{received}");
    }
    let accepted = world.daemon.wait_log("accepted", |line| line.event() == "accepted");
    assert_eq!(accepted.get("client"), "203.0.113.9");
    // Who guesses is the client, not the proxy.
    let header = "PROXY TCP4 198.51.100.7 198.51.100.1 4660 465\\r\\n";
    let (well, said) = smtps(port, &world.authority, "127.0.0.3", ("bob", "wrong"), header, "never");
    assert!(!well && said.contains("535"), "{said}");
    let failed = world.daemon.wait_log("a failed login", |line| line.event() == "login failed");
    assert_eq!(failed.get("client"), "198.51.100.7");
    let bans = world.daemon.command_ok(&["user", "bans", "--json"], b"");
    assert!(bans.contains("\"198.51.100.7\"") && bans.lines().count() == 1, "{bans}");
    world.daemon.command_ok(&["user", "unban", "198.51.100.7"], b"");
    assert_eq!(world.daemon.command_ok(&["user", "bans"], b""), "no address has failed logins that count\n");
    let again = world.daemon.command(&["user", "unban", "198.51.100.7"], b"");
    assert_eq!(again.status.code(), Some(69));
    world.daemon.stop();
}

/// HAProxy itself, with both versions and its checks.
#[test]
#[ignore = "needs HAProxy: HAPROXY=/usr/sbin/haproxy cargo test --test scenarios access:: -- --ignored"]
fn haproxy_speaks_for_its_clients() {
    let at = std::env::var_os("HAPROXY").map_or_else(|| PathBuf::from("/usr/sbin/haproxy"), PathBuf::from);
    let mut world = behind_a_proxy();
    let (front, own) = (Port::reserve(), Port::reserve());
    let smtp = SocketAddr::from(([127, 0, 0, 1], world.daemon.smtp.port()));
    let front = [front.at(1).port(), own.at(1).port()];
    let config = world.dir.write(
        "haproxy.cfg",
        format!(
            "defaults\n mode tcp\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n\
             listen one\n bind 127.0.0.1:{}\n server a {smtp} source 127.0.0.3 send-proxy check inter 200ms\n\
             listen two\n bind 127.0.0.1:{}\n server a {} source 127.0.0.3 send-proxy-v2 check check-send-proxy inter 200ms\n",
            front[0], front[1], world.implicit
        ),
    );
    let mut haproxy = Command::new(at);
    haproxy.args(["-db", "-f"]).arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
    let mut haproxy = haproxy.spawn().expect("HAProxy");
    let connected = |port: u16| {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        wait_for("HAProxy", SOON, || TcpStream::connect(address).ok());
        address
    };
    // A client of this machine, of whom the proxy on this machine tells: an address of loopback, not in `allow`.
    let mut client = Client::connect_from([127, 0, 0, 9], connected(front[0]));
    client.command(250, "MAIL FROM:<a@sender.test>");
    client.command(554, "RCPT TO:<b@example.test>");
    client.command(250, "RSET");
    client.command(235, BOB);
    client.send("<a@sender.test>", &["<b@example.test>"], &message("through HAProxy 1"));
    connected(front[1]);
    let login = ("bob", "pencil");
    let (well, said) = smtps(front[1], &world.authority, "127.0.0.8", login, "", "through HAProxy 2");
    assert!(well, "{said}");
    for (subject, from) in [("through HAProxy 1", "[127.0.0.9]"), ("through HAProxy 2", "[127.0.0.8]")] {
        let arrived = world.sink.wait_subject(subject, SOON);
        let (received, _) = split_received(&arrived.content);
        assert!(received.contains(from), "{received}");
    }
    let _ = haproxy.kill();
    let _ = haproxy.wait();
    world.daemon.stop();
}

/// `via` and `priority` of a user come before routes, and the lists tell whose mail it is.
#[test]
fn users_have_a_way_and_a_priority_of_their_own_and_are_shown() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let (usual, special) = (Sink::start(port.at(2)), Sink::start(port.at(3)));
    let secret = secret(&dir);
    let mut daemon = Setup::new(&dir)
        .with(&format!(
            "[[user]]\nname = \"bob\"\npassword = {{ file = \"{secret}\" }}\nvia = \"special\"\npriority = -7\n\
             [[user]]\nname = \"ann\"\npassword = {{ file = \"{secret}\" }}\n\
             [provider.special]\nrelay = \"{}\"\ntls = \"off\"\nrate = []\n\
             [[route]]\nrecipient = \"*@example.test\"\npriority = 5",
            special.address
        ))
        .via("example", "example.test", usual.address, "rate = []")
        .start();
    daemon.command_ok(&["provider", "pause", "special"], b"");
    let mut bob = daemon.client();
    bob.command(250, "EHLO app.test");
    bob.command(235, BOB);
    bob.send("<a@sender.test>", &["<b@example.test>"], &message("of bob"));
    let mut ann = daemon.client();
    ann.command(250, "EHLO app.test");
    ann.command(235, "AUTH PLAIN AGFubgBwZW5jaWw=");
    ann.send("<a@sender.test>", &["<b@example.test>"], &message("of ann"));
    usual.wait_subject("of ann", SOON);
    let row = daemon.wait_row("bob's waits", |row| row.text("lane") == "special");
    assert_eq!((row.text("user"), row.number("priority")), ("bob".to_owned(), -7));
    assert_eq!(daemon.queue_list(&["--user", "BOB"]).len(), 1);
    assert!(daemon.queue_list(&["--user", "ann"]).is_empty());
    let list = daemon.command_ok(&["queue", "list"], b"");
    assert!(list.contains("a@sender.test (bob)"), "{list}");
    let shown = daemon.command_ok(&["queue", "show", &row.id()], b"");
    assert!(shown.contains("user        bob"), "{shown}");
    let told = daemon.command_ok(&["explain", "b@example.test", "--user", "bob"], b"");
    assert!(told.contains("by the user bob, priority -7, given by its [[user]] bob"), "{told}");
    assert!(told.contains("provider  special") && told.contains("the [[user]] bob has via = \"special\""), "{told}");
    let unknown = daemon.command(&["explain", "b@example.test", "--user", "bobb"], b"");
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("did you mean bob?"));
    daemon.command_ok(&["queue", "cancel", "--user", "bob"], b"");
    daemon.stop();
}

/// smtplib over TLS from the first byte with a certificate of its own, or without: port, authority, certificate, key,
/// what it says to log in (or nothing).
const CERTIFIED: &str = r#"
import smtplib, ssl, sys
port, ca, cert, key, login = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
if cert:
    context.load_cert_chain(cert, key)
smtp = smtplib.SMTP_SSL("127.0.0.1", int(port), context=context, timeout=30)
print(smtp.ehlo()[1].decode())
if login:
    print(smtp.docmd("AUTH", login))
smtp.sendmail("a@sender.test", ["b@example.test"], sys.stdin.buffer.read())
"#;

/// A certificate that an authority vouches for is a login: at once, by EXTERNAL where a client wants to say so, and
/// by no other certificate.
#[test]
fn a_certificate_of_a_user_is_a_login() {
    let (dir, port, second, third) = (TestDir::new(), Port::reserve(), Port::reserve(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let (own, theirs, others) =
        (Authority::new(&dir, "test-ca"), Authority::new(&dir, "clients-ca"), Authority::new(&dir, "others-ca"));
    let made = own.certificate(&dir, "127.0.0.1");
    let keys = |ask: &str| {
        format!(
            "auth = \"required\"\ntls = {{ mode = \"implicit\", cert = \"{}\", key = \"{}\", client_ca = \"{}\"{ask} }}",
            made.file.display(),
            made.key.display(),
            theirs.file.display()
        )
    };
    let (offered, required) = (second.at(1), third.at(1));
    let mut daemon = Setup::new(&dir)
        .with(&format!("[[listener]]\naddress = \"{offered}\"\n{}\n", keys("")))
        .with(&format!("[[listener]]\naddress = \"{required}\"\n{}\n", keys(", client_cert = \"required\"")))
        .with("[[user]]\nname = \"Printer\"\ncertificate = \"printer.test\"\nsenders = [\"*@sender.test\"]\n")
        .via("example", "example.test", sink.address, "rate = []")
        .start();
    let send = |port: u16, shown: Option<&ca::Certificate>, login: &str, subject: &str| {
        let path = |path: Option<&PathBuf>| path.map_or(String::new(), |path| path.display().to_string());
        let (cert, key) = (path(shown.map(|c| &c.file)), path(shown.map(|c| &c.key)));
        let mut command = Command::new(program("python3"));
        command.args(["-c", CERTIFIED, &port.to_string(), &own.file.display().to_string(), &cert, &key, login]);
        let output = run(&mut command, &message(subject), DEADLINE);
        (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (printer, forged) = (theirs.certificate(&dir, "printer.test"), others.certificate(&dir, "printer.test"));
    let unknown = theirs.certificate(&dir, "scanner.test");
    for (n, (port, login)) in [
        (offered.port(), ""),
        (offered.port(), "EXTERNAL ="),
        (offered.port(), "EXTERNAL cHJpbnRlcg=="),
        (required.port(), ""),
    ]
    .into_iter()
    .enumerate()
    {
        let subject = format!("certified {n}");
        let (well, said) = send(port, Some(&printer), login, &subject);
        assert!(well && (login.is_empty() || said.contains("235")), "{login}: {said}");
        let lines = said.lines().filter(|line| line.starts_with("AUTH ")).collect::<Vec<_>>();
        assert_eq!(lines, ["AUTH EXTERNAL"], "no user has a password: {said}");
        let arrived = sink.wait_subject(&subject, SOON);
        assert!(split_received(&arrived.content).0.contains("with ESMTPSA"));
    }
    let accepted = daemon.wait_log("accepted", |line| line.event() == "accepted");
    assert_eq!(accepted.get("user"), "Printer");
    // By curl, too, which says EXTERNAL.
    let mut curl = Command::new(program("curl"));
    curl.args(["-sS", "--url", &format!("smtps://127.0.0.1:{}", offered.port())]);
    curl.args(["--mail-from", "a@sender.test", "--mail-rcpt", "b@example.test", "--upload-file", "-"]);
    curl.args(["--user", "printer:", "--login-options", "AUTH=EXTERNAL"]);
    curl.arg("--cacert").arg(&own.file).arg("--cert").arg(&printer.file).arg("--key").arg(&printer.key);
    let output = run(&mut curl, &message("by curl"), DEADLINE);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    sink.wait_subject("by curl", SOON);
    // Nobody acts for another, and what others vouch for, or is of no user, or is not there, is no login.
    assert!(!send(offered.port(), Some(&printer), "EXTERNAL cm9vdA==", "never").1.contains("235"));
    for shown in [Some(&forged), Some(&unknown), None] {
        let (well, said) = send(offered.port(), shown, "", "never");
        assert!(!well && said.contains("530"), "{said}");
    }
    for shown in [Some(&forged), None] {
        let (well, said) = send(required.port(), shown, "", "never");
        assert!(!well && !said.contains("530"), "{said}");
    }
    // Of the one that does not count it is told which that is, and why.
    let line = daemon.wait_log("why not", |line| line.event() == "the certificate of a client does not count");
    assert_eq!((line.get("level"), line.get("client")), ("INFO".into(), "127.0.0.1".into()));
    assert_eq!(
        (line.get("why"), line.get("fingerprint").len()),
        ("no authority of `client_ca` has made it".into(), 64)
    );
    assert!(line.get("names").contains("printer.test"), "{}", line.get("names"));
    // The one that named root is still the printer by its certificate.
    assert_eq!(sink.count(), 6);
    daemon.stop();
}

/// Who sends more than a limit says is locked, over restarts, until a command ends it; others are only told to wait.
#[test]
fn who_sends_too_much_is_locked_or_refused() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let secret = secret(&dir);
    let mut daemon = Setup::new(&dir)
        .with(&format!(
            "[[user]]\nname = \"bob\"\npassword = {{ file = \"{secret}\" }}\n[[user]]\nname = \"ann\"\npassword = {{ file = \"{secret}\" }}\n\
             [[limit]]\neach_user = true\nquota = \"3/h\"\nover = \"lock\"\n\
             [[limit]]\nsender = \"slow@sender.test\"\nquota = \"1/h\"\nover = \"hold\"\n\
             [[limit]]\nsender = \"bulk@sender.test\"\nquota = \"2/h recipients\"\nover = \"reject\""
        ))
        .via("example", "example.test", sink.address, "rate = []")
        .start();
    let logged_in = |daemon: &Daemon, code: u16, login: &str| {
        let mut client = daemon.client();
        client.command(250, "EHLO app.test");
        client.command(code, login);
        client
    };
    let send = |client: &mut Client, from: &str| {
        client.try_send(from, &["<b@example.test>"], &message("x")).expect("a reply").code
    };
    let (mut one, mut other) = (logged_in(&daemon, 235, BOB), logged_in(&daemon, 235, BOB));
    let codes: Vec<u16> = (0..3).map(|n| send(if n == 1 { &mut other } else { &mut one }, "<a@sender.test>")).collect();
    assert_eq!(codes, [250; 3]);
    assert_eq!(send(&mut other, "<a@sender.test>"), 550);
    one.command(550, "MAIL FROM:<a@sender.test>");
    logged_in(&daemon, 525, BOB);
    let line = daemon.wait_log("an alert", |line| line.event().starts_with("user locked"));
    assert_eq!((line.get("level"), line.get("user"), line.get("what")), ("ERROR".into(), "bob".into(), "3/h".into()));
    assert_eq!(send(&mut logged_in(&daemon, 235, "AUTH PLAIN AGFubgBwZW5jaWw="), "<a@sender.test>"), 250);
    let shown = daemon.command_ok(&["user", "locked", "--json"], b"");
    assert!(shown.contains("\"bob\"") && shown.contains("more than 3/h") && shown.lines().count() == 1, "{shown}");
    // A lock is about logins, and this listener wants none.
    let table = daemon.command(&["user", "locked"], b"");
    let note = String::from_utf8_lossy(&table.stderr).into_owned();
    assert!(
        note.contains(&format!("relay at {} without a login", daemon.smtp)) && note.contains("auth = \"required\""),
        "{note}"
    );
    assert_eq!(send(&mut daemon.client(), "<a@sender.test>"), 250, "as the note says");
    for how in ["restart", "reload"] {
        match how {
            "restart" => {
                daemon.stop();
                daemon.start();
            }
            _ => _ = daemon.command_ok(&["reload"], b""),
        }
        logged_in(&daemon, 525, BOB);
    }
    assert_eq!(daemon.command(&["user", "unlock", "nobody"], b"").status.code(), Some(69));
    daemon.command_ok(&["user", "unlock", "BOB"], b"");
    assert_eq!(daemon.command_ok(&["user", "locked"], b""), "no user is locked\n");
    assert_eq!(send(&mut logged_in(&daemon, 235, BOB), "<a@sender.test>"), 250);
    daemon.stop();
    daemon.start();
    let mut bulk = logged_in(&daemon, 235, BOB);
    // What can never come in is not to be tried again.
    let three = ["<b@example.test>", "<c@example.test>", "<d@example.test>"];
    let never = bulk.try_send("<bulk@sender.test>", &three, &message("x")).expect("a reply");
    assert!(never.code == 554 && never.text().contains("the limit is 2/h recipients"), "{never:?}");
    let codes: Vec<u16> = (0..3).map(|_| send(&mut bulk, "<bulk@sender.test>")).collect();
    assert_eq!(codes, [250, 250, 503], "the third hears it at MAIL");
    daemon.wait_log("a refusal", |line| line.event() == "sender refused" && line.get("reply").starts_with("450 4.7.1"));
    // What is to be held is taken, and leaves when an operator says so.
    let mut slow = logged_in(&daemon, 235, "AUTH PLAIN AGFubgBwZW5jaWw=");
    let before = sink.count();
    let codes: Vec<u16> = (0..2).map(|_| send(&mut slow, "<slow@sender.test>")).collect();
    assert_eq!(codes, [250; 2]);
    sink.wait(before + 1, SOON);
    let held = daemon.wait_row("the second is held", |row| row.state() == "held");
    assert!(held.reason().starts_with("held: more than 1/h (limit slow@sender.test)"), "{}", held.reason());
    assert_eq!(daemon.queue_list(&["--user", "ann"]).len(), 1);
    daemon.command_ok(&["queue", "release", "--user", "ann"], b"");
    sink.wait(before + 2, SOON);
    daemon.stop();
}
