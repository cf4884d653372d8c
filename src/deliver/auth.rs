//! AUTH to a smart host (RFC 4954): PLAIN, else LOGIN, as lettre writes them.
//!
//! A password goes out only over TLS or to a loopback address, whatever the configuration says; it
//! is never logged, and its bytes are overwritten in the buffer after they are sent.

use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::commands::Auth;

use super::fact::{Event, Peer, Reply};
use super::wire::{Wire, Written};
use super::{Capabilities, Timeouts, command};
use crate::config;

/// Logs in. The error is what the server said, or why it was not asked.
pub async fn authenticate(
    wire: &mut Wire,
    caps: &Capabilities,
    peer: &Peer,
    timeouts: &Timeouts,
    credentials: &config::Credentials,
) -> Result<(), Event> {
    if peer.tls.is_none() && !peer.ip.is_some_and(|ip| ip.to_canonical().is_loopback()) {
        return Err(Event::Tls("the password is not sent in clear text: the connection has no TLS".to_owned()));
    }
    let credentials = Credentials::new(credentials.user.clone(), credentials.password.reveal().to_owned());
    if caps.auth_plain {
        let reply = say(wire, timeouts, Mechanism::Plain, &credentials, None).await?;
        return accepted(reply);
    }
    if !caps.auth_login {
        return Err(Event::Missing("AUTH PLAIN or LOGIN"));
    }
    // The prompts come in this order whatever they say (some servers translate them).
    for prompt in [None, Some("Username:"), Some("Password:")] {
        let reply = say(wire, timeouts, Mechanism::Login, &credentials, prompt).await?;
        if prompt == Some("Password:") || reply.code != 334 {
            return accepted(reply);
        }
    }
    Ok(())
}

fn accepted(reply: Reply) -> Result<(), Event> {
    match reply.code {
        200..=299 => Ok(()),
        300..=399 => Err(Event::Garbled(format!("AUTH goes on where it should end: {}", reply.code))),
        _ => Err(Event::Reply(reply)),
    }
}

async fn say(
    wire: &mut Wire,
    timeouts: &Timeouts,
    mechanism: Mechanism,
    credentials: &Credentials,
    prompt: Option<&str>,
) -> Result<Reply, Event> {
    let auth = Auth::new(mechanism, credentials.clone(), prompt.map(str::to_owned))
        .map_err(|e| Event::Local(format!("AUTH {mechanism}: {e}")))?;
    command::print(&mut wire.out, auth);
    let written = wire.write(&[], 1, usize::MAX, timeouts.write).await;
    wire.wipe();
    match (wire.read(timeouts.ehlo).await, written) {
        (Ok(received), _) => Ok(received.reply),
        (Err(event), Written::All | Written::Early) => Err(event),
    }
}
