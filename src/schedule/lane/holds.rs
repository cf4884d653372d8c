//! The single answer to: does anything leave this lane now; if not, what holds it, set by whom, and
//! until when? Whoever shows or logs why mail waits takes the words from here.
//!
//! A lane may be held by several things at once; [`Holds`] has them in the order in which they matter.
//! A hold that [stops](Hold::stops) the lane lets nothing leave that is in it; the others make it slow,
//! or concern a part of it. Pure, but for [`Lane::holds`], which looks.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::under_way::View;
use super::{About, Confined, LEAD, Lane, State, answers};
use crate::clock::{Timestamp, When, grouped, span};
use crate::deliver::{Stage, Timeouts};
use crate::mail::{self, RecipientKey};
use crate::schedule::Job;
use crate::schedule::backlog::Group;
use crate::shape::{Cost, Held, Holding, Usage};

/// Limits that are named at once.
const LIMITS_SHOWN: usize = 10;
/// Connections that are at work hold nothing up while something ends on one of them every so often.
const BUSY: Duration = Duration::from_secs(3);
/// Connections from which nothing came for so long are worth a word.
const SILENT: Duration = Duration::from_secs(60);

/// Who or what holds a lane.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum By {
    /// A person, until a person ends it.
    Operator,
    /// The relay is ending.
    Shutdown,
    /// A rule of the configuration or a built-in one, after a reply.
    Rule {
        /// Where it stands, such as `config.toml:12` or `built-in gmail: postmaster page`.
        rule: String,
        /// The reply.
        reply: String,
    },
    /// What was learned from a reply that no rule knows.
    Learned {
        /// The reply.
        reply: String,
    },
    /// The provider refuses everything of ours, such as the password.
    Refused {
        /// What it said.
        reply: String,
        /// It said so to this mail alone, in words that follow "mail": other mail is tried at once.
        about: Option<Arc<str>>,
    },
    /// A host that does not answer, hangs up, or turns us away before MAIL.
    Host {
        /// Its name.
        host: String,
        /// What it does, and what happened last, e.g. `takes no connection: connection refused`.
        why: String,
        /// All that is in the lane would go there.
        all: bool,
    },
    /// The source address that the lane is of cannot be used.
    Source(IpAddr),
    /// A quota that is used up, or the number of a warm-up's day.
    Quota(Usage),
    /// The pace that replies taught.
    Pace,
    /// A rate of the configuration, as it is written there.
    Rate(String),
    /// A rate of new connections, for which a worker waits.
    ConnectionRate(String),
    /// Every connection has a transaction.
    Connections {
        /// How many that are.
        all: u32,
        /// For how long nothing has ended on any of them.
        silent: Duration,
    },
    /// All that is under way waits for connections that are being opened, for longer than that takes elsewhere.
    Opening {
        /// The host.
        host: String,
        /// How many connections.
        connections: usize,
        /// For how long nothing has happened in the lane.
        silent: Duration,
    },
    /// All that is under way waits for a host that took connections and has said nothing since.
    Silent {
        /// Its name.
        host: String,
        /// Connections that wait.
        connections: usize,
        /// For how long nothing has happened in the lane.
        silent: Duration,
    },
    /// Mail that was left without an answer before, or for which the host ended connections: it has a part of them.
    Unanswered {
        /// The first of it.
        about: About,
        /// How much other mail there is.
        others: usize,
        /// Recipients that wait; 0 where it is told of one of them.
        waiting: usize,
        /// Their connections.
        part: Confined,
    },
    /// Connections that wait for the answer of a host to something they said long ago.
    Answer {
        /// Its name.
        host: String,
        /// What the one that waits longest has said.
        stage: Stage,
        /// For how long.
        silent: Duration,
        /// How many wait so.
        connections: usize,
    },
    /// A `[[limit]]`, which concerns only those it is about.
    Limit {
        /// Which.
        limit: String,
        /// Recipients that wait for it; 0 where it is told of one of them.
        waiting: usize,
        /// Of the one that holds most: how many others there are, and the recipients that wait for those.
        others: (usize, usize),
    },
    /// Connections that wait for a file descriptor of the process.
    Descriptors {
        /// How many.
        waiting: usize,
    },
    /// Mail of the same or a higher priority.
    Others {
        /// Recipients that leave first.
        ahead: usize,
    },
}

