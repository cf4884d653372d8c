//! mailweir as a child process: its configuration file, its life and death, its log, its command
//! line. The names of the log's and the command line's fields stand here and nowhere else.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::client::Client;
use super::{Port, SOON, TestDir, run, wait_for};

/// The program under test.
pub const MAILWEIR: &str = env!("CARGO_BIN_EXE_mailweir");

/// A configuration file in the making: one listener on a free port, a queue in the test's
/// directory, JSON logs, and whatever the test adds.
pub struct Setup {
    /// Where the configuration, the queue and the log are.
    pub dir: PathBuf,
    smtp: Port,
    admin: Port,
    listener: String,
    queue: String,
    nameserver: Option<SocketAddr>,
    top: String,
    sections: String,
    /// Whether the command line names the file.
    named: bool,
}

impl Setup {
    pub fn new(dir: &TestDir) -> Setup {
        Setup {
            dir: dir.path().to_owned(),
            smtp: Port::reserve(),
            admin: Port::reserve(),
            listener: String::new(),
            queue: format!("store = \"sqlite:{}\"\n", dir.join("queue.db").display()),
            nameserver: None,
            top: String::new(),
            sections: String::new(),
            named: true,
        }
    }

    /// Started in the test's directory, where it finds its file by itself. Further commands of the
    /// command line do not run there, so a relative store is not for them.
    pub fn unnamed(mut self) -> Setup {
        self.named = false;
        self
    }

    /// Keys of the listener.
    pub fn listener(mut self, keys: &str) -> Setup {
        let _ = writeln!(self.listener, "{keys}");
        self
    }

    /// Keys of `[queue]` instead of the default ones.
    pub fn queue(mut self, keys: &str) -> Setup {
        self.queue = format!("{keys}\n");
        self
    }

    /// The only name server.
    pub fn dns(mut self, nameserver: SocketAddr) -> Setup {
        self.nameserver = Some(nameserver);
        self
    }

    /// Keys outside any table.
    pub fn top(mut self, keys: &str) -> Setup {
        let _ = writeln!(self.top, "{keys}");
        self
    }

    /// Further tables.
    pub fn with(mut self, sections: &str) -> Setup {
        self.sections.push_str(sections);
        self.sections.push('\n');
        self
    }

    /// A provider `name` with recipients `*@domain` and one host in clear text; `keys` are its
    /// limits.
    pub fn via(self, name: &str, domain: &str, host: SocketAddr, keys: &str) -> Setup {
        self.with(&format!(
            "[provider.{name}]\nmatch = {{ domains = [\"{domain}\"] }}\nrelay = \"{host}\"\ntls = \"off\"\n{keys}\n\
             [[route]]\nrecipient = \"*@{domain}\"\nvia = \"{name}\"\n"
        ))
    }

    /// Writes the file `name` in the test's directory.
    pub fn write(&self, name: &str) -> PathBuf {
        let mut text = format!(
            "hostname = \"relay.test\"\n{}\n[[listener]]\naddress = \"{}\"\n{}\n[queue]\n{}\n[admin]\naddress = \"{}\"\n\n\
             [log]\nformat = \"json\"\nlevel = \"info\"\n\n",
            self.top,
            self.smtp(),
            self.listener,
            self.queue,
            self.admin.at(1)
        );
        if let Some(nameserver) = self.nameserver {
            let _ = writeln!(text, "[dns]\nnameservers = [\"{nameserver}\"]\ntimeout = \"2s\"\n");
        }
        text.push_str(&self.sections);
        let path = self.dir.join(name);
        std::fs::write(&path, text).expect("write the configuration");
        path
    }

    /// Where the listener is.
    pub fn smtp(&self) -> SocketAddr {
        self.smtp.at(1)
    }

    /// Where the admin listener is.
    pub fn admin(&self) -> SocketAddr {
        self.admin.at(1)
    }

    /// Writes the configuration and starts the daemon.
    pub fn start(self) -> Daemon {
        let mut daemon = self.prepare();
        daemon.start();
        daemon
    }

    /// Writes the configuration and starts nothing.
    pub fn prepare(self) -> Daemon {
        let config = self.write("config.toml");
        Daemon {
            smtp: self.smtp(),
            log: self.dir.join("mailweir.log"),
            config,
            environment: Vec::new(),
            child: None,
            setup: self,
        }
    }
}

