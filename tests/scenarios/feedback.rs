//! Receivers with limits that nobody told: what they say, what they do not say, and what is
//! remembered of it.

use crate::support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use support::daemon::{Daemon, Setup};
use support::mail::message;
use support::sink::{Answer, Ask, Options, Sink};
use support::{Port, SOON, TestDir, wait_for};

/// Two tests look at what the relay does within moments: they have the machine to themselves.
static MACHINE: parking_lot::RwLock<()> = parking_lot::RwLock::new(());

fn send(daemon: &Daemon, from: usize, to: usize) {
    let mut client = daemon.client();
    for n in from..to {
        let to = format!("<somebody{n}@example.test>");
        client.send("<sender@sender.test>", &[&to], &message(&format!("feedback {n}")));
    }
}

fn subjects(sink: &Sink) -> Vec<String> {
    let mut subjects: Vec<String> = sink.messages().iter().map(|message| message.subject()).collect();
    subjects.sort();
    subjects.dedup();
    subjects
}

fn deferred(daemon: &Daemon) -> usize {
    daemon.log_lines().iter().filter(|line| line.event() == "deferred").count()
}

/// Says `reply` to the first `times` messages, at MAIL.
fn refuse_first(times: usize, reply: &'static str) -> Options {
    let said = Mutex::new(0);
    Options::script(move |ask: &Ask| {
        let mut said = said.lock().expect("the count");
        if ask.verb == "MAIL" && *said < times {
            *said += 1;
            return Answer::say(reply);
        }
        Answer::Yes
    })
}

const SLOW: &str =
    "\n[[provider.example.on_reply]]\ncode = 451\ntext = \"4.7.99 too fast\"\nslow_to = \"120/m\"\nfor = \"1h\"";

#[test]
fn a_rule_slows_the_lane_and_nothing_is_deferred_and_a_kill_forgets_nothing() {
    let _machine = MACHINE.read();
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::with(port.at(2), refuse_first(1, "451 4.7.99 Too fast, my friend"));
    let keys = format!("rate = \"100/s\"\nconnections = 2{SLOW}");
    let mut daemon = Setup::new(&dir).via("example", "example.test", sink.address, &keys).start();
    send(&daemon, 0, 6);
    let line = daemon.wait_log("throttled", |line| line.event() == "throttled");
    assert!(line.get("effect").starts_with("slow to 120/m until 20"), "{:?}", line.0);
    assert!(line.get("rule").contains("config.toml:"), "{:?}", line.0);
    sink.wait(6, SOON);
    let mut times: Vec<Instant> = sink.messages().iter().map(|m| m.began).collect();
    times.sort();
    assert!(times[5] - times[0] > Duration::from_millis(2300), "two a second: {:?}", times[5] - times[0]);
    assert_eq!(deferred(&daemon), 0, "the lane waits, not the message");

    // What is in the store is not lost by a kill.
    wait_for("the state in the store", SOON, || {
        let files = ["queue.db", "queue.db-wal"].map(|name| std::fs::read(dir.join(name)).unwrap_or_default());
        files.iter().any(|bytes| bytes.windows(13).any(|w| w == b"adapt/example")).then_some(())
    });
    daemon.kill();
    daemon.start();
    daemon.wait_log("what holds from before", |line| {
        line.get("effect").starts_with("slow to 120/m until 20") && line.event().contains("before")
    });
    send(&daemon, 6, 10);
    sink.wait(10, SOON);
    let mut times: Vec<Instant> = sink.messages().iter().skip(6).map(|m| m.began).collect();
    times.sort();
    assert!(times[3] - times[0] > Duration::from_millis(1300), "still two a second: {:?}", times[3] - times[0]);
    daemon.wait_queue_empty(SOON);
}

