//! Never above and live, at random times, with processes that die at random points, and configurations
//! that change.

use super::*;
use proptest::prelude::*;

const HOUR: Duration = Duration::from_secs(3600);
const MONTH: i64 = 31 * 86_400_000;

fn cap(count: u32, per: Duration, of: Count) -> Cap {
    Cap { rate: Rate { count, per }, of }
}

/// A quota of messages.
fn quota(count: u32, per: Duration) -> Vec<Cap> {
    vec![cap(count, per, Count::Messages)]
}

/// What happens next to a gate.
#[derive(Clone, Debug)]
enum Step {
    Pause(i64),
    /// So many transactions of so many recipients, each answered after so long.
    Take(u32, u32, i64),
    /// Taken, then given back after a pause.
    Unused(u32, i64),
    /// Somebody asks with a time that was passed already.
    Back(i64),
    /// `kill -9`; so long until the next start.
    Kill(i64),
    /// `kill -9` with a transaction on its way, which the receiver counted.
    KillUnanswered(i64),
    /// `kill -9` after a record was written and before its block was used.
    KillInReservation(i64),
    /// Killed before the record was written.
    KillBeforeRecord(i64),
    /// The block is given up, after a transaction that is given back later if there is a pause.
    Release(Option<i64>),
    /// The same, and killed: after the record was written, or before.
    KillInRelease(bool, i64),
    /// An orderly end, and another configuration: one of those there are, or none.
    Reload(usize),
}

fn step(scale: i64) -> impl Strategy<Value = Step> {
    let pause = prop_oneof![Just(0), 0..scale / 20, 0..scale, Just(scale), Just(scale / 60)];
    let short = 0..scale / 10;
    prop_oneof![
        3 => pause.clone().prop_map(Step::Pause),
        8 => (1u32..30, 1u32..4, prop_oneof![Just(0i64), 0i64..2000])
            .prop_map(|(n, recipients, took)| Step::Take(n, recipients, took)),
        2 => (1u32..4, short.clone()).prop_map(|(recipients, pause)| Step::Unused(recipients, pause)),
        1 => pause.clone().prop_map(Step::Back),
        1 => pause.clone().prop_map(Step::Kill),
        1 => short.clone().prop_map(Step::KillUnanswered),
        1 => short.clone().prop_map(Step::KillInReservation),
        1 => short.clone().prop_map(Step::KillBeforeRecord),
        1 => proptest::option::of(short.clone()).prop_map(Step::Release),
        1 => (any::<bool>(), short).prop_map(|(written, pause)| Step::KillInRelease(written, pause)),
        3 => (0usize..5).prop_map(Step::Reload),
    ]
}

/// A gate with its store. `now` is the real time; the account's own time is `now + offset`.
struct Life {
    caps: Vec<Cap>,
    account: Account,
    offset: i64,
    stored: Option<Record>,
}

impl Life {
    fn new(caps: Vec<Cap>, now: i64) -> Life {
        let account = Account::new(caps.clone(), None, MONTH, At { time: now, clock: Timestamp(now) });
        Life { caps, account, offset: 0, stored: None }
    }

    fn at(&self, now: i64) -> At {
        At { time: now + self.offset, clock: Timestamp(now) }
    }

    fn try_take(&mut self, cost: Cost, now: i64) -> Result<Taken, Refusal> {
        self.take_skewed(cost, now, 0)
    }

    /// With a time that is `skew` late. The wall clock of records never is: see `Ledger::now`.
    fn take_skewed(&mut self, cost: Cost, now: i64, skew: i64) -> Result<Taken, Refusal> {
        let at = At { time: now + skew + self.offset, clock: Timestamp(now) };
        match self.account.try_take(cost, at) {
            Err(Refusal::Reserve) => {
                let reservation = self.account.reserve(cost, at, Timestamp(now).into()).expect("it said so");
                self.stored = Some(reservation.record.clone());
                self.account.confirm(&reservation, at);
                self.account.try_take(cost, at)
            }
            other => other,
        }
    }

    /// One message to one recipient that is answered at once.
    fn send(&mut self, now: i64) -> bool {
        let taken = self.try_take(Cost::LEAST, now);
        let sent = taken.is_ok();
        if let Ok(taken) = taken {
            self.account.left(taken, self.at(now));
        }
        sent
    }

    fn release(&mut self, now: i64, written: bool) {
        let record = self.account.release(self.at(now), Timestamp(now).into());
        if written {
            self.stored = Some(record);
            self.account.released();
        }
    }

