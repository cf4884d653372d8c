//! What is asked of a token endpoint, and what its answer means. No socket.
//!
//! Invariant: no secret that was sent is in a [`Fault`], whatever the endpoint says back.

use std::fmt;
use std::time::Duration;

use mail_parser::DateTime;
use serde::Deserialize;
use zeroize::{Zeroize as _, Zeroizing};

use super::https::{Answer, Form};
use super::{jwt, known};
use crate::clock::Timestamp;
use crate::config::{Credentials, OAuth, OAuthGrant, OAuthService, Proof, Redactor, Secret};

/// Life of a token whose endpoint does not say, and the bounds of what it says.
const LIFE: Duration = Duration::from_secs(600);
const SHORTEST: Duration = Duration::from_secs(30);
const LONGEST: Duration = Duration::from_secs(86_400);
/// Bytes of a token: those of Microsoft have about 2,000.
const MAX_TOKEN: usize = 8192;
/// Characters that are kept of what an endpoint says.
const MAX_SAID: usize = 300;
/// A difference of clocks that is worth a word.
const SKEW_MS: i64 = 60_000;

/// Why there is no token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// What happened, and what to do where that is known.
    pub text: String,
    /// The endpoint has answered: it does not want us. Else nobody has answered.
    pub refused: bool,
    /// It said how long to wait.
    pub wait: Option<Duration>,
    /// `error` of its answer.
    pub code: String,
    /// When it may be asked again.
    pub left: Duration,
}

impl Fault {
    pub(super) fn unreachable(text: String) -> Fault {
        Fault { text, refused: false, wait: None, code: String::new(), left: Duration::ZERO }
    }

