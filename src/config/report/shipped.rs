//! What the declarations of the keys make: the shipped `config.toml`, the table of the documentation and the
//! list of names.

use std::fmt::Write;

use super::super::keys::{Admin, Key, ProviderDraft, RouteDraft, Table, Top};
use super::super::listener_keys::ListenerDraft;
use super::super::rule_keys::{LimitDraft, RuleDraft};
use super::super::{Dns, Log, Queue, Retry, Sendmail};
use super::only_of_providers;

/// The text of the shipped `config.toml`: every key with unit, range and default.
pub fn shipped() -> String {
    let mut out = String::from(INTRO);
    keys_of::<Top>(&mut out, false);
    section::<ListenerDraft>(
        &mut out,
        "[[listener]]",
        "The side that takes mail in. Further [[listener]] may follow.",
        false,
    );
    section::<Queue>(&mut out, "[queue]", "The queue on disk.", false);
    section::<Retry>(
        &mut out,
        "[retry]",
        "When mail is tried again: waits that grow, and an end. Also for one provider: retry = { first = \"5m\" }.",
        false,
    );
    section::<Dns>(&mut out, "[dns]", "Name resolution.", false);
    out.push_str(DEFAULT_INTRO);
    out.push_str("\n[default]\n");
    provider_keys(&mut out, only_of_providers, false);
    out.push_str(PROVIDER_INTRO);
    out.push_str("\n# [provider.NAME]\n");
    provider_keys(&mut out, |key| !only_of_providers(key), true);
    section::<RuleDraft>(&mut out, "[[provider.NAME.on_reply]]", RULE_INTRO, true);
    section::<RouteDraft>(&mut out, "[[route]]", ROUTE_INTRO, true);
    section::<LimitDraft>(&mut out, "[[limit]]", LIMIT_INTRO, true);
    section::<Admin>(&mut out, "[admin]", "For monitoring.", false);
    section::<Sendmail>(
        &mut out,
        "[sendmail]",
        "For `sendmail` and `mailweir send`. They read this table, `hostname`, `default_domain` and the\n\
         # listeners, if the user may read the file; else they try 127.0.0.1:2525.",
        false,
    );
    section::<Log>(
        &mut out,
        "[log]",
        "What is printed to standard error. The environment variable MAILWEIR_LOG overrides the level.",
        false,
    );
    out
}

const INTRO: &str = "\
# mailweir: configuration. Every key is here, with its range and its default, and may be left out.
# `mailweir check` prints what holds and where it came from. An unknown key is refused.
#
# Spans of time: \"500ms\", \"30s\", \"5m\", \"4h\", \"5d\". Sizes: 1024, \"20MB\", \"25MiB\". Rates: \"20/s\",
# \"30/m\", \"500/h\", \"2000/d\", \"5000/180s\".
";

const DEFAULT_INTRO: &str = "
# Limits of each destination domain that no provider matches, and of providers where they say
# nothing of their own. Every key here may stand in [provider.NAME] too.
";

const PROVIDER_INTRO: &str = "
# A provider is a group of destinations that share limits. In the order of the file, the first
# that matches a recipient has it; then come the built-in ones. These keys are for providers only;
# for all others see [default].
#
# [provider.gmail]                                # builds on the built-in profile of that name
# rate = [\"20/s\", \"600/m\"]
# quota = \"50000/d\"
#
# [provider.ses]                                  # a smart host
# relay = \"email-smtp.eu-west-1.amazonaws.com:587\"
# auth = { user = \"AKIAEXAMPLE\", password = { env = \"SES_PASSWORD\" } }
# rate = \"14/s\"
# count = \"recipients\"
# retry = { first = \"5m\" }
#
# [[route]]                                       # everything from shop.example goes through it
# sender = \"*@shop.example\"
# via = \"ses\"
";

const RULE_INTRO: &str = "\
What replies mean, also as [[default.on_reply]]: conditions that must all hold, and what follows. The
# first rule that matches a reply decides: those here in order, then the built-in ones of the
# provider's profile, then those of [default]. For example:
#
# [[provider.gmail.on_reply]]
# code = 421
# enhanced = \"4.7.28\"
# slow_to = \"10/m\"
# for = \"30m\"";

