//! The router: which provider, which hosts, from configuration and DNS.

#[path = "explain.rs"]
mod explain;
#[path = "policies.rs"]
mod policies;

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hickory_resolver::Hosts;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::cache::{Bounds, Kept, Memo, routes_cache};
use super::dns::{Dns, NameServer, Whose};
use super::domain::{Form, Target, parse_name, printed};
use super::records::{Exchange, HostAddresses, MAX_ADDRESSES, Mx, Place};
use super::select::{Addresses, Candidate, Ourselves, interleave, no_such_domain, select};
use super::source::Sources;
use super::sts::{Record, Standing, Sts};
use super::tlsa::Published;
use super::{Host, NO_TLS, PolicyFault, Route, RouteError, RouterError, TlsFacts, TlsPolicy};
use crate::config::{Config, Provider, Relay, RouteWhen};
use crate::descriptors::MAX_QUERIES;
use crate::mail::{Address, Incoming, LaneName, TlsWish};
use crate::tls_report::ResultType;

/// How long an entry of `/etc/hosts` holds, and the address of an address literal.
const LOCAL_TTL: Duration = Duration::from_secs(3600);

/// Bytes of `[queue] memory` for each name of which answers are kept, and names whatever it is.
const KEPT_COST: u64 = 8 << 10;
const KEPT_LEAST: u64 = 1024;

pub use explain::{Explained, ExplainedHost};
use policies::{apply, by_name_alone, with_tls};

type Outcome = Result<Arc<Route>, RouteError>;

/// Finds the way for recipients. Cheap to clone; a reload makes a new one.
#[derive(Clone)]
pub struct Router {
    inner: Arc<Inner>,
}

struct Inner {
    config: Arc<Config>,
    dns: Dns,
    /// For smart hosts only: their names are the operator's, so `/etc/hosts` may know them.
    hosts_file: Hosts,
    ourselves: Ourselves,
    sources: Sources,
    mx: Memo<Mx>,
    hosts: Memo<HostAddresses>,
    /// Records of MTA-STS, by domain.
    records: Memo<Record>,
    /// What is published by DANE, by the name where it is.
    tlsa: Memo<Published>,
    sts: OnceLock<Arc<Sts>>,
    routes: moka::sync::Cache<Arc<str>, Kept<Outcome>>,
    /// Failures from before are not believed any more.
    failures_until: Mutex<Option<Instant>>,
    names: HashMap<String, Names>,
}

/// Texts of a provider that every message needs, made once.
struct Names {
    lane: LaneName,
    /// Under which the route to its smart host is kept.
    relay: Arc<str>,
}

/// What the configuration alone decides about a recipient.
enum Way<'a> {
    /// To the smart host of this provider.
    Relay(&'a Arc<Provider>, &'a Relay),
    /// By MX; the provider, if it is known before MX.
    Mx(Option<&'a Arc<Provider>>),
}

impl Router {
    /// Reads the system's resolver configuration if the configuration names no name servers;
    /// sends nothing yet.
    pub fn new(config: Arc<Config>) -> Result<Router, RouterError> {
        Router::with_queries(config, MAX_QUERIES)
    }

    pub(super) fn dns(&self) -> &Dns {
        &self.inner.dns
    }

