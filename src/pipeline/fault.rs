//! What becomes of a job whose worker panicked: a fault of mailweir itself.
//!
//! It costs one attempt, neither the recipient nor the lane. A message at which it happens twice in
//! a row would do it at every attempt, so it is put aside for an operator instead of being retried
//! for ever. That it happened before is read from the reason that the queue keeps for the recipient,
//! so it is known after a restart, too.

use std::sync::Arc;

use super::record::Attempt;
use super::{Hand, Relay};
use crate::deliver::{Event, Fact, Stage};
use crate::mail::{QueueId, RecipientKey};
use crate::queue::Filter;

/// The reason that is stored the first time.
const FAULT: &str = "a fault of mailweir itself";

impl Relay {
    /// A worker panicked: what it had in hand goes back to the queue, or nobody would try it again
    /// before a restart. If that panics too, or it is not the first time, it is put aside.
    pub(super) async fn after_fault(self: &Arc<Self>, hand: &Hand) {
        let Some(mut job) = hand.take() else { return };
        hand.not_needed(&mut job);
        let id = job.message.message.id;
        tracing::error!(%id, provider = hand.lane.name.base(), "a fault of mailweir itself ended this attempt: please report it");
        let keys: Vec<RecipientKey> = job.recipients.iter().map(|held| job.key(held.index)).collect();
        let (again, others) = self.at_fault_before(id, &keys).await;
        if !again.is_empty() {
            hand.lane.settled(again.len());
            self.put_aside(&again, "it has made mailweir fail twice").await;
            job.recipients.retain(|held| !again.contains(&RecipientKey { id, index: held.index }));
        }
        if others.is_empty() {
            return;
        }
        let mut attempt = Attempt::new(job, self.clock.now());
        attempt.everyone(Fact { stage: Stage::Mail, event: Event::Local(FAULT.into()), peer: None });
        let settled = tokio::spawn({
            let (relay, lane) = (self.clone(), hand.lane.clone());
            async move { relay.settle(&lane, attempt, None).await }
        });
        if settled.await.is_err() {
            // Whatever it is about this message, it would happen at every attempt.
            hand.lane.settled(others.len());
            self.put_aside(&others, "mailweir cannot handle its outcome").await;
        }
    }

    /// Those whose last attempt ended the same way, and the others. Of a queue that cannot say, nobody.
    async fn at_fault_before(&self, id: QueueId, keys: &[RecipientKey]) -> (Vec<RecipientKey>, Vec<RecipientKey>) {
        let mut again = Vec::new();
        let filter = Filter { id: Some(id.to_string()), ..Filter::default() };
        for key in keys {
            let before = key.index.checked_sub(1).map(|index| RecipientKey { id, index });
            let Ok(page) = self.queue.inspect(&filter, before, 1).await else { break };
            again.extend(
                page.rows.iter().filter(|(at, _, row)| at == key && row.reason.ends_with(FAULT)).map(|row| row.0),
            );
        }
        let others = keys.iter().filter(|key| !again.contains(key)).copied().collect();
        (again, others)
    }
}
