//! The way of a message, on one screen: in by [`Relay::accept`], out by [`Relay::work`].
//!
//! Everything a stage needs of another passes through here as a value. The commit points are
//! `queue.accept` (then, and only then, the client hears `250`) and `queue.settle` (then, and only
//! then, a worker begins its next transaction: what a `kill -9` can repeat is never more than the
//! transactions in flight, invariant 6).

mod body;
pub(crate) mod conversion;
mod fault;
mod feedback;
mod hand;
pub(crate) mod lesson;
mod link;
mod moves;
mod orders;
mod outage;
mod pauses;
mod policies;
mod put_off;
mod record;
mod renamed;
mod report;
mod rerouted;
mod sandboxed;
mod signing;
mod watching;

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::config::Config;
use crate::crash;
use crate::deliver::{Connector, Event, Fact, Stage, Transaction};
use crate::descriptors::Descriptors;
use crate::listener::{Arrivals, Intake, Logins, Memory, memory};
use crate::mail::{Address, Features, Incoming, Message, NewMessage, NewRecipient, QueueId, Recipient};
use crate::observe::{Active, Stats};
use crate::outcome::Judgement;
use crate::queue::{Queue, QueueError};
use crate::route::{Route, RouteError, Router};
use crate::schedule::lane::{Lent, addresses};
use crate::schedule::{Admission, Job, Lane, Scheduler};
use body::QueuedBody;
use feedback::Feedback;
use hand::Hand;
use lesson::{After, Teach};
use link::{Link, Sockets};
use outage::Outages;
pub(crate) use outage::put_off_by;
pub use pauses::{Forgotten, Resumed};
use record::Attempt;
use report::Reports;
pub use watching::COUNTED;

/// Recipients that expire in one go while they are held back; then the next.
const EXPIRE_AT_ONCE: usize = 200;

/// All stages, wired.
pub struct Relay {
    /// The configuration in force.
    pub config: Arc<Config>,
    /// The clock.
    pub clock: Clock,
    /// The durable queue.
    pub queue: Arc<dyn Queue>,
    /// Where recipients go.
    pub router: Arc<Router>,
    /// Opens connections.
    pub connector: Connector,
    /// Who leaves next.
    pub scheduler: Arc<Scheduler>,
    /// Counters.
    pub stats: Stats,
    /// Workers alive.
    pub workers: Active,
    feedback: Feedback,
    outages: Outages,
    reports: Reports,
    /// What workers have, for operators.
    hands: Mutex<Vec<Weak<Hand>>>,
    stopping: watch::Receiver<bool>,
    cut: watch::Sender<bool>,
    tickets: conversion::Tickets,
    incoming: Arc<Memory>,
    logins: Arc<Logins>,
    arrivals: Arc<Arrivals>,
}

#[async_trait]
impl Intake for Relay {
    fn queue(&self) -> &Arc<dyn Queue> {
        &self.queue
    }

    fn clock(&self) -> Clock {
        self.clock
    }

    fn memory(&self) -> &Arc<Memory> {
        &self.incoming
    }

    fn descriptors(&self) -> Option<&Arc<Descriptors>> {
        Some(self.connector.descriptors())
    }

    fn logins(&self) -> Option<&Arc<Logins>> {
        Some(&self.logins)
    }

    fn arrivals(&self) -> Option<&Arc<Arrivals>> {
        Some(&self.arrivals)
    }

    async fn accept(
        &self,
        message: Message,
        recipients: Vec<Recipient>,
        head: Bytes,
        held: Option<Arc<str>>,
    ) -> Result<QueueId, QueueError> {
        let mut message = message;
        message.envelope.priority = self.priority_for(&message, &recipients);
        let message = Arc::new(message);
        // Which lane each recipient waits in, and whether it goes straight to memory.
        let from = Incoming::from(&*message);
        let laned = recipients.into_iter().map(|recipient| {
            let lane = self.router.lane_of(from, &recipient.address);
            let held = held.clone().or_else(|| self.config.sandbox.as_ref()?.holds(&recipient.address));
            NewRecipient { recipient, lane, leased: false, held }
        });
        let laned: Vec<NewRecipient> = laned.collect();
        let all_held = laned.iter().all(|new| new.held.is_some());
        let admission = match (all_held, message.envelope.release) {
            (true, _) => Admission::of_held(laned, message.received),
            // No time that is over: the listener leaves none.
            (false, Some(release)) => Admission::of_later(laned, message.received, release),
            (false, None) => self.scheduler.admit(&message, laned, &head),
        };

        // The commit point: durable before 250.
        let id = message.id;
        let new = NewMessage { message, recipients: admission.recipients, head };
        crash::point("accept.begin");
        if let Err(error) = self.queue.accept(new).await {
            self.queue.unspill(id).await;
            return Err(error);
        }
        crash::point("accept.done");
        self.stats.accepted.add(1);
        self.scheduler.submit(admission.admitted, self.clock.now());
        Ok(id)
    }
}

