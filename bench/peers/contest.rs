//! One run of one relay in one case: start it, warm it up, measure, and leave nothing behind.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::running::Running;
use crate::support::load::{Load, Until};
use crate::support::measure::{Metrics, measure, singles, warm_up};
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
            name => Some(Running::start(self.script(name), sink.address, if far { 5 } else { CONNECTIONS })?),
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
