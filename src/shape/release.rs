//! Giving up what gates have reserved of their quotas and not used, before they are forgotten and at
//! the end of the process: a new life of the gate would take it for used.
//!
//! A gate gives up its block in memory first and takes nothing from it any more, then the record
//! without the block is written. Whenever the process dies, the stored record counts at least what
//! was used. A gate is in memory until its record is durable, so that no second one of its name reads
//! the record before.

use std::sync::Arc;

use super::gate::Gate;
use super::ledger::Ledger;

/// Gates whose records are written in one transaction.
const AT_ONCE: usize = 200;

impl Ledger {
    /// Gives up what `gates` have reserved and not used, and stores what left where nothing is limited. One that is reserving just now is passed
    /// over.
    ///
    /// # Errors
    /// The store's, as text: what was not written stays reserved there, and is tried the next time.
    pub async fn release(&self, gates: &[Arc<Gate>]) -> Result<(), String> {
        for some in gates.chunks(AT_ONCE) {
            // What only counts was not read until now; its next record has to have it in it.
            for quotas in some.iter().filter_map(|gate| gate.quotas()).filter(|quotas| !quotas.is_exact()) {
                quotas.try_load().await?;
            }
            let _no_sweep = self.sweeping.read().await;
            let mark = self.mark(self.now());
            let released: Vec<_> = some.iter().filter_map(|gate| gate.quotas()?.release(&mark)).collect();
            if released.is_empty() {
                continue;
            }
            self.memos.remember(released.iter().flat_map(|gate| gate.entries()).collect()).await?;
            for gate in released {
                gate.confirm();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "release_tests.rs"]
mod tests;
