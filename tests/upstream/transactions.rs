//! MAIL to final reply, against servers that misbehave in every way known.

use std::time::Duration;

use mailweir::deliver::{Connection, Event, Stage};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::*;

const MAIL: &str = "C: MAIL FROM:<from@example.org>";
const A: &str = "a@x.example";
const B: &str = "b@x.example";

/// Greeting with PIPELINING and the commands of one transaction to A and B, not answered yet.
fn pipelined() -> String {
    format!("hello PIPELINING\n{MAIL}\nC: RCPT TO:<{A}>\nC: RCPT TO:<{B}>\nC: DATA\n")
}

/// The same with BDAT: the whole message is there before the first reply.
fn chunked() -> String {
    format!("hello PIPELINING|CHUNKING\n{MAIL}\nC: RCPT TO:<{A}>\nC: RCPT TO:<{B}>\nbdat\n")
}

#[tokio::test(start_paused = true)]
async fn with_pipelining_all_commands_leave_before_the_first_reply() {
    let script =
        pipelined() + "S: 250 2.1.0 ok\nS: 250 2.1.5 ok\nS: 250\nS: 354 go\ndata\nS: 250 2.0.0 queued as 1\neof";
    let (mut connection, server) = session(&script).await;
    let mail = Mail::new("Subject: dots\r\n\r\n.\r\n..x\r\nend");
    let report = mail.send(&mut connection, &[A, B]).await;
    assert_eq!(fates(&report), ["end of data: 250 2.0.0 queued as 1"; 2]);
    assert!(connection.is_usable() && !report.reused && connection.sent() == 1);
    drop(connection);
    assert_eq!(server.done().await.bodies, [b"Subject: dots\r\n\r\n..\r\n...x\r\nend\r\n.\r\n"]);
}

#[tokio::test(start_paused = true)]
async fn with_chunking_a_message_is_one_round_trip() {
    let script = chunked() + "S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 250 2.0.0 queued\neof";
    let (mut connection, server) = session(&script).await;
    let report = Mail::new("Subject: dots\r\n\r\n.\r\n..x\r\n").send(&mut connection, &[A, B]).await;
    assert_eq!(fates(&report), ["end of data: 250 2.0.0 queued"; 2]);
    drop(connection);
    assert_eq!(server.done().await.bodies, [b"Subject: dots\r\n\r\n.\r\n..x\r\n"]);
}

#[tokio::test(start_paused = true)]
async fn without_pipelining_every_command_waits_for_its_reply() {
    let script = format!(
        "hello SIZE 1000|8BITMIME\n{MAIL} SIZE=26\nS: 250 ok\nC: RCPT TO:<{A}>\nS: 250 ok\nC: RCPT TO:<{B}>\nS: 550 5.1.1 who\n\
         C: DATA\nS: 354 go\ndata\nS: 250 ok\n{MAIL} SIZE=26\nS: 250 ok\nC: RCPT TO:<{A}>\nS: 550 5.1.1 no\n\
         C: EHLO relay.example\nS: 250-mx.example\nS: 250-8BITMIME\nS: 250 SIZE 1000\n{MAIL} SIZE=26\nS: 451 4.3.0 busy\n\
         C: EHLO relay.example\nS: 250-mx.example\nS: 250-8BITMIME\nS: 250 SIZE 1000\neof"
    );
    let (mut connection, server) = session(&script).await;
    let report = hello().send(&mut connection, &[A, B]).await;
    assert_eq!(fates(&report), ["end of data: 250 ok", "RCPT: 550 5.1.1 who"]);
    let report = hello().send(&mut connection, &[A]).await;
    assert_eq!(fates(&report), ["RCPT: 550 5.1.1 no"]);
    let report = hello().send(&mut connection, &[A]).await;
    assert_eq!(fates(&report), ["MAIL: 451 4.3.0 busy"]);
    assert!(report.reused && connection.is_usable());
    drop(connection);
    server.done().await;
}

