//! Logins of one network are checked one behind the other: of many that come at once none is looked at before it is
//! known what became of the ones before, so that nobody has more guesses by guessing at the same time. Those of a name
//! that has logged in well from there stand in a line of its own.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// See the module. There is an entry for each network with a login under way.
#[derive(Default)]
pub(super) struct Turns {
    lines: Mutex<HashMap<Line, Arc<Semaphore>>>,
}

/// A network, and the code of a name that is known there.
type Line = (IpAddr, Option<u64>);

/// The right to have a login checked, until it is dropped.
pub(in crate::listener) struct Turn {
    turns: Arc<Turns>,
    line: Line,
    permit: Option<OwnedSemaphorePermit>,
}

impl Turns {
    /// Waits for the turn of one more login of this network, or of one name there; they come in the order in which
    /// they asked.
    pub async fn wait(self: &Arc<Turns>, network: IpAddr, name: Option<u64>) -> Turn {
        let line = (network, name);
        let one = self.lines.lock().entry(line).or_insert_with(|| Arc::new(Semaphore::new(1))).clone();
        // Made before the wait, so that an entry goes with the last one that waited, too.
        let mut turn = Turn { turns: self.clone(), line, permit: None };
        // It is never closed.
        turn.permit = one.acquire_owned().await.ok();
        turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.permit = None;
        let mut lines = self.turns.lines.lock();
        if lines.get(&self.line).is_some_and(|line| Arc::strong_count(line) == 1) {
            lines.remove(&self.line);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_login_of_a_network_has_its_turn_and_nothing_is_left_behind() {
        let (turns, one, other) = (Arc::new(Turns::default()), [192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        let first = turns.wait(one, None).await;
        let soon = Duration::from_secs(1);
        assert!(timeout(soon, turns.wait(one, None)).await.is_err(), "it is the turn of another");
        drop(timeout(soon, turns.wait(other, None)).await.expect("another network"));
        drop(timeout(soon, turns.wait(one, Some(7))).await.expect("a name that is known there"));
        let second = tokio::spawn({
            let turns = turns.clone();
            async move { drop(turns.wait(one, None).await) }
        });
        tokio::task::yield_now().await;
        assert_eq!(turns.lines.lock().len(), 1);
        drop(first);
        second.await.expect("its turn");
        assert!(turns.lines.lock().is_empty());
    }
}
