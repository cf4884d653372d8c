//! docs/interop.md: what was run, and how it went.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::case::{Case, Role, SIGHTS, Told};

const TOP: &str = "\
# Programs that were run

Each program below was run against mailweir, not read about. The table is made by `tests/interop.rs` from the cases in
`tests/interop/cases`; scripts are in `tests/interop/programs`. What is missing on the system is fetched (packages of
Debian, npm and PyPI, into `target/interop` or `$INTEROP_CACHE`) and unpacked there; the program sees it installed in
mount, process and UTS namespaces of its own, so that a mail server of the system is not touched. It needs root.

```sh
cargo test --test interop -- --ignored                               # all of them
INTEROP=exim,php-mail cargo test --test interop -- --ignored              # those whose file is called so
UPDATE_DOCS=1 cargo test --test interop -- --ignored                 # and write this page
```

A **letter** goes to two recipients, one of a copy and one of a blind copy. *Whole* means that each of them gets it once, and
that it shows, decoded: the sender's name and the subject in UTF-8, the recipients, the text with its dots at the start of
lines, a line that begins with `From ` and one of 1,950 characters, an attachment of 20,000 bytes, and no word of the blind
copy. *Without* names what a program cannot say, or changes itself, and what was therefore not looked at.

- A **client** hands it over by SMTP and must end with 0; then to a listener that refuses every recipient (554), and to a
  port where nobody listens: the code, or the words, that its user gets.
  Those that *log in* hand it over once more for each way, as a user of a listener that requires a login (AUTH PLAIN, or what
  the program takes first of PLAIN and LOGIN).
- **sendmail**: the same by /usr/sbin/sendmail, which is mailweir.
- A **relay** is a mail server, or a relay with a queue, that sends all mail to mailweir; while nobody listens it must keep
  the letter, and send it once mailweir is there.
- A **server** is what mailweir delivers to: first nobody listens there, then the server starts and must get the letter;
  then the same in binary (`BODY=BINARYMIME`, which most servers do not offer: it is converted); then it refuses a recipient, and the sender must get a report that gives its words.

";

const HEAD: &str = "\
| program | version | role | without | refused | nobody listens | result |
| --- | --- | --- | --- | --- | --- | --- |
";

/// What the line says that has the day on which all of them were run last.
const LAST: &str = "All of them were run last on ";

/// Where it is.
pub fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/interop.md")
}

/// The rows that the page has, by program.
pub fn rows(page: &str) -> BTreeMap<String, String> {
    let lines = page.lines().skip_while(|line| !line.starts_with("| ---")).skip(1);
    lines
        .take_while(|line| line.starts_with("| "))
        .map(|line| (line[2..].split(" | ").next().unwrap_or_default().to_owned(), line.to_owned()))
        .collect()
}

fn told(role: Role, told: &Told) -> String {
    match told {
        Told::Code(code) => format!("exits with {code}"),
        Told::Says(text) if role == Role::Server => format!("reported: {text}"),
        Told::Says(text) if role == Role::Relay => format!("says {text}"),
        Told::Says(text) => format!("fails, says {text}"),
        Told::Kept => "kept, sent later".to_owned(),
        Told::Not(why) => why.clone(),
    }
}

/// How mailweir speaks to a server, where that is more than clear text.
fn encrypted(case: &Case) -> &'static str {
    let has = |key: &str, value: &str| case.provider.iter().any(|(k, v)| k == key && v.contains(value));
    match (has("tls", "required"), has("auth", "user")) {
        (true, true) => "over STARTTLS, with a login",
        (true, false) => "over STARTTLS",
        _ => "",
    }
}

/// Over what a client logs in, where it was tried.
fn logs_in(case: &Case) -> String {
    let words = |way: &String| match way.as_str() {
        "clear" => "in clear text (loopback)",
        "starttls" => "over STARTTLS",
        _ => "over TLS from the first byte",
    };
    match case.logins.as_slice() {
        [] => String::new(),
        ways => format!("logs in {}", ways.iter().map(words).collect::<Vec<_>>().join(", ")),
    }
}

/// The row of a program.
pub fn row(case: &Case, version: &str, result: &str) -> String {
    let without: Vec<&str> = SIGHTS.into_iter().filter(|sight| !case.shows.iter().any(|word| word == sight)).collect();
    let cells = [
        case.name.clone(),
        version.to_owned(),
        case.role.word().to_owned(),
        if without.is_empty() { "–".to_owned() } else { without.join(", ") },
        told(case.role, &case.refused),
        if case.role == Role::Server { "waits, delivered later".to_owned() } else { told(case.role, &case.down) },
        [result, encrypted(case), &logs_in(case), &case.note]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join("; "),
    ];
    format!("| {} |", cells.map(|cell| cell.replace('|', "\\|").replace('\n', " ")).join(" | "))
}

/// The line of a page that has the day of the last run of all.
pub fn last(page: &str) -> Option<&str> {
    page.lines().find(|line| line.starts_with(LAST))
}

/// That line for a day.
pub fn last_on(day: &str) -> String {
    format!("{LAST}{day}.")
}

/// The page with these rows, in this order, and the line about the last run.
pub fn page(rows: &[String], last: &str) -> String {
    let mut page = format!("{TOP}{last}\n\n{HEAD}");
    for row in rows {
        let _ = writeln!(page, "{row}");
    }
    page
}
