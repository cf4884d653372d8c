//! Records of a name as DNS has them now, for commands that look at what a domain publishes. Nothing is kept, and each
//! answer is cut to a bound: [`MOST`] records, each text to [`MAX_TEXT`] bytes.

use std::net::IpAddr;

use hickory_resolver::proto::rr::{RData, RecordType};

use super::dns::{Answer, Failure, Whose};
use super::domain::{parse_name, printed};
use super::router::Router;
use super::tlsa::is_usable;

/// Records of an answer that are looked at.
const MOST: usize = 100;
/// Bytes of a text that are looked at: whatever is longer is none of the records that mail knows.
const MAX_TEXT: usize = 8192;

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Asked {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Mail hosts.
    Mx,
    /// Texts.
    Txt,
    /// The name of an address.
    Ptr,
    /// Certificates of a service.
    Tlsa,
}

/// A record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    /// A or AAAA.
    Ip(IpAddr),
    /// Preference and host: lower case, no trailing dot; empty for the root.
    Mx(u16, String),
    /// The strings of a TXT record put together.
    Text(String),
    /// The name that a PTR record leads to.
    Name(String),
    /// Whether SMTP can use this TLSA record (RFC 7672 §3.1).
    Tlsa(bool),
}

/// An answer, which may be that there is nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Answered {
    /// The records.
    pub records: Vec<Said>,
    /// The name does not exist at all.
    pub no_such_name: bool,
    /// Where a CNAME led.
    pub alias: Option<String>,
    /// The answer is signed, and that was checked.
    pub secure: bool,
}

impl Asked {
    fn kind(self) -> RecordType {
        match self {
            Asked::A => RecordType::A,
            Asked::Aaaa => RecordType::AAAA,
            Asked::Mx => RecordType::MX,
            Asked::Txt => RecordType::TXT,
            Asked::Ptr => RecordType::PTR,
            Asked::Tlsa => RecordType::TLSA,
        }
    }
}

impl Router {
    /// What DNS has of a name. Asks the name servers each time; a name that DNS cannot know has nothing.
    ///
    /// # Errors
    /// Nobody knows now: why, for people.
    pub async fn records(&self, name: &str, asked: Asked) -> Result<Answered, String> {
        let Some(name) = parse_name(name) else {
            return Ok(Answered { no_such_name: true, ..Answered::default() });
        };
        match self.dns().lookup(&name, asked.kind(), Whose::Known).await {
            Ok(Answer::Found { data, canonical, secure, .. }) => {
                let records = data.iter().filter_map(said).take(MOST).collect();
                let alias = (canonical != name).then(|| printed(&canonical));
                Ok(Answered { records, no_such_name: false, alias, secure })
            }
            Ok(Answer::NoData { .. }) => Ok(Answered::default()),
            Ok(Answer::NoDomain { .. }) => Ok(Answered { no_such_name: true, ..Answered::default() }),
            Ok(Answer::Bogus(text)) | Err(Failure(text)) => Err(text),
        }
    }
}

fn said(data: &RData) -> Option<Said> {
    match data {
        RData::MX(mx) => Some(Said::Mx(mx.preference, printed(&mx.exchange))),
        RData::TXT(txt) => {
            let mut text = txt.txt_data.concat();
            text.truncate(MAX_TEXT);
            Some(Said::Text(String::from_utf8_lossy(&text).into_owned()))
        }
        RData::PTR(name) => Some(Said::Name(printed(name))),
        RData::TLSA(record) => Some(Said::Tlsa(is_usable(record))),
        other => other.ip_addr().map(Said::Ip),
    }
}
