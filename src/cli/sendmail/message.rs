//! The message as a program hands it over, and what is made of it: read to its end, given the line
//! ends of SMTP, and given a sender in its header where it has none.
//!
//! Bytes stay as they are otherwise. `Date:`, `Message-ID:` and the removal of `Bcc:` are the relay's.

use std::io::{self, BufRead, Read as _};
use std::ops::Range;

use crate::mail::address_list::{self, ListError};
use crate::mail::header::{field_name, is_mailbox_line};

/// A message with CRLF line ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Text {
    bytes: Vec<u8>,
    /// The fields, in order.
    fields: Vec<Field>,
    /// Where the header section ends: at the empty line, or where the body begins without one.
    header_end: usize,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Field {
    /// In lower case.
    name: String,
    value: Range<usize>,
}

/// Fields with addresses that are completed; `Bcc` does not go on.
const WITH_ADDRESSES: [&str; 8] = ["from", "sender", "reply-to", "to", "cc", "resent-from", "resent-to", "resent-cc"];

/// Reads a message; one byte more than `max` is enough to know that it is too large.
///
/// # Errors
/// Those of the input.
pub(super) fn read(input: &mut dyn BufRead, dots_end: bool, max: u64) -> io::Result<Vec<u8>> {
    let mut input = input.take(max.saturating_add(1));
    let mut raw = Vec::new();
    if !dots_end {
        input.read_to_end(&mut raw)?;
        return Ok(raw);
    }
    loop {
        let start = raw.len();
        // A line of any length: the limit of the whole holds.
        input.read_until(b'\n', &mut raw)?;
        match raw.get(start..) {
            Some(b".\n" | b".\r\n" | b".") => {
                raw.truncate(start);
                return Ok(raw);
            }
            Some([]) | None => return Ok(raw),
            Some(_) => {}
        }
    }
}

impl Text {
    /// Of what was read.
    pub(super) fn new(raw: &[u8]) -> Text {
        // Editors of another system begin a text with it; in a header it would hide the first field.
        let raw = raw.strip_prefix(b"\xef\xbb\xbf").unwrap_or(raw);
        let bytes = with_crlf(raw);
        let (fields, header_end) = fields(&bytes);
        Text { bytes, fields, header_end }
    }

    /// What goes to the relay.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn values<'a>(&'a self, names: &'a [&str]) -> impl Iterator<Item = &'a [u8]> {
        self.fields.iter().filter(|f| names.contains(&f.name.as_str())).map(|f| &self.bytes[f.value.clone()])
    }

    /// The addresses for `-t`: those of every `To`, `Cc` and `Bcc`; where the message was sent again,
    /// those of the newest block of `Resent-` fields instead (RFC 5322 §3.6.6).
    ///
    /// # Errors
    /// A field has what is no address.
    pub(super) fn recipients(&self) -> Result<Vec<String>, ListError> {
        let mut lists: Vec<&[u8]> = self.newest_resent().collect();
        if lists.is_empty() {
            lists = self.values(&["to", "cc", "bcc"]).collect();
        }
        let mut found = Vec::new();
        for list in lists {
            found.extend(address_list::parse(list)?.into_iter().map(|listed| listed.text));
        }
        Ok(found)
    }

    /// The recipient fields of the topmost run of `Resent-` fields. A second `Resent-Date`, `-From` or
    /// the like begins the block of an earlier time.
    fn newest_resent(&self) -> impl Iterator<Item = &[u8]> {
        let resent = |f: &&Field| f.name.starts_with("resent-");
        let run = self.fields.iter().skip_while(move |f| !resent(f)).take_while(resent);
        let mut seen = Vec::new();
        let block = run.take_while(move |f| {
            let list = matches!(&*f.name, "resent-to" | "resent-cc" | "resent-bcc");
            let again = !list && seen.contains(&&*f.name);
            seen.push(&*f.name);
            !again
        });
        let lists = block.filter(|f| matches!(&*f.name, "resent-to" | "resent-cc" | "resent-bcc"));
        lists.map(|f| &self.bytes[f.value.clone()])
    }

    /// Gives names without a domain in the fields with addresses this one, as other mailers do: hosts
    /// refuse a message from `root`. A signed header is left alone.
    pub(super) fn complete_addresses(&mut self, domain: &str) {
        if self.fields.iter().any(|f| f.name == "dkim-signature") {
            return;
        }
        let mut places = Vec::new();
        for field in self.fields.iter().filter(|f| WITH_ADDRESSES.contains(&f.name.as_str())) {
            // What cannot be read as addresses may mean something to somebody else.
            let list = address_list::parse(&self.bytes[field.value.clone()]).unwrap_or_default();
            let bare = list.into_iter().filter(|listed| crate::mail::local::check_local(&listed.text).is_ok());
            places.extend(bare.map(|listed| field.value.start + listed.span.end));
        }
        // In one pass: there may be very many.
        let mut out = Vec::with_capacity(self.bytes.len() + places.len() * (domain.len() + 1));
        let mut from = 0;
        for place in places {
            out.extend_from_slice(&self.bytes[from..place]);
            out.push(b'@');
            out.extend_from_slice(domain.as_bytes());
            from = place;
        }
        out.extend_from_slice(&self.bytes[from..]);
        (self.fields, self.header_end) = fields(&out);
        self.bytes = out;
    }

    /// Adds a `From:` field, if there is none. `field` ends with CRLF.
    pub(super) fn add_from(&mut self, field: &str) {
        if self.fields.iter().any(|f| f.name == "from") {
            return;
        }
        // Something that begins like text has no header section yet.
        let empty_line = self.bytes[self.header_end..].starts_with(b"\r\n");
        let end = if empty_line { "" } else { "\r\n" };
        self.insert(self.header_end, format!("{field}{end}").as_bytes());
    }

    /// Puts bytes in, and finds the fields again.
    fn insert(&mut self, at: usize, bytes: &[u8]) {
        self.bytes.splice(at..at, bytes.iter().copied());
        (self.fields, self.header_end) = fields(&self.bytes);
    }
}

