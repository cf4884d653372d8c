//! What hosts of a lane announce about their sessions (LIMITS, RFC 9422): remembered for operators, and kept by taking
//! out of a job what its connection has no place for.

use std::sync::Arc;

use super::{Lane, Wake};
use crate::deliver::SessionLimits;
use crate::mail::Address;
use crate::schedule::Job;

/// Of the host that was connected to last, if it names any.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Announced {
    /// Its name.
    pub host: Arc<str>,
    /// What it said.
    pub limits: SessionLimits,
}

impl Lane {
    /// A host was connected to, which said this of its sessions.
    pub fn note_announced(&self, host: &str, limits: SessionLimits) {
        let mut state = self.state.lock();
        match &state.announced {
            Some(known) if &*known.host == host && known.limits == limits => {}
            // Another host may still have its own.
            Some(known) if limits.is_empty() && &*known.host != host => {}
            _ => state.announced = (!limits.is_empty()).then(|| Announced { host: host.into(), limits }),
        }
    }

    /// Takes out of a job that is on its way to its permit those recipients that its connection does not take: they
    /// wait again, and nothing was tried. `fits`: which ones stay, in their order.
    pub fn part(&self, job: &mut Job, fits: &[bool]) -> Wake {
        let before = job.recipients.len();
        let mut fits = fits.iter().copied().chain(std::iter::repeat(false));
        let (stay, go) = std::mem::take(&mut job.recipients).into_iter().partition(|_| fits.next().unwrap_or_default());
        job.recipients = stay;
        let mut rest = job.without_recipients();
        rest.recipients = go;
        self.fewer_on_their_way(job, before);
        self.give_back(rest)
    }
}

/// The recipients of a job.
pub(crate) fn addresses(job: &Job) -> impl ExactSizeIterator<Item = &Address> {
    job.recipients.iter().map(|held| &held.recipient.address)
}
