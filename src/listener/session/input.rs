//! What a session reads: with a time limit, and no more than it has memory for.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::{Instant, timeout_at};

use super::{End, GOES_ON, SMALL, Session, Wait};
use crate::listener::draft::Draft;
use crate::listener::memory::{Ticket, Upload};
use crate::listener::policy::{CLOSING, NO_MEMORY, TIMEOUT, TOO_SLOW};
use crate::listener::submit::Shared;
use crate::queue::QueueError;

impl<S> Session<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    /// Reads more of a message, once there is memory for what it has so far.
    pub(super) async fn read_on(&mut self, draft: &Draft) -> Result<(), End> {
        if draft.refusal().is_some() {
            // The rest is only counted.
            self.upload.end();
        } else if !self.upload.covers(draft.content()) {
            let ticket = self.wait_for_memory().await?;
            if let Some(ticket) = ticket {
                self.upload.put(ticket);
            }
        }
        self.fill(Wait::Data).await
    }

    /// Waits for its turn to have memory; `None`: there is some.
    async fn wait_for_memory(&mut self) -> Result<Option<Ticket>, End> {
        let Ok(asked) = self.upload.ask() else { return Err(End::Because(NO_MEMORY)) };
        let Some(mut waiting) = asked else { return Ok(None) };
        let limit = Instant::now() + self.shared.listener.data_timeout;
        loop {
            let expires = limit.min(self.deadline);
            tokio::select! {
                biased;
                () = self.stop.asked(), if !self.stopping => self.begin_to_stop(),
                granted = timeout_at(expires, &mut waiting) => {
                    return match granted {
                        Ok(ticket) => Ok(ticket),
                        Err(_) if self.stopping && expires == self.deadline => Err(End::Because(CLOSING)),
                        Err(_) => Err(End::Because(NO_MEMORY)),
                    };
                }
            }
        }
    }

    /// From now on there is only the drain time.
    fn begin_to_stop(&mut self) {
        self.stopping = true;
        self.deadline = self.deadline.min(Instant::now() + self.stop.drain);
    }

    /// Sends what waits, then reads at least a byte.
    pub(super) async fn fill(&mut self, wait: Wait) -> Result<(), End> {
        self.flush().await?;
        self.make_room(wait);
        let idle = wait != Wait::Data && self.dialog.transaction.is_none();
        let (mut limit, since) = match wait {
            Wait::Command(until) => (until, until.checked_sub(self.shared.listener.command_timeout)),
            Wait::Data => (Instant::now() + self.shared.listener.data_timeout, None),
        };
        let before_data = wait != Wait::Data && self.chunks.is_none();
        loop {
            // Asked here too: a client that never stops sending must not escape.
            if !self.stopping && *self.stop.signal.borrow() {
                self.begin_to_stop();
            }
            if self.stopping && before_data {
                limit = limit.min(since.unwrap_or_else(Instant::now) + GOES_ON);
            }
            if Instant::now() >= self.deadline {
                return Err(End::Because(if self.stopping { CLOSING } else { TIMEOUT }));
            }
            if self.upload.too_slow() {
                return Err(End::Because(TOO_SLOW));
            }
            let last = limit.min(self.deadline);
            let expires = self.upload.check_at().map_or(last, |check| check.min(last));
            let read = self.stream.read_buf(&mut self.input);
            let result = if self.stopping {
                if idle {
                    return Err(End::Because(CLOSING));
                }
                timeout_at(expires, read).await
            } else {
                tokio::select! {
                    biased;
                    result = timeout_at(expires, read) => result,
                    () = self.stop.asked() => continue,
                }
            };
            return match result {
                Ok(Ok(0)) => Err(End::Gone(io::ErrorKind::UnexpectedEof.into())),
                Ok(Ok(n)) => {
                    self.upload.turn(n).await;
                    Ok(())
                }
                // Cut off inside TLS: the text of rustls is for programmers.
                Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Err(End::Gone(error.kind().into())),
                Ok(Err(error)) => Err(End::Gone(error)),
                Err(_) if expires < last => continue,
                Err(_) if self.stopping && (before_data || expires == self.deadline) => Err(End::Because(CLOSING)),
                Err(_) => Err(End::Because(TIMEOUT)),
            };
        }
    }

    /// Makes the input buffer fit what is going on.
    fn make_room(&mut self, wait: Wait) {
        let full = self.input.len() == self.input.capacity();
        if self.start == self.input.len() {
            self.input.clear();
        } else {
            self.input.drain(..self.start);
        }
        self.start = 0;
        let size = if wait == Wait::Data { self.upload.read_size() } else { SMALL };
        if self.input.capacity() > size && self.input.len() < size {
            let mut smaller = Vec::with_capacity(size);
            smaller.append(&mut self.input);
            self.input = smaller;
        } else if full && self.input.capacity() < size {
            self.input.reserve_exact(size - self.input.len());
        } else if self.input.len() == self.input.capacity() {
            self.input.reserve(SMALL);
        }
    }
}

/// Hands what is more than a chunk to the queue. The time that takes is ours, not the client's.
pub(super) async fn spill(upload: &mut Upload, shared: &Shared, draft: &mut Draft) -> Result<(), QueueError> {
    if !draft.has_chunk() {
        return Ok(());
    }
    let began = Instant::now();
    let spilled = draft.spill(shared.queue()).await;
    upload.pause(began.elapsed());
    spilled
}
