//! mailweir as the thing under test: a process with a queue in a temporary directory.

use std::fs;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::usage::Group;

/// The configuration of a relay that sends everything to one host.
#[derive(Clone)]
pub struct Setup {
    /// The program.
    pub program: PathBuf,
    /// Where everything goes; `None`: where `sections` say.
    pub sink: Option<SocketAddr>,
    /// Connections to it at most.
    pub connections: u32,
    /// Messages of a connection at most.
    pub per_connection: u32,
    /// How long a connection to it may rest.
    pub idle_timeout: &'static str,
    /// Further keys of the provider.
    pub provider: String,
    /// Further keys of the listener.
    pub listener: String,
    /// Further tables.
    pub sections: String,
}

impl Setup {
    /// 50 connections in clear text, kept for as many messages as there are.
    pub fn new(program: &Path, sink: SocketAddr) -> Setup {
        Setup {
            program: program.to_owned(),
            sink: Some(sink),
            connections: 50,
            per_connection: 100_000,
            idle_timeout: "60s",
            provider: "tls = \"off\"\n".into(),
            listener: String::new(),
            sections: String::new(),
        }
    }

    /// The text of the configuration.
    pub fn text(&self, smtp: SocketAddr, directory: &Path) -> String {
        let mut text = format!(
            "hostname = \"relay.example\"\n[[listener]]\naddress = \"{smtp}\"\nmax_connections = 20000\n{}\n\
             [queue]\nstore = \"sqlite:{}\"\n",
            self.listener,
            directory.join("queue.db").display()
        );
        if let Some(sink) = self.sink {
            text.push_str(&format!(
                "[provider.sink]\nrelay = \"{sink}\"\nconnections = {}\nmessages_per_connection = {}\nrate = []\n\
                 idle_timeout = \"{}\"\n{}\n[[route]]\nrecipient = \"*\"\nvia = \"sink\"\n",
                self.connections, self.per_connection, self.idle_timeout, self.provider
            ));
        }
        text.push_str(&self.sections);
        text
    }

    /// Whether this mailweir takes such a configuration.
    pub fn is_supported(&self) -> io::Result<bool> {
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("config.toml");
        fs::write(&file, self.text(SocketAddr::from(([127, 0, 0, 1], 2525)), directory.path()))?;
        let mut check = Command::new(&self.program);
        check.arg("check").arg("--config").arg(&file).stdin(Stdio::null());
        Ok(check.stdout(Stdio::null()).stderr(Stdio::null()).status()?.success())
    }
}

/// Whether somebody says 220 there.
pub fn greets(smtp: SocketAddr) -> bool {
    let mut greeting = [0; 3];
    let connected = TcpStream::connect(smtp).and_then(|mut stream| {
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.read_exact(&mut greeting)
    });
    connected.is_ok() && greeting == *b"220"
}

/// A relay that runs; stopped when dropped.
pub struct Relay {
    /// Where it takes mail.
    pub smtp: SocketAddr,
    /// From start to the first greeting and an answering control socket.
    pub start_up: Duration,
    child: Child,
    program: PathBuf,
    directory: PathBuf,
    _own: Option<tempfile::TempDir>,
}

impl Relay {
    /// Starts one with an empty queue.
    pub fn start(setup: &Setup) -> io::Result<Relay> {
        let own = tempfile::tempdir()?;
        let mut relay = Relay::start_in(setup, own.path())?;
        relay._own = Some(own);
        Ok(relay)
    }

    /// Starts one with the queue that is in `directory`, or a new one there.
    pub fn start_in(setup: &Setup, directory: &Path) -> io::Result<Relay> {
        // Free when this looks, and taken at once.
        let smtp = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let config = directory.join("config.toml");
        fs::write(&config, setup.text(smtp, directory))?;
        let log = fs::OpenOptions::new().create(true).append(true).open(directory.join("log"))?;
        let began = Instant::now();
        let child = Command::new(&setup.program)
            .args(["run", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // Else what is measured under /proc would be for root only.
            .env("MAILWEIR_CORE_DUMPS", "1")
            .spawn()?;
        let (program, directory) = (setup.program.clone(), directory.to_owned());
        let mut relay = Relay { smtp, start_up: Duration::ZERO, child, program, directory, _own: None };
        let control = relay.directory.join("queue.db.sock");
        while !greets(smtp) || UnixStream::connect(&control).is_err() {
            if relay.child.try_wait()?.is_some() || began.elapsed() > Duration::from_secs(120) {
                let log = fs::read_to_string(relay.directory.join("log")).unwrap_or_default();
                return Err(io::Error::other(format!("mailweir did not start:\n{log}")));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        relay.start_up = began.elapsed();
        Ok(relay)
    }

    /// Its process.
    pub fn group(&self) -> Group {
        Group::Process(self.child.id())
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Runs a command of mailweir against it; what it printed, and how long it took.
    pub fn command(&self, arguments: &[&str]) -> io::Result<(String, Duration)> {
        let began = Instant::now();
        let mut command = Command::new(&self.program);
        command.args(arguments).arg("--config").arg(self.directory.join("config.toml")).stdin(Stdio::null());
        let output = command.output()?;
        let took = began.elapsed();
        if !output.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        Ok((String::from_utf8_lossy(&output.stdout).into_owned(), took))
    }

    /// Stops it in good order and waits for its end.
    pub fn stop(mut self) -> io::Result<()> {
        self.terminate()
    }

    fn terminate(&mut self) -> io::Result<()> {
        if self.child.try_wait()?.is_none() {
            if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw) {
                rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
            }
            let began = Instant::now();
            while self.child.try_wait()?.is_none() {
                if began.elapsed() > Duration::from_secs(60) {
                    self.child.kill()?;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        Ok(())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.terminate();
    }
}
