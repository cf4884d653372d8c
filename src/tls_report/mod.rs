//! Reports on TLS for the domains that mail goes to (TLS-RPT, RFC 8460): what was seen of TLS with their hosts, counted by
//! UTC day, and told to whom they name in DNS.
//!
//! - `seen` has the words: what a session showed, by which policy; `tally` counts; `record` reads the TXT record;
//!   `day` is what the store keeps of a day and a domain; `report` makes the JSON, `message` the mail and `post` the
//!   request that carry it.
//!
//! Invariants: nothing of mail is in a report, no address and no content; a report is of a day that is over; what peers
//! wrote is cut, and has no control characters; all that is counted is bounded in number and bytes ([`tally`]).

pub mod day;
pub mod message;
pub mod post;
pub mod record;
pub mod report;
mod seen;
mod tally;

pub use seen::{Failure, Fault, Policy, PolicyType, ResultType};
pub use tally::{MOST_DOMAINS, Tally, Today};

/// The first part of the names under which days are stored.
pub const PREFIX: &str = "tls-report/";

/// Words of a peer, or about one, as they may stand in a report.
fn cut(text: &str, most: usize) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(most).collect()
}
