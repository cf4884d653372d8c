//! Local programs hand in mail through a link called `sendmail`: the relay itself, and the programs
//! themselves, as their packages bring them.
//!
//! Programs that have the path built in (cron, at, anacron) see the link at /usr/sbin/sendmail in a mount
//! namespace of their own, which needs root; as another user these say so and end.

use crate::support;

use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use support::daemon::{Daemon, MAILWEIR, Setup};
use support::mail::header;
use support::sink::{Received, Sink};
use support::{Port, SOON, TestDir, program, run, run_ok, wait_for};

const DEADLINE: Duration = Duration::from_secs(120);
/// No user of any system has a name for it.
const SOMEBODY: u32 = 54_321;

/// A relay whose `root` is somebody at a receiver, and a `sendmail` that finds it.
struct Site {
    daemon: Daemon,
    sink: Sink,
    dir: TestDir,
    _port: Port,
}

impl Site {
    fn new(top: &str) -> Site {
        let (dir, port) = (TestDir::new(), Port::reserve());
        let sink = Sink::start(port.at(2));
        let top = format!("default_domain = \"corp.test\"\naliases = {{ root = \"somebody@example.test\" }}\n{top}");
        let setup = Setup::new(&dir).top(&top).via("example", "*.test", sink.address, "connections = 2");
        let daemon = setup.start();
        std::fs::set_permissions(&daemon.config, std::fs::Permissions::from_mode(0o644)).expect("mode");
        // Under a directory that any user may enter.
        let program = dir.join("mailweir");
        if std::fs::hard_link(MAILWEIR, &program).is_err() {
            std::fs::copy(MAILWEIR, &program).expect("a copy");
        }
        for name in ["sendmail", "mailq", "newaliases"] {
            symlink(&program, dir.subdir("bin").join(name)).expect("a link");
        }
        Site { daemon, sink, dir, _port: port }
    }

    fn link(&self, name: &str) -> PathBuf {
        self.dir.join("bin").join(name)
    }

    /// A script that calls the link with the configuration of this test, as /usr/sbin/sendmail is called.
    fn script(&self) -> PathBuf {
        let text =
            format!("#!/bin/sh\nexec {} -C {} \"$@\"\n", self.link("sendmail").display(), self.daemon.config.display());
        let path = self.dir.write("sendmail", text);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("mode");
        path
    }

    fn sendmail(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.link("sendmail"));
        command.arg("-C").arg(&self.daemon.config).args(arguments);
        command
    }

    /// The next message with this in it.
    fn arrives(&self, what: &str) -> Received {
        wait_for(&format!("a message with {what}"), DEADLINE, || {
            self.sink.messages().into_iter().find(|m| String::from_utf8_lossy(&m.content).contains(what))
        })
    }
}

/// What a program that must succeed says.
fn output_of(command: &mut Command, input: &[u8]) -> String {
    String::from_utf8(run_ok(command, input, DEADLINE).stdout).expect("UTF-8")
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn more_recipients_than_the_relay_takes_at_once_go_in_several_transactions() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let setup = Setup::new(&dir).listener("max_recipients = 2").via("example", "*.test", sink.address, "");
    let daemon = setup.start();
    let to = ["a@x.test", "b@x.test", "c@x.test", "d@x.test", "e@x.test"];
    let ids = daemon.command_ok(&[&["send", "-v", "-f", "me@x.test"], &to[..]].concat(), b"Subject: to five\n\nx\n");
    assert_eq!(ids.split_whitespace().filter(|id| id.len() == 13).count(), 3, "{ids}");
    let everybody = || sink.messages().iter().flat_map(|m| m.to.clone()).collect::<std::collections::BTreeSet<_>>();
    wait_for("all five", SOON, || (everybody().len() == 5).then_some(()));
    daemon.wait_queue_empty(SOON);
    assert_eq!(daemon.log_lines().iter().filter(|line| line.event() == "accepted").count(), 3);
}

