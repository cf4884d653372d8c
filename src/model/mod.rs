//! How a provider behaves: caps on messages, connections and recipients, refusals that are about other
//! things than our pace, failures, and caps that change. Pure: no sockets, `now` is an argument (time since
//! the start, which never goes back), randomness comes from a seed.
//!
//! `mailweir sink` puts it behind a socket, `mailweir simulate` behind the scheduler on virtual
//! time. Invariants: what it accepts never exceeds a cap in any of its windows, and what fits is
//! accepted. What is refused counts in no window.

mod cap;
pub mod caps;
mod content;
mod greylist;
mod keyed;
mod limit;
mod log;
pub mod persona;
mod said;
mod setting;
mod told;
pub mod window;

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

pub use cap::Cap;
pub use caps::{Caps, Change, Fail, Setting, Trouble};
pub use content::Content;
use content::{hash, mixed};
use greylist::{Greylist, Triple};
use keyed::Keyed;
use limit::Counters;
pub use limit::{Kind, Limit};
pub use log::{Log, Second, Sender};
pub use persona::{At, PERSONAS, Persona};
use said::Places;
pub use said::Said;
pub use told::enforced;
pub use window::Window;

use crate::config::Count;

/// What the provider does instead of accepting.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Because of which cap.
    pub by: Cap,
    /// What it says; `None`: it closes without a word.
    pub reply: Option<Said>,
    /// It closes the connection.
    pub close: bool,
}

/// A connection as the provider sees it. Give it back to [`Model::disconnect`].
#[derive(Debug)]
pub struct Connection {
    client: IpAddr,
    /// Of the current transaction.
    sender: String,
    /// Messages whose data ended.
    messages: u32,
    /// The same, by the hash of their sender.
    by_sender: HashMap<u64, u32>,
    /// Recipients accepted in the current transaction, and the last of them.
    recipients: u32,
    last: String,
    /// The current transaction is in the windows already.
    counted: bool,
    /// Recipients and bytes accepted in all.
    all_recipients: u32,
    bytes: u64,
    /// Recipients that do not exist.
    errors: u32,
}

impl Connection {
    /// Messages whose data ended on this connection, accepted or not.
    pub fn messages(&self) -> u32 {
        self.messages
    }
}

/// A provider.
#[derive(Debug)]
pub struct Model {
    persona: &'static Persona,
    caps: Caps,
    changes: VecDeque<Change>,
    rates: Counters,
    by_sender: Keyed,
    by_recipient: Keyed,
    bytes: Counters,
    connect_rates: Counters,
    greylist: Greylist,
    /// Messages that were refused after their data the first time.
    greylist_data: Greylist,
    rng: fastrand::Rng,
    /// Of what is decided by hash.
    seed: u64,
    connections: u32,
    refusals: u64,
    log: Option<Log>,
}

impl Model {
    /// A provider with the texts of `persona` that enforces `caps`, then `changes`.
    pub fn new(persona: &'static Persona, caps: Caps, mut changes: Vec<Change>, seed: u64) -> Model {
        changes.sort_by_key(|change| change.at);
        let mut model = Model {
            persona,
            caps,
            changes: changes.into(),
            rates: Counters::default(),
            by_sender: Keyed::default(),
            by_recipient: Keyed::default(),
            bytes: Counters::default(),
            connect_rates: Counters::default(),
            greylist: Greylist::default(),
            greylist_data: Greylist::default(),
            rng: fastrand::Rng::with_seed(seed),
            seed,
            connections: 0,
            refusals: 0,
            log: None,
        };
        model.count();
        model
    }

    /// Writes down from now on what it does, second by second.
    pub fn watch(&mut self) {
        self.log = Some(Log::default());
    }

    /// What was written down since [`Model::watch`].
    pub fn take_log(&mut self) -> Option<Log> {
        self.log.take()
    }

