//! Where conversions work and what they may hold.
//!
//! Invariants:
//! - What takes CPU runs on threads of its own, never on those of the sessions; at most [`at_once`]
//!   in the whole process, whatever the number of relays (a reload makes another). Each
//!   run is one chunk, so turns are short, a large message holds up no small one, and what is
//!   dropped (a cut-off, a reload) is over within a chunk. Conversions rest as long as they work.
//! - A conversion holds a ticket from before it reads until its transaction is over: one of the memory
//!   budget, else one of a few that are set aside, so that a backlog that fills the budget cannot
//!   keep from leaving what it waits for.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::mail::LaneName;
use crate::mail::convert::limits::TICKET;
use crate::schedule::budget::{Budget, Ticket};

/// Conversions of messages that do not share a turn.
static CONVERSIONS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(at_once())));

/// Messages that are signed do not share a turn either.
static SIGNATURES: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(at_once())));

/// Of half of the processors: the others are left to everything else.
fn at_once() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get() / 2).max(1)
}

/// How long conversions have worked without a rest, in microseconds.
static WORKED: AtomicU64 = AtomicU64::new(0);

/// Conversions rest when they have worked for this long.
const REST_AFTER: Duration = Duration::from_millis(4);

/// The right to run something once.
#[must_use = "a dropped turn is another's"]
pub(super) struct Turn {
    began: Instant,
    turn: OwnedSemaphorePermit,
    /// A signature takes a millisecond at most, and every message of a domain needs one: no rest.
    rests: bool,
}

impl Turn {
    /// Waits for it, in order of arrival. Chunks are read when their turn has come: nothing waits in memory.
    ///
    /// # Errors
    /// The process is ending.
    pub(super) async fn next() -> Result<Turn, String> {
        CONVERSIONS
            .clone()
            .acquire_owned()
            .await
            .map(|turn| Turn { began: Instant::now(), turn, rests: true })
            .map_err(|_| ending())
    }

    /// The same to sign: these have turns of their own, so that a message to be converted holds up none that is not.
    ///
    /// # Errors
    /// The process is ending.
    pub(super) async fn to_sign() -> Result<Turn, String> {
        let turn = SIGNATURES.clone().acquire_owned().await;
        turn.map(|turn| Turn { began: Instant::now(), turn, rests: false }).map_err(|_| ending())
    }

    /// Runs `work` away from the sessions. A panic in it is one of the caller.
    ///
    /// # Errors
    /// The process is ending.
    pub(super) async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
        // The turn ends with the work, also when nobody waits for it any more.
        let done = tokio::task::spawn_blocking(move || {
            let turn = self;
            (work(), turn)
        });
        match done.await {
            Ok((result, turn)) => {
                if turn.rests {
                    turn.rest();
                }
                Ok(result)
            }
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(ending()),
        }
    }
}

impl Turn {
    /// The next turn comes at once, or, after some work, when it has rested for as long: however many
    /// messages wait to be converted, half of the time of those processors is left, too.
    fn rest(self) {
        let worked = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let worked = Duration::from_micros(WORKED.fetch_add(worked, Ordering::Relaxed).saturating_add(worked));
        if worked >= REST_AFTER {
            WORKED.store(0, Ordering::Relaxed);
            tokio::spawn(async move {
                tokio::time::sleep(worked.min(LONGEST_REST)).await;
                drop(self.turn);
            });
        }
    }
}

/// A read that waited for the disk is not answered by as long a rest.
const LONGEST_REST: Duration = Duration::from_millis(20);

fn ending() -> String {
    "shutting down".to_owned()
}

/// Bytes of a memory budget of `memory` bytes that are set aside for conversions: an eighth, but at
/// least four tickets if that is not more than half of it, and one in any case.
pub(crate) fn set_aside(memory: u64) -> u64 {
    (memory / 8).max((4 * TICKET).min(memory / 2)).max(TICKET).min(memory)
}

/// How many tickets that are.
fn many(memory: u64) -> usize {
    usize::try_from(set_aside(memory) / TICKET).unwrap_or(usize::MAX).clamp(1, Semaphore::MAX_PERMITS)
}

/// The tickets of conversions.
pub(super) struct Tickets {
    budget: Arc<Budget>,
    set_aside: Arc<Semaphore>,
    /// One of those that are set aside at most for each lane: hosts of one that are slow to read keep
    /// none from the others.
    lanes: Mutex<HashMap<LaneName, Weak<Semaphore>>>,
}

