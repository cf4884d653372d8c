//! A line of the file with a mark below it, for whoever has to mend it.
//!
//! What may be a secret is never shown: neither the value of a key that has to do with one, nor a line inside
//! such a table or text, nor one whose key this program does not know: it may be a secret that lost its key.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::OnceLock;

use super::marks::is_unseen;
use super::scan::{Scan, line_around, number};
use crate::config::report::key_names;
use crate::config::secret::MASK;
use crate::config::value::is_mistyped;

/// Most characters of a line that are shown.
const WIDTH: usize = 100;
/// What is shown before the place in a long line.
const BEFORE: usize = 60;

/// Names in which a secret or a part of one may stand.
const SECRET: [&str; 10] = ["auth", "pass", "pwd", "secret", "token", "credential", "sasl", "login", "user", "api"];
/// So many of them give it away in a value too.
const IN_VALUES: usize = 7;

/// Words of configurations besides those of the keys here.
const WORDS: &str = "account acl action addr allowed append bind biff cert certs client clients cidr concurrency config conn \
    connection daemon daily database db debug delay dest destination directory dkim domains dot dsn email enabled encryption error errors \
    esmtp facility fallback fqdn from generic global greylist group guid header headers heloname helo hops hosts hourly \
    http https id inet inbound include info interface interfaces interval ip ipv4 ipv6 kind last limits link listen \
    listeners local localhost logging loglevel lookup mailbox mailer mailhub main maps mask maximal maximum mech method \
    minimal minute mode monitoring mta mx my mydestination mydomain myhostname mynetworks myorigin myname name names \
    network networks node number numbers origin others out outbound outgoing pattern path paths per percent period permit \
    pid pool ports primary protocol protocols proxy queues ratelimit rates readme receive recipient relayhost \
    relays reply resolver rewrite root routes routing rule run sec seconds second sender senders server servers service \
    session set settings size sizes sleep smart smarthost smtp smtpd socket spf ssl stage start starttls state status \
    stream style syslog table test text threads throttle time timeouts tls transport trusted ttl type unix upstream uri \
    url usetls value verify version virtual wait warning when window worker workers x banner mail owner provider \
    toml defaults begin match driver set export tags http2 level levels host port on off yes no env environment";

/// Shows lines of a text.
pub(in crate::config) struct Excerpts<'a> {
    text: &'a str,
    scan: OnceCell<Scan<'a>>,
}

