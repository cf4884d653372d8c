//! The words that set caps: `rate=20/s connections=5 say-rate="451 4.7.1 Langsamer, bitte"`.

use std::time::Duration;

use super::cap::TEXTS;
use super::caps::{Fail, Trouble};
use super::limit::Limit;
use super::persona::At;
use super::said::Said;
use crate::config::Count;
use crate::config::units::Span;

/// One cap set to a value.
#[derive(Clone, PartialEq, Debug)]
pub enum Setting {
    /// `rate`; none: no cap.
    Rates(Vec<Limit>),
    /// `count`.
    Count(Count),
    /// `at`.
    At(At),
    /// `sender-rate`.
    SenderRates(Vec<Limit>),
    /// `recipient-rate`.
    RecipientRates(Vec<Limit>),
    /// `byte-rate`.
    ByteRates(Vec<Limit>),
    /// `connections`.
    Connections(u32),
    /// `connect-rate`.
    ConnectRates(Vec<Limit>),
    /// `messages-per-connection`.
    MessagesPerConnection(u32),
    /// `close-silently`.
    CloseSilently(bool),
    /// `connection-at`.
    ConnectionAt(At),
    /// `connection-stays`.
    ConnectionStays(bool),
    /// `sender-per-connection`.
    SenderPerConnection(u32),
    /// `recipients-per-connection`.
    RecipientsPerConnection(u32),
    /// `bytes-per-connection`.
    BytesPerConnection(u32),
    /// `recipients`.
    Recipients(u32),
    /// `greylist`.
    Greylist(Duration),
    /// `greylist-data`: share and wait.
    GreylistData(f64, Duration),
    /// `full`.
    Full(f64),
    /// `unknown`.
    Unknown(f64),
    /// `too-many-errors`.
    TooManyErrors(u32),
    /// `content`.
    Content(f64),
    /// `blocked-sender`.
    BlockedSender(String),
    /// `capped-sender`.
    CappedSender(String),
    /// `trouble`.
    Trouble(Trouble),
    /// `busy`.
    Busy(f64),
    /// `fail`.
    Fail(Fail),
    /// `latency`.
    Latency(Duration),
    /// `say-…`: the words of a refusal.
    Say(&'static str, Said),
}

/// Names of settings, for messages.
const NAMES: &str = "rate, count, at, sender-rate, recipient-rate, byte-rate, connections, connect-rate, \
                     messages-per-connection, close-silently, connection-at, connection-stays, sender-per-connection, recipients-per-connection, \
                     bytes-per-connection, recipients, greylist, greylist-data, full, unknown, too-many-errors, \
                     content, blocked-sender, capped-sender, trouble, busy, fail, latency, or say- and one of those that refuse";

impl Setting {
    /// From a name and a value; `none` as a value lifts the cap.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(name: &str, value: &str) -> Result<Setting, String> {
        let name = name.replace('_', "-");
        if let Some(topic) = name.strip_prefix("say-") {
            return Setting::say(topic, value);
        }
        Ok(match name.as_str() {
            "rate" => Setting::Rates(limits(value)?),
            "sender-rate" => Setting::SenderRates(limits(value)?),
            "recipient-rate" => Setting::RecipientRates(limits(value)?),
            "byte-rate" => Setting::ByteRates(limits(value)?),
            "connect-rate" => Setting::ConnectRates(limits(value)?),
            "count" => Setting::Count(match value {
                "messages" => Count::Messages,
                "recipients" => Count::Recipients,
                _ => return Err(format!("`{value}` is not a count: expected messages or recipients")),
            }),
            "at" => Setting::At(place(value)?),
            "connection-at" => Setting::ConnectionAt(place(value)?),
            "connections" => Setting::Connections(number(&name, value)?),
            "messages-per-connection" => Setting::MessagesPerConnection(number(&name, value)?),
            "sender-per-connection" => Setting::SenderPerConnection(number(&name, value)?),
            "recipients-per-connection" => Setting::RecipientsPerConnection(number(&name, value)?),
            "bytes-per-connection" => Setting::BytesPerConnection(number(&name, value)?),
            "recipients" => Setting::Recipients(number(&name, value)?),
            "too-many-errors" => Setting::TooManyErrors(number(&name, value)?),
            "close-silently" => Setting::CloseSilently(yes(&name, value)?),
            "connection-stays" => Setting::ConnectionStays(yes(&name, value)?),
            "greylist" => Setting::Greylist(span(value)?),
            "latency" => Setting::Latency(span(value)?),
            "greylist-data" => match value.split_once(':') {
                _ if value == "none" => Setting::GreylistData(0.0, Duration::ZERO),
                Some((part, wait)) => Setting::GreylistData(share(part)?, span(wait)?),
                None => return Err(format!("`{value}`: expected a share and a span of time, such as 2%:30s")),
            },
            "full" => Setting::Full(share(value)?),
            "unknown" => Setting::Unknown(share(value)?),
            "content" => Setting::Content(share(value)?),
            "busy" => Setting::Busy(share(value)?),
            "blocked-sender" if value == "none" => Setting::BlockedSender(String::new()),
            "blocked-sender" => Setting::BlockedSender(value.to_ascii_lowercase()),
            "capped-sender" if value == "none" => Setting::CappedSender(String::new()),
            "capped-sender" => Setting::CappedSender(value.to_ascii_lowercase()),
            "trouble" => Setting::Trouble(match value {
                "none" => Trouble::None,
                "mail" => Trouble::Mail,
                "greeting" => Trouble::Greeting,
                "closed" => Trouble::Closed,
                _ => return Err(format!("`{value}` is no trouble: expected mail, greeting, closed or none")),
            }),
            "fail" if value == "none" => Setting::Fail(Fail::default()),
            "fail" => Setting::Fail(value.parse()?),
            _ => return Err(format!("`{name}` is not a cap: expected one of {NAMES}")),
        })
    }

