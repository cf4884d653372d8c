//! How long a login waits for those that failed before it, and who is banned. Pure: it is told the time.
//!
//! - By address (of IPv6 its /64, and this machine as one): after each failure the next login waits longer, one behind the other; after
//!   [`BANNED_AFTER`] failures none is looked at for [`BAN`]. The same wrong password again counts once: that is a
//!   program with an old one, and nobody who guesses. This machine's own addresses are not banned: one wrong program
//!   would shut out all others.
//! - By name: after [`FREE`] failures from anywhere each login waits a little, and never more than
//!   [`LONGEST_BY_NAME`]. Nobody is banned by his name, which others can know.
//! - An address from which this name has logged in well before waits for nothing, until it fails.
//! - Bounded: [`MOST`] of each; the one that was heard of longest ago goes first.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::super::client_network::network_or_machine as network;

/// Addresses, names, and pairs of them that are remembered.
const MOST: usize = 10_000;
/// Failures of an address after which it is banned.
const BANNED_AFTER: u32 = 10;
/// For how long.
const BAN: Duration = Duration::from_secs(15 * 60);
/// Without a failure for this long all is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(15 * 60);
/// Wait after the first failure of an address; each further one doubles it, four times.
const FIRST: Duration = Duration::from_secs(1);
const DOUBLED: u32 = 4;
/// A login that would wait longer is not looked at.
pub(in crate::listener) const LONGEST: Duration = Duration::from_secs(20);
/// Failures of a name that make nobody wait.
const FREE: u32 = 5;
/// Longest wait for failures of a name.
const LONGEST_BY_NAME: Duration = Duration::from_secs(4);

/// Whether a login is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::listener) enum Admission {
    /// From then on.
    At(Instant),
    /// Not now.
    Refused,
}

#[derive(Debug)]
struct Address {
    failures: u32,
    last: Instant,
    /// When its next login may be looked at.
    next: Instant,
    banned: Option<Instant>,
    /// The last name and password that were wrong.
    wrong: Option<u64>,
}

#[derive(Debug)]
struct Name {
    failures: u32,
    last: Instant,
}

/// An address whose logins have failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slowed {
    /// Of IPv6 the first of its /64; 127.0.0.1 is this machine.
    pub address: IpAddr,
    /// Failures that count.
    pub failures: u32,
    /// How long none of its logins is looked at; `None`: it is not banned.
    pub banned: Option<Duration>,
    /// How long the next one waits.
    pub wait: Duration,
}

/// See the module.
#[derive(Default)]
pub(super) struct Throttle {
    addresses: HashMap<IpAddr, Address>,
    names: HashMap<u64, Name>,
    /// When a name last logged in well from an address.
    good: HashMap<(IpAddr, u64), Instant>,
    /// With keys of its own, so that nobody can make names that share an entry.
    hasher: RandomState,
}

impl Throttle {
    /// The code of this name, if it has logged in well from there, and has not failed since.
    pub fn known(&self, ip: IpAddr, name: &str) -> Option<u64> {
        let name = self.hash_of_name(name);
        self.good.contains_key(&(network(ip), name)).then_some(name)
    }

    /// When a login may be looked at.
    pub fn admit(&mut self, ip: IpAddr, name: &str, now: Instant) -> Admission {
        let (address, name) = (network(ip), self.hash_of_name(name));
        if self.good.contains_key(&(address, name)) {
            return Admission::At(now);
        }
        let mut at = now;
        if let Some(known) = self.addresses.get_mut(&address).filter(|known| !known.is_over(now)) {
            at = at.max(known.next);
            if known.banned.is_some_and(|until| until > now) || at - now > LONGEST {
                return Admission::Refused;
            }
            known.next = at + delay(known.failures);
        }
        if let Some(known) = self.names.get(&name).filter(|known| now - known.last < FORGOTTEN) {
            let wait = FIRST * known.failures.saturating_sub(FREE);
            at = at.max(now + wait.min(LONGEST_BY_NAME));
        }
        Admission::At(at)
    }