    fn restart(&mut self, now: i64) {
        let Some(record) = &self.stored else {
            *self = Life::new(self.caps.clone(), now);
            return;
        };
        // As it is read from the store.
        let text = serde_json::to_string(record).expect("a record");
        let record: Record = serde_json::from_str(&text).expect("its text");
        let mark = Timestamp(now).into();
        let (account, time) = Account::restore(self.caps.clone(), None, MONTH, &record, &mark, Timestamp(now));
        (self.account, self.offset) = (account, time - now);
    }

    fn room(&mut self, now: i64) -> u32 {
        let at = self.at(now);
        let (used, most, _) = self.account.usage(0, at).expect("a quota");
        most - used
    }

    /// The most that counts against any of its quotas, as a part of it.
    fn is_within(&self) -> bool {
        let block = self.account.block.left;
        self.caps.iter().all(|cap| self.account.used(cap) + u64::from(block.count(cap.of)) <= u64::from(cap.most()))
    }
}

/// What was counted in the window of that length that ends at the last of the events, its start excluded.
fn counted(events: &[(i64, Cost)], cap: &Cap) -> u64 {
    let Some((end, _)) = events.last() else { return 0 };
    let inside = events.iter().rev().take_while(|(at, _)| end - at < cap.window());
    inside.map(|(_, cost)| u64::from(cost.count(cap.of))).sum()
}

