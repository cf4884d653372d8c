use std::net::Ipv4Addr;

use super::*;
use crate::config::units::Pattern;
use crate::listener::draft::tests::NoIntake;

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

fn limit(quota: &[&str], over: Over) -> Limit {
    Limit {
        sender: Pattern::any(),
        client: Vec::new(),
        user: None,
        provider: Pattern::any(),
        rate: Vec::new(),
        quota: quota.iter().map(|number| number.parse().expect("a number")).collect(),
        count: Count::Messages,
        each_domain: false,
        each_user: false,
        over,
    }
}

fn of(user: &str) -> Sending<'_> {
    Sending { user, client: CLIENT, sender: None }
}

/// Messages of this user that come in of `tries`, to two recipients each.
fn taken(arrivals: &Arrivals, user: &str, tries: usize) -> usize {
    (0..tries).filter(|_| arrivals.take(of(user), 2).is_ok()).count()
}

#[tokio::test(start_paused = true)]
async fn no_window_has_more_than_its_number_and_each_is_at_most_a_sixteenth_longer() {
    let arrivals = Arrivals::new(&[Arc::new(limit(&["16/160s"], Over::Reject))]);
    let mut times: Vec<Instant> = Vec::new();
    for _ in 0..400 {
        if arrivals.take(of(""), 1).is_ok() {
            times.push(Instant::now());
        }
        tokio::time::advance(Duration::from_millis(1700)).await;
    }
    // 680 s: at least what windows of a sixteenth more would let in.
    assert!((60..=68).contains(&times.len()), "{}", times.len());
    for (n, first) in times.iter().enumerate() {
        let inside = times.iter().skip(n).take_while(|at| **at - *first < Duration::from_secs(160)).count();
        assert!(inside <= 16, "{inside} in a window");
    }
}

#[tokio::test(start_paused = true)]
async fn each_user_has_his_own_and_what_was_not_stored_is_not_counted() {
    let each = Limit { each_user: true, ..limit(&["3/h"], Over::Reject) };
    let arrivals = Arrivals::new(&[Arc::new(each)]);
    assert_eq!((taken(&arrivals, "Jo", 5), taken(&arrivals, "jo", 5), taken(&arrivals, "ann", 5)), (3, 0, 3));
    assert_eq!(taken(&arrivals, "", 9), 9, "nobody is no user");
    assert!(arrivals.is_over(of("JO")).is_some() && arrivals.is_over(of("bob")).is_none());
    let counted = arrivals.take(of("bob"), 1).expect("room");
    arrivals.give_back(&counted);
    assert_eq!(taken(&arrivals, "bob", 5), 3);
    tokio::time::advance(Duration::from_secs(4000)).await;
    assert_eq!(taken(&arrivals, "jo", 5), 3);
}

#[tokio::test(start_paused = true)]
async fn recipients_count_where_they_are_meant_and_one_limit_over_takes_nothing_of_the_others() {
    let both = [limit(&["100/h"], Over::Reject), limit(&["5/h recipients"], Over::Reject)];
    let arrivals = Arrivals::new(&both.map(Arc::new));
    assert_eq!(taken(&arrivals, "", 9), 2, "two recipients each");
    let mut windows = arrivals.windows.lock();
    let counted: Vec<u64> = windows.values_mut().map(|window| window.count(Instant::now())).collect();
    assert_eq!(counted.iter().sum::<u64>(), 2 + 4, "{counted:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_to_be_held_is_taken_and_takes_nobody_elses_place() {
    let both = [limit(&["2/h"], Over::Hold), limit(&["4/h"], Over::Reject)];
    let arrivals = Arrivals::new(&both.map(Arc::new));
    let held = |n: usize| {
        let counted = arrivals.take(of(""), 1).map(|counted| counted.held.map(|reached| reached.what));
        (n, counted.map_err(|reached| reached.what))
    };
    let all: Vec<_> = (0..5).map(held).collect();
    let two = || Ok(Some("2/h".to_owned()));
    assert_eq!(all, [(0, Ok(None)), (1, Ok(None)), (2, two()), (3, two()), (4, Err("4/h".to_owned()))]);
}

#[tokio::test(start_paused = true)]
async fn who_is_locked_stays_so_until_somebody_ends_it_and_is_counted_anew() {
    let own = Limit { user: Some("shop".into()), ..limit(&["2/h"], Over::Lock) };
    let arrivals = Arrivals::new(&[Arc::new(own)]);
    let intake = NoIntake::shared();
    assert_eq!((taken(&arrivals, "Shop", 5), taken(&arrivals, "ann", 5)), (2, 5));
    assert!(!arrivals.is_locked("shop"));
    // A queue that takes nothing: it holds all the same.
    let _ = arrivals.lock("Shop", "more than 2/h", Timestamp(0), intake.values()).await;
    assert!(arrivals.is_locked("shop") && arrivals.is_locked("SHOP") && !arrivals.is_locked("ann"));
    let next = Arrivals::new(&arrivals.limits);
    next.go_on_from(&arrivals);
    assert_eq!(next.locks().iter().map(|lock| &*lock.user).collect::<Vec<_>>(), ["Shop"]);
    assert_eq!(taken(&next, "shop", 1), 0);
    let _ = next.unlock("sHop", intake.values()).await;
    assert!(!next.is_locked("shop"));
    assert_eq!(taken(&next, "shop", 5), 2);
}

/// Who is told to come back with a message that is more than the whole number would do so for days.
#[tokio::test(start_paused = true)]
async fn a_message_that_is_more_than_the_whole_number_is_known_as_one() {
    let arrivals = Arrivals::new(&[Arc::new(limit(&["5/h recipients"], Over::Reject))]);
    let never = |recipients| arrivals.take(of(""), recipients).map(|_| ()).map_err(|reached| reached.never);
    assert_eq!([never(6), never(4), never(2), never(6), never(1)], [Err(true), Ok(()), Err(false), Err(true), Ok(())]);
}

#[tokio::test(start_paused = true)]
async fn the_windows_are_bounded() {
    let each = Limit { each_user: true, ..limit(&["1/h"], Over::Reject) };
    let arrivals = Arrivals::new(&[Arc::new(each)]);
    for n in 0..MOST + 10 {
        assert_eq!(taken(&arrivals, &n.to_string(), 1), 1);
    }
    assert_eq!(arrivals.windows.lock().len(), MOST);
}
