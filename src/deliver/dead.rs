//! Addresses that did not answer, and for how long each is left alone: half a minute at first, twice
//! as long after every further failure, an hour at most, and never longer than the provider's retry
//! schedule would wait.
//!
//! An address that answers, and then turns us away before it takes anything (whatever fails from the greeting
//! to AUTH, or a new connection that is ended with 421 or without a word) is left alone too, or it would be
//! called, and logged in to, as fast as it says no: half a second at first, a minute at most. One that serves
//! other connections of ours meanwhile is not: there it may be one connection too many, which is for the lane
//! to learn.
//!
//! What fails at STARTTLS or AUTH is about what one provider demands of TLS, the name that the certificate must
//! have, or the account: it keeps nobody else from the same address.
//!
//! What it ends at MAIL or later keeps away mail like that which it was about, and everybody's only when mail that
//! has nothing in common with it is ended in the same way, see [`Refusals`].
//!
//! Whoever comes while somebody probes an address waits for the answer for a moment ([`PATIENCE`] from the
//! beginning of the probe, however many come): when the address is alive again, what waits behind the
//! probe leaves with it, and does not come back a minute later.
//!
//! Bounded: so many addresses are remembered; one that nobody tries is forgotten.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use super::demand::Demand;
use super::fact::{Event, Stage};
use crate::clock::doubled;
use crate::config::Provider;
use crate::mail::{FeatureKeys, Features, Refusals};
use crate::route::Host;

/// How long an address is left alone: at first, and at most.
const FIRST: Duration = Duration::from_secs(30);
const LONGEST: Duration = Duration::from_secs(3600);
/// When a dead address that nobody tried is forgotten.
const FORGET: Duration = Duration::from_secs(2 * 3600);
/// How long the one that probes a dead address keeps the others away.
const PROBE: Duration = Duration::from_secs(60);
/// How long after the beginning of a probe others wait for what it finds out. An address that is alive
/// answers within two round trips, or after the first packet was sent again (a second later); one that
/// is dead holds up others, who may go elsewhere, for no longer than this.
const PATIENCE: Duration = Duration::from_millis(1500);
/// A refusal by an address that has answered so lately does not tell that it is dead.
const ALIVE: Duration = Duration::from_secs(60);
/// How long an address is left alone that ended a new connection at MAIL: at first, and at most.
const EARLY_FIRST: Duration = Duration::from_millis(500);
const EARLY_LONGEST: Duration = Duration::from_secs(60);
/// Addresses remembered.
const MAX: u64 = 10_000;

/// From where, if limits hold for each source, to where: an address that does not answer the one
/// may answer the other.
pub(super) type Way = (Option<IpAddr>, SocketAddr);

/// A way as one provider goes it to a host of one name.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Door {
    pub way: Way,
    /// Provider and host name, and whether a policy demands something of TLS.
    ours: Arc<str>,
}

impl Door {
    pub fn new(provider: &Provider, host: &Host, way: Way) -> Door {
        let mark = Demand::new(provider, &host.policy).mark();
        Door { way, ours: format!("{} {}{mark}", provider.name, host.name).into() }
    }

    /// Who is kept away by what fails at a stage.
    fn whose(&self, stage: Stage) -> Whose {
        match stage {
            Stage::StartTls | Stage::Auth => self.own(),
            _ => (self.way, None),
        }
    }

    fn own(&self) -> Whose {
        (self.way, Some(self.ours.clone()))
    }

    /// Everybody who goes that way, and those of the door alone.
    fn both(&self) -> [Whose; 2] {
        [(self.way, None), self.own()]
    }
}

/// Everybody who goes that way; with a text only those of that [`Door`].
type Whose = (Way, Option<Arc<str>>);

/// What is known of an address that did not answer.
#[derive(Clone)]
pub(super) struct BackOff {
    /// Failures in a row.
    times: u32,
    /// Left alone until then.
    pub until: Instant,
    /// Somebody is probing it, since then.
    probing: Option<Instant>,
    /// Where in the dialog.
    pub stage: Stage,
    /// What happened.
    pub why: Event,
    /// What mail it was about, if it came at MAIL or later.
    ends: Refusals,
}

