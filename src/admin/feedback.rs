//! What replies taught a lane, as operators see it: from the lane that runs, or from the store when
//! nobody has the lane in memory.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::clock::{Timestamp, When};
use crate::config::Provider;
use crate::queue::{Memory, QueueError};
use crate::shape::adapt::{Adapt, Configured, MEMOS, readable};

/// What holds in a lane because of replies; empty when nothing does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FeedbackStatus {
    /// At most so many messages (or recipients, where the rate counts those) a second.
    pub per_second: Option<f64>,
    /// At most so many connections.
    pub connections: Option<u32>,
    /// At most so many messages on a connection.
    pub messages_per_connection: Option<u32>,
    /// Nothing leaves for so many seconds; 0: it is not paused.
    pub paused_seconds: u64,
    /// What else a server was found to take on one connection, in words: `198 kB`, `10 recipients`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub per_connection: Vec<String>,
    /// The end of the pause, RFC 3339; empty when there is none.
    pub paused_until: String,
    /// The end of the pause in words, `14:10:00Z (in 22 min)`; empty when there is none.
    pub paused_told: String,
    /// Why it is paused; empty when it is not.
    pub paused_because: String,
    /// Every rule's effect and everything that was learned, in words, with its end and its cause.
    pub because: Vec<String>,
}

impl FeedbackStatus {
    /// From a lane's state.
    pub fn of(adapt: &Adapt, provider: &Provider, now: Timestamp) -> FeedbackStatus {
        let limits = adapt.limits(now);
        let (until, because) = limits.paused.map(|(until, why)| (Some(until), why)).unwrap_or_default();
        FeedbackStatus {
            per_second: limits.rate,
            connections: (limits.connections < provider.connections).then_some(limits.connections),
            messages_per_connection: (limits.messages < provider.messages_per_connection).then_some(limits.messages),
            per_connection: adapt.per_connection(),
            paused_seconds: until.map_or(0, |until| until.since(now).as_millis().div_ceil(1000) as u64),
            paused_until: until.map(|until| until.to_string()).unwrap_or_default(),
            paused_told: until.map(|at| When { at, now }.to_string()).unwrap_or_default(),
            paused_because: because,
            because: adapt.explain(now),
        }
    }

    /// From what the store remembers of lane `name`.
    ///
    /// # Errors
    /// The queue cannot be read.
    pub async fn stored(
        queue: &dyn Memory,
        name: &str,
        provider: &Provider,
        now: Timestamp,
    ) -> Result<FeedbackStatus, QueueError> {
        let key = format!("{MEMOS}{name}");
        // A prefix: longer names begin with it, too.
        let found = queue.recall(&key).await?;
        let json = found.iter().find(|(found, _)| *found == key).map(|(_, json)| json);
        Ok(json.map(|json| FeedbackStatus::read(json, provider, now)).unwrap_or_default())
    }

    /// From what the store remembers, of all lanes; `provider_of`: whose limits hold in a lane.
    ///
    /// # Errors
    /// The queue cannot be read.
    pub async fn all_stored<'p>(
        queue: &dyn Memory,
        provider_of: impl Fn(&str) -> &'p Arc<Provider>,
        now: Timestamp,
    ) -> Result<Vec<(String, FeedbackStatus)>, QueueError> {
        let found = queue.recall(MEMOS).await?;
        let lanes = found.iter().filter_map(|(key, json)| {
            let name = key.strip_prefix(MEMOS)?;
            let status = FeedbackStatus::read(json, provider_of(name), now);
            (status != FeedbackStatus::default()).then(|| (name.to_owned(), status))
        });
        Ok(lanes.collect())
    }

    fn read(json: &[u8], provider: &Provider, now: Timestamp) -> FeedbackStatus {
        let adapt = Adapt::restore(Configured::of(provider), json, now);
        adapt.map(|adapt| FeedbackStatus::of(&adapt, provider, now)).unwrap_or_default()
    }

    /// What holds now, in a few words; empty when nothing does.
    pub fn summary(&self) -> String {
        let mut parts = Vec::new();
        if !self.paused_told.is_empty() {
            parts.push(format!("paused until {}", self.paused_told));
        }
        if let Some(rate) = self.per_second {
            parts.push(format!("slowed to {}", readable(rate)));
        }
        if let Some(cap) = self.connections {
            parts.push(format!("at most {cap} connections"));
        }
        if let Some(cap) = self.messages_per_connection {
            parts.push(format!("at most {cap} messages per connection"));
        }
        parts.extend(self.per_connection.iter().map(|most| format!("at most {most} per connection")));
        parts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::sample;
    use crate::shape::adapt::testing::judged;

    const NOW: Timestamp = Timestamp(1_790_000_000_000);

    fn taught(provider: &Provider) -> Adapt {
        let mut adapt = Adapt::new(Configured::of(provider));
        (0..8).for_each(|n| adapt.refused((n, 3), false, NOW, "421 too many connections"));
        judged(&mut adapt, NOW);
        for ago in [2000, 1000, 0] {
            adapt.closed((7, Timestamp(NOW.0 - ago)), None, Timestamp(NOW.0 - ago), "closed");
        }
        adapt
    }

    fn provider() -> Provider {
        let mut provider = sample::provider("p");
        provider.rate = vec!["20/s".parse().expect("a rate")];
        provider.connections = 10;
        provider.messages_per_connection = 50;
        provider.adaptive = true;
        provider
    }

    #[test]
    fn every_limit_that_replies_led_to_is_told_with_its_cause() {
        let provider = provider();
        let told = FeedbackStatus::of(&taught(&provider), &provider, NOW);
        assert!(told.per_second.is_some_and(|rate| rate < 20.0), "{told:?}");
        assert_eq!((told.connections, told.messages_per_connection), (Some(3), Some(7)));
        // The learned stop of a moment, in whole seconds rounded up.
        assert_eq!((told.paused_seconds, told.paused_until.as_str()), (1, "2026-09-21T14:13:20.250Z"));
        assert_eq!(told.paused_because, "learned: 450 slow down");
        assert_eq!(told.because.len(), 4, "{told:?}");
        let words = told.summary();
        assert!(words.starts_with("paused until 14:13:20Z (now), slowed to "), "{words}");
        assert!(words.ends_with("/s, at most 3 connections, at most 7 messages per connection"), "{words}");
        let free = FeedbackStatus::of(&Adapt::new(Configured::of(&provider)), &provider, NOW);
        assert_eq!((free.summary().as_str(), free), ("", FeedbackStatus::default()));
    }

    #[test]
    fn what_is_stored_says_the_same() {
        let provider = provider();
        let adapt = taught(&provider);
        let json = adapt.store().expect("something to remember");
        let (read, told) = (FeedbackStatus::read(&json, &provider, NOW), FeedbackStatus::of(&adapt, &provider, NOW));
        assert_eq!((read.connections, read.because.len()), (told.connections, told.because.len()));
        assert_eq!(FeedbackStatus::read(b"{}", &provider, NOW), FeedbackStatus::default());
        let unread = FeedbackStatus::read(&json, &provider, NOW.after(std::time::Duration::from_secs(90_000)));
        assert_eq!(unread, FeedbackStatus::default(), "all of it is over");
    }
}
