//! `mailweir dkim`: make keys, print what is to be published of them, and compare that with DNS.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Subcommand, ValueEnum};

use super::screen::{self, shown};
use super::{Code, Failed, Outcome};
use crate::clock::Clock;
use crate::config::{Config, Dkim, Loaded};
use crate::dkim::{Algorithm, SigningKey, difference, zone_line};
use crate::mail::domain::{parse_name, printed};
use crate::route::Router;

#[derive(Subcommand, Debug)]
pub(super) enum DkimCommand {
    /// Make the keys of a domain: writes their files (mode 0600, never over another one), and prints what to put
    /// into the configuration and into DNS
    New {
        /// Domain of the addresses in From
        domain: String,
        /// Directory of the key files
        #[arg(long, value_name = "DIR", default_value = ".")]
        directory: PathBuf,
        /// What the selectors begin with [default: year and month, such as 202612]
        #[arg(long, value_name = "NAME")]
        selector: Option<String>,
        /// One key instead of both
        #[arg(long, value_enum)]
        algorithm: Option<Kind>,
    },
    /// Print the DNS records of the keys in the configuration, as lines of a zone file
    Record {
        /// Only those of this domain
        domain: Option<String>,
    },
    /// Compare the keys of a domain in the configuration with what DNS has; exit code 69 if one differs
    Check {
        /// Domain of a [[dkim]]
        domain: String,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
pub(super) enum Kind {
    Rsa,
    Ed25519,
}

impl Kind {
    fn algorithm(self) -> Algorithm {
        match self {
            Kind::Rsa => Algorithm::RsaSha256,
            Kind::Ed25519 => Algorithm::Ed25519Sha256,
        }
    }
}

/// `loaded` is asked for the configuration only where one is needed: the first keys come before it.
pub(super) fn dkim(loaded: impl FnOnce() -> Result<Loaded, Failed>, command: DkimCommand) -> Outcome {
    match command {
        DkimCommand::New { domain, directory, selector, algorithm } => {
            new(&domain, &directory, selector.as_deref(), algorithm)
        }
        DkimCommand::Record { domain } => record(&loaded()?.config, domain.as_deref()),
        DkimCommand::Check { domain } => {
            let config = Arc::new(loaded()?.config);
            super::block_on(check(config, domain))
        }
    }
}

/// A domain in A-labels.
fn name(domain: &str) -> Result<String, Failed> {
    let name = parse_name(domain).map(|name| printed(&name)).filter(|name| name.contains('.'));
    let odd = |name: &String| name.bytes().any(|b| !(b.is_ascii_alphanumeric() || b"-_.".contains(&b)));
    let why = || Failed::new(Code::Usage, format_args!("\"{}\" is no domain: expected one as in From", shown(domain)));
    name.filter(|name| !odd(name)).ok_or_else(why)
}

fn new(domain: &str, directory: &Path, selector: Option<&str>, only: Option<Kind>) -> Outcome {
    let domain = name(domain)?;
    let month = Clock::System.now().day_text().get(..7).unwrap_or_default().replace('-', "");
    let base = selector.unwrap_or(&month);
    let selectors: Vec<(String, Kind)> = match only {
        Some(kind) if selector.is_some() => vec![(base.to_owned(), kind)],
        Some(kind) => vec![(format!("{base}-{}", kind.algorithm().key_type()), kind)],
        None => [Kind::Rsa, Kind::Ed25519].map(|k| (format!("{base}-{}", k.algorithm().key_type()), k)).to_vec(),
    };
    for (selector, _) in &selectors {
        crate::config::read_selector(selector).map_err(|why| Failed::new(Code::Usage, why))?;
    }
    let directory = std::path::absolute(directory)?;
    let path = |selector: &str| directory.join(format!("{domain}.{selector}.pem"));
    // Before the first is made: half of a set is of no use.
    if let Some(there) = selectors.iter().map(|(s, _)| path(s)).find(|path| path.symlink_metadata().is_ok()) {
        return Err(taken(&there));
    }
    let (mut tables, mut lines) = (String::new(), String::new());
    for (selector, kind) in &selectors {
        let failed = |fault| Failed::new(Code::Temporary, format_args!("the key {fault}"));
        let (key, pem) = SigningKey::generate(kind.algorithm()).map_err(failed)?;
        let path = path(selector);
        write_new(&path, pem.as_bytes()).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => taken(&path),
            _ => Failed::new(Code::Unavailable, format_args!("cannot write {}: {error}", path.display())),
        })?;
        let file = toml_edit::Value::from(path.display().to_string());
        let file = file.to_string();
        tables += &format!("[[dkim]]\ndomain = \"{domain}\"\nselector = \"{selector}\"\nkey = {}\n\n", file.trim());
        lines += &format!("{}\n", zone_line(&domain, selector, &key).map_err(failed)?);
    }
    let mut out = screen::stdout();
    writeln!(out, "# 1. publish in DNS:")?;
    out.write_all(lines.as_bytes())?;
    writeln!(out, "\n# 2. when `mailweir dkim check {domain}` finds them, with this in config.toml, reload:")?;
    out.write_all(tables.trim_end().as_bytes())?;
    writeln!(out)?;
    Ok(())
}

