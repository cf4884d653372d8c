//! `sendmail` and the names beside it, as programs call them: the program itself through links,
//! against a relay of this test that records what it is told.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const MAILWEIR: &str = env!("CARGO_BIN_EXE_mailweir");

/// A directory with links and a configuration.
struct Site {
    dir: tempfile::TempDir,
}

struct Done {
    code: i32,
    out: String,
    err: String,
}

impl Done {
    #[track_caller]
    fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self.out
    }

    #[track_caller]
    fn fails(self, code: i32, message: &str) {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        assert!(self.err.contains(message), "{message} in {}", self.err);
    }
}

impl From<Output> for Done {
    fn from(o: Output) -> Done {
        Done {
            code: o.status.code().expect("it was not killed"),
            out: String::from_utf8(o.stdout).expect("UTF-8"),
            err: String::from_utf8(o.stderr).expect("UTF-8"),
        }
    }
}

impl Site {
    /// With a relay on this port, or what was one.
    fn new(port: u16, more: &str) -> Site {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["sendmail", "mailq", "newaliases"] {
            symlink(MAILWEIR, dir.path().join(name)).expect("a link");
        }
        let store = dir.path().join("q.db");
        let text = format!(
            "hostname = 'relay.example'\n{more}\n[[listener]]\naddress = '127.0.0.1:{port}'\n[queue]\nstore = 'sqlite:{}'\n",
            store.display()
        );
        std::fs::write(dir.path().join("my.toml"), text).expect("written");
        Site { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, name: &str, args: &[&str]) -> Command {
        let mut command = match name {
            "send" => {
                let mut command = Command::new(MAILWEIR);
                command.args(["--config", "my.toml", "send"]);
                command
            }
            link => {
                let mut command = Command::new(self.path(link));
                command.args(["-C", "my.toml"]);
                command
            }
        };
        command.current_dir(self.dir.path()).args(args);
        command
    }

    fn run(&self, name: &str, args: &[&str], input: &[u8]) -> Done {
        let mut command = self.command(name, args);
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().expect("it starts");
        // It may give up before it has read everything.
        let _ = child.stdin.take().expect("a pipe").write_all(input);
        Done::from(child.wait_with_output().expect("it ends"))
    }
}

/// A port that was free a moment ago: nobody listens there.
fn nobody() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port()
}

/// A relay that takes one message with these replies to the commands, and returns what it was sent.
fn one_smtp_session(replies: &'static [(&'static str, &'static str)]) -> (u16, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = listener.local_addr().expect("an address").port();
    let session = std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a client");
        serve(stream, replies)
    });
    (port, session)
}

/// Serves one connection; returns what it was sent. A "reply" to `MAX` is how many recipients it takes at once.
fn serve(stream: std::net::TcpStream, replies: &[(&str, &str)]) -> String {
    let mut out = stream.try_clone().expect("cloned");
    out.write_all(b"220 relay.example ESMTP\r\n").expect("written");
    let most = replies.iter().find(|(start, _)| *start == "MAX").map_or(usize::MAX, |(_, n)| n.parse().expect(n));
    let (mut all, mut in_data, mut taken) = (String::new(), false, 0);
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    while lines.read_line(&mut line).is_ok_and(|n| n > 0) {
        let reply = match (in_data, line.as_str()) {
            (true, ".\r\n") => {
                in_data = false;
                "250 2.0.0 queued as 1p8000000000k\r\n".into()
            }
            (true, _) => String::new(),
            (false, command) => {
                in_data = command.starts_with("DATA");
                let verb = command.split([' ', '\r']).next().unwrap_or_default();
                taken = if verb == "RCPT" { taken + 1 } else { 0 };
                if taken > most {
                    let _ = out.write_all(b"452 4.5.3 Too many recipients\r\n");
                    all.push_str(&std::mem::take(&mut line));
                    continue;
                }
                let said = replies.iter().find(|(start, _)| command.starts_with(start)).map(|(_, reply)| *reply);
                let usual = match verb {
                    "EHLO" => "250-relay.example\r\n250-SMTPUTF8\r\n250 8BITMIME",
                    "DATA" => "354 go on",
                    "QUIT" => "221 bye",
                    _ => "250 2.0.0 ok",
                };
                format!("{}\r\n", said.unwrap_or(usual))
            }
        };
        all.push_str(&line);
        line.clear();
        if out.write_all(reply.as_bytes()).is_err() {
            break;
        }
    }
    all
}

fn send(port: u16, args: &[&str], message: &[u8]) -> Done {
    Site::new(port, "sendmail.wait = '0s'").run("send", args, message)
}

