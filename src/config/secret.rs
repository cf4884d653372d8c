//! Secrets, and how they are kept out of what others wrote.
//!
//! A [`Secret`] is never printed. But a server that was sent one may say it back: "535 rejected: AUTH
//! PLAIN AHVz…". A [`Redactor`] knows the secrets that a host can have heard, and takes them out of its
//! words before anybody keeps those.
//!
//! Invariants:
//! - Found in whatever form it comes back: as it is, in base64 (both alphabets, at each of the three
//!   alignments, and the whole of what AUTH PLAIN and LOGIN send), in hexadecimal digits, with bytes
//!   as `%41`, `+41`, `=41` or `\x41`; in any case of letters, and with white space, line ends of a
//!   reply or backslashes in between.
//! - A part is found too, since servers cut what they repeat: [`BASE64`] characters of base64, [`HEX`]
//!   hexadecimal digits, three quarters of the secret itself (or [`RAW`] bytes), or its first [`TAIL`] characters at the
//!   end of a text.
//! - Its size is linear in that of the secrets, and the time for a text in that of the text.
//! - What is put in its place ([`MASK`]) tells neither its length nor its form.

use std::fmt::{self, Write as _};
use std::ops::Range;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// Stands where a secret stood.
pub const MASK: &str = "***";
/// Characters of base64 that give a secret away: six bytes.
const BASE64: usize = 8;
/// Bytes of a long secret that do.
const RAW: usize = 24;
/// Hexadecimal digits that do: six bytes.
const HEX: usize = 12;
/// Characters of the beginning that do at the end of a text, where it may have been cut.
const TAIL: usize = 4;
/// Forms shorter than this would be found in what has nothing to do with them.
const SHORTEST: usize = 4;

/// A secret: never printed, and overwritten in memory when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps a secret.
    pub fn new(s: String) -> Secret {
        Secret(Zeroizing::new(s))
    }

    /// The secret itself, for the one place that sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// A message about a configuration without the user part of what looks like a URL, or like
/// `user:password@host`: `"postgres://user:pw@host"` becomes `"postgres://***@host"`. Rather takes too
/// much: where a value with quotation marks in it ends, nobody knows.
pub(super) fn without_users(message: &str) -> String {
    let message = match message.find("://").map(|at| at + 3) {
        Some(from) => mask_user(message, from),
        None => message.to_owned(),
    };
    let quoted = message.split('"').enumerate().map(|(n, part)| {
        let user = part.rfind('@').filter(|at| n % 2 == 1 && part[..*at].contains(':') && !part.contains("://"));
        user.map_or_else(|| part.to_owned(), |_| mask_user(part, 0))
    });
    quoted.collect::<Vec<_>>().join("\"")
}

/// With the mask from there to the last `@` after it.
fn mask_user(text: &str, from: usize) -> String {
    match text.rfind('@').filter(|at| *at > from) {
        Some(at) => format!("{}{MASK}{}", &text[..from], &text[at..]),
        None => text.to_owned(),
    }
}

/// User and password for a smart host.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// User name.
    pub user: String,
    /// Password.
    pub password: Secret,
}

/// Finds the secrets of some credentials in a text. See the module.
#[derive(Clone, Default)]
pub struct Redactor(Option<Arc<Finder>>);

struct Finder {
    /// Every piece that is long enough to give a secret away.
    pieces: AhoCorasick,
    /// Which of them are base64.
    base64: Vec<bool>,
    /// The secrets as [`View`]s show them, lower case, for the end of a text.
    beginnings: Vec<Zeroizing<Vec<u8>>>,
}

impl Redactor {
    /// For a host that may have heard these.
    pub fn new<'c>(credentials: impl IntoIterator<Item = &'c Credentials>) -> Redactor {
        let (mut pieces, mut beginnings) = (Vec::new(), Vec::new());
        for credentials in credentials {
            add_forms(credentials, &mut pieces, &mut beginnings);
        }
        pieces.sort_unstable_by(|(a, _), (b, _)| a.as_slice().cmp(b.as_slice()));
        pieces.dedup();
        if pieces.is_empty() {
            return Redactor::default();
        }
        let built = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(pieces.iter().map(|(piece, _)| piece.as_slice()));
        let base64 = pieces.iter().map(|(_, base64)| *base64).collect();
        // It fails with 2³¹ states only: not with secrets that fit in a configuration file.
        Redactor(built.ok().map(|pieces| Arc::new(Finder { pieces, base64, beginnings })))
    }

    /// The text with [`MASK`] wherever a secret, or a part of one, was.
    pub fn redact(&self, text: String) -> String {
        let Some(finder) = &self.0 else { return text };
        let mut found = finder.find(&View::plain(&text), &text);
        for escape in ["%", "+", "=", "\\x"] {
            if let Some(view) = View::unescaped(&text, escape) {
                found.extend(finder.find(&view, &text));
            }
        }
        if found.is_empty() { text } else { masked(&text, found) }
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redactor")
    }
}

