//! A load with a given pace in which every message is accounted for.
//!
//! Message n is due n / rate seconds after the start, whether the relay keeps up or not: a relay
//! that stalls is asked for all it missed, and what waited for it has that wait in its figures.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::support::figures::Figures;
use crate::support::load::{Client, block_on, body};
use crate::support::now_nanos;

/// Sessions that share the load.
const SESSIONS: u64 = 40;

/// Before a session that lost its connection makes another one.
const PAUSE: Duration = Duration::from_millis(100);

/// What was sent, and what is not known to have arrived.
#[derive(Default)]
pub struct Ledger {
    /// Messages with a `250`.
    pub accepted: AtomicU64,
    /// Messages that got another reply or none.
    pub refused: AtomicU64,
    /// When their final dots left, by number.
    waiting: Mutex<HashMap<u64, u64>>,
    /// Milliseconds from when a message was due to its `250`, since they were last taken.
    replies: Mutex<Figures>,
}

/// What came of the messages that a receiver saw.
#[derive(Default)]
pub struct Arrived {
    /// Milliseconds from the final dot to the receipt.
    pub delays: Figures,
    /// Messages that had arrived before, or whose sender was not told that they were taken.
    pub again: u64,
}

impl Ledger {
    /// Messages that have not arrived.
    pub fn left(&self) -> usize {
        self.waiting.lock().len()
    }

    /// Times of replies since the last call.
    pub fn take_replies(&self) -> Figures {
        std::mem::take(&mut *self.replies.lock())
    }

    /// Strikes off what arrived, given by number and time, and adds it to `arrived`.
    pub fn settle(&self, probes: &HashMap<u64, u64>, arrived: &mut Arrived) {
        let mut waiting = self.waiting.lock();
        for (number, came) in probes {
            match waiting.remove(number) {
                Some(sent) => arrived.delays.push(came.saturating_sub(sent) as f64 / 1e6),
                None => arrived.again += 1,
            }
        }
    }
}

/// Sends `rate` messages a second for `time`, on this thread.
pub fn send(to: SocketAddr, rate: f64, time: Duration, ledger: &Arc<Ledger>) -> io::Result<()> {
    block_on(async {
        let (next, body) = (Arc::new(AtomicU64::new(0)), Arc::new(body(2048)));
        let (began, count) = (Instant::now(), (rate * time.as_secs_f64()) as u64);
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..SESSIONS {
            let (next, body, ledger) = (next.clone(), body.clone(), ledger.clone());
            tasks.spawn(async move {
                let mut client = None;
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    let due = began + Duration::from_secs_f64(number as f64 / rate);
                    tokio::time::sleep_until(due).await;
                    match one(to, &mut client, number, &body, &ledger).await {
                        Ok(()) => {
                            ledger.accepted.fetch_add(1, Ordering::Relaxed);
                            ledger.replies.lock().push(due.elapsed().as_secs_f64() * 1e3);
                        }
                        Err(_) => {
                            ledger.waiting.lock().remove(&number);
                            ledger.refused.fetch_add(1, Ordering::Relaxed);
                            client = None;
                            tokio::time::sleep(PAUSE).await;
                        }
                    }
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.map_err(io::Error::other)?;
        }
        Ok(())
    })?
}

async fn one(to: SocketAddr, client: &mut Option<Client>, number: u64, body: &[u8], ledger: &Ledger) -> io::Result<()> {
    let open = match client {
        Some(open) => open,
        None => client.insert(Client::open(to, None).await?),
    };
    open.envelope("from@bench.example", &format!("probe-{number}@there.example")).await?;
    // It can arrive before its 250 is here.
    ledger.waiting.lock().insert(number, now_nanos());
    open.say(body).await
}
