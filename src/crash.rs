//! Named points at which the tests end this process, to see what a crash right there leaves behind.
//!
//! A release build has none of this: [`point`] is empty there. In a debug build (what `cargo test`
//! makes) `MAILWEIR_CRASH_AT=NAME:COUNT` ends the process with SIGKILL the `COUNT`th time it
//! reaches `NAME`; `NAME:COUNT:panic` panics there instead, once, `NAME:COUNT:panics` that time and
//! every later one, and `NAME:COUNT:stop` stops the process (SIGSTOP) until it is told to go on. Without the variable a point costs one load.
//!
//! The names are listed where they are used: `tests/crash/plan.rs`, `tests/scenarios/migration.rs`,
//! `tests/scenarios/sendmail.rs`.

/// A point that a test may end the process at.
#[inline(always)]
pub(crate) fn point(name: &str) {
    #[cfg(debug_assertions)]
    armed::reached(name);
    #[cfg(not(debug_assertions))]
    let _ = name;
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    enum How {
        Kill,
        PanicOnce,
        Panics,
        Stop,
    }

    struct Armed {
        name: String,
        count: u64,
        how: How,
        reached: AtomicU64,
    }

    fn armed() -> Option<&'static Armed> {
        static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
        ARMED.get_or_init(|| parse(&std::env::var("MAILWEIR_CRASH_AT").ok()?)).as_ref()
    }

    fn parse(text: &str) -> Option<Armed> {
        let mut words = text.split(':');
        let (name, count) = (words.next()?.to_owned(), words.next()?.parse().ok()?);
        let how = match words.next() {
            None => How::Kill,
            Some("panic") => How::PanicOnce,
            Some("panics") => How::Panics,
            Some("stop") => How::Stop,
            Some(_) => return None,
        };
        Some(Armed { name, count, how, reached: AtomicU64::new(0) })
    }

    pub(super) fn reached(name: &str) {
        let Some(armed) = armed().filter(|armed| armed.name == name) else { return };
        let n = armed.reached.fetch_add(1, Ordering::SeqCst) + 1;
        match armed.how {
            How::Kill if n == armed.count => {
                let _ = kill_process(getpid(), Signal::KILL);
                // The signal is on its way to every thread of the process.
                std::thread::park();
            }
            How::Stop if n == armed.count => drop(kill_process(getpid(), Signal::STOP)),
            How::PanicOnce if n == armed.count => panic!("a fault on purpose at {name}"),
            How::Panics if n >= armed.count => panic!("a fault on purpose at {name}"),
            _ => {}
        }
    }
}
