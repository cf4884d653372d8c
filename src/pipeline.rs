//! The way of a message, on one screen: in by [`Relay::accept`], out by [`Worker::run`].
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
mod tls_reports;
mod watching;
mod worker;

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::config::Config;
use crate::crash;
use crate::deliver::{Connector, Event, Fact, Stage};
use crate::descriptors::Descriptors;
use crate::listener::{Arrivals, Intake, Logins, Memory, memory};
use crate::mail::{Incoming, Message, NewMessage, NewRecipient, QueueId, Recipient};
use crate::observe::{Active, Stats};
use crate::queue::{self, Queue, QueueError, Spool};
use crate::route::Router;
use crate::schedule::{Admission, Lane, Scheduler};
use feedback::Feedback;
use hand::Hand;
use outage::Outages;
pub(crate) use outage::put_off_by;
pub use pauses::{Forgotten, Resumed};
use record::Attempt;
use report::Reports;
use tls_reports::TlsReports;
pub use watching::COUNTED;
use worker::{Worker, WorkerGuard};

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
    tls_reports: TlsReports,
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
    fn spool(&self) -> &dyn Spool {
        &*self.queue
    }

    fn values(&self) -> &dyn queue::Memory {
        &*self.queue
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
            tls_reports: TlsReports::default(),
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
                    let _guard = WorkerGuard { relay: relay.clone(), lane: hand.lane.clone() };
                    let mut worker = tokio::spawn({
                        let (relay, hand) = (relay.clone(), hand.clone());
                        async move { Worker::new(&relay, &hand).run().await }
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
        self.recall_tls_reports().await?;
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
}

/// How long an outcome waits before the queue is asked again to store it.
const SETTLE_AGAIN: Duration = Duration::from_millis(500);

#[cfg(test)]
mod silence_tests;
#[cfg(test)]
pub(crate) mod tests;
