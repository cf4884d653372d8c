//! What a deep queue, many connections and a big message cost: `cargo bench --bench growth`,
//! `--help` for the options.
//!
//! - **Queue**: messages are queued for a provider that is paused. At several depths up to the one
//!   asked for: memory, acceptance and delivery to another provider (also as a share of what a second
//!   relay, whose queue is empty, does in turn with it), the first page of `queue list`, and the time a restart takes.
//! - **Connections**: idle clients, and open connections to a provider; memory for each.
//! - **Message**: one big message passes through; memory before it and at its peak. The same of one
//!   that is smaller and one that is bigger, to tell what depends on the size.

#[path = "growth/connections.rs"]
mod connections;
#[path = "growth/depth.rs"]
mod depth;
mod support;

use std::fs;
use std::io;
use std::path::PathBuf;

use support::args::Args;
use support::chart::{self, Line, Panel};
use support::figures::{Table, number};
use support::page;

const USAGE: &str = "growth [PART...] [--messages N] [--steps N] [--size BYTES] [--directory DIR] [--idle N] [--upstream N]\n\
    [--big BYTES] [--program FILE] [--docs]\n\
    PART            --queue, --connections, --message; all of them if none is named\n\
    --messages N    depth of the queue, default 1,000,000 (of 2 KB: about 3 GB of disk)\n\
    --steps N       depths that are measured on the way, default 5\n\
    --directory DIR where the queue lies, default the one for temporary files\n\
    --idle N        clients that do nothing, default 10000\n\
    --upstream N    connections to a provider, default 2000\n\
    --big BYTES     size of the big message, default 100000000; a tenth of it and four times it are measured, too\n\
    --program FILE  the mailweir to measure, default the one just built\n\
    --docs          write into docs/performance.md and docs/growth.svg, rather than into target/bench";

/// The budget of `[queue] memory`, which is the default one.
const BUDGET_MB: f64 = 256.0 * 1.048_576;

fn main() -> io::Result<()> {
    let mut args = Args::of_process(USAGE);
    let messages: u64 = args.value_or("--messages", 1_000_000)?;
    let steps: u64 = args.value_or("--steps", 5)?;
    let size: usize = args.value_or("--size", 2048)?;
    let parent: PathBuf = args.value_or("--directory", std::env::temp_dir())?;
    let idle: usize = args.value_or("--idle", 10_000)?;
    let upstream: u32 = args.value_or("--upstream", 2000)?;
    let big: usize = args.value_or("--big", 100_000_000)?;
    let program: PathBuf = args.value_or("--program", PathBuf::from(env!("CARGO_BIN_EXE_mailweir")))?;
    let docs = args.flag("--docs");
    let (queue, connections, message) = (args.flag("--queue"), args.flag("--connections"), args.flag("--message"));
    args.end()?;
    let all = !(queue || connections || message);

    let head = format!("{}; {}.\n\n", page::version(&program), page::machine(&parent)?);
    if queue || all {
        let directory = tempfile::Builder::new().prefix("mailweir-growth-").tempdir_in(&parent)?;
        let curve = depth::measure(&program, directory.path(), messages, steps.max(1), size)?;
        let text = format!("{head}{}\n![the curve](growth.svg)\n", table_of(&curve).markdown());
        put("growth", &text, Some(&chart_of(&curve)), docs)?;
    }
    let mut found = Vec::new();
    if connections || all {
        found.extend(connections::idle_clients(&program, idle)?);
        found.extend(connections::upstream(&program, upstream)?);
    }
    if message || all {
        for size in [big / 10, big, big * 4] {
            found.extend(connections::big_message(&program, size)?);
        }
    }
    if !found.is_empty() {
        let mut facts = Table::new(["what", "figure"]);
        for (what, figure) in &found {
            facts.row([what, figure]);
        }
        // A part of the table would replace all of it.
        let whole = all || (connections && message);
        put("connections", &format!("{head}{}", facts.markdown()), None, docs && whole)?;
    }
    Ok(())
}

/// Prints a part and keeps it in `target/bench`, or also puts it into the page and beside it.
fn put(name: &str, text: &str, svg: Option<&str>, docs: bool) -> io::Result<()> {
    println!("{text}");
    let (target, page) = (page::target()?, page::performance());
    fs::write(target.join(format!("{name}.md")), text)?;
    if docs {
        page::put(&page, name, text)?;
    }
    if let Some(svg) = svg {
        let picture = format!("{name}.svg");
        fs::write(target.join(&picture), svg)?;
        if docs {
            fs::write(page.with_file_name(&picture), svg)?;
        }
    }
    Ok(())
}

fn table_of(curve: &[depth::Point]) -> Table {
    let mut table = Table::new([
        "messages queued",
        "RSS, MB",
        "accepted/s while filling",
        "other provider, end to end/s",
        "of an empty queue",
        "accepted/s, of an empty queue",
        "start-up, s",
        "RSS after start, MB",
        "`queue list`, first page, ms",
        "queue file, MB",
    ]);
    let share = |share: f64| format!("{:.0} %", 100.0 * share);
    for point in curve {
        table.row([
            number(point.messages as f64, 0),
            number(point.rss_mb, 0),
            point.filled_per_second.map_or("–".into(), |rate| number(rate, 0)),
            number(point.other_per_second, 0),
            share(point.other_share),
            share(point.accepted_share),
            number(point.start_up, 2),
            number(point.rss_started_mb, 0),
            number(point.first_page * 1000.0, 0),
            number(point.file_mb, 0),
        ]);
    }
    table
}

fn chart_of(curve: &[depth::Point]) -> String {
    let line = |name: &str, of: &dyn Fn(&depth::Point) -> f64| Line {
        name: name.to_owned(),
        points: curve.iter().map(|point| (point.messages as f64, of(point))).collect(),
    };
    let x_name = "messages queued".to_owned();
    let panels = [
        Panel {
            y_name: "Resident memory, MB".into(),
            x_name: x_name.clone(),
            lines: vec![line("while filling", &|p| p.rss_mb), line("after a restart", &|p| p.rss_started_mb)],
            limit: Some((BUDGET_MB, "[queue] memory = 256 MiB".into())),
        },
        Panel {
            y_name: "Messages a second to a provider that is not paused".into(),
            x_name: x_name.clone(),
            lines: vec![line("end to end", &|p| p.other_per_second), line("accepted", &|p| p.accepted_per_second)],
            limit: None,
        },
        Panel {
            y_name: "Seconds".into(),
            x_name,
            lines: vec![line("start-up", &|p| p.start_up), line("queue list, first page", &|p| p.first_page)],
            limit: None,
        },
    ];
    chart::lines("A queue that grows", &panels)
}
