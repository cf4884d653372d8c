//! What stands on both sides of `=`, and how comments are written.

use std::ops::Range;

use super::foreign::{meant_by, name_of};
use super::{Fault, Told};
use crate::config::report::{is_flag, unlike};

/// What a merge, a mail or a shell left in the file.
pub(super) fn leftover(fault: &Fault<'_>) -> Told {
    let written = fault.written();
    let line = written.trim_start();
    let first = line.split_whitespace().next().unwrap_or_default();
    let whole = fault.place(written.len() - line.len(), line.trim_end().len().max(1));
    let message = if line.starts_with("<<<<<<<") || line.starts_with("=======") || line.starts_with(">>>>>>>") {
        "this is a mark of a merge that was not finished: expected one of the two versions, without such lines"
    } else if line.starts_with("```") {
        "this is a fence of Markdown, from a page: take the line away"
    } else if line.starts_with("{%")
        || line.starts_with("<%")
        || (fault.plain().contains("{{") && fault.plain().contains("}}"))
    {
        "this belongs to a template that was not filled in: expected the file that is made from it"
    } else if line.starts_with("$ ") || line.starts_with("> ") {
        "this begins with a mark of a shell or a mail: expected the line without it"
    } else if first.chars().all(|c| c.is_ascii_digit())
        && line.contains(['=', '['])
        && !first.is_empty()
        && line.len() > first.len() + 1
        && !line.starts_with(&format!("{first} ="))
    {
        "this begins with the number of a line, as pages and editors show it: expected the line without it"
    } else if line.starts_with("+") || (line.starts_with('-') && line.contains('=')) {
        "this begins with a mark of a patch: expected the line without it"
    } else if matches!(first, "export" | "set" | "let" | "var" | "const" | "local" | "declare") {
        return Some((whole, format!("`{first}` has no meaning here{}", fault.instead(line.get(first.len()..)?))));
    } else if matches!(first.trim_end_matches(':'), "include" | ".include" | "!include" | "import" | "source")
        && !line.contains('=')
    {
        "a file cannot be included here: expected all in one file"
    } else {
        return None;
    };
    Some((whole, message.into()))
}

/// Comments that do not begin with `#`.
pub(super) fn comment(fault: &Fault<'_>) -> Told {
    let written = fault.written();
    let line = written.trim_start();
    let begins = |text: &str| {
        ["//", "/*", "*/", ";", "--", "<!--", "(*", "%", "!", "* "].into_iter().find(|mark| text.starts_with(mark))
    };
    if let Some(mark) = begins(line) {
        let at = written.len() - line.len();
        return Some((fault.place(at, mark.len()), format!("a comment begins with # here, not with {mark}")));
    }
    if !fault.said.starts_with("unexpected key or value") {
        return None;
    }
    let mark = begins(fault.rest().trim_start()).filter(|mark| fault.rest().trim() != *mark)?;
    let at = fault.at.start + fault.rest().find(mark)?;
    Some((at..at + mark.len(), format!("a comment begins with # here, not with {mark}")))
}

