//! A program hands over the letter: to a relay that takes it, to one that refuses, and to nobody.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use mailweir::config::StoredPassword;

use super::ca::Authority;
use super::case::{Case, Role, Told};
use super::letter::{FROM, FROM_NAME, Letter, RECIPIENTS, SUBJECT};
use super::machine::{Ended, Machine, Running, within};
use super::support::daemon::{Daemon, LogLine, MAILWEIR, Setup};
use super::support::sink::Sink;
use super::support::{Port, SOON, TestDir};

/// Mail servers look at their queues every few seconds at the soonest.
const ARRIVAL: Duration = Duration::from_secs(60);

/// A relay with a receiver behind it, and the letter.
struct Site<'a> {
    case: &'a Case,
    machine: &'a Machine,
    daemon: Daemon,
    sink: Sink,
    letter: Letter,
    /// A listener that lets nobody relay.
    closed: SocketAddr,
    /// The program, where every user may run it.
    program: PathBuf,
    dir: TestDir,
    /// Keeps them reserved.
    ports: Vec<Port>,
    /// Further variables of the program.
    told: Vec<(&'static str, String)>,
}

/// The user of a site that requires a login.
const LOGIN: [&str; 2] = ["jo", "pencil-1234"];

impl<'a> Site<'a> {
    /// One that requires a login; the listener that the program is to talk to, and what it is told beside the rest.
    fn with_login(case: &'a Case, machine: &'a Machine, way: &str) -> (Site<'a>, Vec<(&'static str, String)>) {
        let dir = TestDir::new();
        let host = Port::reserve();
        let authority = Authority::new(&dir, "interop-ca");
        let made = authority.certificate(&dir, &host.at(1).ip().to_string());
        let hash = StoredPassword::hash(LOGIN[1]).expect("a hash");
        let mode = if way == "implicit" { "implicit" } else { "starttls" };
        let keys = format!(
            "[[user]]\nname = \"{}\"\npassword = \"{hash}\"\n[[listener]]\naddress = \"{}\"\nauth = \"required\"\n{}",
            LOGIN[0],
            host.at(1),
            match way {
                "clear" => String::new(),
                _ => format!("tls = {{ mode = \"{mode}\", cert = {:?}, key = {:?} }}", made.file, made.key),
            }
        );
        let told = vec![
            ("LOGIN", LOGIN[0].to_owned()),
            ("PASSWORD", LOGIN[1].to_owned()),
            ("TLS", way.to_owned()),
            ("CA", authority.file.display().to_string()),
        ];
        let mut site = Site::beside(case, machine, dir, &keys);
        site.daemon.smtp = host.at(1);
        site.ports.push(host);
        (site, told)
    }

    fn new(case: &'a Case, machine: &'a Machine) -> Site<'a> {
        Site::beside(case, machine, TestDir::new(), "")
    }

    /// With these tables, too.
    fn beside(case: &'a Case, machine: &'a Machine, dir: TestDir, keys: &str) -> Site<'a> {
        let ports = vec![Port::reserve(), Port::reserve()];
        let sink = Sink::start(ports[0].at(2));
        let closed = ports[1].at(1);
        let daemon = Setup::new(&dir)
            .top(&format!("default_domain = \"client.test\"\naliases = {{ root = {RECIPIENTS:?} }}"))
            .with(&format!("[[listener]]\naddress = \"{closed}\"\nallow = [\"192.0.2.1/32\"]"))
            .with("[sendmail]\nwait = \"1s\"")
            .with(keys)
            .via("example", "example.test", sink.address, "")
            .via("client", "*.test", sink.address, "")
            .start();
        let program = dir.join("mailweir");
        if std::fs::hard_link(MAILWEIR, &program).is_err() {
            std::fs::copy(MAILWEIR, &program).expect("a copy");
        }
        std::fs::set_permissions(&daemon.config, std::fs::Permissions::from_mode(0o644)).expect("mode");
        let letter = Letter::write(&dir, case);
        Site { case, machine, daemon, sink, letter, closed, program, dir, ports, told: Vec::new() }
    }

    /// What the program is told.
    fn variables(&self, server: SocketAddr) -> Vec<(&'static str, String)> {
        let path = |path: &PathBuf| path.display().to_string();
        let mut variables = vec![
            ("HOST", server.ip().to_string()),
            ("PORT", server.port().to_string()),
            ("FROM", FROM.to_owned()),
            ("FROM_NAME", FROM_NAME.to_owned()),
            ("SUBJECT", SUBJECT.to_owned()),
            ("TO", RECIPIENTS[0].to_owned()),
            ("ALSO", RECIPIENTS[1].to_owned()),
            ("COPY", RECIPIENTS[2].to_owned()),
            ("BLIND", RECIPIENTS[3].to_owned()),
            ("TEXT", path(&self.letter.text_file)),
            ("ATTACHMENT", path(&self.letter.attachment_file)),
            ("MESSAGE", path(&self.letter.message_file)),
            ("MAILWEIR", path(&self.program)),
            ("SELF", path(&std::env::current_exe().expect("this program"))),
        ];
        variables.extend(self.told.iter().cloned());
        if self.case.role == Role::Sendmail {
            let config = if server == self.daemon.smtp { path(&self.daemon.config) } else { self.config(server) };
            variables.extend([("LINK", "yes".to_owned()), ("CONFIG", config)]);
        }
        variables
    }

    /// A configuration that leads `sendmail` to that listener.
    fn config(&self, server: SocketAddr) -> String {
        let text = format!(
            "hostname = \"relay.test\"\ndefault_domain = \"client.test\"\n[[listener]]\naddress = \"{server}\"\n\
             [sendmail]\nwait = \"1s\"\n"
        );
        self.dir.write("other.toml", text).display().to_string()
    }

    fn command(&self, task: &str) -> Vec<String> {
        self.case.run.iter().cloned().chain([task.to_owned()]).collect()
    }

    fn run(&self, server: SocketAddr, task: &str) -> Ended {
        self.machine.start(self.dir.path(), &self.variables(server), &self.command(task)).wait()
    }

    /// Waits until every recipient has it, and compares.
    fn arrived(&self, mut running: Option<&mut Running>) -> Result<(), String> {
        let wanted = || {
            let to: Vec<String> = self.sink.messages().into_iter().flat_map(|m| m.to).collect();
            RECIPIENTS.iter().all(|want| to.iter().any(|got| got.contains(want)))
        };
        let all = within(ARRIVAL, || {
            // What was sent before a program ended may still be under way for a moment.
            let gone = running.as_mut().is_some_and(|r| r.ended().is_some()) && self.daemon.queue_list(&[]).is_empty();
            if wanted() { Some(true) } else { gone.then_some(false) }
        });
        if all != Some(true) && !wanted() {
            let to: Vec<String> = self.sink.messages().into_iter().flat_map(|m| m.to).collect();
            return Err(format!("it arrived for {to:?} only"));
        }
        let mut to = Vec::new();
        for message in self.sink.messages() {
            let faults = self.letter.faults(&message.content);
            if !faults.is_empty() {
                return Err(faults.join("; "));
            }
            to.extend(message.to);
        }
        let unique: std::collections::BTreeSet<&String> = to.iter().collect();
        if unique.len() != to.len() {
            return Err(format!("somebody has it twice: {to:?}"));
        }
        Ok(())
    }

    /// The task as told, and how it went.
    fn whole(&self) -> Result<(), String> {
        if self.case.stays {
            let mut running =
                self.machine.start(self.dir.path(), &self.variables(self.daemon.smtp), &self.command("whole"));
            let result = self.arrived(Some(&mut running));
            let ended = running.ended().map(|code| format!(" (it ended with {code})")).unwrap_or_default();
            return result.map_err(|e| format!("{e}{ended}\n{}", running.said()));
        }
        let ended = self.run(self.daemon.smtp, "whole");
        if ended.code != 0 {
            return Err(format!("it exits with {}: {}", ended.code, ended.said));
        }
        self.arrived(None).map_err(|e| format!("{e}\n{}", ended.said))
    }

    fn refused(&self) -> Result<(), String> {
        match &self.case.refused {
            Told::Not(_) => return Ok(()),
            Told::Says(text) if self.case.stays => self.says(text, self.closed, "refused")?,
            _ => check(&self.case.refused, &self.run(self.closed, "refused"))?,
        }
        if self.sink.count() > 0 { Err("it was sent all the same".to_owned()) } else { Ok(()) }
    }

    /// Waits until the program says so.
    fn says(&self, text: &str, server: SocketAddr, task: &str) -> Result<(), String> {
        let mut running = self.machine.start(self.dir.path(), &self.variables(server), &self.command(task));
        let over = |running: &mut Running| running.said().contains(text) || running.ended().is_some();
        within(ARRIVAL, || over(&mut running).then_some(()));
        if running.said().contains(text) {
            Ok(())
        } else {
            Err(format!("it does not say `{text}`: {}", running.said()))
        }
    }

    fn down(&mut self) -> Result<(), String> {
        if matches!(self.case.down, Told::Not(_)) {
            return Ok(());
        }
        self.daemon.stop();
        if self.case.down != Told::Kept {
            return check(&self.case.down, &self.run(self.daemon.smtp, "down"));
        }
        // The program writes this file when it has tried.
        let mut running = self.machine.start(self.dir.path(), &self.variables(self.daemon.smtp), &self.command("down"));
        let tried = self.dir.join("tried");
        within(ARRIVAL, || (tried.exists() || running.ended().is_some()).then_some(()));
        if !tried.exists() {
            return Err(format!("it never tried: {}", running.said()));
        }
        self.daemon.start();
        self.arrived(Some(&mut running)).map_err(|e| format!("{e}\n{}", running.said()))
    }
}

