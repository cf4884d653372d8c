//! A worker of a lane: what `pipeline` does with a connection, done with a model.
//!
//! A connection takes a round trip to be made, and four more until MAIL (EHLO, STARTTLS, the
//! handshake, EHLO again). A transaction takes two: MAIL, RCPT and DATA go together (RFC 2920),
//! then the body. Every answer takes the latency of the model besides.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::feedback::OfSite;
use super::store::Waiting;
use super::{Site, World, attend};
use crate::deliver::reply::ReplyParser;
use crate::deliver::{Event, Fact, Reply, Stage};
use crate::mail::Features;
use crate::model::{Connection, Content, Refusal};
use crate::outcome::settle::{Context, Outcome, Planned, Tried, plan};
use crate::outcome::{Fate, Judgement};
use crate::pipeline::lesson::{
    CIRCUIT_FIRST, CIRCUIT_LONGEST, Carried, Lesson, Teach, amount, got_to, reached, refuses_us,
};
use crate::queue::Verdict;
use crate::schedule::lane::OpenGuard;
use crate::schedule::{Empty, Held, Job, Wake};

/// Whom the providers see.
const US: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// Recipients that expire in one go while they are held back, as in the relay.
const EXPIRE_AT_ONCE: usize = 200;
/// How long a worker waits at most that has no connection.
const MOST_IDLE: Duration = Duration::from_secs(3600);

/// Counts the connection out when the worker is gone.
struct Open<'a> {
    site: &'a Site,
    connection: Option<Connection>,
    sent: u32,
    carried: Carried,
    counted: OpenGuard,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.site.model.lock().disconnect(connection);
        }
    }
}

impl World {
    /// Starts a worker if the lane says so.
    pub(super) fn wake(self: &Arc<World>, site: &Arc<Site>, wake: Wake) {
        if wake == Wake::Start {
            let (world, site) = (self.clone(), site.clone());
            tokio::spawn(async move {
                world.work(&site).await;
                world.wake(&site, site.lane.worker_gone());
            });
        }
    }

    /// The life of a worker, as in `pipeline`.
    async fn work(self: &Arc<World>, site: &Arc<Site>) {
        let lane = &site.lane;
        let provider = &lane.provider;
        let mut open: Option<Open<'_>> = None;
        while !lane.retire(open.as_ref().map(|open| &open.counted)) {
            let serves = open.as_ref().map(|_| &*site.destination);
            self.move_on(site).await;
            // Who has no connection need not end to let one go, and simulated days have many idle times.
            let idle = if open.is_some() { provider.idle_timeout } else { self.patience(site) };
            let (mut job, wake) = match lane.next(serves, idle).await {
                Ok(next) => next,
                Err(Empty::Beyond) => {
                    self.put_off(site);
                    continue;
                }
                Err(Empty::Idle) => {
                    self.expire_held(site);
                    break;
                }
            };
            self.wake(site, wake);
            // What feedback taught since the last transaction.
            open = open.filter(|open| {
                let next = amount(&job, job.recipients.len());
                open.sent < lane.messages_per_connection() && lane.room().takes(open.carried.amount(), next)
            });
            let connection = match &mut open {
                Some(open) => open,
                None => match self.connect(site).await {
                    Ok(new) => open.insert(new),
                    Err((number, fact)) => {
                        lane.not_needed(&mut job);
                        let of = OfSite { world: self, site };
                        let (judgement, fact) = of.unreached(number, std::slice::from_ref(&fact), |_| true);
                        self.settle(site, job, fact, Some(judgement));
                        continue;
                    }
                },
            };
            let permit = tokio::select! {
                biased;
                permit = lane.permit(&mut job) => permit,
                // No connection waits for the end of a long pause.
                () = lane.long_hold() => {
                    lane.not_needed(&mut job);
                    let _ = lane.give_back(job);
                    break;
                }
            };
            // A quota was used up meanwhile: the job waits in the lane.
            let Ok(permit) = permit else {
                self.wake(site, lane.give_back(job));
                continue;
            };
            let underway = permit.spend();
            let began = Instant::now();
            let (fact, closed) = self.transaction(site, connection, &job).await;
            drop(underway);
            // As the relay does: until something is answered each free connection looks for mail that is unlike all
            // that is under way, which in a full window is a long look.
            if matches!(&fact.event, Event::Reply(reply) if reply.code != 421) {
                lane.note_answered(&job, began.elapsed());
            }
            let of = OfSite { world: self, site };
            let mut judgements = [of.judge(&fact)];
            let facts = [fact];
            let carried = connection.carried.before(&facts, job.message.message.size);
            if connection.carried.amount().messages > 0 {
                connection.counted.works();
            }
            let after = of.learn(Lesson {
                job: &job,
                took: began.elapsed(),
                carried: Some(carried),
                facts: &facts,
                judgements: &mut judgements,
            });
            connection.carried.note(after);
            let spent = closed || after.close || connection.sent >= lane.messages_per_connection();
            let ([fact], [judgement]) = (facts, judgements);
            self.settle(site, job, fact, Some(judgement));
            if spent {
                open = None;
            }
        }
    }

