//! What the scenario tests share: the daemon as a child process, real servers and clients around
//! it, a receiver that records what arrives and when, and waits with a deadline.
//!
//! Everything listens on 127.0.0.0/8 only, on ports that are reserved for the test, and everything
//! a test writes lies in one directory that goes away with it. No test sleeps to let something
//! settle: it polls for what it expects, up to a deadline, and says what it waited for.

// Every test binary compiles this module and uses another part of it.
#![allow(dead_code)]

pub mod cgroup;
pub mod client;
pub mod daemon;
pub mod dkim;
pub mod mail;
pub mod postfix;
pub mod power;
pub mod senders;
pub mod servers;
pub mod shim;
pub mod sink;
pub mod smuggling;
pub mod tmpfs;
pub mod toxic;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long a test waits for what should take no time at all, on a busy machine.
pub const SOON: Duration = Duration::from_secs(20);

/// Polls `probe` until it gives a value; panics with `what` when the deadline passes.
pub fn wait_for<T>(what: &str, deadline: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < end, "waited {deadline:?} in vain for: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A directory that goes away with the test. Other users may enter it (Postfix and smtp-sink run
/// as their own), so it cannot lie below a home directory.
pub struct TestDir(tempfile::TempDir);

impl TestDir {
    pub fn new() -> TestDir {
        let dir = tempfile::Builder::new().prefix("mailweir-test-").tempdir().expect("a temporary directory");
        open_to_others(dir.path());
        TestDir(dir)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        std::fs::write(&path, content).expect("write a file of the test");
        path
    }

    pub fn subdir(&self, name: &str) -> PathBuf {
        let path = self.join(name);
        std::fs::create_dir_all(&path).expect("create a directory of the test");
        open_to_others(&path);
        path
    }
}

fn open_to_others(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("set permissions");
}

/// A port number that no other test uses, on any address but 127.255.255.254, until this is dropped.
///
/// It lies below the range from which the system takes ports for outgoing connections, so that no
/// connection can sit on it between the reservation and the start of the server.
pub struct Port {
    pub number: u16,
    _reserved: TcpListener,
}

impl Port {
    pub fn reserve() -> Port {
        for _ in 0..10_000 {
            let number = fastrand::u16(10_000..32_000);
            let Ok(reserved) = TcpListener::bind((Ipv4Addr::new(127, 255, 255, 254), number)) else { continue };
            // Somebody else's server may listen on every address or on localhost.
            if TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Port { number, _reserved: reserved };
            }
        }
        panic!("no free port on the loopback interface");
    }

    /// 127.0.0.`host` with this port.
    pub fn at(&self, host: u8) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, host], self.number))
    }
}

/// The path of a program of the system, or a panic that says how to get it: a missing tool is a
/// failed test, never a skipped one.
pub fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("`{name}` is not installed: run tests/run, which installs what the tests need"))
}

/// A command that needs root: through sudo when the tests do not run as root.
pub fn as_root(name: &str) -> Command {
    if rustix::process::geteuid().is_root() {
        return Command::new(program(name));
    }
    let mut command = Command::new(program("sudo"));
    command.arg("-n").arg(program(name));
    command
}

/// Runs a program with this standard input to its end, at most for `deadline`, and returns what it
/// wrote. The exit status is the caller's to judge.
pub fn run(command: &mut Command, input: &[u8], deadline: Duration) -> Output {
    let name = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("cannot start {name}: {e}"));
    let pid = rustix::process::Pid::from_child(&child);
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_vec();
    let feeder = thread::spawn(move || {
        // The program may end without reading all of it.
        let _ = std::io::Write::write_all(&mut stdin, &input);
    });
    let waiter = thread::spawn(move || child.wait_with_output());
    let end = Instant::now() + deadline;
    while !waiter.is_finished() {
        if Instant::now() > end {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            panic!("{name} did not end within {deadline:?}");
        }
        thread::sleep(Duration::from_millis(5));
    }
    feeder.join().expect("the feeder of standard input");
    waiter.join().expect("the waiter").expect("the output of a program")
}

/// Like [`run`], and panics with what the program wrote unless it exits with 0.
pub fn run_ok(command: &mut Command, input: &[u8], deadline: Duration) -> Output {
    let output = run(command, input, deadline);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}
