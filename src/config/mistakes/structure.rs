//! What holds a file together: headers, brackets, strings, and names that may stand only once.

use super::foreign::name_of;
use super::scan::line_around;
use super::{Fault, Told};

/// Tables of which there may be several.
const SEVERAL: [&str; 5] = ["listener", "user", "route", "limit", "dkim"];

/// `[queue]` or `[[route]]`, whichever this name has.
fn header_of(name: &str) -> String {
    if SEVERAL.contains(&name) || name.ends_with(".on_reply") { format!("[[{name}]]") } else { format!("[{name}]") }
}

/// A key or table that is there already, with the place of the first.
pub(super) fn twice(fault: &Fault<'_>) -> Told {
    if fault.said.starts_with("cannot extend value") {
        let name = name_of(fault.written()).split('.').next().unwrap_or_default();
        let first = first_key(fault, name).map_or(String::new(), |at| format!(" in line {}", fault.number(at)));
        let whole = fault.place(fault.plain().len() - fault.plain().trim_start().len(), name.len().max(1));
        let message = format!(
            "the name before the dot has a value already{first}, so it cannot have parts too: expected one of the two"
        );
        return Some((whole, message));
    }
    if !fault.said.starts_with("duplicate key") {
        return None;
    }
    let (text, at) = (fault.scan.text, fault.at.clone());
    let name = text.get(at.clone()).unwrap_or_default();
    let plain = fault.plain().trim();
    if plain.starts_with('[') {
        let header = fault.scan.header_before(fault.line.end).map_or("", |(_, header)| header);
        let first = first_header(fault, header);
        let place = first.map_or(String::new(), |at| format!(", in line {}", fault.number(at)));
        if SEVERAL.contains(&header) {
            let message = format!(
                "[{header}] is there already{place}: of these there may be several: expected [[{header}]] each time"
            );
            return Some((at, message));
        }
        let message = match first {
            Some(_) => format!("[{header}] is there already{place}: expected all its keys below one header"),
            None => format!("[{header}] is there already, as a key of the table around it: expected one of the two"),
        };
        return Some((at, message));
    }
    let first = first_key(fault, name);
    let place = first.map_or(String::new(), |at| format!(" in line {}", fault.number(at)));
    let shown = if fault.shown.is_known(name) { format!("`{name}`") } else { "the key".to_owned() };
    let lists = ["rate", "quota", "allow", "connection_rate", "source", "nameservers"].contains(&name);
    let hint = if lists { format!(" (several values: {name} = [\"…\", \"…\"])") } else { String::new() };
    let message = match first {
        Some(_) => format!("{shown} has a value already{place}: expected it once in its table{hint}"),
        None => format!("{shown} is there already, as a table or a part of one: expected one of the two{hint}"),
    };
    Some((at, message))
}

/// Where the header `[name]` or `[[name]]` stands first, before the line of the fault.
fn first_header(fault: &Fault<'_>, name: &str) -> Option<usize> {
    let mut start = 0;
    for line in fault.scan.text.split_inclusive('\n') {
        let header =
            line.trim().strip_prefix('[').map(|l| l.trim_start_matches('[').split(']').next().unwrap_or_default());
        if start < fault.line.start && header.is_some_and(|h| h.trim() == name) {
            return Some(start);
        }
        start += line.len();
    }
    None
}

/// Where the key has its first value: before `at`, and in the same table.
fn first_key(fault: &Fault<'_>, name: &str) -> Option<usize> {
    let text = fault.scan.text;
    let inline = fault.plain().get(..fault.at.start.saturating_sub(fault.line.start))?;
    if inline.contains('{') {
        return inline.contains(name).then_some(fault.line.start);
    }
    let start = fault.scan.header_before(fault.line.start).map_or(0, |(at, _)| at);
    let own = text.get(fault.line.clone()).map(name_of)?;
    let mut at = start;
    for line in text.get(start..fault.line.start)?.split_inclusive('\n') {
        let found = name_of(line);
        if found == own || found == name {
            return Some(at);
        }
        at += line.len();
    }
    None
}

