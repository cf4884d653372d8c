//! Hosts that take no connection, turn us away before MAIL at whichever stage, or are smart hosts whose names have
//! no address: since when, what happened, when they are tried again. An outage is one
//! warning and one line when it is over, whatever waits for it; what was not tried meanwhile is told
//! recipient by recipient at the level `debug`.
//!
//! An outage begins when every address of a route is left alone (see `deliver`), and ends when one of
//! them has replied to MAIL or what follows: a host that only greets and hangs up is not back.
//! Bounded: of more than [`MOST`] hosts at once the others have the lines of their recipients alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::Relay;
use crate::clock::{Timestamp, doubled};
use crate::config::Provider;
use crate::deliver::{Event, Fact, Peer, Stage};
use crate::mail::{LaneName, RecipientKey, State};
use crate::queue::{Filter, Operation, QueueError};
use crate::route::Route;
use crate::schedule::lane::By;
use crate::schedule::{Job, Lane};

/// Outages known at once.
const MOST: usize = 1000;
/// Who is down again so soon after it was back is not told of before this is over.
const QUIET: Duration = Duration::from_secs(600);
/// What waits for a host alone is brought forward no more often, for one that comes and goes.
const WAKE_AGAIN: Duration = Duration::from_secs(60);
/// Recipients brought forward in one step.
pub(super) const AT_ONCE: usize = 500;
/// Shorter ones are not worth a line.
const SHORT: Duration = Duration::from_secs(5);

/// Where what fails is about the host, our account there or its certificate, and not about a message.
const BEFORE_MAIL: [Stage; 5] = [Stage::Connect, Stage::Greeting, Stage::Ehlo, Stage::StartTls, Stage::Auth];

/// Codes that ask for a login or TLS, at whatever stage.
const LOGIN: [u16; 4] = [530, 534, 535, 538];

/// How long a name without an address is left alone at first, twice as long after every further failure, and at most.
const FIRST: Duration = Duration::from_secs(30);
const LONGEST: Duration = Duration::from_secs(3600);
/// How long the one who asks for it again keeps the others away.
const PROBE: Duration = Duration::from_secs(60);

/// Which lane, and where its mail would go.
type Key = (LaneName, Arc<str>);

/// A destination none of whose hosts takes a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Outage {
    /// The host that is asked next, with the port where that is not 25.
    pub(super) host: String,
    /// Where in the dialog it fails, and what happened there last.
    pub(super) stage: Stage,
    pub(super) why: String,
    /// The mail alone that it keeps away, in words that follow "mail".
    pub(super) about: Option<Arc<str>>,
    /// Since when.
    pub(super) since: Timestamp,
    /// When one message asks again.
    pub(super) until: Timestamp,
    /// Recipients put off because of it.
    pub(super) put_off: u64,
    /// Times in a row that its name had no address, counted once for all that asked at the same time.
    nameless: u32,
    /// Somebody asks for it again.
    asking: bool,
    /// It was told that it is down, and not yet that it is back.
    told: bool,
    /// When it was told last that it is down.
    told_at: Option<Timestamp>,
    /// What waits for it alone was brought forward since it ended, and when it last was.
    woken: bool,
    woken_at: Option<Timestamp>,
    /// When it ended; it is kept for a while, so that one that comes and goes is not told each time.
    over: Option<Timestamp>,
}

/// What failed now.
struct Failed {
    host: String,
    stage: Stage,
    why: String,
    about: Option<Arc<str>>,
    until: Timestamp,
}

impl Outage {
    /// What is wrong with the host, in words that follow its name.
    fn clause(&self) -> String {
        let Outage { stage, why, .. } = self;
        let whose = self.about.as_ref().map_or(String::new(), |about| format!(" {about}"));
        match stage {
            // It took a connection, and has said this to the mail itself.
            stage if *stage >= Stage::Mail && why.starts_with(|c: char| c.is_ascii_digit()) => {
                format!("answers {why} to mail{whose} at {stage}")
            }
            Stage::Mail if why.is_empty() => "takes connections again, and has answered no mail yet".to_owned(),
            Stage::Route => format!("has no address to send to: {why}"),
            Stage::Connect | Stage::Greeting => format!("takes no connection: {why}"),
            _ => format!("takes no mail{whose} at {stage}: {why}"),
        }
    }
}

