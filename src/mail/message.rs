//! A message as the stages pass it on. The body is bytes with CRLF line ends, header fix-ups
//! already made (`Received:` prepended and so on), not dot-stuffed; it is stored once whatever the
//! number of recipients, in chunks of [`CHUNK`] bytes so that no stage ever needs all of it. What was
//! announced as BINARYMIME ([`super::BodyKind::BinaryMime`]) has CRLF line ends in its header section only:
//! all behind that is octets.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;

use super::{Envelope, QueueId, Recipient};
use crate::clock::Timestamp;

/// Size of a body chunk in bytes; every chunk but the last has exactly this size. A message of at
/// most one chunk is stored inline with its envelope.
pub const CHUNK: usize = 256 * 1024;

/// The name of a lane: a provider's name (`gmail`), or `@domain` while no provider is known; where
/// limits hold for each source address, with that address: `gmail@192.0.2.10`,
/// `@example.com@2001:db8::1`. Neither a provider's name nor a domain has an `@`, so what a name
/// means is never in doubt.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneName(Arc<str>);

impl LaneName {
    /// The lane of a provider.
    pub fn provider(name: &str) -> LaneName {
        LaneName(name.into())
    }

    /// The lane of a recipient domain (folded to lower case) that no provider is known for.
    pub fn domain(domain: &str) -> LaneName {
        LaneName(format!("@{}", domain.to_lowercase()).into())
    }

    /// A name behind those of all domains, in order of name.
    pub fn after_domains() -> LaneName {
        // No provider is called that; `A` follows `@`.
        LaneName("@\u{10ffff}".into())
    }

    /// The lane name as stored and printed.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The domain, if this is a domain's lane.
    pub fn as_domain(&self) -> Option<&str> {
        // Asked for each message, nearly always of a provider.
        if !self.0.starts_with('@') {
            return None;
        }
        self.base().strip_prefix('@')
    }

    /// The lane of the same mail from this source address.
    pub fn at(&self, source: IpAddr) -> LaneName {
        LaneName(format!("{}@{source}", self.base()).into())
    }

    /// The name without the source address: a provider's name, or `@domain`.
    pub fn base(&self) -> &str {
        LaneName::base_of(&self.0)
    }

    /// [`LaneName::base`] of a name as stored.
    pub fn base_of(name: &str) -> &str {
        parts(name).map_or(name, |(base, _)| base)
    }

    /// The source address whose lane it is.
    pub fn source(&self) -> Option<IpAddr> {
        parts(&self.0).map(|(_, source)| source)
    }
}

/// The two parts of the name of a source's lane.
fn parts(name: &str) -> Option<(&str, IpAddr)> {
    // An `@` in front is that of a domain's lane.
    let (base, source) = name.rsplit_once('@').filter(|(base, _)| !base.is_empty())?;
    Some((base, source.parse().ok()?))
}

impl From<&str> for LaneName {
    fn from(s: &str) -> LaneName {
        LaneName(s.into())
    }
}

impl fmt::Display for LaneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for LaneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// What a scan of the body found while it came in, so that nobody has to scan it again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BodyTraits {
    /// A byte over 127 in the header section (needs SMTPUTF8 at the next host).
    pub eight_bit_header: bool,
    /// A byte over 127 in the body (needs 8BITMIME at the next host, or a conversion).
    pub eight_bit_body: bool,
    /// A line of more than 998 bytes (RFC 5321 §4.5.3.1.6): to be re-encoded or folded on the way out.
    pub long_line: bool,
    /// A line that starts with a dot: to be stuffed on the way out (RFC 5321 §4.5.2).
    pub leading_dot: bool,
    /// The body has what DATA cannot carry: a NUL, a CR or LF that is no part of a CRLF, or no CRLF at its
    /// end. Only looked for in a message announced as BINARYMIME, since others have CRLF line ends.
    pub binary: bool,
}

impl BodyTraits {
    /// One byte for the store.
    pub fn to_bits(self) -> u8 {
        u8::from(self.eight_bit_header)
            | u8::from(self.eight_bit_body) << 1
            | u8::from(self.long_line) << 2
            | u8::from(self.leading_dot) << 3
            | u8::from(self.binary) << 4
    }

