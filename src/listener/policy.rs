//! Who may relay what: the admission policy, the same for both engines.
//!
//! It knows the listener's configuration and nothing of sockets or time. A refusal is a reply.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::config::{self, ListenerAuth, Place, Rewritten, User};
use crate::listener::draft::Refusal;
use crate::mail::{Address, AddressError, Forward};
use crate::queue::QueueError;
use crate::smtp::Reply;
use crate::smtp::parameters::Hold;

/// The session ends because its configuration does: at the end of the relay, or at a reload, after which the client is
/// welcome at once.
pub(super) const CLOSING: Reply =
    Reply::new(421, "4.3.2", "Service not available for now, closing connection, try again");
pub(super) const TOO_MANY_SESSIONS: Reply = Reply::new(421, "4.3.2", "Too many connections, try again later");
pub(super) const TIMEOUT: Reply = Reply::new(421, "4.4.2", "Timeout, closing connection");
/// No memory for a large message within `data_timeout`, or not even room to wait for it.
pub(super) const NO_MEMORY: Reply = Reply::new(421, "4.3.1", "No memory for a large message now, closing connection");
/// Others wait for the memory of a message that does not go on.
pub(super) const TOO_SLOW: Reply =
    Reply::new(421, "4.3.1", "Memory is short and the message comes too slowly, closing connection");
pub(super) const NO_ROOM_FOR_RECIPIENTS: Reply = Reply::new(452, "4.3.1", "No memory for more recipients now");
pub(super) const TOO_MANY_COMMANDS: Reply =
    Reply::new(421, "4.7.0", "Too many commands without a message, closing connection");
pub(super) const TOO_MANY_ERRORS: Reply = Reply::new(421, "4.7.0", "Too many errors, closing connection");
pub(super) const TOO_LARGE: Reply = Reply::new(552, "5.3.4", "Message exceeds the size limit");
const NEEDS_SMTPUTF8: Reply = Reply::new(553, "5.6.7", "Address with non-ASCII characters needs SMTPUTF8");
const RELAY_DENIED: Reply = Reply::new(554, "5.7.1", "Relay access denied");
const AUTH_FIRST: Reply = Reply::new(530, "5.7.0", "Authentication required");
const NOT_YOUR_SENDER: Reply = Reply::new(550, "5.7.1", "This user may not send with this sender address");
/// A limit on what comes in was reached; what the client hears may change with time.
pub(super) const OVER_LIMIT: Reply = Reply::new(450, "4.7.1", "Too many messages, try again later");

/// What one message is more than: its client is not to try for days what can never come in.
pub(super) fn never_fits(limit: &str) -> Reply {
    Reply::with(
        554,
        "5.7.1",
        format!("More recipients than can ever come in at once: the limit is {limit}, send to fewer"),
    )
}
/// The same for a user who may not send until somebody has looked (RFC 5248 §3.8).
pub(super) const LOCKED: Reply = Reply::new(550, "5.7.13", "This user is locked, ask the administrator");
const NO_HOLD: Reply = Reply::new(555, "5.5.4", "FUTURERELEASE is not offered");
const TOO_MANY_RECIPIENTS: Reply = Reply::new(452, "4.5.3", "Too many recipients");

/// Longest session of a client that may not relay: long enough to hear that.
const STRANGER_TIME: Duration = Duration::from_secs(30);

/// Sessions that clients which may not relay have at once, beside `sessions` of those that may.
pub(super) fn stranger_sessions(sessions: usize) -> usize {
    (sessions / 16).max(1)
}

/// The policy of one listener.
#[derive(Clone, Debug)]
pub struct Policy {
    listener: Arc<config::Listener>,
}

impl Policy {
    /// Of this listener.
    pub fn new(listener: Arc<config::Listener>) -> Policy {
        Policy { listener }
    }

    /// Whether this client may relay (invariant 7); `user`: as whom it has logged in.
    pub fn may_relay(&self, client: IpAddr, user: Option<&User>) -> bool {
        user.is_some() || (self.listener.auth != ListenerAuth::Required && self.allows(client))
    }

