//! What mailin calls: policy, body and submission of one session.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mailin_embedded::{Action, Handler, Response};
use tokio::time::{Instant, timeout};
use tracing::info;

use super::{Phase, Registry, Visit};
use crate::listener::draft::Draft;
use crate::listener::memory::Crowded;
use crate::listener::submit::{Client, Transaction};
use crate::mail::{BodyKind, Caller, Envelope, Notify};
use crate::queue::QueueError;
use crate::smtp::{LineEnds, Reply};

const BARE_LF: Reply =
    Reply::new(554, "5.6.0", "Message with a bare LF, which this engine cannot take; closing connection");
const NO_TRANSACTION: Reply = Reply::new(503, "5.5.1", "No mail transaction");
const HELO_FIRST: Reply = Reply::new(503, "5.5.1", "Send HELO or EHLO first");
const NOT_YOU: Reply = Reply::new(421, "4.3.0", "Not a client of this listener, closing connection");
/// mailin's view of us: one for each session, made by `clone` in its accept loop.
pub(super) struct Hook {
    registry: Arc<Registry>,
    visit: Option<Arc<Visit>>,
    client: Client,
    transaction: Option<Transaction>,
    body: Option<Box<Body>>,
}

struct Body {
    draft: Draft,
    ends: LineEnds,
    bare_lf: bool,
    failed: Option<QueueError>,
}

impl Hook {
    pub fn new(registry: Arc<Registry>) -> Hook {
        let client = Client::new(Caller::Ip(Ipv4Addr::UNSPECIFIED.into()));
        Hook { registry, visit: None, client, transaction: None, body: None }
    }

    fn phase(&self, phase: Phase) {
        if let Some(visit) = &self.visit {
            visit.phase.send_replace(phase);
        }
    }

    fn end_upload(&self) {
        if let Some(visit) = &self.visit {
            visit.upload.lock().end();
        }
    }

    /// Drops what came of a message that will not be queued.
    fn abandon(&mut self) -> Option<u64> {
        let mut body = self.body.take()?;
        let shared = &self.registry.shared;
        self.registry.handle.block_on(body.draft.abandon(shared.queue()));
        self.end_upload();
        Some(body.draft.content())
    }
}

impl Clone for Hook {
    fn clone(&self) -> Hook {
        if self.registry.stopping.load(Ordering::Acquire) {
            // See the module: the only way out of mailin's accept loop. No panic message.
            resume_unwind(Box::new("the listener is closed"));
        }
        Hook::new(self.registry.clone())
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        let sender = self.transaction.as_ref().map_or(String::new(), |t| t.envelope.sender().to_owned());
        if let Some(size) = self.abandon() {
            info!(sender, client = %self.client.caller, helo = &*self.client.helo, size,
                "disconnected before the end of the message, nothing queued");
        }
    }
}

fn response(reply: &Reply) -> Response {
    let space = if reply.enhanced.is_empty() { "" } else { " " };
    Response::custom(reply.code, format!("{}{space}{}", reply.enhanced, reply.text))
}

/// mailin stays in DATA after an error at its end, and would take commands for content: close.
fn closing(reply: &Reply) -> Response {
    let mut response = if reply.is_transient() {
        Response::custom(421, format!("{} {}", reply.enhanced, reply.text))
    } else {
        response(reply)
    };
    response.action = Action::Close;
    response
}

impl Registry {
    /// Waits for memory for a message that has `content` bytes so far.
    fn wait_for_memory(&self, visit: Option<&Visit>, content: u64) -> Result<(), QueueError> {
        let Some(visit) = visit else { return Ok(()) };
        let none = || QueueError::Full("no memory for a large message now".into());
        let asked = {
            let mut upload = visit.upload.lock();
            if upload.covers(content) {
                return Ok(());
            }
            upload.ask().map_err(|Crowded| none())?
        };
        let Some(waiting) = asked else { return Ok(()) };
        let limit = self.shared.listener.data_timeout;
        let granted = self.handle.block_on(async { timeout(limit, waiting).await });
        let ticket = granted.ok().flatten().ok_or_else(none)?;
        visit.upload.lock().put(ticket);
        Ok(())
    }
}

impl Handler for Hook {
    fn helo(&mut self, _ip: IpAddr, domain: &str) -> Response {
        if self.visit.is_none() {
            let Some(visit) = self.registry.visits.lock().remove(domain) else { return closing(&NOT_YOU) };
            self.client.caller = Caller::Ip(visit.ip);
            self.visit = Some(visit);
        } else {
            // mailin lets control characters through; the name goes to the log.
            let name = domain.chars().take(255).map(|c| if c.is_control() { '?' } else { c });
            self.client.helo = name.collect::<String>().into();
            self.transaction = None;
            self.phase(Phase::Idle);
        }
        mailin_embedded::response::OK
    }

