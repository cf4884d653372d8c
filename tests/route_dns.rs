//! Routing with a real name server: every DNS row of the protocol notes, caching, and provider
//! matching. See `tests/zones` for the records and `docs/routing.md` for the rules.

#![allow(clippy::unwrap_used)]

mod dns;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use dns::signed::{Forge, Forger, How, Signed, Zone};
use dns::{Front, Mood, Nsd};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RecordType;
use mailweir::clock::Clock;
use mailweir::config::units::Pattern;
use mailweir::config::{
    Config, DnsProtocol, Dnssec, Listener, Provider, Relay, Route as RouteRule, RouteWhen, TrustAnchor, sample,
};
use mailweir::mail::{Address, LaneName};
use mailweir::route::sts::{Fetch, PolicyHost, Unfetched};
use mailweir::route::{Route, RouteError, Router, TlsPolicy};

fn base(server: SocketAddr) -> Config {
    let mut config = sample::config();
    config.dns.nameservers = vec![sample::nameserver(server)];
    config.dns.timeout = Duration::from_millis(1500);
    config.dns.attempts = 1;
    config
}

fn router(config: Config) -> Router {
    Router::new(Arc::new(config)).unwrap()
}

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

async fn resolve(router: &Router, recipient: &str) -> Result<Arc<Route>, RouteError> {
    router.resolve(None, &address(recipient)).await
}

/// `10 mx1.example 2001:db8::1,192.0.2.1 | 20 ...`, or the error as printed.
async fn hosts(router: &Router, domain: &str) -> String {
    match resolve(router, &format!("user@{domain}")).await {
        Ok(route) => shown(&route),
        Err(error) => error.to_string(),
    }
}

fn shown(route: &Route) -> String {
    let host = |h: &mailweir::route::Host| {
        let ips: Vec<String> = h.addresses.iter().map(IpAddr::to_string).collect();
        format!("{} {} {}", h.preference, h.name, ips.join(","))
    };
    route.hosts.iter().map(host).collect::<Vec<_>>().join(" | ")
}

fn with(mut provider: Provider, change: impl FnOnce(&mut Provider)) -> Arc<Provider> {
    change(&mut provider);
    Arc::new(provider)
}

fn relay(host: &str, port: u16) -> Option<Relay> {
    Some(Relay::new(host, port, false, None))
}

const MX1: &str = "mx1.example 2001:db8::1,192.0.2.1";

#[tokio::test]
async fn explains_who_has_a_recipient_and_why() {
    let nsd = Nsd::start();
    let mut config = base(nsd.address);
    let by_mx = with(sample::provider("by-mx"), |p| p.match_mx = sample::patterns(&["mx2.*", "mx1.*"]));
    let by_domain =
        with(sample::provider("by-domain"), |p| p.match_domains = sample::patterns(&["nomx?.example", "nomx4.*"]));
    let smart = with(sample::provider("smart"), |p| p.relay = relay("192.0.2.99", 587));
    config.routes = vec![
        RouteRule {
            when: RouteWhen::matching(Pattern::new("<>"), Pattern::new("*@never.example")),
            via: by_mx.clone(),
            number: 1,
        },
        RouteRule {
            when: RouteWhen::matching(Pattern::new("*@shop.example"), Pattern::any()),
            via: smart.clone(),
            number: 2,
        },
    ];
    config.providers = vec![by_domain, by_mx, smart];
    let router = router(config);

    let told = router.explain(None, &address("a@two.example")).await;
    assert_eq!((told.provider.as_str(), told.lane.as_str(), told.port), ("by-mx", "by-mx", 25));
    assert_eq!(told.why, "the mail host mx1.example matches match.mx = \"mx1.*\"");
    let hosts: Vec<(&str, u16, bool)> = told.hosts.iter().map(|h| (h.name.as_str(), h.preference, h.used)).collect();
    assert_eq!(hosts, [("mx1.example", 10, true), ("mx2.example", 20, true)]);
    assert!(told.mx_ttl.is_some_and(|ttl| ttl > 0) && told.hosts.iter().all(|h| h.ttl.is_some_and(|ttl| ttl > 0)));

    let told = router.explain(None, &address("a@nomx4.example")).await;
    assert_eq!((told.provider.as_str(), told.hosts.len()), ("by-domain", 1));
    assert_eq!(told.why, "the domain nomx4.example matches match.domains = \"nomx4.*\"");

    let told = router.explain(Some(&address("s@shop.example")), &address("a@two.example")).await;
    assert_eq!((told.provider.as_str(), told.route, told.smart_host, told.port), ("smart", Some(2), true, 587));
    assert_eq!((told.hosts[0].name.as_str(), told.hosts[0].ttl), ("192.0.2.99", None));
    assert!(told.why.contains("sender = \"*@shop.example\""), "{}", told.why);

    let told = router.explain(None, &address("a@mxip.example")).await;
    assert_eq!((told.provider.as_str(), told.lane.as_str()), ("default", "@mxip.example"));
    assert!(told.why.contains("no provider matches"));
    let told = router.explain(None, &address("a@nullmx.example")).await;
    assert!(told.permanent && told.problem.contains("null MX") && told.hosts.is_empty(), "{told:?}");
    let told = router.explain(None, &address("a@mxgone.example")).await;
    assert!(!told.permanent && !told.hosts[0].used && told.hosts[0].problem == "there is no such host", "{told:?}");
}

