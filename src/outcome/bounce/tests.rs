//! DSNs are read back with mail-parser and with Python's email package.

use std::process::Command;

use bytes::Bytes;
use mail_parser::{MessageParser, MimeHeaders, PartType};
use proptest::prelude::*;

use super::*;
use crate::mail::CHUNK;
use crate::mail::Orcpt;

const NOW: Timestamp = Timestamp(1_795_250_940_123);
const HOST: &str = "relay.example.com";

const STORED: &str = "Received: from app\r\nFrom: Ann <ann@shop.example>\r\nMessage-ID: <1@shop.example>\r\n\
    Subject: Your order\r\n\r\nHello\r\n.dot\r\n";

fn message(sender: Option<&str>, stored: &[u8]) -> Message {
    Message {
        id: QueueId(1_790_000_000_000 << 20),
        received: Timestamp(1_790_000_000_000),
        envelope: Envelope { reverse_path: sender.map(|s| Address::parse(s).unwrap()), ..Envelope::default() },
        origin: Origin::Local,
        size: stored.len() as u64,
        traits: scan(stored),
    }
}

fn recipient(address: &str) -> Recipient {
    Recipient::new(Address::parse(address).unwrap())
}

fn item(recipient: &Recipient, action: Action) -> Item<'_> {
    Item {
        recipient,
        action,
        status: (5, 1, 1),
        diagnostic: Some(Diagnostic::Local("no answer")),
        remote_mta: Some("mx.example.net"),
        last_attempt: Some(NOW),
        will_retry_until: Some(NOW),
    }
}

