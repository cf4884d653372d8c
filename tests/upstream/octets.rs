//! Messages announced as BINARYMIME (RFC 3030): as they are to a host that takes octets, one BDAT a chunk; never
//! behind DATA, whatever the host does.

use mailweir::mail::CHUNK;

use crate::common::*;

const MAIL: &str = "C: MAIL FROM:<from@example.org>";
const A: &str = "a@x.example";
const B: &str = "b@x.example";

const HEADER: &[u8] = b"Subject: octets\r\n\r\n";

/// What a reader of lines would take for the end of a message and the next one.
fn tricky() -> Vec<u8> {
    [HEADER, b"\0a\rb\nc\r\r\n\n.\n\r.\r\r\n.\r\nMAIL FROM:<evil@x.example>\r\n.\n", &[b'x'; 2000], b"\r"].concat()
}

/// Greeting and MAIL of a transaction to A and B with these extensions.
fn begun(extensions: &str) -> String {
    format!("hello {extensions}\n{MAIL} BODY=BINARYMIME\nC: RCPT TO:<{A}>\nC: RCPT TO:<{B}>\n")
}

#[tokio::test(start_paused = true)]
async fn octets_go_as_they_are_once_the_recipients_are_taken() {
    let script = begun("PIPELINING|8BITMIME|CHUNKING|BINARYMIME")
        + "S: 250 ok\nS: 250 ok\nS: 550 5.1.1 who\nbdat\nS: 250 2.0.0 queued\neof";
    let (mut connection, server) = session(&script).await;
    assert!(connection.capabilities().binary_mime);
    let report = Mail::octets(tricky()).send(&mut connection, &[A, B]).await;
    assert_eq!(fates(&report), ["end of data: 250 2.0.0 queued", "RCPT: 550 5.1.1 who"]);
    assert!(connection.is_usable());
    drop(connection);
    assert_eq!(server.done().await.bodies, [tricky()]);
}

/// Nothing of it is written where nobody takes it.
#[tokio::test(start_paused = true)]
async fn a_host_that_refuses_sender_or_recipients_gets_no_octets() {
    let refusals = ["S: 550 no\nS: 503 no\nS: 503 no\n", "S: 250 ok\nS: 550 no\nS: 550 no\nC: RSET\nS: 250 ok\n"];
    for refused in refusals {
        let script = begun("PIPELINING|CHUNKING|BINARYMIME")
            + refused
            + MAIL
            + "\nC: RCPT TO:<a@x.example>\nbdat\nS: 250 ok\nS: 250 ok\nS: 250 ok\neof";
        let (mut connection, server) = session(&script).await;
        let report = Mail::octets(tricky()).send(&mut connection, &[A, B]).await;
        assert!(fates(&report).iter().all(|fate| fate.ends_with(": 550 no")), "{:?}", fates(&report));
        assert_eq!(fates(&hello().send(&mut connection, &[A]).await), ["end of data: 250 ok"]);
        drop(connection);
        server.done().await;
    }
}

#[tokio::test(start_paused = true)]
async fn each_chunk_is_a_bdat_also_without_pipelining() {
    let body = [tricky(), (0..=255u8).cycle().take(2 * CHUNK).collect()].concat();
    let commands = format!(
        "hello CHUNKING|BINARYMIME\n{MAIL} BODY=BINARYMIME\nS: 250 ok\nC: RCPT TO:<{A}>\nS: 250 ok\nchunk\nS: 250 ok\n\
         chunk\nS: 250 ok\nbdat\nS: 250 2.0.0 queued\neof"
    );
    let (mut connection, server) = session(&commands).await;
    let report = Mail::octets(body.clone()).send(&mut connection, &[A]).await;
    assert_eq!(fates(&report), ["end of data: 250 2.0.0 queued"]);
    drop(connection);
    let bodies = server.done().await.bodies;
    assert_eq!(bodies.iter().map(Vec::len).collect::<Vec<_>>(), [CHUNK, CHUNK, body.len() - 2 * CHUNK]);
    assert!(bodies.concat() == body);
}

