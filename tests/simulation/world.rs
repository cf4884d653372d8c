//! The state of the simulated world, which outlives the relay: the plan, the one source of chance,
//! the model beside the queue, what the receivers saw, and the trace.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use mailweir::clock::{Clock, Timestamp};
use mailweir::config::Config;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::gauge::Gauge;
use super::model::Model;
use super::plan::{Disk, Host, MINUTE, Plan, Weather};

/// When every simulation begins.
pub const BEGIN: Timestamp = Timestamp(1_790_000_000_000);

pub struct World {
    pub plan: Plan,
    pub config: Arc<Config>,
    /// The machine is off.
    pub died: Notify,
    show: bool,
    state: Mutex<Inner>,
}

struct Inner {
    rng: Rng,
    clock: Clock,
    /// Steps of store and network until the machine is off.
    fuse: Option<u32>,
    dead: bool,
    model: Model,
    gauge: Gauge,
    trace: DefaultHasher,
    events: u64,
    /// Who was greylisted, since when.
    grey: BTreeMap<String, Duration>,
    /// When the disk was last in trouble.
    troubled: i64,
}

impl World {
    pub fn new(seed: u64) -> Arc<World> {
        let mut rng = Rng::with_seed(seed);
        let plan = Plan::new(&mut rng);
        let config = match Config::parse(&plan.config, "plan") {
            Ok(config) => Arc::new(config),
            Err(error) => panic!("seed {seed}: {error}\n{}", plan.config),
        };
        let limits = |lane: &str| config.provider(lane).unwrap_or(&config.default).clone();
        let gauge = Gauge::new(plan.groups.iter().map(|group| (group.lane.clone(), limits(&group.lane))).collect());
        let keep_failed = i64::try_from(config.queue.keep_failed.as_millis()).unwrap_or(i64::MAX);
        let model = Model::new(keep_failed);
        Arc::new(World {
            plan,
            config,
            died: Notify::new(),
            show: std::env::var_os("MAILWEIR_SIMULATION_TRACE").is_some(),
            state: Mutex::new(Inner {
                rng,
                clock: Clock::System,
                fuse: None,
                dead: false,
                model,
                gauge,
                trace: DefaultHasher::new(),
                events: 0,
                grey: BTreeMap::new(),
                troubled: 0,
            }),
        })
    }

    /// A new life begins.
    pub fn begin(&self, clock: Clock) {
        let mut state = self.state.lock();
        state.clock = clock;
        (state.dead, state.fuse) = (false, None);
        state.model.life += 1;
        // After a crash every rate begins without its burst, also that of a domain's own lane, which
        // mail leaves only once its provider is known.
        let default = &self.config.default;
        let cell = default.rate.iter().map(|rate| rate.per / rate.count).max().unwrap_or_default();
        state.model.quiet_since = clock.now().after(cell * default.burst.max(1)).0;
        state.gauge.crashed();
    }

    /// Since the simulation began.
    pub fn now(&self) -> Duration {
        self.timestamp().since(BEGIN)
    }

    pub fn timestamp(&self) -> Timestamp {
        self.state.lock().clock.now()
    }

    pub fn random(&self, range: RangeInclusive<u64>) -> u64 {
        self.state.lock().rng.u64(range)
    }

    pub fn chance(&self, part: f64) -> bool {
        self.state.lock().rng.f64() < part
    }

    pub fn pick<T: Copy>(&self, from: &[T]) -> T {
        from[self.state.lock().rng.usize(..from.len())]
    }

    /// A wait around `mean`, as of things that come by chance.
    pub fn wait(&self, mean: Duration) -> Duration {
        let uniform = self.state.lock().rng.f64().max(1e-9);
        mean.mul_f64(-uniform.ln()).max(Duration::from_millis(1))
    }

    /// Puts a line in the trace.
    pub fn note(&self, line: impl Display) {
        let mut state = self.state.lock();
        let now = state.clock.now();
        let line = line.to_string();
        (now.0, &line).hash(&mut state.trace);
        state.events += 1;
        if self.show {
            println!("{now} {line}");
        }
    }

    /// The trace so far: its hash and its length.
    pub fn trace(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.trace.finish(), state.events)
    }

    /// The machine goes off in so many steps.
    pub fn light(&self, steps: u32) {
        self.state.lock().fuse.get_or_insert(steps);
    }

    /// One step of store or network; true if the machine is off, perhaps since this very step.
    pub fn step(&self) -> bool {
        let mut state = self.state.lock();
        if let Some(left) = &mut state.fuse {
            *left = left.saturating_sub(1);
            if *left == 0 {
                state.dead = true;
                self.died.notify_one();
            }
        }
        state.dead
    }

    pub fn kill(&self) {
        self.state.lock().dead = true;
    }

    pub fn is_dead(&self) -> bool {
        self.state.lock().dead
    }

    pub fn opened(&self, group: usize) {
        let wrong = self.state.lock().gauge.opened(group);
        self.wrong(wrong);
    }

    pub fn closed(&self, group: usize) {
        let mut state = self.state.lock();
        if !state.dead {
            state.gauge.closed(group);
        }
    }

    pub fn started(&self, group: usize, at: i64, recipients: u32, nth: u32) {
        let mut state = self.state.lock();
        let wrong = state.gauge.started(group, at, recipients, nth);
        drop(state);
        self.wrong(wrong);
    }

    pub fn gauge<T>(&self, look: impl FnOnce(&mut Gauge) -> T) -> T {
        look(&mut self.state.lock().gauge)
    }

    pub fn model<T>(&self, look: impl FnOnce(&mut Model) -> T) -> T {
        look(&mut self.state.lock().model)
    }

    pub fn wrong(&self, what: impl IntoIterator<Item = String>) {
        let now = self.timestamp();
        self.model(|model| model.wrong.extend(what.into_iter().map(|what| format!("{now} {what}"))));
    }

    /// What happens to a connection to this host, if anything.
    pub fn weather(&self, host: &Host) -> Option<Weather> {
        let now = self.now();
        let spell = host.weather.iter().find(|spell| spell.span.has(now))?;
        self.chance(spell.part).then_some(spell.weather)
    }

    /// What the disk does to this write.
    pub fn disk(&self) -> Option<Disk> {
        let now = self.now();
        let disk = self.plan.disk.iter().find(|(span, _)| span.has(now)).map(|(_, disk)| *disk);
        if disk.is_some() {
            // Tries again come up to the first of the retry schedule later.
            let mut state = self.state.lock();
            state.troubled = state.clock.now().0;
            state.model.quiet_since = state.troubled + MINUTE.as_millis() as i64;
        }
        disk
    }

    /// Whether someone who comes as `who` has come long enough ago for the first time.
    pub fn greylisted(&self, who: String) -> bool {
        let now = self.now();
        let mut state = self.state.lock();
        let since = *state.grey.entry(who).or_insert(now);
        now < since + MINUTE * 5
    }
}