    /// What waits for a limit, or for the pace of its sender, and finds no place goes back until its time has
    /// come, as in the relay.
    fn put_off(self: &Arc<World>, site: &Arc<Site>) {
        let (lane, now) = (&site.lane, self.now());
        for beyond in lane.take_beyond() {
            let expires = beyond.job.message.message.received.after(lane.provider.retry.expire);
            if expires <= now {
                let event = Event::Held(beyond.by);
                self.settle(site, beyond.job, Fact { stage: Stage::Route, event, peer: None }, None);
                continue;
            }
            let due = beyond.due(now, expires);
            for held in &beyond.job.recipients {
                let (index, attempts) = (held.index, held.attempts);
                site.store.lock().put_off(Waiting { due, index, attempts });
            }
            lane.settled(beyond.job.recipients.len());
            lane.note_stored(due);
        }
        site.changed.notify_one();
        attend(self, site);
    }

    /// How long a worker without a connection waits: until something may expire, or go to another source,
    /// as that is looked at when it ends.
    fn patience(&self, site: &Site) -> Duration {
        if site.siblings.len() > 1 {
            return site.lane.provider.idle_timeout;
        }
        let until = site.expires.lock().since(self.now()).min(MOST_IDLE);
        until.max(site.lane.provider.idle_timeout)
    }

    /// What our own limits hold back does not wait for an attempt to expire: looked at within a fiftieth
    /// of the time it has, as in the relay.
    fn expire_held(self: &Arc<World>, site: &Arc<Site>) {
        let (now, expire) = (self.now(), site.lane.provider.retry.expire);
        if *site.expires.lock() > now {
            return;
        }
        *site.expires.lock() = now.after((expire / 50).max(Duration::from_secs(1)));
        loop {
            let expired = site.lane.expired(now, EXPIRE_AT_ONCE);
            if expired.is_empty() {
                break;
            }
            for (held, job) in expired {
                self.settle(site, job, Fact { stage: Stage::Route, event: Event::Held(held.by), peer: None }, None);
            }
        }
        let Some(held) = site.lane.held_back() else { return };
        let old = site.store.lock().claim_older(now.before(expire), usize::MAX);
        site.lane.take_in_hand(old.len());
        for job in old.into_iter().filter_map(|waiting| self.job(site, waiting)) {
            let event = Event::Held(held.by.clone());
            self.settle(site, job, Fact { stage: Stage::Route, event, peer: None }, None);
        }
    }

    async fn round_trip(&self, site: &Site, times: u32) {
        let latency = site.model.lock().latency(self.elapsed());
        tokio::time::sleep((self.round_trip + latency) * times).await;
    }

