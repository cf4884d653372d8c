//! Logins of clients (RFC 4954): whose they are, how long each waits, and what a check may cost.
//!
//! Invariants:
//! - A password is checked on a thread for what blocks, and few at once in the whole process ([`CHECKS`]): a flood
//!   of logins takes neither all memory nor the threads of sessions.
//! - Logins of one network are checked one behind the other (`turns`), those of a name that has logged in well from
//!   there apart, in a line of their own: with the first that fails the others stand with the rest.
//! - A failure is answered after [`FAILURE`] at least, and what is checked for a name that nobody has costs as much
//!   as for one that somebody has: who listens to the time learns no names.
//! - A name goes to the log only if it is one of a user: it may be a password that somebody typed a line too early.
//! - What is remembered of a good login, so that the next one of the same client costs no hash, is a code of the
//!   password with a key that only this process has, for [`REMEMBERED`].

pub(super) mod sasl;
mod throttle;
mod turns;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use zeroize::Zeroizing;

pub use throttle::Slowed;
pub(super) use throttle::{Admission, LONGEST};
pub(super) use turns::Turn;

use super::client_network::network_or_machine;
use crate::config::{User, Users};
use crate::smtp::sasl::{SCRAM_KEY, hmac_md5, hmac_sha256, same};
use sasl::{Attempt, Proof};
use throttle::Throttle;
use turns::Turns;

/// Passwords that are checked at once, at most: with at most 64 MiB each.
const CHECKS: usize = 2;
/// How soon a failure is told, at the earliest.
pub(super) const FAILURE: Duration = Duration::from_secs(1);
/// How long a good login is remembered.
const REMEMBERED: Duration = Duration::from_secs(600);

/// The logins of all listeners of a relay; see the module.
pub struct Logins {
    checks: Arc<Semaphore>,
    throttle: Mutex<Throttle>,
    turns: Arc<Turns>,
    /// The last good password of each user who logged in, as a code.
    recent: Mutex<HashMap<Arc<str>, Recent>>,
    /// Of this process alone.
    key: Zeroizing<[u8; SCRAM_KEY]>,
}

struct Recent {
    code: [u8; SCRAM_KEY],
    until: Instant,
}

impl Default for Logins {
    fn default() -> Logins {
        let mut key = Zeroizing::new([0; SCRAM_KEY]);
        if aws_lc_rs::rand::fill(&mut *key).is_err() {
            // Still nothing that others know; and without random numbers there is no TLS either.
            fastrand::fill(&mut *key);
        }
        // Half of the cores stay with the sessions.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Logins {
            checks: Arc::new(Semaphore::new((cores / 2).clamp(1, CHECKS))),
            throttle: Mutex::default(),
            turns: Arc::default(),
            recent: Mutex::default(),
            key,
        }
    }
}

impl Logins {
    /// Takes over what is known of failures, as after a reload.
    pub fn go_on_from(&self, before: &Logins) {
        *self.throttle.lock() = std::mem::take(&mut *before.throttle.lock());
    }

    /// Addresses whose logins have failed.
    pub fn slowed(&self) -> Vec<Slowed> {
        self.throttle.lock().slowed(Instant::now())
    }

    /// Forgets the failures of one address, or of all; how many there were.
    pub fn forgive(&self, ip: Option<IpAddr>) -> usize {
        self.throttle.lock().forgive(ip)
    }

    /// For salts of users whom nobody knows.
    pub(super) fn key(&self) -> &[u8; SCRAM_KEY] {
        &self.key
    }

    /// Waits for its turn among the logins of its network, or of a name that is known there.
    pub(super) async fn turn(&self, ip: IpAddr, name: &str) -> Turn {
        let (network, known) = (network_or_machine(ip), || self.throttle.lock().known(ip, name));
        if let Some(name) = known() {
            let turn = self.turns.wait(network, Some(name)).await;
            // One before it may have failed: then it is a guess like others.
            if known().is_some() {
                return turn;
            }
        }
        self.turns.wait(network, None).await
    }

    /// When a client whose turn it is may have its login checked.
    pub(super) fn admit(&self, ip: IpAddr, name: &str) -> Admission {
        self.throttle.lock().admit(ip, name, Instant::now())
    }

    /// Whose login it is. The caller has been admitted.
    pub(super) async fn check(&self, users: &Arc<Users>, ip: IpAddr, attempt: Attempt) -> Checked {
        let known = users.find(&attempt.user).cloned();
        let mut secret = None;
        let good = match attempt.proof {
            Proof::Password(password) => {
                let good = self.is_password(users, known.as_ref(), &password).await;
                secret = Some(password);
                good
            }
            Proof::CramMd5 { challenge, code } => {
                let clear = known.as_ref().and_then(|user| user.password.clear());
                let expected = hmac_md5(clear.map_or(&self.key[..], |c| c.reveal().as_bytes()), challenge.as_bytes());
                same(expected.as_bytes(), code.as_bytes()) && clear.is_some()
            }
            Proof::Scram { proven } => proven && known.is_some(),
            Proof::Never(_) => {
                // One that is the same again counts once, as a password does.
                secret = Some(Zeroizing::default());
                false
            }
        };
        let (mut throttle, now) = (self.throttle.lock(), Instant::now());
        match known {
            Some(user) if good => {
                throttle.succeeded(ip, &attempt.user, now);
                Checked::User(user)
            }
            user => {
                let banned = throttle.failed(ip, &attempt.user, secret.as_ref().map(|s| s.as_bytes()), now);
                Checked::Nobody { user, banned }
            }
        }
    }

