//! Contradictions in what shapes: reply rules, quotas, warm-up, `[[limit]]`, and patterns that can
//! never match. Each is refused with the reason. Also the order of the rules of a provider.

use std::sync::Arc;
use std::time::Duration;

use super::file::{Draft, Reader};
use super::keys::{ProviderDraft, RouteDraft};
use super::rule_keys::{RuleDraft, TreatAs};
use super::units::Pattern;
use super::value::nearest;
use super::{Config, Count, CountedRate, Limit, LimitsPer, Over, Overflow, ReplyRule, RuleScope, Warmup, own_address};
use crate::clock::Timestamp;

const DAY: Duration = Duration::from_secs(86_400);

/// Notes every contradiction in `draft`.
pub(super) fn check(reader: &mut Reader<'_>, draft: &Draft) {
    shape(reader, "default", &draft.default);
    for provider in &draft.providers {
        if provider.is_built_in(reader) {
            continue;
        }
        shape(reader, &format!("provider.{}", provider.p.name), provider);
    }
    dead_patterns(reader, draft);
    dead_routes(reader, &draft.routes);
    for (i, limit) in draft.limits.iter().enumerate() {
        self::limit(reader, &format!("limit[{}]", i + 1), limit, &draft.providers);
    }
}

impl ProviderDraft {
    /// The file says nothing about it: it is a built-in profile as it stands.
    pub(super) fn is_built_in(&self, reader: &Reader<'_>) -> bool {
        self.profile.is_some() && !reader.has(&format!("provider.{}", self.p.name))
    }

    /// Its own rules, then those of its profile.
    pub(super) fn nearer_rules(&self) -> Vec<&RuleDraft> {
        let built_in = self.profile.map(|p| p.rules()).unwrap_or_default();
        distinct(self.rules.iter().chain(built_in), self.relay.is_some())
    }

    /// All its rules in the order in which they are asked: the nearer ones, then those of
    /// `[default]` (with the generic ones).
    pub(super) fn effective_rules(&self, default: &[RuleDraft]) -> Vec<ReplyRule> {
        let smart_host = self.relay.is_some();
        let rules = distinct(self.nearer_rules().into_iter().chain(default), smart_host);
        rules.into_iter().map(|rule| rule.assemble(smart_host)).collect()
    }
}

/// Leaves out what an earlier rule says word for word, so that a printed configuration, which has
/// the built-in rules in it, means the same when it is read.
fn distinct<'a>(rules: impl IntoIterator<Item = &'a RuleDraft>, smart_host: bool) -> Vec<&'a RuleDraft> {
    let anonymous = |rule: &RuleDraft| ReplyRule { origin: String::new(), ..rule.assemble(smart_host) };
    let mut seen: Vec<ReplyRule> = Vec::new();
    let mut kept = Vec::new();
    for rule in rules {
        let this = anonymous(rule);
        if !seen.contains(&this) {
            seen.push(this);
            kept.push(rule);
        }
    }
    kept
}

fn shape(reader: &mut Reader<'_>, path: &str, draft: &ProviderDraft) {
    rules(reader, &draft.rules, draft.relay.is_some());
    sources(reader, path, draft);
    let plans = draft.p.source.iter().filter_map(|source| Some((source.warmup.as_ref()?, "source")));
    for (plan, key) in draft.p.warmup.iter().map(|plan| (plan, "warmup")).chain(plans) {
        fits_quota(reader, path, draft, plan, key);
    }
    let said = |key: &str| reader.has(&format!("{path}.{key}"));
    let rates: &[CountedRate] = if said("rate") { &draft.p.rate } else { &[] };
    let quotas: &[CountedRate] = if said("quota") { &draft.p.quota } else { &[] };
    contradictions(reader, path, (rates, quotas), (&draft.p.rate, &draft.p.quota), draft.p.count);
    other_unit(reader, path, draft);
}

