//! Limits for each source address (`limits_per = "source"`), measured at the receiver address by
//! address: rate, connections, quota, warm-up and its overflow, failover, kills and restarts in the
//! middle, and mail that waits while the configuration changes.

use crate::support;

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use support::daemon::{Daemon, Setup};
use support::mail::message;
use support::sink::{Received, Sink};
use support::{Port, SOON, TestDir, wait_for};

const TWO: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));
const THREE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 3));
const FOUR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 4));

/// Hands in messages of as many sender domains; the subjects are their numbers.
fn send(daemon: &Daemon, numbers: std::ops::Range<usize>) {
    let mut client = daemon.client();
    for n in numbers {
        client.send(&format!("<s@d{n}.test>"), &["<somebody@p.test>"], &message(&format!("message {n}")));
    }
}

/// The messages by the address they came from.
fn by_source(sink: &Sink, messages: &[Received]) -> BTreeMap<IpAddr, Vec<Received>> {
    let connections = sink.connections();
    let mut by_source: BTreeMap<IpAddr, Vec<Received>> = BTreeMap::new();
    for message in messages {
        by_source.entry(connections[message.connection].from).or_default().push(message.clone());
    }
    by_source
}

fn counts(sink: &Sink) -> BTreeMap<IpAddr, usize> {
    by_source(sink, &sink.messages()).into_iter().map(|(ip, messages)| (ip, messages.len())).collect()
}

/// Nothing came twice.
fn assert_once(messages: &[Received]) {
    let subjects: HashSet<String> = messages.iter().map(Received::subject).collect();
    assert_eq!(subjects.len(), messages.len(), "some came twice");
}

/// Connections from this address that were open at once, at most.
fn peak(sink: &Sink, from: IpAddr) -> usize {
    let mut events: Vec<(Instant, i32)> = Vec::new();
    for connection in sink.connections().into_iter().filter(|c| c.from == from) {
        events.push((connection.opened, 1));
        events.extend(connection.closed.map(|at| (at, -1)));
    }
    // What is closed and what is opened at one instant were not open together.
    events.sort();
    let mut open = 0;
    let most = events.into_iter().map(|(_, change)| {
        open += change;
        open
    });
    usize::try_from(most.max().unwrap_or(0)).expect("not negative")
}

/// Rate and connections hold for each address, and two carry twice as much as one; a `[[limit]]` is
/// a part of the whole.
#[test]
fn each_source_has_rate_and_connections_for_itself() {
    const RATE: f64 = 20.0;
    const EACH: usize = 100;
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(9));
    let keys = "source = [\"127.0.0.2\", \"127.0.0.3\"]\nlimits_per = \"source\"\n\
                connections = 2\nrate = \"20/s\"\nburst = 1";
    let daemon = Setup::new(&dir)
        .via("p", "p.test", sink.address, keys)
        .with("[[limit]]\nsender = \"*@slow.d*.test\"\nrate = \"10/s\"")
        .start();
    send(&daemon, 0..2 * EACH);
    let messages = sink.wait(2 * EACH, Duration::from_secs(60));
    let by_source = by_source(&sink, &messages);
    assert_eq!(by_source.keys().copied().collect::<Vec<_>>(), [TWO, THREE]);
    let all: Vec<Instant> = messages.iter().map(|m| m.began).collect();
    let took = *all.iter().max().expect("some") - *all.iter().min().expect("some");
    for (source, messages) in &by_source {
        let worst = worst_excess(messages, RATE);
        println!(
            "{source}: {} messages in {took:?}, {worst:.2} over the rate at worst, {} connections at most",
            messages.len(),
            peak(&sink, *source)
        );
        assert!(worst <= 0.0, "{source}: {worst:.2} messages too many in a window");
        assert!((1..=2).contains(&peak(&sink, *source)), "{source}: {} connections", peak(&sink, *source));
    }
    let share = by_source.values().map(Vec::len).max().expect("two");
    let ideal = Duration::from_secs_f64(share as f64 / RATE);
    assert!(took < ideal.mul_f64(1.25), "{took:?}: the two did not send at the same time, else {ideal:?}");

    // Another sender's share is one for both sources: they are not twice as fast.
    let mut client = daemon.client();
    for n in 0..40 {
        client.send(&format!("<s@slow.d{n}.test>"), &["<somebody@p.test>"], &message(&format!("slow {n}")));
    }
    let messages = sink.wait(2 * EACH + 40, SOON);
    let slow: Vec<Received> = messages.into_iter().filter(|m| m.subject().starts_with("slow")).collect();
    assert_eq!(self::by_source(&sink, &slow).len(), 2);
    let worst = worst_excess(&slow, 10.0);
    assert!(worst <= 0.0, "{worst:.2} messages too many in a window of the share");
    daemon.wait_queue_empty(SOON);
    sink.assert_legal();
}

