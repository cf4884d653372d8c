//! From facts to settlements: what the queue is told, who is notified, what is tried again at once.
//! Pure: `now` and randomness are arguments.

use super::retry::{Next, after_failure};
use crate::clock::Timestamp;
use crate::config::Retry;
use crate::deliver::{Event, Fact, Reply};
use crate::mail::{LaneName, QueueId, Recipient, RecipientKey};
use crate::queue::{Settlement, Verdict};

use super::classify::{Fate, Judgement, Scope, judge};

/// Times a recipient may come back untried before it waits like a failed one.
const UNTRIED_MOST: u8 = 2;
/// Times a throttled recipient goes back to its lane before it waits like a failed one.
const BACK_MOST: u8 = 5;

/// One recipient after an attempt.
#[derive(Clone, Copy, Debug)]
pub struct Tried<'a> {
    /// Position in the envelope.
    pub index: u32,
    /// The forward-path and its parameters.
    pub recipient: &'a Recipient,
    /// Attempts before this one.
    pub attempts: u32,
    /// A delay DSN was sent before.
    pub warned: bool,
    /// Times it came back untried.
    pub untried: u8,
    /// What happened.
    pub fact: &'a Fact,
    /// What it means, if that does not follow from the fact alone (no host was reached).
    pub judged: Option<Judgement>,
}

/// The surroundings of an attempt.
#[derive(Debug)]
pub struct Context<'a> {
    /// The message.
    pub id: QueueId,
    /// Since when its age counts ([`crate::mail::Message::age_from`]).
    pub age_from: Timestamp,
    /// Where its recipients wait from now on.
    pub lane: &'a LaneName,
    /// The schedule in force.
    pub retry: &'a Retry,
    /// The host takes over success DSNs (RFC 3461).
    pub dsn: bool,
    /// Now.
    pub now: Timestamp,
}

/// What became of a recipient, for the log and the DSN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Accepted upstream.
    Delivered,
    /// Tried again at this time.
    Deferred(Timestamp),
    /// Permanently failed.
    Bounced,
    /// Too old.
    Expired,
    /// Given back to the lane at once.
    Again {
        /// It was an attempt.
        counts: bool,
    },
}

/// Which DSN is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Notice {
    /// None.
    None,
    /// It failed.
    Failed,
    /// It is delayed.
    Delayed,
    /// It was relayed to a host that sends no success DSN.
    Relayed,
}

/// The plan for one recipient.
#[derive(Debug)]
pub struct Planned {
    /// Position in the slice that was given.
    pub at: usize,
    /// What became of it.
    pub outcome: Outcome,
    /// The DSN due.
    pub notice: Notice,
    /// How it was judged.
    pub judgement: Judgement,
    /// For the queue; `None` for [`Outcome::Again`].
    pub settlement: Option<Settlement>,
}

/// Plans what follows from an attempt. `random` gives uniform numbers in 0..1.
pub fn plan<'a>(
    context: &Context<'_>,
    tried: impl Iterator<Item = Tried<'a>> + Clone,
    random: &mut dyn FnMut() -> f64,
) -> Vec<Planned> {
    // "Too many recipients" is only believed when the server took some of them.
    let some_taken = tried.clone().any(|t| judge(t.fact).fate == Fate::Delivered);
    tried
        .enumerate()
        .map(|(at, one)| {
            let mut judgement = one.judged.unwrap_or_else(|| judge(one.fact));
            if judgement.fate == Fate::AtOnce && judgement.scope == Scope::Recipient {
                if some_taken {
                    // However often: each time some more of them have left, so it ends.
                    let (outcome, notice) = (Outcome::Again { counts: false }, Notice::None);
                    return Planned { at, outcome, notice, judgement, settlement: None };
                }
                judgement.fate = nobody_taken(one.fact);
            }
            plan_one(context, at, &one, judgement, random)
        })
        .collect()
}

/// The fate of a recipient that was refused as one too many of a transaction in which nobody was taken: it was
/// something else, then. A mailbox is full that says 552 and no more.
pub(crate) fn nobody_taken(fact: &Fact) -> Fate {
    if is_full(fact) { Fate::Fail } else { Fate::Again { counts: true, uncertain: false } }
}

/// "552" and no more of a recipient that was alone: its mailbox, then.
fn is_full(fact: &Fact) -> bool {
    matches!(&fact.event, Event::Reply(Reply { code: 552, enhanced: None, text }) if !text.to_ascii_lowercase().contains("too many recipients"))
}