impl BackOff {
    /// For how much longer it is left alone.
    pub fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// What it means for such mail, see [`Refusals`].
    fn seen_by(self, mail: FeatureKeys) -> BackOff {
        if self.ends.spares(mail) {
            let (until, probing) = match self.ends.others {
                Some(began) => (began + PATIENCE, Some(began)),
                None => (Instant::now(), None),
            };
            return BackOff { until, probing, ..self };
        }
        let turn = if self.ends.goes_last(mail) { PATIENCE } else { Duration::ZERO };
        BackOff { until: self.until + turn, ..self }
    }

    /// The mail alone that it keeps away, see [`Refusals::about`].
    pub fn about(&self) -> Option<&Arc<str>> {
        self.ends.about()
    }

    /// What happened, and where unless there was no connection.
    pub fn said(&self) -> String {
        match self.stage {
            Stage::Connect => self.why.to_string(),
            stage => format!("{stage}: {}", self.why),
        }
    }

    /// Until when it is worth to wait for what a probe finds out, if there is one.
    pub fn patience(&self) -> Option<Instant> {
        self.probing.map(|began| began + PATIENCE).filter(|until| *until > Instant::now())
    }
}

/// Where a connection tells how it ended.
pub(super) struct EarlyEnd {
    pub known: Arc<DeadAddresses>,
    pub door: Door,
    /// Never longer than the schedule of retries would wait.
    pub longest: Duration,
}

/// Counts a connection that serves.
pub(super) struct Serving {
    known: Arc<DeadAddresses>,
    door: Door,
}

impl Drop for Serving {
    fn drop(&mut self) {
        let mut serving = self.known.serving.lock();
        for whose in self.door.both() {
            if let Some(n) = serving.get_mut(&whose) {
                *n -= 1;
                if *n == 0 {
                    serving.remove(&whose);
                }
            }
        }
    }
}

/// The memory of the whole program.
pub(super) struct DeadAddresses {
    dead: Cache<Way, BackOff>,
    alive: Cache<Way, Instant>,
    /// They turn connections away.
    early: Cache<Whose, BackOff>,
    /// Connections open on which something was taken, or refused for a reason.
    serving: Mutex<HashMap<Whose, u32>>,
    /// Something became known.
    news: Notify,
}

impl DeadAddresses {
    /// All are thought to be alive.
    pub fn new() -> DeadAddresses {
        DeadAddresses {
            dead: Cache::builder().max_capacity(MAX).time_to_live(FORGET).build(),
            alive: Cache::builder().max_capacity(MAX).time_to_live(ALIVE).build(),
            early: Cache::builder().max_capacity(MAX).time_to_live(FORGET).build(),
            serving: Mutex::default(),
            news: Notify::new(),
        }
    }

