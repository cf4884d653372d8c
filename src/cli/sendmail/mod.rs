//! `sendmail`, `mailq`, `newaliases` and `mailweir send`: what local programs call.
//!
//! The same program under other names: a link called `sendmail` that leads to it is enough. Any user
//! may run it; it needs no password and no right but to connect. Silent when all is well, since its
//! output ends up in web pages and in mail from cron; exit codes of sysexits.h.
//!
//! - `arguments`: what was asked. `identity`: who asks. `message`: what is sent. `hand_over`: to the
//!   relay by a `connection`, now or within `[sendmail] wait`; else to the [spool](crate::spool).
//! - `other`: all that is not about a message.

mod arguments;
mod connection;
mod hand_over;
mod identity;
mod message;
mod other;

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};

use lettre::message::header::{From as FromField, Headers};
use lettre::message::{Mailbox, Mailboxes};

use self::arguments::{Mode, Request};
use self::hand_over::{Parcel, Server, Trouble};
use self::identity::Identity;
use self::message::Text;
use super::{Code, Failed, Outcome};
use crate::config::{Search, Submission};
use crate::mail::address_list;
use crate::mail::local::check_local;
use crate::mail::{Address, AddressError, LocalNames, Notify};
use crate::spool::{self, Entry};

/// The name it was called by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Name {
    Sendmail,
    Mailq,
    Newaliases,
    /// `mailweir send`.
    Send,
}

impl Name {
    /// Of the first argument of a process; `None` for `mailweir` itself.
    pub(super) fn of(program: &OsString) -> Option<Name> {
        match Path::new(program).file_name()?.to_str()? {
            "sendmail" => Some(Name::Sendmail),
            "mailq" => Some(Name::Mailq),
            "newaliases" => Some(Name::Newaliases),
            _ => None,
        }
    }

    /// Before each line on standard error.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Name::Sendmail => "sendmail",
            Name::Mailq => "mailq",
            Name::Newaliases => "newaliases",
            Name::Send => "mailweir",
        }
    }
}

/// Does what the arguments ask. `config`: the file that was named before them.
///
/// # Errors
/// With an exit code of sysexits.h.
pub(super) fn run(name: Name, arguments: Vec<OsString>, config: Option<PathBuf>) -> Outcome {
    let text = |argument: OsString| {
        let not_utf8 =
            |a: OsString| Failed::new(Code::Usage, format!("{} is not UTF-8", a.to_string_lossy().escape_debug()));
        argument.into_string().map_err(not_utf8)
    };
    let mut arguments = arguments.into_iter().map(text).collect::<Result<Vec<String>, _>>()?;
    if name == Name::Send {
        // As before every other command of mailweir; to sendmail it means nothing, and a file name would
        // become a recipient.
        let options = arguments.iter_mut().take_while(|a| *a != "--");
        options.filter(|a| *a == "-c").for_each(|a| *a = "-C".into());
    }
    let request = arguments::parse(&arguments).map_err(|e| Failed::new(Code::Usage, format!("{e} (see --help)")))?;
    let mode = match name {
        Name::Mailq => Mode::Queue,
        Name::Newaliases => Mode::Aliases,
        Name::Sendmail | Name::Send => request.mode,
    };
    match mode {
        Mode::Help => return other::help(),
        Mode::Version => return Ok(writeln!(io::stdout(), "mailweir {}", env!("CARGO_PKG_VERSION"))?),
        Mode::NotHere(letter) => return other::not_here(letter),
        _ => {}
    }
    let named = request.config.as_deref().or(config.as_deref());
    let search = match (named, name) {
        (Some(path), _) => Search::Named(path),
        (None, Name::Send) => Search::Here,
        (None, _) => Search::System,
    };
    let mut site = Submission::read(search)?;
    // A listener on another address may be for other hosts only.
    site.servers.sort_by_key(|server| (!server.is_local(), server.path().is_some()));
    match mode {
        Mode::Smtp => other::speak(&site),
        Mode::Verify => other::verify(&site, &parcel(&site, &request, Vec::new())?),
        Mode::Queue => other::queue(&site),
        Mode::Aliases => other::aliases(&site),
        Mode::Flush => other::flush(&site),
        _ => deliver(name, &site, &request),
    }
}