/// Limits that are never reached because another one, of a longer time, allows fewer: rates and quotas
/// that are `told` of, by those that `hold`.
fn contradictions(
    reader: &mut Reader<'_>,
    path: &str,
    told: (&[CountedRate], &[CountedRate]),
    hold: (&[CountedRate], &[CountedRate]),
    count: Count,
) {
    let (rates, quotas) = told;
    for (key, limit) in rates.iter().map(|rate| ("rate", rate)).chain(quotas.iter().map(|quota| ("quota", quota))) {
        let Some(of) = limit.count(count) else { continue };
        // A message has at least one recipient, so what limits those limits messages, too.
        let binds = |other: &&CountedRate| {
            other.count(count).is_some_and(|theirs| theirs == of || theirs == Count::Recipients)
                && other.per > limit.per
                && other.rate.count < limit.rate.count
        };
        let why = |other: &CountedRate| format!("is never reached: \"{other}\" allows fewer in a longer time");
        let message = match (hold.0.iter().find(binds), hold.1.iter().find(binds)) {
            (Some(rate), _) => format!("\"{limit}\" {}", why(rate)),
            // A quota limits how many leave, not how soon one after the other.
            (None, Some(quota)) if key == "rate" => format!(
                "the total of \"{limit}\" {}; the pace between two {} holds all the same",
                why(quota),
                of.as_str()
            ),
            (None, Some(quota)) => format!("\"{limit}\" {}", why(quota)),
            (None, None) => continue,
        };
        reader.warn(&format!("{path}.{key}"), message);
    }
}

/// A rate without a unit instead of a profile's that has one, where `count` says another.
fn other_unit(reader: &mut Reader<'_>, path: &str, draft: &ProviderDraft) {
    let Some(profile) = draft.profile.filter(|_| !reader.has(&format!("{path}.count"))) else { return };
    for (key, own, built_in) in
        [("rate", &draft.p.rate, &profile.draft().p.rate), ("quota", &draft.p.quota, &profile.draft().p.quota)]
    {
        let bare = own.iter().find(|limit| limit.unit.is_none() && reader.has(&format!("{path}.{key}")));
        let counted = built_in.iter().find(|limit| limit.count(draft.p.count) != Some(draft.p.count));
        if let (Some(bare), Some(counted)) = (bare, counted) {
            let message = format!(
                "\"{bare}\" counts {of}, as `count` of the profile says, and the profile has \"{counted}\": \
                 expected a unit, such as \"{bare} {of}\"",
                of = draft.p.count.as_str()
            );
            reader.warn(&format!("{path}.{key}"), message);
        }
    }
}

/// What only makes sense with limits for each source.
fn sources(reader: &mut Reader<'_>, path: &str, draft: &ProviderDraft) {
    let p = &draft.p;
    let said = |reader: &Reader<'_>, key: &str| reader.has(&format!("{path}.{key}"));
    if said(reader, "source") {
        own_address::warn_of_sources(reader, &format!("{path}.source"), &p.source);
    }
    // Other tables may have the addresses for what stands in [default].
    if p.limits_per == LimitsPer::Source {
        if p.source.is_empty() && path != "default" && said(reader, "limits_per") {
            let message = "there is no source address to have them: `source` is missing";
            reader.fault(&format!("{path}.limits_per"), message.into());
        }
    } else if let Some(own) = p.source.iter().find(|source| source.warmup.is_some()) {
        let at = if said(reader, "source") { "source" } else { "limits_per" };
        let message = format!("{} has a warm-up of its own, which needs limits_per = \"source\"", own.address);
        reader.fault(&format!("{path}.{at}"), message);
    }
    let overflows = |plan: &Warmup| plan.overflow == Overflow::Source;
    let key = if p.warmup.as_ref().is_some_and(overflows) {
        "warmup"
    } else if p.source.iter().any(|source| source.warmup.as_ref().is_some_and(overflows)) {
        "source"
    } else {
        return;
    };
    let at = [key, "limits_per", "source"].into_iter().find(|key| said(reader, key)).unwrap_or(key);
    if p.limits_per != LimitsPer::Source && key == "warmup" {
        let message = "overflow = \"source\" needs limits_per = \"source\": with limits for all addresses together \
                       no other has room when the day's number is reached";
        reader.fault(&format!("{path}.{at}"), message.into());
    } else if p.source.len() < 2 && (path != "default" || said(reader, "source")) {
        let message = "overflow = \"source\" has no other source to go to: expected a second address in `source`";
        reader.fault(&format!("{path}.{at}"), message.into());
    }
}

