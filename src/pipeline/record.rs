//! What becomes of an attempt: plan, one transaction in the queue with what the sender is owed, log
//! lines. `report` tells the sender.

use std::sync::Arc;
use std::time::Duration;

use super::lesson::{After, CIRCUIT_FIRST, CIRCUIT_LONGEST, Lesson, Load, Teach, got_to, reached, refuses_us};
use super::moves::source;
use super::{Relay, SETTLE_AGAIN};
use crate::clock::Timestamp;
use crate::crash;
use crate::deliver::{Event, Fact, Reply, Stage};
use crate::mail::{IpText, Owed, QueueId, RecipientKey};
use crate::observe::seldom;
use crate::outcome::settle::{Context, Outcome, Planned, Tried, plan};
use crate::outcome::{Fate, Judgement};
use crate::queue::{Operation, QueueError, Settlement, Verdict};
use crate::schedule::lane::Left;
use crate::schedule::{Held, Job, Lane};

/// Times the queue may say that an outcome makes no sense to it before the message is put aside. A
/// damaged page may read well the next time; a mistake of ours never does.
const REFUSALS: u32 = 3;
/// A pause up to this long is a moment.
const SHORT: Duration = Duration::from_secs(5);

/// One attempt at a job.
pub(super) struct Attempt {
    pub(super) job: Job,
    /// When the worker took it.
    pub(super) began: Timestamp,
    pub(super) connect: Duration,
    pub(super) limiter: Duration,
    pub(super) transaction: Duration,
    /// What the connection had carried right before.
    pub(super) carried: Option<Load>,
    /// The host offers DSN.
    pub(super) dsn: bool,
    /// One a recipient.
    pub(super) facts: Vec<Fact>,
}

impl Attempt {
    pub(super) fn new(job: Job, now: Timestamp) -> Attempt {
        Attempt {
            job,
            began: now,
            connect: Duration::ZERO,
            limiter: Duration::ZERO,
            transaction: Duration::ZERO,
            carried: None,
            dsn: false,
            facts: Vec::new(),
        }
    }

    /// The same happened to every recipient.
    pub(super) fn everyone(&mut self, fact: Fact) {
        self.facts = vec![fact; self.job.recipients.len()];
    }
}

impl Relay {
    /// Stores what became of an attempt and what the sender is owed for it, logs, and gives back what was not tried. Does
    /// not return before it is durable (or the queue is closed: then the lease ends at the next
    /// start). What the queue refuses to know, not for want of a disk, is put aside.
    pub(super) async fn settle(&self, lane: &Arc<Lane>, attempt: Attempt, judged: Option<Judgement>) -> After {
        let message = attempt.job.message.message.clone();
        let now = self.clock.now();
        let context = Context {
            id: message.id,
            age_from: message.age_from(),
            lane: &lane.name,
            retry: &lane.provider.retry,
            dsn: attempt.dsn,
            now,
        };
        let mut judgements = self.judgements(lane, &attempt, judged);
        let mut after = After::default();
        if judged.is_none() {
            let lesson = Lesson {
                job: &attempt.job,
                took: attempt.transaction,
                carried: attempt.carried,
                facts: &attempt.facts,
                judgements: &mut judgements,
            };
            after = self.of(lane).learn(lesson);
        }
        let tried =
            attempt.job.recipients.iter().zip(&attempt.facts).zip(&judgements).map(|((held, fact), judgement)| Tried {
                index: held.index,
                recipient: &held.recipient,
                attempts: held.attempts,
                warned: held.warned,
                untried: held.untried,
                fact,
                judged: Some(*judgement),
            });
        let planned = plan(&context, tried, &mut fastrand::f64);
        let settlements = || planned.iter().filter_map(|p| p.settlement.clone()).collect::<Vec<_>>();
        let settled = planned.iter().filter(|p| p.settlement.is_some()).count();

        crash::point("settle.planned");
        if settled > 0 {
            let owed = self.owed(lane, &attempt, &planned, now);
            crash::point("settle.begin");
            match self.persist(|| self.queue.settle(settlements(), owed.clone())).await {
                Ok(()) => {
                    crash::point("settle.done");
                    self.reports.settled(message.id, owed.first().map(|debt| debt.due));
                }
                Err(QueueError::Closed) => return after,
                Err(error) => self.settle_singly(message.id, settlements(), owed, &error).await,
            }
            lane.settled(settled);
        }

        for planned in &planned {
            self.log(lane, &attempt, planned, now);
        }
        self.consequences(lane, attempt, &planned, after);
        after
    }

