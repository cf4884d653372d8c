//! `mailweir doctor`: examines a sender domain as receivers will.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use super::screen::{self, shown};
use super::{Code, Failed, Outcome};
use crate::clock::Clock;
use crate::config::{Config, Loaded};
use crate::deliver::Connector;
use crate::doctor::subject::domain_of;
use crate::doctor::{Examined, Finding, Mark, Subject, Web, examine, reach, unsubscribe, worst};
use crate::route::{Router, sts};
use crate::smtp::LineEnds;

/// Bytes of a message that are read: its header section is in them.
const MAX_MESSAGE: u64 = 1 << 20;

#[derive(Args, Debug)]
pub(super) struct Doctor {
    /// Domain of the addresses in From
    domain: String,
    /// Domain of the reverse-path, if it is another: its SPF counts
    #[arg(long, value_name = "DOMAIN")]
    envelope: Option<String>,
    /// A public address that mail leaves from, such as that of a NAT; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    ip: Vec<IpAddr>,
    /// Connect to the mail hosts of the domain: is port 25 open on the way out, and is their TLS good
    #[arg(long)]
    connect: bool,
    /// A blocklist to ask for the addresses, such as zen.spamhaus.org; may be repeated
    #[arg(long, value_name = "NAME")]
    blocklist: Vec<String>,
    /// A message as it is sent in bulk (- for standard input): is there a one-click List-Unsubscribe
    #[arg(long, value_name = "FILE")]
    message: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    domain: &'a str,
    verdict: Mark,
    findings: &'a [Finding],
}

pub(super) async fn doctor(loaded: Loaded, asked: Doctor) -> Outcome {
    let config = Arc::new(loaded.config);
    let subject = subject(&config, &asked)?;
    let message = asked.message.as_deref().map(|path| Ok::<_, Failed>((path, read(path)?))).transpose()?;
    let router = Router::new(config.clone()).map_err(|e| Failed::new(Code::Config, e))?;
    let web = Web { fetch: &sts::Https::default(), now: Clock::System.now() };
    let Examined { mut findings, hosts, enforced } = examine(&subject, &router, &web).await;
    if asked.connect {
        let connector = Connector::new(&config.hostname).map_err(|e| Failed::new(Code::Config, e))?;
        let reached = reach::reach(&connector, &config.default, &hosts).await;
        findings.extend(reach::judge(&subject.domain, &reached, config.default.port, enforced));
    }
    if let Some((path, message)) = message {
        let of = path.display().to_string();
        findings.extend(unsubscribe::examine(&message, |domain| !config.dkim_for(domain).is_empty(), &of));
    }
    let mut out = screen::stdout();
    match asked.json {
        true => {
            let report = Report { domain: &subject.domain, verdict: worst(&findings), findings: &findings };
            writeln!(out, "{}", serde_json::to_string(&report).map_err(io::Error::from)?)?;
        }
        false => write(&mut out, &subject, &findings)?,
    }
    let end = |code| Err(Failed { code, message: String::new(), broken_pipe: false });
    match worst(&findings) {
        Mark::Failed => end(Code::NotWell),
        Mark::Unknown => end(Code::Temporary),
        _ => Ok(()),
    }
}

fn subject(config: &Config, asked: &Doctor) -> Result<Subject, Failed> {
    let name = |text: &str| {
        domain_of(text).ok_or_else(|| Failed::new(Code::Usage, format_args!("`{}` is no domain", shown(text))))
    };
    let envelope = asked.envelope.as_deref().map(name).transpose()?;
    let mut subject = Subject::new(config, name(&asked.domain)?, envelope, &asked.ip);
    subject.blocklists = asked.blocklist.iter().map(|list| name(list)).collect::<Result<_, _>>()?;
    Ok(subject)
}

fn read(path: &Path) -> Result<Vec<u8>, Failed> {
    let mut message = Vec::new();
    let done = match path.as_os_str() == "-" {
        true => io::stdin().take(MAX_MESSAGE).read_to_end(&mut message),
        false => File::open(path).and_then(|file| file.take(MAX_MESSAGE).read_to_end(&mut message)),
    };
    match done {
        // Files have the line ends of their system; what leaves has CRLF.
        Ok(_) => {
            let (mut ends, mut whole) = (LineEnds::new(), Vec::with_capacity(message.len()));
            ends.feed(&message, |run| whole.extend_from_slice(run));
            ends.finish(|run| whole.extend_from_slice(run));
            Ok(whole)
        }
        Err(e) => Err(Failed::new(Code::Data, format_args!("cannot read {}: {e}", path.display()))),
    }
}

/// The verdict first; what to do below it.
fn write(out: &mut impl Write, subject: &Subject, findings: &[Finding]) -> io::Result<()> {
    let width = |of: fn(&Finding) -> &str| findings.iter().map(|f| of(f).chars().count()).max().unwrap_or(0);
    let (check, of) = (width(|f| f.check), width(|f| &f.of).min(40));
    for finding in findings {
        let Finding { found, remedy, .. } = finding;
        let mark = finding.verdict.shown();
        writeln!(out, "{mark:<8} {:<check$}  {:<of$}  {}", finding.check, shown(&finding.of), shown(found))?;
        if !remedy.is_empty() {
            writeln!(out, "{:8} → {}", "", shown(remedy))?;
        }
        for line in &finding.publish {
            writeln!(out, "{:8}   {}", "", shown(line))?;
        }
    }
    let count = |mark: Mark| findings.iter().filter(|finding| finding.verdict == mark).count();
    let (failed, unknown, notes) = (count(Mark::Failed), count(Mark::Unknown), count(Mark::Note));
    let all = match worst(findings) {
        Mark::Failed => "not well",
        Mark::Unknown => "not known",
        _ => "well",
    };
    writeln!(
        out,
        "\n{}: {all}; {failed} failed, {unknown} unknown, {notes} notes, {} ok",
        subject.domain,
        count(Mark::Ok)
    )
}