#[tokio::test]
async fn each_kind_of_domain_leads_where_the_rfcs_say() {
    let nsd = Nsd::start();
    let router = router(base(nsd.address));
    for (domain, expected) in [
        // By preference, whatever the order in the zone; equal ones stay side by side.
        ("two.example", format!("10 {MX1} | 20 mx2.example 192.0.2.2")),
        ("twice.example", format!("10 {MX1}")),
        ("mxmany.example", "10 many.example 2001:db8::101,192.0.2.101,2001:db8::102,192.0.2.102,2001:db8::103,192.0.2.103,2001:db8::104,192.0.2.104".into()),
        // Without MX the domain is its own mail host.
        ("nomx4.example", "0 nomx4.example 192.0.2.44".into()),
        ("nomx6.example", "0 nomx6.example 2001:db8::44".into()),
        ("nothing.example", "550 5.1.2 the domain nothing.example has no MX, A or AAAA record".into()),
        ("nosuch.example", "550 5.1.2 the domain nosuch.example does not exist".into()),
        ("nullmx.example", "556 5.1.10 the domain nullmx.example accepts no mail (null MX)".into()),
        ("notquitenull.example", format!("10 {MX1}")),
        // CNAMEs, also those that leave the server's zone, and those that lead nowhere.
        ("alias2.example", format!("10 {MX1} | 20 mx2.example 192.0.2.2")),
        ("aliasout.example", format!("10 {MX1}")),
        ("aliasnowhere.example", "550 5.1.2 the domain aliasnowhere.example does not exist".into()),
        ("circle1.example", "4.4.3 the CNAME records of circle1.example. make a loop or are too many".into()),
        ("mxalias.example", "10 hostalias.example 2001:db8::1,192.0.2.1".into()),
        // An IP address in place of a host name.
        ("mxip.example", "10 192.0.2.7 192.0.2.7".into()),
        ("mxbracket.example", "10 192.0.2.8 192.0.2.8".into()),
        // Hosts without address defer when no other has one.
        ("mxempty.example", "4.4.4 no mail host of mxempty.example has an address".into()),
        ("mxgone.example", "4.4.4 no mail host of mxgone.example has an address".into()),
        ("mxsome.example", "20 mx2.example 192.0.2.2".into()),
        ("mxhalfbroken.example", "20 mx2.example 192.0.2.2".into()),
        // Odd names.
        ("x.y.wild.example", "10 mx4.example 192.0.2.4".into()),
        ("under_score.example", format!("10 {MX1}")),
        ("TWO.Example.", format!("10 {MX1} | 20 mx2.example 192.0.2.2")),
        ("müller.example", format!("10 {MX1}")),
        ("XN--MLLER-KVA.example", format!("10 {MX1}")),
        // Literals are the host.
        ("[192.0.2.1]", "0 192.0.2.1 192.0.2.1".into()),
        ("[IPv6:2001:db8::25]", "0 2001:db8::25 2001:db8::25".into()),
    ] {
        assert_eq!(hosts(&router, domain).await, expected, "{domain}");
    }
    // nsd may turn records of equal preference round; the third host comes last.
    let equal = resolve(&router, "user@equal.example").await.unwrap();
    let names: Vec<(u16, &str)> = equal.hosts.iter().map(|h| (h.preference, h.name.as_str())).collect();
    assert!(names[..2].contains(&(10, "mx1.example")) && names[..2].contains(&(10, "mx2.example")), "{names:?}");
    assert_eq!(names[2], (20, "mx3.example"));
}

#[tokio::test]
async fn routes_carry_lane_destination_and_port() {
    let nsd = Nsd::start();
    let mut config = base(nsd.address);
    config.default = with(sample::provider("default"), |p| p.port = 2626);
    let router = router(config);
    let route = resolve(&router, "user@MÜLLER.example").await.unwrap();
    assert_eq!(route.lane, LaneName::domain("xn--mller-kva.example"));
    assert_eq!(route.lane, router.lane_of(None, &address("user@xn--mller-kva.EXAMPLE")));
    assert_eq!(&*route.destination, "xn--mller-kva.example");
    assert_eq!((route.port, route.provider.name.as_str()), (2626, "default"));
    let literal = resolve(&router, "user@[IPv6:2001:DB8::25]").await.unwrap();
    assert_eq!(literal.lane.as_str(), "@[ipv6:2001:db8::25]");
    assert!(Arc::ptr_eq(&router.provider_of_lane(&literal.lane), &literal.provider));
}

#[tokio::test]
async fn a_name_server_that_fails_defers_and_never_bounces() {
    let nsd = Nsd::start();
    // What a real server says for a zone it could not load, one it does not serve, one it delegated.
    let real = router(base(nsd.address));
    for (domain, expected) in [
        ("broken", "Server Failure"),
        ("mxbroken.example", "Server Failure"),
        ("elsewhere.test", "Query Refused"),
        ("child.example", "referral"),
    ] {
        let error = resolve(&real, &format!("user@{domain}")).await.unwrap_err();
        assert!(matches!(error, RouteError::Temporary { enhanced: "4.4.3", .. }), "{domain}: {error}");
        assert!(error.to_string().contains(expected), "{domain}: {error}");
    }

    let front = Front::start(nsd.address).await;
    for (mood, expected) in [
        (Mood::Silent, "no answer within"),
        (Mood::Code(ResponseCode::ServFail), "Server Failure"),
        (Mood::Code(ResponseCode::Refused), "Query Refused"),
        (Mood::Code(ResponseCode::NotAuth), "not authorized"),
        (Mood::Code(ResponseCode::Unknown(12)), "Unknown"),
        (Mood::Lie, "about other names"),
        (Mood::Refer, "referral"),
    ] {
        front.set(mood);
        let mut config = base(front.address);
        config.dns.timeout = Duration::from_millis(200);
        let router = router(config);
        // The second would be an implicit MX, the third a null MX, the fourth unknown: none may bounce.
        for domain in ["two.example", "nomx4.example", "nullmx.example", "nosuch.example"] {
            let error = resolve(&router, &format!("user@{domain}")).await.unwrap_err();
            assert!(matches!(error, RouteError::Temporary { enhanced: "4.4.3", .. }), "{mood:?} {domain}: {error}");
            assert!(error.to_string().to_lowercase().contains(&expected.to_lowercase()), "{mood:?}: {error}");
        }
    }

    // A server that repeats a CNAME forever does not keep us busy.
    front.set(Mood::Circle);
    front.forget();
    assert!(hosts(&router(base(front.address)), "first.example").await.starts_with("4.4.3 "));
    assert_eq!(front.total(), 2);

    // Only MX fails: that there is an address must not pass for "no MX".
    front.set(Mood::Broken(RecordType::MX));
    assert!(hosts(&router(base(front.address)), "nomx4.example").await.starts_with("4.4.3 "));
    assert_eq!(front.asked("nomx4.example.", RecordType::A), 0);

    // Half an answer is used.
    front.set(Mood::Broken(RecordType::AAAA));
    let router = router(base(front.address));
    assert_eq!(hosts(&router, "nomx4.example").await, "0 nomx4.example 192.0.2.44");
    assert!(hosts(&router, "nomx6.example").await.starts_with("4.4.3 "));
    assert!(hosts(&router, "nothing.example").await.starts_with("4.4.3 "));
}

