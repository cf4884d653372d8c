//! A provider that refuses us altogether (a wrong password, "log in first"): nothing of the lane leaves until
//! one message, tried now and then, shows that this is over.
//!
//! What was said at MAIL or later may be about that mail alone, whatever the words (its sender, his domain, the
//! recipient: see [`Refusals`]): mail unlike it is tried at once, one message at a time, and one that gets further
//! ends the refusal. When unlike mail hears the same, it is about all of the lane, and each probe is of another
//! sender, as long as there is one who was not refused.
//!
//! A password is given to the host by one connection until it is accepted, or a wrong one would be tried by
//! all of them at once, for which accounts are locked: at the start, after a reload, and after an operator
//! has resumed the lane.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Lane, State, Wake};
use crate::clock::doubled;
use crate::mail::{Features, Refusals};
use crate::schedule::Job;

/// So long others wait at most for the one that logs in first, so that a host that hangs does not hold up its
/// neighbours.
const FIRST_LOGIN: Duration = Duration::from_secs(10);

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
        !self.left().is_zero() && !self.refusals.spares(job.features().keys())
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
    /// Since when the first one tries.
    began: Option<Instant>,
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
            Some(known) if !known.refusals.is_about_more_with(keys) && !known.left().is_zero() => return,
            Some(known) => known.refusals.again(known.times, mail.as_ref()),
        };
        let wait = doubled(first, times.saturating_sub(1), longest);
        state.circuit = Some(Circuit { until: Instant::now() + wait, reason, times, at, refusals });
    }

    /// A session was opened: the password is right, and a refusal of that is over.
    pub fn let_in(&self) -> Wake {
        let mut state = self.state.lock();
        let waited = self.logs_in() && !state.login.through;
        state.login.through = true;
        let over = state.circuit.take_if(|circuit| circuit.at == Reached::Session).is_some();
        if waited || over { self.wake(&mut state) } else { Wake::Nobody }
    }

    /// Mail got as far as `to`, or was `delivered`: a refusal at an earlier point is over. Not one before MAIL: what
    /// leaves by a connection that was let in before says nothing of the next one's login ([`Lane::let_in`]).
    pub fn got_as_far(&self, to: Reached, delivered: bool) -> Wake {
        let mut state = self.state.lock();
        match state.circuit.take_if(|circuit| circuit.at > Reached::Session && (delivered || circuit.at < to)) {
            Some(_) => self.wake(&mut state),
            None => Wake::Nobody,
        }
    }

    /// An operator says that whatever was wrong is mended: asked at once, by one connection first.
    pub fn close_circuit(&self) -> Wake {
        let mut state = self.state.lock();
        // Also where the login failed for now (454, a close), which opens no circuit.
        state.login = Login::default();
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
        self.provider.relay.as_ref().is_some_and(|relay| relay.auth.is_some())
    }

    /// One connection logs in first: the others wait for it.
    pub(super) fn one_logs_in(&self, state: &State) -> bool {
        self.logs_in() && !state.login.through && state.login.began.is_none_or(|at| at.elapsed() < FIRST_LOGIN)
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
        (state.in_flight > 0 && self.one_logs_in(state)).then_some(Duration::ZERO)
    }
}

impl State {
    /// A job was given out.
    pub(super) fn note_login_begun(&mut self) {
        if !self.login.through {
            self.login.began.get_or_insert_with(Instant::now);
        }
    }
}

#[cfg(test)]
#[path = "circuit_tests.rs"]
mod tests;