    pub(super) fn local(text: impl Into<String>) -> Fault {
        Fault { text: text.into(), refused: true, wait: None, code: String::new(), left: Duration::ZERO }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What an endpoint gave out.
pub(super) struct Granted {
    pub token: Secret,
    pub life: Duration,
    /// To be used instead of the one that was sent.
    pub refresh: Option<Secret>,
}

/// The form for a token; `refresh`: the refresh token, if the grant needs one.
pub(super) fn form(oauth: &OAuth, refresh: Option<&Secret>, now: Timestamp) -> Result<Form, Fault> {
    let text = |text: &str| Zeroizing::new(text.to_owned());
    let mut form: Form = Vec::new();
    match oauth.grant {
        OAuthGrant::ClientCredentials => form.push(("grant_type", text("client_credentials"))),
        OAuthGrant::RefreshToken => {
            let refresh = refresh.ok_or_else(|| {
                Fault::local("nobody has logged in yet: `mailweir auth login NAME` gets the first refresh token")
            })?;
            form.push(("grant_type", text("refresh_token")));
            form.push(("refresh_token", text(refresh.reveal())));
        }
        OAuthGrant::ServiceAccount => {
            let account =
                oauth.service_account.as_deref().ok_or_else(|| Fault::local("there is no service account"))?;
            let assertion = jwt::account_assertion(oauth, account, now).map_err(Fault::local)?;
            form.push(("grant_type", text("urn:ietf:params:oauth:grant-type:jwt-bearer")));
            form.push(("assertion", assertion));
        }
    }
    // The assertion of a service account has it inside; what Google refreshes has the scope that it had.
    if !oauth.scope.is_empty() && oauth.grant != OAuthGrant::ServiceAccount && oauth.service != OAuthService::Google {
        form.push(("scope", text(&oauth.scope)));
    }
    prove(oauth, now, &mut form)?;
    Ok(form)
}

/// Adds who we are.
pub(super) fn prove(oauth: &OAuth, now: Timestamp, form: &mut Form) -> Result<(), Fault> {
    if !oauth.client_id.is_empty() {
        form.push(("client_id", Zeroizing::new(oauth.client_id.clone())));
    }
    if let Proof::Secret(secret) = &oauth.proof {
        form.push(("client_secret", Zeroizing::new(secret.reveal().to_owned())));
    }
    if let Some(assertion) = jwt::client_assertion(oauth, now) {
        let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer".to_owned();
        form.push(("client_assertion_type", Zeroizing::new(kind)));
        form.push(("client_assertion", assertion.map_err(Fault::local)?));
    }
    Ok(())
}

/// An answer as it stands there.
#[derive(Deserialize)]
struct Fields {
    access_token: Option<String>,
    refresh_token: Option<String>,
    token_type: Option<String>,
    expires_in: Option<serde_json::Value>,
}

impl Drop for Fields {
    fn drop(&mut self) {
        self.access_token.zeroize();
        self.refresh_token.zeroize();
    }
}

/// `error` (RFC 6749 §5.2).
#[derive(Deserialize, Default)]
#[serde(default)]
struct Refusal {
    error: Option<String>,
    error_description: Option<String>,
}

/// What an answer means. `form` is what it answers to.
pub(super) fn read(oauth: &OAuth, form: &Form, answer: &Answer, now: Timestamp) -> Result<Granted, Fault> {
    if answer.status != 200 {
        return Err(refusal(oauth, form, answer, now));
    }
    let host = oauth.token_url.host();
    let garbled = |what: &str| Fault::local(format!("{host} answers with {what}"));
    // The library's words may repeat the answer.
    let mut fields: Fields = serde_json::from_slice(&answer.body).map_err(|_| garbled("what is no token"))?;
    if fields.token_type.as_ref().is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        return Err(garbled("a token that is no bearer token"));
    }
    let token = fields.access_token.take().map(Secret::new).ok_or_else(|| garbled("no access_token"))?;
    // RFC 6750 §2.1; anything else could end the line of AUTH.
    if !is_token(&token) {
        return Err(garbled("an access_token that cannot be sent on"));
    }
    let seconds = fields.expires_in.as_ref().and_then(|n| n.as_u64().or_else(|| n.as_str()?.parse().ok()));
    let life = seconds.map_or(LIFE, Duration::from_secs).clamp(SHORTEST, LONGEST);
    let refresh = fields.refresh_token.take().map(Secret::new).filter(is_token);
    Ok(Granted { token, life, refresh })
}

fn is_token(secret: &Secret) -> bool {
    let text = secret.reveal();
    !text.is_empty() && text.len() <= MAX_TOKEN && text.bytes().all(|b| b.is_ascii_graphic())
}

pub(super) fn refusal(oauth: &OAuth, form: &Form, answer: &Answer, now: Timestamp) -> Fault {
    let host = oauth.token_url.host();
    let said: Refusal = serde_json::from_slice(&answer.body).unwrap_or_default();
    let code = clean(said.error.as_deref().unwrap_or_default(), form);
    let description = clean(said.error_description.as_deref().unwrap_or_default(), form);
    let mut text = match (code.is_empty(), answer.status) {
        (false, _) => format!("{host} refuses: {code}"),
        (true, 300..=399) => {
            format!("{host} wants to be asked elsewhere (HTTP {}): is `token_url` right?", answer.status)
        }
        (true, 429) => format!("{host} is asked too often (HTTP 429)"),
        (true, status) => format!("{host} answers with HTTP {status}"),
    };
    if !description.is_empty() {
        text.push_str(": ");
        text.push_str(&description);
    }
    let skewed = skew(answer, now).filter(|ms| ms.abs() > SKEW_MS && known::is_about_time(&text));
    if let Some(ms) = skewed {
        let way = if ms > 0 { "ahead of" } else { "behind" };
        text.push_str(&format!(" (the clock of this machine is {} s {way} that of {host}: set it)", ms.abs() / 1000));
    } else if let Some(what) = known::what_to_do(&text) {
        text.push_str(&format!(" ({what})"));
    }
    // What a server cannot do now is no refusal.
    let refused = !matches!(answer.status, 429 | 500..) && code != "temporarily_unavailable";
    Fault { text, refused, wait: answer.retry_after, code, left: Duration::ZERO }
}

/// How far the clock of this machine is ahead of the endpoint's, in milliseconds.
fn skew(answer: &Answer, now: Timestamp) -> Option<i64> {
    let date = DateTime::parse_rfc822(answer.date.as_deref()?)?;
    Some(now.0.saturating_sub(date.to_timestamp().saturating_mul(1000)))
}

/// The first line, without what was sent and what is no text.
fn clean(text: &str, form: &Form) -> String {
    let line = text.lines().next().unwrap_or_default();
    // Microsoft writes behind it what only its support needs.
    let line = line.split(" Trace ID:").next().unwrap_or_default();
    let line: String = line.chars().filter(|c| !c.is_control()).take(2 * MAX_SAID).collect();
    let sent = ["client_secret", "refresh_token", "client_assertion", "assertion", "device_code"];
    let secrets: Vec<Credentials> = form
        .iter()
        .filter(|(name, _)| sent.contains(name))
        .map(|(_, value)| Credentials {
            user: String::new(),
            password: Secret::new(value.as_str().to_owned()),
            mechanism: None,
        })
        .collect();
    let line = Redactor::new(&secrets).redact(line);
    line.trim().trim_end_matches('.').chars().take(MAX_SAID).collect()
}