/// What replies taught is shown wherever somebody asks, and counts in the estimate: beside the relay
/// that runs, and from the store when none does.
#[test]
fn what_was_learned_is_explained_with_and_without_a_running_relay() {
    let _machine = MACHINE.read();
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::with(port.at(2), refuse_first(1, "451 4.7.99 Too fast, my friend"));
    let rule = SLOW.replace("120/m", "12/m");
    let keys = format!("rate = \"100/s\"\nconnections = 2{rule}");
    let mut daemon = Setup::new(&dir).via("example", "example.test", sink.address, &keys).start();
    send(&daemon, 0, 12);
    daemon.wait_log("throttled", |line| line.event() == "throttled");
    let json = |daemon: &Daemon, arguments: &[&str]| -> serde_json::Value {
        serde_json::from_str(&daemon.command_ok(arguments, b"")).expect("one JSON object")
    };
    let explain = ["explain", "x@example.test", "--json"];
    let told = json(&daemon, &explain);
    assert_eq!(told["feedback"]["per_second"], 0.2, "{told}");
    assert_eq!(told["lane"]["status"]["feedback"], told["feedback"]);
    let because = told["feedback"]["because"][0].as_str().expect("a cause").to_owned();
    assert!(because.contains("slow to 12/m until 20") && because.contains("4.7.99 Too fast"), "{because}");
    assert!(because.contains("config.toml:"), "which rule: {because}");
    let ahead = told["lane"]["ahead_in_memory"].as_u64().expect("a number");
    let latest = told["lane"]["latest"].as_u64().expect("an estimate");
    assert!(ahead >= 8 && latest >= (ahead - 1) * 5, "{latest} s for {ahead} at 12/m: {told}");
    let shown = json(&daemon, &["provider", "show", "example", "--json"]);
    assert_eq!(shown["feedback"]["per_second"], 0.2, "{shown}");
    let text = daemon.command_ok(&["explain", "x@example.test"], b"");
    assert!(text.contains("Learned from replies") && text.contains("slowed to 12.0/m"), "{text}");
    assert!(text.contains("because of   slow to 12/m until 20"), "{text}");
    let text = daemon.command_ok(&["provider", "list"], b"");
    assert!(text.contains("slowed to 12.0/m") || text.contains("the pace that replies taught"), "{text}");

    daemon.stop();
    let told = json(&daemon, &explain);
    assert_eq!((told["running"].as_bool(), told["lane"].is_null()), (Some(false), true));
    assert_eq!(told["feedback"]["because"][0].as_str(), Some(because.as_str()), "{told}");
    let text = daemon.command_ok(&["provider", "show", "example"], b"");
    assert!(text.contains("mailweir is not running\nlearned from replies\n  now          slowed to 12.0/m"), "{text}");
    let text = daemon.command_ok(&["provider", "list"], b"");
    assert!(text.contains("not running, slowed to 12.0/m"), "{text}");
}

#[test]
fn a_rule_makes_a_550_temporary_and_delays_that_recipient_only() {
    let _machine = MACHINE.read();
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::with(port.at(2), refuse_first(1, "550 Mail frequency is over"));
    let rule = "\n[[provider.example.on_reply]]\ntext = \"frequency is over\"\ntreat_as = \"temporary\"\ndelay = \"6s\"\nscope = \"recipient\"";
    let daemon =
        Setup::new(&dir).via("example", "example.test", sink.address, &format!("connections = 1{rule}")).start();
    let sent = Instant::now();
    send(&daemon, 0, 4);
    sink.wait(3, SOON);
    assert!(sent.elapsed() < Duration::from_secs(6), "the others do not wait");
    sink.wait(4, SOON);
    assert!(sent.elapsed() >= Duration::from_secs(6));
    assert_eq!(subjects(&sink).len(), 4);
    assert!(!daemon.log_lines().iter().any(|line| line.event() == "bounced"));
    daemon.wait_queue_empty(SOON);
}

