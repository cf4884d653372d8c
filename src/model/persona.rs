//! How named providers talk when they refuse, and the caps they are known to have: data.
//!
//! The texts are those that senders see in practice, shortened to what a sender can match on. Caps
//! are set where a provider's number is known; rates are mostly not published, so most personas
//! have none until one is given.

use std::time::Duration;

use super::caps::Caps;
use super::limit::Limit;
use crate::config::Count;
use crate::config::profiles::canonical;
use crate::config::units::Rate;

/// A reply as data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Text {
    /// Basic code.
    pub code: u16,
    /// Enhanced code, or empty.
    pub enhanced: &'static str,
    /// For people.
    pub text: &'static str,
}

/// Where a provider says that the rate is exceeded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum At {
    /// At MAIL.
    Mail,
    /// At each RCPT.
    Rcpt,
    /// At DATA.
    Data,
    /// After the data.
    End,
}

/// A provider's texts and known caps.
#[derive(Debug)]
pub struct Persona {
    /// As given to `--as`.
    pub name: &'static str,
    /// Whom it plays.
    pub about: &'static str,
    /// Where the rate is enforced.
    pub at: At,
    /// Too many per second or minute.
    pub rate: Text,
    /// Too many per hour or day.
    pub quota: Text,
    /// Too many connections at once.
    pub connections: Text,
    /// Too many new connections.
    pub connect_rate: Text,
    /// Too many messages on this connection.
    pub per_connection: Text,
    /// Too many recipients.
    pub recipients: Text,
    /// Greylisted.
    pub greylist: Text,
    /// A recipient fails for now.
    pub temporary: Text,
    /// A recipient fails for good.
    pub permanent: Text,
    known: Known,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    rates: &'static [Rate],
    count: Count,
    connections: u32,
    messages: u32,
    silent: bool,
    recipients: u32,
}

impl Persona {
    /// The persona of that name, which is that of the profile of the same provider, or one of its other
    /// names ([`canonical`]).
    pub fn find(name: &str) -> Option<&'static Persona> {
        let name = canonical(name);
        PERSONAS.iter().find(|p| p.name == name)
    }

    /// All names.
    pub fn names() -> impl Iterator<Item = &'static str> {
        PERSONAS.iter().map(|persona| persona.name)
    }

    /// The one without a name of its own.
    pub fn generic() -> &'static Persona {
        &GENERIC
    }

    /// Caps it is known to have.
    pub fn caps(&self) -> Caps {
        Caps {
            rates: self.known.rates.iter().map(|rate| Limit::from(*rate)).collect(),
            count: self.known.count,
            connections: self.known.connections,
            messages_per_connection: self.known.messages,
            close_silently: self.known.silent,
            recipients: self.known.recipients,
            ..Caps::default()
        }
    }
}

const fn text(code: u16, enhanced: &'static str, text: &'static str) -> Text {
    Text { code, enhanced, text }
}

const fn per(count: u32, seconds: u64) -> Rate {
    Rate { count, per: Duration::from_secs(seconds) }
}

const UNLIMITED: Known = Known {
    rates: &[],
    count: Count::Messages,
    connections: u32::MAX,
    messages: u32::MAX,
    silent: false,
    recipients: u32::MAX,
};

const fn known(connections: u32, messages: u32) -> Known {
    Known { connections, messages, ..UNLIMITED }
}

const GENERIC: Persona = Persona {
    name: "generic",
    about: "anybody: no caps of its own",
    at: At::Mail,
    rate: text(451, "4.7.1", "Rate limit exceeded, try again later"),
    quota: text(452, "4.7.1", "Quota exceeded, try again later"),
    connections: text(421, "4.7.0", "Too many connections, try again later"),
    connect_rate: text(421, "4.7.0", "Too many new connections, try again later"),
    per_connection: text(421, "4.7.0", "Too many messages on this connection"),
    recipients: text(452, "4.5.3", "Too many recipients"),
    greylist: text(450, "4.2.0", "Greylisted, please come back"),
    temporary: text(451, "4.3.0", "Temporary local problem"),
    permanent: text(550, "5.1.1", "User unknown"),
    known: UNLIMITED,
};

