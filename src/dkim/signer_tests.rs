//! Signatures, checked by a verifier of the tests' own that has the whole message in memory, and that one by the
//! messages of the RFCs.

use aws_lc_rs::signature::{ED25519, RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, UnparsedPublicKey};
use proptest::prelude::*;

use super::super::Algorithm;
use super::*;

/// RFC 8463 appendix A.3.
const RFC_8463: &str = "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\r\n d=football.example.com; i=@football.example.com;\r\n q=dns/txt; s=brisbane; t=1528637909; h=from : to :\r\n subject : date : message-id : from : subject : date;\r\n bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus\r\n Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==\r\nDKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;\r\n d=football.example.com; i=@football.example.com;\r\n q=dns/txt; s=test; t=1528637909; h=from : to : subject :\r\n date : message-id : from : subject : date;\r\n bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3\r\n DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz\r\n dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=\r\nFrom: Joe SixPack <joe@football.example.com>\r\nTo: Suzie Q <suzie@shopping.example.net>\r\nSubject: Is dinner ready?\r\nDate: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\nMessage-ID: <20030712040037.46341.5F8J@football.example.com>\r\n\r\nHi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n";

/// RFC 8463 appendix A.2.
const BRISBANE: &str = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
const TEST: &str = "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB";

/// The fields of a header section, and the body.
fn parts(message: &[u8]) -> (Vec<Vec<u8>>, &[u8]) {
    let end = memchr::memmem::find(message, b"\r\n\r\n").map_or(message.len(), |at| at + 2);
    let mut fields: Vec<Vec<u8>> = Vec::new();
    for line in message[..end].split_inclusive(|b| *b == b'\n') {
        match (fields.last_mut(), line.first()) {
            (Some(last), Some(b' ' | b'\t')) => last.extend_from_slice(line),
            _ => fields.push(line.to_vec()),
        }
    }
    (fields, message.get(end + 2..).unwrap_or_default())
}

fn tag(field: &str, name: &str) -> Option<String> {
    field.split_once(':')?.1.split(';').find_map(|part| {
        let (tag, value) = part.split_once('=')?;
        (tag.trim() == name).then(|| value.split_whitespace().collect())
    })
}

/// Why the signature in field `at` of the message does not hold (RFC 6376 §6.1).
fn verify(message: &[u8], at: usize, key: &[u8]) -> Result<(), String> {
    let (fields, body) = parts(message);
    let signature = String::from_utf8(fields[at].clone()).map_err(|e| e.to_string())?;
    let tag = |name: &str| tag(&signature, name).ok_or(format!("no {name}="));
    let mut canonical = Vec::new();
    let mut state = Body::default();
    state.push(body, &mut |bytes| canonical.extend_from_slice(bytes));
    state.finish(&mut |bytes| canonical.extend_from_slice(bytes));
    if STANDARD.encode(digest::digest(&SHA256, &canonical)) != tag("bh")? {
        return Err("the body is another".into());
    }
    let mut left: Vec<&Vec<u8>> = fields.iter().collect();
    let mut signed = Vec::new();
    for name in tag("h")?.split(':') {
        let is = |field: &&Vec<u8>| {
            let name_of = field.split(|b| *b == b':').next().unwrap_or_default().trim_ascii_end();
            name_of.eq_ignore_ascii_case(name.as_bytes())
        };
        if let Some(last) = left.iter().rposition(is) {
            signed.extend(canonical::header(left.remove(last)));
        }
    }
    let value = signature.rfind("b=").ok_or("no b=")? + 2;
    let own = canonical::header(&signature.as_bytes()[..value]);
    signed.extend_from_slice(own.strip_suffix(b"\r\n").unwrap_or(&own));
    let bytes = STANDARD.decode(tag("b")?).map_err(|e| e.to_string())?;
    let holds = match tag("a")?.as_str() {
        "rsa-sha256" => {
            UnparsedPublicKey::new(&RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, key).verify(&signed, &bytes)
        }
        "ed25519-sha256" => {
            UnparsedPublicKey::new(&ED25519, key).verify(digest::digest(&SHA256, &signed).as_ref(), &bytes)
        }
        other => return Err(format!("a={other}")),
    };
    holds.map_err(|_| "the header is another".into())
}

