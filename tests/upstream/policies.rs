//! What is published on TLS is kept: on real sockets, with good and bad certificates.

use std::sync::Arc;

use aws_lc_rs::digest;
use mailweir::config::{Authorities, Provider, TlsMode};
use mailweir::deliver::{Connector, Proof};
use mailweir::route::sts::{Fetch, Https, PolicyHost};
use mailweir::route::tlsa::{Form, Part, Tlsa, Usage};
use mailweir::route::{Dane, Host, TlsPolicy};
use rcgen::{CertificateParams, date_time_ymd};
use tokio_rustls::rustls::crypto::aws_lc_rs as crypto;
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::common::*;
use crate::connecting::{connector, host, route};
use crate::encryption::{AGAIN, Authority, HELLO, serve, with_tls};
use crate::endpoint::Endpoint;

fn enforced() -> TlsPolicy {
    TlsPolicy::MtaSts("a.example".into())
}

fn with_policy(policy: TlsPolicy) -> Vec<Host> {
    vec![Host { policy, ..host("mx.example", 10, &["127.0.0.1"]) }]
}

/// What a session has shown, or why there is none.
async fn shown(
    connector: &Connector,
    provider: &Provider,
    port: u16,
    policy: TlsPolicy,
) -> Result<Option<Proof>, String> {
    match connector.open(provider, &route(port, with_policy(policy))).await {
        Ok(connection) => {
            let proof = connection.peer().tls.map(|tls| tls.proof);
            connection.quit().await;
            Ok(proof)
        }
        Err(facts) => Err(facts.iter().map(|f| format!("{}: {}", f.stage, f.event)).collect::<Vec<_>>().join("; ")),
    }
}

fn trusting(authority: &Authority) -> Provider {
    Provider { tls_ca: Some(authority.trusted()), ..with_tls(TlsMode::Opportunistic) }
}

const DEMANDED: &str = "; the MTA-STS policy of a.example (mode enforce) demands a valid certificate";

#[tokio::test]
async fn an_enforced_policy_is_met_by_a_valid_certificate_only() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let provider = trusting(&authority);
    let good = HELLO.to_owned() + AGAIN;
    let (port, server) = serve(&[&good], &authority.server("mx.example", false)).await;
    assert_eq!(shown(&connector(), &provider, port, enforced()).await, Ok(Some(Proof::MtaSts)));
    server.done().await;
    for (tls, why) in [
        (authority.server("mx.example", true), "the certificate has expired"),
        (authority.server("other.example", false), "the certificate is not for mx.example: it has other.example"),
        (stranger.server("mx.example", false), "the certificate is not signed by the authority that it names"),
    ] {
        // One script: a second connection, in clear text, would find nobody.
        let (port, _server) = serve(&[HELLO], &tls).await;
        let told = shown(&connector(), &provider, port, enforced()).await.expect_err(why);
        assert_eq!(told, format!("STARTTLS: TLS: {why}{DEMANDED}"));
    }
}

/// No policy, no clear text: whatever STARTTLS comes to, where one is found nothing is said on a second connection.
#[tokio::test]
async fn clear_text_never_follows_where_a_policy_is_enforced() {
    let authority = Authority::new();
    let provider = trusting(&authority);
    for (script, why) in [
        ("hello PIPELINING\nC: QUIT\nS: 221 bye", "the server does not offer STARTTLS"),
        (
            "hello STARTTLS\nC: STARTTLS\nS: 454 4.7.0 not now\nC: QUIT\nS: 221 bye",
            "STARTTLS is refused: 454 4.7.0 not now",
        ),
        ("hello STARTTLS\nC: STARTTLS\nS: 502 what\nC: QUIT\nS: 221 bye", "STARTTLS is refused: 502 what"),
        ("hello STARTTLS\nC: STARTTLS\nS: 220 go\nclose", "the server closed the connection"),
        ("hello STARTTLS\nC: STARTTLS\nclose", "the server closed the connection"),
    ] {
        let clear = "hello PIPELINING\nC: QUIT\nS: 221 bye";
        let (port, server) = serve(&[script, clear], &authority.server("mx.example", false)).await;
        let connector = connector();
        let told = shown(&connector, &provider, port, enforced()).await.expect_err(why);
        assert_eq!(told, format!("STARTTLS: TLS: {why}{DEMANDED}"));
        // Mail to a domain without a policy is not kept from the same host by that; it finds the second script.
        assert_eq!(shown(&connector, &provider, port, TlsPolicy::None).await, Ok(None), "{script}");
        server.done().await;
    }
}

