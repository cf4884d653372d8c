//! What a provider enforces, see `setting` for the words that set it.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use super::limit::Limit;
use super::persona::At;
use super::said::Said;
pub use super::setting::Setting;
use crate::config::Count;
use crate::config::units::Span;

/// The caps of a provider. What is not limited is `u32::MAX`, empty or zero.
#[derive(Clone, PartialEq, Debug)]
pub struct Caps {
    /// Messages (or recipients), all senders together; every one holds.
    pub rates: Vec<Limit>,
    /// What `rates` and `sender_rates` count.
    pub count: Count,
    /// Where they refuse; `None`: where the persona does.
    pub at: Option<At>,
    /// Messages (or recipients) of each sender.
    pub sender_rates: Vec<Limit>,
    /// Messages for each recipient.
    pub recipient_rates: Vec<Limit>,
    /// Bytes of messages, counted after the data.
    pub byte_rates: Vec<Limit>,
    /// Connections at once.
    pub connections: u32,
    /// New connections.
    pub connect_rates: Vec<Limit>,
    /// Messages of one connection.
    pub messages_per_connection: u32,
    /// What has used up a connection closes it without a word, else with a reply.
    pub close_silently: bool,
    /// Where a message is refused for which there is no more room on its connection.
    pub connection_at: At,
    /// Such a connection stays open, and refuses everything from then on.
    pub connection_stays: bool,
    /// Messages of one sender on one connection.
    pub sender_per_connection: u32,
    /// Recipients accepted on one connection.
    pub recipients_per_connection: u32,
    /// Bytes of one connection, after which no further message is taken.
    pub bytes_per_connection: u32,
    /// Recipients of one message.
    pub recipients: u32,
    /// How long the first attempts of a (sender, recipient, client) are refused.
    pub greylist: Duration,
    /// Share of messages that are refused after the data, 0 to 1, and for how long.
    pub greylist_data: (f64, Duration),
    /// Share of recipients whose mailboxes are full, 0 to 1: always the same ones.
    pub full: f64,
    /// Share of recipients that do not exist, 0 to 1: always the same ones.
    pub unknown: f64,
    /// Unknown recipients of one connection, after which it is closed.
    pub too_many_errors: u32,
    /// Share of messages that a filter defers whenever they come, 0 to 1.
    pub content: f64,
    /// A sender that is refused at MAIL; empty: none.
    pub blocked_sender: String,
    /// The only sender that `sender_rates` are about; empty: each.
    pub capped_sender: String,
    /// Everything is refused, whoever sends it.
    pub trouble: Trouble,
    /// Share of connections that are turned away at the greeting, 0 to 1.
    pub busy: f64,
    /// Share of recipients refused with 4yz, 0 to 1, drawn each time.
    pub fail_temporary: f64,
    /// Share of recipients refused with 5yz, 0 to 1, drawn each time.
    pub fail_permanent: f64,
    /// How long each answer takes.
    pub latency: Duration,
    /// Its own words, by the names of `say-…`.
    pub say: BTreeMap<&'static str, Said>,
}

/// How a host in trouble refuses everything.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Trouble {
    /// It is well.
    #[default]
    None,
    /// At MAIL.
    Mail,
    /// At the greeting.
    Greeting,
    /// It closes connections without a word.
    Closed,
}

impl Default for Caps {
    fn default() -> Caps {
        Caps {
            rates: Vec::new(),
            count: Count::Messages,
            at: None,
            sender_rates: Vec::new(),
            recipient_rates: Vec::new(),
            byte_rates: Vec::new(),
            connections: u32::MAX,
            connect_rates: Vec::new(),
            messages_per_connection: u32::MAX,
            close_silently: false,
            connection_at: At::Mail,
            connection_stays: false,
            sender_per_connection: u32::MAX,
            recipients_per_connection: u32::MAX,
            bytes_per_connection: u32::MAX,
            recipients: u32::MAX,
            greylist: Duration::ZERO,
            greylist_data: (0.0, Duration::ZERO),
            full: 0.0,
            unknown: 0.0,
            too_many_errors: u32::MAX,
            content: 0.0,
            blocked_sender: String::new(),
            capped_sender: String::new(),
            trouble: Trouble::None,
            busy: 0.0,
            fail_temporary: 0.0,
            fail_permanent: 0.0,
            latency: Duration::ZERO,
            say: BTreeMap::new(),
        }
    }
}

impl Caps {
    /// Sets one cap.
    pub fn set(&mut self, setting: &Setting) {
        match setting {
            Setting::Rates(limits) => self.rates.clone_from(limits),
            Setting::Count(count) => self.count = *count,
            Setting::At(at) => self.at = Some(*at),
            Setting::SenderRates(limits) => self.sender_rates.clone_from(limits),
            Setting::RecipientRates(limits) => self.recipient_rates.clone_from(limits),
            Setting::ByteRates(limits) => self.byte_rates.clone_from(limits),
            Setting::Connections(n) => self.connections = *n,
            Setting::ConnectRates(limits) => self.connect_rates.clone_from(limits),
            Setting::MessagesPerConnection(n) => self.messages_per_connection = *n,
            Setting::CloseSilently(yes) => self.close_silently = *yes,
            Setting::ConnectionAt(at) => self.connection_at = *at,
            Setting::ConnectionStays(yes) => self.connection_stays = *yes,
            Setting::SenderPerConnection(n) => self.sender_per_connection = *n,
            Setting::RecipientsPerConnection(n) => self.recipients_per_connection = *n,
            Setting::BytesPerConnection(n) => self.bytes_per_connection = *n,
            Setting::Recipients(n) => self.recipients = *n,
            Setting::Greylist(span) => self.greylist = *span,
            Setting::GreylistData(share, span) => self.greylist_data = (*share, *span),
            Setting::Full(share) => self.full = *share,
            Setting::Unknown(share) => self.unknown = *share,
            Setting::TooManyErrors(n) => self.too_many_errors = *n,
            Setting::Content(share) => self.content = *share,
            Setting::BlockedSender(sender) => self.blocked_sender.clone_from(sender),
            Setting::CappedSender(sender) => self.capped_sender.clone_from(sender),
            Setting::Trouble(trouble) => self.trouble = *trouble,
            Setting::Busy(share) => self.busy = *share,
            Setting::Fail(fail) => (self.fail_temporary, self.fail_permanent) = (fail.temporary, fail.permanent),
            Setting::Latency(span) => self.latency = *span,
            Setting::Say(topic, said) => {
                self.say.insert(topic, said.clone());
            }
        }
    }
}

