//! What refusals of one kind tell: who was refused, who passed meanwhile, and what that rules out. Pure.
//!
//! For each [`Signature`] a *run* counts attempts (never seconds) and keeps a few distinct witnesses. A run
//! is suspected to be about the pace only if nothing simpler explains it: one recipient, one sender, one
//! message, greylisting, or a server that took nothing from the first contact on. The suspicion is then
//! put to the test, see `trial`; its verdict is remembered here. Who comes again after such a refusal is counted
//! apart: what is refused of those rises and falls with the retries, see `before`. Invariants: no single refusal is ever a
//! suspicion; memory is bounded ([`SIGNATURES`], `run`, `by_sender`). Where several senders have mail it is first
//! put to the test with one of them: a cap may be on each, and then only that one is to wait.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::before::Before;
use super::by_sender::{BySender, OfSender};
use super::run::Run;
use super::signature::{Prior, Signature};
use super::trial::Doubt;
use crate::clock::{Timestamp, doubled};

/// Kinds of refusals that are told apart in one lane; the one that was seen longest ago makes room.
const SIGNATURES: usize = 32;
/// Of so many kinds with the same codes the words never repeat: then the codes alone are the kind.
const FAMILY: usize = 8;
/// Recipients that must have been refused, by what the reply suggests.
const NEEDED: [(Prior, usize); 3] = [(Prior::Pace, 3), (Prior::Open, 4), (Prior::Else, MOST_NEEDED)];
const MOST_NEEDED: usize = 8;
/// Distinct messages among them.
const MESSAGES: usize = 3;
/// Below this share of refusals nothing need be done.
pub(super) const SHARE: f64 = 0.03;
/// Refusals in a row, at least, and how unlikely by chance, that are a wall: everything is refused now.
const ROW: u32 = 4;
const CHANCE: f64 = 1e-5;
/// How long a run is watched where no wall is, and for how many attempts.
const WATCHED: Duration = Duration::from_secs(1);
const ATTEMPTS: f64 = 12.0;
/// Attempts after which what is older counts half.
pub(super) const MEMORY: f64 = 256.0;
/// A run ends when nothing of its kind was refused for so long.
const RUN: Duration = Duration::from_secs(600);
/// A first or a later attempt that passed longer ago than this no longer shows that the server takes such.
const LATELY: [Duration; 2] = [Duration::from_secs(3600), Duration::from_secs(600)];
/// Senders that passed lately, and how many refused ones may be wrong by themselves.
const SENDERS: usize = 32;
const FEW_SENDERS: usize = 4;
/// How long a verdict of "not pace" keeps from trying again: the first time, and at most.
const AGAIN: Duration = Duration::from_secs(60);
const AGAIN_MOST: Duration = Duration::from_secs(4 * 3600);
/// A verdict of "pace" that was undone counts like so many trials that found nothing: an hour.
const DOUBTED: u32 = 6;
/// Where all senders are refused one of them is tried before all if its share is not too small to be told soon,
/// and the others wait for that for so many attempts.
pub(super) const SENDER_SHARE: f64 = 0.5;
const SENDER_FIRST: f64 = 100.0;
/// Less refused of the others is no control: a sender may have nothing left but retries.
const CONTROL: f64 = 0.25;
/// A verdict is forgotten when its kind was not seen for so long.
const FORGOTTEN: Duration = Duration::from_secs(86_400);

/// Who and what an attempt was about; recipient, sender and message are hashes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Party {
    /// The forward-path.
    pub recipient: u64,
    /// The reverse-path.
    pub sender: u64,
    /// The message.
    pub message: u64,
    /// Its bytes.
    pub size: u64,
    /// It was tried before.
    pub again: bool,
}

/// What a kind of refusal is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Not known.
    #[default]
    Unknown,
    /// Our pace: refusals became fewer when we slowed down.
    Pace,
    /// Not our pace: they did not.
    NotPace,
    /// The pace of each sender: they became fewer when one sender slowed down, and only for that one.
    SenderPace,
}