impl<'a> Excerpts<'a> {
    pub(in crate::config) fn new(text: &'a str) -> Excerpts<'a> {
        Excerpts { text, scan: OnceCell::new() }
    }

    /// The line of `span` and a line with `^` below it; empty if the line may not be shown.
    pub(in crate::config) fn of(&self, span: &Range<usize>) -> String {
        if self.text.is_empty() || self.text.len() > super::LONGEST {
            return String::new();
        }
        let start = span.start.min(self.text.len());
        let line = match self.text.get(start..) {
            Some("") => line_around(self.text, self.text.trim_end().len()),
            _ => line_around(self.text, start),
        };
        let Some(written) = self.text.get(line.clone()) else { return String::new() };
        let Some(shown) = self.open(line.start, written) else { return String::new() };
        let before = self.text.get(line.start..start.min(line.end)).unwrap_or_default().chars().count();
        let last = span.end.clamp(start, line.end.max(start));
        let length = self.text.get(start..last).unwrap_or_default().chars().count().max(1);
        // A long line is shown around the place.
        let chars: Vec<char> = shown.chars().collect();
        // The mask is one place.
        let column = before.min(chars.len().saturating_sub(if shown.ends_with(MASK) { MASK.len() } else { 0 }));
        let skipped = column.saturating_sub(BEFORE) * usize::from(chars.len() > WIDTH);
        let part: String = chars.iter().skip(skipped).take(WIDTH).map(|c| as_shown(*c)).collect();
        let number = number(self.text, line.start).to_string();
        let (mark, below) = (column - skipped, " ".repeat(number.len()));
        let length = length.min(WIDTH.saturating_sub(mark)).min(chars.len().saturating_sub(column).max(1));
        format!("  {number} | {part}\n  {below} | {}{}", " ".repeat(mark), "^".repeat(length))
    }

    /// Whether this line, which stands at `start` or would stand there, may be shown whole.
    pub(in crate::config) fn may_show(&self, start: usize, line: &str) -> bool {
        self.open(start, line).is_some_and(|shown| shown == line)
    }

    /// Whether a name is made of words that configurations have.
    pub(in crate::config) fn is_known(&self, name: &str) -> bool {
        is_name(name)
    }

    /// The line and the name of the first header of the file.
    pub(in crate::config) fn first_header(&self) -> Option<(usize, String)> {
        let (at, _) = self.scan.get_or_init(|| Scan::new(self.text)).first_header()?;
        let written = self.text.get(line_around(self.text, at))?;
        let end = written.rfind(']').map_or(written.len(), |n| n + 1);
        Some((number(self.text, at), written.get(..end)?.trim().to_owned()))
    }

    /// The line with the mask where a secret may stand; `None` if nothing of it may be shown.
    fn open(&self, start: usize, line: &str) -> Option<String> {
        let scan = self.scan.get_or_init(|| Scan::new(self.text));
        if scan.long.iter().any(|text| (text.start + 3..text.end).contains(&start)) {
            return None;
        }
        // Inside of what was opened by a line that is not shown whole, nothing is.
        if let Some(opened) = scan.open_before(start).first() {
            let outer = line_around(self.text, *opened);
            let outer = self.text.get(outer).unwrap_or_default();
            return open_line(outer)
                .is_some_and(|shown| shown == outer)
                .then(|| line.to_owned())
                .filter(|l| !has_user(l));
        }
        let header = scan.header_before(start).map_or("", |(_, header)| header);
        if header.to_ascii_lowercase().split('.').skip(1).any(is_secret) && !line.trim_start().starts_with('[') {
            return None;
        }
        open_line(line)
    }
}

/// One character for one, so that the mark stands below the right one.
fn as_shown(c: char) -> char {
    match c {
        '\t' => ' ',
        c if c.is_control() || is_unseen(c) => char::REPLACEMENT_CHARACTER,
        c => c,
    }
}

fn is_secret(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    SECRET.iter().any(|word| lower.contains(word))
}

/// `user:password@host`, in whatever form.
fn has_user(line: &str) -> bool {
    line.rfind('@').is_some_and(|at| line.get(..at).is_some_and(|before| before.contains(':')))
}

fn open_line(line: &str) -> Option<String> {
    let trimmed = line.trim_start().trim_start_matches('\u{feff}');
    if has_user(line) {
        return None;
    }
    if trimmed.is_empty() {
        return Some(line.to_owned());
    }
    if let Some(header) = trimmed.strip_prefix('[') {
        let inner = header.trim_start_matches('[');
        let whole = inner.split(['.', ']', ' ', ':']).next().is_some_and(is_name);
        let rest = inner.split_once(']').map_or("", |(_, rest)| rest.trim_start_matches(']').trim());
        let rest_is_open =
            rest.is_empty() || rest.starts_with('#') || open_line(rest).is_some_and(|shown| shown == rest);
        return (whole && rest_is_open).then(|| line.to_owned());
    }
    let end = trimmed.find(['=', ':']).unwrap_or_else(|| trimmed.find(char::is_whitespace).unwrap_or(trimmed.len()));
    let name = trimmed.get(..end).unwrap_or_default().trim();
    let marks = trimmed.chars().all(|c| !c.is_alphanumeric());
    let lead = name.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    if !marks && !lead.split_whitespace().all(is_name) {
        return None;
    }
    // From the first word on that has to do with secrets: its value may be one.
    let lower = line.to_ascii_lowercase();
    let names = lower.len() - trimmed.len() + end;
    let words =
        SECRET.iter().enumerate().filter_map(|(n, word)| lower.find(word).filter(|at| n < IN_VALUES || *at < names));
    let first = words.min();
    let Some(first) = first else { return Some(line.to_owned()) };
    let rest = line.get(first..)?;
    let value = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
    let gap = rest.get(value..)?.len() - rest.get(value..)?.trim_start_matches([' ', '=', ':', '"']).len();
    Some(format!("{}{MASK}", line.get(..first + value + gap)?))
}

/// Whether all parts of a name are words of configurations.
fn is_name(name: &str) -> bool {
    static KEYS: OnceLock<Vec<String>> = OnceLock::new();
    static KNOWN: OnceLock<HashSet<String>> = OnceLock::new();
    let known = KNOWN.get_or_init(|| {
        let keys = key_names();
        let parts = keys.iter().flat_map(|key| key.split(['.', '_'])).chain(WORDS.split_whitespace());
        parts.map(str::to_owned).collect()
    });
    let lower = name.to_ascii_lowercase();
    let mut parts = lower.split(['_', '-', '.']);
    let keys = || KEYS.get_or_init(key_names).iter().filter_map(|key| key.rsplit('.').next());
    if !name.is_empty() && is_mistyped(&lower, keys()) {
        return true;
    }
    !name.is_empty()
        && parts.all(|part| known.contains(part) || part.strip_suffix('s').is_some_and(|p| known.contains(p)))
}
