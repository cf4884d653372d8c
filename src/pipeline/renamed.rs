//! A provider that the configuration calls by another name is still the same receiver: what left, what
//! replies taught, how far rates are used and that an operator paused it go on under the new name, over
//! reloads and restarts.
//!
//! Stored is what each configured provider is about ([`Identity`]). One that is new takes over from one that
//! is not configured any more if they have the same smart host and user, or, without a smart host, a domain
//! or a name of a mail exchanger in common. One whose name stays is never looked at.

use std::net::IpAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Relay;
use crate::config::Provider;
use crate::queue::{Queue, QueueError};

/// The first part of the names under which identities are stored.
const PREFIX: &str = "identity/";
/// The first parts of the names of what belongs to a lane.
const KEPT: [&str; 4] = ["quota/", "rates/", "adapt/", "paused/"];

/// What a provider is about, whatever it is called.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Identity {
    /// The smart host, and who logs in; empty: none. Without its port: 465 and 587 of a host are one receiver.
    relay: String,
    /// Patterns of domains and of names of mail exchangers.
    matches: Vec<String>,
}

impl Identity {
    fn of(provider: &Provider) -> Identity {
        let relay = provider.relay.as_ref().map(|relay| {
            let user = relay.auth.as_ref().map_or("", |auth| auth.user.as_ref());
            format!("{} {user}", canonical(&relay.host))
        });
        let domains = provider.match_domains.iter().map(|domain| format!("domain {domain}"));
        let hosts = provider.match_mx.iter().map(|host| format!("mx {host}"));
        Identity { relay: relay.unwrap_or_default(), matches: domains.chain(hosts).collect() }
    }

    fn is_same(&self, other: &Identity) -> bool {
        match (self.relay.is_empty(), other.relay.is_empty()) {
            (false, false) => self.relay == other.relay,
            (true, true) => self.matches.iter().any(|one| other.matches.contains(one)),
            _ => false,
        }
    }
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
    /// Takes over what is stored of providers that have another name now. Before anything else is read from
    /// the store, and before anything is sent.
    ///
    /// # Errors
    /// The queue could not be read or written.
    pub async fn recognise_renamed(&self) -> Result<(), QueueError> {
        recognise(&*self.queue, &self.config.providers).await
    }
}

async fn recognise(queue: &dyn Queue, providers: &[std::sync::Arc<Provider>]) -> Result<(), QueueError> {
    let read = |(key, json): (String, Bytes)| {
        Some((key.strip_prefix(PREFIX)?.to_owned(), serde_json::from_slice::<Identity>(&json).ok()?))
    };
    let stored: Vec<(String, Identity)> = queue.recall(PREFIX).await?.into_iter().filter_map(read).collect();
    let mut entries = Vec::new();
    let mut gone: Vec<&str> = Vec::new();
    for provider in providers {
        let identity = Identity::of(provider);
        let known = stored.iter().find(|(name, _)| *name == provider.name);
        if known.is_none_or(|(_, before)| *before != identity) {
            let json = serde_json::to_vec(&identity).unwrap_or_default();
            entries.push((format!("{PREFIX}{}", provider.name), Some(Bytes::from(json))));
        }
        if known.is_some() {
            continue;
        }
        let configured = |name: &str| providers.iter().any(|other| other.name == name);
        let former = stored.iter().find(|(name, before)| !configured(name) && before.is_same(&identity));
        let Some((former, _)) = former else { continue };
        let moved = kept_of(queue, former, &provider.name).await?;
        if !moved.is_empty() {
            tracing::info!(provider = provider.name, former, "what is known of a provider goes on under its new name");
        }
        entries.extend(moved);
        gone.push(former);
    }
    for former in gone {
        entries.push((format!("{PREFIX}{former}"), None));
        for prefix in KEPT {
            let old = queue.recall(&format!("{prefix}{former}")).await?;
            let old = old.into_iter().filter(|(key, _)| named(key, prefix, former).is_some());
            entries.extend(old.map(|(key, _)| (key, None)));
        }
    }
    if entries.is_empty() { Ok(()) } else { queue.remember(entries).await }
}

