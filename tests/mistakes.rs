//! Mistakes in the configuration, and what those who made them are told: the place, the cause and the remedy.
//!
//! `tests/mistakes/*.txt` have cases: `=== VERDICT NAME`, the file, `~~~`, what is told of it (whole, with the line
//! of the file and the mark below it). In the file, `\x{ff}` is that byte, and `\` at the end of its last line takes
//! the line end away. The verdict is a reader's: A the place, the cause and the remedy are told, B the place and the
//! cause, C it misleads. `MAILWEIR_WRITE_MISTAKES=1` writes what is told now; look at the difference.

use std::path::Path;

use mailweir::config::Loaded;

struct Case {
    verdict: char,
    name: String,
    file: String,
    told: String,
}

fn cases(text: &str) -> (String, Vec<Case>) {
    let mut parts = text.split("\n=== ");
    let intro = parts.next().unwrap_or_default().to_owned();
    let one = |part: &str| {
        let (head, rest) = part.split_once('\n').expect("a heading");
        let (verdict, name) = head.split_once(' ').expect("a verdict and a name");
        let (file, told) = rest.split_once("\n~~~\n").expect("a file and what is told");
        let verdict = verdict.chars().next().expect("a letter");
        Case { verdict, name: name.to_owned(), file: file.to_owned(), told: told.trim_end().to_owned() }
    };
    (intro, parts.map(one).collect())
}

/// The bytes that a case stands for.
fn bytes(file: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let whole = file.strip_suffix('\\').map_or_else(|| format!("{file}\n"), str::to_owned);
    let mut rest = whole.as_str();
    while let Some((before, after)) = rest.split_once("\\x{") {
        let (byte, after) = after.split_once('}').expect("a byte");
        out.extend_from_slice(before.as_bytes());
        out.push(u8::from_str_radix(byte, 16).expect("hexadecimal"));
        rest = after;
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

/// What is told of such a file, with its name as `my.toml`.
fn told(dir: &Path, file: &str) -> String {
    let path = dir.join("my.toml");
    std::fs::write(&path, bytes(file)).expect("written");
    match Loaded::read(Some(&path)) {
        Ok(_) => "nothing".to_owned(),
        Err(e) => format!("{e:#}").replace(&format!("{}/", dir.display()), ""),
    }
}

#[test]
fn every_mistake_is_told_with_its_place_its_cause_and_its_remedy() {
    let dir = tempfile::tempdir().expect("a directory");
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mistakes");
    for (name, at_least) in [("typed.txt", 220), ("published.txt", 39)] {
        let path = all.join(name);
        let (intro, cases) = cases(&std::fs::read_to_string(&path).expect("read"));
        if std::env::var_os("MAILWEIR_WRITE_MISTAKES").is_some() {
            let one = |case: &Case| {
                format!("\n=== {} {}\n{}\n~~~\n{}\n", case.verdict, case.name, case.file, told(dir.path(), &case.file))
            };
            std::fs::write(&path, intro + &cases.iter().map(one).collect::<String>()).expect("written");
            continue;
        }
        assert!(cases.len() >= at_least, "{name} has {} cases", cases.len());
        for case in &cases {
            assert_eq!(told(dir.path(), &case.file), case.told, "{}", case.name);
            assert_ne!(case.verdict, 'C', "{}", case.name);
        }
    }
}
