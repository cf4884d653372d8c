//! Configurations that must be refused: each `tests/bad_config/NAME.toml` has a `NAME.expect` with
//! the faults it must be told, one a line: the beginning of each, after the name of the file.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use mailweir::config::{Config, Loaded};

#[test]
fn every_bad_configuration_is_refused_with_its_reason() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad_config");
    let mut found = 0;
    let mut wrong = Vec::new();
    for entry in std::fs::read_dir(&dir).expect("the fixtures are there") {
        let path = entry.expect("a directory entry").path();
        if path.extension().is_none_or(|e| e != "toml") {
            continue;
        }
        found += 1;
        let expected = std::fs::read_to_string(path.with_extension("expect")).expect("each case says what it expects");
        let told = match Config::load(Some(&path)) {
            Ok(_) => "nothing: it was accepted".to_owned(),
            Err(e) => e.to_string().replace(&*path.to_string_lossy(), "FILE"),
        };
        let matches = |told: &str, expected: &str| match expected.split_once(' ') {
            // Without a place: anywhere in the line.
            Some((place, _)) if !place.starts_with(|c: char| c.is_ascii_digit()) => told.contains(expected),
            _ => told.starts_with(&format!("FILE:{expected}")),
        };
        let same_count = told.lines().count() == expected.lines().count();
        if !same_count || !told.lines().zip(expected.lines()).all(|(t, e)| matches(t, e)) {
            wrong.push(format!("{}\n--- expected\n{expected}--- told\n{told}\n", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(found >= 90, "only {found} cases were found");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let missing = dir.path().join("none.toml");
    let e = Config::load(Some(&missing)).expect_err("it is not there").to_string();
    assert!(e.starts_with(&format!("{}: cannot read it: ", missing.display())), "{e}");
    let e = Config::load(Some(dir.path())).expect_err("it is a directory").to_string();
    assert!(e.ends_with("it is a directory: expected a file"), "{e}");
    let latin1 = dir.path().join("latin1.toml");
    std::fs::write(&latin1, b"drain = \"1s\"\n# M\xfcller\n").expect("written");
    let e = Config::load(Some(&latin1)).expect_err("it is not UTF-8").to_string();
    assert!(e.contains("latin1.toml:2:4: is not UTF-8 text: this byte is ü in Latin-1: "), "{e}");
}

#[test]
fn secrets_are_read_from_where_the_file_says() {
    let dir = tempfile::tempdir().expect("a directory");
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "pa ss\n").expect("written");
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).expect("a mode");
    let text = format!(
        "hostname = 'a.example'\n[provider.s]\nrelay = '[::1]:465'\nauth = {{ user = 'u', password = {{ file = '{}' }} }}\n\
         [[route]]\nvia = 's'\n",
        secret.display()
    );
    let loaded = Loaded::parse(&text, "x").expect("good");
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let relay = loaded.config.providers[0].relay.as_ref().expect("a smart host");
    assert_eq!((&*relay.host, relay.port, relay.implicit_tls), ("::1", 465, true));
    assert_eq!(relay.auth.as_ref().map(|a| a.password.reveal()), Some("pa ss"));
    std::fs::write(&secret, "\n").expect("written");
    let e = Config::parse(&text, "x").expect_err("empty").to_string();
    assert_eq!(e, "x:4:33: provider.s.auth.password: the secret is empty");
}

/// Whatever is wrong about a secret, or about the lines around it, no message has it.
#[test]
fn no_message_repeats_a_secret() {
    const SECRET: &str = "hunter2S3cr3t";
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("config.toml");
    let smart = |auth: &str| format!("[provider.s]\nrelay = \"h.example:587\"\n{auth}\n[[route]]\nvia = \"s\"\n");
    let quoted = |rest: &str| smart(&format!("auth = {{ user = \"u\", password = {rest} }}"));
    let cases = [
        quoted(&format!("{{ vault = \"{SECRET}\" }}")),
        quoted(&format!("{{ {SECRET} = \"x\" }}")),
        quoted(&format!("{{ env = \"{SECRET}\" }}")),
        quoted(&format!("{{ file = \"{SECRET}\" }}")),
        quoted(&format!("{{ env = \"A\", file = \"{SECRET}\" }}")),
        quoted(&format!("[\"{SECRET}\"]")),
        quoted(&format!("\"{SECRET}\\u0000\"")),
        quoted(&format!("\"{SECRET}")),
        quoted(SECRET),
        quoted(&format!("\"{}\"", SECRET.repeat(400))),
        quoted(&format!("\"{SECRET}\\q\"")),
        quoted(&format!("'{SECRET}' \"{SECRET}\"")),
        quoted(&format!("\"\"\"{SECRET}")),
        smart(&format!("auth = \"u:{SECRET}\"")),
        smart(&format!("auth = [\"u\", \"{SECRET}\"]")),
        smart(&format!("auth = {{ user = \"u\", pasword = \"{SECRET}\" }}")),
        smart(&format!("auth = {{ user = \"u\", \"{SECRET}\" }}")),
        smart(&format!("auth.user = \"u\"\nauth.password.value = \"{SECRET}\"")),
        smart(&format!("auth.password = \"{SECRET}\"\nauth.password = \"{SECRET}\"")),
        smart(&format!("auth.password = {SECRET}\nauth.user = \"u\"")),
        smart(&format!("[provider.s.auth]\nuser = \"u\"\npassword = \"{SECRET}\nmore = 1")),
        format!("[provider]\ns = \"smtp://u:{SECRET}@h.example\"\n"),
        format!("[provider.s]\nrelay = \"u:{SECRET}@h.example:587\"\n"),
        format!("[provider.s]\nrelay = \"smtp://u:{SECRET}@h.example:587\"\n"),
        format!("[[route]]\nvia = \"smtp://u:{SECRET}@h.example\"\n"),
        format!("[queue]\nstore = \"postgres://u:{SECRET}@db.example/q\"\n"),
        format!("[queue]\nstore = \"mysql://u:{SECRET}@db.example/q\"\n"),
        format!("[queue]\nstore = \"mysql://u:{SECRET} \\\"x@db.example/q\"\n"),
        format!("[dns]\nnameservers = [\"tls://u:{SECRET}@192.0.2.1#dns.example\"]\n"),
        format!("\"https://u:{SECRET}@h.example\" = 1\n"),
        format!("[[listener]]\naddress = \"u:{SECRET}@127.0.0.1:2525\"\n"),
        format!("[log]\nlevel = \"https://u:{SECRET}@h.example\"\n"),
        // In other places and spellings, as they are left over from other programs, or by a mistake.
        format!("smtp_sasl_password_maps = static:u:{SECRET}\nrelayhost = [h.example]:587\n"),
        format!("relayhost = [h.example]:587\nrelay_password = {SECRET}\n"),
        format!("mailhub=h.example\nAuthPass={SECRET}\n"),
        format!("AuthPass={SECRET}\n"),
        format!("account x\nhost h.example\npassword {SECRET}\n"),
        format!("password {SECRET}\n"),
        format!("provider:\n  auth:\n    password: {SECRET}\n"),
        format!("password: {SECRET}\n"),
        format!("{{ \"password\": \"{SECRET}\" }}\n"),
        format!("{SECRET}\n"),
        format!("  {SECRET}\" }}\n"),
        format!("{SECRET} = \"password\n"),
        format!("{SECRET} = x\n"),
        format!("[{SECRET}\n"),
        format!("export PASSWORD={SECRET}\n"),
        format!("relay = u:{SECRET}@h.example\n"),
        smart(&format!("auth = {{\n  user = \"u\"\n  password = \"{SECRET}\"\n}}")),
        smart(&format!("auth = {{\n  user = \"u\",\n  pasword = {SECRET}\n}}")),
        smart(&format!("auth = {{\n  user = \"u\",\n  \"{SECRET}\",\n}}")),
        smart(&format!("auth.password = \"\"\"\n{SECRET}\n\"\"\"\nauth.user = u")),
        smart(&format!("auth.password = '''\n{SECRET} = \"\n'''\nport = \"\"\"")),
        smart(&format!("[provider.s.auth]\nuser = \"u\"\nsecret = {SECRET}")),
        smart(&format!("[provider.s.auth]\nuser = \"u\"\n{SECRET}")),
        smart(&format!("[provider.s.auth]\nuser = \u{201c}u\u{201d}\npassword = \u{201c}{SECRET}\u{201d}")),
        smart(&format!("auth = {{ user = \u{201c}u\u{201d}, password = \u{201c}{SECRET}\u{201d} }}")),
        smart(&format!(
            "auth = {{ user = 'u', password = '{SECRET}' }}\nauth = {{ user = 'u', password = '{SECRET}' }}"
        )),
        smart(&format!("auth: {{ user: 'u', password: '{SECRET}' }}")),
        smart(&format!("relay_auth = 'u' / '{SECRET}'")),
        format!("[provider.s]\nrelay = smtp://u:{SECRET}@h.example\n"),
        format!("[provider.s]\nrelay = \"smtp://u:{SECRET}@h.example\n"),
    ];
    for text in cases {
        std::fs::write(&path, &text).expect("written");
        let error = Config::load(Some(&path)).expect_err(&text);
        // With the lines of the file too.
        let told = format!("{error}\n{error:#}\n{}", serde_json::to_string(&error.problems).expect("JSON"));
        assert!(!told.contains(SECRET) && !told.contains("hunter2"), "{text}\n{told}");
        assert!(told.contains("config.toml:"), "where it is: {told}");
    }
}
