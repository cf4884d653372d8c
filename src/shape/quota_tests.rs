//! Never above and live, at random times, with processes that die at random points.

use super::*;
use crate::clock::Timestamp;
use proptest::prelude::*;

const HOUR: Duration = Duration::from_secs(3600);

fn quota(count: u32, per: Duration) -> Rate {
    Rate { count, per }
}

/// What happens next to a quota.
#[derive(Clone, Debug)]
enum Step {
    Pause(i64),
    /// So many transactions of so many cells.
    Take(u32, u32),
    /// Taken, then given back after a pause.
    Unused(u32, i64),
    /// Somebody asks with a time that was passed already.
    Back(i64),
    /// `kill -9`; so long until the next start.
    Kill(i64),
    /// `kill -9` after a record was written and before its block was used.
    KillInReservation(i64),
    /// Killed before the record was written.
    KillBeforeRecord(i64),
    /// The block is given up, after a transaction that is given back later if there is a pause.
    Release(Option<i64>),
    /// The same, and killed: after the record was written, or before.
    KillInRelease(bool, i64),
}

fn step(window_ms: i64) -> impl Strategy<Value = Step> {
    let pause = prop_oneof![Just(0), 0..window_ms / 20, 0..window_ms, Just(window_ms), Just(window_ms / 60)];
    let short = 0..window_ms / 10;
    prop_oneof![
        3 => pause.clone().prop_map(Step::Pause),
        8 => (1u32..30, 1u32..4).prop_map(|(n, cells)| Step::Take(n, cells)),
        2 => (1u32..4, short.clone()).prop_map(|(cells, pause)| Step::Unused(cells, pause)),
        1 => pause.clone().prop_map(Step::Back),
        1 => pause.clone().prop_map(Step::Kill),
        1 => short.clone().prop_map(Step::KillInReservation),
        1 => short.clone().prop_map(Step::KillBeforeRecord),
        1 => proptest::option::of(short.clone()).prop_map(Step::Release),
        1 => (any::<bool>(), short).prop_map(|(written, pause)| Step::KillInRelease(written, pause)),
    ]
}

/// A quota with its store. `now` is the real time; the quota's own time is `now + offset`.
struct Life {
    quota: Rate,
    window: Window,
    offset: i64,
    stored: Option<Record>,
}

impl Life {
    fn new(quota: Rate, now: i64) -> Life {
        Life { quota, window: Window::new(quota, now), offset: 0, stored: None }
    }

    fn try_take(&mut self, cells: u32, now: i64) -> Result<Taken, Refusal> {
        self.take_skewed(cells, now, 0)
    }

    /// With a time that is `skew` late. The wall clock of records never is: see `Ledger::now`.
    fn take_skewed(&mut self, cells: u32, now: i64, skew: i64) -> Result<Taken, Refusal> {
        let time = now + skew + self.offset;
        match self.window.try_take(cells, time) {
            Err(Refusal::Reserve) => {
                let reservation = self.window.reserve(cells, time, Timestamp(now).into()).expect("it said so");
                self.stored = Some(reservation.record.clone());
                self.window.confirm(&reservation, time);
                self.window.try_take(cells, time)
            }
            other => other,
        }
    }

    fn release(&mut self, now: i64, written: bool) {
        let record = self.window.release(now + self.offset, Timestamp(now).into());
        if written {
            self.stored = Some(record);
            self.window.released();
        }
    }

    fn restart(&mut self, now: i64) {
        match &self.stored {
            Some(record) => {
                // As it is read from the store.
                let text = serde_json::to_string(record).expect("a record");
                let record: Record = serde_json::from_str(&text).expect("its text");
                let (window, time) = Window::restore(self.quota, &record, &Timestamp(now).into());
                (self.window, self.offset) = (window, time - now);
            }
            None => (self.window, self.offset) = (Window::new(self.quota, now), 0),
        }
    }
}

