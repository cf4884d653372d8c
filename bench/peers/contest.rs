//! One run of one relay in one case: start it, warm it up, measure, and leave nothing behind.
//!
//! A relay of many processes runs in a cgroup of its own, so that the CPU time of processes that
//! came and went is counted too, and nothing survives the run. Where there is no cgroup (version 2,
//! and the right to make one), the columns of CPU and memory stay empty.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::support::load::{Load, Until};
use crate::support::measure::{Metrics, measure, singles, warm_up};
use crate::support::relay::greets;
use crate::support::sink::{Options, Sink};
use crate::support::usage::Group;

/// The relay that is none.
pub const NONE: &str = "none";

/// What is measured.
pub struct Case {
    /// Name in results.
    pub key: &'static str,
    /// Name for people.
    pub name: &'static str,
    kind: Kind,
}

enum Kind {
    Flow { size: usize, kept: bool },
    Far,
    Single,
}

/// All cases.
pub const CASES: &[Case] = &[
    Case { key: "2k-kept", name: "2 KB, sessions kept", kind: Kind::Flow { size: 2048, kept: true } },
    Case { key: "2k-each", name: "2 KB, a session each", kind: Kind::Flow { size: 2048, kept: false } },
    Case { key: "20k-kept", name: "20 KB, sessions kept", kind: Kind::Flow { size: 20_480, kept: true } },
    Case { key: "wan", name: "2 KB, 5 connections of 50 ms", kind: Kind::Far },
    Case { key: "latency", name: "single messages", kind: Kind::Single },
];

/// Connections to the receiver, but for the far one, which allows five.
const CONNECTIONS: u32 = 50;
/// How long what was taken may take to arrive; what has not by then is reported as left.
const DRAIN: Duration = Duration::from_secs(30);
/// Messages to the far receiver.
const FAR: u64 = 300;
/// Single messages of a run: fewer than mailweir alone gets, as some relays need a second for one.
const SINGLES: u64 = 30;

/// A relay that can be measured.
pub struct Peer {
    /// Its file in bench/peers, without the ending.
    pub name: String,
    /// Its version.
    pub version: String,
    /// When a message is safe.
    pub durable: String,
}

/// What all runs have in common.
pub struct Contest {
    /// mailweir.
    pub program: PathBuf,
    /// What bench/peers/fetch made.
    pub fetched: PathBuf,
    /// How long a run sends.
    pub time: Duration,
}

/// Relays that are not there: name and reason.
pub type Missing = Vec<(String, String)>;

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/peers")
}

impl Contest {
    /// The relays that are there, mailweir first, and those that are not.
    pub fn peers(&self, wanted: &dyn Fn(&str) -> bool) -> io::Result<(Vec<Peer>, Missing)> {
        let mut names = Vec::new();
        for entry in fs::read_dir(scripts())? {
            let path = entry?.path();
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if path.extension().is_some_and(|ending| ending == "sh") && name != "lib" && wanted(&name) {
                names.push(name);
            }
        }
        names.sort_by_key(|name| (name != "mailweir", name.clone()));
        let (mut peers, mut missing) = (Vec::new(), Vec::new());
        for name in names {
            let output = self.script(&name).arg("about").stdin(Stdio::null()).output()?;
            let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
            match said(&output.stdout).split_once("; ") {
                Some((version, durable)) if output.status.success() => {
                    peers.push(Peer { name, version: version.into(), durable: durable.into() });
                }
                _ => missing.push((name, said(&output.stderr))),
            }
        }
        if wanted(NONE) {
            peers.push(Peer { name: NONE.into(), version: "no relay: the ceiling".into(), durable: "–".into() });
        }
        Ok((peers, missing))
    }

    fn script(&self, name: &str) -> Command {
        let mut command = Command::new("bash");
        command.arg(scripts().join(format!("{name}.sh")));
        command.env("PROGRAM", &self.program).env("PEERS", &self.fetched);
        command
    }

