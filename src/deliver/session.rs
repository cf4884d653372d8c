//! One connection to one host: greeting, EHLO or HELO, STARTTLS, AUTH; then idle between
//! transactions; then QUIT.
//!
//! Invariants: nothing that came in clear text is believed after STARTTLS (RFC 3207 §6); the
//! capabilities are those of the last EHLO; once a connection is not usable it never is again.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use lettre::transport::smtp::commands::{Ehlo, Quit, Starttls};
use lettre::transport::smtp::extension::ClientId;

use super::auth::Login;
use super::awaited::Awaited;
use super::chunks::Chunks;
use super::dead::{EarlyEnd, Serving};
use super::demand::Demand;
use super::fact::{Event, Fact, Peer, Reply, Stage, Tls};
use super::oauth::{Fault, Tokens};
use super::quirks::{Hosts, Place, Quirks};
use super::session_limits::Domains;
use super::shown::Shown;
use super::step::Form;
use super::stray::LastWord;
use super::tls::TlsSettings;
use super::transaction::End;
use super::wire::{Io, Wire, Written};
use super::{Capabilities, Timeouts, auth, command};
use crate::config::{Provider, Redactor};
use crate::mail::{Address, FeatureKeys, QueueId};
use crate::route::TlsPolicy;
use crate::tls_report::ResultType;

/// What a session is set up with.
#[derive(Clone, Copy)]
pub struct Setup<'a> {
    /// Our name in EHLO.
    pub hostname: &'a str,
    /// TLS mode, credentials, and what may be used of what is offered.
    pub provider: &'a Provider,
    /// Name of the host, which its certificate must have.
    pub host: &'a str,
    /// Its address.
    pub ip: IpAddr,
    /// What TLS has to show.
    pub demand: &'a Demand,
    /// TLS roots and configurations.
    pub tls: &'a TlsSettings,
    /// Tokens to log in with.
    pub tokens: &'a Tokens,
    /// How long to wait.
    pub timeouts: Timeouts,
    /// STARTTLS has just failed with this address: go on without.
    pub clear_text: bool,
    /// Where to note what it shows of TLS.
    pub shown: &'a Shown,
}

impl Setup<'_> {
    /// For all that the host says, from its greeting on: it may have heard our secrets before.
    pub(super) fn redactor(&self) -> Redactor {
        let relay = self.provider.relay.as_ref();
        relay.map(|relay| relay.redactor().and(&self.tokens.redactor(self.provider))).unwrap_or_default()
    }
}

/// A session that did not come about.
#[derive(Debug)]
pub struct SetupFailure {
    /// What happened.
    pub fact: Fact,
    /// It was the TLS handshake: an opportunistic client may try once more in clear text.
    pub handshake: bool,
}

/// A session with a host, ready for transactions.
pub struct Connection {
    pub(super) wire: Wire,
    pub(super) peer: Peer,
    pub(super) caps: Capabilities,
    pub(super) timeouts: Timeouts,
    /// Use PIPELINING, CHUNKING: offered and allowed.
    pub(super) pipelining: bool,
    pub(super) chunking: bool,
    pub(super) usable: bool,
    /// A transaction was begun and did not end: RSET comes first.
    pub(super) dirty: bool,
    pub(super) sent: u32,
    /// The domains of its recipients, where the host counts them.
    pub(super) domains: Domains,
    /// The local address it was bound to; `None`: the system chose.
    pub(super) source: Option<IpAddr>,
    /// What TLS had to show.
    demand: Demand,
    /// All of the last transaction was written, its body too, before the first reply was read.
    pub(super) all_out: bool,
    /// MAIL and RCPT have no parameters but SMTPUTF8: the host refuses what it offers.
    pub(super) plain: bool,
    /// What it has shown of BDAT.
    pub(super) chunks: Chunks,
    /// What was said before the next transaction has ended the connection.
    pub(super) unready: Option<End>,
    /// The form of its replies to RCPT, where that to the end of a message is known to have another one.
    pub(super) apart: Option<Form>,
    /// Our name, said again where it has to show that its replies are in step.
    pub(super) hello: ClientId,
    /// Where what this host does not take is remembered, and by which name, see [`Connection::heed`].
    pub(super) quirks: Option<(Hosts, Place)>,
    /// Where to tell that it ended before it took anything; `None` once it has.
    pub(super) early: Option<EarlyEnd>,
    /// Since then.
    pub(super) serving: Option<Serving>,
    /// The message of the transaction under way, and what it waits for.
    pub(super) message: (QueueId, FeatureKeys),
    pub(super) awaited: Arc<Awaited>,
    /// The code of the reply read last.
    pub(super) last_code: u16,
    /// A host that answers twice has had its moment before the next MAIL.
    pub(super) waited: bool,
    /// What it said to the end of the last message.
    pub(super) last_word: LastWord,
    /// What it says to each chunk of a message but the last (see `chunks`).
    pub(super) alike: Option<Reply>,
}

