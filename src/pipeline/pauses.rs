//! Lanes that an operator has paused: the decision of a person, which holds until a person ends it,
//! whatever becomes of the process or of the configuration meanwhile. Also what a person ends: every hold
//! that is not the configuration's own, and what replies taught.
//!
//! Stored is the name of each paused lane. That of a provider without a source stands for all its
//! sources, also those that a later configuration gives it.

use std::collections::HashSet;

use bytes::Bytes;

use super::Relay;
use super::lesson::Teach;
use crate::mail::LaneName;
use crate::queue::QueueError;
use crate::schedule::lane::{By, Hold};
use crate::shape::adapt::MEMOS;

/// The first part of the names under which pauses are stored.
const PREFIX: &str = "paused/";

/// What became of a lane that an operator resumed.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Resumed {
    /// The lane.
    pub name: String,
    /// What held it and does not any more, in words.
    pub ended: Vec<String>,
    /// What holds it still, in words: the configuration's own limits, and what nobody ends here.
    pub still: Vec<String>,
    /// One of these lets nothing leave.
    pub stopped: bool,
    /// What lets nothing leave is not the configuration's own: a host says nothing, a source address does not work.
    pub by_world: bool,
    /// Hosts that took no connection are asked again, with whatever was put off because of them.
    pub asks_hosts: bool,
}

/// What was forgotten of a lane.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Forgotten {
    /// The lane.
    pub name: String,
    /// What replies had taught, in words.
    pub learned: Vec<String>,
}

impl Relay {
    /// Ends what holds a lane, or a provider with all its sources, but for the configuration's own
    /// limits: an operator's pause, pauses of rules and learned ones, the refusal of everything, and the
    /// waiting for hosts. Empty: there is none of that name.
    ///
    /// # Errors
    /// The queue could not store it: it is done, and holds until the process ends.
    pub async fn resume(&self, name: &LaneName) -> Result<Vec<Resumed>, QueueError> {
        let lanes = self.lanes_named(name);
        let mut all = Vec::new();
        for lane in lanes.iter().map(|name| self.scheduler.lane(name)) {
            let now = self.clock.now();
            let before = self.holds(&lane);
            let ends = |hold: &&Hold| hold.ends_by_resuming();
            let ended: Vec<String> = before.iter().filter(ends).map(|hold| hold.told(now).to_string()).collect();
            let asks_hosts = before.iter().any(|hold| matches!(hold.by, By::Host { .. }));
            if asks_hosts {
                self.forget_failures();
            }
            self.of(&lane).teach(|adapt, _| adapt.resume(now));
            let after = self.holds(&lane);
            // The pause is ended below; a host that is asked again with the next message holds nothing, and
            // a connection at work is no limit to tell of.
            let limits = |hold: &&Hold| !ends(hold) && !matches!(hold.by, By::Connections { .. });
            let still: Vec<&Hold> = after.iter().filter(limits).collect();
            all.push(Resumed {
                name: lane.name.to_string(),
                ended,
                stopped: still.iter().any(|hold| hold.stops()),
                by_world: still.iter().any(|hold| hold.stops() && !matches!(hold.by, By::Quota(_))),
                still: still.iter().map(|hold| hold.told(now).to_string()).collect(),
                asks_hosts,
            });
        }
        self.pause(name, false).await?;
        Ok(all)
    }

    /// Forgets what replies taught about a lane, or a provider with all its sources, also in the store.
    /// Empty: there is none of that name.
    ///
    /// # Errors
    /// The queue could not store it: it is done, and holds until the process ends.
    pub async fn forget_learned(&self, name: &LaneName) -> Result<Vec<Forgotten>, QueueError> {
        let mut all = Vec::new();
        let mut entries = Vec::new();
        for lane in self.lanes_named(name).iter().map(|name| self.scheduler.lane(name)) {
            let learned = lane.explain(self.clock.now());
            self.of(&lane).teach(|adapt, _| adapt.forget());
            tracing::info!(
                provider = lane.name.as_str(),
                forgotten = learned.len(),
                "an operator has what replies taught forgotten"
            );
            entries.push((format!("{MEMOS}{}", lane.name), None));
            all.push(Forgotten { name: lane.name.to_string(), learned });
        }
        self.queue.remember(entries).await?;
        Ok(all)
    }

    /// What an operator means by a name: a provider or a domain (`@domain`) with all its sources, or
    /// one of those. Empty: there is none of that name.
    pub(super) fn lanes_named(&self, name: &LaneName) -> Vec<LaneName> {
        if self.config.provider(name.base()).is_none() && name.as_domain().is_none() {
            return Vec::new();
        }
        let mut lanes = self.lanes_for(name);
        if name.source().is_none() && !lanes.contains(name) {
            lanes.push(name.clone());
        }
        lanes
    }

    /// Stops or starts a lane, or a provider with all its sources, at once, and stores that. `false`
    /// if there is none of that name.
    ///
    /// # Errors
    /// The queue could not store it: it is done, and holds until the process ends.
    pub async fn pause(&self, name: &LaneName, paused: bool) -> Result<bool, QueueError> {
        let lanes = self.lanes_named(name);
        if lanes.is_empty() {
            return Ok(false);
        }
        for name in &lanes {
            self.set_paused(name, paused);
            match paused {
                true => tracing::info!(provider = name.as_str(), "paused by an operator"),
                false => tracing::info!(provider = name.as_str(), "resumed by an operator"),
            }
        }
        let value = paused.then(|| Bytes::from_static(b"operator"));
        let mut entries: Vec<_> = lanes.iter().map(|lane| (key(lane), value.clone())).collect();
        if !paused && name.source().is_some() {
            // No longer all of them.
            entries.push((key(&LaneName::from(name.base())), None));
        }
        self.queue.remember(entries).await?;
        Ok(true)
    }

    /// Pauses what was paused before the last end. What the configuration does not have just now is still
    /// paused when it comes back.
    ///
    /// # Errors
    /// The queue could not be read; nothing may be sent then.
    pub(super) async fn recall_pauses(&self) -> Result<(), QueueError> {
        let mut paused = HashSet::new();
        for (key, _) in self.queue.recall(PREFIX).await? {
            let name = LaneName::from(key.strip_prefix(PREFIX).unwrap_or_default());
            let lanes = self.lanes_named(&name);
            if lanes.is_empty() {
                tracing::warn!(
                    provider = name.as_str(),
                    "paused by an operator, and not in the configuration now: it is still paused when it comes back"
                );
            }
            paused.extend(lanes);
        }
        for name in &paused {
            self.set_paused(name, true);
            tracing::warn!(provider = name.as_str(), "still paused by an operator: `mailweir provider resume` ends it");
        }
        Ok(())
    }

    fn set_paused(&self, name: &LaneName, paused: bool) {
        let lane = self.scheduler.lane(name);
        let wake = lane.pause(paused);
        self.scheduler.wake(&lane, wake);
        // Whoever resumes a provider has mended what kept it away: no need to wait for a probe.
        if !paused {
            let wake = lane.close_circuit();
            self.scheduler.wake(&lane, wake);
            if name.as_domain().is_some() {
                self.scheduler.note(name, self.clock.now());
            }
        }
        self.scheduler.attend(&lane);
    }
}

fn key(lane: &LaneName) -> String {
    format!("{PREFIX}{lane}")
}
