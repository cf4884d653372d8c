//! What every queue backend promises, as one suite: `suite!(NAME, OPEN)` makes a module with one for each part of the
//! queue, and in it a test for each promise. `OPEN` gives a [`Rig`] over an empty store.

#![allow(dead_code, reason = "shared between test programs that use parts of it")]

pub mod claims;
pub mod debts;
pub mod later;
pub mod life;
pub mod look;
pub mod model;
pub mod values;

use std::any::Any;
use std::sync::Arc;

use bytes::Bytes;
use mailweir::clock::{Clock, Timestamp};
use mailweir::mail::{
    Address, BodyTraits, CHUNK, Envelope, LaneName, Message, NewMessage, NewRecipient, Origin, QueueId, Recipient,
    RecipientKey,
};
use mailweir::queue::sqlite::InlineQueue;
use mailweir::queue::{Filter, Queue, QueueError, Row, Settlement, Verdict};

/// Some time in 2026.
pub const T0: Timestamp = Timestamp(1_790_000_000_000);

/// A queue under test, and how to open the same store again.
pub struct Rig {
    pub queue: Arc<dyn Queue>,
    pub open: Box<dyn Fn() -> Result<Arc<dyn Queue>, QueueError> + Send + Sync>,
    /// Whatever has to live as long as the store.
    pub keep: Box<dyn Any + Send + Sync>,
}

impl Rig {
    /// Closes the queue in good order and opens it again.
    pub async fn reopen(&mut self) {
        self.queue.close().await;
        self.queue = (self.open)().expect("a closed store can be opened");
    }

    /// Drops the queue without closing it and opens it as soon as it lets go of the store.
    pub async fn drop_and_reopen(&mut self) {
        self.queue = InlineQueue::open(Clock::System).expect("a queue that stands in while there is none");
        for _ in 0..1_000_000 {
            match (self.open)() {
                Err(QueueError::InUse(_)) => tokio::task::yield_now().await,
                other => {
                    self.queue = other.expect("a dropped store can be opened");
                    return;
                }
            }
        }
        panic!("the dropped queue never let go of the store");
    }
}

/// A message to be, with what a test cares about.
#[derive(Clone)]
pub struct Letter {
    pub sender: String,
    pub recipients: Vec<(String, LaneName)>,
    pub priority: i8,
    pub received: Timestamp,
    pub leased: bool,
    pub held: Option<Arc<str>>,
    pub release: Option<Timestamp>,
    pub body: Vec<u8>,
}

/// A small letter from `sender` to one recipient in `lane`.
pub fn letter(sender: &str, lane: &str) -> Letter {
    Letter {
        sender: sender.into(),
        recipients: vec![("someone@there.example".into(), lane.into())],
        priority: 0,
        received: T0,
        leased: false,
        held: None,
        release: None,
        body: b"Subject: hello\r\n\r\nhello\r\n".to_vec(),
    }
}

impl Letter {
    pub fn to(mut self, recipients: &[(&str, &str)]) -> Letter {
        self.recipients = recipients.iter().map(|(address, lane)| ((*address).into(), (*lane).into())).collect();
        self
    }

    pub fn priority(mut self, priority: i8) -> Letter {
        self.priority = priority;
        self
    }

    pub fn received(mut self, at: Timestamp) -> Letter {
        self.received = at;
        self
    }

    /// It does not leave before.
    pub fn release(mut self, at: Timestamp) -> Letter {
        self.release = Some(at);
        self
    }

    pub fn leased(mut self) -> Letter {
        self.leased = true;
        self
    }

    pub fn body(mut self, body: Vec<u8>) -> Letter {
        self.body = body;
        self
    }

    /// As the queue takes it; the chunks after the first are the caller's to spill.
    pub fn build(&self, id: QueueId) -> NewMessage {
        let reverse_path = (!self.sender.is_empty()).then(|| Address::parse(&self.sender).expect("an address"));
        let envelope = Envelope { reverse_path, priority: self.priority, release: self.release, ..Envelope::default() };
        let message = Message {
            id,
            received: self.received,
            envelope,
            origin: Origin::Client {
                ip: [127, 0, 0, 1].into(),
                helo: "client.example".into(),
                listener: "inside".into(),
                user: "".into(),
            },
            size: self.body.len() as u64,
            traits: BodyTraits::default(),
        };
        let recipients = self.recipients.iter().map(|(address, lane)| NewRecipient {
            recipient: Recipient::new(Address::parse(address).expect("an address")),
            lane: lane.clone(),
            leased: self.leased,
            held: self.held.clone(),
        });
        NewMessage {
            message: Arc::new(message),
            recipients: recipients.collect(),
            head: Bytes::copy_from_slice(&self.body[..self.body.len().min(CHUNK)]),
        }
    }

    /// Stores it, spilling what is longer than a chunk.
    pub async fn post(&self, queue: &dyn Queue) -> QueueId {
        let id = queue.next_id(self.received);
        for (index, chunk) in (1u32..).zip(self.body.chunks(CHUNK).skip(1)) {
            queue.spill(id, index, Bytes::copy_from_slice(chunk)).await.expect("spill");
        }
        queue.accept(self.build(id)).await.expect("accept");
        id
    }
}

/// A key.
pub fn key(id: QueueId, index: u32) -> RecipientKey {
    RecipientKey { id, index }
}

/// The settlement of an upstream acceptance.
pub fn delivered(key: RecipientKey) -> Settlement {
    Settlement { key, verdict: Verdict::Delivered }
}

