//! Senders that share a slot: whose turn is when in the queue.
//!
//! In memory every sender has turns of its own; the queue tells [64](super::SLOTS) slots of them apart, and a
//! slot gives out what it has by due time. So what is new of one sender would wait behind all that another one
//! of its slot has there, however much that is. Instead, a message that waits in the lane of a provider is due
//! with one that waits there already: the first of a sender with the first that waits, each further one with
//! the first behind that one. So it leaves as if the two took turns, in the order of the index there is, and
//! what is due says nothing new: all of it is due already.
//!
//! Invariants:
//! - Nothing is due later than it would be, nor before what waits there now: who invents senders has one turn
//!   for each, and holds up nobody who waits.
//! - Between a message and the next one of its sender there is what others of the slot have of one due time
//!   (a millisecond of what came in); without such, what is new stands last.
//! - At most [`KNOWN`] senders are remembered, only while somebody else of their slot waits. Of one who is not,
//!   a message may leave before its own earlier ones, once.
//!
//! Not for the lanes of domains, whose turns are gone through once (`turns`): what is due before that place
//! would be come to late. Nor for what was tried: it is due when its retry is.

use std::collections::HashMap;

use parking_lot::Mutex;
use rusqlite::{OptionalExtension, params};

use super::store::Store;
use super::{rows, sql};
use crate::clock::Timestamp;
use crate::mail::{LaneName, Message};

/// Senders of lanes and priorities that are remembered.
const KNOWN: usize = 1024;

/// Who: the lane, the bucket, and which of its senders.
type Who = (LaneName, i64, u64);

/// When the last message of each is due.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    last: Mutex<HashMap<Who, i64>>,
}

impl Neighbours {
    fn last(&self, who: &Who) -> Option<i64> {
        self.last.lock().get(who).copied()
    }

    /// Remembers one; of too many the half whose turn was longest ago is forgotten.
    fn note(&self, who: Who, due: i64) {
        let mut last = self.last.lock();
        if last.len() >= KNOWN && !last.contains_key(&who) {
            let mut all: Vec<i64> = last.values().copied().collect();
            all.sort_unstable();
            let middle = all.get(KNOWN / 2).copied().unwrap_or(due);
            last.retain(|_, due| *due > middle);
        }
        last.insert(who, due);
    }
}

