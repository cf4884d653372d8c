//! Why a recipient goes where it goes, for people: the same decision as [`Router::resolve`], with the
//! rule that made it, the hosts, and for how long DNS said so.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::super::records::{Mx, Place};
use super::super::select::Addresses;
use super::super::sts::Mode;
use super::super::{RouteError, domain::Target};
use super::{Inner, Router, parse_name, printed};
use crate::clock::Clock;
use crate::config::Provider;
use crate::config::units::Span;
use crate::mail::{Address, Incoming};

/// The way of a recipient, explained.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// The provider whose limits hold; `default` if none matches. Empty if that is not known.
    pub provider: String,
    /// The lane it would wait in.
    pub lane: String,
    /// Why this provider: the pattern or route that matched.
    pub why: String,
    /// Which `[[route]]` of the file decided, from 1; `None` if none did.
    pub route: Option<usize>,
    /// The recipient's domain, or the smart host.
    pub destination: String,
    /// The port that would be connected to.
    pub port: u16,
    /// Everything goes to a host that the configuration names, so MX records are not asked.
    pub smart_host: bool,
    /// Seconds that the MX answer still holds; `None` without one.
    pub mx_ttl: Option<u64>,
    /// What the domain publishes on TLS, in words; empty: nothing that is known, or it is not looked for.
    #[serde(default)]
    pub policy: String,
    /// Hosts in order of preference, those that would not be tried too.
    pub hosts: Vec<ExplainedHost>,
    /// Why there is no way; empty if there is.
    pub problem: String,
    /// That will not change by itself: the message would bounce.
    pub permanent: bool,
}

/// One host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedHost {
    /// Its name.
    pub name: String,
    /// MX preference.
    pub preference: u16,
    /// What DNS gives for it.
    pub addresses: Vec<IpAddr>,
    /// Seconds that the addresses still hold; `None` if they are not from DNS.
    pub ttl: Option<u64>,
    /// It would be tried.
    pub used: bool,
    /// What it has to show in TLS because of what is published, in words; empty: what `tls` says.
    #[serde(default)]
    pub tls: String,
    /// Why there is no address; empty if there is one.
    pub problem: String,
}

impl Router {
    /// Explains the way of a recipient; asks DNS where the answer is not at hand, like
    /// [`Router::resolve`].
    pub async fn explain<'a>(&self, from: impl Into<Incoming<'a>>, recipient: &Address) -> Explained {
        let (inner, from) = (&self.inner, from.into());
        let outcome = self.resolve(from, recipient).await;
        let target = Target::of(recipient);
        let mut told = Explained { destination: target.text().to_string(), ..Explained::default() };
        match &outcome {
            Ok(route) => {
                told.provider = route.provider.name.clone();
                told.lane = route.lane.to_string();
                told.port = route.port;
                told.destination = route.destination.to_string();
                told.smart_host = route.provider.relay.is_some();
            }
            Err(error) => {
                told.problem = error.to_string();
                told.permanent = matches!(error, RouteError::Permanent { .. });
                told.lane = self.lane_of(from, recipient).to_string();
            }
        }
        let mut names = Vec::new();
        if !told.smart_host {
            names = inner.tell_hosts(&target, &mut told).await;
        }
        // What was used is in the route; a smart host and a literal are only there.
        if let Ok(route) = &outcome {
            for used in route.hosts.iter() {
                let at = match told.hosts.iter().position(|h| h.name == used.name) {
                    Some(at) => at,
                    None => {
                        let (name, preference) = (used.name.clone(), used.preference);
                        let ttl = match parse_name(&name) {
                            Some(dns_name) => inner.seconds_of_host(&printed(&dns_name).into()).await,
                            None => None,
                        };
                        told.hosts.push(ExplainedHost { name, preference, ttl, ..ExplainedHost::default() });
                        told.hosts.len() - 1
                    }
                };
                if let Some(host) = told.hosts.get_mut(at) {
                    host.used = true;
                    host.addresses = used.addresses.clone();
                    host.tls = used.policy.to_string();
                }
            }
        }
        inner.tell_why(&from, recipient, &target, &names, &mut told);
        if let (Target::Domain { ascii, .. }, false) = (&target, told.smart_host) {
            inner.tell_policy(ascii, &mut told).await;
        }
        told
    }
}

impl Inner {
    async fn seconds_of_host(&self, key: &Arc<str>) -> Option<u64> {
        Some(seconds(self.hosts.kept(key).await?.until))
    }

    /// What the domain publishes on TLS, and which hosts get no mail because of it.
    async fn tell_policy(&self, domain: &Arc<str>, told: &mut Explained) {
        let provider = self.config.provider(&told.provider).unwrap_or(&self.config.default);
        for host in told.hosts.iter_mut().filter(|host| !host.used && host.problem.is_empty()) {
            host.problem = self.why_not_dane(&host.name, provider).await;
        }
        let Some(policy) = self.policy_of(domain, provider) else {
            if self.sts.get().is_some() && self.has_record(domain).await {
                told.policy = "MTA-STS: DNS says that there is a policy, which cannot be had now".into();
            }
            return;
        };
        let left = policy.expires().since(Clock::System.now()).as_secs();
        told.policy = format!(
            "MTA-STS, mode {}, id {}, for {}: {}",
            policy.mode,
            policy.id,
            Span(Duration::from_secs(left)),
            policy.hosts()
        );
        let refused = told.hosts.iter_mut().filter(|host| !host.used && host.problem.is_empty());
        for host in refused.filter(|host| policy.mode == Mode::Enforce && !policy.names(&host.name)) {
            host.problem = "the MTA-STS policy does not name it".into();
        }
    }

