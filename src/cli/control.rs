//! `mailweir provider`, `status` and `reload`: commands to the relay that runs.

use std::io::{self, Write};

use clap::Subcommand;

use super::connect::must_run;
use super::text::{Table, age_of};
use super::{Code, Failed, Outcome};
use crate::admin::requests::{Reply, Request};
use crate::admin::{LaneStatus, Status};
use crate::clock::Clock;
use crate::config::Config;

#[derive(Subcommand, Debug)]
pub(super) enum ProviderCommand {
    /// Providers and lanes: what waits, what is on its way, what is stopped
    List {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// One provider or lane
    Show {
        /// Name of a provider, or @domain
        name: String,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Send nothing there until `resume`
    Pause {
        /// Name of a provider, or @domain
        name: String,
    },
    /// Go on after `pause`
    Resume {
        /// Name of a provider, or @domain
        name: String,
    },
}

pub(super) async fn provider(config: &Config, command: ProviderCommand) -> Outcome {
    let target = must_run(config).await?;
    let (name, json) = match command {
        ProviderCommand::List { json } => (None, json),
        ProviderCommand::Show { name, json } => (Some(name), json),
        ProviderCommand::Pause { name } => {
            target.request(Request::Pause { name: name.clone(), paused: true }, |_, _| Ok(())).await?;
            writeln!(io::stdout(), "{name} is paused; what is in a transaction now still ends")?;
            return Ok(());
        }
        ProviderCommand::Resume { name } => {
            target.request(Request::Pause { name: name.clone(), paused: false }, |_, _| Ok(())).await?;
            writeln!(io::stdout(), "{name} goes on")?;
            return Ok(());
        }
    };
    let mut lanes: Vec<LaneStatus> = Vec::new();
    let keep = |reply, _: &[u8]| {
        if let Reply::Lane(lane) = reply {
            lanes.push(*lane);
        }
        Ok(())
    };
    target.request(Request::Lanes, keep).await?;
    if let Some(name) = &name {
        lanes.retain(|l| l.name == *name);
        if lanes.is_empty() {
            return Err(Failed::new(Code::Unavailable, format!("there is no provider or lane `{name}`")));
        }
    }
    lanes.sort_by(|a, b| a.name.cmp(&b.name));
    let mut out = io::stdout().lock();
    if json {
        for lane in &lanes {
            writeln!(out, "{}", serde_json::to_string(lane).map_err(io::Error::from)?)?;
        }
        return Ok(());
    }
    if name.is_some() {
        return lanes.iter().try_for_each(|lane| show(&mut out, lane)).map_err(Failed::from);
    }
    let mut table =
        Table::new(["NAME", "PROVIDER", "WAITING", "IN FLIGHT", "CONNECTIONS", "RATE", "STATE", "LAST ERROR"]);
    for lane in &lanes {
        table.row([
            lane.name.clone(),
            lane.provider.clone(),
            lane.waiting.to_string(),
            lane.in_flight.to_string(),
            format!("{}/{}", lane.connections, lane.max_connections),
            lane.rate.join(" "),
            state(lane),
            lane.last_error.clone(),
        ]);
    }
    table.write(&mut out)?;
    Ok(())
}

fn state(lane: &LaneStatus) -> String {
    match (lane.paused, lane.stopped.is_empty()) {
        (true, _) => "paused".into(),
        (false, true) => "open".into(),
        (false, false) => format!("stopped: {}", lane.stopped),
    }
}

fn show(out: &mut impl Write, lane: &LaneStatus) -> io::Result<()> {
    writeln!(out, "name         {}", lane.name)?;
    writeln!(out, "provider     {}", lane.provider)?;
    writeln!(out, "state        {}", state(lane))?;
    writeln!(out, "waiting      {} in memory", lane.waiting)?;
    writeln!(out, "in flight    {}", lane.in_flight)?;
    writeln!(out, "connections  {} of {}", lane.connections, lane.max_connections)?;
    writeln!(out, "rate         {}", if lane.rate.is_empty() { "no limit".into() } else { lane.rate.join(" ") })?;
    writeln!(out, "last error   {}", if lane.last_error.is_empty() { "none" } else { &lane.last_error })
}

pub(super) async fn status(config: &Config, json: bool) -> Outcome {
    let mut status: Option<Status> = None;
    let keep = |reply, _: &[u8]| {
        if let Reply::Status(s) = reply {
            status = Some(*s);
        }
        Ok(())
    };
    must_run(config).await?.request(Request::Status, keep).await?;
    let status = status.ok_or_else(|| Failed::new(Code::Temporary, "mailweir did not say how it is"))?;
    let mut out = io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string(&status).map_err(io::Error::from)?)?;
        return Ok(());
    }
    let q = &status.queue;
    writeln!(out, "mailweir {} on {}, process {}", status.version, status.hostname, status.pid)?;
    writeln!(out, "running    since {}", age_of(&status.started, Clock::System.now()))?;
    writeln!(out, "config     {}", if status.config.is_empty() { "built-in values" } else { &status.config })?;
    writeln!(out, "listening  {}, {} sessions", status.listeners.join(", "), status.sessions)?;
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
    Ok(())
}

pub(super) async fn reload(config: &Config) -> Outcome {
    let print = |reply, _: &[u8]| match reply {
        Reply::Note(note) => writeln!(io::stdout(), "{note}"),
        _ => Ok(()),
    };
    match must_run(config).await?.request(Request::Reload, print).await {
        Err(failed) if failed.code == Code::Unavailable => {
            Err(Failed::new(Code::Config, format!("the old configuration stays: {}", failed.message)))
        }
        other => other.map(drop),
    }
}
