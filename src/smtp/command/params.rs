//! ESMTP parameters of MAIL and RCPT. smtp-proto parses them; what it understands but this relay does not
//! announce is refused as unknown (RFC 5321 §4.1.1.11), and decoded xtext that could break a line of a DSN
//! is refused too. `ORCPT` is parsed here: smtp-proto knows only type `rfc822`.

use std::borrow::Cow;
use std::time::Duration;

use smtp_proto::request::parser::Rfc5321Parser;
use smtp_proto::{
    Error, MAIL_BODY_7BIT, MAIL_BODY_8BITMIME, MAIL_BODY_BINARYMIME, MAIL_REQUIRETLS, MAIL_RET_FULL, MAIL_RET_HDRS,
    MAIL_SMTPUTF8, RCPT_NOTIFY_DELAY, RCPT_NOTIFY_FAILURE, RCPT_NOTIFY_NEVER, RCPT_NOTIFY_SUCCESS,
};

use super::super::Reply;
use super::{MAIL_SYNTAX, RCPT_SYNTAX};
use crate::clock::Timestamp;
use crate::smtp::parameters::{BodyKind, Hold, Notify, Orcpt, Ret};

/// Parameters of MAIL.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MailParams {
    /// `SIZE=` (RFC 1870); 0 without one.
    pub size: u64,
    /// `BODY=`.
    pub body: BodyKind,
    /// `SMTPUTF8`.
    pub smtputf8: bool,
    /// `RET=`.
    pub ret: Option<Ret>,
    /// `ENVID=`, decoded.
    pub envid: Option<String>,
    /// `MT-PRIORITY=` (RFC 6710).
    pub priority: Option<i8>,
    /// `HOLDFOR=` or `HOLDUNTIL=` (RFC 4865).
    pub hold: Option<Hold>,
    /// `REQUIRETLS` (RFC 8689).
    pub require_tls: bool,
}

/// Parameters of RCPT.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RcptParams {
    /// `NOTIFY=`.
    pub notify: Notify,
    /// `ORCPT=`, decoded.
    pub orcpt: Option<Orcpt>,
}

fn bad_param(name: &str) -> Reply {
    Reply::with(501, "5.5.4", format!("Bad value of parameter {name}"))
}

fn unknown_param(name: &str) -> Reply {
    Reply::with(555, "5.5.4", format!("Parameter {name:.64} not recognized or not implemented"))
}

fn param_error(error: Error, syntax: Reply) -> Reply {
    match error {
        Error::InvalidParameter { param } => bad_param(param),
        Error::UnsupportedParameter { param } => unknown_param(&param),
        _ => syntax,
    }
}

/// smtp-proto wants its line end.
fn with_line_end(params: &str) -> Vec<u8> {
    [params.as_bytes(), b"\r\n"].concat()
}

/// Keywords and values as they stand there.
fn pairs(params: &str) -> impl Iterator<Item = (&str, &str)> {
    params.split([' ', '\t']).filter_map(|word| word.split_once('='))
}

/// A `SIZE=` that no integer holds: RFC 1870 §6 allows 20 digits, and with more it is over any limit as well, not bad
/// syntax.
fn announces_too_much(params: &str) -> bool {
    pairs(params).any(|(key, value)| {
        key.eq_ignore_ascii_case("SIZE")
            && value.len() >= 19
            && value.bytes().all(|b| b.is_ascii_digit())
            && value.parse::<i64>().is_err()
    })
}

/// Digits that HOLDFOR may have (RFC 4865 §6: `future-release-integer = %x31-39 *8DIGIT`).
const HOLDFOR_DIGITS: usize = 9;

/// Whether a time of RFC 3339 begins with a day that there is.
fn is_day(time: &str) -> bool {
    let mut parts = time.get(..10).unwrap_or_default().split('-').map(str::parse::<u32>);
    match (parts.next(), parts.next(), parts.next()) {
        (Some(Ok(year)), Some(Ok(month)), Some(Ok(day))) => Timestamp::from_date(i64::from(year), month, day).is_some(),
        _ => false,
    }
}

