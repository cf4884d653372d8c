//! Does what a request asks, page by page, whether it came over the control socket or straight
//! from the command line (while no mailweir runs).
//!
//! Invariants: an operation touches only what was in the queue when it began, so it ends; what is
//! in a transaction is left alone and counted (a hold or a cancel is done to it afterwards); what was taken from the scheduler goes back to the
//! queue with the operation, or back to the scheduler when the store refuses it.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::bans::BanStatus;
use super::explain::tls_wish;
use super::listing::list;
use super::resuming::{only_for_now, resume};
use super::{Controls, Explanation, Forgotten, LaneStatus, Resumed, Status, Withdrawn};
use crate::clock::{Clock, Timestamp};
use crate::listener::arrivals::Lock;
use crate::mail::{Address, CHUNK, Incoming, LaneName, QueueId, RecipientKey, State};
use crate::queue::{Counts, Desk, Filter, Operation, Page, Queue, QueueError, Row, Spool, Storage};

/// Recipients looked at or changed in one step.
pub(super) const PAGE: usize = 500;
/// The same when all are due now: what others wait for in between.
const RETRIED_AT_ONCE: usize = 1000;

/// Lanes of an operation that are looked at afterwards, about.
const LANES_KNOWN: usize = 1000;

/// What an operator asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// How the relay is.
    Status,
    /// The lanes.
    Lanes,
    /// Stop a lane or provider.
    Pause {
        /// Its name.
        name: String,
    },
    /// End what holds a lane or provider, but for the configuration's own limits.
    Resume {
        /// Its name.
        name: String,
    },
    /// Forget what replies taught about a lane or provider.
    Forget {
        /// Its name.
        name: String,
    },
    /// Recipients that match.
    List {
        /// Which.
        filter: Filter,
        /// At most this many.
        limit: u64,
    },
    /// Do an operation to the recipients that match.
    Operate {
        /// What.
        op: Operation,
        /// Which; an empty filter means all.
        filter: Filter,
    },
    /// The bytes of a message.
    Body {
        /// Queue id.
        id: String,
        /// Only up to the first empty line.
        headers_only: bool,
    },
    /// Read the configuration again and put it in force.
    Reload,
    /// Which file the configuration in force came from: a note with its full path, empty without a file.
    File,
    /// How the file of the configuration differs from what is in force: a note if it does.
    FileDiffers,
    /// The values in force that differ from the built-in ones, as TOML in a note.
    Settings,
    /// Addresses whose logins have failed.
    Bans,
    /// Forget that of one, or of all.
    Unban {
        /// Which; `None`: all.
        address: Option<IpAddr>,
    },
    /// Users who may not send until somebody ends that.
    Locks,
    /// Let one send again.
    Unlock {
        /// Its name.
        user: String,
    },
    /// Copy the queue, as the relay has it open, to a new file.
    Save {
        /// Its absolute path.
        file: PathBuf,
    },
    /// What would become of a message sent now.
    Explain {
        /// Reverse-path; empty for the null one.
        sender: String,
        /// Forward-path.
        recipient: String,
        /// Its priority.
        priority: i8,
        /// The client that hands it in.
        #[serde(default)]
        client: Option<IpAddr>,
        /// The `name` of the listener that takes it; empty: none.
        #[serde(default)]
        listener: String,
        /// As whom the client has logged in; empty: as nobody.
        #[serde(default)]
        user: String,
        /// Its MAIL says REQUIRETLS.
        #[serde(default)]
        requiretls: bool,
    },
}

/// A part of an answer. `Done` or `Error` is the last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// How the relay is.
    Status(Box<Status>),
    /// A lane.
    Lane(Box<LaneStatus>),
    /// What would become of a message.
    Explanation(Box<Explanation>),
    /// A recipient.
    Row(Box<Row>),
    /// An address whose logins have failed.
    Ban(BanStatus),
    /// A user who may not send.
    Lock(Lock),
    /// This many bytes of a message follow.
    Bytes(usize),
    /// Something in words.
    Note(String),
    /// What became of a lane that was resumed.
    Resumed(Box<Resumed>),
    /// What was forgotten of a lane.
    Forgotten(Box<Forgotten>),
    /// Nothing leaves a lane that has recipients of the operation.
    Stopped {
        /// The lane.
        lane: String,
        /// What holds it and until when, in words.
        why: String,
    },
    /// A copy was made.
    Saved {
        /// Its size.
        bytes: u64,
        /// What is in it.
        counts: Counts,
    },
    /// The end.
    Done(Done),
    /// The end: it did not work.
    Error(Failure),
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Recipients that matched (rows listed).
    pub matched: u64,
    /// Recipients changed.
    pub changed: u64,
    /// Recipients that matched and are in a transaction just now, so they were left alone.
    pub in_flight: u64,
    /// There is more than the limit allowed.
    pub more: bool,
    /// Recipients that matched a retry and wait for their time: they were left alone.
    #[serde(default)]
    pub scheduled: u64,
}

