//! `tls_ca`: certificates to trust besides the system's, read and checked when the configuration is
//! read, so that what was checked is what is used; a file that changes later is taken up by a reload.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::identity::{certificates, has_key};

/// The authorities of a PEM file; at least one.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Authorities {
    path: PathBuf,
    certificates: Arc<[CertificateDer<'static>]>,
}

impl Authorities {
    /// Reads a PEM file.
    ///
    /// # Errors
    /// It cannot be read, or has no certificate or one that cannot be used: what is wrong and what
    /// to do, for people.
    pub fn load(path: &Path) -> Result<Authorities, String> {
        let name = path.display();
        let (certificates, pem) = certificates(path)?;
        if certificates.is_empty() {
            let hint = if has_key(&pem) {
                "it has a private key, which has no place here".into()
            } else if pem.is_empty() {
                "it is empty".into()
            } else {
                format!("if it is DER: `openssl x509 -inform der -in {name} -out ca.pem`")
            };
            return Err(format!("{name} has no certificate: expected PEM ({hint})"));
        }
        let mut roots = RootCertStore::empty();
        for (n, certificate) in certificates.iter().enumerate() {
            let unusable = |e| format!("{name} has an unusable certificate (no. {}): {e}", n + 1);
            roots.add(certificate.clone()).map_err(unusable)?;
        }
        Ok(Authorities { path: path.to_owned(), certificates: certificates.into() })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it has.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.certificates.len(), self.path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_authorities_is_taken_or_told_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["ca.example".to_owned()]).unwrap();
        let pem = made.cert.pem();
        let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
        write("two.pem", format!("# ours\n{pem}{pem}").as_bytes());
        let two = Authorities::load(&dir.path().join("two.pem")).unwrap();
        assert_eq!(two.certificates(), [made.cert.der().clone(), made.cert.der().clone()]);

        write("empty.pem", b"");
        write("ca.der", made.cert.der());
        write("key.pem", made.signing_key.serialize_pem().as_bytes());
        write("torn.pem", &pem.as_bytes()[..200]);
        write("junk.pem", format!("{pem}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").as_bytes());
        for (name, told) in [
            ("", "cannot read : it is a directory: expected a file"),
            ("none.pem", "cannot read none.pem: No such file"),
            ("empty.pem", "empty.pem has no certificate: expected PEM (it is empty)"),
            (
                "ca.der",
                "ca.der has no certificate: expected PEM (if it is DER: `openssl x509 -inform der -in ca.der -out",
            ),
            ("key.pem", "key.pem has no certificate: expected PEM (it has a private key, which has no place here)"),
            ("torn.pem", "torn.pem is not PEM: "),
            ("junk.pem", "junk.pem has an unusable certificate (no. 2): "),
        ] {
            let said = Authorities::load(&dir.path().join(name)).unwrap_err();
            let said = said.replace(&format!("{}/", dir.path().display()), "");
            assert!(said.starts_with(told), "{told}: {said}");
        }
    }
}
