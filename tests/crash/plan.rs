//! The points of the program at which it is killed, and the deaths of a run.

use std::time::Duration;

/// Points that mail passes, and how often at most it passes one before the kill.
const UNDER_LOAD: [(&str, u64); 17] = [
    ("accept.begin", 60),
    ("accept.done", 60),
    ("chunk.written", 3),
    ("writer.batch", 60),
    ("commit.work", 60),
    ("commit.before", 60),
    ("commit.after", 60),
    ("dot.before", 60),
    ("dot.after", 60),
    ("reply.read", 60),
    ("settle.planned", 60),
    ("settle.begin", 60),
    ("settle.done", 60),
    ("owed.written", 6),
    ("dsn.made", 6),
    ("dsn.written", 6),
    ("report.done", 6),
];
/// Points of the start, on the way; each is the first thing of its kind that the process does.
const AT_START: [&str; 8] = [
    "open.locked",
    "open.connected",
    "recover",
    "commit.before",
    "commit.after",
    "start.opened",
    "start.recalled",
    "ready",
];
/// Points of the way from SIGTERM to the end.
const AT_END: [&str; 5] = ["drain.begin", "drain.sessions", "drain.done", "close.begin", "close.done"];
/// Points of `mailweir backup`, a process of its own.
const IN_BACKUP: [&str; 5] = ["backup.begin", "backup.step", "backup.copied", "backup.synced", "backup.named"];
/// Points of a reload, on the way: the old relay ends as at SIGTERM, the new one begins as at the
/// start. How often the process has passed it then, the start included.
const IN_RELOAD: [(&str, u64); 13] = [
    (REFUSED, 1),
    // All is read and every address bound; the old relay does its work.
    ("reload.begin", 1),
    // No session is left, transactions are in flight.
    ("drain.sessions", 1),
    ("drain.done", 1),
    ("close.begin", 1),
    ("recover", 2),
    ("close.done", 1),
    // Nobody has the queue; clients wait in the kernel.
    ("reload.stopped", 1),
    ("recover", 3),
    ("start.opened", 2),
    ("start.recalled", 2),
    // The new one listens; addresses that it does not want are still open.
    ("reload.started", 1),
    ("reload.done", 1),
];
/// The point that only a configuration that is refused reaches.
pub const REFUSED: &str = "reload.refused";

/// Of the random moments, one of so many is after a SIGHUP.
const RELOADS: usize = 3;

/// How a life of the daemon ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Death {
    /// So long after it was started.
    After(Duration),
    /// So long after a SIGHUP under load.
    AfterReload(Duration),
    Load(&'static str, u64),
    Start(&'static str),
    End(&'static str),
    /// In a reload under load.
    Reload(&'static str, u64),
    /// Of a backup under load; then of the daemon.
    Backup(&'static str),
}

impl Death {
    /// The point and how often it is passed, unless the moment is random.
    pub fn point(self) -> Option<(&'static str, u64)> {
        match self {
            Death::After(_) | Death::AfterReload(_) => None,
            Death::Load(name, count) | Death::Reload(name, count) => Some((name, count)),
            Death::Start(name) | Death::End(name) | Death::Backup(name) => Some((name, 1)),
        }
    }

    /// What is counted as one kind of death.
    pub fn kind(self) -> String {
        match self {
            Death::After(_) => "a random moment".into(),
            Death::AfterReload(_) => "a random moment of a reload".into(),
            Death::Load(name, _) => name.into(),
            Death::Reload(name, count) => format!("{name}:{count} in a reload"),
            Death::Start(name) => format!("{name} at the start"),
            Death::End(name) => format!("{name} at the end"),
            Death::Backup(name) => name.into(),
        }
    }
}

fn points() -> Vec<Death> {
    let load = UNDER_LOAD.iter().map(|(name, most)| Death::Load(name, *most));
    let reload = IN_RELOAD.iter().map(|(name, count)| Death::Reload(name, *count));
    load.chain(AT_START.map(Death::Start))
        .chain(AT_END.map(Death::End))
        .chain(reload)
        .chain(IN_BACKUP.map(Death::Backup))
        .collect()
}

/// Deaths enough for every point once.
pub fn shortest() -> usize {
    2 * points().len()
}

/// Points and random moments in turn; every point once in as many pairs as there are points.
pub fn plan(cycles: usize, random: &mut fastrand::Rng) -> Vec<Death> {
    let points = points();
    let mut deaths = Vec::new();
    for n in 0..cycles {
        deaths.push(match points.get(n / 2 % points.len()) {
            Some(Death::Load(name, most)) if n % 2 == 0 => Death::Load(name, random.u64(1..=*most)),
            Some(point) if n % 2 == 0 => *point,
            _ if n / 2 % RELOADS == 0 => Death::AfterReload(Duration::from_micros(random.u64(0..100_000))),
            _ => Death::After(Duration::from_micros(random.u64(0..400_000))),
        });
    }
    deaths
}
