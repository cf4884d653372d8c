//! Reads `config.toml`: every value is checked against its declaration in `keys`, and every fault
//! is reported, not only the first, each with file, line, column and the key's full path.
//!
//! Nothing is ignored: a key that is not known, or that this version does not keep, is a fault.
//! What only shows when values are compared is in `check`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml_edit::{Document, Item, TableLike, Value};

use super::dkim::DkimDraft;
use super::elsewhere::Elsewhere;
use super::keys::{Admin, ProviderDraft, RouteDraft, Table, Top, UNSUPPORTED};
use super::listener_keys::ListenerDraft;
use super::mistakes::{self, Excerpts};
use super::oauth::OAuthService;
use super::problem::{ConfigError, Problem, readable};
use super::profiles;
use super::rewrite::{CopyDraft, RewriteDraft};
use super::rule_keys::RuleDraft;
use super::sandbox::SandboxDraft;
use super::source_file;
use super::srs::SrsDraft;
use super::tls_report::TlsReportDraft;
use super::unknown_key::{dotted_name, unknown};
use super::users::UserDraft;
use super::value::{Kind, Val, describe, is_mistyped};
use super::{Dns, Limit, Log, Queue, Retry, Sendmail, secret::without_users};

/// Largest file read, in bytes.
pub(super) const MAX_FILE: u64 = 16 << 20;

/// Faults reported at most.
const MAX_PROBLEMS: usize = 100;

/// The values of a file, each in its range, not yet compared with one another.
pub(super) struct Draft {
    pub top: Top,
    pub listeners: Vec<ListenerDraft>,
    pub users: Vec<UserDraft>,
    pub queue: Queue,
    pub retry: Retry,
    pub dns: Dns,
    pub default: ProviderDraft,
    pub providers: Vec<ProviderDraft>,
    pub routes: Vec<RouteDraft>,
    pub limits: Vec<Limit>,
    pub rewrites: Vec<RewriteDraft>,
    pub copies: Vec<CopyDraft>,
    pub dkim: Vec<DkimDraft>,
    pub admin: Admin,
    pub sandbox: SandboxDraft,
    pub srs: SrsDraft,
    pub tls_report: TlsReportDraft,
    pub sendmail: Sendmail,
    pub log: Log,
}

impl Draft {
    /// Whether a route or a user sends mail through the provider of this name.
    pub fn is_via(&self, name: &str) -> bool {
        let of_users = self.users.iter().filter_map(|user| user.via.as_deref());
        self.routes.iter().map(|route| route.via.as_str()).chain(of_users).any(|via| via == name)
    }
}

/// The text, and what was found in it so far.
pub(super) struct Reader<'a> {
    pub origin: &'a str,
    text: &'a str,
    excerpts: Excerpts<'a>,
    /// This is the file of built-in profiles itself.
    built_in: bool,
    /// Whether what it names elsewhere is read.
    elsewhere: Elsewhere,
    /// Path of a key whose value was not looked up → what to show of it.
    unread: BTreeMap<String, Value>,
    /// Path of every key and table in the file → where it stands.
    places: BTreeMap<String, Range<usize>>,
    pub problems: Vec<Problem>,
    pub warnings: Vec<Problem>,
}

/// Reads the text of a file that was named, or found at its default place.
pub(super) fn read_file(path: &Path) -> Result<String, ConfigError> {
    let bytes =
        source_file::read(path, MAX_FILE).map_err(|e| ConfigError::about_file(path, format!("cannot read it: {e}")))?;
    String::from_utf8(bytes).map_err(|e| {
        let found = mistakes::not_utf8(e.as_bytes(), e.utf8_error().valid_up_to());
        let excerpt = Excerpts::new(&found.text).of(&found.span);
        let problem =
            Problem { line: found.line, column: found.column, message: found.message, excerpt, ..Problem::default() };
        ConfigError { origin: path.display().to_string(), problems: vec![problem] }
    })
}

