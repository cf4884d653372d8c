//! From attempts to verdicts: suspicion, trial, verdict, doubt. Pure.
//!
//! ```text
//!            several witnesses, nothing simpler           fewer refused
//!   unknown ------------------------------------> trial ---------------> pace
//!      ^                                            |                      |
//!      |   time, or far more refused than then      | as many as before    | as many at a
//!      +------------------------------- not pace <--+----------------------+ fraction of it
//! ```
//!
//! A trial slows the lane down for as many attempts as it takes to tell, and is undone if it finds nothing.
//! A server that refuses everything for long is neither: see `openings`.

use std::time::Duration;

use super::evidence::{Meaning, Party, Tried, Verdict};
use super::pace::{Pace, Told};
use super::signature::Signature;
use super::trial::{Found, Trial, Watch};
use super::{Adapt, cut};
use crate::clock::Timestamp;

/// A trial without an attempt for so long has nothing to try; nor is there one where less than this is
/// tried in a second: with first attempts, with later ones only. A trial that is not decided after a while
/// found nothing.
pub(super) const IDLE: Duration = Duration::from_secs(1200);
const LEAST: [f64; 2] = [0.1, 2.0];
pub(super) const UNDECIDED: Duration = Duration::from_secs(300);
/// The share that is taken for the former one when everything was refused.
pub(super) const WALL: f64 = 0.9;
/// What is answered within so long of the beginning of a trial may meet a window that the pace before has filled.
const SETTLE: Duration = Duration::from_millis(1250);
/// Verdicts that wait to be told.
const FINDINGS: usize = 8;

/// A refusal in a transaction.
#[derive(Clone, Debug)]
pub struct Refused<'a> {
    /// Its kind.
    pub sign: Signature,
    /// Whose it was.
    pub party: Party,
    /// The reverse-path, for people.
    pub sender: &'a str,
    /// What it counts for the rate.
    pub cells: u32,
    /// The reply, for people.
    pub reply: &'a str,
}

/// A verdict that was made or undone, to be told.
#[derive(Clone, PartialEq, Debug)]
pub struct Finding {
    /// The kind of refusal, without anything of a message.
    pub sample: String,
    /// What it is about.
    pub verdict: Verdict,
    /// Numbers.
    pub evidence: String,
}

/// A trial, and the pace before it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Experiment {
    trial: Trial,
    pub(super) former: Pace,
    /// Everything was refused when it began.
    wall: bool,
}

impl Experiment {
    /// Whether it tries this kind.
    pub(super) fn is_of(&self, hash: u64) -> bool {
        self.trial.hash == hash
    }

    /// The evidence in words. Behind a wall no share was measured before, and no one pace was tried.
    fn evidence(&self) -> String {
        let (seen, refused) = (self.trial.seen, self.trial.refused);
        match self.wall {
            true => {
                format!("nothing passed any more; {refused} of {seen} attempts refused while the pace was looked for")
            }
            false => self.trial.evidence(),
        }
    }

    /// Whether one pace is compared with the one before. Behind a wall the right one is still looked for.
    pub(super) fn holds_its_pace(&self) -> bool {
        !self.wall
    }

    pub(super) fn go_back(&mut self, back: Duration) {
        self.former.go_back(back);
        self.trial.began = self.trial.began.before(back);
        self.trial.last = self.trial.last.before(back);
    }
}

impl Adapt {
    /// A transaction that began at `began` was accepted for `parties`; it counts `cells` for the rate.
    pub fn accepted(&mut self, parties: &[Party], cells: u32, began: Timestamp, now: Timestamp) {
        self.crowd.delivered();
        if !self.configured.adaptive {
            return;
        }
        self.evidence.passed(parties, cells, now);
        if let Some(party) = parties.first().filter(|_| !self.senders.is_free()) {
            self.accepted_of(party.sender, cells, began, now);
        }
        let tested = self.pace.is_tested(began);
        self.pace.sized(parties.first().map_or(0, |party| party.size));
        match self.pace.delivered(cells, began, now) {
            Told::Nothing if tested => self.note(None, now),
            Told::Nothing => {}
            Told::Reopened => {
                if let Some(experiment) = self.trial.take() {
                    self.evidence.anew(experiment.trial.hash);
                }
            }
            Told::Window(cells, seconds) => {
                self.changed = true;
                if let Some(experiment) = self.trial.take() {
                    let evidence = format!("closed twice after about {cells:.0}, which fill {seconds:.0} s");
                    self.judge(experiment.trial.hash, Verdict::Pace, WALL, evidence, now);
                }
            }
        }
    }