#[tokio::test]
async fn a_session_carries_what_it_was_good_enough_for() {
    let authority = Authority::new();
    let provider = trusting(&authority);
    let tls = authority.server("mx.example", false);
    let testing = TlsPolicy::MtaStsTesting("a.example".into());
    let looked_at = [(TlsPolicy::None, false, false), (testing.clone(), false, true), (enforced(), true, true)];
    for (opened, good_for_policy, good_for_testing) in looked_at {
        let (port, _server) = serve(&[&(HELLO.to_owned() + AGAIN)], &tls).await;
        let opened = connector().open(&provider, &route(port, with_policy(opened))).await;
        let connection = opened.unwrap_or_else(|facts| panic!("{facts:?}"));
        assert!(connection.meets(&provider, &TlsPolicy::None));
        assert_eq!(connection.meets(&provider, &enforced()), good_for_policy);
        assert_eq!(connection.meets(&provider, &testing), good_for_testing);
        connection.quit().await;
    }
    let (clear, _server) = new_session("hello PIPELINING\nC: QUIT\nS: 221 bye").await;
    assert!(!clear.meets(&provider, &enforced()) && clear.meets(&provider, &TlsPolicy::None));
    // Two domains of one host: a job of the one does not take the other's connection while it is being opened.
    let (plain, protected) = (route(25, with_policy(TlsPolicy::None)), route(25, with_policy(enforced())));
    assert!(!plain.has_the_hosts_of(&protected) && !protected.has_the_hosts_of(&plain));
    assert!(protected.has_the_hosts_of(&route(25, with_policy(enforced()))));
}

#[tokio::test]
async fn testing_refuses_nothing_and_tls_min_does() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let provider = trusting(&authority);
    let testing = || TlsPolicy::MtaStsTesting("a.example".into());
    for tls in [authority.server("mx.example", false), stranger.server("other.example", true)] {
        let (port, server) = serve(&[&(HELLO.to_owned() + AGAIN)], &tls).await;
        assert_eq!(shown(&connector(), &provider, port, testing()).await, Ok(Some(Proof::Encrypted)));
        server.done().await;
    }
    let clear = "hello PIPELINING\nC: QUIT\nS: 221 bye";
    for policy in [testing(), TlsPolicy::Unnamed("a.example".into())] {
        let (port, server) = serve(&[clear], &authority.server("mx.example", false)).await;
        assert_eq!(shown(&connector(), &provider, port, policy).await, Ok(None));
        server.done().await;
    }
    let verified = Provider { tls: TlsMode::Verified, ..trusting(&authority) };
    let (port, server) = serve(&[&(HELLO.to_owned() + AGAIN)], &authority.server("mx.example", false)).await;
    assert_eq!(shown(&connector(), &verified, port, testing()).await, Ok(Some(Proof::Verified)));
    server.done().await;

    let newest =
        Provider { tls: TlsMode::Required, tls_min: mailweir::config::TlsMin::V13, ..with_tls(TlsMode::Required) };
    let (port, _server) = serve(&[HELLO], &only_tls12(&authority)).await;
    let told = shown(&connector(), &newest, port, TlsPolicy::None).await.expect_err("TLS 1.2");
    assert!(told.contains("no version or cipher suite in common"), "{told}");
}

