//! How a provider behaves: caps on messages, connections and recipients, greylisting, failures,
//! and caps that change. Pure: no sockets, `now` is an argument (time since the start, which never
//! goes back), randomness comes from a seed.
//!
//! `mailweir sink` puts it behind a socket, `mailweir simulate` behind the scheduler on virtual
//! time. Invariant: what it accepts never exceeds a cap in any sliding window, and what fits is
//! accepted.

pub mod caps;
mod greylist;
pub mod persona;
pub mod window;

use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

pub use caps::{Caps, Change, Fail, Setting};
use greylist::{Greylist, Triple};
pub use persona::{At, PERSONAS, Persona};
pub use window::Window;

use crate::config::Count;
use crate::config::units::{Rate, Span};
use crate::smtp::Reply;

/// Windows of at least this length are quotas: they have a text of their own.
const QUOTA: Duration = Duration::from_secs(3600);

/// Which cap refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Cap {
    /// Messages or recipients in a window of this length.
    Rate(Duration),
    /// Connections at once.
    Connections,
    /// New connections in a window of this length.
    ConnectRate(Duration),
    /// Messages of one connection.
    MessagesPerConnection,
    /// Recipients of one message.
    Recipients,
    /// Greylisting.
    Greylist,
    /// Failed on purpose, for now.
    FailTemporary,
    /// Failed on purpose, for good.
    FailPermanent,
}

impl Cap {
    /// Whether it means "slow down", and not something about this recipient.
    pub fn throttles(self) -> bool {
        matches!(self, Cap::Rate(_) | Cap::Connections | Cap::ConnectRate(_) | Cap::MessagesPerConnection)
    }
}

impl fmt::Display for Cap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cap::Rate(per) => write!(f, "rate/{}", Span(*per)),
            Cap::Connections => f.write_str("connections"),
            Cap::ConnectRate(per) => write!(f, "connect-rate/{}", Span(*per)),
            Cap::MessagesPerConnection => f.write_str("messages-per-connection"),
            Cap::Recipients => f.write_str("recipients"),
            Cap::Greylist => f.write_str("greylist"),
            Cap::FailTemporary => f.write_str("fail/4xx"),
            Cap::FailPermanent => f.write_str("fail/5xx"),
        }
    }
}

/// What the provider does instead of accepting.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Because of which cap.
    pub by: Cap,
    /// What it says; `None`: it closes without a word.
    pub reply: Option<Reply>,
    /// It closes the connection.
    pub close: bool,
}

/// A connection as the provider sees it. Give it back to [`Model::disconnect`].
#[derive(Debug)]
pub struct Connection {
    client: IpAddr,
    /// Messages whose data ended.
    messages: u32,
    /// Recipients accepted in the current transaction.
    recipients: u32,
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
    rates: Vec<(u32, Window)>,
    connect_rates: Vec<(u32, Window)>,
    greylist: Greylist,
    rng: fastrand::Rng,
    connections: u32,
}

impl Model {
    /// A provider with the texts of `persona` that enforces `caps`, then `changes`.
    pub fn new(persona: &'static Persona, caps: Caps, mut changes: Vec<Change>, seed: u64) -> Model {
        changes.sort_by_key(|change| change.at);
        let (rates, connect_rates) = (windows(&caps.rates, Vec::new()), windows(&caps.connect_rates, Vec::new()));
        Model {
            persona,
            caps,
            changes: changes.into(),
            rates,
            connect_rates,
            greylist: Greylist::default(),
            rng: fastrand::Rng::with_seed(seed),
            connections: 0,
        }
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
        let refuse = |by, text: persona::Text| Refusal { by, reply: Some(text.reply()), close: true };
        if self.connections >= self.caps.connections {
            return Err(refuse(Cap::Connections, self.persona.connections));
        }
        if let Some(per) = full(&mut self.connect_rates, now, 1) {
            return Err(refuse(Cap::ConnectRate(per), self.persona.connect_rate));
        }
        take(&mut self.connect_rates, now, 1);
        self.connections += 1;
        Ok(Connection { client, messages: 0, recipients: 0 })
    }

    /// A connection ended.
    pub fn disconnect(&mut self, _connection: Connection) {
        self.connections = self.connections.saturating_sub(1);
    }

    /// MAIL.
    ///
    /// # Errors
    /// How it is refused.
    pub fn mail(&mut self, now: Duration, connection: &mut Connection) -> Result<(), Refusal> {
        self.apply(now);
        connection.recipients = 0;
        if connection.messages >= self.caps.messages_per_connection {
            let reply = (!self.caps.close_silently).then(|| self.persona.per_connection.reply());
            return Err(Refusal { by: Cap::MessagesPerConnection, reply, close: true });
        }
        if self.counts_at() == At::Mail { self.take_rate(now, 1) } else { Ok(()) }
    }

