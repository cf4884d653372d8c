//! What a lane learns from an attempt: one place for the relay and for `simulate`, which differ in
//! how they log and store it, not in what follows from a reply.
//!
//! A [`Teach`] is a lane with its clock and its surroundings. Rules of the configuration and the
//! built-in ones come first; what they do not explain teaches the lane, if it is `adaptive`.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Timestamp;
use crate::config::{Count, ReplyRule, RuleAction};
use crate::deliver::{Event, Fact, Reply, Stage};
use crate::outcome::classify::{LATER, by_rule, judge, judge_unreached, not_logged_in, wants_login};
use crate::outcome::settle::nobody_taken;
use crate::outcome::{Fate, Judgement, Scope};
use crate::schedule::lane::Reached;
use crate::schedule::{Job, Lane, Wake};
use crate::shape::adapt::{
    About, Adapt, Amount, Attempted, Effect, Finding, Newcomer, Party, Refused, Says, Signature, Tried, hash_of,
};

/// How often time passes for a lane about which something is known.
pub(crate) const TICK: Duration = Duration::from_millis(500);
/// How long the first probe of a provider that refuses us altogether waits, and the longest.
pub(crate) const CIRCUIT_FIRST: Duration = Duration::from_secs(60);
pub(crate) const CIRCUIT_LONGEST: Duration = Duration::from_secs(3600);
/// A connection closed later than this after its last message was closed because it was idle.
const SOON: Duration = Duration::from_secs(2);
/// What is said of a connection that the server ended.
const CLOSED: &str = "the server closed the connection";

/// A transaction that is over.
#[derive(Debug)]
pub(crate) struct Lesson<'a> {
    /// Whose it was.
    pub(crate) job: &'a Job,
    /// How long it took.
    pub(crate) took: Duration,
    /// What its connection had carried before, see [`Carried::before`].
    pub(crate) carried: Option<Load>,
    /// What happened to each recipient.
    pub(crate) facts: &'a [Fact],
    /// And what it means: what the lane knows by now makes a difference.
    pub(crate) judgements: &'a mut [Judgement],
}

/// What a transaction means for its connection.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct After {
    /// It is used up, or another one is to show whether it is.
    pub(crate) close: bool,
    /// It was one connection too many: nothing was said of the mail on it.
    pub(crate) too_many: bool,
    /// The kind of refusal that it had for the whole transaction.
    refused: Option<u64>,
}

/// A lane that learns.
pub(crate) trait Teach {
    /// The lane.
    fn lane(&self) -> &Arc<Lane>;
    /// The time now.
    fn now(&self) -> Timestamp;
    /// The state was asked or fed; `changed`: it is another now.
    fn taught(&self, changed: bool, wake: Wake);
    /// A reply slowed the lane down, because of `rule`.
    fn throttled(&self, fact: &Fact, rule: &str, effects: &[Effect]);
    /// A rule wants somebody to look at this.
    fn alert(&self, rule: &str, fact: &Fact);

    /// The server takes no more than so many messages on a connection.
    fn spent(&self, messages: u32);

    /// The server takes no more than this on a connection, in words.
    fn used_up(&self, most: &str);

    /// A verdict was made or undone: what a kind of refusal is about.
    fn found(&self, finding: &Finding);

    /// A rule has acted: what else it concerns learns of it.
    fn acted(&self, _rule: &ReplyRule, _reply: &str) {}

    /// Feeds or asks the state; `with` gets the connections that are open, too.
    fn teach<T>(&self, with: impl FnOnce(&mut Adapt, u32) -> T) -> T {
        let ((result, changed), wake) = self.lane().feedback(self.now(), |adapt, open| {
            let result = with(adapt, open);
            (result, adapt.take_changed())
        });
        self.taught(changed, wake);
        result
    }

