//! AUTH to a smart host (RFC 4954): with a password PLAIN, else LOGIN, else SCRAM-SHA-256, else CRAM-MD5; with a
//! token XOAUTH2, else OAUTHBEARER; or the mechanism that is configured. `sasl` makes the responses.
//!
//! A password or token goes out only over TLS or to a loopback address, whatever the configuration says; over
//! TLS whose certificate was not checked only where `tls` of the provider itself says so, since a smart host's
//! is `verified` otherwise. It is never logged, and its bytes are overwritten in the buffer after they are sent.
//! A second mechanism is tried only after a refusal that speaks of the first one: a wrong password said twice
//! counts as two break-in attempts.

use zeroize::Zeroizing;

use super::fact::{Event, Peer, Reply};
use super::oauth::Token;
use super::sasl::{Account, Broken, Exchange};
use super::wire::Wire;
use super::{Capabilities, Timeouts, command};
use crate::config::{self, AuthMechanism};

/// Longest command line, with its line end (RFC 4954 §4): a longer initial response waits for a 334.
const MAX_COMMAND: usize = 512;
/// Challenges that any mechanism has at most.
const MOST_CHALLENGES: usize = 4;

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

/// What is shown to the server.
#[derive(Clone, Copy)]
pub struct Login<'a> {
    /// The user.
    pub user: &'a str,
    /// The password or the token.
    pub secret: &'a config::Secret,
    /// It is a token.
    pub is_token: bool,
    /// The mechanism to use; `None`: what is offered.
    pub mechanism: Option<AuthMechanism>,
    /// The port of the smart host.
    pub port: u16,
}

impl<'a> Login<'a> {
    /// With a password.
    pub fn with_password(credentials: &'a config::Credentials, port: u16) -> Login<'a> {
        let config::Credentials { user, password, mechanism } = credentials;
        Login { user, secret: password, is_token: false, mechanism: *mechanism, port }
    }

    /// With a token.
    pub fn with_token(oauth: &'a config::OAuth, token: &'a Token, port: u16) -> Login<'a> {
        Login { user: &oauth.user, secret: token.secret(), is_token: true, mechanism: oauth.mechanism, port }
    }

    /// The mechanisms to try, best first.
    fn wanted(&self) -> &'static [AuthMechanism] {
        use AuthMechanism::{CramMd5, Login, OauthBearer, Plain, ScramSha256, XOauth2};
        match self.mechanism {
            Some(Plain) => &[Plain],
            Some(Login) => &[Login],
            Some(ScramSha256) => &[ScramSha256],
            Some(CramMd5) => &[CramMd5],
            Some(XOauth2) => &[XOauth2],
            Some(OauthBearer) => &[OauthBearer],
            None if self.is_token => &[XOauth2, OauthBearer],
            // Many servers that offer the last two keep no password in the form that they need.
            None => &[Plain, Login, ScramSha256, CramMd5],
        }
    }
}

