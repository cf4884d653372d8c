//! REQUIRETLS (RFC 8689) at hosts: what they have to be, what is said to them, and what a host that is not good enough means.

use mailweir::config::{Provider, TlsMode};
use mailweir::deliver::{Connector, Event, Proof};
use mailweir::mail::{Features, TlsWish};
use mailweir::route::{Host, TlsPolicy};

use crate::common::*;
use crate::connecting::{connector, host, route};
use crate::encryption::{AGAIN, Authority, HELLO, serve, with_tls};

fn required() -> TlsPolicy {
    TlsPolicy::Required(Box::new(TlsPolicy::None))
}

fn hosts(policy: TlsPolicy) -> Vec<Host> {
    vec![Host { policy, ..host("mx.example", 10, &["127.0.0.1"]) }]
}

fn trusting(authority: &Authority, mode: TlsMode) -> Provider {
    Provider { tls_ca: Some(authority.trusted()), ..with_tls(mode) }
}

fn private() -> Mail {
    let mut mail = hello();
    mail.message.envelope.tls = TlsWish::Required;
    mail
}

/// Why there is no session: enhanced codes of what is for good, and the text.
async fn refused(connector: &Connector, provider: &Provider, port: u16) -> (Option<&'static str>, String) {
    let Err(facts) = connector.open(provider, &route(port, hosts(required()))).await else { panic!("a session") };
    let [fact] = &facts[..] else { panic!("{facts:?}") };
    match &fact.event {
        Event::Unsendable { enhanced, text } => (Some(enhanced), text.clone()),
        event => (None, event.to_string()),
    }
}

const KEEPS: &str = "C: EHLO relay.example\nS: 250-mx\nS: 250-REQUIRETLS\nS: 250 SIZE\n";
const WHOSE: &str = "; the sender demands REQUIRETLS (RFC 8689)";

#[tokio::test]
async fn a_host_that_keeps_it_is_told_so_whatever_tls_says() {
    let authority = Authority::new();
    let tls = authority.server("mx.example", false);
    for mode in [TlsMode::Opportunistic, TlsMode::Required, TlsMode::Verified] {
        let script = format!(
            "{HELLO}{KEEPS}C: MAIL FROM:<from@example.org> SIZE=26 REQUIRETLS\nS: 250 ok\nC: RCPT TO:<a@x.example>\nS: 250 ok\n\
             C: DATA\nS: 354 go\ndata\nS: 250 2.0.0 taken\nC: QUIT\nS: 221 bye"
        );
        let (port, server) = serve(&[&script], &tls).await;
        let opened = connector().open(&trusting(&authority, mode), &route(port, hosts(required()))).await;
        let mut connection = opened.unwrap_or_else(|facts| panic!("{facts:?}"));
        assert_eq!(connection.peer().tls.map(|tls| tls.proof), Some(Proof::Verified));
        let report = private().send(&mut connection, &["a@x.example"]).await;
        assert_eq!(fates(&report), ["end of data: 250 2.0.0 taken"]);
        connection.quit().await;
        server.done().await;
    }
}

/// A host that refuses its parameters hears MAIL again with that one alone, never without.
#[tokio::test]
async fn the_parameter_is_never_left_out() {
    let authority = Authority::new();
    let hello = "C: EHLO relay.example\nS: 250-mx\nS: 250-REQUIRETLS\nS: 250-8BITMIME\nS: 250 SIZE\n";
    // The EHLO behind the second refusal shows that it is the one to what was asked.
    let script = format!(
        "{HELLO}{hello}C: MAIL FROM:<from@example.org> SIZE=26 REQUIRETLS\nS: 555 5.5.4 what\n\
         C: MAIL FROM:<from@example.org> REQUIRETLS\nS: 555 5.5.4 what\n{hello}C: QUIT\nS: 221 bye"
    );
    let (port, server) = serve(&[&script], &authority.server("mx.example", false)).await;
    let opened = connector().open(&trusting(&authority, TlsMode::Verified), &route(port, hosts(required()))).await;
    let mut connection = opened.unwrap_or_else(|facts| panic!("{facts:?}"));
    let first = private().send(&mut connection, &["a@x.example"]).await;
    assert!(matches!(first.facts[0].event, Event::Extension { .. }), "{:?}", first.facts);
    let second = private().send(&mut connection, &["a@x.example"]).await;
    assert_eq!(fates(&second), ["MAIL: 555 5.5.4 what"]);
    connection.quit().await;
    server.done().await;
}

