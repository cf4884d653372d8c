//! `[[user]]` and the file of `users`: who may log in at listeners, and what each may do.
//!
//! Invariants: a name is there once, whatever the case of its letters; no name or password of a file that cannot
//! be used is in a message.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::client_identity::{ClientIdentity, comparable};
use super::fields::Field;
use super::file::{Draft, Reader};
use super::keys::{Key, Table, keys};
use super::password::{self, StoredPassword};
use super::source_file;
use super::units::Pattern;
use super::value::{Kind, nearest};
use crate::mail::{Address, Spellings};

/// Largest file of users, in bytes.
const MAX_FILE: u64 = 8 << 20;
/// Users at most.
const MAX_USERS: usize = 100_000;
/// Longest name of a user, in bytes.
pub(super) const MAX_NAME: usize = 128;
/// Faults of a file that are told.
const MAX_FAULTS: usize = 10;

/// One who may log in.
#[derive(Clone, Debug)]
pub struct User {
    /// The name, as the configuration spells it.
    pub name: Arc<str>,
    /// The password.
    pub password: StoredPassword,
    /// Reverse-paths that it may use; empty: any.
    pub senders: Vec<Pattern>,
    /// In bytes; 0: what the listener says.
    pub max_message_size: u64,
    /// It is a `[[user]]`, and not one of the file.
    pub in_table: bool,
    /// The provider that its mail goes through, whatever routes say.
    pub via: Option<Arc<str>>,
    /// The priority of its mail, whatever routes and clients say: -9 (last) to 9 (first).
    pub priority: Option<i8>,
    /// What its certificate has: a fingerprint or a name, as it is compared.
    pub certificate: Option<String>,
}

impl User {
    /// One of that name and password who may do what any client may.
    pub fn new(name: &str, password: StoredPassword) -> User {
        User {
            name: name.into(),
            password,
            senders: Vec::new(),
            max_message_size: 0,
            via: None,
            priority: None,
            certificate: None,
            in_table: false,
        }
    }

    /// Whether it may use this reverse-path; `None` is the null one.
    pub fn may_send_as(&self, sender: Option<&Address>) -> bool {
        let spellings = Spellings::of(sender);
        self.senders.is_empty() || self.senders.iter().any(|pattern| pattern.matches_mailbox(&spellings))
    }
}

/// All who may log in, and by which mechanisms.
#[derive(Clone, Default)]
pub struct Users {
    by_name: HashMap<String, Arc<User>>,
    /// Every one of them has what the mechanism needs.
    scram: bool,
    cram: bool,
    /// A check of which takes longest.
    slow: Option<Arc<User>>,
    /// By what their certificates have.
    by_certificate: HashMap<String, Arc<User>>,
    /// Somebody can log in by a password.
    passwords: bool,
    /// There may be more: what makes them was not looked up.
    unread: bool,
}

impl Users {
    /// These, of whom those after the first of the same name do not count.
    pub fn new(users: impl IntoIterator<Item = User>) -> Users {
        let mut all = Users::default();
        for user in users {
            all.by_name.entry(user.name.to_ascii_lowercase()).or_insert_with(|| Arc::new(user));
        }
        let every = |has: fn(&StoredPassword) -> bool| {
            let mut having = all.by_name.values().filter(|user| !user.password.is_never()).peekable();
            having.peek().is_some() && having.all(|u| has(&u.password))
        };
        (all.scram, all.cram) = (every(|p| p.scram_keys().is_some()), every(|p| p.clear().is_some()));
        all.passwords = all.by_name.values().any(|user| !user.password.is_never());
        let certified = all.by_name.values().filter_map(|user| Some((user.certificate.clone()?, user.clone())));
        all.by_certificate = certified.collect();
        all.slow = all.by_name.values().find(|user| user.password.is_slow()).cloned();
        all
    }

    /// Whether there may be more, in a file that a command had no need of.
    pub fn may_be_more(&self) -> bool {
        self.unread
    }

    /// Nobody.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// The user of that name, whatever the case of its letters.
    pub fn find(&self, name: &str) -> Option<&Arc<User>> {
        self.by_name.get(&name.to_ascii_lowercase())
    }

