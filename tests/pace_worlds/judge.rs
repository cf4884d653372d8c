//! What is asked of a world, and the table of what came of it.

use mailweir::config::RuleAction;
use mailweir::model::{Log, Second};

use super::world::{Kind, With, World};

/// Judged from this second on, or from the third window on where windows are long.
const WARM: u64 = 90;
/// The part of a cap that must be used, and the most that may be refused.
const GOOD: f64 = 0.92;
const FEW: f64 = 0.03;
/// Within so many seconds a cap that was raised must be in use, or within two windows.
const FOUND: u64 = 120;
/// The first wait of the retry schedule, in seconds.
const RETRY: f64 = 72.0;
/// Seconds over which a pace is looked at.
const MEAN: u64 = 10;
/// What is no matter of pace may take so much longer than where nothing is learned.
const LONGER: f64 = 1.05;
/// With a profile it may take so much longer than without, and so many pauses a day.
const PROFILE: f64 = 1.2;
const PAUSES: f64 = 5.0;
/// Refusals that come within so many seconds are one hit.
const APART: usize = 60;

/// What came of a world.
#[derive(Default, Debug)]
pub struct Row {
    pub name: String,
    /// Of each part.
    pub goodput: Vec<f64>,
    pub refused: Option<f64>,
    /// Seconds, of each part that was raised.
    pub found: Vec<Option<u64>>,
    /// Of times.
    pub ratio: Option<f64>,
    /// What else is worth knowing.
    pub note: String,
    pub wrong: Vec<String>,
}

impl Row {
    fn new(world: &World) -> Row {
        Row { name: format!("{} #{}", world.name, world.seed), ..Row::default() }
    }

    fn demand(&mut self, holds: bool, wrong: impl FnOnce() -> String) {
        if !holds {
            self.wrong.push(wrong());
        }
    }
}

/// Judges a world by what it is about.
pub fn judge(world: &World) -> Row {
    match world.kind {
        Kind::Cap => cap(world, With::Learning),
        Kind::Sender => sender(world),
        Kind::Other => other(world),
        Kind::Profile => profile(world),
    }
}

fn sum(log: &Log, from: u64, to: u64, of: impl Fn(&Second) -> u32) -> f64 {
    let at = |second: u64| usize::try_from(second).expect("small").min(log.seconds.len());
    log.seconds[at(from)..at(to).max(at(from))].iter().map(|second| f64::from(of(second))).sum()
}

pub fn accepted(log: &Log, from: u64, to: u64) -> f64 {
    sum(log, from, to, |second| second.accepted)
}

/// The part of attempts that was refused to slow us down.
pub fn throttled(log: &Log, from: u64, to: u64) -> f64 {
    let throttled = sum(log, from, to, |second| second.throttled);
    throttled / (throttled + accepted(log, from, to)).max(1.0)
}

fn warm(world: &World) -> u64 {
    if world.window >= 60 { WARM.max(2 * world.window) } else { WARM }
}

/// Caps in messages a second, and from when on; measured where no number says them.
fn parts(world: &World) -> Vec<(u64, f64)> {
    if !world.parts.is_empty() {
        return world.parts.clone();
    }
    let (_, log) = world.run(With::Told);
    vec![(0, accepted(&log, WARM, world.seconds) / (world.seconds - WARM) as f64)]
}

fn cap(world: &World, with: With) -> Row {
    let mut row = Row::new(world);
    let parts = parts(world);
    let (_, log) = world.run(with);
    let found_by = FOUND.max(2 * world.window);
    let ends: Vec<u64> = parts.iter().skip(1).map(|part| part.0).chain([world.seconds]).collect();
    for (at, ((begin, cap), end)) in parts.iter().copied().zip(ends).enumerate() {
        let rose = at > 0 && cap > parts[at - 1].1;
        let from = begin + if rose { found_by } else { warm(world) };
        assert!(from < end, "{}: too short to be judged", world.name);
        // Whole windows, so that it does not matter where in one of them this ends.
        let long = if world.window >= 60 { (end - from) / world.window * world.window } else { end - from };
        let goodput = accepted(&log, from, from + long) / long as f64 / cap;
        row.goodput.push(goodput);
        row.demand(goodput >= GOOD, || format!("goodput {:.1} % of {cap:.2}/s from {from} s on", goodput * 100.0));
        if rose {
            let over = MEAN.max(world.window);
            let is_used = |s: &u64| accepted(&log, *s, s + over) >= GOOD * cap * over as f64;
            let first = (begin..=end.saturating_sub(over)).find(is_used).map(|s| s + over - begin);
            row.found.push(first);
            row.demand(first.is_some_and(|found| found <= found_by), || {
                format!("raised to {cap}/s, found after {first:?} s")
            });
        }
    }
    refused(&mut row, &log, warm(world), world.seconds);
    row
}

