//! What only shows when values are compared: contradictions are refused with the reason, since a
//! configuration that contradicts itself does not do what its author believes.
//!
//! Also finds this host's name. `check_listener`, `check_provider` and `check_routes` have what is about these alone.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::check_listener::listeners;
use super::check_provider::{assemble, default, own_certificate, share_redactors};
use super::check_routes::{routes, unreachable, via_of_users};
use super::file::{Draft, Reader};
use super::keys::{ProviderDraft, Table};
use super::listener_keys::ListenerDraft;
use super::names::check_host;
use super::report::{self, Setting};
use super::units::Span;
use super::{
    Config, Dns, Dnssec, Provider, Retry, Sandbox, TlsMode, TlsReport, check_provider, dkim, own_address, own_relay,
    profiles, rewrite, shaping, users,
};

/// Makes the configuration of a draft; faults and warnings go to `reader`. The result is only
/// good if there are no faults.
pub(super) fn finish(reader: &mut Reader<'_>, mut draft: Draft) -> (Config, Vec<Setting>) {
    if draft.listeners.is_empty() && !reader.has("listener") {
        draft.listeners.push(ListenerDraft::defaults());
    }
    let users = Arc::new(users::assemble(reader, &draft.users, draft.top.users.as_ref()));
    users::check_named(reader, &users, &draft);
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
        check_provider::provider(reader, provider);
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

    let rewrites = rewrite::assemble(reader, &draft, &users, sandbox.as_ref());
    for listener in &mut draft.listeners {
        listener.l.rewrites_and_copies(&rewrites);
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
    let tls_report = draft.tls_report;
    let mut config = Config {
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
        tls_report: None,
        rewrites: rewrites.0,
        copies: rewrites.1,
        sendmail: draft.sendmail,
        log: draft.log,
        drain: draft.top.drain,
    };
    config.tls_report = TlsReport::assemble(reader, &tls_report, &config);
    (config, settings)
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

pub(super) fn retry(reader: &mut Reader<'_>, path: &str, retry: &Retry) {
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
