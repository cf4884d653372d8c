//! Names without a domain: `root`, `printer`. On this host they stand for an address of the default
//! domain, or for what the aliases say.
//!
//! Aliases are for recipients, and for local names only: those without a domain, and those of this
//! host's own name, which local programs put behind the names of users. What an alias leads to is
//! found when the configuration is read, to the end, so that a loop is found then and no lookup can
//! run for ever.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::address::local_part_is_safe;
use super::{Address, AddressError};

/// Most addresses that one alias may lead to.
pub const MAX_TARGETS: usize = 1000;

/// Longest local part, in bytes (RFC 5321 §4.5.3.1.1 guarantees 64).
const MAX_LOCAL: usize = 256;

/// What local names stand for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LocalNames {
    hostname: Arc<str>,
    default_domain: Arc<str>,
    aliases: BTreeMap<String, Arc<[Address]>>,
}

/// A forward-path, looked up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Forward {
    /// An address.
    To(Address),
    /// An alias: its name, and the addresses it leads to, at least one.
    Alias(String, Arc<[Address]>),
}

impl Forward {
    /// The addresses.
    pub fn addresses(&self) -> &[Address] {
        match self {
            Forward::To(address) => std::slice::from_ref(address),
            Forward::Alias(_, addresses) => addresses,
        }
    }

    /// The name of the alias, if it is one.
    pub fn alias(&self) -> Option<&str> {
        match self {
            Forward::To(_) => None,
            Forward::Alias(name, _) => Some(name),
        }
    }
}

/// What an alias leads to, as it is written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// An address.
    Address(Address),
    /// Another local name, an alias or not.
    Local(String),
    /// `\name`: a local name that is not looked up again.
    Final(String),
}

/// Why a text is no target of an alias.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadTarget(String);

impl fmt::Display for BadTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Target {
    /// Parses an entry of the list behind an alias.
    ///
    /// # Errors
    /// It is a command, a file or a list in a file, or no address.
    pub fn parse(text: &str) -> Result<Target, BadTarget> {
        let bare = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text).trim();
        let what = match bare {
            _ if bare.starts_with('|') => "a command",
            _ if bare.starts_with('/') => "a file",
            _ if bare.get(..9).is_some_and(|t| t.eq_ignore_ascii_case(":include:")) => "a list in a file",
            _ => "",
        };
        if !what.is_empty() {
            let message = format!("`{bare}` is {what}: a relay delivers to addresses only, so name one, or remove it");
            return Err(BadTarget(message));
        }
        let bad = |text: &str, e: AddressError| BadTarget(format!("`{text}`: {e}"));
        // Quotes around all of an address are those of the file, not of the local part.
        let text = if bare != text && Address::parse(bare).is_ok() { bare } else { text };
        if let Some(name) = text.strip_prefix('\\') {
            return check_local(name).map(|()| Target::Final(name.to_owned())).map_err(|e| bad(text, e));
        }
        if !text.is_ascii() {
            return Err(BadTarget(format!("`{text}` has characters that not every client and host can take")));
        }
        match Address::parse(text) {
            Ok(address) => Ok(Target::Address(address)),
            Err(AddressError::NoDomain) => {
                check_local(text).map(|()| Target::Local(text.to_owned())).map_err(|e| bad(text, e))
            }
            Err(e) => Err(bad(text, e)),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Address(address) => address.fmt(f),
            Target::Local(name) => f.write_str(name),
            Target::Final(name) => write!(f, "\\{name}"),
        }
    }
}

/// Whether a text may stand before the `@` of an address.
///
/// # Errors
/// What is wrong with it.
pub fn check_local(name: &str) -> Result<(), AddressError> {
    match name {
        "" => Err(AddressError::Empty),
        _ if name.len() > MAX_LOCAL => Err(AddressError::TooLong),
        _ if local_part_is_safe(name) => Ok(()),
        _ => Err(AddressError::Local),
    }
}

impl LocalNames {
    /// Without aliases.
    pub fn new(hostname: &str, default_domain: &str) -> LocalNames {
        LocalNames { hostname: hostname.into(), default_domain: default_domain.into(), aliases: BTreeMap::new() }
    }

