//! The server's half of SASL mechanisms: responses in, challenges out, and at the end what is to be checked. No
//! socket, and no slow computation.
//!
//! PLAIN (RFC 4616), LOGIN (draft-murchison-sasl-login), CRAM-MD5 (RFC 2195), SCRAM-SHA-256 (RFC 5802, RFC 7677;
//! without channel binding).
//!
//! Invariants: nothing of a response is in a reply or in `Debug`; a name that nobody has goes the same way as one
//! that somebody has.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

use crate::config::{AuthMechanism, Listener, MAX_PASSWORD, ScramKeys, Users};
use crate::smtp::Reply;
use crate::smtp::sasl::{SCRAM_KEY, from_saslname, hmac_sha256, same, stored_key, xor};

/// Longest name, in bytes.
const MAX_NAME: usize = 512;
/// Bytes of randomness in a nonce or a challenge.
const NONCE: usize = 18;

/// `Username:` and `Password:`.
const PROMPTS: [&str; 2] = ["VXNlcm5hbWU6", "UGFzc3dvcmQ6"];

pub(in crate::listener) const WRONG: Reply = Reply::new(535, "5.7.8", "Authentication credentials invalid");
pub(in crate::listener) const CANCELLED: Reply = Reply::new(501, "5.7.0", "Authentication cancelled");
pub(in crate::listener) const NOT_BASE64: Reply = Reply::new(501, "5.5.2", "That is no base64");
const GARBLED: Reply = Reply::new(501, "5.5.2", "That is no response of this mechanism");
const NO_INITIAL: Reply = Reply::new(501, "5.7.0", "The server speaks first in this mechanism: no initial response");
pub(in crate::listener) const FOR_ANOTHER: Reply =
    Reply::new(535, "5.7.8", "Nobody acts for another here: no authorization identity");
const NO_BINDING: Reply = Reply::new(535, "5.7.8", "There is no channel binding here: use SCRAM-SHA-256 without");
const NO_RANDOM: Reply = Reply::new(454, "4.7.0", "Temporary authentication failure");

/// Some clients leave the padding out.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// A response or an initial response, decoded: never printed.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::listener) struct Response(pub Zeroizing<Vec<u8>>);

impl Response {
    /// Of its base64.
    ///
    /// # Errors
    /// It is none.
    pub fn decode(text: &[u8]) -> Result<Response, Reply> {
        LENIENT.decode(text.trim_ascii()).map(|bytes| Response(Zeroizing::new(bytes))).map_err(|_| NOT_BASE64)
    }

    /// Text without NUL.
    fn text(&self) -> Result<Zeroizing<String>, Reply> {
        let text = std::str::from_utf8(&self.0).ok().filter(|text| !text.contains('\0'));
        text.map(|text| Zeroizing::new(text.to_owned())).ok_or(GARBLED)
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// What a client has said to log in.
pub(in crate::listener) struct Attempt {
    /// The name; perhaps a password in the wrong place.
    pub user: Zeroizing<String>,
    pub proof: Proof,
}

/// What shows that it is the user.
pub(in crate::listener) enum Proof {
    /// The password.
    Password(Zeroizing<String>),
    /// A code of our challenge.
    CramMd5 { challenge: String, code: String },
    /// A proof, which has been compared already.
    Scram { proven: bool },
    /// Nothing that could be right: this is what the client hears. It counts as a guess, since it looks like one.
    Never(Reply),
}

/// What is to be done next.
pub(in crate::listener) enum Step {
    /// Say `334` and this, which is base64 already.
    Challenge(String),
    /// Check it. `last`: with success this is said in one more challenge, and any response to it is taken.
    Check { attempt: Attempt, last: Option<String> },
    /// It is over.
    Refuse(Reply),
}

/// The name of the mechanism (RFC 4422 §3.1).
pub(in crate::listener) fn name(mechanism: AuthMechanism) -> &'static str {
    match mechanism {
        AuthMechanism::Plain => "PLAIN",
        AuthMechanism::Login => "LOGIN",
        AuthMechanism::CramMd5 => "CRAM-MD5",
        AuthMechanism::ScramSha256 => "SCRAM-SHA-256",
        AuthMechanism::XOauth2 => "XOAUTH2",
        AuthMechanism::OauthBearer => "OAUTHBEARER",
    }
}

/// What a listener offers. A client takes the best of it, so each is there only if every user can use it.
pub(in crate::listener) fn offered(listener: &Listener) -> impl Iterator<Item = AuthMechanism> {
    let cram = (listener.accept_any || listener.users.all_have_cram()).then_some(AuthMechanism::CramMd5);
    let scram = (!listener.accept_any && listener.users.all_have_scram()).then_some(AuthMechanism::ScramSha256);
    let clear = listener.accept_any || listener.users.have_passwords();
    let clear = [AuthMechanism::Plain, AuthMechanism::Login].into_iter().filter(move |_| clear);
    clear.chain(cram).chain(scram)
}

/// One run of a mechanism.
pub(in crate::listener) struct Exchange {
    mechanism: AuthMechanism,
    users: Arc<Users>,
    /// For salts of users whom nobody knows.
    key: Zeroizing<[u8; SCRAM_KEY]>,
    /// The name, of LOGIN and SCRAM once it is known; the challenge, of CRAM-MD5.
    user: Option<Zeroizing<String>>,
    challenge: Option<String>,
    scram: Option<Scram>,
}

/// What SCRAM keeps between its two responses.
struct Scram {
    keys: ScramKeys,
    /// What the client said first, without its header; and that header in base64.
    bare: String,
    header: String,
    nonce: String,
    /// What we said.
    server: String,
}

impl Exchange {
    pub fn new(mechanism: AuthMechanism, users: Arc<Users>, key: [u8; SCRAM_KEY]) -> Exchange {
        Exchange { mechanism, users, key: Zeroizing::new(key), user: None, challenge: None, scram: None }
    }