/// The greatest excess over `rate × t + 1` in any window. 100 ms are for a busy machine: what is to
/// be seen is whether it is this rate or that of two; its precision is measured in `scenarios/limits.rs`.
fn worst_excess(messages: &[Received], rate: f64) -> f64 {
    let mut times: Vec<Instant> = messages.iter().map(|m| m.began).collect();
    times.sort();
    let mut worst = f64::MIN;
    for (i, first) in times.iter().enumerate() {
        for (j, last) in times.iter().enumerate().skip(i) {
            let window = (*last - *first + Duration::from_millis(100)).as_secs_f64();
            worst = worst.max((j - i + 1) as f64 - (rate * window + 1.0));
        }
    }
    worst
}

/// Invariant 3 for each address, across `kill -9`; and an operator sees provider and source.
#[test]
fn each_source_has_its_quota_for_itself_also_when_killed() {
    const QUOTA: usize = 20;
    const MESSAGES: usize = 100;
    const KILLS: usize = 4;
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(9));
    let keys = format!(
        "source = [\"127.0.0.2\", \"127.0.0.3\"]\nlimits_per = \"source\"\nconnections = 2\nrate = \"30/s\"\n\
         quota = [\"{QUOTA}/d\"]\nidle_timeout = \"1s\""
    );
    let mut daemon = Setup::new(&dir).via("p", "p.test", sink.address, &keys).start();
    send(&daemon, 0..MESSAGES);
    for kill in 0..KILLS {
        let so_far = sink.count();
        // In the middle: something has left since the last time, or nothing more can.
        wait_for("some more messages", SOON, || (sink.count() >= (so_far + 5).min(2 * (QUOTA - kill))).then_some(()));
        daemon.kill();
        daemon.start();
    }
    wait_for("most of both quotas", SOON, || {
        let counts = counts(&sink);
        [TWO, THREE].iter().all(|ip| counts.get(ip).is_some_and(|n| *n >= QUOTA - KILLS)).then_some(())
    });
    for source in ["127.0.0.2", "127.0.0.3"] {
        wait_for("each lane to say what holds it", SOON, || {
            let text = daemon.command_ok(&["provider", "show", &format!("p@{source}"), "--json"], b"");
            text.contains(&format!("quota {QUOTA}/d used up: ")).then_some(())
        });
    }
    let counts = counts(&sink);
    println!("{counts:?} under {QUOTA}/d for each source, killed {KILLS} times");
    assert!(counts.values().all(|n| *n <= QUOTA), "{counts:?}");

    let waiting = daemon.queue_list(&["--provider", "p"]);
    let seen: HashSet<String> = sink.messages().iter().map(Received::subject).collect();
    assert!(waiting.len() + seen.len() >= MESSAGES, "{} wait, {} arrived", waiting.len(), seen.len());
    for row in &waiting {
        assert_eq!(row.text("provider"), "p");
        assert!(["p@127.0.0.2", "p@127.0.0.3"].contains(&row.text("lane").as_str()), "{row:?}");
    }
    let of_two = daemon.queue_list(&["--provider", "p@127.0.0.2"]).len();
    assert!(of_two > 0 && of_two < waiting.len(), "{of_two} of {}", waiting.len());
    let shown = daemon.command_ok(&["provider", "show", "p", "--json"], b"");
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!((shown["name"].as_str(), shown["sources"].as_array().map(Vec::len)), (Some("p"), Some(2)), "{shown}");
    let line = daemon.wait_log("a delivery", |line| line.event() == "delivered");
    assert_eq!(line.get("provider"), "p");
    assert!(["127.0.0.2", "127.0.0.3"].contains(&line.get("source").as_str()), "{line:?}");
}

/// UTC days since 1970.
fn today() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs() / 86_400
}

