//! Which source address carries a message where limits hold for each source, and so in which lane
//! it waits: `gmail@192.0.2.10`. Without such limits nothing here does anything.
//!
//! - New mail goes to the first source, in the order of its sender domain, that takes mail now.
//! - Mail that waits in the lane of a source stays there as long as that source takes mail, and can
//!   reach the hosts (has an address family with them); so a source that comes back, or a new day
//!   of a warm-up, moves nothing, and nothing goes to and fro.
//! - When it does not, mail goes to the first that does. When none does it stays.
//! - The lane without a source (`gmail`) and those of addresses that are no longer configured are
//!   for passing through: what the queue holds there is shared out when it is claimed.
//!
//! Who takes mail is told from outside ([`super::Router::ask`]): whether an address works is known
//! where connections are made, whether it has room today where quotas are kept.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use super::Route;
use crate::config::sources::{each, order};
use crate::config::{Config, Provider};
use crate::mail::{Address, LaneName};

/// Whether the lane of a source takes mail now.
type Takes = Box<dyn Fn(&LaneName) -> bool + Send + Sync>;

/// The sources of all providers that have limits for each.
pub(super) struct Sources {
    /// By provider: as it is seen from each source.
    each: HashMap<String, Vec<Arc<Provider>>>,
    takes: OnceLock<Takes>,
}

impl Sources {
    pub(super) fn new(config: &Config) -> Sources {
        let providers = config.providers.iter().chain([&config.default]);
        let each = providers.map(|p| (p.name.clone(), each(p))).filter(|(_, each)| !each.is_empty()).collect();
        Sources { each, takes: OnceLock::new() }
    }

    pub(super) fn ask(&self, takes: Takes) {
        if self.takes.set(takes).is_err() {
            tracing::error!("the router was told twice whom to ask about sources");
        }
    }

    /// No provider has limits for each source.
    pub(super) fn is_empty(&self) -> bool {
        self.each.is_empty()
    }

    /// The provider as seen from its sources; empty if its limits hold for all together.
    pub(super) fn of(&self, provider: &Provider) -> &[Arc<Provider>] {
        self.each.get(&provider.name).map_or(&[], Vec::as_slice)
    }

    /// The provider as seen from the source of this lane, if it still is one of its sources.
    pub(super) fn seen_from(&self, lane: &LaneName, provider: &Provider) -> Option<&Arc<Provider>> {
        let source = lane.source()?;
        self.of(provider).iter().find(|seen| address(seen) == Some(source))
    }

    fn takes(&self, lane: &LaneName) -> bool {
        self.takes.get().is_none_or(|takes| takes(lane))
    }

    /// The lane of new mail that would wait in `base`.
    pub(super) fn lane(&self, base: LaneName, provider: &Provider, sender: Option<&Address>) -> LaneName {
        match self.choose(&base, provider, sender, None, &|_| true) {
            Some((lane, _)) => lane,
            None => base,
        }
    }

    /// The route from the source that carries it: that of the lane `now` if it can.
    pub(super) fn route(&self, route: Arc<Route>, sender: Option<&Address>, now: Option<&LaneName>) -> Arc<Route> {
        if self.of(&route.provider).is_empty() {
            return route;
        }
        let reaches = |ip: IpAddr| route.hosts.iter().flat_map(|h| &h.addresses).any(|a| a.is_ipv4() == ip.is_ipv4());
        let chosen = self
            .choose(&route.lane, &route.provider, sender, now, &reaches)
            // It will say that it cannot reach them.
            .or_else(|| self.choose(&route.lane, &route.provider, sender, now, &|_| true));
        match chosen {
            Some((lane, provider)) => Arc::new(Route { lane, provider: provider.clone(), ..(*route).clone() }),
            None => route,
        }
    }

    /// The lane for what is in lane `now` but cannot stay there, without asking DNS; `None`: it
    /// stays. Only addresses of the same family are considered: the others may not reach the hosts.
    pub(super) fn elsewhere(&self, now: &LaneName, provider: &Provider, sender: Option<&Address>) -> Option<LaneName> {
        if self.of(provider).is_empty() {
            return now.source().map(|_| LaneName::from(now.base()));
        }
        let base = LaneName::from(now.base());
        let known = self.seen_from(now, provider).is_some();
        let family = now.source().filter(|_| known).map(|ip| ip.is_ipv4());
        let fits = |ip: IpAddr| family.is_none_or(|v4| ip.is_ipv4() == v4);
        let (lane, _) = self.choose(&base, provider, sender, known.then_some(now), &fits)?;
        (lane != *now).then_some(lane)
    }

