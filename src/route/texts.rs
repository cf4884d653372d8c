//! TXT records, for commands that compare what is published with what is configured.

use hickory_resolver::proto::rr::{RData, RecordType};

use super::dns::{Answer, Failure, Whose};
use super::domain::parse_name;
use super::router::Router;

impl Router {
    /// The TXT records of a name, each with its strings put together (RFC 6376 §3.6.2.2); none if there are none, or no
    /// such name. Asks the name servers each time.
    ///
    /// # Errors
    /// Nobody knows now: why, for people.
    pub async fn texts(&self, name: &str) -> Result<Vec<String>, String> {
        let asked = parse_name(name).ok_or_else(|| format!("{name} is no name that DNS could know"))?;
        match self.dns().lookup(&asked, RecordType::TXT, Whose::Known).await {
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
