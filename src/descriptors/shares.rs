//! How the limit of open files is divided (`RLIMIT_NOFILE`).
//!
//! Each side has a part that no other takes: the store and the process itself, the operator, `/healthz`,
//! name servers, and what is left for connections in and out. A part that is not needed is not lent,
//! but for connections (see [`super::Descriptors`]).

use std::sync::Arc;

use crate::config::{Config, LimitsPer, Listener, Provider};

/// The store (a writer and four readers with two files each, its lock and its log), the sockets that
/// listen, the log, files that are being read, sixteen requests of the command line: about 25 at rest.
const OWN: u64 = 48;
/// Fewer than this leave nothing for connections.
pub const LEAST: u64 = 64;
/// Sockets that hickory opens for one question that is not answered.
const SOCKETS_OF_A_QUERY: u64 = 4;
/// Questions to name servers under way at once, when there are descriptors for them.
pub const MAX_QUERIES: usize = 100;
/// More than any system gives; stands for no limit.
const NO_LIMIT: u64 = 1 << 30;

/// Descriptors, by what they are for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shares {
    /// Connections of clients and to hosts, together.
    pub connections: usize,
    /// Of these, what hosts never take from clients.
    pub for_clients: usize,
    /// Of these, what clients never take from hosts.
    pub for_hosts: usize,
    /// Sessions that each listener has for clients that may not relay, at most.
    pub strangers: usize,
    /// Connections that each listener closes politely at the same time, at most.
    pub refusals: usize,
    /// Questions to name servers at the same time.
    pub queries: usize,
    /// Connections of the admin listener.
    pub admin: usize,
}

impl Shares {
    /// The parts of `limit`; `None`: there is none.
    pub fn of(limit: Option<u64>, config: &Config) -> Shares {
        let limit = limit.unwrap_or(NO_LIMIT).min(NO_LIMIT);
        let part = |of: u64, least: u64, most: u64| (limit / of).clamp(least, most);
        let (strangers, refusals, admin) = (part(32, 1, 6250), part(64, 1, 64), part(16, 4, 64));
        let queries = part(8 * SOCKETS_OF_A_QUERY, 2, MAX_QUERIES as u64);
        // One more of each socket of a listener: what is accepted is counted after.
        let sockets = |listener: &Arc<Listener>| listener.address.sockets().count().max(1) as u64;
        let of_listener =
            |listener: &Arc<Listener>| 2 * sockets(listener) + refusals + strangers.min(sessions(listener) / 16 + 1);
        let beside = OWN + admin + queries * SOCKETS_OF_A_QUERY + config.listeners.iter().map(of_listener).sum::<u64>();
        let connections = limit.saturating_sub(beside).max(4);
        let wanted = config.listeners.iter().map(sessions).fold(0, u64::saturating_add);
        let to_usize = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        Shares {
            connections: to_usize(connections),
            for_clients: to_usize(wanted.min(connections / 2)),
            for_hosts: to_usize(connections / 4),
            strangers: to_usize(strangers),
            refusals: to_usize(refusals),
            queries: to_usize(queries),
            admin: to_usize(admin),
        }
    }
}

/// Descriptors of the sessions of a listener.
fn sessions(listener: &Arc<Listener>) -> u64 {
    (listener.max_connections * super::of_session(listener.engine)) as u64
}

/// What is open at once when everything is used that `config` allows. Domains without a provider share
/// the limits of `[default]` one by one, and nobody knows how many there are: one is counted.
pub fn needed(config: &Config) -> u64 {
    let of = |provider: &Provider| {
        let each = match provider.limits_per {
            LimitsPer::Provider => 1,
            LimitsPer::Source => provider.source.len().max(1) as u64,
        };
        u64::from(provider.connections).saturating_mul(each)
    };
    let clients = config.listeners.iter().map(sessions);
    let hosts = config.providers.iter().chain([&config.default]).map(|provider| of(provider));
    clients.chain(hosts).fold(BESIDES, u64::saturating_add)
}

/// What is not a connection of a client or to a host.
const BESIDES: u64 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(&format!("hostname = 'a.example'\nbuiltin_profiles = false\n{text}"), "x").expect("good")
    }

    #[test]
    fn all_connections_are_counted() {
        let config = config(
            "[[listener]]\nmax_connections = 300\n[[listener]]\naddress = '127.0.0.1:2526'\nmax_connections = 50\n\
             [default]\nconnections = 3\n[provider.a]\nmatch.domains = ['a.example']\nconnections = 20\n\
             source = ['192.0.2.1', '192.0.2.2']\n[provider.b]\nmatch.domains = ['b.example']\nconnections = 7\n\
             source = ['192.0.2.1', '192.0.2.2']\nlimits_per = 'source'\n",
        );
        assert_eq!(needed(&config), 256 + 300 + 50 + 3 + 20 + 2 * 7);
    }

    #[test]
    fn the_parts_fit_into_every_limit_and_each_side_has_one() {
        for listeners in 1..=4 {
            let listener = |n| format!("[[listener]]\naddress = '127.0.0.1:{}'\nmax_connections = 1000\n", 2500 + n);
            let config = config(&(0..listeners).map(listener).collect::<String>());
            for limit in (96 + 16 * listeners..5000).chain([65_536, 1 << 20]) {
                let parts = Shares::of(Some(limit), &config);
                let strangers = parts.strangers.min(63) as u64;
                let others = parts.admin as u64 + 4 * parts.queries as u64;
                let waiting = listeners * (2 + strangers + parts.refusals as u64);
                let all = OWN + others + waiting + parts.connections as u64;
                assert!(all <= limit, "{limit}: {all} {parts:?}");
                assert!(parts.for_clients + parts.for_hosts <= parts.connections);
                assert!(parts.for_clients >= 2 && parts.for_hosts >= 1, "{limit}: {parts:?}");
            }
        }
    }

    #[test]
    fn with_the_usual_limits_only_the_system_bounds_connections() {
        let parts = Shares::of(Some(1 << 20), &config("[[listener]]\nmax_connections = 1000\n"));
        assert_eq!((parts.queries, parts.admin, parts.refusals, parts.for_clients), (100, 64, 64, 1000));
        assert!(parts.connections > 1_000_000);
        assert_eq!(Shares::of(None, &config("")).queries, MAX_QUERIES);
    }
}
