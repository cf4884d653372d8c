//! What waits in a lane: the ready jobs, and aside from them the jobs whose `[[limit]]` is used up
//! for now, so that they hold back nobody else (invariant 4 inside a lane).
//!
//! Jobs that have to pass the same gates wait together, with the time at which the next one may
//! pass. When that has come the better priority leaves first; at equal priority those aside and
//! those ready take turns, so that neither waits for the other for long.
//!
//! Only so many wait aside as may leave soon, of each limit and of all: the rest is [`Beyond`] and goes
//! back to the queue until its time, so that what is limited takes no room from others.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::beyond::Beyond;
pub use super::ready::Kept;
use super::ready::Ready;
use super::{Job, WINDOW};
use crate::mail::QueueId;
use crate::shape::{Bookings, Cost, Gate, Gates, Held};

/// Recipients aside at most, whatever they wait for.
const ASIDE_MOST: usize = WINDOW / 2;
/// A single job of so many recipients may wait aside though its limit keeps fewer.
const ONE_JOB: usize = 512;
/// Jobs that are looked at before the lane may do something else.
const ROUNDS: usize = 256;

/// Which gates, by their numbers: so that the order of those that are due at once is the same in each run.
type Key = Vec<u64>;

/// What a lane has in memory and nobody works on.
#[derive(Debug, Default)]
pub struct Backlog {
    ready: Ready,
    aside: HashMap<Key, Aside>,
    by_time: BTreeSet<(Instant, Key)>,
    recipients_aside: usize,
    /// What found no place aside.
    beyond: Vec<Beyond>,
    recipients_beyond: usize,
    /// Whose turn it was last: those aside.
    aside_had_turn: bool,
}

/// Jobs that wait for the same gates.
#[derive(Debug)]
struct Aside {
    gates: Arc<[Arc<Gate>]>,
    jobs: Ready,
    /// When one of them may be let through.
    wake: Instant,
}

/// What comes next.
#[derive(Debug)]
pub enum Next {
    /// This job; its gates count it as on its way.
    Job(Job),
    /// Nobody knows yet what this gate has let through before.
    Load(Arc<Gate>),
    /// All that waits is held back by limits until then.
    Wait(Instant),
    /// Nothing waits.
    Nothing,
}

fn key(gates: &[Arc<Gate>]) -> Key {
    gates.iter().map(|gate| gate.number()).collect()
}

impl Backlog {
    /// Recipients in all jobs.
    pub fn recipients(&self) -> usize {
        self.ready.recipients() + self.recipients_aside + self.recipients_beyond
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.recipients() == 0
    }

    /// Recipients of that sender.
    pub fn of_sender(&self, sender: u64) -> usize {
        self.ready.of_sender(sender) + self.aside.values().map(|a| a.jobs.of_sender(sender)).sum::<usize>()
    }

    /// Recipients of that sender in one priority whom no limit holds back.
    pub fn ready_of(&self, sender: u64, priority: i8) -> usize {
        self.ready.of_sender_at(sender, priority)
    }

    /// Adds a job behind the others of its sender.
    pub fn push(&mut self, job: Job) {
        self.ready.push(job);
    }

    /// Puts a job back where it was among those of its sender, whose turn is next.
    pub fn push_front(&mut self, job: Job) {
        self.ready.push_front(job);
    }

    /// The priority of what would leave next.
    pub fn best_priority(&self, now: Instant) -> Option<i8> {
        let due = self.due(now).and_then(|at| self.aside.get(at)).and_then(|aside| aside.jobs.best_priority());
        self.ready.best_priority().max(due)
    }

    /// The job that leaves next, as far as that is decided; `None`: there is none that no limit holds back.
    pub fn first(&self) -> Option<&Job> {
        self.ready.first()
    }

    /// The lowest priority that waits.
    pub fn lowest_priority(&self) -> Option<i8> {
        self.aside.values().filter_map(|aside| aside.jobs.lowest_priority()).chain(self.ready.lowest_priority()).min()
    }

    /// Recipients of this and higher priorities.
    pub fn at_least(&self, priority: i8) -> usize {
        self.ready.at_least(priority) + self.aside.values().map(|a| a.jobs.at_least(priority)).sum::<usize>()
    }

    /// What leaves before a message of this priority of a new sender, see [`Ready::turns_before`].
    pub fn turns_before(&self, priority: i8, sender: u64) -> (usize, usize) {
        self.ready.turns_before(priority, sender)
    }