fn write(original: &Message, stored: &[u8], items: &[Item<'_>]) -> Option<Dsn> {
    dsn(original, stored, items, HOST, QueueId((1_795_250_940_123 << 20) + 7), NOW)
}

/// Checks what holds for every DSN; returns its three parts, decoded.
fn parts(dsn: &Dsn) -> Vec<(String, String)> {
    assert_eq!(dsn.message.envelope.reverse_path, None);
    assert_eq!(dsn.recipient.notify, Notify::NEVER);
    assert_eq!(dsn.message.origin, Origin::Dsn);
    assert_eq!(dsn.message.size, dsn.body.len() as u64);
    assert_eq!(dsn.message.traits, scan(&dsn.body));
    assert_eq!(dsn.message.split(&dsn.body).collect::<Vec<_>>().concat(), dsn.body);
    assert_eq!(dsn.message.split(&dsn.body).count(), dsn.message.chunks() as usize);
    assert!(!dsn.message.traits.long_line);
    assert_eq!(dsn.message.traits.eight_bit_header, dsn.message.envelope.smtputf8);
    let text = String::from_utf8_lossy(&dsn.body);
    assert!(!text.replace("\r\n", "").contains(['\r', '\n']), "a bare CR or LF");

    let parsed = MessageParser::default().parse(&dsn.body).expect("a message");
    let top = parsed.content_type().expect("a content type");
    assert_eq!((top.ctype(), top.subtype()), ("multipart", Some("report")));
    assert_eq!(top.attribute("report-type"), Some("delivery-status"));
    let names: Vec<&str> = parsed.headers().iter().map(|h| h.name.as_str()).collect();
    let boundary = top.attribute("boundary").expect("a boundary");
    // Our own split, by whole lines as a strict reader does it.
    assert_eq!(text.matches(&format!("\r\n--{boundary}\r\n")).count(), 3);
    assert_eq!(text.matches(boundary).count(), 5);
    let PartType::Multipart(children) = &parsed.root_part().body else { panic!("no parts") };
    assert_eq!(children.len(), 3);
    for name in ["Date", "From", "To", "Subject", "Message-ID", "MIME-Version", "Content-Type", "Auto-Submitted"] {
        assert_eq!(names.iter().filter(|n| n.eq_ignore_ascii_case(name)).count(), 1, "{name} in {names:?}");
    }
    assert!(names.len() <= 10, "{names:?}");
    children
        .iter()
        .map(|id| {
            let part = parsed.part(*id).expect("a part");
            let kind = part.content_type().expect("a content type");
            let content = match &part.body {
                PartType::Message(m) => String::from_utf8_lossy(
                    &dsn.body[m.root_part().offset_header as usize..m.root_part().offset_end as usize],
                )
                .into_owned(),
                _ => String::from_utf8_lossy(part.contents()).into_owned(),
            };
            (format!("{}/{}", kind.ctype(), kind.subtype().unwrap_or("")), content)
        })
        .collect()
}

fn kinds(parts: &[(String, String)]) -> Vec<&str> {
    parts.iter().map(|p| p.0.as_str()).collect()
}

#[test]
fn one_report_about_all_recipients_with_every_field() {
    let mut original = message(Some("ann@shop.example"), STORED.as_bytes());
    original.envelope.envid = Some("QQ 314".into());
    let mut bob = recipient("bob@example.com");
    bob.orcpt = Some(Orcpt { kind: "rfc822".into(), address: "robert@example.org".into() });
    let asks = Notify { given: true, delay: true, ..Notify::default() };
    let eve = Recipient { notify: asks, ..recipient("eve@example.net") };
    let reply = Reply { code: 550, enhanced: Some((5, 1, 1)), text: "No such user".into() };
    let failed = Item { diagnostic: Some(Diagnostic::Smtp(&reply)), ..item(&bob, Action::Failed) };
    let delayed = Item { status: (4, 4, 1), remote_mta: None, last_attempt: None, ..item(&eve, Action::Delayed) };
    let dsn = write(&original, STORED.as_bytes(), &[failed, delayed]).unwrap();
    assert!(dsn.body.is_ascii());
    assert_eq!(dsn.recipient.address.as_str(), "ann@shop.example");
    let parts = parts(&dsn);
    assert_eq!(kinds(&parts), ["text/plain", "message/delivery-status", "text/rfc822-headers"]);
    assert_eq!(
        parts[1].1.trim_end(),
        format!(
            "Original-Envelope-Id: QQ 314\r\nReporting-MTA: dns; relay.example.com\r\nX-Queue-Id: {}\r\n\
             Arrival-Date: Mon, 21 Sep 2026 14:13:20 +0000\r\n\r\n\
             Original-Recipient: rfc822; robert@example.org\r\nFinal-Recipient: rfc822; bob@example.com\r\n\
             Action: failed\r\nStatus: 5.1.1\r\nRemote-MTA: dns; mx.example.net\r\n\
             Diagnostic-Code: smtp; 550 5.1.1 No such user\r\nLast-Attempt-Date: Sat, 21 Nov 2026 08:49:00 +0000\r\n\r\n\
             Final-Recipient: rfc822; eve@example.net\r\nAction: delayed\r\nStatus: 4.4.1\r\n\
             Diagnostic-Code: x-mailweir; no answer\r\nWill-Retry-Until: Sat, 21 Nov 2026 08:49:00 +0000",
            original.id
        )
    );
    assert_eq!(parts[2].1.trim_end(), STORED.split("\r\n\r\n").next().unwrap());
    let text = &parts[0].1;
    for say in [
        "  <bob@example.com>\r\n    The mail server mx.example.net said: 550 5.1.1 No such user\r\n",
        "check the address for typing errors",
        "  <eve@example.net>\r\n    Reason: no answer\r\n    We keep trying until Sat, 21 Nov 2026 08:49:00 +0000.",
        "THIS\r\nIS ONLY A WARNING: you do not need to send it again.",
    ] {
        assert!(text.contains(say), "{say:?} not in {text}");
    }
    assert!(text.lines().all(|l| l.len() <= 76), "{text}");
    let top = String::from_utf8_lossy(&dsn.body);
    assert!(top.contains("\r\nIn-Reply-To: <1@shop.example>\r\nReferences: <1@shop.example>\r\n"), "{top}");
    assert!(
        top.contains("\r\nFrom: Mail Delivery System <MAILER-DAEMON@relay.example.com>\r\nTo: <ann@shop.example>\r\n")
    );
}

#[test]
fn nobody_is_told_who_does_not_want_to_know() {
    let bob = recipient("bob@example.com");
    let items = [item(&bob, Action::Failed)];
    assert!(write(&message(None, b"A: b\r\n\r\n"), b"A: b\r\n\r\n", &items).is_none(), "a DSN about a DSN");
    let original = message(Some("ann@shop.example"), STORED.as_bytes());
    for (bits, failed, delayed, relayed) in [
        (Notify::default(), true, false, false),
        (Notify::NEVER, false, false, false),
        (Notify { success: true, ..Notify::NEVER }, false, false, true),
        (Notify { failure: true, ..Notify::NEVER }, true, false, false),
        (Notify { delay: true, ..Notify::NEVER }, false, true, false),
    ] {
        let bob = Recipient { notify: bits, ..bob.clone() };
        for (action, wanted) in [(Action::Failed, failed), (Action::Delayed, delayed), (Action::Relayed, relayed)] {
            let got = write(&original, STORED.as_bytes(), &[item(&bob, action)]);
            assert_eq!(got.is_some(), wanted, "{bits:?} {action:?}");
        }
    }
    // Of several, only those who want it are named.
    let quiet = Recipient { notify: Notify::NEVER, ..recipient("quiet@example.com") };
    let dsn = write(&original, STORED.as_bytes(), &[item(&bob, Action::Failed), item(&quiet, Action::Failed)]).unwrap();
    assert!(!String::from_utf8_lossy(&dsn.body).contains("quiet@"));
}

#[test]
fn ret_full_returns_the_message_if_it_is_a_failure_and_not_too_large() {
    let bob = recipient("bob@example.com");
    let asked = Recipient { notify: Notify { success: true, delay: true, ..Notify::default() }, ..bob.clone() };
    let full = |stored: &[u8], action| {
        let mut original = message(Some("ann@shop.example"), stored);
        original.envelope.ret = Some(Ret::Full);
        let head = &stored[..stored.len().min(CHUNK)];
        parts(&write(&original, head, &[item(&asked, action)]).unwrap())
    };
    let whole = full(STORED.as_bytes(), Action::Failed);
    assert_eq!(kinds(&whole), ["text/plain", "message/delivery-status", "message/rfc822"]);
    assert_eq!(whole[2].1.trim_end(), STORED.trim_end());
    assert!(whole[0].1.contains("Your message is attached."));
    for action in [Action::Delayed, Action::Relayed] {
        assert_eq!(full(STORED.as_bytes(), action)[2].0, "text/rfc822-headers");
    }
    let large = format!("{STORED}{}", "a line of text\r\n".repeat(20_000));
    let cut = full(large.as_bytes(), Action::Failed);
    assert_eq!(cut[2].0, "text/rfc822-headers");
    assert!(cut[0].1.replace("\r\n", " ").contains("cannot be returned whole"));

    // 8-bit bodies stay, and the DSN says so; raw 8-bit headers and long lines are converted.
    let mut original = message(Some("ann@shop.example"), b"");
    original.envelope.ret = Some(Ret::Full);
    for (stored, eight_bit) in [
        ("Subject: x\r\n\r\nGrüße\r\n".to_owned(), true),
        ("Subject: ü\r\n\r\nGrüße\r\n".to_owned(), false),
        (format!("Subject: x\r\n\r\n{}\r\n", "long ".repeat(500)), false),
    ] {
        original.size = stored.len() as u64;
        let dsn = write(&original, stored.as_bytes(), &[item(&bob, Action::Failed)]).unwrap();
        assert_eq!(parts(&dsn)[2].0, "message/rfc822");
        assert_eq!(dsn.message.traits.eight_bit_body, eight_bit, "{stored}");
        assert_eq!(dsn.message.envelope.body == BodyKind::EightBitMime, eight_bit);
        // The way back may lead through a host that takes 7-bit only.
        let seven = Hop {
            eight_bit: false,
            smtputf8: false,
            smtputf8_asked: false,
            octets: Octets::NotAnnounced,
            signed: SignedConversion::Bounce,
        };
        let mut relayed = dsn;
        match convert::convert(&relayed.body, relayed.message.traits, seven) {
            Conversion::Converted { recipe, traits, .. } => {
                let body = Bytes::from(recipe.whole(&relayed.body).unwrap());
                assert!(eight_bit && body.is_ascii());
                (relayed.message.size, relayed.message.traits, relayed.body) = (body.len() as u64, traits, body);
                let parts = parts(&relayed);
                assert_eq!(kinds(&parts), ["text/plain", "message/delivery-status", "message/rfc822"]);
            }
            other => assert!(!eight_bit && other == Conversion::NotNeeded, "{other:?}"),
        }
    }
    // A header section of 1 MB is cut.
    let huge = format!("Subject: x\r\n{}\r\nbody\r\n", "X-Pad: 0123456789\r\n".repeat(50_000));
    let original = message(Some("ann@shop.example"), huge.as_bytes());
    let dsn = write(&original, &huge.as_bytes()[..CHUNK], &[item(&bob, Action::Failed)]).unwrap();
    assert!(dsn.body.len() < HEADERS_MAX + 8192);
    assert!(parts(&dsn)[2].1.ends_with("X-Pad: 0123456789\r\n"));
}

/// RFC 8689 §5.
#[test]
fn what_requires_tls_is_returned_without_its_body_and_requires_tls() {
    let stored = b"Subject: x\r\n\r\nsecret\r\n";
    let bob = recipient("bob@example.com");
    for (tls, whole) in [(TlsWish::Required, false), (TlsWish::Optional, true), (TlsWish::Usual, true)] {
        let mut original = message(Some("ann@shop.example"), stored);
        (original.envelope.ret, original.envelope.tls) = (Some(Ret::Full), tls);
        for action in [Action::Failed, Action::Delayed, Action::Relayed] {
            let all = Notify { given: true, success: true, failure: true, delay: true };
            let bob = Recipient { notify: all, ..bob.clone() };
            let dsn = write(&original, stored, &[item(&bob, action)]).unwrap();
            let secret = memmem::find(&dsn.body, b"secret").is_some();
            assert_eq!(secret, whole && action == Action::Failed, "{tls:?} {action:?}");
            assert_eq!(dsn.message.envelope.tls == TlsWish::Required, !whole, "{tls:?}");
            assert!(!parts(&dsn)[0].1.contains("too large"), "{}", parts(&dsn)[0].1);
        }
    }
}

#[test]
fn internationalized_addresses_follow_rfc_6533() {
    let stored = "Subject: Grüße\r\n\r\nx\r\n".as_bytes();
    let bob = recipient("jörg@müller.example");
    let mut original = message(Some("ann@shop.example"), stored);
    // Not asked for: the classic types, the address in its ASCII form.
    let dsn = write(&original, stored, &[item(&bob, Action::Failed)]).unwrap();
    assert!(dsn.body.is_ascii());
    let classic = parts(&dsn);
    assert_eq!(kinds(&classic), ["text/plain", "message/delivery-status", "text/rfc822-headers"]);
    assert!(classic[1].1.contains(r"Final-Recipient: utf-8; j\x{F6}rg@m\x{FC}ller.example"), "{}", classic[1].1);
    assert!(classic[2].1.contains("Subject: Grüße"));
    // Asked for, ASCII sender: the new types, but nothing that an ASCII-only way back cannot take.
    original.envelope.smtputf8 = true;
    original.envelope.ret = Some(Ret::Full);
    let dsn = write(&original, stored, &[item(&bob, Action::Failed)]).unwrap();
    assert!(dsn.body.is_ascii() && !dsn.message.envelope.smtputf8);
    let global = parts(&dsn);
    assert_eq!(kinds(&global), ["text/plain", "message/global-delivery-status", "message/global"]);
    assert!(global[1].1.contains("Final-Recipient: utf-8; jörg@müller.example"));
    // A sender that needs SMTPUTF8 itself.
    let mut original = message(Some("änn@shop.example"), stored);
    original.envelope.smtputf8 = true;
    let dsn = write(&original, stored, &[item(&bob, Action::Failed)]).unwrap();
    assert!(dsn.message.envelope.smtputf8 && dsn.message.traits.eight_bit_header);
    assert_eq!(kinds(&parts(&dsn)), ["text/plain", "message/global-delivery-status", "message/global-headers"]);
    assert!(String::from_utf8_lossy(&dsn.body).contains("\r\nTo: <änn@shop.example>\r\n"));
}

#[test]
fn a_boundary_that_was_guessed_is_not_used() {
    let bob = recipient("bob@example.com");
    let id = QueueId((1_795_250_940_123 << 20) + 7);
    let stored = format!("Subject: x\r\n\r\n--=_dsn-{id}-0\r\n--=_dsn-{id}-1--\r\n");
    let mut original = message(Some("ann@shop.example"), stored.as_bytes());
    original.envelope.ret = Some(Ret::Full);
    let dsn = write(&original, stored.as_bytes(), &[item(&bob, Action::Failed)]).unwrap();
    assert_eq!(parts(&dsn)[2].1.trim_end(), stored.trim_end());
}

fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("\r\n\r\n".to_owned()),
        Just("\r\nBcc: victim@example.com".to_owned()),
        Just("\n.\n".to_owned()),
        Just("\r".to_owned()),
        Just("--=_dsn-".to_owned()),
        Just("\u{2028}\u{202e}\u{0}\u{7f}".to_owned()),
        Just("x".repeat(1200)),
        Just("é".repeat(700)),
        Just("  ".to_owned()),
        any::<String>(),
    ];
    proptest::collection::vec(piece, 0..6).prop_map(|v| v.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn nothing_from_outside_can_add_a_line_a_field_or_a_part(
        diagnostic in hostile(), remote in hostile(), envid in hostile(), kind in hostile(), orcpt in hostile(),
        host in hostile(), message_id in hostile(), subject in hostile(), code in 400u16..600, smtp: bool,
        utf8: bool, full: bool,
    ) {
        let stored = format!("Message-ID: {message_id}\r\nSubject: {subject}\r\n\r\nbody {subject}\r\n");
        let mut original = message(Some("ann@shop.example"), stored.as_bytes());
        original.envelope.envid = Some(envid);
        original.envelope.smtputf8 = utf8;
        original.envelope.ret = full.then_some(Ret::Full);
        let mut bob = recipient("\"b o b\"@example.com");
        bob.orcpt = Some(Orcpt { kind, address: orcpt });
        let reply = Reply { code, enhanced: None, text: diagnostic.clone() };
        let what = if smtp { Diagnostic::Smtp(&reply) } else { Diagnostic::Local(&diagnostic) };
        let items = [Item { diagnostic: Some(what), remote_mta: Some(&remote), ..item(&bob, Action::Failed) }];
        // Bare CR and LF do not occur in stored bodies.
        let stored = stored.replace("\r\n", "\u{1}").replace(['\r', '\n'], " ").replace('\u{1}', "\r\n");
        original.size = stored.len() as u64;
        let dsn = dsn(&original, stored.as_bytes(), &items, &host, QueueId(7), NOW).unwrap();
        prop_assert!(dsn.body.is_ascii() || dsn.message.traits.eight_bit_body);
        let parts = parts(&dsn);
        let status = &parts[1].1;
        let unfolded = status.replace("\r\n ", " ");
        let names: Vec<&str> = unfolded.split("\r\n").filter_map(|l| l.split_once(':')).map(|(n, _)| n).collect();
        prop_assert_eq!(&names[..], &[
            "Original-Envelope-Id", "Reporting-MTA", "X-Queue-Id", "Arrival-Date", "Original-Recipient",
            "Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code", "Last-Attempt-Date",
        ][..], "{}", status);
        prop_assert_eq!(status.trim_end().matches("\r\n\r\n").count(), 1);
    }
}

