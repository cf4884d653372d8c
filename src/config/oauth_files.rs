//! Files that prove who we are at a token endpoint: a certificate with its RSA key, and the service account of
//! Google. They are read with the configuration, so that what was checked is what is used.
//!
//! Invariant: nothing of a private key is in a message or in `Debug`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::rsa::KeyPair;
use aws_lc_rs::signature::KeyPair as _;
use aws_lc_rs::{digest, rand, signature};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use super::identity::{certificates, has_key, private_key};
use super::source_file;

/// Bytes that a file of a service account may have; Google's have 2,400.
const MAX_ACCOUNT: u64 = 64 * 1024;
/// Fewer are not taken by anybody any more.
const LEAST_BITS: usize = 2048;

/// How an assertion is signed (RFC 7518 §3.3, §3.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JwtAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PSS with SHA-256.
    Ps256,
}

impl JwtAlgorithm {
    /// As in the header of a JWT.
    pub fn as_str(self) -> &'static str {
        match self {
            JwtAlgorithm::Rs256 => "RS256",
            JwtAlgorithm::Ps256 => "PS256",
        }
    }
}

/// A private RSA key.
#[derive(Clone)]
pub struct RsaKey(Arc<KeyPair>);

impl RsaKey {
    /// `named`: where it came from, for messages.
    fn new(key: &PrivateKeyDer<'_>, named: &str) -> Result<RsaKey, String> {
        let pair = match key {
            PrivateKeyDer::Pkcs8(der) => KeyPair::from_pkcs8(der.secret_pkcs8_der()),
            PrivateKeyDer::Pkcs1(der) => KeyPair::from_der(der.secret_pkcs1_der()),
            _ => return Err(format!("{named} is no RSA key: expected one, as assertions are signed with RSA")),
        };
        let pair =
            pair.map_err(|e| format!("{named} is no RSA key that can be used ({e}): expected one of 2048 bits"))?;
        let bits = pair.public_modulus_len() * 8;
        if bits < LEAST_BITS {
            return Err(format!("{named} has {bits} bits: expected {LEAST_BITS} at least"));
        }
        Ok(RsaKey(Arc::new(pair)))
    }

    /// Signs a text.
    ///
    /// # Errors
    /// The system has no random numbers; for people.
    pub fn sign(&self, algorithm: JwtAlgorithm, text: &[u8]) -> Result<Vec<u8>, String> {
        let encoding: &dyn signature::RsaEncoding = match algorithm {
            JwtAlgorithm::Rs256 => &signature::RSA_PKCS1_SHA256,
            JwtAlgorithm::Ps256 => &signature::RSA_PSS_SHA256,
        };
        let mut signed = vec![0; self.0.public_modulus_len()];
        let done = self.0.sign(encoding, &rand::SystemRandom::new(), text, &mut signed);
        done.map(|()| signed).map_err(|_| "the assertion cannot be signed: the system has no random numbers".to_owned())
    }

    /// PKCS #1, as it stands in a certificate.
    fn public(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }
}

impl fmt::Debug for RsaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<key>")
    }
}

/// `auth.key`: a private RSA key and its file.
#[derive(Clone, Debug)]
pub struct KeyFile {
    /// The file.
    pub path: PathBuf,
    /// What it has.
    pub key: RsaKey,
}

impl KeyFile {
    /// Reads a PEM file.
    ///
    /// # Errors
    /// It cannot be read, or is no private RSA key without a pass phrase; for people.
    pub fn load(path: &Path) -> Result<KeyFile, String> {
        let key = RsaKey::new(&private_key(path)?, &path.display().to_string())?;
        Ok(KeyFile { path: path.to_owned(), key })
    }
}

/// `auth.certificate`: a certificate that was registered at a token endpoint, perhaps with its key.
#[derive(Clone, Debug)]
pub struct ClientCertificate {
    /// The file.
    pub path: PathBuf,
    /// The first certificate in it.
    pub certificate: CertificateDer<'static>,
    /// The private key, if the file has it too.
    pub key: Option<RsaKey>,
}

impl ClientCertificate {
    /// Reads a PEM file.
    ///
    /// # Errors
    /// It cannot be read or has no certificate; for people.
    pub fn load(path: &Path) -> Result<ClientCertificate, String> {
        let name = path.display();
        let (all, pem) = certificates(path)?;
        let pem = Zeroizing::new(pem);
        let certificate = all.into_iter().next().ok_or_else(|| {
            format!("{name} has no certificate: expected PEM (if it is DER: `openssl x509 -inform der -in {name}`)")
        })?;
        let key = match has_key(&pem) {
            true => Some(KeyFile::load(path)?.key),
            false => None,
        };
        Ok(ClientCertificate { path: path.to_owned(), certificate, key })
    }

    /// Whether the key is that of the certificate.
    pub fn belongs_to(&self, key: &RsaKey) -> bool {
        X509Certificate::from_der(self.certificate.as_ref())
            .is_ok_and(|(_, certificate)| certificate.public_key().subject_public_key.data == key.public())
    }

    /// `x5t#S256` of a JWT (RFC 7515 §4.1.8).
    pub fn thumbprint(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, self.certificate.as_ref()))
    }
}

/// `auth.service_account`: the JSON file that Google gives out for one.
#[derive(Clone, Debug)]
pub struct ServiceAccount {
    /// The file.
    pub path: PathBuf,
    /// Who signs.
    pub email: String,
    /// `kid` of the assertion.
    pub key_id: Option<String>,
    /// Where the assertion goes.
    pub token_url: Option<String>,
    /// What it is signed with.
    pub key: RsaKey,
}

/// As it stands in the file.
#[derive(serde::Deserialize)]
struct AccountFile {
    #[serde(rename = "type")]
    kind: Option<String>,
    client_email: Option<String>,
    private_key: Option<String>,
    private_key_id: Option<String>,
    token_uri: Option<String>,
}

impl ServiceAccount {
    /// Reads a JSON file.
    ///
    /// # Errors
    /// It cannot be read, or is no service account; for people, without anything of its content.
    pub fn load(path: &Path) -> Result<ServiceAccount, String> {
        let name = path.display();
        let bytes = source_file::read(path, MAX_ACCOUNT).map_err(|e| format!("cannot read {name}: {e}"))?;
        let bytes = Zeroizing::new(bytes);
        let expected = "expected the JSON file of a key of a service account, as the console of Google gives it out";
        // The library's words may repeat the file.
        let file: AccountFile = serde_json::from_slice(source_file::without_mark(&bytes))
            .map_err(|e| format!("{name} is no JSON at line {}, column {}: {expected}", e.line(), e.column()))?;
        if file.kind.as_deref().is_some_and(|kind| kind != "service_account") {
            return Err(format!("{name} is no key of a service account (its `type` is another): {expected}"));
        }
        let (Some(email), Some(pem)) = (file.client_email, file.private_key.map(Zeroizing::new)) else {
            return Err(format!("{name} has no `client_email` or no `private_key`: {expected}"));
        };
        let named = format!("`private_key` of {name}");
        let key =
            PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| format!("{named} is no PEM: {expected}"))?;
        let key = RsaKey::new(&key, &named)?;
        Ok(ServiceAccount { path: path.to_owned(), email, key_id: file.private_key_id, token_url: file.token_uri, key })
    }
}
