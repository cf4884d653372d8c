use super::super::{ListenerTlsMode, Loaded};
use super::*;
use crate::config::ListenerTls;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// 2026-11-30.
const NOW: Timestamp = Timestamp(1_796_000_000_000);

struct Files {
    dir: tempfile::TempDir,
    root: CertifiedIssuer<'static, KeyPair>,
}

/// The certificate of a server that holds from so many days from now to so many.
fn params(name: &str, from: i64, until: i64) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    let day =
        |days: i64| rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_millis((NOW.0 + days * DAY_MS) as u64);
    (params.not_before, params.not_after) = (day(from), day(until));
    params
}

impl Files {
    fn new() -> Files {
        let mut ca = params("ca.example", -1000, 1000);
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
        Files { dir: tempfile::tempdir().unwrap(), root }
    }

    fn write(&self, name: &str, text: &str) -> std::path::PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Signed by the root: certificate and key.
    fn leaf(&self, name: &str, from: i64, until: i64) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let signed = params(name, from, until).signed_by(&key, &self.root).unwrap();
        (signed.pem(), key.serialize_pem())
    }

    /// What is told of a listener with this chain and key, without the directory.
    fn told(&self, chain: &str, key: &str) -> Vec<String> {
        let (cert, key) = (self.write("cert.pem", chain), self.write("key.pem", key));
        let text = format!(
            "hostname = 'a.example'\n[[listener]]\ntls = {{ mode = 'starttls', cert = '{}', key = '{}' }}\n",
            cert.display(),
            key.display()
        );
        self.warnings(&text)
    }

    fn warnings(&self, text: &str) -> Vec<String> {
        let dir = format!("{}/", self.dir.path().display());
        let loaded = Loaded::parse_at(text, "x", Some(NOW)).unwrap();
        loaded.warnings.iter().map(|warning| warning.to_string().replace(&dir, "")).collect()
    }
}

#[test]
fn a_listener_is_warned_of_the_time_of_its_certificate() {
    let files = Files::new();
    for (from, until, told) in [
        (-10, 300, None),
        (-10, 31, None),
        (-10, 29, Some("it expires in 29 days, on 2026-12-")),
        (-10, 6, Some("it expires in less than 7 days, on 2026-12-")),
        (-10, 0, Some("it expires within a day, at 2026-11-")),
        (-40, -3, Some("it expired on 2026-11-")),
        (2, 90, Some("its time begins on 2026-12-")),
    ] {
        let (pem, key) = files.leaf("relay.example", from, until);
        let said = files.told(&pem, &key);
        let expected = told.map(|told| format!("x:3:35: listener[1].tls.cert: cert.pem (relay.example): {told}"));
        match (said.as_slice(), expected) {
            ([], None) => {}
            ([said], Some(expected)) => assert!(said.starts_with(&expected), "{said}"),
            (said, expected) => panic!("{expected:?}: {said:?}"),
        }
    }
}

#[test]
fn the_order_of_a_chain_is_looked_at_and_a_key_of_another_certificate_named() {
    let files = Files::new();
    let (leaf, key) = files.leaf("relay.example", -1, 300);
    let (other, _) = files.leaf("other.example", -1, 300);
    let root = files.root.pem();
    assert_eq!(files.told(&format!("{leaf}{root}"), &key), Vec::<String>::new());
    let said = files.told(&format!("{leaf}{other}{root}"), &key);
    assert!(
        said.len() == 1
            && said[0]
                .contains("(no. 1 in it, relay.example): the next certificate in the file is that of other.example"),
        "{said:?}"
    );
    // The other way round no server can be made of it.
    let cert = files.write("cert.pem", &format!("{root}{leaf}"));
    let key = files.write("key.pem", &key);
    let faults = ListenerTls::load(ListenerTlsMode::StartTls, false, &cert, &key).unwrap_err();
    assert_eq!(faults.len(), 1);
    assert!(
        faults[0].key == "cert"
            && faults[0].message.contains("the key belongs to certificate no. 2: expected that one first"),
        "{faults:?}"
    );
}

#[test]
fn authorities_that_vouch_for_nobody_or_no_more_are_told() {
    let files = Files::new();
    let with = |pem: &str| {
        let path = files.write("ca.pem", pem);
        files.warnings(&format!("hostname = 'a.example'\n[default]\ntls = 'verified'\ntls_ca = '{}'\n", path.display()))
    };
    assert_eq!(with(&files.root.pem()), Vec::<String>::new());
    let (leaf, _) = files.leaf("mx.example", -1, 300);
    let said = with(&leaf);
    assert!(
        said.len() == 1
            && said[0].starts_with("x:4:10: default.tls_ca: ca.pem (mx.example): it is no authority (CA:FALSE)"),
        "{said:?}"
    );
    let old = params("old.example", -400, -40);
    let old = old.self_signed(&KeyPair::generate().unwrap()).unwrap();
    let said = with(&format!("{}{}", files.root.pem(), old.pem()));
    assert!(said.len() == 1 && said[0].contains("ca.pem (no. 2 in it, old.example): it expired on "), "{said:?}");
    let said = with(WEAK);
    let told = |line: &String| line.contains("its RSA key has 1024 bits, and with fewer than 2048");
    assert!(said.iter().any(told), "{said:?}");
}

/// An authority with an RSA key of 1024 bits, made by `openssl req -x509 -newkey rsa:1024`.
const WEAK: &str = "\
-----BEGIN CERTIFICATE-----
MIIB+TCCAWKgAwIBAgIBATANBgkqhkiG9w0BAQsFADAXMRUwEwYDVQQDDAx3ZWFr
LmV4YW1wbGUwIBcNMjYxMTMwMTU0NjMzWhgPMjEyNjExMDYxNTQ2MzNaMBcxFTAT
BgNVBAMMDHdlYWsuZXhhbXBsZTCBnzANBgkqhkiG9w0BAQEFAAOBjQAwgYkCgYEA
mQMtRuLMPhTcbTzHs+ka7KJeqoQkcVdhUej3d5hEoUeu9CnaKG95lIzaeXQSS3HA
lMoWxZNNgW4yjs07K/4Cav5H+A9SzoH7g5iMwP+4b6gqBrTdNByZ5RIdadAj1ow3
6YL1yrRa7OIAHg7lTzpNu2nwg1FOo7ksv1IJp+6jgI8CAwEAAaNTMFEwHQYDVR0O
BBYEFELg6oDfcyTvM/zhxh0OAtoEs/gWMB8GA1UdIwQYMBaAFELg6oDfcyTvM/zh
xh0OAtoEs/gWMA8GA1UdEwEB/wQFMAMBAf8wDQYJKoZIhvcNAQELBQADgYEAQRwN
zbKTACAwMIu+K1eD2YTRdOinvyNJtx3uxbgoT/KRRJbDkHHEnHz+mLN4xIzJlh4c
JhGmLnqmoOT5VwmLye7uB/fXXqxI/NTg2CBy2O87fwpl4YyhoNqavHL16FJPAkua
Xy3oRIPXZ8mW/GbybpXltf5wU9684JI58Jr1Wic=
-----END CERTIFICATE-----
";