fn only_tls12(authority: &Authority) -> Arc<ServerConfig> {
    let (certificate, key) = authority.files("mx.example");
    let read = |file| std::fs::read(file).expect("a file");
    let certificate = tokio_rustls::rustls::pki_types::pem::PemObject::from_pem_slice(&read(certificate));
    let key = tokio_rustls::rustls::pki_types::pem::PemObject::from_pem_slice(&read(key));
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&tokio_rustls::rustls::version::TLS12])
        .expect("a version")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.expect("a certificate")], key.expect("a key"));
    Arc::new(config.expect("a configuration"))
}

fn roots(authority: &Authority) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let trusted: Authorities = authority.trusted();
    for certificate in trusted.certificates() {
        roots.add(certificate.clone()).expect("a root");
    }
    roots
}

fn answer(status: &str, kind: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nLocation: /x\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn a_policy_is_fetched_over_https_with_all_its_checks() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let host = "mta-sts.a.example";
    let fetch = async |tls: &Arc<ServerConfig>, answer: &str| {
        let endpoint = Endpoint::start(tls, &[answer.to_owned()]).await;
        let https = Https::trusting(roots(&authority), endpoint.port).expect("a client");
        let at = PolicyHost { addresses: vec!["127.0.0.1".parse().expect("an address")], trusted: None };
        let fetched = https.fetch(host, at).await;
        (fetched, endpoint.heard())
    };
    let good = authority.server(host, false);
    let (text, heard) = fetch(&good, &answer("200 OK", "text/plain", "version: STSv1\n")).await;
    assert_eq!(text.as_deref(), Ok("version: STSv1\n"));
    let expected = format!("GET /.well-known/mta-sts.txt HTTP/1.1\r\nhost: {host}\r\n");
    assert!(heard[0].starts_with(&expected), "{heard:?}");
    assert_eq!(heard.len(), 1);

    let long = "x".repeat(70_000);
    for (says, why) in [
        (answer("301 Moved", "text/plain", ""), "a redirect is not followed"),
        (answer("404 Not Found", "text/plain", "version: STSv1"), "answers 404, expected 200"),
        (answer("200 OK", "text/html", "version: STSv1"), "expected text/plain"),
        (answer("200 OK", "text/plain", &long), "answers with more than 65536 bytes"),
        (
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 9\r\n\r\nvers".to_owned(),
            "breaks off its answer",
        ),
        ("220 smtp.example ESMTP\r\n".to_owned(), "answers no HTTP"),
    ] {
        let (fetched, heard) = fetch(&good, &says).await;
        let told = fetched.expect_err(why);
        assert!(told.text.starts_with(host) && told.text.contains(why), "{told}");
        assert_eq!(heard.len(), 1, "{why}");
    }
    for (tls, why) in [
        (authority.server("a.example", false), "the certificate is not for mta-sts.a.example"),
        (authority.server(host, true), "the certificate has expired"),
        (stranger.server(host, false), "the certificate is not signed by the authority that it names"),
    ] {
        let (fetched, heard) = fetch(&tls, &answer("200 OK", "text/plain", "version: STSv1\n")).await;
        let told = fetched.expect_err(why);
        assert!(told.text.contains(why), "{told}");
        assert!(heard.is_empty(), "nothing is asked of a stranger");
    }
}

/// The certificate of the authority behind that of the host, as servers for DANE-TA show it.
fn with_authority(authority: &Authority, name: &str, expired: bool) -> (Arc<ServerConfig>, [Vec<u8>; 2]) {
    let mut params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
    if expired {
        params.not_after = date_time_ymd(2020, 1, 1);
    }
    let own = authority.certified(params);
    let of_authority = authority.trusted().certificates()[0].clone();
    let leaf = own.cert[0].clone();
    let both = CertifiedKey::new(vec![leaf.clone(), of_authority.clone()], own.key.clone());
    let config = ServerConfig::builder_with_provider(Arc::new(crypto::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(both)));
    (Arc::new(config), [leaf.to_vec(), of_authority.to_vec()])
}

