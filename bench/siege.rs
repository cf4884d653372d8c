//! Everything at once against one normal client: `cargo bench --bench siege`, `--help` for the options.
//!
//! A normal client sends as fast as the relay answers it; how much it gets through in each second is
//! counted twice, when it is undisturbed and while all of [`troubles`] go on: messages that are as hard
//! to convert as can be, to a host that reads slowly; uploads that never end; domains whose name servers
//! are silent; hosts that hang; a sender far beyond its limit; a thousand refused recipients; bounces that
//! return hard messages; half requests. A line a minute tells the worst second, what arrived, and what the
//! relay holds. At the end everything acknowledged to the normal client must have arrived, once.
//!
//! The troubles run with the lowest priority of the machine, so that what slows the client down is the
//! relay's work for them, not the making of them.

#[path = "siege/receivers.rs"]
mod receivers;
mod support;
#[path = "siege/troubles.rs"]
mod troubles;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use receivers::{Manner, Receiver};
use support::args::Args;
use support::dns;
use support::figures::{Figures, Table, number};
use support::load::{Client, block_on, body};
use support::now_nanos;
use support::page;
use support::relay::{Relay, Setup};
use support::sink::{Options, Sink};
use support::usage::descriptors;
use troubles::Troubles;

const USAGE: &str = "siege [--minutes M] [--undisturbed SECONDS] [--memory SIZE] [--only NAMES] [--program FILE] [--docs]\n\
    --minutes M            how long, default 30\n\
    --undisturbed SECONDS  before that, without any trouble, default 30\n\
    --memory SIZE          [queue] memory, default 64MiB\n\
    --only NAMES           these troubles only, with commas between: poison, unfinished, domains, hang, bulk, refused,\n\
                           bounces, half\n\
    --program FILE         the mailweir to measure, default the one just built\n\
    --docs                 write into docs/performance.md rather than into target/bench";

/// Sessions of the normal client.
const SESSIONS: usize = 4;

/// How long what is left of the normal client may take at the end.
const DRAIN: Duration = Duration::from_secs(60);

/// What the normal client sent and what is not known to have arrived.
#[derive(Default)]
struct Ledger {
    accepted: AtomicU64,
    refused: AtomicU64,
    waiting: Mutex<HashMap<u64, u64>>,
    /// Milliseconds from the final dot to its `250`, since they were last taken.
    replies: Mutex<Figures>,
}

/// What the normal client got through, second by second.
#[derive(Default)]
struct Seconds {
    accepted: Figures,
    arrived: Figures,
    delays: Figures,
    again: u64,
}

fn main() -> io::Result<()> {
    let mut args = Args::of_process(USAGE);
    let minutes: f64 = args.value_or("--minutes", 30.0)?;
    let undisturbed: u64 = args.value_or("--undisturbed", 30)?;
    let memory: String = args.value_or("--memory", "64MiB".to_owned())?;
    let only: Option<String> = args.value("--only")?;
    let program: PathBuf = args.value_or("--program", PathBuf::from(env!("CARGO_BIN_EXE_mailweir")))?;
    let docs = args.flag("--docs");
    args.end()?;

    let sink = Sink::start(Options::default())?;
    let names = dns::Server::own(Duration::ZERO, 1)?;
    let others = Others::start()?;
    let setup =
        Setup { sink: None, sections: others.sections(&sink, &names, &memory), ..Setup::new(&program, sink.address) };
    let relay = Relay::start(&setup)?;

    let ledger = Arc::new(Ledger::default());
    let over = Arc::new(AtomicBool::new(false));
    let client = thread::spawn({
        let (to, ledger, over) = (relay.smtp, ledger.clone(), over.clone());
        move || normal_client(to, &ledger, &over)
    });
    // Whatever is opened once has been opened then.
    follow(&sink, &ledger, Duration::from_secs(5));
    let alone = follow(&sink, &ledger, Duration::from_secs(undisturbed));
    let rest = (relay.group().rss(), descriptors(relay.pid())?);
    let base = alone.accepted.median().unwrap_or(0.0);
    eprintln!(
        "undisturbed: {} a second, worst second {}",
        number(base, 0),
        number(alone.accepted.at(0.0).unwrap_or(0.0), 0)
    );

    let troubles = Troubles::begin(relay.smtp, only.as_deref())?;
    let mut table = Table::new(COLUMNS);
    let (mut all, mut most_rss) = (Seconds::default(), 0.0_f64);
    let began = Instant::now();
    let mut minute = 0;
    while began.elapsed().as_secs_f64() < minutes * 60.0 {
        let left = Duration::from_secs_f64((minutes * 60.0 - began.elapsed().as_secs_f64()).max(1.0));
        let row = follow(&sink, &ledger, left.min(Duration::from_secs(60)));
        minute += 1;
        let rss = relay.group().rss() as f64 / (1024.0 * 1024.0);
        most_rss = most_rss.max(rss);
        let replies = std::mem::take(&mut *ledger.replies.lock());
        let cells = line(minute, &row, base, &replies, rss, descriptors(relay.pid())?);
        eprintln!("{}", cells.join("  "));
        table.row(cells);
        all.accepted.0.extend(&row.accepted.0);
        all.arrived.0.extend(&row.arrived.0);
        all.again += row.again;
    }
    let made = troubles.end();
    over.store(true, Ordering::SeqCst);
    client.join().map_err(|_| io::Error::other("the client panicked"))??;
    let drained = Instant::now();
    while !ledger.waiting.lock().is_empty() && drained.elapsed() < DRAIN {
        let row = follow(&sink, &ledger, Duration::from_secs(1));
        all.again += row.again;
    }
    let head = format!(
        "{}; {}; {minutes} minutes with `[queue] memory = \"{memory}\"`; {SESSIONS} sessions of the normal client, messages of 2 KB.",
        page::version(&program),
        page::machine(&std::env::temp_dir())?,
    );
    let facts = facts(&ledger, &alone, &all, rest, most_rss, &made);
    write(&head, &facts, &table, docs)
}