    /// Takes the next response; `None`: there is none yet, since the command had none.
    pub fn take(&mut self, response: Option<&Response>) -> Step {
        let step = match self.mechanism {
            AuthMechanism::Plain => response.map_or_else(|| Ok(prompt("")), plain),
            AuthMechanism::Login => self.login(response),
            AuthMechanism::CramMd5 => self.cram_md5(response),
            AuthMechanism::ScramSha256 => self.scram(response),
            // Not offered.
            AuthMechanism::XOauth2 | AuthMechanism::OauthBearer => Err(GARBLED),
        };
        step.unwrap_or_else(Step::Refuse)
    }

    fn login(&mut self, response: Option<&Response>) -> Result<Step, Reply> {
        match (response, self.user.take()) {
            (None, _) => Ok(prompt(PROMPTS[0])),
            (Some(response), None) => {
                self.user = Some(bounded(response.text()?, MAX_NAME)?);
                Ok(prompt(PROMPTS[1]))
            }
            (Some(response), Some(user)) => Ok(check(user, password(response.text()?))),
        }
    }

    fn cram_md5(&mut self, response: Option<&Response>) -> Result<Step, Reply> {
        match (response, self.challenge.take()) {
            (None, _) => {
                let challenge = format!("<{}@mailweir>", nonce()?);
                let told = STANDARD.encode(&challenge);
                self.challenge = Some(challenge);
                Ok(Step::Challenge(told))
            }
            (Some(_), None) => Err(NO_INITIAL),
            (Some(response), Some(challenge)) => {
                let text = response.text()?;
                let (user, code) = text.rsplit_once(' ').ok_or(GARBLED)?;
                let user = bounded(Zeroizing::new(user.to_owned()), MAX_NAME)?;
                Ok(check(user, Proof::CramMd5 { challenge, code: code.to_ascii_lowercase() }))
            }
        }
    }

    fn scram(&mut self, response: Option<&Response>) -> Result<Step, Reply> {
        match (response, self.scram.take(), self.user.take()) {
            (None, None, _) => Ok(prompt("")),
            (Some(response), None, _) => self.scram_first(&response.text()?),
            (Some(response), Some(scram), Some(user)) => {
                let (proven, verifier) = scram.last(&response.text()?)?;
                let last = proven.then(|| STANDARD.encode(verifier));
                Ok(Step::Check { attempt: Attempt { user, proof: Proof::Scram { proven } }, last })
            }
            _ => Err(GARBLED),
        }
    }