/// Something else than `=` between a name and its value.
pub(super) fn assignment(fault: &Fault<'_>) -> Told {
    let said = fault.said;
    let about = [
        "key with no value",
        "missing assignment",
        "extra `=`",
        "extra assignment",
        "invalid unquoted key",
        "invalid key",
        "missing comma",
        "unquoted keys",
        "extra comma",
    ];
    if !about.iter().any(|text| said.starts_with(text)) {
        return None;
    }
    let rest = fault.rest();
    let at = fault.at.start + (rest.len() - rest.trim_start().len());
    let rest = rest.trim_start();
    let before = fault.scan.plain.get(fault.line.start..fault.at.start).unwrap_or_default().trim_end();
    for wrong in ["==", ":=", "=>", "->", ":"] {
        let found = if wrong == "==" || wrong == "=>" {
            fault.plain().find(wrong).map(|n| fault.line.start + n)
        } else if before.ends_with(wrong) {
            Some(fault.line.start + before.len() - wrong.len())
        } else {
            rest.starts_with(wrong).then_some(at)
        };
        let Some(start) = found else { continue };
        let line = fault.written();
        let from = start - fault.line.start;
        let fixed = format!("{} = {}", line.get(..from)?.trim_end(), line.get(from + wrong.len()..)?.trim_start());
        let quotes = with_quotes(&fixed).filter(|_| !fixed.contains(['{', '[']));
        let fixed = quotes.unwrap_or(fixed);
        return Some((start..start + wrong.len(), format!("{wrong} stands where TOML has ={}", fault.instead(&fixed))));
    }
    // In an inline table of JSON.
    if let Some(open) = fault.plain().find('{')
        && let Some(n) = fault.plain().get(open..).and_then(|inner| inner.find(':'))
    {
        return Some((fault.place(open + n, 1), ": stands where TOML has =: expected { name = value, … }".into()));
    }
    let line = fault.plain().trim();
    let name = name_of(line);
    let whole = fault.place(fault.plain().len() - fault.plain().trim_start().len(), name.len().max(1));
    if line.contains('=') && name.contains(char::is_whitespace) {
        let joined = name.split_whitespace().collect::<Vec<_>>().join("_");
        let hint = if fault.shown.is_known(&joined) {
            format!(": expected {joined} = …")
        } else {
            ": expected one word before the =".to_owned()
        };
        return Some((whole, format!("a name has no spaces{hint}")));
    }
    if line.contains('=') && fault.said.starts_with("invalid unquoted key") {
        let c = rest.chars().next()?;
        let message =
            format!("{c:?} cannot be part of a name: expected letters, digits, - and _, or the name in quotes");
        return Some((at..at + c.len_utf8(), message));
    }
    if line.contains('=') {
        return None;
    }
    let (first, more) = fault.written().trim().split_once(char::is_whitespace).unwrap_or((fault.written().trim(), ""));
    if fault.shown.is_known(first) && !more.trim().is_empty() {
        let fixed =
            with_quotes(&format!("{first} = {}", more.trim())).unwrap_or_else(|| format!("{first} = {}", more.trim()));
        return Some((at..at + 1, format!("= is missing between the name and its value{}", fault.instead(&fixed))));
    }
    let whole =
        fault.place(fault.written().len() - fault.written().trim_start().len(), fault.written().trim().len().max(1));
    Some((whole, "is neither a header such as [queue], nor `name = value`, nor a comment that begins with #".into()))
}

/// What stands behind the `=` of a line.
struct Given<'a> {
    name: &'a str,
    /// Up to a comment.
    text: &'a str,
    place: Range<usize>,
}

impl Given<'_> {
    fn instead(&self, fault: &Fault<'_>, value: &str) -> String {
        fault.instead(&format!("{} = {value}", self.name))
    }
}

/// What a value is that is none of TOML's.
pub(super) fn value(fault: &Fault<'_>) -> Told {
    let (plain, written) = (fault.plain(), fault.written());
    let from = plain.find('=').map_or(0, |n| n + 1);
    let begins = plain.get(from..)?.trim_start();
    let at = plain.len() - begins.len();
    let length = begins.split(" #").next().unwrap_or_default().trim_end().len();
    let text = written.get(at..at + length)?;
    let given = Given { name: name_of(written), text, place: fault.place(at, length.max(1)) };
    if text.is_empty() {
        let message = "the value is missing behind =: expected one, or the line left out for the default";
        return Some((fault.place(from.saturating_sub(1), 1), message.into()));
    }
    if let Some(told) = behind(fault, &given) {
        return Some(told);
    }
    if text.ends_with('\\') {
        let message = "a line is not continued with \\: expected a list in [ ], which may have several lines";
        return Some((fault.place(at + length - 1, 1), message.into()));
    }
    if text.starts_with('$') || (text.starts_with('%') && text.ends_with('%')) {
        let message = "variables are not filled in here: expected the value itself in quotes; a secret may come from \
                       the environment: password = { env = \"NAME\" }";
        return Some((given.place, message.into()));
    }
    if let Some(message) = flag_or_number(fault, &given) {
        return Some((given.place, message));
    }
    if text.starts_with('{') || nested(fault, from) || given.name.is_empty() || !plain.contains('=') {
        return inner(fault);
    }
    Some((given.place.clone(), without_quotes(fault, &given)))
}