/// The file to read: the one that was named, else `config.toml` in the working directory if there
/// is one, else none. One that is there and cannot be read, such as a link that leads nowhere, is
/// taken: reading it tells why.
pub fn find(named: Option<&Path>) -> Option<PathBuf> {
    let there = |path: &PathBuf| !path.symlink_metadata().is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound);
    match named {
        Some(path) => Some(path.to_owned()),
        None => Some(PathBuf::from("config.toml")).filter(there),
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str, origin: &'a str) -> Reader<'a> {
        let excerpts = Excerpts::new(text);
        Reader {
            origin,
            text,
            excerpts,
            built_in: false,
            elsewhere: Elsewhere::Read,
            unread: BTreeMap::new(),
            places: BTreeMap::new(),
            problems: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// The same with less of what the text names elsewhere.
    pub(super) fn with(self, elsewhere: Elsewhere) -> Reader<'a> {
        Reader { elsewhere, ..self }
    }

    /// For the file of built-in profiles, which has keys of its own and builds on no profile.
    pub(super) fn built_in(text: &'a str, origin: &'a str) -> Reader<'a> {
        Reader { built_in: true, ..Reader::new(text, origin) }
    }

    /// Reads everything; faults go to `problems`.
    pub(super) fn read(&mut self) -> Draft {
        let mut draft = Draft {
            top: Top::defaults(),
            listeners: Vec::new(),
            users: Vec::new(),
            queue: Queue::defaults(),
            retry: Retry::defaults(),
            dns: Dns::defaults(),
            default: ProviderDraft::defaults(),
            providers: Vec::new(),
            routes: Vec::new(),
            limits: Vec::new(),
            rewrites: Vec::new(),
            copies: Vec::new(),
            dkim: Vec::new(),
            admin: Admin::defaults(),
            sandbox: SandboxDraft::defaults(),
            srs: SrsDraft::defaults(),
            tls_report: TlsReportDraft::defaults(),
            sendmail: Sendmail::defaults(),
            log: Log::defaults(),
        };
        match Document::parse(self.text) {
            Ok(document) => self.read_root(document.as_table(), &mut draft),
            Err(e) => {
                let meant = mistakes::meant(self.text, e.span(), e.message());
                self.problem(Some(meant.span), String::new(), meant.message);
            }
        }
        draft
    }

    fn read_root(&mut self, root: &toml_edit::Table, draft: &mut Draft) {
        // What others build on comes first: whether there are profiles, [retry], then [default], then
        // the providers.
        draft.top.builtin_profiles =
            !self.built_in && root.get("builtin_profiles").and_then(Item::as_bool).unwrap_or(true);
        if let Some(table) = self.table(root, "retry") {
            self.read_table(table, "retry", "", &mut draft.retry);
        }
        draft.default.p.name = "default".into();
        draft.default.p.retry = draft.retry;
        if let Some(table) = self.table(root, "default") {
            self.read_table(table, "default", "", &mut draft.default);
        }
        for (name, item) in root.iter() {
            let key_span = root.key(name).and_then(|k| k.span());
            self.place(name, key_span.clone());
            match name {
                "retry" | "default" => {}
                "queue" => self.read_whole(root, name, &mut draft.queue),
                "dns" => self.read_whole(root, name, &mut draft.dns),
                "sandbox" => self.read_whole(root, name, &mut draft.sandbox),
                "srs" => self.read_whole(root, name, &mut draft.srs),
                "tls_report" => self.read_whole(root, name, &mut draft.tls_report),
                "sendmail" => self.read_whole(root, name, &mut draft.sendmail),
                "admin" => self.read_whole(root, name, &mut draft.admin),
                "log" => self.read_whole(root, name, &mut draft.log),
                "listener" => self.read_each(name, item, &mut draft.listeners),
                "user" => self.read_each(name, item, &mut draft.users),
                "route" => self.read_each(name, item, &mut draft.routes),
                "limit" => self.read_each(name, item, &mut draft.limits),
                "rewrite" => self.read_each(name, item, &mut draft.rewrites),
                "copy" => self.read_each(name, item, &mut draft.copies),
                "dkim" => self.read_each(name, item, &mut draft.dkim),
                "provider" => {
                    if let Some(table) = self.table(root, name) {
                        self.read_providers(table, draft);
                    }
                }
                _ => self.read_entry(name, item, key_span, "", "", &mut draft.top),
            }
        }
        if draft.top.builtin_profiles {
            for profile in profiles::all().iter().filter(|p| !p.is_for_smart_hosts()) {
                if !self.has(&format!("provider.{}", profile.name())) {
                    let mut provider = from_default(&draft.default, profile.name());
                    profile.apply(&mut provider);
                    draft.providers.push(provider);
                }
            }
        }
    }

    fn read_whole<T: Table>(&mut self, root: &toml_edit::Table, name: &str, into: &mut T) {
        if let Some(table) = self.table(root, name) {
            self.read_table(table, name, "", into);
        }
    }

    /// Each `[[NAME]]`, in their order.
    fn read_each<T: Table>(&mut self, name: &str, item: &Item, into: &mut Vec<T>) {
        for (path, table) in self.tables(name, item) {
            let mut one = T::defaults();
            self.read_table(table, &path, "", &mut one);
            into.push(one);
        }
    }

    fn read_providers(&mut self, table: &dyn TableLike, draft: &mut Draft) {
        for (name, item) in table.iter() {
            let path = format!("provider.{name}");
            let span = table.key(name).and_then(|k| k.span());
            self.place(&path, span.clone());
            let Some(inner) = item.as_table_like() else {
                let message = match item {
                    Item::ArrayOfTables(_) => {
                        format!("there is one of each provider: expected [{path}], found [[{path}]]")
                    }
                    _ => format!(
                        "expected a table [provider.NAME] with the limits of the provider NAME, found {}",
                        found(item)
                    ),
                };
                self.problem(span, path, message);
                continue;
            };
            let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || b == b'.';
            if name.is_empty() || name.len() > 64 || !name.bytes().all(fits) {
                let joined = name.split_whitespace().collect::<Vec<_>>().join("-");
                let meant = if name.contains(' ') && joined.bytes().all(fits) {
                    format!(", such as [provider.{joined}]")
                } else {
                    String::new()
                };
                let message =
                    format!("is not a name of a provider: expected at most 64 letters, digits, -, _ and .{meant}");
                self.problem(span, path, message);
                continue;
            }
            if let Some(message) = dotted_name(name, item) {
                self.problem(span, path, message);
                continue;
            }
            if name == "default" {
                self.problem(
                    span,
                    path,
                    "the name is taken: expected [default] for destinations without a provider".into(),
                );
                continue;
            }
            let mut provider = from_default(&draft.default, name);
            let relay = inner.get("relay").and_then(Item::as_str).and_then(|r| r.rsplit_once(':'));
            if let Some(profile) =
                draft.top.builtin_profiles.then(|| profiles::for_provider(name, relay.map(|r| r.0))).flatten()
            {
                profile.apply(&mut provider);
            }
            self.read_table(inner, &path, "", &mut provider);
            if provider.relay.is_some() && !self.has(&format!("{path}.tls")) {
                provider.tls = None;
            }
            draft.providers.push(provider);
        }
    }

    /// Reads the entries of a table (or of the inner table `prefix` of one).
    fn read_table<T: Table>(&mut self, table: &dyn TableLike, path: &str, prefix: &str, into: &mut T) {
        for (name, item) in table.iter() {
            let span = table.key(name).and_then(|k| k.span());
            self.read_entry(name, item, span, path, prefix, into);
        }
    }

    fn read_entry<T: Table>(
        &mut self,
        name: &str,
        item: &Item,
        key_span: Option<Range<usize>>,
        table: &str,
        prefix: &str,
        into: &mut T,
    ) {
        let local = format!("{prefix}{name}");
        let path = if table.is_empty() { local.clone() } else { format!("{table}.{local}") };
        self.place(&path, item.span().filter(|_| !item.is_table_like()).or(key_span.clone()));
        let inner = format!("{local}.");
        let built_in = if self.built_in { T::BUILT_IN_KEYS } else { &[] };
        if let Some(key) = T::KEYS.iter().chain(built_in).find(|k| k.name == local) {
            self.place(&path, item.span().or(key_span.clone()));
            // `oauth = { token_url = … }` says in a table what may stand beside it as well.
            let inner = item.as_table_like().filter(|_| matches!(key.kind, Kind::OAuthService));
            if let Some(table_of_it) = inner {
                let _ = (key.set)(into, Val::Word(OAuthService::Other.as_str()));
                return self.read_table(table_of_it, table, prefix, into);
            }
            let value = item.as_value().cloned().or_else(|| item.clone().into_value().ok());
            if let Some(shown) = value.as_ref().and_then(|value| self.elsewhere.shown_unread(key.kind, value)) {
                self.unread.insert(path, shown);
                return;
            }
            let read = match &value {
                Some(value) => key.kind.read(value),
                None => Err(format!("expected {}", key.kind.expected())),
            };
            let literal = matches!(read, Ok(Val::Secret { literal: true, .. }));
            match read.and_then(|value| (key.set)(into, value)) {
                Ok(()) if literal => {
                    let message =
                        "the secret stands in the file: { env = \"NAME\" } or { file = \"path\" } keeps it out of it";
                    self.warn(&path, message.into());
                }
                Ok(()) if matches!(key.kind, Kind::Secret) => {
                    // Others may read the password, which mail does not have to wait for.
                    let file = value.as_ref().and_then(|value| value.as_inline_table()?.get("file")?.as_str());
                    if let Some(Err(message)) = file.map(|file| source_file::closed(Path::new(file))) {
                        self.warn(&path, message);
                    }
                }
                Ok(()) => {}
                Err(message) => {
                    let dotted = item.as_table_like().is_some_and(TableLike::is_dotted);
                    let why = if dotted { format!("; the dot behind `{name}` makes one of it") } else { String::new() };
                    self.problem(item.span().or(key_span), path, message + &why);
                }
            }
        } else if T::KEYS.iter().any(|k| k.name.starts_with(&inner)) {
            match item.as_table_like() {
                Some(inner_table) => self.read_table(inner_table, table, &inner, into),
                None => {
                    // `auth = "user:password"` is a mistake to name, not to repeat.
                    let secret = T::KEYS.iter().any(|k| k.name.starts_with(&inner) && matches!(k.kind, Kind::Secret));
                    let what = if secret { item.type_name().to_owned() } else { found(item) };
                    // The first ones say what it is about.
                    let keys = T::KEYS.iter().filter_map(|k| Some((k.name.strip_prefix(&inner)?, k.example)));
                    let keys: Vec<String> = keys
                        .take(if secret { 2 } else { 3 })
                        .map(|(key, example)| format!("{key} = {}", if example.is_empty() { "…" } else { example }))
                        .collect();
                    let message = format!("expected a table such as {{ {} }}, found {}", keys.join(", "), what);
                    self.problem(item.span().or(key_span), path, message);
                }
            }
        } else if into.rules(&local).is_some() {
            let rules = self.read_rules(&path, item);
            into.rules(&local).into_iter().for_each(|list| list.clone_from(&rules));
        } else if let Some(retry) = into.retry(&local) {
            match item.as_table_like() {
                Some(inner_table) => self.read_table(inner_table, &path, "", retry),
                None => {
                    let message = format!("expected a table such as {{ first = \"5m\" }}, found {}", found(item));
                    self.problem(item.span().or(key_span), path, message);
                }
            }
        } else if let Some((_, _, what)) = UNSUPPORTED.iter().find(|(t, k, _)| *t == T::NAME && *k == local) {
            self.problem(key_span, path, format!("not supported by this version: {what}"));
        } else {
            if let Some(message) = mistakes::other_word(name, T::NAME).filter(|_| prefix.is_empty()) {
                return self.problem(key_span, path, message);
            }
            let near = is_mistyped(name, T::KEYS.iter().filter_map(|key| key.name.split('.').next()));
            let elsewhere = (prefix.is_empty() && !near)
                .then(|| mistakes::elsewhere(name, T::NAME, item.is_table_like(), self.excerpts.first_header()));
            let (message, named) = match elsewhere.flatten() {
                Some(message) => (message, true),
                None => unknown::<T>(name, prefix, item),
            };
            let around = path.strip_suffix(name).unwrap_or_default();
            let unnamed = format!("{around}…");
            self.problem(key_span, if named { path } else { unnamed }, message);
        }
    }

    fn read_rules(&mut self, path: &str, item: &Item) -> Vec<RuleDraft> {
        let mut rules = Vec::new();
        for (path, table) in self.tables(path, item) {
            let mut rule = RuleDraft::defaults();
            self.read_table(table, &path, "", &mut rule);
            let line = self.line(&path).unwrap_or(0);
            if self.built_in {
                let whose = path.strip_prefix("provider.").and_then(|p| p.split_once(".on_reply"));
                rule.origin = format!("built-in {}", whose.map_or("rules", |(name, _)| name));
                rule.source = self.comment(line);
            } else {
                rule.origin = format!("{}:{line}", self.origin);
            }
            rule.path = path;
            rules.push(rule);
        }
        rules
    }

    /// The comment at the end of a line, up to a semicolon; empty if there is none.
    pub(super) fn comment(&self, line: usize) -> String {
        let text = line.checked_sub(1).and_then(|n| self.text.lines().nth(n)).unwrap_or_default();
        let comment = text.rsplit_once("# ").map_or("", |(_, comment)| comment);
        comment.split(';').next().unwrap_or_default().trim().to_owned()
    }

    /// The table `name` of the root, if it is there and is one.
    fn table<'t>(&mut self, root: &'t toml_edit::Table, name: &str) -> Option<&'t dyn TableLike> {
        let item = root.get(name)?;
        let table = item.as_table_like();
        if table.is_none() {
            let span = root.key(name).and_then(|k| k.span());
            let found = if item.is_array_of_tables() { format!("[[{name}]]") } else { found(item) };
            self.problem(span, name.into(), format!("expected a table [{name}], found {found}"));
        }
        table
    }

    /// The tables of `[[name]]`, also written as a list of inline tables, with their paths.
    fn tables<'t>(&mut self, name: &str, item: &'t Item) -> Vec<(String, &'t dyn TableLike)> {
        let entries: Vec<Entry<'t>> = match item {
            Item::ArrayOfTables(array) => array.iter().map(|t| (t.span(), Ok(t as &dyn TableLike))).collect(),
            Item::Value(Value::Array(array)) => {
                let table = |v: &'t Value| v.as_inline_table().map(|t| t as &dyn TableLike).ok_or_else(|| describe(v));
                array.iter().map(|v| (v.span(), table(v))).collect()
            }
            other => vec![(other.span(), Err(found(other)))],
        };
        let mut tables = Vec::new();
        for (i, (span, entry)) in entries.into_iter().enumerate() {
            let path = format!("{name}[{}]", i + 1);
            self.place(&path, span.clone());
            match entry {
                Ok(table) => tables.push((path, table)),
                Err(_) if name == "user" && item.is_str() => {
                    let message = "as whom it runs is said in what starts it, such as User= of systemd (docs/operations.md); \
                                   one who may log in is a table [[user]]";
                    self.problem(span, name.to_owned(), message.into());
                }
                Err(found) => {
                    let message = format!("there may be several of these: expected [[{name}]], found {found}");
                    self.problem(span, name.to_owned(), message);
                }
            }
        }
        tables
    }

    fn place(&mut self, path: &str, span: Option<Range<usize>>) {
        if let Some(span) = span {
            self.places.insert(path.to_owned(), span);
        }
    }

    /// Whether the file has this key or table.
    pub(super) fn has(&self, path: &str) -> bool {
        self.places.contains_key(path)
    }

    /// A key that begins so could not be read, which is told already, or was not looked up: what depends on it is
    /// not known.
    pub(super) fn lacks(&self, begin: &str) -> bool {
        let is_it = |key: &String| key.starts_with(begin);
        self.problems.iter().any(|problem| is_it(&problem.key)) || self.unread.keys().any(is_it)
    }

    /// What to show of the value of this key, which was not looked up.
    pub(super) fn unread(&self, path: &str) -> Option<&Value> {
        self.unread.get(path)
    }

    /// The line of a key or table that the file has.
    pub(super) fn line(&self, path: &str) -> Option<usize> {
        self.places.get(path).map(|span| self.position(span.start).0)
    }

    /// Notes a fault at the place of `path` (or of the nearest table around it that is in the file),
    /// unless that key has one already: the second would only follow from the first.
    pub(super) fn fault(&mut self, path: &str, message: String) {
        if self.problems.iter().any(|p| p.key == path) {
            return;
        }
        let span = self.nearest_place(path);
        self.problem(span, path.to_owned(), message);
    }

    /// Notes a warning at the place of `path`.
    pub(super) fn warn(&mut self, path: &str, message: String) {
        let span = self.nearest_place(path);
        let warning = self.about(span, path.to_owned(), &message);
        self.warnings.push(warning);
    }

    fn nearest_place(&self, path: &str) -> Option<Range<usize>> {
        let mut path = path;
        loop {
            if let Some(span) = self.places.get(path) {
                return Some(span.clone());
            }
            path = path.rsplit_once('.')?.0;
        }
    }

    fn problem(&mut self, span: Option<Range<usize>>, key: String, message: String) {
        if self.problems.len() < MAX_PROBLEMS {
            let problem = self.about(span, without_users(&key), &message);
            self.problems.push(problem);
        }
    }

    fn about(&self, span: Option<Range<usize>>, key: String, message: &str) -> Problem {
        let (line, column) = span.as_ref().map_or((0, 0), |s| self.position(s.start));
        let excerpt = span.map(|span| self.excerpts.of(&span)).unwrap_or_default();
        Problem { line, column, key: readable(&key), message: readable(&without_users(message)), excerpt }
    }

    /// Line and column (in characters) of a byte of the text, from 1.
    fn position(&self, byte: usize) -> (usize, usize) {
        let before = self.text.get(..byte).unwrap_or(self.text);
        let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        (line, column)
    }
}

/// A provider starts from [default], except for the rules, which come after its own.
fn from_default(default: &ProviderDraft, name: &str) -> ProviderDraft {
    let mut provider = default.clone();
    provider.p.name = name.to_owned();
    provider.rules.clear();
    provider
}

/// Where an entry of a list of tables stands, and its table or what it is instead.
type Entry<'t> = (Option<Range<usize>>, Result<&'t dyn TableLike, String>);

/// What stands there instead of what was expected.
fn found(item: &Item) -> String {
    match item {
        Item::Value(value) => describe(value),
        Item::ArrayOfTables(_) => "a list of tables".into(),
        _ => "a table".into(),
    }
}
