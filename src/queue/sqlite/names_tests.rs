use super::*;
use crate::queue::sqlite::log_index::tests::index as index_of;
use std::fs;

/// Files as SQLite leaves them; nothing of it is a database.
fn files() -> (tempfile::TempDir, PathBuf, Names) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q.db");
    for suffix in ["", "-wal", "-shm"] {
        fs::write(beside(&path, suffix), vec![b'x'; 1000]).unwrap();
    }
    let names = Names::default();
    names.learn(&path).unwrap();
    (dir, path, names)
}

fn cut(path: &Path, to: u64) {
    OpenOptions::new().write(true).open(path).unwrap().set_len(to).unwrap();
}

#[test]
fn a_file_without_its_name_is_missed_until_it_is_back() {
    for (suffix, renewable) in [("", false), ("-wal", true), ("-shm", true)] {
        let (dir, path, names) = files();
        let (file, away) = (beside(&path, suffix), dir.path().join("away"));
        fs::rename(&file, &away).unwrap();
        let trouble = names.check(Moment::After).unwrap_err();
        assert!(trouble.what.contains("removed or moved away"), "{trouble:?}");
        assert!(trouble.what.contains(&*file.to_string_lossy()), "{trouble:?}");
        assert_eq!(trouble.renewable, renewable);
        assert!(names.may_open().is_err());
        fs::write(&file, vec![b'x'; 1000]).unwrap();
        assert!(names.check(Moment::After).unwrap_err().what.contains("replaced by another file"));
        fs::rename(&away, &file).unwrap();
        names.check(Moment::After).unwrap();
        names.may_open().unwrap();
    }
}

#[test]
fn what_was_cut_is_never_whole_again() {
    for suffix in ["", "-wal"] {
        let (_dir, path, names) = files();
        let file = beside(&path, suffix);
        cut(&file, 10);
        assert!(names.check(Moment::After).unwrap_err().what.contains("was cut from 1000 to 10 bytes"));
        fs::write(&file, vec![b'x'; 2000]).unwrap();
        assert!(names.check(Moment::After).is_err(), "{suffix}");
    }
}

#[test]
fn a_hole_at_the_beginning_of_the_log_is_found_however_long_it_has_grown() {
    let (_dir, path, names) = files();
    let log = beside(&path, "-wal");
    cut(&log, 0);
    cut(&log, 4000);
    assert!(names.check(Moment::After).unwrap_err().what.contains("-wal was cut from 1000 to 0"));
}

#[test]
fn sqlite_itself_may_make_its_files_smaller() {
    let (_dir, path, names) = files();
    let log = beside(&path, "-wal");
    cut(&log, LOG_KEPT + 100);
    names.check(Moment::After).unwrap();
    cut(&log, LOG_KEPT);
    names.check(Moment::After).unwrap();
    names.expect_smaller(400);
    names.check(Moment::After).unwrap();
    cut(&path, 400);
    names.check(Moment::After).unwrap();
    cut(&path, 300);
    assert!(names.check(Moment::After).is_err());
}

#[test]
fn another_program_may_merge_empty_and_vacuum_however_the_moments_fall() {
    let (_dir, path, names) = files();
    let (log, frame) = (beside(&path, "-wal"), 24 + 512);
    let tell = |salt, frames, pages, merged| {
        let index = OpenOptions::new().write(true).open(beside(&path, "-shm")).unwrap();
        index.write_all_at(&index_of(salt, frames, pages, merged, 1000), 0).unwrap();
    };
    fs::write(&path, vec![b'x'; 4 * 512]).unwrap();
    fs::write(&log, vec![b'x'; 32 + 5 * frame]).unwrap();
    tell(1, 5, 4, 5);
    names.check(Moment::After).unwrap();
    // Emptied; and written on before anybody has looked.
    tell(2, 0, 4, 0);
    names.check(Moment::After).unwrap();
    cut(&log, 0);
    names.check(Moment::After).unwrap();
    tell(3, 2, 4, 0);
    fs::write(&log, vec![b'x'; 32 + 2 * frame]).unwrap();
    names.check(Moment::After).unwrap();
    // Vacuumed, noted, merged, and grown again before the next look.
    tell(3, 2, 2, 0);
    names.note();
    cut(&path, 2 * 512);
    tell(3, 2, 3, 0);
    names.check(Moment::After).unwrap();
    cut(&log, 32 + 2 * frame as u64 - 1);
    let trouble = names.check(Moment::After).unwrap_err();
    assert!(trouble.cut && trouble.log, "{trouble:?}");
}

#[test]
fn a_log_that_was_cut_is_found_though_its_index_was_built_anew_from_what_is_left() {
    let (_dir, path, names) = files();
    let log = beside(&path, "-wal");
    fs::write(&log, vec![b'x'; 32 + 5 * 536]).unwrap();
    fs::write(beside(&path, "-shm"), index_of(1, 5, 1, 5, 1000)).unwrap();
    names.check(Moment::After).unwrap();
    cut(&log, 32 + 2 * 536);
    fs::write(beside(&path, "-shm"), index_of(1, 2, 1, 0, 1000)).unwrap();
    assert!(names.look().unwrap_err().cut);
    cut(&log, 0);
    fs::write(beside(&path, "-shm"), index_of(0, 0, 0, 0, 1000)).unwrap();
    assert!(names.check(Moment::After).unwrap_err().cut);
}

#[test]
fn a_database_that_was_cut_below_what_the_index_says_is_found() {
    let (_dir, path, names) = files();
    fs::write(&path, vec![b'x'; 4 * 512]).unwrap();
    fs::write(beside(&path, "-shm"), index_of(1, 0, 3, 0, 1000)).unwrap();
    names.check(Moment::After).unwrap();
    cut(&path, 3 * 512);
    names.check(Moment::After).unwrap();
    cut(&path, 3 * 512 - 1);
    assert!(names.check(Moment::After).unwrap_err().cut);
}

#[test]
fn an_index_that_was_cut_has_its_size_again_before_it_is_used() {
    let (_dir, path, names) = files();
    drop(names.use_index());
    let index = beside(&path, "-shm");
    for to in [0, 130, 500] {
        cut(&index, to);
        drop(names.use_index());
        let whole = fs::read(&index).unwrap();
        assert_eq!(whole.len(), 1000);
        assert!(whole[..136].iter().all(|byte| *byte == 0), "cut to {to}, its head would be believed");
    }
}
