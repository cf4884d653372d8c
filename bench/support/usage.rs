//! What the relay used while it was measured, and what the rest of the machine did meanwhile.
//!
//! The relay is one process, or all processes of a cgroup (a relay of many processes, some of
//! which end on the way). PSS counts a page that n processes share as 1/n in each, so that the sum
//! over a relay's processes is what it costs; RSS would count shared pages once per process.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How often memory is looked at; a look costs the kernel a walk over all pages.
const LOOK: Duration = Duration::from_millis(300);

/// The processes of a relay.
#[derive(Clone, Debug)]
pub enum Group {
    /// One.
    Process(u32),
    /// All in the cgroup (version 2) with this directory.
    Cgroup(PathBuf),
}

impl Group {
    /// The processes that are alive.
    pub fn processes(&self) -> Vec<u32> {
        match self {
            Group::Process(pid) => vec![*pid],
            Group::Cgroup(path) => {
                let text = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
                text.lines().filter_map(|line| line.parse().ok()).collect()
            }
        }
    }

    /// CPU seconds used so far, those of processes that have ended too.
    pub fn cpu(&self) -> Option<f64> {
        match self {
            Group::Process(pid) => cpu_of(&pid.to_string()),
            Group::Cgroup(path) => {
                let text = fs::read_to_string(path.join("cpu.stat")).ok()?;
                let micros = text.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
                Some(micros.trim().parse::<f64>().ok()? / 1e6)
            }
        }
    }

    /// Proportional set size of all of them now, in bytes.
    pub fn pss(&self) -> u64 {
        self.processes().iter().filter_map(|pid| smaps(*pid, "Pss:")).sum()
    }

    /// Resident set size of all of them now, in bytes.
    pub fn rss(&self) -> u64 {
        self.processes().iter().filter_map(|pid| smaps(*pid, "Rss:")).sum()
    }
}

/// File descriptors that a process has open.
pub fn descriptors(pid: u32) -> io::Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

fn smaps(pid: u32, field: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// From here on [`peak_rss`] tells the highest since now.
pub fn reset_peak(pid: u32) -> io::Result<()> {
    // See proc_pid_clear_refs(5).
    fs::write(format!("/proc/{pid}/clear_refs"), "5")
}

/// The highest resident set size of a process so far, in bytes.
pub fn peak_rss(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// Ticks of the kernel's clock a second, as in /proc: 100 on every Linux that matters.
const TICKS: f64 = 100.0;

/// CPU seconds of a process (`self` for this one), without those of its children.
fn cpu_of(process: &str) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field is a name in parentheses that may contain anything.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) / TICKS)
}

/// CPU seconds that all processes of the machine used, and those that its host took away.
fn machine() -> (f64, f64) {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<f64> =
        text.lines().next().unwrap_or_default().split_whitespace().skip(1).filter_map(|f| f.parse().ok()).collect();
    let at = |i: usize| fields.get(i).copied().unwrap_or(0.0) / TICKS;
    // user, nice, system, irq, softirq; steal.
    (at(0) + at(1) + at(2) + at(5) + at(6), at(7))
}

/// What a relay used during a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    /// CPU seconds of the relay; `None` if they cannot be had.
    pub cpu: Option<f64>,
    /// Its highest PSS, in bytes.
    pub peak_pss: u64,
    /// Most processes at once.
    pub processes: usize,
    /// The share of all processors that neither the relay nor this program used: strangers, and
    /// the kernel's work that it books to nobody. From 0 to 1.
    pub others: f64,
}

/// A measurement that runs.
pub struct Meter {
    group: Group,
    began: Instant,
    relay: Option<f64>,
    this: f64,
    machine: (f64, f64),
    stop: Arc<AtomicBool>,
    peak: Arc<AtomicU64>,
    processes: Arc<AtomicU64>,
    sampler: JoinHandle<()>,
}

impl Meter {
    /// Begins to look at a relay.
    pub fn start(group: Group) -> Meter {
        let (stop, peak, processes) = (Arc::new(AtomicBool::new(false)), Arc::default(), Arc::default());
        let sampler = thread::spawn({
            let (group, stop) = (group.clone(), stop.clone());
            let (peak, processes): (Arc<AtomicU64>, Arc<AtomicU64>) = (Arc::clone(&peak), Arc::clone(&processes));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    peak.fetch_max(group.pss(), Ordering::Relaxed);
                    processes.fetch_max(group.processes().len() as u64, Ordering::Relaxed);
                    thread::park_timeout(LOOK);
                }
            }
        });
        let relay = group.cpu();
        let this = cpu_of("self").unwrap_or(0.0);
        Meter { group, began: Instant::now(), relay, this, machine: machine(), stop, peak, processes, sampler }
    }

    /// Ends it.
    pub fn finish(self) -> Used {
        self.stop.store(true, Ordering::Relaxed);
        self.sampler.thread().unpark();
        let cpu = self.group.cpu().zip(self.relay).map(|(now, before)| now - before);
        let (busy, stolen) = machine();
        let all = busy - self.machine.0 + stolen - self.machine.1;
        let this = cpu_of("self").unwrap_or(0.0) - self.this;
        let processors = thread::available_parallelism().map_or(1, std::num::NonZero::get) as f64;
        let others = (all - this - cpu.unwrap_or(0.0)) / (self.began.elapsed().as_secs_f64() * processors);
        let last = self.group.pss();
        let _ = self.sampler.join();
        Used {
            cpu,
            peak_pss: self.peak.load(Ordering::Relaxed).max(last),
            processes: usize::try_from(self.processes.load(Ordering::Relaxed)).unwrap_or(usize::MAX),
            others: others.clamp(0.0, 1.0),
        }
    }
}