    /// A connection, or its number among those of the lane and why there is none.
    async fn connect<'a>(self: &Arc<World>, site: &'a Arc<Site>) -> Result<Open<'a>, (u64, Fact)> {
        site.lane.may_connect().await;
        let number = site.lane.begin_connection();
        self.round_trip(site, 1).await;
        let connected = site.model.lock().connect(self.elapsed(), US);
        match connected {
            Ok(connection) => {
                self.tally(site, |t| t.connections += 1);
                // The server counts it from its greeting on.
                let (open, counted) = site.lane.opened("");
                let taken =
                    Open { site, connection: Some(connection), sent: 0, carried: Carried::nothing(number), counted };
                self.round_trip(site, 4).await;
                OfSite { world: self, site }.note_opened(number, open);
                let wake = site.lane.let_in();
                self.wake(site, wake);
                Ok(taken)
            }
            Err(refusal) => Err((number, self.refused(site, Stage::Greeting, refusal))),
        }
    }

    /// One transaction; what happened, and whether the provider closed the connection.
    async fn transaction(&self, site: &Site, open: &mut Open<'_>, job: &Job) -> (Fact, bool) {
        open.sent += 1;
        let Some(connection) = &mut open.connection else {
            return (Fact { stage: Stage::Mail, event: Event::Closed, peer: None }, true);
        };
        let message = &job.message.message;
        let sender = message.envelope.sender();
        let content = Content::numbered(u64::try_from(message.id.0).unwrap_or(0), message.size);
        let begun = {
            let (mut model, now) = (site.model.lock(), self.elapsed());
            let mail = model.mail(now, connection, sender).map_err(|refusal| (Stage::Mail, refusal));
            // One recipient a message.
            let to = job.recipients.first().map_or("", |held| held.recipient.address.as_str());
            let rcpt = mail.and_then(|()| model.rcpt(now, connection, to).map_err(|refusal| (Stage::Rcpt, refusal)));
            rcpt.and_then(|()| model.data(now, connection).map_err(|refusal| (Stage::Data, refusal)))
        };
        self.round_trip(site, 1).await;
        if let Err((stage, refusal)) = begun {
            let close = refusal.close;
            return (self.refused(site, stage, refusal), close);
        }
        let ended = site.model.lock().end(self.elapsed(), connection, content);
        self.round_trip(site, 1).await;
        match ended {
            Ok(()) => {
                let reply = Reply { code: 250, enhanced: Some((2, 0, 0)), text: "Ok".into() };
                (Fact { stage: Stage::Final, event: Event::Reply(reply), peer: None }, false)
            }
            Err(refusal) => {
                let close = refusal.close;
                (self.refused(site, Stage::Final, refusal), close)
            }
        }
    }

    fn refused(&self, site: &Site, stage: Stage, refusal: Refusal) -> Fact {
        if refusal.by.throttles() {
            self.tally(site, |t| t.throttled += 1);
        }
        // Read as a reply over the wire is.
        let heard = refusal.reply.and_then(|said| {
            let (mut wire, mut replies) = (Vec::new(), VecDeque::new());
            said.write_to(&mut wire);
            ReplyParser::default().feed(&wire, &mut replies).ok()?;
            replies.pop_front()
        });
        let event = heard.map_or(Event::Closed, |received| Event::Reply(received.reply));
        Fact { stage, event, peer: None }
    }

    /// What follows from an attempt: the real plan, on the store of the simulation.
    fn settle(self: &Arc<World>, site: &Arc<Site>, job: Job, fact: Fact, judged: Option<Judgement>) {
        let (lane, now) = (&site.lane, self.now());
        let received = job.message.message.received;
        let bulk = job.priority() < 0;
        let mut back = job.without_recipients();
        let mut settled = 0;
        for held in job.recipients {
            let retry = &lane.provider.retry;
            let context = Context { id: back.key(0).id, age_from: received, lane: &lane.name, retry, dsn: true, now };
            let tried = Tried {
                index: held.index,
                recipient: &held.recipient,
                attempts: held.attempts,
                warned: held.warned,
                untried: held.untried,
                fact: &fact,
                judged,
            };
            let planned = {
                let mut rng = self.rng.lock();
                plan(&context, std::iter::once(tried), &mut || rng.f64()).pop()
            };
            let Some(Planned { outcome, settlement, judgement, .. }) = planned else { continue };
            if refuses_us(&judgement) {
                let mail = Features::of(
                    back.message.message.envelope.sender(),
                    [held.recipient.address.as_str()],
                    back.message.message.size,
                );
                lane.open_circuit(fact.to_string(), reached(fact.stage), Some(mail), CIRCUIT_FIRST, CIRCUIT_LONGEST);
            } else {
                let delivered = outcome == Outcome::Delivered;
                self.wake(site, lane.got_as_far(got_to(std::slice::from_ref(&fact)), delivered));
            }
            if let Outcome::Again { counts } = outcome {
                let more = u8::from(judgement.fate != Fate::Front);
                let (untried, attempts) = (held.untried.saturating_add(more), held.attempts + u32::from(counts));
                back.recipients.push(Held { untried, attempts, ..held });
                continue;
            }
            settled += 1;
            match (outcome, settlement.map(|s| s.verdict)) {
                (_, Some(Verdict::Deferred { due, counts, .. })) => {
                    let attempts = held.attempts + u32::from(counts);
                    site.store.lock().put_off(Waiting { due, index: held.index, attempts });
                    lane.note_stored(due);
                    site.changed.notify_one();
                    self.tally(site, |t| t.deferred += 1);
                }
                (outcome, _) => {
                    let finished = self.elapsed();
                    if outcome == Outcome::Delivered {
                        self.note_wait(site, bulk, now.since(received));
                    }
                    self.tally(site, |t| {
                        t.finished = finished;
                        match outcome {
                            Outcome::Delivered => t.delivered += 1,
                            Outcome::Expired => t.expired += 1,
                            _ => t.bounced += 1,
                        }
                    });
                    self.finished();
                }
            }
        }
        lane.settled(settled);
        attend(self, site);
        // What is stored beyond the window has its own due time, which `feed` waits for.
        if lane.stored_due().is_some_and(|due| due <= now) {
            site.changed.notify_one();
        }
        if !back.recipients.is_empty() {
            let refused = judged.is_some_and(|judgement| judgement.ruled);
            let wake = if refused { lane.give_back_behind(back) } else { lane.give_back(back) };
            self.wake(site, wake);
        }
    }
}
