//! One transaction: MAIL, RCPT, DATA or BDAT, body, final reply; one fate for every recipient.
//!
//! Where PIPELINING is offered, everything up to DATA leaves in one write (RFC 2920), and where
//! CHUNKING is offered too, a body of one chunk goes with it (`BDAT n LAST`, RFC 3030): one round
//! trip a message. The replies are then read in the order of the commands; without PIPELINING the
//! same code writes each command just before it reads the reply.
//!
//! A message announced as BINARYMIME goes to a host that takes that as it is, by one BDAT for each chunk of it
//! (`chunks`); to any other only what [`crate::mail::convert`] has made lines of. Octets are never written behind DATA.
//! What a connection has to show before a body follows BDAT unasked: see `chunks`; whether a reply is the one to what was
//! asked: see `step`.
//!
//! Fates: a recipient gets its own refusal at [`Stage::Rcpt`]; whatever ends the transaction later
//! is the fate of all that are left. A connection on which something does not tally (a reply too
//! many, a positive reply to what must fail, different codes in one reply, 421) finishes its
//! transaction as far as it can and is not used again. Where replies and commands do not tally, no
//! recipient of the transaction keeps a refusal: it may have been the answer to another one.
//!
//! A refusal that speaks of an extension's command or parameter is nobody's fate: MAIL is repeated
//! without parameters, once, in another transaction (with a permit of its own), and a host that refuses BDAT gets the message again by DATA, on another
//! connection, since on this one what followed may have been taken for commands.
//!
//! What is refused in words on the order of commands is not about the message either: see `order`.
//!
//! A connection that breaks has its fact at the first command without a reply. With BDAT the whole
//! message is out by then, so that fact is [`Stage::Final`]: it may have arrived. The exception is
//! a reused connection that breaks before the first reply: a server that closed an idle connection
//! just as it was used again, which is common, while losing all replies at once is not.

use std::time::Duration;

use bytes::Bytes;
use lettre::transport::smtp::commands::{Data, Rset};
use tokio::time::Instant;

use super::awaited::GivenUp;
use super::command::{self, print};
use super::encode::Encoder;
use super::fact::{Event, Fact, Reply, Stage};
use super::reply::Received;
use super::session::Connection;
use super::step::{Form, Heard, MailHeard};
use super::wire::Written;
use super::{Report, Transaction};
use crate::crash;
use crate::mail::{BodyKind, Features, Recipient, TlsWish, in_ascii};

/// What ends a transaction and its connection.
pub(super) type End = (Stage, Event);

/// One fate for each recipient, given once; without the peer, which is the same for all.
pub(super) struct Fates(Vec<Option<Fact>>);

impl Fates {
    pub(super) fn set(&mut self, index: usize, stage: Stage, event: Event) {
        if let Some(slot) = self.0.get_mut(index) {
            slot.get_or_insert(Fact { stage, event, peer: None });
        }
    }

    /// The fate of everyone who has none yet.
    pub(super) fn rest(&mut self, stage: Stage, event: Event) {
        let mut open = self.0.iter_mut().filter(|slot| slot.is_none());
        let Some(first) = open.next() else { return };
        for slot in open {
            *slot = Some(Fact { stage, event: event.clone(), peer: None });
        }
        *first = Some(Fact { stage, event, peer: None });
    }

    /// Those of a transaction that came at this stage or later.
    pub(super) fn forget(&mut self, transaction: &[usize], from: Stage) {
        for index in transaction {
            if let Some(slot) = self.0.get_mut(*index) {
                *slot = slot.take().filter(|fact| fact.stage < from);
            }
        }
    }

    /// Those of a transaction so far.
    pub(super) fn of<'a>(&'a self, transaction: &'a [usize]) -> impl Iterator<Item = &'a Fact> {
        transaction.iter().filter_map(|index| self.0.get(*index)?.as_ref())
    }

