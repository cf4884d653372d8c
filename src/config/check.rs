//! What only shows when values are compared: contradictions are refused with the reason, since a
//! configuration that contradicts itself does not do what its author believes.
//!
//! Also finds this host's name, and puts together what several keys say (`relay`, `auth`, `tls`).

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::file::{Draft, Reader};
use super::keys::{ProviderDraft, RouteDraft, Table};
use super::listener_keys::ListenerDraft;
use super::names::check_host;
use super::network::more_than_half;
use super::report::{self, Setting};
use super::rule_keys::RuleDraft;
use super::units::Span;
use super::users::UserDraft;
use super::value::nearest;
use super::{
    Config, Credentials, Dns, Dnssec, Engine, ListenAddress, Listener, ListenerAuth, OwnCertificate, PriorityRule,
    Provider, Redactor, Relay, Retry, Route, Sandbox, TlsMode, dkim, listener_auth, oauth_check, own_address,
    own_relay, profiles, shaping, users,
};

/// A password with fewer characters is in many words that have nothing to do with it.
const FEW: usize = 4;

/// Makes the configuration of a draft; faults and warnings go to `reader`. The result is only
/// good if there are no faults.
pub(super) fn finish(reader: &mut Reader<'_>, mut draft: Draft) -> (Config, Vec<Setting>) {
    if draft.listeners.is_empty() && !reader.has("listener") {
        draft.listeners.push(ListenerDraft::defaults());
    }
    let users = Arc::new(users::assemble(reader, &draft.users, draft.top.users.as_ref()));
    users::check_named(reader, &users, &draft.routes, &draft.limits);
    draft.listeners.iter_mut().for_each(|listener| {
        listener.settle();
        listener.settle_users(&users);
    });
    listeners(reader, &draft.listeners);
    let asked = draft.listeners.iter().any(|listener| listener.tls_client_ca.is_some());
    if let Some(i) = draft.users.iter().position(|user| user.certificate.is_some()).filter(|_| !asked) {
        let message = "has no effect: no [[listener]] has a `tls.client_ca`, so no client is asked for a certificate";
        reader.warn(&format!("user[{}].certificate", i + 1), message.into());
    }
    for (i, listener) in draft.listeners.iter_mut().enumerate() {
        listener.read_tls(reader, &format!("listener[{}]", i + 1));
    }
    dns(reader, &draft.dns);
    retry(reader, "retry", &draft.retry);
    default(reader, &draft.default);
    own_certificate(reader, "default", &mut draft.default);
    for provider in &mut draft.providers {
        own_certificate(reader, &format!("provider.{}", provider.p.name.clone()), provider);
    }
    for provider in &draft.providers {
        self::provider(reader, provider);
        if let Some((host, port)) = &provider.relay {
            let listeners = draft.listeners.iter().map(|listener| &listener.l);
            own_relay::warn(reader, &provider.p.name, (host, *port), listeners);
        }
    }
    demands_dane(reader, &draft);
    shaping::check(reader, &draft);
    unreachable(reader, &draft);
    if let Some(address) = draft.admin.address.filter(|a| !a.ip().is_loopback()) {
        reader.warn(
            "admin.address",
            format!("{address} is not a loopback address, and nothing asks who looks at /healthz"),
        );
    }
    let hostname = match &draft.top.hostname {
        Some(name) => {
            if let Some(message) = own_address::fault_of_hostname(name) {
                reader.warn("hostname", message);
            }
            name.clone()
        }
        None => {
            let (name, sure) = system_name();
            if !sure {
                let message =
                    format!("the system does not know its full name, so it is \"{name}\": providers may refuse that");
                reader.warn("hostname", message);
            }
            name
        }
    };

    let names = Arc::new(super::aliases::names(reader, &draft, &hostname));
    for listener in &mut draft.listeners {
        listener.l.names = names.clone();
    }
    draft.sendmail.check(reader);
    let sandbox = Sandbox::assemble(reader, draft.sandbox.clone());
    for listener in &mut draft.listeners {
        listener.l.sandbox = sandbox.clone();
    }

    let settings = report::settings(reader, &draft, &hostname);
    let named: Vec<String> = draft.listeners.iter().filter_map(|listener| listener.name.clone()).collect();
    let mut rules = draft.default.rules.clone();
    if draft.top.builtin_profiles {
        rules.extend_from_slice(profiles::generic_rules());
    }
    let assembled = |p: ProviderDraft| assemble(p, &rules);
    let mut providers: Vec<Provider> = draft.providers.into_iter().map(&assembled).collect();
    share_redactors(&mut providers);
    let providers: Vec<Arc<Provider>> = providers.into_iter().map(Arc::new).collect();
    via_of_users(reader, &draft.users, &providers, draft.top.builtin_profiles);
    let (routes, priorities) = routes(reader, draft.routes, &providers, &named, draft.top.builtin_profiles);
    let (limits, arrivals) = shaping::limits(draft.limits);
    let config = Config {
        hostname,
        names,
        users,
        listeners: draft.listeners.into_iter().map(|listener| Arc::new(listener.l)).collect(),
        queue: draft.queue,
        dns: draft.dns,
        default: Arc::new(assembled(draft.default)),
        providers,
        routes,
        limits,
        arrivals,
        dkim: dkim::assemble(reader, draft.dkim),
        priorities,
        origins: report::origins(&settings),
        admin: draft.admin.address,
        sandbox,
        sendmail: draft.sendmail,
        log: draft.log,
        drain: draft.top.drain,
    };
    (config, settings)
}

