//! Worlds in which bytes are counted: a window that is full for most still takes small messages. See `worlds`, whose
//! lane and receivers these are.

use super::*;

/// At most so many bytes in any window of so many seconds.
fn window_of_bytes(most: u64, seconds: f64) -> impl FnMut(f64, Mail) -> No {
    let mut passed: VecDeque<(f64, u64)> = VecDeque::new();
    let mut sum = 0;
    move |now, mail| {
        while let Some((_, bytes)) = passed.front().copied().filter(|(at, _)| now - at >= seconds) {
            sum -= bytes;
            passed.pop_front();
        }
        let bytes = size_of(mail);
        if sum + bytes > most {
            return Some((Stage::Final, 452, Some((4, 3, 1)), "liian paljon dataa"));
        }
        sum += bytes;
        passed.push_back((now, bytes));
        None
    }
}

/// However the mail comes and however fast it may leave at first: small messages that slip into a full window are
/// neither its end nor a pace, and no sender is tried while nothing passes.
#[test]
fn a_window_of_bytes_is_found_though_small_messages_slip_into_it() {
    let mut wrong = Vec::new();
    for (megabytes, workers, trip, senders, fed) in [
        (6_u32, 8, 0.04, 2, 53.0),
        (10, 20, 0.3, 2, 0.0),
        (14, 3, 0.1, 4, 124.0),
        (24, 20, 0.1, 4, 212.0),
        (30, 20, 0.04, 4, 265.0),
    ] {
        let cap = f64::from(megabytes) * 1e6 / 60.0 / 18_384.0 * 0.975;
        let setting = Setting { workers, trip, senders, fed, until: 480.0, ..Setting::default() };
        let mut world = window_of_bytes(u64::from(megabytes) * 1_000_000, 60.0);
        let name = format!("{megabytes} MB/min, {workers} workers, fed {fed}");
        if !super::cap(&name, setting, cap, 120, &mut world) {
            wrong.push(name);
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// The level of a pace that collapsed is left by its own speed, not by the average of all that was tried since.
#[test]
fn a_slow_rate_that_is_used_is_told_by_its_last_attempts() {
    let mut meter = super::super::meter::Meter::default();
    // 200 s at one in four seconds, then a second apart.
    (0..50).for_each(|n| meter.note(1.0, true, at(4.0 * f64::from(n))));
    (1..=4).for_each(|n| meter.note(1.0, true, at(196.0 + f64::from(n))));
    let now = at(200.2);
    assert!(meter.rates(now).0 < 0.4, "the average has not seen it");
    assert!(meter.keeps_up(1.0, now) && !meter.keeps_up(10.0, now));
    assert!(!meter.keeps_up(1.0, at(220.0)), "nothing was tried any more");
}

#[test]
fn what_is_accepted_is_smaller_where_bytes_are_counted() {
    let mut meter = super::super::meter::Meter::default();
    for n in 0..100u32 {
        let (bytes, passes) = (f64::from(1000 + 100 * n), n < 50);
        meter.note(1.0, passes, at(f64::from(n) / 20.0));
        meter.note_size(bytes, passes);
    }
    assert!((meter.smaller() - 3450.0 / 5950.0).abs() < 0.01, "{}", meter.smaller());
}
