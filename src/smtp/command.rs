//! Commands as clients send them (RFC 5321 §4.1.1), made whole where legacy clients cut corners.
//!
//! The verb and the path are parsed here, because a parser that goes by the book refuses what
//! Postfix has taken for decades: a space after the colon, no angle brackets, trailing spaces. The
//! ESMTP parameters behind the path are left to smtp-proto; what it understands but this relay does
//! not announce is refused as unknown (RFC 5321 §4.1.1.11), and decoded xtext that could break a
//! line of a DSN is refused too. `ORCPT` is parsed here: smtp-proto knows only type `rfc822`.

use std::borrow::Cow;

use smtp_proto::request::parser::Rfc5321Parser;
use smtp_proto::{
    Error, MAIL_BODY_8BITMIME, MAIL_BODY_BINARYMIME, MAIL_RET_FULL, MAIL_RET_HDRS, MAIL_SMTPUTF8, RCPT_NOTIFY_DELAY,
    RCPT_NOTIFY_FAILURE, RCPT_NOTIFY_NEVER, RCPT_NOTIFY_SUCCESS,
};

use super::Reply;
use crate::mail::{BodyKind, Notify, Orcpt, Ret};

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
}

/// Parameters of RCPT.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RcptParams {
    /// `NOTIFY=`.
    pub notify: Notify,
    /// `ORCPT=`, decoded.
    pub orcpt: Option<Orcpt>,
}

