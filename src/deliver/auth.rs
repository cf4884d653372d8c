//! AUTH to a smart host (RFC 4954): PLAIN, else LOGIN, or the one that is configured; the responses
//! are made by lettre.
//!
//! A password goes out only over TLS or to a loopback address, whatever the configuration says; it
//! is never logged, and its bytes are overwritten in the buffer after they are sent. A second mechanism
//! is tried only after a refusal that speaks of the first one: a wrong password said twice counts as two
//! break-in attempts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};

use super::fact::{Event, Peer, Reply};
use super::wire::Wire;
use super::{Capabilities, Timeouts, command};
use crate::config::{self, AuthMechanism};

/// Longest command line, with its line end (RFC 4954 §4): a longer initial response waits for a 334.
const MAX_COMMAND: usize = 512;

/// Mechanisms that servers offer, for people.
const NAMES: [(u64, &str); 14] = [
    (smtp_proto::AUTH_PLAIN, "PLAIN"),
    (smtp_proto::AUTH_LOGIN, "LOGIN"),
    (smtp_proto::AUTH_XOAUTH2, "XOAUTH2"),
    (smtp_proto::AUTH_OAUTHBEARER, "OAUTHBEARER"),
    (smtp_proto::AUTH_CRAM_MD5, "CRAM-MD5"),
    (smtp_proto::AUTH_DIGEST_MD5, "DIGEST-MD5"),
    (smtp_proto::AUTH_NTLM, "NTLM"),
    (smtp_proto::AUTH_GSSAPI, "GSSAPI"),
    (smtp_proto::AUTH_EXTERNAL, "EXTERNAL"),
    (smtp_proto::AUTH_SCRAM_SHA_1, "SCRAM-SHA-1"),
    (smtp_proto::AUTH_SCRAM_SHA_1_PLUS, "SCRAM-SHA-1-PLUS"),
    (smtp_proto::AUTH_SCRAM_SHA_256, "SCRAM-SHA-256"),
    (smtp_proto::AUTH_SCRAM_SHA_256_PLUS, "SCRAM-SHA-256-PLUS"),
    (smtp_proto::AUTH_OTP, "OTP"),
];

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
    let wanted = match credentials.mechanism {
        Some(AuthMechanism::Plain) => &[Mechanism::Plain][..],
        Some(AuthMechanism::Login) => &[Mechanism::Login],
        None => &[Mechanism::Plain, Mechanism::Login],
    };
    let known = Credentials::new(credentials.user.clone(), credentials.password.reveal().to_owned());
    let mut refused = None;
    for mechanism in wanted.iter().filter(|mechanism| offers(caps, **mechanism)) {
        let reply = match mechanism {
            Mechanism::Plain => plain(wire, timeouts, &known).await?,
            _ => login(wire, timeouts, &known).await?,
        };
        match reply.code {
            200..=299 => return Ok(()),
            300..=399 => return Err(Event::Garbled(format!("AUTH goes on where it should end: {}", reply.code))),
            _ if speaks_of_mechanism(&reply) => refused = Some(reply),
            _ => return Err(Event::Reply(reply)),
        }
    }
    Err(match refused {
        Some(reply) => Event::Reply(reply),
        None => Event::Missing(missing(caps, wanted)),
    })
}

fn offers(caps: &Capabilities, mechanism: Mechanism) -> bool {
    match mechanism {
        Mechanism::Plain => caps.auth & smtp_proto::AUTH_PLAIN != 0,
        Mechanism::Login => caps.auth & smtp_proto::AUTH_LOGIN != 0,
        Mechanism::Xoauth2 => false,
    }
}

/// What is missing, and what there is instead.
fn missing(caps: &Capabilities, wanted: &[Mechanism]) -> String {
    let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
    let offered: Vec<&str> = NAMES.iter().filter(|(bit, _)| caps.auth & bit != 0).map(|(_, name)| *name).collect();
    let instead = match offered.is_empty() {
        true if caps.auth == 0 && caps.starttls => "no mechanism; some offer one over TLS only".to_owned(),
        true => "no mechanism that is known here".to_owned(),
        false => offered.join(", "),
    };
    format!("AUTH {} (it offers {instead})", wanted.join(" or "))
}

/// A refusal of the mechanism, not of the password (RFC 4954 §4 and §6; 535 5.7.4 as Exchange says it).
fn speaks_of_mechanism(reply: &Reply) -> bool {
    matches!(reply.code, 500 | 501 | 502 | 504) || matches!((reply.code, reply.enhanced), (534 | 535, Some((_, 7, 4))))
}

/// The reply that ends it. Some servers do not listen to an initial response, and ask for it.
async fn plain(wire: &mut Wire, timeouts: &Timeouts, credentials: &Credentials) -> Result<Reply, Event> {
    let response = response(Mechanism::Plain, credentials, None)?;
    let command = format!("AUTH PLAIN {response}");
    let fits = command.len() + 2 <= MAX_COMMAND;
    let reply = say(wire, timeouts, if fits { &command } else { "AUTH PLAIN" }).await?;
    if reply.code == 334 { say(wire, timeouts, &response).await } else { Ok(reply) }
}

/// The reply that ends it. The prompts come in this order whatever they say (some servers translate them).
async fn login(wire: &mut Wire, timeouts: &Timeouts, credentials: &Credentials) -> Result<Reply, Event> {
    let mut reply = say(wire, timeouts, "AUTH LOGIN").await?;
    for prompt in ["Username:", "Password:"] {
        if reply.code != 334 {
            break;
        }
        reply = say(wire, timeouts, &response(Mechanism::Login, credentials, Some(prompt))?).await?;
    }
    Ok(reply)
}

/// A response, in base64.
fn response(mechanism: Mechanism, credentials: &Credentials, prompt: Option<&str>) -> Result<String, Event> {
    let response = mechanism.response(credentials, prompt);
    response.map(|text| STANDARD.encode(text)).map_err(|e| Event::Local(format!("AUTH {mechanism}: {e}")))
}

async fn say(wire: &mut Wire, timeouts: &Timeouts, line: &str) -> Result<Reply, Event> {
    command::print(&mut wire.out, format_args!("{line}\r\n"));
    wire.write(&[], 1, usize::MAX, timeouts.write).await;
    wire.wipe();
    Ok(wire.read(timeouts.ehlo).await?.reply)
}