#[tokio::test]
async fn a_host_without_it_or_without_a_good_certificate_is_refused_for_good() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let provider = trusting(&authority, TlsMode::Opportunistic);
    let good = authority.server("mx.example", false);
    let bye = "C: QUIT\nS: 221 bye";
    let without = HELLO.to_owned() + AGAIN;
    for (script, tls, code, why) in [
        (
            &*without,
            good.clone(),
            "5.7.30",
            "the sender demands REQUIRETLS (RFC 8689), which mx.example does not offer".to_owned(),
        ),
        (
            &format!("hello REQUIRETLS\n{bye}"),
            good.clone(),
            "5.7.10",
            format!("the server does not offer STARTTLS{WHOSE}"),
        ),
        (
            &format!("hello STARTTLS|REQUIRETLS\nC: STARTTLS\nS: 502 what\n{bye}"),
            good.clone(),
            "5.7.10",
            format!("STARTTLS is refused: 502 what{WHOSE}"),
        ),
        (HELLO, authority.server("mx.example", true), "5.7.10", format!("the certificate has expired{WHOSE}")),
        (
            HELLO,
            authority.server("other.example", false),
            "5.7.10",
            format!("the certificate is not for mx.example: it has other.example{WHOSE}"),
        ),
        (
            HELLO,
            stranger.server("mx.example", false),
            "5.7.10",
            format!("the certificate is not signed by the authority that it names{WHOSE}"),
        ),
    ] {
        let (port, _server) = serve(&[script], &tls).await;
        let connector = connector();
        assert_eq!(refused(&connector, &provider, port).await, (Some(code), why));
        // It is left alone for that by nobody.
        for policy in [TlsPolicy::None, required()] {
            let keys = Features::from("").keys();
            assert_eq!(connector.next_try(&provider, &route(port, hosts(policy)), keys), None);
        }
    }
}

/// Nor is a failure that may be over soon a reason to go on in clear text.
#[tokio::test]
async fn what_may_be_over_soon_is_for_now() {
    let authority = Authority::new();
    let provider = trusting(&authority, TlsMode::Opportunistic);
    for (script, why) in [
        (
            "hello STARTTLS\nC: STARTTLS\nS: 454 4.7.0 later\nC: QUIT\nS: 221 bye",
            "STARTTLS is refused: 454 4.7.0 later",
        ),
        ("hello STARTTLS\nC: STARTTLS\nS: 220 go\nclose", "the server closed the connection"),
    ] {
        let (port, _server) = serve(&[script], &authority.server("mx.example", false)).await;
        let (code, told) = refused(&connector(), &provider, port).await;
        assert_eq!((code, told), (None, format!("TLS: {why}{WHOSE}")));
    }
}

/// A session that nobody asked to keep it is not good for such mail, even on a host that offers it; the other way round it is.
#[tokio::test]
async fn a_session_carries_what_it_was_opened_for() {
    let authority = Authority::new();
    let provider = trusting(&authority, TlsMode::Verified);
    let script = format!("{HELLO}{KEEPS}C: QUIT\nS: 221 bye");
    let enforced = || TlsPolicy::MtaSts("a.example".into());
    for (opened, keeps) in [(TlsPolicy::None, false), (enforced(), false), (required(), true)] {
        let (port, _server) = serve(&[&script], &authority.server("mx.example", false)).await;
        let session = connector().open(&provider, &route(port, hosts(opened))).await;
        let mut session = session.unwrap_or_else(|facts| panic!("{facts:?}"));
        assert_eq!(session.meets(&provider, &required()), keeps);
        assert!(session.meets(&provider, &TlsPolicy::None) && session.meets(&provider, &enforced()));
        if !keeps {
            // However it came there: nothing of it is said, and it has another connection.
            let report = private().send(&mut session, &["a@x.example"]).await;
            assert_eq!(fates(&report), ["idle: not tried: REQUIRETLS has another connection"]);
        }
        assert_eq!(session.is_usable(), keeps);
        session.quit().await;
    }
    let (plain, private) = (route(25, hosts(TlsPolicy::None)), route(25, hosts(required())));
    assert!(!plain.has_the_hosts_of(&private) && !private.has_the_hosts_of(&plain));
}
