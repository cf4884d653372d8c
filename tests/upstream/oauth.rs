//! Logging in with a token: from a token endpoint over HTTPS to XOAUTH2 and OAUTHBEARER, on real sockets.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mailweir::clock::Clock;
use mailweir::config::{Config, Provider};
use mailweir::deliver::oauth::Names;
use mailweir::deliver::{Connector, Event, Stage};

use crate::connecting::{connector, host, route};
use crate::encryption::{Authority, serve};
use crate::endpoint::{Endpoint, answer, ok};

/// Every name is this machine.
struct Here;

#[async_trait]
impl Names for Here {
    async fn addresses(&self, _: &str) -> Result<Vec<IpAddr>, String> {
        Ok(vec![IpAddr::from([127, 0, 0, 1])])
    }
}

/// A smart host in clear text on loopback, whose tokens come from `endpoint`.
fn setting(authority: Option<&Authority>, endpoint: &Endpoint, port: u16) -> (Connector, Arc<Provider>) {
    let ca = authority.map(|authority| format!("tls_ca = '{}'", authority.file.display())).unwrap_or_default();
    let text = format!(
        "hostname = 'relay.example'\n[queue]\nstore = 'sqlite:/nonexistent/q.db'\n[provider.m]\nrelay = 'mx.example:{port}'\n\
         tls = 'opportunistic'\n{ca}\nauth = {{ user = 'user', secret = 'hush-hush', client_id = 'app', oauth = {{ \
         token_url = 'https://token.example:{}/t?x=1', scope = 'mail' }} }}\n[[route]]\nvia = 'm'\n",
        endpoint.port
    );
    let config = Config::parse(&text, "test").expect("a good configuration");
    let provider = config.provider("m").expect("there").clone();
    (connector().with_tokens(&config, Arc::new(Here), Clock::System), provider)
}

/// What becomes of a connection: nothing, or the facts.
async fn outcome(connector: &Connector, provider: &Provider, port: u16) -> String {
    match connector.open(provider, &route(port, vec![host("mx.example", 10, &["127.0.0.1"])])).await {
        Ok(connection) => {
            connection.quit().await;
            String::new()
        }
        Err(facts) => facts.iter().map(|fact| format!("{}: {}", fact.stage, fact.event)).collect::<Vec<_>>().join("; "),
    }
}

fn xoauth2(token: &str) -> String {
    STANDARD.encode(format!("user=user\x01auth=Bearer {token}\x01\x01"))
}

#[tokio::test]
async fn a_token_is_had_and_shown_as_the_host_offers_to_take_it() {
    let authority = Authority::new();
    let long = "t0ken-".repeat(300);
    let (short_text, long_text) = (xoauth2("short-t0ken"), xoauth2(&long));
    // Its end has the port.
    let bearer = STANDARD.encode("n,a=user,\x01host=mx.example\x01port");
    let scripts: [(&str, &str, String); 3] = [
        ("short-t0ken", "XOAUTH2 PLAIN LOGIN", format!("C: AUTH XOAUTH2 {short_text}\n")),
        ("short-t0ken", "OAUTHBEARER", format!("C: AUTH OAUTHBEARER {bearer}*\n")),
        // RFC 4954 §4: too long for a command.
        (&long, "OAUTHBEARER XOAUTH2", format!("C: AUTH XOAUTH2\nS: 334 \nC: {long_text}\n")),
    ];
    for (token, offers, says) in scripts {
        let endpoint = Endpoint::start(&authority.server("token.example", false), &[ok(token)]).await;
        let script = format!("hello AUTH {offers}\n{says}S: 235 2.7.0 ok\nC: QUIT\nS: 221 bye");
        let (port, server) = serve(&[&script], &authority.server("mx.example", false)).await;
        let (connector, provider) = setting(Some(&authority), &endpoint, port);
        assert_eq!(outcome(&connector, &provider, port).await, "", "{offers}");
        server.done().await;
        let heard = endpoint.heard();
        assert!(heard[0].starts_with("POST /t?x=1 HTTP/1.1\r\n") && heard.len() == 1, "{heard:?}");
        assert!(heard[0].to_lowercase().contains(&format!("\r\nhost: token.example:{}\r\n", endpoint.port)));
        let form = "grant_type=client_credentials&scope=mail&client_id=app&client_secret=hush-hush";
        assert!(heard[0].ends_with(&format!("\r\n\r\n{form}")), "{heard:?}");
    }
}

