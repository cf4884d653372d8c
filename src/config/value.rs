//! The kinds of value a key can have: what each accepts, its range, and how it prints.
//!
//! A [`Kind`] is the single place that knows a range: the parser checks it, an error message and
//! the documentation quote it. Secrets are read here and are never printed.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml_edit::{Array, Value};

use super::dkim::{DkimKey, read_selector};
use super::file_path::file_name;
use super::identity::MAX_PEM;
use super::listen_address::group_id;
use super::names::{
    check_host, enhanced_pattern, host_pattern, lane_pattern, mail_pattern, meant_by_host_port, read_host_port,
    read_store, reply_text,
};
use super::oauth::{Endpoint, OAuthService};
use super::oauth_files::{ClientCertificate, KeyFile, ServiceAccount};
use super::password::StoredPassword;
use super::secret::SHOWN;
use super::secret_value::read_secret;
use super::units::{Pattern, Rate, Size, Span};
use super::users::{self, UserFile};
use super::{
    AliasFile, Aliases, Authorities, CountedRate, FileMode, ListenAddress, Nameserver, Network, Secret, Source, Store,
    TrustAnchor, Warmup, never, source_file, source_keys, warmup,
};
use crate::clock::Timestamp;

/// Longest list a key takes; a configuration is read by people.
pub(super) const MAX_LIST: usize = 10_000;

/// Longest [`Kind::Line`], in bytes.
const MAX_LINE: usize = 1024;

/// What a key accepts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// `true` or `false`.
    Flag,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A whole number in this range.
    Int(u64, u64),
    /// A whole number in this range, which may be negative.
    Signed(i64, i64),
    /// A number in this range.
    Number(f64, f64),
    /// A [`Span`] in this range, in milliseconds.
    Span(u64, u64),
    /// A [`Size`] in this range, in bytes.
    Size(u64, u64),
    /// A fully qualified host name.
    HostName,
    /// `IP:port`.
    Address,
    /// Where a listener listens.
    ListenAddress,
    /// A short name.
    Label,
    /// Rights of a file.
    FileMode,
    /// A group of this machine.
    Group,
    /// `host:port`.
    HostPort,
    /// The name of a provider.
    ProviderName,
    /// A user name.
    User,
    /// A file that can be read.
    ReadableFile,
    /// A PEM file of certificates to trust.
    Authorities,
    /// `sqlite:PATH`.
    Store,
    /// A log level or filter.
    LogFilter,
    /// `{ env = }`, `{ file = }` or a text.
    Secret,
    /// Networks.
    Networks,
    /// Patterns of host names or domains.
    HostPatterns,
    /// A pattern of mailbox addresses; the flag allows `<>`.
    MailPattern(bool),
    /// One address, read as a pattern: whoever takes it refuses one with `*`, and says for what it is.
    MailAddress,
    /// One rate or several, of connections.
    Rates,
    /// One rate or several that say what they count; the flag allows connections.
    CountedRates(bool),
    /// Name servers.
    Nameservers,
    /// One rate.
    Rate,
    /// A plan for new source addresses.
    Warmup,
    /// An enhanced status code, `*` for any number.
    Enhanced,
    /// Words of a reply, `*` for any run of characters.
    ReplyText,
    /// A pattern of the names of providers and lanes.
    LanePattern,
    /// Local addresses to connect from.
    Sources,
    /// Local names and where they lead.
    Aliases,
    /// A file of aliases.
    AliasFile,
    /// A directory.
    Directory,
    /// Whose tokens: a word, or a table of what stands beside it.
    OAuthService,
    /// Words of one line for a server.
    Line,
    /// An address of HTTPS.
    Endpoint,
    /// A day (UTC).
    Day,
    /// A PEM file of a client certificate.
    ClientCertificate,
    /// A file of DNSKEY records.
    TrustAnchor,
    /// A PEM file of a private RSA key.
    KeyFile,
    /// A JSON file of Google's.
    ServiceAccount,
    /// The name of one who logs in here.
    UserName,
    /// A password as it is kept.
    StoredPassword,
    /// Patterns of reverse-paths.
    MailPatterns,
    /// A file of users.
    UserFile,
    /// A PEM file of a private key for signatures.
    DkimKey,
    /// The name of a published key.
    Selector,
}

