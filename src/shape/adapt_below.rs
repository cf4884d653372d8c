//! A cap below our own rate: see `worlds`, whose lane and receivers these are.

use super::*;

/// A little or far below our own rate, with one sender and with several: the trial holds a pace below it.
#[test]
fn a_cap_below_our_own_rate_is_found() {
    let mut fine = Vec::new();
    for (ours, most) in [(5.0, 4), (10.0, 3), (10.0, 8), (10.0, 9), (20.0, 19), (50.0, 15)] {
        for senders in [1, 5] {
            let setting = Setting { rate: Some(ours), senders, messages: 20_000, ..Setting::default() };
            let mut sliding = Sliding::default();
            let mut world = |now: f64, _: Mail| if sliding.takes(now, most, 1.0) { None } else { SAID[0] };
            let name = format!("{most}/s under our {ours}/s, {senders} senders");
            fine.push(cap(&name, setting, most as f64, 90, &mut world));
        }
    }
    assert!(fine.iter().all(|f| *f), "{fine:?}");
}