/// One thing that holds a lane.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hold {
    /// Set by whom.
    pub by: By,
    /// When it ends, or is tried again; `None`: nobody can tell.
    pub until: Option<Timestamp>,
}

impl Hold {
    /// One word for programs and the log.
    pub fn name(&self) -> &'static str {
        match &self.by {
            By::Operator => "operator",
            By::Shutdown => "shutdown",
            By::Rule { .. } => "rule",
            By::Learned { .. } => "learned",
            By::Refused { .. } => "refused",
            By::Host { .. } => "host",
            By::Source(_) => "source",
            By::Quota(usage) if usage.day.is_some() => "warmup",
            By::Quota(_) => "quota",
            By::Pace => "pace",
            By::Rate(_) => "rate",
            By::ConnectionRate(_) => "connection_rate",
            By::Connections { .. } => "connections",
            By::Opening { .. } => "opening",
            By::Silent { .. } => "silent",
            By::Unanswered { .. } => "unanswered",
            By::Answer { .. } => "answer",
            By::Limit { .. } => "limit",
            By::Descriptors { .. } => "descriptors",
            By::Others { .. } => "priority",
        }
    }

    /// Nothing at all leaves the lane while it holds. A rate does its work, and is no stop.
    pub fn stops(&self) -> bool {
        match &self.by {
            By::Host { all, .. } => *all,
            By::Refused { about, .. } => about.is_none(),
            By::Operator
            | By::Shutdown
            | By::Rule { .. }
            | By::Learned { .. }
            | By::Source(_)
            | By::Descriptors { .. }
            | By::Silent { .. }
            | By::Quota(_) => true,
            By::Pace
            | By::Rate(_)
            | By::ConnectionRate(_)
            | By::Connections { .. }
            | By::Opening { .. }
            | By::Unanswered { .. }
            | By::Answer { .. }
            | By::Limit { .. }
            | By::Others { .. } => false,
        }
    }

    /// It is not known to be about a part of the lane only.
    pub fn is_general(&self) -> bool {
        match &self.by {
            By::Host { all, .. } => *all,
            By::Refused { about, .. } => about.is_none(),
            By::Limit { .. } | By::Unanswered { .. } | By::Answer { .. } => false,
            _ => true,
        }
    }

    /// It is no stop as long as nobody knows, and what comes now would have to wait for its end.
    pub fn keeps_what_comes(&self) -> bool {
        match self.by {
            By::Opening { .. } => true,
            By::Connections { silent, .. } => silent >= SILENT,
            _ => false,
        }
    }

    /// `provider resume` ends it: it is neither the configuration's own nor a fact of the world.
    pub fn ends_by_resuming(&self) -> bool {
        let by = &self.by;
        matches!(by, By::Operator | By::Rule { .. } | By::Learned { .. } | By::Refused { .. } | By::Host { .. })
    }

    /// What it is, and until when, for people, as seen at `now`.
    pub fn told(&self, now: Timestamp) -> Told<'_> {
        Told { hold: self, now }
    }

    /// The order in which holds are told: whoever would have to act first, then what lasts longest.
    fn rank(&self) -> (u8, std::cmp::Reverse<i64>) {
        let class = match &self.by {
            By::Operator => 0,
            By::Shutdown => 1,
            _ if self.stops() => 2,
            By::Pace | By::Rate(_) | By::ConnectionRate(_) => 3,
            By::Connections { .. } | By::Opening { .. } => 4,
            By::Host { .. } | By::Refused { .. } | By::Unanswered { .. } => 5,
            By::Answer { .. } => 6,
            By::Limit { .. } => 7,
            _ => 8,
        };
        // A limit is one of many, of which the one that holds most matters most.
        let most = match self.by {
            By::Limit { waiting, .. } => i64::try_from(waiting).unwrap_or(i64::MAX),
            _ => self.until.map_or(i64::MAX, |until| until.0),
        };
        (class, std::cmp::Reverse(most))
    }
}

