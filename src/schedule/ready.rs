//! The ready jobs of one lane: highest priority first; within a priority the senders take turns;
//! within a sender first in, first out. Pure.
//!
//! A job is one message and those of its recipients that can share transactions. `pop` may look a
//! few jobs ahead within the sender whose turn it is, and a few senders ahead, for one that suits
//! the connection at hand, so that a lane with several destinations does not reconnect for every
//! message.
//!
//! Nothing starves: of [`ONE_OF`] jobs that leave, one is of a lower priority while such a job
//! waits (of that which was passed over longest), and neither a job nor a sender is passed over
//! for the sake of a connection more than [`MAX_PASSED`] times in a row. So every job leaves after
//! a number of pops that does not depend on what comes behind it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, VecDeque};

use super::Job;

/// How far `pop` looks for a job that suits the connection.
const LOOK_AHEAD: usize = 16;
/// Senders among whose first jobs `pop` looks for one that suits the connection.
const SENDERS_AHEAD: usize = 8;
/// Times in a row that somebody is passed over for a job that suits the connection.
const MAX_PASSED: u32 = 16;
/// Of so many jobs that leave, one is of a lower priority, if there is one.
pub const ONE_OF: u32 = 8;

/// Which jobs do not leave now, whatever their turn is.
pub type Kept<'a> = &'a dyn Fn(&Job) -> bool;

/// Jobs in the order in which they leave.
#[derive(Debug, Default)]
pub struct Ready {
    levels: BTreeMap<Reverse<i8>, Level>,
    recipients: usize,
    /// Jobs of the best priority that left in a row while others waited.
    best_in_a_row: u32,
}

/// Where a job is put among those of its sender, and its sender among the others.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    /// Behind all.
    Last,
    /// Before all, and the sender is next.
    First,
    /// Before all, and the sender stays where it is.
    Rest,
}

/// One priority: senders in turn.
#[derive(Debug, Default)]
struct Level {
    turns: VecDeque<u64>,
    senders: HashMap<u64, Sender>,
    /// Recipients in all jobs.
    recipients: usize,
    /// Jobs of other priorities that left since one of this did.
    passed: u32,
    /// Times in a row that the first sender was passed over for a better suited job.
    skipped: u32,
}

/// The jobs of a sender in one priority.
#[derive(Debug, Default)]
struct Sender {
    jobs: VecDeque<Job>,
    /// Recipients in all of them.
    recipients: usize,
    /// Times in a row that the first job was passed over for a better suited one.
    skipped: u32,
}

impl Sender {
    /// Where the job is that leaves next of those that are not `kept`, and whether it suits `destination`.
    fn next(&self, destination: Option<&str>, ahead: usize, kept: Kept<'_>) -> Option<(usize, bool)> {
        let mut free = self.jobs.iter().enumerate().filter(|(_, job)| !kept(job));
        let (first, job) = free.next()?;
        let Some(wanted) = destination else { return Some((first, true)) };
        if *job.destination == *wanted {
            return Some((first, true));
        }
        let ahead = if self.skipped < MAX_PASSED { ahead } else { 1 };
        let suits = free.take(ahead - 1).find(|(_, job)| *job.destination == *wanted);
        Some(suits.map_or((first, false), |(at, _)| (at, true)))
    }
}

impl Level {
    fn has_free(&self, kept: Kept<'_>) -> bool {
        self.turns.iter().any(|sender| self.senders.get(sender).is_some_and(|s| s.jobs.iter().any(|job| !kept(job))))
    }

