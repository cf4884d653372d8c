//! What mailweir knows of big providers: `profiles.toml`, compiled in and read by the same code as
//! `config.toml`.
//!
//! A profile for MX hosts is a provider as it stands, after those of the file. A profile for smart
//! hosts (`match.relay`) only helps a provider of the file whose `relay` it matches. Precedence of
//! a value: the provider's own table, its profile, `[default]`, the built-in default.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::LazyLock;

use super::file::Reader;
use super::keys::{ProviderDraft, Table};
use super::rule_keys::RuleDraft;
use super::shaping;
use super::{ConfigError, ReplyRule, TlsMode};

/// The file.
const TEXT: &str = include_str!("profiles.toml");

/// Kinds of source that a number can have, as they stand in its comment.
pub const SOURCES: [&str; 4] = ["vendor page", "postmaster page", "shaping rules", "believed"];

static PROFILES: LazyLock<Profiles> = LazyLock::new(|| Profiles::parse(TEXT));

/// A built-in profile.
pub struct Profile {
    draft: ProviderDraft,
    /// The keys it sets, with the kind of source of each.
    sources: BTreeMap<&'static str, String>,
}

struct Profiles {
    list: Vec<Profile>,
    /// Rules for whoever they help, after all others.
    generic: Vec<RuleDraft>,
    error: Option<ConfigError>,
}

impl Profiles {
    fn parse(text: &'static str) -> Profiles {
        let mut reader = Reader::built_in(text, "built-in");
        let draft = reader.read();
        let mut list = Vec::new();
        for mut provider in draft.providers {
            let path = format!("provider.{}", provider.p.name);
            let smart_host = !provider.match_relay.is_empty();
            shaping::rules(&mut reader, &provider.rules, smart_host);
            provider.p.rules.clear();
            let keys = ProviderDraft::KEYS.iter().chain(ProviderDraft::BUILT_IN_KEYS);
            let source = |name: &str| Some(reader.comment(reader.line(&format!("{path}.{name}"))?));
            let sources = keys.filter_map(|key| Some((key.name, source(key.name)?))).collect();
            list.push(Profile { draft: provider, sources });
        }
        shaping::rules(&mut reader, &draft.default.rules, false);
        let problems = reader.problems;
        let error = (!problems.is_empty()).then(|| ConfigError { origin: "built-in".into(), problems });
        debug_assert!(error.is_none(), "{error:?}");
        Profiles { list, generic: draft.default.rules, error }
    }
}

impl Profile {
    /// Its name, which is also that of the provider it makes.
    pub fn name(&self) -> &str {
        &self.draft.p.name
    }

    /// It is about smart hosts, not about MX hosts.
    pub fn is_for_smart_hosts(&self) -> bool {
        !self.draft.match_relay.is_empty()
    }

    /// Patterns of the hosts it is about: of MX hosts, domains, or smart hosts.
    pub fn patterns(&self) -> Vec<String> {
        let p = &self.draft;
        [&p.p.match_mx, &p.p.match_domains, &p.match_relay].into_iter().flatten().map(ToString::to_string).collect()
    }

    /// The kind of source of a key that it sets.
    pub(super) fn source(&self, key: &str) -> Option<&str> {
        self.sources.get(key).map(String::as_str)
    }

    /// Its rules.
    pub(super) fn rules(&self) -> &[RuleDraft] {
        &self.draft.rules
    }

    /// Its rules as they are applied.
    pub fn reply_rules(&self) -> Vec<ReplyRule> {
        self.draft.rules.iter().map(|rule| rule.assemble(self.is_for_smart_hosts())).collect()
    }

    /// Its values as a provider would have them.
    pub(super) fn draft(&self) -> &ProviderDraft {
        &self.draft
    }

