//! Who hands a message in.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// Who is at the other end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Caller {
    /// A client by TCP.
    Ip(IpAddr),
    /// A user of this machine, by a Unix socket (`SO_PEERCRED`).
    User {
        /// Of the process that connected.
        uid: u32,
        /// Its group.
        gid: u32,
    },
    /// A user of this machine whose message was taken up from the spool.
    Spool {
        /// The owner of the file.
        uid: u32,
    },
}

impl Caller {
    /// The address by which limits, `allow` and the queue know it: users of this machine are on loopback.
    pub fn ip(self) -> IpAddr {
        match self {
            Caller::Ip(ip) => ip,
            Caller::User { .. } | Caller::Spool { .. } => IpAddr::V4(Ipv4Addr::LOCALHOST),
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Caller::User { uid, gid } => write!(f, "uid={uid},gid={gid}"),
            caller => caller.ip().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_of_this_machine_are_on_loopback_and_shown_by_their_ids() {
        let user = Caller::User { uid: 1000, gid: 100 };
        assert_eq!((user.ip().is_loopback(), user.to_string().as_str()), (true, "uid=1000,gid=100"));
        assert_eq!(Caller::Spool { uid: 1000 }.to_string(), "127.0.0.1");
        assert_eq!(Caller::Ip([192, 0, 2, 1].into()).to_string(), "192.0.2.1");
    }
}