    /// What a fact means in this lane: by the first rule that matches and acts, else by the table.
    fn judge(&self, fact: &Fact) -> Judgement {
        let Event::Reply(reply) = &fact.event else { return judge(fact) };
        let rules = &self.lane().provider.rules;
        if !reply.is_positive() && rules.iter().any(|rule| rule.matches(fact.stage, reply)) {
            let now = self.now();
            let acted = self.teach(|adapt, _| {
                let rule = rules.iter().find(|r| r.matches(fact.stage, reply) && adapt.counts(r, now))?;
                Some((rule, adapt.ruled(rule, &reply.to_string(), now)))
            });
            if let Some((rule, effects)) = acted {
                if rule.actions.contains(&RuleAction::Alert) {
                    self.alert(&rule.origin, fact);
                }
                self.acted(rule, &reply.to_string());
                let judgement = by_rule(rule, fact);
                if judgement.throttled {
                    self.throttled(fact, &rule.origin, &effects);
                }
                return judgement;
            }
        }
        let judgement = judge(fact);
        if wants_login(fact) {
            let lane = self.lane();
            return not_logged_in(judgement, fact, lane.provider.relay.is_some(), lane.took_lately());
        }
        judgement
    }

    /// Judges a route that took nobody, and tells the lane when it was a connection too many; `ours`
    /// are the names of the hosts of this route, `number` that of the connection. A lane may have many routes, and
    /// the host of one that is down says nothing of the others.
    fn unreached(&self, number: u64, facts: &[Fact], ours: impl Fn(&str) -> bool) -> (Judgement, Fact) {
        let smart_host = self.lane().provider.relay.is_some();
        let (mut judgement, told) = judge_unreached(facts, smart_host, &mut |fact| self.judge(fact));
        let nobody = || Fact { stage: Stage::Connect, event: Event::Io("no host was tried".into()), peer: None };
        let fact = told.cloned().unwrap_or_else(nobody);
        let served = self.lane().open_to(ours);
        if self.lane().provider.adaptive && one_too_many(&fact, served) {
            if !judgement.ruled {
                let now = self.now();
                self.teach(|adapt, open| {
                    adapt.refused((number, open), says_too_many(&fact), now, &fact.event.to_string());
                });
                judgement.fate = Fate::Back { counts: false };
                judgement.throttled = true;
            }
            // Those that are open take it.
            if served > 0 && matches!(judgement.fate, Fate::Back { .. } | Fate::AtOnce) {
                judgement.fate = Fate::Front;
            }
        }
        (judgement, fact)
    }

    /// The connection of that number was opened; `open` with it.
    fn note_opened(&self, number: u64, open: u32) {
        let now = self.now();
        self.teach(|adapt, _| adapt.opened((number, open), now));
    }

    /// The server closed a connection soon after the last message of its load.
    fn note_closed(&self, load: Load) {
        let now = self.now();
        let (spent, told) = self.teach(|adapt, _| {
            let (_, told) = adapt.refused_on(None, &load.attempted(None, now), now, CLOSED);
            (adapt.closed((load.carried.messages, load.opened(now)), None, now, CLOSED), told)
        });
        self.tell(spent.then_some(load), told);
    }

    /// Tells what was learned of connections.
    fn tell(&self, spent: Option<Load>, told: Option<String>) {
        match (spent, told) {
            (Some(load), _) => self.spent(load.carried.messages),
            (None, Some(told)) => self.used_up(&told),
            (None, None) => {}
        }
    }

