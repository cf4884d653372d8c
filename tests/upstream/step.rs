//! Replies and commands that are out of step: what a host says too often is never the fate of another message.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use async_trait::async_trait;
use mailweir::deliver::connect::Dialer;
use mailweir::deliver::{Connection, Io};

use crate::common::*;
use crate::connecting::{connector, host, route};
use crate::server::play;

const MAIL: &str = "C: MAIL FROM:<from@example.org>";
const A: &str = "a@x.example";
const B: &str = "b@x.example";
const ACCEPTED: &str = "end of data: 250 2.0.0 queued";
const LATE: &str = "idle: unintelligible server: more replies than commands";
const UNKNOWN: &str = "idle: not tried: the refusal may have been about the message before";
const HELLO: &str = "C: EHLO relay.example\n";

/// What the host says to EHLO, one more time or at first.
fn offers(extensions: &str) -> String {
    format!("S: 250-mx.example\nS: 250-{}\nS: 250 ENHANCEDSTATUSCODES\n", extensions.replace('|', "\nS: 250-"))
}

/// A transaction to A that is taken, by DATA.
fn taken(pipelining: bool) -> String {
    if pipelining {
        format!(
            "{MAIL}\nC: RCPT TO:<{A}>\nC: DATA\nS: 250 2.1.0 ok\nS: 250 2.1.5 ok\nS: 354 go\ndata\nS: 250 2.0.0 queued\n"
        )
    } else {
        format!(
            "{MAIL}\nS: 250 2.1.0 ok\nC: RCPT TO:<{A}>\nS: 250 2.1.5 ok\nC: DATA\nS: 354 go\ndata\nS: 250 2.0.0 queued\n"
        )
    }
}

/// The trial of BDAT, which the host passes.
fn trial(extensions: &str) -> String {
    format!("bdat\n{HELLO}S: 503 5.5.1 need RCPT\n{}", offers(extensions))
}

/// Fates of a message to A on a connection that has carried one, and how the connection was left.
async fn second(script: &str) -> (Vec<String>, Connection) {
    let (mut connection, server) = new_session(script).await;
    assert_eq!(fates(&hello().send(&mut connection, &[A]).await), [ACCEPTED], "{script}");
    let second = fates(&hello().send(&mut connection, &[A]).await);
    drop(server);
    (second, connection)
}

/// It has said 250 to the first message, and its real verdict comes behind the second one's MAIL.
#[tokio::test(start_paused = true)]
async fn a_late_refusal_is_not_the_fate_of_the_next_message() {
    for late in ["554 5.7.1 message one is spam", "451 4.7.1 slow down", "501 5.5.4 what?"] {
        // Each further reply is the one to the command before.
        let serial = format!(
            "hello 8BITMIME\n{}{MAIL}\nS: {late}\n{HELLO}S: 250 2.1.0 ok\n{}stall",
            taken(false),
            offers("8BITMIME")
        );
        let pipelined = format!(
            "hello PIPELINING\n{}{MAIL}\nC: RCPT*\nC: DATA\nS: {late}\nS: 250 2.1.0 ok\nS: 250 2.1.5 ok\nS: 354 go\nstall",
            taken(true)
        );
        for (script, told) in [(serial, LATE), (pipelined, "idle: unintelligible server: a final reply to DATA")] {
            let (told_of, connection) = second(&script).await;
            assert!(told_of[0].starts_with(told), "{script}: {told_of:?}");
            assert!(!connection.is_usable(), "{script}");
        }
        // All of it is out, and may have been taken.
        let extensions = "PIPELINING|CHUNKING";
        let chunked = format!(
            "hello {extensions}\n{}{}{MAIL}\nC: RCPT*\nbdat\nS: {late}\nS: 250 2.1.0 ok\nS: 250 2.1.5 ok\nS: 250 2.0.0 ok\nstall",
            taken(true),
            trial(extensions)
        );
        let (told_of, connection) = second(&chunked).await;
        assert!(told_of[0].starts_with("end of data: unintelligible server: a positive reply"), "{told_of:?}");
        assert!(!connection.is_usable());
    }
}

/// The rest of its replies is as it should be, but for one: only an EHLO shows it.
#[tokio::test(start_paused = true)]
async fn a_late_refusal_shows_also_where_the_next_message_is_refused_too() {
    let script = format!(
        "hello PIPELINING\n{}{MAIL}\nC: RCPT*\nC: DATA\nS: 554 5.7.1 spam\nS: 451 4.3.0 busy\nS: 503 5.5.1 no\n\
         {HELLO}S: 503 5.5.1 no\n{}stall",
        taken(true),
        offers("PIPELINING")
    );
    assert_eq!(second(&script).await.0, [UNKNOWN]);
    // While the body was on its way; it was taken.
    let script = format!(
        "hello PIPELINING\n{}{MAIL}\nC: RCPT*\nC: DATA\nS: 250 ok\nS: 250 2.1.5 ok\nS: 354 go\ndata\nS: 554 5.7.1 spam\n\
         {HELLO}S: 250 2.0.0 queued\n{}stall",
        taken(true),
        offers("PIPELINING")
    );
    assert_eq!(second(&script).await.0, ["end of data: unintelligible server: more replies than commands"]);
}

