//! Where a listener listens: an address, both loopback addresses, or a Unix socket with the rights of
//! those who may connect. What prints parses to the same value.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nix::unistd::Group;

/// What stands for both loopback addresses.
const LOCALHOST: &str = "localhost:";

/// What a Unix socket begins with.
const UNIX: &str = "unix:";

/// Longest path of a Unix socket, in bytes (`sun_path` of unix(7) without its final zero).
const MAX_PATH: usize = 107;

/// `address` of a listener.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ListenAddress {
    /// `127.0.0.1:2525`.
    Socket(SocketAddr),
    /// `localhost:2525`: 127.0.0.1, and ::1 where the machine has it. No name is looked up.
    Localhost(u16),
    /// `unix:/run/mailweir/smtp.sock`.
    Unix(PathBuf),
}

impl ListenAddress {
    /// Its addresses of IP; none of a Unix socket.
    pub fn sockets(&self) -> impl Iterator<Item = SocketAddr> + use<> {
        let both = match self {
            ListenAddress::Socket(address) => [Some(*address), None],
            ListenAddress::Localhost(port) => {
                [Some((Ipv4Addr::LOCALHOST, *port).into()), Some((Ipv6Addr::LOCALHOST, *port).into())]
            }
            ListenAddress::Unix(_) => [None, None],
        };
        both.into_iter().flatten()
    }

    /// The path of a Unix socket.
    pub fn path(&self) -> Option<&Path> {
        match self {
            ListenAddress::Unix(path) => Some(path),
            _ => None,
        }
    }

    /// Whether only this machine can connect.
    pub fn is_local(&self) -> bool {
        self.sockets().all(|address| address.ip().to_canonical().is_loopback())
    }

    /// Whether the machine may lack it: the IPv6 half of `localhost`.
    pub fn may_lack(&self, address: SocketAddr) -> bool {
        matches!(self, ListenAddress::Localhost(_)) && address.is_ipv6()
    }
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> ListenAddress {
        ListenAddress::Socket(address)
    }
}

impl From<([u8; 4], u16)> for ListenAddress {
    fn from(address: ([u8; 4], u16)) -> ListenAddress {
        ListenAddress::Socket(address.into())
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Socket(address) => address.fmt(f),
            ListenAddress::Localhost(port) => write!(f, "{LOCALHOST}{port}"),
            ListenAddress::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<ListenAddress, String> {
        if let Some(path) = text.strip_prefix(UNIX) {
            if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
                return Err(format!(
                    "\"{text}\" has no full path: expected one such as \"unix:/run/mailweir/smtp.sock\""
                ));
            }
            if path.len() > MAX_PATH {
                let length = path.len();
                return Err(format!("the path has {length} bytes, where that of a socket can have {MAX_PATH}"));
            }
            return Ok(ListenAddress::Unix(path.into()));
        }
        if let Some(port) = text.strip_prefix(LOCALHOST).and_then(|port| port.parse::<u16>().ok()) {
            if port == 0 {
                return Err(
                    "two addresses cannot have one port of the system's choice: expected \"127.0.0.1:0\"".into()
                );
            }
            return Ok(ListenAddress::Localhost(port));
        }
        if let Some(port) = text.rsplit_once(':').map(|(_, port)| port).filter(|port| is_no_port(port)) {
            return Err(format!("\"{text}\" has no port: expected 1 to 65535, found {port}"));
        }
        text.parse().map(ListenAddress::Socket).map_err(|_| not_an_address(text))
    }
}

fn not_an_address(text: &str) -> String {
    let port = text.rsplit_once(':').filter(|(host, port)| is_everything(host) && port.parse::<u16>().is_ok());
    let expected = match port {
        Some((_, port)) => format!(
            "expected \"0.0.0.0:{port}\" for all addresses of this machine, or \"[::]:{port}\" with those of IPv6, and `allow`"
        ),
        None if is_name(text) => {
            "expected the address of this machine itself, such as \"192.0.2.10:2525\": neither a host nor an interface is looked up"
                .to_owned()
        }
        None => "expected one such as \"localhost:2525\", \"127.0.0.1:2525\", \"[::1]:2525\" or \
                 \"unix:/run/mailweir/smtp.sock\""
            .to_owned(),
    };
    format!("\"{text}\" is not an address: {expected}")
}

