//! From a transaction and its finished body to the reply: the last step of both engines, and the
//! only place where a listener says that a message was accepted (invariant 1).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io::Write as _;
use std::sync::Arc;

use tokio::time::Instant;
use tracing::{error, info, warn};

use super::Intake;
use super::arrivals::{Arrivals, Counted, Reached, Sending};
use super::dedupe::{Dedupe, Once};
use super::draft::Draft;
use super::login::Logins;
use super::memory::Charge;
use super::policy::{LOCKED, NO_ROOM_FOR_RECIPIENTS, OVER_LIMIT, Policy, never_fits};
use super::rewriting::Rewriting;
use crate::clock::Timestamp;
use crate::config::{self, ReceivedSays, Rewritten, User};
use crate::mail::{
    Address, BodyKind, Caller, Envelope, Forward, Message, Notify, Orcpt, Origin, QueueId, Recipient, TlsWish, Trace,
};
use crate::observe;
use crate::queue::{QueueError, Spool};
use crate::smtp::Reply;

/// Recipients named in a log line; the others are counted.
const LOGGED_RECIPIENTS: usize = 3;

/// What all sessions of a listener share.
pub(super) struct Shared {
    pub listener: Arc<config::Listener>,
    pub hostname: Arc<str>,
    pub policy: Policy,
    pub intake: Arc<dyn Intake>,
    pub dedupe: Option<Dedupe>,
    pub logins: Arc<Logins>,
    pub arrivals: Arc<Arrivals>,
    /// The name of a user where there is none.
    nobody: Arc<str>,
}

/// The client of a session.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub caller: Caller,
    /// Name given in HELO or EHLO, printable; empty without one.
    pub helo: Arc<str>,
    /// It said EHLO.
    pub esmtp: bool,
    /// What XFORWARD told of the client in front, for the log of the next message.
    pub forwarded: Option<Arc<str>>,
    /// `TLSv1.3`, `TLSv1.2`, or empty in clear text.
    pub tls: &'static str,
    /// As whom it has logged in.
    pub user: Option<Arc<User>>,
}

impl Client {
    /// One who has said nothing yet.
    pub fn new(caller: Caller) -> Client {
        Client { caller, helo: "".into(), esmtp: false, tls: "", forwarded: None, user: None }
    }

    /// Who sends with this reverse-path, for limits on what comes in.
    pub fn sending<'a>(&'a self, sender: Option<&'a Address>) -> Sending<'a> {
        Sending { user: self.user_name().unwrap_or_default(), client: self.caller.ip(), sender }
    }

    /// The name of its user, for the log.
    fn user_name(&self) -> Option<&str> {
        self.user.as_ref().map(|user| &*user.name)
    }
}

/// A mail transaction (RFC 5321 §3.3) from MAIL on.
#[derive(Debug)]
pub(super) struct Transaction {
    pub envelope: Envelope,
    pub recipients: Vec<Recipient>,
    /// What the reverse-path was before `[[rewrite]]`, for the log; in a box, since it is rare.
    pub sender_was: Option<Box<Address>>,
    /// Names of aliases that led to recipients, for the log.
    pub aliases: String,
    /// Where the recipient with this hash is in `recipients`; kept from the second on.
    known: HashMap<u64, usize>,
    /// `SIZE=`.
    pub announced: u64,
    /// A recipient was refused.
    pub refused: bool,
    /// MAIL had MT-PRIORITY (RFC 6710): header fields are not asked.
    pub priority_given: bool,
    /// MAIL had HOLDFOR or HOLDUNTIL (RFC 4865): what the field says does not count.
    pub hold_given: bool,
    pub began: Instant,
    /// Bytes that the recipients take so far, and the memory for them.
    envelope_bytes: u64,
    memory: Charge,
}

/// What the recipients of a message take at most before they are counted, and in which steps.
const ENVELOPE_STEP: u64 = 16 * 1024;

/// What it costs to know a recipient again, roughly, in bytes.
const KNOWN_COST: usize = 32;

impl Transaction {
    pub fn new(envelope: Envelope, announced: u64, memory: Charge) -> Transaction {
        Transaction {
            envelope,
            recipients: Vec::new(),
            sender_was: None,
            aliases: String::new(),
            known: HashMap::new(),
            announced,
            refused: false,
            priority_given: false,
            hold_given: false,
            began: Instant::now(),
            envelope_bytes: 0,
            memory,
        }
    }