#[tokio::test]
async fn another_name_server_is_asked_when_one_fails() {
    let nsd = Nsd::start();
    let (bad, good) = (Front::start(nsd.address).await, Front::start(nsd.address).await);
    for mood in [Mood::Silent, Mood::Code(ResponseCode::ServFail), Mood::Code(ResponseCode::Refused), Mood::Refer] {
        bad.set(mood);
        let mut config = base(bad.address);
        config.dns.timeout = Duration::from_millis(300);
        config.dns.nameservers.push(sample::nameserver(good.address));
        let router = router(config);
        assert!(hosts(&router, "two.example").await.starts_with("10 mx1.example"), "{mood:?}");
        // From then on the good one is asked first.
        bad.forget();
        assert!(hosts(&router, "mxmany.example").await.starts_with("10 many.example"), "{mood:?}");
        assert_eq!(bad.total(), 0, "{mood:?}");
    }
}

#[tokio::test]
async fn old_and_small_name_servers_are_understood() {
    let nsd = Nsd::start();
    let front = Front::start(nsd.address).await;
    front.set(Mood::NoEdns);
    let router = router(base(front.address));
    assert!(hosts(&router, "two.example").await.starts_with("10 mx1.example"));
    // 60 MX records do not fit in UDP: asked again over TCP; the ten preferred ones are used.
    front.set(Mood::Forward);
    assert_eq!(front.tcp_connections(), 0);
    let big = resolve(&router, "user@big.example").await.unwrap();
    assert!(front.tcp_connections() > 0);
    assert_eq!(
        big.hosts.iter().map(|h| h.preference).collect::<Vec<_>>(),
        (1..=10).map(|i| i * 10).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn search_lists_never_apply() {
    let nsd = Nsd::start();
    let front = Front::start(nsd.address).await;
    let router = router(base(front.address));
    let _ = resolve(&router, "user@two").await;
    assert_eq!(front.names(), ["two."]);
}

#[tokio::test]
async fn mail_does_not_come_back_to_ourselves() {
    let nsd = Nsd::start();
    let mut config = base(nsd.address);
    config.default = with(sample::provider("default"), |p| p.allow_private = true);
    let listening = |config: &Config, at: &str| {
        let mut listener = Listener::clone(&config.listeners[0]);
        listener.address = at.parse().unwrap();
        vec![Arc::new(listener)]
    };
    let us = |domain: &str| {
        format!(
            "554 5.4.6 mail for {domain} would come back to this relay: the best mail host of the domain is this host \
             (give the domain a provider with `relay` if it is handled elsewhere)"
        )
    };
    // By name: what is no better than we is dropped.
    let by_name = router(config.clone());
    for (domain, expected) in [
        ("usbest.example", us("usbest.example")),
        ("ussecond.example", format!("10 {MX1}")),
        ("usequal.example", format!("10 {MX1}")),
        ("usalias.example", us("usalias.example")),
        ("relay.example", us("relay.example")),
        // Another server at a loopback address of this machine is not us: its port is another.
        ("usip.example", format!("10 {MX1} | 20 loop.example 127.0.0.1")),
        ("privateloop.example", "10 loop.example 127.0.0.1".into()),
    ] {
        assert_eq!(hosts(&by_name, domain).await, expected, "{domain}");
    }
    // By address and port, and by a wildcard that covers the address.
    for at in ["127.0.0.1:25", "0.0.0.0:25", "[::]:25", "[::ffff:127.0.0.1]:25"] {
        let mut config = config.clone();
        config.listeners = listening(&config, at);
        let by_address = router(config);
        assert_eq!(hosts(&by_address, "usip.example").await, format!("10 {MX1}"), "{at}");
        assert_eq!(hosts(&by_address, "privateloop.example").await, us("privateloop.example"), "{at}");
        assert_eq!(hosts(&by_address, "[127.0.0.1]").await, us("[127.0.0.1]"), "{at}");
        assert!(hosts(&by_address, "two.example").await.starts_with("10 mx1.example"), "{at}");
    }
}

#[tokio::test]
async fn private_addresses_are_refused_unless_allowed() {
    let nsd = Nsd::start();
    let mut config = base(nsd.address);
    let table = [
        ("private4.example", "lan.example is at 10.1.2.3", "10 lan.example 10.1.2.3"),
        ("private6.example", "lan6.example is at fd00::25", "10 lan6.example fd00::25"),
        ("privatemapped.example", "mapped.example is at 192.168.1.1", "10 mapped.example 192.168.1.1"),
        ("privateloop.example", "loop.example is at 127.0.0.1", "10 loop.example 127.0.0.1"),
        ("privateip.example", "127.0.0.1 is at 127.0.0.1", "10 127.0.0.1 127.0.0.1"),
        ("implicitlan.example", "implicitlan.example is at 192.168.7.7", "0 implicitlan.example 192.168.7.7"),
        ("localhost", "localhost is at ::1", "0 localhost ::1,127.0.0.1"),
        ("[10.0.0.1]", "10.0.0.1 is at 10.0.0.1", "0 10.0.0.1 10.0.0.1"),
        ("[IPv6:::1]", "::1 is at ::1", "0 ::1 ::1"),
    ];
    let strict = router(config.clone());
    for (domain, why, _) in table {
        let error = resolve(&strict, &format!("user@{domain}")).await.unwrap_err();
        let RouteError::Permanent { code: 550, enhanced: "5.4.4", text } = error else { panic!("{domain}: {error}") };
        assert!(text.contains(why) && text.ends_with("set allow_private = true in [default] to allow that"), "{text}");
    }
    // Public addresses beside private ones are used.
    assert_eq!(hosts(&strict, "privatehalf.example").await, "10 half.example 192.0.2.9");
    assert_eq!(hosts(&strict, "privatesome.example").await, "20 mx2.example 192.0.2.2");

    config.default = with(sample::provider("default"), |p| p.allow_private = true);
    config.providers =
        vec![with(sample::provider("strict"), |p| p.match_domains = sample::patterns(&["private4.example"]))];
    let open = router(config);
    for (domain, _, allowed) in &table[1..] {
        assert_eq!(hosts(&open, domain).await, *allowed, "{domain}");
    }
    // The key of the provider counts, not that of [default].
    assert!(hosts(&open, "private4.example").await.contains("allow_private = true in [provider.strict]"));
}

fn matching(server: SocketAddr) -> Config {
    let mut config = base(server);
    config.providers = vec![
        with(sample::provider("google"), |p| p.match_mx = sample::patterns(&["*.Google.com."])),
        with(sample::provider("shop"), |p| p.match_domains = sample::patterns(&["two.example", "müller.example"])),
        with(sample::provider("smart"), |p| {
            p.match_domains = sample::patterns(&["nosuch.example"]);
            p.match_mx = sample::patterns(&["mx4.example"]);
            p.relay = relay("mx2.example", 587);
        }),
        with(sample::provider("byroute"), |p| p.port = 2525),
    ];
    let rule = |sender: &str, recipient: &str, via: &str| RouteRule {
        when: RouteWhen::matching(Pattern::new(sender), Pattern::new(recipient)),
        via: config.provider(via).unwrap().clone(),
        number: 1,
    };
    config.routes = vec![
        rule("*@shop.example", "*", "smart"),
        rule("*", "vip@*", "byroute"),
        // Domains in U-labels and in A-labels, on either side.
        rule("*", "uuu@*.müller.example", "smart"),
        rule("*", "aaa@*.xn--mller-kva.example", "smart"),
        rule("*@bücher.example", "*", "smart"),
    ];
    config
}

#[tokio::test]
async fn providers_match_by_route_domain_and_best_mx() {
    let nsd = Nsd::start();
    let router = router(matching(nsd.address));
    let shop = address("orders@shop.example");
    for (sender, recipient, lane, host) in [
        (None, "u@google.example", "google", "aspmx.l.google.com"),
        (None, "u@googleequal.example", "google", "mx1.example"),
        (None, "u@googlealias.example", "google", "gapps.example"),
        // Only the hosts of the best preference decide.
        (None, "u@googlesecond.example", "@googlesecond.example", "mx1.example"),
        (None, "u@lookalike1.example", "@lookalike1.example", "mx.notgoogle.com"),
        (None, "u@lookalike2.example", "@lookalike2.example", "mx.google.com.evil.example"),
        (None, "u@two.example", "shop", "mx1.example"),
        (None, "u@xn--mller-kva.example", "shop", "mx1.example"),
        // A smart host by domain (which need not exist in DNS), by MX, by route.
        (None, "u@nosuch.example", "smart", "mx2.example"),
        (None, "u@x.wild.example", "smart", "mx2.example"),
        (Some(&shop), "u@google.example", "smart", "mx2.example"),
        (Some(&shop), "u@[192.0.2.1]", "smart", "mx2.example"),
        (Some(&shop), "vip@two.example", "smart", "mx2.example"),
        // A route to a provider without relay: MX, with the limits of that provider.
        (None, "vip@two.example", "byroute", "mx1.example"),
        (None, "vip@google.example", "byroute", "aspmx.l.google.com"),
        // The same domain in another form.
        (None, "uuu@x.xn--mller-kva.example", "smart", "mx2.example"),
        (None, "uuu@X.MÜLLER.example", "smart", "mx2.example"),
        (None, "aaa@x.müller.example", "smart", "mx2.example"),
        (None, "aaa@x.XN--MLLER-KVA.example", "smart", "mx2.example"),
        (Some(&address("a@xn--bcher-kva.example")), "u@google.example", "smart", "mx2.example"),
        (Some(&address("a@Bücher.example")), "u@google.example", "smart", "mx2.example"),
    ] {
        let route = router.resolve(sender, &address(recipient)).await.unwrap_or_else(|e| panic!("{recipient}: {e}"));
        let mut names: Vec<&str> = route.hosts.iter().map(|h| h.name.as_str()).collect();
        names.retain(|n| *n == host);
        assert_eq!((route.lane.as_str(), names), (lane, vec![host]), "{recipient}");
        assert_eq!(router.lane_of(sender, &address(recipient)), route.lane, "{recipient}");
        assert_eq!(router.provider_of_lane(&route.lane).name, route.provider.name, "{recipient}");
    }
    let route = router.resolve(Some(&shop), &address("u@google.example")).await.unwrap();
    assert_eq!((&*route.destination, route.port), ("mx2.example", 587));
    let route = router.resolve(None, &address("vip@two.example")).await.unwrap();
    assert_eq!((&*route.destination, route.port), ("two.example", 2525));
    assert_eq!(router.provider_of_lane(&LaneName::provider("gone")).name, "default");
}

#[tokio::test]
async fn the_lane_is_known_without_io_where_it_can_be() {
    let nsd = Nsd::start();
    let front = Front::start(nsd.address).await;
    let router = router(matching(front.address));
    assert_eq!(router.lane_of(None, &address("u@google.example")).as_str(), "@google.example");
    assert_eq!(router.lane_of(None, &address("u@TWO.example")).as_str(), "shop");
    assert_eq!(router.lane_of(Some(&address("a@shop.example")), &address("u@google.example")).as_str(), "smart");
    assert_eq!(front.total(), 0);
    resolve(&router, "u@google.example").await.unwrap();
    assert_eq!(router.lane_of(None, &address("other@Google.Example")).as_str(), "google");
}

#[tokio::test]
async fn smart_hosts_defer_when_they_cannot_be_found() {
    let nsd = Nsd::start();
    for (host, port, expected) in [
        ("many.example", 587, Ok(8)),
        ("MX1.example.", 587, Ok(2)),
        ("127.0.0.1", 587, Ok(1)),
        ("[::1]", 587, Ok(1)),
        ("10.0.0.5", 587, Ok(1)),
        ("lan.example", 587, Ok(1)),
        ("nosuch.example", 587, Err("4.4.4 the smart host nosuch.example does not exist")),
        ("empty.example", 587, Err("4.4.4 the smart host empty.example has no address")),
        ("mail.broken", 587, Err("4.4.3 the smart host mail.broken: name server")),
        ("127.0.0.1", 2525, Err("4.4.6 the smart host 127.0.0.1:2525 of provider default is this relay itself")),
    ] {
        let mut config = base(nsd.address);
        config.default = with(sample::provider("default"), |p| p.relay = relay(host, port));
        let router = router(config);
        assert_eq!(router.lane_of(None, &address("u@nosuch.example")).as_str(), "default");
        match (resolve(&router, "u@nosuch.example").await, expected) {
            (Ok(route), Ok(count)) => {
                assert_eq!((route.hosts[0].addresses.len(), route.port), (count, port), "{host}");
                assert_eq!(route.lane.as_str(), "default");
            }
            (Err(error), Err(text)) => {
                assert!(matches!(error, RouteError::Temporary { .. }), "{host}: {error}");
                assert!(error.to_string().starts_with(text), "{host}: {error}");
            }
            (got, _) => panic!("{host}: {got:?}"),
        }
    }
}

/// Moves `tokio::time` on; the questions themselves run in real time.
async fn pass(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn answers_are_kept_as_long_as_their_ttl_within_bounds() {
    let nsd = Nsd::start();
    let front = Front::start(nsd.address).await;
    let mut config = base(front.address);
    config.dns.ttl_min = Duration::from_secs(60);
    config.dns.ttl_max = Duration::from_secs(3600);
    config.dns.negative_ttl_max = Duration::from_secs(100);
    let router = router(config);
    // (domain, what is asked again, just before, just after)
    for (domain, name, kind, before, after) in [
        ("two.example", "two.example.", RecordType::MX, 298, 3),
        ("short.example", "short.example.", RecordType::MX, 58, 3),
        ("long.example", "long.example.", RecordType::MX, 3598, 3),
        ("mxlong.example", "hostshort.example.", RecordType::A, 58, 3),
        ("nosuch.example", "nosuch.example.", RecordType::MX, 98, 3),
        ("nullmx.example", "nullmx.example.", RecordType::MX, 98, 3),
        ("nothing.example", "nothing.example.", RecordType::A, 98, 3),
        ("mail.broken", "mail.broken.", RecordType::MX, 28, 3),
    ] {
        front.forget();
        let first = hosts(&router, domain).await;
        assert_eq!(front.asked(name, kind), 1, "{domain}");
        pass(before).await;
        assert_eq!(hosts(&router, domain).await, first);
        assert_eq!(front.asked(name, kind), 1, "{domain}: asked again before its time");
        pass(after).await;
        assert_eq!(hosts(&router, domain).await, first);
        assert_eq!(front.asked(name, kind), 2, "{domain}: kept too long");
    }
}

#[tokio::test]
async fn half_an_answer_is_not_kept_for_its_ttl() {
    let nsd = Nsd::start();
    let front = Front::start(nsd.address).await;
    let router = router(base(front.address));
    front.set(Mood::Broken(RecordType::AAAA));
    assert!(hosts(&router, "two.example").await.starts_with("10 mx1.example 192.0.2.1 |"));
    front.set(Mood::Forward);
    // `ttl_min`, where the records say 300 s.
    pass(61).await;
    assert!(hosts(&router, "two.example").await.starts_with(&format!("10 {MX1}")));
}

#[tokio::test]
async fn addresses_are_shared_between_domains() {
    let nsd = Nsd::start();
    let front = Front::start(nsd.address).await;
    let router = router(base(front.address));
    resolve(&router, "u@two.example").await.unwrap();
    resolve(&router, "u@shared.example").await.unwrap();
    assert_eq!(front.asked("mx1.example.", RecordType::A), 1);
}

#[tokio::test]
async fn many_who_ask_at_once_are_one_question() {
    let nsd = Nsd::start();
    let front = Front::start(nsd.address).await;
    let mut config = base(front.address);
    // No entry stays fresh, so only the flight in common can explain a single question.
    config.dns.ttl_max = Duration::ZERO;
    let router = router(config);
    front.set(Mood::Silent);
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..200 {
        let router = router.clone();
        tasks.spawn(async move { router.resolve(None, &address(&format!("user{i}@two.example"))).await });
    }
    while let Some(outcome) = tasks.join_next().await {
        assert!(matches!(outcome.unwrap(), Err(RouteError::Temporary { .. })));
    }
    // One look-up, which UDP may repeat (up to four times) while the server is silent.
    assert!(
        (1..=4).contains(&front.asked("two.example.", RecordType::MX)),
        "{}",
        front.asked("two.example.", RecordType::MX)
    );
}

#[tokio::test]
async fn expired_answers_stand_in_while_the_name_servers_fail() {
    let nsd = Nsd::start();
    let front = Front::start(nsd.address).await;
    let mut config = base(front.address);
    config.dns.ttl_min = Duration::from_secs(1);
    let router = router(config);
    let (good, gone) = (hosts(&router, "two.example").await, hosts(&router, "nosuch.example").await);
    front.set(Mood::Code(ResponseCode::ServFail));
    pass(400).await;
    assert_eq!(hosts(&router, "two.example").await, good);
    // But nothing bounces because of an expired answer.
    assert!(gone.starts_with("550 5.1.2"));
    assert!(hosts(&router, "nosuch.example").await.starts_with("4.4.3"));
    // The servers are asked again after half a minute, not for every message.
    front.forget();
    assert_eq!(hosts(&router, "two.example").await, good);
    assert_eq!(front.total(), 0);
    front.set(Mood::Forward);
    pass(31).await;
    assert_eq!(hosts(&router, "two.example").await, good);
    assert_eq!(front.asked("two.example.", RecordType::MX), 1);
    // For an hour after its end, no longer.
    front.set(Mood::Code(ResponseCode::ServFail));
    pass(300 + 3600 + 10).await;
    assert!(hosts(&router, "two.example").await.starts_with("4.4.3"));
}

#[tokio::test]
async fn a_warm_answer_does_not_wait_behind_cold_ones() {
    let nsd = Nsd::start();
    let front = Front::start(nsd.address).await;
    let router = router(base(front.address));
    resolve(&router, "u@two.example").await.unwrap();
    front.set(Mood::Silent);
    front.forget();
    let mut cold = tokio::task::JoinSet::new();
    for i in 0..2000 {
        let router = router.clone();
        cold.spawn(async move { router.resolve(None, &address(&format!("u@cold{i}.example"))).await });
    }
    while front.total() < 100 {
        tokio::task::yield_now().await;
    }
    let started = std::time::Instant::now();
    resolve(&router, "u@two.example").await.unwrap();
    assert!(started.elapsed() < Duration::from_millis(1400), "{:?}", started.elapsed());
    // The rest waits for its turn.
    assert!(front.names().len() <= 100, "{} names were asked for at once", front.names().len());
}

/// A name server that speaks TLS and passes every question on to `server`.
async fn tls_front(server: SocketAddr, cert: &rcgen::CertifiedKey<rcgen::KeyPair>) -> SocketAddr {
    use tokio_rustls::rustls::ServerConfig;
    let key = tokio_rustls::rustls::pki_types::PrivateKeyDer::try_from(cert.signing_key.serialize_der()).unwrap();
    let provider = tokio_rustls::rustls::crypto::aws_lc_rs::default_provider();
    let config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut client) = acceptor.accept(socket).await else { return };
                let mut upstream = tokio::net::TcpStream::connect(server).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut upstream).await;
            });
        }
    });
    address
}