/// A new address warms up, the old one carries the rest; also across a kill and a restart.
#[test]
fn what_a_warming_source_has_no_room_for_leaves_from_the_other() {
    const DAY: usize = 10;
    const MESSAGES: usize = 120;
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(9));
    // Nearly every sender domain belongs to the new address.
    let keys = format!(
        "source = [\"127.0.0.2\", {{ address = \"127.0.0.3\", weight = 1000, \
         warmup = {{ start = \"2020-01-01\", days = [{DAY}], end = \"2029-12-01\", overflow = \"source\" }} }}]\n\
         limits_per = \"source\"\nconnections = 2\nrate = []"
    );
    let began = today();
    let mut daemon = Setup::new(&dir).via("p", "p.test", sink.address, &keys).start();
    send(&daemon, 0..MESSAGES / 2);
    sink.wait(MESSAGES / 4, SOON);
    daemon.kill();
    daemon.start();
    sink.wait(MESSAGES / 2, SOON);
    daemon.wait_queue_empty(SOON);
    send(&daemon, MESSAGES / 2..MESSAGES);
    sink.wait(MESSAGES, SOON);
    daemon.wait_queue_empty(SOON);
    let days = usize::try_from(today() - began + 1).expect("few");
    let counts = counts(&sink);
    println!("{counts:?} with {DAY} a day for 127.0.0.3");
    let warm = counts.get(&THREE).copied().unwrap_or_default();
    // A kill may cost a cell that was reserved; what was in flight then may have come twice.
    assert!(warm <= days * DAY && warm + 1 >= DAY, "{counts:?}");
    assert!(counts.get(&TWO).is_some_and(|n| *n >= MESSAGES - days * DAY), "{counts:?}");
    let lines = daemon.log_lines();
    assert!(!lines.iter().any(|line| ["deferred", "bounced", "expired"].contains(&line.event().as_str())));
    let moves: Vec<_> = lines.iter().filter(|line| line.event().contains("leaves from another source")).collect();
    assert!(!moves.is_empty() && moves.iter().all(|line| line.get("source") == "127.0.0.3"), "{moves:?}");
    let moved: usize = moves.iter().map(|line| line.get("recipients").parse::<usize>().expect("a number")).sum();
    println!("{moved} recipients moved in {} steps", moves.len());
    assert!(moved <= MESSAGES, "{moved} moves of {MESSAGES} messages: they went to and fro");
    sink.assert_legal();
}

/// Without overflow the rest waits for tomorrow.
#[test]
fn without_overflow_the_rest_waits() {
    const DAY: usize = 5;
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(9));
    let keys = format!(
        "source = [\"127.0.0.2\", \"127.0.0.3\"]\nlimits_per = \"source\"\nrate = []\nidle_timeout = \"1s\"\n\
         warmup = {{ start = \"2020-01-01\", days = [{DAY}], end = \"2029-12-01\" }}"
    );
    let began = today();
    let daemon = Setup::new(&dir).via("p", "p.test", sink.address, &keys).start();
    send(&daemon, 0..40);
    sink.wait(2 * DAY, SOON);
    for source in ["127.0.0.2", "127.0.0.3"] {
        wait_for("each lane to say what holds it", SOON, || {
            let text = daemon.command_ok(&["provider", "show", &format!("p@{source}"), "--json"], b"");
            text.contains("warm-up day ").then_some(())
        });
    }
    let days = usize::try_from(today() - began + 1).expect("few");
    let counts = counts(&sink);
    assert!(counts.values().all(|n| (DAY..=days * DAY).contains(n)) && counts.len() == 2, "{counts:?}");
    assert_eq!(daemon.queue_list(&[]).len(), 40 - sink.count());
}

/// An address that cannot be bound: its mail goes to the lane of the next, at once and untried.
#[test]
fn mail_of_a_source_that_cannot_be_bound_moves_to_the_next() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(9));
    // 192.0.2.0/24 is for documentation: no machine has it.
    let keys = "source = [{ address = \"192.0.2.1\", weight = 1000 }, \"127.0.0.3\"]\nlimits_per = \"source\"\n\
                connections = 2\nrate = []";
    let daemon = Setup::new(&dir).via("p", "p.test", sink.address, keys).start();
    send(&daemon, 0..40);
    let messages = sink.wait(40, SOON);
    daemon.wait_queue_empty(SOON);
    assert_eq!(counts(&sink), [(THREE, 40)].into());
    assert_once(&messages);
    let lines = daemon.log_lines();
    assert!(!lines.iter().any(|line| line.event() == "deferred"), "nothing waited for it");
    let delivered = lines.iter().filter(|line| line.event() == "delivered");
    assert!(delivered.clone().all(|line| line.get("source") == "127.0.0.3" && line.get("attempt") == "1"));
    assert_eq!(delivered.count(), 40);
}

