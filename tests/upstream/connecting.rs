//! Which host and address of a route, on real sockets.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use async_trait::async_trait;
use mailweir::config::{Provider, Source};
use mailweir::deliver::connect::Dialer;
use mailweir::deliver::{Admit, Connection, Connector, Event, Fact, Freely, Io, Stage};
use mailweir::descriptors::Slot;
use mailweir::mail::{Features, LaneName};
use mailweir::outcome::{Fate, judge, judge_unreached};
use mailweir::route::{Host, Route, TlsPolicy};
use tokio::net::TcpListener;

use crate::common::*;
use crate::server::play;

/// What becomes of a message that no host has taken, and not for good.
const LATER: Fate = Fate::Again { counts: true, uncertain: false };

pub fn connector() -> Connector {
    Connector::new("relay.example").expect("a name for EHLO")
}

pub fn host(name: &str, preference: u16, addresses: &[&str]) -> Host {
    let addresses: Vec<IpAddr> = addresses.iter().map(|a| a.parse().expect("an IP address")).collect();
    Host { name: name.into(), preference, addresses, policy: TlsPolicy::None }
}

pub fn route(port: u16, hosts: Vec<Host>) -> Route {
    Route {
        lane: LaneName::provider("test"),
        provider: Arc::new(provider()),
        destination: "x.example".into(),
        hosts: hosts.into(),
        port,
        facts: None,
    }
}

/// A server on each of these addresses of loopback, all on one port; each plays its script once.
async fn servers(scripts: &[(&str, &str)]) -> (u16, Vec<Server>) {
    let mut port = 0;
    let mut servers = Vec::new();
    for (ip, script) in scripts {
        let listener = TcpListener::bind((*ip, port)).await.expect("a port");
        port = listener.local_addr().expect("an address").port();
        let script = script.to_string();
        servers.push(Server::accept(listener, script, None));
    }
    (port, servers)
}

/// Whose mail `hello()` is: only his waits after an end at MAIL.
const SENDER: &str = "from@example.org";

fn failed(result: Result<Connection, Vec<Fact>>) -> Vec<String> {
    match result {
        Ok(connection) => panic!("connected to {}", connection.host()),
        Err(facts) => facts.iter().map(ToString::to_string).collect(),
    }
}

#[tokio::test]
async fn a_refused_connection_or_a_554_greeting_goes_to_the_next_mx() {
    let (port, servers) =
        servers(&[("127.0.0.12", "S: 554 no\nC: QUIT"), ("127.0.0.13", "hello\nC: QUIT\nS: 221 bye")]).await;
    let route = route(
        port,
        vec![
            host("third.example", 30, &["127.0.0.13"]),
            host("first.example", 10, &["127.0.0.11"]),
            host("second.example", 20, &["127.0.0.12"]),
        ],
    );
    let connection = connector().open(&provider(), &route).await.expect("the third takes it");
    assert_eq!(connection.host(), "third.example");
    assert_eq!(connection.peer().ip, Some("127.0.0.13".parse().expect("an IP address")));
    connection.quit().await;
    for server in servers {
        server.done().await;
    }
}

#[tokio::test]
async fn when_every_host_fails_there_is_a_fact_for_each() {
    let (port, _servers) = servers(&[("127.0.0.22", "S: 554 5.7.1 no"), ("127.0.0.23", "close")]).await;
    let route = route(
        port,
        vec![
            host("a.example", 10, &["127.0.0.21"]),
            host("b.example", 20, &["127.0.0.22"]),
            host("c.example", 30, &["127.0.0.23"]),
        ],
    );
    assert_eq!(
        failed(connector().open(&provider(), &route).await),
        [
            "a.example[127.0.0.21] connect: connection refused",
            "b.example[127.0.0.22] greeting: 554 5.7.1 no",
            "c.example[127.0.0.23] greeting: the server closed the connection",
        ]
    );
    let nowhere = crate::connecting::route(port, vec![host("a.example", 10, &[])]);
    assert_eq!(failed(connector().open(&provider(), &nowhere).await).len(), 1);
}

