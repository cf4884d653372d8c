//! The places of strangers: clients that may not relay and have not logged in. There are few, and whoever holds one
//! without getting on loses it to somebody who comes.
//!
//! Invariants:
//! - One network (an address; of IPv6 a /64) has at most its part of the places: whoever opens as many connections
//!   as he can leaves the others theirs.
//! - Where none is left, of its network's or at all, a newcomer takes that of whoever has not got on for longest,
//!   among those of its network or among all, if that is at least [`GRACE`]. One whose network has fewer places than
//!   others takes it from the network that has most, and needs to wait only for [`SHORT`]: who comes again at once
//!   has nothing of it. So people behind one address, and everybody on a listener under attack, get in although
//!   others hold what they can.
//! - Getting on is a step towards a login (TLS, the first EHLO, a response of AUTH), of which a session has a few:
//!   nobody keeps his place by commands that lead nowhere.
//! - A place that was taken away is no longer there for a login: who loses it and logs in at the same moment has
//!   either a place of those who may relay, or none.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::client_network::network;

/// How long a session may stand still before its place can be taken: longer than a round trip over a bad line.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// The same where its network has more places than that of the newcomer.
const SHORT: Duration = Duration::from_secs(1);

/// The places of one listener; see the module.
pub(super) struct Strangers {
    /// Places, and how many of them one network may have.
    most: usize,
    of_a_network: usize,
    places: Mutex<Vec<Arc<Mark>>>,
    /// For a last word to somebody whose place was taken.
    goodbyes: Arc<Semaphore>,
}

/// Of one place.
struct Mark {
    network: IpAddr,
    /// When its session last got on.
    moved: Mutex<Instant>,
    /// It was taken away.
    lost: Notify,
}

/// A place, until it is dropped or somebody else takes it.
pub(super) struct Place {
    all: Arc<Strangers>,
    mark: Arc<Mark>,
}

/// What became of somebody who came.
pub(super) enum Entered {
    /// There was room.
    In(Place),
    /// There was none, and one who stood still has made it.
    InPlaceOf(Place),
    /// There is none.
    Full,
}

/// Who holds the places, for a line of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Crowd {
    /// The network that has most of them.
    pub network: IpAddr,
    /// How many it has.
    pub has: usize,
    /// How many are taken in all.
    pub all: usize,
}

impl Strangers {
    /// `of_a_network`: places that one may have; `None`: a quarter, at least one.
    pub fn new(most: usize, of_a_network: Option<usize>, goodbyes: Arc<Semaphore>) -> Strangers {
        let of_a_network = of_a_network.unwrap_or(most / 4).clamp(1, most.max(1));
        Strangers { most, of_a_network, places: Mutex::default(), goodbyes }
    }

    /// Gives a place to somebody who comes from `ip`.
    pub fn enter(self: &Arc<Strangers>, ip: IpAddr, now: Instant) -> Entered {
        let network = network(ip);
        let mut places = self.places.lock();
        let own = places.iter().filter(|mark| mark.network == network).count();
        let full = places.len() >= self.most || own >= self.of_a_network;
        if full {
            let loser = match own >= self.of_a_network {
                true => slowest(&places, now, GRACE, |mark| mark.network == network),
                false => {
                    let crowd = crowd(&places).filter(|crowd| crowd.has > own + 1);
                    let of_crowd = |mark: &Mark| crowd.is_some_and(|crowd| crowd.network == mark.network);
                    slowest(&places, now, SHORT, of_crowd).or_else(|| slowest(&places, now, GRACE, |_| true))
                }
            };
            let Some(at) = loser else { return Entered::Full };
            places.swap_remove(at).lost.notify_one();
        }
        let mark = Arc::new(Mark { network, moved: Mutex::new(now), lost: Notify::new() });
        places.push(mark.clone());
        let place = Place { all: self.clone(), mark };
        if full { Entered::InPlaceOf(place) } else { Entered::In(place) }
    }

    /// Who has most of the places; `None`: nobody has any.
    pub fn crowd(&self) -> Option<Crowd> {
        crowd(&self.places.lock())
    }

    /// How many places there are.
    pub fn most(&self) -> usize {
        self.most
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.places.lock().len()
    }
}

fn crowd(places: &[Arc<Mark>]) -> Option<Crowd> {
    let mut networks: Vec<IpAddr> = places.iter().map(|mark| mark.network).collect();
    networks.sort_unstable();
    let most = networks.chunk_by(|a, b| a == b).max_by_key(|same| same.len())?;
    Some(Crowd { network: *most.first()?, has: most.len(), all: networks.len() })
}

/// Who has stood still for longest of those, and for that long at least.
fn slowest(places: &[Arc<Mark>], now: Instant, least: Duration, of: impl Fn(&Mark) -> bool) -> Option<usize> {
    let since = |mark: &Mark| *mark.moved.lock();
    let longest = places.iter().enumerate().filter(|(_, mark)| of(mark)).min_by_key(|(_, mark)| since(mark));
    longest.filter(|(_, mark)| now.saturating_duration_since(since(mark)) >= least).map(|(at, _)| at)
}

