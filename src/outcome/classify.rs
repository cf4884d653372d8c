//! All failure policy, in ONE table: what a fact means for the recipient, and how far it reaches.
//!
//! The provider's rules come first ([`by_rule`]); then the first row that matches decides. Nothing else in mailweir turns a reply or an error into
//! "delivered", "again" or "failed". `docs/operations.md` explains the table to administrators.

use std::time::Duration;

use crate::config::{ReplyRule, RuleAction, RuleScope};
use crate::deliver::{Event, Fact, Reply, Stage};
use crate::shape::adapt::is_throttle as slows;

/// What becomes of the recipient.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// Accepted upstream.
    Delivered,
    /// Try again later.
    Again {
        /// It was an attempt (else it was not really tried).
        counts: bool,
        /// The final reply was lost: it may have arrived.
        uncertain: bool,
    },
    /// Try again at once on another connection; not an attempt. Later if it happens again.
    AtOnce,
    /// Back to the lane, which a rule or a refused connection has narrowed: it leaves when the lane lets
    /// it, behind those that were not refused. Later if that happens again and again.
    Back {
        /// It was an attempt.
        counts: bool,
    },
    /// Back to the front of the lane, which has connections that work, without an attempt or a wait, however often: the
    /// host took no further connection, which says nothing of this message.
    Front,
    /// Permanent failure.
    Fail,
}

/// How far a fact reaches; never wider than it says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// This recipient.
    Recipient,
    /// All recipients of this message in this transaction.
    Message,
    /// This connection: close it.
    Connection,
    /// This host: try the next one.
    Host,
    /// The provider refuses us altogether: stop, alert, probe.
    Provider,
}

/// The judgement of one fact.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Judgement {
    /// For the recipient.
    pub fate: Fate,
    /// Reach.
    pub scope: Scope,
    /// "Slow down" rather than "this message is bad": a rule says so, or the lane has learned it.
    pub throttled: bool,
    /// The row's reason, for `queue show` and debugging.
    pub why: &'static str,
    /// How long a rule makes the recipient wait, instead of the retry schedule.
    pub delay: Option<Duration>,
    /// A rule of the provider decided.
    pub ruled: bool,
}

/// Those that wait for a host that does not answer come a little later than the one that probes.
const AFTER_PROBE: Duration = Duration::from_secs(1);

/// As a failed attempt: again by the retry schedule.
pub(crate) const LATER: Fate = Fate::Again { counts: true, uncertain: false };
const UNTRIED: Fate = Fate::Again { counts: false, uncertain: false };
const UNCERTAIN: Fate = Fate::Again { counts: true, uncertain: true };

struct Row {
    when: fn(&Fact) -> bool,
    fate: Fate,
    scope: Scope,
    why: &'static str,
}

const fn row(when: fn(&Fact) -> bool, fate: Fate, scope: Scope, why: &'static str) -> Row {
    Row { when, fate, scope, why }
}

