//! Mail that a host takes and leaves without an answer until the time for it is over: minutes, in which a
//! connection carries nothing else. And mail for which it ends connections, while it takes other mail.
//!
//! What was left so is remembered: messages, and features (a sender, a domain of senders or of recipients, a size:
//! [`Features`]) of which several were in a row while other mail was answered. Such mail is *suspected*. It has no more
//! than half of the connections, a message never more than one, and leaves behind other mail; what connections were
//! ended for is tried by one message after waits that double. The first answer to something of the feature ends that.
//! What a suspected feature explains is not held against others; and mail that has one of several that are suspected,
//! but not all of those that were left so most often, is tried by one message beyond the half: its answer shows which
//! of them it is about.
//!
//! What is done before the time is over is told in [`under_way`](super::under_way) and [`patience`](super::patience).
//! With one connection there is nothing to be shared out: there only patience helps.
//!
//! Bounded: [`MESSAGES`] and [`FEATURES`] are remembered, those longest ago forgotten first. Pure.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::answered::Answered;
use super::patience::{GaveUp, Told};
use super::proof::{Hung, LatelyHung};
use super::under_way::UnderWay;
use super::{Lane, State, Wake};
use crate::clock::doubled;
use crate::mail::{FeatureKeys, Features, QueueId};
use crate::schedule::Job;
use crate::shape::Held;

/// Messages and features remembered.
const MESSAGES: usize = 256;
const FEATURES: usize = 64;
/// So many in a row are no chance.
const FEW: u32 = 2;
/// How long mail waits for which connections are ended: at first, and at most.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(60);
/// When it is looked again whether what is kept has expired.
const AGAIN: Duration = Duration::from_secs(10);
/// What is suspected leaves behind other mail for so long at most, and then in its turn.
const BEHIND: Duration = Duration::from_secs(5);

/// What was left without an answer in a lane.
#[derive(Debug, Default)]
pub(super) struct Unanswered {
    messages: VecDeque<QueueId>,
    features: VecDeque<Suspect>,
    answered: Answered,
    /// Transactions.
    pub(super) under_way: Vec<Weak<UnderWay>>,
    /// When something suspected last left.
    left: Option<Instant>,
    /// What had no answer in the last minutes.
    pub(super) lately: LatelyHung,
    /// When mail was last answered that nothing but what tells it from mail that hangs had proven.
    pub(super) proved: Option<Instant>,
    /// When transactions were last given up for other mail.
    pub(super) gave_up: Option<GaveUp>,
    /// With one connection: what was left without an answer has it again after as long as it had it.
    rests_until: Option<Instant>,
    /// What was told of mail that hangs.
    pub(super) hangs: Option<Told>,
}

#[derive(Clone, Debug)]
struct Suspect {
    key: u64,
    /// The mail, in words that follow "mail".
    about: Arc<str>,
    /// It is a sender: two of his are enough.
    sender: bool,
    /// In a row.
    times: u32,
    /// Answers that there had been at the first.
    answers: u64,
    /// Connections were ended for it: tried again then.
    until: Option<Instant>,
    told: bool,
}

/// What a host did instead of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Left {
    /// Nothing, until the time was over.
    Silent,
    /// It ended the connection.
    Ended,
}

/// The mail that is suspected, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct About {
    /// In words that follow "mail".
    pub mail: Arc<str>,
    /// Connections were ended for it; else it was left without an answer.
    pub ended: bool,
}

/// Some mail has less than all of the connections from now on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Confined {
    /// So many.
    pub connections: u32,
    /// Of so many.
    pub of: u32,
}

impl Confined {
    /// Of `connections` those that what was left without an answer may have.
    pub(super) fn of(connections: u32) -> Confined {
        Confined { connections: (connections / 2).max(1), of: connections }
    }

    /// The same as a number.
    pub(super) fn of_all(connections: usize) -> usize {
        (connections / 2).max(1)
    }
}

impl Suspect {
    fn is_suspected(&self, answered: &Answered) -> bool {
        let silent_sender = self.sender && self.until.is_none();
        self.times >= FEW && (silent_sender || answered.times() > self.answers)
    }
}

impl Unanswered {
    /// What the lane before knew; what is under way there is not under way here.
    fn go_on_from(&mut self, before: &Unanswered) {
        let Unanswered {
            messages,
            features,
            answered,
            left,
            lately,
            proved,
            gave_up,
            rests_until,
            hangs,
            under_way: _,
        } = before;
        *self = Unanswered {
            messages: messages.clone(),
            features: features.clone(),
            answered: answered.clone(),
            under_way: std::mem::take(&mut self.under_way),
            left: *left,
            lately: lately.clone(),
            proved: *proved,
            rests_until: *rests_until,
            gave_up: *gave_up,
            hangs: *hangs,
        };
    }

