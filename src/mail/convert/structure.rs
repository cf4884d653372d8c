//! A header section in memory and its fields. Nothing is copied; everything is ranges of the body.

use std::ops::Range;

use super::encode::{content, lines};
use super::kind::field_name;

/// One header field; ranges are in the body.
pub(super) struct Field {
    /// From the name to the end, without the last CRLF.
    pub(super) all: Range<usize>,
    pub(super) name: Range<usize>,
}

impl Field {
    pub(super) fn is(&self, body: &[u8], name: &str) -> bool {
        body[self.name.clone()].eq_ignore_ascii_case(name.as_bytes())
    }
}

/// The header section of an entity.
pub(super) struct Head {
    pub(super) fields: Vec<Field>,
    /// Where a further field would be inserted.
    pub(super) end: usize,
    /// Where the body begins.
    #[cfg(test)]
    pub(super) body: usize,
    /// A blank line stands between them.
    #[cfg(test)]
    pub(super) separated: bool,
}

impl Head {
    /// A line that is neither a field nor the continuation of one ends the header section although
    /// the blank line is missing, as most readers see it.
    pub(super) fn of(body: &[u8], range: Range<usize>) -> Head {
        let mut fields: Vec<Field> = Vec::new();
        let mut at = range.start;
        for line in lines(&body[range.clone()]) {
            let text = content(line);
            let end = at + text.len();
            if text.is_empty() {
                return Head::new(fields, at, at + line.len(), true);
            }
            let continues = matches!(text.first(), Some(b' ' | b'\t'));
            match (continues, fields.last_mut(), field_name(text)) {
                (true, Some(last), _) => last.all.end = end,
                (false, _, Some(name)) => fields.push(Field { all: at..end, name: at..at + name }),
                _ => return Head::new(fields, at, at, false),
            }
            at += line.len();
        }
        Head::new(fields, range.end, range.end, false)
    }

    #[cfg_attr(not(test), allow(unused_variables, reason = "only the comparison needs the body"))]
    fn new(fields: Vec<Field>, end: usize, body: usize, separated: bool) -> Head {
        Head {
            fields,
            end,
            #[cfg(test)]
            body,
            #[cfg(test)]
            separated,
        }
    }

    pub(super) fn first<'a>(&'a self, body: &[u8], name: &str) -> Option<&'a Field> {
        self.fields.iter().find(|f| f.is(body, name))
    }
}
