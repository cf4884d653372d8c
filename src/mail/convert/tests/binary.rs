//! Messages that were announced as BINARYMIME: for a host that takes lines only every part is made of lines, and
//! decodes to the octets that it had; for one that takes octets none of them is touched.

use std::io::Write;
use std::process::Command;

use bytes::Bytes;
use mail_parser::{MessageParser, PartType};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::*;
use crate::deliver::encode::Encoder;
use crate::mail::binary::BinaryScan;

const LINES: Hop = Hop { octets: Octets::NotTaken, ..SEVEN_BIT };
const OCTETS: Hop = Hop { octets: Octets::Taken, ..SEVEN_BIT };

/// The traits of a message whose header section has CRLF line ends, as a listener stores it.
fn traits(body: &[u8]) -> BodyTraits {
    let mut found = BinaryScan::default();
    found.push(body);
    BodyTraits { binary: found.finish(), ..scan(body) }
}

/// What arrives of this by DATA. Nothing that the last lock of the wire would have to mend may be in it.
fn over_data(body: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::for_data();
    let mut wire = encoder.encode(Bytes::copy_from_slice(body)).to_vec();
    wire.extend_from_slice(&encoder.finish());
    let mut received = Vec::new();
    for line in wire.strip_suffix(b".\r\n").expect("a dot line").split_inclusive(|b| *b == b'\n') {
        assert_ne!(line, b".\r\n", "a second end of the data");
        received.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
    }
    let ended = if body.is_empty() || body.ends_with(b"\r\n") { body.to_vec() } else { [body, b"\r\n"].concat() };
    assert_eq!(received.escape_ascii().to_string(), ended.escape_ascii().to_string(), "mended by the wire");
    assert!(!received.contains(&0), "a NUL");
    received
}

/// What a host without BINARYMIME gets; `None`: the message was refused, for this reason.
fn sent(body: &[u8], eight_bit: bool) -> Result<Vec<u8>, String> {
    let hop = Hop { eight_bit, ..LINES };
    let before = traits(body);
    let made = match convert(body, before, hop) {
        Conversion::Converted { recipe, size, traits } => {
            let made = recipe.whole(body).expect("counted");
            assert_eq!((size, traits), (made.len() as u64, scan(&made)));
            made
        }
        Conversion::NotNeeded => body.to_vec(),
        Conversion::Refused { enhanced: "5.6.3", text } => return Err(text),
        other => panic!("{other:?}"),
    };
    if !eight_bit {
        assert!(made.is_ascii(), "{}", made.escape_ascii());
    }
    Ok(over_data(&made))
}

fn head(fields: &str) -> String {
    format!("From: a@b.example\r\nSubject: x\r\nMIME-Version: 1.0\r\n{fields}")
}

fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string().replace("\\r\\n", "\n")
}

#[test]
fn each_part_is_encoded_as_its_content_needs_and_labelled_as_it_is() {
    let body = [
        head("Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: binary\r\n\r\n").as_bytes(),
        b"pre\namble\r\n--b\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: binary\r\n\r\n\x89PNG\r\n\x1a\n\0",
        b"\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: binary\r\n\r\n",
        "Gr\u{fc}\u{df}e\nzwei".as_bytes(),
        b"\r\n--b\r\nContent-Transfer-Encoding: binary\r\n\r\nplain\r\n",
        b"\r\n--b\r\nContent-Transfer-Encoding: BINARY\r\n\r\n",
        "l\u{ed}nea\r\n".as_bytes(),
        b"\r\n--b\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: binary\r\n\r\nSubject: in\r\n\r\na\r.\rb",
        b"\r\n--b--\r\nepi\0logue\r\n.\n.",
    ]
    .concat();
    let expected = |composite: &str, eight: &str| {
        head("")
            + &format!(
                "Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: {composite}\r\n\r\npre?amble\r\n\
                 --b\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\niVBORw0KGgoA\r\n\
                 --b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n\
                 Gr=C3=BC=C3=9Fe=0Azwei\r\n--b\r\nContent-Transfer-Encoding: 7bit\r\n\r\nplain\r\n\r\n\
                 --b\r\nContent-Transfer-Encoding: {eight}\r\n--b\r\nContent-Type: message/rfc822\r\n\
                 Content-Transfer-Encoding: {composite}\r\n\r\nSubject: in\r\nMIME-Version: 1.0\r\n\
                 Content-Type: text/plain; charset=us-ascii\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n\
                 a=0D.=0Db\r\n--b--\r\nepi?logue\r\n.?.\r\n"
            )
    };
    let eight = expected("8bit", "8bit\r\n\r\nl\u{ed}nea\r\n");
    assert_eq!(shown(&sent(&body, true).unwrap()), shown(eight.as_bytes()));
    let seven = expected("7bit", "quoted-printable\r\n\r\nl=C3=ADnea\r\n");
    assert_eq!(shown(&sent(&body, false).unwrap()), shown(seven.as_bytes()));
}

