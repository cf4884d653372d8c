//! What operators can do to the relay that runs: [`Operator`], and [`Front`], which stays while one
//! configuration takes the place of another.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::changes;
use super::gate::{Gate, PATIENCE};
use crate::admin::bans::BanStatus;
use crate::admin::explain::{Facts, LaneExplained, OwnPace, explain, is_of_another, rewritten};
use crate::admin::{
    Controls, Due, Explanation, FeedbackStatus, Forgotten, HoldStatus, LaneStatus, QuotaStatus, Refusal, Resumed,
    Status, Withdrawn,
};
use crate::clock::{Timestamp, When};
use crate::config::Provider;
use crate::config::report::{OwnValues, Setting};
use crate::listener::arrivals::Lock;
use crate::listener::{Intake, Place};
use crate::mail::{
    Address, BodyTraits, Envelope, Features, Incoming, LaneName, Message, Origin, QueueId, RecipientKey, State,
    sender_key,
};
use crate::pipeline::{COUNTED, Relay};
use crate::queue::{Counts, Filter, Operation, Queue, QueueError, Row, Storage, opening};
use crate::schedule::lane::By;
use crate::schedule::{Job, Lane};

/// Lanes read from the queue at once.
const LANES_AT_ONCE: usize = 100;
/// Domains with mail that are shown; of the others there may be very many.
const DOMAINS_SHOWN: usize = 200;

/// What is looked through for the mail of one sender: so many pages of so many rows. More are not counted.
const PAGES_COUNTED: usize = 50;
const ROWS_AT_ONCE: usize = 1000;

/// The highest priority there is.
const MOST_URGENT: i8 = 9;

/// The full path of a file: whoever reads it may be in another directory.
fn whole(file: &Path) -> String {
    std::path::absolute(file).unwrap_or_else(|_| file.to_owned()).display().to_string()
}

/// Whom a reload answers: what it did, or why it did nothing.
pub(super) type Reloaded = oneshot::Sender<Result<String, Refusal>>;

/// The handles of `relay` for operators.
pub fn controls(
    relay: Arc<Relay>,
    settings: Vec<Setting>,
    file: Option<PathBuf>,
    listening: Vec<Place>,
) -> Arc<dyn Controls> {
    let started = relay.clock.now();
    let settings = settings.into();
    Arc::new(Operator { relay, settings, started, file, read: None, loaded: started, reloads: 0, listening })
}

/// What operators can do to the running relay.
pub(super) struct Operator {
    pub(super) relay: Arc<Relay>,
    pub(super) settings: Arc<[Setting]>,
    pub(super) started: Timestamp,
    pub(super) file: Option<PathBuf>,
    /// Tells the text that was read of the file from what is in it later.
    pub(super) read: Option<u64>,
    /// Since when this configuration is in force.
    pub(super) loaded: Timestamp,
    pub(super) reloads: u64,
    pub(super) listening: Vec<Place>,
}

#[async_trait]
impl Controls for Operator {
    fn locks(&self) -> Vec<Lock> {
        Intake::arrivals(&*self.relay).map(|arrivals| arrivals.locks()).unwrap_or_default()
    }

    async fn unlock(&self, user: &str) -> Result<bool, QueueError> {
        let Some(arrivals) = Intake::arrivals(&*self.relay) else { return Ok(false) };
        let was = arrivals.unlock(user, &*self.relay.queue).await?;
        if was {
            tracing::info!(user, "unlocked by an operator");
        }
        Ok(was)
    }

    fn bans(&self) -> Vec<BanStatus> {
        let now = self.relay.clock.now();
        let slowed = Intake::logins(&*self.relay).map(|logins| logins.slowed()).unwrap_or_default();
        slowed.iter().map(|slowed| BanStatus::of(slowed, now)).collect()
    }

    fn unban(&self, address: Option<IpAddr>) -> usize {
        let forgiven = Intake::logins(&*self.relay).map_or(0, |logins| logins.forgive(address));
        tracing::info!(
            address = address.map(tracing::field::display),
            forgiven,
            "failed logins forgotten by an operator"
        );
        forgiven
    }

