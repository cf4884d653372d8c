//! The documentation says what the code is: the table of keys in README.md is the one that the
//! declarations make, links lead somewhere, and tests and files that are named exist.
//!
//! `UPDATE_DOCS=1 cargo test --test docs` writes the table anew.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use mailweir::config::report;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const BEGIN: &str = "<!-- keys: made from the declarations in src/config/keys.rs, see tests/docs.rs -->\n";
const END: &str = "<!-- end of keys -->";

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// README.md, CHANGELOG.md and everything in docs/.
fn pages() -> Vec<(PathBuf, String)> {
    let root = Path::new(ROOT);
    let mut paths = vec![root.join("README.md"), root.join("CHANGELOG.md")];
    for entry in fs::read_dir(root.join("docs")).expect("docs/ is there") {
        let path = entry.expect("a directory entry").path();
        if path.extension().is_some_and(|e| e == "md") {
            paths.push(path);
        }
    }
    assert!(paths.len() >= 9, "only {} pages", paths.len());
    paths.into_iter().map(|path| (path.clone(), read(&path))).collect()
}

/// Every file below `dir` with this extension.
fn sources(dir: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
        let path = entry.expect("a directory entry").path();
        if path.is_dir() {
            sources(&path, extension, found);
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
}

#[test]
fn the_table_of_keys_in_the_readme_is_made_from_the_declarations() {
    let path = Path::new(ROOT).join("README.md");
    let page = read(&path);
    let (before, rest) = page.split_once(BEGIN).expect("the mark before the table");
    let (table, after) = rest.split_once(END).expect("the mark behind the table");
    let made = format!("\n{}\n", report::markdown());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, format!("{before}{BEGIN}{made}{END}{after}")).expect("write README.md");
        return;
    }
    assert!(
        table == made,
        "the table of keys in README.md differs: run this test with UPDATE_DOCS=1 and look at the diff"
    );
}

/// The heading's anchor, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut found = 0;
    let mut wrong = Vec::new();
    for (path, text) in pages() {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
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