#[tokio::test(start_paused = true)]
async fn pipelining_and_chunking_can_be_switched_off() {
    let script = format!(
        "hello PIPELINING|CHUNKING\n{MAIL}\nS: 250 ok\nC: RCPT TO:<{A}>\nS: 250 ok\nC: DATA\nS: 354 go\ndata\nS: 250 ok\neof"
    );
    let mut p = provider();
    p.pipelining = false;
    let (connection, server) = over_pipe(&p, 4096, &script).await;
    let mut connection = connection.expect("a session");
    assert_eq!(fates(&hello().send(&mut connection, &[A]).await), ["end of data: 250 ok"]);
    drop(connection);
    server.done().await;
}

#[tokio::test(start_paused = true)]
async fn reply_text_that_is_not_utf8_or_missing_and_a_line_of_10_kb() {
    let long = "x".repeat(10_000);
    let script = pipelined()
        + &format!("S: 250\nS: 250 caf\\xe9\nS: 550-{long}\nS: 550 end\nS: 354\ndata\nS: 250 \\xff\\x07!\neof");
    let (fates, connection) = fates_of(&script, &[A, B]).await;
    assert_eq!(fates[0], "end of data: 250 \u{fffd} !");
    assert_eq!(fates[1].len(), "RCPT: 550 ".len() + 1000);
    assert!(connection.is_usable());
}

#[tokio::test(start_paused = true)]
async fn an_endless_reply_is_garbled_and_ends_the_connection() {
    let endless = "S: 250-more\n".repeat(200);
    let (fates, connection) = fates_of(&(pipelined() + &endless + "stall"), &[A, B]).await;
    assert_eq!(fates, ["MAIL: unintelligible server: a reply of more than 100 lines"; 2]);
    assert!(!connection.is_usable());
    let line = format!("raw: 250 {}\n", "x".repeat(70_000));
    let (fates, _) = fates_of(&(pipelined() + &line + "stall"), &[A, B]).await;
    assert_eq!(fates, ["MAIL: unintelligible server: a reply of more than 65536 bytes"; 2]);
}

#[tokio::test(start_paused = true)]
async fn mixed_codes_take_the_last_and_close_after_the_transaction() {
    let script = pipelined() + "S: 250 ok\nS: 250-a\nS: 550 b\nS: 250 ok\nS: 354 go\ndata\nS: 250 ok\nstall";
    let (fates, connection) = fates_of(&script, &[A, B]).await;
    assert_eq!(fates, ["RCPT: 550 a b", "end of data: 250 ok"]);
    assert!(!connection.is_usable());
}

