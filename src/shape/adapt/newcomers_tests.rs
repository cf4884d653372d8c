use super::*;
use crate::mail::Features;

fn mail(sender: &str) -> FeatureKeys {
    Features::from(sender).keys()
}

fn one(number: u64, sender: &str) -> Newcomer {
    Newcomer { number, working: 2, mail: mail(sender), said: false }
}

const NOW: Timestamp = Timestamp(1_790_000_000_000);

/// `rounds` refusals of newcomers; between two of them the others take `between`. After how many it is believed.
fn rounds(known: &mut Newcomers, from: u64, senders: &[&str], between: &[&str], rounds: u64) -> Option<u64> {
    (0..rounds).find(|n| {
        let sender = senders[usize::try_from(*n).unwrap() % senders.len()];
        let found = known.refused(one(from + n, sender), NOW).is_some();
        between.iter().for_each(|sender| known.served(mail(sender)));
        found
    })
}

const ALL: [&str; 5] = ["a@a.test", "b@b.test", "c@c.test", "d@d.test", "e@e.test"];

#[test]
fn whatever_mail_newcomers_bring_while_others_take_it_is_about_their_number() {
    let mut known = Newcomers::default();
    assert_eq!(rounds(&mut known, 10, &ALL, &ALL, 20), Some(6));
    // And how many worked, and which was the first that was too many.
    let mut known = Newcomers::default();
    assert_eq!(rounds(&mut known, 10, &ALL, &ALL, 6), None);
    assert_eq!(known.refused(one(16, "a@a.test"), NOW), Some((2, 10)));
    assert_eq!(known, Newcomers::default());
}

#[test]
fn mail_that_nobody_takes_is_refused_for_itself() {
    let good = ["x@x.test", "y@y.test", "z@z.test"];
    assert_eq!(rounds(&mut Newcomers::default(), 1, &ALL[..1], &good, 200), None, "one sender");
    assert_eq!(rounds(&mut Newcomers::default(), 1, &ALL, &good, 200), None, "five, again and again");
    // At RCPT it is one of the domains, of whichever sender.
    let to = |n: u64, to| Newcomer { mail: Features::of("x@x.test", [to], 0).keys(), ..one(n, "") };
    let mut known = Newcomers::default();
    for n in 0..200 {
        assert_eq!(known.refused(to(n, "u@poison.test"), NOW), None);
        known.served(Features::of("x@x.test", ["u@good.test"], 0).keys());
    }
}

#[test]
fn a_pace_or_a_bad_moment_hits_the_others_as_well() {
    // Many at once are one.
    let mut known = Newcomers::default();
    for n in 0..100 {
        assert_eq!(known.refused(one(n, ALL[usize::try_from(n).unwrap() % 5]), NOW), None);
    }
    ALL.iter().for_each(|sender| known.served(mail(sender)));
    assert_eq!(known.refused(one(100, "a@a.test"), NOW), None);
    // A third is refused, of whomever.
    let mut known = Newcomers::default();
    for n in 0..200 {
        let found = known.refused(one(n, ALL[usize::try_from(n).unwrap() % 5]), NOW);
        assert_eq!(found, None);
        known.refused_at_work();
        known.served(mail("a@a.test"));
        known.served(mail(ALL[usize::try_from(n).unwrap() % 5]));
    }
}

#[test]
fn one_more_that_is_taken_ends_the_row_and_one_in_the_place_of_another_does_not() {
    let mut known = Newcomers::default();
    assert_eq!(rounds(&mut known, 10, &ALL, &ALL, 5), None);
    known.taken(99, 2);
    assert!(known.is_in_doubt(), "two work as before");
    known.taken(9, 3);
    assert!(known.is_in_doubt(), "it had begun before");
    known.taken(99, 3);
    assert_eq!(known, Newcomers::default());
    assert_eq!(rounds(&mut known, 10, &ALL, &ALL, 5), None);
    known.advance(NOW.after(APART));
    assert_eq!(known, Newcomers::default());
}

#[test]
fn further_ones_are_opened_one_at_a_time_from_the_second_on() {
    let mut known = Newcomers::default();
    assert_eq!(rounds(&mut known, 1, &ALL, &ALL, 1), None);
    assert_eq!(known.doubt(NOW), None);
    assert_eq!(rounds(&mut known, 2, &ALL, &ALL, 1), None);
    assert_eq!(known.doubt(NOW), Some(Doubt { gap: GAP, lasts: DOUBT_MOST, open: 0 }));
    assert_eq!(known.doubt(NOW.after(DOUBT_MOST)), None);
}

#[test]
fn a_lane_keeps_the_connections_that_work_and_more_of_them_only_when_they_take_mail() {
    use crate::shape::adapt::{Adapt, Configured};
    let mut adapt = Adapt::new(Configured { rate: None, connections: 8, messages: 100, adaptive: true });
    for n in 0..6 {
        assert_eq!(adapt.refused_newcomer(one(10 + n, "a@a.test"), NOW, "421 busy"), None, "it is judged as usual");
        ALL.iter().for_each(|sender| adapt.took((1, false), mail(sender), 2, NOW));
    }
    assert_eq!(adapt.limits(NOW).connections, 8);
    assert_eq!(adapt.refused_newcomer(one(16, "a@a.test"), NOW, "421 busy"), Some(true));
    assert_eq!(adapt.limits(NOW).connections, 2);
    assert_eq!(adapt.refused_newcomer(one(17, "z@z.test"), NOW, "421 busy"), Some(false));
    let alone = Newcomer { working: 1, ..one(18, "a@a.test") };
    assert_eq!(adapt.refused_newcomer(alone, NOW, "421 busy"), None, "there was a place");
    adapt.opened((18, 3), NOW);
    assert_eq!(adapt.limits(NOW).connections, 2, "that was so before");
    adapt.took((18, true), mail("a@a.test"), 3, NOW);
    assert_eq!(adapt.limits(NOW).connections, 3);
}
