//! What only shows when the values of a `[[listener]]` are compared, with one another and with those of others: above
//! all that none is an open relay.

use std::net::{IpAddr, SocketAddr};

use super::file::Reader;
use super::listener_keys::ListenerDraft;
use super::network::more_than_half;
use super::{Engine, ListenAddress, Listener, ListenerAuth, listener_auth};

pub(super) fn listeners(reader: &mut Reader<'_>, listeners: &[ListenerDraft]) {
    if listeners.is_empty() {
        reader.fault(
            "listener",
            "there is none: expected at least one [[listener]], or none of these lines for the default".into(),
        );
    }
    for (i, ListenerDraft { l: listener, .. }) in listeners.iter().enumerate() {
        let path = format!("listener[{}]", i + 1);
        let loopback = listener.address.is_local();
        let same = |other: &ListenerDraft| !listener.name.is_empty() && other.l.name == listener.name;
        if let Some(j) = listeners.iter().take(i).position(same) {
            reader.fault(&format!("{path}.name"), format!("is already that of listener[{}]", j + 1));
        }
        listener_auth::check(reader, &path, listener);
        unix_socket(reader, &path, listener);
        proxies(reader, &path, listener);
        let logs_in = listener.auth == ListenerAuth::Required;
        if !loopback && !logs_in && !reader.has(&format!("{path}.allow")) {
            let message = format!(
                "{} can be reached by others, so `allow` must say who may relay, such as allow = [\"192.0.2.0/24\"], or auth = \"required\" that whoever relays logs in (open relay)",
                listener.address
            );
            reader.fault(&format!("{path}.address"), message);
        }
        if let Some(wide) = listener.allow.iter().find(|n| !loopback && n.is_nearly_everybody()) {
            let message = match logs_in {
                false => format!(
                    "{wide} lets nearly everybody relay through {} (open relay): name your networks",
                    listener.address
                ),
                // They would have the places of those who have logged in.
                true => format!("{wide} is nearly everybody: whoever logs in may relay without, leave `allow` out"),
            };
            reader.fault(&format!("{path}.allow"), message);
        }
        if !loopback && let Some(family) = more_than_half(&listener.allow) {
            let message = format!(
                "these networks together are more than half of {family}, and let them relay through {} (open relay): \
                 name your networks",
                listener.address
            );
            reader.fault(&format!("{path}.allow"), message);
        }
        if listener.allow.is_empty() && !logs_in {
            reader.fault(&format!("{path}.allow"), "nobody may relay: expected at least one address or network".into());
        }
        if listener.engine == Engine::Mailin && listener.lf_only {
            let message =
                "engine \"mailin\" cannot end a message at a bare LF: expected engine = \"native\" with lf_only";
            reader.fault(&format!("{path}.lf_only"), message.into());
        }
        if let Some(j) = listeners.iter().take(i).position(|other| overlap(&other.l.address, &listener.address)) {
            let message = format!("{} is already taken by listener[{}]", listener.address, j + 1);
            reader.fault(&format!("{path}.address"), message);
        }
    }
}

/// Whoever may say whose client it speaks for may relay as anybody.
fn proxies(reader: &mut Reader<'_>, path: &str, listener: &Listener) {
    for (key, networks) in [("xclient_from", &listener.xclient_from), ("proxy_from", &listener.proxy_from)] {
        let wide = networks.iter().find(|n| n.is_nearly_everybody()).map(ToString::to_string);
        let wide = wide.or_else(|| more_than_half(networks).map(str::to_owned));
        if let Some(wide) = wide.filter(|_| !listener.address.is_local()) {
            let message = format!("{wide} may pretend to be anybody, and relay (open relay): name your proxies");
            reader.fault(&format!("{path}.{key}"), message);
        }
    }
    if listener.engine == Engine::Mailin && !listener.xclient_from.is_empty() {
        let message = "engine \"mailin\" knows no XCLIENT: expected engine = \"native\" with xclient_from";
        reader.fault(&format!("{path}.xclient_from"), message.into());
    }
    if listener.address.path().is_some() && !listener.proxy_from.is_empty() {
        let message = "is for addresses, of which a Unix socket has none: expected a listener on a loopback address for the proxy";
        reader.fault(&format!("{path}.proxy_from"), message.into());
    }
}

/// What only a Unix socket has, and what it cannot have.
fn unix_socket(reader: &mut Reader<'_>, path: &str, listener: &Listener) {
    let at = |key: &str| format!("{path}.{key}");
    if listener.address.path().is_none() {
        for key in ["mode", "group"].into_iter().filter(|key| reader.has(&at(key))).collect::<Vec<_>>() {
            reader.fault(&at(key), "is for a Unix socket: expected address = \"unix:/…\" beside it".into());
        }
        return;
    }
    let directory = listener.address.path().and_then(|path| path.parent()).filter(|path| !path.as_os_str().is_empty());
    if let Some(directory) = directory.filter(|directory| !directory.is_dir()) {
        let message = format!(
            "there is no directory {0}, so nothing can listen there: expected `mkdir {0}` before the start (below /run \
             systemd makes it: RuntimeDirectory=)",
            directory.display()
        );
        reader.warn(&at("address"), message);
    }
    if listener.engine == Engine::Mailin {
        let message = "engine \"mailin\" takes clients by TCP only: expected engine = \"native\" with a Unix socket";
        reader.fault(&at("engine"), message.into());
    }
    let local = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    let message = match listener.xclient_from.iter().any(|network| network.contains(local)) {
        _ if listener.xclient_from.is_empty() => None,
        true if listener.mode.0 & 0o006 != 0 => Some(
            "every user of this machine may connect here, and so say whose client it speaks for: expected mode = \"0660\" \
             and the `group` of the proxy",
        ),
        true => None,
        false => Some("has no effect: whoever comes by a Unix socket counts as 127.0.0.1, which is not in it"),
    };
    if let Some(message) = message {
        reader.warn(&at("xclient_from"), message.into());
    }
    if reader.has(&at("allow")) && listener.xclient_from.is_empty() {
        let message = "has no effect: whoever may connect to a Unix socket may relay (`mode` and `group` say who)";
        reader.warn(&at("allow"), message.into());
    }
}

/// Whether two listeners cannot both be had.
fn overlap(a: &ListenAddress, b: &ListenAddress) -> bool {
    let of_ip = a.sockets().any(|a| b.sockets().any(|b| collide(a, b)));
    of_ip || (a.path().is_some() && a == b)
}

/// Whether two addresses cannot both be bound. Port 0 is a port of its own each time.
pub(crate) fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let covers = |a: IpAddr, b: IpAddr| a.is_unspecified() && (a.is_ipv6() || b.is_ipv4());
    a.port() == b.port() && a.port() != 0 && (a.ip() == b.ip() || covers(a.ip(), b.ip()) || covers(b.ip(), a.ip()))
}
