//! The structure of a message, found in one pass over its lines with a stack of the entities that
//! are open: header sections with their fields, multiparts with their delimiters, messages in parts.
//!
//! Invariants:
//! - What is kept is the stack, the header field at hand and the start of a line: bounded by
//!   [`super::limits`], whatever the size of the message.
//! - The visitor is told every byte once, in order, and the same for the same message however it is cut.
//! - A delimiter of an outer multipart ends everything inside, whatever state that is in (RFC 2046 §5.1.2).

use super::coder::Text;
use super::encode::{has_eight_bit, has_long_line};
use super::kind::{Encoding, Kind, Name, field_name};
use super::limits::{Limit, MAX_DEPTH, MAX_FIELD, MAX_FIELDS, MAX_HEADER, MAX_PARTS};
use super::lines::{Lines, Piece};
use super::visit::{Head, Place, Role, Shape, Visit};
use super::whereabouts::{MustGo, Whereabouts};
use crate::mail::binary::is_binary;

const CRLF: &[u8] = b"\r\n";

struct Frame<E> {
    entity: E,
    place: Place,
    head: Head,
    shape: Shape,
    fields: usize,
    header: usize,
    /// Of a multipart: a delimiter was seen.
    delimited: bool,
    /// Of a multipart: the last delimiter was seen.
    closed: bool,
}

impl<E> Frame<E> {
    /// The header section is complete.
    fn settle(&mut self) {
        let kind = &self.head.kind;
        self.shape = if kind.main == "multipart" && kind.boundary.is_some() {
            Shape::Parts
        } else if self.head.encoding.is_identity() && (kind.is("message", "rfc822") || kind.is("message", "global")) {
            Shape::Message
        } else {
            Shape::Leaf
        };
    }

    fn role(&self) -> Role {
        match self.shape {
            Shape::Parts if self.delimited => Role::Epilogue,
            Shape::Parts => Role::Preamble,
            _ => Role::Content,
        }
    }

