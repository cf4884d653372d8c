//! `[[dkim]]`: whose mail is signed, and with which keys.
//!
//! Invariants:
//! - A key is read with the configuration: one that cannot be used is a fault of `check` and refuses a reload, so none
//!   is missing when a message leaves.
//! - A key file that others than its owner and the group of mailweir may read, or others than its owner write, is
//!   refused.
//! - Nothing of a key is in a message or in `Debug`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::Config;
use super::fields::Field;
use super::file::Reader;
use super::identity::private_key;
use super::keys::{DAY, HOUR, Key, Table, keys};
use super::source_file;
use super::value::Kind;
use crate::dkim::SigningKey;
use crate::mail::domain::{parse_name, printed};

/// Signatures of one message at most: each is another kilobyte, and receivers look at few.
const MOST: usize = 4;

/// Longest selector in bytes: one label and some room for more.
const MAX_SELECTOR: usize = 120;

/// `[[dkim]]`.
#[derive(Clone, Debug)]
pub struct Dkim {
    /// `d=`: A-labels, lower case.
    pub domain: String,
    /// `s=`: under which name the key is published.
    pub selector: String,
    /// What signs.
    pub key: DkimKey,
    /// Also for `From` addresses in subdomains that have no `[[dkim]]` of their own.
    pub subdomains: bool,
    /// How long a signature holds (`x=`); zero: without an end.
    pub expires: Duration,
}

/// `key` of a `[[dkim]]`: a private key and its file.
#[derive(Clone, Debug)]
pub struct DkimKey {
    /// The file.
    pub path: PathBuf,
    /// What it has.
    pub key: SigningKey,
}

impl DkimKey {
    /// Reads a PEM file: PKCS #8 (RSA, Ed25519) or PKCS #1 (RSA).
    ///
    /// # Errors
    /// It cannot be read, is no such key, or others may read it; for people.
    pub fn load(path: &Path) -> Result<DkimKey, String> {
        let name = path.display();
        let der = private_key(path)?;
        source_file::closed(path)?;
        let key = SigningKey::from_der(&der).map_err(|fault| format!("{name} {fault}"))?;
        Ok(DkimKey { path: path.to_owned(), key })
    }
}

impl Config {
    /// The signatures for mail whose `From` has this domain (A-labels, lower case): those of the domain itself, else of
    /// the nearest domain above it that signs for subdomains.
    pub fn dkim_for(&self, domain: &str) -> Vec<Arc<Dkim>> {
        let mut above = domain;
        loop {
            let signs = |dkim: &&Arc<Dkim>| dkim.domain == above && (dkim.subdomains || above.len() == domain.len());
            let found: Vec<_> = self.dkim.iter().filter(signs).cloned().collect();
            if !found.is_empty() {
                return found;
            }
            match above.split_once('.') {
                Some((_, parent)) => above = parent,
                None => return Vec::new(),
            }
        }
    }
}

/// `[[dkim]]` before it is checked.
pub(super) struct DkimDraft {
    domain: Option<String>,
    selector: Option<String>,
    key: Option<DkimKey>,
    subdomains: bool,
    expires: Duration,
}

impl Table for DkimDraft {
    const NAME: &'static str = "dkim";
    const KEYS: &'static [Key<DkimDraft>] = keys! {
        /// Mail is signed whose `From` has an address in this domain, whoever sends it from wherever. Several [[dkim]]
        /// of one domain all sign: one with RSA and one with Ed25519, or two selectors while keys change.
        "domain" domain: Kind::HostName, example r#""shop.example""#;
        /// The name that the key is published under: SELECTOR._domainkey.DOMAIN, a TXT record that
        /// `mailweir dkim record` prints.
        "selector" selector: Kind::Selector, example r#""202612-rsa""#;
        /// PEM file of the private key: RSA of 2048 bits or more (PKCS #1 or PKCS #8) or Ed25519, without a pass phrase.
        /// Nobody but its owner, and the group that mailweir runs as, may read it (mode 0600 or 0640). `mailweir dkim new`
        /// makes one; it is read again by `mailweir reload`.
        "key" key: Kind::DkimKey, example r#""/etc/mailweir/dkim/shop.example.202612-rsa.pem""#;
        /// Sign also for addresses in subdomains that have no [[dkim]] of their own, mailweir's own reports among them
        /// if `hostname` is one.
        "subdomains" subdomains: Kind::Flag, default "true";
        /// How long a signature holds, counted from each attempt (`x=`). Longer than mail may take from here to a
        /// mailbox. "0s": without an end.
        "expires" expires: Kind::Span(0, 366 * DAY), default r#""14d""#;
    };

    fn blank() -> DkimDraft {
        DkimDraft { domain: None, selector: None, key: None, subdomains: true, expires: Duration::ZERO }
    }
}