/// A header with a bracket too few, a name that needs quotes, or something behind it.
pub(super) fn header(fault: &Fault<'_>) -> Told {
    let (plain, written) = (fault.plain(), fault.written());
    let line = plain.trim();
    if !line.starts_with('[') || !fault.scan.open_before(fault.line.start).is_empty() {
        return None;
    }
    let opened = line.chars().take_while(|c| *c == '[').count();
    let start = plain.find('[').unwrap_or_default();
    let inside = written.trim().trim_start_matches('[');
    let ended = inside.find(']').unwrap_or(inside.find(" #").unwrap_or(inside.len()));
    let name = inside.get(..ended).unwrap_or_default().trim();
    let closed = inside.get(ended..).unwrap_or_default().chars().take_while(|c| *c == ']').count();
    let rest = inside.get(ended + closed..).unwrap_or_default().trim();
    let plain_name = |c: char| c.is_ascii_alphanumeric() || "_-.\"'".contains(c);
    let whole = fault.place(start, written.trim().len());
    // Whatever stands where a name belongs may be something else that lost its key.
    let known = |name: &str| name.split(['.', ' ', ':']).next().is_some_and(|first| fault.shown.is_known(first));
    let expected = |name: &str| if known(name) { header_of(name) } else { "such as [queue] or [[route]]".to_owned() };
    if name.matches('"').count() % 2 == 1 {
        return Some((
            whole,
            "a quote in the header is not closed: expected it like [provider.\"mail.example.com\"]".into(),
        ));
    }
    if let Some(c) = name.chars().find(|c| !plain_name(*c)).filter(|_| !name.contains('"')) {
        let dotted = name.replace([' ', ':', '/'], ".").replace("..", ".");
        let of_two_words = name.strip_prefix("provider.").filter(|rest| rest.contains(' '));
        let hint = if let Some(rest) = of_two_words {
            let joined = rest.split_whitespace().collect::<Vec<_>>().join("-");
            format!("that of a provider is one word: expected {}", header_of(&format!("provider.{joined}")))
        } else if c == ' ' || c == ':' || c == '/' {
            format!("expected a dot between the parts: {}", expected(&dotted))
        } else {
            "expected letters, digits, - and _, with a dot between the parts, such as [provider.example]".to_owned()
        };
        return Some((whole, format!("the header has {c:?} in its name: {hint}")));
    }
    if opened != closed || opened > 2 {
        let message = format!("the brackets of this header do not match: expected {}", expected(name));
        return Some((whole, message));
    }
    if !rest.is_empty() && !rest.starts_with('#') {
        let at = written.find(rest).unwrap_or(start);
        if rest.starts_with('=') {
            let key = fault.instead(&format!("{name} {rest}"));
            return Some((whole, format!("brackets make a header of a name, which has no value{key}")));
        }
        let message = if rest.contains('=') {
            "a key stands behind a header: expected it in a line of its own"
        } else {
            "something stands behind the header: expected the end of the line, or a comment that begins with #"
        };
        return Some((fault.place(at, rest.len()), message.into()));
    }
    None
}

/// A bracket or brace that is not closed, at the place where it is opened.
pub(super) fn unclosed(fault: &Fault<'_>) -> Told {
    let about =
        ["unclosed", "missing comma", "missing assignment", "unexpected `=`", "missing key", "invalid inline table"];
    if !about.iter().any(|said| fault.said.starts_with(said)) {
        return None;
    }
    let text = fault.scan.text;
    let opened = *fault.scan.open_before(fault.at.start).last()?;
    let opener = text.get(opened..)?.chars().next()?;
    let (what, closer) = if opener == '[' { ("list", ']') } else { ("inline table", '}') };
    let line = fault.line.clone();
    let plain = fault.plain().trim();
    let later = line_around(text, opened) != line;
    let begins_anew = plain.starts_with('[') || (later && starts_with_key(plain));
    let ended = fault.said.starts_with("unclosed");
    if ended || (later && begins_anew && (opener == '[' || !is_entry(fault, opened, plain))) {
        let behind = if ended { String::new() } else { format!(" before line {}", fault.number(line.start)) };
        let message = format!("this {opener} is not closed: expected {closer} at the end of the {what}{behind}");
        return Some((opened..opened + 1, message));
    }
    let between = fault.scan.plain.get(opened..fault.at.start).unwrap_or_default();
    let mut start = opened;
    for part in between.split_inclusive('\n') {
        if let Some((n, c)) = part.char_indices().find(|(n, c)| matches!(c, '"' | '\'') && unmatched(part, *n)) {
            let message =
                format!("the text that begins with this {c} does not end in its line: expected {c} behind it");
            return Some((start + n..start + n + 1, message));
        }
        start += part.len();
    }
    let assigns = fault.rest().starts_with(['=', '-', ':', '>']) || between.trim_end().ends_with('>');
    if fault.said.starts_with("missing comma") && !assigns {
        let message = format!("a comma is missing between two entries of the {what}");
        return Some((fault.at.start..fault.at.start + 1, message));
    }
    None
}

