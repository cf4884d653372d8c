//! The login of a person by a device code (RFC 8628): the program shows a code, the person enters it in a browser,
//! and the program asks until that is done.

use std::time::Duration;

use serde::Deserialize;
use tokio::time::{Instant, sleep};
use zeroize::{Zeroize as _, Zeroizing};

use super::grant::{self, Fault};
use super::https::Form;
use super::{Client, Tokens};
use crate::config::{OAuthGrant, OAuthService, Provider, Secret};

/// Between two questions where the service does not say.
const INTERVAL: Duration = Duration::from_secs(5);
/// How long a code holds at most.
const LONGEST: Duration = Duration::from_secs(1800);

/// Why nobody is logged in.
#[derive(Debug, thiserror::Error)]
pub enum LoginFault {
    /// The configuration has no such login.
    #[error("{0}")]
    Config(String),
    /// The service does not want it, or does not answer.
    #[error("{0}")]
    Service(Fault),
    /// The refresh token is not on the disk.
    #[error("{0}")]
    Store(String),
}

/// What the person is told.
#[derive(Debug)]
pub struct Code {
    /// Where to go.
    pub address: String,
    /// What to enter there.
    pub code: String,
    /// How long it holds.
    pub holds: Duration,
}

#[derive(Deserialize)]
struct Begun {
    device_code: String,
    user_code: String,
    #[serde(alias = "verification_url")]
    verification_uri: String,
    expires_in: Option<u64>,
    interval: Option<u64>,
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.device_code.zeroize();
    }
}

impl Tokens {
    /// Logs a person in, who is told the code by `tell`, and stores the refresh token.
    ///
    /// # Errors
    /// See [`LoginFault`].
    pub async fn log_in(&self, provider: &Provider, tell: impl FnOnce(&Code)) -> Result<(), LoginFault> {
        let client = self.client(provider).map_err(LoginFault::Service)?;
        client.log_in(tell).await
    }
}

impl Client {
    pub(super) async fn log_in(&self, tell: impl FnOnce(&Code)) -> Result<(), LoginFault> {
        let oauth = &*self.oauth;
        if oauth.grant != OAuthGrant::RefreshToken {
            let why = "a person logs in where a refresh token is used: expected grant = \"refresh_token\"; this \
                       provider's tokens are for the application or service account itself";
            return Err(LoginFault::Config(why.to_owned()));
        }
        let device = oauth.device_url.as_ref().ok_or_else(|| {
            LoginFault::Config(match oauth.service {
                OAuthService::Google => {
                    "Google lets nobody log in for mail by a code: expected `service_account`, or a \
                                         `refresh_token` that was had elsewhere"
                        .to_owned()
                }
                _ => "`device_url` is missing: where the login begins".to_owned(),
            })
        })?;
        let mut form: Form = vec![("scope", Zeroizing::new(oauth.scope.clone()))];
        grant::prove(oauth, self.clock.now(), &mut form).map_err(LoginFault::Service)?;
        let answer = self.post.post(device, &form).await.map_err(|why| LoginFault::Service(Fault::unreachable(why)))?;
        if answer.status != 200 {
            return Err(LoginFault::Service(grant::refusal(oauth, &form, &answer, self.clock.now())));
        }
        let garbled = || LoginFault::Service(Fault::local(format!("{} answers with what is no code", device.host())));
        let begun: Begun = serde_json::from_slice(&answer.body).map_err(|_| garbled())?;
        let holds = begun.expires_in.map_or(LONGEST, Duration::from_secs).min(LONGEST);
        tell(&Code { address: begun.verification_uri.clone(), code: begun.user_code.clone(), holds });
        let refresh = self.wait(&begun, holds).await?;
        self.keep(refresh).await.map_err(LoginFault::Store)
    }

    async fn wait(&self, begun: &Begun, holds: Duration) -> Result<Secret, LoginFault> {
        let oauth = &*self.oauth;
        let end = Instant::now() + holds;
        let mut interval = begun.interval.map_or(INTERVAL, Duration::from_secs).clamp(Duration::from_secs(1), LONGEST);
        while Instant::now() + interval < end {
            sleep(interval).await;
            let kind = "urn:ietf:params:oauth:grant-type:device_code".to_owned();
            let mut form: Form =
                vec![("grant_type", Zeroizing::new(kind)), ("device_code", Zeroizing::new(begun.device_code.clone()))];
            grant::prove(oauth, self.clock.now(), &mut form).map_err(LoginFault::Service)?;
            let Ok(answer) = self.post.post(&oauth.token_url, &form).await else {
                // RFC 8628 §3.5: ask more slowly after a time-out.
                interval = interval.saturating_mul(2);
                continue;
            };
            match grant::read(oauth, &form, &answer, self.clock.now()) {
                Ok(granted) => {
                    let missing = "the service gave no refresh token: expected offline_access (or its like) in `scope`";
                    return granted.refresh.ok_or_else(|| LoginFault::Config(missing.to_owned()));
                }
                Err(fault) if fault.code == "authorization_pending" => {}
                Err(fault) if fault.code == "slow_down" => interval += INTERVAL,
                Err(fault) if !fault.refused => interval = interval.saturating_mul(2),
                Err(fault) => return Err(LoginFault::Service(fault)),
            }
        }
        Err(LoginFault::Service(Fault::local("the code is over, and nobody has entered it")))
    }
}