/// Trust in a CA comes from the environment, so the test runs itself again with it set.
#[tokio::test]
async fn name_servers_over_tls_must_have_a_valid_certificate() {
    const SERVER: &str = "MAILWEIR_TEST_TLS_NAME_SERVER";
    if let Ok(address) = std::env::var(SERVER) {
        let (trusted, other) = address.split_once(' ').unwrap();
        let not_for = |name: &str| format!("the certificate is not for {name}: it has dns.example for ");
        for protocol in [DnsProtocol::Tls, DnsProtocol::Https] {
            for (address, tls_name, told) in [
                (trusted, "dns.example", None),
                (trusted, "other.example", Some(not_for("other.example"))),
                (trusted, "", Some(not_for("127.0.0.1"))),
                (
                    other,
                    "dns.example",
                    Some("the certificate is not signed by the authority that it names for ".to_owned()),
                ),
            ] {
                if told.is_none() && protocol == DnsProtocol::Https {
                    // The server here is none of HTTP.
                    continue;
                }
                let mut server = sample::nameserver(address.parse().unwrap());
                server.protocol = protocol;
                server.tls_name = tls_name.into();
                let mut config = base(server.address);
                config.dns.nameservers = vec![server];
                let shown = hosts(&router(config), "two.example").await;
                let expected =
                    told.map_or("10 mx1.example".to_owned(), |told| format!("name server {address}: {told}"));
                let at = if shown.starts_with("10") { 0 } else { shown.find("name server").unwrap_or(0) };
                assert!(shown[at..].starts_with(&expected), "{tls_name}: {shown}");
                assert!(at == 0 || shown.starts_with("4.4.3 "), "{tls_name}: {shown}");
            }
        }
        return;
    }
    let nsd = Nsd::start();
    let cert = rcgen::generate_simple_self_signed(["dns.example".to_owned()]).unwrap();
    let address = tls_front(nsd.address, &cert).await;
    // The same name, but from nobody that is trusted.
    let forged = rcgen::generate_simple_self_signed(["dns.example".to_owned()]).unwrap();
    let other = tls_front(nsd.address, &forged).await;
    let dir = tempfile::tempdir().unwrap();
    let roots = dir.path().join("roots.pem");
    std::fs::write(&roots, cert.cert.pem()).unwrap();
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "name_servers_over_tls_must_have_a_valid_certificate"]);
    command.env(SERVER, format!("{address} {other}")).env("SSL_CERT_FILE", &roots).env_remove("SSL_CERT_DIR");
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// A policy for every host that is asked, with these addresses noted.
#[derive(Default)]
struct Policies(parking_lot::Mutex<Vec<String>>);