/// The fields of a header section, and its end.
fn fields(bytes: &[u8]) -> (Vec<Field>, usize) {
    let (mut fields, mut at): (Vec<Field>, usize) = (Vec::new(), 0);
    for line in bytes.split_inclusive(|b| *b == b'\n') {
        match line.first() {
            Some(b'\r' | b'\n') => break,
            Some(b' ' | b'\t') if !fields.is_empty() => {
                if let Some(last) = fields.last_mut() {
                    last.value.end = at + line.len();
                }
            }
            _ if at == 0 && is_mailbox_line(line) => {}
            _ => {
                let Some(name) = field_name(line) else { break };
                let colon = line.iter().position(|b| *b == b':').unwrap_or(0);
                let name = String::from_utf8_lossy(name).to_ascii_lowercase();
                fields.push(Field { name, value: at + colon + 1..at + line.len() });
            }
        }
        at += line.len();
    }
    // A first line of a mailbox file with no field behind it is text.
    if fields.is_empty() { (fields, 0) } else { (fields, at) }
}

/// Gives every line the end that SMTP knows (RFC 5321 §2.3.8). CRs before an LF are dropped with it; in
/// the header section any other CR becomes a space, so that it cannot end the section, and in the body
/// a line end, as old systems meant it.
fn with_crlf(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len() + raw.len() / 32 + 2);
    let mut header = true;
    let mut at = 0;
    while let Some(&byte) = raw.get(at) {
        let crs = raw[at..].iter().take_while(|b| **b == b'\r').count();
        let (line_end, used) = match raw.get(at + crs) {
            Some(b'\n') => (true, crs + 1),
            // The last thing in the input.
            None if crs > 0 => (true, crs),
            _ if crs > 0 => (!header, if header { crs } else { 1 }),
            _ => (false, 1),
        };
        if line_end {
            header &= !(out.is_empty() || out.ends_with(b"\r\n"));
            out.extend_from_slice(b"\r\n");
        } else {
            out.push(if crs > 0 { b' ' } else { byte });
        }
        at += used;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipients(raw: &str) -> Vec<String> {
        Text::new(raw.as_bytes()).recipients().unwrap_or_else(|e| panic!("{raw}: {e}"))
    }

    fn text(raw: &str, change: impl Fn(&mut Text)) -> String {
        let mut text = Text::new(raw.as_bytes());
        change(&mut text);
        String::from_utf8(text.into_bytes()).expect("UTF-8").replace("\r\n", "\n")
    }

    #[test]
    fn line_ends_become_crlf() {
        for (raw, out) in [
            ("a: b\n\na\nb\r\nc\rd\n\n.\n", "a: b\r\n\r\na\r\nb\r\nc\r\nd\r\n\r\n.\r\n"),
            ("", ""),
            ("a: b\r\r\n c\r\r\r\n\r\nx", "a: b\r\n c\r\n\r\nx"),
            ("Bcc: a@x,\r\r\n b@x\r\n\r\nx", "Bcc: a@x,\r\n b@x\r\n\r\nx"),
            ("a: b\rc\n\nx\ry", "a: b c\r\n\r\nx\r\ny"),
            ("\na\rb", "\r\na\r\nb"),
            ("a\r", "a\r\n"),
        ] {
            assert_eq!(String::from_utf8(with_crlf(raw.as_bytes())).expect("UTF-8"), out, "{raw:?}");
        }
    }

    #[test]
    fn a_dot_ends_what_is_typed_and_nothing_else() {
        let all = |raw: &str, dots_end| {
            let read = read(&mut raw.as_bytes(), dots_end, 100).expect("read");
            String::from_utf8(read).expect("UTF-8")
        };
        assert_eq!(all("a\n.\nb\n", true), "a\n");
        assert_eq!(all("a\r\n.\r\nb\n", true), "a\r\n");
        assert_eq!(all("a\n.", true), "a\n");
        assert_eq!(all("a\n..\n.b\n .\n", true), "a\n..\n.b\n .\n");
        assert_eq!(all("a\n.\nb\n", false), "a\n.\nb\n");
        assert_eq!(all(&"x".repeat(200), true).len(), 101);
        assert_eq!(all(&"x".repeat(200), false).len(), 101);
    }

    #[test]
    fn every_recipient_field_counts() {
        let raw = "To: A <a@x.example>,\n \"B, C\" <b@x.example>\nCc: g: c@x.example, d@x.example;\nTo: root\nBcc: e@x.example\n\
                   Cc: f@x.example\nbcc :\n\tg@x.example\nFrom: no@x.example\n\nTo: z@x.example\n";
        let want = [
            "a@x.example",
            "b@x.example",
            "c@x.example",
            "d@x.example",
            "root",
            "e@x.example",
            "f@x.example",
            "g@x.example",
        ];
        assert_eq!(recipients(raw), want);
        for from in ["From me@x.example Mon Sep 17 00:00:00 2001\n", ">From me@x.example\r\n", "\u{feff}"] {
            assert_eq!(recipients(&format!("{from}{raw}")), want, "{from}");
        }
        assert_eq!(recipients("To: root, a@b\n\n"), ["root", "a@b"]);
        assert_eq!(recipients("To: undisclosed-recipients:;\nBcc: a@b\n"), ["a@b"]);
        assert_eq!(recipients("To: a@b,\r\r\n c@d\r\n\r\n"), ["a@b", "c@d"]);
        assert!(
            recipients("").is_empty()
                && recipients("\nTo: a@b\n").is_empty()
                && recipients("text\nTo: a@b\n").is_empty()
        );
        assert!(Text::new(b"To: Jo Smith, a@b\n").recipients().is_err(), "nobody is left out without a word");
    }

    #[test]
    fn a_message_that_is_sent_again_goes_to_whom_it_is_sent_again() {
        let block = |to: &str| format!("Resent-From: me@x\nResent-To: {to}\nResent-Date: now\n");
        let old = "To: old@x\nCc: older@x\n\nhi\n";
        assert_eq!(recipients(&format!("{}{old}", block("new@x, <b@x>"))), ["new@x", "b@x"]);
        assert_eq!(recipients(&format!("{}{}{old}", block("new@x"), block("before@x"))), ["new@x"]);
        assert_eq!(recipients(&format!("{}Received: x\n{}{old}", block("new@x"), block("before@x"))), ["new@x"]);
        assert_eq!(
            recipients(&format!("Subject: x\nResent-Bcc: c@x\nResent-To: d@x\nResent-Cc: e@x\n{old}")),
            ["c@x", "d@x", "e@x"]
        );
        assert_eq!(recipients(&format!("Resent-From: me@x\n{old}")), ["old@x", "older@x"]);
    }

    #[test]
    fn a_sender_is_added_where_there_is_none() {
        let add = |raw: &str| text(raw, |t| t.add_from("From: me@x\r\n"));
        assert_eq!(add("To: a@b\n\nhi\n"), "To: a@b\nFrom: me@x\n\nhi\n");
        assert_eq!(add("To: a@b\n"), "To: a@b\nFrom: me@x\n\n");
        assert_eq!(add("hello\nworld\n"), "From: me@x\n\nhello\nworld\n");
        assert_eq!(add("\nhello\n"), "From: me@x\n\nhello\n");
        assert_eq!(add(""), "From: me@x\n\n");
        assert_eq!(add("To: a@b\nno field\n"), "To: a@b\nFrom: me@x\n\nno field\n");
        for kept in ["from : a@b\n\nhi\n", "From box\nFROM: a@b\n\nFrom: c@d\n"] {
            assert_eq!(add(kept), kept);
        }
        assert_eq!(add("From a@b Mon\nTo: c@d\n\nhi\n"), "From a@b Mon\nTo: c@d\nFrom: me@x\n\nhi\n");
        assert_eq!(add("From a@b Mon\nhi\n"), "From: me@x\n\nFrom a@b Mon\nhi\n");
    }

    #[test]
    fn names_without_a_domain_get_one_in_the_header() {
        let complete = |raw: &str| text(raw, |t| t.complete_addresses("h.example"));
        assert_eq!(
            complete(
                "From: root (Cron Daemon)\nTo: root,\n Jo <jo>, \"B, C\" <b@x>, g: ann;\nSubject: root\n\nTo: root\n"
            ),
            "From: root@h.example (Cron Daemon)\nTo: root@h.example,\n Jo <jo@h.example>, \"B, C\" <b@x>, g: ann@h.example;\nSubject: root\n\nTo: root\n"
        );
        for kept in [
            "From: a@b\nTo: undisclosed-recipients:;\n\n",
            "To: Jo Smith\n\n",
            "DKIM-Signature: x\nTo: root\n\n",
            "X-To: root\n\n",
        ] {
            assert_eq!(complete(kept), kept);
        }
    }
}
