//! Whatever the limits: the scheduler, limiters and feedback together are never above what is
//! configured, and live: what a provider held back leaves when it has healed.

use proptest::prelude::*;

use super::tests::group;
use super::*;
use crate::config::units::Rate;
use crate::model::Setting;

/// Limits of a provider, as configured.
#[derive(Clone, Debug)]
struct Told {
    rates: Vec<Rate>,
    burst: u32,
    connections: u32,
    messages: u32,
    connection_rate: Option<Rate>,
}

fn told() -> impl Strategy<Value = Told> {
    let rate = |count, secs| Rate { count, per: Duration::from_secs(secs) };
    let rates = prop_oneof![
        (1u32..60).prop_map(move |n| vec![rate(n, 1)]),
        (10u32..900).prop_map(move |n| vec![rate(n, 60)]),
        (2u32..60, 30u32..900).prop_map(move |(n, m)| vec![rate(n, 1), rate(m, 60)]),
    ];
    let connection_rate = proptest::option::of((6u32..300).prop_map(move |n| rate(n, 60)));
    (rates, 0u32..6, 1u32..8, 1u32..30, connection_rate).prop_map(
        |(rates, burst, connections, messages, connection_rate)| Told {
            rates,
            burst,
            connections,
            messages,
            connection_rate,
        },
    )
}

/// A rate and a burst as a window sees them at most; one more for what the model's windows are
/// coarser than ours, a part in 16384.
fn widest(rate: Rate, burst: u32) -> Rate {
    Rate { count: rate.count + burst.max(1) + 1, per: rate.per }
}

fn one(name: &str, messages: u32, change: impl FnOnce(&mut Provider, &mut Caps, &mut Vec<Change>)) -> Group {
    let mut group = group(name, messages, 0, "");
    let mut provider = Provider { adaptive: true, ..(*group.provider).clone() };
    change(&mut provider, &mut group.caps, &mut group.changes);
    Group { provider: Arc::new(provider), ..group }
}

fn plan(group: Group, senders: u16, bulk: f64, until: Duration, seed: u64) -> Plan {
    let (arrive, round_trip) = (Duration::from_secs(20), Duration::from_millis(20));
    let limits = Vec::new();
    Plan { groups: vec![group], begin: super::tests::BEGIN, arrive, senders, limits, bulk, round_trip, until, seed }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// A provider that enforces exactly what is configured never has a reason to refuse, and all
    /// mail leaves in about the time that the limits leave.
    #[test]
    fn invariant_3_a_provider_that_enforces_what_is_configured_refuses_nothing(
        told in told(), messages in 20u32..400, senders in 1u16..5, bulk in 0.0f64..1.0, seed in any::<u64>()
    ) {
        let limits = told.clone();
        let group = one("exact", messages, move |provider, caps, _| {
            provider.rate = limits.rates.iter().map(|rate| (*rate).into()).collect();
            provider.burst = limits.burst;
            provider.connections = limits.connections;
            provider.messages_per_connection = limits.messages;
            provider.connection_rate = limits.connection_rate.into_iter().collect();
            caps.rates = limits.rates.iter().map(|rate| widest(*rate, limits.burst).into()).collect();
            caps.connections = limits.connections;
            caps.messages_per_connection = limits.messages;
            caps.connect_rates = limits.connection_rate.into_iter().map(|rate| widest(rate, 1).into()).collect();
        });
        let report = run(&plan(group, senders, bulk, Duration::from_secs(86_400), seed)).expect("a report");
        let group = &report.groups[0];
        prop_assert!(report.complete, "{group:?}");
        prop_assert_eq!((group.delivered, group.failed, group.throttled), (u64::from(messages), 0, 0));
        let pace = |rate: &Rate, n: f64| n * rate.per.as_secs_f64() / f64::from(rate.count);
        let by_rate = told.rates.iter().map(|rate| pace(rate, f64::from(messages))).fold(0.0, f64::max);
        // Each connection takes at most as many messages; bulk and others may need one of their own.
        let connections = f64::from(messages.div_ceil(told.messages) + told.connections);
        let by_connections = told.connection_rate.map_or(0.0, |rate| pace(&rate, connections));
        let trips = f64::from(messages) * 0.02 * 7.0 / f64::from(told.connections);
        let most = 20.0 + (by_rate + by_connections + trips) * 1.5 + 60.0;
        prop_assert!(report.seconds as f64 <= most, "{} s instead of {most:.0} s: {group:?}", report.seconds);
    }

    /// A provider with limits that nobody told, that fails at random on top of that, and then heals:
    /// the lane drains, every message has one fate, and nothing is delivered twice.
    #[test]
    fn a_provider_that_heals_drains_the_lane(
        rate in proptest::option::of(1u32..20), connections in proptest::option::of(1u32..4),
        carried in proptest::option::of(1u32..10), silently in any::<bool>(), fail in 0u32..60,
        heal in 60u64..1800, messages in 50u32..800, senders in 1u16..5, bulk in 0.0f64..1.0, seed in any::<u64>()
    ) {
        let group = one("sick", messages, |provider, caps, changes| {
            provider.retry.max = Duration::from_secs(600);
            let mut set = |text: String| caps.set(&Setting::list(&text).expect("a setting")[0]);
            if let Some(rate) = rate {
                set(format!("rate={rate}/s"));
            }
            if let Some(connections) = connections {
                set(format!("connections={connections}"));
            }
            if let Some(carried) = carried {
                set(format!("messages-per-connection={carried}"));
                set(format!("close-silently={}", if silently { "yes" } else { "no" }));
            }
            if fail > 0 {
                set(format!("fail={fail}%:4xx"));
            }
            let healed = "rate=none connections=none messages-per-connection=none fail=none";
            changes.push(format!("{heal}s {healed}").parse().expect("a change"));
        });
        let until = Duration::from_secs(heal + 3600);
        let report = run(&plan(group, senders, bulk, until, seed)).expect("a report");
        let group = &report.groups[0];
        prop_assert!(report.complete, "not drained an hour after it healed: {group:?}");
        prop_assert_eq!((group.delivered, group.failed), (u64::from(messages), 0));
        prop_assert_eq!(group.series.iter().map(|point| point.delivered).sum::<u64>(), u64::from(messages));
        let waits = group.waits.messages + group.bulk_waits.map_or(0, |waits| waits.messages);
        prop_assert_eq!(waits, u64::from(messages));
    }
}