/// A hold in words, see [`Hold::told`].
pub struct Told<'a> {
    hold: &'a Hold,
    now: Timestamp,
}

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.hold.by {
            By::Operator => f.write_str("paused by an operator")?,
            By::Shutdown => f.write_str("mailweir is stopping")?,
            By::Rule { rule, reply } => write!(f, "paused by the rule {rule} after \"{reply}\"")?,
            By::Learned { reply } => write!(f, "paused by what was learned from \"{reply}\"")?,
            By::Refused { reply, about: None } => write!(f, "the provider refuses us: {reply}")?,
            By::Refused { reply, about: Some(about) } => {
                write!(f, "the provider refuses us with mail {about}, others' is tried at once: {reply}")?;
            }
            By::Host { host, why, .. } => write!(f, "{host} {why}")?,
            By::Source(source) => write!(f, "the source address {source} does not work")?,
            By::Quota(usage) => f.write_str(&usage.reason(self.now))?,
            By::Pace => f.write_str("the pace that replies taught")?,
            By::Rate(rate) => write!(f, "rate {rate}")?,
            By::ConnectionRate(rate) => write!(f, "rate {rate} connections")?,
            By::Connections { all: 1, .. } => f.write_str("the one connection is busy")?,
            By::Connections { all, .. } => write!(f, "all {all} connections are busy")?,
            By::Opening { host, connections, silent } => {
                let (many, since) = (many(*connections), When { at: self.now.before(*silent), now: self.now });
                write!(f, "{many} being opened to {host}, which has not greeted since {since}; {}", patience())?;
            }
            By::Silent { host, connections, silent } => {
                let many =
                    if *connections == 1 { "one connection".to_owned() } else { format!("{connections} connections") };
                write!(f, "{host} says nothing: {many} without an answer for {}; {}", span(*silent), patience())?;
            }
            By::Unanswered { about, others, waiting, part } => {
                let what = if about.ended { "ends connections for" } else { "leaves" };
                write!(f, "the host {what} mail {}", about.mail)?;
                match others {
                    0 => {}
                    1 => f.write_str(" and another")?,
                    n => write!(f, " and {n} others")?,
                }
                let how = if about.ended { "" } else { " without an answer" };
                write!(f, "{how}: it has {} of {} connections", part.connections, part.of)?;
                if *waiting > 0 {
                    write!(f, ", {} waiting", grouped(*waiting as u64))?;
                }
            }
            By::Answer { host, stage, silent, connections } => {
                write!(f, "waiting {} for the answer of {host} to {}", span(*silent), what_was_said(*stage))?;
                if *connections > 1 {
                    write!(f, " (the longest of {connections} connections)")?;
                }
            }
            By::Limit { limit, waiting: 0, .. } => f.write_str(limit)?,
            By::Limit { limit, waiting, .. } => write!(f, "{limit}: {} waiting", grouped(*waiting as u64))?,
            By::Descriptors { waiting } => {
                write!(f, "{waiting} connections wait for a file descriptor (limit of open files)")?;
            }
            By::Others { ahead: 0 } => f.write_str("its turn is next")?,
            By::Others { ahead } => write!(f, "{} as urgent or more may go first", grouped(*ahead as u64))?,
        }
        if let By::Connections { silent, .. } = &self.hold.by
            && *silent >= SILENT
        {
            write!(f, ", without an answer for {}", span(*silent))?;
        }
        self.end(f)?;
        match self.hold.by {
            By::Limit { others: (0, _), .. } => Ok(()),
            By::Limit { others: (1, waiting), .. } => write!(f, ", and another holds {}", grouped(waiting as u64)),
            By::Limit { others: (limits, waiting), .. } => {
                write!(f, ", and {limits} others hold {}", grouped(waiting as u64))
            }
            _ => Ok(()),
        }
    }
}

impl Told<'_> {
    fn end(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(until) = self.hold.until else { return Ok(()) };
        let when = When { at: until, now: self.now };
        match &self.hold.by {
            By::Refused { .. } | By::Host { .. } if until <= self.now => f.write_str("; the next message tries it"),
            By::Refused { .. } | By::Host { .. } => write!(f, "; tried again at {when}"),
            // The words have the day.
            By::Quota(usage) if usage.most == 0 => Ok(()),
            By::Quota(usage) => write!(f, ", {} {when}", usage.back_told()),
            By::Pace | By::Rate(_) | By::Limit { .. } => write!(f, ", next one at {when}"),
            By::ConnectionRate(_) => write!(f, ", next connection at {when}"),
            _ => write!(f, ", until {when}"),
        }
    }
}

