//! Tests of [`Draft`] against a queue that keeps spilled chunks in memory.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::clock::Clock;
use crate::listener::{Intake, Memory};
use crate::mail::{Address, Caller, IdSource, Message, NewMessage, Recipient};
use crate::queue;

/// Keeps what is spilled.
#[derive(Default)]
struct Spill(parking_lot::Mutex<std::collections::BTreeMap<u32, Bytes>>);

#[async_trait::async_trait]
impl Spool for Spill {
    fn next_id(&self, now: Timestamp) -> QueueId {
        IdSource::new(None).next(now)
    }
    async fn spill(&self, _: QueueId, index: u32, chunk: Bytes) -> Result<(), QueueError> {
        assert!(self.0.lock().insert(index, chunk).is_none());
        Ok(())
    }
    async fn unspill(&self, _: QueueId) {
        self.0.lock().clear();
    }
    async fn accept(&self, _: NewMessage) -> Result<(), QueueError> {
        Err(QueueError::Closed)
    }
    async fn chunk(&self, _: QueueId, _: u32) -> Result<Option<Bytes>, QueueError> {
        Err(QueueError::Closed)
    }
    async fn probe(&self) -> Result<(), QueueError> {
        Err(QueueError::Closed)
    }
}

#[async_trait::async_trait]
impl queue::Memory for Spill {
    async fn remember(&self, _: Vec<(String, Option<Bytes>)>) -> Result<(), QueueError> {
        Err(QueueError::Closed)
    }
    async fn swap(&self, _: Vec<queue::Swap>) -> Result<bool, QueueError> {
        Err(QueueError::Closed)
    }
    async fn recall(&self, _: &str) -> Result<Vec<(String, Bytes)>, QueueError> {
        Err(QueueError::Closed)
    }
}

/// Something to hand messages to, for tests that never get that far.
pub(crate) struct NoIntake(Spill, Arc<Memory>);

impl NoIntake {
    pub(crate) fn shared() -> Arc<dyn Intake> {
        NoIntake::with_memory(0)
    }

    pub(crate) fn with_memory(bytes: u64) -> Arc<dyn Intake> {
        Arc::new(NoIntake(Spill::default(), Memory::new(bytes)))
    }
}

#[async_trait::async_trait]
impl Intake for NoIntake {
    fn spool(&self) -> &dyn Spool {
        &self.0
    }
    fn values(&self) -> &dyn queue::Memory {
        &self.0
    }
    fn clock(&self) -> Clock {
        Clock::System
    }
    fn memory(&self) -> &Arc<Memory> {
        &self.1
    }
    async fn accept(
        &self,
        _: Message,
        _: Vec<Recipient>,
        _: Bytes,
        _: Option<Arc<str>>,
    ) -> Result<QueueId, QueueError> {
        Err(QueueError::Closed)
    }
}

static SENDER: LazyLock<Address> = LazyLock::new(|| Address::parse("me@app.example").unwrap());
static HOSTNAME: LazyLock<Arc<str>> = LazyLock::new(|| "relay.example".into());

fn trace(recipient: Option<&Address>) -> Trace<'_> {
    Trace {
        helo: "app.example",
        caller: Caller::Ip([192, 0, 2, 7].into()),
        hostname: &HOSTNAME,
        esmtp: true,
        tls: false,
        authenticated: false,
        smtputf8: false,
        sender: Some(&SENDER),
        minimal: false,
        recipient,
    }
}

const NOW: Timestamp = Timestamp(1_795_250_940_123);

fn build(parts: &[&[u8]], limit: u64) -> Result<(Finished, Vec<u8>), Refusal> {
    build_with(parts, limit, false)
}

/// `exact`: it was announced as BINARYMIME.
pub(super) fn build_with(parts: &[&[u8]], limit: u64, exact: bool) -> Result<(Finished, Vec<u8>), Refusal> {
    build_draft(Draft::new(QueueId(1), NOW, &trace(None), limit, 0, None), parts, exact)
}

