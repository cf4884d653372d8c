//! What only shows when the values of a provider are compared, and what several of them say together (`relay`, `auth`,
//! `tls`).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::check::retry;
use super::file::Reader;
use super::keys::ProviderDraft;
use super::rule_keys::RuleDraft;
use super::{Credentials, OwnCertificate, Provider, Redactor, Relay, TlsMode, oauth_check, source_file};

/// A password with fewer characters is in many words that have nothing to do with it.
const FEW: usize = 4;

pub(super) fn default(reader: &mut Reader<'_>, default: &ProviderDraft) {
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
    policies_wanted(reader, "default", default);
}

/// Reads what a provider shows of itself. One that says nothing has that of `[default]`.
pub(super) fn own_certificate(reader: &mut Reader<'_>, path: &str, draft: &mut ProviderDraft) {
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
    let key_file = own_key.unwrap_or(file);
    match OwnCertificate::load(file, key_file) {
        Ok(own) => {
            if let Err(message) = source_file::closed(key_file)
                && reader.has(&cert)
            {
                reader.warn(if reader.has(&key) { &key } else { &cert }, message);
            }
            draft.p.tls_client = Some(own);
        }
        Err(faults) => {
            faults.into_iter().filter(|_| reader.has(&cert)).collect::<Vec<_>>().into_iter().for_each(|fault| {
                let at = if fault.key == "key" && reader.has(&key) { &key } else { &cert };
                reader.fault(at, fault.message);
            })
        }
    }
}

pub(super) fn provider(reader: &mut Reader<'_>, draft: &ProviderDraft) {
    let path = format!("provider.{}", draft.p.name);
    let at = |key: &str| format!("{path}.{key}");
    if reader.has(&at("retry")) {
        retry(reader, &at("retry"), &draft.p.retry);
    }
    policies_wanted(reader, &path, draft);
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

/// Policies that are demanded cannot be switched off beside it.
fn policies_wanted(reader: &mut Reader<'_>, path: &str, draft: &ProviderDraft) {
    let key = format!("{path}.mta_sts");
    if draft.tls == Some(TlsMode::MtaSts) && !draft.p.mta_sts && draft.relay.is_none() && reader.has(&key) {
        let tls = if reader.has(&format!("{path}.tls")) { "" } else { " of [default]" };
        let message = format!(
            "contradicts tls = \"mta-sts\"{tls}, which demands a policy of every domain: expected one of the two, or tls = \
             \"opportunistic\" beside it"
        );
        reader.fault(&key, message);
    }
}

fn is_local(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Puts `relay`, `implicit_tls`, `auth`, `tls` and the rules together.
pub(super) fn assemble(draft: ProviderDraft, default_rules: &[RuleDraft]) -> Provider {
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
pub(super) fn share_redactors(providers: &mut [Provider]) {
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
