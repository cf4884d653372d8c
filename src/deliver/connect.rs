//! From a route to a session: which host, which address, in which order.
//!
//! Hosts are tried in order of preference, those of equal preference in random order (RFC 5321
//! §5.1); the addresses of a host race with a head start for the first (RFC 8305). An address that
//! did not answer is remembered and tried last, so that broken IPv6 or a dead host costs its
//! time-out once and not for every message; one that turned us away at any stage up to AUTH is left alone likewise. When a route has no other address, nobody is asked
//! until the back-off of one of them is over (see `dead`), and then by one caller only; the others
//! hear so at once.
//!
//! Every socket is asked for ([`Admit`]) before it is opened: the addresses that race, further hosts,
//! and the one that goes on in clear text when STARTTLS fails.
//!
//! Bounded: [`MAX_ADDRESSES`] addresses and [`MAX_SESSIONS`] greetings for one call of
//! [`Connector::open`], of which each further host has one; a host that was left out is a fact like
//! others, because nobody knows what it would have said. The memory of dead addresses has a fixed size.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::rustls::ClientConfig;

use super::dead::{BackOff, DeadAddresses, Door, EarlyEnd};
use super::demand::Demand;
use super::fact::{Event, Fact, Peer, Stage};
use super::oauth::{Names, Tokens};
use super::quirks::Hosts;
use super::session::{Connection, Setup, SetupFailure};
use super::shown::{Attempted, Counter, Shown};
use super::source::Sources;
use super::tls::TlsSettings;
use super::{Io, Timeouts, probe, watch, wire};
use crate::clock::Clock;
use crate::config::{Config, Provider, Relay, Source, sources};
use crate::descriptors::{Counted, Descriptors, Slot};
use crate::mail::{FeatureKeys, Features, LaneName};
use crate::observe::seldom;
use crate::route::{Host, Route};
use crate::tls_report::Tally;

/// Addresses tried for one connection.
pub const MAX_ADDRESSES: usize = 12;
/// Greetings heard for one connection.
pub const MAX_SESSIONS: usize = 5;
/// Head start of an address before the next one of the same host is tried too.
const HEAD_START: Duration = Duration::from_millis(250);

/// The connector cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectorError {
    /// The EHLO name would break the command.
    #[error("`{0}` cannot be said in EHLO: expected a host name or an IP address")]
    Hostname(String),
}

/// Who is asked next of a route whose addresses are all left alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NextTry {
    /// The host's name.
    pub host: String,
    /// In how long.
    pub left: Duration,
    /// Where it failed last.
    pub stage: Stage,
    /// What happened there.
    pub why: String,
    /// The mail alone that it is about, in words that follow "mail".
    pub about: Option<Arc<str>>,
}

/// Who says when one more socket may connect.
#[async_trait]
pub trait Admit: Send + Sync {
    /// Returns when one may, which counts from then on, with its right to a descriptor; `None`: no more
    /// of them.
    async fn admit(&self) -> Option<Slot>;
}

/// As many as are wanted, at once.
#[derive(Clone, Copy, Debug)]
pub struct Freely;

#[async_trait]
impl Admit for Freely {
    async fn admit(&self) -> Option<Slot> {
        Some(Slot::uncounted())
    }
}

/// Where streams come from, if not from the system: for simulations. No source address is bound, no
/// socket option set.
#[async_trait]
pub trait Dialer: Send + Sync + 'static {
    /// A connected stream.
    ///
    /// # Errors
    /// As `connect(2)`.
    async fn dial(&self, to: SocketAddr) -> io::Result<Box<dyn Io>>;
}

/// Makes connections. One for the whole program: it knows the dead addresses and the TLS tickets.
pub struct Connector {
    hostname: String,
    tls: TlsSettings,
    tokens: Tokens,
    timeouts: Timeouts,
    dead: Arc<DeadAddresses>,
    /// Local addresses that do not work.
    sources: Sources,
    /// What hosts do not take although they offer it; shared with the connections.
    quirks: Hosts,
    /// Makes streams instead of the system.
    dialer: Option<Arc<dyn Dialer>>,
    descriptors: Arc<Descriptors>,
    /// Counts sessions for reports on TLS.
    counter: Option<Counter>,
}