impl Finder {
    /// Where in the original text of the view it is.
    fn find(&self, view: &View, text: &str) -> Vec<Range<usize>> {
        let whole = |at: Range<usize>| {
            let (first, last) = (view.from.get(at.start)?, view.from.get(at.end.checked_sub(1)?)?);
            Some(first.start..last.end)
        };
        let mut found: Vec<Range<usize>> = Vec::new();
        for piece in self.pieces.find_overlapping_iter(&view.bytes) {
            let base64 = self.base64.get(piece.pattern().as_usize()).is_some_and(|base64| *base64);
            found.extend(whole(piece.range()).map(|at| if base64 { whole_word(text, at) } else { at }));
        }
        let end = view.bytes.len();
        for secret in &self.beginnings {
            let cut = (TAIL..secret.len())
                .rev()
                .find(|n| end.checked_sub(*n).is_some_and(|at| view.bytes[at..].eq_ignore_ascii_case(&secret[..*n])));
            found.extend(cut.and_then(|n| whole(end - n..end)));
        }
        found
    }
}

/// With the characters of base64 around it: the bits of a secret do not end with a character.
fn whole_word(text: &str, at: Range<usize>) -> Range<usize> {
    let outside = |c: char| !(c.is_ascii_alphanumeric() || "+/-_=".contains(c));
    let start = text[..at.start].rfind(outside).map_or(0, |n| n + text[n..].chars().next().map_or(1, char::len_utf8));
    let end = text[at.end..].find(outside).map_or(text.len(), |n| at.end + n);
    start..end
}

/// A text as secrets are looked for in it: without what may stand between their characters.
struct View {
    bytes: Vec<u8>,
    /// Where each byte came from: the whole character, or the whole escape.
    from: Vec<Range<usize>>,
}

/// Characters that are not compared.
fn is_skipped(c: char) -> bool {
    c.is_whitespace() || c.is_control() || c == '\\'
}

impl View {
    fn plain(text: &str) -> View {
        let mut view = View { bytes: Vec::with_capacity(text.len()), from: Vec::with_capacity(text.len()) };
        for (at, c) in text.char_indices() {
            view.push_char(at, c);
        }
        view
    }

    /// With bytes instead of their escapes; `None` if the text has none of that kind.
    fn unescaped(text: &str, escape: &str) -> Option<View> {
        let byte = |at: usize| {
            let digits = text.get(at..)?.strip_prefix(escape)?.get(..2)?;
            digits.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u8::from_str_radix(digits, 16).ok())?
        };
        text.match_indices(escape).find_map(|(at, _)| byte(at))?;
        let mut view = View { bytes: Vec::with_capacity(text.len()), from: Vec::with_capacity(text.len()) };
        let mut escaped = 0;
        for (at, c) in text.char_indices() {
            if at < escaped {
                continue;
            }
            match byte(at) {
                Some(byte) => {
                    escaped = at + escape.len() + 2;
                    if !is_skipped(char::from(byte)) || !byte.is_ascii() {
                        view.bytes.push(byte);
                        view.from.push(at..escaped);
                    }
                }
                None => view.push_char(at, c),
            }
        }
        Some(view)
    }

    fn push_char(&mut self, at: usize, c: char) {
        if !is_skipped(c) {
            let mut utf8 = [0; 4];
            for byte in c.encode_utf8(&mut utf8).bytes() {
                self.bytes.push(byte);
                self.from.push(at..at + c.len_utf8());
            }
        }
    }
}

/// The text with these ranges (on borders of characters) masked.
fn masked(text: &str, mut ranges: Vec<Range<usize>>) -> String {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    let mut ranges = ranges.into_iter().peekable();
    while let Some(mut range) = ranges.next() {
        while let Some(next) = ranges.next_if(|next| next.start <= range.end) {
            range.end = range.end.max(next.end);
        }
        out.push_str(text.get(done..range.start).unwrap_or_default());
        out.push_str(MASK);
        done = range.end;
    }
    out.push_str(text.get(done..).unwrap_or_default());
    out
}

/// Each with whether it is base64.
type Pieces = Vec<(Zeroizing<Vec<u8>>, bool)>;