/// Every persona there is.
pub static PERSONAS: &[Persona] = &[
    GENERIC,
    Persona {
        name: "gmail",
        about: "Gmail and Workspace, as MX",
        rate: text(
            421,
            "4.7.28",
            "Our system has detected an unusual rate of unsolicited mail originating from your IP address. To protect \
             our users, mail sent from your IP address has been temporarily rate limited",
        ),
        quota: text(
            450,
            "4.2.1",
            "The user you are trying to contact is receiving mail at a rate that prevents additional messages from \
             being delivered. Please resend your message at a later time",
        ),
        connections: text(421, "4.7.0", "Try again later, closing connection"),
        connect_rate: text(421, "4.7.0", "Try again later, closing connection"),
        per_connection: text(421, "4.7.0", "Try again later, closing connection"),
        permanent: text(550, "5.1.1", "The email account that you tried to reach does not exist"),
        known: Known { recipients: 100, ..known(5, 50) },
        ..GENERIC
    },
    Persona {
        name: "gmail_relay",
        about: "smtp-relay.gmail.com, a smart host",
        rate: text(450, "4.2.1", "Peak SMTP relay limit exceeded for customer"),
        quota: text(550, "5.4.5", "Daily SMTP relay limit exceeded for customer"),
        known: Known { recipients: 100, rates: &[per(10_000, 86_400)], count: Count::Recipients, ..known(5, u32::MAX) },
        ..GENERIC
    },
    Persona {
        name: "outlook",
        about: "Outlook.com and Hotmail, as MX",
        rate: text(
            451,
            "4.7.650",
            "The mail server has been temporarily rate limited due to IP reputation. For e-mail delivery information \
             see the postmaster page (S775)",
        ),
        quota: text(451, "4.7.651", "The mail server has been temporarily rate limited due to IP reputation (S3114)"),
        connections: text(421, "4.3.2", "The maximum number of concurrent connections has been exceeded"),
        connect_rate: text(421, "", "RP-001 Unfortunately, some messages weren't sent. Try again later"),
        per_connection: text(421, "4.3.2", "You have exceeded the maximum number of messages per connection"),
        known: known(5, 50),
        ..GENERIC
    },
    Persona {
        name: "microsoft365",
        about: "Microsoft 365, as MX",
        rate: text(451, "4.7.500", "Server busy. Please try again later from the same IP"),
        quota: text(451, "4.7.500", "Server busy. Please try again later from the same IP"),
        connections: text(421, "4.3.2", "The maximum number of concurrent connections has been exceeded"),
        connect_rate: text(421, "4.3.2", "Service not available, too many connections"),
        per_connection: text(421, "4.3.2", "You have exceeded the maximum number of messages per connection"),
        temporary: text(432, "4.3.2", "STOREDRV.Deliver; recipient thread limit exceeded"),
        permanent: text(550, "5.1.10", "RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup"),
        known: known(5, 50),
        ..GENERIC
    },
    Persona {
        name: "office365",
        about: "smtp.office365.com, a smart host",
        at: At::End,
        rate: text(432, "4.3.2", "STOREDRV.ClientSubmit; sender thread limit exceeded"),
        quota: text(554, "5.2.0", "STOREDRV.Submission.Exception: SubmissionQuotaExceededException"),
        connections: text(432, "4.3.2", "Concurrent connections limit exceeded"),
        known: Known { rates: &[per(30, 60), per(10_000, 86_400)], count: Count::Recipients, ..known(3, u32::MAX) },
        ..GENERIC
    },
    Persona {
        name: "yahoo",
        about: "Yahoo and AOL, as MX: closes silently after 20 messages",
        rate: text(
            421,
            "4.7.0",
            "[TSS04] Messages from this IP temporarily deferred due to unexpected volume or user complaints",
        ),
        quota: text(421, "4.7.0", "[TSS05] Messages from this IP temporarily deferred due to unexpected volume"),
        connections: text(421, "4.7.0", "[TS02] Too many connections from this IP, temporarily deferred"),
        connect_rate: text(421, "4.7.0", "[TS03] Too many connections from this IP, temporarily deferred"),
        per_connection: text(421, "4.7.0", "Max message per connection reached, closing transmission channel"),
        temporary: text(450, "", "User is receiving mail too quickly"),
        permanent: text(554, "", "delivery error: This user doesn't have a yahoo.com account"),
        known: Known { silent: true, ..known(10, 20) },
        ..GENERIC
    },
    Persona {
        name: "yahoo_japan",
        about: "yahoo.co.jp, as MX",
        rate: text(421, "", "VS98-IP0 deferred, too many messages from this IP"),
        quota: text(421, "4.7.0", "[IPTS04] Messages from this IP temporarily deferred"),
        connections: text(421, "4.7.0", "[TSS04] Too many connections from this IP, temporarily deferred"),
        known: Known { rates: &[per(10, 1)], ..known(2, 20) },
        ..GENERIC
    },
    Persona {
        name: "icloud",
        about: "iCloud Mail, as MX",
        rate: text(421, "4.7.1", "Message has been temporarily deferred due to excessive volume"),
        quota: text(421, "4.7.1", "[HCM1] Message temporarily deferred"),
        connections: text(421, "4.7.1", "Too many connections from this IP, temporarily deferred"),
        known: known(10, 5),
        ..GENERIC
    },
    Persona {
        name: "comcast",
        about: "Comcast, as MX",
        rate: text(421, "4.1.0", "Throttled - try again later. RL000010"),
        quota: text(421, "4.1.0", "Throttled - try again later. RL000001"),
        connections: text(421, "4.1.0", "Too many sessions opened"),
        known: known(25, 1000),
        ..GENERIC
    },
    Persona {
        name: "gmx",
        about: "GMX and web.de, as MX",
        rate: text(
            421,
            "",
            "Nemesis ESMTP Service not available. Too many messages from this IP, reduce the sending rate",
        ),
        connections: text(421, "", "Nemesis ESMTP Service not available. Too many connections from this IP"),
        permanent: text(550, "", "Requested action not taken: mailbox unavailable. Reject due to policy restrictions"),
        known: known(4, 20),
        ..GENERIC
    },
    Persona {
        name: "orange",
        about: "Orange and Wanadoo, as MX",
        rate: text(
            421,
            "",
            "Service refuse. Veuillez essayer plus tard. Trop de messages, too many messages. OFR004_105",
        ),
        connections: text(421, "", "Trop de connexions, veuillez verifier votre configuration. OFR005_104"),
        connect_rate: text(421, "", "Trop de connexions, veuillez verifier votre configuration. OFR004_104"),
        known: Known { recipients: 100, ..known(2, 100) },
        ..GENERIC
    },
    Persona {
        name: "mailru",
        about: "Mail.ru and Yandex, as MX",
        rate: text(421, "4.7.0", "IP frequency limit, too many messages, try again later"),
        connections: text(451, "4.7.1", "Sorry, the service is currently unavailable: too many connections"),
        temporary: text(451, "4.5.1", "The recipient has exceeded their message rate limit. Try again later"),
        known: known(10, u32::MAX),
        ..GENERIC
    },
    Persona {
        name: "qq",
        about: "QQ and exmail, as MX: 550 that is temporary",
        rate: text(550, "", "Ip frequency limited"),
        quota: text(550, "", "Domain frequency limited"),
        connections: text(550, "", "Connection frequency limited"),
        connect_rate: text(550, "", "Connection frequency limited"),
        per_connection: text(421, "", "Connection frequency limited"),
        permanent: text(550, "", "Mailbox unavailable or access denied"),
        known: known(4, 8),
        ..GENERIC
    },
    Persona {
        name: "netease",
        about: "163 and 126, as MX",
        rate: text(451, "", "DT:SPM Too many messages, please try again later"),
        quota: text(450, "", "RP:DRC Too many recipients, try again later"),
        connections: text(421, "", "HL:ICC Too many connections"),
        connect_rate: text(421, "", "HL:IFC Too many connections"),
        per_connection: text(451, "", "MI:DMC Too many messages on this connection"),
        greylist: text(451, "", "MI:SFQ Temporarily refused, try again later"),
        permanent: text(550, "", "User not found"),
        known: known(4, 7),
        ..GENERIC
    },
    Persona {
        name: "alibaba_mail",
        about: "Alibaba Mail, as MX",
        at: At::End,
        rate: text(454, "", "Transient reject by behaviour spam at Rcpt State. Too frequently sending"),
        quota: text(554, "", "Reject by behaviour spam at Rcpt State. Too frequently sending"),
        known: known(2, u32::MAX),
        ..GENERIC
    },
    Persona {
        name: "ses",
        about: "Amazon SES in the sandbox, a smart host: counts recipients",
        at: At::End,
        rate: text(454, "", "Throttling failure: Maximum sending rate exceeded."),
        quota: text(454, "", "Throttling failure: Daily message quota exceeded."),
        known: Known {
            rates: &[per(1, 1), per(200, 86_400)],
            count: Count::Recipients,
            recipients: 50,
            ..known(10, u32::MAX)
        },
        ..GENERIC
    },
    Persona {
        name: "sendgrid",
        about: "SendGrid, a smart host",
        connections: text(
            421,
            "",
            "Too many concurrent connections: all available ips are at maximum connection limit",
        ),
        known: Known { recipients: 1000, ..known(10_000, 5000) },
        ..GENERIC
    },
    Persona {
        name: "netvigator",
        about: "Netvigator, as MX",
        per_connection: text(421, "", "Too many messages for this session"),
        known: known(5, 10),
        ..GENERIC
    },
    Persona {
        name: "mimecast",
        about: "Mimecast, as MX",
        rate: text(451, "", "Account service is temporarily unavailable, try again later"),
        known: Known { recipients: 100, ..known(10, 100) },
        ..GENERIC
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_persona_refuses_with_replies_that_can_be_sent() {
        assert!(PERSONAS.len() >= 10);
        let names: BTreeSet<&str> = PERSONAS.iter().map(|p| p.name).collect();
        assert_eq!(names.len(), PERSONAS.len(), "a name twice");
        for p in PERSONAS {
            assert!(std::ptr::eq(Persona::find(&p.name.to_uppercase()).expect(p.name), p));
            for t in [
                p.rate,
                p.quota,
                p.connections,
                p.connect_rate,
                p.per_connection,
                p.recipients,
                p.greylist,
                p.temporary,
                p.permanent,
            ] {
                assert!((400..600).contains(&t.code), "{}: {t:?}", p.name);
                assert!(t.text.bytes().all(|b| (b' '..=b'~').contains(&b)), "{}: {t:?}", p.name);
                // RFC 5321 §4.5.3.1.5: 512 bytes with code, blanks and CRLF.
                assert!(t.text.len() + t.enhanced.len() + 7 <= 512, "{}: {t:?}", p.name);
                let class = t.enhanced.as_bytes().first().copied();
                let digit = if t.code < 500 { b'4' } else { b'5' };
                assert!(class.is_none_or(|c| c == digit), "{}: {t:?}", p.name);
            }
        }
    }
}
