//! The client's half of SASL mechanisms: challenges in, responses out. No socket.
//!
//! PLAIN (RFC 4616), LOGIN, SCRAM-SHA-256 (RFC 5802, RFC 7677; without channel binding), CRAM-MD5 (RFC 2195),
//! XOAUTH2 (of Google and Microsoft), OAUTHBEARER (RFC 7628). The texts of PLAIN, LOGIN and XOAUTH2 are made by
//! lettre.
//!
//! Invariants: a server that has not shown that it knows the password is no success of SCRAM; the error of a
//! server that a bearer token did not please is answered, so that its final reply comes, and kept for people.

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lettre::transport::smtp::authentication::{Credentials, Mechanism as Lettre};
use zeroize::Zeroizing;

use crate::config::AuthMechanism;
use crate::smtp::sasl::{LEAST_ROUNDS, MOST_ROUNDS, Salted, hmac_md5, hmac_sha256, same, saslname, stored_key, xor};

/// Bytes of randomness in our nonce.
const NONCE: usize = 18;
/// Bytes of an error of a server that are kept.
const MAX_ERROR: usize = 500;

/// What is known of the account.
#[derive(Clone, Copy)]
pub struct Account<'a> {
    /// The user, whose mailbox it is.
    pub user: &'a str,
    /// The password or the token.
    pub secret: &'a str,
    /// The server as we call it, for OAUTHBEARER.
    pub host: &'a str,
    /// Its port.
    pub port: u16,
}

/// Why there is no response.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Broken {
    /// The mechanism has no more: the server should have said how it ends.
    Over,
    /// For people: the challenge is none of this mechanism, or the server is not who it should be.
    Told(String),
}

/// One run of a mechanism.
pub struct Exchange<'a> {
    mechanism: AuthMechanism,
    account: Account<'a>,
    /// Responses given so far, and whether the first was given again.
    given: usize,
    repeated: bool,
    scram: Scram,
    /// What the server said of the token.
    error: Option<String>,
}

/// What SCRAM keeps between two steps.
#[derive(Default)]
struct Scram {
    nonce: String,
    first: String,
    /// What the server has to show.
    expected: Option<Zeroizing<Vec<u8>>>,
    proven: bool,
}

impl<'a> Exchange<'a> {
    /// Nothing was said yet.
    pub fn new(mechanism: AuthMechanism, account: Account<'a>) -> Exchange<'a> {
        Exchange { mechanism, account, given: 0, repeated: false, scram: Scram::default(), error: None }
    }

    /// With this nonce instead of a random one.
    #[cfg(test)]
    fn with_nonce(mut self, nonce: &str) -> Exchange<'a> {
        self.scram.nonce = nonce.to_owned();
        self
    }

    /// Whether the client speaks first, so that its response may come with the command.
    pub fn client_first(&self) -> bool {
        !matches!(self.mechanism, AuthMechanism::Login | AuthMechanism::CramMd5)
    }

    /// The response to a challenge in base64 (empty for the first of a client that speaks first), in base64.
    ///
    /// # Errors
    /// See [`Broken`].
    pub fn respond(&mut self, challenge: &str) -> Result<Zeroizing<String>, Broken> {
        self.given += 1;
        let response = self.answer(challenge).map_err(Broken::Told)?.ok_or(Broken::Over)?;
        Ok(Zeroizing::new(STANDARD.encode(&*response)))
    }

    /// `None`: there is no such step.
    fn answer(&mut self, challenge: &str) -> Result<Option<Zeroizing<Vec<u8>>>, String> {
        Ok(Some(match (self.mechanism, self.given) {
            (AuthMechanism::Plain, 1) => self.lettre(Lettre::Plain, None)?,
            // The prompts come in this order whatever they say: some servers translate them.
            (AuthMechanism::Login, 1) => self.lettre(Lettre::Login, Some("Username:"))?,
            (AuthMechanism::Login, 2) => self.lettre(Lettre::Login, Some("Password:"))?,
            (AuthMechanism::CramMd5, 1) => self.cram_md5(&decoded(challenge)?),
            (AuthMechanism::ScramSha256, 1) => self.scram_first()?,
            (AuthMechanism::ScramSha256, 2) => self.scram_final(&decoded(challenge)?)?,
            (AuthMechanism::ScramSha256, 3) => self.scram_verify(&decoded(challenge)?)?,
            (AuthMechanism::XOauth2, 1) => self.lettre(Lettre::Xoauth2, None)?,
            (AuthMechanism::OauthBearer, 1) => Zeroizing::new(self.bearer().into_bytes()),
            (AuthMechanism::XOauth2, 2) => {
                self.take_error(challenge);
                Zeroizing::default()
            }
            (AuthMechanism::OauthBearer, 2) => {
                self.take_error(challenge);
                // RFC 7628 §3.2.3: a client that hears an error says a single ^A.
                Zeroizing::new(vec![1])
            }
            _ => return Ok(None),
        }))
    }

