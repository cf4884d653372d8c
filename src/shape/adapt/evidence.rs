//! What refusals of one kind tell: who was refused, who passed meanwhile, and what that rules out. Pure.
//!
//! For each [`Signature`] a *run* counts attempts (never seconds) and keeps a few distinct witnesses. A run
//! is suspected to be about the pace only if nothing simpler explains it: one recipient, one sender, one
//! message, greylisting, or a server that took nothing from the first contact on. The suspicion is then
//! put to the test, see `trial`; its verdict is remembered here. Invariants: no single refusal is ever a
//! suspicion; memory is bounded ([`SIGNATURES`], [`Few`]).

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::signature::{Prior, Signature};
use super::trial::Doubt;
use crate::clock::Timestamp;

/// Kinds of refusals that are told apart in one lane; the one that was seen longest ago makes room.
const SIGNATURES: usize = 32;
/// Of so many kinds with the same codes the words never repeat: then the codes alone are the kind.
const FAMILY: usize = 8;
/// Distinct witnesses that are kept.
const WITNESSES: usize = 8;
/// Recipients that must have been refused, by what the reply suggests.
const NEEDED: [(Prior, usize); 3] = [(Prior::Pace, 3), (Prior::Open, 4), (Prior::Else, 8)];
/// Distinct messages among them.
const MESSAGES: usize = 3;
/// Below this share of refusals nothing need be done.
const SHARE: f64 = 0.03;
/// Refusals in a row, at least, and how unlikely by chance, that are a wall: everything is refused now.
const ROW: u32 = 4;
const CHANCE: f64 = 1e-5;
/// How long a run is watched where no wall is, and for how many attempts.
const WATCHED: Duration = Duration::from_secs(1);
const ATTEMPTS: f64 = 12.0;
/// Attempts after which what is older counts half.
const MEMORY: f64 = 256.0;
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
/// So many standard errors a share may be below what was seen.
const ERRORS: f64 = 1.5;
/// A verdict is forgotten when its kind was not seen for so long.
const FORGOTTEN: Duration = Duration::from_secs(86_400);

/// Who and what an attempt was about; all but the last are hashes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Party {
    /// The forward-path.
    pub recipient: u64,
    /// The reverse-path.
    pub sender: u64,
    /// The message.
    pub message: u64,
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
}

/// A few distinct values.
#[derive(Clone, Debug, Default, PartialEq)]
struct Few(Vec<u64>);

impl Few {
    fn add(&mut self, value: u64) {
        if self.0.len() < WITNESSES && !self.0.contains(&value) {
            self.0.push(value);
        }
    }

    fn only(&self) -> Option<u64> {
        if let [one] = self.0[..] { Some(one) } else { None }
    }
}

/// What was seen since refusals of a kind began; first attempts and later ones apart.
#[derive(Clone, Debug, Default, PartialEq)]
struct Run {
    began: Timestamp,
    refused: [f64; 2],
    passed: [f64; 2],
    /// Passed, of other senders than the first that was refused.
    others: f64,
    recipients: Few,
    senders: Few,
    messages: Few,
}

impl Run {
    fn refused(&self) -> f64 {
        self.refused.iter().sum()
    }

    fn attempts(&self) -> f64 {
        self.refused() + self.passed.iter().sum::<f64>()
    }

    /// The share that is refused, and what it is at least: a run begins with a refusal, which says nothing of
    /// the share, and is looked at when there were many.
    fn share(&self) -> (f64, f64) {
        let later = (self.attempts() - 1.0).max(1.0);
        let share = ((self.refused() - 1.0) / later).clamp(0.0, 1.0);
        let error = (share * (1.0 - share) / later).sqrt();
        (self.refused() / self.attempts().max(1.0), share - ERRORS * error)
    }

    fn part(&self, again: usize) -> f64 {
        self.refused[again] / (self.refused[again] + self.passed[again]).max(1.0)
    }

    fn pass(&mut self, party: Party, first_sender: Option<u64>) {
        self.passed[usize::from(party.again)] += 1.0;
        if first_sender != Some(party.sender) {
            self.others += 1.0;
        }
        self.fade();
    }

    fn refuse(&mut self, party: Party, now: Timestamp) {
        if self.refused() == 0.0 {
            self.began = now;
        }
        self.refused[usize::from(party.again)] += 1.0;
        self.recipients.add(party.recipient);
        self.senders.add(party.sender);
        self.messages.add(party.message);
        self.fade();
    }

    fn fade(&mut self) {
        if self.attempts() > MEMORY {
            let numbers = self.refused.iter_mut().chain(&mut self.passed).chain([&mut self.others]);
            numbers.for_each(|n| *n /= 2.0);
            // Witnesses of long ago are none.
            (self.recipients, self.messages) = Default::default();
        }
    }

    /// Only mail of one sender is refused, and of others more passed than would by chance.
    fn is_of_one_sender(&self) -> bool {
        self.senders.only().is_some() && self.others >= (3.0 / self.share().0.max(SHARE)).max(8.0)
    }

    /// First attempts are refused while later ones pass (RFC 6647).
    fn is_greylisting(&self) -> bool {
        let later = self.refused[1] + self.passed[1];
        let [first, again] = [self.part(0), self.part(1)];
        later >= (3.0 / first.max(SHARE)).min(30.0) && again * 4.0 < first
    }
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
    #[serde(skip)]
    run: Run,
    #[serde(skip)]
    doubt: Doubt,
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
    /// When the first of them was.
    #[serde(skip)]
    row_began: Timestamp,
    #[serde(skip)]
    lately: (f64, f64),
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

