//! What can be watched: log set-up, counters, and who is still alive.

mod log_writer;
mod plain_fields;
mod seldom;
mod stderr;
mod visible;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;
use tracing_subscriber::EnvFilter;

pub use log_writer::LogGuard;
use plain_fields::PlainFields;
pub use seldom::seldom;
pub use stderr::say;
use visible::Form;
pub use visible::{is_hidden, show, shown};

/// The form of the log (`[log] format`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts since the start: messages accepted, and recipients by what became of an attempt.
#[derive(Debug, Default)]
pub struct Stats {
    /// Messages accepted from clients.
    pub accepted: Counter,
    /// Recipients accepted upstream.
    pub delivered: Counter,
    /// Recipients deferred.
    pub deferred: Counter,
    /// Recipients that failed.
    pub bounced: Counter,
    /// Recipients that expired.
    pub expired: Counter,
    /// Throttle replies.
    pub throttled: Counter,
    /// DSNs queued.
    pub dsn: Counter,
}

impl Stats {
    /// Goes on from the numbers of `before`: a reload is no start.
    pub fn go_on_from(&self, before: &Stats) {
        let of = |stats: &'_ Stats| stats.all().map(|(_, number)| number);
        let own =
            [&self.accepted, &self.delivered, &self.deferred, &self.bounced, &self.expired, &self.throttled, &self.dsn];
        own.into_iter().zip(of(before)).for_each(|(counter, number)| counter.add(number));
    }

    /// Name and value of each.
    pub fn all(&self) -> [(&'static str, u64); 7] {
        [
            ("accepted", self.accepted.get()),
            ("delivered", self.delivered.get()),
            ("deferred", self.deferred.get()),
            ("bounced", self.bounced.get()),
            ("expired", self.expired.get()),
            ("throttled", self.throttled.get()),
            ("dsn", self.dsn.get()),
        ]
    }
}

/// Tasks alive, so that shutdown can wait for them.
#[derive(Clone, Debug, Default)]
pub struct Active(Arc<(AtomicUsize, Notify)>);

impl Active {
    /// Counts one until the guard is dropped.
    pub fn begin(&self) -> ActiveGuard {
        self.0.0.fetch_add(1, Ordering::AcqRel);
        ActiveGuard(self.clone())
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.0.0.load(Ordering::Acquire)
    }

    /// Returns when none is left.
    pub async fn none(&self) {
        loop {
            let changed = self.0.1.notified();
            if self.count() == 0 {
                return;
            }
            changed.await;
        }
    }
}

/// One task alive.
#[derive(Debug)]
pub struct ActiveGuard(Active);

impl Drop for ActiveGuard {
    fn drop(&mut self) {
        if self.0.0.0.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.0.1.notify_waiters();
        }
    }
}

/// Sets the log up, to standard error, until the guard is dropped. `MAILWEIR_LOG` overrides the
/// configured level.
///
/// # Errors
/// The level is not a filter that tracing knows, or there is a log already.
pub fn start_log(format: LogFormat, level: &str) -> Result<LogGuard, String> {
    let level = std::env::var("MAILWEIR_LOG").unwrap_or_else(|_| level.to_owned());
    // It tells of each answer that is not well signed with all of it; we have a line for that, seldom.
    let filter = format!("hickory_net::dnssec=off,{level}");
    let filter = EnvFilter::try_new(filter).map_err(|e| format!("log level `{level}`: {e}"))?;
    let colours = format == LogFormat::Text && std::io::IsTerminal::is_terminal(&std::io::stderr());
    let form = match format {
        LogFormat::Text => Form::Text { colours },
        LogFormat::Json => Form::Json,
    };
    let (writer, guard) = stderr::handle().and_then(|out| log_writer::start(out, form)).map_err(|e| e.to_string())?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    let done = match format {
        LogFormat::Text if colours => builder.with_target(false).with_ansi(true).try_init(),
        LogFormat::Text => builder.with_target(false).with_ansi(false).fmt_fields(PlainFields).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_target(false).try_init(),
    };
    done.map_err(|e| e.to_string())?;
    std::panic::set_hook(Box::new(tell_of_panic));
    Ok(guard)
}

/// A panic is a line of the log like others: written by the standard library it would be no JSON, and
/// wait for ever for a standard error that nobody reads.
fn tell_of_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let at = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current().name().unwrap_or_default().to_owned();
    let what = panic.payload_as_str().unwrap_or_default();
    let backtrace = std::backtrace::Backtrace::capture();
    match backtrace.status() {
        std::backtrace::BacktraceStatus::Captured => {
            tracing::error!(at, thread, what, %backtrace, "a fault of mailweir itself (panicked): please report it");
        }
        _ => tracing::error!(at, thread, what, "a fault of mailweir itself (panicked): please report it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_on_over_a_reload() {
        let (old, new) = (Stats::default(), Stats::default());
        for (n, counter) in (1..).zip([&old.accepted, &old.delivered, &old.deferred, &old.bounced, &old.expired]) {
            counter.add(n);
        }
        new.accepted.add(10);
        new.go_on_from(&old);
        assert_eq!(new.all().map(|(_, number)| number), [11, 2, 3, 4, 5, 0, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn waits_until_none_is_left() {
        let active = Active::default();
        active.none().await;
        let (a, b) = (active.begin(), active.begin());
        let waiting = tokio::spawn({
            let active = active.clone();
            async move { active.none().await }
        });
        tokio::task::yield_now().await;
        drop(a);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(b);
        waiting.await.expect("ends");
    }
}
