//! The body on its way out: from memory or the queue, as it is or converted for the host.
//!
//! A converted body is made while it is sent, piece by piece: while a host is slow to read, nothing
//! is held but a piece, the chunk it is made of, and what else its ticket counts.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Mutex;

use super::Relay;
use super::conversion::{Held, Turn};
use super::signing::Signed;
use crate::deliver::{Capabilities, Event};
use crate::mail::convert::limits::PIECE;
use crate::mail::convert::{Conversion, Emitter, Hop, Octets, Pass, Recipe, Work};
use crate::mail::{Body, BodyKind, BodyTraits, Envelope, Message};
use crate::queue::Spool;
use crate::schedule::{Lane, Shared};

/// The stored body of a message.
#[derive(Clone)]
pub(super) struct QueuedBody {
    pub(super) shared: Arc<Shared>,
    pub(super) queue: Arc<dyn Spool>,
}

#[async_trait]
impl Body for QueuedBody {
    fn head(&self) -> Option<Bytes> {
        self.shared.head.clone()
    }

    async fn chunk(&self, index: u32) -> Result<Bytes, String> {
        if index == 0
            && let Some(head) = self.head()
        {
            return Ok(head);
        }
        match self.queue.chunk(self.shared.message.id, index).await {
            Ok(Some(chunk)) => Ok(chunk),
            Ok(None) => Err("the message is no longer in the queue".into()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// A body that is converted for one host while it is sent.
pub(super) struct Converted {
    source: QueuedBody,
    recipe: Recipe,
    making: Mutex<Making>,
    _ticket: Held,
}

/// How far it is made.
struct Making {
    emitter: Emitter,
    /// The piece that comes next.
    piece: u32,
    /// The chunk of the stored body that comes next, and what is left of the one before.
    chunk: u32,
    rest: Bytes,
    /// What was made beyond the last piece.
    out: Vec<u8>,
}

impl Making {
    fn new(recipe: &Recipe) -> Making {
        Making { emitter: recipe.emitter(), piece: 0, chunk: 0, rest: Bytes::new(), out: Vec::new() }
    }

    /// Works off what is left of the chunk, or as much as fills a piece; `last`: none comes after it.
    fn work_off(&mut self, last: bool) -> Result<(), String> {
        let taken = self.emitter.push(&self.rest, &mut self.out).map_err(|limit| limit.to_string())?;
        self.rest = self.rest.split_off(taken.min(self.rest.len()));
        if self.rest.is_empty() {
            // Else what was cut from it would keep all of it.
            self.rest = Bytes::new();
            if last {
                self.emitter.finish(&mut self.out).map_err(|limit| limit.to_string())?;
            }
        }
        Ok(())
    }

    fn take_piece(&mut self) -> Bytes {
        let rest = self.out.split_off(PIECE.min(self.out.len()));
        let mut piece = std::mem::replace(&mut self.out, rest);
        piece.shrink_to_fit();
        self.piece += 1;
        Bytes::from(piece)
    }
}

#[async_trait]
impl Body for Converted {
    fn pieces(&self, message: &Message) -> u32 {
        u32::try_from(message.size.div_ceil(PIECE as u64)).unwrap_or(u32::MAX).max(1)
    }

    async fn chunk(&self, index: u32) -> Result<Bytes, String> {
        let mut making = self.making.lock().await;
        if index != making.piece {
            if index > 0 {
                return Err(format!("piece {index} of a conversion was asked for, {} is next", making.piece));
            }
            *making = Making::new(&self.recipe);
        }
        let chunks = self.source.shared.message.chunks();
        while making.out.len() < PIECE && (making.chunk < chunks || !making.rest.is_empty()) {
            let turn = Turn::next().await?;
            if making.rest.is_empty() {
                making.rest = self.source.chunk(making.chunk).await?;
                making.chunk += 1;
            }
            let last = making.chunk == chunks;
            let mut moved = std::mem::replace(&mut *making, Making::new(&self.recipe));
            let working = turn.run(move || {
                let result = moved.work_off(last);
                (moved, result)
            });
            let (moved, result) = working.await?;
            *making = moved;
            result?;
        }
        Ok(making.take_piece())
    }
}

/// What is sent.
pub(super) enum Outgoing {
    /// The message as it is stored.
    AsIs(Arc<Message>),
    /// A conversion of it, with size and traits of its own.
    Converted { message: Box<Message>, body: Box<Converted> },
    /// One of these with signatures on top.
    Signed { message: Box<Message>, body: Box<Signed> },
}

impl Outgoing {
    /// Its envelope, size and traits.
    pub(super) fn message(&self) -> &Message {
        match self {
            Outgoing::AsIs(message) => message,
            Outgoing::Converted { message, .. } | Outgoing::Signed { message, .. } => message,
        }
    }

    /// Its bytes; `source` is what is stored.
    pub(super) fn body<'a>(&'a self, source: &'a QueuedBody) -> &'a dyn Body {
        match self {
            Outgoing::AsIs(_) => source,
            Outgoing::Converted { body, .. } => &**body,
            Outgoing::Signed { body, .. } => &**body,
        }
    }
}

impl Relay {
    /// Converts the body if the host cannot take it as it is (invariant 9).
    pub(super) async fn convert(
        &self,
        source: &QueuedBody,
        host: Capabilities,
        lane: &Lane,
    ) -> Result<Outgoing, Event> {
        let message = &source.shared.message;
        let traits = message.traits;
        let eight_bit = traits.eight_bit_body || traits.eight_bit_header;
        let as_is = || Ok(Outgoing::AsIs(message.clone()));
        // Text in a header that is UTF-8 can be written in ASCII: it is no reason to bounce, whoever announced it.
        let header_in_ascii = traits.eight_bit_header && !host.smtputf8;
        let octets = match message.envelope.body == BodyKind::BinaryMime {
            false => Octets::NotAnnounced,
            true if host.binary_mime => Octets::Taken,
            true => Octets::NotTaken,
        };
        let fits = match octets {
            Octets::NotAnnounced => !traits.long_line && (host.eight_bit_mime || !eight_bit),
            Octets::Taken => true,
            Octets::NotTaken => false,
        };
        if fits && !header_in_ascii {
            return as_is();
        }
        let hop = Hop {
            eight_bit: host.eight_bit_mime,
            smtputf8: host.smtputf8,
            smtputf8_asked: message.envelope.smtputf8,
            octets,
            signed: lane.provider.signed_conversion,
        };
        let ticket = self.tickets.get(&lane.name).await.map_err(Event::Local)?;
        let conversion = match Work::begin(message.size, traits, hop) {
            Ok(work) => decide(work, source).await.map_err(Event::Local)?,
            Err(conversion) => conversion,
        };
        match conversion {
            Conversion::Converted { recipe, size, traits } => {
                let (body, binary) = match octets {
                    // It is lines now, which DATA takes.
                    Octets::NotTaken if traits.eight_bit_body => (BodyKind::EightBitMime, false),
                    Octets::NotTaken => (BodyKind::SevenBit, false),
                    // Only its header section is another: it is for no host that takes lines.
                    Octets::Taken | Octets::NotAnnounced => (message.envelope.body, message.traits.binary),
                };
                let traits = BodyTraits { binary, ..traits };
                let envelope = Envelope { body, ..message.envelope.clone() };
                let message = Message { size, traits, envelope, ..Message::clone(message) };
                let making = Mutex::new(Making::new(&recipe));
                let body = Converted { source: source.clone(), recipe, making, _ticket: ticket };
                Ok(Outgoing::Converted { message: Box::new(message), body: Box::new(body) })
            }
            Conversion::Refused { enhanced, text } => Err(Event::Unsendable { enhanced, text }),
            // Long lines that must not be re-encoded are folded by the wire encoder.
            Conversion::NotNeeded | Conversion::Fold => as_is(),
        }
    }
}

/// Reads the body until it is known what to send, a chunk at a turn.
async fn decide(work: Work, source: &QueuedBody) -> Result<Conversion, String> {
    let mut work = Box::new(work);
    loop {
        for index in 0..source.shared.message.chunks() {
            let turn = Turn::next().await?;
            let chunk = source.chunk(index).await?;
            let working = turn.run(move || {
                let more = work.push(&chunk);
                (work, more)
            });
            let (moved, more) = working.await?;
            work = moved;
            if !more {
                break;
            }
        }
        match Turn::next().await?.run(move || work.end_pass()).await? {
            Pass::Again(again) => work = again,
            Pass::Done(conversion) => return Ok(conversion),
        }
    }
}
