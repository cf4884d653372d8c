//! What a provider enforces, in words: for the table of a simulation. Every cap that can refuse something is told;
//! how it refuses (`at`, `say-…`) and how fast it answers is not.

use std::fmt::Display;

use super::caps::{Caps, Change, Trouble};
use super::limit::Limit;
use crate::config::Count;
use crate::config::units::Span;

/// Changes that are told; of more only their number is.
const CHANGES: usize = 3;

/// `caps` and what changes them, in one line; "nothing" if there is nothing that could refuse a message.
pub fn enforced(caps: &Caps, changes: &[Change]) -> String {
    let list = |caps: &Caps| {
        let all = caps.told();
        if all.is_empty() { "nothing".to_owned() } else { all.join(", ") }
    };
    let mut then = caps.clone();
    let mut text = list(caps);
    let mut changes: Vec<&Change> = changes.iter().collect();
    changes.sort_by_key(|change| change.at);
    for change in changes.iter().take(CHANGES) {
        change.settings.iter().for_each(|setting| then.set(setting));
        text.push_str(&format!("; from {} on {}", Span(change.at), list(&then)));
    }
    match changes.len().saturating_sub(CHANGES) {
        0 => text,
        1 => format!("{text}; and 1 change more"),
        more => format!("{text}; and {more} changes more"),
    }
}

fn percent(share: f64) -> String {
    let text = format!("{:.1}", share * 100.0);
    format!("{} %", text.strip_suffix(".0").unwrap_or(&text))
}

/// Each limit, and what it counts.
fn each<'a>(limits: &'a [Limit], of: &'a str) -> impl Iterator<Item = String> + 'a {
    limits.iter().map(move |limit| if of.is_empty() { limit.to_string() } else { format!("{limit} {of}") })
}

/// A number, if it is limited.
fn most(number: u32, of: &str) -> Option<String> {
    (number != u32::MAX).then(|| format!("{number} {of}"))
}

/// A share, if there is one.
fn part(share: f64, of: impl Display) -> Option<String> {
    (share > 0.0).then(|| format!("{} {of}", percent(share)))
}

impl Caps {
    /// Every cap in a few words; empty: everything is taken.
    pub fn told(&self) -> Vec<String> {
        let mut all = self.told_rates();
        all.extend(self.told_of_connections());
        all.extend(self.told_of_mail());
        all
    }

    fn told_rates(&self) -> Vec<String> {
        let Caps { rates, count, sender_rates, recipient_rates, byte_rates, connect_rates, capped_sender, .. } = self;
        let unit = if *count == Count::Recipients { "recipients" } else { "" };
        let whose = if capped_sender.is_empty() { "each sender".to_owned() } else { format!("<{capped_sender}>") };
        let of_sender = format!("{unit}{}of {whose}", if unit.is_empty() { "" } else { " " });
        let mut all: Vec<String> = each(rates, unit).collect();
        all.extend(each(sender_rates, &of_sender));
        all.extend(each(recipient_rates, "for each recipient"));
        all.extend(each(byte_rates, "bytes"));
        all.extend(each(connect_rates, "new connections"));
        all
    }

    fn told_of_connections(&self) -> impl Iterator<Item = String> {
        let Caps { connections, messages_per_connection, sender_per_connection, .. } = self;
        let Caps { recipients_per_connection, bytes_per_connection, too_many_errors, busy, .. } = self;
        let all = [
            most(*connections, "connections"),
            most(*messages_per_connection, "messages each"),
            most(*sender_per_connection, "messages of a sender on a connection"),
            most(*recipients_per_connection, "recipients on a connection"),
            most(*bytes_per_connection, "bytes on a connection"),
            most(*too_many_errors, "unknown recipients on a connection"),
            part(*busy, "of connections turned away"),
        ];
        all.into_iter().flatten()
    }

    fn told_of_mail(&self) -> impl Iterator<Item = String> {
        let Caps { recipients, greylist, greylist_data, full, unknown, content, blocked_sender, trouble, .. } = self;
        let Caps { fail_temporary, fail_permanent, .. } = self;
        let (share, wait) = *greylist_data;
        let trouble = match trouble {
            Trouble::None => None,
            Trouble::Mail => Some("everything refused at MAIL"),
            Trouble::Greeting => Some("everything refused at the greeting"),
            Trouble::Closed => Some("every connection closed"),
        };
        let all = [
            most(*recipients, "recipients of a message"),
            (!greylist.is_zero()).then(|| format!("greylisting for {}", Span(*greylist))),
            part(share, format!("of messages greylisted for {}", Span(wait))),
            part(*full, "of mailboxes full"),
            part(*unknown, "of recipients unknown"),
            part(*content, "of messages deferred by a filter"),
            (!blocked_sender.is_empty()).then(|| format!("<{blocked_sender}> refused")),
            trouble.map(str::to_owned),
            part(*fail_temporary + *fail_permanent, "fail"),
        ];
        all.into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Setting;

    fn caps(text: &str) -> Caps {
        let mut caps = Caps::default();
        Setting::list(text).expect("caps").iter().for_each(|setting| caps.set(setting));
        caps
    }

    /// Every setting that can refuse something is told, and those that cannot are not.
    #[test]
    fn no_cap_is_passed_over() {
        for (setting, told) in [
            ("rate=20/s@fixed", "20/s@fixed"),
            ("rate=20/s+600/m count=recipients", "20/s recipients, 600/m recipients"),
            ("sender-rate=5/s", "5/s of each sender"),
            ("sender-rate=5/s capped-sender=a@b.example", "5/s of <a@b.example>"),
            ("recipient-rate=1/m", "1/m for each recipient"),
            ("byte-rate=24000000/m", "24000000/m bytes"),
            ("connect-rate=3/s", "3/s new connections"),
            ("connections=4", "4 connections"),
            ("messages-per-connection=17", "17 messages each"),
            ("sender-per-connection=2", "2 messages of a sender on a connection"),
            ("recipients-per-connection=9", "9 recipients on a connection"),
            ("bytes-per-connection=500000", "500000 bytes on a connection"),
            ("recipients=50", "50 recipients of a message"),
            ("greylist=5m", "greylisting for 5m"),
            ("greylist-data=2%:30s", "2 % of messages greylisted for 30s"),
            ("full=2.5%", "2.5 % of mailboxes full"),
            ("unknown=1%", "1 % of recipients unknown"),
            ("too-many-errors=5", "5 unknown recipients on a connection"),
            ("content=30%", "30 % of messages deferred by a filter"),
            ("blocked-sender=a@b.example", "<a@b.example> refused"),
            ("trouble=greeting", "everything refused at the greeting"),
            ("busy=3%", "3 % of connections turned away"),
            ("fail=2%:4xx+1%:5xx", "3 % fail"),
            ("at=rcpt latency=50ms say-rate=\"451 x\" close-silently=yes", "nothing"),
        ] {
            assert_eq!(enforced(&caps(setting), &[]), told, "{setting}");
        }
    }

    #[test]
    fn changes_say_what_holds_then() {
        let change = |text: &str| text.parse::<Change>().expect("a change");
        let changes = [change("20m rate=25/s"), change("5m connections=2 rate=none")];
        let told = enforced(&caps("rate=12/s"), &changes);
        assert_eq!(told, "12/s; from 5m on 2 connections; from 20m on 25/s, 2 connections");
        let changes: Vec<Change> = (1..=5).map(|n| change(&format!("{n}m rate={n}/s"))).collect();
        assert!(enforced(&Caps::default(), &changes).ends_with("; from 3m on 3/s; and 2 changes more"));
    }
}
