//! What a connection has to show before a body leaves behind a BDAT that nobody has answered.

use tokio::net::TcpListener;

use crate::common::*;
use crate::connecting::{connector, host, route};

const MAIL: &str = "C: MAIL FROM:<from@example.org>";
const A: &str = "a@x.example";
const B: &str = "b@x.example";
const FIRST: &str = "Received: from app.example by relay.example\r\n";
/// What a host that does not know BDAT would obey.
const COMMANDS: &str =
    "RSET\r\nMAIL FROM:<evil@x.example>\r\nRCPT TO:<victim@x.example>\r\nDATA\r\nSubject: evil\r\n\r\n.\r\n";
const ACCEPTED: &str = "end of data: 250 ok";

fn mail() -> Mail {
    Mail::new(format!("{FIRST}Subject: hello\r\n\r\n{COMMANDS}"))
}

/// All of a transaction to A up to the body, on the way already, or on an old connection.
fn commands(verb: &str) -> String {
    format!("{MAIL}\nC: RCPT TO:<{A}>\n{verb}\n")
}

/// The first line of a first message, as it comes with the commands, and the replies to those.
fn begun() -> String {
    format!("hello PIPELINING|CHUNKING\n{}S: 250 ok\nS: 250 ok\n", commands("chunk"))
}

#[tokio::test(start_paused = true)]
async fn the_first_message_sends_a_line_ahead_the_second_goes_by_data_then_each_is_one_write() {
    let script = begun()
        + "S: 250 ok\nbdat\nS: 250 ok\n"
        + &commands("C: DATA")
        + "S: 250 ok\nS: 250 ok\nS: 354 go\ndata\nS: 250 ok\n"
        + &(commands("bdat") + "S: 250 ok\nS: 250 ok\nS: 250 ok\n").repeat(2)
        + "eof";
    let (mut connection, server) = new_session(&script).await;
    for _ in 0..4 {
        assert_eq!(fates(&mail().send(&mut connection, &[A]).await), [ACCEPTED]);
    }
    drop(connection);
    let bodies: Vec<String> =
        server.done().await.bodies.into_iter().map(|body| String::from_utf8(body).expect("ASCII")).collect();
    let whole = format!("{FIRST}Subject: hello\r\n\r\n{COMMANDS}");
    assert_eq!(bodies[0], FIRST);
    assert_eq!([bodies[0].as_str(), &bodies[1]].concat(), whole);
    assert_eq!(bodies[3..], [whole.clone(), whole]);
}

/// Whatever it says to the first chunk but that it has it: not an octet more.
#[tokio::test(start_paused = true)]
async fn a_host_that_does_not_know_bdat_is_sent_no_line_that_somebody_wrote() {
    let unknown = "the server offers CHUNKING and refuses it: ";
    for (replies, fate) in [
        // One for BDAT, one for the line.
        ("S: 500 5.5.1 what?\nS: 500 5.5.1 what?\neof", format!("DATA: {unknown}500 5.5.1 what?")),
        ("S: 551 5.7.1 Null BDAT request\neof", format!("DATA: {unknown}551 5.7.1 Null BDAT request")),
        ("S: 554 no\neof", format!("DATA: {unknown}554 no")),
        ("S: 452 4.3.1 full\neof", "DATA: 452 4.3.1 full".to_owned()),
        ("S: 354 go\neof", "DATA: unintelligible server: an intermediate reply where none can be".to_owned()),
        ("S: 421 bye\neof", "DATA: 421 bye".to_owned()),
        // It thanks for everything.
        ("raw: 250 ok\\r\\n250 ok\\r\\n\neof", "DATA: unintelligible server: more replies than commands".to_owned()),
        ("close", "DATA: the server closed the connection".to_owned()),
        ("eof", "DATA: no answer within 120 s".to_owned()),
    ] {
        let (mut connection, server) = new_session(&(begun() + replies)).await;
        assert_eq!(fates(&mail().send(&mut connection, &[A]).await), [fate], "{replies}");
        assert!(!connection.is_usable(), "{replies}");
        connection.quit().await;
        assert_eq!(server.done().await.bodies, [FIRST.as_bytes()], "{replies}");
    }
}

/// Where nobody is to get it, it may be refused for that; but then its answer to the line is the one that RSET gets.
#[tokio::test(start_paused = true)]
async fn a_first_chunk_for_nobody_shows_nothing() {
    let refused = "hello PIPELINING|CHUNKING\n".to_owned() + &commands("chunk") + "S: 250 ok\nS: 550 no\nS: 503 no\n";
    let again = refused.clone()
        + "C: RSET\n"
        + &commands("chunk")
        + "S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 250 ok\nbdat\nS: 250 ok\neof";
    let (mut connection, server) = new_session(&again).await;
    assert_eq!(fates(&mail().send(&mut connection, &[A]).await), ["RCPT: 550 no"]);
    assert_eq!(fates(&mail().send(&mut connection, &[A]).await), [ACCEPTED]);
    drop(connection);
    server.done().await;
    let unknown =
        refused + "C: RSET\n" + &commands("chunk") + "S: 500 what?\nS: 250 ok\nS: 250 ok\nS: 250 ok\nS: 500 what?\neof";
    let (mut connection, server) = new_session(&unknown).await;
    assert_eq!(fates(&mail().send(&mut connection, &[A]).await), ["RCPT: 550 no"]);
    assert_eq!(fates(&mail().send(&mut connection, &[A]).await), ["idle: 500 what?"]);
    assert!(!connection.is_usable());
    drop(connection);
    server.done().await;
}

