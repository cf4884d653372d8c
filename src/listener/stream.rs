//! The connection of a session: in clear text, or with TLS on top of it. Which one is asked by a
//! branch, not by a call through a table, so that clear text costs what it did without TLS.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{AlertDescription, Error, HandshakeKind, InvalidMessage, ServerConfig};
use tokio_rustls::server::TlsStream;

use crate::smtp::tls::version_name;

/// See the module.
pub(super) enum Stream<S> {
    Clear(S),
    /// Boxed: it is large, and most sessions have none.
    Tls(Box<TlsStream<S>>),
    /// A handshake that was not waited for took it along.
    Gone,
}

/// What a handshake brought.
pub(super) struct Secured {
    /// `TLSv1.3` or `TLSv1.2`.
    pub version: &'static str,
    /// It took up an earlier session.
    pub resumed: bool,
    /// What the client has shown of itself, its own certificate first; empty if it was not asked or has none.
    pub chain: Vec<CertificateDer<'static>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream<S> {
    /// Puts TLS on a connection in clear text. After a failure the connection is still there if the
    /// client is to hear of it: an alert was sent, and it only has to be closed in good order.
    ///
    /// # Errors
    /// Why there is no TLS; [`io::ErrorKind::UnexpectedEof`] if the client just went away.
    pub async fn secure(&mut self, config: Arc<ServerConfig>, until: Instant) -> io::Result<Secured> {
        let clear = match std::mem::replace(self, Stream::Gone) {
            Stream::Clear(clear) => clear,
            other => {
                *self = other;
                return Err(io::Error::other("TLS is active already"));
            }
        };
        let handshake = TlsAcceptor::from(config).accept(clear).into_fallible();
        match timeout_at(until, handshake).await {
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
            Ok(Err((error, clear))) => {
                *self = Stream::Clear(clear);
                Err(error)
            }
            Ok(Ok(stream)) => {
                let session = stream.get_ref().1;
                let version = version_name(session.protocol_version());
                let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
                let chain = session.peer_certificates().map(<[_]>::to_vec).unwrap_or_default();
                *self = Stream::Tls(Box::new(stream));
                Ok(Secured { version, resumed, chain })
            }
        }
    }
}

/// Why a handshake failed, in words. What comes from the client is only a code.
pub(super) fn explain(error: &io::Error) -> String {
    use AlertDescription as A;
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::AlertReceived(
            alert @ (A::UnknownCA | A::BadCertificate | A::CertificateExpired | A::CertificateUnknown),
        )) => format!("the client does not accept the certificate: {alert:?}"),
        Some(Error::AlertReceived(alert)) => format!("the client broke off: {alert:?}"),
        Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => "the client does not speak TLS".into(),
        Some(tls) => tls.to_string(),
        None if error.kind() == io::ErrorKind::TimedOut => "the client takes too long".into(),
        None => error.to_string(),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Clear(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
            Stream::Gone => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Clear(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
            Stream::Gone => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Clear(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
            Stream::Gone => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Clear(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
            Stream::Gone => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}
