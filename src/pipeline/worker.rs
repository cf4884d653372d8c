//! The life of a worker, that is of one upstream connection at a time: take a job, attempt it, conclude.
//!
//! An attempt is a journey by stages: route, connect, permit (with the body as the host takes it), transact. A
//! stage either hands on what the next one needs, or ends the attempt with a [`Fate`].
//!
//! Invariants:
//! - What a worker has in hand is known to [`Hand`] at any moment: it survives a panic, and an operator finds it.
//! - What a job was let through for ends with the attempt, however it ends ([`Worker::conclude`]).
//! - A worker begins its next transaction only when the outcome of the last one is durable.

use std::ops::ControlFlow;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use super::Relay;
use super::body::{Outgoing, QueuedBody};
use super::hand::Hand;
use super::lesson::Teach;
use super::link::{Link, Sockets};
use super::record::Attempt;
use crate::deliver::{Event, Fact, Stage, Transaction};
use crate::mail::{Address, Features, Incoming, Recipient, TlsWish};
use crate::outcome::{Judgement, judge};
use crate::route::{Route, RouteError};
use crate::schedule::lane::{Lent, addresses};
use crate::schedule::{Job, Lane};
use crate::shape::Permit;

/// How an attempt ended.
enum Fate {
    /// There are facts about it; judged here, where they are about the host.
    Known(Option<Judgement>),
    /// It was no attempt: the lane has the job again, for whoever is next.
    Requeue,
    /// The same, and this worker ends: nothing leaves for a while, or at all.
    Leave,
    /// Another lane has it: there its hosts are.
    Elsewhere(Arc<Route>),
    /// An operator has taken all of it away, or what there was to say was said.
    Gone,
}

/// A stage hands something on, or the attempt is over.
type Staged<T> = Result<T, Fate>;

/// What the last stage needs: the right to send, and what is sent.
struct Permitted {
    permit: Permit,
    source: QueuedBody,
    outgoing: Outgoing,
}

/// See the top of this file.
pub(super) struct Worker<'r> {
    relay: &'r Relay,
    hand: &'r Hand,
    lane: &'r Arc<Lane>,
    stopping: watch::Receiver<bool>,
    link: Option<Link>,
    /// For whose domain the last transaction was: the next job is by preference for the same.
    serves: Option<Arc<str>>,
    /// Kept for its room only.
    recipients: Vec<Recipient>,
}

