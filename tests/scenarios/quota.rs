//! Quotas and shares, measured at the receiver: killed in the middle of a quota, a limit of one
//! sender beside another that flows, mail that expires while it is held back.

use crate::support;

use std::collections::HashMap;
use std::thread;
use std::time::{Duration, Instant};

use support::daemon::Setup;
use support::mail::message;
use support::sink::Sink;
use support::{Port, SOON, TestDir, wait_for};

/// Invariant 3 across `kill -9`: what a dead process sent is never forgotten.
#[test]
fn killed_in_the_middle_of_a_daily_quota_the_total_stays_within_it() {
    const QUOTA: usize = 60;
    const MESSAGES: usize = 200;
    const KILLS: usize = 5;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let limits = format!("connections = 4\nrate = \"30/s\"\nquota = [\"{QUOTA}/d\"]\nidle_timeout = \"2s\"");
    let mut daemon = Setup::new(&dir).via("example", "example.test", sink.address, &limits).start();
    let mut client = daemon.client();
    for n in 0..MESSAGES {
        client.send("<sender@sender.test>", &["<somebody@example.test>"], &message(&format!("m{n:03}")));
    }
    for _ in 0..KILLS {
        thread::sleep(Duration::from_millis(random.u64(0..400)));
        daemon.kill();
        daemon.start();
    }
    // At most one cell of the quota is lost at each kill, and nothing beyond it leaves.
    wait_for("most of the quota", SOON, || (sink.count() >= QUOTA - KILLS).then_some(()));
    let lane = wait_for("the lane to say what holds it", SOON, || {
        let text = daemon.command_ok(&["provider", "show", "example", "--json"], b"");
        text.contains(&format!("quota {QUOTA}/d used up: {QUOTA} of {QUOTA}, free again from ")).then_some(text)
    });
    println!("{lane}");
    thread::sleep(Duration::from_secs(3));
    let arrived = sink.messages();
    println!("{} of {MESSAGES} arrived under a quota of {QUOTA}, killed {KILLS} times", arrived.len());
    assert!(arrived.len() <= QUOTA, "{} messages", arrived.len());
    // Nothing is lost: what has not arrived waits, and nothing was counted as an attempt.
    let mut seen: HashMap<String, usize> = HashMap::new();
    for received in &arrived {
        *seen.entry(received.subject()).or_default() += 1;
    }
    let waiting = daemon.queue_list(&[]);
    assert!(waiting.len() + seen.len() >= MESSAGES, "{} wait, {} arrived", waiting.len(), seen.len());
    let tried = waiting.iter().filter(|row| row.number("attempts") > 0).count();
    assert!(tried <= 4 * KILLS, "{tried}: holding back is no attempt, only what was in flight at a kill may be");
    daemon.stop();
    sink.assert_legal();
}

/// A sender with a share of its own waits alone; the others do not notice.
#[test]
fn a_limited_sender_holds_back_nobody_else() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let daemon = Setup::new(&dir)
        .via("example", "example.test", sink.address, "connections = 3\nrate = []")
        .with("[[limit]]\nsender = \"*@news.example\"\nrate = \"5/s\"")
        .start();
    let mut client = daemon.client();
    for n in 0..20 {
        client.send("<a@news.example>", &["<somebody@example.test>"], &message(&format!("news {n}")));
    }
    let pushed = Instant::now();
    for n in 0..50 {
        client.send("<b@shop.example>", &["<somebody@example.test>"], &message(&format!("shop {n}")));
    }
    let all = sink.wait(70, Duration::from_secs(30));
    let times = |of: &str| {
        let mut times: Vec<Instant> = all.iter().filter(|m| m.subject().starts_with(of)).map(|m| m.began).collect();
        times.sort();
        times
    };
    let (news, shop) = (times("news"), times("shop"));
    assert_eq!((news.len(), shop.len()), (20, 50));
    for (i, from) in news.iter().enumerate() {
        for (j, to) in news.iter().enumerate().skip(i) {
            let most = (*to - *from + Duration::from_millis(25)).as_secs_f64() * 5.0 + 1.0;
            assert!((j - i + 1) as f64 <= most, "{} in {:?}", j - i + 1, *to - *from);
        }
    }
    let (last_shop, last_news) = (shop[49], news[19]);
    println!("shop done {:?} after it was pushed, news {:?} later", last_shop - pushed, last_news - last_shop);
    assert!(last_shop < news[19], "the shop did not wait for the newsletter");
    assert!(last_shop - pushed < Duration::from_secs(3), "{:?}", last_shop - pushed);
    daemon.wait_queue_empty(SOON);
    sink.assert_legal();
}