impl Connector {
    /// `hostname` is said in EHLO. Loads the system's root certificates.
    pub fn new(hostname: &str) -> Result<Connector, ConnectorError> {
        let fits = |c: char| !c.is_control() && !c.is_whitespace();
        if hostname.is_empty() || hostname.len() > 255 || !hostname.chars().all(fits) {
            return Err(ConnectorError::Hostname(hostname.to_owned()));
        }
        Ok(Connector {
            hostname: hostname.to_owned(),
            tls: TlsSettings::load(),
            tokens: Tokens::default(),
            timeouts: Timeouts::default(),
            dead: Arc::new(DeadAddresses::new()),
            sources: Sources::new(),
            quirks: Hosts::new(),
            dialer: None,
            descriptors: Descriptors::without_end(),
            counter: None,
        })
    }

    /// With other time-outs.
    pub fn with_timeouts(mut self, timeouts: Timeouts) -> Connector {
        self.timeouts = timeouts;
        self
    }

    /// With tokens for the providers of a configuration that log in with some.
    pub fn with_tokens(mut self, config: &Config, names: Arc<dyn Names>, clock: Clock) -> Connector {
        self.tokens = Tokens::new(config, &self.tls, &names, clock);
        self
    }

    /// The tokens.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// What a session with a smart host is set up with while a person waits for it.
    pub(super) fn setup_for<'a>(
        &'a self,
        provider: &'a Provider,
        relay: &'a Relay,
        ip: IpAddr,
        (demand, shown): (&'a Demand, &'a Shown),
    ) -> Setup<'a> {
        Setup {
            hostname: &self.hostname,
            provider,
            host: &relay.host,
            ip,
            demand,
            tls: &self.tls,
            tokens: &self.tokens,
            timeouts: probe::timeouts(),
            clear_text: false,
            shown,
        }
    }

    /// Counts the sessions with mail hosts for reports on TLS.
    pub fn with_tally(mut self, tally: Arc<Tally>, clock: Clock) -> Connector {
        self.counter = Some(Counter { tally, clock });
        self
    }

    /// Where sessions are counted, if they are.
    pub fn tally(&self) -> Option<&Arc<Tally>> {
        self.counter.as_ref().map(|counter| &counter.tally)
    }

    /// Who trusts what is trusted of every host, for requests over HTTPS.
    ///
    /// # Errors
    /// For people.
    pub fn https(&self, provider: &Provider) -> Result<Arc<ClientConfig>, String> {
        self.tls.verified(provider)
    }

    /// Within this budget of descriptors.
    pub fn with_descriptors(mut self, descriptors: Arc<Descriptors>) -> Connector {
        self.descriptors = descriptors;
        self
    }

    /// The budget of descriptors.
    pub fn descriptors(&self) -> &Arc<Descriptors> {
        &self.descriptors
    }

    /// Over streams that `dialer` makes instead of TCP: for simulations.
    #[doc(hidden)]
    pub fn with_dialer(mut self, dialer: Arc<dyn Dialer>) -> Connector {
        self.dialer = Some(dialer);
        self
    }

    /// [`Connector::open_for`] the null sender, with as many sockets as it takes.
    pub async fn open(&self, provider: &Provider, route: &Route) -> Result<Connection, Vec<Fact>> {
        self.open_for(provider, route, Features::from(""), &Freely).await
    }

    /// A session with the first host of the route that wants one, up to and including AUTH, for such
    /// mail, from the source address of its sender's domain, each socket as `admit` lets it. `Err` has what happened
    /// with each address tried; never empty.
    pub async fn open_for(
        &self,
        provider: &Provider,
        route: &Route,
        mail: Features<'_>,
        admit: &dyn Admit,
    ) -> Result<Connection, Vec<Fact>> {
        let domain = mail.sender_domain();
        let sources = self.sources.usable(&provider.source, domain, &route.lane);
        let result = self.try_hosts(provider, route, mail.keys(), &sources, admit).await;
        if provider.source.len() > 1 || sources::only(provider).is_some() {
            self.note(&result, &sources, &route.lane);
        }
        result
    }

    /// Whether the source of a lane works; true for lanes without one.
    pub fn source_works(&self, lane: &LaneName) -> bool {
        lane.source().is_none_or(|source| self.sources.works(source, lane))
    }

    /// Whether mail of this sender domain would leave from the source of this connection now.
    pub fn is_from_source_of(
        &self,
        connection: &Connection,
        provider: &Provider,
        lane: &LaneName,
        sender_domain: &str,
    ) -> bool {
        if provider.source.len() < 2 {
            return true;
        }
        let Some(peer) = connection.peer().ip else { return false };
        let sources = self.sources.usable(&provider.source, sender_domain, lane);
        of_family(&sources, peer).next().map(|source| source.address) == connection.source()
    }

    /// Learns from an attempt whether its source address works.
    fn note(&self, result: &Result<Connection, Vec<Fact>>, sources: &[&Source], lane: &LaneName) {
        let facts = match result {
            Ok(connection) => {
                if let Some(source) = connection.source() {
                    self.sources.greeted(source, lane);
                }
                return;
            }
            // Nobody was asked: that says nothing of the source.
            Err(facts) if facts.iter().any(|fact| matches!(fact.event, Event::BackOff { .. })) => return,
            Err(facts) => facts,
        };
        for v4 in [true, false] {
            let of_family = |fact: &&Fact| fact.peer.as_ref().and_then(|p| p.ip).is_some_and(|ip| ip.is_ipv4() == v4);
            let mut seen = facts.iter().filter(of_family).peekable();
            let Some(source) = sources.iter().find(|s| s.address.is_ipv4() == v4) else { continue };
            // Whoever replied could be reached, and what it said is about us, not about the address.
            let silent = |fact: &Fact| fact.stage <= Stage::Greeting && !matches!(fact.event, Event::Reply(_));
            if seen.peek().is_some()
                && seen.all(silent)
                && self.sources.failed(source.address, lane)
                && let Some(times) = seldom("resting", &format!("{lane} {}", source.address))
            {
                let (source, provider) = (source.address, lane.base());
                tracing::warn!(%source, provider, times, "no connection from this address works: resting it");
            }
        }
    }

    async fn try_hosts(
        &self,
        provider: &Provider,
        route: &Route,
        mail: FeatureKeys,
        sources: &[&Source],
        admit: &dyn Admit,
    ) -> Result<Connection, Vec<Fact>> {
        if let Some(fact) = self.left_alone(provider, route, mail).await {
            return Err(vec![fact]);
        }
        // No host is kept waiting for what another one has to say.
        if let Err(fault) = self.tokens.get(provider).await {
            let (left, why) = (fault.left.min(provider.retry.max), fault.text);
            return Err(vec![self.without_token(provider, route, left, Event::NoToken { left, why })]);
        }
        let mut facts = Vec::new();
        let (mut sessions, mut attempts) = (0, 0);
        let mut left_out = None;
        let order = self.order(provider, route);
        for (at, host) in order.iter().enumerate() {
            let mut addresses = self.addresses(provider, host, route.port);
            let known = addresses.len();
            // One is kept for each host that comes after this one, if there are so many.
            let kept = order.len() - at - 1;
            let share = |all: usize, used: usize| all.saturating_sub(kept).max(used + 1).min(all);
            let (most_sessions, most_attempts) = (share(MAX_SESSIONS, sessions), share(MAX_ADDRESSES, attempts));
            while attempts < most_attempts && sessions < most_sessions {
                let before = addresses.len();
                let most = most_attempts - attempts;
                let connected = self.race(provider, sources, host, &mut addresses, most, &mut facts, admit).await;
                attempts += before - addresses.len();
                let Some(reached) = connected else { break };
                let (address, source) = (reached.address, reached.source.map(|source| source.address));
                sessions += 1;
                let door = Door::new(provider, host, (sources::only(provider), address));
                match self.session(provider, route, host, reached, admit).await {
                    Ok(mut connection) => {
                        connection.source = source;
                        connection.heed(self.quirks.clone(), address);
                        connection.early =
                            Some(EarlyEnd { known: self.dead.clone(), door, longest: provider.retry.max });
                        return Ok(connection);
                    }
                    Err(fact) => {
                        // What a message demands of it says nothing of other mail.
                        if !refuses_account(&fact) && !matches!(fact.event, Event::Unsendable { .. }) {
                            self.dead.turned_away(&door, None, (fact.stage, &fact.event), provider.retry.max);
                        }
                        let stop = fact.stage == Stage::Auth && matches!(fact.event, Event::Reply(_));
                        facts.push(fact);
                        // The same password at the next address would be refused again, and count
                        // as another break-in attempt.
                        if stop {
                            return Err(facts);
                        }
                    }
                }
            }
            if known > 0 && addresses.len() == known {
                let enough = attempts >= MAX_ADDRESSES || sessions >= MAX_SESSIONS;
                let why = if enough { "enough others were tried before" } else { "no more connections for now" };
                let peer = Peer { host: host.name.as_str().into(), ip: None, tls: None };
                left_out.get_or_insert(Fact { stage: Stage::Connect, event: Event::LeftOut(why), peer: Some(peer) });
            }
        }
        facts.extend(left_out);
        if facts.is_empty() {
            let text = match sources::only(provider) {
                Some(source) => format!("no mail host has an address that can be reached from {source}"),
                None => "the route has no address to connect to".to_owned(),
            };
            let event = Event::NoRoute { permanent: false, code: 450, enhanced: "4.4.4", text };
            facts.push(Fact { stage: Stage::Route, event, peer: None });
        }
        Err(facts)
    }

    /// Nobody can log in: all addresses of the route are left alone, by this provider.
    fn without_token(&self, provider: &Provider, route: &Route, left: Duration, event: Event) -> Fact {
        for door in route.hosts.iter().flat_map(|host| all_doors(provider, host, route.port)) {
            self.dead.rest(&door, (Stage::Auth, &event), left);
        }
        let peer = route.hosts.first().map(|host| Peer {
            host: host.name.as_str().into(),
            ip: host.addresses.first().copied(),
            tls: None,
        });
        Fact { stage: Stage::Auth, event, peer }
    }

    /// Why nobody is asked now, see [`Connector::back_off`]; what a probe that has just begun finds out
    /// is waited for, so that all that waits leaves when it succeeds.
    async fn left_alone(&self, provider: &Provider, route: &Route, mail: FeatureKeys) -> Option<Fact> {
        loop {
            let news = self.dead.news();
            let (fact, patience) = self.back_off(provider, route, mail)?;
            let Some(until) = patience else { return Some(fact) };
            // Something of another address, or nothing in time: both are looked at.
            let _ = tokio::time::timeout_at(until, news).await;
        }
    }

    /// Why nobody is asked now, and until when to wait for a probe: every address is dead and its
    /// back-off is not over. Else the caller is the one who probes, and others are kept away meanwhile.
    fn back_off(
        &self,
        provider: &Provider,
        route: &Route,
        mail: FeatureKeys,
    ) -> Option<(Fact, Option<tokio::time::Instant>)> {
        let from = sources::only(provider);
        let (address, host, dead) = self.resting(provider, route, mail)?;
        let left = dead.left();
        if left.is_zero() {
            self.dead.probe(&Door::new(provider, host, (from, address)), mail, dead);
            return None;
        }
        let peer = Peer { host: host.name.as_str().into(), ip: Some(address.ip()), tls: None };
        let event = Event::BackOff { left, why: dead.said() };
        // The address that is probed is not always the one whose back-off ends first.
        let doors = route.hosts.iter().flat_map(|host| doors(provider, host, route.port));
        let probes = doors.filter_map(|door| self.dead.get(&door, mail)?.patience());
        Some((Fact { stage: Stage::Connect, event, peer: Some(peer) }, probes.max()))
    }

    /// When every address of a route is left alone with such mail: who is asked next, and when.
    /// `None`: somebody there is asked at once.
    pub fn next_try(&self, provider: &Provider, route: &Route, mail: FeatureKeys) -> Option<NextTry> {
        let (_, host, dead) = self.resting(provider, route, mail)?;
        Some(NextTry {
            host: host.name.clone(),
            left: dead.left(),
            stage: dead.stage,
            why: dead.why.to_string(),
            about: dead.about().cloned(),
        })
    }

    /// The address that is asked first when all of a route are left alone.
    fn resting<'r>(
        &self,
        provider: &Provider,
        route: &'r Route,
        mail: FeatureKeys,
    ) -> Option<(SocketAddr, &'r Host, BackOff)> {
        let mut first: Option<(SocketAddr, &'r Host, BackOff)> = None;
        for host in route.hosts.iter() {
            for door in doors(provider, host, route.port) {
                let dead = self.dead.get(&door, mail)?;
                if first.as_ref().is_none_or(|(_, _, other)| dead.until < other.until) {
                    first = Some((door.way.1, host, dead));
                }
            }
        }
        first
    }

    /// Asks every address again: somebody says that it is worth a try.
    pub fn forget_dead(&self) {
        self.dead.forget();
        self.tokens.forget_failures();
    }

    /// Hosts in the order to try: by preference, equal ones shuffled, those without a living
    /// address last.
    fn order<'r>(&self, provider: &Provider, route: &'r Route) -> Vec<&'r Host> {
        let mut hosts: Vec<&Host> = route.hosts.iter().collect();
        fastrand::shuffle(&mut hosts);
        let dead = |host: &Host| all_doors(provider, host, route.port).all(|door| self.dead.contains(&door));
        hosts.sort_by_cached_key(|host| (dead(host), host.preference));
        hosts
    }

    /// A host's addresses, living ones first; only those that the source can reach, if it is one.
    fn addresses(&self, provider: &Provider, host: &Host, port: u16) -> VecDeque<SocketAddr> {
        let mut all: Vec<Door> = doors(provider, host, port).collect();
        all.sort_by_cached_key(|door| self.dead.contains(door));
        all.into_iter().map(|door| door.way.1).collect()
    }

    /// The first of the addresses to answer; those tried are taken off the list (one that was only
    /// slower than another goes to its end), and a fact is added for each that failed.
    #[allow(clippy::too_many_arguments)]
    async fn race<'s>(
        &self,
        provider: &Provider,
        sources: &[&'s Source],
        host: &Host,
        addresses: &mut VecDeque<SocketAddr>,
        mut most: usize,
        facts: &mut Vec<Fact>,
        admit: &dyn Admit,
    ) -> Option<Reached<'s>> {
        let mut racing = JoinSet::new();
        let mut running = Vec::new();
        let mut from: HashMap<SocketAddr, Option<&'s Source>> = HashMap::new();
        let only = sources::only(provider);
        // The first, and who follows one that failed, has nobody to wait for.
        let (mut start, mut head_start): (Option<Slot>, _) = (None, Duration::ZERO);
        loop {
            if let Some(slot) = start.take()
                && let Some(address) = addresses.pop_front()
            {
                most -= 1;
                running.push(address);
                let limit = self.timeouts.connect;
                let source = match self.dialer.clone() {
                    None => {
                        let (socket, source) = self.open_socket(address, sources);
                        racing.spawn(async move { (address, connect(socket, slot, address, limit).await) });
                        source
                    }
                    Some(dialer) => {
                        racing.spawn(async move { (address, dial(&*dialer, slot, address, limit).await) });
                        None
                    }
                };
                from.insert(address, source);
            }
            let more = most > 0 && !addresses.is_empty();
            if racing.is_empty() && !more {
                return None;
            }
            let next = async {
                sleep(head_start).await;
                admit.admit().await
            };
            let finished = tokio::select! {
                biased;
                Some(finished) = racing.join_next() => finished,
                admitted = next, if more => {
                    most = if admitted.is_some() { most } else { 0 };
                    (start, head_start) = (admitted, HEAD_START);
                    continue;
                }
            };
            (start, head_start) = (None, Duration::ZERO);
            // A task that panicked or was aborted has no address to report; there is none such.
            let Ok((address, result)) = finished else { continue };
            running.retain(|other| *other != address);
            match result {
                Ok((stream, local)) => {
                    self.dead.answered((only, address));
                    // Those that did not make it in spite of a head start come last from now on.
                    for slow in running {
                        self.dead.failed((only, slow), &Event::Timeout(HEAD_START), provider);
                        addresses.push_back(slow);
                    }
                    return Some(Reached { stream, address, source: from.remove(&address).flatten(), local });
                }
                Err((event, dead)) => {
                    if dead && !self.dead.take_alive((only, address)) {
                        self.dead.failed((only, address), &event, provider);
                    }
                    let peer = Peer { host: host.name.as_str().into(), ip: Some(address.ip()), tls: None };
                    facts.push(Fact { stage: Stage::Connect, event, peer: Some(peer) });
                }
            }
        }
    }

    /// A session over a fresh stream; when STARTTLS breaks and nothing demands it, once more over
    /// another stream to the same address, in clear text.
    async fn session(
        &self,
        provider: &Provider,
        route: &Route,
        host: &Host,
        reached: Reached<'_>,
        admit: &dyn Admit,
    ) -> Result<Connection, Fact> {
        let Reached { stream, address, source, local } = reached;
        let demand = Demand::new(provider, &host.policy);
        if let Some(domain) = demand.unnamed() {
            watch::tell(domain, &host.name, Some(&"the policy does not name it".to_owned()));
        }
        let shown = Shown::default();
        let mut setup = Setup {
            hostname: source.and_then(|source| source.name.as_deref()).unwrap_or(&self.hostname),
            provider,
            host: &host.name,
            ip: address.ip(),
            demand: &demand,
            tls: &self.tls,
            tokens: &self.tokens,
            timeouts: self.timeouts,
            clear_text: false,
            shown: &shown,
        };
        let established = Connection::establish_over(stream, setup).await;
        if let Some(counter) = &self.counter {
            let failed = established.as_ref().err().map(|failure| &failure.fact);
            let peer = established.as_ref().map_or_else(|failure| failure.fact.peer.as_ref(), |open| Some(open.peer()));
            let encrypted = peer.is_some_and(|peer| peer.tls.is_some());
            let (ip, demand, shown) = (address.ip(), &demand, &shown);
            counter.count(&Attempted { route, host, demand, shown, ip, local, encrypted, failed });
        }
        let failure = match established {
            Ok(connection) => {
                if connection.peer().tls.is_none() {
                    tell_clear_text(&demand, host);
                }
                return Ok(connection);
            }
            Err(failure) => failure,
        };
        let implicit = provider.relay.as_ref().is_some_and(|relay| relay.implicit_tls);
        let SetupFailure { fact, handshake } = failure;
        if !handshake || implicit || demand.required {
            return Err(fact);
        }
        let Some(slot) = admit.admit().await else { return Err(fact) };
        if let Some(times) = seldom("TLS fails", &host.name) {
            tracing::info!(host = host.name, ip = %address.ip(), reason = %fact.event, times, "TLS fails, going on in clear text");
        }
        tell_clear_text(&demand, host);
        setup.clear_text = true;
        let again = match &self.dialer {
            None => {
                let (socket, _) = self.open_socket(address, source.as_slice());
                connect(socket, slot, address, self.timeouts.connect).await
            }
            Some(dialer) => dial(&**dialer, slot, address, self.timeouts.connect).await,
        };
        match again {
            Ok((stream, _)) => Connection::establish_over(stream, setup).await.map_err(|failure| failure.fact),
            Err((event, _)) => Err(Fact { stage: Stage::Connect, event, peer: fact.peer }),
        }
    }

    /// A socket bound to the first of the sources that can be; to none if there is none of that
    /// family.
    fn open_socket<'s>(&self, to: SocketAddr, sources: &[&'s Source]) -> (io::Result<TcpSocket>, Option<&'s Source>) {
        let new = || if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        let mut result = new();
        for source in of_family(sources, to.ip()) {
            result = new().and_then(|socket| socket.bind(SocketAddr::new(source.address, 0)).map(|()| socket));
            let Err(error) = result else { return (result, Some(source)) };
            if self.sources.cannot_bind(source.address)
                && let Some(times) = seldom("cannot bind", &source.address.to_string())
            {
                tracing::warn!(source = %source.address, %error, times, "cannot connect from this address");
            }
            result = Err(io::Error::new(error.kind(), format!("source address {}: {error}", source.address)));
        }
        (result, None)
    }
}

