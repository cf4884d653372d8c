//! What is measured of mailweir alone. A case starts a relay with an empty queue, warms it up,
//! measures once and stops it; the caller repeats and takes medians.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::dns::Server;
use crate::support::figures::Figures;
use crate::support::load::{Load, Until};
use crate::support::measure::{Metrics, measure, measure_of, metric, single, singles, warm_up};
use crate::support::relay::{Relay, Setup};
use crate::support::sink::{Options, Sink};
use crate::support::tls::Certificates;

/// What all cases need.
pub struct Context {
    /// The program.
    pub program: PathBuf,
    /// How long the load lasts.
    pub time: Duration,
    /// For the cases with TLS.
    pub certificates: Certificates,
    /// Ask NSD where real name servers will do.
    pub nsd: bool,
}

/// Something to measure.
pub struct Case {
    /// Its name for `--case` and in JSON.
    pub key: &'static str,
    /// Its name for people.
    pub name: &'static str,
    /// Does it once; `None` if this mailweir cannot do it.
    pub run: fn(&Context) -> io::Result<Option<Metrics>>,
}

/// All of them, in the order of the tables.
pub const CASES: &[Case] = &[
    Case { key: "2k-kept", name: "2 KB, sessions kept", run: |c| flow(c, 2048, true) },
    Case { key: "2k-each", name: "2 KB, a session each", run: |c| flow(c, 2048, false) },
    Case { key: "20k-kept", name: "20 KB, sessions kept", run: |c| flow(c, 20_480, true) },
    Case { key: "20k-each", name: "20 KB, a session each", run: |c| flow(c, 20_480, false) },
    Case { key: "wan", name: "2 KB, 5 connections of 50 ms", run: wan },
    Case { key: "waited", name: "2 KB, after a pause of the provider", run: waited },
    Case { key: "latency", name: "single messages", run: idle },
    Case { key: "tls-out", name: "2 KB, kept, TLS to the provider", run: |c| encrypted(c, true, false, true) },
    Case { key: "tls-in", name: "2 KB, kept, TLS from the clients", run: |c| encrypted(c, false, true, true) },
    Case { key: "tls-both", name: "2 KB, kept, TLS on both sides", run: |c| encrypted(c, true, true, true) },
    Case {
        key: "tls-in-each",
        name: "2 KB, a session each, TLS from the clients",
        run: |c| encrypted(c, false, true, false),
    },
    Case {
        key: "tls-both-each",
        name: "2 KB, a session each, TLS on both sides",
        run: |c| encrypted(c, true, true, false),
    },
    Case { key: "tls-pooled", name: "TLS, connections kept", run: |c| pooled(c, 100_000, true) },
    Case { key: "tls-each", name: "TLS, a connection each", run: |c| pooled(c, 1, true) },
    Case { key: "tls-each-full", name: "TLS, a connection each, no resumption", run: |c| pooled(c, 1, false) },
    Case { key: "mx-cached", name: "MX of 20 domains, cached", run: |c| lookups(c, true) },
    Case { key: "mx-uncached", name: "MX of 20 domains, never cached", run: |c| lookups(c, false) },
    Case { key: "cold-cache", name: "10,000 unknown domains beside a known one", run: cold },
];

/// How long everything that was sent may take to arrive after the last acknowledgement.
const DRAIN: Duration = Duration::from_secs(60);

/// Single messages of a run.
const SINGLES: u64 = 100;

/// Warms up and measures; everything has to arrive.
fn throughput(relay: &Relay, sink: &Sink, load: &Load) -> io::Result<Metrics> {
    warm_up(sink, load, DRAIN)?;
    all_arrived(measure(&relay.group(), sink, load, DRAIN)?)
}

fn all_arrived(metrics: Metrics) -> io::Result<Metrics> {
    match metric(&metrics, "left") {
        Some(left) if left > 0.0 => Err(io::Error::other(format!("{left} messages did not arrive"))),
        _ => Ok(metrics),
    }
}

fn flow(context: &Context, size: usize, kept: bool) -> io::Result<Option<Metrics>> {
    let sink = Sink::start(Options::default())?;
    let relay = Relay::start(&Setup::new(&context.program, sink.address))?;
    let load = Load { size, kept, ..Load::new(relay.smtp, Until::Time(context.time)) };
    throughput(&relay, &sink, &load).map(Some)
}

