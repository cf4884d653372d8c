//! DMARC (RFC 7489): the policy that holds for a domain, whether it is well written, and whether what is ours would be
//! aligned.
//!
//! There is no list of public suffixes here: the organizational domain is found by asking upwards, as the successor of
//! RFC 7489 does (DMARCbis, "DNS tree walk"), with [`MOST_STEPS`] questions at most.

use super::finding::{Finding, Mark, txt_line};
use super::names::Asker;
use super::subject::Subject;
use super::tags::{Tags, is_meant, mail_domain, uri_fault};

const CHECK: &str = "DMARC";
/// Names that are asked for one domain.
const MOST_STEPS: usize = 8;
/// Destinations of reports that are looked at.
const MOST_URIS: usize = 10;

/// A policy that was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    /// Whose record it is.
    pub at: String,
    /// As published.
    pub text: String,
    /// Read.
    pub tags: Tags,
}

impl Policy {
    /// What it asks for of mail of a domain, and by which tag.
    fn asks_of(&self, domain: &str) -> (&str, &'static str) {
        match self.tags.get("sp") {
            Some(sp) if self.at != domain => (sp, "sp"),
            _ => (self.tags.get("p").unwrap_or("none"), "p"),
        }
    }
}

/// What a name has.
enum Found {
    Nothing,
    /// What somebody meant to be a record.
    Meant(String),
    One(Box<Policy>),
    Several(usize),
}

/// Whether receivers are asked to do something with mail of a domain that does not pass.
pub(super) async fn is_enforced(asker: &Asker<'_>, domain: &str) -> bool {
    let policy = match at(asker, domain).await {
        Ok(Found::One(policy)) => Some(*policy),
        Ok(Found::Nothing) => above(asker, domain).await.unwrap_or_default(),
        Ok(Found::Meant(_) | Found::Several(_)) | Err(_) => None,
    };
    policy.is_some_and(|policy| {
        let (asks, _) = policy.asks_of(domain);
        let all = policy.tags.get("pct").is_none_or(|pct| pct == "100");
        all && ["quarantine", "reject"].iter().any(|strict| strict.eq_ignore_ascii_case(asks))
    })
}

/// Everything about DMARC.
pub(super) async fn examine(asker: &Asker<'_>, subject: &Subject) -> Vec<Finding> {
    let domain = &subject.domain;
    let mut findings = Vec::new();
    let policy = match at(asker, domain).await {
        Err(why) => return vec![Finding::unknown(CHECK, domain, why)],
        Ok(Found::Several(n)) => {
            let found = format!("_dmarc.{domain} has {n} records, so receivers use none");
            return vec![Finding::failed(CHECK, domain, found).with("publish one in the place of all")];
        }
        Ok(Found::Meant(text)) => {
            let found = format!("a record that receivers pass over: {text}");
            let remedy = "it has to begin with `v=DMARC1;`, in this case and without quotes; keep its other tags";
            return vec![Finding::failed(CHECK, domain, found).with(remedy)];
        }
        Ok(Found::One(policy)) => Some(*policy),
        Ok(Found::Nothing) => match above(asker, domain).await {
            Ok(policy) => policy,
            Err(why) => return vec![Finding::unknown(CHECK, domain, why)],
        },
    };
    let Some(policy) = policy else {
        let line = txt_line(&format!("_dmarc.{domain}"), &proposal(domain));
        let finding = Finding::failed(CHECK, domain, "there is no policy: big receivers want one of who sends in bulk");
        return vec![finding.with("publish one, and read its reports").publish(line)];
    };
    let faults = faults(&policy);
    let told = of_policy(domain, &policy);
    // A record that receivers may use no part of is not as it should be, whatever it asks for.
    if faults.is_empty() || told.verdict != Mark::Ok {
        findings.push(told);
    }
    findings.extend(
        faults
            .into_iter()
            .map(|why| Finding::failed(CHECK, domain, why).with("receivers may use no part of such a record: mend it")),
    );
    findings.extend(unknown_tags(&policy));
    if policy.tags.names().nth(1) != Some("p") && policy.tags.get("p").is_some() {
        let found = "p= is not its second tag, as RFC 7489 wants it: some receivers pass over the record";
        findings.push(Finding::note(CHECK, domain, found).with("put it behind v=DMARC1;"));
    }
    findings.extend(reports(asker, &policy).await);
    findings.extend(alignment(asker, subject, &policy).await);
    findings
}

