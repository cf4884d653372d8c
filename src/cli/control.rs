//! `mailweir status` and `mailweir reload`: how the relay that runs is, and a new configuration for it.

use std::io::{self, Write};
use std::time::Duration;

use super::connect::{Lead, Target, must_run};
use super::screen::{self, shown};
use super::text::age_of;
use super::whose::file_of_another;
use super::{Code, Failed, Outcome};
use crate::admin::Status;
use crate::admin::requests::{Reply, Request};
use crate::clock::Clock;
use crate::config::units::Size;

pub(super) async fn status(lead: &Lead, json: bool) -> Outcome {
    let mut status: Option<Status> = None;
    let keep = |reply, _: &[u8]| {
        if let Reply::Status(s) = reply {
            status = Some(*s);
        }
        Ok(())
    };
    must_run(lead).await?.request(Request::Status, keep).await?;
    let status = status.ok_or_else(|| Failed::new(Code::Temporary, "mailweir did not say how it is"))?;
    let mut out = screen::stdout();
    if json {
        writeln!(out, "{}", serde_json::to_string(&status).map_err(io::Error::from)?)?;
        return Ok(());
    }
    let q = &status.queue;
    writeln!(out, "mailweir {} on {}, process {}", status.version, status.hostname, status.pid)?;
    writeln!(out, "running    since {}", age_of(&status.started, Clock::System.now()))?;
    let config = if status.config.is_empty() { "built-in values" } else { &status.config };
    let reloads = match status.reloads {
        0 => String::new(),
        1 => ", 1 reload since the start".to_owned(),
        n => format!(", {n} reloads since the start"),
    };
    let now = Clock::System.now();
    writeln!(out, "config     {config}, in force since {}{reloads}", age_of(&status.loaded, now))?;
    if status.stopping {
        writeln!(out, "STOPPING   no new messages, nothing new begins to leave; what is in a transaction ends")?;
    }
    if !status.sandbox.is_empty() {
        writeln!(out, "{}", shown(&status.sandbox))?;
    }
    if !status.refused.is_empty() {
        writeln!(out, "REFUSED    the last reload, at {}", shown(&status.refused))?;
    }
    writeln!(out, "listening  {}", status.listeners.join(", "))?;
    writeln!(
        out,
        "so far     {} messages accepted; recipients: {} delivered, {} deferred, {} bounced",
        status.accepted, status.delivered, status.deferred, status.bounced
    )?;
    writeln!(
        out,
        "queue      {} messages; recipients: {} queued, {} leased, {} held, {} failed, {} uncertain",
        q.messages, q.queued, q.leased, q.held, q.failed, q.uncertain
    )?;
    if !status.tls_reports.is_empty() {
        writeln!(out, "TLS-RPT    {}", shown(&status.tls_reports))?;
    }
    let s = &status.storage;
    writeln!(
        out,
        "disk       {} in the store's file, {} of it free inside; {} in its log",
        whole(s.file),
        whole(s.free),
        whole(s.log)
    )?;
    let less = match status.min_free {
        wanted if wanted > status.set_aside => {
            format!(" (not {}: a tenth of the file system at most)", Size(wanted))
        }
        _ => String::new(),
    };
    writeln!(out, "set aside  {} for mail on its way out{less}", whole(status.set_aside))?;
    if !s.trouble.is_empty() {
        writeln!(out, "TROUBLE    {}", s.trouble)?;
    }
    if q.owed > 0 {
        writeln!(out, "reports    owed to senders; recipients: {}", q.owed)?;
    }
    Ok(())
}

/// In whole KiB.
fn whole(bytes: u64) -> Size {
    Size(bytes / 1024 * 1024)
}

/// How long a reload takes that waits for nothing.
const AT_ONCE: Duration = Duration::from_millis(500);
/// Lanes that are named where a reload waits for their transactions.
const NAMED: usize = 4;

/// The relay reads the file; what is wrong with it is in its log too. What it waits for is said.
pub(super) async fn reload(lead: &Lead) -> Outcome {
    let mut told = String::new();
    let keep = |reply, _: &[u8]| {
        if let Reply::Note(text) = reply {
            told = text;
        }
        Ok(())
    };
    let relay = must_run(lead).await?;
    must_have_this_file(lead, &relay).await?;
    {
        let reload = relay.request(Request::Reload, keep);
        tokio::pin!(reload);
        let done = tokio::select! {
            done = &mut reload => Some(done),
            () = say_what_it_waits_for(&relay) => None,
        };
        match done {
            Some(done) => done,
            None => reload.await,
        }?;
    }
    writeln!(screen::stdout(), "reloaded\n{told}")?;
    Ok(())
}

/// A reload is about a file: one that names the queue of a relay with another file is not what that one would read.
///
/// # Errors
/// It runs with another file.
async fn must_have_this_file(lead: &Lead, relay: &Target) -> Result<(), Failed> {
    let Some(own) = lead.own.as_deref().filter(|_| !lead.named) else { return Ok(()) };
    let Some(its) = file_of_another(lead, relay).await else { return Ok(()) };
    let (own, socket) = (own.display(), lead.socket.display());
    let its = its.display();
    let message = format!(
        "nothing was reloaded: the mailweir of the queue that {own} names, which listens at {socket}, runs with {its} and would \
         read that again (mailweir -c {its} reload); with another file it has to be started"
    );
    Err(Failed::new(Code::Unavailable, message))
}

/// The configuration in force goes on until its transactions have ended, since what they use of a limit counts: hosts
/// that do not answer keep it for `drain`.
async fn say_what_it_waits_for(relay: &Target) {
    tokio::time::sleep(AT_ONCE).await;
    let mut busy: Vec<(u64, String)> = Vec::new();
    let keep = |reply, _: &[u8]| {
        if let Reply::Lane(lane) = reply
            && lane.in_flight > 0
        {
            busy.push((lane.in_flight, lane.name));
        }
        Ok(())
    };
    // It may be between the two configurations, where nobody answers: then it waits for nothing.
    if relay.request(Request::Lanes, keep).await.is_err() || busy.is_empty() {
        return;
    }
    busy.sort_unstable_by(|a, b| b.cmp(a));
    let all: u64 = busy.iter().map(|(n, _)| n).sum();
    let named: Vec<String> = busy.iter().take(NAMED).map(|(n, lane)| format!("{n} at {lane}")).collect();
    let more = if busy.len() > NAMED { ", and others" } else { "" };
    screen::say(
        "mailweir",
        &format!(
            "waiting for {all} transaction{} to end ({}{more}), for `drain` at most: what is cut off then is sent again",
            if all == 1 { "" } else { "s" },
            named.join(", ")
        ),
    );
}
