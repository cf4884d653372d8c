use super::*;

fn settings(text: &str) -> Vec<Setting> {
    Loaded::parse(text, "config.toml").expect("a good configuration").settings
}

#[test]
fn tells_what_changed_and_nothing_else() {
    let old = settings("[provider.a]\nmatch = { domains = [\"a.example\"] }\nrate = \"20/s\"\n");
    let new = settings("[provider.a]\nmatch = { domains = [\"a.example\"] }\nrate = \"10/s\"\n");
    assert_eq!(changes(&old, &old), Vec::<String>::new());
    assert_eq!(changes(&old, &new), ["[provider.a] rate: [\"20/s\"] → [\"10/s\"]"]);
    assert_eq!(changes(&settings(""), &settings("drain = \"5s\"\n")), ["drain: \"30s\" → \"5s\""]);
    let gone = changes(&old, &settings(""));
    assert_eq!(gone, ["[provider.a]: match.domains = [\"a.example\"], rate = [\"20/s\"] (gone)"]);
    let new = changes(&settings(""), &old);
    assert_eq!(new, ["[provider.a]: match.domains = [\"a.example\"], rate = [\"20/s\"] (new)"]);
}

/// A file in which only lines were moved, joined or commented says the same.
#[test]
fn lines_that_moved_are_no_change() {
    let old =
        settings("[queue]\nmemory = '64MiB'\n[[limit]]\nsender = '*@a.example'\nrate = '5/m'\n[log]\nlevel = 'warn'\n");
    let new = settings(
        "# ours\n\n[log]\nlevel = 'warn'\n\n[[limit]]\nrate = ['5/m']\nsender = '*@a.example'\n\n[queue]\nmemory = '65536KiB'\n",
    );
    assert_eq!(changes(&old, &new), Vec::<String>::new());
}

/// One that is put first does not make all behind it look changed.
#[test]
fn an_entry_of_a_list_is_known_by_what_it_says() {
    let limit = |domain: &str, rate: &str| format!("[[limit]]\nsender = '*@{domain}'\nrate = '{rate}'\n");
    let (a, b, c) = (limit("a.example", "1/m"), limit("b.example", "2/m"), limit("c.example", "3/m"));
    let told = |old: &[&str], new: &[&str]| changes(&settings(&old.concat()), &settings(&new.concat()));
    let (a, b, c) = (a.as_str(), b.as_str(), c.as_str());
    let added = |n: u8| vec![format!("[[limit]] (no. {n}): sender = \"*@c.example\", rate = [\"3/m\"] (new)")];
    assert_eq!(told(&[a, b], &[c, a, b]), added(1));
    assert_eq!(told(&[a, b], &[a, c, b]), added(2));
    assert_eq!(told(&[a, b, c], &[a, c]), ["[[limit]] (no. 2): sender = \"*@b.example\", rate = [\"2/m\"] (gone)"]);
    assert_eq!(told(&[a, b, c], &[c, a, b]), ["[[limit]]: no. 3 is now no. 1"]);
    let slower = limit("b.example", "1/m");
    assert_eq!(told(&[a, b, c], &[a, &slower, c]), ["[[limit]] (no. 2) rate: [\"2/m\"] → [\"1/m\"]"]);
}

#[test]
fn a_rule_that_is_put_first_changes_no_other() {
    let rules = |first: &str| {
        settings(&format!(
            "[provider.gmail]\nrate = '9/s'\n{first}[[provider.gmail.on_reply]]\ntext = 'slow'\ndelay = '1h'\n"
        ))
    };
    let told = changes(&rules(""), &rules("[[provider.gmail.on_reply]]\ncode = 421\npause = true\nfor = '5m'\n"));
    assert!(told.len() == 1 && told[0].contains("code = 421") && told[0].ends_with("(new)"), "{told:?}");
}

#[test]
fn a_long_difference_is_cut() {
    let limits = |n: usize| {
        settings(&(0..n).map(|n| format!("[[limit]]\nsender = '*@{n}.example'\nrate = '1/m'\n")).collect::<String>())
    };
    let told = changes(&limits(1), &limits(80));
    assert_eq!(
        (told.len(), told.last().map(String::as_str)),
        (TOLD + 1, Some("and 29 more; see mailweir check --all"))
    );
}

#[test]
fn a_secret_is_never_told() {
    let with = |password: &str| {
        settings(&format!(
            "[provider.a]\nmatch = {{ domains = [\"a.example\"] }}\nrelay = \"mx.a.example:587\"\nauth = {{ user = \"u\", password = \"{password}\" }}\n"
        ))
    };
    let told = changes(&with("s3cr3t-one"), &with("s3cr3t-two")).join("\n");
    assert!(!told.contains("s3cr3t"), "{told}");
}

