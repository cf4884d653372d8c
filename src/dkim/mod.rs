//! DKIM signatures (RFC 6376; Ed25519: RFC 8463) over what leaves: relaxed canonicalization of header and body.
//!
//! - `canonical`: what a verifier compares, made of bytes as they come.
//! - `signer`: reads a message once, piece by piece, and writes its signature fields.
//! - `key`: private keys, and what is published of them.
//! - `record`: a published key as DNS has it, compared with ours.
//!
//! Pure: no I/O, no clock. Which message gets whose signature is a matter of the configuration
//! (`[[dkim]]`), and where it is made one of the pipeline.

pub mod canonical;
pub mod key;
pub mod record;
pub mod signer;

pub use key::{Algorithm, KeyFault, SigningKey};
pub use record::{Difference, difference, zone_line};
pub use signer::{MAX_KEPT, Signature, Signer, TooLarge};