/// A message to which `[[rewrite]]` of a configuration applies.
pub(in crate::listener) fn build_rewriting(config: &str, parts: &[&[u8]]) -> Result<(Finished, Vec<u8>), Refusal> {
    let config = crate::config::Config::parse(config, "x").unwrap();
    let draft = Draft::new(QueueId(1), NOW, &trace(None), 1 << 30, 0, None);
    // As sessions do: a cut may be within a line end.
    let (mut ends, mut runs) = (crate::smtp::LineEnds::new(), Vec::new());
    parts.iter().for_each(|part| ends.feed(part, |run| runs.push(run.to_vec())));
    ends.finish(|run| runs.push(run.to_vec()));
    let runs: Vec<&[u8]> = runs.iter().map(Vec::as_slice).collect();
    build_draft(draft.with_rewriting(Rewriting::of(&config.listeners[0], None)), &runs, false)
}

fn build_draft(mut draft: Draft, parts: &[&[u8]], exact: bool) -> Result<(Finished, Vec<u8>), Refusal> {
    let spill = Spill::default();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        if exact {
            draft = draft.with_exact_octets();
        }
        for part in parts {
            if exact {
                draft.push_exact(part);
            } else {
                draft.push(part);
            }
            draft.spill(&spill).await.unwrap();
        }
        let finished = match draft.finish(&spill).await.unwrap() {
            Ok(finished) => finished,
            Err(why) => {
                assert!(spill.0.lock().is_empty(), "spilled chunks of a refused message are dropped");
                return Err(why);
            }
        };
        let mut whole = finished.head.to_vec();
        let chunks = spill.0.lock();
        for (i, (index, chunk)) in chunks.iter().enumerate() {
            assert_eq!(*index as usize, i + 1);
            assert_eq!(whole.len() % CHUNK, 0, "only the last chunk may be short");
            whole.extend_from_slice(chunk);
        }
        assert_eq!(whole.len() as u64, finished.size);
        assert_eq!(whole.len().div_ceil(CHUNK).max(1), chunks.len() + 1);
        drop(chunks);
        Ok((finished, whole))
    })
}

pub(in crate::listener) const RECEIVED: &str = "Received: from app.example ([192.0.2.7])\r\n\tby relay.example with ESMTP id 0000000000001;\r\n\tSat, 21 Nov 2026 08:49:00 +0000\r\n";
const DATE: &str = "Date: Sat, 21 Nov 2026 08:49:00 +0000\r\n";
const FROM: &str = "From: <me@app.example>\r\n";
const ID: &str = "Message-ID: <0000000000001@relay.example>\r\n";

fn stored(content: &str) -> String {
    let (_, whole) = build(&[content.as_bytes()], 1 << 30).unwrap();
    let whole = String::from_utf8(whole).unwrap();
    whole.strip_prefix(RECEIVED).unwrap_or_else(|| panic!("{whole}")).to_owned()
}

#[test]
fn a_complete_message_only_gets_its_received_line() {
    let content = "From: a@b\r\nDate: x\r\nmessage-id : <1@b>\r\n\r\nHello\r\n.\r\n";
    assert_eq!(stored(content), content);
}

#[test]
fn adds_what_a_submission_lacks_and_strips_bcc() {
    assert_eq!(stored("Subject: x\r\n\r\nhi\r\n"), format!("Subject: x\r\n{FROM}{DATE}{ID}\r\nhi\r\n"));
    assert_eq!(
        stored("Bcc: a@b,\r\n\tc@d\r\nDate: x\r\nBCC: e@f\r\nbcc: g@h\r\n i@j\r\nTo: k\r\n l\r\n\r\nBcc: stays\r\n"),
        format!("Date: x\r\nTo: k\r\n l\r\n{FROM}{ID}\r\nBcc: stays\r\n")
    );
    let alternating = |bcc: &str| format!("{bcc}a: b\r\n").repeat(8000);
    assert_eq!(
        stored(&format!("{}\r\nhi\r\n", alternating("Bcc: a@b,\r\n c@d\r\n"))),
        format!("{}{FROM}{DATE}{ID}\r\nhi\r\n", alternating(""))
    );
    assert_eq!(stored("Bcc: a@b\r\n\r\n"), format!("{FROM}{DATE}{ID}\r\n"));
}