fn keys() -> [SigningKey; 2] {
    [Algorithm::RsaSha256, Algorithm::Ed25519Sha256].map(|algorithm| SigningKey::generate(algorithm).expect("a key").0)
}

/// The message with both signatures.
fn signed(message: &[u8], piece: usize, keys: &[SigningKey; 2]) -> Vec<u8> {
    let mut signer = Signer::new();
    message.chunks(piece).for_each(|piece| signer.push(piece).expect("not too large"));
    if !signer.knows_header() {
        signer.end_header().expect("not too large");
    }
    let signature = |key, selector| Signature {
        domain: "shop.example",
        selector,
        key,
        at: 1_795_000_000,
        until: Some(1_795_604_800),
    };
    let [rsa, ed25519] = keys;
    let mut out = signer.finish(&[signature(rsa, "r1"), signature(ed25519, "e1")]).expect("signatures");
    out.extend_from_slice(message);
    out
}

fn both_hold(message: &[u8], keys: &[SigningKey; 2]) -> Result<(), String> {
    for (at, key) in keys.iter().enumerate() {
        verify(message, at, &key.public().map_err(|e| e.to_string())?).map_err(|e| format!("signature {at}: {e}"))?;
    }
    Ok(())
}

#[test]
fn the_message_of_rfc_8463_verifies_with_both_keys_and_not_when_it_is_changed() {
    for (at, key) in [BRISBANE, TEST].into_iter().enumerate() {
        let key = STANDARD.decode(key).expect("base64");
        assert_eq!(verify(RFC_8463.as_bytes(), at, &key), Ok(()));
        for (from, to) in [("dinner ready", "lunch ready"), ("lost the game", "won the game")] {
            assert!(verify(RFC_8463.replace(from, to).as_bytes(), at, &key).is_err());
        }
    }
}

#[test]
fn the_body_hash_of_rfc_8463_is_ours() {
    let (_, body) = parts(RFC_8463.as_bytes());
    let mut signer = Signer::new();
    signer.push(b"From: a@shop.example\r\n\r\n").expect("small");
    body.chunks(3).for_each(|piece| signer.push(piece).expect("small"));
    let [rsa, _] = keys();
    let signature = Signature { domain: "d.example", selector: "s", key: &rsa, at: 1, until: None };
    let field = String::from_utf8(signer.finish(&[signature]).expect("a signature")).expect("ASCII");
    assert_eq!(tag(&field, "bh").as_deref(), Some("2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8="));
    assert_eq!(tag(&field, "x"), None);
}

#[test]
fn what_is_sealed_cannot_be_added_and_the_rest_can() {
    let keys = keys();
    let message = b"Received: by x\r\nFrom: Jo <jo@shop.example>\r\nTo: a@b.example\r\nSubject: x\r\n\r\nbody\r\n";
    let sent = signed(message, 7, &keys);
    assert_eq!(both_hold(&sent, &keys), Ok(()));
    for added in ["Received: by y\r\n", "X-Spam: no\r\n", "Sender: list@l.example\r\n", "Return-Path: <>\r\n"] {
        let relayed = [added.as_bytes(), &sent].concat();
        assert_eq!(verify(&relayed, 1, &keys[0].public().expect("a key")), Ok(()), "{added}");
    }
    for name in
        ["From", "Subject", "Date", "To", "Reply-To", "Cc", "Content-Type", "List-Unsubscribe", "List-Unsubscribe-Post"]
    {
        let changed = [format!("{name}: new\r\n").as_bytes(), &sent].concat();
        let told = verify(&changed, 1, &keys[0].public().expect("a key"));
        assert_eq!(told, Err("the header is another".into()), "{name}");
    }
    let field = String::from_utf8(parts(&sent).0[0].clone()).expect("ASCII");
    assert!(field.starts_with(
        "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;\r\n\td=shop.example; s=r1;\r\n\tt=1795000000; x=1795604800;\r\n\th=From:From:"
    ));
    assert!(field.lines().all(|line| line.len() <= 78), "{field}");
}

