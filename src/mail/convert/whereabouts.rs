//! What must go, and where in a message something stands, for those who are told that it cannot go.

use std::fmt;

use crate::mail::binary::is_binary;

/// Longest field name that is told.
const MAX_NAME: usize = 64;

/// What must go; of fields, over-long lines besides.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct MustGo {
    /// 8-bit bytes of header fields.
    pub(super) fields: bool,
    /// 8-bit bytes of content.
    pub(super) content: bool,
    /// Over-long lines of content.
    pub(super) long: bool,
    /// What only BINARYMIME takes, anywhere, and the label `binary`.
    pub(super) binary: bool,
}

impl MustGo {
    /// Whether there is some of it in a line of content, or a piece of one; `long`: of an over-long one.
    pub(super) fn is_in(self, bytes: &[u8], long: bool) -> bool {
        (self.long && long) || (self.content && !bytes.is_ascii()) || (self.binary && is_binary(bytes))
    }
}

/// An entity of a message, and perhaps a field of its header section.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Whereabouts {
    /// Counted from 1 in the order in which they begin; 1 is the message itself.
    pub(super) entity: usize,
    /// The field's name.
    pub(super) field: Option<String>,
}

impl Whereabouts {
    /// Of a field, whose first bytes these are.
    pub(super) fn of(entity: usize, field: Option<&[u8]>) -> Whereabouts {
        let field = field.map(|name| name.iter().take(MAX_NAME).map(|b| printable(*b)).collect());
        Whereabouts { entity, field }
    }
}

fn printable(b: u8) -> char {
    if b.is_ascii_graphic() { char::from(b) } else { '?' }
}

impl fmt::Display for Whereabouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(field) = &self.field {
            write!(f, "the field {field} of ")?;
        }
        match self.entity {
            0 | 1 => f.write_str("the message itself"),
            part => write!(f, "MIME part {}", part - 1),
        }
    }
}
