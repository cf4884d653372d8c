//! `mailweir user`: whose logins wait or are not looked at because others failed, who is locked because he sent too
//! much, and the end of both.

use std::io::{self, Write as _};
use std::net::IpAddr;
use std::sync::Arc;

use clap::Subcommand;

use super::connect::{Lead, must_run};
use super::screen;
use super::text::{Table, age_of};
use super::{Code, Failed, Outcome};
use crate::admin::bans::BanStatus;
use crate::admin::requests::{Reply, Request};
use crate::clock::{Clock, Timestamp};
use crate::config::{Config, Listener, ListenerAuth};
use crate::listener::arrivals::Lock;

#[derive(Subcommand, Debug)]
pub(super) enum UserCommand {
    /// Addresses whose logins have failed: they wait, or are banned for a while
    Bans {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Users who were locked because they sent too much, by a [[limit]] with over = "lock"
    Locked {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Let a user send and log in again
    Unlock {
        /// Its name
        name: String,
    },
    /// Forget the failed logins of an address
    Unban {
        /// The address; of IPv6 its whole /64 is meant
        #[arg(required_unless_present = "all")]
        address: Option<IpAddr>,
        /// Those of every address
        #[arg(long, conflicts_with = "address")]
        all: bool,
    },
}

pub(super) async fn user(lead: &Lead, command: UserCommand) -> Outcome {
    match command {
        UserCommand::Bans { json } => bans(lead, json).await,
        UserCommand::Locked { json } => locked(lead, json).await,
        UserCommand::Unlock { name } => unlock(lead, name).await,
        UserCommand::Unban { address, .. } => unban(lead, address).await,
    }
}

async fn bans(lead: &Lead, json: bool) -> Outcome {
    let mut bans: Vec<BanStatus> = Vec::new();
    let keep = |reply, _: &[u8]| {
        if let Reply::Ban(ban) = reply {
            bans.push(ban);
        }
        Ok(())
    };
    must_run(lead).await?.request(Request::Bans, keep).await?;
    let mut out = screen::stdout();
    if json {
        return json_lines(&mut out, &bans);
    }
    if bans.is_empty() {
        return Ok(writeln!(out, "no address has failed logins that count")?);
    }
    let now = Clock::System.now();
    let mut table = Table::new(["ADDRESS", "FAILURES", "NEXT LOGIN"]);
    for ban in bans {
        table.row([shown(ban.address), ban.failures.to_string(), next(&ban, now)]);
    }
    Ok(table.write(&mut out)?)
}

fn shown(address: IpAddr) -> String {
    if address.is_ipv6() { format!("{address}/64") } else { address.to_string() }
}

fn next(ban: &BanStatus, now: Timestamp) -> String {
    match (ban.banned_until.as_str(), ban.wait_s) {
        ("", 0) => "at once".to_owned(),
        ("", seconds) => format!("after {seconds} s"),
        (until, _) => format!("banned until {}", age_of(until, now)),
    }
}

async fn locked(lead: &Lead, json: bool) -> Outcome {
    let mut locks: Vec<Lock> = Vec::new();
    let keep = |reply, _: &[u8]| {
        if let Reply::Lock(lock) = reply {
            locks.push(lock);
        }
        Ok(())
    };
    must_run(lead).await?.request(Request::Locks, keep).await?;
    let mut out = screen::stdout();
    if json {
        return json_lines(&mut out, &locks);
    }
    if locks.is_empty() {
        return Ok(writeln!(out, "no user is locked")?);
    }
    let now = Clock::System.now();
    let mut table = Table::new(["USER", "SINCE", "WHY"]);
    for lock in locks {
        table.row([screen::shown(&lock.user), age_of(&lock.since, now), screen::shown(&lock.why)]);
    }
    table.write(&mut out)?;
    if let Some(open) = relays_without_login(lead.config()) {
        let note = format!(
            "note: programs in `allow` relay at {open} without a login, and those of a locked user may be among them: \
             auth = \"required\" there lets in nobody who has not logged in"
        );
        screen::say("mailweir", &note);
    }
    Ok(())
}

/// A listener at which a lock does not help, since nobody has to say who he is.
fn relays_without_login(config: &Config) -> Option<String> {
    let open = |listener: &&Arc<Listener>| listener.auth != ListenerAuth::Required;
    config.listeners.iter().find(open).map(|listener| listener.address.to_string())
}

/// One object a line.
fn json_lines<T: serde::Serialize>(out: &mut impl io::Write, all: &[T]) -> Outcome {
    for one in all {
        writeln!(out, "{}", serde_json::to_string(one).map_err(io::Error::from)?)?;
    }
    Ok(())
}

async fn unlock(lead: &Lead, user: String) -> Outcome {
    let done = must_run(lead).await?.request(Request::Unlock { user: user.clone() }, |_, _| Ok(())).await?;
    if done.changed == 0 {
        return Err(Failed::new(
            Code::Unavailable,
            format!("the user {user} is not locked: see `mailweir user locked`"),
        ));
    }
    Ok(writeln!(screen::stdout(), "{} may send again", screen::shown(&user))?)
}

async fn unban(lead: &Lead, address: Option<IpAddr>) -> Outcome {
    let done = must_run(lead).await?.request(Request::Unban { address }, |_, _| Ok(())).await?;
    match (done.changed, address) {
        (0, Some(address)) => Err(Failed::new(
            Code::Unavailable,
            format!("no login of {address} has failed lately: see `mailweir user bans`"),
        )),
        (n, _) => Ok(writeln!(
            screen::stdout(),
            "failed logins of {n} {} forgotten",
            if n == 1 { "address" } else { "addresses" }
        )?),
    }
}
