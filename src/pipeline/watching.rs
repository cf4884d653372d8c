//! Says it when a lane stops and when it goes on: one WARN with what holds it, until when and how many
//! wait, and one INFO. A rate that does its work, a pause of a moment, and a lane in which nothing waits
//! are no news; one that stops again within [`QUIET`] is told only when that is over and it still stands.
//!
//! Bounded: [`MOST`] lanes are remembered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::Relay;
use super::moves::source;
use super::outage::News;
use crate::clock::{Timestamp, When, grouped, span};
use crate::deliver::Stage;
use crate::mail::LaneName;
use crate::queue::QueueError;
use crate::schedule::Lane;
use crate::schedule::lane::{By, GivenUp, Hangs, Hold, Holds};

/// How often it is looked.
const TICK: Duration = Duration::from_secs(1);
/// A lane that stops for the same reason so soon again is not told of before this is over.
const QUIET: Duration = Duration::from_secs(600);
/// A shorter stop is not worth a line.
const SHORT: Duration = Duration::from_secs(5);
/// Lanes remembered.
const MOST: usize = 1000;
/// Recipients that are counted; of more it is said that there are more.
pub const COUNTED: usize = 1_000_000;
/// How often that is counted again while mail goes from the queue to memory or back.
const LOOKS: usize = 5;

/// What was said of a lane.
#[derive(Clone, Debug, PartialEq)]
struct Said {
    /// What stopped it: [`Hold::name`].
    by: &'static str,
    /// Since when.
    since: Timestamp,
    /// When that was said; `None`: it was not yet.
    at: Option<Timestamp>,
    /// It went on, which was said, too.
    over: bool,
}

/// What to say now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Say {
    Nothing,
    Stops,
    /// After so long.
    GoesOn(Duration),
}

impl Said {
    /// What is to be said of a lane that `stop` stops now, while something `waits` there.
    fn step(before: Option<Said>, stop: Option<&Hold>, waits: bool, now: Timestamp) -> (Option<Said>, Say) {
        match (before, stop) {
            (None, None) => (None, Say::Nothing),
            (None, Some(hold)) => Said { by: hold.name(), since: now, at: None, over: false }.told(hold, waits, now),
            // Another reason is another answer.
            (Some(said), Some(hold)) if said.by != hold.name() => {
                let since = if said.over { now } else { said.since };
                Said { by: hold.name(), since, at: None, over: false }.told(hold, waits, now)
            }
            (Some(said), Some(hold)) if said.over => {
                let quiet = said.at.is_some_and(|at| now.since(at) < QUIET);
                match quiet {
                    true => (Some(said), Say::Nothing),
                    false => Said { since: now, at: None, over: false, ..said }.told(hold, waits, now),
                }
            }
            (Some(said), Some(hold)) if said.at.is_none() => said.told(hold, waits, now),
            (Some(said), Some(_)) => (Some(said), Say::Nothing),
            (Some(said), None) if said.at.is_none() => (None, Say::Nothing),
            (Some(said), None) if !said.over => {
                let after = now.since(said.since);
                (Some(Said { over: true, ..said }), Say::GoesOn(after))
            }
            (Some(said), None) => {
                let quiet = said.at.is_some_and(|at| now.since(at) < QUIET);
                (quiet.then_some(said), Say::Nothing)
            }
        }
    }

    /// What is used of a quota is still used when nothing waits for it any more: that is no end.
    fn outlives_lane(&self) -> bool {
        matches!(self.by, "quota" | "warmup")
    }

    /// The lane is forgotten: after how long what stopped it, and was told, has ended with it.
    fn ended_with_lane(&self, now: Timestamp) -> Option<Duration> {
        (self.at.is_some() && !self.over && !self.outlives_lane()).then(|| now.since(self.since))
    }

    fn told(self, hold: &Hold, waits: bool, now: Timestamp) -> (Option<Said>, Say) {
        let lasts = hold.until.is_none_or(|until| until.since(now) > SHORT) || now.since(self.since) > SHORT;
        if waits && lasts { (Some(Said { at: Some(now), ..self }), Say::Stops) } else { (Some(self), Say::Nothing) }
    }
}

