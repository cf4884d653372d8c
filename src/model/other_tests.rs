//! Where caps refuse, in which words, and the refusals that are not about the pace.

use super::tests::{CLIENT, at, model};
use super::*;

/// One message; where it was refused and by what.
fn send(m: &mut Model, ms: u64, c: &mut Connection, from: &str, to: &str, number: u64) -> Result<(), (At, Refusal)> {
    let content = Content::numbered(number, 1000);
    m.mail(at(ms), c, from).map_err(|refusal| (At::Mail, refusal))?;
    m.rcpt(at(ms), c, to).map_err(|refusal| (At::Rcpt, refusal))?;
    m.data(at(ms), c).map_err(|refusal| (At::Data, refusal))?;
    m.end(at(ms), c, content).map_err(|refusal| (At::End, refusal))
}

fn open(m: &mut Model) -> Connection {
    m.connect(at(0), CLIENT).expect("room")
}

fn cap(result: Result<(), (At, Refusal)>) -> Option<Cap> {
    result.err().map(|(_, refusal)| refusal.by)
}

#[test]
fn a_rate_refuses_where_it_is_told_to_and_in_its_own_bytes() {
    for (place, expected) in [("mail", At::Mail), ("rcpt", At::Rcpt), ("data", At::Data), ("end", At::End)] {
        let words = r#"say-rate="450 4.7.0 \xd0\xcd, {sender} {id}""#;
        let mut m = model("generic", &format!("rate=2/s at={place} {words}"));
        let mut c = open(&mut m);
        for n in 0..2 {
            assert_eq!(send(&mut m, 0, &mut c, "s@a.example", "r@b.example", n), Ok(()), "{place}");
        }
        let mut wires = Vec::new();
        for n in 2..4 {
            let (stage, refusal) = send(&mut m, 1, &mut c, "s@a.example", "r@b.example", n).expect_err("the third");
            assert_eq!((stage, refusal.close), (expected, false));
            let mut wire = Vec::new();
            refusal.reply.expect("a reply").write_to(&mut wire);
            assert!(wire.starts_with(b"450 4.7.0 \xd0\xcd, s@a.example "), "{wire:?}");
            wires.push(wire);
        }
        assert_ne!(wires[0], wires[1], "an id differs each time");
        assert_eq!(send(&mut m, 1000, &mut c, "s@a.example", "r@b.example", 5), Ok(()));
    }
}

#[test]
fn a_sender_a_recipient_and_bytes_have_windows_of_their_own() {
    let mut m = model("generic", "sender-rate=1/s recipient-rate=2/m byte-rate=3500/h");
    let mut c = open(&mut m);
    assert_eq!(send(&mut m, 0, &mut c, "s@a.example", "r@b.example", 1), Ok(()));
    let second = Cap::SenderRate(Duration::from_secs(1));
    assert_eq!(cap(send(&mut m, 1, &mut c, "S@a.example", "q@b.example", 2)), Some(second));
    assert_eq!(send(&mut m, 1, &mut c, "t@a.example", "r@b.example", 3), Ok(()));
    let minute = Cap::RecipientRate(Duration::from_secs(60));
    assert_eq!(cap(send(&mut m, 1, &mut c, "u@a.example", "R@b.example", 4)), Some(minute));
    assert_eq!(send(&mut m, 2, &mut c, "v@a.example", "q@b.example", 5), Ok(()));
    let hour = Cap::ByteRate(Duration::from_secs(3600));
    assert_eq!(cap(send(&mut m, 3, &mut c, "w@a.example", "p@b.example", 6)), Some(hour));
    assert!(second.throttles() && hour.throttles() && !minute.throttles());
}

#[test]
fn a_connection_ends_after_messages_of_a_sender_recipients_or_bytes() {
    for (settings, expected) in [
        ("sender-per-connection=2", Cap::SenderPerConnection),
        ("recipients-per-connection=2", Cap::RecipientsPerConnection),
        ("bytes-per-connection=1500", Cap::BytesPerConnection),
    ] {
        let mut m = model("generic", settings);
        let mut c = open(&mut m);
        for n in 0..2 {
            assert_eq!(send(&mut m, 0, &mut c, "s@a.example", "r@b.example", n), Ok(()), "{settings}");
        }
        let (_, refusal) = send(&mut m, 0, &mut c, "s@a.example", "r@b.example", 3).expect_err("the third");
        assert!(refusal.by == expected && refusal.close, "{refusal:?}");
        let other = send(&mut m, 0, &mut c, "t@a.example", "r@b.example", 4);
        assert_eq!(other.is_ok(), expected == Cap::SenderPerConnection, "{settings}");
        let mut next = open(&mut m);
        assert_eq!(send(&mut m, 0, &mut next, "s@a.example", "r@b.example", 5), Ok(()));
    }
}