    /// Measures a relay once.
    pub fn run(&self, peer: &Peer, case: &Case) -> io::Result<Metrics> {
        let far = matches!(case.kind, Kind::Far);
        let delay = if far { Duration::from_millis(50) } else { Duration::ZERO };
        let sink = Sink::start(Options { delay, ..Options::default() })?;
        let running = match peer.name.as_str() {
            NONE => None,
            name => Some(Running::start(self, name, sink.address, if far { 5 } else { CONNECTIONS })?),
        };
        let smtp = running.as_ref().map_or(sink.address, |running| running.smtp);
        // Without a relay there is nothing whose cost could be counted.
        let group = running.as_ref().map_or(Group::Cgroup(PathBuf::new()), |running| running.group.clone());
        match case.kind {
            Kind::Single => singles(smtp, &sink, SINGLES),
            Kind::Flow { size, kept } => {
                let load = Load { size, kept, ..Load::new(smtp, Until::Time(self.time)) };
                warm_up(&sink, &load, DRAIN)?;
                measure(&group, &sink, &load, DRAIN)
            }
            Kind::Far => {
                let load = Load::new(smtp, Until::Count(FAR));
                warm_up(&sink, &load, DRAIN)?;
                measure(&group, &sink, &load, DRAIN)
            }
        }
    }
}

/// A relay that runs; it is stopped, whatever is left of it killed, and its files removed on drop.
struct Running {
    smtp: SocketAddr,
    group: Group,
    child: Child,
    cgroup: Option<PathBuf>,
    directory: tempfile::TempDir,
}

impl Running {
    fn start(contest: &Contest, name: &str, sink: SocketAddr, connections: u32) -> io::Result<Running> {
        let directory = tempfile::Builder::new().prefix("mailweir-peer-").tempdir()?;
        // Free when this looks, and taken at once.
        let smtp = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let cgroup = cgroup(&format!("mailweir-bench-{}-{}", std::process::id(), smtp.port()));
        let script = contest.script(name);
        // The shell joins the cgroup before it becomes the relay's script.
        let mut command = Command::new("sh");
        command.arg("-c").arg("[ -z \"$CGROUP\" ] || echo $$ >\"$CGROUP/cgroup.procs\"; exec \"$@\"").arg("sh");
        command.arg(script.get_program()).args(script.get_args());
        command.envs(script.get_envs().filter_map(|(key, value)| Some((key, value?))));
        command.env("CGROUP", cgroup.as_deref().unwrap_or(Path::new("")));
        command.env("DIRECTORY", directory.path()).env("PORT", smtp.port().to_string());
        command.env("SINK_PORT", sink.port().to_string()).env("CONNECTIONS", connections.to_string());
        let log = fs::File::create(directory.path().join("harness.log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let child = command.spawn()?;
        let group = Group::Cgroup(cgroup.clone().unwrap_or_default());
        let mut running = Running { smtp, group, child, cgroup, directory };
        let began = Instant::now();
        while !greets(smtp) {
            if running.child.try_wait()?.is_some() || began.elapsed() > Duration::from_secs(30) {
                let log = fs::read_to_string(running.directory.path().join("harness.log")).unwrap_or_default();
                return Err(io::Error::other(format!("it did not start:\n{log}")));
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(running)
    }
}

/// A new cgroup of version 2, if this system lets us have one.
fn cgroup(name: &str) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    let mount =
        mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|f| f.get(2) == Some(&"cgroup2"))?;
    let path = Path::new(mount.get(1)?).join(name);
    fs::create_dir(&path).ok()?;
    Some(path)
}

impl Drop for Running {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, Signal::TERM);
        }
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(5) && matches!(self.child.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(10));
        }
        match (&self.cgroup, pid) {
            (Some(path), _) => {
                let _ = fs::write(path.join("cgroup.kill"), "1");
                let _ = self.child.wait();
                // Gone when the last of its processes is.
                for _ in 0..200 {
                    if fs::remove_dir(path).is_ok() {
                        break;
                    }
                    thread::sleep(Duration::from_millis(20));
                }
            }
            (None, Some(pid)) => {
                let _ = rustix::process::kill_process_group(pid, Signal::KILL);
                let _ = self.child.wait();
            }
            (None, None) => {}
        }
    }
}
