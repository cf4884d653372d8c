//! The command line: arguments, exit codes, and one file for each command.
//!
//! Called by the name of a link, it is `sendmail`, `mailq` or `newaliases`: see `sendmail`.
//!
//! Exit codes (sysexits.h): 0; 1 what was examined is not well (`doctor`); 64 wrong usage; 65 a message that cannot be read; 67 a recipient that would
//! be refused; 69 unavailable: mailweir is not running, or refuses;
//! 75 temporary: try again; 78 the configuration is wrong. Results go to standard output, all else
//! to standard error.

mod auth;
mod backup;
mod check;
pub mod connect;
mod control;
mod dkim;
mod doctor;
mod explain;
mod passwd;
mod provider;
mod queue;
mod run;
pub mod screen;
mod sendmail;
mod simulate;
mod sink;
pub mod text;
mod user;
mod whose;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{ConfigError, Elsewhere, Loaded};
use crate::core_dump;
use connect::Lead;

/// How a command ends, if not well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Code {
    /// What was examined is not as it should be; the command itself worked.
    NotWell = 1,
    /// EX_USAGE.
    Usage = 64,
    /// EX_DATAERR.
    Data = 65,
    /// EX_NOUSER.
    NoUser = 67,
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
        Failed::new(Code::Config, format_args!("{e:#}"))
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
    /// Control socket of the relay to talk to [default: beside the queue, PATH.sock]
    #[arg(long, value_name = "PATH", global = true)]
    socket: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the relay (the default)
    Run,
    /// Check the configuration: what differs from the built-in values, certificates, and what to know
    Check {
        /// A complete file: every key with what it means, the value that holds, and where it came from
        #[arg(long, conflicts_with = "json")]
        all: bool,
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
    /// Hand a message to the running relay, as sendmail does (`send --help`)
    #[command(disable_help_flag = true)]
    Send {
        /// Options of sendmail, and recipients
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
        arguments: Vec<OsString>,
    },
    /// Log in to a smart host: get the first token of a person, or try a login step by step
    #[command(subcommand)]
    Auth(auth::AuthCommand),
    /// Make the hash of a password for a `[[user]]` or a line of `users`
    Passwd(passwd::Passwd),
    /// Addresses that are banned because logins failed, users who are locked, and the end of both
    #[command(subcommand)]
    User(user::UserCommand),
    /// Make DKIM keys, print their DNS records, and compare these with DNS
    #[command(subcommand)]
    Dkim(dkim::DkimCommand),
    /// Examine a sender domain as receivers will: SPF, DKIM, DMARC, reverse names, MX, TLS, and what to publish
    Doctor(doctor::Doctor),
    /// Be a fake provider that throttles, greylists and fails on demand
    Sink(Box<sink::Sink>),
    /// See how much mail would go how fast: the scheduler on virtual time against model providers
    Simulate(Box<simulate::Simulate>),
}

/// Parses the arguments, does the command, says what went wrong, and returns the exit code.
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let program = arguments.next().unwrap_or_default();
    if let Some(name) = sendmail::Name::of(&program) {
        return end(name.as_str(), sendmail::run(name, arguments.collect(), None));
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // With colours, unless it repeats what could be mistaken for such.
            let shown = |arg: std::ffi::OsString| arg.to_str().is_some_and(|arg| crate::observe::shown(arg) == arg);
            let harmless = std::env::args_os().all(shown);
            let _ = match e.use_stderr() {
                true if !harmless => write!(screen::stderr(), "{}", e.render()),
                _ => e.print(),
            };
            return if e.use_stderr() { ExitCode::from(Code::Usage as u8) } else { ExitCode::SUCCESS };
        }
    };
    end("mailweir", dispatch(cli))
}

/// Says what went wrong, and returns the exit code.
fn end(program: &str, outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) if failed.broken_pipe => ExitCode::SUCCESS,
        Err(failed) => {
            screen::say(program, &failed.message);
            ExitCode::from(failed.code as u8)
        }
    }
}

fn dispatch(cli: Cli) -> Outcome {
    let loaded = || Loaded::read(cli.config.as_deref());
    let only = |elsewhere| Loaded::read_with(cli.config.as_deref(), elsewhere);
    let lead = || Lead::find(cli.config.as_deref(), cli.socket.clone());
    let command = cli.command.unwrap_or(Command::Run);
    let to_a_relay = |command: &Command| {
        use Command::{Backup, Explain, Provider, Queue, Reload, Status, User};
        matches!(command, Queue(_) | Provider(_) | Status { .. } | Backup(_) | Reload | Explain(_) | User(_))
    };
    if cli.socket.is_some() && !to_a_relay(&command) {
        let message = "--socket is for commands to a relay that runs: status, reload, queue, provider, user, explain \
                       and backup (see --help)";
        return Err(Failed::new(Code::Usage, message));
    }
    // These two have nothing that is secret, and are for looking at.
    if !matches!(command, Command::Sink(_) | Command::Simulate(_)) {
        core_dump::refuse();
    }
    match command {
        Command::Run => run::run(loaded()?, cli.config),
        Command::Check { all, json } => check::check(loaded(), all, json),
        Command::Queue(command) => block_on(queue::queue(&lead(), command)),
        Command::Provider(command) => block_on(provider::provider(lead(), command)),
        Command::Status { json } => block_on(control::status(&lead(), json)),
        Command::Backup(args) => block_on(backup::backup(&lead(), &args)),
        Command::User(command) => block_on(user::user(&lead(), command)),
        Command::Reload => block_on(control::reload(&lead().quiet())),
        Command::Explain(asked) => block_on(explain::explain(lead(), asked)),
        Command::Auth(command) => {
            let loaded = only(Elsewhere::OnlyLogins)?;
            block_on(auth::auth(loaded, command))
        }
        Command::Passwd(args) => passwd::passwd(&args),
        Command::Dkim(command) => dkim::dkim(|| only(Elsewhere::OnlyDkim).map_err(Failed::from), command),
        Command::Doctor(asked) => {
            let loaded = only(Elsewhere::OnlyDkim)?;
            block_on(doctor::doctor(loaded, asked))
        }
        Command::Send { arguments } => sendmail::run(sendmail::Name::Send, arguments, cli.config),
        Command::Sink(args) => sink::sink(&args),
        Command::Simulate(args) => simulate::simulate(&only(Elsewhere::Ignored)?.config, &args),
    }
}

/// Runs a short command on a runtime of one thread.
fn block_on(command: impl Future<Output = Outcome>) -> Outcome {
    let runtime = runtime(&mut tokio::runtime::Builder::new_current_thread())?;
    let done = runtime.block_on(async {
        crate::app::survive_file_limit()?;
        command.await
    });
    // Nothing that a command waits for is left; what others wait for (a name look-up) keeps nobody.
    runtime.shutdown_background();
    done
}

/// Descriptors that any command needs: a runtime has five, a connection or a store the rest.
const DESCRIPTORS: usize = 8;

/// The runtime of a command. Without descriptors tokio would panic.
fn runtime(builder: &mut tokio::runtime::Builder) -> Result<tokio::runtime::Runtime, Failed> {
    let probes: io::Result<Vec<std::fs::File>> = (0..DESCRIPTORS).map(|_| std::fs::File::open("/dev/null")).collect();
    // Closed again here, so that they are there for what needs them.
    if let Err(error) = probes.map(drop) {
        let message = format!(
            "no file descriptors left ({error}): {DESCRIPTORS} are needed beside those that are open (ulimit -n)"
        );
        return Err(Failed::new(Code::Temporary, message));
    }
    Ok(builder.enable_all().build()?)
}