/// A kind of refusal and what is known of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) hash: u64,
    #[serde(skip)]
    family: u64,
    #[serde(default)]
    of_recipient: bool,
    pub(super) sample: String,
    #[serde(default)]
    pub(super) verdict: Verdict,
    /// When it was judged, and by what evidence, in words.
    #[serde(default)]
    pub(super) judged: Timestamp,
    #[serde(default)]
    pub(super) evidence: String,
    /// The last refusal.
    pub(super) last: Timestamp,
    /// Not tried again before, and how often a trial found nothing.
    #[serde(default)]
    again: Timestamp,
    #[serde(default)]
    tries: u32,
    /// The share of refusals when it was judged.
    #[serde(default)]
    pub(super) share: f64,
    /// Not tried with one sender before, and how often that found nothing.
    #[serde(default)]
    sender_again: Timestamp,
    #[serde(default)]
    sender_tries: u32,
    #[serde(skip)]
    run: Run,
    #[serde(skip)]
    doubt: Doubt,
}

impl Known {
    /// How much is refused now, in words: of the last attempts, since the verdict; nothing if none was refused.
    pub(super) fn refused_now(&self) -> Option<String> {
        let (refused, attempts) = (self.run.counts.refused(), self.run.counts.attempts());
        (refused > 0.0 && attempts >= 1.0)
            .then(|| format!("{:.0} % of the last {attempts:.0} attempts refused", 100.0 * refused / attempts))
    }

    /// A share beyond which far more is refused than when it was judged.
    fn many(&self) -> f64 {
        (2.0 * self.share + 0.1).min(0.9)
    }

    /// Whether to try one sender: of few that are refused, or of all.
    fn suspect_sender(&self, of: &OfSender, few: bool, wall: bool, tried: Tried, now: Timestamp) -> Option<Suspicion> {
        let (share, least) = of.counts.share();
        let (refused, attempts) = (of.counts.refused(), of.counts.attempts());
        let others = (self.run.counts.attempts() - attempts).max(1.0);
        let control = (self.run.counts.refused() - refused).max(0.0) / others;
        let all = self.run.has_several_senders() && share >= SENDER_SHARE && control >= CONTROL;
        if now < self.sender_again || tried.sender.is_some() || !(few || all) || !of.is_suspicious(now) {
            return None;
        }
        let control = (!few).then_some(control);
        Some(Suspicion { share, least, closed: few && of.is_closed(), control, wall })
    }

    /// Whether all are not tried before it is known whether it helps to slow one of them down.
    fn waits_for_a_sender(&self, share: f64, now: Timestamp) -> bool {
        let soon = share >= SENDER_SHARE && self.run.counts.attempts() < SENDER_FIRST;
        now >= self.sender_again && soon && self.run.has_several_senders()
    }
}

/// What to do about a refusal.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Meaning {
    /// Nothing: it is about something else, or too little is known.
    Nothing,
    /// To be tried: this share was refused, at least `least`; `wall`: nothing passes any more.
    Suspect { share: f64, least: f64, wall: bool },
    /// It is about the pace.
    Pace,
    /// It was found to be, and that was wrong; the share of refusals then.
    Refuted(f64),
    /// To be tried with this sender alone.
    SuspectSender(Suspicion),
    /// It is about the pace of each sender.
    SenderPace,
}

/// Why a sender is to be tried.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Suspicion {
    /// The share of its mail that was refused, and what it was at least.
    pub(super) share: f64,
    pub(super) least: f64,
    /// Nothing of it passes any more.
    pub(super) closed: bool,
    /// The share that was refused of others; `None`: hardly any was.
    pub(super) control: Option<f64>,
    /// Nothing of anybody passes any more.
    pub(super) wall: bool,
}

/// What is tried just now, and so not suspected anew.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Tried {
    /// Something, with the whole lane.
    pub(super) lane: bool,
    /// This kind, with a sender.
    pub(super) sender: Option<u64>,
    /// Nothing is: but the lane waits until a server that refuses everything takes something again.
    pub(super) closed: bool,
}