fn proposal(domain: &str) -> String {
    format!("v=DMARC1; p=none; rua=mailto:dmarc@{domain}")
}

/// What `_dmarc` of a domain has.
async fn at(asker: &Asker<'_>, domain: &str) -> Result<Found, String> {
    let texts = asker.texts(&format!("_dmarc.{domain}")).await?;
    let records: Vec<&String> = texts.iter().filter(|text| is_record(text)).collect();
    Ok(match records.as_slice() {
        [] => match texts.iter().find(|text| is_meant(text, "dmarc", &["p", "rua"])) {
            Some(text) => Found::Meant(text.chars().take(200).collect()),
            None => Found::Nothing,
        },
        [one] => {
            let (at, text) = (domain.to_owned(), (*one).clone());
            Found::One(Box::new(Policy { at, tags: Tags::parse(one), text }))
        }
        several => Found::Several(several.len()),
    })
}

/// Whether receivers take it for a record: `v=DMARC1` as its first tag, with white space around the `=`.
fn is_record(text: &str) -> bool {
    let Some((first, _)) = text.split_once(';').or(Some((text, ""))) else { return false };
    first.split_once('=').is_some_and(|(tag, version)| {
        let word = version.trim_start();
        // `v=DMARC1 p=none` begins as one and lacks its `;`, which is told of.
        let version = word.split_whitespace().next().unwrap_or_default();
        tag.trim_end() == "v" && version.trim_end_matches('\\') == "DMARC1"
    })
}

/// The names that are asked one after the other, from the domain up (at most [`MOST_STEPS`]).
fn steps(domain: &str) -> Vec<&str> {
    let labels = domain.split('.').count();
    let mut steps = vec![domain];
    let mut rest = domain;
    for left in (1..labels).rev() {
        let Some((_, above)) = rest.split_once('.') else { break };
        rest = above;
        if left < MOST_STEPS {
            steps.push(rest);
        }
    }
    steps
}

/// The policies of a domain and of those above it, from it up.
async fn tree(asker: &Asker<'_>, domain: &str) -> Result<Vec<Policy>, String> {
    let mut found = Vec::new();
    for name in steps(domain) {
        if let Found::One(policy) = at(asker, name).await? {
            // Who says that it is a domain, or that it gives out domains, ends the walk.
            let ends = policy.tags.get("psd").is_some_and(|psd| matches!(psd, "n" | "y"))
                && (name != domain || policy.tags.get("psd") == Some("n"));
            found.push(*policy);
            if ends {
                break;
            }
        }
    }
    Ok(found)
}

/// The organizational domain (DMARCbis): that of the highest record, or below who gives out domains.
async fn organization(asker: &Asker<'_>, domain: &str) -> Result<String, String> {
    let tree = tree(asker, domain).await?;
    let Some(top) = tree.last() else { return Ok(domain.to_owned()) };
    match top.tags.get("psd") {
        Some("y") if top.at != domain => {
            // One label more than the suffix has.
            let below = domain.strip_suffix(&format!(".{}", top.at)).and_then(|rest| rest.rsplit('.').next());
            Ok(below.map_or_else(|| domain.to_owned(), |label| format!("{label}.{}", top.at)))
        }
        _ => Ok(top.at.clone()),
    }
}

/// The policy of the organizational domain, for a domain that has none.
async fn above(asker: &Asker<'_>, domain: &str) -> Result<Option<Policy>, String> {
    Ok(tree(asker, domain).await?.pop())
}