    /// What the lane learns from a transaction, and what that means for who was refused: never that it
    /// is tried sooner, see [`Fate`], unless its connection was used up.
    fn learn(&self, lesson: Lesson<'_>) -> After {
        let Lesson { job, facts, judgements, carried: on, took } = lesson;
        let now = self.now();
        let carried = on.filter(|load| !load.stale);
        let began = now.before(took + Duration::from_millis(1));
        let cells = |n: usize| match self.lane().provider.count {
            Count::Messages => 1,
            Count::Recipients => u32::try_from(n).unwrap_or(u32::MAX),
        };
        let fresh = carried.is_some_and(|load| load.carried.messages == 0);
        if !judgements.iter().any(|j| j.fate == Fate::Delivered) {
            // "Too many recipients" to one alone is about something else, the pace perhaps.
            let alone =
                judgements.iter_mut().zip(facts).filter(|(j, _)| j.fate == Fate::AtOnce && j.scope == Scope::Recipient);
            alone.for_each(|(judgement, fact)| judgement.fate = nobody_taken(fact));
        }
        let accepted: Vec<Party> = parties(job, judgements, |j| j.fate == Fate::Delivered);
        let bad = carried.is_some_and(|load| load.bad > 0) || facts.iter().any(is_for_good);
        let sign = |at: usize, stage: Stage, reply: &Reply| Signature::of(stage, reply, &locals(job, at));
        let closed = facts.first().filter(|f| f.stage <= Stage::Mail && ended(f)).and(carried);
        let about = on.filter(|_| accepted.is_empty() && !bad).and_then(|load| {
            let at = about_connection(facts, judgements, load)?;
            let fact = facts.get(at)?;
            let reply = match &fact.event {
                Event::Reply(reply) if !ended(fact) => Some(sign(at, fact.stage, reply)),
                _ => None,
            };
            Some((load, reply, fact.event.to_string()))
        });
        let mut after = After::default();
        let host = facts.first().and_then(|fact| fact.peer.as_ref()).map_or("", |peer| &*peer.host);
        let (working, to_host) = self.lane().working(host);
        let newcomer = carried
            .filter(|_| to_host > 0)
            .and_then(|load| Some((refused_newcomer(facts, judgements, load, job)?, facts.first()?.event.to_string())))
            .map(|(one, text)| (Newcomer { working, ..one }, text));
        let mut news = false;
        let (spent, told, slowed) = self.teach(|adapt, open| {
            let newcomer_refused = newcomer.is_some();
            if let Some((one, text)) = newcomer {
                let about_number = adapt.refused_newcomer(one, now, &text);
                if let Some(learned) = about_number {
                    (after.close, after.too_many, news) = (true, true, learned);
                    judgements.iter_mut().for_each(|judgement| judgement.fate = Fate::Front);
                    return (None, None, Vec::new());
                }
            }
            if !accepted.is_empty() {
                if let Some(load) = on {
                    adapt.took((load.number, fresh), job.features().keys(), working, now);
                    adapt.passed_on(load.carried, amount(job, accepted.len()), job.sender, now);
                }
                adapt.accepted(&accepted, cells(accepted.len()), began, now);
                adapt.carried(carried.map_or(1, |before| before.carried.messages.saturating_add(1)), job.sender);
            }
            let ours = |load: &Load| (load.carried.messages, load.opened(now));
            let spent = closed.filter(|load| adapt.closed(ours(load), Some(job.sender), now, CLOSED));
            let tried = Tried { before: carried.map_or(0, |load| load.carried.messages), open };
            let (says, told) = about.as_ref().map_or((Says::Nothing, None), |(load, sign, text)| {
                let next = Some((amount(job, job.recipients.len()), job.sender));
                adapt.refused_on(sign.as_ref(), &load.attempted(next, now), now, text)
            });
            after.refused = about.as_ref().and_then(|(_, sign, _)| sign.as_ref()).map(|sign| sign.hash);
            after.close = matches!(says, Says::UsedUp { .. } | Says::Perhaps { again: true });
            if spent.is_none() && about.as_ref().is_some_and(|(load, ..)| load.is_any()) && says == Says::Nothing {
                adapt.refused_at_work();
            }
            after.close |= newcomer_refused && adapt.doubts_newcomers();
            if matches!(says, Says::UsedUp { .. }) {
                judgements.iter_mut().zip(facts).for_each(|(judgement, fact)| used_up(judgement, fact));
            }
            let mut slowed = Vec::new();
            let paced = |at: usize, reply: &Reply| adapt.is_paced(&sign(at, Stage::Mail, reply));
            let refused = refusals(facts, judgements, fresh, !bad, paced);
            for (first, at) in (0..).zip(&refused) {
                let Some(Fact { stage, event: Event::Reply(reply), .. }) = facts.get(*at) else { continue };
                let Some(party) = party(job, *at) else { continue };
                let text = reply.to_string();
                if adapt.told(About::told(&reply.text, false), tried, now, &text) {
                    continue;
                }
                let sign = sign(*at, *stage, reply);
                let cells = if first == 0 { cells(refused.len()) } else { 0 };
                let sender = job.message.message.envelope.sender();
                let refused = Refused { sign, party, sender, cells, reply: &text };
                match says {
                    Says::UsedUp { .. } => {}
                    Says::Perhaps { .. } => adapt.withhold(&refused, began, now),
                    Says::Nothing if adapt.refused_for(&refused, began, now) => slowed.push(*at),
                    Says::Nothing => {}
                }
            }
            (spent, told, slowed)
        });
        self.tell(spent, told);
        if news {
            let wake = self.lane().clear_ended();
            self.taught(false, wake);
        }
        for (judgement, fact) in judgements.iter_mut().zip(facts) {
            // On a connection that had carried nothing it is an answer to this message, not the end of a
            // connection that others have used up.
            let slows = slowed.iter().any(|at| facts.get(*at) == Some(fact));
            if (fresh || slows)
                && !after.too_many
                && is_end_of_connection(judgement)
                && matches!(fact.event, Event::Reply(_))
            {
                judgement.fate = LATER;
            }
            judgement.throttled |= slows;
        }
        if let Some(fact) = slowed.first().and_then(|at| facts.get(*at)) {
            self.throttled(fact, "learned", &[]);
        }
        let findings = self.lane().findings();
        findings.iter().for_each(|finding| self.found(finding));
        after
    }
}