    /// Whether another source of the same family takes mail, so that it is worth looking at what
    /// waits in lane `now`.
    pub(super) fn another_takes(&self, now: &LaneName, provider: &Provider) -> bool {
        let Some(source) = now.source() else { return false };
        let others = self.of(provider).iter().filter_map(|seen| address(seen));
        others.filter(|ip| *ip != source && ip.is_ipv4() == source.is_ipv4()).any(|ip| self.takes(&now.at(ip)))
    }

    /// One of the sources that `fits`: that of `now` if it takes mail; else the first in the order of
    /// the sender that does; else that of `now`; else the first.
    fn choose(
        &self,
        base: &LaneName,
        provider: &Provider,
        sender: Option<&Address>,
        now: Option<&LaneName>,
        fits: &dyn Fn(IpAddr) -> bool,
    ) -> Option<(LaneName, &Arc<Provider>)> {
        let each = self.of(provider);
        if each.is_empty() {
            return None;
        }
        let seen = |ip: IpAddr| each.iter().find(|seen| address(seen) == Some(ip));
        let now = now.filter(|now| now.base() == base.base());
        let now = now.and_then(|lane| lane.source().filter(|ip| fits(*ip)).and_then(seen).map(|p| (lane.clone(), p)));
        if let Some((lane, provider)) = &now
            && self.takes(lane)
        {
            return Some((lane.clone(), provider));
        }
        let order = order(&provider.source, sender.map_or("", Address::domain));
        let mut lanes = order
            .into_iter()
            .filter(|source| fits(source.address))
            .filter_map(|source| Some((base.at(source.address), seen(source.address)?)));
        let first = lanes.next()?;
        if self.takes(&first.0) {
            return Some(first);
        }
        lanes.find(|(lane, _)| self.takes(lane)).or(now).or(Some(first))
    }
}