/// A value that was read, within its range.
#[derive(Clone, Debug)]
pub(super) enum Val {
    Flag(bool),
    Word(&'static str),
    Int(u64),
    Signed(i64),
    Number(f64),
    Span(Duration),
    Size(u64),
    Text(String),
    Address(SocketAddr),
    ListenAddress(ListenAddress),
    FileMode(FileMode),
    HostPort(String, u16),
    Path(PathBuf),
    Authorities(Authorities),
    Store(Store),
    Secret { secret: Secret, literal: bool },
    Networks(Vec<Network>),
    Patterns(Vec<Pattern>),
    Pattern(Pattern),
    Rates(Vec<Rate>),
    CountedRates(Vec<CountedRate>),
    Nameservers(Vec<Nameserver>),
    Rate(Rate),
    Warmup(Warmup),
    Sources(Vec<Source>),
    Aliases(Aliases),
    AliasFile(AliasFile),
    Endpoint(Endpoint),
    Day(Timestamp),
    ClientCertificate(ClientCertificate),
    KeyFile(KeyFile),
    TrustAnchor(TrustAnchor),
    ServiceAccount(ServiceAccount),
    StoredPassword(StoredPassword),
    UserFile(UserFile),
    DkimKey(DkimKey),
}

impl Kind {
    /// Reads a file or a variable at once, which the example of a key cannot name.
    #[cfg(test)]
    pub(super) fn reads_what_is_elsewhere(self) -> bool {
        self.is_a_file() && !matches!(self, Kind::AliasFile) || matches!(self, Kind::Secret | Kind::StoredPassword)
    }

    /// The name of a file that is read with the configuration.
    pub(super) fn is_a_file(self) -> bool {
        use Kind::{
            AliasFile, Authorities, ClientCertificate, DkimKey, KeyFile, ReadableFile, ServiceAccount, TrustAnchor,
            UserFile,
        };
        matches!(
            self,
            AliasFile
                | ReadableFile
                | Authorities
                | ClientCertificate
                | KeyFile
                | TrustAnchor
                | ServiceAccount
                | UserFile
                | DkimKey
        )
    }