/// What is stored of a provider, under another name of it. What is stored under that name already stays.
async fn kept_of(queue: &dyn Queue, former: &str, name: &str) -> Result<Vec<(String, Option<Bytes>)>, QueueError> {
    let mut moved = Vec::new();
    for prefix in KEPT {
        let there: Vec<String> =
            queue.recall(&format!("{prefix}{name}")).await?.into_iter().map(|(key, _)| key).collect();
        for (key, value) in queue.recall(&format!("{prefix}{former}")).await? {
            let Some(rest) = named(&key, prefix, former) else { continue };
            let new = format!("{prefix}{name}{rest}");
            if !there.contains(&new) {
                moved.push((new, Some(value)));
            }
        }
    }
    Ok(moved)
}

/// What follows the name of a provider in a key, if it is a key of that provider: nothing, a source, or more.
fn named<'a>(key: &'a str, prefix: &str, name: &str) -> Option<&'a str> {
    let rest = key.strip_prefix(prefix)?.strip_prefix(name)?;
    (rest.is_empty() || rest.starts_with('/') || rest.starts_with('@')).then_some(rest)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::Clock;
    use crate::config::sample;
    use crate::config::units::Pattern;
    use crate::queue::sqlite::SqliteQueue;

    fn provider(name: &str, domain: &str) -> Arc<Provider> {
        let domains = vec![Pattern::new(domain)];
        Arc::new(Provider { match_domains: domains, relay: None, ..sample::provider(name) })
    }

    async fn keys(queue: &dyn Queue) -> Vec<String> {
        let all = queue.recall("").await.expect("the store works");
        all.into_iter().map(|(key, _)| key).filter(|key| !key.starts_with(PREFIX)).collect()
    }

    #[tokio::test]
    async fn a_renamed_provider_goes_on_and_another_one_begins_anew() {
        let dir = tempfile::tempdir().expect("a directory");
        let queue = SqliteQueue::open(&dir.path().join("q.db"), Clock::for_tests()).expect("a queue");
        let value = Some(Bytes::from_static(b"1"));
        let stored =
            ["quota/a/provider/departures", "quota/a@192.0.2.1/provider/departures", "quota/ab/provider/departures"];
        let stored = stored.into_iter().chain(["adapt/a", "paused/a", "rates/a/provider", "rates/"]);
        queue.remember(stored.map(|key| (key.to_owned(), value.clone())).collect()).await.expect("the store works");

        recognise(&*queue, &[provider("a", "x.example")]).await.expect("the store works");
        let before = keys(&*queue).await;
        // It is gone for a while, and another one is new.
        recognise(&*queue, &[provider("c", "y.example")]).await.expect("the store works");
        assert_eq!(keys(&*queue).await, before);
        recognise(&*queue, &[provider("b", "x.example"), provider("c", "y.example")]).await.expect("the store works");
        let expected = [
            "adapt/b",
            "paused/b",
            "quota/ab/provider/departures",
            "quota/b/provider/departures",
            "quota/b@192.0.2.1/provider/departures",
            "rates/",
            "rates/b/provider",
        ];
        assert_eq!(keys(&*queue).await, expected);
        // The name that is free begins anew, and what goes on stays where it is.
        let both = [provider("a", "z.example"), provider("b", "x.example")];
        recognise(&*queue, &both).await.expect("the store works");
        assert_eq!(keys(&*queue).await, expected);
    }

    #[test]
    fn two_accounts_of_one_smart_host_are_not_the_same() {
        for same in ["127.0.0.1", "localhost", "LOCALHOST.", "[::1]", "::ffff:127.0.0.1"] {
            assert_eq!(canonical(same), "localhost", "{same}");
        }
        assert_eq!(
            (canonical("SMTP.example.com."), canonical("[2001:DB8::0:1]")),
            ("smtp.example.com".into(), "2001:db8::1".into())
        );
        let of =
            |relay: &str, domain: &str| Identity { relay: relay.into(), matches: vec![format!("domain {domain}")] };
        assert!(of("h:587 a", "x").is_same(&of("h:587 a", "y")));
        assert!(!of("h:587 a", "x").is_same(&of("h:587 b", "x")));
        assert!(!of("", "x").is_same(&of("h:587 b", "x")));
        assert!(of("", "x").is_same(&of("", "x")) && !of("", "x").is_same(&of("", "y")));
    }
}
