//! Hashes that are the same in every run: what is decided for good about an address or a message hangs on
//! them.

/// A message as the provider sees it after the data.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Content {
    /// The same whenever the same message comes, and another for others.
    pub hash: u64,
    /// Its length.
    pub bytes: u64,
}

impl Content {
    /// Takes in more bytes of a message.
    pub fn push(&mut self, bytes: &[u8]) {
        let hash = if self.bytes == 0 { FNV } else { self.hash };
        self.hash = fnv(hash, bytes.iter().copied());
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
    }

    /// Of a message of that number and length.
    pub fn numbered(number: u64, bytes: u64) -> Content {
        Content { hash: mixed(number.wrapping_add(FNV)), bytes }
    }
}

/// Hash of an address; case does not matter.
pub(super) fn hash(address: &str) -> u64 {
    fnv(FNV, address.bytes().map(|b| b.to_ascii_lowercase()))
}

const FNV: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a.
fn fnv(hash: u64, bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(hash, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

/// Spreads bits (the finish of SplitMix64).
pub(super) fn mixed(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_the_same_however_it_is_cut() {
        let (mut whole, mut cut) = (Content::default(), Content::default());
        whole.push(b"Subject: x\r\n\r\ny");
        for part in [&b"Sub"[..], b"ject: x\r", b"\n\r\ny"] {
            cut.push(part);
        }
        assert_eq!(whole, cut);
        assert_ne!(whole.hash, Content::default().hash);
        assert_eq!(hash("A@b.example"), hash("a@B.example"));
        assert_ne!(Content::numbered(1, 5).hash, Content::numbered(2, 5).hash);
    }
}
