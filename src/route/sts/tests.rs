//! What mail waits for, and what it does not.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use tokio::time::Instant;

use super::*;

/// Answers by host; those that are not there never do.
#[derive(Default)]
struct Hosts {
    texts: Mutex<HashMap<String, Result<String, String>>>,
    asked: AtomicUsize,
    at_once: AtomicUsize,
    most: AtomicUsize,
}

#[async_trait]
impl Fetch for Hosts {
    async fn fetch(&self, host: &str, _: PolicyHost) -> Result<String, Unfetched> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let now = self.at_once.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(now, Ordering::Relaxed);
        let _gone = Gone(&self.at_once);
        let known = self.texts.lock().get(host).cloned();
        match known {
            Some(text) => text.map_err(Unfetched::from),
            None => std::future::pending().await,
        }
    }
}

struct Gone<'a>(&'a AtomicUsize);

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn sts(answers: &[(&str, Result<&str, &str>)]) -> (Arc<Sts>, Arc<Hosts>) {
    let hosts = Arc::new(Hosts::default());
    for (domain, answer) in answers {
        let answer = answer.map(str::to_owned).map_err(str::to_owned);
        hosts.texts.lock().insert(host_of(domain), answer);
    }
    (Arc::new(Sts::new(hosts.clone(), Clock::for_tests())), hosts)
}

async fn ask(sts: &Arc<Sts>, domain: &str, id: &str) -> String {
    let record = Record::Id(id.into());
    match sts.standing(&domain.into(), &record, async { Ok(PolicyHost::default()) }).await {
        Standing::None => "none".into(),
        Standing::Unfetched(why) => format!("none: {:?}", why.result),
        Standing::Policy(policy) => format!("{} {}", policy.mode, policy.id),
        Standing::Awaited => "awaited".into(),
    }
}

const GOOD: &str = "version: STSv1\nmode: enforce\nmx: mx.example\nmax_age: 604800\n";

#[tokio::test(start_paused = true)]
async fn a_policy_is_fetched_once_however_many_wait_and_is_stored() {
    let (sts, hosts) = sts(&[("a.example", Ok(GOOD)), ("b.example", Err("404")), ("c.example", Ok("<html>"))]);
    let all = futures_of(&sts, "a.example", 20).await;
    assert!(all.iter().all(|told| told == "enforce 1"), "{all:?}");
    assert_eq!(hosts.asked.load(Ordering::Relaxed), 1);
    // Whose policy cannot be fetched is as who has none.
    assert_eq!(
        [ask(&sts, "b.example", "1").await, ask(&sts, "c.example", "1").await],
        ["none: StsPolicyFetchError", "none: StsPolicyInvalid"]
    );
    let stored = sts.take_changes();
    assert_eq!(stored.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["mta-sts/a.example"]);
    assert!(sts.take_changes().is_empty());
    sts.put_back(&stored);
    assert_eq!(sts.take_changes(), stored);

    // Another process, whose name servers say nothing of it.
    let (later, hosts) = self::sts(&[]);
    let stored: Vec<(String, Bytes)> = stored.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
    later.recall(&stored);
    let held = later.standing(&"a.example".into(), &Record::None, async { Ok(PolicyHost::default()) }).await;
    assert!(matches!(held, Standing::Policy(policy) if policy.id.as_ref() == "1"));
    assert_eq!(hosts.asked.load(Ordering::Relaxed), 0);
}

async fn futures_of(sts: &Arc<Sts>, domain: &'static str, n: usize) -> Vec<String> {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..n {
        let sts = sts.clone();
        tasks.spawn(async move { ask(&sts, domain, "1").await });
    }
    tasks.join_all().await
}