/// A name and a port.
fn is_name(text: &str) -> bool {
    let fits = |host: &str| {
        host.starts_with(|c: char| c.is_ascii_alphabetic())
            && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
    };
    text.rsplit_once(':').is_some_and(|(host, port)| fits(host) && port.parse::<u16>().is_ok())
}

/// What others write for all addresses of a machine.
fn is_everything(host: &str) -> bool {
    ["", "*", "any", "all", "[*]"].contains(&host.to_ascii_lowercase().as_str())
}

/// A number, and greater than that of any port.
fn is_no_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_err()
}

/// `mode` of a Unix socket: who may connect, as of chmod(1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileMode(pub u32);

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl FromStr for FileMode {
    type Err = String;

    fn from_str(text: &str) -> Result<FileMode, String> {
        let digits = matches!(text.len(), 3 | 4) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
        let mode = u32::from_str_radix(text, 8).ok().filter(|mode| digits && *mode <= 0o777);
        mode.map(FileMode).ok_or_else(|| format!("\"{text}\" is no mode: expected octal digits such as \"0660\""))
    }
}

/// The id of a group that a name or number names.
///
/// # Errors
/// There is none of that name; for people.
pub(super) fn group_id(text: &str) -> Result<u32, String> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    match Group::from_name(text) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => Err(format!("there is no group \"{text}\" on this machine: expected its name or number")),
        Err(error) => Err(format!("cannot look up the group \"{text}\": {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_what_it_says() {
        for text in ["127.0.0.1:2525", "[::1]:2525", "0.0.0.0:0", "localhost:2525", "unix:/run/mailweir/smtp.sock"] {
            assert_eq!(text.parse::<ListenAddress>().map(|a| a.to_string()).as_deref(), Ok(text));
        }
        for bad in [
            "",
            "localhost",
            "localhost:",
            "localhost:0",
            "localhost:99999",
            "relay.example:25",
            "2525",
            "unix:",
            "unix:/",
            "unix:run/x",
            "unix:/run/",
            "unix:/a\0b",
            &format!("unix:/{}", "x".repeat(MAX_PATH)),
        ] {
            assert!(bad.parse::<ListenAddress>().is_err(), "{bad}");
        }
        let longest = format!("unix:/{}", "x".repeat(MAX_PATH - 1));
        assert!(longest.parse::<ListenAddress>().is_ok());
    }

    #[test]
    fn only_the_second_half_of_localhost_may_be_missing() {
        let of = |text: &str| text.parse::<ListenAddress>().expect("an address");
        let both: Vec<SocketAddr> = of("localhost:25").sockets().collect();
        assert_eq!(both.iter().map(ToString::to_string).collect::<Vec<_>>(), ["127.0.0.1:25", "[::1]:25"]);
        assert!(of("localhost:25").may_lack(both[1]) && !of("localhost:25").may_lack(both[0]));
        assert!(!of("[::1]:25").may_lack(both[1]));
        assert!(of("unix:/x").is_local() && of("localhost:25").is_local() && !of("0.0.0.0:25").is_local());
    }

    #[test]
    fn modes_are_octal() {
        for (text, mode) in [("0660", Some(0o660)), ("600", Some(0o600)), ("0777", Some(0o777))] {
            assert_eq!(text.parse::<FileMode>().ok().map(|m| m.0), mode, "{text}");
        }
        for bad in ["", "66", "0880", "1777", "+660", "rw", "00660"] {
            assert!(bad.parse::<FileMode>().is_err(), "{bad}");
        }
        assert_eq!(FileMode(0o60).to_string(), "0060");
    }

    #[test]
    fn groups_are_known_by_name_and_number() {
        assert_eq!((group_id("root"), group_id("4711")), (Ok(0), Ok(4711)));
        assert!(group_id("no such group").is_err_and(|e| e.contains("no such group")));
    }
}