/// Takes a message and gives it to the relay.
fn deliver(name: Name, site: &Submission, request: &Request) -> Outcome {
    if request.recipients.is_empty() && !request.header_recipients {
        return Err(Failed::new(Code::Usage, "to whom? Name recipients, or -t to take them from the message"));
    }
    let mut given = parcel(site, request, Vec::new())?;
    // Who sends with `mailweir send` has a file or a pipe, and a dot in it is content.
    let dots_end = name == Name::Sendmail && !request.ignore_dots && request.file.is_none();
    let mut text = Text::new(&read(request, dots_end, site.max_message_size)?);
    if request.header_recipients {
        let listed = text.recipients().map_err(|e| Failed::new(Code::Data, format!("nothing was queued: {e}")))?;
        for one in listed {
            given.recipients.push(path(&one, Code::Data)?);
        }
    }
    let mut seen = HashSet::new();
    given.recipients.retain(|r| seen.insert(r.clone()));
    if given.recipients.is_empty() {
        return Err(Failed::new(Code::Usage, "the message has no recipients in To, Cc or Bcc"));
    }
    text.add_from(&from_field(&site.names, request, &given.sender)?);
    text.complete_addresses(site.names.default_domain());
    given.content = text.into_bytes();
    let said = submit(site, &given)?;
    if request.verbose {
        writeln!(io::stdout(), "{said}")?;
    }
    Ok(())
}

/// Gives it to the relay, or leaves it in the spool; returns the queue ids, or the name in the spool.
fn submit(site: &Submission, parcel: &Parcel) -> Result<String, Failed> {
    let server = server(site)?;
    let (mut rest, mut fewer) = (parcel.clone(), false);
    loop {
        match submit_once(site, &server, &rest) {
            Ok(reply) => return Ok(hand_over::queue_ids(&reply).unwrap_or(reply)),
            // Only those who are left, so that nobody gets it twice.
            Err(Trouble::Partly { left, why }) if left.len() < rest.recipients.len() && is_worth_a_try(&why) => {
                (rest.recipients, fewer) = (left, true);
            }
            Err(trouble) => {
                let (code, message) = told(site, trouble);
                let part =
                    format!("it is queued for some of the recipients, but not for {}", rest.recipients.join(", "));
                return Err(Failed::new(code, if fewer { format!("{part}: {message}") } else { message }));
            }
        }
    }
}

/// Not where the answer may have been lost on the way.
fn is_worth_a_try(why: &Trouble) -> bool {
    matches!(why, Trouble::Later(_) | Trouble::Refused(_))
}

fn told(site: &Submission, trouble: Trouble) -> (Code, String) {
    match trouble {
        Trouble::Refused(message) => (Code::Unavailable, message),
        Trouble::Unknown(message) => (Code::Temporary, message),
        Trouble::Later(message) => (Code::Temporary, with_note(site, message)),
        Trouble::Partly { left, why } => {
            let (code, message) = told(site, *why);
            (code, format!("it is queued for some of the recipients, but not for {}: {message}", left.join(", ")))
        }
    }
}

fn submit_once(site: &Submission, server: &Server<'_>, parcel: &Parcel) -> Result<String, Trouble> {
    let wait = site.sendmail.wait;
    let Some(spool) = &site.sendmail.spool else { return hand_over::with_patience(server, parcel, wait) };
    let why = match hand_over::once(server, parcel) {
        Err(Trouble::Later(why)) => why,
        done => return done,
    };
    match spool::leave(spool, &entry(parcel), &parcel.content) {
        Ok(name) => Ok(format!("in the spool as {}", name.to_string_lossy())),
        Err(error) => hand_over::with_patience(server, parcel, wait).map_err(|trouble| match trouble {
            Trouble::Later(_) => Trouble::Later(format!("{why}; nor can it wait in {}: {error}", spool.display())),
            other => other,
        }),
    }
}

