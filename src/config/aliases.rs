//! Aliases: the table `[aliases]`, and files in the form of /etc/aliases (aliases(5)).
//!
//! A file has an entry a line, `name: target, target`; lines that begin with white space go on with
//! the entry before, `#` begins a comment line, names and targets may stand in quotes. What can be
//! said there and not be done by a relay (commands, files, `:include:`) is a fault with its line.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use toml_edit::{InlineTable, Value};

use super::file::{Draft, Reader};
use super::source_file;
use super::value::describe;
use crate::mail::LocalNames;
use crate::mail::local::{Target, check_local};

/// Largest file read, in bytes.
const MAX_FILE: u64 = 16 << 20;
/// Faults of a file that are told.
const MAX_FAULTS: usize = 10;

/// Names in lower case, and what they lead to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Aliases(BTreeMap<String, Vec<Target>>);

/// A file of aliases, read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AliasFile {
    path: PathBuf,
    aliases: Aliases,
}

/// What is wrong with a file of aliases.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AliasFault {
    path: PathBuf,
    /// Line from 1, or 0; and what is wrong with it.
    faults: Vec<(usize, String)>,
}

impl fmt::Display for AliasFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (line, message)) in self.faults.iter().take(MAX_FAULTS).enumerate() {
            let gap = if i > 0 { "; " } else { "" };
            write!(f, "{gap}{}", self.path.display())?;
            if *line > 0 {
                write!(f, ":{line}")?;
            }
            write!(f, ": {message}")?;
        }
        match self.faults.len().saturating_sub(MAX_FAULTS) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

impl std::error::Error for AliasFault {}

impl Aliases {
    /// Reads the table `[aliases]`.
    pub(super) fn read(value: &Value) -> Result<Aliases, String> {
        let expected = "expected a name and an address, as in root = \"jo@example.com\", or a list of them";
        let file = value.as_str().filter(|text| text.contains('/'));
        let file = file.map(|path| {
            let path = path.rsplit_once(':').map_or(path, |(_, path)| path);
            format!("; for a file, alias_file = \"{path}\"")
        });
        let not = || format!("{expected}; found {}{}", describe(value), file.clone().unwrap_or_default());
        let table = value.as_inline_table().ok_or_else(not)?;
        let mut aliases = Aliases::default();
        for (name, value) in table {
            let texts: Option<Vec<&str>> = match value {
                Value::String(text) => Some(vec![text.value()]),
                Value::Array(list) => list.iter().map(Value::as_str).collect(),
                _ => None,
            };
            let texts = texts.ok_or_else(|| format!("`{name}`: {expected}; found {}", describe(value)))?;
            let targets = texts.into_iter().map(Target::parse).collect::<Result<Vec<_>, _>>();
            aliases.add(name, targets.map_err(|e| format!("`{name}`: {e}"))?)?;
        }
        Ok(aliases)
    }

    fn add(&mut self, name: &str, targets: Vec<Target>) -> Result<(), String> {
        if name.contains('@') && !name.starts_with('"') {
            return Err(format!("`{name}` has a domain: aliases are for local names"));
        }
        check_local(name).map_err(|e| format!("`{name}`: {e}"))?;
        if targets.is_empty() {
            return Err(format!("`{name}` leads nowhere: expected at least one address"));
        }
        match self.0.insert(name.to_lowercase(), targets) {
            None => Ok(()),
            Some(_) => Err(format!("`{name}` is there twice")),
        }
    }

    /// As TOML.
    pub(super) fn to_toml(&self) -> Value {
        let mut table = InlineTable::new();
        for (name, targets) in &self.0 {
            let texts: Vec<String> = targets.iter().map(ToString::to_string).collect();
            let value = match texts.as_slice() {
                [one] => Value::from(one.as_str()),
                many => Value::Array(many.iter().map(String::as_str).collect()),
            };
            table.insert(name.as_str(), value);
        }
        Value::InlineTable(table)
    }
}