/// A daemon. Dies when dropped; a test that fails prints the end of its log.
pub struct Daemon {
    /// Where its listener is.
    pub smtp: SocketAddr,
    /// Its configuration file.
    pub config: PathBuf,
    /// Everything it writes to standard output and standard error, of all its lives.
    pub log: PathBuf,
    /// Variables of its next lives.
    pub environment: Vec<(&'static str, String)>,
    child: Option<Child>,
    /// Keeps the ports reserved.
    pub setup: Setup,
}

impl Daemon {
    /// Starts it (again) and waits until it greets.
    pub fn start(&mut self) {
        self.launch();
        if let Some(status) = self.wait_ready() {
            panic!("mailweir ended at start: {status:?}\n{}", tail(&self.log));
        }
    }

    /// Starts it and waits for nothing.
    pub fn launch(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let mut command = command(&self.config, self.setup.named, &self.log, &self.environment);
        self.child = Some(command.spawn().expect("start mailweir"));
    }

    /// The same with another standard error than the log.
    pub fn launch_with_stderr(&mut self, stderr: Stdio) {
        assert!(self.child.is_none(), "it runs already");
        let mut command = command(&self.config, self.setup.named, &self.log, &self.environment);
        self.child = Some(command.stderr(stderr).spawn().expect("start mailweir"));
    }

    /// Waits until it greets, or has ended: then this is how.
    pub fn wait_ready(&mut self) -> Option<ExitStatus> {
        let end = Instant::now() + SOON;
        loop {
            if let Ok(mut client) = Client::open(self.smtp)
                && client.read().is_ok_and(|greeting| greeting.code == 220)
            {
                let _ = client.write(b"QUIT\r\n");
                return None;
            }
            if let Some(status) = self.ended() {
                return Some(status);
            }
            assert!(Instant::now() < end, "mailweir does not greet on {}\n{}", self.smtp, tail(&self.log));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// How it ended, if it has ended by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut().and_then(|c| c.try_wait().expect("try_wait"))?;
        self.child = None;
        Some(status)
    }

    /// Its process.
    pub fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(self.child.as_ref().expect("a running daemon"))
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("a running daemon");
        child.kill().expect("kill");
        child.wait().expect("wait");
    }

    /// Sends SIGTERM and does not wait.
    pub fn terminate(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    /// Sends a signal and does not wait.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let child = self.child.as_ref().expect("a running daemon");
        rustix::process::kill_process(rustix::process::Pid::from_child(child), signal).expect("a signal");
    }

    /// Waits for its end.
    pub fn wait_exit(&mut self, deadline: Duration) -> ExitStatus {
        let mut child = self.child.take().expect("a running daemon");
        let status = wait_for("the end of mailweir", deadline, || child.try_wait().expect("try_wait"));
        drop(child);
        status
    }

    /// SIGTERM; panics unless it exits with 0.
    pub fn stop(&mut self) {
        self.terminate();
        let status = self.wait_exit(Duration::from_secs(40));
        assert_eq!(status.code(), Some(0), "exit status after SIGTERM\n{}", tail(&self.log));
    }

    /// Replaces the tables that the test added to the configuration; takes effect at the next start.
    pub fn replace_config(&mut self, from: &str, to: &str) {
        let text = std::fs::read_to_string(&self.config).expect("read the configuration");
        assert!(text.contains(from), "`{from}` is not in the configuration:\n{text}");
        std::fs::write(&self.config, text.replace(from, to)).expect("write the configuration");
    }

    /// A client that has said EHLO.
    pub fn client(&self) -> Client {
        Client::connect(self.smtp)
    }

    /// All log lines so far.
    pub fn log_lines(&self) -> Vec<LogLine> {
        let text = std::fs::read(&self.log).unwrap_or_default();
        text.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).map(LogLine).collect()
    }

    /// Waits for a log line.
    pub fn wait_log(&self, what: &str, mut wanted: impl FnMut(&LogLine) -> bool) -> LogLine {
        wait_for(&format!("the log line: {what}"), SOON, || self.log_lines().into_iter().find(|line| wanted(line)))
    }