fn taken(path: &Path) -> Failed {
    let why = format!("{} is there already: expected another --selector or --directory", path.display());
    Failed::new(Code::Unavailable, why)
}

/// Writes a file that was not there, for its owner alone, and has the disk keep it.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Those of the configuration for a domain, or all.
fn configured(config: &Config, domain: Option<&str>) -> Result<Vec<Arc<Dkim>>, Failed> {
    let domain = domain.map(name).transpose()?;
    let all = config.dkim.iter().filter(|dkim| domain.as_ref().is_none_or(|domain| dkim.domain == *domain));
    let found: Vec<Arc<Dkim>> = all.cloned().collect();
    if found.is_empty() {
        let whose = domain.map(|domain| format!(" of {domain}")).unwrap_or_default();
        let why = format!("the configuration has no [[dkim]]{whose}: `mailweir dkim new DOMAIN` makes keys");
        return Err(Failed::new(Code::Config, why));
    }
    Ok(found)
}

fn record(config: &Config, domain: Option<&str>) -> Outcome {
    let mut out = screen::stdout();
    for dkim in configured(config, domain)? {
        writeln!(out, "{}", line(&dkim)?)?;
    }
    Ok(())
}

fn line(dkim: &Dkim) -> Result<String, Failed> {
    zone_line(&dkim.domain, &dkim.selector, &dkim.key.key)
        .map_err(|fault| Failed::new(Code::Temporary, format_args!("the key {} {fault}", dkim.key.path.display())))
}

async fn check(config: Arc<Config>, domain: String) -> Outcome {
    let keys = configured(&config, Some(&domain))?;
    let router = Router::new(config).map_err(|e| Failed::new(Code::Config, e))?;
    let mut out = screen::stdout();
    let (mut differs, mut unknown) = (false, false);
    for dkim in keys {
        let name = format!("{}._domainkey.{}", dkim.selector, dkim.domain);
        let kind = dkim.key.key.algorithm().key_type();
        let records = match router.texts(&name).await {
            Ok(records) => records,
            Err(why) => {
                unknown = true;
                writeln!(out, "{name}  {kind}  UNKNOWN  {}", shown(&why))?;
                continue;
            }
        };
        let fault = |fault| Failed::new(Code::Temporary, format_args!("the key {} {fault}", dkim.key.path.display()));
        match difference(&dkim.key.key, &records).map_err(fault)? {
            None => writeln!(out, "{name}  {kind}  ok")?,
            Some(difference) => {
                differs = true;
                writeln!(out, "{name}  {kind}  FAILED  {}", shown(&difference.to_string()))?;
                writeln!(out, "{}", line(&dkim)?)?;
            }
        }
    }
    match (differs, unknown) {
        (false, false) => Ok(()),
        (true, _) => Err(Failed::new(Code::Unavailable, "DNS has not what the configuration signs with")),
        (false, true) => Err(Failed::new(Code::Temporary, "DNS could not be asked: try again")),
    }
}
