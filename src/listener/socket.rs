//! The sockets that a listener accepts from, and who is at the other end of what it accepted.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::PathBuf;
use std::task::Poll;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::config::canonical;
use crate::mail::Caller;

/// Connections waiting in the kernel to be accepted.
const BACKLOG: i32 = 1024;

/// Where one socket is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// An address and port.
    Ip(SocketAddr),
    /// The file of a Unix socket.
    File(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Ip(address) => address.fmt(f),
            Place::File(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A bound socket. Its file, if it has one, is somebody else's affair ([`crate::socket_file`]).
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// A Unix socket, and its path.
    Unix(StdUnixListener, PathBuf),
}

impl Socket {
    /// Another handle of the same socket.
    ///
    /// # Errors
    /// The process is out of file descriptors.
    pub fn try_clone(&self) -> io::Result<Socket> {
        Ok(match self {
            Socket::Tcp(socket) => Socket::Tcp(socket.try_clone()?),
            Socket::Unix(socket, path) => Socket::Unix(socket.try_clone()?, path.clone()),
        })
    }

    /// Where it is, with the port that the system chose.
    ///
    /// # Errors
    /// As of getsockname(2).
    pub fn place(&self) -> io::Result<Place> {
        Ok(match self {
            Socket::Tcp(socket) => Place::Ip(socket.local_addr()?),
            Socket::Unix(_, path) => Place::File(path.clone()),
        })
    }
}

/// Binds a listening socket of TCP.
///
/// # Errors
/// The address is in use or not ours.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() && address.ip().is_loopback() {
        // Its neighbour of IPv4 is another socket.
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Whether `error` of [`bind`] says that this machine has no such address, as one without IPv6.
pub fn is_lacking(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}

/// What was accepted.
pub(super) enum Connection {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Connection {
    /// Writes what the send buffer of a new connection has room for.
    pub fn try_write(&self, line: &[u8]) -> io::Result<usize> {
        match self {
            Connection::Tcp(stream) => stream.try_write(line),
            Connection::Unix(stream) => stream.try_write(line),
        }
    }
}

enum Acceptor {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Accepts from all sockets of a listener; each has its turn.
pub(super) struct Acceptors {
    sockets: Vec<Acceptor>,
    /// Asked first next time.
    next: usize,
}

impl Acceptors {
    /// Must be called inside a tokio runtime.
    pub fn new(sockets: Vec<Socket>) -> io::Result<Acceptors> {
        let acceptor = |socket| {
            Ok(match socket {
                Socket::Tcp(socket) => Acceptor::Tcp(TcpListener::from_std(socket)?),
                Socket::Unix(socket, _) => Acceptor::Unix(UnixListener::from_std(socket)?),
            })
        };
        Ok(Acceptors { sockets: sockets.into_iter().map(acceptor).collect::<io::Result<_>>()?, next: 0 })
    }

    /// The next connection. Nothing is lost if this is not waited for.
    pub async fn accept(&mut self) -> io::Result<(Connection, Caller)> {
        let Acceptors { sockets, next } = self;
        poll_fn(|context| {
            for turn in 0..sockets.len() {
                let at = (*next + turn) % sockets.len();
                let accepted = match sockets.get(at) {
                    Some(Acceptor::Tcp(socket)) => socket.poll_accept(context).map_ok(|(stream, caller)| {
                        // Replies leave when they are written, not when the client has acknowledged the last ones.
                        let _ = stream.set_nodelay(true);
                        (Connection::Tcp(stream), Caller::Ip(canonical(caller.ip())))
                    }),
                    Some(Acceptor::Unix(socket)) => socket.poll_accept(context).map(|accepted| {
                        let (stream, _) = accepted?;
                        let who = stream.peer_cred()?;
                        let caller = Caller::User { uid: who.uid(), gid: who.gid() };
                        Ok((Connection::Unix(stream), caller))
                    }),
                    None => continue,
                };
                if accepted.is_ready() {
                    *next = at + 1;
                    return accepted;
                }
            }
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_not_there_is_told_from_one_that_is_taken() {
        let lacking = bind(([192, 0, 2, 1], 0).into()).expect_err("for documentation only");
        assert!(is_lacking(&lacking), "{lacking}");
        let first = bind(([127, 0, 0, 1], 0).into()).expect("bound");
        let taken = bind(first.local_addr().expect("its address")).expect_err("it is taken");
        assert!(!is_lacking(&taken), "{taken}");
    }

    #[tokio::test]
    async fn every_socket_of_a_listener_has_its_turn() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("smtp.sock");
        let tcp = bind(([127, 0, 0, 1], 0).into()).expect("bound");
        let address = tcp.local_addr().expect("its address");
        let unix = crate::socket_file::bind(&path, 0o600, None).expect("bound");
        let mut sockets = Acceptors::new(vec![Socket::Tcp(tcp), Socket::Unix(unix, path.clone())]).expect("listening");
        let mut clients = Vec::new();
        for _ in 0..3 {
            clients.push(std::net::TcpStream::connect(address).expect("connected"));
        }
        let _client = std::os::unix::net::UnixStream::connect(&path).expect("connected");
        let mut came = Vec::new();
        for _ in 0..4 {
            came.push(matches!(sockets.accept().await.expect("a connection").1, Caller::User { .. }));
        }
        assert_eq!(came, [false, true, false, false], "the one behind three others came second");
    }
}