    /// Somebody of it waits for the end.
    fn has_open(&self, transaction: &[usize]) -> bool {
        transaction.iter().any(|index| matches!(self.0.get(*index), Some(None)))
    }

    /// Positions of those who have none yet.
    fn open(&self) -> Vec<usize> {
        self.0.iter().enumerate().filter(|(_, fate)| fate.is_none()).map(|(i, _)| i).collect()
    }
}

/// A host that answers the first command of a batch and is silent then may have lost the others: some
/// read a command, and throw away what came with it.
fn lost_the_rest(stage: Stage, event: &Event) -> bool {
    matches!(stage, Stage::Rcpt | Stage::Data) && matches!(event, Event::Timeout(_))
}

impl Connection {
    /// Makes a transaction. Never fails as a whole: the report has one fact for each recipient.
    pub async fn send(&mut self, tx: &Transaction<'_>) -> Report {
        let started = Instant::now();
        let reused = self.sent > 0;
        self.message = (tx.message.id, tx.features().keys());
        let mut fates = Fates(vec![None; tx.recipients.len()]);
        // What ended before it began says nothing of the message, which was made for what the host offered then.
        let ready = self.unready.is_none();
        let gone = if ready { self.gone(tx).await } else { None };
        let begun = gone.is_none();
        if let Some((stage, event)) = gone {
            fates.rest(stage, event);
        }
        if ready {
            self.refuse_unsendable(tx, &mut fates);
        }
        let open = fates.open();
        if !open.is_empty() {
            let head = match tx.body.head() {
                Some(head) => Ok(head),
                None => tx.body.chunk(0).await,
            };
            match head {
                // Read before MAIL, so that a queue that fails leaves no transaction behind.
                Err(why) => fates.rest(Stage::Body, Event::Local(why)),
                Ok(head) => {
                    self.sent = self.sent.saturating_add(1);
                    if self.caps.limits.domains.is_some() {
                        let to = open.iter().filter_map(|index| tx.recipients.get(*index));
                        to.for_each(|recipient| self.domains.note(recipient.address.domain()));
                    }
                    self.all_out = false;
                    let mut heard = Heard::default();
                    let in_step = match self.transact(tx, &open, head, &mut fates, &mut heard).await {
                        Ok(()) => self.refusals_hold(&open, &mut fates, &heard).await,
                        Err(end) => self.ended(end, &open, &mut fates, &heard),
                    };
                    if let Some(mail) = heard.mail.filter(|_| in_step) {
                        self.learn_of_parameters(mail);
                    }
                    self.spare_the_disordered(tx.recipients, &open, &mut fates);
                    self.last_word.is_of(tx.message.id);
                    if in_step && self.usable && self.wire.is_pending() {
                        self.note_stray();
                    }
                }
            }
        }
        self.tell_how_it_goes(&fates, begun.then(|| tx.features()));
        let facts = fates
            .0
            .into_iter()
            .map(|fate| {
                let none = || Event::Local("the transaction gave no result".to_owned());
                let fact = fate.unwrap_or_else(|| Fact { stage: Stage::Mail, event: none(), peer: None });
                Fact { peer: Some(self.peer.clone()), ..fact }
            })
            .collect();
        Report { facts, dsn: self.caps.dsn, reused, took: started.elapsed() }
    }

