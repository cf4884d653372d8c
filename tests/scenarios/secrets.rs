//! A smart host that says back what it was sent, in every way it can: no secret of the run is in anything
//! that mailweir writes, prints or sends.

use crate::support;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use support::daemon::{Daemon, Setup};
use support::mail::message;
use support::sink::Sink;
use support::{Port, SOON, TestDir, wait_for};

const FIRST: &str = "hunter2-S3cr3tPW/+~?";
const SECOND: &str = "correct horse: battery \\ staple";
/// Of another provider, to which no mail goes; it leads to the same host.
const UNUSED: &str = "an0ther-0ne-of-the-same-host";

/// What AUTH PLAIN sends.
fn plain(password: &str) -> Vec<u8> {
    format!("\0user\0{password}").into_bytes()
}

fn bytes(text: &str, escape: &str) -> String {
    text.bytes().map(|b| format!("{escape}{b:02x}")).collect()
}

/// How a server may say it: what a grep for secrets looks for.
fn forms(password: &str) -> Vec<String> {
    let mut forms = vec![
        password.to_owned(),
        password.to_uppercase(),
        bytes(password, ""),
        bytes(password, "").to_uppercase(),
        bytes(password, "%"),
        bytes(password, "=").to_uppercase(),
        STANDARD.encode(plain(password)),
        STANDARD.encode(plain(password)).replace('+', "-").replace('/', "_"),
    ];
    for before in ["", "x", "xy"] {
        // Without what the neighbours decide too.
        let encoded = STANDARD.encode(format!("{before}{password}"));
        forms.push(encoded[4..encoded.len() - 4].to_owned());
    }
    forms
}

/// A host that refuses each AUTH for now, with `words` in lines of one reply.
fn parrot(address: SocketAddr, words: Vec<String>) {
    let listener = TcpListener::bind(address).expect("an address");
    let serve = move |stream: TcpStream| -> std::io::Result<()> {
        let mut out = stream.try_clone()?;
        let mut lines = BufReader::new(stream).lines();
        out.write_all(format!("220-{FIRST}\r\n220 I know {SECOND}\r\n").as_bytes())?;
        while let Some(line) = lines.next().transpose()? {
            match line.split(' ').next().unwrap_or_default() {
                "EHLO" => out.write_all(format!("250-{UNUSED}\r\n250 AUTH PLAIN\r\n").as_bytes())?,
                "AUTH" => {
                    let (half, rest) = line.split_at(line.len() - 12);
                    let mut reply = format!("454-4.7.0 {half}\r\n454-4.7.0 {rest}\r\n");
                    words.iter().for_each(|word| reply.push_str(&format!("454-4.7.0 {word}\r\n")));
                    out.write_all(format!("{reply}454 4.7.0 later\r\n").as_bytes())?;
                }
                "QUIT" => return out.write_all(b"221 bye\r\n"),
                _ => out.write_all(b"500 what\r\n")?,
            }
        }
        Ok(())
    };
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // The relay may close in the middle of it.
            let _ = serve(stream);
        }
    });
}

/// Everything to look into, by name.
#[derive(Default)]
struct Written(Vec<(String, Vec<u8>)>);

impl Written {
    fn command(&mut self, daemon: &Daemon, arguments: &[&str]) {
        let output = daemon.command(arguments, b"");
        self.0.push((arguments.join(" "), [output.stdout, output.stderr].concat()));
    }

    fn commands(&mut self, daemon: &Daemon, id: &str) {
        for arguments in [
            &["queue", "list"][..],
            &["queue", "list", "--json"],
            &["queue", "show", id, "--body"],
            &["queue", "show", id, "--json"],
            &["provider", "list"],
            &["provider", "list", "--json"],
            &["provider", "show", "smart"],
            &["provider", "show", "smart", "--json"],
            &["explain", "somebody@example.test"],
            &["status"],
            &["status", "--json"],
            &["check"],
            &["check", "--json"],
            &["reload"],
        ] {
            self.command(daemon, arguments);
        }
    }

    /// All files below the directory, but the configuration, which has one of the secrets, and the files of
    /// secrets.
    fn files(&mut self, dir: &Path) {
        for entry in std::fs::read_dir(dir).expect("the directory") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_file() && !["config.toml", "second", "unused"].contains(&name.as_str()) {
                self.0.push((name, std::fs::read(&path).expect("a file")));
            }
        }
    }

    fn all(&self) -> impl Iterator<Item = (&str, String)> {
        self.0.iter().map(|(name, bytes)| (name.as_str(), String::from_utf8_lossy(bytes).into_owned()))
    }

    /// `needle` in none of it, whatever line breaks and white space are in between.
    fn assert_none(&self, needle: &str) {
        let bare = |text: &str| text.to_lowercase().chars().filter(|c| !c.is_whitespace()).collect::<String>();
        let wanted = bare(needle);
        // JSON and quoted texts double a backslash.
        let doubled = wanted.replace('\\', "\\\\");
        for (name, text) in self.all() {
            let text = bare(&text);
            assert!(!text.contains(&wanted) && !text.contains(&doubled), "`{needle}` is in {name}");
        }
    }
}