impl Relay {
    /// All that holds a lane now.
    pub fn holds(&self, lane: &Lane) -> Holds {
        let now = self.clock.now();
        let mut holds = lane.holds(now);
        if *self.stopping.borrow() {
            holds.add(By::Shutdown, None);
        }
        if let Some(address) = lane.name.source()
            && !self.connector.source_works(&lane.name)
        {
            holds.add(By::Source(address), None);
        }
        let waiting = self.connector.descriptors().waiting_of(&lane.name);
        if waiting > 0 {
            holds.add(By::Descriptors { waiting }, None);
        }
        // A login that is refused is told once, by what the provider said of it.
        let refused = holds.iter().any(|hold| matches!(hold.by, By::Refused { about: None, .. }));
        for (by, until) in self.hosts_down(&lane.name, &lane.provider, refused) {
            holds.add(by, Some(until));
        }
        holds
    }

    /// What holds a lane that is not in memory.
    pub fn holds_of_absent(&self, name: &LaneName) -> Holds {
        let mut holds = Holds::default();
        for (by, until) in self.hosts_down(name, &self.router.provider_of_lane(name), false) {
            holds.add(by, Some(until));
        }
        holds
    }

    /// Lanes whose hosts take no connection, whether they are in memory or not.
    pub fn lanes_without_hosts(&self) -> Vec<LaneName> {
        self.outages.lanes()
    }

    /// Recipients that wait in a lane, in memory and in the queue, up to [`COUNTED`].
    ///
    /// # Errors
    /// The queue cannot be read.
    pub async fn waiting_in(&self, name: &LaneName) -> Result<usize, QueueError> {
        let in_memory = || self.scheduler.known(name).map_or(Some(0), |lane| lane.settled_in_memory());
        let mut most = 0;
        for _ in 0..LOOKS {
            let before = in_memory();
            let stored = self.queue.waiting(name, i8::MIN, Timestamp(i64::MAX), COUNTED).await?;
            most = most.max(stored + self.scheduler.known(name).map_or(0, |lane| lane.snapshot().ready));
            // What went from memory to the queue or back meanwhile may have been seen in neither.
            if before.is_some() && before == in_memory() {
                break;
            }
        }
        Ok(most)
    }

