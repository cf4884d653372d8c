//! Replies of our own (RFC 5321 §4.2, enhanced codes RFC 2034).

use std::borrow::Cow;
use std::fmt;
use std::io::Write;

/// A reply of one line. The text is ours: printable ASCII, no line ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// Basic code, 200 to 599.
    pub code: u16,
    /// Enhanced code, empty where RFC 2034 wants none (greeting, HELO, EHLO, 3yz).
    pub enhanced: &'static str,
    /// For people.
    pub text: Cow<'static, str>,
}

impl Reply {
    /// A reply with a fixed text.
    pub const fn new(code: u16, enhanced: &'static str, text: &'static str) -> Reply {
        Reply { code, enhanced, text: Cow::Borrowed(text) }
    }

    /// A reply with a text made for the occasion; whatever is not printable ASCII becomes `?`.
    pub fn with(code: u16, enhanced: &'static str, text: String) -> Reply {
        let safe = text.bytes().all(|b| (b' '..=b'~').contains(&b));
        let text =
            if safe { text } else { text.chars().map(|c| if (' '..='~').contains(&c) { c } else { '?' }).collect() };
        Reply { code, enhanced, text: Cow::Owned(text) }
    }

    /// 4yz or 5yz.
    pub fn is_error(&self) -> bool {
        self.code >= 400
    }

    /// 4yz.
    pub fn is_transient(&self) -> bool {
        (400..500).contains(&self.code)
    }

    /// Appends the line as it goes over the wire: what [`fmt::Display`] gives, with its line end. Every command of a
    /// client is answered by this.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        // Writing to a Vec cannot fail.
        let _ = write!(out, "{}", self.code);
        for word in [self.enhanced].into_iter().filter(|code| !code.is_empty()).chain([&*self.text]) {
            out.push(b' ');
            out.extend_from_slice(word.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if !self.enhanced.is_empty() {
            write!(f, " {}", self.enhanced)?;
        }
        write!(f, " {}", self.text)
    }
}

/// Appends a reply of several lines (RFC 5321 §4.2.1): all but the last have a hyphen.
pub fn write_lines<S: AsRef<str>>(out: &mut Vec<u8>, code: u16, lines: &[S]) {
    for (i, line) in lines.iter().enumerate() {
        let mark = if i + 1 == lines.len() { ' ' } else { '-' };
        // Writing to a Vec cannot fail.
        let _ = write!(out, "{code}{mark}{}\r\n", line.as_ref());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_lines() {
        let mut out = Vec::new();
        Reply::new(250, "2.1.0", "Ok").write_to(&mut out);
        Reply::with(501, "5.5.4", "bad\r\n250 \u{e9}".into()).write_to(&mut out);
        write_lines(&mut out, 250, &["relay", "SIZE 1", "HELP"]);
        assert_eq!(
            String::from_utf8_lossy(&out),
            "250 2.1.0 Ok\r\n501 5.5.4 bad??250 ?\r\n250-relay\r\n250-SIZE 1\r\n250 HELP\r\n"
        );
    }

    #[test]
    fn a_line_is_what_is_shown_of_the_reply() {
        for (code, enhanced, text) in
            [(220, "", "relay ESMTP"), (250, "2.0.0", "Ok"), (354, "", "End"), (421, "4.3.2", "")]
        {
            let (reply, mut out) = (Reply::new(code, enhanced, text), Vec::new());
            reply.write_to(&mut out);
            assert_eq!(String::from_utf8_lossy(&out), format!("{reply}\r\n"));
        }
    }
}