    /// The user whose certificate that is: by its fingerprint, else by the first of its names that is one's.
    pub fn by_certificate(&self, shown: &ClientIdentity) -> Option<&Arc<User>> {
        shown.forms().find_map(|form| self.by_certificate.get(form))
    }

    /// Whether somebody has a certificate.
    pub fn have_certificates(&self) -> bool {
        !self.by_certificate.is_empty()
    }

    /// Whether somebody has a password.
    pub fn have_passwords(&self) -> bool {
        self.passwords
    }

    /// Whether every user can log in by SCRAM-SHA-256: a client takes the best that is offered, and would fail
    /// with one who cannot.
    pub fn all_have_scram(&self) -> bool {
        self.scram
    }

    /// The same for CRAM-MD5.
    pub fn all_have_cram(&self) -> bool {
        self.cram
    }

    /// One whose password takes as long to check as any.
    pub fn slow(&self) -> Option<&Arc<User>> {
        self.slow.as_ref()
    }

    /// Each, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<User>> {
        self.by_name.values()
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names: Vec<&str> = self.by_name.values().map(|user| &*user.name).collect();
        names.sort_unstable();
        f.debug_tuple("Users").field(&names).finish()
    }
}

/// `[[user]]` as it was written.
pub(super) struct UserDraft {
    pub name: Option<String>,
    pub password: Option<StoredPassword>,
    pub senders: Vec<Pattern>,
    pub max_message_size: u64,
    pub via: Option<String>,
    pub priority: Option<i8>,
    pub certificate: Option<String>,
}

impl Table for UserDraft {
    const NAME: &'static str = "user";
    const KEYS: &'static [Key<UserDraft>] = keys! {
        /// The name to log in with. The case of ASCII letters does not matter.
        "name" name: Kind::UserName, example r#""shop""#;
        /// A hash that `mailweir passwd` has made; or `{ env = "NAME" }` or `{ file = "path" }` with one, or with the
        /// password itself (which CRAM-MD5 needs).
        "password" password: Kind::StoredPassword, example r#"{ file = "/etc/mailweir/shop.hash" }"#;
        /// What its client's certificate has, for listeners with `tls.client_ca`: the SHA-256 fingerprint, a name of it (host,
        /// mail address, URI, or common name), or the whole subject, such as "O=Shop, CN=printer". A user who has one needs no
        /// `password`.
        "certificate" certificate: Kind::Line, example r#""printer.shop.example""#;
        /// Senders (of the envelope) that it may use; others get 550 5.7.1. "<>" is the null sender of bounces, which
        /// must be named, too. Empty: any.
        "senders" senders: Kind::MailPatterns, default "[]";
        /// Largest message of this user, in bytes, if that is less than what the listener takes. 0: the same.
        "max_message_size" max_message_size: Kind::Size(0, 2 << 30), default r#""0""#;
        /// The provider that all mail of this user goes through, whatever `[[route]]` says.
        "via" via: Kind::ProviderName, example r#""ses""#;
        /// The priority of its mail, whatever `[[route]]` and the client say: the greater number goes first.
        "priority" priority: Kind::Signed(-9, 9), example "-5";
    };

    fn blank() -> UserDraft {
        UserDraft {
            name: None,
            password: None,
            senders: Vec::new(),
            max_message_size: 0,
            via: None,
            priority: None,
            certificate: None,
        }
    }
}

/// `users`: a file of names and hashes.
#[derive(Clone, Debug)]
pub(super) struct UserFile {
    path: PathBuf,
    entries: Arc<[(String, StoredPassword)]>,
}