/// Lanes remembered before those without a ticket are forgotten.
const LANES: usize = 64;

/// The right to hold [`TICKET`] bytes.
#[must_use = "a dropped ticket returns its bytes"]
pub(super) enum Held {
    Budget(#[allow(dead_code, reason = "returned on drop")] Ticket),
    SetAside(#[allow(dead_code, reason = "returned on drop")] [OwnedSemaphorePermit; 2]),
}

impl Tickets {
    /// `budget` is what is left of `memory` bytes without [`set_aside`].
    pub(super) fn new(budget: Arc<Budget>, memory: u64) -> Tickets {
        let many = many(memory);
        Tickets { budget, set_aside: Arc::new(Semaphore::new(many)), lanes: Mutex::default() }
    }

    /// A ticket for a message of this lane, in order of arrival once the budget has none.
    ///
    /// # Errors
    /// The process is ending.
    pub(super) async fn get(&self, lane: &LaneName) -> Result<Held, String> {
        if let Some(ticket) = self.budget.reserve(TICKET) {
            return Ok(Held::Budget(ticket));
        }
        let of_lane = self.of(lane).acquire_owned().await.map_err(|_| ending())?;
        let permit = self.set_aside.clone().acquire_owned().await.map_err(|_| ending())?;
        Ok(Held::SetAside([permit, of_lane]))
    }

    fn of(&self, lane: &LaneName) -> Arc<Semaphore> {
        let mut lanes = self.lanes.lock();
        if let Some(one) = lanes.get(lane).and_then(Weak::upgrade) {
            return one;
        }
        if lanes.len() >= LANES {
            lanes.retain(|_, one| one.strong_count() > 0);
        }
        let one = Arc::new(Semaphore::new(1));
        lanes.insert(lane.clone(), Arc::downgrade(&one));
        one
    }
}

#[cfg(test)]
mod tests {
    use futures_like::now_or_never;

    use super::*;

    mod futures_like {
        use std::future::Future;
        use std::pin::pin;
        use std::task::{Context, Poll, Waker};

        pub(super) fn now_or_never<T>(future: impl Future<Output = T>) -> Option<T> {
            match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(value) => Some(value),
                Poll::Pending => None,
            }
        }
    }

    #[test]
    fn tickets_never_add_up_to_more_than_the_memory_and_a_full_budget_leaves_some() {
        for memory in [1 << 20, 8 << 20, 256 << 20] {
            let budget = Budget::new(memory - set_aside(memory));
            let tickets = Tickets::new(budget.clone(), memory);
            let mut held = Vec::new();
            let lane = |n: usize| LaneName::domain(&format!("d{n}.example"));
            while let Some(Ok(ticket)) = now_or_never(tickets.get(&lane(held.len()))) {
                held.push(ticket);
                assert!(held.len() as u64 * TICKET <= memory, "{} tickets of {memory}", held.len());
            }
            assert!(held.len() as u64 + 2 >= memory / TICKET);
            drop(held);
            assert_eq!(budget.used(), 0);
            // The backlog has taken all.
            let _backlog = budget.reserve(memory - set_aside(memory)).expect("all of it");
            let first = now_or_never(tickets.get(&lane(0))).expect("one is set aside");
            assert!(matches!(first, Ok(Held::SetAside(_))));
            assert!(now_or_never(tickets.get(&lane(0))).is_none(), "one for each lane");
            let others = (1..many(memory))
                .map(|n| now_or_never(tickets.get(&lane(n))))
                .filter(|ticket| ticket.is_some())
                .collect::<Vec<_>>();
            assert_eq!(others.len(), many(memory) - 1);
            assert!(now_or_never(tickets.get(&lane(400))).is_none(), "all are given");
            drop(others);
            for n in 1..500 {
                tickets.of(&lane(n));
            }
            assert!(tickets.lanes.lock().len() <= LANES);
            drop(first);
            assert!(now_or_never(tickets.get(&lane(0))).is_some());
        }
    }

    #[tokio::test]
    async fn a_panic_is_the_callers_and_gives_the_turn_back() {
        for _ in 0..at_once() + 1 {
            let turn = Turn::next().await.expect("a turn");
            let fault = tokio::spawn(turn.run(|| panic!("a fault on purpose")));
            assert!(fault.await.is_err_and(|e| e.is_panic()));
        }
        let turn = Turn::next().await.expect("a turn");
        assert_eq!(turn.run(|| 7).await, Ok(7));
    }
}
