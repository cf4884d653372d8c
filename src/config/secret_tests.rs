//! What is found of a secret, in which forms, and what is not taken for one.

use super::*;

/// From a file: one line end at the end is the editor's, anything else that nobody sees is a mistake.
#[test]
fn what_nobody_typed_is_not_part_of_a_secret() {
    let dir = tempfile::tempdir().unwrap();
    let (file, config) = (dir.path().join("secret"), dir.path().join("config.toml"));
    let load = |bytes: &[u8]| {
        std::fs::write(&file, bytes).unwrap();
        let text = format!(
            "hostname = 'a.example'\n[provider.s]\nrelay = 'h.example:587'\nauth = {{ user = 'u', password = {{ file = '{}' }} }}\n[[route]]\nvia = 's'\n",
            file.display()
        );
        std::fs::write(&config, text).unwrap();
        match crate::config::Config::load(Some(&config)) {
            Ok(loaded) => {
                Ok(loaded.providers[0].relay.as_ref().unwrap().auth.as_ref().unwrap().password.reveal().to_owned())
            }
            Err(e) => Err(e.to_string()),
        }
    };
    for (bytes, secret) in [
        (&b"hunter2"[..], "hunter2"),
        (b"hunter2\n", "hunter2"),
        (b"hunter2\r\n", "hunter2"),
        (b" hunter 2 \n", " hunter 2 "),
        ("h\u{fc}nter".as_bytes(), "h\u{fc}nter"),
    ] {
        assert_eq!(load(bytes).as_deref(), Ok(secret));
    }
    for (bytes, told) in [
        (&b"hunter2\n\n"[..], "has a line end behind its first 7 bytes"),
        (b"hunter2\nhunter3\n", "has a line end behind its first 7 bytes"),
        (b"hun\tter2", "has a control character behind its first 3 bytes"),
        (b"\0", "has a control character behind its first 0 bytes"),
        ("\u{feff}hunter2\n".as_bytes(), "begins with a byte order mark"),
        (b"\n", "is empty"),
    ] {
        let said = load(bytes).unwrap_err();
        assert!(said.contains(told) && !said.contains("hunter"), "{said}");
    }
}

fn credentials(user: &str, password: &str) -> Credentials {
    Credentials { user: user.into(), password: Secret::new(password.into()), mechanism: None }
}

fn redacted(password: &str, text: &str) -> String {
    Redactor::new(&[credentials("user", password)]).redact(text.into())
}

const PASSWORD: &str = "hunter2-S3cr3tPW";

fn percent(text: &str, escape: &str) -> String {
    text.bytes().map(|b| format!("{escape}{b:02X}")).collect()
}

#[test]
fn every_form_of_a_secret_is_masked_and_nothing_around_it() {
    let hex = |text: &str| text.bytes().map(|b| format!("{b:02x}")).collect::<String>();
    let plain = format!("\0user\0{PASSWORD}");
    for form in [
        PASSWORD.to_owned(),
        PASSWORD.to_uppercase(),
        "hunter2-\\S3cr3tPW".to_owned(),
        "hunter2- S3cr3tPW".to_owned(),
        STANDARD.encode(PASSWORD),
        STANDARD.encode(&plain),
        STANDARD.encode(&plain).to_lowercase(),
        hex(PASSWORD),
        hex(PASSWORD).to_uppercase(),
        hex(&plain),
        percent(PASSWORD, "%"),
        percent(PASSWORD, "%").to_lowercase(),
        percent(PASSWORD, "="),
        percent(PASSWORD, "+"),
        percent(PASSWORD, "\\x"),
        PASSWORD.replace('-', "%2d"),
        // What a server that cuts leaves of it.
        PASSWORD[..12].to_owned(),
        STANDARD.encode(&plain)[..17].to_owned(),
    ] {
        let told = redacted(PASSWORD, &format!("5.7.8 rejected {form} (do not try again)"));
        assert!(told.starts_with("5.7.8 rejected ***"), "{form}: {told}");
        assert!(told.ends_with(" (do not try again)"), "{form}: {told}");
        assert!(told.len() < 50, "{form}: {told}");
    }
    let own = "5.7.8 Username and password not accepted: see https://smart.example/?p=1+2%20=3";
    assert_eq!(redacted(PASSWORD, own), own);
}

