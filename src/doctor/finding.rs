//! What was found, the verdict on it, and what to do. Pure.

use serde::Serialize;

/// Longest string of a TXT record, in bytes (RFC 1035 §3.3.14).
const MAX_STRING: usize = 255;
/// Characters of a text in a finding.
const MAX_TEXT: usize = 2000;

/// The verdict on one thing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mark {
    /// As it should be.
    Ok,
    /// It could be better; mail goes.
    Note,
    /// Mail suffers from it.
    Failed,
    /// Nobody could be asked.
    Unknown,
    /// Not judged, and why.
    Skipped,
}

impl Mark {
    /// In a column for people.
    pub fn shown(self) -> &'static str {
        match self {
            Mark::Ok => "ok",
            Mark::Note => "note",
            Mark::Failed => "FAILED",
            Mark::Unknown => "UNKNOWN",
            Mark::Skipped => "-",
        }
    }
}

/// One line of an examination.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// What was looked at: `SPF`, `DMARC`, …
    pub check: &'static str,
    /// Of which domain, host or address.
    pub of: String,
    /// How it is.
    pub verdict: Mark,
    /// What was found.
    pub found: String,
    /// What to do; empty: nothing.
    pub remedy: String,
    /// Lines of a zone file to publish.
    pub publish: Vec<String>,
}

impl Finding {
    fn new(check: &'static str, of: &str, verdict: Mark, found: impl Into<String>) -> Finding {
        let found = bounded(found.into());
        Finding { check, of: of.to_owned(), verdict, found, remedy: String::new(), publish: Vec::new() }
    }

    /// All is well.
    pub fn ok(check: &'static str, of: &str, found: impl Into<String>) -> Finding {
        Finding::new(check, of, Mark::Ok, found)
    }

    /// It could be better.
    pub fn note(check: &'static str, of: &str, found: impl Into<String>) -> Finding {
        Finding::new(check, of, Mark::Note, found)
    }

    /// It is wrong.
    pub fn failed(check: &'static str, of: &str, found: impl Into<String>) -> Finding {
        Finding::new(check, of, Mark::Failed, found)
    }

    /// It could not be found out.
    pub fn unknown(check: &'static str, of: &str, why: impl Into<String>) -> Finding {
        let finding = Finding::new(check, of, Mark::Unknown, why);
        finding.with("ask again later; the name servers are those of [dns]")
    }

    /// It is not judged.
    pub fn skipped(check: &'static str, of: &str, why: impl Into<String>) -> Finding {
        Finding::new(check, of, Mark::Skipped, why)
    }

    /// What to do.
    pub fn with(mut self, remedy: impl Into<String>) -> Finding {
        self.remedy = bounded(remedy.into());
        self
    }

    /// A line to publish.
    pub fn publish(mut self, line: String) -> Finding {
        self.publish.push(line);
        self
    }
}

fn bounded(text: String) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// A TXT record as a line of a zone file, in strings that are not too long.
pub fn txt_line(name: &str, text: &str) -> String {
    let mut strings = Vec::new();
    let mut string = String::new();
    let mut bytes = 0;
    for c in text.chars() {
        if bytes + c.len_utf8() > MAX_STRING {
            strings.push(std::mem::take(&mut string));
            bytes = 0;
        }
        bytes += c.len_utf8();
        if matches!(c, '"' | '\\') {
            string.push('\\');
        }
        string.push(c);
    }
    strings.push(string);
    let quoted: Vec<String> = strings.iter().map(|string| format!("\"{string}\"")).collect();
    match quoted.as_slice() {
        [one] => format!("{name}. IN TXT {one}"),
        several => format!("{name}. IN TXT ( {} )", several.join(" ")),
    }
}
