//! What a worker has in hand: kept apart from it, so that it is not lost with it.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::orders::Order;
use crate::mail::RecipientKey;
use crate::queue::Operation;
use crate::route::Route;
use crate::schedule::{Job, Lane};

/// The job that a worker has, known also to those who outlive it.
pub(super) struct Hand {
    pub(super) lane: Arc<Lane>,
    job: Mutex<Option<Job>>,
    /// Under which number the lane has it meanwhile.
    lent: Mutex<Option<u64>>,
    /// It was let through and has neither its permit nor given up on it.
    let_through: AtomicBool,
    /// What operators said about what it has.
    orders: Mutex<Vec<Order>>,
}

impl Hand {
    pub(super) fn new(lane: Arc<Lane>) -> Hand {
        Hand {
            lane,
            job: Mutex::default(),
            lent: Mutex::default(),
            let_through: AtomicBool::new(false),
            orders: Mutex::default(),
        }
    }

    pub(super) fn hold(&self, job: &Job) {
        *self.job.lock() = Some(job.clone());
        self.let_through.store(true, Ordering::Relaxed);
    }

    /// Nobody but those with an earlier right has the job while a connection is opened.
    pub(super) fn lend(&self, job: &mut Job, route: Arc<Route>) {
        let nothing = job.without_recipients();
        let number = self.lane.lend(std::mem::replace(job, nothing), route);
        *self.lent.lock() = Some(number);
        *self.job.lock() = None;
    }

    /// The end of [`Hand::lend`]: the job that is there now, and its way.
    pub(super) fn take_back(&self, job: &mut Job) -> Option<Arc<Route>> {
        let lent = self.lane.take_back(self.lent.lock().take()?)?;
        *job = lent.job;
        *self.job.lock() = Some(job.clone());
        Some(lent.route)
    }

    /// What is left of the job, with the permit it has.
    pub(super) fn hold_rest(&self, job: &Job) {
        *self.job.lock() = Some(job.clone());
    }

    /// Notes what an operator said about those of `wanted` that it has.
    pub(super) fn order(&self, op: Operation, wanted: &HashSet<RecipientKey>) {
        // Locked until it is noted, so that it is found when the job is done with.
        let job = self.job.lock();
        let Some(job) = job.as_ref() else { return };
        let keys = job.recipients.iter().map(|held| job.key(held.index));
        let mut orders = self.orders.lock();
        for key in keys.filter(|key| wanted.contains(key)) {
            // The last word counts.
            orders.retain(|(of, _)| *of != key);
            orders.push((key, op));
        }
    }

    pub(super) fn take_orders(&self) -> Vec<Order> {
        std::mem::take(&mut *self.orders.lock())
    }

    /// Returns when an operator has taken away all that was lent.
    pub(super) async fn recalled(&self) {
        let number = *self.lent.lock();
        if let Some(number) = number {
            self.lane.recalled(number).await;
        } else {
            std::future::pending::<()>().await;
        }
    }

    pub(super) fn permitted(&self) {
        self.let_through.store(false, Ordering::Relaxed);
    }

    pub(super) fn not_needed(&self, job: &mut Job) {
        if self.let_through.swap(false, Ordering::Relaxed) {
            self.lane.not_needed(job);
        }
    }

    pub(super) fn empty(&self) {
        *self.job.lock() = None;
    }

    /// Takes what is left in hand of a worker that is gone.
    pub(super) fn take(&self) -> Option<Job> {
        let in_hand = self.job.lock().take();
        in_hand.or_else(|| self.lane.take_back(self.lent.lock().take()?).map(|lent| lent.job))
    }
}