/// As Postfix writes them (and drops them).
#[test]
fn the_author_is_added_and_what_only_the_last_host_writes_is_dropped() {
    for from in ["From: a@b\r\n", "FROM : a@b\r\n", "from: a@b\r\nFrom: c@d\r\n"] {
        let content = format!("{from}Date: x\r\nMessage-ID: <1@b>\r\n\r\nhi\r\n");
        assert_eq!(stored(&content), content);
    }
    let kept = "Subject: x\r\nDate: x\r\nMessage-ID: <1@b>\r\n";
    assert_eq!(
        stored(&format!(
            "Return-Path: <a@b>\r\nreturn-path:\r\n <c@d>\r\n{kept}Content-Length: 3\r\n\r\nReturn-Path: x\r\n"
        )),
        format!("{kept}{FROM}\r\nReturn-Path: x\r\n")
    );
    let of = |sender: Option<&Address>| {
        let mut draft = Draft::new(QueueId(1), NOW, &Trace { sender, ..trace(None) }, 1 << 30, 0, None);
        draft.push(b"Subject: x\r\n\r\n");
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let finished = runtime.block_on(draft.finish(&Spill::default())).unwrap().unwrap();
        (String::from_utf8(finished.head.to_vec()).unwrap(), finished.traits.eight_bit_header)
    };
    assert!(of(None).0.contains("\r\nFrom: MAILER-DAEMON@relay.example\r\n"), "a message of a mailer");
    let utf8 = of(Some(&Address::parse("j\u{f6}@app.example").unwrap()));
    assert!(utf8.0.contains("\r\nFrom: <j\u{f6}@app.example>\r\n") && utf8.1, "{utf8:?}");
}

/// However it is folded: none of the blind recipients may be seen by the others.
#[test]
fn no_form_of_bcc_goes_on() {
    for bcc in [
        "Bcc:\r\n secret@b\r\n",
        "Bcc :\r\n\tsecret@b\r\n",
        "bCc:secret@b,\r\n \r\n secret@d\r\n",
        "Bcc: Jo\r\n <secret@b>,\r\n\t\t(x\r\n y) secret@d\r\n",
        "Resent-Bcc: secret@b\r\n",
        "Bcc:\r\n",
    ] {
        let other = "Date: x\r\nFrom: a@b\r\nMessage-ID: <1@b>\r\n";
        for content in [format!("{bcc}{other}\r\nhi\r\n"), format!("{other}{bcc}\r\nhi\r\n")] {
            assert_eq!(stored(&content), format!("{other}\r\nhi\r\n"), "{bcc:?}");
            // Byte by byte too.
            let bytes: Vec<&[u8]> = content.as_bytes().chunks(1).collect();
            let (_, whole) = build(&bytes, 1 << 30).unwrap();
            assert!(!String::from_utf8(whole).unwrap().contains("secret"), "{bcc:?}");
        }
    }
}

/// What a local user left in the spool is known by the user, whatever its envelope says.
#[test]
fn the_received_line_of_a_spooled_message_names_its_user() {
    let mut out = Vec::new();
    Trace { caller: Caller::Spool { uid: 1001 }, ..trace(None) }.write(QueueId(1), "DATE", &mut out);
    assert_eq!(out, b"Received: by relay.example (spool, from userid 1001)\r\n\tid 0000000000001;\r\n\tDATE\r\n");
}

#[test]
fn the_received_line_of_a_unix_socket_names_its_user() {
    let mut out = Vec::new();
    Trace { caller: Caller::User { uid: 1001, gid: 1 }, ..trace(None) }.write(QueueId(1), "DATE", &mut out);
    let told = "Received: from app.example (local, userid 1001)\r\n\tby relay.example with ESMTP id 0000000000001;\r\n\tDATE\r\n";
    assert_eq!(String::from_utf8_lossy(&out), told);
}

