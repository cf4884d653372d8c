//! The end of a connection, so that the last reply arrives: a close with unread input would reset the
//! connection and take the reply with it (RFC 1122 §4.2.2.13). So what the client still sends is read,
//! for a while, and thrown away.
//!
//! Invariant: what is thrown away costs little, whatever clients send. It is read in large pieces into a
//! buffer that all connections of a thread share, with a pause behind each, and the pauses grow with the number
//! of those that hang up: all together read at most [`AT_ONCE`] pieces in a [`PAUSE`], 256 MiB a second.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, sleep, timeout_at};

/// Time for a client to see the end and close its side.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// Bytes of a piece.
const PIECE: usize = 64 * 1024;
/// Between two pieces of one connection, while few hang up.
const PAUSE: Duration = Duration::from_millis(2);
/// Connections that may read a piece in each pause.
const AT_ONCE: u32 = 8;

/// Connections that hang up now.
static HANGING: AtomicU32 = AtomicU32::new(0);

thread_local! {
    /// Where it all goes. Nobody reads it.
    static AWAY: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Counted in [`HANGING`].
struct Hanging;

impl Hanging {
    fn begin() -> Hanging {
        HANGING.fetch_add(1, Ordering::Relaxed);
        Hanging
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        HANGING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How long to rest while so many hang up.
fn pause(hanging: u32) -> Duration {
    PAUSE * hanging.div_ceil(AT_ONCE).max(1)
}

/// Closes our side, and waits up to [`PATIENCE`] for the client to close its own.
pub(super) async fn hang_up<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    let until = Instant::now() + PATIENCE;
    // With TLS something has to be written for that.
    if !matches!(timeout_at(until, stream.shutdown()).await, Ok(Ok(()))) {
        return;
    }
    let _hanging = Hanging::begin();
    let drain = async {
        while let Ok(1..) = poll_fn(|cx| throw_away(stream, cx)).await {
            sleep(pause(HANGING.load(Ordering::Relaxed))).await;
        }
    };
    let _ = timeout_at(until, drain).await;
}

/// Reads a piece; how many bytes it had.
fn throw_away<S: AsyncRead + Unpin>(stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    AWAY.with_borrow_mut(|away| {
        away.resize(PIECE, 0);
        let mut piece = ReadBuf::new(away);
        Pin::new(stream).poll_read(cx, &mut piece).map_ok(|()| piece.filled().len())
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, duplex};

    use super::*;

    /// A client that sends `mib` MiB and then closes; how much it got rid of.
    async fn sent_to_one_who_hangs_up(mib: usize) -> usize {
        let (mut client, mut ours) = duplex(256 * 1024);
        let ours = tokio::spawn(async move { hang_up(&mut ours).await });
        let mut sent = 0;
        while sent < mib << 20 && client.write_all(&[b'x'; 16 * 1024]).await.is_ok() {
            sent += 16 * 1024;
        }
        drop(client);
        ours.await.expect("no panic");
        sent
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_client_still_sends_is_read_so_that_it_hears_the_reply() {
        let (mut client, mut ours) = duplex(1024 * 1024);
        client.write_all(&vec![b'x'; 900_000]).await.expect("room");
        ours.write_all(b"421 bye\r\n").await.expect("room");
        let both = tokio::join!(hang_up(&mut ours), async {
            let mut reply = String::new();
            client.read_to_string(&mut reply).await.expect("text");
            drop(client);
            reply
        });
        assert_eq!(both.1, "421 bye\r\n");
    }

    #[tokio::test(start_paused = true)]
    async fn many_who_send_on_and_on_are_read_slowly_and_not_for_ever() {
        let begun = Instant::now();
        assert_eq!(sent_to_one_who_hangs_up(8).await, 8 << 20, "a second is enough for one");
        assert!(begun.elapsed() < PATIENCE);
        let begun = Instant::now();
        let all = (0..100).map(|_| tokio::spawn(sent_to_one_who_hangs_up(100)));
        let mut sent = 0;
        for one in all.collect::<Vec<_>>() {
            sent += one.await.expect("no panic");
        }
        assert!(begun.elapsed() <= PATIENCE + PAUSE * 100);
        // What is in their pipes, and what was read. Tests beside this one may hang up too, which makes it less.
        let most =
            100 * 256 * 1024 + (PATIENCE.as_micros() / PAUSE.as_micros() + 2) as usize * AT_ONCE as usize * PIECE;
        assert!((10 << 20..most + (25 << 20)).contains(&sent), "{sent}");
    }

    #[test]
    fn pauses_grow_with_those_who_hang_up() {
        for (hanging, pauses) in [(0, 1), (1, 1), (8, 1), (9, 2), (400, 50), (u32::MAX / 2, (u32::MAX / 2).div_ceil(8))]
        {
            assert_eq!(pause(hanging), PAUSE * pauses);
        }
    }
}
