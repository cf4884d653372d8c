//! mailweir alone, end to end, with nothing else installed:
//! `cargo bench --bench relay [-- OPTIONS]`, `--help` for the options.
//!
//! Each case runs a relay with a queue in a temporary directory between a load generator and a
//! counting receiver on loopback. Every `250` is synced to disk. Cases are interleaved: all of them
//! once, then all of them again, so that a disturbance hits all alike; medians of the runs with
//! their ranges are printed, and how much of the machine others used meanwhile. Ratios of one run
//! of this program mean something; single figures depend on the machine.

#[path = "relay/cases.rs"]
mod cases;
mod support;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use cases::{CASES, Case, Context};
use serde_json::json;
use support::args::Args;
use support::figures::{Figures, Table, number};
use support::page;
use support::tls::Certificates;

const USAGE: &str = "relay [--runs N] [--seconds S] [--case PREFIX] [--program FILE] [--own-dns] [--json] [--docs]\n\
    --runs N        runs of each case, default 5\n\
    --seconds S     how long a run sends, default 4\n\
    --case PREFIX   only cases whose key begins so; --case list prints the keys\n\
    --program FILE  the mailweir to measure, default the one just built\n\
    --own-dns       a name server of this program even where NSD is installed\n\
    --json          a line for each run, and no tables\n\
    --docs          write the tables into docs/performance.md";

/// All runs of all cases: by case and name of the figure.
type Results = HashMap<(&'static str, &'static str), Figures>;