/// The fields as Python's email package reads them.
#[test]
fn python_reads_the_report() {
    let mut original = message(Some("ann@shop.example"), STORED.as_bytes());
    original.envelope.envid = Some("QQ314159".into());
    original.envelope.ret = Some(Ret::Full);
    let mut bob = recipient("bob@example.com");
    bob.orcpt = Some(Orcpt { kind: "rfc822".into(), address: "robert@example.org".into() });
    let asks = Notify { given: true, delay: true, ..Notify::default() };
    let eve = Recipient { notify: asks, ..recipient("eve@example.net") };
    let reply = Reply { code: 550, enhanced: Some((5, 7, 1)), text: "Grüße, go away ".repeat(30) };
    let items =
        [Item { diagnostic: Some(Diagnostic::Smtp(&reply)), ..item(&bob, Action::Failed) }, item(&eve, Action::Failed)];
    let dsn = write(&original, STORED.as_bytes(), &items).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &dsn.body).unwrap();
    let script = r#"
import email, email.policy, sys
m = email.message_from_binary_file(open(sys.argv[1], 'rb'), policy=email.policy.default)
assert m.get_content_type() == 'multipart/report' and m.get_param('report-type') == 'delivery-status'
assert m['auto-submitted'] == 'auto-replied' and m['to'].addresses[0].addr_spec == 'ann@shop.example', m.items()
assert m['in-reply-to'] == '<1@shop.example>' and m['date'].datetime.year == 2026
assert not m.defects and not [d for p in m.walk() for d in p.defects]
text, status, original = m.get_payload()
assert 'said: 550 5.7.1 Gr\u00fc\u00dfe, go away' in text.get_content(), text.get_content()
groups = [g for g in status.get_payload() if g.keys()]
assert len(groups) == 3, groups
assert groups[0]['Reporting-MTA'] == 'dns; relay.example.com' and groups[0]['Original-Envelope-Id'] == 'QQ314159'
assert groups[1]['Original-Recipient'] == 'rfc822; robert@example.org'
assert groups[1]['Final-Recipient'] == 'rfc822; bob@example.com'
assert groups[1]['Action'] == 'failed' and groups[1]['Status'] == '5.1.1'
assert groups[1]['Remote-MTA'] == 'dns; mx.example.net'
assert groups[1]['Diagnostic-Code'].startswith('smtp; 550 5.7.1 Gr??e, go away'), groups[1]['Diagnostic-Code']
assert groups[2]['Final-Recipient'] == 'rfc822; eve@example.net'
assert original.get_content_type() == 'message/rfc822'
assert original.get_payload(0)['subject'] == 'Your order'
assert original.get_payload(0).get_content() == 'Hello\n.dot\n'
print('ok')
"#;
    let out = Command::new("python3").arg("-c").arg(script).arg(file.path()).output().expect("python3 runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), "ok");
}

