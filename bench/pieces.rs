//! The pieces that every message passes, one by one, with criterion:
//! `cargo bench --bench pieces [-- NAME]`.
//!
//! They say which piece a change made slower; what the relay as a whole does says
//! `cargo bench --bench relay`. Throughput counts bytes of a message of 2 KB or 20 KB where a piece
//! looks at bytes, and elements elsewhere. With `UPDATE_DOCS=1` in the environment the table in
//! `docs/performance.md` is written anew (criterion takes the arguments for itself).

#[path = "pieces/report.rs"]
mod report;
mod support;

use std::collections::VecDeque;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use mailweir::clock::Clock;
use mailweir::config::units::Rate;
use mailweir::deliver::encode::Encoder;
use mailweir::deliver::reply::ReplyParser;
use mailweir::dkim::{Algorithm, Signature, Signer, SigningKey};
use mailweir::listener::draft::Draft;
use mailweir::mail::{
    Address, BodyTraits, Caller, Envelope, LaneName, Message, NewMessage, NewRecipient, Origin, QueueId, Recipient,
    RecipientKey, Trace,
};
use mailweir::queue::sqlite::SqliteQueue;
use mailweir::queue::{Leases, Settlement, Spool, Upkeep, Verdict};
use mailweir::schedule::ready::Ready;
use mailweir::schedule::{Held, Job, Shared};
use mailweir::shape::Limiter;
use mailweir::smtp::{Command, DotReader, Line, LineReader};

/// Why a piece cannot be measured; the program ends with it.
type Trouble = Box<dyn std::error::Error>;

/// Messages of a commit.
const BATCH: usize = 64;

/// A message as clients send it, with some header fields and without its dot line.
fn message(size: usize) -> Vec<u8> {
    let mut text = b"From: Shop <news@shop.example>\r\nTo: to@there.example\r\nSubject: Your order\r\n\
        Date: Sat, 21 Nov 2026 12:00:00 +0000\r\nMessage-ID: <1234567890@shop.example>\r\nMIME-Version: 1.0\r\n\
        Content-Type: text/plain; charset=utf-8\r\nList-Unsubscribe: <https://shop.example/u/123>,\r\n\
        \t<mailto:u@shop.example>\r\n\r\n"
        .to_vec();
    while text.len() < size {
        text.extend_from_slice(b"A line of text as people write them, neither very long nor very short.\r\n");
    }
    text
}

/// The four commands of a transaction, found in one buffer and parsed.
fn lines(c: &mut Criterion) {
    let input = b"EHLO app.example\r\nMAIL FROM:<news@shop.example> SIZE=2048 BODY=8BITMIME\r\n\
        RCPT TO:<to@there.example> NOTIFY=FAILURE\r\nDATA\r\n";
    let mut group = c.benchmark_group("line reader");
    group.throughput(Throughput::Elements(4));
    group.bench_function("find", |b| b.iter(|| each_line(black_box(input), |line| _ = black_box(line))));
    group.bench_function("find and parse", |b| {
        b.iter(|| each_line(black_box(input), |line| _ = black_box(Command::parse(line).is_ok())))
    });
    group.finish();
}

fn each_line(input: &[u8], mut take: impl FnMut(&[u8])) {
    let mut reader = LineReader::default();
    let mut rest = input;
    while let Line::Complete { len, used, .. } = reader.next(rest, 2048) {
        take(rest.get(..len).unwrap_or_default());
        rest = rest.get(used..).unwrap_or_default();
    }
}

/// Message data up to its dot line.
fn dots(c: &mut Criterion) {
    let mut group = c.benchmark_group("dot reader");
    for size in [2048, 20_480] {
        let mut data = message(size);
        data.extend_from_slice(b".\r\n");
        group.throughput(Throughput::Bytes(data.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(size), &data, |b, data| {
            b.iter(|| {
                let mut length = 0;
                let fed = DotReader::new(false).feed(black_box(data), |run| length += run.len());
                black_box((fed, length))
            })
        });
    }
    group.finish();
}

/// A body on its way in: `Received:` written, header scanned and mended, traits noted.
fn headers(c: &mut Criterion) {
    let hostname: Arc<str> = "relay.example".into();
    let trace = Trace {
        helo: "app.example",
        caller: Caller::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        hostname: &hostname,
        esmtp: true,
        tls: false,
        authenticated: false,
        smtputf8: false,
        sender: None,
        minimal: false,
        recipient: None,
    };
    let mut group = c.benchmark_group("header scan");
    for size in [2048, 20_480] {
        let text = message(size);
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(size), &text, |b, text| {
            b.iter(|| {
                let now = Clock::System.now();
                let mut draft = Draft::new(QueueId(1), now, &trace, u64::MAX, text.len() as u64, None);
                draft.push(black_box(text));
                black_box(draft.content())
            })
        });
    }
    group.finish();
}

