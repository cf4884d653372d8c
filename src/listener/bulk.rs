//! Turns of sessions that send much at once.
//!
//! A piece of a large upload takes as long to work through as several commands of others. With many
//! uploads ready to be read a command would wait for a piece of each of them, again and again: so of all of them
//! one at a time queues among what is ready to run, and the others behind it. A command waits for
//! one piece (one for each thread), however many upload.

use tokio::sync::Semaphore;

use super::memory::TINY_READ;

/// Bytes of a read that are much: one that fills the smallest buffer, as what is passed over does, too.
const MUCH: usize = TINY_READ;

/// The turns of all sessions; see the module.
#[derive(Debug)]
pub(super) struct Bulk {
    next: Semaphore,
}

impl Bulk {
    pub(super) fn new() -> Bulk {
        Bulk { next: Semaphore::new(1) }
    }

    /// Waits until a session that read `bytes` may work them through.
    pub(super) async fn turn(&self, bytes: usize) {
        if bytes < MUCH {
            return;
        }
        // It is never closed.
        let _next = self.next.acquire().await;
        // To the end of what is ready to run.
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Pieces that `uploads` work through between two steps of a session of commands, at most.
    async fn pieces_between(uploads: u32, bulk: &Arc<Bulk>) -> u32 {
        let pieces = Arc::new(AtomicU32::new(0));
        let all: Vec<_> = (0..uploads)
            .map(|_| {
                let (bulk, pieces) = (bulk.clone(), pieces.clone());
                tokio::spawn(async move {
                    loop {
                        bulk.turn(64 * 1024).await;
                        pieces.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let mut most = 0;
        for _ in 0..200 {
            let before = pieces.load(Ordering::Relaxed);
            bulk.turn(100).await;
            tokio::task::yield_now().await;
            most = most.max(pieces.load(Ordering::Relaxed) - before);
        }
        let done = pieces.load(Ordering::Relaxed);
        assert!(done >= 100, "uploads go on: {done}");
        all.iter().for_each(tokio::task::JoinHandle::abort);
        most
    }

    #[tokio::test]
    async fn a_command_waits_for_one_piece_however_many_upload() {
        for uploads in [1, 3, 60] {
            let most = pieces_between(uploads, &Arc::new(Bulk::new())).await;
            assert!(most <= 2, "{uploads}: {most}");
        }
    }
}
