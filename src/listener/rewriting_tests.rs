//! `[[rewrite]]` in messages as they come in, in whatever pieces.

use proptest::prelude::*;

use crate::listener::draft::Refusal;
use crate::listener::draft::tests::{RECEIVED, build_rewriting};
use crate::mail::CHUNK;

const LAN: &str = "hostname = 'relay.example'\n[[rewrite]]\naddress = '*@*.lan'\nto = '*@shop.example'\n\
                   [[rewrite]]\naddress = 'root@relay.example'\nto = 'ops@shop.example'\n";
const KEPT: &str =
    "hostname = 'relay.example'\n[[rewrite]]\naddress = '*'\nto = 'web@shop.example'\nkeep_as_reply_to = true\n";
const REPLIES: &str = "hostname = 'relay.example'\n[[rewrite]]\naddress = '*@*.lan'\nto = 'web@shop.example'\nheader = false\n\
                       envelope = false\nreply_to = true\n";
const REST: &str = "Date: x\r\nMessage-ID: <1@b>\r\n";

/// What is stored behind the `Received:` field, in one piece, in the pieces of a byte, and line by line.
fn stored(config: &str, content: &str) -> String {
    let pieces = |parts: &[&[u8]]| build_rewriting(config, parts).map(|(finished, whole)| (finished.traits, whole));
    let (traits, whole) = pieces(&[content.as_bytes()]).expect("taken");
    let bytes: Vec<&[u8]> = content.as_bytes().chunks(1).collect();
    let lines: Vec<&[u8]> = content.split_inclusive('\n').map(str::as_bytes).collect();
    assert_eq!(pieces(&bytes), Ok((traits, whole.clone())), "byte by byte");
    assert_eq!(pieces(&lines), Ok((traits, whole.clone())), "line by line");
    String::from_utf8(whole).expect("UTF-8").strip_prefix(RECEIVED).expect("its field").to_owned()
}

#[test]
fn the_fields_that_people_see_have_the_other_address() {
    for (from, now) in [
        ("From: mfp@copy.lan\r\n", "From: mfp@shop.example\r\n"),
        (
            "from : \"Copier\"\r\n <mfp@copy.lan>,\r\n\tjo@x.example\r\n",
            "from : \"Copier\"\r\n <mfp@shop.example>,\r\n\tjo@x.example\r\n",
        ),
        ("Sender: a@b.lan\r\nFrom: c@x.example\r\n", "Sender: a@shop.example\r\nFrom: c@x.example\r\n"),
        ("From: a@b.lan\r\nFrom: c@d.lan\r\n", "From: a@shop.example\r\nFrom: c@shop.example\r\n"),
        ("From: root\r\n", "From: ops@shop.example\r\n"),
        ("Bcc: x@y\r\nFrom: a@b.lan\r\nBcc: y@z\r\n", "From: a@shop.example\r\n"),
        ("Resent-From: a@b.lan\r\nFrom: x@y\r\n", "Resent-From: a@shop.example\r\nFrom: x@y\r\n"),
        // Nobody's business here.
        ("To: a@b.lan\r\nReply-To: a@b.lan\r\nFrom: x@y\r\n", "To: a@b.lan\r\nReply-To: a@b.lan\r\nFrom: x@y\r\n"),
        ("From: \"a@b.lan\" <x@y>\r\n", "From: \"a@b.lan\" <x@y>\r\n"),
    ] {
        for (before, behind) in [("", REST), (REST, "")] {
            for body in ["\r\nFrom: a@b.lan\r\n", "no field From: a@b.lan\r\n", ""] {
                let empty = if body.starts_with("no") { "\r\n" } else { "" };
                let content = format!("{before}{from}{behind}{body}");
                assert_eq!(stored(LAN, &content), format!("{before}{now}{behind}{empty}{body}"), "{content}");
            }
        }
    }
}

