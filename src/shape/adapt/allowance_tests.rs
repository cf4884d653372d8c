use super::*;
use proptest::prelude::*;

const KIND: u64 = 7;

fn at(ms: i64) -> Timestamp {
    Timestamp(1_790_000_000_000 + ms)
}

fn amount(recipients: u32, bytes: u64) -> Amount {
    Amount { messages: 1, recipients, bytes }
}

/// A server, and a lane's connections to it that are used in turns.
struct World<R: Fn(Amount, Amount, u64) -> bool> {
    /// Whether it refuses, by what the connection has carried, what comes, and a number drawn.
    refuses: R,
    /// Its connections stay open when they are used up.
    hash: u64,
    known: Allowances,
    open: Vec<Link>,
    random: fastrand::Rng,
    now: i64,
    passed: u32,
    refused: u32,
    closed: u32,
}

#[derive(Clone, Copy, Default)]
struct Link {
    opened: i64,
    carried: Amount,
    last: Amount,
    earlier: Option<u64>,
}

impl<R: Fn(Amount, Amount, u64) -> bool> World<R> {
    fn new(seed: u64, connections: usize, hash: u64, refuses: R) -> World<R> {
        let (open, random) = (vec![Link::default(); connections], fastrand::Rng::with_seed(seed));
        World { refuses, hash, known: Allowances::default(), open, random, now: 0, passed: 0, refused: 0, closed: 0 }
    }

    /// So many attempts, of mixed sizes.
    fn send(&mut self, attempts: u32) {
        (self.passed, self.refused) = (0, 0);
        for n in 0..attempts {
            self.now += 20;
            let now = at(self.now);
            let of = n as usize % self.open.len();
            let next = amount(self.random.u32(1..6), self.random.u64(2_000..34_000));
            let sender = self.random.u64(..5);
            let most = self.known.messages(now).unwrap_or(u32::MAX);
            let mut link = self.open[of];
            if link.carried.messages >= most || !self.known.room(now).takes(link.carried, next) {
                link = Link { opened: self.now, ..Link::default() };
            }
            let draw = self.random.u64(..1000);
            if (self.refuses)(link.carried, next, draw) {
                self.refused += 1;
                let next = Some((next, sender));
                let Link { opened, carried: before, last, earlier } = link;
                let attempt = Attempted { opened: at(opened), before, last, next, earlier };
                let says = self.known.refused(self.hash, &attempt, now, "452 genug");
                link.earlier = Some(self.hash);
                if self.hash == ENDS || matches!(says, Says::UsedUp { .. } | Says::Perhaps { again: true }) {
                    self.closed += 1;
                    link = Link { opened: self.now, ..Link::default() };
                }
            } else {
                self.passed += 1;
                self.known.passed(link.carried, next, sender, now);
                link = Link { carried: link.carried.and(next), last: next, earlier: None, ..link };
            }
            self.open[of] = link;
            self.known.advance(1_000_000, now);
        }
    }

    fn share(&self) -> f64 {
        f64::from(self.refused) / f64::from(self.refused + self.passed)
    }
}

/// Whatever is counted, wherever it is looked at, whether the connection ends or stays: it is found, refused are few.
#[test]
fn what_is_counted_on_a_connection_is_found() {
    type Cap = fn(Amount, Amount) -> bool;
    let caps: [(&str, Cap); 9] = [
        ("1 messages", |before, _| before.messages >= 1),
        ("5 messages", |before, _| before.messages >= 5),
        ("20 messages", |before, _| before.messages >= 20),
        ("10 recipients", |before, _| before.recipients >= 10),
        ("100 recipients", |before, next| before.recipients + next.recipients > 100),
        ("200 kB", |before, _| before.bytes >= 200_000),
        ("200 kB", |before, next| before.bytes + next.bytes > 200_000),
        ("800 kB", |before, _| before.bytes >= 800_000),
        ("4000 kB", |before, next| before.bytes + next.bytes > 4_000_000),
    ];
    for (told, refuses) in caps {
        for (seed, (connections, hash)) in (0..).zip([(1, KIND), (20, KIND), (1, ENDS), (20, ENDS)]) {
            let mut world = World::new(seed, connections, hash, |before, next, _| refuses(before, next));
            let what = format!("{told}, {connections} connections, kind {hash}");
            world.send(30_000);
            world.send(20_000);
            assert!(world.share() <= 0.006, "{what}: {:.2} % refused", world.share() * 100.0);
            let unit = told.split_once(' ').map(|(_, unit)| unit).unwrap_or_default();
            let known = world.known.explain();
            assert!(known.iter().all(|line| line.contains(unit)) && !known.is_empty(), "{what}: {known:?}");
        }
    }
}