#[tokio::test]
async fn a_dead_address_is_remembered_and_tried_last() {
    let (port, _servers) = servers(&[("127.0.0.32", "S: 554 one"), ("127.0.0.33", "S: 554 two")]).await;
    let connector = connector();
    let all = route(port, vec![host("a.example", 10, &["127.0.0.31", "127.0.0.32"])]);
    assert_eq!(
        failed(connector.open(&provider(), &all).await),
        ["a.example[127.0.0.31] connect: connection refused", "a.example[127.0.0.32] greeting: 554 one"]
    );
    let all = route(port, vec![host("a.example", 10, &["127.0.0.31", "127.0.0.33"])]);
    assert_eq!(
        failed(connector.open(&provider(), &all).await),
        ["a.example[127.0.0.33] greeting: 554 two", "a.example[127.0.0.31] connect: connection refused"]
    );
}

/// Nobody hammers a dead host: the first hears what is wrong, the others that it is not their turn,
/// and only one asks again when the time has come.
#[tokio::test]
async fn a_route_with_nothing_but_dead_addresses_is_probed_by_one() {
    let (port, _servers) = servers(&[("127.0.0.35", "S: 554 one")]).await;
    let connector = connector();
    let mut provider = provider();
    provider.retry.first = std::time::Duration::from_millis(300);
    let dead = route(port, vec![host("a.example", 10, &["127.0.0.34"])]);
    let refused = "a.example[127.0.0.34] connect: connection refused";
    assert_eq!(failed(connector.open(&provider, &dead).await), [refused]);
    let wait = failed(connector.open(&provider, &dead).await);
    assert_eq!(
        wait,
        ["a.example[127.0.0.34] connect: not tried: the host does not answer or hangs up; last: connection refused"]
    );
    // Another MX goes on.
    let two = route(port, vec![host("a.example", 10, &["127.0.0.34"]), host("b.example", 20, &["127.0.0.35"])]);
    assert_eq!(failed(connector.open(&provider, &two).await)[0], "b.example[127.0.0.35] greeting: 554 one");
    connector.forget_dead();
    assert_eq!(failed(connector.open(&provider, &dead).await), [refused]);
    let end = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while failed(connector.open(&provider, &dead).await) != [refused] {
        assert!(tokio::time::Instant::now() < end, "nobody asks again");
        tokio::task::yield_now().await;
    }
    assert_ne!(failed(connector.open(&provider, &dead).await), [refused], "the next wait has begun");
}

#[tokio::test]
async fn broken_ipv6_costs_only_its_head_start() {
    // 2001:db8::/32 leads nowhere: either there is no IPv6 at all, or packets vanish.
    let (port, servers) = servers(&[("127.0.0.41", "hello\nC: QUIT\nS: 221 bye")]).await;
    let all = route(port, vec![host("a.example", 10, &["2001:db8::1", "127.0.0.41"])]);
    let connection = connector().open(&provider(), &all).await.expect("over IPv4");
    assert_eq!(connection.peer().ip, Some("127.0.0.41".parse().expect("an IP address")));
    connection.quit().await;
    for server in servers {
        server.done().await;
    }
}

#[tokio::test]
async fn the_number_of_tries_is_bounded() {
    let hosts: Vec<Host> = (100..160).map(|i| host("a.example", i, &[&format!("127.0.0.{i}")])).collect();
    let (port, _servers) = servers(&[("127.0.0.51", "close")]).await;
    let facts = failed(connector().open(&provider(), &route(port, hosts)).await);
    let most = mailweir::deliver::connect::MAX_ADDRESSES;
    assert_eq!(facts.len(), most + 1);
    assert_eq!(facts[most], "a.example connect: not tried: enough others were tried before");
}

fn source(ip: &str) -> Source {
    Source::new(ip.parse().expect("an IP address"))
}

