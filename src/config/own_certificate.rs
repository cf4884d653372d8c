//! `tls_client_cert` of a provider: what mailweir shows hosts that ask for a certificate. Read, and compared with its
//! key, when the configuration is read, so that what was checked is what is used.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::Error;
use tokio_rustls::rustls::client::ResolvesClientCert;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::IdentityFault;
use super::identity::{chain, private_key};

/// A certificate with its key, and those of the authorities between it and a root.
#[derive(Clone)]
pub struct OwnCertificate {
    path: PathBuf,
    chain: Arc<[CertificateDer<'static>]>,
    shown: Arc<SingleCertAndKey>,
}

impl OwnCertificate {
    /// Reads the PEM files of a chain and of its key, which may be one file.
    ///
    /// # Errors
    /// A file that cannot be read or used, or a key that is not that of the certificate: which one, by `cert` and
    /// `key`, and what is wrong; at least one fault.
    pub fn load(cert: &Path, key: &Path) -> Result<OwnCertificate, Vec<IdentityFault>> {
        let fault = |key: &'static str| move |message: String| IdentityFault { key, message };
        let (chain, private) = match (chain(cert).map_err(fault("cert")), private_key(key).map_err(fault("key"))) {
            (Ok(chain), Ok(private)) => (chain, private),
            (chain, private) => return Err(chain.err().into_iter().chain(private.err()).collect()),
        };
        let certified = CertifiedKey::from_der(chain.clone(), private, &aws_lc_rs::default_provider());
        let certified = certified.map_err(|error| {
            let (cert, key) = (cert.display(), key.display());
            vec![match error {
                Error::InconsistentKeys(_) => fault("key")(format!(
                    "{key} is not the key of the first certificate in {cert}: expected the one that this was made for"
                )),
                Error::InvalidCertificate(_) => fault("cert")(format!("{cert} has an unusable certificate: {error}")),
                other => fault("key")(format!("{key} cannot be used with {cert}: {other}")),
            }]
        })?;
        Ok(OwnCertificate { path: cert.to_owned(), chain: chain.into(), shown: Arc::new(certified.into()) })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The certificate, and those behind it.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// For the handshakes.
    pub fn resolver(&self) -> Arc<dyn ResolvesClientCert> {
        self.shown.clone()
    }
}

/// By what is shown.
impl PartialEq for OwnCertificate {
    fn eq(&self, other: &OwnCertificate) -> bool {
        self.chain == other.chain
    }
}

impl Eq for OwnCertificate {}

impl Hash for OwnCertificate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.chain.hash(state);
    }
}

impl fmt::Debug for OwnCertificate {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.chain.len(), self.path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_taken_and_what_is_none_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let made = || rcgen::generate_simple_self_signed(vec!["relay.example".to_owned()]).unwrap();
        let (own, other) = (made(), made());
        let (cert, key) = (own.cert.pem(), own.signing_key.serialize_pem());
        let (cert_file, key_file) = (write("cert.pem", &cert), write("key.pem", &key));
        let both = write("both.pem", &format!("{key}{cert}"));
        let loaded = OwnCertificate::load(&cert_file, &key_file).unwrap();
        assert_eq!(loaded, OwnCertificate::load(&both, &both).unwrap());
        assert_eq!(loaded.chain(), [own.cert.der().clone()]);
        assert!(!format!("{loaded:?}").contains("PRIVATE"));

        let another = write("other.pem", &other.signing_key.serialize_pem());
        let told = |cert: &Path, key: &Path| {
            let faults = OwnCertificate::load(cert, key).unwrap_err();
            faults.into_iter().map(|fault| (fault.key, fault.message)).collect::<Vec<_>>()
        };
        let wrong = told(&cert_file, &another);
        assert!(wrong[0].0 == "key" && wrong[0].1.contains("is not the key of the first certificate in"), "{wrong:?}");
        let swapped = told(&key_file, &cert_file);
        assert_eq!(swapped.iter().map(|(key, _)| *key).collect::<Vec<_>>(), ["cert", "key"]);
    }
}