    /// Reads a value; the error says what is wrong, without where.
    pub(super) fn read(self, value: &Value) -> Result<Val, String> {
        let wrong_type = || format!("expected {}, found {}{}", self.expected(), describe(value), self.remedy(value));
        let outside = |shown: &dyn std::fmt::Display| format!("{shown} is out of range: expected {}", self.expected());
        let text = || value.as_str().ok_or_else(wrong_type);
        match self {
            Kind::Flag => value.as_bool().map(Val::Flag).ok_or_else(wrong_type),
            Kind::Word(words) => {
                let text = text()?;
                let found = words.iter().find(|w| **w == text);
                found.map(|w| Val::Word(w)).ok_or_else(|| {
                    let meant = match text.to_ascii_lowercase().as_str() {
                        "none" | "no" | "never" | "false" | "disabled" => words.iter().copied().find(|w| *w == "off"),
                        _ => None,
                    };
                    let meant = meant.or_else(|| nearest(text, words.iter().copied()));
                    let hint = meant.map(|n| format!("; did you mean \"{n}\"?"));
                    format!("\"{text}\" is not known: expected {}{}", self.expected(), hint.unwrap_or_default())
                })
            }
            Kind::Int(min, max) => {
                let n = value.as_integer().ok_or_else(wrong_type)?;
                u64::try_from(n).ok().filter(|n| (min..=max).contains(n)).map(Val::Int).ok_or_else(|| outside(&n))
            }
            Kind::Signed(min, max) => {
                let n = value.as_integer().ok_or_else(wrong_type)?;
                if (min..=max).contains(&n) { Ok(Val::Signed(n)) } else { Err(outside(&n)) }
            }
            Kind::Number(min, max) => {
                let n = value.as_float().or_else(|| value.as_integer().map(|n| n as f64)).ok_or_else(wrong_type)?;
                if (min..=max).contains(&n) { Ok(Val::Number(n)) } else { Err(outside(&n)) }
            }
            Kind::Span(min, max) => {
                let span: Span = text()?.parse()?;
                let range = Duration::from_millis(min)..=Duration::from_millis(max);
                if range.contains(&span.0) { Ok(Val::Span(span.0)) } else { Err(outside(&span)) }
            }
            Kind::Size(min, max) => {
                let size = match value.as_integer() {
                    Some(n) => Size(u64::try_from(n).map_err(|_| outside(&n))?),
                    None => text()?.parse()?,
                };
                if (min..=max).contains(&size.0) { Ok(Val::Size(size.0)) } else { Err(outside(&size)) }
            }
            Kind::HostName => {
                let name = text()?.trim_end_matches('.');
                let fits = |name: &str| name.contains('.') && check_host(name).is_ok();
                if name.contains(['$', '`', '%']) {
                    let message = "nothing is run or put in here: expected the name itself, or no such line for that of the system";
                    return Err(message.into());
                }
                check_host(name).map_err(|why| match never::meant_by_host(name, fits) {
                    Some(meant) => format!("\"{name}\" is not a host name: did you mean \"{meant}\"?"),
                    None => why,
                })?;
                if !name.contains('.') {
                    return Err(format!("\"{name}\" has no domain: expected {}", self.expected()));
                }
                Ok(Val::Text(name.to_owned()))
            }
            Kind::Address => {
                let text = text()?;
                text.parse()
                    .map(Val::Address)
                    .map_err(|_| format!("\"{text}\" is not an address: expected {}", self.expected()))
            }
            Kind::ListenAddress => text()?.parse().map(Val::ListenAddress),
            Kind::Label => {
                let text = text()?;
                let fits = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
                if text.is_empty() || text.len() > 64 || !text.bytes().all(fits) {
                    return Err(format!("\"{text:.80}\" is not a name: expected {}", self.expected()));
                }
                Ok(Val::Text(text.to_owned()))
            }
            Kind::FileMode => text()?.parse().map(Val::FileMode),
            Kind::Group => {
                let text = text()?;
                group_id(text).map(|_| Val::Text(text.to_owned()))
            }
            Kind::HostPort => {
                let text = text()?;
                read_host_port(text).ok_or_else(|| match meant_by_host_port(text) {
                    Some(meant) => format!("this is no host and port: did you mean \"{meant}\"?"),
                    None => wrong_type(),
                })
            }
            Kind::ProviderName => Ok(Val::Text(text()?.to_owned())),
            Kind::User => {
                let text = text()?;
                if text.is_empty() || text.contains('\0') {
                    return Err("the user name is empty or has a zero byte".into());
                }
                Ok(Val::Text(text.to_owned()))
            }
            Kind::ReadableFile => {
                let path = Path::new(file_name(text()?)?);
                source_file::read(path, MAX_PEM).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
                Ok(Val::Path(path.to_owned()))
            }
            Kind::Authorities => Authorities::load(Path::new(file_name(text()?)?)).map(Val::Authorities),
            Kind::Store => read_store(text()?).map(Val::Store),
            Kind::LogFilter => read_filter(text()?),
            Kind::Secret => read_secret(value),
            Kind::Networks => list(value, wrong_type, |s| s.parse()).map(Val::Networks),
            Kind::HostPatterns => list(value, wrong_type, host_pattern).map(Val::Patterns),
            Kind::MailPattern(null) => mail_pattern(text()?, null).map(Val::Pattern),
            Kind::MailAddress => {
                let text = text()?;
                let no_address = |_| format!("\"{text}\" is no address: expected {}", self.expected());
                mail_pattern(text, false).map(Val::Pattern).map_err(no_address)
            }
            Kind::Rates => match value.as_str() {
                Some(one) => Ok(Val::Rates(vec![one.parse()?])),
                None => list(value, wrong_type, |s| s.parse()).map(Val::Rates),
            },
            Kind::CountedRates(connections) => {
                let rates = match value.as_str() {
                    Some(one) => vec![one.parse::<CountedRate>()?],
                    None => list(value, wrong_type, |s| s.parse::<CountedRate>())?,
                };
                match rates.iter().find(|rate| rate.is_of_connections() && !connections) {
                    Some(rate) => Err(format!("`{rate}`: connections are not counted here: `rate` of a provider does")),
                    None => Ok(Val::CountedRates(rates)),
                }
            }
            Kind::Nameservers => list(value, wrong_type, |s| s.parse()).map(Val::Nameservers),
            Kind::Rate => text()?.parse().map(Val::Rate),
            Kind::Warmup => warmup::read(value).map(Val::Warmup),
            Kind::Enhanced => enhanced_pattern(text()?).map(Val::Pattern),
            Kind::ReplyText => reply_text(text()?).map(Val::Text),
            Kind::LanePattern => lane_pattern(text()?).map(Val::Pattern),
            Kind::Sources => source_keys::read(value).map(Val::Sources),
            Kind::Aliases => Aliases::read(value).map(Val::Aliases),
            Kind::AliasFile => {
                AliasFile::load(Path::new(file_name(text()?)?)).map(Val::AliasFile).map_err(|e| e.to_string())
            }
            Kind::OAuthService => Kind::Word(OAuthService::WORDS).read(value).map_err(|_| wrong_type()),
            Kind::Line => {
                let text = text()?;
                if text.is_empty() || text.len() > MAX_LINE || text.chars().any(char::is_control) {
                    return Err(format!("expected {} of at most {MAX_LINE} bytes", self.expected()));
                }
                Ok(Val::Text(text.to_owned()))
            }
            Kind::Endpoint => text()?.parse().map(Val::Endpoint),
            Kind::Day => warmup::day(value).map(Val::Day).ok_or_else(wrong_type),
            Kind::ClientCertificate => {
                ClientCertificate::load(Path::new(file_name(text()?)?)).map(Val::ClientCertificate)
            }
            Kind::TrustAnchor => TrustAnchor::load(Path::new(file_name(text()?)?)).map(Val::TrustAnchor),
            Kind::KeyFile => KeyFile::load(Path::new(file_name(text()?)?)).map(Val::KeyFile),
            Kind::ServiceAccount => ServiceAccount::load(Path::new(file_name(text()?)?)).map(Val::ServiceAccount),
            Kind::UserName => users::check_name(text()?).map(Val::Text),
            Kind::StoredPassword => match (value.as_str(), value.is_inline_table()) {
                (Some(hash), _) => StoredPassword::parse(hash, false).map(Val::StoredPassword),
                (None, true) => match read_secret(value)? {
                    Val::Secret { secret, .. } => {
                        let file = value.as_inline_table().and_then(|table| table.get("file")?.as_str());
                        file.map_or(Ok(()), |file| source_file::closed(Path::new(file)))?;
                        StoredPassword::parse(secret.reveal(), true).map(Val::StoredPassword)
                    }
                    _ => Err(wrong_type()),
                },
                (None, false) => Err(format!("expected {}", self.expected())),
            },
            Kind::MailPatterns => list(value, wrong_type, |s| mail_pattern(s, true)).map(Val::Patterns),
            Kind::UserFile => UserFile::load(Path::new(file_name(text()?)?)).map(Val::UserFile),
            Kind::DkimKey => DkimKey::load(Path::new(file_name(text()?)?)).map(Val::DkimKey),
            Kind::Selector => read_selector(text()?).map(Val::Text),
            Kind::Directory => {
                let text = text()?;
                if !Path::new(text).is_absolute() || text.contains('\0') {
                    return Err(format!("\"{text}\" does not start at /: expected {}", self.expected()));
                }
                Ok(Val::Path(text.into()))
            }
        }
    }
}

impl Val {
    /// As TOML; a secret becomes `<secret>`.
    pub(super) fn to_toml(&self) -> Value {
        fn texts<T: ToString>(items: &[T]) -> Value {
            Value::Array(items.iter().map(ToString::to_string).collect::<Array>())
        }
        match self {
            Val::Flag(b) => (*b).into(),
            Val::Word(w) => (*w).into(),
            Val::Int(n) => i64::try_from(*n).unwrap_or(i64::MAX).into(),
            Val::Signed(n) => (*n).into(),
            Val::Number(n) => (*n).into(),
            Val::Span(d) => Span(*d).to_string().into(),
            Val::Size(n) => Size(*n).to_string().into(),
            Val::Text(t) => t.into(),
            Val::Address(a) => a.to_string().into(),
            Val::ListenAddress(a) => a.to_string().into(),
            Val::FileMode(m) => m.to_string().into(),
            Val::HostPort(host, port) if host.contains(':') => format!("[{host}]:{port}").into(),
            Val::HostPort(host, port) => format!("{host}:{port}").into(),
            Val::Path(p) => p.display().to_string().into(),
            Val::Authorities(a) => a.path().display().to_string().into(),
            Val::Store(s) => s.to_string().into(),
            Val::Secret { .. } | Val::StoredPassword(_) => SHOWN.into(),
            Val::Networks(v) => texts(v),
            Val::Patterns(v) => texts(v),
            Val::Pattern(p) => p.as_str().into(),
            Val::Rates(v) => texts(v),
            Val::CountedRates(v) => texts(v),
            Val::Nameservers(v) => texts(v),
            Val::Rate(r) => r.to_string().into(),
            Val::Warmup(w) => w.to_toml(),
            Val::Sources(v) => source_keys::to_toml(v),
            Val::Aliases(a) => a.to_toml(),
            Val::AliasFile(f) => f.path().display().to_string().into(),
            Val::Endpoint(endpoint) => endpoint.to_string().into(),
            Val::Day(day) => day.day_text().into(),
            Val::ClientCertificate(file) => file.path.display().to_string().into(),
            Val::TrustAnchor(file) => file.path.display().to_string().into(),
            Val::KeyFile(file) => file.path.display().to_string().into(),
            Val::DkimKey(file) => file.path.display().to_string().into(),
            Val::ServiceAccount(file) => file.path.display().to_string().into(),
            Val::UserFile(file) => file.path().display().to_string().into(),
        }
    }
}

/// The candidate most like `text`, if any is near enough to be meant.
pub(crate) fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let text = text.to_lowercase();
    candidates
        .into_iter()
        .map(|c| (strsim::jaro_winkler(&text, c), c))
        .filter(|(score, _)| *score > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, c)| c)
}

