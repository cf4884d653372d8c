//! The command line: arguments, exit codes, and one file for each command.
//!
//! Exit codes (sysexits.h): 0; 64 wrong usage; 69 unavailable: mailweir is not running, or refuses;
//! 75 temporary: try again; 78 the configuration is wrong. Results go to standard output, all else
//! to standard error.

mod backup;
mod check;
pub mod connect;
mod control;
mod explain;
mod provider;
mod queue;
mod run;
pub mod screen;
mod send;
mod simulate;
mod sink;
pub mod text;

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{ConfigError, Loaded};

/// How a command ends, if not well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Code {
    /// EX_USAGE.
    Usage = 64,
    /// EX_UNAVAILABLE.
    Unavailable = 69,
    /// EX_TEMPFAIL.
    Temporary = 75,
    /// EX_CONFIG.
    Config = 78,
}

/// Why a command did not work, and the exit code that says so.
#[derive(Debug)]
pub struct Failed {
    /// Exit code.
    pub code: Code,
    /// For standard error; empty if all is said.
    pub message: String,
    /// The reader of standard output is gone (`| head`): no failure at all.
    pub broken_pipe: bool,
}

impl Failed {
    fn new(code: Code, message: impl fmt::Display) -> Failed {
        Failed { code, message: message.to_string(), broken_pipe: false }
    }
}

/// Trouble with standard output or the control socket.
impl From<io::Error> for Failed {
    fn from(e: io::Error) -> Failed {
        let broken_pipe = e.kind() == io::ErrorKind::BrokenPipe;
        Failed { code: Code::Temporary, message: e.to_string(), broken_pipe }
    }
}

impl From<ConfigError> for Failed {
    fn from(e: ConfigError) -> Failed {
        Failed::new(Code::Config, e)
    }
}

type Outcome = Result<(), Failed>;

/// An SMTP relay proxy with a durable queue and outbound rate shaping.
#[derive(Parser, Debug)]
#[command(name = "mailweir", version, max_term_width = 100)]
pub struct Cli {
    /// Configuration file [default: config.toml in the working directory if there is one, else
    /// built-in values]
    #[arg(long, short = 'c', value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the relay (the default)
    Run,
    /// Check the configuration and print what holds, with where each value came from
    Check {
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Look at the queue, and change it
    #[command(subcommand)]
    Queue(queue::QueueCommand),
    /// Look at providers and lanes, stop and start them
    #[command(subcommand)]
    Provider(provider::ProviderCommand),
    /// How the running relay is
    Status {
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Copy the queue to a new file, while mailweir runs or not
    Backup(backup::BackupArgs),
    /// Read the configuration again; what is refused changes nothing
    Reload,
    /// Where a message to this address would go and why, under which limits, and when it would leave
    Explain(explain::Explain),
    /// Hand a message to the running relay, as sendmail does
    Send(send::Send),
    /// Be a fake provider that throttles, greylists and fails on demand
    Sink(Box<sink::Sink>),
    /// See how much mail would go how fast: the scheduler on virtual time against model providers
    Simulate(Box<simulate::Simulate>),
}

/// Parses the arguments, does the command, says what went wrong, and returns the exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // With colours, unless it repeats what could be mistaken for such.
            let shown = |arg: std::ffi::OsString| arg.to_str().is_some_and(|arg| screen::shown(arg) == arg);
            let harmless = std::env::args_os().all(shown);
            let _ = match e.use_stderr() {
                true if !harmless => write!(screen::stderr(), "{}", e.render()),
                _ => e.print(),
            };
            return if e.use_stderr() { ExitCode::from(Code::Usage as u8) } else { ExitCode::SUCCESS };
        }
    };
    match dispatch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) if failed.broken_pipe => ExitCode::SUCCESS,
        Err(failed) => {
            for line in failed.message.lines() {
                let _ = writeln!(screen::stderr(), "mailweir: {line}");
            }
            ExitCode::from(failed.code as u8)
        }
    }
}

fn dispatch(cli: Cli) -> Outcome {
    let loaded = || Loaded::read(cli.config.as_deref());
    let command = cli.command.unwrap_or(Command::Run);
    match command {
        Command::Run => run::run(loaded()?, cli.config),
        Command::Check { json } => check::check(loaded(), json),
        Command::Queue(command) => block_on(queue::queue(&loaded()?.config, command)),
        Command::Provider(command) => block_on(provider::provider(&loaded()?, command)),
        Command::Status { json } => block_on(control::status(&loaded()?.config, json)),
        Command::Backup(args) => backup::backup(&loaded()?.config, &args),
        Command::Reload => block_on(control::reload(&loaded()?.config)),
        Command::Explain(asked) => block_on(explain::explain(loaded()?, asked)),
        Command::Send(send) => send::send(&loaded()?.config, &send),
        Command::Sink(args) => sink::sink(&args),
        Command::Simulate(args) => simulate::simulate(&loaded()?.config, &args),
    }
}

/// Runs a short command on a runtime of one thread.
fn block_on(command: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(command)
}