#[async_trait::async_trait]
impl Fetch for Policies {
    async fn fetch(&self, host: &str, at: PolicyHost) -> Result<String, Unfetched> {
        let shown: Vec<String> = at.addresses.iter().map(IpAddr::to_string).collect();
        self.0.lock().push(format!("{host} {}", shown.join(",")));
        Ok("version: STSv1\nmode: enforce\nmx: mx1.example\nmax_age: 604800\n".into())
    }
}

/// A domain that publishes nothing costs one question, whose answer is kept; one with a policy gets its mail at the
/// hosts that the policy names.
#[tokio::test]
async fn mta_sts_is_asked_for_once_and_leaves_out_other_hosts() {
    let nsd = Nsd::start();
    let front = Front::start(nsd.address).await;
    let policies = Arc::new(Policies::default());
    let mut config = base(front.address);
    config.providers = vec![
        with(sample::provider("off"), |p| {
            p.match_domains = sample::patterns(&["twice.example"]);
            p.mta_sts = false;
        }),
        with(sample::provider("clear"), |p| {
            p.match_domains = sample::patterns(&["equal.example"]);
            p.tls = mailweir::config::TlsMode::Off;
        }),
    ];
    let router = router(config).with_sts(policies.clone(), Clock::System);
    for _ in 0..3 {
        assert_eq!(hosts(&router, "two.example").await, format!("10 {MX1} | 20 mx2.example 192.0.2.2"));
        assert_eq!(hosts(&router, "sts.example").await, format!("10 {MX1}"));
    }
    assert_eq!(front.asked("_mta-sts.two.example.", RecordType::TXT), 1);
    assert_eq!(front.asked("_mta-sts.sts.example.", RecordType::TXT), 1);
    assert_eq!(policies.0.lock().as_slice(), ["mta-sts.sts.example 192.0.2.80"]);
    for domain in ["twice.example", "equal.example"] {
        hosts(&router, domain).await;
        assert_eq!(front.asked(&format!("_mta-sts.{domain}."), RecordType::TXT), 0, "{domain}");
    }
    // Nobody is led into our own network, and a policy that cannot be had is none.
    assert_eq!(hosts(&router, "stsinside.example").await, format!("10 {MX1}"));
    // The record is behind a CNAME; the policy names none of the hosts.
    let told = hosts(&router, "stsother.example").await;
    assert_eq!(
        told,
        "4.7.5 the MTA-STS policy of stsother.example (mode enforce, id 20261130) names none of its mail hosts that have \
         an address: it names mx1.example, and DNS mx3.example"
    );
    assert_eq!(policies.0.lock().len(), 2);

    let told = router.explain(None, &address("a@sts.example")).await;
    assert!(told.policy.starts_with("MTA-STS, mode enforce, id 20261130, for "), "{}", told.policy);
    let shown: Vec<(&str, &str)> = told.hosts.iter().map(|h| (h.tls.as_str(), h.problem.as_str())).collect();
    let expected = [("a valid certificate for its name, by MTA-STS", ""), ("", "the MTA-STS policy does not name it")];
    assert_eq!(shown, expected);
    let told = router.explain(None, &address("a@stsinside.example")).await;
    assert_eq!(told.policy, "MTA-STS: DNS says that there is a policy, which cannot be had now");
    assert_eq!(router.explain(None, &address("a@two.example")).await.policy, "");
}

