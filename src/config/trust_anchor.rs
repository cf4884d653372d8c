//! A file of keys that are trusted to sign DNS, instead of those of the root: of a private root, or of newer keys.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::sync::Arc;

use hickory_resolver::proto::dnssec::TrustAnchors;

use super::source_file;

/// Bytes that the file may have.
const MAX_FILE: u64 = 64 * 1024;

/// See the module.
#[derive(Clone)]
pub struct TrustAnchor {
    /// The file.
    pub path: PathBuf,
    /// The keys in it.
    pub anchors: Arc<TrustAnchors>,
}

impl fmt::Debug for TrustAnchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustAnchor").field("path", &self.path).field("keys", &self.anchors.len()).finish()
    }
}

impl PartialEq for TrustAnchor {
    fn eq(&self, other: &TrustAnchor) -> bool {
        let keys = |anchor: &TrustAnchor| {
            (0..anchor.anchors.len()).filter_map(|n| anchor.anchors.get(n).cloned()).collect::<Vec<_>>()
        };
        self.path == other.path && keys(self) == keys(other)
    }
}

impl TrustAnchor {
    /// Reads DNSKEY records, as in a zone file.
    ///
    /// # Errors
    /// Why it cannot, for people.
    pub fn load(path: &Path) -> Result<TrustAnchor, String> {
        let bytes = source_file::read(path, MAX_FILE).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        let text = String::from_utf8(bytes).map_err(|_| format!("{} is no text", path.display()))?;
        let anchors = TrustAnchors::from_str(&text)
            .map_err(|e| format!("{}: expected DNSKEY records as in a zone file: {e}", path.display()))?;
        if anchors.is_empty() {
            return Err(format!("{} has no DNSKEY record", path.display()));
        }
        Ok(TrustAnchor { path: path.to_owned(), anchors: Arc::new(anchors) })
    }
}