#[test]
fn a_rule_pauses_the_lane_after_its_threshold_and_says_why() {
    let _machine = MACHINE.read();
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::with(port.at(2), refuse_first(2, "450 4.7.2 take a break"));
    let rule = "\n[[provider.example.on_reply]]\ncode = 450\ntext = \"take a break\"\npause = true\nfor = \"3s\"\nafter = \"2/h\"";
    let keys = format!("connections = 1\nretry = {{ first = \"1s\" }}{rule}");
    let daemon = Setup::new(&dir).via("example", "example.test", sink.address, &keys).start();
    send(&daemon, 0, 5);
    let line = daemon.wait_log("throttled", |line| line.event() == "throttled");
    assert!(line.get("effect").starts_with("pause until 20"), "{:?}", line.0);
    let paused = Instant::now();
    let shown = daemon.command_ok(&["provider", "show", "example", "--json"], b"");
    assert!(shown.contains("take a break"), "{shown}");
    let before = sink.count();
    wait_for("the end of the pause", SOON, || (sink.count() > before).then_some(()));
    assert!(paused.elapsed() > Duration::from_millis(2000), "{:?}", paused.elapsed());
    sink.wait(5, SOON);
    daemon.wait_queue_empty(SOON);
}

#[test]
fn a_hidden_limit_of_connections_is_found() {
    let _machine = MACHINE.write();
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::with(port.at(2), Options { max_connections: 3, ..Options::default() });
    let daemon =
        Setup::new(&dir).via("example", "example.test", sink.address, "connections = 10\nrate = \"100/s\"").start();
    let began = Instant::now();
    send(&daemon, 0, 400);
    sink.wait(400, Duration::from_secs(60));
    daemon.wait_queue_empty(SOON);
    assert_eq!((subjects(&sink).len(), sink.count(), deferred(&daemon)), (400, 400, 0));
    let refused = sink.connections().iter().filter(|c| c.transactions == 0).count();
    println!("{refused} connections refused of {}", sink.connections().len());
    // The seven of the first wave and what makes it sure, as the tests of the controller have it exactly: here threads
    // decide who of a wave comes first, and each that is overtaken makes it take a few more. One more is tried every
    // ten seconds. Without learning it is a refusal for each message that finds no connection.
    let most = 20 + usize::try_from(began.elapsed().as_secs() / 10).expect("a short time");
    assert!(refused <= most, "{refused} connections were refused for 400 messages");
}

#[test]
fn a_server_that_closes_silently_after_some_messages_costs_nothing() {
    let _machine = MACHINE.read();
    const MOST: usize = 5;
    let (dir, port) = (TestDir::new(), Port::reserve());
    let carried: Mutex<BTreeMap<usize, usize>> = Mutex::default();
    let options = Options::script(move |ask: &Ask| {
        let mut carried = carried.lock().expect("the counts");
        let count = carried.entry(ask.connection).or_default();
        match ask.verb {
            "MAIL" if *count >= MOST => Answer::Close,
            "MAIL" => {
                *count += 1;
                Answer::Yes
            }
            _ => Answer::Yes,
        }
    });
    let sink = Sink::with(port.at(2), options);
    let daemon = Setup::new(&dir).via("example", "example.test", sink.address, "connections = 1\nrate = []").start();
    let began = Instant::now();
    send(&daemon, 0, 60);
    sink.wait(60, SOON);
    daemon.wait_queue_empty(SOON);
    assert_eq!((subjects(&sink).len(), sink.count(), deferred(&daemon)), (60, 60, 0));
    // A wait of any kind before each of twelve would be longer.
    assert!(began.elapsed() < Duration::from_secs(30), "reconnects at once: {:?}", began.elapsed());
    let over = sink.connections().iter().filter(|c| c.transactions > MOST).count();
    assert!(over <= 3, "{over} connections ran into the limit before it was learned");
}