/// Something behind a value that is complete.
fn behind(fault: &Fault<'_>, given: &Given<'_>) -> Told {
    let closed = given.text.starts_with(['"', '\'']) && !given.text.ends_with('\\');
    let rest = fault.rest().trim();
    let end = rest == "," || rest == ";";
    if !fault.said.starts_with("unexpected key or value") || !(closed || end) {
        return None;
    }
    let next = fault.scan.text.get(fault.line.end..).unwrap_or_default().trim_start();
    if rest == "," && next.starts_with(['"', '\'']) {
        let message = "several values are a list, which stands in brackets: expected [ and ] around all of them";
        return Some((given.place.clone(), message.into()));
    }
    if end {
        let fixed = fault.written().trim_end().trim_end_matches([',', ';']);
        let at = fault.at.start + fault.rest().find([',', ';'])?;
        return Some((at..at + 1, format!("nothing may stand behind the value{}", fault.instead(fixed))));
    }
    if rest.starts_with(',') {
        let list = given.instead(fault, &format!("[{}]", given.text.trim_end_matches(',')));
        return Some((given.place.clone(), format!("several values are a list, which stands in brackets{list}")));
    }
    let start = fault.at.start + (fault.rest().len() - fault.rest().trim_start().len());
    let message = "something stands behind the value: expected the end of the line, or a comment that begins with #";
    (!rest.is_empty()).then(|| (start..start + rest.len(), message.into()))
}

/// `yes`, `Off`, `none`, and numbers as people write them.
fn flag_or_number(fault: &Fault<'_>, given: &Given<'_>) -> Option<String> {
    let lower = given.text.to_ascii_lowercase();
    let flag = match lower.as_str() {
        "yes" | "on" | "true" | "enabled" | "enable" | "y" => Some("true"),
        "no" | "off" | "false" | "disabled" | "disable" | "n" | "none" | "null" | "nil" => Some("false"),
        _ => None,
    };
    if let Some(flag) = flag {
        let null = matches!(lower.as_str(), "none" | "null" | "nil");
        // `tls = off` and `level = off` are words.
        let word = ["tls", "level"].contains(&given.name);
        return Some(match (null, word) {
            (true, _) => "there is no such value: expected the line to be left out for the default".to_owned(),
            (_, true) => format!("a word stands in quotes{}", given.instead(fault, &format!("\"{lower}\""))),
            _ => format!("yes and no are written true and false{}", given.instead(fault, flag)),
        });
    }
    if !is_count(given.text) {
        return None;
    }
    let text = takes_text(given.name);
    let grouped = given.text.contains(',') && given.text.chars().all(|c| c.is_ascii_digit() || c == ',');
    if grouped && text {
        return Some(format!("a number has no commas{}", given.instead(fault, &given.text.replace(',', ""))));
    }
    let message = "a number has digits only, with a dot for a fraction and no thousands, percent or unit: expected such \
                   as 25000 or 0.2";
    (!text).then(|| message.into())
}