/// It answers the last BDAT twice: the message is there once, and no other one gets the second answer.
#[tokio::test(start_paused = true)]
async fn an_answer_too_many_to_the_last_chunk_is_nobodys_fate() {
    let twice = begun() + "S: 250 ok\nbdat\nraw: 250 ok\\r\\n250 ok\\r\\n\neof";
    let (mut connection, server) = new_session(&twice).await;
    assert_eq!(fates(&mail().send(&mut connection, &[A]).await), [ACCEPTED]);
    assert!(!connection.is_usable());
    drop(connection);
    server.done().await;
    // The second one comes while the next message is on its way: A would be taken for B, who is refused.
    let late = begun()
        + "S: 250 ok\nbdat\nS: 250 ok\n"
        + &format!("{MAIL}\nC: RCPT TO:<{B}>\nC: RCPT TO:<{A}>\nC: DATA\n")
        + "S: 250 ok\nS: 250 ok\nS: 550 5.1.1 B?\nS: 250 A\nS: 354 go\neof";
    let (mut connection, server) = new_session(&late).await;
    assert_eq!(fates(&mail().send(&mut connection, &[A]).await), [ACCEPTED]);
    let told = "idle: unintelligible server: a final reply to DATA: 250 A";
    assert_eq!(fates(&mail().send(&mut connection, &[B, A]).await), [told, told]);
    assert!(!connection.is_usable());
    drop(connection);
    server.done().await;
}

/// The same after DATA, and by a host with which commands leave in one write.
#[tokio::test(start_paused = true)]
async fn no_recipient_keeps_the_answer_to_another_one() {
    let first =
        "hello PIPELINING\n".to_owned() + &commands("C: DATA") + "S: 250 ok\nS: 250 ok\nS: 354 go\ndata\nS: 250 ok\n";
    let second = format!("{MAIL}\nC: RCPT TO:<{B}>\nC: RCPT TO:<{A}>\nC: DATA\n");
    let script = first + &second + "S: 250 again\nS: 250 ok\nS: 550 5.1.1 B?\nS: 250 A\nS: 354 go\neof";
    let (mut connection, server) = new_session(&script).await;
    assert_eq!(fates(&mail().send(&mut connection, &[A]).await), [ACCEPTED]);
    let report = mail().send(&mut connection, &[B, A]).await;
    assert_eq!(fates(&report), ["DATA: unintelligible server: a final reply to DATA: 250 A"; 2]);
    drop(connection);
    server.done().await;
}

/// Octets have no DATA: a connection that has shown no more than that it takes them takes one message of them.
#[tokio::test(start_paused = true)]
async fn octets_leave_behind_a_line_that_was_taken_once_for_each_connection() {
    let octets = [FIRST.as_bytes(), b"Subject: x\r\n\r\n\0\n.\n", COMMANDS.as_bytes()].concat();
    let hello = "hello PIPELINING|CHUNKING|BINARYMIME\n";
    let begun = format!("{MAIL} BODY=BINARYMIME\nC: RCPT TO:<{A}>\nS: 250 ok\nS: 250 ok\nchunk\n");
    let (mut connection, server) = new_session(&format!("{hello}{begun}S: 250 ok\nbdat\nS: 250 ok\neof")).await;
    let mail_of_octets = Mail::octets(octets.clone());
    assert_eq!(fates(&mail_of_octets.send(&mut connection, &[A]).await), [ACCEPTED]);
    assert!(!connection.is_usable());
    drop(connection);
    assert_eq!(server.done().await.bodies.concat(), octets);

    let (mut connection, server) = new_session(&format!("{hello}{begun}S: 500 what?\nS: 500 what?\neof")).await;
    let told = "DATA: the server offers CHUNKING and refuses it: 500 what?";
    assert_eq!(fates(&mail_of_octets.send(&mut connection, &[A]).await), [told]);
    drop(connection);
    assert_eq!(server.done().await.bodies, [FIRST.as_bytes()]);

    // Lines went before: they leave no proof.
    let lines = hello.to_owned() + &commands("chunk") + "S: 250 ok\nS: 250 ok\nS: 250 ok\nbdat\nS: 250 ok\neof";
    let (mut connection, server) = new_session(&lines).await;
    assert_eq!(fates(&mail().send(&mut connection, &[A]).await), [ACCEPTED]);
    assert_eq!(
        fates(&mail_of_octets.send(&mut connection, &[A]).await),
        ["idle: not tried: octets have another connection"]
    );
    drop(connection);
    server.done().await;
}

/// What one program does not take is not held against another one at the same address.
#[tokio::test]
async fn what_a_host_does_not_take_is_remembered_with_its_port() {
    let begun = "hello PIPELINING|CHUNKING\nC: MAIL*\nC: RCPT*\n";
    let mut ports = Vec::new();
    let scripts = [
        "chunk\nS: 250 ok\nS: 250 ok\nS: 502 no\nclose",
        "chunk\nS: 250 ok\nS: 250 ok\nS: 250 ok\nbdat\nS: 250 ok\neof",
    ];
    let mut servers = Vec::new();
    for script in scripts {
        let listener = TcpListener::bind("127.0.0.88:0").await.expect("a port");
        ports.push(listener.local_addr().expect("an address").port());
        servers.push(Server::accept(listener, format!("{begun}{script}"), None));
    }
    let connector = connector();
    for (port, fate) in ports.into_iter().zip(["DATA: the server offers CHUNKING and refuses it: 502 no", ACCEPTED]) {
        let route = route(port, vec![host("a.example", 10, &["127.0.0.88"])]);
        let mut connection = connector.open(&provider(), &route).await.expect("a session");
        assert_eq!(fates(&mail().send(&mut connection, &[A]).await), [fate]);
    }
    for server in servers {
        server.done().await;
    }
}
