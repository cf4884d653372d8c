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

/// The evidence is what was seen, and beside it stands how much is refused now.
#[test]
fn what_is_refused_now_is_told() {
    for (ours, most, was) in [(Some(10.0), 8, "refused at full speed"), (None, 12, "nothing passed any more")] {
        let setting = Setting { rate: ours, messages: 20_000, ..Setting::default() };
        let mut sliding = Sliding::default();
        let mut world = |now: f64, _: Mail| if sliding.takes(now, most, 1.0) { None } else { SAID[0] };
        let told = run(setting, &mut world).explained;
        let line = told.iter().find(|line| line.starts_with("about the pace")).expect("it was learned");
        assert!(line.contains(was) && line.contains("; now ") && line.contains(" of the last "), "{line}");
    }
}