/// Those who get the mail hear nothing of who sent it.
#[test]
fn a_minimal_received_line_says_nothing_of_the_client() {
    let to = Address::parse("secret@b.example").unwrap();
    let callers = [Caller::Ip([192, 0, 2, 7].into()), Caller::Spool { uid: 1001 }, Caller::User { uid: 1001, gid: 1 }];
    for caller in callers {
        let mut out = Vec::new();
        Trace { caller, minimal: true, ..trace(Some(&to)) }.write(QueueId(1), "DATE", &mut out);
        assert_eq!(out, b"Received: by relay.example with ESMTP id 0000000000001;\r\n\tDATE\r\n");
    }
}

#[test]
fn a_body_without_a_header_survives_as_a_body() {
    assert_eq!(stored("Hello world\r\nDate: x\r\n"), format!("{FROM}{DATE}{ID}\r\nHello world\r\nDate: x\r\n"));
    assert_eq!(stored("\r\nHello\r\n"), format!("{FROM}{DATE}{ID}\r\nHello\r\n"));
    assert_eq!(stored(" Hello\r\n"), format!("{FROM}{DATE}{ID}\r\n Hello\r\n"));
    assert_eq!(stored("To: a\r\nno field\r\n"), format!("To: a\r\n{FROM}{DATE}{ID}\r\nno field\r\n"));
    assert_eq!(stored("To: a\r\n"), format!("To: a\r\n{FROM}{DATE}{ID}"));
    assert_eq!(stored(""), format!("{FROM}{DATE}{ID}"));
    assert_eq!(stored("To: a\r\n\r\nlast line"), format!("To: a\r\n{FROM}{DATE}{ID}\r\nlast line\r\n"));
    let long = "x".repeat(CHUNK + 10);
    assert_eq!(stored(&long), format!("{FROM}{DATE}{ID}\r\n{long}\r\n"));
}

#[test]
fn a_line_of_a_mailbox_file_above_the_header_becomes_a_field() {
    for from in ["From a@b Mon Sep 17 00:00:00 2001", ">From a@b  Sat Nov 21 08:49:00 2026", "From "] {
        assert_eq!(
            stored(&format!("{from}\r\nBcc: c@d\r\nDate: x\r\nSubject: y\r\n\r\nhi\r\n")),
            format!("X-Mailbox-Line: {from}\r\nDate: x\r\nSubject: y\r\n{FROM}{ID}\r\nhi\r\n")
        );
        // Nothing but text follows: it is text too.
        for rest in ["", "\r\nTo: c@d\r\n", "hi\r\nTo: c@d\r\n", " To: c@d\r\n", "From x: y\r\nTo: c@d\r\n"] {
            assert_eq!(
                stored(&format!("{from}\r\n{rest}")),
                format!("{FROM}{DATE}{ID}\r\n{from}\r\n{rest}"),
                "{from} {rest}"
            );
        }
    }
    assert_eq!(stored("From : a@b\r\nDate: x\r\n\r\n"), format!("From : a@b\r\nDate: x\r\n{ID}\r\n"));
    // Only at the very top.
    assert_eq!(stored("To: a\r\nFrom x y\r\nCc: z\r\n"), format!("To: a\r\n{FROM}{DATE}{ID}\r\nFrom x y\r\nCc: z\r\n"));
    let long = "x".repeat(CHUNK + 10);
    assert_eq!(stored(&format!("From a\r\n{long}")), format!("{FROM}{DATE}{ID}\r\nFrom a\r\n{long}\r\n"));
}

