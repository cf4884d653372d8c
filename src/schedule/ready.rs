//! The ready jobs of one lane: highest priority first; within a priority the senders take turns;
//! within a sender first in, first out. Pure.
//!
//! A job is one message and those of its recipients that can share transactions. `pop` may look a
//! few jobs ahead within the sender whose turn it is for one that suits the connection at hand, so
//! that a lane with several destination domains does not reconnect for every message.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, VecDeque};

use super::Job;

/// How far `pop` looks for a job that suits the connection.
const LOOK_AHEAD: usize = 16;

/// Jobs in the order in which they leave.
#[derive(Debug, Default)]
pub struct Ready {
    levels: BTreeMap<Reverse<i8>, Level>,
    recipients: usize,
}

/// One priority: senders in turn.
#[derive(Debug, Default)]
struct Level {
    turns: VecDeque<u64>,
    senders: HashMap<u64, VecDeque<Job>>,
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

    /// The priority of the job that would leave next.
    pub fn best_priority(&self) -> Option<i8> {
        self.levels.keys().next().map(|Reverse(p)| *p)
    }

    /// Recipients of that sender in all priorities.
    pub fn of_sender(&self, sender: u64) -> usize {
        self.levels
            .values()
            .filter_map(|level| level.senders.get(&sender))
            .map(|jobs| jobs.iter().map(|job| job.recipients.len()).sum::<usize>())
            .sum()
    }

    /// Adds a job behind the others of its sender.
    pub fn push(&mut self, job: Job) {
        self.insert(job, false);
    }

    /// Puts a job back before the others of its sender, whose turn is next.
    pub fn push_front(&mut self, job: Job) {
        self.insert(job, true);
    }

    fn insert(&mut self, job: Job, front: bool) {
        if job.recipients.is_empty() {
            return;
        }
        self.recipients += job.recipients.len();
        let sender = job.sender;
        let level = self.levels.entry(Reverse(job.priority())).or_default();
        let jobs = level.senders.entry(sender).or_insert_with(|| {
            if front {
                level.turns.push_front(sender);
            } else {
                level.turns.push_back(sender);
            }
            VecDeque::new()
        });
        if front {
            jobs.push_front(job);
        } else {
            jobs.push_back(job);
        }
    }

    /// Takes the next job, at most `limit` of its recipients (the rest stays in front), preferring
    /// one for `destination` among the first few of the sender whose turn it is.
    pub fn pop(&mut self, limit: usize, destination: Option<&str>) -> Option<Job> {
        let mut entry = self.levels.first_entry()?;
        let level = entry.get_mut();
        let sender = level.turns.pop_front()?;
        let jobs = level.senders.get_mut(&sender)?;
        let at = match destination {
            Some(wanted) => jobs.iter().take(LOOK_AHEAD).position(|job| *job.destination == *wanted).unwrap_or(0),
            None => 0,
        };
        let limit = limit.max(1);
        let job = match jobs.get_mut(at) {
            Some(job) if job.recipients.len() > limit => {
                let rest = job.recipients.split_off(limit);
                let now = std::mem::replace(&mut job.recipients, rest);
                Some(Job { recipients: now, ..job.without_recipients() })
            }
            _ => jobs.remove(at),
        };
        if jobs.is_empty() {
            level.senders.remove(&sender);
        } else {
            level.turns.push_back(sender);
        }
        if level.senders.is_empty() {
            entry.remove();
        }
        self.recipients -= job.as_ref().map_or(0, |job| job.recipients.len());
        job
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
