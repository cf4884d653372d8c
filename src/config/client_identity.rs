//! Clients of a listener that show a certificate: which authorities vouch for them, and by what of it a `[[user]]`
//! knows its own.
//!
//! Invariants:
//! - A certificate makes somebody a user only if an authority of `tls.client_ca` vouches for it at that moment, a
//!   resumed session included, and its private key was proved in the handshake.
//! - Where it is `offered`, one that nobody vouches for is as none: clients show what they have to anybody who asks.

use std::fmt;
use std::sync::Arc;

use ::aws_lc_rs::digest::{SHA256, digest};
use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use x509_parser::extensions::GeneralName;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::prelude::{FromDer as _, X509Certificate, X509Name};

use super::{Authorities, ClientCert};

/// Names of a certificate that are shown, and characters of each.
const SHOWN: usize = 5;
const LONGEST: usize = 120;

/// `tls.client_ca` and `tls.client_cert` of a listener.
#[derive(Clone)]
pub struct ClientAuthorities {
    verifier: Arc<dyn ClientCertVerifier>,
    required: bool,
    authorities: Authorities,
}

impl ClientAuthorities {
    /// Those who vouch for clients; `None` with `off`.
    ///
    /// # Errors
    /// The library has no use for them: why.
    pub fn new(authorities: &Authorities, ask: ClientCert) -> Result<Option<ClientAuthorities>, String> {
        if ask == ClientCert::Off {
            return Ok(None);
        }
        let mut roots = RootCertStore::empty();
        for certificate in authorities.certificates() {
            roots.add(certificate.clone()).map_err(|e| e.to_string())?;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = verifier.build().map_err(|e| e.to_string())?;
        let (required, authorities) = (ask == ClientCert::Required, authorities.clone());
        Ok(Some(ClientAuthorities { verifier, required, authorities }))
    }

    /// The file of the authorities.
    pub fn authorities(&self) -> &Authorities {
        &self.authorities
    }

    /// For the handshakes.
    pub(super) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        match self.required {
            true => self.verifier.clone(),
            false => Arc::new(Offered(self.verifier.clone())),
        }
    }

    /// Who has shown this certificate, with those of the authorities between it and one of ours.
    ///
    /// # Errors
    /// Nobody vouches for it now: why. What it says of itself is to be shown to people, and nothing else.
    pub fn identity(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
    ) -> Result<ClientIdentity, Box<(ClientIdentity, Error)>> {
        let shown = ClientIdentity::of(own);
        match self.verifier.verify_client_cert(own, others, UnixTime::now()) {
            Ok(_) => Ok(shown),
            Err(error) => Err(Box::new((shown, error))),
        }
    }
}

impl fmt::Debug for ClientAuthorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientAuthorities").field("required", &self.required).finish_non_exhaustive()
    }
}

/// Lets everybody through a handshake who has the key of what he shows, or shows nothing.
#[derive(Debug)]
struct Offered(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Offered {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _own: &CertificateDer<'_>,
        _others: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        // Who that is is asked afterwards, of the authorities.
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, own, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, own, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// What a certificate says of its owner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientIdentity {
    /// SHA-256 of the certificate, in hexadecimal.
    pub fingerprint: String,
    /// Its alternative names (hosts, mail addresses, URIs), its common names and its subject, in lower case.
    pub names: Vec<String>,
    /// The same as users are known by: of each kind apart, so that no name passes for a fingerprint or a subject.
    forms: Vec<String>,
}

impl ClientIdentity {
    fn of(own: &CertificateDer<'_>) -> ClientIdentity {
        let hash = digest(&SHA256, own.as_ref());
        let fingerprint: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let read = X509Certificate::from_der(own).map(|(_, own)| (names(&own), subject(own.subject())));
        let (mut names, subject) = read.unwrap_or_default();
        let mut forms = vec![format!("sha256:{fingerprint}")];
        // Nobody looks for what has the look of another kind.
        forms.extend(names.iter().map(|name| comparable(name)).filter(|form| form.starts_with("name:")));
        if !subject.is_empty() {
            forms.push(format!("subject:{subject}"));
            names.push(subject.replace(',', ", ").replace("\\, ", "\\,"));
        }
        ClientIdentity { fingerprint, names, forms }
    }

    /// A few of its names for the log, each bounded: anybody can put anything into a certificate.
    pub fn some_names(&self) -> String {
        let shown: Vec<String> =
            self.names.iter().take(SHOWN).map(|name| name.chars().take(LONGEST).collect()).collect();
        shown.join(" | ")
    }

    /// What a [`comparable`] `certificate` of a user is compared with: its fingerprint, names and subject.
    pub(super) fn forms(&self) -> impl Iterator<Item = &str> {
        self.forms.iter().map(String::as_str)
    }
}

/// All but the subject.
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let alternative = alternative.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    let alternative = alternative.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => Some((*name).to_owned()),
        _ => None,
    });
    let common = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok().map(str::to_owned));
    let names = alternative.chain(common);
    names.map(|name| name.to_lowercase()).filter(|name| !name.is_empty()).collect()
}