    /// With the reverse-path that a `[[rewrite]]` gives it.
    pub fn sent_as(mut self, rewritten: Option<Rewritten>) -> Transaction {
        if let Some(Rewritten { was, is, .. }) = rewritten {
            (self.envelope.reverse_path, self.sender_was) = (Some(is), Some(Box::new(was)));
        }
        self
    }

    /// Adds those who get a copy, whatever limits there are on recipients: nobody hears if it fails.
    fn add_copies(&mut self, listener: &config::Listener, user: &str) -> u32 {
        let had = self.recipients.len();
        for copy in &*listener.copies {
            let recipients = self.recipients.iter().take(had).map(|recipient| &recipient.address);
            if !copy.is_for(self.envelope.reverse_path.as_ref(), recipients, user) {
                continue;
            }
            let to = listener.sandbox.as_ref().map_or(&copy.to, |sandbox| sandbox.instead_of(&copy.to));
            if !self.has(to) {
                self.recipients.push(Recipient { notify: Notify::NEVER, copy: true, ..Recipient::new(to.clone()) });
            }
        }
        u32::try_from(self.recipients.len() - had).unwrap_or(u32::MAX)
    }

    /// Takes what a RCPT leads to, if there is memory for it. A recipient that the transaction has already
    /// is not taken twice, whatever the case of its domain; the parameters of the first RCPT hold.
    ///
    /// # Errors
    /// The reply: the client sends the rest in another transaction (RFC 5321 §4.5.3.1.10).
    pub fn add(&mut self, forward: &Forward, notify: Notify, orcpt: Option<&Orcpt>) -> Result<(), Reply> {
        let had = self.recipients.len();
        for address in forward.addresses() {
            if !self.has(address) {
                let recipient = Recipient { notify, orcpt: orcpt.cloned(), ..Recipient::new(address.clone()) };
                if let Err(reply) = self.charge(&recipient) {
                    // None of what one RCPT leads to, rather than a part of it.
                    self.recipients.truncate(had);
                    self.known.retain(|_, at| *at < had);
                    return Err(reply);
                }
                self.recipients.push(recipient);
            }
        }
        // One that adds nothing is not noted either: there may be any number of these.
        if let Some(alias) = forward.alias().filter(|_| self.recipients.len() > had) {
            if !self.aliases.is_empty() {
                self.aliases.push(' ');
            }
            self.aliases.push_str(alias);
        }
        Ok(())
    }

    /// Has memory for one more recipient.
    fn charge(&mut self, recipient: &Recipient) -> Result<(), Reply> {
        let texts =
            recipient.address.as_str().len() + recipient.orcpt.as_ref().map_or(0, |o| o.kind.len() + o.address.len());
        let bytes = (size_of::<Recipient>() + KNOWN_COST + texts) as u64;
        let (before, after) = (self.envelope_bytes / ENVELOPE_STEP, (self.envelope_bytes + bytes) / ENVELOPE_STEP);
        if after > before && !self.memory.add((after - before) * ENVELOPE_STEP) {
            return Err(NO_ROOM_FOR_RECIPIENTS);
        }
        self.envelope_bytes += bytes;
        Ok(())
    }

    /// Whether it has this recipient; notes it if not.
    fn has(&mut self, address: &Address) -> bool {
        if self.recipients.is_empty() {
            return false;
        }
        if self.known.is_empty()
            && let Some(first) = self.recipients.first()
        {
            self.known.insert(self.hash(&first.address), 0);
        }
        let (hash, next) = (self.hash(address), self.recipients.len());
        match self.known.entry(hash) {
            Entry::Vacant(free) => {
                free.insert(next);
                false
            }
            // Two addresses with one hash are two recipients.
            Entry::Occupied(at) => self.recipients.get(*at.get()).is_some_and(|r| same(&r.address, address)),
        }
    }

    /// Of local part and domain, the domain without case; with keys of this transaction's own.
    fn hash(&self, address: &Address) -> u64 {
        let mut hasher = self.known.hasher().build_hasher();
        hasher.write(address.local().as_bytes());
        address.domain().bytes().for_each(|b| hasher.write_u8(b.to_ascii_lowercase()));
        hasher.finish()
    }

    /// The first few recipients, for a log line.
    fn some_recipients(&self) -> String {
        let mut text = String::new();
        for recipient in self.recipients.iter().take(LOGGED_RECIPIENTS) {
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(recipient.address.as_str());
        }
        if self.recipients.len() > LOGGED_RECIPIENTS {
            text.push_str(" …");
        }
        text
    }
}

/// One mailbox: a domain has no case (RFC 5321 §2.4).
fn same(a: &Address, b: &Address) -> bool {
    a.local() == b.local() && a.domain().eq_ignore_ascii_case(b.domain())
}

