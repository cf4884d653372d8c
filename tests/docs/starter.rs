//! config.toml is what people begin with: short, right as it is, and right with every example switched on.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use mailweir::config::Config;

use super::pages::{ROOT, read};

fn starter() -> String {
    read(&Path::new(ROOT).join("config.toml"))
}

/// A line that is an example: `#` and no space. All other comments are for people.
fn example(line: &str) -> Option<&str> {
    line.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| c != ' ' && c != '#'))
}

fn switched_on(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", example(line).unwrap_or(line))).collect()
}

/// `mailweir check` of that text, in a directory of its own, with the password file that it names.
fn check(text: &str) -> Output {
    let directory = tempfile::tempdir().expect("a directory");
    let password = directory.path().join("password");
    std::fs::write(&password, "hunter2\n").expect("written");
    std::fs::set_permissions(&password, std::fs::Permissions::from_mode(0o600)).expect("a mode");
    let text = text.replace("/etc/mailweir/password", &password.display().to_string());
    std::fs::write(directory.path().join("config.toml"), text).expect("written");
    let mut check = Command::new(env!("CARGO_BIN_EXE_mailweir"));
    check.arg("check").current_dir(directory.path()).stdin(Stdio::null()).output().expect("it starts")
}

#[test]
fn the_starter_is_short_and_right_with_and_without_its_examples() {
    let text = starter();
    assert!(text.lines().count() < 100, "{} lines", text.lines().count());
    let examples = text.lines().filter(|line| example(line).is_some()).count();
    assert!(examples > 15, "only {examples} lines of examples");
    for (what, text) in [("as it is", text.clone()), ("with its examples", switched_on(&text))] {
        let done = check(&text);
        let said = String::from_utf8_lossy(&done.stderr);
        // What this machine is warned of: no full name, a small disk.
        let own = said.lines().filter(|line| !line.contains("hostname: ") && !line.contains("min_free"));
        assert!(done.status.success() && !own.into_iter().any(|line| line.contains("warning")), "{what}: {said}");
    }
}

#[test]
fn the_starter_has_what_people_change() {
    let on = switched_on(&starter());
    let path = "{ file = \"/etc/mailweir/password\" }";
    assert!(on.contains(path), "a password in a file");
    let config = Config::parse(&on.replace(path, "\"not-a-secret\""), "config.toml").expect("it is right");
    assert_eq!(config.hostname, "relay.example.com");
    assert!(config.listeners.iter().any(|listener| !listener.allow.is_empty()));
    let with_login = config.providers.iter().any(|p| p.relay.as_ref().is_some_and(|relay| relay.auth.is_some()));
    assert!(with_login, "a smart host with a login");
    assert!(config.routes.iter().any(|route| route.via.name == "smarthost"));

    // Without the examples two providers have a rate and a quota, and the rates are those of the built-in profiles.
    let (live, built_in) = (Config::parse(&starter(), "config.toml").expect("it is right"), Config::default());
    assert_eq!(live.default.rate, built_in.default.rate);
    for name in ["gmail", "microsoft365"] {
        let of = |config: &Config| config.providers.iter().find(|p| p.name == name).cloned().expect(name);
        assert_eq!(of(&live).rate, of(&built_in).rate, "{name}");
        assert_eq!(of(&live).connections, of(&built_in).connections, "{name}");
        assert!(!of(&live).quota.is_empty(), "{name}");
    }
    assert_eq!(live.default.retry, built_in.default.retry);
    assert_eq!(live.queue.keep_failed, built_in.queue.keep_failed);
}

#[test]
fn each_value_of_the_starter_has_a_line_that_says_why() {
    let text = starter();
    let mut told = false;
    for line in text.lines() {
        let comment = line.starts_with('#') && example(line).is_none();
        // A value may share the comment of its neighbour above; a table begins anew after a blank line.
        told = if line.is_empty() { false } else { told || comment };
        let value = example(line).unwrap_or(line);
        assert!(told || value.is_empty() || comment || value.starts_with('['), "nothing says why: {line}");
    }
}