    /// Nothing is remembered.
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.features.is_empty()
    }

    fn suspects(&self, keys: FeatureKeys) -> impl Iterator<Item = &Suspect> {
        let matches = move |suspect: &&Suspect| keys.iter().any(|key| key == suspect.key);
        self.features.iter().filter(matches).filter(|suspect| suspect.is_suspected(&self.answered))
    }

    /// Another message was left so. `Some`: the first feature that is suspected from now on.
    fn left(&mut self, message: QueueId, mail: &Features<'_>, how: Left, now: Instant) -> Option<Arc<str>> {
        // What connections are ended for is known by its features alone: it may be one connection too many.
        if how == Left::Silent {
            self.messages.retain(|known| *known != message);
            push(&mut self.messages, message, MESSAGES);
        }
        let keys = mail.keys();
        let explained: Vec<u64> = self.suspects(keys).map(|suspect| suspect.key).collect();
        for key in keys.iter().filter(|key| explained.is_empty() || explained.contains(key)) {
            let at = self.features.iter().position(|known| known.key == key);
            let known = at.and_then(|at| self.features.remove(at));
            let mut known = known.unwrap_or_else(|| Suspect {
                key,
                about: mail.told_of(key).into(),
                sender: key == keys.sender(),
                times: 0,
                answers: self.answered.times(),
                until: None,
                told: false,
            });
            known.times = known.times.saturating_add(1);
            if how == Left::Ended {
                known.until = Some(now + doubled(FIRST, known.times.saturating_sub(FEW), LONGEST));
            }
            push(&mut self.features, known, FEATURES);
        }
        let news = self.suspects(keys).find(|suspect| !suspect.told)?;
        let (about, key) = (news.about.clone(), news.key);
        self.features.iter_mut().filter(|known| known.key == key).for_each(|known| known.told = true);
        Some(about)
    }

    fn answered(&mut self, message: QueueId, keys: FeatureKeys, took: Duration, now: Instant) {
        self.answered.note(keys, took, now);
        self.lately.forget(message);
        if !self.is_empty() {
            self.messages.retain(|known| *known != message);
            self.features.retain(|known| !keys.iter().any(|key| key == known.key));
        }
    }

    fn note_hung(&mut self, hung: Hung, now: Instant) {
        self.rests_until = now.checked_add(now.saturating_duration_since(hung.began));
        self.lately.note(hung, now);
    }

    /// With one connection: whether other mail has it for as long as mail that is suspected had it.
    pub(super) fn rests_all(&self, now: Instant) -> bool {
        self.rests_until.is_some_and(|until| until > now)
    }

    /// Whether a job is of what is suspected.
    pub(super) fn concerns(&self, job: &Job) -> bool {
        !self.is_empty() && self.concerns_mail(job.message.message.id, job.features().keys())
    }

    /// The same of a message by its number.
    pub(super) fn concerns_mail(&self, id: QueueId, keys: FeatureKeys) -> bool {
        !self.is_empty() && (self.messages.contains(&id) || self.suspects(keys).next().is_some())
    }

    /// When mail for which connections were ended is tried again, if there is such mail.
    pub(super) fn next_try(&self) -> Option<Duration> {
        let now = Instant::now();
        let suspects = self.features.iter().filter(|suspect| suspect.is_suspected(&self.answered));
        let left = suspects.filter_map(|suspect| suspect.until?.checked_duration_since(now));
        left.filter(|left| !left.is_zero()).min()
    }

    /// What the host has answered.
    pub(super) fn known_answers(&self) -> &Answered {
        &self.answered
    }

    /// Whether something suspected left so lately that other mail leaves first.
    pub(super) fn left_lately(&self, now: Instant) -> bool {
        self.left.is_some_and(|left| now.saturating_duration_since(left) < BEHIND)
    }

    /// Whether connections were ended for its like, and it is not tried yet.
    pub(super) fn rests(&self, keys: FeatureKeys, now: Instant) -> bool {
        let mut suspects = self.suspects(keys);
        suspects.any(|suspect| suspect.until.is_some_and(|until| until > now))
    }

    /// Whether a job that is suspected lacks something of what was left without an answer most often: then it may be
    /// about that.
    pub(super) fn is_less_likely(&self, id: QueueId, keys: FeatureKeys) -> bool {
        if self.messages.contains(&id) || self.suspects(keys).any(|one| one.until.is_some()) {
            return false;
        }
        let suspects = || self.features.iter().filter(|suspect| suspect.is_suspected(&self.answered));
        let most = suspects().map(|suspect| suspect.times).max().unwrap_or_default();
        let missing = |suspect: &Suspect| !keys.iter().any(|key| key == suspect.key);
        suspects().any(|suspect| suspect.times == most && missing(suspect))
    }

    /// A job that nothing proves is given out while some mail hangs.
    pub(super) fn note_unproven(&mut self) {
        self.left = Some(Instant::now());
    }

    /// A job that is suspected is given out.
    pub(super) fn note_tried(&mut self, job: &Job) {
        let now = Instant::now();
        self.left = Some(now);
        // By one message; when that has no answer, either, by the next.
        let keys = job.features().keys();
        for suspect in self.features.iter_mut().filter(|known| keys.iter().any(|key| key == known.key)) {
            let wait = doubled(FIRST, suspect.times.saturating_sub(FEW), LONGEST);
            suspect.until = suspect.until.map(|_| now + wait);
        }
    }
}

