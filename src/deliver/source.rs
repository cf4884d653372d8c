//! From which of a provider's local addresses mail leaves.
//!
//! Every sender domain has its own order of the addresses (see `config::sources`). The first of the
//! order that works is used, so that receivers see one sender domain come from one address. Where
//! limits hold for each address, mail comes with the address that carries it, and goes to another
//! lane if that does not work (see `route`).
//!
//! An address does not work for [`REST`] when it cannot be bound, or, for one lane, when
//! [`FAILURES`] attempts in a row ended before a greeting. A reply is never a reason: whoever was
//! told to slow down or to go away is not to come back from another address.

use std::net::IpAddr;
use std::time::Duration;

use moka::sync::Cache;

use crate::config::Source;
use crate::config::sources::order;
use crate::mail::LaneName;

/// How long an address that failed is not used.
pub const REST: Duration = Duration::from_secs(300);
/// Attempts in a row without a greeting after which an address rests for that lane.
pub const FAILURES: u32 = 3;
/// Addresses and lanes remembered.
const MOST: u64 = 10_000;

/// What is known of addresses that do not work.
pub(super) struct Sources {
    unbindable: Cache<IpAddr, ()>,
    /// Failures in a row.
    failing: Cache<(IpAddr, LaneName), u32>,
}

impl Sources {
    pub(super) fn new() -> Sources {
        Sources {
            unbindable: Cache::builder().max_capacity(MOST).time_to_live(REST).build(),
            failing: Cache::builder().max_capacity(MOST).time_to_live(REST).build(),
        }
    }

    /// Whether it may be used now.
    pub(super) fn works(&self, source: IpAddr, lane: &LaneName) -> bool {
        let key = (source, lane.clone());
        !self.unbindable.contains_key(&source) && self.failing.get(&key).is_none_or(|n| n < FAILURES)
    }

    /// The sources in the order to try for this sender domain: those that work first. If none does,
    /// the order is as if all did.
    pub(super) fn usable<'s>(&self, sources: &'s [Source], sender_domain: &str, lane: &LaneName) -> Vec<&'s Source> {
        let mut order = order(sources, sender_domain);
        if sources.len() > 1 {
            order.sort_by_key(|source| !self.works(source.address, lane));
        }
        order
    }

    /// It could not be bound. True if that was not known.
    pub(super) fn cannot_bind(&self, source: IpAddr) -> bool {
        let new = !self.unbindable.contains_key(&source);
        self.unbindable.insert(source, ());
        new
    }

    /// An attempt from it ended before a greeting. True if it rests from now on.
    pub(super) fn failed(&self, source: IpAddr, lane: &LaneName) -> bool {
        let key = (source, lane.clone());
        let times = self.failing.get(&key).unwrap_or(0).saturating_add(1);
        self.failing.insert(key, times);
        times == FAILURES
    }

    /// A host greeted.
    pub(super) fn greeted(&self, source: IpAddr, lane: &LaneName) {
        self.failing.invalidate(&(source, lane.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_rests_and_comes_back() {
        let sources = ["192.0.2.1", "192.0.2.2"].map(|ip| Source::new(ip.parse().unwrap()));
        let (lane, other) = (LaneName::from("p"), LaneName::from("q"));
        let known = Sources::new();
        let usable = |lane: &LaneName| known.usable(&sources, "a.example", lane)[0].address;
        let preferred = usable(&lane);
        for n in 1..=FAILURES {
            assert_eq!(usable(&lane), preferred);
            assert_eq!(known.failed(preferred, &lane), n == FAILURES);
        }
        assert_ne!(usable(&lane), preferred);
        assert_eq!(usable(&other), preferred, "only where it failed");
        known.greeted(preferred, &lane);
        assert_eq!(usable(&lane), preferred);
        assert!(known.cannot_bind(preferred) && !known.cannot_bind(preferred));
        assert!(usable(&lane) != preferred && usable(&other) != preferred);
        assert!(known.cannot_bind(usable(&lane)));
        assert_eq!(usable(&lane), preferred, "when none works, the order is as ever");
    }
}
