//! Private keys that sign: RSA of 2048 to 8192 bits (RFC 6376 §3.3.3, RFC 8301) and Ed25519 (RFC 8463), and new ones.
//!
//! Invariant: nothing of a private key is in a message or in `Debug`.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256};
use aws_lc_rs::{digest, rand};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use zeroize::Zeroizing;

/// How a signature is made: `a=`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RsaSha256,
    /// Ed25519 over the SHA-256 of the header.
    Ed25519Sha256,
}

impl Algorithm {
    /// As in `a=` of a signature.
    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::RsaSha256 => "rsa-sha256",
            Algorithm::Ed25519Sha256 => "ed25519-sha256",
        }
    }

    /// As in `k=` of a record.
    pub fn key_type(self) -> &'static str {
        match self {
            Algorithm::RsaSha256 => "rsa",
            Algorithm::Ed25519Sha256 => "ed25519",
        }
    }
}

/// Why a key cannot be used or made; for people, after the name of its file.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeyFault {
    /// An EC key, or RSA that is too small.
    #[error(
        "is no RSA key of 2048 bits or more and no Ed25519 key: expected one of these, as from `mailweir dkim new`"
    )]
    NotTaken,
    /// The library failed.
    #[error("the system could not make it")]
    Failed,
}

#[derive(Clone)]
enum Pair {
    Rsa(Arc<KeyPair>),
    Ed25519(Arc<Ed25519KeyPair>),
}

/// A private key. Cheap to clone.
#[derive(Clone)]
pub struct SigningKey(Pair);

impl SigningKey {
    /// From PKCS #8 (RSA or Ed25519) or PKCS #1 (RSA).
    ///
    /// # Errors
    /// It is another key, or none.
    pub fn from_der(der: &PrivateKeyDer<'_>) -> Result<SigningKey, KeyFault> {
        let pair = match der {
            PrivateKeyDer::Pkcs8(der) => {
                let der = der.secret_pkcs8_der();
                let rsa = KeyPair::from_pkcs8(der).ok().map(|pair| Pair::Rsa(Arc::new(pair)));
                let ed25519 = || Some(Pair::Ed25519(Arc::new(Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok()?)));
                rsa.or_else(ed25519)
            }
            PrivateKeyDer::Pkcs1(der) => {
                KeyPair::from_der(der.secret_pkcs1_der()).ok().map(|pair| Pair::Rsa(Arc::new(pair)))
            }
            _ => None,
        };
        let key = SigningKey(pair.ok_or(KeyFault::NotTaken)?);
        if key.bits() < 2048 && key.algorithm() == Algorithm::RsaSha256 {
            return Err(KeyFault::NotTaken);
        }
        Ok(key)
    }

    /// A new key (RSA: 2048 bits), and the PEM file (PKCS #8) to keep it in.
    ///
    /// # Errors
    /// [`KeyFault::Failed`].
    pub fn generate(algorithm: Algorithm) -> Result<(SigningKey, Zeroizing<String>), KeyFault> {
        let (key, der) = match algorithm {
            Algorithm::RsaSha256 => {
                let pair = KeyPair::generate(KeySize::Rsa2048).map_err(|_| KeyFault::Failed)?;
                let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| KeyFault::Failed)?;
                let der = Zeroizing::new(der.as_ref().to_vec());
                (SigningKey(Pair::Rsa(Arc::new(pair))), der)
            }
            Algorithm::Ed25519Sha256 => {
                let pair = Ed25519KeyPair::generate().map_err(|_| KeyFault::Failed)?;
                // Version 1, which OpenSSL reads.
                let der = pair.to_pkcs8v1().map_err(|_| KeyFault::Failed)?;
                let der = Zeroizing::new(der.as_ref().to_vec());
                (SigningKey(Pair::Ed25519(Arc::new(pair))), der)
            }
        };
        let text = Zeroizing::new(STANDARD.encode(&*der));
        let mut pem = Zeroizing::new(String::with_capacity(text.len() + text.len() / 64 + 64));
        pem.push_str("-----BEGIN PRIVATE KEY-----\n");
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (line, more) = rest.split_at(rest.len().min(64));
            pem.push_str(line);
            pem.push('\n');
            rest = more;
        }
        pem.push_str("-----END PRIVATE KEY-----\n");
        Ok((key, pem))
    }

    /// What it signs with.
    pub fn algorithm(&self) -> Algorithm {
        match self.0 {
            Pair::Rsa(_) => Algorithm::RsaSha256,
            Pair::Ed25519(_) => Algorithm::Ed25519Sha256,
        }
    }

    /// Size of the key in bits.
    pub fn bits(&self) -> usize {
        match &self.0 {
            Pair::Rsa(pair) => pair.public_modulus_len() * 8,
            Pair::Ed25519(_) => 256,
        }
    }

    /// Signs the canonical header.
    ///
    /// # Errors
    /// [`KeyFault::Failed`]: the library does not say why.
    pub fn sign(&self, header: &[u8]) -> Result<Vec<u8>, KeyFault> {
        match &self.0 {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &rand::SystemRandom::new(), header, &mut signature)
                    .map_err(|_| KeyFault::Failed)?;
                Ok(signature)
            }
            // RFC 8463 §3: what is signed is the hash.
            Pair::Ed25519(pair) => {
                let hash = digest::digest(&digest::SHA256, header);
                pair.try_sign(hash.as_ref()).map(|signature| signature.as_ref().to_vec()).map_err(|_| KeyFault::Failed)
            }
        }
    }

    /// `p=` of a record before base64: `SubjectPublicKeyInfo` of RSA, the 32 bytes of Ed25519 (RFC 8463 §4).
    ///
    /// # Errors
    /// [`KeyFault::Failed`].
    pub fn public(&self) -> Result<Vec<u8>, KeyFault> {
        match &self.0 {
            Pair::Rsa(pair) => {
                let der: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(|_| KeyFault::Failed)?;
                Ok(der.as_ref().to_vec())
            }
            Pair::Ed25519(pair) => Ok(pair.public_key().as_ref().to_vec()),
        }
    }

    /// What is published: the text of the TXT record.
    ///
    /// # Errors
    /// [`KeyFault::Failed`].
    pub fn record(&self) -> Result<String, KeyFault> {
        Ok(format!("v=DKIM1; k={}; p={}", self.algorithm().key_type(), STANDARD.encode(self.public()?)))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<key>")
    }
}

#[cfg(test)]
mod tests {
    use tokio_rustls::rustls::pki_types::pem::PemObject as _;

    use super::*;

    #[test]
    fn a_new_key_is_read_back_and_shows_nothing() {
        for algorithm in [Algorithm::RsaSha256, Algorithm::Ed25519Sha256] {
            let (key, pem) = SigningKey::generate(algorithm).expect("a key");
            let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).expect("PEM");
            let again = SigningKey::from_der(&der).expect("a key");
            assert_eq!((again.algorithm(), again.record()), (algorithm, key.record()));
            assert_eq!(again.sign(b"x"), key.sign(b"x"));
            assert_eq!(format!("{key:?}"), "<key>");
            assert!(pem.lines().all(|line| line.len() <= 64));
        }
    }

    #[test]
    fn another_kind_of_key_is_refused() {
        let ec = rcgen::KeyPair::generate().expect("a key").serialize_pem();
        let der = PrivateKeyDer::from_pem_slice(ec.as_bytes()).expect("PEM");
        assert!(matches!(SigningKey::from_der(&der), Err(KeyFault::NotTaken)));
    }
}
