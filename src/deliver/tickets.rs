//! Sessions of upstream hosts that can be resumed, so that a new connection costs a short handshake.
//!
//! A TLS 1.3 ticket is used once (RFC 8446, appendix C.4). When many connections to a host open at
//! about the same time, each needs one of its own before the new ones have come, so that as many have
//! to be in store; the store that comes with rustls keeps eight of a host. Bounded by [`SERVERS`] and
//! [`TICKETS`]; what was not used for [`IDLE`] is forgotten.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use parking_lot::Mutex;
use tokio_rustls::rustls::NamedGroup;
use tokio_rustls::rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use tokio_rustls::rustls::pki_types::ServerName;

/// Hosts that are remembered.
const SERVERS: u64 = 256;
/// TLS 1.3 tickets of a host: one for each connection that may open in the same moment.
const TICKETS: usize = 64;
/// Most hosts make tickets for some hours, none for more than a week.
const IDLE: Duration = Duration::from_secs(24 * 3600);

/// The store of one client configuration.
pub(super) struct Tickets {
    servers: Cache<ServerName<'static>, Arc<Mutex<Server>>>,
}

#[derive(Default)]
struct Server {
    group: Option<NamedGroup>,
    tls12: Option<Tls12ClientSessionValue>,
    /// Oldest first.
    tls13: VecDeque<Tls13ClientSessionValue>,
}

impl Tickets {
    /// An empty one.
    pub(super) fn new() -> Tickets {
        Tickets { servers: Cache::builder().max_capacity(SERVERS).time_to_idle(IDLE).build() }
    }

    fn known(&self, name: &ServerName<'_>) -> Option<Arc<Mutex<Server>>> {
        self.servers.get(&name.to_owned())
    }

    fn edit(&self, name: ServerName<'static>, edit: impl FnOnce(&mut Server)) {
        edit(&mut self.servers.get_with(name, Arc::default).lock());
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, server_name: ServerName<'static>, group: NamedGroup) {
        self.edit(server_name, |server| server.group = Some(group));
    }

    fn kx_hint(&self, server_name: &ServerName<'_>) -> Option<NamedGroup> {
        self.known(server_name)?.lock().group
    }

    fn set_tls12_session(&self, server_name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.edit(server_name, |server| server.tls12 = Some(value));
    }

    fn tls12_session(&self, server_name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.known(server_name)?.lock().tls12.clone()
    }

    fn remove_tls12_session(&self, server_name: &ServerName<'static>) {
        if let Some(server) = self.known(server_name) {
            server.lock().tls12 = None;
        }
    }

    fn insert_tls13_ticket(&self, server_name: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.edit(server_name, |server| {
            if server.tls13.len() >= TICKETS {
                server.tls13.pop_front();
            }
            server.tls13.push_back(value);
        });
    }

    fn take_tls13_ticket(&self, server_name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.known(server_name)?.lock().tls13.pop_back()
    }
}

impl fmt::Debug for Tickets {
    /// Without the sessions, which are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tokio_rustls::rustls::client::Resumption;
    use tokio_rustls::rustls::crypto::aws_lc_rs;
    use tokio_rustls::rustls::pki_types::PrivateKeyDer;
    use tokio_rustls::rustls::{
        ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig, ServerConnection,
    };

    use super::*;

    /// Configurations of a client with this store and of a server that trusts and is trusted.
    fn configs() -> (Arc<ClientConfig>, Arc<ServerConfig>) {
        let made = rcgen::generate_simple_self_signed(vec!["mx.example".to_owned()]).expect("a certificate");
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let crypto = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).expect("a root");
        let mut client = ClientConfig::builder_with_provider(crypto.clone())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.resumption = Resumption::store(Arc::new(Tickets::new()));
        let mut server = ServerConfig::builder_with_provider(crypto)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("a server");
        server.ticketer = aws_lc_rs::Ticketer::new().expect("tickets");
        (Arc::new(client), Arc::new(server))
    }

    /// Carries bytes to and fro until both are done; the client has its tickets then.
    fn shake_hands(client: &mut ClientConnection, server: &mut ServerConnection) -> io::Result<()> {
        while client.wants_write() || server.wants_write() {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire)?;
            }
            server.read_tls(&mut wire.as_slice())?;
            server.process_new_packets().map_err(io::Error::other)?;
            wire.clear();
            while server.wants_write() {
                server.write_tls(&mut wire)?;
            }
            client.read_tls(&mut wire.as_slice())?;
            client.process_new_packets().map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Opens `count` connections before the first handshake ends; how many resumed a session.
    fn burst(count: usize, configs: &(Arc<ClientConfig>, Arc<ServerConfig>)) -> usize {
        let name = ServerName::try_from("mx.example").expect("a name");
        let mut clients: Vec<ClientConnection> =
            (0..count).map(|_| ClientConnection::new(configs.0.clone(), name.clone()).expect("a client")).collect();
        let mut resumed = 0;
        for client in &mut clients {
            let mut server = ServerConnection::new(configs.1.clone()).expect("a server");
            shake_hands(client, &mut server).expect("a handshake");
            assert!(!client.is_handshaking() && !server.is_handshaking());
            resumed += usize::from(client.handshake_kind() == Some(HandshakeKind::Resumed));
        }
        resumed
    }

    #[test]
    fn connections_that_open_together_all_resume() {
        let configs = configs();
        assert_eq!(burst(20, &configs), 0);
        assert_eq!(burst(20, &configs), 20);
        assert_eq!(burst(20, &configs), 20);
    }

    #[test]
    fn a_host_has_only_so_many_tickets() {
        let configs = configs();
        assert_eq!(burst(TICKETS, &configs), 0);
        // Each left two, so that half of them were dropped.
        assert_eq!(burst(TICKETS + 5, &configs), TICKETS);
    }
}
