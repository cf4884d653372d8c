//! Reads the files that a configuration is made of: itself, certificates, keys, passwords.
//!
//! Nobody waits long for one. A pipe that nobody writes to is refused as what it is; a file on a mount
//! whose server is gone is read by a thread that is left behind after [`PATIENCE`]. So a start ends
//! with a reason, and a relay at work goes on.
//!
//! Bounded: the bytes of a file, and [`MOST_READERS`] threads that may be left behind.

use std::fs::{File, FileType, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use rustix::fs::OFlags;

/// How long a file may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Threads that read at once, those that were left behind included.
const MOST_READERS: usize = 16;

/// Why a file could not be read; the text does not name it.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    /// The system's reason.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is no file at all.
    #[error("it is {0}: expected a file")]
    NotAFile(&'static str),
    /// More bytes than this.
    #[error("it has more than {0} bytes")]
    TooLarge(u64),
    /// Nothing came.
    #[error("it cannot be read within {} s (is it on a mount whose server is gone?)", PATIENCE.as_secs())]
    Stuck,
    /// Others have been stuck before.
    #[error("{MOST_READERS} files that were read before are still stuck")]
    TooManyStuck,
}

/// One of the threads that may read at once.
struct Reader(&'static AtomicUsize);

impl Reader {
    fn begin(readers: &'static AtomicUsize) -> Result<Reader, FileError> {
        let one = readers.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < MOST_READERS).then_some(n + 1));
        one.map(|_| Reader(readers)).map_err(|_| FileError::TooManyStuck)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What some editors put before a text (a byte order mark) is none of it. One rule for all files that people edit; a
/// secret that begins with it is refused, since nobody can tell whether it is part of it.
pub(super) fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// The text of a file that people edit.
///
/// # Errors
/// What it is instead, and what to do.
pub(super) fn text(bytes: &[u8]) -> Result<&str, &'static str> {
    let wide = bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff");
    let told = if wide { "is UTF-16 text: save it as UTF-8" } else { "is not UTF-8 text" };
    std::str::from_utf8(without_mark(bytes)).map_err(|_| told)
}

/// Whether a file with secrets is closed to others than its owner and its group, which is to be one of ours: that is
/// how secrets of containers and services are mounted. Nobody but the owner may write.
///
/// # Errors
/// What is wrong with its rights, and what to do.
pub(super) fn closed(path: &Path) -> Result<(), String> {
    let name = path.display();
    let there = std::fs::metadata(path).map_err(|e| format!("cannot read {name}: {e}"))?;
    let mode = there.permissions().mode() & 0o7777;
    if mode & 0o027 != 0 {
        return Err(format!(
            "others may read or change {name} (mode {mode:04o}): expected 0600, or 0640 and the group that mailweir runs as \
             (chmod 600 {name})"
        ));
    }
    // root reads it whatever its group is, and cannot tell as whom the relay runs.
    let group = there.gid();
    let ours = || {
        let groups = rustix::process::getgroups().unwrap_or_default();
        rustix::process::getegid().as_raw() == group || groups.iter().any(|ours| ours.as_raw() == group)
    };
    if mode & 0o040 != 0
        && !rustix::process::geteuid().is_root()
        && there.uid() != rustix::process::geteuid().as_raw()
        && !ours()
    {
        return Err(format!(
            "the group {group} may read {name} (mode {mode:04o}), and is none that this runs as: expected 0600, or the group \
             that mailweir runs as"
        ));
    }
    Ok(())
}

static READERS: AtomicUsize = AtomicUsize::new(0);

/// All bytes of a file, if they are at most `most`.
pub(super) fn read(path: &Path, most: u64) -> Result<Vec<u8>, FileError> {
    within(&READERS, PATIENCE, path.to_owned(), move |path| read_here(path, most))
}

/// `work` on a thread of its own, for at most `patience`.
fn within<T: Send + 'static>(
    readers: &'static AtomicUsize,
    patience: Duration,
    path: PathBuf,
    work: impl FnOnce(&Path) -> Result<T, FileError> + Send + 'static,
) -> Result<T, FileError> {
    let reader = Reader::begin(readers)?;
    let (tell, told) = sync_channel(1);
    std::thread::Builder::new().name("read".into()).spawn(move || {
        let done = work(&path);
        // Who reads the next file finds this thread gone.
        drop(reader);
        // Nobody may wait for it any more.
        let _ = tell.send(done);
    })?;
    match told.recv_timeout(patience) {
        Ok(done) => done,
        Err(RecvTimeoutError::Timeout) => Err(FileError::Stuck),
        Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("its reader has ended by a fault").into()),
    }
}