    fn queue(&self) -> Arc<dyn Queue> {
        self.relay.queue.clone()
    }

    fn withdraw(&self, keys: &[RecipientKey]) -> Withdrawn {
        self.withdrawn(self.relay.scheduler.withdraw(keys))
    }

    fn recall(&self, op: Operation, keys: &[RecipientKey]) -> Withdrawn {
        self.withdrawn(self.relay.take_from_workers(op, keys))
    }

    fn wake(&self, lanes: &[LaneName], due: Timestamp) {
        self.relay.forget_failures();
        for name in lanes {
            self.relay.scheduler.note(name, due);
        }
    }

    fn wake_all(&self, due: Timestamp) {
        self.relay.forget_failures();
        self.relay.scheduler.note_all(due);
    }

    async fn lanes(&self) -> Vec<LaneStatus> {
        let relay = &self.relay;
        // Lanes that mail only passes through are of interest while there is some.
        let used = |lane: &Arc<Lane>| lane.in_memory() > 0 || relay.router.leads_to(&lane.name);
        let mut names: BTreeSet<LaneName> =
            relay.scheduler.lanes().iter().filter(|lane| used(lane)).map(|lane| lane.name.clone()).collect();
        names.extend(relay.lanes_without_hosts());
        names.extend(self.with_mail().await);
        // What is used of a quota is of interest also while nothing waits for it.
        let metered = |provider: &&Arc<Provider>| !provider.quota.is_empty() || provider.warmup.is_some();
        for provider in relay.config.providers.iter().filter(metered) {
            names.extend(relay.router.lanes_of(&provider.lane()));
        }
        let mut all = Vec::new();
        for name in names {
            let lane = relay.scheduler.known(&name);
            let has_quota = |provider: &Arc<Provider>| !provider.quota.is_empty() || provider.warmup.is_some();
            let lane = match lane {
                None if has_quota(&relay.router.provider_of_lane(&name)) => Some(relay.scheduler.lane(&name)),
                lane => lane,
            };
            let mut status = match lane {
                Some(lane) => {
                    lane.load_usage().await;
                    self.lane_status(&lane)
                }
                None => self.absent_status(&name),
            };
            status.former = relay.router.is_former(&name);
            status.stored =
                relay.queue.waiting(&name, i8::MIN, Timestamp(i64::MAX), COUNTED).await.unwrap_or_default() as u64;
            all.push(status);
        }
        all
    }

    fn kept_in(&self, recipient: &str) -> Option<String> {
        let sandbox = self.relay.config.sandbox.as_ref()?;
        let address = Address::parse(recipient).ok()?;
        sandbox.holds(&address).map(|why| why.to_string())
    }

    fn stopped(&self, lanes: &[LaneName]) -> Vec<(String, String)> {
        let now = self.relay.clock.now();
        let told = |lane: Arc<Lane>| {
            let holds = self.relay.holds(&lane);
            let hold = holds.stop()?;
            // A host that is asked with the next message holds nothing back.
            if matches!(hold.by, By::Host { .. }) && hold.until.is_some_and(|until| until <= now) {
                return None;
            }
            let mut why = hold.told(now).to_string();
            if hold.ends_by_resuming() {
                why.push_str(&format!(" (`mailweir provider resume {}` ends that)", lane.name));
            }
            Some((lane.name.to_string(), why))
        };
        lanes.iter().filter_map(|name| told(self.relay.scheduler.known(name)?)).collect()
    }