fn new_message(id: QueueId) -> Result<NewMessage, Trouble> {
    let message = Message {
        id,
        received: Clock::System.now(),
        envelope: envelope("news@shop.example")?,
        origin: Origin::Local,
        size: 2048,
        traits: BodyTraits::default(),
    };
    let recipient = Recipient::new(Address::parse("to@there.example")?);
    let recipients = vec![NewRecipient { recipient, lane: LaneName::provider("there"), leased: true, held: None }];
    Ok(NewMessage { message: Arc::new(message), recipients, head: Bytes::from(vec![b'x'; 2048]) })
}

fn envelope(sender: &str) -> Result<Envelope, Trouble> {
    Ok(Envelope { reverse_path: Some(Address::parse(sender)?), ..Envelope::default() })
}

/// So many messages that wait for the same commit, and their outcomes in another one; each is on
/// the disk when it is answered.
fn commits(c: &mut Criterion) -> Result<(), Trouble> {
    let directory = tempfile::tempdir()?;
    let queue = SqliteQueue::open(&directory.path().join("queue.db"), Clock::System)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let mut group = c.benchmark_group("commit batch");
    group.sample_size(20).throughput(Throughput::Elements(BATCH as u64));
    let once = async || -> Result<(), Trouble> {
        let ids: Vec<QueueId> = (0..BATCH).map(|_| queue.next_id(Clock::System.now())).collect();
        let mut accepts = tokio::task::JoinSet::new();
        for id in &ids {
            let (queue, new) = (queue.clone(), new_message(*id)?);
            accepts.spawn(async move { queue.accept(new).await });
        }
        while let Some(accepted) = accepts.join_next().await {
            accepted??;
        }
        let key = |id: &QueueId| RecipientKey { id: *id, index: 0 };
        let settlements = ids.iter().map(|id| Settlement { key: key(id), verdict: Verdict::Delivered }).collect();
        Ok(queue.settle(settlements, Vec::new()).await?)
    };
    let mut failed = None;
    group.bench_function("accept and settle 64", |b| {
        b.iter_custom(|times| {
            let began = Instant::now();
            for _ in 0..times {
                if let Err(error) = runtime.block_on(once()) {
                    failed = Some(error);
                }
            }
            began.elapsed()
        })
    });
    group.finish();
    runtime.block_on(queue.close());
    failed.map_or(Ok(()), Err)
}

/// Taking the next job of a lane with a full window, and putting one in again.
fn lanes(c: &mut Criterion) -> Result<(), Trouble> {
    let mut jobs = Vec::new();
    for n in 0..4096u32 {
        let message = Message {
            id: QueueId(i64::from(n)),
            received: Clock::System.now(),
            envelope: envelope(&format!("news@shop{}.example", n % 50))?,
            origin: Origin::Local,
            size: 2048,
            traits: BodyTraits::default(),
        };
        let shared = Arc::new(Shared { message: Arc::new(message), head: None, ticket: None });
        let mut job = Job::new(shared, format!("there{}.example", n % 20).into());
        job.recipients.push(Held::fresh(0, Recipient::new(Address::parse("to@there.example")?)));
        jobs.push(job);
    }
    let mut ready = Ready::default();
    jobs.into_iter().for_each(|job| ready.push(job));
    let mut group = c.benchmark_group("lane pop");
    for (name, destination) in [("any destination", None), ("for a connection", Some("there7.example"))] {
        group.bench_function(name, |b| {
            b.iter(|| {
                if let Some(job) = ready.pop(100, black_box(destination)) {
                    ready.push(job);
                }
            })
        });
    }
    group.finish();
    Ok(())
}

