//! A key or a table that no declaration names: what was meant.

use toml_edit::Item;

use super::keys::{ProviderDraft, Table};
use super::profiles;
use super::value::{Kind, is_mistyped, nearest};

/// `[provider.example.net]` is a table `net` in `[provider.example]`: what was meant, if such a table has no header of
/// its own.
pub(super) fn dotted_name(name: &str, item: &Item) -> Option<String> {
    let is_known = |key: &str| {
        let first = |known: &super::keys::Key<ProviderDraft>| known.name.split('.').next() == Some(key);
        ProviderDraft::KEYS.iter().any(first) || ["retry", "on_reply"].contains(&key)
    };
    let mut whole = name.to_owned();
    let mut table = item.as_table()?;
    while table.is_implicit() {
        let mut parts = table.iter().filter(|(_, item)| item.is_table());
        let Some((key, inner)) = parts.next().filter(|(key, _)| !is_known(key)) else { break };
        whole = format!("{whole}.{key}");
        table = inner.as_table()?;
    }
    (whole != name).then(|| {
        format!(
            "a dot in a header begins a table in the table: expected [provider.\"{whole}\"], in quotes, for a provider of that \
             name, which `match` leads to, or its keys below [provider.{name}]"
        )
    })
}

/// The message about a key that no declaration names, and whether the key may be repeated.
pub(super) fn unknown<T: Table>(name: &str, prefix: &str, item: &Item) -> (String, bool) {
    let root = T::NAME.is_empty();
    if root && item.is_table_like() && profiles::all().iter().any(|profile| profile.name() == name) {
        return (format!("unknown table: did you mean [provider.{name}]?"), true);
    }
    let mut known: Vec<&str> = T::KEYS.iter().filter_map(|k| k.name.strip_prefix(prefix)).collect();
    known.iter_mut().for_each(|k| *k = k.split('.').next().unwrap_or(k));
    known.dedup();
    if T::blank().retry("retry").is_some() && prefix.is_empty() {
        known.push("retry");
    }
    if T::blank().rules("on_reply").is_some() && prefix.is_empty() {
        known.push("on_reply");
    }
    if root {
        known.extend([
            "listener",
            "user",
            "queue",
            "retry",
            "dns",
            "default",
            "provider",
            "route",
            "limit",
            "rewrite",
            "copy",
            "dkim",
            "sandbox",
            "srs",
            "tls_report",
            "sendmail",
            "admin",
            "log",
        ]);
    }
    // `password_file` beside `user`, as others have it.
    let from = [("_file", "file = \"PATH\""), ("_env", "env = \"NAME\"")];
    let secret = from.iter().find_map(|(end, from)| {
        let stem = name.strip_suffix(end)?;
        let is_secret = |key: &&super::keys::Key<T>| {
            key.name.strip_prefix(prefix) == Some(stem) && matches!(key.kind, Kind::Secret | Kind::StoredPassword)
        };
        T::KEYS.iter().find(is_secret).map(|_| format!("unknown key: expected {stem} = {{ {from} }}"))
    });
    if let Some(message) = secret {
        return (message, true);
    }
    // What only resembles a table is none of them.
    let near = nearest(name, known.iter().copied())
        .filter(|near| !root || !item.is_table_like() || is_mistyped(name, [*near]));
    let message = match near {
        None if root && item.is_table_like() => {
            format!("unknown table: expected [provider.NAME] for a provider, or one of {}", known.join(", "))
        }
        Some(near) => format!("unknown key: did you mean `{near}`?"),
        None => format!("unknown key: expected one of {}", known.join(", ")),
    };
    // What is a key elsewhere is none of anybody's secrets.
    let elsewhere = ProviderDraft::KEYS.iter().flat_map(|k| k.name.split('.')).any(|part| part == name);
    (message, elsewhere || is_mistyped(name, known))
}
