//! What `sendmail` is asked for besides taking a message: to speak SMTP, to say whether an address is
//! good, to list the queue and to try it again, to look at the aliases.

use std::io::{self, Read, Write};

use super::connection::Raw;
use super::hand_over::{self, Parcel, Trouble};
use super::{server, with_note};
use crate::cli::connect::{Lead, running};
use crate::cli::screen::{self, shown};
use crate::cli::{Code, Failed, Outcome, block_on, control, queue as queue_command};
use crate::config::{AliasFile, Submission};

const HELP: &str = "\
Hands a message to mailweir, as sendmail does: from standard input, to the recipients that are named.

Usage: mailweir send [OPTIONS] [RECIPIENT...]     (or a link to mailweir called `sendmail`)

  -t             recipients from To, Cc and Bcc too
  -f, -r SENDER  envelope sender; \"\" or <> for none [default: the user]
  -F NAME        full name, for a From field where the message has none
  -i, -oi        a line with a single dot is content (as `mailweir send` it always is)
  -v             print the queue id
  -N, -R, -V     NOTIFY, RET and ENVID of delivery reports
  -C FILE        configuration file, also --config
  --file FILE    the message, instead of standard input
  -bs            speak SMTP on standard input and output
  -bv            say whether the recipients would be taken
  -bp, mailq     list the queue; -q: try what is queued again
  -bi            newaliases: look at the aliases, and let the relay read them

Other options of sendmail are taken and have no effect. Exit codes: 0; 64 usage; 65 the header;
67 a recipient would be refused (-bv); 69 refused; 75 nothing was queued, try again; 78 the configuration.
";

/// `--help`.
pub(super) fn help() -> Outcome {
    Ok(io::stdout().write_all(HELP.as_bytes())?)
}

/// What the relay itself does, or nobody.
pub(super) fn not_here(letter: char) -> Outcome {
    let what = match letter {
        'd' | 'D' | 'l' => "the relay listens itself: start it with `mailweir run`",
        't' => "there are no rules to test: `mailweir explain ADDRESS` tells where mail would go",
        _ => "mailweir has no such mode",
    };
    Err(Failed::new(Code::Usage, format!("-b{letter}: {what}")))
}

/// `-bs`: the dialog of the relay itself, on standard input and output.
pub(super) fn speak(site: &Submission) -> Outcome {
    let server = server(site)?;
    let connect = || Raw::open(server.address).map_err(|e| Trouble::Later(e.to_string()));
    let mut stream = match hand_over::patiently(site.sendmail.wait, connect) {
        Ok(stream) => stream,
        Err(trouble) => {
            let why = trouble.to_string();
            io::stdout().write_all(b"421 4.3.2 mailweir is not running, try again later\r\n")?;
            let message = with_note(site, format!("mailweir does not answer at {}: {why}", server.address));
            return Err(Failed::new(Code::Temporary, message));
        }
    };
    let mut to_relay = stream.try_clone()?;
    // Ends with the process: it may wait for input that never comes.
    std::thread::spawn(move || {
        let _ = io::copy(&mut LineEnds::new(io::stdin().lock()), &mut to_relay);
        let _ = to_relay.end();
    });
    let (mut out, mut buffer) = (io::stdout().lock(), [0; 4096]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => {
                out.write_all(buffer.get(..n).unwrap_or_default())?;
                out.flush()?;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Failed::new(Code::Temporary, format!("the relay has gone: {e}"))),
        }
    }
}

/// What a program says by `-bs`. Some end all lines with LF, as text on this system has it, which the relay
/// does not take: whoever ends the first line so means CRLF by it. In what others say an LF stays what it is.
struct LineEnds<R> {
    from: R,
    /// Set by the first line end.
    lf_only: Option<bool>,
    /// The last byte was a CR.
    cr: bool,
    /// Made, and not yet taken.
    made: Vec<u8>,
    taken: usize,
}

impl<R: Read> LineEnds<R> {
    fn new(from: R) -> LineEnds<R> {
        LineEnds { from, lf_only: None, cr: false, made: Vec::new(), taken: 0 }
    }

    fn make(&mut self, said: &[u8]) {
        for byte in said {
            if *byte == b'\n' {
                let bare = !std::mem::take(&mut self.cr);
                if bare && *self.lf_only.get_or_insert(bare) {
                    self.made.push(b'\r');
                }
                self.lf_only.get_or_insert(bare);
            }
            self.cr = *byte == b'\r';
            self.made.push(*byte);
        }
    }
}