#[test]
fn content_that_ends_without_a_line_end_gets_none() {
    for (fields, content, expected) in [
        ("Content-Type: text/plain\r\n", "hello", "Content-Transfer-Encoding: quoted-printable\n\nhello=\n"),
        ("Content-Type: image/gif\r\n", "hello", "Content-Transfer-Encoding: base64\n\naGVsbG8=\n"),
        ("Content-Type: text/plain\r\n", "hello\r\n", "Content-Type: text/plain\n\nhello\n"),
        (
            "Content-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n",
            "a=20b\r\nc=\r\nd",
            "a=20b\nc=\nd=\n",
        ),
        ("Content-Type: image/gif\r\nContent-Transfer-Encoding: base64\r\n", "aGVs\nbG8=", "\n\naGVs?bG8=\n"),
    ] {
        let body = head(fields) + "\r\n" + content;
        let got = shown(&sent(body.as_bytes(), false).unwrap());
        assert!(got.ends_with(expected), "{content}: {got}");
    }
    // The mark of the line that goes on has its place within 76 columns.
    let body = head("\r\n") + &"x".repeat(76);
    let got = sent(body.as_bytes(), false).unwrap();
    assert!(got.split(|b| *b == b'\n').all(|line| line.len() <= 77), "{}", shown(&got));
}

/// Nothing of a part's header section is a field for some readers only.
#[test]
fn bare_line_ends_in_the_header_sections_of_parts_are_white_space() {
    let body = head("Content-Type: multipart/mixed;\r\n boundary=b\r\n\r\n")
        + "--b\r\nContent-Type: text/plain;\n name=\0x\rX-A: 1\nContent-Transfer-Encoding: base64\r\n\r\n\0\r\n--b--\r\n";
    let got = shown(&sent(body.as_bytes(), true).unwrap());
    assert!(
        got.contains(
            "\nContent-Type: text/plain;  name=?x X-A: 1 Content-Transfer-Encoding: base64\n\
             Content-Transfer-Encoding: quoted-printable\n\n=00\n"
        ),
        "{got}"
    );
}

#[test]
fn a_signed_part_and_a_signed_message_are_treated_as_for_hosts_without_8bitmime() {
    let signed = head("Content-Type: multipart/signed; boundary=b\r\n\r\n")
        + "--b\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: binary\r\n\r\n\0\r\n--b--\r\n";
    let dkim = "DKIM-Signature: v=1\r\n".to_owned() + &head("Content-Type: image/png\r\n\r\n") + "\0";
    for body in [signed, dkim] {
        let (body, bounce) = (body.as_bytes(), Hop { signed: SignedConversion::Bounce, ..LINES });
        let Conversion::Refused { enhanced: "5.6.3", text } = convert(body, traits(body), bounce) else {
            panic!("{}", shown(body));
        };
        assert!(text.contains("is signed"), "{text}");
        assert!(sent(body, false).is_ok());
    }
    // Only labels would change: the message is better left alone, and can be.
    let body = "DKIM-Signature: v=1\r\n".to_owned() + &head("Content-Transfer-Encoding: binary\r\n\r\nplain\r\n");
    assert_eq!(convert(body.as_bytes(), traits(body.as_bytes()), LINES), Conversion::Fold);
}

#[test]
fn what_is_beyond_the_bounds_is_refused_as_a_conversion_that_cannot_be_made() {
    let deep: String =
        (0..40).map(|n| format!("Content-Type: multipart/mixed; boundary=b{n}\r\n\r\n--b{n}\r\n")).collect();
    let text = sent((head(&deep) + "\r\n\0").as_bytes(), true).expect_err("too deep");
    assert!(text.contains("BINARYMIME") && text.contains("nested deeper than 32 levels"), "{text}");
    let field = head("X-A: ") + &"x".repeat(40_000) + "\0\r\n\r\n\0";
    let text = sent(field.as_bytes(), true).expect_err("too long");
    assert!(text.contains("the field X-A of the message itself"), "{text}");
}