/// What the other fields mean is found behind such a line, and the line itself is looked at too.
#[test]
fn a_line_of_a_mailbox_file_hides_nothing() {
    let of = |content: &str| build(&[content.as_bytes()], 1 << 30).map(|(finished, _)| finished);
    let urgent = of("From a@b\r\nX-Priority: 1\r\n\r\n").unwrap();
    assert_eq!((urgent.priority, urgent.traits), (Some(4), BodyTraits::default()));
    assert!(of("From \u{fc}@b\r\nTo: c\r\n\r\n").unwrap().traits.eight_bit_header);
    // 16 bytes come in front of it.
    let line = |n: usize| of(&format!("From {}\r\nTo: c\r\n\r\n", "x".repeat(n))).unwrap().traits.long_line;
    assert_eq!((line(998 - 16 - 5), line(999 - 16 - 5)), (false, true));
    let loops = |n: usize| of(&format!("From a@b\r\n{}\r\n", "Received: x\r\n".repeat(n))).err();
    assert_eq!((loops(100), loops(101)), (None, Some(Refusal::Loop)));
    let content = "From a@b\r\nTo: c\r\n\r\nhi\r\n";
    let at_limit = |less: u64| build(&[content.as_bytes()], content.len() as u64 - less).err();
    assert_eq!((at_limit(0), at_limit(1)), (None, Some(Refusal::TooLarge)));
}

/// Postfix cuts such a field there, and Exim writes a question mark: what is behind a NUL is not lost here either.
#[test]
fn a_nul_in_a_field_is_a_question_mark_and_in_the_body_a_nul() {
    let whole = "From: a@b.example\r\nDate: Mon, 30 Nov 2026 00:00:00 +0000\r\nMessage-ID: <x@y>\r\n";
    for (came, is) in [
        (format!("Subject: a\0b\r\n \0\0c\r\n{whole}\r\nd\0e\r\n\0.\r\n"), "Subject: a?b\r\n ??c\r\n"),
        (format!("From x\0y Mon Nov 30\r\n{whole}\r\nd\0e\r\n\0.\r\n"), "X-Mailbox-Line: From x?y Mon Nov 30\r\n"),
    ] {
        let stored = stored(&came);
        assert!(stored.contains(&format!("{is}{whole}")), "{stored:?}");
        assert!(stored.ends_with("\r\n\r\nd\0e\r\n\0.\r\n"), "{stored:?}");
    }
    // A line with a NUL in what would be a name is no field: the body begins there.
    let stored = stored(&format!("{whole}X\0Y: z\r\nbody\r\n"));
    assert!(stored.ends_with("<x@y>\r\n\r\nX\0Y: z\r\nbody\r\n"), "{stored:?}");
}

#[test]
fn the_received_line_names_the_only_recipient_and_nothing_unsafe() {
    let to: Address = "you@example.org".parse().unwrap();
    let mut out = Vec::new();
    trace(Some(&to)).write(QueueId(1), "DATE", &mut out);
    assert!(String::from_utf8_lossy(&out).ends_with("id 0000000000001\r\n\tfor <you@example.org>; DATE\r\n"));
    let mut out = Vec::new();
    let odd =
        Trace { helo: "a(b\r\n c\u{e9}", caller: Caller::Ip("::1".parse().unwrap()), esmtp: false, ..trace(None) };
    odd.write(QueueId(1), "DATE", &mut out);
    assert!(out.starts_with(b"Received: from a?b???c? ([IPv6:::1])\r\n\tby relay.example with SMTP id"));
    let mut out = Vec::new();
    Trace { helo: "", smtputf8: true, ..trace(None) }.write(QueueId(1), "DATE", &mut out);
    assert!(out.starts_with(b"Received: from unknown ([192.0.2.7])\r\n\tby relay.example with UTF8SMTP id"));
}

/// RFC 3848, RFC 6531 §4.3.
#[test]
fn the_received_line_says_how_the_message_came() {
    for (esmtp, tls, smtputf8, with) in [
        (false, false, false, "SMTP"),
        (false, true, false, "SMTP"),
        (true, false, false, "ESMTP"),
        (true, true, false, "ESMTPS"),
        (true, false, true, "UTF8SMTP"),
        (true, true, true, "UTF8SMTPS"),
    ] {
        let mut out = Vec::new();
        Trace { esmtp, tls, smtputf8, ..trace(None) }.write(QueueId(1), "DATE", &mut out);
        let line = String::from_utf8_lossy(&out).into_owned();
        assert!(line.contains(&format!("\r\n\tby relay.example with {with} id ")), "{line}");
        // Whoever logs in speaks ESMTP, even after HELO.
        out.clear();
        Trace { esmtp, tls, smtputf8, authenticated: true, ..trace(None) }.write(QueueId(1), "DATE", &mut out);
        let with = match (smtputf8, tls) {
            (true, true) => "UTF8SMTPSA",
            (true, false) => "UTF8SMTPA",
            (false, true) => "ESMTPSA",
            (false, false) => "ESMTPA",
        };
        assert!(String::from_utf8_lossy(&out).contains(&format!(" with {with} id ")), "{with}");
    }
}

