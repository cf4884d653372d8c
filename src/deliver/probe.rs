//! A session with a smart host step by step, for a person who wants to know why it does not come about.
//!
//! The same dialog as `session`, told as it goes on; no message is sent, and nothing of it is remembered.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::connect::Connector;
use super::demand::Demand;
use super::fact::{Event, Peer, Stage};
use super::oauth::{Names, known, told};
use super::session::{Setup, ask, authenticate, dialog, hello, part, start_tls};
use super::shown::Shown;
use super::wire::{Io, Wire};
use super::{Capabilities, Timeouts, command};
use crate::config::{Provider, Redactor, Relay};
use crate::route::TlsPolicy;

/// How long an address may take: somebody waits before the screen.
const CONNECT: Duration = Duration::from_secs(10);

/// One step, as it went.
#[derive(Debug)]
pub struct Told {
    /// Its name.
    pub step: &'static str,
    /// How long it took.
    pub took: Duration,
    /// What it brought, or what went wrong.
    pub result: Result<String, String>,
    /// More, by name.
    pub more: Vec<(&'static str, String)>,
    /// What to do where it went wrong, if that is known.
    pub advice: Option<&'static str>,
}

/// Who is told.
pub type Tell<'t> = &'t mut (dyn FnMut(Told) + Send);

/// Where a step begins.
struct Steps<'t> {
    tell: Tell<'t>,
    began: Instant,
}

impl Steps<'_> {
    fn done(&mut self, step: &'static str, text: impl Into<String>, more: Vec<(&'static str, String)>) {
        let took = self.began.elapsed();
        (self.tell)(Told { step, took, result: Ok(text.into()), more, advice: None });
        self.began = Instant::now();
    }

    fn failed(&mut self, step: &'static str, why: String) -> Failed {
        let advice = known::what_to_do(&why).filter(|advice| !why.contains(advice));
        let took = self.began.elapsed();
        (self.tell)(Told { step, took, result: Err(why), more: Vec::new(), advice });
        Failed
    }
}

/// It was told already.
#[derive(Debug)]
pub struct Failed;

impl Connector {
    /// Goes through a login at the smart host of a provider, and a MAIL from `sender`, which is taken back.
    ///
    /// # Errors
    /// A step failed, which was told.
    pub async fn probe(
        &self,
        provider: &Provider,
        names: &dyn Names,
        sender: &str,
        tell: Tell<'_>,
    ) -> Result<(), Failed> {
        let mut steps = Steps { tell, began: Instant::now() };
        let Some(relay) = &provider.relay else {
            return Err(steps.failed("name", format!("{} has no `relay`: there is nobody to log in to", provider.name)));
        };
        let (stream, address) = connect(relay, names, &mut steps).await?;
        let demand = Demand::new(provider, &TlsPolicy::None);
        let shown = Shown::default();
        let setup = self.setup_for(provider, relay, address.ip(), (&demand, &shown));
        let mut peer = Peer { host: relay.host.clone(), ip: Some(address.ip()), tls: None };
        let (mut wire, caps) = greet(stream, &setup, relay, &mut peer, &mut steps).await?;
        let done = talk(&mut wire, &caps, &setup, &peer, sender, &mut steps).await;
        if !wire.is_broken() {
            part(&mut wire, &setup.timeouts, &(Stage::Idle, Event::Missing(String::new()))).await;
        }
        done
    }

    /// Goes to a mail host up to the EHLO behind STARTTLS, as `tls` of the provider asks for, and no further.
    ///
    /// # Errors
    /// A step failed, which was told.
    pub async fn greet(
        &self,
        provider: &Provider,
        host: &Relay,
        names: &dyn Names,
        tell: Tell<'_>,
    ) -> Result<(), Failed> {
        let mut steps = Steps { tell, began: Instant::now() };
        let (stream, address) = connect(host, names, &mut steps).await?;
        let demand = Demand::new(provider, &TlsPolicy::None);
        let shown = Shown::default();
        let setup = self.setup_for(provider, host, address.ip(), (&demand, &shown));
        let mut peer = Peer { host: host.host.clone(), ip: Some(address.ip()), tls: None };
        let (mut wire, _) = greet(stream, &setup, host, &mut peer, &mut steps).await?;
        part(&mut wire, &setup.timeouts, &(Stage::Idle, Event::Missing(String::new()))).await;
        Ok(())
    }
}