/// Where the relay takes clear text.
fn server(site: &Submission) -> Result<Server<'_>, Failed> {
    let address = site.servers.first().ok_or_else(|| {
        let message =
            "every listener wants TLS or a login, which `send` does not speak: give it a [[listener]] on loopback without";
        Failed::new(Code::Config, message)
    })?;
    Ok(Server { address, hostname: &site.hostname })
}

/// A message, and why the configuration had no say, where that may be the reason.
fn with_note(site: &Submission, message: String) -> String {
    match &site.note {
        Some(note) => format!("{message} ({note}, so the default address was tried)"),
        None => message,
    }
}

fn entry(parcel: &Parcel) -> Entry {
    let notify = parcel.notify.as_deref().map_or_else(Notify::default, |given| Notify {
        given: true,
        success: given.contains("SUCCESS"),
        failure: given.contains("FAILURE"),
        delay: given.contains("DELAY"),
    });
    Entry {
        sender: parcel.sender.clone(),
        recipients: parcel.recipients.clone(),
        notify,
        ret: parcel.ret,
        envid: parcel.envid.clone(),
        size: parcel.content.len() as u64,
    }
}

/// The envelope, as far as the arguments say it.
fn parcel(site: &Submission, request: &Request, content: Vec<u8>) -> Result<Parcel, Failed> {
    let envid = request.envid.clone();
    if envid.as_ref().is_some_and(|id| id.len() > 100 || !id.bytes().all(|b| matches!(b, b' '..=b'~'))) {
        let message = "the envelope id of -V has more than 100 characters, or others than printable ASCII";
        return Err(Failed::new(Code::Usage, message));
    }
    Ok(Parcel {
        sender: sender(&site.names, request.sender.as_deref())?,
        recipients: recipients(&request.recipients)?,
        notify: request.notify.clone(),
        ret: request.ret,
        envid,
        content,
    })
}

/// The addresses of the arguments, each of which may be a list.
fn recipients(arguments: &[String]) -> Result<Vec<String>, Failed> {
    let mut found = Vec::new();
    for argument in arguments {
        let list = address_list::parse(argument.as_bytes()).map_err(|e| Failed::new(Code::Usage, e))?;
        for listed in list {
            found.push(path(&listed.text, Code::Usage)?);
        }
    }
    Ok(found)
}

/// What may stand between angle brackets: an address, or a local name.
fn path(text: &str, code: Code) -> Result<String, Failed> {
    // What other mailers take for a file or a command, and what a mistake in the options looks like.
    if text.starts_with(['/', '|']) && !text.contains('@') {
        let message = format!("`{}` is a file or a command: a relay delivers to addresses only", text.escape_debug());
        return Err(Failed::new(code, message));
    }
    match Address::parse(text) {
        Ok(address) => Ok(address.to_string()),
        Err(AddressError::NoDomain) => check_local(text).map(|()| text.to_owned()),
        Err(error) => Err(error),
    }
    .map_err(|e| Failed::new(code, format!("`{}`: {e}", text.escape_debug())))
}

/// The reverse-path: as given, else that of the user.
fn sender(names: &LocalNames, given: Option<&str>) -> Result<String, Failed> {
    match given.map(str::trim) {
        Some("" | "<>") => Ok(String::new()),
        Some(text) => {
            let list = address_list::parse(text.as_bytes()).map_err(|e| Failed::new(Code::Usage, e))?;
            match list.as_slice() {
                [one] => path(&one.text, Code::Usage),
                _ => Err(Failed::new(Code::Usage, format!("`{}`: expected one sender", text.escape_debug()))),
            }
        }
        None => path(&format!("{}@{}", Identity::of_process().local_part, names.default_domain()), Code::Config),
    }
}