/// What the tables say, put together. Faults go to `reader`.
pub(super) fn assemble(reader: &mut Reader<'_>, drafts: Vec<DkimDraft>) -> Vec<Arc<Dkim>> {
    let (mut all, mut seen) = (Vec::<Arc<Dkim>>::new(), BTreeSet::new());
    for (i, draft) in drafts.into_iter().enumerate() {
        let path = format!("dkim[{}]", i + 1);
        let missing: Vec<&str> =
            ["domain", "selector", "key"].into_iter().filter(|key| !reader.has(&format!("{path}.{key}"))).collect();
        if !missing.is_empty() {
            let what = if missing.len() == 1 { "is" } else { "are" };
            let message = format!("`{}` {what} missing: expected domain, selector and key", missing.join("`, `"));
            reader.fault(&path, message);
            continue;
        }
        // What could not be read is told already.
        let (Some(domain), Some(selector), Some(key)) = (draft.domain, draft.selector, draft.key) else { continue };
        let Some(domain) = parse_name(&domain).map(|name| printed(&name)) else {
            reader.fault(&format!("{path}.domain"), "is no domain that DNS could know".into());
            continue;
        };
        if !seen.insert((domain.clone(), selector.to_ascii_lowercase())) {
            let message = "is there already for this domain: one name has one key, so expected another selector";
            reader.fault(&format!("{path}.selector"), message.into());
        }
        if all.iter().filter(|dkim| dkim.domain == domain).count() == MOST {
            reader
                .fault(&format!("{path}.domain"), format!("has {MOST} already: expected at most {MOST} keys a domain"));
        }
        let hour = Duration::from_millis(HOUR);
        if draft.expires < hour && !draft.expires.is_zero() {
            let message = "is shorter than an hour: mail that waits at another host would arrive unsigned";
            reader.warn(&format!("{path}.expires"), message.into());
        }
        let (subdomains, expires) = (draft.subdomains, draft.expires);
        all.push(Arc::new(Dkim { domain, selector, key, subdomains, expires }));
    }
    all
}

/// A selector: labels of letters, digits and hyphens with dots between them (RFC 6376 §3.1, `sub-domain` of RFC 5321).
pub(crate) fn read_selector(text: &str) -> Result<String, String> {
    let label = |label: &str| {
        let inner = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        (1..=63).contains(&label.len()) && inner && !label.starts_with('-') && !label.ends_with('-')
    };
    if text.len() <= MAX_SELECTOR && text.split('.').all(label) {
        return Ok(text.to_owned());
    }
    if let Some((selector, _)) = text.split_once("._domainkey").filter(|(selector, _)| selector.split('.').all(label)) {
        return Err(format!(
            "`_domainkey` and the domain belong to the record, and not to the selector: expected \"{selector}\""
        ));
    }
    let why = if text.contains('_') { " (a receiver may refuse `_`: RFC 6376 has none in a selector)" } else { "" };
    Err(format!(
        "\"{text:.80}\" is no selector: expected letters, digits and -, such as \"202612-rsa\", with dots between parts{why}"
    ))
}

#[cfg(test)]
#[path = "dkim_tests.rs"]
mod tests;
#[cfg(test)]
pub(super) use tests::example;
