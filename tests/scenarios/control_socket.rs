//! The control socket is there before the first client can hand in mail: whoever cannot have it does not
//! start.

use crate::support;

use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::client::Client;
use support::daemon::Setup;
use support::{SOON, TestDir, wait_for};

/// Starts a relay that must end, while somebody tries to hand in mail all the time; what it said.
fn refused(setup: Setup) -> String {
    let mut daemon = setup.prepare();
    let (smtp, over) = (daemon.smtp, AtomicBool::new(false));
    let status = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut greeted = 0;
            while !over.load(Ordering::Relaxed) {
                greeted += usize::from(Client::open(smtp).is_ok());
                std::thread::sleep(Duration::from_millis(1));
            }
            greeted
        });
        daemon.launch();
        let status = wait_for("the end of the relay", SOON, || daemon.ended());
        over.store(true, Ordering::Relaxed);
        assert_eq!(client.join().expect("a client"), 0, "it listened before it ended");
        status
    });
    assert_eq!(status.code(), Some(69));
    std::fs::read_to_string(&daemon.log).expect("a log")
}

#[test]
fn without_its_control_socket_the_relay_never_listens() {
    let dir = TestDir::new();
    let path = dir.join("queue.db.sock");
    std::fs::write(&path, "notes of somebody").expect("a file");
    let said = refused(Setup::new(&dir));
    assert!(said.contains("queue.db.sock: something is there that is no socket"), "{said}");
    assert_eq!(std::fs::read_to_string(&path).expect("it is still there"), "notes of somebody");
    std::fs::remove_file(&path).expect("it goes");

    // Somebody else listens, and accepts nothing.
    let foreign = UnixListener::bind(&path).expect("a socket");
    let said = refused(Setup::new(&dir));
    assert!(said.contains("another process listens there"), "{said}");
    drop(foreign);

    // What a killed process left is replaced.
    let daemon = Setup::new(&dir).start();
    assert!(daemon.command_ok(&["status"], b"").contains("listening"));
}

#[test]
fn a_second_start_leaves_the_control_socket_of_the_first_alone() {
    let dir = TestDir::new();
    let daemon = Setup::new(&dir).start();
    let mut second = Setup::new(&dir).prepare();
    second.launch();
    let status = wait_for("the end of the second", SOON, || second.ended());
    assert_eq!(status.code(), Some(75));
    assert!(daemon.command_ok(&["status"], b"").contains("listening"));
}
