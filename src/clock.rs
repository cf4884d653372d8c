//! The one place time comes from.
//!
//! Decisions take `now` as an argument; only the edges ask a [`Clock`]. A durable time is a
//! [`Timestamp`] (wall clock, milliseconds since 1970 UTC); a wait is a `tokio::time` duration.
//! Under test the clock follows `tokio::time`, so that paused time moves both together.

mod when;

use std::fmt;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use when::{When, grouped, span};

/// How long to wait after a failure that had `before` others before it in a row: `first`, and twice as long after
/// each further one, up to `longest` and to 1024 times `first`.
pub fn doubled(first: Duration, before: u32, longest: Duration) -> Duration {
    first.saturating_mul(1 << before.min(10)).min(longest)
}

/// A wall-clock instant, in milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The same instant as a [`SystemTime`].
    pub fn to_system(self) -> SystemTime {
        match u64::try_from(self.0) {
            Ok(ms) => UNIX_EPOCH + Duration::from_millis(ms),
            Err(_) => UNIX_EPOCH,
        }
    }

    /// `self + d`, saturating.
    pub fn after(self, d: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(i64::try_from(d.as_millis()).unwrap_or(i64::MAX)))
    }

    /// `self - d`, saturating.
    pub fn before(self, d: Duration) -> Timestamp {
        Timestamp(self.0.saturating_sub(i64::try_from(d.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How long from `earlier` to `self`; zero when `earlier` is later.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0).max(0) as u64)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timestamp({self})")
    }
}

/// RFC 3339 in UTC with milliseconds: `2026-11-21T08:49:00.123Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, ms) = (self.0.div_euclid(86_400_000), self.0.rem_euclid(86_400_000));
        let (y, m, d) = civil_from_days(days);
        write!(
            f,
            "{y:04}-{m:02}-{d:02}T{:02}:{:02}:{:02}.{:03}Z",
            ms / 3_600_000,
            ms / 60_000 % 60,
            ms / 1000 % 60,
            ms % 1000
        )
    }
}

impl Timestamp {
    /// Midnight UTC of a day that is written as `2026-12-01`; `None` if it is not, or there is no such day.
    pub fn of_day(text: &str) -> Option<Timestamp> {
        let mut parts = text.splitn(3, '-');
        let mut number = |digits: usize| {
            parts.next().filter(|p| p.len() == digits && p.bytes().all(|b| b.is_ascii_digit()))?.parse::<u32>().ok()
        };
        let (year, month, day) = (number(4)?, number(2)?, number(2)?);
        Timestamp::from_date(i64::from(year), month, day)
    }

    /// The day (UTC), such as `2026-12-01`.
    pub fn day_text(self) -> String {
        self.to_string().chars().take(10).collect()
    }

    /// Midnight UTC of a day of the proleptic Gregorian calendar; `None` if there is no such day,
    /// or it is before 1970 or after 9999.
    pub fn from_date(year: i64, month: u32, day: u32) -> Option<Timestamp> {
        if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return None;
        }
        // The inverse of `civil_from_days`: years begin in March, so that the leap day is the last.
        let y = year - i64::from(month <= 2);
        let shifted = i64::from(if month > 2 { month - 3 } else { month + 9 });
        let (era, yoe) = (y.div_euclid(400), y.rem_euclid(400));
        let doy = (153 * shifted + 2) / 5 + i64::from(day) - 1;
        let days = era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468;
        // The 31st of a short month comes out as another day.
        (civil_from_days(days) == (year, month, day)).then_some(Timestamp(days * 86_400_000))
    }
}

/// Days since 1970-01-01 to (year, month, day) in the proleptic Gregorian calendar.
fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let d = (doy - (153 * mp + 2) / 5 + 1) as u32;
    let m = if mp < 10 { mp + 3 } else { mp - 9 } as u32;
    (yoe + era * 400 + i64::from(m <= 2), m, d)
}

/// An instant from which a later process can measure: the wall clock, and beside it the clock since
/// boot, which nobody sets.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Mark {
    /// The wall clock.
    pub wall: Timestamp,
    /// The clock since boot, where the system has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<Boot>,
}

/// A reading of the clock that runs since the machine was started, also while it sleeps.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Boot {
    /// Which start of which machine: the kernel's boot id.
    pub id: String,
    /// Milliseconds since then.
    pub ms: i64,
}

impl From<Timestamp> for Mark {
    fn from(wall: Timestamp) -> Mark {
        Mark { wall, boot: None }
    }
}

impl Mark {
    /// How long from `earlier` to `self`; never negative. Within one run of the machine it is exact,
    /// whatever was done to the wall clock; else it is what the wall clock says.
    pub fn since(&self, earlier: &Mark) -> Duration {
        match (&self.boot, &earlier.boot) {
            (Some(now), Some(then)) if now.id == then.id => Timestamp(now.ms).since(Timestamp(then.ms)),
            _ => self.wall.since(earlier.wall),
        }
    }
}