impl Shared {
    pub fn new(listener: Arc<config::Listener>, hostname: &str, intake: Arc<dyn Intake>) -> Shared {
        let dedupe = (!listener.dedupe.is_zero()).then(|| Dedupe::new(listener.dedupe, intake.clock()));
        let logins = intake.logins().cloned().unwrap_or_default();
        let arrivals = intake.arrivals().cloned().unwrap_or_default();
        Shared {
            policy: Policy::new(listener.clone()),
            hostname: hostname.into(),
            listener,
            intake,
            dedupe,
            logins,
            arrivals,
            nobody: "".into(),
        }
    }

    pub fn queue(&self) -> &dyn Spool {
        self.intake.spool()
    }

    /// Starts the body of a transaction.
    pub fn draft(&self, client: &Client, tx: &Transaction) -> Draft {
        let now: Timestamp = self.intake.clock().now();
        let recipient = match tx.recipients.as_slice() {
            [only] => Some(&only.address),
            _ => None,
        };
        let trace = Trace {
            helo: &client.helo,
            caller: client.caller,
            hostname: &self.hostname,
            esmtp: client.esmtp,
            tls: !client.tls.is_empty(),
            authenticated: client.user.is_some(),
            smtputf8: tx.envelope.smtputf8,
            sender: tx.envelope.reverse_path.as_ref(),
            minimal: self.listener.received == ReceivedSays::Minimal,
            recipient,
        };
        let hash = self.dedupe.as_ref().map(|d| d.begin(&tx.envelope, &tx.recipients));
        let most = self.policy.max_message_size(client.user.as_deref());
        let draft = Draft::new(self.queue().next_id(now), now, &trace, most, tx.announced, hash)
            .with_max_hops(self.listener.max_hops)
            .with_max_header(self.listener.max_header)
            .with_send_at(self.listener.future_release, tx.hold_given)
            .with_rewriting(Rewriting::of(&self.listener, client.user.as_ref()));
        match tx.envelope.body {
            BodyKind::BinaryMime => draft.with_exact_octets(),
            BodyKind::SevenBit | BodyKind::EightBitMime => draft,
        }
    }

    /// Queues a complete message, or says why not. `failed`: the queue failed while it came in.
    pub async fn submit(
        &self,
        client: &Client,
        mut tx: Transaction,
        mut draft: Draft,
        failed: Option<QueueError>,
    ) -> Result<Accepted, Reply> {
        // What the log needs; all else goes on into the queue without a copy.
        let (sender, recipients) = (tx.envelope.reverse_path.clone(), tx.some_recipients());
        let sender_was = tx.sender_was.take();
        let aliases = tx.aliases.clone();
        let alias = (!aliases.is_empty()).then_some(&*aliases);
        let (sender, recipients) = (sender.as_ref().map_or("", Address::as_str), &*recipients);
        let (count, size, began) = (tx.recipients.len(), draft.content(), tx.began);
        let requiretls = (tx.envelope.tls == TlsWish::Required).then_some(true);
        let mut copies = 0_u32;
        let result = match failed {
            Some(error) => {
                draft.abandon(self.queue()).await;
                Err(Failure::Queue(error))
            }
            None => match self.arrivals.take(client.sending(tx.envelope.reverse_path.as_ref()), count) {
                Ok(counted) => {
                    copies = tx.add_copies(&self.listener, client.user_name().unwrap_or_default());
                    let stored = self.store(client, tx, &mut draft, held(client, &counted)).await;
                    if !matches!(stored, Ok(Once::First(_))) {
                        self.arrivals.give_back(&counted);
                    }
                    stored
                }
                Err(reached) => {
                    draft.abandon(self.queue()).await;
                    // In a box, since it is rare: each message has room for what may come of it.
                    Err(Failure::Refused(Box::pin(self.over(client, reached)).await))
                }
            },
        };
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        match result {
            Ok(Once::First(id)) => {
                let forwarded = client.forwarded.as_deref();
                let (sender_was, copies) =
                    (sender_was.as_ref().map(|was| was.as_str()), (copies > 0).then_some(copies));
                info!(%id, sender, sender_was, count, recipients, copies, alias, client = %client.caller, user = client.user_name(), forwarded, helo = &*client.helo, tls = client.tls,
                    requiretls, size, took_ms, "accepted");
                Ok(Accepted(id))
            }
            Ok(Once::Again(id)) => {
                info!(%id, sender, count, recipients, client = %client.caller, user = client.user_name(), helo = &*client.helo, tls = client.tls, size,
                    took_ms, "sent again, already accepted");
                Ok(Accepted(id))
            }
            Err(Failure::Refused(reply)) => {
                info!(sender, count, recipients, client = %client.caller, helo = &*client.helo, size, took_ms, %reply, "refused");
                Err(reply)
            }
            Err(Failure::Queue(error)) => {
                let reply = Policy::queue_error(&error);
                warn!(sender, count, recipients, client = %client.caller, helo = &*client.helo, size, took_ms, %reply, %error, "refused");
                Err(reply)
            }
        }
    }

