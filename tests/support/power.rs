//! A disk as a power cut leaves it: what was synced is there, everything else may be there, be
//! missing, or be there in part.
//!
//! - The content of a file is durable by a sync of that file; a name (created, removed) by a sync
//!   of its directory.
//! - Of what was not synced, each sector of each write is kept or dropped on its own, and so is
//!   each change of a size: a disk may write in any order, and be in the middle of any of it.
//! - What was written before a sync that *failed* may be lost for good, whatever is synced later:
//!   that is what Linux does to pages that it could not write.

use std::collections::BTreeMap;
use std::path::Path;

use super::shim::Step;

/// What becomes of that which was not synced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unsynced {
    /// Nothing of it is there.
    Dropped,
    /// All of it is there.
    Kept,
    /// Each piece of so many bytes is there or not.
    Torn(u64),
}

#[derive(Clone, Debug)]
enum Change {
    Write { at: u64, data: Vec<u8> },
    Resize(u64),
}

#[derive(Clone, Default, Debug)]
struct Inode {
    durable: Vec<u8>,
    pending: Vec<Change>,
}

/// A directory's entry: a file by its number, or a directory.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Entry {
    File(usize),
    Directory,
}

/// The disk.
#[derive(Clone, Default, Debug)]
pub struct Disk {
    inodes: Vec<Inode>,
    /// Names as the process sees them.
    names: BTreeMap<String, Entry>,
    durable_names: BTreeMap<String, Entry>,
    /// In order; `None` is a removal.
    pending_names: Vec<(String, Option<Entry>)>,
}

/// Files by their path.
pub type Image = BTreeMap<String, Vec<u8>>;

impl Disk {
    /// A disk on which this is, and is durable.
    pub fn from_image(image: &Image) -> Disk {
        let mut disk = Disk::default();
        for (path, content) in image {
            let mut above = parent(path);
            while !above.is_empty() {
                disk.names.insert(above.to_owned(), Entry::Directory);
                above = parent(above);
            }
            disk.names.insert(path.clone(), Entry::File(disk.inodes.len()));
            disk.inodes.push(Inode { durable: content.clone(), pending: Vec::new() });
        }
        disk.durable_names = disk.names.clone();
        disk
    }

    /// Does what the process did.
    pub fn apply(&mut self, step: &Step, random: &mut fastrand::Rng) {
        match step {
            Step::Create(path) => {
                self.inodes.push(Inode::default());
                self.name(path, Some(Entry::File(self.inodes.len() - 1)));
            }
            Step::Mkdir(path) => self.name(path, Some(Entry::Directory)),
            Step::Unlink(path) => self.name(path, None),
            Step::Write { path, at, data } => {
                self.inode(path).pending.push(Change::Write { at: *at, data: data.clone() });
            }
            Step::Resize { path, size } => self.inode(path).pending.push(Change::Resize(*size)),
            Step::Sync(path) if path.is_empty() || self.names.get(path) == Some(&Entry::Directory) => {
                let (now, later) =
                    std::mem::take(&mut self.pending_names).into_iter().partition(|(p, _)| parent(p) == path);
                self.pending_names = later;
                let now: Vec<_> = now;
                set_names(&mut self.durable_names, &now);
            }
            Step::Sync(path) => self.inode(path).settle(Unsynced::Kept, random),
            Step::SyncFailed(path) => self.inode(path).settle(Unsynced::Torn(4096), random),
            Step::Note(_) => {}
        }
    }

    /// What is there if the power fails now.
    pub fn cut(&self, unsynced: Unsynced, random: &mut fastrand::Rng) -> Image {
        let mut names = self.durable_names.clone();
        let kept = match unsynced {
            Unsynced::Dropped => 0,
            Unsynced::Kept => self.pending_names.len(),
            // Names are journalled in order: some of the first are there.
            Unsynced::Torn(_) => random.usize(0..=self.pending_names.len()),
        };
        set_names(&mut names, &self.pending_names[..kept]);
        let mut image = Image::new();
        for (path, entry) in &names {
            let Entry::File(number) = entry else { continue };
            let mut above = parent(path);
            while !above.is_empty() && names.get(above) == Some(&Entry::Directory) {
                above = parent(above);
            }
            if above.is_empty() {
                let mut inode = self.inodes[*number].clone();
                inode.settle(unsynced, random);
                image.insert(path.clone(), inode.durable);
            }
        }
        image
    }

    fn name(&mut self, path: &str, entry: Option<Entry>) {
        let change = [(path.to_owned(), entry)];
        set_names(&mut self.names, &change);
        self.pending_names.extend(change);
    }

    fn inode(&mut self, path: &str) -> &mut Inode {
        match self.names.get(path) {
            Some(Entry::File(number)) => &mut self.inodes[*number],
            other => panic!("{path} is {other:?}"),
        }
    }
}

impl Inode {
    /// Makes what is pending durable, as far as `keep` says, and forgets the rest.
    fn settle(&mut self, keep: Unsynced, random: &mut fastrand::Rng) {
        for change in std::mem::take(&mut self.pending) {
            match (change, keep) {
                (_, Unsynced::Dropped) => {}
                (Change::Write { at, data }, Unsynced::Kept) => self.write(at, &data),
                (Change::Resize(size), Unsynced::Kept) => self.resize(size),
                (Change::Resize(size), Unsynced::Torn(_)) => {
                    if random.bool() {
                        self.resize(size);
                    }
                }
                (Change::Write { at, data }, Unsynced::Torn(sector)) => {
                    let (mut from, end) = (at, at + data.len() as u64);
                    while from < end {
                        let to = end.min((from / sector + 1) * sector);
                        if random.bool() {
                            let (a, b) = ((from - at) as usize, (to - at) as usize);
                            self.write(from, &data[a..b]);
                        }
                        from = to;
                    }
                }
            }
        }
    }

    fn write(&mut self, at: u64, data: &[u8]) {
        let (from, to) = (at as usize, at as usize + data.len());
        if self.durable.len() < to {
            self.durable.resize(to, 0);
        }
        self.durable[from..to].copy_from_slice(data);
    }

    fn resize(&mut self, size: u64) {
        self.durable.resize(size as usize, 0);
    }
}

fn set_names(names: &mut BTreeMap<String, Entry>, changes: &[(String, Option<Entry>)]) {
    for (path, entry) in changes {
        match entry {
            Some(entry) => drop(names.insert(path.clone(), *entry)),
            None => drop(names.remove(path)),
        }
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(above, _)| above)
}

/// Writes an image below a directory.
pub fn write_image(image: &Image, root: &Path) {
    for (path, content) in image {
        let file = root.join(path);
        std::fs::create_dir_all(file.parent().expect("a directory")).expect("create a directory");
        std::fs::write(file, content).expect("write a file of an image");
    }
}
