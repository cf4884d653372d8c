//! What Cargo.lock may have, after `deny.toml`: crates of crates.io alone, and each in one version but for
//! those that are listed with a reason.

use std::collections::{BTreeMap, BTreeSet};

use toml_edit::{DocumentMut, Item, Table};

fn read(name: &str) -> DocumentMut {
    let path = format!("{}/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).expect(name).parse().expect(name)
}

fn text<'t>(table: &'t Table, key: &str) -> Option<&'t str> {
    table.get(key).and_then(Item::as_str)
}

/// What cargo takes for compatible: the first number of a version that is not 0, and those before it.
fn major(version: &str) -> String {
    let mut numbers = Vec::new();
    for number in version.split('.') {
        numbers.push(number);
        if number != "0" {
            break;
        }
    }
    numbers.join(".")
}

fn packages(lock: &DocumentMut) -> impl Iterator<Item = &Table> {
    lock["package"].as_array_of_tables().expect("packages").iter()
}

#[test]
fn every_crate_has_one_version_but_for_those_with_a_reason() {
    let (lock, deny) = (read("Cargo.lock"), read("deny.toml"));
    let mut versions: BTreeMap<&str, BTreeMap<String, &str>> = BTreeMap::new();
    for package in packages(&lock) {
        let (name, version) = (text(package, "name").expect("a name"), text(package, "version").expect("a version"));
        let twice = versions.entry(name).or_default().insert(major(version), version);
        assert_eq!(twice, None, "{name} has two versions of one major");
    }
    // All but the newest.
    let newest = |all: &BTreeMap<String, &str>| {
        let number = |major: &str| major.split('.').map(|n| n.parse::<u64>().unwrap_or(0)).collect::<Vec<_>>();
        all.keys().max_by_key(|major| number(major)).cloned()
    };
    let older = versions.iter().flat_map(|(name, all)| {
        let newest = newest(all);
        all.iter().filter(move |(major, _)| Some(*major) != newest.as_ref()).map(move |(_, v)| format!("{name}@{v}"))
    });
    let skip = deny["bans"]["skip"].as_array().expect("a list");
    let listed: BTreeSet<String> = skip
        .iter()
        .map(|entry| {
            let entry = entry.as_inline_table().expect("a table");
            let reason = entry.get("reason").and_then(|reason| reason.as_str()).unwrap_or_default();
            assert!(!reason.is_empty(), "{entry} without a reason");
            entry.get("crate").and_then(|name| name.as_str()).expect("a crate").to_owned()
        })
        .collect();
    assert_eq!(older.collect::<BTreeSet<_>>(), listed, "found in Cargo.lock, and listed in deny.toml");
}

#[test]
fn every_crate_is_from_crates_io() {
    let (lock, manifest) = (read("Cargo.lock"), read("Cargo.toml"));
    let mut own = Vec::new();
    for package in packages(&lock) {
        match text(package, "source") {
            Some(source) => {
                assert_eq!(source, "registry+https://github.com/rust-lang/crates.io-index", "{package}");
                assert!(text(package, "checksum").is_some(), "{package} is not pinned");
            }
            None => own.extend(text(package, "name")),
        }
    }
    assert_eq!(own, ["mailweir"]);
    for section in ["dependencies", "dev-dependencies"] {
        for (name, wanted) in manifest[section].as_table().expect("a table").iter() {
            let from = |key: &str| wanted.get(key).is_some();
            assert!(!from("git") && !from("path") && !from("registry"), "{name} is from elsewhere");
        }
    }
}