    fn waits(&self, due: &[Due]) -> HashMap<RecipientKey, String> {
        let now = self.relay.clock.now();
        let mut by_lane: BTreeMap<&LaneName, HashMap<RecipientKey, State>> = BTreeMap::new();
        for due in due {
            by_lane.entry(&due.lane).or_default().insert(due.key, due.state);
        }
        let (mut told, mut stopped) = (HashMap::new(), HashSet::new());
        for (name, of_lane) in by_lane {
            let Some(lane) = self.relay.scheduler.known(name) else { continue };
            let waits = lane.waits(&of_lane, &self.relay.holds(&lane), now);
            stopped.extend(waits.iter().filter(|(_, hold)| hold.stops()).map(|(key, _)| *key));
            told.extend(waits.into_iter().map(|(key, hold)| (key, hold.told(now).to_string())));
        }
        // Connections that wait for a policy are busy, or being opened: that says less.
        for due in due.iter().filter(|due| !stopped.contains(&due.key)) {
            if let Some(policy) = self.relay.router.awaited_policy(&due.domain, now) {
                told.insert(due.key, policy);
            }
        }
        told
    }

    async fn resume(&self, lane_or_provider: &str) -> Result<Option<Vec<Resumed>>, QueueError> {
        let resumed = self.relay.resume(&LaneName::from(lane_or_provider)).await?;
        Ok((!resumed.is_empty()).then_some(resumed))
    }

    async fn forget(&self, lane_or_provider: &str) -> Result<Option<Vec<Forgotten>>, QueueError> {
        let forgotten = self.relay.forget_learned(&LaneName::from(lane_or_provider)).await?;
        Ok((!forgotten.is_empty()).then_some(forgotten))
    }

    async fn pause(&self, lane_or_provider: &str, paused: bool) -> Result<bool, QueueError> {
        self.relay.pause(&LaneName::from(lane_or_provider), paused).await
    }

    fn status(&self) -> Status {
        let (relay, stats) = (&self.relay, &self.relay.stats);
        let aside = opening::aside(&relay.config.queue);
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            hostname: relay.config.hostname.clone(),
            config: self.file.as_deref().map(whole).unwrap_or_default(),
            started: self.started.to_string(),
            loaded: self.loaded.to_string(),
            reloads: self.reloads,
            refused: String::new(),
            sandbox: relay.config.sandbox.as_ref().map(ToString::to_string).unwrap_or_default(),
            tls_reports: relay.tls_reports_told(),
            stopping: false,
            uptime: relay.clock.now().since(self.started).as_secs(),
            listeners: self.listening.iter().map(ToString::to_string).collect(),
            accepted: stats.accepted.get(),
            delivered: stats.delivered.get(),
            deferred: stats.deferred.get(),
            bounced: stats.bounced.get() + stats.expired.get(),
            queue: Counts::default(),
            storage: Storage::default(),
            set_aside: aside.bytes,
            min_free: aside.wanted,
        }
    }

    fn settings(&self) -> Option<String> {
        Some(OwnValues(&self.settings).to_string())
    }

    async fn file_differs(&self) -> Option<String> {
        let (file, mark) = (self.file.clone()?, self.read?);
        let (settings, config) = (self.settings.clone(), self.relay.config.clone());
        let differs = move || changes::file_differs(&file, mark, &settings, &config);
        tokio::task::spawn_blocking(differs).await.ok().flatten()
    }

    async fn explain(&self, from: Incoming<'_>, recipient: &Address, priority: i8) -> Result<Explanation, String> {
        let relay = &self.relay;
        let rewritten = rewritten(&relay.config, &from);
        let from = from.sent_as(rewritten.as_ref().map(|it| &it.is));
        let told = explain(&relay.config, &self.settings, &relay.router, from, recipient, priority).await;
        let sender_was = rewritten.as_ref().map(|it| it.was.to_string()).unwrap_or_default();
        let tls_report = match told.route.smart_host {
            true => String::new(),
            false => relay.tls_report_of(&told.route.destination),
        };
        let mut told = Explanation { running: true, sender_was, tls_report, ..told };
        if !told.route.permanent {
            let name = LaneName::from(told.route.lane.as_str());
            let provider = relay.router.provider_of_lane(&name);
            let time = relay.clock.now();
            let stored = |priority| relay.queue.waiting(&name, priority, time, COUNTED);
            let (priority, failed) = (told.priority, |error: QueueError| error.to_string());
            let mut facts = Facts {
                now: time,
                ahead: (0, stored(priority).await.map_err(failed)?),
                ahead_at_most: stored(MOST_URGENT).await.map_err(failed)?,
                ..Facts::default()
            };
            // Asking makes no lane: the store knows what replies taught about one that is not here.
            let status = match relay.scheduler.known(&name) {
                Some(lane) => {
                    lane.load_usage().await;
                    facts.holds = relay.holds(&lane);
                    facts.usage = lane.usage();
                    facts.limits = lane.limits_on(&message_of(from, time));
                    facts.behind_limits = lane.behind_limits(&message_of(from, time));
                    facts.own = self.own_pace(&lane, from, priority).await.map_err(failed)?;
                    facts.recent = lane.snapshot().recent;
                    facts.ahead.0 = lane.ahead_of(priority);
                    let sender = from.sender.map_or("", Address::as_str);
                    facts.turns = lane.turns_before(priority, sender);
                    facts.kept = lane.keeps(&Features::of(sender, [recipient.as_str()], 0), time);
                    facts.ahead_at_most += lane.ahead_of(MOST_URGENT);
                    self.lane_status(&lane)
                }
                None => {
                    let stored = FeedbackStatus::stored(&*relay.queue, name.as_str(), &provider, time).await;
                    facts.holds = relay.holds_of_absent(&name);
                    LaneStatus { feedback: stored.map_err(failed)?, ..self.absent_status(&name) }
                }
            };
            let all = stored(i8::MIN).await.map_err(failed)?;
            let status = LaneStatus { stored: all as u64, ..status };
            told.feedback = status.feedback.clone();
            let sender = from.sender.map_or("", Address::as_str);
            told.feedback.because.retain(|line| !is_of_another(line, sender));
            let state = LaneExplained::new(status, &facts, &provider);
            told.lane = Some(state);
        }
        Ok(told)
    }
}