/// What the relay was told from MAIL on, when a program calls `sendmail` so.
fn told(name: &str, args: &[&str], message: &[u8]) -> String {
    let (port, session) = one_smtp_session(&[]);
    let done = Site::new(port, "").run(name, args, message);
    assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (0, "", ""), "{args:?}: silent on success");
    let sent = session.join().expect("the session ends");
    sent.split_once("\r\n").expect("EHLO").1.to_owned()
}

#[test]
fn send_hands_the_message_over_as_it_is() {
    let (port, session) = one_smtp_session(&[]);
    let message = b"To: A <a@x.example>, b@x.example\nBcc: c@x.example\nSubject: hi\n\n.\n..two\nJ\xc3\xb6rg\n.";
    let done = send(port, &["-t", "-i", "-v", "-f", "me@shop.example", "z@x.example", "a@x.example"], message);
    assert_eq!(done.ok(), "1p8000000000k\n");
    let sent = session.join().expect("the session ends");
    let after_helo = sent.split_once("\r\n").expect("EHLO").1;
    assert_eq!(
        after_helo,
        "MAIL FROM:<me@shop.example> BODY=8BITMIME\r\nRCPT TO:<z@x.example>\r\nRCPT TO:<a@x.example>\r\n\
         RCPT TO:<b@x.example>\r\nRCPT TO:<c@x.example>\r\nDATA\r\nTo: A <a@x.example>, b@x.example\r\n\
         Bcc: c@x.example\r\nSubject: hi\r\nFrom: me@shop.example\r\n\r\n..\r\n...two\r\nJörg\r\n..\r\n.\r\nQUIT\r\n"
    );
}

#[test]
fn send_from_a_file_with_the_null_sender() {
    let (port, session) = one_smtp_session(&[]);
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("m.eml");
    std::fs::write(&file, "Subject: x\r\n\r\nbody\r\n").expect("written");
    let file = file.to_string_lossy().into_owned();
    send(port, &["-f", "", "--file", &file, "a@x.example"], b"").ok();
    let sent = session.join().expect("the session ends");
    assert!(
        sent.contains("MAIL FROM:<>\r\nRCPT TO:<a@x.example>\r\nDATA\r\nSubject: x\r\nFrom: MAILER-DAEMON@relay.example\r\n\r\nbody\r\n.\r\n"),
        "{sent}"
    );
}

#[test]
fn send_says_when_nothing_was_queued() {
    // A port that was free a moment ago: nobody listens there.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    send(port, &["a@x.example"], b"Subject: x\n\n")
        .fails(75, "nothing was queued: mailweir does not answer at 127.0.0.1:");
    let (port, session) = one_smtp_session(&[("RCPT TO:<b", "550 5.7.1 relaying denied")]);
    send(port, &["a@x.example", "b@x.example"], b"Subject: x\n\n")
        .fails(69, "nothing was queued: b@x.example is refused: ");
    assert!(!session.join().expect("ended").contains("DATA"));
    let (port, session) = one_smtp_session(&[("DATA", "452 4.3.1 the queue's storage is full")]);
    send(port, &["a@x.example"], b"Subject: x\n\n").fails(75, "nothing was queued: the message is refused: ");
    drop(session);
    send(port, &["-t"], b"Subject: x\n\nTo: a@x.example\n").fails(64, "the message has no recipients in To, Cc or Bcc");
}