/// Lengths, numbers and units of quotas that replace each other.
fn configurations() -> impl Strategy<Value = Vec<Vec<Cap>>> {
    let of = prop_oneof![Just(Count::Messages), Just(Count::Recipients)];
    let per = prop_oneof![Just(1000u64), Just(60_000), Just(3_600_000), Just(7_200_000), Just(86_400_000)];
    let cap = (prop_oneof![4u32..20, 20u32..3000], per, of)
        .prop_map(|(count, per, of)| self::cap(count, Duration::from_millis(per), of));
    proptest::collection::vec(proptest::collection::vec(cap, 0..3), 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// Against a naive receiver that knows every departure: whatever the configurations were before, none
    /// of the quotas in force lets anything leave that is beyond it, counted over its whole window.
    #[test]
    fn invariant_3_no_window_exceeds_the_quota_whatever_was_configured_before(
        configurations in configurations(),
        steps in (Just(()), 0usize..4).prop_flat_map(|(_, scale)| {
            proptest::collection::vec(step([1000, 60_000, 3_600_000, 86_400_000][scale]), 1..80)
        }),
    ) {
        let mut now = 1_790_000_000_000i64;
        let mut life = Life::new(configurations[0].clone(), now);
        let mut events: Vec<(i64, Cost)> = Vec::new();
        // What was counted is within every quota that was in force when it left.
        let note = |events: &mut Vec<(i64, Cost)>, life: &Life, at: i64, cost: Cost| {
            events.push((at, cost));
            for cap in &life.caps {
                let counted = counted(events, cap);
                prop_assert!(counted <= u64::from(cap.most()), "{counted} of {cap:?}");
            }
            Ok(())
        };
        for step in steps {
            match step {
                Step::Pause(pause) => now += pause,
                Step::Take(times, recipients, took) => {
                    let cost = Cost { messages: 1, recipients };
                    for time in 0..times {
                        match life.try_take(cost, now) {
                            Ok(taken) => {
                                // The receiver counts it at its first moment or at its last.
                                let began = now;
                                now += took;
                                note(&mut events, &life, if time % 2 == 0 { began } else { now }, cost)?;
                                life.account.left(taken, life.at(now));
                            }
                            Err(Refusal::Wait(wait)) => prop_assert!(wait > Duration::ZERO),
                            Err(Refusal::Reserve) => prop_assert!(false, "a fresh block is of use"),
                        }
                    }
                }
                Step::Unused(recipients, pause) => {
                    if let Ok(taken) = life.try_take(Cost { messages: 1, recipients }, now) {
                        now += pause;
                        life.account.give_back(taken, life.at(now));
                    }
                }
                Step::Back(back) if !life.caps.is_empty() => {
                    let room = life.room(now);
                    prop_assert_eq!(life.room(now - back), room);
                    if let Ok(taken) = life.take_skewed(Cost::LEAST, now, -back) {
                        note(&mut events, &life, now, Cost::LEAST)?;
                        life.account.left(taken, life.at(now));
                    }
                }
                Step::Back(_) => {}
                // Where nothing is limited, what left is stored at times only.
                Step::Kill(_) | Step::KillUnanswered(_) | Step::KillInReservation(_) | Step::KillBeforeRecord(_)
                | Step::KillInRelease(..) if life.caps.is_empty() => {}
                Step::Kill(pause) => {
                    now += pause;
                    life.restart(now);
                }
                Step::KillUnanswered(pause) => {
                    if life.try_take(Cost::LEAST, now).is_ok() {
                        now += pause.min(GRACE);
                        note(&mut events, &life, now, Cost::LEAST)?;
                    }
                    now += pause;
                    life.restart(now);
                }
                Step::KillInReservation(pause) => {
                    let at = life.at(now);
                    if let Some(r) = life.account.reserve(Cost::LEAST, at, Timestamp(now).into()) {
                        life.stored = Some(r.record.clone());
                    }
                    now += pause;
                    life.restart(now);
                }
                Step::KillBeforeRecord(pause) => {
                    let at = life.at(now);
                    let _ = life.account.reserve(Cost::LEAST, at, Timestamp(now).into());
                    now += pause;
                    life.restart(now);
                }
                Step::Release(unused) => {
                    let taken = life.try_take(Cost::LEAST, now);
                    life.release(now, true);
                    // A later life has the room that this one has.
                    let mut again = Life { stored: life.stored.clone(), ..Life::new(life.caps.clone(), now) };
                    again.restart(now);
                    if !life.caps.is_empty() {
                        prop_assert_eq!(again.room(now), life.room(now));
                    }
                    match (taken, unused) {
                        (Ok(taken), Some(pause)) => {
                            now += pause;
                            life.account.give_back(taken, life.at(now));
                        }
                        (Ok(taken), None) => {
                            note(&mut events, &life, now, Cost::LEAST)?;
                            life.account.left(taken, life.at(now));
                        }
                        (Err(_), _) => {}
                    }
                }
                Step::KillInRelease(written, pause) => {
                    life.release(now, written);
                    now += pause;
                    life.restart(now);
                }
                Step::Reload(which) => {
                    life.release(now, true);
                    life.caps = configurations.get(which).cloned().unwrap_or_default();
                    life.restart(now);
                    continue;
                }
            }
            // Of what another configuration let leave there may be more.
        }
        // Live: after the longest window, a sixtieth of it, its slack and a block everything is free.
        let longest = life.caps.iter().map(Cap::window).max().unwrap_or_default();
        now += longest + longest / 16 + 2 * GRACE + 2000;
        let full = Cost { messages: 0, recipients: 0 };
        prop_assert_eq!(life.account.wait_for(full, life.at(now)), Duration::ZERO);
        for (at, cap) in life.caps.clone().iter().enumerate() {
            let (used, ..) = life.account.usage(at, life.at(now)).expect("a quota");
            prop_assert_eq!(used, 0, "{:?}", cap);
        }
        prop_assert!(life.is_within());
    }

    /// `wait_for` tells the truth: after it the cells are there, and not much earlier.
    #[test]
    fn the_wait_is_long_enough(count in 1u32..200, takes in proptest::collection::vec((0i64..200_000, 1u32..20), 1..60)) {
        let mut now = 0;
        let mut life = Life::new(vec![cap(count, HOUR, Count::Recipients)], now);
        for (pause, recipients) in takes {
            now += pause;
            let cost = Cost { messages: 1, recipients: recipients.min(count) };
            let taken = match life.try_take(cost, now) {
                Err(Refusal::Wait(wait)) => {
                    let wait = i64::try_from(wait.as_millis()).expect("short");
                    prop_assert!(wait <= 3_600_000 + 60_000 + slack(3_600_000));
                    let early = At { time: now + wait - 1, clock: Timestamp(now) };
                    prop_assert!(life.account.clone().wait_for(cost, early) > Duration::ZERO);
                    now += wait;
                    life.try_take(cost, now)
                }
                other => other,
            };
            prop_assert!(taken.is_ok());
            life.account.left(taken.expect("it is"), life.at(now));
        }
    }

    /// A receiver that counts behind its answer, or whose network takes a while for one of two messages,
    /// or whose clock runs a little fast, sees no more in any window than the quota.
    #[test]
    fn a_receiver_that_counts_late_counts_no_more(
        per in prop_oneof![Just(1000i64), Just(60_000), Just(3_600_000)],
        count in 1u32..40,
        seed in any::<u64>(),
    ) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut life = Life::new(quota(count, Duration::from_millis(per.unsigned_abs())), 0);
        let (mut now, mut events) = (0, Vec::new());
        for _ in 0..4 * count {
            match life.try_take(Cost::LEAST, now) {
                Ok(taken) => {
                    let began = now;
                    now += random.i64(0..per / 200 + 1);
                    events.push(random.i64(began..=now + slack(per)));
                    life.account.left(taken, life.at(now));
                }
                Err(Refusal::Wait(wait)) => now += i64::try_from(wait.as_millis()).expect("short"),
                Err(Refusal::Reserve) => prop_assert!(false, "a fresh block is of use"),
            }
        }
        events.sort_unstable();
        for (i, from) in events.iter().enumerate() {
            let inside = events[i..].iter().take_while(|at| **at - from < per).count();
            prop_assert!(inside <= count as usize, "{inside} of {count}");
        }
    }
}