fn plan_one(
    context: &Context<'_>,
    at: usize,
    one: &Tried<'_>,
    judgement: Judgement,
    random: &mut dyn FnMut() -> f64,
) -> Planned {
    let key = RecipientKey { id: context.id, index: one.index };
    let notify = one.recipient.notify;
    let planned = |outcome, notice, verdict: Option<Verdict>| Planned {
        at,
        outcome,
        notice,
        judgement,
        settlement: verdict.map(|verdict| Settlement { key, verdict }),
    };
    let failed = |outcome, reason: String| {
        let notice = if notify.failure { Notice::Failed } else { Notice::None };
        planned(outcome, notice, Some(Verdict::Failed { reason }))
    };
    let (counts, uncertain) = match judgement.fate {
        Fate::Delivered => {
            let notice = if notify.success && !context.dsn { Notice::Relayed } else { Notice::None };
            return planned(Outcome::Delivered, notice, Some(Verdict::Delivered));
        }
        Fate::Fail => return failed(Outcome::Bounced, one.fact.to_string()),
        Fate::AtOnce if one.untried < UNTRIED_MOST => {
            return planned(Outcome::Again { counts: false }, Notice::None, None);
        }
        // Without a wait it was no attempt; with one, the waits have to grow.
        Fate::AtOnce => (true, false),
        Fate::Back { counts }
            if one.untried < BACK_MOST && context.now < context.age_from.after(context.retry.expire) =>
        {
            return planned(Outcome::Again { counts }, Notice::None, None);
        }
        Fate::Back { counts } => (counts, false),
        Fate::Front if context.now < context.age_from.after(context.retry.expire) => {
            return planned(Outcome::Again { counts: false }, Notice::None, None);
        }
        Fate::Front => (false, false),
        Fate::Again { counts, uncertain } => (counts, uncertain),
    };
    let attempts = one.attempts + u32::from(counts);
    match after_failure(context.retry, context.age_from, attempts.max(1), context.now, random()) {
        Next::Expired => match &one.fact.event {
            Event::Held(by) => failed(Outcome::Expired, format!("expired while held back by {by}")),
            _ => failed(Outcome::Expired, format!("expired; last: {}", one.fact)),
        },
        Next::At(due) => {
            let due = match judgement.delay {
                Some(delay) => context.now.after(delay).min(context.age_from.after(context.retry.expire)),
                None => due,
            };
            let never = context.retry.warn.is_zero();
            let late = !never && context.now >= context.age_from.after(context.retry.warn);
            let warn = late && !one.warned && notify.delay;
            let verdict = Verdict::Deferred {
                due,
                reason: one.fact.to_string(),
                counts,
                uncertain,
                warned: one.warned || warn,
                lane: context.lane.clone(),
            };
            let notice = if warn { Notice::Delayed } else { Notice::None };
            planned(Outcome::Deferred(due), notice, Some(verdict))
        }
    }
}