/// How programs call it; none of these is an error, and none loses the message.
#[test]
fn every_spelling_of_real_programs_sends_the_message() {
    for (args, envelope) in [
        (&["-t", "-i"][..], "RCPT TO:<a@x.example>\r\n"),
        (&["-oi", "-fme@x.example", "-t"], "MAIL FROM:<me@x.example>\r\nRCPT TO:<a@x.example>\r\n"),
        (&["-FCronDaemon", "-i", "-B8BITMIME", "-oem", "root"], "RCPT TO:<root>\r\n"),
        (
            &["-FCronDaemon", "-i", "-odi", "-oem", "-oi", "-t", "-f", "root"],
            "MAIL FROM:<root>\r\nRCPT TO:<a@x.example>\r\n",
        ),
        (
            &["-oem", "-oi", "-f", "me@x.example", "--", "b@x.example"],
            "MAIL FROM:<me@x.example>\r\nRCPT TO:<b@x.example>\r\n",
        ),
        (&["-h5", "b@x.example"], "RCPT TO:<b@x.example>\r\n"),
        (
            &["-bm", "-O", "Nonsense=1", "-oXyz", "-G", "-U", "-Ltag", "-X", "/dev/null", "b@x.example"],
            "RCPT TO:<b@x.example>\r\n",
        ),
        (
            &["-N", "never", "-R", "hdrs", "-V", "id+1", "-f", "<>", "b@x.example"],
            "MAIL FROM:<> RET=HDRS ENVID=id+2B1\r\nRCPT TO:<b@x.example> NOTIFY=NEVER\r\n",
        ),
        (&["b@x.example, root", "c@x.example"], "RCPT TO:<b@x.example>\r\nRCPT TO:<root>\r\nRCPT TO:<c@x.example>\r\n"),
        (
            &["-f", "Jo <me@x.example>", "-t", "b@x.example"],
            "MAIL FROM:<me@x.example>\r\nRCPT TO:<b@x.example>\r\nRCPT TO:<a@x.example>\r\n",
        ),
    ] {
        let sent = told("sendmail", args, b"To: a@x.example\nSubject: hi\n\nhello\n");
        let (before, content) = sent.split_once("DATA\r\n").expect("DATA");
        assert!(before.ends_with(envelope) || before == envelope, "{args:?}: {before}");
        assert!(content.starts_with("To: a@x.example\r\nSubject: hi\r\n"), "{args:?}: {content}");
        assert!(content.ends_with("\r\n\r\nhello\r\n.\r\nQUIT\r\n"), "{args:?}: {content}");
    }
}

/// All of them, in every field, also names without a domain; what blind copies are is the relay's affair.
#[test]
fn no_recipient_of_a_header_is_left_out() {
    let message = "\u{feff}To: A <a@x.example>\nTo: root, b@x.example\nCc: c@x.example\nCc: g: d@x.example;\n\
        Bcc: e@x.example,\r\r\n f@x.example\r\nBcc: g@x.example\n\nhi\n";
    let sent = told("sendmail", &["-t"], message.as_bytes());
    let asked: Vec<&str> = sent.lines().filter_map(|line| line.strip_prefix("RCPT TO:")).collect();
    let wanted = [
        "a@x.example",
        "root",
        "b@x.example",
        "c@x.example",
        "d@x.example",
        "e@x.example",
        "f@x.example",
        "g@x.example",
    ];
    assert_eq!(asked, wanted.map(|address| format!("<{address}>")));
    assert!(sent.contains("\r\nTo: root@relay.example, b@x.example\r\n"), "{sent}");
    let resent = "Resent-To: new@x.example\nResent-From: me@x.example\nTo: old@x.example\n\nhi\n";
    assert!(told("sendmail", &["-t"], resent.as_bytes()).contains("RCPT TO:<new@x.example>\r\nDATA"));
    // Nobody at all, rather than all but one.
    Site::new(nobody(), "")
        .run("sendmail", &["-t"], b"To: a@x.example, Jo Smith\n\nhi\n")
        .fails(65, "`Jo Smith` is no address");
}

/// From the uid, whatever the environment says.
#[test]
fn the_sender_is_the_user_and_not_what_variables_say() {
    let (port, session) = one_smtp_session(&[]);
    let site = Site::new(port, "default_domain = 'corp.example'");
    let mut command = site.command("sendmail", &["a@x.example"]);
    command.env("USER", "mallory").env("LOGNAME", "mallory").stdin(Stdio::null());
    Done::from(command.output().expect("it starts")).ok();
    let sent = session.join().expect("the session ends");
    assert!(!sent.contains("mallory"), "{sent}");
    assert!(sent.contains("@corp.example>\r\nRCPT TO:") && sent.contains("@corp.example>\r\n\r\n"), "{sent}");
}

#[test]
fn a_dot_ends_the_message_unless_asked_not_to() {
    let message = b"Subject: x\n\nbefore\n.\nafter\n";
    assert!(!told("sendmail", &["a@x.example"], message).contains("after"));
    for (name, args) in
        [("sendmail", &["-i", "a@x.example"][..]), ("sendmail", &["-oi", "a@x.example"]), ("send", &["a@x.example"])]
    {
        assert!(told(name, args, message).contains("before\r\n..\r\nafter\r\n.\r\n"), "{name} {args:?}");
    }
}