pub(super) type Failed = (Stage, Event);

impl Connection {
    /// Makes a session over a connected stream, up to and including AUTH.
    pub async fn establish(io: impl Io + 'static, setup: Setup<'_>) -> Result<Connection, SetupFailure> {
        Connection::establish_over(Box::new(io), setup).await
    }

    /// [`Connection::establish`] over a stream that is boxed already.
    pub(super) async fn establish_over(io: Box<dyn Io>, setup: Setup<'_>) -> Result<Connection, SetupFailure> {
        let mut peer = Peer { host: setup.host.into(), ip: Some(setup.ip), tls: None };
        match establish(io, &setup, &mut peer).await {
            Ok((wire, caps)) => Ok(Connection {
                wire,
                peer,
                caps,
                timeouts: setup.timeouts,
                pipelining: caps.pipelining && setup.provider.pipelining,
                chunking: caps.chunking && setup.provider.chunking,
                usable: true,
                dirty: false,
                sent: 0,
                domains: Domains::default(),
                source: None,
                demand: setup.demand.clone(),
                all_out: false,
                plain: false,
                chunks: Chunks::Untried,
                unready: None,
                apart: None,
                hello: command::client_id(setup.hostname),
                quirks: None,
                early: None,
                serving: None,
                message: (QueueId(0), FeatureKeys::default()),
                awaited: Arc::default(),
                last_code: 250,
                waited: false,
                last_word: LastWord::default(),
                alike: None,
            }),
            Err(((stage, event), handshake)) => {
                let fact = setup.demand.explain(Fact { stage, event, peer: Some(peer) });
                Err(SetupFailure { fact, handshake })
            }
        }
    }

    /// Does without what this host is known not to take at this address, and remembers there what else turns out.
    pub(super) fn heed(&mut self, hosts: Hosts, address: SocketAddr) {
        let place = Place { host: self.peer.host.clone(), address };
        let quirks = hosts.of(&place);
        self.pipelining &= !quirks.serial;
        self.chunking &= !quirks.serial && !quirks.no_bdat;
        if quirks.unasked {
            self.caps.limits.recipients = Some(1);
        }
        if quirks.no_parameters || quirks.try_without {
            self.do_without_parameters();
        }
        self.quirks = Some((hosts, place));
    }

    /// As if it had shown already that it obeys BDAT, and had said `250 2.1.5` to a recipient, for tests of what comes then.
    #[doc(hidden)]
    pub fn obeys_bdat(mut self) -> Connection {
        self.chunks = Chunks::Obeyed;
        self.apart = Some(Form::of(&Reply { code: 250, enhanced: Some((2, 1, 5)), text: String::new() }));
        self
    }

    /// From now on; DSN is among what they ask for, so its duties stay with us.
    pub(super) fn do_without_parameters(&mut self) {
        self.plain = true;
        self.caps.dsn = false;
    }

    /// Remembers something of this host.
    pub(super) fn note(&self, note: impl FnOnce(&mut Quirks)) {
        if let Some((hosts, place)) = &self.quirks {
            hosts.note(place, note);
        }
    }

    /// What is known against this host.
    pub(super) fn known_quirks(&self) -> Quirks {
        self.quirks.as_ref().map(|(hosts, place)| hosts.of(place)).unwrap_or_default()
    }

    /// Whether there may be another message on it, as far as is known of the host.
    pub fn takes_more(&self) -> bool {
        !self.known_quirks().once && self.caps.limits.messages.is_none_or(|most| self.sent < most)
    }

