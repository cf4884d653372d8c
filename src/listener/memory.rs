//! What clients can make us hold, within its part of `[queue] memory`.
//!
//! A message that comes in needs memory by its size so far: a *tiny* one fits into what every
//! session has anyway; a *short* one needs a ticket for [`SHORT`] bytes, a *long* one a ticket for
//! [`LONG`] bytes, which is all it will ever need: what is beyond goes to the queue chunk by chunk.
//! A session that gets no ticket reads no further until it does, so its client waits.
//!
//! Invariants:
//! - Tickets never exceed the part, but for one message of each kind, so that there is always one
//!   that goes on.
//! - Who has a long ticket waits for no other, who has a short one waits only for a long one: there
//!   is no circle of sessions that wait for each other.
//! - Tiny messages never wait. Uploads that wait for a long ticket have at most half of the short
//!   ones, so that a crowd of them does not hold up short messages either.
//! - A ticket that comes back goes to the client address that has the fewest of its kind, then to
//!   whoever waits longest. While somebody waits, a holder whose message does not grow by
//!   [`LEAST_GROWTH`] in [`GROWTH_TIME`] loses its session, so that who stands still has nothing
//!   for long that others need.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::bulk::Bulk;
use crate::mail::CHUNK;

/// Content up to this many bytes needs no ticket, and up to the second a short one.
const TINY_CONTENT: u64 = 8 * 1024;
const SHORT_CONTENT: u64 = 64 * 1024;

/// Read buffers by kind, in bytes.
pub(super) const TINY_READ: usize = 4 * 1024;
const SHORT_READ: usize = 16 * 1024;
const LONG_READ: usize = 64 * 1024;

/// A session that waits: its state, its read and write buffers.
const SESSION: u64 = 8 * 1024;
/// A message that has begun, with a few recipients: up to [`TINY_CONTENT`], with slack.
const TINY: u64 = 16 * 1024;
/// A short message: content with the slack of a buffer that grows by doubling, and a read.
pub const SHORT: u64 = 128 * 1024;
/// A long one: its first chunk, another that fills or is on its way to the queue, with its slack,
/// what came behind that, and a read.
pub const LONG: u64 = (CHUNK + (CHUNK + CHUNK / 4) + 2 * LONG_READ) as u64;

/// Least part for what comes in, in bytes: a long message and two short ones.
const LEAST: u64 = 1 << 20;

/// See the module.
const LEAST_GROWTH: u64 = 64 * 1024;
const GROWTH_TIME: Duration = Duration::from_secs(10);

/// The part of a memory budget of `memory` bytes that is for what comes in: a quarter.
pub fn part_of(memory: u64) -> u64 {
    (memory / 4).max(LEAST)
}

/// What is left of a memory budget of `memory` bytes for what is on its way out.
pub fn rest_of(memory: u64) -> u64 {
    memory - memory / 4
}

/// The memory of all listeners for what comes in.
#[derive(Debug)]
pub struct Memory {
    short: Arc<Pool>,
    long: Arc<Pool>,
    bulk: Bulk,
}

impl Memory {
    /// `bytes`: the part of all listeners together ([`part_of`]).
    pub fn new(bytes: u64) -> Arc<Memory> {
        let bytes = bytes.max(LEAST);
        let short = (bytes / 4).max(2 * SHORT);
        Arc::new(Memory { short: Pool::new(short, SHORT), long: Pool::new(bytes - short, LONG), bulk: Bulk::new() })
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.short.state.lock().used + self.long.state.lock().used
    }

    /// A session begins: counted, never refused. `max_connections` bounds their number.
    pub(super) fn session(&self) -> Charge {
        self.long.charge(SESSION)
    }

    /// For the recipients of a message: nothing so far.
    pub(super) fn envelope(&self) -> Charge {
        self.long.charge(0)
    }

    /// The account of a client at `ip`.
    pub(super) fn upload(self: &Arc<Memory>, ip: IpAddr) -> Upload {
        Upload {
            memory: self.clone(),
            client: client_of(ip),
            announced: 0,
            content: 0,
            tiny: None,
            ticket: None,
            window: Instant::now(),
            before: 0,
        }
    }
}

/// Who shares: an IPv4 address, or a /64, which is what one host may have of IPv6.
fn client_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

