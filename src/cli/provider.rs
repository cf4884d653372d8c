//! `mailweir provider`: the limits of all providers, configured and built in, with where each came
//! from; with a relay that runs also what happens there now, and commands to it.

mod table;

use std::io::{self, Write};

use clap::Subcommand;
use serde::Serialize;
use serde_json::{Value as Json, json};

use super::check::plain;
use super::connect::{Lead, must_run, running_or_none, with_values_in_force};
use super::explain::write_feedback;
use super::screen::{self, shown};
use super::text::Table;
use super::{Code, Failed, Outcome};
use crate::admin::requests::{Reply, Request};
use crate::admin::{FeedbackStatus, Forgotten, LaneStatus, Resumed};
use crate::clock::{Clock, grouped};
use crate::config::report::{Setting, profile_settings};
use crate::config::{Config, Loaded, Provider, profiles, sources};
use crate::mail::LaneName;
use crate::queue::opening::{self, OutOfReach};
use table::{connections, is_of_interest, state, state_at_rest, write_list};

#[derive(Subcommand, Debug)]
pub(super) enum ProviderCommand {
    /// Providers that are configured or have mail, and, if mailweir runs, what waits, is on its way, or
    /// is stopped; those in trouble first
    List {
        /// Also the built-in profiles without mail, and [default]
        #[arg(long)]
        all: bool,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// All values and rules of a provider, with where each came from
    Show {
        /// Name of a provider, a built-in profile, or @domain; with @address of one of its sources
        name: String,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Send nothing there until `resume`
    Pause {
        /// Name of a provider, or @domain; with @address for one of its sources, if limits hold for each
        name: String,
    },
    /// End what holds it: a pause, by an operator, by a rule or learned, a refusal of everything, the wait for a host
    Resume {
        /// Name of a provider, or @domain; with @address for one of its sources, if limits hold for each
        name: String,
    },
    /// Forget what replies taught: the pace, connections, messages on a connection, and what rules did
    Forget {
        /// Name of a provider, or @domain; with @address for one of its sources, if limits hold for each
        name: String,
    },
}

pub(super) async fn provider(lead: Lead, command: ProviderCommand) -> Outcome {
    let lead = &with_values_in_force(lead).await;
    match command {
        ProviderCommand::List { all, json } => list(lead, lanes(lead).await?, all, json),
        ProviderCommand::Show { name, json } => show(lead, lanes(lead).await?, &name, json),
        ProviderCommand::Pause { name } => {
            must_run(lead).await?.request(Request::Pause { name: name.clone() }, |_, _| Ok(())).await?;
            writeln!(screen::stdout(), "{name} is paused; what is in a transaction now still ends")?;
            Ok(())
        }
        ProviderCommand::Resume { name } => resume(lead, name).await,
        ProviderCommand::Forget { name } => forget(lead, name).await,
    }
}

async fn resume(lead: &Lead, name: String) -> Outcome {
    let mut lanes: Vec<Resumed> = Vec::new();
    let keep = |reply, _: &[u8]| {
        if let Reply::Resumed(lane) = reply {
            lanes.push(*lane);
        }
        Ok(())
    };
    let done = must_run(lead).await?.request(Request::Resume { name: name.clone() }, keep).await?;
    let mut out = screen::stdout();
    for lane in &lanes {
        for ended in &lane.ended {
            writeln!(out, "{}: ended: {}", lane.name, shown(ended))?;
        }
        for still in &lane.still {
            writeln!(out, "{}: still: {}", lane.name, shown(still))?;
        }
    }
    if done.changed > 0 {
        writeln!(out, "{} recipients that waited for a host are due now", grouped(done.changed))?;
    }
    let stopped: Vec<&str> = lanes.iter().filter(|lane| lane.stopped).map(|lane| lane.name.as_str()).collect();
    match stopped.as_slice() {
        [] if lanes.iter().any(|lane| lane.asks_hosts) => writeln!(out, "{name} goes on: its hosts are asked again")?,
        [] => writeln!(out, "{name} goes on")?,
        stopped => {
            let why = match lanes.iter().any(|lane| lane.by_world) {
                false => "what holds it is the configuration's own",
                true => "what holds it is no pause, and ends when what causes it does",
            };
            writeln!(out, "nothing leaves {} yet: {why}", stopped.join(", "))?
        }
    }
    Ok(())
}

async fn forget(lead: &Lead, name: String) -> Outcome {
    let mut lanes: Vec<Forgotten> = Vec::new();
    let keep = |reply, _: &[u8]| {
        if let Reply::Forgotten(lane) = reply {
            lanes.push(*lane);
        }
        Ok(())
    };
    must_run(lead).await?.request(Request::Forget { name: name.clone() }, keep).await?;
    let mut out = screen::stdout();
    for lane in &lanes {
        for learned in &lane.learned {
            writeln!(out, "{}: forgotten: {}", lane.name, shown(learned))?;
        }
    }
    match lanes.iter().all(|lane| lane.learned.is_empty()) {
        true => writeln!(out, "{name}: replies had taught nothing")?,
        // That may be at once, where more waits than is taken.
        false => writeln!(out, "{name}: only the limits of the configuration hold until replies teach again")?,
    }
    Ok(())
}

/// The lanes of the relay that runs, or those of which the store remembers something.
struct Lanes {
    lanes: Vec<LaneStatus>,
    running: bool,
}

async fn lanes(lead: &Lead) -> Result<Lanes, Failed> {
    let config = lead.config();
    let Some(target) = running_or_none(lead).await? else {
        let known = stored_feedback(config).await.into_iter();
        let idle = |name: LaneName| {
            let provider = config.provider(name.base());
            let default = config.default.relay.is_some() && name.base() == config.default.name;
            let former = name.as_domain().is_none() && provider.is_none() && !default;
            LaneStatus { former, ..LaneStatus::idle(&name, provider.unwrap_or(&config.default)) }
        };
        let lanes = known.map(|(name, feedback)| LaneStatus { feedback, ..idle(name.as_str().into()) }).collect();
        return Ok(Lanes { lanes, running: false });
    };
    let mut lanes: Vec<LaneStatus> = Vec::new();
    let keep = |reply, _: &[u8]| {
        if let Reply::Lane(lane) = reply {
            lanes.push(*lane);
        }
        Ok(())
    };
    target.request(Request::Lanes, keep).await?;
    Ok(Lanes { lanes, running: true })
}

/// A provider or lane: what happens there, and its limits.
#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    lane: LaneStatus,
    /// The numbers of the lane are those of a relay that runs.
    running: bool,
    messages_per_connection: u32,
    recipients_per_message: u32,
    quota: Vec<String>,
    connection_rate: Vec<String>,
    adaptive: bool,
    rules: usize,
    /// `built-in`, the file, or `default`.
    from: String,
}

impl Row {
    fn new(loaded: &Loaded, lane: LaneStatus, running: bool) -> Row {
        let provider = loaded.config.provider(&lane.provider).unwrap_or(&loaded.config.default);
        let mut own = loaded.settings.iter().filter(|s| s.provider.as_deref() == Some(&provider.name));
        let file = loaded.file.as_ref().map(|f| f.display().to_string());
        // Something in it was written there, not only taken over from [default].
        let written = |s: &Setting| file.as_ref().is_some_and(|f| s.from.starts_with(f.as_str()));
        let from = match &file {
            _ if lane.former => "-".to_owned(),
            _ if own.clone().any(|s| s.built_in) => "built-in".to_owned(),
            Some(file) if own.any(written) => file.clone(),
            _ => "default".into(),
        };
        Row {
            lane,
            running,
            messages_per_connection: provider.messages_per_connection,
            recipients_per_message: provider.recipients_per_message,
            quota: texts(&provider.quota),
            connection_rate: texts(&provider.connection_rates()),
            adaptive: provider.adaptive,
            rules: provider.rules.len(),
            from,
        }
    }
}

fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

/// What replies taught, lane by lane, while no relay runs: from the queue's file, if there is one.
/// Who cannot read it is told on standard error and shown the rest.
pub(super) async fn stored_feedback(config: &Config) -> Vec<(String, FeedbackStatus)> {
    let store = &config.queue.store;
    if matches!(opening::within_reach(store, false), Err(OutOfReach::Missing(_))) {
        return Vec::new();
    }
    let known = match opening::open_for_command(store) {
        Ok(queue) => {
            let of = |lane: &str| config.provider(LaneName::base_of(lane)).unwrap_or(&config.default);
            let known = FeedbackStatus::all_stored(&*queue, of, Clock::System.now()).await;
            queue.close().await;
            known
        }
        Err(error) => Err(error),
    };
    known.unwrap_or_else(|error| {
        screen::say("mailweir", &format!("what replies taught is not shown: {error}"));
        Vec::new()
    })
}

/// A provider, or one source of it, with nothing in its lane.
fn idle(provider: &Provider) -> LaneStatus {
    let lane = sources::only(provider).map_or(provider.lane(), |ip| provider.lane().at(ip));
    LaneStatus::idle(&lane, provider)
}

/// A provider whose limits hold for each source, as a whole; `None` if nothing is known of it. What
/// replies taught is a matter of each source.
fn whole(name: &str, sources: &[LaneStatus]) -> Option<LaneStatus> {
    let first = sources.first()?;
    let sum = |of: fn(&LaneStatus) -> u64| sources.iter().map(of).sum();
    Some(LaneStatus {
        name: name.to_owned(),
        source: String::new(),
        provider: first.provider.clone(),
        waiting: sum(|lane| lane.waiting),
        in_flight: sum(|lane| lane.in_flight),
        connections: sum(|lane| lane.connections),
        opening: sum(|lane| lane.opening),
        max_connections: sum(|lane| lane.max_connections),
        rate: first.rate.clone(),
        paused: sources.iter().all(|lane| lane.paused),
        stopped: if sources.iter().all(|lane| !lane.stopped.is_empty()) {
            first.stopped.clone()
        } else {
            String::new()
        },
        former: first.former,
        stored: sum(|lane| lane.stored),
        holds: Vec::new(),
        quotas: Vec::new(),
        announced: first.announced.clone(),
        feedback: FeedbackStatus::default(),
        last_error: sources.iter().map(|lane| &lane.last_error).find(|e| !e.is_empty()).cloned().unwrap_or_default(),
    })
}

/// The lanes that are known, then providers without one; by name.
fn rows(lead: &Lead, Lanes { mut lanes, running }: Lanes) -> Vec<Row> {
    let (loaded, config) = (&lead.loaded, lead.config());
    // A file that cannot be taken tells of no others than the relay does.
    let configured = config.providers.iter().chain([&config.default]).filter(|_| lead.broken.is_none());
    for provider in configured {
        // What has no provider has a lane for each domain; [default] stands for the limits alone.
        let each = if provider.name == config.default.name { Vec::new() } else { sources::each(provider) };
        let seen: Vec<&Provider> = if each.is_empty() { vec![provider] } else { each.iter().map(|p| &**p).collect() };
        for lane in seen.into_iter().map(idle) {
            if !lanes.iter().any(|l| l.name == lane.name) {
                lanes.push(lane);
            }
        }
    }
    lanes.sort_by(|a, b| a.name.cmp(&b.name));
    lanes.into_iter().map(|lane| Row::new(loaded, lane, running)).collect()
}

fn list(lead: &Lead, lanes: Lanes, all: bool, json: bool) -> Outcome {
    let rows: Vec<Row> = rows(lead, lanes).into_iter().filter(|row| all || is_of_interest(row)).collect();
    let mut out = screen::stdout();
    if json {
        for row in &rows {
            writeln!(out, "{}", serde_json::to_string(row).map_err(io::Error::from)?)?;
        }
        return Ok(());
    }
    write_list(&mut out, rows)?;
    Ok(())
}

fn show(lead: &Lead, lanes: Lanes, name: &str, json: bool) -> Outcome {
    let loaded = &lead.loaded;
    let running = lanes.running;
    let rows = rows(lead, lanes);
    let of_name = |row: &&Row| !row.lane.source.is_empty() && LaneName::base_of(&row.lane.name) == name;
    let sources: Vec<LaneStatus> = rows.iter().filter(of_name).map(|row| row.lane.clone()).collect();
    let row = match whole(name, &sources) {
        Some(lane) => Row::new(loaded, lane, running),
        None => match rows.into_iter().find(|row| row.lane.name == name) {
            Some(row) => row,
            // Which there are is in the file.
            None if lead.broken.is_some() && !profiles::all().iter().any(|p| p.name() == name) => {
                return lead.must_be_good();
            }
            None => return show_profile(name, json),
        },
    };
    let provider = loaded.config.provider(&row.lane.provider).unwrap_or(&loaded.config.default);
    let values = loaded.settings.iter().filter(|s| !s.is_rule() && s.provider.as_deref() == Some(&provider.name));
    let values: Vec<&Setting> = values.filter(|s| s.value.is_some()).collect();
    let mut out = screen::stdout();
    if json {
        let mut object = serde_json::to_value(&row).map_err(io::Error::from)?;
        if !sources.is_empty() {
            object["sources"] = serde_json::to_value(&sources).map_err(io::Error::from)?;
        }
        object["values"] = values.iter().copied().map(as_json).collect();
        object["rules"] = provider.rules.iter().map(|r| json!({ "rule": r.to_string(), "from": r.origin })).collect();
        writeln!(out, "{object}")?;
        return Ok(());
    }
    let lane = &row.lane;
    writeln!(out, "name         {}", lane.name)?;
    writeln!(out, "provider     {}", lane.provider)?;
    if running {
        writeln!(out, "state        {}", state(lane))?;
        // The first is in the line above.
        for hold in lane.holds.iter().skip(1) {
            writeln!(out, "also         {}", shown(&hold.told))?;
        }
        let waiting = grouped(lane.waiting + lane.stored);
        writeln!(out, "waiting      {waiting}, {} of them in memory", grouped(lane.waiting))?;
        writeln!(out, "in flight    {}", lane.in_flight)?;
        writeln!(out, "connections  {}", lane.connections_told(" of "))?;
        writeln!(out, "rate         {}", if lane.rate.is_empty() { "no limit".into() } else { lane.rate.join(" ") })?;
        if !lane.announced.is_empty() {
            writeln!(out, "announced    {}", shown(&lane.announced))?;
        }
        for quota in &lane.quotas {
            writeln!(out, "used         {}", quota.told)?;
        }
        writeln!(out, "last error   {}", if lane.last_error.is_empty() { "none" } else { &lane.last_error })?;
    } else {
        writeln!(out, "state        mailweir is not running")?;
    }
    if lane.feedback != FeedbackStatus::default() {
        writeln!(out, "learned from replies")?;
        write_feedback(&mut out, &lane.feedback)?;
    }
    if !sources.is_empty() {
        writeln!(out, "\neach source has these limits for itself:")?;
        let mut table = Table::new(["  SOURCE", "WAITING", "IN FLIGHT", "CONNECTIONS", "STATE", "LAST ERROR"]);
        for lane in sources {
            let now = |shown: String| if running { shown } else { "-".into() };
            table.row([
                format!("  {}", lane.source),
                now(grouped(lane.waiting + lane.stored)),
                now(lane.in_flight.to_string()),
                connections(&lane, running),
                if running { state(&lane) } else { state_at_rest(&lane) },
                lane.last_error,
            ]);
        }
        table.write(&mut out)?;
    }
    write_values(&mut out, &values)?;
    if !provider.rules.is_empty() {
        writeln!(out, "\nrules: the first that matches a reply decides")?;
        for (i, rule) in provider.rules.iter().enumerate() {
            writeln!(out, "{:3}. {rule}  # {}", i + 1, rule.origin)?;
        }
    }
    Ok(())
}

/// A profile that no provider of the configuration uses.
fn show_profile(name: &str, json: bool) -> Outcome {
    let Some(profile) = profiles::all().iter().find(|p| p.name() == name) else {
        return Err(Failed::new(Code::Unavailable, format!("there is no provider or lane `{name}`")));
    };
    let settings = profile_settings(profile);
    let values: Vec<&Setting> = settings.iter().collect();
    let rules = profile.reply_rules();
    let mut out = screen::stdout();
    if json {
        let rules: Json = rules.iter().map(|r| json!({ "rule": r.to_string(), "from": r.origin })).collect();
        let values: Json = values.into_iter().map(as_json).collect();
        writeln!(out, "{}", json!({ "name": name, "in_use": false, "values": values, "rules": rules }))?;
        return Ok(());
    }
    writeln!(out, "name         {name}")?;
    writeln!(out, "state        a built-in profile that no provider uses now")?;
    writeln!(out, "hosts        {}", profile.patterns().join(" "))?;
    write_values(&mut out, &values)?;
    for (i, rule) in rules.iter().enumerate() {
        writeln!(out, "{}{:3}. {rule}  # {}", if i == 0 { "\n" } else { "" }, i + 1, rule.origin)?;
    }
    Ok(())
}

fn as_json(setting: &Setting) -> Json {
    json!({ "key": setting.key, "value": setting.value.as_ref().map(plain), "from": setting.from })
}

fn write_values(out: &mut impl Write, values: &[&Setting]) -> io::Result<()> {
    writeln!(out)?;
    for setting in values {
        let value = setting.value.as_ref().map(ToString::to_string).unwrap_or_default();
        writeln!(out, "{} = {}  # {}", setting.key, value.trim(), setting.from)?;
    }
    Ok(())
}