fn listeners(reader: &mut Reader<'_>, listeners: &[ListenerDraft]) {
    if listeners.is_empty() {
        reader.fault(
            "listener",
            "there is none: expected at least one [[listener]], or none of these lines for the default".into(),
        );
    }
    for (i, ListenerDraft { l: listener, .. }) in listeners.iter().enumerate() {
        let path = format!("listener[{}]", i + 1);
        let loopback = listener.address.is_local();
        let same = |other: &ListenerDraft| !listener.name.is_empty() && other.l.name == listener.name;
        if let Some(j) = listeners.iter().take(i).position(same) {
            reader.fault(&format!("{path}.name"), format!("is already that of listener[{}]", j + 1));
        }
        listener_auth::check(reader, &path, listener);
        unix_socket(reader, &path, listener);
        proxies(reader, &path, listener);
        let logs_in = listener.auth == ListenerAuth::Required;
        if !loopback && !logs_in && !reader.has(&format!("{path}.allow")) {
            let message = format!(
                "{} can be reached by others, so `allow` must say who may relay, such as allow = [\"192.0.2.0/24\"], or auth = \"required\" that whoever relays logs in (open relay)",
                listener.address
            );
            reader.fault(&format!("{path}.address"), message);
        }
        if let Some(wide) = listener.allow.iter().find(|n| !loopback && n.is_nearly_everybody()) {
            let message = match logs_in {
                false => format!(
                    "{wide} lets nearly everybody relay through {} (open relay): name your networks",
                    listener.address
                ),
                // They would have the places of those who have logged in.
                true => format!("{wide} is nearly everybody: whoever logs in may relay without, leave `allow` out"),
            };
            reader.fault(&format!("{path}.allow"), message);
        }
        if !loopback && let Some(family) = more_than_half(&listener.allow) {
            let message = format!(
                "these networks together are more than half of {family}, and let them relay through {} (open relay): \
                 name your networks",
                listener.address
            );
            reader.fault(&format!("{path}.allow"), message);
        }
        if listener.allow.is_empty() && !logs_in {
            reader.fault(&format!("{path}.allow"), "nobody may relay: expected at least one address or network".into());
        }
        if listener.engine == Engine::Mailin && listener.lf_only {
            let message =
                "engine \"mailin\" cannot end a message at a bare LF: expected engine = \"native\" with lf_only";
            reader.fault(&format!("{path}.lf_only"), message.into());
        }
        if let Some(j) = listeners.iter().take(i).position(|other| overlap(&other.l.address, &listener.address)) {
            let message = format!("{} is already taken by listener[{}]", listener.address, j + 1);
            reader.fault(&format!("{path}.address"), message);
        }
    }
}

