//! A secret as the configuration has it: itself, or where it is (`{ env = }`, `{ file = }`).
//!
//! Invariants: no message repeats what was found there, nor what may be the secret itself in a wrong place.

use std::path::Path;

use toml_edit::Value;
use zeroize::Zeroizing;

use super::file_path::{file_name, shown_file};
use super::secret::SHOWN;
use super::value::{Kind, Val};
use super::{Secret, source_file};

/// Longest secret, in bytes: tokens have some thousands.
const MAX_SECRET: u64 = 4096;

/// Reads a secret from where the value says. No message repeats what was found there, nor what may be
/// the secret itself in a wrong place.
pub(super) fn read_secret(value: &Value) -> Result<Val, String> {
    let done = |secret: &str, literal| {
        if secret.is_empty() {
            return Err("the secret is empty".to_owned());
        }
        if secret.len() as u64 > MAX_SECRET {
            return Err(format!("the secret has {} bytes: expected at most {MAX_SECRET}", secret.len()));
        }
        if secret.starts_with('\u{feff}') {
            return Err("the secret begins with a byte order mark: expected the file without one (\"UTF-8\", not \"UTF-8 with BOM\")".to_owned());
        }
        // Nobody has typed them: they come from an editor, a shell or a copy, and make the password a wrong one.
        let control = secret.char_indices().find(|(_, c)| c.is_control());
        if let Some((at, c)) = control {
            let what = if matches!(c, '\r' | '\n') { "a line end" } else { "a control character" };
            return Err(format!("the secret has {what} behind its first {at} bytes: expected one line of text"));
        }
        if secret == SHOWN {
            return Err(format!(
                "`{SHOWN}` is what `check --all` prints in place of a secret: expected the secret itself, or {{ env = \"NAME\" }} or \
                 {{ file = \"path\" }}"
            ));
        }
        Ok(Val::Secret { secret: Secret::new(secret.to_owned()), literal })
    };
    if let Some(literal) = value.as_str() {
        if let Some(from) = names_a_place(literal) {
            return Err(format!(
                "this would be the secret itself, and seems to say where it is: expected {{ {from} }} (a secret that does \
                 look like this stands in a file: {{ file = \"path\" }})"
            ));
        }
        if names_a_variable(literal) {
            return Err("the secret has the form of a variable, and none is put in its place here: expected { env = \"NAME\" } \
                        (a secret that does look like this stands in a file: { file = \"path\" })"
                .to_owned());
        }
        return done(literal, true);
    }
    let expected = || format!("expected {}", Kind::Secret.expected());
    if value.as_inline_table().is_some_and(|table| table.len() > 1) {
        return Err("there is one place of a secret: expected { env = \"NAME\" } or { file = \"path\" }, with nothing beside it".into());
    }
    let table = value.as_inline_table().filter(|t| t.len() == 1).ok_or_else(expected)?;
    let (from, what) = table.iter().next().ok_or_else(expected)?;
    let what = what.as_str().ok_or_else(expected)?;
    match from {
        "env" if names_a_variable(what) => {
            let name: String = what.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            Err(format!("a variable is named without its marks here: expected {{ env = \"{name}\" }}"))
        }
        "env" => match std::env::var(what) {
            Ok(secret) => done(without_line_end(&secret), false),
            Err(std::env::VarError::NotPresent) => Err(format!("{} is not set", shown_variable(what))),
            Err(std::env::VarError::NotUnicode(_)) => Err(format!("{} is not UTF-8", shown_variable(what))),
        },
        "file" => {
            let failed = |e: &dyn std::fmt::Display| format!("cannot read {}: {e}", shown_file(what));
            let path = Path::new(file_name(what)?);
            let bytes =
                Zeroizing::new(source_file::read(path, MAX_SECRET + 2).map_err(|e| match path.is_relative() {
                    true => failed(&e) + " (without a / at its beginning it is looked for in the working directory)",
                    false => failed(&e),
                })?);
            let secret = std::str::from_utf8(&bytes).map_err(|_| failed(&"it is not UTF-8 text"))?;
            done(without_line_end(secret), false)
        }
        _ => Err(format!("that key is not known here: {}", expected())),
    }
}

/// `file:/path` and `env:NAME`, as other programs have them, or the full path of a file that is there: what to write.
fn names_a_place(text: &str) -> Option<&'static str> {
    let behind = |prefix: &str| text.strip_prefix(prefix).filter(|rest| !rest.is_empty());
    let is_name = |name: &str| name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_' || b.is_ascii_digit());
    if behind("file:").is_some_and(|path| path.contains('/')) || (text.starts_with('/') && Path::new(text).is_file()) {
        return Some("file = \"PATH\"");
    }
    behind("env:").is_some_and(is_name).then_some("env = \"NAME\"")
}

/// `$NAME`, `${NAME}` or `%(NAME)s`, as shells and other programs have them.
fn names_a_variable(text: &str) -> bool {
    let inner = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')).or_else(|| text.strip_prefix('$'));
    let inner = inner.or_else(|| text.strip_prefix("%(")?.strip_suffix(")s"));
    let fits = |b: u8| b.is_ascii_uppercase() || b == b'_' || b.is_ascii_digit();
    inner.is_some_and(|name| name.len() > 2 && name.bytes().all(fits) && name.bytes().any(|b| b.is_ascii_uppercase()))
}

/// One line end at the end is the editor's, or that of `$(cat FILE)`.
fn without_line_end(secret: &str) -> &str {
    let secret = secret.strip_suffix('\n').unwrap_or(secret);
    secret.strip_suffix('\r').unwrap_or(secret)
}

/// `{ env = "hunter2" }` is a mistake to point at, not to repeat.
fn shown_variable(name: &str) -> String {
    if !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_' || b.is_ascii_digit()) {
        format!("the environment variable {name}")
    } else {
        "the environment variable of that name".to_owned()
    }
}
