//! The side of the relay: finds what waits, claims it, looks at it twice, and removes it.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags};

use super::entry::MAX_HEAD;
use super::{BAD, BadEntry, Entry, NEW, TAKEN, WAITING};

/// Messages of one user that are listed at once: the others of the user wait for the next look.
const MOST_OF_A_USER: usize = 100;
/// Age at which a file that is still being written is one that nobody writes any more.
const STALE: Duration = Duration::from_secs(86_400);

/// An open spool.
#[derive(Debug)]
pub struct Spool {
    dir: OwnedFd,
}

/// A file that waits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found {
    name: OsString,
    /// Its owner, as the directory says.
    pub user: u32,
}

/// A message in the hands of the relay.
#[derive(Debug)]
pub struct Taken {
    name: OsString,
    /// Owner of the file, as the open file says.
    pub user: u32,
    /// The envelope.
    pub entry: Entry,
    /// At the begin of the content, of which it has exactly `entry.size` bytes.
    pub content: File,
}

/// Why a file is not taken.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It is another kind of file than a program leaves. It stays where it is.
    #[error("it is {0}")]
    Kind(&'static str),
    /// It is a file, and no message.
    #[error("{0}")]
    Entry(#[from] BadEntry),
    /// Larger than any message that the relay takes.
    #[error("it has {0} bytes, more than max_message_size")]
    Size(u64),
    /// It cannot be looked at.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl Spool {
    /// Opens the directory.
    ///
    /// # Errors
    /// It is not there, or no directory.
    pub fn open(path: &Path) -> io::Result<Spool> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Spool { dir: rustix::fs::open(path, flags, Mode::empty())? })
    }

    /// What waits, of every user in turn, a hundred of each at most. Also removes what was left behind
    /// half-written a day ago.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn list(&self) -> io::Result<Vec<Found>> {
        let mut of_users: HashMap<u32, Vec<OsString>> = HashMap::new();
        for file in Dir::read_from(&self.dir)? {
            let file = file?;
            let name = file.file_name().to_bytes();
            let (waits, new) = (name.starts_with(WAITING.as_bytes()), name.starts_with(NEW.as_bytes()));
            if !waits && !new && !name.starts_with(TAKEN.as_bytes()) {
                continue;
            }
            let name = OsString::from_vec(name.to_vec());
            // One that is gone is nobody's.
            let Ok(stat) = rustix::fs::statat(&self.dir, &name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            if new {
                if is_stale(stat.st_mtime) {
                    self.remove(&name);
                }
                continue;
            }
            let of_user = of_users.entry(stat.st_uid).or_default();
            if of_user.len() < MOST_OF_A_USER {
                of_user.push(name);
            }
        }
        let mut found = Vec::new();
        for turn in 0..MOST_OF_A_USER {
            let names = of_users.iter().filter_map(|(user, names)| Some((*user, names.get(turn)?)));
            found.extend(names.map(|(user, name)| Found { name: name.clone(), user }));
        }
        Ok(found)
    }

    /// Takes a message: nobody else does from here on. One that is refused keeps its name, or its claimed one.
    ///
    /// # Errors
    /// See [`Refused`]. An I/O error may also be that the directory is not ours: what cannot be removed
    /// is not taken, or it would be taken every time.
    pub fn take(&self, found: &Found, max: u64) -> Result<Taken, Refused> {
        let rest = found.name.as_bytes();
        let name = match rest.strip_prefix(WAITING.as_bytes()) {
            None => found.name.clone(),
            Some(rest) => {
                let name = OsString::from_vec([TAKEN.as_bytes(), rest].concat());
                self.rename(&found.name, &name)?;
                name
            }
        };
        // A link is not followed, and a pipe not waited for.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.dir, &name, flags, Mode::empty()) {
            Err(rustix::io::Errno::LOOP) => return Err(Refused::Kind("a symbolic link")),
            Err(rustix::io::Errno::NXIO) => return Err(Refused::Kind("a socket or a pipe")),
            opened => opened.map_err(io::Error::from)?,
        };
        let stat = rustix::fs::fstat(&file).map_err(io::Error::from)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Refused::Kind("not a regular file"));
        }
        // A second name may be that of somebody else's file, whose content is not to be sent.
        if stat.st_nlink != 1 {
            return Err(Refused::Kind("a file with more than one link"));
        }
        let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        if size > max.saturating_add(MAX_HEAD as u64) {
            return Err(Refused::Size(size));
        }
        let (entry, content) = read_head(File::from(file), size)?;
        if entry.size > max {
            return Err(Refused::Size(entry.size));
        }
        Ok(Taken { name, user: stat.st_uid, entry, content })
    }

    /// The queue has it.
    pub fn done(&self, taken: &Taken) -> bool {
        self.remove(&taken.name)
    }

    /// It can never be taken: keeps it under another name. Returns that, if it worked.
    pub fn set_aside(&self, name: &OsStr) -> Option<OsString> {
        let bytes = name.as_bytes();
        let rest = [TAKEN, WAITING].iter().find_map(|prefix| bytes.strip_prefix(prefix.as_bytes()))?;
        let bad = OsString::from_vec([BAD.as_bytes(), rest].concat());
        self.rename(name, &bad).ok().map(|()| bad)
    }

    /// Another file of the new name stays: it is somebody's mail.
    fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::renameat_with(&self.dir, from, &self.dir, to, RenameFlags::NOREPLACE)?)
    }

    fn remove(&self, name: &OsStr) -> bool {
        rustix::fs::unlinkat(&self.dir, name, AtFlags::empty()).is_ok()
    }
}

impl Found {
    /// The name that it has once it was claimed.
    pub fn claimed(&self) -> OsString {
        match self.name.as_bytes().strip_prefix(WAITING.as_bytes()) {
            Some(rest) => OsString::from_vec([TAKEN.as_bytes(), rest].concat()),
            None => self.name.clone(),
        }
    }

    /// Its name, for a log line.
    pub fn name(&self) -> String {
        self.name.to_string_lossy().chars().take(100).collect::<String>().escape_debug().to_string()
    }
}

impl Taken {
    /// Its file, as it is called now.
    pub fn name(&self) -> &OsStr {
        &self.name
    }
}

/// Reads the head; the file is then at the begin of its content, and has all of it.
fn read_head(mut file: File, size: u64) -> Result<(Entry, File), Refused> {
    let (mut head, mut end, mut buffer) = (Vec::new(), None, [0; 4096]);
    while end.is_none() && head.len() < MAX_HEAD {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        let from = head.len().saturating_sub(1);
        head.extend_from_slice(&buffer[..n]);
        end = memchr::memmem::find(&head[from..], b"\n\n").map(|at| from + at + 2);
    }
    let end = end.ok_or(BadEntry::NotOurs)?;
    head.truncate(end);
    let entry = Entry::read(&head)?;
    if (end as u64).checked_add(entry.size) != Some(size) {
        return Err(BadEntry::Size.into());
    }
    file.seek(io::SeekFrom::Start(end as u64))?;
    Ok((entry, file))
}

fn is_stale(modified: i64) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    u64::try_from(modified).is_ok_and(|then| now.saturating_sub(then) > STALE.as_secs())
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