/// Whoever may say whose client it speaks for may relay as anybody.
fn proxies(reader: &mut Reader<'_>, path: &str, listener: &Listener) {
    for (key, networks) in [("xclient_from", &listener.xclient_from), ("proxy_from", &listener.proxy_from)] {
        let wide = networks.iter().find(|n| n.is_nearly_everybody()).map(ToString::to_string);
        let wide = wide.or_else(|| more_than_half(networks).map(str::to_owned));
        if let Some(wide) = wide.filter(|_| !listener.address.is_local()) {
            let message = format!("{wide} may pretend to be anybody, and relay (open relay): name your proxies");
            reader.fault(&format!("{path}.{key}"), message);
        }
    }
    if listener.engine == Engine::Mailin && !listener.xclient_from.is_empty() {
        let message = "engine \"mailin\" knows no XCLIENT: expected engine = \"native\" with xclient_from";
        reader.fault(&format!("{path}.xclient_from"), message.into());
    }
    if listener.address.path().is_some() && !listener.proxy_from.is_empty() {
        let message = "is for addresses, of which a Unix socket has none: expected a listener on a loopback address for the proxy";
        reader.fault(&format!("{path}.proxy_from"), message.into());
    }
}

/// What only a Unix socket has, and what it cannot have.
fn unix_socket(reader: &mut Reader<'_>, path: &str, listener: &Listener) {
    let at = |key: &str| format!("{path}.{key}");
    if listener.address.path().is_none() {
        for key in ["mode", "group"].into_iter().filter(|key| reader.has(&at(key))).collect::<Vec<_>>() {
            reader.fault(&at(key), "is for a Unix socket: expected address = \"unix:/…\" beside it".into());
        }
        return;
    }
    let directory = listener.address.path().and_then(|path| path.parent()).filter(|path| !path.as_os_str().is_empty());
    if let Some(directory) = directory.filter(|directory| !directory.is_dir()) {
        let message = format!(
            "there is no directory {0}, so nothing can listen there: expected `mkdir {0}` before the start (below /run \
             systemd makes it: RuntimeDirectory=)",
            directory.display()
        );
        reader.warn(&at("address"), message);
    }
    if listener.engine == Engine::Mailin {
        let message = "engine \"mailin\" takes clients by TCP only: expected engine = \"native\" with a Unix socket";
        reader.fault(&at("engine"), message.into());
    }
    let local = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    let message = match listener.xclient_from.iter().any(|network| network.contains(local)) {
        _ if listener.xclient_from.is_empty() => None,
        true if listener.mode.0 & 0o006 != 0 => Some(
            "every user of this machine may connect here, and so say whose client it speaks for: expected mode = \"0660\" \
             and the `group` of the proxy",
        ),
        true => None,
        false => Some("has no effect: whoever comes by a Unix socket counts as 127.0.0.1, which is not in it"),
    };
    if let Some(message) = message {
        reader.warn(&at("xclient_from"), message.into());
    }
    if reader.has(&at("allow")) && listener.xclient_from.is_empty() {
        let message = "has no effect: whoever may connect to a Unix socket may relay (`mode` and `group` say who)";
        reader.warn(&at("allow"), message.into());
    }
}

/// Whether two listeners cannot both be had.
fn overlap(a: &ListenAddress, b: &ListenAddress) -> bool {
    let of_ip = a.sockets().any(|a| b.sockets().any(|b| collide(a, b)));
    of_ip || (a.path().is_some() && a == b)
}

/// Whether two addresses cannot both be bound. Port 0 is a port of its own each time.
pub(crate) fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let covers = |a: IpAddr, b: IpAddr| a.is_unspecified() && (a.is_ipv6() || b.is_ipv4());
    a.port() == b.port() && a.port() != 0 && (a.ip() == b.ip() || covers(a.ip(), b.ip()) || covers(b.ip(), a.ip()))
}

fn dns(reader: &mut Reader<'_>, dns: &Dns) {
    if dns.ttl_min > dns.ttl_max {
        let message = format!("{} is longer than dns.ttl_max, {}", Span(dns.ttl_min), Span(dns.ttl_max));
        reader.fault("dns.ttl_min", message);
    }
    let elsewhere = dns.nameservers.iter().find(|server| !server.address.ip().is_loopback());
    if let (Dnssec::TrustAd, Some(server)) = (dns.dnssec, elsewhere) {
        let message = format!(
            "\"trust-ad\" believes what a name server says of signatures, and {} is not on this machine: expected one on \
             loopback, or \"validate\"",
            server.address.ip()
        );
        reader.fault("dns.dnssec", message);
    }
    if reader.has("dns.trust_anchor") && dns.dnssec != Dnssec::Validate {
        reader.warn("dns.trust_anchor", "has no effect: keys are used with dnssec = \"validate\" only".into());
    }
}