impl Place {
    /// The session has got on.
    pub fn moved(&self) {
        *self.mark.moved.lock() = Instant::now();
    }

    /// Waits until somebody takes it; for the session itself, which has it only lent.
    pub fn lost(&self) -> impl Future<Output = ()> + use<> {
        let mark = self.mark.clone();
        async move { mark.lost.notified().await }
    }

    /// A right to say so to the client, while few others do that.
    pub fn goodbye(&self) -> Option<OwnedSemaphorePermit> {
        self.all.goodbyes.clone().try_acquire_owned().ok()
    }

    /// Gives it back; false: somebody has taken it.
    pub fn leave(&self) -> bool {
        let mut places = self.all.places.lock();
        let at = places.iter().position(|mark| Arc::ptr_eq(mark, &self.mark));
        at.map(|at| places.swap_remove(at)).is_some()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 7));

    fn places(most: usize, of_a_network: Option<usize>) -> Arc<Strangers> {
        Arc::new(Strangers::new(most, of_a_network, Arc::new(Semaphore::new(1))))
    }

    fn other(n: u8) -> IpAddr {
        [203, 0, 113, n].into()
    }

    fn place(entered: Entered) -> Option<Place> {
        match entered {
            Entered::In(place) | Entered::InPlaceOf(place) => Some(place),
            Entered::Full => None,
        }
    }

    fn is_lost(place: &Place) -> bool {
        !place.all.places.lock().iter().any(|mark| Arc::ptr_eq(mark, &place.mark))
    }

    #[test]
    fn one_network_has_a_quarter_of_the_places_and_its_own_newcomers_take_them() {
        let (all, now) = (places(16, None), Instant::now());
        let held: Vec<Place> = (0..4).filter_map(|_| place(all.enter(ONE, now))).collect();
        assert_eq!(held.len(), 4);
        assert!(
            place(all.enter(ONE, now + GRACE - Duration::from_millis(1))).is_none(),
            "not before they have had time"
        );
        assert!(place(all.enter(other(1), now)).is_some(), "others have theirs");
        *held[0].mark.moved.lock() = now + Duration::from_secs(3);
        let Entered::InPlaceOf(_new) = all.enter(ONE, now + GRACE) else { panic!("no place") };
        let lost: Vec<bool> = held.iter().map(is_lost).collect();
        assert!(!lost[0] && lost.iter().filter(|lost| **lost).count() == 1, "{lost:?}");
        assert_eq!(all.crowd(), Some(Crowd { network: ONE, has: 4, all: 4 }));
        drop(held);
        assert_eq!(all.taken(), 1);
    }

    #[test]
    fn who_comes_when_all_are_taken_has_the_place_of_who_stood_still_for_longest() {
        let (all, now) = (places(8, None), Instant::now());
        let at = |second: u64| now + Duration::from_secs(second);
        let held: Vec<Place> = (0..8).filter_map(|n| place(all.enter(other(n), at(u64::from(n))))).collect();
        assert_eq!(held.len(), 8);
        assert!(place(all.enter(ONE, at(4))).is_none());
        // The first has got on, the second has not.
        *held[0].mark.moved.lock() = at(8);
        let new = place(all.enter(ONE, at(9))).expect("a place");
        assert_eq!(
            held.iter().map(is_lost).collect::<Vec<_>>(),
            [false, true, false, false, false, false, false, false]
        );
        assert!(!held[1].leave() && held[2].leave() && !held[2].leave(), "it is left once");
        assert!(place(all.enter(ONE, at(9))).is_some());
        drop(new);
    }

    /// Whoever comes again and again takes the places that become free, but not from a network that has fewer.
    #[test]
    fn who_has_fewer_places_does_not_wait_as_long_as_who_has_many() {
        let (all, now) = (places(8, None), Instant::now());
        let held: Vec<Place> = (0..8).filter_map(|n| place(all.enter(other(n / 2), now))).collect();
        assert_eq!(held.len(), 8);
        let soon = now + SHORT;
        assert!(place(all.enter(ONE, now)).is_none() && place(all.enter(other(0), soon)).is_none());
        let (one, two) = (place(all.enter(ONE, soon)), place(all.enter(ONE, soon)));
        assert!(one.is_some() && two.is_none(), "a second one would have as many as others");
        assert_eq!(held.iter().filter(|place| is_lost(place)).count(), 1);
    }

    #[test]
    fn a_customer_of_ipv6_is_one_and_the_key_says_how_many() {
        let (all, now) = (places(4, Some(3)), Instant::now());
        let of = |n: u16| IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 1, n, 0, 0, 1));
        let held: Vec<Place> = (0..4).filter_map(|n| place(all.enter(of(n), now))).collect();
        assert_eq!(held.len(), 3);
        let (all, most) = (places(1, None), places(4, Some(100)));
        let _one = place(all.enter(ONE, now)).expect("at least one");
        assert_eq!((0..9).filter_map(|_| place(most.enter(ONE, now))).map(std::mem::forget).count(), 4);
    }
}