/// The table.
const TABLE: &[Row] = &[
    row(|f| f.stage == Stage::Final && reply(f, Reply::is_positive), Fate::Delivered, Scope::Recipient, "accepted"),
    // --- the way there ---
    row(
        |f| matches!(f.event, Event::NoRoute { permanent: true, .. }),
        Fate::Fail,
        Scope::Recipient,
        "no way to the domain",
    ),
    row(|f| matches!(f.event, Event::NoRoute { .. }), LATER, Scope::Recipient, "no way to the domain for now"),
    // A smart host that refuses our password refuses everything: keep the mail, tell the operator.
    row(
        |f| f.stage == Stage::Auth && reply(f, Reply::is_permanent),
        LATER,
        Scope::Provider,
        "the server refuses our credentials",
    ),
    row(
        |f| f.stage == Stage::Auth && matches!(f.event, Event::Missing(_)),
        LATER,
        Scope::Provider,
        "the server offers no way to log in that is known here",
    ),
    // Nobody was asked, and whoever gives tokens out is asked again soon.
    row(
        |f| matches!(f.event, Event::NoToken { .. }),
        UNTRIED,
        Scope::Host,
        "there is no token to log in with, and nobody was asked",
    ),
    row(|f| f.stage == Stage::Auth, LATER, Scope::Host, "authentication did not work this time"),
    // It speaks of the extension and not of the message; what the host is without is remembered.
    row(
        |f| matches!(f.event, Event::Extension { .. }),
        Fate::AtOnce,
        Scope::Connection,
        "the host refuses an extension that it offers",
    ),
    // A 5yz to STARTTLS speaks of TLS and not of the message.
    row(
        |f| matches!(f.event, Event::Tls(_)) || f.stage == Stage::StartTls && !reply(f, |r| r.code == 421),
        LATER,
        Scope::Host,
        "TLS did not work as the policy demands",
    ),
    // --- our own side ---
    row(|f| matches!(f.event, Event::Unsendable { .. }), Fate::Fail, Scope::Message, "cannot be sent to this host"),
    row(|f| matches!(f.event, Event::Local(_)), UNTRIED, Scope::Message, "the body could not be read or signed"),
    row(|f| matches!(f.event, Event::Held(_)), UNTRIED, Scope::Recipient, "held back by our own limit"),
    // --- replies whose code alone misleads ---
    // RFC 5321 §4.5.3.1.10; RFC 3463 X.5.3; some servers say 552 as RFC 821 did.
    row(
        |f| f.stage == Stage::Rcpt && reply(f, too_many_recipients),
        Fate::AtOnce,
        Scope::Recipient,
        "too many recipients in one transaction",
    ),
    // 550 of QQ and others that only means "slow down".
    row(|f| reply(f, |r| r.is_permanent() && has(r, &["frequency limited"])), LATER, Scope::Message, "slow down"),
    // RFC 5321 §3.8: the server closes the channel; what was not accepted was not tried.
    row(
        |f| f.stage != Stage::Final && reply(f, |r| r.code == 421),
        Fate::AtOnce,
        Scope::Connection,
        "the server closes this connection",
    ),
    row(
        |f| matches!(f.event, Event::BackOff { .. }),
        UNTRIED,
        Scope::Host,
        "no host has answered lately, the next try is not due",
    ),
    // --- the greeting and EHLO judge the host, not the message ---
    row(
        |f| before_mail(f.stage) && reply(f, Reply::is_permanent),
        Fate::Fail,
        Scope::Host,
        "the host does not talk to us",
    ),
    row(|f| before_mail(f.stage), LATER, Scope::Host, "the host cannot be reached or is not ready"),
    // --- a connection that was closed while idle, or at the server's own limit of messages ---
    row(
        |f| f.stage == Stage::Mail && matches!(f.event, Event::Closed | Event::Io(_)),
        Fate::AtOnce,
        Scope::Connection,
        "the connection was closed between messages",
    ),
    row(|f| f.stage == Stage::Idle, Fate::AtOnce, Scope::Connection, "the connection ended between messages"),
    // --- the final reply is lost: it may have arrived (RFC 1047) ---
    row(
        |f| f.stage == Stage::Final && !matches!(f.event, Event::Reply(_)),
        UNCERTAIN,
        Scope::Connection,
        "no final reply: it may have arrived",
    ),
    // --- ordinary replies ---
    row(
        |f| f.stage == Stage::Rcpt && reply(f, Reply::is_permanent),
        Fate::Fail,
        Scope::Recipient,
        "the recipient was refused",
    ),
    row(|f| f.stage == Stage::Rcpt && reply(f, |_| true), LATER, Scope::Recipient, "the recipient was refused for now"),
    row(|f| reply(f, Reply::is_permanent), Fate::Fail, Scope::Message, "the message was refused"),
    row(|f| reply(f, |_| true), LATER, Scope::Message, "the message was refused for now"),
    // --- everything else is trouble on the line ---
    row(|_| true, LATER, Scope::Connection, "the connection failed"),
];

fn reply(fact: &Fact, test: impl Fn(&Reply) -> bool) -> bool {
    matches!(&fact.event, Event::Reply(r) if test(r))
}

