//! What the declarations of the keys make: the reference of docs/configuration.md, the list of names, and what
//! each key means.
//!
//! Invariant: a key that is declared is in all of them; a test compares the page with [`reference`].

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use super::super::Limit;
use super::super::dkim::DkimDraft;
use super::super::keys::{Admin, Key, ProviderDraft, RouteDraft, Table, Top};
use super::super::listener_keys::ListenerDraft;
use super::super::rewrite::{CopyDraft, RewriteDraft};
use super::super::rule_keys::RuleDraft;
use super::super::sandbox::SandboxDraft;
use super::super::srs::SrsDraft;
use super::super::tls_report::TlsReportDraft;
use super::super::units::{Size, Span};
use super::super::users::UserDraft;
use super::super::value::Kind;
use super::super::{Dns, Log, Queue, Retry, Sendmail};
use super::only_of_providers;

/// Calls `$with::<TABLE>($args…)` for every table of the file, in the order of the documentation.
macro_rules! each_table {
    ($with:ident, $out:expr) => {
        $with::<Top>(
            $out,
            "",
            "Keys outside any table",
            "They stand at the top of the file, above the first `[table]`.",
            "",
        );
        $with::<ListenerDraft>($out, "listener.", "`[[listener]]`", LISTENER_INTRO, "`[[listener]]`");
        $with::<UserDraft>($out, "user.", "`[[user]]`", USER_INTRO, "`[[user]]`");
        $with::<Queue>($out, "queue.", "`[queue]`", "The queue on disk.", "`[queue]`");
        $with::<Retry>(
            $out,
            "retry.",
            "`[retry]`",
            RETRY_INTRO,
            "`[retry]`, `retry` of `[provider.NAME]` and `[default]`",
        );
        $with::<Dns>($out, "dns.", "`[dns]`", "Name resolution.", "`[dns]`");
        $with::<ProviderDraft>(
            $out,
            "provider.",
            "`[provider.NAME]` and `[default]`",
            PROVIDER_INTRO,
            "`[provider.NAME]`, `[default]`",
        );
        $with::<RuleDraft>(
            $out,
            "on_reply.",
            "`[[provider.NAME.on_reply]]`",
            RULE_INTRO,
            "`[[provider.NAME.on_reply]]`, `[[default.on_reply]]`",
        );
        $with::<RouteDraft>($out, "route.", "`[[route]]`", ROUTE_INTRO, "`[[route]]`");
        $with::<Limit>($out, "limit.", "`[[limit]]`", LIMIT_INTRO, "`[[limit]]`");
        $with::<RewriteDraft>($out, "rewrite.", "`[[rewrite]]`", REWRITE_INTRO, "`[[rewrite]]`");
        $with::<SrsDraft>($out, "srs.", "`[srs]`", SRS_INTRO, "`[srs]`");
        $with::<CopyDraft>($out, "copy.", "`[[copy]]`", COPY_INTRO, "`[[copy]]`");
        $with::<DkimDraft>($out, "dkim.", "`[[dkim]]`", DKIM_INTRO, "`[[dkim]]`");
        $with::<Admin>($out, "admin.", "`[admin]`", "For monitoring.", "`[admin]`");
        $with::<SandboxDraft>($out, "sandbox.", "`[sandbox]`", SANDBOX_INTRO, "`[sandbox]`");
        $with::<TlsReportDraft>($out, "tls_report.", "`[tls_report]`", TLS_REPORT_INTRO, "`[tls_report]`");
        $with::<Sendmail>($out, "sendmail.", "`[sendmail]`", SENDMAIL_INTRO, "`[sendmail]`");
        $with::<Log>($out, "log.", "`[log]`", LOG_INTRO, "`[log]`");
    };
}

const LISTENER_INTRO: &str =
    "The side that takes mail in. There may be several; those that the file names replace the default one.";

const USER_INTRO: &str = "\
One who may log in at listeners, see [users.md](users.md).

```toml
[[user]]
name = \"shop\"
password = { file = \"/etc/mailweir/shop.hash\" }  # what `mailweir passwd` prints
senders = [\"*@shop.example\"]
```";

const RETRY_INTRO: &str = "When mail is tried again: waits that grow, and an end. Also for one provider:\n\
    `retry = { first = \"5m\" }`.";

const PROVIDER_INTRO: &str = "\
A provider is a group of destinations that share limits. In the order of the file, the first that matches a recipient
has it; then come the built-in ones ([profiles.md](profiles.md)). A table with the name of a built-in profile changes
single values of it. `[default]` has the limits of each domain that no provider matches, and of providers where they say
nothing of their own. How it all goes together: [providers.md](providers.md).