/// An expiry while held back says so, to the log and to the sender.
#[test]
fn what_expires_while_it_is_held_back_says_so() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let back = Sink::start(port.at(3));
    let retry = "idle_timeout = \"1s\"\nquota = [\"1/d\"]\n\
                 [provider.example.retry]\nfirst = \"1s\"\nmax = \"2s\"\nwarn = \"2s\"\nexpire = \"3s\"";
    let daemon = Setup::new(&dir)
        .via("example", "example.test", sink.address, retry)
        .via("back", "sender.test", back.address, "rate = []")
        .start();
    let mut client = daemon.client();
    client.send("<sender@sender.test>", &["<somebody@example.test>"], &message("first"));
    sink.wait(1, SOON);
    client.send("<sender@sender.test>", &["<somebody@example.test>"], &message("second"));
    let dsn = back.wait(1, SOON).remove(0);
    let text = String::from_utf8_lossy(&dsn.content).into_owned();
    assert!(text.contains("Status: 5.4.7") && text.contains("held back by quota 1/d"), "{text}");
    daemon.wait_log("the expiry", |line| line.event() == "expired");
    let failed = daemon.queue_list(&["--state", "failed"]);
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!(failed[0].text("reason"), "expired while held back by quota 1/d");
    assert_eq!(sink.count(), 1);
}

/// What left is counted, whatever the quota was called or was when it left: reloads made two hundred and
/// fifty an hour of fifty.
#[test]
fn a_quota_that_changes_counts_what_really_left() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let keys = "connections = 2\nrate = []\nidle_timeout = \"1s\"\nquota = [\"5/h\"]";
    let mut daemon = Setup::new(&dir).via("example", "example.test", sink.address, keys).start();
    let mut client = daemon.client();
    for n in 0..30 {
        let recipients = ["<one@example.test>", "<two@example.test>"];
        client.send("<sender@sender.test>", &recipients, &message(&format!("m{n:02}")));
    }
    let used_up = |daemon: &support::daemon::Daemon, name: &str, quota: &str| {
        wait_for(&format!("{quota} to be used up"), SOON, || {
            let text = daemon.command_ok(&["provider", "show", name, "--json"], b"");
            text.contains(&format!("quota {quota} used up: ")).then_some(())
        });
    };
    let change = |daemon: &mut support::daemon::Daemon, from: &str, to: &str| {
        daemon.replace_config(from, to);
        daemon.command_ok(&["reload"], b"");
    };
    used_up(&daemon, "example", "5/h");
    assert_eq!(sink.count(), 5);
    change(&mut daemon, "\"5/h\"", "\"12/2h\"");
    used_up(&daemon, "example", "12/2h");
    assert_eq!(sink.count(), 12);
    change(&mut daemon, "\"12/2h\"", "\"12/h\"");
    used_up(&daemon, "example", "12/h");
    daemon.command_ok(&["provider", "forget", "example"], b"");
    daemon.command_ok(&["provider", "resume", "example"], b"");
    // Twelve messages had twenty-four recipients.
    change(&mut daemon, "\"12/h\"", "\"24/h recipients\"");
    used_up(&daemon, "example", "24/h recipients");
    change(&mut daemon, "\"24/h recipients\"", "\"13/h\"");
    used_up(&daemon, "example", "13/h");
    assert_eq!(sink.count(), 13);
    // Under another name it is the same receiver, also for a process that begins anew.
    daemon.replace_config("via = \"example\"", "via = \"other\"");
    change(&mut daemon, "[provider.example]", "[provider.other]");
    used_up(&daemon, "other", "13/h");
    daemon.kill();
    daemon.start();
    used_up(&daemon, "other", "13/h");
    assert_eq!(sink.count(), 13);
    // What leaves while there is no quota counts for the one that comes.
    change(&mut daemon, "quota = [\"13/h\"]", "quota = []");
    sink.wait(30, SOON);
    daemon.wait_queue_empty(SOON);
    change(&mut daemon, "quota = []", "quota = [\"30/d\"]");
    let mut client = daemon.client();
    client.send("<sender@sender.test>", &["<one@example.test>"], &message("late"));
    used_up(&daemon, "other", "30/d");
    assert_eq!(sink.count(), 30);
    daemon.stop();
    sink.assert_legal();
}