/// Tickets of one size.
#[derive(Debug)]
struct Pool {
    limit: u64,
    each: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes of tickets and charges.
    used: u64,
    tickets: u64,
    /// Tickets by client.
    held: HashMap<IpAddr, u32>,
    /// In the order in which they came; at most one a session.
    waiting: BTreeMap<u64, Waiter>,
    came: u64,
    /// Of those, who has a ticket of another kind.
    waiting_with_ticket: u64,
}

#[derive(Debug)]
struct Waiter {
    client: IpAddr,
    with_ticket: bool,
    grant: oneshot::Sender<Ticket>,
}

impl Pool {
    fn new(limit: u64, each: u64) -> Arc<Pool> {
        Arc::new(Pool { limit, each, state: Mutex::default() })
    }

    fn has_room(&self, state: &State) -> bool {
        state.tickets == 0 || state.used + self.each <= self.limit
    }

    fn take(self: &Arc<Pool>, state: &mut State, client: IpAddr) -> Ticket {
        state.used += self.each;
        state.tickets += 1;
        *state.held.entry(client).or_default() += 1;
        Ticket { pool: self.clone(), client }
    }

    fn charge(self: &Arc<Pool>, bytes: u64) -> Charge {
        self.state.lock().used += bytes;
        Charge { pool: self.clone(), bytes }
    }

    /// A place among those who wait, or a ticket at once.
    fn ask(self: &Arc<Pool>, client: IpAddr, with_ticket: bool) -> Asked {
        let mut state = self.state.lock();
        if state.waiting.is_empty() && self.has_room(&state) {
            return Asked::Granted(self.take(&mut state, client));
        }
        state.came += 1;
        state.waiting_with_ticket += u64::from(with_ticket);
        let (place, (grant, granted)) = (state.came, oneshot::channel());
        state.waiting.insert(place, Waiter { client, with_ticket, grant });
        Asked::Waits(Waiting { pool: self.clone(), place, granted })
    }

    /// Gives out what is free.
    fn serve(self: &Arc<Pool>) {
        loop {
            let mut state = self.state.lock();
            if !self.has_room(&state) {
                return;
            }
            let least = |(place, waiter): &(&u64, &Waiter)| {
                (state.held.get(&waiter.client).copied().unwrap_or_default(), **place)
            };
            let Some(place) = state.waiting.iter().min_by_key(least).map(|(place, _)| *place) else { return };
            let Some(waiter) = state.leave(place) else { return };
            let ticket = self.take(&mut state, waiter.client);
            drop(state);
            // Who has just gone away gives it back as it is dropped.
            let _ = waiter.grant.send(ticket);
        }
    }
}

impl State {
    fn leave(&mut self, place: u64) -> Option<Waiter> {
        let waiter = self.waiting.remove(&place)?;
        self.waiting_with_ticket -= u64::from(waiter.with_ticket);
        Some(waiter)
    }
}

enum Asked {
    Granted(Ticket),
    Waits(Waiting),
}

/// A place among those who wait; given up on drop.
#[derive(Debug)]
pub(super) struct Waiting {
    pool: Arc<Pool>,
    place: u64,
    granted: oneshot::Receiver<Ticket>,
}

impl Future for Waiting {
    type Output = Option<Ticket>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Ticket>> {
        Poll::Ready(ready!(Pin::new(&mut self.granted).poll(context)).ok())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.pool.state.lock().leave(self.place);
    }
}

/// Memory for one message; given back on drop.
#[derive(Debug)]
pub(super) struct Ticket {
    pool: Arc<Pool>,
    client: IpAddr,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.pool.state.lock();
        state.used -= self.pool.each;
        state.tickets -= 1;
        if let Some(held) = state.held.get_mut(&self.client) {
            *held -= 1;
            if *held == 0 {
                state.held.remove(&self.client);
            }
        }
        drop(state);
        self.pool.serve();
    }
}

/// Bytes that are counted; given back on drop.
#[must_use = "a dropped charge counts no more"]
#[derive(Debug)]
pub(super) struct Charge {
    pool: Arc<Pool>,
    bytes: u64,
}