```toml
[provider.gmail]                                # builds on the built-in profile of that name
rate = [\"20/s\", \"600/m\"]
quota = \"50000/d\"

[provider.ses]                                  # a smart host
relay = \"email-smtp.eu-west-1.amazonaws.com:587\"
auth = { user = \"AKIAEXAMPLE\", password = { env = \"SES_PASSWORD\" } }
rate = \"14/s recipients\"
retry = { first = \"5m\" }

[[route]]                                       # everything from shop.example goes through it
sender = \"*@shop.example\"
via = \"ses\"
```";

const RULE_INTRO: &str = "\
What replies mean, also as `[[default.on_reply]]`: conditions that must all hold, and what follows. The first rule that
matches a reply decides: those of the provider in order, then the built-in ones of its profile, then those of
`[default]`.

```toml
[[provider.gmail.on_reply]]
code = 421
enhanced = \"4.7.28\"
slow_to = \"10/m\"
for = \"30m\"
```";

const ROUTE_INTRO: &str = "\
Sends mail through a provider whatever its MX, or gives it a priority. The first route that matches and has a `via`
decides the way, the first that matches and has a `priority` decides that. All conditions of a route must hold.";

const LIMIT_INTRO: &str = "\
A share of a provider for some senders or clients, so that one application cannot eat another's. Every one that matches
holds, besides the limits of the provider.

```toml
[[limit]]
sender = \"*@shop.example\"
provider = \"gmail\"
quota = \"5000/d\"
```";

const REWRITE_INTRO: &str = "\
Another address for senders that nobody can configure, see [routing.md](routing.md#another-sender). The first one that matches
an address decides.

```toml
[[rewrite]]
address = \"*@*.lan\"
to = \"*@shop.example\"
```";

const COPY_INTRO: &str = "\
One more recipient for messages that match, as an archive, see [routing.md](routing.md#copies). All that match count.

```toml
[[copy]]
to = \"archive@shop.example\"
sender = \"*@shop.example\"
```";

