//! `mailweir queue`: list, show, and the operations.

use std::collections::BTreeMap;
use std::io::{self, Write};

use clap::{Args, Subcommand};

use super::connect::{Lead, NOBODY_SENDS, Target, connect};
use super::screen::{self, shown};
use super::text::{Table, age_of};
use super::{Code, Failed, Outcome};
use crate::admin::requests::{Done, Reply, Request};
use crate::clock::{Clock, Timestamp, When};
use crate::config::units::{Size, Span};
use crate::mail::{QueueId, State, send_at};
use crate::queue::{Filter, Operation, Row};

/// Rows aligned with one another; more are printed in further blocks.
const BLOCK: usize = 1000;

#[derive(Subcommand, Debug)]
pub(super) enum QueueCommand {
    /// Recipients in the queue, oldest message first
    List {
        #[command(flatten)]
        which: Which,
        /// At most this many
        #[arg(long, default_value_t = 1000, value_name = "N")]
        limit: u64,
        /// One JSON object a line, for each recipient
        #[arg(long)]
        json: bool,
    },
    /// One message: its recipients with their states and reasons
    Show {
        /// Queue id
        #[arg(value_parser = queue_id)]
        id: String,
        /// Its header section too
        #[arg(long)]
        headers: bool,
        /// The whole message too, header section and body
        #[arg(long, conflicts_with_all = ["headers", "json"])]
        body: bool,
        /// One JSON object a line, for each recipient
        #[arg(long)]
        json: bool,
    },
    /// Try again now; a failed recipient is queued again
    Retry(Operate),
    /// Put aside until `release`
    Hold(Operate),
    /// Queue again what was put aside
    Release(Operate),
    /// Not before a time: 2h (from now), now, 2026-12-01T10:00:00Z, or a date as in mail
    HoldUntil {
        /// When they leave; `now` is for those that wait for their time
        #[arg(value_name = "TIME", value_parser = time)]
        until: Timestamp,
        #[command(flatten)]
        which: Operate,
    },
    /// Remove from the queue; nobody is told
    Cancel(Operate),
}

