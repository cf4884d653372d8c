//! Unix sockets by the name of their file: made so that nobody meets one before its rights are right,
//! never in the place of what is no socket or of one that somebody listens on, and gone with their owner.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// Binds a socket that is not blocking, with these rights and, if one is given, this group. A file that a
/// process left which is gone is replaced.
///
/// # Errors
/// Its directory cannot be written, another process listens there, something is there that is no socket,
/// or the rights cannot be given.
pub fn bind(path: &Path, mode: u32, group: Option<u32>) -> io::Result<UnixListener> {
    if path.symlink_metadata().is_ok_and(|there| !there.file_type().is_socket()) {
        let message = "something is there that is no socket: move it away".to_owned();
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
    }
    if answers(path)? {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there"));
    }
    // Bound under another name and renamed, so that nobody meets it before its rights are right.
    let new = beside(path);
    match std::fs::remove_file(&new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(&new)?;
    let named = permit(&new, mode, group).and_then(|()| std::fs::rename(&new, path));
    if let Err(error) = named {
        let _ = std::fs::remove_file(&new);
        return Err(error);
    }
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Gives a socket's file these rights.
///
/// # Errors
/// As of chown(2) and chmod(2).
pub fn permit(path: &Path, mode: u32, group: Option<u32>) -> io::Result<()> {
    if let Some(group) = group {
        let cannot = |e: io::Error| io::Error::new(e.kind(), format!("cannot give it the group {group}: {e}"));
        chown(path, None, Some(group)).map_err(cannot)?;
    }
    std::fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Whether somebody listens; whoever does not accept does not keep us waiting.
fn answers(path: &Path) -> io::Result<bool> {
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&socket2::SockAddr::unix(path)?) {
        Ok(()) => Ok(true),
        Err(error) => Ok(error.kind() == io::ErrorKind::WouldBlock),
    }
}

/// A name beside `path` that is not longer, so that what can be bound under it can have its own.
fn beside(path: &Path) -> PathBuf {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};

    let mut name = path.as_os_str().as_bytes().to_vec();
    if let Some(last) = name.last_mut() {
        *last = if *last == b'+' { b'-' } else { b'+' };
    }
    PathBuf::from(std::ffi::OsString::from_vec(name))
}

/// The file of a socket: removed with this, unless it has become another's.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and number of the file.
    id: (u64, u64),
}

impl SocketFile {
    /// Of a socket that was just bound.
    ///
    /// # Errors
    /// It is not there.
    pub fn of(path: &Path) -> io::Result<SocketFile> {
        let there = path.symlink_metadata()?;
        Ok(SocketFile { path: path.to_owned(), id: (there.dev(), there.ino()) })
    }

    /// What has its name is this socket still. As long as the socket is open its number is not given again.
    pub fn is_there(&self) -> bool {
        self.path.symlink_metadata().is_ok_and(|there| (there.dev(), there.ino()) == self.id)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_there() {
            // Nothing to do if it cannot be: the next start replaces it anyway.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn what_a_dead_process_left_is_replaced_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("smtp.sock");
        let first = bind(&path, 0o640, None).expect("bound");
        assert_eq!(path.metadata().expect("a file").permissions().mode() & 0o777, 0o640);
        let live = bind(&path, 0o600, None).expect_err("it is live");
        assert_eq!(
            (live.kind(), live.to_string().as_str()),
            (io::ErrorKind::AddrInUse, "another process listens there")
        );
        drop(first);
        let second = bind(&path, 0o600, None).expect("what was left is replaced");
        assert!(UnixStream::connect(&path).is_ok());
        drop(second);
        for what in ["file", "link", "directory"] {
            let at = dir.path().join(what);
            match what {
                "file" => std::fs::write(&at, "mine").expect("written"),
                "link" => std::os::unix::fs::symlink(&path, &at).expect("a link"),
                _ => std::fs::create_dir(&at).expect("a directory"),
            }
            let refused = bind(&at, 0o600, None).expect_err(what);
            assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists, "{what}");
            assert!(at.symlink_metadata().is_ok(), "{what} is still there");
        }
    }

    #[test]
    fn the_file_goes_with_its_owner_unless_it_is_anothers() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("smtp.sock");
        let listener = bind(&path, 0o600, None).expect("bound");
        drop(SocketFile::of(&path).expect("a file"));
        assert!(!path.exists());
        drop(listener);
        let _old = bind(&path, 0o600, None).expect("bound");
        let file = SocketFile::of(&path).expect("a file");
        std::fs::remove_file(&path).expect("removed");
        let _new = bind(&path, 0o600, None).expect("bound");
        drop(file);
        assert!(path.exists(), "that of another process");
    }

    #[test]
    fn rights_that_cannot_be_given_leave_nothing_behind() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("smtp.sock");
        if nix::unistd::geteuid().is_root() {
            let group = bind(&path, 0o660, Some(12)).map(|_| path.metadata().expect("a file").gid());
            assert_eq!(group.expect("bound"), 12);
        } else {
            assert!(bind(&path, 0o660, Some(0)).is_err());
            assert_eq!(std::fs::read_dir(dir.path()).expect("a directory").count(), 0);
        }
    }
}
