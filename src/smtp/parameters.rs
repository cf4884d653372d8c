//! Values of the ESMTP parameters that both sides and the store know (RFC 3030, 3461, 4865, 6152). They are kept decoded:
//! xtext (RFC 3461 §4) is a matter of the wire.

use std::time::Duration;

/// `BODY=` of MAIL (RFC 6152, RFC 3030 §3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum BodyKind {
    /// `7BIT`, or no BODY parameter.
    #[default]
    SevenBit,
    /// `8BITMIME`.
    EightBitMime,
    /// `BINARYMIME`: the body is octets, which only BDAT carries; CR, LF and NUL stand for themselves.
    BinaryMime,
}

impl BodyKind {
    /// A number for the store. The first two are those of the flag that versions without BINARYMIME kept
    /// there, and read there.
    pub fn to_number(self) -> u8 {
        match self {
            BodyKind::SevenBit => 0,
            BodyKind::EightBitMime => 1,
            BodyKind::BinaryMime => 2,
        }
    }

    /// The inverse of [`BodyKind::to_number`]; `None` for a number that is none of these.
    pub fn from_number(number: u8) -> Option<BodyKind> {
        match number {
            0 => Some(BodyKind::SevenBit),
            1 => Some(BodyKind::EightBitMime),
            2 => Some(BodyKind::BinaryMime),
            _ => None,
        }
    }
}

/// `HOLDFOR=` or `HOLDUNTIL=` of MAIL (RFC 4865 §4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hold {
    /// It leaves so long after it came, in whole seconds.
    For(Duration),
    /// It leaves then, in seconds since 1970.
    Until(u64),
}

/// `RET=` of MAIL (RFC 3461 §4.3): what a failure DSN returns of the message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ret {
    /// The whole message.
    Full,
    /// The header section only.
    Headers,
}

/// `NOTIFY=` of RCPT (RFC 3461 §4.1). When absent, FAILURE: a delay DSN only goes to who asked for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Notify {
    /// The parameter was given (so it must be passed on to a host with DSN).
    pub given: bool,
    /// A DSN on success.
    pub success: bool,
    /// A DSN on failure.
    pub failure: bool,
    /// A DSN on delay.
    pub delay: bool,
}

impl Notify {
    /// `NOTIFY=NEVER`.
    pub const NEVER: Notify = Notify { given: true, success: false, failure: false, delay: false };

    /// One byte for the store: bit 0 given, 1 success, 2 failure, 3 delay.
    pub fn to_bits(self) -> u8 {
        u8::from(self.given) | u8::from(self.success) << 1 | u8::from(self.failure) << 2 | u8::from(self.delay) << 3
    }

    /// The inverse of [`Notify::to_bits`].
    pub fn from_bits(bits: u8) -> Notify {
        Notify { given: bits & 1 != 0, success: bits & 2 != 0, failure: bits & 4 != 0, delay: bits & 8 != 0 }
    }
}

impl Default for Notify {
    fn default() -> Notify {
        Notify { given: false, success: false, failure: true, delay: false }
    }
}

/// `ORCPT=` of RCPT (RFC 3461 §4.2), decoded from xtext.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Orcpt {
    /// Address type, e.g. `rfc822`.
    pub kind: String,
    /// The original recipient address.
    pub address: String,
}
