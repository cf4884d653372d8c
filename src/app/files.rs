//! How many files the process may open ([`crate::descriptors`] divides them).
//!
//! The soft limit is 1024 nearly everywhere, for programs that use select(2). This is none, so it
//! takes what the hard limit allows. And how large a file may be: a write beyond that is one that fails,
//! not the end of the process.

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use super::StartError;
use crate::config::Config;
use crate::descriptors::{self, Shares};

/// Raises the soft limit to the hard one, warns if `config` allows more connections than that, and
/// divides what there is.
///
/// # Errors
/// It is too low for any connection.
pub(super) fn raise_limit(config: &Config) -> Result<Shares, StartError> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
            Ok(()) => tracing::debug!(from = shown(current), to = shown(maximum), "limit of open files raised"),
            Err(error) => tracing::warn!(%error, limit = shown(current), "could not raise the limit of open files"),
        }
    }
    let (limit, needed) = (getrlimit(Resource::Nofile).current, descriptors::needed(config));
    if let Some(limit) = limit.filter(|limit| *limit < descriptors::LEAST) {
        let least = descriptors::LEAST;
        return Err(StartError::Unavailable(format!(
            "the limit of open files is {limit}: mailweir needs at least {least}, and one for each connection in and out \
             (LimitNOFILE of systemd, ulimit -n)"
        )));
    }
    if let Some(limit) = limit.filter(|limit| *limit < needed) {
        tracing::warn!(
            limit,
            needed,
            "the limit of open files (LimitNOFILE of systemd, ulimit -n) is below what max_connections of the listeners \
             and connections of the providers add up to: raise it, or lower them. Connections to hosts \
             wait when there are none, clients are refused"
        );
    }
    Ok(Shares::of(limit, config))
}

/// Has writes beyond the system's limit on the size of files (`ulimit -f`) fail (EFBIG) instead of
/// ending the process (SIGXFSZ), from now to its end. To be called on a runtime.
///
/// # Errors
/// The system does not take the handler.
pub fn survive_file_limit() -> std::io::Result<()> {
    // What counts is that there is a handler; tokio never takes it back.
    signal(SignalKind::from_raw(Signal::XFSZ.as_raw())).map(drop)
}

fn shown(limit: Option<u64>) -> String {
    limit.map_or("none".into(), |limit| limit.to_string())
}