    /// Takes a job of the sender whose turn it is, or of one of the next few if that suits better. Senders of
    /// whom everything is `kept` keep their turns.
    fn pop(&mut self, limit: usize, destination: Option<&str>, kept: Kept<'_>) -> Option<Job> {
        let next = |sender: &u64, ahead| self.senders.get(sender).and_then(|s| s.next(destination, ahead, kept));
        let suits = |sender: &u64, ahead| next(sender, ahead).is_some_and(|(_, suits)| suits);
        let first = self.turns.iter().position(|sender| next(sender, 1).is_some())?;
        let mut turn = first;
        if self.skipped < MAX_PASSED && !self.turns.get(first).is_some_and(|sender| suits(sender, LOOK_AHEAD)) {
            let mut near = self.turns.iter().enumerate().skip(first).take(SENDERS_AHEAD);
            turn = near.find(|(_, sender)| suits(sender, 1)).map_or(first, |(at, _)| at);
        }
        self.skipped = if turn == first { 0 } else { self.skipped + 1 };
        let sender = self.turns.remove(turn)?;
        let of_sender = self.senders.get_mut(&sender)?;
        let (at, _) = of_sender.next(destination, if turn == first { LOOK_AHEAD } else { 1 }, kept)?;
        let job = take(&mut of_sender.jobs, at, limit);
        of_sender.recipients -= job.as_ref().map_or(0, |job| job.recipients.len());
        of_sender.skipped = if at == 0 { 0 } else { of_sender.skipped + 1 };
        if of_sender.jobs.is_empty() {
            self.senders.remove(&sender);
        } else {
            self.turns.push_back(sender);
        }
        job
    }
}

/// Takes the job at `at`, or the first `limit` of its recipients; the others stay there.
fn take(jobs: &mut VecDeque<Job>, at: usize, limit: usize) -> Option<Job> {
    let limit = limit.max(1);
    match jobs.get_mut(at) {
        Some(job) if job.recipients.len() > limit => {
            let rest = job.recipients.split_off(limit);
            let now = std::mem::replace(&mut job.recipients, rest);
            Some(Job { recipients: now, ..job.without_recipients() })
        }
        _ => jobs.remove(at),
    }
}

impl Ready {
    /// Recipients in all jobs.
    pub fn recipients(&self) -> usize {
        self.recipients
    }

    /// Nothing is ready.
    pub fn is_empty(&self) -> bool {
        self.recipients == 0
    }