impl Operator {
    fn withdrawn(&self, taken: Vec<(Arc<Lane>, Job)>) -> Withdrawn {
        let scheduler = self.relay.scheduler.clone();
        let of = |job: &Job| job.recipients.iter().map(|held| job.key(held.index)).collect::<Vec<_>>();
        let keys = taken.iter().flat_map(|(_, job)| of(job)).collect();
        // To the lanes they come from, whatever is in force by then.
        Withdrawn::new(keys, move || scheduler.put_back(taken))
    }

    /// Lanes that have something in the queue: of providers all, of domains the first few.
    async fn with_mail(&self) -> Vec<LaneName> {
        let (mut names, mut after) = (Vec::new(), None);
        // The order is that of names, in which those of domains are together.
        while let Ok(page) = self.relay.queue.lanes(after.clone(), LANES_AT_ONCE).await {
            let Some(last) = page.last() else { break };
            after = Some(last.lane.clone());
            names.extend(page.into_iter().map(|due| due.lane));
            if names.iter().filter(|name| name.as_domain().is_some()).count() >= DOMAINS_SHOWN {
                after = after.max(Some(LaneName::after_domains()));
            }
        }
        names
    }

    /// The pace of this sender alone, and what of its mail is as urgent as `priority` or more.
    async fn own_pace(&self, lane: &Lane, from: Incoming<'_>, priority: i8) -> Result<Option<OwnPace>, QueueError> {
        let sender = from.sender.map_or("", Address::as_str);
        let Some((per_second, in_memory)) = lane.pace_of(sender, self.relay.clock.now()) else { return Ok(None) };
        // The turns of senders go by more than the address, so the rest is looked at below.
        let domain = from.sender.map_or("<>".to_owned(), |sender| format!("*@{}", sender.domain()));
        let filter = Filter { provider: Some(lane.name.to_string()), sender: Some(domain), ..Filter::default() };
        let mut own = OwnPace { per_second, ahead: in_memory, more: false };
        let (mut after, key) = (None, sender_key(sender));
        for _ in 0..PAGES_COUNTED {
            let page = self.relay.queue.inspect(&filter, after, ROWS_AT_ONCE).await?;
            let waits = |(_, state, row): &&(RecipientKey, State, Row)| {
                matches!(state, State::Queued | State::Uncertain)
                    && row.priority >= priority
                    && row.lane == lane.name.as_str()
                    && sender_key(&row.sender) == key
            };
            own.ahead += page.rows.iter().filter(waits).count();
            after = page.next;
            if after.is_none() {
                return Ok(Some(own));
            }
        }
        own.more = true;
        Ok(Some(own))
    }