    /// What a client hears whose message is over a limit on what comes in, which may lock its user.
    async fn over(&self, client: &Client, reached: Reached) -> Reply {
        let (limit, what) = (reached.limit.conditions(), reached.what);
        let user = client.user_name().unwrap_or_default();
        if reached.limit.over != config::Over::Lock || user.is_empty() {
            return if reached.never { never_fits(&what) } else { OVER_LIMIT };
        }
        let (why, now) = (format!("more than {what} ({limit})"), self.intake.clock().now());
        let stored = self.arrivals.lock(user, &why, now, self.intake.values()).await;
        error!(user, client = %client.caller, limit, what, "user locked: too many messages; `mailweir user unlock` ends it");
        if let Err(error) = stored {
            error!(user, %error, "the lock of a user could not be stored: it ends with this process");
        }
        LOCKED
    }

    /// Stores it; `held`: why nothing of it leaves.
    async fn store(
        &self,
        client: &Client,
        tx: Transaction,
        draft: &mut Draft,
        held: Option<Arc<str>>,
    ) -> Result<Once, Failure> {
        let content = draft.content();
        let finished = match draft.finish(self.queue()).await {
            Ok(Ok(finished)) => finished,
            Ok(Err(why)) => return Err(Failure::Refused(Policy::refusal(why))),
            Err(error) => {
                draft.abandon(self.queue()).await;
                return Err(Failure::Queue(error));
            }
        };
        let (own, fingerprint) = (finished.id, finished.fingerprint);
        let mut envelope = tx.envelope;
        if !tx.priority_given {
            envelope.priority = finished.priority.unwrap_or(0);
        }
        if !tx.hold_given {
            envelope.release = finished.release;
        }
        // The parameter counts, whatever the header says (RFC 8689 §4.1).
        if finished.tls_optional && envelope.tls == TlsWish::Usual {
            envelope.tls = TlsWish::Optional;
        }
        let message = Message {
            id: finished.id,
            received: finished.received,
            envelope,
            origin: Origin::Client {
                ip: client.caller.ip(),
                helo: client.helo.clone(),
                listener: self.listener.name.clone(),
                user: client.user.as_ref().map_or_else(|| self.nobody.clone(), |user| user.name.clone()),
            },
            size: finished.size,
            traits: finished.traits,
        };
        let accept = self.intake.accept(message, tx.recipients, finished.head, held);
        let once = match (&self.dedupe, fingerprint) {
            (Some(dedupe), Some(fingerprint)) => dedupe.once(fingerprint, content, accept).await,
            _ => accept.await.map(Once::First),
        }
        .map_err(Failure::Queue)?;
        if let Once::Again(_) = once {
            // This copy will not be queued.
            self.queue().unspill(own).await;
        }
        Ok(once)
    }
}

/// The message is durable under this id.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub(super) struct Accepted(pub QueueId);

impl Accepted {
    /// The reply that hands the responsibility over to us (RFC 5321 §4.1.1.4).
    pub fn reply(self) -> Reply {
        Reply::with(250, "2.0.0", self.to_string())
    }

    /// Appends that reply.
    pub fn write_to(self, out: &mut Vec<u8>) {
        // Writing to a Vec cannot fail.
        let _ = write!(out, "250 2.0.0 {self}\r\n");
    }
}

impl fmt::Display for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ok: queued as {}", self.0)
    }
}

enum Failure {
    Refused(Reply),
    Queue(QueueError),
}

/// Why a message that was counted is held, if so.
fn held(client: &Client, counted: &Counted) -> Option<Arc<str>> {
    let reached = counted.held.as_ref()?;
    let why = format!("held: more than {} ({})", reached.what, reached.limit.conditions());
    if let Some(times) = observe::seldom("held", &why) {
        let user = client.user_name();
        warn!(user, client = %client.caller, why, times, "more mail than a limit says: it is taken, and held");
    }
    Some(why.into())
}
