//! A user's password as it is kept: a hash of Argon2id, keys of SCRAM-SHA-256, or the password itself.
//!
//! Invariants: nothing of it is in `Debug` or in a message. What a hash costs to check is bounded when it is
//! read, so that no configuration makes a login take all memory.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::Secret;
use super::secret::SHOWN;
use crate::smtp::sasl::{LEAST_ROUNDS, MOST_ROUNDS, SCRAM_KEY, Salted, same, stored_key};

/// Most memory that the check of one password may take, in KiB.
pub const MOST_MEMORY: u32 = 64 * 1024;
/// Most passes over that memory, and lanes in it.
const MOST_PASSES: u32 = 16;
const MOST_LANES: u32 = 16;
/// What `mailweir passwd` takes: memory in KiB, passes, lanes (OWASP's first choice for Argon2id).
const MEMORY: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// Rounds of the SCRAM keys that `mailweir passwd` makes.
const ROUNDS: u32 = 10_000;
/// Bytes of salt.
const SALT: usize = 16;
/// Longest password, in bytes.
pub const MAX_PASSWORD: usize = 1024;

const ARGON2: &str = "$argon2id$";
const SCRAM: &str = "SCRAM-SHA-256$";

/// What is expected of a hash, for messages.
pub(super) const EXPECTED: &str = "a hash that `mailweir passwd` has made, or { env = \"NAME\" } or { file = \"path\" } with one or with the password itself";

/// See the module.
#[derive(Clone)]
pub struct StoredPassword {
    form: Form,
    /// As it stands in the configuration.
    text: Secret,
}

#[derive(Clone)]
enum Form {
    Argon2(Arc<PasswordHash>),
    Scram(ScramKeys),
    Clear(ScramKeys),
    /// No password is right.
    Never,
}

/// By which a SCRAM server knows a client, and shows that it does (RFC 5802 §3).
#[derive(Clone, PartialEq, Eq)]
pub struct ScramKeys {
    /// Salt of the password.
    pub salt: Vec<u8>,
    /// Rounds of PBKDF2.
    pub rounds: NonZeroU32,
    /// Checks the client's proof.
    pub stored: [u8; SCRAM_KEY],
    /// Makes our own.
    pub server: [u8; SCRAM_KEY],
}

impl StoredPassword {
    /// Reads a hash, or takes the text for the password itself where that is allowed.
    ///
    /// # Errors
    /// What is wrong with it; the text is not repeated.
    pub fn parse(text: &str, may_be_clear: bool) -> Result<StoredPassword, String> {
        let form = if text.starts_with("$argon2") {
            Form::Argon2(Arc::new(argon2_hash(text)?))
        } else if let Some(keys) = text.strip_prefix(SCRAM) {
            Form::Scram(ScramKeys::parse(keys).ok_or_else(|| {
                format!("these are no keys of SCRAM-SHA-256 with {LEAST_ROUNDS} to {MOST_ROUNDS} rounds: expected {EXPECTED}")
            })?)
        } else if !may_be_clear || text.starts_with('$') || text.starts_with('{') {
            return Err(format!("this is no hash that can be checked here: expected {EXPECTED}"));
        } else {
            check_password(text)?;
            Form::Clear(ScramKeys::of(text)?)
        };
        Ok(StoredPassword { form, text: Secret::new(text.to_owned()) })
    }

    /// That of a user who logs in by other means: no password is right.
    pub fn never() -> StoredPassword {
        StoredPassword { form: Form::Never, text: Secret::new(String::new()) }
    }

    /// Whether there is none.
    pub fn is_never(&self) -> bool {
        matches!(self.form, Form::Never)
    }

    /// A new hash of Argon2id as a PHC string.
    ///
    /// # Errors
    /// No password, or the system has no random numbers.
    pub fn hash(password: &str) -> Result<String, String> {
        check_password(password)?;
        let params = Params::new(MEMORY, PASSES, LANES, None).map_err(|e| e.to_string())?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let hash = argon2.hash_password_with_salt(password.as_bytes(), &salt()?).map_err(|e| e.to_string())?;
        Ok(hash.to_string())
    }