const SRS_INTRO: &str = "\
For a `[[rewrite]]` with `srs`: senders of others become addresses of this domain, and bounces to these are led back to who it was. See
[routing.md](routing.md#senders-that-lead-back).

```toml
[srs]
domain = \"forward.shop.example\"
secret = { file = \"/etc/mailweir/srs.secret\" }
```";

const DKIM_INTRO: &str = "\
A key that signs mail of a domain, over what really leaves. All of a domain sign; see [dkim.md](dkim.md).

```toml
[[dkim]]
domain = \"shop.example\"
selector = \"202612-rsa\"
key = \"/etc/mailweir/dkim/shop.example.202612-rsa.pem\"
```";

const SANDBOX_INTRO: &str = "\
For a relay of which nothing may reach real people, as one for staging: everything goes to one address, or is held.
`check`, `status` and the log say so. See [routing.md](routing.md#a-sandbox).

```toml
[sandbox]
to = \"staging@shop.example\"
allow = [\"*@test.shop.example\"]
```";

const TLS_REPORT_INTRO: &str = "\
Daily reports to other domains on TLS with their mail hosts, for those that ask for them in DNS (TLS-RPT, RFC 8460). Without this
table none are made. See [tls.md](tls.md#reports).

```toml
[tls_report]
from = \"tls-reports@shop.example\"
organization = \"Shop Ltd\"
contact = \"postmaster@shop.example\"
```";

const SENDMAIL_INTRO: &str = "\
For `sendmail` and `mailweir send`. They read this table, `hostname`, `default_domain` and the listeners, if the user
may read the file; else they try localhost:2525. See [sendmail.md](sendmail.md).";

const LOG_INTRO: &str =
    "What is printed to standard error. The environment variable `MAILWEIR_LOG` overrides the level.";

/// The reference of all keys in Markdown: for each its full name as a heading (so that links can lead to it), where
/// it stands, what it accepts, its default, an example, and what it means.
pub fn reference() -> String {
    let mut out = String::new();
    each_table!(section, &mut out);
    out
}

/// The full names of all keys, which are the headings of [`reference`], for tests and tools.
pub fn key_names() -> Vec<String> {
    let mut out = Vec::new();
    each_table!(names, &mut out);
    out
}

/// What each key means and what it accepts, by its full name.
pub(super) fn meanings() -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    each_table!(told, &mut out);
    out
}

fn told<T: Table>(out: &mut BTreeMap<String, String>, prefix: &str, _: &str, _: &str, _: &str) {
    for key in T::KEYS {
        let doc: Vec<&str> = key.doc.lines().map(str::trim).collect();
        let meaning = format!("{}\nExpected: {}.", doc.join("\n"), key.kind.expected());
        out.insert(format!("{prefix}{}", key.name), meaning);
    }
}

fn names<T: Table>(out: &mut Vec<String>, prefix: &str, _: &str, _: &str, _: &str) {
    out.extend(T::KEYS.iter().map(|key| format!("{prefix}{}", key.name)));
}

fn section<T: Table>(out: &mut String, prefix: &str, title: &str, intro: &str, place: &str) {
    let _ = write!(out, "\n## {title}\n\n{intro}\n");
    for key in T::KEYS {
        let own = T::NAME == "provider" && only_of_providers(key.name);
        entry(out, key, prefix, if own { "`[provider.NAME]`" } else { place });
    }
}

fn entry<D>(out: &mut String, key: &Key<D>, prefix: &str, place: &str) {
    let doc: Vec<&str> = key.doc.lines().map(str::trim).collect();
    let _ = write!(out, "\n### {prefix}{}\n\n{}\n\n", key.name, doc.join("\n"));
    if !place.is_empty() {
        let _ = writeln!(out, "- stands in: {place}");
    }
    let _ = writeln!(out, "- expected: {}", key.kind.expected());
    let default = match key.default {
        "" if key.doc.contains("Default:") => "see above".to_owned(),
        "" => "none".to_owned(),
        value => format!("`{value}`"),
    };
    let _ = writeln!(out, "- default: {default}\n- example: `{} = {}`", key.name, example(key));
}

/// A value worth showing: that of the declaration, else one that says more than the default does.
fn example<D>(key: &Key<D>) -> String {
    if !key.example.is_empty() {
        return key.example.to_owned();
    }
    let shown = match key.kind {
        Kind::Flag => if key.default == "true" { "false" } else { "true" }.to_owned(),
        Kind::Word(words) => {
            let quoted = words.iter().map(|word| format!("\"{word}\""));
            quoted.into_iter().find(|word| word != key.default).unwrap_or_default()
        }
        Kind::Int(_, max) if key.name != "port" => {
            key.default.parse().map(|n| other(n, 10, max).to_string()).unwrap_or_default()
        }
        Kind::Span(_, max) => {
            let default = key.default.trim_matches('"').parse().map(|Span(span)| span.as_millis());
            let millis = default.ok().and_then(|ms| u64::try_from(ms).ok());
            let shown = millis.map(|ms| Span(Duration::from_millis(other(ms, 300_000, max))));
            shown.map(|span| format!("\"{span}\"")).unwrap_or_default()
        }
        Kind::Size(_, max) => {
            let default = key.default.trim_matches('"').parse().map(|Size(bytes)| other(bytes, 10 << 20, max));
            default.map(|bytes| format!("\"{}\"", Size(bytes))).unwrap_or_default()
        }
        Kind::Networks => r#"["127.0.0.0/8", "192.0.2.0/24"]"#.into(),
        Kind::HostPatterns if key.name.ends_with("domains") => r#"["example.net", "*.example.net"]"#.into(),
        Kind::HostPatterns => r#"["*.google.com"]"#.into(),
        Kind::MailPattern(_) => r#""*@shop.example""#.into(),
        Kind::MailPatterns => r#"["*@shop.example"]"#.into(),
        Kind::LanePattern => r#""gmail""#.into(),
        Kind::Rates => r#""5/s""#.into(),
        Kind::CountedRates(true) => r#"["20/s messages", "5/s connections"]"#.into(),
        Kind::CountedRates(false) => r#"["500/h", "5000/d recipients"]"#.into(),
        Kind::Nameservers => r#"["192.0.2.53", "tls://192.0.2.54#dns.example"]"#.into(),
        Kind::Sources => r#"["192.0.2.10", { address = "192.0.2.11", name = "out2.example.com" }]"#.into(),
        _ => key.default.to_owned(),
    };
    if shown.is_empty() { key.default.to_owned() } else { shown }
}

/// Another number than the default: twice as much, or half where that is too much.
fn other(default: u64, instead_of_none: u64, max: u64) -> u64 {
    match default {
        0 => instead_of_none,
        n if n.saturating_mul(2) <= max => n * 2,
        n => n / 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_is_a_value_of_its_key_and_none_says_nothing() {
        fn check<T: Table>(seen: &mut usize, prefix: &str, _: &str, _: &str, _: &str) {
            for key in T::KEYS {
                let text = example(key);
                let value: toml_edit::Value = text.parse().unwrap_or_else(|e| panic!("{prefix}{}: {e}", key.name));
                let nothing = value.as_array().is_some_and(toml_edit::Array::is_empty) || value.as_str() == Some("*");
                assert!(!nothing, "{prefix}{}: {text}", key.name);
                // These read a file or a variable that is not there.
                if !key.kind.reads_what_is_elsewhere() && !matches!(key.kind, Kind::AliasFile) {
                    assert!(key.kind.read(&value).is_ok(), "{prefix}{} = {text}", key.name);
                }
                *seen += 1;
            }
        }
        let mut seen = 0;
        each_table!(check, &mut seen);
        assert!(seen > 90, "only {seen} keys");
        assert_eq!(seen, key_names().len());
    }

    #[test]
    fn every_key_is_a_heading_of_the_reference_once() {
        let text = reference();
        for name in key_names() {
            let heading = format!("### {name}");
            assert_eq!(text.lines().filter(|line| *line == heading).count(), 1, "{name}");
        }
    }
}