    /// The transaction ended before its time, and the connection with it. Returns whether what was said until then can
    /// be relied on.
    fn ended(&mut self, (stage, event): End, open: &[usize], fates: &mut Fates, heard: &Heard) -> bool {
        self.usable = false;
        // It says that it leaves, and goes on all the same, with a message that is out: that may have arrived.
        let leaves = matches!(&event, Event::Reply(reply) if reply.code == 421);
        let (stage, event) = match leaves && self.all_out && self.wire.has_success() {
            true => (Stage::Final, Event::Garbled("replies behind a 421".to_owned())),
            false => (stage, event),
        };
        // Given up by this end before anything was out.
        let mut stage = if matches!(event, Event::LeftOut(_)) { Stage::Idle } else { stage };
        let (used, garbled) = (self.sent > 1, matches!(event, Event::Garbled(_)));
        let amid = heard.go_ahead && matches!(stage, Stage::Data | Stage::Body);
        let early = amid && !self.known_quirks().interrupts;
        if garbled {
            let slower = self.note_out_of_step(heard.go_ahead);
            // The reply too many may be a late one to the message before, or to the neighbour of a recipient.
            let before = heard.out_of_step || (used || stage < Stage::Body) && !heard.go_ahead;
            if before || fates.has_open(open) {
                fates.forget(open, Stage::Mail);
            }
            // Where there is another way to talk to this host, it is tried at once.
            if (used || slower) && stage <= Stage::Data || early {
                stage = Stage::Idle;
            }
        } else if self.pipelining && lost_the_rest(stage, &event) {
            self.note(|quirks| quirks.serial = true);
        }
        // In the middle of a body nothing can be asked: a fresh connection tells whether it was about this message.
        let of_body = stage == Stage::Body && matches!(&event, Event::Reply(reply) if reply.code != 421);
        if amid && (garbled || of_body) {
            self.note_interruption();
        }
        let (stage, event) = match (used || early) && of_body {
            true => (Stage::Idle, self.does_not_count(event)),
            false => (stage, event),
        };
        let stale = used && stage <= Stage::Mail && !garbled;
        let lost = self.all_out && !stale && !matches!(event, Event::Reply(_));
        fates.rest(if lost { Stage::Final } else { stage }, event);
        !garbled
    }

    /// Whether the host takes anything on new connections, or ends them; `mail`: what it was asked
    /// to take.
    fn tell_how_it_goes(&mut self, fates: &Fates, mail: Option<Features<'_>>) {
        let Some(early) = &self.early else { return };
        let said =
            fates.0.iter().flatten().find(|fact| matches!(fact.event, Event::Reply(_) | Event::Closed | Event::Io(_)));
        let Some(fact) = said else { return };
        let ended = match &fact.event {
            Event::Reply(reply) => reply.code == 421,
            _ => true,
        };
        if ended {
            early.known.turned_away(&early.door, mail.as_ref(), (fact.stage, &fact.event), early.longest);
        } else {
            early.known.listened(&early.door);
            self.serving = Some(early.known.serves(&early.door));
            self.early = None;
        }
    }

    /// Why no transaction can be begun, if so.
    async fn gone(&mut self, tx: &Transaction<'_>) -> Option<End> {
        // Octets have no DATA, whose 354 would show that replies are in step. We end it: that says nothing of the host.
        if self.usable && self.sent > 0 && self.apart.is_none() && self.sends_octets(tx) {
            self.usable = false;
            return Some((Stage::Idle, Event::LeftOut("octets have another connection")));
        }
        if !self.usable {
            return Some((Stage::Mail, Event::Closed));
        }
        // It was opened for other mail, whose place this has taken.
        if tx.message.envelope.tls == TlsWish::Required && !self.keeps_tls() {
            self.usable = false;
            return Some((Stage::Idle, Event::LeftOut("REQUIRETLS has another connection")));
        }
        if self.sent == 0 {
            self.before_first();
        }
        if self.wire.is_quiet() {
            return None;
        }
        self.usable = false;
        self.note_stray();
        let event = match self.wire.read(Duration::ZERO).await {
            Ok(received) if received.reply.code == 421 => Event::Reply(received.reply),
            Ok(received) => Event::Garbled(format!("a reply to no command: {}", received.reply)),
            Err(Event::Timeout(_)) => Event::Garbled("a part of a reply to no command".to_owned()),
            Err(event) => event,
        };
        // It speaks of what was before.
        Some((if matches!(event, Event::Garbled(_)) { Stage::Idle } else { Stage::Mail }, event))
    }

