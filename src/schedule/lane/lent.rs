//! Jobs whose worker is still opening a connection.
//!
//! Such a job does not lose its turn to those whose connections are open: a worker with a connection
//! that suits it takes it and leaves its own, later one there. So it is overtaken by no more
//! transactions than there are connections, however long the opening takes, and a host that does
//! not answer keeps nothing but the one job that is there at the end.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Lane;
use crate::route::Route;
use crate::schedule::Job;

/// A job and where it goes.
#[derive(Debug)]
pub struct Lent {
    /// The job.
    pub job: Job,
    /// Its way.
    pub route: Arc<Route>,
}

/// The jobs of those who are opening a connection, by worker.
#[derive(Debug, Default)]
pub(super) struct Loans {
    next: u64,
    jobs: BTreeMap<u64, Lent>,
}

impl Lane {
    /// Leaves a job here while its worker opens a connection; returns under which number.
    pub fn lend(&self, job: Job, route: Arc<Route>) -> u64 {
        let loans = &mut self.state.lock().loans;
        loans.next += 1;
        loans.jobs.insert(loans.next, Lent { job, route });
        loans.next
    }

    /// Takes the job back: the same, or a later one with a way to the same hosts.
    pub fn take_back(&self, number: u64) -> Option<Lent> {
        self.state.lock().loans.jobs.remove(&number)
    }

    /// A worker with an open connection is about to take `mine`: it takes instead the earliest job
    /// before it that waits for a connection and whom `suits` its own. True if there was one.
    pub fn take_earlier(&self, mine: &mut Job, route: &mut Arc<Route>, mut suits: impl FnMut(&Lent) -> bool) -> bool {
        let loans = &mut self.state.lock().loans;
        // A job without a place was never given out.
        let place = mine.place.unwrap_or(u64::MAX);
        let earlier = loans.jobs.values_mut().filter(|lent| {
            lent.job.place.is_some_and(|other| other < place) && lent.job.priority() >= mine.priority() && suits(lent)
        });
        let Some(lent) = earlier.min_by_key(|lent| lent.job.place) else { return false };
        std::mem::swap(&mut lent.job, mine);
        std::mem::swap(&mut lent.route, route);
        true
    }
}
