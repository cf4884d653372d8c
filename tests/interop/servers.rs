//! mailweir delivers the letter to a server: whole, refused, and after the server was down.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::ca::Authority;
use super::case::{Case, Told};
use super::letter::{FROM, Letter, OCTETS, RECIPIENTS, read};
use super::machine::{Machine, Running, within};
use super::support::daemon::{Daemon, Setup, tail};
use super::support::sink::Sink;
use super::support::{Port, TestDir};

const START: Duration = Duration::from_secs(120);
const ARRIVAL: Duration = Duration::from_secs(45);
/// Whom every server of the table refuses.
const REFUSED: &str = "refused@example.test";

struct Site<'a> {
    case: &'a Case,
    machine: &'a Machine,
    daemon: Daemon,
    /// Where reports to the sender go, and what a server passes on that keeps no mail itself.
    sink: Sink,
    letter: Letter,
    server: SocketAddr,
    variables: Vec<(&'static str, String)>,
    mail: PathBuf,
    dir: TestDir,
    _ports: [Port; 2],
}

impl<'a> Site<'a> {
    fn new(case: &'a Case, machine: &'a Machine) -> Site<'a> {
        let (dir, ports) = (TestDir::new(), [Port::reserve(), Port::reserve()]);
        let sink = Sink::start(ports[0].at(2));
        let server = ports[1].at(1);
        // Where a server that takes tokens has them from.
        let [tokens, introspection] = [ports[1].at(2), ports[1].at(3)];
        let authority = Authority::new(&dir, "test-ca");
        let mut keys = String::from("retry = { first = \"500ms\", factor = 1.0, max = \"1s\" }\n");
        for (key, value) in &case.provider {
            let value = value.to_string().replace("TOKENS", &tokens.to_string());
            let value = value.replace("AUTHORITY", &authority.file.display().to_string());
            keys.push_str(&format!("{key} = {value}\n"));
        }
        let daemon = Setup::new(&dir)
            .with(&format!(
                "[provider.server]\nmatch = {{ domains = [\"example.test\"] }}\nrelay = \"{server}\"\n{keys}\
                 [[route]]\nrecipient = \"*@example.test\"\nvia = \"server\""
            ))
            .via("sender", "sender.test", sink.address, "")
            .start();
        let certificate = authority.certificate(&dir, "server.test");
        let of_tokens = authority.certificate(&dir, &tokens.ip().to_string());
        let mail = dir.subdir("mail");
        std::fs::set_permissions(&mail, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("mode");
        let path = |path: &Path| path.display().to_string();
        let variables = vec![
            ("HOST", server.ip().to_string()),
            ("PORT", server.port().to_string()),
            ("SINK_HOST", sink.address.ip().to_string()),
            ("SINK_PORT", sink.address.port().to_string()),
            ("MAIL", path(&mail)),
            ("CERTIFICATE", path(&certificate.file)),
            ("KEY", path(&certificate.key)),
            ("TOKENS", tokens.to_string()),
            ("INTROSPECTION", introspection.to_string()),
            ("TOKENS_CERTIFICATE", path(&of_tokens.file)),
            ("TOKENS_KEY", path(&of_tokens.key)),
        ];
        let letter = Letter::write(&dir, case);
        Site { case, machine, daemon, sink, letter, server, variables, mail, dir, _ports: ports }
    }

    fn start(&self) -> Result<Running, String> {
        let mut running = self.machine.start(self.dir.path(), &self.variables, &self.case.run);
        let listens = || TcpStream::connect(self.server).is_ok();
        match within(START, || if listens() { Some(None) } else { running.ended().map(Some) }) {
            Some(None) => Ok(running),
            Some(Some(code)) => Err(format!("it ended with {code}: {}", running.said())),
            None => Err(format!("it does not listen: {}", running.said())),
        }
    }

    fn send(&self, to: &[&str]) {
        let crlf = String::from_utf8_lossy(&self.letter.message).replace('\n', "\r\n");
        let paths: Vec<String> = to.iter().map(|to| format!("<{to}>")).collect();
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        self.daemon.client().send(&format!("<{FROM}> BODY=8BITMIME"), &paths, crlf.as_bytes());
    }

