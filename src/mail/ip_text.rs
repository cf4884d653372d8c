//! An IP address as text without an allocation: for columns and log fields that want a text.

use std::fmt::{self, Write as _};
use std::net::IpAddr;

/// Longest text of an address: eight groups of four digits, or six and an IPv4 address.
const MOST: usize = 45;

/// The text of an address.
#[derive(Clone, Copy)]
pub struct IpText {
    bytes: [u8; MOST],
    len: usize,
}

impl IpText {
    /// Prints the address.
    pub fn new(ip: IpAddr) -> IpText {
        let mut text = IpText { bytes: [0; MOST], len: 0 };
        // Every address fits.
        let _ = write!(text, "{ip}");
        text
    }

    /// What was printed.
    pub fn as_str(&self) -> &str {
        self.bytes.get(..self.len).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default()
    }
}

impl fmt::Write for IpText {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let end = self.len + part.len();
        self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?.copy_from_slice(part.as_bytes());
        self.len = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_fits() {
        for text in ["0.0.0.0", "255.255.255.255", "::1", "2001:db8::1", "::ffff:255.255.255.255"] {
            assert_eq!(IpText::new(text.parse().expect("an address")).as_str(), text);
        }
        let longest = ["fedc"; 8].join(":");
        assert_eq!(IpText::new(longest.parse().expect("an address")).as_str(), longest);
    }
}