#[test]
fn what_from_was_can_be_kept_for_answers() {
    let of = |header: &str| stored(KEPT, &format!("{header}{REST}\r\nhi\r\n"));
    let kept = "From: web@shop.example\r\nDate: x\r\nMessage-ID: <1@b>\r\nReply-To: <jo@visitor.example>\r\n\r\nhi\r\n";
    assert_eq!(of("From: jo@visitor.example\r\n"), kept);
    // There is one already, wherever it stands, or From was right.
    for (header, now) in [
        ("From: jo@v.example\r\nReply-To: x@y\r\n", "From: web@shop.example\r\nReply-To: x@y\r\n"),
        ("reply-to: x@y\r\nFrom: jo@v.example\r\n", "reply-to: x@y\r\nFrom: web@shop.example\r\n"),
        ("From: web@shop.example\r\n", "From: web@shop.example\r\n"),
        // A group says that nobody is to answer.
        ("From: jo@v.example\r\nReply-To: none:;\r\n", "From: web@shop.example\r\nReply-To: none:;\r\n"),
    ] {
        assert_eq!(of(header), format!("{now}{REST}\r\nhi\r\n"));
    }
    // An empty one is none, before From and behind it.
    assert_eq!(of("From: jo@visitor.example\r\nReply-To: \r\n"), kept);
    assert_eq!(of("reply-to:\r\n \r\nFrom: jo@visitor.example\r\n"), kept);
    // All authors, those too that stay.
    let of_staff = "hostname = 'relay.example'\n[[rewrite]]\naddress = '*@v.example'\nto = 'web@shop.example'\nkeep_as_reply_to = true\n\
                    [[rewrite]]\naddress = '*@*.lan'\nto = '*@shop.example'\n";
    let from = "From: Jo <jo@v.example>, root, \"B\" <b@x.lan>, ann@v.example, c@y.example\r\n";
    let now = "From: Jo <web@shop.example>, root, \"B\" <b@shop.example>, web@shop.example, c@y.example\r\n";
    let answers = "Reply-To: <jo@v.example>,\r\n <root@relay.example>,\r\n <b@shop.example>,\r\n <ann@v.example>,\r\n <c@y.example>\r\n";
    assert_eq!(stored(of_staff, &format!("{from}{REST}\r\n")), format!("{now}{REST}{answers}\r\n"));
    assert_eq!(
        stored(REPLIES, &format!("From: a@b.lan\r\nReply-To: c@d.lan\r\n{REST}\r\n")),
        format!("From: a@b.lan\r\nReply-To: web@shop.example\r\n{REST}\r\n")
    );
}

/// A field is held back until it is whole, and no more than that.
#[test]
fn a_field_without_end_is_refused_and_one_between_chunks_is_found() {
    let folds = " (x)\r\n".repeat(20_000);
    let endless = build_rewriting(LAN, &[format!("From: a@b.lan\r\n{folds}\r\n").as_bytes()]);
    assert_eq!(endless.err(), Some(Refusal::HeaderTooLarge));
    let others = "X-A: b\r\n".repeat(CHUNK / 8);
    for cut in [0, 1, 7, 8, 9, 40] {
        let before = &others[..others.len() - 8 * cut];
        let content = format!("{before}From: \"Copier\"\r\n <mfp@copy.lan>\r\n{others}{REST}\r\nhi\r\n");
        let now = content.replace("mfp@copy.lan", "mfp@shop.example");
        let (_, whole) = build_rewriting(LAN, &content.as_bytes().chunks(1000).collect::<Vec<_>>()).expect("taken");
        assert_eq!(String::from_utf8(whole).expect("UTF-8"), format!("{RECEIVED}{now}"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    /// The pieces in which it comes make no difference, and a body never changes.
    #[test]
    fn pieces_make_no_difference(
        content in "((From|Bcc|Sender|To|X):[a @.lnb<>\"(,]{0,12}\r\n|[ \t][a@b.ln>\"]{0,5}\r\n|no field\r\n){0,8}(\r\nFrom: a@b[.]lan\r\n)?",
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let bytes = content.as_bytes();
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([0, bytes.len()]).collect();
        at.sort_unstable();
        let parts: Vec<&[u8]> = at.windows(2).map(|two| &bytes[two[0]..two[1]]).collect();
        let whole = build_rewriting(LAN, &[bytes]).map(|(_, whole)| whole);
        prop_assert_eq!(build_rewriting(LAN, &parts).map(|(_, whole)| whole), whole.clone());
        if let Some((_, body)) = content.split_once("\r\n\r\n").filter(|_| !content.starts_with("\r\n")) {
            prop_assert!(whole.expect("taken").ends_with(body.as_bytes()));
        }
    }
}