impl Store<'_> {
    /// When a message that will wait in `lane` is due there, so that its sender has its turn.
    pub(super) fn turn(&mut self, message: &Message, bucket: i64, lane: &LaneName) -> rusqlite::Result<Timestamp> {
        if lane.as_domain().is_some() {
            return Ok(message.received);
        }
        let who = (lane.clone(), bucket, rows::identity(message.envelope.sender()));
        let last = self.neighbours.last(&who);
        let next = self.statement(sql::NEXT_IN_BUCKET)?;
        let behind = last.unwrap_or(i64::MIN);
        let next: Option<(i64, i64)> =
            next.query_row(params![lane.as_str(), bucket, behind], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        // Of a sender that is not known the first that waits may be its own.
        let of_another = |store: &mut Self, id: i64| -> rusqlite::Result<bool> {
            let sender = store.statement(sql::SENDER)?.query_row([id], |row| row.get::<_, String>(0)).optional()?;
            Ok(sender.is_some_and(|sender| rows::identity(&sender) != who.2))
        };
        let due = match next {
            Some((due, id)) if last.is_some() || of_another(self, id)? => due.min(message.received.0),
            _ => message.received.0,
        };
        if next.is_some() || last.is_some() {
            self.neighbours.note(who, due);
        }
        Ok(Timestamp(due))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Clock;
    use crate::mail::{Address, BodyTraits, Envelope, NewMessage, NewRecipient, Origin, QueueId, Recipient};
    use crate::queue::sqlite::InlineQueue;
    use crate::queue::{Leases, Spool};

    /// So many senders of one slot.
    fn of_one_slot(count: usize) -> Vec<String> {
        let all = (0..).map(|n: u32| format!("news@s{n}.example"));
        all.filter(|sender| rows::slot(sender) == 7).take(count).collect()
    }

    struct Rig {
        queue: Arc<InlineQueue>,
        lane: LaneName,
        /// Which message of its sender is next, by id.
        accepted: u32,
    }

    impl Rig {
        fn new(lane: &str) -> Rig {
            let queue = InlineQueue::open(Clock::for_tests()).unwrap();
            Rig { queue, lane: LaneName::from(lane), accepted: 0 }
        }

        /// A message of `sender` that was received at `at` ms.
        async fn accept(&mut self, sender: &str, at: i64) {
            self.accepted += 1;
            let message = Arc::new(Message {
                id: QueueId(i64::from(self.accepted)),
                received: Timestamp(at),
                envelope: Envelope { reverse_path: Address::parse(sender).ok(), ..Envelope::default() },
                origin: Origin::Local,
                size: 1,
                traits: BodyTraits::default(),
            });
            let recipient = Recipient::new(Address::parse("to@x.example").unwrap());
            let recipients = vec![NewRecipient { recipient, lane: self.lane.clone(), leased: false, held: None }];
            self.queue.accept(NewMessage { message, recipients, head: Bytes::from_static(b"x") }).await.unwrap();
        }

        /// The next few that leave: sender and number.
        async fn claim(&self, now: i64, limit: usize) -> Vec<(String, i64)> {
            let leased = self.queue.claim(&self.lane, Timestamp(now), limit).await.unwrap();
            assert!(leased.iter().all(|l| l.due <= l.message.received), "never later than it came");
            leased.into_iter().map(|l| (l.message.envelope.sender().to_owned(), l.key.id.0)).collect()
        }

        async fn all(&self, now: i64) -> Vec<(String, i64)> {
            let mut all = Vec::new();
            loop {
                let some = self.claim(now, 16).await;
                if some.is_empty() {
                    return all;
                }
                all.extend(some);
            }
        }
    }

    fn places(order: &[(String, i64)], sender: &str) -> Vec<usize> {
        (0..).zip(order).filter(|(_, (of, _))| of == sender).map(|(at, _)| at).collect()
    }

    #[tokio::test]
    async fn two_senders_of_one_slot_take_turns_in_the_queue() {
        let (mut rig, senders) = (Rig::new("provider"), of_one_slot(3));
        for n in 0..1000 {
            rig.accept(&senders[0], 1000 + n / 2).await;
        }
        for n in 0..10 {
            rig.accept(&senders[1], 9000 + n).await;
            rig.accept(&senders[2], 9000 + n).await;
        }
        rig.accept(&senders[0], 9100).await;
        let order = rig.all(10_000).await;
        assert_eq!(order.len(), 1021);
        for sender in &senders[1..] {
            // Two messages of the first came in each millisecond; without turns, behind all 1,000.
            let places = places(&order, sender);
            assert!((1..).zip(&places).all(|(nth, place)| *place <= 4 * nth), "{places:?}");
        }
        assert_eq!(order.last().unwrap().0, senders[0], "its own new mail is behind its old");
    }

    #[tokio::test]
    async fn lanes_of_domains_and_senders_alone_are_as_they_were() {
        for (lane, others) in [("@x.example", 3), ("provider", 1)] {
            let (mut rig, senders) = (Rig::new(lane), of_one_slot(others));
            for n in 0..50 {
                rig.accept(&senders[usize::try_from(n).unwrap() % others], n).await;
            }
            let ids: Vec<i64> = rig.all(1000).await.into_iter().map(|(_, id)| id).collect();
            assert!(ids.is_sorted(), "{ids:?}");
        }
    }

    #[test]
    fn no_more_senders_are_remembered_than_may_be() {
        let (neighbours, who) = (Neighbours::default(), |n: u64| (LaneName::from("p"), 1, n));
        (0..5000).for_each(|n| neighbours.note(who(n), i64::try_from(n).unwrap()));
        assert!(neighbours.last.lock().len() <= KNOWN);
        assert_eq!((neighbours.last(&who(4999)), neighbours.last(&who(0))), (Some(4999), None));
    }

    proptest! {
        /// Whoever sends and whenever, and whatever is claimed meanwhile: everything leaves, each sender's in
        /// its order, and the first of a sender who has nothing there behind no more than came in within one
        /// millisecond of each other one.
        #[test]
        fn nobody_waits_for_all_of_another(
            steps in proptest::collection::vec((0usize..4, 1usize..30, 0usize..6, 1i64..20), 1..40)
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let (mut rig, senders, mut now) = (Rig::new("provider"), of_one_slot(4), 0);
                let (mut waiting, mut left) = (vec![0usize; 4], Vec::new());
                // How many others left since the first of each came; at most three came in one millisecond.
                let mut since: Vec<Option<usize>> = vec![None; 4];
                for (sender, messages, claims, pass) in steps {
                    for n in 0..messages {
                        if waiting[sender] == 0 {
                            since[sender] = Some(0);
                        }
                        rig.accept(&senders[sender], now + i64::try_from(n / 3).unwrap()).await;
                        waiting[sender] += 1;
                    }
                    now += 10 + pass;
                    for _ in 0..claims {
                        for (of, id) in rig.claim(now, 1).await {
                            let of = senders.iter().position(|s| *s == of).unwrap();
                            waiting[of] -= 1;
                            since[of] = None;
                            since.iter_mut().flatten().for_each(|passed| *passed += 1);
                            left.push((of, id));
                        }
                        // Three of each other sender, and once more those that share their millisecond.
                        assert!(since.iter().flatten().all(|passed| *passed <= 3 * 4 * 3), "{since:?}");
                    }
                }
                for (of, id) in rig.all(now).await {
                    left.push((senders.iter().position(|s| *s == of).unwrap(), id));
                }
                assert_eq!(left.len(), usize::try_from(rig.accepted).unwrap());
                for sender in 0..4 {
                    assert!(left.iter().filter(|(of, _)| *of == sender).map(|(_, id)| id).is_sorted());
                }
            });
        }
    }
}