/// A message of a job, with so many of its recipients.
pub(crate) fn amount(job: &Job, recipients: usize) -> Amount {
    let recipients = u32::try_from(recipients).unwrap_or(u32::MAX);
    Amount { messages: 1, recipients, bytes: job.message.message.size }
}

/// The first fact of a transaction that may be about what its connection has carried: no rule explains it, and it is
/// not for good.
fn about_connection(facts: &[Fact], judgements: &[Judgement], load: Load) -> Option<usize> {
    facts.iter().zip(judgements).position(|(fact, judgement)| {
        let is_refused = matches!(&fact.event, Event::Reply(reply) if reply.is_transient());
        // One that was idle is closed because of that.
        fact.stage >= Stage::Mail && !judgement.ruled && (is_refused || ended(fact)) && !(ended(fact) && load.stale)
    })
}

/// Mail that was refused as a whole, at MAIL or RCPT, on a connection that had carried nothing and refused nothing for
/// good: by words for now or by an end of the connection, that no rule explains.
fn refused_newcomer(facts: &[Fact], judgements: &[Judgement], load: Load, job: &Job) -> Option<Newcomer> {
    let is_refused = |fact: &Fact, judgement: &Judgement| {
        let for_now = matches!(&fact.event, Event::Reply(reply) if reply.is_transient());
        matches!(fact.stage, Stage::Mail | Stage::Rcpt) && (for_now || ended(fact)) && !judgement.ruled
    };
    let all = facts.iter().zip(judgements).all(|(fact, judgement)| is_refused(fact, judgement));
    let first = facts.first().filter(|_| all && !load.is_any() && load.bad == 0)?;
    let keys = job.features().keys();
    let mail = if first.stage == Stage::Mail { keys.at_mail() } else { keys };
    let said = matches!(&first.event, Event::Reply(reply) if About::told(&reply.text, false) == About::Connections);
    Some(Newcomer { number: load.number, working: 0, mail, said })
}

/// Its connection took no more: another one does. What may have arrived waits as before.
fn used_up(judgement: &mut Judgement, fact: &Fact) {
    let was_refused = fact.stage < Stage::Final || matches!(fact.event, Event::Reply(_));
    if judgement.fate == LATER && !judgement.ruled && fact.stage >= Stage::Mail && was_refused {
        (judgement.fate, judgement.scope) = (Fate::AtOnce, Scope::Connection);
        judgement.why = "the server takes no more on this connection";
    }
}

/// Who was concerned of those whose judgement suits.
fn parties(job: &Job, judgements: &[Judgement], suits: impl Fn(&Judgement) -> bool) -> Vec<Party> {
    let at = judgements.iter().enumerate().filter(|(_, judgement)| suits(judgement));
    at.filter_map(|(at, _)| party(job, at)).collect()
}