#[test]
fn what_cannot_be_done_is_said_and_never_ends_with_0() {
    let site = Site::new(nobody(), "sendmail.wait = '0s'");
    for (args, code, said) in [
        (&[][..], 64, "to whom?"),
        (&["-Z", "a@x.example"], 64, "`-Z` is not an option"),
        (&["a b@x.example"], 64, "`a b@x.example` is no address"),
        (&["a@x.example\r\nRCPT TO:<b@x.example>"], 64, "no address"),
        (&["-f", "a@x.example, b@x.example", "c@x.example"], 64, "expected one sender"),
        (&["-bd"], 64, "the relay listens itself"),
        (&["-bt"], 64, "mailweir explain ADDRESS"),
        (&["-bX"], 64, "expected m, s, v, p or i"),
        (&["a@x.example"], 75, "nothing was queued: mailweir does not answer at"),
        (&["-bv", "a@x.example"], 75, "sendmail: mailweir does not answer"),
        (&["-bv"], 64, "-bv: whom?"),
    ] {
        site.run("sendmail", args, b"Subject: x\n\nhi\n").fails(code, said);
    }
    // How long it was tried is told where it was.
    let patient = Site::new(nobody(), "sendmail.wait = '1s'");
    let done = patient.run("sendmail", &["a@x.example"], b"Subject: x\n\nhi\n");
    assert!(
        done.code == 75 && done.err.ends_with("Connection refused (os error 111); tried for 1 s\n"),
        "{}",
        done.err
    );
    let done = site.run("sendmail", &["-bs"], b"EHLO me\r\n");
    assert_eq!((done.code, done.out.as_str()), (75, "421 4.3.2 mailweir is not running, try again later\r\n"));
    assert!(site.run("send", &["--help"], b"").ok().contains("Usage: mailweir send"));
}

/// A relay that starts while it waits gets the message.
#[test]
fn sendmail_waits_for_a_relay_that_is_down() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = listener.local_addr().expect("an address").port();
    let site = Site::new(port, "sendmail.wait = '30s'");
    let waiting = std::thread::spawn({
        let mut command = site.command("sendmail", &["-v", "a@x.example"]);
        move || Done::from(command.stdin(Stdio::null()).output().expect("it starts"))
    });
    // The first tries end without a word, as those at a relay that is just ending.
    for _ in 0..3 {
        drop(listener.accept().expect("a try"));
    }
    let (stream, _) = listener.accept().expect("another try");
    let session = std::thread::spawn(move || serve(stream, &[]));
    assert_eq!(waiting.join().expect("it ends").ok(), "1p8000000000k\n");
    assert!(session.join().expect("ended").contains("RCPT TO:<a@x.example>"));
}

#[test]
fn with_a_spool_a_message_waits_in_a_file() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o3733)).expect("mode");
    let site = Site::new(nobody(), &format!("sendmail.wait = '30s'\nsendmail.spool = '{}'", dir.path().display()));
    let began = Instant::now();
    let done = site.run("sendmail", &["-v", "-f", "me@x.example", "-N", "never", "root"], b"Subject: x\n\nhi\n");
    assert!(began.elapsed() < Duration::from_secs(25), "it does not wait");
    assert!(done.ok().starts_with("in the spool as msg-"));
    let files: Vec<PathBuf> =
        std::fs::read_dir(dir.path()).expect("listed").map(|e| e.expect("an entry").path()).collect();
    let [file] = files.as_slice() else { panic!("{files:?}") };
    let text = std::fs::read_to_string(file).expect("read");
    assert_eq!(
        text,
        "mailweir-spool 1\nsender me@x.example\nrecipient root\nnotify 1\nsize 38\n\n\
         Subject: x\r\nFrom: me@x.example\r\n\r\nhi\r\n"
    );
    // What the relay has refused for good is not kept for another try.
    let (port, session) = one_smtp_session(&[("RCPT", "550 5.7.1 no")]);
    let refused = Site::new(port, &format!("sendmail.spool = '{}'", dir.path().display()));
    refused.run("sendmail", &["a@x.example"], b"x\n").fails(69, "a@x.example is refused");
    drop(session);
    assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 1);
    // Without a directory it is as if there were none.
    let site = Site::new(nobody(), "sendmail.wait = '0s'\nsendmail.spool = '/nonexistent/spool'");
    site.run("sendmail", &["root"], b"x\n").fails(75, "nor can it wait in /nonexistent/spool");
}