/// Warm-up plans whose first day is still to come, or whose last one is over, each where it is written.
pub(super) fn begins_later(reader: &mut Reader<'_>, config: &Config, now: Timestamp) {
    for provider in config.providers.iter().chain([&config.default]) {
        let path = match &*provider.name {
            "default" => "default".to_owned(),
            name => format!("provider.{name}"),
        };
        let own = provider.source.iter().filter_map(|source| Some(("source", source.warmup.as_ref()?)));
        for (key, plan) in provider.warmup.iter().map(|plan| ("warmup", plan)).chain(own) {
            let at = format!("{path}.{key}");
            if plan.day(now) == 0 && reader.has(&at) {
                reader.warn(&at, plan.status(now));
            }
            if plan.day(now) > plan.length && reader.has(&at) {
                let last = plan.start.after(DAY.saturating_mul(plan.length.saturating_sub(1)));
                reader.warn(&at, format!("warm-up ended on {}: only `rate` and `quota` hold", last.day_text()));
            }
        }
    }
}

fn fits_quota(reader: &mut Reader<'_>, path: &str, draft: &ProviderDraft, plan: &Warmup, key: &str) {
    let first = plan.days.first().copied().unwrap_or(0);
    // The most that each quota lets through in a day, rounded up.
    let in_a_day = |quota: &CountedRate| {
        let windows = if quota.per >= DAY { 1 } else { DAY.as_millis().div_ceil(quota.per.as_millis().max(1)) };
        u128::from(quota.rate.count) * windows
    };
    // A message has at least one recipient, so what limits those limits messages, too.
    let same = |quota: &&CountedRate| {
        quota.count(draft.p.count).is_some_and(|of| of == draft.p.count || of == Count::Recipients)
    };
    if let Some(small) = draft.p.quota.iter().filter(same).find(|q| in_a_day(q) < u128::from(first)) {
        let at = if reader.has(&format!("{path}.{key}")) { key } else { "quota" };
        let message = format!("warm-up starts with {first} a day, more than quota = \"{small}\" ever allows");
        reader.fault(&format!("{path}.{at}"), message);
    }
}

/// Notes what is wrong with rules that stand in the file.
pub(super) fn rules(reader: &mut Reader<'_>, rules: &[RuleDraft], smart_host: bool) {
    for (i, rule) in rules.iter().enumerate() {
        // A key that could not be read is reported already; what is missing may be just that.
        if reader.problems.iter().any(|p| p.key.starts_with(&format!("{}.", rule.path))) {
            continue;
        }
        if let Some((key, message)) = fault_of(rule, smart_host) {
            let at = if key.is_empty() { rule.path.clone() } else { format!("{}.{key}", rule.path) };
            reader.fault(&at, message);
            continue;
        }
        if let Some(message) = unlikely_text(rule) {
            reader.warn(&format!("{}.text", rule.path), message);
        }
        let before = rules.iter().take(i).position(|other| other.after.is_none() && same_conditions(other, rule));
        if let Some(before) = before {
            reader.fault(&rule.path, format!("never used: on_reply[{}] takes all these replies", before + 1));
        }
    }
}

/// The first contradiction in a rule: the key to blame (empty: the rule), and why.
fn fault_of(rule: &RuleDraft, smart_host: bool) -> Option<(&'static str, String)> {
    let told = |key, message: &str| Some((key, message.to_owned()));
    let scope = rule.effective_scope(smart_host);
    if rule.stage.is_none() && rule.code.is_none() && rule.enhanced.is_none() && rule.text.is_none() {
        return told("", "has no condition, so it would take every reply: expected stage, code, enhanced or text");
    }
    if rule.actions().is_empty() {
        return told(
            "",
            "does nothing: expected delay, slow_to, connections, messages_per_connection, pause, treat_as or alert",
        );
    }
    if rule.is_lasting() && rule.lasting.is_none() {
        return told("", "`for` is missing: how long this lasts, such as for = \"30m\"");
    }
    if !rule.is_lasting() && !rule.alert && rule.lasting.is_some() {
        return told("for", "nothing in this rule lasts: `delay` says how long a recipient waits");
    }
    if rule.is_lasting() && matches!(scope, RuleScope::Recipient | RuleScope::Connection) {
        let message = format!(
            "a limit or pause reaches further than one {0}: expected \"provider\" or \"account\"",
            scope.as_str()
        );
        return Some(("scope", message));
    }
    if scope == RuleScope::Account && !smart_host {
        return told("scope", "an account is one at a smart host, and this provider has no `relay`");
    }
    if rule.pause {
        let moot = [
            ("slow_to", rule.slow_to.is_some()),
            ("connections", rule.connections.is_some()),
            ("messages_per_connection", rule.messages_per_connection.is_some()),
        ];
        if let Some((key, _)) = moot.into_iter().find(|(_, given)| *given) {
            return told(key, "contradicts pause = true: nothing is sent then");
        }
    }
    if rule.treat_as == Some(TreatAs::Permanent) && rule.delay.is_some() {
        return told("delay", "contradicts treat_as = \"permanent\": there is no next attempt");
    }
    if let (Some(code), Some(enhanced)) = (rule.code, &rule.enhanced) {
        let class = enhanced.as_str().split('.').next().unwrap_or_default();
        if class != "*" && class != (code / 100).to_string() {
            // An enhanced code of another class is dropped: the basic digit wins.
            let message = format!("never matches: a reply {code} has no enhanced code of class {class} (RFC 2034)");
            return Some(("enhanced", message));
        }
    }
    None
}

