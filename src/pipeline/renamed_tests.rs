//! What goes on under another name, and what does not.

use super::*;
use crate::clock::Clock;
use crate::config::sample;
use crate::config::units::Pattern;
use crate::queue::Queue;
use crate::queue::sqlite::SqliteQueue;

fn provider(name: &str, domain: &str) -> Arc<Provider> {
    let domains = vec![Pattern::new(domain)];
    Arc::new(Provider { match_domains: domains, relay: None, ..sample::provider(name) })
}

/// A reload with these providers.
async fn reload(queue: &dyn Queue, providers: &[Arc<Provider>], clock: Clock) {
    let config = Config { providers: providers.to_vec(), ..sample::config() };
    recognise(queue, &config, &clock.mark()).await.expect("the store works");
}

async fn keys(queue: &dyn Queue) -> Vec<String> {
    let all = queue.recall("").await.expect("the store works");
    all.into_iter().map(|(key, _)| key).filter(|key| !key.starts_with(PREFIX)).collect()
}

async fn queue(dir: &tempfile::TempDir, clock: Clock, stored: &[&str]) -> Arc<SqliteQueue> {
    let queue = SqliteQueue::open(&dir.path().join("q.db"), clock).expect("a queue");
    let entry = |key: &&str| ((*key).to_owned(), Some(Bytes::copy_from_slice(key.as_bytes())));
    queue.remember(stored.iter().map(entry).collect()).await.expect("the store works");
    queue
}

#[tokio::test]
async fn what_a_renamed_provider_learned_goes_on_and_records_stay_where_they_are() {
    let (dir, clock) = (tempfile::tempdir().expect("a directory"), Clock::for_tests());
    let records = ["quota/a/provider/departures", "quota/ab/provider/departures", "rates/", "rates/a/provider"];
    let learned = ["adapt/a", "paused/a", "adapt/a@192.0.2.1"];
    let queue = queue(&dir, clock, &[&records[..], &learned[..]].concat()).await;

    reload(&*queue, &[provider("a", "x.example")], clock).await;
    let before = keys(&*queue).await;
    // It is gone for a while, and another one is new.
    reload(&*queue, &[provider("c", "y.example")], clock).await;
    assert_eq!(keys(&*queue).await, before);
    reload(&*queue, &[provider("b", "x.example"), provider("c", "y.example")], clock).await;
    let expected = [&["adapt/b", "adapt/b@192.0.2.1", "paused/b"][..], &records[..]].concat();
    assert_eq!(keys(&*queue).await, expected);
    // The name that is free begins anew, and what goes on stays where it is.
    reload(&*queue, &[provider("a", "z.example"), provider("b", "x.example")], clock).await;
    assert_eq!(keys(&*queue).await, expected);
}

/// One that was there before takes over what was learned, unless it knows better, and never a pause.
#[tokio::test]
async fn one_that_was_there_takes_over_what_was_learned() {
    let both = [provider("a", "x.example"), provider("b", "y.example")];
    let wider = Provider { match_domains: sample::patterns(&["y.example", "x.example"]), ..sample::provider("b") };
    for (known, expected) in [
        (vec!["adapt/a", "paused/a"], vec!["adapt/b=adapt/a", "paused/a=paused/a"]),
        (vec!["adapt/a", "adapt/b"], vec!["adapt/b=adapt/b"]),
    ] {
        let (dir, clock) = (tempfile::tempdir().expect("a directory"), Clock::for_tests());
        let queue = queue(&dir, clock, &known).await;
        reload(&*queue, &both, clock).await;
        reload(&*queue, &[Arc::new(wider.clone())], clock).await;
        let all = queue.recall("").await.expect("the store works");
        let all = all.into_iter().filter(|(key, _)| !key.starts_with(PREFIX));
        let all: Vec<String> = all.map(|(key, value)| format!("{key}={}", String::from_utf8_lossy(&value))).collect();
        assert_eq!(all, expected);
    }
}

/// What versions before stored is read, and what nobody holds or held lately any more is forgotten.
#[tokio::test(start_paused = true)]
async fn identities_of_versions_before_are_read_and_old_ones_forgotten() {
    let (dir, clock) = (tempfile::tempdir().expect("a directory"), Clock::for_tests());
    let queue = queue(&dir, clock, &[]).await;
    let old = r#"{"relay":"smtp.example.com u","matches":["domain x.example","mx *.mx.example"]}"#;
    let entries = vec![(format!("{PREFIX}a"), Some(Bytes::from_static(old.as_bytes())))];
    queue.remember(entries).await.expect("the store works");
    let holdings = async || -> Vec<Holding> {
        let found = queue.recall(PREFIX).await.expect("the store works");
        found.iter().flat_map(|(_, json)| serde_json::from_slice::<Vec<Holding>>(json).expect("holdings")).collect()
    };
    reload(&*queue, &[], clock).await;
    let receivers: Vec<Receiver> = holdings().await.into_iter().map(|held| held.receiver).collect();
    let expected =
        [Receiver::Domains("x.example".into()), Receiver::Exchangers("*.mx.example".into()), Receiver::SmartHost];
    assert_eq!(receivers, expected);
    assert!(holdings().await.iter().all(|held| held.until.is_some() && held.relay == "smtp.example.com u"));
    tokio::time::advance(KEEP).await;
    reload(&*queue, &[], clock).await;
    assert_eq!(holdings().await, []);
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
    let same = |relay: &str, now: &str, former: &str| {
        let domain = |text: &str| vec![Receiver::Domains(text.to_owned())];
        let mut held = Vec::new();
        moved_on(&mut held, former, &domain("x"), &Clock::for_tests().mark());
        is_same(relay, &domain(now), &held)
    };
    assert!(same("h a", "y", "h a"));
    assert!(!same("h a", "x", "h b"));
    assert!(!same("", "x", "h b"));
    assert!(same("", "x", "") && !same("", "y", ""));
}
