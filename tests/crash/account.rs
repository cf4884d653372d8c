//! The accounting: what became of every message, from what its client and its receiver know.

use std::collections::{BTreeSet, HashMap};

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
        // What arrived, by its Message-ID; and the Message-IDs of the reports about each message.
        let mut arrivals: HashMap<String, Vec<Received>> = HashMap::new();
        let mut reports: HashMap<String, BTreeSet<String>> = HashMap::new();
        let mut account = Account { acknowledged: acknowledged.len(), ..Account::default() };
        let mut arrived: BTreeSet<String> = BTreeSet::new();
        for m in sink.messages() {
            let id = header(&m.content, "Message-ID").expect("a Message-ID");
            if m.from.starts_with("<>") {
                reports.entry(reported(&m)).or_default().insert(id.clone());
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
            if to.contains(&"<nobody@example.test>") && !reports.contains_key(subject) {
                account.without_report.push(subject.clone());
            }
        }
        for (subject, ids) in &reports {
            if ids.len() > 1 {
                account.reported_twice.push(subject.clone());
            }
            if !recipients(number(subject)).contains(&"<nobody@example.test>") {
                account.unasked.push(format!("a report about {subject}"));
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
        account
    }

    pub fn check(&self) {
        assert!(self.acknowledged > 500 && self.reports > 10, "too little to tell anything");
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