/// Connections that are something.
fn many(connections: usize) -> String {
    if connections == 1 { "one connection is".to_owned() } else { format!("{connections} connections are") }
}

/// When a connection that is being opened is given up.
fn patience() -> String {
    let Timeouts { connect, greeting, .. } = Timeouts::default();
    format!("a host has {} to take a connection and {} to greet", span(connect), span(greeting))
}

/// What a host has to answer, in words.
fn what_was_said(stage: Stage) -> String {
    match stage {
        Stage::Final => "the end of data".to_owned(),
        Stage::Body => "the message".to_owned(),
        stage => stage.to_string(),
    }
}

/// All that holds a lane, what matters most first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Holds(Vec<Hold>);

impl Holds {
    /// Adds one.
    pub fn add(&mut self, by: By, until: Option<Timestamp>) {
        let hold = Hold { by, until };
        let at = self.0.partition_point(|other| other.rank() <= hold.rank());
        self.0.insert(at, hold);
    }

    /// What lets nothing leave the lane; `None`: something may leave, if only slowly.
    pub fn stop(&self) -> Option<&Hold> {
        self.0.first().filter(|hold| hold.stops())
    }

    /// What matters most; `None`: nothing holds it.
    pub fn first(&self) -> Option<&Hold> {
        self.0.first()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Hold> {
        self.0.iter()
    }
}

impl Lane {
    /// What holds the lane at `now`, as far as the lane knows it: hosts and sources are others' matter.
    pub fn holds(&self, now: Timestamp) -> Holds {
        let mut holds = self.holds_of_all(now);
        let limits = self.limits_held();
        let beside = limits.iter().skip(1).map(|(_, waiting)| waiting).sum();
        let mut others = (limits.len().saturating_sub(1), beside);
        for (held, waiting) in limits.into_iter().take(LIMITS_SHOWN) {
            let by = By::Limit { limit: held.by, waiting, others: std::mem::take(&mut others) };
            holds.add(by, Some(now.after(held.wait)));
        }
        holds
    }

    /// By which `[[limit]]` or learned pace of a sender recipients are held back, and how many; what holds most
    /// first.
    pub fn limits_held(&self) -> Vec<(Held, usize)> {
        let groups = self.state.lock().ready.groups();
        Group::by_limit(&groups)
    }

    /// Of what [holds](Lane::holds) the lane that which concerns all that is in it. It costs the same however
    /// many limits and senders there are.
    pub fn holds_of_all(&self, now: Timestamp) -> Holds {
        let mut holds = Holds::default();
        let paused = self.adapt.lock().pause(now);
        let state = self.state.lock();
        if state.paused {
            holds.add(By::Operator, None);
        }
        let paused = paused.filter(|pause| pause.until.since(now) > LEAD);
        let is_paused = paused.is_some();
        if let Some(pause) = paused {
            let by = match pause.rule {
                Some(rule) => By::Rule { rule, reply: pause.reply },
                None => By::Learned { reply: pause.reply },
            };
            holds.add(by, Some(pause.until));
        }
        if let Some(circuit) = &state.circuit {
            let by = By::Refused { reply: circuit.reason.clone(), about: circuit.about().cloned() };
            holds.add(by, Some(now.after(circuit.left())));
        }
        // A transaction takes as much of a rate as it has recipients: the next one's wait is what counts.
        let most = self.most_recipients();
        let next = state.ready.first().map_or(Cost::LEAST, |job| Cost::of(job.recipients.len().min(most)));
        for (wait, holding) in self.gate.holding(next).into_iter().filter(|(wait, _)| *wait > LEAD) {
            let until = match &holding {
                Holding::Quota(Usage { begins: Some(begins), most: 0, .. }) => *begins,
                _ => now.after(wait),
            };
            let by = match holding {
                // A pause stops the pace, too.
                Holding::Pace if is_paused => continue,
                Holding::Pace => By::Pace,
                Holding::Quota(usage) => By::Quota(usage),
                Holding::Rate(rate) => By::Rate(rate),
            };
            holds.add(by, Some(until));
        }
        if state.unconnected > 0
            && let Some((at, wait)) = self.connects.held_by(1).filter(|(_, wait)| *wait > LEAD)
            && let Some(rate) = self.provider.connection_rates().get(at)
        {
            holds.add(By::ConnectionRate(rate.to_string()), Some(now.after(wait)));
        }
        if let Some(opening) = opening(&state) {
            holds.add(opening, None);
        } else if let Some(busy) = self.busy(&state) {
            holds.add(busy, None);
        }
        if let Some((about, others, waiting, part)) = state.confined(self.provider.connections) {
            holds.add(By::Unanswered { about, others, waiting, part }, None);
        }
        if let Some(late) = state.answers.latest() {
            holds.add(late, None);
        }
        holds
    }

