//! When a deferred recipient is due again, and when it has expired. Pure.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::config::Retry;

/// The delay after the `attempts`-th failed attempt (from 1): `first × factor^(attempts−1)`, at
/// most `max`, times `1 ± jitter`. `random` is uniform in 0..1.
pub fn delay(retry: &Retry, attempts: u32, random: f64) -> Duration {
    let exponent = i32::try_from(attempts.saturating_sub(1)).unwrap_or(i32::MAX).min(1000);
    let plain = (retry.first.as_secs_f64() * retry.factor.powi(exponent)).min(retry.max.as_secs_f64());
    let jittered = plain * (1.0 + retry.jitter * (2.0 * random - 1.0));
    Duration::try_from_secs_f64(jittered.max(0.001)).unwrap_or(retry.max)
}

/// What a deferral leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Try again at this time.
    At(Timestamp),
    /// The recipient is older than `expire`: it fails now.
    Expired,
}

/// Decides what follows a failed attempt at `now` of a recipient accepted at `received`. The last
/// try is at the moment of expiry, not up to `max` later.
pub fn after_failure(retry: &Retry, received: Timestamp, attempts: u32, now: Timestamp, random: f64) -> Next {
    let deadline = received.after(retry.expire);
    if now >= deadline {
        return Next::Expired;
    }
    Next::At(now.after(delay(retry, attempts, random)).min(deadline))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RETRY: Retry = Retry {
        first: Duration::from_secs(60),
        factor: 2.0,
        max: Duration::from_secs(4 * 3600),
        jitter: 0.2,
        expire: Duration::from_secs(5 * 86_400),
        warn: Duration::from_secs(4 * 3600),
    };

    #[test]
    fn doubles_up_to_the_maximum() {
        let seconds: Vec<u64> = (1..=10).map(|n| delay(&RETRY, n, 0.5).as_secs()).collect();
        assert_eq!(seconds, [60, 120, 240, 480, 960, 1920, 3840, 7680, 14_400, 14_400]);
    }

    #[test]
    fn the_last_try_is_at_expiry() {
        let received = Timestamp(0);
        let expire = Timestamp(5 * 86_400_000);
        assert_eq!(after_failure(&RETRY, received, 40, Timestamp(expire.0 - 1000), 0.5), Next::At(expire));
        assert_eq!(after_failure(&RETRY, received, 41, expire, 0.5), Next::Expired);
    }

    proptest! {
        #[test]
        fn jitter_stays_in_its_bounds(attempts in 1u32..5000, random in 0.0f64..1.0) {
            let plain = delay(&RETRY, attempts, 0.5).as_secs_f64();
            let d = delay(&RETRY, attempts, random).as_secs_f64();
            prop_assert!(d >= plain * 0.799 && d <= plain * 1.201);
        }
    }
}