    /// How long each answer takes at `now`.
    pub fn latency(&mut self, now: Duration) -> Duration {
        self.apply(now);
        self.caps.latency
    }

    /// The caps in force at `now`.
    pub fn caps(&mut self, now: Duration) -> &Caps {
        self.apply(now);
        &self.caps
    }

    /// Connections open.
    pub fn connections(&self) -> u32 {
        self.connections
    }

    /// A client connects.
    ///
    /// # Errors
    /// The greeting that turns it away; the connection counts nowhere.
    pub fn connect(&mut self, now: Duration, client: IpAddr) -> Result<Connection, Refusal> {
        self.apply(now);
        let by = if matches!(self.caps.trouble, Trouble::Greeting | Trouble::Closed) {
            Some(Cap::Trouble)
        } else if self.caps.busy > 0.0 && self.rng.f64() < self.caps.busy {
            Some(Cap::Busy)
        } else if self.connections >= self.caps.connections {
            Some(Cap::Connections)
        } else {
            self.connect_rates.full(now, 1).map(Cap::ConnectRate)
        };
        if let Some(by) = by {
            return Err(Refusal { close: true, ..self.refuse(now, by, "", "") });
        }
        self.connect_rates.take(now, 1);
        self.connections += 1;
        Ok(Connection {
            client,
            sender: String::new(),
            messages: 0,
            by_sender: HashMap::new(),
            recipients: 0,
            last: String::new(),
            counted: false,
            all_recipients: 0,
            bytes: 0,
            errors: 0,
        })
    }

    /// A connection ended.
    pub fn disconnect(&mut self, _connection: Connection) {
        self.connections = self.connections.saturating_sub(1);
    }

    /// MAIL from `sender`.
    ///
    /// # Errors
    /// How it is refused.
    pub fn mail(&mut self, now: Duration, connection: &mut Connection, sender: &str) -> Result<(), Refusal> {
        self.apply(now);
        sender.clone_into(&mut connection.sender);
        (connection.recipients, connection.counted) = (0, false);
        let caps = &self.caps;
        let of_sender = connection.by_sender.get(&hash(sender)).copied().unwrap_or(0);
        let by = if caps.trouble != Trouble::None {
            Some(Cap::Trouble)
        } else if !caps.blocked_sender.is_empty() && sender.eq_ignore_ascii_case(&caps.blocked_sender) {
            Some(Cap::BlockedSender)
        } else if of_sender >= caps.sender_per_connection {
            Some(Cap::SenderPerConnection)
        } else {
            self.used_up(connection, At::Mail, 0)
        };
        match by {
            Some(by) => Err(self.refuse(now, by, sender, "")),
            None => self.pace(now, connection, At::Mail, ""),
        }
    }

    /// RCPT in the current transaction.
    ///
    /// # Errors
    /// How it is refused.
    pub fn rcpt(&mut self, now: Duration, connection: &mut Connection, recipient: &str) -> Result<(), Refusal> {
        self.apply(now);
        if let Some(by) = self.used_up(connection, At::Rcpt, 0) {
            return Err(self.refuse(now, by, &connection.sender, recipient));
        }
        if let Some(by) = self.about_recipient(now, connection, recipient) {
            return Err(self.refuse(now, by, &connection.sender, recipient));
        }
        self.pace(now, connection, At::Rcpt, recipient)?;
        self.by_recipient.take(now, hash(recipient), 1);
        connection.recipients += 1;
        recipient.clone_into(&mut connection.last);
        Ok(())
    }

    /// DATA, or the first BDAT.
    ///
    /// # Errors
    /// How it is refused, for all recipients.
    pub fn data(&mut self, now: Duration, connection: &mut Connection) -> Result<(), Refusal> {
        self.apply(now);
        let last = std::mem::take(&mut connection.last);
        if let Some(by) = self.used_up(connection, At::Data, 0) {
            return Err(self.refuse(now, by, &connection.sender, &last));
        }
        let paced = self.pace(now, connection, At::Data, &last);
        connection.last = last;
        paced
    }