    /// Whether `allow` has this client.
    fn allows(&self, client: IpAddr) -> bool {
        self.listener.allow.iter().any(|network| network.contains(client))
    }

    /// Whether this client may say whose client it speaks for.
    pub fn may_proxy(&self, client: IpAddr) -> bool {
        self.listener.xclient_from.iter().any(|network| network.contains(client))
    }

    /// Whether connections of this address begin with a PROXY header.
    pub fn is_proxy(&self, ip: IpAddr) -> bool {
        self.listener.proxy_from.iter().any(|network| network.contains(ip))
    }

    /// Whether it has sessions in the number and for the time of those who may relay.
    pub fn may_stay(&self, client: IpAddr) -> bool {
        self.allows(client) || self.may_proxy(client)
    }

    /// How long a session of this client may last that has not logged in.
    pub fn session_time(&self, client: IpAddr) -> Duration {
        let most = if self.may_stay(client) { Duration::MAX } else { STRANGER_TIME };
        self.listener.session_timeout.min(most)
    }

    /// Whether this client must say HELO or EHLO before MAIL: programs on this machine need not.
    pub fn needs_helo(&self, client: IpAddr) -> bool {
        !client.to_canonical().is_loopback()
    }

    /// Whether mail is taken from this user, or from nobody in particular, at all.
    pub fn login(&self, user: Option<&User>) -> Result<(), Reply> {
        match user {
            None if self.listener.auth == ListenerAuth::Required => Err(AUTH_FIRST),
            _ => Ok(()),
        }
    }

    /// Whether this user may use this reverse-path.
    pub fn sender_of(&self, user: Option<&User>, sender: Option<&Address>) -> Result<(), Reply> {
        if user.is_none_or(|user| user.may_send_as(sender)) { Ok(()) } else { Err(NOT_YOUR_SENDER) }
    }

    /// Bytes that a message of this user may have.
    pub fn max_message_size(&self, user: Option<&User>) -> u64 {
        let own = user.map(|user| user.max_message_size).filter(|own| *own > 0);
        own.map_or(self.listener.max_message_size, |own| own.min(self.listener.max_message_size))
    }

    /// The reverse-path; an empty one is the null sender.
    pub fn sender(&self, path: &str, smtputf8: bool) -> Result<Option<Address>, Reply> {
        if path.is_empty() {
            return Ok(None);
        }
        let address = self.listener.names.qualify(path).map_err(|e| bad("5.1.7", "sender", e))?;
        needs_no_utf8(&address, smtputf8).map(|()| Some(address))
    }

    /// What becomes of this reverse-path by `[[rewrite]]`, if anything does.
    pub fn rewritten(&self, user: Option<&User>, sender: Option<&Address>, now: Timestamp) -> Option<Rewritten> {
        self.listener.rewrites.of(sender?, Place::Envelope, user.map_or("", |user| &user.name), now)
    }

    /// The size announced by `SIZE=` (RFC 1870 §6.1).
    pub fn announced_size(&self, size: u64, user: Option<&User>) -> Result<(), Reply> {
        if size > self.max_message_size(user) { Err(TOO_LARGE) } else { Ok(()) }
    }