/// Which recipients: all conditions must hold.
#[derive(Args, Debug, Default)]
pub(super) struct Which {
    /// Queue ids
    #[arg(value_name = "ID", value_parser = queue_id)]
    ids: Vec<String>,
    /// A queue id; may be given several times
    #[arg(long = "id", value_name = "ID", value_parser = queue_id)]
    more_ids: Vec<String>,
    /// Sender, with * for anything; <> for bounces
    #[arg(long, value_name = "PATTERN")]
    sender: Option<String>,
    /// User who had logged in
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Recipient, with * for anything
    #[arg(long, value_name = "PATTERN")]
    recipient: Option<String>,
    /// Domain of the recipient
    #[arg(long)]
    domain: Option<String>,
    /// Provider, or lane (@domain, provider@source)
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// queued, leased, held, failed or uncertain
    #[arg(long, value_parser = |s: &str| s.parse::<State>())]
    state: Option<State>,
    /// Accepted at least this long ago, such as 2h
    #[arg(long, value_name = "SPAN", value_parser = |s: &str| s.parse::<Span>())]
    older_than: Option<Span>,
    /// Last reply or error, with * for anything
    #[arg(long, value_name = "PATTERN")]
    reason: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct Operate {
    #[command(flatten)]
    which: Which,
    /// All recipients of the queue
    #[arg(long)]
    all: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// A time as people write it.
fn time(text: &str) -> Result<Timestamp, String> {
    let now = Clock::System.now();
    if text.eq_ignore_ascii_case("now") {
        return Ok(now);
    }
    if let Ok(span) = text.parse::<Span>() {
        return Ok(now.after(span.0));
    }
    send_at::parse(text).ok_or_else(|| {
        "expected a time with its zone (2026-12-01T10:00:00+01:00, or as in mail), a span from now (2h), or now".into()
    })
}

fn queue_id(text: &str) -> Result<String, String> {
    text.parse::<QueueId>().map(|id| id.to_string()).map_err(|e| e.to_string())
}

impl Which {
    /// One filter for each queue id, or one without.
    fn filters(self, now: Timestamp) -> Vec<Filter> {
        let base = Filter {
            id: None,
            sender: self.sender,
            user: self.user,
            recipient: self.recipient,
            domain: self.domain,
            provider: self.provider,
            state: self.state.map(|s| s.to_string()),
            received_before: self.older_than.map(|s| now.before(s.0).0),
            reason: self.reason,
            reasons: Vec::new(),
        };
        let ids: Vec<String> = self.ids.into_iter().chain(self.more_ids).collect();
        if ids.is_empty() {
            return vec![base];
        }
        ids.into_iter().map(|id| Filter { id: Some(id), ..base.clone() }).collect()
    }
}

/// `mailq`: all that waits.
pub(super) async fn list_all(lead: &Lead) -> Outcome {
    let target = connect(lead).await?;
    let mut empty = true;
    let look = |reply, _: &[u8]| {
        empty &= !matches!(reply, Reply::Row(_));
        Ok(())
    };
    target.request(Request::List { filter: Filter::default(), limit: 1 }, look).await?;
    let result = match empty {
        // The words that programs look for.
        true => writeln!(io::stdout(), "Mail queue is empty").map_err(Failed::from),
        false => list(&target, Which::default(), u64::MAX, false).await,
    };
    target.close().await;
    result
}

/// `sendmail -q`: what is queued is due now. Dead letters stay where they are.
pub(super) async fn retry_all(lead: &Lead) -> Outcome {
    let target = connect(lead).await?;
    let filter = Filter { state: Some(State::Queued.to_string()), ..Filter::default() };
    let result = target.request(Request::Operate { op: Operation::Retry, filter }, |_, _| Ok(())).await;
    let sends = target.sends();
    target.close().await;
    result?;
    if sends { Ok(()) } else { Err(Failed::new(Code::Unavailable, NOBODY_SENDS)) }
}

pub(super) async fn queue(lead: &Lead, command: QueueCommand) -> Outcome {
    let (op, operate) = match command {
        QueueCommand::List { which, limit, json } => {
            let target = connect(lead).await?;
            let result = list(&target, which, limit, json).await;
            target.close().await;
            return result;
        }
        QueueCommand::Show { id, headers, body, json } => {
            let target = connect(lead).await?;
            let result = show(&target, id, headers, body, json).await;
            target.close().await;
            return result;
        }
        QueueCommand::Retry(o) => (Operation::Retry, o),
        QueueCommand::Hold(o) => (Operation::Hold, o),
        QueueCommand::Release(o) => (Operation::Release, o),
        QueueCommand::Cancel(o) => (Operation::Cancel, o),
        QueueCommand::HoldUntil { until, which } => (Operation::HoldUntil(until), which),
    };
    let filters = operate.which.filters(Clock::System.now());
    if filters.iter().all(|f| *f == Filter::default()) && !operate.all {
        let message = "which recipients? Name queue ids or conditions (see --help), or --all";
        return Err(Failed::new(Code::Usage, message));
    }
    let target = connect(lead).await?;
    let mut total = Done::default();
    let mut result = Ok(());
    let mut unknown = Vec::new();
    // Lane and reason, each once.
    let mut stopped = BTreeMap::new();
    for filter in filters {
        let keep = |reply, _: &[u8]| {
            if let Reply::Stopped { lane, why } = reply {
                stopped.insert(lane, why);
            }
            Ok(())
        };
        let id = filter.id.clone();
        match target.request(Request::Operate { op, filter }, keep).await {
            Ok(done) => {
                unknown.extend(id.filter(|_| done.matched == 0));
                total.matched += done.matched;
                total.changed += done.changed;
                total.in_flight += done.in_flight;
                total.scheduled += done.scheduled;
            }
            Err(e) => {
                result = Err(e);
                break;
            }
        }
    }
    let sends = target.sends();
    target.close().await;
    report(op, total, &stopped, sends, operate.json)?;
    match unknown.as_slice() {
        [] => result,
        ids => result.and(Err(not_there(ids))),
    }
}

/// Messages that were named and are not there, or not as the other conditions want them.
fn not_there(ids: &[String]) -> Failed {
    let (first, more) = (ids.first().map_or("", String::as_str), ids.len().saturating_sub(1));
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let what = if ids.len() > 1 { "nothing that matches" } else { "no such message" };
    Failed::new(Code::Unavailable, format!("{what} in the queue: {first}{more} (it may have left: the log has its id)"))
}

/// Never claims what does not happen: what is due in a lane that is held does not leave, nor anything where no
/// relay `sends`.
fn report(op: Operation, done: Done, stopped: &BTreeMap<String, String>, sends: bool, json: bool) -> io::Result<()> {
    let mut out = screen::stdout();
    if json {
        let line = serde_json::json!({
            "operation": op, "running": sends, "matched": done.matched, "changed": done.changed, "in_flight": done.in_flight,
            "scheduled": done.scheduled, "stopped": stopped.iter().map(|(lane, why)| serde_json::json!({ "lane": lane, "why": why })).collect::<Vec<_>>(),
        });
        return writeln!(out, "{line}");
    }
    let later = match op {
        Operation::HoldUntil(until) => format!("to leave at {}", When { at: until, now: Clock::System.now() }),
        _ => String::new(),
    };
    let word = match op {
        Operation::Retry if !stopped.is_empty() || !sends => "due now",
        Operation::Retry => "to be tried now",
        Operation::Hold => "put aside",
        Operation::Release => "released",
        Operation::Cancel => "removed",
        Operation::HoldUntil(_) => &later,
    };
    write!(out, "{} of {} recipients {word}", done.changed, done.matched)?;
    match done.in_flight {
        _ if matches!(op, Operation::Release) => match done.matched.saturating_sub(done.changed) {
            0 => writeln!(out)?,
            n => writeln!(out, "; {n} were not put aside")?,
        },
        0 => writeln!(out)?,
        n if matches!(op, Operation::Hold | Operation::Cancel) => {
            writeln!(
                out,
                "; {n} in flight: after the reply of the host, unless that settles them, or with the next start"
            )?;
        }
        n => writeln!(out, "; {n} in flight were left alone")?,
    }
    if done.scheduled > 0 {
        writeln!(out, "{} wait for their time: `mailweir queue hold-until now` sends them", done.scheduled)?;
    }
    for (lane, why) in stopped {
        writeln!(out, "but nothing leaves {}: {}", shown(lane), shown(why))?;
    }
    Ok(())
}

async fn list(target: &Target, which: Which, limit: u64, json: bool) -> Outcome {
    let now = Clock::System.now();
    let mut left = limit;
    let mut more = false;
    let mut table = list_table();
    for filter in which.filters(now) {
        let print = |reply, _: &[u8]| {
            let Reply::Row(row) = reply else { return Ok(()) };
            if json {
                return write_json(&row);
            }
            table.row(cells(&row, now));
            if table.len() >= BLOCK {
                table.write(&mut screen::stdout())?;
                table = list_table();
            }
            Ok(())
        };
        let done = target.request(Request::List { filter, limit: left }, print).await?;
        left = left.saturating_sub(done.matched);
        more |= done.more;
    }
    if !json && !table.is_empty() {
        table.write(&mut screen::stdout())?;
    }
    if more {
        writeln!(screen::stderr(), "mailweir: there are more than {limit}: see --limit")?;
    }
    Ok(())
}

fn write_json(row: &Row) -> io::Result<()> {
    writeln!(screen::stdout(), "{}", serde_json::to_string(row)?)
}

fn list_table() -> Table<9> {
    Table::new(["ID", "STATE", "TRIES", "DUE", "SIZE", "PROVIDER", "SENDER", "RECIPIENT", "REASON"])
}

fn cells(row: &Row, now: Timestamp) -> [String; 9] {
    [
        row.id.clone(),
        row.state.clone(),
        row.attempts.to_string(),
        age_of(&row.due, now),
        Size(row.size).to_string(),
        row.provider.clone(),
        match row.user.as_str() {
            "" => sender(row),
            user => format!("{} ({user})", sender(row)),
        },
        match row.copy {
            true => format!("{} (copy)", row.recipient),
            false => row.recipient.clone(),
        },
        reason(row),
    ]
}

/// What it waits for now, and what was said before.
fn reason(row: &Row) -> String {
    match (row.waits.as_str(), row.reason.as_str()) {
        ("", before) => before.to_owned(),
        (waits, "") => format!("waits: {waits}"),
        (waits, before) => format!("waits: {waits}; before: {before}"),
    }
}

fn sender(row: &Row) -> String {
    if row.sender.is_empty() { "<>".into() } else { row.sender.clone() }
}

/// That the sender is owed a report, and when it goes.
fn write_report(out: &mut impl Write, rows: &[Row], now: Timestamp) -> io::Result<()> {
    let owed = rows.iter().filter(|row| !row.report_due.is_empty());
    match owed.clone().map(|row| &row.report_due).min() {
        Some(due) => {
            let due = age_of(due, now);
            writeln!(out, "report      owed to the sender on {} of them, goes by {due}", owed.count())
        }
        None => Ok(()),
    }
}

async fn show(target: &Target, id: String, headers: bool, body: bool, json: bool) -> Outcome {
    let now = Clock::System.now();
    let mut rows: Vec<Row> = Vec::new();
    let filter = Filter { id: Some(id.clone()), ..Filter::default() };
    let keep = |reply, _: &[u8]| {
        if let Reply::Row(row) = reply {
            rows.push(*row);
        }
        Ok(())
    };
    target.request(Request::List { filter, limit: u64::MAX }, keep).await?;
    let Some(first) = rows.first() else {
        return Err(Failed::new(
            Code::Unavailable,
            format!("there is no message {id} in the queue (it may have left)"),
        ));
    };
    if json {
        rows.iter().try_for_each(write_json)?;
    } else {
        let mut out = screen::stdout();
        writeln!(out, "message     {id}")?;
        writeln!(out, "sender      {}", sender(first))?;
        if !first.user.is_empty() {
            writeln!(out, "user        {}", first.user)?;
        }
        writeln!(out, "received    {}", age_of(&first.received, now))?;
        writeln!(out, "size        {} bytes", first.size)?;
        writeln!(out, "priority    {}", first.priority)?;
        if first.requiretls {
            writeln!(
                out,
                "tls         REQUIRETLS: by TLS alone, to hosts that offer REQUIRETLS and show who they are"
            )?;
        }
        writeln!(out, "recipients  {}", rows.len())?;
        write_report(&mut out, &rows, now)?;
        writeln!(out)?;
        let mut table = Table::new(["RECIPIENT", "STATE", "TRIES", "DUE", "PROVIDER", "REASON"]);
        for row in &rows {
            let [_, state, tries, due, _, provider, _, recipient, reason] = cells(row, now);
            table.row([recipient, state, tries, due, provider, reason]);
        }
        table.write(&mut out)?;
    }
    if headers || body {
        let mut text = Vec::new();
        let mut out = screen::stdout();
        if !json {
            writeln!(out)?;
        }
        let print = |_: Reply, bytes: &[u8]| {
            if json {
                text.extend_from_slice(bytes);
                return Ok(());
            }
            out.write_all(bytes)
        };
        target.request(Request::Body { id, headers_only: headers }, print).await?;
        if json {
            let line = serde_json::json!({ "headers": String::from_utf8_lossy(&text) });
            writeln!(screen::stdout(), "{line}")?;
        }
    }
    Ok(())
}