    /// What each of these recipients waits for, which are due: those that the queue has, and of those that
    /// are leased the ones that wait in memory. `holds` are those of the lane.
    pub fn waits(
        &self,
        due: &HashMap<RecipientKey, mail::State>,
        holds: &Holds,
        now: Timestamp,
    ) -> Vec<(RecipientKey, Hold)> {
        let state = self.state.lock();
        // A part of the lane is not known to be about this one.
        let hold = holds.iter().find(|hold| hold.is_general());
        let refused = holds.iter().find(|hold| matches!(hold.by, By::Refused { about: Some(_), .. }));
        let connections = state.narrowed.most(self.provider.connections);
        let view = View::of(&state.unanswered, connections, &state.answers, None);
        let kept = |job: &Job| {
            if let Some(hold) = refused.filter(|_| state.circuit.as_ref().is_some_and(|circuit| circuit.keeps(job))) {
                return Some(hold.clone());
            }
            let by = match view.keeps(job) {
                false => None,
                true if state.unanswered.concerns(job) => {
                    let (about, part) = (state.unanswered.about(&job.features()), Confined::of(connections));
                    Some(By::Unanswered { about, others: 0, waiting: 0, part })
                }
                // It would leave if the host answered what it has.
                true => state.answers.longest(),
            };
            by.map(|by| Hold { by, until: None })
        };
        let behind = |ahead| Hold { by: By::Others { ahead }, until: None };
        let mut told = Vec::new();
        state.ready.look(&mut |job, limit| {
            for key in job.recipients.iter().map(|held| job.key(held.index)).filter(|key| due.contains_key(key)) {
                let own = match (hold, limit) {
                    (Some(hold), _) if hold.stops() => hold.clone(),
                    _ if let Some(hold) = kept(job) => hold,
                    (_, Some(limit)) => {
                        let by = By::Limit { limit: limit.by.clone(), waiting: 0, others: (0, 0) };
                        Hold { by, until: Some(now.after(limit.wait)) }
                    }
                    (Some(hold), None) => hold.clone(),
                    (None, None) => behind(state.ready.at_least(job.priority()).saturating_sub(job.recipients.len())),
                };
                told.push((key, own));
            }
        });
        // Who has a worker that may not connect yet. Where some connect just now nobody knows who waits.
        let unconnected = holds.iter().find(|hold| matches!(hold.by, By::ConnectionRate(_)));
        let lent = state.loans.jobs();
        let unconnected = unconnected.filter(|_| lent.len() <= state.unconnected);
        if let Some(hold) =
            unconnected.or_else(|| holds.iter().find(|hold| matches!(hold.by, By::Silent { .. } | By::Opening { .. })))
        {
            let keys = lent.flat_map(|job| job.recipients.iter().map(|held| job.key(held.index)));
            told.extend(keys.filter(|key| due.contains_key(key)).map(|key| (key, hold.clone())));
        }
        // Who is in a transaction and waits in no other way.
        for (host, silence) in state.answers.late() {
            let its = |(key, stored): &(&RecipientKey, &mail::State)| {
                key.id == silence.message
                    && **stored == mail::State::Leased
                    && !told.iter().any(|(told, _)| told == *key)
            };
            let keys: Vec<RecipientKey> = due.iter().filter(its).map(|(key, _)| *key).collect();
            let hold = Hold { by: answers::told(host, silence, 1), until: None };
            told.extend(keys.into_iter().map(|key| (key, hold.clone())));
        }
        let in_memory = state.in_memory();
        let stored = due.iter().filter(|(_, state)| **state != mail::State::Leased);
        told.extend(stored.map(|(key, _)| (*key, hold.cloned().unwrap_or_else(|| behind(in_memory)))));
        told
    }

