//! Where the queue of a file that cannot be taken is, as far as the file can be read: commands have to find the
//! relay that runs with an earlier version of it.

use toml_edit::{Document, Item};

use super::Store;
use super::names::read_store;

/// The value of `[queue] store` in a text that may be no TOML, or have mistakes anywhere; `None` if none is to be
/// found.
pub(super) fn store_in(text: &str) -> Option<Store> {
    if let Ok(document) = Document::parse(text) {
        let store = document.as_table().get("queue").and_then(|queue| queue.as_table_like()?.get("store"));
        return read_store(store.and_then(Item::as_str)?).ok();
    }
    let mut table = "";
    let mut found = None;
    for line in text.lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[') {
            table = header.trim_start_matches('[').split([']', '#']).next().unwrap_or_default().trim();
            continue;
        }
        let Some((name, value)) = line.split_once('=') else { continue };
        let value = match (table, name.trim()) {
            ("queue", "store") | ("", "queue.store") => value,
            ("", "queue") => value.split("store").nth(1)?.split_once('=')?.1,
            _ => continue,
        };
        found = read_store(bare(value)).ok().or(found);
    }
    found
}

/// A value without its quotes, whatever they are, and without what follows.
fn bare(value: &str) -> &str {
    let value = value.trim();
    let quoted = value.trim_start_matches(|c: char| !c.is_alphanumeric());
    let end = match quoted.len() == value.len() {
        true => quoted.find(|c: char| c.is_whitespace() || c == '#'),
        false => quoted.find(['"', '\'', '\u{201d}', '\u{201c}', '\u{2019}', '`', '\u{bb}']),
    };
    quoted.get(..end.unwrap_or(quoted.len())).unwrap_or(quoted).trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_found_in_what_can_be_read_of_a_file() {
        let found = |text: &str| store_in(text).map(|store| store.to_string());
        for text in [
            "[queue]\nstore = \"sqlite:/x/q.db\"\n[default]\nrate = 5\n",
            "[queue]\nstore = \"sqlite:/x/q.db\"\n[default]\nrate = 30/m\n",
            "hostname = a\n[ queue ] # ours\n  store='sqlite:/x/q.db' # here\n[log\n",
            "[queue]\nstore = \u{201c}sqlite:/x/q.db\u{201d}\n",
            "[queue]\nstore = sqlite:/x/q.db # without quotes\n",
            "queue.store = \"sqlite:/x/q.db\"\nhostname = a\n",
            "queue = { memory = 5, store = \"sqlite:/x/q.db\" }\nhostname = a\n",
            "[queue]\nstore = \"sqlite:/x/q.db\n",
        ] {
            assert_eq!(found(text).as_deref(), Some("sqlite:/x/q.db"), "{text}");
        }
        for text in ["", "[log]\nstore = \"sqlite:/x/q.db\"\nx = a\n", "[queue]\nstore = 5\nx = a\n", "[queue]\n"] {
            assert_eq!(found(text), None, "{text}");
        }
    }
}
