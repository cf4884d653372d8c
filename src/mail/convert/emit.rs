//! The second pass: the message as planned. Made once to count, then again each time it is sent.

use std::sync::Arc;

use super::coder::{Coder, Coding, Text, filler};
use super::encode::{fold, has_eight_bit};
use super::header;
use super::kind::Name;
use super::limits::{Limit, MAX_FIELD_OUT, PIECE, STRIDE};
use super::plan::{Entry, Plan};
use super::visit::{Head, Place, Role, Shape, Visit};
use super::walk::Walk;
use super::whereabouts::Whereabouts;

/// Makes the converted message.
pub struct Emitter {
    /// `None` after the end.
    walk: Option<Walk<Writer>>,
}

impl std::fmt::Debug for Emitter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Emitter").field("done", &self.walk.is_none()).finish_non_exhaustive()
    }
}

impl Emitter {
    pub(super) fn new(plan: Arc<Plan>) -> Emitter {
        let must = plan.must;
        Emitter { walk: Some(Walk::new(Writer { plan, next: 0, out: Vec::new() }, must)) }
    }

    /// Takes what comes next of the message until `out` has [`PIECE`] bytes or more; returns how
    /// many bytes it took. `out` may then have more than [`PIECE`] by a header field.
    ///
    /// # Errors
    /// A bound that counting has not met: it is not the message that was planned.
    pub fn push(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, Limit> {
        let Some(walk) = &mut self.walk else { return Ok(input.len()) };
        std::mem::swap(&mut walk.visitor().out, out);
        let mut taken = 0;
        let mut result = Ok(());
        while result.is_ok() && taken < input.len() && walk.visitor().out.len() < PIECE {
            let some = STRIDE.min(input.len() - taken);
            result = walk.push(&input[taken..taken + some]);
            taken += some;
        }
        std::mem::swap(&mut walk.visitor().out, out);
        result.map(|()| taken)
    }

    /// Where it is.
    pub(super) fn whereabouts(&self) -> Whereabouts {
        self.walk.as_ref().map(Walk::whereabouts).unwrap_or_default()
    }

    /// The message is complete.
    ///
    /// # Errors
    /// As for [`Emitter::push`].
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Limit> {
        let Some(mut walk) = self.walk.take() else { return Ok(()) };
        std::mem::swap(&mut walk.visitor().out, out);
        *out = walk.finish()?.out;
        Ok(())
    }
}

struct Writer {
    plan: Arc<Plan>,
    /// The next entity.
    next: usize,
    out: Vec<u8>,
}

/// An open entity.
struct Open {
    entry: Entry,
    message: bool,
    labelled: bool,
    coder: Coder,
    /// Of text that is no content.
    column: usize,
}

impl Writer {
    fn label(&mut self, entry: Entry) -> bool {
        let Some(label) = entry.label else { return false };
        self.out.extend_from_slice(b"Content-Transfer-Encoding: ");
        self.out.extend_from_slice(label.as_str().as_bytes());
        true
    }
}

impl Visit for Writer {
    type Entity = Open;

    fn begin(&mut self, place: Place) -> Result<Open, Limit> {
        let entry = self.plan.entries.get(self.next).copied().ok_or(Limit::Parts)?;
        self.next += 1;
        Ok(Open {
            entry,
            message: place.message,
            labelled: false,
            coder: Coder::new(entry.coding, entry.cut),
            column: 0,
        })
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    fn field(&mut self, open: &mut Open, name: Name, field: &[u8], breaks: bool) -> Result<bool, Limit> {
        if name == Name::ContentTransferEncoding && open.entry.label.is_some() {
            // The first is replaced; a second one would only contradict it and goes.
            if open.labelled {
                return Ok(false);
            }
            open.labelled = self.label(open.entry);
        } else if breaks {
            let text =
                if self.plan.must.fields && has_eight_bit(field) { header::to_ascii(field) } else { fold(field) };
            if text.len() > MAX_FIELD_OUT {
                return Err(Limit::FieldOut);
            }
            self.out.extend_from_slice(&text);
        } else {
            self.out.extend_from_slice(field);
        }
        Ok(true)
    }

    /// What makes a message without MIME headers a MIME message.
    fn head(&mut self, open: &mut Open, head: &Head, separated: bool) {
        let from = self.out.len();
        if open.message && open.entry.changed {
            if !head.has_version {
                self.out.extend_from_slice(b"MIME-Version: 1.0\r\n");
            }
            if !head.has_type && open.entry.label.is_some() {
                self.out.extend_from_slice(b"Content-Type: text/plain; charset=");
                self.out.extend_from_slice(open.entry.charset.as_str().as_bytes());
                self.out.extend_from_slice(b"\r\n");
            }
        }
        if !open.labelled && self.label(open.entry) {
            open.labelled = true;
            self.out.extend_from_slice(b"\r\n");
        }
        if self.out.len() > from && !separated {
            self.out.extend_from_slice(b"\r\n");
        }
    }

    fn text(&mut self, open: &mut Open, role: Role, text: Text<'_>) {
        // A multipart whose preamble was found to be all there is has a coding.
        if role == Role::Content || (role == Role::Preamble && open.entry.coding != Coding::Keep) {
            open.coder.text(text, &mut self.out);
        } else {
            filler(&mut open.column, self.plan.must, text, &mut self.out);
        }
    }

    fn newline(&mut self, open: &mut Open, role: Role) {
        if role == Role::Epilogue {
            self.out.extend_from_slice(b"\r\n");
        } else {
            open.coder.newline(&mut self.out);
        }
    }

    fn cut(&mut self, _: &mut Open, _: Role) {}

    fn delimited(&mut self, _: &mut Open) {}

    fn end(&mut self, mut open: Open, _: &Head, _: Shape, _: Option<&mut Open>) {
        open.coder.finish(&mut self.out);
    }
}
