//! The documentation says what the code is: the reference of keys is the one that the declarations make, links lead
//! somewhere, commands, options, keys, tests and files that are named exist, and examples run.
//!
//! `UPDATE_DOCS=1 cargo test --test docs` writes the reference in docs/configuration.md anew.

#[path = "docs/commands.rs"]
mod commands;
#[path = "support/files.rs"]
mod files;
#[path = "docs/keys.rs"]
mod keys;
#[path = "docs/pages.rs"]
mod pages;
#[path = "docs/runnable.rs"]
mod runnable;
#[path = "docs/starter.rs"]
mod starter;
#[path = "docs/tour.rs"]
mod tour;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use files::sources;
use mailweir::config::report;
use pages::{ROOT, anchor, pages, read};

const BEGIN: &str = "<!-- keys: made from the declarations in src/config/keys.rs, see tests/docs.rs -->\n";

#[test]
fn the_reference_of_keys_is_made_from_the_declarations() {
    let path = Path::new(ROOT).join("docs/configuration.md");
    let page = read(&path);
    let (before, found) = page.split_once(BEGIN).expect("the mark before the reference");
    let made = report::reference();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, format!("{before}{BEGIN}{made}")).expect("write docs/configuration.md");
        return;
    }
    assert!(
        found == made,
        "the reference in docs/configuration.md differs: run this test with UPDATE_DOCS=1 and look at the diff"
    );
}

#[test]
fn the_index_of_the_configuration_leads_to_keys_from_every_table() {
    let page = read(&Path::new(ROOT).join("docs/configuration.md"));
    let (index, reference) = page.split_once(BEGIN).expect("the mark before the reference");
    let anchors: Vec<String> = reference.lines().filter(|line| line.starts_with("##")).map(anchor).collect();
    let once: BTreeSet<&String> = anchors.iter().collect();
    assert_eq!(once.len(), anchors.len(), "two headings have the same anchor");
    let linked: BTreeSet<&str> =
        index.split("](#").skip(1).filter_map(|rest| rest.split_once(')')).map(|(anchor, _)| anchor).collect();
    let nowhere: Vec<&&str> = linked.iter().filter(|link| !anchors.iter().any(|anchor| anchor == *link)).collect();
    assert!(nowhere.is_empty(), "the index names keys that are not there: {nowhere:?}");
    for table in [
        "listener", "queue", "retry", "dns", "provider", "on_reply", "route", "limit", "dkim", "admin", "sendmail",
        "log",
    ] {
        let of_table = report::key_names().into_iter().filter(|name| name.starts_with(&format!("{table}.")));
        let mut anchors = of_table.map(|name| anchor(&name));
        assert!(anchors.any(|anchor| linked.contains(anchor.as_str())), "the index has nothing of `{table}`");
    }
}

#[test]
fn every_page_is_in_the_index() {
    let indexes = [("README.md", "docs/"), ("docs/README.md", "")];
    for (index, before) in indexes {
        let text = read(&Path::new(ROOT).join(index));
        for page in
            pages().into_iter().filter(|page| page.name() != "docs/README.md" && page.name().starts_with("docs/"))
        {
            let name = page.path.file_name().and_then(|name| name.to_str()).expect("a name");
            assert!(text.contains(&format!("]({before}{name})")), "{index} does not lead to {name}");
        }
    }
}

