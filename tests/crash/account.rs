//! The accounting: what became of every message, from what its client and its receiver know.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::ledger::{Ledger, number, recipients};
use crate::support::mail::header;
use crate::support::sink::{Received, Sink};

/// What became of every message.
#[derive(Debug, Default)]
pub struct Account {
    acknowledged: usize,
    arrived: usize,
    reports: usize,
    lost: Vec<String>,
    /// Recipients that failed, and reports: fewer, since one tells of several.
    failures: usize,
    messages_of_report: usize,
    without_report: Vec<String>,
    reported_twice: Vec<String>,
    /// Arrived though the client was told to keep it, or to somebody it was not for.
    unasked: Vec<String>,
    /// Arrived though the client heard nothing: allowed.
    unanswered_that_arrived: usize,
    /// Transactions that were in flight at a kill, and done again: allowed.
    repeated_in_flight: usize,
    repeated: Vec<String>,
}

impl Account {
    pub fn of(ledger: &Ledger, sink: &Sink) -> Account {
        let acknowledged: BTreeSet<String> = ledger.acknowledged.lock().expect("the ledger").iter().cloned().collect();
        let unanswered = ledger.unanswered.lock().expect("the ledger");
        let connections = sink.connections();
        let in_flight = |m: &Received| {
            let connection = &connections[m.connection];
            !connection.quit && connection.transactions == m.transaction
        };
        // What arrived, by its Message-ID; and the Message-IDs of the reports about each message, by
        // recipient.
        let mut arrivals: HashMap<String, Vec<Received>> = HashMap::new();
        let mut reports: HashMap<String, BTreeMap<String, BTreeSet<String>>> = HashMap::new();
        let mut messages_of_report: BTreeSet<String> = BTreeSet::new();
        let mut account = Account { acknowledged: acknowledged.len(), ..Account::default() };
        let mut arrived: BTreeSet<String> = BTreeSet::new();
        for m in sink.messages() {
            let id = header(&m.content, "Message-ID").expect("a Message-ID");
            if m.from.starts_with("<>") {
                messages_of_report.insert(id.clone());
                for recipient in failed(&m) {
                    let of_message = reports.entry(reported(&m)).or_default();
                    of_message.entry(recipient).or_default().insert(id.clone());
                }
            } else {
                if m.to != ["<somebody@example.test>"] {
                    account.unasked.push(format!("{} to {:?}", m.subject(), m.to));
                }
                arrived.insert(m.subject());
            }
            arrivals.entry(id).or_default().push(m);
        }
        for (id, list) in &arrivals {
            let known = list.iter().filter(|m| !in_flight(m)).count();
            account.repeated_in_flight += list.len() - 1;
            if known > 1 {
                account.repeated.push(format!("{id}: {known} times"));
            }
        }
        for subject in &acknowledged {
            let to = recipients(number(subject));
            if to.contains(&"<somebody@example.test>") && !arrived.contains(subject) {
                account.lost.push(subject.clone());
            }
            for failing in to.iter().filter(|to| to.starts_with("<nobody")) {
                account.failures += 1;
                if !reports.get(subject).is_some_and(|told| told.contains_key(*failing)) {
                    account.without_report.push(format!("{failing} of {subject}"));
                }
            }
        }
        for (subject, told) in &reports {
            for (recipient, ids) in told {
                if ids.len() > 1 {
                    account.reported_twice.push(format!("{recipient} of {subject}"));
                }
                if !recipients(number(subject)).contains(&recipient.as_str()) {
                    account.unasked.push(format!("a report about {recipient} of {subject}"));
                }
            }
        }
        for subject in arrived.iter().chain(reports.keys()) {
            if !acknowledged.contains(subject) {
                match unanswered.contains(subject) {
                    true => account.unanswered_that_arrived += 1,
                    false => account.unasked.push(subject.clone()),
                }
            }
        }
        (account.arrived, account.reports) = (arrived.len(), reports.len());
        account.messages_of_report = messages_of_report.len();
        account
    }

    pub fn check(&self) {
        assert!(self.acknowledged > 500 && self.reports > 10, "too little to tell anything");
        assert!(self.messages_of_report < self.failures, "no report tells of more than one failure");
        assert!(self.lost.is_empty(), "acknowledged and lost: {:?}", self.lost);
        assert!(self.without_report.is_empty(), "failed without a report: {:?}", self.without_report);
        assert!(self.reported_twice.is_empty(), "reported more than once: {:?}", self.reported_twice);
        assert!(self.repeated.is_empty(), "done again though not in flight: {:?}", self.repeated);
        assert!(self.unasked.is_empty(), "not asked for: {:?}", self.unasked);
    }
}

/// The subject of the message that a report is about: in the header section that it returns.
fn reported(report: &Received) -> String {
    let text = String::from_utf8_lossy(&report.content);
    let returned = text.rsplit("\r\nSubject: ").next().expect("a subject");
    returned.split("\r\n").next().expect("a line").to_owned()
}

/// Whom a report says to have failed, as in the envelope; each once.
fn failed(report: &Received) -> BTreeSet<String> {
    let text = String::from_utf8_lossy(&report.content);
    let named: Vec<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("Final-Recipient: rfc822; "))
        .map(|address| format!("<{}>", address.trim_end()))
        .collect();
    let once: BTreeSet<String> = named.iter().cloned().collect();
    assert_eq!(once.len(), named.len(), "named twice in one report");
    once
}
