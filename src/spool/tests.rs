//! What users leave in a spool, by mistake and on purpose.

use std::os::unix::fs::{PermissionsExt as _, symlink};

use rustix::process::geteuid;

use super::super::leave;
use super::*;

struct Site {
    dir: tempfile::TempDir,
    spool: Spool,
}

fn site() -> Site {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o3733)).expect("mode");
    let spool = Spool::open(dir.path()).expect("open");
    Site { dir, spool }
}

fn entry() -> Entry {
    Entry { sender: "a@b.example".into(), recipients: vec!["root".into(), "c@d.example".into()], ..Entry::default() }
}

impl Site {
    fn leave(&self, content: &[u8]) -> String {
        leave(self.dir.path(), &entry(), content).expect("left").into_string().expect("a name")
    }

    fn take(&self, found: &Found) -> Result<Taken, Refused> {
        self.spool.take(found, 1 << 20)
    }

    /// What becomes of everything that waits.
    fn told(&self) -> Vec<String> {
        let list = self.spool.list().expect("listed");
        list.iter().map(|found| self.take(found).map_or_else(|e| e.to_string(), |_| "taken".into())).collect()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.dir.path())
            .expect("listed")
            .map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

#[test]
fn what_is_left_is_taken_once_and_belongs_to_its_owner() {
    let site = site();
    let name = site.leave(b"Subject: x\r\n\r\nhi\r\n");
    assert!(name.starts_with("msg-") && name.len() == 36, "{name}");
    let mode = std::fs::metadata(site.dir.path().join(&name)).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o640, "the relay's group may read it, and nobody else");
    let found = site.spool.list().expect("listed");
    let [one] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(one.user, geteuid().as_raw());
    let mut taken = site.take(one).expect("taken");
    assert_eq!((taken.user, &taken.entry.recipients), (geteuid().as_raw(), &entry().recipients));
    let mut content = String::new();
    taken.content.read_to_string(&mut content).expect("read");
    assert_eq!((content.as_str(), taken.entry.size), ("Subject: x\r\n\r\nhi\r\n", 18));
    assert!(site.take(one).is_err(), "it has another name now");
    // Until the queue has it, it stays: after a crash it is found again.
    assert_eq!(site.told(), ["taken"]);
    assert!(site.spool.done(&taken));
    assert_eq!(site.names(), [] as [&str; 0]);
}

#[test]
fn links_pipes_sockets_and_directories_are_not_followed() {
    let site = site();
    let secret = site.dir.path().join("secret");
    std::fs::write(&secret, "mailweir-spool 1\nsender \nrecipient a@b\nsize 1\n\nx").expect("written");
    let at = |name: &str| site.dir.path().join(name);
    symlink(&secret, at("msg-symbolic")).expect("a link");
    assert_eq!(site.told(), ["it is a symbolic link"]);
    std::fs::remove_file(at("take-symbolic")).expect("removed");
    std::fs::hard_link(&secret, at("msg-hard")).expect("a link");
    assert_eq!(site.told(), ["it is a file with more than one link"]);
    std::fs::remove_file(at("take-hard")).expect("removed");
    rustix::fs::mknodat(rustix::fs::CWD, at("msg-pipe"), FileType::Fifo, Mode::RUSR, 0).expect("a pipe");
    assert_eq!(site.told(), ["it is not a regular file"]);
    std::fs::remove_file(at("take-pipe")).expect("removed");
    let _socket = std::os::unix::net::UnixListener::bind(at("msg-socket")).expect("a socket");
    assert_eq!(site.told(), ["it is a socket or a pipe"]);
    std::fs::remove_file(at("take-socket")).expect("removed");
    std::fs::create_dir(at("msg-dir")).expect("a directory");
    assert_eq!(site.told(), ["it is not a regular file"]);
}