    /// What each fact means here. A reply that was given for several recipients is one reply.
    fn judgements(&self, lane: &Arc<Lane>, attempt: &Attempt, judged: Option<Judgement>) -> Vec<Judgement> {
        let mut last: Option<(&Fact, Judgement)> = None;
        let judge = |fact| match (judged, last) {
            (Some(judgement), _) => judgement,
            (None, Some((same, judgement))) if same == fact => judgement,
            _ => {
                let judgement = self.of(lane).judge(fact);
                last = Some((fact, judgement));
                judgement
            }
        };
        attempt.facts.iter().map(judge).collect()
    }

    /// Asks the queue until it has stored what must not be lost.
    ///
    /// # Errors
    /// [`QueueError::Closed`]: what it does not know it does again after the next start.
    /// [`QueueError::Invalid`] or [`QueueError::Damaged`] several times in a row: it never will.
    pub(super) async fn persist<F: Future<Output = Result<(), QueueError>>>(
        &self,
        mut store: impl FnMut() -> F,
    ) -> Result<(), QueueError> {
        let mut refusals = 0;
        loop {
            let error = match store().await {
                Ok(()) => return Ok(()),
                Err(QueueError::Closed) => return Err(QueueError::Closed),
                Err(error) => error,
            };
            match error {
                QueueError::Invalid(_) | QueueError::Damaged(_) => refusals += 1,
                _ => refusals = 0,
            }
            if refusals == REFUSALS {
                return Err(error);
            }
            tracing::error!(%error, "could not store an outcome; trying again");
            tokio::time::sleep(SETTLE_AGAIN).await;
        }
    }

    /// The queue refuses the outcome of a transaction as a whole: each recipient on its own, with the
    /// report that is owed on it (they are one, invariant 2); those that are refused even then are put
    /// aside. Who was delivered loses the notice of it: it must not be sent again.
    async fn settle_singly(&self, id: QueueId, settlements: Vec<Settlement>, owed: Vec<Owed>, error: &QueueError) {
        tracing::error!(%id, %error, "the queue refuses the outcome of a transaction");
        let several = settlements.len() > 1;
        let mut refused = Vec::new();
        for settlement in settlements {
            let key = settlement.key;
            let own: Vec<Owed> = owed.iter().filter(|debt| debt.key == key).cloned().collect();
            let alone = |own: Vec<Owed>| self.queue.settle(vec![settlement.clone()], own);
            let mut known = if several { self.persist(|| alone(own.clone())).await } else { Err(error.clone()) };
            let mut due = own.first().map(|debt| debt.due);
            if settlement.verdict == Verdict::Delivered
                && due.is_some()
                && matches!(&known, Err(refusal) if !matches!(refusal, QueueError::Closed))
            {
                due = None;
                known = self.persist(|| alone(Vec::new())).await;
                if known.is_ok() {
                    tracing::warn!(id = %key.id, index = key.index, "delivered; the report on that, which was asked for, is lost");
                }
            }
            match known {
                Ok(()) => self.reports.settled(id, due),
                Err(QueueError::Closed) => return,
                Err(_) => refused.push(key),
            }
        }
        if !refused.is_empty() {
            self.put_aside(&refused, "the queue refuses its outcome").await;
        }
    }

    /// Out of the way, for an operator to look at: what would only fail in the same way again. A store
    /// in trouble is waited for, since nobody else would end these leases before the next start.
    pub(super) async fn put_aside(&self, keys: &[RecipientKey], why: &str) {
        let now = self.clock.now();
        let hold = || async { self.queue.operate(Operation::Hold, keys, keys, now).await.map(drop) };
        let held = self.persist(hold).await;
        for key in keys {
            match &held {
                Ok(()) => tracing::error!(id = %key.id, index = key.index, why, "put aside: see `mailweir queue show`"),
                Err(error) => {
                    tracing::error!(id = %key.id, index = key.index, why, %error, "could not be put aside: it is tried again after the next start");
                }
            }
        }
    }