/// The error of the host is answered as its mechanism wants it, one new token is had, and that is all.
#[tokio::test]
async fn a_token_that_is_refused_is_renewed_once_on_the_same_connection() {
    let authority = Authority::new();
    let error = STANDARD.encode("{\"status\":\"401\",\"scope\":\"mail\"}");
    let [one, two] = ["one-t0ken", "two-t0ken"].map(xoauth2);
    let refused = format!("S: 334 {error}\nC: \nS: 535 5.7.8 no\n");
    let works = format!(
        "hello AUTH XOAUTH2\nC: AUTH XOAUTH2 {one}\n{refused}C: AUTH XOAUTH2 {two}\nS: 235 ok\nC: QUIT\nS: 221 bye"
    );
    let again = format!("hello AUTH XOAUTH2\nC: AUTH XOAUTH2 {two}\n{refused}C: QUIT");
    let endpoint =
        Endpoint::start(&authority.server("token.example", false), &[ok("one-t0ken"), ok("two-t0ken")]).await;
    let (port, server) = serve(&[&works, &again], &authority.server("mx.example", false)).await;
    let (connector, provider) = setting(Some(&authority), &endpoint, port);
    assert_eq!(outcome(&connector, &provider, port).await, "");
    let told = "AUTH: 535 5.7.8 no (it says {\"status\":\"401\",\"scope\":\"mail\"})";
    assert_eq!(outcome(&connector, &provider, port).await, told);
    server.done().await;
    assert_eq!(endpoint.heard().len(), 2, "the new one is not renewed for the same reason");

    // RFC 7628 §3.2.3.
    let bearer = format!("hello AUTH OAUTHBEARER\nC: AUTH OAUTHBEARER *\nS: 334 {error}\nC: AQ==\nS: 535 5.7.8 no\n");
    let script = format!("{bearer}C: AUTH OAUTHBEARER *\nS: 334 {error}\nC: AQ==\nS: 535 5.7.8 still\nC: QUIT");
    let endpoint =
        Endpoint::start(&authority.server("token.example", false), &[ok("one-t0ken"), ok("two-t0ken")]).await;
    let (port, server) = serve(&[&script], &authority.server("mx.example", false)).await;
    let (connector, provider) = setting(Some(&authority), &endpoint, port);
    let told = outcome(&connector, &provider, port).await;
    assert!(told.starts_with("AUTH: 535 5.7.8 still (it says "), "{told}");
    server.done().await;
}

/// Hosts say it in their own ways; a refusal for now is none of it.
#[tokio::test]
async fn any_refusal_for_good_may_be_about_the_token() {
    let authority = Authority::new();
    let [one, two] = ["one-t0ken", "two-t0ken"].map(xoauth2);
    for (refused, fetched) in [
        ("501 5.5.122 expired", 2),
        ("554 5.7.0 no", 2),
        ("535 5.7.3 no", 2),
        ("530 5.7.0 no", 2),
        ("454 4.7.0 later", 1),
    ] {
        let first = format!("hello AUTH XOAUTH2\nC: AUTH XOAUTH2 {one}\nS: {refused}\n");
        let script = match fetched {
            2 => format!("{first}C: AUTH XOAUTH2 {two}\nS: 235 ok\nC: QUIT\nS: 221 bye"),
            _ => format!("{first}C: QUIT"),
        };
        let endpoint =
            Endpoint::start(&authority.server("token.example", false), &[ok("one-t0ken"), ok("two-t0ken")]).await;
        let (port, server) = serve(&[&script], &authority.server("mx.example", false)).await;
        let (connector, provider) = setting(Some(&authority), &endpoint, port);
        let told = if fetched == 2 { String::new() } else { format!("AUTH: {refused}") };
        assert_eq!(outcome(&connector, &provider, port).await, told);
        server.done().await;
        assert_eq!(endpoint.heard().len(), fetched, "{refused}");
    }
}