    /// The data of the message has ended.
    ///
    /// # Errors
    /// How it is refused, for all its recipients.
    pub fn end(&mut self, now: Duration, connection: &mut Connection, content: Content) -> Result<(), Refusal> {
        self.apply(now);
        let used_up = self.used_up(connection, At::End, content.bytes);
        connection.messages = connection.messages.saturating_add(1);
        if self.caps.sender_per_connection != u32::MAX {
            *connection.by_sender.entry(hash(&connection.sender)).or_default() += 1;
        }
        connection.bytes = connection.bytes.saturating_add(content.bytes);
        let last = std::mem::take(&mut connection.last);
        let (share, wait) = self.caps.greylist_data;
        let by = if used_up.is_some() {
            used_up
        } else if self.chosen(content.hash, Cap::Content, self.caps.content) {
            Some(Cap::Content)
        } else if self.chosen(content.hash, Cap::GreylistData, share)
            && !self.greylist_data.passes(Triple::of(content.hash), now, wait)
        {
            Some(Cap::GreylistData)
        } else {
            self.bytes.full(now, content.bytes).map(Cap::ByteRate)
        };
        if let Some(by) = by {
            return Err(self.refuse(now, by, &connection.sender, &last));
        }
        self.pace(now, connection, At::End, &last)?;
        self.bytes.take(now, content.bytes);
        connection.all_recipients = connection.all_recipients.saturating_add(connection.recipients);
        connection.recipients = 0;
        if let Some(log) = &mut self.log {
            log.accepted(now, &connection.sender);
        }
        Ok(())
    }

    /// What of this connection is used up, where that is looked at; `more` bytes have come that are not yet counted.
    fn used_up(&self, connection: &Connection, at: At, more: u64) -> Option<Cap> {
        let caps = &self.caps;
        let bytes = connection.bytes.saturating_add(more);
        if at != caps.connection_at {
            None
        } else if connection.messages >= caps.messages_per_connection {
            Some(Cap::MessagesPerConnection)
        } else if connection.all_recipients >= caps.recipients_per_connection {
            Some(Cap::RecipientsPerConnection)
        } else {
            // What has not come yet may be small.
            let full = bytes > u64::from(caps.bytes_per_connection)
                || more == 0 && bytes == u64::from(caps.bytes_per_connection);
            full.then_some(Cap::BytesPerConnection)
        }
    }

    /// What stands against a recipient, but for the pace.
    fn about_recipient(&mut self, now: Duration, connection: &mut Connection, recipient: &str) -> Option<Cap> {
        let whom = hash(recipient);
        if connection.recipients >= self.caps.recipients {
            return Some(Cap::Recipients);
        }
        if self.chosen(whom, Cap::UnknownRecipient, self.caps.unknown) {
            connection.errors = connection.errors.saturating_add(1);
            let last = connection.errors > self.caps.too_many_errors;
            return Some(if last { Cap::TooManyErrors } else { Cap::UnknownRecipient });
        }
        if self.chosen(whom, Cap::FullMailbox, self.caps.full) {
            return Some(Cap::FullMailbox);
        }
        if !self.caps.greylist.is_zero() {
            let triple = Triple::new(&connection.sender, recipient, connection.client);
            if !self.greylist.passes(triple, now, self.caps.greylist) {
                return Some(Cap::Greylist);
            }
        }
        if self.caps.fail_temporary + self.caps.fail_permanent > 0.0 {
            let drawn = self.rng.f64();
            if drawn < self.caps.fail_temporary {
                return Some(Cap::FailTemporary);
            }
            if drawn < self.caps.fail_temporary + self.caps.fail_permanent {
                return Some(Cap::FailPermanent);
            }
        }
        self.by_recipient.full(now, whom, 1).map(Cap::RecipientRate)
    }