async fn connect(relay: &Relay, names: &dyn Names, steps: &mut Steps<'_>) -> Result<(TcpStream, SocketAddr), Failed> {
    let addresses = names.addresses(&relay.host).await.map_err(|why| steps.failed("name", why))?;
    let shown: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    steps.done("name", format!("{} is {}", relay.host, shown.join(", ")), Vec::new());
    let mut why = String::new();
    for ip in addresses {
        let address = SocketAddr::new(ip, relay.port);
        match timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                steps.done("TCP", format!("connected to {address}"), Vec::new());
                return Ok((stream, address));
            }
            Ok(Err(e)) => why = format!("{address}: {e}"),
            Err(_) => why = format!("{address} does not answer within {} s", CONNECT.as_secs()),
        }
    }
    Err(steps.failed("TCP", why))
}

/// Up to the last EHLO.
async fn greet(
    stream: TcpStream,
    setup: &Setup<'_>,
    relay: &Relay,
    peer: &mut Peer,
    steps: &mut Steps<'_>,
) -> Result<(Wire, Capabilities), Failed> {
    let io: Box<dyn Io> = Box::new(stream);
    let tls = |peer: &Peer| {
        format!(
            "{}, the certificate is {}",
            peer.tls.map_or("TLS", |tls| tls.version),
            match setup.provider.tls {
                crate::config::TlsMode::Verified => "good",
                _ => "not checked (`tls`)",
            }
        )
    };
    let mut wire = match relay.implicit_tls {
        true => {
            let wire = start_tls(io, setup, peer).await.map_err(|((_, e), _)| steps.failed("TLS", e.to_string()))?;
            steps.done("TLS", tls(peer), Vec::new());
            wire
        }
        false => Wire::new(io, &Redactor::default()),
    };
    wire.redact_also(&setup.redactor());
    let (mut caps, starts_tls) = dialog(&mut wire, setup, relay.implicit_tls)
        .await
        .map_err(|(stage, event)| steps.failed("EHLO", format!("{stage}: {event}")))?;
    steps.done("EHLO", "greeted", offers(&caps));
    if starts_tls {
        wire =
            start_tls(wire.into_io(), setup, peer).await.map_err(|((_, e), _)| steps.failed("TLS", e.to_string()))?;
        steps.done("TLS", tls(peer), Vec::new());
        caps = hello(&mut wire, setup).await.map_err(|(_, event)| steps.failed("EHLO", event.to_string()))?;
        steps.done("EHLO", "greeted again", offers(&caps));
    }
    Ok((wire, caps))
}

fn offers(caps: &Capabilities) -> Vec<(&'static str, String)> {
    let mechanisms = super::auth::offered(caps);
    vec![(
        "offers",
        if mechanisms.is_empty() { "no AUTH".to_owned() } else { format!("AUTH {}", mechanisms.join(" ")) },
    )]
}

/// Token, AUTH, MAIL, RSET.
async fn talk(
    wire: &mut Wire,
    caps: &Capabilities,
    setup: &Setup<'_>,
    peer: &Peer,
    sender: &str,
    steps: &mut Steps<'_>,
) -> Result<(), Failed> {
    match setup.tokens.get(setup.provider).await {
        Ok(Some(token)) => {
            let more = told(token.secret().reveal());
            steps.done("token", format!("holds {} s", token.life().as_secs()), more);
        }
        Ok(None) => {}
        Err(fault) => return Err(steps.failed("token", fault.text)),
    }
    authenticate(wire, caps, setup, peer).await.map_err(|event| steps.failed("AUTH", event.to_string()))?;
    steps.done("AUTH", "logged in", Vec::new());
    for (step, line) in [("MAIL", format!("MAIL FROM:<{sender}>\r\n")), ("RSET", "RSET\r\n".to_owned())] {
        command::print(&mut wire.out, line);
        let reply = ask(wire, &setup.timeouts, Stage::Mail).await;
        let reply = reply.map_err(|(_, event)| steps.failed(step, event.to_string()))?;
        if !reply.is_positive() {
            return Err(steps.failed(step, reply.to_string()));
        }
        steps.done(step, reply.to_string(), Vec::new());
    }
    Ok(())
}

/// What a person waits for.
pub(super) fn timeouts() -> Timeouts {
    let brief = Duration::from_secs(30);
    Timeouts { greeting: brief, ehlo: brief, tls: brief, mail: brief, write: brief, ..Timeouts::default() }
}
