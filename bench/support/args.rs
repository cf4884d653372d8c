//! Arguments of the measuring programs: `--name value`, `--name`, and nothing else.
//!
//! An argument that the program does not know ends it: a typing error must not become a
//! measurement of something else. Cargo's own `--bench` is skipped.

use std::io;
use std::str::FromStr;

/// What was given.
pub struct Args {
    given: Vec<String>,
    usage: &'static str,
}

impl Args {
    /// Takes the arguments of the process; with `--help` prints `usage` and ends the program.
    pub fn of_process(usage: &'static str) -> Args {
        let given: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
        if given.iter().any(|arg| arg == "--help" || arg == "-h") {
            println!("{usage}");
            std::process::exit(0);
        }
        Args { given, usage }
    }

    /// Takes the flag `name`.
    pub fn flag(&mut self, name: &str) -> bool {
        let before = self.given.len();
        self.given.retain(|arg| arg != name);
        self.given.len() < before
    }

    /// Takes `name` and the value behind it.
    pub fn value<T: FromStr>(&mut self, name: &str) -> io::Result<Option<T>> {
        let Some(at) = self.given.iter().position(|arg| arg == name) else { return Ok(None) };
        if at + 1 >= self.given.len() {
            return Err(self.wrong(&format!("{name} needs a value")));
        }
        let value = self.given.remove(at + 1);
        self.given.remove(at);
        value.parse().map(Some).map_err(|_| self.wrong(&format!("{name} cannot be {value}")))
    }

    /// Takes `name` and its value, or the default.
    pub fn value_or<T: FromStr>(&mut self, name: &str, default: T) -> io::Result<T> {
        Ok(self.value(name)?.unwrap_or(default))
    }

    /// Nothing may be left.
    pub fn end(self) -> io::Result<()> {
        match self.given.first() {
            None => Ok(()),
            Some(arg) => Err(self.wrong(&format!("unknown argument {arg}"))),
        }
    }

    fn wrong(&self, what: &str) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{what}\n{}", self.usage))
    }
}
