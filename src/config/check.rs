//! What only shows when values are compared: contradictions are refused with the reason, since a
//! configuration that contradicts itself does not do what its author believes.
//!
//! Also finds this host's name, and puts together what several keys say (`relay`, `auth`, `tls`).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::file::{Draft, Reader};
use super::keys::{ProviderDraft, RouteDraft, Table};
use super::listener_keys::ListenerDraft;
use super::names::check_host;
use super::report::{self, Setting};
use super::rule_keys::RuleDraft;
use super::units::Span;
use super::value::nearest;
use super::{
    Config, Credentials, Dns, Engine, PriorityRule, Provider, Relay, Retry, Route, TlsMode, profiles, shaping,
};

/// Makes the configuration of a draft; faults and warnings go to `reader`. The result is only
/// good if there are no faults.
pub(super) fn finish(reader: &mut Reader<'_>, mut draft: Draft) -> (Config, Vec<Setting>) {
    if draft.listeners.is_empty() && !reader.has("listener") {
        draft.listeners.push(ListenerDraft::defaults());
    }
    listeners(reader, &draft.listeners);
    for (i, listener) in draft.listeners.iter_mut().enumerate() {
        listener.read_tls(reader, &format!("listener[{}]", i + 1));
    }
    dns(reader, &draft.dns);
    retry(reader, "retry", &draft.retry);
    default(reader, &draft.default);
    for provider in &draft.providers {
        self::provider(reader, provider);
    }
    shaping::check(reader, &draft);
    unreachable(reader, &draft.providers, &draft.routes);
    if let Some(address) = draft.admin.address.filter(|a| !a.ip().is_loopback()) {
        reader.warn(
            "admin.address",
            format!("{address} is not a loopback address, and nothing asks who looks at /healthz"),
        );
    }
    let hostname = match &draft.top.hostname {
        Some(name) => name.clone(),
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

    let settings = report::settings(reader, &draft, &hostname);
    let mut rules = draft.default.rules.clone();
    if draft.top.builtin_profiles {
        rules.extend_from_slice(profiles::generic_rules());
    }
    let assembled = |p: ProviderDraft| Arc::new(assemble(p, &rules));
    let providers: Vec<Arc<Provider>> = draft.providers.into_iter().map(&assembled).collect();
    let (routes, priorities) = routes(reader, draft.routes, &providers, draft.top.builtin_profiles);
    let config = Config {
        hostname,
        listeners: draft.listeners.into_iter().map(|listener| Arc::new(listener.l)).collect(),
        queue: draft.queue,
        dns: draft.dns,
        default: assembled(draft.default),
        providers,
        routes,
        limits: shaping::limits(draft.limits),
        priorities,
        origins: report::origins(&settings),
        admin: draft.admin.address,
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
        let loopback = listener.address.ip().to_canonical().is_loopback();
        if !loopback && !reader.has(&format!("{path}.allow")) {
            let message = format!(
                "{} can be reached by others, so `allow` must say who may relay, such as allow = [\"192.0.2.0/24\"] (open relay)",
                listener.address
            );
            reader.fault(&format!("{path}.address"), message);
        }
        if let Some(wide) = listener.allow.iter().find(|n| !loopback && n.is_nearly_everybody()) {
            let message = format!(
                "{wide} lets nearly everybody relay through {} (open relay): name your networks",
                listener.address
            );
            reader.fault(&format!("{path}.allow"), message);
        }
        if listener.allow.is_empty() {
            reader.fault(&format!("{path}.allow"), "nobody may relay: expected at least one address or network".into());
        }
        if listener.engine == Engine::Mailin && listener.lf_only {
            let message =
                "engine \"mailin\" cannot end a message at a bare LF: expected engine = \"native\" with lf_only";
            reader.fault(&format!("{path}.lf_only"), message.into());
        }
        if let Some(j) = listeners.iter().take(i).position(|other| collide(other.l.address, listener.address)) {
            let message = format!("{} is already taken by listener[{}]", listener.address, j + 1);
            reader.fault(&format!("{path}.address"), message);
        }
    }
}

/// Whether two listeners cannot both be bound. Port 0 is a port of its own each time.
pub(crate) fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let covers = |a: IpAddr, b: IpAddr| a.is_unspecified() && (a.is_ipv6() || b.is_ipv4());
    a.port() == b.port() && a.port() != 0 && (a.ip() == b.ip() || covers(a.ip(), b.ip()) || covers(b.ip(), a.ip()))
}

