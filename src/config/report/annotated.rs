//! The effective configuration as a file to read and to begin from: every key with its value, where that came
//! from, and, where the key comes first, what it means and accepts.
//!
//! Invariant: what is added are comments, so it parses to what [`AsToml`] alone parses to.

use std::collections::BTreeSet;
use std::fmt;

use super::reference::meanings;
use super::{AsToml, Setting};

/// [`AsToml`] with the meaning of each key.
pub struct Annotated<'a>(pub &'a [Setting]);

impl fmt::Display for Annotated<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let meanings = meanings();
        let mut told = BTreeSet::new();
        let mut table = "";
        for line in AsToml(self.0).to_string().lines() {
            if line.starts_with('[') {
                table = line;
            }
            let name = key_of(line).map(|key| full_name(table, key)).unwrap_or_default();
            if let Some(meaning) = meanings.get(&name).filter(|_| told.insert(name.clone())) {
                writeln!(f)?;
                meaning.lines().try_for_each(|text| writeln!(f, "# {text}"))?;
            }
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}

/// The key of a line that [`AsToml`] prints: `key = value  # from`, or `# key is not set`.
fn key_of(line: &str) -> Option<&str> {
    match line.strip_prefix("# ") {
        Some(comment) => comment.strip_suffix(" is not set"),
        None => line.split_once(" = ").map(|(key, _)| key),
    }
}

/// Its name in the reference: `[provider.gmail]` and `retry.first` make `retry.first`.
fn full_name(table: &str, key: &str) -> String {
    let table = table.trim_matches(['[', ']']);
    let kind = match table.split('.').next().unwrap_or_default() {
        _ if table.ends_with(".on_reply") => "on_reply",
        "provider" | "default" if key.starts_with("retry.") => "",
        "default" => "provider",
        kind => kind,
    };
    if kind.is_empty() { key.to_owned() } else { format!("{kind}.{key}") }
}

#[cfg(test)]
mod tests {
    use super::super::reference::key_names;
    use super::*;
    use crate::config::Loaded;

    #[test]
    fn every_key_is_told_once_and_the_values_stay_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let dkim = crate::config::dkim::example(dir.path());
        let text = "[provider.a]\nrelay = 'h.example:587'\nretry.first = '3s'\n[[provider.a.on_reply]]\ncode = 421\nslow_to = '1/m'\n\
                    for = '1h'\n[[route]]\nvia = 'a'\n[[limit]]\nprovider = 'a'\nrate = '1/s'\n[[user]]\nname = 'jo'\n\
                    password = 'HASH'\n[[rewrite]]\naddress = '*@*.lan'\nto = '*@test.example'\n[[copy]]\nto = 'kept@test.example'\n\
                    [sandbox]\nto = 'all@test.example'\n[srs]\ndomain = 'srs.test.example'\nsecret = '0123456789abcdef'\n[tls_report]\nfrom = 'tls@test.example'\n";
        let keys = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
        let text = text.replace("HASH", keys);
        let loaded = Loaded::parse(&format!("{text}{dkim}"), "my.toml").unwrap();
        let plain = AsToml(&loaded.settings).to_string();
        let printed = Annotated(&loaded.settings).to_string();
        let values = |text: &str| -> Vec<String> {
            text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')).map(str::to_owned).collect()
        };
        assert_eq!(values(&printed), values(&plain));
        Loaded::parse(&printed.replace("<secret>", keys), "again").unwrap_or_else(|e| panic!("{e}\n{printed}"));

        let meanings = meanings();
        let comment = |meaning: &str| meaning.lines().map(|line| format!("# {line}\n")).collect::<String>();
        for name in key_names() {
            let (meaning, key) = (&meanings[&name], name.split_once('.').map_or(name.as_str(), |(_, key)| key));
            // A rule shows what it says.
            let said = !name.starts_with("on_reply.") || ["code", "slow_to", "for", "scope"].contains(&key);
            let found = printed.matches(&comment(meaning)).count();
            let same = meanings.values().filter(|other| *other == meaning).count();
            assert!(found <= same && (found >= 1 || !said), "{name}: {found} times in\n{printed}");
        }
    }

    #[test]
    fn names_are_those_of_the_reference() {
        for (table, key, name) in [
            ("", "drain", "drain"),
            ("[[listener]]", "tls.mode", "listener.tls.mode"),
            ("[provider.\"a.b\"]", "match.mx", "provider.match.mx"),
            ("[default]", "rate", "provider.rate"),
            ("[default]", "retry.max", "retry.max"),
            ("[[provider.a.on_reply]]", "for", "on_reply.for"),
            ("[[default.on_reply]]", "text", "on_reply.text"),
        ] {
            assert_eq!(full_name(table, key), name);
        }
        assert_eq!(key_of("# tls.mode is not set"), Some("tls.mode"));
        assert_eq!(key_of("rate = [\"1/s\"]  # default"), Some("rate"));
        assert_eq!(key_of("[queue]"), None);
    }
}