/// A provider far away: each flight of commands is answered after 50 ms, five connections may be
/// open, and what waits for them waits in the queue.
fn wan(context: &Context) -> io::Result<Option<Metrics>> {
    let sink = Sink::start(Options { delay: Duration::from_millis(50), ..Options::default() })?;
    let setup = Setup { connections: 5, ..Setup::new(&context.program, sink.address) };
    let relay = Relay::start(&setup)?;
    // As many as 100 a second would be in the time of a run.
    let count = 100 * context.time.as_secs().max(2);
    throughput(&relay, &sink, &Load::new(relay.smtp, Until::Count(count))).map(Some)
}

/// What waited for a provider that was paused leaves, and nothing else comes in. All but the first
/// few thousand messages have to be read from the store.
fn waited(context: &Context) -> io::Result<Option<Metrics>> {
    let sink = Sink::start(Options::default())?;
    let relay = Relay::start(&Setup::new(&context.program, sink.address))?;
    let load = Load::new(relay.smtp, Until::Count(10_000 * context.time.as_secs().max(2)));
    warm_up(&sink, &load, DRAIN)?;
    relay.command(&["provider", "pause", "sink"])?;
    let sent = load.send()?;
    let metrics = measure_of(&relay.group(), &sink, DRAIN, || {
        relay.command(&["provider", "resume", "sink"])?;
        Ok(sent)
    })?;
    all_arrived(metrics).map(Some)
}

fn idle(context: &Context) -> io::Result<Option<Metrics>> {
    let sink = Sink::start(Options::default())?;
    let relay = Relay::start(&Setup::new(&context.program, sink.address))?;
    singles(relay.smtp, &sink, SINGLES).map(Some)
}

fn encrypted_setup(context: &Context, sink: &Sink, out: bool, within: bool) -> Setup {
    let mut setup = Setup::new(&context.program, sink.address);
    if out {
        setup.provider = format!("tls = \"verified\"\ntls_ca = \"{}\"\n", context.certificates.authority.display());
    }
    if within {
        let Certificates { certificate, key, .. } = &context.certificates;
        setup.listener = format!(
            "tls = {{ mode = \"starttls\", cert = \"{}\", key = \"{}\" }}\n",
            certificate.display(),
            key.display()
        );
    }
    setup
}

/// `out`: to the provider; `within`: from the clients, whose sessions are `kept` for many messages or
/// resumed for one each.
fn encrypted(context: &Context, out: bool, within: bool, kept: bool) -> io::Result<Option<Metrics>> {
    let tls = if out { Some(context.certificates.server()?) } else { None };
    let sink = Sink::start(Options { tls, ..Options::default() })?;
    let setup = encrypted_setup(context, &sink, out, within);
    if !setup.is_supported()? {
        return Ok(None);
    }
    let relay = Relay::start(&setup)?;
    let tls = if within { Some(context.certificates.client()?) } else { None };
    let load = Load { tls, kept, ..Load::new(relay.smtp, Until::Time(context.time)) };
    throughput(&relay, &sink, &load).map(Some)
}

/// What keeping connections to a provider is worth: both under load and for single messages.
fn pooled(context: &Context, per_connection: u32, resume: bool) -> io::Result<Option<Metrics>> {
    let sink = Sink::start(Options { tls: Some(context.certificates.server()?), ..Options::default() })?;
    let mut setup = Setup { per_connection, ..encrypted_setup(context, &sink, true, false) };
    if !resume {
        setup.provider.push_str("tls_resume = false\n");
    }
    let relay = Relay::start(&setup)?;
    let load = Load::new(relay.smtp, Until::Time(context.time));
    // The very first connections have no session that they could resume.
    warm_up(&sink, &load, DRAIN)?;
    let handshakes = || (sink.seen.resumed.load(Ordering::SeqCst) as f64, sink.seen.full.load(Ordering::SeqCst) as f64);
    let before = handshakes();
    let mut metrics = throughput(&relay, &sink, &load)?;
    metrics.extend(singles(relay.smtp, &sink, SINGLES)?);
    let (resumed, full) = (handshakes().0 - before.0, handshakes().1 - before.1);
    metrics.push(("handshakes", resumed + full));
    metrics.push(("resumed", resumed / (resumed + full).max(1.0)));
    Ok(Some(metrics))
}

