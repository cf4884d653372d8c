//! `--dump DIR`: each message accepted becomes `NNNNNNNN.eml` (its bytes) and `NNNNNNNN.json` (its
//! envelope). What is not accepted leaves no file.
//!
//! Files are written where the session runs: this is a tool for trying things, and a local disk
//! takes a few kilobytes in less time than handing them to another thread.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

/// A message that is being written.
pub(super) struct Dump {
    out: BufWriter<File>,
    files: Files,
}

/// The two files of a message; removed unless they are kept.
pub(super) struct Files {
    eml: PathBuf,
    json: PathBuf,
    kept: bool,
}

impl Dump {
    /// A new message with this number.
    pub(super) fn create(dir: &Path, number: u64) -> io::Result<Dump> {
        let path = |ending: &str| dir.join(format!("{number:08}.{ending}"));
        let files = Files { eml: path("eml"), json: path("json"), kept: false };
        Ok(Dump { out: BufWriter::new(File::create(&files.eml)?), files })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    /// All bytes are here; writes the envelope beside them.
    pub(super) fn close(mut self, sender: &str, recipients: &[String]) -> io::Result<Files> {
        self.out.flush()?;
        let envelope = json!({ "sender": sender, "recipients": recipients });
        fs::write(&self.files.json, format!("{envelope}\n"))?;
        Ok(self.files)
    }
}

impl Files {
    /// The message was accepted.
    pub(super) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(&self.eml);
            let _ = fs::remove_file(&self.json);
        }
    }
}