    /// What keeps a message with these features that would come now, though other mail leaves: the host has not
    /// answered what is like it.
    pub fn keeps(&self, mail: &mail::Features<'_>, now: Timestamp) -> Option<Hold> {
        let state = self.state.lock();
        if let Some(circuit) = state.circuit.as_ref().filter(|circuit| circuit.keeps_mail(mail.keys())) {
            let by = By::Refused { reply: circuit.reason.clone(), about: circuit.about().cloned() };
            return Some(Hold { by, until: Some(now.after(circuit.left())) });
        }
        let connections = state.narrowed.most(self.provider.connections);
        let view = View::of(&state.unanswered, connections, &state.answers, None);
        let (nobody, keys) = (mail::QueueId(0), mail.keys());
        let by = match view.keeps_mail(nobody, keys) {
            false => None,
            true if state.unanswered.concerns_mail(nobody, keys) => {
                let (about, part) = (state.unanswered.about(mail), Confined::of(connections));
                Some(By::Unanswered { about, others: 0, waiting: 0, part })
            }
            true => state.answers.longest(),
        };
        by.map(|by| Hold { by, until: None })
    }

    /// More is ready than connections are there for, and none of them has got anywhere for a moment.
    fn busy(&self, state: &State) -> Option<By> {
        let most = state.most_workers(self.provider.connections);
        let all_at_work = state.workers >= most && state.waiting == 0 && state.unconnected == 0 && state.in_flight > 0;
        let silent = state.moved.map_or(Duration::ZERO, |at| at.elapsed());
        (all_at_work && silent >= BUSY && !state.ready.is_empty()).then_some(By::Connections { all: most, silent })
    }

    /// The `[[limit]]`s and the learned pace of its sender that a message has to pass and that hold it back now.
    pub fn limits_on(&self, message: &mail::Message) -> Vec<Held> {
        let sender = mail::sender_key(message.envelope.sender());
        let held = self.gates().of(sender, message).into_iter().filter_map(|gate| gate.held());
        held.filter(|held| held.wait > LEAD).collect()
    }

    /// Recipients in memory that wait for the `[[limit]]`s that such a message has to pass, and how long it
    /// takes until these have let them pass, on average.
    pub fn behind_limits(&self, message: &mail::Message) -> (usize, Duration) {
        let gates = self.limits.gates(message);
        let waiting = self.state.lock().ready.waiting_for(&gates);
        let cells = Cost::from(u32::try_from(waiting).unwrap_or(u32::MAX));
        let time = |gate: &std::sync::Arc<crate::shape::Gate>| {
            let each = gate.bookings().map_or(Duration::ZERO, |bookings| bookings.time_of(cells));
            gate.wait_alone().saturating_add(each)
        };
        let longest = gates.iter().map(time).max().unwrap_or_default();
        (waiting, if waiting == 0 { Duration::ZERO } else { longest })
    }

    /// How much of each quota and of the warm-up's day is used; empty without any, or before they
    /// [were read](Lane::load_usage).
    pub fn usage(&self) -> Vec<Usage> {
        self.gate.usage()
    }

    /// Whether it is known what was used of quotas: without any, always.
    pub fn knows_usage(&self) -> bool {
        self.gate.is_loaded()
    }

    /// Reads from the store what was used of quotas, if that is not known yet.
    pub async fn load_usage(&self) {
        if !self.gate.is_loaded() {
            self.gate.load().await;
        }
    }
}

/// All that is under way is for a host that does not greet; see [`By::Opening`] and [`By::Silent`].
fn opening(state: &State) -> Option<By> {
    let silent = state.moved.map_or(Duration::ZERO, |at| at.elapsed());
    let lent = state.loans.jobs();
    let connections = lent.len();
    let all = state.in_flight > 0 && lent.map(|job| job.recipients.len()).sum::<usize>() == state.in_flight;
    if !all || silent < BUSY || state.unconnected > 0 {
        return None;
    }
    let host = state.loans.host().unwrap_or_else(|| "the host".into());
    match silent < SILENT {
        true => Some(By::Opening { host, connections, silent }),
        false => Some(By::Silent { host, connections, silent }),
    }
}

#[cfg(test)]
#[path = "holds_tests.rs"]
mod tests;