    /// A transaction was accepted, for these.
    pub(super) fn passed(&mut self, parties: &[Party], now: Timestamp) {
        let Some(first) = parties.first() else { return };
        self.row = 0;
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
        for known in self.known.iter_mut().filter(|k| k.run.refused() > 0.0) {
            let of_one = known.run.senders.0.first().copied();
            let count = if known.of_recipient { parties.len() } else { 1 };
            for party in parties.iter().take(count) {
                known.run.pass(if known.of_recipient { *party } else { *first }, of_one);
            }
        }
    }

    /// A refusal; `quiet`: no suspicion is wanted now, a trial is under way. Returns the kind, too.
    pub(super) fn refused(&mut self, sign: &Signature, party: Party, quiet: bool, now: Timestamp) -> (u64, Meaning) {
        let at = self.find(sign, now);
        // Of attempts of which none has passed since we know, first or later ones, nothing is expected.
        let kind = usize::from(party.again);
        let expected = self.passed[kind].is_some_and(|at| now.since(at) < LATELY[kind]);
        let Some(known) = self.known.get_mut(at) else { return (sign.hash, Meaning::Nothing) };
        if now.since(known.last) >= RUN {
            known.run = Run::default();
        }
        known.last = known.last.max(now);
        known.run.refuse(party, now);
        let ((share, least), old) = (known.run.share(), known.share);
        if known.verdict == Verdict::NotPace && now < known.again && least <= (2.0 * old + 0.1).min(0.9) {
            return (known.hash, Meaning::Nothing);
        }
        let senders = &known.run.senders.0;
        let bad = senders.len() <= FEW_SENDERS && senders.iter().all(|sender| !self.senders.contains(sender));
        if known.verdict != Verdict::Pace && (!expected || bad && !self.senders.is_empty()) {
            return (known.hash, Meaning::Nothing);
        }
        if self.row == 0 {
            self.row_began = now;
        }
        self.row = self.row.saturating_add(1);
        let row = f64::from(self.row);
        let chance = (self.lately.0 + 2.0 - row).max(1.0) / (self.lately.0 + self.lately.1 + 3.0 - row).max(2.0);
        let wall = self.row >= ROW && chance.powf(row) < CHANCE;
        let watched = wall || now.since(known.run.began) >= WATCHED && known.run.attempts() >= ATTEMPTS;
        let needed = NEEDED.iter().find(|(prior, _)| *prior == sign.prior).map_or(WITNESSES, |(_, n)| *n);
        let witnesses = known.run.recipients.0.len() >= needed && known.run.messages.0.len() >= MESSAGES;
        let explained = known.run.is_of_one_sender() || known.run.is_greylisting();
        let meaning = match known.verdict {
            Verdict::Pace => Meaning::Pace,
            _ if quiet || !witnesses || !watched || explained || share < SHARE => Meaning::Nothing,
            _ => Meaning::Suspect { share, least, wall },
        };
        let hash = known.hash;
        self.note_lately(1.0, 0.0);
        (hash, meaning)
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
            run.recipients.0.len() >= MESSAGES && run.messages.0.len() >= MESSAGES && !run.is_greylisting()
        })
    }

    /// What a kind was judged to be.
    pub(super) fn verdict(&self, hash: u64) -> Verdict {
        self.known.iter().find(|k| k.hash == hash).map_or(Verdict::Unknown, |k| k.verdict)
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
        known.run = Run::default();
        known.doubt = Doubt::default();
        if verdict == Verdict::NotPace {
            let wait = AGAIN.saturating_mul(1 << known.tries.min(8)).min(AGAIN_MOST);
            known.again = now.after(wait);
            known.tries = known.tries.saturating_add(1);
        } else if verdict == Verdict::Pace {
            known.tries = 0;
        }
        Some(known.sample.clone())
    }

    /// Since when nothing has passed, of what may be about the pace.
    pub(super) fn refuses_since(&self) -> Timestamp {
        self.row_began
    }

    /// Another run begins, without a verdict.
    pub(super) fn anew(&mut self, hash: u64) {
        if let Some(known) = self.known.iter_mut().find(|k| k.hash == hash) {
            known.run = Run::default();
        }
        self.row = 0;
    }

    /// The clock was set back by that much.
    pub(super) fn go_back(&mut self, back: Duration) {
        self.passed = self.passed.map(|passed| passed.map(|at| at.before(back)));
        self.row_began = self.row_began.before(back);
        for known in &mut self.known {
            for time in [&mut known.judged, &mut known.last, &mut known.again, &mut known.run.began] {
                *time = time.before(back);
            }
        }
    }

    /// Drops what is over. True if a verdict went.
    pub(super) fn advance(&mut self, now: Timestamp) -> bool {
        let judged = |list: &[Known]| list.iter().filter(|k| k.verdict != Verdict::Unknown).count();
        let before = judged(&self.known);
        self.known.retain(|k| now.since(k.last) < if k.verdict == Verdict::Unknown { RUN } else { FORGOTTEN });
        before != judged(&self.known)
    }
}
