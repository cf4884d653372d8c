//! Names without a domain: `root`, `printer`. On this host they stand for an address of the default
//! domain, or for what the aliases say.
//!
//! Aliases are for recipients, and for local names only: those without a domain, and those of this
//! host's own name, which local programs put behind the names of users. What an alias leads to is
//! found when the configuration is read, to the end, so that a loop is found then and no lookup can
//! run for ever.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use super::address::local_part_is_safe;
use super::{Address, AddressError};

/// Most addresses that one alias may lead to.
pub const MAX_TARGETS: usize = 1000;

/// Most aliases on the way from a name to its addresses.
pub const MAX_DEPTH: usize = 100;

/// Aliases of a loop that a message names.
const SHOWN: usize = 8;

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

    /// With aliases, by their names in lower case. Takes time that is linear in what they say, whatever leads to
    /// what: each is followed once.
    ///
    /// # Errors
    /// For each alias that leads back to itself, through too many others or to too many addresses: its name and
    /// what is wrong, in order of name.
    pub fn with_aliases(self, aliases: &BTreeMap<String, Vec<Target>>) -> Result<LocalNames, Vec<(String, String)>> {
        let mut follow = Follow { names: &self, aliases, known: HashMap::new(), faults: BTreeMap::new() };
        for name in aliases.keys() {
            follow.follow(name);
        }
        if !follow.faults.is_empty() {
            return Err(follow.faults.into_iter().map(|(name, message)| (name.to_owned(), message)).collect());
        }
        let resolved = |(name, end): (&str, End)| Some((name.to_owned(), end.ok()?.addresses));
        let aliases = follow.known.into_iter().filter_map(resolved).collect();
        Ok(LocalNames { aliases, ..self })
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

/// Where an alias leads in the end.
#[derive(Clone)]
struct Followed {
    addresses: Arc<[Address]>,
    /// Aliases on the longest way, itself included.
    depth: usize,
}

/// Why an alias leads nowhere, as far as those that lead to it have to know.
#[derive(Clone, Copy)]
enum Broken {
    Loop,
    Deep,
    Many,
    Other,
}

type End = Result<Followed, Broken>;

/// An alias on the way, with its targets still to be looked at and what was found so far.
struct Step<'a> {
    name: &'a str,
    targets: &'a [Target],
    found: Vec<Address>,
    seen: HashSet<Address>,
    depth: usize,
}

impl Step<'_> {
    /// False: they are too many.
    fn take(&mut self, addresses: &[Address]) -> bool {
        let new = addresses.iter().filter(|address| self.seen.insert((*address).clone()));
        self.found.extend(new.cloned());
        self.found.len() <= MAX_TARGETS
    }
}

/// Follows aliases, each of them once.
struct Follow<'a> {
    names: &'a LocalNames,
    aliases: &'a BTreeMap<String, Vec<Target>>,
    known: HashMap<&'a str, End>,
    faults: BTreeMap<&'a str, String>,
}

impl<'a> Follow<'a> {
    /// Follows one alias, and all that it leads to, unless that is known.
    fn follow(&mut self, name: &'a str) {
        let mut path: Vec<Step<'a>> = Vec::new();
        // Where on the path each alias is.
        let mut at: HashMap<&'a str, usize> = HashMap::new();
        self.begin(name, &mut path, &mut at);
        while let Some(step) = path.last_mut() {
            let Some((target, rest)) = step.targets.split_first() else {
                let Some(step) = path.pop() else { return };
                at.remove(step.name);
                self.end(step);
                continue;
            };
            let alias = match target {
                Target::Local(local) => Some(local.to_lowercase()),
                Target::Address(address) if self.names.is_own(address) => Some(address.local().to_lowercase()),
                Target::Final(_) | Target::Address(_) => None,
            };
            let Some((key, _)) = alias.and_then(|alias| self.aliases.get_key_value(&alias)) else {
                let address = match target {
                    Target::Address(address) => Ok(address.clone()),
                    Target::Local(local) | Target::Final(local) => {
                        self.names.at_home(local).map_err(|e| format!("`{local}`: {e}"))
                    }
                };
                step.targets = rest;
                match address.map(|address| step.take(&[address])) {
                    Ok(true) => {}
                    Ok(false) => self.break_off(&mut path, &mut at, Broken::Many, too_many()),
                    Err(message) => self.break_off(&mut path, &mut at, Broken::Other, message),
                }
                continue;
            };
            match (at.get(key.as_str()), self.known.get(key.as_str())) {
                (Some(first), _) => {
                    let first = *first;
                    self.tell_of_loop(&path, first);
                    return;
                }
                (None, Some(Ok(end))) => {
                    step.targets = rest;
                    step.depth = step.depth.max(end.depth + 1);
                    if step.depth > MAX_DEPTH {
                        self.break_off(&mut path, &mut at, Broken::Deep, too_deep());
                    } else if !step.take(&end.addresses) {
                        self.break_off(&mut path, &mut at, Broken::Many, too_many());
                    }
                }
                (None, Some(Err(why))) => {
                    let why = *why;
                    let message = match why {
                        Broken::Loop => format!("leads to `{key}`, which leads back to itself"),
                        Broken::Deep => too_deep(),
                        Broken::Many => too_many(),
                        Broken::Other => format!("leads to `{key}`, which cannot be followed"),
                    };
                    self.break_off(&mut path, &mut at, why, message);
                }
                (None, None) => self.begin(key, &mut path, &mut at),
            }
        }
    }