    /// What follows for the lane: later attempts, a circuit, jobs given back.
    fn consequences(&self, lane: &Arc<Lane>, attempt: Attempt, planned: &[Planned], after: After) {
        let earliest = planned
            .iter()
            .filter_map(|p| match p.outcome {
                Outcome::Deferred(due) => Some(due),
                _ => None,
            })
            .min();
        if let Some(due) = earliest {
            self.scheduler.note_stored(lane, due);
        } else {
            self.scheduler.attend(lane);
        }

        if !after.too_many {
            self.note_silence(lane, &attempt);
        }
        let delivered = planned.iter().any(|p| p.outcome == Outcome::Delivered);
        if delivered {
            self.scheduler.prove(lane, true);
        }
        match planned.iter().find(|p| refuses_us(&p.judgement)).and_then(|p| attempt.facts.get(p.at)) {
            Some(fact) => self.refused(lane, &attempt.job, fact),
            None => self.scheduler.wake(lane, lane.got_as_far(got_to(&attempt.facts), delivered)),
        }

        let mut again = attempt.job.without_recipients();
        let mut held: Vec<Option<Held>> = attempt.job.recipients.into_iter().map(Some).collect();
        for plan in planned {
            if let Outcome::Again { counts } = plan.outcome
                && let Some(held) = held.get_mut(plan.at).and_then(Option::take)
            {
                again.wants_fresh |= attempt.facts.get(plan.at).is_some_and(|fact| fact.stage == Stage::Idle);
                let more = u8::from(plan.judgement.fate != Fate::Front);
                let (untried, attempts) = (held.untried.saturating_add(more), held.attempts + u32::from(counts));
                again.recipients.push(Held { untried, attempts, ..held });
            }
        }
        if !again.recipients.is_empty() {
            // Who was refused does not hold up those who were not.
            let refused = planned.iter().any(|p| matches!(p.outcome, Outcome::Again { .. }) && p.judgement.ruled);
            let wake = if refused { lane.give_back_behind(again) } else { lane.give_back(again) };
            self.scheduler.wake(lane, wake);
        }
    }

    /// The host answers what it takes, or leaves it without an answer until the time is over.
    fn note_silence(&self, lane: &Arc<Lane>, attempt: &Attempt) {
        let taken = || attempt.facts.iter().filter(|fact| fact.stage >= Stage::Mail);
        let left = |fact: &Fact| match &fact.event {
            Event::Timeout(_) => Some((fact.stage, Left::Silent)),
            // Of a connection that has carried something it may be the age.
            _ if attempt.carried.is_none_or(|before| before.is_any()) && fact.stage == Stage::Mail => None,
            Event::Closed | Event::Io(_) => Some((fact.stage, Left::Ended)),
            Event::Reply(reply) if reply.code == 421 => Some((fact.stage, Left::Ended)),
            _ => None,
        };
        let Some((stage, how)) = taken().find_map(left) else {
            if taken().any(|fact| matches!(&fact.event, Event::Reply(reply) if reply.code != 421)) {
                lane.note_answered(&attempt.job, attempt.transaction);
            }
            return;
        };
        if let Some((about, part)) = lane.left_unanswered(&attempt.job, stage > Stage::Mail, how)
            && let Some(times) = seldom("leaves unanswered", &format!("{} {about}", lane.name))
        {
            macro_rules! warn {
                ($what:literal) => {
                    tracing::warn!(
                        provider = lane.name.base(),
                        source = source(&lane.name),
                        about = &*about,
                        %stage,
                        connections = part.connections,
                        of = part.of,
                        times,
                        $what
                    )
                };
            }
            match how {
                Left::Silent => warn!("the host leaves some mail without an answer: it has a part of the connections"),
                Left::Ended => warn!("the host ends connections for some mail: it has a part of them"),
            }
        }
    }