fn party(job: &Job, at: usize) -> Option<Party> {
    let held = job.recipients.get(at)?;
    Some(Party {
        recipient: hash_of(held.recipient.address.as_str()),
        sender: job.sender,
        message: job.key(held.index).id.0.cast_unsigned(),
        size: job.message.message.size,
        again: held.attempts > 0,
    })
}

/// Local parts that a reply may repeat.
fn locals(job: &Job, at: usize) -> [&str; 2] {
    let local = |address: &'_ str| -> usize { address.rfind('@').unwrap_or(address.len()) };
    let recipient = job.recipients.get(at).map_or("", |held| held.recipient.address.as_str());
    let sender = job.message.message.envelope.sender();
    [recipient, sender].map(|address| address.get(..local(address)).unwrap_or_default())
}

/// The positions of refusals that no rule explains and that are not for good. What was said once for all
/// recipients is one refusal; so is what was said to each of them, if it is about the message.
///
/// `fresh`: the connection had carried nothing; `clean`: nothing was refused for good on it; `paced`: such a
/// reply to MAIL is known to be about the pace.
fn refusals(
    facts: &[Fact],
    judgements: &[Judgement],
    fresh: bool,
    clean: bool,
    paced: impl Fn(usize, &Reply) -> bool,
) -> Vec<usize> {
    let mut out: Vec<usize> = Vec::new();
    for (at, (fact, judgement)) in facts.iter().zip(judgements).enumerate() {
        let Event::Reply(reply) = &fact.event else { continue };
        let later = matches!(judgement.fate, Fate::Again { uncertain: false, .. });
        // At MAIL, a connection that has carried something ends because of that, unless it is known better; later,
        // one with bad recipients because of these.
        let about_us = || fact.stage > Stage::Mail || fact.stage == Stage::Mail && paced(at, reply);
        let said = later || is_end_of_connection(judgement) && (fresh || clean && about_us());
        if reply.is_positive() || judgement.ruled || !said || fact.stage < Stage::Mail {
            continue;
        }
        if fact.stage == Stage::Rcpt || out.is_empty() {
            out.push(at);
        }
    }
    out
}

/// A refusal for good.
fn is_for_good(fact: &Fact) -> bool {
    matches!(&fact.event, Event::Reply(reply) if reply.is_permanent())
}

fn is_end_of_connection(judgement: &Judgement) -> bool {
    judgement.fate == Fate::AtOnce && judgement.scope == Scope::Connection
}

/// What a connection has carried, and for how long it is open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Load {
    /// That of the connection, in the order in which they began.
    number: u64,
    carried: Amount,
    /// The last message of it.
    last: Amount,
    /// It had been idle for a while, and ended or refused the next message.
    stale: bool,
    /// The kind of what it refused for now since something passed.
    refused: Option<u64>,
    /// Recipients and messages refused for good on it: a server may end a connection because of that.
    bad: u32,
    age: Duration,
}

impl Load {
    /// Whether it had carried anything.
    pub(crate) fn is_any(self) -> bool {
        self.carried.messages > 0
    }

    fn opened(self, now: Timestamp) -> Timestamp {
        now.before(self.age)
    }

    fn attempted(self, next: Option<(Amount, u64)>, now: Timestamp) -> Attempted {
        Attempted { opened: self.opened(now), before: self.carried, last: self.last, next, earlier: self.refused }
    }
}

/// Counts what a connection carries.
#[derive(Debug)]
pub(crate) struct Carried {
    number: u64,
    opened: Instant,
    /// Refusals for good.
    bad: u32,
    /// What was accepted, the last of it, and when that was.
    accepted: Amount,
    last: Amount,
    at: Instant,
    /// The kind of what was refused for now since then.
    refused: Option<u64>,
}

impl Carried {
    /// Of a new connection, the one of that number.
    pub(crate) fn nothing(number: u64) -> Carried {
        let now = Instant::now();
        Carried {
            number,
            opened: now,
            bad: 0,
            accepted: Amount::default(),
            last: Amount::default(),
            at: now,
            refused: None,
        }
    }

    /// What was accepted on it.
    pub(crate) fn amount(&self) -> Amount {
        self.accepted
    }

