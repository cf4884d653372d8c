//! A key that stands where it is not known, but is known elsewhere: below another header, above all of them, or
//! in another program.

use std::collections::BTreeSet;

use super::foreign::meant_by;
use crate::config::report::key_names;

/// The tables of a file, as they are written; those with the keys of `[provider.NAME]` among them.
fn header(table: &str) -> Option<&'static str> {
    Some(match table {
        "listener" => "[[listener]]",
        "queue" => "[queue]",
        "retry" => "[retry]",
        "dns" => "[dns]",
        "provider" => "[default] and [provider.NAME]",
        "on_reply" => "[[provider.NAME.on_reply]]",
        "route" => "[[route]]",
        "limit" => "[[limit]]",
        "user" => "[[user]]",
        "rewrite" => "[[rewrite]]",
        "copy" => "[[copy]]",
        "dkim" => "[[dkim]]",
        "admin" => "[admin]",
        "sandbox" => "[sandbox]",
        "tls_report" => "[tls_report]",
        "sendmail" => "[sendmail]",
        "log" => "[log]",
        _ => return None,
    })
}

/// `tls` is the beginning of `tls.mode`.
fn is_or_begins(key: &str, name: &str) -> bool {
    key.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Keys that stand above all tables.
fn of_no_table() -> impl Iterator<Item = String> {
    key_names().into_iter().filter(|name| name.split_once('.').is_none_or(|(table, _)| header(table).is_none()))
}

/// The table in a table in which a key stands, if there is one.
fn within(name: &str, here: &str) -> Option<String> {
    let of_provider = if here == "default" { "provider" } else { here };
    let inner = |known: &String| {
        let (outer, last) = known.strip_prefix(of_provider)?.strip_prefix('.')?.rsplit_once('.')?;
        (last == name && !outer.contains('.')).then(|| outer.to_owned())
    };
    let found: BTreeSet<String> = key_names().iter().filter_map(inner).collect();
    // Of several nobody knows which was meant.
    if found.len() == 1 { found.into_iter().next() } else { None }
}

/// Where a key `name` belongs that the table `here` (empty: none) does not have; `first` is the line of the first
/// header of the file.
pub(in crate::config) fn elsewhere(
    name: &str,
    here: &str,
    is_table: bool,
    first: Option<(usize, String)>,
) -> Option<String> {
    if !here.is_empty() && of_no_table().any(|known| known == name) {
        let above = first.map_or(String::new(), |(line, header)| format!(", {header} in line {line}"));
        return Some(format!("`{name}` belongs to no table: expected its line above the first header{above}"));
    }
    if let Some(outer) = within(name, here) {
        return Some(format!(
            "`{name}` stands in `{outer}`: expected {outer} = {{ {name} = … }}, or {outer}.{name} = …"
        ));
    }
    let tables: Vec<&str> = key_names()
        .iter()
        .filter_map(|known| {
            known.split_once('.').filter(|(_, key)| is_or_begins(key, name)).and_then(|(table, _)| header(table))
        })
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    if !here.is_empty() && (header(name).is_some() || name == "default") {
        return Some(format!(
            "`{name}` is a table of its own: expected its keys below its header, or `{name}.KEY = …` above the first header of the file"
        ));
    }
    let here_is = header(here).unwrap_or("this table");
    match tables.as_slice() {
        tables if is_table && !tables.is_empty() => {
            Some(format!("`{name}` is a key of {}: expected {name} = {{ … }} below such a header", tables.join(", ")))
        }
        [] => {
            let meant = meant_by(name)?;
            Some(format!("`{name}` is no key of mailweir: here that is {meant}"))
        }
        tables if here.is_empty() => {
            Some(format!("`{name}` is a key of {}: expected it below such a header", tables.join(", ")))
        }
        tables => Some(format!("`{name}` is a key of {}, not of {here_is}", tables.join(", "))),
    }
}
