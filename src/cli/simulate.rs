//! `mailweir simulate`: how a day of mail would go, on virtual time.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;

use super::screen;
use super::text::Table;
use super::{Code, Failed, Outcome};
use crate::clock::{Clock, Timestamp};
use crate::config::units::Span;
use crate::config::{Config, profiles};
use crate::model::{Caps, Change, Persona, Setting};
use crate::simulate::chart::{clock, svg};
use crate::simulate::{Group, Plan, Progress, Report, SimulateError, run_telling};

/// Groups of a mix at most.
const MOST_GROUPS: usize = 100;

#[derive(Args, Debug)]
#[command(
    after_help = "Example: mailweir simulate --messages 500000 --mix gmail=60,microsoft365=25,other=15 --arrive 2h \
                        --hidden gmail=rate:15/s --svg day.svg"
)]
pub(super) struct Simulate {
    /// Messages in all
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=20_000_000))]
    messages: u32,
    /// Their shares: names of providers, and `other` for domains that no provider matches
    #[arg(long, value_name = "NAME=SHARE,…", default_value = "gmail=50,microsoft365=25,yahoo=10,other=15")]
    mix: Mix,
    /// The day (UTC) on which it begins, for warm-ups [default: today]
    #[arg(long, value_name = "DATE", value_parser = day)]
    begin: Option<Timestamp>,
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