/// `name =` at the beginning.
fn starts_with_key(plain: &str) -> bool {
    let name = name_of(plain);
    plain.contains('=') && !name.is_empty() && !name.contains(['{', '[', ',', '"'])
}

/// Whether this line may be one of the entries of an inline table over several lines: such are indented.
fn is_entry(fault: &Fault<'_>, opened: usize, plain: &str) -> bool {
    let indented = fault.plain().starts_with([' ', '\t']);
    let alone = fault
        .scan
        .plain
        .get(opened + 1..line_around(fault.scan.text, opened).end)
        .is_some_and(|rest| rest.trim().is_empty());
    indented && alone && !plain.starts_with('[')
}

/// A string that does not end, or ends too early.
pub(super) fn string(fault: &Fault<'_>) -> Told {
    let (plain, written) = (fault.plain(), fault.written());
    if fault.said.contains("multi-line") {
        let start = fault.scan.long.last()?.start;
        let quotes = fault.scan.text.get(start..start + 3)?;
        let message = format!(
            "{quotes} begins a text of several lines that does not end: expected {quotes} behind it, or one quote on each side"
        );
        return Some((start..start + 3, message));
    }
    if fault.said.starts_with("missing escaped value")
        || fault.said.contains("unicode")
        || fault.said.contains("escape")
    {
        let message = "in \"…\" a backslash begins an escape: expected '…' around the text, or \\\\ for each backslash";
        return Some((fault.at.start.saturating_sub(1)..fault.at.start, message.into()));
    }
    let value = plain.find('=').map_or(0, |n| n + 1);
    let begins = plain.get(value..)?.trim_start();
    let at = plain.len() - begins.len();
    if begins.starts_with("\"\"") && begins.len() > 2 && !begins.starts_with("\"\"\"") {
        let once = written.replace("\"\"", "\"");
        return Some((fault.place(at, 2), format!("the quotes stand twice{}", fault.instead(&once))));
    }
    if fault.said.starts_with("missing opening quote") {
        let line = format!("{} \"{}", written.get(..value)?, written.get(value..)?.trim());
        return Some((
            fault.place(at, 1),
            format!("the quote at the beginning of the text is missing{}", fault.instead(&line)),
        ));
    }
    if !fault.said.contains("basic string") && !fault.said.contains("literal string, expected") {
        return None;
    }
    // Closed strings are covered, so the last quote is the one that opens.
    let (open, quote) = plain.char_indices().rev().find(|(_, c)| matches!(c, '"' | '\'')).map(|last| {
        let first = plain.char_indices().find(|(n, c)| matches!(c, '"' | '\'') && unmatched(plain, *n));
        first.unwrap_or(last)
    })?;
    let other = if quote == '"' { '\'' } else { '"' };
    let message = if written.trim_end().ends_with(other) {
        format!("the text begins with {quote} and ends with {other}: expected the same quote on both sides")
    } else {
        format!("the text that begins with this {quote} does not end in its line: expected {quote} behind it")
    };
    Some((fault.place(open, 1), message))
}

/// Whether the quote at `at` of a covered line opens a string that its line does not close: inside closed ones
/// there is nothing but `_`.
fn unmatched(plain: &str, at: usize) -> bool {
    let Some((before, rest)) = plain.split_at_checked(at) else { return false };
    let quote = rest.chars().next().unwrap_or('"');
    let inside = rest.get(1..).unwrap_or_default();
    let closes = before.ends_with('_') || before.ends_with(quote);
    let closed = inside.trim_start_matches('_').starts_with(quote);
    !closes && !closed
}
