//! What the recipient's domain, or its mail host, publishes on how TLS has to be: by DANE (RFC 7672) or MTA-STS (RFC 8461).
//!
//! The router finds it and leaves out hosts that mail may not be given to; who connects does what it says beside `tls`
//! of the provider (`deliver::demand`).

use std::fmt;
use std::sync::Arc;

use super::tlsa::Tlsa;

/// What is published for one host of a route.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub enum TlsPolicy {
    /// Nothing.
    #[default]
    None,
    /// A policy in mode enforce: TLS, with a valid certificate for the host's name.
    MtaSts(Arc<str>),
    /// A policy in mode testing, which names the host: what is wrong with its certificate is told.
    MtaStsTesting(Arc<str>),
    /// A policy in mode testing, which does not name the host; that is told.
    Unnamed(Arc<str>),
    /// Signed TLSA records: TLS, with a certificate that one of them matches.
    Dane(Arc<Dane>),
    /// Signed TLSA records of this name, none of which can be used: TLS, with any certificate.
    DaneUnusable(Arc<str>),
}

/// The records of a host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dane {
    /// The name where they are, which the host is asked for (SNI), then others that its certificate may have.
    pub names: Vec<Arc<str>>,
    /// At least one.
    pub records: Arc<[Tlsa]>,
}

/// What the host has to show, for people; empty for what is not published.
impl fmt::Display for TlsPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsPolicy::None => Ok(()),
            TlsPolicy::MtaSts(_) => f.write_str("a valid certificate for its name, by MTA-STS"),
            TlsPolicy::MtaStsTesting(_) => f.write_str("its certificate is looked at only, by MTA-STS in mode testing"),
            TlsPolicy::Unnamed(_) => f.write_str("the MTA-STS policy, in mode testing, does not name it"),
            TlsPolicy::Dane(dane) => {
                write!(f, "a certificate that matches one of {} TLSA records, by DANE", dane.records.len())
            }
            TlsPolicy::DaneUnusable(_) => f.write_str("any certificate: its TLSA records cannot be used, by DANE"),
        }
    }
}