#[test]
fn names_without_a_domain_and_aliases_lead_somewhere() {
    let site = Site::new("");
    let mut client = site.daemon.client();
    client.send(
        "<root>",
        &["<root>", "<Root@Relay.test>", "<printer>"],
        b"Subject: names\r\nBcc: x@y.test\r\nReturn-Path: <a@b>\r\n\r\nhi\r\n",
    );
    let accepted = site.daemon.wait_log("accepted", |line| line.event() == "accepted");
    assert_eq!(accepted.get("alias"), "root");
    let content = String::from_utf8(site.arrives("Subject: names").content.to_vec()).expect("ASCII");
    assert!(content.contains("\r\nFrom: <root@corp.test>\r\n"), "{content}");
    assert!(!content.contains("Bcc") && !content.contains("Return-Path"), "{content}");
    site.daemon.wait_queue_empty(SOON);
    let mut to: Vec<String> = site.sink.messages().into_iter().flat_map(|m| m.to).collect();
    to.sort();
    assert_eq!(to, ["<printer@corp.test>", "<somebody@example.test>"], "one recipient, named twice");
    // What `sendmail -bv` says is what the relay says.
    let told = output_of(&mut site.sendmail(&["-bv", "root"]), b"");
    assert_eq!(told, "root... deliverable: mailweir would take it\n");
}

/// A web application, a user of a container: no name, no right to read the configuration or the queue.
#[test]
fn any_user_may_send() {
    if !is_root() {
        return eprintln!("only root can become another user");
    }
    let site = Site::new("");
    let as_somebody = |arguments: &[&str]| {
        let mut command = site.sendmail(arguments);
        command.uid(SOMEBODY).gid(SOMEBODY).env("USER", "root");
        command
    };
    run_ok(&mut as_somebody(&["-t"]), b"To: somebody@example.test\nSubject: by somebody\n\nhi\n", DEADLINE);
    let arrived = site.arrives("by somebody");
    assert!(arrived.from.starts_with(&format!("<uid{SOMEBODY}@corp.test>")), "{}", arrived.from);
    assert_eq!(header(&arrived.content, "From"), Some(format!("uid{SOMEBODY}@corp.test")));
    // Without the right to read the file, the default address is tried, and the reason is told.
    std::fs::set_permissions(&site.daemon.config, std::fs::Permissions::from_mode(0o640)).expect("mode");
    let mut command = as_somebody(&["-bv", "root"]);
    let output = run(&mut command, b"", DEADLINE);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() != Some(78), "{said}");
    if output.status.code() == Some(75) {
        assert!(said.contains("Permission denied") && said.contains("default address"), "{said}");
    }
    let mut mailq = Command::new(site.link("mailq"));
    let output = run(mailq.arg("-C").arg(&site.daemon.config).uid(SOMEBODY).gid(SOMEBODY), b"", DEADLINE);
    assert!(!output.status.success(), "the queue is not everybody's to read");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("Permission denied") && said.contains("default queue"), "{said}");
    std::fs::set_permissions(&site.daemon.config, std::fs::Permissions::from_mode(0o644)).expect("mode");
    let Site { mut daemon, dir, .. } = site;
    daemon.stop();
    let mut mailq = Command::new(dir.join("bin").join("mailq"));
    let output = run(mailq.arg("-C").arg(&daemon.config).uid(SOMEBODY).gid(SOMEBODY), b"", DEADLINE);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("may not open its queue") && said.contains("as root"), "{said}");
    assert_eq!(output.status.code(), Some(69));
}

#[test]
fn a_dialog_on_standard_input_is_that_of_the_relay() {
    let site = Site::new("");
    let dialog = "EHLO me.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<root>\r\nDATA\r\nSubject: by dialog\r\n\r\nhi\r\n.\r\nQUIT\r\n";
    let said = output_of(&mut site.sendmail(&["-bs"]), dialog.as_bytes());
    assert!(
        said.starts_with("220 relay.test ESMTP") && said.contains("queued as") && said.ends_with("221 2.0.0 Bye\r\n"),
        "{said}"
    );
    assert_eq!(site.arrives("by dialog").to, ["<somebody@example.test>"]);
    let mut mailq = Command::new(site.link("mailq"));
    site.daemon.wait_queue_empty(SOON);
    assert_eq!(output_of(mailq.arg("-C").arg(&site.daemon.config), b""), "Mail queue is empty\n");
}