#[test]
fn a_host_that_takes_octets_gets_them_whatever_the_header_needs() {
    let body =
        ["Subject: \u{fc}\r\nContent-Type: image/png\r\n\r\n".as_bytes(), b"\0\r.\n", &[b'x'; 3000], b"\r"].concat();
    let Conversion::Converted { recipe, .. } = convert(&body, traits(&body), OCTETS) else { panic!() };
    let made = recipe.whole(&body).unwrap();
    let rest = |bytes: &[u8]| bytes.split(|b| *b == 0).nth(1).unwrap().to_vec();
    assert!(made.starts_with(b"Subject: =?utf-8?q?=C3=BC?=\r\nContent-Type: image/png\r\n\r\n\0"), "{}", shown(&made));
    assert_eq!(rest(&made), rest(&body));
    let plain = [b"Subject: x\r\n\r\n".as_slice(), &[0xe9; 3000]].concat();
    assert_eq!(convert(&plain, traits(&plain), OCTETS), Conversion::NotNeeded);
}

/// A part of a made-up message.
#[derive(Clone, Debug)]
enum Part {
    Leaf { kind: &'static str, label: &'static str, content: Vec<u8> },
    Multi(Vec<Part>),
    Message(Box<Part>),
}

/// Octets that matter to readers of lines.
fn content() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => prop::sample::select(vec![&b"\r"[..], b"\n", b"\0", b".", b"\r\n", b"\r\n.\r\n", b"\n.\n", b"--", b" ", b"="])
            .prop_map(<[u8]>::to_vec),
        2 => "[a-z ]{1,12}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..8),
        1 => (900usize..1100).prop_map(|n| vec![b'x'; n]),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

fn part(kinds: &'static [&'static str]) -> impl Strategy<Value = Part> {
    let label = prop::sample::select(vec!["", "7bit", "8bit", "binary", "Binary (octets)"]);
    let leaf = (prop::sample::select(kinds.to_vec()), label, content()).prop_map(|(kind, label, content)| Part::Leaf {
        kind,
        label,
        content,
    });
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            3 => prop::collection::vec(inner.clone(), 1..4).prop_map(Part::Multi),
            // One right within another is more than the reader of this test copes with (mail-parser 0.11.9 panics).
            1 => inner.prop_map(|part| match part {
                Part::Message(_) => part,
                part => Part::Message(Box::new(part)),
            }),
        ]
    })
}

impl Part {
    /// Writes it, and notes the octets of its leaves.
    fn write(&self, number: &mut usize, out: &mut Vec<u8>, leaves: &mut Vec<Vec<u8>>) {
        match self {
            Part::Leaf { kind, label, content } => {
                out.extend_from_slice(format!("Content-Type: {kind}\r\n").as_bytes());
                if !label.is_empty() {
                    out.extend_from_slice(format!("Content-Transfer-Encoding: {label}\r\n").as_bytes());
                }
                out.extend_from_slice(b"\r\n");
                out.extend_from_slice(content);
                leaves.push(content.clone());
            }
            Part::Multi(parts) => {
                *number += 1;
                let boundary = format!("bound{number}ary");
                out.extend_from_slice(
                    format!("Content-Type: multipart/mixed; boundary={boundary}\r\nContent-Transfer-Encoding: binary\r\n\r\n")
                        .as_bytes(),
                );
                for (n, part) in parts.iter().enumerate() {
                    let before = if n == 0 { "" } else { "\r\n" };
                    out.extend_from_slice(format!("{before}--{boundary}\r\n").as_bytes());
                    part.write(number, out, leaves);
                }
                out.extend_from_slice(format!("\r\n--{boundary}--").as_bytes());
            }
            Part::Message(inner) => {
                out.extend_from_slice(b"Content-Type: message/rfc822\r\n\r\nSubject: inner\r\nMIME-Version: 1.0\r\n");
                inner.write(number, out, leaves);
            }
        }
    }

    /// As a whole message, with the octets of its leaves.
    fn whole(&self) -> (Vec<u8>, Vec<Vec<u8>>) {
        let (mut out, mut leaves) = (head("").into_bytes(), Vec::new());
        self.write(&mut 0, &mut out, &mut leaves);
        (out, leaves)
    }
}

