//! Tokens for smart hosts (OAuth 2.0): fetched, kept, renewed.
//!
//! - `https` sends one request; `grant` makes it and understands the answer; `jwt` signs assertions; `known` tells
//!   what errors mean; `store` keeps the refresh token; `device` is the login of a person.
//!
//! Invariants: a token is fetched once, however many connections wait for it, and by a task of its own, so that no
//! caller who goes away loses a refresh token that has just come; it is used until 80 % of its life, and to its end
//! while the endpoint does not answer; after a failure the endpoint is left alone for longer and longer
//! ([`FIRST`] to [`LONGEST`]); a refresh token is on the disk before it is used. No token and no secret is in a log
//! or an error: [`Token::redactor`] is for what hosts say.

mod device;
mod grant;
mod https;
mod jwt;
pub mod known;
mod store;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Mutex as TurnMutex, OwnedMutexGuard};
use tokio::time::Instant;

use super::tls::TlsSettings;
use crate::clock::{Clock, doubled};
use crate::config::{Config, Credentials, OAuth, OAuthGrant, Provider, Redactor, Secret};
pub use device::{Code, LoginFault};
pub use grant::Fault;
pub use https::Names;
use https::{Https, Post};
pub use jwt::told;

/// How long an endpoint that did not answer is left alone: at first, and at most.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// The same for one that refuses: it will say the same until somebody does something.
const REFUSED_FIRST: Duration = Duration::from_secs(5);
const REFUSED_LONGEST: Duration = Duration::from_secs(300);
/// A token that a host did not take is replaced before its time no more often.
const RENEW_AGAIN: Duration = Duration::from_secs(300);
/// A token is not used in the last moments of its life.
const MARGIN: Duration = Duration::from_secs(10);

/// A bearer token.
pub struct Token {
    secret: Secret,
    redactor: Redactor,
    /// To be renewed from then on.
    stale: Instant,
    /// Not to be used from then on.
    end: Instant,
    life: Duration,
}

impl Token {
    fn new(user: &str, secret: Secret, life: Duration, fetched: Instant) -> Token {
        let known = Credentials { user: user.to_owned(), password: secret.clone(), mechanism: None };
        let (stale, end) = (fetched + life.mul_f64(0.8), fetched + life.saturating_sub(MARGIN));
        Token { redactor: Redactor::new([&known]), secret, stale, end, life }
    }

    /// The token itself, for the one place that sends it.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// For what a host says that has heard it.
    pub fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    /// How long it holds from when it was fetched.
    pub fn life(&self) -> Duration {
        self.life
    }

    fn is_fresh(&self) -> bool {
        Instant::now() < self.stale
    }

    fn is_usable(&self) -> bool {
        Instant::now() < self.end
    }
}

/// The tokens of all providers that have some.
#[derive(Default)]
pub struct Tokens {
    clients: HashMap<String, Arc<Client>>,
}

/// How tokens of one provider are had.
struct Client {
    provider: String,
    oauth: Arc<OAuth>,
    post: Box<dyn Post>,
    files: store::Files,
    clock: Clock,
    current: Mutex<Option<Arc<Token>>>,
    /// When a token was replaced before its time.
    forced: Mutex<Option<Instant>>,
    /// Whoever has it fetches; providers with the same refresh token have it in common.
    turn: Arc<TurnMutex<Turn>>,
}

/// What fetching has brought so far.
#[derive(Default)]
struct Turn {
    failed: Option<Failed>,
    /// A refresh token that could not be written.
    unwritten: Option<Secret>,
}

struct Failed {
    times: u32,
    until: Instant,
    fault: Fault,
}