#[tokio::test(start_paused = true)]
async fn a_host_that_does_not_answer_holds_mail_for_a_moment_puts_it_off_and_is_then_no_policy() {
    let (sts, hosts) = sts(&[("good.example", Ok(GOOD))]);
    let began = Instant::now();
    assert_eq!(ask(&sts, "slow.example", "1").await, "awaited");
    assert_eq!(began.elapsed(), PATIENCE);
    // Others are not held up by it.
    let before = Instant::now();
    assert_eq!(ask(&sts, "good.example", "1").await, "enforce 1");
    assert_eq!(before.elapsed(), Duration::ZERO);
    tokio::time::advance(LIMIT).await;
    let before = Instant::now();
    assert_eq!(ask(&sts, "slow.example", "1").await, "none: StsPolicyFetchError");
    assert_eq!(before.elapsed(), Duration::ZERO);
    // It is tried again later, without anybody waiting.
    tokio::time::advance(Duration::from_secs(400)).await;
    let (asked, before) = (hosts.asked.load(Ordering::Relaxed), Instant::now());
    assert_eq!(ask(&sts, "slow.example", "1").await, "none: StsPolicyFetchError");
    tokio::task::yield_now().await;
    assert_eq!((hosts.asked.load(Ordering::Relaxed), before.elapsed()), (asked + 1, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn hosts_that_do_not_answer_are_asked_a_few_at_once_and_all_have_an_end() {
    let (sts, hosts) = sts(&[("good.example", Ok(GOOD))]);
    let domains: Vec<String> = (0..100).map(|n| format!("d{n}.example")).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for domain in domains.clone() {
        let sts = sts.clone();
        tasks.spawn(async move { ask(&sts, &domain, "1").await });
    }
    assert!(tasks.join_all().await.iter().all(|told| told == "awaited"));
    assert_eq!(hosts.most.load(Ordering::Relaxed), AT_ONCE);
    // Who comes behind them is not without a policy because it has not been asked.
    let began = Instant::now();
    let told = loop {
        match ask(&sts, "good.example", "1").await {
            told if told == "awaited" => {}
            told => break told,
        }
    };
    assert_eq!(told, "enforce 1");
    assert!(began.elapsed() <= LIMIT_BUSY * 13, "{:?}", began.elapsed());
    tokio::time::sleep(LIMIT).await;
    for domain in domains {
        assert_eq!(ask(&sts, &domain, "1").await, "none: StsPolicyFetchError");
    }
}

#[tokio::test(start_paused = true)]
async fn another_id_brings_the_new_policy_and_a_policy_of_mode_none_ends_it() {
    let (sts, hosts) = sts(&[("a.example", Ok(GOOD))]);
    assert_eq!(ask(&sts, "a.example", "1").await, "enforce 1");
    hosts.texts.lock().insert(host_of("a.example"), Ok(GOOD.replace("enforce", "testing")));
    assert_eq!(ask(&sts, "a.example", "1").await, "enforce 1");
    assert_eq!(ask(&sts, "a.example", "2").await, "testing 2");
    hosts.texts.lock().insert(host_of("a.example"), Ok("version: STSv1\nmode: none\nmax_age: 86400\n".into()));
    assert_eq!(ask(&sts, "a.example", "3").await, "none");
    assert_eq!(sts.holds("a.example").map(|policy| policy.mode), Some(Mode::None));
}

/// Whoever looks at mail that waits for a policy is told from whom it is fetched, since when and until when.
#[tokio::test(start_paused = true)]
async fn who_waits_for_a_policy_is_told_from_where_since_when_and_until_when() {
    let (sts, _) = sts(&[("good.example", Ok(GOOD))]);
    let told = |sts: &Arc<Sts>, domain: &str| sts.awaited(domain).map(|awaited| awaited.told(sts.clock.now()));
    assert_eq!(told(&sts, "slow.example"), None, "nobody has asked");
    let began = sts.clock.now();
    assert_eq!(ask(&sts, "slow.example", "1").await, "awaited");
    let now = sts.clock.now();
    let (since, until) = (When { at: began, now }, When { at: began.after(LIMIT), now });
    let wanted = format!(
        "the MTA-STS policy of slow.example is being fetched from mta-sts.slow.example since {since}, until {until} at \
         the latest"
    );
    assert_eq!(told(&sts, "slow.example"), Some(wanted));
    assert_eq!(ask(&sts, "good.example", "1").await, "enforce 1");
    assert_eq!(told(&sts, "good.example"), None, "it is there");

    // More than are asked at once: those asked have less time, and the last one is told that it is not its turn.
    let last = format!("d{}.example", 2 * AT_ONCE);
    let domains: Vec<String> = (0..=2 * AT_ONCE).map(|n| format!("d{n}.example")).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for domain in domains {
        let sts = sts.clone();
        tasks.spawn(async move { ask(&sts, &domain, "1").await });
    }
    tasks.join_all().await;
    let behind = told(&sts, &last).expect("it waits");
    assert!(behind.ends_with("; 8 others are asked before, each for 10 s at most"), "{behind}");
    tokio::time::sleep(LIMIT).await;
    assert_eq!(told(&sts, "slow.example"), None, "it counts as without a policy");
}
