//! `mailweir explain`: everything that decides when and where a message to somebody leaves.
//!
//! The times are estimates: they assume that rates stay as they are, that nothing more urgent comes,
//! and that the provider accepts what it gets.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{FeedbackStatus, LaneStatus};
use crate::config::report::{Setting, provider_table};
use crate::config::{Config, CountedRate, Provider, sources};
use crate::mail::{Address, LaneName, State};
use crate::queue::{Filter, Queue};
use crate::route::{Explained, Router};
use crate::schedule::Snapshot;

/// Recipients in the store that are looked at to say what is ahead; more is said to be more.
const MOST_COUNTED: usize = 10_000;
/// Recipients read from the store at once.
const PAGE: usize = 500;

/// Keys of a provider that limit what leaves, in the order in which they are told.
const LIMITS: [&str; 14] = [
    "limits_per",
    "rate",
    "burst",
    "count",
    "quota",
    "warmup",
    "connections",
    "connection_rate",
    "messages_per_connection",
    "recipients_per_message",
    "max_message_size",
    "adaptive",
    "tls",
    "retry.expire",
];

/// The answer to `mailweir explain`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// Whom it is about.
    pub recipient: String,
    /// From whom; empty for `<>`.
    pub sender: String,
    /// The priority it is asked for.
    pub priority: i8,
    /// A running relay said this; else it is what would hold if one ran.
    pub running: bool,
    /// Where it goes and why.
    pub route: Explained,
    /// Where the `[[route]]` stands that decided; empty if none did.
    pub route_from: String,
    /// Local addresses for this sender domain, the first that works is used; empty: the system
    /// chooses.
    pub sources: Vec<IpAddr>,
    /// The limits of the provider.
    pub limits: Vec<LimitExplained>,
    /// What replies taught about the way there.
    #[serde(default)]
    pub feedback: FeedbackStatus,
    /// How the lane is now; `None` when no relay runs, or without a way.
    pub lane: Option<LaneExplained>,
}

/// A limit and who set it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitExplained {
    /// The key in the configuration.
    pub key: String,
    /// Its value, as in the configuration.
    pub value: String,
    /// `config.toml:12`, `[default], config.toml:7`, `default`.
    pub from: String,
}

/// The lane as it is, and when a message sent now would leave.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LaneExplained {
    /// Its state.
    pub status: LaneStatus,
    /// Recipients in memory that are as urgent or more.
    pub ahead_in_memory: u64,
    /// Recipients in the queue, due and as urgent or more.
    pub ahead_stored: u64,
    /// There are more than `ahead_stored`: not all were counted.
    pub more_stored: bool,
    /// What quotas say, in words; empty without.
    pub quota: Vec<String>,
    /// Why nothing leaves now; empty if it does.
    pub held: String,
    /// Seconds to the earliest moment it may leave, if its sender has nothing else waiting.
    pub earliest: Option<u64>,
    /// Seconds until it leaves if all that is ahead goes first; `None` if nobody can tell.
    pub latest: Option<u64>,
}

/// What the configuration and DNS say; whoever knows the lane adds it.
pub async fn explain(
    config: &Config,
    settings: &[Setting],
    router: &Router,
    sender: Option<&Address>,
    recipient: &Address,
    priority: i8,
) -> Explanation {
    let route = router.explain(sender, recipient).await;
    let provider = config.provider(&route.provider).unwrap_or(&config.default);
    let domain = sender.map_or("", Address::domain);
    Explanation {
        recipient: recipient.as_str().to_owned(),
        sender: sender.map_or("", Address::as_str).to_owned(),
        priority,
        running: false,
        route_from: route.route.map(|n| line_of_route(settings, n)).unwrap_or_default(),
        sources: sources::order(&provider.source, domain).into_iter().map(|source| source.address).collect(),
        limits: if route.provider.is_empty() { Vec::new() } else { limits(settings, &provider.name) },
        feedback: FeedbackStatus::default(),
        lane: None,
        route,
    }
}

/// Where the `n`th `[[route]]` (from 1) names its provider.
fn line_of_route(settings: &[Setting], n: usize) -> String {
    let via = settings.iter().filter(|s| s.table == "[[route]]" && s.key == "via");
    via.map(|s| s.from.clone()).nth(n.saturating_sub(1)).unwrap_or_default()
}

fn limits(settings: &[Setting], provider: &str) -> Vec<LimitExplained> {
    let table = provider_table(provider);
    let told = LIMITS.iter().filter_map(|key| settings.iter().find(|s| s.table == table && s.key == **key));
    told.filter_map(|s| {
        let value = s.value.as_ref()?.to_string().trim().to_owned();
        Some(LimitExplained { key: s.key.clone(), value, from: s.from.clone() })
    })
    .collect()
}

/// How long the lane's own rates and quotas, and what replies taught, hold the next transaction back.
fn wait_of(now: &Snapshot, feedback: &FeedbackStatus) -> Duration {
    let held = now.held.as_ref().map(|held| held.wait).unwrap_or_default();
    held.max(Duration::from_secs(feedback.paused_seconds))
}

impl LaneExplained {
    /// From the lane's state; `ahead`: recipients in memory that are as urgent or more.
    pub fn new(status: LaneStatus, now: &Snapshot, provider: &Provider, ahead: u64) -> LaneExplained {
        let held = match (now.paused, &now.circuit) {
            (true, _) => format!("an operator has paused it: `mailweir provider resume {}`", status.name),
            (false, Some((reason, left))) => {
                format!("the provider refuses us; one message is tried in {} s: {reason}", left.as_secs())
            }
            (false, None) => String::new(),
        };
        let quota =
            now.held.iter().chain(now.held_aside.iter().map(|(held, _)| held)).map(ToString::to_string).collect();
        let mut told = LaneExplained { status, ahead_in_memory: ahead, held, quota, ..LaneExplained::default() };
        told.estimate(now, provider);
        told
    }

