//! Worlds in which each sender, or one of them, has a cap of its own: see `worlds`, whose lane and receivers
//! these are.

use super::*;

/// Each sender, or those that are meant, has so many in a window.
fn capped(most: usize, seconds: f64, is_meant: fn(u32) -> bool) -> impl FnMut(f64, Mail) -> No {
    let mut windows: BTreeMap<u32, Sliding> = BTreeMap::new();
    move |now, mail| {
        let free = !is_meant(mail.sender) || windows.entry(mail.sender).or_default().takes(now, most, seconds);
        if free { None } else { Some((Stage::Mail, 450, Some((4, 7, 1)), "Votre débit est dépassé")) }
    }
}

#[test]
fn one_that_meets_its_cap_waits_and_fifty_others_do_not() {
    for most in [2, 3] {
        // Each brings four a second.
        let setting = Setting { senders: 51, fed: 204.0, messages: u32::MAX, until: 400.0, ..Setting::default() };
        let mut world = capped(most, 1.0, |sender| sender == 7);
        let run = run(setting, &mut world);
        let cap = most as f64;
        let (own, others) = (run.goodput_of(150.0, 400.0, |s| s == 7), run.goodput_of(150.0, 400.0, |s| s != 7));
        println!("{own:.2}/s of {cap}, others {others:.1}/s, {:.2} % refused", 100.0 * run.refused(150, 400));
        assert!(own >= 0.92 * cap, "{own}/s of {cap}");
        assert!(others >= 0.99 * 200.0 && !run.is_slowed(), "{others}/s, {:?}", run.explained);
        // Of its own attempts, which are few among those of all.
        let refused: u32 = run.seconds[150..400].iter().map(|second| second.1).sum();
        assert!(f64::from(refused) <= 0.03 * own * 250.0 / 0.97, "{refused} refused, {:?}", run.findings);
        assert!(run.judged(Verdict::SenderPace) && run.slowed() == 1, "{:?}", run.findings);
    }
}

#[test]
fn where_each_has_a_cap_each_gets_a_pace_and_the_lane_none() {
    for (most, senders) in [(3, 4), (6, 12)] {
        let mut world = capped(most, 1.0, |_| true);
        let run = run(Setting { senders, ..Setting::default() }, &mut world);
        let goodput = run.goodput(90, 300) / f64::from(most as u32 * senders);
        let refused = run.refused(90, 300);
        println!("{most}/s of each of {senders}: {goodput:.3}, {:.2} % refused", 100.0 * refused);
        assert!(goodput >= 0.92 && refused <= 0.03, "{goodput} {refused}");
        assert!(run.judged(Verdict::SenderPace) && !run.is_slowed(), "{:?} {:?}", run.findings, run.explained);
        assert_eq!(run.slowed(), senders.min(10) as usize);
    }
}

/// It mailed alone at first, so that its pace was taken for the lane's; then others come, who have none.
#[test]
fn what_was_taken_for_the_lanes_pace_is_found_to_be_one_senders() {
    let mut sliding = Sliding::default();
    let no: No = Some((Stage::Rcpt, 452, None, "hitaampaa"));
    // Until 100 s everybody is that sender.
    let mut world = |now: f64, mail: Mail| {
        let capped = now < 100.0 || mail.sender == 0;
        if !capped || sliding.takes(now, 10, 1.0) { None } else { no }
    };
    let setting = Setting { senders: 9, fed: 60.0, messages: u32::MAX, until: 700.0, ..Setting::default() };
    let run = run(setting, &mut world);
    let others = run.goodput_of(500.0, 700.0, |s| s != 0);
    assert!(others >= 0.95 * 60.0 * 8.0 / 9.0, "{others}/s, {:?} {:?}", run.findings, run.explained);
}

