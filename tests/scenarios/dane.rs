//! DANE with real parts: zones signed by ldns and served by NSD, and Postfix as the mail host of all of them. Mail leaves
//! where the certificate is the one that is published, and waits where it is not, or where DNS is forged.

#[path = "../dns/mod.rs"]
mod dns;
use crate::ca;
use crate::support;

use aws_lc_rs::digest;
use ca::Authority;
use dns::signed::{How, Signed, Zone};
use support::daemon::Setup;
use support::mail::message;
use support::postfix::{self, Postfix};
use support::{Port, TestDir};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The digest of the public key of a certificate, as a TLSA record has it.
fn key_of(pem: &std::path::Path) -> String {
    let certificate = CertificateDer::from_pem_file(pem).expect("a certificate");
    let (_, parsed) = X509Certificate::from_der(&certificate).expect("a certificate");
    let hash = digest::digest(&digest::SHA256, parsed.tbs_certificate.subject_pki.raw);
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One for the records of a test, which lives as long as that.
fn records(port: u16, key: &str) -> &'static str {
    Box::leak(
        format!("@ MX 10 mx\n*.wild MX 10 mx\nmx A 127.0.0.4\n_{port}._tcp.mx TLSA 3 1 1 {key}\n").into_boxed_str(),
    )
}

#[test]
fn mail_leaves_by_signed_tlsa_records_and_waits_where_anything_is_forged() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let authority = Authority::new(&dir, "host-ca");
    // For another name, of an authority that nobody trusts: the key is what counts.
    let certificate = authority.certificate(&dir, "whatever.example");
    assert!(authority.file.exists());
    let main = format!(
        "smtpd_tls_security_level = may\nsmtpd_tls_cert_file = {}\nsmtpd_tls_key_file = {}",
        certificate.file.display(),
        certificate.key.display()
    );
    let domains = ["signed", "x.wild.signed", "wrong", "forged", "plain"];
    let postfix =
        Postfix::start(&dir, "mx", port.at(4), &postfix::Options { domains: &domains, main: &main, submission: None });
    let good = records(port.number, &key_of(&certificate.file));
    let zone = |name, records, how| Zone { name, records, how };
    let nsd = Signed::start(&[
        zone("signed", good, How::Well),
        zone("wrong", records(port.number, &"07".repeat(32)), How::Well),
        zone("forged", good, How::Altered("MX\t10 mx.forged.", "MX\t10 ns.forged.")),
        zone("plain", records(port.number, &"07".repeat(32)), How::Unsigned),
    ]);
    let daemon = Setup::new(&dir)
        .with(&format!(
            "[dns]\nnameservers = [\"{}\"]\ndnssec = \"validate\"\ntrust_anchor = \"{}\"",
            nsd.address,
            nsd.anchor.display()
        ))
        .with(&format!("[default]\nport = {}\nallow_private = true\nmta_sts = false", port.number))
        .start();
    let send = |to: &str| daemon.client().send("<sender@plain>", &[to], &message("by records"));
    for (to, shown) in [("a@signed", "dane"), ("a@x.wild.signed", "dane"), ("a@plain", "encrypted")] {
        let id = send(&format!("<{to}>"));
        let line = daemon.wait_log("delivered", |line| line.is("delivered", &id));
        assert_eq!(line.get("tls"), shown, "{}", line.0);
    }
    let whose = "the TLSA records of mx.wrong (DANE) demand a certificate that one of them matches";
    let (wrong, forged) = (send("<a@wrong>"), send("<a@forged>"));
    let row = daemon.wait_row("a reason", |row| row.id() == wrong && !row.reason().is_empty());
    assert!(row.reason().contains(&format!("its certificate matches none of them; {whose}")), "{}", row.reason());
    let row = daemon.wait_row("a reason", |row| row.id() == forged && !row.reason().is_empty());
    assert!(row.reason().contains("4.7.5 ") && row.reason().contains("without a good signature"), "{}", row.reason());
    assert_eq!(postfix.wait(3).len(), 3, "nothing else has arrived");
    let explained = daemon.command_ok(&["explain", "a@signed"], b"");
    assert!(explained.contains("TLS: a certificate that matches one of 1 TLSA records, by DANE"), "{explained}");
    // Who demands REQUIRETLS goes where the names are signed, and hears at once where nobody vouches for them.
    for (to, told) in [
        ("a@signed", "TLS: REQUIRETLS, and a certificate that matches one of 1 TLSA records, by DANE"),
        (
            "a@plain",
            "a message would bounce: 550 5.7.30 the sender demands REQUIRETLS (RFC 8689), and nothing vouches for",
        ),
        ("a@forged", "a message would wait and be tried again: 4.7.5 "),
    ] {
        let explained = daemon.command_ok(&["explain", to, "--requiretls"], b"");
        assert!(explained.contains(told), "{explained}");
    }
}
