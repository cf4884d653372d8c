//! A host that says no before MAIL, at whichever stage, has one connection, and not one for each message that
//! waits; then it is asked by one, and all go on when it is back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use mailweir::config::{Provider, Relay, TlsMode};
use mailweir::deliver::{Connector, Event, Freely, Stage};
use mailweir::route::Route;
use tokio::net::TcpListener;

use crate::common::*;
use crate::connecting::{connector, host, route};
use crate::server::play;

/// A server that plays the first script to so many clients, and the second one to all others; how many came.
async fn serve(address: &str, bad: &str, times: usize, good: &str) -> (Route, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((address, 0)).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let seen = Arc::new(AtomicUsize::new(0));
    let (bad, good, counted) = (bad.to_owned(), good.to_owned(), seen.clone());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let script = if counted.fetch_add(1, SeqCst) < times { bad.clone() } else { good.clone() };
            tokio::spawn(async move { play(stream, &script, None).await });
        }
    });
    (route(port, vec![host("a.example", 10, &[address])]), seen)
}

/// The facts of this many messages that want a connection, one after the other.
async fn ask(connector: &Connector, provider: &Provider, route: &Route, messages: usize) -> Vec<(Stage, Event)> {
    let mut facts = Vec::new();
    for _ in 0..messages {
        let failed = connector.open_for(provider, route, "".into(), &Freely).await.err().expect("nobody gets in");
        facts.extend(failed.into_iter().map(|fact| (fact.stage, fact.event)));
    }
    facts
}

fn smart_host() -> Provider {
    Provider { relay: Some(Relay::new("a.example", 25, false, Some(credentials("pass")))), ..provider() }
}

fn required() -> Provider {
    Provider { tls: TlsMode::Required, ..provider() }
}

/// What each of these says, and where it fails.
fn stages() -> Vec<(&'static str, Provider, Stage)> {
    vec![
        ("S: 421 4.3.2 later\nclose", provider(), Stage::Greeting),
        ("S: 220 x\nC: EHLO*\nS: 421 4.3.2 later\nclose", provider(), Stage::Ehlo),
        ("S: 220 x\nC: EHLO*\nS: 451 4.3.2 later\nC: QUIT", provider(), Stage::Ehlo),
        ("hello STARTTLS\nC: STARTTLS\nS: 454 4.7.0 no TLS for now\nC: QUIT", required(), Stage::StartTls),
        ("hello STARTTLS\nC: STARTTLS\nraw: 220 go\\r\\n250 more\\r\\n\neof", required(), Stage::StartTls),
        (
            "hello STARTTLS\nC: STARTTLS\nS: 220 go\ntake 10\nraw: no TLS at all\\r\\n\nclose",
            required(),
            Stage::StartTls,
        ),
        ("hello\nC: QUIT", required(), Stage::StartTls),
        ("hello AUTH PLAIN\nC: AUTH PLAIN *\nS: 454 4.7.0 too many logins\nC: QUIT", smart_host(), Stage::Auth),
        ("hello AUTH PLAIN\nC: AUTH PLAIN *\nS: 432 4.7.12 later\nC: QUIT", smart_host(), Stage::Auth),
        ("hello AUTH PLAIN\nC: AUTH PLAIN *\nS: 421 4.7.0 later\nclose", smart_host(), Stage::Auth),
        ("hello AUTH PLAIN\nC: AUTH PLAIN *\nclose", smart_host(), Stage::Auth),
        ("hello AUTH PLAIN\nC: AUTH PLAIN *\nS: nonsense\nclose", smart_host(), Stage::Auth),
    ]
}

#[tokio::test]
async fn whoever_says_no_before_mail_has_one_connection_and_not_one_for_each_message() {
    for (script, provider, stage) in stages() {
        let (route, seen) = serve("127.0.0.1", script, usize::MAX, "").await;
        let connector = connector();
        let facts = ask(&connector, &provider, &route, 30).await;
        assert_eq!((facts.len(), facts[0].0), (30, stage), "{script}: {:?}", facts[0]);
        let left_alone = |(_, event): &(Stage, Event)| matches!(event, Event::BackOff { why, .. } if why.starts_with(&format!("{stage}: ")));
        assert!(!left_alone(&facts[0]) && facts[1..].iter().all(left_alone), "{script}: {facts:?}");
        assert_eq!(seen.load(SeqCst), 1, "{script}");
        let next =
            connector.next_try(&provider, &route, mailweir::mail::Features::from("").keys()).expect("it is left alone");
        assert_eq!((next.host.as_str(), next.stage), ("a.example", stage), "{script}");
    }
}

#[tokio::test]
async fn one_asks_again_and_whoever_is_taken_opens_the_door_for_all() {
    let taken = "C: MAIL*\nS: 250 ok\nC: RCPT*\nS: 250 ok\nC: DATA\nS: 354 go\ndata\nS: 250 ok\neof";
    let good = format!("hello AUTH PLAIN\nC: AUTH PLAIN *\nS: 235 ok\n{taken}");
    let bad = "hello AUTH PLAIN\nC: AUTH PLAIN *\nS: 454 4.7.0 too many logins\nC: QUIT";
    let (route, seen) = serve("127.0.0.1", bad, 2, &good).await;
    let (connector, mut provider) = (connector(), smart_host());
    provider.retry.max = std::time::Duration::from_millis(50);
    // Twice in vain, then it is back: nobody else has a connection meanwhile.
    let mut connection = loop {
        match connector.open(&provider, &route).await {
            Ok(connection) => break connection,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert_eq!(seen.load(SeqCst), 3);
    assert_eq!(fates(&hello().send(&mut connection, &["a@x.example"]).await), ["end of data: 250 ok"]);
    assert!(connector.next_try(&provider, &route, mailweir::mail::Features::from("").keys()).is_none());
    connector.open(&provider, &route).await.expect("others at once").quit().await;
    assert_eq!(seen.load(SeqCst), 4);
}

/// The lane stops for that, and asks at its own pace (see `outcome`); the address is not to blame.
#[tokio::test]
async fn a_password_that_is_refused_for_good_is_not_a_host_that_is_left_alone() {
    let bad = "hello AUTH PLAIN\nC: AUTH PLAIN *\nS: 535 5.7.8 wrong password\nC: QUIT";
    let (route, seen) = serve("127.0.0.1", bad, usize::MAX, "").await;
    let connector = connector();
    let facts = ask(&connector, &smart_host(), &route, 2).await;
    assert!(facts.iter().all(|(stage, event)| *stage == Stage::Auth && matches!(event, Event::Reply(_))), "{facts:?}");
    assert!(connector.next_try(&smart_host(), &route, mailweir::mail::Features::from("").keys()).is_none());
    assert_eq!(seen.load(SeqCst), 2);
}
