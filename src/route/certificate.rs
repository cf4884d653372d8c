//! What is wrong with the certificate of a name server that is asked over TLS or HTTPS.
//!
//! hickory tells of a handshake that failed only that there is no connection. So the verifier of each
//! server keeps why it refused, until it takes a certificate of that server.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{DigitallySignedStruct, Error, SignatureScheme};

use crate::observe::seldom;
use crate::smtp::tls::explain;

/// The last refusal of one server's certificate.
#[derive(Clone, Debug, Default)]
pub(super) struct Refused(Arc<Mutex<Option<(Instant, String)>>>);

impl Refused {
    /// Why, if that was at this time or later.
    pub(super) fn since(&self, then: Instant) -> Option<String> {
        self.0.lock().as_ref().filter(|(at, _)| *at >= then).map(|(_, why)| why.clone())
    }

    /// The first refusal, and each for another reason, is worth a line.
    fn note(&self, server: &str, why: String) {
        let before = self.0.lock().replace((Instant::now(), why.clone()));
        if before.is_none_or(|(_, before)| before != why)
            && let Some(times) = seldom("not believed", server)
        {
            tracing::warn!(server, why, times, "a name server is not believed: its certificate is refused");
        }
    }
}

/// Checks like `inner`, and notes what it refuses.
pub(super) struct Verifier {
    pub(super) inner: Arc<dyn ServerCertVerifier>,
    /// The server as in the configuration.
    pub(super) server: String,
    pub(super) refused: Refused,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("server", &self.server).finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let checked = self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match &checked {
            Ok(_) => *self.refused.0.lock() = None,
            Err(error) => self.refused.note(&self.server, explain(&server_name.to_str(), error)),
        }
        checked
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
