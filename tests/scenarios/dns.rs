//! Mail exchangers as a real name server (NSD) gives them: preference, failover, null MX, no MX,
//! SERVFAIL, aliases.

use crate::support;

use std::net::SocketAddr;

use support::daemon::{Daemon, Setup};
use support::mail::{Report, message};
use support::servers::Nsd;
use support::sink::Sink;
use support::{Port, SOON, TestDir};

/// MX hosts are 127.0.0.11 and .12, the senders' own host .9, all on the port of the test.
const ZONE: &str = "
a.mx A 127.0.0.11
b.mx A 127.0.0.12
senders.mx A 127.0.0.9
sender MX 10 senders.mx
two MX 10 a.mx
two MX 20 b.mx
equal MX 10 a.mx
equal MX 10 b.mx
null MX 0 .
plain A 127.0.0.11
alias CNAME a.mx
cname MX 10 alias
noaddress MX 10 nothing.mx
";

struct World {
    daemon: Daemon,
    port: Port,
    _nsd: Nsd,
    _dir: TestDir,
}

impl World {
    fn new(default: &str) -> World {
        let (dir, port) = (TestDir::new(), Port::reserve());
        let nsd = Nsd::start(&dir, ZONE);
        let daemon = Setup::new(&dir)
            .dns(nsd.address)
            .with(&format!("[default]\nport = {}\nallow_private = true\ntls = \"off\"\n{default}", port.number))
            .with("[retry]\nfirst = \"1s\"\nmax = \"2s\"")
            .start();
        World { daemon, port, _nsd: nsd, _dir: dir }
    }

    fn host(&self, host: u8) -> SocketAddr {
        self.port.at(host)
    }

    fn send(&self, subject: &str, to: &str) -> String {
        self.daemon.client().send("<sender@sender.test>", &[&format!("<{to}>")], &message(subject))
    }
}

#[test]
fn the_preferred_mx_gets_the_mail_and_the_second_only_while_the_first_is_down() {
    let world = World::new("");
    let second = Sink::start(world.host(12));
    let id = world.send("first is down", "x@two.test");
    second.wait_subject("first is down", SOON);
    let line = world.daemon.wait_log("delivered", |line| line.is("delivered", &id));
    assert_eq!(line.get("host"), "b.mx.test");
    assert_eq!(line.get("ip"), "127.0.0.12");
    drop(second);

    // Another relay, that has no memory of the dead host.
    let world = World::new("");
    let (first, second) = (Sink::start(world.host(11)), Sink::start(world.host(12)));
    let id = world.send("both are up", "x@two.test");
    first.wait_subject("both are up", SOON);
    let line = world.daemon.wait_log("delivered", |line| line.is("delivered", &id));
    assert_eq!(line.get("host"), "a.mx.test");
    assert_eq!(second.count(), 0);
}

/// RFC 5321 §5.1: hosts of equal preference share the load.
#[test]
fn two_mx_of_equal_preference_share_the_load() {
    let world = World::new("messages_per_connection = 1\nrate = []");
    let (a, b) = (Sink::start(world.host(11)), Sink::start(world.host(12)));
    for n in 0..40 {
        world.send(&format!("equal {n}"), "x@equal.test");
    }
    world.daemon.wait_queue_empty(SOON);
    assert_eq!(a.count() + b.count(), 40);
    assert!(a.count() > 0 && b.count() > 0, "{} and {}", a.count(), b.count());
}

/// RFC 7505: `MX 0 .` means that the domain takes no mail; the sender hears it at once.
#[test]
fn a_null_mx_bounces_at_once_with_5_1_10() {
    let world = World::new("");
    let senders = Sink::start(world.host(9));
    let id = world.send("to nobody", "x@null.test");
    let dsn = senders.wait(1, SOON).remove(0);
    assert!(dsn.from.starts_with("<>"), "{}", dsn.from);
    let report = Report::parse(&dsn.content);
    assert_eq!(report.recipient_field("action"), "failed");
    assert_eq!(report.recipient_field("status"), "5.1.10");
    assert_eq!(report.recipient_field("final-recipient"), "rfc822; x@null.test");
    let line = world.daemon.wait_log("bounced", |line| line.is("bounced", &id));
    assert!(line.why().contains("5.1.10"), "{}", line.0);
}

#[test]
fn a_domain_that_does_not_exist_bounces() {
    let world = World::new("");
    let senders = Sink::start(world.host(9));
    world.send("to nowhere", "x@does-not-exist.test");
    let report = Report::parse(&senders.wait(1, SOON)[0].content);
    assert_eq!(report.recipient_field("action"), "failed");
    assert_eq!(report.recipient_field("status"), "5.1.2");
}

/// RFC 5321 §5.1: no MX at all means the host of that name.
#[test]
fn a_domain_without_mx_gets_its_mail_at_its_address() {
    let world = World::new("");
    let host = Sink::start(world.host(11));
    let id = world.send("no mx", "x@plain.test");
    host.wait_subject("no mx", SOON);
    let line = world.daemon.wait_log("delivered", |line| line.is("delivered", &id));
    assert_eq!(line.get("host"), "plain.test");
}

#[test]
fn an_mx_that_is_an_alias_is_followed() {
    let world = World::new("");
    let host = Sink::start(world.host(11));
    world.send("alias", "x@cname.test");
    host.wait_subject("alias", SOON);
}

/// SERVFAIL says nothing about the domain; neither does an MX whose address is missing. Both wait.
#[test]
fn servfail_and_an_mx_without_address_defer_and_never_bounce() {
    for (recipient, status) in [("x@some.broken", "4.4.3"), ("x@noaddress.test", "4.4")] {
        let world = World::new("");
        let senders = Sink::start(world.host(9));
        let id = world.send("waits", recipient);
        // The second attempt: it was tried again after the first.
        let line =
            world.daemon.wait_log("the second deferral", |line| line.is("deferred", &id) && line.get("attempt") == "2");
        assert!(line.why().contains(status), "{recipient}: {}", line.0);
        let rows = world.daemon.queue_list(&[]);
        assert_eq!(rows.len(), 1, "{recipient}");
        assert!(["queued", "leased"].contains(&rows[0].state().as_str()), "{recipient}: {}", rows[0].0);
        assert_eq!(senders.count(), 0, "{recipient}: no DSN");
    }
}

#[test]
fn an_address_literal_needs_no_dns() {
    let world = World::new("");
    let host = Sink::start(world.host(12));
    let id = world.send("literal", "x@[127.0.0.12]");
    let arrived = host.wait_subject("literal", SOON);
    assert_eq!(arrived.to, ["<x@[127.0.0.12]>"]);
    world.daemon.wait_log("delivered", |line| line.is("delivered", &id));
}

/// What DNS says must not lead the relay to the machine it runs on, unless it is told so.
#[test]
fn an_mx_on_a_loopback_address_is_refused_unless_allowed() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let nsd = Nsd::start(&dir, ZONE);
    let daemon = Setup::new(&dir).dns(nsd.address).with(&format!("[default]\nport = {}", port.number)).start();
    let host = Sink::start(port.at(11));
    let id = daemon.client().send("<>", &["<x@plain.test>"], &message("inside"));
    let line = daemon.wait_log("an outcome", |line| line.get("id") == id && line.event() != "accepted");
    assert!(["deferred", "bounced"].contains(&line.event().as_str()), "{}", line.0);
    assert_eq!(host.connections().len(), 0);
}
