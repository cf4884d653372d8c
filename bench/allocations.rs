//! What the relay allocates for a message: `cargo bench --bench allocations`, `--help` for
//! the options.
//!
//! Prints allocations and bytes for each message, apart for taking it in (its provider is paused)
//! and for letting it go (the provider is resumed), and the places that allocate most. The relay
//! runs inside a copy of this program, whose allocator is dhat's and notes where every allocation
//! comes from; load and receiver run outside of it and are not counted. Figures are averages over
//! so many messages that what happens once a second vanishes in them. Buffers that SQLite (C)
//! allocates are not seen.

mod support;

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::args::Args;
use support::figures::Table;
use support::load::{Load, Until};
use support::page;
use support::relay::Setup;
use support::sink::{Options, Sink};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const USAGE: &str = "allocations [--messages N] [--top N] [--size BYTES] [--docs]\n\
    --messages N    how many are counted, default 5000\n\
    --top N         places that are printed, default 25\n\
    --size BYTES    of a message, default 2048\n\
    --docs          write the totals into docs/performance.md";

/// The program, for its commands.
const MAILWEIR: &str = env!("CARGO_BIN_EXE_mailweir");

/// Frames noted for each allocation: enough to reach our own code from inside libraries.
const FRAMES: usize = 30;

fn main() -> io::Result<()> {
    let mut args = Args::of_process(USAGE);
    if let Some(config) = args.value::<PathBuf>("--relay")? {
        return relay(&config);
    }
    let messages: u64 = args.value_or("--messages", 5000)?;
    let top: usize = args.value_or("--top", 25)?;
    let size: usize = args.value_or("--size", 2048)?;
    let docs = args.flag("--docs");
    args.end()?;

    let sink = Sink::start(Options::default())?;
    let directory = tempfile::tempdir()?;
    let mut counted = Counted::start(directory.path(), sink.address)?;
    let smtp = counted.smtp;
    let send = |count| Load { size, ..Load::new(smtp, Until::Count(count)) }.send();
    let arrived = |count| match sink.seen.wait(count, Duration::from_secs(120)) {
        came if came == count => Ok(()),
        came => Err(io::Error::other(format!("{came} of {count} messages arrived"))),
    };

    // Caches, pools and buffers reach their size.
    send(500)?;
    arrived(500)?;
    counted.provider("pause")?;
    counted.ask("begin")?;
    send(messages)?;
    let accept = counted.ask("end")?;
    counted.ask("begin")?;
    counted.provider("resume")?;
    arrived(500 + messages)?;
    // The last outcomes are being stored.
    std::thread::sleep(Duration::from_millis(300));
    let deliver = counted.ask("end")?;
    counted.ask("begin")?;
    send(messages)?;
    arrived(500 + 2 * messages)?;
    std::thread::sleep(Duration::from_millis(300));
    let both = counted.ask("end")?;

    let mut totals = Table::new(["of each message", "allocations", "bytes"]);
    for (name, report) in [("taking it in", &accept), ("letting it go", &deliver), ("both at once", &both)] {
        let (blocks, bytes) = totals_of(report)?;
        let share = |n: u64| format!("{:.1}", n as f64 / messages as f64);
        totals.row([name.to_owned(), share(blocks), share(bytes)]);
    }
    println!("{}", totals.text());
    for (name, report) in [("taking it in", &accept), ("letting it go", &deliver)] {
        println!("{name}: the places that allocate most\n{}", places(report, messages, top)?);
    }
    if docs {
        let made = format!("{}; {messages} messages of {size} bytes.", page::version(Path::new(MAILWEIR)));
        page::put(&page::performance(), "allocations", &format!("{made}\n\n{}", totals.markdown()))?;
    }
    Ok(())
}

/// A relay whose allocations can be counted.
struct Counted {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    smtp: SocketAddr,
    directory: PathBuf,
}