/// The enhanced status code of a DSN (RFC 3463) for a fact with this outcome.
pub fn status(outcome: Outcome, fact: &Fact) -> (u8, u16, u16) {
    let class = match outcome {
        Outcome::Delivered => 2,
        Outcome::Deferred(_) | Outcome::Again { .. } => 4,
        Outcome::Bounced => 5,
        Outcome::Expired => return (4, 4, 7),
    };
    let text = match &fact.event {
        // The outcome decides the class: some 550s are temporary.
        Event::Reply(reply) => return reply.enhanced.map_or((class, 0, 0), |(_, b, c)| (class, b, c)),
        Event::Unsendable { enhanced, .. } | Event::NoRoute { enhanced, .. } => *enhanced,
        Event::Tls(_) => "4.7.5",
        Event::Timeout(_) | Event::Closed => "4.4.2",
        Event::Garbled(_) => "4.5.0",
        Event::Local(_) => "4.3.0",
        _ => "4.4.1",
    };
    let mut parts = text.split('.').skip(1).map(|n| n.parse().unwrap_or(0));
    (class, parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deliver::{Reply, Stage};
    use crate::mail::{Address, Notify};
    use std::time::Duration;

    const RETRY: Retry = Retry {
        first: Duration::from_secs(60),
        factor: 2.0,
        max: Duration::from_secs(3600),
        jitter: 0.0,
        expire: Duration::from_secs(86_400),
        warn: Duration::from_secs(4 * 3600),
    };

    fn said(stage: Stage, code: u16) -> Fact {
        Fact { stage, event: Event::Reply(Reply { code, enhanced: None, text: "x".into() }), peer: None }
    }

    fn outcome(fact: &Fact, now_s: i64, notify: Notify, untried: u8, dsn: bool) -> (Outcome, Notice, Option<Verdict>) {
        let recipient = Recipient { notify, ..Recipient::new(Address::parse("a@b.example").expect("an address")) };
        let lane = LaneName::from("x");
        let context = Context {
            id: QueueId(1),
            age_from: Timestamp(0),
            lane: &lane,
            retry: &RETRY,
            dsn,
            now: Timestamp(now_s * 1000),
        };
        let tried = Tried { index: 0, recipient: &recipient, attempts: 0, warned: false, untried, fact, judged: None };
        let planned = plan(&context, [tried].into_iter(), &mut || 0.5).remove(0);
        (planned.outcome, planned.notice, planned.settlement.map(|s| s.verdict))
    }

    #[test]
    fn each_outcome_has_its_verdict_and_its_notice() {
        let all = Notify { given: true, success: true, failure: true, delay: true };
        let ok = said(Stage::Final, 250);
        assert_eq!(outcome(&ok, 1, all, 0, false), (Outcome::Delivered, Notice::Relayed, Some(Verdict::Delivered)));
        assert_eq!(outcome(&ok, 1, all, 0, true).1, Notice::None);
        assert_eq!(outcome(&ok, 1, Notify::default(), 0, false).1, Notice::None);

        let no = said(Stage::Rcpt, 550);
        assert_eq!(outcome(&no, 1, all, 0, false).1, Notice::Failed);
        assert_eq!(outcome(&no, 1, Notify::NEVER, 0, false).1, Notice::None);

        let later = said(Stage::Rcpt, 450);
        assert_eq!(outcome(&later, 1, all, 0, false).0, Outcome::Deferred(Timestamp(61_000)));
        assert_eq!(outcome(&later, 1, all, 0, false).1, Notice::None);
        assert_eq!(outcome(&later, 4 * 3600, all, 0, false).1, Notice::Delayed);
        assert_eq!(outcome(&later, 4 * 3600, Notify::NEVER, 0, false).1, Notice::None);
        assert_eq!(outcome(&later, 4 * 3600, Notify::default(), 0, false).1, Notice::None, "not asked for");
        assert_eq!(outcome(&later, 86_400, all, 0, false).0, Outcome::Expired);
        assert_eq!(outcome(&later, 86_400, all, 0, false).1, Notice::Failed);
    }

    #[test]
    fn a_warn_of_zero_means_no_delay_dsn_ever() {
        let recipient = Recipient {
            notify: Notify { given: true, success: false, failure: false, delay: true },
            ..Recipient::new(Address::parse("a@b.example").expect("an address"))
        };
        let (lane, fact) = (LaneName::from("x"), said(Stage::Rcpt, 450));
        let notice = |warn: Duration| {
            let retry = Retry { warn, ..RETRY };
            let now = Timestamp(5 * 3600 * 1000);
            let context =
                Context { id: QueueId(1), age_from: Timestamp(0), lane: &lane, retry: &retry, dsn: false, now };
            let tried = Tried {
                index: 0,
                recipient: &recipient,
                attempts: 0,
                warned: false,
                untried: 0,
                fact: &fact,
                judged: None,
            };
            plan(&context, [tried].into_iter(), &mut || 0.5).remove(0).notice
        };
        assert_eq!(notice(RETRY.warn), Notice::Delayed);
        assert_eq!(notice(Duration::ZERO), Notice::None);
    }

    #[test]
    fn what_was_not_tried_comes_back_twice_and_then_waits_ever_longer() {
        let closed = Fact { stage: Stage::Mail, event: Event::Closed, peer: None };
        assert_eq!(
            outcome(&closed, 1, Notify::default(), 0, false),
            (Outcome::Again { counts: false }, Notice::None, None)
        );
        assert_eq!(outcome(&closed, 1, Notify::default(), 1, false).0, Outcome::Again { counts: false });
        let lane = LaneName::from("x");
        let recipient = Recipient::new(Address::parse("a@b.example").expect("an address"));
        let later = |fact: &Fact, attempts| {
            let (id, age_from, now) = (QueueId(1), Timestamp(0), Timestamp(0));
            let context = Context { id, age_from, lane: &lane, retry: &RETRY, dsn: false, now };
            let (recipient, untried) = (&recipient, UNTRIED_MOST);
            let tried = Tried { index: 0, recipient, attempts, warned: false, untried, fact, judged: None };
            match plan(&context, [tried].into_iter(), &mut || 0.5).remove(0).settlement.map(|s| s.verdict) {
                Some(Verdict::Deferred { due, counts, uncertain: false, .. }) => (due.0 / 60_000, counts),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!([0, 1, 2].map(|attempts| later(&closed, attempts)), [(1, true), (2, true), (4, true)]);
        // Our own waits never count.
        let held = Fact { stage: Stage::Route, event: Event::Held("a pause".into()), peer: None };
        let left = std::time::Duration::from_secs(600);
        let back_off = Fact { stage: Stage::Connect, event: Event::BackOff { left, why: "x".into() }, peer: None };
        assert!(!later(&held, 1).1 && !later(&back_off, 1).1);
    }

    /// As long as it is not too old.
    #[test]
    fn what_met_a_connection_too_many_goes_back_however_often() {
        let lane = LaneName::from("x");
        let recipient = Recipient::new(Address::parse("a@b.example").expect("an address"));
        let fact = said(Stage::Greeting, 421);
        let judged = Some(Judgement { fate: Fate::Front, ..judge(&fact) });
        let outcome = |untried, now| {
            let (id, age_from) = (QueueId(1), Timestamp(0));
            let context = Context { id, age_from, lane: &lane, retry: &RETRY, dsn: false, now };
            let tried =
                Tried { index: 0, recipient: &recipient, attempts: 0, warned: false, untried, fact: &fact, judged };
            plan(&context, [tried].into_iter(), &mut || 0.5).remove(0).outcome
        };
        for untried in [0, UNTRIED_MOST, BACK_MOST, u8::MAX] {
            assert_eq!(outcome(untried, Timestamp(1000)), Outcome::Again { counts: false });
        }
        assert_eq!(outcome(0, Timestamp(86_400_000)), Outcome::Expired);
    }

    #[test]
    fn too_many_recipients_is_believed_only_when_some_were_taken() {
        let lane = LaneName::from("x");
        let context = Context {
            id: QueueId(1),
            age_from: Timestamp(0),
            lane: &lane,
            retry: &RETRY,
            dsn: false,
            now: Timestamp(1000),
        };
        let recipient = Recipient::new(Address::parse("a@b.example").expect("an address"));
        let (ok, many) = (said(Stage::Final, 250), said(Stage::Rcpt, 452));
        let tried = |index, fact| Tried {
            index,
            recipient: &recipient,
            attempts: 0,
            warned: false,
            untried: 0,
            fact,
            judged: None,
        };
        let outcomes = |list: &[Tried<'_>]| -> Vec<Outcome> {
            plan(&context, list.iter().copied(), &mut || 0.5).iter().map(|p| p.outcome).collect()
        };
        assert_eq!(outcomes(&[tried(0, &ok), tried(1, &many)]), [Outcome::Delivered, Outcome::Again { counts: false }]);
        assert_eq!(outcomes(&[tried(0, &many)]), [Outcome::Deferred(Timestamp(61_000))]);
        // Also the third time and the hundredth: a host that takes seven at once gets a hundred in fifteen transactions.
        for untried in [UNTRIED_MOST, u8::MAX] {
            let again = Tried { untried, ..tried(1, &many) };
            assert_eq!(outcomes(&[tried(0, &ok), again]), [Outcome::Delivered, Outcome::Again { counts: false }]);
        }
        let full = said(Stage::Rcpt, 552);
        assert_eq!(outcomes(&[tried(0, &ok), tried(1, &full)]), [Outcome::Delivered, Outcome::Again { counts: false }]);
        assert_eq!(outcomes(&[tried(0, &full)]), [Outcome::Bounced]);
    }

    #[test]
    fn status_takes_its_class_from_the_outcome() {
        let fact = Fact {
            stage: Stage::Final,
            event: Event::Reply(Reply { code: 550, enhanced: Some((5, 7, 1)), text: String::new() }),
            peer: None,
        };
        assert_eq!(status(Outcome::Bounced, &fact), (5, 7, 1));
        assert_eq!(status(Outcome::Deferred(Timestamp(0)), &fact), (4, 7, 1));
        assert_eq!(status(Outcome::Expired, &fact), (4, 4, 7));
        let route = Event::NoRoute { permanent: true, code: 556, enhanced: "5.1.10", text: String::new() };
        let fact = Fact { stage: Stage::Route, event: route, peer: None };
        assert_eq!(status(Outcome::Bounced, &fact), (5, 1, 10));
    }
}