#[test]
fn what_is_not_whole_or_too_large_or_no_message_is_refused() {
    let head = "mailweir-spool 1\nsender \nrecipient a@b\n";
    let huge = format!("{head}size 2000000\n\n{}", "x".repeat(2_000_000));
    for (content, told) in [
        (format!("{head}size 5\n\nhell"), "it is not whole"),
        (format!("{head}size 5\n\nhello!"), "it is not whole"),
        (format!("{head}size 5\n"), "it does not begin with"),
        (format!("{head}size 18446744073709551615\n\nx"), "it is not whole"),
        (String::new(), "it does not begin with"),
        ("\n\n".into(), "it does not begin with"),
        ("Subject: x\n\nhi".into(), "it does not begin with"),
        (huge, "more than max_message_size"),
    ] {
        let site = site();
        std::fs::write(site.dir.path().join("msg-x"), &content).expect("written");
        let list = site.spool.list().expect("listed");
        let error = site.take(&list[0]).expect_err(told).to_string();
        assert!(error.contains(told), "{error}");
        assert!(site.spool.set_aside(&list[0].claimed()).is_some());
        assert_eq!(site.names(), ["bad-x"], "kept, and not looked at again");
        assert!(site.spool.list().expect("listed").is_empty());
    }
    // A file with a hole is large without being there.
    let site = site();
    let file = File::create(site.dir.path().join("msg-hole")).expect("made");
    file.set_len(1 << 40).expect("long");
    assert!(site.told()[0].contains("more than max_message_size"));
}

#[test]
fn files_in_the_making_and_odd_names_wait_or_are_escaped() {
    let site = site();
    for name in ["new-half", "bad-old", "other", ".hidden", "msg"] {
        std::fs::write(site.dir.path().join(name), "x").expect("written");
    }
    assert!(site.spool.list().expect("listed").is_empty());
    let odd = OsString::from_vec(b"msg-\xff\n\x1b[31m".to_vec());
    std::fs::write(site.dir.path().join(&odd), "x").expect("written");
    let list = site.spool.list().expect("listed");
    assert_eq!(list.len(), 1);
    assert!(list[0].name().chars().all(|c| !c.is_control()), "{}", list[0].name());
    assert!(site.take(&list[0]).is_err());
    // What nobody has written to for a day is removed.
    let old = File::options().write(true).open(site.dir.path().join("new-half")).expect("open");
    old.set_modified(SystemTime::now() - 2 * STALE).expect("old");
    let _ = site.spool.list();
    assert!(!site.names().contains(&"new-half".to_owned()));
}

#[test]
fn a_directory_where_users_could_harm_one_another_gets_nothing() {
    let site = site();
    std::fs::set_permissions(site.dir.path(), std::fs::Permissions::from_mode(0o777)).expect("mode");
    let error = leave(site.dir.path(), &entry(), b"x").expect_err("not sticky").to_string();
    assert!(error.contains("not sticky"), "{error}");
    assert!(leave(&site.dir.path().join("none"), &entry(), b"x").is_err());
    for (mode, readable) in [(0o1777, 0o600), (0o1733, 0o644), (0o3777, 0o640), (0o700, 0o644)] {
        std::fs::set_permissions(site.dir.path(), std::fs::Permissions::from_mode(mode)).expect("mode");
        let name = leave(site.dir.path(), &entry(), b"x").expect("left");
        let file = std::fs::metadata(site.dir.path().join(name)).expect("a file");
        assert_eq!(file.permissions().mode() & 0o777, readable, "{mode:o}");
    }
}

#[test]
fn one_users_thousand_messages_do_not_hide_the_others() {
    let site = site();
    for i in 0..300 {
        std::fs::write(site.dir.path().join(format!("msg-{i:03}")), "x").expect("written");
    }
    assert_eq!(site.spool.list().expect("listed").len(), MOST_OF_A_USER);
    if geteuid().is_root() {
        let other = site.dir.path().join("msg-other");
        std::fs::write(&other, "x").expect("written");
        std::os::unix::fs::chown(&other, Some(12_345), None).expect("another owner");
        let list = site.spool.list().expect("listed");
        assert!(list.iter().take(2).any(|found| found.user == 12_345), "they take turns");
    }
}
