//! Limits follow the receiver. A provider that the configuration calls by another name is still the same one, and
//! one that takes over what another gave up goes on where that one was: what left, what replies taught, and how
//! far rates are used hold over reloads and restarts.
//!
//! Stored is what each configured provider leads to, since when, and what it gave up until when ([`Holding`]).
//! What left under other names counts by that ([`Succession`]). One that is gone hands what replies taught to a
//! provider with the same smart host and user, or, without a smart host, with a domain or a name of a mail
//! exchanger in common, unless that one has learned something itself; an operator's pause goes to one that is new.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Relay;
use crate::clock::Mark;
use crate::config::{Config, Provider};
use crate::queue::{Memory, QueueError};
use crate::shape::Succession;
use crate::shape::succession::{Holding, Receiver, moved_on};

/// The first part of the names under which it is stored what providers hold.
const PREFIX: &str = "identity/";
/// What was learned of a lane, and its pauses: the first parts of the names.
const LEARNED: &str = "adapt/";
const PAUSED: &str = "paused/";
/// What was given up is remembered so long, or as long as the longest quota counts: as records of quotas are.
const KEEP: Duration = Duration::from_secs(33 * 86_400);

/// As it is stored.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Stored {
    Holdings(Vec<Holding>),
    /// By versions before: without times.
    Identity {
        relay: String,
        matches: Vec<String>,
    },
}

impl Stored {
    /// Of versions before: held since now, as far as anybody knows.
    fn holdings(self, now: &Mark) -> Vec<Holding> {
        let (relay, matches) = match self {
            Stored::Holdings(holdings) => return holdings,
            Stored::Identity { relay, matches } => (relay, matches),
        };
        let receiver = |text: &String| match text.split_once(' ') {
            Some(("mx", pattern)) => Receiver::Exchangers(pattern.to_owned()),
            Some((_, pattern)) => Receiver::Domains(pattern.to_owned()),
            None => Receiver::Domains(text.clone()),
        };
        let all = matches.iter().map(receiver).chain((!relay.is_empty()).then_some(Receiver::SmartHost));
        all.map(|receiver| Holding { relay: relay.clone(), receiver, since: now.clone(), until: None }).collect()
    }
}

/// What a provider leads to: the smart host, and who logs in; empty: none. Without its port: 465 and 587 of a host
/// are one receiver.
fn leads_to(provider: &Provider) -> (String, Vec<Receiver>) {
    let relay = provider.relay.as_ref().map(|relay| {
        let user = relay.auth.as_ref().map_or("", |auth| auth.user.as_ref());
        format!("{} {user}", canonical(&relay.host))
    });
    let domains = provider.match_domains.iter().map(|domain| Receiver::Domains(domain.to_string()));
    let hosts = provider.match_mx.iter().map(|host| Receiver::Exchangers(host.to_string()));
    let receivers = domains.chain(hosts).chain(relay.is_some().then_some(Receiver::SmartHost)).collect();
    (relay.unwrap_or_default(), receivers)
}

/// Whether a provider's learning is about what another one held.
fn is_same(relay: &str, receivers: &[Receiver], before: &[Holding]) -> bool {
    before.iter().any(|held| match relay.is_empty() {
        false => held.relay == relay,
        true => held.relay.is_empty() && receivers.contains(&held.receiver),
    })
}

/// The same for the spellings of a host: small letters, no final dot, one form of an address, and `localhost` as
/// the address it is.
fn canonical(host: &str) -> String {
    let host = host.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase();
    match host.parse::<IpAddr>() {
        Ok(ip) if ip.to_canonical().is_loopback() => "localhost".to_owned(),
        Ok(ip) => ip.to_canonical().to_string(),
        Err(_) => host,
    }
}

impl Relay {
    /// Takes over what is stored of providers that have another name now, and of those that gave up what others
    /// have now. Before anything else is read from the store, and before anything is sent.
    ///
    /// # Errors
    /// The queue could not be read or written.
    pub async fn recognise_renamed(&self) -> Result<(), QueueError> {
        let succession = recognise(&*self.queue, &self.config, &self.clock.mark()).await?;
        self.scheduler.succeed(succession);
        Ok(())
    }
}

