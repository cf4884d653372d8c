//! Room on the disk that only the way out may use, so that a full queue drains itself.
//!
//! To deliver a message the store has to note it: claims, outcomes and reports need a little of the
//! disk, too, and merging the log into the database needs as much as the log holds of what is new. So
//! `[queue] min_free` is set aside for them, and what comes in is refused (452) before it touches that:
//!
//! - as a file beside the queue, `PATH.reserve`, that holds the room also against other programs. It
//!   is given up when a write of the way out finds the disk full, or a start does, and made again when
//!   there is room;
//! - as room left free, as long as there is no such file, or the file system cannot keep one.
//!
//! Free pages inside the database count for what comes in, and for a half of what is set aside. On a
//! small file system, a tenth of it is set aside. A limit of the system on the size of files
//! (`ulimit -f`) is room, too.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rustix::fs::{FallocateFlags, OFlags, fallocate, statvfs};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::aside::Aside;
use super::rows;
use super::trust::beside;
use crate::config::units::Size;
use crate::queue::QueueError;

/// Bytes that a commit writes besides what comes in: pages that it only touches.
const TOUCHED: u64 = 128 * 1024;
/// How long after each time it is tried to make the reserve again.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a disk that was far from full stays so: it has eight times as much as is set aside, and nothing
/// fills that so soon.
const FAR: Duration = Duration::from_millis(10);
/// What a start needs at least, whatever is set aside.
const START: u64 = 1 << 20;

/// How a database lies in its file, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    /// Of the database, its pages in the log included.
    pub(super) total: u64,
    /// Of that, pages that hold nothing.
    pub(super) free: u64,
}

impl Layout {
    pub(super) fn read(conn: &Connection) -> rusqlite::Result<Layout> {
        let get = |name| conn.pragma_query_value(None, name, |row| row.get(0).map(rows::unsigned));
        let page: u64 = get("page_size")?;
        Ok(Layout { total: get("page_count")? * page, free: get("freelist_count")? * page })
    }
}

/// The room of one store.
#[derive(Debug)]
pub(super) struct Room {
    directory: PathBuf,
    file: PathBuf,
    /// Bytes to set aside.
    aside: u64,
    /// Bytes of that which the file holds.
    reserved: u64,
    /// Bytes below which the disk is full, to the way out.
    least: u64,
    tried: Option<Instant>,
    /// What was left when the disk was far from full, less what came in since.
    far: Option<Far>,
}

/// The disk is far from full.
#[derive(Clone, Copy, Debug)]
struct Far {
    until: Instant,
    /// Bytes that may come in, and those that might at first.
    left: u64,
    first: u64,
}

impl Room {
    /// For the store at `database`. What there is of a reserve is given up here if a start might need it.
    /// `None` leaves it as it is.
    pub(super) fn open(database: &Path, min_free: Option<u64>) -> Room {
        let directory = database.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = beside(database, ".reserve");
        let reserved = file.symlink_metadata().map_or(0, |file| file.len());
        let all = Aside::of(database, min_free.unwrap_or(0));
        let aside = all.bytes;
        let least = START.min(all.tenth()).max(aside / 2);
        let mut room = Room { directory: directory.to_owned(), file, aside, reserved, least, tried: None, far: None };
        if min_free == Some(0) || room.is_short() {
            room.give_up();
        }
        room
    }

    /// For a store in memory.
    pub(super) fn none() -> Room {
        Room {
            directory: PathBuf::new(),
            file: PathBuf::new(),
            aside: 0,
            reserved: 0,
            least: 0,
            tried: None,
            far: None,
        }
    }

    /// Pages of the log after which it is to be merged, so that the room set aside is enough for that, and
    /// the log stays far below the system's limit on the size of files.
    pub(super) fn log_pages(&self, most: u32, page: u64) -> u32 {
        self.log_pages_below(getrlimit(Resource::Fsize).current, most, page)
    }

    fn log_pages_below(&self, limit: Option<u64>, most: u32, page: u64) -> u32 {
        let aside = (self.aside > 0).then_some(self.aside / 2);
        match aside.into_iter().chain(limit.map(|limit| limit / 4)).min() {
            None => most,
            Some(bytes) => u32::try_from(bytes / page.max(1)).unwrap_or(u32::MAX).clamp(16, most.max(16)),
        }
    }

    /// Bytes that are to be set aside.
    pub(super) fn aside(&self) -> u64 {
        self.aside
    }