/// A relay that finds its hosts by DNS.
fn by_mx(context: &Context, sink: &Sink, server: &Server, dns: &str) -> Setup {
    let port = sink.address.port();
    let host =
        format!("port = {port}\nallow_private = true\ntls = \"off\"\nrate = []\nmessages_per_connection = 100000\n");
    Setup {
        sink: None,
        sections: format!(
            "[dns]\nnameservers = [\"{}\"]\n{dns}\n[provider.known]\nmatch = {{ mx = [\"mx.bench.example\"] }}\n\
             connections = 50\n{host}[provider.unknown]\nmatch = {{ mx = [\"mx.cold.example\"] }}\nconnections = 50\n{host}",
            server.address
        ),
        ..Setup::new(&context.program, sink.address)
    }
}

fn lookups(context: &Context, cached: bool) -> io::Result<Option<Metrics>> {
    let nsd = if context.nsd { Server::nsd()? } else { None };
    let server = nsd.map_or_else(|| Server::own(Duration::ZERO, 0), Ok)?;
    let sink = Sink::start(Options::default())?;
    let dns = if cached { "" } else { "ttl_min = \"0s\"\nttl_max = \"0s\"\nnegative_ttl_max = \"0s\"\n" };
    let relay = Relay::start(&by_mx(context, &sink, &server, dns))?;
    let recipient = |n: u64| format!("to@d{}.bench.example", n % 20);
    let load = Load { recipient, ..Load::new(relay.smtp, Until::Time(context.time)) };
    let asked = || server.asked.as_ref().map(|asked| asked.load(Ordering::Relaxed));
    let mut metrics = throughput(&relay, &sink, &load)?;
    if let Some(asked) = asked() {
        metrics.push(("questions", asked as f64));
    }
    Ok(Some(metrics))
}

/// Domains that the cache does not know, each with one message; of those every hundredth has no
/// name server that answers, and the others take 50 ms for each answer.
const UNKNOWN: u64 = 10_000;
const SILENT: u64 = 100;

/// Does mail to a domain that is known wait for the look-ups of others?
fn cold(context: &Context) -> io::Result<Option<Metrics>> {
    let server = Server::own(Duration::from_millis(50), SILENT)?;
    let sink = Sink::start(Options::default())?;
    let relay = Relay::start(&by_mx(context, &sink, &server, ""))?;
    let probes = |from: u64, stop: &dyn Fn() -> bool| -> io::Result<Figures> {
        let mut times = Figures::default();
        let mut number = from;
        while !stop() {
            times.push(probe(&relay, &sink, number)?);
            number += 1;
            thread::sleep(Duration::from_millis(10));
        }
        Ok(times)
    };
    for number in 0..20 {
        probe(&relay, &sink, number)?;
    }
    let began = Instant::now();
    let alone = probes(1000, &|| began.elapsed() > context.time)?;

    let before = sink.seen.count();
    let began = Instant::now();
    let flood = thread::spawn({
        let recipient = |n: u64| format!("to@d{}.cold.example", n + 1);
        let load = Load { recipient, ..Load::new(relay.smtp, Until::Count(UNKNOWN)) };
        move || load.send()
    });
    let mut arrived_after = None;
    let beside = {
        let mut times = Figures::default();
        let mut number = 1_000_000;
        loop {
            times.push(probe(&relay, &sink, number)?);
            number += 1;
            let unknown = (sink.seen.count() - before).saturating_sub(number - 1_000_000);
            if unknown >= UNKNOWN - UNKNOWN / SILENT {
                arrived_after = Some(began.elapsed());
            }
            if arrived_after.is_some() && flood.is_finished() || began.elapsed() > 2 * DRAIN {
                break times;
            }
            thread::sleep(Duration::from_millis(10));
        }
    };
    flood.join().map_err(|_| io::Error::other("the load panicked"))??;
    let at = |figures: &Figures, share: f64| figures.at(share).unwrap_or(f64::NAN);
    Ok(Some(vec![
        ("alone_ms", at(&alone, 0.5)),
        ("alone_ms_99", at(&alone, 0.99)),
        ("beside_ms", at(&beside, 0.5)),
        ("beside_ms_99", at(&beside, 0.99)),
        ("beside_ms_most", at(&beside, 1.0)),
        ("unknown_s", arrived_after.map_or(f64::NAN, |took| took.as_secs_f64())),
    ]))
}

/// Milliseconds from the 250 to the receipt of one message to the known domain.
fn probe(relay: &Relay, sink: &Sink, number: u64) -> io::Result<f64> {
    single(relay.smtp, sink, "d1.bench.example", number).map(|(_, from_reply)| from_reply)
}