/// What a policy in testing would not have allowed.
fn tell_clear_text(demand: &Demand, host: &Host) {
    if let Some(domain) = demand.watches() {
        watch::tell(domain, &host.name, Some(&"it is not encrypted".to_owned()));
    }
}

/// A smart host that says for good that it does not want our account is for the lane, which stops; see `outcome`.
fn refuses_account(fact: &Fact) -> bool {
    let for_good = match &fact.event {
        Event::Reply(reply) => reply.is_permanent(),
        event => matches!(event, Event::Missing(_)),
    };
    fact.stage == Stage::Auth && for_good
}

/// The ways to a host, by all of its addresses.
fn all_doors(provider: &Provider, host: &Host, port: u16) -> impl Iterator<Item = Door> {
    let from = sources::only(provider);
    let way = move |ip: &IpAddr| (from, SocketAddr::new(*ip, port));
    host.addresses.iter().map(move |ip| Door::new(provider, host, way(ip)))
}

/// Those of them that the source can go, if there is only one.
fn doors(provider: &Provider, host: &Host, port: u16) -> impl Iterator<Item = Door> {
    all_doors(provider, host, port).filter(|door| reachable(door.way.0, door.way.1.ip()))
}

/// Whether an address can be reached from the only source there is, if there is one.
fn reachable(from: Option<IpAddr>, to: IpAddr) -> bool {
    from.is_none_or(|from| from.is_ipv4() == to.is_ipv4())
}

