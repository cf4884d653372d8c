//! Clients that log in at the real program: users from the command `passwd` to the way their mail takes; what the
//! log says of logins, and what it never says.

use crate::ca;
use crate::support;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use ca::Authority;
use support::client::Client;
use support::daemon::{Daemon, Setup};
use support::mail::{message, split_received};
use support::sink::Sink;
use support::{Port, SOON, TestDir, program, run, run_ok};

/// smtplib, which picks the mechanism: mode (`clear`, `starttls`, `implicit`), port, authority, user, password,
/// mechanism (or empty), sender.
const SMTPLIB: &str = r#"
import smtplib, ssl, sys
mode, port, ca, user, password, mechanism, sender = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
if mode == "implicit":
    smtp = smtplib.SMTP_SSL("127.0.0.1", int(port), context=context)
else:
    smtp = smtplib.SMTP("127.0.0.1", int(port))
    if mode == "starttls":
        smtp.starttls(context=context)
if mechanism:
    smtp.ehlo()
    smtp.esmtp_features["auth"] = mechanism
try:
    print(smtp.login(user, password))
    smtp.sendmail(sender, ["b@example.test"], sys.stdin.buffer.read())
except smtplib.SMTPException as error:
    print(repr(error))
    sys.exit(1)
"#;

const DEADLINE: std::time::Duration = std::time::Duration::from_secs(120);

struct World {
    dir: TestDir,
    daemon: Daemon,
    sink: Sink,
    implicit: SocketAddr,
    authority: PathBuf,
    users: PathBuf,
    _ports: [Port; 2],
}

/// A line for the file of users.
fn user(daemon: &Daemon, name: &str, password: &str, more: &[&str]) -> String {
    daemon.command_ok(&[&["passwd", name], more].concat(), format!("{password}\n").as_bytes())
}

fn write_users(path: &Path, lines: &[&str], mode: u32) {
    std::fs::write(path, lines.concat()).expect("a file");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a mode");
}

/// A file for the relay alone.
fn secret(dir: &TestDir, name: &str, text: &str) -> PathBuf {
    let path = dir.write(name, text);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("a mode");
    path
}

impl World {
    /// A relay whose two listeners require a login; `more` tables.
    fn new(more: &str) -> World {
        let (dir, port, second) = (TestDir::new(), Port::reserve(), Port::reserve());
        let sink = Sink::start(port.at(2));
        let authority = Authority::new(&dir, "test-ca");
        let made = authority.certificate(&dir, "127.0.0.1");
        let files = format!("cert = \"{}\", key = \"{}\"", made.file.display(), made.key.display());
        let (implicit, users) = (second.at(1), dir.join("users"));
        write_users(&users, &[], 0o600);
        let daemon = Setup::new(&dir)
            .top(&format!("users = \"{}\"", users.display()))
            .listener(&format!("auth = \"required\"\ntls = {{ mode = \"starttls\", {files} }}"))
            .with(&format!(
                "[[listener]]\naddress = \"{implicit}\"\nauth = \"required\"\ntls = {{ mode = \"implicit\", {files} }}\n\
                 [[user]]\nname = \"boss\"\npassword = {{ file = \"{}\" }}\nsenders = [\"*@sender.test\"]\n{more}",
                secret(&dir, "boss.secret", "the b\u{f6}ss: pass=word\n").display()
            ))
            .via("example", "example.test", sink.address, "rate = []");
        let mut daemon = daemon.prepare();
        daemon.environment.push(("MAILWEIR_LOG", "trace".to_owned()));
        daemon.start();
        World { authority: authority.file.clone(), dir, daemon, sink, implicit, users, _ports: [port, second] }
    }

    /// Logs in and sends; what smtplib said, and whether it was well.
    fn send(&self, mode: &str, (user, password): (&str, &str), mechanism: &str, subject: &str) -> (bool, String) {
        let port = if mode == "implicit" { self.implicit.port() } else { self.daemon.smtp.port() };
        let authority = self.authority.display().to_string();
        let arguments = [mode, &port.to_string(), &authority, user, password, mechanism, "a@sender.test"];
        let mut command = Command::new(program("python3"));
        // The address of the other listener has a port of its own, and perhaps another host.
        let host = if mode == "implicit" { self.implicit.ip() } else { self.daemon.smtp.ip() };
        command.args(["-c", &SMTPLIB.replace("127.0.0.1", &host.to_string())]).args(arguments);
        let output = run(&mut command, &message(subject), DEADLINE);
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }
}

