//! Queue ids: short, sortable by time of acceptance, printable, and the primary key in the store.
//!
//! 64 bits: 44 bits of milliseconds since 1970, 20 bits that make it unique within the
//! millisecond. Printed as 13 characters of Crockford's base 32 in lower case.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::clock::Timestamp;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// The queue id of a message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(pub i64);

/// One recipient of one queued message: the unit that has a state and one fate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RecipientKey {
    /// The message.
    pub id: QueueId,
    /// Position of the recipient in the envelope, from 0.
    pub index: u32,
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = [0u8; 13];
        let mut n = self.0 as u64;
        for slot in out.iter_mut().rev() {
            *slot = ALPHABET[(n & 31) as usize];
            n >>= 5;
        }
        f.write_str(std::str::from_utf8(&out).unwrap_or_default())
    }
}

impl fmt::Debug for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not a queue id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a queue id: expected 13 letters and digits as in the reply to DATA and in the log")]
pub struct NotAQueueId(pub String);

impl FromStr for QueueId {
    type Err = NotAQueueId;

    fn from_str(s: &str) -> Result<QueueId, NotAQueueId> {
        let bad = || NotAQueueId(s.to_owned());
        if s.len() != 13 {
            return Err(bad());
        }
        let mut n: u64 = 0;
        for (i, b) in s.bytes().enumerate() {
            let digit = ALPHABET.iter().position(|a| *a == b.to_ascii_lowercase()).ok_or_else(bad)? as u64;
            if i == 0 && digit > 7 {
                return Err(bad());
            }
            n = (n << 5) | digit;
        }
        i64::try_from(n).map(QueueId).map_err(|_| bad())
    }
}

/// Hands out ids that only ever grow, also when the wall clock goes back.
#[derive(Debug)]
pub struct IdSource(AtomicI64);

impl IdSource {
    /// `last`: the greatest id ever stored, so that a clock set back cannot repeat one.
    pub fn new(last: Option<QueueId>) -> IdSource {
        IdSource(AtomicI64::new(last.map_or(0, |id| id.0)))
    }

    /// The next id.
    pub fn next(&self, now: Timestamp) -> QueueId {
        let floor = now.0.max(0) << 20;
        let mut last = self.0.load(Ordering::Relaxed);
        loop {
            let next = floor.max(last + 1);
            match self.0.compare_exchange_weak(last, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return QueueId(next),
                Err(seen) => last = seen,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_and_parses_itself_in_order_of_time() {
        let source = IdSource::new(None);
        let a = source.next(Timestamp(1_790_000_000_000));
        let b = source.next(Timestamp(1_790_000_000_000));
        let c = source.next(Timestamp(1_789_999_999_000));
        let d = source.next(Timestamp(1_790_000_000_001));
        let texts: Vec<String> = [a, b, c, d].iter().map(ToString::to_string).collect();
        assert!(texts.windows(2).all(|w| w[0] < w[1]), "{texts:?}");
        for (id, text) in [a, b, c, d].into_iter().zip(&texts) {
            assert_eq!(text.len(), 13);
            assert_eq!(text.parse::<QueueId>(), Ok(id));
            assert_eq!(text.to_uppercase().parse::<QueueId>(), Ok(id));
        }
        for bad in ["", "0", "uuuuuuuuuuuuu", "zzzzzzzzzzzzz", "00000000000000", "0000000000é"] {
            assert!(bad.parse::<QueueId>().is_err(), "{bad}");
        }
    }
}
