//! Small libraries that are loaded into a real process before the system's (compiled here): a disk
//! and a clock that misbehave (`disk.c`), with the journal of changes that it writes, and one that
//! counts calls (`calls.c`).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{TestDir, program, run_ok};

/// The numbers of Linux for the errors that a disk gives.
pub const EIO: i64 = 5;
/// No space left on device.
pub const ENOSPC: i64 = 28;
/// Read-only file system: what a kernel makes of one that it no longer trusts.
pub const EROFS: i64 = 30;

/// The library, and the faults in force for the processes that were started with it.
pub struct Shim {
    library: PathBuf,
    root: PathBuf,
    control: PathBuf,
    slots: File,
}

impl Shim {
    /// Compiles the library for files below `root`, which must exist.
    pub fn build(dir: &TestDir, root: &Path) -> Shim {
        let library = compile(dir, "disk");
        let control = dir.write("shim.control", [0; 64]);
        let slots = File::options().read(true).write(true).open(&control).expect("the control file");
        Shim { library, root: root.canonicalize().expect("the root"), control, slots }
    }

    /// What a process needs in its environment.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("LD_PRELOAD", text(&self.library)),
            ("SHIM_ROOT", text(&self.root)),
            ("SHIM_CONTROL", text(&self.control)),
        ]
    }

    /// Every fsync fails with this error from now on; 0: none does.
    pub fn fail_syncs(&self, error: i64) {
        self.set(0, error);
    }

    /// Every write fails with this error from now on; 0: none does.
    pub fn fail_writes(&self, error: i64) {
        self.set(1, error);
    }

    /// Every fsync takes so much longer from now on.
    pub fn slow_syncs(&self, by: Duration) {
        self.set(2, i64::try_from(by.as_millis()).expect("a delay"));
    }

    /// The wall clock is so many seconds ahead (or behind) from now on.
    pub fn shift_clock(&self, seconds: i64) {
        self.set(3, seconds);
    }

    /// Every read fails with this error from now on; 0: none does.
    pub fn fail_reads(&self, error: i64) {
        self.set(6, error);
    }

    /// Syncs so far.
    pub fn syncs(&self) -> i64 {
        self.get(4)
    }

    /// Calls that were made to fail so far.
    pub fn failed(&self) -> i64 {
        self.get(5)
    }

    fn set(&self, slot: u64, value: i64) {
        self.slots.write_all_at(&value.to_ne_bytes(), slot * 8).expect("the control file");
    }

    fn get(&self, slot: u64) -> i64 {
        slot_of(&self.slots, slot)
    }
}

/// Compiles a library, into `dir`.
fn compile(dir: &TestDir, name: &str) -> PathBuf {
    let library = dir.join(&format!("{name}.so"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/support/shim/{name}.c"));
    let mut cc = Command::new(program("cc"));
    cc.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&library).arg(source).args(["-ldl"]);
    run_ok(&mut cc, b"", Duration::from_secs(60));
    library
}

/// A path, for an environment.
fn text(path: &Path) -> String {
    path.to_str().expect("a path in UTF-8").to_owned()
}

/// Counts the calls of the processes that are started with it.
pub struct Calls {
    library: PathBuf,
    counters: PathBuf,
    slots: File,
}

/// How often a process has called the system so far: sockets, files and syncs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Called {
    pub receives: i64,
    pub sends: i64,
    pub file_reads: i64,
    pub file_writes: i64,
    /// Of what was written (fdatasync).
    pub syncs: i64,
    /// At files, by name or open.
    pub looks: i64,
    /// Of the inode, too (fsync).
    pub inode_syncs: i64,
}

impl Calls {
    /// Compiles the library.
    pub fn build(dir: &TestDir) -> Calls {
        let library = compile(dir, "calls");
        let counters = dir.write("calls.counters", [0; 56]);
        let slots = File::open(&counters).expect("the counters");
        Calls { library, counters, slots }
    }

    /// What a process needs in its environment.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![("LD_PRELOAD", text(&self.library)), ("CALLS_COUNTERS", text(&self.counters))]
    }

    /// So far.
    pub fn so_far(&self) -> Called {
        let get = |slot: u64| slot_of(&self.slots, slot);
        Called {
            receives: get(0),
            sends: get(1),
            file_reads: get(2),
            file_writes: get(3),
            syncs: get(4),
            looks: get(5),
            inode_syncs: get(6),
        }
    }
}

/// A number that a library and a test share.
fn slot_of(slots: &File, slot: u64) -> i64 {
    let mut value = [0; 8];
    slots.read_exact_at(&mut value, slot * 8).expect("the shared numbers");
    i64::from_ne_bytes(value)
}

/// What a process did to the disk, in order. Paths are relative to the root.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Create(String),
    Write {
        path: String,
        at: u64,
        data: Vec<u8>,
    },
    Resize {
        path: String,
        size: u64,
    },
    /// Of a file, or of a directory (`""` is the root).
    Sync(String),
    /// It failed: what was written since the last one may be there, or not, for good.
    SyncFailed(String),
    Unlink(String),
    Mkdir(String),
    /// Not a change: what the process wrote into its file `notes`.
    Note(String),
}

/// Reads a journal.
pub fn journal(file: &Path, root: &Path) -> Vec<Step> {
    let bytes = std::fs::read(file).expect("the journal");
    let root = format!("{}/", root.canonicalize().expect("the root").display());
    let mut rest = &bytes[..];
    let mut take = |n: usize| -> Option<&[u8]> {
        let (head, tail) = rest.split_at_checked(n)?;
        rest = tail;
        Some(head)
    };
    let mut steps = Vec::new();
    // The last record may be cut off by a kill.
    while let Some(header) = take(24) {
        let half = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().expect("4 bytes"));
        let whole = |at: usize| u64::from_ne_bytes(header[at..at + 8].try_into().expect("8 bytes"));
        let (kind, at, length) = (half(0), whole(8), whole(16));
        let Some(path) = take(half(4) as usize) else { break };
        let Some(data) = take(usize::try_from(length).expect("a length")) else { break };
        let path = format!("{}/", String::from_utf8_lossy(path));
        let path = path.strip_prefix(&root).expect("below the root").trim_end_matches('/').to_owned();
        steps.push(match kind {
            1 => Step::Create(path),
            2 => Step::Write { path, at, data: data.to_vec() },
            3 => Step::Resize { path, size: at },
            4 => Step::Sync(path),
            5 => Step::Unlink(path),
            6 => Step::Mkdir(path),
            7 => Step::Note(String::from_utf8_lossy(data).into_owned()),
            8 => Step::SyncFailed(path),
            other => panic!("a record of kind {other}"),
        });
    }
    steps
}
