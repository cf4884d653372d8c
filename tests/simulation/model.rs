//! What must be true of every recipient that the queue has taken, told from the outside: commits of
//! the store on one side, transactions at the receivers on the other.

use std::collections::{BTreeMap, BTreeSet};

use mailweir::clock::Timestamp;
use mailweir::mail::{Action, NewMessage, Notify, Owed, QueueId, RecipientKey, State};
use mailweir::queue::{Counts, Operation, Row, Settlement, Verdict};
use tokio::time::Instant;

use super::net::Mark;
use super::plan::MINUTE;

/// A recipient of the calm provider has its fate within this time, unless the disk or the process
/// was in trouble (invariant 4).
const PROMPT: i64 = MINUTE.as_millis() as i64;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    Delivered,
    Failed,
    Cancelled,
}

/// A receiver took it.
struct Taken {
    /// In which life the relay sent it.
    life: u32,
    /// When the relay read the reply, if it did before it gave the connection up.
    told: Mark,
}

impl Taken {
    /// The relay knows, since when.
    fn told(&self) -> Option<Instant> {
        *self.told.lock()
    }
}

struct Record {
    address: String,
    sender: String,
    notify: Notify,
    calm: bool,
    accepted: i64,
    /// Since when it could leave.
    since: i64,
    fate: Option<(Fate, i64)>,
    warned: bool,
    taken: Vec<Taken>,
}

/// All recipients ever taken.
#[derive(Default)]
pub struct Model {
    records: BTreeMap<RecipientKey, Record>,
    /// What senders are to be told, by recipient: the due time and the action.
    owed: BTreeMap<RecipientKey, (Timestamp, &'static str)>,
    pub life: u32,
    /// Since when nothing disturbs the relay as a whole.
    pub quiet_since: i64,
    keep_failed: i64,
    pub wrong: Vec<String>,
    pub totals: Totals,
}

#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Totals {
    pub recipients: u64,
    pub delivered: u64,
    pub failed: u64,
    pub cancelled: u64,
    pub deferred: u64,
    pub dsn: u64,
    pub twice: u64,
}

impl Model {
    pub fn new(keep_failed: i64) -> Model {
        Model { keep_failed, ..Model::default() }
    }

    pub fn accepted(&mut self, new: &NewMessage, now: Timestamp) {
        let sender = new.message.envelope.sender();
        for (index, taken) in (0u32..).zip(&new.recipients) {
            let key = RecipientKey { id: new.message.id, index };
            let address = taken.recipient.address.as_str().to_owned();
            let record = Record {
                calm: address.contains(".p0."),
                address,
                sender: sender.to_owned(),
                notify: taken.recipient.notify,
                accepted: now.0,
                since: now.0,
                fate: None,
                warned: false,
                taken: Vec::new(),
            };
            self.totals.recipients += 1;
            if self.records.insert(key, record).is_some() {
                self.wrong.push(format!("queue id {key:?} was given twice"));
            }
        }
    }

    /// The client heard a 250 with this id.
    pub fn acknowledged(&mut self, id: QueueId, recipients: usize) {
        let from = RecipientKey { id, index: 0 };
        let known = self.records.range(from..).take_while(|(key, _)| key.id == id).count();
        if known != recipients {
            self.wrong.push(format!("{id} was acknowledged for {recipients} recipients, {known} are in the queue"));
        }
    }