    fn mail(&mut self, _ip: IpAddr, _domain: &str, from: &str) -> Response {
        let policy = &self.registry.shared.policy;
        if self.client.helo.is_empty() && policy.needs_helo(self.client.caller.ip()) {
            return response(&HELO_FIRST);
        }
        match policy.sender(from, false) {
            Ok(reverse_path) => {
                let envelope = Envelope { reverse_path, ..Envelope::default() };
                let memory = self.registry.shared.intake.memory().envelope();
                let now = self.registry.shared.intake.clock().now();
                let rewritten = policy.rewritten(None, envelope.reverse_path.as_ref(), now);
                self.transaction = Some(Transaction::new(envelope, 0, memory).sent_as(rewritten));
                self.phase(Phase::Transaction);
                response(&Reply::new(250, "2.1.0", "Sender ok"))
            }
            Err(reply) => response(&reply),
        }
    }

    fn rcpt(&mut self, to: &str) -> Response {
        let Some(tx) = &mut self.transaction else { return response(&NO_TRANSACTION) };
        let policy = &self.registry.shared.policy;
        let (may_relay, now) =
            (policy.may_relay(self.client.caller.ip(), None), self.registry.shared.intake.clock().now());
        let forward = policy.recipient(may_relay, tx.recipients.len(), to, false, now);
        match forward.and_then(|forward| tx.add(&forward, Notify::default(), None)) {
            Ok(()) => response(&Reply::new(250, "2.1.5", "Recipient ok")),
            Err(reply) => {
                info!(client = %self.client.caller, helo = &*self.client.helo, sender = tx.envelope.sender(),
                    recipient = %to.escape_debug(), %reply, "recipient refused");
                response(&reply)
            }
        }
    }

    fn data_start(&mut self, _domain: &str, _from: &str, is8bit: bool, _to: &[String]) -> Response {
        let Some(tx) = &mut self.transaction else { return response(&NO_TRANSACTION) };
        if is8bit {
            tx.envelope.body = BodyKind::EightBitMime;
        }
        let draft = self.registry.shared.draft(&self.client, tx);
        if let Some(visit) = &self.visit {
            visit.upload.lock().begin(0);
        }
        self.body = Some(Box::new(Body { draft, ends: LineEnds::new(), bare_lf: false, failed: None }));
        self.phase(Phase::Data);
        mailin_embedded::response::OK
    }

    /// One line, its leading dot already removed.
    fn data(&mut self, line: &[u8]) -> io::Result<()> {
        let Some(body) = self.body.as_deref_mut() else { return Ok(()) };
        body.bare_lf |= !line.ends_with(b"\r\n");
        if body.bare_lf || body.failed.is_some() {
            // An error here would be answered line by line; it is answered at the end.
            return Ok(());
        }
        let Body { draft, ends, failed, .. } = body;
        ends.feed(line, |run| draft.push(run));
        if draft.has_chunk() {
            let began = Instant::now();
            *failed = self.registry.handle.block_on(draft.spill(self.registry.shared.queue())).err();
            if let Some(visit) = &self.visit {
                visit.upload.lock().pause(began.elapsed());
            }
        }
        let content = draft.content();
        if failed.is_none() && draft.refusal().is_none() {
            *failed = self.registry.wait_for_memory(self.visit.as_deref(), content).err();
        }
        Ok(())
    }

    fn data_end(&mut self) -> Response {
        let (Some(tx), Some(mut body)) = (self.transaction.take(), self.body.take()) else {
            return closing(&NO_TRANSACTION);
        };
        let shared = &self.registry.shared;
        let response = if body.bare_lf {
            self.registry.handle.block_on(body.draft.abandon(shared.queue()));
            info!(client = %self.client.caller, helo = &*self.client.helo, sender = tx.envelope.sender(), reply = %BARE_LF, "refused");
            closing(&BARE_LF)
        } else {
            let Body { draft, failed, .. } = *body;
            match self.registry.handle.block_on(shared.submit(&self.client, tx, draft, failed)) {
                Ok(accepted) => response(&accepted.reply()),
                Err(reply) => closing(&reply),
            }
        };
        self.end_upload();
        self.phase(Phase::Idle);
        response
    }
}
