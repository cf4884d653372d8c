//! Random sequences of configurations, against a model that counts at the receiver.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::*;
use crate::clock::Clock;
use crate::config::{Count, CountedRate, Provider, sample};
use crate::shape::reserve::testing::Store;
use crate::shape::{Cost, Gate, Ledger, Refused};

const DOMAINS: [&str; 3] = ["p.test", "q.test", "r.example"];
const NAMES: [&str; 3] = ["a", "b", "c"];
const PATTERNS: [&str; 6] = ["p.test", "q.test", "r.example", "*.test", "p*", "*"];
const QUOTAS: [&str; 5] = ["10/40s", "4/10s", "10/40s recipients", "25/200s", "12/60s recipients"];

/// A provider of a configuration.
#[derive(Clone, Debug)]
struct Spec {
    relay: &'static str,
    patterns: Vec<&'static str>,
    quotas: Vec<&'static str>,
}

#[derive(Clone, Debug)]
enum Step {
    /// A reload; by name, in the order of the file.
    Reload([Option<Spec>; 3]),
    /// The process is killed, and another one starts with the same configuration.
    Kill,
    /// As much mail for a domain as its provider lets through, at most.
    Send {
        domain: &'static str,
        recipients: usize,
        most: usize,
    },
    Sleep(u64),
}

/// A message that a receiver got.
struct Got {
    at: Instant,
    name: &'static str,
    relay: &'static str,
    domain: &'static str,
    recipients: usize,
}

struct World {
    store: Store,
    clock: Clock,
    holdings: BTreeMap<&'static str, Vec<Holding>>,
    config: [Option<Spec>; 3],
    ledger: Arc<Ledger>,
    gates: BTreeMap<&'static str, Arc<Gate>>,
    got: Vec<Got>,
}

impl World {
    fn new() -> World {
        let (store, clock) = (Store::default(), Clock::for_tests());
        let ledger = Ledger::new(Arc::new(store.clone()), clock);
        let (holdings, config, gates, got) = Default::default();
        World { store, clock, holdings, config, ledger, gates, got }
    }

    async fn end(&mut self) {
        let gates: Vec<_> = std::mem::take(&mut self.gates).into_values().collect();
        self.ledger.close();
        let lacked = gates.iter().map(|gate| gate.close()).collect();
        self.ledger.release(&gates).await.expect("the store works");
        self.ledger.end(lacked).await.expect("the store works");
    }

    async fn begin(&mut self) {
        // No two starts are at one time.
        tokio::time::sleep(Duration::from_millis(100)).await;
        self.gates.clear();
        self.ledger = Ledger::new(Arc::new(self.store.clone()), self.clock);
        let now = self.clock.mark();
        for (name, spec) in NAMES.iter().zip(&self.config) {
            let receivers = |spec: &Spec| {
                let relay = (!spec.relay.is_empty()).then_some(Receiver::SmartHost);
                let domains = spec.patterns.iter().map(|text| Receiver::Domains((*text).to_owned()));
                (spec.relay, domains.chain(relay).collect::<Vec<_>>())
            };
            let (relay, receivers) = spec.as_ref().map(receivers).unwrap_or_default();
            moved_on(self.holdings.entry(name).or_default(), relay, &receivers, &now);
        }
        let holdings = self.holdings.iter().map(|(name, held)| ((*name).to_owned(), held.clone()));
        self.ledger.succeed(Succession::new(holdings.collect()));
        self.ledger.begin(true).await.expect("the store works");
    }

    /// The first one that takes a domain.
    fn provider_of(&self, domain: &str) -> Option<(&'static str, &Spec)> {
        let takes = |spec: &&Spec| spec.patterns.iter().any(|text| Pattern::new(text).matches(domain));
        NAMES.into_iter().zip(&self.config).find_map(|(name, spec)| Some((name, spec.as_ref().filter(takes)?)))
    }

    async fn gate(&mut self, name: &'static str, spec: &Spec) -> Arc<Gate> {
        if let Some(gate) = self.gates.get(name) {
            return gate.clone();
        }
        let quota = spec.quotas.iter().map(|text| text.parse().expect("a quota")).collect();
        let rate = vec!["30/m".parse().expect("a rate")];
        let provider = Provider { quota, rate, burst: 3, ..sample::provider(name) };
        let gate = Arc::new(Gate::of_provider(&self.ledger, name, &provider));
        gate.load().await;
        self.gates.insert(name, gate.clone());
        gate
    }

