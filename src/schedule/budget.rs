//! The memory budget (`[queue] memory`): whoever keeps something in memory holds a ticket for it.
//!
//! Invariant 5: the sum of the tickets never exceeds the limit, so memory does not grow with the
//! backlog. Who gets no ticket leaves the thing in the queue and reads it when its turn comes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number of bytes that may be used at once.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    used: AtomicU64,
}

impl Budget {
    /// `limit` in bytes.
    pub fn new(limit: u64) -> Arc<Budget> {
        Arc::new(Budget { limit, used: AtomicU64::new(0) })
    }

    /// A ticket for `bytes`, unless that would exceed the limit.
    pub fn reserve(self: &Arc<Budget>, bytes: u64) -> Option<Ticket> {
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= self.limit)
            })
            .ok()
            .map(|_| Ticket { budget: self.clone(), bytes })
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

/// Bytes of the budget, returned on drop.
#[must_use = "a dropped ticket returns its bytes"]
#[derive(Debug)]
pub struct Ticket {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_gives_more_than_the_limit_and_takes_back() {
        let budget = Budget::new(100);
        let a = budget.reserve(60).expect("fits");
        assert!(budget.reserve(41).is_none());
        let b = budget.reserve(40).expect("fits exactly");
        assert_eq!(budget.used(), 100);
        drop(a);
        assert!(budget.reserve(61).is_none());
        drop(b);
        assert_eq!(budget.used(), 0);
        assert!(budget.reserve(u64::MAX).is_none());
    }
}
