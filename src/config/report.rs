//! The configuration in print: the effective values with where each came from (`mailweir check --all`),
//! and the reference of keys in the documentation. Both are made from the declarations in `keys`; a
//! test compares docs/configuration.md with them.

mod annotated;
mod kinds;
mod own;
mod reference;

use std::fmt;

use toml_edit::Value;

use super::check_provider::{effective_implicit, effective_tls};
use super::file::{Draft, Reader};
use super::keys::{ProviderDraft, Table, Top};
use super::profiles::{self, Profile};
use super::rule_keys::RuleDraft;
use super::{Origins, TlsMode};
pub use annotated::Annotated;
pub(super) use kinds::{is_flag, unlike};
pub use own::OwnValues;
pub use reference::{key_names, reference};

/// A value of the effective configuration.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The header of its table, such as `[provider.gmail]`; empty for keys outside any table.
    pub table: String,
    /// The key within the table; dotted for an inner table.
    pub key: String,
    /// The value; `<secret>` for a secret, `None` if there is none.
    pub value: Option<Value>,
    /// `default`, `config.toml:12`, `[default], config.toml:7`, `built-in gmail: vendor page`, or
    /// what else it came from.
    pub from: String,
    /// The provider whose value it is; `default` for `[default]`.
    pub provider: Option<String>,
    /// The file does not mention that provider: it is a built-in profile as it stands.
    pub built_in: bool,
    /// The file says it, and it differs from what would hold without.
    pub own: bool,
}

impl Setting {
    /// It is part of a rule for replies.
    pub fn is_rule(&self) -> bool {
        self.table.ends_with(".on_reply]]")
    }
}

/// Where the values of providers came from.
pub(super) fn origins(settings: &[Setting]) -> Origins {
    let mut origins = Origins::default();
    for setting in settings.iter().filter(|s| s.from != "default" && !s.is_rule()) {
        if let Some(provider) = &setting.provider {
            origins.0.entry(provider.clone()).or_default().insert(setting.key.clone(), setting.from.clone());
        }
    }
    origins
}

/// Lists every value of the draft.
pub(super) fn settings(reader: &Reader<'_>, draft: &Draft, hostname: &str) -> Vec<Setting> {
    let mut list = Lister { reader, out: Vec::new(), provider: None, profile: None, built_in: false };
    let top = Top { hostname: Some(hostname.to_owned()), ..draft.top.clone() };
    list.add("", "", "", &[], &top);
    if let Some(name) = list.out.first_mut().filter(|s| s.from == "default") {
        name.from = "the system's name".into();
    }
    list.each("listener", &draft.listeners);
    list.each("user", &draft.users);
    list.add("[queue]", "queue", "", &[], &draft.queue);
    list.add("[retry]", "retry", "", &[], &draft.retry);
    list.add("[dns]", "dns", "", &[], &draft.dns);
    list.provider("[default]", "default", &draft.default);
    let generic = if draft.top.builtin_profiles { profiles::generic_rules() } else { &[] };
    list.rules("[[default.on_reply]]", draft.default.rules.iter().chain(generic), None);
    for provider in &draft.providers {
        let table = provider_table(&provider.p.name);
        list.provider(&table, &format!("provider.{}", provider.p.name), provider);
        let name = quoted(&provider.p.name);
        list.rules(&format!("[[provider.{name}.on_reply]]"), provider.nearer_rules(), Some(provider.relay.is_some()));
    }
    list.provider = None;
    list.built_in = false;
    list.each("route", &draft.routes);
    list.each("limit", &draft.limits);
    list.each("rewrite", &draft.rewrites);
    list.each("copy", &draft.copies);
    list.each("dkim", &draft.dkim);
    // The table alone would be one.
    if reader.has("sandbox") {
        list.add("[sandbox]", "sandbox", "", &[], &draft.sandbox);
    }
    if reader.has("srs") {
        list.add("[srs]", "srs", "", &[], &draft.srs);
    }
    if reader.has("tls_report") {
        list.add("[tls_report]", "tls_report", "", &[], &draft.tls_report);
    }
    list.add("[sendmail]", "sendmail", "", &[], &draft.sendmail);
    list.add("[admin]", "admin", "", &[], &draft.admin);
    list.add("[log]", "log", "", &[], &draft.log);
    list.out
}

/// Keys that make no sense in `[default]`.
fn only_of_providers(key: &str) -> bool {
    key.starts_with("match.") || key.starts_with("auth.") || key == "relay" || key == "implicit_tls"
}

/// The header of a provider's table, as in [`Setting::table`]; `default` is `[default]`.
pub fn provider_table(name: &str) -> String {
    match name {
        "default" => "[default]".into(),
        name => format!("[provider.{}]", quoted(name)),
    }
}