    /// When a message leaves that comes at `now` with this parameter of MAIL; `None`: as soon as it can.
    pub fn release(&self, hold: Option<Hold>, now: Timestamp) -> Result<Option<Timestamp>, Reply> {
        let Some(hold) = hold else { return Ok(None) };
        let longest = self.listener.future_release;
        if longest.is_zero() {
            return Err(NO_HOLD);
        }
        let (name, release) = match hold {
            Hold::For(time) => ("HOLDFOR", now.after(time)),
            Hold::Until(seconds) => {
                let ms = i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000);
                ("HOLDUNTIL", Timestamp(ms))
            }
        };
        if release > now.after(longest) {
            let most = longest.as_secs();
            return Err(Reply::with(501, "5.5.4", format!("{name} is too far ahead: mail is held {most} s at most")));
        }
        Ok(Some(release).filter(|release| *release > now))
    }

    /// A forward-path with what it leads to `now`; `may_relay`: see [`Policy::may_relay`], `have`: recipients that the transaction has already.
    pub fn recipient(
        &self,
        may_relay: bool,
        have: usize,
        path: &str,
        smtputf8: bool,
        now: Timestamp,
    ) -> Result<Forward, Reply> {
        let forward = self.listener.names.forward(path).map_err(|e| bad("5.1.3", "recipient", e))?;
        forward.addresses().iter().try_for_each(|address| needs_no_utf8(address, smtputf8))?;
        if !may_relay {
            return Err(RELAY_DENIED);
        }
        let forward = self.led_back(forward, now)?;
        let forward = match &self.listener.sandbox {
            Some(sandbox) => sandbox.lead(forward),
            None => forward,
        };
        if have + forward.addresses().len() > self.listener.max_recipients {
            return Err(TOO_MANY_RECIPIENTS);
        }
        Ok(forward)
    }

    /// Who a recipient of `[srs]` stands for; it is told as an alias.
    fn led_back(&self, forward: Forward, now: Timestamp) -> Result<Forward, Reply> {
        let Forward::To(address) = &forward else { return Ok(forward) };
        match self.listener.rewrites.led_back(address, now) {
            None => Ok(forward),
            Some(Ok(original)) => Ok(Forward::Alias(address.to_string(), Arc::from([original]))),
            Some(Err(error)) => Err(Reply::with(550, "5.1.1", error.to_string())),
        }
    }

    /// What a client hears when the body of its message is not acceptable.
    pub fn refusal(why: Refusal) -> Reply {
        match why {
            Refusal::TooLarge => TOO_LARGE,
            Refusal::HeaderTooLarge => Reply::new(552, "5.3.4", "Header section exceeds the size limit"),
            Refusal::HeaderLineTooLong => Reply::new(552, "5.3.4", "A line of the header section exceeds 128 KiB"),
            Refusal::NoTime => Reply::new(
                554,
                "5.6.0",
                "X-Send-At names no time: expected one date of RFC 5322 or RFC 3339, with its zone",
            ),
            Refusal::TooFarAhead => Reply::new(554, "5.6.0", "X-Send-At is further ahead than mail is held here"),
            Refusal::Loop => Reply::new(554, "5.4.6", "Too many Received fields: the message loops"),
        }
    }

    /// What a client hears when the queue cannot take its message: never a 250 (invariant 1).
    pub fn queue_error(error: &QueueError) -> Reply {
        match error {
            QueueError::Full(_) => Reply::new(452, "4.3.1", "Insufficient system storage, try again later"),
            _ => Reply::new(451, "4.3.0", "The queue is not available, try again later"),
        }
    }
}

fn bad(enhanced: &'static str, whose: &str, error: AddressError) -> Reply {
    Reply::with(501, enhanced, format!("Bad {whose} address: {error}"))
}

