//! DKIM signatures of what leaves: after any conversion, just before a permit is asked for.
//!
//! Invariants:
//! - Signed is what goes over the wire. Line ends, long lines and NULs get their last form here, by the encoder that
//!   the wire has too, so that this one finds nothing left to change.
//! - Without a `[[dkim]]` nothing here runs, and nothing is allocated.
//! - A message whose `From` has a domain with keys leaves with all of their signatures or not at all: where one
//!   cannot be made, it waits.
//! - A message is read twice, once to sign and once to send; in memory is a chunk of it and the fields that are
//!   signed. Hashing and signing run on threads of their own, a chunk at a turn.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Mutex;

use super::Relay;
use super::body::{Outgoing, QueuedBody};
use super::conversion::Turn;
use crate::clock::Timestamp;
use crate::config::{Config, Dkim};
use crate::deliver::encode::Encoder;
use crate::deliver::{Capabilities, Event};
use crate::dkim::{KeyFault, Signature, Signer, TooLarge};
use crate::mail::domain::{parse_name, printed};
use crate::mail::{Body, BodyKind, Message, QueueId, address_list};
use crate::observe::seldom;
use crate::schedule::Lane;

/// A message with its signature fields on top.
pub(super) struct Signed {
    source: QueuedBody,
    inner: Outgoing,
    fields: Bytes,
    /// Octets go as they are ([`BodyKind::BinaryMime`]); anything else as this makes it.
    encoder: Option<Mutex<Encoder>>,
}

#[async_trait]
impl Body for Signed {
    fn pieces(&self, _: &Message) -> u32 {
        self.inner.body(&self.source).pieces(self.inner.message())
    }

    async fn chunk(&self, index: u32) -> Result<Bytes, String> {
        let (body, message) = (self.inner.body(&self.source), self.inner.message());
        let chunk = body.chunk(index).await?;
        let (mut chunk, mut end) = (chunk, Bytes::new());
        if let Some(encoder) = &self.encoder {
            let mut encoder = encoder.lock().await;
            if index == 0 {
                *encoder = Encoder::for_signing();
            }
            chunk = encoder.encode(chunk);
            if index + 1 == body.pieces(message) {
                end = encoder.finish();
            }
        }
        let fields = if index == 0 { &self.fields[..] } else { &[] };
        Ok(if fields.is_empty() && end.is_empty() { chunk } else { Bytes::from([fields, &chunk, &end].concat()) })
    }
}

/// What reading a message once came to.
enum Read {
    /// No `[[dkim]]` is for it, and why, if that is worth a word.
    NotOurs(Option<String>),
    /// Its fields, and the size in bytes of what follows them.
    Signed(Vec<u8>, u64),
}

/// Why there is no signature.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// With the file of the key.
    #[error("the key {0} {1}")]
    Key(String, KeyFault),
    #[error("{0}")]
    Local(String),
}

impl Relay {
    /// Signs what goes out, if its `From` has a domain with keys.
    pub(super) async fn sign(
        &self,
        source: &QueuedBody,
        outgoing: Outgoing,
        host: Capabilities,
        lane: &Lane,
    ) -> Result<Outgoing, Event> {
        if self.config.dkim.is_empty() {
            return Ok(outgoing);
        }
        let message = outgoing.message();
        let id = message.id;
        let octets = message.envelope.body == BodyKind::BinaryMime && host.binary_mime;
        // A conversion has a ticket already, and a small message is in memory with its own.
        let _ticket = match &outgoing {
            Outgoing::AsIs(_) if source.head().is_none() || message.chunks() > 1 => {
                Some(self.tickets.get(&lane.name).await.map_err(Event::Local)?)
            }
            _ => None,
        };
        let pass = Pass::new(self.config.clone(), octets, self.clock.now());
        match pass.read(outgoing.body(source), message).await {
            Ok(Read::NotOurs(why)) => {
                if let Some(why) = why {
                    not_signed(id, &why);
                }
                Ok(outgoing)
            }
            Ok(Read::Signed(fields, size)) => {
                let size = size.saturating_add(fields.len() as u64);
                let message = Box::new(Message { size, ..Message::clone(message) });
                let encoder = (!octets).then(|| Mutex::new(Encoder::for_signing()));
                let body = Signed { source: source.clone(), inner: outgoing, fields: Bytes::from(fields), encoder };
                Ok(Outgoing::Signed { message, body: Box::new(body) })
            }
            Err(Fault::Local(why)) => Err(Event::Local(why)),
            Err(fault @ Fault::TooLarge(_)) => Err(Event::Unsendable { enhanced: "5.3.4", text: fault.to_string() }),
            Err(fault) => {
                tracing::error!(id = %id, error = %fault, "a message waits: it cannot be signed with DKIM");
                Err(Event::Local(format!("it cannot be signed with DKIM: {fault}")))
            }
        }
    }
}

