//! Mail that a host takes and leaves without an answer until the time for it is over: minutes, in which a
//! connection carries nothing else. And mail for which it ends connections, while it takes other mail.
//!
//! - What was left so is remembered: messages, and features (a sender, a domain of senders or of recipients, a
//!   size: [`Features`]) of which several were in a row while other mail was answered. Such mail is *suspected*. It
//!   has no more than half of the connections, a message never more than one, and leaves behind other mail; what
//!   connections were ended for is tried by one message after waits that double. The first answer to something of
//!   the feature ends that. What a suspected feature explains is not held against others.
//! - While a connection waits for far longer than answers take as a rule, before its time is over, mail is *in doubt*
//!   that has a feature of what waits so of which nothing was answered since: it has no more than half of the
//!   connections, either. Mail of domains that are new is like any other, or one sender could stop all of it. So a
//!   burst of mail that is left without an answer can take all connections within the first seconds, once, and
//!   mail of many senders that has nothing in common more of them.
//!
//! With one connection there is nothing to be shared out: RFC 5321 §4.5.3.2 allows no shorter wait, the
//! configuration no second connection.
//!
//! Bounded: [`MESSAGES`] and [`FEATURES`] are remembered, those longest ago forgotten first. Pure.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::answered::Answered;
use super::answers::Answers;
use super::{Lane, State};
use crate::clock::doubled;
use crate::mail::{FeatureKeys, Features, QueueId};
use crate::schedule::Job;

/// Messages and features remembered.
const MESSAGES: usize = 256;
const FEATURES: usize = 64;
/// So many in a row are no chance.
const FEW: u32 = 2;
/// How long mail waits for which connections are ended: at first, and at most.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(60);
/// What is suspected leaves behind other mail for so long at most, and then in its turn.
const BEHIND: Duration = Duration::from_secs(5);

/// What was left without an answer in a lane.
#[derive(Debug, Default)]
pub(super) struct Unanswered {
    messages: VecDeque<QueueId>,
    features: VecDeque<Suspect>,
    answered: Answered,
    /// Mail under way that is in doubt.
    under_way: Vec<Weak<Doubt>>,
    /// When something suspected last left.
    left: Option<Instant>,
}

#[derive(Debug)]
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

/// Under way as long as somebody holds it: mail in doubt.
#[derive(Debug)]
pub struct Doubt {
    message: QueueId,
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
}

/// How a job stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    /// The host answers its like.
    Clear,
    /// In doubt: it has half of the connections, with all other mail in doubt.
    Doubtful,
    /// Suspected: the same, and a message of it never more than one.
    Suspected,
}

/// What is under way, as seen at one moment, for any number of jobs.
pub(super) struct View<'a> {
    unanswered: &'a Unanswered,
    connections: u32,
    /// Connections that have mail in doubt, or wait for far too long.
    used: usize,
    /// Nothing was answered since the last of those began.
    untold: bool,
    /// Features of mail that waits so, of which the host has answered nothing since; those that all of it has, if
    /// there are such.
    waiting: Vec<u64>,
    now: Instant,
}

impl Suspect {
    fn is_suspected(&self, answered: &Answered) -> bool {
        let silent_sender = self.sender && self.until.is_none();
        self.times >= FEW && (silent_sender || answered.times() > self.answers)
    }
}

impl Unanswered {
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
        if !self.is_empty() {
            self.messages.retain(|known| *known != message);
            self.features.retain(|known| !keys.iter().any(|key| key == known.key));
        }
    }

    /// Whether a job is of what is suspected.
    pub(super) fn concerns(&self, job: &Job) -> bool {
        !self.is_empty()
            && (self.messages.contains(&job.message.message.id)
                || self.suspects(job.features().keys()).next().is_some())
    }

    /// When mail for which connections were ended is tried again, if there is such mail.
    pub(super) fn next_try(&self) -> Option<Duration> {
        let now = Instant::now();
        let suspects = self.features.iter().filter(|suspect| suspect.is_suspected(&self.answered));
        let left = suspects.filter_map(|suspect| suspect.until?.checked_duration_since(now));
        left.filter(|left| !left.is_zero()).min()
    }

    /// What is under way now on `connections`, of which `answers` are waited for.
    pub(super) fn view<'a>(&'a self, connections: u32, answers: &Answers) -> View<'a> {
        let now = Instant::now();
        let mut doubts: Vec<QueueId> = self.under_way.iter().filter_map(Weak::upgrade).map(|one| one.message).collect();
        let mut untold = false;
        let (mut waiting, mut common) = (Vec::new(), None::<FeatureKeys>);
        for silence in answers.longer_than(self.answered.slow()) {
            let began = now.checked_sub(silence.lasts).unwrap_or(now);
            untold |= !self.answered.any_since(began);
            let own = silence.features.without(|key| self.answered.knows_since(key, began));
            // A domain that the host never answered explains its silence.
            let new = |domain| !self.answered.knows(domain);
            let of = silence.features;
            let own = match (new(of.sender_domain()), of.recipient_domain().is_some_and(new)) {
                (true, false) => own.of_sender(),
                (false, true) => own.of_recipient(),
                _ => own,
            };
            waiting.extend(own.iter());
            common = Some(common.map_or(own, |common| common.common(own)));
            if !doubts.contains(&silence.message) {
                doubts.push(silence.message);
            }
        }
        // What all of them have explains the silence, and clears the rest.
        if let Some(common) = common.filter(|common| !common.is_empty()) {
            waiting = common.iter().collect();
        }
        View { unanswered: self, connections, used: doubts.len(), untold, waiting, now }
    }
}

