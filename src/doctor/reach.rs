//! Connections to the mail hosts of a domain, up to the EHLO behind STARTTLS, and what they tell: whether mail leaves at
//! all, and TLS. Nothing is sent but EHLO, STARTTLS and QUIT.

use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::timeout;

use super::finding::Finding;
use super::mx::MailHost;
use crate::config::{Provider, Relay, TlsMode};
use crate::deliver::Connector;
use crate::deliver::oauth::Names;
use crate::deliver::probe::Told;

/// How long one host may take.
const LIMIT: Duration = Duration::from_secs(60);
/// Hosts that are connected to.
pub const MOST_HOSTS: usize = 5;

/// Addresses that are known already.
struct Known<'a>(&'a [IpAddr]);

#[async_trait]
impl Names for Known<'_> {
    async fn addresses(&self, _host: &str) -> Result<Vec<IpAddr>, String> {
        Ok(self.0.to_vec())
    }
}

/// Connects to the hosts, one after the other, on the port of `provider`.
pub async fn reach(connector: &Connector, provider: &Provider, hosts: &[MailHost]) -> Vec<(MailHost, Reached)> {
    let mut reached = Vec::new();
    for host in hosts.iter().take(MOST_HOSTS) {
        reached.push((host.clone(), one(connector, provider, host).await));
    }
    reached
}

async fn one(connector: &Connector, provider: &Provider, host: &MailHost) -> Reached {
    match steps(connector, provider, host, TlsMode::Verified).await {
        // Is it the certificate alone?
        Reached::NoTls(why) => match steps(connector, provider, host, TlsMode::Required).await {
            Reached::Good(_) => Reached::Certificate(why),
            _ => Reached::NoTls(why),
        },
        other => other,
    }
}

async fn steps(connector: &Connector, provider: &Provider, host: &MailHost, tls: TlsMode) -> Reached {
    let provider = Provider { tls, relay: None, ..provider.clone() };
    let relay = Relay::new(&host.name, provider.port, false, None);
    let mut told: Vec<Told> = Vec::new();
    let mut tell = |step: Told| told.push(step);
    let known = Known(&host.addresses);
    if timeout(LIMIT, connector.greet(&provider, &relay, &known, &mut tell)).await.is_err() {
        let why = format!("it takes longer than {} s", LIMIT.as_secs());
        return if told.iter().any(|step| step.step == "TCP") { Reached::NoDialog(why) } else { Reached::Nobody(why) };
    }
    let failed = told.iter().find_map(|step| step.result.as_ref().err().map(|why| (step.step, why.clone())));
    match failed {
        None => {
            let tls = told.iter().find(|step| step.step == "TLS").and_then(|step| step.result.as_ref().ok());
            Reached::Good(tls.cloned().unwrap_or_default())
        }
        Some(("name" | "TCP", why)) => Reached::Nobody(why),
        Some(("TLS", why)) => Reached::NoTls(why),
        Some((_, why)) if why.starts_with("STARTTLS") => Reached::NoTls(why),
        Some((_, why)) => Reached::NoDialog(why),
    }
}

/// How far it went with one host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reached {
    /// No TCP connection: why.
    Nobody(String),
    /// There was one, and then no SMTP: why.
    NoDialog(String),
    /// STARTTLS is not offered, or does not work: why.
    NoTls(String),
    /// TLS, with a certificate that is not good: why.
    Certificate(String),
    /// TLS with a good certificate: which version.
    Good(String),
}

/// `enforced`: a policy of MTA-STS demands a good certificate. `port` is what was connected to.
pub fn judge(domain: &str, reached: &[(MailHost, Reached)], port: u16, enforced: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let any = reached.iter().any(|(_, how)| !matches!(how, Reached::Nobody(_)));
    let way = format!("port {port}");
    findings.push(match (any, reached.is_empty()) {
        (_, true) => Finding::skipped("way out", domain, "there is no mail host to connect to"),
        (true, _) => Finding::ok("way out", domain, format!("{way} of the Internet can be reached from here")),
        (false, _) => {
            Finding::failed("way out", domain, format!("{way} of none of its hosts can be reached from here")).with(
                "cloud providers close outgoing port 25: ask yours to open it, or send through a smart host \
                 on port 587 (`relay`); if others can be reached, the hosts themselves are down",
            )
        }
    });
    for (host, how) in reached {
        let of = host.name.as_str();
        findings.push(match how {
            Reached::Nobody(why) if any => Finding::failed("STARTTLS", of, format!("cannot be reached: {why}"))
                .with("take it out of MX, or start it"),
            Reached::Nobody(why) => Finding::unknown("STARTTLS", of, why.clone()).with("see the way out"),
            Reached::NoDialog(why) => Finding::failed("STARTTLS", of, format!("no SMTP: {why}")),
            Reached::NoTls(why) => Finding::failed("STARTTLS", of, why.clone())
                .with("mail to it is sent in clear text, or not at all: switch TLS on"),
            Reached::Certificate(why) if enforced => Finding::failed("STARTTLS", of, why.clone())
                .with("its MTA-STS policy demands a good certificate: senders give it no mail"),
            Reached::Certificate(why) => Finding::note("STARTTLS", of, why.clone())
                .with("senders take it as long as there is no policy; a certificate of a known authority is better"),
            Reached::Good(how) => Finding::ok("STARTTLS", of, how.clone()),
        });
    }
    findings
}