/// The table of a lane.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Evidence {
    #[serde(default)]
    known: Vec<Known>,
    /// When a first and a later attempt passed last.
    #[serde(skip)]
    passed: [Option<Timestamp>; 2],
    /// Whose mail passed last.
    #[serde(skip)]
    senders: VecDeque<u64>,
    /// Refusals in a row that may be about the pace; and lately in all, and what passed.
    #[serde(skip)]
    row: u32,
    /// All refusals in a row.
    #[serde(skip)]
    row_of_all: u32,
    /// When the first of them was.
    #[serde(skip)]
    row_began: Timestamp,
    #[serde(skip)]
    lately: (f64, f64),
    /// Who is refused.
    #[serde(skip)]
    by_sender: BySender,
    /// And who was.
    #[serde(skip)]
    before: Before,
}

impl Evidence {
    /// Judged kinds, the latest first.
    pub(super) fn judged(&self) -> Vec<&Known> {
        let mut judged: Vec<&Known> = self.known.iter().filter(|k| k.verdict != Verdict::Unknown).collect();
        judged.sort_by_key(|k| std::cmp::Reverse(k.judged));
        judged
    }

    /// Nothing was judged.
    pub(super) fn is_free(&self) -> bool {
        self.known.iter().all(|k| k.verdict == Verdict::Unknown)
    }

    /// What is worth storing.
    pub(super) fn lasting(&self) -> Evidence {
        let judged = self.known.iter().filter(|k| k.verdict != Verdict::Unknown);
        Evidence { known: judged.cloned().collect(), ..Evidence::default() }
    }

    /// A transaction was accepted, for these; it counts `cells` for a rate.
    pub(super) fn passed(&mut self, parties: &[Party], cells: u32, now: Timestamp) {
        let Some(first) = parties.first() else { return };
        (self.row, self.row_of_all) = (0, 0);
        self.known.iter_mut().for_each(|k| k.run.end_row());
        self.note_lately(0.0, 1.0);
        for party in parties {
            self.passed[usize::from(party.again)] = Some(now);
        }
        if self.senders.back() != Some(&first.sender) {
            self.senders.retain(|sender| *sender != first.sender);
            if self.senders.len() >= SENDERS {
                self.senders.pop_front();
            }
            self.senders.push_back(first.sender);
        }
        self.by_sender.passed(*first, &self.before, cells, now);
        for known in self.known.iter_mut().filter(|k| k.run.counts.refused() > 0.0) {
            let count = if known.of_recipient { parties.len() } else { 1 };
            for party in parties.iter().take(count) {
                if known.run.pass(*party, self.before.has(known.hash, party)) {
                    self.by_sender.halve(known.hash);
                }
            }
        }
    }

