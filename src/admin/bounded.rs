//! HTTP connections in bounds: so many at once, and each with a time to send a request and to take
//! the answer, so that whoever opens connections and says nothing has no more of us than that. One
//! more than that takes the place of the oldest: a monitor is answered at once also while somebody
//! else holds as many as there may be.
//!
//! [`axum::serve`] has neither. Both are kept here below HTTP, where they hold whatever comes in.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep};

/// Accepts, and closes the oldest connection for one too many.
pub(super) struct Bounded {
    listener: TcpListener,
    most: usize,
    /// Of those that are open, in the order in which they came. One is closed when its sender is dropped.
    open: VecDeque<oneshot::Sender<()>>,
    time: Duration,
}

impl Bounded {
    /// At most `connections` at once, each with `time` for each step.
    pub(super) fn new(listener: TcpListener, connections: usize, time: Duration) -> Bounded {
        Bounded { listener, most: connections.max(1), open: VecDeque::new(), time }
    }
}

impl Listener for Bounded {
    type Io = Timed<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Timed<TcpStream>, SocketAddr) {
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        if self.open.len() >= self.most {
            self.open.retain(|open| !open.is_closed());
        }
        while self.open.len() >= self.most {
            self.open.pop_front();
        }
        let (open, closed) = oneshot::channel();
        self.open.push_back(open);
        (Timed::new(stream, self.time, closed), peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that breaks when a request does not begin within `time`, or is not read and answered
/// within `time` from its first byte, however many bytes come meanwhile.
pub(super) struct Timed<S> {
    stream: S,
    time: Duration,
    end: Pin<Box<Sleep>>,
    /// A part of a request came since the last byte of an answer.
    asked: bool,
    /// Its place is needed for another.
    closed: oneshot::Receiver<()>,
}

impl<S> Timed<S> {
    fn new(stream: S, time: Duration, closed: oneshot::Receiver<()>) -> Timed<S> {
        Timed { stream, time, end: Box::pin(sleep(time)), asked: false, closed }
    }

    /// Gives the next step its time.
    fn begin(&mut self, asked: bool) {
        self.asked = asked;
        self.end.as_mut().reset(Instant::now() + self.time);
    }

    /// Ready when the time is over, or the place needed.
    fn over(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        if Pin::new(&mut self.closed).poll(context).is_ready() {
            return Poll::Ready(io::Error::new(io::ErrorKind::ConnectionAborted, "too many connections"));
        }
        self.end.as_mut().poll(context).map(|()| io::Error::new(io::ErrorKind::TimedOut, "the client takes too long"))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(error) = self.over(context) {
            return Poll::Ready(Err(error));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if !self.asked && buffer.filled().len() > before {
            self.begin(true);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(context, bytes) {
            Poll::Ready(written) => {
                self.begin(false);
                Poll::Ready(written)
            }
            Poll::Pending => self.over(context).map(Err),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_flush(context) {
            Poll::Pending => self.over(context).map(Err),
            done => done,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_shutdown(context) {
            Poll::Pending => self.over(context).map(Err),
            done => done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const TIME: Duration = Duration::from_secs(10);

    async fn timed_out(timed: &mut Timed<tokio::io::DuplexStream>) -> Duration {
        let began = Instant::now();
        let mut bytes = [0; 16];
        loop {
            match timed.read(&mut bytes).await {
                Ok(read) => assert!(read > 0, "the client is still there"),
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
                    return began.elapsed();
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_or_sends_byte_by_byte_has_a_bounded_time() {
        let (_silent, stream) = tokio::io::duplex(64);
        let (_open, closed) = oneshot::channel();
        let mut timed = Timed::new(stream, TIME, closed);
        assert_eq!(timed_out(&mut timed).await.as_secs(), 10);

        let (mut slow, stream) = tokio::io::duplex(64);
        let (_open, closed) = oneshot::channel();
        let mut timed = Timed::new(stream, TIME, closed);
        let drip = async {
            loop {
                sleep(Duration::from_secs(4)).await;
                slow.write_all(b"G").await.expect("open");
            }
        };
        let took = tokio::select! {
            took = timed_out(&mut timed) => took,
            () = drip => unreachable!("it goes on for ever"),
        };
        // From the first byte on, after four seconds, not from the last.
        assert_eq!(took.as_secs(), 14);
    }

    #[tokio::test]
    async fn one_too_many_takes_the_place_of_the_oldest() {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let _clients: Vec<_> = (0..4).map(|_| std::net::TcpStream::connect(address).expect("a connection")).collect();
        let mut bounded = Bounded::new(listener, 2, TIME);
        let ((mut first, _), (second, _)) = (bounded.accept().await, bounded.accept().await);
        drop(second);
        let (mut third, _) = bounded.accept().await;
        let mut byte = [0];
        tokio::select! {
            biased;
            end = first.read(&mut byte) => panic!("there is room: {end:?}"),
            () = std::future::ready(()) => {}
        }
        let (_fourth, _) = bounded.accept().await;
        let end = first.read(&mut byte).await.expect_err("closed").kind();
        assert_eq!((end, bounded.open.len()), (io::ErrorKind::ConnectionAborted, 2));
        tokio::select! {
            biased;
            end = third.read(&mut byte) => panic!("it is not the oldest: {end:?}"),
            () = std::future::ready(()) => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn every_request_that_is_answered_in_time_begins_anew() {
        let (mut client, stream) = tokio::io::duplex(64);
        let (_open, closed) = oneshot::channel();
        let mut timed = Timed::new(stream, TIME, closed);
        let mut bytes = [0; 4];
        for _ in 0..5 {
            sleep(Duration::from_secs(9)).await;
            client.write_all(b"ask!").await.expect("open");
            timed.read_exact(&mut bytes).await.expect("in time");
            sleep(Duration::from_secs(9)).await;
            timed.write_all(b"yes!").await.expect("in time");
            client.read_exact(&mut bytes).await.expect("open");
        }
        // An answer that nobody takes.
        let filled = timed.write_all(&[b'x'; 65]).await.expect_err("nobody reads");
        assert_eq!(filled.kind(), io::ErrorKind::TimedOut);
    }
}
