//! Reports (DSNs) on what became of recipients: one for all that a message owes.
//!
//! What is owed is in the queue since the moment at which the fate of a recipient is. Here it is
//! made one message to the sender, and the queue ends the debts in the transaction that stores it.
//!
//! - A message is reported on as soon as none of its other recipients may have its fate within
//!   [`GATHER`] of the first debt, and at the latest when that time is over. So an ordinary bounce is
//!   not held up, and a thousand refusals are one report.
//! - One task a relay, with a few reports under way. In memory are at most [`KNOWN`] queue ids; what is beyond them, and what an
//!   earlier process left, is found in the queue, by an index.
//! - A report that cannot be made or stored holds up no other. Its debts stay, and it is tried again
//!   after [`AGAIN`]. At shutdown what is owed stays owed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::Relay;
use super::record::Attempt;
use crate::clock::Timestamp;
use crate::crash;
use crate::deliver::{Event, Reply};
use crate::mail::{Action, Message, NewMessage, NewRecipient, Owed, QueueId, RecipientKey};
use crate::outcome::bounce::{self, Diagnostic, Dsn, Item};
use crate::outcome::settle::{Notice, Planned, status};
use crate::queue::{Debt, Owing, QueueError};
use crate::schedule::Lane;

/// How long a debt waits for others of its message.
pub const GATHER: Duration = Duration::from_secs(60);
/// Recipients of one report, and bytes of what is quoted of them; further ones get another report.
pub const MOST_ITEMS: usize = 1000;
const MOST_BYTES: usize = 256 * 1024;
/// Reports that are made and stored at once. Of those on [`FEW`] recipients or more it is one.
const AT_ONCE: usize = 8;
const FEW: usize = 16;
/// Messages that owe and are known in memory, so that their report is sent before its time is up.
const KNOWN: usize = 10_000;
/// Reports that fail for a reason of their own, and are known as such; one more is taken for a
/// trouble of the store.
const FAILING: usize = 1000;
/// Entries that are read from the queue at once.
const PAGE: usize = 200;
/// How long a report that could not be made or stored waits.
const AGAIN: Duration = Duration::from_secs(30);
/// The longest sleep, lest a step of the clock goes unnoticed.
const LOOK: Duration = Duration::from_secs(60);
/// Times a debt may turn out to be another one when its report is stored.
const CHANGES: u32 = 3;

/// What is known of debts outside of the queue.
#[derive(Default)]
pub(super) struct Reports {
    state: Mutex<State>,
    wake: Notify,
    /// Whoever makes a report on many recipients.
    large: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    /// Messages that owe, and when the first of their debts is due.
    owing: BTreeMap<QueueId, Timestamp>,
    /// Those of them of which something was settled since they were looked at.
    touched: BTreeSet<QueueId>,
}

/// Reports that failed, and when they are tried again.
type Failing = BTreeMap<QueueId, Timestamp>;

impl Reports {
    /// Recipients of a message were settled; `due` is that of a debt that came of it.
    pub(super) fn settled(&self, id: QueueId, due: Option<Timestamp>) {
        let mut state = self.state.lock();
        if let Some(due) = due {
            state.know(id, due);
        } else if state.owing.is_empty() {
            return;
        }
        if state.owing.contains_key(&id) {
            state.touched.insert(id);
        } else if due.is_none() {
            return;
        }
        drop(state);
        self.wake.notify_one();
    }

    fn take_touched(&self) -> Vec<Owing> {
        let mut state = self.state.lock();
        let touched = std::mem::take(&mut state.touched);
        touched.into_iter().filter_map(|id| state.owing.get(&id).map(|due| Owing { id, due: *due })).collect()
    }

    /// Something settled from now on makes it known again.
    fn forget(&self, id: QueueId) {
        self.state.lock().owing.remove(&id);
    }

    /// The queue tells of those that are due.
    fn forget_due(&self, now: Timestamp) {
        self.state.lock().owing.retain(|_, due| *due > now);
    }
}

