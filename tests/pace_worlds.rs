//! Receivers that nobody told the relay about, on virtual time: is their pace learned, and is what is no
//! matter of pace left alone? The worlds are data, in three sets: what the controller was tuned on, what that
//! tuning never saw, and what was written when that had been looked at as well.
//!
//! `MAILWEIR_PACE_WORLD=TEXT` runs the worlds with this in their names, `MAILWEIR_PACE_SEEDS=N` each with so
//! many seeds, `MAILWEIR_PACE_WIDE=1` those that take long, too; `MAILWEIR_PACE_FILE=FILE` replaces the sets
//! by another. `--nocapture` prints the tables, and with `MAILWEIR_PACE_TRACE=SECONDS` what each receiver accepted
//! and refused to slow us down in spans of that length.

#[path = "pace_worlds/judge.rs"]
mod judge;
#[path = "pace_worlds/world.rs"]
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use judge::Row;
use world::World;

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The worlds of a set that are asked for, once for each seed.
fn asked(set: &str) -> Vec<World> {
    let text = match setting("MAILWEIR_PACE_FILE") {
        Some(file) => std::fs::read_to_string(&file).expect("the file of MAILWEIR_PACE_FILE"),
        None => set.to_owned(),
    };
    let seeds = setting("MAILWEIR_PACE_SEEDS").and_then(|n| n.parse().ok()).unwrap_or(1);
    let (only, wide) = (setting("MAILWEIR_PACE_WORLD"), setting("MAILWEIR_PACE_WIDE").is_some());
    let is_asked = |world: &World| match &only {
        Some(only) => world.name.contains(only.as_str()),
        None => wide || !world.wide,
    };
    let worlds = world::read(&text).into_iter().filter(is_asked);
    worlds.flat_map(|world| (0..seeds).map(move |more| World { seed: world.seed + more, ..world.clone() })).collect()
}

/// What `judge` says of each, in their order. They share nothing, so each processor takes one.
fn all(worlds: &[World], judge: impl Fn(&World) -> Row + Sync) -> Vec<Row> {
    let (next, rows) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some((at, world)) =
                    Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| worlds.get(at).map(|world| (at, world)))
                {
                    let row = judge(world);
                    rows.lock().expect("a lock").push((at, row));
                }
            });
        }
    });
    let mut rows = rows.into_inner().expect("a lock");
    rows.sort_by_key(|(at, _)| *at);
    rows.into_iter().map(|(_, row)| row).collect()
}