fn day(text: &str) -> Result<Timestamp, String> {
    Timestamp::of_day(text).ok_or(format!("`{text}`: expected a day (UTC) such as 2026-12-01"))
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
    let mut shown = Shown::new();
    let report = run_telling(&plan, &mut |progress| shown.tell(progress));
    shown.clear();
    let report = report.map_err(|e| match e {
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
    } else {
        print(&report, &mut out)?;
    }
    match report.expired {
        0 => Ok(()),
        expired => Err(Failed::new(Code::Unavailable, format!("{expired} messages expired: see the table"))),
    }
}

/// How often progress is shown.
const EVERY: Duration = Duration::from_millis(200);

/// Progress on a terminal: one line on standard error that is written over.
struct Shown {
    terminal: bool,
    last: Instant,
    written: bool,
}

impl Shown {
    fn new() -> Shown {
        Shown { terminal: io::stderr().is_terminal(), last: Instant::now(), written: false }
    }

    fn tell(&mut self, progress: Progress) {
        if self.terminal && self.last.elapsed() >= EVERY {
            let part = progress.done as f64 / progress.messages.max(1) as f64 * 100.0;
            // The line is ours: nothing in it comes from anywhere else. Who cannot read it misses nothing.
            let _ = write!(io::stderr(), "\r\x1b[K{}, {part:.0} % done", clock(progress.elapsed.as_secs_f64()));
            (self.last, self.written) = (Instant::now(), true);
        }
    }

    fn clear(&self) {
        if self.written {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// A name in a mix is that of a provider of the configuration, a profile, or `sink --as`; each has one
/// name, and others that are taken for it.
fn named(config: &Config, name: &str) -> Result<String, Failed> {
    if name == "others" || name == "other" {
        return Ok("other".into());
    }
    if config.provider(name).is_some() {
        return Ok(name.to_owned());
    }
    let known = profiles::canonical(name);
    let profile = |name: &str| profiles::all().iter().any(|profile| profile.name() == name);
    if config.provider(&known).is_some() || profile(&known) || Persona::find(&known).is_some() {
        return Ok(known);
    }
    let mut names: Vec<&str> = config.providers.iter().map(|provider| provider.name.as_str()).collect();
    for name in profiles::all().iter().map(profiles::Profile::name).chain(Persona::names()).chain(["other"]) {
        names.push(name);
    }
    let hint = match crate::config::nearest(name, names) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "`mailweir provider list` and `mailweir sink --as list` know the others".into(),
    };
    let message =
        format!("`{name}` is no provider: expected a [provider.NAME], the name of a profile, or `other`; {hint}");
    Err(Failed::new(Code::Usage, message))
}

fn plan(config: &Config, args: &Simulate) -> Result<Plan, Failed> {
    let mut mix: Vec<(String, f64)> = Vec::new();
    for (name, share) in &args.mix.0 {
        let name = named(config, name)?;
        if mix.iter().any(|(other, _)| *other == name) {
            return Err(Failed::new(Code::Usage, format!("`{name}` stands twice in the mix")));
        }
        mix.push((name, *share));
    }
    let caps = caps(config, args, &mix)?;
    let whole: f64 = mix.iter().map(|(_, share)| share).sum();
    let (mut sum, mut given) = (0.0, 0u32);
    let groups = mix.iter().enumerate().map(|(i, (name, share))| {
        sum += share;
        let last = i + 1 == mix.len();
        let upto = if last { args.messages } else { (f64::from(args.messages) * sum / whole).round() as u32 };
        let messages = upto.saturating_sub(given);
        given += messages;
        group(config, args, &caps, name, messages)
    });
    let plan = Plan {
        groups: groups.collect(),
        begin: args.begin.unwrap_or_else(|| {
            let today = Clock::System.now();
            Timestamp(today.0 - today.0.rem_euclid(86_400_000))
        }),
        arrive: args.arrive.map_or_else(Default::default, |span| span.0),
        senders: args.senders,
        limits: Vec::new(),
        bulk: args.bulk.0,
        round_trip: args.round_trip.0,
        until: args.until.0,
        seed: args.seed,
    };
    Ok(plan.with_limits(&config.limits))
}

/// What providers of the mix enforce besides what they are known for, by name.
struct Enforced {
    hidden: Vec<(String, Vec<Setting>)>,
    changes: Vec<(String, Change)>,
}

fn caps(config: &Config, args: &Simulate, mix: &[(String, f64)]) -> Result<Enforced, Failed> {
    let in_mix = |name: &str| {
        let known = named(config, name).ok().filter(|known| mix.iter().any(|(other, _)| other == known));
        known.ok_or_else(|| Failed::new(Code::Usage, format!("`{name}` is not in the mix")))
    };
    let hidden = args.hidden.iter().map(|Hidden(name, settings)| Ok((in_mix(name)?, settings.clone())));
    let changes = args.change.iter().map(|Changed(name, change)| Ok((in_mix(name)?, change.clone())));
    Ok(Enforced { hidden: hidden.collect::<Result<_, Failed>>()?, changes: changes.collect::<Result<_, Failed>>()? })
}

fn group(config: &Config, args: &Simulate, enforced: &Enforced, name: &str, messages: u32) -> Group {
    let other = name == "other";
    let (provider, limits_from) = match config.provider(name).filter(|_| !other) {
        Some(provider) => (provider.clone(), format!("[provider.{name}]")),
        None => (Arc::clone(&config.default), "[default]".to_owned()),
    };
    let persona = Persona::find(name).filter(|_| !other).unwrap_or(Persona::generic());
    let mut caps: Caps = persona.caps();
    for setting in enforced.hidden.iter().filter(|(of, _)| of == name).flat_map(|(_, settings)| settings) {
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
        changes: enforced.changes.iter().filter(|(of, _)| of == name).map(|(_, change)| change.clone()).collect(),
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
        "EXPIRED",
        "BOUNCED",
        "WAITING",
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
            g.expired.to_string(),
            g.bounced.to_string(),
            g.waiting.to_string(),
            format!("{} ({:.1} %)", g.throttled, g.throttled_share * 100.0),
            g.retries.to_string(),
            g.connections.to_string(),
            g.peak_depth.to_string(),
            format!("{:.1}", g.rate),
            match (g.done_seconds, g.expired) {
                (None, _) => "not yet".to_owned(),
                (Some(s), 0) => clock(s as f64),
                // Nobody is to take the end of what expired for a success.
                (Some(s), _) => {
                    format!("{}, {:.1} % expired", clock(s as f64), g.expired as f64 / g.messages as f64 * 100.0)
                }
            },
        ]);
    }
    table.write(out)?;
    writeln!(out)?;
    let mut table = Table::new(["PROVIDER", "OUR LIMITS", "IT ENFORCES"]);
    for g in &report.groups {
        table.row([g.name.clone(), g.limits.clone(), g.enforced.clone()]);
    }
    table.write(out)?;
    if !report.limits.is_empty() {
        writeln!(out)?;
        let mut table = Table::new(["LIMIT", "ALLOWS", "IS ABOUT"]);
        for limit in &report.limits {
            table.row([limit.name.clone(), limit.allows.clone(), limit.about.clone()]);
        }
        table.write(out)?;
    }
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
    writeln!(out, "\n{}; {}", report.fates(), report.end())
}