    /// Whether such a refusal is known to be about the pace; where the number of messages on a connection is
    /// known it may be about that.
    pub fn is_paced(&self, sign: &Signature) -> bool {
        self.configured.adaptive && self.spent.is_free() && self.evidence.verdict_of(sign) == Verdict::Pace
    }

    /// A refusal in a transaction that began at `began`, and that no rule explains. True if it is known
    /// to be about the pace, or is tried just now.
    pub fn refused_for(&mut self, refused: &Refused<'_>, began: Timestamp, now: Timestamp) -> bool {
        if !self.configured.adaptive {
            return false;
        }
        let closed = self.pace.is_closed();
        let tried = Tried { lane: self.trial.is_some(), sender: self.senders.tried(), closed };
        let (hash, meaning) = self.evidence.refused(&refused.sign, refused.party, refused.cells, tried, now);
        let reply = cut(refused.reply);
        let tested = self.pace.is_tested(began);
        let is_tried = self.trial.as_ref().is_some_and(|experiment| experiment.is_of(hash));
        if !is_tried && self.evidence.is_let_through(hash) {
            self.pace.let_through(refused.cells, now);
        } else {
            self.pace.missed(refused.cells, refused.party.size, now);
        }
        if !self.senders.is_free() && self.refused_of(refused, hash, began, now) {
            return true;
        }
        if tried.sender == Some(hash) {
            // Others than the one that is tried: they are what it is compared with.
            return false;
        }
        if let Some(experiment) = &mut self.trial
            && experiment.trial.hash == hash
        {
            experiment.trial.last = now;
            // Behind a wall the right pace is still looked for.
            if experiment.wall || !tested {
                self.pace.throttled(began, now, reply);
            }
            if tested {
                self.note(Some(hash), now);
            }
            return true;
        }
        match meaning {
            Meaning::Nothing => return false,
            Meaning::SenderPace => self.slow_sender(refused, hash, None, now),
            Meaning::SuspectSender(suspicion) => self.slow_sender(refused, hash, Some(suspicion), now),
            Meaning::Suspect { wall, .. } if self.is_too_slow(refused.party, wall, now) => return false,
            Meaning::Suspect { share, least, wall } => {
                let former = self.pace.clone();
                self.slow_down((!wall).then_some(1.0 - share), began, now, reply);
                if !wall && tested {
                    self.pace.go_on(now);
                }
                if wall {
                    self.pace.walled(self.evidence.refuses_since());
                }
                let trial = Trial::of(hash, if wall { WALL } else { least }, now);
                self.trial = Some(Experiment { trial, former, wall });
            }
            Meaning::Refuted(share) => {
                self.release_from(hash, share, "who was refused was refused again while others passed", now);
                return false;
            }
            Meaning::Pace if self.pace.is_free() && !self.evidence.has_witnesses(hash) => return false,
            Meaning::Pace => {
                if tested {
                    self.note(Some(hash), now);
                }
                if self.evidence.verdict(hash) == Verdict::Pace {
                    self.slow_down(None, began, now, reply);
                }
            }
        }
        self.changed = true;
        true
    }

    /// Everything was refused, and that is not about one sender: the lane is tried at once.
    pub(super) fn try_lane(&mut self, hash: u64, reply: &str, now: Timestamp) {
        let former = self.pace.clone();
        self.pace.begin(None, now, self.configured.rate, reply);
        self.trial = Some(Experiment { trial: Trial::of(hash, WALL, now), former, wall: true });
    }

    /// Whether so little is tried that a trial would take long and a pace would be too slow for what comes.
    fn is_too_slow(&self, party: Party, wall: bool, now: Timestamp) -> bool {
        let [first, again] = LEAST;
        let least = if party.again { again } else { first };
        (!wall || party.again) && self.pace.tried(now) < least
    }

    /// Slower; `passes` as in [`Pace::begin`].
    fn slow_down(&mut self, passes: Option<f64>, began: Timestamp, now: Timestamp, reply: &str) {
        if self.pace.is_free() {
            self.pace.begin(passes, now, self.configured.rate, reply);
        } else {
            self.pace.throttled(began, now, reply);
        }
    }