/// It counts bytes, says so in no words that are known, and leaves connections open that are used up: nothing waits
/// but what it refused, and what it takes on one is found and shown.
#[test]
fn a_server_that_takes_so_many_bytes_on_a_connection_is_no_matter_of_pace() {
    let _machine = MACHINE.read();
    const MOST: usize = 30_000;
    let (dir, port) = (TestDir::new(), Port::reserve());
    // Bytes by connection, and refusals.
    let seen: Arc<Mutex<(BTreeMap<usize, usize>, usize)>> = Arc::default();
    let counts = seen.clone();
    let sink = Sink::with(
        port.at(2),
        Options::script(move |ask: &Ask| {
            let (bytes, refused) = &mut *counts.lock().expect("the counts");
            let carried = bytes.entry(ask.connection).or_default();
            match ask.verb {
                "MAIL" if *carried >= MOST => {
                    *refused += 1;
                    Answer::say("452 4.3.1 Taille totale atteinte")
                }
                "DOT" => {
                    *carried += ask.argument.len();
                    Answer::Yes
                }
                _ => Answer::Yes,
            }
        }),
    );
    let keys = "connections = 2\nrate = []\nretry = { first = \"1s\" }";
    let mut daemon = Setup::new(&dir).via("example", "example.test", sink.address, keys).start();
    let mut client = daemon.client();
    let mut random = fastrand::Rng::with_seed(5);
    let mut send = |from: usize, to: usize| {
        for n in from..to {
            let mut text = message(&format!("bytes {n}"));
            text.extend(b"0123456789\r\n".repeat(random.usize(50..450)));
            client.send("<sender@sender.test>", &[&format!("<somebody{n}@example.test>")], &text);
        }
    };
    send(0, 250);
    let line = daemon.wait_log("what was learned", |line| line.event().contains("takes no more than so much"));
    assert!(line.get("most").ends_with(" kB"), "{:?}", line.0);
    sink.wait(250, SOON);
    daemon.wait_queue_empty(SOON);
    let before = seen.lock().expect("the counts").1;
    assert!(before <= 40, "{before} refused before it was learned");
    send(250, 450);
    sink.wait(450, SOON);
    daemon.wait_queue_empty(SOON);
    assert_eq!((subjects(&sink).len(), sink.count()), (450, 450));
    let after = seen.lock().expect("the counts").1 - before;
    assert!(after <= 4, "{after} refused after it was learned");
    let shown = |daemon: &Daemon| daemon.command_ok(&["provider", "show", "example"], b"");
    assert!(shown(&daemon).contains(" kB per connection"), "{}", shown(&daemon));
    // It outlives the relay, and can be forgotten.
    daemon.stop();
    daemon.start();
    assert!(shown(&daemon).contains(" kB per connection"), "{}", shown(&daemon));
    daemon.command_ok(&["provider", "forget", "example"], b"");
    assert!(!shown(&daemon).contains(" kB per connection"), "{}", shown(&daemon));
}

/// Time in which this machine let a thread run: on one that is busy with other things the relay cannot use what it is
/// given either, and that says nothing of what it learned.
struct MachineTime(Arc<Mutex<Vec<(Instant, Duration)>>>);

impl MachineTime {
    fn begin() -> MachineTime {
        const TICK: Duration = Duration::from_millis(10);
        let ticks = Arc::new(Mutex::new(vec![(Instant::now(), Duration::ZERO)]));
        let kept = Arc::downgrade(&ticks);
        std::thread::spawn(move || {
            while let Some(ticks) = kept.upgrade() {
                let mut ticks = ticks.lock().expect("the ticks");
                let (before, sum) = *ticks.last().expect("the first one");
                ticks.push((Instant::now(), sum + before.elapsed().min(2 * TICK)));
                drop(ticks);
                std::thread::sleep(TICK);
            }
        });
        MachineTime(ticks)
    }

    fn between(&self, from: Instant, to: Instant) -> Duration {
        let ticks = self.0.lock().expect("the ticks");
        let up_to = |at: Instant| ticks[ticks.partition_point(|(tick, _)| *tick <= at).saturating_sub(1)].1;
        up_to(to).saturating_sub(up_to(from))
    }
}

