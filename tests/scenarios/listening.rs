//! Where clients connect: both loopback addresses, and Unix sockets whose file comes and goes with the
//! relay.

use crate::support;

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use support::client::Client;
use support::daemon::{Daemon, MAILWEIR, Setup};
use support::mail::{header, message};
use support::sink::Sink;
use support::{Port, SOON, TestDir, program, wait_for};

const LIMITS: &str = "connections = 2\nrate = []";

/// A whole session over a Unix socket, a line after another; the first line of each reply.
fn session(path: &Path, lines: &[&str]) -> std::io::Result<Vec<String>> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut replies = BufReader::new(stream.try_clone()?);
    let mut told = Vec::new();
    let mut said = lines.iter();
    loop {
        let mut line = String::new();
        if replies.read_line(&mut line)? == 0 {
            return Ok(told);
        }
        if line.as_bytes().get(3) == Some(&b'-') {
            continue;
        }
        told.push(line.trim_end().to_owned());
        if let Some(next) = said.next() {
            stream.write_all(format!("{next}\r\n").as_bytes())?;
        }
    }
}

/// Hands in a message.
fn hand_in(path: &Path, subject: &str) {
    let content = String::from_utf8(message(subject)).expect("ASCII");
    let content = format!("{content}.");
    let told = session(
        path,
        &["EHLO app.test", "MAIL FROM:<a@sender.test>", "RCPT TO:<b@example.test>", "DATA", &content, "QUIT"],
    );
    let told = told.expect("a session");
    assert!(told.len() == 7 && told[5].starts_with("250 2.0.0 Ok: queued as "), "{told:#?}");
}

fn reload(daemon: &Daemon) -> String {
    daemon.command_ok(&["reload"], b"")
}

#[test]
fn localhost_is_both_loopback_addresses() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let mut daemon = Setup::new(&dir).via("example", "example.test", sink.address, LIMITS).prepare();
    let number = daemon.smtp.port();
    daemon.replace_config(&format!("address = \"{}\"", daemon.smtp), &format!("address = \"localhost:{number}\""));
    daemon.smtp = SocketAddr::from(([127, 0, 0, 1], number));
    daemon.start();
    daemon.client().send("<a@sender.test>", &["<b@example.test>"], &message("by IPv4"));
    let v6 = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, number));
    if std::net::TcpListener::bind("[::1]:0").is_ok() {
        Client::connect(v6).send("<a@sender.test>", &["<b@example.test>"], &message("by IPv6"));
        let received = sink.wait_subject("by IPv6", SOON);
        assert!(String::from_utf8_lossy(&received.content).contains("([IPv6:::1])"));
        assert!(daemon.command_ok(&["status"], b"").contains(&format!("127.0.0.1:{number}, [::1]:{number}")));
    } else {
        daemon.wait_log("what is missing", |line| line.event().contains("this machine has no IPv6"));
    }
    sink.wait_subject("by IPv4", SOON);
    daemon.stop();
}

/// Runs a relay where loopback has no IPv6, until its log has `what`; its log.
fn without_ipv6(daemon: &Daemon, what: &str) -> String {
    let script = format!(
        "ip link set lo up; echo 1 >/proc/sys/net/ipv6/conf/lo/disable_ipv6 && exec {MAILWEIR} --config {}",
        daemon.config.display()
    );
    let log = std::fs::File::create(&daemon.log).expect("a log");
    let mut command = std::process::Command::new(program("unshare"));
    command.args(["-n", "sh", "-c", &script]).stdout(log.try_clone().expect("a handle")).stderr(log);
    let mut relay = command.spawn().expect("it starts");
    let text = wait_for(what, SOON, || {
        let text = std::fs::read_to_string(&daemon.log).unwrap_or_default();
        (text.contains(what) || relay.try_wait().expect("its state").is_some()).then_some(text)
    });
    let _ = relay.kill();
    relay.wait().expect("it ends");
    text
}

#[test]
fn a_machine_without_ipv6_serves_127_0_0_1_and_lacks_what_was_asked_for() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("only root can take IPv6 from loopback for one process");
    }
    let dir = TestDir::new();
    let mut daemon = Setup::new(&dir).prepare();
    let (tcp, number) = (format!("address = \"{}\"", daemon.smtp), daemon.smtp.port());
    daemon.replace_config(&tcp, &format!("address = \"localhost:{number}\""));
    let log = without_ipv6(&daemon, "\"listening\"");
    assert!(log.contains("this machine has no IPv6") && log.contains(&format!("127.0.0.1:{number}")), "{log}");
    daemon.replace_config("localhost:", "[::1]:");
    let log = without_ipv6(&daemon, "cannot listen on [::1]:");
    assert!(log.contains(&format!("cannot listen on [::1]:{number}")), "{log}");
}

