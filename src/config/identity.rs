//! What a listener shows its clients: a certificate chain and its private key, read and compared
//! with one another when the configuration is read, so that what was checked is what is used.
//!
//! TLS 1.2 and 1.3 on aws-lc-rs. Sessions can be resumed by tickets whose keys live as long as the
//! configuration; early data stays off, since it can be played back (RFC 8446 §8).

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memchr::memmem;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{Error, ServerConfig};

use super::ListenerTlsMode;
use super::client_identity::ClientAuthorities;
use super::source_file::{self, FileError};

/// Largest file read, in bytes.
pub(super) const MAX_PEM: u64 = 1 << 20;

/// Certificates of a file that are compared with the key at most.
const MOST_IN_A_CHAIN: usize = 10;

/// `tls` of a `[[listener]]`.
#[derive(Clone)]
pub struct ListenerTls {
    /// When TLS begins.
    pub mode: ListenerTlsMode,
    /// Mail is taken from encrypted sessions only.
    pub required: bool,
    server: Arc<ServerConfig>,
    file: PathBuf,
    chain: Arc<[CertificateDer<'static>]>,
    clients: Option<ClientAuthorities>,
}

/// A file of `tls` that cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IdentityFault {
    /// The key that names it: `cert` or `key`.
    pub key: &'static str,
    /// What is wrong and what was expected; nothing of the file's content.
    pub message: String,
}

impl ListenerTls {
    /// Reads the PEM files of a chain and of its key.
    ///
    /// # Errors
    /// A file that cannot be read or used, or a key that is not that of the certificate; at least
    /// one fault.
    pub fn load(
        mode: ListenerTlsMode,
        required: bool,
        cert: &Path,
        key: &Path,
    ) -> Result<ListenerTls, Vec<IdentityFault>> {
        ListenerTls::load_for(mode, required, cert, key, None)
    }

    /// The same where clients may show a certificate, too.
    ///
    /// # Errors
    /// As [`ListenerTls::load`].
    pub fn load_for(
        mode: ListenerTlsMode,
        required: bool,
        cert: &Path,
        key: &Path,
        clients: Option<ClientAuthorities>,
    ) -> Result<ListenerTls, Vec<IdentityFault>> {
        let fault = |key: &'static str| move |message: String| IdentityFault { key, message };
        let (chain, private) = match (chain(cert).map_err(fault("cert")), private_key(key).map_err(fault("key"))) {
            (Ok(chain), Ok(private)) => (chain, private),
            (chain, private) => return Err(chain.err().into_iter().chain(private.err()).collect()),
        };
        let own = server(chain.clone(), private.clone_key(), clients.as_ref()).map_err(|error| {
            let (cert, key) = (cert.display(), key.display());
            let first = |n: usize| chain.get(n).is_some_and(|c| server(vec![c.clone()], private.clone_key(), None).is_ok());
            vec![match error {
                Error::InconsistentKeys(_) if (1..chain.len().min(MOST_IN_A_CHAIN)).any(first) => {
                    let n = (1..chain.len()).find(|n| first(*n)).unwrap_or(1) + 1;
                    fault("cert")(format!(
                        "{cert} is in the wrong order: the key belongs to certificate no. {n}: expected that one first, \
                         then that of its issuer"
                    ))
                }
                Error::InconsistentKeys(_) => fault("key")(format!(
                    "{key} is not the key of the first certificate in {cert}: expected the one that this was made for"
                )),
                Error::InvalidCertificate(_) if is_of_version_1(&error) => fault("cert")(format!(
                    "{cert} has a certificate of X.509 version 1, which clients do not accept: expected version 3, as \
                     from `openssl req -x509 -key {key} -out {cert} -days 365 -subj /CN=NAME -addext \
                     subjectAltName=DNS:NAME`, or from an authority with `openssl x509 -req … -extfile FILE`"
                )),
                Error::InvalidCertificate(_) => fault("cert")(format!("{cert} has an unusable certificate: {error}")),
                other => fault("key")(format!("{key} cannot be used with {cert}: {other}")),
            }]
        })?;
        let (server, chain) = (Arc::new(own), chain.into());
        Ok(ListenerTls { mode, required, server, file: cert.to_owned(), chain, clients })
    }

    /// The file of the certificates.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Who vouches for clients; `None`: they are not asked for a certificate.
    pub fn clients(&self) -> Option<&ClientAuthorities> {
        self.clients.as_ref()
    }

    /// The server's certificate, and those behind it.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// For the handshakes.
    pub fn server(&self) -> &Arc<ServerConfig> {
        &self.server
    }
}

impl fmt::Debug for ListenerTls {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenerTls")
            .field("mode", &self.mode)
            .field("required", &self.required)
            .finish_non_exhaustive()
    }
}

