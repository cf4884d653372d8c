//! One life of the daemon under load, to the death that was planned.

use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Output};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::plan::{Death, REFUSED};
use crate::support::daemon::{Daemon, MAILWEIR};
use crate::support::{SOON, program, run, run_ok, wait_for};

/// The daemon, and what its reloads choose from.
pub struct Lives {
    pub daemon: Daemon,
    random: fastrand::Rng,
    /// The configuration of the first life.
    base: String,
    /// An address that nobody else has, and one that somebody has.
    free: SocketAddr,
    taken: SocketAddr,
}

impl Lives {
    pub fn new(daemon: Daemon, random: fastrand::Rng, free: SocketAddr, taken: SocketAddr) -> Lives {
        let base = std::fs::read_to_string(&daemon.config).expect("read the configuration");
        Lives { daemon, random, base, free, taken }
    }

    /// One life. True: it died where it should.
    pub fn live_and_die(&mut self, death: Death) -> bool {
        if let Death::Backup(name) = death {
            return self.backup_and_die(name);
        }
        if let Some((name, count)) = death.point() {
            self.daemon.environment = vec![("MAILWEIR_CRASH_AT", format!("{name}:{count}"))];
        }
        self.daemon.launch();
        self.daemon.environment.clear();
        let status = match death {
            Death::After(moment) => {
                thread::sleep(moment);
                self.daemon.kill();
                return true;
            }
            Death::AfterReload(moment) => {
                let refused = self.random.u8(..4) == 0;
                self.reload(refused, |lives| {
                    lives.daemon.signal(Signal::HUP);
                    thread::sleep(moment);
                    lives.daemon.kill();
                });
                return true;
            }
            Death::Reload(name, _) => {
                // The command would not even ask for what it can see to be wrong.
                let command = name != REFUSED && self.random.bool();
                self.reload(name == REFUSED, |lives| {
                    let told = if command { Some(lives.ask()) } else { lives.hang_up() };
                    let status = lives.death();
                    if let (Some(told), Some(_)) = (told, status) {
                        assert!(!told.status.success(), "{name}: told of a reload that never ended: {told:?}");
                    }
                    status
                })
            }
            Death::End(_) => {
                self.ready();
                thread::sleep(Duration::from_millis(50));
                self.daemon.terminate();
                Some(self.daemon.wait_exit(Duration::from_secs(40)))
            }
            Death::Start(_) | Death::Load(..) | Death::Backup(_) => self.death(),
        };
        let Some(status) = status else { return false };
        assert!(status.signal() == Some(9) || matches!(death, Death::End(_)), "{death:?}: {status}");
        status.signal() == Some(9)
    }

    fn ready(&mut self) {
        if let Some(status) = self.daemon.wait_ready() {
            panic!("mailweir ended at start: {status}");
        }
    }

    /// How it died by itself; `None`: it did not, and was killed.
    fn death(&mut self) -> Option<ExitStatus> {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            match self.daemon.ended() {
                Some(status) => return Some(status),
                None if Instant::now() > end => {
                    self.daemon.kill();
                    return None;
                }
                None => thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// Puts another configuration in the place of the one in force, some time after the start, and
    /// lets `ask` tell the daemon and see it die. One that is good stays for the next life.
    fn reload<T>(&mut self, refused: bool, ask: impl FnOnce(&mut Lives) -> T) -> T {
        self.ready();
        thread::sleep(Duration::from_micros(self.random.u64(0..60_000)));
        let current = std::fs::read_to_string(&self.daemon.config).expect("read the configuration");
        let next = if refused { self.refused() } else { self.other() };
        assert_ne!(next, current);
        std::fs::write(&self.daemon.config, next).expect("write the configuration");
        let done = ask(self);
        if refused {
            std::fs::write(&self.daemon.config, current).expect("write the configuration");
        }
        done
    }

    fn hang_up(&mut self) -> Option<Output> {
        self.daemon.signal(Signal::HUP);
        None
    }

    /// `mailweir reload`, which must not outlive the daemon it waits for. The daemon takes commands
    /// a little later than mail.
    fn ask(&mut self) -> Output {
        wait_for("a daemon that takes commands", SOON, || {
            let output = self.daemon.command(&["reload"], b"");
            (!String::from_utf8_lossy(&output.stderr).contains("is not running")).then_some(output)
        })
    }

    /// Other limits; perhaps a provider by another name, so that what is queued for the old one has
    /// to find the new one; perhaps one listener more, or one less.
    fn other(&mut self) -> String {
        let current = std::fs::read_to_string(&self.daemon.config).expect("read the configuration");
        loop {
            let limit = format!("messages_per_connection = {}", self.random.u32(20..200));
            let mut text = self.base.replace("messages_per_connection = 100", &limit);
            if self.random.bool() {
                text = text.replace("[provider.example]", "[provider.renamed]");
                text = text.replace("via = \"example\"", "via = \"renamed\"");
            }
            if self.random.bool() {
                text.push_str(&format!("\n[[listener]]\naddress = \"{}\"\n", self.free));
            }
            if text != current {
                return text;
            }
        }
    }

    /// A value that cannot be, an address that somebody else has, another queue.
    fn refused(&mut self) -> String {
        match self.random.u8(..3) {
            0 => self.base.replace("rate = []", "rate = \"0/s\""),
            1 => format!("{}\n[[listener]]\naddress = \"{}\"\n", self.base, self.taken),
            _ => self.base.replace("queue.db", "other.db"),
        }
    }

    /// A life with a backup that dies: there is no copy then, or a whole one.
    fn backup_and_die(&mut self, name: &str) -> bool {
        self.daemon.start();
        let file = self.daemon.setup.dir.join("copy.db");
        let mut backup = Command::new(MAILWEIR);
        backup.arg("backup").arg(&file).arg("--config").arg(&self.daemon.config);
        let status = run(backup.env("MAILWEIR_CRASH_AT", format!("{name}:1")), b"", SOON).status;
        self.daemon.kill();
        assert_eq!(file.exists(), name == "backup.named", "{name}: {status}");
        if file.exists() {
            let output = run_ok(Command::new(program("sqlite3")).arg(&file).arg("PRAGMA integrity_check"), b"", SOON);
            assert_eq!(String::from_utf8_lossy(&output.stdout), "ok\n");
            std::fs::remove_file(&file).expect("remove the copy");
        }
        status.signal() == Some(9)
    }
}