    /// What a transaction means for it.
    pub(crate) fn note(&mut self, after: After) {
        self.refused = after.refused.or(self.refused);
    }

    fn load(&self, stale: bool) -> Load {
        let Carried { number, bad, accepted: carried, last, refused, .. } = *self;
        Load { number, carried, last, stale, refused, bad, age: self.opened.elapsed() }
    }

    /// What it has carried, if there was anything and the last of it was a moment ago.
    pub(crate) fn lately(&self) -> Option<Load> {
        (self.accepted.messages > 0 && self.at.elapsed() < SOON).then(|| self.load(false))
    }

    /// Counts a transaction of a message of `bytes` with these facts; what there was before it.
    pub(crate) fn before(&mut self, facts: &[Fact], bytes: u64) -> Load {
        let before = self.load(self.at.elapsed() >= SOON && facts.iter().any(|f| f.stage <= Stage::Mail));
        let bad = facts.iter().filter(|fact| is_for_good(fact)).count();
        self.bad = self.bad.saturating_add(u32::try_from(bad).unwrap_or(u32::MAX));
        let is_taken = |f: &&Fact| f.stage == Stage::Final && matches!(&f.event, Event::Reply(r) if r.is_positive());
        let taken = facts.iter().filter(is_taken).count();
        if taken > 0 {
            self.last = Amount { messages: 1, recipients: u32::try_from(taken).unwrap_or(u32::MAX), bytes };
            self.accepted = self.accepted.and(self.last);
            (self.at, self.refused) = (Instant::now(), None);
        }
        before
    }
}

/// Whether the provider takes nothing of ours at all, e.g. refuses the password.
pub(crate) fn refuses_us(judgement: &Judgement) -> bool {
    judgement.scope == Scope::Provider && !judgement.throttled && !judgement.ruled
}

/// Where in the dialog the provider let us go no further, or as far as it let us go.
pub(crate) fn reached(stage: Stage) -> Reached {
    match stage {
        Stage::Mail => Reached::Mail,
        Stage::Rcpt => Reached::Recipient,
        Stage::Data | Stage::Body | Stage::Final => Reached::Data,
        _ => Reached::Session,
    }
}

/// How far mail got: where it was answered last, whatever the answer.
pub(crate) fn got_to(facts: &[Fact]) -> Reached {
    let answered = facts.iter().filter(|fact| matches!(fact.event, Event::Reply(_)));
    answered.map(|fact| reached(fact.stage)).max().unwrap_or(Reached::Session)
}

/// Whether a host that did not take a connection has too many of ours: it says so, or it refuses
/// one while it, or another of its route, serves `open` others. A login that fails for now while others are
/// logged in is one too many, too.
fn one_too_many(fact: &Fact, open: u32) -> bool {
    match &fact.event {
        Event::Reply(reply) if (Stage::Greeting..=Stage::Auth).contains(&fact.stage) => {
            // Whatever it says before it has heard who we are, or of what mail: others of ours are welcome there.
            let at_the_door = matches!(fact.stage, Stage::Greeting | Stage::Ehlo) && !reply.is_positive();
            let for_now = reply.is_transient() && (reply.code == 421 || fact.stage == Stage::Auth);
            open > 0 && (at_the_door || for_now) || reply.is_transient() && says_too_many(fact)
        }
        Event::Io(_) | Event::Closed => open > 0 && (Stage::Connect..=Stage::Auth).contains(&fact.stage),
        _ => false,
    }
}

/// Whether it says that there are too many connections. Too many logins of an hour are not too many at once.
fn says_too_many(fact: &Fact) -> bool {
    let Event::Reply(reply) = &fact.event else { return false };
    fact.stage <= Stage::Ehlo && About::told(&reply.text, true) == About::Connections
}

