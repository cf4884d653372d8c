//! Numbers of days, and no day above its number whenever the process dies or the configuration changes.

use std::time::Duration;

use super::*;
use crate::clock::Mark;
use crate::config::{Count, Overflow};
use crate::shape::quota::{Account, At, Refusal};
use proptest::prelude::*;

fn plan(days: &[u32], length: u32) -> Warmup {
    Warmup {
        start: Timestamp(20_000 * DAY_MS),
        days: days.to_vec(),
        length,
        overflow: Overflow::Wait,
        before: BeforeStart::DayOne,
    }
}

fn at(day: i64, ms: i64) -> Timestamp {
    Timestamp((20_000 + day - 1) * DAY_MS + ms)
}

fn now(clock: Timestamp) -> At {
    At { time: clock.0, clock }
}

fn account(plan: &Warmup, clock: Timestamp) -> Account {
    Account::new(Vec::new(), Some((plan.clone(), Count::Messages)), 0, now(clock))
}

/// Cells of the day that are left.
fn room(account: &mut Account, at: At) -> u32 {
    account.day_usage(at).map_or(u32::MAX, |(_, used, most, _)| most - used)
}

#[test]
fn each_day_has_its_number_and_the_plan_ends() {
    let plan = plan(&[50, 100, 200], 5);
    let allowed: Vec<_> = (-1..=7).map(|day| plan.allowance(at(day, 1))).collect();
    let expected = [50, 50, 50, 100, 200, 200, 200].map(Some);
    assert_eq!(allowed[..7], expected);
    assert_eq!(allowed[7..], [None, None]);
    assert_eq!(account(&plan, at(2, 5)).plan_text(), "warm-up day 2 of 5: 100/d");
    assert_eq!(account(&plan, at(9, 5)).plan_text(), "");
}

#[test]
fn before_its_start_a_plan_gives_the_first_number_or_nothing() {
    let early = plan(&[50, 100], 5);
    let begins = early.start.day_text();
    assert_eq!(
        account(&early, at(-3, 5)).plan_text(),
        format!("warm-up begins on {begins} (in 4 days), as on day 1 until then: 50/d")
    );
    let held = Warmup { before: BeforeStart::Nothing, ..early };
    let mut day = account(&held, at(-3, 5));
    assert_eq!(day.plan_text(), format!("warm-up begins on {begins} (in 4 days): nothing leaves until then"));
    let Err(Refusal::Wait(wait)) = day.check(1.into(), now(at(-3, 5))) else { panic!("nothing leaves") };
    assert_eq!(at(-3, 5).after(wait), held.start, "not before it begins");
    assert_eq!(room(&mut day, now(at(1, 0))), 50);
}

proptest! {
    #[test]
    fn no_day_exceeds_its_number_whenever_the_process_dies(
        days in proptest::collection::vec(1u32..500, 1..6),
        steps in proptest::collection::vec((0i64..DAY_MS / 3, 0u32..120, 1u32..4, 0u8..8), 1..120)
    ) {
        let plan = plan(&days, 20);
        let mut clock = at(1, 0);
        let mut day = account(&plan, clock);
        let (mut stored, mut offset) = (None, 0);
        let mut used = std::collections::HashMap::<i64, u32>::new();
        for (pause, times, cells, event) in steps {
            clock = Timestamp(clock.0 + pause);
            let at = |offset: i64| At { time: clock.0 + offset, clock };
            for _ in 0..times {
                if let Some(reservation) = day.reserve(cells.into(), at(offset), Mark::from(clock)) {
                    stored = Some(reservation.record.clone());
                    if event == 0 {
                        break;
                    }
                    day.confirm(&reservation, at(offset));
                }
                match day.try_take(cells.into(), at(offset)) {
                    Ok(taken) if event == 1 => day.give_back(taken, at(offset)),
                    Ok(taken) => {
                        day.left(taken, at(offset));
                        *used.entry(clock.0.div_euclid(DAY_MS)).or_default() += cells;
                    }
                    Err(refusal) => prop_assert!(matches!(refusal, Refusal::Wait(_))),
                }
            }
            if event <= 2 {
                let plan = Some((plan.clone(), Count::Messages));
                (day, offset) = match &stored {
                    Some(record) => {
                        let mark = Mark::from(clock);
                        let (day, time) = Account::restore(Vec::new(), plan, 0, record, &mark, clock);
                        (day, time - clock.0)
                    }
                    None => (Account::new(Vec::new(), plan, 0, now(clock)), 0),
                };
            }
            if event == 3 {
                // A clock that goes back an hour across midnight frees nothing.
                let (now, back): (At, _) = (at(offset), Timestamp(clock.0 - DAY_MS / 24));
                let (left, then) = (room(&mut day, now), At { clock: back, ..now });
                prop_assert!(room(&mut day, then) <= left);
            }
        }
        for (day, used) in used {
            let most = plan.allowance(Timestamp(day * DAY_MS)).unwrap_or(u32::MAX);
            prop_assert!(used <= most, "{used} of {most}");
        }
        let tomorrow = Timestamp(clock.0 + DAY_MS);
        let then = At { time: tomorrow.0 + offset, clock: tomorrow };
        prop_assert_eq!(room(&mut day, then), plan.allowance(tomorrow).unwrap_or(u32::MAX));
    }
}

#[test]
fn a_clock_set_back_by_days_takes_the_count_with_it() {
    let mut day = Day::restore(20_050, 10.into(), at(3, 0));
    assert_eq!((day.midnight(), day.used()), (at(3, 0), 10.into()));
    assert_eq!(day.tomorrow().since(at(3, 0)), Duration::from_secs(86_400), "the next day frees");
    assert!(day.advance(at(4, 0)));
    assert_eq!(day.used(), Cost::default());
}