/// A permit of a provider with one rate, and of one with three.
fn limiters(c: &mut Criterion) {
    let mut group = c.benchmark_group("limiter");
    let rate = |count, seconds| Rate { count, per: Duration::from_secs(seconds) };
    // So high that it permits: waiting is not what is measured.
    let rates = [rate(1_000_000_000, 1), rate(4_000_000_000, 60), rate(4_000_000_000, 3600)];
    for n in [0, 1, 3] {
        let limiter = Arc::new(Limiter::new(rates.get(..n).unwrap_or_default(), 1_000_000));
        group.bench_function(BenchmarkId::new("rates", n), |b| b.iter(|| black_box(limiter.try_take(1).is_ok())));
    }
    group.finish();
}

/// The replies to a pipelined transaction.
fn replies(c: &mut Criterion) {
    let input = b"250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n250 2.0.0 Ok: queued as 4XyZab12Cd\r\n";
    let mut group = c.benchmark_group("reply parse");
    group.throughput(Throughput::Elements(3));
    group.bench_function("three replies", |b| {
        b.iter_batched_ref(
            || (ReplyParser::default(), VecDeque::with_capacity(4)),
            |(parser, out)| black_box(parser.feed(black_box(input), out).is_ok() && out.len() == 3),
            BatchSize::SmallInput,
        )
    });
    group.finish();
}

/// A body on its way out: checked, and stuffed where it has to be.
fn bodies(c: &mut Criterion) {
    let mut group = c.benchmark_group("body write");
    for size in [2048, 20_480] {
        let plain = Bytes::from(message(size));
        let mut dotted = message(size);
        dotted.extend_from_slice(b".a line that starts with a dot\r\n");
        let dotted = Bytes::from(dotted);
        group.throughput(Throughput::Bytes(size as u64));
        for (name, body, make) in [
            ("BDAT", &plain, Encoder::for_bdat as fn() -> Encoder),
            ("DATA", &plain, Encoder::for_data),
            ("DATA with a dot", &dotted, Encoder::for_data),
        ] {
            group.bench_with_input(BenchmarkId::new(name, size), body, |b, body| {
                b.iter(|| {
                    let mut encoder = make();
                    black_box((encoder.encode(black_box(body).clone()), encoder.finish()))
                })
            });
        }
    }
    group.finish();
}

/// A message signed with DKIM: read, hashed and signed, without its way to another thread.
fn signatures(c: &mut Criterion) -> Result<(), Trouble> {
    let mut group = c.benchmark_group("DKIM");
    let (rsa, _) = SigningKey::generate(Algorithm::RsaSha256)?;
    let (ed25519, _) = SigningKey::generate(Algorithm::Ed25519Sha256)?;
    let signature = |key| Signature { domain: "shop.example", selector: "s", key, at: 1_800_000_000, until: None };
    let (rsa, ed25519) = (signature(&rsa), signature(&ed25519));
    for size in [2048, 20_480] {
        let body = Bytes::from(message(size));
        for (name, signatures) in
            [("none", vec![]), ("Ed25519", vec![ed25519]), ("RSA-2048", vec![rsa]), ("both", vec![rsa, ed25519])]
        {
            group.bench_with_input(BenchmarkId::new(name, size), &body, |b, body| {
                b.iter(|| {
                    let (mut encoder, mut signer) = (Encoder::for_signing(), Signer::new());
                    let read = signer.push(&encoder.encode(black_box(body).clone()));
                    black_box((read.is_ok(), signer.finish(&signatures).is_ok()))
                })
            });
        }
    }
    group.finish();
    Ok(())
}

fn main() -> Result<(), Trouble> {
    let results = support::page::target()?.join("criterion");
    let began = SystemTime::now();
    let mut criterion = Criterion::default().output_directory(&results).configure_from_args();
    lines(&mut criterion);
    dots(&mut criterion);
    headers(&mut criterion);
    commits(&mut criterion)?;
    lanes(&mut criterion)?;
    limiters(&mut criterion);
    replies(&mut criterion);
    bodies(&mut criterion);
    signatures(&mut criterion)?;
    criterion.final_summary();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        report::write(&results, began)?;
    }
    Ok(())
}