/// A command. Paths are what stands between the angle brackets, not checked any further.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command<'a> {
    /// HELO with its name.
    Helo(&'a str),
    /// EHLO with its name.
    Ehlo(&'a str),
    /// MAIL; an empty path is the null reverse-path.
    Mail(&'a str, MailParams),
    /// RCPT.
    Rcpt(&'a str, RcptParams),
    /// DATA.
    Data,
    /// BDAT (RFC 3030).
    Bdat {
        /// Bytes that follow the command line.
        size: u64,
        /// The last chunk of the message.
        last: bool,
    },
    /// RSET.
    Rset,
    /// NOOP, whatever follows.
    Noop,
    /// QUIT.
    Quit,
    /// VRFY.
    Vrfy,
    /// EXPN.
    Expn,
    /// HELP.
    Help,
    /// STARTTLS.
    StartTls,
    /// AUTH.
    Auth,
}

/// Why a line is no command that can be served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Bad {
    /// The client made a mistake; it may go on.
    Refuse(Reply),
    /// It is no mail client, or it can no longer be told where its next command starts.
    Close(Reply),
}

impl From<Reply> for Bad {
    fn from(reply: Reply) -> Bad {
        Bad::Refuse(reply)
    }
}

/// Not 221: a client whose DATA was refused and who sends its message all the same would take that for
/// the reply to it, and for success.
const NOT_SMTP: Reply = Reply::new(421, "4.7.0", "This is an SMTP server, and that was no command; closing connection");
const JUNK: Reply = Reply::new(500, "5.5.2", "Command line with characters that are not allowed");
const UNKNOWN: Reply = Reply::new(500, "5.5.2", "Command not recognized");
const NO_ARGUMENT: Reply = Reply::new(501, "5.5.4", "This command takes no argument");
const NEEDS_NAME: Reply = Reply::new(501, "5.5.4", "Syntax: EHLO hostname");
const MAIL_SYNTAX: Reply = Reply::new(501, "5.5.4", "Syntax: MAIL FROM:<address>");
const RCPT_SYNTAX: Reply = Reply::new(501, "5.5.4", "Syntax: RCPT TO:<address>");
const BDAT_SYNTAX: Reply =
    Reply::new(501, "5.5.4", "Syntax: BDAT size [LAST]; closing, as the data cannot be told from commands");

impl<'a> Command<'a> {
    /// Parses a line without its line end.
    pub fn parse(line: &'a [u8]) -> Result<Command<'a>, Bad> {
        let Some(text) = std::str::from_utf8(line).ok().filter(|t| !t.chars().any(|c| c.is_control() && c != '\t'))
        else {
            return Err(JUNK.into());
        };
        let text = text.trim_end_matches([' ', '\t']);
        let (verb, rest) = match text.find([' ', '\t']) {
            Some(n) => (&text[..n], text[n..].trim_start_matches([' ', '\t'])),
            None => (text, ""),
        };
        let bare = |command| if rest.is_empty() { Ok(command) } else { Err(NO_ARGUMENT.into()) };
        let is = |name: &str| verb.eq_ignore_ascii_case(name);
        if is("MAIL") {
            let (path, params) = path(rest, "FROM").ok_or(MAIL_SYNTAX)?;
            Ok(Command::Mail(path, mail_params(params)?))
        } else if is("RCPT") {
            let (path, params) = path(rest, "TO").ok_or(RCPT_SYNTAX)?;
            Ok(Command::Rcpt(path, rcpt_params(params)?))
        } else if is("DATA") {
            bare(Command::Data)
        } else if is("EHLO") || is("HELO") {
            let name = rest.split([' ', '\t']).next().unwrap_or_default();
            match name {
                "" => Err(NEEDS_NAME.into()),
                _ if is("EHLO") => Ok(Command::Ehlo(name)),
                _ => Ok(Command::Helo(name)),
            }
        } else if is("BDAT") {
            bdat(rest).ok_or(Bad::Close(BDAT_SYNTAX))
        } else if is("RSET") {
            bare(Command::Rset)
        } else if is("QUIT") {
            bare(Command::Quit)
        } else if is("NOOP") {
            Ok(Command::Noop)
        } else if is("VRFY") {
            Ok(Command::Vrfy)
        } else if is("EXPN") {
            Ok(Command::Expn)
        } else if is("HELP") {
            Ok(Command::Help)
        } else if is("STARTTLS") {
            bare(Command::StartTls)
        } else if is("AUTH") {
            Ok(Command::Auth)
        } else if is_not_mail(verb, rest) {
            Err(Bad::Close(NOT_SMTP))
        } else {
            Err(UNKNOWN.into())
        }
    }
}

/// A request line of HTTP, or a line of a header section: a browser, or a web page that makes one
/// talk to this port, or a client that lost its place and sends a message as commands.
fn is_not_mail(verb: &str, rest: &str) -> bool {
    let http = ["GET", "POST", "PUT", "HEAD", "OPTIONS", "CONNECT", "PATCH", "DELETE", "PRI"];
    let request = http.iter().any(|m| verb.eq_ignore_ascii_case(m)) && !rest.is_empty();
    let field = verb.split_once(':').is_some_and(|(name, _)| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    });
    request || field
}

/// `FROM:<path> params` → (path, ` params`). Angle brackets may be missing or doubled, spaces may stand
/// where none belong, and so may names and comments, as in a header field.
fn path<'a>(text: &'a str, keyword: &str) -> Option<(&'a str, &'a str)> {
    let rest = text.get(keyword.len()..).filter(|_| text[..keyword.len()].eq_ignore_ascii_case(keyword))?;
    let rest = rest.trim_start().strip_prefix(':')?.trim_start();
    let (path, params) = match bracket(rest) {
        Some(open) => {
            let end = open + 1 + closing_bracket(&rest[open + 1..])?;
            (mailbox(&rest[open + 1..end]), &rest[end + 1..])
        }
        None => {
            let end = rest.find([' ', '\t']).unwrap_or(rest.len());
            if end == 0 {
                return None;
            }
            rest.split_at(end)
        }
    };
    let params = match params.trim_start() {
        comment if comment.starts_with('(') => &comment[comment_end(comment)?..],
        _ => params,
    };
    (params.is_empty() || params.starts_with([' ', '\t'])).then_some((path, params))
}

/// What a character means to a path: those in quotes and comments mean nothing.
#[derive(Default)]
struct Scan {
    quoted: bool,
    escaped: bool,
    comment: usize,
}

impl Scan {
    /// Takes the next byte; whether it stands outside quotes and comments, those that begin and end
    /// them included.
    fn outside(&mut self, byte: u8) -> bool {
        let outside = !self.quoted && self.comment == 0;
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' if !outside => self.escaped = true,
            b'"' if self.comment == 0 => self.quoted = !self.quoted,
            b'(' if !self.quoted => self.comment += 1,
            b')' if self.comment > 0 => self.comment -= 1,
            _ => {}
        }
        outside
    }
}

