//! A provider that refuses us altogether (a wrong password, "log in first"): nothing of the lane leaves until
//! one message, tried now and then, shows that this is over.
//!
//! What was said at MAIL or later may be about that mail alone, whatever the words (its sender, his domain, the
//! recipient: see [`Refusals`]): mail unlike it is tried at once, one message at a time, and one that gets further
//! ends the refusal. When unlike mail hears the same, it is about all of the lane, and each probe is of another
//! sender, as long as there is one who was not refused.
//!
//! A password is given to the host by one connection until it is accepted, or a wrong one would be tried by
//! all of them at once, for which accounts are locked: at the start, after a reload, after an operator
//! has resumed the lane, and after a login that failed while nobody else was logged in. Of a lane that was
//! refused at MAIL or later, it is the answer to mail that is waited for, not that to the login. A host that lets the
//! first one wait gets a second one after ten seconds, a third after twenty, and so on.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Lane, State, Wake};
use crate::clock::doubled;
use crate::mail::{FeatureKeys, Features, Refusals};
use crate::schedule::Job;

/// How long one waits for the first that logs in before it tries, too, so that a host that hangs does not hold up its
/// neighbours; the next ones wait twice as long each.
const FIRST_LOGIN: Duration = Duration::from_secs(10);
/// What a refusal kept is brought forward no more often, for a provider that refuses and takes by turns.
const WAKE_AGAIN: Duration = Duration::from_secs(60);

/// How far into the dialog mail got: where the provider refused it, or answered it last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Reached {
    /// Before MAIL: whoever gets a session is through.
    Session,
    /// At MAIL.
    Mail,
    /// At RCPT.
    Recipient,
    /// At DATA or the end of data: nothing but a delivery is further.
    Data,
}

/// Why nothing leaves for a while although nobody paused the lane.
#[derive(Clone, Debug)]
pub struct Circuit {
    /// A single job is tried then.
    pub until: Instant,
    /// What the server said.
    pub reason: String,
    /// How often in a row; the time grows with it.
    pub times: u32,
    at: Reached,
    /// To what mail.
    refusals: Refusals,
}

impl Circuit {
    /// For how much longer nothing is tried.
    pub(super) fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// The mail alone that it was about so far, see [`Refusals::about`].
    pub(super) fn about(&self) -> Option<&Arc<str>> {
        self.refusals.about()
    }

    /// Whether a job is one of those that it keeps until the next probe.
    pub(super) fn keeps(&self, job: &Job) -> bool {
        self.keeps_mail(job.features().keys())
    }

    /// The same of mail that would come now.
    pub(super) fn keeps_mail(&self, keys: FeatureKeys) -> bool {
        !self.left().is_zero() && !self.refusals.spares(keys)
    }

    /// Whether the next probe should rather be of somebody else.
    pub(super) fn goes_last(&self, job: &Job) -> bool {
        self.refusals.goes_last(job.features().keys())
    }
}

/// Whether the provider has let us in since the lane began or was resumed.
#[derive(Debug, Default)]
pub(super) struct Login {
    through: bool,
    /// Since when the first one of those that try now does.
    began: Option<Instant>,
    /// How many do.
    trying: u32,
    /// An operator ended a refusal of mail: what counts is the answer to mail.
    by_mail: bool,
}

impl Login {
    /// How many may try at the same time.
    fn most(&self) -> u32 {
        let since = self.began.map_or(Duration::ZERO, |began| began.elapsed());
        (1..31).take_while(|n| since >= FIRST_LOGIN * (1 << (n - 1))).count() as u32 + 1
    }
}

/// Whether a refusal has ended.
#[derive(Debug, Default)]
pub(super) struct Ended {
    now: bool,
    /// When that was last told.
    told: Option<Instant>,
}

impl Lane {
    /// The provider refuses us altogether (e.g. 535), or it said so to such `mail`: nothing leaves, or nothing
    /// like that, until a probe succeeds. The first wait is `first`, each further one twice as long.
    pub fn open_circuit(
        &self,
        reason: String,
        at: Reached,
        mail: Option<Features<'_>>,
        first: Duration,
        longest: Duration,
    ) {
        let mut state = self.state.lock();
        let mail = mail.filter(|_| at > Reached::Session);
        let mail = mail.map(|mail| if at > Reached::Mail { mail } else { mail.at_mail() });
        let keys = mail.as_ref().map(Features::keys).unwrap_or_default();
        let (times, refusals) = match &state.circuit {
            None => (1, Refusals::first(mail.as_ref())),
            // Connections that were under way when it opened are no further probes.
            Some(known) if !known.refusals.spares(keys) && !known.left().is_zero() => return,
            Some(known) => known.refusals.again(known.times, mail.as_ref()),
        };
        let wait = doubled(first, times.saturating_sub(1), longest);
        state.circuit = Some(Circuit { until: Instant::now() + wait, reason, times, at, refusals });
    }