impl AliasFile {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or has entries that cannot be followed: all of them.
    pub fn load(path: &Path) -> Result<AliasFile, AliasFault> {
        let failed = |line: usize, message: String| AliasFault { path: path.to_owned(), faults: vec![(line, message)] };
        let cannot = |e: std::io::Error| failed(0, format!("cannot read it: {e}"));
        // A pipe without a writer would keep us for ever.
        if !std::fs::metadata(path).map_err(cannot)?.is_file() {
            return Err(failed(0, "is not a file".into()));
        }
        let mut bytes = Vec::new();
        std::fs::File::open(path).and_then(|f| f.take(MAX_FILE + 1).read_to_end(&mut bytes)).map_err(cannot)?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(failed(0, format!("has more than {MAX_FILE} bytes")));
        }
        let text = source_file::text(&bytes).map_err(|what| failed(0, what.into()))?;
        match parse(text) {
            Ok(aliases) => Ok(AliasFile { path: path.to_owned(), aliases }),
            Err(faults) => Err(AliasFault { path: path.to_owned(), faults }),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many names it has.
    pub fn len(&self) -> usize {
        self.aliases.0.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.aliases.0.is_empty()
    }

    /// Looks whether its names lead to an end.
    ///
    /// # Errors
    /// A loop, or too many targets.
    pub fn check(&self, names: LocalNames) -> Result<(), AliasFault> {
        let fault = |(name, message)| (0, format!("`{name}` {message}"));
        names
            .with_aliases(&self.aliases.0)
            .map(|_| ())
            .map_err(|faults| AliasFault { path: self.path.clone(), faults: faults.into_iter().map(fault).collect() })
    }
}

/// The entries of a file, or what is wrong with which lines.
fn parse(text: &str) -> Result<Aliases, Vec<(usize, String)>> {
    let (mut aliases, mut faults) = (Aliases::default(), Vec::new());
    // Where each entry begins, and all of it.
    let mut entries: Vec<(usize, String)> = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let content = line.trim();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        match entries.last_mut() {
            Some((_, entry)) if line.starts_with([' ', '\t']) => {
                entry.push(' ');
                entry.push_str(content);
            }
            _ => entries.push((i + 1, content.to_owned())),
        }
    }
    for (line, entry) in entries {
        if let Err(message) = read_entry(&entry, &mut aliases) {
            faults.push((line, message));
        }
    }
    if faults.is_empty() { Ok(aliases) } else { Err(faults) }
}

fn read_entry(entry: &str, into: &mut Aliases) -> Result<(), String> {
    let expected = "expected a line such as `root: jo@example.com`";
    let (name, rest) = match entry.strip_prefix('"') {
        Some(quoted) => {
            let (name, rest) = quoted.split_once('"').ok_or_else(|| format!("quotes do not close: {expected}"))?;
            // A name that needs its quotes is the local part of an address with them.
            let name = if check_local(name).is_ok() { name.to_owned() } else { format!("\"{name}\"") };
            (name, rest.trim_start().strip_prefix(':'))
        }
        None => {
            let (name, rest) = entry.split_once(':').ok_or_else(|| expected.to_owned())?;
            (name.trim().to_owned(), Some(rest))
        }
    };
    let rest = rest.ok_or_else(|| expected.to_owned())?;
    let targets = split(rest)?.iter().map(|t| Target::parse(t)).collect::<Result<Vec<_>, _>>();
    into.add(&name, targets.map_err(|e| e.to_string())?)
}

/// The parts between commas that stand outside quotes, without white space around.
fn split(list: &str) -> Result<Vec<&str>, String> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (i, c) in list.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' if !quoted => {
                parts.push(list[start..i].trim());
                start = i + 1;
            }
            _ => {}
        }
    }
    if quoted {
        return Err("quotes do not close".into());
    }
    parts.push(list[start..].trim());
    parts.retain(|part| !part.is_empty());
    Ok(parts)
}