#[test]
fn what_came_while_the_relay_was_down_is_taken_up_at_its_start() {
    let dir = TestDir::new();
    let spool = dir.subdir("spool");
    std::fs::set_permissions(&spool, std::fs::Permissions::from_mode(0o3733)).expect("mode");
    let mut site = Site::new(&format!("sendmail.spool = \"{}\"", spool.display()));
    site.daemon.stop();
    let message = b"Subject: while it was down\nBcc: nobody@example.test\n\nhi\n.\n";
    let mut command = site.sendmail(&["-v", "-f", "app", "root", "two@example.test"]);
    if is_root() {
        command.uid(SOMEBODY).gid(SOMEBODY);
    }
    let said = output_of(&mut command, message);
    assert!(said.starts_with("in the spool as msg-"), "{said}");
    std::fs::write(spool.join("msg-junk"), "junk").expect("written");
    symlink("/etc/passwd", spool.join("msg-link")).expect("a link");
    site.daemon.start();
    let arrived = site.arrives("while it was down");
    assert!(arrived.from.starts_with("<app@corp.test>"), "{}", arrived.from);
    let received = header(&arrived.content, "Received").expect("a Received field");
    let user = if is_root() { SOMEBODY } else { rustix::process::geteuid().as_raw() };
    assert!(received.contains(&format!("by relay.test (spool, from userid {user})")), "{received}");
    assert!(!String::from_utf8_lossy(&arrived.content).contains("nobody@example.test"));
    let taken = site.daemon.wait_log("taken up", |line| line.event() == "taken up from the spool");
    assert_eq!(taken.get("user"), user.to_string());
    let mut kept: Vec<String> = wait_for("the spool without mail", SOON, || {
        let names: Vec<String> = std::fs::read_dir(&spool)
            .ok()?
            .map(|e| e.map(|e| e.file_name().to_string_lossy().into_owned()).ok())
            .collect::<Option<_>>()?;
        names.iter().all(|name| name.starts_with("bad-")).then_some(names)
    });
    kept.sort();
    assert_eq!(kept, ["bad-junk", "bad-link"]);
    // Another start sends nothing again.
    site.daemon.wait_queue_empty(SOON);
    site.daemon.stop();
    site.daemon.start();
    site.daemon.client().send("<a@b.test>", &["<root>"], b"Subject: last\r\n\r\nhi\r\n");
    site.arrives("Subject: last");
    let times = site
        .sink
        .messages()
        .iter()
        .filter(|m| String::from_utf8_lossy(&m.content).contains("while it was down"))
        .count();
    assert!(times <= 2, "once for each recipient, or once for both: {times}");
}

/// The relay is killed with a message of the spool in its hands: before the queue has it, and after.
#[test]
fn a_kill_while_the_spool_is_taken_up_loses_nothing() {
    for (point, most) in [("spool.taken", 1), ("spool.queued", 2)] {
        let dir = TestDir::new();
        let spool = dir.subdir("spool");
        std::fs::set_permissions(&spool, std::fs::Permissions::from_mode(0o3733)).expect("mode");
        let mut site = Site::new(&format!("sendmail.spool = \"{}\"", spool.display()));
        site.daemon.stop();
        for subject in ["first", "second"] {
            let message = format!("Subject: {subject} of two\n\nhi\n");
            run_ok(&mut site.sendmail(&["root"]), message.as_bytes(), DEADLINE);
        }
        site.daemon.environment = vec![("MAILWEIR_CRASH_AT", format!("{point}:1"))];
        site.daemon.launch();
        site.daemon.wait_exit(SOON);
        site.daemon.environment = Vec::new();
        site.daemon.start();
        site.arrives("Subject: first of two");
        site.arrives("Subject: second of two");
        let gone = || std::fs::read_dir(&spool).is_ok_and(|mut left| left.next().is_none()).then_some(());
        wait_for("an empty spool", SOON, gone);
        site.daemon.wait_queue_empty(SOON);
        assert!(site.sink.count() <= 1 + most, "{point}: {}", site.sink.count());
    }
}

