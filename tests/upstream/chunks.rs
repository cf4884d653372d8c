//! What a connection has to show before a body leaves behind a BDAT that nobody has answered.

use tokio::net::TcpListener;

use crate::common::*;
use crate::connecting::{connector, host, route};

const MAIL: &str = "C: MAIL FROM:<from@example.org>";
const A: &str = "a@x.example";
/// What a host that does not know BDAT would obey.
const COMMANDS: &str =
    "RSET\r\nMAIL FROM:<evil@x.example>\r\nRCPT TO:<victim@x.example>\r\nDATA\r\nSubject: evil\r\n\r\n.\r\n";
const TRIAL: &str = "NOOP\r\nNOOP\r\n";
const ACCEPTED: &str = "end of data: 250 2.0.0 queued";

fn mail() -> Mail {
    Mail::new(format!("Subject: hello\r\n\r\n{COMMANDS}"))
}

/// A message to A by DATA.
const DATA: &str = "C: MAIL FROM:<from@example.org>\nC: RCPT TO:<a@x.example>\nC: DATA\n\
    S: 250 2.1.0 ok\nS: 250 2.1.5 ok\nS: 354 go\ndata\nS: 250 2.0.0 queued\n";
/// The same by BDAT, in one write.
const BDAT: &str = "C: MAIL FROM:<from@example.org>\nC: RCPT TO:<a@x.example>\nbdat\n\
    S: 250 2.1.0 ok\nS: 250 2.1.5 ok\nS: 250 2.0.0 queued\n";
const ASKED: &str = "bdat\nC: EHLO relay.example\n";
const OFFERS: &str = "S: 250-mx.example\nS: 250-PIPELINING\nS: 250-CHUNKING\nS: 250 BINARYMIME\n";
const HELLO: &str = "hello PIPELINING|CHUNKING|BINARYMIME\n";

#[tokio::test(start_paused = true)]
async fn the_first_message_goes_by_data_then_a_trial_then_each_is_one_write() {
    let script = format!("{HELLO}{DATA}{ASKED}S: 503 5.5.1 need RCPT\n{OFFERS}{BDAT}{BDAT}eof");
    let (mut connection, server) = new_session(&script).await;
    for _ in 0..3 {
        assert_eq!(fates(&mail().send(&mut connection, &[A]).await), [ACCEPTED]);
    }
    drop(connection);
    let bodies = server.done().await.bodies;
    let whole = format!("Subject: hello\r\n\r\n{COMMANDS}");
    assert_eq!(bodies[1..], [TRIAL, &whole, &whole].map(|body| body.as_bytes().to_vec()));
}

/// Whatever it says to the trial but that it has read it: no body follows a BDAT, and no octets go there.
#[tokio::test(start_paused = true)]
async fn a_host_that_does_not_obey_is_sent_no_line_that_somebody_wrote() {
    let octets = Mail::octets([b"Subject: x\r\n\r\n\0\n.\n", COMMANDS.as_bytes()].concat());
    for replies in [
        // One for BDAT, one for each line: it does not know it, knows it not here, or thanks for everything.
        "S: 500 5.5.1 what?\nS: 250 ok\nS: 250 ok\n",
        "S: 503 5.5.1 need RCPT\nS: 250 ok\nS: 250 ok\n",
        "S: 503 5.5.1 need RCPT\nS: 500 what?\nS: 500 what?\n",
        "S: 250 ok\nS: 250 ok\nS: 250 ok\n",
        "S: 250 ok\n",
        // It reads the chunk, and does not take any.
        "S: 502 5.5.1 not implemented\n",
    ] {
        let script = format!("{HELLO}{DATA}{ASKED}{replies}{OFFERS}{DATA}{DATA}eof");
        let (mut connection, server) = new_session(&script).await;
        for _ in 0..3 {
            assert_eq!(fates(&mail().send(&mut connection, &[A]).await), [ACCEPTED], "{replies}");
        }
        drop(connection);
        server.done().await;
        let (mut connection, server) = new_session(&format!("{HELLO}{ASKED}{replies}{OFFERS}eof")).await;
        let told = "idle: not tried: the host does not obey BDAT: octets have to be converted";
        assert_eq!(fates(&octets.send(&mut connection, &[A]).await), [told], "{replies}");
        assert!(!connection.capabilities().binary_mime);
        drop(connection);
        server.done().await;
    }
}

/// It goes on as if that was a message, says more than it can, or nothing any more.
#[tokio::test(start_paused = true)]
async fn a_host_that_does_not_stand_the_trial_has_the_message_on_another_connection() {
    for replies in [
        "S: 354 go\nstall",
        "S: 503 no\nstall",
        "S: 421 bye\nclose",
        "close",
        "S: 503 no\nS: 250 one\nS: 250 two\nS: 250 three\nS: 250 four\nstall",
        "S: 503 no\nS: 250-mx.example\nS: 250-PIPELINING\nraw: 250 CHUNKING\\r\\n250 more\\r\\n\nstall",
    ] {
        let (mut connection, _server) = new_session(&format!("{HELLO}{DATA}{ASKED}{replies}")).await;
        assert_eq!(fates(&mail().send(&mut connection, &[A]).await), [ACCEPTED]);
        let told = fates(&mail().send(&mut connection, &[A]).await);
        assert!(told[0].starts_with("idle: "), "{replies}: {told:?}");
        assert!(!connection.is_usable());
    }
}

