//! How much of its disk a store sets aside for mail on its way out: `[queue] min_free`, on a small file
//! system less.

use std::path::Path;

use rustix::fs::statvfs;

use crate::config::units::Size;

/// Of a file system, one part in so many is set aside at most.
const PART: u64 = 10;

/// What is set aside, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Aside {
    /// What is wanted.
    pub wanted: u64,
    /// What is in force.
    pub bytes: u64,
    /// Size of the file system.
    pub(super) total: u64,
}

impl Aside {
    /// Of the store at `database`, which need not be there yet.
    pub fn of(database: &Path, wanted: u64) -> Aside {
        let there = database.ancestors().skip(1).map(|directory| match directory.as_os_str() {
            none if none.is_empty() => Path::new("."),
            _ => directory,
        });
        // A file system that cannot tell has no end.
        let total = there
            .filter_map(|directory| statvfs(directory).ok())
            .next()
            .map_or(u64::MAX, |disk| disk.f_blocks.saturating_mul(disk.f_frsize));
        Aside { wanted, bytes: wanted.min(total / PART), total }
    }

    /// For people: that nothing is set aside, or the figure in force if it is not the one that was asked for.
    pub fn warning(&self) -> Option<String> {
        if self.wanted == 0 {
            return Some(
                "[queue] min_free = \"0KiB\" sets nothing aside: on a full disk delivery stops, too, until somebody makes \
                 room; expected some MiB"
                    .to_owned(),
            );
        }
        (self.bytes < self.wanted).then(|| {
            let (wanted, bytes, total) = (Size(self.wanted), whole(self.bytes), whole(self.total));
            format!(
                "[queue] min_free = \"{wanted}\" is more than a tenth of the store's file system ({total}): {bytes} are \
                 set aside"
            )
        })
    }

    pub(super) fn tenth(&self) -> u64 {
        self.total / PART
    }
}

/// In whole KiB.
fn whole(bytes: u64) -> Size {
    Size(bytes / 1024 * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_of_the_file_system_is_set_aside_at_most_and_that_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let small = Aside::of(&dir.path().join("queue.db"), 1 << 20);
        assert_eq!((small.bytes, small.warning()), (1 << 20, None));
        let huge = Aside::of(&dir.path().join("not/there/yet/queue.db"), 1 << 60);
        assert_eq!((huge.bytes, huge.total), (small.total / 10, small.total));
        let told = huge.warning().unwrap();
        assert!(told.contains(&format!("{} are set aside", whole(small.total / 10))), "{told}");
        let none = Aside::of(Path::new("queue.db"), 0).warning().unwrap();
        assert!(none.contains("delivery stops, too"), "{none}");
    }
}