/// Why the words of a rule hardly stand in any reply that it is about.
fn unlikely_text(rule: &RuleDraft) -> Option<String> {
    let text = rule.text.as_deref()?;
    if text.contains('|') {
        return Some(format!(
            "{text:?} is looked for as it stands, with its |: expected one [[…on_reply]] for each of several texts"
        ));
    }
    let code = rule.code?;
    let class = text.split(|c: char| !c.is_ascii_digit() && c != '.').find_map(|word| {
        let parts: Vec<&str> = word.split('.').collect();
        let numbers = parts.len() == 3 && parts.iter().all(|part| (1..=3).contains(&part.len()));
        numbers.then(|| parts.first().copied()).flatten().filter(|class| ["2", "4", "5"].contains(class))
    })?;
    (class != (code / 100).to_string())
        .then(|| format!("{text:?} hardly stands in a reply {code}: its enhanced code is of class {class}"))
}

fn same_conditions(a: &RuleDraft, b: &RuleDraft) -> bool {
    let text = |r: &RuleDraft| r.text.as_ref().map(|t| t.to_lowercase());
    a.stage == b.stage && a.code == b.code && a.enhanced == b.enhanced && text(a) == text(b)
}

/// Routes that are never asked, since an earlier one takes all that they are about.
fn dead_routes(reader: &mut Reader<'_>, routes: &[RouteDraft]) {
    let covers = |wide: &RouteDraft, narrow: &RouteDraft| {
        let (wide, narrow) = (&wide.when, &narrow.when);
        // The null sender is a text that * matches like any other.
        wide.sender.matches(narrow.sender.as_str())
            && wide.recipient.matches(narrow.recipient.as_str())
            && (wide.client.is_empty() || wide.client == narrow.client)
            && (wide.listener.is_none() || wide.listener == narrow.listener)
            && (wide.user.is_none() || wide.user == narrow.user)
    };
    for (i, later) in routes.iter().enumerate() {
        let before = |says: fn(&RouteDraft) -> bool| {
            says(later).then(|| routes.iter().take(i).position(|route| says(route) && covers(route, later))).flatten()
        };
        let (via, priority) = (before(|route| !route.via.is_empty()), before(|route| route.priority.is_some()));
        let of = |what: &str, n: usize| {
            format!("`{what}` is never asked: route[{}] comes before it and takes all of this mail", n + 1)
        };
        for (key, earlier) in [("via", via), ("priority", priority)] {
            if let Some(n) = earlier {
                reader.warn(&format!("route[{}].{key}", i + 1), of(key, n));
            }
        }
    }
}