/// What is to be told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum News {
    /// It is down.
    Down(LaneName, Outage),
    /// It is back, after so long.
    Back(LaneName, Outage, Duration),
    /// It is back: what waits for it alone may leave.
    Wake(LaneName, Outage),
}

/// All outages.
#[derive(Debug, Default)]
pub(super) struct Outages {
    known: Mutex<BTreeMap<Key, Outage>>,
}

impl Outages {
    /// Nobody at `destination` takes a connection; one message asks again at `until`.
    fn down(&self, key: Key, failed: Failed, recipients: u64, now: Timestamp) {
        let Failed { host, stage, why, about, until } = failed;
        let mut known = self.known.lock();
        if known.len() >= MOST && !known.contains_key(&key) {
            return;
        }
        let new = || Outage {
            host: String::new(),
            stage,
            why: String::new(),
            about: None,
            since: now,
            until,
            put_off: 0,
            nameless: 0,
            asking: false,
            told: false,
            told_at: None,
            woken: false,
            woken_at: None,
            over: None,
        };
        let outage = known.entry(key).or_insert_with(new);
        // Back and down again before anybody was told is one outage.
        let was_over = outage.over.take().is_some();
        outage.woken = false;
        if was_over && !outage.told {
            (outage.since, outage.put_off) = (now, 0);
        }
        if was_over {
            outage.nameless = 0;
        }
        if stage == Stage::Route && outage.nameless > 0 && !outage.asking && outage.until > now {
            // It was asked for together with one that was counted.
            outage.put_off = outage.put_off.saturating_add(recipients);
            return;
        }
        outage.nameless = if stage == Stage::Route { outage.nameless.saturating_add(1) } else { 0 };
        outage.asking = false;
        (outage.host, outage.stage, outage.why, outage.about, outage.until) = (host, stage, why, about, until);
        outage.put_off = outage.put_off.saturating_add(recipients);
    }

    /// Something there took mail, or said why not.
    fn up(&self, key: &Key, now: Timestamp) {
        let mut known = self.known.lock();
        if let Some(outage) = known.get_mut(key).filter(|outage| outage.over.is_none()) {
            outage.over = Some(now);
        }
    }

    /// It takes connections again, and nothing else is known yet.
    fn let_in(&self, key: &Key) {
        if let Some(outage) = self.known.lock().get_mut(key).filter(|outage| outage.over.is_none()) {
            (outage.stage, outage.why, outage.nameless) = (Stage::Mail, String::new(), 0);
        }
    }

    /// It takes connections again, and turns us away later.
    fn refuses(&self, key: &Key, fact: &Fact) {
        if let Some(outage) = self.known.lock().get_mut(key).filter(|outage| outage.over.is_none()) {
            (outage.stage, outage.why, outage.about, outage.nameless) = (fact.stage, fact.event.to_string(), None, 0);
        }
    }

    /// A transaction there ended without a reply.
    fn silent(&self, key: &Key, fact: &Fact) {
        if let Some(outage) = self.known.lock().get_mut(key).filter(|outage| outage.over.is_none()) {
            (outage.stage, outage.why) = (fact.stage, fact.event.to_string());
        }
    }

    /// How often in a row the name of a destination had no address.
    fn nameless(&self, key: &Key) -> u32 {
        self.known.lock().get(key).filter(|outage| outage.over.is_none()).map_or(0, |outage| outage.nameless)
    }