fn server(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    clients: Option<&ClientAuthorities>,
) -> Result<ServerConfig, Error> {
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?;
    let builder = match clients {
        Some(clients) => builder.with_client_cert_verifier(clients.verifier()),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key)?;
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    config.max_early_data_size = 0;
    Ok(config)
}

/// The library has no words for it, only the name of a variant.
fn is_of_version_1(error: &Error) -> bool {
    format!("{error:?}").contains("UnsupportedCertVersion")
}

/// Reads a file that is to be PEM, of at most 1 MiB.
fn read_pem(path: &Path) -> Result<Vec<u8>, String> {
    let name = path.display();
    source_file::read(path, MAX_PEM).map_err(|e| match e {
        FileError::TooLarge(_) => format!("{name} is larger than 1 MiB: expected a PEM file"),
        e => format!("cannot read {name}: {e}"),
    })
}

/// The certificates of a PEM file, perhaps none, and the whole file to tell why.
pub(super) fn certificates(path: &Path) -> Result<(Vec<CertificateDer<'static>>, Vec<u8>), String> {
    let pem = read_pem(path)?;
    let certificates: Result<_, _> = CertificateDer::pem_slice_iter(source_file::without_mark(&pem)).collect();
    Ok((certificates.map_err(|e| format!("{} is not PEM: {}", path.display(), fault(&e)))?, pem))
}

/// What is wrong with a PEM file. The error itself repeats lines of it, which may be all of a key.
fn fault(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no end line (are the line ends of the file lost?)",
        pem::Error::IllegalSectionStart { .. } => "a section has no proper BEGIN line",
        pem::Error::Base64Decode(_) => "a section has what is no base64",
        pem::Error::NoItemsFound => "there is none in it",
        _ => "it cannot be read",
    }
}

pub(super) fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let (name, (chain, pem)) = (path.display(), certificates(path)?);
    if chain.is_empty() {
        let hint = match pem.iter().all(u8::is_ascii_whitespace) {
            true => "it is empty",
            false if has_key(&pem) => "it has a private key, which belongs to `key`",
            false => "is it DER?",
        };
        return Err(format!("{name} has no certificate: expected PEM, the server's certificate first ({hint})"));
    }
    Ok(chain)
}

pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let (name, pem) = (path.display(), read_pem(path)?);
    if memmem::find(&pem, b"ENCRYPTED").is_some() {
        return Err(format!(
            "{name} has a pass phrase: expected a key without one, as from `openssl pkey -in KEY -out PLAIN-KEY`"
        ));
    }
    PrivateKeyDer::from_pem_slice(source_file::without_mark(&pem)).map_err(|error| {
        let hint = match () {
            () if memmem::find(&pem, b"BEGIN CERTIFICATE").is_some() => {
                "it has a certificate, which belongs to `cert`".into()
            }
            // SEQUENCE with a long length: no text begins so.
            () if pem.starts_with(&[0x30, 0x82])
                || pem.starts_with(&[0x30, 0x81])
                || pem.starts_with(&[0x30, 0x2e]) =>
            {
                format!("it is DER: `openssl pkey -inform der -in {name} -out KEY.pem` makes PEM of it")
            }
            () if source_file::text(&pem).is_err_and(|what| what.contains("UTF-16")) => {
                "it is UTF-16 text: save it as UTF-8".into()
            }
            () => fault(&error).to_owned(),
        };
        format!("{name} has no private key: expected PEM ({hint})")
    })
}