    /// With aliases, by their names in lower case.
    ///
    /// # Errors
    /// For each alias that leads back to itself, or to too many addresses: its name and what is wrong.
    pub fn with_aliases(self, aliases: &BTreeMap<String, Vec<Target>>) -> Result<LocalNames, Vec<(String, String)>> {
        let (mut resolved, mut faults) = (BTreeMap::new(), Vec::new());
        for name in aliases.keys() {
            match self.resolve(name, aliases) {
                Ok(addresses) => {
                    resolved.insert(name.clone(), addresses.into());
                }
                Err(message) => faults.push((name.clone(), message)),
            }
        }
        if faults.is_empty() { Ok(LocalNames { aliases: resolved, ..self }) } else { Err(faults) }
    }

    /// Follows one alias to its end.
    fn resolve(&self, name: &str, aliases: &BTreeMap<String, Vec<Target>>) -> Result<Vec<Address>, String> {
        let mut found: Vec<Address> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        // What was looked at to its end: two ways to it are one, or they could be very many.
        let mut done = std::collections::HashSet::new();
        // The way from `name` to where we are, each with the targets still to be looked at.
        let mut path: Vec<(&str, std::slice::Iter<'_, Target>)> = Vec::new();
        if let Some((key, targets)) = aliases.get_key_value(name) {
            path.push((key, targets.iter()));
        }
        while let Some((key, targets)) = path.last_mut() {
            let Some(target) = targets.next() else {
                done.insert(*key);
                path.pop();
                continue;
            };
            let next = match target {
                Target::Final(_) => None,
                Target::Local(local) => aliases.get_key_value(&local.to_lowercase()),
                Target::Address(address) if self.is_own(address) => {
                    aliases.get_key_value(&address.local().to_lowercase())
                }
                Target::Address(_) => None,
            };
            match next {
                Some((key, _)) if path.iter().any(|(on, _)| on == key) => {
                    let way: Vec<&str> = path.iter().map(|(on, _)| *on).chain([key.as_str()]).collect();
                    return Err(format!(
                        "leads back to itself: {} (\\{key} is the mailbox {key}@{})",
                        way.join(" → "),
                        self.default_domain
                    ));
                }
                Some((key, _)) if done.contains(key.as_str()) => {}
                Some((key, targets)) => path.push((key, targets.iter())),
                None => {
                    let address = match target {
                        Target::Address(address) => address.clone(),
                        Target::Local(local) | Target::Final(local) => {
                            self.at_home(local).map_err(|e| format!("`{local}`: {e}"))?
                        }
                    };
                    if seen.insert(address.clone()) {
                        found.push(address);
                    }
                }
            }
            if found.len() > MAX_TARGETS || path.len() > MAX_TARGETS {
                return Err(format!("leads to more than {MAX_TARGETS} addresses"));
            }
        }
        if found.is_empty() { Err("leads nowhere: expected at least one address".into()) } else { Ok(found) }
    }

    fn at_home(&self, local: &str) -> Result<Address, AddressError> {
        check_local(local)?;
        Address::parse(&format!("{local}@{}", self.default_domain))
    }

    /// The domain is this host's own name.
    fn is_own(&self, address: &Address) -> bool {
        address.domain().eq_ignore_ascii_case(&self.hostname)
    }

    /// The domain of names without one.
    pub fn default_domain(&self) -> &str {
        &self.default_domain
    }

    /// An address as it stands in MAIL: one without a domain gets the default one.
    ///
    /// # Errors
    /// It is none.
    pub fn qualify(&self, path: &str) -> Result<Address, AddressError> {
        match Address::parse(path) {
            Err(AddressError::NoDomain) => self.at_home(path),
            other => other,
        }
    }

    /// An address as it stands in RCPT: as [`Self::qualify`], but aliases are looked up before.
    ///
    /// # Errors
    /// It is none.
    pub fn forward(&self, path: &str) -> Result<Forward, AddressError> {
        let parsed = Address::parse(path);
        if !self.aliases.is_empty() {
            let local = match &parsed {
                Err(AddressError::NoDomain) => Some(path),
                Ok(address) if self.is_own(address) => Some(address.local()),
                _ => None,
            };
            let name = local.map(str::to_lowercase);
            if let Some((name, addresses)) = name.and_then(|name| self.aliases.get_key_value(&name)) {
                return Ok(Forward::Alias(name.clone(), addresses.clone()));
            }
        }
        match parsed {
            Err(AddressError::NoDomain) => self.at_home(path).map(Forward::To),
            other => other.map(Forward::To),
        }
    }

    /// The most addresses that one of the aliases leads to; 0 without aliases.
    pub fn most_targets(&self) -> usize {
        self.aliases.values().map(|to| to.len()).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(aliases: &[(&str, &str)]) -> Result<LocalNames, Vec<(String, String)>> {
        let targets = |list: &str| list.split(", ").map(|t| Target::parse(t).expect("a target")).collect();
        let aliases = aliases.iter().map(|(name, list)| ((*name).to_owned(), targets(list))).collect();
        LocalNames::new("relay.example", "corp.example").with_aliases(&aliases)
    }

    fn forward(names: &LocalNames, path: &str) -> String {
        let forward = names.forward(path).expect(path);
        forward.addresses().iter().map(Address::as_str).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_name_without_a_domain_gets_the_default_one() {
        let names = names(&[]).expect("no aliases");
        for (path, address) in [
            ("root", "root@corp.example"),
            ("\"a b\"", "\"a b\"@corp.example"),
            ("a@b.example", "a@b.example"),
            ("PostMaster", "PostMaster@corp.example"),
        ] {
            assert_eq!(names.qualify(path).map(|a| a.to_string()), Ok(address.to_owned()));
            assert_eq!(forward(&names, path), address);
        }
        for bad in ["", "a b", "a@", "a,b", "x>y", "\"open", "a\nb", &"x".repeat(300)] {
            assert!(names.qualify(bad).is_err() && names.forward(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn aliases_are_followed_to_their_end_whatever_their_case() {
        let names = names(&[
            ("root", "admins, \\root, extra@x.example"),
            ("admins", "jo@x.example, ann"),
            ("ann", "ann@relay.example.org"),
            ("www", "ROOT@RELAY.example"),
        ])
        .expect("good aliases");
        let all = "jo@x.example ann@relay.example.org root@corp.example extra@x.example";
        for path in ["root", "Root", "root@relay.example", "www", "WWW@Relay.Example"] {
            assert_eq!(forward(&names, path), all, "{path}");
        }
        // Somebody else's root, and the mailboxes of the domain that names get.
        assert_eq!(forward(&names, "root@x.example"), "root@x.example");
        assert_eq!(forward(&names, "root@corp.example"), "root@corp.example");
        assert_eq!(names.qualify("root").map(|a| a.to_string()), Ok("root@corp.example".into()), "senders have none");
        assert_eq!(names.most_targets(), 4);
    }

    #[test]
    fn loops_are_refused_with_their_way() {
        let faults = names(&[("a", "b"), ("b", "c, x@y.example"), ("c", "a@relay.example"), ("d", "x@y.example")]);
        let faults = faults.expect_err("a loop");
        assert_eq!(faults.len(), 3);
        assert!(faults[0].1.starts_with("leads back to itself: a → b → c → a (\\a is"), "{faults:?}");
        assert!(names(&[("root", "root, jo@x.example")]).is_err());
        assert!(names(&[("root", "\\root, jo@x.example")]).is_ok());
        // The same target twice, by two ways, is no loop.
        let diamond = names(&[("a", "b, c"), ("b", "d"), ("c", "d"), ("d", "x@y.example")]).expect("no loop");
        assert_eq!(forward(&diamond, "a"), "x@y.example");
        // Two to the sixtieth ways, if each were gone.
        let steps: Vec<(String, String)> = (0..60).map(|i| (format!("n{i}"), format!("n{0}, n{0}", i + 1))).collect();
        let mut steps: Vec<(&str, &str)> = steps.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        steps.push(("n60", "x@y.example"));
        assert_eq!(forward(&names(&steps).expect("no loop"), "n0"), "x@y.example");
    }

    #[test]
    fn commands_files_and_lists_are_refused_by_name() {
        for (text, what) in [
            ("|/usr/bin/procmail", "a command"),
            ("\"|/usr/bin/vacation jo\"", "a command"),
            ("/dev/null", "a file"),
            (":include:/etc/list", "a list in a file"),
            ("a b", "needs quotes"),
            ("j\u{f6}@x.example", "not every client"),
        ] {
            let error = Target::parse(text).expect_err(text).to_string();
            assert!(error.contains(what), "{error}");
        }
    }
}
