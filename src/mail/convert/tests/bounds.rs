//! Each bound, from both sides.

use super::super::limits::*;
use super::*;

/// A message with `text` in a part, over and over.
fn shape(head: &str, part: &str, times: usize) -> Vec<u8> {
    let mut body = format!("Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: multipart/{head}; boundary=b\r\n\r\n");
    for _ in 0..times {
        body.push_str(part);
    }
    body.push_str("--b--\r\n");
    body.into_bytes()
}

fn refused(body: &[u8]) -> String {
    let long = [body, &[b'x'; 1500]].concat();
    let taken = convert(&long, scan(&long), EIGHT_BIT);
    assert!(!matches!(taken, Conversion::Refused { .. }), "{taken:?}");
    match convert(body, scan(body), SEVEN_BIT) {
        Conversion::Refused { enhanced: "5.6.0" | "5.3.4", text } => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_bound_is_named_and_a_message_just_within_it_is_converted() {
    let many = |n: usize| shape("mixed", "--b\r\n\r\né\r\n", n);
    assert!(refused(&many(MAX_PARTS)).contains("more than 2000 parts"));
    converted(&many(MAX_PARTS - 1), SEVEN_BIT);

    let fields = |n: usize| shape("mixed", &format!("--b\r\n{}\r\nx\r\n", "a:é\r\n".repeat(n)), 1);
    assert!(refused(&fields(MAX_FIELDS + 1)).contains("2000 fields"));
    converted(&fields(MAX_FIELDS), SEVEN_BIT);

    let field = format!("a:{}\r\n", format!(" {}\r\n", "x".repeat(900)).repeat(4).trim_end());
    let section = |n: usize| shape("mixed", &format!("--b\r\n{}\r\né\r\n", field.repeat(n)), 1);
    assert!(refused(&section(MAX_HEADER / field.len() + 1)).contains("2097152 bytes"));
    converted(&section(MAX_HEADER / field.len()), SEVEN_BIT);

    let field = |n: usize| shape("mixed", &format!("--b\r\nX-A:{} é\r\n\r\nx\r\n", " abcdefg".repeat(n)), 1);
    assert!(refused(&field(MAX_FIELD / 8)).contains("32768 bytes"));
    converted(&field(MAX_FIELD / 8 - 2), SEVEN_BIT);
    // One that nothing has to be done about may be longer.
    let references = format!("References: <1@x>{}\r\n\r\né\r\n", "\r\n <0123456789@x>".repeat(5000));
    converted(references.as_bytes(), SEVEN_BIT);

    let rewritten = |n: usize| shape("mixed", &format!("--b\r\nFrom: {}\r\n\r\nx\r\n", "é@x,".repeat(n)), 1);
    assert!(refused(&rewritten(6500)).contains("131072 bytes"));
    converted(&rewritten(4000), SEVEN_BIT);

    let parameters =
        |n: usize| shape("mixed", &format!("--b\r\nContent-Type: text/plain{}\r\n\r\né\r\n", "; a=b".repeat(n)), 1);
    assert!(refused(&parameters(MAX_PARAMETERS + 1)).contains("64 parameters"));
    converted(&parameters(MAX_PARAMETERS), SEVEN_BIT);
    let long_name = format!("; name={}", "n".repeat(MAX_CONTENT_TYPE));
    let kind = shape("mixed", &format!("--b\r\nContent-Type: text/plain{long_name}\r\n\r\né\r\n"), 1);
    assert!(refused(&kind).contains("4096 bytes"));

    // Raw 8-bit bytes in what is labelled quoted-printable: escaped where that stays within the bound.
    let raw = |n: usize| {
        format!("Content-Transfer-Encoding: quoted-printable\r\n\r\n{}", format!("{}\r\n", "é".repeat(400)).repeat(n))
    };
    assert!(refused(raw(2000).as_bytes()).contains("would grow"));
    converted(raw(150).as_bytes(), SEVEN_BIT);
}

/// Text that quoted-printable would triple becomes base64, but short texts stay readable.
#[test]
fn what_is_made_is_at_most_two_fifths_larger() {
    let head = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n";
    let russian = format!("{head}{}", "Здравствуйте, как дела?\r\n".repeat(4000));
    let german = format!("{head}{}", "Grüße aus dem schönen Köln, wo es heute regnet.\r\n".repeat(4000));
    for (body, encoding) in [(&russian, "base64"), (&german, "quoted-printable")] {
        let out = String::from_utf8(converted(body.as_bytes(), SEVEN_BIT)).unwrap();
        assert!(out.contains(&format!("Content-Transfer-Encoding: {encoding}\r\n\r\n")), "{}", &out[..300]);
        assert!(out.len() as u64 <= grown(body.len() as u64) + 300, "{} of {}", out.len(), body.len());
        assert!(contents(out.as_bytes()) == contents(body.as_bytes()), "it decodes to something else");
    }
    let short = "Subject: x\r\n\r\nПривет\r\n";
    assert!(converted(short.as_bytes(), SEVEN_BIT).ends_with(b"\r\n"));
    assert!(String::from_utf8(converted(short.as_bytes(), SEVEN_BIT)).unwrap().contains("quoted-printable"));
    // Many short texts add up.
    let digest = shape("digest", &format!("--b\r\n\r\n\r\n{}\r\n", "щ".repeat(300)), 900);
    let out = converted(&digest, SEVEN_BIT);
    assert!(out.len() as u64 <= grown(digest.len() as u64) + MAX_EXTRA);
}
