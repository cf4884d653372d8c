//! `[sendmail]`: what the program does that hands in messages of local programs, and where it puts
//! them while the relay is down.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use super::fields::Field;
use super::file::Reader;
use super::keys::{Key, Table, keys};
use super::value::Kind;

/// `[sendmail]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sendmail {
    /// How long it waits for a relay that is down.
    pub wait: Duration,
    /// Where messages go meanwhile, if anywhere.
    pub spool: Option<PathBuf>,
}

impl Table for Sendmail {
    const NAME: &'static str = "sendmail";
    const KEYS: &'static [Key<Sendmail>] = keys! {
        /// How long `sendmail` and `mailweir send` wait for a relay that is down, if there is no
        /// `spool`. Then they exit with 75.
        "wait" wait: Kind::Span(0, 600_000), default r#""30s""#;
        /// A directory for messages that come while the relay is down; it takes them up at its next
        /// start, and looks every minute. Local users must be able to write to it, and nobody else to
        /// list it: `install -d -o mailweir -g mailweir -m 3733 DIRECTORY`. Default: none.
        "spool" spool: Kind::Directory, example r#""/var/spool/mailweir""#;
    };

    fn blank() -> Sendmail {
        Sendmail { wait: Duration::ZERO, spool: None }
    }
}

/// Mode bits of a directory.
const STICKY: u32 = 0o1000;
const SETGID: u32 = 0o2000;

impl Sendmail {
    /// Looks at the spool: a fault if users could do harm to one another in it, else perhaps a warning.
    pub(super) fn check(&self, reader: &mut Reader<'_>) {
        let Some(spool) = &self.spool else { return };
        let (key, shown) = ("sendmail.spool", spool.display());
        let make = format!("install -d -o USER -g GROUP -m 3733 {shown}, with those that mailweir runs as");
        let meta = match std::fs::symlink_metadata(spool) {
            Ok(meta) => meta,
            Err(error) => return reader.fault(key, format!("cannot look at {shown}: {error}: {make}")),
        };
        if !meta.is_dir() {
            return reader.fault(key, format!("{shown} is not a directory: {make}"));
        }
        let mode = meta.mode();
        if mode & 0o002 != 0 && mode & STICKY == 0 {
            let message = format!("{shown} is not sticky, so users could remove the mail of others: {make}");
            return reader.fault(key, message);
        }
        if mode & 0o004 != 0 || mode & SETGID == 0 {
            let why = if mode & 0o004 != 0 { "users can list it" } else { "it is not setgid" };
            reader.warn(key, format!("{why}, so that others may read what waits in it: {make}"));
        }
    }
}