impl UserFile {
    /// Reads a file of lines `NAME:HASH`.
    ///
    /// # Errors
    /// It cannot be read, others may read it, or a line is none; nothing of the lines is repeated.
    pub fn load(path: &Path) -> Result<UserFile, String> {
        let shown = path.display();
        let cannot = |e: &dyn fmt::Display| format!("cannot read {shown}: {e}");
        let bytes = source_file::read(path, MAX_FILE).map_err(|e| cannot(&e))?;
        source_file::closed(path)?;
        let text = source_file::text(&bytes).map_err(|what| format!("{shown} {what}"))?;
        let (mut entries, mut faults) = (Vec::new(), Vec::new());
        for (n, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match entry(line) {
                Ok(entry) => entries.push(entry),
                Err(message) => faults.push(format!("line {}: {message}", n + 1)),
            }
        }
        if faults.is_empty() && entries.len() <= MAX_USERS {
            return Ok(UserFile { path: path.to_owned(), entries: entries.into() });
        }
        if entries.len() > MAX_USERS {
            faults.push(format!("there are more than {MAX_USERS} users"));
        }
        let more = faults.len().saturating_sub(MAX_FAULTS);
        faults.truncate(MAX_FAULTS);
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        Err(format!("{shown}: {}{more}", faults.join("; ")))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn entry(line: &str) -> Result<(String, StoredPassword), String> {
    let expected = "a hash that `mailweir passwd` has made";
    let (name, hash) = line.split_once(':').ok_or(format!("expected NAME:HASH, with {expected}"))?;
    // Nothing but a hash can stand in a line.
    let hash = StoredPassword::parse(hash.trim(), false).map_err(|why| why.replace(password::EXPECTED, expected))?;
    Ok((check_name(name.trim())?, hash))
}

/// A name that can stand in a line of a file and of the log.
pub(super) fn check_name(name: &str) -> Result<String, String> {
    let fits = |c: char| !c.is_control() && !c.is_whitespace() && c != ':';
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(fits) {
        return Err(format!("this is no name of a user: expected at most {MAX_NAME} bytes without spaces and colons"));
    }
    Ok(name.to_owned())
}

/// Puts the tables and the file together. Faults go to `reader`.
pub(super) fn assemble(reader: &mut Reader<'_>, drafts: &[UserDraft], file: Option<&UserFile>) -> Users {
    let (mut users, mut known): (Vec<User>, HashMap<String, usize>) = (Vec::new(), HashMap::new());
    for (i, draft) in drafts.iter().enumerate() {
        let path = format!("user[{}]", i + 1);
        let certified = reader.has(&format!("{path}.certificate"));
        for (key, missing) in [("name", draft.name.is_none()), ("password", draft.password.is_none() && !certified)] {
            if missing && !reader.has(&format!("{path}.{key}")) {
                reader.fault(&path, format!("`{key}` is missing"));
            }
        }
        let certificate = draft.certificate.as_deref().map(comparable);
        let password = match (&draft.password, &certificate) {
            (Some(password), _) => password.clone(),
            (None, Some(_)) if !reader.has(&format!("{path}.password")) => StoredPassword::never(),
            // A command that has no need of it still knows who there is.
            _ if reader.unread(&format!("{path}.password")).is_some() => StoredPassword::never(),
            _ => continue,
        };
        let Some(name) = &draft.name else { continue };
        if let Some(certificate) = &certificate
            && let Some(other) = users.iter().find(|user| user.certificate.as_ref() == Some(certificate))
        {
            reader.fault(&format!("{path}.certificate"), format!("is already that of the user \"{}\"", other.name));
        }
        if let Some(j) = known.insert(name.to_ascii_lowercase(), i) {
            reader.fault(&format!("{path}.name"), format!("is already that of user[{}]", j + 1));
        }
        let (senders, max_message_size) = (draft.senders.clone(), draft.max_message_size);
        let via = draft.via.as_deref().map(Arc::from);
        let user = User::new(name, password);
        users.push(User {
            senders,
            max_message_size,
            via,
            priority: draft.priority,
            certificate,
            in_table: true,
            ..user
        });
    }
    let mut in_file = HashMap::new();
    for (name, password) in file.into_iter().flat_map(|file| file.entries.iter()) {
        let key = name.to_ascii_lowercase();
        let twice = match known.get(&key) {
            Some(j) => Some(format!("in user[{}], too", j + 1)),
            None => in_file.insert(key, ()).map(|()| "twice".to_owned()),
        };
        if let Some(twice) = twice {
            reader.fault("users", format!("the name `{name}` is there {twice}"));
        }
        users.push(User::new(name, password.clone()));
    }
    Users { unread: reader.unread("users").is_some(), ..Users::new(users) }
}

/// Whether the users that routes and limits name are there. Faults go to `reader`.
pub(super) fn check_named(reader: &mut Reader<'_>, users: &Users, draft: &Draft) {
    // One that could not be read may be meant.
    if reader.lacks("user") {
        return;
    }
    fn named<'d, T>(
        table: &'static str,
        all: &'d [T],
        user: fn(&T) -> &Option<String>,
    ) -> impl Iterator<Item = (String, &'d Option<String>)> {
        all.iter().enumerate().map(move |(i, one)| (format!("{table}[{}].user", i + 1), user(one)))
    }
    let of_routes = named("route", &draft.routes, |route| &route.when.user);
    let of_limits = named("limit", &draft.limits, |limit| &limit.user);
    let of_rewrites = named("rewrite", &draft.rewrites, |rewrite| &rewrite.user);
    let of_copies = named("copy", &draft.copies, |copy| &copy.user);
    for (path, name) in of_routes.chain(of_limits).chain(of_rewrites).chain(of_copies) {
        let Some(name) = name.as_ref().filter(|name| users.find(name).is_none()) else { continue };
        let hint = match nearest(name, users.iter().map(|user| &*user.name)) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => "expected the `name` of a [[user]], or one of `users`".to_owned(),
        };
        reader.fault(&path, format!("there is no user \"{name}\": {hint}"));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn file(text: &str, mode: u32) -> Result<UserFile, String> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("users");
        std::fs::write(&path, text).expect("a file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("a mode");
        UserFile::load(&path)
    }

    #[test]
    fn a_file_of_users_is_read_and_what_is_wrong_in_it_is_told_by_its_line() {
        let hash = StoredPassword::scram("x").expect("keys");
        let good = file(&format!("# users\n\nshop:{hash}\n jo@x.example : {hash}\r\n"), 0o640).expect("good");
        let names: Vec<&str> = good.entries.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["shop", "jo@x.example"]);
        let told = file(&format!("shop:hunter2\nsh op:{hash}\nhunter2\n"), 0o600).expect_err("faults");
        assert!(told.contains("line 1: ") && told.contains("line 2: ") && told.contains("line 3: "), "{told}");
        assert!(!told.contains("hunter2") && !told.contains("env ="), "{told}");
        let marked = file(&format!("\u{feff}shop:{hash}\r\n"), 0o600).expect("an editor's mark is no part of a name");
        assert_eq!(marked.entries[0].0, "shop");
    }