fn dns(reader: &mut Reader<'_>, dns: &Dns) {
    if dns.ttl_min > dns.ttl_max {
        let message = format!("{} is longer than dns.ttl_max, {}", Span(dns.ttl_min), Span(dns.ttl_max));
        reader.fault("dns.ttl_min", message);
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

fn provider(reader: &mut Reader<'_>, draft: &ProviderDraft) {
    let path = format!("provider.{}", draft.p.name);
    let at = |key: &str| format!("{path}.{key}");
    if reader.has(&at("retry")) {
        retry(reader, &at("retry"), &draft.p.retry);
    }
    let checks_certificates = effective_tls(draft.tls, draft.relay.is_some()) == TlsMode::Verified;
    if reader.has(&at("tls_ca")) && !checks_certificates {
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
    if reader.has(&at("port")) {
        reader.fault(&at("port"), format!("`relay` names the port already ({port}): `port` is for MX hosts"));
    }
    if draft.implicit_tls == Some(true) && draft.tls == Some(TlsMode::Off) {
        reader.fault(&at("tls"), "\"off\" contradicts implicit_tls = true".into());
    }
    match (&draft.user, &draft.password) {
        (Some(_), None) if !reader.has(&at("auth.password")) => {
            reader.fault(&at("auth"), "`password` is missing: { user = …, password = { env = \"NAME\" } }".into());
        }
        (None, Some(_)) if !reader.has(&at("auth.user")) => {
            reader.fault(&at("auth"), "`user` is missing: { user = …, password = … }".into());
        }
        (None, None)
            if reader.has(&at("auth")) && !reader.has(&at("auth.user")) && !reader.has(&at("auth.password")) =>
        {
            reader.fault(&at("auth"), "is empty: expected { user = …, password = { env = \"NAME\" } }".into());
        }
        (Some(_), Some(_)) if !is_local(host) => {
            let risk = match effective_tls(draft.tls, true) {
                TlsMode::Off | TlsMode::Opportunistic => "the password may travel in clear text",
                TlsMode::Required => "the password goes to whoever answers, since the certificate is not checked",
                TlsMode::Verified => return,
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
fn unreachable(reader: &mut Reader<'_>, providers: &[ProviderDraft], routes: &[RouteDraft]) {
    for provider in providers {
        let name = &provider.p.name;
        let path = format!("provider.{name}");
        let matched = !provider.p.match_mx.is_empty() || !provider.p.match_domains.is_empty();
        // A pattern that could not be read is reported already.
        let meant = reader.problems.iter().any(|p| p.key.starts_with(&format!("{path}.match")));
        if !matched && !meant && !routes.iter().any(|r| r.via == *name) {
            let message = "nothing ever goes there: expected `match` in it, or a [[route]] via it";
            reader.fault(&path, message.into());
        }
    }
}

fn routes(
    reader: &mut Reader<'_>,
    drafts: Vec<RouteDraft>,
    providers: &[Arc<Provider>],
    profiles: bool,
) -> (Vec<Route>, Vec<PriorityRule>) {
    let (mut routes, mut priorities) = (Vec::new(), Vec::new());
    // The first route that takes everything, and the first that gives everything a priority.
    let (mut all_sent, mut all_rated): (Option<usize>, Option<usize>) = (None, None);
    for (i, RouteDraft { sender, recipient, via, priority }) in drafts.into_iter().enumerate() {
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
        let everything = sender.as_str() == "*" && recipient.as_str() == "*";
        if let Some(priority) = priority {
            all_rated = all_rated.or(everything.then_some(i));
            priorities.push(PriorityRule { sender: sender.clone(), recipient: recipient.clone(), priority });
        }
        if via.is_empty() {
            continue;
        }
        all_sent = all_sent.or(everything.then_some(i));
        match providers.iter().find(|p| p.name == via) {
            Some(provider) => routes.push(Route { sender, recipient, via: Arc::clone(provider) }),
            // A table that could not be read at all is no reason to complain here too.
            None if reader.has(&format!("provider.{via}")) => {}
            None => reader.fault(&key, unknown_provider(&via, providers, profiles)),
        }
    }
    (routes, priorities)
}

fn unknown_provider(via: &str, providers: &[Arc<Provider>], profiles: bool) -> String {
    let names = || providers.iter().map(|p| p.name.as_str());
    let smart_host = |p: &&profiles::Profile| profiles && p.is_for_smart_hosts() && p.name() == via;
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
    provider.relay = draft.relay.map(|(host, port)| Relay {
        implicit_tls: effective_implicit(draft.implicit_tls, draft.tls, port),
        auth: draft.user.zip(draft.password).map(|(user, password)| Credentials { user, password }),
        host: host.into(),
        port,
    });
    provider
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
fn system_name() -> (String, bool) {
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
mod tests {
    use super::*;

    #[test]
    fn the_host_name_is_always_a_full_one() {
        let hosts = "127.0.0.1 localhost\n192.0.2.1\tbox.example.com box # box2\n";
        assert_eq!(full_name("mail.Example.com.", ""), ("mail.example.com".into(), true));
        assert_eq!(full_name("box", hosts), ("box.example.com".into(), true));
        assert_eq!(full_name("box2", hosts), ("box2.localdomain".into(), false));
        assert_eq!(full_name("localhost", hosts), ("localhost.localdomain".into(), false));
        for bad in ["", "a b", "192.0.2.1", "-x", "a..b"] {
            assert_eq!(full_name(bad, hosts), ("localhost.localdomain".into(), false), "{bad}");
        }
    }

    #[test]
    fn providers_take_limits_from_default_but_a_smart_host_keeps_its_tls() {
        let text = "builtin_profiles = false\nretry.max = '3h'\n[default]\ntls = 'off'\nrate = '3/s'\nretry.first = '2s'\n[provider.mx]\n\
                    match.domains = ['x.example']\nretry.factor = 3\n[provider.s]\nrelay = 'H.example.:465'\nrate = []\n[[route]]\nvia = 's'\n";
        let config = Config::parse(text, "x").unwrap();
        let [mx, s] = config.providers.as_slice() else { panic!("{:?}", config.providers) };
        assert_eq!((config.default.tls, mx.tls, s.tls), (TlsMode::Off, TlsMode::Off, TlsMode::Verified));
        assert_eq!((mx.rate.len(), s.rate.len()), (1, 0));
        let (secs, hours) = (Duration::from_secs(2), Duration::from_secs(3 * 3600));
        assert_eq!((mx.retry.first, mx.retry.factor, mx.retry.max), (secs, 3.0, hours));
        assert_eq!((s.retry.first, s.retry.factor, s.retry.max), (secs, 2.0, hours));
        let relay = s.relay.as_ref().unwrap();
        assert_eq!((&*relay.host, relay.implicit_tls), ("h.example", true));
        assert_eq!(config.routes[0].via.name, "s");
        assert_eq!(config.default.name, "default");
    }

    #[test]
    fn a_priority_holds_for_a_domain_in_either_form() {
        let text = "hostname = 'a.example'\n[[route]]\nrecipient = '*@müller.example'\npriority = 5\n\
                    [[route]]\nsender = '*@xn--bcher-kva.example'\npriority = -5\n";
        let config = Config::parse(text, "x").unwrap();
        let address = |text: &str| crate::mail::Address::parse(text).unwrap();
        let priority = |sender: &str, to: &str| config.priority_for(Some(&address(sender)), &address(to));
        for (sender, to, expected) in [
            ("a@x.example", "b@müller.example", Some(5)),
            ("a@x.example", "b@xn--mller-kva.example", Some(5)),
            ("a@bücher.example", "b@x.example", Some(-5)),
            ("a@xn--bcher-kva.example", "b@x.example", Some(-5)),
            ("a@x.example", "b@x.example", None),
        ] {
            assert_eq!(priority(sender, to), expected, "{sender} {to}");
        }
        assert_eq!(config.priority_for(None, &address("b@XN--MLLER-KVA.example")), Some(5));
    }

    #[test]
    fn sources_are_addresses_or_tables_and_print_as_they_were_meant() {
        let text = "hostname = 'a.example'\n[provider.p]\nmatch.domains = ['x.example']\n\
                    source = ['192.0.2.1', { address = '2001:db8::1', name = 'out.example', weight = 3 }]\n";
        let loaded = super::super::Loaded::parse(text, "x").unwrap();
        let [first, second] = loaded.config.providers[0].source.as_slice() else { panic!() };
        assert_eq!((first.address.to_string().as_str(), &first.name, first.weight), ("192.0.2.1", &None, 1));
        let second = (second.address.to_string(), second.name.as_deref(), second.weight);
        assert_eq!(second, ("2001:db8::1".into(), Some("out.example"), 3));
        let again = Config::parse(&report::AsToml(&loaded.settings).to_string(), "again").unwrap();
        assert_eq!(again.providers[0].source, loaded.config.providers[0].source);
    }

    #[test]
    fn each_source_is_a_provider_with_its_own_warm_up_and_prints_so() {
        let text = "hostname = 'a.example'\n[provider.p]\nmatch.domains = ['x.example']\nlimits_per = 'source'\n\
                    warmup = { start = '2026-12-01', days = [50] }\nsource = ['192.0.2.1', { address = '192.0.2.2', \
                    warmup = { start = '2026-12-01', days = [7, 9], overflow = 'source' } }]\n";
        let loaded = super::super::Loaded::parse(text, "x").unwrap();
        let provider = &loaded.config.providers[0];
        let each = super::super::sources::each(provider);
        let days = |p: &Provider| p.warmup.as_ref().map(|plan| (plan.days.clone(), plan.overflow));
        assert_eq!(each.len(), 2);
        assert_eq!(days(&each[0]), Some((vec![50], super::super::Overflow::Wait)));
        assert_eq!(days(&each[1]), Some((vec![7, 9], super::super::Overflow::Source)));
        assert!(each.iter().zip(&provider.source).all(|(p, source)| p.source == std::slice::from_ref(source)));
        let again = Config::parse(&report::AsToml(&loaded.settings).to_string(), "again").unwrap();
        assert_eq!(again.providers[0].source, provider.source);
        assert_eq!(again.providers[0].limits_per, provider.limits_per);
    }

    #[test]
    fn what_is_odd_but_possible_is_a_warning() {
        let made = rcgen::generate_simple_self_signed(vec!["ca.example".to_owned()]).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), made.cert.pem()).unwrap();
        let (ca, password) = (file.path().display(), concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
        let text = format!(
            "hostname = 'a.example'\nretry.warn = '9d'\nadmin.address = '192.0.2.1:80'\n[provider.s]\nrelay = 'h.example:25'\n\
             auth = {{ user = 'u', password = {{ file = '{password}' }} }}\ntls = 'opportunistic'\ntls_ca = '{ca}'\n[[route]]\nvia = 's'\n"
        );
        let loaded = super::super::Loaded::parse(&text, "x").unwrap();
        let mut keys: Vec<&str> = loaded.warnings.iter().map(|w| w.problem.key.as_str()).collect();
        keys.sort_unstable();
        assert_eq!(keys, ["admin.address", "provider.s.tls", "provider.s.tls_ca", "retry.warn"]);
        assert!(loaded.warnings.iter().all(|w| w.problem.line > 0));
    }

    #[test]
    fn a_password_for_a_host_whose_certificate_is_not_checked_is_a_warning() {
        let secret = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        for (host, tls, told) in [
            ("h.example", "tls = 'off'\n", Some("the password may travel in clear text: expected \"verified\"")),
            (
                "h.example",
                "tls = 'opportunistic'\n",
                Some("the password may travel in clear text: expected \"verified\""),
            ),
            ("h.example", "tls = 'required'\n", Some("the password goes to whoever answers, since the certificate")),
            ("h.example", "tls = 'verified'\n", None),
            ("h.example", "", None),
            ("127.0.0.1", "tls = 'required'\n", None),
            // Of a profile for MX hosts, which says tls = "required".
            ("mail.gmx.net", "", None),
        ] {
            let text = format!(
                "hostname = 'a.example'\n[provider.gmx]\nrelay = '{host}:587'\nauth = {{ user = 'u', password = {{ file = \
                 '{secret}' }} }}\n{tls}[[route]]\nvia = 'gmx'\n"
            );
            let warnings = super::super::Loaded::parse(&text, "x").unwrap().warnings;
            let said: Vec<&str> = warnings.iter().map(|warning| warning.problem.message.as_str()).collect();
            match told {
                None => assert!(said.is_empty(), "{host} {tls}: {said:?}"),
                Some(told) => {
                    assert!(matches!(said.as_slice(), [said] if said.starts_with(told)), "{host} {tls}: {said:?}");
                    assert_eq!((&*warnings[0].problem.key, warnings[0].problem.line), ("provider.gmx.tls", 5));
                }
            }
        }
    }

    #[test]
    fn addresses_that_cannot_both_be_bound() {
        let hit = |a: &str, b: &str| collide(a.parse().unwrap(), b.parse().unwrap());
        assert!(
            hit("127.0.0.1:25", "127.0.0.1:25") && hit("0.0.0.0:25", "127.0.0.1:25") && hit("[::]:25", "0.0.0.0:25")
        );
        assert!(
            !hit("127.0.0.1:25", "127.0.0.1:26")
                && !hit("127.0.0.1:0", "127.0.0.1:0")
                && !hit("127.0.0.2:25", "127.0.0.1:25")
        );
        assert!(!hit("0.0.0.0:25", "[::1]:25"));
    }
}
