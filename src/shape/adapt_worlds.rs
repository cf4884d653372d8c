//! Small worlds: a lane, its workers and a receiver on virtual time, to see what is learned of refusals of
//! many kinds. Every case of the table of docs/feedback.md is here, and what it costs is counted.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use super::*;
use crate::deliver::{Reply, Stage};
use crate::mail::sender_key;

const START: i64 = 1_790_000_000_000;

fn at(seconds: f64) -> Timestamp {
    Timestamp(START + (seconds * 1000.0) as i64)
}

/// What a refusal with these words makes a rule do.
const RULED: &str = "a rule pauses the lane";
const SLOWED: &str = "a rule slows the lane";

/// What is offered to a receiver.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Mail {
    id: u32,
    sender: u32,
    /// Attempts before.
    attempts: u32,
}

/// Says no or nothing.
type No = Option<(Stage, u16, Option<(u8, u16, u16)>, &'static str)>;

/// A receiver: what it says to `mail` at the given second.
trait Receiver {
    fn offer(&mut self, now: f64, mail: Mail) -> No;
}

impl<F: FnMut(f64, Mail) -> No> Receiver for F {
    fn offer(&mut self, now: f64, mail: Mail) -> No {
        self(now, mail)
    }
}

/// At most so many in any window of so many seconds.
#[derive(Default)]
struct Sliding(VecDeque<f64>);

impl Sliding {
    fn takes(&mut self, now: f64, most: usize, seconds: f64) -> bool {
        while self.0.front().is_some_and(|at| now - at >= seconds) {
            self.0.pop_front();
        }
        let room = self.0.len() < most;
        if room {
            self.0.push_back(now);
        }
        room
    }
}

/// A token bucket.
struct Bucket {
    tokens: f64,
    last: f64,
}

impl Bucket {
    fn full(tokens: f64) -> Bucket {
        Bucket { tokens, last: 0.0 }
    }

    fn takes(&mut self, now: f64, rate: f64, burst: f64) -> bool {
        self.tokens = (self.tokens + (now - self.last) * rate).min(burst);
        self.last = now;
        let room = self.tokens >= 1.0;
        self.tokens -= f64::from(u8::from(room));
        room
    }
}

/// The lane's mail and workers.
#[derive(Clone, Copy)]
struct Setting {
    adaptive: bool,
    rate: Option<f64>,
    workers: usize,
    /// Seconds of a transaction.
    trip: f64,
    /// All take exactly as long.
    in_step: bool,
    messages: u32,
    senders: u32,
    /// Messages a second that arrive; 0: all at once.
    fed: f64,
    /// It ends then.
    until: f64,
}

impl Default for Setting {
    fn default() -> Setting {
        Setting {
            adaptive: true,
            rate: None,
            workers: 20,
            trip: 0.05,
            in_step: false,
            messages: 1_000_000,
            senders: 7,
            fed: 0.0,
            until: 300.0,
        }
    }
}

/// What happened: in each second accepted and refused.
struct Run {
    seconds: Vec<(u32, u32)>,
    /// When each message was delivered, in the order of delivery, with its sender.
    delivered: Vec<(f64, Mail)>,
    /// When a rule acted.
    ruled: Vec<f64>,
    findings: Vec<Finding>,
    explained: Vec<String>,
    stored: Option<Vec<u8>>,
}

impl Run {
    fn goodput(&self, from: usize, to: usize) -> f64 {
        self.seconds[from..to].iter().map(|s| f64::from(s.0)).sum::<f64>() / (to - from) as f64
    }

    fn refused(&self, from: usize, to: usize) -> f64 {
        let (passed, refused) = self.seconds[from..to].iter().fold((0, 0), |a, s| (a.0 + s.0, a.1 + s.1));
        f64::from(refused) / f64::from((passed + refused).max(1))
    }

    /// When so many had been delivered.
    fn done(&self, count: usize) -> f64 {
        self.delivered.get(count - 1).map_or(f64::INFINITY, |(at, _)| *at)
    }

    /// Messages of these senders that were delivered in a second from then on.
    fn goodput_of(&self, from: f64, to: f64, is_meant: impl Fn(u32) -> bool) -> f64 {
        let meant = |(at, mail): &&(f64, Mail)| *at >= from && *at < to && is_meant(mail.sender);
        self.delivered.iter().filter(meant).count() as f64 / (to - from)
    }

    /// The whole lane has a pace.
    fn is_slowed(&self) -> bool {
        self.explained.iter().any(|line| line.starts_with("slow to"))
    }

    /// Senders that have one of their own.
    fn slowed(&self) -> usize {
        self.explained.iter().filter(|line| line.starts_with("sender <")).count()
    }

    fn judged(&self, verdict: Verdict) -> bool {
        self.findings.iter().any(|finding| finding.verdict == verdict)
    }
}

/// 2 to 34 kB, the same for each attempt.
fn size_of(mail: Mail) -> u64 {
    2000 + u64::from(mail.id.wrapping_mul(2_654_435_761) >> 17)
}

fn name_of(mail: Mail) -> String {
    format!("s{}@a.example", mail.sender)
}

/// Until when a sender is stopped, and how long its next message waits behind another.
fn free(pace: SenderPace<'_>, stamp: Timestamp, now: f64) -> (f64, f64) {
    let stop = pace.stopped.map_or(0.0, |until| now + until.since(stamp).as_secs_f64());
    (stop, pace.rate.map_or(0.0, |rate| 1.0 / rate))
}

/// The waits of the retry schedule.
fn gap(attempts: u32, id: u32) -> f64 {
    let jitter = 0.8 + 0.4 * f64::from(id.wrapping_mul(2_654_435_761) >> 16 & 0xff) / 255.0;
    (60.0 * f64::from(1 << (attempts - 1).min(8))).min(14_400.0) * jitter
}

/// When, which worker, what it has in hand and since when.
type Event = (u64, usize, Option<Mail>, u64);

/// A time, for a heap.
fn ms(seconds: f64) -> u64 {
    (seconds * 1e6) as u64
}

fn run(setting: Setting, receiver: &mut dyn Receiver) -> Run {
    let Setting { adaptive, rate, workers, trip, in_step, messages, senders, fed, until } = setting;
    let mut adapt = Adapt::new(Configured { rate, connections: workers as u32, messages: 1_000_000, adaptive });
    let rule = ReplyRule {
        origin: "built-in".into(),
        stage: None,
        code: None,
        enhanced: None,
        text: None,
        scope: crate::config::RuleScope::Provider,
        actions: vec![RuleAction::Pause],
        lasting: Duration::from_secs(7200),
        after: None,
    };
    let ten = crate::config::units::Rate { count: 10, per: Duration::from_secs(60) };
    let lasting = Duration::from_secs(1800);
    let slow = ReplyRule { actions: vec![RuleAction::SlowTo(ten)], lasting, ..rule.clone() };
    let mut out = Run {
        ruled: Vec::new(),
        seconds: vec![(0, 0); until as usize + 1],
        delivered: Vec::new(),
        findings: Vec::new(),
        explained: Vec::new(),
        stored: None,
    };
    let mut events: BinaryHeap<Reverse<Event>> =
        (0..workers).map(|worker| Reverse((worker as u64, worker, None, 0))).collect();
    let mut waiting: BinaryHeap<Reverse<(u64, Mail)>> = BinaryHeap::new();
    let (mut fresh, mut left, mut tick) = (0u32, messages, 0.5);
    // When the next may leave, by the configured and by the learned rate.
    let mut next = [0.0f64; 2];
    // The same for senders with a pace of their own, and their mail that waits for it.
    let mut next_of: BTreeMap<u64, f64> = BTreeMap::new();
    let mut aside: BTreeMap<u64, VecDeque<Mail>> = BTreeMap::new();
    while let Some(Reverse((when, worker, mail, began))) = events.pop() {
        let now = when as f64 / 1e6;
        if now >= until || left == 0 {
            break;
        }
        while tick <= now {
            adapt.advance(workers as u32, at(tick));
            tick += 0.5;
        }
        let stamp = at(now);
        if let Some(mail) = mail {
            let party = Party {
                recipient: u64::from(mail.id),
                sender: sender_key(&name_of(mail)),
                message: u64::from(mail.id),
                size: size_of(mail),
                again: mail.attempts > 0,
            };
            let began = at(began as f64 / 1e6);
            let tally = &mut out.seconds[now as usize];
            match receiver.offer(now, mail) {
                None => {
                    tally.0 += 1;
                    left -= 1;
                    out.delivered.push((now, mail));
                    adapt.accepted(&[party], 1, began, stamp);
                }
                Some((stage, code, enhanced, text)) => {
                    tally.1 += 1;
                    let reply = Reply { code, enhanced, text: text.into() };
                    if [RULED, SLOWED].contains(&text) {
                        out.ruled.push(now);
                        adapt.ruled(if text == RULED { &rule } else { &slow }, text, stamp);
                        waiting.push(Reverse((ms(now + 60.0), mail)));
                        adapt.advance(workers as u32, stamp);
                        events.push(Reverse((when + 1000, worker, None, 0)));
                        continue;
                    }
                    let sign = Signature::of(stage, &reply, &[]);
                    let told = reply.to_string();
                    adapt.refused_for(
                        &Refused { sign, party, sender: &name_of(mail), cells: 1, reply: &told },
                        began,
                        stamp,
                    );
                    let attempts = mail.attempts + 1;
                    waiting.push(Reverse((ms(now + gap(attempts, mail.id)), Mail { attempts, ..mail })));
                }
            }
            adapt.advance(workers as u32, stamp);
            out.findings.extend(adapt.take_findings());
        }
        // The next one, in the order in which they are due.
        let limits = adapt.limits(stamp);
        let mut later = limits.paused.as_ref().map_or(now, |(until, _)| now + until.since(stamp).as_secs_f64());
        for (next, rate) in next.iter_mut().zip([rate, limits.rate]) {
            // A rate that has grown does not wait for what the slower one had booked.
            *next = rate.map_or(0.0, |rate| next.min(now + 1.0 / rate));
            later = later.max(*next);
        }
        if later > now + 1e-6 {
            let look = if limits.paused.is_some() { later } else { later.min(now + 0.5) };
            events.push(Reverse((ms(look) + 1, worker, None, 0)));
            continue;
        }
        let paces: BTreeMap<u64, (f64, f64)> =
            adapt.senders(stamp).map(|pace| (pace.key, free(pace, stamp, now))).collect();
        let own = |sender: u64, next_of: &BTreeMap<u64, f64>| {
            let last = next_of.get(&sender).copied().unwrap_or(0.0);
            paces.get(&sender).map_or(0.0, |(stop, gap)| stop.max(last.min(now + gap)))
        };
        let ready = aside.iter().find(|(sender, waits)| !waits.is_empty() && own(**sender, &next_of) <= now);
        let ready = ready.map(|(sender, _)| *sender);
        let arrives = if fed > 0.0 { f64::from(fresh) / fed } else { 0.0 };
        let again = waiting.peek().map(|Reverse((due, _))| *due).filter(|due| *due <= when);
        let first = fresh < messages && arrives <= now && again.is_none_or(|due| due >= ms(arrives));
        let mail = if let Some(mail) = ready.and_then(|sender| aside.get_mut(&sender)?.pop_front()) {
            mail
        } else if first {
            fresh += 1;
            Mail { id: fresh, sender: fresh % senders, attempts: 0 }
        } else if again.is_some()
            && let Some(Reverse((_, mail))) = waiting.pop()
        {
            mail
        } else {
            let arrival = if fresh < messages { ms(arrives) } else { u64::MAX };
            let due = waiting.peek().map_or(u64::MAX, |Reverse((due, _))| *due);
            // What another worker has in hand may come back, too.
            let look = arrival.min(due).min(when + if aside.is_empty() { 5_000_000 } else { 20_000 }).max(when) + 1;
            events.push(Reverse((look, worker, None, 0)));
            continue;
        };
        let sender = sender_key(&name_of(mail));
        if own(sender, &next_of) > now {
            aside.entry(sender).or_default().push_back(mail);
            events.push(Reverse((when, worker, None, 0)));
            continue;
        }
        if let Some((_, gap)) = paces.get(&sender) {
            let last = next_of.get(&sender).copied().unwrap_or(0.0);
            next_of.insert(sender, last.min(now + gap).max(now - 0.02) + gap);
        }
        // As exact as a limiter: what a worker was late is not lost.
        for (next, rate) in next.iter_mut().zip([rate, limits.rate]) {
            *next = rate.map_or(0.0, |rate| next.max(now - 0.02) + 1.0 / rate);
        }
        // Not in step with the others: whoever waited would always be the first.
        let jitter = if in_step { 1.0 } else { 0.8 + 0.4 * random(mail, worker as u32) };
        events.push(Reverse((ms(now + trip * jitter), worker, Some(mail), when)));
    }
    out.explained = adapt.explain(at(until));
    out.stored = adapt.store();
    out
}

fn cap(name: &str, setting: Setting, cap: f64, from: usize, receiver: &mut dyn Receiver) -> bool {
    let to = setting.until as usize;
    let run = run(setting, receiver);
    let (goodput, refused) = (run.goodput(from, to) / cap, run.refused(from, to));
    println!(
        "{name:38} {:5.1} % of the cap, {:.2} % refused; all {:.1} % {:.2} %; {:?}",
        100.0 * goodput,
        100.0 * refused,
        100.0 * run.goodput(0, to) / cap,
        100.0 * run.refused(0, to),
        run.findings.iter().map(|f| (f.verdict, &f.evidence)).collect::<Vec<_>>()
    );
    goodput >= 0.92 && refused <= 0.03 && run.judged(Verdict::Pace)
}

/// The wordings of the caps: none is in any list.
const SAID: [No; 7] = [
    Some((Stage::Mail, 451, None, "Temporary local problem")),
    Some((Stage::Rcpt, 452, Some((4, 2, 2)), "slow please")),
    Some((Stage::Mail, 450, None, "\u{fffd}\u{fffd}\u{fffd}\u{fffd} \u{fffd}\u{fffd}")),
    Some((Stage::Mail, 451, Some((4, 3, 0)), "Bitte haben Sie etwas Geduld, Ihr Server sendet zu schnell")),
    Some((Stage::Final, 451, None, "")),
    Some((Stage::Data, 421, None, "Merci de patienter un instant")),
    Some((Stage::Mail, 450, None, "Спасибо, позже")),
];

#[test]
fn caps_are_found_whatever_is_said() {
    let mut fine = Vec::new();
    for (n, said) in SAID.into_iter().enumerate() {
        let mut sliding = Sliding::default();
        let mut world = |now: f64, _: Mail| if sliding.takes(now, 12, 1.0) { None } else { said };
        fine.push(cap(&format!("12/s, wording {n}"), Setting::default(), 12.0, 90, &mut world));
    }
    for (rate, workers, trip) in
        [(5.0, 20, 0.02), (12.0, 20, 0.02), (40.0, 20, 0.02), (200.0, 20, 0.02), (40.0, 5, 0.1)]
    {
        let setting = Setting { workers, trip, ..Setting::default() };
        let mut bucket = Bucket::full(rate);
        let mut world = |now: f64, _: Mail| if bucket.takes(now, rate, rate) { None } else { SAID[0] };
        fine.push(cap(&format!("bucket {rate}/s"), setting, rate, 90, &mut world));
        let mut sliding = Sliding::default();
        let mut world = |now: f64, _: Mail| if sliding.takes(now, rate as usize, 1.0) { None } else { SAID[0] };
        fine.push(cap(&format!("sliding {rate}/s"), setting, rate, 90, &mut world));
        let setting = Setting { fed: rate * 1.3, ..setting };
        let mut bucket = Bucket::full(rate);
        let mut world = |now: f64, _: Mail| if bucket.takes(now, rate, rate) { None } else { SAID[0] };
        fine.push(cap(&format!("bucket {rate}/s, fed with 1.3 of it"), setting, rate, 90, &mut world));
    }
    assert!(fine.iter().all(|f| *f), "{fine:?}");
}

#[test]
fn long_windows_are_found() {
    let mut fine = Vec::new();
    for (most, seconds) in [(200, 10.0), (90, 60.0), (600, 60.0), (1000, 3600.0)] {
        for fed in [0.0, 2.0 * most as f64 / seconds] {
            let setting = Setting { until: seconds * 8.0 + 120.0, fed, ..Setting::default() };
            let mut sliding = Sliding::default();
            let mut world = |now: f64, _: Mail| if sliding.takes(now, most, seconds) { None } else { SAID[0] };
            let from = (2.0 * seconds) as usize + 1;
            fine.push(cap(
                &format!("{most} in {seconds} s, fed {fed:.1}"),
                setting,
                most as f64 / seconds,
                from,
                &mut world,
            ));
        }
    }
    assert!(fine.iter().all(|f| *f), "{fine:?}");
}

/// Windows that begin anew every minute stay closed to their end: each probe costs few refusals in spite of that.
#[test]
fn windows_that_do_not_slide_are_found() {
    for most in [110, 260, 700] {
        let (mut minute, mut count) = (-1, 0);
        let mut world = |now: f64, _: Mail| {
            if (now / 60.0) as i64 != minute {
                (minute, count) = ((now / 60.0) as i64, 0);
            }
            count += 1;
            if count <= most { None } else { SAID[0] }
        };
        let setting = Setting { until: 1200.0, ..Setting::default() };
        assert!(cap(&format!("{most} in each minute"), setting, most as f64 / 60.0, 120, &mut world));
    }
}

#[test]
fn a_raised_cap_is_found() {
    let mut fine = Vec::new();
    for (most, seconds, after) in
        [(12, 1.0, 120.0), (40, 1.0, 120.0), (5, 1.0, 120.0), (90, 60.0, 120.0), (1000, 3600.0, 7200.0)]
    {
        let change = if seconds > 600.0 { 5.0 * seconds } else { 300.0 };
        let mut sliding = Sliding::default();
        let mut world = |now: f64, _: Mail| {
            let most = if now < change { most } else { 2 * most };
            if sliding.takes(now, most, seconds) { None } else { SAID[0] }
        };
        let setting = Setting { until: change + after * 2.0 + 60.0, ..Setting::default() };
        let run = run(setting, &mut world);
        let span = seconds.max(10.0) as usize;
        let found = (change as usize..setting.until as usize - span)
            .step_by(5)
            .find(|s| run.goodput(*s, s + span) >= 0.9 * 2.0 * most as f64 / seconds);
        println!(
            "{most} in {seconds} s doubled: found after {:?} s of {after}",
            found.map(|s| s + span - change as usize)
        );
        fine.push(found.is_some_and(|s| (s + span) as f64 - change <= after));
    }
    assert!(fine.iter().all(|f| *f), "{fine:?}");
}

/// The same world with and without learning: how long until what can be delivered is.
fn no_cap(name: &str, setting: Setting, count: usize, make: &dyn Fn() -> Box<dyn Receiver>) -> bool {
    let learns = run(setting, &mut *make());
    let plain = run(Setting { adaptive: false, ..setting }, &mut *make());
    let (a, b) = (learns.done(count), plain.done(count));
    println!("{name:44} {a:8.1} s, without learning {b:8.1} s; {:?}", learns.findings);
    if learns.explained.iter().any(|line| line.starts_with("slow to")) {
        println!("   {:?}", learns.explained);
    }
    a <= b * 1.05 + 0.5 && !learns.explained.iter().any(|line| line.starts_with("slow to"))
}

fn random(mail: Mail, salt: u32) -> f64 {
    let mut x = mail.id.wrapping_mul(0x9e37_79b9) ^ salt ^ mail.attempts.wrapping_mul(0x85eb_ca6b);
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    f64::from(x ^ (x >> 16)) / f64::from(u32::MAX)
}

#[test]
fn what_is_not_about_the_pace_slows_nobody_down() {
    let mut fine = Vec::new();
    for text in ["too many messages, try again later", "Nein, danke"] {
        let setting = Setting { messages: 3000, workers: 8, until: 4000.0, ..Setting::default() };
        let mut check = |name: &str, setting: Setting, count: usize, make: &dyn Fn() -> Box<dyn Receiver>| {
            fine.push((name.to_owned(), no_cap(name, setting, count, make)));
        };
        check("greylisting of everybody", setting, 3000, &|| {
            Box::new(move |_: f64, m: Mail| (m.attempts == 0).then_some((Stage::Rcpt, 450, Some((4, 7, 1)), text)))
        });
        check("greylisting of everybody, fed", Setting { fed: 20.0, ..setting }, 3000, &|| {
            Box::new(move |_: f64, m: Mail| (m.attempts == 0).then_some((Stage::Rcpt, 450, Some((4, 7, 1)), text)))
        });
        check("greylisting of half", Setting { fed: 20.0, ..setting }, 3000, &|| {
            Box::new(move |_: f64, m: Mail| {
                (m.attempts == 0 && random(m, 1) < 0.5).then_some((Stage::Rcpt, 450, None, text))
            })
        });
        check("2 % greylisted after the data", setting, 2900, &|| {
            Box::new(move |_: f64, m: Mail| {
                (m.attempts == 0 && random(m, 2) < 0.02).then_some((Stage::Final, 451, Some((4, 7, 1)), text))
            })
        });
        check("10 % full mailboxes", setting, 2650, &|| {
            Box::new(move |_: f64, m: Mail| {
                (random(Mail { attempts: 0, ..m }, 3) < 0.1).then_some((Stage::Rcpt, 452, Some((4, 2, 2)), text))
            })
        });
        check("a filter defers 30 %", setting, 2900, &|| {
            Box::new(move |_: f64, m: Mail| (random(m, 4) < 0.3).then_some((Stage::Final, 451, None, text)))
        });
        check("a filter defers 30 %, fed", Setting { fed: 30.0, ..setting }, 2900, &|| {
            Box::new(move |_: f64, m: Mail| (random(m, 4) < 0.3).then_some((Stage::Final, 451, None, text)))
        });
        check(
            "a filter defers 30 %, one slow connection",
            Setting { workers: 1, trip: 0.2, messages: 500, ..setting },
            480,
            &|| Box::new(move |_: f64, m: Mail| (random(m, 4) < 0.3).then_some((Stage::Final, 451, None, text))),
        );
        check("one sender blocked", setting, 2550, &|| {
            Box::new(move |_: f64, m: Mail| (m.sender == 3).then_some((Stage::Mail, 451, Some((4, 7, 1)), text)))
        });
        check("one of two senders blocked", Setting { senders: 2, ..setting }, 1500, &|| {
            Box::new(move |_: f64, m: Mail| (m.sender == 1).then_some((Stage::Mail, 451, Some((4, 7, 1)), text)))
        });
        check("in trouble for ten minutes", Setting { fed: 3.0, ..setting }, 3000, &|| {
            Box::new(move |now: f64, _: Mail| (60.0..660.0).contains(&now).then_some((Stage::Mail, 451, None, text)))
        });
        check("in trouble from the start", setting, 3000, &|| {
            Box::new(move |now: f64, _: Mail| (now < 600.0).then_some((Stage::Mail, 451, None, text)))
        });
    }
    let bad: Vec<_> = fine.iter().filter(|(_, fine)| !fine).collect();
    assert!(bad.is_empty(), "{bad:?}");
}

/// Everything is refused for a while and nothing after that: no limit, however slow or fast mail comes.
#[test]
fn a_short_outage_is_not_taken_for_the_pace() {
    let mut bad = Vec::new();
    for fed in [1.0, 3.0, 10.0, 40.0] {
        for lasts in [1.0, 2.0, 4.0, 7.0, 10.0, 30.0, 180.0] {
            let said: No = Some((Stage::Mail, 421, Some((4, 3, 2)), "Service not available"));
            let mut world = move |now: f64, _: Mail| if (60.0..60.0 + lasts).contains(&now) { said } else { None };
            let setting = Setting { workers: 5, fed, until: 700.0, ..Setting::default() };
            let run = run(setting, &mut world);
            let after = run.goodput(400, 700) / fed;
            println!("{fed}/s, {lasts} s: {after:.2} of it later; {:?} {:?}", run.findings, run.explained);
            if run.judged(Verdict::Pace) || after < 0.97 {
                bad.push((fed, lasts, after));
            }
        }
    }
    assert!(bad.is_empty(), "{bad:?}");
}

/// A rule pauses for two hours: the pace that led there is remembered, and what follows is near the cap.
#[test]
fn rules_and_learning_work_together() {
    for (cap, rate) in [(2.0, Some(5.0)), (1.5, None)] {
        let mut bucket = Bucket::full(cap);
        let said: No = Some((Stage::Mail, 421, Some((4, 7, 0)), RULED));
        let mut world = |now: f64, _: Mail| if bucket.takes(now, cap, cap) { None } else { said };
        let setting = Setting { rate, workers: 4, until: 86_400.0, messages: u32::MAX, ..Setting::default() };
        let run = run(setting, &mut world);
        let mut pauses = run.ruled.clone();
        // Those that were under way together are one.
        pauses.dedup_by(|b, a| *b - *a < 7200.0);
        let goodput = run.goodput(20_000, 86_400) / cap;
        println!("cap {cap}/s, rate {rate:?}: paused at {pauses:?}, {:.1} % of the cap in all", 100.0 * goodput);
        assert!(pauses.len() <= 5 && run.ruled.len() <= 25, "{pauses:?} {}", run.ruled.len());
        assert!(goodput > 0.6, "{goodput}");
    }
    // It is no rate, but so many in a window whose length the pause hides.
    for (most, seconds) in [(20, 60.0), (300, 3600.0)] {
        let mut sliding = Sliding::default();
        let said: No = Some((Stage::Mail, 421, Some((4, 7, 0)), RULED));
        let mut world = |now: f64, _: Mail| if sliding.takes(now, most, seconds) { None } else { said };
        let run = run(Setting { workers: 4, until: 86_400.0, ..Setting::default() }, &mut world);
        let mut pauses = run.ruled.clone();
        pauses.dedup_by(|b, a| *b - *a < 7200.0);
        let goodput = run.goodput(20_000, 86_400) * seconds / most as f64;
        println!("{most} in {seconds} s: paused at {pauses:?}, {:.1} % of the cap in all", 100.0 * goodput);
        assert!(pauses.len() <= 5 && goodput > 0.5, "{pauses:?} {goodput}");
    }
}

/// An even pace met a rule after a while, so the window is longer than that while: the pace after the rule is
/// right at once, and it costs no more than a tenth of the time to look for more.
#[test]
fn a_rule_that_an_even_pace_meets_late_teaches_a_window_at_once() {
    for (most, rate, text, lasts) in [(20, 50.0, RULED, 7200.0), (30, 90.0, RULED, 7200.0), (30, 90.0, SLOWED, 1800.0)]
    {
        let mut sliding = Sliding::default();
        let said: No = Some((Stage::Mail, 421, Some((4, 7, 0)), text));
        let mut world = |now: f64, _: Mail| if sliding.takes(now, most, 60.0) { None } else { said };
        let setting = Setting { rate: Some(rate / 60.0), workers: 4, until: 50_000.0, ..Setting::default() };
        let run = run(setting, &mut world);
        let mut hits = run.ruled.clone();
        hits.dedup_by(|b, a| *b - *a < 60.0);
        let goodput = run.goodput(0, 50_000) * 60.0 / most as f64;
        println!("{most} a minute, rate {rate}/m, {text}: hits at {hits:?}, {:.1} % of the cap", 100.0 * goodput);
        assert!(hits.windows(2).all(|two| two[1] - two[0] >= 10.0 * lasts), "{hits:?}");
        assert!(goodput >= 0.8, "{goodput}");
    }
}

/// A campaign that meets its limit in the first second meets it once: the pace after the rule is what passed in
/// that second, and it is not worth two hours to look for more.
#[test]
fn a_rule_that_is_met_in_the_first_second_is_met_once() {
    for (cap, rate, text, lasts, hours) in [(20, Some(50.0), RULED, 7200, 14), (15, None, SLOWED, 1800, 4)] {
        let mut sliding = Sliding::default();
        let said: No = Some((Stage::Mail, 421, Some((4, 7, 0)), text));
        let mut world = |now: f64, _: Mail| if sliding.takes(now, cap, 1.0) { None } else { said };
        let run = run(Setting { rate, until: f64::from(hours) * 3600.0, ..Setting::default() }, &mut world);
        let mut hits = run.ruled.clone();
        hits.dedup_by(|b, a| *b - *a < 60.0);
        let goodput = run.goodput(lasts + 10, hours as usize * 3600) / cap as f64;
        println!("{cap}/s, {text}: hits at {hits:?}, {:.1} % of the cap after the first", 100.0 * goodput);
        assert!(hits.len() == 1 && goodput >= 0.94, "{hits:?} {goodput}");
    }
}

/// A burst after a quiet time says nothing of a minute: the pace after the rule is near the cap of a second.
#[test]
fn a_rule_that_a_burst_meets_teaches_no_long_window() {
    let mut pace = pace::Pace::default();
    for n in 0..6 {
        pace.delivered(1, at(3.0 * f64::from(n)), at(3.0 * f64::from(n)));
    }
    for n in 0..20 {
        pace.delivered(1, at(16.0 + 0.04 * f64::from(n)), at(16.0 + 0.04 * f64::from(n)));
    }
    pace.ruled(true, at(7216.8), at(16.8), None, "421");
    let rate = pace.rate(at(7220.0)).expect("learned");
    assert!(rate > 1.0, "{rate}/s");
}

#[path = "adapt_below.rs"]
mod below;
#[path = "adapt_bytes.rs"]
mod bytes;
#[path = "adapt_senders.rs"]
mod senders;