    /// Whether the host may be asked to take this recipient on this connection, whatever else is in the transaction.
    pub fn may_have(&self, recipient: &Address) -> bool {
        self.caps.limits.domains.is_none_or(|most| self.domains.may_have(recipient.domain(), most))
    }

    /// Which of these recipients its next transaction may have, in their order; `None`: all of them.
    pub fn fitting<'a>(&self, recipients: impl ExactSizeIterator<Item = &'a Address>) -> Option<Vec<bool>> {
        let limits = self.caps.limits;
        let most = limits.recipients.map_or(usize::MAX, |most| most as usize);
        if limits.domains.is_none() && recipients.len() <= most {
            return None;
        }
        let (mut domains, mut left) = (self.domains.clone(), most);
        let fits = |recipient: &Address| {
            let fits = left > 0 && limits.domains.is_none_or(|most| domains.may_have(recipient.domain(), most));
            if fits {
                left -= 1;
                domains.note(recipient.domain());
            }
            fits
        };
        Some(recipients.map(fits).collect::<Vec<bool>>()).filter(|fits| fits.contains(&false))
    }

    /// Whether it was opened for mail that demands REQUIRETLS.
    pub(super) fn keeps_tls(&self) -> bool {
        self.demand.onward && self.peer.tls.is_some() && self.caps.require_tls
    }

    /// It may carry another transaction: not closed, not garbled, no 421.
    pub fn is_usable(&self) -> bool {
        self.usable && !self.wire.is_broken() && !self.wire.is_pending()
    }

    /// Transactions made so far, accepted or not.
    pub fn sent(&self) -> u32 {
        self.sent
    }

    /// The configured local address it comes from; `None`: the system chose.
    pub fn source(&self) -> Option<IpAddr> {
        self.source
    }

    /// Whether it is encrypted as mail of this provider has to be to a host for which this is published: it was opened
    /// for other mail.
    pub fn meets(&self, provider: &Provider, policy: &TlsPolicy) -> bool {
        self.demand.covers(&Demand::new(provider, policy), &self.peer)
    }

    /// What it waits for, whenever it is looked at.
    pub fn awaited(&self) -> &Arc<Awaited> {
        &self.awaited
    }

    /// The other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The host's name as in the route.
    pub fn host(&self) -> &str {
        &self.peer.host
    }

    /// What the host offers; BINARYMIME only if a body can go there as octets.
    pub fn capabilities(&self) -> Capabilities {
        Capabilities { binary_mime: self.takes_octets(), ..self.caps }
    }

    /// BINARYMIME, CHUNKING and the parameter of MAIL that announces it are offered, allowed, and not refused before.
    pub(super) fn takes_octets(&self) -> bool {
        self.caps.binary_mime && self.chunking && !self.plain
    }

    /// A cheap look before reuse: false if the peer has closed, or said something (a 421) while
    /// idle, as far as this end knows by now.
    pub fn is_alive(&mut self) -> bool {
        if !self.usable {
            return false;
        }
        let quiet = self.wire.is_quiet();
        if !quiet {
            self.note_stray();
        }
        quiet
    }

    /// The peer has said nothing and not closed, as far as this end knows.
    pub fn is_quiet(&mut self) -> bool {
        self.wire.is_quiet()
    }

    /// Says QUIT if that makes sense, and closes. Waits a bounded time for the peer to close too:
    /// only then does it no longer count this connection, and whoever is next may open another.
    pub async fn quit(mut self) {
        let limit = tokio::time::Instant::now() + self.timeouts.quit;
        if self.is_alive() {
            self.say_good_bye().await;
        }
        self.wire.close(limit.saturating_duration_since(tokio::time::Instant::now())).await;
    }
}

/// QUIT; what the host says to it is not waited for.
async fn quit(wire: &mut Wire, timeouts: &Timeouts) {
    command::print(&mut wire.out, Quit);
    let _ = wire.write(&[], 1, usize::MAX, timeouts.quit).await;
}