    fn lane_status(&self, lane: &Lane) -> LaneStatus {
        let time = self.relay.clock.now();
        let now = lane.snapshot();
        let holds = self.relay.holds(lane);
        let stop = holds.stop().filter(|_| !now.paused);
        LaneStatus {
            waiting: now.ready as u64,
            in_flight: now.in_flight as u64,
            connections: u64::from(now.connections),
            // Who waits for a descriptor has not begun.
            opening: u64::from(now.opening)
                .saturating_sub(self.relay.connector.descriptors().waiting_of(&lane.name) as u64),
            paused: now.paused,
            stopped: stop.map(|hold| hold.told(time).to_string()).unwrap_or_default(),
            holds: HoldStatus::all(&holds, time),
            quotas: lane.usage().iter().map(|usage| QuotaStatus::of(usage, time)).collect(),
            announced: now.announced.map(|said| format!("{} ({})", said.limits, said.host)).unwrap_or_default(),
            feedback: lane.learned(|adapt| FeedbackStatus::of(adapt, &lane.provider, time)),
            last_error: now
                .last_error
                .map(|(at, what)| format!("{}: {what}", When { at, now: time }))
                .unwrap_or_default(),
            ..LaneStatus::idle(&lane.name, &lane.provider)
        }
    }

    /// A lane that is not in memory: of a domain that waits for a retry.
    fn absent_status(&self, name: &LaneName) -> LaneStatus {
        let time = self.relay.clock.now();
        let provider = self.relay.router.provider_of_lane(name);
        let holds = self.relay.holds_of_absent(name);
        LaneStatus {
            stopped: holds.stop().map(|hold| hold.told(time).to_string()).unwrap_or_default(),
            holds: HoldStatus::all(&holds, time),
            ..LaneStatus::idle(name, &provider)
        }
    }
}

