//! What both sides say of TLS.

use tokio_rustls::rustls::ProtocolVersion;

/// The version for the log: `TLSv1.3` or `TLSv1.2`, the only ones that are spoken.
pub fn version_name(version: Option<ProtocolVersion>) -> &'static str {
    match version {
        Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
        _ => "TLSv1.2",
    }
}