    /// The addresses of a host that the operator named and that takes no mail; at least one.
    ///
    /// # Errors
    /// It has none, or nobody knows now: why, for people.
    pub async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        let name = host.trim_end_matches('.').to_lowercase();
        match self.inner.addresses_of(&name).await.0 {
            Addresses::Found(ips) => Ok(ips.iter().map(IpAddr::to_canonical).collect()),
            Addresses::None => Err(format!("{name} has no address")),
            Addresses::NoDomain => Err(format!("{name} does not exist")),
            Addresses::Failed(text) | Addresses::Bogus(text) => Err(format!("{name}: {text}")),
        }
    }

    /// The same with at most so many questions to name servers at once.
    ///
    /// # Errors
    /// As [`Router::new`].
    pub fn with_queries(config: Arc<Config>, queries: usize) -> Result<Router, RouterError> {
        let dns = Dns::new(&config.dns, queries)?;
        Ok(Router::with(config, dns))
    }

    /// Asks this name server, in this process, instead of those of the configuration: for simulations.
    #[doc(hidden)]
    pub fn with_name_server(config: Arc<Config>, server: Arc<dyn NameServer>) -> Router {
        let dns = Dns::given(server, &config.dns);
        Router::with(config, dns)
    }

    fn with(config: Arc<Config>, dns: Dns) -> Router {
        let bounds = Bounds::new(&config.dns);
        // What is kept of a name is a part of what memory is used for.
        let size = config.dns.cache_size.min((config.queue.memory / KEPT_COST).max(KEPT_LEAST));
        let names = |provider: &Arc<Provider>| {
            // No domain has a space in it.
            (provider.name.clone(), Names { lane: provider.lane(), relay: format!("via {}", provider.name).into() })
        };
        Router {
            inner: Arc::new(Inner {
                dns,
                hosts_file: Hosts::from_system().unwrap_or_default(),
                ourselves: Ourselves::new(&config),
                sources: Sources::new(&config),
                mx: Memo::new(size, bounds),
                hosts: Memo::new(size, bounds),
                records: Memo::new(size, bounds),
                tlsa: Memo::new(size, bounds),
                sts: OnceLock::new(),
                routes: routes_cache(size),
                failures_until: Mutex::default(),
                names: config.providers.iter().chain([&config.default]).map(names).collect(),
                config,
            }),
        }
    }

    /// The lane a new recipient waits in, from what is known without I/O: `[[route]]`,
    /// `match.domains`, or the provider that the domain's MX led to when it was looked up last;
    /// else the lane of its domain. Where limits hold for each source, that of a source.
    pub fn lane_of<'a>(&self, from: impl Into<Incoming<'a>>, recipient: &Address) -> LaneName {
        let (inner, from) = (&self.inner, from.into());
        let sender = from.sender;
        let form = Form::of(recipient);
        match inner.way(&from, recipient, &form) {
            Way::Relay(provider, _) | Way::Mx(Some(provider)) => {
                let lane = inner.names.get(&provider.name).map_or_else(|| provider.lane(), |names| names.lane.clone());
                inner.sources.lane(lane, provider, sender)
            }
            Way::Mx(None) => match inner.routes.get(&*form.text) {
                Some(Kept { value: Ok(route), .. }) => inner.sources.route(route, sender, None).lane.clone(),
                _ => inner.sources.lane(LaneName::domain(&form.text), &inner.config.default, sender),
            },
        }
    }

    /// Says how to know whether the lane of a source takes mail now; before this, all do.
    pub fn ask(&self, takes: impl Fn(&LaneName) -> bool + Send + Sync + 'static) {
        self.inner.sources.ask(Box::new(takes));
    }

    /// The lane of another source, for mail of `sender` in a lane whose source does not take any;
    /// also for a lane that the configuration no longer leads to. `None`: it stays.
    pub fn elsewhere(&self, lane: &LaneName, sender: Option<&Address>) -> Option<LaneName> {
        let config = &self.inner.config;
        if self.inner.sources.is_empty() && lane.source().is_none() {
            return None;
        }
        let provider = match lane.as_domain() {
            Some(_) => Some(&config.default),
            None => config.provider(lane.base()),
        };
        match provider {
            Some(provider) => self.inner.sources.elsewhere(lane, provider, sender),
            None => lane.source().map(|_| LaneName::from(lane.base())),
        }
    }

    /// Whether a lane of that name is one of a provider that the configuration does not have: nothing may leave
    /// from it, under whichever limits.
    pub fn is_former(&self, lane: &LaneName) -> bool {
        let config = &self.inner.config;
        let default = || config.default.relay.is_some() && lane.base() == config.default.name;
        lane.as_domain().is_none() && config.provider(lane.base()).is_none() && !default()
    }

    /// Whether [`Router::elsewhere`] could be a lane that takes mail, for a lane of a source.
    pub fn another_takes(&self, lane: &LaneName) -> bool {
        self.inner.sources.another_takes(lane, self.configured(lane))
    }

    /// Whether mail may be sent from a lane of that name: the configuration leads to it.
    pub fn leads_to(&self, lane: &LaneName) -> bool {
        if self.is_former(lane) {
            return false;
        }
        let each = self.inner.sources.of(self.configured(lane));
        match lane.source() {
            None => each.is_empty(),
            Some(_) => self.inner.sources.seen_from(lane, self.configured(lane)).is_some(),
        }
    }

    /// The lanes of a provider, or of a domain (`@domain`): one, or one for each source.
    pub fn lanes_of(&self, base: &LaneName) -> Vec<LaneName> {
        let each = self.inner.sources.of(self.configured(base));
        let lanes: Vec<LaneName> = each.iter().flat_map(|p| &p.source).map(|source| base.at(source.address)).collect();
        if lanes.is_empty() { vec![base.clone()] } else { lanes }
    }

    /// The way to go now. Waits for DNS unless the answer is at hand; the wait is bounded by
    /// `[dns] timeout` and `attempts` for each of the questions it takes.
    pub async fn resolve<'a>(
        &self,
        from: impl Into<Incoming<'a>>,
        recipient: &Address,
    ) -> Result<Arc<Route>, RouteError> {
        let from = from.into();
        let route = self.without_source(&from, recipient, Whose::Known).await?;
        Ok(self.inner.sources.route(route, from.sender, None))
    }

    /// The same for what waits in lane `now`, and stays with its source if that can carry it. `known`:
    /// it is not a domain that has yet to show that it takes mail; its questions wait for none of these.
    pub async fn resolve_in<'a>(
        &self,
        now: &LaneName,
        known: bool,
        from: impl Into<Incoming<'a>>,
        recipient: &Address,
    ) -> Result<Arc<Route>, RouteError> {
        let from = from.into();
        let whose = if known { Whose::Known } else { Whose::Unknown };
        let route = self.without_source(&from, recipient, whose).await?;
        Ok(self.inner.sources.route(route, from.sender, Some(now)))
    }

    /// Asks the name servers again for what they could not tell, or said is not there, until now.
    pub fn forget_failures(&self) {
        let inner = &self.inner;
        inner.mx.forget_failures();
        inner.hosts.forget_failures();
        inner.records.forget_failures();
        inner.tlsa.forget_failures();
        inner.sts.get().inspect(|sts| sts.forget_failures());
        *inner.failures_until.lock() = Some(Instant::now());
    }

    async fn without_source(&self, from: &Incoming<'_>, recipient: &Address, whose: Whose) -> Outcome {
        let inner = &self.inner;
        let form = Form::of(recipient);
        let way = inner.way(from, recipient, &form);
        // What others ask for of TLS is kept apart; a smart host is asked for nothing that is published.
        let wish = from.tls;
        let key: Cow<'_, str> = match &way {
            Way::Mx(provider) if wish != TlsWish::Usual => {
                let via = provider.map_or("", |provider| &provider.name);
                format!("{} via {via} tls {wish:?}", form.text).into()
            }
            Way::Relay(provider, _) if wish == TlsWish::Required => {
                format!("via {} tls {wish:?}", provider.name).into()
            }
            Way::Mx(None) => Cow::Borrowed(&form.text),
            Way::Mx(Some(provider)) => format!("{} via {}", form.text, provider.name).into(),
            Way::Relay(provider, _) => match inner.names.get(&provider.name) {
                Some(names) => Cow::Borrowed(&names.relay),
                None => format!("via {}", provider.name).into(),
            },
        };
        if let Some(kept) = inner.routes.get(&*key)
            && Instant::now() < kept.until
            && (kept.value.is_ok() || !kept.is_before(*inner.failures_until.lock()))
        {
            return kept.value;
        }
        let (outcome, until) = match way {
            Way::Relay(provider, relay) => inner.by_relay(provider, relay).await,
            Way::Mx(provider) => self.by_mx(&Target::of(recipient), provider, whose, wish).await,
        };
        let outcome = outcome.and_then(|route| match wish {
            TlsWish::Required => with_tls(route),
            TlsWish::Usual | TlsWish::Optional => Ok(route),
        });
        let kept = match &outcome {
            Ok(_) => Kept::new(outcome.clone(), until),
            Err(_) => Kept::failure(outcome.clone(), until),
        };
        inner.routes.insert(key.into(), kept);
        outcome
    }

    /// The provider whose limits hold in a lane; those of `[default]` for the lane of a domain and
    /// for a provider that the configuration no longer has.
    /// For the lane of a source, the provider as seen from there.
    pub fn provider_of_lane(&self, lane: &LaneName) -> Arc<Provider> {
        let provider = self.configured(lane);
        self.inner.sources.seen_from(lane, provider).unwrap_or(provider).clone()
    }

    fn configured(&self, lane: &LaneName) -> &Arc<Provider> {
        let config = &self.inner.config;
        config.provider(lane.base()).unwrap_or(&config.default)
    }

    /// The providers that mail may go through by the configuration alone, each with what else its route asks for; of
    /// mail of which it is not known from which client or listener it came. For comparison.
    pub fn ways_of(&self, sender: Option<&Address>, user: &str, recipient: &Address) -> Vec<String> {
        let config = &self.inner.config;
        let from = Incoming { sender, user, ..Incoming::default() };
        if let Some(via) = config.user_of(&from).and_then(|user| user.via.as_deref()) {
            return vec![via.to_owned()];
        }
        let mut ways = Vec::new();
        for route in config.routes.iter().filter(|route| route.when.may_fit(sender, user, recipient)) {
            let RouteWhen { client, listener, .. } = &route.when;
            if route.when.is_for_all_clients() {
                ways.push(route.via.name.clone());
                return ways;
            }
            ways.push(format!("{} {client:?} {listener:?}", route.via.name));
        }
        ways.push(match self.inner.way(&from, recipient, &Form::of(recipient)) {
            Way::Relay(provider, _) | Way::Mx(Some(provider)) => provider.name.clone(),
            Way::Mx(None) => String::new(),
        });
        ways
    }

    /// `wish`: whether what is published on TLS is asked for, and what else mail has to have of it.
    async fn by_mx(
        &self,
        target: &Target,
        chosen: Option<&Arc<Provider>>,
        whose: Whose,
        wish: TlsWish,
    ) -> (Outcome, Instant) {
        let inner = &self.inner;
        let optional = wish == TlsWish::Optional;
        let destination = target.text();
        let fallback = match (chosen, &inner.config.default.relay) {
            (None, Some(relay)) => Some(relay),
            _ => None,
        };
        let (exchanges, implicit, signed, until) = match target {
            Target::Invalid { text } => {
                let text = format!("{text} is not a domain name");
                let error = RouteError::Permanent { code: 550, enhanced: "5.1.2", text };
                return (Err(error), Instant::now() + LOCAL_TTL);
            }
            Target::Literal { ip, .. } => {
                let host = Exchange { preference: 0, text: ip.to_string().into(), at: Place::Ip(*ip) };
                (Arc::from([host]), false, false, Instant::now() + LOCAL_TTL)
            }
            Target::Domain { name, ascii, .. } => {
                let kept = inner.mx.get(ascii, inner.dns.look_up_mx(name, whose)).await;
                let error = match kept.value {
                    Mx::List(list, signed) => Ok((list, false, signed)),
                    // RFC 5321 §5.1: a domain without MX is its own mail host.
                    Mx::None => Ok((
                        Arc::from([Exchange { preference: 0, text: ascii.clone(), at: Place::Name(name.clone()) }]),
                        true,
                        // Its address is asked for in the same zone.
                        true,
                    )),
                    Mx::Null => Err(RouteError::Permanent {
                        code: 556,
                        enhanced: "5.1.10",
                        text: format!("the domain {ascii} accepts no mail (null MX)"),
                    }),
                    Mx::NoDomain => Err(no_such_domain(ascii, true)),
                    Mx::Failed(text) => Err(RouteError::Temporary { enhanced: "4.4.3", text: text.to_string() }),
                    Mx::Bogus(text) => {
                        Err(forged(ascii, optional, RouteError::Temporary { enhanced: NO_TLS, text: text.to_string() }))
                    }
                };
                match (error, fallback) {
                    (Ok((list, implicit, signed)), _) => (list, implicit, signed, kept.until),
                    // A default smart host may know what our DNS does not.
                    (Err(_), Some(relay)) => return inner.by_relay(&inner.config.default, relay).await,
                    (Err(error), None) => return (Err(error), kept.until),
                }
            }
        };

        // The hosts of the best preference decide the provider; those with a smart host need no addresses.
        let best = exchanges.first().map_or(0, |e| e.preference);
        let by_name = |names: &mut dyn Iterator<Item = &str>| {
            let names: Vec<&str> = names.collect();
            inner.config.providers.iter().find(|p| p.match_mx.iter().any(|m| names.iter().any(|n| m.matches(n))))
        };
        let provider =
            chosen.or_else(|| by_name(&mut exchanges.iter().filter(|e| e.preference == best).map(|e| &*e.text)));
        if let Some((provider, relay)) = provider.and_then(|p| Some((p, p.relay.as_ref()?))) {
            return inner.by_relay(provider, relay).await;
        }

        let likely = provider.unwrap_or(&inner.config.default);
        let dane = (signed && !optional && inner.wants_dane(likely)).then_some(likely.port);
        let standing = async {
            match target {
                Target::Domain { ascii, .. } if !optional => self.standing(ascii, likely, whose).await,
                Target::Domain { .. } | Target::Literal { .. } | Target::Invalid { .. } => None,
            }
        };
        let ((candidates, mut until), standing) =
            tokio::join!(self.look_up_hosts(&exchanges, until, dane, whose), standing);
        let standing = standing.map(|(standing, its)| {
            until = until.min(its);
            standing
        });
        let provider = provider.or_else(|| {
            by_name(&mut candidates.iter().filter(|c| c.preference == best).filter_map(|c| c.canonical.as_deref()))
        });
        let (provider, lane) = match (provider, fallback) {
            (Some(provider), _) => (provider, provider.lane()),
            (None, Some(relay)) => return inner.by_relay(&inner.config.default, relay).await,
            (None, None) => (&inner.config.default, LaneName::domain(destination)),
        };
        if let Some(relay) = &provider.relay {
            return inner.by_relay(provider, relay).await;
        }
        let hosts = select(destination, &candidates, implicit, provider, &inner.ourselves);
        let hosts = hosts.map_err(|error| forged(destination, optional, error));
        let sts = match &standing {
            Some(Standing::Policy(policy)) => Some(policy.clone()),
            _ => None,
        };
        let of_domain = matches!(target, Target::Domain { .. }) && wish == TlsWish::Usual;
        // A literal has no name that somebody could forge.
        let named = signed || matches!(target, Target::Literal { .. });
        let unfetched = match &standing {
            Some(Standing::Unfetched(why)) => Some(why.text.clone()),
            _ => None,
        };
        let mut faults = Vec::new();
        let hosts = hosts.and_then(|hosts| apply(hosts, &candidates, standing, provider, destination, &mut faults));
        let hosts = hosts.and_then(|hosts| match wish {
            TlsWish::Required => by_name_alone(hosts, named, unfetched, destination),
            TlsWish::Usual | TlsWish::Optional => Ok(hosts),
        });
        let facts = of_domain.then(|| TlsFacts { domain: destination.clone(), sts, faults });
        let outcome = match hosts {
            Ok(hosts) => Ok(Arc::new(Route {
                lane,
                provider: provider.clone(),
                destination: destination.clone(),
                hosts: hosts.into(),
                port: provider.port,
                facts: facts.map(Arc::new),
            })),
            Err(error) => Err(match facts {
                Some(facts) => facts.refuses(error),
                None => error,
            }),
        };
        (outcome, until)
    }

    /// The addresses of all hosts, asked for at the same time.
    async fn look_up_hosts(
        &self,
        exchanges: &[Exchange],
        mut until: Instant,
        dane: Option<u16>,
        whose: Whose,
    ) -> (Vec<Candidate>, Instant) {
        let mut tasks = JoinSet::new();
        let mut candidates: Vec<Candidate> = Vec::with_capacity(exchanges.len());
        for (index, exchange) in exchanges.iter().enumerate() {
            let addresses = match &exchange.at {
                Place::Ip(ip) => Addresses::Found(Arc::from([*ip])),
                Place::Name(name) => {
                    let (inner, name, key) = (self.inner.clone(), name.clone(), exchange.text.clone());
                    tasks.spawn(async move {
                        let kept = inner.hosts.get(&key, inner.dns.look_up_addresses(&name, whose)).await;
                        let port = dane.filter(|_| kept.value.secure);
                        let tlsa = inner.records_of(&key, kept.value.canonical.as_ref(), port, whose).await;
                        (index, kept, tlsa)
                    });
                    Addresses::Failed("the look-up was broken off".into())
                }
            };
            let Exchange { text, preference, .. } = exchange;
            let tlsa = (text.clone(), Published::Nothing);
            candidates.push(Candidate {
                name: text.clone(),
                canonical: None,
                preference: *preference,
                addresses,
                tlsa,
            });
        }
        while let Some(done) = tasks.join_next().await {
            if let Ok((index, kept, (tlsa, its))) = done
                && let Some(candidate) = candidates.get_mut(index)
            {
                until = until.min(kept.until).min(its);
                candidate.tlsa = tlsa;
                candidate.addresses = kept.value.addresses;
                candidate.canonical = kept.value.canonical;
            }
        }
        (candidates, until)
    }
}