/// The whole set-up; the `bool` of the error: it was the handshake.
async fn establish(
    io: Box<dyn Io>,
    setup: &Setup<'_>,
    peer: &mut Peer,
) -> Result<(Wire, Capabilities), (Failed, bool)> {
    let t = &setup.timeouts;
    let provider = setup.provider;
    let implicit = provider.relay.as_ref().is_some_and(|relay| relay.implicit_tls);
    let mut wire = if implicit { start_tls(io, setup, peer).await? } else { Wire::new(io, &setup.redactor()) };
    match dialog(&mut wire, setup, implicit).await {
        Ok((caps, false)) => log_in(wire, caps, setup, peer).await.map_err(|failed| (failed, false)),
        Ok((_, true)) => {
            let mut wire = start_tls(wire.into_io(), setup, peer).await?;
            match hello(&mut wire, setup).await {
                Ok(caps) => log_in(wire, caps, setup, peer).await.map_err(|failed| (failed, false)),
                Err(failed) => {
                    part(&mut wire, t, &failed).await;
                    Err((failed, false))
                }
            }
        }
        Err(failed) => {
            part(&mut wire, t, &failed).await;
            // A server that chokes on STARTTLS itself is like one that chokes on the handshake.
            let handshake = failed.0 == Stage::StartTls && !matches!(failed.1, Event::Garbled(_));
            Err((failed, handshake))
        }
    }
}

pub(super) async fn start_tls(io: Box<dyn Io>, setup: &Setup<'_>, peer: &mut Peer) -> Result<Wire, (Failed, bool)> {
    match setup.tls.handshake(setup, io).await {
        Ok((io, version)) => {
            peer.tls = Some(Tls { version, proof: setup.demand.proof() });
            Ok(Wire::new(io, &setup.redactor()))
        }
        Err(event) => Err(((Stage::StartTls, event), true)),
    }
}

/// Greeting, EHLO and STARTTLS up to the handshake; true: the peer waits for the handshake.
pub(super) async fn dialog(wire: &mut Wire, setup: &Setup<'_>, implicit: bool) -> Result<(Capabilities, bool), Failed> {
    let t = &setup.timeouts;
    let greeting = wire.read(t.greeting).await.map_err(|event| (Stage::Greeting, event))?.reply;
    setup.shown.greeted(&greeting.text);
    positive(Stage::Greeting, greeting)?;
    let caps = hello(wire, setup).await?;
    let demand = setup.demand;
    if implicit || demand.off || (setup.clear_text && !demand.required) {
        return Ok((caps, false));
    }
    if !caps.starttls {
        setup.shown.note(ResultType::StarttlsNotSupported, "STARTTLS is not offered");
        return match demand.required {
            false => Ok((caps, false)),
            true => Err((Stage::StartTls, demand.refusal("the server does not offer STARTTLS".to_owned()))),
        };
    }
    command::print(&mut wire.out, Starttls);
    let mut reply = ask(wire, t, Stage::StartTls).await?;
    // The reply to EHLO once more: 220 alone lets the handshake begin (RFC 3207 §4).
    if reply.code == 250 {
        reply = wire.read(t.ehlo).await.map_err(|event| (Stage::StartTls, event))?.reply;
    }
    if reply.code != 421 && !reply.is_positive() {
        setup.shown.note(ResultType::StarttlsNotSupported, &format!("STARTTLS is refused: {reply}"));
    }
    if reply.code == 421 || !reply.is_positive() && demand.required {
        return Err((Stage::StartTls, Event::Reply(reply)));
    }
    // Whatever stands in the buffer now was put there in clear text (CVE-2011-0411 and its kin).
    if wire.is_pending() {
        return Err((Stage::StartTls, Event::Garbled("input behind the reply to STARTTLS".to_owned())));
    }
    Ok((caps, reply.is_positive()))
}