impl Relay {
    /// Wires the stages; `stopping` turns true at shutdown.
    pub fn new(
        config: Arc<Config>,
        clock: Clock,
        queue: Arc<dyn Queue>,
        router: Arc<Router>,
        connector: Connector,
        scheduler: Arc<Scheduler>,
        stopping: watch::Receiver<bool>,
    ) -> Arc<Relay> {
        let incoming = Memory::new(memory::part_of(config.queue.memory));
        let outgoing = memory::rest_of(config.queue.memory);
        let tickets = conversion::Tickets::new(scheduler.budget().clone(), outgoing);
        let relay = Arc::new(Relay {
            incoming,
            logins: Arc::default(),
            arrivals: Arc::new(Arrivals::new(&config.arrivals)),
            config,
            clock,
            queue,
            router,
            connector,
            scheduler,
            stats: Stats::default(),
            workers: Active::default(),
            feedback: Feedback::default(),
            outages: Outages::default(),
            reports: Reports::default(),
            hands: Mutex::default(),
            stopping,
            cut: watch::Sender::new(false),
            tickets,
        });
        let (weak, router) = (Arc::downgrade(&relay), relay.router.clone());
        relay.router.ask(move |lane| weak.upgrade().is_none_or(|relay| relay.takes(lane)));
        relay.scheduler.on_claim(moves::Claimed(router));
        let weak = Arc::downgrade(&relay);
        relay.scheduler.on_start(move |lane| {
            // At shutdown what is ready stays in the queue: no worker takes the place of another.
            if let Some(relay) = weak.upgrade().filter(|relay| !*relay.stopping.borrow()) {
                let alive = relay.workers.begin();
                tokio::spawn(async move {
                    let hand = Arc::new(Hand::new(lane));
                    relay.register(&hand);
                    let _gone = Gone { relay: relay.clone(), lane: hand.lane.clone() };
                    let mut worker = tokio::spawn({
                        let (relay, hand) = (relay.clone(), hand.clone());
                        async move { relay.work(&hand).await }
                    });
                    let mut cut = relay.cut.subscribe();
                    let cut_off = async move {
                        let _ = cut.wait_for(|cut| *cut).await;
                    };
                    tokio::select! {
                        ended = &mut worker => if ended.is_err() {
                            relay.after_fault(&hand).await;
                        },
                        // The lease of what it has in hand ends with the queue.
                        () = cut_off => worker.abort(),
                    }
                    drop(alive);
                });
            }
        });
        relay
    }

    /// Takes over what is not in the store of the relay before, as after a reload.
    pub fn go_on_from(&self, before: &Relay) {
        self.stats.go_on_from(&before.stats);
        self.logins.go_on_from(&before.logins);
        self.arrivals.go_on_from(&before.arrivals);
    }

    /// Takes up what the store keeps of earlier processes: what replies taught, what an operator
    /// has paused, and the policies of MTA-STS. Before anything is sent; may be asked again after an error.
    ///
    /// # Errors
    /// The queue could not be read or written.
    pub async fn recall(&self) -> Result<(), QueueError> {
        self.recall_policies().await?;
        self.recall_feedback().await?;
        self.arrivals.recall(&*self.queue).await?;
        self.recall_pauses().await
    }

    /// An operator who says "now" means it, also for a host or a name server that has not answered
    /// lately.
    pub fn forget_failures(&self) {
        self.connector.forget_dead();
        self.ask_hosts_again();
        self.router.forget_failures();
    }

    /// Ends all workers where they are, their connections with them. To be called only when the
    /// queue is closed next: what they had in hand stays leased until then.
    pub fn cut_off(&self) {
        self.cut.send_replace(true);
    }