fn decoded(message: &mail_parser::Message<'_>, out: &mut Vec<Vec<u8>>) {
    for part in &message.parts {
        match &part.body {
            PartType::Binary(content) | PartType::InlineBinary(content) => out.push(content.to_vec()),
            PartType::Message(inner) => decoded(inner, out),
            _ => {}
        }
    }
}

proptest! {
    #[test]
    fn every_part_decodes_to_its_octets(part in part(&["application/x-data", "image/png"]), eight_bit: bool) {
        let (body, leaves) = part.whole();
        let received = sent(&body, eight_bit).unwrap();
        let mut read = Vec::new();
        decoded(&MessageParser::default().parse(&received).expect("a message"), &mut read);
        prop_assert_eq!(read, leaves, "{}", shown(&received));
    }

    /// Whatever it is, what leaves is lines, and does not depend on how the message is cut.
    #[test]
    fn anything_at_all_leaves_as_lines_or_not_at_all(
        pieces in prop::collection::vec(prop_oneof![
            3 => content(),
            2 => prop::sample::select(vec![
                "Content-Type: multipart/mixed; boundary=b\r\n", "Content-Transfer-Encoding: binary\r\n", "--b\r\n",
                "--b--\r\n", "--b", "\r\n\r\n", "Content-Type: message/rfc822\r\n\r\n", "X-A: b\n c\r\n",
                "Content-Transfer-Encoding: base64\r\n", "Content-Transfer-Encoding: quoted-printable\r\n",
                "Content-Type: text/plain; boundary*=%0Ab\r\n", "--\nb\r\n",
            ]).prop_map(|s| s.as_bytes().to_vec()),
        ], 0..14),
        eight_bit: bool,
        cuts in prop::collection::vec(1usize..90, 1..6),
    ) {
        let body = [head("Content-Type: multipart/mixed; boundary=b\r\n\r\n").into_bytes(), pieces.concat()].concat();
        prop_assert!(sent(&body, eight_bit).is_ok());
        for hop in [Hop { eight_bit, ..LINES }, OCTETS] {
            let (conversion, made) = converted_in_chunks(&body, traits(&body), hop, &cuts);
            prop_assert_eq!(&conversion, &convert(&body, traits(&body), hop));
            if let Conversion::Converted { recipe, .. } = conversion {
                prop_assert_eq!(recipe.whole(&body).expect("counted"), made);
            }
        }
    }
}

/// Python's email package as another reader, which knows the octets of text too.
#[test]
fn python_decodes_every_part_to_its_octets() {
    const MESSAGES: usize = 400;
    let mut runner = TestRunner::deterministic();
    let dir = tempfile::tempdir().unwrap();
    let strategy = part(&["text/plain; charset=utf-8", "text/html", "application/x-data", "image/png"]);
    for n in 0..MESSAGES {
        let (body, leaves) = strategy.new_tree(&mut runner).unwrap().current().whole();
        let received = sent(&body, n % 2 == 0).unwrap();
        std::fs::write(dir.path().join(format!("{n}.eml")), received).unwrap();
        let mut expected = std::fs::File::create(dir.path().join(format!("{n}.parts"))).unwrap();
        for leaf in leaves {
            let line: String = leaf.iter().map(|byte| format!("{byte:02x}")).collect();
            writeln!(expected, "{line}").unwrap();
        }
    }
    let script = r#"
import email, sys
n = 0
while n < int(sys.argv[2]):
    whole = email.message_from_bytes(open('%s/%d.eml' % (sys.argv[1], n), 'rb').read())
    leaves = [p for p in whole.walk() if not p.is_multipart()]
    expected = [bytes.fromhex(line.strip()) for line in open('%s/%d.parts' % (sys.argv[1], n))]
    got = [p.get_payload(decode=True) for p in leaves]
    assert got == expected, (n, got, expected)
    labels = [str(p['content-transfer-encoding']).lower() for p in whole.walk()]
    assert not any('binary' in label for label in labels), (n, labels)
    n += 1
print(n)
"#;
    let count = MESSAGES.to_string();
    let out = Command::new("python3").arg("-c").arg(script).arg(dir.path()).arg(&count).output().expect("python3 runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), count);
}