    /// The provider says to some mail, or to all, that it takes none of ours.
    fn refused(&self, lane: &Arc<Lane>, job: &Job, fact: &Fact) {
        let (at, reply) = (reached(fact.stage), fact.to_string());
        lane.open_circuit(reply.clone(), at, Some(job.features()), CIRCUIT_FIRST, CIRCUIT_LONGEST);
        let about = lane.refused_mail();
        let what = if about.is_some() { "refuses us with some mail" } else { "refuses us" };
        let Some(times) = seldom(what, lane.name.as_str()) else { return };
        let (provider, source) = (lane.name.base(), source(&lane.name));
        match about {
            Some(about) => tracing::error!(
                provider,
                source,
                about = &*about,
                reply,
                times,
                "the provider refuses us with some mail: it is kept, one message is tried now and then, and what others send at once"
            ),
            None => tracing::error!(
                provider,
                source,
                reply,
                times,
                "the provider refuses us altogether: its mail is kept, one message is tried now and then"
            ),
        }
    }

    /// One line per fate, with everything an administrator asks for.
    fn log(&self, lane: &Lane, attempt: &Attempt, planned: &Planned, now: Timestamp) {
        let (Some(held), Some(fact)) = (attempt.job.recipients.get(planned.at), attempt.facts.get(planned.at)) else {
            return;
        };
        let message = &attempt.job.message.message;
        let peer = fact.peer.as_ref();
        let ip = peer.and_then(|p| p.ip).map(IpText::new);
        let ip = ip.as_ref().map_or("", IpText::as_str);
        macro_rules! line {
            ($level:ident, $what:literal $(, $($extra:tt)+)?) => {
                tracing::$level!(
                    id = %message.id,
                    sender = message.envelope.sender(),
                    recipient = held.recipient.address.as_str(),
                    provider = lane.name.base(),
                    source = source(&lane.name),
                    host = peer.map_or("", |p| &*p.host),
                    ip,
                    tls = encrypted(fact),
                    tls_version = peer.and_then(|p| p.tls).map_or("", |tls| tls.version),
                    attempt = held.attempts + 1,
                    age_ms = ms(now.since(message.received)),
                    queued_ms = ms(attempt.began.since(message.received)),
                    connect_ms = ms(attempt.connect),
                    limiter_ms = ms(attempt.limiter),
                    transaction_ms = ms(attempt.transaction),
                    size = message.size,
                    $($($extra)+,)?
                    reply = %Told(fact),
                    $what
                )
            };
        }
        let pause = lane.hold().map(|(left, _)| left).filter(|left| *left > SHORT);
        match planned.outcome {
            Outcome::Delivered => {
                self.stats.delivered.add(1);
                lane.note_delivered();
                line!(info, "delivered");
            }
            Outcome::Deferred(due) => {
                self.stats.deferred.add(1);
                // Who was not tried waits for the host, which has a line of its own (`outage`).
                if matches!(fact.event, Event::BackOff { .. }) {
                    return line!(debug, "deferred", stage = %fact.stage, why = planned.judgement.why, due = %due);
                }
                lane.note_error(now, fact.to_string());
                line!(info, "deferred", stage = %fact.stage, why = planned.judgement.why, due = %due);
            }
            Outcome::Bounced => {
                self.stats.bounced.add(1);
                lane.note_error(now, fact.to_string());
                line!(warn, "bounced", stage = %fact.stage, why = planned.judgement.why);
            }
            Outcome::Expired => {
                self.stats.expired.add(1);
                line!(warn, "expired", stage = %fact.stage, why = planned.judgement.why);
            }
            // It waits with all others for the end of a pause, which its own reply may have begun.
            Outcome::Again { .. } => match pause.filter(|_| matches!(fact.event, Event::Reply(_))) {
                Some(left) => {
                    lane.note_error(now, fact.to_string());
                    line!(info, "deferred", stage = %fact.stage, why = planned.judgement.why, due = %now.after(left));
                }
                None => line!(debug, "requeued", stage = %fact.stage, why = planned.judgement.why),
            },
        }
    }
}

fn ms(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

/// What the host has shown in TLS, or that there is none; empty before that is known.
fn encrypted(fact: &Fact) -> &'static str {
    match fact.peer.as_ref().map(|peer| peer.tls) {
        Some(Some(tls)) => tls.proof.as_str(),
        Some(None) if fact.stage >= Stage::Idle => "none",
        _ => "",
    }
}

/// The server's words, without the host that other fields name.
struct Told<'a>(&'a Fact);

impl std::fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0.event {
            Event::Reply(reply) => Reply::fmt(reply, f),
            event => event.fmt(f),
        }
    }
}