    /// Adds what the store has ahead, and says anew when a message would leave.
    pub async fn count_stored(
        &mut self,
        queue: &dyn Queue,
        lane: &LaneName,
        priority: i8,
        now: &Snapshot,
        provider: &Provider,
    ) -> Result<(), crate::queue::QueueError> {
        let filter = Filter { provider: Some(lane.to_string()), ..Filter::default() };
        let (mut after, mut seen) = (None, 0);
        self.ahead_stored = 0;
        loop {
            let page = queue.inspect(&filter, after, PAGE).await?;
            seen += page.rows.len();
            let waits = |state: State| matches!(state, State::Queued | State::Uncertain);
            let ahead = page.rows.iter().filter(|(_, state, row)| waits(*state) && row.priority >= priority);
            self.ahead_stored += ahead.count() as u64;
            after = page.next;
            self.more_stored = after.is_some();
            if after.is_none() || seen >= MOST_COUNTED {
                break;
            }
        }
        self.estimate(now, provider);
        Ok(())
    }

    fn estimate(&mut self, now: &Snapshot, provider: &Provider) {
        if !self.held.is_empty() {
            (self.earliest, self.latest) = (None, None);
            return;
        }
        let feedback = &self.status.feedback;
        let first = wait_of(now, feedback).as_secs_f64();
        self.earliest = Some(first.ceil() as u64);
        let ahead = self.ahead_in_memory + self.ahead_stored;
        // Without a rate the pace is that of the receiver, which nobody knows before.
        let pace = slowest(&provider.rate).into_iter().chain(feedback.per_second).min_by(f64::total_cmp);
        self.latest = match pace {
            _ if self.more_stored => None,
            Some(pace) if pace > 0.0 => Some((first + ahead as f64 / pace).ceil() as u64),
            _ if ahead == 0 => self.earliest,
            _ => None,
        };
    }
}

/// The lowest of the rates, in messages a second.
fn slowest(rates: &[CountedRate]) -> Option<f64> {
    let of_mail = rates.iter().filter(|rate| !rate.is_of_connections());
    let paces = of_mail.map(|rate| f64::from(rate.rate.count) / rate.per.as_secs_f64());
    paces.filter(|pace| *pace > 0.0).min_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::sample;

    fn snapshot() -> Snapshot {
        Snapshot {
            held: Some(crate::shape::Held { by: "rate 20/s".into(), wait: Duration::from_millis(300) }),
            ..Snapshot::default()
        }
    }

    #[test]
    fn says_when_by_the_slowest_rate_and_nothing_where_nobody_knows() {
        let mut provider = sample::provider("p");
        let told = |provider: &Provider, ahead| {
            let lane = LaneExplained::new(LaneStatus::default(), &snapshot(), provider, ahead);
            (lane.earliest, lane.latest)
        };
        assert_eq!(told(&provider, 0), (Some(1), Some(1)));
        assert_eq!(told(&provider, 5), (Some(1), None), "no rate");
        provider.rate = vec!["20/s".parse().unwrap(), "60/m".parse().unwrap()];
        assert_eq!(told(&provider, 100), (Some(1), Some(101)));
    }

    #[test]
    fn counts_with_the_pace_and_the_pause_that_replies_led_to() {
        let mut provider = sample::provider("p");
        provider.rate = vec!["20/s".parse().unwrap()];
        let told = |feedback: FeedbackStatus| {
            let status = LaneStatus { feedback, ..LaneStatus::default() };
            let lane = LaneExplained::new(status, &snapshot(), &provider, 100);
            (lane.earliest, lane.latest)
        };
        assert_eq!(told(FeedbackStatus::default()), (Some(1), Some(6)));
        let slowed = FeedbackStatus { per_second: Some(0.5), ..FeedbackStatus::default() };
        assert_eq!(told(slowed.clone()), (Some(1), Some(201)));
        assert_eq!(told(FeedbackStatus { paused_seconds: 60, ..slowed }), (Some(60), Some(260)));
    }

    #[test]
    fn what_is_stopped_has_no_time() {
        let provider = sample::provider("p");
        let paused = Snapshot { paused: true, ..snapshot() };
        let lane = LaneExplained::new(LaneStatus { name: "p".into(), ..LaneStatus::default() }, &paused, &provider, 0);
        assert_eq!((lane.earliest, lane.latest), (None, None));
        assert!(lane.held.contains("provider resume p"));
        let refused = Snapshot { circuit: Some(("535 no".into(), Duration::from_secs(9))), ..snapshot() };
        let lane = LaneExplained::new(LaneStatus::default(), &refused, &provider, 0);
        assert!(lane.held.contains("9 s: 535 no") && lane.latest.is_none());
    }

    #[test]
    fn limits_say_who_set_them() {
        let text = "hostname = 'a.example'\n[default]\nconnections = 3\n[provider.\"p.q\"]\nmatch.domains = ['x.example']\nrate = '7/s'\n";
        let loaded = crate::config::Loaded::parse(text, "my.toml").unwrap();
        let limits = limits(&loaded.settings, "p.q");
        let of = |key: &str| limits.iter().find(|l| l.key == key).map(|l| (l.value.as_str(), l.from.as_str()));
        assert_eq!(of("rate"), Some(("[\"7/s\"]", "my.toml:6")));
        assert_eq!(of("connections"), Some(("3", "[default], my.toml:3")));
        assert_eq!(of("burst"), Some(("0", "default")));
    }
}