#[test]
fn base64_is_found_at_every_alignment_and_in_both_alphabets() {
    let awkward = "~~~???>>>ÿÿ-pass";
    for (before, after) in ["", "a", "ab", "abc"].iter().flat_map(|b| ["", "y", "yz"].map(|a| (*b, a))) {
        for password in [PASSWORD, awkward] {
            let encoded = STANDARD.encode(format!("{before}{password}{after}"));
            let url = encoded.replace('+', "-").replace('/', "_");
            for sent in [&encoded, &url] {
                let told = redacted(password, &format!("no: {sent}"));
                assert_eq!(told, "no: ***", "{sent}");
            }
        }
    }
}

#[test]
fn what_is_split_or_cut_is_found() {
    let sent = STANDARD.encode(format!("\0user\0{PASSWORD}"));
    let sent = sent.trim_end_matches('=');
    for at in 1..sent.len() {
        let told = redacted(PASSWORD, &format!("5.7.8 no {} {}", &sent[..at], &sent[at..]));
        assert_eq!(told, "5.7.8 no ***", "split at {at}");
    }
    for at in TAIL..PASSWORD.len() {
        assert_eq!(redacted(PASSWORD, &format!("no {}", &PASSWORD[..at])), "no ***", "cut at {at}");
    }
}

#[test]
fn short_and_strange_secrets_are_masked_too() {
    for password in ["a", "ab", "abc", "abcd", "ÿö€", "tab\there", "two words", "back\\slash", "***"] {
        let shown: String = password.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        assert!(!redacted(password, &format!("5{shown}5")).contains(password) || password == MASK, "{password}");
        let sent = STANDARD.encode(format!("\0user\0{password}"));
        assert_eq!(redacted(password, &format!("5: {sent}")).find(&sent), None, "{password}");
        let sent = STANDARD.encode(password);
        assert_eq!(redacted(password, &format!("5: {sent}")).find(&sent), None, "{password}");
    }
    assert_eq!(redacted(" \t ", "5: nothing to find"), "5: nothing to find");
    assert_eq!(Redactor::default().redact("5: nothing".into()), "5: nothing");
}

/// As long as a configuration lets it be: no piece is longer than [`RAW`], and there are a few for each byte.
#[test]
fn a_long_secret_makes_no_large_finder() {
    let long: String = (0..4096u32).map(|n| char::from(b'!' + (n * n % 89) as u8)).collect();
    let mut pieces = Vec::new();
    add_forms(&credentials("user", &long), &mut pieces, &mut Vec::new());
    assert!(pieces.iter().all(|(piece, _)| piece.len() <= RAW));
    assert!(pieces.len() <= 4096 * 16, "{}", pieces.len());
}

#[test]
fn a_host_is_known_to_have_heard_the_secrets_of_all() {
    let both = [credentials("a", "first-password"), credentials("b", "second-password")];
    let told = Redactor::new(&both).redact("x first-password y second-password z".into());
    assert_eq!(told, "x *** y *** z");
    assert_eq!(format!("{both:?} {:?}", Redactor::new(&both)).matches("password").count(), 2, "field names only");
}

#[test]
fn user_parts_of_urls_are_not_repeated() {
    for (message, told) in [
        (r#""postgres://u:p@h/db" is no store"#, r#""postgres://***@h/db" is no store"#),
        (r#""postgres://u:p w"@@h/db" is no store"#, r#""postgres://***@h/db" is no store"#),
        (r#"found the string "u:p w@smtp.example:587""#, r#"found the string "***@smtp.example:587""#),
        (r#"expected "*@shop.example", found "x:1""#, r#"expected "*@shop.example", found "x:1""#),
        ("expected tls://ADDRESS#NAME", "expected tls://ADDRESS#NAME"),
    ] {
        assert_eq!(without_users(message), told);
    }
}

proptest::proptest! {
    #[test]
    fn any_text_is_taken_and_no_secret_is_left(
        before in ".{0,20}", password in "[a-zA-Z0-9:;,.@#$&!_-]{6,20}", after in ".{0,20}", escaped in proptest::bool::ANY,
    ) {
        let inside = if escaped { percent(&password, "%") } else { password.clone() };
        let told = redacted(&password, &format!("{before}{inside}{after}"));
        proptest::prop_assert!(told.contains(MASK));
        let bare: String = told.chars().filter(|c| !is_skipped(*c)).collect();
        let secret: String = password.chars().filter(|c| !is_skipped(*c)).collect();
        proptest::prop_assert!(secret.is_empty() || !bare.contains(&secret), "{}", told);
    }
}