    /// A job of higher priority to the same destination that should leave instead of `job`, which
    /// its limits let through now; its gates count it as on its way.
    pub fn overtaking(&mut self, gates: &Gates<'_>, job: &Job, most: usize, kept: Kept<'_>) -> Option<Job> {
        let mut better = self.ready.overtaking(job, most, kept)?;
        let gates = gates.of(better.sender, &better.message.message);
        let fits = |gate: &Arc<Gate>| {
            let count = better.recipients.len();
            gate.is_loaded()
                && gate.wait(Cost::of(count)).is_zero()
                && count <= gate.most_recipients(Duration::ZERO) as usize
        };
        if !gates.iter().all(fits) {
            // Not worth a second search: it has its turn with the next worker.
            self.ready.push_front(better);
            return None;
        }
        for gate in &gates {
            gate.let_through(Cost::of(better.recipients.len()));
        }
        better.gates = gates;
        Some(better)
    }

    /// The group aside that is due now and has the best priority; among equals the one due longest.
    fn due(&self, now: Instant) -> Option<&Key> {
        let due = self.by_time.iter().take_while(|(wake, _)| *wake <= now);
        due.map(|(_, key)| key).min_by_key(|key| Reverse(self.aside.get(*key).and_then(|a| a.jobs.best_priority())))
    }

    /// The next job that its limits let through now, at most `most` of its recipients. Now and not
    /// soon: a job that waited for its limit on a connection would keep it from the others. What is `kept`
    /// stays, and holds up nobody.
    pub fn pop(&mut self, passes: &Gates<'_>, most: usize, destination: Option<&str>, kept: Kept<'_>) -> Next {
        if passes.is_empty() && self.aside.is_empty() {
            return self.ready.pop_unless(most, destination, kept).map_or(Next::Nothing, Next::Job);
        }
        let now = Instant::now();
        // Each round gives a job, or puts one aside until later.
        for _ in 0..ROUNDS {
            let mut from_aside = self.whose_turn(now);
            let mut job = match &from_aside {
                Some(key) => self.pop_aside(key, now, most, destination),
                None => self.ready.pop_unless(most, destination, kept),
            };
            // What is ready is kept: those aside need not wait for it.
            if job.is_none() && from_aside.is_none() {
                from_aside = self.due(now).cloned();
                job = from_aside.as_ref().and_then(|key| self.pop_aside(key, now, most, destination));
            }
            let Some(mut job) = job else {
                return self.by_time.first().map_or(Next::Nothing, |(wake, _)| Next::Wait(*wake));
            };
            // Its limit would let it pass: it waits among the ready ones for what keeps it.
            if from_aside.is_some() && kept(&job) {
                self.ready.push_front(job);
                continue;
            }
            let gates = passes.of(job.sender, &job.message.message);
            if gates.is_empty() {
                return Next::Job(job);
            }
            if let Some(unknown) = gates.iter().find(|gate| !gate.is_loaded()) {
                let gate = unknown.clone();
                self.ready.push_front(job);
                return Next::Load(gate);
            }
            // Others of its group have waited longer.
            if from_aside.is_none()
                && let Some(aside) = self.aside.get(&key(&gates))
            {
                let wake = aside.wake;
                self.put_aside(gates, job, wake, false);
                continue;
            }
            let most = gates.iter().map(|gate| gate.most_recipients(Duration::ZERO)).min().unwrap_or(u32::MAX) as usize;
            let count = job.recipients.len().min(most);
            let wait = gates.iter().map(|gate| gate.wait(Cost::of(count))).max().unwrap_or_default();
            if !wait.is_zero() {
                self.put_aside(gates, job, now + wait, true);
                continue;
            }
            if job.recipients.len() > count {
                let mut rest = job.without_recipients();
                rest.recipients = job.recipients.split_off(count);
                self.ready.push_rest(rest);
            }
            for gate in &gates {
                gate.let_through(Cost::of(job.recipients.len()));
            }
            job.gates = gates;
            return Next::Job(job);
        }
        Next::Wait(now)
    }

    /// The group aside whose turn it is; `None`: the ready ones.
    fn whose_turn(&mut self, now: Instant) -> Option<Key> {
        let key = self.due(now)?;
        let aside = self.aside.get(key)?.jobs.best_priority();
        let ready = self.ready.best_priority();
        let turn = if aside == ready { !self.aside_had_turn } else { aside > ready };
        let key = turn.then(|| key.clone());
        self.aside_had_turn = turn;
        key
    }

