//! Jobs whose worker is still opening a connection.
//!
//! Such a job does not lose its turn to those whose connections are open: a worker with a connection
//! that suits it takes it and leaves its own, later one there. So it is overtaken by no more
//! transactions than there are connections, however long the opening takes, and a host that does
//! not answer keeps nothing but the one job that is there at the end, until an operator takes it away.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Lane, State};
use crate::mail::RecipientKey;
use crate::route::Route;
use crate::schedule::Job;

impl Loans {
    /// The jobs that are lent.
    pub(super) fn jobs(&self) -> impl ExactSizeIterator<Item = &Job> {
        self.jobs.values().map(|lent| &lent.job)
    }

    /// Where the first of them goes, with the port where that is not 25.
    pub(super) fn host(&self) -> Option<String> {
        let lent = self.jobs.values().find(|lent| !lent.route.hosts.is_empty())?;
        let name = &lent.route.hosts.first()?.name;
        Some(if lent.route.port == 25 { name.clone() } else { format!("{name}:{}", lent.route.port) })
    }
}

impl State {
    /// Connections that are being opened. Who waits for a rate of connections has not begun.
    pub(super) fn opening(&self) -> usize {
        self.loans.jobs.len().saturating_sub(self.unconnected)
    }
}

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

    /// Takes recipients away from those who are opening a connection for them: nothing of them was sent.
    pub fn recall(&self, wanted: &mut dyn FnMut(RecipientKey) -> bool) -> Vec<Job> {
        let mut state = self.state.lock();
        let mut out = Vec::new();
        for lent in state.loans.jobs.values_mut() {
            let before = lent.job.recipients.len();
            let job = &mut lent.job;
            let (go, stay) =
                std::mem::take(&mut job.recipients).into_iter().partition(|held| wanted(job.key(held.index)));
            job.recipients = stay;
            let mut taken = job.without_recipients();
            taken.recipients = go;
            taken.gates.clear();
            if !taken.recipients.is_empty() {
                self.fewer_on_their_way(job, before);
                out.push(taken);
            }
        }
        state.loans.jobs.retain(|_, lent| !lent.job.recipients.is_empty());
        state.in_flight = state.in_flight.saturating_sub(out.iter().map(|job| job.recipients.len()).sum());
        drop(state);
        self.recalled.notify_waiters();
        out
    }

    /// Returns when nothing is lent under that number any more.
    pub async fn recalled(&self, number: u64) {
        loop {
            let recalled = self.recalled.notified();
            tokio::pin!(recalled);
            recalled.as_mut().enable();
            if !self.state.lock().loans.jobs.contains_key(&number) {
                return;
            }
            recalled.await;
        }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Count;
    use crate::config::units::Rate;
    use crate::mail::LaneName;
    use crate::schedule::testing::{job, provider};
    use crate::shape::reserve::testing::ledger;

    /// What an operator takes away is with no worker any more, and keeps no place at the rate.
    #[tokio::test(start_paused = true)]
    async fn what_is_recalled_is_nowhere_on_its_way() {
        let mut provider = provider("p");
        provider.rate = vec![Rate { count: 2, per: Duration::from_secs(3600) }.into()];
        (provider.burst, provider.count) = (2, Count::Recipients);
        let lane = Arc::new(Lane::new(LaneName::from("p"), Arc::new(provider), &[], &ledger()));
        let _ = lane.push([job("a@a", "x.example", 0, &[0, 1]), job("a@a", "x.example", 0, &[2, 3])]);
        let idle = Duration::from_secs(30);
        let (first, _) = lane.next(None, idle).await.expect("a job");
        let route = Arc::new(Route {
            lane: lane.name.clone(),
            provider: lane.provider.clone(),
            destination: "x.example".into(),
            hosts: Vec::new().into(),
            port: 25,
            facts: None,
        });
        let number = lane.lend(first, route);
        assert!(lane.next(None, idle).await.is_err(), "two are on their way, and there is room for two");
        let one = lane.recall(&mut |key| key.index == 0);
        assert_eq!((one.len(), one[0].recipients.len(), lane.in_memory()), (1, 1, 3));
        assert!(lane.recall(&mut |key| key.index > 1).is_empty(), "that is not lent");
        let worker = tokio::spawn({
            let lane = lane.clone();
            async move { lane.recalled(number).await }
        });
        tokio::task::yield_now().await;
        assert!(!worker.is_finished(), "something is left");
        assert_eq!(lane.recall(&mut |key| key.index == 1).len(), 1);
        worker.await.expect("it is told");
        assert!(lane.take_back(number).is_none());
        assert_eq!(lane.in_memory(), 2);
        let (mut second, _) = lane.next(None, idle).await.expect("there is room again");
        lane.permit(&mut second).await.expect("a permit").spend();
    }
}