const SIGNED: &str = "@ MX 10 mx\n*.wild MX 10 mx\nnotlsa MX 10 mx2\nold1 MX 10 mx3\nalias MX 10 other\nother CNAME mx\n\
                      mx A 192.0.2.1\nmx2 A 192.0.2.2\nmx3 A 192.0.2.3\n\
                      _25._tcp.mx TLSA 3 1 1 0707070707070707070707070707070707070707070707070707070707070707\n\
                      _25._tcp.mx3 TLSA 1 1 1 0707070707070707070707070707070707070707070707070707070707070707\n";

fn zones() -> Vec<Zone> {
    let zone = |name, how| Zone { name, records: SIGNED, how };
    vec![
        zone("signed", How::Well),
        zone("hashed", How::Nsec3),
        zone("plain", How::Unsigned),
        zone("expired", How::Expired),
        zone("address", How::Altered("192.0.2.1", "192.0.2.66")),
        zone("exchange", How::Altered("MX\t10 mx.exchange.", "MX\t10 ns.exchange.")),
        zone("record", How::Altered("TLSA\t3 1 1 07", "TLSA\t3 1 1 08")),
        zone("nods", How::WithoutDs),
    ]
}

fn validating(server: SocketAddr, anchor: &std::path::Path) -> Router {
    let mut config = base(server);
    config.dns.dnssec = Dnssec::Validate;
    config.dns.trust_anchor = Some(TrustAnchor::load(anchor).unwrap());
    config.dns.timeout = Duration::from_secs(5);
    router(config)
}

