//! A long run with a receiver that misbehaves: `cargo bench --bench soak`, `--help` for the options.
//!
//! First the peak is measured, then a share of it is sent for the time asked for, while the receiver
//! resets connections, refuses with 4xx and answers late. A line a minute tells what came through,
//! how long it took, and what the relay holds: memory, file descriptors, messages on their way. At
//! the end every message that got a `250` must have arrived; what did not, and what arrived more
//! than once, is counted.

#[path = "soak/pace.rs"]
mod pace;
mod support;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use pace::{Arrived, Ledger};
use support::args::Args;
use support::chart::{self, Line, Panel};
use support::figures::{Figures, Table, number};
use support::load::{Load, Until};
use support::measure::{measure, metric, warm_up};
use support::page;
use support::relay::{Relay, Setup};
use support::sink::{Faults, Options, Sink};
use support::usage::descriptors;

const USAGE: &str = "soak [--minutes M] [--share S] [--rate N] [--resets S] [--refusals S] [--slow S] [--slow-ms MS]\n\
    [--program FILE] [--docs]\n\
    --minutes M     how long, default 60\n\
    --share S       of the peak, default 0.7\n\
    --rate N        messages a second, instead of a share of the peak\n\
    --resets S      share of messages at which the connection is reset, default 0.001\n\
    --refusals S    share of recipients that get 450, and of messages that get 451, default 0.005 each\n\
    --slow S        share of messages whose final reply comes late, default 0.005\n\
    --slow-ms MS    by so much, default 500\n\
    --program FILE  the mailweir to measure, default the one just built\n\
    --docs          write into docs/performance.md and docs/soak.svg, rather than into target/bench";

/// How long what is left may take at the end: some messages are refused several times.
const DRAIN: Duration = Duration::from_secs(180);

/// After that time without mail the relay has closed its connections to the receiver.
const REST: Duration = Duration::from_secs(8);

/// What a minute gave.
struct Minute {
    seconds: f64,
    accepted: u64,
    arrived: u64,
    again: u64,
    faults: u64,
    replies: Figures,
    delays: Figures,
    waiting: usize,
    rss_mb: f64,
    descriptors: usize,
}

fn main() -> io::Result<()> {
    let mut args = Args::of_process(USAGE);
    let minutes: f64 = args.value_or("--minutes", 60.0)?;
    let share: f64 = args.value_or("--share", 0.7)?;
    let rate: Option<f64> = args.value("--rate")?;
    let refusals: f64 = args.value_or("--refusals", 0.005)?;
    let faults = Faults {
        reset: args.value_or("--resets", 0.001)?,
        refuse: refusals,
        fail: refusals,
        slow: args.value_or("--slow", 0.005)?,
        slow_by: Duration::from_millis(args.value_or("--slow-ms", 500)?),
        ..Faults::default()
    };
    let program: PathBuf = args.value_or("--program", PathBuf::from(env!("CARGO_BIN_EXE_mailweir")))?;
    let docs = args.flag("--docs");
    args.end()?;

    let sink = Sink::start(Options { faults: faults.clone(), ..Options::default() })?;
    // What is refused comes back within the run, and connections that rest are closed before its end.
    let sections = "[retry]\nfirst = \"5s\"\nmax = \"20s\"\n".to_owned();
    let setup = Setup { idle_timeout: "5s", sections, ..Setup::new(&program, sink.address) };
    let relay = Relay::start(&setup)?;
    let rate = match rate {
        Some(rate) => rate,
        None => peak(&relay, &sink)? * share,
    };
    let before = at_rest(&relay)?;
    eprintln!("{rate:.0} messages a second for {minutes} minutes");

    faults.on.store(true, Ordering::SeqCst);
    let ledger = Arc::new(Ledger::default());
    let sender = thread::spawn({
        let (to, ledger, time) = (relay.smtp, ledger.clone(), Duration::from_secs_f64(minutes * 60.0));
        move || pace::send(to, rate, time, &ledger)
    });
    let mut rows = Vec::new();
    while !sender.is_finished() {
        let row = minute(&relay, &sink, &ledger, &|| sender.is_finished())?;
        eprintln!("{}", line(rows.len() + 1, &row).join("  "));
        rows.push(row);
    }
    sender.join().map_err(|_| io::Error::other("the load panicked"))??;

    faults.on.store(false, Ordering::SeqCst);
    let (mut late, began) = (Arrived::default(), Instant::now());
    while ledger.left() > 0 && began.elapsed() < DRAIN {
        thread::sleep(Duration::from_millis(100));
        ledger.settle(&sink.seen.take_probes(), &mut late);
    }
    let after = at_rest(&relay)?;
    ledger.settle(&sink.seen.take_probes(), &mut late);
    let again = late.again + rows.iter().map(|row| row.again).sum::<u64>();

    let head = format!(
        "{}; {}; {} messages of 2 KB a second for {minutes} minutes; of the messages {} % met a reset, {} % each a 450 \
         and a 451, {} % a final reply {} ms late.",
        page::version(&program),
        page::machine(&std::env::temp_dir())?,
        number(rate, 0),
        number(faults.reset * 100.0, 2),
        number(refusals * 100.0, 2),
        number(faults.slow * 100.0, 2),
        faults.slow_by.as_millis(),
    );
    let mut facts = Table::new(["what", "figure"]);
    let accepted = ledger.accepted.load(Ordering::Relaxed);
    facts.row(["messages with a `250`", &number(accepted as f64, 0)]);
    facts.row(["… that had not arrived at the end", &number(ledger.left() as f64, 0)]);
    facts.row(["messages that arrived once more", &number(again as f64, 0)]);
    facts.row(["messages that the relay did not take", &ledger.refused.load(Ordering::Relaxed).to_string()]);
    facts.row(["at rest before and after: RSS, MB", &format!("{:.0}, {:.0}", before.0, after.0)]);
    facts.row(["at rest before and after: descriptors", &format!("{}, {}", before.1, after.1)]);
    let mut table = Table::new(COLUMNS);
    rows.iter().enumerate().for_each(|(at, row)| table.row(line(at + 1, row)));
    write(&head, &facts, &table, &rows, docs)
}