    /// The messages that it has stored or passed on.
    fn stored(&self) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        let mut waiting = vec![self.mail.clone()];
        while let Some(directory) = waiting.pop() {
            for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    // A Maildir has what is not complete there.
                    if path.file_name().is_none_or(|name| name != "tmp") {
                        waiting.push(path);
                    }
                } else if let Ok(content) = std::fs::read(path)
                    && content.windows(16).any(|w| w == b"interop@sender.t")
                {
                    found.push(content);
                }
            }
        }
        let passed = self.sink.messages().into_iter().filter(|m| m.to.iter().any(|to| to.contains("@example.test")));
        found.extend(passed.map(|m| m.content.to_vec()));
        found
    }

    fn delivered(&self, running: &Running) -> Result<(), String> {
        let there = || {
            let lines = self.daemon.log_lines();
            let has = |to: &str| lines.iter().any(|line| line.event() == "delivered" && line.get("recipient") == to);
            (RECIPIENTS.iter().all(|to| has(to)) && !self.stored().is_empty()).then_some(())
        };
        if within(ARRIVAL, there).is_none() {
            return Err(format!("it has not got it\n{}\n{}", running.said(), tail(&self.daemon.log)));
        }
        for content in self.stored() {
            let faults = self.letter.faults(&content);
            if !faults.is_empty() {
                return Err(faults.join("; "));
            }
        }
        Ok(())
    }

    /// The letter as octets (RFC 3030), which reach a server that takes lines as parts that decode to them.
    fn octets(&self, running: &Running) -> Result<(), String> {
        let content = self.letter.octets();
        let mut client = self.daemon.client();
        client.command(250, &format!("MAIL FROM:<{FROM}> BODY=BINARYMIME"));
        client.command(250, &format!("RCPT TO:<{}>", RECIPIENTS[0]));
        let chunk = [format!("BDAT {} LAST\r\n", content.len()).as_bytes(), &content].concat();
        client.write(&chunk).map_err(|e| e.to_string())?;
        client.reply_of(250, "BDAT");
        let mark = format!("<{OCTETS}interop@");
        let has = |content: &Vec<u8>| content.windows(mark.len()).any(|w| w == mark.as_bytes());
        let Some(stored) = within(ARRIVAL, || self.stored().into_iter().find(has)) else {
            return Err(format!("it has not got them\n{}\n{}", running.said(), tail(&self.daemon.log)));
        };
        let faults = self.letter.faults(&stored);
        if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) }
    }

    /// The report that the sender gets.
    fn refused(&self) -> Result<(), String> {
        let Told::Says(text) = &self.case.refused else { return Ok(()) };
        self.send(&[REFUSED]);
        let reports = || -> Vec<String> {
            let all = self.sink.messages().into_iter().map(|m| read(&m.content));
            all.filter_map(|m| m["report"].as_str().map(str::to_owned)).filter(|r| !r.is_empty()).collect()
        };
        let told = |report: &String| report.contains(REFUSED) && report.contains(text.as_str());
        let found = within(ARRIVAL, || reports().iter().any(told).then_some(()));
        found.ok_or_else(|| format!("no report says `{text}`: {:?}", reports()))
    }
}

/// All that is wrong.
pub fn try_all(case: &Case, machine: &Machine) -> Vec<String> {
    let site = Site::new(case, machine);
    let mut wrong = Vec::new();
    // Nobody listens at first: the letter waits.
    site.send(&RECIPIENTS);
    site.daemon.wait_log("deferred", |line| line.event() == "deferred");
    let running = match site.start() {
        Ok(running) => running,
        Err(error) => return vec![error],
    };
    if let Err(error) = site.delivered(&running) {
        wrong.push(format!("the letter: {error}"));
    }
    if let Err(error) = site.octets(&running) {
        wrong.push(format!("the letter as octets: {error}"));
    }
    if let Err(error) = site.refused() {
        wrong.push(format!("refused: {error}\n{}", running.said()));
    }
    wrong
}