/// Shares of recipients that are refused: `2%` or `2%:4xx` for now, `1%:5xx` for good,
/// `2%:4xx+1%:5xx` both.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct Fail {
    /// 4yz, 0 to 1.
    pub temporary: f64,
    /// 5yz, 0 to 1.
    pub permanent: f64,
}

impl FromStr for Fail {
    type Err = String;

    fn from_str(s: &str) -> Result<Fail, String> {
        let bad = || format!("`{s}` is not a share that fails: expected 2%, 2%:4xx or 2%:5xx");
        let mut fail = Fail::default();
        for part in s.split('+') {
            let (share, class) = part.split_once(':').unwrap_or((part, "4xx"));
            let percent: f64 = share.strip_suffix('%').ok_or_else(bad)?.parse().map_err(|_| bad())?;
            match class {
                "4xx" => fail.temporary += percent / 100.0,
                "5xx" => fail.permanent += percent / 100.0,
                _ => return Err(bad()),
            }
            if !(0.0..=100.0).contains(&percent) {
                return Err(bad());
            }
        }
        if fail.temporary + fail.permanent > 1.0 {
            return Err(format!("`{s}` is more than 100%"));
        }
        Ok(fail)
    }
}

/// Caps that change at a time: `60s rate=40/s connections=4`.
#[derive(Clone, PartialEq, Debug)]
pub struct Change {
    /// Since the start.
    pub at: Duration,
    /// What holds from then on; the rest stays as it was.
    pub settings: Vec<Setting>,
}

impl FromStr for Change {
    type Err = String;

    fn from_str(s: &str) -> Result<Change, String> {
        let (at, settings) = s
            .trim()
            .split_once([' ', '\t'])
            .ok_or_else(|| format!("`{s}` is not a change: expected a time and caps, such as \"60s rate=40/s\""))?;
        Ok(Change { at: at.parse::<Span>()?.0, settings: Setting::list(settings)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_read_as_they_are_written() {
        let mut caps = Caps::default();
        let text = "rate=20/s,rate:600/m connections=5 messages_per_connection=20 close-silently=yes greylist=30s \
                    fail=2%:4xx+1%:5xx latency=50ms count=recipients recipients=50 connect-rate=30/m";
        for setting in Setting::list(text).expect("a list") {
            caps.set(&setting);
        }
        assert_eq!(caps.rates.iter().map(ToString::to_string).collect::<Vec<_>>(), ["20/s", "600/m"]);
        assert_eq!((caps.connections, caps.messages_per_connection, caps.close_silently), (5, 20, true));
        assert_eq!((caps.greylist, caps.latency), (Duration::from_secs(30), Duration::from_millis(50)));
        assert_eq!((caps.fail_temporary, caps.fail_permanent), (0.02, 0.01));
        assert_eq!((caps.count, caps.recipients, caps.connect_rates.len()), (Count::Recipients, 50, 1));
        let more = r#"say-rate="451 4.7.1 \"Zu schnell\", bitte=langsamer: \xe4", rate=none,at=data"#;
        let list = Setting::list(more).expect("a list");
        assert_eq!((list.len(), &list[2]), (3, &Setting::At(At::Data)));
        let Setting::Say("rate", said) = &list[0] else { panic!("{list:?}") };
        assert_eq!(said.to_string(), "451 4.7.1 \"Zu schnell\", bitte=langsamer: \u{fffd}");
        caps.set(&Setting::parse("rate", "none").expect("a setting"));
        caps.set(&Setting::parse("connections", "none").expect("a setting"));
        assert!(caps.rates.is_empty() && caps.connections == u32::MAX);
    }

    #[test]
    fn nonsense_is_refused_with_what_was_expected() {
        for (text, expected) in [
            ("rate", "expected name=value"),
            ("rate=0/s", "would never send"),
            ("speed=3", "is not a cap"),
            ("connections=0", "1 or more"),
            ("fail=2", "2%:4xx"),
            ("fail=60%+60%", "more than 100%"),
            ("fail=-1%", "2%:4xx"),
            ("fail=NaN%", "2%:4xx"),
            ("greylist=5", "span of time"),
            ("greylist-data=2%", "2%:30s"),
            ("busy=101%", "a share"),
            ("at=noon", "mail, rcpt, data or end"),
            ("trouble=some", "greeting, closed"),
            ("rate=5/s@often", "@sliding, @fixed or @bucket"),
            ("say-speed=\"451 x\"", "expected one of rate"),
            ("say-rate=slow", "a code from 400 to 599"),
            ("say-rate=\"451 x", "a quote is missing"),
            ("", "nothing is set"),
        ] {
            let error = Setting::list(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!("rate=40/s".parse::<Change>().is_err());
        let change: Change = "60s rate=40/s".parse().expect("a change");
        assert_eq!(change.at, Duration::from_secs(60));
    }
}