/// Records that nobody can believe are demanded in vain: all mail would wait.
fn demands_dane(reader: &mut Reader<'_>, draft: &Draft) {
    if draft.dns.dnssec != Dnssec::Off {
        return;
    }
    let named = draft.providers.iter().map(|provider| (format!("provider.{}", provider.p.name), provider));
    for (table, provider) in named.chain([("default".to_owned(), &draft.default)]) {
        let key = format!("{table}.tls");
        if provider.tls == Some(TlsMode::Dane) && reader.has(&key) {
            let message = "\"dane\" needs DNSSEC: expected [dns] dnssec = \"validate\" or \"trust-ad\"";
            reader.fault(&key, message.into());
        }
    }
}

fn retry(reader: &mut Reader<'_>, path: &str, retry: &Retry) {
    let Retry { first, max, expire, warn, .. } = *retry;
    // The key that this table sets itself is the one to blame.
    let blame = |reader: &Reader<'_>, a: &str, b: &str| {
        let (a, b) = (format!("{path}.{a}"), format!("{path}.{b}"));
        if reader.has(&a) { a } else { b }
    };
    if first > max {
        let at = blame(reader, "first", "max");
        reader.fault(&at, format!("the first wait, {}, is longer than the longest, max = {}", Span(first), Span(max)));
    }
    if expire < first {
        let at = blame(reader, "expire", "first");
        let message = format!("mail expires after {}, before the first retry after {}", Span(expire), Span(first));
        reader.fault(&at, message);
    }
    if warn != Duration::ZERO && warn >= expire && reader.has(&format!("{path}.warn")) {
        let message = format!("never happens: mail is given up after expire = {}", Span(expire));
        reader.warn(&format!("{path}.warn"), message);
    }
}

fn default(reader: &mut Reader<'_>, default: &ProviderDraft) {
    if reader.has("default.match") {
        reader.fault("default.match", "[default] is for what no provider matches: expected a [provider.NAME]".into());
    }
    for key in ["relay", "auth", "implicit_tls"] {
        let path = format!("default.{key}");
        if reader.has(&path) {
            let message = "a smart host for everything is a provider that a route names: [provider.NAME] and [[route]] via = \"NAME\"";
            reader.fault(&path, message.into());
        }
    }
    if reader.has("default.retry") {
        retry(reader, "default.retry", &default.p.retry);
    }
}

/// Reads what a provider shows of itself. One that says nothing has that of `[default]`.
fn own_certificate(reader: &mut Reader<'_>, path: &str, draft: &mut ProviderDraft) {
    let (cert, key) = (format!("{path}.tls_client_cert"), format!("{path}.tls_client_key"));
    if reader.has(&key) && !reader.has(&cert) {
        reader.fault(&key, "is the key of no certificate: `tls_client_cert` is missing".into());
    }
    let Some(file) = &draft.tls_client_cert else { return };
    if reader.has(&cert) && effective_tls(draft.tls, draft.relay.is_some()) == TlsMode::Off {
        reader.warn(&cert, "has no effect: with tls = \"off\" nobody asks for it".into());
    }
    // Its own certificate is not that of another's key.
    let own_key = draft.tls_client_key.as_ref().filter(|_| !reader.has(&cert) || reader.has(&key));
    match OwnCertificate::load(file, own_key.unwrap_or(file)) {
        Ok(own) => draft.p.tls_client = Some(own),
        Err(faults) => {
            faults.into_iter().filter(|_| reader.has(&cert)).collect::<Vec<_>>().into_iter().for_each(|fault| {
                let at = if fault.key == "key" && reader.has(&key) { &key } else { &cert };
                reader.fault(at, fault.message);
            })
        }
    }
}