/// Shares are what they say, and the same ones each time.
#[test]
fn recipients_and_messages_are_chosen_for_good() {
    let mut m = model("generic", "full=10% unknown=5% content=30% greylist-data=20%:30s");
    let mut attempt = |ms: u64| -> Vec<Option<Cap>> {
        let one = |n: u64| {
            let mut c = m.connect(at(ms), CLIENT).expect("room");
            let result = send(&mut m, ms, &mut c, "s@a.example", &format!("r{n}@b.example"), n);
            m.disconnect(c);
            cap(result)
        };
        (0..4000).map(one).collect()
    };
    let (first, soon, later) = (attempt(0), attempt(29_999), attempt(30_000));
    let count = |of: &[Option<Cap>], by| of.iter().filter(|cap| **cap == Some(by)).count();
    assert!((320..480).contains(&count(&first, Cap::FullMailbox)), "{}", count(&first, Cap::FullMailbox));
    assert!((140..260).contains(&count(&first, Cap::UnknownRecipient)));
    assert!((920..1140).contains(&count(&first, Cap::Content)), "{}", count(&first, Cap::Content));
    assert!((380..570).contains(&count(&first, Cap::GreylistData)), "{}", count(&first, Cap::GreylistData));
    assert_eq!(first, soon);
    let passed = |cap: &Option<Cap>| if *cap == Some(Cap::GreylistData) { None } else { *cap };
    assert_eq!(first.iter().map(passed).collect::<Vec<_>>(), later);
    assert!([Cap::FullMailbox, Cap::Content, Cap::GreylistData].iter().all(|cap| !cap.throttles()));
}

#[test]
fn too_many_unknown_recipients_end_the_connection() {
    let mut m = model("generic", "unknown=100% too-many-errors=2");
    let mut c = open(&mut m);
    let mut by = |n: u64| send(&mut m, 0, &mut c, "s@a.example", &format!("r{n}@b.example"), n).expect_err("unknown").1;
    assert_eq!((by(1).by, by(2).by), (Cap::UnknownRecipient, Cap::UnknownRecipient));
    let last = by(3);
    assert!(last.by == Cap::TooManyErrors && last.close);
    assert_eq!(last.reply.expect("a reply").code(), 421);
}

#[test]
fn trouble_comes_and_goes_and_a_blocked_sender_stays_blocked() {
    let caps = |text: &str| {
        let mut caps = Caps::default();
        Setting::list(text).expect("settings").iter().for_each(|s| caps.set(s));
        caps
    };
    let changes = ["1s trouble=mail", "2s trouble=greeting", "3s trouble=closed", "4s trouble=none"];
    let changes = changes.iter().map(|change| change.parse().expect("a change")).collect();
    let settings = r#"blocked-sender=S@a.example say-trouble="451 4.3.0 rate of disk errors""#;
    let mut m = Model::new(Persona::generic(), caps(settings), changes, 1);
    let mut c = open(&mut m);
    assert_eq!(cap(send(&mut m, 0, &mut c, "s@A.example", "r@b.example", 1)), Some(Cap::BlockedSender));
    assert_eq!(send(&mut m, 999, &mut c, "t@a.example", "r@b.example", 2), Ok(()));
    let (stage, refusal) = send(&mut m, 1000, &mut c, "t@a.example", "r@b.example", 3).expect_err("in trouble");
    assert_eq!((stage, refusal.close), (At::Mail, false));
    assert_eq!(refusal.reply.expect("a reply").to_string(), "451 4.3.0 rate of disk errors");
    let greeting = m.connect(at(2000), CLIENT).expect_err("at the greeting");
    assert!(greeting.close && greeting.reply.is_some());
    let mut open_before = |ms| send(&mut m, ms, &mut c, "t@a.example", "r@b.example", 4).expect_err("in trouble").1;
    let told = open_before(2000);
    assert!(told.close && told.reply.is_some(), "those that are open hear of it, too");
    let silent = open_before(3000);
    assert!(silent.close && silent.reply.is_none());
    assert_eq!(m.connect(at(3000), CLIENT).expect_err("closed").reply, None);
    assert!(m.connect(at(4000), CLIENT).is_ok());
}

#[test]
fn some_connections_are_turned_away_and_all_of_it_is_written_down() {
    let mut m = model("generic", "busy=20% rate=3/s full=50%");
    m.watch();
    let mut turned = 0;
    for _ in 0..1000 {
        match m.connect(at(0), CLIENT) {
            Ok(c) => m.disconnect(c),
            Err(refusal) => turned += u32::from(refusal.by == Cap::Busy),
        }
    }
    assert!((150..250).contains(&turned), "{turned}");
    let mut c = loop {
        if let Ok(c) = m.connect(at(0), CLIENT) {
            break c;
        }
        turned += 1;
    };
    let results: Vec<_> =
        (0..40).map(|n| cap(send(&mut m, 1500, &mut c, "s@a.example", &format!("r{n}@b.example"), n))).collect();
    let log = m.take_log().expect("a log");
    let count = |by: Option<Cap>| results.iter().filter(|cap| **cap == by).count();
    let accepted = u32::try_from(count(None)).expect("few");
    assert_eq!((log.seconds[0].refused, log.seconds[1].accepted), (turned, accepted));
    let throttled = count(Some(Cap::Rate(Duration::from_secs(1))));
    assert_eq!((log.seconds[1].throttled as usize, log.by_cap[&Cap::Busy]), (throttled, u64::from(turned)));
    let of = log.senders["s@a.example"];
    assert_eq!((of.accepted, of.last, of.sum), (accepted, at(1500), f64::from(accepted) * 1.5));
    assert!(log.most_refusals() <= 1);
}