/// Position of the `<` that opens the path: at the start, or behind a name. An `@` before it is an
/// address without brackets, an `=` a parameter with one in its value.
fn bracket(text: &str) -> Option<usize> {
    let mut scan = Scan::default();
    for (i, b) in text.bytes().enumerate() {
        match b {
            _ if !scan.outside(b) => {}
            b'<' => return Some(i),
            b'@' | b'=' => return None,
            _ => {}
        }
    }
    None
}

/// Position of the `>` that closes the path; one inside a quoted string does not.
fn closing_bracket(inner: &str) -> Option<usize> {
    let (mut scan, mut depth) = (Scan::default(), 0_usize);
    for (i, b) in inner.bytes().enumerate() {
        match b {
            _ if !scan.outside(b) => {}
            b'<' => depth += 1,
            b'>' if depth == 0 => return Some(i),
            b'>' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// The address of what stands between brackets: that of the innermost ones (`<Jo <a@b>>`), without
/// the comments around it.
fn mailbox(inner: &str) -> &str {
    let (mut scan, mut open, mut close) = (Scan::default(), 0, None);
    for (i, b) in inner.bytes().enumerate() {
        match b {
            _ if !scan.outside(b) => {}
            b'<' => (open, close) = (i + 1, None),
            b'>' if close.is_none() => close = Some(i),
            _ => {}
        }
    }
    let mut address = inner[open..close.unwrap_or(inner.len())].trim();
    while let Some(end) = Some(address).filter(|a| a.starts_with('(')).and_then(comment_end) {
        address = address[end..].trim_start();
    }
    // A quoted string may have a parenthesis; its local part does not end the address.
    match address.rfind('@').and_then(|at| Some(at + address[at..].find('(')?)) {
        Some(comment) if comment_end(&address[comment..]) == Some(address.len() - comment) => {
            address[..comment].trim_end()
        }
        _ => address,
    }
}

/// The end of the comment that the text begins with.
fn comment_end(text: &str) -> Option<usize> {
    let mut scan = Scan::default();
    text.bytes()
        .position(|b| {
            scan.outside(b);
            scan.comment == 0
        })
        .map(|last| last + 1)
}

fn bdat<'a>(rest: &str) -> Option<Command<'a>> {
    let mut words = rest.split_ascii_whitespace();
    let size = words.next().filter(|w| w.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()?;
    let last = match words.next() {
        None => false,
        Some(word) if word.eq_ignore_ascii_case("LAST") => true,
        Some(_) => return None,
    };
    words.next().is_none().then_some(Command::Bdat { size, last })
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

/// A `SIZE=` that no integer holds but RFC 1870 §6 allows (20 digits): over any limit, not bad syntax.
fn announces_too_much(params: &str) -> bool {
    params.split([' ', '\t']).filter_map(|word| word.split_once('=')).any(|(key, value)| {
        key.eq_ignore_ascii_case("SIZE")
            && (19..=20).contains(&value.len())
            && value.bytes().all(|b| b.is_ascii_digit())
            && value.parse::<i64>().is_err()
    })
}

fn mail_params(text: &str) -> Result<MailParams, Reply> {
    if text.is_empty() {
        return Ok(MailParams::default());
    }
    if announces_too_much(text) {
        return Ok(MailParams { size: u64::MAX, ..MailParams::default() });
    }
    let line = with_line_end(text);
    let mut bytes = line.iter();
    let given = Rfc5321Parser::new(&mut bytes)
        .mail_from_parameters(Cow::Borrowed(""))
        .map_err(|e| param_error(e, MAIL_SYNTAX))?;
    let known = MAIL_BODY_8BITMIME | smtp_proto::MAIL_BODY_7BIT | MAIL_RET_FULL | MAIL_RET_HDRS | MAIL_SMTPUTF8;
    if given.flags & MAIL_BODY_BINARYMIME != 0 {
        return Err(Reply::new(555, "5.5.4", "BODY=BINARYMIME is not offered"));
    }
    if given.flags & !known != 0
        || given.by != 0
        || given.hold_for != 0
        || given.hold_until != 0
        || given.trans_id.is_some()
        || given.solicit.is_some()
        || given.mtrk.is_some()
    {
        return Err(Reply::new(555, "5.5.4", "A parameter of an extension that is not offered"));
    }
    let ret = match (given.flags & MAIL_RET_FULL != 0, given.flags & MAIL_RET_HDRS != 0) {
        (true, true) => return Err(bad_param("RET")),
        (true, false) => Some(Ret::Full),
        (false, true) => Some(Ret::Headers),
        (false, false) => None,
    };
    if given.env_id.as_deref().is_some_and(|id| !is_printable(id)) {
        return Err(bad_param("ENVID"));
    }
    let priority = i8::try_from(given.mt_priority).ok().filter(|p| (-9..=9).contains(p));
    Ok(MailParams {
        size: given.size as u64,
        body: if given.flags & MAIL_BODY_8BITMIME != 0 { BodyKind::EightBitMime } else { BodyKind::SevenBit },
        smtputf8: given.flags & MAIL_SMTPUTF8 != 0,
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

fn rcpt_params(text: &str) -> Result<RcptParams, Reply> {
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
fn decode_xtext(coded: &str) -> Option<String> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(line: &str) -> Result<Command<'_>, Bad> {
        Command::parse(line.as_bytes())
    }

    fn code(line: &[u8]) -> u16 {
        match Command::parse(line) {
            Err(Bad::Refuse(reply) | Bad::Close(reply)) => reply.code,
            Ok(command) => panic!("{command:?}"),
        }
    }

    #[test]
    fn a_priority_of_0_that_was_said_is_not_one_that_was_not() {
        for (text, expected) in
            [("", None), ("MT-PRIORITY=0", Some(0)), ("SIZE=1 mt-priority=0", Some(0)), ("ENVID=MT-PRIORITY", None)]
        {
            assert_eq!(mail_params(text).unwrap().priority, expected, "{text}");
        }
    }

    #[test]
    fn takes_paths_as_legacy_clients_write_them() {
        for line in [
            "MAIL FROM:<a@b.example>",
            "mail from: <a@b.example>",
            "MAIL FROM:a@b.example",
            "MAIL From : <a@b.example> ",
            "MAIL\tFROM:< a@b.example >",
            "MAIL FROM:a@b.example SIZE=0",
        ] {
            assert_eq!(parse(line), Ok(Command::Mail("a@b.example", MailParams::default())), "{line}");
        }
        assert_eq!(parse("MAIL FROM:<>"), Ok(Command::Mail("", MailParams::default())));
        assert_eq!(parse("RCPT TO:<\"a> b\"@c>"), Ok(Command::Rcpt("\"a> b\"@c", RcptParams::default())));
        for line in
            ["MAIL FROM:", "MAIL FROM", "MAIL", "MAIL FROM:<a@b", "MAIL FROM:<a@b>x", "RCPT FROM:<a@b>", "RCPT TO:a b"]
        {
            assert!(matches!(parse(line), Err(Bad::Refuse(_))), "{line}");
        }
    }

    #[test]
    fn takes_the_parameters_of_what_is_announced() {
        let Ok(Command::Mail(_, params)) =
            parse("MAIL FROM:<a@b>  SIZE=12 BODY=8bitmime smtputf8 RET=HDRS ENVID=a+2Bb MT-PRIORITY=-3 AUTH=<>")
        else {
            panic!("refused")
        };
        assert_eq!(
            params,
            MailParams {
                size: 12,
                body: BodyKind::EightBitMime,
                smtputf8: true,
                ret: Some(Ret::Headers),
                envid: Some("a+b".into()),
                priority: Some(-3)
            }
        );
        let Ok(Command::Rcpt(_, params)) = parse("RCPT TO:<a@b> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;x+40y") else {
            panic!("refused")
        };
        assert!(params.notify.given && params.notify.success && params.notify.delay && !params.notify.failure);
        assert_eq!(params.orcpt, Some(Orcpt { kind: "rfc822".into(), address: "x@y".into() }));
        assert!(parse("RCPT TO:<a@b> ORCPT=utf-8;ü@example").is_ok());
    }

    #[test]
    fn a_size_of_twenty_digits_is_a_size() {
        for text in ["99999999999999999999", "18446744073709551615", "9223372036854775808"] {
            let line = format!("MAIL FROM:<a@b> SIZE={text} BODY=8BITMIME");
            assert!(matches!(parse(&line), Ok(Command::Mail(_, params)) if params.size == u64::MAX), "{text}");
        }
        assert!(matches!(parse("MAIL FROM:<a@b> SIZE=9223372036854775807"),
            Ok(Command::Mail(_, params)) if params.size == i64::MAX as u64));
    }

    #[test]
    fn refuses_other_parameters() {
        for (line, expected) in [
            ("MAIL FROM:<a@b> FOO=1", 555),
            ("MAIL FROM:<a@b> FOO", 555),
            ("MAIL FROM:<a@b> BODY=BINARYMIME", 555),
            ("MAIL FROM:<a@b> REQUIRETLS", 555),
            ("MAIL FROM:<a@b> HOLDFOR=9", 555),
            ("MAIL FROM:<a@b> BY=9;R", 555),
            ("MAIL FROM:<a@b> SIZE=x", 501),
            ("MAIL FROM:<a@b> MT-PRIORITY=10", 501),
            ("MAIL FROM:<a@b> RET=FULL RET=HDRS", 501),
            ("MAIL FROM:<a@b> ENVID=a+0D+0Ab", 501),
            ("RCPT TO:<a@b> NOTIFY=NEVER,SUCCESS", 501),
            ("RCPT TO:<a@b> NOTIFY=", 501),
            ("RCPT TO:<a@b> ORCPT=rfc822;a+0Ab", 501),
            ("RCPT TO:<a@b> ORCPT=rfc822;a+4", 501),
            ("RCPT TO:<a@b> ORCPT=x", 501),
            ("RCPT TO:<a@b> SIZE=1", 555),
        ] {
            assert_eq!(code(line.as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn tells_commands_from_noise() {
        assert_eq!(parse("NOOP what ever"), Ok(Command::Noop));
        assert_eq!(parse("quit "), Ok(Command::Quit));
        assert_eq!(parse("BDAT 10 last"), Ok(Command::Bdat { size: 10, last: true }));
        assert_eq!(parse("BDAT 0"), Ok(Command::Bdat { size: 0, last: false }));
        assert_eq!(parse("EHLO _junk!"), Ok(Command::Ehlo("_junk!")));
        for line in
            ["GET / HTTP/1.1", "POST / HTTP/1.1", "Host: localhost", "Subject:x", "BDAT x", "BDAT 1 2", "BDAT -1"]
        {
            assert!(matches!(parse(line), Err(Bad::Close(_))), "{line}");
        }
        for (line, expected) in [
            (&b"HELO"[..], 501),
            (b"QUIT now", 501),
            (b"RSET x", 501),
            (b"DATA x", 501),
            (b"", 500),
            (b"FOO", 500),
            (b"NOOP \xff\xfe", 500),
            (b"NOOP \0", 500),
            (b"MAIL FROM:<a\rb@c>", 500),
        ] {
            assert_eq!(code(line), expected, "{}", line.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_command_or_refused(line in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Command::parse(&line);
        }

        #[test]
        fn any_parameters_are_taken_or_refused(params in "( [A-Z-]{1,10}=?[ -~]{0,12}){0,4}") {
            let _ = parse(&format!("MAIL FROM:<a@b>{params}"));
            let _ = parse(&format!("RCPT TO:<a@b>{params}"));
        }
    }
}
