//! The way of commands to the relay, which is closed while one relay has closed its queue and the next one
//! has not opened it: whoever comes then waits for the next one instead of hearing of a closed queue.
//!
//! Bounded on both sides: a command waits for [`PATIENCE`] at most, and a reload for [`LEAVE`] for those that
//! are inside.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// How long a command waits for the next relay. Less than a command waits for an answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(40);
/// How long a reload waits for commands in progress: a pager that stands still must not keep the relay closed.
const LEAVE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Default)]
struct State {
    closed: bool,
    inside: usize,
}

/// See the module.
#[derive(Clone)]
pub(super) struct Gate {
    state: Arc<watch::Sender<State>>,
}

/// A command is inside as long as it has this.
pub(super) struct Inside {
    gate: Gate,
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.gate.state.send_modify(|state| state.inside -= 1);
    }
}

impl Default for Gate {
    fn default() -> Gate {
        Gate { state: Arc::new(watch::Sender::new(State::default())) }
    }
}

impl Gate {
    /// Goes in as soon as it is open; `None`: it was not in time.
    pub(super) async fn enter(&self) -> Option<Inside> {
        let mut seen = self.state.subscribe();
        let enter = async {
            loop {
                let entered = self.state.send_if_modified(|state| {
                    state.inside += usize::from(!state.closed);
                    !state.closed
                });
                if entered {
                    return Inside { gate: self.clone() };
                }
                // Never an error: the sender is ours.
                let _ = seen.wait_for(|state| !state.closed).await;
            }
        };
        timeout(PATIENCE, enter).await.ok()
    }

    /// Lets nobody in any more, and those inside out.
    pub(super) async fn close(&self) {
        self.state.send_modify(|state| state.closed = true);
        let mut seen = self.state.subscribe();
        let _ = timeout(LEAVE, seen.wait_for(|state| state.inside == 0)).await;
    }

    /// Lets everybody in again.
    pub(super) fn open(&self) {
        self.state.send_modify(|state| state.closed = false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_comes_while_it_is_closed_waits_until_it_opens() {
        let gate = Gate::default();
        drop(gate.enter().await.expect("open"));
        gate.close().await;
        let waiting = tokio::spawn({
            let gate = gate.clone();
            async move { gate.enter().await.is_some() }
        });
        tokio::time::sleep(PATIENCE / 2).await;
        assert!(!waiting.is_finished());
        gate.open();
        assert!(waiting.await.expect("no panic"));
        gate.close().await;
        assert!(gate.enter().await.is_none(), "not for ever");
    }

    #[tokio::test(start_paused = true)]
    async fn it_closes_behind_those_inside_and_does_not_wait_for_them_for_ever() {
        let gate = Gate::default();
        let (first, second) = (gate.enter().await, gate.enter().await);
        let closing = tokio::spawn({
            let gate = gate.clone();
            async move { gate.close().await }
        });
        tokio::time::sleep(LEAVE / 2).await;
        drop(first);
        tokio::time::sleep(LEAVE / 4).await;
        assert!(!closing.is_finished(), "one is inside");
        drop(second);
        closing.await.expect("closed");
        gate.open();
        let _stays = gate.enter().await.expect("open");
        let begun = tokio::time::Instant::now();
        gate.close().await;
        assert_eq!(begun.elapsed(), LEAVE);
    }
}