fn provider(reader: &mut Reader<'_>, draft: &ProviderDraft) {
    let path = format!("provider.{}", draft.p.name);
    let at = |key: &str| format!("{path}.{key}");
    if reader.has(&at("retry")) {
        retry(reader, &at("retry"), &draft.p.retry);
    }
    let tls = effective_tls(draft.tls, draft.relay.is_some());
    // Those of MTA-STS are checked too.
    let by_policy = draft.relay.is_none() && tls != TlsMode::Off && draft.p.mta_sts;
    let checks_certificates = matches!(tls, TlsMode::Verified | TlsMode::MtaSts) || by_policy;
    // Token endpoints are always checked.
    let fetches_tokens = draft.oauth.service.is_some();
    if reader.has(&at("tls_ca")) && !checks_certificates && !fetches_tokens {
        reader.warn(&at("tls_ca"), "has no effect: certificates are checked with tls = \"verified\" only".into());
    }
    let Some((host, port)) = &draft.relay else {
        if reader.has(&at("auth")) {
            reader.fault(&at("auth"), "a user and password are for a smart host: `relay` is missing".into());
        }
        if draft.implicit_tls.is_some() {
            reader.fault(&at("implicit_tls"), "implicit TLS is for a smart host: `relay` is missing".into());
        }
        return;
    };
    if let Some(mode @ (TlsMode::Dane | TlsMode::MtaSts)) = draft.tls.filter(|_| reader.has(&at("tls"))) {
        let message = format!(
            "\"{}\" is for MX hosts: a smart host is named by you, so its certificate alone counts, expected \"verified\"",
            mode.as_str()
        );
        reader.fault(&at("tls"), message);
    }
    if reader.has(&at("mta_sts")) && draft.p.mta_sts {
        reader.warn(&at("mta_sts"), "has no effect with `relay`: policies are about the MX hosts of a domain".into());
    }
    if reader.has(&at("port")) {
        reader.fault(&at("port"), format!("`relay` names the port already ({port}): `port` is for MX hosts"));
    }
    if draft.implicit_tls == Some(true) && draft.tls == Some(TlsMode::Off) {
        reader.fault(&at("tls"), "\"off\" contradicts implicit_tls = true".into());
    }
    oauth_check::check(reader, &path, draft);
    let letters = draft.password.as_ref().map_or(0, |password| password.reveal().chars().count());
    if (1..FEW).contains(&letters) {
        let message = format!(
            "has fewer than {FEW} characters: they are masked wherever they occur in what the host says, which makes its \
             replies hard to read; expected a longer one"
        );
        reader.warn(&at("auth.password"), message);
    }
    let logs_in = draft.user.is_some() && (draft.password.is_some() || draft.oauth.service.is_some());
    match (&draft.user, &draft.password) {
        // The rest of it is told there.
        _ if !logs_in && reader.has(&at("auth.oauth")) => {}
        (Some(_), None) if !logs_in && !reader.has(&at("auth.password")) => {
            let message = "`password` is missing: { user = …, password = { env = \"NAME\" } }, or `oauth` for a token";
            reader.fault(&at("auth"), message.into());
        }
        (None, Some(_)) if !reader.has(&at("auth.user")) => {
            reader.fault(&at("auth"), "`user` is missing: { user = …, password = … }".into());
        }
        (None, None)
            if reader.has(&at("auth")) && !reader.has(&at("auth.user")) && !reader.has(&at("auth.password")) =>
        {
            reader.fault(&at("auth"), "is empty: expected { user = …, password = { env = \"NAME\" } }".into());
        }
        _ if logs_in && !is_local(host) => {
            let what = if draft.oauth.service.is_some() { "token" } else { "password" };
            let risk = match effective_tls(draft.tls, true) {
                TlsMode::Off | TlsMode::Opportunistic => format!("the {what} may travel in clear text"),
                TlsMode::Required => {
                    format!("the {what} goes to whoever answers, since the certificate is not checked")
                }
                TlsMode::Verified | TlsMode::Dane | TlsMode::MtaSts => return,
            };
            let expected = "expected \"verified\" (the default) for a host that is not this one";
            reader.warn(&at("tls"), format!("{risk}: {expected} (`tls_ca` names a private CA)"));
        }
        _ => {}
    }
}

