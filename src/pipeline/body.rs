//! The body on its way out: from memory or the queue, as it is or converted for the host.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use super::Relay;
use crate::config::Provider;
use crate::deliver::{Capabilities, Event};
use crate::mail::convert::{Conversion, Hop, convert};
use crate::mail::{Body, CHUNK, Message};
use crate::queue::Queue;
use crate::schedule::Shared;

/// The stored body of a message.
pub(super) struct QueuedBody {
    pub(super) shared: Arc<Shared>,
    pub(super) queue: Arc<dyn Queue>,
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

/// A body that was converted for one host.
pub(super) struct Whole(Bytes);

#[async_trait]
impl Body for Whole {
    async fn chunk(&self, index: u32) -> Result<Bytes, String> {
        let from = (index as usize).saturating_mul(CHUNK).min(self.0.len());
        let to = from.saturating_add(CHUNK).min(self.0.len());
        Ok(self.0.slice(from..to))
    }
}

/// What is sent.
pub(super) enum Outgoing {
    /// The message as it is stored.
    AsIs(Arc<Message>),
    /// A conversion of it, with size and traits of its own.
    Converted { message: Box<Message>, body: Whole },
}

impl Relay {
    /// Converts the body if the host cannot take it as it is (invariant 9).
    pub(super) async fn convert(
        &self,
        source: &QueuedBody,
        host: Capabilities,
        provider: &Provider,
    ) -> Result<Outgoing, Event> {
        let message = &source.shared.message;
        let traits = message.traits;
        let eight_bit = traits.eight_bit_body || traits.eight_bit_header;
        // Text in a header that was announced as UTF-8 can be written in ASCII: it is no reason to bounce.
        let header_in_ascii = message.envelope.smtputf8 && traits.eight_bit_header && !host.smtputf8;
        if !traits.long_line && !header_in_ascii && (host.eight_bit_mime || !eight_bit) {
            return Ok(Outgoing::AsIs(message.clone()));
        }
        let Ok(_one_of_few) = self.conversions.acquire().await else {
            return Err(Event::Local("shutting down".into()));
        };
        let mut whole = BytesMut::new();
        for index in 0..message.chunks() {
            whole.extend_from_slice(&source.chunk(index).await.map_err(Event::Local)?);
        }
        let hop = Hop {
            eight_bit: host.eight_bit_mime && !header_in_ascii,
            smtputf8: host.smtputf8,
            smtputf8_asked: message.envelope.smtputf8 && !header_in_ascii,
            signed: provider.signed_conversion,
        };
        let converted = tokio::task::spawn_blocking(move || convert(&whole, traits, hop)).await;
        match converted {
            Ok(Conversion::Converted { body, traits }) => {
                let message = Message { size: body.len() as u64, traits, ..Message::clone(message) };
                Ok(Outgoing::Converted { message: Box::new(message), body: Whole(body) })
            }
            Ok(Conversion::Refused { enhanced, text }) => Err(Event::Unsendable { enhanced, text }),
            // Long lines that must not be re-encoded are folded by the wire encoder.
            Ok(Conversion::NotNeeded | Conversion::Fold) => Ok(Outgoing::AsIs(message.clone())),
            Err(error) => Err(Event::Local(format!("the conversion failed: {error}"))),
        }
    }
}