    /// Whose name had no address when it was last asked for is left alone for so long; who hears nothing asks
    /// now, and keeps the others away meanwhile.
    fn left_alone(&self, key: &Key, now: Timestamp, recipients: u64) -> Option<(Duration, Outage)> {
        let mut known = self.known.lock();
        let outage = known.get_mut(key).filter(|outage| outage.over.is_none() && outage.nameless > 0)?;
        let left = outage.until.since(now);
        if left.is_zero() {
            (outage.until, outage.asking) = (now.after(PROBE), true);
            return None;
        }
        outage.put_off = outage.put_off.saturating_add(recipients);
        Some((left, outage.clone()))
    }

    /// Everybody is asked again at the next message.
    fn ask(&self, now: Timestamp) {
        for outage in self.known.lock().values_mut() {
            outage.until = outage.until.min(now);
        }
    }

    fn is_empty(&self) -> bool {
        self.known.lock().is_empty()
    }

    /// Those of a lane that last.
    pub(super) fn of(&self, lane: &LaneName) -> Vec<Outage> {
        let from = (lane.clone(), Arc::from(""));
        let known = self.known.lock();
        let its = known.range(from..).take_while(|((name, _), _)| name == lane);
        its.filter(|(_, outage)| outage.over.is_none()).map(|(_, outage)| outage.clone()).collect()
    }

    /// The lanes that have one.
    pub(super) fn lanes(&self) -> Vec<LaneName> {
        let known = self.known.lock();
        let mut lanes: Vec<LaneName> =
            known.iter().filter(|(_, outage)| outage.over.is_none()).map(|((name, _), _)| name.clone()).collect();
        lanes.dedup();
        lanes
    }

    /// What has happened since this was last asked.
    pub(super) fn news(&self, now: Timestamp) -> Vec<News> {
        let mut news = Vec::new();
        self.known.lock().retain(|(lane, _), outage| {
            let quiet = outage.told_at.is_some_and(|at| now.since(at) < QUIET);
            if let Some(over) = outage.over {
                if std::mem::take(&mut outage.told) {
                    news.push(News::Back(lane.clone(), outage.clone(), over.since(outage.since)));
                }
                if !outage.woken && outage.woken_at.is_none_or(|at| now.since(at) >= WAKE_AGAIN) {
                    (outage.woken, outage.woken_at) = (true, Some(now));
                    news.push(News::Wake(lane.clone(), outage.clone()));
                }
                return quiet || !outage.woken;
            }
            let lasts = outage.until.since(outage.since) > SHORT || now.since(outage.since) > SHORT;
            if !outage.told && lasts && !quiet {
                (outage.told, outage.told_at) = (true, Some(now));
                news.push(News::Down(lane.clone(), outage.clone()));
            }
            true
        });
        news
    }
}

impl Relay {
    /// A route took no connection: if all its addresses are left alone now, that is an outage. One that was an outage
    /// and says something now is not any more what it was.
    pub(super) fn note_down(&self, lane: &Lane, job: &Job, route: &Route, facts: &[Fact]) {
        let key = (lane.name.clone(), job.destination.clone());
        let Some(next) = self.connector.next_try(&lane.provider, route, job.features().keys()) else {
            let says = |fact: &&Fact| fact.stage >= Stage::Greeting && matches!(fact.event, Event::Reply(_));
            if let Some(fact) = facts.iter().rev().find(says) {
                self.outages.refuses(&key, fact);
            }
            return;
        };
        let now = self.clock.now();
        let host = host_and_port(&next.host, route.port);
        let failed = Failed { host, stage: next.stage, why: next.why, about: next.about, until: now.after(next.left) };
        self.outages.down(key, failed, job.recipients.len() as u64, now);
    }

    /// The name of a smart host has no address: the fact to tell.
    pub(super) fn note_nameless(&self, lane: &Lane, job: &Job, fact: Fact) -> Fact {
        let (Some(relay), Event::NoRoute { text, .. }) = (&lane.provider.relay, &fact.event) else { return fact };
        let now = self.clock.now();
        let key = (lane.name.clone(), job.destination.clone());
        let (first, longest) = (FIRST.min(lane.provider.retry.first), LONGEST.min(lane.provider.retry.max));
        let wait = doubled(first, self.outages.nameless(&key), longest);
        let host = host_and_port(&relay.host, relay.port);
        let failed = Failed { host, stage: Stage::Route, why: text.clone(), about: None, until: now.after(wait) };
        self.outages.down(key, failed, job.recipients.len() as u64, now);
        Fact { peer: Some(Peer { host: relay.host.clone(), ip: None, tls: None }), ..fact }
    }

