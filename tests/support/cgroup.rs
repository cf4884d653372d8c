//! A control group with a limit of memory, of either version, for processes of a test.

use std::path::{Path, PathBuf};

use rustix::process::Pid;

use super::{SOON, as_root, run, run_ok};

/// Its processes are ended, and it is removed, when it is dropped.
pub struct MemoryGroup {
    home: PathBuf,
    unified: bool,
}

impl MemoryGroup {
    /// Processes of this group together get so many bytes, and no swap.
    pub fn new(bytes: u64) -> MemoryGroup {
        let root = Path::new("/sys/fs/cgroup");
        let unified = std::fs::read_to_string(root.join("cgroup.controllers")).is_ok_and(|all| all.contains("memory"));
        let above = if unified { root.to_owned() } else { root.join("memory") };
        assert!(above.is_dir(), "no control groups for memory below /sys/fs/cgroup: this test needs them");
        let home = above.join(format!("mailweir-test-{}-{}", std::process::id(), fastrand::u32(..)));
        if unified {
            write(&above.join("cgroup.subtree_control"), "+memory");
        }
        run_ok(as_root("mkdir").arg(&home), b"", SOON);
        let group = MemoryGroup { home, unified };
        if unified {
            write(&group.home.join("memory.max"), &bytes.to_string());
            // Not there in a kernel without swap.
            if group.home.join("memory.swap.max").exists() {
                write(&group.home.join("memory.swap.max"), "0");
            }
        } else {
            write(&group.home.join("memory.limit_in_bytes"), &bytes.to_string());
            write(&group.home.join("memory.swappiness"), "0");
        }
        group
    }

    /// Moves a process into the group; what it allocates from now on counts.
    pub fn add(&self, pid: Pid) {
        write(&self.home.join("cgroup.procs"), &pid.as_raw_nonzero().to_string());
    }

    /// The file through which a process joins.
    pub fn procs(&self) -> PathBuf {
        self.home.join("cgroup.procs")
    }

    /// The most that was in use at once, in bytes; the kernel's caches of files are in it.
    pub fn peak(&self) -> Option<u64> {
        let name = if self.unified { "memory.peak" } else { "memory.max_usage_in_bytes" };
        std::fs::read_to_string(self.home.join(name)).ok()?.trim().parse().ok()
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // The processes have been waited for; the kernel may need a moment to notice.
        for _ in 0..200 {
            if run(as_root("rmdir").arg(&self.home), b"", SOON).status.success() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

fn write(file: &Path, text: &str) {
    run_ok(as_root("tee").arg(file), text.as_bytes(), SOON);
}
