//! Examinations without a network: DNS is a few lines of text.

mod domains;
mod forms;
mod spf_standard;
mod spf_suite;

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::names::{Asker, Names};
use crate::route::{Answered, Asked, Said};

/// Records by name and kind; a name with any record exists.
#[derive(Default)]
struct Zone(HashMap<(String, Asked), Result<Answered, String>>, HashMap<String, String>);

impl Zone {
    /// Lines `NAME KIND DATA`; data `!` is a name server that fails, and nothing is an empty answer of its own.
    fn of(lines: &str) -> Zone {
        let mut zone = Zone::default();
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let mut words = line.splitn(3, ' ');
            let (name, kind) = (words.next().expect("a name"), words.next().expect("a kind"));
            zone.add(name, kind, words.next().unwrap_or_default().trim());
        }
        zone
    }

    fn add(&mut self, name: &str, kind: &str, data: &str) {
        if kind == "CNAME" {
            self.1.insert(name.to_lowercase(), data.trim_end_matches('.').to_lowercase());
            return;
        }
        let (asked, said) = match kind {
            "A" => (Asked::A, data.parse().ok().map(Said::Ip)),
            "AAAA" => (Asked::Aaaa, data.parse().ok().map(Said::Ip)),
            "TXT" => (Asked::Txt, Some(Said::Text(data.to_owned()))),
            "PTR" => (Asked::Ptr, Some(Said::Name(data.trim_end_matches('.').to_lowercase()))),
            "TLSA" => (Asked::Tlsa, Some(Said::Tlsa(data == "usable"))),
            "MX" => {
                let (preference, host) = data.split_once(' ').unwrap_or((data, ""));
                let host = host.trim_end_matches('.').to_lowercase();
                (Asked::Mx, preference.parse().ok().map(|preference| Said::Mx(preference, host)))
            }
            other => panic!("{other} in {name}"),
        };
        let key = (name.trim_end_matches('.').to_lowercase(), asked);
        if data == "!" {
            self.0.insert(key, Err(format!("SERVFAIL for {name}")));
            return;
        }
        let said = said.unwrap_or_else(|| panic!("{data} of {name} {kind}"));
        if let Ok(answer) = self.0.entry(key).or_insert_with(|| Ok(Answered::default())) {
            answer.records.push(said);
        }
    }
}

#[async_trait]
impl Names for Zone {
    async fn ask(&self, name: &str, asked: Asked) -> Result<Answered, String> {
        if let Some(alias) = self.1.get(name) {
            let answer = self.ask(alias, asked).await?;
            return Ok(Answered { alias: Some(alias.clone()), ..answer });
        }
        let nothing =
            || Answered { no_such_name: !self.0.keys().any(|(known, _)| known == name), ..Answered::default() };
        self.0.get(&(name.to_owned(), asked)).cloned().unwrap_or_else(|| Ok(nothing()))
    }
}

fn asker(zone: &Zone) -> Asker<'_> {
    Asker::new(zone, Instant::now() + Duration::from_secs(30))
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}