    /// Why nobody asks for the name of a smart host now, which had no address a moment ago.
    pub(super) fn without_name(&self, lane: &Lane, job: &Job) -> Option<Fact> {
        let relay = lane.provider.relay.as_ref()?;
        if self.outages.is_empty() {
            return None;
        }
        let key = (lane.name.clone(), job.destination.clone());
        let (left, outage) = self.outages.left_alone(&key, self.clock.now(), job.recipients.len() as u64)?;
        let peer = Peer { host: relay.host.clone(), ip: None, tls: None };
        Some(Fact { stage: Stage::Route, event: Event::BackOff { left, why: outage.why }, peer: Some(peer) })
    }

    /// What a transaction says of an outage.
    pub(super) fn note_answers(&self, lane: &Lane, destination: &Arc<str>, facts: &[Fact]) {
        let answers = |fact: &Fact| match &fact.event {
            Event::Reply(reply) => fact.stage >= Stage::Rcpt || fact.stage == Stage::Mail && reply.code != 421,
            _ => false,
        };
        if self.outages.is_empty() {
            return;
        }
        let key = (lane.name.clone(), destination.clone());
        if facts.iter().any(answers) {
            self.outages.up(&key, self.clock.now());
        } else if let Some(fact) = facts.iter().find(|fact| fact.stage >= Stage::Mail && fact.stage <= Stage::Final) {
            self.outages.silent(&key, fact);
        }
    }

    /// A session was opened for a destination whose hosts had taken no connection.
    pub(super) fn note_session(&self, lane: &Lane, destination: &Arc<str>) {
        if !self.outages.is_empty() {
            self.outages.let_in(&(lane.name.clone(), destination.clone()));
        }
    }