async fn recognise(queue: &dyn Memory, config: &Config, now: &Mark) -> Result<Succession, QueueError> {
    let found = queue.recall(PREFIX).await?;
    let read = |(key, json): &(String, Bytes)| {
        let stored = serde_json::from_slice::<Stored>(json).ok()?;
        Some((key.strip_prefix(PREFIX)?.to_owned(), stored.holdings(now)))
    };
    let before: Vec<(String, Vec<Holding>)> = found.iter().filter_map(read).collect();
    let default = Some(&config.default).filter(|default| default.relay.is_some());
    let providers: Vec<&Arc<Provider>> = config.providers.iter().chain(default).collect();
    let mut entries = hand_over(queue, &providers, &before).await?;

    let mut all = before;
    for provider in &providers {
        if !all.iter().any(|(name, _)| *name == provider.name) {
            all.push((provider.name.clone(), Vec::new()));
        }
    }
    let quotas = providers.iter().flat_map(|provider| &provider.quota);
    let keep = quotas.map(|quota| quota.per.saturating_mul(2)).max().unwrap_or_default().max(KEEP);
    for (name, holdings) in &mut all {
        let provider = providers.iter().find(|provider| provider.name == *name);
        let (relay, receivers) = provider.map(|provider| leads_to(provider)).unwrap_or_default();
        moved_on(holdings, &relay, &receivers, now);
        holdings.retain(|held| held.until.as_ref().is_none_or(|until| now.since(until) < keep));
        // Numbers and texts always print.
        let json = Bytes::from(serde_json::to_vec(holdings).unwrap_or_default());
        let key = format!("{PREFIX}{name}");
        let known = found.iter().find(|(stored, _)| *stored == key).map(|(_, json)| json);
        match (holdings.is_empty(), known) {
            (true, None) => {}
            (true, Some(_)) => entries.push((key, None)),
            (false, known) if known == Some(&json) => {}
            (false, _) => entries.push((key, Some(json))),
        }
    }
    if !entries.is_empty() {
        queue.remember(entries).await?;
    }
    all.retain(|(_, holdings)| !holdings.is_empty());
    Ok(Succession::new(all))
}

/// What replies taught, and pauses, of providers that are gone, under the names of those that are the same.
async fn hand_over(
    queue: &dyn Memory,
    providers: &[&Arc<Provider>],
    before: &[(String, Vec<Holding>)],
) -> Result<Vec<(String, Option<Bytes>)>, QueueError> {
    let mut entries = Vec::new();
    let mut gone: Vec<(&str, &[&str])> = Vec::new();
    for provider in providers {
        let (relay, receivers) = leads_to(provider);
        let is_new =
            !before.iter().any(|(name, held)| *name == provider.name && held.iter().any(|h| h.until.is_none()));
        let configured = |name: &str| providers.iter().any(|other| other.name == name);
        let former = before.iter().find(|(name, held)| !configured(name) && is_same(&relay, &receivers, held));
        let Some((former, _)) = former else { continue };
        // A pause is about a name, so it does not come upon a provider that had none.
        let kinds: &[&str] = if is_new { &[LEARNED, PAUSED] } else { &[LEARNED] };
        let mut moved = Vec::new();
        for prefix in kinds {
            moved.extend(kept_of(queue, prefix, former, &provider.name).await?);
        }
        if !moved.is_empty() {
            tracing::info!(provider = provider.name, former, "what is known of a provider goes on under another name");
        }
        entries.extend(moved);
        gone.push((former, kinds));
    }
    for (former, kinds) in gone {
        for prefix in kinds {
            let old = queue.recall(&format!("{prefix}{former}")).await?;
            let old = old.into_iter().filter(|(key, _)| named(key, prefix, former).is_some());
            entries.extend(old.map(|(key, _)| (key, None)));
        }
    }
    Ok(entries)
}

/// What is stored of a provider, under another name of it. Where something is stored under that name already, that
/// stays.
async fn kept_of(
    queue: &dyn Memory,
    prefix: &str,
    former: &str,
    name: &str,
) -> Result<Vec<(String, Option<Bytes>)>, QueueError> {
    let there = queue.recall(&format!("{prefix}{name}")).await?;
    if there.iter().any(|(key, _)| named(key, prefix, name).is_some()) {
        return Ok(Vec::new());
    }
    let found = queue.recall(&format!("{prefix}{former}")).await?;
    let moved = found.into_iter().filter_map(|(key, value)| {
        let rest = named(&key, prefix, former)?;
        Some((format!("{prefix}{name}{rest}"), Some(value)))
    });
    Ok(moved.collect())
}

/// What follows the name of a provider in a key, if it is a key of that provider: nothing, a source, or more.
fn named<'a>(key: &'a str, prefix: &str, name: &str) -> Option<&'a str> {
    let rest = key.strip_prefix(prefix)?.strip_prefix(name)?;
    (rest.is_empty() || rest.starts_with('/') || rest.starts_with('@')).then_some(rest)
}

#[cfg(test)]
#[path = "renamed_tests.rs"]
mod tests;