impl Charge {
    /// Counts more, if that is free; there is no waiting for it.
    pub(super) fn add(&mut self, bytes: u64) -> bool {
        let mut state = self.pool.state.lock();
        let fits = state.used + bytes <= self.pool.limit;
        if fits {
            state.used += bytes;
            self.bytes += bytes;
        }
        fits
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.pool.state.lock().used -= self.bytes;
        self.pool.serve();
    }
}

/// Why a message cannot go on: so many wait that one more would hold up short messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Crowded;

/// The account of a session: what its current message may hold.
#[derive(Debug)]
pub(super) struct Upload {
    memory: Arc<Memory>,
    client: IpAddr,
    /// Bytes that the client has announced.
    announced: u64,
    /// Bytes of content so far.
    content: u64,
    /// From the start of the message.
    tiny: Option<Charge>,
    ticket: Option<Ticket>,
    /// Since when, and from which size on, its growth is watched.
    window: Instant,
    before: u64,
}

impl Upload {
    /// A message begins, or another part of it, of which the client announces so many bytes: it
    /// will ask at once for what they need.
    pub fn begin(&mut self, announced: u64) {
        self.announced = self.announced.max(announced);
        self.tiny.get_or_insert_with(|| self.memory.long.charge(TINY));
    }

    /// The message is over, and nothing of it is held any more.
    pub fn end(&mut self) {
        (self.tiny, self.ticket) = (None, None);
        (self.announced, self.content) = (0, 0);
    }

    /// Its session has read so many bytes: waits until it may work them through.
    pub async fn turn(&self, bytes: usize) {
        self.memory.bulk.turn(bytes).await;
    }

    fn has_long(&self) -> bool {
        self.ticket.as_ref().is_some_and(|ticket| ticket.pool.each == LONG)
    }

    /// The message has `content` bytes by now. `false`: it must not read more before it
    /// [`asks`](Upload::ask).
    pub fn covers(&mut self, content: u64) -> bool {
        self.content = content;
        match &self.ticket {
            _ if content <= TINY_CONTENT => true,
            None => false,
            Some(_) => content <= SHORT_CONTENT || self.has_long(),
        }
    }

    /// Asks for what it needs to go on; what comes of it is for [`Upload::put`]. `None`: it goes
    /// on at once.
    ///
    /// # Errors
    /// See [`Crowded`].
    pub fn ask(&mut self) -> Result<Option<Waiting>, Crowded> {
        let long = self.content.max(self.announced) > SHORT_CONTENT;
        let pool = if long { &self.memory.long } else { &self.memory.short };
        let with_ticket = self.ticket.is_some();
        if with_ticket {
            let state = pool.state.lock();
            let most = self.memory.short.limit / self.memory.short.each / 2;
            let waits = !state.waiting.is_empty() || !pool.has_room(&state);
            if waits && state.waiting_with_ticket >= most.max(1) {
                return Err(Crowded);
            }
        }
        match pool.ask(self.client, with_ticket) {
            Asked::Waits(waiting) => Ok(Some(waiting)),
            Asked::Granted(ticket) => {
                self.put(ticket);
                Ok(None)
            }
        }
    }

    /// Takes what was asked for, in place of what it had.
    pub fn put(&mut self, ticket: Ticket) {
        self.ticket = Some(ticket);
        (self.window, self.before) = (Instant::now(), self.content);
    }

    /// It could not read for so long, which is not its client's fault.
    pub fn pause(&mut self, time: Duration) {
        self.window += time;
    }

    /// Bytes to read at once.
    pub fn read_size(&self) -> usize {
        match &self.ticket {
            None => TINY_READ,
            Some(_) if self.has_long() => LONG_READ,
            Some(_) => SHORT_READ,
        }
    }

    /// When to ask next whether it is [too slow](Upload::too_slow); `None`: it has nothing that
    /// others might wait for.
    pub fn check_at(&self) -> Option<Instant> {
        self.ticket.as_ref().map(|_| self.window + GROWTH_TIME)
    }

    /// Others wait for what it has, and it has hardly grown since it was asked last.
    pub fn too_slow(&mut self) -> bool {
        let Some(ticket) = &self.ticket else { return false };
        let now = Instant::now();
        if now < self.window + GROWTH_TIME {
            return false;
        }
        let slow = self.content - self.before.min(self.content) < LEAST_GROWTH;
        (self.window, self.before) = (now, self.content);
        slow && !ticket.pool.state.lock().waiting.is_empty()
    }
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