fn record(usage: Usage, part: Part, form: Form, certificate: &[u8]) -> Tlsa {
    let bytes = match part {
        Part::Certificate => certificate.to_vec(),
        Part::Key => {
            use x509_parser::prelude::FromDer as _;
            let (_, parsed) = x509_parser::prelude::X509Certificate::from_der(certificate).expect("a certificate");
            parsed.tbs_certificate.subject_pki.raw.to_vec()
        }
    };
    let data = match form {
        Form::Full => bytes,
        Form::Sha256 => digest::digest(&digest::SHA256, &bytes).as_ref().to_vec(),
        Form::Sha512 => digest::digest(&digest::SHA512, &bytes).as_ref().to_vec(),
    };
    Tlsa { usage, part, form, data: data.into() }
}

fn dane(names: &[&str], records: Vec<Tlsa>) -> TlsPolicy {
    TlsPolicy::Dane(Arc::new(Dane {
        names: names.iter().map(|name| Arc::from(*name)).collect(),
        records: records.into(),
    }))
}

#[tokio::test]
async fn a_certificate_has_to_match_a_tlsa_record() {
    use Form::{Full, Sha256, Sha512};
    use Part::{Certificate, Key};
    let (authority, stranger) = (Authority::new(), Authority::new());
    let good = HELLO.to_owned() + AGAIN;
    let names = ["mx.example", "a.example"];
    let (tls, [leaf, of_authority]) = with_authority(&authority, "mx.example", false);
    let (_, [other, of_other]) = with_authority(&stranger, "mx.example", false);
    let host = |part, form| record(Usage::Host, part, form, &leaf);
    let ta = |part, form| record(Usage::Authority, part, form, &of_authority);
    for records in [
        vec![host(Certificate, Full)],
        vec![host(Certificate, Sha256)],
        vec![host(Certificate, Sha512)],
        vec![host(Key, Full)],
        vec![host(Key, Sha256)],
        vec![host(Key, Sha512)],
        vec![ta(Certificate, Full)],
        vec![ta(Certificate, Sha256)],
        vec![ta(Key, Sha512)],
        vec![record(Usage::Host, Key, Sha256, &other), host(Key, Sha256)],
        vec![record(Usage::Host, Key, Sha256, &other), ta(Key, Sha256)],
    ] {
        let (port, server) = serve(&[&good], &tls).await;
        let told = shown(&connector(), &provider(), port, dane(&names, records.clone())).await;
        assert_eq!(told, Ok(Some(Proof::Dane)), "{records:?}");
        server.done().await;
    }
    let no_match = "its certificate matches none of them";
    let demanded = "; the TLSA records of mx.example (DANE) demand a certificate that one of them matches";
    for (records, why) in [
        (vec![record(Usage::Host, Key, Sha256, &other)], no_match),
        (vec![record(Usage::Authority, Key, Sha256, &of_other)], no_match),
        // A host's key is no authority, and the other way round.
        (vec![record(Usage::Authority, Key, Sha256, &leaf)], no_match),
        (vec![record(Usage::Host, Key, Sha256, &of_authority)], no_match),
        (
            vec![record(Usage::Authority, Certificate, Full, &of_other)],
            "the certificate is not signed by the authority that it names",
        ),
    ] {
        let (port, _server) = serve(&[HELLO], &tls).await;
        let told = shown(&connector(), &provider(), port, dane(&names, records)).await.expect_err(why);
        assert_eq!(told, format!("STARTTLS: TLS: {why}{demanded}"));
    }
}

