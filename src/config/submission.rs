//! What a local program needs to hand in a message, read leniently: any user may run it, also one
//! that may not read the configuration, and while it is being edited.
//!
//! Of the file only `hostname`, `default_domain`, `alias_file`, the listeners, `[queue] store` and
//! `[sendmail]` are looked at; a value of these that is wrong counts as missing, and no secret,
//! certificate or list is read. Where there is nothing to be read the defaults hold: a relay on
//! localhost:2525.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use toml_edit::{Document, Item, TableLike, Value};

use super::check::system_name;
use super::file::{find, read_file};
use super::keys::{Key, Table};
use super::listener_keys::ListenerDraft;
use super::{ConfigError, ListenAddress, ListenerAuth, ListenerTlsMode, Problem, Queue, Sendmail, Store};
use crate::mail::LocalNames;

/// Where the configuration is that programs find which are told of none.
const SYSTEM_FILE: &str = "/etc/mailweir/config.toml";

/// See the module.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The file that was read, or that could not be.
    pub file: Option<PathBuf>,
    /// Why the file has no say, if it has none.
    pub note: Option<String>,
    /// Said in EHLO.
    pub hostname: String,
    /// For header fields; the relay has its own, with the aliases.
    pub names: LocalNames,
    /// Where the relay takes mail in clear text and without a login, in the order of the file. Empty: every listener
    /// wants TLS.
    pub servers: Vec<ListenAddress>,
    /// In bytes, of the first of these.
    pub max_message_size: u64,
    /// For commands that ask the relay, or look at its queue.
    pub store: Store,
    /// `alias_file`, not read.
    pub alias_file: Option<PathBuf>,
    /// `[sendmail]`.
    pub sendmail: Sendmail,
}

/// Where to look for the file.
#[derive(Clone, Copy, Debug)]
pub enum Search<'a> {
    /// This one.
    Named(&'a Path),
    /// `config.toml` of the working directory, then that of the system.
    Here,
    /// That of the system. What stands in the working directory may be anybody's.
    System,
}

impl Submission {
    /// Reads what can be read.
    ///
    /// # Errors
    /// A file that was named is not there, or is not TOML.
    pub fn read(search: Search<'_>) -> Result<Submission, ConfigError> {
        let system = || Some(PathBuf::from(SYSTEM_FILE));
        let (path, named) = match search {
            Search::Named(path) => (Some(path.to_owned()), true),
            Search::Here => (find(None).or_else(system), false),
            Search::System => (system(), false),
        };
        let Some(path) = path else { return Ok(Submission::of(&toml_edit::Table::new())) };
        let unreadable = std::fs::File::open(&path).err();
        let missing = unreadable.as_ref().is_some_and(|e| e.kind() == ErrorKind::NotFound);
        let text = match unreadable {
            None => read_file(&path)?,
            Some(_) if missing && named => read_file(&path)?,
            Some(_) => String::new(),
        };
        let defaults = || Submission::of(&toml_edit::Table::new());
        match (Submission::parse(&text), unreadable) {
            (Ok(read), None) => Ok(Submission { file: Some(path), ..read }),
            (_, Some(_)) if missing => Ok(defaults()),
            (_, Some(error)) => {
                let note = format!("cannot read {}: {error}", path.display());
                Ok(Submission { file: Some(path), note: Some(note), ..defaults() })
            }
            (Err(error), None) if named => {
                let problem = Problem { message: error, ..Problem::default() };
                Err(ConfigError { origin: path.display().to_string(), problems: vec![problem] })
            }
            (Err(error), None) => {
                let note = format!("{} {error}", path.display());
                Ok(Submission { file: Some(path), note: Some(note), ..defaults() })
            }
        }
    }

    /// Reads a text.
    fn parse(text: &str) -> Result<Submission, String> {
        let document =
            Document::parse(text).map_err(|e| format!("is not TOML: {}", e.message().replace('\n', ", ")))?;
        Ok(Submission::of(document.as_table()))
    }

    fn of(root: &toml_edit::Table) -> Submission {
        let hostname = text_of(root, "hostname").unwrap_or_else(|| system_name().0);
        let domain = text_of(root, "default_domain").unwrap_or_else(|| hostname.clone());
        let mut queue = Queue::defaults();
        let mut sendmail = Sendmail::defaults();
        take(root.get("queue"), "store", &mut queue);
        take(root.get("sendmail"), "wait", &mut sendmail);
        take(root.get("sendmail"), "spool", &mut sendmail);
        let listeners = listeners(root.get("listener"));
        let clear = listeners.iter().filter(|l| l.takes_clear_text());
        Submission {
            file: None,
            note: None,
            names: LocalNames::new(&hostname, &domain),
            hostname,
            servers: clear.clone().map(|l| reachable(&l.draft.l.address)).collect(),
            max_message_size: clear.map(|l| l.draft.l.max_message_size).next().unwrap_or(u64::MAX),
            store: queue.store,
            alias_file: text_of(root, "alias_file").map(PathBuf::from),
            sendmail,
        }
    }
}

/// A listener as far as it was looked at.
struct Seen {
    draft: ListenerDraft,
    tls: bool,
}

impl Seen {
    /// Without a login either, which a local program has none for.
    fn takes_clear_text(&self) -> bool {
        let starttls = self.draft.tls_mode == Some(ListenerTlsMode::StartTls);
        let logs_in = self.draft.auth == Some(ListenerAuth::Required);
        !logs_in && (!self.tls || (starttls && self.draft.tls_required != Some(true)))
    }
}