/// Sends until it is over, on this thread. Every message has a number, which the receiver notes.
fn normal_client(to: std::net::SocketAddr, ledger: &Arc<Ledger>, over: &Arc<AtomicBool>) -> io::Result<()> {
    block_on(async {
        let (next, body) = (Arc::new(AtomicU64::new(0)), Arc::new(body(2048)));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..SESSIONS {
            let (next, body, ledger, over) = (next.clone(), body.clone(), ledger.clone(), over.clone());
            tasks.spawn(async move {
                let mut client = None;
                while !over.load(Ordering::SeqCst) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    match one(to, &mut client, number, &body, &ledger).await {
                        Ok(()) => _ = ledger.accepted.fetch_add(1, Ordering::Relaxed),
                        Err(_) => {
                            ledger.waiting.lock().remove(&number);
                            ledger.refused.fetch_add(1, Ordering::Relaxed);
                            client = None;
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                    }
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.map_err(io::Error::other)?;
        }
        Ok(())
    })?
}

async fn one(
    to: std::net::SocketAddr,
    client: &mut Option<Client>,
    number: u64,
    body: &[u8],
    ledger: &Ledger,
) -> io::Result<()> {
    let open = match client {
        Some(open) => open,
        None => client.insert(Client::open(to, None).await?),
    };
    open.envelope("app@normal.example", &format!("probe-{number}@good.example")).await?;
    // It can arrive before its 250 is here.
    ledger.waiting.lock().insert(number, now_nanos());
    let began = Instant::now();
    open.say(body).await?;
    ledger.replies.lock().push(began.elapsed().as_secs_f64() * 1e3);
    Ok(())
}

/// Counts what the normal client gets through, second by second.
fn follow(sink: &Sink, ledger: &Ledger, time: Duration) -> Seconds {
    let mut seconds = Seconds::default();
    let began = Instant::now();
    let mut accepted = ledger.accepted.load(Ordering::Relaxed);
    sink.seen.take_probes().into_iter().for_each(|(number, _)| _ = ledger.waiting.lock().remove(&number));
    let mut at = Instant::now();
    while began.elapsed() + Duration::from_millis(500) < time {
        thread::sleep(Duration::from_secs(1).saturating_sub(at.elapsed()));
        let took = at.elapsed().as_secs_f64();
        at = Instant::now();
        let now = ledger.accepted.load(Ordering::Relaxed);
        let arrived = sink.seen.take_probes();
        seconds.accepted.push((now - accepted) as f64 / took);
        seconds.arrived.push(arrived.len() as f64 / took);
        accepted = now;
        let mut waiting = ledger.waiting.lock();
        for (number, came) in arrived {
            match waiting.remove(&number) {
                Some(sent) => seconds.delays.push(came.saturating_sub(sent) as f64 / 1e6),
                None => seconds.again += 1,
            }
        }
    }
    seconds
}

const COLUMNS: [&str; 9] = [
    "minute",
    "accepted/s, median",
    "worst second",
    "… of undisturbed",
    "arrived/s, worst second",
    "250 after, ms: 99 %",
    "final dot to receipt, ms: 99 %",
    "RSS, MiB",
    "descriptors",
];

fn line(minute: u32, row: &Seconds, base: f64, replies: &Figures, rss: f64, descriptors: usize) -> Vec<String> {
    let at =
        |figures: &Figures, share: f64, digits| figures.at(share).map_or("–".into(), |value| number(value, digits));
    vec![
        minute.to_string(),
        at(&row.accepted, 0.5, 0),
        at(&row.accepted, 0.0, 0),
        format!("{} %", number(row.accepted.at(0.0).unwrap_or(0.0) * 100.0 / base.max(1.0), 0)),
        at(&row.arrived, 0.0, 0),
        at(replies, 0.99, 1),
        at(&row.delays, 0.99, 1),
        number(rss, 0),
        descriptors.to_string(),
    ]
}

fn facts(
    ledger: &Ledger,
    alone: &Seconds,
    all: &Seconds,
    rest: (u64, usize),
    most_rss: f64,
    made: &[(&'static str, u64)],
) -> Table {
    let base = alone.accepted.median().unwrap_or(0.0);
    let share = |value: Option<f64>| format!("{} %", number(value.unwrap_or(0.0) * 100.0 / base.max(1.0), 0));
    let mut facts = Table::new(["what", "figure"]);
    facts.row(["undisturbed, accepted/s: median, worst second", &alone.accepted.show(0)]);
    facts.row(["disturbed, accepted/s: median (worst–best second)", &all.accepted.show(0)]);
    facts.row([
        "… worst second, 1 % and median of the undisturbed rate",
        &format!("{}, {}, {}", share(all.accepted.at(0.0)), share(all.accepted.at(0.01)), share(all.accepted.median())),
    ]);
    facts.row(["disturbed, arrived/s: median (worst–best second)", &all.arrived.show(0)]);
    facts.row(["messages with a `250`", &number(ledger.accepted.load(Ordering::Relaxed) as f64, 0)]);
    facts.row(["… that had not arrived at the end", &ledger.waiting.lock().len().to_string()]);
    facts.row(["… that arrived once more", &all.again.to_string()]);
    facts.row(["messages that the relay did not take", &ledger.refused.load(Ordering::Relaxed).to_string()]);
    facts.row([
        "RSS undisturbed, and the most at the end of a minute, MiB",
        &format!("{}, {}", number(rest.0 as f64 / (1024.0 * 1024.0), 0), number(most_rss, 0)),
    ]);
    for (name, count) in made {
        facts.row([format!("trouble: {name}"), number(*count as f64, 0)]);
    }
    facts
}

fn write(head: &str, facts: &Table, table: &Table, docs: bool) -> io::Result<()> {
    println!("{head}\n\n{}\n{}", facts.text(), table.text());
    let text = format!("{head}\n\n{}\n{}", facts.markdown(), table.markdown());
    fs::write(page::target()?.join("siege.md"), &text)?;
    if docs { page::put(&page::performance(), "siege", &text) } else { Ok(()) }
}

/// The receivers that make trouble.
struct Others {
    weak: Receiver,
    hang: Receiver,
    refuse: Receiver,
}

impl Others {
    fn start() -> io::Result<Others> {
        Ok(Others {
            weak: Receiver::start(Manner::Slow)?,
            hang: Receiver::start(Manner::Silent)?,
            refuse: Receiver::start(Manner::Refuses)?,
        })
    }

    /// The tables of the configuration, the end of `[queue]` first.
    fn sections(&self, sink: &Sink, names: &dns::Server, memory: &str) -> String {
        let provider = |name: &str, to: std::net::SocketAddr, keys: &str| {
            format!(
                "[provider.{name}]\nmatch = {{ domains = [\"{name}.example\"] }}\nrelay = \"{to}\"\ntls = \"off\"\n{keys}\n"
            )
        };
        [
            format!("memory = \"{memory}\"\n[dns]\nnameservers = [\"{}\"]\n", names.address),
            "[retry]\nfirst = \"5s\"\nmax = \"30s\"\n".to_owned(),
            provider("good", sink.address, "rate = []\nconnections = 20\nmessages_per_connection = 100000"),
            provider("weak", self.weak.address, "rate = []\nconnections = 20"),
            provider("hang", self.hang.address, "rate = []\nconnections = 20"),
            provider("news", sink.address, "rate = \"50/s\""),
            provider("refuse", self.refuse.address, "rate = []\nconnections = 5\nrecipients_per_message = 1"),
            "[[limit]]\nsender = \"*@bulk.example\"\nprovider = \"news\"\nquota = \"10/h\"\n".to_owned(),
            "[admin]\naddress = \"127.0.0.1:0\"\n".to_owned(),
        ]
        .concat()
    }
}
