//! The refresh token that a service gave out last, in a file of its own beside the queue.
//!
//! Invariants: the file is there whole or not at all, whoever kills the process; nobody but its owner, who is that
//! of the queue, may read it; it is on the disk before the token in it is used.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use crate::config::{Config, OAuth, OAuthGrant, Secret};

/// Bytes that the file may have.
const MAX_FILE: u64 = 64 * 1024;

/// As it stands in the file.
#[derive(Serialize, Deserialize)]
struct Kept {
    refresh_token: String,
    /// The application that it was given to.
    client_id: String,
    /// A digest of the token in the configuration that it came in the place of; empty: there was none.
    replaces: String,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.refresh_token.zeroize();
    }
}

/// Where the token of a provider is. A refresh token that stands in the configuration of several providers is one
/// that they spend together, so what came in its place is in one file for all of them.
#[derive(Clone, Debug)]
pub(super) struct Files {
    own: PathBuf,
    /// Of all that have the same one in the configuration.
    common: Option<PathBuf>,
    /// There are several now.
    several: bool,
}

impl Files {
    /// Of a provider; `mark`: [`mark_of`] its configuration, which `several` have.
    pub fn of(config: &Config, provider: &str, mark: Option<&str>, several: bool) -> Files {
        Files::beside(config.queue.store.place(), provider, mark, several)
    }

    /// Beside this file.
    pub fn beside(store: &Path, provider: &str, mark: Option<&str>, several: bool) -> Files {
        let path = |what: String| {
            let mut name = store.to_owned().into_os_string();
            name.push(what);
            PathBuf::from(name)
        };
        let common = mark.map(|mark| path(format!(".oauth-token-{mark}")));
        Files { own: path(format!(".oauth-{provider}")), common, several }
    }

    /// Where the next one goes.
    pub fn to_write(&self) -> &Path {
        self.common.as_deref().filter(|_| self.several).unwrap_or(&self.own)
    }

    /// Those that are there, the last one written first: which it was depends on how many providers there were.
    fn to_read(&self) -> Vec<&Path> {
        let written = |path: &Path| std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
        let all = self.common.as_deref().into_iter().chain([&*self.own]);
        let mut there: Vec<_> = all.filter(|path| path.exists()).collect();
        there.sort_by_key(|path| std::cmp::Reverse(written(path)));
        there
    }
}

/// What two providers have in common that would spend the same refresh token; `None`: none stands in the configuration.
pub(super) fn mark_of(oauth: &OAuth) -> Option<String> {
    let token = oauth.refresh_token.as_ref().filter(|_| oauth.grant == OAuthGrant::RefreshToken)?;
    let mut all = digest::Context::new(&digest::SHA256);
    for part in [oauth.token_url.host(), &oauth.client_id, token.reveal()] {
        all.update(part.as_bytes());
        all.update(b"\0");
    }
    Some(URL_SAFE_NO_PAD.encode(&all.finish().as_ref()[..12]))
}

/// The token to use: the kept one, unless the configuration has another than the one that it replaced.
///
/// # Errors
/// A file cannot be read; for people.
pub(super) fn load(files: &Files, oauth: &OAuth) -> Result<Option<Secret>, String> {
    for path in files.to_read() {
        if let Some(kept) = kept(path, oauth)? {
            return Ok(Some(kept));
        }
    }
    Ok(oauth.refresh_token.clone())
}

/// What is in a file, if it came in the place of what is configured.
fn kept(path: &Path, oauth: &OAuth) -> Result<Option<Secret>, String> {
    let bytes = match read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(format!("cannot read {}: {e}", path.display())),
    };
    let kept: Kept = serde_json::from_slice(&bytes)
        .map_err(|_| format!("{} has no refresh token: remove it, then `mailweir auth login`", path.display()))?;
    let configured = oauth.refresh_token.as_ref();
    let current = kept.client_id == oauth.client_id && configured.is_none_or(|c| mark(Some(c)) == kept.replaces);
    Ok(current.then(|| Secret::new(kept.refresh_token.clone())))
}

/// Puts a new token in the place of the last one.
///
/// # Errors
/// It is not on the disk; for people.
pub(super) fn keep(path: &Path, oauth: &OAuth, token: &Secret) -> Result<(), String> {
    let kept = Kept {
        refresh_token: token.reveal().to_owned(),
        client_id: oauth.client_id.clone(),
        replaces: mark(oauth.refresh_token.as_ref()),
    };
    let text = Zeroizing::new(serde_json::to_vec(&kept).map_err(|e| e.to_string())?);
    write(path, &text).map_err(|e| format!("cannot write {}: {e}", path.display()))
}

fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = File::open(path)?;
    if file.metadata()?.len() > MAX_FILE {
        return Err(io::Error::other("it is too large"));
    }
    std::fs::read(path).map(Zeroizing::new)
}

fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let directory = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut beside = path.to_owned().into_os_string();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let _ = std::fs::remove_file(&beside);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(text)?;
    // Who logs in as root does it for the relay, which runs as the owner of the directory.
    let owner = std::fs::metadata(directory)?;
    if file.metadata()?.uid() == 0 && owner.uid() != 0 {
        chown(&beside, Some(owner.uid()), Some(owner.gid()))?;
    }
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    File::open(directory)?.sync_all()
}

fn mark(token: Option<&Secret>) -> String {
    let digest = |secret: &Secret| digest::digest(&digest::SHA256, secret.reveal().as_bytes());
    token.map(|token| URL_SAFE_NO_PAD.encode(digest(token))).unwrap_or_default()
}