/// Patterns whose every name an earlier provider takes, and providers that have no others.
fn dead_patterns(reader: &mut Reader<'_>, draft: &Draft) {
    let providers = &draft.providers;
    let covers = |earlier: &Pattern, later: &Pattern| earlier.matches(later.as_str());
    for (i, later) in providers.iter().enumerate() {
        if later.is_built_in(reader) {
            continue;
        }
        let path = format!("provider.{}", later.p.name);
        let (mut patterns, mut dead) = (0, None);
        let mut all_dead = true;
        for key in ["match.mx", "match.domains"] {
            let of =
                |p: &'_ ProviderDraft| if key == "match.mx" { p.p.match_mx.clone() } else { p.p.match_domains.clone() };
            let own = reader.has(&format!("{path}.{key}"));
            for pattern in of(later) {
                patterns += 1;
                let earlier = providers
                    .iter()
                    .take(i)
                    .find_map(|p| of(p).into_iter().find(|e| covers(e, &pattern)).map(|e| (p.p.name.clone(), e)));
                match earlier {
                    Some((name, same)) if own && same == pattern => {
                        reader.fault(
                            &format!("{path}.{key}"),
                            format!("\"{pattern}\" belongs to provider.{name} already"),
                        );
                    }
                    Some((name, wide)) if own => {
                        let message =
                            format!("\"{pattern}\" never matches: \"{wide}\" of provider.{name} comes before it");
                        reader.fault(&format!("{path}.{key}"), message);
                    }
                    Some((name, _)) => dead = Some(name),
                    None => all_dead = false,
                }
                if own && !pattern.as_str().contains(['.', '*']) {
                    let meant = match key {
                        "match.mx" => format!("\"*.{pattern}.com\""),
                        _ => format!("\"*.{pattern}\" (all names below it), or a whole name such as \"{pattern}.com\""),
                    };
                    let message = format!(
                        "\"{pattern}\" has no dot, so it is about hosts and domains of that very name: did you mean {meant}?"
                    );
                    reader.warn(&format!("{path}.{key}"), message);
                }
                if let Some(rest) =
                    pattern.as_str().strip_prefix('*').filter(|r| own && r.starts_with(char::is_alphanumeric))
                {
                    let message = format!(
                        "\"{pattern}\" also matches other people's names such as not{rest}: \"*.{rest}\" does not"
                    );
                    reader.warn(&format!("{path}.{key}"), message);
                }
            }
        }
        let routed = draft.is_via(&later.p.name);
        if let Some(name) = dead.filter(|_| patterns > 0 && all_dead && !routed) {
            let message =
                format!("never matches: provider.{name} comes before it and takes all that its profile matches");
            reader.fault(&path, message);
        }
    }
}

fn limit(reader: &mut Reader<'_>, path: &str, limit: &Limit, providers: &[ProviderDraft]) {
    let unread = |reader: &Reader<'_>, key: &str| reader.problems.iter().any(|p| p.key == format!("{path}.{key}"));
    if limit.rate.is_empty() && limit.quota.is_empty() && !unread(reader, "rate") && !unread(reader, "quota") {
        reader.fault(path, "limits nothing: expected `rate` or `quota`".into());
    }
    let of_arrivals = limit.over != Over::Wait;
    let fault = match () {
        () if limit.over == Over::Lock && limit.user.is_none() && !limit.each_user => {
            Some(("over", "locks nobody: expected `user`, or `each_user = true`"))
        }
        () if of_arrivals && limit.provider.as_str() != "*" => Some((
            "provider",
            "is not known yet when mail comes in, which this limit counts: expected over = \"wait\" with it",
        )),
        () if limit.each_user && !of_arrivals => Some((
            "each_user",
            "is for limits on what comes in: expected over = \"reject\", \"hold\" or \"lock\" with it",
        )),
        () if limit.each_user && limit.each_domain => {
            Some(("each_user", "contradicts `each_domain`: expected one of them"))
        }
        () => None,
    };
    if let Some((key, message)) = fault {
        reader.fault(&format!("{path}.{key}"), message.into());
    }
    let own = (&limit.rate[..], &limit.quota[..]);
    contradictions(reader, path, own, own, limit.count);
    let (pattern, names) = (&limit.provider, providers.iter().map(|p| p.p.name.as_str()));
    let lane = pattern.as_str().starts_with(['@', '*']);
    let domain = pattern.as_str().strip_prefix('@').filter(|domain| !domain.contains('*'));
    let taken = |domain: &&str| providers.iter().find(|p| p.p.match_domains.iter().any(|d| d.matches(domain)));
    if let Some((domain, by)) = domain.and_then(|domain| Some((domain, taken(&domain)?))) {
        let message = format!(
            "never counts anything: mail to {domain} goes through provider.{name} (`match.domains`): expected \"{name}\"",
            name = by.p.name
        );
        reader.warn(&format!("{path}.provider"), message);
    }
    if !lane && !names.clone().any(|name| pattern.matches(name)) {
        let hint = match nearest(pattern.as_str(), names) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => "destinations without a provider are \"@domain\"".into(),
        };
        reader.fault(&format!("{path}.provider"), format!("there is no provider \"{pattern}\": {hint}"));
    }
}

/// The limits as they are applied: on what goes out, and on what comes in.
pub(super) fn limits(limits: Vec<Limit>) -> (Vec<Arc<Limit>>, Vec<Arc<Limit>>) {
    limits.into_iter().map(Arc::new).partition(|limit| limit.over == Over::Wait)
}