#[test]
fn refuses_loops_long_headers_and_large_messages() {
    let loops = |n: usize| format!("{}\r\n", "Received: x\r\n".repeat(n));
    assert!(build(&[loops(100).as_bytes()], 1 << 30).is_ok());
    let refused = |parts: &[&[u8]], limit| build(parts, limit).map(|(finished, _)| finished.size);
    assert_eq!(refused(&[loops(101).as_bytes()], 1 << 30), Err(Refusal::Loop));
    // Fields of kilobytes each, folded, and others between them: only whole fields count, and all of them.
    let long = |n: usize| {
        let one = format!("rEceived: x\r\n{}X-Received: y\r\n", "\tReceived: folded\r\n".repeat(100));
        format!("{}\r\n", one.repeat(n))
    };
    let few = |n: usize| {
        let mut draft = Draft::new(QueueId(1), NOW, &trace(None), 1 << 30, 0, None).with_max_hops(12);
        long(n).as_bytes().chunks(1000).for_each(|part| draft.push(part));
        draft.refusal()
    };
    assert_eq!((few(12), few(13)), (None, Some(Refusal::Loop)));
    assert!(build(&[long(100).as_bytes()], 1 << 30).is_ok());
    assert_eq!(refused(&[long(101).as_bytes()], 1 << 30), Err(Refusal::Loop));
    let header = |n: usize| format!("{}\r\n", "X: y\r\n".repeat(n));
    let most = usize::try_from(MAX_HEADER).unwrap() / 6;
    assert!(refused(&[header(most - 100).as_bytes()], 1 << 30).is_ok());
    assert_eq!(refused(&[header(most + 1).as_bytes()], 1 << 30), Err(Refusal::HeaderTooLarge));
    let line = |n: usize| format!("X: {}", "y".repeat(n));
    assert!(refused(&[line(MAX_OPEN - 3).as_bytes(), b"\r\n\r\n"], 1 << 30).is_ok());
    assert_eq!(refused(&[line(MAX_OPEN - 2).as_bytes(), b"\r\n\r\n"], 1 << 30), Err(Refusal::HeaderLineTooLong));
    let body = "x".repeat(1000);
    assert!(build(&[b"a: b\r\n\r\n", body.as_bytes()], 1008).is_ok());
    assert_eq!(refused(&[b"a: b\r\n\r\n", body.as_bytes(), b"y"], 1008), Err(Refusal::TooLarge));
    let large = vec![b'x'; 3 * CHUNK];
    assert_eq!(refused(&[b"\r\n", &large, &large], 5 * CHUNK as u64), Err(Refusal::TooLarge));
}

/// Whatever parts it comes in, and whether it starts a field or continues one.
#[test]
fn a_header_line_may_have_exactly_so_many_bytes() {
    for start in ["X: ", "Bcc: ", "X: y\r\n\t"] {
        let before = start.len() - start.rfind('\n').map_or(0, |at| at + 1);
        for (n, taken) in [(MAX_OPEN, true), (MAX_OPEN + 1, false)] {
            let text = format!("{start}{}\r\nSubject: z\r\n\r\nbody\r\n", "y".repeat(n - before));
            for part in [text.len(), n + 1, n, 4096, 1021] {
                let parts: Vec<&[u8]> = text.as_bytes().chunks(part).collect();
                let told = build(&parts, 1 << 30).map(|_| ());
                let expected = if taken { Ok(()) } else { Err(Refusal::HeaderLineTooLong) };
                assert_eq!(told, expected, "{start:?} of {n} in parts of {part}");
            }
        }
    }
}