    /// New keys of SCRAM-SHA-256, in the form that PostgreSQL has for them.
    ///
    /// # Errors
    /// No password, or the system has no random numbers.
    pub fn scram(password: &str) -> Result<String, String> {
        check_password(password)?;
        let keys = ScramKeys::of(password)?;
        let [salt, stored, server] = [&keys.salt[..], &keys.stored, &keys.server].map(|part| STANDARD.encode(part));
        Ok(format!("{SCRAM}{}:{salt}${stored}:{server}", keys.rounds))
    }

    /// Whether it is this password. Takes long for a hash of Argon2id: not for an async worker.
    pub fn is(&self, password: &str) -> bool {
        match &self.form {
            Form::Argon2(hash) => Argon2::default().verify_password(password.as_bytes(), &**hash).is_ok(),
            Form::Scram(keys) => {
                let salted = Salted::new(password.as_bytes(), &keys.salt, keys.rounds);
                same(&stored_key(&*salted.client_key()), &keys.stored)
            }
            Form::Never => false,
            Form::Clear(_) => same(password.as_bytes(), self.text.reveal().as_bytes()),
        }
    }

    /// Whether a check has its price in memory and time.
    pub fn is_slow(&self) -> bool {
        matches!(self.form, Form::Argon2(_))
    }

    /// For SCRAM-SHA-256; `None`: a hash of Argon2id, of which there is no way there.
    pub fn scram_keys(&self) -> Option<&ScramKeys> {
        match &self.form {
            Form::Argon2(_) | Form::Never => None,
            Form::Scram(keys) | Form::Clear(keys) => Some(keys),
        }
    }

    /// The password itself, which CRAM-MD5 needs.
    pub fn clear(&self) -> Option<&Secret> {
        matches!(self.form, Form::Clear(_)).then_some(&self.text)
    }

    /// As it stands in the configuration.
    pub fn text(&self) -> &Secret {
        &self.text
    }
}

impl fmt::Debug for StoredPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SHOWN)
    }
}

fn argon2_hash(text: &str) -> Result<PasswordHash, String> {
    let none = || format!("this is no hash of Argon2id: expected {EXPECTED}");
    if !text.starts_with(ARGON2) {
        return Err(none());
    }
    let hash = PasswordHash::new(text).map_err(|_| none())?;
    if hash.hash.is_none() || hash.salt.is_none() {
        return Err(none());
    }
    let params = Params::try_from(&hash).map_err(|_| none())?;
    let (memory, passes, lanes) = (params.m_cost(), params.t_cost(), params.p_cost());
    if memory > MOST_MEMORY || passes > MOST_PASSES || lanes > MOST_LANES {
        return Err(format!(
            "this hash takes {memory} KiB, {passes} passes and {lanes} lanes to check: expected at most {MOST_MEMORY} KiB, \
             {MOST_PASSES} passes and {MOST_LANES} lanes, as one of `mailweir passwd` does"
        ));
    }
    Ok(hash)
}

fn check_password(text: &str) -> Result<(), String> {
    match text {
        "" => Err("the password is empty".to_owned()),
        _ if text.len() > MAX_PASSWORD => Err(format!("the password has more than {MAX_PASSWORD} bytes")),
        _ if text.chars().any(char::is_control) => {
            Err("the password has a control character or a line end, which no client can send".to_owned())
        }
        _ => Ok(()),
    }
}

fn salt() -> Result<[u8; SALT], String> {
    let mut salt = [0; SALT];
    aws_lc_rs::rand::fill(&mut salt).map_err(|_| "the system has no random numbers".to_owned())?;
    Ok(salt)
}