    /// Runs a subcommand with this configuration to its end.
    pub fn command(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut command = Command::new(MAILWEIR);
        command.args(arguments).arg("--config").arg(&self.config);
        run(&mut command, input, Duration::from_secs(60))
    }

    /// Runs a subcommand that must succeed; returns its standard output.
    pub fn command_ok(&self, arguments: &[&str], input: &[u8]) -> String {
        let output = self.command(arguments, input);
        assert!(
            output.status.success(),
            "mailweir {arguments:?}: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("UTF-8 from the command line")
    }

    /// `queue list --json` with further arguments.
    pub fn queue_list(&self, arguments: &[&str]) -> Vec<Row> {
        let mut all = vec!["queue", "list", "--json"];
        all.extend(arguments);
        self.command_ok(&all, b"")
            .lines()
            .map(|line| Row(serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))))
            .collect()
    }

    /// Waits until the queue has nothing but dead letters.
    pub fn wait_queue_empty(&self, deadline: Duration) {
        wait_for("an empty queue", deadline, || {
            self.queue_list(&[]).iter().all(|row| row.state() == "failed").then_some(())
        });
    }

    /// Waits until `queue list` shows a row like that.
    pub fn wait_row(&self, what: &str, mut wanted: impl FnMut(&Row) -> bool) -> Row {
        wait_for(&format!("a row in the queue: {what}"), SOON, || {
            self.queue_list(&[]).into_iter().find(|row| wanted(row))
        })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("the end of {}:\n{}", self.log.display(), tail(&self.log));
        }
    }
}

fn command(config: &Path, named: bool, log: &Path, environment: &[(&'static str, String)]) -> Command {
    let log = std::fs::File::options().create(true).append(true).open(log).expect("the log file");
    let mut command = Command::new(MAILWEIR);
    command.arg("run");
    match config.parent() {
        Some(directory) if !named => command.current_dir(directory),
        _ => command.arg("--config").arg(config),
    };
    command
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a second handle of the log"))
        .stderr(log);
    command
}

/// Starts mailweir where it must refuse; returns its exit code and all it said.
pub fn refused_start(config: &Path) -> (i32, String) {
    let mut command = Command::new(MAILWEIR);
    command.args(["run", "--config"]).arg(config);
    let output = run(&mut command, b"", SOON);
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code().unwrap_or_else(|| panic!("{}: {said}", output.status)), said)
}

/// The last lines of a file.
pub fn tail(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// A line of the log in JSON.
#[derive(Clone, Debug)]
pub struct LogLine(pub Value);

impl LogLine {
    fn field(&self, name: &str) -> Option<&Value> {
        self.0.get(name).or_else(|| self.0.get("fields").and_then(|f| f.get(name)))
    }

    /// A field as text (numbers too); empty if it is not there.
    pub fn get(&self, name: &str) -> String {
        match self.field(name) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(s)) => s.clone(),
            Some(other) => other.to_string(),
        }
    }

    /// `accepted`, `delivered`, `deferred`, `bounced`, `expired`, `throttled`, or another line's text.
    pub fn event(&self) -> String {
        self.get("message")
    }

    /// This event of this message.
    pub fn is(&self, event: &str, id: &str) -> bool {
        self.event() == event && self.get("id") == id
    }

    /// The reply or error of a delivery.
    pub fn why(&self) -> String {
        let reply = self.get("reply");
        if reply.is_empty() { self.get("reason") } else { reply }
    }
}

/// A line of `queue list --json`.
#[derive(Clone, Debug)]
pub struct Row(pub Value);

impl Row {
    pub fn text(&self, name: &str) -> String {
        self.0[name].as_str().unwrap_or_else(|| panic!("no text `{name}` in {}", self.0)).to_owned()
    }

    pub fn number(&self, name: &str) -> i64 {
        self.0[name].as_i64().unwrap_or_else(|| panic!("no number `{name}` in {}", self.0))
    }

    pub fn id(&self) -> String {
        self.text("id")
    }

    pub fn state(&self) -> String {
        self.text("state")
    }

    pub fn recipient(&self) -> String {
        self.text("recipient")
    }

    pub fn attempts(&self) -> i64 {
        self.number("attempts")
    }

    pub fn reason(&self) -> String {
        self.text("reason")
    }
}
