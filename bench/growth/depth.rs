//! A queue that grows: all of it for a provider that is paused, while another one gets its mail.

use std::fs;
use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::support::figures::Figures;
use crate::support::load::{Load, Until};
use crate::support::measure::{self, metric, warm_up};
use crate::support::relay::{Relay, Setup};
use crate::support::sink::{Options, Sink};

/// What holds at one depth.
#[derive(Clone, Debug)]
pub struct Point {
    /// Messages queued for the paused provider.
    pub messages: u64,
    /// Resident memory at that moment, without a restart since the queue was empty.
    pub rss_mb: f64,
    /// Acceptance while the queue grew to this depth; `None` for the empty one.
    pub filled_per_second: Option<f64>,
    /// Messages a second to the other provider, end to end.
    pub other_per_second: f64,
    /// The same as a share of what a relay with an empty queue does at that time, from 0.
    pub other_share: f64,
    /// Messages a second until the last `250`.
    pub accepted_per_second: f64,
    /// The same as a share of what a relay with an empty queue does at that time.
    pub accepted_share: f64,
    /// Seconds from the start of the program to its first greeting.
    pub start_up: f64,
    /// Resident memory a little after that.
    pub rss_started_mb: f64,
    /// Seconds that `queue list --limit 50` takes, start of the command included.
    pub first_page: f64,
    /// Size of the queue's files.
    pub file_mb: f64,
}

/// How long the load to the other provider lasts.
const PROBE: Duration = Duration::from_secs(3);
/// Such loads at each depth.
const PROBES: usize = 5;
const DRAIN: Duration = Duration::from_secs(120);

/// Fills a queue in `directory` up to `messages` in equal steps, and measures at each, and at 0.
pub fn measure(program: &Path, directory: &Path, messages: u64, steps: u64, size: usize) -> io::Result<Vec<Point>> {
    let sink = Sink::start(Options::default())?;
    let other = format!(
        "[provider.paused]\nrelay = \"{0}\"\ntls = \"off\"\nrate = []\n[provider.other]\nrelay = \"{0}\"\ntls = \"off\"\n\
         connections = 50\nmessages_per_connection = 100000\nrate = []\n[[route]]\nrecipient = \"*@paused.example\"\n\
         via = \"paused\"\n[[route]]\nrecipient = \"*\"\nvia = \"other\"\n",
        sink.address
    );
    let setup = Setup { sink: None, sections: other, ..Setup::new(program, sink.address) };
    let mut curve = Vec::new();
    // A neighbour whose queue stays empty: the machine may be slower now than it was at the start.
    let empty = Relay::start(&setup)?;
    let mut relay = Relay::start_in(&setup, directory)?;
    relay.command(&["provider", "pause", "paused"])?;
    for step in 0..=steps {
        let depth = messages * step / steps;
        let have = messages * step.saturating_sub(1) / steps;
        let mut filled = None;
        if step > 0 {
            let recipient = |n: u64| format!("to{}@paused.example", n % 1000);
            let load = Load { size, sessions: 40, recipient, ..Load::new(relay.smtp, Until::Count(depth - have)) };
            let (sent, took) = load.send()?;
            filled = Some(sent as f64 / took.as_secs_f64());
        }
        let rss_mb = relay.group().rss() as f64 / 1e6;
        let flow = flow(&relay, &empty, &sink)?;
        let first_page = first_page(&relay)?;
        // A relay that starts with this queue: the same that goes on from here.
        relay.stop()?;
        relay = Relay::start_in(&setup, directory)?;
        relay.command(&["provider", "pause", "paused"])?;
        thread::sleep(Duration::from_secs(1));
        let point = Point {
            messages: depth,
            rss_mb,
            filled_per_second: filled,
            other_per_second: flow.rate,
            other_share: flow.share,
            accepted_per_second: flow.accepted,
            accepted_share: flow.accepted_share,
            start_up: relay.start_up.as_secs_f64(),
            rss_started_mb: relay.group().rss() as f64 / 1e6,
            first_page,
            file_mb: size_of(directory)? as f64 / 1e6,
        };
        eprintln!("{point:?}");
        curve.push(point);
    }
    Ok(curve)
}

/// What mail to the provider that is not paused does: medians of the runs.
struct Flow {
    rate: f64,
    share: f64,
    accepted: f64,
    accepted_share: f64,
}

/// The same load to the relay and to its neighbour with an empty queue, in turn.
fn flow(relay: &Relay, empty: &Relay, sink: &Sink) -> io::Result<Flow> {
    let once = |relay: &Relay| -> io::Result<(f64, f64)> {
        let metrics = measure::measure(&relay.group(), sink, &Load::new(relay.smtp, Until::Time(PROBE)), DRAIN)?;
        if metric(&metrics, "left").is_some_and(|left| left > 0.0) {
            return Err(io::Error::other("mail to the other provider is held up"));
        }
        let figure = |name| metric(&metrics, name).unwrap_or(f64::NAN);
        Ok((figure("per_second"), figure("accepted_per_second")))
    };
    for relay in [relay, empty] {
        warm_up(sink, &Load::new(relay.smtp, Until::Time(PROBE)), DRAIN)?;
    }
    let [mut rate, mut share, mut accepted, mut accepted_share] = [const { Figures(Vec::new()) }; 4];
    for _ in 0..PROBES {
        let (deep, beside) = (once(relay)?, once(empty)?);
        rate.push(deep.0);
        share.push(deep.0 / beside.0);
        accepted.push(deep.1);
        accepted_share.push(deep.1 / beside.1);
    }
    let median = |figures: &Figures| figures.median().unwrap_or(f64::NAN);
    Ok(Flow {
        rate: median(&rate),
        share: median(&share),
        accepted: median(&accepted),
        accepted_share: median(&accepted_share),
    })
}

/// Seconds of the first page, the best of three: the first one reads the program from disk.
fn first_page(relay: &Relay) -> io::Result<f64> {
    let mut best = Duration::MAX;
    for _ in 0..3 {
        let (_, took) = relay.command(&["queue", "list", "--limit", "50"])?;
        best = best.min(took);
    }
    Ok(best.as_secs_f64())
}

fn size_of(directory: &Path) -> io::Result<u64> {
    let mut size = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("queue.db") {
            size += entry.metadata()?.len();
        }
    }
    Ok(size)
}