    fn pop_aside(&mut self, key: &Key, now: Instant, most: usize, destination: Option<&str>) -> Option<Job> {
        let aside = self.aside.get_mut(key)?;
        let job = aside.jobs.pop(most, destination);
        self.recipients_aside -= job.as_ref().map_or(0, |job| job.recipients.len());
        self.by_time.remove(&(aside.wake, key.clone()));
        if aside.jobs.is_empty() {
            self.aside.remove(key);
        } else {
            // Behind the other groups that are due.
            aside.wake = now;
            self.by_time.insert((now, key.clone()));
        }
        job
    }

    fn put_aside(&mut self, gates: Vec<Arc<Gate>>, job: Job, wake: Instant, front: bool) {
        let key = key(&gates);
        let keep = gates.iter().filter_map(|gate| gate.bookings()).map(Bookings::keep).min().unwrap_or(u32::MAX);
        let came = (job.message.message.id, job.waited);
        self.recipients_aside += job.recipients.len();
        let aside = self.aside.entry(key.clone()).or_insert_with(|| Aside {
            gates: gates.into(),
            jobs: Ready::default(),
            wake,
        });
        self.by_time.remove(&(aside.wake, key.clone()));
        aside.wake = wake;
        self.by_time.insert((wake, key.clone()));
        if front {
            aside.jobs.push_front(job);
        } else {
            aside.jobs.push(job);
        }
        self.make_room(&key, keep as usize, came);
    }

    /// Keeps the number of those aside within its bounds. `came` last: which message, and whether it had
    /// waited before.
    fn make_room(&mut self, key: &Key, keep: usize, came: (QueueId, bool)) {
        let too_many = |aside: &Aside| aside.jobs.recipients() > keep && !aside.jobs.is_one_of_at_most(ONE_JOB);
        while self.aside.get(key).is_some_and(too_many) {
            self.put_beyond(key, came);
        }
        while self.recipients_aside > ASIDE_MOST
            && let Some((_, last)) = self.by_time.last().cloned()
        {
            self.put_beyond(&last, came);
        }
    }

    /// The last of a group goes back to the queue.
    fn put_beyond(&mut self, key: &Key, came: (QueueId, bool)) {
        let Some(aside) = self.aside.get_mut(key) else { return };
        if let Some(job) = aside.jobs.pop_last() {
            let (id, waited) = came;
            let again = job.message.message.id != id || waited;
            let wait = aside.wake.saturating_duration_since(Instant::now());
            let (mut after, mut block) = (wait, Duration::MAX);
            for bookings in aside.gates.iter().filter_map(|gate| gate.bookings()) {
                let ahead = u32::try_from(aside.jobs.recipients()).unwrap_or(u32::MAX);
                after = after.max(bookings.book(Cost::of(job.recipients.len()), wait, ahead, again));
                block = block.min(bookings.block());
            }
            let by = held(&aside.gates).map_or_else(|| title(&aside.gates), |held| held.by);
            let count = job.recipients.len();
            self.recipients_aside -= count;
            self.recipients_beyond += count;
            self.beyond.push(Beyond { job, by, after, block });
        }
        if aside.jobs.is_empty() {
            self.by_time.remove(&(aside.wake, key.clone()));
            self.aside.remove(key);
        }
    }

    /// Jobs that found no place aside.
    pub fn beyond(&self) -> usize {
        self.beyond.len()
    }

    /// Takes what found no place aside.
    pub fn take_beyond(&mut self) -> Vec<Beyond> {
        self.recipients_beyond = 0;
        std::mem::take(&mut self.beyond)
    }

    /// Takes the recipients that `wanted` names out of all jobs, and returns them.
    pub fn withdraw(&mut self, wanted: &mut dyn FnMut(&Job, u32) -> bool) -> Vec<Job> {
        self.reconsider();
        let mut out = self.ready.withdraw(wanted);
        out.extend(self.withdraw_aside(wanted, |_| Some(())).into_iter().map(|((), job)| job));
        out
    }

    /// The same of those only whom a limit holds back now, each with the limit. Whose limit would let it
    /// pass is about to be tried and stays.
    pub fn withdraw_held(&mut self, wanted: &mut dyn FnMut(&Job, u32) -> bool) -> Vec<(Held, Job)> {
        self.withdraw_aside(wanted, held)
    }

