//! What a conversion holds, counted in bytes: however a message is built, what is in memory while it
//! is converted stays below the ticket that the relay takes for it (`TICKET`) and a chunk, and what is made is at
//! most two fifths larger, or it is refused with the bound that it is beyond.

use mailweir::config::SignedConversion;
use mailweir::mail::convert::limits::{MAX_EXTRA, PIECE, TICKET};
use mailweir::mail::convert::{Conversion, Hop, Octets, Pass, Work, scan};
use mailweir::mail::{BodyTraits, CHUNK};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Four times what may be held.
const SIZE: usize = 4 * TICKET as usize;

const HOP: Hop = Hop {
    eight_bit: false,
    smtputf8: false,
    smtputf8_asked: false,
    octets: Octets::NotAnnounced,
    signed: SignedConversion::Convert,
};

/// What came out, and the most bytes in memory besides the message itself.
struct Made {
    conversion: Conversion,
    size: u64,
    held: usize,
}

fn convert(body: &[u8], hop: Hop) -> Made {
    let traits = BodyTraits { binary: hop.octets != Octets::NotAnnounced, ..scan(body) };
    let _profiler = dhat::Profiler::builder().testing().build();
    let mut work = Work::begin(body.len() as u64, traits, hop).expect("it has to be converted");
    let conversion = loop {
        body.chunks(CHUNK).take_while(|chunk| work.push(chunk)).for_each(drop);
        match work.end_pass() {
            Pass::Again(again) => work = *again,
            Pass::Done(conversion) => break conversion,
        }
    };
    let mut made = 0;
    if let Conversion::Converted { recipe, .. } = &conversion {
        let (mut emitter, mut out) = (recipe.emitter(), Vec::new());
        for chunk in body.chunks(CHUNK) {
            let mut at = 0;
            while at < chunk.len() {
                at += emitter.push(&chunk[at..], &mut out).expect("counted before");
                // A host takes whole pieces.
                let pieces = out.len() / PIECE * PIECE;
                made += out.drain(..pieces).len() as u64;
            }
        }
        emitter.finish(&mut out).expect("counted before");
        made += out.len() as u64;
    }
    Made { conversion, size: made, held: dhat::HeapStats::get().max_bytes }
}

fn head(kind: &str) -> Vec<u8> {
    format!("Subject: q\r\nMIME-Version: 1.0\r\nContent-Type: multipart/{kind}; boundary=b\r\n\r\n").into_bytes()
}

fn filled(start: Vec<u8>, with: &[u8], end: &str) -> Vec<u8> {
    let mut body = start;
    while body.len() < SIZE {
        body.extend_from_slice(with);
    }
    body.extend_from_slice(end.as_bytes());
    body
}

fn part(fields: &str) -> Vec<u8> {
    [&head("mixed"), b"--b\r\n".as_slice(), fields.as_bytes()].concat()
}

fn nested(field: impl Fn(usize) -> String) -> Vec<u8> {
    let levels: String = (0..30).map(field).collect();
    format!("Subject: q\r\nMIME-Version: 1.0\r\n{levels}").into_bytes()
}