/// The hosts of a domain and what is published for them, or the error.
async fn published(router: &Router, domain: &str) -> String {
    let route = match resolve(router, &format!("user@{domain}")).await {
        Ok(route) => route,
        Err(error) => return error.to_string(),
    };
    let policy = |policy: &TlsPolicy| match policy {
        TlsPolicy::Dane(dane) => format!("dane at {}", dane.names[0]),
        TlsPolicy::DaneUnusable(_) => "unusable".into(),
        _ => "nothing".to_owned(),
    };
    route.hosts.iter().map(|host| format!("{}: {}", host.name, policy(&host.policy))).collect::<Vec<_>>().join(", ")
}

#[tokio::test]
async fn signed_answers_lead_to_tlsa_records_and_forged_ones_nowhere() {
    let nsd = Signed::start(&zones());
    let router = validating(nsd.address, &nsd.anchor);
    for (domain, expected) in [
        ("signed", "mx.signed: dane at mx.signed"),
        ("hashed", "mx.hashed: dane at mx.hashed"),
        ("x.wild.signed", "mx.signed: dane at mx.signed"),
        ("x.wild.hashed", "mx.hashed: dane at mx.hashed"),
        ("alias.signed", "other.signed: dane at mx.signed"),
        ("notlsa.signed", "mx2.signed: nothing"),
        ("old1.signed", "mx3.signed: unusable"),
        ("plain", "mx.plain: nothing"),
        ("nosuch.signed", "550 5.1.2 the domain nosuch.signed does not exist"),
        ("nosuch.hashed", "550 5.1.2 the domain nosuch.hashed does not exist"),
        ("nosuch.plain", "550 5.1.2 the domain nosuch.plain does not exist"),
        ("mx.plain", "mx.plain: nothing"),
    ] {
        assert_eq!(published(&router, domain).await, expected, "{domain}");
    }
    // An expired signature, one that does not fit, and a zone whose key nobody vouches for.
    for domain in ["expired", "nosuch.expired", "address", "exchange", "nods"] {
        let told = published(&router, domain).await;
        assert!(told.starts_with("4.7.5 ") && told.contains("without a good signature (DNSSEC)"), "{domain}: {told}");
    }
    let told = published(&router, "record").await;
    assert!(told.starts_with("4.7.5 the TLSA records of mx.record cannot be had: "), "{told}");
    let explained = router.explain(None, &address("a@signed")).await;
    assert_eq!(explained.hosts[0].tls, "a certificate that matches one of 1 TLSA records, by DANE");
    let explained = router.explain(None, &address("a@record")).await;
    assert!(explained.hosts[0].problem.starts_with("its TLSA records cannot be had"), "{explained:?}");
}