fn main() -> io::Result<()> {
    let mut args = Args::of_process(USAGE);
    let runs: u32 = args.value_or("--runs", 5)?;
    let seconds: f64 = args.value_or("--seconds", 4.0)?;
    let prefix: String = args.value_or("--case", String::new())?;
    let program: PathBuf = args.value_or("--program", PathBuf::from(env!("CARGO_BIN_EXE_mailweir")))?;
    let (nsd, json, docs) = (!args.flag("--own-dns"), args.flag("--json"), args.flag("--docs"));
    args.end()?;
    if prefix == "list" {
        CASES.iter().for_each(|case| println!("{:<14} {}", case.key, case.name));
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let time = Duration::from_secs_f64(seconds);
    let context = Context { program, time, certificates: Certificates::make(directory.path())?, nsd };
    let chosen: Vec<&Case> = CASES.iter().filter(|case| case.key.starts_with(&prefix)).collect();

    let mut results = Results::new();
    for run in 0..runs {
        for case in &chosen {
            let Some(metrics) = (case.run)(&context)? else {
                if run == 0 {
                    eprintln!("{}: this mailweir cannot do that", case.key);
                }
                continue;
            };
            if json {
                let mut line = json!({ "case": case.key, "run": run });
                for (name, value) in &metrics {
                    line[*name] = json!(value);
                }
                println!("{line}");
            } else {
                eprintln!("{} {}", case.key, summary(&metrics));
            }
            for (name, value) in metrics {
                results.entry((case.key, name)).or_default().push(value);
            }
        }
    }
    let machine = page::machine(directory.path())?;
    let made = format!("{}; {machine}; {runs} runs of {seconds} s.", page::version(&context.program));
    let tables = tables(&results, docs);
    if !json {
        println!("{tables}\n{made}");
    }
    if docs {
        page::put(&page::performance(), "relay", &format!("{made}\n\n{tables}"))?;
    }
    Ok(())
}

fn summary(metrics: &[(&'static str, f64)]) -> String {
    let shown = metrics.iter().filter(|(name, _)| !matches!(*name, "messages" | "accepted_per_second"));
    shown.map(|(name, value)| format!("{name}={value:.3}")).collect::<Vec<_>>().join(" ")
}

/// Median and range of a figure; `–` where it was not measured.
fn shown(results: &Results, case: &'static str, name: &'static str, digits: usize) -> String {
    results.get(&(case, name)).map_or("–".into(), |figures| figures.show(digits))
}

fn median(results: &Results, case: &'static str, name: &'static str) -> Option<f64> {
    results.get(&(case, name))?.median()
}

fn percent(results: &Results, case: &'static str, name: &'static str) -> String {
    median(results, case, name).map_or("–".into(), |share| format!("{:.0} %", share * 100.0))
}

fn tables(results: &Results, markdown: bool) -> String {
    let mut speed = Table::new(["case", "messages/s", "CPU s per 1,000", "peak PSS, MB", "machine used by others"]);
    for case in CASES.iter().filter(|case| results.contains_key(&(case.key, "per_second"))) {
        speed.row([
            case.name.to_owned(),
            shown(results, case.key, "per_second", 0),
            shown(results, case.key, "cpu_per_1000", 3),
            shown(results, case.key, "peak_pss_mb", 1),
            percent(results, case.key, "others"),
        ]);
    }
    let mut delay = Table::new(["single messages into an idle relay, ms", "median", "90 %", "most"]);
    for case in CASES.iter().filter(|case| results.contains_key(&(case.key, "dot_ms"))) {
        for (name, keys) in [
            ("final dot to receipt", ["dot_ms", "dot_ms_90", "dot_ms_most"]),
            ("250 to receipt", ["reply_ms", "reply_ms_90", "reply_ms_most"]),
        ] {
            let mut row = vec![format!("{}: {name}", case.name)];
            row.extend(keys.map(|key| shown(results, case.key, key, 2)));
            delay.row(row);
        }
    }
    let mut facts = Table::new(["what follows", "figure"]);
    for (name, value) in facts_of(results) {
        facts.row([name, value]);
    }
    let print = |table: &Table| if markdown { table.markdown() } else { table.text() };
    format!("{}\n{}\n{}", print(&speed), print(&delay), print(&facts))
}

/// Ratios of medians, and what is no rate.
fn facts_of(results: &Results) -> Vec<(String, String)> {
    let mut facts = Vec::new();
    let mut ratio = |name: &str, of: (&'static str, &'static str), to: (&'static str, &'static str), share: bool| {
        if let Some((a, b)) = median(results, of.0, of.1).zip(median(results, to.0, to.1)) {
            let value = if share { format!("{:.0} %", 100.0 * a / b) } else { format!("{} ×", number(a / b, 2)) };
            facts.push((name.to_owned(), value));
        }
    };
    let rate = "per_second";
    ratio("after a pause of the provider: share of the rate without", ("waited", rate), ("2k-kept", rate), true);
    ratio("TLS to the provider: share of the rate without", ("tls-out", rate), ("2k-kept", rate), true);
    ratio("TLS from the clients: share of the rate without", ("tls-in", rate), ("2k-kept", rate), true);
    ratio("TLS on both sides: share of the rate without", ("tls-both", rate), ("2k-kept", rate), true);
    ratio("TLS from the clients, a session each: share", ("tls-in-each", rate), ("2k-each", rate), true);
    ratio("TLS on both sides, a session each: share", ("tls-both-each", rate), ("2k-each", rate), true);
    ratio("TLS, connections kept against one each: rate", ("tls-pooled", rate), ("tls-each", rate), false);
    ratio("… against one each without resumption: rate", ("tls-pooled", rate), ("tls-each-full", rate), false);
    // From the final dot, which has the commit in it, and from the 250, which is the way out alone.
    for (name, from) in
        [("TLS, one each against kept: time of a single message", "dot_ms"), ("… from the 250 on", "reply_ms")]
    {
        ratio(name, ("tls-each", from), ("tls-pooled", from), false);
        ratio("… without resumption", ("tls-each-full", from), ("tls-pooled", from), false);
    }
    ratio("MX cached against never cached: rate", ("mx-cached", rate), ("mx-uncached", rate), false);
    if results.contains_key(&("tls-each", "resumed")) {
        let text =
            format!("{} of {}", percent(results, "tls-each", "resumed"), shown(results, "tls-each", "handshakes", 0));
        facts.push(("new TLS connections that resumed a session".into(), text));
    }
    let mut time = |name: &str, key: &'static str, unit: &str, digits: usize| {
        if results.contains_key(&("cold-cache", key)) {
            facts.push((name.to_owned(), format!("{} {unit}", shown(results, "cold-cache", key, digits))));
        }
    };
    time("known domain alone: 250 to receipt, median", "alone_ms", "ms", 2);
    time("known domain alone: 250 to receipt, 99 %", "alone_ms_99", "ms", 2);
    time("… while 10,000 unknown domains are looked up, median", "beside_ms", "ms", 2);
    time("… while 10,000 unknown domains are looked up, 99 %", "beside_ms_99", "ms", 2);
    time("… while 10,000 unknown domains are looked up, most", "beside_ms_most", "ms", 1);
    time("all of the 10,000 that can be reached have got theirs after", "unknown_s", "s", 1);
    facts
}