/// A name as a TOML key: in quotes if it has a dot.
fn quoted(name: &str) -> String {
    if name.contains('.') { format!("\"{name}\"") } else { name.to_owned() }
}

/// What a built-in profile says itself, but for its rules.
pub fn profile_settings(profile: &'static Profile) -> Vec<Setting> {
    let keys = ProviderDraft::KEYS.iter().chain(ProviderDraft::BUILT_IN_KEYS);
    let said = keys.filter_map(|key| Some((key.name, key.get(profile.draft())?.to_toml(), profile.source(key.name)?)));
    said.map(|(key, value, source)| Setting {
        table: format!("[provider.{}]", profile.name()),
        key: key.to_owned(),
        value: Some(value),
        from: format!("built-in {}: {source}", profile.name()),
        provider: Some(profile.name().to_owned()),
        built_in: true,
        own: false,
    })
    .collect()
}

struct Lister<'a, 'b> {
    reader: &'a Reader<'b>,
    out: Vec<Setting>,
    /// Whose values are listed, on which profile they build, and whether that is all.
    provider: Option<String>,
    profile: Option<&'static Profile>,
    built_in: bool,
}

impl Lister<'_, '_> {
    /// Each `[[NAME]]`, in their order.
    fn each<T: Table>(&mut self, name: &str, drafts: &[T]) {
        for (i, draft) in drafts.iter().enumerate() {
            self.add(&format!("[[{name}]]"), &format!("{name}[{}]", i + 1), "", &[], draft);
        }
    }

    /// Lists a table. `heirs` are the tables whose values it takes over where it says nothing.
    fn add<T: Table>(&mut self, table: &str, path: &str, prefix: &str, heirs: &[&str], draft: &T) {
        for key in T::KEYS {
            let join = |path: &str| if path.is_empty() { key.name.to_owned() } else { format!("{path}.{}", key.name) };
            let unread = || [path].iter().chain(heirs).find_map(|path| self.reader.unread(&join(path)).cloned());
            let value = key.get(draft).map(|v| v.to_toml()).or_else(unread);
            let known = self.profile.and_then(|p| Some((p.name(), p.source(key.name)?)));
            let from = match (self.reader.line(&join(path)), known) {
                (Some(line), _) => format!("{}:{line}", self.reader.origin),
                (None, Some((profile, source))) => format!("built-in {profile}: {source}"),
                (None, None) => {
                    let inherited = heirs.iter().find_map(|heir| Some((heir, self.reader.line(&join(heir))?)));
                    match inherited {
                        Some((heir, line)) => format!("[{heir}], {}:{line}", self.reader.origin),
                        None => "default".into(),
                    }
                }
            };
            let says = self.reader.has(&join(path));
            let is_default = || value.as_ref().is_some_and(|value| value.to_string().trim() == key.default.trim());
            let inherits = || heirs.iter().any(|heir| self.reader.has(&join(heir)));
            let own = says && value.is_some() && (known.is_some() || inherits() || !is_default());
            self.push(table, format!("{prefix}{}", key.name), value, from, own);
        }
    }

    fn push(&mut self, table: &str, key: String, value: Option<Value>, from: String, own: bool) {
        let (provider, built_in) = (self.provider.clone(), self.built_in);
        self.out.push(Setting { table: table.to_owned(), key, value, from, provider, built_in, own });
    }

    /// Lists rules: what each says, its scope first, even if it depends on the provider (`smart_host`
    /// is `None` for [default]).
    fn rules<'r>(&mut self, table: &str, rules: impl IntoIterator<Item = &'r RuleDraft>, smart_host: Option<bool>) {
        for rule in rules {
            let from = rule.from();
            let scope = rule.scope.or_else(|| Some(rule.effective_scope(smart_host?)));
            let own = !from.starts_with("built-in");
            self.push(table, "scope".into(), scope.map(|s| s.as_str().into()), from.clone(), own && scope.is_some());
            for key in RuleDraft::KEYS.iter().filter(|k| k.name != "scope") {
                let value = key.get(rule).map(|v| v.to_toml()).filter(|v| v.as_bool() != Some(false));
                if value.is_some() {
                    self.push(table, key.name.to_owned(), value, from.clone(), own);
                }
            }
        }
    }

    fn provider(&mut self, table: &str, path: &str, draft: &ProviderDraft) {
        let default = path == "default";
        let mut shown = draft.clone();
        shown.tls = Some(effective_tls(draft.tls, draft.relay.is_some()));
        if let Some((_, port)) = draft.relay {
            shown.implicit_tls = Some(effective_implicit(draft.implicit_tls, draft.tls, port));
        }
        self.provider = Some(draft.p.name.clone());
        self.built_in = draft.is_built_in(self.reader);
        let smart_host = draft.relay.is_some();
        // Its TLS mode may be another one: that of a smart host, or a stricter one of [default].
        let tls = |p: &Profile| p.draft().tls == shown.tls;
        self.profile = draft.profile;
        let first = self.out.len();
        self.add(table, path, "", if default { &[] } else { &["default"] }, &shown);
        let other_tls = !draft.profile.is_some_and(tls);
        let kept = if smart_host || !matches!(draft.tls, Some(TlsMode::Verified | TlsMode::Dane | TlsMode::MtaSts)) {
            "default"
        } else {
            "[default]"
        };
        for setting in self.out.iter_mut().skip(first) {
            if other_tls && setting.key == "tls" && setting.from.starts_with("built-in") {
                setting.from = kept.into();
            }
        }
        self.profile = None;
        // What [default] cannot say, and what a smart host does not take over from it.
        let own = |key: &str| key.starts_with("match.") || (smart_host && key == "tls");
        for setting in self.out.iter_mut().skip(first) {
            if own(&setting.key) && setting.from.starts_with('[') {
                setting.from = "default".into();
            }
            if smart_host && setting.key == "port" {
                setting.value = None;
            }
        }
        if default {
            self.out.retain(|s| s.table != table || !only_of_providers(&s.key));
        }
        let heirs: &[&str] = if default { &["retry"] } else { &["default.retry", "retry"] };
        self.add(table, &format!("{path}.retry"), "retry.", heirs, &draft.p.retry);
    }
}

