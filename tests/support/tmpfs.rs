//! A small file system of its own, in memory, for a queue to fill.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;

use super::{SOON, TestDir, as_root, run, run_ok};

/// Mounted until it is dropped.
pub struct Tmpfs(PathBuf);

impl Tmpfs {
    /// Of so many megabytes, below `dir`, for this user.
    pub fn mount(dir: &TestDir, megabytes: u32) -> Tmpfs {
        let at = dir.subdir("store");
        let user = rustix::process::geteuid().as_raw();
        let options = format!("size={megabytes}m,mode=0755,uid={user}");
        run_ok(as_root("mount").args(["-t", "tmpfs", "-o", &options, "mailweir-test"]).arg(&at), b"", SOON);
        Tmpfs(at)
    }

    /// With other options.
    pub fn remount(&self, options: &str) {
        run_ok(as_root("mount").args(["-o", &format!("remount,{options}")]).arg(&self.0), b"", SOON);
    }

    /// A file of it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The key of `[queue]` for a store on it.
    pub fn store(&self) -> String {
        format!("store = \"sqlite:{}\"", self.file("queue.db").display())
    }

    /// Something else takes it to the last byte; returns the file that does.
    pub fn fill(&self) -> PathBuf {
        let ballast = self.file("ballast");
        let mut file = File::create(&ballast).expect("the ballast");
        while file.write_all(&[0u8; 4096]).is_ok() {}
        ballast
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily, so that it also goes away under a daemon that a failed test left to its own drop.
        run(as_root("umount").arg("-l").arg(&self.0), b"", SOON);
    }
}