    /// RCPT in a transaction of `sender`.
    ///
    /// # Errors
    /// How it is refused.
    pub fn rcpt(
        &mut self,
        now: Duration,
        connection: &mut Connection,
        sender: &str,
        recipient: &str,
    ) -> Result<(), Refusal> {
        self.apply(now);
        if connection.recipients >= self.caps.recipients {
            return Err(self.refuse(Cap::Recipients));
        }
        if !self.caps.greylist.is_zero() {
            let triple = Triple::new(sender, recipient, connection.client);
            if !self.greylist.passes(triple, now, self.caps.greylist) {
                return Err(self.refuse(Cap::Greylist));
            }
        }
        if self.caps.fail_temporary + self.caps.fail_permanent > 0.0 {
            let drawn = self.rng.f64();
            if drawn < self.caps.fail_temporary {
                return Err(self.refuse(Cap::FailTemporary));
            }
            if drawn < self.caps.fail_temporary + self.caps.fail_permanent {
                return Err(self.refuse(Cap::FailPermanent));
            }
        }
        if self.counts_at() == At::Rcpt {
            self.take_rate(now, 1)?;
        }
        connection.recipients += 1;
        Ok(())
    }

    /// The data of the message has ended.
    ///
    /// # Errors
    /// How it is refused, for all its recipients.
    pub fn end(&mut self, now: Duration, connection: &mut Connection) -> Result<(), Refusal> {
        self.apply(now);
        connection.messages = connection.messages.saturating_add(1);
        let recipients = std::mem::take(&mut connection.recipients);
        match (self.counts_at(), self.caps.count) {
            (At::End, Count::Recipients) => self.take_rate(now, u64::from(recipients)),
            (At::End, Count::Messages) => self.take_rate(now, 1),
            _ => Ok(()),
        }
    }

    /// Recipients are counted where they are known.
    fn counts_at(&self) -> At {
        match (self.persona.at, self.caps.count) {
            (At::Mail, Count::Recipients) => At::Rcpt,
            (At::Rcpt, Count::Messages) => At::Mail,
            (at, _) => at,
        }
    }

    fn take_rate(&mut self, now: Duration, n: u64) -> Result<(), Refusal> {
        match full(&mut self.rates, now, n) {
            Some(per) => Err(self.refuse(Cap::Rate(per))),
            None => {
                take(&mut self.rates, now, n);
                Ok(())
            }
        }
    }

    fn refuse(&self, by: Cap) -> Refusal {
        let p = self.persona;
        let text = match by {
            Cap::Rate(per) if per >= QUOTA => p.quota,
            Cap::Rate(_) => p.rate,
            Cap::Connections => p.connections,
            Cap::ConnectRate(_) => p.connect_rate,
            Cap::MessagesPerConnection => p.per_connection,
            Cap::Recipients => p.recipients,
            Cap::Greylist => p.greylist,
            Cap::FailTemporary => p.temporary,
            Cap::FailPermanent => p.permanent,
        };
        // RFC 5321 §3.8: 421 is the last word on a connection.
        Refusal { by, reply: Some(text.reply()), close: text.code == 421 }
    }

    /// Does the changes whose time has come. A window that stays keeps what it has seen.
    fn apply(&mut self, now: Duration) {
        while let Some(change) = self.changes.pop_front_if(|change| change.at <= now) {
            for setting in &change.settings {
                self.caps.set(setting);
            }
            self.rates = windows(&self.caps.rates, std::mem::take(&mut self.rates));
            self.connect_rates = windows(&self.caps.connect_rates, std::mem::take(&mut self.connect_rates));
        }
    }
}

/// A window for each rate; one of the same length as before goes on.
fn windows(rates: &[Rate], mut before: Vec<(u32, Window)>) -> Vec<(u32, Window)> {
    rates
        .iter()
        .map(|rate| match before.iter().position(|(_, w)| w.per() == rate.per) {
            Some(at) => (rate.count, before.swap_remove(at).1),
            None => (rate.count, Window::new(rate.per)),
        })
        .collect()
}

/// The first window without room for `n`.
fn full(windows: &mut [(u32, Window)], now: Duration, n: u64) -> Option<Duration> {
    windows.iter_mut().find_map(|(most, w)| (w.count(now) + n > u64::from(*most)).then(|| w.per()))
}

fn take(windows: &mut [(u32, Window)], now: Duration, n: u64) {
    for (_, window) in windows {
        window.add(now, n);
    }
}

#[cfg(test)]
mod tests;
