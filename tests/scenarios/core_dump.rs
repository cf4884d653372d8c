//! A relay is not dumpable: neither a core dump nor another process of its own user gets at messages
//! and passwords.

use crate::support;

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use support::client::Client;
use support::daemon::{MAILWEIR, Setup, tail};
use support::{SOON, TestDir, wait_for};

/// The user to be where the tests are root: to root, `/proc` looks the same for every process.
const NOBODY: u32 = 65534;

struct Relay(Child);

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a relay as another user than root; returns who owns its files under `/proc`.
fn owner(allow: &str) -> u32 {
    let dir = TestDir::new();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o1777)).expect("permissions");
    // Nobody may come through the directories of root.
    let program = dir.join("mailweir");
    std::fs::copy(MAILWEIR, &program).expect("a copy of mailweir");
    let setup = Setup::new(&dir);
    let config = setup.write("config.toml");
    let log = dir.join("log");
    let file = std::fs::File::create(&log).expect("a log");
    let mut command = Command::new(&program);
    command.args(["run", "--config"]).arg(&config).env("MAILWEIR_CORE_DUMPS", allow);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let relay = Relay(command.spawn().expect("start mailweir"));
    wait_for(&format!("the greeting: {}", tail(&log)), SOON, || {
        Client::open(setup.smtp()).ok()?.read().ok().filter(|greeting| greeting.code == 220)
    });
    std::fs::metadata(format!("/proc/{}/mem", relay.0.id())).expect("its memory").uid()
}

#[test]
fn the_memory_of_a_relay_is_for_root_only_unless_it_is_allowed() {
    let user = if rustix::process::geteuid().is_root() { NOBODY } else { rustix::process::geteuid().as_raw() };
    assert_eq!(owner(""), 0, "to the system it is nobody's but root's, and not dumped");
    assert_eq!(owner("1"), user, "as the system made it");
}