/// Why it did not work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// For people.
    pub message: String,
    /// It may work later.
    pub temporary: bool,
    /// The configuration is at fault.
    #[serde(default)]
    pub config: bool,
    /// What was done before it failed.
    pub done: Done,
}

impl Failure {
    fn refused(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), temporary: false, config: false, done: Done::default() }
    }

    pub(super) fn of_queue(error: QueueError, done: Done) -> Failure {
        let temporary = !matches!(error, QueueError::Damaged(_));
        Failure { message: error.to_string(), temporary, config: false, done }
    }
}

/// Where replies go.
#[async_trait]
pub trait Sink: Send {
    /// Takes a reply; `bytes` is empty but for [`Reply::Bytes`]. An error ends the request.
    async fn put(&mut self, reply: Reply, bytes: &[u8]) -> io::Result<()>;
}

/// Does what `request` asks. The error is that of the sink.
pub async fn handle(controls: &dyn Controls, clock: Clock, request: Request, sink: &mut dyn Sink) -> io::Result<()> {
    // A reload is what others wait for, and has its turn by itself.
    let _inside = match &request {
        Request::Reload => None,
        _ => match controls.enter().await {
            Ok(inside) => Some(inside),
            Err(message) => {
                let failure = Failure { temporary: true, ..Failure::refused(message) };
                return sink.put(Reply::Error(failure), &[]).await;
            }
        },
    };
    let last = match answer(controls, clock, request, sink).await? {
        Ok(done) => Reply::Done(done),
        Err(failure) => Reply::Error(failure),
    };
    sink.put(last, &[]).await
}

async fn answer(
    controls: &dyn Controls,
    clock: Clock,
    request: Request,
    sink: &mut dyn Sink,
) -> io::Result<Result<Done, Failure>> {
    match request {
        Request::Status => {
            let mut status = controls.status();
            match controls.queue().counts().await {
                Ok(counts) => status.queue = counts,
                Err(e) => return Ok(Err(Failure::of_queue(e, Done::default()))),
            }
            // Whatever the disk does, the rest is told.
            status.storage = controls.queue().storage().await.unwrap_or_else(|e| {
                let trouble = e.to_string();
                Storage { trouble, ..Storage::default() }
            });
            sink.put(Reply::Status(Box::new(status)), &[]).await?;
        }
        Request::Bans => {
            for ban in controls.bans() {
                sink.put(Reply::Ban(ban), &[]).await?;
            }
        }
        Request::Unban { address } => {
            let changed = controls.unban(address) as u64;
            return Ok(Ok(Done { matched: changed, changed, ..Done::default() }));
        }
        Request::Locks => {
            for lock in controls.locks() {
                sink.put(Reply::Lock(lock), &[]).await?;
            }
        }
        Request::Unlock { user } => match controls.unlock(&user).await {
            Ok(true) => return Ok(Ok(Done { matched: 1, changed: 1, ..Done::default() })),
            Ok(false) => {}
            Err(e) => return Ok(Err(only_for_now(&user, "unlocked", e))),
        },
        Request::Save { file } => match controls.queue().save(file).await {
            Ok((bytes, counts)) => sink.put(Reply::Saved { bytes, counts }, &[]).await?,
            Err(e) => return Ok(Err(Failure { temporary: e.temporary, ..Failure::refused(e.message) })),
        },
        Request::Lanes => {
            for lane in controls.lanes().await {
                sink.put(Reply::Lane(Box::new(lane)), &[]).await?;
            }
        }
        Request::Pause { name } => match controls.pause(&name, true).await {
            Ok(true) => {}
            Ok(false) => return Ok(Err(unknown_lane(&name))),
            Err(e) => return Ok(Err(only_for_now(&name, "paused", e))),
        },
        Request::Resume { name } => return resume(controls, clock, &name, sink).await,
        Request::Forget { name } => match controls.forget(&name).await {
            Ok(Some(lanes)) => {
                for lane in lanes {
                    sink.put(Reply::Forgotten(Box::new(lane)), &[]).await?;
                }
            }
            Ok(None) => return Ok(Err(unknown_lane(&name))),
            Err(e) => return Ok(Err(only_for_now(&name, "as if nothing had been learned", e))),
        },
        Request::Reload => match controls.reload().await {
            Ok(told) => sink.put(Reply::Note(told), &[]).await?,
            Err(why) => return Ok(Err(Failure { config: why.config, ..Failure::refused(why.message) })),
        },
        Request::Settings => match controls.settings() {
            Some(settings) => sink.put(Reply::Note(settings), &[]).await?,
            None => return Ok(Err(Failure::refused("the values in force are not known"))),
        },
        Request::File => sink.put(Reply::Note(controls.status().config), &[]).await?,
        Request::FileDiffers => {
            if let Some(told) = controls.file_differs().await {
                sink.put(Reply::Note(told), &[]).await?;
            }
        }
        Request::Explain { sender, recipient, priority, client, listener, user, requiretls } => {
            let parse = |text: &str| Address::parse(text).map_err(|e| Failure::refused(format!("`{text}`: {e}")));
            let sender = match sender.as_str() {
                "" => Ok(None),
                text => parse(text).map(Some),
            };
            let (sender, recipient) = match (sender, parse(&recipient)) {
                (Ok(sender), Ok(recipient)) => (sender, recipient),
                (Err(failure), _) | (_, Err(failure)) => return Ok(Err(failure)),
            };
            let tls = tls_wish(requiretls);
            let from = Incoming { sender: sender.as_ref(), client, listener: &listener, user: &user, tls };
            match controls.explain(from, &recipient, priority).await {
                Ok(explanation) => sink.put(Reply::Explanation(Box::new(explanation)), &[]).await?,
                Err(message) => return Ok(Err(Failure { temporary: true, ..Failure::refused(message) })),
            }
        }
        Request::List { filter, limit } => return list(controls, clock, &filter, limit, sink).await,
        Request::Operate { op, filter } => {
            let mut lanes = BTreeSet::new();
            let done = operate(controls, clock, op, filter, &mut lanes).await;
            if matches!(op, Operation::Retry | Operation::Release)
                || matches!(op, Operation::HoldUntil(until) if until <= clock.now())
            {
                let lanes: Vec<LaneName> = lanes.into_iter().collect();
                for (lane, why) in controls.stopped(&lanes) {
                    sink.put(Reply::Stopped { lane, why }, &[]).await?;
                }
                if let Some(sandbox) = Some(controls.status().sandbox).filter(|sandbox| !sandbox.is_empty()) {
                    let why = format!("{sandbox}; what it does not let out is held again at its turn");
                    sink.put(Reply::Stopped { lane: "the sandbox".into(), why }, &[]).await?;
                }
            }
            return Ok(done);
        }
        Request::Body { id, headers_only } => return body(&*controls.queue(), &id, headers_only, sink).await,
    }
    Ok(Ok(Done::default()))
}

