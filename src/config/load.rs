//! The way in: a file, a text, or nothing becomes a checked configuration.

use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};

use crate::clock::{Clock, Timestamp};

use super::file::{self, find};
use super::keys::{self, Table};
use super::listener_keys::ListenerDraft;
use super::report::Setting;
use super::{
    Config, ConfigError, Dns, Elsewhere, Listener, Log, Provider, Queue, Retry, Sendmail, Warning, certificates, check,
    expiring, shaping, source_file, store_place,
};

impl Config {
    /// Reads the file that was named, else `config.toml` in the working directory if there is one,
    /// else takes the defaults. See [`Loaded::read`] for the warnings too.
    pub fn load(named: Option<&Path>) -> Result<Config, ConfigError> {
        Loaded::read(named).map(|loaded| loaded.config)
    }

    /// Reads a text; `origin` is what messages call it.
    pub fn parse(text: &str, origin: &str) -> Result<Config, ConfigError> {
        Loaded::parse(text, origin).map(|loaded| loaded.config)
    }
}

/// A configuration with all that reading it found out.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What the operator should know.
    pub warnings: Vec<Warning>,
    /// Every value with where it came from, in the order of the documentation.
    pub settings: Vec<Setting>,
    /// The file it came from; `None`: there was none, so all values are defaults.
    pub file: Option<PathBuf>,
    /// Tells the text of the file from others, in this process.
    pub(crate) read: Option<u64>,
}

/// Tells a text of a configuration from others, in this process.
fn mark_of(text: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(text);
    hasher.finish()
}

impl Loaded {
    /// Reads the file that was named, else `config.toml` in the working directory if there is one,
    /// else takes the defaults. A file that was named must exist. Warns also of what begins later.
    pub fn read(named: Option<&Path>) -> Result<Loaded, ConfigError> {
        Loaded::read_with(named, Elsewhere::Read)
    }

    /// The same with less of what it names elsewhere: what is not looked up is not there in the result, but for what
    /// [`Loaded::settings`] show.
    pub fn read_with(named: Option<&Path>, elsewhere: Elsewhere) -> Result<Loaded, ConfigError> {
        match find(named) {
            Some(path) => {
                let (text, origin) = (file::read_file(&path)?, path.display().to_string());
                let reader = file::Reader::new(&text, &origin).with(elsewhere);
                let loaded = Loaded::of(reader, Some(Clock::System.now()))?;
                Ok(Loaded { file: Some(path), read: Some(mark_of(text.as_bytes())), ..loaded })
            }
            None => Loaded::parse("", "defaults"),
        }
    }

    /// What commands to a relay go by where the file cannot be taken: the built-in values, with the queue of the
    /// file if that can be read.
    pub fn despite_faults(named: Option<&Path>) -> Loaded {
        let mut config = Config::default();
        let text = find(named).and_then(|path| source_file::read(&path, file::MAX_FILE).ok());
        if let Some(store) = text.and_then(|bytes| store_place::store_in(&String::from_utf8_lossy(&bytes))) {
            config.queue.store = store;
        }
        Loaded { config, file: find(named), ..Loaded::without_file() }
    }

    /// The built-in values and nothing else.
    pub fn without_file() -> Loaded {
        Loaded { config: Config::default(), warnings: Vec::new(), settings: Vec::new(), file: None, read: None }
    }

    /// Reads a text; `origin` is what messages call it.
    pub fn parse(text: &str, origin: &str) -> Result<Loaded, ConfigError> {
        Loaded::parse_at(text, origin, None)
    }

    /// The same, and nothing is read but the text.
    pub fn parse_alone(text: &str, origin: &str) -> Result<Loaded, ConfigError> {
        Loaded::of(file::Reader::new(text, origin).with(Elsewhere::Ignored), None)
    }

    /// The same, with what is to be warned of `now`.
    pub(super) fn parse_at(text: &str, origin: &str, now: Option<Timestamp>) -> Result<Loaded, ConfigError> {
        Loaded::of(file::Reader::new(text, origin), now)
    }

    fn of(mut reader: file::Reader<'_>, now: Option<Timestamp>) -> Result<Loaded, ConfigError> {
        let origin = reader.origin;
        let draft = reader.read();
        let (config, settings) = check::finish(&mut reader, draft);
        if let Some(now) = now {
            shaping::begins_later(&mut reader, &config, now);
            certificates::warn(&mut reader, &config, now);
            expiring::warn(&mut reader, &config, now);
        }
        let (mut problems, warnings) = (reader.problems, reader.warnings);
        if !problems.is_empty() {
            problems.sort_by_key(|p| (p.line, p.column));
            return Err(ConfigError { origin: origin.to_owned(), problems });
        }
        let warnings = warnings.into_iter().map(|problem| Warning { origin: origin.to_owned(), problem }).collect();
        Ok(Loaded { config, warnings, settings, file: None, read: None })
    }
}

/// Whether a file still has the text of that mark.
pub(crate) fn has_text(path: &Path, mark: u64) -> bool {
    source_file::read(path, file::MAX_FILE).is_ok_and(|bytes| mark_of(&bytes) == mark)
}

/// The values without any file.
impl Default for Config {
    fn default() -> Config {
        let mut reader = file::Reader::new("", "defaults");
        let draft = reader.read();
        check::finish(&mut reader, draft).0
    }
}

impl Default for Listener {
    fn default() -> Listener {
        ListenerDraft::defaults().l
    }
}

impl Default for Queue {
    fn default() -> Queue {
        Queue::defaults()
    }
}

impl Default for Retry {
    fn default() -> Retry {
        Retry::defaults()
    }
}

impl Default for Dns {
    fn default() -> Dns {
        Dns::defaults()
    }
}

impl Default for Sendmail {
    fn default() -> Sendmail {
        Sendmail::defaults()
    }
}

impl Default for Log {
    fn default() -> Log {
        Log::defaults()
    }
}

/// The values of `[default]`, and of a provider that says nothing.
impl Default for Provider {
    fn default() -> Provider {
        let mut provider = keys::ProviderDraft::defaults().p;
        provider.name = "default".into();
        provider.retry = Retry::default();
        provider
    }
}