    #[test]
    fn a_file_that_others_may_read_or_change_is_refused() {
        for mode in [0o644, 0o660, 0o604, 0o602] {
            let told = file("", mode).expect_err("refused");
            assert!(told.contains(&format!("mode {mode:04o}")) && told.contains("0640"), "{told}");
        }
        assert!(file("", 0o400).is_ok_and(|f| f.entries.is_empty()));
    }

    #[test]
    fn a_mechanism_is_there_when_all_have_what_it_needs() {
        let user = |name: &str, text: &str| User::new(name, StoredPassword::parse(text, true).expect("good"));
        let (hash, scram) = (StoredPassword::hash("x").expect("a hash"), StoredPassword::scram("x").expect("keys"));
        let all = |texts: &[&str]| {
            let users = Users::new(texts.iter().enumerate().map(|(n, text)| user(&n.to_string(), text)));
            (users.all_have_scram(), users.all_have_cram(), users.slow().is_some())
        };
        assert_eq!(all(&[&hash]), (false, false, true));
        assert_eq!(all(&[&scram, "clear"]), (true, false, false));
        assert_eq!(all(&["clear", "clearer"]), (true, true, false));
        assert_eq!(all(&["clear", &hash]), (false, false, true));
        assert_eq!(all(&[]), (false, false, false));
        let users = Users::new([user("Jo", "one"), user("jo", "two")]);
        assert!(users.len() == 1 && users.find("JO").is_some_and(|u| u.password.is("one")));
    }
}