impl Tokens {
    /// For the providers of a configuration that have `oauth`.
    pub(super) fn new(config: &Config, tls: &TlsSettings, names: &Arc<dyn Names>, clock: Clock) -> Tokens {
        let with_oauth = || config.providers.iter().filter_map(|p| Some((p, p.relay.as_ref()?.oauth.clone()?)));
        let marks: Vec<String> = with_oauth().filter_map(|(_, oauth)| store::mark_of(&oauth)).collect();
        let mut turns: HashMap<String, Arc<TurnMutex<Turn>>> = HashMap::new();
        let clients = with_oauth().map(|(provider, oauth)| {
            let post: Box<dyn Post> = match tls.verified(provider) {
                Ok(tls) => Box::new(Https { tls, names: names.clone() }),
                Err(why) => Box::new(Nobody(why)),
            };
            // A refresh token that several providers have is spent by one at a time, and what comes in its place is theirs.
            let mark = store::mark_of(&oauth);
            let several = mark.as_ref().is_some_and(|mark| marks.iter().filter(|other| *other == mark).count() > 1);
            let files = store::Files::of(config, &provider.name, mark.as_deref(), several);
            let turn = mark.map(|mark| turns.entry(mark).or_default().clone()).unwrap_or_default();
            (provider.name.clone(), Arc::new(Client { turn, ..Client::new(&provider.name, oauth, post, files, clock) }))
        });
        Tokens { clients: clients.collect() }
    }

    fn client(&self, provider: &Provider) -> Result<&Arc<Client>, Fault> {
        // The configuration of one source has the name of its provider, too.
        self.clients.get(&provider.name).ok_or_else(|| Fault::local("nobody fetches tokens here"))
    }

    /// A token that holds; `None`: the provider needs none.
    ///
    /// # Errors
    /// There is none, and why: the endpoint was asked, or has failed a moment ago.
    pub async fn get(&self, provider: &Provider) -> Result<Option<Arc<Token>>, Fault> {
        if provider.relay.as_ref().is_none_or(|relay| relay.oauth.is_none()) {
            return Ok(None);
        }
        self.client(provider)?.clone().get().await.map(Some)
    }

    /// Another token in the place of one that the host did not take; `None`: the one there is was fetched for the
    /// same reason a moment ago.
    ///
    /// # Errors
    /// As [`Tokens::get`].
    pub async fn renew(&self, provider: &Provider, old: &Arc<Token>) -> Result<Option<Arc<Token>>, Fault> {
        self.client(provider)?.clone().renew(old).await
    }

    /// For all that a host of the provider says: it may have heard the token.
    pub fn redactor(&self, provider: &Provider) -> Redactor {
        let current = self.clients.get(&provider.name).and_then(|client| client.current.lock().clone());
        current.map(|token| token.redactor.clone()).unwrap_or_default()
    }

    /// Every endpoint is asked again at the next need.
    pub fn forget_failures(&self) {
        for client in self.clients.values() {
            // One that is being asked now needs no reminder.
            if let Ok(mut turn) = client.turn.try_lock() {
                turn.failed = None;
            }
        }
    }
}

/// Has no TLS to ask with.
struct Nobody(String);

#[async_trait::async_trait]
impl Post for Nobody {
    async fn post(&self, _: &crate::config::Endpoint, _: &https::Form) -> Result<https::Answer, String> {
        Err(self.0.clone())
    }
}

impl Client {
    fn new(provider: &str, oauth: Arc<OAuth>, post: Box<dyn Post>, files: store::Files, clock: Clock) -> Client {
        let (current, forced, turn) = (Mutex::default(), Mutex::default(), Arc::default());
        Client { provider: provider.to_owned(), oauth, post, files, clock, current, forced, turn }
    }

    fn current(&self) -> Option<Arc<Token>> {
        self.current.lock().clone()
    }

    async fn get(self: Arc<Client>) -> Result<Arc<Token>, Fault> {
        let before = self.current();
        if let Some(token) = before.as_ref().filter(|token| token.is_fresh()) {
            return Ok(token.clone());
        }
        let usable = before.filter(|token| token.is_usable());
        let turn = match (self.turn.clone().try_lock_owned(), &usable) {
            (Ok(turn), _) => turn,
            // Somebody renews it, and it holds still.
            (Err(_), Some(token)) => return Ok(token.clone()),
            (Err(_), None) => self.turn.clone().lock_owned().await,
        };
        // It may have come meanwhile.
        if let Some(token) = self.current().filter(|token| token.is_fresh()) {
            return Ok(token);
        }
        if let Some(failed) = turn.failed.as_ref().filter(|failed| failed.until > Instant::now()) {
            let left = failed.until.saturating_duration_since(Instant::now());
            return usable.ok_or_else(|| Fault { left, ..failed.fault.clone() });
        }
        match (self.clone().fetch_in_a_task(turn).await, usable) {
            (Err(_), Some(token)) => Ok(token),
            (done, _) => done,
        }
    }

