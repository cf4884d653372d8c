//! Mail that is to leave at a time that its client names: HOLDFOR and HOLDUNTIL (RFC 4865), and the field `X-Send-At`.
//! It waits in the queue over a crash, counts for no limit meanwhile, and operators see and change its time.

use crate::support;

use std::time::{Duration, Instant};

use support::daemon::{Daemon, Row, Setup};
use support::mail::{header, message};
use support::sink::Sink;
use support::{Port, SOON, TestDir, wait_for};

const FROM: &str = "<sender@sender.test>";
const TO: &str = "<somebody@example.test>";

/// A message with a field in front.
fn with_field(subject: &str, field: &str) -> Vec<u8> {
    [field.as_bytes(), b"\r\n", &message(subject)].concat()
}

fn row(daemon: &Daemon, id: &str) -> Option<Row> {
    daemon.queue_list(&[]).into_iter().find(|row| row.id() == id)
}

fn ok(daemon: &Daemon, arguments: &[&str]) -> String {
    daemon.command_ok(arguments, b"")
}

/// Tomorrow at this time or so, as people and programs write it.
fn tomorrow() -> (String, String) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time");
    let at = mailweir::clock::Timestamp(i64::try_from(now.as_millis()).expect("a time") + 86_400_000);
    (mailweir::mail::date::Rfc5322(at).to_string(), at.to_string())
}

#[test]
fn mail_waits_for_its_time_over_a_crash_and_is_seen_changed_and_cancelled() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    // What waits counts for no quota before it leaves.
    let mut daemon = Setup::new(&dir)
        .via("example", "example.test", sink.address, "rate = []\nquota = [\"2/d\"]")
        .via("other", "other.test", sink.address, "rate = []")
        .start();
    let (date, iso) = tomorrow();
    let (day, folded) = (date.split_at(6).0, date.split_at(6).1);
    let mut client = daemon.client();
    let by_parameter = client.send(&format!("{FROM} HOLDFOR=86000"), &[TO], &message("by parameter"));
    let by_field =
        client.send(FROM, &[TO, "<x@other.test>"], &with_field("by field", &format!("X-Send-At: {day}\r\n {folded}")));
    let until =
        client.send(&format!("{FROM} HOLDUNTIL={iso}"), &["<y@other.test>"], &with_field("until", "x-send-at: never"));
    client.send(FROM, &[TO], &message("now 1"));
    client.send(&format!("{FROM} HOLDUNTIL=2001-01-01T00:00:00Z"), &[TO], &message("now 2"));
    let mut received: Vec<String> = sink.wait(2, SOON).iter().map(|message| message.subject()).collect();
    received.sort_unstable();
    assert_eq!(received, ["now 1", "now 2"]);

    // What was delivered is settled.
    wait_for("what left to be gone", SOON, || (daemon.queue_list(&[]).len() == 4).then_some(()));
    daemon.kill();
    daemon.start();
    for id in [&by_parameter, &by_field, &until] {
        let row = row(&daemon, id).unwrap_or_else(|| panic!("{id} is gone"));
        assert_eq!((row.state().as_str(), row.attempts(), row.reason().as_str()), ("queued", 0, ""));
        assert!(row.text("waits").starts_with("its time, ") && row.text("waits").contains("(in "), "{row:?}");
        assert!(row.text("release") == row.text("due"), "{row:?}");
    }
    let shown = ok(&daemon, &["queue", "show", &by_field]);
    assert!(shown.contains("waits: its time, "), "{shown}");
    // Nobody who wants to try again what failed means mail that waits for its time.
    let said = ok(&daemon, &["queue", "retry", "--all"]);
    assert!(said.contains("0 of 4 recipients "), "{said}");
    assert!(said.contains("4 wait for their time: `mailweir queue hold-until now` sends them"), "{said}");
    let said = ok(&daemon, &["queue", "retry", &until]);
    assert!(said.contains("0 of 1 recipients") && said.contains("1 wait for their time"), "{said}");

    let said = ok(&daemon, &["queue", "hold-until", "3d", &until]);
    assert!(said.contains("1 of 1 recipients to leave at ") && said.contains("(in 3 d)"), "{said}");
    assert!(row(&daemon, &until).expect("it waits").text("due") > iso);
    ok(&daemon, &["queue", "cancel", &by_parameter]);
    let said = ok(&daemon, &["queue", "hold-until", "now", &by_field, "--provider", "other"]);
    assert!(said.contains("1 of 1 recipients to leave at "), "{said}");
    let sent = sink.wait_subject("by field", SOON);
    assert_eq!((sent.to.len(), sent.to[0].as_str()), (1, "<x@other.test>"));
    assert_eq!(header(&sent.content, "X-Send-At"), None, "{}", String::from_utf8_lossy(&sent.content));
    let left: Vec<(String, String)> = daemon.queue_list(&[]).iter().map(|row| (row.id(), row.recipient())).collect();
    assert_eq!(left, [(by_field, "somebody@example.test".to_owned()), (until, "y@other.test".to_owned())]);
    assert_eq!(sink.count(), 3);
    sink.assert_legal();
}

#[test]
fn mail_leaves_by_itself_when_its_time_has_come() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let daemon = Setup::new(&dir).via("example", "example.test", sink.address, "rate = []").start();
    let mut client = daemon.client();
    let began = Instant::now();
    client.send(&format!("{FROM} HOLDFOR=2"), &[TO], &message("later"));
    let received = sink.wait(1, SOON);
    assert!(received[0].began.duration_since(began) >= Duration::from_secs(2), "it left before its time");
    daemon.wait_queue_empty(SOON);
    assert!(daemon.log_lines().iter().all(|line| line.event() != "deferred"));
}

#[test]
fn what_cannot_be_obeyed_is_refused_and_nothing_leaves() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let daemon = Setup::new(&dir)
        .listener("future_release = \"1h\"")
        .via("example", "example.test", sink.address, "rate = []")
        .start();
    let mut client = daemon.client();
    for (parameter, code) in [("HOLDFOR=3601", 501), ("HOLDUNTIL=2099-01-01T00:00:00Z", 501), ("HOLDFOR=soon", 501)] {
        client.command(code, &format!("MAIL FROM:{FROM} {parameter}"));
    }
    let (date, _) = tomorrow();
    for field in ["X-Send-At: tomorrow", "X-Send-At:", "X-SEND-AT: 2026-12-01T10:00:00", &format!("X-Send-At: {date}")]
    {
        let reply = client.try_send(FROM, &[TO], &with_field("refused", field)).expect("a reply");
        assert_eq!(reply.code, 554, "{field}");
        assert!(reply.text().contains("X-Send-At"), "{}", reply.text());
    }
    client.send(FROM, &[TO], &message("taken"));
    assert_eq!(sink.wait(1, SOON)[0].subject(), "taken");
    assert!(daemon.queue_list(&[]).is_empty());
}