/// What names without a domain stand for, from all keys that say so. Faults go to `reader`.
pub(super) fn names(reader: &mut Reader<'_>, draft: &Draft, hostname: &str) -> LocalNames {
    let domain = draft.top.default_domain.as_deref().unwrap_or(hostname);
    let names = LocalNames::new(hostname, domain);
    let mut all = draft.top.alias_file.as_ref().map(|file| file.aliases.0.clone()).unwrap_or_default();
    // What the configuration says itself comes first.
    all.extend(draft.top.aliases.iter().flat_map(|aliases| aliases.0.clone()));
    let named = names.clone().with_aliases(&all).unwrap_or_else(|faults| {
        for (name, message) in faults.into_iter().take(MAX_FAULTS) {
            let own = draft.top.aliases.as_ref().is_some_and(|aliases| aliases.0.contains_key(&name));
            let key = if own { "aliases" } else { "alias_file" };
            reader.fault(key, format!("`{name}` {message}"));
        }
        names
    });
    if let Some(least) = draft.listeners.iter().map(|l| l.l.max_recipients).min()
        && named.most_targets() > least
    {
        let message = format!(
            "an alias leads to {} addresses, more than max_recipients of a listener, {least}: nobody could send to it",
            named.most_targets()
        );
        let key = if draft.top.aliases.is_some() { "aliases" } else { "alias_file" };
        reader.fault(key, message);
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> String {
        let faults = parse(text).expect_err(text);
        faults.iter().map(|(line, message)| format!("{line}: {message}")).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn the_form_of_etc_aliases() {
        let text = "# See man 5 aliases for format\n\npostmaster:    root\nroot: jo@example.com,\n\tann@example.com,\n  # why\n  \
                    \"o'hara, pat\"@example.com\n\"odd name\" : \\root\r\nWWW-data:root,  \"info@example.com\"\nlast : x@y.example";
        let aliases = parse(text).expect("good aliases");
        let shown = |name: &str| aliases.0.get(name).map(|t| t.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(aliases.0.len(), 5);
        assert_eq!(shown("postmaster"), Some(vec!["root".into()]));
        let root = ["jo@example.com", "ann@example.com", "\"o'hara, pat\"@example.com"];
        assert_eq!(shown("root"), Some(root.map(str::to_owned).to_vec()));
        assert_eq!(shown("\"odd name\""), Some(vec!["\\root".into()]));
        assert_eq!(shown("www-data"), Some(vec!["root".into(), "info@example.com".into()]));
        assert_eq!(shown("last"), Some(vec!["x@y.example".into()]));
        assert!(parse("").is_ok_and(|a| a.0.is_empty()));
    }

    #[test]
    fn every_fault_has_its_line() {
        for (text, message) in [
            ("root jo@x.example", "1: expected a line such as"),
            ("\n\nroot:", "3: `root` leads nowhere"),
            ("root: jo@x.example\nROOT: ann@x.example", "2: `ROOT` is there twice"),
            ("a@b: c@d", "1: `a@b` has a domain"),
            ("x: \"|/bin/true\"\ny: /dev/null\nz: :include:/etc/l", "1: `|/bin/true` is a command"),
            ("x: |/bin/true\n y", "1: `|/bin/true y` is a command"),
            ("\"a: c@d", "1: quotes do not close"),
            ("a: \"c@d", "1: quotes do not close"),
            ("a: c d", "1: `c d`: the local part"),
        ] {
            let told = told(text);
            assert!(told.starts_with(message), "{text:?}: {told}");
        }
        assert_eq!(told("x: |a\ny: /b\nz: :include:c").matches("a relay delivers to addresses only").count(), 3);
    }

    #[test]
    fn a_pipe_or_a_directory_is_no_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let error = AliasFile::load(dir.path()).expect_err("a directory").to_string();
        assert!(error.ends_with("is not a file"), "{error}");
        let error = AliasFile::load(&dir.path().join("none")).expect_err("nothing").to_string();
        assert!(error.contains("cannot read it: No such file"), "{error}");
    }
}