    fn available(&self) -> u64 {
        // A file system that cannot tell is one that has room until a write fails.
        statvfs(&self.directory).map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// The disk has less than a half of what is to be set aside, or than a start needs.
    pub(super) fn is_short(&self) -> bool {
        self.available() < self.least
    }

    /// Bytes that may come in now; `sizes` tells those of the database's file and of its log.
    ///
    /// # Errors
    /// [`QueueError::Full`]: none may.
    pub(super) fn left(
        &mut self,
        conn: Option<&Connection>,
        sizes: impl FnOnce() -> (u64, u64),
    ) -> Result<u64, QueueError> {
        if let Some(far) = self.far.filter(|far| far.left > far.first / 2 && Instant::now() < far.until) {
            return Ok(far.left);
        }
        self.far = None;
        let limit = getrlimit(Resource::Fsize).current;
        if self.aside == 0 && limit.is_none() {
            return Ok(u64::MAX);
        }
        let available = self.available();
        // Far from full, nothing else matters.
        if limit.is_none() && available / 8 > self.aside {
            let left = (available - self.aside) / 4;
            self.far = Some(Far { until: Instant::now() + FAR, left, first: left });
            return Ok(left);
        }
        let (layout, sizes) = (conn.map(Layout::read).transpose()?.unwrap_or_default(), sizes());
        let left = self.of_disk(available, layout, sizes.0);
        let left = limit.map_or(left, |limit| left.min(of_limit(limit, layout, sizes)));
        if left > 0 {
            return Ok(left);
        }
        if let Some(limit) = limit.filter(|limit| of_limit(*limit, layout, sizes) == 0) {
            return Err(QueueError::Full(format!(
                "the system limits files to {} (ulimit -f), and the queue has come to that",
                whole(limit)
            )));
        }
        // What the file holds is not free to anybody.
        let (directory, aside, free) = (self.directory.display(), whole(self.aside), whole(available));
        let held = match self.reserved {
            0 => String::new(),
            held => format!(", of which {} are in {}", whole(held), self.file.display()),
        };
        Err(QueueError::Full(format!(
            "{directory} has {free} free; {aside} are set aside for mail on its way out ([queue] min_free){held}"
        )))
    }

    /// So many bytes come in.
    pub(super) fn spend(&mut self, bytes: u64) {
        if let Some(far) = &mut self.far {
            far.left = far.left.saturating_sub(bytes);
        }
    }

    /// Bytes that may come in, as far as the disk goes.
    fn of_disk(&self, available: u64, layout: Layout, file: u64) -> u64 {
        // What merging the log will add to the file, whatever else comes.
        let pending = layout.total.saturating_sub(file);
        let touched = TOUCHED.min(self.aside / 8);
        let log = available.saturating_sub(touched);
        let all = available + self.reserved + layout.free.min(self.aside / 2);
        let spare = all.saturating_sub(self.aside + pending + touched);
        // What comes in is written to the log, and later, as far as it finds no free page, to the file.
        let inside = spare.min(layout.free);
        (inside + (spare - inside) / 2).min(log)
    }

    /// A write of the way out found the disk full: the reserve is given up. False: there was none.
    pub(super) fn give_up(&mut self) -> bool {
        if self.reserved == 0 {
            return false;
        }
        match std::fs::remove_file(&self.file) {
            Ok(()) => {
                tracing::info!(room = %whole(self.reserved), "what is set aside on the disk is given to mail on its way out")
            }
            Err(error) => tracing::warn!(%error, "{} cannot be removed", self.file.display()),
        }
        self.tried = Some(Instant::now());
        std::mem::take(&mut self.reserved) > 0
    }

    /// Makes the reserve if there is none, and room for it and a quarter more.
    pub(super) fn set_aside(&mut self) {
        if self.aside == 0 || self.reserved >= self.aside || self.tried.is_some_and(|at| at.elapsed() < AGAIN) {
            return;
        }
        self.tried = Some(Instant::now());
        if self.available().saturating_add(self.reserved) < self.aside + self.aside / 4 {
            return;
        }
        match make(&self.file, self.aside) {
            Ok(()) => self.reserved = self.aside,
            Err(error) => {
                let _ = std::fs::remove_file(&self.file);
                self.reserved = 0;
                tracing::debug!(%error, "no reserve of {}: as much is left free", whole(self.aside));
            }
        }
    }
}

/// For people: in whole KiB.
fn whole(bytes: u64) -> Size {
    Size(bytes / 1024 * 1024)
}

/// Bytes that may come in before a file is larger than the system lets it be.
fn of_limit(limit: u64, layout: Layout, (file, log): (u64, u64)) -> u64 {
    let database = limit.saturating_sub(layout.total.max(file)).saturating_add(layout.free);
    database.min(limit.saturating_sub(log)).saturating_sub(TOUCHED)
}

/// Whether a write may have failed for the system's limit on the size of files: one of these is near it.
pub(super) fn limited(sizes: (u64, u64)) -> bool {
    let near = |limit: u64| sizes.0.max(sizes.1).saturating_add(1 << 20) >= limit;
    getrlimit(Resource::Fsize).current.is_some_and(near)
}

/// Whether the log takes so much of what the system's limit lets a file have that it must be emptied
/// before anything can be written: it keeps its size when it is merged.
pub(super) fn log_is_in_the_way(log: u64) -> bool {
    getrlimit(Resource::Fsize).current.is_some_and(|limit| log > limit / 2)
}

fn make(path: &Path, bytes: u64) -> std::io::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)?;
    match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        Err(Errno::INTR) => fallocate(&file, FallocateFlags::empty(), 0, bytes)?,
        other => other?,
    }
    // A larger one of an earlier configuration.
    file.set_len(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn room(aside: u64, reserved: u64) -> Room {
        Room { aside, reserved, ..Room::none() }
    }

    #[test]
    fn what_is_set_aside_is_for_the_way_out() {
        let empty = Layout { total: 10 * MIB, free: 0 };
        // In the file or as free room, it is the same.
        let free = room(64 * MIB, 0).of_disk(100 * MIB, empty, 10 * MIB);
        assert_eq!(room(64 * MIB, 64 * MIB).of_disk(36 * MIB, empty, 10 * MIB), free);
        assert_eq!(free, (36 * MIB - TOUCHED) / 2);
        assert_eq!(room(64 * MIB, 0).of_disk(64 * MIB, empty, 10 * MIB), 0);
        // What only the log has will need its place in the file.
        assert_eq!(room(64 * MIB, 0).of_disk(100 * MIB, Layout { total: 46 * MIB, free: 0 }, 10 * MIB), 0);
    }

    #[test]
    fn a_database_that_is_empty_inside_takes_mail_though_the_disk_is_nearly_full() {
        let holed = Layout { total: 500 * MIB, free: 400 * MIB };
        let left = room(64 * MIB, 0).of_disk(64 * MIB, holed, 500 * MIB);
        assert!(left > 16 * MIB && left < 64 * MIB, "{left}");
        // The log still has to have its half.
        assert_eq!(room(64 * MIB, 0).of_disk(32 * MIB, holed, 500 * MIB), 0);
    }

    #[test]
    fn the_log_is_merged_while_there_is_room_for_it() {
        assert_eq!(room(64 * MIB, 0).log_pages(4096, 8192), 4096);
        assert_eq!(room(MIB, 0).log_pages(4096, 8192), 64);
        assert_eq!(room(1, 0).log_pages(4096, 8192), 16);
        assert_eq!(Room::none().log_pages(10, 8192), 10);
        // Nor comes it near a limit on the size of files.
        assert_eq!(Room::none().log_pages_below(Some(32 * MIB), 4096, 8192), 1024);
        assert_eq!(room(MIB, 0).log_pages_below(Some(32 * MIB), 4096, 8192), 64);
    }

    #[test]
    fn a_limit_on_the_size_of_files_is_room() {
        let layout = Layout { total: 10 * MIB, free: 2 * MIB };
        assert_eq!(of_limit(20 * MIB, layout, (10 * MIB, MIB)), 12 * MIB - TOUCHED);
        assert_eq!(of_limit(20 * MIB, layout, (10 * MIB, 15 * MIB)), 5 * MIB - TOUCHED);
        assert_eq!(of_limit(8 * MIB, layout, (10 * MIB, 15 * MIB)), 0);
    }

    #[test]
    fn the_reserve_is_made_given_up_and_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("q.db");
        let file = beside(&database, ".reserve");
        let mut room = Room::open(&database, Some(MIB));
        room.set_aside();
        assert_eq!((room.reserved, std::fs::metadata(&file).unwrap().len()), (MIB, MIB));
        assert!(room.give_up() && !file.exists());
        assert!(!room.give_up());
        room.tried = None;
        room.set_aside();
        assert!(file.exists());
        // Another configuration, another size; none, and it goes.
        let mut room = Room::open(&database, Some(2 * MIB));
        assert_eq!(room.reserved, MIB);
        room.set_aside();
        assert_eq!(std::fs::metadata(&file).unwrap().len(), 2 * MIB);
        Room::open(&database, Some(0));
        assert!(!file.exists());
    }
}
