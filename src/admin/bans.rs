//! Who is slowed down or banned because logins failed, as operators see it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::listener::Slowed;

/// An address whose logins have failed: one line of `user bans --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanStatus {
    /// The address; of IPv6 the first of the /64 that counts as one; 127.0.0.1 is this machine.
    pub address: IpAddr,
    /// Failures that count.
    pub failures: u32,
    /// Until when none of its logins is looked at, RFC 3339; empty: they only wait.
    pub banned_until: String,
    /// Seconds that its next login waits.
    pub wait_s: u64,
}

impl BanStatus {
    /// As seen at `now`.
    pub fn of(slowed: &Slowed, now: Timestamp) -> BanStatus {
        BanStatus {
            address: slowed.address,
            failures: slowed.failures,
            banned_until: slowed.banned.map(|left| now.after(left).to_string()).unwrap_or_default(),
            wait_s: slowed.wait.as_secs(),
        }
    }
}