/// A filter, full mailboxes, resets: whatever comes at any time teaches nothing, and closes few connections.
#[test]
fn what_is_refused_by_chance_teaches_nothing_and_costs_few_connections() {
    for (seed, share) in (0..).zip([1, 5, 20, 100, 300, 600, 900]) {
        for connections in [1, 4, 20] {
            let mut world = World::new(seed, connections, KIND, |_, _, draw| draw < share);
            world.send(100_000);
            let what = format!("{share} of a thousand, {connections} connections");
            assert!(world.known.is_free(), "{what}: {:?}", world.known.explain());
            assert!(world.closed < 250, "{what}: {} connections closed", world.closed);
        }
    }
}

/// A cap that is raised is found by what is tried beyond it, and one that becomes smaller by its refusals.
#[test]
fn a_cap_that_changes_is_followed() {
    let cap = std::cell::Cell::new(10u32);
    let mut world = World::new(1, 4, KIND, |before: Amount, _, _| before.messages >= cap.get());
    world.send(5_000);
    assert_eq!(world.known.messages(at(world.now)), Some(10));
    cap.set(40);
    world.send(100_000);
    assert!(world.known.learned().any(|learned| learned.most == 39), "{:?}", world.known.explain());
    cap.set(3);
    world.send(5_000);
    assert_eq!(world.known.learned().map(|learned| learned.most).collect::<Vec<_>>(), [2]);
    assert!(world.share() < 0.03, "{}", world.share());
}

#[test]
fn what_is_learned_is_stored_shown_and_forgotten_an_hour_after_the_last_refusal() {
    let mut world = World::new(3, 4, KIND, |before: Amount, next: Amount, _| before.bytes + next.bytes > 500_000);
    world.send(20_000);
    let json = serde_json::to_vec(&world.known.lasting()).expect("JSON");
    let mut again: Allowances = serde_json::from_slice(&json).expect("what was stored");
    let now = at(world.now);
    assert_eq!((again.room(now), again.explain()), (world.known.room(now), world.known.explain()));
    let line = again.explain().join("");
    let most = line.split_once(' ').and_then(|(most, _)| most.parse::<u32>().ok());
    assert!(most.is_some_and(|most| (450..=500).contains(&most)), "{line}");
    assert!(line.contains(" kB per connection until ") && line.ends_with("452 genug"), "{line}");
    assert!(!again.advance(100, now) && again.advance(100, now.after(FORGET)) && again.is_free());
}

proptest! {
    /// Whatever is seen: memory is bounded, a fresh connection takes anything, and one message at least leaves on each.
    #[test]
    fn a_lane_can_always_send(
        events in proptest::collection::vec((0u64..9, 0u32..30, 0u64..90_000, any::<bool>(), any::<bool>()), 1..300),
    ) {
        let mut known = Allowances::default();
        for (n, (hash, messages, bytes, passes, same)) in (0i64..).zip(events) {
            let now = at(n * 700);
            let next = amount(1, bytes);
            let before = Amount { messages, recipients: messages, bytes: u64::from(messages) * 9000 };
            let last = Amount { messages: messages.min(1), recipients: messages.min(1), bytes: 9000 };
            let earlier = same.then_some(hash);
            if passes {
                known.passed(before, next, hash, now);
            } else {
                let attempt = Attempted { opened: at(n * 700 - 900), before, last, next: Some((next, hash)), earlier };
                known.refused(hash, &attempt, now, "x");
            }
            prop_assert!(known.kinds.len() <= KINDS);
            prop_assert!(known.messages(now).is_none_or(|most| most >= 1));
            prop_assert!(known.room(now).takes(Amount::default(), amount(u32::MAX, u64::MAX)));
        }
    }
}
