//! Where a program runs: the packages it needs beside those of the system, namespaces of its own, and
//! the variables that tell it what to do.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::case::{Case, folder};
use super::support::{program, run};

/// The first use of a case may have to fetch a compiler.
const FETCH: Duration = Duration::from_secs(600);
const PROGRAM: Duration = Duration::from_secs(150);

/// The packages of a case, there.
pub struct Machine {
    root: PathBuf,
}

/// A program that runs.
pub struct Running {
    child: Child,
    log: PathBuf,
}

/// How a program ended, and all it said.
pub struct Ended {
    pub code: i32,
    pub said: String,
}

/// What the probe gives, if it gives anything before the deadline.
pub fn within<T>(deadline: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    loop {
        match probe() {
            None if Instant::now() < end => std::thread::sleep(Duration::from_millis(20)),
            given => return given,
        }
    }
}

impl Machine {
    /// Fetches what is missing. An error says why it cannot be had.
    pub fn fetch(case: &Case) -> Result<Machine, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("needs root, for namespaces".to_owned());
        }
        let cache = std::env::var_os("INTEROP_CACHE")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/interop"), PathBuf::from);
        // Cases that need the same share it.
        let names = [&case.packages[..], &case.npm, &case.pip].concat().join("+");
        let names = if names.is_empty() { "nothing".to_owned() } else { names };
        let root = cache.join(names.replace(['/', '@', '='], "-"));
        std::fs::create_dir_all(&root).map_err(|e| format!("{}: {e}", root.display()))?;
        for (kind, names) in [("deb", &case.packages), ("npm", &case.npm), ("pip", &case.pip)] {
            if names.is_empty() {
                continue;
            }
            let mut command = Command::new(folder().join("fetch.sh"));
            command.arg(&root).arg(kind).args(names);
            let output = run(&mut command, b"", FETCH);
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr);
                let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
                return Err(format!("{} cannot be had: {last}", names.join(", ")));
            }
        }
        Ok(Machine { root })
    }

    /// Starts a command with these variables; what it says goes to a file of the working directory.
    pub fn start(&self, work: &Path, variables: &[(&str, String)], command: &[String]) -> Running {
        let log = work.join("program.log");
        let out = std::fs::File::create(&log).expect("a log");
        let mut all = Command::new(program("unshare"));
        all.args(["--mount", "--pid", "--uts", "--fork", "--kill-child=KILL", "--mount-proc", "--propagation=private"])
            .arg(folder().join("enter.sh"))
            .arg(&self.root)
            .arg(work)
            .args(command)
            .current_dir(folder().join("programs"))
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LANG", "C.UTF-8")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("HOME", work)
            .env("WORK", work)
            .env("NODE_PATH", self.root.join("node_modules"))
            .env("PYTHONPATH", self.root.join("python"))
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(out.try_clone().expect("a handle"))
            .stderr(out)
            .process_group(0);
        Running { child: all.spawn().expect("unshare"), log }
    }

    /// What a line of the shell prints first: a version.
    pub fn version(&self, work: &Path, line: &str) -> String {
        let ended = self.start(work, &[], &["sh".to_owned(), "-c".to_owned(), line.to_owned()]).wait();
        let first = ended.said.lines().map(str::trim).find(|line| !line.is_empty());
        first.unwrap_or("does not tell its version").to_owned()
    }
}

impl Running {
    /// Its end, by itself; a program that does not end has failed.
    pub fn wait(mut self) -> Ended {
        match within(PROGRAM, || self.ended()) {
            Some(code) => Ended { code, said: self.said() },
            None => Ended { code: -1, said: format!("{}\n(it did not end within {PROGRAM:?})", self.said()) },
        }
    }

    /// Its code, if it has ended.
    pub fn ended(&mut self) -> Option<i32> {
        self.child.try_wait().expect("try_wait").map(|status| status.code().unwrap_or(-1))
    }

    /// What it has said so far.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Running {
    /// The first process of its namespace dies with `unshare`, and all others with that.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