fn before_mail(stage: Stage) -> bool {
    matches!(stage, Stage::Route | Stage::Connect | Stage::Greeting | Stage::Ehlo | Stage::StartTls)
}

/// Believed only where others of the transaction were taken, see `settle`. X.5.3 comes with any code; a 552
/// without an enhanced code is what RFC 821 servers say.
fn too_many_recipients(reply: &Reply) -> bool {
    match (reply.code, reply.enhanced) {
        (452 | 552, None) => true,
        (452, Some((_, 3, 1))) => true,
        (400.., Some((_, 5, 3))) => true,
        (452 | 550 | 552 | 554, _) => has(reply, &["too many recipients"]),
        _ => false,
    }
}

/// A refusal that is about us and not about the message: we have to log in first, or to encrypt. The codes
/// say so (RFC 4954 §6), or the words do.
pub fn wants_login(fact: &Fact) -> bool {
    let says = |r: &Reply| {
        let names_it = has(
            r,
            &["authenticat", " auth ", "auth first", "auth command", "auth required", "log in first", "login required"],
        );
        let demands = has(r, &["requir", "must", "need", "please", "first", "before", "turn on", "not ", "un"]);
        // Those authenticate a message and its sender, which is the message's fate.
        let other = has(r, &["spf", "dkim", "dmarc", "arc ", "sender domain", "from domain"]);
        r.is_permanent() && matches!(r.enhanced, None | Some((_, 5 | 7, _))) && names_it && demands && !other
    };
    let code = |r: &Reply| matches!(r.code, 530 | 534 | 535 | 538) || r.code == 523 && has(r, &["encrypt"]);
    match fact.stage {
        Stage::Mail | Stage::Rcpt | Stage::Data => reply(fact, |r| code(r) || says(r)),
        Stage::Final => reply(fact, code),
        _ => false,
    }
}

fn has(reply: &Reply, words: &[&str]) -> bool {
    let text = reply.text.to_ascii_lowercase();
    words.iter().any(|word| text.contains(word))
}

/// Of the replies that ask for a login those that ask for TLS before it (RFC 3207 §4, RFC 4954 §6).
fn wants_tls(reply: &Reply) -> bool {
    has(reply, &["starttls", "encrypt", "tls required", "requires tls", "tls is required"])
        || matches!(reply.enhanced, Some((5, 7, 10 | 11)))
}

/// The judgement of a fact that [`wants_login`]. A smart host that does refuses us altogether, since somebody
/// forgot `auth`; an MX host that does is set up wrongly, and others of the lane have nothing to do with it.
/// One that `took` mail of ours lately means this recipient (a group that takes no mail from outside), or this
/// sender, who may be allowed later.
pub fn not_logged_in(usual: Judgement, fact: &Fact, smart_host: bool, took: bool) -> Judgement {
    let why = if reply(fact, wants_tls) { "the server wants TLS first" } else { "the server wants us to log in first" };
    if took && fact.stage == Stage::Rcpt {
        return usual;
    }
    let scope = if smart_host && !took { Scope::Provider } else { usual.scope };
    Judgement { fate: LATER, scope, throttled: false, why, ..usual }
}

/// Judges one fact.
pub fn judge(fact: &Fact) -> Judgement {
    for row in TABLE {
        if (row.when)(fact) {
            return judgement(row.fate, row.scope, row.why);
        }
    }
    judgement(LATER, Scope::Connection, "the connection failed")
}

const fn judgement(fate: Fate, scope: Scope, why: &'static str) -> Judgement {
    Judgement { fate, scope, throttled: false, why, delay: None, ruled: false }
}

