//! TXT records that no mail waits for: of commands that compare what is published with what is configured, and of who
//! wants reports on TLS.

use hickory_resolver::proto::rr::{RData, RecordType};

use super::dns::{Answer, Failure, Whose};
use super::domain::parse_name;
use super::router::Router;
use crate::tls_report::record::{Target, targets};

impl Router {
    /// The TXT records of a name, each with its strings put together (RFC 6376 §3.6.2.2); none if there are none, or no
    /// such name. Asks the name servers each time.
    ///
    /// # Errors
    /// Nobody knows now: why, for people.
    pub async fn texts(&self, name: &str) -> Result<Vec<String>, String> {
        self.texts_for(name, Whose::Known).await
    }

    /// Who wants reports on TLS with the hosts of a domain; nobody, if it does not say so. Asks the name servers each
    /// time, behind mail that asks them.
    ///
    /// # Errors
    /// Nobody knows now: why, for people.
    pub async fn report_targets(&self, domain: &str) -> Result<Vec<Target>, String> {
        let name = format!("_smtp._tls.{domain}");
        // A domain that leaves no room for the labels can have none.
        if parse_name(&name).is_none() {
            return Ok(Vec::new());
        }
        let texts = self.texts_for(&name, Whose::Unknown).await?;
        Ok(targets(texts.iter().map(String::as_str)))
    }

    async fn texts_for(&self, name: &str, whose: Whose) -> Result<Vec<String>, String> {
        let asked = parse_name(name).ok_or_else(|| format!("{name} is no name that DNS could know"))?;
        match self.dns().lookup(&asked, RecordType::TXT, whose).await {
            Ok(Answer::Found { data, .. }) => Ok(data
                .iter()
                .filter_map(|data| match data {
                    RData::TXT(txt) => Some(String::from_utf8_lossy(&txt.txt_data.concat()).into_owned()),
                    _ => None,
                })
                .collect()),
            Ok(Answer::NoData { .. } | Answer::NoDomain { .. }) => Ok(Vec::new()),
            Ok(Answer::Bogus(text)) | Err(Failure(text)) => Err(text),
        }
    }
}
