//! What is relayed: addresses, envelopes, messages, queue ids, and the life of a recipient.
//! Pure values; nothing here does I/O or reads a clock.

pub mod address;
pub mod address_list;
pub mod binary;
pub mod caller;
pub mod convert;
pub mod date;
pub mod domain;
pub mod envelope;
pub mod features;
pub mod header;
pub mod id;
pub mod incoming;
pub mod ip_text;
pub mod lifecycle;
pub mod local;
pub mod message;
pub mod owed;
pub mod refusals;
pub mod rewriting;
pub mod send_at;
pub mod sender;
pub mod srs;
pub mod tls_required;
pub mod trace;
pub mod urgency;

pub use address::{Address, AddressError, lowercase};
pub use caller::Caller;
pub use domain::{Spellings, in_ascii};
pub use envelope::{BodyKind, Envelope, Notify, Orcpt, Recipient, Ret, TlsWish, envid_bytes};
pub(crate) use features::domain_of;
pub use features::{FEATURE_KINDS, FeatureKeys, Features, RECIPIENT_DOMAIN};
pub use id::{IdSource, QueueId, RecipientKey};
pub use incoming::Incoming;
pub use ip_text::IpText;
pub use lifecycle::State;
pub use local::{Forward, LocalNames};
pub use message::{Body, BodyTraits, CHUNK, LaneName, Message, NewMessage, NewRecipient, Origin};
pub use owed::{Action, Owed};
pub use refusals::Refusals;
pub use sender::sender_key;
pub use trace::Trace;