    /// Watches all lanes until shutdown.
    pub async fn keep_watch(self: Arc<Relay>, mut stopping: watch::Receiver<bool>) {
        let mut said = BTreeMap::new();
        while !*stopping.borrow() {
            self.look_at_lanes(&mut said).await;
            tokio::select! {
                biased;
                _ = stopping.changed() => {}
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    async fn look_at_lanes(self: &Arc<Relay>, said: &mut BTreeMap<LaneName, Said>) {
        let now = self.clock.now();
        for news in self.outages.news(now) {
            match news {
                News::Wake(lane, outage) => self.wake_soon(lane, outage.host),
                news => self.tell_outage(news, now).await,
            }
        }
        // A lane that is forgotten has nothing that waits.
        said.retain(|name, said| {
            let gone = self.scheduler.known(name).is_none();
            if gone && let Some(after) = said.ended_with_lane(now) {
                tell_goes_on(name, said.by, after);
            }
            !gone
        });
        for lane in self.scheduler.lanes() {
            if lane.refusal_is_over() {
                let host = lane.provider.relay.as_ref().map_or(String::new(), |relay| relay.host.to_string());
                self.wake_soon(lane.name.clone(), host);
            }
            if let Some(hangs) = lane.hangs() {
                tell_hangs(&lane, &hangs);
            }
            if let Some(given_up) = lane.give_up_late() {
                tell_given_up(&lane, &given_up);
            }
            if said.len() >= MOST && !said.contains_key(&lane.name) {
                continue;
            }
            // A lane that is new again does not know yet what was used of its quotas.
            if !lane.knows_usage() && said.get(&lane.name).is_some_and(Said::outlives_lane) {
                continue;
            }
            // What concerns a part of a lane stops none.
            let holds = lane.holds_of_all(now);
            let stop = holds.stop();
            let before = said.remove(&lane.name);
            if stop.is_none() && before.is_none() {
                continue;
            }
            let waits = lane.in_memory() > 0 || lane.stored_due().is_some();
            let by = before.as_ref().map_or("", |said| said.by);
            let (after, say) = Said::step(before, stop, waits, now);
            if let Some(after) = after {
                said.insert(lane.name.clone(), after);
            }
            match (say, stop) {
                (Say::Stops, Some(hold)) => self.tell_stop(&lane, hold, now).await,
                (Say::GoesOn(after), _) => tell_goes_on(&lane.name, by, after),
                _ => {}
            }
        }
    }

    async fn tell_stop(&self, lane: &Lane, hold: &Hold, now: Timestamp) {
        let waiting = match hold.by {
            // Those that have a connection are the ones that wait.
            By::Silent { .. } => grouped(lane.in_memory() as u64),
            _ => self.waiting_text(&lane.name).await,
        };
        tracing::warn!(
            provider = lane.name.base(),
            source = source(&lane.name),
            by = hold.name(),
            why = hold.told(now).to_string(),
            until = hold.until.map(|until| until.to_string()).unwrap_or_default(),
            waiting,
            "the lane stops: nothing leaves"
        );
    }

    /// Looking through a deep queue takes a while, in which others are watched.
    pub(super) fn wake_soon(self: &Arc<Relay>, lane: LaneName, host: String) {
        let relay = self.clone();
        tokio::spawn(async move {
            if let Err(error) = relay.wake_for_host(lane, &host).await {
                tracing::warn!(%error, "could not bring forward what waits for a host that is back: it has its own times");
            }
        });
    }

    async fn tell_outage(&self, news: News, now: Timestamp) {
        match news {
            News::Down(name, outage) => {
                let provider = self.router.provider_of_lane(&name);
                // Of a provider with many domains others go to other hosts.
                let all = (provider.relay.is_some() || name.as_domain().is_some()) && outage.about.is_none();
                let waiting = if all { self.waiting_text(&name).await } else { grouped(outage.put_off) };
                let what = match outage.stage {
                    Stage::Route => "the host has no address: its mail waits",
                    Stage::Connect | Stage::Greeting => "the host takes no connection: its mail waits",
                    _ if outage.about.is_some() => "the host refuses some mail: it waits",
                    _ => "the host takes no mail: its mail waits",
                };
                tracing::warn!(
                    provider = name.base(),
                    source = source(&name),
                    host = outage.host,
                    stage = %outage.stage,
                    about = outage.about.as_deref(),
                    why = outage.why,
                    waiting,
                    next_try = next_try(outage.until, now),
                    "{what}"
                );
            }
            News::Back(name, outage, after) => tracing::info!(
                provider = name.base(),
                source = source(&name),
                host = outage.host,
                after = span(after),
                "the host takes mail again"
            ),
            News::Wake(..) => {}
        }
    }

    /// How many wait, for a line of the log.
    async fn waiting_text(&self, name: &LaneName) -> String {
        match self.waiting_in(name).await {
            Ok(waiting) if waiting >= COUNTED => format!("more than {}", grouped(COUNTED as u64)),
            Ok(waiting) => grouped(waiting as u64),
            Err(error) => format!("not known: {error}"),
        }
    }
}

fn tell_hangs(lane: &Lane, hangs: &Hangs) {
    let (provider, source) = (lane.name.base(), source(&lane.name));
    match hangs {
        Hangs::Begins { message, host, stage, silent, connections } => tracing::warn!(
            provider,
            source,
            id = %message,
            host,
            %stage,
            silent = span(*silent),
            connections,
            "the host leaves mail without an answer while it answers other mail: that has the other connections"
        ),
        Hangs::Over(after) => tracing::info!(
            provider,
            source,
            after = span(*after),
            "no mail waits for an answer any longer than other mail"
        ),
    }
}

fn tell_given_up(lane: &Lane, given_up: &GivenUp) {
    tracing::warn!(
        provider = lane.name.base(),
        source = source(&lane.name),
        id = %given_up.message,
        host = given_up.host,
        stage = %given_up.stage,
        after = span(given_up.after),
        "the host leaves a message without an answer while other mail needs the connection: it is tried again later"
    );
}

/// When a host is asked again: what has come waits for the next message, where none was there to ask.
fn next_try(at: Timestamp, now: Timestamp) -> String {
    if at <= now { "with the next message".into() } else { When { at, now }.to_string() }
}

fn tell_goes_on(name: &LaneName, by: &str, after: Duration) {
    let (provider, source) = (name.base(), source(name));
    tracing::info!(provider, source, by, after = span(after), "the lane goes on");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Usage;

    #[test]
    fn a_host_that_is_due_is_asked_with_the_next_message() {
        assert_eq!(next_try(at(5), at(5)), "with the next message");
        assert!(next_try(at(6), at(5)).ends_with(" (in 1 s)"));
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp(1_790_000_000_000).after(Duration::from_secs(seconds))
    }

    fn quota(until: u64) -> Hold {
        let usage = Usage { quota: "5/h".into(), day: None, begins: None, used: 5, most: 5, back: Duration::ZERO };
        Hold { by: By::Quota(usage), until: Some(at(until)) }
    }

    /// What is said at these seconds of a lane that is stopped at some of them.
    fn story(steps: &[(u64, Option<Hold>, bool)]) -> Vec<(u64, Say)> {
        let mut said = None;
        let mut out = Vec::new();
        for (second, stop, waits) in steps {
            let (after, say) = Said::step(said.take(), stop.as_ref(), *waits, at(*second));
            said = after;
            if say != Say::Nothing {
                out.push((*second, say));
            }
        }
        out
    }

    #[test]
    fn a_stop_is_told_once_and_so_is_its_end() {
        let told = story(&[
            (0, Some(quota(600)), true),
            (1, Some(quota(600)), true),
            (300, Some(quota(900)), true),
            (900, None, true),
            (901, None, true),
        ]);
        assert_eq!(told, [(0, Say::Stops), (900, Say::GoesOn(Duration::from_secs(900)))]);
    }

    #[test]
    fn a_quota_is_not_over_because_nothing_waits_for_it_any_more() {
        let ended = |hold: Hold, waits| {
            let (said, _) = Said::step(None, Some(&hold), waits, at(0));
            said.and_then(|said| said.ended_with_lane(at(60)))
        };
        let refused = || Hold { by: By::Refused { reply: "535 no".into(), about: None }, until: Some(at(600)) };
        assert_eq!(ended(quota(600), true), None);
        assert_eq!(ended(refused(), true), Some(Duration::from_secs(60)));
        assert_eq!(ended(refused(), false), None, "it was not told");
    }

    #[test]
    fn what_holds_nothing_or_a_moment_is_no_news() {
        assert_eq!(story(&[(0, Some(quota(600)), false), (600, None, false)]), []);
        assert_eq!(story(&[(0, Some(quota(3)), true), (3, None, true)]), []);
        // Mail comes later, and a moment that does not end is none.
        assert_eq!(story(&[(0, Some(quota(600)), false), (9, Some(quota(600)), true)]), [(9, Say::Stops)]);
        assert_eq!(story(&[(0, Some(quota(3)), true), (7, Some(quota(9)), true)]), [(7, Say::Stops)]);
    }

    #[test]
    fn another_reason_is_told_at_once_and_the_same_one_not_too_often() {
        let operator = || Some(Hold { by: By::Operator, until: None });
        let told = story(&[(0, Some(quota(600)), true), (5, operator(), true), (8, None, true)]);
        let end = Say::GoesOn(Duration::from_secs(8));
        assert_eq!(told, [(0, Say::Stops), (5, Say::Stops), (8, end)]);
        // A quota that gives one an hour's sixtieth at a time.
        let steps: Vec<_> = (0..60)
            .flat_map(|minute| [(minute * 60, Some(quota(minute * 60 + 59)), true), (minute * 60 + 59, None, true)])
            .collect();
        assert_eq!(story(&steps).len(), 12, "six stops and six ends in an hour");
    }
}