/// Whether it has a private key, of whatever kind.
pub(super) fn has_key(pem: &[u8]) -> bool {
    memmem::find(pem, b"PRIVATE KEY-----").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    use rcgen::{CertifiedKey, KeyPair};

    /// As `openssl x509 -req` makes it without extensions.
    const VERSION_1: &str = "-----BEGIN CERTIFICATE-----\n\
        MIIBKjCB0gITfXYndxWitBtEHUKVhtE9MxCdATAKBggqhkjOPQQDAjAYMRYwFAYD\n\
        VQQDDA1yZWxheS5leGFtcGxlMCAXDTI2MTEzMDAwNDMwM1oYDzIxMjYxMTA2MDA0\n\
        MzAzWjAYMRYwFAYDVQQDDA1yZWxheS5leGFtcGxlMFkwEwYHKoZIzj0CAQYIKoZI\n\
        zj0DAQcDQgAEnobsvK6DkGfO5PEKO5tucORrgCSYSAWhusxzB+Yr3L34nMZtyL4x\n\
        Q2dCmWZghflkRmoTnd8xARE0W+wchpS9MDAKBggqhkjOPQQDAgNHADBEAiBBan5n\n\
        NTZpD8qGXApanPVRkrjnwQrHGJivNLbcFdQ3tAIgPD6t+y+VI/MWkH5+ViI3ZrsZ\n\
        KTvel8b15XEaw1EUcl8=\n\
        -----END CERTIFICATE-----\n";

    struct Files {
        dir: tempfile::TempDir,
        made: CertifiedKey<KeyPair>,
    }

    impl Files {
        fn new() -> Files {
            let made = rcgen::generate_simple_self_signed(vec!["relay.example".to_owned()]).unwrap();
            let files = Files { dir: tempfile::tempdir().unwrap(), made };
            files.write("cert.pem", &files.made.cert.pem());
            files.write("key.pem", &files.made.signing_key.serialize_pem());
            files
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.dir.path().join(name), text).unwrap();
        }

        /// What is told of these two: which key, and the message without the directory.
        fn told(&self, cert: &str, key: &str) -> Vec<(&'static str, String)> {
            let dir = format!("{}/", self.dir.path().display());
            let path = |name: &str| self.dir.path().join(name);
            match ListenerTls::load(ListenerTlsMode::StartTls, false, &path(cert), &path(key)) {
                Ok(_) => Vec::new(),
                Err(faults) => faults.into_iter().map(|f| (f.key, f.message.replace(&dir, ""))).collect(),
            }
        }
    }

    #[test]
    fn a_pair_is_taken_and_never_shown() {
        let files = Files::new();
        let path = |name: &str| files.dir.path().join(name);
        let tls = ListenerTls::load(ListenerTlsMode::Implicit, true, &path("cert.pem"), &path("key.pem")).unwrap();
        assert_eq!(format!("{tls:?}"), "ListenerTls { mode: Implicit, required: true, .. }");
        assert_eq!(tls.server().max_early_data_size, 0);
        assert!(tls.server().ticketer.enabled());
        // Some write both into one file.
        files.write("both.pem", &format!("{}{}", files.made.signing_key.serialize_pem(), files.made.cert.pem()));
        assert_eq!(files.told("both.pem", "both.pem"), []);
    }

    #[test]
    fn a_certificate_of_version_1_is_told_with_how_to_make_one_of_version_3() {
        let files = Files::new();
        files.write("v1.pem", VERSION_1);
        let told = files.told("v1.pem", "key.pem");
        let [("cert", told)] = told.as_slice() else { panic!("{told:?}") };
        assert!(told.starts_with("v1.pem has a certificate of X.509 version 1, "), "{told}");
        assert!(told.contains("`openssl req -x509 -key key.pem -out v1.pem -days 365 "), "{told}");
        assert!(!told.contains("Other("), "{told}");
    }

    #[test]
    fn every_fault_of_the_files_is_told_with_what_to_do() {
        let files = Files::new();
        files.write("other.pem", &KeyPair::generate().unwrap().serialize_pem());
        files.write("empty.pem", "");
        files.write("torn.pem", &files.made.cert.pem()[..200]);
        files.write("locked.pem", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
        files.write("junk.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        let one_line = files.made.signing_key.serialize_pem().replace('\n', " ");
        files.write("one-line.pem", &one_line);
        files.write("huge.pem", &"#".repeat(1 << 21));
        for (cert, key, wrong, told) in [
            ("none.pem", "key.pem", "cert", "cannot read none.pem: No such file"),
            ("cert.pem", "none.pem", "key", "cannot read none.pem: No such file"),
            (
                "key.pem",
                "key.pem",
                "cert",
                "key.pem has no certificate: expected PEM, the server's certificate first (it has a private key",
            ),
            ("cert.pem", "cert.pem", "key", "cert.pem has no private key: expected PEM (it has a certificate"),
            ("empty.pem", "key.pem", "cert", "empty.pem has no certificate: expected PEM"),
            ("cert.pem", "empty.pem", "key", "empty.pem has no private key: expected PEM"),
            ("torn.pem", "key.pem", "cert", "torn.pem is not PEM: "),
            (
                "cert.pem",
                "other.pem",
                "key",
                "other.pem is not the key of the first certificate in cert.pem: expected the one",
            ),
            ("cert.pem", "locked.pem", "key", "locked.pem has a pass phrase: expected a key without one"),
            ("junk.pem", "key.pem", "cert", "junk.pem has an unusable certificate: "),
            (
                "cert.pem",
                "one-line.pem",
                "key",
                "one-line.pem has no private key: expected PEM (a section has no end line (are the line ends",
            ),
            ("huge.pem", "key.pem", "cert", "huge.pem is larger than 1 MiB"),
        ] {
            let faults = files.told(cert, key);
            assert!(
                matches!(faults.as_slice(), [(at, said)] if *at == wrong && said.starts_with(told)),
                "{told}: {faults:?}"
            );
            let inside = &one_line.split(' ').nth(4).unwrap_or_default();
            assert!(inside.len() > 20 && !faults[0].1.contains(*inside), "a part of the key: {faults:?}");
        }
        assert_eq!(files.told("none.pem", "none.pem").len(), 2, "both are told at once");
    }
}