    fn begin(&self, name: &'a str, path: &mut Vec<Step<'a>>, at: &mut HashMap<&'a str, usize>) {
        let Some(targets) = self.aliases.get(name).filter(|_| !self.known.contains_key(name)) else { return };
        at.insert(name, path.len());
        path.push(Step { name, targets, found: Vec::new(), seen: HashSet::new(), depth: 1 });
    }

    /// All its targets were looked at; the alias before it on the path comes to it again, and finds it known.
    fn end(&mut self, step: Step<'a>) {
        let end = match step.found.is_empty() {
            true => Err(Broken::Other),
            false => Ok(Followed { addresses: step.found.into(), depth: step.depth }),
        };
        if end.is_err() {
            self.faults.insert(step.name, "leads nowhere: expected at least one address".into());
        }
        self.known.insert(step.name, end);
    }

    /// The last alias on the path cannot be followed.
    fn break_off(&mut self, path: &mut Vec<Step<'a>>, at: &mut HashMap<&'a str, usize>, why: Broken, message: String) {
        if let Some(step) = path.pop() {
            at.remove(step.name);
            self.faults.insert(step.name, message);
            self.known.insert(step.name, Err(why));
        }
    }

    /// The last alias on the path leads to that at `first`.
    fn tell_of_loop(&mut self, path: &[Step<'a>], first: usize) {
        let ring: Vec<&str> = path.iter().skip(first).map(|step| step.name).collect();
        for (n, name) in ring.iter().enumerate() {
            let (few, more) = (ring.len().min(SHOWN), ring.len() > SHOWN);
            let way = ring.get(n..).unwrap_or_default().iter().chain(ring.iter()).take(few).copied();
            let way = way.collect::<Vec<_>>().join(" → ");
            let shown = if more { format!("{way} → … → {name}") } else { format!("{way} → {name}") };
            let domain = &self.names.default_domain;
            let message = format!("leads back to itself: {shown} (\\{name} is the mailbox {name}@{domain})");
            self.faults.insert(name, message);
            self.known.insert(name, Err(Broken::Loop));
        }
        for step in path.iter().take(first) {
            let next = ring.first().copied().unwrap_or_default();
            self.faults.insert(step.name, format!("leads to `{next}`, which leads back to itself"));
            self.known.insert(step.name, Err(Broken::Loop));
        }
    }
}

fn too_many() -> String {
    format!("leads to more than {MAX_TARGETS} addresses")
}

fn too_deep() -> String {
    format!(
        "leads through more than {MAX_DEPTH} other aliases to its addresses: expected it, or one that it leads to, to \
         name them"
    )
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
        let before = names(&[("w", "x@y.example, a"), ("a", "b"), ("b", "a")]).expect_err("a loop");
        assert!(before[2].1.starts_with("leads to `a`, which leads back"), "{before:?}");
        assert!(before[1].1.starts_with("leads back to itself: b → a → b ("), "{before:?}");
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
    fn a_long_chain_is_told_as_one_and_what_many_share_is_followed_once() {
        let chain = |of: usize| -> Vec<(String, String)> {
            let step = |i: usize| (format!("n{i:05}"), format!("n{:05}", i + 1));
            (0..of).map(step).chain([(format!("n{of:05}"), "x@y.example".to_owned())]).collect()
        };
        let of = |all: &[(String, String)]| {
            let all: Vec<(&str, &str)> = all.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
            names(&all)
        };
        let good = of(&chain(MAX_DEPTH - 1)).expect("not too long");
        assert_eq!(forward(&good, "n00000"), "x@y.example");
        let faults = of(&chain(MAX_DEPTH)).expect_err("too long");
        assert_eq!(faults.len(), 1);
        assert!(faults[0].0 == "n00000" && faults[0].1.contains("more than 100 other aliases"), "{faults:?}");
        // Time that grew with the square of it would be minutes.
        let faults = of(&chain(19_999)).expect_err("too long");
        assert_eq!(faults.len(), 20_000 - MAX_DEPTH);
        assert!(faults.iter().all(|(_, why)| why.contains("more than 100 other aliases")));

        let mut ring = chain(19_999);
        ring[19_999].1 = "n00000".into();
        let faults = of(&ring).expect_err("a loop");
        assert_eq!(faults.len(), 20_000);
        assert!(
            faults.iter().all(|(_, why)| why.starts_with("leads back to itself: n") && why.len() < 200),
            "{:?}",
            faults[0]
        );
        assert!(faults[0].1.contains("n00007 → … → n00000 ("), "{:?}", faults[0]);

        let many: Vec<String> = (0..MAX_TARGETS).map(|i| format!("a{i}@x.example")).collect();
        let faults = names(&[("a", "b, more@x.example"), ("b", &many.join(", "))]).expect_err("too many");
        assert_eq!(faults, [("a".to_owned(), "leads to more than 1000 addresses".to_owned())]);
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
