//! The envelope: reverse-path, forward-paths and their ESMTP parameters (RFC 5321, 3030, 3461, 6152,
//! 6531, 6710). Values are kept decoded; xtext (RFC 3461 §4) is a matter of the wire.

use super::Address;
use crate::clock::Timestamp;
pub use crate::smtp::parameters::{BodyKind, Notify, Orcpt, Ret};

/// The bytes of an envelope id, as they were before they were coded in xtext.
pub fn envid_bytes(envid: &str) -> impl Iterator<Item = u8> {
    // Characters beyond those are in none that came by SMTP.
    envid.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?'))
}

/// What the sender says of TLS on the way (RFC 8689).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TlsWish {
    /// Nothing.
    #[default]
    Usual,
    /// `TLS-Required: No`: what domains publish on TLS does not hold it up.
    Optional,
    /// `REQUIRETLS` of MAIL: only by TLS, to hosts that show who they are and promise the same.
    Required,
}

/// Where it stands in the store.
const TLS_OPTIONAL: u8 = 1 << 5;
const TLS_REQUIRED: u8 = 1 << 6;

impl TlsWish {
    /// A bit for the store, beside those of [`super::BodyTraits`].
    pub fn to_bits(self) -> u8 {
        match self {
            TlsWish::Usual => 0,
            TlsWish::Optional => TLS_OPTIONAL,
            TlsWish::Required => TLS_REQUIRED,
        }
    }

    /// The inverse of [`TlsWish::to_bits`].
    pub fn from_bits(bits: u8) -> TlsWish {
        match (bits & TLS_REQUIRED != 0, bits & TLS_OPTIONAL != 0) {
            (true, _) => TlsWish::Required,
            (false, true) => TlsWish::Optional,
            (false, false) => TlsWish::Usual,
        }
    }
}

/// What MAIL said.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Envelope {
    /// `None` is the null reverse-path `<>`: never gets a DSN.
    pub reverse_path: Option<Address>,
    /// `BODY=`.
    pub body: BodyKind,
    /// `SMTPUTF8` was asked for (RFC 6531).
    pub smtputf8: bool,
    /// `RET=`.
    pub ret: Option<Ret>,
    /// `ENVID=`, decoded: each character is the byte of its number ([`envid_bytes`]). It may be any but ASCII
    /// controls, whatever the character set that the client has in mind.
    pub envid: Option<String>,
    /// Delivery priority, −9 (bulk) to 9; 0 is normal (RFC 6710 levels).
    pub priority: i8,
    /// It does not leave before (RFC 4865); `None`: as soon as it can.
    pub release: Option<Timestamp>,
    /// Of TLS.
    pub tls: TlsWish,
}

impl Envelope {
    /// The reverse-path as text, empty for `<>`.
    pub fn sender(&self) -> &str {
        self.reverse_path.as_ref().map_or("", Address::as_str)
    }
}

/// What one RCPT said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recipient {
    /// The forward-path.
    pub address: Address,
    /// `NOTIFY=`.
    pub notify: Notify,
    /// `ORCPT=`.
    pub orcpt: Option<Orcpt>,
    /// No client named it: a `[[copy]]` did.
    pub copy: bool,
}

impl Recipient {
    /// A recipient without parameters.
    pub fn new(address: Address) -> Recipient {
        Recipient { address, notify: Notify::default(), orcpt: None, copy: false }
    }
}