    /// Whether a 334 with nothing in it asks for what came with the command: some servers do not listen to that.
    pub fn repeats(&mut self, challenge: &str) -> bool {
        let again = self.client_first()
            && self.given == 1
            && !self.repeated
            && (challenge.trim().is_empty() || self.mechanism == AuthMechanism::Plain);
        if again {
            (self.given, self.repeated) = (0, true);
        }
        again
    }

    /// What the server said of the token, cleaned of what is no text.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Whether success of the server is one of ours.
    ///
    /// # Errors
    /// It did not show that it knows the password; for people.
    pub fn check(&self) -> Result<(), String> {
        if self.mechanism == AuthMechanism::ScramSha256 && !self.scram.proven {
            return Err("the server did not show that it knows the password (SCRAM)".to_owned());
        }
        Ok(())
    }

    fn lettre(&self, mechanism: Lettre, prompt: Option<&str>) -> Result<Zeroizing<Vec<u8>>, String> {
        let known = Credentials::new(self.account.user.to_owned(), self.account.secret.to_owned());
        let response = mechanism.response(&known, prompt);
        response.map(|text| Zeroizing::new(text.into_bytes())).map_err(|e| format!("AUTH {mechanism}: {e}"))
    }

    fn cram_md5(&self, challenge: &[u8]) -> Zeroizing<Vec<u8>> {
        let code = hmac_md5(self.account.secret.as_bytes(), challenge);
        Zeroizing::new(format!("{} {}", self.account.user, *code).into_bytes())
    }

    fn bearer(&self) -> String {
        let Account { user, secret, host, port } = self.account;
        format!("n,a={},\x01host={host}\x01port={port}\x01auth=Bearer {secret}\x01\x01", saslname(user))
    }

    fn take_error(&mut self, challenge: &str) {
        let bytes = decoded(challenge).unwrap_or_else(|_| challenge.as_bytes().to_vec());
        let text: String = String::from_utf8_lossy(&bytes).chars().filter(|c| !c.is_control()).collect();
        let end = text.char_indices().map(|(at, _)| at).find(|at| *at >= MAX_ERROR).unwrap_or(text.len());
        self.error = Some(text[..end].to_owned());
    }

    fn scram_first(&mut self) -> Result<Zeroizing<Vec<u8>>, String> {
        if self.scram.nonce.is_empty() {
            let mut random = [0; NONCE];
            aws_lc_rs::rand::fill(&mut random).map_err(|_| "the system has no random numbers".to_owned())?;
            self.scram.nonce = STANDARD.encode(random);
        }
        self.scram.first = format!("n={},r={}", saslname(self.account.user), self.scram.nonce);
        Ok(Zeroizing::new(format!("n,,{}", self.scram.first).into_bytes()))
    }

    fn scram_final(&mut self, challenge: &[u8]) -> Result<Zeroizing<Vec<u8>>, String> {
        let garbled = || "the challenge is none of SCRAM".to_owned();
        let server = std::str::from_utf8(challenge).map_err(|_| garbled())?;
        let mut parts = server.split(',');
        let mut part = |name: &str| parts.next().and_then(|part| part.strip_prefix(name)).ok_or_else(garbled);
        let (nonce, salt, rounds) = (part("r=")?, part("s=")?, part("i=")?);
        if !nonce.starts_with(&self.scram.nonce) || nonce.len() == self.scram.nonce.len() {
            return Err("the server answers to another login (SCRAM nonce)".to_owned());
        }
        let salt = STANDARD.decode(salt).map_err(|_| garbled())?;
        let rounds = rounds.parse().ok().filter(|n| (LEAST_ROUNDS..=MOST_ROUNDS).contains(n));
        let rounds = rounds.and_then(NonZeroU32::new).ok_or_else(|| {
            format!("the server wants a number of SCRAM rounds that is not from {LEAST_ROUNDS} to {MOST_ROUNDS}")
        })?;
        let salted = Salted::new(self.account.secret.as_bytes(), &salt, rounds);
        let without_proof = format!("c=biws,r={nonce}");
        let signed = format!("{},{server},{without_proof}", self.scram.first);
        let client = salted.client_key();
        let proof = xor(&client, &hmac_sha256(&stored_key(&*client), signed.as_bytes()));
        self.scram.expected = Some(Zeroizing::new(hmac_sha256(&salted.server_key(), signed.as_bytes()).to_vec()));
        Ok(Zeroizing::new(format!("{without_proof},p={}", STANDARD.encode(*proof)).into_bytes()))
    }