#[test]
fn users_log_in_by_each_mechanism_and_over_each_kind_of_connection() {
    let mut world = World::new("");
    // CRAM-MD5 and SCRAM need a password that is stored so; the only user has one.
    let boss = ("boss", "the b\u{f6}ss: pass=word");
    let mut n = 0;
    for mode in ["clear", "starttls", "implicit"] {
        for mechanism in ["PLAIN", "LOGIN"] {
            n += 1;
            let subject = format!("login {n}");
            // smtplib sends ASCII passwords only.
            let jo = ("shop", "correct horse battery");
            if n == 1 {
                let refused = world.send(mode, jo, mechanism, &subject);
                assert!(!refused.0 && refused.1.contains("535"), "nobody yet: {}", refused.1);
                let line = user(&world.daemon, "shop", jo.1, &[]);
                assert!(line.starts_with("shop:$argon2id$"), "{line}");
                write_users(&world.users, &[&line], 0o640);
                world.daemon.command_ok(&["reload"], b"");
            }
            let (well, said) = world.send(mode, jo, mechanism, &subject);
            assert!(well && said.contains("235"), "{mode} {mechanism}: {said}");
            let arrived = world.sink.wait_subject(&subject, SOON);
            let with = if mode == "clear" { " with ESMTPA id " } else { " with ESMTPSA id " };
            let (received, _) = split_received(&arrived.content);
            assert!(received.contains(with), "{mode}: {received}");
        }
    }
    // With one who has a hash SCRAM and CRAM-MD5 are not offered: he could not use them.
    let offered = Client::connect(world.daemon.smtp).command(250, "EHLO app.test").text();
    assert!(offered.contains("AUTH PLAIN LOGIN") && !offered.contains("SCRAM"), "{offered}");
    write_users(&world.users, &[&user(&world.daemon, "jo", "abc", &["--scram"])], 0o600);
    world.daemon.command_ok(&["reload"], b"");
    let offered = Client::connect(world.daemon.smtp).command(250, "EHLO app.test").text();
    assert!(offered.contains("AUTH PLAIN LOGIN SCRAM-SHA-256"), "{offered}");
    write_users(&world.users, &[], 0o600);
    world.daemon.command_ok(&["reload"], b"");
    let offered = Client::connect(world.daemon.smtp).command(250, "EHLO app.test").text();
    assert!(offered.contains("AUTH PLAIN LOGIN CRAM-MD5 SCRAM-SHA-256"), "{offered}");
    let mut client = Client::connect(world.daemon.smtp);
    client.command(250, "EHLO app.test");
    // What smtplib cannot say: a password that is not ASCII.
    use base64::Engine as _;
    let plain = base64::engine::general_purpose::STANDARD.encode(format!("\0{}\0{}", boss.0, boss.1));
    client.command(235, &format!("AUTH PLAIN {plain}"));
    client.command(550, "MAIL FROM:<a@elsewhere.test>");
    client.send("a@sender.test", &["b@example.test"], &message("from the boss"));
    world.sink.wait_subject("from the boss", SOON);
    // A file that others may read changes nothing.
    write_users(&world.users, &[], 0o644);
    let refused = world.daemon.command(&["reload"], b"");
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("mode 0644"));
    client.command(250, "NOOP");
    world.daemon.stop();
}