/// The field for a message that has none: the sender, and the full name of -F or of the user.
fn from_field(names: &LocalNames, request: &Request, sender: &str) -> Result<String, Failed> {
    let path = if sender.is_empty() { "MAILER-DAEMON" } else { sender };
    let address = names.qualify(path).map_err(|e| Failed::new(Code::Usage, format!("`{path}`: {e}")))?;
    let name = match (&request.full_name, &request.sender) {
        (Some(name), _) => name.trim().to_owned(),
        (None, None) => Identity::of_process().full_name,
        // The user's own name belongs to the user's own address.
        (None, Some(_)) => String::new(),
    };
    let name = Some(name.chars().filter(|c| !c.is_control()).collect::<String>()).filter(|name| !name.is_empty());
    let mut headers = Headers::new();
    headers.set(FromField::from(Mailboxes::new().with(Mailbox::new(name, address.to_lettre()))));
    Ok(headers.to_string())
}

/// Reads the message; one byte more than the relay takes is enough to know that it is too large.
fn read(request: &Request, dots_end: bool, max: u64) -> Result<Vec<u8>, Failed> {
    let raw = match &request.file {
        Some(path) => {
            let cannot = |e: io::Error| Failed::new(Code::Unavailable, format!("cannot read {}: {e}", path.display()));
            let mut file = BufReader::new(std::fs::File::open(path).map_err(cannot)?);
            message::read(&mut file, false, max).map_err(cannot)?
        }
        None => message::read(&mut io::stdin().lock(), dots_end, max)?,
    };
    if raw.len() as u64 > max {
        let message = format!("the message is larger than max_message_size, {max} bytes: nothing was queued");
        return Err(Failed::new(Code::Unavailable, message));
    }
    Ok(raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(arguments: &[&str]) -> String {
        let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
        let request = arguments::parse(&arguments).expect("arguments");
        let names = LocalNames::new("h.example", "corp.example");
        let sender = sender(&names, request.sender.as_deref()).unwrap_or_else(|e| panic!("{}", e.message));
        from_field(&names, &request, &sender).unwrap_or_else(|e| panic!("{}", e.message))
    }

    #[test]
    fn the_field_from_says_who_sends() {
        for (arguments, field) in [
            (&["-f", "a@b.example"][..], "From: a@b.example\r\n"),
            (&["-f", "Jo <a@b.example>"], "From: a@b.example\r\n"),
            (&["-froot", "-F", "Cron Daemon"], "From: \"Cron Daemon\" <root@corp.example>\r\n"),
            (&["-f", "a@b.example", "-F", "J\u{f6}"], "From: =?utf-8?b?SsO2?= <a@b.example>\r\n"),
            (&["-f", "<>"], "From: MAILER-DAEMON@corp.example\r\n"),
            (&["-f", "a@b.example", "-F", "x\r\nBcc: c@d"], "From: =?utf-8?b?eEJjYzogY0Bk?= <a@b.example>\r\n"),
        ] {
            assert_eq!(from(arguments), field, "{arguments:?}");
        }
    }

    #[test]
    fn no_address_can_carry_a_second_command() {
        for bad in [
            "a@b\r\nRCPT TO:<c@d>",
            "@x\r\nRSET:a@b",
            "a b",
            "a>b",
            "root\n",
            "\"open",
            "x@",
            "@y",
            "a@b c@d",
            "/tmp/box",
            "|/bin/sh",
        ] {
            // A line end that only folds a list is none of an address.
            let list = recipients(&[bad.to_owned()]).ok();
            let wanted = (bad == "root\n").then(|| vec!["root".to_owned()]);
            assert_eq!(list, wanted, "{bad:?}");
        }
        assert_eq!(recipients(&["a@b, root".to_owned()]).ok(), Some(vec!["a@b".to_owned(), "root".to_owned()]));
        // An old source route only where it can be told from a group.
        assert_eq!(recipients(&["<@r.example:a@b>".to_owned()]).ok(), Some(vec!["a@b".to_owned()]));
    }

    #[test]
    fn names_of_links() {
        let of = |name: &str| Name::of(&OsString::from(name));
        assert_eq!(of("/usr/sbin/sendmail"), Some(Name::Sendmail));
        assert_eq!(of("mailq"), Some(Name::Mailq));
        assert_eq!(of("./newaliases"), Some(Name::Newaliases));
        assert_eq!((of("mailweir"), of("sendmail.sh"), of("")), (None, None, None));
    }
}
