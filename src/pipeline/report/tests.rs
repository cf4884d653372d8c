//! On paused time, with the store in memory; what is attempted is told to the relay, nothing is sent.

use super::*;
use crate::clock::Clock;
use crate::config::Config;
use crate::deliver::{Connector, Fact, Stage};
use crate::listener::Intake;
use crate::mail::{Address, BodyTraits, Envelope, LaneName, Message, Notify, Origin, Recipient};
use crate::pipeline::tests::{Asked, Faulty};
use crate::queue::sqlite::InlineQueue;
use crate::queue::{self, Counts, Leases, Queue, Spool};
use crate::route::Router;
use crate::schedule::{Held, Job, Scheduler, Shared};

const BASE: Timestamp = Timestamp(1_790_000_000_000);

/// A relay of which only the reporting runs.
struct Desk {
    relay: Arc<Relay>,
    inline: Arc<InlineQueue>,
    reports: Arc<Mutex<Vec<Asked>>>,
    stop: watch::Sender<bool>,
}

/// A message whose recipients are in somebody's hands.
struct Letter {
    message: Arc<Message>,
    recipients: Vec<Recipient>,
}

impl Desk {
    async fn new(clock: Clock, inline: Arc<InlineQueue>, report_faults: usize) -> Desk {
        let text = "[provider.host]\nrelay = \"127.0.0.1:1\"\n[[route]]\nrecipient = \"*\"\nvia = \"host\"\n\
                    [retry]\nfirst = \"5m\"\njitter = 0.0\n";
        let config = Arc::new(Config::parse(text, "test").expect("a configuration"));
        let queue = Faulty::over(inline.clone(), report_faults);
        let reports = queue.reports.clone();
        let queue: Arc<dyn Queue> = Arc::new(queue);
        let router = Arc::new(Router::new(config.clone()).expect("a router"));
        // Without memory all stays in the queue.
        let scheduler = Scheduler::new(queue.clone(), clock, 0, Vec::new(), {
            let router = router.clone();
            move |lane| router.provider_of_lane(lane)
        });
        let _ = scheduler.lane(&LaneName::from("host")).pause(true);
        let (stop, stopping) = watch::channel(false);
        let connector = Connector::new("relay.example").expect("a connector");
        let relay = Relay::new(config, clock, queue, router, connector, scheduler, stopping);
        Desk { relay, inline, reports, stop }
    }

    /// With an empty store, at work.
    async fn at_work() -> Desk {
        let clock = Clock::Tokio { base: BASE, start: tokio::time::Instant::now() };
        let desk = Desk::new(clock, InlineQueue::open(clock).expect("a store"), 0).await;
        desk.begin();
        desk
    }

    fn begin(&self) {
        tokio::spawn(self.relay.clone().keep_reporting(self.stop.subscribe()));
    }

    /// Accepts a message from `sender` and takes all of its recipients.
    async fn take(&self, sender: &str, recipients: usize, notify: Notify) -> Letter {
        let head = bytes::Bytes::from_static(b"Subject: x\r\n\r\nx\r\n");
        let received = self.relay.clock.now();
        let message = Message {
            id: self.relay.queue.next_id(received),
            received,
            envelope: Envelope { reverse_path: Address::parse(sender).ok(), ..Envelope::default() },
            origin: Origin::Local,
            size: head.len() as u64,
            traits: BodyTraits::default(),
        };
        let address = |n| Address::parse(&format!("r{n}@b.example")).expect("an address");
        let recipients: Vec<Recipient> =
            (0..recipients).map(|n| Recipient { notify, ..Recipient::new(address(n)) }).collect();
        self.relay.accept(message.clone(), recipients.clone(), head, None).await.expect("accepted");
        let claimed = self.inline.claim(&"host".into(), received, 10_000).await.expect("claimed");
        assert_eq!(claimed.iter().filter(|leased| leased.key.id == message.id).count(), recipients.len());
        Letter { message: Arc::new(message), recipients }
    }

    /// One attempt at one recipient, and what the host said.
    async fn said(&self, letter: &Letter, index: usize, code: u16) {
        let shared = Shared { message: letter.message.clone(), head: None, ticket: None };
        let mut job = Job::new(Arc::new(shared), "b.example".into());
        job.recipients.push(Held::fresh(index as u32, letter.recipients[index].clone()));
        let lane = self.relay.scheduler.lane(&"host".into());
        let mut attempt = Attempt::new(job, self.relay.clock.now());
        let reply = Reply { code, enhanced: None, text: format!("no {index}") };
        let stage = if code == 250 { Stage::Final } else { Stage::Rcpt };
        attempt.everyone(Fact { stage, event: Event::Reply(reply), peer: None });
        self.relay.settle(&lane, attempt, None).await;
    }