/// The settlement of a permanent failure.
pub fn failed(key: RecipientKey, reason: &str) -> Settlement {
    Settlement { key, verdict: Verdict::Failed { reason: reason.into() } }
}

/// The settlement of an attempt to be made again.
pub fn deferred(key: RecipientKey, due: Timestamp, lane: &str) -> Settlement {
    let verdict = Verdict::Deferred {
        due,
        reason: "451 later".into(),
        counts: true,
        uncertain: false,
        warned: false,
        lane: lane.into(),
    };
    Settlement { key, verdict }
}

/// All recipients that match, page by page.
pub async fn list(queue: &dyn Queue, filter: &Filter, page: usize) -> Vec<Row> {
    let (mut rows, mut after) = (Vec::new(), None);
    loop {
        let got = queue.inspect(filter, after, page).await.expect("inspect");
        assert!(got.rows.len() <= page);
        rows.extend(got.rows.into_iter().map(|(_, _, row)| row));
        after = got.next;
        if after.is_none() {
            return rows;
        }
    }
}

/// The one row of a recipient.
pub async fn row(queue: &dyn Queue, key: RecipientKey) -> Option<Row> {
    let filter = Filter { id: Some(key.id.to_string()), ..Filter::default() };
    list(queue, &filter, 100).await.into_iter().find(|row| row.index == key.index)
}

/// The whole stored body.
pub async fn body(queue: &dyn Queue, message: &Message) -> Vec<u8> {
    let mut body = Vec::new();
    for index in 0..message.chunks() {
        body.extend_from_slice(&queue.chunk(message.id, index).await.expect("chunk").expect("a chunk"));
    }
    body
}

/// One test per promise, by the part of the queue that makes it.
#[macro_export]
macro_rules! suite {
    ($backend:ident, $open:ident) => {
        mod $backend {
            $crate::suite!(@part spool, $open;
                life: stores_and_gives_back_every_field,
                life: refuses_what_makes_no_sense,
                life: what_is_held_from_the_start_waits_for_an_operator,
                life: big_bodies_are_spilled_and_read_in_chunks,
                life: unspilled_and_unaccepted_chunks_are_gone,
                life: ids_grow_over_restarts_and_clock_steps,
            );
            $crate::suite!(@part leases, $open;
                life: accepted_claimed_and_delivered_leaves_nothing,
                life: deferred_comes_back_when_due,
                life: a_deferral_without_a_reason_leaves_that_which_is_there,
                life: what_may_have_arrived_stays_uncertain_until_an_operator_decides,
                life: a_message_stays_as_long_as_a_recipient,
                life: settling_what_is_not_held_is_passed_over,
                life: all_leases_are_ended_at_once,
                claims: higher_priority_first,
                claims: a_stream_of_urgent_mail_leaves_the_others_a_share,
                claims: senders_take_turns,
                claims: what_is_not_due_stays,
                claims: lanes_are_apart,
                claims: the_oldest_of_a_lane_are_found_whatever_else_is_there,
                claims: short_bodies_come_along,
                claims: every_recipient_has_one_holder,
                later: what_waits_for_its_time_leaves_then,
                later: the_age_of_what_waited_counts_from_its_time,
            );
            $crate::suite!(@part lanes, $open;
                claims: lanes_are_listed_in_order_with_their_due_time,
                claims: a_lane_is_moved_in_steps,
                claims: domains_are_found_turn_by_turn_when_they_are_due,
            );
            $crate::suite!(@part debts, $open;
                debts: a_debt_is_there_with_the_fate_that_it_tells_of,
                debts: what_is_not_held_owes_nothing,
                debts: one_report_ends_many_debts,
                debts: a_report_is_stored_with_the_end_of_its_debts_or_not_at_all,
                debts: a_message_stays_until_its_report_is_made,
                debts: debts_are_found_in_order_of_their_due_time,
                debts: a_later_fate_is_owed_in_the_place_of_an_earlier_one,
                debts: what_may_have_its_fate_soon_is_under_way,
            );
            $crate::suite!(@part desk, $open;
                life: dead_letters_are_kept_then_forgotten,
                life: operations_follow_the_state_table,
                life: a_held_lease_is_left_alone_unless_withdrawn,
                claims: all_are_retried_in_steps,
                later: an_operator_changes_the_time_of_what_waits,
                later: a_retry_is_no_reason_to_leave_before,
                look: pages_cover_everything_once,
                look: every_filter_picks_its_own,
                look: what_waits_is_counted_by_lane_and_priority,
                look: counts_follow,
            );
            $crate::suite!(@part memory, $open;
                values: named_values_are_kept_replaced_and_removed,
                values: a_value_that_others_change_is_not_written_over_blindly,
                values: what_several_reserve_is_never_more_than_there_is,
            );
            $crate::suite!(@part upkeep, $open;
                life: a_restart_queues_what_was_leased,
                life: a_drop_without_close_loses_nothing,
                life: a_closed_queue_says_so,
            );
            $crate::suite!(@part whole, $open;
                model: random_operations_agree_with_a_model,
            );
        }
    };
    (@part $part:ident, $open:ident; $($module:ident: $name:ident,)*) => {
        mod $part {
            $(
                #[test]
                fn $name() {
                    $crate::contract::run($crate::contract::$module::$name, $crate::$open);
                }
            )*
        }
    };
}

/// Runs one promise on a runtime of its own.
pub fn run<F: Future<Output = ()>>(test: impl Fn(Rig) -> F, open: impl Fn() -> Rig) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(test(open()));
}