fn of_policy(domain: &str, policy: &Policy) -> Finding {
    let tags = &policy.tags;
    let own = policy.at == domain;
    let (holds, by) = policy.asks_of(domain);
    let whose = if own { String::new() } else { format!(" (of _dmarc.{})", policy.at) };
    let text: String = policy.text.chars().take(300).collect();
    let found = format!("{by}={holds}{whose}: {text}");
    match holds.to_ascii_lowercase().as_str() {
        "none" => Finding::note(CHECK, domain, found).with(
            "anybody may still send in its name: when the reports show that all mail of yours passes, p=quarantine",
        ),
        _ if tags.get("pct").is_some_and(|pct| pct.parse::<u8>().is_ok_and(|pct| pct < 100)) => {
            Finding::note(CHECK, domain, found).with("pct= is for a part of the mail only: leave it out in the end")
        }
        _ if tags.get("t") == Some("y") => {
            Finding::note(CHECK, domain, found).with("t=y says that it is only a test: leave it out in the end")
        }
        _ => Finding::ok(CHECK, domain, found),
    }
}

/// Tags that receivers pass over, because nobody knows them (RFC 7489 §6.3).
fn unknown_tags(policy: &Policy) -> Vec<Finding> {
    const KNOWN: [&str; 14] =
        ["v", "p", "sp", "np", "psd", "t", "rua", "ruf", "adkim", "aspf", "fo", "rf", "ri", "pct"];
    let unknown = policy.tags.names().filter(|name| !KNOWN.contains(name));
    let told = |name: &str| {
        let near = KNOWN.into_iter().find(|known| known.len() > 1 && strsim::osa_distance(known, name) == 1);
        let remedy = near.map_or_else(|| "take it out".to_owned(), |near| format!("did you mean {near}=?"));
        Finding::note(CHECK, &policy.at, format!("receivers pass over the tag `{name:.40}`")).with(remedy)
    };
    unknown.take(5).map(told).collect()
}

/// What is wrong with the record.
fn faults(policy: &Policy) -> Vec<String> {
    let tags = &policy.tags;
    let mut faults = tags.faults.clone();
    let policies = ["none", "quarantine", "reject"];
    let mut one_of = |tag: &str, values: &[&str]| {
        if let Some(value) = tags.get(tag)
            && !values.iter().any(|known| known.eq_ignore_ascii_case(value))
        {
            let shown: String = value.chars().take(40).collect();
            faults.push(format!("{tag}={shown}: expected {}", values.join(", ")));
        }
    };
    one_of("p", &policies);
    one_of("sp", &policies);
    one_of("np", &policies);
    one_of("adkim", &["r", "s"]);
    one_of("aspf", &["r", "s"]);
    one_of("psd", &["y", "n", "u"]);
    one_of("t", &["y", "n"]);
    if tags.get("p").is_none() {
        faults.push("it has no p=, which has to be its second tag".into());
    }
    if let Some(pct) = tags.get("pct").filter(|pct| !pct.parse::<u8>().is_ok_and(|pct| pct <= 100)) {
        faults.push(format!("pct={pct:.20}: expected 0 to 100"));
    }
    if let Some(ri) = tags.get("ri").filter(|ri| ri.parse::<u32>().is_err()) {
        faults.push(format!("ri={ri:.20}: expected seconds"));
    }
    if let Some(fo) = tags.get("fo").filter(|fo| !fo.split(':').all(|one| matches!(one.trim(), "0" | "1" | "d" | "s")))
    {
        faults.push(format!("fo={fo:.20}: expected 0, 1, d, s, with colons between"));
    }
    let uris = [("rua", tags.get("rua")), ("ruf", tags.get("ruf"))];
    for (tag, list) in uris.into_iter().filter_map(|(tag, list)| Some((tag, list?))) {
        for uri in list.split(',').map(str::trim) {
            if let Some(why) = uri_fault(uri, &["http", "https"]) {
                faults.push(format!("{tag}: {why}"));
            }
        }
    }
    faults
}

