//! `mailweir passwd`: the hash of a password for a `[[user]]`, or a line for the file of `users`.
//!
//! The password is never an argument, which others could see: it is asked for on a terminal, without an echo, or
//! is the first line of standard input.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use clap::Args;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use super::{Code, Failed, Outcome, screen};
use crate::config::{MAX_PASSWORD, StoredPassword};

#[derive(Args, Debug)]
pub(super) struct Passwd {
    /// Name of the user: makes a line NAME:HASH for the file of `users`
    name: Option<String>,
    /// Make keys of SCRAM-SHA-256 instead of a hash of Argon2id: for clients that log in by SCRAM. Easier to guess
    /// for who gets hold of them
    #[arg(long)]
    scram: bool,
}

pub(super) fn passwd(args: &Passwd) -> Outcome {
    if let Some(name) = &args.name {
        let fits = |c: char| !c.is_control() && !c.is_whitespace() && c != ':';
        if name.is_empty() || !name.chars().all(fits) {
            return Err(Failed::new(Code::Usage, "a name has no spaces and no colons"));
        }
    }
    let password = if io::stdin().is_terminal() { asked()? } else { first_line()? };
    let made = if args.scram { StoredPassword::scram(&password) } else { StoredPassword::hash(&password) };
    let hash = made.map_err(|e| Failed::new(Code::Data, e))?;
    let name = args.name.as_ref().map(|name| format!("{name}:")).unwrap_or_default();
    writeln!(screen::stdout(), "{name}{hash}")?;
    Ok(())
}

/// Twice, since nobody sees what is typed.
fn asked() -> Result<Zeroizing<String>, Failed> {
    let _silent = Silence::begin()?;
    let ask = |what: &str| -> Result<Zeroizing<String>, Failed> {
        write!(screen::stderr(), "{what}: ")?;
        screen::stderr().flush()?;
        let line = first_line();
        writeln!(screen::stderr())?;
        line
    };
    let (password, again) = (ask("Password")?, ask("Again")?);
    if password != again {
        return Err(Failed::new(Code::Data, "these are two different passwords"));
    }
    Ok(password)
}

fn first_line() -> Result<Zeroizing<String>, Failed> {
    let mut line = Zeroizing::new(String::with_capacity(MAX_PASSWORD + 2));
    let most = MAX_PASSWORD as u64 + 2;
    let read = io::Read::take(io::stdin().lock(), most).read_line(&mut line);
    read.map_err(|e| Failed::new(Code::Data, format!("cannot read the password: {e}")))?;
    let end = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(end);
    Ok(line)
}

/// A terminal that does not show what is typed, until this is dropped.
struct Silence(rustix::termios::Termios);

impl Silence {
    fn begin() -> Result<Silence, Failed> {
        let failed = |e| Failed::new(Code::Temporary, format!("cannot switch off the echo of the terminal: {e}"));
        let before = tcgetattr(io::stdin()).map_err(failed)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent).map_err(failed)?;
        Ok(Silence(before))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}