#[test]
fn a_unix_socket_takes_mail_of_its_users_and_goes_with_the_relay() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let path = dir.join("smtp.sock");
    let listener = format!("[[listener]]\naddress = \"unix:{}\"\nmode = \"0666\"\n", path.display());
    let setup = Setup::new(&dir).via("example", "example.test", sink.address, LIMITS).with(&listener);
    let mut daemon = setup.start();
    let file = path.symlink_metadata().expect("a file");
    assert!(file.file_type().is_socket());
    assert_eq!(file.mode() & 0o777, 0o666);
    hand_in(&path, "by the socket");
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let accepted = daemon.wait_log("accepted", |line| line.event() == "accepted");
    assert_eq!(accepted.get("client"), format!("uid={uid},gid={gid}"));
    let received = sink.wait_subject("by the socket", SOON);
    let trace = header(&received.content, "received").expect("a trace");
    assert!(trace.contains(&format!("from app.test (local, userid {uid})")), "{trace}");
    assert!(daemon.command_ok(&["status"], b"").contains(&format!("unix:{}", path.display())));

    // What a killed one left is replaced; a second relay cannot take it from the first.
    daemon.kill();
    assert!(path.exists());
    daemon.start();
    hand_in(&path, "after a kill");
    let other = TestDir::new();
    let mut second = Setup::new(&other).with(&listener).prepare();
    second.launch();
    assert_eq!(second.wait_exit(SOON).code(), Some(69));
    let why = std::fs::read_to_string(&second.log).expect("a log");
    assert!(why.contains("another process listens there"), "{why}");
    hand_in(&path, "after the second");

    // A reload changes the rights, takes the socket away, and makes it again.
    daemon.replace_config("mode = \"0666\"", "mode = \"0600\"");
    reload(&daemon);
    assert_eq!(path.metadata().expect("a file").mode() & 0o777, 0o600);
    hand_in(&path, "after a reload");
    daemon
        .replace_config(&format!("[[listener]]\naddress = \"unix:{}\"\nmode = \"0600\"\n", path.display()), "#mark#\n");
    reload(&daemon);
    assert!(!path.exists());
    daemon.replace_config("#mark#\n", &listener);
    reload(&daemon);
    hand_in(&path, "once more");
    sink.wait(5, SOON);
    daemon.stop();
    assert!(!path.exists(), "gone with the relay");
}

/// Systems clean /run: a reload makes the socket again, and says so; what it cannot do is its answer.
#[test]
fn a_socket_whose_file_was_removed_comes_back_by_a_reload() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let path = dir.join("smtp.sock");
    let listener = format!("[[listener]]\naddress = \"unix:{}\"\nmode = \"0660\"\n", path.display());
    let mut daemon = Setup::new(&dir).via("example", "example.test", sink.address, LIMITS).with(&listener).start();
    let number = || path.symlink_metadata().map(|file| file.ino()).ok();
    let first = number();
    reload(&daemon);
    assert_eq!(number(), first, "one that is there stays");

    std::fs::remove_file(&path).expect("removed");
    let told = reload(&daemon);
    assert!(told.contains(&format!("unix:{}: its file was gone, it was made again", path.display())), "{told}");
    assert_eq!(path.metadata().expect("a file").mode() & 0o777, 0o660);
    hand_in(&path, "after it was removed");
    let second = number();
    reload(&daemon);
    assert_eq!(number(), second, "only once");

    // What somebody else has put there is left alone.
    std::fs::remove_file(&path).expect("removed");
    std::fs::write(&path, "mine").expect("written");
    let refused = daemon.command(&["reload"], b"");
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && told.contains("something is there that is no socket"), "{told}");
    assert_eq!(std::fs::read_to_string(&path).expect("still there"), "mine");
    std::fs::remove_file(&path).expect("removed");
    reload(&daemon);
    hand_in(&path, "after it was moved away");
    sink.wait(2, SOON);
    daemon.stop();
    assert!(!path.exists(), "gone with the relay");
}

#[test]
fn what_is_no_socket_is_never_replaced() {
    let dir = TestDir::new();
    let (path, target) = (dir.join("smtp.sock"), dir.join("precious"));
    std::fs::write(&target, "mine").expect("written");
    std::os::unix::fs::symlink(&target, &path).expect("a link");
    let listener = format!("[[listener]]\naddress = \"unix:{}\"\n", path.display());
    let mut daemon = Setup::new(&dir).with(&listener).prepare();
    daemon.launch();
    let ended = wait_for("the end", SOON, || daemon.ended());
    assert_eq!(ended.code(), Some(69));
    let why = std::fs::read_to_string(&daemon.log).expect("a log");
    assert!(why.contains("something is there that is no socket: move it away"), "{why}");
    assert_eq!(std::fs::read_to_string(&target).expect("still there"), "mine");
    assert!(path.symlink_metadata().expect("still there").is_symlink());
}