fn is_local(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// A provider that nothing leads to: its limits would hold for nobody.
fn unreachable(reader: &mut Reader<'_>, draft: &Draft) {
    let profiles = draft.top.builtin_profiles;
    for provider in &draft.providers {
        let name = &provider.p.name;
        let path = format!("provider.{name}");
        let matched = !provider.p.match_mx.is_empty() || !provider.p.match_domains.is_empty();
        // A pattern that could not be read is reported already.
        let meant = reader.problems.iter().any(|p| p.key.starts_with(&format!("{path}.match")));
        if !matched && !meant && !draft.is_via(name) {
            let hint = meant_profile(name).map(|profile| format!("; did you mean [provider.{profile}]?"));
            let message = "nothing ever goes there: expected `match` in it, or a [[route]] or [[user]] via it";
            reader.fault(&path, format!("{message}{}", hint.unwrap_or_default()));
        } else if let Some(profile) = meant_profile(name).filter(|_| profiles) {
            reader.warn(
                &path,
                format!(
                    "did you mean [provider.{profile}]? This is another provider, and what is built in for {profile} \
                     does not hold in it"
                ),
            );
        }
    }
}

/// The built-in profile that a provider of that name may be meant to be: with a mistake behind the first
/// letter.
fn meant_profile(name: &str) -> Option<&'static str> {
    let mut names = profiles::all().iter().map(profiles::Profile::name);
    if name.chars().count() < 4 || names.clone().any(|known| known == name) {
        return None;
    }
    let first = name.chars().next();
    let most = if name.chars().count() < 6 { 1 } else { 2 };
    names.find(|known| known.chars().next() == first && strsim::osa_distance(name, known) <= most)
}

fn routes(
    reader: &mut Reader<'_>,
    drafts: Vec<RouteDraft>,
    providers: &[Arc<Provider>],
    listeners: &[String],
    profiles: bool,
) -> (Vec<Route>, Vec<PriorityRule>) {
    let (mut routes, mut priorities) = (Vec::new(), Vec::new());
    // The first route that takes everything, and the first that gives everything a priority.
    let (mut all_sent, mut all_rated): (Option<usize>, Option<usize>) = (None, None);
    for (i, RouteDraft { when, via, priority }) in drafts.into_iter().enumerate() {
        let path = format!("route[{}]", i + 1);
        let key = format!("{path}.via");
        if via.is_empty() && priority.is_none() {
            if !reader.problems.iter().any(|p| p.key.starts_with(&format!("{path}."))) {
                reader.fault(&path, "`via` is missing: expected the name of a provider, or a `priority`".into());
            }
            continue;
        }
        let sends = all_sent.filter(|_| !via.is_empty());
        let rates = all_rated.filter(|_| priority.is_some());
        let used = (!via.is_empty() && all_sent.is_none()) || (priority.is_some() && all_rated.is_none());
        if let Some(before) = sends.or(rates).filter(|_| !used) {
            reader.fault(&path, format!("never used: route[{}] takes everything before it", before + 1));
        }
        if let Some(name) = when.listener.as_ref().filter(|name| !listeners.contains(name)) {
            let hint = match nearest(name, listeners.iter().map(String::as_str)) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => "expected the `name` of a [[listener]]".to_owned(),
            };
            reader.fault(&format!("{path}.listener"), format!("there is no listener \"{name}\": {hint}"));
        }
        let everything = when.is_everything();
        if let Some(priority) = priority {
            all_rated = all_rated.or(everything.then_some(i));
            priorities.push(PriorityRule { when: when.clone(), priority, number: i + 1 });
        }
        if via.is_empty() {
            continue;
        }
        all_sent = all_sent.or(everything.then_some(i));
        match providers.iter().find(|p| p.name == via) {
            Some(provider) => routes.push(Route { when, via: Arc::clone(provider), number: i + 1 }),
            // A table that could not be read at all is no reason to complain here too.
            None if reader.has(&format!("provider.{via}")) => {}
            None => reader.fault(&key, unknown_provider(&via, providers, profiles)),
        }
    }
    (routes, priorities)
}

/// Whether the providers of users are there.
fn via_of_users(reader: &mut Reader<'_>, users: &[UserDraft], providers: &[Arc<Provider>], profiles: bool) {
    for (i, via) in users.iter().enumerate().filter_map(|(i, user)| Some((i, user.via.as_deref()?))) {
        // A table that could not be read at all is no reason to complain here too.
        if !providers.iter().any(|p| p.name == via) && !reader.has(&format!("provider.{via}")) {
            reader.fault(&format!("user[{}].via", i + 1), unknown_provider(via, providers, profiles));
        }
    }
}

