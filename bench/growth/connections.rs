//! Memory for connections and for a big message.

use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::figures::number;
use crate::support::load::{Client, Load, Until, block_on};
use crate::support::relay::{Relay, Setup};
use crate::support::sink::{Options, Sink};
use crate::support::usage::{Group, peak_rss, reset_peak};

/// What was found: what, and the figure.
pub type Facts = Vec<(String, String)>;

/// Raises the limit of open files as far as this user may, for us and the relay we start.
fn many_files() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    Ok(())
}

fn kilobytes(bytes: u64) -> f64 {
    bytes as f64 / 1e3
}

/// Memory of a relay, once it does not grow any more.
fn settled(group: &Group) -> u64 {
    thread::sleep(Duration::from_millis(500));
    group.rss()
}

/// Clients that said EHLO and nothing since, as pools of applications keep them.
pub fn idle_clients(program: &Path, count: usize) -> io::Result<Facts> {
    many_files()?;
    let sink = Sink::start(Options::default())?;
    let relay = Relay::start(&Setup::new(program, sink.address))?;
    // What the first sessions cost once is not theirs.
    Load::new(relay.smtp, Until::Count(2000)).send()?;
    sink.seen.wait(2000, Duration::from_secs(60));
    let before = settled(&relay.group());
    let after = block_on(async {
        let mut clients = Vec::with_capacity(count);
        for _ in 0..count {
            clients.push(Client::open(relay.smtp, None).await?);
        }
        let after = settled(&relay.group());
        drop(clients);
        io::Result::Ok(after)
    })??;
    let each = kilobytes(after.saturating_sub(before)) / count as f64;
    Ok(vec![
        (format!("{} idle clients: memory for each, KB", number(count as f64, 0)), number(each, 1)),
        ("… all of the relay then, MB".into(), number(after as f64 / 1e6, 0)),
    ])
}

/// Open connections to a provider that is far away, each having carried mail and kept for more.
pub fn upstream(program: &Path, count: u32) -> io::Result<Facts> {
    many_files()?;
    let sink = Sink::start(Options { delay: Duration::from_secs(1), ..Options::default() })?;
    let setup = Setup { connections: count, ..Setup::new(program, sink.address) };
    let relay = Relay::start(&setup)?;
    let before = settled(&relay.group());
    // With a second for each flight, so many messages make the relay open all it may.
    let load = Load { sessions: 100, ..Load::new(relay.smtp, Until::Count(u64::from(count) * 3)) };
    let (sent, _) = load.send()?;
    sink.seen.wait(sent, Duration::from_secs(120));
    let began = Instant::now();
    while sink.seen.open.load(Ordering::SeqCst) < u64::from(count) && began.elapsed() < Duration::from_secs(2) {
        thread::sleep(Duration::from_millis(10));
    }
    let open = sink.seen.open.load(Ordering::SeqCst);
    let after = settled(&relay.group());
    let each = kilobytes(after.saturating_sub(before)) / open.max(1) as f64;
    Ok(vec![
        (format!("{} connections to a provider: memory for each, KB", number(open as f64, 0)), number(each, 1)),
        ("… most at once".into(), number(sink.seen.most_open.load(Ordering::SeqCst) as f64, 0)),
        ("… all of the relay then, MB".into(), number(after as f64 / 1e6, 0)),
    ])
}

/// A big message in and out again.
pub fn big_message(program: &Path, size: usize) -> io::Result<Facts> {
    let sink = Sink::start(Options::default())?;
    let listener = format!("max_message_size = {}\n", size + 1024 * 1024);
    let relay = Relay::start(&Setup { listener, ..Setup::new(program, sink.address) })?;
    Load::new(relay.smtp, Until::Count(200)).send()?;
    sink.seen.wait(200, Duration::from_secs(60));
    let before = settled(&relay.group());
    reset_peak(relay.pid())?;
    let began = Instant::now();
    Load { sessions: 1, size, ..Load::new(relay.smtp, Until::Count(1)) }.send()?;
    let accepted = began.elapsed();
    if sink.seen.wait(201, Duration::from_secs(300)) < 201 {
        return Err(io::Error::other("the big message did not arrive"));
    }
    let arrived = began.elapsed();
    let peak = peak_rss(relay.pid()).unwrap_or(0).saturating_sub(before);
    let megabytes = number(size as f64 / 1e6, 0);
    Ok(vec![
        (format!("a message of {megabytes} MB: peak over what it was when idle, MB"), number(peak as f64 / 1e6, 1)),
        (
            "… accepted and arrived after, s".into(),
            format!("{}, {}", number(accepted.as_secs_f64(), 1), number(arrived.as_secs_f64(), 1)),
        ),
    ])
}
