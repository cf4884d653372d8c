//! `mailweir simulate`: how a day of mail would go, on virtual time.

use std::io::{self, Write};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use clap::Args;

use super::screen;
use super::text::Table;
use super::{Code, Failed, Outcome};
use crate::config::Config;
use crate::config::units::Span;
use crate::model::{Caps, Change, Persona, Setting};
use crate::simulate::chart::{clock, svg};
use crate::simulate::{Group, Plan, Report, SimulateError, run};

/// Groups of a mix at most.
const MOST_GROUPS: usize = 100;

#[derive(Args, Debug)]
#[command(
    after_help = "Example: mailweir simulate --messages 500000 --mix gmail=60,microsoft=25,other=15 --arrive 2h \
                        --hidden gmail=rate:15/s --svg day.svg"
)]
pub(super) struct Simulate {
    /// Messages in all
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=20_000_000))]
    messages: u32,
    /// Their shares: names of providers, and `other` for domains that no provider matches
    #[arg(long, value_name = "NAME=SHARE,…", default_value = "gmail=50,microsoft=25,yahoo=10,other=15")]
    mix: Mix,
    /// They arrive evenly over this time [default: all at once]
    #[arg(long, value_name = "SPAN")]
    arrive: Option<Span>,
    /// A cap of a provider that the configuration does not know of; may be given more than once
    #[arg(long, value_name = "NAME=CAP:VALUE,…")]
    hidden: Vec<Hidden>,
    /// Caps that change: 'gmail=2h rate:30/s'; may be given more than once
    #[arg(long, value_name = "'NAME=TIME CAP:VALUE…'")]
    change: Vec<Changed>,
    /// Domains that `other` is spread over
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    domains: u32,
    /// Senders, who take turns; their parts fall as 1, 1/2, 1/3, …
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    senders: u16,
    /// The part of the mail that is bulk, e.g. 90%: the rest overtakes it
    #[arg(long, value_name = "SHARE", default_value = "0%")]
    bulk: Share,
    /// A round trip to a provider
    #[arg(long, value_name = "SPAN", default_value = "50ms")]
    round_trip: Span,
    /// Stop then, whatever is left
    #[arg(long, value_name = "SPAN", default_value = "7d")]
    until: Span,
    /// Of all that is random; the same seed gives the same result
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Write a chart
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// `90%`, from 0 to 1.
#[derive(Clone, Copy, Debug)]
struct Share(f64);

impl FromStr for Share {
    type Err = String;

    fn from_str(s: &str) -> Result<Share, String> {
        let percent = s.strip_suffix('%').and_then(|n| n.trim().parse::<f64>().ok());
        let share = percent.filter(|percent| (0.0..=100.0).contains(percent));
        share.map(|percent| Share(percent / 100.0)).ok_or(format!("`{s}`: expected a share from 0% to 100%"))
    }
}

/// `gmail=60,microsoft=25,other=15`.
#[derive(Clone, Debug)]
struct Mix(Vec<(String, f64)>);

impl FromStr for Mix {
    type Err = String;

    fn from_str(s: &str) -> Result<Mix, String> {
        let mut mix: Vec<(String, f64)> = Vec::new();
        for part in s.split(',') {
            let (name, share) = part.trim().split_once('=').ok_or(format!("`{part}`: expected name=share"))?;
            let share = share.parse::<f64>().ok().filter(|s| s.is_finite() && *s > 0.0);
            let share = share.ok_or(format!("`{part}`: the share must be a number above 0"))?;
            if mix.iter().any(|(n, _)| n == name) {
                return Err(format!("`{name}` stands twice"));
            }
            mix.push((name.to_owned(), share));
        }
        if mix.len() > MOST_GROUPS { Err(format!("more than {MOST_GROUPS} names")) } else { Ok(Mix(mix)) }
    }
}

/// `gmail=rate:15/s,connections:3`.
#[derive(Clone, Debug)]
struct Hidden(String, Vec<Setting>);

impl FromStr for Hidden {
    type Err = String;

    fn from_str(s: &str) -> Result<Hidden, String> {
        let (name, settings) = s.split_once('=').ok_or(format!("`{s}`: expected name=cap:value"))?;
        Ok(Hidden(name.to_owned(), Setting::list(settings)?))
    }
}

/// `gmail=2h rate:30/s`.
#[derive(Clone, Debug)]
struct Changed(String, Change);

impl FromStr for Changed {
    type Err = String;

    fn from_str(s: &str) -> Result<Changed, String> {
        let (name, change) = s.split_once('=').ok_or(format!("`{s}`: expected name=time cap:value"))?;
        Ok(Changed(name.to_owned(), change.parse()?))
    }
}

pub(super) fn simulate(config: &Config, args: &Simulate) -> Outcome {
    let plan = plan(config, args)?;
    let report = run(&plan).map_err(|e| match e {
        SimulateError::Name(..) => Failed::new(Code::Usage, e),
        SimulateError::Runtime(_) => Failed::new(Code::Temporary, e),
    })?;
    if let Some(file) = &args.svg {
        std::fs::write(file, svg(&report))
            .map_err(|e| Failed::new(Code::Temporary, format!("{}: {e}", file.display())))?;
    }
    let mut out = screen::stdout();
    if args.json {
        let line = serde_json::to_string(&report).map_err(|e| Failed::new(Code::Temporary, e))?;
        writeln!(out, "{line}")?;
        return Ok(());
    }
    print(&report, &mut out)?;
    Ok(())
}

