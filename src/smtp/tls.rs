//! What all who speak TLS say of it, in words.

use tokio_rustls::rustls::{AlertDescription, CertificateError, Error, ProtocolVersion};

/// The version for the log: `TLSv1.3` or `TLSv1.2`, the only ones that are spoken.
pub fn version_name(version: Option<ProtocolVersion>) -> &'static str {
    match version {
        Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
        _ => "TLSv1.2",
    }
}

/// A fault of a handshake with `host` in words. Has names of the peer's certificate, at most a few,
/// printable and cut.
pub fn explain(host: &str, error: &Error) -> String {
    use CertificateError as C;
    match error {
        Error::InvalidCertificate(C::Expired | C::ExpiredContext { .. }) => "the certificate has expired".to_owned(),
        Error::InvalidCertificate(C::NotValidYet | C::NotValidYetContext { .. }) => {
            "the certificate is not valid yet".to_owned()
        }
        Error::InvalidCertificate(C::UnknownIssuer) => "the certificate is not from a trusted authority".to_owned(),
        Error::InvalidCertificate(C::BadSignature) => {
            "the certificate is not signed by the authority that it names".to_owned()
        }
        Error::InvalidCertificate(C::NotValidForNameContext { presented, .. }) => {
            if presented.is_empty() {
                return format!("the certificate is not for {host}: it names no host (a common name does not count)");
            }
            let names: Vec<String> = presented.iter().take(5).map(|name| printable(name)).collect();
            format!("the certificate is not for {host}: it has {}", names.join(", "))
        }
        Error::InvalidCertificate(C::NotValidForName) => format!("the certificate is not for {host}"),
        Error::InvalidCertificate(C::Other(other)) => {
            // webpki's reasons come as the name of a variant only.
            let reason = format!("{other:?}");
            let known = OTHER.iter().find(|(name, _)| reason.contains(name));
            known.map_or_else(|| other.to_string(), |(_, text)| (*text).to_owned())
        }
        Error::InvalidCertificate(
            C::UnsupportedSignatureAlgorithmContext { .. }
            | C::UnsupportedSignatureAlgorithmForPublicKeyContext { .. },
        ) => "the certificate or its key is too weak, or of a kind that is not known here (RSA needs 2048 bits, and SHA-1 does not count)".to_owned(),
        _ if is_incompatible(error) => {
            // A host of TLS 1.2 that wants a certificate of ours breaks off with the same alert.
            let or = match error {
                Error::AlertReceived(AlertDescription::HandshakeFailure) => {
                    "; or it wants a certificate of ours, and has got none or not the right one: `tls_client_cert`"
                }
                _ => "",
            };
            format!(
                "the server and we have no version or cipher suite in common: spoken here are TLS 1.3, and TLS 1.2 with ECDHE and AES-GCM or ChaCha20{or} ({error})"
            )
        }
        Error::General(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Reasons of webpki that rustls hands on without words.
const OTHER: [(&str, &str); 5] = [
    (
        "CaUsedAsEndEntity",
        "the server shows the certificate of an authority as its own: if it is meant to be trusted itself, `tls_ca` has to name exactly this certificate",
    ),
    ("UnsupportedCertVersion", "the certificate is of version 1, which is not accepted: expected X.509 version 3"),
    ("UnsupportedCriticalExtension", "the certificate has a critical extension that is not known here"),
    ("EndEntityUsedAsCa", "a certificate of the chain is that of a server and not of an authority"),
    ("PathLenConstraintViolated", "the chain is longer than one of its authorities allows"),
];

/// Whether two ends have nothing in common that they could speak: older versions, RSA key exchange, CBC.
pub fn is_incompatible(error: &Error) -> bool {
    use AlertDescription as A;
    matches!(
        error,
        Error::PeerIncompatible(_)
            | Error::AlertReceived(A::HandshakeFailure | A::ProtocolVersion | A::InsufficientSecurity)
    )
}

/// A name of a certificate, which rustls gives as `DnsName("mx.example")`.
fn printable(text: &str) -> String {
    let text = text.split('"').nth(1).unwrap_or(text);
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}
