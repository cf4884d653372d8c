//! What both ends of SASL mechanisms compute: SCRAM-SHA-256 (RFC 5802, RFC 7677) and CRAM-MD5 (RFC 2195).

use std::num::NonZeroU32;

use aws_lc_rs::{digest, hmac, pbkdf2};
use zeroize::Zeroizing;

/// Rounds that a peer may ask for: more is an attack on our time.
pub const MOST_ROUNDS: u32 = 1_000_000;
/// The least that RFC 7677 §4 lets a server ask for; fewer make the password easy to guess for who listens.
pub const LEAST_ROUNDS: u32 = 4096;

/// Bytes of a key of SCRAM-SHA-256.
pub const SCRAM_KEY: usize = digest::SHA256_OUTPUT_LEN;

/// The password as SCRAM salts it (`SaltedPassword`).
pub struct Salted(Zeroizing<[u8; SCRAM_KEY]>);

impl Salted {
    /// Takes `rounds` of PBKDF2.
    pub fn new(password: &[u8], salt: &[u8], rounds: NonZeroU32) -> Salted {
        let mut salted = Zeroizing::new([0; SCRAM_KEY]);
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, salt, password, &mut *salted);
        Salted(salted)
    }

    /// `ClientKey`: who has it can log in.
    pub fn client_key(&self) -> Zeroizing<[u8; SCRAM_KEY]> {
        Zeroizing::new(hmac_sha256(&*self.0, b"Client Key"))
    }

    /// `ServerKey`: who has it can pretend to be the server.
    pub fn server_key(&self) -> [u8; SCRAM_KEY] {
        hmac_sha256(&*self.0, b"Server Key")
    }
}

/// `StoredKey`, by which a server knows a `ClientKey`.
pub fn stored_key(client_key: &[u8]) -> [u8; SCRAM_KEY] {
    bytes_of(digest::digest(&digest::SHA256, client_key).as_ref())
}

/// RFC 2104 over SHA-256.
pub fn hmac_sha256(key: &[u8], text: &[u8]) -> [u8; SCRAM_KEY] {
    bytes_of(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text).as_ref())
}

/// Byte by byte.
pub fn xor(a: &[u8; SCRAM_KEY], b: &[u8; SCRAM_KEY]) -> Zeroizing<[u8; SCRAM_KEY]> {
    let mut both = Zeroizing::new(*a);
    both.iter_mut().zip(b).for_each(|(a, b)| *a ^= b);
    both
}

/// Both algorithms give exactly that many bytes.
fn bytes_of(code: &[u8]) -> [u8; SCRAM_KEY] {
    let mut bytes = [0; SCRAM_KEY];
    bytes.iter_mut().zip(code).for_each(|(byte, code)| *byte = *code);
    bytes
}

/// A name as it stands in a message of SCRAM (RFC 5802 §5.1).
pub fn saslname(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

/// The name that stands in a message of SCRAM; `None` if it is none.
pub fn from_saslname(text: &str) -> Option<String> {
    let name = text.replace("=2C", ",").replace("=3D", "=");
    (saslname(&name) == text && !name.is_empty()).then_some(name)
}

/// RFC 2104 over MD5, as RFC 2195 wants it, in hexadecimal digits.
pub fn hmac_md5(key: &[u8], text: &[u8]) -> Zeroizing<String> {
    let mut block = Zeroizing::new([0_u8; 64]);
    match key.len() {
        ..=64 => block[..key.len()].copy_from_slice(key),
        _ => block[..16].copy_from_slice(&md5::compute(key).0),
    }
    let with = |pad: u8, text: &[u8]| {
        let bytes = Zeroizing::new([&block.map(|byte| byte ^ pad)[..], text].concat());
        md5::compute(&*bytes)
    };
    Zeroizing::new(format!("{:x}", with(0x5c, &with(0x36, text).0)))
}

/// Whether two secrets are the same, in a time that does not tell where they differ.
pub fn same(a: &[u8], b: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(a, b).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_of_md5_is_that_of_its_rfcs() {
        // RFC 2195 §2.
        let challenge = b"<1896.697170952@postoffice.reston.mci.net>";
        assert_eq!(*hmac_md5(b"tanstaaftanstaaf", challenge), "b913a602c7eda7a495b4e6e7334d3890");
        // RFC 2202, case 6: a key that is longer than a block.
        let long = hmac_md5(&[0xaa; 80], b"Test Using Larger Than Block-Size Key - Hash Key First");
        assert_eq!(*long, "6b1ab7fe4bd7bf8f0b62e6ce61b9d0cd");
    }

    #[test]
    fn a_name_is_the_same_after_the_way_there_and_back_and_what_is_none_is_refused() {
        for name in ["jo", "a,b=c", "=2C", "jö"] {
            assert_eq!(from_saslname(&saslname(name)).as_deref(), Some(name));
        }
        for text in ["", "a=b", "a,b", "=2c"] {
            assert_eq!(from_saslname(text), None, "{text}");
        }
    }
}