#[tokio::test]
async fn no_host_hears_of_it_while_there_is_no_token_and_the_address_is_left_alone() {
    let authority = Authority::new();
    let refusal =
        answer("400 Bad Request", "{\"error\":\"invalid_client\",\"error_description\":\"hush-hush is bad\"}");
    let redirect = "HTTP/1.1 302 Found\r\nLocation: https://elsewhere.example/\r\nContent-Length: 0\r\n\r\n".to_owned();
    let cases: [(String, &str); 6] = [
        (refusal, "no token: token.example refuses: invalid_client: *** is bad (check `client_id` and `secret`)"),
        (redirect, "no token: token.example wants to be asked elsewhere (HTTP 302): is `token_url` right?"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}".to_owned(),
            "no token: token.example breaks off its answer",
        ),
        (answer("200 OK", &"x".repeat(70_000)), "no token: token.example answers with more than 65536 bytes"),
        ("220 smtp.example ESMTP\r\n".to_owned(), "no token: token.example answers no HTTP"),
        (String::new(), "no token: token.example answers no HTTP"),
    ];
    for (says, told) in cases {
        let endpoint = Endpoint::start(&authority.server("token.example", false), &[says]).await;
        // Nobody connects: a script that is not played fails no test, one that is would.
        let (port, _server) = serve(&["stall"], &authority.server("mx.example", false)).await;
        let (connector, provider) = setting(Some(&authority), &endpoint, port);
        let route = route(port, vec![host("mx.example", 10, &["127.0.0.1"])]);
        let facts = connector.open(&provider, &route).await.err().expect("no token");
        assert_eq!((facts.len(), facts[0].stage), (1, Stage::Auth));
        let said = facts[0].event.to_string();
        assert!(said.starts_with(told) && !said.contains("hush"), "{said}");
        let next = connector
            .next_try(&provider, &route, mailweir::mail::Features::from("jo@shop.example").keys())
            .expect("left alone");
        assert_eq!((next.stage, &next.why), (Stage::Auth, &said));
        let facts = connector.open(&provider, &route).await.err().expect("left alone");
        assert!(matches!(facts[0].event, Event::BackOff { .. }), "{facts:?}");
        assert_eq!(endpoint.heard().len(), 1);
    }
}

/// Whatever `tls` says of the smart host: the secret goes to nobody whose certificate is not good.
#[tokio::test]
async fn the_certificate_of_a_token_endpoint_is_always_checked() {
    let authority = Authority::new();
    for (name, trusted, told) in [
        ("token.example", false, "token.example: TLS: the certificate is not from a trusted authority"),
        ("other.example", true, "token.example: TLS: the certificate is not for token.example"),
    ] {
        let endpoint = Endpoint::start(&authority.server(name, false), &[ok("t0ken")]).await;
        let (connector, provider) = setting(trusted.then_some(&authority), &endpoint, 1);
        let said = outcome(&connector, &provider, 1).await;
        assert!(said.starts_with("AUTH: no token: ") && endpoint.heard().is_empty(), "{said}");
        assert!(said.contains(told), "{said}");
    }
}

/// The host has heard the token from its greeting on: an earlier connection may have shown it.
#[tokio::test]
async fn what_a_host_repeats_of_a_token_is_masked() {
    let authority = Authority::new();
    let token = "eyJhbGciOi.eyJzZWNyZXQi.c2lnbmF0dXJl";
    let sent = xoauth2(token);
    let error = STANDARD.encode(format!("{{\"token\":\"{token}\"}}"));
    let refused = format!("C: AUTH XOAUTH2 {sent}\nS: 334 {error}\nC: \nS: 535 5.7.8 {token} and {sent}\n");
    let script = format!("hello AUTH XOAUTH2\n{refused}{refused}C: QUIT");
    let greeting = format!("S: 554 {token}\nC: QUIT");
    let endpoint = Endpoint::start(&authority.server("token.example", false), &[ok(token)]).await;
    let (port, _server) = serve(&[&script, &greeting], &authority.server("mx.example", false)).await;
    let (connector, provider) = setting(Some(&authority), &endpoint, port);
    let said = outcome(&connector, &provider, port).await;
    assert_eq!(said, "AUTH: 535 5.7.8 *** and *** (it says ***)");
    connector.forget_dead();
    assert_eq!(outcome(&connector, &provider, port).await, "greeting: 554 ***");
}
