//! The table of programs that are really run against mailweir: clients, users of `sendmail`, relays in
//! front of it, servers behind it.
//!
//! A case is a file in `tests/interop/cases`; what a program does is a script of its own language in
//! `tests/interop/programs`. Running them needs root and takes minutes, so that part is asked for:
//! `cargo test --test interop -- --ignored` (docs/interop.md). `INTEROP=a,b` takes some of the cases,
//! `UPDATE_DOCS=1` writes the results into docs/interop.md. What cannot be had on a machine is not
//! tried, and the table says why.

// Other test programs look at the authority, too.
#[allow(dead_code)]
#[path = "support/ca.rs"]
mod ca;
#[path = "interop/case.rs"]
mod case;
#[path = "interop/clients.rs"]
mod clients;
#[path = "interop/dkim.rs"]
mod dkim;
#[path = "interop/letter.rs"]
mod letter;
#[path = "interop/lettre.rs"]
mod lettre;
#[path = "interop/machine.rs"]
mod machine;
#[path = "interop/page.rs"]
mod page;
#[path = "interop/servers.rs"]
mod servers;
mod support;

use std::collections::BTreeSet;

use case::{Case, Role, Told};
use machine::Machine;
use support::TestDir;

#[test]
fn the_table_names_every_case_and_no_other() {
    let written = std::fs::read_to_string(page::path()).expect("docs/interop.md");
    let rows = page::rows(&written);
    let cases = case::all();
    assert!(cases.len() >= 20, "only {} cases", cases.len());
    let named: BTreeSet<&str> = rows.keys().map(String::as_str).collect();
    let known: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(named, known, "docs/interop.md and tests/interop/cases differ: run the cases with UPDATE_DOCS=1");
    // The rest of a row is the case's own words, but for the version and the verdict.
    for case in &cases {
        let row = &rows[&case.name];
        let cells: Vec<&str> = row.trim_matches(['|', ' ']).split(" | ").collect();
        let (version, verdict) = (cells[1], cells.last().and_then(|c| c.split(';').next()).unwrap_or_default());
        assert_eq!(
            *row,
            page::row(case, version, verdict),
            "docs/interop.md is stale: run the case with UPDATE_DOCS=1"
        );
        assert!(verdict == "whole" || verdict.starts_with("not tried"), "{}: {verdict}", case.name);
    }
}

#[test]
fn every_case_can_be_run() {
    let programs = case::folder().join("programs");
    let mut used = BTreeSet::new();
    for case in case::all() {
        assert!(!case.name.is_empty() && !case.version.is_empty() && !case.run.is_empty(), "{}", case.slug);
        let scripts: Vec<&String> = case.run.iter().filter(|word| programs.join(word).is_file()).collect();
        assert!(!scripts.is_empty(), "{}: runs none of tests/interop/programs", case.slug);
        used.extend(scripts.into_iter().cloned());
        assert!(case.role != Role::Server || !matches!(case.refused, Told::Code(_)), "{}", case.slug);
        assert!(case.provider.is_empty() || case.role == Role::Server, "{}", case.slug);
    }
    // The other files there are named by one of these.
    let texts: String =
        used.iter().map(|name| std::fs::read_to_string(programs.join(name)).expect("a program")).collect();
    for entry in std::fs::read_dir(&programs).expect("programs") {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        let version = case::all().iter().any(|case| case.version.contains(&name));
        assert!(used.contains(&name) || texts.contains(&name) || version, "{name} belongs to no case");
    }
}

/// One case: its version, and the verdict.
fn try_case(case: &Case) -> (String, Result<String, String>) {
    let machine = match Machine::fetch(case) {
        Ok(machine) => machine,
        Err(why) => return (String::new(), Ok(format!("not tried: {why}"))),
    };
    let dir = TestDir::new();
    let version = machine.version(dir.path(), &case.version);
    let wrong = match case.role {
        Role::Server => servers::try_all(case, &machine),
        Role::Client | Role::Sendmail | Role::Relay => clients::try_all(case, &machine),
    };
    (version, if wrong.is_empty() { Ok("whole".to_owned()) } else { Err(wrong.join("\n")) })
}

#[test]
#[ignore = "runs every program of the table: minutes, root, and packages that are fetched"]
fn every_program_of_the_table() {
    let asked = std::env::var("INTEROP").unwrap_or_default();
    let asked: Vec<&str> = asked.split(',').filter(|word| !word.is_empty()).collect();
    let written = std::fs::read_to_string(page::path()).unwrap_or_default();
    let before = page::rows(&written);
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    for case in case::all() {
        if !asked.is_empty() && !asked.contains(&case.slug.as_str()) {
            rows.extend(before.get(&case.name).cloned());
            continue;
        }
        // A panic of the harness is this case's failure, and the others are still tried.
        let (version, verdict) = std::panic::catch_unwind(|| try_case(&case))
            .unwrap_or_else(|_| (String::new(), Err("the harness gave up, see above".to_owned())));
        let result = match &verdict {
            Ok(verdict) => verdict.clone(),
            Err(_) => "FAILED".to_owned(),
        };
        println!("{}: {result} ({version})", case.name);
        if let Err(why) = verdict {
            failed.push(format!("== {} ({version}) ==\n{why}", case.name));
        }
        rows.push(page::row(&case, &version, &result));
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let today = mailweir::clock::Clock::System.now().to_string();
        let today = page::last_on(today.split('T').next().unwrap_or_default());
        let last = if asked.is_empty() { today } else { page::last(&written).map_or(today, str::to_owned) };
        std::fs::write(page::path(), page::page(&rows, &last)).expect("docs/interop.md");
    }
    assert!(failed.is_empty(), "{} programs failed:\n{}", failed.len(), failed.join("\n"));
}