    /// What this host cannot take, by what it offers, is not tried (RFC 1870 §6.1, 6152, 6531).
    fn refuse_unsendable(&self, tx: &Transaction<'_>, fates: &mut Fates) {
        let (message, caps) = (tx.message, &self.caps);
        let mut refuse_all = |enhanced: &'static str, text: String| {
            fates.rest(Stage::Mail, Event::Unsendable { enhanced, text });
        };
        let host = self.host();
        if let Some(limit) = caps.size.filter(|limit| *limit > 0 && message.size > *limit) {
            refuse_all("5.3.4", format!("the message has {} bytes, {host} takes at most {limit}", message.size));
        }
        if !caps.smtputf8 {
            if message.envelope.smtputf8 && message.traits.eight_bit_header {
                refuse_all("5.6.7", format!("the header needs SMTPUTF8, which {host} does not offer"));
            }
            if tx.message.envelope.reverse_path.as_ref().is_some_and(|a| in_ascii(a).is_none()) {
                refuse_all(
                    "5.6.7",
                    format!("the sender address needs SMTPUTF8 for its local part, which {host} does not offer"),
                );
            }
            for (i, _) in tx.recipients.iter().enumerate().filter(|(_, r)| in_ascii(&r.address).is_none()) {
                let text =
                    format!("the recipient address needs SMTPUTF8 for its local part, which {host} does not offer");
                fates.set(i, Stage::Mail, Event::Unsendable { enhanced: "5.6.7", text });
            }
        }
        let octets = self.sends_octets(tx);
        if message.traits.binary && !octets {
            fates.rest(
                Stage::Mail,
                Event::Unsendable {
                    enhanced: "5.6.3",
                    text: format!("the message has binary content, which {host} does not take, and was not converted"),
                },
            );
        }
        if !octets && !caps.eight_bit_mime && (message.traits.eight_bit_body || message.traits.eight_bit_header) {
            fates.rest(
                Stage::Mail,
                Event::Unsendable {
                    enhanced: "5.6.3",
                    text: format!("the message has 8-bit content, which {host} does not take, and was not converted"),
                },
            );
        }
    }

    /// `Err`: the connection is over; so is the fate of those who have none yet.
    async fn transact(
        &mut self,
        tx: &Transaction<'_>,
        open: &[usize],
        head: Bytes,
        fates: &mut Fates,
        heard: &mut Heard,
    ) -> Result<(), End> {
        let t = self.timeouts;
        let mut has_parameters = false;
        let smtputf8 = self.needs_smtputf8(tx, open);
        let pipelined = self.pipelining;
        let octets = self.sends_octets(tx);
        let in_one = pipelined && tx.body.pieces(tx.message) == 1;
        self.learn_of_chunks(tx).await;
        if let Some(end) = self.unready.take() {
            return Err(end);
        }
        let bdat = in_one && !octets && self.sends_chunks();
        let caps = self.capabilities();
        let reset = self.dirty;
        heard.recipients = open.len();
        let mut whole = Written::All;

        if pipelined {
            if reset {
                print(&mut self.wire.out, Rset);
            }
            has_parameters = command::mail(&mut self.wire.out, tx.message, &caps, smtputf8, self.plain);
            for recipient in open.iter().filter_map(|i| tx.recipients.get(*i)) {
                command::rcpt(&mut self.wire.out, recipient, &caps, smtputf8);
            }
            let replies = usize::from(reset) + 1 + open.len() + usize::from(!octets);
            whole = if octets {
                // What a host that takes no BDAT would read as commands goes only to one that took the recipients.
                self.wire.write(&[], replies, usize::MAX, t.write).await
            } else if bdat {
                let mut encoder = Encoder::for_bdat();
                let body = encoder.encode(head.clone());
                let end = encoder.finish();
                print(&mut self.wire.out, format_args!("BDAT {} LAST\r\n", body.len() + end.len()));
                crash::point("dot.before");
                let written = self.wire.write(&[&body, &end], replies, replies, t.write).await;
                self.all_out = written == Written::All;
                crash::point("dot.after");
                written
            } else {
                print(&mut self.wire.out, Data);
                self.wire.write(&[], replies, usize::MAX, t.write).await
            };
        }

        if reset {
            if !pipelined {
                print(&mut self.wire.out, Rset);
                self.say().await;
            }
            let reply = self.reply(Stage::Idle, t.ehlo).await?;
            match (reply.is_positive(), self.all_out) {
                (true, _) => self.dirty = false,
                (false, false) => return Err((Stage::Idle, Event::Reply(reply))),
                // It went out behind RSET, and the refusal may answer something before that: it may have arrived.
                (false, true) => return Err((Stage::Final, Event::Garbled(format!("a refusal of RSET: {reply}")))),
            }
        }

        if !pipelined {
            self.before_command(Stage::Idle).await?;
            has_parameters = command::mail(&mut self.wire.out, tx.message, &caps, smtputf8, self.plain);
            self.say().await;
        }
        let mail = self.reply(Stage::Mail, t.mail).await?;
        let begun = mail.is_positive();
        self.dirty = begun;
        let about = !begun && speaks_of_parameters(&mail);
        heard.mail_form = begun.then(|| Form::of(&mail));
        heard.mail = Some(MailHeard { had: has_parameters, begun, about });
        if !begun {
            let event = if has_parameters && about {
                Event::Extension { what: "parameters of MAIL", reply: mail }
            } else {
                Event::Reply(mail)
            };
            fates.rest(Stage::Mail, event);
            if !pipelined {
                return Ok(());
            }
        }

        let mut accepted = 0usize;
        for (nth, index) in open.iter().enumerate() {
            if !pipelined && let Some(recipient) = tx.recipients.get(*index) {
                self.before_command(if nth == 0 { Stage::Mail } else { Stage::Rcpt }).await?;
                command::rcpt(&mut self.wire.out, recipient, &self.caps, smtputf8);
                self.say().await;
            }
            let (reply, again) = self.reply_again(Stage::Rcpt, t.rcpt).await?;
            heard.refused_alike |= again && !pipelined && !reply.is_positive();
            match (begun, reply.is_positive()) {
                (true, true) => {
                    accepted += 1;
                    heard.recipient = Some(Form::of(&reply));
                }
                (true, false)
                    if self.caps.dsn
                        && tx.recipients.get(*index).is_some_and(asks_for_dsn)
                        && refuses_parameter(&reply) =>
                {
                    self.note(|quirks| quirks.no_parameters = true);
                    self.usable = false;
                    fates.set(*index, Stage::Rcpt, Event::Extension { what: "DSN", reply });
                }
                (true, false) => fates.set(*index, Stage::Rcpt, Event::Reply(reply)),
                // A recipient without a sender: replies and commands do not tally.
                (false, true) => self.usable = false,
                (false, false) => {}
            }
        }

        if octets {
            self.octets(tx, head, accepted, fates, heard).await?;
        } else if bdat {
            self.end_of_bdat(whole, accepted, fates, heard).await?;
        } else {
            self.data(tx, head, accepted, fates, heard).await?;
        }
        Ok(())
    }

    /// Whether MAIL goes without parameters from now on; this one `had` some. After a refusal that may be about them it is tried
    /// once, in a transaction of its own; whatever else is said then speaks of the message.
    fn learn_of_parameters(&mut self, MailHeard { had, begun, about }: MailHeard) {
        let unknown = |it: &Self| !it.known_quirks().no_parameters;
        if had && about {
            self.note(|quirks| quirks.try_without = true);
            self.do_without_parameters();
        } else if self.plain && begun && unknown(self) {
            self.note(|quirks| (quirks.no_parameters, quirks.try_without) = (true, false));
        } else if self.plain && about && unknown(self) {
            // It was about the sender after all.
            self.note(|quirks| quirks.try_without = false);
            self.plain = false;
        }
    }

    /// Whether the body goes as it is, whatever octets are in it (RFC 3030 §3).
    pub(super) fn sends_octets(&self, tx: &Transaction<'_>) -> bool {
        tx.message.envelope.body == BodyKind::BinaryMime && self.takes_octets()
    }

    /// DATA, body and final reply; `accepted` recipients wait for it.
    async fn data(
        &mut self,
        tx: &Transaction<'_>,
        head: Bytes,
        accepted: usize,
        fates: &mut Fates,
        heard: &mut Heard,
    ) -> Result<(), End> {
        let t = self.timeouts;
        if !self.pipelining {
            if accepted == 0 {
                return Ok(());
            }
            self.before_command(Stage::Rcpt).await?;
            print(&mut self.wire.out, Data);
            self.say().await;
        }
        let reply = self.reply_or_go(Stage::Data, t.data).await?;
        heard.go_ahead = reply.is_none();
        match (reply, accepted > 0) {
            (None, true) => {}
            (None, false) => {
                // Nobody is there to get it: an empty message ends what was begun (RFC 2920 §3.1).
                self.wire.write(&[b".\r\n"], 1, usize::MAX, t.write).await;
                let reply = self.reply(Stage::Final, t.last).await?;
                self.usable &= !reply.is_positive();
                return Ok(());
            }
            (Some(reply), _) if reply.is_positive() => {
                return Err((Stage::Data, Event::Garbled(format!("a final reply to DATA: {reply}"))));
            }
            (Some(reply), _) => {
                heard.nobody_for_now = accepted == 0 && reply.is_transient();
                fates.rest(Stage::Data, Event::Reply(reply));
                return Ok(());
            }
        }
        self.before_body().await?;
        self.body(tx, head).await?;
        crash::point("dot.after");
        let reply = self.reply_to_end(heard).await?;
        crash::point("reply.read");
        self.dirty = false;
        if reply.is_positive() {
            self.learn_of_forms(&reply, heard);
        }
        fates.rest(Stage::Final, Event::Reply(reply));
        Ok(())
    }

    /// Writes the body and the dot. A reply before the dot answers none of it, and ends the connection: what is not
    /// sent yet could be taken for commands.
    async fn body(&mut self, tx: &Transaction<'_>, head: Bytes) -> Result<(), End> {
        let chunks = tx.body.pieces(tx.message);
        let mut encoder = Encoder::for_data();
        let mut chunk = head;
        for index in 0..chunks {
            if index > 0 {
                chunk = tx.body.chunk(index).await.map_err(|why| (Stage::Body, Event::Local(why)))?;
            }
            let bytes = encoder.encode(chunk);
            let last = index + 1 == chunks;
            let end = if last { encoder.finish() } else { Bytes::new() };
            if last {
                crash::point("dot.before");
            }
            // Behind the dot it would pass for the reply to that.
            let quiet = index == 0 || self.wire.is_quiet();
            if !quiet
                || self.wire.write(&[&bytes, &end], usize::from(last), 1, self.timeouts.write).await == Written::Early
            {
                let reply = self.reply(Stage::Body, self.timeouts.last).await?;
                return Err(if reply.is_positive() {
                    (Stage::Body, Event::Garbled(format!("a positive reply before the end of the body: {reply}")))
                } else {
                    (Stage::Body, Event::Reply(reply))
                });
            }
            chunk = Bytes::new();
        }
        Ok(())
    }

    /// Sends the command in the buffer. A failure shows when its reply is read.
    async fn say(&mut self) {
        self.wire.write(&[], 1, usize::MAX, self.timeouts.write).await;
    }

    /// The reply to one command; 421 ends the connection whatever it answers, and an intermediate
    /// reply (3yz) is no answer to anything but DATA.
    pub(super) async fn reply(&mut self, stage: Stage, limit: Duration) -> Result<Reply, End> {
        self.reply_again(stage, limit).await.map(|(reply, _)| reply)
    }

    /// Like [`Connection::reply`], and whether the host has said that before.
    pub(super) async fn reply_again(&mut self, stage: Stage, limit: Duration) -> Result<(Reply, bool), End> {
        let received = self.received(stage, limit).await.map_err(|event| (stage, event))?;
        match received.reply.code {
            421 => Err((stage, Event::Reply(received.reply))),
            300..=399 => Err((stage, Event::Garbled("an intermediate reply where none can be".to_owned()))),
            _ => Ok((received.reply, received.again)),
        }
    }

    /// Like [`Connection::reply`]; `None` is "go on" (354).
    async fn reply_or_go(&mut self, stage: Stage, limit: Duration) -> Result<Option<Reply>, End> {
        let reply = self.received(stage, limit).await.map_err(|event| (stage, event))?.reply;
        match reply.code {
            421 => Err((stage, Event::Reply(reply))),
            300..=399 => Ok(None),
            _ => Ok(Some(reply)),
        }
    }

    /// Whatever the host says next.
    pub(super) async fn received(&mut self, stage: Stage, limit: Duration) -> Result<Received, Event> {
        // From the body on it may arrive whatever is done; with BDAT that is out before the first reply.
        let may_end = stage < Stage::Body && !self.all_out;
        self.awaited.begins(self.message, stage, may_end);
        let received = tokio::select! {
            biased;
            received = self.wire.read(limit) => received,
            why = self.awaited.given_up() => Err(match why {
                GivenUp::After(after) => Event::Timeout(after),
                GivenUp::Leaving => Event::LeftOut("the host said nothing when mailweir had to leave"),
            }),
        };
        self.awaited.ends();
        let received = received?;
        self.usable &= !received.mixed;
        self.last_code = received.reply.code;
        Ok(received)
    }

    /// SMTPUTF8 is asked for only where something needs it (RFC 6531 §3.4).
    fn needs_smtputf8(&self, tx: &Transaction<'_>, open: &[usize]) -> bool {
        self.caps.smtputf8
            && (!sender_is_ascii(tx)
                || open.iter().filter_map(|i| tx.recipients.get(*i)).any(|r| !r.address.is_ascii())
                || (tx.message.envelope.smtputf8 && tx.message.traits.eight_bit_header))
    }
}

