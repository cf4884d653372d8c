//! A record of SPF with all that it leads to, as it is for a client whom nothing of it knows: what it costs at most, what
//! is wrong in it, whom it lets through.
//!
//! Goes on behind the limits of the standard, so that it can be told by how much they are passed, up to [`MOST`].

use super::check::{MOST_HOSTS, Published, Verdict, published};
use super::macros;
use super::record::{Directive, Mechanism, Qualifier, Record, cut};
use crate::doctor::names::Asker;

/// Look-ups that are counted at most.
const MOST: usize = 60;
/// Prefixes that leave in too many for any sender: a 256th of the Internet.
const WIDE_V4: u8 = 8;
const WIDE_V6: u8 = 16;

/// See the module.
#[derive(Clone, Default, Debug)]
pub struct Survey {
    /// Terms that cost a look-up, each with the domain in whose record it is.
    pub costs: Vec<(String, String)>,
    /// Terms that find nothing.
    pub voids: Vec<String>,
    /// What makes receivers give up.
    pub faults: Vec<String>,
    /// What could not be looked up.
    pub unknown: Vec<String>,
    /// Domains that are included or led to, by whichever record.
    pub includes: Vec<String>,
    /// Terms that let everybody through.
    pub open: Vec<String>,
    /// What is of no use, or better done otherwise.
    pub notes: Vec<String>,
}

impl Survey {
    /// Of the record of a domain.
    pub async fn of(asker: &Asker<'_>, domain: &str, record: &Record) -> Survey {
        let mut survey = Survey::default();
        let mut path = vec![domain.to_owned()];
        survey.record(asker, record, &mut path, true).await;
        survey
    }

    /// `passes`: who matches with `+` here may send.
    async fn record(&mut self, asker: &Asker<'_>, record: &Record, path: &mut Vec<String>, passes: bool) {
        let domain = path.last().cloned().unwrap_or_default();
        let mut directives = record.directives.iter();
        for directive in directives.by_ref() {
            let passes = passes && directive.qualifier == Qualifier::Pass;
            self.directive(asker, directive, path, passes).await;
            if directive.mechanism == Mechanism::All {
                break;
            }
        }
        let behind: Vec<&str> = directives.map(|directive| &*directive.text).collect();
        if !behind.is_empty() {
            self.notes.push(format!("{domain}: nobody reads what stands behind `all`: {}", cut(&behind.join(" "))));
        }
        for modifier in &record.unknown {
            if let Some((name, value)) = modifier.split_once('=')
                && ["include", "a", "mx", "ptr", "ip4", "ip6", "exists"].iter().any(|m| m.eq_ignore_ascii_case(name))
            {
                let why = format!("receivers pass over `{modifier}`, did you mean {name}:{value}?");
                self.faults.push(format!("{domain}: {why}"));
                continue;
            }
            self.notes.push(format!("{domain}: receivers pass over `{modifier}`, which the standard does not know"));
        }
        match (&record.redirect, record.all()) {
            (Some(target), None) => self.lead(asker, target, format!("redirect={target}"), path, passes).await,
            (Some(_), Some(_)) => self.notes.push(format!("{domain}: with `all` nobody reads redirect=")),
            (None, _) => {}
        }
    }