#[test]
fn a_quota_is_used_up_to_the_last_cell_and_comes_back_after_the_window() {
    let mut life = Life::new(quota(60, HOUR), 0);
    for _ in 0..60 {
        assert!(life.send(5));
    }
    let Err(Refusal::Wait(wait)) = life.try_take(Cost::LEAST, 5) else { panic!("the 61st") };
    assert_eq!(wait, Duration::from_millis(3_600_000 + 1000 + 1000 - 5), "the grain and the slack are a second each");
    assert!(!life.send(3_601_999));
    for _ in 0..60 {
        assert!(life.send(3_602_000));
    }
}

#[test]
fn what_is_on_its_way_counts_until_a_window_after_its_answer() {
    let mut life = Life::new(quota(1, Duration::from_secs(60)), 0);
    let taken = life.try_take(Cost::LEAST, 0).expect("the first");
    assert!(!life.send(500_000), "the server may still count it");
    life.account.left(taken, life.at(500_000));
    assert!(!life.send(560_999) && life.send(562_000));
}

#[test]
fn writes_are_few_and_a_kill_loses_at_most_a_block() {
    let mut life = Life::new(quota(2000, HOUR), 0);
    let mut written = 0;
    for _ in 0..2000 {
        let before = life.stored.clone();
        assert!(life.send(0));
        written += usize::from(life.stored != before);
    }
    assert_eq!(written, 200);
    let mut life = Life::new(quota(2000, HOUR), 0);
    for _ in 0..101 {
        assert!(life.send(0));
    }
    life.restart(1000);
    assert_eq!(life.room(1000), 2000 - 110, "101 used, a block of ten begun");
}

/// 50 an hour, then 150 in two hours, then 150 an hour: reloads made 250 of it.
#[test]
fn a_quota_that_is_changed_and_changed_back_counts_what_left_in_between() {
    let mut life = Life::new(quota(50, HOUR), 0);
    let mut sent = 0;
    for caps in [quota(50, HOUR), quota(150, 2 * HOUR), quota(150, HOUR), Vec::new(), quota(150, HOUR)] {
        life.release(1000, true);
        life.caps = caps;
        life.restart(1000);
        // Without any quota a few leave, too.
        let most = if life.caps.is_empty() { 7 } else { 1000 };
        sent += (0..most).take_while(|_| life.send(1000)).count();
    }
    assert_eq!(sent, 157);
    life.release(1000, true);
    (life.caps, sent) = (vec![cap(200, HOUR, Count::Recipients)], 0);
    life.restart(1000);
    while life.send(1000) {
        sent += 1;
    }
    assert_eq!(sent, 43);
}

#[test]
fn a_clock_that_was_set_back_frees_nothing_across_a_restart() {
    let mut life = Life::new(quota(10, HOUR), 1_000_000_000);
    for _ in 0..10 {
        assert!(life.send(1_000_000_000));
    }
    life.restart(0);
    assert_eq!(life.room(0), 0);
    let day = 86_400_000;
    assert_eq!(life.room(day), 10, "and time goes on from there");
}

#[test]
fn a_record_of_a_month_of_mail_stays_small() {
    let mut life = Life::new(quota(1_000_000, HOUR), 0);
    for minute in 0..31 * 24 * 60 {
        assert!(life.send(minute * 60_000));
    }
    life.release(MONTH, true);
    let size = serde_json::to_string(&life.stored).expect("a record").len();
    assert!(size < 10_000, "{size}");
}