/// A refusal of MAIL that may be about its parameters: 555 is (RFC 5321 §4.1.1.11), and what is said of
/// syntax by servers that know no other code.
fn speaks_of_parameters(reply: &Reply) -> bool {
    reply.code == 555 || matches!(reply.code, 500 | 501 | 504) && matches!(reply.enhanced, None | Some((_, 5, _)))
}

/// A refusal that is about a parameter of RCPT, and not about the address: there is no second try.
fn refuses_parameter(reply: &Reply) -> bool {
    let named = || {
        let text = reply.text.to_ascii_lowercase();
        ["notify", "orcpt", "parameter"].iter().any(|word| text.contains(word))
    };
    match reply.code {
        504 | 555 => true,
        500 | 501 => matches!(reply.enhanced, Some((_, 5, 4))) || !matches!(reply.enhanced, Some((_, 1, _))) && named(),
        _ => reply.is_permanent() && matches!(reply.enhanced, Some((_, 5, 4))) && named(),
    }
}

fn asks_for_dsn(recipient: &Recipient) -> bool {
    recipient.notify.given || recipient.orcpt.is_some()
}

fn sender_is_ascii(tx: &Transaction<'_>) -> bool {
    tx.message.envelope.reverse_path.as_ref().is_none_or(|a| a.is_ascii())
}