    async fn send(&mut self, domain: &'static str, recipients: usize, most: usize) -> Result<(), TestCaseError> {
        let Some((name, spec)) = self.provider_of(domain) else { return Ok(()) };
        let spec = spec.clone();
        let gate = self.gate(name, &spec).await;
        let mut sent = 0;
        while sent < most {
            match gate.try_take(Cost::of(recipients)) {
                Ok(permit) => drop(permit.spend()),
                Err(Refused::Reserve) => {
                    gate.reserve(Cost::of(recipients)).await;
                    continue;
                }
                Err(_) => break,
            }
            sent += 1;
            self.got.push(Got { at: Instant::now(), name, relay: spec.relay, domain, recipients });
            self.is_within(name, &spec)?;
        }
        Ok(())
    }

    /// Whether what its receivers got in the windows that end now is no more than the quotas of a provider.
    fn is_within(&self, name: &str, spec: &Spec) -> Result<(), TestCaseError> {
        let now = Instant::now();
        let has_relay = |name: &str, relay: &str| {
            let specs = NAMES.iter().zip(&self.config).filter(|(other, _)| **other == name);
            specs.filter_map(|(_, spec)| spec.as_ref()).any(|spec| spec.relay == relay)
        };
        let counts = |got: &&Got| {
            let by_domain = self.provider_of(got.domain).is_some_and(|(provider, _)| provider == name);
            let same_way = got.relay == spec.relay || got.relay.is_empty() || spec.relay.is_empty();
            let by_relay = !spec.relay.is_empty() && got.relay == spec.relay && !has_relay(got.name, got.relay);
            got.name == name || by_domain && same_way || by_relay
        };
        for text in &spec.quotas {
            let quota: CountedRate = text.parse().expect("a quota");
            let inside = self.got.iter().filter(|got| now - got.at < quota.per).filter(counts);
            let used: usize = match quota.count(Count::Messages) {
                Some(Count::Messages) => inside.count(),
                _ => inside.map(|got| got.recipients).sum(),
            };
            prop_assert!(used <= quota.rate.count as usize, "{name} {text}: {used} at its receivers");
        }
        // A rate that all have holds for a domain whoever leads there.
        for domain in DOMAINS {
            let times: Vec<Instant> =
                self.got.iter().filter(|got| got.domain == domain && got.relay.is_empty()).map(|got| got.at).collect();
            for (n, first) in times.iter().enumerate() {
                let allowed = 3.0 + (now - *first).as_secs_f64() / 2.0;
                prop_assert!(
                    (times.len() - n) as f64 <= allowed + 0.01,
                    "{domain}: {} in {:?}",
                    times.len() - n,
                    now - *first
                );
            }
        }
        Ok(())
    }
}

fn spec(relays: &'static [&'static str]) -> impl Strategy<Value = Option<Spec>> {
    let texts = |all: &'static [&'static str], most| proptest::sample::subsequence(all, 0..=most);
    let some = (proptest::sample::select(relays), texts(&PATTERNS, 3), texts(&QUOTAS, 2));
    proptest::option::weighted(0.7, some.prop_map(|(relay, patterns, quotas)| Spec { relay, patterns, quotas }))
}

fn step(relays: &'static [&'static str]) -> impl Strategy<Value = Step> {
    let recipients = prop_oneof![4 => Just(1usize), 1 => 2usize..4];
    prop_oneof![
        4 => [spec(relays), spec(relays), spec(relays)].prop_map(Step::Reload),
        1 => Just(Step::Kill),
        6 => (proptest::sample::select(&DOMAINS[..]), recipients, 1usize..12)
            .prop_map(|(domain, recipients, most)| Step::Send { domain, recipients, most }),
        3 => prop_oneof![0u64..3, 0u64..60].prop_map(Step::Sleep),
    ]
}

fn run(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let mut world = World::new();
        world.begin().await;
        for step in steps {
            match step {
                Step::Reload(config) => {
                    world.end().await;
                    world.config = config;
                    world.begin().await;
                }
                Step::Kill => {
                    // What leaves without a quota is stored once a minute: as if that was just now.
                    let gates: Vec<_> = world.gates.values().filter(|gate| gate.only_counts()).cloned().collect();
                    world.ledger.release(&gates).await.expect("the store works");
                    world.begin().await;
                }
                Step::Send { domain, recipients, most } => world.send(domain, recipients, most).await?,
                Step::Sleep(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            }
        }
        Ok(())
    })
}

