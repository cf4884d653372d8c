//! After a reload: what waits for its next retry for a reason of a host, TLS or a login, and goes another way by the new
//! configuration (a route, a provider that has its domain now, the provider of a user), is due now. What was said about the
//! mail itself has its time, whoever is asked next.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Relay;
use super::outage::{AT_ONCE, reasons_of_a_host};
use crate::mail::{Address, LaneName, RecipientKey, State};
use crate::queue::{Filter, Operation, QueueError, Row};
use crate::route::Router;

impl Relay {
    /// Brings forward what `before` led elsewhere, while other things go on.
    pub fn wake_rerouted(self: &Arc<Relay>, before: Arc<Router>) {
        let relay = self.clone();
        tokio::spawn(async move {
            match relay.bring_forward(&before).await {
                Ok(0) => {}
                Ok(recipients) => {
                    tracing::info!(recipients, "what waited for a host goes another way now: it is due");
                }
                Err(error) => {
                    tracing::warn!(%error, "could not bring forward what goes another way now: it has its own times");
                }
            }
        });
    }

    async fn bring_forward(&self, before: &Router) -> Result<usize, QueueError> {
        let now = self.clock.now();
        let state = Some(State::Queued.to_string());
        let filter = Filter { state, reasons: reasons_of_a_host(""), ..Filter::default() };
        let (mut changed, mut after) = (0, None);
        while !*self.stopping.borrow() {
            let page = self.queue.inspect(&filter, after, AT_ONCE).await?;
            let mut due: BTreeMap<&str, Vec<RecipientKey>> = BTreeMap::new();
            for (key, _, row) in page.rows.iter().filter(|(.., row)| self.goes_elsewhere(before, row)) {
                due.entry(&row.lane).or_default().push(*key);
            }
            for (lane, keys) in due {
                changed += self.queue.operate(Operation::Retry, &keys, &[], now).await?;
                self.scheduler.note(&LaneName::from(lane), now);
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        Ok(changed)
    }

    fn goes_elsewhere(&self, before: &Router, row: &Row) -> bool {
        let Ok(recipient) = Address::parse(&row.recipient) else { return false };
        let sender = Address::parse(&row.sender).ok();
        let ways = |router: &Router| router.ways_of(sender.as_ref(), &row.user, &recipient);
        ways(before) != ways(&self.router)
    }
}