    /// Whether the line, without the blanks at its end, is a delimiter; and if so, the last.
    fn delimiter(&self, line: &[u8]) -> Option<bool> {
        let boundary = self.head.kind.boundary.as_deref().filter(|_| self.shape == Shape::Parts && !self.closed)?;
        match line.len().checked_sub(2 + boundary.len())? {
            0 => (line[2..] == *boundary).then_some(false),
            2 => (line.ends_with(b"--") && line[2..line.len() - 2] == *boundary).then_some(true),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Zone {
    Head,
    /// After the blank line, before its CRLF.
    Blank,
    Body,
}

/// The header field at hand.
struct Field {
    bytes: Vec<u8>,
    name: Name,
    name_len: usize,
    /// It was too long to be kept, needs no change, and was passed on.
    passed: bool,
    /// What only BINARYMIME takes was taken out of it.
    mended: bool,
}

impl Field {
    /// Its name, which stands in what is kept of it, or else at the start of `more`.
    fn name_in<'a>(&'a self, more: &'a [u8]) -> &'a [u8] {
        let kept = self.bytes.get(..self.name_len).filter(|_| !self.bytes.is_empty());
        kept.or_else(|| more.get(..self.name_len)).unwrap_or_default()
    }
}

/// See the module.
pub(super) struct Walk<V: Visit> {
    lines: Lines,
    inner: Inner<V>,
}

struct Inner<V: Visit> {
    visit: V,
    must: MustGo,
    frames: Vec<Frame<V::Entity>>,
    zone: Zone,
    field: Option<Field>,
    /// The name of a field that is beyond a limit.
    at: Option<Vec<u8>>,
    parts: usize,
}

impl<V: Visit> Walk<V> {
    pub(super) fn new(visit: V, must: MustGo) -> Walk<V> {
        let inner = Inner { visit, must, frames: Vec::new(), zone: Zone::Head, field: None, at: None, parts: 0 };
        Walk { lines: Lines::default(), inner }
    }

    pub(super) fn push(&mut self, input: &[u8]) -> Result<(), Limit> {
        self.inner.start()?;
        let inner = &mut self.inner;
        self.lines.push(input, &mut |piece| inner.piece(piece))
    }

    pub(super) fn finish(mut self) -> Result<V, Limit> {
        self.inner.start()?;
        let inner = &mut self.inner;
        let broken = self.lines.finish(&mut |piece| inner.piece(piece))?;
        self.inner.finish(broken)?;
        Ok(self.inner.visit)
    }

    /// Where it is; after an error, what is beyond the limit.
    pub(super) fn whereabouts(&self) -> Whereabouts {
        Whereabouts::of(self.inner.parts, self.inner.at.as_deref())
    }

    pub(super) fn visitor(&mut self) -> &mut V {
        &mut self.inner.visit
    }
}

impl<V: Visit> Inner<V> {
    fn start(&mut self) -> Result<(), Limit> {
        match self.parts {
            0 => self.open(Place { top: true, message: true, signed: false, digest: false }),
            _ => Ok(()),
        }
    }

    fn open(&mut self, place: Place) -> Result<(), Limit> {
        self.parts += 1;
        if self.parts > MAX_PARTS {
            return Err(Limit::Parts);
        }
        if self.frames.len() > MAX_DEPTH {
            return Err(Limit::Depth);
        }
        let kind = Kind::default_in(place.digest);
        let head =
            Head { kind, encoding: Encoding::Identity, has_type: false, has_version: false, has_encoding: false };
        let entity = self.visit.begin(place)?;
        let shape = Shape::Leaf;
        self.frames.push(Frame { entity, place, head, shape, fields: 0, header: 0, delimited: false, closed: false });
        self.zone = Zone::Head;
        Ok(())
    }

    /// An entity inside the one on top.
    fn open_inside(&mut self, message: bool) -> Result<(), Limit> {
        let Some(top) = self.frames.last() else { return Ok(()) };
        let kind = &top.head.kind;
        let signed = top.place.signed || kind.is("multipart", "signed");
        let digest = !message && kind.is("multipart", "digest");
        self.open(Place { top: false, message, signed, digest })
    }

    fn piece(&mut self, piece: Piece<'_>) -> Result<(), Limit> {
        if !piece.first {
            return self.more(piece);
        }
        if !piece.long && piece.bytes.starts_with(b"--") {
            let line = trim_blanks(piece.bytes);
            let found = self.frames.iter().enumerate().find_map(|(at, frame)| Some((at, frame.delimiter(line)?)));
            if let Some((at, last)) = found {
                return self.delimit(at, last, piece.bytes, piece.after_break);
            }
        }
        self.line(piece)
    }

    /// A line, or the start of a long one, that no multipart so far takes for a delimiter.
    fn line(&mut self, piece: Piece<'_>) -> Result<(), Limit> {
        let mut broke = piece.after_break;
        loop {
            match self.zone {
                Zone::Head => {
                    if self.head_line(piece, std::mem::take(&mut broke))? {
                        return Ok(());
                    }
                    // It stands where the header section should go on, and may be a delimiter of this entity.
                    let last = self.frames.len().saturating_sub(1);
                    let line = trim_blanks(piece.bytes);
                    if !piece.long
                        && line.starts_with(b"--")
                        && let Some(end) = self.frames.last().and_then(|frame| frame.delimiter(line))
                    {
                        return self.delimit(last, end, piece.bytes, false);
                    }
                    self.enter()?;
                }
                Zone::Blank => {
                    if std::mem::take(&mut broke) {
                        self.visit.raw(CRLF);
                    }
                    self.enter()?;
                }
                Zone::Body => {
                    let Some(top) = self.frames.last_mut() else { return Ok(()) };
                    let role = top.role();
                    if broke {
                        self.visit.newline(&mut top.entity, role);
                    }
                    self.visit.text(&mut top.entity, role, text(piece));
                    return Ok(());
                }
            }
        }
    }

    /// The body of the entity on top begins.
    fn enter(&mut self) -> Result<(), Limit> {
        self.zone = Zone::Body;
        match self.frames.last() {
            Some(top) if top.shape == Shape::Message => self.open_inside(true),
            _ => Ok(()),
        }
    }

    /// What follows in a long line.
    fn more(&mut self, piece: Piece<'_>) -> Result<(), Limit> {
        match (self.zone, self.frames.last_mut()) {
            (Zone::Head, _) => self.extend_field(false, piece.bytes, true),
            (_, Some(top)) => {
                let role = top.role();
                self.visit.text(&mut top.entity, role, text(piece));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A line where the header section goes on. False: it does not, and this is a line of the body.
    fn head_line(&mut self, piece: Piece<'_>, broke: bool) -> Result<bool, Limit> {
        let bytes = piece.bytes;
        if self.field.is_some() && matches!(bytes.first(), Some(b' ' | b'\t')) {
            self.extend_field(broke, bytes, piece.long)?;
            return Ok(true);
        }
        self.end_field(broke)?;
        if bytes.is_empty() {
            self.end_head(true);
            self.zone = Zone::Blank;
            return Ok(true);
        }
        let Some(name_len) = field_name(bytes) else {
            self.end_head(false);
            return Ok(false);
        };
        if let Some(top) = self.frames.last_mut() {
            top.fields += 1;
            if top.fields > MAX_FIELDS {
                return Err(Limit::Fields);
            }
        }
        let name = Name::of(&bytes[..name_len]);
        self.field = Some(Field { bytes: Vec::new(), name, name_len, passed: false, mended: false });
        self.extend_field(false, bytes, piece.long)?;
        Ok(true)
    }

    /// `folded`: a CRLF stands before it.
    fn extend_field(&mut self, folded: bool, bytes: &[u8], long: bool) -> Result<(), Limit> {
        let (Some(field), Some(top)) = (&mut self.field, self.frames.last_mut()) else { return Ok(()) };
        let mended = (self.must.binary && is_binary(bytes)).then(|| mend(bytes));
        field.mended |= mended.is_some();
        let bytes = mended.as_deref().unwrap_or(bytes);
        let pieces = [if folded { CRLF } else { b"" }, bytes];
        let more: usize = pieces.iter().map(|p| p.len()).sum();
        top.header += more;
        if top.header > MAX_HEADER {
            return Err(Limit::Header);
        }
        let at = &mut self.at;
        let ascii = self.must.fields;
        let breaks = |bytes: &[u8]| ascii && has_eight_bit(bytes);
        if !field.passed && field.bytes.len() + more <= MAX_FIELD {
            pieces.iter().for_each(|piece| field.bytes.extend_from_slice(piece));
            return Ok(());
        }
        // Too long to be kept, which does not matter if nothing has to be done about it.
        let read = matches!(field.name, Name::ContentType | Name::ContentTransferEncoding);
        if read
            || long
            || field.mended
            || pieces.iter().any(|p| breaks(p))
            || breaks(&field.bytes)
            || has_long_line(&field.bytes)
        {
            *at = Some(field.name_in(bytes).to_vec());
            return Err(Limit::Field);
        }
        field.passed = true;
        self.visit.raw(&std::mem::take(&mut field.bytes));
        pieces.iter().for_each(|piece| self.visit.raw(piece));
        Ok(())
    }

    /// The field at hand is complete; `broke`: a CRLF follows that belongs to the header section.
    fn end_field(&mut self, broke: bool) -> Result<(), Limit> {
        let mut keep_break = true;
        if let (Some(field), Some(top)) = (self.field.take(), self.frames.last_mut())
            && !field.passed
        {
            match field.name {
                Name::ContentType if !top.head.has_type => {
                    top.head.kind =
                        Kind::of(&field.bytes).inspect_err(|_| self.at = Some(field.name_in(b"").to_vec()))?;
                    top.head.has_type = true;
                }
                // The first one counts.
                Name::ContentTransferEncoding if !top.head.has_encoding => {
                    top.head.encoding = Encoding::of(&field.bytes, field.name_len);
                    top.head.has_encoding = true;
                }
                Name::MimeVersion => top.head.has_version = true,
                _ => {}
            }
            let breaks =
                field.mended || (self.must.fields && has_eight_bit(&field.bytes)) || has_long_line(&field.bytes);
            let told = self.visit.field(&mut top.entity, field.name, &field.bytes, breaks);
            keep_break = told.inspect_err(|_| self.at = Some(field.name_in(b"").to_vec()))?;
        }
        if broke && keep_break {
            self.visit.raw(CRLF);
        }
        Ok(())
    }

    fn end_head(&mut self, separated: bool) {
        if let Some(top) = self.frames.last_mut() {
            top.settle();
            self.visit.head(&mut top.entity, &top.head, separated);
        }
    }

    /// A delimiter of the multipart at `level`: what is open inside ends, with the CRLF before it.
    fn delimit(&mut self, level: usize, last: bool, line: &[u8], broke: bool) -> Result<(), Limit> {
        while self.frames.len() > level + 1 {
            self.close()?;
        }
        if broke {
            self.visit.raw(CRLF);
        }
        self.visit.raw(line);
        self.zone = Zone::Body;
        let Some(frame) = self.frames.last_mut() else { return Ok(()) };
        if !std::mem::replace(&mut frame.delimited, true) {
            self.visit.delimited(&mut frame.entity);
        }
        frame.closed = last;
        if last { Ok(()) } else { self.open_inside(false) }
    }

    /// The entity on top ends.
    fn close(&mut self) -> Result<(), Limit> {
        if self.zone == Zone::Head {
            self.end_field(false)?;
            if let Some(top) = self.frames.last_mut() {
                top.settle();
            }
        }
        self.zone = Zone::Body;
        let Some(frame) = self.frames.pop() else { return Ok(()) };
        let shape = if frame.shape == Shape::Parts && !frame.delimited { Shape::Leaf } else { frame.shape };
        let parent = self.frames.last_mut().map(|parent| &mut parent.entity);
        self.visit.end(frame.entity, &frame.head, shape, parent);
        Ok(())
    }

    /// The end of the message, `broken` by a CRLF.
    fn finish(&mut self, broken: bool) -> Result<(), Limit> {
        if broken {
            match (self.zone, self.frames.last_mut()) {
                (Zone::Head, _) => self.end_field(true)?,
                (Zone::Body, Some(top)) => {
                    let role = top.role();
                    self.visit.newline(&mut top.entity, role);
                }
                _ => self.visit.raw(CRLF),
            }
        } else if self.zone == Zone::Body
            && let Some(top) = self.frames.last_mut()
        {
            let role = top.role();
            self.visit.cut(&mut top.entity, role);
        }
        while !self.frames.is_empty() {
            self.close()?;
        }
        Ok(())
    }
}

/// A line of a header field without what only BINARYMIME takes: a CR or LF alone is white space, as a listener has
/// it, so that nothing behind one is a field for some readers.
fn mend(line: &[u8]) -> Vec<u8> {
    let mend = |b: &u8| match b {
        b'\r' | b'\n' => b' ',
        0 => b'?',
        b => *b,
    };
    line.iter().map(mend).collect()
}

fn text(piece: Piece<'_>) -> Text<'_> {
    Text { bytes: piece.bytes, first: piece.first, last: piece.last, long: piece.long }
}

/// Without the blanks that may follow a delimiter (RFC 2046 §5.1.1).
fn trim_blanks(line: &[u8]) -> &[u8] {
    let end = line.iter().rposition(|b| !matches!(b, b' ' | b'\t')).map_or(0, |at| at + 1);
    &line[..end]
}