/// All windows of that length, or the whole if it is shorter.
fn windows(form: &[u8], length: usize, base64: bool, pieces: &mut Pieces) {
    let length = length.min(form.len()).max(1);
    pieces.extend(form.windows(length).map(|window| (Zeroizing::new(window.to_vec()), base64)));
}

fn add_forms(credentials: &Credentials, pieces: &mut Pieces, beginnings: &mut Vec<Zeroizing<Vec<u8>>>) {
    let secret = credentials.password.reveal();
    let plain = Zeroizing::new(format!("\0{}\0{secret}", credentials.user));
    let bare: Zeroizing<String> = Zeroizing::new(secret.chars().filter(|c| !is_skipped(*c)).collect());
    if !bare.is_empty() {
        windows(bare.as_bytes(), (bare.len() * 3).div_ceil(4).clamp(SHORTEST, RAW), false, pieces);
        beginnings.push(Zeroizing::new(bare.as_bytes().to_vec()));
    }
    for bytes in [secret.as_bytes(), plain.as_bytes()] {
        let hex = bytes.iter().fold(Zeroizing::new(String::new()), |mut hex, byte| {
            let _ = write!(*hex, "{byte:02x}");
            hex
        });
        if hex.len() >= SHORTEST {
            windows(hex.as_bytes(), HEX, false, pieces);
        }
    }
    // As they are sent, with the last character, which a following byte would change.
    for sent in [secret.as_bytes(), plain.as_bytes()] {
        let encoded = Zeroizing::new(STANDARD.encode(sent));
        let bare = encoded.trim_end_matches('=');
        base64_forms(if bare.len() < SHORTEST { &encoded } else { bare }, pieces);
        beginnings.push(Zeroizing::new(bare.as_bytes().to_vec()));
    }
    // Inside of something longer: what the bytes around it do not change.
    for before in 0..3 {
        let bytes = Zeroizing::new([&[0; 3][..before], secret.as_bytes()].concat());
        let encoded = Zeroizing::new(STANDARD.encode(&*bytes));
        let own = (before * 8).div_ceil(6)..bytes.len() * 8 / 6;
        if let Some(own) = encoded.get(own).filter(|own| own.len() > SHORTEST) {
            base64_forms(own, pieces);
        }
    }
}