/// Logs in. The error is what the server said, or why it was not asked.
pub async fn authenticate(
    wire: &mut Wire,
    caps: &Capabilities,
    peer: &Peer,
    timeouts: &Timeouts,
    login: Login<'_>,
) -> Result<(), Event> {
    if peer.tls.is_none() && !peer.ip.is_some_and(|ip| ip.to_canonical().is_loopback()) {
        let what = if login.is_token { "token" } else { "password" };
        return Err(Event::Tls(format!("the {what} is not sent in clear text: the connection has no TLS")));
    }
    let wanted = login.wanted();
    let account = Account { user: login.user, secret: login.secret.reveal(), host: &peer.host, port: login.port };
    let mut refused = None;
    for mechanism in wanted.iter().copied().filter(|mechanism| caps.auth & bit(*mechanism) != 0) {
        let mut exchange = Exchange::new(mechanism, account);
        let mut reply = run(wire, timeouts, mechanism, &mut exchange).await?;
        if let Some(error) = exchange.error() {
            let error = wire.redacted(error.to_owned());
            tracing::info!(host = &*peer.host, code = reply.code, %error, "the token was refused");
            if reply.code >= 400 {
                reply.text = format!("{} (it says {error})", reply.text).trim_start().to_owned();
            }
        }
        match reply.code {
            200..=299 => return exchange.check().map_err(|why| Event::Garbled(format!("AUTH: {why}"))),
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

/// The bit of smtp-proto.
fn bit(mechanism: AuthMechanism) -> u64 {
    match mechanism {
        AuthMechanism::Plain => smtp_proto::AUTH_PLAIN,
        AuthMechanism::Login => smtp_proto::AUTH_LOGIN,
        AuthMechanism::ScramSha256 => smtp_proto::AUTH_SCRAM_SHA_256,
        AuthMechanism::CramMd5 => smtp_proto::AUTH_CRAM_MD5,
        AuthMechanism::XOauth2 => smtp_proto::AUTH_XOAUTH2,
        AuthMechanism::OauthBearer => smtp_proto::AUTH_OAUTHBEARER,
    }
}

/// The mechanisms that a host offers.
pub(super) fn offered(caps: &Capabilities) -> Vec<&'static str> {
    NAMES.iter().filter(|(bit, _)| caps.auth & bit != 0).map(|(_, name)| *name).collect()
}

/// What is missing, and what there is instead.
fn missing(caps: &Capabilities, wanted: &[AuthMechanism]) -> String {
    let wanted: Vec<String> = wanted.iter().map(|mechanism| name(*mechanism)).collect();
    let wanted = match wanted.as_slice() {
        [others @ .., last] if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        all => all.concat(),
    };
    let offered = offered(caps);
    let instead = match offered.is_empty() {
        true if caps.auth == 0 && caps.starttls => "no mechanism; some offer one over TLS only".to_owned(),
        true => "no mechanism that is known here".to_owned(),
        false => offered.join(", "),
    };
    format!("AUTH {wanted} (it offers {instead})")
}

/// As SASL spells it.
fn name(mechanism: AuthMechanism) -> String {
    mechanism.as_str().to_ascii_uppercase()
}

/// A refusal of the mechanism, not of the password (RFC 4954 §4 and §6; 535 5.7.4 as Exchange says it).
fn speaks_of_mechanism(reply: &Reply) -> bool {
    matches!(reply.code, 500 | 501 | 502 | 504) || matches!((reply.code, reply.enhanced), (534 | 535, Some((_, 7, 4))))
}

/// The reply that ends it, or one of 3yz where it should have.
async fn run(
    wire: &mut Wire,
    timeouts: &Timeouts,
    mechanism: AuthMechanism,
    exchange: &mut Exchange<'_>,
) -> Result<Reply, Event> {
    let mut first = match exchange.client_first() {
        true => match exchange.respond("") {
            Ok(first) => Some(first),
            Err(Broken::Told(why)) => return Err(Event::Local(why)),
            Err(Broken::Over) => None,
        },
        false => None,
    };
    let name = name(mechanism);
    wire.pass_over();
    let fits = |response: &str| format!("AUTH {name} ").len() + response.len() + 2 <= MAX_COMMAND;
    let mut reply = match first.take_if(|first| fits(first)) {
        Some(response) => say(wire, timeouts, ["AUTH ", &name, &Zeroizing::new(format!(" {}", *response))]).await?,
        None => say(wire, timeouts, ["AUTH ", &name, ""]).await?,
    };
    for _ in 0..MOST_CHALLENGES {
        if reply.code != 334 {
            break;
        }
        let response = match first.take() {
            Some(first) => first,
            None => {
                let challenge = if exchange.repeats(&reply.text) { "" } else { reply.text.as_str() };
                match exchange.respond(challenge) {
                    Ok(response) => response,
                    Err(Broken::Over) => return Ok(reply),
                    Err(Broken::Told(why)) => return Err(Event::Garbled(format!("AUTH: {why}"))),
                }
            }
        };
        reply = say(wire, timeouts, [&response, "", ""]).await?;
    }
    Ok(reply)
}

async fn say(wire: &mut Wire, timeouts: &Timeouts, line: [&str; 3]) -> Result<Reply, Event> {
    // A buffer that grew while it has a secret would leave a copy behind.
    wire.out.reserve(line.iter().map(|part| part.len()).sum::<usize>() + 2);
    command::print(&mut wire.out, format_args!("{}{}{}\r\n", line[0], line[1], line[2]));
    wire.write(&[], 1, usize::MAX, timeouts.write).await;
    wire.wipe();
    Ok(wire.read(timeouts.ehlo).await?.reply)
}