    async fn is_password(&self, users: &Arc<Users>, known: Option<&Arc<User>>, password: &Zeroizing<String>) -> bool {
        if known.is_some_and(|user| self.remembers(user, password)) {
            return true;
        }
        // It is never closed.
        let Ok(permit) = self.checks.clone().acquire_owned().await else { return false };
        let (user, slow, given) = (known.cloned(), users.slow().cloned(), password.clone());
        let checked = tokio::task::spawn_blocking(move || {
            let good = user.as_ref().is_some_and(|user| user.password.is(&given));
            // As much for a name that nobody has.
            if !good && !user.is_some_and(|user| user.password.is_slow()) {
                let _ = slow.is_some_and(|slow| slow.password.is(&given));
            }
            // Only now: a session that goes away does not end what it has begun.
            drop(permit);
            good
        });
        let good = checked.await.unwrap_or(false);
        if let Some(user) = known.filter(|_| good) {
            let recent = Recent { code: self.code(user, password), until: Instant::now() + REMEMBERED };
            self.recent.lock().insert(user.name.clone(), recent);
        }
        good
    }

    fn remembers(&self, user: &User, password: &str) -> bool {
        let code = self.code(user, password);
        let recent = self.recent.lock();
        recent.get(&user.name).is_some_and(|known| known.until > Instant::now() && same(&known.code, &code))
    }

    /// Of the password and of what is stored of it: another hash is another user.
    fn code(&self, user: &User, password: &str) -> [u8; SCRAM_KEY] {
        let stored = hmac_sha256(&*self.key, user.password.text().reveal().as_bytes());
        hmac_sha256(&stored, password.as_bytes())
    }
}

/// What came of a check.
pub(super) enum Checked {
    /// It was right.
    User(Arc<User>),
    /// It was wrong.
    Nobody {
        /// Whose name it was.
        user: Option<Arc<User>>,
        /// With this failure the address is banned.
        banned: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StoredPassword;

    fn password(user: &str, password: &str) -> Attempt {
        let password = Zeroizing::new(password.to_owned());
        Attempt { user: Zeroizing::new(user.to_owned()), proof: Proof::Password(password) }
    }

    async fn who(logins: &Logins, users: &Arc<Users>, attempt: Attempt) -> Result<String, Option<String>> {
        match logins.check(users, [192, 0, 2, 1].into(), attempt).await {
            Checked::User(user) => Ok(user.name.to_string()),
            Checked::Nobody { user, .. } => Err(user.map(|user| user.name.to_string())),
        }
    }

    #[tokio::test]
    async fn a_good_password_is_known_again_without_its_hash_and_no_other_is() {
        let hash = StoredPassword::hash("right").expect("a hash");
        let user = |hash: &str| User::new("Shop", StoredPassword::parse(hash, true).expect("good"));
        let users = Arc::new(Users::new([user(&hash)]));
        let logins = Logins::default();
        assert_eq!(who(&logins, &users, password("shop", "wrong")).await, Err(Some("Shop".into())));
        assert_eq!(who(&logins, &users, password("nobody", "right")).await, Err(None));
        assert_eq!(who(&logins, &users, password("SHOP", "right")).await, Ok("Shop".into()));
        // No check is left to be had, and the same password still passes; another one would wait.
        let all = logins.checks.clone().acquire_many_owned(logins.checks.available_permits() as u32).await;
        assert_eq!(who(&logins, &users, password("shop", "right")).await, Ok("Shop".into()));
        drop(all);
        assert_eq!(who(&logins, &users, password("shop", "wrong")).await, Err(Some("Shop".into())));
        // Another hash, of the same password even, is checked itself.
        let changed = Users::new([user(&StoredPassword::hash("other").expect("a hash"))]);
        assert_eq!(who(&logins, &Arc::new(changed), password("shop", "right")).await, Err(Some("Shop".into())));
    }

    /// However many log in, few hashes are computed at once; the others wait without one.
    #[tokio::test]
    async fn few_passwords_are_checked_at_once() {
        let users = Users::new([User::new(
            "a",
            StoredPassword::parse(&StoredPassword::hash("x").expect("a hash"), true).expect("good"),
        )]);
        let (logins, users) = (Arc::new(Logins::default()), Arc::new(users));
        let most = logins.checks.available_permits();
        assert!((1..=CHECKS).contains(&most));
        let held = logins.checks.clone().acquire_many_owned(most as u32).await.expect("open");
        let flood: Vec<_> = (0..50)
            .map(|n| {
                let (logins, users) = (logins.clone(), users.clone());
                tokio::spawn(async move { who(&logins, &users, password("a", &n.to_string())).await })
            })
            .collect();
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
        assert!(flood.iter().all(|login| !login.is_finished()));
        flood.iter().for_each(tokio::task::JoinHandle::abort);
        drop(held);
        assert_eq!(who(&logins, &users, password("a", "x")).await, Ok("a".into()));
    }
}