    /// A session was opened: the password is right, and a refusal of that is over.
    pub fn let_in(&self) -> Wake {
        let mut state = self.state.lock();
        let waited = !state.login.by_mail && self.logs_in() && !state.login.through;
        state.login.through |= !state.login.by_mail;
        let over = state.circuit.take_if(|circuit| circuit.at == Reached::Session).is_some();
        state.ended.now |= over;
        if waited || over { self.wake(&mut state) } else { Wake::Nobody }
    }

    /// A login failed: where no other connection is logged in, one alone tries again.
    pub fn login_failed(&self) {
        let mut state = self.state.lock();
        if state.login.through && state.narrowed.open() == 0 {
            // Those that try at this moment count as one.
            state.login = Login { began: Some(Instant::now()), trying: 1, ..Login::default() };
        }
    }

    /// Whether a refusal of us has ended since this was last true: what waits because of it may be tried.
    pub fn refusal_is_over(&self) -> bool {
        let mut state = self.state.lock();
        let over = state.ended.now && state.ended.told.is_none_or(|told| told.elapsed() >= WAKE_AGAIN);
        if over {
            state.ended = Ended { now: false, told: Some(Instant::now()) };
        }
        over
    }

    /// Mail got as far as `to`, or was `delivered`: a refusal at an earlier point is over. Not one before MAIL: what
    /// leaves by a connection that was let in before says nothing of the next one's login ([`Lane::let_in`]).
    pub fn got_as_far(&self, to: Reached, delivered: bool) -> Wake {
        let mut state = self.state.lock();
        let over = state.circuit.take_if(|circuit| circuit.at > Reached::Session && (delivered || circuit.at < to));
        state.ended.now |= over.is_some();
        let first = state.login.by_mail && (delivered || to > Reached::Session);
        if first {
            (state.login.by_mail, state.login.through) = (false, true);
        }
        if over.is_some() || first { self.wake(&mut state) } else { Wake::Nobody }
    }

    /// An operator says that whatever was wrong is mended: asked at once, by one connection first.
    pub fn close_circuit(&self) -> Wake {
        let mut state = self.state.lock();
        // Also where the login failed for now (454, a close), which opens no circuit.
        let by_mail = state.circuit.as_ref().is_some_and(|circuit| circuit.at > Reached::Session);
        state.login = Login { by_mail, ..Login::default() };
        match state.circuit.take() {
            Some(_) => self.wake(&mut state),
            None => Wake::Nobody,
        }
    }

    /// The mail alone that the provider refuses as if it were all of ours, in words that follow "mail".
    pub fn refused_mail(&self) -> Option<Arc<str>> {
        self.state.lock().circuit.as_ref()?.about().cloned()
    }

    fn logs_in(&self) -> bool {
        self.provider.relay.as_ref().is_some_and(|relay| relay.auth.is_some() || relay.oauth.is_some())
    }

    /// How many may try until one of them is through; `None`: one was.
    pub(super) fn first_ones(&self, state: &State) -> Option<u32> {
        let wait = state.login.by_mail || self.logs_in() && !state.login.through;
        wait.then(|| state.login.most())
    }

    /// What keeps every job that is not under way for now, if anything does: for how long; zero, until one
    /// that is under way has found something out.
    pub(super) fn shut(&self, state: &State) -> Option<Duration> {
        if let Some(circuit) = &state.circuit {
            let left = circuit.left();
            if !circuit.refusals.spares_some() && !left.is_zero() {
                return Some(left);
            }
            if state.in_flight > 0 {
                return Some(Duration::ZERO);
            }
        }
        let all_try = self.first_ones(state).is_some_and(|most| state.login.trying >= most);
        (state.in_flight > 0 && all_try).then_some(Duration::ZERO)
    }
}

impl State {
    /// A job is given out.
    pub(super) fn note_login_begun(&mut self) {
        if self.in_flight == 0 {
            (self.login.began, self.login.trying) = (Some(Instant::now()), 0);
        }
        self.login.trying = self.login.trying.saturating_add(1);
    }
}

#[cfg(test)]
#[path = "circuit_tests.rs"]
mod tests;