/// Whether somebody reads reports, and who has to agree to get them (RFC 7489 §7.1).
async fn reports(asker: &Asker<'_>, policy: &Policy) -> Vec<Finding> {
    const CHECK: &str = "DMARC reports";
    let Some(rua) = policy.tags.get("rua") else {
        let finding = Finding::note(CHECK, &policy.at, "there is no rua=: nobody tells who sends in its name");
        return vec![finding.with(format!("add rua=mailto:dmarc@{}", policy.at))];
    };
    let home = organization(asker, &policy.at).await.unwrap_or_else(|_| policy.at.clone());
    let mut findings = Vec::new();
    let mut domains: Vec<String> = rua.split(',').filter_map(|uri| mail_domain(uri.trim())).collect();
    domains.sort();
    domains.dedup();
    for to in domains.into_iter().take(MOST_URIS) {
        let inside = to == home || to.ends_with(&format!(".{home}")) || to == policy.at;
        if inside {
            continue;
        }
        if organization(asker, &to).await.is_ok_and(|organization| organization == home) {
            continue;
        }
        let name = format!("{}._report._dmarc.{to}", policy.at);
        findings.push(match asker.texts(&name).await {
            Ok(texts) if texts.iter().any(|text| is_record(text)) => {
                Finding::ok(CHECK, &policy.at, format!("{to} takes its reports"))
            }
            Ok(_) => Finding::note(
                CHECK,
                &policy.at,
                format!("{to} does not say that it takes its reports, so none are sent there"),
            )
            .with(format!("have {to} publish it, or name an address of your own in rua="))
            .publish(txt_line(&name, "v=DMARC1")),
            Err(why) => Finding::unknown(CHECK, &policy.at, why),
        });
    }
    if findings.is_empty() {
        findings.push(Finding::ok(CHECK, &policy.at, rua));
    }
    findings
}

/// Whether two domains have two labels or more in common.
fn is_related(a: &str, b: &str) -> bool {
    a.rsplit('.').zip(b.rsplit('.')).take_while(|(a, b)| a == b).count() >= 2
}

/// Whether SPF and DKIM of ours are for this domain.
async fn alignment(asker: &Asker<'_>, subject: &Subject, policy: &Policy) -> Vec<Finding> {
    const CHECK: &str = "alignment";
    let mut ways: Vec<(&str, &str, &str)> = vec![("SPF", &subject.envelope, "aspf")];
    let mut signers: Vec<&str> = subject.keys.iter().map(|dkim| &*dkim.domain).collect();
    signers.dedup();
    ways.extend(signers.into_iter().map(|signer| ("DKIM", signer, "adkim")));
    let mut judged = Vec::with_capacity(ways.len());
    for (what, domain, tag) in ways {
        let strict = policy.tags.get(tag).is_some_and(|mode| mode.eq_ignore_ascii_case("s"));
        let aligned = match (domain == subject.domain, strict) {
            (true, _) => Ok(true),
            (false, true) => Ok(false),
            (false, false) => {
                let (ours, its) = tokio::join!(organization(asker, &subject.domain), organization(asker, domain));
                ours.and_then(|ours| its.map(|its| ours == its))
            }
        };
        judged.push((what, domain, tag, strict, aligned));
    }
    // One of both is enough (RFC 7489 §6.6.2).
    let other = judged.iter().find(|(.., aligned)| *aligned == Ok(true)).map(|(what, ..)| *what);
    let mut findings = Vec::new();
    for (what, domain, tag, strict, aligned) in judged {
        let mode = if strict { "strict" } else { "relaxed" };
        findings.push(match aligned {
            Ok(true) => Finding::ok(
                CHECK,
                &subject.domain,
                format!("{what} of {domain} counts for {} ({mode})", subject.domain),
            ),
            // Who has a list of public suffixes may see one organization where no record says that there is one.
            Ok(false) if !strict && is_related(domain, &subject.domain) => {
                let found = format!(
                    "{what} of {domain} counts for {} where receivers know both for one organization",
                    subject.domain
                );
                Finding::note(CHECK, &subject.domain, found).with("publish a DMARC record at the domain above both")
            }
            Ok(false) => {
                let found = format!("{what} of {domain} does not count for {} ({mode})", subject.domain);
                let remedy = match strict {
                    true => format!("{tag}=s wants the same domain: use it, or take {tag}=s out of the record"),
                    false => "use a domain of the same organization".to_owned(),
                };
                match other {
                    Some(other) => Finding::note(CHECK, &subject.domain, found)
                        .with(format!("mail passes by {other} alone, as long as that holds; for both, {remedy}")),
                    None => Finding::failed(CHECK, &subject.domain, found).with(remedy),
                }
            }
            Err(why) => Finding::unknown(CHECK, &subject.domain, why),
        });
    }
    findings
}
