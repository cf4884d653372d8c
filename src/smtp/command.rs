//! Commands as clients send them (RFC 5321 §4.1.1), made whole where legacy clients cut corners.
//!
//! The verb and the path are parsed here, because a parser that goes by the book refuses what
//! Postfix has taken for decades: a space after the colon, no angle brackets, trailing spaces (`path`).
//! The ESMTP parameters behind the path are left to smtp-proto (`params`).

mod params;
mod path;
pub mod proxied;

use std::fmt;

use super::Reply;
pub use params::{MailParams, RcptParams};
use params::{mail_params, rcpt_params};
use path::path;
use proxied::Proxied;

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
    /// AUTH, with what follows.
    Auth(Words<'a>),
    /// ETRN (RFC 1985).
    Etrn,
    /// XCLIENT.
    XClient(Box<Proxied>),
    /// XFORWARD.
    XForward(Box<Proxied>),
}

/// Words that may be a password: never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Words<'a>(pub &'a str);

impl fmt::Debug for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
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
/// Of version 2 the third line is a NUL (HAProxy's `proxy-protocol.txt`).
const PROXY_HEADER: Reply =
    Reply::new(421, "4.7.0", "No PROXY header is taken from this address (proxy_from); closing connection");
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
            return Err(if line == b"\0" { Bad::Close(PROXY_HEADER) } else { JUNK.into() });
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
            Ok(Command::Auth(Words(rest)))
        } else if is("ETRN") {
            Ok(Command::Etrn)
        } else if is("XCLIENT") {
            Ok(Command::XClient(Box::new(Proxied::parse(rest, proxied::XCLIENT)?)))
        } else if is("XFORWARD") {
            Ok(Command::XForward(Box::new(Proxied::parse(rest, proxied::XFORWARD)?)))
        } else if is("PROXY") {
            Err(Bad::Close(PROXY_HEADER))
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use crate::smtp::parameters::{BodyKind, Hold, Orcpt, Ret};
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
        let Ok(Command::Mail(_, params)) = parse(
            "MAIL FROM:<a@b>  SIZE=12 BODY=8bitmime smtputf8 RET=HDRS ENVID=a+2Bb MT-PRIORITY=-3 RequireTLS AUTH=<>",
        ) else {
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
                priority: Some(-3),
                hold: None,
                require_tls: true,
            }
        );
        // Bytes, not characters: whatever they mean to the client, the next host gets the same.
        let Ok(Command::Mail(_, bytes)) = parse("MAIL FROM:<a@b> ENVID=+FF+c3+9f") else { panic!("refused") };
        assert_eq!(bytes.envid.as_deref(), Some("\u{ff}\u{c3}\u{9f}"));
        let Ok(Command::Rcpt(_, params)) = parse("RCPT TO:<a@b> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;x+40y") else {
            panic!("refused")
        };
        assert!(params.notify.given && params.notify.success && params.notify.delay && !params.notify.failure);
        assert_eq!(params.orcpt, Some(Orcpt { kind: "rfc822".into(), address: "x@y".into() }));
        assert!(parse("RCPT TO:<a@b> ORCPT=utf-8;ü@example").is_ok());
    }

    #[test]
    fn the_time_to_leave_is_a_span_or_a_date() {
        for (text, expected) in [
            ("HOLDFOR=86400", Some(Hold::For(Duration::from_secs(86_400)))),
            ("holduntil=2026-12-01T10:00:00Z SIZE=9", Some(Hold::Until(1_796_119_200))),
            ("HOLDUNTIL=2026-12-01T11:00:00+01:00", Some(Hold::Until(1_796_119_200))),
            ("SIZE=9", None),
        ] {
            let line = format!("MAIL FROM:<a@b> {text}");
            assert!(matches!(parse(&line), Ok(Command::Mail(_, params)) if params.hold == expected), "{text}");
        }
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
            ("MAIL FROM:<a@b> BODY=BINARYMIME BODY=8BITMIME", 501),
            ("MAIL FROM:<a@b> BODY=BINARY", 501),
            ("MAIL FROM:<a@b> REQUIRETLS=1", 501),
            ("MAIL FROM:<a@b> REQUIRETLS= SIZE=1", 501),
            ("MAIL FROM:<a@b> REQUIRETLSX", 555),
            ("MAIL FROM:<a@b> HOLDFOR=0", 501),
            ("MAIL FROM:<a@b> HOLDFOR=99999999999999999999999", 501),
            ("MAIL FROM:<a@b> HOLDFOR=1000000000", 501),
            ("MAIL FROM:<a@b> HOLDFOR=3600 HOLDFOR=1", 501),
            ("MAIL FROM:<a@b> HOLDUNTIL=2026-02-30T10:00:00Z", 501),
            ("MAIL FROM:<a@b> HOLDUNTIL=2026-11-31T10:00:00Z", 501),
            ("MAIL FROM:<a@b> HOLDUNTIL=2026-12-01", 501),
            ("MAIL FROM:<a@b> HOLDFOR=9 HOLDUNTIL=2026-12-01T10:00:00Z", 501),
            ("MAIL FROM:<a@b> BY=9;R", 555),
            ("MAIL FROM:<a@b> SIZE=x", 501),
            ("MAIL FROM:<a@b> MT-PRIORITY=10", 501),
            ("MAIL FROM:<a@b> RET=FULL RET=HDRS", 501),
            ("MAIL FROM:<a@b> ENVID=\u{ff}", 501),
            ("MAIL FROM:<a@b> ENVID=a+7F", 501),
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
