//! Every bound of a conversion, in one place (docs/reliability.md has the same table for people).
//!
//! Work and memory of a conversion are linear in what is bounded here and in the size of the
//! message; nothing else of a message counts. A message beyond a bound is not converted: it bounces
//! with the reason where the host takes no 8-bit data, and its over-long lines are folded on the
//! wire where it does.

use crate::mail::CHUNK;

/// Deepest nesting of parts that is followed; no real mail comes near.
pub const MAX_DEPTH: usize = 32;

/// Most entities (parts, and messages in parts) of a message.
pub const MAX_PARTS: usize = 2_000;

/// Most fields of one header section.
pub const MAX_FIELDS: usize = 2_000;

/// Most bytes of one header section: twice of the most that a listener takes at the top of a message.
pub const MAX_HEADER: usize = 8 * CHUNK;

/// Most bytes of a header field that has to be read or rewritten; others may be as long as the section.
pub const MAX_FIELD: usize = 32 * 1024;

/// Most bytes of a rewritten header field.
pub const MAX_FIELD_OUT: usize = 128 * 1024;

/// Most bytes of a `Content-Type`.
pub const MAX_CONTENT_TYPE: usize = 4 * 1024;

/// Most parameters of a `Content-Type`.
pub const MAX_PARAMETERS: usize = 64;

/// Bytes by which a result may be larger than 1.4 times the message: room for header sections.
pub const MAX_EXTRA: u64 = CHUNK as u64;

/// A result comes in pieces of this size in bytes.
pub const PIECE: usize = 64 * 1024;

/// Bytes that a conversion holds between two pieces at most, and so its ticket of the memory
/// budget: the chunk that is worked off, a piece, the copy of it that the wire encoder makes, a
/// field, that field rewritten, and plan and state.
pub const TICKET: u64 = (CHUNK + 2 * PIECE + MAX_FIELD + MAX_FIELD_OUT + 32 * 1024) as u64;

/// Excess over 1.4 times its size that quoted-printable may have in one text part, in bytes: short
/// texts stay readable.
pub(super) const SHORT_EXCESS: u64 = 1024;

/// The same in all text parts together.
pub(super) const SHORT_EXCESS_ALL: u64 = 64 * 1024;

/// Bytes of input that are worked off before it is looked whether a piece is full.
pub(super) const STRIDE: usize = 16 * 1024;

/// 1.4 times a size, without floating point.
pub(super) const fn grown(size: u64) -> u64 {
    size.saturating_add(size / 5 * 2).saturating_add(size % 5 * 2 / 5)
}

/// The bound that a message is beyond.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Limit {
    /// [`MAX_DEPTH`].
    #[error("its parts are nested deeper than {MAX_DEPTH} levels")]
    Depth,
    /// [`MAX_PARTS`].
    #[error("it has more than {MAX_PARTS} parts")]
    Parts,
    /// [`MAX_FIELDS`].
    #[error("a header section has more than {MAX_FIELDS} fields")]
    Fields,
    /// [`MAX_HEADER`].
    #[error("a header section has more than {MAX_HEADER} bytes")]
    Header,
    /// [`MAX_FIELD`].
    #[error("a header field that would have to be rewritten has more than {MAX_FIELD} bytes")]
    Field,
    /// [`MAX_FIELD_OUT`].
    #[error("a header field would have more than {MAX_FIELD_OUT} bytes")]
    FieldOut,
    /// [`MAX_CONTENT_TYPE`].
    #[error("a Content-Type has more than {MAX_CONTENT_TYPE} bytes")]
    ContentType,
    /// [`MAX_PARAMETERS`].
    #[error("a Content-Type has more than {MAX_PARAMETERS} parameters")]
    Parameters,
    /// [`MAX_EXTRA`].
    #[error("it would grow from {from} bytes to more than {to}")]
    Growth {
        /// Bytes of the message.
        from: u64,
        /// Most bytes of the result.
        to: u64,
    },
}

impl Limit {
    /// The enhanced status code of a message beyond it (RFC 3463 §3.4, §3.7).
    pub fn enhanced(self) -> &'static str {
        match self {
            Limit::Growth { .. } => "5.3.4",
            _ => "5.6.0",
        }
    }
}
