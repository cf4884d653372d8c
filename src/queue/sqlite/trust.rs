//! Whose files mail is written to, and read from: those of this user (or root), that nobody else can
//! write to, under one name each.
//!
//! A name that leads elsewhere (a symbolic link), a file with a second name (a hard link), one of
//! somebody else or one that others may write to can be read, changed or swapped behind our back. So
//! the store, what SQLite keeps beside it, the lock and the reserve are looked at before they are
//! opened, and refused with what is wrong and what to do. Reading by others is the owner's choice: a
//! store made under an umask of 022 is fine.
//!
//! A rollback journal (`-journal`) is played back into the database by whoever opens it next, and may
//! name a further file that is then deleted. Only one of this user, or of root, is taken. Where others can
//! make files in the directory, one could be planted between that look and SQLite's own: there an empty one
//! of ours takes the name, which SQLite passes over ([`take_journal_name`]).

use std::fs::{Metadata, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use crate::queue::QueueError;

/// What belongs to a store besides the database itself: SQLite's log and its index, the lock, and
/// the room that is set aside.
const BESIDE: [&str; 4] = ["-wal", "-shm", ".lock", ".reserve"];

/// `database` with `suffix` added to its name.
pub(super) fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Whether this user may still write to the database, to what lies beside it, and to its directory. Asked of
/// the system, and not by opening: to close a file ends all locks that this process has on it.
///
/// # Errors
/// [`QueueError::Unavailable`] with the file, and what to do.
pub(super) fn may_write(database: &Path) -> Result<(), QueueError> {
    let directory = database.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let files = BESIDE.iter().map(|suffix| beside(database, suffix)).chain([database.to_owned()]);
    let files = files.filter(|file| file.exists()).map(|file| (file, Access::READ_OK | Access::WRITE_OK));
    for (path, wanted) in files.chain([(directory.to_owned(), Access::WRITE_OK | Access::EXEC_OK)]) {
        if let Err(error) = accessat(CWD, &path, wanted, AtFlags::EACCESS) {
            let error = std::io::Error::from(error);
            return Err(QueueError::Unavailable(format!(
                "{} cannot be written to any more ({error}): give it back to the user that mailweir runs as, with write permission",
                path.display()
            )));
        }
    }
    Ok(())
}

/// Checks the directory, the database and what lies beside it, as far as they are there.
///
/// # Errors
/// [`QueueError::Unavailable`] with the file, what is wrong with it, and what to do.
pub(super) fn check(database: &Path) -> Result<(), QueueError> {
    let directory = database.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |path: &Path, why: String| Err(QueueError::Unavailable(format!("{} {why}", path.display())));
    let holder = match directory.metadata() {
        Ok(metadata) => metadata,
        Err(e) => return failed(directory, format!("cannot be looked at: {e}")),
    };
    if let Some(why) = open_to_all(&holder) {
        return failed(directory, why);
    }
    check_journal(database)?;
    let owners = Owners::of(&holder);
    for path in std::iter::once(database.to_owned()).chain(BESIDE.iter().map(|suffix| beside(database, suffix))) {
        match path.symlink_metadata() {
            Ok(metadata) => {
                if let Some(why) = fault(&metadata, &owners) {
                    return failed(&path, why);
                }
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return failed(&path, format!("cannot be looked at: {e}")),
        }
    }
    Ok(())
}

/// Checks the rollback journal, if there is one: to be called before each connection to the file is opened.
///
/// # Errors
/// As [`check`].
pub(super) fn check_journal(database: &Path) -> Result<(), QueueError> {
    let path = beside(database, "-journal");
    let failed = |why: String| Err(QueueError::Unavailable(format!("{} {why}", path.display())));
    // Not that of the directory's owner: what it names would be deleted with the rights of root.
    let owners = Owners { process: rustix::process::geteuid().as_raw(), directory: None };
    match path.symlink_metadata() {
        Ok(metadata) => match fault(&metadata, &owners) {
            Some(why) => failed(format!("{why}; or remove it, if it is not the queue's: SQLite would play it back")),
            None => Ok(()),
        },
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => failed(format!("cannot be looked at: {e}")),
    }
}

/// Takes the name of the rollback journal where others could: in a directory that is sticky nobody but us
/// can take it away again. A database that is still empty has nothing to be played back into, and SQLite
/// would remove the file.
///
/// # Errors
/// As [`check_journal`]; or the file cannot be made.
pub(super) fn take_journal_name(database: &Path) -> Result<(), QueueError> {
    let directory = database.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let of_others = directory.metadata().is_ok_and(|directory| directory.mode() & 0o022 != 0);
    if !of_others || database.metadata().is_ok_and(|database| database.len() == 0) {
        return Ok(());
    }
    let path = beside(database, "-journal");
    // O_EXCL follows no link.
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => check_journal(database),
        Err(e) => Err(QueueError::Unavailable(format!("{} cannot be made: {e}", path.display()))),
    }
}

/// What is wrong with a file that mail is to be written to; `directory` is where it lies.
pub(super) fn fault_of_file(file: &Metadata, directory: &Metadata) -> Option<String> {
    fault(file, &Owners::of(directory))
}

/// Users whose files are taken.
struct Owners {
    process: u32,
    /// Root may look after the queue of the user that mailweir runs as.
    directory: Option<u32>,
}

impl Owners {
    fn of(directory: &Metadata) -> Owners {
        let process = rustix::process::geteuid();
        Owners { process: process.as_raw(), directory: process.is_root().then(|| directory.uid()) }
    }

    fn contain(&self, uid: u32) -> bool {
        uid == 0 || uid == self.process || Some(uid) == self.directory
    }
}

fn fault(file: &Metadata, owners: &Owners) -> Option<String> {
    if file.is_symlink() {
        return Some("is a symbolic link, which somebody could turn elsewhere: name the file itself".into());
    }
    if !file.is_file() {
        return Some("is not a regular file: give the queue a file of its own".into());
    }
    if file.nlink() > 1 {
        let others = file.nlink() - 1;
        return Some(format!(
            "has {others} other name(s) (hard links), by which it can be changed: remove those, or copy the file"
        ));
    }
    if !owners.contain(file.uid()) {
        let (owner, user) = (file.uid(), owners.process);
        return Some(format!(
            "belongs to user {owner}, and mailweir runs as user {user}: give it to that user (chown), or run as its owner"
        ));
    }
    if file.mode() & 0o022 != 0 {
        let mode = file.mode() & 0o7777;
        return Some(format!("can be written by others than its owner (mode {mode:04o}): take that away (chmod go-w)"));
    }
    None
}

/// In a directory that all may write to, all may take files away and put others in their place,
/// unless it is sticky.
fn open_to_all(directory: &Metadata) -> Option<String> {
    let mode = directory.mode() & 0o7777;
    (mode & 0o002 != 0 && mode & 0o1000 == 0).then(|| {
        format!(
            "is a directory in which everybody can replace files (mode {mode:04o}): take that away (chmod o-w), or \
             make it sticky (chmod +t)"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    fn store() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q.db");
        fs::write(&path, b"").unwrap();
        (dir, path)
    }

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn refused(path: &Path) -> String {
        let e = check(path).expect_err("it is refused");
        assert!(matches!(e, QueueError::Unavailable(_)), "{e}");
        e.to_string()
    }

    #[test]
    fn what_a_usual_umask_makes_is_fine() {
        let (dir, path) = store();
        for (directory, file) in [(0o755, 0o644), (0o700, 0o600), (0o775, 0o640), (0o1777, 0o600)] {
            mode(dir.path(), directory);
            mode(&path, file);
            check(&path).unwrap();
        }
    }

    #[test]
    fn every_file_of_a_store_is_looked_at_and_every_fault_is_named() {
        for suffix in ["", "-wal", "-shm", "-journal", ".lock", ".reserve"] {
            let (dir, path) = store();
            let file = beside(&path, suffix);
            fs::write(&file, b"").unwrap();
            for (bits, word) in [(0o664, "mode 0664"), (0o602, "mode 0602")] {
                mode(&file, bits);
                let said = refused(&path);
                assert!(said.contains(word) && said.contains(&*file.to_string_lossy()), "{said}");
            }
            mode(&file, 0o600);
            check(&path).unwrap();

            let other = dir.path().join("other");
            fs::hard_link(&file, &other).unwrap();
            assert!(refused(&path).contains("hard link"), "{suffix}");
            fs::remove_file(&file).unwrap();
            symlink(&other, &file).unwrap();
            assert!(refused(&path).contains("symbolic link"), "{suffix}");
            fs::remove_file(&file).unwrap();
            fs::create_dir(&file).unwrap();
            assert!(refused(&path).contains("not a regular file"), "{suffix}");
        }
    }

    #[test]
    fn where_others_can_make_files_the_name_of_the_journal_is_taken() {
        let (dir, path) = store();
        let journal = beside(&path, "-journal");
        let database = || rusqlite::Connection::open(&path).unwrap();
        take_journal_name(&path).unwrap();
        database().execute_batch("PRAGMA journal_mode = wal; CREATE TABLE t (x); INSERT INTO t VALUES (7)").unwrap();
        take_journal_name(&path).unwrap();
        assert!(!journal.exists(), "nobody else can make files here");
        mode(dir.path(), 0o1777);
        take_journal_name(&path).unwrap();
        let taken = journal.metadata().unwrap();
        assert_eq!((taken.len(), taken.mode() & 0o777), (0, 0o600));
        // SQLite passes it over and leaves it.
        let seven: i64 = database().query_row("SELECT x FROM t", [], |row| row.get(0)).unwrap();
        assert!(seven == 7 && journal.exists());
        take_journal_name(&path).unwrap();
        check(&path).unwrap();
        // What somebody has put there is refused.
        fs::hard_link(&journal, dir.path().join("other")).unwrap();
        assert!(take_journal_name(&path).unwrap_err().to_string().contains("hard link"));
    }

    #[tokio::test]
    async fn a_store_in_a_directory_of_all_is_opened_again_and_again() {
        let dir = tempfile::tempdir().unwrap();
        mode(dir.path(), 0o1777);
        let path = dir.path().join("q.db");
        for _ in 0..3 {
            let queue = super::super::SqliteQueue::open(&path, crate::clock::Clock::System).unwrap();
            crate::queue::Spool::probe(&*queue).await.unwrap();
            crate::queue::Upkeep::close(&*queue).await;
            assert!(beside(&path, "-journal").exists());
        }
    }

    #[test]
    fn what_can_no_longer_be_written_to_is_told_before_it_is_closed() {
        let (dir, path) = store();
        may_write(&path).unwrap();
        let log = beside(&path, "-wal");
        fs::write(&log, "").unwrap();
        mode(&log, 0o400);
        let said = may_write(&path);
        if rustix::process::geteuid().is_root() {
            said.unwrap();
        } else {
            let said = said.unwrap_err().to_string();
            assert!(said.contains("-wal cannot be written to any more") && said.contains("give it back"), "{said}");
        }
        let gone = may_write(&dir.path().join("gone").join("q.db")).unwrap_err().to_string();
        assert!(gone.contains("gone cannot be written to any more"), "{gone}");
    }

    #[test]
    fn a_directory_in_which_all_may_replace_files_is_refused() {
        let (dir, path) = store();
        mode(dir.path(), 0o777);
        let said = refused(&path);
        assert!(said.contains("mode 0777") && said.contains("sticky"), "{said}");
    }

    #[test]
    fn a_file_of_somebody_else_is_refused_and_root_may_look_after_a_users_queue() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let (dir, path) = store();
        chown(&path, Some(4711), None).unwrap();
        let said = refused(&path);
        assert!(said.contains("belongs to user 4711") && said.contains("runs as user 0"), "{said}");
        chown(dir.path(), Some(4711), None).unwrap();
        check(&path).unwrap();
        // Except for what would be played back.
        let journal = beside(&path, "-journal");
        fs::write(&journal, b"").unwrap();
        check(&path).unwrap();
        chown(&journal, Some(4711), None).unwrap();
        let said = refused(&path);
        assert!(said.contains("-journal belongs to user 4711") && said.contains("remove it"), "{said}");
    }
}
