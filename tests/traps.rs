//! docs/traps.md is true: each trap names the tests that show what is done about it, and each of them is there and
//! runs. What is not built says so, and is listed here by name, so that no row can lose its test unseen.

use std::collections::BTreeSet;
use std::path::Path;

#[path = "support/files.rs"]
mod files;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The rows that may say `not built`, by the start of their first cell. One that is built leaves this list.
const NOT_BUILT: [&str; 0] = [];

/// Rows of each table at least: a row that goes is a decision, and this number goes with it.
const CLIENTS: usize = 44;
const SERVERS: usize = 40;

struct Row {
    line: usize,
    section: String,
    trap: String,
    tests: String,
}

/// The rows of the tables of the page.
fn rows(page: &str) -> Vec<Row> {
    let (mut rows, mut section) = (Vec::new(), "");
    for (at, line) in page.lines().enumerate() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title;
        }
        let Some(cells) = line.strip_prefix("| ").and_then(|l| l.strip_suffix(" |")) else { continue };
        let cells: Vec<&str> = cells.split(" | ").collect();
        let [trap, who, what, tests] = cells[..] else { panic!("docs/traps.md:{}: four cells", at + 1) };
        if trap == "trap" || trap.starts_with("---") {
            continue;
        }
        assert!(!who.is_empty() && !what.is_empty(), "docs/traps.md:{}: an empty cell", at + 1);
        let (section, trap, tests) = (section.to_owned(), trap.to_owned(), tests.to_owned());
        rows.push(Row { line: at + 1, section, trap, tests });
    }
    rows
}

/// The function that this line begins, if it is one.
fn function(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line = line.strip_prefix("pub ").unwrap_or(line);
    let name = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ")?;
    name.split(['(', '<']).next()
}

/// The tests of these sources that run by themselves: functions with an attribute of a test and none of `ignore`, and
/// the public functions of the suite that every queue is put through.
fn tests_that_run() -> BTreeSet<String> {
    let (mut paths, mut found) = (Vec::new(), BTreeSet::new());
    files::sources(&Path::new(ROOT).join("src"), "rs", &mut paths);
    files::sources(&Path::new(ROOT).join("tests"), "rs", &mut paths);
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("a source");
        let suite = path.starts_with(Path::new(ROOT).join("tests/contract"));
        let (mut is_test, mut ignored) = (false, false);
        for line in text.lines() {
            let trimmed = line.trim_start();
            if let Some(name) = function(line) {
                if (is_test || suite && trimmed.starts_with("pub async fn ")) && !ignored {
                    found.insert(name.to_owned());
                }
                (is_test, ignored) = (false, false);
            } else if trimmed.starts_with("#[") {
                is_test |= trimmed.starts_with("#[test]") || trimmed.starts_with("#[tokio::test");
                ignored |= trimmed.starts_with("#[ignore");
            } else if !trimmed.starts_with("//") {
                (is_test, ignored) = (false, false);
            }
        }
    }
    found
}

#[test]
fn every_trap_has_a_test_that_is_there() {
    let page = std::fs::read_to_string(Path::new(ROOT).join("docs/traps.md")).expect("docs/traps.md");
    let (rows, tests) = (rows(&page), tests_that_run());
    for (section, least) in [("Clients", CLIENTS), ("Servers", SERVERS)] {
        let count = rows.iter().filter(|row| row.section == section).count();
        assert!(count >= least, "{count} traps of {section}, at least {least} are known");
    }
    let (mut wrong, mut open) = (Vec::new(), BTreeSet::new());
    for row in &rows {
        let says = |what: &str| format!("docs/traps.md:{}: `{}` {what}", row.line, row.trap);
        if row.tests == "not built" {
            match NOT_BUILT.iter().find(|start| row.trap.starts_with(**start)) {
                Some(start) => drop(open.insert(*start)),
                None => wrong.push(says("has no test")),
            }
            continue;
        }
        let named: Vec<&str> = row.tests.split(", ").collect();
        for span in named {
            let name = span.strip_prefix('`').and_then(|s| s.strip_suffix('`')).unwrap_or_default();
            let there = match name.strip_prefix("dialogs/") {
                Some(file) => Path::new(ROOT).join("tests/dialogs").join(file).is_file() && file.ends_with(".txt"),
                None => tests.contains(name),
            };
            if !there {
                wrong.push(says(&format!("names {span}, which is no test that runs")));
            }
        }
    }
    let listed = BTreeSet::from(NOT_BUILT);
    wrong.extend(listed.difference(&open).map(|start| format!("`{start}` is built, or not on the page: take it off")));
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The search itself: what is ignored, or is no test, does not pass for one.
#[test]
fn only_tests_that_run_count() {
    let tests = tests_that_run();
    assert!(tests.len() > 1000, "only {} tests found", tests.len());
    assert!(tests.contains("every_trap_has_a_test_that_is_there"));
    assert!(tests.contains("what_may_have_arrived_stays_uncertain_until_an_operator_decides"), "of the suite");
    assert!(!tests.contains("tests_that_run") && !tests.contains("sources"));
}
