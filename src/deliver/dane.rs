//! Certificates by TLSA records (RFC 7672 §3): what a host shows has to match one of those that DNS has, signed.

use std::sync::Arc;

use aws_lc_rs::digest;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::tls::OrPinned;
use crate::route::tlsa::{Form, Part, Tlsa, Usage};

/// See the module.
#[derive(Debug)]
pub(super) struct Dane {
    pub crypto: Arc<CryptoProvider>,
    pub records: Arc<[Tlsa]>,
    /// Names one of which a certificate has to have that is known by its authority (RFC 7672 §3.2.2).
    pub names: Vec<ServerName<'static>>,
    /// The certificate has to be one from an authority for this name, too.
    pub also: Option<(Arc<OrPinned>, ServerName<'static>)>,
}

impl Dane {
    fn matches(&self, usage: Usage, certificate: &CertificateDer<'_>) -> bool {
        self.records.iter().any(|record| record.usage == usage && matches(record, certificate))
    }

    /// The authorities that a record names: among those of the chain, and those that stand in a record whole.
    fn authorities<'c>(
        &'c self,
        chain: &'c [CertificateDer<'c>],
    ) -> impl Iterator<Item = CertificateDer<'static>> + 'c {
        let whole = self.records.iter().filter(|record| {
            (record.usage, record.part, record.form) == (Usage::Authority, Part::Certificate, Form::Full)
        });
        let shown = chain.iter().filter(|certificate| self.matches(Usage::Authority, certificate));
        let whole = whole.map(|record| CertificateDer::from(record.data.to_vec()));
        shown.map(|certificate| certificate.clone().into_owned()).chain(whole)
    }
}

impl ServerCertVerifier for Dane {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some((verifier, name)) = &self.also {
            verifier.verify_server_cert(end_entity, intermediates, name, ocsp_response, now)?;
        }
        if self.matches(Usage::Host, end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        let mut why = Error::General("its certificate matches none of them".to_owned());
        for authority in self.authorities(intermediates) {
            let mut roots = RootCertStore::empty();
            roots.add(authority)?;
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.crypto.clone())
                .build()
                .map_err(|e| Error::General(e.to_string()))?;
            for name in &self.names {
                match verifier.verify_server_cert(end_entity, intermediates, name, ocsp_response, now) {
                    Ok(verified) => return Ok(verified),
                    Err(error) => why = error,
                }
            }
        }
        Err(why)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.crypto.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.crypto.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.crypto.signature_verification_algorithms.supported_schemes()
    }
}

/// Whether a certificate is the one that a record means.
fn matches(record: &Tlsa, certificate: &CertificateDer<'_>) -> bool {
    let part: &[u8] = match record.part {
        Part::Certificate => certificate.as_ref(),
        Part::Key => match X509Certificate::from_der(certificate.as_ref()) {
            Ok((_, parsed)) => parsed.tbs_certificate.subject_pki.raw,
            Err(_) => return false,
        },
    };
    match record.form {
        Form::Full => part == &*record.data,
        Form::Sha256 => digest::digest(&digest::SHA256, part).as_ref() == &*record.data,
        Form::Sha512 => digest::digest(&digest::SHA512, part).as_ref() == &*record.data,
    }
}
