//! An operator's word about mail that a worker has in hand: `queue hold` and `queue cancel`.
//!
//! It takes effect at once while nothing of the mail was sent: what waits for a connection that is
//! being opened is taken away ([`Lane::recall`]), and the attempt is abandoned when nothing is left of it; what
//! waits for its route or its permit is looked through before MAIL. What is in a transaction has its
//! reply first: what that did not settle is held or removed then.
//!
//! An order lives as long as the worker has the mail in hand; who gives it asks the scheduler and the
//! store afterwards, so that nothing slips through between two places.

use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::hand::Hand;
use super::{Attempt, Relay};
use crate::mail::RecipientKey;
use crate::queue::{Operation, QueueError};
use crate::schedule::{Job, Lane};

/// Something that an operator wants done to a recipient.
pub(super) type Order = (RecipientKey, Operation);

impl Relay {
    /// Takes away from workers what they have sent nothing of, and tells them of the rest. What it
    /// returns stays leased until it is operated on, or put back.
    #[must_use = "what is taken and not settled waits for the next start"]
    pub fn take_from_workers(&self, op: Operation, keys: &[RecipientKey]) -> Vec<(Arc<Lane>, Job)> {
        let wanted: HashSet<RecipientKey> = keys.iter().copied().collect();
        let mut taken = self.recall_lent(&mut |key| wanted.contains(&key));
        self.hands.lock().retain(|hand| match hand.upgrade() {
            Some(hand) => {
                hand.order(op, &wanted);
                true
            }
            None => false,
        });
        // What was in hand before and is lent now.
        taken.extend(self.recall_lent(&mut |key| wanted.contains(&key)));
        // What a worker gave back in the meantime waits again.
        taken.extend(self.scheduler.withdraw(keys));
        taken
    }

    fn recall_lent(&self, wanted: &mut dyn FnMut(RecipientKey) -> bool) -> Vec<(Arc<Lane>, Job)> {
        let of = |lane: Arc<Lane>| {
            let jobs = lane.recall(wanted);
            jobs.into_iter().map(move |job| (lane.clone(), job))
        };
        self.scheduler.lanes().into_iter().flat_map(of).collect()
    }

    /// At the end: takes back what waits for connections that are being opened. Nothing of it was sent, so nothing
    /// of it has to be finished, and a host that says nothing keeps neither a stop nor a reload.
    pub fn leave_connecting(&self) {
        let taken = self.recall_lent(&mut |_| true);
        if !taken.is_empty() {
            self.scheduler.put_back(taken);
        }
    }

    /// The same of transactions whose host has said nothing for so long: nothing of their mail is out.
    pub fn leave_silent(&self, least: Duration) {
        let left: usize = self.scheduler.lanes().iter().map(|lane| lane.leave_silent(least)).sum();
        if left > 0 {
            tracing::info!(
                transactions = left,
                "hosts that say nothing were left before their messages: they are tried again"
            );
        }
    }

    pub(super) fn register(&self, hand: &Arc<Hand>) {
        let mut hands = self.hands.lock();
        if hands.len() == hands.capacity() {
            hands.retain(|hand: &Weak<Hand>| hand.strong_count() > 0);
        }
        hands.push(Arc::downgrade(hand));
    }

    /// Before MAIL: does what was ordered about the recipients of an attempt. True if none is left, and
    /// the worker has nothing in hand any more.
    pub(super) async fn obey(&self, hand: &Hand, attempt: &mut Attempt) -> bool {
        let orders = hand.take_orders();
        if orders.is_empty() {
            return false;
        }
        let (lane, job) = (&hand.lane, &mut attempt.job);
        let id = job.message.message.id;
        let ordered = |index: u32, op: Operation| orders.contains(&(RecipientKey { id, index }, op));
        for op in [Operation::Hold, Operation::Cancel] {
            let (go, stay) = std::mem::take(&mut job.recipients).into_iter().partition(|held| ordered(held.index, op));
            job.recipients = stay;
            if !go.is_empty() {
                let mut going = job.without_recipients();
                going.recipients = go;
                let keys: Vec<RecipientKey> = going.recipients.iter().map(|held| going.key(held.index)).collect();
                // Not with the worker any more, whatever becomes of the order.
                lane.settled(keys.len());
                self.operate(op, vec![(lane.clone(), going)], &keys).await;
            }
        }
        let others = orders.into_iter().filter(|(key, _)| key.id != id).collect();
        self.carry_out(others).await;
        if attempt.job.recipients.is_empty() {
            hand.empty();
            return true;
        }
        hand.hold_rest(&attempt.job);
        false
    }

    /// Does what was ordered about mail that is not in hand any more: it was put off, or given back.
    pub(super) async fn carry_out(&self, orders: Vec<Order>) {
        for op in [Operation::Hold, Operation::Cancel] {
            let keys: Vec<RecipientKey> =
                orders.iter().filter(|(_, wanted)| *wanted == op).map(|(key, _)| *key).collect();
            if !keys.is_empty() {
                let taken = self.scheduler.withdraw(&keys);
                self.operate(op, taken, &keys).await;
            }
        }
    }

    async fn operate(&self, op: Operation, taken: Vec<(Arc<Lane>, Job)>, keys: &[RecipientKey]) {
        let of = |job: &Job| job.recipients.iter().map(|held| job.key(held.index)).collect::<Vec<_>>();
        let withdrawn: Vec<RecipientKey> = taken.iter().flat_map(|(_, job)| of(job)).collect();
        match self.queue.operate(op, keys, &withdrawn, self.clock.now()).await {
            Ok(changed) => tracing::info!(recipients = changed, operation = ?op, "done after what was under way"),
            // The leases end with the queue.
            Err(QueueError::Closed) => {}
            Err(error) => {
                tracing::error!(%error, operation = ?op, "an operator's order could not be stored: the mail is tried again");
                self.scheduler.put_back(taken);
            }
        }
    }
}