    /// The host of an outage is back: what failed because of it alone, tried or not, is due now, and leaves at
    /// the lane's pace. If the host is down again, one of them finds out, and the others are not tried.
    ///
    /// # Errors
    /// The queue could not be read or written: the rest has its own times.
    pub(super) async fn wake_for_host(&self, lane: LaneName, host: &str) -> Result<(), QueueError> {
        let now = self.clock.now();
        let one = self.router.provider_of_lane(&lane).relay.is_some() || lane.as_domain().is_some();
        // Of a provider with many domains others go to other hosts.
        let filter = put_off_by(if one { "" } else { host }, lane.to_string());
        let (mut changed, mut after) = (0, None);
        while !*self.stopping.borrow() {
            let page = self.queue.inspect(&filter, after, AT_ONCE).await?;
            let keys: Vec<RecipientKey> = page.rows.iter().map(|(key, ..)| *key).collect();
            if !keys.is_empty() {
                changed += self.queue.operate(Operation::Retry, &keys, &[], now).await?;
                self.scheduler.note(&lane, now);
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        if changed > 0 {
            let (provider, source) = (lane.base(), super::moves::source(&lane));
            tracing::info!(provider, source, host, recipients = changed, "what waited for the host alone is due now");
        }
        Ok(())
    }

    /// [`Relay::wake_for_host`] for all lanes of some providers, while other things go on.
    pub fn wake_providers(self: &Arc<Relay>, providers: &[String]) {
        for name in providers {
            let all = self.lanes_named(&LaneName::from(name.as_str()));
            all.into_iter().for_each(|lane| self.wake_soon(lane, String::new()));
        }
    }

    /// Hosts that were left alone are asked again.
    pub(super) fn ask_hosts_again(&self) {
        self.outages.ask(self.clock.now());
    }

    /// The outages of a lane, as holds of it; where it is known that the provider has `refused` us without those of a login.
    pub(super) fn hosts_down(&self, lane: &LaneName, provider: &Provider, refused: bool) -> Vec<(By, Timestamp)> {
        let all = provider.relay.is_some() || lane.as_domain().is_some();
        let hold = |outage: Outage| {
            let why = outage.clause();
            let all = all && outage.about.is_none();
            (By::Host { host: outage.host, why, all }, outage.until)
        };
        let its = self.outages.of(lane).into_iter().filter(|outage| !(refused && outage.stage == Stage::Auth));
        its.map(hold).collect()
    }
}

/// What waits in a lane for such a reason, see [`reasons_of_a_host`].
pub(crate) fn put_off_by(host: &str, lane: String) -> Filter {
    let state = Some(State::Queued.to_string());
    Filter { provider: Some(lane), state, reasons: reasons_of_a_host(host), ..Filter::default() }
}

/// The reasons, as globs, for which mail waits that has nothing to do with the mail: its host took no connection, or
/// would not have our TLS or login. With a name those of this host alone; empty: of every host.
pub(super) fn reasons_of_a_host(host: &str) -> Vec<String> {
    let before = BEFORE_MAIL.into_iter().map(|stage| format!("{host}*] {stage}: *"));
    // Without an address there was none to name.
    let any = if host.is_empty() { "*" } else { host };
    let nameless = [format!("{any} {}: *", Stage::Route), format!("{any} {}: no token: *", Stage::Auth)];
    let logins = [Stage::Mail, Stage::Rcpt, Stage::Data, Stage::Final];
    let logins = logins.into_iter().flat_map(|stage| LOGIN.map(|code| format!("{host}*] {stage}: {code}*")));
    before.chain(nameless).chain(logins).collect()
}

/// Where nobody answers, as an administrator would look for it: the port of mail needs no word.
fn host_and_port(host: &str, port: u16) -> String {
    match port {
        25 => host.to_owned(),
        // An IPv6 address.
        _ if host.contains(':') && !host.starts_with('[') => format!("[{host}]:{port}"),
        _ => format!("{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_named_with_its_port_where_that_is_not_25() {
        let told = [("mx.example", 25), ("::1", 25), ("smtp.example", 587), ("192.0.2.1", 2525), ("::1", 587)]
            .map(|(host, port)| host_and_port(host, port));
        assert_eq!(told, ["mx.example", "::1", "smtp.example:587", "192.0.2.1:2525", "[::1]:587"]);
    }

    const T0: Timestamp = Timestamp(1_790_000_000_000);

    fn at(seconds: u64) -> Timestamp {
        T0.after(Duration::from_secs(seconds))
    }

    fn key() -> Key {
        (LaneName::from("p"), Arc::from("mx.example"))
    }

    /// What is to be said, without what is to be done.
    fn said(outages: &Outages, now: Timestamp) -> Vec<News> {
        outages.news(now).into_iter().filter(|news| !matches!(news, News::Wake(..))).collect()
    }

    fn failed(why: &str, until: Timestamp) -> Failed {
        Failed { host: "mx.example".into(), stage: Stage::Connect, why: why.into(), about: None, until }
    }

    fn down(outages: &Outages, now: u64, wait: u64) {
        outages.down(key(), failed("connection refused", at(now + wait)), 10, at(now));
    }

    #[test]
    fn an_outage_is_told_once_and_its_end_once() {
        let outages = Outages::default();
        down(&outages, 0, 30);
        let News::Down(lane, first) = said(&outages, at(1)).remove(0) else { panic!("it is down") };
        assert_eq!((lane.as_str(), first.host.as_str(), first.until), ("p", "mx.example", at(30)));
        // Probed in vain, and others put off: the same outage.
        down(&outages, 2, 28);
        down(&outages, 30, 60);
        assert_eq!(said(&outages, at(31)), []);
        let now = outages.of(&LaneName::from("p")).remove(0);
        assert_eq!((now.since, now.until, now.put_off), (T0, at(90), 30));
        outages.up(&key(), at(95));
        let News::Back(_, _, after) = said(&outages, at(96)).remove(0) else { panic!("it is back") };
        assert_eq!((after, outages.of(&LaneName::from("p"))), (Duration::from_secs(95), vec![]));
        assert_eq!(outages.lanes(), []);
    }

    #[test]
    fn a_name_that_many_asked_for_at_once_was_missing_once() {
        let outages = Outages::default();
        let missing = |now: u64, wait: u64| {
            let failed = Failed { stage: Stage::Route, ..failed("does not exist", at(now + wait)) };
            outages.down(key(), failed, 1, at(now));
        };
        // Each of five connections waited for its answer; whoever reckons sees what was counted before.
        for times in [0, 1, 1, 1, 1] {
            assert_eq!(outages.nameless(&key()), times);
            missing(0, 30 << times);
        }
        let left = |now| outages.left_alone(&key(), at(now), 1).map(|(left, _)| left);
        assert_eq!(left(10), Some(Duration::from_secs(20)));
        assert_eq!((left(30), left(31)), (None, Some(Duration::from_secs(59))), "one asks");
        for _ in 0..3 {
            missing(32, 60);
        }
        assert_eq!((outages.nameless(&key()), left(33)), (2, Some(Duration::from_secs(59))));
        outages.up(&key(), at(100));
        missing(200, 30);
        assert_eq!(outages.nameless(&key()), 1, "it was there in between");
    }

    #[test]
    fn one_that_comes_and_goes_is_told_every_ten_minutes_at_most() {
        let outages = Outages::default();
        let mut told = 0;
        for minute in 0..60 {
            down(&outages, minute * 60, 30);
            told += said(&outages, at(minute * 60 + 1)).len();
            outages.up(&key(), at(minute * 60 + 30));
            told += said(&outages, at(minute * 60 + 31)).len();
        }
        assert_eq!(told, 12, "down and back, six times in an hour");
        // One that stays down is told in the end.
        down(&outages, 3600, 30);
        assert_eq!(said(&outages, at(3601)).len(), 1);
        assert_eq!(said(&outages, at(7200)), []);
        outages.up(&key(), at(7200));
        assert_eq!(said(&outages, at(7201)).len(), 1);
        assert!(outages.is_empty(), "and forgotten");
    }

    #[test]
    fn a_moment_is_no_outage_and_an_operator_may_ask_at_once() {
        let outages = Outages::default();
        outages.down(key(), failed("421", T0.after(Duration::from_millis(500))), 1, T0);
        assert_eq!(said(&outages, T0), []);
        outages.up(&key(), at(1));
        assert_eq!(said(&outages, at(1)), []);
        assert!(outages.is_empty());
        down(&outages, 10, 3600);
        outages.ask(at(20));
        assert_eq!(outages.of(&LaneName::from("p")).remove(0).until, at(20));
        let many = |n: usize| (LaneName::from(format!("@d{n}.example").as_str()), Arc::from("h"));
        (0..2 * MOST).for_each(|n| outages.down(many(n), failed("x", at(99)), 1, at(0)));
        assert_eq!(outages.lanes().len(), MOST);
    }

    #[test]
    fn what_a_host_says_to_mail_is_not_that_it_takes_no_connection() {
        let outages = Outages::default();
        let told = |stage, why: &str, about: Option<&str>| {
            let failed = Failed { stage, about: about.map(Arc::from), ..failed(why, at(9)) };
            outages.down(key(), failed, 1, at(0));
            outages.of(&LaneName::from("p")).remove(0).clause()
        };
        let bad = Some("of bad@s.example");
        assert_eq!(
            told(Stage::Mail, "421 4.7.0 later", bad),
            "answers 421 4.7.0 later to mail of bad@s.example at MAIL"
        );
        assert_eq!(told(Stage::Mail, "421 4.7.0 later", None), "answers 421 4.7.0 later to mail at MAIL");
        assert_eq!(told(Stage::Rcpt, "it closed", bad), "takes no mail of bad@s.example at RCPT: it closed");
        assert_eq!(told(Stage::Greeting, "421 later", None), "takes no connection: 421 later");
    }

    /// The words follow what happened last, not what was first.
    #[test]
    fn a_host_that_takes_connections_again_and_says_nothing_is_not_said_to_take_none() {
        let outages = Outages::default();
        let told = |outages: &Outages| outages.of(&LaneName::from("p")).remove(0).clause();
        outages.let_in(&key());
        assert!(outages.is_empty(), "nothing is wrong with it");
        down(&outages, 0, 30);
        assert_eq!(told(&outages), "takes no connection: connection refused");
        outages.let_in(&key());
        assert_eq!(told(&outages), "takes connections again, and has answered no mail yet");
        let event = Event::Timeout(Duration::from_secs(300));
        outages.silent(&key(), &Fact { stage: Stage::Mail, event, peer: None });
        assert_eq!(told(&outages), "takes no mail at MAIL: no answer within 300 s");
        down(&outages, 400, 60);
        assert_eq!(told(&outages), "takes no connection: connection refused");
        let reply = crate::deliver::Reply { code: 535, enhanced: None, text: "no".into() };
        outages.refuses(&key(), &Fact { stage: Stage::Auth, event: Event::Reply(reply), peer: None });
        assert_eq!(told(&outages), "takes no mail at AUTH: 535 no", "it takes connections, and not our login");
    }

    #[test]
    fn what_waits_for_a_host_is_told_from_what_was_said_to_mail() {
        let all: Vec<_> = reasons_of_a_host("").iter().map(|p| crate::config::units::Pattern::new(p)).collect();
        let peer = |ip: bool| Peer { host: "mx.example".into(), ip: ip.then(|| [192, 0, 2, 1].into()), tls: None };
        let reply = |code, text: &str| Event::Reply(crate::deliver::Reply { code, enhanced: None, text: text.into() });
        let waits = |stage, event, ip| {
            let reason = Fact { stage, event, peer: Some(peer(ip)) }.to_string();
            all.iter().any(|pattern| pattern.matches(&reason))
        };
        for (stage, event, ip) in [
            (Stage::Connect, Event::Closed, true),
            (Stage::Greeting, reply(421, "busy"), true),
            (Stage::StartTls, Event::Tls("expired".into()), true),
            (Stage::Auth, reply(535, "no"), true),
            (Stage::Auth, Event::NoToken { left: Duration::ZERO, why: "no".into() }, false),
            (Stage::Route, Event::NoRoute { permanent: false, code: 451, enhanced: "4.4.4", text: "no".into() }, false),
            (Stage::Mail, reply(530, "log in"), true),
            (Stage::Connect, Event::BackOff { left: Duration::ZERO, why: "no".into() }, true),
        ] {
            let told = format!("{stage} {event}");
            assert!(waits(stage, event, ip), "{told}");
        }
        for (stage, event) in [
            (Stage::Mail, reply(451, "AUTH: try later")),
            (Stage::Rcpt, reply(450, "mx.example] connect: no")),
            (Stage::Final, Event::Closed),
        ] {
            let told = format!("{stage} {event}");
            assert_eq!(waits(stage, event, true), told.contains("] connect: "), "{told}");
        }
    }

    /// Once, and not each time for one that comes and goes.
    #[test]
    fn what_waits_for_a_host_alone_is_brought_forward_when_it_is_back() {
        let outages = Outages::default();
        let woken = |now: u64| outages.news(at(now)).iter().filter(|news| matches!(news, News::Wake(..))).count();
        down(&outages, 0, 30);
        assert_eq!(woken(1), 0, "it is down");
        outages.up(&key(), at(100));
        assert_eq!((woken(100), woken(101)), (1, 0));
        down(&outages, 110, 30);
        outages.up(&key(), at(115));
        assert_eq!((woken(116), woken(160), woken(161)), (0, 1, 0), "a minute after the last time");
    }
}