pub(super) fn unknown_lane(name: &str) -> Failure {
    Failure::refused(format!("there is no provider or lane `{name}`"))
}

/// Refuses what no recipient could match, so that a typing mistake is not taken for "none".
pub(super) fn check(filter: &Filter) -> Result<(), Failure> {
    if let Some(id) = &filter.id {
        id.parse::<QueueId>().map_err(|e| Failure::refused(e.to_string()))?;
    }
    if let Some(state) = &filter.state {
        state.parse::<State>().map_err(Failure::refused)?;
    }
    Ok(())
}

/// Does it to all that match; `lanes` gets the names of their lanes.
pub(super) async fn operate(
    controls: &dyn Controls,
    clock: Clock,
    op: Operation,
    mut filter: Filter,
    lanes: &mut BTreeSet<LaneName>,
) -> Result<Done, Failure> {
    check(&filter)?;
    let queue = controls.queue();
    let now = clock.now();
    if op == Operation::Retry && filter == Filter::default() {
        // Of domains those that are in memory: there may be very many.
        lanes.extend(controls.lanes().await.into_iter().map(|lane| LaneName::from(lane.name.as_str())));
        return retry_all(controls, &*queue, now).await;
    }
    // Mail that arrives meanwhile is not meant, and must not keep this going for ever.
    let until = filter.received_before.unwrap_or(i64::MAX);
    filter.received_before = Some(until.min(now.0));
    let mut done = Done::default();
    let mut after: Option<RecipientKey> = None;
    loop {
        let page = queue.inspect(&filter, after, PAGE).await.map_err(|e| Failure::of_queue(e, done))?;
        done.matched += page.rows.len() as u64;
        if lanes.len() < LANES_KNOWN {
            lanes.extend(page.rows.iter().map(|(.., row)| LaneName::from(row.lane.as_str())));
        }
        operate_page(controls, &queue, op, &page, now, &mut done).await.map_err(|e| Failure::of_queue(e, done))?;
        match page.next {
            Some(key) if after.is_none_or(|a| key > a) => after = Some(key),
            _ => return Ok(done),
        }
    }
}