/// A text without quotes: what the key takes instead.
fn without_quotes(fault: &Fault<'_>, given: &Given<'_>) -> String {
    let Given { name, text, .. } = *given;
    if is_flag(name) {
        return format!("`{name}` is true or false: expected one of these, without quotes");
    }
    if let Some(why) = unlike(name, text.trim_matches('"')) {
        return format!("text stands in quotes, and {why}");
    }
    if let Some(here) = meant_by(name).filter(|_| !fault.shown.is_known(name)) {
        return format!("text stands in quotes, and `{name}` is here {here}");
    }
    let quoted = match text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        Some(list) if !is_bare_address(text) => {
            let entries = list.split(',').map(str::trim).filter(|entry| !entry.is_empty());
            format!("[{}]", entries.map(in_quotes).collect::<Vec<_>>().join(", "))
        }
        // `256 MiB` is one word here.
        _ if text.starts_with(|c: char| c.is_ascii_digit()) => in_quotes(&text.replace(' ', "")),
        _ => in_quotes(text),
    };
    format!("text stands in quotes{}", given.instead(fault, &quoted))
}

/// Whether the parser's place is inside brackets that were opened in this line or before.
fn nested(fault: &Fault<'_>, from: usize) -> bool {
    let open = fault.scan.open_before(fault.at.start);
    open.first().is_some_and(|at| *at < fault.line.start + from || fault.scan.text.get(*at..=*at) == Some("{"))
}

/// A value without quotes inside a list or an inline table.
fn inner(fault: &Fault<'_>) -> Told {
    let rest = fault.scan.plain.get(fault.at.start..fault.line.end)?;
    let end = rest.find([',', '}', ']']).unwrap_or(rest.len());
    let length = rest.get(..end)?.trim_end().len();
    let quoted = ["string values", "invalid float", "invalid date", "invalid boolean", "invalid integer"]
        .iter()
        .any(|said| fault.said.starts_with(said));
    if !quoted || length == 0 {
        return None;
    }
    let text = fault.scan.text.get(fault.at.start..fault.at.start + length)?;
    if text.starts_with('$') {
        let message = "variables are not filled in here: expected { env = \"NAME\" } for a secret, else the value itself in quotes";
        return Some((fault.at.start..fault.at.start + length, message.into()));
    }
    Some((fault.at.start..fault.at.start + length, "text stands in quotes, also inside a list or a table".into()))
}

/// Digits with what people write around numbers.
fn is_count(text: &str) -> bool {
    let digits = text.chars().filter(char::is_ascii_digit).count();
    let unit = ["k", "K", "%", "M", "m", "G"].iter().find_map(|unit| text.strip_suffix(unit)).unwrap_or(text);
    digits > 0 && unit.chars().all(|c| c.is_ascii_digit() || matches!(c, ',' | '.' | '_' | ' ' | '\''))
}

/// Keys whose values are spans, sizes or rates, where a bare number with a unit wants quotes.
fn takes_text(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    let numbers = [
        "connections",
        "messages_per_connection",
        "recipients_per_message",
        "max_recipients",
        "max_connections",
        "max_hops",
        "port",
        "burst",
        "attempts",
        "cache_size",
        "jitter",
        "factor",
        "priority",
        "code",
    ];
    !numbers.contains(&last)
}

/// `[::1]:2525` is no list.
fn is_bare_address(text: &str) -> bool {
    text.contains("::") && !text.contains(',')
}

fn in_quotes(text: &str) -> String {
    match text {
        text if text.starts_with(['"', '\'']) => text.to_owned(),
        // Nothing is an escape there.
        text if text.contains('\\') => format!("'{text}'"),
        text => format!("\"{}\"", text.trim_matches('"')),
    }
}

/// `name = value` with the value in quotes, unless it has some or is a number.
fn with_quotes(line: &str) -> Option<String> {
    let (name, value) = line.split_once('=')?;
    let value = value.trim();
    let bare = !value.starts_with(['"', '\'', '[', '{'])
        && value.parse::<f64>().is_err()
        && value != "true"
        && value != "false";
    (bare && !value.is_empty()).then(|| format!("{} = \"{value}\"", name.trim()))
}