impl<'r> Worker<'r> {
    pub(super) fn new(relay: &'r Relay, hand: &'r Hand) -> Worker<'r> {
        let (lane, stopping) = (&hand.lane, relay.stopping.clone());
        Worker { relay, hand, lane, stopping, link: None, serves: None, recipients: Vec::new() }
    }

    /// Works until there is nothing to do, somebody else needs the place, or the relay stops.
    pub(super) async fn run(mut self) {
        while !*self.stopping.borrow() && !self.lane.retire(self.link.as_ref().map(Link::counted)) {
            // About what it has given back or put off.
            self.relay.carry_out(self.hand.take_orders()).await;
            // No place is held for mail that is not there, without a connection.
            if self.link.is_none() && self.lane.is_over() {
                break;
            }
            // From a source that takes nothing more today, the rest leaves from elsewhere.
            self.relay.move_on(self.lane).await;
            let Some(job) = self.take().await else { break };
            self.hand.hold(&job);
            let mut attempt = Attempt::new(job, self.relay.clock.now());
            let (Ok(fate) | Err(fate)) = self.attempt(&mut attempt).await;
            if self.conclude(attempt, fate).await.is_break() {
                break;
            }
        }
        self.relay.carry_out(self.hand.take_orders()).await;
        if let Some(open) = self.link {
            open.quit().await;
        }
    }

    /// The next job, in the lane's order, when the limiter is near.
    async fn take(&mut self) -> Option<Job> {
        tokio::select! {
            biased;
            _ = self.stopping.changed() => None,
            // Somebody else needs the place.
            () = self.lane.dismissed() => None,
            next = self.relay.next_job(self.hand, self.serves.as_deref(), self.lane.provider.idle_timeout) => next,
        }
    }

    /// The journey of a job, as far as it comes.
    async fn attempt(&mut self, attempt: &mut Attempt) -> Staged<Fate> {
        let mut route = self.route(attempt).await?;
        self.connect(attempt, &mut route).await?;
        let permitted = self.permit(attempt).await?;
        self.transact(attempt, permitted).await
    }

    /// Where it goes. A domain whose provider became known moves to the provider's lane.
    async fn route(&mut self, attempt: &mut Attempt) -> Staged<Arc<Route>> {
        let (relay, lane) = (self.relay, self.lane);
        if relay.is_too_early(self.hand, attempt).await || relay.stays_in_sandbox(self.hand, attempt).await {
            return Err(Fate::Gone);
        }
        // A smart host whose name has no address is asked for by one, now and then.
        if let Some(fact) = relay.without_name(lane, &attempt.job) {
            let (judgement, fact) = relay.of(lane).unreached(lane.begin_connection(), &[fact], |_| false);
            attempt.everyone(fact);
            return Err(Fate::Known(Some(judgement)));
        }
        let route = tokio::select! {
            biased;
            route = relay.route(lane, &attempt.job) => route,
            // Name servers that say nothing do not hold up the end.
            _ = self.stopping.changed() => return Err(Fate::Leave),
        };
        match route {
            Ok(route) if route.lane != lane.name => Err(Fate::Elsewhere(route)),
            Ok(route) => {
                lane.found();
                match too_large(lane, &attempt.job) {
                    // What nobody there takes is not tried.
                    Some(fact) => {
                        attempt.everyone(fact);
                        Err(Fate::Known(None))
                    }
                    None => Ok(route),
                }
            }
            Err(error) => {
                relay.count_refusal(&error);
                // What a message demands beyond others says nothing of the lane.
                if attempt.job.message.message.envelope.tls != TlsWish::Required {
                    relay.scheduler.prove(lane, false);
                }
                // Others may look up theirs.
                lane.found();
                attempt.everyone(relay.note_nameless(lane, &attempt.job, no_route(error)));
                Err(Fate::Known(None))
            }
        }
    }

    /// An open connection: the one at hand if it suits, else a new one. The job may then be another one, with
    /// another way, that has the earlier right to it.
    async fn connect(&mut self, attempt: &mut Attempt, route: &mut Arc<Route>) -> Staged<()> {
        if !self.suits(route, &attempt.job) {
            *route = self.open(attempt, route.clone()).await?;
        }
        let (relay, lane) = (self.relay, self.lane);
        let Some(open) = self.link.as_ref() else { return Err(Fate::Requeue) };
        // Whose turn was before, and who waits for a connection still, takes this one.
        let way = route.clone();
        let fresh = open.connection.sent() == 0;
        let suits = |lent: &Lent| {
            (fresh || !lent.job.wants_fresh)
                && way.has_the_hosts_of(&lent.route)
                && relay.is_from_its_source(lane, open, &lent.job)
                && open.may_have(&lent.job)
        };
        if lane.take_earlier(&mut attempt.job, route, suits) {
            self.hand.hold(&attempt.job);
        }
        self.serves = Some(attempt.job.destination.clone());
        Ok(())
    }

    /// Whether the connection at hand may carry this.
    fn suits(&mut self, route: &Route, job: &Job) -> bool {
        let (relay, lane) = (self.relay, self.lane);
        self.link.as_mut().is_some_and(|link| link.suits(lane, route, job) && relay.is_from_its_source(lane, link, job))
    }

    /// A new connection, and the way of the job that it is for: it may be a later one of those that go to the
    /// same hosts.
    async fn open(&mut self, attempt: &mut Attempt, route: Arc<Route>) -> Staged<Arc<Route>> {
        let (relay, lane, hand) = (self.relay, self.lane, self.hand);
        let lent = Arc::clone(&attempt.job.message);
        let to: Vec<Address> = attempt.job.recipients.iter().map(|held| held.recipient.address.clone()).collect();
        let sender = lent.message.envelope.sender();
        let mail = Features::of(sender, to.iter().map(Address::as_str), lent.message.size);
        let way = route.clone();
        hand.lend(&mut attempt.job, route);
        // Closed before the next one is opened: never more connections than the limit.
        if let Some(mut old) = self.link.take() {
            if let Some(messages) = old.closed_early() {
                relay.of(lane).note_closed(messages);
            }
            old.quit().await;
        }
        let began = Instant::now();
        tokio::select! {
            biased;
            () = lane.may_connect() => {}
            () = hand.recalled() => {}
            _ = self.stopping.changed() => {
                if hand.take_back(&mut attempt.job).is_some() {
                    return Err(Fate::Leave);
                }
                hand.permitted();
                return Err(Fate::Gone);
            }
        }
        let number = lane.begin_connection();
        let sockets = Sockets::first_is_paid(relay, lane);
        // Without mail nobody waits for a host that hangs.
        let opened = tokio::select! {
            biased;
            () = hand.recalled() => None,
            opened = sockets.open(&way, mail) => Some(opened),
        };
        let (Some(route), Some(opened)) = (hand.take_back(&mut attempt.job), opened) else {
            hand.permitted();
            return Err(Fate::Gone);
        };
        attempt.connect = began.elapsed();
        match opened {
            Ok(new) => {
                let new = Link::new(new, number, lane);
                relay.of(lane).note_opened(number, new.open);
                self.link = Some(new);
                relay.note_session(lane, &attempt.job.destination);
                relay.scheduler.wake(lane, lane.let_in());
                Ok(route)
            }
            Err(facts) => Err(self.unreached(attempt, &route, number, &mail, &facts)),
        }
    }

    /// No host of the route let us in.
    fn unreached(
        &self,
        attempt: &mut Attempt,
        route: &Route,
        number: u64,
        mail: &Features<'_>,
        facts: &[Fact],
    ) -> Fate {
        let (relay, lane) = (self.relay, self.lane);
        // A later one, unlike it: what was not tried about that one is nothing about it.
        let untried = facts.iter().all(|fact| matches!(fact.event, Event::BackOff { .. }));
        let other = untried && attempt.job.features().keys() != mail.keys();
        if other || relay.fails_over(lane, facts) {
            // It was no attempt: the next round finds the other source, for all that waits.
            return Fate::Requeue;
        }
        if let Some((judgement, fact)) = not_good_enough(route, facts) {
            attempt.everyone(fact);
            return Fate::Known(Some(judgement));
        }
        relay.scheduler.prove(lane, false);
        let facts = &*facts.iter().filter(|fact| !is_unfit(fact)).cloned().collect::<Vec<_>>();
        if facts.iter().any(|fact| fact.stage == Stage::Auth) {
            lane.login_failed();
        }
        relay.note_down(lane, &attempt.job, route, facts);
        let ours = |name: &str| route.hosts.iter().any(|host| host.name == name);
        let (judgement, fact) = relay.of(lane).unreached(number, facts, ours);
        attempt.everyone(fact);
        Fate::Known(Some(judgement))
    }

    /// The body as this host can take it; then the permit, as late as possible: permits that waited for bodies
    /// would all be used at once (invariant 3).
    async fn permit(&mut self, attempt: &mut Attempt) -> Staged<Permitted> {
        let (relay, lane, hand) = (self.relay, self.lane, self.hand);
        loop {
            self.part(attempt).await?;
            let Some(open) = self.link.as_mut() else { return Err(Fate::Requeue) };
            let source = QueuedBody { shared: attempt.job.message.clone(), queue: relay.queue.clone() };
            let host = open.connection.capabilities();
            let outgoing = match relay.convert(&source, host, lane).await {
                Ok(outgoing) => relay.sign(&source, outgoing, host, lane).await,
                Err(event) => Err(event),
            };
            let outgoing = match outgoing {
                Ok(outgoing) => outgoing,
                Err(event) => {
                    let peer = Some(open.connection.peer().clone());
                    attempt.everyone(Fact { stage: Stage::Mail, event, peer });
                    return Err(Fate::Known(None));
                }
            };
            let (message, body) = (outgoing.message(), outgoing.body(&source));
            open.connection.make_ready(&Transaction { message, recipients: &[], body }).await;
            let began = Instant::now();
            let permit = tokio::select! {
                biased;
                permit = lane.permit(&mut attempt.job) => permit,
                // No connection waits for the end of a long pause.
                () = lane.long_hold() => return Err(Fate::Leave),
                _ = self.stopping.changed() => return Err(Fate::Leave),
            };
            attempt.limiter += began.elapsed();
            hand.permitted();
            // A quota was used up meanwhile: the job waits in the lane, and it was no attempt.
            let Ok(permit) = permit else { return Err(Fate::Requeue) };
            let is_ready = self.link.as_ref().is_none_or(|open| !open.connection.owes_wait());
            if is_ready && Arc::ptr_eq(&source.shared, &attempt.job.message) {
                return Ok(Permitted { permit, source, outgoing });
            }
            // A more urgent message took the place, or the host was heard to answer twice: its body and the moment for that
            // first, then a permit.
            drop(permit);
            lane.let_through_again(&mut attempt.job);
            hand.hold(&attempt.job);
        }
    }

    /// Who has no place in this transaction, by the host's own word, has one in another.
    async fn part(&mut self, attempt: &mut Attempt) -> Staged<()> {
        let (relay, lane, hand) = (self.relay, self.lane, self.hand);
        let fits = self.link.as_ref().and_then(|open| open.connection.fitting(addresses(&attempt.job)));
        let Some(fits) = fits else { return Ok(()) };
        relay.scheduler.wake(lane, lane.part(&mut attempt.job, &fits));
        if attempt.job.recipients.is_empty() {
            // Nor in any other of this connection: it makes room for the next.
            hand.permitted();
            hand.empty();
            if let Some(used_up) = self.link.take() {
                used_up.quit().await;
            }
            return Err(Fate::Gone);
        }
        hand.hold_rest(&attempt.job);
        Ok(())
    }

    /// One transaction.
    async fn transact(&mut self, attempt: &mut Attempt, permitted: Permitted) -> Staged<Fate> {
        let (relay, lane) = (self.relay, self.lane);
        // Nothing was sent yet: an operator may have said that nothing is to be.
        if relay.obey(self.hand, attempt).await {
            return Err(Fate::Gone);
        }
        let Some(open) = self.link.as_mut() else { return Err(Fate::Requeue) };
        let Permitted { permit, source, outgoing } = permitted;
        let underway = permit.spend();
        self.recipients.clear();
        self.recipients.extend(attempt.job.recipients.iter().map(|held| held.recipient.clone()));
        let (message, body) = (outgoing.message(), outgoing.body(&source));
        let report = open.connection.send(&Transaction { message, recipients: &self.recipients, body }).await;
        drop(underway);
        attempt.transaction = report.took;
        attempt.dsn = report.dsn;
        attempt.facts = report.facts;
        attempt.carried = Some(open.carried(&attempt.facts, attempt.job.message.message.size));
        relay.note_answers(lane, &attempt.job.destination, &attempt.facts);
        Ok(Fate::Known(None))
    }

    /// The end of an attempt, and nothing in hand any more. `Break`: this worker is done.
    async fn conclude(&mut self, mut attempt: Attempt, fate: Fate) -> ControlFlow<()> {
        let (relay, lane, hand) = (self.relay, self.lane, self.hand);
        hand.not_needed(&mut attempt.job);
        match fate {
            Fate::Known(judgement) => {
                let sent = attempt.carried.is_some();
                let after = relay.settle(lane, attempt, judgement).await;
                hand.empty();
                relay.carry_out(hand.take_orders()).await;
                if sent && let Some(open) = self.link.as_mut() {
                    open.note(after);
                    let more = open.connection.takes_more() && open.connection.sent() < lane.messages_per_connection();
                    let spent = !open.connection.is_usable() || !more || after.close;
                    if let Some(done) = self.link.take_if(|_| spent) {
                        done.quit().await;
                    }
                }
            }
            Fate::Requeue => {
                hand.empty();
                relay.scheduler.wake(lane, lane.give_back(attempt.job));
            }
            Fate::Leave => {
                hand.empty();
                let _ = lane.give_back(attempt.job);
                return ControlFlow::Break(());
            }
            Fate::Elsewhere(route) => {
                hand.empty();
                relay.move_to(lane, &route, attempt.job).await;
            }
            Fate::Gone => {}
        }
        ControlFlow::Continue(())
    }
}

