//! What the certificates of the configuration say of themselves: until when they hold, in which order they stand,
//! and whether they can vouch for anybody. Nothing here decides about a connection: rustls does.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

use super::file::Reader;
use super::{Authorities, ClientCertificate, Config, Proof, Provider};
use crate::clock::Timestamp;

const DAY_MS: i64 = 86_400_000;
/// Days before the end from which on it is told.
const SOON: i64 = 30;
/// Bits that an RSA key has at least whose signatures are verified.
const LEAST_RSA: usize = 2048;

/// A certificate that the configuration names, or one of several in the same file.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Certificate {
    /// The key that names the file, such as `provider.s.tls_ca`.
    pub key: String,
    /// The file.
    pub file: PathBuf,
    /// Its place in the file, from 1.
    pub number: usize,
    /// Whose it is: the first name of the server, else the subject.
    pub name: String,
    /// When its time begins and ends, RFC 3339; empty where that cannot be read.
    pub from: String,
    /// See `from`.
    pub until: String,
    /// What is wrong with it, and what to do; empty if nothing is.
    pub faults: Vec<String>,
    /// Whole days until the end of its time; below 0 if that is over.
    pub days: i64,
}

impl Certificate {
    /// The file, the number if there are several, and the name.
    fn title(&self, several: bool) -> String {
        let number = if several { format!("no. {} in it, ", self.number) } else { String::new() };
        format!("{} ({number}{})", self.file.display(), self.name)
    }
}

/// All certificates that the configuration names, each once.
pub fn all(config: &Config, now: Timestamp) -> Vec<Certificate> {
    let mut all = Vec::new();
    for (n, listener) in config.listeners.iter().enumerate() {
        if let Some(tls) = &listener.tls {
            let key = format!("listener[{}].tls.cert", n + 1);
            all.extend(of_chain(&key, tls.file(), tls.chain(), "clients that check it refuse it", now));
            if let Some(clients) = tls.clients() {
                let key = format!("listener[{}].tls.client_ca", n + 1);
                all.extend(of_authorities(&key, clients.authorities(), now));
            }
        }
    }
    let providers = || [&config.default].into_iter().chain(&config.providers);
    let at = |provider: &Provider, key: &str| {
        let table = if provider.name == "default" { "" } else { "provider." };
        format!("{table}{}.{key}", provider.name)
    };
    let mut seen: HashSet<&Path> = HashSet::new();
    for provider in providers() {
        if let Some(authorities) = provider.tls_ca.as_ref().filter(|a| seen.insert(a.path())) {
            all.extend(of_authorities(&at(provider, "tls_ca"), authorities, now));
        }
    }
    let mut seen: HashSet<&Path> = HashSet::new();
    for provider in providers() {
        if let Some(own) = provider.tls_client.as_ref().filter(|own| seen.insert(own.path())) {
            let then = "hosts that ask for it refuse it";
            all.extend(of_chain(&at(provider, "tls_client_cert"), own.path(), own.chain(), then, now));
        }
    }
    for provider in &config.providers {
        let oauth = provider.relay.as_ref().and_then(|relay| relay.oauth.as_ref());
        if let Some(Proof::Certificate { certificate, .. }) = oauth.map(|oauth| &oauth.proof) {
            all.push(of_client(&format!("provider.{}.auth.certificate", provider.name), certificate, now));
        }
    }
    all
}

/// What is to be told of them `now`: the key and the message.
pub(crate) fn troubles(config: &Config, now: Timestamp) -> Vec<(String, String)> {
    let all = all(config, now);
    let several = |of: &Certificate| all.iter().filter(|other| other.file == of.file).count() > 1;
    let told = all.iter().flat_map(|certificate| {
        let title = certificate.title(several(certificate));
        certificate.faults.iter().map(move |fault| (certificate.key.clone(), format!("{title}: {fault}")))
    });
    told.collect()
}

/// Warns of them at their keys.
pub(super) fn warn(reader: &mut Reader<'_>, config: &Config, now: Timestamp) {
    for (key, message) in troubles(config, now) {
        reader.warn(&key, message);
    }
}