/// Programs whose `sendmail` can be named.
#[test]
fn programs_send_through_the_link() {
    let site = Site::new("");
    let (script, link, config) = (site.script(), site.link("sendmail"), site.daemon.config.clone());
    let (script, link, config) = (script.display(), link.display(), config.display());
    let home = site.dir.subdir("home");
    let command = |name: &str, arguments: &[&str]| {
        let mut command = Command::new(program(name));
        command.args(arguments).env("HOME", &home).env("MAILRC", "/dev/null").current_dir(&home);
        command
    };
    let php = "mail('somebody@example.test', 'php-mail', \"line\\n.\\nlast line\", \"Cc: two@example.test\\r\\nBcc: three@example.test\") or exit(1);";
    let path = format!("sendmail_path={link} -C {config} -t -i");
    run_ok(&mut command("php", &["-d", &path, "-r", php]), b"", DEADLINE);
    let arrived = site.arrives("Subject: php-mail");
    assert!(String::from_utf8_lossy(&arrived.content).ends_with("last line\r\n"));
    site.daemon.wait_queue_empty(SOON);
    let mut to: Vec<String> = site.sink.messages().into_iter().flat_map(|m| m.to).collect();
    to.sort();
    assert_eq!(to, ["<somebody@example.test>", "<three@example.test>", "<two@example.test>"]);

    let mailer = format!(
        "require '/usr/share/php/libphp-phpmailer/autoload.php'; $m = new PHPMailer\\PHPMailer\\PHPMailer(true); $m->isSendmail(); \
         $m->Sendmail = '{script}'; $m->setFrom('me@example.test'); $m->addAddress('somebody@example.test'); \
         $m->addBCC('blind@example.test'); $m->Subject = 'phpmailer-mail'; $m->Body = 'a body'; $m->send();"
    );
    run_ok(&mut command("php", &["-r", &mailer]), b"", DEADLINE);
    let arrived = site.arrives("Subject: phpmailer-mail");
    assert!(arrived.from.starts_with("<me@example.test>"), "{}", arrived.from);
    assert!(!String::from_utf8_lossy(&arrived.content).contains("blind"), "a blind copy stays one");

    let draft = "To: somebody@example.test\nFrom: me@example.test\nSubject: nmh-mail\n--------\na body\n";
    let draft = site.dir.write("draft", draft).display().to_string();
    std::fs::create_dir_all(home.join("Mail")).expect("a directory");
    std::fs::write(home.join(".mh_profile"), "Path: Mail\n").expect("written");
    let sendmail = script.to_string();
    run_ok(&mut command("mh/send", &["-mts", "sendmail/pipe", "-sendmail", &sendmail, &draft]), b"", DEADLINE);
    site.arrives("Subject: nmh-mail");

    let set = format!("set sendmail=\"{script} -oem -oi\"");
    let mutt = ["-n", "-F", "/dev/null", "-e", &set, "-e", "set copy=no", "-s", "mutt-mail", "somebody@example.test"];
    run_ok(&mut command("mutt", &mutt), b"a body\n.\nlast line\n", DEADLINE);
    assert!(String::from_utf8_lossy(&site.arrives("Subject: mutt-mail").content).contains("last line"));

    let mta = format!("mta=file://{script}");
    let nail =
        ["-n", "-S", "v15-compat=yes", "-S", &mta, "-r", "me@example.test", "-s", "nail-mail", "somebody@example.test"];
    run_ok(&mut command("s-nail", &nail), b"a body\n", DEADLINE);
    assert!(site.arrives("Subject: nail-mail").from.starts_with("<me@example.test>"));

    let set = format!("set sendmail=sendmail:{script}");
    run_ok(&mut command("mail.mailutils", &["-E", &set, "-s", "mailutils-mail", "root"]), b"a body\n", DEADLINE);
    assert_eq!(site.arrives("Subject: mailutils-mail").to, ["<somebody@example.test>"]);

    let patch = "From 1111111111111111111111111111111111111111 Mon Sep 17 00:00:00 2001\nFrom: Jo <jo@example.test>\n\
        Date: Sat, 21 Nov 2026 09:00:00 +0000\nSubject: [PATCH] git-mail\n\n---\n x | 1 +\n\n-- \n2.0\n";
    let patch = site.dir.write("0001.patch", patch).display().to_string();
    let mailer = format!("--sendmail-cmd={script}");
    let identity = ["GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"];
    let identity = identity.map(|name| (name, "jo@example.test"));
    let git = [
        "send-email",
        "--envelope-sender=auto",
        &mailer,
        "--from=jo@example.test",
        "--to=somebody@example.test",
        "--confirm=never",
        "--quiet",
        &patch,
    ];
    run_ok(command("git", &git).env("GIT_CONFIG_NOSYSTEM", "1").envs(identity), b"", DEADLINE);
    assert!(site.arrives("Subject: [PATCH] git-mail").from.starts_with("<jo@example.test>"));
}