    /// A refusal, which counts `cells` for a rate. Returns the kind, too.
    pub(super) fn refused(
        &mut self,
        sign: &Signature,
        party: Party,
        cells: u32,
        tried: Tried,
        now: Timestamp,
    ) -> (u64, Meaning) {
        let at = self.find(sign, now);
        // Of attempts of which none has passed since we know, first or later ones, nothing is expected.
        let kind = usize::from(party.again);
        let expected = self.passed[kind].is_some_and(|at| now.since(at) < LATELY[kind]);
        self.refused_for_something_else(sign, &party);
        let Some(known) = self.known.get_mut(at) else { return (sign.hash, Meaning::Nothing) };
        if now.since(known.last) >= RUN {
            known.run.restart();
            self.by_sender.end(known.hash);
        }
        known.last = known.last.max(now);
        let before = self.before.has(known.hash, &party);
        self.before.note(known.hash, &party, known.of_recipient);
        self.by_sender.refused(known.hash, party, before, cells, now);
        if known.run.refuse(party, before, now) {
            self.by_sender.halve(known.hash);
        }
        let (share, least) = known.run.counts.share();
        if known.verdict == Verdict::NotPace && now < known.again && least <= known.many() {
            return (known.hash, Meaning::Nothing);
        }
        let (senders, hash) = (&known.run.senders, known.hash);
        let has_passed = |sender: u64| {
            self.senders.contains(&sender) || self.by_sender.of(hash, sender).is_some_and(|of| of.counts.has_passed())
        };
        let bad = senders.count() <= FEW_SENDERS && !senders.iter().any(has_passed);
        if known.verdict != Verdict::Pace && (!expected || bad && !self.senders.is_empty()) {
            return (known.hash, Meaning::Nothing);
        }
        if self.row == 0 {
            self.row_began = now;
        }
        self.row = self.row.saturating_add(1);
        let row = f64::from(self.row);
        let chance = (self.lately.0 + 2.0 - row).max(1.0) / (self.lately.0 + self.lately.1 + 3.0 - row).max(2.0);
        // A few among many of another kind say nothing of why nothing passes.
        let (closed, most) = (self.row >= ROW && chance.powf(row) < CHANCE, known.run.is_most_of(self.row_of_all));
        let wall = closed && most;
        let few = known.run.is_of_one_sender() || self.by_sender.are_few(known.hash, &known.run);
        let of_sender = self.by_sender.of(hash, party.sender).filter(|_| has_passed(party.sender));
        let sender = of_sender.and_then(|of| known.suspect_sender(of, few, wall, tried, now));
        let sender = sender.filter(|suspicion| suspicion.control.is_none() || !sign.closes);
        let first = !sign.closes && known.waits_for_a_sender(share, now);
        let watched = wall || now.since(known.run.began) >= WATCHED && known.run.counts.attempts() >= ATTEMPTS;
        let needed = NEEDED.iter().find(|(prior, _)| *prior == sign.prior).map_or(MOST_NEEDED, |(_, n)| *n);
        let witnesses = known.run.recipients.count() >= needed && known.run.messages.count() >= MESSAGES;
        let explained = few || closed && !most || known.run.counts.is_greylisting() || known.run.is_about_them(false);
        // One experiment at a time: the end of one undoes what it did to the lane.
        let quiet = tried.lane || tried.sender.is_some();
        let meaning = match (known.verdict, sender) {
            (Verdict::SenderPace, _) if of_sender.is_some_and(OfSender::has_witnesses) => Meaning::SenderPace,
            (Verdict::SenderPace, _) => Meaning::Nothing,
            (Verdict::Pace, Some(suspicion)) if few && !quiet && !tried.closed => Meaning::SuspectSender(suspicion),
            (Verdict::Pace, _) if !quiet && known.run.is_about_them(true) => {
                known.tries = known.tries.max(DOUBTED);
                Meaning::Refuted(known.share)
            }
            (Verdict::Pace, _) => Meaning::Pace,
            (_, Some(suspicion)) if !quiet => Meaning::SuspectSender(suspicion),
            _ if quiet || !witnesses || !watched || explained || first || share < SHARE => Meaning::Nothing,
            _ => Meaning::Suspect { share, least, wall },
        };
        self.note_lately(1.0, 0.0);
        (hash, meaning)
    }

    /// A refusal of one kind is none of the others.
    fn refused_for_something_else(&mut self, sign: &Signature, party: &Party) {
        self.row_of_all = self.row_of_all.saturating_add(1);
        let is_other = |k: &&mut Known| k.hash != sign.hash && k.hash != sign.family && k.run.counts.refused() > 0.0;
        for known in self.known.iter_mut().filter(is_other) {
            if known.run.refuse_other(self.before.has(known.hash, party)) {
                self.by_sender.halve(known.hash);
            }
        }
    }

    /// A refusal that is not to be evidence of its own kind as yet is none of the others all the same.
    pub(super) fn withheld(&mut self, sign: &Signature, party: &Party) {
        self.refused_for_something_else(sign, party);
    }

    /// So many of these will be evidence now: none has passed since, and they do not count twice.
    pub(super) fn gives_back(&mut self, many: usize) {
        self.row_of_all = self.row_of_all.saturating_sub(u32::try_from(many).unwrap_or(u32::MAX));
    }

