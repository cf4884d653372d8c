//! A world as data, and what happens in it.

use std::sync::Arc;
use std::time::Duration;

use mailweir::config::units::Span;
use mailweir::config::{Config, Provider};
use mailweir::model::{Caps, Change, Log, Persona, Setting};
use mailweir::simulate::{Group, Plan, Report, watch};
use toml_edit::{DocumentMut, Item, Table};

/// What a world is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A cap on everybody's mail, to be found and used.
    Cap,
    /// A cap on each sender's mail.
    Sender,
    /// No matter of pace: the lane must not slow down.
    Other,
    /// A built-in profile with a rate that it does not know.
    Profile,
}

/// A world.
#[derive(Clone, Debug)]
pub struct World {
    pub name: String,
    pub kind: Kind,
    /// Only when asked for.
    pub wide: bool,
    /// How its one verdict begins where it is known to be wrong still; anything else or more is a failure.
    pub misses: String,
    /// What the receiver enforces, and when that changes.
    pub caps: String,
    pub changes: Vec<String>,
    /// From which second on the cap is so many messages a second (of each sender); empty: as measured where
    /// `told` says it.
    pub parts: Vec<(u64, f64)>,
    /// Keys of the provider that tell the caps.
    pub told: String,
    /// The longest window of the caps, in seconds.
    pub window: u64,
    /// It ends then.
    pub seconds: u64,
    /// Messages; 0: enough for the caps.
    pub messages: u32,
    /// All at once where this is zero.
    pub arrive: Duration,
    pub senders: u16,
    pub round_trip: Duration,
    /// Keys of the provider beside.
    pub provider: String,
    /// The profile.
    pub profile: String,
    /// The part of the messages that can be delivered.
    pub delivered: f64,
    /// The sender this is about.
    pub about: String,
    pub seed: u64,
}

/// All worlds of a set.
pub fn read(text: &str) -> Vec<World> {
    let document: DocumentMut = text.parse().expect("worlds in TOML");
    let worlds = document["world"].as_array_of_tables().expect("worlds");
    worlds.iter().map(world).collect()
}

fn world(of: &Table) -> World {
    const KEYS: &str = "name kind wide misses caps changes parts told window seconds messages arrive senders round_trip \
                        provider profile delivered about seed";
    let name = of["name"].as_str().expect("a name").to_owned();
    for (key, _) in of.iter() {
        assert!(KEYS.split(' ').any(|known| known == key), "{name}: what is {key}?");
    }
    let text = |key: &str| of.get(key).and_then(Item::as_str).unwrap_or_default().to_owned();
    let number = |key: &str, usual: u64| match of.get(key).and_then(Item::as_integer) {
        Some(n) => u64::try_from(n).expect("a number"),
        None => usual,
    };
    let small = |key: &str, usual: u64| u32::try_from(number(key, usual)).expect("a small number");
    let float = |item: &toml_edit::Value| item.as_float().or(item.as_integer().map(|n| n as f64)).expect("a number");
    let span = |key: &str, usual: &str| {
        let text = of.get(key).and_then(Item::as_str).unwrap_or(usual);
        text.parse::<Span>().expect("a span").0
    };
    let array = |key: &str| of.get(key).and_then(Item::as_array).into_iter().flatten();
    World {
        kind: match text("kind").as_str() {
            "cap" => Kind::Cap,
            "sender" => Kind::Sender,
            "other" => Kind::Other,
            "profile" => Kind::Profile,
            kind => panic!("{name}: what kind is {kind}?"),
        },
        misses: text("misses"),
        wide: of.get("wide").and_then(Item::as_bool).unwrap_or(false),
        caps: text("caps"),
        changes: array("changes").map(|change| change.as_str().expect("a change").to_owned()).collect(),
        parts: array("parts")
            .map(|part| part.as_array().expect("a part"))
            .map(|part| (float(part.get(0).expect("a second")) as u64, float(part.get(1).expect("a cap"))))
            .collect(),
        told: text("told"),
        window: number("window", 1),
        seconds: number("seconds", 300),
        messages: small("messages", 0),
        arrive: span("arrive", "0s"),
        senders: u16::try_from(number("senders", 4)).expect("a small number"),
        round_trip: span("round_trip", "50ms"),
        provider: text("provider"),
        profile: text("profile"),
        delivered: of.get("delivered").and_then(Item::as_value).map_or(1.0, float),
        about: text("about"),
        seed: number("seed", 1),
        name,
    }
}

/// How a world is met.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum With {
    /// As it is by default.
    Learning,
    /// `adaptive = false`.
    Nothing,
    /// `adaptive = false`, and the limits told.
    Told,
    /// As it is by default, without profiles.
    NoProfiles,
}

