//! What others can cause again and again is worth a line of its own the first time, and one an hour as long as
//! it goes on, with how often it was. One memory for the whole process, as the log is one.
//!
//! Bounded: [`MOST`] are remembered; beyond that the one that was told longest ago is told again too soon.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Kinds and names remembered.
const MOST: usize = 1000;
/// The time between two lines of one kind about one name.
const EVERY: Duration = Duration::from_secs(3600);

static SELDOM: LazyLock<Seldom> = LazyLock::new(Seldom::default);

/// Whether to write a line of this `kind` about this name now: how often it happened since the last line, this
/// time included. `None`: it is counted, for the next line.
pub fn seldom(kind: &'static str, about: &str) -> Option<u64> {
    SELDOM.tell(kind, about, Instant::now())
}

#[derive(Default)]
struct Seldom {
    known: Mutex<HashMap<(&'static str, String), Told>>,
}

#[derive(Clone, Copy)]
struct Told {
    at: Instant,
    /// Since then.
    untold: u64,
}

impl Seldom {
    fn tell(&self, kind: &'static str, about: &str, now: Instant) -> Option<u64> {
        let key = (kind, about.to_owned());
        let mut known = self.known.lock();
        if let Some(told) = known.get_mut(&key) {
            told.untold += 1;
            if now.saturating_duration_since(told.at) < EVERY {
                return None;
            }
            let times = told.untold;
            *told = Told { at: now, untold: 0 };
            return Some(times);
        }
        if known.len() >= MOST
            && let Some(oldest) = known.iter().min_by_key(|(_, told)| told.at).map(|(key, _)| key.clone())
        {
            known.remove(&oldest);
        }
        known.insert(key, Told { at: now, untold: 0 });
        Some(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_is_told_once_an_hour_with_how_often_it_was() {
        let (seldom, start) = (Seldom::default(), Instant::now());
        let at = |second: u64| start + Duration::from_secs(second);
        assert_eq!(seldom.tell("refused", "p", at(0)), Some(1));
        assert!((1..3600).all(|second| seldom.tell("refused", "p", at(second)).is_none()));
        assert_eq!(seldom.tell("refused", "q", at(9)), Some(1), "another name");
        assert_eq!(seldom.tell("dns", "p", at(9)), Some(1), "another kind");
        assert_eq!(seldom.tell("refused", "p", at(3600)), Some(3600));
        assert_eq!(seldom.tell("refused", "p", at(3601)), None);
        assert_eq!(seldom.tell("refused", "p", at(90_000)), Some(2));
    }

    #[test]
    fn the_memory_is_bounded() {
        let (seldom, now) = (Seldom::default(), Instant::now());
        for n in 0..3 * MOST {
            assert_eq!(seldom.tell("refused", &n.to_string(), now + Duration::from_millis(n as u64)), Some(1));
        }
        assert_eq!(seldom.known.lock().len(), MOST);
    }
}
