//! A relay that runs for one measurement, and nothing of it afterwards.
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

use parking_lot::Mutex;
use rustix::process::{Pid, Signal};
use tokio::signal::unix::{SignalKind, signal};

use crate::support::relay::greets;
use crate::support::usage::Group;

/// A relay that runs; it is stopped, whatever is left of it killed, and its files removed on drop.
pub struct Running {
    /// Where it takes mail.
    pub smtp: SocketAddr,
    /// Its processes.
    pub group: Group,
    child: Child,
    directory: tempfile::TempDir,
}

impl Running {
    /// Starts the relay of `script`, which is to send to `sink` over so many connections.
    pub fn start(script: Command, sink: SocketAddr, connections: u32) -> io::Result<Running> {
        let directory = tempfile::Builder::new().prefix("mailweir-peer-").tempdir()?;
        // Free when this looks, and taken at once.
        let smtp = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let cgroup = cgroup(&format!("mailweir-bench-{}-{}", std::process::id(), smtp.port()));
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
        let leader = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        *NOW.lock() = Some(Remains { leader, cgroup, directory: directory.path().to_owned() });
        let mut running = Running { smtp, group, child, directory };
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
        let Some(remains) = NOW.lock().take() else { return };
        if let Some(leader) = remains.leader {
            let _ = rustix::process::kill_process(leader, Signal::TERM);
        }
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(5) && matches!(self.child.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(10));
        }
        remains.kill();
        let _ = self.child.wait();
        remains.remove_cgroup();
    }
}

/// What a relay would leave behind.
struct Remains {
    leader: Option<Pid>,
    cgroup: Option<PathBuf>,
    directory: PathBuf,
}

/// The relay that runs now: there is one at a time.
static NOW: Mutex<Option<Remains>> = Mutex::new(None);

impl Remains {
    fn kill(&self) {
        match (&self.cgroup, self.leader) {
            (Some(path), _) => _ = fs::write(path.join("cgroup.kill"), "1"),
            (None, Some(leader)) => _ = rustix::process::kill_process_group(leader, Signal::KILL),
            (None, None) => {}
        }
    }

    /// It is gone when the last of its processes is.
    fn remove_cgroup(&self) {
        for _ in 0..200 {
            if self.cgroup.as_ref().is_none_or(|path| fs::remove_dir(path).is_ok()) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Leaves nothing behind when this program is interrupted either. The relays have process groups of
/// their own, so that Ctrl-C does not reach them.
pub fn clean_up_when_interrupted() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::spawn(move || {
        runtime.block_on(async {
            let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if let Some(remains) = NOW.lock().take() {
                remains.kill();
                remains.remove_cgroup();
                let _ = fs::remove_dir_all(&remains.directory);
            }
            std::process::exit(130);
            #[allow(unreachable_code)]
            io::Result::Ok(())
        })
    });
    Ok(())
}