/// Whatever round trips are equal: of a bucket the first of those that come together get what it has, and whoever comes
/// between them always finds something. That is no pace of senders.
#[test]
fn a_bucket_that_messages_meet_in_step_is_no_cap_of_each_sender() {
    for (most, senders) in [(55, 4), (65, 4), (47, 3), (90, 5)] {
        let mut bucket = Bucket::full(f64::from(most));
        let no: No = Some((Stage::Mail, 450, Some((4, 7, 1)), "Příliš rychle"));
        let mut world = |now: f64, _: Mail| if bucket.takes(now, f64::from(most), f64::from(most)) { None } else { no };
        let setting = Setting { senders, in_step: true, ..Setting::default() };
        let run = run(setting, &mut world);
        let goodput = run.goodput(90, 300) / f64::from(most);
        println!("{most}/s, {senders} senders: {goodput:.3}, {:.2} % refused", 100.0 * run.refused(90, 300));
        assert!(!run.judged(Verdict::SenderPace) && run.slowed() == 0, "{:?} {:?}", run.findings, run.explained);
        assert!(goodput >= 0.92 && run.refused(90, 300) <= 0.03, "{goodput}");
    }
}

#[test]
fn a_sender_that_is_blocked_has_no_pace() {
    let mut world = |_: f64, mail: Mail| {
        (mail.sender == 3).then_some((Stage::Mail, 451, Some((4, 7, 1)), "too many messages, try again later"))
    };
    let run = run(Setting { fed: 20.0, messages: 6000, until: 900.0, ..Setting::default() }, &mut world);
    assert_eq!((run.slowed(), run.is_slowed()), (0, false), "{:?}", run.explained);
}

/// A client has a sender of its own for each message: what is learned is the lane's pace, and nothing is kept for
/// any of them.
#[test]
fn senders_that_are_invented_teach_nothing_of_senders() {
    let mut sliding = Sliding::default();
    let no: No = Some((Stage::Mail, 451, None, "Vent litt"));
    let mut world = |now: f64, _: Mail| if sliding.takes(now, 12, 1.0) { None } else { no };
    let run = run(Setting { senders: u32::MAX, ..Setting::default() }, &mut world);
    assert!(run.goodput(90, 300) >= 0.92 * 12.0 && run.refused(90, 300) <= 0.03);
    assert_eq!((run.slowed(), run.is_slowed()), (0, true), "{:?}", run.explained);
    let (mut table, now) = (by_sender::BySender::default(), at(0.0));
    for n in 0..10_000 {
        let party =
            Party { recipient: n, sender: if n % 50 == 0 { 1 } else { n }, message: n, size: 1000, again: false };
        table.refused(7, party, false, 1, now);
        assert!(table.len() <= 64);
    }
    assert!(table.of(7, 1).is_some_and(|of| of.has_witnesses()), "who is refused again and again keeps its place");
}

#[test]
fn paces_of_senders_outlive_the_process_and_are_forgotten_by_command() {
    let mut world = capped(3, 1.0, |_| true);
    let run = run(Setting { senders: 4, ..Setting::default() }, &mut world);
    let configured = Configured { rate: None, connections: 20, messages: 1_000_000, adaptive: true };
    let stored = run.stored.expect("something was learned");
    assert!(stored.len() < 16_384, "{} bytes", stored.len());
    let mut adapt = Adapt::restore(configured, &stored, at(301.0)).expect("it still holds");
    let paces: Vec<(u64, f64)> = adapt.senders(at(301.0)).filter_map(|pace| Some((pace.key, pace.rate?))).collect();
    assert!((0..4).all(|n| paces.iter().any(|(key, _)| *key == sender_key(&format!("s{n}@a.example")))), "{paces:?}");
    assert!(paces.iter().all(|(_, rate)| (2.0..4.5).contains(rate)), "{paces:?}");
    assert!(Adapt::restore(Configured { adaptive: false, ..configured }, &stored, at(301.0)).is_none());
    assert!(Adapt::restore(configured, &stored, at(301.0 + 90_000.0)).is_none(), "a day later it is over");
    adapt.forget();
    assert!(!adapt.has_senders() && adapt.store().is_none());
}
