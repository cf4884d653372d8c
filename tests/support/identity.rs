//! A certificate for the listeners of tests, and clients that trust it.

use std::sync::{Arc, OnceLock};

use mailweir::config::{ListenerTls, ListenerTlsMode};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ALL_VERSIONS, ClientConfig, RootCertStore, SupportedProtocolVersion};

/// The name in it.
const NAME: &str = "relay.example";

/// A self-signed certificate as PEM, with its key, and as DER.
struct Identity {
    certificate: String,
    key: String,
    der: CertificateDer<'static>,
}

/// Made once for each test program.
fn identity() -> &'static Identity {
    static IDENTITY: OnceLock<Identity> = OnceLock::new();
    IDENTITY.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).expect("a certificate");
        Identity { certificate: made.cert.pem(), key: made.signing_key.serialize_pem(), der: made.cert.der().clone() }
    })
}

/// `tls` of a listener.
pub fn listener_tls(mode: ListenerTlsMode, required: bool) -> ListenerTls {
    let dir = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("a PEM file");
        path
    };
    let (certificate, key) = (write("cert.pem", &identity().certificate), write("key.pem", &identity().key));
    ListenerTls::load(mode, required, &certificate, &key).expect("a good pair")
}

/// A client that trusts the certificate.
pub fn client() -> Arc<ClientConfig> {
    Arc::new(client_of(ALL_VERSIONS, true))
}

/// A client that knows only these versions, and may not trust the certificate.
pub fn client_of(versions: &[&'static SupportedProtocolVersion], trusts: bool) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    if trusts {
        roots.add(identity().der.clone()).expect("a root");
    }
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// The name that clients ask for.
pub fn server_name() -> ServerName<'static> {
    ServerName::try_from(NAME).expect("a name")
}