    /// Puts its values into a provider that has those of `[default]`.
    pub(super) fn apply(&'static self, draft: &mut ProviderDraft) {
        let stricter = draft.tls;
        for key in ProviderDraft::KEYS.iter().filter(|k| self.sources.contains_key(k.name)) {
            if let Some(value) = key.get(&self.draft) {
                let set = (key.set)(draft, value);
                debug_assert!(set.is_ok(), "{} of {}: {set:?}", key.name, self.name());
            }
        }
        // Who asks for TLS with valid certificates everywhere does not get less here.
        if matches!(stricter, Some(TlsMode::Verified | TlsMode::Dane | TlsMode::MtaSts)) {
            draft.tls = stricter;
        }
        draft.profile = Some(self);
    }
}

/// Other names of profiles.
const ALIASES: [(&str, &str); 8] = [
    ("google", "gmail"),
    ("microsoft", "microsoft365"),
    ("m365", "microsoft365"),
    ("hotmail", "outlook"),
    ("yahoo_jp", "yahoo_japan"),
    ("aol", "yahoo"),
    ("alibaba", "alibaba_mail"),
    ("web_de", "gmx"),
];

/// The one name of what a person calls a provider: in lower case, with `_` for `-`, and that of the
/// profile for its other names. What is unknown stays what it is.
pub fn canonical(name: &str) -> String {
    let name = name.to_ascii_lowercase().replace(['-', '.'], "_");
    ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, known)| (*known).to_owned())
}

/// All built-in profiles in the order of their file.
pub fn all() -> &'static [Profile] {
    &PROFILES.list
}

/// The rules that hold wherever no other rule takes a reply.
pub(super) fn generic_rules() -> &'static [RuleDraft] {
    &PROFILES.generic
}

/// What is wrong with the built-in file; a test asserts that nothing is.
pub fn fault() -> Option<&'static ConfigError> {
    PROFILES.error.as_ref()
}

/// The profile of a smart host.
pub fn of_relay(host: &str) -> Option<&'static Profile> {
    all().iter().find(|p| p.draft.match_relay.iter().any(|m| m.matches(host)))
}

/// The profile that a provider of the file builds on: that of its smart host, else that of its name.
pub(super) fn for_provider(name: &str, relay: Option<&str>) -> Option<&'static Profile> {
    let named = || all().iter().find(|p| p.name() == name && (relay.is_some() || !p.is_for_smart_hosts()));
    relay.and_then(of_relay).or_else(named)
}

/// The table of profiles for the documentation, in Markdown.
pub fn markdown() -> String {
    let mut out = String::from("| profile | hosts | values | rules |\n| --- | --- | --- | --- |\n");
    for profile in all() {
        let hosts: Vec<String> = profile.patterns().iter().map(|p| format!("`{p}`")).collect();
        let shown = |key: &'static str| {
            let value = ProviderDraft::KEYS.iter().find(|k| k.name == key)?.get(&profile.draft)?.to_toml();
            Some(format!("`{key} = {}` ({})", value.to_string().trim(), profile.source(key)?))
        };
        let values: Vec<String> =
            profile.sources.keys().filter(|k| !k.starts_with("match.")).filter_map(|k| shown(k)).collect();
        let rules: Vec<String> =
            profile.rules().iter().map(|rule| rule_cell(rule, profile.is_for_smart_hosts())).collect();
        let kind = if profile.is_for_smart_hosts() { " (smart host)" } else { "" };
        let _ = writeln!(
            out,
            "| {}{kind} | {} | {} | {} |",
            profile.name(),
            hosts.join("<br>"),
            values.join("<br>"),
            rules.join("<br>")
        );
    }
    let generic: Vec<String> = generic_rules().iter().map(|rule| rule_cell(rule, false)).collect();
    let _ = writeln!(out, "| everybody | whoever no rule above is about | | {} |", generic.join("<br>"));
    out
}

fn rule_cell(rule: &RuleDraft, smart_host: bool) -> String {
    format!("{} ({})", rule.assemble(smart_host).to_string().replace('|', "\\|"), rule.source)
}

/// The generic rules as they are applied to MX hosts.
pub fn generic_reply_rules() -> Vec<ReplyRule> {
    generic_rules().iter().map(|rule| rule.assemble(false)).collect()
}