/// The most that was used in any window that begins with a use, its end excluded.
fn worst(events: &[(i64, u32)], window_ms: i64) -> u64 {
    let mut worst = 0;
    for (i, (from, _)) in events.iter().enumerate() {
        let inside = events.iter().skip(i).take_while(|(at, _)| at - from < window_ms);
        worst = worst.max(inside.map(|(_, cells)| u64::from(*cells)).sum());
    }
    worst
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn invariant_3_no_window_exceeds_the_quota_whenever_the_process_dies(
        count in prop_oneof![1u32..20, 20u32..3000],
        per in prop_oneof![Just(1000i64), Just(60_000), Just(3_600_000), Just(86_400_000)],
        steps in (Just(()), 0usize..4).prop_flat_map(|(_, scale)| {
            proptest::collection::vec(step([1000, 60_000, 3_600_000, 86_400_000][scale]), 1..80)
        }),
    ) {
        let rate = quota(count, Duration::from_millis(per.unsigned_abs()));
        let mut now = 1_790_000_000_000i64;
        let mut life = Life::new(rate, now);
        let mut events: Vec<(i64, u32)> = Vec::new();
        for step in steps {
            match step {
                Step::Pause(pause) => now += pause,
                Step::Take(times, cells) => {
                    let cells = cells.min(count);
                    for _ in 0..times {
                        match life.try_take(cells, now) {
                            Ok(_) => events.push((now, cells)),
                            Err(Refusal::Wait(wait)) => prop_assert!(wait > Duration::ZERO),
                            Err(Refusal::Reserve) => prop_assert!(false, "a fresh block is of use"),
                        }
                    }
                }
                Step::Unused(cells, pause) => {
                    let cells = cells.min(count);
                    if let Ok(taken) = life.try_take(cells, now) {
                        now += pause;
                        life.window.give_back(taken, cells, now + life.offset);
                    }
                }
                Step::Back(back) => {
                    let room = life.window.room(now + life.offset);
                    prop_assert_eq!(life.window.room(now + life.offset - back), room);
                    if life.take_skewed(1, now, -back).is_ok() {
                        events.push((now, 1));
                    }
                }
                Step::Kill(pause) => {
                    now += pause;
                    life.restart(now);
                }
                Step::KillInReservation(pause) => {
                    if let Some(r) = life.window.reserve(1, now + life.offset, Timestamp(now).into()) {
                        life.stored = Some(r.record.clone());
                    }
                    now += pause;
                    life.restart(now);
                }
                Step::KillBeforeRecord(pause) => {
                    let _ = life.window.reserve(1, now + life.offset, Timestamp(now).into());
                    now += pause;
                    life.restart(now);
                }
                Step::Release(unused) => {
                    let taken = life.try_take(1, now);
                    life.release(now, true);
                    // A later life has the room that this one has.
                    let mut again = Life { stored: life.stored.clone(), ..Life::new(rate, now) };
                    again.restart(now);
                    prop_assert_eq!(again.window.room(now + again.offset), life.window.room(now + life.offset));
                    if let (Ok(taken), Some(pause)) = (taken, unused) {
                        now += pause;
                        life.window.give_back(taken, 1, now + life.offset);
                    } else if taken.is_ok() {
                        events.push((now, 1));
                    }
                }
                Step::KillInRelease(written, pause) => {
                    life.release(now, written);
                    now += pause;
                    life.restart(now);
                }
            }
            prop_assert!(life.window.committed() <= u64::from(count));
        }
        prop_assert!(worst(&events, per) <= u64::from(count), "{} of {count}", worst(&events, per));

        // Live: after the window, two sub-windows and the time of a block everything is free.
        now += per + 3 * (per / SLOTS + 1) + BLOCK_MIN_MS;
        prop_assert_eq!(life.window.room(now + life.offset), count);
    }

    /// `wait_for` tells the truth: after it the cells are there, and not much earlier.
    #[test]
    fn the_wait_is_long_enough(count in 1u32..200, takes in proptest::collection::vec((0i64..200_000, 1u32..20), 1..60)) {
        let rate = quota(count, HOUR);
        let mut now = 0;
        let mut life = Life::new(rate, now);
        for (pause, cells) in takes {
            now += pause;
            let cells = cells.min(count);
            if let Err(Refusal::Wait(wait)) = life.try_take(cells, now) {
                let wait = i64::try_from(wait.as_millis()).expect("short");
                prop_assert!(wait <= 3_600_000 + 60_000);
                prop_assert!(life.window.clone().room(now + wait - 1) < cells);
                now += wait;
                prop_assert!(life.try_take(cells, now).is_ok());
            }
        }
    }
}

#[test]
fn a_quota_is_used_up_to_the_last_cell_and_comes_back_after_the_window() {
    let mut life = Life::new(quota(60, HOUR), 0);
    for _ in 0..60 {
        assert!(life.try_take(1, 5).is_ok());
    }
    let Err(Refusal::Wait(wait)) = life.try_take(1, 5) else { panic!("the 61st") };
    assert_eq!(wait, Duration::from_millis(3_600_000 + 60_000 - 5), "when all of the sub-window has left");
    assert!(life.try_take(1, 3_659_999).is_err());
    for _ in 0..60 {
        assert!(life.try_take(1, 3_660_000).is_ok());
    }
}

#[test]
fn writes_are_few_and_a_kill_loses_at_most_a_block() {
    let mut life = Life::new(quota(2000, HOUR), 0);
    let mut written = 0;
    for _ in 0..2000 {
        let before = life.stored.clone();
        assert!(life.try_take(1, 0).is_ok());
        written += usize::from(life.stored != before);
    }
    assert_eq!(written, 200);
    let mut life = Life::new(quota(2000, HOUR), 0);
    for _ in 0..101 {
        assert!(life.try_take(1, 0).is_ok());
    }
    life.restart(1000);
    assert_eq!(life.window.room(1000), 2000 - 110, "101 used, a block of ten begun");
}

#[test]
fn a_changed_count_starts_from_what_was_used_and_another_window_from_what_is_known() {
    let mut life = Life::new(quota(200, HOUR), 0);
    for _ in 0..150 {
        assert!(life.try_take(1, 0).is_ok());
    }
    let record = life.stored.clone().expect("a record");
    let later = Mark::from(Timestamp(60_000));
    let room = |rate: Rate| {
        let (mut window, now) = Window::restore(rate, &record, &later);
        window.room(now)
    };
    assert_eq!(room(quota(500, HOUR)), 350);
    assert_eq!(room(quota(100, HOUR)), 0, "more was used than the new quota allows");
    assert_eq!(room(quota(2000, Duration::from_secs(86_400))), 1850);
    assert_eq!(room(quota(160, Duration::from_secs(60))), 10);
    assert!(!record.is_over(&later) && record.is_over(&Timestamp(3_600_000 + 4 * 60_000).into()));
}

#[test]
fn a_clock_that_was_set_back_frees_nothing_across_a_restart() {
    let mut life = Life::new(quota(10, HOUR), 1_000_000_000);
    for _ in 0..10 {
        assert!(life.try_take(1, 1_000_000_000).is_ok());
    }
    life.restart(0);
    assert_eq!(life.window.room(life.offset), 0);
    let day = 86_400_000;
    assert_eq!(life.window.room(life.offset + day), 10, "and time goes on from there");
}