    fn withdraw_aside<T: Clone>(
        &mut self,
        wanted: &mut dyn FnMut(&Job, u32) -> bool,
        why: impl Fn(&[Arc<Gate>]) -> Option<T>,
    ) -> Vec<(T, Job)> {
        let mut out = Vec::new();
        let (by_time, recipients) = (&mut self.by_time, &mut self.recipients_aside);
        self.aside.retain(|key, aside| {
            let Some(why) = why(&aside.gates) else { return true };
            let taken = aside.jobs.withdraw(wanted);
            *recipients -= taken.iter().map(|job| job.recipients.len()).sum::<usize>();
            out.extend(taken.into_iter().map(|job| (why.clone(), job)));
            if aside.jobs.is_empty() {
                by_time.remove(&(aside.wake, key.clone()));
            }
            !aside.jobs.is_empty()
        });
        out
    }

    /// Somebody aside may leave earlier than was known: all are looked at when their turn comes.
    pub fn look_again(&mut self) {
        let now = Instant::now();
        self.by_time.clear();
        for (key, aside) in &mut self.aside {
            aside.wake = aside.wake.min(now);
            self.by_time.insert((aside.wake, key.clone()));
        }
    }

    /// What was to go back to the queue waits here as before, and is looked at again.
    fn reconsider(&mut self) {
        for beyond in self.take_beyond() {
            self.ready.push(beyond.job);
        }
    }

    /// Takes everything out.
    pub fn drain(&mut self) -> Vec<Job> {
        self.reconsider();
        let mut jobs: Vec<Job> = std::iter::from_fn(|| self.ready.pop(usize::MAX, None)).collect();
        for (_, mut aside) in std::mem::take(&mut self.aside) {
            jobs.extend(std::iter::from_fn(|| aside.jobs.pop(usize::MAX, None)));
        }
        self.by_time.clear();
        self.recipients_aside = 0;
        jobs
    }

    /// Looks at every job, with the limit that holds it back, if one does.
    pub fn look(&self, look: &mut dyn FnMut(&Job, Option<&Held>)) {
        self.ready.jobs().for_each(|job| look(job, None));
        for aside in self.aside.values() {
            let held = held(&aside.gates);
            aside.jobs.jobs().for_each(|job| look(job, held.as_ref()));
        }
        for beyond in &self.beyond {
            look(&beyond.job, Some(&Held { by: beyond.by.clone(), wait: beyond.after }));
        }
    }

    /// Each group that waits aside, to be asked with [`Group::by_limit`] what holds it back.
    pub fn groups(&self) -> Vec<Group> {
        self.aside
            .values()
            .map(|aside| Group { gates: aside.gates.clone(), waiting: aside.jobs.recipients() })
            .collect()
    }
}

/// Recipients that wait for the same gates. What these say is many times the work of noting which they are,
/// and there may be as many groups as recipients aside ([`ASIDE_MOST`]): the lane need not wait for that.
#[derive(Debug)]
pub struct Group {
    gates: Arc<[Arc<Gate>]>,
    waiting: usize,
}

impl Group {
    /// By which limit groups are held back now, and how many recipients; what holds most first.
    pub fn by_limit(groups: &[Group]) -> Vec<(Held, usize)> {
        let mut by_limit: BTreeMap<String, (Held, usize)> = BTreeMap::new();
        // What has to pass different limits may be held by the same one.
        for group in groups {
            let Some(held) = held(&group.gates) else { continue };
            let (first, waiting) = by_limit.entry(held.by.clone()).or_insert((held.clone(), 0));
            first.wait = first.wait.min(held.wait);
            *waiting += group.waiting;
        }
        let mut all: Vec<_> = by_limit.into_values().collect();
        all.sort_by_key(|(_, waiting)| std::cmp::Reverse(*waiting));
        all
    }
}

impl Backlog {
    /// Recipients that wait for one of these gates.
    pub fn waiting_for(&self, gates: &[Arc<Gate>]) -> usize {
        let same = |aside: &&Aside| aside.gates.iter().any(|gate| gates.iter().any(|other| Arc::ptr_eq(gate, other)));
        self.aside.values().filter(same).map(|aside| aside.jobs.recipients()).sum()
    }
}

/// Which limit it is while none of them holds anything back yet.
fn title(gates: &[Arc<Gate>]) -> String {
    gates.first().map_or_else(|| "a limit".into(), |gate| gate.title())
}

/// The one of these gates that holds back longest.
fn held(gates: &[Arc<Gate>]) -> Option<Held> {
    gates.iter().filter_map(|gate| gate.held()).max_by_key(|held| held.wait)
}
