//! Which refusals are the same: a reply without what differs from one message to the next. Pure.
//!
//! Two refusals are of one kind when stage, code, enhanced code and the words are the same. Addresses,
//! domains, numbers, ids, quotations and links are no words. Any language and any bytes will do: the
//! words are compared, not understood. What they and the enhanced code suggest is a [`Prior`] and no more.

use std::fmt::Write as _;

use crate::deliver::{Reply, Stage};

/// Words of a reply that are kept for people, in bytes.
const SAMPLE: usize = 96;
/// A word that is longer than this and has capitals inside is an id.
const ID: usize = 12;

/// What a refusal seems to be about before anything was observed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Prior {
    /// The words or the code speak of the pace.
    Pace,
    /// Nothing points anywhere.
    #[default]
    Open,
    /// The enhanced code speaks of an address, a mailbox or the message (X.1, X.2, X.6 of RFC 3463).
    Else,
}

/// A kind of refusal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Signature {
    /// Of stage, codes and words; the same in every run and version.
    pub hash: u64,
    /// Of stage and codes only: for replies whose words never repeat.
    pub family: u64,
    /// Said of one recipient, so recipients are counted and not messages.
    pub of_recipient: bool,
    /// It ends the connection (421): said on one that has carried something it is not counted, so the shares of
    /// senders say little.
    pub closes: bool,
    /// For people: the stage, the codes and the words, nothing of the message.
    pub sample: String,
    /// What it suggests.
    pub prior: Prior,
}

impl Signature {
    /// Of a reply; `strip` are words that belong to the message (local parts and the like), which a reply
    /// may repeat without an `@`.
    pub fn of(stage: Stage, reply: &Reply, strip: &[&str]) -> Signature {
        let words = words(&reply.text, strip);
        let mut sample = format!("{stage} {}", reply.code);
        if let Some((class, subject, detail)) = reply.enhanced {
            let _ = write!(sample, " {class}.{subject}.{detail}");
        }
        let family = fnv(fnv(OFFSET, sample.as_bytes()), b"\n");
        let hash = fnv(family, words.as_bytes());
        if !words.is_empty() {
            sample.push(' ');
            let end = (0..=words.len().min(SAMPLE)).rev().find(|at| words.is_char_boundary(*at));
            sample.push_str(words.get(..end.unwrap_or(0)).unwrap_or_default());
        }
        let (of_recipient, closes) = (stage == Stage::Rcpt, reply.code == 421);
        Signature { hash, family, of_recipient, closes, sample, prior: prior(reply, &words) }
    }
}

/// A stable 64-bit hash of a text: for witnesses, which are counted and never shown.
pub fn hash_of(text: &str) -> u64 {
    text.bytes().fold(OFFSET, |hash, byte| fnv(hash, &[byte.to_ascii_lowercase()]))
}

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a: the standard library's hash may change with every version, and this one is stored.
fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// The words of a reply that do not depend on the message, in lower case, one blank between them.
fn words(text: &str, strip: &[&str]) -> String {
    let mut out = String::new();
    let mut quoted = None;
    for word in text.split_whitespace() {
        // What is quoted or bracketed is a name, an address or an id, however many words it has.
        if let Some(end) = quoted {
            if word.contains(end) {
                quoted = None;
            }
            continue;
        }
        if let Some(end) = opens(word) {
            let inside: &str = word.get(1..).unwrap_or_default();
            quoted = (!inside.contains(end)).then_some(end);
            continue;
        }
        let bare = word.trim_matches(|c: char| c.is_ascii_punctuation());
        if bare.is_empty() || varies(word, bare) || strip.iter().any(|other| other.eq_ignore_ascii_case(bare)) {
            continue;
        }
        if !out.is_empty() {
            out.push(' ');
        }
        out.extend(bare.chars().flat_map(char::to_lowercase));
    }
    out
}

/// The end of what `word` opens.
fn opens(word: &str) -> Option<char> {
    match word.chars().next()? {
        '"' => Some('"'),
        '<' => Some('>'),
        '[' => Some(']'),
        '{' => Some('}'),
        // An apostrophe in front of a word opens a quotation only if one ends it.
        '\'' if word.len() > 1 && word.trim_end_matches(['.', ',', ';', ':']).ends_with('\'') => Some('\''),
        _ => None,
    }
}