fn check(worlds: &[World], judge: impl Fn(&World) -> Row + Sync) {
    let rows = all(worlds, judge);
    println!("{}", judge::table(&rows));
    let is_known = |world: &World, wrong: &[String]| {
        !world.misses.is_empty() && matches!(wrong, [only] if only.starts_with(&world.misses))
    };
    let wrong: Vec<String> = worlds
        .iter()
        .zip(&rows)
        .filter(|(world, row)| !row.wrong.is_empty() && !is_known(world, &row.wrong))
        .map(|(_, row)| format!("{}: {}", row.name, row.wrong.join("; ")))
        .collect();
    assert!(wrong.is_empty(), "{} of {} worlds:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}

/// What the verdicts are made of, on a log made by hand.
#[test]
fn hits_and_times_are_counted_as_they_are_meant() {
    let mut log = mailweir::model::Log::default();
    log.seconds.resize(400, Default::default());
    for second in [10, 11, 70, 131, 300] {
        log.seconds[second].throttled = 3;
    }
    for second in log.seconds.iter_mut().take(100) {
        second.accepted = 2;
    }
    // 70 belongs to what began at 10, as it comes within a minute; 131 and 300 come later than that.
    assert_eq!(judge::hits(&log), 3);
    assert_eq!((judge::when(&log, 200.0, 0.5), judge::when(&log, 200.0, 0.99)), (Some(50.0), Some(99.0)));
    assert_eq!(judge::when(&log, 201.0, 1.0), None);
    assert_eq!((judge::accepted(&log, 90, 110), judge::throttled(&log, 0, 20)), (20.0, 6.0 / 46.0));
}

const TUNING: &str = include_str!("pace_worlds/tuning.toml");
const HELD_OUT: &str = include_str!("pace_worlds/held_out.toml");
/// Written when [`HELD_OUT`] had been looked at too often.
const FRESH: &str = include_str!("pace_worlds/fresh.toml");
/// Written when [`FRESH`] had been, before what they ask was mended, and not looked at until it was.
const LATE: &str = include_str!("pace_worlds/late.toml");
/// A hidden rate beside full mailboxes, filters and the like, and the same again that the mending never saw.
const MAILBOXES: &str = include_str!("pace_worlds/mailboxes.toml");
const MAILBOXES_HELD_OUT: &str = include_str!("pace_worlds/mailboxes_held_out.toml");
/// A hidden rate below our own, and the same again that the mending never saw.
const BELOW_RATE: &str = include_str!("pace_worlds/below_rate.toml");
const BELOW_RATE_HELD_OUT: &str = include_str!("pace_worlds/below_rate_held_out.toml");
/// Full mailboxes in the very words of a hidden rate.
const SAME_WORDS: &str = include_str!("pace_worlds/same_words.toml");
/// What is counted on one connection, and the same again that the tuning never saw.
const CONNECTIONS: &str = include_str!("pace_worlds/connections.toml");
const CONNECTIONS_HELD_OUT: &str = include_str!("pace_worlds/connections_held_out.toml");

#[test]
fn the_worlds_of_the_tuning_are_learned() {
    check(&asked(TUNING), judge::judge);
}

#[test]
fn worlds_that_the_tuning_never_saw_are_learned() {
    check(&asked(HELD_OUT), judge::judge);
}

#[test]
fn worlds_that_were_written_after_the_tuning_are_learned() {
    check(&asked(FRESH), judge::judge);
}

#[test]
fn worlds_that_were_written_before_the_latest_mends_are_learned() {
    check(&asked(LATE), judge::judge);
}

#[test]
fn a_rate_is_learned_beside_what_is_no_matter_of_pace() {
    check(&asked(MAILBOXES), judge::judge);
}

#[test]
fn a_rate_is_learned_beside_what_is_no_matter_of_pace_where_the_mending_never_looked() {
    check(&asked(MAILBOXES_HELD_OUT), judge::judge);
}

#[test]
fn a_rate_below_ours_is_learned() {
    check(&asked(BELOW_RATE), judge::judge);
}

#[test]
fn a_rate_below_ours_is_learned_where_the_mending_never_looked() {
    check(&asked(BELOW_RATE_HELD_OUT), judge::judge);
}

#[test]
fn a_rate_is_learned_beside_mailboxes_in_its_words() {
    check(&asked(SAME_WORDS), judge::judge);
}

#[test]
fn what_is_counted_on_a_connection_is_learned() {
    check(&asked(CONNECTIONS), judge::judge);
}

#[test]
fn what_is_counted_on_a_connection_is_learned_where_the_tuning_never_looked() {
    check(&asked(CONNECTIONS_HELD_OUT), judge::judge);
}

/// No more is asked than a lane that knows the cap can do.
#[test]
fn a_lane_that_is_told_the_cap_does_what_is_asked() {
    check(&every(judge::can_be_told), judge::told);
}

/// That a world refuses what it says it does is seen where nothing is learned.
#[test]
fn the_worlds_refuse_what_arithmetic_says_where_nothing_is_learned() {
    check(&every(judge::is_about_a_cap), judge::without_learning);
}

/// The worlds of all sets that are like this.
fn every(is_meant: impl Fn(&World) -> bool) -> Vec<World> {
    [TUNING, HELD_OUT, FRESH].into_iter().flat_map(asked).filter(is_meant).collect()
}