/// Hosts that do not end a transaction with its message, or know a command no more, speak of the dialog: a fresh connection
/// decides, however well their replies are in step, and after a 503 each message has one.
#[tokio::test(start_paused = true)]
async fn a_word_on_the_dialog_of_a_used_connection_is_not_on_the_message() {
    for refused in [
        "S: 503 5.5.1 nested MAIL command\nS: 503 5.5.1 no\nS: 503 5.5.1 no\n",
        "S: 250 ok\nS: 503 5.5.1 need MAIL\nS: 503 5.5.1 no\n",
        "S: 250 ok\nS: 250 2.1.5 ok\nS: 503 5.5.1 need RCPT command\n",
        "S: 500 5.5.1 Command unrecognized\nS: 500 no\nS: 500 no\n",
        "S: 501 5.5.1 already specified sender\nS: 503 no\nS: 503 no\n",
    ] {
        let script = format!(
            "hello PIPELINING\n{first}{MAIL}\nC: RCPT*\nC: DATA\n{refused}{HELLO}{}stall",
            offers("PIPELINING"),
            first = taken(true)
        );
        let (told, connection) = second(&script).await;
        assert_eq!(told, [UNKNOWN], "{refused}");
        assert!(!connection.is_usable());
    }
    // On a fresh one it counts.
    let script = format!("hello 8BITMIME\n{MAIL}\nS: 503 5.5.1 no\neof");
    let (mut connection, _server) = new_session(&script).await;
    assert_eq!(fates(&hello().send(&mut connection, &[A]).await), ["MAIL: 503 5.5.1 no"]);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_a_used_connection_counts_when_ehlo_is_answered_behind_it() {
    for (refused, fate) in [
        ("S: 554 5.7.1 no\nS: 503 5.5.1 no\nS: 503 5.5.1 no\n", "MAIL: 554 5.7.1 no"),
        ("S: 451 4.7.1 later\nS: 503 5.5.1 no\nS: 503 5.5.1 no\n", "MAIL: 451 4.7.1 later"),
        ("S: 250 ok\nS: 250 2.1.5 ok\nS: 554 5.7.1 no\n", "DATA: 554 5.7.1 no"),
        ("S: 250 ok\nS: 250 2.1.5 ok\nS: 354 go\ndata\nS: 554 5.7.1 no\n", "end of data: 554 5.7.1 no"),
        ("S: 250 ok\nS: 550 5.1.1 who\nS: 450 4.5.1 no\n", "RCPT: 550 5.1.1 who"),
    ] {
        let script = format!(
            "hello PIPELINING\n{first}{MAIL}\nC: RCPT*\nC: DATA\n{refused}{HELLO}{}{first}eof",
            offers("PIPELINING"),
            first = taken(true)
        );
        let (mut connection, server) = new_session(&script).await;
        for expected in [ACCEPTED, fate, ACCEPTED] {
            assert_eq!(fates(&hello().send(&mut connection, &[A]).await), [expected], "{refused}");
        }
        assert!(connection.is_usable());
        drop(connection);
        server.done().await;
    }
    // No recipient, and no DATA either, for good: nothing has to be asked.
    let script = format!(
        "hello PIPELINING\n{first}{MAIL}\nC: RCPT*\nC: DATA\nS: 250 ok\nS: 550 5.1.1 who\nS: 554 5.5.1 nobody\nC: RSET\n{rest}eof",
        first = taken(true),
        rest = taken(true).replacen("S: ", "S: 250 reset\nS: ", 1)
    );
    let (mut connection, server) = new_session(&script).await;
    for expected in [ACCEPTED, "RCPT: 550 5.1.1 who", ACCEPTED] {
        assert_eq!(fates(&hello().send(&mut connection, &[A]).await), [expected]);
    }
    drop(connection);
    server.done().await;
}

/// A host that does not say: a refusal goes again, where nothing is out yet; who refuses a message at its end may leave.
#[tokio::test(start_paused = true)]
async fn a_host_that_hangs_up_on_that_has_the_message_asked_again() {
    for (end, fate) in [("close", UNKNOWN), ("stall", UNKNOWN), ("S: 503 5.5.1 again?\nstall", UNKNOWN)] {
        let script = format!("hello 8BITMIME\n{}{MAIL}\nS: 554 5.7.1 no\n{HELLO}{end}", taken(false));
        let (told, connection) = second(&script).await;
        assert_eq!(told, [fate], "{end}");
        assert!(!connection.is_usable());
    }
    let end = taken(false).replace("S: 250 2.0.0 queued", "S: 554 5.7.1 no");
    let script = format!("hello 8BITMIME\n{}{end}close", taken(false));
    assert_eq!(second(&script).await.0, ["end of data: 554 5.7.1 no"]);
    // In the middle of a body nothing can be asked.
    let script = format!(
        "hello 8BITMIME\n{}{MAIL}\nS: 250 ok\nC: RCPT*\nS: 250 ok\nC: DATA\nS: 354 go\ntake 5000\nS: 554 spam\nstall",
        taken(false)
    );
    let (mut connection, _server) = new_session(&script).await;
    assert_eq!(fates(&hello().send(&mut connection, &[A]).await), [ACCEPTED]);
    let big = Mail::new("0123456789abcdef\r\n".repeat(100_000));
    assert_eq!(fates(&big.send(&mut connection, &[A]).await), [UNKNOWN]);
    // Nothing can be late on a fresh one, and no EHLO is sent.
    let script = format!("hello 8BITMIME\n{MAIL}\nS: 554 5.7.1 no\neof");
    let (mut connection, server) = new_session(&script).await;
    assert_eq!(fates(&hello().send(&mut connection, &[A]).await), ["MAIL: 554 5.7.1 no"]);
    drop(connection);
    server.done().await;
}

/// B is refused, and a reply too many has moved that to DATA: A is not refused by it, on a fresh connection either.
#[tokio::test(start_paused = true)]
async fn a_refusal_of_data_may_be_that_of_a_recipient() {
    let script = format!(
        "hello PIPELINING\n{MAIL}\nC: RCPT TO:<{A}>\nC: RCPT TO:<{B}>\nC: DATA\n\
         S: 250 hello again\nS: 250 2.1.0 ok\nS: 250 2.1.5 ok\nS: 550 5.1.1 B?\nS: 354 go\nstall"
    );
    let (mut connection, _server) = new_session(&script).await;
    let told = "DATA: unintelligible server: more replies than commands";
    assert_eq!(fates(&hello().send(&mut connection, &[A, B]).await), [told; 2]);
    assert!(!connection.is_usable());
}

/// The 250 to a recipient is not that to a message by BDAT, whose own comes later or never.
#[tokio::test(start_paused = true)]
async fn a_reply_to_a_recipient_is_no_delivery() {
    let extensions = "PIPELINING|CHUNKING";
    let begin = format!("hello {extensions}\n{}{}", taken(true), trial(extensions));
    let script =
        begin + &format!("{MAIL}\nC: RCPT*\nbdat\nS: 250 2.0.0 queued\nS: 250 2.1.0 ok\nS: 250 2.1.5 ok\nstall");
    let (told, connection) = second(&script).await;
    let expected = "end of data: unintelligible server: a reply that may have been about something else: 250 2.1.5 ok";
    assert!(told[0].starts_with(expected), "{told:?}");
    assert!(!connection.is_usable());
    // Where both are the same words, it is DATA for ever.
    let same = taken(true).replace("2.1.0 ", "").replace("2.1.5 ", "").replace("2.0.0 queued", "ok");
    let script = format!("hello {extensions}\n{same}{same}{same}eof");
    let (mut connection, server) = new_session(&script).await;
    for _ in 0..3 {
        assert_eq!(fates(&hello().send(&mut connection, &[A]).await), ["end of data: 250 ok"]);
    }
    drop(connection);
    server.done().await;
}

/// Plays one script to each connection, in their order.
struct Scripts(Vec<String>, AtomicUsize);

#[async_trait]
impl Dialer for Scripts {
    async fn dial(&self, _: std::net::SocketAddr) -> std::io::Result<Box<dyn Io>> {
        let script = self.0[self.1.fetch_add(1, SeqCst)].clone();
        let (ours, theirs) = tokio::io::duplex(4096);
        tokio::spawn(async move { play(theirs, &script, None).await });
        Ok(Box::new(ours))
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_was_out_of_step_gets_one_message_a_connection() {
    let late = format!("{MAIL}\nS: 554 spam\n{HELLO}S: 250 2.1.0 ok\n{}stall", offers("8BITMIME"));
    for bad in [taken(false) + &late, taken(false) + "S: 250 2.0.0 queued twice\nstall"] {
        let scripts = vec![format!("hello 8BITMIME\n{bad}"), format!("hello 8BITMIME\n{}eof", taken(false))];
        let connector = connector().with_dialer(Arc::new(Scripts(scripts, AtomicUsize::new(0))));
        let route = route(25, vec![host("a.example", 10, &["192.0.2.1"])]);
        let mut first = connector.open(&provider(), &route).await.expect("a session");
        assert!(first.takes_more());
        assert_eq!(fates(&hello().send(&mut first, &[A]).await), [ACCEPTED]);
        // The second reply, where there is one, is there by now.
        tokio::task::yield_now().await;
        let _ = first.is_alive();
        let _ = hello().send(&mut first, &[A]).await;
        let mut next = connector.open(&provider(), &route).await.expect("a session");
        assert!(!next.takes_more());
        assert_eq!(fates(&hello().send(&mut next, &[A]).await), [ACCEPTED]);
    }
}