/// Whether `text` is one of the candidates with a few mistakes. Only then may a message repeat what stands
/// where a name is expected: it may be a secret that lost its key (`hunter2 = "password"`).
pub(super) fn is_mistyped<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> bool {
    let text = text.to_lowercase();
    let most = if text.chars().count() < 5 { 1 } else { 2 };
    let begins = |c: &str| text.len() >= 3 && c.starts_with(&text);
    candidates.into_iter().any(|c| begins(c) || strsim::osa_distance(&text, c) <= most)
}

/// What a value is, for "found …": its type, and itself if it is short (never inside a secret).
pub(super) fn describe(value: &Value) -> String {
    let article = if value.type_name().starts_with(['a', 'i']) { "an" } else { "a" };
    match value {
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => {
            format!("the {} {}", value.type_name(), value.to_string().trim())
        }
        Value::String(s) if s.value().chars().count() <= 60 => format!("the string {:?}", s.value()),
        _ => format!("{article} {}", value.type_name()),
    }
}

/// Reads a list of strings; the error names the entry.
fn list<T>(
    value: &Value,
    wrong_type: impl Fn() -> String,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let array = value.as_array().ok_or_else(&wrong_type)?;
    if array.len() > MAX_LIST {
        return Err(format!("the list has {} entries, more than {MAX_LIST}", array.len()));
    }
    array.iter().map(|item| read(item.as_str().ok_or_else(&wrong_type)?)).collect()
}

fn read_filter(text: &str) -> Result<Val, String> {
    let level = |w: &str| ["error", "warn", "info", "debug", "trace", "off"].contains(&w.to_ascii_lowercase().as_str());
    // A bare word that is no level would be taken for a target, and switch everything else off.
    let words_fit = text.split(',').all(|part| part.contains('=') || level(part.trim()));
    let parses = tracing_subscriber::EnvFilter::builder().parse(text).is_ok();
    if words_fit && parses {
        return Ok(Val::Text(text.to_owned()));
    }
    let meant = match text.trim().to_ascii_lowercase().as_str() {
        "warning" => "; did you mean \"warn\"?",
        "verbose" | "all" => "; did you mean \"debug\"?",
        "notice" | "information" | "normal" => "; did you mean \"info\"?",
        "err" | "critical" | "crit" | "fatal" => "; did you mean \"error\"?",
        _ => "",
    };
    Err(format!("\"{text}\" is not a log filter: expected {}{meant}", Kind::LogFilter.expected()))
}