#[test]
fn all_recipients_are_asked_for_before_the_first_of_several_transactions() {
    let to = ["a@x.example", "b@x.example", "c@x.example"];
    let (port, session) = one_smtp_session(&[("MAX", "2")]);
    assert_eq!(
        send(port, &[&["-v", "-f", "me@x.example"], &to[..]].concat(), b"x\n").ok(),
        "1p8000000000k 1p8000000000k\n"
    );
    let sent = session.join().expect("ended");
    let verbs: Vec<&str> = sent.lines().filter_map(|l| l.split([' ', ':']).next()).filter(|v| v.len() == 4).collect();
    let asked = ["EHLO", "MAIL", "RCPT", "RCPT", "RCPT", "RSET", "MAIL", "RCPT", "RSET"];
    let made = ["MAIL", "RCPT", "RCPT", "DATA", "From", "MAIL", "RCPT", "DATA", "From", "QUIT"];
    assert_eq!(verbs, [&asked[..], &made].concat(), "{sent}");
    // One that is refused, in whatever transaction it would be: nothing is queued for anybody.
    let (port, session) = one_smtp_session(&[("MAX", "2"), ("RCPT TO:<c", "550 5.1.1 no such user")]);
    send(port, &[&["-f", "me@x.example"], &to[..]].concat(), b"x\n").fails(69, "c@x.example is refused");
    assert!(!session.join().expect("ended").contains("DATA"));
    let (port, session) = one_smtp_session(&[("MAX", "2")]);
    let done = Site::new(port, "").run("sendmail", &[&["-bv"], &to[..]].concat(), b"");
    assert_eq!((done.code, done.out.matches("deliverable").count()), (0, 3), "{}", done.out);
    drop(session);
}

#[test]
fn verify_asks_the_relay_and_sends_nothing() {
    const TAKEN: &str = "deliverable: mailweir would take it\n";
    // What the relay says to RCPT or MAIL, the exit code, what is printed, and what is said of it.
    type Case = (&'static [(&'static str, &'static str)], i32, String, &'static str);
    let table: [Case; 5] = [
        (&[("RCPT TO:<c", "550 no")], 0, format!("root... {TAKEN}b@x.example... {TAKEN}"), ""),
        (
            &[("RCPT TO:<b", "550 5.1.1 no such user")],
            67,
            format!("root... {TAKEN}b@x.example... undeliverable: 550 5.1.1 no such user\n"),
            "sendmail: 1 of 2 recipients would be refused\n",
        ),
        (
            &[("RCPT TO:<b", "451 4.3.0 later")],
            75,
            format!("root... {TAKEN}b@x.example... not now: 451 4.3.0 later\n"),
            "sendmail: 1 of 2 recipients would not be taken now\n",
        ),
        (&[("MAIL", "550 5.7.1 not you")], 69, String::new(), "sendmail: the sender is refused: 550 5.7.1 not you\n"),
        (&[("MAIL", "452 4.3.1 full")], 75, String::new(), "sendmail: the sender is refused: 452 4.3.1 full\n"),
    ];
    for (reply, code, out, err) in table {
        let (port, session) = one_smtp_session(reply);
        let done = Site::new(port, "").run("sendmail", &["-bv", "root", "b@x.example"], b"");
        assert_eq!((done.code, done.out, done.err.as_str()), (code, out, err), "{reply:?}");
        assert!(!session.join().expect("ended").contains("DATA"));
    }
}

/// A fault elsewhere in the file, or a password that only the relay may read, is nothing to a user.
#[test]
fn only_what_is_needed_of_the_configuration_is_read() {
    let (port, session) = one_smtp_session(&[]);
    let more = "frobnicate = 1\n[provider.ses]\nrelay = 'h.example:587'\n\
        auth = { user = 'u', password = { file = '/nonexistent/password' } }\n[default]\nrate = '0/s'";
    Site::new(port, more).run("sendmail", &["a@x.example"], b"x\n").ok();
    assert!(session.join().expect("ended").contains("DATA"));
}

#[test]
fn newaliases_looks_at_the_file_and_mailq_at_the_queue() {
    let site = Site::new(nobody(), "");
    assert!(site.run("newaliases", &[], b"").ok().starts_with("no alias_file is configured: nothing to do"));
    site.run("mailq", &[], b"").fails(69, "mailweir is not running: there is no queue at");
    assert!(site.run("sendmail", &["-q"], b"").ok().is_empty());
    let site = Site::new(nobody(), "alias_file = 'aliases'");
    std::fs::write(site.path("aliases"), "# all\nroot: jo@x.example,\n  ann\nann: a@x.example\n").expect("written");
    let said = site.run("sendmail", &["-bi"], b"").ok();
    assert!(said.starts_with("aliases: 2 aliases\nnot in force yet: mailweir is not running"), "{said}");
    for (text, told) in [
        ("root: |/bin/sh\n", "newaliases: aliases:1: `|/bin/sh` is a command"),
        ("a: b\nb: a\n", "`a` leads back to itself: a → b → a"),
    ] {
        std::fs::write(site.path("aliases"), text).expect("written");
        site.run("newaliases", &[], b"").fails(78, told);
    }
}
