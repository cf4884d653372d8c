//! What the walk over a message tells whoever asked for it.

use super::coder::Text;
use super::kind::{Encoding, Kind, Name};
use super::limits::Limit;

/// Where an entity stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The message itself.
    pub(super) top: bool,
    /// A message (top level, or inside message/rfc822), so it has a MIME-Version of its own.
    pub(super) message: bool,
    /// Inside something whose bytes are signed.
    pub(super) signed: bool,
    /// Directly inside multipart/digest.
    pub(super) digest: bool,
}

/// What an entity is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    /// Text or data; also a multipart in which no delimiter was found.
    Leaf,
    /// A multipart.
    Parts,
    /// A message in a part, never encoded as a whole (RFC 2046 §5.2.1).
    Message,
}

/// What a run of lines is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    /// Content of a leaf.
    Content,
    /// Before the first delimiter of a multipart: ignored by readers, or all there is if none comes.
    Preamble,
    /// After the last: ignored by readers.
    Epilogue,
}

/// What a header section said.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) kind: Kind,
    pub(super) encoding: Encoding,
    pub(super) has_type: bool,
    pub(super) has_version: bool,
    pub(super) has_encoding: bool,
}

/// Who is told of the structure. Bytes not in an argument of `field` or `text` are told by `raw`,
/// or as a line break by `newline`.
pub(super) trait Visit {
    /// What the visitor notes of an open entity.
    type Entity;

    /// An entity begins.
    fn begin(&mut self, place: Place) -> Result<Self::Entity, Limit>;
    /// Bytes that stay as they are.
    fn raw(&mut self, bytes: &[u8]);
    /// A header field without its last CRLF; `breaks`: it has 8-bit bytes or over-long lines that
    /// must go. False: its CRLF goes with it.
    fn field(&mut self, entity: &mut Self::Entity, name: Name, field: &[u8], breaks: bool) -> Result<bool, Limit>;
    /// The header section ends; `separated`: by a blank line.
    fn head(&mut self, entity: &mut Self::Entity, head: &Head, separated: bool);
    /// A line or a piece of one.
    fn text(&mut self, entity: &mut Self::Entity, role: Role, text: Text<'_>);
    /// A CRLF that belongs to the same.
    fn newline(&mut self, entity: &mut Self::Entity, role: Role);
    /// The message ends inside a line of the same.
    fn cut(&mut self, entity: &mut Self::Entity, role: Role);
    /// The first delimiter: the preamble is over.
    fn delimited(&mut self, entity: &mut Self::Entity);
    /// The entity ends.
    fn end(&mut self, entity: Self::Entity, head: &Head, shape: Shape, parent: Option<&mut Self::Entity>);
}