    /// A login was wrong; true if that makes for a ban.
    pub fn failed(&mut self, ip: IpAddr, name: &str, password: Option<&[u8]>, now: Instant) -> bool {
        let (address, name) = (network(ip), self.hash_of_name(name));
        self.good.remove(&(address, name));
        let wrong = password.map(|password| self.hasher.hash_one((name, password)));
        make_room(&mut self.addresses, &address, |known| known.last);
        let known = self.addresses.entry(address).or_insert_with(|| Address::new(now));
        if known.is_over(now) {
            *known = Address::new(now);
        }
        if wrong.is_none() || wrong != known.wrong {
            known.failures += 1;
        }
        (known.wrong, known.last) = (wrong, now);
        known.next = known.next.max(now + delay(known.failures));
        let banned = known.failures >= BANNED_AFTER && known.banned.is_none() && !address.is_loopback();
        if banned {
            known.banned = Some(now + BAN);
        }
        make_room(&mut self.names, &name, |known| known.last);
        let known = self.names.entry(name).or_insert(Name { failures: 0, last: now });
        if now - known.last >= FORGOTTEN {
            known.failures = 0;
        }
        known.failures = known.failures.saturating_add(1);
        known.last = now;
        banned
    }

    /// A login was right.
    pub fn succeeded(&mut self, ip: IpAddr, name: &str, now: Instant) {
        let pair = (network(ip), self.hash_of_name(name));
        make_room(&mut self.good, &pair, |at| *at);
        self.good.insert(pair, now);
    }

    /// Addresses of which a login waits, or none is looked at, with the time that has; the longest first.
    pub fn slowed(&self, now: Instant) -> Vec<Slowed> {
        let known = self.addresses.iter().filter(|(_, known)| known.failures > 0 && !known.is_over(now));
        let mut all: Vec<Slowed> = known
            .map(|(address, known)| Slowed {
                address: *address,
                failures: known.failures,
                banned: known.banned.map(|until| until.saturating_duration_since(now)),
                wait: known.next.saturating_duration_since(now),
            })
            .collect();
        all.sort_by_key(|one| (std::cmp::Reverse((one.banned, one.failures)), one.address));
        all
    }

    /// Forgets the failures of one address, or of all; how many there were.
    pub fn forgive(&mut self, ip: Option<IpAddr>) -> usize {
        let had = self.addresses.len();
        match ip {
            Some(ip) => _ = self.addresses.remove(&network(ip)),
            None => self.addresses.clear(),
        }
        had - self.addresses.len()
    }

    fn hash_of_name(&self, name: &str) -> u64 {
        self.hasher.hash_one(name.to_ascii_lowercase())
    }
}

impl Address {
    fn new(now: Instant) -> Address {
        Address { failures: 0, last: now, next: now, banned: None, wrong: None }
    }

    /// Nothing of it counts any more.
    fn is_over(&self, now: Instant) -> bool {
        match self.banned {
            Some(until) => until <= now,
            None => now - self.last >= FORGOTTEN,
        }
    }
}

fn delay(failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        n => FIRST * (1 << (n - 1).min(DOUBLED)),
    }
}

