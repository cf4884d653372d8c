//! What a page marks as runnable is run: blocks that begin with ```` ```sh run ```` in their order, by `sh -eu`, in a
//! directory of the page's own that has its ```` ```toml file=NAME ```` blocks, with this build as `mailweir`. Each line
//! of a ```` ```text printed ```` block behind one but `…` must be a line of what it printed, columns aside.

use std::path::Path;
use std::process::{Command, Stdio};

use super::pages::{Fence, Page, pages};

/// `PATH` with the directory of the program that was built before all others.
pub fn path_with_mailweir() -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_mailweir"));
    let directory = program.parent().expect("it is in a directory").display();
    format!("{directory}:{}", std::env::var("PATH").unwrap_or_default())
}

fn columns(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn is_run(fence: &Fence) -> bool {
    fence.language == "sh" && fence.attributes.iter().any(|a| a == "run")
}

/// Runs the blocks of a page; what failed, and how many ran.
fn run(page: &Page) -> (Vec<String>, usize) {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut wrong, mut ran, mut printed) = (Vec::new(), 0, Vec::new());
    for fence in page.fences() {
        if let Some(name) = fence.attributes.iter().find_map(|a| a.strip_prefix("file=")) {
            assert!(!name.contains('/'), "{}:{}: a file of its own directory", page.name(), fence.line);
            std::fs::write(directory.path().join(name), &fence.text).expect("written");
        }
        if fence.attributes.iter().any(|a| a == "printed") {
            let missing = fence.text.lines().filter(|line| *line != "…" && !printed.contains(&columns(line)));
            wrong.extend(missing.map(|line| format!("{}:{}: it does not print: {line}", page.name(), fence.line)));
        }
        if !is_run(&fence) {
            continue;
        }
        ran += 1;
        let mut shell = Command::new("sh");
        shell.args(["-eu", "-c", &fence.text]).current_dir(directory.path()).env("PATH", path_with_mailweir());
        let done = shell.stdin(Stdio::null()).output().expect("sh starts");
        printed = String::from_utf8_lossy(&done.stdout).lines().map(columns).collect();
        if !done.status.success() {
            let said = String::from_utf8_lossy(&done.stderr);
            wrong.push(format!("{}:{}: {}: {said}", page.name(), fence.line, done.status));
        }
    }
    (wrong, ran)
}

#[test]
fn every_example_that_is_marked_as_runnable_runs() {
    let (mut wrong, mut all) = (Vec::new(), 0);
    for page in pages().iter().filter(|page| page.fences().iter().any(is_run)) {
        let (faults, ran) = run(page);
        wrong.extend(faults);
        all += ran;
    }
    assert!(wrong.is_empty(), "these do not run:\n{}", wrong.join("\n"));
    assert!(all >= 4, "only {all} examples");
}

#[test]
fn an_example_that_fails_is_found() {
    let text = "```toml file=a.toml\ndrain = \"7s\"\n```\n```sh run\nmailweir -c a.toml check; echo a   b\n```\n\
                ```text printed\na b\n…\nnothing of the kind\n```\n```sh run\nmailweir -c b.toml check\n```\n";
    let (wrong, ran) = run(&Page { path: "x.md".into(), text: text.into() });
    assert_eq!((ran, wrong.len()), (2, 2), "{wrong:?}");
    assert_eq!(wrong[0], "x.md:7: it does not print: nothing of the kind");
    assert!(wrong[1].starts_with("x.md:12: exit status: 78"), "{}", wrong[1]);
}
