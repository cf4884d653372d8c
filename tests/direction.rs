//! A module uses only modules of earlier lines of the list in src/lib.rs: there is no cycle, and who changes
//! one knows whom it may concern.

use std::collections::BTreeMap;
use std::path::Path;

#[path = "support/files.rs"]
mod files;

/// The line of the list, from the first on, and the name of that line.
type Lines = BTreeMap<String, (usize, String)>;

/// The list under "Who may use whom" of src/lib.rs.
fn stated(lib: &str) -> Lines {
    let list = lib.split("# Who may use whom").nth(1).and_then(|rest| rest.split("```").nth(1));
    let list = list.expect("src/lib.rs has a list of who may use whom").trim_start_matches("text");
    let mut lines = Lines::new();
    for (number, line) in list.lines().map(|line| line.trim_start_matches("//!")).enumerate() {
        let mut words = line.split_whitespace();
        let Some(name) = words.next() else { continue };
        for module in words {
            let twice = lines.insert(module.to_owned(), (number, name.to_owned()));
            assert_eq!(twice, None, "{module} stands twice in the list of src/lib.rs");
        }
    }
    lines
}

/// The text without comments and without test modules.
fn code(text: &str) -> String {
    let mut out = String::new();
    let (mut lines, mut cfg_test) = (text.lines(), false);
    while let Some(line) = lines.next() {
        if line.starts_with("#[cfg(test)]") {
            cfg_test = true;
        } else if cfg_test && line.contains("mod ") && line.ends_with('{') {
            // The end of a module that begins in the first column is a brace in the first column.
            lines.find(|line| *line == "}");
            cfg_test = false;
        } else {
            cfg_test &= line.starts_with("#[");
            out.push_str(line.split("//").next().unwrap_or_default());
            out.push('\n');
        }
    }
    out
}

/// What follows `crate::` anywhere in it: the modules that it uses.
fn used(code: &str) -> Vec<String> {
    let first = |path: &str| {
        let end = path.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(path.len());
        path.get(..end).unwrap_or_default().to_owned()
    };
    let mut found = Vec::new();
    for path in code.split("crate::").skip(1) {
        let Some(group) = path.strip_prefix('{') else {
            found.push(first(path));
            continue;
        };
        // Names at the first depth of a group.
        let (mut depth, mut at_name) = (0, true);
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => at_name = true,
                c if at_name && (c.is_alphanumeric() || c == '_') => {
                    found.push(first(group.get(at..).unwrap_or_default()));
                    at_name = false;
                }
                _ => {}
            }
        }
    }
    found
}

/// `src/queue/sqlite/op.rs` is of `queue`; `None` for tests, src/lib.rs and src/main.rs.
fn module_of(path: &Path) -> Option<String> {
    let inside = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).ok()?;
    let parts: Vec<&str> = inside.iter().filter_map(|part| part.to_str()).collect();
    let of_tests = |part: &&str| {
        let name = part.trim_end_matches(".rs");
        ["tests", "worlds", "test"].iter().any(|word| name == *word || name.ends_with(&format!("_{word}")))
    };
    let name = parts.first()?.trim_end_matches(".rs");
    (!parts.iter().any(of_tests) && name != "lib" && name != "main").then(|| name.to_owned())
}

#[test]
fn modules_use_those_of_earlier_lines_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let lines = stated(&std::fs::read_to_string(root.join("src/lib.rs")).expect("src/lib.rs"));
    let mut wrong = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    let mut sources = Vec::new();
    files::sources(&root.join("src"), "rs", &mut sources);
    for path in sources {
        let Some(module) = module_of(&path) else { continue };
        let Some((line, name)) = lines.get(&module) else {
            wrong.push(format!("{module} is in no line of the list of src/lib.rs"));
            continue;
        };
        seen.insert(module.clone());
        let text = std::fs::read_to_string(&path).expect("a source file");
        for other in used(&code(&text)) {
            let Some((its_line, its_name)) = lines.get(&other).filter(|_| other != module) else { continue };
            if its_line >= line {
                let path = path.display();
                wrong.push(format!("{module} ({name}) -> {other} ({its_name}): {path}"));
            }
        }
    }
    let gone: Vec<&String> = lines.keys().filter(|module| !seen.contains(*module)).collect();
    assert!(gone.is_empty(), "the list of src/lib.rs names what is no module: {gone:?}");
    wrong.sort();
    wrong.dedup();
    assert!(wrong.is_empty(), "arrows in the wrong direction:\n{}", wrong.join("\n"));
}

#[test]
fn what_is_used_is_found() {
    let text = "use crate::queue::{Queue, QueueError};\n// crate::cli\nlet x = crate::smtp::dot::f();\n\
                use crate::{app, mail::{self, Address}, shape};\n\
                #[cfg(test)]\nmod tests {\n    use crate::admin;\n}\nfn f() { crate::route::g() }\n";
    assert_eq!(used(&code(text)), ["queue", "smtp", "app", "mail", "shape", "route"]);
}
