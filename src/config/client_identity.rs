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
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{Authorities, ClientCert};

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

    /// Who has shown this chain, its own certificate first; `None`: nobody vouches for it now.
    pub fn identity(&self, chain: &[CertificateDer<'_>]) -> Option<ClientIdentity> {
        let (own, others) = chain.split_first()?;
        self.verifier.verify_client_cert(own, others, UnixTime::now()).ok()?;
        Some(ClientIdentity::of(own))
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
        let read =
            X509Certificate::from_der(own).map(|(_, own)| (names(&own), own.subject().to_string().to_lowercase()));
        let (mut names, subject) = read.unwrap_or_default();
        let mut forms = vec![format!("sha256:{fingerprint}")];
        // Nobody looks for what has the look of another kind.
        forms.extend(names.iter().map(|name| comparable(name)).filter(|form| form.starts_with("name:")));
        if !subject.is_empty() {
            forms.push(format!("subject:{subject}"));
            names.push(subject);
        }
        ClientIdentity { fingerprint, names, forms }
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

/// `certificate` of a user in the form in which it is compared: by its look a fingerprint of SHA-256, with colons or
/// without, a subject (`O=Shop, CN=printer`), or a name.
pub(super) fn comparable(text: &str) -> String {
    let text = text.trim().to_lowercase();
    let hex: String = text.strip_prefix("sha256:").unwrap_or(&text).chars().filter(|c| *c != ':').collect();
    let is_subject = text.split(',').all(|part| part.trim().split_once('=').is_some_and(|(key, _)| is_attribute(key)));
    match hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        true => format!("sha256:{hex}"),
        false if is_subject => format!("subject:{text}"),
        false => format!("name:{text}"),
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
        let identity = known.identity(std::slice::from_ref(&certificate)).unwrap();
        assert_eq!(identity.names, ["printer.shop.example", "scan@shop.example", "printer 7", "o=shop, cn=printer 7"]);
        assert_eq!(identity.fingerprint.len(), 64);
        assert_eq!(known.identity(&[client(&theirs)]), None);
        assert_eq!(known.identity(&[]), None);
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
        for other in ["0a".repeat(32), "O=Shop, CN=Printer 7".to_owned(), format!("sha256:{}", "0a".repeat(32))] {
            let wanted = comparable(&other);
            assert!(named(&other).forms().all(|form| form != wanted), "{other}");
        }
        assert!(named("printer7").forms().any(|form| form == comparable("Printer7")));
    }

    #[test]
    fn a_fingerprint_may_have_colons_and_a_name_may_have_capitals() {
        let hex = "0A".repeat(32);
        let colons = vec!["0a"; 32].join(":");
        assert_eq!(
            (comparable(&hex), comparable(&format!("SHA256:{colons}"))),
            (format!("sha256:{}", hex.to_lowercase()), format!("sha256:{}", hex.to_lowercase()))
        );
        assert_eq!(comparable(" O=Shop, CN=Printer 7 "), "subject:o=shop, cn=printer 7");
        assert_eq!(comparable("Printer 7"), "name:printer 7");
        assert_eq!(comparable("sha256:abc"), "name:sha256:abc");
    }
}