    fn scram_verify(&mut self, challenge: &[u8]) -> Result<Zeroizing<Vec<u8>>, String> {
        let shown = challenge.strip_prefix(b"v=").and_then(|v| STANDARD.decode(v.split(|b| *b == b',').next()?).ok());
        let same = shown.zip(self.scram.expected.as_ref()).is_some_and(|(shown, expected)| same(&shown, expected));
        if !same {
            // An error (`e=`) is answered too: its final reply tells.
            if challenge.starts_with(b"e=") {
                return Ok(Zeroizing::default());
            }
            return Err("the server does not know the password (SCRAM signature)".to_owned());
        }
        self.scram.proven = true;
        Ok(Zeroizing::default())
    }
}

fn decoded(challenge: &str) -> Result<Vec<u8>, String> {
    STANDARD.decode(challenge.trim()).map_err(|_| "the challenge is no base64".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account<'a>(user: &'a str, secret: &'a str) -> Account<'a> {
        Account { user, secret, host: "smtp.example", port: 587 }
    }

    fn clear(response: &str) -> String {
        String::from_utf8(STANDARD.decode(response).expect("base64")).expect("text")
    }

    /// RFC 2195 §2.
    #[test]
    fn cram_md5_is_that_of_its_rfc() {
        let mut exchange = Exchange::new(AuthMechanism::CramMd5, account("tim", "tanstaaftanstaaf"));
        assert!(!exchange.client_first());
        let challenge = STANDARD.encode("<1896.697170952@postoffice.reston.mci.net>");
        let told = clear(&exchange.respond(&challenge).expect("a response"));
        assert_eq!(told, "tim b913a602c7eda7a495b4e6e7334d3890");
        assert_eq!(exchange.respond(""), Err(Broken::Over));
    }

    /// RFC 7677 §3.
    #[test]
    fn scram_is_that_of_its_rfc_and_the_server_has_to_prove_itself() {
        let new =
            || Exchange::new(AuthMechanism::ScramSha256, account("user", "pencil")).with_nonce("rOprNGfwEbeRWgbNEkqO");
        let mut exchange = new();
        assert_eq!(clear(&exchange.respond("").expect("first")), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let challenge = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let told = clear(&exchange.respond(&STANDARD.encode(challenge)).expect("final"));
        assert_eq!(
            told,
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert!(exchange.check().is_err(), "a 235 at once proves nothing");
        let verifier = STANDARD.encode("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        assert_eq!(*exchange.respond(&verifier).expect("known"), "");
        assert!(exchange.check().is_ok());

        for (bad, why) in [
            ("r=other,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", "another login"),
            ("r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", "another login"),
            ("r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=1", "rounds"),
            ("r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4000000000", "rounds"),
            ("r=rOprNGfwEbeRWgbNEkqOx,s=?,i=4096", "none of SCRAM"),
            ("m=ext,r=x", "none of SCRAM"),
        ] {
            let mut exchange = new();
            exchange.respond("").expect("first");
            let Err(Broken::Told(told)) = exchange.respond(&STANDARD.encode(bad)) else { panic!("{bad}") };
            assert!(told.contains(why), "{bad}: {told}");
        }
        let mut exchange = new();
        exchange.respond("").expect("first");
        exchange.respond(&STANDARD.encode(challenge)).expect("final");
        assert!(exchange.respond(&STANDARD.encode("v=AAAA")).is_err());
    }

    #[test]
    fn a_bearer_token_is_told_as_both_mechanisms_want_it_and_an_error_is_answered() {
        let mut google = Exchange::new(AuthMechanism::XOauth2, account("jo@shop.example", "ya29.token"));
        assert_eq!(
            clear(&google.respond("").expect("first")),
            "user=jo@shop.example\x01auth=Bearer ya29.token\x01\x01"
        );
        let error = STANDARD.encode("{\"status\":\"400\",\"schemes\":\"Bearer\"}\n");
        assert!(!google.repeats(&error) && google.error().is_none());
        assert_eq!(*google.respond(&error).expect("an empty line"), "");
        assert_eq!(google.error(), Some("{\"status\":\"400\",\"schemes\":\"Bearer\"}"));
        assert!(google.respond("").is_err(), "and no more");

        let mut rfc = Exchange::new(AuthMechanism::OauthBearer, account("j=o,@shop.example", "t0k"));
        let first = "n,a=j=3Do=2C@shop.example,\x01host=smtp.example\x01port=587\x01auth=Bearer t0k\x01\x01";
        assert_eq!(clear(&rfc.respond("").expect("first")), first);
        assert!(rfc.repeats(" "), "asks for what it was told");
        assert_eq!(clear(&rfc.respond("").expect("again")), first);
        assert_eq!(*rfc.respond(&STANDARD.encode("{}")).expect("^A"), "AQ==");
    }
}
