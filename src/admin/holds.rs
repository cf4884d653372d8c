//! What holds a lane, and what is used of its quotas, as operators see it.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::schedule::lane::{Hold, Holds};
use crate::shape::Usage;

/// One thing that holds a lane.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldStatus {
    /// `operator`, `rule`, `learned`, `refused`, `host`, `source`, `quota`, `warmup`, `pace`, `rate`,
    /// `connection_rate`, `connections`, `opening`, `unanswered`, `answer`, `silent`, `limit`, `descriptors`, `priority` or
    /// `shutdown`.
    pub by: String,
    /// Nothing at all leaves while it holds.
    pub stops: bool,
    /// In words, with its end.
    pub told: String,
    /// Its end or the next try, RFC 3339; empty if nobody can tell.
    pub until: String,
}

impl HoldStatus {
    /// As seen at `now`.
    pub fn of(hold: &Hold, now: Timestamp) -> HoldStatus {
        HoldStatus {
            by: hold.name().to_owned(),
            stops: hold.stops(),
            told: hold.told(now).to_string(),
            until: hold.until.map(|until| until.to_string()).unwrap_or_default(),
        }
    }

    /// All of them.
    pub fn all(holds: &Holds, now: Timestamp) -> Vec<HoldStatus> {
        holds.iter().map(|hold| HoldStatus::of(hold, now)).collect()
    }
}

/// What was used of a quota, or of a warm-up's day.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaStatus {
    /// `quota 500/h`, `warm-up day 3 of 14`, `warm-up begins on 2026-12-01 (tomorrow)`.
    pub quota: String,
    /// Used: messages, or recipients where it counts those.
    pub used: u32,
    /// Of so many.
    pub most: u32,
    /// When the first of those used is free again, or the warm-up begins that lets nothing leave before, RFC
    /// 3339; empty if none is used.
    pub free_from: String,
    /// All that in words.
    pub told: String,
}

impl QuotaStatus {
    /// As seen at `now`.
    pub fn of(usage: &Usage, now: Timestamp) -> QuotaStatus {
        QuotaStatus {
            quota: usage.title(now),
            used: usage.used,
            most: usage.most,
            free_from: match (usage.begins, usage.used) {
                (Some(begins), _) if usage.most == 0 => begins.to_string(),
                (_, 0) => String::new(),
                _ => now.after(usage.back).to_string(),
            },
            told: usage.told(now),
        }
    }
}
