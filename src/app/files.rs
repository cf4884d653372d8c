//! How many files the process may open: each connection is one, and at the limit neither clients
//! nor hosts can be connected with.
//!
//! The soft limit is 1024 nearly everywhere, for programs that use select(2). This is none, so it
//! takes what the hard limit allows. And how large a file may be: a write beyond that is one that fails,
//! not the end of the process.

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Config, LimitsPer, Provider};

/// The queue and its connections, log, name servers, the control socket and the admin listener.
const BESIDES: u64 = 256;

/// Raises the soft limit to the hard one, and warns if `config` allows more connections than that.
pub(super) fn raise_limit(config: &Config) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
            Ok(()) => tracing::debug!(from = shown(current), to = shown(maximum), "limit of open files raised"),
            Err(error) => tracing::warn!(%error, limit = shown(current), "could not raise the limit of open files"),
        }
    }
    let (limit, needed) = (getrlimit(Resource::Nofile).current, needed(config));
    if let Some(limit) = limit.filter(|limit| *limit < needed) {
        tracing::warn!(
            limit,
            needed,
            "the limit of open files (LimitNOFILE of systemd, ulimit -n) is below what max_connections of the listeners \
             and connections of the providers add up to: raise it, or lower them"
        );
    }
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

/// Files open at once when everything is used that `config` allows. Domains without a provider share
/// the limits of `[default]` one by one, and nobody knows how many there are: one is counted.
fn needed(config: &Config) -> u64 {
    let of = |provider: &Provider| {
        let each = match provider.limits_per {
            LimitsPer::Provider => 1,
            LimitsPer::Source => provider.source.len().max(1) as u64,
        };
        u64::from(provider.connections).saturating_mul(each)
    };
    let clients = config.listeners.iter().map(|listener| listener.max_connections as u64);
    let hosts = config.providers.iter().chain([&config.default]).map(|provider| of(provider));
    clients.chain(hosts).fold(BESIDES, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_connections_are_counted() {
        let text = "hostname = 'a.example'\nbuiltin_profiles = false\n[[listener]]\nmax_connections = 300\n\
                    [[listener]]\naddress = '127.0.0.1:2526'\nmax_connections = 50\n[default]\nconnections = 3\n\
                    [provider.a]\nmatch.domains = ['a.example']\nconnections = 20\nsource = ['192.0.2.1', '192.0.2.2']\n\
                    [provider.b]\nmatch.domains = ['b.example']\nconnections = 7\nsource = ['192.0.2.1', '192.0.2.2']\n\
                    limits_per = 'source'\n";
        let config = Config::parse(text, "x").expect("good");
        assert_eq!(needed(&config), 256 + 300 + 50 + 3 + 20 + 2 * 7);
    }
}
