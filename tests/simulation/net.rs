//! A network of streams in memory: every byte arrives in order and after a delay, or not at all.
//! [`Stream`] is the relay's end, [`Remote`] that of who talks with it. A stream can be cut at any
//! byte, by a reset or by silence.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};

use super::world::World;

/// What a cut does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// Both ends hear of it.
    Reset,
    /// Nothing arrives any more, at either end.
    Hole,
}

/// Where a stream breaks: after so many bytes to (`true`) or from the remote end.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    pub to_remote: bool,
    pub after: usize,
    pub how: How,
}

/// One direction.
#[derive(Default)]
struct Way {
    /// When it arrives, when it was sent, what.
    segments: VecDeque<(Instant, Instant, Bytes)>,
    /// Bytes written, and bytes read at the other end.
    written: usize,
    read: usize,
    fin: Option<Instant>,
    reset: Option<Instant>,
}

impl Way {
    /// When something can be read next.
    fn next(&self) -> Option<Instant> {
        let data = self.segments.front().map(|(at, ..)| *at);
        data.or(self.fin).into_iter().chain(self.reset).min()
    }

    fn is_reset(&self, now: Instant) -> bool {
        self.reset.is_some_and(|at| at <= now)
    }
}

struct Link {
    to_remote: Way,
    to_relay: Way,
    latency: (u64, u64),
    cut: Option<Cut>,
    hole: bool,
    /// The relay has ended its direction: what it still reads it throws away.
    parting: bool,
    relay_waker: Option<Waker>,
    /// Positions in what goes to the relay, and where it is noted when the relay read them.
    marks: Vec<(usize, Mark)>,
}

/// When the relay has read something.
pub type Mark = Arc<Mutex<Option<Instant>>>;

type Shared = Arc<(Mutex<Link>, Notify, Arc<World>)>;

/// The relay's end.
pub struct Stream {
    shared: Shared,
    sleep: Option<Pin<Box<Sleep>>>,
    /// The group whose connections it counts among, once it is used.
    group: Option<usize>,
    used: bool,
}

/// The other end.
pub struct Remote {
    shared: Shared,
}

/// What a remote end hears.
pub enum Heard {
    /// Bytes, and when they were sent.
    Bytes(Bytes, Instant),
    /// The end.
    End,
}

/// A connected pair.
pub fn pair(world: &Arc<World>, latency: (u64, u64), cut: Option<Cut>, group: Option<usize>) -> (Stream, Remote) {
    let link = Link {
        to_remote: Way::default(),
        to_relay: Way::default(),
        latency,
        cut,
        hole: false,
        parting: false,
        relay_waker: None,
        marks: Vec::new(),
    };
    let shared: Shared = Arc::new((Mutex::new(link), Notify::new(), world.clone()));
    (Stream { shared: shared.clone(), sleep: None, group, used: false }, Remote { shared })
}

impl Link {
    fn delay(&self, world: &World) -> Duration {
        Duration::from_millis(world.random(self.latency.0..=self.latency.1))
    }

    /// Puts bytes on their way.
    fn send(&mut self, world: &World, to_remote: bool, bytes: &[u8]) {
        let now = Instant::now();
        let arrives = now + self.delay(world);
        let cut = self.cut.filter(|cut| cut.to_remote == to_remote);
        let way = if to_remote { &mut self.to_remote } else { &mut self.to_relay };
        let arrives = way.segments.back().map_or(arrives, |(last, ..)| arrives.max(*last));
        let before = way.written;
        way.written += bytes.len();
        if self.hole || way.fin.is_some() {
            return;
        }
        let left = cut.map_or(bytes.len(), |cut| cut.after.saturating_sub(before).min(bytes.len()));
        if left > 0 {
            way.segments.push_back((arrives, now, Bytes::copy_from_slice(&bytes[..left])));
        }
        if let Some(cut) = cut.filter(|_| left < bytes.len()) {
            match cut.how {
                How::Hole => self.hole = true,
                How::Reset => self.reset(arrives),
            }
        }
    }

    fn reset(&mut self, at: Instant) {
        self.to_remote.reset.get_or_insert(at);
        self.to_relay.reset.get_or_insert(at);
    }

    fn wake(&mut self, remote: &Notify) {
        if let Some(waker) = self.relay_waker.take() {
            waker.wake();
        }
        remote.notify_one();
    }
}