/// Whatever octets the message has, the report on it is lines, and returns them.
#[test]
fn a_binary_message_is_returned_as_lines() {
    let stored =
        b"Subject: x\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: binary\r\n\r\n\0\r.\n\r\n.\r\n\xff\n.";
    for sender in ["ann@shop.example", "j\u{f6}rg@shop.example"] {
        for ret in [Ret::Full, Ret::Headers] {
            let mut original = message(Some(sender), stored);
            original.traits.binary = true;
            original.envelope =
                Envelope { body: BodyKind::BinaryMime, smtputf8: true, ret: Some(ret), ..original.envelope };
            let bob = recipient("bob@example.net");
            let dsn = write(&original, stored, &[item(&bob, Action::Failed)]).unwrap();
            assert_ne!(dsn.message.envelope.body, BodyKind::BinaryMime);
            assert!(!dsn.message.traits.binary && !dsn.body.contains(&0));
            for line in dsn.body.split_inclusive(|b| *b == b'\n') {
                let line = line.strip_suffix(b"\r\n").expect("no bare LF");
                assert!(!line.contains(&b'\r'), "{}", line.escape_ascii());
            }
            let text = String::from_utf8_lossy(&dsn.body);
            match (ret, sender.is_ascii()) {
                (Ret::Headers, _) => assert!(!text.contains("AA0uCg0K"), "{text}"),
                // message/rfc822 is converted inside, message/global may be encoded as a whole.
                (Ret::Full, true) => assert!(text.contains("\r\n\r\nAA0uCg0KLg0K/wou"), "{text}"),
                (Ret::Full, false) => assert!(text.contains("=00=0D.=0A\r\n.\r\n=FF=0A."), "{text}"),
            }
        }
    }
}
