//! mailweir beside other relays on the same machine: `cargo bench --bench peers [-- OPTIONS]`,
//! `--help` for the options.
//!
//! Each relay that is there (`bench/peers/*.sh`; `bench/peers/fetch` brings some) is started with an
//! empty queue, gets the same load from the same generator, and sends to the same receiver. The
//! order is: each case with each relay in turn, then all of that again, so that a disturbance of the
//! machine hits all alike; medians of the runs, and of the ratios within each round. The relay
//! `none` is none: the load goes straight to the receiver, which is the ceiling of this set-up.

#[path = "peers/contest.rs"]
mod contest;
#[path = "peers/report.rs"]
mod report;
mod support;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use contest::{CASES, Contest, Peer};
use report::Results;
use serde_json::json;
use support::args::Args;
use support::page;

const USAGE: &str = "peers [--runs N] [--seconds S] [--relays A,B] [--case KEY] [--fetched DIR] [--program FILE] [--json] [--docs]\n\
    --runs N        rounds, default 5\n\
    --seconds S     how long a run sends, default 5\n\
    --relays A,B    only these of bench/peers/*.sh, and none\n\
    --case KEY      only the cases whose key begins so: 2k-kept, 2k-each, 20k-kept, wan, latency\n\
    --fetched DIR   what bench/peers/fetch made, default target/bench/peers\n\
    --program FILE  the mailweir to measure, default the one just built\n\
    --json          a line for each run\n\
    --docs          write the tables into docs/performance.md and the chart into docs/peers.svg,\n\
                    rather than into target/bench";

fn main() -> io::Result<()> {
    let mut args = Args::of_process(USAGE);
    let runs: u32 = args.value_or("--runs", 5)?;
    let seconds: f64 = args.value_or("--seconds", 5.0)?;
    let only: Option<String> = args.value("--relays")?;
    let prefix: String = args.value_or("--case", String::new())?;
    let fetched: PathBuf = args.value_or("--fetched", page::target()?.join("peers"))?;
    let program: PathBuf = args.value_or("--program", PathBuf::from(env!("CARGO_BIN_EXE_mailweir")))?;
    let (json, docs) = (args.flag("--json"), args.flag("--docs"));
    args.end()?;

    let contest = Contest { program, fetched, time: Duration::from_secs_f64(seconds) };
    let wanted = |name: &str| only.as_ref().is_none_or(|only| only.split(',').any(|one| one == name));
    let (peers, missing) = contest.peers(&wanted)?;
    for (name, why) in &missing {
        eprintln!("{name}: left out: {why}");
    }
    let cases: Vec<_> = CASES.iter().filter(|case| case.key.starts_with(&prefix)).collect();

    let mut results = Results::default();
    for run in 0..runs {
        for case in &cases {
            for peer in &peers {
                match contest.run(peer, case) {
                    Ok(metrics) => {
                        let mut line = json!({ "relay": peer.name, "case": case.key, "run": run });
                        for (name, value) in &metrics {
                            line[*name] = json!(value);
                        }
                        if json {
                            println!("{line}")
                        } else {
                            eprintln!("{line}")
                        }
                        results.add(&peer.name, case.key, run, &metrics);
                    }
                    // One relay's trouble is not the end of the others.
                    Err(error) => eprintln!("{} {}: {error}", peer.name, case.key),
                }
            }
        }
    }
    finish(&results, &peers, &missing, (runs, seconds), docs)
}

fn finish(
    results: &Results,
    peers: &[Peer],
    missing: &[(String, String)],
    (runs, seconds): (u32, f64),
    docs: bool,
) -> io::Result<()> {
    let machine = page::machine(&std::env::temp_dir())?;
    let mut text =
        format!("{machine}; {runs} rounds, {seconds} s a run.\n\n![the rates](peers.svg)\n\n{}", results.tables(peers));
    for (name, why) in missing {
        text.push_str(&format!("\nNot measured: {name} ({why}).\n"));
    }
    let chart = results.chart(peers);
    println!("{text}");
    let target = page::target()?;
    fs::write(target.join("peers.md"), &text)?;
    fs::write(target.join("peers.svg"), &chart)?;
    eprintln!("{} and peers.svg beside it", target.join("peers.md").display());
    if docs {
        let page = page::performance();
        page::put(&page, "peers", &text)?;
        fs::write(page.with_file_name("peers.svg"), &chart)?;
        eprintln!("{} and docs/peers.svg", Path::new("docs/performance.md").display());
    }
    Ok(())
}