/// Judges a reply by a rule that acts: its scope, its delay, and what it treats the reply as. A
/// rule that slows, pauses or delays says by that that the refusal is not for good.
pub fn by_rule(rule: &ReplyRule, fact: &Fact) -> Judgement {
    let usual = judge(fact);
    let has = |wanted: RuleAction| rule.actions.contains(&wanted);
    let delay = rule.actions.iter().find_map(|action| match action {
        RuleAction::Delay(delay) => Some(*delay),
        _ => None,
    });
    let (throttled, lane) = (slows(rule), matches!(rule.scope, RuleScope::Provider | RuleScope::Account));
    let fate = if has(RuleAction::Permanent) {
        Fate::Fail
    } else if usual.fate == Fate::AtOnce {
        Fate::AtOnce
    } else if throttled && lane && delay.is_none() {
        Fate::Back { counts: !matches!(usual.fate, Fate::Again { counts: false, .. }) }
    } else if usual.fate == Fate::Fail && (throttled || has(RuleAction::Temporary)) {
        LATER
    } else {
        usual.fate
    };
    let scope = match rule.scope {
        RuleScope::Recipient => Scope::Recipient,
        RuleScope::Connection => Scope::Connection,
        RuleScope::Provider | RuleScope::Account => Scope::Provider,
    };
    let why = if fate == Fate::Fail { "a rule says it is refused" } else { "a rule says what this means" };
    Judgement { fate, scope, throttled, why, delay, ruled: true }
}

