//! The measurements themselves, the same for every relay: a load with what it cost, and single
//! messages into a relay that has nothing else to do.

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use super::figures::Figures;
use super::load::{Client, Load, Until, block_on, body};
use super::now_nanos;
use super::sink::Sink;
use super::usage::{Group, Meter};

/// What a run gave, by name.
pub type Metrics = Vec<(&'static str, f64)>;

/// The figure of that name.
pub fn metric(metrics: &Metrics, name: &str) -> Option<f64> {
    metrics.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

/// Sends half a second of the load, and waits until it has gone.
pub fn warm_up(sink: &Sink, load: &Load, drain: Duration) -> io::Result<()> {
    let until = match load.until {
        Until::Time(_) => Until::Time(Duration::from_millis(500)),
        Until::Count(count) => Until::Count(count / 20),
    };
    let before = sink.seen.count();
    let (sent, _) = Load { until, ..load.clone() }.send()?;
    sink.seen.wait(before + sent, drain);
    Ok(())
}

/// Sends a load and counts until its last message has arrived, or `drain` after the last `250`.
/// `left` of the result: messages that had not arrived by then.
pub fn measure(group: &Group, sink: &Sink, load: &Load, drain: Duration) -> io::Result<Metrics> {
    measure_of(group, sink, drain, || load.send())
}

/// The same of whatever `send` makes leave the relay: it tells how many messages, and in what time
/// they were accepted.
pub fn measure_of(
    group: &Group,
    sink: &Sink,
    drain: Duration,
    send: impl FnOnce() -> io::Result<(u64, Duration)>,
) -> io::Result<Metrics> {
    let before = sink.seen.count();
    let meter = Meter::start(group.clone());
    let began = now_nanos();
    let (sent, took) = send()?;
    let arrived = sink.seen.wait(before + sent, drain).saturating_sub(before);
    // The last outcomes are being stored and logged: that is part of the price.
    thread::sleep(Duration::from_millis(200));
    let used = meter.finish();
    let seconds = sink.seen.last().saturating_sub(began) as f64 / 1e9;
    let mut metrics = vec![
        ("messages", sent as f64),
        ("left", sent.saturating_sub(arrived) as f64),
        ("per_second", arrived as f64 / seconds),
        ("accepted_per_second", sent as f64 / took.as_secs_f64()),
        ("others", used.others),
    ];
    if used.processes > 0 {
        metrics.push(("peak_pss_mb", used.peak_pss as f64 / 1e6));
        metrics.push(("processes", used.processes as f64));
    }
    metrics.extend(used.cpu.map(|cpu| ("cpu_per_1000", cpu * 1000.0 / arrived.max(1) as f64)));
    Ok(metrics)
}

/// Milliseconds from the final dot, and from the `250`, to the receipt of one message to
/// `probe-NUMBER@DOMAIN`.
pub fn single(smtp: SocketAddr, sink: &Sink, domain: &str, number: u64) -> io::Result<(f64, f64)> {
    let (dot, reply) = block_on(async {
        let mut client = Client::open(smtp, None).await?;
        client.envelope("from@bench.example", &format!("probe-{number}@{domain}")).await?;
        let text = body(2048);
        let dot = now_nanos();
        client.say(&text).await?;
        let reply = now_nanos();
        client.say(b"QUIT\r\n").await?;
        io::Result::Ok((dot, reply))
    })??;
    let began = Instant::now();
    loop {
        if let Some(came) = sink.seen.take_probe(number) {
            // It can be there before its 250 is read.
            let ms = |from: u64| came.saturating_sub(from) as f64 / 1e6;
            return Ok((ms(dot), ms(reply)));
        }
        if began.elapsed() > Duration::from_secs(60) {
            return Err(io::Error::other("a single message did not arrive"));
        }
        thread::sleep(Duration::from_micros(200));
    }
}

/// `count` single messages, with a little rest between them.
pub fn singles(smtp: SocketAddr, sink: &Sink, count: u64) -> io::Result<Metrics> {
    /// The first ones open connections and fill caches.
    const WARM: u64 = 5;
    let (mut dot, mut reply) = (Figures::default(), Figures::default());
    for number in 0..count + WARM {
        thread::sleep(Duration::from_millis(20));
        let (from_dot, from_reply) = single(smtp, sink, "there.example", number)?;
        if number >= WARM {
            dot.push(from_dot);
            reply.push(from_reply);
        }
    }
    let at = |figures: &Figures, share: f64| figures.at(share).unwrap_or(f64::NAN);
    Ok(vec![
        ("dot_ms", at(&dot, 0.5)),
        ("dot_ms_90", at(&dot, 0.9)),
        ("dot_ms_most", at(&dot, 1.0)),
        ("reply_ms", at(&reply, 0.5)),
        ("reply_ms_90", at(&reply, 0.9)),
        ("reply_ms_most", at(&reply, 1.0)),
    ])
}