fn write(head: &str, facts: &Table, table: &Table, rows: &[Minute], docs: bool) -> io::Result<()> {
    println!("{head}\n\n{}\n{}", facts.text(), table.text());
    let text = format!("{head}\n\n{}\n![minute by minute](soak.svg)\n\n{}", facts.markdown(), table.markdown());
    let svg = chart_of(rows);
    let target = page::target()?;
    fs::write(target.join("soak.md"), &text)?;
    fs::write(target.join("soak.svg"), &svg)?;
    if docs {
        let page = page::performance();
        fs::write(page.with_file_name("soak.svg"), &svg)?;
        page::put(&page, "soak", &text)?;
    }
    Ok(())
}

/// Messages a second at full load, without faults.
fn peak(relay: &Relay, sink: &Sink) -> io::Result<f64> {
    let load = Load::new(relay.smtp, Until::Time(Duration::from_secs(10)));
    warm_up(sink, &load, DRAIN)?;
    let metrics = measure(&relay.group(), sink, &load, DRAIN)?;
    metric(&metrics, "per_second").ok_or_else(|| io::Error::other("no peak was measured"))
}

/// Memory in MB and descriptors of a relay that has nothing to do.
fn at_rest(relay: &Relay) -> io::Result<(f64, usize)> {
    thread::sleep(REST);
    Ok((relay.group().rss() as f64 / 1e6, descriptors(relay.pid())?))
}

/// Follows a minute, or what there is of it before the load is `over`.
fn minute(relay: &Relay, sink: &Sink, ledger: &Ledger, over: &dyn Fn() -> bool) -> io::Result<Minute> {
    let accepted = || ledger.accepted.load(Ordering::Relaxed);
    let (began, before) = (Instant::now(), accepted());
    let faults = sink.seen.faults.load(Ordering::Relaxed);
    let mut arrived = Arrived::default();
    while began.elapsed() < Duration::from_secs(60) && !over() {
        thread::sleep(Duration::from_millis(200));
        ledger.settle(&sink.seen.take_probes(), &mut arrived);
    }
    Ok(Minute {
        seconds: began.elapsed().as_secs_f64(),
        accepted: accepted() - before,
        arrived: arrived.delays.0.len() as u64 + arrived.again,
        again: arrived.again,
        faults: sink.seen.faults.load(Ordering::Relaxed) - faults,
        replies: ledger.take_replies(),
        delays: arrived.delays,
        waiting: ledger.left(),
        rss_mb: relay.group().rss() as f64 / 1e6,
        descriptors: descriptors(relay.pid())?,
    })
}

const COLUMNS: [&str; 12] = [
    "minute",
    "accepted/s",
    "arrived/s",
    "250 after it was due, ms: median",
    "99 %",
    "final dot to receipt, ms: median",
    "90 %",
    "99 %",
    "on their way",
    "faults",
    "RSS, MB",
    "descriptors",
];

fn line(at: usize, row: &Minute) -> Vec<String> {
    let at_share =
        |figures: &Figures, share: f64, digits| figures.at(share).map_or("–".into(), |value| number(value, digits));
    vec![
        at.to_string(),
        number(row.accepted as f64 / row.seconds, 0),
        number(row.arrived as f64 / row.seconds, 0),
        at_share(&row.replies, 0.5, 1),
        at_share(&row.replies, 0.99, 1),
        at_share(&row.delays, 0.5, 1),
        at_share(&row.delays, 0.9, 1),
        at_share(&row.delays, 0.99, 0),
        row.waiting.to_string(),
        row.faults.to_string(),
        number(row.rss_mb, 0),
        row.descriptors.to_string(),
    ]
}

/// A line of the chart: its name, and its value in a minute.
type Curve<'a> = (&'a str, &'a dyn Fn(&Minute) -> Option<f64>);

fn chart_of(rows: &[Minute]) -> String {
    let panel = |y_name: &str, lines: Vec<Curve>| Panel {
        y_name: y_name.to_owned(),
        x_name: "minutes".to_owned(),
        lines: lines
            .into_iter()
            .map(|(name, of)| Line {
                name: name.to_owned(),
                points: (1..).zip(rows).filter_map(|(at, row)| Some((f64::from(at), of(row)?))).collect(),
            })
            .collect(),
        limit: None,
    };
    let panels = [
        panel("Resident memory, MB", vec![("RSS", &|row| Some(row.rss_mb))]),
        panel("Open file descriptors", vec![("descriptors", &|row| Some(row.descriptors as f64))]),
        panel(
            "Milliseconds",
            vec![
                ("final dot to receipt, median", &|row| row.delays.median()),
                ("due to 250, median", &|row| row.replies.median()),
            ],
        ),
    ];
    chart::lines("A long run with faults, minute by minute", &panels)
}
