use super::*;
use proptest::prelude::*;

pub(super) const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

pub(super) fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(super) fn model(persona: &str, settings: &str) -> Model {
    let persona = Persona::find(persona).expect("a persona");
    let mut caps = Caps::default();
    Setting::list(settings).expect("settings").iter().for_each(|s| caps.set(s));
    Model::new(persona, caps, Vec::new(), 1)
}

/// One message to `n` recipients; how many were accepted, or who refused it.
fn send(model: &mut Model, now: Duration, c: &mut Connection, n: u32) -> Result<u32, Refusal> {
    model.mail(now, c, "s@a.example")?;
    let taken: Vec<_> = (0..n).map(|i| model.rcpt(now, c, &format!("r{i}@b.example"))).collect();
    let taken = taken.into_iter().filter(Result::is_ok).count();
    if taken > 0 {
        model.data(now, c)?;
        model.end(now, c, Content::numbered(now.as_millis() as u64, 1000))?;
    }
    Ok(u32::try_from(taken).expect("small"))
}

fn by(result: Result<u32, Refusal>) -> Option<Cap> {
    result.err().map(|refusal| refusal.by)
}

#[test]
fn a_rate_is_enforced_to_the_message_and_in_the_words_of_the_provider() {
    let mut m = model("gmail", "rate=3/s,rate=5/m");
    let mut c = m.connect(at(0), CLIENT).expect("room");
    for ms in [0, 400, 999] {
        assert_eq!(send(&mut m, at(ms), &mut c, 1), Ok(1));
    }
    let refusal = send(&mut m, at(999), &mut c, 1).expect_err("the fourth in a second");
    assert_eq!((refusal.by, refusal.close), (Cap::Rate(Duration::from_secs(1)), true));
    assert!(refusal.reply.expect("a reply").to_string().starts_with("421 4.7.28 Our system has detected"));
    // The first left the window; then the minute is full.
    assert_eq!(send(&mut m, at(1000), &mut c, 1), Ok(1));
    assert_eq!(send(&mut m, at(1400), &mut c, 1), Ok(1));
    assert_eq!(by(send(&mut m, at(30_000), &mut c, 1)), Some(Cap::Rate(Duration::from_secs(60))));
    assert_eq!(send(&mut m, at(60_000), &mut c, 1), Ok(1));
}

#[test]
fn recipients_are_counted_after_the_data_where_the_provider_does_so() {
    let mut m = model("ses", "rate=5/s count=recipients recipients=3");
    let mut c = m.connect(at(0), CLIENT).expect("room");
    assert_eq!(send(&mut m, at(0), &mut c, 4), Ok(3), "the fourth recipient gets 452");
    let refusal = send(&mut m, at(1), &mut c, 3).expect_err("six in a second");
    let text = refusal.reply.expect("a reply").to_string();
    assert_eq!(text, "454 Throttling failure: Maximum sending rate exceeded.");
    assert!(!refusal.close);
    assert_eq!(send(&mut m, at(2), &mut c, 2), Ok(2), "what was refused did not count");

    let mut m = model("gmail", "rate=2/s count=recipients");
    let mut c = m.connect(at(0), CLIENT).expect("room");
    assert_eq!(send(&mut m, at(0), &mut c, 4), Ok(2));
}

#[test]
fn connections_at_once_and_new_ones() {
    let mut m = model("yahoo", "connections=2 connect-rate=3/m");
    let first = m.connect(at(0), CLIENT).expect("one");
    let _second = m.connect(at(0), CLIENT).expect("two");
    let refusal = m.connect(at(0), CLIENT).expect_err("three");
    assert_eq!((refusal.by, refusal.close), (Cap::Connections, true));
    m.disconnect(first);
    let third = m.connect(at(0), CLIENT).expect("a place became free");
    m.disconnect(third);
    assert_eq!(m.connect(at(59_999), CLIENT).expect_err("the fourth").by, Cap::ConnectRate(Duration::from_secs(60)));
    assert!(m.connect(at(60_000), CLIENT).is_ok());
    assert_eq!(m.connections(), 2);
}

#[test]
fn messages_of_a_connection_end_with_a_reply_or_without_a_word() {
    for (settings, silent) in
        [("messages-per-connection=2", false), ("messages-per-connection=2 close-silently=yes", true)]
    {
        let mut m = model("yahoo", settings);
        let mut c = m.connect(at(0), CLIENT).expect("room");
        assert_eq!((send(&mut m, at(0), &mut c, 1), send(&mut m, at(0), &mut c, 1)), (Ok(1), Ok(1)));
        let refusal = send(&mut m, at(0), &mut c, 1).expect_err("the third");
        assert_eq!((refusal.by, refusal.close), (Cap::MessagesPerConnection, true));
        assert_eq!(refusal.reply.is_none(), silent);
        assert_eq!(c.messages(), 2);
    }
}

