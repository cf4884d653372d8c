//! The destinations of a plan, each with its lane, its server and its mail: one site for each, or one
//! for each source address where limits hold for each.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::store::{Arrival, Store};
use super::{Group, Plan, SimulateError, Site, recipient};
use crate::config::{Provider, sources};
use crate::mail::{Address, LaneName};
use crate::model::Model;
use crate::schedule::Lane;
use crate::shape::{Ledger, Limits};

/// All sites of a plan, in the order of the report; those of one destination stand together.
pub(super) fn sites(
    plan: &Plan,
    rng: &mut fastrand::Rng,
    ledger: &Arc<Ledger>,
) -> Result<Vec<Arc<Site>>, SimulateError> {
    let mut sites = Vec::new();
    for (group, of) in plan.groups.iter().enumerate() {
        for (domain, messages) in (0u32..).zip(shares(of.messages, of.domains)).filter(|(_, messages)| *messages > 0) {
            let parts = by_source(&of.provider, messages);
            let siblings = sites.len()..sites.len() + parts.len();
            let arrivals: Arc<[Arrival]> = arrivals(plan, messages, rng).into();
            let stores = divided(&arrivals, &parts, usize::from(plan.senders));
            // Shares are the same in the lanes of all sources.
            let limits = Arc::new(Limits::new(&name(of, domain).0, &of.provider, &plan.limits, ledger));
            for ((provider, _), store) in parts.into_iter().zip(stores) {
                let place = Place { group, domain, siblings: siblings.clone(), limits: limits.clone() };
                sites.push(Arc::new(site(plan, place, provider, store, rng, ledger)?));
            }
        }
    }
    Ok(sites)
}

/// Which of the sites it is.
struct Place {
    group: usize,
    domain: u32,
    siblings: Range<usize>,
    limits: Arc<Limits>,
}

/// The lane of a destination, whatever its source, and its domain.
fn name(of: &Group, domain: u32) -> (LaneName, String) {
    match of.domains {
        1 => (LaneName::provider(&of.name), format!("{}.example", of.name.replace('_', "-"))),
        _ => {
            let host = format!("d{}.{}.example", domain + 1, of.name);
            (LaneName::domain(&host), host)
        }
    }
}

fn site(
    plan: &Plan,
    place: Place,
    provider: Arc<Provider>,
    store: Store,
    rng: &mut fastrand::Rng,
    ledger: &Arc<Ledger>,
) -> Result<Site, SimulateError> {
    let of = &plan.groups[place.group];
    let (lane, host) = name(of, place.domain);
    let lane = sources::only(&provider).map_or(lane.clone(), |source| lane.at(source));
    let bad = |e| SimulateError::Name(of.name.clone(), e);
    Address::parse(&recipient(0, &host)).map_err(bad)?;
    let expires = plan.begin.after(provider.retry.expire);
    Ok(Site {
        group: place.group,
        siblings: place.siblings,
        lane: Arc::new(Lane::sharing(lane, provider, place.limits, ledger)),
        model: Mutex::new(Model::new(of.persona, of.caps.clone(), of.changes.clone(), rng.u64(..))),
        store: Mutex::new(store),
        destination: host.into(),
        changed: Notify::new(),
        ticking: AtomicBool::new(false),
        expires: Mutex::new(expires),
    })
}

/// Messages for one destination, in order of time.
fn arrivals(plan: &Plan, messages: u32, rng: &mut fastrand::Rng) -> Vec<Arrival> {
    // Each in its own part of the time, so that the pace is even and no two runs differ in it.
    let part = plan.arrive.as_millis() as f64 / f64::from(messages);
    let weights: Vec<f64> = (1..=plan.senders.max(1)).map(|n| 1.0 / f64::from(n)).collect();
    let whole: f64 = weights.iter().sum();
    let mut drawn = || {
        let mut left = rng.f64() * whole;
        let of = weights.iter().position(|weight| {
            left -= weight;
            left <= 0.0
        });
        (rng.f64(), u16::try_from(of.unwrap_or(0)).unwrap_or(0), rng.f64() < plan.bulk)
    };
    let arrival = |i| {
        let (late, sender, bulk) = drawn();
        let at = Duration::from_millis(((f64::from(i) + late) * part) as u64);
        Arrival { at: plan.begin.after(at), sender, bulk }
    };
    (0..messages).map(arrival).collect()
}

/// A store for each part, which have the messages of one destination in turns, by their sizes.
fn divided(arrivals: &Arc<[Arrival]>, parts: &[(Arc<Provider>, u32)], senders: usize) -> Vec<Store> {
    let mut indices: Vec<Vec<u32>> = parts.iter().map(|(_, size)| Vec::with_capacity(*size as usize)).collect();
    let all = arrivals.len() as u64;
    for index in 0..u32::try_from(arrivals.len()).unwrap_or(u32::MAX) {
        // The one that is furthest behind its share.
        let behind = |(at, (_, size)): &(usize, &(Arc<Provider>, u32))| {
            let due = u64::from(*size) * (u64::from(index) + 1);
            let has = indices[*at].len() as u64;
            i128::from(due) - i128::from(has) * i128::from(all)
        };
        let open = parts.iter().enumerate().filter(|(at, (_, size))| indices[*at].len() < *size as usize);
        let next = open.max_by_key(behind).map(|(at, _)| at);
        if let Some(of) = next.and_then(|at| indices.get_mut(at)) {
            of.push(index);
        }
    }
    indices.into_iter().map(|of| Store::of(arrivals.clone(), of, senders)).collect()
}

/// The parts that leave from each source where limits hold for each, by their weights; exact in the
/// sum. Each has a lane of its own, and is a client of its own to the provider.
pub(super) fn by_source(provider: &Arc<Provider>, messages: u32) -> Vec<(Arc<Provider>, u32)> {
    let each = sources::each(provider);
    let weight = |p: &Provider| p.source.first().map_or(0, |source| u64::from(source.weight));
    let all: u64 = each.iter().map(|p| weight(p)).sum();
    let (mut sum, mut given) = (0, 0);
    let parts: Vec<_> = each
        .into_iter()
        .map(|p| {
            sum += weight(&p);
            let upto = u32::try_from(u64::from(messages) * sum / all.max(1)).unwrap_or(messages);
            let part = upto.saturating_sub(given);
            given += part;
            (p, part)
        })
        .collect();
    if parts.is_empty() { vec![(provider.clone(), messages)] } else { parts }
}

/// `messages` over `domains` whose sizes fall as 1, 1/2, 1/3, …; exact in the sum.
pub(super) fn shares(messages: u32, domains: u32) -> Vec<u32> {
    let weights: f64 = (1..=domains.max(1)).map(|n| 1.0 / f64::from(n)).sum();
    let (mut sum, mut given) = (0.0, 0);
    (1..=domains.max(1))
        .map(|n| {
            sum += 1.0 / f64::from(n);
            let upto = if n == domains.max(1) { messages } else { (f64::from(messages) * sum / weights) as u32 };
            let share = upto.saturating_sub(given);
            given += share;
            share
        })
        .collect()
}