/// EHLO, or HELO for a host that refuses it (RFC 5321 §3.2).
pub(super) async fn hello(wire: &mut Wire, setup: &Setup<'_>) -> Result<Capabilities, Failed> {
    let t = &setup.timeouts;
    let name = command::client_id(setup.hostname);
    wire.pass_over();
    wire.keep_lines(true);
    command::print(&mut wire.out, Ehlo::new(name.clone()));
    let written = wire.write(&[], 1, usize::MAX, t.write).await;
    let mut received = wire.read(t.ehlo).await;
    // The greeting once more, which no EHLO is answered with.
    if received.as_ref().is_ok_and(|received| received.reply.code == 220) {
        received = wire.read(t.ehlo).await;
    }
    wire.keep_lines(false);
    let received = received.map_err(|event| (Stage::Ehlo, event))?;
    if received.reply.is_permanent() && written == Written::All {
        command::print(&mut wire.out, format_args!("HELO {name}\r\n"));
        positive(Stage::Ehlo, ask(wire, t, Stage::Ehlo).await?)?;
        return Ok(Capabilities::default());
    }
    if received.lines.len() > 1 {
        wire.note_hello(&received.reply);
    }
    positive(Stage::Ehlo, received.reply)?;
    Ok(Capabilities::from_lines(&received.lines))
}

async fn log_in(
    mut wire: Wire,
    caps: Capabilities,
    setup: &Setup<'_>,
    peer: &Peer,
) -> Result<(Wire, Capabilities), Failed> {
    let refused = setup.demand.refuses(&caps, setup.host).map(|event| (Stage::Ehlo, event));
    let failed = match refused {
        Some(failed) => Some(failed),
        None => authenticate(&mut wire, &caps, setup, peer).await.err().map(|event| (Stage::Auth, event)),
    };
    if let Some(failed) = failed {
        part(&mut wire, &setup.timeouts, &failed).await;
        return Err(failed);
    }
    Ok((wire, caps))
}

/// With a password, or with a token, which is renewed once where it is refused; not at all where there is neither.
pub(super) async fn authenticate(
    wire: &mut Wire,
    caps: &Capabilities,
    setup: &Setup<'_>,
    peer: &Peer,
) -> Result<(), Event> {
    let Some(relay) = setup.provider.relay.as_ref() else { return Ok(()) };
    let timeouts = &setup.timeouts;
    let Some(oauth) = &relay.oauth else {
        let Some(credentials) = &relay.auth else { return Ok(()) };
        return auth::authenticate(wire, caps, peer, timeouts, Login::with_password(credentials, relay.port)).await;
    };
    let none = |fault: Fault| Event::NoToken { left: fault.left, why: fault.text };
    let Some(token) = setup.tokens.get(setup.provider).await.map_err(none)? else { return Ok(()) };
    wire.redact_also(token.redactor());
    let first = auth::authenticate(wire, caps, peer, timeouts, Login::with_token(oauth, &token, relay.port)).await;
    let Err(Event::Reply(reply)) = &first else { return first };
    // Hosts say in many ways that it is not good (535, 501 5.5.12x, 554, 530): any refusal for good may be about it.
    if !reply.is_permanent() || wire.is_broken() {
        return first;
    }
    // It may have been revoked, or be about rights that were given since.
    match setup.tokens.renew(setup.provider, &token).await {
        Ok(Some(new)) => {
            wire.redact_also(new.redactor());
            auth::authenticate(wire, caps, peer, timeouts, Login::with_token(oauth, &new, relay.port)).await
        }
        Ok(None) => first,
        Err(fault) => Err(none(fault)),
    }
}

/// Takes leave of a peer that did not want us, as far as it still listens.
pub(super) async fn part(wire: &mut Wire, timeouts: &Timeouts, failed: &Failed) {
    if matches!(
        failed.1,
        Event::Reply(_) | Event::Tls(_) | Event::Missing(_) | Event::NoToken { .. } | Event::Unsendable { .. }
    ) && !wire.is_broken()
    {
        let brief = Timeouts { quit: timeouts.quit.min(Duration::from_secs(1)), ..*timeouts };
        quit(wire, &brief).await;
    }
}

pub(super) async fn ask(wire: &mut Wire, timeouts: &Timeouts, stage: Stage) -> Result<Reply, Failed> {
    wire.pass_over();
    wire.write(&[], 1, usize::MAX, timeouts.write).await;
    wire.read(timeouts.ehlo).await.map(|received| received.reply).map_err(|event| (stage, event))
}

fn positive(stage: Stage, reply: Reply) -> Result<(), Failed> {
    match reply.code {
        200..=299 => Ok(()),
        300..=399 => Err((stage, Event::Garbled(format!("an intermediate reply: {reply}")))),
        _ => Err((stage, Event::Reply(reply))),
    }
}
