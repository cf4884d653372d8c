//! Whether `[[route]]` and users lead to providers that are there, and something leads to every provider.

use std::sync::Arc;

use super::file::{Draft, Reader};
use super::keys::RouteDraft;
use super::users::UserDraft;
use super::value::nearest;
use super::{PriorityRule, Provider, Route, profiles};

/// A provider that nothing leads to: its limits would hold for nobody.
pub(super) fn unreachable(reader: &mut Reader<'_>, draft: &Draft) {
    let profiles = draft.top.builtin_profiles;
    for provider in &draft.providers {
        let name = &provider.p.name;
        let path = format!("provider.{name}");
        let matched = !provider.p.match_mx.is_empty() || !provider.p.match_domains.is_empty();
        // A pattern that could not be read is reported already.
        let meant =
            reader.problems.iter().any(|p| p.key.starts_with(&format!("{path}.match")) || p.key.ends_with(".via"));
        if !matched && !meant && !draft.is_via(name) {
            let hint = meant_profile(name).map(|profile| format!("; did you mean [provider.{profile}]?"));
            let message = "nothing ever goes there: expected `match` in it, or a [[route]] or [[user]] via it";
            reader.fault(&path, format!("{message}{}", hint.unwrap_or_default()));
        } else if let Some(profile) = meant_profile(name).filter(|_| profiles) {
            reader.warn(
                &path,
                format!(
                    "did you mean [provider.{profile}]? This is another provider, and what is built in for {profile} \
                     does not hold in it"
                ),
            );
        }
    }
}

/// The built-in profile that a provider of that name may be meant to be: with a mistake behind the first
/// letter.
fn meant_profile(name: &str) -> Option<&'static str> {
    let mut names = profiles::all().iter().map(profiles::Profile::name);
    if name.chars().count() < 4 || names.clone().any(|known| known == name) {
        return None;
    }
    let first = name.chars().next();
    let most = if name.chars().count() < 6 { 1 } else { 2 };
    names.find(|known| known.chars().next() == first && strsim::osa_distance(name, known) <= most)
}

pub(super) fn routes(
    reader: &mut Reader<'_>,
    drafts: Vec<RouteDraft>,
    providers: &[Arc<Provider>],
    listeners: &[String],
    profiles: bool,
) -> (Vec<Route>, Vec<PriorityRule>) {
    let (mut routes, mut priorities) = (Vec::new(), Vec::new());
    // The first route that takes everything, and the first that gives everything a priority.
    let (mut all_sent, mut all_rated): (Option<usize>, Option<usize>) = (None, None);
    for (i, RouteDraft { when, via, priority }) in drafts.into_iter().enumerate() {
        let path = format!("route[{}]", i + 1);
        let key = format!("{path}.via");
        if via.is_empty() && priority.is_none() {
            if !reader.problems.iter().any(|p| p.key.starts_with(&format!("{path}."))) {
                reader.fault(&path, "`via` is missing: expected the name of a provider, or a `priority`".into());
            }
            continue;
        }
        let sends = all_sent.filter(|_| !via.is_empty());
        let rates = all_rated.filter(|_| priority.is_some());
        let used = (!via.is_empty() && all_sent.is_none()) || (priority.is_some() && all_rated.is_none());
        if let Some(before) = sends.or(rates).filter(|_| !used) {
            reader.fault(&path, format!("never used: route[{}] takes everything before it", before + 1));
        }
        if let Some(name) = when.listener.as_ref().filter(|name| !listeners.contains(name)) {
            let hint = match nearest(name, listeners.iter().map(String::as_str)) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => "expected the `name` of a [[listener]]".to_owned(),
            };
            reader.fault(&format!("{path}.listener"), format!("there is no listener \"{name}\": {hint}"));
        }
        let everything = when.is_everything();
        if let Some(priority) = priority {
            all_rated = all_rated.or(everything.then_some(i));
            priorities.push(PriorityRule { when: when.clone(), priority, number: i + 1 });
        }
        if via.is_empty() {
            continue;
        }
        all_sent = all_sent.or(everything.then_some(i));
        match providers.iter().find(|p| p.name == via) {
            Some(provider) => routes.push(Route { when, via: Arc::clone(provider), number: i + 1 }),
            // A table that could not be read at all is no reason to complain here too.
            None if reader.has(&format!("provider.{via}")) => {}
            None => reader.fault(&key, unknown_provider(&via, providers, profiles)),
        }
    }
    (routes, priorities)
}

/// Whether the providers of users are there.
pub(super) fn via_of_users(reader: &mut Reader<'_>, users: &[UserDraft], providers: &[Arc<Provider>], profiles: bool) {
    for (i, via) in users.iter().enumerate().filter_map(|(i, user)| Some((i, user.via.as_deref()?))) {
        // A table that could not be read at all is no reason to complain here too.
        if !providers.iter().any(|p| p.name == via) && !reader.has(&format!("provider.{via}")) {
            reader.fault(&format!("user[{}].via", i + 1), unknown_provider(via, providers, profiles));
        }
    }
}

fn unknown_provider(via: &str, providers: &[Arc<Provider>], profiles: bool) -> String {
    let names = || providers.iter().map(|p| p.name.as_str());
    let smart_host = |p: &&profiles::Profile| profiles && p.is_for_smart_hosts() && p.name() == via;
    if let Some((host, port)) = via.rsplit_once(':').filter(|(host, _)| host.contains('.')) {
        return format!(
            "a route names a provider, and no host: expected [provider.NAME] relay = \"{host}:{port}\" and via = \"NAME\""
        );
    }
    if ["mx", "direct", "dns", "internet", "none"].contains(&via.to_ascii_lowercase().as_str()) {
        return format!(
            "there is no provider \"{via}\": expected a table [provider.{via}] without `relay`, whose mail goes to the MX hosts of its \
             domain"
        );
    }
    let hint = match (nearest(via, names()), profiles::all().iter().find(smart_host)) {
        (_, Some(_)) => format!("its profile needs to know your host: [provider.{via}] relay = \"host:port\""),
        (Some(near), None) => format!("did you mean \"{near}\"?"),
        (None, None) if providers.is_empty() => "there are no providers".into(),
        (None, None) => format!("expected one of {}", names().collect::<Vec<_>>().join(", ")),
    };
    format!("there is no provider \"{via}\": {hint}")
}