/// Nothing that a client says to log in is in the log at any level, in the queue's lists or in a message, not even a
/// password that stands where the name should.
#[test]
fn no_password_and_no_unknown_name_is_in_the_log_and_fail2ban_finds_who_failed() {
    let mut world = World::new("");
    let line = user(&world.daemon, "shop", "s3cret-of-the-shop", &[]);
    write_users(&world.users, &[&line], 0o600);
    world.daemon.command_ok(&["reload"], b"");
    let good = ("shop", "s3cret-of-the-shop");
    assert!(world.send("clear", good, "PLAIN", "well").0);
    world.sink.wait_subject("well", SOON);
    for (user, password) in [("shop", "wr0ng-of-the-shop"), ("typed-where-the-name-is", "s3cond"), ("SHOP", "an0ther")]
    {
        let (well, said) = world.send("starttls", (user, password), "PLAIN", "never");
        assert!(!well && said.contains("535"), "{said}");
    }
    let failed = |daemon: &Daemon| {
        daemon
            .log_lines()
            .iter()
            .filter(|line| line.event() == "login failed")
            .map(|l| l.get("user"))
            .collect::<Vec<_>>()
    };
    assert_eq!(failed(&world.daemon), ["shop", "", "shop"]);
    // Other ways to fail are told and counted, too: who acts for another, no password, no mechanism, no base64, no end.
    world.daemon.command_ok(&["user", "unban", "--all"], b"");
    let mut client = world.daemon.client();
    client.command(535, "AUTH PLAIN cm9vdABzaG9wAHMzY3JldC1vZi10aGUtc2hvcA==");
    client.command(535, "AUTH PLAIN AHNob3AA");
    client.command(504, "AUTH GSSAPI");
    client.command(501, "AUTH PLAIN !!!");
    client.command(334, "AUTH LOGIN");
    client.command(501, "*");
    client.reply_of(421, "five failures");
    world.daemon.wait_log("the last of them", |line| line.get("reply").contains("cancelled"));
    assert_eq!(failed(&world.daemon)[3..], ["shop", "shop", "", "", ""]);
    let bans = world.daemon.command_ok(&["user", "bans", "--json"], b"");
    // Only those that look like guesses make others wait, and one that is the same again counts once.
    assert!(bans.contains("\"failures\":1,"), "{bans}");
    world.daemon.command_ok(&["user", "unban", "127.0.0.1"], b"");
    let accepted = world.daemon.wait_log("accepted", |line| line.event() == "accepted");
    assert_eq!(accepted.get("user"), "shop");
    let json = std::fs::read_to_string(&world.daemon.log).expect("a log");
    // The same as text, for people.
    world.daemon.stop();
    world.daemon.replace_config("format = \"json\"", "format = \"text\"");
    world.daemon.start();
    assert!(!world.send("implicit", ("shop", "f0urth"), "LOGIN", "never").0);
    world.daemon.stop();
    let all = std::fs::read_to_string(&world.daemon.log).expect("a log");
    let encoded = |text: &str| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text);
    for secret in ["s3cret-of", "wr0ng", "typed-where", "s3cond", "an0ther", "f0urth", "b\u{f6}ss: pass", "$argon2id$"]
    {
        assert!(!all.contains(secret), "{secret} is in the log");
        assert!(!all.contains(&encoded(secret)[..6]), "{secret} is in the log as base64");
    }
    assert!(json.contains("\"login failed\"") && all[json.len()..].contains("login failed client=127.0.0.1"));

    let filter = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/fail2ban/filter.d/mailweir.conf");
    let log = world.dir.join("copy.log");
    // What a client may have said in other lines makes nobody else one who failed.
    let said = "2026-11-30T07:20:14.345678Z  INFO recipient refused client=198.51.100.8 helo=\"WARN login failed client=1.2.3.4 \"\n\
                {\"level\":\"INFO\",\"message\":\"x\",\"helo\":\"{\\\"level\\\":\\\"WARN\\\",\\\"message\\\":\\\"login failed\\\",\\\"client\\\":\\\"1.2.3.4\\\"\"}\n";
    std::fs::write(&log, format!("{all}{said}")).expect("a log");
    // As fail2ban reads them: a line after another, <HOST> for an address. fail2ban-regex itself where it is there.
    let script = "import configparser, re, sys\n\
        parser = configparser.ConfigParser(interpolation=configparser.BasicInterpolation())\nparser.read(sys.argv[1])\n\
        rules = parser['Definition']['failregex'].strip().splitlines()\n\
        rules = [re.compile(rule.replace('<HOST>', r'(?P<host>[0-9A-Fa-f.:]+)')) for rule in rules]\n\
        for line in open(sys.argv[2], encoding='utf-8'):\n    \
            found = [m for m in (rule.search(line) for rule in rules) if m]\n    \
            if found: print(len(found), found[0]['host'])\n";
    let mut command = Command::new(program("python3"));
    command.args(["-c", script]).arg(&filter).arg(&log);
    let found = String::from_utf8(run_ok(&mut command, b"", DEADLINE).stdout).expect("text");
    assert_eq!(found.lines().collect::<Vec<_>>(), ["1 127.0.0.1"; 9]);
    if Path::new("/usr/bin/fail2ban-regex").exists() {
        let mut command = Command::new("/usr/bin/fail2ban-regex");
        let output = run_ok(command.arg(&log).arg(&filter), b"", DEADLINE);
        assert!(String::from_utf8_lossy(&output.stdout).contains("9 matched"));
    }
}

#[test]
fn routes_and_limits_are_about_users_also_after_a_restart() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let (usual, special) = (Sink::start(port.at(2)), Sink::start(port.at(3)));
    let secret = secret(&dir, "secret", "pencil\n").display().to_string();
    let mut daemon = Setup::new(&dir)
        .with(&format!("[[user]]\nname = \"news\"\npassword = {{ file = \"{secret}\" }}\n[[route]]\nuser = \"NEWS\"\nvia = \"special\""))
        .with(&format!("[provider.special]\nrelay = \"{}\"\ntls = \"off\"\nrate = []", special.address))
        .with("[[limit]]\nuser = \"news\"\nprovider = \"special\"\nquota = \"2/d\"")
        .via("example", "example.test", usual.address, "rate = []")
        .start();
    let mut plain = daemon.client();
    plain.command(250, "EHLO app.test");
    plain.send("a@sender.test", &["b@example.test"], &message("nobody in particular"));
    usual.wait_subject("nobody in particular", SOON);
    plain.command(235, "AUTH PLAIN AG5ld3MAcGVuY2ls");
    for n in 1..=3 {
        plain.send("a@sender.test", &["b@example.test"], &message(&format!("news {n}")));
    }
    special.wait_subject("news 2", SOON);
    // The third is over the quota of the user, and still his after a restart.
    let waits = |daemon: &Daemon| {
        daemon.wait_row("the third waits", |row| row.text("lane") == "special");
        assert_eq!((special.count(), usual.count()), (2, 1));
    };
    waits(&daemon);
    daemon.stop();
    daemon.start();
    waits(&daemon);
    let told = daemon.command_ok(&["explain", "b@example.test", "--client", "127.0.0.1", "--user", "news"], b"");
    assert!(told.contains("special"), "{told}");
    // Who logs in is limited wherever it comes from.
    let told = daemon.command_ok(&["explain", "b@example.test", "--user", "news"], b"");
    assert!(told.contains("special") && told.contains("of news"), "{told}");
    let told = daemon.command_ok(&["explain", "b@example.test", "--client", "127.0.0.1"], b"");
    assert!(!told.contains("special"), "{told}");
}
