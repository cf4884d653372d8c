//! Commands and what a configuration names: files that only the relay may read, or that are gone, hide nothing of
//! what a command shows; and no command talks to the relay of another configuration.

use crate::support;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::daemon::{Daemon, MAILWEIR, Setup};
use support::{TestDir, run};

/// What may have become of a file.
const STATES: [&str; 5] = ["missing", "unreadable", "garbage", "directory", "pipe"];

fn become_of(path: &Path, state: &str) {
    let _ = std::fs::remove_file(path).or_else(|_| std::fs::remove_dir(path));
    match state {
        "missing" => {}
        "unreadable" => {
            std::fs::write(path, "x").expect("written");
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o0)).expect("a mode");
        }
        "garbage" => std::fs::write(path, b"\xff\xfe\0 no such thing").expect("written"),
        "directory" => std::fs::create_dir(path).expect("a directory"),
        _ => {
            let mode = rustix::fs::Mode::RWXU;
            rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).expect("a pipe");
        }
    }
}

/// A relay with one file of each kind, and the files.
fn with_files(dir: &TestDir) -> (Daemon, Vec<PathBuf>) {
    let identity = rcgen::generate_simple_self_signed(vec!["relay.test".to_owned()]).expect("a certificate");
    let file = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("a mode");
        path
    };
    let made = run(Command::new(MAILWEIR).args(["passwd"]), b"a good password\n", support::SOON);
    let hash = String::from_utf8(made.stdout).expect("UTF-8");
    let cert = file("cert.pem", &identity.cert.pem());
    let key = file("key.pem", &identity.signing_key.serialize_pem());
    let authority = file("ca.pem", &identity.cert.pem());
    let users = file("users", &format!("shop:{hash}"));
    let password = file("password", "hunter2\n");
    let hashed = file("hash", &hash);
    let aliases = file("aliases", "root: jo@example.test\n");
    let made = run(
        Command::new(MAILWEIR)
            .args(["dkim", "new", "example.test", "--algorithm", "ed25519", "--directory"])
            .arg(dir.path()),
        b"",
        support::SOON,
    );
    assert!(made.status.success(), "{made:?}");
    let mut found = std::fs::read_dir(dir.path()).expect("a directory").flatten().map(|entry| entry.path());
    let dkim = found.find(|path| path.to_string_lossy().contains("-ed25519.pem")).expect("a key");
    let shown = |path: &Path| path.display().to_string();
    let daemon = Setup::new(dir)
        .top(&format!("users = \"{}\"\nalias_file = \"{}\"", shown(&users), shown(&aliases)))
        .listener(&format!(
            "auth = \"offered\"\ntls = {{ mode = \"starttls\", cert = \"{}\", key = \"{}\" }}",
            shown(&cert),
            shown(&key)
        ))
        .with(&format!(
            "[[user]]\nname = \"app\"\npassword = {{ file = \"{}\" }}\n\
             [provider.smart]\nrelay = \"127.0.0.1:9\"\ntls_ca = \"{}\"\nrate = \"7/s\"\n\
             auth = {{ user = \"u\", password = {{ file = \"{}\" }} }}\n\
             [[route]]\nrecipient = \"*@example.test\"\nvia = \"smart\"\n\
             [[route]]\nuser = \"shop\"\nvia = \"smart\"\n\
             [[dkim]]\ndomain = \"example.test\"\nselector = \"a\"\nkey = \"{}\"\n",
            shown(&hashed),
            shown(&authority),
            shown(&password),
            shown(&dkim)
        ))
        .start();
    (daemon, vec![users, aliases, cert, key, authority, hashed, password, dkim])
}

/// What commands show of the provider, whatever became of a file; with `all` the other commands too.
fn looks(daemon: &Daemon, all: bool, about: &str) {
    let list = daemon.command_ok(&["provider", "list", "--json"], b"");
    assert!(list.contains("\"name\":\"smart\""), "{about}: {list}");
    if !all {
        return;
    }
    let show = daemon.command_ok(&["provider", "show", "smart"], b"");
    assert!(show.contains("rate = [\"7/s\"]") && show.contains("tls_ca = \""), "{about}: {show}");
    assert!(show.contains("auth.password = \"<secret>\""), "{about}: {show}");
    let explained = daemon.command_ok(&["explain", "jo@example.test"], b"");
    assert!(explained.contains("provider  smart"), "{about}: {explained}");
    daemon.command_ok(&["queue", "list"], b"");
}