fn check(told: &Told, ended: &Ended) -> Result<(), String> {
    let right = match told {
        Told::Code(code) => ended.code == *code,
        Told::Says(text) => ended.code != 0 && ended.said.contains(text),
        Told::Kept | Told::Not(_) => true,
    };
    if right { Ok(()) } else { Err(format!("it exits with {}, not as {told:?}: {}", ended.code, ended.said)) }
}

/// The letter of a user who has to log in.
fn logs_in(case: &Case, machine: &Machine, way: &str) -> Result<(), String> {
    let (mut site, told) = Site::with_login(case, machine, way);
    site.told = told;
    site.whole()?;
    let encrypted = way != "clear";
    let as_user = |line: &LogLine| line.event() == "accepted" && line.get("user") == LOGIN[0];
    let lines = site.daemon.log_lines();
    match lines.iter().find(|line| as_user(line)) {
        None => Err("nothing was accepted of its user".to_owned()),
        Some(line) if line.get("tls").is_empty() == encrypted => Err(format!("tls is {:?}", line.get("tls"))),
        Some(_) => Ok(()),
    }
}

/// All that is wrong.
pub fn try_all(case: &Case, machine: &Machine) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut note = |what: &str, result: Result<(), String>| {
        if let Err(error) = result {
            wrong.push(format!("{what}: {error}"));
        }
    };
    let site = Site::new(case, machine);
    note("the letter", site.whole());
    site.sink.assert_legal();
    site.daemon.wait_queue_empty(SOON);
    drop(site);
    for way in &case.logins {
        note(&format!("a login, {way}"), logs_in(case, machine, way));
    }
    note("refused", Site::new(case, machine).refused());
    note("nobody listens", Site::new(case, machine).down());
    wrong
}