/// What limits see of a message that somebody asks about.
fn message_of(from: Incoming<'_>, now: Timestamp) -> Message {
    // Who logs in is a client, from wherever: no network of a `[[limit]]` has that address.
    let unknown = || (!from.user.is_empty()).then_some(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let origin = match from.client.or_else(unknown) {
        Some(ip) => Origin::Client { ip, helo: "".into(), listener: from.listener.into(), user: from.user.into() },
        // Nobody knows where it would come from.
        None => Origin::Local,
    };
    Message {
        id: QueueId(0),
        received: now,
        envelope: Envelope { reverse_path: from.sender.cloned(), ..Envelope::default() },
        origin,
        size: 0,
        traits: BodyTraits::default(),
    }
}

/// The controls of whatever configuration is in force.
pub(super) struct Front {
    operator: ArcSwap<Operator>,
    reload: mpsc::Sender<Reloaded>,
    /// The last refusal of another configuration since this one is in force, with its time.
    refused: Mutex<String>,
    /// The relay is ending.
    stopping: AtomicBool,
    gate: Gate,
}

impl Front {
    /// `reload` takes the requests to read the configuration again.
    pub(super) fn new(operator: Operator, reload: mpsc::Sender<Reloaded>) -> Front {
        Front {
            operator: ArcSwap::from_pointee(operator),
            reload,
            refused: Mutex::default(),
            stopping: AtomicBool::new(false),
            gate: Gate::default(),
        }
    }

    /// The queue is about to close: commands wait for [`Front::put`].
    pub(super) async fn close(&self) {
        self.gate.close().await;
    }

    /// From now on, those of `operator`.
    pub(super) fn put(&self, operator: Operator) {
        self.operator.store(Arc::new(operator));
        self.refused.lock().clear();
        self.gate.open();
    }

    /// From now on the relay is ending.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Another configuration was not taken.
    pub(super) fn refused(&self, now: Timestamp, why: &str) {
        *self.refused.lock() = format!("{now}: {why}");
    }
}

#[async_trait]
impl Controls for Front {
    async fn enter(&self) -> Result<Box<dyn Send>, String> {
        let inside = self.gate.enter().await.ok_or_else(|| {
            format!(
                "another configuration is put in force, which takes longer than {} s: try again",
                PATIENCE.as_secs()
            )
        });
        Ok(Box::new(inside?))
    }

    fn queue(&self) -> Arc<dyn Queue> {
        self.operator.load().queue()
    }

    fn withdraw(&self, keys: &[RecipientKey]) -> Withdrawn {
        self.operator.load().withdraw(keys)
    }

    fn recall(&self, op: Operation, keys: &[RecipientKey]) -> Withdrawn {
        self.operator.load().recall(op, keys)
    }

    fn wake(&self, lanes: &[LaneName], due: Timestamp) {
        self.operator.load().wake(lanes, due);
    }

    fn wake_all(&self, due: Timestamp) {
        self.operator.load().wake_all(due);
    }

    async fn lanes(&self) -> Vec<LaneStatus> {
        self.operator.load_full().lanes().await
    }

    fn kept_in(&self, recipient: &str) -> Option<String> {
        self.operator.load().kept_in(recipient)
    }

    fn stopped(&self, lanes: &[LaneName]) -> Vec<(String, String)> {
        self.operator.load().stopped(lanes)
    }

    fn waits(&self, due: &[Due]) -> HashMap<RecipientKey, String> {
        self.operator.load().waits(due)
    }

    async fn resume(&self, lane_or_provider: &str) -> Result<Option<Vec<Resumed>>, QueueError> {
        self.operator.load_full().resume(lane_or_provider).await
    }

    async fn forget(&self, lane_or_provider: &str) -> Result<Option<Vec<Forgotten>>, QueueError> {
        self.operator.load_full().forget(lane_or_provider).await
    }

    async fn pause(&self, lane_or_provider: &str, paused: bool) -> Result<bool, QueueError> {
        let operator = self.operator.load_full();
        operator.pause(lane_or_provider, paused).await
    }

    fn status(&self) -> Status {
        let (refused, stopping) = (self.refused.lock().clone(), self.stopping.load(Ordering::Relaxed));
        Status { refused, stopping, ..self.operator.load().status() }
    }

    fn bans(&self) -> Vec<BanStatus> {
        self.operator.load().bans()
    }

    fn unban(&self, address: Option<IpAddr>) -> usize {
        self.operator.load().unban(address)
    }

    fn locks(&self) -> Vec<Lock> {
        self.operator.load().locks()
    }

    async fn unlock(&self, user: &str) -> Result<bool, QueueError> {
        self.operator.load_full().unlock(user).await
    }

    fn settings(&self) -> Option<String> {
        self.operator.load().settings()
    }

    async fn file_differs(&self) -> Option<String> {
        self.operator.load_full().file_differs().await
    }

    async fn explain(&self, from: Incoming<'_>, recipient: &Address, priority: i8) -> Result<Explanation, String> {
        self.operator.load_full().explain(from, recipient, priority).await
    }

    async fn reload(&self) -> Result<String, Refusal> {
        let ended = || Refusal { message: "mailweir is stopping: nothing was reloaded".into(), config: false };
        let (reply, told) = oneshot::channel();
        self.reload.send(reply).await.map_err(|_| ended())?;
        told.await.map_err(|_| ended())?
    }
}