#[test]
fn a_file_that_cannot_be_read_hides_nothing_of_what_commands_show() {
    let dir = TestDir::new();
    let (mut daemon, files) = with_files(&dir);
    looks(&daemon, true, "all are there");
    for running in [true, false] {
        if !running {
            daemon.stop();
        }
        for file in &files {
            let kept = dir.join("kept");
            std::fs::rename(file, &kept).expect("moved");
            // A relay that runs reads them itself, whatever is in them.
            for state in STATES.into_iter().take(if running { 1 } else { STATES.len() }) {
                become_of(file, state);
                looks(&daemon, state == "missing", &format!("{} {state}, running: {running}", file.display()));
            }
            become_of(file, "missing");
            if running {
                // The relay has read them all again: what it could not take is told, and by its name.
                let changed = daemon.config.with_extension("was");
                std::fs::copy(&daemon.config, &changed).expect("copied");
                daemon.replace_config("7/s", "8/s");
                let list = daemon.command(&["provider", "show", "smart"], b"");
                let (out, err) = (String::from_utf8_lossy(&list.stdout), String::from_utf8_lossy(&list.stderr));
                assert!(list.status.success() && out.contains("rate = [\"7/s\"]  # in force"), "{out}{err}");
                let name = file.display().to_string();
                assert!(err.contains("cannot be taken as it is now") && err.contains(&name), "{name}: {err}");
                std::fs::rename(&changed, &daemon.config).expect("as it was");
                daemon.command_ok(&["status"], b"");
            }
            std::fs::rename(&kept, file).expect("moved back");
        }
    }
    // The relay itself, and who asks whether all is well, do need them.
    become_of(&files[0], "missing");
    daemon.command_ok(&["simulate", "--messages", "1", "--until", "1m"], b"");
    assert_eq!(daemon.command(&["check"], b"").status.code(), Some(78));
}

/// A command in `directory`, with what it said.
fn in_directory(directory: &Path, arguments: &[&str]) -> (Output, String) {
    let mut command = Command::new(MAILWEIR);
    command.current_dir(directory).args(arguments);
    let output = run(&mut command, b"", support::SOON);
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output, said)
}

/// Two relays, each started in its directory with a file of the same name.
#[test]
fn no_command_talks_to_the_relay_of_another_configuration() {
    let (ours, theirs) = (TestDir::new(), TestDir::new());
    let _their_relay = Setup::new(&theirs).unnamed().start();
    let mut our_relay = Setup::new(&ours).unnamed().start();
    let their_socket = theirs.join("queue.db.sock").display().to_string();
    let our_socket = ours.join("queue.db.sock").display().to_string();
    // Another queue in our file: ours is named, theirs is not.
    our_relay.replace_config("queue.db", "other.db");
    std::fs::copy(ours.join("queue.db"), ours.join("other.db")).expect("an older queue");
    for command in [
        &["status"][..],
        &["queue", "list"],
        &["queue", "cancel", "--all"],
        &["reload"],
        &["backup", "x.db"],
        &["provider", "list"],
        &["provider", "show", "gmail"],
        &["explain", "a@b.test"],
    ] {
        let (output, said) = in_directory(ours.path(), command);
        assert_eq!(output.status.code(), Some(69), "{command:?}: {said}");
        assert!(said.contains(&format!("add --socket {our_socket}")) && !said.contains(&their_socket), "{said}");
    }
    // Ours is gone: theirs is no answer, and is told as what it is.
    our_relay.stop();
    let (output, said) = in_directory(ours.path(), &["status"]);
    assert_eq!(output.status.code(), Some(69), "{said}");
    assert!(said.contains("not running") && said.contains("none says that it runs with this configuration"), "{said}");
}

