//! How a session comes to be encrypted: by STARTTLS, or with its first byte.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{CertificateError, Error};
use tracing::{debug, info};

use super::{End, Session};
use crate::config::ListenerTls;
use crate::listener::policy::TOO_MANY_SESSIONS;
use crate::listener::stream::explain;
use crate::observe;
use crate::smtp::{Reply, tls};

/// Longest TLS handshake; `command_timeout` if that is shorter.
const HANDSHAKE: Duration = Duration::from_secs(60);

const READY: Reply = Reply::new(220, "2.0.0", "Ready to start TLS");
const PIPELINED: Reply = Reply::new(554, "5.5.1", "Input behind STARTTLS in clear text, closing connection");

impl<S> Session<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    /// Answers STARTTLS and begins with TLS (RFC 3207 §4).
    pub(super) async fn start_tls(&mut self) -> Result<(), End> {
        if self.start < self.input.len() {
            info!(client = %self.dialog.client.caller, helo = &*self.dialog.client.helo, reply = %PIPELINED, "refused");
            PIPELINED.write_to(&mut self.output);
            return Err(End::Over);
        }
        READY.write_to(&mut self.output);
        self.flush().await?;
        self.handshake().await
    }

    /// Waits for the client's handshake.
    pub(super) async fn handshake(&mut self) -> Result<(), End> {
        let Some(tls) = &self.shared.listener.tls else { return Err(End::Over) };
        let limit = HANDSHAKE.min(self.shared.listener.command_timeout);
        let until = (Instant::now() + limit).min(self.deadline);
        let result = tokio::select! {
            biased;
            // Nothing that could be said would be understood.
            () = self.stop.asked(), if !self.stopping => return Err(End::Gone(io::ErrorKind::Interrupted.into())),
            result = self.stream.secure(tls.server().clone(), until) => result,
        };
        let client = self.dialog.client.caller;
        match result {
            Ok(secured) => {
                debug!(%client, tls = secured.version, resumed = secured.resumed, "encrypted");
                self.dialog.encrypted(secured.version);
                self.seat.moved();
                self.recognize(&secured.chain)
            }
            // As from something that only looks whether the port is open.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(End::Gone(error)),
            Err(error) => {
                let why = explain(&error);
                debug!(%client, why, "no TLS with a client this time");
                // Whoever wants to can cause that at any pace.
                if let Some(times) = observe::seldom("no TLS with a client", &format!("{client} {why}")) {
                    info!(%client, why, times, "no TLS with a client");
                }
                Err(End::Over)
            }
        }
    }

    /// A client whose certificate is that of a user has logged in.
    fn recognize(&mut self, chain: &[CertificateDer<'_>]) -> Result<(), End> {
        let Some((own, others)) = chain.split_first().filter(|_| self.dialog.has_auth()) else { return Ok(()) };
        let client = self.dialog.client.caller;
        let Some(clients) = self.shared.listener.tls.as_ref().and_then(ListenerTls::clients) else { return Ok(()) };
        let shown = match clients.identity(own, others) {
            Ok(shown) => shown,
            Err(stranger) => {
                let (shown, error) = *stranger;
                if let Some(times) = observe::seldom("certificate of nobody", &shown.fingerprint) {
                    let (fingerprint, names, why) = (&*shown.fingerprint, shown.some_names(), why_not(&error));
                    info!(%client, fingerprint, names, why, times, "the certificate of a client does not count");
                }
                return Ok(());
            }
        };
        let Some(user) = self.shared.listener.users.by_certificate(&shown).cloned() else {
            if let Some(times) = observe::seldom("certificate of no user", &shown.fingerprint) {
                let (fingerprint, names) = (&*shown.fingerprint, shown.some_names());
                info!(%client, fingerprint, names, times, "the certificate of a client is that of no user");
            }
            return Ok(());
        };
        if self.shared.arrivals.is_locked(&user.name) {
            info!(%client, user = &*user.name, "the user is locked: `mailweir user unlock` ends it");
            return Ok(());
        }
        info!(%client, user = &*user.name, mechanism = "certificate", tls = self.dialog.client.tls, "logged in");
        if !self.seat.promote() {
            return Err(End::Because(TOO_MANY_SESSIONS));
        }
        self.dialog.certified(user);
        self.stay();
        Ok(())
    }
}

/// Why nobody vouches for the certificate of a client, in words.
fn why_not(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "no authority of `client_ca` has made it".to_owned()
        }
        Error::InvalidCertificate(CertificateError::Other(_)) => format!("it is none for clients: {error}"),
        error => tls::explain("", error),
    }
}
