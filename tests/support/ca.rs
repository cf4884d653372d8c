//! A certificate authority for one test.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};

use super::support::TestDir;

/// The authority; its certificate is the PEM file [`Authority::file`].
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// What a client must trust.
    pub file: PathBuf,
    name: String,
}

/// A certificate and its key as PEM files.
pub struct Certificate {
    pub file: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    pub fn new(dir: &TestDir, name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA");
        let file = dir.write(&format!("{name}.pem"), issuer.pem());
        Authority { issuer, file, name: name.to_owned() }
    }

    /// A certificate for this host name.
    pub fn certificate(&self, dir: &TestDir, host: &str) -> Certificate {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![host.to_owned()]).expect("a host name");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let stem = format!("{}-{host}", self.name);
        Certificate {
            file: dir.write(&format!("{stem}.pem"), certificate.pem()),
            key: dir.write(&format!("{stem}.key"), key.serialize_pem()),
        }
    }
}
