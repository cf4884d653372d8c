//! The limit of open files: as high as the system allows, and a warning where that is not enough for
//! what the configuration allows.

mod support;

use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use support::client::Client;
use support::daemon::{MAILWEIR, Setup};
use support::{SOON, TestDir, run_ok, wait_for};

/// A relay whose limit is set before it starts; it is ended with the value.
struct Limited(Child);

impl Limited {
    fn start(set: &str, setup: &Setup, log: &Path) -> Limited {
        let config = setup.write("config.toml");
        let child = Command::new("sh")
            .args(["-c", &format!("{set} && exec \"$0\" run --config \"$1\""), MAILWEIR])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(log).expect("a log"))
            .spawn()
            .expect("start");
        let limited = Limited(child);
        wait_for("a relay that greets", SOON, || Client::open(setup.smtp()).ok()?.read().ok());
        limited
    }

    /// The soft and the hard limit.
    fn limits(&self) -> (String, String) {
        let text = std::fs::read_to_string(format!("/proc/{}/limits", self.0.id())).expect("its limits");
        let line = text.lines().find_map(|line| line.strip_prefix("Max open files")).expect("the line");
        let mut words = line.split_whitespace().map(str::to_owned);
        (words.next().expect("soft"), words.next().expect("hard"))
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_limit_of_open_files_is_raised_and_one_that_is_too_low_is_told() {
    let dir = TestDir::new();
    let log = dir.join("stderr");
    let setup = Setup::new(&dir).with("[default]\nconnections = 5");
    let warning = "the limit of open files (LimitNOFILE of systemd, ulimit -n) is below";
    {
        let relay = Limited::start("ulimit -S -n 100", &setup, &log);
        let (soft, hard) = relay.limits();
        assert_ne!(soft, "100");
        assert_eq!(soft, hard);
    }
    // Less than max_connections of the listener alone.
    let relay = Limited::start("ulimit -n 900", &setup, &log);
    assert_eq!(relay.limits(), ("900".into(), "900".into()));
    let said = wait_for("the warning", SOON, || {
        let text = std::fs::read_to_string(&log).ok()?;
        text.lines().find(|line| line.contains(warning)).map(str::to_owned)
    });
    assert!(said.contains("\"WARN\"") && said.contains("900"), "{said}");
}

/// Clients have taken every descriptor: the operator is answered all the same, and the log is not
/// filled with it.
#[test]
fn status_answers_when_no_descriptor_is_left() {
    let dir = TestDir::new();
    let log = dir.join("stderr");
    let setup = Setup::new(&dir);
    let relay = Limited::start("ulimit -n 80", &setup, &log);
    let open =
        |relay: &Limited| std::fs::read_dir(format!("/proc/{}/fd", relay.0.id())).expect("its descriptors").count();
    let clients: Vec<TcpStream> =
        (0..200).map(|_| TcpStream::connect(setup.smtp()).expect("a place in the kernel")).collect();
    wait_for("a relay without descriptors", SOON, || (open(&relay) >= 80).then_some(()));
    let warned = || std::fs::read_to_string(&log).expect("a log").matches("cannot accept connections").count();
    wait_for("the warning", SOON, || (warned() > 0).then_some(()));
    for _ in 0..20 {
        let mut status = Command::new(MAILWEIR);
        status.args(["status", "--config"]).arg(dir.join("config.toml"));
        let said = run_ok(&mut status, b"", SOON);
        assert!(String::from_utf8_lossy(&said.stdout).contains("listening"), "{said:?}");
    }
    let (times, after) = (warned(), Instant::now());
    drop(clients);
    // It goes on by itself.
    wait_for("a relay that greets", SOON, || Client::open(setup.smtp()).ok()?.read().ok());
    assert!(warned() <= times + 1 + after.elapsed().as_secs() as usize / 10, "{} times", warned());
}