impl State {
    /// When there is no room the queue tells of it, when it is due.
    fn know(&mut self, id: QueueId, due: Timestamp) {
        if self.owing.len() < KNOWN {
            self.owing.entry(id).or_insert(due);
        }
    }
}

impl Relay {
    /// What the sender is owed for an attempt.
    pub(super) fn owed(&self, lane: &Lane, attempt: &Attempt, planned: &[Planned], now: Timestamp) -> Vec<Owed> {
        let message = &attempt.job.message.message;
        if message.envelope.reverse_path.is_none() {
            return Vec::new();
        }
        let one = |plan: &Planned| {
            let action = match plan.notice {
                Notice::None => return None,
                Notice::Failed => Action::Failed,
                Notice::Delayed => Action::Delayed,
                Notice::Relayed => Action::Relayed,
            };
            let (held, fact) = (attempt.job.recipients.get(plan.at)?, attempt.facts.get(plan.at)?);
            let expires = message.age_from().after(lane.provider.retry.expire);
            Some(Owed {
                key: RecipientKey { id: message.id, index: held.index },
                due: now.after(GATHER),
                recipient: held.recipient.clone(),
                action,
                status: status(plan.outcome, fact),
                replied: matches!(fact.event, Event::Reply(_)),
                text: fact.event.to_string(),
                remote_mta: fact.peer.as_ref().map(|peer| peer.host.to_string()),
                last_attempt: now,
                will_retry_until: (action == Action::Delayed).then_some(expires),
            })
        };
        planned.iter().filter_map(one).collect()
    }

