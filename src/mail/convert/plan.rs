//! The first pass: what is to be done to each entity of a message, in four bytes each.
//!
//! What stands in a header section can depend on all of the content after it (its encoding, its
//! charset, whether anything in it changed), so it is decided here and done in a second pass.

use super::coder::{Coding, Text};
use super::kind::{Encoding, Name};
use super::limits::{Limit, SHORT_EXCESS, SHORT_EXCESS_ALL, grown};
use super::visit::{Head, Place, Role, Shape, Visit};
use super::walk::Walk;
use super::whereabouts::{MustGo, Whereabouts};

/// How text that is signed inside its part begins (RFC 9580 §7).
const ARMOR: &[u8] = b"-----BEGIN PGP SIGNED MESSAGE-----";

/// A new Content-Transfer-Encoding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Label {
    SevenBit,
    EightBit,
    QuotedPrintable,
    Base64,
}

impl Label {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Label::SevenBit => "7bit",
            Label::EightBit => "8bit",
            Label::QuotedPrintable => "quoted-printable",
            Label::Base64 => "base64",
        }
    }
}

/// The charset of text that nobody labelled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Charset {
    #[default]
    UsAscii,
    Utf8,
    /// RFC 1428: some charset that nobody named.
    Unknown,
}

impl Charset {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Charset::UsAscii => "us-ascii",
            Charset::Utf8 => "utf-8",
            Charset::Unknown => "unknown-8bit",
        }
    }
}

/// What is done to one entity.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Entry {
    /// To its content, if it is a leaf.
    pub(super) coding: Coding,
    /// To its Content-Transfer-Encoding.
    pub(super) label: Option<Label>,
    /// Content in it is encoded anew, so it must be MIME.
    pub(super) changed: bool,
    /// Of its content.
    pub(super) charset: Charset,
    /// Its last line has no end, and must not get one: its content would be another.
    pub(super) cut: bool,
}

/// What is done to a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// In the order in which the entities begin.
    pub(super) entries: Vec<Entry>,
    /// What goes.
    pub(super) must: MustGo,
    /// It signs itself as a whole (DKIM), or a part of it is signed, and something of that is changed.
    pub(super) breaks_signature: bool,
    /// The first that is changed, counted from 1.
    pub(super) first_change: usize,
    /// A field that is written in ASCII is not UTF-8.
    pub(super) unknown_text: bool,
}

/// Makes a [`Plan`].
pub(super) struct Planner(Walk<Notes>);

impl Planner {
    pub(super) fn new(must: MustGo) -> Planner {
        let notes = Notes {
            must,
            entries: Vec::new(),
            edited: false,
            first_change: 0,
            unknown_text: false,
            broke_signature: false,
            signed_whole: false,
            short: SHORT_EXCESS_ALL,
        };
        Planner(Walk::new(notes, must))
    }

    pub(super) fn push(&mut self, chunk: &[u8]) -> Result<(), Limit> {
        self.0.push(chunk)
    }

    /// Where it is.
    pub(super) fn whereabouts(&self) -> Whereabouts {
        self.0.whereabouts()
    }

    pub(super) fn finish(self) -> Result<Plan, Limit> {
        let notes = self.0.finish()?;
        let breaks_signature = notes.broke_signature || (notes.edited && notes.signed_whole);
        let Notes { entries, must, first_change, unknown_text, .. } = notes;
        Ok(Plan { entries, must, breaks_signature, first_change, unknown_text })
    }
}

struct Notes {
    must: MustGo,
    entries: Vec<Entry>,
    /// Anything at all changes.
    edited: bool,
    /// See [`Plan`].
    first_change: usize,
    unknown_text: bool,
    /// Something changes inside of something signed.
    broke_signature: bool,
    /// There is a DKIM signature.
    signed_whole: bool,
    /// What is left of [`SHORT_EXCESS_ALL`].
    short: u64,
}

/// An open entity.
struct Weighed {
    index: usize,
    place: Place,
    weight: Weight,
    /// An entity inside is changed.
    changed: bool,
    /// Nobody names its charset, so that is found out.
    unlabelled: bool,
}

impl Notes {
    /// Something of the entity at `index` changes.
    fn edit(&mut self, index: usize, signed: bool) {
        if !std::mem::replace(&mut self.edited, true) {
            self.first_change = index + 1;
        }
        self.broke_signature |= signed;
    }

    fn entry(&mut self, weighed: &Weighed, head: &Head, shape: Shape) -> Entry {
        let mut entry = Entry { changed: weighed.changed, ..Entry::default() };
        let weight = &weighed.weight;
        // White space between lines of base64 is nothing.
        let cut = weight.cut && head.encoding != Encoding::Base64;
        if shape != Shape::Leaf {
            // A composite may only be labelled 7bit, 8bit or binary (RFC 2045 §6.4), and once its
            // parts are 7-bit, only 7bit.
            entry.label = match head.encoding {
                Encoding::EightBit | Encoding::Binary if self.must.content => Some(Label::SevenBit),
                Encoding::Binary if self.must.binary => Some(Label::EightBit),
                _ => None,
            };
        } else if weight.breaks || cut {
            entry.cut = cut;
            (entry.coding, entry.label) = match head.encoding {
                Encoding::QuotedPrintable => (Coding::MendQuotedPrintable, None),
                Encoding::Base64 => (Coding::MendBase64, None),
                _ if matches!(head.kind.main.as_str(), "text" | "message" | "multipart") && self.is_text(weight) => {
                    (Coding::QuotedPrintable, Some(Label::QuotedPrintable))
                }
                _ => (Coding::Base64, Some(Label::Base64)),
            };
            entry.changed = true;
            entry.charset = weight.charset();
            self.edit(weighed.index, weighed.place.signed || weight.armor || head.kind.sub.ends_with("pkcs7-mime"));
        } else if self.must.binary && head.encoding == Encoding::Binary {
            entry.label = Some(if weight.eight_bit { Label::EightBit } else { Label::SevenBit });
        }
        if entry.label.is_some() {
            self.edit(weighed.index, weighed.place.signed);
        }
        entry
    }