    pub fn settled(&mut self, settlements: &[Settlement], owed: &[Owed], now: Timestamp) {
        let mut due: Vec<(RecipientKey, &'static str)> = Vec::new();
        for Settlement { key, verdict } in settlements {
            let Some(record) = self.records.get_mut(key) else {
                self.wrong.push(format!("{key:?} was settled and is not known"));
                continue;
            };
            match record.fate {
                // Cancelled while in flight cannot be, but what is withdrawn may be settled late.
                Some((Fate::Cancelled, _)) => continue,
                Some((fate, _)) => self.wrong.push(format!("{key:?} was {fate:?} and is settled again: {verdict:?}")),
                None => {}
            }
            let told = record.taken.iter().any(|taken| taken.life == self.life && taken.told().is_some());
            if told != (*verdict == Verdict::Delivered) {
                self.wrong.push(format!(
                    "{key:?} {}: the relay {} of an acceptance, and settles {verdict:?}",
                    record.address,
                    if told { "was told" } else { "was not told" }
                ));
            }
            let asked = !record.sender.is_empty();
            let mut expect = |action, wanted| {
                if asked && wanted {
                    due.push((*key, action));
                }
            };
            match verdict {
                Verdict::Delivered => {
                    record.fate = Some((Fate::Delivered, now.0));
                    self.totals.delivered += 1;
                    // Only if the receiver does not do it: so it may be there.
                    record.notify.success.then(|| expect("?relayed", true));
                }
                Verdict::Failed { .. } => {
                    expect("failed", record.notify.failure);
                    record.fate = Some((Fate::Failed, now.0));
                    self.totals.failed += 1;
                }
                Verdict::Deferred { due, warned, reason, counts, .. } => {
                    self.totals.deferred += 1;
                    if *warned && !record.warned {
                        if !record.notify.delay {
                            self.wrong.push(format!("{key:?} has a warning that nobody asked for"));
                        }
                        expect("delayed", true);
                    }
                    record.warned = *warned;
                    // What is held back for long waits in the store: that is no attempt.
                    let put_back = !counts && reason.starts_with("waits for the end of ");
                    if record.calm && !put_back && !reason.contains("local: ") {
                        self.wrong.push(format!("{} is deferred, its provider never fails: {reason}", record.address));
                    }
                    record.since = record.since.max(due.0);
                }
            }
            let waited = now.0 - record.since.max(self.quiet_since);
            if record.calm && record.fate.is_some() && waited > PROMPT {
                self.wrong.push(format!("{key:?} {} of the calm provider took {waited} ms", record.address));
            }
        }
        self.check_debts(due, owed, now);
    }

    /// Exactly the debts that the fates make.
    fn check_debts(&mut self, mut due: Vec<(RecipientKey, &'static str)>, owed: &[Owed], now: Timestamp) {
        for debt in owed {
            let action = action(debt.action);
            match due.iter().position(|(key, x)| *key == debt.key && x.trim_start_matches('?') == action) {
                Some(at) => drop(due.swap_remove(at)),
                None => self.wrong.push(format!("a report that is not due: {:?} {action}", debt.key)),
            }
            if debt.due > now.after(MINUTE) {
                self.wrong.push(format!("{:?} is to be reported at {}, later than in a minute", debt.key, debt.due));
            }
            self.owed.insert(debt.key, (debt.due, action));
        }
        for (key, action) in due.iter().filter(|(_, action)| !action.starts_with('?')) {
            self.wrong.push(format!("no report is owed: {key:?} {action}"));
        }
    }

    /// A report was stored: exactly on what is owed, and to whom it is owed.
    pub fn reported(&mut self, told: &[(RecipientKey, Timestamp)], report: Option<&NewMessage>, now: Timestamp) {
        let mut due: Vec<(String, &'static str, String)> = Vec::new();
        let about = told.first().map(|(key, _)| key.id);
        for (key, at) in told {
            match (self.owed.remove(key), self.records.get(key)) {
                (Some((due_at, action)), Some(record)) if due_at == *at && Some(key.id) == about => {
                    due.push((record.address.clone(), action, record.sender.clone()));
                }
                other => self.wrong.push(format!("{key:?} is reported, and {:?} is owed", other.0)),
            }
        }
        let Some(new) = report else {
            return self.wrong.push(format!("{told:?} is written off"));
        };
        self.check_dsn(due, new);
        self.accepted(new, now);
    }

    /// Exactly the reports that are due, to the sender.
    fn check_dsn(&mut self, mut due: Vec<(String, &'static str, String)>, new: &NewMessage) {
        self.totals.dsn += 1;
        if new.message.envelope.reverse_path.is_some() {
            self.wrong.push(format!("DSN {} has a sender", new.message.id));
        }
        let to = new.recipients.first().map_or("", |r| r.recipient.address.as_str());
        let text = String::from_utf8_lossy(&new.head).into_owned();
        let mut about = String::new();
        let mut named = 0;
        for line in text.lines() {
            if let Some(address) = line.strip_prefix("Final-Recipient: rfc822; ") {
                about = address.to_owned();
            } else if let Some(action) = line.strip_prefix("Action: ") {
                named += 1;
                let fits = |(a, x, s): &(String, &str, String)| *a == about && *x == action && s == to;
                match due.iter().position(fits) {
                    Some(at) => drop(due.swap_remove(at)),
                    None => self.wrong.push(format!("a DSN to {to} that is not due: {about} {action}")),
                }
            }
        }
        if named == 0 || new.recipients.len() != 1 {
            self.wrong.push(format!("a DSN about nobody, or to {} recipients", new.recipients.len()));
        }
        for (address, action, sender) in &due {
            self.wrong.push(format!("no DSN to {sender}: {address} {action}"));
        }
    }

    /// An operator did something to these; `rows` is what is there of each now.
    pub fn operated(
        &mut self,
        op: Operation,
        key: RecipientKey,
        row: Option<&(RecipientKey, State, Row)>,
        now: Timestamp,
    ) {
        let Some(record) = self.records.get_mut(&key) else { return };
        match (record.fate, row) {
            (None, None) if op == Operation::Cancel => {
                record.fate = Some((Fate::Cancelled, now.0));
                self.totals.cancelled += 1;
            }
            (Some((Fate::Failed, _)), None) if op == Operation::Cancel => record.fate = Some((Fate::Cancelled, now.0)),
            // A dead letter lives again.
            (Some((Fate::Failed, _)), Some((_, state, _))) if op == Operation::Retry && *state != State::Failed => {
                record.fate = None;
                record.since = now.0;
            }
            (None, Some(_)) => record.since = now.0,
            _ => {}
        }
    }

    /// A receiver took a message.
    pub fn taken(&mut self, id: QueueId, address: &str, began: i64, began_at: Instant, told: Mark) {
        let life = self.life;
        let from = RecipientKey { id, index: 0 };
        let found =
            self.records.range_mut(from..).take_while(|(key, _)| key.id == id).find(|(_, r)| r.address == address);
        let Some((key, record)) = found else {
            self.wrong.push(format!("{id} arrived for {address}, which is not in the queue"));
            return;
        };
        if let Some((fate, at)) = record.fate
            && at < began
        {
            self.wrong.push(format!("{key:?} {address} was {fate:?} at {at} and is sent at {began}"));
        }
        // Of another life the relay remembers what it settled, and that is its fate.
        let known = |taken: &&Taken| taken.life == life && taken.told().is_some_and(|at| at < began_at);
        if record.taken.iter().any(|taken| known(&taken)) {
            self.wrong.push(format!("{key:?} {address} is sent again, and the relay knew that it had arrived"));
        }
        self.totals.twice += u64::from(!record.taken.is_empty());
        record.taken.push(Taken { life, told });
    }

    /// Compares with what an inspection of the whole queue gave.
    pub fn audit(&mut self, rows: &[(RecipientKey, State, Row)], counts: Counts, now: Timestamp) {
        let mut there: BTreeMap<RecipientKey, State> = BTreeMap::new();
        for (key, state, _) in rows {
            if there.insert(*key, *state).is_some() {
                self.wrong.push(format!("{key:?} is listed twice"));
            }
        }
        let of = |state| there.values().filter(|s| **s == state).count() as u64;
        let seen = Counts {
            messages: there.keys().chain(self.owed.keys()).map(|key| key.id).collect::<BTreeSet<_>>().len() as u64,
            owed: self.owed.len() as u64,
            queued: of(State::Queued),
            leased: of(State::Leased),
            held: of(State::Held),
            failed: of(State::Failed),
            uncertain: of(State::Uncertain),
        };
        if seen != counts {
            self.wrong.push(format!("the tally says {counts:?}, the list {seen:?}"));
        }
        for (key, record) in &self.records {
            let state = there.remove(key);
            let right = match (record.fate, state) {
                (None, Some(state)) => state != State::Failed,
                (Some((Fate::Delivered | Fate::Cancelled, _)), None) => true,
                (Some((Fate::Failed, _)), Some(state)) => state == State::Failed,
                (Some((Fate::Failed, at)), None) => at + self.keep_failed <= now.0,
                _ => false,
            };
            if !right {
                self.wrong.push(format!("{key:?} {} should be {:?}, is {state:?}", record.address, record.fate));
            }
            let waited = now.0 - record.since.max(self.quiet_since);
            if record.calm && record.fate.is_none() && waited > PROMPT && state != Some(State::Held) {
                self.wrong
                    .push(format!("{key:?} {} of the calm provider waits {waited} ms ({state:?})", record.address));
            }
        }
        for key in there.keys() {
            self.wrong.push(format!("{key:?} is in the queue and was never taken"));
        }
        // A trouble of the store may have made it wait.
        for (key, (due, action)) in &self.owed {
            let late = now.0 - due.0.max(self.quiet_since);
            if late > PROMPT {
                self.wrong.push(format!("the report on {key:?} ({action}) is {late} ms late"));
            }
        }
    }

    /// Recipients that were accepted until then and have no fate, and reports that were owed then.
    pub fn open(&self, until: Timestamp) -> Vec<String> {
        let open = self.records.iter().filter(|(_, r)| r.fate.is_none() && r.accepted <= until.0);
        let owed = self.owed.iter().filter(|(_, (due, _))| *due <= until.after(MINUTE));
        let open = open.map(|(key, r)| format!("{} {}", key.id, r.address));
        open.chain(owed.map(|(key, (_, action))| format!("report on {key:?}: {action}"))).collect()
    }
}

/// As a DSN says it.
fn action(action: Action) -> &'static str {
    match action {
        Action::Failed => "failed",
        Action::Delayed => "delayed",
        Action::Relayed => "relayed",
    }
}