/// Whether a rate can tell what is asked of a cap.
pub fn can_be_told(world: &World) -> bool {
    world.kind == Kind::Cap && world.parts.len() == 1
}

/// What is asked of a cap can be had: a lane that is told a rate a little below it has it.
pub fn told(world: &World) -> Row {
    cap(world, With::Told)
}

fn refused(row: &mut Row, log: &Log, from: u64, to: u64) {
    let refused = throttled(log, from, to);
    row.refused = Some(refused);
    row.demand(refused <= FEW, || format!("{:.1} % refused", refused * 100.0));
}

/// Each sender has the cap for itself: one that has more waits, and the others do not.
fn sender(world: &World) -> Row {
    let mut row = Row::new(world);
    let (_, log) = world.run(With::Learning);
    let (_, plain) = world.run(With::Nothing);
    let cap = world.parts.first().expect("a cap of each sender").1;
    let mut slowest = 0.0f64;
    let mut done = 0;
    for (name, of) in &log.senders {
        done += of.accepted;
        if !world.about.is_empty() && *name != world.about {
            // Nobody caps these.
            let usual = plain.senders.get(name).copied().unwrap_or_default();
            let (took, enough) = (mean(*of), mean(usual));
            row.demand(usual.accepted == 0 || took <= enough * LONGER + 1.0, || {
                format!("mail of {name} left after {took:.1} s on average instead of {enough:.1} s")
            });
            continue;
        }
        // The last one may have been refused before, and is then later by the first wait of the retry schedule.
        let enough = f64::from(of.accepted) / (GOOD * cap) + warm(world) as f64 + RETRY;
        let took = of.last.as_secs_f64();
        slowest = slowest.max(took / enough);
        row.demand(took <= enough, || format!("{name}: {} in {took:.0} s, {enough:.0} s are enough", of.accepted));
    }
    row.ratio = Some(slowest);
    row.demand(done == world.enough(), || format!("{done} of {} left", world.enough()));
    let last = log.senders.values().map(|of| of.last.as_secs()).max().unwrap_or(0);
    if last > warm(world) {
        refused(&mut row, &log, warm(world), last + 1);
    }
    row.note = format!("{:.0} % refused where nothing is learned", throttled(&plain, 0, world.seconds) * 100.0);
    row
}

/// After how long the mail of a sender left, on average.
fn mean(of: mailweir::model::Sender) -> f64 {
    of.sum / f64::from(of.accepted.max(1))
}

/// When this part of `whole` messages was accepted, in seconds.
pub fn when(log: &Log, whole: f64, part: f64) -> Option<f64> {
    let mut sum = 0.0;
    let at = log.seconds.iter().position(|second| {
        sum += f64::from(second.accepted);
        sum >= (whole * part).floor()
    });
    at.map(|second| (second + 1) as f64)
}

/// As fast as where nothing is learned: half of it, nearly all of it, and the mail of each sender.
fn other(world: &World) -> Row {
    let mut row = Row::new(world);
    let (report, log) = world.run(With::Learning);
    let (plain_report, plain) = world.run(With::Nothing);
    let (got, whole) = (report.groups[0].delivered as f64, plain_report.groups[0].delivered as f64);
    // First whether the world is what it says.
    let share = whole / f64::from(world.enough());
    row.demand((share - world.delivered).abs() <= 0.02, || {
        format!("{:.1} % can be delivered instead of {:.1} %", share * 100.0, world.delivered * 100.0)
    });
    let (refused, paced) = (sum(&plain, 0, world.seconds, |s| s.refused), throttled(&plain, 0, world.seconds));
    row.demand(refused > 0.0 && paced == 0.0, || format!("{refused} refused, {paced} of all for the pace"));
    row.demand(got >= whole * 0.999, || format!("{got} delivered instead of {whole}"));
    let mut worst = 0.0f64;
    for part in [0.5, 0.9, 0.99] {
        let (took, enough) = (when(&log, whole, part), when(&plain, whole, part).expect("delivered"));
        let ratio = took.map_or(f64::INFINITY, |took| took / enough);
        // A second is the grain.
        row.demand(took.is_some_and(|took| took <= enough * LONGER + 1.0), || {
            format!(
                "{:.0} % after {} s instead of {enough} s",
                part * 100.0,
                took.map_or("never".into(), |s| s.to_string())
            )
        });
        worst = worst.max(ratio);
    }
    for (name, usual) in &plain.senders {
        if *name == world.about || usual.accepted < 20 {
            continue;
        }
        let of = log.senders.get(name).copied().unwrap_or_default();
        let (took, enough) = (mean(of), mean(*usual));
        row.demand(of.accepted > 0 && took <= enough * LONGER + 1.0, || {
            format!("mail of {name} left after {took:.1} s on average instead of {enough:.1} s")
        });
    }
    let (most, usual) = (log.most_refusals(), plain.most_refusals());
    row.demand(most <= usual + 1, || format!("a message was refused {most} times instead of {usual}"));
    row.ratio = Some(worst);
    row.note = format!("a message refused {most} times, {usual} where nothing is learned");
    row
}