/// Forgets the one that was heard of longest ago, if there is no room for `key`.
fn make_room<K: Clone + Eq + Hash, V>(map: &mut HashMap<K, V>, key: &K, last: impl Fn(&V) -> Instant) {
    if map.len() < MOST || map.contains_key(key) {
        return;
    }
    if let Some(oldest) = map.iter().min_by_key(|(_, value)| last(value)).map(|(key, _)| key.clone()) {
        map.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 7));
    const ELSEWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 9));

    /// Seconds that a login waits; `None`: it is refused.
    fn wait(throttle: &mut Throttle, ip: IpAddr, name: &str, now: Instant) -> Option<u64> {
        match throttle.admit(ip, name, now) {
            Admission::At(at) => Some((at - now).as_secs()),
            Admission::Refused => None,
        }
    }

    #[test]
    fn waits_grow_with_failures_and_end_in_a_ban_that_ends() {
        let (mut throttle, mut now) = (Throttle::default(), Instant::now());
        let mut waits = Vec::new();
        for n in 0..BANNED_AFTER {
            let Some(waited) = wait(&mut throttle, FROM, &n.to_string(), now) else { panic!("{n}") };
            waits.push(waited);
            now += Duration::from_secs(waited);
            let banned = throttle.failed(FROM, &n.to_string(), Some(b"guess"), now);
            assert_eq!(banned, n + 1 == BANNED_AFTER);
        }
        assert_eq!(waits, [0, 1, 2, 4, 8, 16, 16, 16, 16, 16]);
        assert_eq!(wait(&mut throttle, FROM, "new", now), None);
        assert_eq!(wait(&mut throttle, ELSEWHERE, "new", now), Some(0), "another address");
        now += BAN;
        assert_eq!(wait(&mut throttle, FROM, "new", now), Some(0));
    }

    #[test]
    fn who_is_slowed_is_shown_and_can_be_forgiven() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for n in 0..BANNED_AFTER {
            throttle.failed(FROM, &n.to_string(), None, now);
        }
        throttle.failed(ELSEWHERE, "x", None, now);
        let at = now + Duration::from_secs(60);
        let shown: Vec<_> = throttle.slowed(at).into_iter().map(|s| (s.address, s.failures, s.banned)).collect();
        let left = BAN - Duration::from_secs(60);
        assert_eq!(shown, [(FROM, BANNED_AFTER, Some(left)), (ELSEWHERE, 1, None)]);
        assert_eq!((throttle.forgive(Some(FROM)), throttle.forgive(Some(FROM))), (1, 0));
        assert_eq!(wait(&mut throttle, FROM, "x", at), Some(0));
        assert_eq!((throttle.forgive(None), throttle.slowed(at)), (1, Vec::new()));
    }

    #[test]
    fn logins_of_one_address_wait_one_behind_the_other_and_not_without_end() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for n in 0..3 {
            throttle.failed(FROM, &n.to_string(), Some(b"guess"), now);
        }
        let waits: Vec<_> = (0..8).map(|_| wait(&mut throttle, FROM, "x", now)).collect();
        assert_eq!(waits[..5], [Some(4), Some(8), Some(12), Some(16), Some(20)]);
        assert!(waits[5..].iter().all(Option::is_none));
    }

    #[test]
    fn a_program_with_an_old_password_is_not_banned_and_this_machine_never_is() {
        let (mut throttle, mut now) = (Throttle::default(), Instant::now());
        for _ in 0..100 {
            assert!(!throttle.failed(FROM, "shop", Some(b"old"), now));
            now += Duration::from_secs(1);
        }
        for n in 0..100 {
            assert!(!throttle.failed([127, 0, 0, n].into(), &n.to_string(), None, now));
        }
        assert_eq!(throttle.addresses.len(), 2, "all addresses of this machine are one");
        assert!((0..BANNED_AFTER).any(|n| throttle.failed(FROM, "shop", Some(&[n as u8]), now)), "but one who guesses");
    }

    /// Strangers who know a name slow down logins with it a little, from addresses where it was not used before.
    #[test]
    fn strangers_who_know_a_name_do_not_lock_its_owner_out() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        throttle.succeeded(FROM, "Jo", now);
        for n in 0..2000u16 {
            let [a, b] = n.to_be_bytes();
            throttle.failed([192, 0, a, b].into(), "jo", Some(&[a, b]), now);
        }
        assert_eq!(wait(&mut throttle, FROM, "jo", now), Some(0));
        assert_eq!(wait(&mut throttle, ELSEWHERE, "jo", now), Some(LONGEST_BY_NAME.as_secs()));
        assert_eq!(wait(&mut throttle, ELSEWHERE, "ann", now), Some(0));
        // Others behind the same address do not ban him either.
        for n in 0..50u8 {
            throttle.failed(FROM, "ann", Some(&[n]), now);
        }
        assert_eq!((wait(&mut throttle, FROM, "jo", now), wait(&mut throttle, FROM, "ann", now)), (Some(0), None));
        // Until he fails himself.
        throttle.failed(FROM, "jo", Some(b"typo"), now);
        assert_eq!(wait(&mut throttle, FROM, "jo", now), None);
    }

    #[test]
    fn a_customer_of_ipv6_is_one_and_what_is_remembered_is_bounded() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for n in 0..u16::try_from(BANNED_AFTER).expect("small") {
            throttle.failed(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 1, n, 0, 0, 1).into(), &n.to_string(), None, now);
        }
        let same = std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 99, 0, 0, 1).into();
        assert_eq!(wait(&mut throttle, same, "x", now), None);
        let later = now + Duration::from_secs(1);
        for n in 0..u32::try_from(MOST).expect("small") + 100 {
            let ip = IpAddr::V4((0x0a00_0000 + n).into());
            throttle.failed(ip, &n.to_string(), None, later);
            throttle.succeeded(ip, &n.to_string(), later);
        }
        assert_eq!((throttle.addresses.len(), throttle.names.len(), throttle.good.len()), (MOST, MOST, MOST));
    }
}