    /// Reports what is owed, until the relay stops.
    pub async fn keep_reporting(self: Arc<Self>, mut stopping: watch::Receiver<bool>) {
        // What an earlier process left may have nothing to wait for.
        let mut everything = true;
        let mut failing = Failing::new();
        let mut forgot = self.clock.now();
        while !*stopping.borrow() {
            let now = self.clock.now();
            failing.retain(|_, again| *again > now);
            if now.since(forgot) >= GATHER {
                (forgot, _) = (now, self.reports.forget_due(now));
            }
            let next = match self.look(everything, &mut failing).await {
                Ok(next) => {
                    everything = false;
                    next
                }
                Err(QueueError::Closed) => return,
                Err(error) => {
                    tracing::warn!(%error, "reports that are owed wait");
                    Some(AGAIN)
                }
            };
            let sleep = async {
                match next {
                    Some(next) => tokio::time::sleep(next.clamp(Duration::from_millis(1), LOOK)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = stopping.changed() => {}
                () = self.reports.wake.notified() => {}
                () = sleep => {}
            }
        }
    }

    /// Reports what is due, and what waits for nothing of the messages that something happened to (of
    /// all of them, if it is `everything`). Returns when to look again; `None`: nothing is owed.
    ///
    /// # Errors
    /// The store is in trouble.
    async fn look(self: &Arc<Self>, everything: bool, failing: &mut Failing) -> Result<Option<Duration>, QueueError> {
        let now = self.clock.now();
        let touched = self.reports.take_touched();
        self.report_all(touched, now, failing).await?;
        let mut after = None;
        while !*self.stopping.borrow() {
            let page = self.queue.owing(after, PAGE).await?;
            let Some(last) = page.last().copied() else { break };
            after = Some(last);
            if everything {
                let mut state = self.reports.state.lock();
                page.iter().for_each(|owing| state.know(owing.id, owing.due));
            }
            let later = page.iter().map(|owing| owing.due).find(|due| *due > now && !everything);
            self.report_all(page.into_iter().filter(|owing| everything || owing.due <= now), now, failing).await?;
            if let Some(later) = later {
                let next = failing.values().copied().fold(later, Ord::min);
                return Ok(Some(next.since(self.clock.now())));
            }
        }
        Ok(match everything {
            true => Some(Duration::ZERO),
            false => failing.values().min().map(|again| again.since(self.clock.now())),
        })
    }

    /// Reports on these, a few at once. Those that may yet owe more, and are not due, wait.
    ///
    /// # Errors
    /// The store is in trouble, so that there is no use in going on.
    async fn report_all(
        self: &Arc<Self>,
        all: impl IntoIterator<Item = Owing>,
        now: Timestamp,
        failing: &mut Failing,
    ) -> Result<(), QueueError> {
        let mut tasks: JoinSet<Result<(), QueueError>> = JoinSet::new();
        let mut about: HashMap<tokio::task::Id, QueueId> = HashMap::new();
        let mut seen = BTreeSet::new();
        let mut all = all.into_iter().filter(|owing| seen.insert(owing.id));
        loop {
            while tasks.len() < AT_ONCE && !*self.stopping.borrow() {
                let Some(owing) = all.next() else { break };
                if !failing.contains_key(&owing.id) {
                    let relay = self.clone();
                    let task = tasks.spawn(async move { relay.report_on(owing, owing.due <= now).await });
                    about.insert(task.id(), owing.id);
                }
            }
            let (task, error) = match tasks.join_next_with_id().await {
                None => return Ok(()),
                Some(Ok((task, Ok(())))) => {
                    about.remove(&task);
                    continue;
                }
                Some(Ok((task, Err(error)))) => (task, error),
                Some(Err(fault)) => (fault.id(), QueueError::Invalid("a fault of mailweir itself".into())),
            };
            let (Some(id), QueueError::Invalid(_) | QueueError::Damaged(_)) = (about.remove(&task), &error) else {
                return Err(error);
            };
            tracing::error!(%id, %error, "could not report to the sender what is owed; trying again");
            if failing.len() >= FAILING {
                return Err(error);
            }
            failing.insert(id, self.clock.now().after(AGAIN));
        }
    }

    /// Reports on one message all that it owes, unless it is worth waiting for more.
    async fn report_on(&self, owing: Owing, due: bool) -> Result<(), QueueError> {
        if !due && self.queue.is_under_way(owing.id, owing.due).await? {
            return Ok(());
        }
        self.reports.forget(owing.id);
        let mut changes = 0;
        while !*self.stopping.borrow() {
            let Some(mut debt) = self.queue.owed(owing.id, FEW).await? else { break };
            let mut one_of_many = None;
            if debt.items.len() == FEW {
                one_of_many = Some(self.reports.large.lock().await);
                let Some(all) = self.queue.owed(owing.id, MOST_ITEMS).await? else { break };
                debt = all;
                cut(&mut debt.items);
            }
            match self.report(debt).await {
                // A later fate of one of them took the place of what was read.
                Err(QueueError::Invalid(_)) if changes < CHANGES => changes += 1,
                reported => reported?,
            }
            drop(one_of_many);
        }
        Ok(())
    }

    /// What does not fit one chunk of a message that mailweir has written goes into the queue before, as from a client;
    /// returns the head.
    pub(super) async fn spill_rest(&self, message: &Message, body: &Bytes) -> Result<Bytes, QueueError> {
        let mut chunks = message.split(body);
        let head = chunks.next().unwrap_or_default();
        for (index, chunk) in (1u32..).zip(chunks) {
            if let Err(error) = self.queue.spill(message.id, index, chunk).await {
                self.queue.unspill(message.id).await;
                return Err(error);
            }
        }
        Ok(head)
    }

    /// The report on a debt; `None` if nobody wants it. Sessions do not wait for it: it may name many
    /// recipients, or return a message that has to be converted first.
    async fn written(&self, debt: Debt, now: Timestamp) -> Result<Option<Dsn>, QueueError> {
        let head = self.queue.chunk(debt.message.id, 0).await?.unwrap_or_default();
        let (config, id) = (self.config.clone(), self.queue.next_id(now));
        let write = move || dsn(&debt, &head, &config.hostname, id, now);
        let written = tokio::task::spawn_blocking(write).await;
        written.map_err(|error| QueueError::Invalid(format!("a fault of mailweir itself in a report: {error}")))
    }

    /// To whom it is told where the sender is one that `[srs]` made here: no need to go by the mail hosts of its domain.
    fn lead_back(&self, debt: &mut Debt, now: Timestamp) {
        let sender = debt.message.envelope.reverse_path.as_ref();
        if let Some(Ok(original)) = sender.and_then(|sender| self.config.rewrites.led_back(sender, now)) {
            debt.message.envelope.reverse_path = Some(original);
        }
    }

    /// Stores one report, in the transaction that ends what it tells of, and sends it on its way.
    async fn report(&self, mut debt: Debt) -> Result<(), QueueError> {
        let about = debt.message.id;
        let told: Vec<(RecipientKey, Timestamp)> = debt.items.iter().map(|owed| (owed.key, owed.due)).collect();
        let recipients = told.len();
        let sender = debt.message.envelope.sender().to_owned();
        let now = self.clock.now();
        self.lead_back(&mut debt, now);
        let Some(Dsn { message, mut recipient, body }) = self.written(debt, now).await? else {
            return self.queue.report(told, None).await;
        };
        crash::point("dsn.made");
        let id = message.id;
        let head = self.spill_rest(&message, &body).await?;
        if let Some(sandbox) = &self.config.sandbox {
            recipient.address = sandbox.instead_of(&recipient.address).clone();
        }
        let lane = self.router.lane_of(&message, &recipient.address);
        let message = Arc::new(message);
        let held = self.config.sandbox.as_ref().and_then(|sandbox| sandbox.holds(&recipient.address));
        let laned = vec![NewRecipient { recipient, lane, leased: false, held }];
        let admission = self.scheduler.admit(&message, laned, &head);
        let size = message.size;
        let new = NewMessage { message, recipients: admission.recipients, head };
        if let Err(error) = self.queue.report(told, Some(new)).await {
            self.queue.unspill(id).await;
            return Err(error);
        }
        crash::point("report.done");
        self.stats.dsn.add(1);
        // So that who looks for the one finds the other.
        tracing::info!(
            id = %id,
            about = %about,
            sender = "",
            recipients = sender,
            reports = recipients,
            size,
            "accepted"
        );
        self.scheduler.submit(admission.admitted, now);
        Ok(())
    }
}

/// The report on a debt; `None` if nobody wants it.
fn dsn(debt: &Debt, head: &[u8], host: &str, id: QueueId, now: Timestamp) -> Option<Dsn> {
    let replies: Vec<Option<Reply>> = debt.items.iter().map(|owed| owed.replied.then(|| reply(&owed.text))).collect();
    let items: Vec<Item<'_>> = debt
        .items
        .iter()
        .zip(&replies)
        .map(|(owed, reply)| Item {
            recipient: &owed.recipient,
            action: owed.action,
            status: owed.status,
            diagnostic: Some(match reply {
                Some(reply) => Diagnostic::Smtp(reply),
                None => Diagnostic::Local(&owed.text),
            }),
            remote_mta: owed.remote_mta.as_deref(),
            last_attempt: Some(owed.last_attempt),
            will_retry_until: owed.will_retry_until,
        })
        .collect();
    bounce::dsn(&debt.message, head, &items, host, id, now)
}

/// Leaves what fits one report: at least one.
fn cut(items: &mut Vec<Owed>) {
    let mut bytes = 0;
    let quoted = |owed: &Owed| owed.text.len() + owed.recipient.address.as_str().len();
    let fits = items.iter().take_while(|owed| {
        bytes += quoted(owed);
        bytes <= MOST_BYTES
    });
    let fits = fits.count().max(1);
    items.truncate(fits);
}

/// A reply as it was before it was stored as text. Its enhanced code is left in the text, where
/// whoever shows it finds it.
fn reply(text: &str) -> Reply {
    let (code, rest) = text.split_once(' ').unwrap_or((text, ""));
    match code.parse() {
        Ok(code) => Reply { code, enhanced: None, text: rest.to_owned() },
        Err(_) => Reply { code: 0, enhanced: None, text: text.to_owned() },
    }
}

#[cfg(test)]
mod tests;
