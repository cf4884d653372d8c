//! Lists of addresses as they stand in header fields (RFC 5322 §3.4) and on command lines: names,
//! comments, quoted strings, groups, folded lines, and names without a domain.
//!
//! Own code, because what an envelope needs is the address byte for byte, quotes included, and where
//! it stands; parsers of headers give a decoded text, and drop a name without a domain. Nothing is
//! skipped without a word: what is neither an address nor a group is an error. Linear, no recursion.

use std::ops::Range;

/// An address, or a name without a domain, with its place in the text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// Without comments and white space; quotes stay. Not checked any further.
    pub text: String,
    /// The bytes of the list that it was made of.
    pub span: Range<usize>,
}

/// Why a text is no list of addresses.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ListError {
    /// Words without an address among them.
    #[error("`{0}` is no address: expected local-part@domain, a local name, or a name before <address>")]
    Words(String),
    /// Quotes, a comment or brackets that do not close.
    #[error("`{0}` has quotes or brackets that do not close")]
    Open(String),
    /// Bytes over 127 that are no UTF-8, in an address.
    #[error("an address is not UTF-8")]
    NotUtf8,
}

/// What has been seen of an entry.
#[derive(Default)]
struct Entry {
    text: Vec<u8>,
    span: Option<Range<usize>>,
    /// What stood between angle brackets: the address, whatever stands around it.
    angle: Option<(Vec<u8>, Range<usize>)>,
    /// White space or a comment came after the last word.
    gap: bool,
    /// Two words with nothing but a gap between them: a name, not an address.
    phrase: bool,
}

/// The addresses of a list. An empty group, such as `undisclosed-recipients:;`, has none.
///
/// # Errors
/// An entry is no address.
pub fn parse(list: &[u8]) -> Result<Vec<Listed>, ListError> {
    let mut found = Vec::new();
    let mut entry = Entry::default();
    let mut at = 0;
    while let Some(&byte) = list.get(at) {
        let end = match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {
                entry.gap = true;
                at + 1
            }
            b'(' => {
                entry.gap = true;
                comment(list, at).ok_or_else(|| open(list, at))?
            }
            b'<' => {
                let (text, span, end) = angle(list, at)?;
                entry.angle = Some((text, span));
                end
            }
            b',' | b';' => {
                found.extend(std::mem::take(&mut entry).finish(list)?);
                at + 1
            }
            // The name of a group. An address that is taken for one would be lost.
            b':' if entry.angle.is_none() && !entry.text.contains(&b'@') => {
                entry = Entry::default();
                at + 1
            }
            b':' => return Err(ListError::Words(shown(&list[entry.span.map_or(0, |span| span.start)..at + 1]))),
            _ => {
                let end = word(list, at)?;
                entry.add(&list[at..end], at..end);
                end
            }
        };
        at = end;
    }
    found.extend(entry.finish(list)?);
    Ok(found)
}

impl Entry {
    fn add(&mut self, word: &[u8], place: Range<usize>) {
        // `jo @ x . example` is one address (RFC 5322 §4.4), `Jo Smith` is none.
        let joins = |b: Option<&u8>| matches!(b, Some(b'@' | b'.'));
        if self.gap && !self.text.is_empty() && !joins(self.text.last()) && !joins(word.first()) {
            self.phrase = true;
        }
        self.gap = false;
        self.text.extend_from_slice(word);
        let start = self.span.as_ref().map_or(place.start, |span| span.start);
        self.span = Some(start..place.end);
    }

    fn finish(self, list: &[u8]) -> Result<Option<Listed>, ListError> {
        let (bytes, span) = match (self.angle, self.span) {
            (Some(found), _) => found,
            (None, None) => return Ok(None),
            (None, Some(span)) if self.phrase => return Err(ListError::Words(shown(&list[span]))),
            (None, Some(span)) => (self.text, span),
        };
        let text = String::from_utf8(bytes).map_err(|_| ListError::NotUtf8)?;
        if text.is_empty() {
            return Err(ListError::Words("<>".into()));
        }
        Ok(Some(Listed { text, span }))
    }
}

/// The end of a word that begins at `at`: a quoted string, a domain literal, or plain characters.
fn word(list: &[u8], at: usize) -> Result<usize, ListError> {
    let closed = |close: u8| {
        let mut escaped = false;
        let end = list[at + 1..].iter().position(|b| {
            let ends = *b == close && !escaped;
            escaped = *b == b'\\' && !escaped;
            ends
        });
        end.map(|n| at + n + 2).ok_or_else(|| open(list, at))
    };
    match list[at] {
        b'"' => closed(b'"'),
        b'[' => closed(b']'),
        _ => {
            let special =
                |b: &u8| matches!(b, b' ' | b'\t' | b'\r' | b'\n' | b'(' | b'<' | b',' | b';' | b':' | b'"' | b'[');
            Ok(list[at + 1..].iter().position(special).map_or(list.len(), |n| at + 1 + n))
        }
    }
}

/// The end of a comment that begins at `at`; comments nest.
fn comment(list: &[u8], at: usize) -> Option<usize> {
    let (mut depth, mut escaped) = (0_usize, false);
    for (i, b) in list.iter().enumerate().skip(at) {
        match b {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(i + 1);
        }
    }
    None
}