    /// Messages or recipients of everybody and of this sender, where they are counted.
    fn pace(&mut self, now: Duration, connection: &mut Connection, at: At, recipient: &str) -> Result<(), Refusal> {
        let counts_at = match (self.caps.at.unwrap_or(self.persona.at), self.caps.count) {
            // Recipients are counted where they are known.
            (At::Mail, Count::Recipients) => At::Rcpt,
            (at, _) => at,
        };
        let n = match (at, self.caps.count) {
            _ if at != counts_at => return Ok(()),
            // The message is counted with its first recipient.
            (At::Rcpt, Count::Messages) if connection.counted => return Ok(()),
            (At::Rcpt, _) | (_, Count::Messages) => 1,
            (_, Count::Recipients) => u64::from(connection.recipients),
        };
        let key = hash(&connection.sender);
        let only = &self.caps.capped_sender;
        let capped = only.is_empty() || connection.sender.eq_ignore_ascii_case(only);
        let full = self.rates.full(now, n).map(Cap::Rate);
        match full.or_else(|| self.by_sender.full(now, key, n).filter(|_| capped).map(Cap::SenderRate)) {
            Some(by) => Err(self.refuse(now, by, &connection.sender, recipient)),
            None => {
                self.rates.take(now, n);
                self.by_sender.take(now, key, n);
                connection.counted = true;
                Ok(())
            }
        }
    }

    /// Whether `hash` is in a share, the same whenever it is asked.
    fn chosen(&self, hash: u64, by: Cap, share: f64) -> bool {
        let salt = by.topic().bytes().fold(self.seed, |salt, b| mixed(salt ^ u64::from(b)));
        share > 0.0 && ((mixed(hash ^ salt) >> 11) as f64 / (1u64 << 53) as f64) < share
    }

    fn refuse(&mut self, now: Duration, by: Cap, sender: &str, recipient: &str) -> Refusal {
        self.refusals += 1;
        if let Some(log) = &mut self.log {
            log.refused(now, by, (!recipient.is_empty()).then(|| hash(sender) ^ hash(recipient).rotate_left(1)));
        }
        let said = self.caps.say.get(by.topic()).cloned();
        let said = said.unwrap_or_else(|| by.text(self.persona).into());
        // Whoever is connected already hears of a trouble at its next message.
        let (silent, ends) = match (by, self.caps.trouble) {
            (Cap::Trouble, trouble) => (trouble == Trouble::Closed, trouble != Trouble::Mail),
            (by, _) if by.is_of_connection() => (self.caps.close_silently, !self.caps.connection_stays),
            (by, _) => (false, by.ends_connection()),
        };
        let places = Places { id: mixed(self.refusals ^ self.seed), sender, recipient };
        // RFC 5321 §3.8: 421 is the last word on a connection.
        let close = said.code() == 421 || ends || silent;
        Refusal { by, reply: (!silent).then(|| said.filled(places)), close }
    }

    /// Does the changes whose time has come. A window that stays keeps what it has seen.
    fn apply(&mut self, now: Duration) {
        while let Some(change) = self.changes.pop_front_if(|change| change.at <= now) {
            for setting in &change.settings {
                self.caps.set(setting);
            }
            self.count();
        }
    }

    /// Counts what the caps say, going on with what was seen.
    fn count(&mut self) {
        self.rates = Counters::new(&self.caps.rates, std::mem::take(&mut self.rates));
        self.bytes = Counters::new(&self.caps.byte_rates, std::mem::take(&mut self.bytes));
        self.connect_rates = Counters::new(&self.caps.connect_rates, std::mem::take(&mut self.connect_rates));
        self.by_sender.set(&self.caps.sender_rates);
        self.by_recipient.set(&self.caps.recipient_rates);
    }
}

#[cfg(test)]
mod other_tests;
#[cfg(test)]
mod tests;