fn unknown_provider(via: &str, providers: &[Arc<Provider>], profiles: bool) -> String {
    let names = || providers.iter().map(|p| p.name.as_str());
    let smart_host = |p: &&profiles::Profile| profiles && p.is_for_smart_hosts() && p.name() == via;
    if let Some((host, port)) = via.rsplit_once(':').filter(|(host, _)| host.contains('.')) {
        return format!(
            "a route names a provider, and no host: expected [provider.NAME] relay = \"{host}:{port}\" and via = \"NAME\""
        );
    }
    let hint = match (nearest(via, names()), profiles::all().iter().find(smart_host)) {
        (_, Some(_)) => format!("its profile needs to know your host: [provider.{via}] relay = \"host:port\""),
        (Some(near), None) => format!("did you mean \"{near}\"?"),
        (None, None) if providers.is_empty() => "there are no providers".into(),
        (None, None) => format!("expected one of {}", names().collect::<Vec<_>>().join(", ")),
    };
    format!("there is no provider \"{via}\": {hint}")
}

/// Puts `relay`, `implicit_tls`, `auth`, `tls` and the rules together.
fn assemble(draft: ProviderDraft, default_rules: &[RuleDraft]) -> Provider {
    let rules = draft.effective_rules(default_rules);
    let mut provider = draft.p;
    provider.rules = rules;
    provider.tls = effective_tls(draft.tls, draft.relay.is_some());
    let oauth = draft.oauth.assemble(draft.user.as_deref(), draft.mechanism);
    let auth = draft.user.zip(draft.password).map(|(user, password)| Credentials {
        user,
        password,
        mechanism: draft.mechanism,
    });
    provider.relay = draft.relay.map(|(host, port)| {
        let implicit = effective_implicit(draft.implicit_tls, draft.tls, port);
        Relay { oauth: oauth.map(Arc::new), ..Relay::new(&host, port, implicit, auth) }
    });
    provider
}

/// A host that several providers lead to has heard the secrets of all of them.
fn share_redactors(providers: &mut [Provider]) {
    let mut heard: HashMap<Arc<str>, Vec<Credentials>> = HashMap::new();
    for relay in providers.iter().filter_map(|provider| provider.relay.as_ref()) {
        heard.entry(relay.host.clone()).or_default().extend(relay.auth.clone());
    }
    let redactors: HashMap<Arc<str>, Redactor> =
        heard.into_iter().map(|(host, secrets)| (host, Redactor::new(&secrets))).collect();
    for relay in providers.iter_mut().filter_map(|provider| provider.relay.as_mut()) {
        relay.redactor = redactors.get(&relay.host).cloned().unwrap_or_default();
    }
}

/// `tls` where the file says nothing: a smart host is somebody we have a contract with.
pub(super) fn effective_tls(given: Option<TlsMode>, relay: bool) -> TlsMode {
    given.unwrap_or(if relay { TlsMode::Verified } else { TlsMode::Opportunistic })
}

/// `implicit_tls` where the file says nothing: port 465 (RFC 8314 §3.3), unless TLS is off.
pub(super) fn effective_implicit(given: Option<bool>, tls: Option<TlsMode>, port: u16) -> bool {
    given.unwrap_or(port == 465 && tls != Some(TlsMode::Off))
}

/// This host's full name, and whether the system knows it. Asked: the host name, then the first
/// name on its line in `/etc/hosts`; else `.localdomain` is added.
pub(super) fn system_name() -> (String, bool) {
    let name = hostname::get().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    full_name(&name, &hosts)
}

fn full_name(name: &str, hosts: &str) -> (String, bool) {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let is_full = |n: &str| n.contains('.') && check_host(n).is_ok() && n.parse::<IpAddr>().is_err();
    if is_full(&name) {
        return (name, true);
    }
    let canonical = hosts.lines().find_map(|line| {
        let mut names = line.split('#').next()?.split_whitespace().skip(1);
        let first = names.clone().next()?;
        (is_full(first) && names.any(|n| n.eq_ignore_ascii_case(&name))).then(|| first.to_ascii_lowercase())
    });
    match canonical {
        Some(full) => (full, true),
        None if check_host(&name).is_ok() && !name.contains('.') => (format!("{name}.localdomain"), false),
        None => ("localhost.localdomain".into(), false),
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