    fn note_lately(&mut self, refused: f64, passed: f64) {
        let (r, p) = &mut self.lately;
        (*r, *p) = (*r + refused, *p + passed);
        if *r + *p > MEMORY {
            (*r, *p) = (*r / 2.0, *p / 2.0);
        }
    }

    /// Whether what is known to be about the pace was refused to several: a lane at full speed slows
    /// down for no single refusal.
    pub(super) fn has_witnesses(&self, hash: u64) -> bool {
        let found = self.known.iter().find(|k| k.hash == hash);
        found.is_some_and(|k| {
            let run = &k.run;
            run.recipients.count() >= MESSAGES && run.messages.count() >= MESSAGES && !run.counts.is_greylisting()
        })
    }

    /// What a kind was judged to be.
    pub(super) fn verdict(&self, hash: u64) -> Verdict {
        self.known.iter().find(|k| k.hash == hash).map_or(Verdict::Unknown, |k| k.verdict)
    }

    /// Whether a kind is known to be about something else than the pace, and is refused no more than then: the pace lets
    /// such mail through, as far as anybody knows.
    pub(super) fn is_let_through(&self, hash: u64) -> bool {
        let found = self.known.iter().find(|k| k.hash == hash && k.verdict == Verdict::NotPace);
        found.is_some_and(|k| k.run.counts.share().1 <= k.many())
    }

    /// The same for a refusal, by its words or, where these never repeat, its codes.
    pub(super) fn verdict_of(&self, sign: &Signature) -> Verdict {
        let by_words = self.known.iter().find(|k| k.hash == sign.hash);
        by_words.map_or_else(|| self.verdict(sign.family), |k| k.verdict)
    }

    pub(super) fn sample(&self, hash: u64) -> Option<&str> {
        self.known.iter().find(|k| k.hash == hash).map(|k| k.sample.as_str())
    }

    /// What is about the pace and was refused last.
    pub(super) fn latest_pace(&self) -> Option<u64> {
        let pace = self.known.iter().filter(|k| k.verdict == Verdict::Pace);
        pace.max_by_key(|k| k.last).map(|k| k.hash)
    }

    /// The share that was refused before a kind was judged to be about the pace; without a kind, the latest.
    pub(super) fn share(&self, hash: Option<u64>) -> Option<f64> {
        let hash = hash.or_else(|| self.latest_pace())?;
        self.known.iter().find(|k| k.hash == hash && k.verdict == Verdict::Pace).map(|k| k.share)
    }

    /// An attempt at the learned pace, accepted or of the kind `refused`: the kind of which it is doubted by
    /// now that it is about the pace, and the share that was refused before.
    pub(super) fn doubted(&mut self, refused: Option<u64>) -> Option<(u64, f64)> {
        let pace = self.known.iter_mut().filter(|k| k.verdict == Verdict::Pace);
        let mut concerned = pace.filter(|k| refused.is_none_or(|hash| hash == k.hash));
        let known = concerned.find_map(|k| k.doubt.note(refused.is_some(), k.share).then_some(k))?;
        known.tries = known.tries.max(DOUBTED);
        Some((known.hash, known.share))
    }

    /// The place of a kind in the table.
    fn find(&mut self, sign: &Signature, now: Timestamp) -> usize {
        if let Some(at) = self.known.iter().position(|k| k.hash == sign.hash) {
            return at;
        }
        let alike = self.known.iter().filter(|k| k.family == sign.family && k.hash != sign.family).count();
        let hash = if alike >= FAMILY { sign.family } else { sign.hash };
        if let Some(at) = self.known.iter().position(|k| k.hash == hash) {
            return at;
        }
        if self.known.len() >= SIGNATURES {
            // What was judged stays longer than what was not.
            let old = self.known.iter().enumerate().min_by_key(|(_, k)| (k.verdict != Verdict::Unknown, k.last));
            if let Some((at, _)) = old {
                self.known.swap_remove(at);
            }
        }
        self.known.push(Known {
            hash,
            family: sign.family,
            of_recipient: sign.of_recipient,
            sample: sign.sample.clone(),
            verdict: Verdict::Unknown,
            judged: Timestamp::default(),
            evidence: String::new(),
            last: now,
            again: Timestamp::default(),
            tries: 0,
            share: 0.0,
            sender_again: Timestamp::default(),
            sender_tries: 0,
            run: Run::default(),
            doubt: Doubt::default(),
        });
        self.known.len() - 1
    }