fn read_here(path: &Path, most: u64) -> Result<Vec<u8>, FileError> {
    // Without NONBLOCK to open a pipe is to wait for somebody who writes to it.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file: File = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if let Some(what) = not_a_file(file.metadata()?.file_type()) {
        return Err(FileError::NotAFile(what));
    }
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { Err(FileError::TooLarge(most)) } else { Ok(bytes) }
}

/// What it is instead. A character device is taken: there is `/dev/null`.
fn not_a_file(kind: FileType) -> Option<&'static str> {
    match kind {
        kind if kind.is_dir() => Some("a directory"),
        kind if kind.is_fifo() => Some("a pipe"),
        kind if kind.is_socket() => Some("a socket"),
        kind if kind.is_block_device() => Some("a block device"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn what_is_no_file_is_refused_at_once_and_says_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let (pipe, file) = (dir.path().join("pipe"), dir.path().join("file"));
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
        std::fs::write(&file, "12345").unwrap();
        let told = |path: &Path, most| read(path, most).map_err(|e| e.to_string());
        assert_eq!(told(&pipe, 10).unwrap_err(), "it is a pipe: expected a file");
        assert_eq!(told(dir.path(), 10).unwrap_err(), "it is a directory: expected a file");
        assert_eq!(told(&file, 4).unwrap_err(), "it has more than 4 bytes");
        assert_eq!(told(&file, 5), Ok(b"12345".to_vec()));
        assert_eq!(told(Path::new("/dev/null"), 5), Ok(Vec::new()));
        assert!(told(&dir.path().join("none"), 5).unwrap_err().starts_with("No such file"));
    }

    #[test]
    fn what_editors_put_before_a_text_is_none_of_it() {
        assert_eq!(text(b"\xef\xbb\xbfjo: a"), Ok("jo: a"));
        assert_eq!(text(b"jo: \xef\xbb\xbfa"), Ok("jo: \u{feff}a"));
        assert!(text(b"\xff\xfej\0").unwrap_err().contains("UTF-16"));
        assert_eq!(text(b"\xff"), Err("is not UTF-8 text"));
        assert_eq!(without_mark(b""), b"");
    }

    #[test]
    fn a_file_with_secrets_is_closed_to_all_but_its_owner_and_group() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, "x").unwrap();
        for (mode, good) in [
            (0o600, true),
            (0o400, true),
            (0o640, true),
            (0o440, true),
            (0o644, false),
            (0o604, false),
            (0o660, false),
            (0o620, false),
            (0o602, false),
            (0o601, false),
        ] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let told = closed(&path);
            assert_eq!(told.is_ok(), good, "{mode:o}: {told:?}");
            assert!(told.is_ok_and(|()| true) || closed(&path).unwrap_err().contains(&format!("{mode:04o}")));
        }
    }

    /// As on a dead mount: every read hangs. They are left behind, but not without end, and count no
    /// more once they are over.
    #[test]
    fn a_read_that_never_ends_is_left_behind_and_few_of_them_are() {
        static HERE: AtomicUsize = AtomicUsize::new(0);
        let mut gates = Vec::new();
        let mut hang = || {
            let (open, gate) = channel::<()>();
            gates.push(open);
            within(&HERE, Duration::ZERO, "file".into(), move |_| {
                let _ = gate.recv();
                Ok(())
            })
        };
        for _ in 0..MOST_READERS {
            assert!(matches!(hang(), Err(FileError::Stuck)));
        }
        assert!(matches!(hang(), Err(FileError::TooManyStuck)));
        drop(gates);
        while HERE.load(Ordering::Acquire) > 0 {
            std::thread::yield_now();
        }
        assert!(within(&HERE, Duration::from_secs(60), "file".into(), |_| Ok(())).is_ok());
    }
}
