//! Hosts that end connections for some mail and take all other, at random and on paused time: what other mail waits
//! for, and how often a host is asked that takes none.

use fastrand::Rng;

use super::*;
use crate::route::TlsPolicy;

const HOUR: Duration = Duration::from_secs(3600);

/// What a host ends connections for.
#[derive(Clone, Copy, Debug)]
enum Cause {
    Sender,
    SenderDomain,
    Recipient,
    RecipientDomain,
    Size,
    All,
}

/// Mail as one text for each of its features.
struct Mail {
    sender: String,
    recipient: String,
    size: u64,
    bad: bool,
}

impl Mail {
    fn features(&self) -> Features<'_> {
        Features::of(&self.sender, [self.recipient.as_str()], self.size)
    }
}

/// A message of a world, three in four of them such as the host does not take.
fn mail(cause: Cause, n: u64, rng: &mut Rng) -> Mail {
    let bad = rng.u32(..4) > 0;
    let mut mail = Mail {
        sender: format!("s{n}@{}.example", rng.u32(..3)),
        recipient: format!("r{n}@{}.example", rng.u32(..3)),
        size: 1000,
        bad: bad || matches!(cause, Cause::All),
    };
    match cause {
        Cause::All => {}
        _ if !bad => {}
        Cause::Sender => mail.sender = "bad@bad.example".into(),
        Cause::SenderDomain => mail.sender = format!("v{n}@bad.example"),
        Cause::Recipient => mail.recipient = "bad@bad.example".into(),
        Cause::RecipientDomain => mail.recipient = format!("v{n}@bad.example"),
        Cause::Size => mail.size = rng.u64(9 << 20..15 << 20),
    }
    mail
}

/// One message after the other, ten a second, as a worker without an open connection tries them. How long each that
/// the host takes had to wait at most, and how often the host was asked.
async fn world(cause: Cause, messages: u64, rng: &mut Rng) -> (Duration, u64) {
    let host = Host { name: "mx.example".into(), preference: 0, addresses: Vec::new(), policy: TlsPolicy::None };
    let door = Door::new(&crate::config::sample::provider("p"), &host, (None, SocketAddr::from(([192, 0, 2, 1], 25))));
    let known = Arc::new(DeadAddresses::new());
    let at = if matches!(cause, Cause::Recipient | Cause::RecipientDomain) { Stage::Rcpt } else { Stage::Mail };
    let (mut longest, mut asked) = (Duration::ZERO, 0);
    for n in 0..messages {
        let mail = mail(cause, n, rng);
        let (began, keys) = (Instant::now(), mail.features().keys());
        let goes = loop {
            let Some(back_off) = known.get(&door, keys) else { break true };
            if back_off.left().is_zero() {
                known.probe(&door, keys, back_off);
                break true;
            }
            // What the host does not take has a time of its own.
            if mail.bad {
                break false;
            }
            tokio::time::advance(back_off.left()).await;
        };
        asked += u64::from(goes);
        if !mail.bad {
            longest = longest.max(began.elapsed());
            known.listened(&door);
        } else if goes {
            known.turned_away(&door, Some(&mail.features()), (at, &Event::Closed), HOUR);
        }
        tokio::time::advance(Duration::from_millis(100)).await;
    }
    (longest, asked)
}

#[tokio::test(start_paused = true)]
async fn other_mail_than_that_which_a_host_ends_connections_for_waits_for_a_moment_only() {
    for seed in 0..12 {
        let mut rng = Rng::with_seed(seed);
        for cause in [Cause::Sender, Cause::SenderDomain, Cause::Recipient, Cause::RecipientDomain, Cause::Size] {
            let (longest, _) = world(cause, 400, &mut rng).await;
            assert!(longest <= PATIENCE + EARLY_FIRST * 2, "seed {seed}, {cause:?}: {longest:?}");
        }
    }
}

/// Mail of all kinds, one after the other: each feature that all had in common costs a try, and then waits double.
#[tokio::test(start_paused = true)]
async fn a_host_that_takes_none_is_asked_as_often_as_waits_that_double_allow() {
    for seed in 0..12 {
        let (_, asked) = world(Cause::All, 6000, &mut Rng::with_seed(seed)).await;
        // Ten minutes: half a second, one, two … a minute, and a try for each of five features.
        assert!(asked <= 7 + 10 + 5, "seed {seed}: {asked}");
    }
}
