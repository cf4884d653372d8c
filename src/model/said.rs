//! What a receiver says when it refuses: bytes of any charset, with places for what differs each time.

use std::fmt;
use std::str::FromStr;

use super::persona::Text;

/// Bytes of a text at most; more does not fit into a reply line of RFC 5321 §4.5.3.1.5.
const LONGEST: usize = 480;

/// A reply: a code, and for each line the bytes behind it, an enhanced code among them or not.
///
/// As a text: `451 4.7.1 Langsamer bitte`. `\xNN` is a byte, `\n` begins another line, `\\` is a backslash;
/// `{sender}` and `{recipient}` are the addresses, `{id}` is another number each time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Said {
    code: u16,
    text: Vec<u8>,
}

/// What stands in the places of a text.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Places<'a> {
    pub(super) id: u64,
    pub(super) sender: &'a str,
    pub(super) recipient: &'a str,
}

impl Said {
    /// Its code.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// Appends the lines as they go over the wire.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let mut lines = self.text.split(|b| *b == b'\n').peekable();
        while let Some(line) = lines.next() {
            out.extend_from_slice(self.code.to_string().as_bytes());
            out.push(if lines.peek().is_some() { b'-' } else { b' ' });
            out.extend_from_slice(line);
            out.extend_from_slice(b"\r\n");
        }
    }

    /// With its places filled.
    pub(super) fn filled(&self, places: Places<'_>) -> Said {
        let mut text = Vec::with_capacity(self.text.len() + 32);
        let mut rest = self.text.as_slice();
        while let Some(at) = memchr::memchr(b'{', rest) {
            text.extend_from_slice(&rest[..at]);
            rest = &rest[at..];
            let id = format!("{:012x}", places.id);
            let known = [("{id}", id.as_str()), ("{sender}", places.sender), ("{recipient}", places.recipient)];
            match known.iter().find(|(name, _)| rest.starts_with(name.as_bytes())) {
                Some((name, value)) => {
                    text.extend_from_slice(value.as_bytes());
                    rest = &rest[name.len()..];
                }
                None => {
                    text.push(b'{');
                    rest = &rest[1..];
                }
            }
        }
        text.extend_from_slice(rest);
        Said { code: self.code, text }
    }
}

impl From<Text> for Said {
    fn from(of: Text) -> Said {
        let blank = if of.enhanced.is_empty() { "" } else { " " };
        Said { code: of.code, text: format!("{}{blank}{}", of.enhanced, of.text).into_bytes() }
    }
}

impl FromStr for Said {
    type Err = String;

    fn from_str(s: &str) -> Result<Said, String> {
        let bad = |why: &str| format!("`{s}` is not a refusal{why}: expected a code from 400 to 599 and a text");
        let (code, mut rest) = s.split_once(' ').unwrap_or((s, ""));
        let code = code.parse::<u16>().ok().filter(|code| (400..600).contains(code)).ok_or_else(|| bad(""))?;
        let mut text = Vec::new();
        while let Some(at) = rest.find('\\') {
            text.extend_from_slice(&rest.as_bytes()[..at]);
            rest = &rest[at + 1..];
            let (byte, used) = match rest.as_bytes() {
                [b'n', ..] => (b'\n', 1),
                [b'\\', ..] => (b'\\', 1),
                [b'x', ..] => {
                    let digits = rest.get(1..3).and_then(|digits| u8::from_str_radix(digits, 16).ok());
                    (digits.ok_or_else(|| bad(" (\\x and two hexadecimal digits are a byte)"))?, 3)
                }
                _ => return Err(bad(" (behind a backslash stands n, x or another)")),
            };
            text.push(byte);
            rest = rest.get(used..).unwrap_or_default();
        }
        text.extend_from_slice(rest.as_bytes());
        if text.iter().any(|b| matches!(b, b'\r' | 0)) || text.len() > LONGEST {
            return Err(bad(" (no CR, no NUL, at most 480 bytes)"));
        }
        Ok(Said { code, text })
    }
}

/// For people: what is not UTF-8 is replaced.
impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, String::from_utf8_lossy(&self.text).replace('\n', " "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(said: &Said) -> Vec<u8> {
        let mut out = Vec::new();
        said.write_to(&mut out);
        out
    }

    #[test]
    fn any_bytes_in_any_number_of_lines_go_over_the_wire() {
        let said: Said = r"451 4.7.1 \xcc\xab\xbf\xec\nLangsämer \\o/".parse().expect("a reply");
        assert_eq!(wire(&said), b"451-4.7.1 \xcc\xab\xbf\xec\r\n451 Langs\xc3\xa4mer \\o/\r\n");
        assert_eq!(wire(&"421".parse().expect("a bare code")), b"421 \r\n");
    }

    #[test]
    fn places_are_filled() {
        let said: Said = "450 {recipient} of {sender}: {id} {no}{".parse().expect("a reply");
        let places = Places { id: 255, sender: "a@b.example", recipient: "c@d.example" };
        assert_eq!(wire(&said.filled(places)), b"450 c@d.example of a@b.example: 0000000000ff {no}{\r\n");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in
            ["", "slow", "250 Ok", "600 x", r"450 \q", r"450 \x4", r"450 \xé", "450 a\rb", r"450 \x00", "450 \\"]
        {
            assert!(text.parse::<Said>().is_err(), "{text}");
        }
        assert!(format!("450 {}", "x".repeat(LONGEST + 1)).parse::<Said>().is_err());
    }
}
