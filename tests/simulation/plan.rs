//! What one seed means: the configuration, the providers with their hosts and domains, and when
//! what goes wrong. Everything that goes wrong is over at [`Plan::heal`].

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use fastrand::Rng;

pub const SECOND: Duration = Duration::from_secs(1);
pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(3600);

/// The group that nothing ever happens to: invariant 4 is measured with it.
pub const CALM: usize = 0;
/// The domain that senders live in when they can always be told of failures.
pub const CALM_DOMAIN: &str = "d0.p0.test";

/// Who shares limits: a provider, or a domain without one.
pub struct Group {
    /// The name of its lane.
    pub lane: String,
}

pub struct Domain {
    pub name: String,
    /// Its hosts from this time on; the first entry is from the start.
    pub mx: Vec<(Duration, Vec<usize>)>,
    pub trouble: Vec<(Span, Dns)>,
}

pub struct Host {
    pub name: String,
    pub address: IpAddr,
    pub port: u16,
    pub group: usize,
    pub pipelining: bool,
    pub chunking: bool,
    pub dsn: bool,
    /// One way, in milliseconds.
    pub latency: (u64, u64),
    pub weather: Vec<Spell>,
}

/// From when to when.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub from: Duration,
    pub to: Duration,
}

impl Span {
    pub fn has(&self, now: Duration) -> bool {
        self.from <= now && now < self.to
    }
}

/// A time in which a host misbehaves with a part of those who come.
#[derive(Clone, Copy, Debug)]
pub struct Spell {
    pub span: Span,
    pub part: f64,
    pub weather: Weather,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Weather {
    /// Connections are refused.
    Refused,
    /// Connections are never answered.
    BlackHole,
    /// Connections are reset, closed or go silent after some bytes.
    Cut,
    /// 4yz somewhere.
    Transient,
    /// 5yz somewhere.
    Permanent,
    /// "Slow down".
    Throttle,
    /// Answers take from seconds to more than any patience.
    Slow,
    /// Says nothing any more, somewhere.
    Silent,
    /// Closes, somewhere.
    Closes,
    /// Takes the message; the reply never arrives.
    LosesFinal,
    /// Not SMTP.
    Nonsense,
}

const WEATHERS: [Weather; 11] = [
    Weather::Refused,
    Weather::BlackHole,
    Weather::Cut,
    Weather::Transient,
    Weather::Permanent,
    Weather::Throttle,
    Weather::Slow,
    Weather::Silent,
    Weather::Closes,
    Weather::LosesFinal,
    Weather::Nonsense,
];

/// What the name server does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dns {
    ServFail,
    Silent,
    /// Says that there is no such domain. It says so with authority, so mail bounces.
    NoDomain,
}

/// What the disk does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Disk {
    Full,
    Unavailable,
    /// Every second write fails.
    Flaky,
    /// Every write takes long.
    Slow,
}

/// How a life of the relay ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// `kill -9` so many steps of store and network after the time.
    Crash(u32),
    /// SIGTERM.
    Stop,
}

pub struct Plan {
    pub config: String,
    pub groups: Vec<Group>,
    pub domains: Vec<Domain>,
    pub hosts: Vec<Host>,
    pub disk: Vec<(Span, Disk)>,
    pub ends: Vec<(Duration, End)>,
    /// Mean time between submissions.
    pub pause: Duration,
    /// The operator leaves the queue alone.
    pub no_operator: bool,
    /// No more faults, and no more new mail.
    pub heal: Duration,
    /// Everything has a fate so long after it, or after it was accepted if that was later.
    pub patience: Duration,
}