/// The effective configuration as TOML, each value with where it came from.
pub struct AsToml<'a>(pub &'a [Setting]);

impl fmt::Display for AsToml<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last: Option<(&str, &str)> = None;
        // Of a built-in profile only what it says itself: for all else see [default].
        for setting in self.0.iter().filter(|s| !s.built_in || s.from.starts_with("built-in")) {
            // Each entry of a list of tables begins with the first key of its table again.
            let begins = match last {
                None => !setting.table.is_empty(),
                Some((table, first)) => table != setting.table || first == setting.key,
            };
            if begins {
                writeln!(f, "{}{}", if last.is_some() { "\n" } else { "" }, setting.table)?;
            }
            if begins || last.is_none() {
                last = Some((&setting.table, &setting.key));
            }
            match &setting.value {
                Some(value) => writeln!(f, "{} = {}  # {}", setting.key, value.to_string().trim(), setting.from)?,
                None => writeln!(f, "# {} is not set", setting.key)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Limit;
    use super::super::dkim::DkimDraft;
    use super::super::keys::{Admin, RouteDraft};
    use super::super::listener_keys::ListenerDraft;
    use super::super::srs::SrsDraft;
    use super::super::tls_report::TlsReportDraft;
    use super::super::users::UserDraft;
    use super::super::{Config, Dns, Loaded, Log, Provider, Queue, Retry};
    use super::*;
    use std::sync::Arc;

    use proptest::prelude::*;

    /// All of a configuration but where it came from.
    fn plain(config: &Config) -> String {
        let mut config = Config { origins: Origins::default(), ..config.clone() };
        let anonymous = |provider: &mut Arc<Provider>| {
            Arc::make_mut(provider).rules.iter_mut().for_each(|rule| rule.origin.clear());
        };
        config.providers.iter_mut().for_each(anonymous);
        anonymous(&mut config.default);
        config.routes.iter_mut().for_each(|route| anonymous(&mut route.via));
        format!("{config:#?}")
    }

    #[test]
    fn every_default_is_valid_and_every_example_is_a_value() {
        fn check<T: Table>() {
            let mut draft = T::blank();
            for key in T::KEYS {
                assert!(!key.doc.trim().is_empty() && key.default.is_empty() != key.example.is_empty(), "{}", key.name);
                let value: Value = format!("{}{}", key.default, key.example).parse().unwrap();
                if !key.default.is_empty() {
                    let read = key.kind.read(&value).and_then(|v| (key.set)(&mut draft, v));
                    assert_eq!(read, Ok(()), "{}", key.name);
                    let shown = key.get(&draft).unwrap().to_toml().to_string();
                    assert_eq!(shown.trim(), value.to_string().trim(), "{} prints what it parses", key.name);
                } else if !key.kind.reads_what_is_elsewhere() {
                    assert!(key.kind.read(&value).is_ok(), "{}", key.name);
                }
            }
        }
        check::<Top>();
        check::<ListenerDraft>();
        check::<UserDraft>();
        check::<Queue>();
        check::<Retry>();
        check::<Dns>();
        check::<ProviderDraft>();
        check::<RuleDraft>();
        check::<RouteDraft>();
        check::<Limit>();
        check::<DkimDraft>();
        check::<SrsDraft>();
        check::<TlsReportDraft>();
        check::<Admin>();
        check::<Log>();
    }

    #[test]
    fn the_effective_configuration_parses_to_itself() {
        let dir = tempfile::tempdir().unwrap();
        let dkim = crate::config::dkim::example(dir.path());
        let text = "drain = '7s'\n[[listener]]\n[[listener]]\naddress = '[::1]:2526'\n[default]\nrate = []\nretry.max = '2h'\n\
                    [provider.\"a.b\"]\nmatch.domains = ['x.example']\nretry = { first = '3s' }\n[provider.s]\nrelay = 'h.example:465'\n\
                    warmup = { start = '2026-12-01', day_1 = '50/d', double_every = '1d', until = '200/d' }\n\
                    [[provider.s.on_reply]]\ntext = 'slow'\nslow_to = '1/m'\nfor = '1h'\nafter = '3/h'\n\
                    [[default.on_reply]]\nstage = 'final'\ncode = 554\ntreat_as = 'temporary'\nalert = true\n\
                    [provider.gmail]\nrate = '7/s'\n[provider.mailer]\nrelay = 'email-smtp.eu-west-1.amazonaws.com:587'\n\
                    [[route]]\nsender = '<>'\npriority = -3\n[[route]]\nsender = '*@a.example'\nvia = 'mailer'\n\
                    [[route]]\nvia = 's'\n[[limit]]\nprovider = 'gmail'\nquota = '50/90s'\n";
        let loaded = Loaded::parse(&format!("{text}{dkim}"), "my.toml").unwrap();
        let printed = AsToml(&loaded.settings).to_string();
        for line in [
            "selector = \"a\"  # my.toml:41",
            "subdomains = true  # default",
            "drain = \"7s\"  # my.toml:1",
            "address = \"localhost:2525\"  # default",
            "rate = []  # [default], my.toml:6",
            "retry.first = \"3s\"  # my.toml:10",
            "retry.max = \"2h\"  # [default.retry], my.toml:7",
            "implicit_tls = true  # default",
            "tls = \"verified\"  # default",
            "[provider.\"a.b\"]",
            "warmup = { start = \"2026-12-01\", days = [50, 100, 200] }  # my.toml:13",
            "[[provider.s.on_reply]]\nscope = \"account\"  # my.toml:14\ntext = \"slow\"  # my.toml:14",
            "rate = [\"7/s\"]  # my.toml:25",
            "messages_per_connection = 50  # built-in gmail: shaping rules",
            "recipients_per_message = 50  # built-in ses: vendor page",
            "quota = [\"50/90s\"]  # my.toml:38",
            "priority = -3  # my.toml:30",
        ] {
            assert!(printed.contains(line), "{line} in\n{printed}");
        }
        let again = Loaded::parse(&printed, "again").unwrap_or_else(|e| panic!("{e}\n{printed}"));
        assert!(plain(&again.config) == plain(&loaded.config), "{printed}");
    }

    #[test]
    fn a_secret_is_never_printed() {
        let text = "hostname = 'a.example'\n[provider.s]\nrelay = 'h.example:587'\nauth = { user = 'u', password = 'hunter2' }\n[[route]]\nvia = 's'\n";
        let loaded = Loaded::parse(text, "x").unwrap();
        assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
        assert!(
            loaded.warnings[0]
                .to_string()
                .starts_with("x:4:33: provider.s.auth.password: the secret stands in the file")
        );
        let all = format!("{} {:?} {:?}", AsToml(&loaded.settings), loaded, loaded.warnings);
        assert!(!all.contains("hunter2") && all.contains("<secret>"));
        let relay = loaded.config.providers[0].relay.clone().unwrap();
        assert_eq!(relay.auth.unwrap().password.reveal(), "hunter2");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,200}") {
            let _ = Loaded::parse(&text, "x");
        }

        #[test]
        fn no_toml_makes_the_parser_panic(
            lines in proptest::collection::vec(
                ("(\\[|\\[\\[)?", "(provider|default|listener|route|limit|retry|queue|dns|log|admin|match|auth|via|rate|quota|warmup|text|for|code|priority|allow|relay|tls|address|store|port|first)(\\.[a-z\"é]{1,3}|\\.gmail|\\.retry|\\.auth|\\.match|\\.on_reply|\\.gmail\\.on_reply)?",
                 "(\\]|\\]\\]| = )", "(\"[a-z0-9/:@*.<>#é-]{0,12}\"|-?[0-9]{1,20}|\\[\"\\PC{0,5}\"\\]|\\{ (env|file|mx) = \"x\" \\}|true|1e400|nan)?"),
                0..12,
            )
        ) {
            let text: String = lines.into_iter().map(|(a, b, c, d)| format!("{a}{b}{c}{d}\n")).collect();
            if let Err(e) = Loaded::parse(&text, "x") {
                prop_assert!(!e.problems.is_empty() && e.to_string().starts_with("x:"));
            }
        }
    }
}