/// Without a look at each of them: there may be millions. What waits in memory is due already.
async fn retry_all(controls: &dyn Controls, queue: &dyn Desk, now: Timestamp) -> Result<Done, Failure> {
    let (mut done, mut after, mut leased) = (Done::default(), None, 0);
    loop {
        let step = queue.retry_all(after, now, RETRIED_AT_ONCE).await.map_err(|e| Failure::of_queue(e, done))?;
        done.matched += step.seen;
        done.changed += step.changed;
        leased += step.leased;
        done.scheduled += step.scheduled;
        match step.next {
            Some(key) if after.is_none_or(|a| key > a) => after = Some(key),
            _ => break,
        }
    }
    let in_flight: u64 = controls.lanes().await.iter().map(|lane| lane.in_flight).sum();
    done.in_flight = in_flight.min(leased);
    done.changed += leased - done.in_flight;
    controls.wake_all(now);
    Ok(done)
}

async fn operate_page(
    controls: &dyn Controls,
    queue: &Arc<dyn Queue>,
    op: Operation,
    page: &Page,
    now: Timestamp,
    done: &mut Done,
) -> Result<(), QueueError> {
    // Releasing makes no sense for what is not held, so nothing is taken from the scheduler for it.
    let from_lease = State::Leased.on(op.event()).is_some();
    // All of the page is asked for: what was queued a moment ago may be leased by now.
    let all: Vec<RecipientKey> = page.rows.iter().map(|(key, ..)| *key).collect();
    let withdrawn = if from_lease { controls.withdraw(&all) } else { Withdrawn::nothing() };
    let taken: BTreeSet<RecipientKey> = withdrawn.keys().iter().copied().collect();
    let in_flight = |key: &RecipientKey, state: State| state == State::Leased && !taken.contains(key);
    if op == Operation::Retry {
        done.scheduled += page.rows.iter().filter(|(.., row)| row.waits_for_its_time(now)).count() as u64;
    }
    let busy: Vec<RecipientKey> =
        page.rows.iter().filter(|(key, state, _)| in_flight(key, *state)).map(|(key, ..)| *key).collect();
    done.in_flight += busy.len() as u64;
    if matches!(op, Operation::Hold | Operation::Cancel) && !busy.is_empty() {
        // What has ended meanwhile is found in the store.
        let recalled = controls.recall(op, &busy);
        match queue.operate(op, &busy, recalled.keys(), now).await {
            Ok(changed) => {
                done.changed += changed as u64;
                done.in_flight = done.in_flight.saturating_sub(changed as u64);
            }
            Err(e) => {
                recalled.put_back();
                withdrawn.put_back();
                return Err(e);
            }
        }
    }
    let keys: Vec<RecipientKey> =
        page.rows.iter().filter(|(key, state, _)| !in_flight(key, *state)).map(|(key, ..)| *key).collect();
    if keys.is_empty() {
        return Ok(());
    }
    let lanes: BTreeSet<LaneName> = page.rows.iter().map(|(.., row)| LaneName::from(row.lane.as_str())).collect();
    let lanes: Vec<LaneName> = lanes.into_iter().collect();
    match queue.operate(op, &keys, withdrawn.keys(), now).await {
        Ok(changed) => {
            done.changed += changed as u64;
            if matches!(op, Operation::Retry | Operation::Release) || changed < taken.len() {
                controls.wake(&lanes, now);
            } else if let Operation::HoldUntil(until) = op {
                controls.wake(&lanes, until.max(now));
            }
            Ok(())
        }
        Err(e) => {
            withdrawn.put_back();
            Err(e)
        }
    }
}

async fn body(
    queue: &dyn Spool,
    id: &str,
    headers_only: bool,
    sink: &mut dyn Sink,
) -> io::Result<Result<Done, Failure>> {
    let id: QueueId = match id.parse() {
        Ok(id) => id,
        Err(e) => return Ok(Err(Failure::refused(format!("{e}")))),
    };
    // Headers that do not end within a chunk are cut there: the scan keeps no state between chunks.
    let chunks = if headers_only { 1 } else { u32::MAX };
    for index in 0..chunks {
        let chunk = match queue.chunk(id, index).await {
            Ok(Some(chunk)) => chunk,
            Ok(None) if index == 0 => {
                return Ok(Err(Failure::refused(format!("there is no message {id} in the queue"))));
            }
            Ok(None) => break,
            Err(e) => return Ok(Err(Failure::of_queue(e, Done::default()))),
        };
        let end = match memchr::memmem::find(&chunk, b"\r\n\r\n").filter(|_| headers_only) {
            Some(at) => at + 2,
            None => chunk.len(),
        };
        let bytes = chunk.get(..end).unwrap_or_default();
        sink.put(Reply::Bytes(bytes.len()), bytes).await?;
        if chunk.len() < CHUNK {
            break;
        }
    }
    Ok(Ok(Done::default()))
}