impl Plan {
    pub fn new(rng: &mut Rng) -> Plan {
        let heal = HOUR * rng.u32(60..300);
        let mut plan = Plan {
            config: String::new(),
            groups: Vec::new(),
            domains: Vec::new(),
            hosts: Vec::new(),
            disk: Vec::new(),
            ends: Vec::new(),
            pause: MINUTE * rng.u32(10..120),
            no_operator: rng.u8(..4) == 0,
            heal,
            patience: Duration::ZERO,
        };
        plan.write_top(rng);
        // Every key, or those of [default] would hold.
        let calm = "connections = 3\nmessages_per_connection = 50\nrecipients_per_message = 50\nrate = \"10/s\"\n\
                    burst = 0\nquota = []\nconnection_rate = []\ncount = \"messages\"\nadaptive = true\npipelining = true\n";
        plan.add_provider(rng, calm, true);
        for _ in 0..rng.usize(2..5) {
            let limits = limits(rng);
            plan.add_provider(rng, &limits, false);
        }
        plan.add_smart_host(rng);
        for n in 0..rng.usize(1..4) {
            plan.add_lonely(rng, n);
        }
        plan.move_a_domain(rng);
        for _ in 0..rng.usize(..5) {
            let span = span(rng, heal, 6 * 60);
            let disk = [Disk::Full, Disk::Unavailable, Disk::Flaky, Disk::Slow][rng.usize(..4)];
            plan.disk.push((span, disk));
        }
        let mut ends: Vec<Duration> = (0..rng.usize(..10)).map(|_| instant(rng, heal)).collect();
        ends.sort();
        for at in ends {
            let end = if rng.u8(..5) == 0 { End::Stop } else { End::Crash(rng.u32(1..120)) };
            plan.ends.push((at, end));
        }
        plan
    }

    fn write_top(&mut self, rng: &mut Rng) {
        let first = rng.u32(1..40);
        let max = rng.u32(30..360).max(first);
        let expire = rng.u32(12..72);
        let (memory, jitter) = (["1MiB", "64MiB"][rng.usize(..2)], ["0.0", "0.2", "0.5"][rng.usize(..3)]);
        let _ = write!(
            self.config,
            "hostname = \"relay.example\"\nbuiltin_profiles = false\n\
             [queue]\nmemory = \"{memory}\"\nkeep_failed = \"{keep}h\"\n\
             [retry]\nfirst = \"{first}m\"\nfactor = {factor}\nmax = \"{max}m\"\njitter = {jitter}\n\
             expire = \"{expire}h\"\nwarn = \"{warn}h\"\n\
             [dns]\nnameservers = [\"192.0.2.53\"]\nattempts = {attempts}\n\
             [default]\nallow_private = true\ntls = \"off\"\nidle_timeout = \"{idle}s\"\n{limits}",
            keep = rng.u32(1..48),
            factor = ["1.0", "1.5", "2.0"][rng.usize(..3)],
            warn = rng.u32(..6),
            attempts = rng.u8(1..4),
            idle = rng.u32(1..120),
            limits = limits(rng),
        );
        // Everything that waits has its due time within the longest wait; then come a circuit's and
        // a dead host's, an hour each, and the quota's: what does not leave in time expires.
        self.patience = HOUR * (expire + max.div_ceil(40) + 6);
    }

    fn add_provider(&mut self, rng: &mut Rng, limits: &str, calm: bool) {
        let group = self.groups.len();
        let name = format!("p{group}");
        let _ = write!(self.config, "[provider.{name}]\nmatch.mx = [\"*.{name}.example\"]\n{limits}");
        self.groups.push(Group { lane: name.clone() });
        let hosts: Vec<usize> = (0..rng.usize(1..4))
            .map(|n| self.add_host(rng, format!("mx{n}.{name}.example"), 25, group, calm))
            .collect();
        for n in 0..rng.usize(1..4) {
            let trouble = if calm { Vec::new() } else { dns_trouble(rng, self.heal) };
            self.domains.push(Domain {
                name: format!("d{n}.{name}.test"),
                mx: vec![(Duration::ZERO, hosts.clone())],
                trouble,
            });
        }
    }

    fn add_smart_host(&mut self, rng: &mut Rng) {
        let group = self.groups.len();
        let limits = limits(rng);
        let _ = write!(
            self.config,
            "[provider.smart]\nrelay = \"smart.example:587\"\ntls = \"off\"\n{limits}\
             [[route]]\nrecipient = \"*@smart.test\"\nvia = \"smart\"\n"
        );
        self.groups.push(Group { lane: "smart".into() });
        let host = self.add_host(rng, "smart.example".into(), 587, group, false);
        let trouble = Vec::new();
        self.domains.push(Domain { name: "smart.test".into(), mx: vec![(Duration::ZERO, vec![host])], trouble });
    }

    /// A domain that no provider matches.
    fn add_lonely(&mut self, rng: &mut Rng, n: usize) {
        let group = self.groups.len();
        let name = format!("lonely{n}.test");
        self.groups.push(Group { lane: format!("@{name}") });
        let host = self.add_host(rng, format!("mx.{name}"), 25, group, false);
        let trouble = dns_trouble(rng, self.heal);
        self.domains.push(Domain { name, mx: vec![(Duration::ZERO, vec![host])], trouble });
    }

