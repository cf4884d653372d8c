//! The private port that mailin listens on, closed to everybody but the gate.
//!
//! mailin-embedded can only listen on TCP, and any program on this machine could connect to that:
//! each connection would have a thread of mailin for minutes, and lines without bounds. So the
//! listening socket has a filter of the kernel (`SO_ATTACH_FILTER`, a classic BPF program) that drops
//! every segment whose source port is not the one that the gate holds at that moment. A connection
//! of another program is never made, and costs nobody anything.
//!
//! - The filter is there before the socket listens, and drops everything while nobody enters.
//! - The port that it lets in is bound by the gate before, so nobody else has it.
//! - A connection inherits the filter of its listener, so nobody else reaches it later either.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Mutex;

/// Connections between the gate's `connect` and mailin's `accept`; there is one at a time.
const BACKLOG: i32 = 16;

/// The instructions (bpf.h): load a 16 bit word at an offset, compare, return a constant.
const LOAD_HALF: u16 = 0x28;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
/// All of a segment passes.
const ALL: u32 = u32::MAX;

/// See the module.
pub(super) struct Door {
    address: SocketAddr,
    /// Another descriptor of the socket that mailin has.
    socket: TcpListener,
    /// One at a time: the filter lets in one port.
    turn: Mutex<()>,
    open: AtomicBool,
}

impl Door {
    /// The door, and the listening socket for mailin.
    ///
    /// # Errors
    /// No port can be had, or the system has no such filters.
    pub fn new() -> io::Result<(Door, TcpListener)> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        shut(SockRef::from(&socket)).map_err(|error| {
            let why = "engine \"mailin\" needs socket filters (SO_ATTACH_FILTER) to close its inner port to other \
                       programs, and this system refuses them: use engine \"native\"";
            io::Error::new(error.kind(), format!("{why} ({error})"))
        })?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from(socket);
        let (address, socket) = (listener.local_addr()?, listener.try_clone()?);
        Ok((Door { address, socket, turn: Mutex::new(()), open: AtomicBool::new(false) }, listener))
    }

    /// A connection to mailin, and what it says first.
    pub async fn enter(&self) -> io::Result<(BufReader<TcpStream>, Vec<u8>)> {
        let _turn = self.turn.lock().await;
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        // Shut again however this ends.
        let _ajar = Ajar::new(self, socket.local_addr()?.port())?;
        let mut stream = BufReader::new(socket.connect(self.address).await?);
        stream.get_ref().set_nodelay(true)?;
        let mut greeting = Vec::new();
        // From here on the connection has a filter of its own.
        stream.read_until(b'\n', &mut greeting).await?;
        Ok((stream, greeting))
    }

    /// Opens it to everybody and knocks, so that mailin's accept loop finds out that it is to end.
    pub fn knock(&self) {
        self.open.store(true, Ordering::Release);
        let _ = SockRef::from(&self.socket).detach_filter();
        let _ = std::net::TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }

    /// Where mailin listens.
    #[cfg(test)]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// The door while it lets one port in.
struct Ajar<'a>(&'a Door);

impl Ajar<'_> {
    fn new(door: &Door, port: u16) -> io::Result<Ajar<'_>> {
        let ajar = Ajar(door);
        // A TCP segment begins with its source port.
        SockRef::from(&door.socket).attach_filter(&[
            SockFilter::new(LOAD_HALF, 0, 0, 0),
            SockFilter::new(JUMP_IF_EQUAL, 0, 1, u32::from(port)),
            SockFilter::new(RETURN, 0, 0, ALL),
            SockFilter::new(RETURN, 0, 0, 0),
        ])?;
        Ok(ajar)
    }
}

impl Drop for Ajar<'_> {
    fn drop(&mut self) {
        if !self.0.open.load(Ordering::Acquire) {
            // If this fails, the filter for a port that is in use by us stays: shut as well.
            let _ = shut(SockRef::from(&self.0.socket));
        }
    }
}

fn shut(socket: SockRef<'_>) -> io::Result<()> {
    socket.attach_filter(&[SockFilter::new(RETURN, 0, 0, 0)])
}