#[tokio::test(start_paused = true)]
async fn a_chunk_that_is_refused_ends_the_transaction() {
    let body = [HEADER, &vec![0; 2 * CHUNK]].concat();
    let go = begun("PIPELINING|CHUNKING|BINARYMIME") + "S: 250 ok\nS: 250 ok\nS: 250 ok\nchunk\n";
    for (rest, fate, usable) in [
        ("S: 552 5.3.4 too big\neof", "body: 552 5.3.4 too big", true),
        ("S: 452 4.3.1 full\neof", "body: 452 4.3.1 full", true),
        ("S: 421 4.3.2 bye\nclose", "body: 421 4.3.2 bye", false),
        ("S: 250 ok\nclose", "body: the server closed the connection", false),
        ("S: 250 ok\nchunk\nS: 250 ok\nbdat\nclose", "end of data: the server closed the connection", false),
        (
            "S: 250 ok\nS: 250 ok\nstall",
            "body: unintelligible server: a positive reply before the end of a chunk",
            false,
        ),
        ("S: 502 5.5.1 what\nstall", "body: the server offers CHUNKING and refuses it: 502 5.5.1 what", false),
    ] {
        let (mut connection, _server) = session(&(go.clone() + rest)).await;
        let report = Mail::octets(body.clone()).send(&mut connection, &[A, B]).await;
        assert!(fates(&report).iter().all(|f| f.starts_with(fate)), "{rest}: {:?}", fates(&report));
        assert_eq!(connection.is_usable(), usable, "{rest}");
    }
}

/// A queue that cannot be read ends the transaction before its end.
#[tokio::test(start_paused = true)]
async fn a_chunk_that_cannot_be_read_is_no_end_of_the_message() {
    let mut mail = Mail::octets([HEADER, &vec![0; 2 * CHUNK]].concat());
    mail.truncate(1);
    let script = begun("PIPELINING|CHUNKING|BINARYMIME") + "S: 250 ok\nS: 250 ok\nS: 250 ok\nchunk\nS: 250 ok\neof";
    let (mut connection, server) = session(&script).await;
    let report = mail.send(&mut connection, &[A, B]).await;
    assert_eq!(fates(&report), ["body: local: chunk 1 cannot be read"; 2]);
    assert!(!connection.is_usable());
    drop(connection);
    server.done().await;
}

/// What was not converted goes nowhere else: not a word is said of it.
#[tokio::test(start_paused = true)]
async fn octets_never_go_to_a_host_that_takes_lines() {
    for extensions in ["PIPELINING|8BITMIME|CHUNKING", "8BITMIME", "BINARYMIME|8BITMIME", ""] {
        let (mut connection, server) = session(&format!("hello {extensions}\neof")).await;
        assert!(!connection.capabilities().binary_mime, "{extensions}");
        let report = Mail::octets(tricky()).send(&mut connection, &[A]).await;
        let told = "MAIL: 5.6.3 the message has binary content";
        assert!(fates(&report)[0].starts_with(told), "{extensions}: {:?}", fates(&report));
        drop(connection);
        server.done().await;
    }
    let mut without = provider();
    without.chunking = false;
    let (connection, server) = over_pipe(&without, 4096, "hello CHUNKING|BINARYMIME\neof").await;
    let mut connection = connection.expect("a session");
    assert!(!connection.capabilities().binary_mime);
    assert!(fates(&Mail::octets(tricky()).send(&mut connection, &[A]).await)[0].contains("binary content"));
    drop(connection);
    server.done().await;
}

/// `BODY=BINARYMIME` refused: the same connection takes lines from then on.
#[tokio::test(start_paused = true)]
async fn a_host_that_refuses_the_parameter_takes_lines() {
    let script = begun("PIPELINING|CHUNKING|BINARYMIME") + "S: 555 5.5.4 BODY?\nS: 503 no\nS: 503 no\neof";
    let (mut connection, server) = session(&script).await;
    let mail = Mail::octets(tricky());
    let told = "MAIL: the server offers parameters of MAIL and refuses it: 555 5.5.4 BODY?";
    assert_eq!(fates(&mail.send(&mut connection, &[A, B]).await), [told; 2]);
    assert!(connection.is_usable() && !connection.capabilities().binary_mime);
    assert!(fates(&mail.send(&mut connection, &[A]).await)[0].contains("binary content"));
    drop(connection);
    server.done().await;
}