/// The RRSIG records of an answer, each where its algorithm stands.
fn algorithms(answer: &[u8]) -> Vec<usize> {
    (0..answer.len().saturating_sub(12))
        .filter(|at| answer[*at..].starts_with(&[0, 46, 0, 1]))
        .map(|at| at + 12)
        .collect()
}

fn without(answer: &mut Vec<u8>, kinds: &[RecordType]) {
    let mut message = hickory_resolver::proto::op::Message::from_vec(answer).unwrap();
    message.answers.retain(|record| !kinds.contains(&record.record_type()));
    message.authorities.retain(|record| !kinds.contains(&record.record_type()));
    *answer = message.to_vec().unwrap();
}

/// Whatever somebody on the way does to an answer, mail waits: it is neither delivered nor bounced.
#[tokio::test]
async fn who_forges_on_the_way_only_makes_mail_wait() {
    let nsd = Signed::start(&zones());
    let forger = Forger::start(nsd.address).await;
    let forgeries: [(&str, Forge, &[&str]); 6] = [
        ("no signatures", |answer| without(answer, &[RecordType::RRSIG]), &["signed", "nosuch.signed"]),
        (
            "an algorithm that nobody knows",
            |answer| algorithms(answer).iter().for_each(|at| answer[*at] = 253),
            &["signed"],
        ),
        ("a weak algorithm", |answer| algorithms(answer).iter().for_each(|at| answer[*at] = 5), &["signed"]),
        (
            "no proof",
            |answer| without(answer, &[RecordType::NSEC, RecordType::NSEC3]),
            &["x.wild.signed", "nosuch.signed"],
        ),
        ("no DS", |answer| without(answer, &[RecordType::DS]), &["signed"]),
        (
            "nothing that is signed",
            |answer| {
                without(answer, &[RecordType::RRSIG, RecordType::NSEC, RecordType::DS, RecordType::DNSKEY]);
            },
            &["signed", "nosuch.signed", "x.wild.signed"],
        ),
    ];
    for (what, forge, domains) in forgeries {
        forger.set(forge);
        for domain in domains {
            let told = published(&validating(forger.address, &nsd.anchor), domain).await;
            assert!(told.starts_with("4."), "{what}, {domain}: {told}");
        }
        forger.set(|_| {});
        let router = validating(forger.address, &nsd.anchor);
        assert_eq!(published(&router, "signed").await, "mx.signed: dane at mx.signed", "{what}");
    }
}

#[tokio::test]
async fn a_name_server_on_this_machine_is_believed_where_that_is_asked_for() {
    let nsd = Signed::start(&zones());
    let forger = Forger::start(nsd.address).await;
    let trusting = |server: SocketAddr| {
        let mut config = base(server);
        config.dns.dnssec = Dnssec::TrustAd;
        Router::new(Arc::new(config))
    };
    assert_eq!(published(&trusting(forger.address).unwrap(), "signed").await, "mx.signed: nothing");
    // As a resolver that validates says it.
    forger.set(|answer| answer[3] |= 0x20);
    assert_eq!(published(&trusting(forger.address).unwrap(), "signed").await, "mx.signed: dane at mx.signed");
    let elsewhere = trusting("192.0.2.53:53".parse().unwrap()).err().unwrap().to_string();
    assert!(elsewhere.contains("expected one on loopback, found 192.0.2.53"), "{elsewhere}");
    // What DANE demands is not asked for where nobody checks signatures.
    assert_eq!(published(&router(base(forger.address)), "signed").await, "mx.signed: nothing");
}
