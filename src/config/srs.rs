//! `[srs]`: the domain of senders that a `[[rewrite]]` with `srs` makes, and what vouches for them (Sender Rewriting Scheme).

use std::sync::Arc;

use super::Secret;
use super::fields::Field;
use super::file::Reader;
use super::keys::{Key, Table, keys};
use super::value::Kind;
use crate::clock::Timestamp;
use crate::mail::Address;
use crate::mail::domain::{parse_name, printed};
use crate::mail::srs::{self, SrsError};

/// Bytes of a secret below which it is guessed.
const SHORT: usize = 16;

/// What the file says of it.
#[derive(Clone, Debug)]
pub(super) struct SrsDraft {
    pub domain: Option<String>,
    pub secret: Option<Secret>,
    pub previous: Option<Secret>,
}

impl Table for SrsDraft {
    const NAME: &'static str = "srs";
    const KEYS: &'static [Key<SrsDraft>] = keys! {
        /// The domain of the new senders: one of ours whose SPF record names this relay, and whose mail hosts give bounces to
        /// it, for this domain at least.
        "domain" domain: Kind::HostName, example r#""forward.shop.example""#;
        /// What the hash in such an address is made with, at least 16 characters. Who knows it can have mail led anywhere.
        "secret" secret: Kind::Secret, example r#"{ file = "/etc/mailweir/srs.secret" }"#;
        /// The secret before that: what was made with it comes back, for 21 days.
        "previous" previous: Kind::Secret, example r#"{ file = "/etc/mailweir/srs.old" }"#;
    };

    fn blank() -> SrsDraft {
        SrsDraft { domain: None, secret: None, previous: None }
    }
}

/// See the module.
#[derive(Clone, PartialEq, Debug)]
pub struct Srs {
    /// In A-labels, lower case.
    domain: String,
    secret: Secret,
    previous: Option<Secret>,
}

impl Srs {
    /// What the file says.
    pub(super) fn assemble(reader: &mut Reader<'_>, draft: &SrsDraft) -> Option<Arc<Srs>> {
        if !reader.has("srs") {
            return None;
        }
        if draft.domain.is_none() && !reader.has("srs.domain") {
            reader.fault("srs", "`domain` is missing: expected domain = \"forward.shop.example\"".into());
        }
        if draft.secret.is_none() && !reader.has("srs.secret") {
            let message = "`secret` is missing: expected secret = { file = \"/etc/mailweir/srs.secret\" }";
            reader.fault("srs", message.into());
        }
        let (domain, secret) = (draft.domain.as_ref()?, draft.secret.as_ref()?);
        if secret.reveal().len() < SHORT {
            let message =
                format!("is too short: expected at least {SHORT} characters, such as those of `openssl rand -hex 16`");
            reader.fault("srs.secret", message);
            return None;
        }
        let domain = parse_name(domain).map(|name| printed(&name)).unwrap_or_else(|| domain.to_lowercase());
        Some(Arc::new(Srs { domain, secret: secret.clone(), previous: draft.previous.clone() }))
    }

    /// The domain of the new senders.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// What becomes of a sender; `None`: it stays.
    pub fn forward(&self, sender: &Address, now: Timestamp) -> Option<Address> {
        srs::forward(sender, &self.domain, self.secret.reveal().as_bytes(), now)
    }

    /// Who a recipient stands for; `None`: for himself.
    pub fn reverse(&self, recipient: &Address, now: Timestamp) -> Option<Result<Address, SrsError>> {
        let secrets = [Some(&self.secret), self.previous.as_ref()].into_iter().flatten();
        srs::reverse(recipient, &self.domain, secrets.map(|secret| secret.reveal().as_bytes()), now)
    }
}