fn of_chain(
    key: &str,
    file: &Path,
    chain: &[CertificateDer<'static>],
    then: &'static str,
    now: Timestamp,
) -> Vec<Certificate> {
    let parsed: Vec<Option<X509Certificate<'_>>> = chain.iter().map(parse).collect();
    let one = |(n, certificate): (usize, &Option<X509Certificate<'_>>)| {
        let mut told = describe(key, file, n + 1, certificate.as_ref(), now);
        told.faults.extend(term(&told, certificate.as_ref(), now, then));
        let next = parsed.get(n + 1).and_then(Option::as_ref);
        if let (Some(own), Some(next)) = (certificate, next)
            && own.issuer().as_raw() != next.subject().as_raw()
        {
            told.faults.push(format!(
                "the next certificate in the file is that of {}, and not of its issuer, {}: expected the server's own \
                 first, and behind each one that of its issuer",
                name_of(next),
                own.issuer()
            ));
        }
        told
    };
    parsed.iter().enumerate().map(one).collect()
}

fn of_authorities(key: &str, authorities: &Authorities, now: Timestamp) -> Vec<Certificate> {
    let one = |(n, certificate): (usize, &CertificateDer<'_>)| {
        let parsed = parse(certificate);
        let mut told = describe(key, authorities.path(), n + 1, parsed.as_ref(), now);
        let effect = "it is trusted here nevertheless, because it is named, but what it has signed may be over too";
        told.faults.extend(term(&told, parsed.as_ref(), now, effect));
        let no_authority = parsed.as_ref().is_some_and(|c| !c.is_ca() && c.issuer().as_raw() != c.subject().as_raw());
        if no_authority {
            let message = "it is no authority (CA:FALSE), so it can verify no host but one that shows exactly this \
                           certificate, until that is renewed: expected the certificate of its issuer";
            told.faults.push(message.into());
        }
        if let Some(bits) = parsed.as_ref().and_then(weak_rsa) {
            told.faults.push(format!(
                "its RSA key has {bits} bits, and with fewer than {LEAST_RSA} it can verify no host here: expected a \
                 certificate with a longer key, or one of another kind"
            ));
        }
        told
    };
    authorities.certificates().iter().enumerate().map(one).collect()
}

fn of_client(key: &str, client: &ClientCertificate, now: Timestamp) -> Certificate {
    let parsed = parse(&client.certificate);
    let mut told = describe(key, &client.path, 1, parsed.as_ref(), now);
    told.faults.extend(term(&told, parsed.as_ref(), now, "the token endpoint refuses it"));
    told
}

/// The bits of its key, if it is one of RSA that is too short to verify anything.
fn weak_rsa(certificate: &X509Certificate<'_>) -> Option<usize> {
    match certificate.public_key().parsed().ok()? {
        PublicKey::RSA(key) => Some(key.key_size()).filter(|bits| *bits < LEAST_RSA),
        _ => None,
    }
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    X509Certificate::from_der(certificate.as_ref()).ok().map(|(_, certificate)| certificate)
}

fn describe(
    key: &str,
    file: &Path,
    number: usize,
    parsed: Option<&X509Certificate<'_>>,
    now: Timestamp,
) -> Certificate {
    let time = |seconds: i64| Timestamp(seconds.saturating_mul(1000));
    let (from, until) = match parsed.map(|certificate| certificate.validity()) {
        Some(validity) => (time(validity.not_before.timestamp()), time(validity.not_after.timestamp())),
        None => (now, now),
    };
    let shown = |time: Timestamp| if parsed.is_some() { time.to_string() } else { String::new() };
    Certificate {
        key: key.to_owned(),
        file: file.to_owned(),
        number,
        name: parsed.map_or("unreadable".to_owned(), name_of),
        from: shown(from),
        until: shown(until),
        faults: Vec::new(),
        days: until.0.saturating_sub(now.0).div_euclid(DAY_MS),
    }
}

/// What is to be said of its time.
fn term(told: &Certificate, parsed: Option<&X509Certificate<'_>>, now: Timestamp, effect: &str) -> Option<String> {
    let validity = parsed?.validity();
    let date = |text: &str| text.split('T').next().unwrap_or_default().to_owned();
    let days = |n: i64| if n == 1 { "1 day".to_owned() } else { format!("{n} days") };
    if validity.not_before.timestamp().saturating_mul(1000) > now.0 {
        return Some(format!(
            "its time begins on {} only: {effect} until then (is this machine's clock right?)",
            date(&told.from)
        ));
    }
    match told.days {
        -1 => Some(format!("it expired at {}: {effect}: renew it, then `mailweir reload`", told.until)),
        ..-1 => Some(format!(
            "it expired on {}, {} ago: {effect}: renew it, then `mailweir reload`",
            date(&told.until),
            days(-told.days - 1)
        )),
        0 => Some(format!("it expires within a day, at {}: renew it, then `mailweir reload`", told.until)),
        n @ 1..7 => {
            Some(format!("it expires in less than 7 days, on {} (in {}): renew it", date(&told.until), days(n)))
        }
        n @ 7..SOON => Some(format!("it expires in {}, on {}", days(n), date(&told.until))),
        _ => None,
    }
}

/// The first DNS name, else the subject.
fn name_of(certificate: &X509Certificate<'_>) -> String {
    use x509_parser::extensions::GeneralName;
    let names = certificate.subject_alternative_name().ok().flatten();
    let dns = names.and_then(|names| {
        names.value.general_names.iter().find_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        })
    });
    let subject = || certificate.subject().to_string();
    dns.or_else(|| Some(subject()).filter(|name| !name.is_empty())).unwrap_or_else(|| "without a name".into())
}

#[cfg(test)]
#[path = "certificates_tests.rs"]
mod tests;