impl Relay {
    /// Whether what goes over this connection comes from an address that this job may leave from.
    fn is_from_its_source(&self, lane: &Lane, link: &Link, job: &Job) -> bool {
        self.connector.is_from_source_of(&link.connection, &lane.provider, &lane.name, job.sender_domain())
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
pub(super) struct WorkerGuard {
    pub(super) relay: Arc<Relay>,
    pub(super) lane: Arc<Lane>,
}

impl Drop for WorkerGuard {
    fn drop(&mut self) {
        self.relay.scheduler.wake(&self.lane, self.lane.worker_gone());
        self.lane.leave_place();
    }
}

fn no_route(error: RouteError) -> Fact {
    let event = match error {
        RouteError::Permanent { code, enhanced, text } => Event::NoRoute { permanent: true, code, enhanced, text },
        RouteError::Insecure { text, .. } => {
            Event::NoRoute { permanent: false, code: 450, enhanced: crate::route::NO_TLS, text }
        }
        RouteError::Temporary { enhanced, text } => Event::NoRoute { permanent: false, code: 450, enhanced, text },
    };
    Fact { stage: Stage::Route, event, peer: None }
}

/// A host has not what the message demands of it (REQUIRETLS).
fn is_unfit(fact: &Fact) -> bool {
    matches!(fact.event, Event::Unsendable { .. })
}

/// Where every host came as far as TLS, and had not what the message demands beyond what other mail asks for: what becomes of
/// the message. Nothing follows for the lane. For good only if that holds for all of them.
fn not_good_enough(route: &Route, facts: &[Fact]) -> Option<(Judgement, Fact)> {
    let demands = route.hosts.iter().any(|host| host.policy.parts().1);
    let of_tls = |fact: &Fact| is_unfit(fact) || fact.stage == Stage::StartTls;
    if !demands || !facts.iter().all(of_tls) {
        return None;
    }
    let fact = facts.iter().find(|fact| !is_unfit(fact)).or(facts.first())?.clone();
    Some((judge(&fact), fact))
}

/// The provider takes no message of this size, by the configuration.
fn too_large(lane: &Lane, job: &Job) -> Option<Fact> {
    let (size, most) = (job.message.message.size, lane.provider.max_message_size);
    (most > 0 && size > most).then(|| {
        let text = format!("the message has {size} bytes, max_message_size of {} is {most}", lane.name);
        Fact { stage: Stage::Mail, event: Event::Unsendable { enhanced: "5.3.4", text }, peer: None }
    })
}