    /// A domain changes its provider, and perhaps changes back.
    fn move_a_domain(&mut self, rng: &mut Rng) {
        // To a provider: at the host of a domain without one, two lanes would meet.
        let is_movable = |domain: &Domain| !domain.name.contains(".p0.") && domain.name != "smart.test";
        let movable: Vec<usize> = (0..self.domains.len()).filter(|d| is_movable(&self.domains[*d])).collect();
        let from = movable[rng.usize(..movable.len())];
        let providers: Vec<usize> =
            movable.into_iter().filter(|d| !self.domains[*d].name.starts_with("lonely")).collect();
        let to = providers[rng.usize(..providers.len())];
        let (there, back) = (self.domains[to].mx[0].1.clone(), self.domains[from].mx[0].1.clone());
        let at = instant(rng, self.heal);
        self.domains[from].mx.push((at, there));
        if rng.bool() {
            self.domains[from].mx.push((at + HOUR * rng.u32(1..48), back));
        }
    }

    fn add_host(&mut self, rng: &mut Rng, name: String, port: u16, group: usize, calm: bool) -> usize {
        let number = self.hosts.len();
        let slow = !calm && rng.u8(..8) == 0;
        let mut weather = Vec::new();
        if !calm {
            for _ in 0..rng.usize(1..8) {
                let span = span(rng, self.heal, 24 * 60);
                let part = if rng.bool() { 1.0 } else { rng.f64() };
                weather.push(Spell { span, part, weather: WEATHERS[rng.usize(..WEATHERS.len())] });
            }
        }
        self.hosts.push(Host {
            name,
            address: IpAddr::from([10, 0, (number / 250) as u8, (number % 250 + 1) as u8]),
            port,
            group,
            pipelining: rng.u8(..4) > 0,
            chunking: rng.bool(),
            dsn: rng.bool(),
            latency: if slow { (500, 9000) } else { (1, rng.u64(2..250)) },
            weather,
        });
        number
    }

    /// Whose hosts these are.
    pub fn host_at(&self, to: SocketAddr) -> Option<usize> {
        self.hosts.iter().position(|host| host.address == to.ip() && host.port == to.port())
    }
}

fn instant(rng: &mut Rng, within: Duration) -> Duration {
    within.mul_f64(rng.f64())
}

fn span(rng: &mut Rng, within: Duration, longest_minutes: u32) -> Span {
    let from = instant(rng, within);
    Span { from, to: (from + MINUTE * rng.u32(1..=longest_minutes)).min(within) }
}

fn dns_trouble(rng: &mut Rng, heal: Duration) -> Vec<(Span, Dns)> {
    let kinds = [Dns::ServFail, Dns::Silent, Dns::NoDomain];
    (0..rng.usize(..3)).map(|_| (span(rng, heal, 8 * 60), kinds[rng.usize(..kinds.len())])).collect()
}

/// Limits that matter at a few messages an hour.
fn limits(rng: &mut Rng) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "connections = {}", rng.u32(1..5));
    let _ = writeln!(text, "messages_per_connection = {}", rng.u32(1..8));
    let _ = writeln!(text, "recipients_per_message = {}", rng.u32(1..6));
    let rates = ["[]", "\"1/s\"", "\"10/m\"", "[\"2/m\", \"60/h\"]", "\"40/h\"", "\"5/s\""];
    let _ = writeln!(text, "rate = {}", rates[rng.usize(..rates.len())]);
    let _ = writeln!(text, "burst = {}", rng.u32(..4));
    if rng.bool() {
        let quotas = ["\"30/h\"", "\"200/d\"", "[\"20/h\", \"150/d\"]", "\"12/1800s\""];
        let _ = writeln!(text, "quota = {}", quotas[rng.usize(..quotas.len())]);
    }
    if rng.u8(..4) == 0 {
        let _ = writeln!(text, "connection_rate = \"{}/m\"", rng.u32(1..20));
    }
    let _ = writeln!(text, "count = \"{}\"", ["messages", "recipients"][rng.usize(..2)]);
    let _ = writeln!(text, "adaptive = {}", rng.bool());
    let _ = writeln!(text, "pipelining = {}", rng.u8(..5) > 0);
    text
}
