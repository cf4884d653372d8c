//! `mailweir explain`: where a message would go, under which limits, and when.
//!
//! A running relay is asked, which knows what waits; without one the configuration and DNS tell
//! the rest.

use std::io::{self, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::connect::{Lead, running_or_none, with_values_in_force};
use super::provider::stored_feedback;
use super::screen::{self, shown};
use super::text::Table;
use super::{Code, Failed, Outcome};
use crate::admin::explain::{LaneExplained, explain as explain_here, rewritten, tls_wish};
use crate::admin::requests::{Reply, Request};
use crate::admin::{Explanation, FeedbackStatus};
use crate::clock::{self, grouped};
use crate::config::units::Span;
use crate::mail::{Address, Incoming};
use crate::route::{Explained, Router, sts};

#[derive(Args, Debug)]
pub(super) struct Explain {
    /// The recipient
    address: String,
    /// The sender (reverse-path); without one, the null sender
    #[arg(long, short, value_name = "ADDRESS", default_value = "")]
    sender: String,
    /// The priority the message would have, -9 to 9
    #[arg(long, default_value_t = 0, allow_negative_numbers = true, value_parser = clap::value_parser!(i8).range(-9..=9))]
    priority: i8,
    /// The client that would hand it in, for [[route]] client
    #[arg(long, value_name = "IP")]
    client: Option<IpAddr>,
    /// The name of the listener that would take it, for [[route]] listener
    #[arg(long, value_name = "NAME", default_value = "")]
    listener: String,
    /// The user as whom that client would have logged in, for [[route]] and [[limit]] user
    #[arg(long, value_name = "NAME", default_value = "")]
    user: String,
    /// As if MAIL said REQUIRETLS: only by TLS, to hosts that keep it (RFC 8689)
    #[arg(long)]
    requiretls: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub(super) async fn explain(lead: Lead, asked: Explain) -> Outcome {
    let parse = |text: &str| Address::parse(text).map_err(|e| Failed::new(Code::Usage, format!("`{text}`: {e}")));
    let recipient = parse(&asked.address)?;
    let sender = match asked.sender.trim_matches(['<', '>']) {
        "" => None,
        text => Some(parse(text)?),
    };
    // Of what holds: another name would just match no route.
    let lead = with_values_in_force(lead).await;
    let listeners: Vec<&str> =
        lead.config().listeners.iter().map(|listener| &*listener.name).filter(|name| !name.is_empty()).collect();
    if lead.broken.is_none() && !asked.listener.is_empty() && !listeners.contains(&asked.listener.as_str()) {
        let known = match listeners.as_slice() {
            [] => "no [[listener]] has a `name`".to_owned(),
            known => format!("expected one of {}", known.join(", ")),
        };
        return Err(Failed::new(Code::Usage, format!("there is no listener `{}`: {known}", asked.listener)));
    }
    let users = &lead.config().users;
    if lead.broken.is_none() && !asked.user.is_empty() && !users.may_be_more() && users.find(&asked.user).is_none() {
        let known = lead.config().users.iter().map(|user| &*user.name);
        let hint = match crate::config::nearest(&asked.user, known) {
            Some(near) => format!("did you mean {near}?"),
            None => "expected the name of a [[user]], or one of `users`".to_owned(),
        };
        return Err(Failed::new(Code::Usage, format!("there is no user `{}`: {hint}", asked.user)));
    }
    let told = match running_or_none(&lead).await? {
        Some(target) => {
            let mut told = None;
            let request = Request::Explain {
                sender: sender.as_ref().map_or("", Address::as_str).to_owned(),
                recipient: recipient.as_str().to_owned(),
                priority: asked.priority,
                client: asked.client,
                listener: asked.listener,
                user: asked.user,
                requiretls: asked.requiretls,
            };
            let keep = |reply, _: &[u8]| {
                if let Reply::Explanation(explanation) = reply {
                    told = Some(*explanation);
                }
                Ok(())
            };
            target.request(request, keep).await?;
            told.ok_or_else(|| Failed::new(Code::Temporary, "mailweir did not explain anything"))?
        }
        None => {
            let loaded = lead.loaded;
            let config = Arc::new(loaded.config);
            let router = Router::new(config.clone()).map_err(|e| Failed::new(Code::Config, e))?;
            let router = router.with_sts(Arc::new(sts::Https::default()), clock::Clock::System);
            let from = Incoming {
                sender: sender.as_ref(),
                client: asked.client,
                listener: &asked.listener,
                user: &asked.user,
                tls: tls_wish(asked.requiretls),
            };
            let rewritten = rewritten(&config, &from);
            let from = from.sent_as(rewritten.as_ref().map(|it| &it.is));
            let mut told = explain_here(&config, &loaded.settings, &router, from, &recipient, asked.priority).await;
            told.sender_was = rewritten.map(|it| it.was.to_string()).unwrap_or_default();
            let known = stored_feedback(&config).await;
            told.feedback = known.into_iter().find(|(lane, _)| *lane == told.route.lane).unwrap_or_default().1;
            told
        }
    };
    let mut out = screen::stdout();
    if asked.json {
        writeln!(out, "{}", serde_json::to_string(&told).map_err(io::Error::from)?)?;
        return Ok(());
    }
    write(&mut out, &told).map_err(Failed::from)
}

fn write(out: &mut impl Write, told: &Explanation) -> io::Result<()> {
    let sender = if told.sender.is_empty() { "<>" } else { &told.sender };
    let given = match told.priority_from.as_str() {
        "" => String::new(),
        by if by.starts_with("[[user]]") => format!(", given by its {by}, whatever the client asks for"),
        from => format!(", given by a [[route]] ({from}), whatever the client asks for"),
    };
    let user = if told.user.is_empty() { String::new() } else { format!(" by the user {}", told.user) };
    writeln!(out, "{} from {sender}{user}, priority {}{given}", told.recipient, told.priority)?;
    if !told.recipient_was.is_empty() {
        writeln!(out, "recipient {} by [srs], which was {}", told.recipient, told.recipient_was)?;
    }
    if !told.sender_was.is_empty() {
        writeln!(out, "sender    {} by [[rewrite]], which was {}", told.sender, told.sender_was)?;
    }
    if !told.copies.is_empty() {
        writeln!(out, "copy      to {} by [[copy]]", told.copies.join(", "))?;
    }
    if !told.sandbox.is_empty() {
        writeln!(out, "SANDBOX   {}; without [sandbox]:", told.sandbox)?;
    }
    write_route(out, &told.route, &told.route_from)?;
    if !told.tls_report.is_empty() {
        writeln!(out, "TLS-RPT   {}", shown(&told.tls_report))?;
    }
    if told.sources.len() > 1 {
        let list: Vec<String> = told.sources.iter().map(ToString::to_string).collect();
        writeln!(out, "from      {}  (in this order for this sender's domain)", list.join(", then "))?;
    } else if let Some(source) = told.sources.first() {
        writeln!(out, "from      {source}")?;
    }
    if !told.limits.is_empty() {
        writeln!(out, "\nLimits")?;
        let mut table = Table::new(["  KEY", "VALUE", "SET BY"]);
        for limit in &told.limits {
            table.row([format!("  {}", limit.key), limit.value.clone(), limit.from.clone()]);
        }
        table.write(out)?;
    }
    if told.feedback != FeedbackStatus::default() {
        writeln!(out, "\nLearned from replies")?;
        write_feedback(out, &told.feedback)?;
    }
    writeln!(out)?;
    match &told.lane {
        Some(lane) => write_lane(out, lane, told.priority_from.is_empty() && told.priority < MOST_URGENT),
        None if told.running => Ok(()),
        None => writeln!(out, "mailweir is not running: what waits, and when a message would leave, is not known"),
    }
}

fn write_route(out: &mut impl Write, route: &Explained, from: &str) -> io::Result<()> {
    if !route.problem.is_empty() {
        let what = if route.permanent { "a message would bounce" } else { "a message would wait and be tried again" };
        writeln!(out, "no way    {what}: {}", shown(&route.problem))?;
    }
    let from = if from.is_empty() { String::new() } else { format!(" ({from})") };
    let provider = if route.provider.is_empty() { "unknown" } else { &route.provider };
    writeln!(out, "provider  {provider}")?;
    writeln!(out, "because   {}{from}", shown(&route.why))?;
    if route.smart_host {
        writeln!(out, "to        the smart host {}, port {}", route.destination, route.port)?;
    } else if route.port > 0 {
        let ttl = route.mx_ttl.map(|ttl| format!("; DNS is asked again in {}", span(ttl))).unwrap_or_default();
        writeln!(out, "to        the mail hosts of {}, port {}{ttl}", route.destination, route.port)?;
    }
    if !route.policy.is_empty() {
        writeln!(out, "policy    {}", shown(&route.policy))?;
    }
    for host in &route.hosts {
        let addresses: Vec<String> = host.addresses.iter().map(ToString::to_string).collect();
        let mut line = format!("          {:>5} {}  {}", host.preference, host.name, addresses.join(" "));
        if let Some(ttl) = host.ttl {
            line.push_str(&format!("  (for {})", span(ttl)));
        }
        match (host.problem.as_str(), host.used) {
            ("", true) => {}
            ("", false) => line.push_str("  not used"),
            (problem, _) => line.push_str(&format!("  not used: {problem}")),
        }
        if !host.tls.is_empty() {
            line.push_str(&format!("  TLS: {}", host.tls));
        }
        writeln!(out, "{}", shown(&line))?;
    }
    Ok(())
}

/// What holds now, and every cause.
pub(super) fn write_feedback(out: &mut impl Write, feedback: &FeedbackStatus) -> io::Result<()> {
    let now = feedback.summary();
    if !now.is_empty() {
        writeln!(out, "  now          {now}")?;
    }
    if !feedback.paused_because.is_empty() {
        writeln!(out, "  paused       {}", shown(&feedback.paused_because))?;
    }
    for line in &feedback.because {
        writeln!(out, "  because of   {}", shown(line))?;
    }
    Ok(())
}

/// `may_hurry`: another priority could be asked for.
fn write_lane(out: &mut impl Write, lane: &LaneExplained, may_hurry: bool) -> io::Result<()> {
    let status = &lane.status;
    writeln!(out, "Now, in the lane {}", status.name)?;
    let under_way = match (status.connections, status.opening) {
        (_, 0) => "in transactions",
        (0, _) => "whose connections are being opened",
        _ => "in transactions, or whose connections are being opened",
    };
    writeln!(out, "  waiting      {}, {} {under_way}", grouped(status.waiting + status.stored), status.in_flight)?;
    writeln!(out, "  connections  {}", status.connections_told(" of "))?;
    let more = if lane.more_stored { "more than " } else { "" };
    let ahead = lane.ahead_in_memory + lane.ahead_stored;
    writeln!(out, "  ahead of it  {more}{}, as urgent or more", grouped(ahead))?;
    if may_hurry && lane.ahead_at_most < ahead {
        writeln!(out, "               {} with --priority {MOST_URGENT}", grouped(lane.ahead_at_most))?;
    }
    if let Some(own) = lane.ahead_own {
        let more = if lane.latest.is_none() { "more than " } else { "" };
        writeln!(out, "               {more}{} of its own sender, who has a pace of its own", grouped(own))?;
    }
    if lane.turns > 0 {
        let others = if lane.turns == 1 { "sender has its" } else { "senders have their" };
        writeln!(out, "  its turn     {} other {others} turn before, with a message each", grouped(lane.turns))?;
    }
    if !lane.pace.is_empty() {
        writeln!(out, "  pace         {}", lane.pace)?;
    }
    for line in &lane.quota {
        writeln!(out, "  {}", shown(line))?;
    }
    if !status.last_error.is_empty() {
        writeln!(out, "  last error   {}", shown(&status.last_error))?;
    }
    if !lane.held.is_empty() {
        writeln!(out, "  held         {}", shown(&lane.held))?;
    }
    let when = match (lane.earliest, lane.latest) {
        (None, _) => "not before that has ended".to_owned(),
        (Some(earliest), Some(latest)) if earliest == latest => format!("{} (an estimate)", in_about(latest)),
        (Some(earliest), Some(latest)) => format!(
            "{} if its sender has nothing waiting, {} if all that is ahead{} goes first (an estimate)",
            soonest(earliest, lane),
            in_about(latest),
            if lane.ahead_own.is_some() { " of its sender" } else { "" }
        ),
        (Some(earliest), None) if lane.more_stored || lane.ahead_own.is_some() => format!(
            "{} if its sender has nothing waiting; more is ahead than was counted (an estimate)",
            soonest(earliest, lane)
        ),
        (Some(earliest), None) => format!(
            "{} if its sender has nothing waiting; behind the others as soon as they have left, and nothing has left \
             lately that would tell their pace",
            soonest(earliest, lane)
        ),
    };
    writeln!(out, "  would leave  {when}")
}

/// The highest priority there is.
const MOST_URGENT: i8 = 9;

fn span(seconds: u64) -> Span {
    Span(Duration::from_secs(seconds))
}

/// When a message of somebody who has nothing waiting leaves. Without a known pace turns have no time.
fn soonest(earliest: u64, lane: &LaneExplained) -> String {
    match lane.turns {
        1.. if lane.pace.is_empty() && earliest <= 1 => "when its turn comes".into(),
        _ => in_about(earliest),
    }
}

fn in_about(seconds: u64) -> String {
    if seconds <= 1 { "at once".into() } else { format!("in about {}", clock::span(Duration::from_secs(seconds))) }
}