    /// Lets so much time go by.
    async fn wait(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    /// The sizes of the reports, in the order in which they were stored.
    fn reports(&self) -> Vec<usize> {
        self.reports.lock().iter().map(|(_, recipients)| *recipients).collect()
    }

    /// How often each recipient is reported, as the reports in the store say.
    async fn reported(&self) -> BTreeMap<String, usize> {
        let mut told = BTreeMap::new();
        let later = self.relay.clock.now();
        for report in self.inline.claim(&"host".into(), later, 10_000).await.expect("claimed") {
            assert_eq!(report.message.envelope.reverse_path, None);
            let mut text = Vec::new();
            for index in 0..report.message.chunks() {
                let chunk = self.inline.chunk(report.key.id, index).await.expect("a store");
                text.extend_from_slice(&chunk.expect("a chunk"));
            }
            let text = String::from_utf8(text).expect("text");
            for address in text.lines().filter_map(|line| line.strip_prefix("Final-Recipient: rfc822; ")) {
                *told.entry(address.to_owned()).or_default() += 1;
            }
        }
        told
    }

    async fn owed(&self) -> u64 {
        queue::Desk::counts(&*self.inline).await.expect("counts").owed
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_refusals_of_one_message_are_one_report() {
    let desk = Desk::at_work().await;
    let letter = desk.take("a@a.example", 1000, Notify::default()).await;
    for index in 0..1000 {
        desk.said(&letter, index, 550).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    desk.wait(1).await;
    assert_eq!(desk.reports(), [1000]);
    let told = desk.reported().await;
    assert!(told.len() == 1000 && told.values().all(|times| *times == 1), "{told:?}");
    assert_eq!(desk.owed().await, 0);
    desk.wait(300).await;
    assert_eq!(desk.reports(), [1000], "and no other");
}

#[tokio::test(start_paused = true)]
async fn who_fails_slowly_is_reported_by_the_minute() {
    let desk = Desk::at_work().await;
    let letter = desk.take("a@a.example", 150, Notify::default()).await;
    for index in 0..150 {
        desk.said(&letter, index, 550).await;
        desk.wait(1).await;
    }
    desk.wait(1).await;
    // The first of each waits a minute; the last one is for all that is left.
    let reports = desk.reports();
    assert!(reports.len() == 3 && reports.iter().all(|n| *n <= 62), "{reports:?}");
    let told = desk.reported().await;
    assert!(told.len() == 150 && told.values().all(|times| *times == 1), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_report_waits_for_nothing_when_nobody_else_may_fail_soon() {
    let desk = Desk::at_work().await;
    // The only recipient.
    let alone = desk.take("a@a.example", 1, Notify::default()).await;
    desk.said(&alone, 0, 550).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(desk.reports(), [1]);
    // Another one that is tried again later: at the earliest in five minutes.
    let greylisted = desk.take("a@a.example", 2, Notify::default()).await;
    desk.said(&greylisted, 0, 450).await;
    desk.said(&greylisted, 1, 550).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(desk.reports(), [1, 1]);
    // The last one is delivered, of which nothing is owed.
    let both = desk.take("a@a.example", 2, Notify::default()).await;
    desk.said(&both, 0, 550).await;
    desk.wait(5).await;
    assert_eq!(desk.reports(), [1, 1]);
    desk.said(&both, 1, 250).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(desk.reports(), [1, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn whoever_is_held_up_holds_up_the_report_for_a_minute_only() {
    let desk = Desk::at_work().await;
    let letter = desk.take("a@a.example", 2, Notify::default()).await;
    desk.said(&letter, 0, 550).await;
    desk.wait(59).await;
    assert_eq!((desk.reports(), desk.owed().await), (vec![], 1));
    desk.wait(2).await;
    assert_eq!((desk.reports(), desk.owed().await), (vec![1], 0));
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_one_report_gets_another() {
    let desk = Desk::at_work().await;
    let letter = desk.take("a@a.example", MOST_ITEMS + 500, Notify::default()).await;
    for index in 0..letter.recipients.len() {
        desk.said(&letter, index, 550).await;
    }
    desk.wait(1).await;
    assert_eq!(desk.reports(), [MOST_ITEMS, 500]);
    let told = desk.reported().await;
    assert!(told.len() == MOST_ITEMS + 500 && told.values().all(|times| *times == 1));
}

#[tokio::test(start_paused = true)]
async fn successes_and_delays_are_reported_together_too() {
    let desk = Desk::at_work().await;
    let notify = Notify { given: true, success: true, failure: true, delay: true };
    let letter = desk.take("a@a.example", 60, notify).await;
    desk.wait(5 * 3600).await;
    for index in 0..60 {
        desk.said(&letter, index, [250, 450, 550][index % 3]).await;
    }
    desk.wait(1).await;
    assert_eq!(desk.reports(), [60]);
    assert!(desk.reported().await.len() == 60);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_want_to_know_is_owed_nothing() {
    let desk = Desk::at_work().await;
    let never = desk.take("a@a.example", 2, Notify::NEVER).await;
    let bounce = desk.take("<>", 2, Notify::default()).await;
    for letter in [&never, &bounce] {
        desk.said(letter, 0, 550).await;
        desk.said(letter, 1, 550).await;
    }
    desk.wait(120).await;
    assert_eq!((desk.reports(), desk.owed().await), (vec![], 0));
}

/// Invariant 2: what is owed outlives the process; nothing is reported twice or never.
#[tokio::test(start_paused = true)]
async fn what_is_owed_at_the_end_is_reported_after_the_next_start() {
    let clock = Clock::Tokio { base: BASE, start: tokio::time::Instant::now() };
    let desk = Desk::new(clock, InlineQueue::open(clock).expect("a store"), 0).await;
    let (alone, both) =
        (desk.take("a@a.example", 300, Notify::default()).await, desk.take("b@a.example", 2, Notify::default()).await);
    for index in 0..300 {
        desk.said(&alone, index, 550).await;
    }
    desk.said(&both, 0, 550).await;
    let _ = desk.stop.send(true);
    desk.begin();
    desk.wait(600).await;
    assert_eq!((desk.reports(), desk.owed().await), (vec![], 301), "stopped");

    let again = Desk::new(clock, desk.inline.reopen(clock).expect("it is there"), 0).await;
    again.begin();
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!((again.reports(), again.owed().await), (vec![300, 1], 0));
    again.wait(600).await;
    let left = queue::Desk::counts(&*again.inline).await.expect("counts");
    assert_eq!(left, Counts { messages: 4, queued: 3, failed: 301, ..Counts::default() });
    assert_eq!(again.reports(), [300, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_report_that_cannot_be_stored_holds_up_no_other_and_is_not_lost() {
    let clock = Clock::Tokio { base: BASE, start: tokio::time::Instant::now() };
    let tries = CHANGES as usize + 1;
    let desk = Desk::new(clock, InlineQueue::open(clock).expect("a store"), tries).await;
    desk.begin();
    let (first, second) =
        (desk.take("a@a.example", 1, Notify::default()).await, desk.take("b@a.example", 1, Notify::default()).await);
    desk.said(&first, 0, 550).await;
    desk.wait(1).await;
    desk.said(&second, 0, 550).await;
    desk.wait(1).await;
    let of = |letter: &Letter| desk.reports.lock().iter().filter(|(id, _)| *id == Some(letter.message.id)).count();
    assert_eq!((of(&first), of(&second), desk.owed().await), (tries, 1, 1));
    desk.wait(120).await;
    assert_eq!((of(&first), of(&second), desk.owed().await), (tries + 1, 1, 0));
}

#[test]
fn a_report_is_bounded_in_bytes_too() {
    let recipient = Recipient::new(Address::parse("r@b.example").expect("an address"));
    let owed = Owed {
        key: RecipientKey { id: QueueId(1), index: 0 },
        due: BASE,
        recipient,
        action: Action::Failed,
        status: (5, 0, 0),
        replied: true,
        text: "x".repeat(1000),
        remote_mta: None,
        last_attempt: BASE,
        will_retry_until: None,
    };
    let mut items = vec![owed.clone(); MOST_ITEMS];
    cut(&mut items);
    assert_eq!(items.len(), MOST_BYTES / 1011);
    let mut one = vec![Owed { text: "x".repeat(MOST_BYTES + 1), ..owed }];
    cut(&mut one);
    assert_eq!(one.len(), 1);
}

#[test]
fn a_stored_reply_is_shown_as_it_was() {
    for (enhanced, text) in [(Some((5, 1, 1)), "no such user"), (None, "no"), (None, "")] {
        let original = Reply { code: 550, enhanced, text: text.into() };
        let back = reply(&original.to_string());
        assert_eq!((back.to_string(), back.code), (original.to_string(), 550));
    }
}