    /// An attempt at the learned rate: `refused` is the kind, `None`: it was accepted.
    fn note(&mut self, refused: Option<u64>, now: Timestamp) {
        if let Some(experiment) = &mut self.trial {
            let trial = &mut experiment.trial;
            let hash = trial.hash;
            if !experiment.wall && now.since(trial.began) < SETTLE {
                trial.last = now;
                return;
            }
            match trial.note(refused == Some(hash), now) {
                Found::Open => {}
                // After an outage nothing is refused either, however fast: a limit is met again.
                Found::Fewer if experiment.wall && trial.refused == 0 => {}
                Found::Fewer => {
                    let (share, evidence) = (trial.share, experiment.evidence());
                    self.trial = None;
                    self.judge(hash, Verdict::Pace, share, evidence, now);
                }
                Found::Same => self.undo(Verdict::NotPace, now),
            }
        } else if let Some((hash, share)) = self.evidence.doubted(refused) {
            self.release_from(hash, share, "as many refused as before when slower", now);
        } else if let Some(share) = self.evidence.share(refused)
            && self.watch.note(refused.is_some(), share, self.pace.rate(now).unwrap_or(f64::MAX))
        {
            let hash = refused.or(self.evidence.latest_pace());
            self.pace.release();
            if let Some(hash) = hash {
                let evidence = "as many refused however slow it was".to_owned();
                self.judge(hash, Verdict::NotPace, share, evidence, now);
            }
        }
    }

    /// What was found to be about the pace is not.
    fn release_from(&mut self, hash: u64, share: f64, evidence: &str, now: Timestamp) {
        self.judge(hash, Verdict::NotPace, share, evidence.to_owned(), now);
        // What other kinds taught is kept: the search finds it again from below, without a burst.
        if self.evidence.latest_pace().is_none() {
            self.pace.release();
        }
    }

    /// The trial has found nothing.
    fn undo(&mut self, verdict: Verdict, now: Timestamp) {
        let Some(experiment) = self.trial.take() else { return };
        let evidence = experiment.evidence();
        let Experiment { trial, former, .. } = experiment;
        self.pace.go_back_to(former);
        match verdict {
            Verdict::Unknown => self.evidence.anew(trial.hash),
            verdict => self.judge(trial.hash, verdict, trial.share, evidence, now),
        }
        self.changed = true;
    }

    /// Ends a trial that nothing tries any more.
    pub(super) fn end_trial(&mut self, now: Timestamp) {
        let Some(Experiment { trial, wall, .. }) = &self.trial else { return };
        if now.since(trial.last) >= IDLE {
            self.undo(Verdict::Unknown, now);
        } else if !wall && now.since(trial.began) >= UNDECIDED {
            self.undo(Verdict::NotPace, now);
        } else if *wall && trial.refused == 0 && self.pace.is_back(now) {
            // As fast as before, and nothing was refused: the server was in trouble.
            self.undo(Verdict::Unknown, now);
        }
    }

    pub(super) fn judge(&mut self, hash: u64, verdict: Verdict, share: f64, evidence: String, now: Timestamp) {
        self.watch = Watch::default();
        self.changed = true;
        if let Some(sample) = self.evidence.judge(hash, verdict, share, evidence.clone(), now)
            && self.findings.len() < FINDINGS
        {
            self.findings.push(Finding { sample, verdict, evidence });
        }
    }

    /// Verdicts made since this was last asked.
    pub fn take_findings(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.findings)
    }

    /// The verdicts in words.
    pub(super) fn judged(&self) -> Vec<String> {
        let line = |known: &super::evidence::Known| {
            let what = match known.verdict {
                Verdict::Pace => "about the pace",
                Verdict::SenderPace => "about the pace of each sender",
                Verdict::NotPace | Verdict::Unknown => "not about the pace",
            };
            let now = known.refused_now().map(|told| format!("; now {told}")).unwrap_or_default();
            format!("{what}: `{}` ({}; since {}{now})", known.sample, known.evidence, known.judged)
        };
        let trial = self.trial.as_ref().and_then(|e| self.evidence.sample(e.trial.hash));
        let tried = trial.map(|sample| format!("tried now whether it is about the pace: `{sample}`"));
        // What is tried again is not known any more.
        let judged = self.evidence.judged().into_iter().filter(|known| trial != Some(known.sample.as_str()));
        tried.into_iter().chain(judged.map(line)).collect()
    }
}