#[tokio::test]
async fn a_source_that_cannot_be_bound_gives_way_to_the_next_with_its_own_name() {
    let script = "S: 220 hi\nC: EHLO out2.example\nS: 250 hi\nC: QUIT\nS: 221 bye";
    let (port, servers) = servers(&[("127.0.0.91", script)]).await;
    // 192.0.2.1 is an address for documentation: this machine does not have it.
    let p = Provider {
        source: vec![
            Source { weight: 1000, ..source("192.0.2.1") },
            Source { name: Some("out2.example".into()), ..source("127.0.0.92") },
        ],
        ..provider()
    };
    let (connector, route) = (connector(), route(port, vec![host("a.example", 10, &["127.0.0.91"])]));
    let connection = connector.open_for(&p, &route, "a.example".into(), &Freely).await.expect("from the second");
    assert_eq!(connection.source(), Some(p.source[1].address));
    assert!(connector.is_from_source_of(&connection, &p, &route.lane, "a.example"), "the first one rests");
    connection.quit().await;
    for server in servers {
        server.done().await;
    }
}

#[tokio::test]
async fn connections_that_keep_failing_move_to_the_next_source_but_a_refusal_does_not() {
    let listener = TcpListener::bind("127.0.0.95:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let p = Provider { source: ["127.0.0.96", "127.0.0.97"].map(source).into(), ..provider() };
    let seen = tokio::spawn(async move {
        let mut seen = Vec::new();
        for n in 0..9 {
            let (mut stream, peer) = listener.accept().await.expect("a client");
            seen.push(peer.ip());
            if n < 5 {
                // The first five hear a refusal, the others nothing at all.
                use tokio::io::AsyncWriteExt;
                stream.write_all(b"554 go away\r\n").await.expect("a client that reads");
            }
        }
        seen
    });
    let (connector, route) = (connector(), route(port, vec![host("a.example", 10, &["127.0.0.95"])]));
    for _ in 0..9 {
        assert!(connector.open_for(&p, &route, "a.example".into(), &Freely).await.is_err());
        // Who turns us away is left alone for a while, which says nothing of the source.
        assert!(connector.open_for(&p, &route, "a.example".into(), &Freely).await.is_err());
        connector.forget_dead();
    }
    let seen = seen.await.expect("the server");
    assert!(seen[..8].iter().all(|ip| *ip == seen[0]), "{seen:?}");
    assert_ne!(seen[8], seen[0]);
}

#[tokio::test]
async fn the_source_address_is_of_the_family_of_the_host() {
    let listener = TcpListener::bind("127.0.0.61:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let seen = tokio::spawn(async move { listener.accept().await.expect("a client").1.ip() });
    let p = Provider { source: ["::1", "127.0.0.62"].map(source).into(), ..provider() };
    let route = route(port, vec![host("a.example", 10, &["127.0.0.61"])]);
    failed(connector().open(&p, &route).await);
    assert_eq!(seen.await.expect("a client").to_string(), "127.0.0.62");
}

#[tokio::test]
async fn a_transaction_can_be_made_from_any_task() {
    let script =
        "hello PIPELINING\nC: MAIL*\nC: RCPT*\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\ndata\nS: 250 ok\nC: QUIT";
    let (port, _servers) = servers(&[("127.0.0.71", script)]).await;
    let task = tokio::spawn(async move {
        let route = route(port, vec![host("a.example", 10, &["127.0.0.71"])]);
        let mut connection = connector().open(&provider(), &route).await.expect("a session");
        let report = hello().send(&mut connection, &["a@x.example"]).await;
        connection.quit().await;
        fates(&report)
    });
    assert_eq!(task.await.expect("no panic"), ["end of data: 250 ok"]);
}

#[tokio::test]
async fn pipelining_that_a_middlebox_breaks_goes_off_by_itself() {
    let listener = TcpListener::bind("127.0.0.81:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let garbled = "hello PIPELINING\nC: MAIL*\nC: RCPT*\nC: DATA\nS: XXXX XX\nclose";
    let serial = "hello PIPELINING\nC: MAIL*\nS: 250 ok\nC: RCPT*\nS: 250 ok\nC: DATA\nS: 354 go\ndata\nS: 250 ok\neof";
    let server = Server::accept_all(listener, &[garbled, serial], None);
    let route = route(port, vec![host("a.example", 10, &["127.0.0.81"])]);
    let connector = connector();
    for expected in ["idle: unintelligible server: a reply line without a code: \"XXXX XX\"", "end of data: 250 ok"] {
        let mut connection = connector.open(&provider(), &route).await.expect("a session");
        assert_eq!(fates(&hello().send(&mut connection, &["a@x.example"]).await), [expected]);
    }
    server.done().await;
}

/// It is not called for each message that waits, whatever it says; somebody asks again now and then.
#[tokio::test]
async fn a_host_that_turns_everybody_away_is_left_alone() {
    let hello = "S: 220 x\nC: EHLO relay.example\n";
    // What is refused at RCPT may be about that recipient.
    let of_hello = || Features::of(SENDER, ["a@x.example"], 0);
    for (n, script) in [
        "S: 421 4.7.0 too many connections from your IP\nclose".to_owned(),
        "S: 554 5.7.1 blocked\nclose".to_owned(),
        "close".to_owned(),
        format!("{hello}S: 421 4.3.2 later\nclose"),
        "hello\nC: MAIL*\nS: 250 ok\nC: RCPT*\nS: 421 4.7.0 slow down\nclose".to_owned(),
    ]
    .into_iter()
    .enumerate()
    {
        let address = format!("127.0.0.{}", 90 + n);
        let listener = TcpListener::bind((address.as_str(), 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        // Nobody would answer a second connection.
        let server = Server::accept_all(listener, &[&script], None);
        let route = route(port, vec![host("a.example", 10, &[&address])]);
        let connector = connector();
        match connector.open_for(&provider(), &route, of_hello(), &Freely).await {
            Ok(mut connection) => drop(hello_to(&mut connection).await),
            Err(facts) => assert!(facts.iter().all(|f| f.stage <= Stage::Ehlo), "{facts:?}"),
        }
        server.done().await;
        for _ in 0..20 {
            let facts =
                connector.open_for(&provider(), &route, of_hello(), &Freely).await.err().expect("it is left alone");
            assert!(matches!(facts[0].event, Event::BackOff { .. }), "{script}: {facts:?}");
        }
    }
}

async fn hello_to(connection: &mut Connection) -> Vec<String> {
    fates(&hello().send(connection, &["a@x.example"]).await)
}

/// What a host offers and does not take is remembered for its next connections.
#[tokio::test]
async fn bdat_and_parameters_that_a_host_refuses_go_off_by_themselves() {
    let hello = "hello PIPELINING|SIZE|CHUNKING\n";
    let sent = "C: MAIL FROM:<from@example.org> SIZE=26\nC: RCPT*\nC: DATA\nS: 250 ok\nS: 250 2.1.5 ok\nS: 354 go\ndata\nS: 250 queued\n";
    for (address, first, expected) in [
        ("127.0.0.85", "S: 421 no\nclose", "idle: 421 no"),
        ("127.0.0.86", "close", "idle: the server closed the connection"),
    ] {
        let listener = TcpListener::bind((address, 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let refusing = format!("{hello}{sent}bdat\nC: EHLO relay.example\n{first}");
        let data = format!("{hello}{sent}{sent}eof");
        let server = Server::accept_all(listener, &[&refusing, &data], None);
        let route = route(port, vec![host("a.example", 10, &[address])]);
        let connector = connector();
        for expected in [expected, "end of data: 250 queued"] {
            let mut connection = connector.open(&provider(), &route).await.expect("a session");
            assert_eq!(hello_to(&mut connection).await, ["end of data: 250 queued"]);
            assert_eq!(hello_to(&mut connection).await, [expected]);
            // Who closes is left alone for a moment.
            connector.forget_dead();
        }
        server.done().await;
    }
    let listener = TcpListener::bind("127.0.0.87:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let refusing = "hello SIZE\nC: MAIL FROM:<from@example.org> SIZE=26\nS: 555 no\neof";
    let plain = "hello SIZE\nC: MAIL FROM:<from@example.org>\nS: 250 ok\nC: RCPT*\nS: 250 ok\nC: DATA\nS: 354 go\ndata\nS: 250 ok\neof";
    let server = Server::accept_all(listener, &[refusing, plain, plain], None);
    let route = route(port, vec![host("a.example", 10, &["127.0.0.87"])]);
    let connector = connector();
    let told = "MAIL: the server offers parameters of MAIL and refuses it: 555 no";
    for expected in [told, "end of data: 250 ok", "end of data: 250 ok"] {
        let mut connection = connector.open(&provider(), &route).await.expect("a session");
        assert_eq!(hello_to(&mut connection).await, [expected]);
        drop(connection);
    }
    server.done().await;
}

#[test]
fn a_name_that_would_break_ehlo_is_refused() {
    for bad in ["", "a b", "a\r\nQUIT", &"x".repeat(256)] {
        assert!(Connector::new(bad).is_err(), "{bad:?}");
    }
}

/// Lets so many sockets connect.
pub struct Sockets(pub AtomicUsize);

#[async_trait]
impl Admit for Sockets {
    async fn admit(&self) -> Option<Slot> {
        let left = self.0.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
        left.is_ok().then(Slot::uncounted)
    }
}

/// A rate of connections counts sockets, not openings: further hosts and addresses are asked for.
#[tokio::test]
async fn invariant_3_no_socket_connects_that_was_not_asked_for() {
    let (port, servers) = servers(&[
        ("127.0.0.71", "S: 554 no"),
        ("127.0.0.72", "S: 554 no\nC: QUIT"),
        ("127.0.0.73", "hello\nC: QUIT\nS: 221 bye"),
    ])
    .await;
    let hosts = |first: &str| vec![host("one.example", 10, &[first]), host("two.example", 20, &["127.0.0.73"])];
    let one = Sockets(1.into());
    let refused = connector().open_for(&provider(), &route(port, hosts("127.0.0.71")), "".into(), &one).await;
    let Err(facts) = refused else { panic!("the second host was asked") };
    assert_eq!(judge_unreached(&facts, false, &mut judge).0.fate, LATER, "it may take the message");
    let expected =
        ["one.example[127.0.0.71] greeting: 554 no", "two.example connect: not tried: no more connections for now"];
    assert_eq!(facts.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
    let three = Sockets(3.into());
    let connection = connector().open_for(&provider(), &route(port, hosts("127.0.0.72")), "".into(), &three).await;
    connection.expect("the second takes it").quit().await;
    assert_eq!(three.0.into_inner(), 1, "one left over of three");
    for server in servers.into_iter().skip(1) {
        server.done().await;
    }
}

/// A host with many addresses that all refuse us does not keep the next one from being asked, and
/// where there are more hosts than are asked for one message, those left out have not refused it.
#[tokio::test]
async fn a_host_that_was_left_out_has_not_refused_the_message() {
    let addresses: Vec<String> = (81..=86).map(|n| format!("127.0.0.{n}")).collect();
    let mut scripts: Vec<(&str, &str)> = addresses.iter().map(|ip| (ip.as_str(), "S: 554 no")).collect();
    scripts.push(("127.0.0.87", "hello\nC: QUIT\nS: 221 bye"));
    let (port, _servers) = servers(&scripts).await;
    let all: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let two = vec![host("one.example", 10, &all), host("two.example", 20, &["127.0.0.87"])];
    let connection = connector().open(&provider(), &route(port, two)).await.expect("the second host takes it");
    assert_eq!(connection.host(), "two.example");
    connection.quit().await;

    let (port, _servers) = servers(&scripts).await;
    let one_each = |(at, ip): (usize, &&str)| host(&format!("mx{at}.example"), at as u16, &[ip]);
    let six: Vec<Host> = all.iter().enumerate().map(one_each).collect();
    let Err(facts) = connector().open(&provider(), &route(port, six)).await else { panic!("all refuse") };
    assert_eq!(facts.len(), 6);
    assert_eq!(facts[5].to_string(), "mx5.example connect: not tried: enough others were tried before");
    assert_eq!(judge_unreached(&facts, false, &mut judge).0.fate, LATER);
}

/// A host that takes connections and ends each at MAIL is not called as fast as it hangs up; it is
/// again as soon as it has taken something, or refused it with a reason.
#[tokio::test]
async fn a_host_that_ends_new_connections_at_mail_is_left_alone_for_a_while() {
    let mail = "hello PIPELINING\nC: MAIL FROM:<from@example.org>";
    let ends = format!("{mail}\nC: RCPT TO:<a@x.example>\nC: DATA\nS: 421 4.3.2 going down\nclose");
    let closes = format!("{mail}\nC: RCPT TO:<a@x.example>\nC: DATA\nclose");
    let takes = "hello\nC: MAIL FROM:<from@example.org>\nS: 250 ok\nC: RCPT TO:<a@x.example>\nS: 550 no\nstall";
    for (script, said) in [(ends, "MAIL: 421 4.3.2 going down"), (closes, "MAIL: the server closed the connection")] {
        let listener = TcpListener::bind(("127.0.0.41", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let scripts = [script.clone(), script, takes.to_owned(), takes.to_owned()];
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let _host = tokio::spawn(async move {
            for script in scripts {
                let (io, _) = listener.accept().await.expect("a connection");
                counted.fetch_add(1, SeqCst);
                tokio::spawn(async move { play(io, &script, None).await });
            }
        });
        let connector = connector();
        let provider = provider();
        let route = route(port, vec![host("a.example", 10, &["127.0.0.41"])]);
        for call in 1..=2 {
            let mut connection = connector.open(&provider, &route).await.expect("a connection");
            assert_eq!(calls.load(SeqCst), call);
            assert_eq!(fates(&hello().send(&mut connection, &["a@x.example"]).await), [said]);
            let told = failed(connector.open_for(&provider, &route, SENDER.into(), &Freely).await);
            assert!(told[0].contains("connect: not tried: "), "{told:?}");
            assert_eq!(calls.load(SeqCst), call, "called again at once");
            connector.forget_dead();
        }
        let mut connection = connector.open(&provider, &route).await.expect("a connection");
        assert_eq!(fates(&hello().send(&mut connection, &["a@x.example"]).await), ["RCPT: 550 no"]);
        assert!(connector.open(&provider, &route).await.is_ok(), "it listens again");
    }
}

/// The first address is dead, then it answers half a second after it was asked, each time.
struct Revived {
    dials: AtomicUsize,
}

#[async_trait]
impl Dialer for Revived {
    async fn dial(&self, _: std::net::SocketAddr) -> std::io::Result<Box<dyn Io>> {
        if self.dials.fetch_add(1, SeqCst) == 0 {
            return Err(std::io::ErrorKind::ConnectionRefused.into());
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        let (ours, theirs) = tokio::io::duplex(1024);
        tokio::spawn(async move {
            use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
            let mut theirs = BufReader::new(theirs);
            let _ = theirs.get_mut().write_all(b"220 hi\r\n").await;
            let mut line = String::new();
            while theirs.read_line(&mut line).await.is_ok_and(|n| n > 0) {
                let _ = theirs.get_mut().write_all(b"250 fine\r\n").await;
            }
        });
        Ok(Box::new(ours))
    }
}

/// Mail that came due with the probe leaves with it, and not when the time for the probe is over.
#[tokio::test(start_paused = true)]
async fn what_waits_behind_a_probe_that_succeeds_leaves_at_once() {
    let connector = Arc::new(connector().with_dialer(Arc::new(Revived { dials: AtomicUsize::new(0) })));
    let dead = Arc::new(route(25, vec![host("a.example", 10, &["192.0.2.1"])]));
    let refused = "a.example[192.0.2.1] connect: connection refused";
    assert_eq!(failed(connector.open(&provider(), &dead).await), [refused]);
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    let began = tokio::time::Instant::now();
    let all: Vec<_> = (0..5)
        .map(|_| {
            let (connector, dead) = (connector.clone(), dead.clone());
            tokio::spawn(async move { connector.open(&provider(), &dead).await.map(drop).map_err(|facts| facts.len()) })
        })
        .collect();
    for one in all {
        assert_eq!(one.await.expect("no panic"), Ok(()));
    }
    assert_eq!(began.elapsed().as_millis() / 100, 10, "the others as soon as the first was answered");
}