/// Ends a program of the system and all that it started.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = rustix::process::Pid::from_raw(self.0.id().cast_signed()) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.0.wait();
    }
}

/// Runs a script where /usr/sbin/sendmail leads to mailweir, and nobody else sees that.
fn in_namespace(site: &Site, script: &str) -> Group {
    let (sendmail, log) = (site.script(), site.dir.join("namespace.log"));
    let script = format!("set -e\nmount --bind {} /usr/sbin/sendmail\n{script}", sendmail.display());
    let log = std::fs::File::create(log).expect("a log");
    let mut command = Command::new(program("unshare"));
    command.args(["-m", "sh", "-c", &script]).process_group(0).stdin(Stdio::null());
    command.stdout(log.try_clone().expect("a handle")).stderr(log);
    Group(command.spawn().expect("it starts"))
}

#[test]
fn cron_at_and_anacron_send_their_output() {
    if !is_root() {
        return eprintln!("only root can put a link at /usr/sbin/sendmail for one process");
    }
    for name in ["sendmail", "cron", "atd", "at", "anacron"] {
        program(name);
    }
    let site = Site::new("");
    let work = site.dir.subdir("work").display().to_string();
    let _cron = in_namespace(
        &site,
        "mount -t tmpfs none /run\nmount -t tmpfs none /var/spool/cron\nmount -t tmpfs none /etc/cron.d\n\
         mount --bind /dev/null /etc/crontab\nmkdir -p /var/spool/cron/crontabs\n\
         echo '@reboot echo cron says hello' >/var/spool/cron/crontabs/root\nchmod 600 /var/spool/cron/crontabs/root\n\
         exec cron -f\n",
    );
    let arrived = site.arrives("cron says hello");
    assert_eq!(arrived.to, ["<somebody@example.test>"], "root is an alias");
    assert!(header(&arrived.content, "From").is_some_and(|from| from.contains("root@corp.test")), "a domain is added");

    let _at = in_namespace(
        &site,
        "mount -t tmpfs none /run\nmount -t tmpfs none /var/spool/cron\nmkdir -p /var/spool/cron/atjobs /var/spool/cron/atspool\n\
         echo 0 >/var/spool/cron/atjobs/.SEQ\nchown daemon:daemon /var/spool/cron/at* /var/spool/cron/atjobs/.SEQ\nchmod 1770 /var/spool/cron/atjobs /var/spool/cron/atspool\n\
         cd /\natd -f -b 0 &\necho 'echo at says hello' | at now\nwait\n",
    );
    assert_eq!(site.arrives("at says hello").to, ["<somebody@example.test>"]);

    let table = "MAILTO=root\nSHELL=/bin/sh\n1 0 hello echo anacron says hello\n";
    let table = site.dir.write("anacrontab", table).display().to_string();
    let _anacron = in_namespace(&site, &format!("anacron -d -f -n -s -t {table} -S {work}\n"));
    assert_eq!(site.arrives("anacron says hello").to, ["<somebody@example.test>"]);
}