impl Stream {
    fn use_it(&mut self) {
        if !self.used {
            self.used = true;
            if let Some(group) = self.group {
                self.shared.2.opened(group);
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.use_it();
        let shared = self.shared.clone();
        let (link, remote, world) = &*shared;
        if world.is_dead() {
            return Poll::Pending;
        }
        loop {
            let now = Instant::now();
            let next = {
                let mut link = link.lock();
                if link.to_relay.is_reset(now) {
                    return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                }
                if let Some((_, _, bytes)) = link.to_relay.segments.front_mut().filter(|(at, ..)| *at <= now) {
                    let part = bytes.split_to(bytes.len().min(buf.remaining()));
                    let empty = bytes.is_empty();
                    buf.put_slice(&part);
                    if empty {
                        link.to_relay.segments.pop_front();
                    }
                    link.to_relay.read += part.len();
                    let read = link.to_relay.read;
                    let parting = link.parting;
                    link.marks.retain(|(at, mark)| {
                        if *at <= read && !parting {
                            *mark.lock() = Some(now);
                        }
                        *at > read
                    });
                    return Poll::Ready(Ok(()));
                }
                if link.to_relay.segments.is_empty() && link.to_relay.fin.is_some_and(|at| at <= now) {
                    return Poll::Ready(Ok(()));
                }
                link.relay_waker = Some(cx.waker().clone());
                link.to_relay.next()
            };
            let _ = remote;
            match next {
                None => return Poll::Pending,
                Some(at) => {
                    let sleep = match &mut self.sleep {
                        Some(sleep) => {
                            if sleep.deadline() != at {
                                sleep.as_mut().reset(at);
                            }
                            sleep
                        }
                        none => none.insert(Box::pin(tokio::time::sleep_until(at))),
                    };
                    if sleep.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.use_it();
        let (link, remote, world) = &*self.shared;
        if world.step() {
            return Poll::Pending;
        }
        let mut link = link.lock();
        if link.to_relay.is_reset(Instant::now()) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        link.send(world, true, buf);
        link.wake(remote);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (link, remote, world) = &*self.shared;
        let mut link = link.lock();
        link.parting = true;
        if !link.hole {
            let last = link.to_remote.segments.back().map(|(at, ..)| *at);
            let at = Instant::now() + link.delay(world);
            link.to_remote.fin.get_or_insert(last.map_or(at, |last| at.max(last)));
        }
        link.wake(remote);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let (link, remote, world) = &*self.shared;
        {
            let mut link = link.lock();
            link.relay_waker = None;
            // At the end of a life time has stopped, and nobody listens any more.
            if !world.is_dead() && !link.hole {
                let last = link.to_remote.segments.back().map(|(at, ..)| *at);
                let at = Instant::now() + link.delay(world);
                link.to_remote.fin.get_or_insert(last.map_or(at, |last| at.max(last)));
            }
            remote.notify_one();
        }
        if let (true, Some(group)) = (self.used, self.group) {
            world.closed(group);
        }
    }
}

impl Remote {
    /// The next bytes, or the end, whichever comes.
    pub async fn hear(&mut self) -> Heard {
        let (link, notify, _) = &*self.shared;
        loop {
            let notified = notify.notified();
            let next = {
                let now = Instant::now();
                let mut link = link.lock();
                if link.to_remote.is_reset(now) {
                    return Heard::End;
                }
                if let Some((_, sent, bytes)) = link.to_remote.segments.pop_front_if(|(at, ..)| *at <= now) {
                    link.to_remote.read += bytes.len();
                    return Heard::Bytes(bytes, sent);
                }
                if link.to_remote.segments.is_empty() && link.to_remote.fin.is_some_and(|at| at <= now) {
                    return Heard::End;
                }
                link.to_remote.next()
            };
            match next {
                Some(at) => {
                    tokio::select! {
                        biased;
                        () = notified => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
                None => notified.await,
            }
        }
    }

    /// Writes.
    pub fn say(&self, text: &[u8]) {
        let (link, notify, world) = &*self.shared;
        let mut link = link.lock();
        link.send(world, false, text);
        link.wake(notify);
    }

    /// Notes when the relay has read all that was written so far, the last of it included. Never, if
    /// it had given the connection up by then.
    pub fn mark(&self, mark: &Mark) {
        let mut link = self.shared.0.lock();
        let at = link.to_relay.written;
        // Bytes that were cut off are never read.
        link.marks.push((at, mark.clone()));
    }

    /// From now on nothing arrives, either way.
    pub fn vanish(&self) {
        self.shared.0.lock().hole = true;
    }

    /// Breaks the connection.
    pub fn reset(&self) {
        let (link, notify, world) = &*self.shared;
        let mut link = link.lock();
        let at = Instant::now() + link.delay(world);
        link.reset(at);
        link.wake(notify);
    }

    /// Ends this direction.
    pub fn finish(&self) {
        let (link, notify, world) = &*self.shared;
        let mut link = link.lock();
        if !link.hole {
            let last = link.to_relay.segments.back().map(|(at, ..)| *at);
            let at = Instant::now() + link.delay(world);
            link.to_relay.fin.get_or_insert(last.map_or(at, |last| at.max(last)));
        }
        link.wake(notify);
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        if !self.shared.2.is_dead() {
            self.finish();
        }
    }
}

/// Lines out of what a remote end hears.
pub struct Lines {
    pub remote: Remote,
    input: BytesMut,
    sent: Instant,
}

impl Lines {
    pub fn new(remote: Remote) -> Lines {
        Lines { remote, input: BytesMut::new(), sent: Instant::now() }
    }

    /// The next line without its end, and when its last byte was sent; `None` at the end.
    pub async fn next(&mut self) -> Option<(String, Instant)> {
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.input) {
                let line = self.input.split_to(at + 1);
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                return Some((text, self.sent));
            }
            self.more().await?;
        }
    }

    /// Exactly so many bytes.
    pub async fn bytes(&mut self, n: usize) -> Option<Bytes> {
        while self.input.len() < n {
            self.more().await?;
        }
        Some(self.input.split_to(n).freeze())
    }

    async fn more(&mut self) -> Option<()> {
        match self.remote.hear().await {
            Heard::Bytes(bytes, sent) => {
                self.input.extend_from_slice(&bytes);
                self.sent = sent;
                Some(())
            }
            Heard::End => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Whether the relay knows of a reply that comes before or after it ends the connection.
    async fn knows(parts_first: bool) -> bool {
        let world = World::new(1);
        let (mut stream, remote) = pair(&world, (1, 1), None, None);
        if parts_first {
            stream.shutdown().await.expect("an end");
        }
        let mark = Mark::default();
        remote.say(b"250 taken\r\n");
        remote.mark(&mark);
        let mut read = [0; 11];
        stream.read_exact(&mut read).await.expect("a reply");
        mark.lock().is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_read_and_thrown_away_at_the_end_is_not_known() {
        assert!(knows(false).await);
        assert!(!knows(true).await);
    }
}