/// A header section of many chunks goes to the queue while it comes in, and comes out as one that came at once.
#[test]
fn a_long_header_is_fixed_up_like_a_short_one() {
    let fields: Vec<String> = (0..6000)
        .map(|n| match n % 7 {
            0 => format!("Bcc: secret{n}@b.example,\r\n  secret{n}@c.example\r\n"),
            1 => format!("Return-Path: <secret{n}@b.example>\r\n"),
            _ => format!("X-{n}: {}\r\n\tfolded\r\n", "y".repeat(n % 200)),
        })
        .collect();
    let kept: String = fields.iter().filter(|field| !field.contains("secret")).map(String::as_str).collect();
    assert!(kept.len() > CHUNK * 3 / 2 && fields.concat().len() < 1 << 20, "{}", kept.len());
    let content = format!("{}\r\ntext\r\n.\r\n", fields.concat());
    for read in [1 << 20, 65_536, 4096, 1500, 999] {
        let mut parts: Vec<&[u8]> = Vec::new();
        let mut rest = content.as_bytes();
        while !rest.is_empty() {
            let at = read.min(rest.len());
            let (part, left) = rest.split_at(at - usize::from(rest.get(at) == Some(&b'\n')));
            (rest, _) = (left, parts.push(part));
        }
        let (finished, whole) = build(&parts, 1 << 30).unwrap();
        let whole = String::from_utf8(whole).unwrap();
        let expected = format!("{RECEIVED}{kept}{FROM}{DATE}{ID}\r\ntext\r\n.\r\n");
        assert!(whole == expected, "{read}: {} and {}", whole.len(), expected.len());
        assert_eq!(finished.traits, BodyTraits { leading_dot: true, ..BodyTraits::default() });
    }
    // Something of 8 bits in a chunk that has gone long since.
    let content = format!("X: \u{fc}\r\n{kept}\r\n");
    let parts: Vec<&[u8]> = content.as_bytes().chunks(5000).collect();
    assert!(build(&parts, 1 << 30).unwrap().0.traits.eight_bit_header);
}

/// What a client with memory for a long message may have in it.
#[test]
fn a_long_header_takes_no_more_memory_than_a_long_body() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let spill = Spill::default();
    let mut draft = Draft::new(QueueId(1), NOW, &trace(None), 1 << 30, 0, None);
    let mut most = 0;
    for n in 0..140 {
        let field = format!("X: {}", "y".repeat(if n % 10 == 9 { MAX_OPEN - 5 } else { 3000 }));
        for part in field.as_bytes().chunks(65_536).chain([b"\r\n".as_slice()]) {
            draft.push(part);
            most = most.max(draft.buf.capacity());
            runtime.block_on(draft.spill(&spill)).unwrap();
        }
        if draft.content() > (1 << 20) - 2 * CHUNK as u64 {
            break;
        }
    }
    assert_eq!(draft.refusal(), None);
    assert!(most <= 2 * CHUNK - CHUNK / 4, "{most}");
}

#[test]
fn notes_what_is_in_the_body() {
    let traits = |content: &[u8]| build(&[content], 1 << 30).unwrap().0.traits;
    let none = BodyTraits::default();
    let line = |n: usize| [b"\r\n".to_vec(), vec![b'x'; n], b"\r\n".to_vec()].concat();
    assert_eq!(traits(b"a: b\r\n\r\nx.y\r\n"), none);
    assert_eq!(traits(&line(998)), none);
    assert_eq!(traits(&line(999)), BodyTraits { long_line: true, ..none });
    assert_eq!(traits(b"\r\nx\r\n.y\r\n"), BodyTraits { leading_dot: true, ..none });
    assert_eq!(traits(b"\r\n.y\r\n"), BodyTraits { leading_dot: true, ..none });
    assert_eq!(traits(".a: b\r\n\r\n".as_bytes()), BodyTraits { leading_dot: true, ..none });
    assert_eq!(traits("a: ü\r\n\r\n".as_bytes()), BodyTraits { eight_bit_header: true, ..none });
    assert_eq!(traits("a: b\r\n\r\nü\r\n".as_bytes()), BodyTraits { eight_bit_body: true, ..none });
    assert_eq!(traits("Bcc: ü\r\n\r\nx\r\n".as_bytes()), none);
}