/// In both alphabets (RFC 4648 §4, §5).
fn base64_forms(encoded: &str, pieces: &mut Pieces) {
    windows(encoded.as_bytes(), BASE64, true, pieces);
    if encoded.contains(['+', '/']) {
        let url = Zeroizing::new(encoded.replace('+', "-").replace('/', "_"));
        windows(url.as_bytes(), BASE64, true, pieces);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(user: &str, password: &str) -> Credentials {
        Credentials { user: user.into(), password: Secret::new(password.into()) }
    }

    fn redacted(password: &str, text: &str) -> String {
        Redactor::new(&[credentials("user", password)]).redact(text.into())
    }

    const PASSWORD: &str = "hunter2-S3cr3tPW";

    fn percent(text: &str, escape: &str) -> String {
        text.bytes().map(|b| format!("{escape}{b:02X}")).collect()
    }

    #[test]
    fn every_form_of_a_secret_is_masked_and_nothing_around_it() {
        let hex = |text: &str| text.bytes().map(|b| format!("{b:02x}")).collect::<String>();
        let plain = format!("\0user\0{PASSWORD}");
        for form in [
            PASSWORD.to_owned(),
            PASSWORD.to_uppercase(),
            "hunter2-\\S3cr3tPW".to_owned(),
            "hunter2- S3cr3tPW".to_owned(),
            STANDARD.encode(PASSWORD),
            STANDARD.encode(&plain),
            STANDARD.encode(&plain).to_lowercase(),
            hex(PASSWORD),
            hex(PASSWORD).to_uppercase(),
            hex(&plain),
            percent(PASSWORD, "%"),
            percent(PASSWORD, "%").to_lowercase(),
            percent(PASSWORD, "="),
            percent(PASSWORD, "+"),
            percent(PASSWORD, "\\x"),
            PASSWORD.replace('-', "%2d"),
            // What a server that cuts leaves of it.
            PASSWORD[..12].to_owned(),
            STANDARD.encode(&plain)[..17].to_owned(),
        ] {
            let told = redacted(PASSWORD, &format!("5.7.8 rejected {form} (do not try again)"));
            assert!(told.starts_with("5.7.8 rejected ***"), "{form}: {told}");
            assert!(told.ends_with(" (do not try again)"), "{form}: {told}");
            assert!(told.len() < 50, "{form}: {told}");
        }
        let own = "5.7.8 Username and password not accepted: see https://smart.example/?p=1+2%20=3";
        assert_eq!(redacted(PASSWORD, own), own);
    }

    #[test]
    fn base64_is_found_at_every_alignment_and_in_both_alphabets() {
        let awkward = "~~~???>>>ÿÿ-pass";
        for (before, after) in ["", "a", "ab", "abc"].iter().flat_map(|b| ["", "y", "yz"].map(|a| (*b, a))) {
            for password in [PASSWORD, awkward] {
                let encoded = STANDARD.encode(format!("{before}{password}{after}"));
                let url = encoded.replace('+', "-").replace('/', "_");
                for sent in [&encoded, &url] {
                    let told = redacted(password, &format!("no: {sent}"));
                    assert_eq!(told, "no: ***", "{sent}");
                }
            }
        }
    }

    #[test]
    fn what_is_split_or_cut_is_found() {
        let sent = STANDARD.encode(format!("\0user\0{PASSWORD}"));
        let sent = sent.trim_end_matches('=');
        for at in 1..sent.len() {
            let told = redacted(PASSWORD, &format!("5.7.8 no {} {}", &sent[..at], &sent[at..]));
            assert_eq!(told, "5.7.8 no ***", "split at {at}");
        }
        for at in TAIL..PASSWORD.len() {
            assert_eq!(redacted(PASSWORD, &format!("no {}", &PASSWORD[..at])), "no ***", "cut at {at}");
        }
    }

    #[test]
    fn short_and_strange_secrets_are_masked_too() {
        for password in ["a", "ab", "abc", "abcd", "ÿö€", "tab\there", "two words", "back\\slash", "***"] {
            let shown: String = password.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            assert!(!redacted(password, &format!("5{shown}5")).contains(password) || password == MASK, "{password}");
            let sent = STANDARD.encode(format!("\0user\0{password}"));
            assert_eq!(redacted(password, &format!("5: {sent}")).find(&sent), None, "{password}");
            let sent = STANDARD.encode(password);
            assert_eq!(redacted(password, &format!("5: {sent}")).find(&sent), None, "{password}");
        }
        assert_eq!(redacted(" \t ", "5: nothing to find"), "5: nothing to find");
        assert_eq!(Redactor::default().redact("5: nothing".into()), "5: nothing");
    }

    /// As long as a configuration lets it be: no piece is longer than [`RAW`], and there are a few for each byte.
    #[test]
    fn a_long_secret_makes_no_large_finder() {
        let long: String = (0..4096u32).map(|n| char::from(b'!' + (n * n % 89) as u8)).collect();
        let mut pieces = Vec::new();
        add_forms(&credentials("user", &long), &mut pieces, &mut Vec::new());
        assert!(pieces.iter().all(|(piece, _)| piece.len() <= RAW));
        assert!(pieces.len() <= 4096 * 16, "{}", pieces.len());
    }

    #[test]
    fn a_host_is_known_to_have_heard_the_secrets_of_all() {
        let both = [credentials("a", "first-password"), credentials("b", "second-password")];
        let told = Redactor::new(&both).redact("x first-password y second-password z".into());
        assert_eq!(told, "x *** y *** z");
        assert_eq!(format!("{both:?} {:?}", Redactor::new(&both)).matches("password").count(), 2, "field names only");
    }

    #[test]
    fn user_parts_of_urls_are_not_repeated() {
        for (message, told) in [
            (r#""postgres://u:p@h/db" is no store"#, r#""postgres://***@h/db" is no store"#),
            (r#""postgres://u:p w"@@h/db" is no store"#, r#""postgres://***@h/db" is no store"#),
            (r#"found the string "u:p w@smtp.example:587""#, r#"found the string "***@smtp.example:587""#),
            (r#"expected "*@shop.example", found "x:1""#, r#"expected "*@shop.example", found "x:1""#),
            ("expected tls://ADDRESS#NAME", "expected tls://ADDRESS#NAME"),
        ] {
            assert_eq!(without_users(message), told);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_taken_and_no_secret_is_left(
            before in ".{0,20}", password in "[a-zA-Z0-9:;,.@#$&!_-]{6,20}", after in ".{0,20}", escaped in proptest::bool::ANY,
        ) {
            let inside = if escaped { percent(&password, "%") } else { password.clone() };
            let told = redacted(&password, &format!("{before}{inside}{after}"));
            proptest::prop_assert!(told.contains(MASK));
            let bare: String = told.chars().filter(|c| !is_skipped(*c)).collect();
            let secret: String = password.chars().filter(|c| !is_skipped(*c)).collect();
            proptest::prop_assert!(secret.is_empty() || !bare.contains(&secret), "{}", told);
        }
    }
}