    /// Ends when something has become known of any address since this was called.
    pub fn news(&self) -> Notified<'_> {
        self.news.notified()
    }

    /// What is known against it for such mail.
    pub fn get(&self, door: &Door, mail: FeatureKeys) -> Option<BackOff> {
        let early = || {
            let known = door.both().into_iter().filter_map(|whose| self.early.get(&whose));
            known.map(|known| known.seen_by(mail)).max_by_key(|known| known.until)
        };
        self.dead.get(&door.way).or_else(early)
    }

    /// Whether anything is.
    pub fn contains(&self, door: &Door) -> bool {
        self.dead.contains_key(&door.way) || door.both().iter().any(|whose| self.early.contains_key(whose))
    }

    /// Forgets everything that is known against any address.
    pub fn forget(&self) {
        self.dead.invalidate_all();
        self.early.invalidate_all();
        self.news.notify_waiters();
    }

    /// Somebody tries it now with such mail; others are kept away meanwhile.
    pub fn probe(&self, door: &Door, mail: FeatureKeys, known: BackOff) {
        let now = Instant::now();
        if self.dead.contains_key(&door.way) {
            self.dead.insert(door.way, BackOff { until: now + PROBE, probing: Some(now), ..known });
            return;
        }
        for whose in door.both() {
            if let Some(mut known) = self.early.get(&whose) {
                if known.ends.spares(mail) {
                    known.ends.others = Some(now);
                    self.early.insert(whose, known);
                    continue;
                }
                // It is known soon, or never, so the others need not be kept away for longer than before.
                let until = now + early_wait(known.times);
                self.early.insert(whose, BackOff { until, probing: Some(now), ..known });
            }
        }
    }

    /// A connection to it serves, as long as the guard lives.
    pub fn serves(self: &Arc<DeadAddresses>, door: &Door) -> Serving {
        let mut serving = self.serving.lock();
        door.both().into_iter().for_each(|whose| *serving.entry(whose).or_default() += 1);
        Serving { known: self.clone(), door: door.clone() }
    }

    /// It ended a connection before it took anything, see [`DeadAddresses::ended_early`].
    pub fn turned_away(
        &self,
        door: &Door,
        mail: Option<&Features<'_>>,
        (stage, why): (Stage, &Event),
        longest: Duration,
    ) {
        let whose = door.whose(stage);
        let serves = self.serving.lock().contains_key(&whose);
        if !serves {
            self.ended_early(whose, mail, (stage, why), longest);
        }
    }

    /// Nobody is to ask at this door for so long, for a reason that is not the host's.
    pub fn rest(&self, door: &Door, (stage, why): (Stage, &Event), left: Duration) {
        let (until, ends) = (Instant::now() + left, Refusals::first(None));
        self.early.insert(door.own(), BackOff { times: 1, until, probing: None, stage, why: why.clone(), ends });
        self.news.notify_waiters();
    }

    /// It has taken something, or at least said why not.
    pub fn listened(&self, door: &Door) {
        let known = door.both().map(|whose| self.early.remove(&whose));
        if known.iter().any(Option::is_some) {
            self.news.notify_waiters();
        }
    }

    /// It ended a new connection before it took anything: counted once for all that were open then. `mail`: what it
    /// had been asked to take.
    fn ended_early(&self, whose: Whose, mail: Option<&Features<'_>>, (stage, why): (Stage, &Event), longest: Duration) {
        let mail = mail.map(|mail| if stage > Stage::Mail { *mail } else { mail.at_mail() });
        let keys = mail.as_ref().map(Features::keys).unwrap_or_default();
        let mail = mail.as_ref();
        let (times, ends) = match self.early.get(&whose) {
            None => (1, Refusals::first(mail)),
            Some(known) if !known.ends.spares(keys) && known.probing.is_none() && !known.left().is_zero() => {
                return;
            }
            Some(known) => known.ends.again(known.times, mail),
        };
        let until = Instant::now() + early_wait(times).min(longest);
        self.early.insert(whose, BackOff { times, until, probing: None, stage, why: why.clone(), ends });
        self.news.notify_waiters();
    }

    /// It answered.
    pub fn answered(&self, way: Way) {
        let news = self.dead.remove(&way).is_some();
        self.alive.insert(way, Instant::now());
        if news {
            self.news.notify_waiters();
        }
    }

    /// Whether it has answered lately; once only, so that a second refusal counts.
    pub fn take_alive(&self, way: Way) -> bool {
        self.alive.remove(&way).is_some_and(|at| at.elapsed() < ALIVE)
    }

    /// Counts a failure, once for all that were under way at the same time.
    pub fn failed(&self, way: Way, why: &Event, provider: &Provider) {
        let before = self.dead.get(&way).filter(|dead| dead.until.elapsed() < FORGET);
        if before.as_ref().is_some_and(|dead| dead.probing.is_none() && !dead.left().is_zero()) {
            return;
        }
        let times = before.map_or(0, |dead| dead.times);
        let (first, longest) = (FIRST.min(provider.retry.first), LONGEST.min(provider.retry.max));
        let wait = doubled(first, times, longest);
        let (until, why) = (Instant::now() + wait, why.clone());
        let times = times.saturating_add(1);
        self.dead.insert(
            way,
            BackOff { times, until, probing: None, stage: Stage::Connect, why, ends: Refusals::default() },
        );
        self.news.notify_waiters();
    }
}