fn setup(dir: &TestDir, port: &Port, sink: &Sink) -> Setup {
    let (second, unused) = (dir.write("second", SECOND), dir.write("unused", UNUSED));
    let smart = |name: &str, user: &str, secret: &str| {
        format!(
            "[provider.{name}]\nmatch = {{ domains = [\"{name}.example.test\"] }}\nrelay = \"{}\"\ntls = \"off\"\n\
             auth = {{ user = \"{user}\", password = {secret} }}\nretry = {{ first = \"1s\", max = \"1s\", expire = \"3s\" }}\n\
             [[route]]\nrecipient = \"*@{name}.example.test\"\nvia = \"{name}\"\n",
            port.at(3)
        )
    };
    Setup::new(dir)
        .with(&smart("smart", "user", &format!("'{FIRST}'")))
        .with(&smart("second", "user", &format!("{{ file = \"{}\" }}", second.display())))
        .with(&smart("unused", "other", &format!("{{ file = \"{}\" }}", unused.display())))
        .via("back", "sender.test", sink.address, "")
}

#[test]
fn no_secret_is_in_anything_that_is_written_printed_or_sent() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let words: Vec<String> = [FIRST, SECOND, UNUSED].iter().flat_map(|secret| forms(secret)).collect();
    // Of all, what fits in the text that is kept of a reply, and the rest of it in another life.
    let (some, rest) = words.split_at(words.len() / 2);
    let mut written = Written::default();
    let mut daemon = setup(&dir, &port, &sink).start();
    for (life, words) in [some, rest].into_iter().enumerate() {
        parrot(if life == 0 { port.at(3) } else { port.at(4) }, words.to_vec());
        for name in ["smart", "second"] {
            let to = format!("<somebody@{name}.example.test>");
            let id = daemon.client().send("<sender@sender.test>", &[&to], &message(&format!("to {name}")));
            daemon.wait_row("deferred", |row| row.id() == id && row.reason().contains("454"));
            written.commands(&daemon, &id);
        }
        // They expire, and the sender gets told.
        sink.wait(2 * (life + 1), SOON);
        written.command(&daemon, &["backup", &dir.join(&format!("copy-{life}.db")).display().to_string()]);
        daemon.stop();
        if life == 0 {
            // The log for people, another host, and a line that is refused.
            let text = std::fs::read_to_string(&daemon.config).expect("the configuration");
            let text = text.replace("format = \"json\"", "format = \"text\"");
            std::fs::write(&daemon.config, text.replace(&port.at(3).to_string(), &port.at(4).to_string()))
                .expect("written");
            daemon.start();
            let good = std::fs::read_to_string(&daemon.config).expect("the configuration");
            let bad = [format!("password = {FIRST}"), format!("password = {{ \"{FIRST}\" = 1 }}")];
            for (refused, bad) in bad.into_iter().enumerate() {
                let broken = good.replace(&format!("password = '{FIRST}'"), &bad);
                assert_ne!(broken, good);
                std::fs::write(&daemon.config, broken).expect("written");
                written.command(&daemon, &["reload"]);
                written.command(&daemon, &["check", "--json"]);
                daemon.signal(rustix::process::Signal::HUP);
                // Or it would find the good file, and reload in the middle of what follows.
                wait_for("a reload by signal that is refused", SOON, || {
                    let log = std::fs::read_to_string(&daemon.log).unwrap_or_default();
                    (log.matches("by=\"SIGHUP\"").count() > refused).then_some(())
                });
            }
            std::fs::write(&daemon.config, good).expect("written");
        }
    }
    for (n, received) in sink.messages().iter().enumerate() {
        written.0.push((format!("report {n}"), received.content.to_vec()));
    }
    written.files(dir.path());

    let reports = written.all().filter(|(name, text)| name.starts_with("report") && text.contains("454")).count();
    assert_eq!(reports, 4, "each report quotes the reply");
    let masked = written.all().filter(|(_, text)| text.contains("***")).count();
    assert!(masked >= 20, "what the host said is told: {masked}");
    assert!(written.0.iter().any(|(name, text)| name == "queue.db" && !text.is_empty()));
    for needle in words {
        written.assert_none(&needle);
    }
}