impl<R: Read> Read for LineEnds<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.made.len() {
            let mut said = [0; 4096];
            let read = self.from.read(&mut said)?;
            (self.taken, self.made) = (0, Vec::with_capacity(2 * read));
            self.make(said.get(..read).unwrap_or_default());
        }
        let left = self.made.get(self.taken..).unwrap_or_default();
        let some = left.len().min(buffer.len());
        buffer[..some].copy_from_slice(&left[..some]);
        self.taken += some;
        Ok(some)
    }
}

/// `-bv`: whether the relay would take each recipient. No more is known before it is sent: what the host of a
/// recipient takes it says to a message only.
pub(super) fn verify(site: &Submission, parcel: &Parcel) -> Outcome {
    if parcel.recipients.is_empty() {
        return Err(Failed::new(Code::Usage, "-bv: whom? Name the recipients that are to be looked at"));
    }
    let server = server(site)?;
    let answers = match hand_over::verify(&server, parcel) {
        Ok(answers) => answers,
        Err(Trouble::Refused(message)) => return Err(Failed::new(Code::Unavailable, message)),
        Err(trouble) => return Err(Failed::new(Code::Temporary, with_note(site, trouble.to_string()))),
    };
    let mut out = screen::stdout();
    let (mut never, mut later) = (0, 0);
    for (recipient, answer) in &answers {
        match answer {
            Ok(()) => writeln!(out, "{recipient}... deliverable: mailweir would take it")?,
            Err(Trouble::Refused(why)) => {
                never += 1;
                writeln!(out, "{recipient}... undeliverable: {}", shown(why))?;
            }
            Err(why) => {
                later += 1;
                writeln!(out, "{recipient}... not now: {}", shown(&why.to_string()))?;
            }
        }
    }
    let all = answers.len();
    match (never, later) {
        (0, 0) => Ok(()),
        (0, later) => Err(Failed::new(Code::Temporary, format!("{later} of {all} recipients would not be taken now"))),
        (never, _) => Err(Failed::new(Code::NoUser, format!("{never} of {all} recipients would be refused"))),
    }
}

/// A configuration that leads to the relay, and no further.
fn lead(site: &Submission) -> Lead {
    Lead::to(&site.store, site.file.as_deref())
}

/// `mailq`.
pub(super) fn queue(site: &Submission) -> Outcome {
    block_on(queue_command::list_all(&lead(site))).map_err(|failed| match &site.note {
        Some(note) => {
            Failed { message: format!("{} ({note}, so the default queue was looked for)", failed.message), ..failed }
        }
        None => failed,
    })
}

/// `-q`: a relay that runs tries again by itself, so this is only a hint, and no failure if it cannot be given.
pub(super) fn flush(site: &Submission) -> Outcome {
    if let Err(failed) = block_on(queue_command::retry_all(&lead(site))) {
        let message = failed.message.lines().next().unwrap_or_default().to_owned();
        screen::say("sendmail", &message);
    }
    Ok(())
}

/// `newaliases`: there is no database to make, but a file to look at, and a relay that may read it.
pub(super) fn aliases(site: &Submission) -> Outcome {
    let mut out = io::stdout().lock();
    let Some(path) = &site.alias_file else {
        let why = site.note.as_ref().map(|note| format!(" ({note})")).unwrap_or_default();
        return Ok(writeln!(out, "no alias_file is configured: nothing to do{why}")?);
    };
    let file = AliasFile::load(path).map_err(|e| Failed::new(Code::Config, e))?;
    file.check(site.names.clone()).map_err(|e| Failed::new(Code::Config, e))?;
    writeln!(out, "{}: {} aliases", path.display(), file.len())?;
    let lead = lead(site);
    let reloaded = block_on(async {
        match running(&lead).await? {
            Some(_) => control::reload(&lead).await,
            None => Err(Failed::new(Code::Unavailable, "mailweir is not running")),
        }
    });
    if let Err(failed) = reloaded {
        writeln!(out, "not in force yet: {} (`mailweir reload`, or the next start)", failed.message)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(said: &[&[u8]]) -> String {
        let mut rest: Box<dyn Read> = Box::new(io::empty());
        for piece in said.iter().rev() {
            rest = Box::new(piece.chain(rest));
        }
        let mut out = Vec::new();
        LineEnds::new(rest).read_to_end(&mut out).expect("no error");
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn only_a_program_that_ends_its_first_line_with_lf_means_crlf_by_it() {
        assert_eq!(heard(&[b"EHLO x\nMAIL\r", b"\nDATA\n", b".\n"]), "EHLO x\r\nMAIL\r\nDATA\r\n.\r\n");
        let strict: &[&[u8]] = &[b"EHLO x\r", b"\nDATA\r\na\n.\nRSET\r\n"];
        assert_eq!(heard(strict), strict.concat().iter().map(|b| char::from(*b)).collect::<String>());
        assert_eq!(heard(&[b"", b"no end"]), "no end");
    }
}
