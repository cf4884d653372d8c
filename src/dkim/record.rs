//! Published keys (RFC 6376 §3.6.1): the line for a zone, and whether what DNS has is our key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{KeyFault, SigningKey};

/// Longest string of a TXT record, in bytes (RFC 1035 §3.3.14).
const MAX_STRING: usize = 255;

/// Why a record is not the one of a key; for people, with what to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Difference {
    /// There is none.
    Missing,
    /// Several: which one a verifier takes is not defined (RFC 6376 §3.6.2.2).
    Several(usize),
    /// Its `p=` is empty: the key was withdrawn.
    Revoked,
    /// Another key.
    OtherKey,
    /// It is no record of this kind, and why.
    Wrong(String),
    /// It is ours, but `t=y` says that nobody is to rely on it.
    Testing,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Difference::Missing => f.write_str("there is no record: publish it"),
            Difference::Several(n) => write!(f, "there are {n} records: expected one, and receivers take any of them"),
            Difference::Revoked => {
                f.write_str("its p= is empty, so the key is withdrawn: publish it again, or sign with another")
            }
            Difference::OtherKey => f.write_str("it has another key: publish the one below, or sign with that key"),
            Difference::Wrong(why) => write!(f, "{why}"),
            Difference::Testing => f.write_str("t=y in it says that it is only a test: take that out"),
        }
    }
}

/// The value of a tag, without any white space, which DNS panels like to put in.
fn tag(record: &str, name: &str) -> Option<String> {
    record.split(';').find_map(|part| {
        let (tag, value) = part.split_once('=')?;
        (tag.trim() == name).then(|| value.chars().filter(|c| !c.is_whitespace()).collect())
    })
}

/// How the TXT records of the key's name differ from it; `None`: they do not.
///
/// # Errors
/// [`KeyFault::Failed`]: the library cannot tell the public key.
pub fn difference(key: &SigningKey, records: &[String]) -> Result<Option<Difference>, KeyFault> {
    let record = match records {
        [] => return Ok(Some(Difference::Missing)),
        [one] => one,
        several => return Ok(Some(Difference::Several(several.len()))),
    };
    let wrong = |why: String| Ok(Some(Difference::Wrong(why)));
    if let Some(version) = tag(record, "v").filter(|version| version != "DKIM1") {
        return wrong(format!("it begins with v={version:.20}: expected v=DKIM1"));
    }
    // RFC 6376 §3.6.1: receivers discard a record with it elsewhere.
    let first =
        record.split(';').next().and_then(|part| part.split_once('=')).is_some_and(|(tag, _)| tag.trim() == "v");
    if tag(record, "v").is_some() && !first {
        return wrong("v=DKIM1 is not its first tag, and receivers pass over such a record: put it first".into());
    }
    let Some(public) = tag(record, "p") else {
        return wrong("it has no p=: expected v=DKIM1; k=…; p=…".into());
    };
    if public.is_empty() {
        return Ok(Some(Difference::Revoked));
    }
    let (kind, ours) = (tag(record, "k").unwrap_or_else(|| "rsa".into()), key.algorithm().key_type());
    if kind != ours {
        return wrong(format!("it says k={kind:.20}: expected k={ours}"));
    }
    let Ok(public) = STANDARD.decode(&public) else {
        return wrong(
            "its p= is no base64: is it cut off? (strings of a TXT record have 255 characters at most)".into(),
        );
    };
    let own = key.public()?;
    // A cut record is the most frequent mistake, and looks right.
    if public.len() < own.len() && own.starts_with(&public) {
        return wrong("its p= is cut off: publish all strings of the record".into());
    }
    if public != own {
        return Ok(Some(Difference::OtherKey));
    }
    if let Some(hashes) = tag(record, "h").filter(|hashes| !hashes.split(':').any(|hash| hash == "sha256")) {
        return wrong(format!("it allows h={hashes:.40} only: take h= out, or add sha256"));
    }
    if let Some(services) = tag(record, "s").filter(|s| !s.split(':').any(|s| s == "*" || s == "email")) {
        return wrong(format!("it is for s={services:.40} only: take s= out"));
    }
    let flags = tag(record, "t").unwrap_or_default();
    Ok(flags.split(':').any(|flag| flag == "y").then_some(Difference::Testing))
}

/// The record as a line of a zone file.
///
/// # Errors
/// [`KeyFault::Failed`].
pub fn zone_line(domain: &str, selector: &str, key: &SigningKey) -> Result<String, KeyFault> {
    let record = key.record()?;
    let mut strings = Vec::new();
    let mut rest = record.as_str();
    while !rest.is_empty() {
        let (string, more) = rest.split_at(rest.len().min(MAX_STRING));
        strings.push(format!("\"{string}\""));
        rest = more;
    }
    Ok(format!("{selector}._domainkey.{domain}. IN TXT ( {} )", strings.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::super::Algorithm;
    use super::*;

    #[test]
    fn what_dns_has_is_compared_with_the_key_and_every_mistake_has_its_words() {
        let (key, _) = SigningKey::generate(Algorithm::RsaSha256).expect("a key");
        let (other, _) = SigningKey::generate(Algorithm::RsaSha256).expect("a key");
        let record = key.record().expect("a record");
        let told = |records: &[String]| {
            difference(&key, records).expect("a public key").map_or("ours".to_owned(), |told| told.to_string())
        };
        assert_eq!(told(std::slice::from_ref(&record)), "ours");
        assert_eq!(told(&[record.replace("; k=rsa", "").replace("v=DKIM1; ", "")]), "ours");
        assert_eq!(told(&[record.replace("p=MII", "p= MI I") + " ;"]), "ours");
        for (records, says) in [
            (vec![], "there is no record"),
            (vec![record.clone(), record.clone()], "there are 2 records"),
            (vec!["v=DKIM1; p=".to_owned()], "its p= is empty"),
            (vec![other.record().expect("a record")], "it has another key"),
            (vec![record[..200].to_owned()], "its p= is "),
            (vec![record.replace("DKIM1", "DKIM2")], "it begins with v=DKIM2"),
            (vec![record.replace("k=rsa", "k=ed25519")], "it says k=ed25519: expected k=rsa"),
            (vec!["v=spf1 -all".to_owned()], "it begins with v=spf1-all"),
            (vec!["hello".to_owned()], "it has no p="),
            (vec![record.replace("v=DKIM1; ", "") + "; v=DKIM1"], "v=DKIM1 is not its first tag"),
            (vec![format!("{record}; t=y:s")], "t=y in it"),
            (vec![format!("{record}; h=sha1")], "it allows h=sha1 only"),
            (vec![format!("{record}; s=tlsrpt")], "it is for s=tlsrpt only"),
        ] {
            let said = told(&records);
            assert!(said.starts_with(says), "{said}");
        }
    }

    #[test]
    fn a_line_of_a_zone_has_strings_of_255_bytes() {
        let (key, _) = SigningKey::generate(Algorithm::RsaSha256).expect("a key");
        let line = zone_line("shop.example", "m1", &key).expect("a line");
        assert!(line.starts_with("m1._domainkey.shop.example. IN TXT ( \"v=DKIM1; k=rsa; p=MII"), "{line}");
        let strings: Vec<&str> = line.split('"').skip(1).step_by(2).collect();
        assert!(strings.len() > 1 && strings.iter().all(|string| string.len() <= MAX_STRING));
        assert_eq!(strings.concat(), key.record().expect("a record"));
    }
}