/// Each with a part of the bound that it is refused for; empty: it is converted.
fn shapes() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let end = "\r\n\r\né\r\n--b--\r\n";
    let deep = |n| format!("Content-Type: multipart/mixed; boundary=b{n}\r\n\r\n--b{n}\r\n");
    let message = |_| "Content-Type: message/rfc822\r\n\r\n".to_owned();
    vec![
        (
            "text that needs base64",
            filled(b"Subject: q\r\n\r\n".to_vec(), &["é".repeat(30).as_bytes(), b"\r\n"].concat(), ""),
            "",
        ),
        (
            "text that needs quoted-printable",
            filled(
                b"Subject: q\r\n\r\n".to_vec(),
                "Das ist ein langer Satz mit einem schönen Wort darin.\r\n".as_bytes(),
                "",
            ),
            "",
        ),
        ("one line", filled(b"Subject: q\r\n\r\n".to_vec(), "ein wörtchen und noch eins ".as_bytes(), ""), ""),
        ("data in one line", filled(part("Content-Type: image/png\r\n\r\n"), &[0xe9; 999], end), ""),
        ("controls", filled(b"Subject: q\r\n\r\n\xe9\r\n".to_vec(), &[&[0; 990], b"\r\n".as_slice()].concat(), ""), ""),
        ("blank lines in nested parts", filled([nested(deep), "\r\né".into()].concat(), b"\r\n", ""), ""),
        ("lone LF", filled(b"Subject: q\r\n\r\n\xe9".to_vec(), b"\n", "\r\n"), ""),
        ("lone CR", filled(b"Subject: q\r\n\r\n\xe9".to_vec(), b"\r", "x\r\n"), ""),
        ("a parameter", filled(part("Content-Disposition: attachment; filename="), b"aaaaaaaaaa", end), "header field"),
        ("words", filled(part("X-A:"), b" a", end), "header field"),
        ("folded words", filled(part("X-A:"), "\r\n é".as_bytes(), end), "header field"),
        ("fields", filled(part(""), "a:é\r\n".as_bytes(), end), "2000 fields"),
        ("parts", filled(head("mixed"), "--b\r\n\r\né\r\n".as_bytes(), "--b--\r\n"), "2000 parts"),
        ("messages", filled(head("digest"), "--b\r\n\r\né\r\n".as_bytes(), "--b--\r\n"), "2000 parts"),
        ("empty parts", filled(head("mixed"), b"--b \r\n", "\r\né\r\n--b--\r\n"), "2000 parts"),
        ("parameters of a type", filled(part("Content-Type: text/plain"), b";a=b;b*1=c", end), "header field"),
        ("comments", filled(part("From: "), b"(", end), "header field"),
        ("addresses", filled(part("From: "), "é@x,".as_bytes(), end), "header field"),
        ("angles", filled(part("From: "), "é <".as_bytes(), end), "header field"),
        (
            "messages in messages",
            filled([nested(message), "a: é\r\n".into()].concat(), b"a:b\r\n", "\r\nx\r\n"),
            "2000 fields",
        ),
        (
            "raw bytes labelled quoted-printable",
            filled(part("Content-Transfer-Encoding: quoted-printable\r\n\r\n"), "éééé\r\n".as_bytes(), end),
            "would grow",
        ),
        ("a name without a colon", filled(part(""), b"aaaaaaaaaaaaaaaa", end), ""),
    ]
}

/// The same of messages that were announced as BINARYMIME.
fn binary_shapes() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let end = "\r\n--b--\r\n";
    vec![
        ("octets in one line", filled(part("Content-Type: image/png\r\n\r\n"), &[0; 999], end), ""),
        ("octets without a part", filled(b"Subject: q\r\n\r\n".to_vec(), b"\0\r\n.\n\r", ""), ""),
        (
            "text with LF",
            filled(part("Content-Type: text/plain\r\n\r\n"), b"a line of a text with LF line ends\n", end),
            "",
        ),
        ("a preamble", filled(head("mixed"), b"\0\n\0\n", "\r\n--b\r\n\r\nx\r\n--b--"), ""),
        ("NUL in a field", filled(part("X-A: "), b"a\0", end), "header field"),
        ("bare LF in a field", filled(part("X-A: "), b"a: b\n", end), "header field"),
        (
            "octets labelled quoted-printable",
            filled(part("Content-Transfer-Encoding: quoted-printable\r\n\r\n"), b"\0\0\n\0", end),
            "would grow",
        ),
        ("octets labelled base64", filled(part("Content-Transfer-Encoding: base64\r\n\r\n"), b"AAAA\n", end), ""),
    ]
}

/// One test, since one profiler runs at a time.
#[test]
fn whatever_a_message_is_like_a_conversion_holds_no_more_than_its_ticket() {
    let binary = binary_shapes().into_iter().map(|shape| (shape, Hop { octets: Octets::NotTaken, ..HOP }));
    for ((name, body, limit), hop) in shapes().into_iter().map(|shape| (shape, HOP)).chain(binary) {
        let made = convert(&body, hop);
        let (size, most) = (body.len() as u64, TICKET as usize + CHUNK);
        println!("{name}: {size} bytes, {} made, {} held", made.size, made.held);
        assert!(made.held < most, "{name}: {} bytes held, {most} are allowed", made.held);
        match made.conversion {
            Conversion::Converted { size: counted, .. } => {
                assert_eq!(limit, "", "{name} was converted");
                assert_eq!(counted, made.size, "{name}");
                assert!(made.size <= size * 7 / 5 + MAX_EXTRA, "{name}: {} of {size} bytes", made.size);
            }
            Conversion::Refused { enhanced, text } => {
                let binary = hop.octets == Octets::NotTaken;
                assert!(if binary { enhanced == "5.6.3" } else { matches!(enhanced, "5.6.0" | "5.3.4") }, "{enhanced}");
                assert!(!limit.is_empty() && text.contains(limit), "{name}: {text}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}