impl View<'_> {
    /// Whether a job waits until something else has ended.
    pub(super) fn keeps(&self, job: &Job) -> bool {
        let full = || self.used >= Confined::of(self.connections).connections as usize;
        match self.standing(job) {
            Standing::Clear => false,
            Standing::Doubtful => full(),
            Standing::Suspected => self.rests(job) || self.is_under_way(job) || full(),
        }
    }

    /// Whether other mail leaves before it.
    pub(super) fn goes_last(&self, job: &Job) -> bool {
        let lately = self.unanswered.left.is_some_and(|left| self.now.duration_since(left) < BEHIND);
        lately && self.unanswered.concerns(job)
    }

    /// Whether anything is suspected.
    pub(super) fn suspects_some(&self) -> bool {
        !self.unanswered.is_empty()
    }

    fn is_under_way(&self, job: &Job) -> bool {
        let same = |doubt: Arc<Doubt>| doubt.message == job.message.message.id;
        self.unanswered.under_way.iter().filter_map(Weak::upgrade).any(same)
    }

    fn rests(&self, job: &Job) -> bool {
        let mut suspects = self.unanswered.suspects(job.features().keys());
        suspects.any(|suspect| suspect.until.is_some_and(|until| until > self.now))
    }

    fn standing(&self, job: &Job) -> Standing {
        if self.unanswered.concerns(job) {
            return Standing::Suspected;
        }
        // Where nothing was answered yet there is nothing to tell them by, and before anything was since, nearly all
        // mail has something in common with what waits.
        if self.unanswered.answered.times() == 0 || self.connections < 2 || self.untold || self.waiting.is_empty() {
            return Standing::Clear;
        }
        // Mail of domains that are new is mail like any other: many relays have little else.
        let shares = job.features().keys().iter().any(|key| self.waiting.contains(&key));
        if shares { Standing::Doubtful } else { Standing::Clear }
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
        let about = state.unanswered.left(job.message.message.id, &mail, how, Instant::now())?;
        Some((about, Confined::of(state.narrowed.most(self.provider.connections))))
    }

    /// The host answered a transaction, whatever it said, after it `took` so long.
    pub fn note_answered(&self, job: &Job, took: Duration) {
        let (id, keys) = (job.message.message.id, job.features().keys());
        self.state.lock().unanswered.answered(id, keys, took, Instant::now());
    }
}

impl State {
    /// A job is given out.
    pub(super) fn note_given(&mut self, job: &mut Job, connections: u32) {
        let view = self.unanswered.view(self.narrowed.most(connections), &self.answers);
        let standing = view.standing(job);
        if standing == Standing::Clear {
            return;
        }
        let unanswered = &mut self.unanswered;
        if standing == Standing::Suspected {
            let now = Instant::now();
            unanswered.left = Some(now);
            // By one message; when that has no answer, either, by the next.
            let keys = job.features().keys();
            for suspect in unanswered.features.iter_mut().filter(|known| keys.iter().any(|key| key == known.key)) {
                let wait = doubled(FIRST, suspect.times.saturating_sub(FEW), LONGEST);
                suspect.until = suspect.until.map(|_| now + wait);
            }
        }
        let doubt = Arc::new(Doubt { message: job.message.message.id });
        unanswered.under_way.retain(|other| other.strong_count() > 0);
        unanswered.under_way.push(Arc::downgrade(&doubt));
        job.doubt = Some(doubt);
    }

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
            let its = self.unanswered.about(job);
            if !about.contains(&its) {
                about.push(its);
            }
        });
        let first = about.first()?.clone();
        Some((first, about.len() - 1, waiting, Confined::of(self.narrowed.most(connections))))
    }
}

impl Unanswered {
    /// What mail of a job is suspected.
    pub(super) fn about(&self, job: &Job) -> About {
        let features = job.features();
        let own = || About { mail: features.told_of(features.keys().sender()).into(), ended: false };
        let told = |suspect: &Suspect| About { mail: suspect.about.clone(), ended: suspect.until.is_some() };
        self.suspects(features.keys()).next().map_or_else(own, told)
    }
}

#[cfg(test)]
#[path = "unanswered_tests.rs"]
mod tests;