fn push<T>(known: &mut VecDeque<T>, new: T, most: usize) {
    if known.len() >= most {
        known.pop_front();
    }
    known.push_back(new);
}

impl Lane {
    /// The host took something of a job and left it without an answer, or ended the connection. `Some`: the mail
    /// that has a part of the connections from now on, in words that follow "mail". `past_mail`: it had taken MAIL.
    pub fn left_unanswered(&self, job: &Job, past_mail: bool, how: Left) -> Option<(Arc<str>, Confined)> {
        let mail = if past_mail { job.features() } else { job.features().at_mail() };
        let mut state = self.state.lock();
        let now = Instant::now();
        if let Some(one) = job.under_way.as_ref().filter(|_| how == Left::Silent) {
            state.unanswered.note_hung(one.hung(mail.keys()), now);
        }
        let about = state.unanswered.left(job.message.message.id, &mail, how, now)?;
        Some((about, Confined::of(state.narrowed.most(self.provider.connections))))
    }

    /// Whether anything is known of what its hosts answer.
    pub fn knows_answers(&self) -> bool {
        let unanswered = &self.state.lock().unanswered;
        !unanswered.is_empty() || unanswered.answered.times() > 0
    }

    /// Takes over what the lane of that name knew of answers, as after a reload. Before anything leaves.
    pub fn go_on_from(&self, before: &Lane) {
        self.state.lock().unanswered.go_on_from(&before.state.lock().unanswered);
    }

    /// Connections were ended because they were too many: nothing is held against the mail on them.
    pub fn clear_ended(&self) -> Wake {
        let mut state = self.state.lock();
        state.unanswered.features.retain(|suspect| suspect.until.is_none());
        self.wake(&mut state)
    }

    /// The host answered a transaction, whatever it said, after it `took` so long.
    pub fn note_answered(&self, job: &Job, took: Duration) {
        let (id, keys) = (job.message.message.id, job.features().keys());
        let (mut state, now) = (self.state.lock(), Instant::now());
        if job.under_way.as_ref().is_some_and(|one| one.shows) {
            state.unanswered.proved = Some(now);
        }
        state.unanswered.answered(id, keys, took, now);
    }
}

impl State {
    /// What mail in memory is suspected, how much other such mail there is, the recipients of all of it that wait,
    /// and the connections that it may have.
    pub(super) fn confined(&self, connections: u32) -> Option<(About, usize, usize, Confined)> {
        if self.unanswered.is_empty() {
            return None;
        }
        let (mut about, mut waiting) = (Vec::<About>::new(), 0);
        self.ready.look(&mut |job, _| {
            if !self.unanswered.concerns(job) {
                return;
            }
            waiting += job.recipients.len();
            let its = self.unanswered.about(&job.features());
            if !about.contains(&its) {
                about.push(its);
            }
        });
        let first = about.first()?.clone();
        Some((first, about.len() - 1, waiting, Confined::of(self.narrowed.most(connections))))
    }
}

impl Unanswered {
    /// What holds a job back that is kept.
    pub(super) fn held(&self, job: &Job) -> Held {
        let by = match self.concerns(job) {
            true => format!("connections on which mail {} has no answer", self.about(&job.features()).mail),
            false => "connections on which mail like it has no answer".to_owned(),
        };
        // Nobody knows when one of them is free: looked at again like all that is held.
        Held { by, wait: AGAIN }
    }

    /// What mail of a job is suspected.
    pub(super) fn about(&self, features: &Features<'_>) -> About {
        let own = || About { mail: features.told_of(features.keys().sender()).into(), ended: false };
        let told = |suspect: &Suspect| About { mail: suspect.about.clone(), ended: suspect.until.is_some() };
        self.suspects(features.keys()).next().map_or_else(own, told)
    }
}

#[cfg(test)]
#[path = "unanswered_tests.rs"]
mod tests;
