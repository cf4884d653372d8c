//! Accept and drain. The caller owns the stop signal; the address may have port 0.
//!
//! Sessions over `max_connections` hear a 421 at once instead of waiting in a queue they cannot
//! see (on one with implicit TLS they are just closed). Clients that may not relay have few sessions
//! of their own (`strangers`), and not for long: enough to hear why, or to log in, never in the place of a client
//! that may.
//! A connection of a proxy of `proxy_from` has its own place until it is known whose it is, and then that one's.
//! What goes wrong with one connection never ends the accept loop.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::hang_up::hang_up;
use super::places::Places;
use super::policy::TOO_MANY_SESSIONS;
use super::proxy_header::{NoHeader, client_behind};
use super::seat::Seat;
use super::session::{self, Stop};
use super::socket::{Acceptors, Connection, Place, Socket, bind};
use super::submit::Shared;
use super::{Intake, mailin};
use crate::config::{Engine, Listener};
use crate::mail::Caller;
use crate::observe;

/// Time that sessions get over the drain time to say good bye.
const GRACE: Duration = Duration::from_secs(2);

/// Pause after an error of `accept`: the process is out of file descriptors or memory.
const BREATHER: Duration = Duration::from_millis(100);

/// How often it is told that nothing can be accepted.
const TELL_AGAIN: Duration = Duration::from_secs(10);

/// A listener that is bound and not yet accepting.
pub struct Server {
    sockets: Vec<Socket>,
    shared: Arc<Shared>,
    mailin: Option<mailin::Prepared>,
}

impl Server {
    /// Binds the addresses of `listener`, if they are of IP.
    ///
    /// # Errors
    /// An address is in use or not ours; or the engine cannot do what it is configured to do.
    #[doc(hidden)]
    pub fn bind(listener: Arc<Listener>, hostname: &str, intake: Arc<dyn Intake>) -> io::Result<Server> {
        let sockets = listener.address.sockets().map(|address| bind(address).map(Socket::Tcp));
        Server::new(sockets.collect::<io::Result<_>>()?, listener, hostname, intake)
    }

