//! The budget of file descriptors: each connection is one, and when they are used up neither clients
//! nor hosts, name servers or the store get any.
//!
//! Invariants:
//! - Clients and hosts have a part each that the other never takes ([`Shares`]); what neither needs is for
//!   whoever comes first. A listener so never stops accepting for connections to hosts.
//! - Whoever opens a connection to a host waits until it has a descriptor; nothing fails for want of one.
//! - A lane gets another one only while it has fewer than are free: alone it has half of them, and there
//!   is one for the lane that comes next. Lanes whose mail nobody took lately have half of them together,
//!   so that hosts that say nothing keep nobody from those that work (invariant 4).
//! - While connections wait, one that is still being opened after [`PATIENCE`] gives way to them.

mod shares;

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::config::Engine;
use crate::mail::LaneName;
pub use shares::{LEAST, MAX_QUERIES, Shares, needed};

/// How often it is told that connections wait.
const TELL_AGAIN: Duration = Duration::from_secs(60);
/// How often connections that nobody uses are closed for those who wait.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// How long the opening of a connection may last while others wait for its descriptor.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Descriptors that a session with a client takes.
pub fn of_session(engine: Engine) -> usize {
    match engine {
        Engine::Native => 1,
        // That of the client, both ends of the inner connection, and the copy that mailin reads from.
        Engine::Mailin => 4,
    }
}

/// Of a lane: whether its host is thought to take mail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It took mail lately.
    Known = 0,
    /// It did not, or was not tried, or could not be reached since.
    Unknown = 1,
}

/// The descriptors for connections.
#[derive(Debug)]
pub struct Descriptors {
    shares: Shares,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    clients: usize,
    /// To hosts, by [`Standing`].
    hosts: [usize; 2],
    of_lane: HashMap<LaneName, usize>,
    /// By [`Standing`], whoever came first in front.
    waiting: [VecDeque<Waiting>; 2],
    /// So many have promised to come back for those who wait.
    promised: usize,
    told: Option<Instant>,
    asked: Option<Instant>,
}

#[derive(Debug)]
struct Waiting {
    lane: LaneName,
    give: oneshot::Sender<Slot>,
}

/// The right to descriptors, given back on drop.
#[must_use = "a slot that is dropped is somebody else's"]
#[derive(Debug)]
pub struct Slot(Option<(Arc<Descriptors>, Holder)>);

#[derive(Debug)]
enum Holder {
    Client(usize),
    Host(LaneName, Standing),
}

impl Slot {
    /// Where nothing is counted.
    pub fn uncounted() -> Slot {
        Slot(None)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some((descriptors, holder)) = self.0.take() {
            descriptors.give_back(&holder);
        }
    }
}

impl Descriptors {
    /// Divided like that.
    pub fn new(shares: Shares) -> Arc<Descriptors> {
        Arc::new(Descriptors { shares, state: Mutex::default() })
    }

    /// As many as anybody wants: simulations and tests.
    pub fn without_end() -> Arc<Descriptors> {
        let all = usize::MAX / 8;
        let (strangers, refusals, queries, admin) = (all, 64, MAX_QUERIES, 64);
        let (for_clients, for_hosts) = (all / 2, all / 4);
        Descriptors::new(Shares { connections: all, for_clients, for_hosts, strangers, refusals, queries, admin })
    }

    /// How they are divided.
    pub fn shares(&self) -> &Shares {
        &self.shares
    }

    /// Sessions of clients there can be at most, `each` with so many descriptors.
    pub fn most_sessions(&self, each: usize) -> usize {
        ((self.shares.connections - self.shares.for_hosts) / each.max(1)).max(1)
    }

    /// For a session with a client that takes `each` of them; `None`: the part for clients is used up.
    pub fn for_client(self: &Arc<Descriptors>, each: usize) -> Option<Slot> {
        let mut state = self.state.lock();
        let clients = state.clients + each;
        if clients > self.shares.connections - self.shares.for_hosts
            || clients + state.to_hosts() > self.shares.connections
        {
            return None;
        }
        state.clients = clients;
        Some(Slot(Some((self.clone(), Holder::Client(each)))))
    }

    /// For a connection of `lane` to a host, as soon as there is one.
    pub async fn for_host(self: &Arc<Descriptors>, lane: &LaneName, standing: Standing) -> Slot {
        let given = {
            let mut state = self.state.lock();
            if self.has_one_for(&state, lane, standing) {
                return self.take_for_host(&mut state, lane.clone(), standing);
            }
            let (give, given) = oneshot::channel();
            // Those who went away are not counted.
            let queue = &mut state.waiting[standing as usize];
            queue.retain(|waiting| !waiting.give.is_closed());
            queue.push_back(Waiting { lane: lane.clone(), give });
            if state.told.is_none_or(|at| at.elapsed() >= TELL_AGAIN) {
                state.told = Some(Instant::now());
                tracing::warn!(
                    provider = lane.base(),
                    most = self.most_to_hosts(),
                    "connections to hosts wait for file descriptors: raise the limit of open files (LimitNOFILE of \
                     systemd, ulimit -n), or lower `connections`"
                );
            }
            given
        };
        // The other end goes only with all of this.
        given.await.unwrap_or_else(|_| Slot::uncounted())
    }