/// Where a message came in is stored with it: it decides after a restart, too.
#[test]
fn a_route_goes_by_the_listener_and_the_client() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let (inside, outside) = (Sink::start(port.at(2)), Sink::start(port.at(3)));
    let path = dir.join("smtp.sock");
    let tables = format!(
        "[[listener]]\nname = \"inside\"\naddress = \"unix:{}\"\n\
         [provider.inside]\nrelay = \"{}\"\ntls = \"off\"\n[provider.outside]\nrelay = \"{}\"\ntls = \"off\"\n\
         [[route]]\nlistener = \"inside\"\nvia = \"inside\"\n[[route]]\nclient = [\"127.0.0.0/8\"]\nvia = \"outside\"\n",
        path.display(),
        inside.address,
        outside.address
    );
    let mut daemon = Setup::new(&dir).with(&tables).start();
    let why = daemon.command_ok(&["explain", "b@example.test", "--client", "127.0.0.1", "--listener", "inside"], b"");
    assert!(why.contains("listener = \"inside\", via = \"inside\""), "{why}");
    let why = daemon.command_ok(&["explain", "b@example.test", "--client", "127.0.0.1"], b"");
    assert!(why.contains("client = [\"127.0.0.0/8\"], via = \"outside\""), "{why}");
    let checked = daemon.command_ok(&["check"], b"");
    assert!(checked.contains("listener = \"inside\"") && checked.contains("client = [\"127.0.0.0/8\"]"), "{checked}");
    daemon.command_ok(&["provider", "pause", "inside"], b"");
    hand_in(&path, "from inside");
    daemon.client().send("<a@sender.test>", &["<b@example.test>"], &message("from outside"));
    outside.wait_subject("from outside", SOON);
    assert_eq!(daemon.queue_list(&[]).len(), 1);
    daemon.kill();
    daemon.start();
    daemon.command_ok(&["provider", "resume", "inside"], b"");
    inside.wait_subject("from inside", SOON);
    assert_eq!((inside.count(), outside.count()), (1, 1));
}

#[test]
fn sendmail_hands_in_by_the_unix_socket_where_there_is_nothing_else() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let path = dir.join("smtp.sock");
    let mut daemon = Setup::new(&dir).via("example", "example.test", sink.address, LIMITS).prepare();
    let tcp = format!("address = \"{}\"", daemon.smtp);
    daemon.replace_config(&tcp, &format!("address = \"unix:{}\"\nmax_recipients = 1", path.display()));
    daemon.launch();
    wait_for("the socket", SOON, || path.exists().then_some(()));
    let content = b"Subject: by sendmail\n\n.\n..two dots\nGr\xc3\xbc\xc3\x9fe\n";
    let to = ["b@example.test", "c@example.test"];
    let ids = daemon.command_ok(&[&["send", "-i", "-v", "-f", "a@sender.test"], &to[..]].concat(), content);
    assert_eq!(ids.split_whitespace().count(), 2, "{ids}");
    sink.wait(2, SOON);
    for received in sink.messages() {
        let text = String::from_utf8_lossy(&received.content);
        assert!(text.ends_with("\r\n\r\n.\r\n..two dots\r\nGrüße\r\n"), "{text}");
        assert!(received.from.contains("BODY=8BITMIME"), "{}", received.from);
    }
    let said = b"EHLO x\nMAIL FROM:<a@sender.test>\nRCPT TO:<b@example.test>\nDATA\nSubject: by hand\n\nx\n.\nQUIT\n";
    let replies = daemon.command_ok(&["send", "-bs"], said);
    assert!(replies.contains("250 2.0.0 Ok: queued as ") && replies.ends_with("221 2.0.0 Bye\r\n"), "{replies}");
    let refused = daemon.command(&["send", "-f", "a@sender.test", "/no address@x y"], b"Subject: x\n\n");
    assert!(!refused.status.success());
    daemon.stop();
    daemon.replace_config("hostname =", "sendmail.wait = \"0s\"\nhostname =");
    let down = daemon.command(&["send", "-f", "a@sender.test", "b@example.test"], b"Subject: x\n\n");
    assert_eq!(down.status.code(), Some(75));
    assert!(String::from_utf8_lossy(&down.stderr).contains("does not answer at unix:"), "{down:?}");
}