impl ScramKeys {
    /// With a salt of its own.
    fn of(password: &str) -> Result<ScramKeys, String> {
        let (salt, rounds) = (salt()?, NonZeroU32::new(ROUNDS).unwrap_or(NonZeroU32::MIN));
        let salted = Salted::new(password.as_bytes(), &salt, rounds);
        let stored = stored_key(&*salted.client_key());
        Ok(ScramKeys { salt: salt.to_vec(), rounds, stored, server: salted.server_key() })
    }

    /// Keys that nobody has, for a user whom nobody knows: the salt stays the same for each name.
    pub fn of_nobody(secret: &[u8; SCRAM_KEY], name: &str) -> ScramKeys {
        let code: Zeroizing<[u8; SCRAM_KEY]> =
            Zeroizing::new(crate::smtp::sasl::hmac_sha256(secret, name.to_ascii_lowercase().as_bytes()));
        let rounds = NonZeroU32::new(ROUNDS).unwrap_or(NonZeroU32::MIN);
        let salt = code.iter().copied().take(SALT).collect();
        ScramKeys { salt, rounds, stored: [0; SCRAM_KEY], server: [0; SCRAM_KEY] }
    }

    /// `ROUNDS:SALT$STORED:SERVER`.
    fn parse(text: &str) -> Option<ScramKeys> {
        let (salted, keys) = text.split_once('$')?;
        let (rounds, salt) = salted.split_once(':')?;
        let (stored, server) = keys.split_once(':')?;
        let rounds = rounds.parse().ok().filter(|n| (LEAST_ROUNDS..=MOST_ROUNDS).contains(n))?;
        let key = |text: &str| <[u8; SCRAM_KEY]>::try_from(STANDARD.decode(text).ok()?).ok();
        let salt = STANDARD.decode(salt).ok().filter(|salt| (8..=64).contains(&salt.len()))?;
        Some(ScramKeys { salt, rounds: NonZeroU32::new(rounds)?, stored: key(stored)?, server: key(server)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_knows_its_password_and_no_other() {
        let hash = StoredPassword::hash("naïve horse").expect("a hash");
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_ne!(Some(&hash), StoredPassword::hash("naïve horse").ok().as_ref(), "each has a salt of its own");
        let scram = StoredPassword::scram("naïve horse").expect("keys");
        for (text, slow, clear) in [(&*hash, true, false), (&*scram, false, false), ("naïve horse", false, true)] {
            let stored = StoredPassword::parse(text, true).expect(text);
            assert!(stored.is("naïve horse") && !stored.is("naïve hors") && !stored.is(""), "{text}");
            assert_eq!((stored.is_slow(), stored.clear().is_some()), (slow, clear), "{text}");
            assert_eq!(stored.scram_keys().is_some(), !slow);
            assert_eq!(format!("{stored:?}"), "<secret>");
        }
        // A key that PostgreSQL has made is one.
        let known = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
        assert!(StoredPassword::parse(known, false).expect("RFC 7677 §3").is("pencil"));
    }

    #[test]
    fn what_is_no_hash_is_refused_and_not_repeated() {
        let costly = "$argon2id$v=19$m=1048576,t=2,p=1$c29tZXNhbHRzb21l$MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI";
        for (text, may_be_clear) in [
            ("hunter2hunter2", false),
            ("$argon2id$hunter2", true),
            ("$argon2i$v=19$m=4096,t=3,p=1$c29tZXNhbHQ$hunter2", true),
            ("$2y$05$hunter2", true),
            ("{CRYPT}hunter2", true),
            ("SCRAM-SHA-256$1:hunter2$a:b", true),
            ("hunter2\n", true),
            ("", true),
            (costly, false),
        ] {
            let told = StoredPassword::parse(text, may_be_clear).expect_err(text);
            assert!(!told.contains("hunter2") && told.len() > 20, "{text}: {told}");
        }
        assert!(StoredPassword::parse(costly, false).is_err_and(|told| told.contains("1048576 KiB")));
    }
}