/// Whether a word is an address, a domain, a number, a link or an id.
fn varies(word: &str, bare: &str) -> bool {
    let inner_capital = || bare.chars().skip(1).any(char::is_uppercase) && bare.chars().any(char::is_lowercase);
    word.contains(['@', '=', '\\'])
        || bare.contains("//")
        || bare.chars().any(char::is_numeric)
        || is_domain(bare)
        || bare.len() >= ID && (inner_capital() || bare.contains(['+', '/', '_']))
}

fn is_domain(word: &str) -> bool {
    let mut labels = word.split('.');
    let fine = |label: &str| label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') && label.len() > 1;
    word.contains('.') && labels.all(fine)
}

fn prior(reply: &Reply, words: &str) -> Prior {
    const PACE: [&str; 8] =
        ["too many", "too much", "rate", "try again later", "throttl", "frequency", "slow down", "too fast"];
    match reply.enhanced {
        Some((_, 1 | 2 | 6, _)) => Prior::Else,
        Some((_, 3, 2) | (_, 4, 5) | (_, 7, 28)) => Prior::Pace,
        _ if PACE.iter().any(|words_of| words.contains(words_of)) => Prior::Pace,
        _ => Prior::Open,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Signature {
        Signature::of(Stage::Mail, &Reply { code: 451, enhanced: Some((4, 7, 1)), text: text.into() }, &["bob"])
    }

    #[test]
    fn what_belongs_to_the_message_makes_no_difference() {
        let same = [
            "Try again later, <a@b.example> (in 300 seconds) id=4f2a.91 at 10:22:01",
            "try again LATER, <c.d@e.example> (in 5 seconds) id=77 at 23:01:59",
            "Try again later bob, \"any thing quoted\" in [192.0.2.7] seconds, host mx.example.org; at 2001:db8::1",
            "Try again later: (in seconds) xQzaBcDeFgHiJ at https://help.example/x",
        ];
        let hashes: Vec<u64> = same.iter().map(|text| of(text).hash).collect();
        assert_eq!(hashes[0], hashes[1]);
        assert_eq!(of(same[0]).sample, "MAIL 451 4.7.1 try again later in seconds at");
        assert_eq!(of(same[2]).sample, "MAIL 451 4.7.1 try again later in seconds host at");
        assert_eq!(hashes[0], hashes[3]);
        assert_ne!(hashes[0], of("Come back tomorrow").hash);
        assert_eq!(of("x").family, of("y").family);
    }

    #[test]
    fn stage_and_codes_are_part_of_it_and_bare_codes_will_do() {
        let reply = |code, enhanced| Reply { code, enhanced, text: String::new() };
        let a = Signature::of(Stage::Mail, &reply(451, None), &[]);
        let b = Signature::of(Stage::Rcpt, &reply(451, None), &[]);
        let c = Signature::of(Stage::Mail, &reply(450, None), &[]);
        assert!(a.hash != b.hash && a.hash != c.hash && b.of_recipient && !a.of_recipient);
        assert_eq!((a.sample.as_str(), a.prior), ("MAIL 451", Prior::Open));
    }

    #[test]
    fn words_and_codes_only_suggest() {
        let said = |enhanced, text: &str| {
            Signature::of(Stage::Rcpt, &Reply { code: 450, enhanced, text: text.into() }, &[]).prior
        };
        assert_eq!(said(Some((4, 2, 2)), "Mailbox full: too many messages"), Prior::Else);
        assert_eq!(said(None, "too many messages"), Prior::Pace);
        assert_eq!(said(Some((4, 4, 5)), ""), Prior::Pace);
        assert_eq!(said(None, "请稍后重试"), Prior::Open);
    }

    proptest::proptest! {
        /// Whatever a server says: bounded, printable, and the same for other numbers.
        #[test]
        fn any_text_will_do(text in "\\PC{0,300}", a in 0u32..1_000_000, b in 0u32..1_000_000) {
            let (one, other) = (of(&format!("{a} {text}")), of(&format!("{b} {text}")));
            proptest::prop_assert!(one.sample.len() <= SAMPLE + 40);
            proptest::prop_assert_eq!(one, other);
        }
    }
}