/// A token bucket of 8 messages a second that the configuration does not know, and words that nobody knows. So few that
/// any machine runs into it.
#[test]
fn a_hidden_rate_is_found_and_used() {
    let _machine = MACHINE.write();
    const RATE: f64 = 8.0;
    const MESSAGES: usize = 400;
    const LATE: usize = 240;
    let (dir, port) = (TestDir::new(), Port::reserve());
    let bucket = Mutex::new((RATE, Instant::now()));
    let refused = std::sync::Arc::new(Mutex::new(Vec::new()));
    let noted = refused.clone();
    let options = Options::script(move |ask: &Ask| {
        if ask.verb != "MAIL" {
            return Answer::Yes;
        }
        let mut bucket = bucket.lock().expect("the bucket");
        bucket.0 = (bucket.0 + ask.at.saturating_duration_since(bucket.1).as_secs_f64() * RATE).min(RATE);
        bucket.1 = ask.at;
        if bucket.0 < 1.0 {
            noted.lock().expect("the refusals").push(ask.at);
            return Answer::say("451 4.3.0 Bitte haben Sie etwas Geduld");
        }
        bucket.0 -= 1.0;
        Answer::Yes
    });
    let sink = Sink::with(port.at(2), options);
    let keys = "connections = 4\nrate = [\"200/s\"]\nretry = { first = \"10s\" }";
    let daemon = Setup::new(&dir).via("example", "example.test", sink.address, keys).start();
    let machine = MachineTime::begin();
    send(&daemon, 0, MESSAGES);
    let began = Instant::now();
    sink.wait(MESSAGES, Duration::from_secs(120));
    daemon.wait_queue_empty(SOON);
    assert_eq!(subjects(&sink).len(), MESSAGES, "every message once");
    let mut times: Vec<Instant> = sink.messages().iter().map(|m| m.began).collect();
    times.sort();
    let last = &times[LATE..];
    let took = machine.between(last[0], last[last.len() - 1]);
    let goodput = (last.len() - 1) as f64 / took.as_secs_f64();
    let late = refused.lock().expect("the refusals").iter().filter(|at| **at > last[0]).count();
    let whole = last[last.len() - 1] - last[0];
    println!(
        "{MESSAGES} messages in {:?}; the last {} in {whole:?} ({took:?} of machine time)",
        began.elapsed(),
        last.len()
    );
    println!("{goodput:.1}/s of {RATE}/s with {late} of them refused, {} in all", refused.lock().expect("them").len());
    assert!(goodput > 0.8 * RATE, "{goodput:.1}/s");
    assert!(late <= 5, "{late} refused");
    assert!(deferred(&daemon) <= 60, "{}", deferred(&daemon));
    let about = |line: &support::daemon::LogLine| line.event() == "learned what a kind of refusal is about";
    let lines = daemon.log_lines();
    let found = lines.iter().find(|line| about(line)).expect("the verdict is told");
    assert_eq!(found.get("about"), "the pace");
    assert_eq!(found.get("refusal"), "MAIL 451 4.3.0 bitte haben sie etwas geduld");
}

/// One message that is put off after its data holds up nobody and is tried by its own schedule, whatever
/// words it is put off with.
#[test]
fn one_message_that_is_put_off_holds_up_no_other() {
    let _machine = MACHINE.read();
    let (dir, port) = (TestDir::new(), Port::reserve());
    let (tries, noted) = (std::sync::Arc::new(Mutex::new(0)), Mutex::new(std::collections::BTreeSet::new()));
    let counted = tries.clone();
    let options = Options::script(move |ask: &Ask| {
        let mut grey = noted.lock().expect("the connections");
        match ask.verb {
            "MAIL" if ask.argument.contains("grey@") => _ = grey.insert(ask.connection),
            "MAIL" => _ = grey.remove(&ask.connection),
            "DOT" if grey.contains(&ask.connection) => {
                *counted.lock().expect("the tries") += 1;
                return Answer::say("451 4.7.1 Try again later, too many messages");
            }
            _ => {}
        }
        Answer::Yes
    });
    let sink = Sink::with(port.at(2), options);
    let daemon = Setup::new(&dir).via("example", "example.test", sink.address, "connections = 2\nrate = []").start();
    daemon.client().send("<grey@sender.test>", &["<somebody@example.test>"], &message("feedback grey"));
    send(&daemon, 0, 200);
    sink.wait(200, SOON);
    assert_eq!((*tries.lock().expect("the tries"), deferred(&daemon)), (1, 1));
}