    /// `n,,n=user,r=nonce`.
    fn scram_first(&mut self, text: &str) -> Result<Step, Reply> {
        let mut parts = text.splitn(3, ',');
        let mut part = || parts.next().ok_or(GARBLED);
        let (binding, acts_for, bare) = (part()?, part()?, part()?);
        match binding {
            "n" | "y" => {}
            _ if binding.starts_with("p=") => return Err(NO_BINDING),
            _ => return Err(GARBLED),
        }
        let mut fields = bare.split(',');
        let user = fields.next().and_then(|f| f.strip_prefix("n=")).and_then(from_saslname).ok_or(GARBLED)?;
        let theirs = fields.next().and_then(|f| f.strip_prefix("r=")).ok_or(GARBLED)?;
        let fits = !theirs.is_empty() && theirs.len() <= 256 && theirs.bytes().all(|b| b.is_ascii_graphic());
        let user = bounded(Zeroizing::new(user), MAX_NAME)?;
        if !fits {
            return Err(GARBLED);
        }
        match acts_for.strip_prefix("a=") {
            None if acts_for.is_empty() => {}
            Some(name) if from_saslname(name).is_some_and(|name| name.eq_ignore_ascii_case(&user)) => {}
            Some(_) => return Ok(check(user, Proof::Never(FOR_ANOTHER))),
            None => return Err(GARBLED),
        }
        let known = self.users.find(&user).and_then(|user| user.password.scram_keys().cloned());
        let keys = known.unwrap_or_else(|| ScramKeys::of_nobody(&self.key, &user));
        let nonce = format!("{theirs}{}", nonce()?);
        let server = format!("r={nonce},s={},i={}", STANDARD.encode(&keys.salt), keys.rounds);
        let told = STANDARD.encode(&server);
        let header = STANDARD.encode(format!("{binding},{acts_for},"));
        (self.user, self.scram) = (Some(user), Some(Scram { keys, bare: bare.to_owned(), header, nonce, server }));
        Ok(Step::Challenge(told))
    }
}

impl Scram {
    /// Whether `c=…,r=…,p=…` shows the password, and what shows it to the client.
    fn last(&self, text: &str) -> Result<(bool, String), Reply> {
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(GARBLED)?;
        let expected = format!("c={},r={}", self.header, self.nonce);
        let proof: [u8; SCRAM_KEY] =
            STANDARD.decode(proof).ok().and_then(|proof| proof.try_into().ok()).ok_or(GARBLED)?;
        if without_proof != expected {
            return Err(GARBLED);
        }
        let signed = format!("{},{},{without_proof}", self.bare, self.server);
        let signature = hmac_sha256(&self.keys.stored, signed.as_bytes());
        let client_key = xor(&proof, &signature);
        let proven = same(&stored_key(&*client_key), &self.keys.stored);
        Ok((proven, format!("v={}", STANDARD.encode(hmac_sha256(&self.keys.server, signed.as_bytes())))))
    }
}

fn prompt(text: &str) -> Step {
    Step::Challenge(text.to_owned())
}

fn check(user: Zeroizing<String>, proof: Proof) -> Step {
    Step::Check { attempt: Attempt { user, proof }, last: None }
}

/// `acts for NUL user NUL password`.
fn plain(response: &Response) -> Result<Step, Reply> {
    let text = std::str::from_utf8(&response.0).map_err(|_| GARBLED)?;
    let mut parts = text.split('\0');
    let (Some(acts_for), Some(user), Some(given), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(GARBLED);
    };
    let user = bounded(Zeroizing::new(user.to_owned()), MAX_NAME)?;
    if !acts_for.is_empty() && !acts_for.eq_ignore_ascii_case(&user) {
        return Ok(check(user, Proof::Never(FOR_ANOTHER)));
    }
    Ok(check(user, password(Zeroizing::new(given.to_owned()))))
}

/// Nobody has an empty password, nor one that long.
fn password(text: Zeroizing<String>) -> Proof {
    if text.is_empty() || text.len() > MAX_PASSWORD { Proof::Never(WRONG) } else { Proof::Password(text) }
}

/// Not empty (RFC 4616 §2), and no longer than that.
fn bounded(text: Zeroizing<String>, most: usize) -> Result<Zeroizing<String>, Reply> {
    if text.is_empty() || text.len() > most { Err(GARBLED) } else { Ok(text) }
}

fn nonce() -> Result<String, Reply> {
    let mut random = [0; NONCE];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| NO_RANDOM)?;
    Ok(STANDARD.encode(random))
}

#[cfg(test)]
#[path = "sasl_tests.rs"]
mod tests;