/// How long an address is left alone that ended so many connections early in a row.
fn early_wait(times: u32) -> Duration {
    doubled(EARLY_FIRST, times.saturating_sub(1), EARLY_LONGEST)
}

#[cfg(test)]
#[path = "dead_worlds.rs"]
mod worlds;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::TlsPolicy;

    const HOUR: Duration = Duration::from_secs(3600);
    /// Some mail.
    const ANY: FeatureKeys = FeatureKeys::NONE;

    fn door(provider: &str, host: &str) -> Door {
        let host = Host { name: host.into(), preference: 0, addresses: Vec::new(), policy: TlsPolicy::None };
        Door::new(&crate::config::sample::provider(provider), &host, (None, SocketAddr::from(([192, 0, 2, 1], 25))))
    }

    #[tokio::test(start_paused = true)]
    async fn others_wait_for_a_probe_but_for_a_moment_only() {
        let (known, door) = (DeadAddresses::new(), door("p", "mx.example"));
        let way = door.way;
        let provider = crate::config::sample::provider("p");
        known.failed(way, &Event::Closed, &provider);
        let back_off = known.get(&door, ANY).expect("known");
        assert!(back_off.patience().is_none(), "nobody probes it");
        tokio::time::advance(back_off.left()).await;
        known.probe(&door, ANY, back_off);
        let until = known.get(&door, ANY).and_then(|back_off| back_off.patience()).expect("a probe");
        assert_eq!(until - Instant::now(), PATIENCE);
        let news = known.news();
        known.answered(way);
        tokio::time::timeout(Duration::ZERO, news).await.expect("who waits is told");
        assert!(known.get(&door, ANY).is_none());

        known.failed(way, &Event::Closed, &provider);
        known.failed(way, &Event::Closed, &provider);
        let back_off = known.get(&door, ANY).expect("known");
        tokio::time::advance(back_off.left()).await;
        known.probe(&door, ANY, back_off);
        tokio::time::advance(PATIENCE).await;
        assert!(
            known.get(&door, ANY).is_some_and(|back_off| back_off.patience().is_none()),
            "it does not hold others up"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_ends_connections_at_mail_is_left_alone_for_longer_and_longer() {
        let (known, door) = (DeadAddresses::new(), door("p", "mx.example"));
        let way = door.way;
        assert!(known.get(&door, ANY).is_none());
        let mut waits = Vec::new();
        for _ in 0..9 {
            // All that were open at the same time.
            for _ in 0..5 {
                known.ended_early((way, None), None, (Stage::Mail, &Event::Closed), HOUR);
            }
            let back_off = known.get(&door, ANY).expect("known");
            waits.push(back_off.left().as_millis());
            tokio::time::advance(back_off.left()).await;
            // It takes connections, but that is not what is wrong with it.
            known.answered(way);
            let probe = known.get(&door, ANY).expect("known");
            assert!(probe.left().is_zero());
            known.probe(&door, ANY, probe);
            assert!(!known.get(&door, ANY).expect("known").left().is_zero(), "one at a time");
        }
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]);
        known.listened(&door);
        assert!(known.get(&door, ANY).is_none() && !known.contains(&door));
        // While others are served it may be one connection too many.
        let known = Arc::new(known);
        let others = [known.serves(&door), known.serves(&door)];
        known.turned_away(&door, None, (Stage::Greeting, &Event::Closed), HOUR);
        assert!(known.get(&door, ANY).is_none());
        drop(others);
        assert!(known.serving.lock().is_empty());
        known.turned_away(&door, None, (Stage::Greeting, &Event::Closed), HOUR);
        assert!(known.get(&door, ANY).is_some());
        known.forget();
        known.ended_early((way, None), None, (Stage::Mail, &Event::Closed), Duration::from_millis(100));
        assert_eq!(known.get(&door, ANY).expect("known").left(), Duration::from_millis(100), "no longer than a retry");
    }

    /// The certificate has to have the host's name, the account is the provider's, and TLS is what the
    /// provider demands: none of it keeps others from the same address, and it is counted among its own.
    #[tokio::test(start_paused = true)]
    async fn what_fails_behind_ehlo_is_about_one_provider_and_one_name() {
        let known = Arc::new(DeadAddresses::new());
        let (ours, others) = (door("p", "mx.example"), [door("q", "mx.example"), door("p", "mx2.example")]);
        let serving = others.each_ref().map(|other| known.serves(other));
        for stage in [Stage::StartTls, Stage::Auth] {
            known.turned_away(&ours, None, (stage, &Event::Closed), HOUR);
            assert_eq!(known.get(&ours, ANY).expect("left alone").said(), format!("{stage}: {}", Event::Closed));
            assert!(others.iter().all(|other| known.get(other, ANY).is_none() && !known.contains(other)));
            known.listened(&ours);
            assert!(!known.contains(&ours));
        }
        // The greeting is everybody's.
        known.turned_away(&ours, None, (Stage::Greeting, &Event::Closed), HOUR);
        assert!(known.get(&ours, ANY).is_none(), "the address serves others");
        drop(serving);
        known.turned_away(&ours, None, (Stage::Ehlo, &Event::Closed), HOUR);
        assert!(others.iter().all(|other| known.contains(other)));
    }

    /// The host takes everybody else's mail: one of them is tried at once, and is all that others wait for.
    #[tokio::test(start_paused = true)]
    async fn what_ends_about_one_sender_keeps_only_his_mail_until_it_ends_about_another() {
        let (known, door) = (DeadAddresses::new(), door("p", "mx.example"));
        let [bad, good, other] =
            ["bad@s.example", "good@g.example", "other@h.example"].map(|sender| Features::from(sender).keys());
        let end = |sender: Option<&str>| {
            let mail = sender.map(Features::from);
            known.turned_away(&door, mail.as_ref(), (Stage::Mail, &Event::Closed), HOUR);
        };
        let left = |mail| known.get(&door, mail).expect("known").left().as_millis();
        // His own mail waits longer and longer, others' does not.
        let mut waits = Vec::new();
        for _ in 0..8 {
            end(Some("bad@s.example"));
            end(Some("bad@s.example"));
            waits.push(left(bad));
            assert_eq!((left(good), left(other)), (0, 0));
            assert_eq!(known.get(&door, good).expect("known").about().map(|about| &**about), Some("of bad@s.example"));
            tokio::time::advance(known.get(&door, bad).expect("known").left()).await;
            known.probe(&door, bad, known.get(&door, bad).expect("known"));
        }
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000]);
        // One at a time; his wait is his own.
        let before = left(bad);
        known.probe(&door, good, known.get(&door, good).expect("known"));
        assert!(known.get(&door, other).expect("known").patience().is_some());
        assert_eq!((left(other), left(bad)), (PATIENCE.as_millis(), before));
        // The second sender: all wait, from the beginning, and who was not refused yet is asked first.
        end(Some("good@g.example"));
        assert!(known.get(&door, other).expect("known").about().is_none());
        assert_eq!(left(other), 500);
        let later = (500 + PATIENCE.as_millis(), 500 + PATIENCE.as_millis());
        assert_eq!((left(bad), left(good)), later);
        known.listened(&door);
        assert!(!known.contains(&door));
        // Before MAIL it is about nobody's mail.
        end(None);
        assert_eq!((left(bad), left(other)), (500, 500));
    }
}