    /// The words of a refusal: `rate` and `451 4.7.1 Langsamer, bitte`.
    ///
    /// # Errors
    /// What was expected.
    pub fn say(topic: &str, said: &str) -> Result<Setting, String> {
        let known = TEXTS.iter().find(|known| **known == topic);
        let known = known.ok_or_else(|| format!("`{topic}` refuses nothing: expected one of {}", TEXTS.join(", ")))?;
        Ok(Setting::Say(known, said.parse()?))
    }

    /// Settings with blanks or commas between, each `name=value` or `name:value`; a value with blanks or
    /// commas stands in double quotes. A rate named twice holds in both windows.
    ///
    /// # Errors
    /// What is wrong with the first that cannot be read.
    pub fn list(text: &str) -> Result<Vec<Setting>, String> {
        let mut list: Vec<Setting> = Vec::new();
        for word in words(text)? {
            let (name, value) = word
                .split_once(['=', ':'])
                .ok_or_else(|| format!("`{word}` sets nothing: expected name=value, such as rate=20/s"))?;
            let new = Setting::parse(name, value)?;
            let joined = list.iter_mut().any(|old| match (old, &new) {
                (Setting::Rates(old), Setting::Rates(more))
                | (Setting::SenderRates(old), Setting::SenderRates(more))
                | (Setting::RecipientRates(old), Setting::RecipientRates(more))
                | (Setting::ByteRates(old), Setting::ByteRates(more))
                | (Setting::ConnectRates(old), Setting::ConnectRates(more)) => {
                    old.extend(more);
                    true
                }
                _ => false,
            });
            if !joined {
                list.push(new);
            }
        }
        if list.is_empty() { Err("nothing is set: expected name=value, such as rate=20/s".into()) } else { Ok(list) }
    }
}

/// Splits at blanks and commas outside of quotes, and takes the quotes away; `\"` is a quote.
fn words(text: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' => quoted = !quoted,
            '\\' if quoted && chars.peek() == Some(&'"') => word.extend(chars.next()),
            ' ' | '\t' | ',' if !quoted => words.push(std::mem::take(&mut word)),
            c => word.push(c),
        }
    }
    if quoted {
        return Err(format!("`{text}`: a quote is missing"));
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    Ok(words)
}

fn place(value: &str) -> Result<At, String> {
    match value {
        "mail" => Ok(At::Mail),
        "rcpt" => Ok(At::Rcpt),
        "data" => Ok(At::Data),
        "end" => Ok(At::End),
        _ => Err(format!("`{value}` is no place for a refusal: expected mail, rcpt, data or end")),
    }
}

fn yes(name: &str, value: &str) -> Result<bool, String> {
    match value {
        "yes" | "true" => Ok(true),
        "no" | "false" => Ok(false),
        _ => Err(format!("`{value}`: expected yes or no for {name}")),
    }
}

fn number(name: &str, value: &str) -> Result<u32, String> {
    match value.parse::<u32>() {
        _ if value == "none" => Ok(u32::MAX),
        Ok(n) if n > 0 => Ok(n),
        _ => Err(format!("`{value}` is not a number for {name}: expected 1 or more, or none")),
    }
}

fn span(value: &str) -> Result<Duration, String> {
    if value == "none" { Ok(Duration::ZERO) } else { value.parse::<Span>().map(|span| span.0) }
}

fn limits(value: &str) -> Result<Vec<Limit>, String> {
    if value == "none" { Ok(Vec::new()) } else { value.split('+').map(str::parse).collect() }
}

/// `2%`, as a part of 1.
pub(super) fn share(value: &str) -> Result<f64, String> {
    let percent = if value == "none" { Some(0.0) } else { value.strip_suffix('%').and_then(|n| n.parse::<f64>().ok()) };
    let percent = percent.filter(|percent| (0.0..=100.0).contains(percent));
    percent.map(|percent| percent / 100.0).ok_or_else(|| format!("`{value}` is not a share: expected such as 2%"))
}