    /// The life of one worker, that is of one upstream connection at a time.
    async fn work(&self, hand: &Hand) {
        let lane = &hand.lane;
        let mut stopping = self.stopping.clone();
        let mut link: Option<Link> = None;
        let mut serves: Option<Arc<str>> = None;
        let mut recipients: Vec<Recipient> = Vec::new();
        let idle = lane.provider.idle_timeout;
        'jobs: while !*stopping.borrow() && !lane.retire(link.as_ref().map(Link::counted)) {
            // About what it has given back or put off.
            self.carry_out(hand.take_orders()).await;
            // No place is held for mail that is not there, without a connection.
            if link.is_none() && lane.is_over() {
                break;
            }
            // From a source that takes nothing more today, the rest leaves from elsewhere.
            self.move_on(lane).await;
            // The next job, in the lane's order, when the limiter is near.
            let next = tokio::select! {
                biased;
                _ = stopping.changed() => break,
                // Somebody else needs the place.
                () = lane.dismissed() => break,
                next = self.next_job(hand, serves.as_deref(), idle) => next,
            };
            let Some(job) = next else { break };
            hand.hold(&job);
            let mut attempt = Attempt::new(job, self.clock.now());
            if self.is_too_early(hand, &mut attempt).await || self.stays_in_sandbox(hand, &mut attempt).await {
                continue;
            }

            // A smart host whose name has no address is asked for by one, now and then.
            if let Some(fact) = self.without_name(lane, &attempt.job) {
                hand.not_needed(&mut attempt.job);
                let (judgement, fact) = self.of(lane).unreached(lane.begin_connection(), &[fact], |_| false);
                attempt.everyone(fact);
                self.finish(hand, attempt, Some(judgement)).await;
                continue;
            }

            // Where it goes. A domain whose provider became known moves to the provider's lane.
            let route = tokio::select! {
                biased;
                route = self.route(lane, &attempt.job) => route,
                // Name servers that say nothing do not hold up the end.
                _ = stopping.changed() => {
                    hand.not_needed(&mut attempt.job);
                    hand.empty();
                    let _ = lane.give_back(attempt.job);
                    break;
                }
            };
            let mut route = match route {
                Ok(route) if route.lane != lane.name => {
                    hand.not_needed(&mut attempt.job);
                    hand.empty();
                    self.move_to(lane, &route, attempt.job).await;
                    continue;
                }
                Ok(route) => route,
                Err(error) => {
                    hand.not_needed(&mut attempt.job);
                    self.scheduler.prove(lane, false);
                    // Others may look up theirs.
                    lane.found();
                    let fact = self.note_nameless(lane, &attempt.job, no_route(error));
                    attempt.everyone(fact);
                    self.finish(hand, attempt, None).await;
                    continue;
                }
            };

            lane.found();

            // What nobody there takes is not tried.
            if let Some(fact) = too_large(lane, &attempt.job) {
                hand.not_needed(&mut attempt.job);
                attempt.everyone(fact);
                self.finish(hand, attempt, None).await;
                continue;
            }

            // An open connection: the one at hand if it suits, else a new one.
            let same_source = |link: &Link, job: &Job| {
                let from = job.sender_domain();
                self.connector.is_from_source_of(&link.connection, &lane.provider, &lane.name, from)
            };
            if !link
                .as_mut()
                .is_some_and(|link| link.suits(lane, &route, &attempt.job) && same_source(link, &attempt.job))
            {
                let lent = Arc::clone(&attempt.job.message);
                let to: Vec<Address> =
                    attempt.job.recipients.iter().map(|held| held.recipient.address.clone()).collect();
                let sender = lent.message.envelope.sender();
                let mail = Features::of(sender, to.iter().map(Address::as_str), lent.message.size);
                let way = route.clone();
                hand.lend(&mut attempt.job, route);
                // Closed before the next one is opened: never more connections than the limit.
                if let Some(mut old) = link.take() {
                    if let Some(messages) = old.closed_early() {
                        self.of(lane).note_closed(messages);
                    }
                    old.quit().await;
                }
                let began = tokio::time::Instant::now();
                tokio::select! {
                    biased;
                    () = lane.may_connect() => {}
                    () = hand.recalled() => {}
                    _ = stopping.changed() => {
                        if hand.take_back(&mut attempt.job).is_some() {
                            hand.not_needed(&mut attempt.job);
                            hand.empty();
                            let _ = lane.give_back(attempt.job);
                        }
                        break;
                    }
                }
                let number = lane.begin_connection();
                let sockets = Sockets::first_is_paid(self, lane);
                // Without mail nobody waits for a host that hangs.
                let opened = tokio::select! {
                    biased;
                    () = hand.recalled() => None,
                    opened = sockets.open(&way, mail) => Some(opened),
                };
                // It may be a later one of those that go to the same hosts.
                let (Some(its), Some(opened)) = (hand.take_back(&mut attempt.job), opened) else {
                    hand.permitted();
                    continue;
                };
                route = its;
                match opened {
                    Ok(new) => {
                        let new = Link::new(new, number, lane);
                        self.of(lane).note_opened(number, new.open);
                        link = Some(new);
                        self.note_session(lane, &attempt.job.destination);
                        let wake = lane.let_in();
                        self.scheduler.wake(lane, wake);
                    }
                    Err(facts) => {
                        hand.not_needed(&mut attempt.job);
                        // A later one, unlike it: what was not tried about that one is nothing about it.
                        let untried = facts.iter().all(|fact| matches!(fact.event, Event::BackOff { .. }));
                        let other = untried && attempt.job.features().keys() != mail.keys();
                        if other || self.fails_over(lane, &facts) {
                            // It was no attempt: the next round finds the other source, for all that waits.
                            hand.empty();
                            self.scheduler.wake(lane, lane.give_back(attempt.job));
                            continue;
                        }
                        self.scheduler.prove(lane, false);
                        if facts.iter().any(|fact| fact.stage == Stage::Auth) {
                            lane.login_failed();
                        }
                        self.note_down(lane, &attempt.job, &route, &facts);
                        let ours = |name: &str| route.hosts.iter().any(|host| host.name == name);
                        let (judgement, fact) = self.of(lane).unreached(number, &facts, ours);
                        attempt.connect = began.elapsed();
                        attempt.everyone(fact);
                        self.finish(hand, attempt, Some(judgement)).await;
                        continue;
                    }
                }
                attempt.connect = began.elapsed();
            }
            let Some(open) = link.as_mut() else { continue };
            // Whose turn was before, and who waits for a connection still, takes this one.
            let way = route.clone();
            let fresh = open.connection.sent() == 0;
            let suits = |lent: &Lent| {
                (fresh || !lent.job.wants_fresh)
                    && way.has_the_hosts_of(&lent.route)
                    && same_source(open, &lent.job)
                    && open.may_have(&lent.job)
            };
            if lane.take_earlier(&mut attempt.job, &mut route, suits) {
                hand.hold(&attempt.job);
            }
            serves = Some(attempt.job.destination.clone());

            // The body as this host can take it; then the permit, as late as possible: permits that
            // waited for bodies would all be used at once (invariant 3).
            let (permit, source, outgoing) = loop {
                // Who has no place in this transaction, by the host's own word, has one in another.
                if let Some(fits) = open.connection.fitting(addresses(&attempt.job)) {
                    self.scheduler.wake(lane, lane.part(&mut attempt.job, &fits));
                    if attempt.job.recipients.is_empty() {
                        // Nor in any other of this connection: it makes room for the next.
                        hand.permitted();
                        hand.empty();
                        if let Some(used_up) = link.take() {
                            used_up.quit().await;
                        }
                        continue 'jobs;
                    }
                    hand.hold_rest(&attempt.job);
                }
                let source = QueuedBody { shared: attempt.job.message.clone(), queue: self.queue.clone() };
                let host = open.connection.capabilities();
                let outgoing = match self.convert(&source, host, lane).await {
                    Ok(outgoing) => self.sign(&source, outgoing, host, lane).await,
                    Err(event) => Err(event),
                };
                let outgoing = match outgoing {
                    Ok(outgoing) => outgoing,
                    Err(event) => {
                        hand.not_needed(&mut attempt.job);
                        attempt.everyone(Fact {
                            stage: Stage::Mail,
                            event,
                            peer: Some(open.connection.peer().clone()),
                        });
                        self.finish(hand, attempt, None).await;
                        continue 'jobs;
                    }
                };
                let (message, body) = (outgoing.message(), outgoing.body(&source));
                open.connection.make_ready(&Transaction { message, recipients: &[], body }).await;
                let began = tokio::time::Instant::now();
                let permit = tokio::select! {
                    biased;
                    permit = lane.permit(&mut attempt.job) => permit,
                    // No connection waits for the end of a long pause.
                    () = lane.long_hold() => {
                        hand.not_needed(&mut attempt.job);
                        hand.empty();
                        let _ = lane.give_back(attempt.job);
                        break 'jobs;
                    }
                    _ = stopping.changed() => {
                        hand.not_needed(&mut attempt.job);
                        hand.empty();
                        let _ = lane.give_back(attempt.job);
                        break 'jobs;
                    }
                };
                attempt.limiter += began.elapsed();
                // A quota was used up meanwhile: the job waits in the lane, and it was no attempt.
                let Ok(permit) = permit else {
                    hand.permitted();
                    hand.empty();
                    self.scheduler.wake(lane, lane.give_back(attempt.job));
                    continue 'jobs;
                };
                if Arc::ptr_eq(&source.shared, &attempt.job.message) {
                    hand.permitted();
                    break (permit, source, outgoing);
                }
                // A more urgent message took the place: its body first, then a permit for it.
                drop(permit);
                lane.let_through_again(&mut attempt.job);
                hand.hold(&attempt.job);
            };

            // Nothing was sent yet: an operator may have said that nothing is to be.
            if self.obey(hand, &mut attempt).await {
                continue;
            }

            // One transaction; then its outcome is durable before the next begins.
            let underway = permit.spend();
            recipients.clear();
            recipients.extend(attempt.job.recipients.iter().map(|held| held.recipient.clone()));
            let (message, body) = (outgoing.message(), outgoing.body(&source));
            let report = open.connection.send(&Transaction { message, recipients: &recipients, body }).await;
            drop(underway);
            attempt.transaction = report.took;
            attempt.dsn = report.dsn;
            attempt.facts = report.facts;
            attempt.carried = Some(open.carried(&attempt.facts, attempt.job.message.message.size));
            self.note_answers(lane, &attempt.job.destination, &attempt.facts);
            let after = self.finish(hand, attempt, None).await;
            open.note(after);
            let few = open.connection.takes_more() && open.connection.sent() < lane.messages_per_connection();
            let spent = !open.connection.is_usable() || !few || after.close;
            if let Some(done) = link.take_if(|_| spent) {
                done.quit().await;
            }
        }
        self.carry_out(hand.take_orders()).await;
        if let Some(open) = link {
            open.quit().await;
        }
    }

    /// The end of an attempt, and nothing in hand any more.
    async fn finish(&self, hand: &Hand, attempt: Attempt, judged: Option<Judgement>) -> After {
        let after = self.settle(&hand.lane, attempt, judged).await;
        hand.empty();
        self.carry_out(hand.take_orders()).await;
        after
    }

    /// A message has one priority, whoever its recipients are: the highest that a `[[route]]` gives
    /// it for one of them, else that of MT-PRIORITY, of its header fields, or 0.
    fn priority_for(&self, message: &Message, recipients: &[Recipient]) -> i8 {
        let from = Incoming::from(message);
        let ruled = recipients.iter().filter_map(|r| self.config.priority_for(from, &r.address)).max();
        ruled.unwrap_or(message.envelope.priority)
    }

    /// What is held back does not wait for an attempt to expire.
    pub async fn expire_held(&self, lane: &Arc<Lane>) {
        while !*self.stopping.borrow() {
            let expired = self.scheduler.expired(lane, self.clock.now(), EXPIRE_AT_ONCE).await;
            if expired.is_empty() {
                break;
            }
            for (held, job) in expired {
                // The lease of what is left ends with the queue.
                if *self.stopping.borrow() {
                    return;
                }
                let mut attempt = Attempt::new(job, self.clock.now());
                attempt.everyone(Fact { stage: Stage::Route, event: Event::Held(held.by), peer: None });
                self.settle(lane, attempt, None).await;
            }
        }
    }

    async fn route(&self, lane: &Lane, job: &Job) -> Result<Arc<Route>, RouteError> {
        match job.recipients.first() {
            Some(held) => {
                let from = Incoming::from(&*job.message.message);
                self.router.resolve_in(&lane.name, lane.is_proven(), from, &held.recipient.address).await
            }
            None => Err(RouteError::Temporary { enhanced: "4.3.0", text: "a job without recipients".into() }),
        }
    }
}