/// Refuses what the parser would read as another time: it takes the last of several (RFC 4865 §4.2 allows one), the digits
/// that fit, and any day of 31 in a month.
fn check_hold(params: &str) -> Result<(), Reply> {
    let mut before = false;
    for (key, value) in pairs(params) {
        let (name, good) = match () {
            () if key.eq_ignore_ascii_case("HOLDFOR") => ("HOLDFOR", value.len() <= HOLDFOR_DIGITS),
            () if key.eq_ignore_ascii_case("HOLDUNTIL") => ("HOLDUNTIL", is_day(value)),
            () => continue,
        };
        if before || !good {
            return Err(bad_param(if before { "HOLDFOR" } else { name }));
        }
        before = true;
    }
    Ok(())
}

pub(super) fn mail_params(text: &str) -> Result<MailParams, Reply> {
    if text.is_empty() {
        return Ok(MailParams::default());
    }
    if announces_too_much(text) {
        return Ok(MailParams { size: u64::MAX, ..MailParams::default() });
    }
    if pairs(text).any(|(key, _)| key.eq_ignore_ascii_case("REQUIRETLS")) {
        return Err(bad_param("REQUIRETLS"));
    }
    let line = with_line_end(text);
    let mut bytes = line.iter();
    let given = Rfc5321Parser::new(&mut bytes)
        .mail_from_parameters(Cow::Borrowed(""))
        .map_err(|e| param_error(e, MAIL_SYNTAX))?;
    let bodies = MAIL_BODY_8BITMIME | MAIL_BODY_BINARYMIME | MAIL_BODY_7BIT;
    let known = bodies | MAIL_RET_FULL | MAIL_RET_HDRS | MAIL_SMTPUTF8 | MAIL_REQUIRETLS;
    if (given.flags & bodies).count_ones() > 1 {
        return Err(bad_param("BODY"));
    }
    if given.flags & !known != 0
        || given.by != 0
        || given.trans_id.is_some()
        || given.solicit.is_some()
        || given.mtrk.is_some()
    {
        return Err(Reply::new(555, "5.5.4", "A parameter of an extension that is not offered"));
    }
    check_hold(text)?;
    let require_tls = given.flags & MAIL_REQUIRETLS != 0;
    let hold = match (given.hold_for, given.hold_until) {
        (0, 0) => None,
        (0, seconds) => Some(Hold::Until(seconds)),
        (seconds, _) => Some(Hold::For(Duration::from_secs(seconds))),
    };
    let ret = match (given.flags & MAIL_RET_FULL != 0, given.flags & MAIL_RET_HDRS != 0) {
        (true, true) => return Err(bad_param("RET")),
        (true, false) => Some(Ret::Full),
        (false, true) => Some(Ret::Headers),
        (false, false) => None,
    };
    // Coded it is ASCII; decoded it may be text of any character set, byte by byte, but nothing that breaks a line.
    let coded = |word: &str| word.get(..6).is_none_or(|name| !name.eq_ignore_ascii_case("ENVID=")) || word.is_ascii();
    if given.env_id.as_deref().is_some_and(|id| id.contains(|c: char| c.is_ascii_control()))
        || !text.split([' ', '\t']).all(coded)
    {
        return Err(bad_param("ENVID"));
    }
    let priority = i8::try_from(given.mt_priority).ok().filter(|p| (-9..=9).contains(p));
    Ok(MailParams {
        size: given.size as u64,
        body: match given.flags & bodies {
            MAIL_BODY_BINARYMIME => BodyKind::BinaryMime,
            MAIL_BODY_8BITMIME => BodyKind::EightBitMime,
            _ => BodyKind::SevenBit,
        },
        smtputf8: given.flags & MAIL_SMTPUTF8 != 0,
        hold,
        require_tls,
        ret,
        envid: given.env_id.map(Cow::into_owned),
        // 0 may have been said, or not: a header field is only asked in the second case.
        priority: match priority.ok_or_else(|| bad_param("MT-PRIORITY"))? {
            0 if !says_priority(text) => None,
            given => Some(given),
        },
    })
}