    async fn directive(&mut self, asker: &Asker<'_>, directive: &Directive, path: &mut Vec<String>, passes: bool) {
        let domain = path.last().cloned().unwrap_or_default();
        let Directive { mechanism, text, .. } = directive;
        match mechanism {
            Mechanism::Include(spec) => return self.lead(asker, spec, text.clone(), path, passes).await,
            Mechanism::All => {
                if passes {
                    self.open.push(format!("`{text}` of {domain}"));
                }
                return;
            }
            Mechanism::Network(ip, prefix) => {
                if passes && *prefix < if ip.is_ipv4() { WIDE_V4 } else { WIDE_V6 } {
                    self.open.push(format!("`{text}` of {domain}"));
                }
                return;
            }
            Mechanism::A(..) | Mechanism::Mx(..) | Mechanism::Ptr(..) | Mechanism::Exists(..) => {}
        }
        self.costs.push((domain.clone(), text.clone()));
        if self.costs.len() > MOST {
            return;
        }
        if let Mechanism::A(Some(spec), _) | Mechanism::Mx(Some(spec), _) | Mechanism::Exists(spec) = mechanism
            && let Some(name) = of(&Some(spec.clone()), &domain).filter(|name| !is_host_name(name))
        {
            self.faults.push(format!("`{text}` of {domain}: {} is no name, so it lets nobody through", cut(&name)));
        }
        let found = match mechanism {
            Mechanism::A(spec, _) => match of(spec, &domain) {
                Some(name) => asker.all_addresses(&name).await.map(|ips| ips.len()),
                None => return,
            },
            Mechanism::Mx(spec, _) => match of(spec, &domain) {
                Some(name) => asker.hosts(&name).await.map(|hosts| hosts.len()),
                None => return,
            },
            Mechanism::Exists(spec) => match of(&Some(spec.clone()), &domain) {
                Some(name) => asker.addresses(&name, true).await.map(|ips| ips.len()),
                None => return,
            },
            _ => {
                self.notes
                    .push(format!("{domain}: `{text}` is slow, and RFC 7208 asks not to use ptr: name addresses"));
                return;
            }
        };
        if let Mechanism::A(_, prefixes) | Mechanism::Mx(_, prefixes) = mechanism
            && passes
            && found.as_ref().is_ok_and(|found| *found > 0)
            && (prefixes.v4 < WIDE_V4 || prefixes.v6 < WIDE_V6)
        {
            self.open.push(format!("`{text}` of {domain}"));
        }
        match found {
            Ok(0) => self.voids.push(format!("`{text}` of {domain}")),
            Ok(n) if n > MOST_HOSTS && matches!(mechanism, Mechanism::Mx(..)) => {
                self.faults.push(format!("`{text}` of {domain} has {n} mail hosts, of which {MOST_HOSTS} are allowed"));
            }
            Ok(_) => {}
            Err(why) => self.unknown.push(format!("`{text}` of {domain}: {why}")),
        }
    }

    /// To the record of another domain.
    async fn lead(&mut self, asker: &Asker<'_>, spec: &str, term: String, path: &mut Vec<String>, passes: bool) {
        let domain = path.last().cloned().unwrap_or_default();
        self.costs.push((domain.clone(), term.clone()));
        let Some(name) = of(&Some(spec.to_owned()), &domain).filter(|_| self.costs.len() <= MOST) else { return };
        if path.iter().any(|above| above.eq_ignore_ascii_case(&name)) {
            self.faults.push(format!("`{term}` of {domain} leads in a circle: take it out"));
            return;
        }
        if !self.includes.contains(&name) {
            self.includes.push(name.clone());
        }
        let text = match published(asker, &name).await {
            Published::Text(text) => text,
            Published::Not(Verdict::None) => {
                self.faults.push(format!("`{term}` of {domain}: {name} has no record of SPF, take it out or mend it"));
                return;
            }
            Published::Not(Verdict::TempError(why)) => {
                self.unknown.push(format!("`{term}` of {domain}: {why}"));
                return;
            }
            Published::Not(Verdict::PermError(why)) => {
                self.faults.push(format!("`{term}` of {domain}: {why}"));
                return;
            }
            Published::Not(_) => return,
        };
        match Record::parse(&text) {
            Ok(record) => {
                path.push(name);
                Box::pin(self.record(asker, &record, path, passes)).await;
                path.pop();
            }
            Err(faults) => {
                let first = faults.first().map(ToString::to_string).unwrap_or_default();
                self.faults.push(format!("`{term}` of {domain}: the record of {name} is wrong: {first}"));
            }
        }
    }
}

/// Whether DNS can have it: letters, digits, `-`, `_`, and dots between.
fn is_host_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    name.split('.').all(|label| !label.is_empty() && label.len() <= 63 && label.chars().all(fits))
}

/// The name that is meant; `None`: it depends on who sends.
fn of(spec: &Option<String>, domain: &str) -> Option<String> {
    let Some(spec) = spec else { return Some(domain.to_owned()) };
    if macros::depends_on_client(spec) {
        return None;
    }
    let sender = format!("postmaster@{domain}");
    let values = macros::Values { ip: std::net::Ipv4Addr::UNSPECIFIED.into(), sender: &sender, domain, helo: domain };
    macros::expand(spec, &values).ok()
}
