//! `[[limit]]`: shares of a provider for some senders or clients. Each counts inside each lane by
//! itself; every one that matches a message holds for it.
//!
//! Bounded: of a limit with `each_domain` at most [`MAX_DOMAINS`] sender domains have a gate of
//! their own at once; while all of those are busy the others share one, which is never more than
//! each of them was allowed.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::gate::Gate;
use super::ledger::Ledger;
use super::restart::Left;
use crate::config::{Limit, Provider};
use crate::mail::{Address, LaneName, Message, Origin, Spellings};

/// Sender domains of one limit in one lane with a gate of their own.
const MAX_DOMAINS: usize = 10_000;

/// The limits that hold in one lane.
#[derive(Debug)]
pub struct Limits {
    lane: LaneName,
    ledger: Arc<Ledger>,
    shares: Vec<Share>,
}

#[derive(Debug)]
struct Share {
    limit: Arc<Limit>,
    name: String,
    /// All that match, or with `each_domain` those that found no place.
    common: Arc<Gate>,
    domains: Mutex<HashMap<String, Arc<Gate>>>,
}

impl Limits {
    /// Those of `limits` that are about this lane.
    pub fn new(lane: &LaneName, provider: &Provider, limits: &[Arc<Limit>], ledger: &Arc<Ledger>) -> Limits {
        let about =
            |limit: &&Arc<Limit>| limit.provider.matches(&provider.name) || limit.provider.matches(lane.as_str());
        let mut names: HashMap<String, u32> = HashMap::new();
        let shares = limits.iter().filter(about).map(|limit| {
            let mut name = name(limit);
            // Two limits with the same conditions must not write one record.
            let same = names.entry(name.clone()).and_modify(|n| *n += 1).or_insert(1);
            if *same > 1 {
                name.push_str(&format!(" (no. {same})"));
            }
            let common = Arc::new(Gate::of_limit(ledger, lane.as_str(), name.clone(), limit, false));
            Share { limit: limit.clone(), name, common, domains: Mutex::default() }
        });
        let shares = shares.collect();
        Limits { lane: lane.clone(), ledger: ledger.clone(), shares }
    }

    /// No limit is about this lane.
    pub fn is_empty(&self) -> bool {
        self.shares.is_empty()
    }

    /// The gates that a message has to pass besides the provider's, in the order of the file.
    pub fn gates(&self, message: &Message) -> Vec<Arc<Gate>> {
        self.shares.iter().filter(|share| share.is_about(message)).map(|share| self.gate(share, message)).collect()
    }

    fn gate(&self, share: &Share, message: &Message) -> Arc<Gate> {
        if !share.limit.each_domain {
            return share.common.clone();
        }
        let domain = message.envelope.reverse_path.as_ref().map_or_else(|| "<>".into(), domain_of);
        let mut domains = share.domains.lock();
        if let Some(gate) = domains.get(&domain) {
            return gate.clone();
        }
        if domains.len() >= MAX_DOMAINS {
            // One that somebody holds must stay: two gates must never write one record.
            domains.retain(|_, gate| Arc::strong_count(gate) > 1 || !gate.is_disposable());
            if domains.len() >= MAX_DOMAINS {
                return share.common.clone();
            }
        }
        let name = format!("{} of {domain}", share.name);
        let gate = Arc::new(Gate::of_limit(&self.ledger, self.lane.as_str(), name, &share.limit, true));
        domains.insert(domain, gate.clone());
        gate
    }

    /// Ends all rates: nothing is permitted any more. Returns what each lacks.
    pub fn close(&self) -> Vec<(String, Vec<Left>)> {
        let gates = self.shares.iter().flat_map(|share| {
            let domains = share.domains.lock();
            std::iter::once(share.common.close()).chain(domains.values().map(|gate| gate.close())).collect::<Vec<_>>()
        });
        gates.collect()
    }

    /// Nobody is on its way, and a new gate would let no more through than any of these.
    pub fn is_idle(&self) -> bool {
        self.all(|gate| gate.is_idle())
    }

    /// The same, and nothing of their quotas is reserved in the store and unused.
    pub fn is_disposable(&self) -> bool {
        self.all(|gate| gate.is_disposable())
    }

    fn all(&self, is: impl Fn(&Gate) -> bool) -> bool {
        self.shares.iter().all(|share| is(&share.common) && share.domains.lock().values().all(|gate| is(gate)))
    }

    /// Gates of which something is reserved that is not used, for [`Ledger::release`]: all of them,
    /// or the idle ones where there is no place for another sender domain.
    pub fn loose(&self, all: bool) -> Vec<Arc<Gate>> {
        let of_share = |share: &Share| {
            let domains = share.domains.lock();
            let crowded = domains.len() >= MAX_DOMAINS;
            let wanted =
                |gate: &&Arc<Gate>| !gate.is_exact() && (all || gate.only_counts() || crowded && gate.is_idle());
            std::iter::once(&share.common).chain(domains.values()).filter(wanted).cloned().collect::<Vec<_>>()
        };
        self.shares.iter().flat_map(of_share).collect()
    }
}

impl Share {
    fn is_about(&self, message: &Message) -> bool {
        let sender = Spellings::of(message.envelope.reverse_path.as_ref());
        let (client, user) = match &message.origin {
            Origin::Client { ip, user, .. } => (Some(*ip), &**user),
            Origin::Dsn | Origin::Local => (None, ""),
        };
        // `<>` has no domain: the reports of all senders would share what is meant for one of them.
        if self.limit.each_domain && message.envelope.reverse_path.is_none() && self.limit.sender.as_str() != "<>" {
            return false;
        }
        let networks = &self.limit.client;
        self.limit.sender.matches_mailbox(&sender)
            && (networks.is_empty() || client.is_some_and(|ip| networks.iter().any(|network| network.contains(ip))))
            && self.limit.user.as_ref().is_none_or(|name| name.eq_ignore_ascii_case(user))
    }
}

fn domain_of(address: &Address) -> String {
    address.domain().to_lowercase()
}

/// What a limit is called in reports and in the store: its conditions. A limit whose conditions
/// change starts anew; one whose numbers change goes on.
pub fn name(limit: &Limit) -> String {
    limit.conditions()
}

#[cfg(test)]
#[path = "limits_tests.rs"]
mod tests;
