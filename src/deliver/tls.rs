//! TLS to upstream hosts: client configurations, certificate policy, and errors people can read.
//!
//! TLS 1.2 and 1.3 on aws-lc-rs. One client configuration is shared by all connections of one
//! provider, so that session tickets are used again (`tickets` keeps them per server name); early
//! data stays off.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use moka::sync::Cache;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{Resumption, WebPkiServerVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    SupportedProtocolVersion, version,
};

use super::dane::Dane;
use super::demand::Demand;
use super::fact::Event;
use super::session::Setup;
use super::shown::result_of;
use super::tickets::Tickets;
use super::watch::{self, Watching};
use super::wire::{Io, event_of};
use crate::config::{Authorities, OwnCertificate, Provider, TlsMin};
use crate::route;
use crate::smtp::tls::{explain, is_incompatible, version_name};
use crate::tls_report::ResultType;

/// Client configurations kept (one or two for each provider), and verifiers.
const CONFIGS: u64 = 1024;
/// How often it is told that a host speaks no TLS that is spoken here, and of how many hosts that is remembered.
const TELL_AGAIN: Duration = Duration::from_secs(3600);
const TOLD: u64 = 1000;

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    provider: String,
    verified: bool,
    min: TlsMin,
    ca: Option<Authorities>,
    own: Option<OwnCertificate>,
    resume: bool,
}

/// The roots of trust and the client configurations made so far.
pub struct TlsSettings {
    crypto: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    configs: Cache<Key, Arc<ClientConfig>>,
    /// What checks certificates, by what is trusted beside the roots.
    verifiers: Cache<Option<Authorities>, Arc<OrPinned>>,
    /// Hosts of which it was told.
    told: Cache<String, ()>,
}

impl TlsSettings {
    /// Loads Mozilla's roots (compiled in) and the system's, once. A system without roots is fine.
    pub fn load() -> TlsSettings {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let native = rustls_native_certs::load_native_certs();
        for error in &native.errors {
            tracing::warn!(%error, "a root certificate of the system cannot be read");
        }
        roots.add_parsable_certificates(native.certs);
        TlsSettings {
            crypto: Arc::new(aws_lc_rs::default_provider()),
            roots: Arc::new(roots),
            configs: Cache::new(CONFIGS),
            verifiers: Cache::new(CONFIGS),
            told: Cache::builder().max_capacity(TOLD).time_to_live(TELL_AGAIN).build(),
        }
    }

    /// The configuration for a provider's hosts. The error is for people.
    fn config(&self, provider: &Provider, demand: &Demand) -> Result<Arc<ClientConfig>, String> {
        let key = Key {
            provider: provider.name.clone(),
            verified: demand.certificate,
            min: provider.tls_min,
            ca: provider.tls_ca.clone(),
            own: provider.tls_client.clone(),
            resume: provider.tls_resume,
        };
        if let Some(config) = self.configs.get(&key) {
            return Ok(config);
        }
        let config = Arc::new(self.build(&key)?);
        self.configs.insert(key, config.clone());
        Ok(config)
    }

    /// The configuration for what a provider needs beside its hosts, whose certificate is checked whatever `tls` says.
    pub(super) fn verified(&self, provider: &Provider) -> Result<Arc<ClientConfig>, String> {
        let (name, ca) = (format!("{} ", provider.name), provider.tls_ca.clone());
        self.build(&Key { provider: name, verified: true, min: TlsMin::V12, ca, own: None, resume: true }).map(Arc::new)
    }

    fn build(&self, key: &Key) -> Result<ClientConfig, String> {
        let verifier: Arc<dyn ServerCertVerifier> = match key.verified {
            true => self.verifier(key.ca.as_ref())?,
            false => Arc::new(AnyCertificate(self.crypto.clone())),
        };
        let mut config = self.with_verifier(key.min, verifier, key.own.as_ref())?;
        if key.resume {
            config.resumption = Resumption::store(Arc::new(Tickets::new()));
        }
        Ok(config)
    }

    /// Without resumption: a session that is resumed shows no certificate.
    fn with_verifier(
        &self,
        min: TlsMin,
        verifier: Arc<dyn ServerCertVerifier>,
        own: Option<&OwnCertificate>,
    ) -> Result<ClientConfig, String> {
        let versions: &[&SupportedProtocolVersion] = match min {
            TlsMin::V12 => &[&version::TLS13, &version::TLS12],
            TlsMin::V13 => &[&version::TLS13],
        };
        let builder = ClientConfig::builder_with_provider(self.crypto.clone())
            .with_protocol_versions(versions)
            .map_err(|e| e.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match own {
            Some(own) => builder.with_client_cert_resolver(own.resolver()),
            None => builder.with_no_client_auth(),
        };
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        Ok(config)
    }

    /// Checks certificates against the roots and these authorities.
    fn verifier(&self, ca: Option<&Authorities>) -> Result<Arc<OrPinned>, String> {
        let key = ca.cloned();
        if let Some(verifier) = self.verifiers.get(&key) {
            return Ok(verifier);
        }
        let authorities = || ca.iter().flat_map(|ca| ca.certificates());
        let mut roots = RootCertStore::clone(&self.roots);
        for authority in authorities() {
            roots.add(authority.clone()).map_err(|e| e.to_string())?;
        }
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.crypto.clone())
            .build()
            .map_err(|e| e.to_string())?;
        let verifier = Arc::new(OrPinned { pins: authorities().cloned().collect(), inner });
        self.verifiers.insert(key, verifier.clone());
        Ok(verifier)
    }

