//! A certificate that is looked at and taken whatever it is: what a policy in testing would refuse is told.

use std::sync::{Arc, OnceLock};

use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{DigitallySignedStruct, Error, SignatureScheme};

use super::shown::result_of;
use super::tls::{AnyCertificate, OrPinned};
use crate::observe::seldom;
use crate::smtp::tls::explain;
use crate::tls_report::ResultType;

/// See the module.
#[derive(Debug)]
pub(super) struct Watching {
    pub inner: Arc<OrPinned>,
    pub any: AnyCertificate,
    /// What is wrong with it, or with the signature of the handshake.
    pub told: Arc<OnceLock<(ResultType, String)>>,
}

impl Watching {
    fn note<T>(&self, host: &str, checked: Result<T, Error>) {
        if let Err(error) = checked {
            let _ = self.told.set((result_of(&error), explain(host, &error)));
        }
    }
}

impl ServerCertVerifier for Watching {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let checked = self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        self.note(&server_name.to_str(), checked);
        self.any.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.note("", self.inner.verify_tls12_signature(message, cert, dss));
        self.any.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.note("", self.inner.verify_tls13_signature(message, cert, dss));
        self.any.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.any.supported_verify_schemes()
    }
}

/// Tells what the policy of `domain`, which is in testing, would refuse of a session with `host`.
pub(super) fn tell(domain: &str, host: &str, why: Option<&String>) {
    if let Some(why) = why
        && let Some(times) = seldom("MTA-STS testing", &format!("{domain} {host}"))
    {
        tracing::warn!(
            domain,
            host,
            why,
            times,
            "the MTA-STS policy of a domain, in mode testing, would refuse this host"
        );
    }
}