/// Judges a route none of whose hosts took us, from what each of them said; returns the judgement
/// and the fact to tell. It fails only when every MX said 5yz, none of them left out; a smart host never fails a message
/// by refusing the connection, because that is a matter of its operator or ours.
pub fn judge_unreached<'f>(
    facts: &'f [Fact],
    smart_host: bool,
    judge: &mut dyn FnMut(&Fact) -> Judgement,
) -> (Judgement, Option<&'f Fact>) {
    let judged: Vec<(Judgement, &Fact)> = facts.iter().map(|fact| (judge(fact), fact)).collect();
    let Some((first, _)) = judged.first() else {
        let why = "no host was tried";
        return (judgement(UNTRIED, Scope::Host, why), None);
    };
    if let Some((judgement, fact)) = judged.iter().find(|(j, _)| j.scope == Scope::Provider || j.ruled) {
        return (*judgement, Some(fact));
    }
    if !smart_host && judged.iter().all(|(j, _)| j.fate == Fate::Fail) {
        return (*first, judged.first().map(|(_, fact)| *fact));
    }
    // The last one tried is the least preferred; what the best host said explains most, unless it
    // said 5yz while another one only failed for now. Who was not asked explains nothing.
    let for_now = |(j, fact): &&(Judgement, &Fact)| j.fate != Fate::Fail && !matches!(fact.event, Event::LeftOut(_));
    let replied = |(_, fact): &&(Judgement, &Fact)| matches!(fact.event, Event::Reply(_));
    // Of a smart host, whoever answered knows more than an address at which nobody listens.
    let answered = judged.iter().filter(for_now).find(replied).or_else(|| judged.iter().find(replied));
    let told = answered.filter(|_| smart_host).or_else(|| judged.iter().find(for_now)).or(judged.first());
    let (scope, why) = told.map_or((Scope::Host, first.why), |(j, _)| (j.scope, j.why));
    // A connection too many, or a host that is known to be down, was no attempt.
    let fate = match told.map(|(j, _)| j.fate) {
        Some(fate @ (Fate::Back { .. } | UNTRIED)) => fate,
        _ => LATER,
    };
    let delay = told.and_then(|(_, fact)| match fact.event {
        // A little later than the one that probes.
        Event::BackOff { left, .. } => Some(left + AFTER_PROBE),
        // This is the one.
        Event::NoToken { left, .. } => Some(left),
        _ => None,
    });
    (Judgement { delay, ..judgement(fate, scope, why) }, told.map(|(_, fact)| *fact))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn said(stage: Stage, code: u16, enhanced: Option<(u8, u16, u16)>, text: &str) -> Fact {
        Fact { stage, event: Event::Reply(Reply { code, enhanced, text: text.into() }), peer: None }
    }

    fn event(stage: Stage, event: Event) -> Fact {
        Fact { stage, event, peer: None }
    }

    #[test]
    fn the_table_row_by_row() {
        let cases: Vec<(Fact, Fate, Scope)> = vec![
            (said(Stage::Final, 250, None, ""), Fate::Delivered, Scope::Recipient),
            (said(Stage::Rcpt, 550, Some((5, 1, 1)), "no such user"), Fate::Fail, Scope::Recipient),
            (said(Stage::Rcpt, 450, Some((4, 2, 1)), "greylisted"), LATER, Scope::Recipient),
            (said(Stage::Rcpt, 452, Some((4, 5, 3)), "Too many recipients"), Fate::AtOnce, Scope::Recipient),
            (said(Stage::Rcpt, 552, Some((5, 5, 3)), "recipients"), Fate::AtOnce, Scope::Recipient),
            (said(Stage::Rcpt, 552, Some((5, 2, 2)), "mailbox full"), Fate::Fail, Scope::Recipient),
            (said(Stage::Rcpt, 452, Some((4, 2, 2)), "mailbox full"), LATER, Scope::Recipient),
            (said(Stage::Mail, 550, Some((5, 7, 1)), "sender refused"), Fate::Fail, Scope::Message),
            (said(Stage::Mail, 451, None, "later"), LATER, Scope::Message),
            (said(Stage::Mail, 421, None, "closing"), Fate::AtOnce, Scope::Connection),
            (said(Stage::Mail, 421, Some((4, 7, 0)), "Try again later"), Fate::AtOnce, Scope::Connection),
            (said(Stage::Final, 451, Some((4, 7, 1)), "Try again later"), LATER, Scope::Message),
            (said(Stage::Mail, 451, None, "too many messages"), LATER, Scope::Message),
            (said(Stage::Final, 421, None, "closing"), LATER, Scope::Message),
            (said(Stage::Final, 554, Some((5, 7, 1)), "spam"), Fate::Fail, Scope::Message),
            (said(Stage::Final, 452, Some((4, 3, 1)), "disk full"), LATER, Scope::Message),
            (said(Stage::Final, 550, None, "Ip frequency limited"), LATER, Scope::Message),
            (said(Stage::Data, 554, None, "no valid recipients"), Fate::Fail, Scope::Message),
            (said(Stage::Greeting, 554, None, "go away"), Fate::Fail, Scope::Host),
            (said(Stage::Greeting, 421, None, "busy"), Fate::AtOnce, Scope::Connection),
            (said(Stage::Auth, 535, Some((5, 7, 8)), "bad password"), LATER, Scope::Provider),
            (said(Stage::Auth, 454, None, "later"), LATER, Scope::Host),
            (event(Stage::StartTls, Event::Tls("expired".into())), LATER, Scope::Host),
            (said(Stage::StartTls, 554, Some((5, 7, 3)), "no TLS today"), LATER, Scope::Host),
            (
                event(Stage::Auth, Event::NoToken { left: Duration::from_secs(60), why: "refused".into() }),
                UNTRIED,
                Scope::Host,
            ),
            (event(Stage::Auth, Event::Tls("clear text".into())), LATER, Scope::Host),
            (event(Stage::Connect, Event::Io("refused".into())), LATER, Scope::Host),
            (event(Stage::Greeting, Event::Timeout(Duration::from_secs(300))), LATER, Scope::Host),
            (event(Stage::Mail, Event::Closed), Fate::AtOnce, Scope::Connection),
            (event(Stage::Rcpt, Event::Closed), LATER, Scope::Connection),
            (event(Stage::Body, Event::Closed), LATER, Scope::Connection),
            (event(Stage::Final, Event::Closed), UNCERTAIN, Scope::Connection),
            (event(Stage::Final, Event::Timeout(Duration::from_secs(600))), UNCERTAIN, Scope::Connection),
            (event(Stage::Final, Event::Garbled("x".into())), UNCERTAIN, Scope::Connection),
            (event(Stage::Rcpt, Event::Garbled("x".into())), LATER, Scope::Connection),
            (
                event(Stage::Mail, Event::Unsendable { enhanced: "5.6.7", text: String::new() }),
                Fate::Fail,
                Scope::Message,
            ),
            (event(Stage::Body, Event::Local("disk".into())), UNTRIED, Scope::Message),
        ];
        for (fact, fate, scope) in cases {
            let judgement = judge(&fact);
            assert_eq!((judgement.fate, judgement.scope), (fate, scope), "{fact:?}: {}", judgement.why);
        }
    }

    /// docs/operations.md has a line for each row, in the order of the table; the last column, what
    /// it means for an administrator, is written by hand.
    #[test]
    fn the_operations_manual_explains_every_row() {
        let page = include_str!("../../docs/operations.md");
        let fate = |row: &Row| match row.fate {
            Fate::Delivered => "delivered",
            Fate::Again { uncertain: true, .. } => "again later, *uncertain*",
            Fate::Again { counts: true, .. } => "again later",
            Fate::Again { counts: false, .. } => "again later, no attempt counted",
            Fate::AtOnce => "again at once",
            Fate::Back { .. } | Fate::Front => "again at the lane's pace",
            Fate::Fail => "bounce",
        };
        let scope = |row: &Row| match row.scope {
            Scope::Recipient => "recipient",
            Scope::Message => "message",
            Scope::Connection => "connection",
            Scope::Host => "host",
            Scope::Provider => "provider",
        };
        let wanted: Vec<String> =
            TABLE.iter().map(|row| format!("| {} | {} | {} | ", row.why, fate(row), scope(row))).collect();
        let lines: Vec<&str> = page
            .lines()
            .skip_while(|line| !line.starts_with("| `why` | what becomes"))
            .skip(2)
            .take_while(|line| line.starts_with('|'))
            .collect();
        for (line, wanted) in lines.iter().zip(&wanted) {
            let meaning = line.strip_prefix(wanted.as_str());
            assert!(meaning.is_some_and(|m| m.len() > 20), "expected `{wanted}…` instead of `{line}`");
        }
        assert_eq!(lines.len(), wanted.len(), "{}", wanted.join("\n"));
    }

    /// `localhost` is ::1 and 127.0.0.1, and often only one of them listens.
    #[test]
    fn of_a_smart_host_the_address_that_answered_is_told() {
        let refused = event(Stage::Connect, Event::Io("connection refused".into()));
        for answer in [said(Stage::Greeting, 554, Some((5, 7, 1)), "go away"), said(Stage::Greeting, 451, None, "busy")]
        {
            let facts = [refused.clone(), answer.clone()];
            let (judgement, told) = judge_unreached(&facts, true, &mut judge);
            assert_eq!((judgement.fate, told), (LATER, Some(&answer)), "{answer}");
        }
        let facts = [refused.clone(), said(Stage::Greeting, 554, None, "go away")];
        assert_eq!(
            judge_unreached(&facts, false, &mut judge).1,
            Some(&refused),
            "of MX hosts the one that may be back"
        );
    }

    #[test]
    fn a_smart_host_that_wants_a_login_refuses_us_and_not_the_message() {
        let wanted = [
            said(Stage::Mail, 530, Some((5, 7, 0)), "Authentication required"),
            said(Stage::Mail, 530, None, "5.7.1 Client was not authenticated"),
            said(Stage::Rcpt, 550, Some((5, 7, 1)), "This server REQUIRES AUTHENTICATION"),
            said(Stage::Rcpt, 554, Some((5, 7, 1)), "<a@b>: Sender address rejected: not logged in, login required"),
            said(Stage::Rcpt, 550, None, "authentication is required for relaying"),
            said(Stage::Mail, 503, None, "Error: need EHLO and AUTH first !"),
            said(Stage::Mail, 503, Some((5, 5, 4)), "Error: send AUTH command first."),
            said(Stage::Mail, 503, None, "AUTH first (#5.5.1)"),
            said(Stage::Rcpt, 550, None, "Please turn on SMTP Authentication in your mail client."),
            said(Stage::Mail, 513, None, "Relaying denied. Please authenticate"),
            said(Stage::Mail, 535, Some((5, 7, 3)), "Authentication unsuccessful"),
            said(Stage::Mail, 523, Some((5, 7, 10)), "Encryption needed"),
            said(Stage::Mail, 538, Some((5, 7, 11)), "Encryption required"),
            said(Stage::Final, 530, Some((5, 7, 57)), "Client not authenticated to send mail"),
        ];
        for fact in &wanted {
            assert!(wants_login(fact), "{fact}");
            let judgement = not_logged_in(judge(fact), fact, true, false);
            assert_eq!((judgement.fate, judgement.scope), (LATER, Scope::Provider), "{fact}");
            for (smart_host, took) in [(false, false), (true, true)] {
                let judgement = not_logged_in(judge(fact), fact, smart_host, took);
                let fate = if took && fact.stage == Stage::Rcpt { Fate::Fail } else { LATER };
                assert_eq!(judgement.fate, fate, "{fact}");
                assert_ne!(judgement.scope, Scope::Provider, "{fact}");
            }
        }
        for fact in [
            said(Stage::Rcpt, 550, Some((5, 1, 1)), "authentication required"),
            said(Stage::Rcpt, 550, Some((5, 7, 1)), "SPF authentication failed"),
            said(Stage::Rcpt, 550, Some((5, 7, 1)), "you are not authorized to send mail here"),
            said(Stage::Mail, 550, Some((5, 7, 26)), "not accepted: DMARC authentication of the sender is required"),
            said(Stage::Rcpt, 503, None, "need MAIL first"),
            said(Stage::Rcpt, 550, None, "no such user: authors@x.example"),
            said(Stage::Final, 550, Some((5, 7, 26)), "unauthenticated email is not accepted"),
            said(Stage::Rcpt, 450, Some((4, 7, 1)), "authentication required"),
        ] {
            assert!(!wants_login(&fact), "{fact}");
        }
    }

    #[test]
    fn a_server_that_wants_tls_is_not_told_to_want_a_login() {
        for (code, enhanced, text, tls) in [
            (530, None, "Must issue a STARTTLS command first", true),
            (530, Some((5, 7, 0)), "Must issue a STARTTLS command first", true),
            (538, Some((5, 7, 11)), "Encryption required", true),
            (530, Some((5, 7, 0)), "Authentication required", false),
            (535, Some((5, 7, 8)), "Authentication failed", false),
        ] {
            let fact = said(Stage::Mail, code, enhanced, text);
            assert!(wants_login(&fact), "{fact}");
            let judgement = not_logged_in(judge(&fact), &fact, true, false);
            let why = if tls { "the server wants TLS first" } else { "the server wants us to log in first" };
            assert_eq!((judgement.why, judgement.fate, judgement.scope), (why, LATER, Scope::Provider), "{fact}");
        }
    }

    #[test]
    fn x_5_3_is_too_many_recipients_with_any_code() {
        for code in [450, 451, 452, 550, 552] {
            let class = (code / 100) as u8;
            let judgement = judge(&said(Stage::Rcpt, code, Some((class, 5, 3)), "x"));
            assert_eq!((judgement.fate, judgement.scope), (Fate::AtOnce, Scope::Recipient), "{code}");
        }
        assert_eq!(judge(&said(Stage::Rcpt, 552, None, "storage")).fate, Fate::AtOnce, "alone it fails, see `settle`");
        assert_eq!(judge(&said(Stage::Rcpt, 552, Some((5, 2, 2)), "mailbox full")).fate, Fate::Fail);
        assert_eq!(judge(&said(Stage::Rcpt, 554, Some((5, 5, 3)), "x")).fate, Fate::AtOnce);
        assert_eq!(judge(&said(Stage::Rcpt, 550, None, "Too many recipients")).fate, Fate::AtOnce);
    }

    #[test]
    fn rules_come_first_and_reach_no_further_than_they_say() {
        let rule = |scope, actions: &[RuleAction]| ReplyRule {
            origin: "config.toml:1".into(),
            stage: None,
            code: None,
            enhanced: None,
            text: None,
            scope,
            actions: actions.to_vec(),
            lasting: Duration::from_secs(60),
            after: None,
        };
        let (no, later) = (said(Stage::Rcpt, 550, None, "no"), said(Stage::Rcpt, 450, None, "later"));
        let wait = RuleAction::Delay(Duration::from_secs(3600));
        let cases = [
            (&no, rule(RuleScope::Recipient, &[RuleAction::Temporary]), LATER, Scope::Recipient, None),
            (&later, rule(RuleScope::Recipient, &[RuleAction::Permanent]), Fate::Fail, Scope::Recipient, None),
            (&no, rule(RuleScope::Recipient, &[wait]), LATER, Scope::Recipient, Some(3600)),
            (
                &later,
                rule(RuleScope::Provider, &[RuleAction::Pause]),
                Fate::Back { counts: true },
                Scope::Provider,
                None,
            ),
            (&no, rule(RuleScope::Account, &[RuleAction::Pause, wait]), LATER, Scope::Provider, Some(3600)),
            (&no, rule(RuleScope::Provider, &[RuleAction::Alert]), Fate::Fail, Scope::Provider, None),
            (&later, rule(RuleScope::Connection, &[RuleAction::Connections(1)]), LATER, Scope::Connection, None),
        ];
        for (fact, rule, fate, scope, delay) in cases {
            let j = by_rule(&rule, fact);
            assert_eq!((j.fate, j.scope, j.delay.map(|d| d.as_secs())), (fate, scope, delay), "{rule:?}");
            assert!(j.ruled);
        }
    }

    /// What six English phrases once decided is for behaviour to show, see `shape::adapt`.
    #[test]
    fn no_words_make_a_refusal_more_than_one() {
        for text in ["too many hops", "rate limit", "Greylisted, try again later", "throttled", "慢一点"] {
            for stage in [Stage::Mail, Stage::Rcpt, Stage::Final] {
                let judgement = judge(&said(stage, 451, Some((4, 7, 1)), text));
                assert_eq!((judgement.fate, judgement.throttled), (LATER, false), "{stage} {text}");
            }
        }
    }

    #[test]
    fn only_a_final_acceptance_is_delivery() {
        for stage in [Stage::Mail, Stage::Rcpt, Stage::Data, Stage::Body, Stage::Auth, Stage::Ehlo, Stage::Idle] {
            assert_ne!(judge(&said(stage, 250, None, "ok")).fate, Fate::Delivered, "{stage}");
        }
    }

    #[test]
    fn bounces_only_when_every_mx_said_5xx_and_never_for_a_smart_host() {
        let no = said(Stage::Greeting, 554, None, "go away");
        let down = event(Stage::Connect, Event::Io("connection refused".into()));
        assert_eq!(judge_unreached(&[no.clone(), no.clone()], false, &mut judge).0.fate, Fate::Fail);
        let both = [no.clone(), down.clone()];
        let (mixed, told) = judge_unreached(&both, false, &mut judge);
        assert_eq!((mixed.fate, told), (LATER, Some(&down)));
        let left_out = event(Stage::Connect, Event::LeftOut("no more connections for now"));
        let facts = [no.clone(), left_out];
        let (open, told) = judge_unreached(&facts, false, &mut judge);
        assert_eq!((open.fate, told), (LATER, Some(&no)), "nobody knows what the other one says");
        assert_eq!(judge_unreached(&[no], true, &mut judge).0.fate, LATER);
        assert_eq!(judge_unreached(&[], false, &mut judge).0.fate, UNTRIED);
        // Asks again when its token may be asked for again, and not by the schedule of retries.
        let left = Duration::from_secs(7);
        let no_token = Fact { stage: Stage::Auth, event: Event::NoToken { left, why: "refused".into() }, peer: None };
        let (judged, _) = judge_unreached(&[no_token], true, &mut judge);
        assert_eq!((judged.fate, judged.delay), (UNTRIED, Some(left)));
    }
}
