//! The last gate of a `[sandbox]`: what was in the queue before there was one, or came in another way, does not leave.

use super::record::Attempt;
use super::{Hand, Relay};
use crate::mail::RecipientKey;
use crate::observe::seldom;
use crate::queue::Operation;

impl Relay {
    /// Holds what the sandbox does not let out. True: the worker has nothing in hand any more.
    pub(super) async fn stays_in_sandbox(&self, hand: &Hand, attempt: &mut Attempt) -> bool {
        let Some(sandbox) = &self.config.sandbox else { return false };
        let out = |recipient: &crate::schedule::Held| sandbox.lets_out(&recipient.recipient.address);
        if attempt.job.recipients.iter().all(out) {
            return false;
        }
        hand.not_needed(&mut attempt.job);
        let mut job = attempt.job.without_recipients();
        let (leaves, stays) = std::mem::take(&mut attempt.job.recipients).into_iter().partition(out);
        job.recipients = leaves;
        let keys: Vec<RecipientKey> = Vec::from_iter(stays).iter().map(|held| job.key(held.index)).collect();
        if let Some(times) = seldom("sandbox", hand.lane.name.base()) {
            let (provider, recipients) = (hand.lane.name.base(), keys.len());
            tracing::warn!(
                provider,
                recipients,
                times,
                "mail that was in the queue is held: the sandbox does not let it out"
            );
        }
        let now = self.clock.now();
        let hold = || async { self.queue.operate(Operation::Hold, &keys, &keys, now).await.map(drop) };
        if let Err(error) = self.persist(hold).await {
            // Its lease ends with the queue, and until then nobody sends it.
            tracing::error!(%error, "what the sandbox does not let out could not be held; it is looked at again after the next start");
        }
        hand.lane.settled(keys.len());
        hand.empty();
        if !job.recipients.is_empty() {
            self.scheduler.wake(&hand.lane, hand.lane.give_back(job));
        }
        true
    }
}