    /// All jobs, in no order.
    pub fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.levels.values().flat_map(|level| level.senders.values()).flat_map(|sender| &sender.jobs)
    }

    /// One job is all there is, and it has at most so many recipients.
    pub fn is_one_of_at_most(&self, recipients: usize) -> bool {
        let mut jobs = self.jobs();
        self.recipients <= recipients && jobs.next().is_some() && jobs.next().is_none()
    }

    /// The priority of the job that would leave next.
    pub fn best_priority(&self) -> Option<i8> {
        self.levels.keys().next().map(|Reverse(p)| *p)
    }

    /// The job whose turn is next, unless that is one of the share of others or one that suits better.
    pub fn first(&self) -> Option<&Job> {
        let (_, level) = self.levels.iter().next()?;
        level.senders.get(level.turns.front()?)?.jobs.front()
    }

    /// The lowest priority that waits.
    pub fn lowest_priority(&self) -> Option<i8> {
        self.levels.keys().next_back().map(|Reverse(p)| *p)
    }

    /// Recipients of this and higher priorities.
    pub fn at_least(&self, priority: i8) -> usize {
        self.levels.range(..=Reverse(priority)).map(|(_, level)| level.recipients).sum()
    }

    /// What leaves before the first message of this priority of `sender`: how many other senders have a turn before
    /// it, and recipients that leave by then, those of higher priorities among them.
    pub fn turns_before(&self, priority: i8, sender: u64) -> (usize, usize) {
        let higher = priority.checked_add(1).map_or(0, |higher| self.at_least(higher));
        let level = self.levels.get(&Reverse(priority));
        let first = |sender: &Sender| sender.jobs.front().map_or(0, |job| job.recipients.len());
        let others = || level.iter().flat_map(|level| &level.senders).filter(|(other, _)| **other != sender);
        (others().count(), higher + others().map(|(_, other)| first(other)).sum::<usize>())
    }

    /// Recipients of that sender in all priorities.
    pub fn of_sender(&self, sender: u64) -> usize {
        self.levels.values().filter_map(|level| level.senders.get(&sender)).map(|sender| sender.recipients).sum()
    }

    /// Recipients of that sender in one priority.
    pub fn of_sender_at(&self, sender: u64, priority: i8) -> usize {
        let level = self.levels.get(&Reverse(priority));
        level.and_then(|level| level.senders.get(&sender)).map_or(0, |sender| sender.recipients)
    }

    /// Adds a job behind the others of its sender.
    pub fn push(&mut self, job: Job) {
        self.insert(job, Where::Last);
    }

    /// Puts a job back before the others of its sender but those that were given out before it; the
    /// sender's turn is next.
    pub fn push_front(&mut self, job: Job) {
        self.insert(job, Where::First);
    }

    /// Puts back what a transaction has left of a job: it is the first of its sender, who has just had
    /// a turn.
    pub fn push_rest(&mut self, job: Job) {
        self.insert(job, Where::Rest);
    }

    fn insert(&mut self, mut job: Job, to: Where) {
        (job.of_share, job.under_way) = (false, None);
        if job.recipients.is_empty() {
            return;
        }
        self.recipients += job.recipients.len();
        let sender = job.sender;
        let level = self.levels.entry(Reverse(job.priority())).or_default();
        level.recipients += job.recipients.len();
        let known = level.senders.contains_key(&sender);
        if to == Where::First {
            if known && level.turns.front() != Some(&sender) {
                level.turns.retain(|other| *other != sender);
            }
            if level.turns.front() != Some(&sender) {
                level.turns.push_front(sender);
            }
        } else if !known {
            level.turns.push_back(sender);
        }
        let of_sender = level.senders.entry(sender).or_default();
        of_sender.recipients += job.recipients.len();
        let jobs = &mut of_sender.jobs;
        if to != Where::Last {
            // Those that were given out once are all in front.
            let before = |other: &Job| other.place.is_some_and(|theirs| job.place.is_some_and(|mine| theirs < mine));
            let at = jobs.iter().take_while(|other| before(other)).count();
            jobs.insert(at, job);
        } else {
            jobs.push_back(job);
        }
    }

    /// Takes the next job, at most `limit` of its recipients (the rest stays in front), preferring
    /// one for `destination` among the first few.
    pub fn pop(&mut self, limit: usize, destination: Option<&str>) -> Option<Job> {
        self.pop_unless(limit, destination, &|_| false)
    }

    /// The same of those that are not `kept`: they stay where they are.
    pub fn pop_unless(&mut self, limit: usize, destination: Option<&str>, kept: Kept<'_>) -> Option<Job> {
        let (Reverse(best), _) = self.levels.iter().find(|(_, level)| level.has_free(kept))?;
        let best = *best;
        let others = self.levels.len() > 1;
        if others && self.best_in_a_row + 1 >= ONE_OF {
            // The share of the others: whoever was passed over longest; of equals the better one.
            let free = |(priority, level): &(&Reverse<i8>, &Level)| priority.0 != best && level.has_free(kept);
            let waiting = self.levels.iter().filter(free).rev().max_by_key(|(_, level)| level.passed);
            if let Some(priority) = waiting.map(|(Reverse(priority), _)| *priority) {
                let job = self.pop_from(priority, limit, destination, kept)?;
                self.best_in_a_row = 0;
                return Some(Job { of_share: true, ..job });
            }
        }
        self.best_in_a_row = if others { self.best_in_a_row + 1 } else { self.best_in_a_row };
        self.pop_from(best, limit, destination, kept)
    }

    fn pop_from(&mut self, priority: i8, limit: usize, destination: Option<&str>, kept: Kept<'_>) -> Option<Job> {
        for (_, level) in self.levels.iter_mut().filter(|(Reverse(p), _)| *p != priority) {
            level.passed = level.passed.saturating_add(1);
        }
        let level = self.levels.get_mut(&Reverse(priority))?;
        let job = level.pop(limit, destination, kept);
        let taken = job.as_ref().map_or(0, |job| job.recipients.len());
        level.passed = 0;
        level.recipients -= taken;
        if level.senders.is_empty() {
            self.levels.remove(&Reverse(priority));
        }
        self.recipients -= taken;
        job
    }

    /// Takes the job that would leave last: of the lowest priority, of the sender with most jobs there.
    pub fn pop_last(&mut self) -> Option<Job> {
        let (Reverse(priority), level) = self.levels.iter_mut().next_back()?;
        let priority = *priority;
        let jobs = |sender: &u64| level.senders.get(sender).map_or(0, |sender| sender.jobs.len());
        let sender = *level.turns.iter().max_by_key(|sender| jobs(sender))?;
        let of_sender = level.senders.get_mut(&sender)?;
        let job = of_sender.jobs.pop_back()?;
        of_sender.recipients -= job.recipients.len();
        if of_sender.jobs.is_empty() {
            level.senders.remove(&sender);
            level.turns.retain(|other| *other != sender);
        }
        level.recipients -= job.recipients.len();
        self.recipients -= job.recipients.len();
        if level.senders.is_empty() {
            self.levels.remove(&Reverse(priority));
        }
        Some(job)
    }

    /// `job` is about to leave: takes one of higher priority to the same destination that should
    /// leave instead, if there is one and it is not `job`'s turn. The caller puts `job` back.
    pub fn overtaking(&mut self, job: &Job, limit: usize, kept: Kept<'_>) -> Option<Job> {
        let best = self.best_priority().filter(|best| *best > job.priority());
        let Some(best) = best else {
            if self.lowest_priority().is_none_or(|lowest| lowest >= job.priority()) {
                // The lowest of all leaves: the others have had their share.
                self.best_in_a_row = 0;
            }
            return None;
        };
        if job.of_share || self.best_in_a_row + 1 >= ONE_OF {
            self.best_in_a_row = 0;
            return None;
        }
        let level = self.levels.get(&Reverse(best))?;
        // Only if one for that connection is where `pop` finds it.
        let first = level.turns.front().and_then(|sender| level.senders.get(sender));
        let near = level.turns.iter().take(SENDERS_AHEAD).filter_map(|sender| level.senders.get(sender));
        let suits = |sender: &Sender, ahead| sender.next(Some(&job.destination), ahead, kept).is_some_and(|(_, s)| s);
        let found = first.is_some_and(|sender| suits(sender, LOOK_AHEAD))
            || level.skipped < MAX_PASSED && near.into_iter().any(|sender| suits(sender, 1));
        if !found {
            return None;
        }
        self.best_in_a_row += 1;
        self.pop_from(best, limit, Some(&job.destination), kept)
    }

    /// Takes the recipients that `wanted` names out of all jobs, and returns them.
    pub fn withdraw(&mut self, wanted: &mut dyn FnMut(&Job, u32) -> bool) -> Vec<Job> {
        let mut out = Vec::new();
        let mut kept = Ready::default();
        while let Some(mut job) = self.pop(usize::MAX, None) {
            let mut taken = job.without_recipients();
            let (go, stay) = std::mem::take(&mut job.recipients).into_iter().partition(|held| wanted(&job, held.index));
            taken.recipients = go;
            job.recipients = stay;
            if !taken.recipients.is_empty() {
                out.push(taken);
            }
            kept.push(job);
        }
        *self = kept;
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::sender_key;
    use crate::schedule::testing::job;

    fn order(ready: &mut Ready) -> Vec<String> {
        std::iter::from_fn(|| ready.pop(10, None))
            .map(|j| format!("{}{}", j.message.message.envelope.sender(), j.recipients[0].index))
            .collect()
    }

    #[test]
    fn senders_take_turns_and_priority_goes_first() {
        let mut ready = Ready::default();
        for i in 0..3 {
            ready.push(job("bulk@a", "x.example", 0, &[i]));
        }
        ready.push(job("b@b", "x.example", 0, &[7]));
        ready.push(job("low@b", "x.example", -3, &[8]));
        ready.push(job("reset@b", "x.example", 4, &[9]));
        assert_eq!(ready.recipients(), 6);
        // Behind the urgent one and a message of each of two senders; alone among the urgent; behind all but bulk's rest.
        let before = |priority| ready.turns_before(priority, sender_key("new@c"));
        assert_eq!((before(0), before(4), before(-3), before(9)), ((2, 3), (1, 1), (1, 6), (0, 0)));
        assert_eq!(ready.turns_before(0, sender_key("bulk@a")), (1, 2), "not himself");
        assert_eq!(order(&mut ready), ["reset@b9", "bulk@a0", "b@b7", "bulk@a1", "bulk@a2", "low@b8"]);
        assert!(ready.is_empty() && ready.best_priority().is_none());
    }

    #[test]
    fn splits_a_job_at_the_limit_and_keeps_the_rest_in_front() {
        let mut ready = Ready::default();
        ready.push(job("a@a", "x.example", 0, &[0, 1, 2, 3, 4]));
        ready.push(job("a@a", "x.example", 0, &[5]));
        let sizes: Vec<usize> = std::iter::from_fn(|| ready.pop(2, None)).map(|j| j.recipients.len()).collect();
        assert_eq!(sizes, [2, 2, 1, 1]);
    }

    #[test]
    fn prefers_a_job_that_suits_the_connection_but_not_for_long() {
        let mut ready = Ready::default();
        ready.push(job("a@a", "one.example", 0, &[0]));
        ready.push(job("a@a", "two.example", 0, &[1]));
        assert_eq!(&*ready.pop(1, Some("two.example")).unwrap().destination, "two.example");
        assert_eq!(&*ready.pop(1, Some("two.example")).unwrap().destination, "one.example");
    }

    #[test]
    fn a_job_that_suits_nobody_is_not_passed_over_for_ever() {
        let mut ready = Ready::default();
        ready.push(job("a@a", "one.example", 0, &[0]));
        for i in 1..200 {
            ready.push(job("a@a", "two.example", 0, &[i]));
            ready.push(job("b@b", "two.example", 0, &[i]));
        }
        let pops = (1..).find(|_| *ready.pop(1, Some("two.example")).unwrap().destination == *"one.example");
        assert!(pops.is_some_and(|n| (MAX_PASSED..=4 * MAX_PASSED).contains(&n)), "{pops:?}");
    }

    #[test]
    fn senders_with_a_connection_at_hand_go_first_for_a_while() {
        let mut ready = Ready::default();
        for i in 0..100 {
            ready.push(job("a@a", "one.example", 0, &[i]));
            ready.push(job("b@b", "two.example", 0, &[i]));
        }
        let mut at = None;
        let (mut changes, mut served) = (0, HashMap::<String, u32>::new());
        for _ in 0..100 {
            let next = ready.pop(1, at.as_deref()).unwrap();
            changes += u32::from(at.is_some_and(|at: String| *at != *next.destination));
            *served.entry(next.message.message.envelope.sender().to_owned()).or_default() += 1;
            at = Some(next.destination.to_string());
        }
        assert!((2..=20).contains(&changes), "{changes} reconnections for 100 messages");
        assert!(served.values().all(|n| *n >= 30), "{served:?}");
    }

    #[test]
    fn one_of_eight_is_bulk_while_urgent_mail_keeps_coming() {
        let mut ready = Ready::default();
        for i in 0..100 {
            ready.push(job("bulk@a", "x.example", -4, &[i]));
            ready.push(job("reset@b", "x.example", 4, &[i]));
        }
        let left: Vec<i8> = (0..80).map(|_| ready.pop(1, None).unwrap().priority()).collect();
        assert_eq!(left[..8], [4, 4, 4, 4, 4, 4, 4, -4]);
        assert_eq!(left.iter().filter(|p| **p == -4).count(), 10);
    }

    #[test]
    fn urgent_mail_never_waits_for_more_than_the_share_of_bulk() {
        let mut ready = Ready::default();
        for i in 0..100 {
            ready.push(job("bulk@a", "x.example", -4, &[i]));
        }
        for _ in 0..20 {
            let bulk = ready.pop(1, None).unwrap();
            assert!(ready.overtaking(&bulk, 1, &|_| false).is_none());
        }
        ready.push(job("reset@b", "x.example", 4, &[0]));
        assert_eq!(ready.pop(1, None).unwrap().priority(), 4, "at once: bulk alone has earned nothing");
    }

    #[test]
    fn bulk_that_is_overtaken_again_and_again_leaves_at_last() {
        let mut ready = Ready::default();
        ready.push(job("bulk@a", "x.example", -4, &[0]));
        let mut overtaken = 0;
        for i in 0..100 {
            // When a connection is free there is bulk only; before its permit comes, urgent mail does.
            let bulk = ready.pop(1, None).unwrap();
            ready.push(job("reset@b", "x.example", 4, &[i]));
            match ready.overtaking(&bulk, 1, &|_| false) {
                Some(urgent) => {
                    assert_eq!(urgent.priority(), 4);
                    overtaken += 1;
                    ready.push_front(bulk);
                }
                None => break,
            }
        }
        assert_eq!(overtaken, ONE_OF - 1);
    }

    proptest::proptest! {
        /// However much comes behind it, and whatever connections are at hand: a job that waits
        /// leaves after a number of pops that depends only on what may wait at once.
        #[test]
        fn every_job_leaves_within_a_bounded_number_of_pops(
            first in proptest::collection::vec((0u8..4, -9i8..=9, 0u8..3), 1..24),
            flood in proptest::collection::vec((0u8..4, -9i8..=9, 0u8..3), 1..40),
            at_hand in proptest::collection::vec(proptest::option::of(0u8..3), 1..10),
        ) {
            const MOST: usize = 32;
            let make = |(sender, priority, to): (u8, i8, u8), index: u32| {
                job(&format!("s@{sender}.example"), &format!("{to}.example"), priority, &[index])
            };
            let mut ready = Ready::default();
            let old = u32::try_from(first.len()).unwrap();
            for (n, one) in (0..).zip(first) {
                ready.push(make(one, n));
            }
            let (mut left, mut pops, mut next) = (0, 0usize, old);
            // A level leaves once in ONE_OF × 18 pops at the latest; a sender has its turn after at most
            // MAX_PASSED + 1 for each sender; a job is passed over MAX_PASSED times at most.
            let bound = ONE_OF as usize * 19 * 4 * (MAX_PASSED as usize + 1) * (MOST + MAX_PASSED as usize);
            while left < old {
                while ready.recipients() < MOST {
                    ready.push(make(flood[next as usize % flood.len()], next));
                    next += 1;
                }
                let wanted = at_hand[pops % at_hand.len()].map(|to| format!("{to}.example"));
                let job = ready.pop(1, wanted.as_deref()).unwrap();
                left += u32::from(job.recipients[0].index < old);
                pops += 1;
                proptest::prop_assert!(pops <= bound, "{left} of {old} left after {pops} pops");
            }
        }
    }

    #[test]
    fn what_comes_back_has_its_place_again_whoever_comes_back_first() {
        let mut ready = Ready::default();
        (0..5).for_each(|n| ready.push(job("a@a", "x.example", 0, &[n])));
        ready.push(job("b@b", "x.example", 0, &[9]));
        let mut out: Vec<Job> = (0..4).map(|_| ready.pop(1, None).unwrap()).collect();
        (1..).zip(&mut out).for_each(|(place, job)| job.place = Some(place));
        for at in [2, 0, 3, 1] {
            ready.push_front(out[at].clone());
        }
        assert_eq!(order(&mut ready), ["b@b9", "a@a0", "a@a1", "a@a2", "a@a3", "a@a4"]);
    }

    #[test]
    fn the_last_is_of_the_lowest_priority_and_of_who_has_most() {
        let mut ready = Ready::default();
        (0..3).for_each(|n| ready.push(job("a@a", "x.example", 0, &[n])));
        ready.push(job("b@b", "x.example", 0, &[7]));
        ready.push(job("c@c", "x.example", -1, &[8, 9]));
        let last: Vec<u32> = std::iter::from_fn(|| ready.pop_last()).map(|job| job.recipients[0].index).collect();
        assert_eq!((last[..3].to_vec(), last.len(), ready.recipients()), (vec![8, 2, 1], 5, 0));
    }

    #[test]
    fn withdraws_only_what_is_asked_for() {
        let mut ready = Ready::default();
        ready.push(job("a@a", "x.example", 0, &[0, 1, 2]));
        ready.push(job("b@b", "x.example", 0, &[1]));
        let out = ready.withdraw(&mut |_, index| index == 1);
        assert_eq!(out.iter().map(|j| j.recipients.len()).sum::<usize>(), 2);
        assert_eq!(ready.recipients(), 2);
        assert_eq!(order(&mut ready), ["a@a0"]);
    }
}
