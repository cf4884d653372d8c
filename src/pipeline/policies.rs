//! The policies of MTA-STS outlive the process: they are stored when they are fetched, and fetched again before they end.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::Relay;
use crate::queue::QueueError;
use crate::route::sts;

/// How often it is looked for policies that are to be fetched again.
const LOOK: Duration = Duration::from_secs(60);

impl Relay {
    /// Takes up the policies that were stored: a domain whose name servers are silenced has its policy still.
    ///
    /// # Errors
    /// The queue could not be read.
    pub(super) async fn recall_policies(&self) -> Result<(), QueueError> {
        let Some(sts) = self.router.sts() else { return Ok(()) };
        sts.recall(&self.queue.recall(sts::PREFIX).await?);
        Ok(())
    }

    /// Stores what was fetched and has it renewed, until shutdown.
    pub async fn keep_policies(self: Arc<Relay>, mut stopping: watch::Receiver<bool>) {
        let Some(sts) = self.router.sts() else { return };
        while !*stopping.borrow() {
            tokio::select! {
                biased;
                _ = stopping.changed() => {}
                () = sts.changed() => {}
                () = tokio::time::sleep(LOOK) => self.router.renew_policies(),
            }
            // The last time when it stops: what is not stored is fetched again by the next one.
            let entries = sts.take_changes();
            if !entries.is_empty()
                && let Err(error) = self.queue.remember(entries.clone()).await
            {
                tracing::warn!(%error, "could not store policies of MTA-STS; trying again");
                sts.put_back(&entries);
            }
        }
    }
}
