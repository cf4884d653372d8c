//! Keys that a page names are keys of the configuration: its TOML is read by the program's own reader, and
//! what stands in a sentence as `[table] key`, `table.key` or `key = value` is looked up.

use std::collections::BTreeSet;

use mailweir::config::{Config, report};

use super::pages::{Page, pages};

/// What a piece of a configuration may be a piece of.
const WHOLES: &[&str] = &[
    "",
    "[provider.piece]\nmatch = { domains = [\"piece.example\"] }\n",
    "[provider.piece]\nrelay = \"smtp.piece.example:587\"\n[[route]]\nvia = \"piece\"\n[provider.piece.retry]\n",
    "[[listener]]\n",
    "[queue]\n",
    "[retry]\n",
    "[dns]\n",
    "[admin]\n",
    "[sendmail]\n",
    "[log]\n",
];

/// Faults of a piece that are none of the whole: its files and variables are elsewhere, and so are the routes.
const ELSEWHERE: &[&str] = &["cannot read", "No such file", "is not set", "nothing ever goes there"];

/// What is wrong with a piece of a configuration in the place where it fits best; empty if nothing is.
fn faults(text: &str) -> Vec<String> {
    let tries = WHOLES.iter().flat_map(|whole| {
        // A piece without a table of its own may also be the inner part of a smart host.
        let smart = "[[route]]\nvia = \"piece\"\n[provider.piece]\nrelay = \"smtp.piece.example:587\"\n";
        [format!("{whole}{text}"), format!("{smart}{text}")]
    });
    let read = |text: String| match Config::parse(&text, "page") {
        Ok(_) => Vec::new(),
        Err(e) => {
            let own = e.problems.iter().filter(|p| !ELSEWHERE.iter().any(|m| p.message.contains(m)));
            own.map(|p| format!("{}: {}", p.key, p.message)).collect()
        }
    };
    let all: Vec<Vec<String>> = tries.map(read).collect();
    if all.iter().any(Vec::is_empty) { Vec::new() } else { all.into_iter().next().unwrap_or_default() }
}

#[test]
fn every_piece_of_a_configuration_on_a_page_is_read_by_the_program() {
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for page in pages() {
        for fence in page.fences().into_iter().filter(|fence| fence.language == "toml") {
            seen += 1;
            let found = faults(&fence.text);
            if !found.is_empty() {
                wrong.push(format!("{}:{}: {}", page.name(), fence.line, found.join("; ")));
            }
        }
    }
    assert!(wrong.is_empty(), "these would be refused:\n{}", wrong.join("\n"));
    assert!(seen > 15, "only {seen} pieces");
}

/// The key that a code span names, as [`report::key_names`] calls it; `None` if it names none.
fn named(text: &str, tables: &BTreeSet<&str>) -> Option<String> {
    let is_key = |key: &str| !key.is_empty() && key.chars().all(|c| c.is_ascii_lowercase() || "_.".contains(c));
    if let Some((table, key)) = text.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        let table = table.trim_start_matches('[').trim_end_matches(']');
        let table = if table.starts_with("provider.") || table == "default" { "provider" } else { table };
        let key = key.split(' ').next().unwrap_or_default();
        return (tables.contains(table) && is_key(key)).then(|| format!("{table}.{key}"));
    }
    let key = text.split(" = ").next().unwrap_or_default();
    let (table, _) = key.split_once('.')?;
    // `queue.md` is a page.
    (tables.contains(table) && is_key(key) && !key.ends_with(".md")).then(|| key.to_owned())
}

fn unknown_keys(page: &Page, names: &BTreeSet<String>, seen: &mut usize) -> Vec<String> {
    let tables: BTreeSet<&str> = names.iter().filter_map(|name| name.split_once('.')).map(|(table, _)| table).collect();
    let mut inner: BTreeSet<&str> =
        names.iter().map(|name| name.split_once('.').map_or(name.as_str(), |(_, key)| key)).collect();
    // In a table of its own, `tls.required` is `required`.
    inner.extend(names.iter().filter_map(|name| name.rsplit('.').next()));
    let mut wrong = Vec::new();
    for span in page.spans() {
        let place = format!("{}:{}: {}", page.name(), span.line, span.text);
        if let Some(key) = named(&span.text, &tables) {
            *seen += 1;
            // `provider.piece.rate` and `[provider.gmail] rate` speak of one provider.
            if key != PLANNED && !names.contains(&key) && !names.iter().any(|name| name.starts_with(&format!("{key}.")))
            {
                wrong.push(place);
            }
        } else if let Some((key, value)) = span.text.split_once(" = ") {
            let plain = key.chars().all(|c| c.is_ascii_lowercase() || "_.".contains(c));
            let toml = value.starts_with(['"', '[', '{', '…'])
                || value.parse::<f64>().is_ok()
                || ["true", "false"].contains(&value);
            let group = inner.iter().any(|name| name.starts_with(&format!("{key}.")));
            *seen += 1;
            if plain && toml && !inner.contains(key) && !group && !OTHER_KEYS.contains(&key) {
                wrong.push(place);
            }
        }
    }
    wrong
}

/// A key that is refused because it has no effect yet, and is named for that.
const PLANNED: &str = "listener.quota";

/// Keys within values, and one of Postfix.
const OTHER_KEYS: &[&str] = &[
    "retry",
    "name",
    "weight",
    "start",
    "end",
    "overflow",
    "before",
    "until",
    "default_destination_concurrency_limit",
];

#[test]
fn every_key_that_a_page_names_is_one_of_the_configuration() {
    let names: BTreeSet<String> = report::key_names().into_iter().collect();
    let mut seen = 0;
    let wrong: Vec<String> = pages().iter().flat_map(|page| unknown_keys(page, &names, &mut seen)).collect();
    assert!(wrong.is_empty(), "no such keys:\n{}", wrong.join("\n"));
    assert!(seen > 40, "only {seen} keys");
}

#[test]
fn what_the_configuration_lacks_is_found() {
    assert!(faults("rate = \"20/s\"\n").is_empty(), "a piece of a provider");
    assert!(faults("store = \"sqlite:/var/lib/q.db\"\n").is_empty(), "a piece of [queue]");
    assert!(!faults("[provider.a]\nmatch = { domains = [\"a.example\"] }\nraet = \"20/s\"\n").is_empty());
    assert!(!faults("[provider.a]\nmatch = { domains = [\"a.example\"] }\nrate = \"20 a second\"\n").is_empty());
    let planned = faults("[[listener]]\nquota = \"1/s\"\n").join(";");
    assert!(planned.contains("not supported by this version"), "{planned}");
    let text = "`[queue] memry` `retry.expires` `[queue] memory` `queue.md` `colour = true` `rate = \"1/s\"`\n";
    let page = Page { path: "x.md".into(), text: text.into() };
    let names = report::key_names().into_iter().collect();
    let wrong = unknown_keys(&page, &names, &mut 0);
    assert_eq!(wrong, ["x.md:1: [queue] memry", "x.md:1: retry.expires", "x.md:1: colour = true"]);
}