#[test]
fn the_readme_is_two_screens_and_nothing_waits_to_be_written() {
    let lines = read(&Path::new(ROOT).join("README.md")).lines().count();
    assert!(lines <= 140, "the README has {lines} lines");
    // Whole words, in capitals as they are left behind; and names such as SIM_EXAMPLE.
    let left = |word: &str| {
        let capitals = word.len() > 8 && word.chars().all(|c| c.is_ascii_uppercase() || c == '_');
        ["TODO", "TBD", "XXX", "FIXME", "SPEED", "PLACEHOLDER"].contains(&word)
            || word.eq_ignore_ascii_case("lorem")
            || (capitals && word.contains("_EXAMPLE"))
    };
    assert!(left("SINK_EXAMPLE") && left("TODO") && !left("AKIAEXAMPLE"));
    let mut wrong = Vec::new();
    let starter =
        pages::Page { path: Path::new(ROOT).join("config.toml"), text: read(&Path::new(ROOT).join("config.toml")) };
    for page in pages().into_iter().chain([starter]) {
        for (at, line) in page.text.lines().enumerate() {
            let words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            wrong.extend(words.filter(|word| left(word)).map(|word| format!("{}:{}: {word}", page.name(), at + 1)));
        }
    }
    assert!(wrong.is_empty(), "placeholders:\n{}", wrong.join("\n"));
}

#[test]
fn every_link_leads_somewhere() {
    let mut found = 0;
    let mut wrong = Vec::new();
    for page in pages() {
        let path = &page.path;
        for link in page.text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            if link.contains("://") {
                continue;
            }
            found += 1;
            let (file, section) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.with_file_name(file) };
            let there = target.exists()
                && (section.is_empty()
                    || read(&target).lines().any(|line| line.starts_with('#') && anchor(line) == section));
            if !there {
                wrong.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "these links lead nowhere:\n{}", wrong.join("\n"));
    assert!(found >= 20, "only {found} links");
}

#[test]
fn every_test_that_architecture_names_for_an_invariant_exists() {
    let mut files = Vec::new();
    sources(&Path::new(ROOT).join("src"), "rs", &mut files);
    sources(&Path::new(ROOT).join("tests"), "rs", &mut files);
    let functions: BTreeSet<String> = files
        .iter()
        .flat_map(|file| {
            let text = read(file);
            let names = text.split("fn ").skip(1);
            names.filter_map(|rest| rest.split(['(', '<']).next()).map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    let page = read(&Path::new(ROOT).join("docs/architecture.md"));
    let rows: Vec<&str> = page
        .lines()
        .skip_while(|line| !line.starts_with("## Invariants"))
        .skip(1)
        .take_while(|line| !line.starts_with("## "))
        .filter(|line| line.starts_with("| ") && line.as_bytes().get(2).is_some_and(u8::is_ascii_digit))
        .collect();
    assert_eq!(rows.len(), 9, "one row for each invariant");
    let mut missing = Vec::new();
    for row in rows {
        let tests = row.trim_end_matches([' ', '|']).rsplit_once(" | ").map(|(_, tests)| tests).unwrap_or_default();
        let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test for {row}");
        for name in names {
            let there = match name.strip_suffix(".txt") {
                Some(_) => Path::new(ROOT).join("tests/dialogs").join(name).exists(),
                None => functions.contains(name),
            };
            if !there {
                missing.push(name.to_owned());
            }
        }
    }
    assert!(missing.is_empty(), "there are no such tests: {missing:?}");
}

/// What programs read is listed, all of it.
#[test]
fn the_fields_of_a_line_of_the_list_are_those_that_operations_names() {
    let text = |name: &str| (name.to_owned(), serde_json::Value::from(""));
    let number = |name: &str| (name.to_owned(), serde_json::Value::from(0));
    let texts = ["id", "sender", "recipient", "provider", "state", "due", "received", "reason"].map(text);
    let numbers = ["index", "priority", "attempts", "size"].map(number);
    let least = serde_json::Value::Object(texts.into_iter().chain(numbers).collect());
    let row: mailweir::queue::Row = serde_json::from_value(least).expect("what no row lacks");
    let row = serde_json::to_value(row).expect("as JSON");
    let made: BTreeSet<&str> = row.as_object().expect("an object").keys().map(String::as_str).collect();
    let page = read(&Path::new(ROOT).join("docs/operations.md"));
    let (_, rest) = page.split_once("`queue list --json` has the fields `").expect("the list");
    let (list, _) = rest.split_once('`').expect("its end");
    let told: BTreeSet<&str> = list.split(',').map(str::trim).collect();
    assert_eq!(told, made);
}