/// Names and times count where an authority vouches, and not where the key itself is published (RFC 7671 §5.1).
#[tokio::test]
async fn names_and_times_count_for_authorities_only() {
    use Form::Sha256;
    use Part::Key;
    let authority = Authority::new();
    let good = HELLO.to_owned() + AGAIN;
    for (name, expired, by_authority) in [
        ("mx.example", true, Err("the certificate has expired")),
        ("other.example", false, Err("the certificate is not for")),
        ("a.example", false, Ok(())),
    ] {
        let (tls, [leaf, of_authority]) = with_authority(&authority, name, expired);
        let names = ["mx.example", "a.example"];
        let (port, server) = serve(&[&good], &tls).await;
        let by_key = dane(&names, vec![record(Usage::Host, Key, Sha256, &leaf)]);
        assert_eq!(shown(&connector(), &provider(), port, by_key).await, Ok(Some(Proof::Dane)), "{name}");
        server.done().await;
        let (port, _server) = serve(&[&good], &tls).await;
        let by = dane(&names, vec![record(Usage::Authority, Key, Sha256, &of_authority)]);
        match (shown(&connector(), &provider(), port, by).await, by_authority) {
            (Ok(proof), Ok(())) => assert_eq!(proof, Some(Proof::Dane)),
            (Err(told), Err(why)) => assert!(told.contains(why), "{name}: {told}"),
            (told, expected) => panic!("{name}: {told:?}, expected {expected:?}"),
        }
    }
}

#[tokio::test]
async fn dane_is_never_clear_text_and_a_session_of_other_records_is_not_good_for_it() {
    let authority = Authority::new();
    let (tls, [leaf, of_authority]) = with_authority(&authority, "mx.example", false);
    let by_key = || dane(&["mx.example"], vec![record(Usage::Host, Part::Key, Form::Sha256, &leaf)]);
    let unusable = || TlsPolicy::DaneUnusable("mx.example".into());
    let clear = "hello PIPELINING\nC: QUIT\nS: 221 bye";
    for (policy, whose) in [
        (by_key(), "the TLSA records of mx.example (DANE) demand a certificate that one of them matches"),
        (unusable(), "the TLSA records of mx.example (DANE) demand TLS"),
    ] {
        for (script, why) in [
            (clear, "the server does not offer STARTTLS"),
            ("hello STARTTLS\nC: STARTTLS\nS: 454 no\nC: QUIT\nS: 221 bye", "STARTTLS is refused: 454 no"),
            ("hello STARTTLS\nC: STARTTLS\nS: 220 go\nclose", "the server closed the connection"),
        ] {
            let (port, server) = serve(&[script, clear], &tls).await;
            let connector = connector();
            let told = shown(&connector, &provider(), port, policy.clone()).await.expect_err(why);
            assert_eq!(told, format!("STARTTLS: TLS: {why}; {whose}"));
            assert_eq!(shown(&connector, &provider(), port, TlsPolicy::None).await, Ok(None));
            server.done().await;
        }
    }
    let good = HELLO.to_owned() + AGAIN;
    let (port, server) = serve(&[&good], &tls).await;
    assert_eq!(shown(&connector(), &provider(), port, unusable()).await, Ok(Some(Proof::Encrypted)));
    server.done().await;

    let (port, _server) = serve(&[&good], &tls).await;
    let opened = connector().open(&provider(), &route(port, with_policy(by_key()))).await;
    let connection = opened.unwrap_or_else(|facts| panic!("{facts:?}"));
    let others = dane(&["mx.example"], vec![record(Usage::Authority, Part::Key, Form::Sha256, &of_authority)]);
    let meets = [by_key(), unusable(), TlsPolicy::None, others, enforced()].map(|p| connection.meets(&provider(), &p));
    assert_eq!(meets, [true, true, true, false, false]);
    connection.quit().await;

    // What the configuration demands holds too: nobody trusts this authority.
    let verified = with_tls(TlsMode::Verified);
    let (port, _server) = serve(&[HELLO], &tls).await;
    let told = shown(&connector(), &verified, port, by_key()).await.expect_err("not trusted");
    assert!(told.contains("the certificate is not from a trusted authority"), "{told}");
    let verified = Provider { tls_ca: Some(authority.trusted()), ..verified };
    let (port, server) = serve(&[&good], &tls).await;
    assert_eq!(shown(&connector(), &verified, port, by_key()).await, Ok(Some(Proof::Dane)));
    server.done().await;
}
