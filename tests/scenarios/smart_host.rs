//! A real Postfix as the smart host: STARTTLS with a certificate of a test CA, AUTH against a SASL
//! database. A wrong password and a wrong certificate each defer with the reason and lose nothing.

use crate::ca;
use crate::support;

use std::path::Path;

use ca::Authority;
use support::client::Client;
use support::daemon::{Daemon, Setup};
use support::mail::{assert_same_bytes, message, split_received};
use support::postfix::{self, Postfix, Submission};
use support::servers::Nsd;
use support::{Port, TestDir};

const PASSWORD: &str = "correct horse: battery \\ staple";

struct World {
    dir: TestDir,
    postfix: Postfix,
    nsd: Nsd,
    port: Port,
    authority: Authority,
}

impl World {
    fn new() -> World {
        let (dir, port) = (TestDir::new(), Port::reserve());
        let authority = Authority::new(&dir, "test-ca");
        let certificate = authority.certificate(&dir, "smart.test");
        let submission =
            Submission { user: "relay", password: PASSWORD, certificate: &certificate.file, key: &certificate.key };
        let options = postfix::Options { domains: &["example.test"], main: "", submission: Some(submission) };
        let postfix = Postfix::start(&dir, "smart", port.at(3), &options);
        let nsd = Nsd::start(&dir, "smart A 127.0.0.3\nother A 127.0.0.3\n");
        World { dir, postfix, nsd, port, authority }
    }

    /// A relay that sends everything through `host`, trusts `ca`, and reads its password from a file.
    fn relay(&self, host: &str, ca: &Path, password: &str) -> Daemon {
        let secret = self.dir.write("password", password);
        Setup::new(&self.dir)
            .dns(self.nsd.address)
            .with(&format!(
                "[provider.smart]\nrelay = \"{host}:{}\"\nallow_private = true\ntls_ca = \"{}\"\n\
                 auth = {{ user = \"relay@{}\", password = {{ file = \"{}\" }} }}\n\n\
                 [[route]]\nrecipient = \"*\"\nvia = \"smart\"\n\n[retry]\nfirst = \"1s\"\nmax = \"1s\"\n",
                self.port.number,
                ca.display(),
                postfix::NAME,
                secret.display()
            ))
            .start()
    }

    fn send(&self, daemon: &Daemon, subject: &str) -> String {
        Client::connect(daemon.smtp).send("<sender@sender.test>", &["<somebody@example.test>"], &message(subject))
    }

    /// The deferral of this message gives one of these words as the reason, in the log and in the
    /// queue; nothing is stored at Postfix.
    fn assert_deferred(&self, daemon: &Daemon, id: &str, words: &[&str]) {
        let line = daemon.wait_log("deferred", |line| line.is("deferred", id));
        let has = |text: &str| words.iter().any(|word| text.to_lowercase().contains(word));
        assert!(has(&line.why()), "{}", line.0);
        let row = daemon.wait_row("with the reason", |row| row.id() == id && has(&row.reason()));
        assert!(["queued", "leased"].contains(&row.state().as_str()), "{}", row.0);
        assert_eq!(self.postfix.mailbox().len(), 0);
        assert!(!daemon.log_lines().iter().any(|line| line.is("bounced", id)));
    }

    /// The one message is stored at Postfix as it was sent.
    fn assert_stored(&self, daemon: &Daemon, subject: &str) {
        let stored = self.postfix.wait(1);
        assert_eq!(stored.len(), 1);
        let text = String::from_utf8(stored[0].clone()).expect("ASCII").replace('\n', "\r\n");
        // Above it: what Postfix put there.
        let (_, ours) = text.rsplit_once("Received: ").expect("our Received");
        let ours = format!("Received: {ours}");
        assert_same_bytes("stored", split_received(ours.as_bytes()).1, &message(subject));
        daemon.wait_queue_empty(support::SOON);
    }
}

#[test]
fn a_smart_host_with_starttls_and_auth_gets_the_mail() {
    let world = World::new();
    let daemon = world.relay("smart.test", &world.authority.file, PASSWORD);
    let id = world.send(&daemon, "through");
    world.assert_stored(&daemon, "through");
    let line = daemon.wait_log("delivered", |line| line.is("delivered", &id));
    assert_eq!(line.get("provider"), "smart");
    assert_eq!(line.get("host"), "smart.test");
    assert!(line.get("tls_version").starts_with("TLSv1."), "{}", line.0);
    assert!(world.postfix.log().contains("sasl_username=relay@postfix.test"), "{}", world.postfix.log());
}

