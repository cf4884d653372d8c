//! The listening sockets of the process. They outlive a configuration: while one takes the place of
//! another, clients that connect wait in the kernel instead of being refused.
//!
//! The file of a Unix socket is there as long as its socket is in here. Somebody else may remove it
//! (systems clean /run): the next configuration, be it the same, makes it anew.

use std::io;
use std::net::{SocketAddr, TcpListener};

use super::StartError;
use crate::config::{Config, Listener, collide};
use crate::listener::{self, Place, Socket, is_lacking};
use crate::socket_file::{self, SocketFile};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    bound: Vec<Bound>,
}

#[derive(Debug)]
struct Bound {
    what: Use,
    place: Place,
    /// `None`: the machine has no such address, and does not need it.
    socket: Option<Socket>,
    /// Of a Unix socket.
    file: Option<SocketFile>,
}

impl Bound {
    /// Nobody can connect any more: the file is gone, or another's.
    fn is_lost(&self) -> bool {
        self.file.as_ref().is_some_and(|file| !file.is_there())
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Use {
    Smtp,
    Admin,
}

impl Use {
    /// The key of the configuration, for messages, where it is not that of a listener.
    fn key(self) -> &'static str {
        match self {
            Use::Smtp => "",
            Use::Admin => " ([admin] address)",
        }
    }
}

/// A socket that a configuration asks for.
struct Wanted<'a> {
    what: Use,
    place: Place,
    listener: Option<&'a Listener>,
}

impl Wanted<'_> {
    /// Makes it; `None`: the machine has no such address, and does not need it.
    fn bind(&self) -> io::Result<(Option<Socket>, Option<SocketFile>)> {
        let address = match &self.place {
            Place::Ip(address) => *address,
            Place::File(path) => {
                let (mode, group) = self.listener.map_or((0o600, None), |l| (l.mode.0, l.group));
                let socket = socket_file::bind(path, mode, group)?;
                let file = SocketFile::of(path)?;
                return Ok((Some(Socket::Unix(socket, path.clone())), Some(file)));
            }
        };
        match listener::bind(address) {
            Ok(socket) => Ok((Some(Socket::Tcp(socket)), None)),
            Err(error) if is_lacking(&error) && self.listener.is_some_and(|l| l.address.may_lack(address)) => {
                tracing::info!(%address, %error, "this machine has no IPv6: clients of it connect by 127.0.0.1");
                Ok((None, None))
            }
            Err(error) => Err(error),
        }
    }
}

fn wanted(config: &Config) -> impl Iterator<Item = Wanted<'_>> {
    let smtp = config.listeners.iter().flat_map(|listener| {
        let of = |place| Wanted { what: Use::Smtp, place, listener: Some(listener) };
        places(listener).map(of)
    });
    let admin = |address| Wanted { what: Use::Admin, place: Place::Ip(address), listener: None };
    smtp.chain(config.admin.map(admin))
}

fn places(listener: &Listener) -> impl Iterator<Item = Place> {
    let file = listener.address.path().map(|path| Place::File(path.to_owned()));
    listener.address.sockets().map(Place::Ip).chain(file)
}

impl Sockets {
    /// Binds what `config` listens on and is not bound yet, or has lost its file.
    ///
    /// # Errors
    /// An address cannot be had; those that were bound before stay.
    pub(super) fn bind(&mut self, config: &Config) -> Result<(), StartError> {
        let before = self.bound.len();
        for wanted in wanted(config) {
            if self.find(wanted.what, &wanted.place).is_some_and(|bound| !bound.is_lost()) {
                continue;
            }
            match wanted.bind() {
                Ok((socket, file)) => {
                    self.bound.push(Bound { what: wanted.what, place: wanted.place, socket, file });
                }
                Err(error) => {
                    self.bound.truncate(before);
                    let message = format!(
                        "cannot listen on {}{}: {}",
                        wanted.place,
                        wanted.what.key(),
                        self.why(&wanted, &error)
                    );
                    return Err(StartError::Unavailable(message));
                }
            }
        }
        Ok(())
    }

    /// Why it cannot be bound. Ours stay open until the next configuration is in force, so that nobody is
    /// refused meanwhile; the system does not give the same port twice.
    fn why(&self, wanted: &Wanted<'_>, error: &io::Error) -> String {
        let ours = self.bound.iter().find(|bound| match (&bound.place, &wanted.place) {
            (Place::Ip(ours), Place::Ip(address)) => collide(*ours, *address),
            // A file that is ours is not bound again.
            _ => false,
        });
        match ours.filter(|_| error.kind() == io::ErrorKind::AddrInUse) {
            Some(Bound { place, what, .. }) => {
                format!("this process listens on {place}{}: restart it to change that", what.key())
            }
            None => error.to_string(),
        }
    }

    /// Closes what `config` does not listen on, and what was made anew since, and gives the files of the others
    /// the rights that it wants. Tells which were made anew, and what could not be done.
    pub(super) fn keep(&mut self, config: &Config) -> Vec<String> {
        let mut told = Vec::new();
        let bound = std::mem::take(&mut self.bound);
        // Of two of one name the later one is in use.
        for bound in bound {
            if !wanted(config).any(|w| (w.what, &w.place) == (bound.what, &bound.place)) {
                continue;
            }
            match self.bound.iter_mut().find(|b| (b.what, &b.place) == (bound.what, &bound.place)) {
                Some(lost) => {
                    told.push(format!("{}: its file was gone, it was made again", bound.place));
                    tracing::warn!(address = %bound.place, "the file of the socket was gone, it was made again");
                    *lost = bound;
                }
                None => self.bound.push(bound),
            }
        }
        for wanted in wanted(config) {
            if let (Place::File(path), Some(listener)) = (&wanted.place, wanted.listener)
                && let Err(error) = socket_file::permit(path, listener.mode.0, listener.group)
            {
                tracing::error!(address = %wanted.place, %error, "cannot change the rights of the socket");
                told.push(format!("{}: cannot change the rights of the socket: {error}", wanted.place));
            }
        }
        told
    }

    fn find(&self, what: Use, place: &Place) -> Option<&Bound> {
        // The last one: one before it of that name has lost its file.
        self.bound.iter().rfind(|bound| (bound.what, &bound.place) == (what, place))
    }

    /// Handles of the bound sockets of a listener.
    pub(super) fn of_listener(&self, listener: &Listener) -> Result<Vec<Socket>, StartError> {
        let failed = |why: String| StartError::Unavailable(format!("cannot listen on {}: {why}", listener.address));
        let mut sockets = Vec::new();
        for place in places(listener) {
            let bound = self.find(Use::Smtp, &place).ok_or_else(|| failed("it is not bound".into()))?;
            if let Some(socket) = &bound.socket {
                sockets.push(socket.try_clone().map_err(|e| failed(e.to_string()))?);
            }
        }
        Ok(sockets)
    }

    /// A handle of the bound socket of `[admin]`.
    pub(super) fn of_admin(&self, address: SocketAddr) -> Result<TcpListener, StartError> {
        let failed =
            |why: String| StartError::Unavailable(format!("cannot listen on {address} ([admin] address): {why}"));
        match self.find(Use::Admin, &Place::Ip(address)).and_then(|bound| bound.socket.as_ref()) {
            Some(Socket::Tcp(socket)) => socket.try_clone().map_err(|e| failed(e.to_string())),
            _ => Err(failed("it is not bound".into())),
        }
    }
}
