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

/// What stands for a secret where the configuration is printed.
pub(super) const SHOWN: &str = "<secret>";

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
        f.write_str(SHOWN)
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
    /// The mechanism to use; `None`: the best one for passwords that is offered.
    pub mechanism: Option<AuthMechanism>,
}

/// `auth.mechanism`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AuthMechanism {
    /// PLAIN (RFC 4616).
    Plain,
    /// LOGIN, which is older and written down nowhere.
    Login,
    /// SCRAM-SHA-256 (RFC 7677), without channel binding.
    ScramSha256,
    /// CRAM-MD5 (RFC 2195).
    CramMd5,
    /// XOAUTH2, of Google and Microsoft: with a token.
    XOauth2,
    /// OAUTHBEARER (RFC 7628): with a token.
    OauthBearer,
}

impl AuthMechanism {
    /// It takes a token, and no password.
    pub fn takes_token(self) -> bool {
        matches!(self, AuthMechanism::XOauth2 | AuthMechanism::OauthBearer)
    }
}

/// Finds the secrets of some credentials in a text. See the module.
#[derive(Clone, Default)]
pub struct Redactor(Arc<[Arc<Finder>]>);

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
        let finder = built.ok().map(|pieces| Arc::new(Finder { pieces, base64, beginnings }));
        Redactor(finder.into_iter().collect())
    }

    /// For a host that may have heard what either knows.
    pub fn and(&self, other: &Redactor) -> Redactor {
        let more = other.0.iter().filter(|finder| !self.0.iter().any(|known| Arc::ptr_eq(known, finder)));
        Redactor(self.0.iter().chain(more).cloned().collect())
    }

    /// The text with [`MASK`] wherever a secret, or a part of one, was.
    pub fn redact(&self, text: String) -> String {
        if self.0.is_empty() {
            return text;
        }
        let mut found = Vec::new();
        let escapes = ["%", "+", "=", "\\x"].into_iter().filter_map(|escape| View::unescaped(&text, escape));
        for view in std::iter::once(View::plain(&text)).chain(escapes) {
            found.extend(self.0.iter().flat_map(|finder| finder.find(&view, &text)));
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
#[path = "secret_tests.rs"]
mod tests;