#[test]
fn a_wrong_password_defers_with_535_and_the_right_one_delivers_after_a_restart() {
    let world = World::new();
    let mut daemon = world.relay("smart.test", &world.authority.file, "wrong-secret-of-this-test");
    let id = world.send(&daemon, "kept");
    world.assert_deferred(&daemon, &id, &["535"]);
    daemon.stop();
    let log = std::fs::read_to_string(&daemon.log).expect("the log");
    assert!(!log.contains("wrong-secret-of-this-test"), "a secret in the log");

    world.dir.write("password", PASSWORD);
    daemon.start();
    daemon.command_ok(&["queue", "retry", &id], b"");
    world.assert_stored(&daemon, "kept");
}

#[test]
fn a_certificate_of_another_authority_defers_and_nothing_is_lost() {
    let world = World::new();
    let other = Authority::new(&world.dir, "other-ca");
    let mut daemon = world.relay("smart.test", &other.file, PASSWORD);
    let id = world.send(&daemon, "kept");
    world.assert_deferred(&daemon, &id, &["certificate"]);
    daemon.stop();
    daemon.replace_config("other-ca.pem", "test-ca.pem");
    daemon.start();
    daemon.command_ok(&["queue", "retry", &id], b"");
    world.assert_stored(&daemon, "kept");
}

#[test]
fn a_certificate_for_another_name_defers_and_nothing_is_lost() {
    let world = World::new();
    let mut daemon = world.relay("other.test", &world.authority.file, PASSWORD);
    let id = world.send(&daemon, "kept");
    world.assert_deferred(&daemon, &id, &["certificate"]);
    daemon.stop();
    daemon.replace_config("other.test:", "smart.test:");
    daemon.start();
    daemon.command_ok(&["queue", "retry", &id], b"");
    world.assert_stored(&daemon, "kept");
}

/// Postfix asks for a certificate and takes mail of nobody else.
#[test]
fn a_host_that_asks_for_a_certificate_is_shown_that_of_the_provider() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let authority = Authority::new(&dir, "test-ca");
    let (server, own) = (authority.certificate(&dir, "smart.test"), authority.certificate(&dir, "relay.test"));
    let main = format!(
        "smtpd_tls_cert_file = {}\nsmtpd_tls_key_file = {}\nsmtpd_tls_CAfile = {}\nsmtpd_tls_security_level = encrypt\n\
         smtpd_tls_req_ccert = yes\nsmtpd_tls_loglevel = 1\n\
         smtpd_recipient_restrictions = permit_tls_all_clientcerts, reject\n",
        server.file.display(),
        server.key.display(),
        authority.file.display()
    );
    let options = postfix::Options { domains: &["example.test"], main: &main, submission: None };
    let postfix = Postfix::start(&dir, "smart", port.at(3), &options);
    let nsd = Nsd::start(&dir, "smart A 127.0.0.3\n");
    let mut daemon = Setup::new(&dir)
        .dns(nsd.address)
        .with(&format!(
            "[provider.smart]\nrelay = \"smart.test:{}\"\nallow_private = true\ntls_ca = \"{}\"\n# none\n\n\
             [[route]]\nrecipient = \"*\"\nvia = \"smart\"\n\n[retry]\nfirst = \"1s\"\nmax = \"1s\"\n",
            port.number,
            authority.file.display()
        ))
        .start();
    let id = Client::connect(daemon.smtp).send("<sender@sender.test>", &["<somebody@example.test>"], &message("own"));
    daemon.wait_log("deferred", |line| line.is("deferred", &id));
    assert!(postfix.mailbox().is_empty());
    daemon.stop();
    let keys = format!("tls_client_cert = \"{}\"\ntls_client_key = \"{}\"\n", own.file.display(), own.key.display());
    daemon.replace_config("# none\n", &keys);
    let told = daemon.command_ok(&["check"], b"");
    assert!(told.lines().any(|line| line.starts_with("relay.test ")), "{told}");
    daemon.start();
    daemon.command_ok(&["queue", "retry", &id], b"");
    assert_eq!(postfix.wait(1).len(), 1);
    let line = daemon.wait_log("delivered", |line| line.is("delivered", &id));
    assert_eq!(line.get("tls"), "verified");
    assert!(!std::fs::read_to_string(&daemon.log).expect("the log").contains("PRIVATE KEY"));
}
