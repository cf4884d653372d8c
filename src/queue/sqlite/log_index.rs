//! What SQLite's index of the log (`-shm`) says of the log and the database: how much of each must be there.
//!
//! Every process that has the store open shares the index, and SQLite changes it before it makes a file
//! smaller: a log is emptied only after the index says that it has no frame, a database cut only after the
//! index has its new size. So a file that has less than the index asks for was cut by somebody else, and
//! one that is shorter than before but long enough was made so by SQLite, in whatever process.
//!
//! The layout is that of <https://www.sqlite.org/walformat.html>, in the byte order of the machine.

use std::fs::File;
use std::os::unix::fs::FileExt;

/// Bytes of one copy of the header.
const HEADER: usize = 48;
/// The two copies, and how many frames are merged.
const READ: usize = 2 * HEADER + 4;
/// The only version of the format.
const VERSION: u32 = 3_007_000;
/// Bytes of the log's header.
const LOG_HEADER: u64 = 32;
/// Bytes before the page in each frame of the log.
const FRAME_HEADER: u64 = 24;

/// The beginning of the index as it was in one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Raw([u8; READ]);

/// What it says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LogIndex {
    /// Changes whenever the log is begun anew; zeros before the first frame.
    pub(super) salts: [u8; 8],
    /// Bytes that the log has at least.
    pub(super) log: u64,
    /// Bytes of the database once all is merged; 0: not known.
    pub(super) database: u64,
    /// All frames are merged.
    pub(super) merged: bool,
}

impl Raw {
    /// `None`: it is shorter than that.
    pub(super) fn read(file: &File) -> Option<Raw> {
        let mut raw = [0; READ];
        file.read_exact_at(&mut raw, 0).ok().map(|()| Raw(raw))
    }

    /// Nobody was writing it.
    pub(super) fn is_settled(&self) -> bool {
        self.0[..HEADER] == self.0[HEADER..2 * HEADER]
    }

    /// `None`: nothing valid is there; SQLite would build it anew.
    pub(super) fn parse(&self) -> Option<LogIndex> {
        let number = |at: usize| self.0.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
        let size = u32::from(u16::from_ne_bytes(self.0.get(14..16)?.try_into().ok()?));
        let page = u64::from((size & 0xfe00) + ((size & 1) << 16));
        if !self.is_settled() || number(0)? != VERSION || self.0.get(12) != Some(&1) {
            return None;
        }
        let (frames, pages, merged) = (number(16)?, number(20)?, number(2 * HEADER)?);
        let log = if frames == 0 { 0 } else { LOG_HEADER + u64::from(frames) * (FRAME_HEADER + page) };
        let salts = self.0.get(32..40)?.try_into().ok()?;
        Some(LogIndex { salts, log, database: u64::from(pages) * page, merged: merged >= frames })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An index of pages of 512 bytes, with room behind it up to `length`.
    pub(in crate::queue::sqlite) fn index(salt: u8, frames: u32, pages: u32, merged: u32, length: usize) -> Vec<u8> {
        let mut header = [0; HEADER];
        header[0..4].copy_from_slice(&VERSION.to_ne_bytes());
        header[12] = 1;
        header[14..16].copy_from_slice(&512u16.to_ne_bytes());
        header[16..20].copy_from_slice(&frames.to_ne_bytes());
        header[20..24].copy_from_slice(&pages.to_ne_bytes());
        header[32..40].fill(salt);
        let mut all = [header, header].concat();
        all.extend(merged.to_ne_bytes());
        all.resize(length, 0);
        all
    }

    #[test]
    fn it_says_of_a_real_store_how_much_of_the_log_and_of_the_database_there_must_be() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q.db");
        let conn = rusqlite::Connection::open(&path).unwrap();
        conn.execute_batch("PRAGMA journal_mode = wal; CREATE TABLE t (x); INSERT INTO t VALUES (zeroblob(50000))")
            .unwrap();
        let size = |suffix| std::fs::metadata(crate::queue::sqlite::trust::beside(&path, suffix)).unwrap().len();
        let file = File::open(crate::queue::sqlite::trust::beside(&path, "-shm")).unwrap();
        let said = || Raw::read(&file).unwrap().parse().unwrap();
        let full = said();
        assert_eq!((full.log, full.merged), (size("-wal"), false));
        conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap();
        assert_eq!((said().log, said().database, said().merged), (size("-wal"), size(""), true));
        conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        assert_eq!((said().log, said().database, size("-wal")), (0, size(""), 0));
        assert_ne!(said().salts, full.salts);
    }

    #[test]
    fn what_is_not_an_index_says_nothing() {
        for bytes in [vec![0; 136], vec![b'x'; 136]] {
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(&bytes, 0).unwrap();
            assert_eq!(Raw::read(&file).unwrap().parse(), None);
        }
        assert_eq!(Raw::read(&tempfile::tempfile().unwrap()), None);
    }
}
