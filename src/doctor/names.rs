//! Who is asked for records, and the bounds of asking: so many questions and so long for one examination, each question
//! once.

use std::collections::HashMap;
use std::net::IpAddr;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::route::{Answered, Asked, Router, Said};

/// Questions of one examination; the largest records that can be well need about a hundred.
const MOST: usize = 400;

/// Who knows records: name servers, or a test.
#[async_trait]
pub trait Names: Send + Sync {
    /// What there is of a name.
    ///
    /// # Errors
    /// Nobody knows now: why, for people.
    async fn ask(&self, name: &str, asked: Asked) -> Result<Answered, String>;
}

#[async_trait]
impl Names for Router {
    async fn ask(&self, name: &str, asked: Asked) -> Result<Answered, String> {
        self.records(name, asked).await
    }
}

type Answer = Result<Answered, String>;

/// One examination's way to ask.
pub struct Asker<'n> {
    names: &'n dyn Names,
    until: Instant,
    known: Mutex<HashMap<(String, Asked), Answer>>,
}

impl<'n> Asker<'n> {
    /// Until then.
    pub fn new(names: &'n dyn Names, until: Instant) -> Asker<'n> {
        Asker { names, until, known: Mutex::default() }
    }

    /// When the examination has to end.
    pub fn until(&self) -> Instant {
        self.until
    }

    /// What there is of a name.
    pub async fn ask(&self, name: &str, asked: Asked) -> Answer {
        let name = name.trim_end_matches('.').to_lowercase();
        let key = (name, asked);
        let known = {
            let known = self.known.lock();
            match known.get(&key) {
                Some(answer) => Some(answer.clone()),
                None if known.len() >= MOST => {
                    Some(Err(format!("not asked: more than {MOST} questions for one examination")))
                }
                None => None,
            }
        };
        if let Some(answer) = known {
            return answer;
        }
        let answer = match timeout_at(self.until, self.names.ask(&key.0, asked)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer for {} before the time of the examination was over", key.0)),
        };
        self.known.lock().insert(key, answer.clone());
        answer
    }

    /// Its texts.
    pub async fn texts(&self, name: &str) -> Result<Vec<String>, String> {
        let answer = self.ask(name, Asked::Txt).await?;
        Ok(answer
            .records
            .into_iter()
            .filter_map(|said| if let Said::Text(text) = said { Some(text) } else { None })
            .collect())
    }

    /// Its addresses of one family.
    pub async fn addresses(&self, name: &str, v4: bool) -> Result<Vec<IpAddr>, String> {
        let answer = self.ask(name, if v4 { Asked::A } else { Asked::Aaaa }).await?;
        let ip = |said: &Said| if let Said::Ip(ip) = said { Some(*ip) } else { None };
        Ok(answer.records.iter().filter_map(ip).collect())
    }

    /// Its addresses of both families.
    pub async fn all_addresses(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        let (v4, v6) = tokio::join!(self.addresses(name, true), self.addresses(name, false));
        match (v4, v6) {
            (Ok(v4), Ok(v6)) => Ok([v4, v6].concat()),
            // Half an answer that has something is one.
            (Ok(one), Err(_)) | (Err(_), Ok(one)) if !one.is_empty() => Ok(one),
            (Err(why), _) | (_, Err(why)) => Err(why),
        }
    }

    /// The hosts of its MX records, in order of preference.
    pub async fn hosts(&self, name: &str) -> Result<Vec<(u16, String)>, String> {
        let answer = self.ask(name, Asked::Mx).await?;
        let mx = |said: Said| if let Said::Mx(preference, host) = said { Some((preference, host)) } else { None };
        let mut hosts: Vec<(u16, String)> = answer.records.into_iter().filter_map(mx).collect();
        hosts.sort();
        Ok(hosts)
    }

    /// The names of an address.
    pub async fn names_of(&self, ip: IpAddr) -> Result<Vec<String>, String> {
        let answer = self.ask(&reverse(ip, "in-addr.arpa", "ip6.arpa"), Asked::Ptr).await?;
        let name = |said: Said| if let Said::Name(name) = said { Some(name) } else { None };
        Ok(answer.records.into_iter().filter_map(name).collect())
    }
}

/// The name under which things are kept of an address: its parts backwards.
pub fn reverse(ip: IpAddr, v4: &str, v6: &str) -> String {
    let text = super::spf::macros::dotted(ip);
    let mut parts: Vec<&str> = text.split('.').collect();
    parts.reverse();
    parts.push(if ip.is_ipv4() { v4 } else { v6 });
    parts.join(".")
}