/// The sources from which this address can be reached.
fn of_family<'a, 's>(sources: &'a [&'s Source], to: IpAddr) -> impl Iterator<Item = &'s Source> + use<'a, 's> {
    sources.iter().copied().filter(move |source| source.address.is_ipv4() == to.is_ipv4())
}

/// A connected stream, and the local address.
type Connected = (Box<dyn Io>, Option<IpAddr>);

/// The address that answered first, and from where it was reached.
struct Reached<'s> {
    stream: Box<dyn Io>,
    address: SocketAddr,
    /// The source of the configuration.
    source: Option<&'s Source>,
    /// The local address.
    local: Option<IpAddr>,
}

/// [`connect`] by a dialer.
async fn dial(dialer: &dyn Dialer, slot: Slot, to: SocketAddr, limit: Duration) -> Result<Connected, (Event, bool)> {
    match timeout(limit, dialer.dial(to)).await {
        Err(_) => Err((Event::Timeout(limit), true)),
        Ok(Err(e)) => Err((not_connected(&e), true)),
        Ok(Ok(stream)) => Ok((Box::new(Counted::new(stream, slot)), None)),
    }
}

/// Why there is no connection.
fn not_connected(e: &io::Error) -> Event {
    // Refused is said by the host itself, but nothing listens there: not worth a try soon.
    match e.kind() {
        io::ErrorKind::ConnectionRefused => Event::Io("connection refused".to_owned()),
        _ => match wire::event_of(e) {
            Event::Closed => Event::Closed,
            _ => Event::Io(e.to_string()),
        },
    }
}

/// Connects. The error: what happened, and whether it tells that the address is dead.
async fn connect(
    socket: io::Result<TcpSocket>,
    slot: Slot,
    to: SocketAddr,
    limit: Duration,
) -> Result<Connected, (Event, bool)> {
    let socket = socket.map_err(|e| (Event::Io(e.to_string()), false))?;
    match timeout(limit, socket.connect(to)).await {
        Err(_) => Err((Event::Timeout(limit), true)),
        Ok(Err(e)) => Err((not_connected(&e), true)),
        Ok(Ok(stream)) => {
            // Options that make it better; without them it works as well.
            let _ = stream.set_nodelay(true);
            let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(60));
            let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
            let local = stream.local_addr().ok().map(|address| address.ip());
            Ok((Box::new(Counted::new(stream, slot)), local))
        }
    }
}