/// The server ended the connection, with or without a word.
fn ended(fact: &Fact) -> bool {
    match &fact.event {
        Event::Closed | Event::Io(_) => true,
        Event::Reply(reply) => reply.code == 421,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::config::{Provider, sample};
    use crate::deliver::Reply;
    use crate::mail::LaneName;
    use crate::shape::reserve::testing::ledger;

    struct Pupil(Arc<Lane>, Clock);

    impl Teach for Pupil {
        fn lane(&self) -> &Arc<Lane> {
            &self.0
        }
        fn now(&self) -> Timestamp {
            self.1.now()
        }
        fn taught(&self, _: bool, _: Wake) {}
        fn throttled(&self, _: &Fact, _: &str, _: &[Effect]) {}
        fn alert(&self, _: &str, _: &Fact) {}
        fn spent(&self, _: u32) {}
        fn used_up(&self, _: &str) {}
        fn found(&self, _: &Finding) {}
    }

    /// One lane of many domains, each with hosts of its own: one that is down is no sign of a limit.
    #[tokio::test(start_paused = true)]
    async fn a_connection_is_one_too_many_only_for_the_hosts_that_serve_others() {
        let provider = Provider { adaptive: true, connections: 10, ..sample::provider("p") };
        let lane = Arc::new(Lane::new(LaneName::from("p"), Arc::new(provider), &[], &ledger()));
        let pupil = Pupil(lane.clone(), Clock::for_tests());
        let most = |pupil: &Pupil| pupil.teach(|adapt, _| adapt.limits(pupil.now()).connections);
        let counted: Vec<_> = ["a1.example", "a1.example", "a2.example"].map(|host| lane.opened(host)).into();
        assert_eq!(counted.iter().map(|(open, _)| *open).collect::<Vec<_>>(), [1, 2, 3]);
        let refused = || Fact { stage: Stage::Connect, event: Event::Io("connection refused".into()), peer: None };
        let (judgement, _) = pupil.unreached(lane.begin_connection(), &[refused()], |host| host.starts_with('b'));
        assert_eq!((judgement.throttled, most(&pupil)), (false, 10));
        for cap in [10, 10, 10, 10, 10, 10, 10, 3] {
            let (judgement, _) = pupil.unreached(lane.begin_connection(), &[refused()], |host| host.starts_with('a'));
            assert_eq!((judgement.throttled, most(&pupil)), (true, cap), "only so many in a row are no chance");
        }
        let said = || Fact {
            stage: Stage::Greeting,
            event: Event::Reply(Reply { code: 421, enhanced: None, text: "too many connections".into() }),
            peer: None,
        };
        assert_eq!(
            pupil.unreached(lane.begin_connection(), &[said()], |_| true).0.fate,
            Fate::Front,
            "those that work take it"
        );
        drop(counted);
        assert_eq!(lane.open_to(|_| true), 0, "closed ones are not counted");
        assert_eq!(
            pupil.unreached(lane.begin_connection(), &[said()], |_| true).0.fate,
            Fate::Back { counts: false },
            "none works"
        );
    }

    /// A login that fails while others are logged in is one too many; else it is about the host or the account.
    #[test]
    fn a_login_that_fails_for_now_is_one_too_many_only_where_others_are_logged_in() {
        let reply = |code| Event::Reply(Reply { code, enhanced: None, text: "too many logins".into() });
        for event in [reply(454), reply(421), Event::Closed] {
            let fact = Fact { stage: Stage::Auth, event, peer: None };
            assert_eq!((one_too_many(&fact, 0), one_too_many(&fact, 1)), (false, true), "{fact}");
        }
        let refused = Fact { stage: Stage::Auth, event: reply(535), peer: None };
        assert!(!one_too_many(&refused, 1));
    }

    /// Hosts say 554 to a connection too many, or whatever they say when something is wrong.
    #[test]
    fn any_refusal_at_the_greeting_is_one_too_many_where_others_are_served() {
        for (stage, code) in [(Stage::Greeting, 554), (Stage::Greeting, 450), (Stage::Ehlo, 550), (Stage::Ehlo, 421)] {
            let event = Event::Reply(Reply { code, enhanced: None, text: "no".into() });
            let fact = Fact { stage, event, peer: None };
            assert_eq!((one_too_many(&fact, 0), one_too_many(&fact, 1)), (false, true), "{fact}");
        }
        let tls = Event::Reply(Reply { code: 554, enhanced: None, text: "no".into() });
        assert!(!one_too_many(&Fact { stage: Stage::StartTls, event: tls, peer: None }, 1));
    }
}