const LIMIT_INTRO: &str = "\
A share of a provider for some senders or clients, so that one application cannot eat another's.
# Every one that matches holds, besides the limits of the provider. For example:
#
# [[limit]]
# sender = \"*@shop.example\"
# provider = \"gmail\"
# quota = \"5000/d\"";

const ROUTE_INTRO: &str = "\
Sends mail through a provider whatever its MX, or gives it a priority. The first route that
# matches and has a `via` decides the way, the first that matches and has a `priority` decides that.";

fn section<T: Table>(out: &mut String, header: &str, intro: &str, commented: bool) {
    let _ = write!(out, "\n# {intro}\n{}{header}\n", if commented { "# " } else { "" });
    keys_of::<T>(out, commented);
}

fn keys_of<T: Table>(out: &mut String, commented: bool) {
    T::KEYS.iter().for_each(|key| one_key(out, key, commented));
}

fn provider_keys(out: &mut String, skip: fn(&str) -> bool, commented: bool) {
    ProviderDraft::KEYS.iter().filter(|k| !skip(k.name)).for_each(|key| one_key(out, key, commented));
}

fn one_key<D>(out: &mut String, key: &Key<D>, commented: bool) {
    out.push('\n');
    for line in key.doc.lines() {
        let _ = writeln!(out, "#{line}");
    }
    // The introduction tells how spans and sizes are written.
    let expected = key.kind.expected();
    let _ = writeln!(out, "# Expected: {}.", expected.split(", such as").next().unwrap_or_default());
    let (value, off) = if key.default.is_empty() { (key.example, true) } else { (key.default, commented) };
    let _ = writeln!(out, "{}{} = {value}", if off { "# " } else { "" }, key.name);
}

/// The table of keys for the documentation, in Markdown.
pub fn markdown() -> String {
    fn rows<T: Table>(out: &mut String, table: &str, prefix: &str) {
        for key in T::KEYS {
            let default = if key.default.is_empty() { "none".to_owned() } else { format!("`{}`", key.default) };
            let doc: Vec<&str> = key.doc.lines().map(str::trim).collect();
            let expected = key.kind.expected();
            let table = if T::NAME == "provider" && only_of_providers(key.name) { "`[provider.NAME]`" } else { table };
            let _ = writeln!(out, "| {table} | `{prefix}{}` | {default} | {expected} | {} |", key.name, doc.join(" "));
        }
    }
    let mut out = String::from("| table | key | default | expected | meaning |\n| --- | --- | --- | --- | --- |\n");
    rows::<Top>(&mut out, "", "");
    rows::<ListenerDraft>(&mut out, "`[[listener]]`", "");
    rows::<Queue>(&mut out, "`[queue]`", "");
    rows::<Retry>(&mut out, "`[retry]`, `retry` of a provider", "");
    rows::<Dns>(&mut out, "`[dns]`", "");
    rows::<ProviderDraft>(&mut out, "`[provider.NAME]`, `[default]`", "");
    rows::<RuleDraft>(&mut out, "`[[provider.NAME.on_reply]]`, `[[default.on_reply]]`", "");
    rows::<RouteDraft>(&mut out, "`[[route]]`", "");
    rows::<LimitDraft>(&mut out, "`[[limit]]`", "");
    rows::<Admin>(&mut out, "`[admin]`", "");
    rows::<Sendmail>(&mut out, "`[sendmail]`", "");
    rows::<Log>(&mut out, "`[log]`", "");
    out
}

/// The full names of all keys as they stand in a file, for tests and tools.
pub fn key_names() -> Vec<String> {
    fn names<T: Table>(out: &mut Vec<String>, table: &str) {
        out.extend(T::KEYS.iter().map(|k| format!("{table}{}", k.name)));
    }
    let mut out = Vec::new();
    names::<Top>(&mut out, "");
    names::<ListenerDraft>(&mut out, "listener.");
    names::<Queue>(&mut out, "queue.");
    names::<Retry>(&mut out, "retry.");
    names::<Dns>(&mut out, "dns.");
    names::<ProviderDraft>(&mut out, "provider.");
    names::<RuleDraft>(&mut out, "on_reply.");
    names::<RouteDraft>(&mut out, "route.");
    names::<LimitDraft>(&mut out, "limit.");
    names::<Admin>(&mut out, "admin.");
    names::<Sendmail>(&mut out, "sendmail.");
    names::<Log>(&mut out, "log.");
    out
}
