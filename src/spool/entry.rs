//! The head of a spooled message: its envelope, as lines of text, and the size of its content.

use crate::mail::{Notify, Ret};

/// First line of a file: what it is, and the version of its form.
const MAGIC: &str = "mailweir-spool 1";
/// Longest head, in bytes.
pub(super) const MAX_HEAD: usize = 8 << 20;
/// Most recipients of a message.
pub const MAX_RECIPIENTS: usize = 100_000;

/// An envelope as it was given. Addresses are checked when the relay takes it up: names without a
/// domain and aliases are its affair.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Entry {
    /// The reverse-path; empty for the null sender.
    pub sender: String,
    /// The forward-paths.
    pub recipients: Vec<String>,
    /// `NOTIFY=` of all recipients.
    pub notify: Notify,
    /// `RET=`.
    pub ret: Option<Ret>,
    /// `ENVID=`, decoded.
    pub envid: Option<String>,
    /// Bytes of the content.
    pub size: u64,
}

/// Why a file is no spooled message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadEntry {
    /// It does not begin as one.
    #[error("it does not begin with `{MAGIC}`")]
    NotOurs,
    /// A line of the head.
    #[error("line {0} of its head is not one that is known")]
    Line(usize),
    /// A line of the head, from 1, that is no text.
    #[error("line {0} of its head is not UTF-8 text")]
    NotText(usize),
    /// No recipients.
    #[error("it has no recipients")]
    NoRecipients,
    /// Shorter or longer than it says.
    #[error("its content has not the size that its head says: it is not whole")]
    Size,
}

impl Entry {
    /// The head as it stands in a file. Fields must have no line ends; see [`Entry::is_writable`].
    pub(super) fn to_head(&self) -> String {
        let mut head = format!("{MAGIC}\nsender {}\n", self.sender);
        for recipient in &self.recipients {
            head.push_str("recipient ");
            head.push_str(recipient);
            head.push('\n');
        }
        if self.notify.given {
            head.push_str(&format!("notify {}\n", self.notify.to_bits()));
        }
        match self.ret {
            Some(Ret::Full) => head.push_str("ret full\n"),
            Some(Ret::Headers) => head.push_str("ret hdrs\n"),
            None => {}
        }
        if let Some(envid) = &self.envid {
            head.push_str(&format!("envid {envid}\n"));
        }
        head.push_str(&format!("size {}\n\n", self.size));
        head
    }

    /// Whether every field fits a line, and all of them a head.
    pub(super) fn is_writable(&self) -> bool {
        let fits = |text: &String| !text.contains(|c: char| c.is_control());
        fits(&self.sender)
            && self.recipients.iter().chain(&self.envid).all(fits)
            && (1..=MAX_RECIPIENTS).contains(&self.recipients.len())
            && self.to_head().len() <= MAX_HEAD
    }

    /// The entry of a head as it stands in a file.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn read(head: &[u8]) -> Result<Entry, BadEntry> {
        match std::str::from_utf8(head) {
            Ok(head) => Entry::parse(head),
            Err(_) if !head.starts_with(MAGIC.as_bytes()) => Err(BadEntry::NotOurs),
            Err(error) => {
                let before = head.iter().take(error.valid_up_to());
                Err(BadEntry::NotText(before.filter(|byte| **byte == b'\n').count() + 1))
            }
        }
    }

    /// The entry of a head, which ends with an empty line.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn parse(head: &str) -> Result<Entry, BadEntry> {
        let mut lines = head.lines();
        if lines.next() != Some(MAGIC) {
            return Err(BadEntry::NotOurs);
        }
        let (mut entry, mut size) = (Entry::default(), None);
        for (i, line) in lines.take_while(|line| !line.is_empty()).enumerate() {
            let bad = || BadEntry::Line(i + 2);
            let (key, value) = line.split_once(' ').ok_or_else(bad)?;
            if value.contains(|c: char| c.is_control()) {
                return Err(bad());
            }
            match key {
                "sender" => entry.sender = value.to_owned(),
                "recipient" if entry.recipients.len() < MAX_RECIPIENTS => entry.recipients.push(value.to_owned()),
                "notify" => {
                    let bits = value.parse().ok().filter(|bits| *bits < 16).ok_or_else(bad)?;
                    entry.notify = Notify::from_bits(bits);
                }
                "ret" if value == "full" => entry.ret = Some(Ret::Full),
                "ret" if value == "hdrs" => entry.ret = Some(Ret::Headers),
                "envid" if value.len() <= 100 => entry.envid = Some(value.to_owned()),
                "size" => size = Some(value.parse().map_err(|_| bad())?),
                _ => return Err(bad()),
            }
        }
        entry.size = size.ok_or(BadEntry::Size)?;
        if entry.recipients.is_empty() { Err(BadEntry::NoRecipients) } else { Ok(entry) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_written_is_read(
            sender in "[!-~\u{e4}]{0,20}", recipients in prop::collection::vec("[ -~\u{e4}]{1,20}", 1..5),
            bits in 0u8..16, full in any::<Option<bool>>(), envid in proptest::option::of("[!-~]{1,30}"), size: u64,
        ) {
            let notify = if bits & 1 == 1 { Notify::from_bits(bits) } else { Notify::default() };
            let ret = full.map(|full| if full { Ret::Full } else { Ret::Headers });
            let entry = Entry { sender, recipients, notify, ret, envid, size };
            prop_assert!(entry.is_writable());
            prop_assert_eq!(Entry::parse(&entry.to_head()), Ok(entry));
        }

        #[test]
        fn no_head_makes_it_panic(head in "(mailweir-spool 1\n)?([a-z]{0,9} ?[ -~]{0,9}\n){0,5}\n?") {
            let _ = Entry::parse(&head);
        }
    }

    #[test]
    fn a_head_that_is_no_text_is_told_with_its_line() {
        let head = |line: &[u8]| [b"mailweir-spool 1\nsender a@b.example\n", line, b"\nsize 0\n\n"].concat();
        assert_eq!(Entry::read(&head(b"recipient j\xf6@x.example")), Err(BadEntry::NotText(3)));
        assert!(Entry::read(&head("recipient j\u{f6}@x.example".as_bytes())).is_ok());
        assert_eq!(Entry::read(b"\xff\xfe\n\n"), Err(BadEntry::NotOurs));
        assert_eq!(BadEntry::NotText(3).to_string(), "line 3 of its head is not UTF-8 text");
    }

    #[test]
    fn nothing_can_hide_in_a_head() {
        let entry = |sender: &str| Entry { sender: sender.into(), recipients: vec!["a@b".into()], ..Entry::default() };
        assert!(entry("a@b").is_writable());
        assert!(!entry("a@b\nrecipient c@d").is_writable());
        let ok = "mailweir-spool 1\nsender \nrecipient a@b\nsize 0\n\n";
        assert!(Entry::parse(ok).is_ok());
        for (from, to, wrong) in [
            ("mailweir-spool 1", "mailweir-spool 2", BadEntry::NotOurs),
            ("size 0", "size -1", BadEntry::Line(4)),
            ("size 0\n", "", BadEntry::Size),
            ("recipient a@b\n", "", BadEntry::NoRecipients),
            ("recipient a@b", "recipient a\rb", BadEntry::Line(3)),
            ("sender ", "frobnicate x", BadEntry::Line(2)),
            ("sender ", "notify 16", BadEntry::Line(2)),
        ] {
            assert_eq!(Entry::parse(&ok.replace(from, to)), Err(wrong), "{to}");
        }
    }
}
