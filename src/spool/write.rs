//! The side of a local program: leaves one message, as the user it runs as.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags};

use super::{Entry, NEW, WAITING};

/// Writes a message into the spool; when it returns, the disk has it. Returns the file's name.
///
/// # Errors
/// The directory is not there, is not one where users are safe from one another, or is full.
pub fn leave(spool: &Path, entry: &Entry, content: &[u8]) -> io::Result<OsString> {
    if !entry.is_writable() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "an address has a control character, or there are too many recipients",
        ));
    }
    // Users may write to it and not read it, so it is opened for neither.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = rustix::fs::open(spool, flags, Mode::empty())?;
    let readers = readers(&dir)?;
    let id = random()?;
    let (new, name) = (format!("{NEW}{id}"), format!("{WAITING}{id}"));
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&dir, &*new, flags, Mode::RUSR | Mode::WUSR)?;
    let written = write(file, readers, entry, content).and_then(|file| {
        rustix::fs::renameat(&dir, &*new, &dir, &*name)?;
        // The directory cannot be synced by whoever may not read it; a file that was renamed takes its
        // new name to the disk with it.
        file.sync_all()
    });
    match written {
        Ok(()) => Ok(name.into()),
        Err(error) => {
            let _ = rustix::fs::unlinkat(&dir, &*new, AtFlags::empty());
            let _ = rustix::fs::unlinkat(&dir, &*name, AtFlags::empty());
            Err(error)
        }
    }
}

fn write(file: OwnedFd, readers: Mode, entry: &Entry, content: &[u8]) -> io::Result<File> {
    let mut file = File::from(file);
    let head = Entry { size: content.len() as u64, ..entry.clone() }.to_head();
    file.write_all(head.as_bytes())?;
    file.write_all(content)?;
    // Whatever the umask: the relay must be able to read it, and perhaps runs as another user.
    rustix::fs::fchmod(file.as_fd(), Mode::RUSR | Mode::WUSR | readers)?;
    file.sync_all()?;
    Ok(file)
}

/// Who besides the user may read the file: the group of a setgid directory, which is the relay's;
/// else everybody who knows its name, where nobody can list the directory; else nobody.
fn readers(dir: &OwnedFd) -> io::Result<Mode> {
    let mode = rustix::fs::Mode::from_raw_mode(rustix::fs::fstat(dir)?.st_mode);
    let unsafe_for = |why: &str| Err(io::Error::new(io::ErrorKind::PermissionDenied, why.to_owned()));
    if mode.contains(Mode::WOTH) && !mode.contains(Mode::SVTX) {
        return unsafe_for("the spool is not sticky, so users could remove the mail of others: mode 3733 is expected");
    }
    Ok(match (mode.contains(Mode::SGID), mode.contains(Mode::ROTH)) {
        (true, _) => Mode::RGRP,
        (false, false) => Mode::RGRP | Mode::ROTH,
        (false, true) => Mode::empty(),
    })
}

/// A name that nobody can guess.
fn random() -> io::Result<String> {
    let mut bytes = [0_u8; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    let mut text = String::with_capacity(32);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}