    /// Fills in the hosts that DNS names; returns the names of the preferred ones.
    async fn tell_hosts(&self, target: &Target, told: &mut Explained) -> Vec<Arc<str>> {
        let Target::Domain { ascii, name, .. } = target else { return Vec::new() };
        let Some(kept) = self.mx.kept(ascii).await else { return Vec::new() };
        told.mx_ttl = Some(seconds(kept.until));
        let exchanges = match kept.value {
            Mx::List(list, _) => list,
            Mx::None => [super::Exchange { preference: 0, text: ascii.clone(), at: Place::Name(name.clone()) }].into(),
            Mx::Null | Mx::NoDomain | Mx::Failed(_) | Mx::Bogus(_) => return Vec::new(),
        };
        let best = exchanges.first().map_or(0, |e| e.preference);
        let mut names = Vec::new();
        for exchange in exchanges.iter() {
            let mut host = ExplainedHost {
                name: exchange.text.to_string(),
                preference: exchange.preference,
                ..ExplainedHost::default()
            };
            let mut canonical = None;
            match &exchange.at {
                Place::Ip(ip) => host.addresses = vec![*ip],
                Place::Name(_) => {
                    if let Some(kept) = self.hosts.kept(&exchange.text).await {
                        host.ttl = Some(seconds(kept.until));
                        canonical = kept.value.canonical;
                        match kept.value.addresses {
                            Addresses::Found(ips) => host.addresses = ips.iter().map(IpAddr::to_canonical).collect(),
                            Addresses::None => host.problem = "it has no address".into(),
                            Addresses::NoDomain => host.problem = "there is no such host".into(),
                            Addresses::Failed(text) | Addresses::Bogus(text) => host.problem = text.to_string(),
                        }
                    }
                }
            }
            if exchange.preference == best {
                names.push(exchange.text.clone());
                names.extend(canonical);
            }
            told.hosts.push(host);
        }
        names
    }

    /// Which rule of the configuration decided, in the order in which they are asked.
    fn tell_why(
        &self,
        from: &Incoming<'_>,
        recipient: &Address,
        target: &Target,
        preferred: &[Arc<str>],
        told: &mut Explained,
    ) {
        let config = &self.config;
        let of_user = config.user_of(from).and_then(|user| Some((user, config.provider(user.via.as_deref()?)?)));
        if let Some((user, provider)) = of_user {
            told.provider = provider.name.clone();
            told.why = format!("the [[user]] {} has via = \"{}\"", user.name, provider.name);
            return;
        }
        if let Some(at) = config.route_index(*from, recipient) {
            let Some(route) = config.routes.get(at) else { return };
            told.route = Some(route.number);
            told.provider = route.via.name.clone();
            told.why = format!("[[route]] no. {} takes it: {}, via = \"{}\"", route.number, route.when, route.via.name);
            return;
        }
        let domains: Vec<&str> = match target {
            Target::Domain { ascii, unicode, .. } => {
                [Some(&**ascii), unicode.as_deref()].into_iter().flatten().collect()
            }
            Target::Literal { text, .. } | Target::Invalid { text } => vec![text],
        };
        for domain in domains {
            let matching = |p: &Arc<Provider>| p.match_domains.iter().find(|m| m.matches(domain)).cloned();
            if let Some((provider, pattern)) = config.providers.iter().find_map(|p| Some((p, matching(p)?))) {
                told.provider = provider.name.clone();
                told.why = format!("the domain {domain} matches match.domains = \"{}\"", pattern.as_str());
                return;
            }
        }
        let by_mx = config.providers.iter().find_map(|provider| {
            let found = |name: &Arc<str>| provider.match_mx.iter().find(|m| m.matches(name)).map(|m| (name.clone(), m));
            Some((provider, preferred.iter().find_map(found)?))
        });
        match by_mx {
            Some((provider, (host, pattern))) => {
                told.provider = provider.name.clone();
                told.why = format!("the mail host {host} matches match.mx = \"{}\"", pattern.as_str());
            }
            // Without MX nobody knows whose it is.
            None if told.provider.is_empty() && told.hosts.is_empty() && !told.permanent => {
                told.why = "not known: its mail hosts could not be found".into();
            }
            None => {
                told.provider = config.default.name.clone();
                told.why = "no provider matches, so the limits of [default] hold, for this domain alone".into();
            }
        }
    }
}

/// Whole seconds from now.
fn seconds(until: Instant) -> u64 {
    until.saturating_duration_since(Instant::now()).as_secs()
}
