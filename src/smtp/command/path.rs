//! The path of MAIL and RCPT, as legacy clients write it: what stands between the angle brackets, which
//! may be missing or doubled, with names and comments around it.

/// `FROM:<path> params` → (path, ` params`). Angle brackets may be missing or doubled, spaces may stand
/// where none belong, and so may names and comments, as in a header field.
pub(super) fn path<'a>(text: &'a str, keyword: &str) -> Option<(&'a str, &'a str)> {
    let rest = text.get(keyword.len()..).filter(|_| text[..keyword.len()].eq_ignore_ascii_case(keyword))?;
    let rest = rest.trim_start().strip_prefix(':')?.trim_start();
    let (path, params) = match bracket(rest) {
        Some(open) => {
            let end = open + 1 + closing_bracket(&rest[open + 1..])?;
            (mailbox(&rest[open + 1..end]), &rest[end + 1..])
        }
        None => {
            let end = rest.find([' ', '\t']).unwrap_or(rest.len());
            if end == 0 {
                return None;
            }
            rest.split_at(end)
        }
    };
    let params = match params.trim_start() {
        comment if comment.starts_with('(') => &comment[comment_end(comment)?..],
        _ => params,
    };
    (params.is_empty() || params.starts_with([' ', '\t'])).then_some((path, params))
}

/// What a character means to a path: those in quotes and comments mean nothing.
#[derive(Default)]
struct Scan {
    quoted: bool,
    escaped: bool,
    comment: usize,
}

impl Scan {
    /// Takes the next byte; whether it stands outside quotes and comments, those that begin and end
    /// them included.
    fn outside(&mut self, byte: u8) -> bool {
        let outside = !self.quoted && self.comment == 0;
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' if !outside => self.escaped = true,
            b'"' if self.comment == 0 => self.quoted = !self.quoted,
            b'(' if !self.quoted => self.comment += 1,
            b')' if self.comment > 0 => self.comment -= 1,
            _ => {}
        }
        outside
    }
}

/// Position of the `<` that opens the path: at the start, or behind a name. An `@` before it is an
/// address without brackets, an `=` a parameter with one in its value.
fn bracket(text: &str) -> Option<usize> {
    let mut scan = Scan::default();
    for (i, b) in text.bytes().enumerate() {
        match b {
            _ if !scan.outside(b) => {}
            b'<' => return Some(i),
            b'@' | b'=' => return None,
            _ => {}
        }
    }
    None
}

/// Position of the `>` that closes the path; one inside a quoted string does not.
fn closing_bracket(inner: &str) -> Option<usize> {
    let (mut scan, mut depth) = (Scan::default(), 0_usize);
    for (i, b) in inner.bytes().enumerate() {
        match b {
            _ if !scan.outside(b) => {}
            b'<' => depth += 1,
            b'>' if depth == 0 => return Some(i),
            b'>' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// The address of what stands between brackets: that of the innermost ones (`<Jo <a@b>>`), without
/// the comments around it.
fn mailbox(inner: &str) -> &str {
    let (mut scan, mut open, mut close) = (Scan::default(), 0, None);
    for (i, b) in inner.bytes().enumerate() {
        match b {
            _ if !scan.outside(b) => {}
            b'<' => (open, close) = (i + 1, None),
            b'>' if close.is_none() => close = Some(i),
            _ => {}
        }
    }
    let mut address = inner[open..close.unwrap_or(inner.len())].trim();
    while let Some(end) = Some(address).filter(|a| a.starts_with('(')).and_then(comment_end) {
        address = address[end..].trim_start();
    }
    // A quoted string may have a parenthesis; its local part does not end the address.
    match address.rfind('@').and_then(|at| Some(at + address[at..].find('(')?)) {
        Some(comment) if comment_end(&address[comment..]) == Some(address.len() - comment) => {
            address[..comment].trim_end()
        }
        _ => address,
    }
}

/// The end of the comment that the text begins with.
fn comment_end(text: &str) -> Option<usize> {
    let mut scan = Scan::default();
    text.bytes()
        .position(|b| {
            scan.outside(b);
            scan.comment == 0
        })
        .map(|last| last + 1)
}