impl Counted {
    fn start(directory: &Path, sink: SocketAddr) -> io::Result<Counted> {
        let smtp = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let setup = Setup::new(Path::new(MAILWEIR), sink);
        let config = directory.join("config.toml");
        fs::write(&config, setup.text(smtp, directory))?;
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--relay")
            .arg(&config)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(directory.join("log"))?)
            .spawn()?;
        let (Some(commands), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("no pipes"));
        };
        let directory = directory.to_owned();
        let counted = Counted { child, commands, answers: BufReader::new(answers), smtp, directory };
        let began = Instant::now();
        while TcpStream::connect(smtp).is_err() {
            if began.elapsed() > Duration::from_secs(60) {
                return Err(io::Error::other("the relay did not start"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(counted)
    }

    /// `begin` or `end` of counting; the report that `end` brings.
    fn ask(&mut self, what: &str) -> io::Result<Value> {
        let file = self.directory.join("heap.json");
        writeln!(self.commands, "{what} {}", file.display())?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        if what == "end" { Ok(serde_json::from_slice(&fs::read(&file)?)?) } else { Ok(Value::Null) }
    }

    fn provider(&self, what: &str) -> io::Result<()> {
        let mut command = Command::new(MAILWEIR);
        command.args(["provider", what, "sink", "--config"]).arg(self.directory.join("config.toml"));
        match command.stdout(Stdio::null()).status()?.success() {
            true => Ok(()),
            false => Err(io::Error::other("the control socket does not answer")),
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The copy of this program that is the relay; it ends with its input.
fn relay(config: &Path) -> io::Result<()> {
    let loaded = mailweir::config::Loaded::read(Some(config)).map_err(io::Error::other)?;
    std::thread::spawn(move || {
        let mut profiler = None;
        for line in io::stdin().lines() {
            let line = line?;
            match line.split_once(' ') {
                Some(("begin", file)) => {
                    profiler = Some(dhat::Profiler::builder().file_name(file).trim_backtraces(Some(FRAMES)).build());
                }
                // What it counted is written when it is dropped.
                _ => drop(profiler.take()),
            }
            println!("done");
        }
        std::process::exit(0);
        #[allow(unreachable_code)]
        io::Result::Ok(())
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(mailweir::app::run(loaded, Some(config.to_owned()))).map_err(io::Error::other)
}

fn points(report: &Value) -> io::Result<impl Iterator<Item = (u64, u64, &Value)>> {
    let points = report["pps"].as_array().ok_or_else(|| io::Error::other("not a report of dhat"))?;
    let number = |point: &Value, field: &str| point[field].as_u64().unwrap_or(0);
    Ok(points.iter().map(move |point| (number(point, "tbk"), number(point, "tb"), &point["fs"])))
}

fn totals_of(report: &Value) -> io::Result<(u64, u64)> {
    Ok(points(report)?.fold((0, 0), |(blocks, bytes), (b, n, _)| (blocks + b, bytes + n)))
}

/// Allocations by the innermost frame of ours and, behind it, the one of a library that it called.
fn places(report: &Value, messages: u64, top: usize) -> io::Result<String> {
    let frames = report["ftbl"].as_array().ok_or_else(|| io::Error::other("no frames"))?;
    let own = own_files()?;
    let mut places: HashMap<String, (u64, u64)> = HashMap::new();
    for (blocks, bytes, stack) in points(report)? {
        let stack: Vec<&str> = stack
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|at| frames.get(usize::try_from(at.as_u64()?).ok()?)?.as_str())
            .collect();
        let sum = places.entry(place(&stack, &own)).or_default();
        sum.0 += blocks;
        sum.1 += bytes;
    }
    let mut sorted: Vec<_> = places.into_iter().collect();
    sorted.sort_by(|(_, a), (_, b)| b.0.cmp(&a.0).then(b.1.cmp(&a.1)));
    let mut text = format!("{:>11} {:>9}  where\n", "allocations", "bytes");
    for (place, (blocks, bytes)) in sorted.into_iter().take(top) {
        let share = |n: u64| n as f64 / messages as f64;
        let _ = writeln!(text, "{:>11.2} {:>9.1}  {place}", share(blocks), share(bytes));
    }
    Ok(text)
}

/// `0x1234: name (file:line:column)` without the address.
fn name_of(frame: &str) -> &str {
    frame.split_once(": ").map_or(frame, |(_, name)| name)
}

/// Where in our code, and the function of a library between that and the allocator, if there is one.
fn place(stack: &[&str], own: &HashSet<String>) -> String {
    let ours = stack.iter().position(|frame| own.contains(file_of(frame)));
    let below = stack.get(..ours.unwrap_or(stack.len())).unwrap_or_default();
    let is_plumbing = |frame: &&&str| {
        let name = name_of(frame).trim_start_matches(['<', '&']);
        let of = ["alloc::", "core::", "std::", "dhat::", "bytes::", "hashbrown::", "__rust", "u8 as", "[root]"];
        of.iter().any(|prefix| name.starts_with(prefix))
    };
    let library = below.iter().rev().find(|frame| !is_plumbing(frame)).map(|frame| name_of(frame));
    match (ours.and_then(|at| stack.get(at)), library) {
        (Some(ours), None) => name_of(ours).to_owned(),
        (Some(ours), Some(library)) => {
            let library = library.trim_start_matches(['<', '&']).split([' ', '<']).next().unwrap_or(library);
            format!("{}  ← {}", name_of(ours), library.trim_end_matches(':'))
        }
        (None, Some(library)) => library.to_owned(),
        (None, None) => stack.iter().map(|frame| name_of(frame)).collect::<Vec<_>>().join("  ←  "),
    }
}

/// `a/b/c.rs` of `0x1234: name (a/b/c.rs:line:column)`: the last three parts of a path are in a report.
fn file_of(frame: &str) -> &str {
    frame.rsplit_once('(').and_then(|(_, place)| place.split(':').next()).unwrap_or_default()
}

/// Our files as reports call them. Inlined functions have no path in their names, but a file.
fn own_files() -> io::Result<HashSet<String>> {
    let mut files = HashSet::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let mut parts: Vec<_> = path.iter().rev().take(3).map(|part| part.to_string_lossy()).collect();
                parts.reverse();
                files.insert(parts.join("/"));
            }
        }
    }
    Ok(files)
}