/// A store without a full path is in the directory of whoever reads the file.
#[test]
fn a_relative_store_does_not_lead_to_the_relay_that_happens_to_be_there() {
    let (ours, theirs) = (TestDir::new(), TestDir::new());
    let relay = Setup::new(&theirs).queue("store = \"sqlite:q.db\"").unnamed().start();
    let config = Setup::new(&ours).queue("store = \"sqlite:q.db\"").write("config.toml").display().to_string();
    let socket = theirs.join("q.db.sock").display().to_string();
    for command in [&["status"][..], &["queue", "cancel", "--all"], &["provider", "list"], &["explain", "a@b.test"]] {
        let (output, said) = in_directory(theirs.path(), &[command, &["--config", &config]].concat());
        assert_eq!(output.status.code(), Some(69), "{command:?}: {said}");
        assert!(said.contains("and not with") && said.contains("--socket q.db.sock"), "{said}");
    }
    // Its own file with other values than those in force, or with a mistake in it.
    for more in ["drain = \"5s\"\n", "drain = 5s\n"] {
        let was = std::fs::read_to_string(&relay.config).expect("read");
        std::fs::write(&relay.config, format!("{more}{was}")).expect("written");
        for command in [&["provider", "list", "--all"][..], &["queue", "list"]] {
            let (output, said) = in_directory(theirs.path(), command);
            assert!(output.status.success() && said.contains("note: config.toml "), "{command:?}: {said}");
        }
        std::fs::write(&relay.config, was).expect("as it was");
    }
    // Its own file, under whatever name; and whoever says that this one is meant.
    let own = relay.config.display().to_string();
    for command in
        [&["status"][..], &["status", "--config", &own], &["status", "--config", &config, "--socket", &socket]]
    {
        let (output, said) = in_directory(theirs.path(), command);
        assert!(output.status.success() && said.contains(&own), "{command:?}: {said}");
    }
}

/// With `--socket` that relay is meant, whatever file lies where the command is called, or is named besides.
#[test]
fn a_named_socket_shows_the_providers_and_values_of_its_relay_and_nothing_of_another_file() {
    let (ours, theirs, neither) = (TestDir::new(), TestDir::new(), TestDir::new());
    let port = support::Port::reserve();
    let mut relay = Setup::new(&ours).via("bulk", "bulk.test", port.at(2), "connections = 7").unnamed().start();
    let their_relay = Setup::new(&theirs).via("shop", "shop.test", port.at(3), "connections = 3").unnamed().start();
    let socket = ours.join("queue.db.sock").display().to_string();
    let their_config = their_relay.config.display().to_string();
    let ask = |dir: &TestDir, command: &[&str]| in_directory(dir.path(), &[&["--socket", &socket], command].concat());
    // As the file of that relay says them, and, where it says others now, as they are in force.
    for from in ["config.toml:", "in force"] {
        for (dir, more) in
            [(&ours, &[][..]), (&theirs, &[]), (&neither, &[]), (&neither, &["--config", &their_config][..])]
        {
            let (output, said) = ask(dir, &[&["provider", "list"], more].concat());
            assert!(output.status.success() && said.contains("bulk") && said.contains("0/7"), "{said}");
            assert!(!said.contains("shop"), "{said}");
            let (output, said) = ask(dir, &[&["provider", "show", "bulk"], more].concat());
            assert!(
                output.status.success()
                    && said.lines().any(|line| line.starts_with("connections = 7  # ") && line.contains(from)),
                "{from}: {said}"
            );
            let (output, said) = ask(dir, &[&["provider", "show", "shop"], more].concat());
            assert_eq!(output.status.code(), Some(69), "{said}");
            assert!(said.contains("there is no provider or lane `shop`"), "{said}");
            let (output, said) = ask(dir, &[&["explain", "a@bulk.test"], more].concat());
            assert!(output.status.success() && said.contains("provider  bulk"), "{said}");
        }
        if from != "in force" {
            relay.replace_config("connections = 7", "connections = 9");
        }
    }
}

/// The mail of a relay that was started in another directory is not said to be nobody's.
#[test]
fn a_relay_with_a_relative_store_is_found_from_another_directory() {
    let (ours, neither) = (TestDir::new(), TestDir::new());
    let relay = Setup::new(&ours).queue("store = \"sqlite:q.db\"").unnamed().start();
    let (config, socket) = (relay.config.display().to_string(), ours.join("q.db.sock").display().to_string());
    for command in [
        &["status"][..],
        &["queue", "list"],
        &["provider", "list"],
        &["provider", "show", "gmail"],
        &["explain", "a@b.test"],
    ] {
        let (output, said) = in_directory(neither.path(), &[command, &["--config", &config]].concat());
        assert_eq!(output.status.code(), Some(69), "{command:?}: {said}");
        assert!(said.contains(&format!("add --socket {socket}")), "{command:?}: {said}");
    }
}
