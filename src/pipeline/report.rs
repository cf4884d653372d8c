//! The delivery status notification that an attempt makes due. It is written away from the sessions:
//! a message that is returned whole may have to be converted first.

use super::conversion::{Kind, Turn};
use super::record::Attempt;
use super::{QueuedBody, Relay};
use crate::clock::Timestamp;
use crate::deliver::{Event, Fact};
use crate::mail::{Body, Recipient};
use crate::outcome::bounce::{self, Action, Diagnostic, Dsn, Item};
use crate::outcome::settle::{Notice, Planned, status};
use crate::schedule::Lane;

impl Relay {
    /// The DSN that this attempt makes due, if any: one for all its recipients.
    pub(super) async fn dsn(&self, lane: &Lane, attempt: &Attempt, planned: &[Planned], now: Timestamp) -> Option<Dsn> {
        let message = &attempt.job.message.message;
        if message.envelope.reverse_path.is_none() || planned.iter().all(|p| p.notice == Notice::None) {
            return None;
        }
        let body = QueuedBody { shared: attempt.job.message.clone(), queue: self.queue.clone() };
        let head = body.chunk(0).await.unwrap_or_default();
        let expires = message.received.after(lane.provider.retry.expire);
        let noted: Vec<Noted> = planned.iter().filter_map(|p| Noted::of(attempt, p)).collect();
        let (shared, config, id) = (attempt.job.message.clone(), self.config.clone(), self.queue.next_id(now));
        let write = move || {
            let items: Vec<Item<'_>> = noted.iter().map(|noted| noted.item(now, expires)).collect();
            bounce::dsn(&shared.message, &head, &items, &config.hostname, id, now)
        };
        let written = async { Turn::of(Kind::Report).await?.run(write).await };
        match written.await {
            Ok(dsn) => dsn,
            // The process is ending, and a failure must not be stored without its report: the lease
            // ends with the queue.
            Err(_) => std::future::pending().await,
        }
    }
}

/// What a DSN says of one recipient.
struct Noted {
    recipient: Recipient,
    action: Action,
    status: (u8, u16, u16),
    fact: Fact,
    text: String,
}

impl Noted {
    fn of(attempt: &Attempt, planned: &Planned) -> Option<Noted> {
        let action = match planned.notice {
            Notice::None => return None,
            Notice::Failed => Action::Failed,
            Notice::Delayed => Action::Delayed,
            Notice::Relayed => Action::Relayed,
        };
        let fact = attempt.facts.get(planned.at)?.clone();
        let recipient = attempt.job.recipients.get(planned.at)?.recipient.clone();
        let text = fact.event.to_string();
        Some(Noted { recipient, action, status: status(planned.outcome, &fact), fact, text })
    }

    fn item(&self, now: Timestamp, expires: Timestamp) -> Item<'_> {
        Item {
            recipient: &self.recipient,
            action: self.action,
            status: self.status,
            diagnostic: Some(match &self.fact.event {
                Event::Reply(reply) => Diagnostic::Smtp(reply),
                _ => Diagnostic::Local(&self.text),
            }),
            remote_mta: self.fact.peer.as_ref().map(|peer| &*peer.host),
            last_attempt: Some(now),
            will_retry_until: (self.action == Action::Delayed).then_some(expires),
        }
    }
}