/// An answer of DNS that is not believed, as reports have it.
fn forged(domain: &Arc<str>, optional: bool, error: RouteError) -> RouteError {
    match &error {
        RouteError::Temporary { enhanced: NO_TLS, text } if !optional => {
            let faults = vec![PolicyFault::of_dane(ResultType::DnssecInvalid, "", text)];
            TlsFacts { domain: domain.clone(), sts: None, faults }.refuses(error)
        }
        _ => error,
    }
}

impl Inner {
    fn way(&self, from: &Incoming<'_>, recipient: &Address, form: &Form<'_>) -> Way<'_> {
        let provider_for = |domain: &str| self.config.provider_for_domain(domain);
        let by_domain = || provider_for(&form.text).or_else(|| form.unicode.as_deref().and_then(provider_for));
        let chosen = self.config.via_for(*from, recipient).or_else(by_domain);
        if let Some(provider) = chosen {
            return match &provider.relay {
                Some(relay) => Way::Relay(provider, relay),
                None => Way::Mx(Some(provider)),
            };
        }
        match &self.config.default.relay {
            Some(relay) if self.config.providers.iter().all(|p| p.match_mx.is_empty()) => {
                Way::Relay(&self.config.default, relay)
            }
            _ => Way::Mx(None),
        }
    }

    /// A smart host: its addresses, no MX. The operator named it, so it may be anywhere but here;
    /// whatever is wrong with it is mended by the operator, so mail waits.
    async fn by_relay(&self, provider: &Arc<Provider>, relay: &Relay) -> (Outcome, Instant) {
        let temporary = |enhanced, text| Err(RouteError::Temporary { enhanced, text });
        let name = relay.host.trim_end_matches('.').to_lowercase();
        let (addresses, until) = self.addresses_of(&name).await;
        let addresses: Vec<IpAddr> = match addresses {
            Addresses::Found(ips) => ips.iter().map(IpAddr::to_canonical).collect(),
            Addresses::None => return (temporary("4.4.4", format!("the smart host {name} has no address")), until),
            Addresses::NoDomain => {
                let hint = if name.contains('.') {
                    ""
                } else {
                    ": a name without a dot is not completed from the search list of resolv.conf, expected the whole name"
                };
                return (temporary("4.4.4", format!("the smart host {name} does not exist{hint}")), until);
            }
            Addresses::Failed(text) => return (temporary("4.4.3", format!("the smart host {name}: {text}")), until),
            Addresses::Bogus(text) => return (temporary(NO_TLS, format!("the smart host {name}: {text}")), until),
        };
        if addresses.iter().any(|ip| self.ourselves.listens_at(*ip, relay.port)) {
            let text =
                format!("the smart host {name}:{} of provider {} is this relay itself", relay.port, provider.name);
            return (temporary("4.4.6", text), until);
        }
        let route = Route {
            lane: provider.lane(),
            provider: provider.clone(),
            destination: name.as_str().into(),
            hosts: Arc::from([Host { name, preference: 0, addresses, policy: TlsPolicy::None }]),
            port: relay.port,
            facts: None,
        };
        (Ok(Arc::new(route)), until)
    }

    /// The addresses of a host that the operator named, and until when that holds.
    async fn addresses_of(&self, name: &str) -> (Addresses, Instant) {
        let literal = name.trim_matches(['[', ']']).parse::<IpAddr>();
        match (literal, parse_name(name)) {
            (Ok(ip), _) => (Addresses::Found(Arc::from([ip])), Instant::now() + LOCAL_TTL),
            (Err(_), None) => (Addresses::NoDomain, Instant::now() + LOCAL_TTL),
            (Err(_), Some(dns_name)) => match self.in_hosts_file(&dns_name) {
                Some(ips) => (Addresses::Found(ips.into()), Instant::now() + LOCAL_TTL),
                None => {
                    let key: Arc<str> = printed(&dns_name).into();
                    let kept = self.hosts.get(&key, self.dns.look_up_addresses(&dns_name, Whose::Known)).await;
                    (kept.value.addresses, kept.until)
                }
            },
        }
    }

    fn in_hosts_file(&self, name: &Name) -> Option<Vec<IpAddr>> {
        let [v6, v4] = [RecordType::AAAA, RecordType::A].map(|kind| {
            let found = self.hosts_file.lookup_static_host(&Query::query(name.clone(), kind));
            found.iter().flat_map(|l| l.answers()).filter_map(|r| r.data.ip_addr()).collect::<Vec<_>>()
        });
        let ips = interleave(v6, v4, MAX_ADDRESSES);
        (!ips.is_empty()).then_some(ips)
    }
}