/// A subject in the form in which it is compared: `o=shop,cn=printer`, in lower case, with a `\` before what would
/// separate attributes. So an authority that lets its clients choose one attribute gives nobody another's subject.
fn subject(name: &X509Name<'_>) -> String {
    let mut out = String::new();
    for attributes in name.iter_rdn() {
        for (n, attribute) in attributes.iter().enumerate() {
            let kind = attribute.attr_type();
            let key = oid2abbrev(kind, oid_registry()).map_or_else(|_| kind.to_id_string(), str::to_owned);
            let value = attribute.as_str().map_or_else(|_| "?".to_owned(), str::to_lowercase);
            let between = if out.is_empty() { None } else { Some(if n == 0 { ',' } else { '+' }) };
            add_attribute(&mut out, between, &key.to_lowercase(), &value);
        }
    }
    out
}

fn add_attribute(out: &mut String, between: Option<char>, key: &str, value: &str) {
    out.extend(between);
    out.push_str(key);
    out.push('=');
    for c in value.trim().chars() {
        if matches!(c, ',' | '+' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
}

/// What people write for a subject, in the same form: with or without blanks around its marks, as OpenSSL prints it
/// (`O = Shop, CN = printer`); what follows a comma and is no attribute belongs to the value before it. `None`: it does
/// not look like one.
fn subject_meant(text: &str) -> Option<String> {
    let text = text.strip_prefix("subject=").or_else(|| text.strip_prefix("subject:")).unwrap_or(text);
    let mut attributes: Vec<(Option<char>, String, String)> = Vec::new();
    let (mut part, mut between, mut literal) = (String::new(), None, false);
    let mut end = |part: &mut String, between: Option<char>| -> Option<()> {
        let part = std::mem::take(part);
        match (part.split_once('=').filter(|(key, _)| is_attribute(key.trim())), attributes.last_mut()) {
            (Some((key, value)), _) => {
                attributes.push((between, key.trim().to_owned(), value.to_owned()));
            }
            (None, Some((_, _, value))) => {
                value.extend(between);
                value.push_str(&part);
            }
            (None, None) => return None,
        }
        Some(())
    };
    for c in text.chars() {
        match c {
            '\\' if !literal => literal = true,
            ',' | '+' if !literal => {
                end(&mut part, between)?;
                between = Some(c);
            }
            c => {
                literal = false;
                part.push(c);
            }
        }
    }
    end(&mut part, between)?;
    let mut out = String::new();
    for (between, key, value) in &attributes {
        add_attribute(&mut out, *between, key, value);
    }
    Some(out)
}

/// `certificate` of a user in the form in which it is compared: by its look a fingerprint of SHA-256, with colons or
/// without, a subject (`O=Shop, CN=printer`), or a name.
pub(super) fn comparable(text: &str) -> String {
    let text = text.trim().to_lowercase();
    // The second is what OpenSSL prints.
    let hash = text.strip_prefix("sha256:").or_else(|| text.strip_prefix("sha256 fingerprint="));
    let hex: String = hash.unwrap_or(&text).chars().filter(|c| *c != ':').collect();
    match hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        true => format!("sha256:{hex}"),
        false => subject_meant(&text).map_or_else(|| format!("name:{text}"), |subject| format!("subject:{subject}")),
    }
}

/// The name of an attribute of a subject, `cn`, or its number.
fn is_attribute(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.')
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};

    use super::*;

    fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn client(by: &CertifiedIssuer<'static, KeyPair>) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["Printer.shop.example".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::Rfc822Name("scan@shop.example".try_into().unwrap()));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Shop");
        params.distinguished_name.push(DnType::CommonName, "Printer 7");
        params.signed_by(&KeyPair::generate().unwrap(), by).unwrap().der().clone()
    }

    #[test]
    fn who_an_authority_vouches_for_has_names_and_nobody_else_has() {
        let (ours, theirs) = (authority("ours"), authority("theirs"));
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        std::fs::write(&file, ours.pem()).unwrap();
        let file = Authorities::load(&file).unwrap();
        assert!(ClientAuthorities::new(&file, ClientCert::Off).unwrap().is_none());
        let known = ClientAuthorities::new(&file, ClientCert::Offered).unwrap().unwrap();
        let certificate = client(&ours);
        let identity = known.identity(&certificate, &[]).unwrap();
        assert_eq!(identity.names, ["printer.shop.example", "scan@shop.example", "printer 7", "o=shop, cn=printer 7"]);
        assert_eq!(identity.fingerprint.len(), 64);
        let (shown, error) = *known.identity(&client(&theirs), &[]).unwrap_err();
        assert!(shown.some_names().starts_with("printer.shop.example | ") && shown.fingerprint.len() == 64);
        assert!(error.to_string().contains("UnknownIssuer"), "{error}");
    }

    /// An authority that gives out any common name gives nobody the certificate of another.
    #[test]
    fn no_common_name_passes_for_a_fingerprint_or_a_subject() {
        let ours = authority("ours");
        let named = |name: &str| {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
            ClientIdentity::of(params.signed_by(&KeyPair::generate().unwrap(), &ours).unwrap().der())
        };
        for other in [
            "0a".repeat(32),
            "O=Shop, CN=Printer 7".to_owned(),
            "O=Shop,CN=Printer 7".to_owned(),
            format!("sha256:{}", "0a".repeat(32)),
        ] {
            let wanted = comparable(&other);
            assert!(named(&other).forms().all(|form| form != wanted), "{other}");
        }
        assert!(named("printer7").forms().any(|form| form == comparable("Printer7")));
    }

    #[test]
    fn a_subject_may_have_blanks_or_none_and_commas_in_its_values() {
        for text in [
            "O=Shop, CN=Printer 7",
            " O=Shop,CN=Printer 7 ",
            "O = Shop, CN = Printer 7",
            "subject=o=shop,cn=printer 7",
            "Subject: O=Shop , CN= Printer 7",
        ] {
            assert_eq!(comparable(text), "subject:o=shop,cn=printer 7", "{text}");
        }
        assert_eq!(comparable("O=Shop, Inc., CN=a+b"), comparable("O=Shop\\, Inc.,CN=a\\+b"));
        assert_eq!(comparable("O=Shop, Inc., CN=x"), "subject:o=shop\\, inc.,cn=x");
        assert_ne!(comparable("O=Shop\\, CN=x"), comparable("O=Shop, CN=x"));
        let ours = authority("ours");
        let of = |organization: &str| {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::OrganizationName, organization);
            params.distinguished_name.push(DnType::CommonName, "x");
            ClientIdentity::of(params.signed_by(&KeyPair::generate().unwrap(), &ours).unwrap().der())
        };
        let is = |organization: &str, text: &str| of(organization).forms().any(|form| form == comparable(text));
        assert!(is("Shop, Inc.", "O=Shop, Inc., CN=x") && is("Shop", "O=Shop,CN=x"));
        // One who may choose his organization is nobody else by that.
        assert!(!is("Shop, CN=y", "O=Shop, CN=y, CN=x") && !is("Shop", "CN=x, O=Shop"));
    }

    #[test]
    fn a_fingerprint_may_have_colons_and_a_name_may_have_capitals() {
        let hex = "0A".repeat(32);
        let colons = vec!["0a"; 32].join(":");
        assert_eq!(
            (comparable(&hex), comparable(&format!("SHA256:{colons}"))),
            (format!("sha256:{}", hex.to_lowercase()), format!("sha256:{}", hex.to_lowercase()))
        );
        assert_eq!(comparable(&format!("sha256 Fingerprint={}", colons.to_uppercase())), comparable(&hex));
        assert_eq!(comparable("Printer 7"), "name:printer 7");
        assert_eq!(comparable("sha256:abc"), "name:sha256:abc");
    }
}