fn address(seen: &Provider) -> Option<IpAddr> {
    seen.source.first().map(|source| source.address)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use parking_lot::Mutex;

    use super::*;
    use crate::config::{LimitsPer, Source, sample};
    use crate::route::Host;

    type Resting = Arc<Mutex<HashSet<LaneName>>>;

    fn provider(addresses: &[&str]) -> Provider {
        let source = addresses.iter().map(|ip| Source::new(ip.parse().unwrap())).collect();
        Provider { source, limits_per: LimitsPer::Source, ..sample::provider("p") }
    }

    fn sources(of: &[Provider]) -> (Sources, Resting) {
        let mut config = sample::config();
        config.providers = of.iter().cloned().map(Arc::new).collect();
        let (sources, resting) = (Sources::new(&config), Resting::default());
        let asked = resting.clone();
        sources.ask(Box::new(move |lane| !asked.lock().contains(lane)));
        (sources, resting)
    }

    fn sender(n: usize) -> Address {
        Address::parse(&format!("s@d{n}.example")).unwrap()
    }

    fn route(lane: &LaneName, provider: &Provider, addresses: &[&str]) -> Arc<Route> {
        let addresses = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
        let hosts = Arc::from([Host {
            name: "h.example".into(),
            preference: 0,
            addresses,
            policy: super::super::TlsPolicy::None,
        }]);
        let (lane, provider) = (lane.clone(), Arc::new(provider.clone()));
        Arc::new(Route { lane, provider, destination: "x.example".into(), hosts, port: 25, facts: None })
    }

    #[test]
    fn without_limits_for_each_source_nothing_changes() {
        let shared = Provider { limits_per: LimitsPer::Provider, ..provider(&["192.0.2.1", "192.0.2.2"]) };
        let (sources, _) = sources(std::slice::from_ref(&shared));
        assert_eq!(sources.lane(shared.lane(), &shared, None), shared.lane());
        assert_eq!(sources.elsewhere(&"p".into(), &shared, None), None);
        // What waits since the time when it was otherwise.
        assert_eq!(sources.elsewhere(&"p@192.0.2.1".into(), &shared, None), Some("p".into()));
    }

    #[test]
    fn mail_leaves_a_source_only_when_it_takes_none_and_stays_where_it_went() {
        let p = provider(&["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
        let (sources, resting) = sources(std::slice::from_ref(&p));
        for n in 0..50 {
            let sender = sender(n);
            let order: Vec<LaneName> =
                order(&p.source, sender.domain()).iter().map(|s| p.lane().at(s.address)).collect();
            let new = || sources.lane(p.lane(), &p, Some(&sender));
            let elsewhere = |lane| sources.elsewhere(lane, &p, Some(&sender));
            assert_eq!((new(), elsewhere(&order[0])), (order[0].clone(), None));
            resting.lock().insert(order[0].clone());
            assert_eq!((new(), elsewhere(&order[0])), (order[1].clone(), Some(order[1].clone())));
            assert!(sources.another_takes(&order[0], &p));
            resting.lock().insert(order[1].clone());
            assert_eq!(elsewhere(&order[1]), Some(order[2].clone()), "not back to where it came from");
            resting.lock().insert(order[2].clone());
            assert_eq!(new(), order[0], "when none takes mail, the order is as ever");
            assert!(order.iter().all(|lane| elsewhere(lane).is_none()), "and nothing moves");
            assert!(!sources.another_takes(&order[0], &p));
            resting.lock().clear();
            assert!(order.iter().all(|lane| elsewhere(lane).is_none()), "what has moved stays");
        }
    }

    #[test]
    fn what_has_no_source_or_a_former_one_is_shared_out_by_sender() {
        let p = provider(&["192.0.2.1", "192.0.2.2"]);
        let (sources, _) = sources(std::slice::from_ref(&p));
        for former in ["p", "p@192.0.2.9", "p@2001:db8::1"] {
            let to: HashSet<LaneName> =
                (0..50).filter_map(|n| sources.elsewhere(&former.into(), &p, Some(&sender(n)))).collect();
            assert_eq!(to, ["p@192.0.2.1", "p@192.0.2.2"].map(LaneName::from).into());
        }
    }

    #[test]
    fn only_a_source_that_can_reach_the_hosts_is_chosen() {
        let p = provider(&["192.0.2.1", "2001:db8::1", "192.0.2.2"]);
        let (sources, resting) = sources(std::slice::from_ref(&p));
        let base = p.lane();
        let six = base.at("2001:db8::1".parse().unwrap());
        for n in 0..50 {
            let sender = sender(n);
            let to = |hosts: &[&str], now: Option<&LaneName>| {
                let route = sources.route(route(&base, &p, hosts), Some(&sender), now);
                assert_eq!(route.lane.source(), crate::config::sources::only(&route.provider));
                route.lane.clone()
            };
            let four = to(&["203.0.113.1"], Some(&six));
            assert!(four.source().is_some_and(|ip| ip.is_ipv4()), "{four}");
            assert_eq!(to(&["203.0.113.1"], Some(&four)), four);
            assert_eq!(to(&["2001:db8::9"], Some(&four)), six);
            assert_eq!(to(&["203.0.113.1", "2001:db8::9"], Some(&six)), six, "it stays if it can");
            // With nobody of the other family to go to, mail does not go round in circles.
            resting.lock().insert(six.clone());
            assert_eq!(to(&["2001:db8::9"], Some(&six)), six);
            assert_eq!(sources.elsewhere(&six, &p, Some(&sender)), None);
            assert!(to(&["203.0.113.1", "2001:db8::9"], Some(&six)).source().is_some_and(|ip| ip.is_ipv4()));
            resting.lock().clear();
        }
    }

    #[test]
    fn domains_without_a_provider_have_lanes_for_each_source_too() {
        let default = Provider { name: "default".into(), ..provider(&["192.0.2.1", "2001:db8::1"]) };
        let mut config = sample::config();
        config.default = Arc::new(default.clone());
        let sources = Sources::new(&config);
        let lane = sources.lane(LaneName::domain("x.example"), &default, None);
        assert_eq!((lane.base(), lane.as_domain()), ("@x.example", Some("x.example")));
        assert!(sources.seen_from(&lane, &default).is_some());
    }
}