#[test]
fn of_very_many_fields_of_a_name_the_last_are_signed() {
    let keys = keys();
    let many = "To: somebody@b.example\r\n".repeat(MOST_OF_A_NAME + 5);
    let message = format!("From: jo@shop.example\r\n{many}\r\nbody");
    let sent = signed(message.as_bytes(), 100, &keys);
    assert_eq!(both_hold(&sent, &keys), Ok(()));
    let field = String::from_utf8(parts(&sent).0[0].clone()).expect("ASCII");
    let names = tag(&field, "h").expect("h=");
    assert_eq!(names.split(':').filter(|name| *name == "To").count(), MOST_OF_A_NAME);
}

#[test]
fn a_header_section_beyond_the_bound_is_told_and_nothing_of_it_grows() {
    let line = format!("To: {}\r\n", "x".repeat(900));
    let mut signer = Signer::new();
    // Of one name few are kept.
    for _ in 0..1000 {
        signer.push(line.as_bytes()).expect("only the last ones are kept");
    }
    let mut signer = Signer::new();
    let folded = format!("\t{}\r\n", "x".repeat(900));
    signer.push(b"To: x\r\n").expect("small");
    let told = (0..1000).find_map(|_| signer.push(folded.as_bytes()).err());
    assert_eq!(told, Some(TooLarge));
    // What is not signed may be as long as it likes.
    let mut signer = Signer::new();
    signer.push(b"Received: x\r\n").expect("small");
    (0..1000).for_each(|_| signer.push(folded.as_bytes()).expect("nothing is kept"));
}

#[test]
fn the_one_from_is_told() {
    let from = |message: &[u8]| {
        let mut signer = Signer::new();
        signer.push(message).expect("small");
        signer.end_header().expect("small");
        signer.from().map(|value| String::from_utf8_lossy(value).into_owned())
    };
    assert_eq!(from(b"FROM :\r\n Jo\t<jo@x.example>\r\n\r\nFrom: other@y.example"), Ok("Jo <jo@x.example>".into()));
    assert_eq!(from(b"From: a@x.example"), Ok("a@x.example".into()));
    assert_eq!(from(b"From: a@x.example\r\nfrom: b@x.example\r\n\r\n"), Err(2));
    assert_eq!(from(b"Subject: x\r\n\r\n"), Err(0));
    assert_eq!(from(b""), Err(0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// Any message, however it comes in: white space at line ends, no body, no last line end, 8-bit bytes, folded
    /// and repeated fields.
    #[test]
    fn any_message_verifies(
        fields in prop::collection::vec(
            prop::sample::select(vec![
                &b"To: a@b.example,\r\n\tc@d.example\r\n"[..], b"Subject:  two  words \r\n", b"Subject:\r\n \r\n",
                b"X-Other: x\r\n", b"List-Unsubscribe: <https://x.example/?a=b>\r\n", b"Cc : z@y.example\r\n",
                b"Subject: \xc3\xa9t\xe9\r\n", b"DKIM-Signature: v=1; b=\r\n", b"Date: now\r\n  and\r\n\tthen\r\n",
            ]), 0..12),
        lines in prop::collection::vec(
            prop::sample::select(vec![
                &b"\r\n"[..], b"word \r\n", b"\t\r\n", b" a  b\t\tc\r\n", b".\r\n", b"\xff\xfe\r\n", b"--x",
            ]), 0..20),
        piece in 1usize..200,
        blank in any::<bool>(),
    ) {
        thread_local!(static KEYS: [SigningKey; 2] = keys());
        let blank: &[u8] = if blank || !lines.is_empty() { b"\r\n" } else { b"" };
        let message = [b"From: jo@shop.example\r\n", fields.concat().as_slice(), blank, lines.concat().as_slice()].concat();
        KEYS.with(|keys| {
            let sent = signed(&message, piece, keys);
            prop_assert_eq!(both_hold(&sent, keys), Ok(()));
            Ok(())
        })?;
    }
}
