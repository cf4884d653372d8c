//! What all who speak TLS say of it, in words.

use tokio_rustls::rustls::{CertificateError, Error, ProtocolVersion};

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
            let names: Vec<String> = presented.iter().take(5).map(|name| printable(name)).collect();
            format!("the certificate is not for {host}: it has {}", names.join(", "))
        }
        Error::InvalidCertificate(C::NotValidForName) => format!("the certificate is not for {host}"),
        other => other.to_string(),
    }
}

/// A name of a certificate, which rustls gives as `DnsName("mx.example")`.
fn printable(text: &str) -> String {
    let text = text.split('"').nth(1).unwrap_or(text);
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}