/// What stands between the angle brackets that open at `at`: text, place, and the end. Of brackets
/// inside brackets (`<Jo <a@b>>`) the innermost count.
fn angle(list: &[u8], at: usize) -> Result<(Vec<u8>, Range<usize>, usize), ListError> {
    let (mut text, mut span) = (Vec::new(), at + 1..at + 1);
    let (mut i, mut depth) = (at + 1, 1_usize);
    while depth > 0 {
        match list.get(i) {
            None => return Err(open(list, at)),
            Some(b'<') => {
                depth += 1;
                text.clear();
                span = i + 1..i + 1;
                i += 1;
            }
            Some(b'>') => {
                depth -= 1;
                i += 1;
            }
            Some(b' ' | b'\t' | b'\r' | b'\n') => i += 1,
            Some(b'(') => i = comment(list, i).ok_or_else(|| open(list, i))?,
            // A source route; what is before its colon goes with the check of the address.
            Some(b @ (b':' | b',' | b';')) => {
                text.push(*b);
                i += 1;
                span.end = i;
            }
            Some(_) => {
                let end = word(list, i)?;
                // A plain word ends before the bracket that closes.
                let end = match list[i] {
                    b'"' | b'[' => end,
                    _ => list[i..end].iter().position(|b| *b == b'>').map_or(end, |n| i + n),
                };
                if text.is_empty() {
                    span.start = i;
                }
                text.extend_from_slice(&list[i..end]);
                span.end = end;
                i = end;
            }
        }
    }
    Ok((text, span, i))
}

fn open(list: &[u8], at: usize) -> ListError {
    ListError::Open(shown(&list[at..]))
}

/// A part of a list for a message: short and printable.
fn shown(part: &[u8]) -> String {
    let text = String::from_utf8_lossy(part);
    text.chars().take(60).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(list: &str) -> Vec<String> {
        parse(list.as_bytes()).unwrap_or_else(|e| panic!("{list}: {e}")).into_iter().map(|l| l.text).collect()
    }

    #[test]
    fn every_form_of_rfc_5322_and_some_that_people_write() {
        for (list, wanted) in [
            ("", &[][..]),
            (" , ,", &[]),
            ("a@x.example", &["a@x.example"]),
            ("root, a@b", &["root", "a@b"]),
            ("root (Cron Daemon)", &["root"]),
            ("Jo <a@b>, \"Smith, Jo\" <c@d>,\r\n\te@f", &["a@b", "c@d", "e@f"]),
            ("\"a b\"@x.example, \"a@b\"@c", &["\"a b\"@x.example", "\"a@b\"@c"]),
            ("jo @ x . example (a (nested) comment)", &["jo@x.example"]),
            ("friends: a@b, Jo <c@d>; e@f", &["a@b", "c@d", "e@f"]),
            ("undisclosed-recipients:;", &[]),
            ("a@b; c@d", &["a@b", "c@d"]),
            ("<a@b>", &["a@b"]),
            ("<<a@b>>", &["a@b"]),
            ("<Jo <a@b>>", &["a@b"]),
            ("< a@b (Jo) >", &["a@b"]),
            ("J\u{f6} <j\u{f6}@x>", &["j\u{f6}@x"]),
            ("u@[IPv6:::1], v@[192.0.2.1]", &["u@[IPv6:::1]", "v@[192.0.2.1]"]),
            ("=?utf-8?q?J=C3=B6?= <a@b>", &["a@b"]),
            ("mailto:a@b", &["a@b"]),
            ("<@r.example:a@b>", &["@r.example:a@b"]),
            ("\\root, jo", &["\\root", "jo"]),
            ("\"Jo \\\"X\\\" <no@x>\" <yes@x>", &["yes@x"]),
        ] {
            assert_eq!(texts(list), wanted, "{list}");
        }
    }

    #[test]
    fn what_is_no_address_is_never_skipped() {
        for bad in [
            "a@b:c@d",
            "<a@b>: c@d;",
            "Jo Smith",
            "a@b c@d",
            "<>",
            "a@b, Jo Smith",
            "\"open",
            "(open",
            "Jo <a@b",
            "x@[1.2",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert_eq!(parse(b"j\xf6@x"), Err(ListError::NotUtf8));
        assert!(parse(b"J\xf6 <a@b>").is_ok(), "a name may be in any encoding");
    }

    proptest! {
        #[test]
        fn no_list_makes_it_panic_and_spans_lie_inside(list in "[a-c@.,;:<>()\\\\\"\\[\\] \r\n\u{f6}]{0,40}") {
            if let Ok(found) = parse(list.as_bytes()) {
                for one in found {
                    prop_assert!(!one.text.is_empty());
                    prop_assert!(list.get(one.span.clone()).is_some(), "{:?}", one);
                    prop_assert!(one.span.start < one.span.end);
                }
            }
        }

        #[test]
        fn a_list_of_good_addresses_is_all_of_them(names in prop::collection::vec("[a-z]{1,8}(@[a-z]{1,5}\\.example)?", 1..20)) {
            let list = names.join(", ");
            prop_assert_eq!(texts(&list), names);
        }
    }
}