#[test]
fn chunks_are_whole_at_every_size() {
    for extra in [-300i64, -1, 0, 1] {
        for chunks in [1, 2, 3] {
            let fixed = build(&[b"\r\n"], 1 << 30).unwrap().1.len() as i64;
            let n = usize::try_from(chunks * CHUNK as i64 - fixed - 2 + extra).unwrap();
            let content = [b"\r\n".to_vec(), vec![b'x'; n], b"\r\n".to_vec()].concat();
            let parts: Vec<&[u8]> = content.chunks(60_000).collect();
            let (finished, whole) = build(&parts, 1 << 30).unwrap();
            assert_eq!(finished.size as i64, chunks * CHUNK as i64 + extra);
            assert!(whole.ends_with(&content[2..]));
        }
    }
}

/// The scheduler and the store count the length of a chunk as what it costs.
#[test]
fn a_chunk_keeps_little_more_memory_than_its_length() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut chunks = 0;
    for announced in [0, 2_000, 50_000, 200_000, 1 << 20, u64::MAX] {
        for size in [0, 100, 5_000, 40_000, 130_000, 200_000, CHUNK, CHUNK + 70_000, 3 * CHUNK + 1000] {
            for read in [1500, 4096, 65_536] {
                let spill = Spill::default();
                let mut draft = Draft::new(QueueId(1), NOW, &trace(None), 1 << 30, announced, None);
                draft.push(b"Subject: x\r\n\r\n");
                for part in vec![b'x'; size].chunks(read) {
                    draft.push(part);
                    runtime.block_on(draft.spill(&spill)).unwrap();
                }
                let finished = runtime.block_on(draft.finish(&spill)).unwrap().unwrap();
                drop(draft);
                let spilled = std::mem::take(&mut *spill.0.lock());
                for chunk in spilled.into_values().chain([finished.head]) {
                    let len = chunk.len();
                    let capacity = chunk.try_into_mut().expect("the only owner").capacity();
                    assert!(capacity <= len + len / 4 + 1024, "{announced} {size} {read}: {capacity} for {len}");
                    chunks += 1;
                }
            }
        }
    }
    assert!(chunks > 6 * 9 * 3, "{chunks}");
}

/// Content with CRLF line ends as the readers of `smtp::dot` give it.
fn content() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(
        prop_oneof![
            Just("Bcc: x"),
            Just("From a b"),
            Just(" y"),
            Just("Date: z"),
            Just(""),
            Just(".dot"),
            Just("text"),
            Just("Message-Id: <a>"),
            Just("\u{e9}")
        ],
        0..12,
    )
    .prop_map(|lines| lines.iter().flat_map(|l| format!("{l}\r\n").into_bytes()).collect())
}

proptest! {
    #[test]
    fn any_split_stores_the_same(content in content(), cuts in prop::collection::vec(0usize..100, 0..6)) {
        let mut cuts: Vec<usize> = cuts.iter().map(|c| c % (content.len() + 1)).collect();
        // A line end comes whole.
        cuts.retain(|at| content.get(*at) != Some(&b'\n'));
        cuts.sort_unstable();
        cuts.push(content.len());
        let mut from = 0;
        let parts: Vec<&[u8]> = cuts.iter().map(|to| { let part = &content[from..*to]; from = *to; part }).collect();
        let (a, whole) = build(&[&content], 1 << 30).unwrap();
        let (b, pieces) = build(&parts, 1 << 30).unwrap();
        prop_assert_eq!(whole, pieces);
        prop_assert_eq!(a.traits, b.traits);
    }
}