    /// Connections of `lane` that wait for a descriptor.
    pub fn waiting_of(&self, lane: &LaneName) -> usize {
        let state = self.state.lock();
        state.waiting.iter().flatten().filter(|waiting| waiting.lane == *lane && !waiting.give.is_closed()).count()
    }

    /// Whether whoever keeps one without use for it is to give it up: somebody waits whom nobody else
    /// has made room for. True is a promise to drop a slot.
    pub fn is_wanted(&self) -> bool {
        let mut state = self.state.lock();
        let waiting = state.waiting.iter().flatten().filter(|waiting| !waiting.give.is_closed()).count();
        let wanted = waiting > state.promised;
        state.promised += usize::from(wanted);
        wanted
    }

    /// Whether whoever waits is to have idle connections closed now: once in a while for all of them.
    pub fn wants_idle_ones(&self) -> bool {
        let mut state = self.state.lock();
        let now = state.asked.is_none_or(|at| at.elapsed() >= ASK_AGAIN);
        if now {
            state.asked = Some(Instant::now());
        }
        now
    }

    fn most_to_hosts(&self) -> usize {
        self.shares.connections - self.shares.for_clients
    }

    fn has_one_for(&self, state: &State, lane: &LaneName, standing: Standing) -> bool {
        let taken = state.to_hosts();
        let most = self.most_to_hosts().min(self.shares.connections.saturating_sub(state.clients));
        let free = most.saturating_sub(taken);
        let of_lane = state.of_lane.get(lane).copied().unwrap_or_default();
        of_lane < free
            && (standing == Standing::Known || state.hosts[standing as usize] < (self.most_to_hosts() / 2).max(1))
    }

    fn take_for_host(self: &Arc<Descriptors>, state: &mut State, lane: LaneName, standing: Standing) -> Slot {
        state.hosts[standing as usize] += 1;
        *state.of_lane.entry(lane.clone()).or_default() += 1;
        Slot(Some((self.clone(), Holder::Host(lane, standing))))
    }

    fn give_back(self: &Arc<Descriptors>, holder: &Holder) {
        let mut state = self.state.lock();
        state.forget(holder);
        state.promised = state.promised.saturating_sub(1);
        self.give_to_those_who_wait(&mut state);
    }

    fn give_to_those_who_wait(self: &Arc<Descriptors>, state: &mut State) {
        while let Some((standing, at)) = self.next(state) {
            let Some(Waiting { lane, give }) = state.waiting[standing as usize].remove(at) else { return };
            let slot = self.take_for_host(state, lane, standing);
            if let Err(mut slot) = give.send(slot) {
                // Not dropped: that would lock this again.
                if let Some((_, holder)) = slot.0.take() {
                    state.forget(&holder);
                }
            }
        }
    }

    /// Who of those who wait may have one now. Lanes whose mail nobody took lately have a quarter
    /// before others, so that these do not keep them waiting for ever.
    fn next(&self, state: &State) -> Option<(Standing, usize)> {
        let first = match state.hosts[Standing::Unknown as usize] < self.most_to_hosts() / 4 {
            true => [Standing::Unknown, Standing::Known],
            false => [Standing::Known, Standing::Unknown],
        };
        first.into_iter().find_map(|standing| {
            let queue = &state.waiting[standing as usize];
            let at = queue.iter().position(|waiting| self.has_one_for(state, &waiting.lane, standing))?;
            Some((standing, at))
        })
    }
}

impl State {
    fn to_hosts(&self) -> usize {
        self.hosts.iter().sum()
    }

    fn forget(&mut self, holder: &Holder) {
        match holder {
            Holder::Client(each) => self.clients = self.clients.saturating_sub(*each),
            Holder::Host(lane, standing) => {
                let hosts = &mut self.hosts[*standing as usize];
                *hosts = hosts.saturating_sub(1);
                if let Some(count) = self.of_lane.get_mut(lane) {
                    *count = count.saturating_sub(1);
                    if *count == 0 {
                        self.of_lane.remove(lane);
                    }
                }
            }
        }
    }
}

/// A stream with its right to be open.
#[derive(Debug)]
pub struct Counted<S> {
    stream: S,
    _slot: Slot,
}

impl<S> Counted<S> {
    /// The slot goes with the stream.
    pub fn new(stream: S, slot: Slot) -> Counted<S> {
        Counted { stream, _slot: slot }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests;