fn needs_no_utf8(address: &Address, smtputf8: bool) -> Result<(), Reply> {
    if smtputf8 || address.is_ascii() { Ok(()) } else { Err(NEEDS_SMTPUTF8) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Listener;
    use crate::listener::tests_config;

    #[test]
    fn decides_as_configured() {
        let mut listener = tests_config();
        listener.allow = vec!["192.0.2.0/24".parse().unwrap()];
        listener.max_recipients = 2;
        listener.max_message_size = 1000;
        let policy = Policy::new(Arc::new(listener));
        let friend: IpAddr = "192.0.2.9".parse().unwrap();
        let stranger: IpAddr = "127.0.0.1".parse().unwrap();
        let code = |r: Result<Forward, Reply>| r.map(|f| f.addresses()[0].to_string()).map_err(|e| e.code);
        assert_eq!(
            code(policy.recipient(policy.may_relay(friend, None), 0, "a@b", false, Timestamp(0))),
            Ok("a@b".into())
        );
        assert_eq!(code(policy.recipient(policy.may_relay(stranger, None), 0, "a@b", false, Timestamp(0))), Err(554));
        assert_eq!(code(policy.recipient(policy.may_relay(friend, None), 2, "a@b", false, Timestamp(0))), Err(452));
        assert_eq!(code(policy.recipient(policy.may_relay(friend, None), 0, "", false, Timestamp(0))), Err(501));
        assert_eq!(code(policy.recipient(policy.may_relay(friend, None), 0, "no body", false, Timestamp(0))), Err(501));
        assert_eq!(
            code(policy.recipient(policy.may_relay(friend, None), 0, "root", false, Timestamp(0))),
            Ok("root@relay.example".into())
        );
        assert_eq!(
            policy.sender("root", false).map(|a| a.map(|a| a.to_string())),
            Ok(Some("root@relay.example".into()))
        );
        assert_eq!(
            code(policy.recipient(policy.may_relay(friend, None), 0, "PostMaster", false, Timestamp(0))),
            Ok("PostMaster@relay.example".into())
        );
        assert_eq!(code(policy.recipient(policy.may_relay(friend, None), 0, "ü@b", false, Timestamp(0))), Err(553));
        assert_eq!(
            code(policy.recipient(policy.may_relay(friend, None), 0, "ü@b", true, Timestamp(0))),
            Ok("ü@b".into())
        );
        assert_eq!(policy.sender("", false), Ok(None));
        assert_eq!(policy.sender("x y@z", false).map_err(|r| r.code), Err(501));
        assert!(policy.announced_size(1000, None).is_ok() && policy.announced_size(1001, None).is_err());
        assert!(policy.may_stay(friend) && !policy.may_stay(stranger) && !policy.may_proxy(friend));
        let proxied = Listener { xclient_from: vec!["127.0.0.1".parse().unwrap()], ..tests_config() };
        let behind = Policy::new(Arc::new(Listener { allow: vec!["192.0.2.0/24".parse().unwrap()], ..proxied }));
        assert!(behind.may_stay(stranger) && behind.may_proxy(stranger) && !behind.may_relay(stranger, None));
        assert!(behind.session_time(stranger) > STRANGER_TIME);
        assert!(policy.needs_helo(friend) && !policy.needs_helo("::ffff:127.0.0.1".parse().unwrap()));
    }

    /// No client relays by `allow` where a login is required, and by a login everywhere.
    #[test]
    fn who_has_to_log_in_and_who_may() {
        let stored = config::StoredPassword::parse("x", true).unwrap();
        let jo = config::User { max_message_size: 500, ..config::User::new("jo", stored) };
        let (inside, outside): (IpAddr, IpAddr) = ("127.0.0.1".parse().unwrap(), "192.0.2.9".parse().unwrap());
        let allow = vec!["127.0.0.0/8".parse().unwrap()];
        for (auth, by_allow) in
            [(ListenerAuth::Off, true), (ListenerAuth::Offered, true), (ListenerAuth::Required, false)]
        {
            let listener = Listener { auth, allow: allow.clone(), max_message_size: 1000, ..tests_config() };
            let policy = Policy::new(Arc::new(listener));
            assert_eq!(policy.may_relay(inside, None), by_allow, "{auth:?}");
            assert!(!policy.may_relay(outside, None) && policy.may_relay(outside, Some(&jo)), "{auth:?}");
            assert_eq!(policy.login(None).is_ok(), by_allow, "{auth:?}");
            assert!(policy.login(Some(&jo)).is_ok());
            assert!(policy.may_stay(inside) && !policy.may_stay(outside), "{auth:?}");
            assert_eq!((policy.max_message_size(None), policy.max_message_size(Some(&jo))), (1000, 500));
            assert!(policy.announced_size(501, Some(&jo)).is_err());
        }
    }
}