/// Hits with nothing refused for a while before each.
pub fn hits(log: &Log) -> usize {
    let (mut hits, mut last) = (0, None::<usize>);
    for (at, _) in log.seconds.iter().enumerate().filter(|(_, second)| second.throttled > 0) {
        hits += usize::from(last.is_none_or(|last| at - last > APART));
        last = Some(at);
    }
    hits
}

fn profile(world: &World) -> Row {
    let mut row = Row::new(world);
    let (report, log) = world.run(With::Learning);
    let (plain, _) = world.run(With::NoProfiles);
    let pauses = world.configured(With::Learning).rules.iter().any(|rule| rule.actions.contains(&RuleAction::Pause));
    let whole = u64::from(world.enough());
    let (g, p) = (&report.groups[0], &plain.groups[0]);
    row.demand(p.delivered == whole, || format!("without the profile {} of {whole} delivered", p.delivered));
    row.demand(g.delivered == whole, || format!("{} of {whole} delivered", g.delivered));
    let seconds = |done: Option<u64>| done.map_or(f64::INFINITY, |seconds| seconds as f64);
    let (took, enough) = (seconds(g.done_seconds), seconds(p.done_seconds));
    row.ratio = Some(took / enough);
    row.demand(took <= enough * PROFILE, || format!("{took} s instead of {enough} s"));
    let days = (took.min(world.seconds as f64) / 86_400.0).max(1.0);
    let hits = hits(&log) as f64 / days;
    if pauses {
        row.demand(hits <= PAUSES, || format!("{hits:.1} hits a day of rules that pause"));
    }
    row.refused = Some(g.throttled_share);
    row.note = format!("{hits:.1} hits a day, {:.1} h without the profile", enough / 3600.0);
    row
}

/// Whether this is about a cap that can be reckoned with: in a profile's world rules act whatever is learned.
pub fn is_about_a_cap(world: &World) -> bool {
    matches!(world.kind, Kind::Cap | Kind::Sender)
}

/// Whether the receiver does what the world says: nothing is learned, so what it refuses can be foretold.
pub fn without_learning(world: &World) -> Row {
    let mut row = Row::new(world);
    let short = World { seconds: WARM.max(world.window), messages: world.enough(), ..world.clone() };
    let (_, log) = short.run(With::Nothing);
    row.refused = Some(throttled(&log, 0, short.seconds));
    row.demand(row.refused > Some(0.0), || "nothing is refused".into());
    let Some((_, cap)) = world.parts.first().copied() else { return row };
    let senders = if world.kind == Kind::Sender && world.about.is_empty() { f64::from(world.senders) } else { 1.0 };
    // While all of it is tried for the first time: no attempt is put off for less than 48 s.
    let tried = |second: &Second| second.accepted + second.throttled + second.refused;
    let first: u64 = (0..40).take_while(|s| sum(&log, *s, s + 1, tried) > 2.0 * cap * senders).count() as u64;
    if world.window == 1 && first > 2 && world.kind == Kind::Cap {
        let taken = accepted(&log, 1, first - 1) / (first - 2) as f64;
        row.goodput.push(taken / cap);
        row.demand((taken / cap - 1.0).abs() <= 0.1, || format!("{taken:.1}/s are taken, {cap}/s would be right"));
    }
    let most = accepted(&log, 0, world.window.max(1));
    let whole = cap * senders * world.window.max(1) as f64;
    // A bucket is full at first. Of a cap on one sender alone, nothing follows for what the others get through.
    row.demand(!world.about.is_empty() || most <= whole * 2.0 + 1.0, || {
        format!("{most} are taken in the first window of {whole}")
    });
    row
}

/// For people.
pub fn table(rows: &[Row]) -> String {
    let percent = |share: f64| format!("{:.1}", share * 100.0);
    let mut lines =
        vec![format!("{:<44} {:>16} {:>9} {:>12} {:>7}  ", "world", "goodput %", "refused %", "found s", "ratio")];
    for row in rows {
        let goodput: Vec<String> = row.goodput.iter().copied().map(percent).collect();
        let found: Vec<String> = row.found.iter().map(|f| f.map_or("never".into(), |s| s.to_string())).collect();
        lines.push(format!(
            "{:<44} {:>16} {:>9} {:>12} {:>7}  {} {}",
            row.name,
            goodput.join(" "),
            row.refused.map(percent).unwrap_or_default(),
            found.join(" "),
            row.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
            if row.wrong.is_empty() { "ok" } else { "WRONG" },
            row.note,
        ));
    }
    lines.join("\n") + "\n"
}