fn listeners(item: Option<&Item>) -> Vec<Seen> {
    let tables: Vec<&dyn TableLike> = match item {
        Some(Item::ArrayOfTables(tables)) => tables.iter().map(|t| t as &dyn TableLike).collect(),
        Some(Item::Value(Value::Array(list))) => {
            list.iter().filter_map(|v| v.as_inline_table()).map(|t| t as &dyn TableLike).collect()
        }
        _ => return vec![Seen { draft: ListenerDraft::defaults(), tls: false }],
    };
    let mut seen = Vec::new();
    for table in tables {
        let mut draft = ListenerDraft::defaults();
        // A listener whose address is no address is none that can be connected to.
        let address = table.get("address").is_none_or(|item| set(item, "address", &mut draft));
        let tls = table.get("tls");
        for key in ["mode", "required"] {
            if let Some(item) = tls.and_then(Item::as_table_like).and_then(|tls| tls.get(key)) {
                set(item, &format!("tls.{key}"), &mut draft);
            }
        }
        for key in ["max_message_size", "auth"] {
            if let Some(item) = table.get(key) {
                set(item, key, &mut draft);
            }
        }
        if address && draft.l.address.sockets().all(|address| address.port() != 0) {
            seen.push(Seen { draft, tls: tls.is_some() });
        }
    }
    seen
}

/// Takes over one value of a table, if it is there and good.
fn take<T: Table>(table: Option<&Item>, name: &str, into: &mut T) {
    if let Some(item) = table.and_then(Item::as_table_like).and_then(|table| table.get(name)) {
        set(item, name, into);
    }
}

/// Takes over a value by the declaration of its key; returns whether it was good.
fn set<T: Table>(item: &Item, name: &str, into: &mut T) -> bool {
    let key: Option<&Key<T>> = T::KEYS.iter().find(|key| key.name == name);
    key.zip(item.as_value())
        .is_some_and(|(key, value)| key.kind.read(value).and_then(|value| (key.set)(into, value)).is_ok())
}

/// A text outside any table that is no nonsense as a name.
fn text_of(root: &toml_edit::Table, name: &str) -> Option<String> {
    let text = root.get(name).and_then(Item::as_str)?.trim_end_matches('.');
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())).then(|| text.to_owned())
}

/// Where to connect for a listener: one on all addresses is on loopback too.
fn reachable(listener: &ListenAddress) -> ListenAddress {
    let ListenAddress::Socket(listener) = listener else { return listener.clone() };
    let ip = match listener.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listener.port()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn only_what_is_needed_is_read_and_faults_elsewhere_do_not_matter() {
        let text = "hostname = 'relay.example'\ndefault_domain = 'example.com'\nalias_file = '/none'\nfrob = 1\n\
            [provider.x]\nrelay = 3\nauth = { user = 'u', password = { file = '/root/none' } }\n\
            [[listener]]\naddress = '0.0.0.0:465'\ntls = { mode = 'implicit', cert = '/none', key = '/none' }\n\
            [[listener]]\naddress = 'unix:run/x'\n\
            [[listener]]\naddress = '[::]:2526'\nmax_message_size = '1MiB'\ntls = { mode = 'starttls' }\n\
            [[listener]]\naddress = '10.0.0.1:2527'\ntls = { mode = 'starttls', required = true }\n\
            [[listener]]\naddress = '[::]:2528'\nauth = 'required'\n\
            [queue]\nstore = 'sqlite:/q.db'\nmemory = 'much'\n[sendmail]\nwait = '1s'\nspool = '/spool'\nx = 1\n";
        let read = Submission::parse(text).expect("TOML");
        assert_eq!((read.hostname.as_str(), read.names.default_domain()), ("relay.example", "example.com"));
        assert_eq!(read.servers, ["[::1]:2526".parse::<ListenAddress>().expect("an address")]);
        assert_eq!(read.max_message_size, 1 << 20);
        assert_eq!(read.store, Store::Sqlite("/q.db".into()));
        assert_eq!(read.sendmail, Sendmail { wait: Duration::from_secs(1), spool: Some("/spool".into()) });
        assert_eq!(read.alias_file, Some("/none".into()));
    }

    #[test]
    fn without_a_file_and_with_wrong_values_the_defaults_hold() {
        for text in ["", "hostname = 3\nqueue = 'x'\n[sendmail]\nwait = 'long'\n"] {
            let read = Submission::parse(text).expect("TOML");
            assert_eq!(read.servers, ["localhost:2525".parse::<ListenAddress>().expect("an address")], "{text}");
            assert_eq!(read.sendmail, Sendmail { wait: Duration::from_secs(30), spool: None });
            assert_eq!(read.hostname, system_name().0);
        }
        assert!(Submission::parse("= 1").is_err());
        let none = Submission::parse("listener = [{ tls = { mode = 'implicit' } }]").expect("TOML");
        assert!(none.servers.is_empty(), "every listener wants TLS");
    }

    #[test]
    fn a_file_that_was_named_must_be_there_and_be_toml() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("c.toml");
        assert!(Submission::read(Search::Named(&path)).is_err());
        std::fs::write(&path, "a = ").expect("written");
        assert!(Submission::read(Search::Named(&path)).is_err());
        std::fs::write(&path, "hostname = 'h.example'").expect("written");
        assert_eq!(Submission::read(Search::Named(&path)).expect("read").hostname, "h.example");
    }
}