    /// Whether quoted-printable does not make it grow too much.
    fn is_text(&mut self, weight: &Weight) -> bool {
        let excess = weight.excess();
        let fits = excess == 0 || (excess <= SHORT_EXCESS && excess <= self.short);
        if fits {
            self.short -= excess;
        }
        fits
    }
}

impl Visit for Notes {
    type Entity = Weighed;

    fn begin(&mut self, place: Place) -> Result<Weighed, Limit> {
        let index = self.entries.len();
        self.entries.push(Entry::default());
        Ok(Weighed { index, place, weight: Weight::new(self.must), changed: false, unlabelled: false })
    }

    fn raw(&mut self, _: &[u8]) {}

    fn field(&mut self, entity: &mut Weighed, name: Name, field: &[u8], breaks: bool) -> Result<bool, Limit> {
        self.signed_whole |= entity.place.top && name == Name::DkimSignature;
        if breaks {
            self.unknown_text |= std::str::from_utf8(field).is_err();
            self.edit(entity.index, entity.place.signed);
        }
        Ok(true)
    }

    fn head(&mut self, entity: &mut Weighed, head: &Head, _: bool) {
        entity.unlabelled = entity.place.message && !head.has_type;
    }

    fn text(&mut self, entity: &mut Weighed, role: Role, text: Text<'_>) {
        match role {
            // Text after the last delimiter only matters for the signature.
            Role::Epilogue => {
                if self.must.is_in(text.bytes, text.long) {
                    self.edit(entity.index, entity.place.signed);
                }
            }
            Role::Content | Role::Preamble => entity.weight.text(text, entity.unlabelled),
        }
    }

    fn newline(&mut self, entity: &mut Weighed, role: Role) {
        if role != Role::Epilogue {
            entity.weight.newline();
        }
    }

    fn cut(&mut self, entity: &mut Weighed, role: Role) {
        entity.weight.cut = self.must.binary && role != Role::Epilogue;
    }

    fn delimited(&mut self, entity: &mut Weighed) {
        if entity.weight.breaks {
            self.edit(entity.index, entity.place.signed);
        }
    }

    fn end(&mut self, entity: Weighed, head: &Head, shape: Shape, parent: Option<&mut Weighed>) {
        let entry = self.entry(&entity, head, shape);
        if let Some(parent) = parent {
            parent.changed |= entry.changed;
        }
        if let Some(place) = self.entries.get_mut(entity.index) {
            *place = entry;
        }
    }
}

/// What content is like.
pub(super) struct Weight {
    must: MustGo,
    /// It has what must go.
    pub(super) breaks: bool,
    /// The message ends inside its last line.
    cut: bool,
    /// Bytes.
    size: u64,
    /// Bytes that quoted-printable escapes.
    special: u64,
    eight_bit: bool,
    armor: bool,
    utf8: Utf8,
}

impl Weight {
    pub(super) fn new(must: MustGo) -> Weight {
        let utf8 = Utf8::default();
        Weight { must, breaks: false, cut: false, size: 0, special: 0, eight_bit: false, armor: false, utf8 }
    }

    pub(super) fn text(&mut self, text: Text<'_>, charset: bool) {
        let eight_bit = !text.bytes.is_ascii();
        self.eight_bit |= eight_bit;
        self.breaks |= self.must.is_in(text.bytes, text.long);
        self.armor |= text.first && text.bytes.starts_with(ARMOR);
        self.size += text.bytes.len() as u64;
        self.special += text.bytes.iter().map(|b| u64::from(is_special(*b))).sum::<u64>();
        if charset {
            self.utf8.push(text.bytes);
        }
    }

    pub(super) fn newline(&mut self) {
        self.size += 2;
        self.utf8.push(b"\r\n");
    }

    /// By how much more than 1.4 times its size quoted-printable may have, at most.
    pub(super) fn excess(&self) -> u64 {
        // A soft line break, three bytes, after at least 72 bytes.
        let encoded = self.size + 2 * self.special;
        (encoded + encoded / 24).saturating_sub(grown(self.size))
    }

    fn charset(&self) -> Charset {
        match (self.eight_bit, self.utf8.is_valid()) {
            (false, _) => Charset::UsAscii,
            (true, true) => Charset::Utf8,
            (true, false) => Charset::Unknown,
        }
    }
}

fn is_special(b: u8) -> bool {
    !matches!(b, b' ' | b'\t' | 33..=60 | 62..=126)
}

/// Whether what comes piece by piece is UTF-8.
#[derive(Default)]
struct Utf8 {
    /// The start of a character.
    start: Vec<u8>,
    invalid: bool,
}

impl Utf8 {
    fn push(&mut self, mut bytes: &[u8]) {
        while !self.start.is_empty() && !self.invalid {
            let Some((first, rest)) = bytes.split_first() else { return };
            self.start.push(*first);
            bytes = rest;
            match std::str::from_utf8(&self.start) {
                Ok(_) => self.start.clear(),
                Err(error) => self.invalid = error.error_len().is_some(),
            }
        }
        if self.invalid {
            return;
        }
        if let Err(error) = std::str::from_utf8(bytes) {
            self.invalid = error.error_len().is_some();
            self.start.extend_from_slice(&bytes[error.valid_up_to()..]);
        }
    }

    fn is_valid(&self) -> bool {
        !self.invalid && self.start.is_empty()
    }
}