fn plan(config: &Config, args: &Simulate) -> Result<Plan, Failed> {
    let known = |name: &str| args.mix.0.iter().any(|(n, _)| n == name);
    let named = args.hidden.iter().map(|h| &h.0).chain(args.change.iter().map(|c| &c.0));
    if let Some(name) = named.into_iter().find(|name| !known(name)) {
        return Err(Failed::new(Code::Usage, format!("`{name}` is not in the mix")));
    }
    let whole: f64 = args.mix.0.iter().map(|(_, share)| share).sum();
    let (mut sum, mut given) = (0.0, 0u32);
    let groups = args.mix.0.iter().enumerate().map(|(i, (name, share))| {
        sum += share;
        let last = i + 1 == args.mix.0.len();
        let upto = if last { args.messages } else { (f64::from(args.messages) * sum / whole).round() as u32 };
        let messages = upto.saturating_sub(given);
        given += messages;
        group(config, args, name, messages)
    });
    Ok(Plan {
        groups: groups.collect(),
        arrive: args.arrive.map_or_else(Default::default, |span| span.0),
        senders: args.senders,
        bulk: args.bulk.0,
        round_trip: args.round_trip.0,
        until: args.until.0,
        seed: args.seed,
    })
}

fn group(config: &Config, args: &Simulate, name: &str, messages: u32) -> Group {
    let other = name == "other" || name == "others";
    let (provider, limits_from) = match config.provider(name).filter(|_| !other) {
        Some(provider) => (provider.clone(), format!("[provider.{name}]")),
        None => (Arc::clone(&config.default), "[default]".to_owned()),
    };
    let persona = Persona::find(name).filter(|_| !other).unwrap_or(Persona::generic());
    let mut caps: Caps = persona.caps();
    for setting in args.hidden.iter().filter(|h| h.0 == name).flat_map(|h| &h.1) {
        caps.set(setting);
    }
    Group {
        name: name.to_owned(),
        messages,
        provider,
        limits_from,
        domains: if other { args.domains } else { 1 },
        persona,
        caps,
        changes: args.change.iter().filter(|c| c.0 == name).map(|c| c.1.clone()).collect(),
    }
}

/// How long mail waited.
fn waits(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let mut table = Table::new(["WAITED", "MESSAGES", "HALF OF THEM UP TO", "99 % UP TO", "AT MOST"]);
    for g in &report.groups {
        let bulk = g.bulk_waits.iter().map(|waits| (format!("{}, bulk", g.name), waits));
        for (name, waits) in std::iter::once((g.name.clone(), &g.waits)).chain(bulk).filter(|(_, w)| w.messages > 0) {
            let seconds = |s: f64| if s < 60.0 { format!("{s:.1} s") } else { clock(s) };
            table.row([
                name,
                waits.messages.to_string(),
                seconds(waits.median),
                seconds(waits.p99),
                seconds(waits.most),
            ]);
        }
    }
    table.write(out)
}

fn print(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let mut table = Table::new([
        "PROVIDER",
        "MESSAGES",
        "DELIVERED",
        "FAILED",
        "THROTTLED",
        "RETRIES",
        "CONNECTIONS",
        "DEEPEST",
        "PER SECOND",
        "DONE AFTER",
    ]);
    for g in &report.groups {
        table.row([
            g.name.clone(),
            g.messages.to_string(),
            g.delivered.to_string(),
            g.failed.to_string(),
            format!("{} ({:.1} %)", g.throttled, g.throttled_share * 100.0),
            g.retries.to_string(),
            g.connections.to_string(),
            g.peak_depth.to_string(),
            format!("{:.1}", g.rate),
            g.done_seconds.map_or("not yet".to_owned(), |s| clock(s as f64)),
        ]);
    }
    table.write(out)?;
    writeln!(out)?;
    let mut table = Table::new(["PROVIDER", "OUR LIMITS", "IT ENFORCES"]);
    for g in &report.groups {
        table.row([g.name.clone(), g.limits.clone(), g.enforced.clone()]);
    }
    table.write(out)?;
    writeln!(out)?;
    waits(report, out)?;
    for g in &report.groups {
        for line in &g.learned {
            writeln!(out, "{}: {line}", g.name)?;
        }
    }
    // A column a provider: how much waits; rows of text, as their number is not known beforehand.
    writeln!(out, "\nWaiting (and since the row before: delivered, !throttled)")?;
    let width = |name: &str| name.chars().count().max(22);
    let mut line = format!("{:<12}", "AFTER");
    for g in &report.groups {
        line.push_str(&format!("{:>width$}  ", g.name.to_uppercase(), width = width(&g.name)));
    }
    writeln!(out, "{}", line.trim_end())?;
    let rows = report.groups.iter().map(|g| g.series.len()).max().unwrap_or(0);
    for i in 0..rows {
        let at = report.groups.iter().find_map(|g| g.series.get(i)).map_or(0, |p| p.at);
        let mut line = format!("{:<12}", clock(at as f64));
        for g in &report.groups {
            let cell = g.series.get(i).map_or_else(String::new, |p| match p.throttled {
                0 => format!("{} (+{})", p.depth, p.delivered),
                throttled => format!("{} (+{} !{throttled})", p.depth, p.delivered),
            });
            line.push_str(&format!("{cell:>width$}  ", width = width(&g.name)));
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    let end = if report.complete { "done after" } else { "stopped, not done, after" };
    writeln!(out, "\n{} messages: {end} {}", report.messages, clock(report.seconds as f64))
}