/// Counts a worker out however it ended, and starts another if the lane needs one.
struct Gone {
    relay: Arc<Relay>,
    lane: Arc<Lane>,
}

impl Drop for Gone {
    fn drop(&mut self) {
        self.relay.scheduler.wake(&self.lane, self.lane.worker_gone());
        self.lane.leave_place();
    }
}

fn no_route(error: RouteError) -> Fact {
    let event = match error {
        RouteError::Permanent { code, enhanced, text } => Event::NoRoute { permanent: true, code, enhanced, text },
        RouteError::Temporary { enhanced, text } => Event::NoRoute { permanent: false, code: 450, enhanced, text },
    };
    Fact { stage: Stage::Route, event, peer: None }
}

/// The provider takes no message of this size, by the configuration.
fn too_large(lane: &Lane, job: &Job) -> Option<Fact> {
    let (size, most) = (job.message.message.size, lane.provider.max_message_size);
    (most > 0 && size > most).then(|| {
        let text = format!("the message has {size} bytes, max_message_size of {} is {most}", lane.name);
        Fact { stage: Stage::Mail, event: Event::Unsendable { enhanced: "5.3.4", text }, peer: None }
    })
}

/// How long an outcome waits before the queue is asked again to store it.
const SETTLE_AGAIN: Duration = Duration::from_millis(500);

#[cfg(test)]
mod silence_tests;
#[cfg(test)]
pub(crate) mod tests;