fn not_signed(id: QueueId, why: &str) {
    if let Some(times) = seldom("not signed with DKIM", why) {
        tracing::warn!(id = %id, why, times, "a message leaves without a DKIM signature");
    }
}

/// One reading of a message.
struct Pass {
    config: Arc<Config>,
    now: Timestamp,
    signer: Signer,
    encoder: Option<Encoder>,
    /// Those that sign; none before the header section is complete.
    keys: Vec<Arc<Dkim>>,
    size: u64,
}

/// What to do after a chunk.
enum Step {
    More(Box<Pass>),
    Done(Read),
}

impl Pass {
    fn new(config: Arc<Config>, octets: bool, now: Timestamp) -> Box<Pass> {
        let encoder = (!octets).then(Encoder::for_signing);
        Box::new(Pass { config, now, signer: Signer::new(), encoder, keys: Vec::new(), size: 0 })
    }

    async fn read(mut self: Box<Self>, body: &dyn Body, message: &Message) -> Result<Read, Fault> {
        let pieces = body.pieces(message);
        for index in 0..pieces {
            // Before the turn: a disk that is slow to read keeps no turn from others.
            let chunk = body.chunk(index).await.map_err(Fault::Local)?;
            let last = index + 1 == pieces;
            let turn = Turn::to_sign().await.map_err(Fault::Local)?;
            match turn.run(move || self.take(chunk, last)).await.map_err(Fault::Local)?? {
                Step::More(pass) => self = pass,
                Step::Done(read) => return Ok(read),
            }
        }
        Err(Fault::Local("the message has no content".into()))
    }

    fn take(mut self: Box<Self>, chunk: Bytes, last: bool) -> Result<Step, Fault> {
        let knew = self.signer.knows_header();
        let chunk = match &mut self.encoder {
            Some(encoder) => encoder.encode(chunk),
            None => chunk,
        };
        self.push(&chunk)?;
        drop(chunk);
        if last {
            let end = self.encoder.as_mut().map(Encoder::finish).unwrap_or_default();
            self.push(&end)?;
            self.signer.end_header()?;
        }
        if !knew && self.signer.knows_header() {
            match self.whose() {
                Ok(keys) if keys.is_empty() => return Ok(Step::Done(Read::NotOurs(None))),
                Ok(keys) => self.keys = keys,
                Err(why) => return Ok(Step::Done(Read::NotOurs(Some(why)))),
            }
        }
        if last { self.finish().map(Step::Done) } else { Ok(Step::More(self)) }
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.size = self.size.saturating_add(bytes.len() as u64);
        Ok(self.signer.push(bytes)?)
    }

    /// Whose signatures it gets: those of the domain of its one `From`, of the first address where there are several.
    fn whose(&self) -> Result<Vec<Arc<Dkim>>, String> {
        let value = match self.signer.from() {
            Ok(value) => value,
            Err(0) => return Err("it has no From".into()),
            // Whichever is signed, the other might be what a reader sees.
            Err(count) => return Err(format!("it has {count} From fields")),
        };
        let listed = address_list::parse(value).map_err(|_| "its From is no list of addresses".to_owned())?;
        let first = listed.first().ok_or("its From has no address")?;
        let domain = first.text.rsplit_once('@').and_then(|(_, domain)| parse_name(domain));
        Ok(domain.map(|name| self.config.dkim_for(&printed(&name))).unwrap_or_default())
    }

    fn finish(self) -> Result<Read, Fault> {
        let seconds = |at: Timestamp| u64::try_from(at.0.div_euclid(1000)).unwrap_or(0);
        let at = seconds(self.now);
        let signatures = self.keys.iter().map(|dkim| Signature {
            domain: &dkim.domain,
            selector: &dkim.selector,
            key: &dkim.key.key,
            at,
            until: (dkim.expires > Duration::ZERO).then(|| seconds(self.now.after(dkim.expires))),
        });
        let signatures: Vec<Signature<'_>> = signatures.collect();
        let file =
            |place: usize| self.keys.get(place).map(|dkim| dkim.key.path.display().to_string()).unwrap_or_default();
        let fields = self.signer.finish(&signatures).map_err(|(place, fault)| Fault::Key(file(place), fault))?;
        Ok(Read::Signed(fields, self.size))
    }
}