/// It answers the last BDAT twice: the message is there once, and no other one gets the second answer.
#[tokio::test(start_paused = true)]
async fn an_answer_too_many_to_the_last_chunk_is_nobodys_fate() {
    let twice = BDAT.replace("S: 250 2.0.0 queued", "raw: 250 2.0.0 queued\\r\\n250 2.0.0 queued\\r\\n");
    let script = format!("{HELLO}{DATA}{ASKED}S: 503 5.5.1 need RCPT\n{OFFERS}{twice}\neof");
    let (mut connection, server) = new_session(&script).await;
    for _ in 0..2 {
        assert_eq!(fates(&mail().send(&mut connection, &[A]).await), [ACCEPTED]);
    }
    assert!(!connection.is_usable());
    drop(connection);
    server.done().await;
}

/// The same after DATA, and by a host with which commands leave in one write.
#[tokio::test(start_paused = true)]
async fn no_recipient_keeps_the_answer_to_another_one() {
    let second = format!("{MAIL}\nC: RCPT TO:<b@x.example>\nC: RCPT TO:<{A}>\nC: DATA\n");
    let script = format!("hello PIPELINING\n{DATA}{second}")
        + "S: 250 again\nS: 250 ok\nS: 550 5.1.1 B?\nS: 250 A\nS: 354 go\neof";
    let (mut connection, server) = new_session(&script).await;
    assert_eq!(fates(&mail().send(&mut connection, &[A]).await), [ACCEPTED]);
    let report = mail().send(&mut connection, &["b@x.example", A]).await;
    assert_eq!(fates(&report), ["idle: unintelligible server: a final reply to DATA: 250 A"; 2]);
    drop(connection);
    server.done().await;
}

/// Octets have no DATA: the trial comes before the first of them, and where the end of one cannot be told from the
/// reply to a recipient, each has a connection of its own.
#[tokio::test(start_paused = true)]
async fn octets_leave_behind_a_trial() {
    let octets = [b"Subject: x\r\n\r\n\0\n.\n", COMMANDS.as_bytes()].concat();
    let mail_of_octets = Mail::octets(octets.clone());
    let trial = format!("{ASKED}S: 503 5.5.1 need RCPT\n{OFFERS}");
    let one = format!(
        "{MAIL} BODY=BINARYMIME\nC: RCPT TO:<{A}>\nS: 250 2.1.0 ok\nS: 250 2.1.5 ok\nbdat\nS: 250 2.0.0 queued\n"
    );
    let (mut connection, server) = new_session(&format!("{HELLO}{trial}{one}{one}{BDAT}eof")).await;
    for _ in 0..2 {
        assert_eq!(fates(&mail_of_octets.send(&mut connection, &[A]).await), [ACCEPTED]);
    }
    assert_eq!(fates(&mail().send(&mut connection, &[A]).await), [ACCEPTED]);
    drop(connection);
    assert_eq!(server.done().await.bodies[1..3], [octets.clone(), octets]);

    let alike = |script: &str| script.replace("2.1.0 ok", "ok").replace("2.1.5 ok", "ok").replace("2.0.0 queued", "ok");
    let (mut connection, server) = new_session(&format!("{HELLO}{trial}{}eof", alike(&one))).await;
    assert_eq!(fates(&mail_of_octets.send(&mut connection, &[A]).await), ["end of data: 250 ok"]);
    assert!(!connection.is_usable());
    drop(connection);
    server.done().await;
    let (mut connection, server) = new_session(&format!("{HELLO}{}eof", alike(DATA))).await;
    assert_eq!(fates(&mail().send(&mut connection, &[A]).await), ["end of data: 250 ok"]);
    let told = "idle: not tried: octets have another connection";
    assert_eq!(fates(&mail_of_octets.send(&mut connection, &[A]).await), [told]);
    drop(connection);
    server.done().await;
}

/// What one program does not take is not held against another one at the same address.
#[tokio::test]
async fn what_a_host_does_not_take_is_remembered_with_its_port() {
    let (mut ports, mut servers) = (Vec::new(), Vec::new());
    for refusal in ["502 no", "503 no"] {
        let listener = TcpListener::bind("127.0.0.88:0").await.expect("a port");
        ports.push(listener.local_addr().expect("an address").port());
        let last = if refusal == "502 no" { DATA } else { BDAT };
        let script = format!("{HELLO}{DATA}{ASKED}S: {refusal}\n{OFFERS}{last}eof");
        servers.push(Server::accept(listener, script, None));
    }
    let connector = connector();
    for port in ports {
        let route = route(port, vec![host("a.example", 10, &["127.0.0.88"])]);
        let mut connection = connector.open(&provider(), &route).await.expect("a session");
        for _ in 0..2 {
            assert_eq!(fates(&mail().send(&mut connection, &[A]).await), [ACCEPTED]);
        }
    }
    for server in servers {
        server.done().await;
    }
}