    /// A server on bound sockets.
    ///
    /// # Errors
    /// The engine cannot do what it is configured to do.
    pub fn new(
        sockets: Vec<Socket>,
        listener: Arc<Listener>,
        hostname: &str,
        intake: Arc<dyn Intake>,
    ) -> io::Result<Server> {
        if listener.engine == Engine::Mailin && listener.tls.is_some() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "engine \"mailin\" takes clients in clear text only: use engine \"native\" with tls",
            ));
        }
        if listener.engine == Engine::Mailin && listener.lf_only {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "engine \"mailin\" cannot take clients that speak LF only: use engine \"native\" with lf_only",
            ));
        }
        let mailin = match listener.engine {
            Engine::Native => None,
            Engine::Mailin => Some(mailin::Gate::prepare()?),
        };
        Ok(Server { sockets, mailin, shared: Arc::new(Shared::new(listener, hostname, intake)) })
    }

    /// The first address that it is bound to.
    #[doc(hidden)]
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        let first = self.sockets.iter().find_map(|socket| match socket.place() {
            Ok(Place::Ip(address)) => Some(address),
            _ => None,
        });
        first.ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }

    /// Where it listens.
    ///
    /// # Errors
    /// As of getsockname(2).
    pub fn places(&self) -> io::Result<Vec<Place>> {
        self.sockets.iter().map(Socket::place).collect()
    }

    /// Accepts until `shutdown` is true. Then sessions between transactions are closed with a 421,
    /// the others may finish theirs within `drain`; returns when all are gone.
    pub async fn run(self, shutdown: watch::Receiver<bool>, drain: Duration) -> io::Result<()> {
        let mut stop = Stop { signal: shutdown, drain };
        let places = self.places()?;
        let mut sockets = Acceptors::new(self.sockets)?;
        let shared = self.shared;
        let address = &shared.listener.address.clone();
        let gate = match self.mailin {
            None => None,
            Some(prepared) => Some(Arc::new(mailin::Gate::start(shared.clone(), prepared)?)),
        };
        let most = match &gate {
            Some(gate) => gate.sessions(),
            None => shared.listener.max_connections,
        };
        let room = Arc::new(Places::new(shared.clone(), most));
        let mut sessions = JoinSet::new();
        let mut told: Option<Instant> = None;
        let tls = shared.listener.tls.as_ref().map_or("", |tls| tls.mode.as_str());
        let speechless = room.is_speechless();
        for address in &places {
            info!(%address, engine = ?shared.listener.engine, tls, "listening");
        }
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.asked() => break,
                Some(_) = sessions.join_next(), if !sessions.is_empty() => continue,
                accepted = sockets.accept() => accepted,
            };
            let (stream, caller) = match accepted {
                Ok(accepted) => accepted,
                Err(error) if is_of_one_connection(&error) => continue,
                Err(error) => {
                    if told.is_none_or(|at| at.elapsed() >= TELL_AGAIN) {
                        told = Some(Instant::now());
                        warn!(%address, %error, "cannot accept connections");
                    }
                    tokio::time::sleep(BREATHER).await;
                    continue;
                }
            };
            let Some(seat) = room.first_seat(caller) else {
                if let Some(slot) = room.last_word(speechless) {
                    sessions.spawn(async move {
                        turn_away(stream).await;
                        drop(slot);
                    });
                }
                continue;
            };
            let (shared, mut stop, gate, room) = (shared.clone(), stop.clone(), gate.clone(), room.clone());
            sessions.spawn(async move {
                let Some((stream, caller, seat)) = behind_proxy(stream, caller, seat, &room, &mut stop).await else {
                    return;
                };
                match (gate, stream) {
                    (None, Connection::Tcp(stream)) => session::run(stream, caller, shared, stop, seat).await,
                    (None, Connection::Unix(stream)) => session::run(stream, caller, shared, stop, seat).await,
                    (Some(gate), Connection::Tcp(stream)) => {
                        let lost = seat.lost();
                        tokio::select! {
                            biased;
                            () = gate.session(stream, caller.ip(), stop) => {}
                            () = lost, if seat.can_be_lost() => {}
                        }
                    }
                    // The configuration has refused that.
                    (Some(_), Connection::Unix(_)) => {}
                }
            });
        }
        drop(sockets);
        info!(%address, sessions = room.open(), "no longer listening");
        let gone = async { while sessions.join_next().await.is_some() {} };
        if tokio::time::timeout(drain + GRACE, gone).await.is_err() {
            warn!(%address, sessions = sessions.len(), "sessions did not end in time, cut off");
            sessions.shutdown().await;
        }
        if let Some(gate) = gate.and_then(Arc::into_inner) {
            gate.stop().await;
        }
        Ok(())
    }

    /// Serves one connection that comes from elsewhere than the socket: tests on paused time.
    #[doc(hidden)]
    pub async fn serve<S>(&self, stream: S, ip: IpAddr, shutdown: watch::Receiver<bool>, drain: Duration)
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send,
    {
        session::run(stream, Caller::Ip(ip), self.shared.clone(), Stop { signal: shutdown, drain }, Seat::default())
            .await;
    }
}

/// Finds out whose connection it is that a proxy of `proxy_from` has made, and gives it the place of that one; `None`:
/// nobody knows, or there is none. Connections of others are passed on as they are.
async fn behind_proxy(
    mut stream: Connection,
    caller: Caller,
    seat: Seat,
    room: &Places,
    stop: &mut Stop,
) -> Option<(Connection, Caller, Seat)> {
    let proxy = caller.ip();
    let tcp = match &mut stream {
        Connection::Tcp(tcp) if room.is_proxy(proxy) => tcp,
        _ => return Some((stream, caller, seat)),
    };
    let told = tokio::select! {
        biased;
        () = stop.asked() => return None,
        told = client_behind(proxy, tcp) => told,
    };
    match told {
        Ok(ip) => {
            let client = Caller::Ip(ip);
            debug!(%proxy, %client, "a proxy speaks for its client");
            if let Some(seat) = room.seat_behind_proxy(seat, client) {
                return Some((stream, client, seat));
            }
            let slot = room.last_word(room.is_speechless())?;
            turn_away(stream).await;
            drop(slot);
        }
        // As from something that only looks whether the port is open.
        Err(NoHeader::Ended(error)) => debug!(%proxy, %error, "a proxy has told of no client"),
        Err(why) => {
            if let Some(times) = observe::seldom("no PROXY header", &format!("{proxy} {why}")) {
                warn!(%proxy, %why, times, "a proxy has told of no client, closed");
            }
        }
    }
    None
}

/// Errors of `accept` that tell about the connection, not about us (accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

async fn turn_away(stream: Connection) {
    let mut line = Vec::new();
    TOO_MANY_SESSIONS.write_to(&mut line);
    // The send buffer of a new connection has room for a line.
    if stream.try_write(&line).is_ok() {
        match stream {
            Connection::Tcp(mut stream) => hang_up(&mut stream).await,
            Connection::Unix(mut stream) => hang_up(&mut stream).await,
        }
    }
}
