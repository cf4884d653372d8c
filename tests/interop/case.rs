//! A program of the table: what it needs, how it is run, and what must be seen.

use std::path::{Path, PathBuf};

use toml_edit::{Array, DocumentMut, Item, Table};

/// What a program is to mailweir.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// It hands over a message by SMTP and tells its user how that went.
    Client,
    /// It runs /usr/sbin/sendmail, which is mailweir.
    Sendmail,
    /// A mail server, or a small relay with a queue of its own, that sends everything to mailweir.
    Relay,
    /// A mail server that mailweir delivers to.
    Server,
}

impl Role {
    /// The word in a case's file and in the table.
    pub fn word(self) -> &'static str {
        match self {
            Role::Client => "client",
            Role::Sendmail => "sendmail",
            Role::Relay => "relay",
            Role::Server => "server",
        }
    }
}

/// What is to be seen in what arrives, beyond "to every recipient". The words of the key `shows`.
pub const SIGHTS: [&str; 9] =
    ["from", "to", "subject", "text", "dots", "from line", "long line", "attachment", "blind"];

/// Over what a client logs in. The words of the key `logins`.
pub const WAYS: [&str; 3] = ["clear", "starttls", "implicit"];

/// How a program tells that a message was not taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Told {
    /// It exits with this code.
    Code(i32),
    /// It says this, whatever it exits with.
    Says(String),
    /// It keeps the message, and sends it later.
    Kept,
    /// There is nothing to try, and this is why.
    Not(String),
}

/// One program.
#[derive(Clone, Debug)]
pub struct Case {
    /// The name of its file without the extension.
    pub slug: String,
    /// The program.
    pub name: String,
    pub role: Role,
    /// Debian packages; unpacked beside the system where it lacks them.
    pub packages: Vec<String>,
    /// Packages of the npm registry.
    pub npm: Vec<String>,
    /// Packages of PyPI.
    pub pip: Vec<String>,
    /// A line of the shell that prints the version first.
    pub version: String,
    /// The command, in `tests/interop/programs`; its last argument will be the task.
    pub run: Vec<String>,
    /// Some of [`SIGHTS`].
    pub shows: Vec<String>,
    /// How a refused recipient is told.
    pub refused: Told,
    /// How it is told that nobody listens.
    pub down: Told,
    /// It goes on until it is ended: it has arrived when it has arrived.
    pub stays: bool,
    /// Further keys of the provider of a server: how mailweir is to speak to it.
    pub provider: Vec<(String, String)>,
    /// How it logs in: some of [`WAYS`].
    pub logins: Vec<String>,
    /// What a reader of the table should know.
    pub note: String,
}

/// The directory of the harness.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop")
}

/// All programs, in the order of roles and names.
pub fn all() -> Vec<Case> {
    let mut cases: Vec<Case> = std::fs::read_dir(folder().join("cases"))
        .expect("the directory of cases")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .map(|path| read(&path))
        .collect();
    let order = [Role::Client, Role::Sendmail, Role::Relay, Role::Server];
    cases.sort_by_key(|case| (order.iter().position(|role| *role == case.role), case.name.to_lowercase()));
    cases
}

fn read(path: &Path) -> Case {
    const KEYS: &str = "name role packages npm pip version run shows refused down stays provider logins note";
    let text = std::fs::read_to_string(path).expect("a case");
    let document: DocumentMut = text.parse().unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    for (key, _) in document.iter() {
        assert!(KEYS.split(' ').any(|known| known == key), "{}: what is {key}?", path.display());
    }
    let text = |key: &str| document.get(key).and_then(Item::as_str).unwrap_or_default().to_owned();
    let list = |key: &str| document.get(key).and_then(Item::as_array).map(words).unwrap_or_default();
    let role = match text("role").as_str() {
        "client" => Role::Client,
        "sendmail" => Role::Sendmail,
        "relay" => Role::Relay,
        "server" => Role::Server,
        other => panic!("{}: no role is called `{other}`", path.display()),
    };
    let shows = if document.contains_key("shows") { list("shows") } else { SIGHTS.map(str::to_owned).to_vec() };
    for word in &shows {
        assert!(SIGHTS.contains(&word.as_str()), "{}: nothing is called `{word}`", path.display());
    }
    let logins = list("logins");
    assert!(logins.iter().all(|way| WAYS.contains(&way.as_str())), "{}: logins are of {WAYS:?}", path.display());
    Case {
        logins,
        slug: path.file_stem().and_then(|s| s.to_str()).expect("a name").to_owned(),
        name: text("name"),
        role,
        packages: list("packages"),
        npm: list("npm"),
        pip: list("pip"),
        version: text("version"),
        run: list("run"),
        shows,
        refused: told(document.get("refused"), path),
        down: told(document.get("down"), path),
        stays: document.get("stays").and_then(Item::as_bool).unwrap_or_default(),
        provider: document.get("provider").and_then(Item::as_table).map(pairs).unwrap_or_default(),
        note: text("note"),
    }
}

fn words(array: &Array) -> Vec<String> {
    array.iter().map(|word| word.as_str().expect("text").to_owned()).collect()
}

fn pairs(table: &Table) -> Vec<(String, String)> {
    table.iter().map(|(key, value)| (key.to_owned(), value.to_string().trim().to_owned())).collect()
}

/// A number, `"kept"`, `{ says = "…" }` or `{ not = "why" }`.
fn told(item: Option<&Item>, path: &Path) -> Told {
    let wrong = || panic!("{}: refused and down are a code, \"kept\", {{ says }} or {{ not }}", path.display());
    let Some(item) = item else { wrong() };
    if let Some(code) = item.as_integer() {
        return Told::Code(i32::try_from(code).unwrap_or_else(|_| wrong()));
    }
    if item.as_str() == Some("kept") {
        return Told::Kept;
    }
    let word = |key: &str| item.get(key).and_then(Item::as_str).map(str::to_owned);
    match (word("says"), word("not")) {
        (Some(says), None) => Told::Says(says),
        (None, Some(why)) => Told::Not(why),
        _ => wrong(),
    }
}