#[tokio::test(start_paused = true)]
async fn an_enhanced_code_of_another_class_does_not_count() {
    let script = pipelined() + "S: 250 ok\nS: 450 5.1.1 x\nS: 250 ok\nS: 354 go\ndata\nS: 250 ok\nstall";
    let (mut connection, _server) = session(&script).await;
    let report = hello().send(&mut connection, &[A, B]).await;
    match &report.facts[0].event {
        Event::Reply(reply) => assert_eq!((reply.code, reply.enhanced), (450, None)),
        other => panic!("{other}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_421_at_any_time_ends_the_connection() {
    let dialogs = [
        ("S: 421 4.7.0 bye\nstall", ["MAIL: 421 4.7.0 bye"; 2]),
        ("S: 250 ok\nS: 250 ok\nS: 421 4.7.0 bye\nstall", ["RCPT: 421 4.7.0 bye"; 2]),
        ("S: 250 ok\nS: 550 no\nS: 421 4.7.0 bye\nstall", ["RCPT: 550 no", "RCPT: 421 4.7.0 bye"]),
        ("S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 421 4.7.0 bye\nstall", ["DATA: 421 4.7.0 bye"; 2]),
        (
            "S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 354 go\ndata\nS: 421 4.7.0 bye\nstall",
            ["end of data: 421 4.7.0 bye"; 2],
        ),
    ];
    for (dialog, expected) in dialogs {
        let (fates, connection) = fates_of(&(pipelined() + dialog), &[A, B]).await;
        assert_eq!(fates, expected);
        assert!(!connection.is_usable(), "{dialog}");
    }
    let (fates, connection) = fates_of(&(chunked() + "S: 250 ok\nS: 421 4.7.0 bye\nclose"), &[A, B]).await;
    assert_eq!(fates, ["RCPT: 421 4.7.0 bye"; 2]);
    assert!(!connection.is_usable());
}

#[tokio::test(start_paused = true)]
async fn pipelining_some_recipients_refused_each_has_its_own_fate() {
    let script = pipelined() + "S: 250 ok\nS: 550 5.1.1 who\nS: 250 ok\nS: 354 go\ndata\nS: 250 ok\neof";
    let (fates, connection) = fates_of(&script, &[A, B]).await;
    assert_eq!(fates, ["RCPT: 550 5.1.1 who", "end of data: 250 ok"]);
    assert!(connection.is_usable());
    let script = pipelined() + "S: 250 ok\nS: 250 ok\nS: 452 4.5.3 too many\nS: 354 go\ndata\nS: 250 ok\neof";
    assert_eq!(fates_of(&script, &[A, B]).await.0, ["end of data: 250 ok", "RCPT: 452 4.5.3 too many"]);
}

#[tokio::test(start_paused = true)]
async fn pipelining_all_refused_but_354_gets_a_lone_dot_and_rset_comes_first_next_time() {
    let next = format!(
        "C: RSET\n{MAIL}\nC: RCPT TO:<{A}>\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 250 ok\nS: 354 go\ndata\nS: 250 ok\neof"
    );
    let script = pipelined() + "S: 250 ok\nS: 550 a\nS: 551 b\nS: 354 go\nC: .\nS: 554 no valid recipients\n" + &next;
    let (mut connection, server) = session(&script).await;
    let report = hello().send(&mut connection, &[A, B]).await;
    assert_eq!(fates(&report), ["RCPT: 550 a", "RCPT: 551 b"]);
    assert!(connection.is_usable());
    let report = hello().send(&mut connection, &[A]).await;
    assert_eq!(fates(&report), ["end of data: 250 ok"]);
    drop(connection);
    server.done().await;

    let script = pipelined() + "S: 250 ok\nS: 550 a\nS: 551 b\nS: 503 5.5.1 no valid recipients\n" + &next;
    let (mut connection, server) = session(&script).await;
    let report = hello().send(&mut connection, &[A, B]).await;
    assert_eq!(fates(&report), ["RCPT: 550 a", "RCPT: 551 b"]);
    assert_eq!(fates(&hello().send(&mut connection, &[A]).await), ["end of data: 250 ok"]);
    drop(connection);
    server.done().await;
}

#[tokio::test(start_paused = true)]
async fn mail_refused_is_the_fate_of_all() {
    let script = pipelined() + "S: 451 4.7.1 greylisted\nS: 503 first MAIL\nS: 503 first MAIL\nS: 503 first MAIL\neof";
    let (fates, connection) = fates_of(&script, &[A, B]).await;
    assert_eq!(fates, ["MAIL: 451 4.7.1 greylisted"; 2]);
    assert!(connection.is_usable());
}

#[tokio::test(start_paused = true)]
async fn bdat_with_all_recipients_refused() {
    let next = format!("C: RSET\n{MAIL}\nC: RCPT TO:<{A}>\nbdat\nS: 250 ok\nS: 250 ok\nS: 250 ok\nS: 250 ok\neof");
    let script = chunked() + "S: 250 ok\nS: 550 a\nS: 550 b\nS: 503 5.5.1 no recipients\n" + &next;
    let (mut connection, server) = session(&script).await;
    assert_eq!(fates(&hello().send(&mut connection, &[A, B]).await), ["RCPT: 550 a", "RCPT: 550 b"]);
    assert_eq!(fates(&hello().send(&mut connection, &[A]).await), ["end of data: 250 ok"]);
    drop(connection);
    server.done().await;
    // It thanks for a message that nobody gets: not to be used again.
    let script = chunked() + "S: 250 ok\nS: 550 a\nS: 550 b\nS: 250 ok\nstall";
    let (fates, connection) = fates_of(&script, &[A, B]).await;
    assert_eq!(fates, ["RCPT: 550 a", "RCPT: 550 b"]);
    assert!(!connection.is_usable());
}

#[tokio::test(start_paused = true)]
async fn the_body_reply_is_for_all_accepted_recipients() {
    for head in [
        pipelined() + "S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 354 go\ndata\n",
        chunked() + "S: 250 ok\nS: 250 ok\nS: 250 ok\n",
    ] {
        let (fates, connection) = fates_of(&(head + "S: 550 5.7.1 <a@x.example> spam\neof"), &[A, B]).await;
        assert_eq!(fates, ["end of data: 550 5.7.1 <a@x.example> spam"; 2]);
        assert!(connection.is_usable());
    }
    let (fates, _) = fates_of(&(pipelined() + "S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 554 5.5.1 no\neof"), &[A, B]).await;
    assert_eq!(fates, ["DATA: 554 5.5.1 no"; 2]);
}

#[tokio::test(start_paused = true)]
async fn closes_after_354_in_mid_body_or_after_the_final_dot() {
    let go = pipelined() + "S: 250 ok\nS: 250 ok\nS: 250 ok\n";
    let (fates_, _) = fates_of(&(go.clone() + "close"), &[A, B]).await;
    assert_eq!(fates_, ["DATA: the server closed the connection"; 2]);
    let (fates_, connection) = fates_of(&(go.clone() + "S: 354 go\ndata\nclose"), &[A, B]).await;
    assert_eq!(fates_, ["end of data: the server closed the connection"; 2]);
    assert!(!connection.is_usable());
    let (fates_, _) = fates_of(&(go.clone() + "S: 354 go\ndata\nstall"), &[A, B]).await;
    assert_eq!(fates_, ["end of data: no answer within 600 s"; 2]);
    for end in ["close", "take 100000\nclose"] {
        let (mut connection, _server) = session(&(go.clone() + "S: 354 go\n" + end)).await;
        let report = Mail::new("0123456789abcdef\r\n".repeat(50_000)).send(&mut connection, &[A, B]).await;
        assert_eq!(fates(&report), ["body: the server closed the connection"; 2]);
        assert!(!connection.is_usable());
    }
    let (mut connection, _server) = session(&(go + "S: 354 go\nstall")).await;
    let report = Mail::new("0123456789abcdef\r\n".repeat(50_000)).send(&mut connection, &[A, B]).await;
    assert_eq!(fates(&report), ["body: no answer within 180 s"; 2]);
}

#[tokio::test(start_paused = true)]
async fn bdat_closes_before_the_last_reply() {
    let (fates, _) = fates_of(&(chunked() + "S: 250 ok\nS: 250 ok\nS: 250 ok\nclose"), &[A, B]).await;
    assert_eq!(fates, ["end of data: the server closed the connection"; 2]);
}

/// A refusal of the command itself, whose body is taken for commands: nobody's fate.
#[tokio::test(start_paused = true)]
async fn bdat_that_is_not_known_is_nobodys_fate_and_ends_the_connection() {
    for refused in ["500 5.5.1 what", "502 no BDAT", "503 5.5.1 DATA first", "504 5.5.4 no"] {
        let script = format!(
            "{}S: 250 ok\nS: 250 ok\nS: 550 5.1.1 who\nS: {refused}\nS: 500 what\nS: 500 what\nstall",
            chunked()
        );
        let (fates, connection) = fates_of(&script, &[A, B]).await;
        let expected = format!("end of data: the server offers CHUNKING and refuses it: {refused}");
        assert_eq!(fates, [expected.as_str(), "RCPT: 550 5.1.1 who"]);
        assert!(!connection.is_usable());
    }
    let script = chunked() + "S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 554 5.7.1 spam\neof";
    assert_eq!(fates_of(&script, &[A, B]).await.0, ["end of data: 554 5.7.1 spam"; 2]);
}

/// Once, and only where they may be what is refused.
#[tokio::test(start_paused = true)]
async fn mail_refused_for_its_parameters_goes_again_without_them() {
    for (extensions, refused) in
        [("SIZE", "555 5.5.4 unsupported"), ("PIPELINING|SIZE", "501 SIZE?"), ("SIZE", "504 5.5.4 no")]
    {
        let pipelined = extensions.starts_with("PIPELINING");
        let script = if pipelined {
            format!(
                "hello {extensions}\n{MAIL} SIZE=26\nC: RCPT TO:<{A}>\nC: DATA\nS: {refused}\nS: 503 no\nS: 503 no\n\
                 {MAIL}\nC: RCPT TO:<{A}>\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\ndata\nS: 250 ok\n\
                 {MAIL}\nC: RCPT TO:<{A}>\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\ndata\nS: 250 ok\neof"
            )
        } else {
            format!(
                "hello {extensions}\n{MAIL} SIZE=26\nS: {refused}\n{MAIL}\nS: 250 ok\nC: RCPT TO:<{A}>\nS: 250 ok\n\
                 C: DATA\nS: 354 go\ndata\nS: 250 ok\n\
                 {MAIL}\nS: 250 ok\nC: RCPT TO:<{A}>\nS: 250 ok\nC: DATA\nS: 354 go\ndata\nS: 250 ok\neof"
            )
        };
        let (mut connection, server) = session(&script).await;
        let told = format!("MAIL: the server offers parameters of MAIL and refuses it: {refused}");
        for expected in [told.as_str(), "end of data: 250 ok", "end of data: 250 ok"] {
            assert_eq!(fates(&hello().send(&mut connection, &[A]).await), [expected], "{refused}");
        }
        assert!(connection.is_usable());
        drop(connection);
        server.done().await;
    }
    // The sender is what it is about: the second refusal is the fate, and parameters go on.
    let again = "C: EHLO relay.example\nS: 250-mx.example\nS: 250-8BITMIME\nS: 250 SIZE\n";
    let script = format!(
        "hello SIZE|8BITMIME\n{MAIL} SIZE=26\nS: 501 bad sender\n{MAIL}\nS: 501 bad sender\n{again}{MAIL} SIZE=26\n\
         S: 550 5.7.1 no\n{again}{MAIL} SIZE=26\nS: 501 5.1.7 bad sender\n{again}eof"
    );
    let (mut connection, server) = session(&script).await;
    let told = "MAIL: the server offers parameters of MAIL and refuses it: 501 bad sender";
    for expected in [told, "MAIL: 501 bad sender", "MAIL: 550 5.7.1 no", "MAIL: 501 5.1.7 bad sender"] {
        assert_eq!(fates(&hello().send(&mut connection, &[A]).await), [expected]);
    }
    drop(connection);
    server.done().await;
    // Nothing to leave out.
    let script = format!("hello\n{MAIL}\nS: 501 what\neof");
    assert_eq!(fates_of(&script, &[A]).await.0, ["MAIL: 501 what"]);
}

#[tokio::test(start_paused = true)]
async fn a_parameter_of_rcpt_that_is_refused_is_not_the_address() {
    let mut recipient = mailweir::mail::Recipient::new(address(A));
    recipient.notify = mailweir::mail::Notify { given: true, success: false, failure: true, delay: false };
    for (refused, fate) in [
        ("555 5.5.4 NOTIFY", "RCPT: the server offers DSN and refuses it: 555 5.5.4 NOTIFY"),
        ("501 5.5.4 what", "RCPT: the server offers DSN and refuses it: 501 5.5.4 what"),
        ("501 5.1.3 bad address", "RCPT: 501 5.1.3 bad address"),
    ] {
        let script = format!("hello DSN\n{MAIL}\nS: 250 ok\nC: RCPT TO:<{A}> NOTIFY=FAILURE\nS: {refused}\neof");
        let (mut connection, _server) = session(&script).await;
        let mail = hello();
        let recipients = [recipient.clone()];
        let tx = mailweir::deliver::Transaction { message: &mail.message, recipients: &recipients, body: &mail };
        let report = connection.send(&tx).await;
        assert_eq!(fates(&report), [fate]);
        assert_eq!(connection.is_usable(), fate.ends_with("address"));
    }
}

#[tokio::test(start_paused = true)]
async fn closes_silently_at_its_own_message_cap() {
    let script = pipelined() + "S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 354 go\ndata\nS: 250 ok\nC: MAIL*\nclose";
    let (mut connection, _server) = session(&script).await;
    assert_eq!(fates(&hello().send(&mut connection, &[A, B]).await), ["end of data: 250 ok"; 2]);
    let report = hello().send(&mut connection, &[A]).await;
    assert_eq!(fates(&report), ["MAIL: the server closed the connection"]);
    assert!(report.reused, "so that it is not held against the server");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_in_mid_body_is_heard_while_the_server_reads_no_more() {
    // The first one of a host does not count: see `stray`.
    let big = Mail::new("0123456789abcdef\r\n".repeat(100_000));
    let script = pipelined() + "S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 354 go\ntake 50000\nS: 552 5.3.4 too big\nstall";
    let (mut connection, _server) = session(&script).await;
    let report = big.send(&mut connection, &[A, B]).await;
    let why = "idle: not tried: the refusal came before the end of the message and may have been about a recipient";
    assert_eq!(fates(&report), [why; 2]);
    assert!(!connection.is_usable());
    // The same for BDAT, where the replies before it come while the body is still on its way.
    let small = Mail::new("0123456789abcdef\r\n".repeat(10_000));
    let script = format!(
        "hello PIPELINING|CHUNKING\n{MAIL}\nS: 250 ok\nC: RCPT TO:<{A}>\nS: 250 ok\nC: BDAT*\ntake 5000\nS: 552 5.3.4 too big\nstall"
    );
    let (mut connection, _server) = session(&script).await;
    assert_eq!(fates(&small.send(&mut connection, &[A]).await), ["body: 552 5.3.4 too big"]);
    assert!(!connection.is_usable());
}

#[tokio::test(start_paused = true)]
async fn a_body_of_many_chunks_arrives_whole() {
    let body = "0123456789abcdef\r\n.dot\r\n".repeat(40_000);
    let script = pipelined() + "S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 354 go\ndata\nS: 250 ok\neof";
    let (mut connection, server) = session(&script).await;
    assert_eq!(fates(&Mail::new(body.clone()).send(&mut connection, &[A, B]).await), ["end of data: 250 ok"; 2]);
    drop(connection);
    let wire = String::from_utf8(server.done().await.bodies.remove(0)).expect("ASCII");
    assert!(wire == body.replace("\r\n.", "\r\n..") + ".\r\n");
}

#[tokio::test(start_paused = true)]
async fn what_is_illegal_on_the_wire_is_mended_and_bdat_counts_what_is_sent() {
    let script = chunked() + "S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 250 ok\neof";
    let (mut connection, server) = session(&script).await;
    let long = "x".repeat(1500);
    let mail = Mail::new(format!("Subject: x\r\n\r\n{long}\r\nbare\nlf\rcr"));
    assert_eq!(fates(&mail.send(&mut connection, &[A, B]).await), ["end of data: 250 ok"; 2]);
    drop(connection);
    let expected = format!("Subject: x\r\n\r\n{}\r\n {}\r\nbare\r\nlf\r\ncr\r\n", &long[..998], &long[998..]);
    assert_eq!(server.done().await.bodies, [expected.into_bytes()]);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_cannot_be_read_is_our_own_fault() {
    let script = pipelined() + "S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 354 go\ntake 262144\nstall";
    let (mut connection, _server) = session(&script).await;
    let mut mail = Mail::new("0123456789abcdef\r\n".repeat(50_000));
    mail.truncate(1);
    let report = mail.send(&mut connection, &[A, B]).await;
    assert_eq!(fates(&report), ["body: local: chunk 1 cannot be read"; 2]);
    assert!(!connection.is_usable(), "no dot may follow");

    let (mut connection, _server) = session("hello\nstall").await;
    mail.truncate(0);
    assert_eq!(fates(&mail.send(&mut connection, &[A]).await), ["body: local: chunk 0 cannot be read"]);
    assert!(connection.is_usable() && connection.sent() == 0, "nothing was said");
}

#[tokio::test(start_paused = true)]
async fn more_replies_than_commands_never_pass_for_acceptance() {
    for dialog in [
        // The 250 of DATA belongs to the second recipient.
        pipelined() + "S: 250 ok\nS: 250 stray\nS: 250 ok\nS: 250 ok\nS: 354 go\nstall",
        pipelined() + "S: 250 ok\nS: 250 ok\nS: 250 ok\nraw: 354 go\\r\\n250 stray\\r\\n\nstall",
        chunked() + "raw: 250 ok\\r\\n250 stray\\r\\n250 2.1.5 ok\\r\\n250 2.1.5 ok\\r\\n554 spam\\r\\n\nstall",
        pipelined() + &"S: 250 ok\n".repeat(20) + "stall",
    ] {
        let (fates, connection) = fates_of(&dialog, &[A, B]).await;
        assert!(fates.iter().all(|fate| fate.contains("unintelligible")), "{fates:?}");
        assert!(!connection.is_usable());
    }
}

#[tokio::test(start_paused = true)]
async fn two_thousand_recipients_do_not_deadlock_on_small_windows() {
    // The server answers each command at length before it reads the next one, through 1 KB pipes.
    let to: Vec<String> = (0..2000).map(|i| format!("recipient-{i}@x.example")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    let mut script = format!("hello PIPELINING\n{MAIL}\nS: 250 ok\n");
    for _ in &to {
        script.push_str(&format!("C: RCPT*\nS: 250 2.1.5 {}\n", "ok ".repeat(100)));
    }
    script.push_str("C: DATA\nS: 354 go\ndata\nS: 250 queued\neof");
    let (connection, server) = over_pipe(&provider(), 1024, &script).await;
    let mut connection = connection.expect("a session");
    let report = hello().send(&mut connection, &to).await;
    assert!(fates(&report).iter().all(|fate| fate == "end of data: 250 queued"));
    drop(connection);
    server.done().await;
}

#[tokio::test(start_paused = true)]
async fn every_stage_has_its_time_out() {
    let seconds = |report: &mailweir::deliver::Report| match report.facts[0].event {
        Event::Timeout(d) => (report.facts[0].stage, d.as_secs()),
        ref other => panic!("{other}"),
    };
    for (dialog, expected) in [
        ("stall", (Stage::Mail, 300)),
        ("S: 250 ok\nstall", (Stage::Rcpt, 300)),
        ("S: 250 ok\nS: 250 ok\nS: 250 ok\nstall", (Stage::Data, 120)),
        ("S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 354 go\nstall", (Stage::Final, 600)),
    ] {
        let (mut connection, _server) = session(&(pipelined() + dialog)).await;
        let report = hello().send(&mut connection, &[A, B]).await;
        assert_eq!(seconds(&report), expected);
        assert_eq!(report.took, Duration::from_secs(expected.1));
        assert!(!connection.is_usable());
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_host_cannot_take_is_not_tried() {
    let (mut connection, _server) = session("hello SIZE 100|PIPELINING\nstall").await;
    let big = Mail::new("x".repeat(101));
    assert_eq!(
        fates(&big.send(&mut connection, &[A]).await),
        ["MAIL: 5.3.4 the message has 101 bytes, mx.example takes at most 100"]
    );
    let eight = Mail::new("Subject: x\r\n\r\ncaf\u{e9}\r\n");
    assert!(fates(&eight.send(&mut connection, &[A]).await)[0].starts_with("MAIL: 5.6.3 "));
    let mut header = Mail::new("Subject: caf\u{e9}\r\n\r\n");
    header.message.envelope.smtputf8 = true;
    assert!(fates(&header.send(&mut connection, &[A]).await)[0].starts_with("MAIL: 5.6.7 "));
    let mut sender = hello();
    sender.message.envelope.reverse_path = Some(address("j\u{f6}rg@example.org"));
    assert!(fates(&sender.send(&mut connection, &[A]).await)[0].starts_with("MAIL: 5.6.7 the sender"));
    assert!(connection.is_usable() && connection.sent() == 0);
}

#[tokio::test(start_paused = true)]
async fn only_the_recipients_that_need_smtputf8_are_left_out() {
    let script = format!(
        "hello PIPELINING\n{MAIL}\nC: RCPT TO:<{A}>\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\ndata\nS: 250 ok\neof"
    );
    let (fates, _) = fates_of(&script, &["j\u{f6}rg@x.example", A]).await;
    assert!(fates[0].starts_with("MAIL: 5.6.7 the recipient"), "{}", fates[0]);
    assert_eq!(fates[1], "end of data: 250 ok");
}

/// A host without SMTPUTF8 knows an international domain by its A-label, which is the same domain.
#[tokio::test(start_paused = true)]
async fn an_international_domain_goes_to_any_host() {
    let script = "hello PIPELINING\nC: MAIL FROM:<me@xn--mller-kva.example>\nC: RCPT TO:<jo@xn--mller-kva.example>\n\
        C: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\ndata\nS: 250 ok\neof";
    let (mut connection, server) = session(script).await;
    let mut mail = hello();
    mail.message.envelope.smtputf8 = true;
    mail.message.envelope.reverse_path = Some(address("me@m\u{fc}ller.example"));
    assert_eq!(fates(&mail.send(&mut connection, &["jo@m\u{fc}ller.example"]).await), ["end of data: 250 ok"]);
    drop(connection);
    server.done().await;
}

#[tokio::test(start_paused = true)]
async fn smtputf8_and_8bitmime_are_asked_for_where_needed() {
    let tail = "S: 250 ok\nS: 250 ok\nS: 354 go\ndata\nS: 250 ok\n";
    let script = format!(
        "hello PIPELINING|SMTPUTF8|8BITMIME|DSN\n{MAIL} BODY=8BITMIME SMTPUTF8\nC: RCPT TO:<{A}>\nC: DATA\n{tail}\
         {MAIL} BODY=8BITMIME\nC: RCPT TO:<{A}>\nC: DATA\n{tail}\
         {MAIL} SMTPUTF8\nC: RCPT TO:<j\u{f6}rg@x.example>\nC: DATA\n{tail}eof"
    );
    let (mut connection, server) = session(&script).await;
    let mut mail = Mail::new("Subject: caf\u{e9}\r\n\r\n");
    mail.message.envelope.smtputf8 = true;
    let report = mail.send(&mut connection, &[A]).await;
    assert!(report.dsn);
    assert_eq!(fates(&report), ["end of data: 250 ok"]);
    let mut mail = Mail::new("Subject: x\r\n\r\ncaf\u{e9}\r\n");
    mail.message.envelope.smtputf8 = true;
    assert_eq!(fates(&mail.send(&mut connection, &[A]).await), ["end of data: 250 ok"]);
    assert_eq!(fates(&hello().send(&mut connection, &["j\u{f6}rg@x.example"]).await), ["end of data: 250 ok"]);
    drop(connection);
    server.done().await;
}

#[tokio::test(start_paused = true)]
async fn rset_refused_ends_the_connection_and_judges_nobody_by_it() {
    let script = pipelined() + "S: 250 ok\nS: 550 a\nS: 550 b\nS: 503 no\nC: RSET\nS: 502 no RSET here\nstall";
    let (mut connection, _server) = session(&script).await;
    let _ = hello().send(&mut connection, &[A, B]).await;
    let report = hello().send(&mut connection, &[A]).await;
    assert_eq!(fates(&report), ["idle: 502 no RSET here"]);
    assert!(!connection.is_usable());
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime")
}

/// A server that sends these pieces whatever it is told, one after each thing it reads, then closes.
async fn babble(pieces: Vec<Vec<u8>>, extensions: &str, to: usize) -> usize {
    let (near, mut far) = tokio::io::duplex(4096);
    let greeting = format!("220 x\r\n250-x\r\n{extensions}250 OK\r\n");
    let server = tokio::spawn(async move {
        let (hello, ehlo) = greeting.split_at(7);
        far.write_all(hello.as_bytes()).await?;
        let mut buf = [0; 4096];
        if far.read(&mut buf).await? == 0 {
            return Ok(());
        }
        far.write_all(ehlo.as_bytes()).await?;
        for piece in pieces {
            if far.read(&mut buf).await? == 0 {
                break;
            }
            far.write_all(&piece).await?;
        }
        Ok::<(), std::io::Error>(())
    });
    let p = provider();
    let mut connection = Connection::establish(near, setup(&p, "127.0.0.1")).await.expect("a session");
    let to: Vec<String> = (0..to).map(|i| format!("{i}@x.example")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    let mut facts = 0;
    for _ in 0..2 {
        facts += hello().send(&mut connection, &to).await.facts.len();
    }
    drop(connection);
    let _ = server.await;
    facts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_a_server_says_every_recipient_has_one_fate(
        pieces in proptest::collection::vec(prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..60),
            "([2-5][0-9][0-9][ -][ -~]{0,10}\r\n){1,6}".prop_map(String::into_bytes),
            Just(b"250 ok\r\n".to_vec()),
            Just(b"354 go\r\n".to_vec()),
        ], 0..12),
        extensions in prop_oneof![Just(""), Just("250-PIPELINING\r\n"), Just("250-PIPELINING\r\n250-CHUNKING\r\n")],
        to in 1usize..5,
    ) {
        prop_assert_eq!(runtime().block_on(babble(pieces, extensions, to)), 2 * to);
    }
}