    /// The inverse of [`BodyTraits::to_bits`].
    pub fn from_bits(bits: u8) -> BodyTraits {
        BodyTraits {
            eight_bit_header: bits & 1 != 0,
            eight_bit_body: bits & 2 != 0,
            long_line: bits & 4 != 0,
            leading_dot: bits & 8 != 0,
            binary: bits & 16 != 0,
        }
    }
}

/// Where a message came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// An SMTP client of a listener.
    Client {
        /// Its address.
        ip: IpAddr,
        /// The name it gave in EHLO/HELO; empty without one.
        helo: Arc<str>,
        /// The `name` of the listener; empty without one.
        listener: Arc<str>,
        /// As whom it had logged in; empty without a login.
        user: Arc<str>,
    },
    /// Written by mailweir itself: a DSN, or a report on TLS.
    Dsn,
    /// Injected by `mailweir send` straight into the queue.
    Local,
}

/// A queued message without its body. Never changes once accepted; shared by `Arc`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// Queue id.
    pub id: QueueId,
    /// When it was accepted.
    pub received: Timestamp,
    /// Envelope without the recipients.
    pub envelope: Envelope,
    /// Where it came from.
    pub origin: Origin,
    /// Bytes of the stored body (the header section included), before dot-stuffing.
    pub size: u64,
    /// What the body contains.
    pub traits: BodyTraits,
}

impl Message {
    /// Since when its age counts: when it came, or the time that it had to wait for. `expire` and `warn` count from here.
    pub fn age_from(&self) -> Timestamp {
        self.envelope.release.map_or(self.received, |release| release.max(self.received))
    }

    /// Number of chunks of the stored body; at least 1.
    pub fn chunks(&self) -> u32 {
        u32::try_from(self.size.div_ceil(CHUNK as u64)).unwrap_or(u32::MAX).max(1)
    }

    /// Its whole body as the queue stores it: chunk 0 (the head) first; at least one.
    pub fn split(&self, body: &Bytes) -> impl Iterator<Item = Bytes> {
        (0..self.chunks()).map(|n| {
            let start = (n as usize).saturating_mul(CHUNK).min(body.len());
            body.slice(start..start.saturating_add(CHUNK).min(body.len()))
        })
    }
}

/// One recipient of a message about to be queued.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewRecipient {
    /// The forward-path and its parameters.
    pub recipient: Recipient,
    /// The lane it waits in.
    pub lane: LaneName,
    /// Store it as leased: the accepting process hands it to its own scheduler at once.
    pub leased: bool,
    /// Store it as held, until an operator releases it: why, as its reason.
    pub held: Option<Arc<str>>,
}

/// A message about to be queued.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// All but recipients and body.
    pub message: Arc<Message>,
    /// At least one.
    pub recipients: Vec<NewRecipient>,
    /// Chunk 0 of the body; the chunks 1.. were given to the queue before (`Spool::spill`).
    pub head: Bytes,
}

/// Where the bytes of a stored body come from: memory while it is still there, else the queue.
#[async_trait::async_trait]
pub trait Body: Send + Sync {
    /// Chunk 0, if it is in memory: nobody has to wait for it then.
    fn head(&self) -> Option<Bytes> {
        None
    }

    /// Number of chunks of this body, which is that of `message`; at least 1.
    fn pieces(&self, message: &Message) -> u32 {
        message.chunks()
    }

    /// Chunk `index` (from 0) of the body, asked for in order; the error is text for a log line.
    async fn chunk(&self, index: u32) -> Result<Bytes, String>;
}

#[cfg(test)]
mod lane_name_tests {
    use super::*;

    #[test]
    fn the_name_of_a_lane_tells_its_provider_or_domain_and_its_source() {
        let ips: [IpAddr; 2] = ["192.0.2.10".parse().unwrap(), "2001:db8::10".parse().unwrap()];
        for base in [LaneName::provider("gmail"), LaneName::domain("X.example"), LaneName::domain("[192.0.2.1]")] {
            assert_eq!((base.base(), base.source()), (base.as_str(), None));
            for ip in ips {
                let lane = base.at(ip);
                let again = LaneName::from(lane.to_string().as_str());
                assert_eq!(
                    (again.base(), again.source(), again.as_domain()),
                    (base.as_str(), Some(ip), base.as_domain())
                );
                assert_eq!(again.at(ips[0]), base.at(ips[0]), "one source at a time");
            }
        }
        assert_eq!(LaneName::domain("x.example").at(ips[0]).as_str(), "@x.example@192.0.2.10");
    }
}