    async fn renew(self: Arc<Client>, old: &Arc<Token>) -> Result<Option<Arc<Token>>, Fault> {
        let turn = self.turn.clone().lock_owned().await;
        match self.current() {
            // Another connection has had it renewed.
            Some(token) if !Arc::ptr_eq(&token, old) => return Ok(Some(token)),
            _ => {}
        }
        let before = self.forced.lock().replace(Instant::now());
        if let Some(before) = before.filter(|at| at.elapsed() < RENEW_AGAIN) {
            *self.forced.lock() = Some(before);
            return Ok(None);
        }
        self.fetch_in_a_task(turn).await.map(Some)
    }

    /// Fetches whatever becomes of the caller.
    async fn fetch_in_a_task(self: Arc<Client>, turn: OwnedMutexGuard<Turn>) -> Result<Arc<Token>, Fault> {
        let task = tokio::spawn(async move {
            let mut turn = turn;
            self.fetch(&mut turn).await
        });
        task.await.unwrap_or_else(|e| Err(Fault::local(format!("the token could not be fetched: {e}"))))
    }

    async fn fetch(self: Arc<Client>, turn: &mut Turn) -> Result<Arc<Token>, Fault> {
        let (provider, host) = (&*self.provider, self.oauth.token_url.host());
        match self.ask(turn).await {
            Ok(token) => {
                turn.failed = None;
                let token = Arc::new(token);
                *self.current.lock() = Some(token.clone());
                tracing::info!(provider, host, holds_s = token.life.as_secs(), "a token was fetched");
                Ok(token)
            }
            Err(mut fault) => {
                let times = turn.failed.as_ref().map_or(0, |failed| failed.times);
                let (first, longest) = if fault.refused { (REFUSED_FIRST, REFUSED_LONGEST) } else { (FIRST, LONGEST) };
                let wait = doubled(first, times, longest);
                let wait = fault.wait.map_or(wait, |asked| asked.max(wait));
                tracing::debug!(provider, host, why = %fault, again_in_s = wait.as_secs(), "no token");
                fault.left = wait;
                let (times, until) = (times.saturating_add(1), Instant::now() + wait);
                turn.failed = Some(Failed { times, until, fault: fault.clone() });
                Err(fault)
            }
        }
    }

    async fn ask(&self, turn: &mut Turn) -> Result<Token, Fault> {
        let now = self.clock.now();
        let refresh = match (self.oauth.grant, turn.unwritten.clone()) {
            (OAuthGrant::RefreshToken, None) => self.load().await?,
            (_, unwritten) => unwritten,
        };
        let form = grant::form(&self.oauth, refresh.as_ref(), now)?;
        let fetched = Instant::now();
        let answer = self.post.post(&self.oauth.token_url, &form).await.map_err(Fault::unreachable)?;
        let granted = grant::read(&self.oauth, &form, &answer, self.clock.now())?;
        if let Some(new) = granted.refresh.filter(|new| refresh.as_ref() != Some(new))
            && self.oauth.grant == OAuthGrant::RefreshToken
        {
            turn.unwritten = Some(new.clone());
            match self.keep(new).await {
                Ok(()) => turn.unwritten = None,
                // It holds in this process, and is written with the next one.
                Err(error) => {
                    let provider = &*self.provider;
                    tracing::error!(provider, %error, "the new refresh token is not stored: it is lost with this process");
                }
            }
        }
        Ok(Token::new(&self.oauth.user, granted.token, granted.life, fetched))
    }

    async fn load(&self) -> Result<Option<Secret>, Fault> {
        let (files, oauth) = (self.files.clone(), self.oauth.clone());
        let loaded = tokio::task::spawn_blocking(move || store::load(&files, &oauth)).await;
        loaded.unwrap_or_else(|e| Err(e.to_string())).map_err(Fault::local)
    }

    async fn keep(&self, token: Secret) -> Result<(), String> {
        let (files, oauth) = (self.files.clone(), self.oauth.clone());
        let kept = tokio::task::spawn_blocking(move || store::keep(files.to_write(), &oauth, &token)).await;
        kept.unwrap_or_else(|e| Err(e.to_string()))
    }
}

#[cfg(test)]
mod tests;