    /// Handshake over `io`; gives the encrypted stream and the protocol version.
    pub(super) async fn handshake(
        &self,
        setup: &Setup<'_>,
        io: Box<dyn Io>,
    ) -> Result<(Box<dyn Io>, &'static str), Event> {
        let Setup { provider, host, ip, demand, shown, .. } = *setup;
        let limit = setup.timeouts.tls;
        let watched = demand.watches().map(|domain| (domain, Arc::new(OnceLock::new())));
        let config = match &watched {
            Some((_, told)) => self.watching(provider, told.clone()),
            None => match demand.dane() {
                Some(dane) => self.by_records(provider, host, demand.certificate, dane),
                None => self.config(provider, demand),
            },
        };
        let config = config.map_err(Event::Tls)?;
        // Who has records is asked for the name that has them (RFC 7672 §8.1).
        let asked = demand.dane().and_then(|dane| dane.names.first()).map_or(host, |name| &**name);
        let name = match ServerName::try_from(asked.to_owned()) {
            Ok(name) => name,
            // Names that DNS has but certificates cannot have (`_`).
            Err(_) if !demand.certificate => ServerName::IpAddress(ip.into()),
            Err(_) => return Err(demand.refusal(format!("{host} is not a name that a certificate can have"))),
        };
        match timeout(limit, TlsConnector::from(config).connect(name, io)).await {
            Err(_) => Err(Event::Timeout(limit)),
            Ok(Err(e)) => Err(match e.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
                Some(tls) => {
                    if demand.required && is_incompatible(tls) && !self.told.contains_key(host) {
                        self.told.insert(host.to_owned(), ());
                        tracing::error!(
                            provider = provider.name, host, %ip, error = %tls,
                            "no TLS with the host: it speaks none that is spoken here, or wants a certificate (`tls_client_cert`): its mail waits; see \"A host with old TLS\" in docs/operations.md"
                        );
                    }
                    // The names in a certificate are the peer's words, like a reply.
                    let text = explain(host, tls);
                    shown.note(result_of(tls), &text);
                    let text = provider.relay.iter().fold(text, |text, relay| relay.redactor().redact(text));
                    // What the host is; another failure may be over the next time.
                    match is_incompatible(tls) || matches!(tls, Error::InvalidCertificate(_)) {
                        true => demand.refusal(text),
                        false => Event::Tls(text),
                    }
                }
                None => event_of(&e),
            }),
            Ok(Ok(stream)) => {
                if let Some((domain, told)) = &watched {
                    watch::tell(domain, host, told.get().map(|(_, why)| why));
                    if let Some((result, why)) = told.get() {
                        shown.note(*result, why);
                    }
                }
                let version = version_name(stream.get_ref().1.protocol_version());
                Ok((Box::new(stream), version))
            }
        }
    }

    /// Takes any certificate, and notes in `told` what is wrong with it.
    fn watching(
        &self,
        provider: &Provider,
        told: Arc<OnceLock<(ResultType, String)>>,
    ) -> Result<Arc<ClientConfig>, String> {
        let verifier = Watching {
            inner: self.verifier(provider.tls_ca.as_ref())?,
            any: AnyCertificate(self.crypto.clone()),
            told,
        };
        self.with_verifier(provider.tls_min, Arc::new(verifier), provider.tls_client.as_ref()).map(Arc::new)
    }

    /// Takes a certificate that matches a record, and if `certificate` says so is a valid one for `host`, too.
    fn by_records(
        &self,
        provider: &Provider,
        host: &str,
        certificate: bool,
        dane: &route::Dane,
    ) -> Result<Arc<ClientConfig>, String> {
        let name = |name: &str| ServerName::try_from(name.to_owned());
        let no_name = |_| format!("{host} is not a name that a certificate can have");
        let also = match certificate {
            true => Some((self.verifier(provider.tls_ca.as_ref())?, name(host).map_err(no_name)?)),
            false => None,
        };
        let names = dane.names.iter().filter_map(|text| name(text).ok()).collect();
        let verifier = Dane { crypto: self.crypto.clone(), records: dane.records.clone(), names, also };
        self.with_verifier(provider.tls_min, Arc::new(verifier), provider.tls_client.as_ref()).map(Arc::new)
    }
}

/// Takes a certificate that is, byte for byte, one of `tls_ca`, for whatever it says: it was named itself.
/// That is what `openssl req -x509` makes, which no chain of trust has room for. Others are checked.
#[derive(Debug)]
pub(super) struct OrPinned {
    pins: Vec<CertificateDer<'static>>,
    inner: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for OrPinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.pins.iter().any(|pin| pin.as_ref() == end_entity.as_ref()) {
            return Ok(ServerCertVerified::assertion());
        }
        self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss).map_err(weak_or_not_its)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss).map_err(weak_or_not_its)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// The signature of a handshake, which `explain` would take for that of a certificate.
fn weak_or_not_its(error: Error) -> Error {
    match error {
        Error::InvalidCertificate(CertificateError::BadSignature) => Error::General(
            "the handshake is not signed by the key of the certificate, or the key is too weak: RSA needs 2048 bits"
                .to_owned(),
        ),
        other => other,
    }
}

/// Takes any certificate, and any key: who does not ask whose a key is has nothing from knowing that the peer
/// owns it, and an encrypted connection to a server with a weak key is better than none.
#[derive(Debug)]
pub(super) struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
