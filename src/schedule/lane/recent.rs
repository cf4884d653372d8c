//! How fast a lane delivers: what left in the running minute and the one before. Pure, of constant size.

use std::time::Duration;

use tokio::time::Instant;

const MINUTE: Duration = Duration::from_secs(60);
/// Nothing is said of a shorter time.
const LEAST: Duration = Duration::from_secs(5);

/// Counts deliveries.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// When the running minute began, and when counting did.
    began: Option<(Instant, Instant)>,
    running: u32,
    before: u32,
    /// The last delivery.
    last: Option<Instant>,
}

impl Recent {
    /// One recipient was delivered.
    pub(super) fn delivered(&mut self, now: Instant) {
        let (minute, first) = *self.began.get_or_insert((now, now));
        let age = now.saturating_duration_since(minute);
        self.last = Some(now);
        if age >= 2 * MINUTE {
            // Nothing left for a minute: what was before says nothing of the pace.
            *self = Recent { began: Some((now, now)), running: 1, before: 0, last: Some(now) };
            return;
        }
        if age >= MINUTE {
            self.before = self.running;
            self.running = 0;
            self.began = Some((minute + MINUTE, first));
        }
        self.running = self.running.saturating_add(1);
    }

    /// Whether something was delivered within this time.
    pub(super) fn within(&self, now: Instant, time: Duration) -> bool {
        self.last.is_some_and(|last| now.saturating_duration_since(last) < time)
    }

    /// Recipients a second; `None`: nothing left lately, or there is too little to say.
    pub(super) fn per_second(&self, now: Instant) -> Option<f64> {
        let (minute, first) = self.began?;
        let age = now.saturating_duration_since(minute);
        let before = if first < minute { MINUTE } else { Duration::ZERO };
        let seen = age + before;
        let count = self.running.saturating_add(self.before);
        (count > 0 && seen >= LEAST && age < 2 * MINUTE).then(|| f64::from(count) / seen.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_pace_is_that_of_the_last_two_minutes() {
        let mut recent = Recent::default();
        assert_eq!(recent.per_second(Instant::now()), None);
        let run = async |recent: &mut Recent, seconds: u64, each: u32| {
            for _ in 0..seconds {
                (0..each).for_each(|_| recent.delivered(Instant::now()));
                tokio::time::advance(Duration::from_secs(1)).await;
            }
            recent.per_second(Instant::now())
        };
        assert_eq!(run(&mut recent, 4, 5).await, None, "too little was seen");
        assert_eq!(run(&mut recent, 26, 5).await, Some(5.0));
        assert_eq!(run(&mut recent, 90, 5).await, Some(5.0));
        let later = run(&mut recent, 120, 1).await.expect("known");
        assert!((later - 1.0).abs() < 0.05, "{later}");
        tokio::time::advance(2 * MINUTE).await;
        assert_eq!(recent.per_second(Instant::now()), None, "nothing left lately");
    }
}