    /// A trial or a watch has ended; returns what is to be told.
    pub(super) fn judge(
        &mut self,
        hash: u64,
        verdict: Verdict,
        share: f64,
        evidence: String,
        now: Timestamp,
    ) -> Option<String> {
        let known = self.known.iter_mut().find(|k| k.hash == hash)?;
        known.verdict = verdict;
        known.judged = now;
        known.share = share;
        known.evidence = evidence;
        known.run.restart();
        known.doubt = Doubt::default();
        self.by_sender.end(hash);
        if verdict == Verdict::NotPace {
            let wait = doubled(AGAIN, known.tries, AGAIN_MOST);
            known.again = now.after(wait);
            known.tries = known.tries.saturating_add(1);
        } else if verdict == Verdict::Pace {
            known.tries = 0;
        }
        Some(known.sample.clone())
    }

    /// A trial with one sender has found nothing, or what it found was undone: it is not tried again before a
    /// while, `doubted`: a long one.
    pub(super) fn not_of_senders(&mut self, hash: u64, doubted: bool, now: Timestamp) {
        if let Some(known) = self.known.iter_mut().find(|k| k.hash == hash) {
            known.sender_tries = if doubted { known.sender_tries.max(DOUBTED) } else { known.sender_tries };
            let wait = doubled(AGAIN, known.sender_tries, AGAIN_MOST);
            known.sender_again = now.after(wait);
            known.sender_tries = known.sender_tries.saturating_add(1);
            if known.verdict == Verdict::SenderPace {
                known.verdict = Verdict::Unknown;
            }
        }
    }

    /// Senders whose mail passed lately, at least 1.
    pub(super) fn senders_lately(&self) -> u32 {
        u32::try_from(self.senders.len()).unwrap_or(u32::MAX).max(1)
    }

    /// What was measured of a sender since its first refusal of a kind.
    pub(super) fn of_sender(&self, hash: u64, sender: u64) -> Option<&OfSender> {
        self.by_sender.of(hash, sender)
    }

    /// Since when nothing has passed, of what may be about the pace.
    pub(super) fn refuses_since(&self) -> Timestamp {
        self.row_began
    }

    /// Another run begins, without a verdict.
    pub(super) fn anew(&mut self, hash: u64) {
        if let Some(known) = self.known.iter_mut().find(|k| k.hash == hash) {
            known.run.restart();
            self.by_sender.end(hash);
        }
        self.row = 0;
    }

    /// The clock was set back by that much.
    pub(super) fn go_back(&mut self, back: Duration) {
        self.passed = self.passed.map(|passed| passed.map(|at| at.before(back)));
        self.row_began = self.row_began.before(back);
        for known in &mut self.known {
            let Known { judged, last, again, sender_again, run, .. } = known;
            for time in [judged, last, again, sender_again, &mut run.began] {
                *time = time.before(back);
            }
        }
        self.by_sender.go_back(back);
    }

    /// Drops what is over. True if a verdict went.
    pub(super) fn advance(&mut self, now: Timestamp) -> bool {
        let judged = |list: &[Known]| list.iter().filter(|k| k.verdict != Verdict::Unknown).count();
        let before = judged(&self.known);
        self.known.retain(|k| now.since(k.last) < if k.verdict == Verdict::Unknown { RUN } else { FORGOTTEN });
        self.by_sender.drop_older(now.before(RUN));
        if self.known.is_empty() {
            self.before = Before::default();
        }
        before != judged(&self.known)
    }
}