/// Closes connections from 127.0.0.2 without a word and passes the others on.
fn picky(at: SocketAddr, sink: SocketAddr) {
    let listener = TcpListener::bind(at).expect("a listener");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            if stream.peer_addr().is_ok_and(|peer| peer.ip() == TWO) {
                continue;
            }
            let Ok(onward) = TcpStream::connect(sink) else { continue };
            for (mut from, mut to) in
                [(stream.try_clone().expect("a clone"), onward.try_clone().expect("a clone")), (onward, stream)]
            {
                thread::spawn(move || {
                    let _ = io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Write);
                });
            }
        }
    });
}

/// An address that gets no greeting: after three attempts its mail goes to the next.
#[test]
fn mail_of_a_source_that_gets_no_greeting_moves_to_the_next() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(9));
    picky(port.at(8), sink.address);
    let keys = "source = [{ address = \"127.0.0.2\", weight = 1000 }, \"127.0.0.3\"]\nlimits_per = \"source\"\n\
                connections = 1\nrate = []\n[provider.p.retry]\nfirst = \"100ms\"\nmax = \"200ms\"";
    let daemon = Setup::new(&dir).via("p", "p.test", port.at(8), keys).start();
    send(&daemon, 0..40);
    let messages = sink.wait(40, SOON);
    daemon.wait_queue_empty(SOON);
    assert_once(&messages);
    let lines = daemon.log_lines();
    let of = |event: &str| lines.iter().filter(|line| line.event() == event).cloned().collect::<Vec<_>>();
    let (delivered, deferred) = (of("delivered"), of("deferred"));
    assert!(delivered.len() == 40 && delivered.iter().all(|line| line.get("source") == "127.0.0.3"));
    println!("{} attempts from the address that does not work, then none", deferred.len());
    assert!(deferred.len() <= 3, "{deferred:?}");
    daemon.wait_log("the address that rests", |line| {
        line.event().contains("resting it") && line.get("source") == "127.0.0.2" && line.get("provider") == "p"
    });
}

/// Whatever the configuration was when mail came in, it leaves by the present one.
#[test]
fn nothing_is_stranded_when_key_and_addresses_change() {
    const EACH: usize = 30;
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(9));
    let both = "source = [\"127.0.0.2\", \"127.0.0.3\"]";
    let four = "source = [\"127.0.0.4\"]";
    let keys = format!("{both}\nlimits_per = \"provider\"\nconnections = 2\nrate = []");
    let mut daemon = Setup::new(&dir).via("p", "p.test", sink.address, &keys).start();
    let mut sent = 0;
    let mut round = |daemon: &mut Daemon, from: &[&str], to: &[&str]| {
        daemon.command_ok(&["provider", "pause", "p"], b"");
        send(daemon, sent..sent + EACH);
        assert_eq!(daemon.queue_list(&["--provider", "p"]).len(), EACH);
        assert_eq!(sink.count(), sent, "paused, with all its sources");
        daemon.stop();
        for (from, to) in from.iter().zip(to) {
            daemon.replace_config(from, to);
        }
        daemon.start();
        let told = daemon.command_ok(&["provider", "list", "--json"], b"");
        let of_p = told.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
        let paused: Vec<bool> = of_p.filter(|row| row["provider"] == "p").map(|row| row["paused"] == true).collect();
        assert!(!paused.is_empty() && paused.iter().all(|paused| *paused), "the pause is that of the provider: {told}");
        daemon.command_ok(&["provider", "resume", "p"], b"");
        sent += EACH;
        let messages = sink.wait(sent, SOON);
        daemon.wait_queue_empty(SOON);
        assert_once(&messages);
        by_source(&sink, &messages[sent - EACH..]).into_keys().collect::<Vec<IpAddr>>()
    };
    let per_source = "limits_per = \"source\"";
    let together = "limits_per = \"provider\"";
    assert_eq!(round(&mut daemon, &[together], &[per_source]), [TWO, THREE]);
    assert_eq!(round(&mut daemon, &[both], &[four]), [FOUR], "a source is gone");
    assert_eq!(round(&mut daemon, &[four], &[both]), [TWO, THREE]);
    assert_eq!(round(&mut daemon, &[per_source, both], &[together, four]), [FOUR], "one lane for all again");
    let deferred = daemon.log_lines().iter().filter(|line| line.event() == "deferred").count();
    assert_eq!(deferred, 0, "moving is no attempt");
    sink.assert_legal();
}