/// Whether there is an MT-PRIORITY parameter.
fn says_priority(text: &str) -> bool {
    let name = |parameter: &str| parameter.split('=').next().unwrap_or_default().to_ascii_uppercase();
    text.split_ascii_whitespace().any(|parameter| name(parameter) == "MT-PRIORITY")
}

pub(super) fn rcpt_params(text: &str) -> Result<RcptParams, Reply> {
    if text.is_empty() {
        return Ok(RcptParams::default());
    }
    let mut orcpt = None;
    let mut others = String::with_capacity(text.len());
    for word in text.split([' ', '\t']).filter(|w| !w.is_empty()) {
        match word.split_once('=') {
            Some((key, value)) if key.eq_ignore_ascii_case("ORCPT") => {
                if orcpt.is_some() {
                    return Err(bad_param("ORCPT"));
                }
                orcpt = Some(parse_orcpt(value).ok_or_else(|| bad_param("ORCPT"))?);
            }
            _ => {
                others.push(' ');
                others.push_str(word);
            }
        }
    }
    let line = with_line_end(&others);
    let mut bytes = line.iter();
    let given = Rfc5321Parser::new(&mut bytes)
        .rcpt_to_parameters(Cow::Borrowed(""))
        .map_err(|e| param_error(e, RCPT_SYNTAX))?;
    let (never, some) = (RCPT_NOTIFY_NEVER, RCPT_NOTIFY_SUCCESS | RCPT_NOTIFY_FAILURE | RCPT_NOTIFY_DELAY);
    if given.rrvs != 0 || given.flags & !(never | some) != 0 {
        return Err(Reply::new(555, "5.5.4", "A parameter of an extension that is not offered"));
    }
    let notify = match (given.flags & never != 0, given.flags & some != 0) {
        // NEVER stands alone (RFC 3461 §4.1).
        (true, true) => return Err(bad_param("NOTIFY")),
        (true, false) => Notify::NEVER,
        (false, false) => Notify::default(),
        (false, true) => Notify {
            given: true,
            success: given.flags & RCPT_NOTIFY_SUCCESS != 0,
            failure: given.flags & RCPT_NOTIFY_FAILURE != 0,
            delay: given.flags & RCPT_NOTIFY_DELAY != 0,
        },
    };
    Ok(RcptParams { notify, orcpt })
}

/// `rfc822;xtext` (RFC 3461 §4.2), `utf-8;…` (RFC 6533 §3), or another address type.
fn parse_orcpt(value: &str) -> Option<Orcpt> {
    let (kind, coded) = value.split_once(';')?;
    let kind_ok = !kind.is_empty() && kind.len() <= 64 && kind.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if !kind_ok || coded.is_empty() || coded.len() > 1500 {
        return None;
    }
    let address = decode_xtext(coded)?;
    (is_printable(&address) && !address.is_empty()).then(|| Orcpt { kind: kind.to_owned(), address })
}

/// RFC 3461 §4: `+` and two hexadecimal digits.
pub(super) fn decode_xtext(coded: &str) -> Option<String> {
    let mut out = Vec::with_capacity(coded.len());
    let mut bytes = coded.bytes();
    while let Some(b) = bytes.next() {
        if b != b'+' {
            out.push(b);
            continue;
        }
        let mut digit = || bytes.next().and_then(|d| char::from(d).to_digit(16));
        let (high, low) = (digit()?, digit()?);
        out.push((high * 16 + low) as u8);
    }
    String::from_utf8(out).ok()
}

fn is_printable(text: &str) -> bool {
    !text.chars().any(char::is_control)
}
