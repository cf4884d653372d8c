//! What is told of `[[dkim]]`, and whose keys a message gets.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use super::*;
use crate::dkim::Algorithm;

/// A table that can be read, whose key is in that directory.
pub(in crate::config) fn example(directory: &Path) -> String {
    let (_, pem) = SigningKey::generate(Algorithm::Ed25519Sha256).expect("a key");
    let path = directory.join("key.pem");
    std::fs::write(&path, &*pem).expect("a file");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("a mode");
    format!("[[dkim]]\ndomain = 'shop.example'\nselector = 'a'\nkey = '{}'\n", path.display())
}

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Files {
        Files(tempfile::tempdir().expect("a directory"))
    }

    fn write(&self, name: &str, mode: u32, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).expect("a file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("a mode");
        path
    }

    fn key(&self, name: &str, mode: u32) -> PathBuf {
        let (_, pem) = SigningKey::generate(Algorithm::Ed25519Sha256).expect("a key");
        self.write(name, mode, &pem)
    }

    /// The faults and warnings of a file with this text in it, without the directory.
    fn told(&self, text: &str) -> String {
        let text =
            format!("hostname = 'relay.shop.example'\n{text}").replace("DIR", &self.0.path().display().to_string());
        let told = match crate::config::Loaded::parse(&text, "x") {
            Ok(loaded) => loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
            Err(error) => format!("{error:#}"),
        };
        told.replace(&self.0.path().display().to_string(), "DIR")
    }
}

fn table(domain: &str, selector: &str, key: &str) -> String {
    format!("[[dkim]]\ndomain = '{domain}'\nselector = '{selector}'\nkey = 'DIR/{key}'\n")
}

#[test]
fn every_mistake_is_told_with_what_to_do_and_nothing_of_a_key() {
    let files = Files::new();
    files.key("good.pem", 0o600);
    files.key("readable.pem", 0o644);
    files.key("mounted.pem", 0o440);
    files.key("open.pem", 0o604);
    files.write("ec.pem", 0o600, &rcgen::KeyPair::generate().expect("a key").serialize_pem());
    files.write("none.pem", 0o600, "hello\n");
    let good = table("shop.example", "a", "good.pem");
    assert_eq!(files.told(&good), "");
    assert_eq!(files.told(&table("shop.example", "a.b-c.2026", "mounted.pem")), "");
    for (text, says) in [
        (
            table("shop.example", "a", "readable.pem"),
            "DIR/readable.pem (mode 0644): expected 0600, or 0640 and the group that mailweir runs as (chmod 600 DIR/readable.pem)",
        ),
        (table("shop.example", "a", "open.pem"), "DIR/open.pem (mode 0604)"),
        (table("shop.example", "a_b", "good.pem"), "RFC 6376 has none in a selector"),
        (table("shop.example", "a._domainkey.shop.example", "good.pem"), "expected \"a\""),
        (table("shop.example", "a", "ec.pem"), "DIR/ec.pem is no RSA key of 2048 bits or more and no Ed25519 key"),
        (table("shop.example", "a", "none.pem"), "DIR/none.pem has no private key: expected PEM"),
        (table("shop.example", "a", "missing.pem"), "cannot read DIR/missing.pem: No such file"),
        (table("shop.example", "a b", "good.pem"), "\"a b\" is no selector"),
        (table("shop.example", "", "good.pem"), "\"\" is no selector"),
        (table("shop", "a", "good.pem"), "\"shop\" has no domain"),
        (
            "[[dkim]]\ndomain = 'shop.example'\n".into(),
            "`selector`, `key` are missing: expected domain, selector and key",
        ),
        ("[[dkim]]\n".into(), "`domain`, `selector`, `key` are missing"),
        (format!("{good}{}", table("SHOP.example.", "A", "good.pem")), "is there already for this domain"),
        (format!("{good}expires = '1m'\n"), "is shorter than an hour"),
        ("[dkim]\ndomain = 'shop.example'\n".into(), "[[dkim]]"),
        (good.replace("selector", "selektor"), "did you mean `selector`?"),
    ] {
        let told = files.told(&text);
        assert!(told.contains(says), "{told}");
        assert!(!told.contains("BEGIN"), "{told}");
    }
    let many: String = (0..5).map(|n| table("shop.example", &format!("s{n}"), "good.pem")).collect();
    assert!(files.told(&many).contains("has 4 already: expected at most 4 keys a domain"), "{}", files.told(&many));
}

#[test]
fn the_nearest_domain_signs_with_all_of_its_keys() {
    let files = Files::new();
    files.key("key.pem", 0o600);
    let text = [
        table("shop.example", "a", "key.pem"),
        table("shop.example", "b", "key.pem"),
        table("news.shop.example", "c", "key.pem"),
        table("alone.example", "d", "key.pem") + "subdomains = false\n",
    ];
    let text = text.concat().replace("DIR", &files.0.path().display().to_string());
    let config = Config::parse(&text, "x").expect("a configuration");
    let for_domain = |domain: &str| config.dkim_for(domain).iter().map(|d| d.selector.clone()).collect::<String>();
    for (domain, selectors) in [
        ("shop.example", "ab"),
        ("relay.shop.example", "ab"),
        ("x.y.shop.example", "ab"),
        ("news.shop.example", "c"),
        ("a.news.shop.example", "c"),
        ("alone.example", "d"),
        ("sub.alone.example", ""),
        ("myshop.example", ""),
        ("example", ""),
        ("", ""),
    ] {
        assert_eq!(for_domain(domain), selectors, "{domain}");
    }
    assert_eq!(format!("{:?}", config.dkim[0].key.key), "<key>");
}
