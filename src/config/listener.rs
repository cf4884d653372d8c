//! A `[[listener]]`, checked: where clients are taken in, who may, and what they may send.

use std::sync::Arc;
use std::time::Duration;

use super::{CopyTo, FileMode, ListenAddress, ListenerTls, Network, Rewrites, Sandbox, Users};
use crate::mail::LocalNames;

/// `[[listener]]`.
#[derive(Clone, Debug)]
pub struct Listener {
    /// What `[[route]] listener` calls it; empty without one.
    pub name: Arc<str>,
    /// Where it listens.
    pub address: ListenAddress,
    /// Who may connect to a Unix socket, by the rights of the file system.
    pub mode: FileMode,
    /// The group of a Unix socket; `None`: that of the process.
    pub group: Option<u32>,
    /// Clients that may relay, unless `auth` asks more of them.
    pub allow: Vec<Network>,
    /// Whether clients may log in, or have to.
    pub auth: ListenerAuth,
    /// Who asks for a login gets one, and may do no more than before.
    pub accept_any: bool,
    /// AUTH is told in the form of old clients, too: `AUTH=PLAIN LOGIN`.
    pub auth_old_line: bool,
    /// Who may log in: the same for all listeners.
    pub users: Arc<Users>,
    /// TLS for clients; `None`: clear text only.
    pub tls: Option<ListenerTls>,
    /// In bytes.
    pub max_message_size: u64,
    /// Recipients a transaction may have.
    pub max_recipients: usize,
    /// `Received:` fields over which a message is taken to loop (RFC 5321 §6.3).
    pub max_hops: u32,
    /// Bytes that a header section may have.
    pub max_header: u64,
    /// Sessions at once.
    pub max_connections: usize,
    /// Sessions at once of one address (of IPv6: of a /64) among those of clients outside `allow` that have not logged
    /// in; `None`: a quarter of these.
    pub max_strangers_per_network: Option<usize>,
    /// The protocol engine.
    pub engine: Engine,
    /// End a message at a bare LF dot line and take bare LF as line end in commands: for devices
    /// that speak LF only. Off by default (smuggling).
    pub lf_only: bool,
    /// Longest wait for a command.
    pub command_timeout: Duration,
    /// Longest wait between reads of message data.
    pub data_timeout: Duration,
    /// Longest session.
    pub session_timeout: Duration,
    /// How far ahead a client may name the time at which its message leaves (RFC 4865); zero: not at all.
    pub future_release: Duration,
    /// Window in which a message sent again gets the first queue id; zero: off.
    pub dedupe: Duration,
    /// Proxies and filters in front that may tell whose client they speak for (XCLIENT, XFORWARD).
    pub xclient_from: Vec<Network>,
    /// Proxies in front whose connections begin with a header of the PROXY protocol, and must.
    pub proxy_from: Vec<Network>,
    /// `[sandbox]`: the same for all listeners.
    pub sandbox: Option<Arc<Sandbox>>,
    /// `[[rewrite]]`: the same for all listeners.
    pub rewrites: Arc<Rewrites>,
    /// `[[copy]]`: the same for all listeners.
    pub copies: Arc<[CopyTo]>,
    /// What the `Received:` field says of the client.
    pub received: ReceivedSays,
    /// What names without a domain stand for: the same for all listeners.
    pub names: Arc<LocalNames>,
}

/// `received` of a listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReceivedSays {
    /// Its name, its address and its user, as RFC 5321 §4.4 wants it.
    All,
    /// Nothing: only that this relay took the message, when, and by which id.
    Minimal,
}

/// `auth` of a listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ListenerAuth {
    /// Nobody can log in.
    Off,
    /// Clients in `allow` relay as they are, others after they have logged in.
    Offered,
    /// Nobody relays who has not logged in.
    Required,
}

/// `tls.client_cert` of a listener: whether clients are asked for a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientCert {
    /// No.
    Off,
    /// Those who have one may show it.
    Offered,
    /// Nobody gets through the handshake without one for which an authority vouches.
    Required,
}

/// `tls.mode` of a listener: when TLS begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ListenerTlsMode {
    /// When the client says STARTTLS (RFC 3207).
    StartTls,
    /// With the first byte (RFC 8314 §3.3).
    Implicit,
}

/// `engine`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Engine {
    /// Ours, on tokio and smtp-proto.
    Native,
    /// mailin-embedded: one thread a session, fewer features.
    Mailin,
}