#[test]
fn greylisting_goes_by_sender_recipient_and_client() {
    let mut m = model("generic", "greylist=30s");
    let mut c = m.connect(at(0), CLIENT).expect("room");
    let mut rcpt = |m: &mut Model, ms, s: &str, r: &str| {
        m.mail(at(ms), &mut c, s).expect("MAIL");
        m.rcpt(at(ms), &mut c, r).err().map(|refusal| refusal.by)
    };
    assert_eq!(rcpt(&mut m, 0, "s@a.example", "r@b.example"), Some(Cap::Greylist));
    assert_eq!(rcpt(&mut m, 29_999, "S@a.example", "r@B.example"), Some(Cap::Greylist), "still, whatever the case");
    assert_eq!(rcpt(&mut m, 30_000, "s@a.example", "q@b.example"), Some(Cap::Greylist), "another recipient");
    assert_eq!(rcpt(&mut m, 30_000, "s@a.example", "r@b.example"), None);
    let other = IpAddr::V4([127, 0, 0, 2].into());
    let mut d = m.connect(at(30_000), other).expect("room");
    m.mail(at(30_000), &mut d, "s@a.example").expect("MAIL");
    assert_eq!(
        m.rcpt(at(30_000), &mut d, "r@b.example").map_err(|refusal| refusal.by),
        Err(Cap::Greylist),
        "another client"
    );
}

#[test]
fn failures_have_their_share_and_the_same_seed_gives_the_same() {
    let run = || {
        let mut m = model("qq", "fail=10%:4xx+5%:5xx");
        let mut c = m.connect(at(0), CLIENT).expect("room");
        m.mail(at(0), &mut c, "s@a.example").expect("MAIL");
        let all: Vec<Option<Cap>> =
            (0..10_000).map(|_| m.rcpt(at(0), &mut c, "r@b.example").err().map(|r| r.by)).collect();
        all
    };
    let all = run();
    let count = |cap| all.iter().filter(|c| **c == Some(cap)).count();
    assert!((900..1100).contains(&count(Cap::FailTemporary)), "{}", count(Cap::FailTemporary));
    assert!((400..600).contains(&count(Cap::FailPermanent)), "{}", count(Cap::FailPermanent));
    assert_eq!(all, run());
}

#[test]
fn a_change_holds_from_its_time_on_and_keeps_what_the_window_has_seen() {
    let mut caps = Caps::default();
    Setting::list("rate=2/m").expect("settings").iter().for_each(|s| caps.set(s));
    let changes =
        vec!["30s rate=3/m latency=5ms".parse().expect("a change"), "10s connections=1".parse().expect("one")];
    let mut m = Model::new(Persona::generic(), caps, changes, 1);
    let mut c = m.connect(at(0), CLIENT).expect("room");
    assert_eq!((send(&mut m, at(0), &mut c, 1), send(&mut m, at(1), &mut c, 1)), (Ok(1), Ok(1)));
    assert!(m.connect(at(10_000), CLIENT).is_err());
    assert!(send(&mut m, at(29_999), &mut c, 1).is_err());
    assert_eq!(m.latency(at(29_999)), Duration::ZERO);
    assert_eq!(send(&mut m, at(30_000), &mut c, 1), Ok(1));
    assert!(send(&mut m, at(30_001), &mut c, 1).is_err(), "the two before still count");
    assert_eq!(m.latency(at(30_001)), at(5));
}

proptest! {
    #[test]
    fn no_window_ever_has_more_than_its_cap_and_what_fits_is_taken(
        fast in 1u32..8, slow in 1u32..40, steps in prop::collection::vec(0u64..700, 1..300)
    ) {
        let mut m = model("generic", &format!("rate={fast}/s,rate={slow}/m"));
        let mut c = m.connect(at(0), CLIENT).expect("room");
        let (mut now, mut taken) = (0u64, Vec::<u64>::new());
        for step in steps {
            now += step;
            let within = |ms: u64| taken.iter().filter(|t| **t + ms > now).count();
            // Within a hair of a window's edge it may be refused, for the window's grain.
            let hair = |ms: u64| within(ms + ms / 16_384 + 1);
            let fits = hair(1000) < fast as usize && hair(60_000) < slow as usize;
            let must_not = within(1000) >= fast as usize || within(60_000) >= slow as usize;
            match send(&mut m, at(now), &mut c, 1) {
                Ok(_) => {
                    prop_assert!(!must_not);
                    taken.push(now);
                }
                Err(_) => prop_assert!(!fits),
            }
        }
    }

    #[test]
    fn connections_stay_within_their_cap(most in 1u32..6, steps in prop::collection::vec(any::<bool>(), 1..200)) {
        let mut m = model("generic", &format!("connections={most}"));
        let mut open = Vec::new();
        for connect in steps {
            if connect {
                match m.connect(at(0), CLIENT) {
                    Ok(c) => open.push(c),
                    Err(_) => prop_assert_eq!(open.len(), most as usize),
                }
            } else if let Some(c) = open.pop() {
                m.disconnect(c);
            }
            prop_assert!(open.len() <= most as usize);
            prop_assert_eq!(m.connections() as usize, open.len());
        }
    }
}