/// Linux; elsewhere the wall clock is all there is.
fn since_boot() -> Option<Boot> {
    static ID: OnceLock<Option<String>> = OnceLock::new();
    let read = || std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
    let id = ID.get_or_init(|| read().map(|id| id.trim().to_owned()).filter(|id| !id.is_empty()));
    let now = boot_clock()?;
    id.clone().map(|id| Boot { id, ms: now })
}

#[cfg(target_os = "linux")]
fn boot_clock() -> Option<i64> {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec.checked_mul(1000)?.checked_add(now.tv_nsec / 1_000_000)
}

#[cfg(not(target_os = "linux"))]
fn boot_clock() -> Option<i64> {
    None
}

/// Where wall-clock time comes from. Cheap to copy.
#[derive(Clone, Copy, Debug)]
pub enum Clock {
    /// The system's clock.
    System,
    /// A wall clock that started at `base` and advances with `tokio::time` (which tests pause).
    Tokio {
        /// Wall-clock time at `start`.
        base: Timestamp,
        /// The tokio instant that corresponds to `base`.
        start: tokio::time::Instant,
    },
}

impl Clock {
    /// A clock that follows `tokio::time` from a fixed date, for tests on paused time.
    pub fn for_tests() -> Clock {
        Clock::Tokio { base: Timestamp(1_790_000_000_000), start: tokio::time::Instant::now() }
    }

    /// The wall-clock time now.
    pub fn now(&self) -> Timestamp {
        match self {
            Clock::System => {
                let d = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Timestamp(i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
            }
            Clock::Tokio { base, start } => base.after(start.elapsed()),
        }
    }

    /// The time now, for a later process to measure from.
    pub fn mark(&self) -> Mark {
        let boot = match self {
            Clock::System => since_boot(),
            Clock::Tokio { .. } => None,
        };
        Mark { wall: self.now(), boot }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_doubled_up_to_both_bounds() {
        let of = |before, longest| doubled(Duration::from_secs(2), before, Duration::from_secs(longest)).as_secs();
        assert_eq!([0, 1, 2, 5, 6].map(|before| of(before, 100)), [2, 4, 8, 64, 100]);
        assert_eq!([10, 11, u32::MAX].map(|before| of(before, 10_000)), [2048; 3]);
        assert_eq!(doubled(Duration::MAX, 3, Duration::from_secs(7)), Duration::from_secs(7));
    }

    #[test]
    fn prints_rfc3339() {
        assert_eq!(Timestamp(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Timestamp(1_709_164_799_999).to_string(), "2024-02-28T23:59:59.999Z");
        assert_eq!(Timestamp(1_709_164_800_000).to_string(), "2024-02-29T00:00:00.000Z");
        assert_eq!(Timestamp(1_795_250_940_123).to_string(), "2026-11-21T08:49:00.123Z");
    }

    #[test]
    fn dates_become_midnights() {
        for (y, m, d, text) in [(1970, 1, 1, "1970-01-01"), (2026, 12, 1, "2026-12-01"), (2028, 2, 29, "2028-02-29")] {
            let midnight = Timestamp::from_date(y, m, d).expect("a day");
            assert_eq!(midnight.to_string(), format!("{text}T00:00:00.000Z"));
        }
        for (y, m, d) in [(2027, 2, 29), (2026, 4, 31), (2026, 13, 1), (2026, 0, 1), (1969, 12, 31), (2026, 1, 0)] {
            assert_eq!(Timestamp::from_date(y, m, d), None, "{y}-{m}-{d}");
        }
    }

    #[test]
    fn a_jump_of_the_wall_clock_counts_only_across_a_boot() {
        let mark = |wall, id: &str, ms| Mark { wall: Timestamp(wall), boot: Some(Boot { id: id.into(), ms }) };
        let then = mark(1_000_000, "a", 5_000);
        assert_eq!(mark(90_000_000, "a", 7_000).since(&then), Duration::from_secs(2), "set forward");
        assert_eq!(mark(10, "a", 7_000).since(&then), Duration::from_secs(2), "set back");
        assert_eq!(mark(1_060_000, "b", 100).since(&then), Duration::from_secs(60), "another boot");
        assert_eq!(mark(1_060_000, "a", 100).since(&then), Duration::ZERO, "cannot be: nothing has passed");
        assert_eq!(Mark::from(Timestamp(1_001_000)).since(&then), Duration::from_secs(1));
        let text = serde_json::to_string(&then).unwrap();
        assert_eq!(serde_json::from_str::<Mark>(&text).unwrap(), then);
        let old: Mark = serde_json::from_str("{\"wall\":7}").unwrap();
        assert_eq!(old, Mark::from(Timestamp(7)));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_system_knows_its_boot() {
        let (a, b) = (Clock::System.mark(), Clock::System.mark());
        let (a, b) = (a.boot.expect("a boot id"), b.boot.expect("a boot id"));
        assert!(a.id == b.id && a.ms <= b.ms && a.ms > 0, "{a:?} {b:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn test_clock_follows_paused_time() {
        let clock = Clock::for_tests();
        let t0 = clock.now();
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(clock.now().since(t0), Duration::from_secs(3600));
    }
}
