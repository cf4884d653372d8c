//! Deterministic simulation of the whole relay: one seed is one world, one course of events.
//!
//! `MAILWEIR_SIMULATION_SEED=n` runs one seed (`MAILWEIR_SIMULATION_TRACE=1` prints its trace);
//! `MAILWEIR_SIMULATION_HOURS=100000` runs until so many hours are simulated.

#[path = "simulation/run.rs"]
mod simulation;

use std::time::{Duration, Instant};

use simulation::{Outcome, run};

/// Seeds that once failed. They stay.
const REGRESSIONS: &[u64] = &[
    // An operator's command took a recipient out of memory, and the disk was full for longer than
    // it was tried to put it back into the queue.
    3, // A reply within the last second of the time-out: the model took it for one that came too late.
    25,
    // A reply after the relay had given up, read at the end of the connection and thrown away: the
    // model took it for known.
    40, // A DSN of the last hours waits for a quota of a day: the model gave it no time of its own.
    251,
];

fn check(seed: u64) -> Outcome {
    let outcome = run(seed);
    assert!(
        outcome.wrong.is_empty(),
        "seed {seed} fails (MAILWEIR_SIMULATION_SEED={seed} runs it alone):\n{}",
        outcome.wrong.join("\n")
    );
    outcome
}

#[test]
fn the_invariants_hold_in_simulated_worlds() {
    simulation::watch_panics();
    if let Some(seed) = std::env::var("MAILWEIR_SIMULATION_SEED").ok().and_then(|seed| seed.parse().ok()) {
        println!("{:#?}", check(seed));
        return;
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let hours = number("MAILWEIR_SIMULATION_HOURS");
    let first = number("MAILWEIR_SIMULATION_FIRST").unwrap_or(1);
    let (began, mut simulated, mut failed) = (Instant::now(), Duration::ZERO, Vec::new());
    let mut sum = simulation::Sum::default();
    for seed in first.. {
        let outcome = run(seed);
        simulated += outcome.simulated;
        sum.add(&outcome);
        if !outcome.wrong.is_empty() {
            println!("seed {seed} fails:\n{}", outcome.wrong.join("\n"));
            failed.push(seed);
        }
        let enough = match hours {
            Some(hours) => simulated.as_secs() >= hours * 3600,
            None => seed >= first + 7,
        };
        if enough || failed.len() >= 20 {
            break;
        }
    }
    let took = began.elapsed();
    println!("{} hours in {took:?}: {sum:?}", simulated.as_secs() / 3600);
    assert!(failed.is_empty(), "failing seeds: {failed:?}");
}

#[test]
fn seeds_that_failed_once_pass() {
    for seed in REGRESSIONS {
        check(*seed);
    }
}

#[test]
fn one_seed_has_one_course() {
    // Reports are written on threads of their own. Where one is ready in the very moment in which a host is called, as in seed
    // 3, which of both draws its random number first is not determined.
    for seed in [4, 5] {
        let (first, second) = (run(seed), run(seed));
        assert!(first.events > 1000, "seed {seed} has {} events", first.events);
        assert_eq!((first.trace, first.events), (second.trace, second.events), "seed {seed}");
    }
}