/// How many messages for a domain its provider lets through within an hour; the pace of the tests' rate allows more.
async fn let_through(world: &mut World, domain: &'static str) -> usize {
    let before = world.got.len();
    for _ in 0..120 {
        world.send(domain, 1, usize::MAX).await.expect("within the limits");
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
    world.got.len() - before
}

/// Nothing is counted twice, nor for anybody else: neither beside the one that had it, nor over many restarts.
#[tokio::test(start_paused = true)]
async fn who_takes_over_counts_once_and_others_nothing() {
    let spec = |relay, pattern| Some(Spec { relay, patterns: vec![pattern], quotas: vec!["10/d"] });
    let mut world = World::new();
    let reload = async |world: &mut World, config| {
        world.end().await;
        world.config = config;
        world.begin().await;
    };
    world.begin().await;
    reload(&mut world, [spec("", "p.test"), spec("", "q.test"), None]).await;
    assert_eq!((let_through(&mut world, "p.test").await, let_through(&mut world, "q.test").await), (10, 10));
    // Another one is new, of somebody else.
    reload(&mut world, [spec("", "p.test"), spec("", "q.test"), spec("", "r.example")]).await;
    assert_eq!((let_through(&mut world, "p.test").await, let_through(&mut world, "r.example").await), (0, 10));
    tokio::time::sleep(Duration::from_secs(2 * 86_400)).await;
    // The third takes over from the first, which has sent four.
    world.send("p.test", 1, 1).await.expect("within the limits");
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(30)).await;
        world.send("p.test", 1, 1).await.expect("within the limits");
    }
    let both = Spec { relay: "", patterns: vec!["r.example", "p.test"], quotas: vec!["10/d"] };
    for _ in 0..5 {
        reload(&mut world, [None, spec("", "q.test"), Some(both.clone())]).await;
    }
    assert_eq!((let_through(&mut world, "p.test").await, let_through(&mut world, "q.test").await), (6, 10));
    tokio::time::sleep(Duration::from_secs(2 * 86_400)).await;
    assert_eq!(let_through(&mut world, "p.test").await, 10, "all of it has left the window");
    // Two that have one smart host at the same time have two quotas, as they are configured.
    let mut world = World::new();
    world.begin().await;
    reload(&mut world, [spec("one", "p.test"), None, None]).await;
    assert_eq!(let_through(&mut world, "p.test").await, 10);
    reload(&mut world, [spec("one", "p.test"), spec("one", "q.test"), None]).await;
    assert_eq!(let_through(&mut world, "q.test").await, 10);
    // Whoever is left has one.
    tokio::time::sleep(Duration::from_secs(2 * 86_400)).await;
    assert_eq!(let_through(&mut world, "p.test").await, 10);
    reload(&mut world, [None, spec("one", "q.test"), None]).await;
    assert_eq!(let_through(&mut world, "q.test").await, 0);
}

/// The day of a warm-up, and the lane of a domain before and after it had a provider.
#[tokio::test(start_paused = true)]
async fn days_of_warm_ups_and_lanes_of_domains_go_on_too() {
    let (store, clock) = (Store::default(), Clock::for_tests());
    let plan = crate::config::Warmup {
        start: crate::clock::Timestamp(0),
        days: vec![20],
        length: 100_000,
        overflow: crate::config::Overflow::Wait,
        before: Default::default(),
    };
    let quota = vec!["20/d".parse().expect("a quota")];
    let mut holdings: Vec<Holding> = Vec::new();
    let domains = [Receiver::Domains("p.test".into())];
    // The domain's own lane, then a provider's, then its own again; and what is left for each.
    let lives = [("@p.test", 5, 20), ("p", 7, 15), ("@p.test", 0, 8)];
    for (lane, most, left) in lives {
        tokio::time::sleep(Duration::from_secs(1)).await;
        moved_on(&mut holdings, "", if lane == "p" { &domains } else { &[] }, &clock.mark());
        let ledger = Ledger::new(Arc::new(store.clone()), clock);
        ledger.succeed(Succession::new(vec![("p".into(), holdings.clone())]));
        let provider = Provider { quota: quota.clone(), warmup: Some(plan.clone()), ..sample::provider("p") };
        let gate = Arc::new(Gate::of_provider(&ledger, lane, &provider));
        gate.load().await;
        let usage = gate.usage();
        assert_eq!(usage.len(), 2, "{usage:?}");
        assert!(usage.iter().all(|usage| usage.most - usage.used == left), "{lane}: {usage:?}");
        for _ in 0..most {
            gate.reserve(1).await;
            drop(gate.try_take(1).expect("there is room").spend());
        }
        ledger.release(&[gate]).await.expect("the store works");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(300), ..ProptestConfig::default() })]

    /// Invariant 3 at the receiver, whoever leads there and whatever it is called.
    #[test]
    fn no_receiver_gets_more_than_the_limits_of_whoever_leads_there(
        steps in prop_oneof![
            proptest::collection::vec(step(&[""]), 1..40),
            proptest::collection::vec(step(&["", "one", "two"]), 1..40),
        ]
    ) {
        run(steps)?;
    }
}