#[test]
fn a_file_that_differs_is_told_and_one_that_says_the_same_is_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("my.toml");
    let write = |text: &str| std::fs::write(&path, text).expect("written");
    let smart = |password: &str| {
        format!(
            "hostname = 'a.example'\n[provider.s]\nrelay = '[::1]:465'\nauth = {{ user = 'u', password = '{password}' }}\n[[route]]\nvia = 's'\n"
        )
    };
    write(&smart("one"));
    let loaded = Loaded::read(Some(&path)).expect("good");
    let told = || {
        file_differs(&path, loaded.read.expect("a file"), &loaded.settings, &loaded.config)
            .map(|t| t.replace(&*path.to_string_lossy(), "FILE"))
    };
    assert_eq!(told(), None);
    write(&format!("# a comment\n{}", smart("one")));
    assert_eq!(told(), None, "it says the same");
    write(&smart("two"));
    assert_eq!(
        told().expect("a secret"),
        "FILE has changes that are not in force (a secret): `mailweir reload` takes them up"
    );
    write(&format!("drain = '5s'\n{}", smart("one")));
    let drain = "FILE has changes that are not in force (drain: \"30s\" → \"5s\"): `mailweir reload` takes them up";
    assert_eq!(told().expect("a value"), drain);
    write(&format!("{}[queue]\nstore = 'sqlite:other.db'\n", smart("one")));
    assert!(told().expect("a store").ends_with("other.db\"): another store needs a restart"));
    write(&format!("drain = 5s\n{}", smart("one")));
    let broken = told().expect("a fault");
    assert!(
        broken.starts_with(
            "FILE cannot be taken as it is now; what was read of it before stays in force\nFILE:1:9: is not TOML: "
        ),
        "{broken}"
    );
    assert!(broken.ends_with("\n  1 | drain = 5s\n    |         ^^"), "{broken}");
    for nothing in ["", "\n", "# later\n"] {
        write(nothing);
        let told = told().expect("nothing is left");
        assert!(
            told.starts_with("FILE has no values at all: a reload is refused") && !told.contains("takes them up"),
            "{told}"
        );
    }
    std::fs::remove_file(&path).expect("removed");
    assert!(told().expect("gone").contains("cannot read it: No such file"));
}

/// What all providers take over is one change, and one that is written for each of a few is told of each.
#[test]
fn a_value_that_others_take_over_is_told_once() {
    let told = changes(&settings(""), &settings("[retry]\nexpire = '3d'\n"));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("expire: \"5d\" → \"3d\" (the same in "), "{told:?}");
    let both = |rate: &str| {
        let one =
            |name: &str| format!("[provider.{name}]\nmatch = {{ domains = ['{name}.example'] }}\nrate = '{rate}'\n");
        settings(&[one("a"), one("b")].concat())
    };
    assert_eq!(changes(&both("1/s"), &both("2/s")).len(), 2);
}

/// What waits for a host is tried again where the way there is another one, and nowhere else.
#[test]
fn providers_are_known_whose_hosts_are_reached_in_another_way() {
    let config = |a: &str, b: &str| {
        let text = format!(
            "[provider.a]\nmatch = {{ domains = [\"a.example\"] }}\n{a}\n[provider.b]\nrelay = \"smtp.example:587\"\nmatch = {{ domains = [\"b.example\"] }}\n{b}\n"
        );
        Loaded::parse(&text, "config.toml").expect("a good configuration").config
    };
    let with = |password: &str| format!("auth = {{ user = \"u\", password = \"{password}\" }}\ntls = \"required\"");
    let before = config("", &with("a password"));
    assert_eq!(reached_otherwise(&before, &before), Vec::<String>::new());
    assert_eq!(reached_otherwise(&before, &config("rate = \"5/s\"", &with("a password"))), Vec::<String>::new());
    assert_eq!(reached_otherwise(&before, &config("tls = \"verified\"", &with("another one"))), ["a", "b"]);
    assert_eq!(reached_otherwise(&before, &config("relay = \"mx.example:25\"", &with("a password"))), ["a"]);
}

/// A file of users is no table, and who is in it matters most.
#[test]
fn users_of_a_file_who_came_and_went_are_told() {
    use std::os::unix::fs::PermissionsExt as _;

    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("users");
    let hash = |password: &str| crate::config::StoredPassword::scram(password).expect("keys");
    let with = |lines: &[(&str, &str)], more: &str| {
        let text: String = lines.iter().map(|(name, hash)| format!("{name}:{hash}\n")).collect();
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("a mode");
        let text = format!("users = '{}'\nhostname = 'a.example'\n{more}", path.display());
        Loaded::parse(&text, "config.toml").expect("a good configuration").config
    };
    let (one, two) = (hash("one"), hash("two"));
    let before = with(&[("jo", &one), ("ann", &one)], "");
    assert_eq!(users(&before, &before), Vec::<String>::new());
    let table = format!("[[user]]\nname = 'app'\npassword = '{one}'\n");
    let after = with(&[("ann", &two), ("Bob", &one), ("al", &one)], &table);
    let told = ["users: Bob, al may log in now", "users: jo may not log in any more", "users: 1 with another password"];
    assert_eq!(users(&before, &after), told);
    let many: Vec<String> = (0..9).map(|n| format!("u{n}")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), one.as_str())).collect();
    assert_eq!(users(&with(&[], ""), &with(&many, "")), ["users: u0, u1, u2, u3, u4 and 4 more may log in now"]);
}