impl World {
    /// The provider as the configuration has it.
    pub fn configured(&self, with: With) -> Arc<Provider> {
        let name = if self.profile.is_empty() { "hidden" } else { &self.profile };
        let mut lines = self.provider.clone();
        let told = if with == With::Told { self.told() } else { String::new() };
        if self.profile.is_empty() {
            for (key, usual) in [("rate =", "rate = []"), ("connections =", "connections = 20")] {
                if !lines.contains(key) && !told.contains(key) {
                    lines = format!("{lines}\n{usual}");
                }
            }
        }
        lines = format!("{lines}\n{told}");
        let adaptive = !matches!(with, With::Nothing | With::Told);
        let profiles = !self.profile.is_empty() && with != With::NoProfiles;
        let text = format!(
            "builtin_profiles = {profiles}\n[provider.{name}]\nmatch.domains = [\"{name}.example\"]\nadaptive = {adaptive}\n{lines}\n"
        );
        let config = Config::parse(&text, "world").unwrap_or_else(|e| panic!("{}: {e}\n{text}", self.name));
        config.provider(name).expect("the provider").clone()
    }

    /// Keys that tell the caps: those of the world, or a rate a little below its first.
    fn told(&self) -> String {
        match self.parts.first() {
            Some((_, cap)) if self.told.is_empty() => {
                let over = self.window.max(20);
                // A burst, as timers have a grain that fast paces feel.
                let burst = (cap * 0.04).floor().max(1.0);
                let mut told = format!("rate = \"{}/{over}s\"\nburst = {burst}", (cap * over as f64 * 0.97).floor());
                for setting in Setting::list(&self.caps).unwrap_or_default() {
                    match setting {
                        Setting::Connections(n) => told = format!("{told}\nconnections = {n}"),
                        Setting::MessagesPerConnection(n) => told = format!("{told}\nmessages_per_connection = {n}"),
                        _ => {}
                    }
                }
                told
            }
            _ => self.told.clone(),
        }
    }

    fn persona(&self) -> &'static Persona {
        // One name of a profile differs.
        let name = if self.profile == "microsoft365" { "microsoft" } else { &self.profile };
        Persona::find(name)
            .or(Persona::find("microsoft365").filter(|_| self.profile == "microsoft365"))
            .unwrap_or(Persona::generic())
    }

    fn plan(&self, with: With) -> Plan {
        let persona = self.persona();
        let mut caps: Caps = persona.caps();
        if !self.caps.is_empty() {
            let settings = Setting::list(&self.caps).unwrap_or_else(|e| panic!("{}: {e}", self.name));
            settings.iter().for_each(|setting| caps.set(setting));
        }
        let change = |text: &String| text.parse::<Change>().unwrap_or_else(|e| panic!("{}: {e}", self.name));
        let group = Group {
            name: if self.profile.is_empty() { "hidden".into() } else { self.profile.clone() },
            messages: self.enough(),
            provider: self.configured(with),
            limits_from: "world".into(),
            domains: 1,
            persona,
            caps,
            changes: self.changes.iter().map(change).collect(),
        };
        Plan {
            groups: vec![group],
            // A Thursday.
            begin: mailweir::clock::Timestamp(1_767_225_600_000),
            arrive: self.arrive,
            senders: self.senders,
            limits: Vec::new(),
            bulk: 0.0,
            round_trip: self.round_trip,
            until: Duration::from_secs(self.seconds),
            seed: self.seed,
        }
    }

    /// Messages: more than the caps let through.
    pub fn enough(&self) -> u32 {
        if self.messages > 0 {
            return self.messages;
        }
        let ends = self.parts.iter().skip(1).map(|part| part.0).chain([self.seconds]);
        let most: f64 = self.parts.iter().zip(ends).map(|((begin, cap), end)| cap * (end - begin) as f64).sum();
        (most * 1.15) as u32 + 300
    }

    /// What happens.
    pub fn run(&self, with: With) -> (Report, Log) {
        let (report, mut logs) = watch(&self.plan(with)).unwrap_or_else(|e| panic!("{}: {e}", self.name));
        let mut log = logs.pop().expect("a server");
        let most = usize::try_from(self.seconds).expect("a small number");
        log.seconds.resize(most.max(log.seconds.len()), Default::default());
        if let Some(span) = std::env::var("MAILWEIR_PACE_TRACE").ok().and_then(|span| span.parse().ok()) {
            println!("{} #{}, {with:?}: {}", self.name, self.seed, spans(&log, span));
            report.groups[0].learned.iter().for_each(|line| println!("    {line}"));
        }
        (report, log)
    }
}

/// `20: 230+4` for each span of so many seconds: accepted, and refused to slow us down.
fn spans(log: &Log, seconds: usize) -> String {
    let seconds = seconds.max(1);
    let told = log.seconds.chunks(seconds).enumerate().map(|(at, of)| {
        let accepted: u32 = of.iter().map(|second| second.accepted).sum();
        let throttled: u32 = of.iter().map(|second| second.throttled).sum();
        format!("{}: {accepted}+{throttled}", at * seconds)
    });
    told.collect::<Vec<_>>().join("  ")
}
