//! `[[rewrite]]` and `[[copy]]`: what a gateway does with mail of programs that nobody can teach: another sender, and a
//! copy for an archive.

use std::sync::Arc;

use super::fields::Field;
use super::file::{Draft, Reader};
use super::keys::{Key, Table, keys};
use super::units::Pattern;
use super::users::Users;
use super::value::Kind;
use super::{Listener, Sandbox, Srs};
use crate::clock::Timestamp;
use crate::mail::srs::SrsError;
use crate::mail::{Address, LocalNames, Spellings};

/// A `[[rewrite]]` as it was written.
#[derive(Clone, Debug)]
pub(super) struct RewriteDraft {
    pub address: Option<Pattern>,
    pub user: Option<String>,
    pub to: Option<Pattern>,
    pub envelope: bool,
    pub header: bool,
    pub reply_to: bool,
    pub keep_as_reply_to: bool,
    pub srs: bool,
}

impl Table for RewriteDraft {
    const NAME: &'static str = "rewrite";
    const KEYS: &'static [Key<RewriteDraft>] = keys! {
        /// Addresses that get another one. A name without a domain counts with `default_domain`.
        "address" address: Kind::MailPattern(false), example r#""*@*.lan""#;
        /// Only in mail of clients that had logged in as this `[[user]]`. Without it: whoever sends.
        "user" user: Kind::UserName, example r#""printers""#;
        /// The address instead; `*` before its `@` stands for what was there.
        "to" to: Kind::MailPattern(false), example r#""*@shop.example""#;
        /// As the reverse-path (MAIL FROM), where bounces go.
        "envelope" envelope: Kind::Flag, default "true";
        /// In the fields From and Sender (and Resent-From, Resent-Sender), which people see.
        "header" header: Kind::Flag, default "true";
        /// In Reply-To, too.
        "reply_to" reply_to: Kind::Flag, default "false";
        /// A message whose From is changed gets a Reply-To with what it was, where it has none.
        "keep_as_reply_to" keep_as_reply_to: Kind::Flag, default "false";
        /// Instead of `to`: the reverse-path becomes an address of [srs] that leads bounces back to who it was. The header
        /// stays as it is.
        "srs" srs: Kind::Flag, default "false";
    };

    fn blank() -> RewriteDraft {
        RewriteDraft {
            address: None,
            user: None,
            to: None,
            envelope: false,
            header: false,
            reply_to: false,
            keep_as_reply_to: false,
            srs: false,
        }
    }
}

/// A `[[copy]]` as it was written.
#[derive(Clone, Debug)]
pub(super) struct CopyDraft {
    pub to: Option<Pattern>,
    pub sender: Pattern,
    pub recipient: Pattern,
    pub user: Option<String>,
}

impl Table for CopyDraft {
    const NAME: &'static str = "copy";
    const KEYS: &'static [Key<CopyDraft>] = keys! {
        /// Who gets a copy of each message that matches, as it goes to the others. A copy that fails is nobody's bounce:
        /// the log and `mailweir queue list --state failed` tell.
        "to" to: Kind::MailAddress, example r#""archive@shop.example""#;
        /// Messages with such a reverse-path, after `[[rewrite]]`. "<>" is the null sender of bounces.
        "sender" sender: Kind::MailPattern(true), default r#""*""#;
        /// Messages with such a recipient among theirs.
        "recipient" recipient: Kind::MailPattern(false), default r#""*""#;
        /// Messages of clients that had logged in as this `[[user]]`. Without it: whoever sends.
        "user" user: Kind::UserName, example r#""shop""#;
    };

    fn blank() -> CopyDraft {
        CopyDraft { to: None, sender: Pattern::any(), recipient: Pattern::any(), user: None }
    }
}

/// Where an address stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// The reverse-path.
    Envelope,
    /// From, Sender and the like.
    Header,
    /// Reply-To.
    ReplyTo,
}

/// What comes in the place of an address.
#[derive(Clone, PartialEq, Debug)]
enum Instead {
    /// This address.
    Mailbox {
        /// `None`: what was there.
        local: Option<String>,
        domain: String,
    },
    /// One that leads back.
    Srs(Arc<Srs>),
}

/// `[[rewrite]]`, checked.
#[derive(Clone, PartialEq, Debug)]
pub struct Rewrite {
    address: Pattern,
    user: Option<String>,
    to: Instead,
    envelope: bool,
    header: bool,
    reply_to: bool,
    keep_as_reply_to: bool,
}

/// All of them, in the order of the file: the first that matches an address decides. With `[srs]`, which leads back.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Rewrites {
    rules: Vec<Rewrite>,
    srs: Option<Arc<Srs>>,
}

/// What becomes of an address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rewritten {
    /// What it was, with its domain.
    pub was: Address,
    /// What it is.
    pub is: Address,
    /// A Reply-To has what it was.
    pub keep_as_reply_to: bool,
}

impl Rewrites {
    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// There are some for fields of the header.
    pub fn touch_header(&self) -> bool {
        self.rules.iter().any(|rule| rule.header || rule.reply_to)
    }

    /// Some keep what From was.
    pub fn keep_as_reply_to(&self) -> bool {
        self.rules.iter().any(|rule| rule.keep_as_reply_to)
    }

    /// What becomes of an address in mail of `user` (empty: nobody has logged in) that comes `now`; `None`: it stays.
    pub fn of(&self, was: &Address, place: Place, user: &str, now: Timestamp) -> Option<Rewritten> {
        let spellings = Spellings::of(Some(was));
        let rule = self.rules.iter().find(|rule| {
            let in_place = match place {
                Place::Envelope => rule.envelope,
                Place::Header => rule.header,
                Place::ReplyTo => rule.reply_to,
            };
            in_place && rule.user.as_ref().is_none_or(|of| of == user) && rule.address.matches_mailbox(&spellings)
        })?;
        let is = rule.to.of(was, now).filter(|is| is != was)?;
        Some(Rewritten { was: was.clone(), is, keep_as_reply_to: rule.keep_as_reply_to })
    }

    /// The same of an address as it stands in a field.
    pub fn in_field(&self, text: &str, place: Place, user: &str, names: &LocalNames) -> Option<Rewritten> {
        // No address in a field depends on the time.
        self.of(&names.qualify(text).ok()?, place, user, Timestamp(0))
    }

    /// Who a recipient, or the sender of what fails, stands for by `[srs]`; `None`: for himself.
    pub fn led_back(&self, address: &Address, now: Timestamp) -> Option<Result<Address, SrsError>> {
        self.srs.as_ref()?.reverse(address, now)
    }
}

impl Instead {
    fn of(&self, was: &Address, now: Timestamp) -> Option<Address> {
        match self {
            Instead::Mailbox { local, domain } => {
                let local = local.as_deref().unwrap_or(was.local());
                Address::parse(&format!("{local}@{domain}")).ok()
            }
            Instead::Srs(srs) => srs.forward(was, now),
        }
    }
}

impl Rewrite {
    /// Whether it decides on every reverse-path of a pattern, whoever sends.
    fn decides_on(&self, senders: &Pattern) -> bool {
        let all = ["*", "*@*"].contains(&self.address.as_str());
        self.envelope && self.user.is_none() && (all || self.address == *senders)
    }

    /// Of those of a pattern, on which it decides, none is of that pattern any more.
    fn leaves_none_of(&self, senders: &Pattern) -> bool {
        let text = senders.as_str();
        // The null sender is not changed.
        if ["*", "*@*", "<>"].contains(&text) {
            return false;
        }
        let kept = text.rsplit_once('@').map_or("x", |(local, _)| local).replace('*', "x");
        let kept = Address::parse(&format!("{kept}@x.invalid")).ok();
        let is = kept.and_then(|kept| self.to.of(&kept, Timestamp(0)));
        is.is_some_and(|is| !senders.matches_mailbox(&Spellings::of(Some(&is))))
    }

    /// Whoever this one would change, `other` changes before.
    fn is_behind(&self, other: &Rewrite) -> bool {
        let covers = other.address.as_str() == "*" || other.address.as_str() == "*@*" || other.address == self.address;
        let places = |of: &Rewrite| [of.envelope, of.header, of.reply_to];
        covers
            && (other.user.is_none() || other.user == self.user)
            && places(self).iter().zip(places(other)).all(|(mine, theirs)| !mine || theirs)
    }
}

/// `[[copy]]`, checked.
#[derive(Clone, PartialEq, Debug)]
pub struct CopyTo {
    /// Who gets it.
    pub to: Address,
    sender: Pattern,
    recipient: Pattern,
    user: Option<String>,
}

impl CopyTo {
    /// Whether a message of this sender and user (empty: nobody has logged in) is copied.
    pub fn is_for<'a>(
        &self,
        sender: Option<&Address>,
        mut recipients: impl Iterator<Item = &'a Address>,
        user: &str,
    ) -> bool {
        self.user.as_ref().is_none_or(|of| of == user)
            && self.sender.matches_mailbox(&Spellings::of(sender))
            && (self.recipient.as_str() == "*"
                || recipients.any(|to| self.recipient.matches_mailbox(&Spellings::of(Some(to)))))
    }
}

/// What the file says of both, for all listeners.
pub(super) fn assemble(
    reader: &mut Reader<'_>,
    draft: &Draft,
    users: &Users,
    sandbox: Option<&Arc<Sandbox>>,
) -> (Arc<Rewrites>, Arc<[CopyTo]>) {
    let srs = Srs::assemble(reader, &draft.srs);
    let mut all: Vec<Rewrite> = Vec::new();
    for (i, draft) in draft.rewrites.iter().enumerate() {
        let path = format!("rewrite[{}]", i + 1);
        let Some(mut rule) = rewrite(reader, &path, draft.clone(), srs.as_ref()) else { continue };
        rule.user = rule.user.map(|name| own_name(users, name));
        if all.iter().any(|before| rule.is_behind(before)) {
            reader.warn(&path, "is never used: an earlier [[rewrite]] has the same addresses".into());
        }
        all.push(rule);
    }
    let mut to = Vec::new();
    for (i, draft) in draft.copies.iter().enumerate() {
        let path = format!("copy[{}]", i + 1);
        let Some(address) = address(reader, &path, draft.to.as_ref()) else { continue };
        if let Some(sandbox) = sandbox.filter(|sandbox| !sandbox.lets_out(&address)) {
            reader.warn(&format!("{path}.to"), format!("[sandbox]: {}", sandbox.told_of(&address)));
        }
        let CopyDraft { sender, recipient, user, .. } = draft.clone();
        let decides = all.iter().enumerate().find(|(_, rule)| rule.decides_on(&sender));
        if let Some((place, _)) = decides.filter(|(_, rule)| rule.leaves_none_of(&sender)) {
            let rule = place + 1;
            let message = format!(
                "no message has such a sender any more: [[rewrite]] no. {rule} changes all of them before; expected those \
                 that it makes"
            );
            reader.warn(&format!("{path}.sender"), message);
        }
        to.push(CopyTo { to: address, sender, recipient, user: user.map(|name| own_name(users, name)) });
    }
    (Arc::new(Rewrites { rules: all, srs }), to.into())
}

impl Listener {
    /// With these, the same for all listeners.
    pub(super) fn rewrites_and_copies(&mut self, (rewrites, copies): &(Arc<Rewrites>, Arc<[CopyTo]>)) {
        (self.rewrites, self.copies) = (rewrites.clone(), copies.clone());
    }
}

fn rewrite(reader: &mut Reader<'_>, path: &str, draft: RewriteDraft, srs: Option<&Arc<Srs>>) -> Option<Rewrite> {
    let address = match draft.address.clone() {
        Some(address) => address,
        None => {
            reader.fault(path, "`address` is missing: expected the addresses to change, such as \"*@*.lan\"".into());
            return None;
        }
    };
    if draft.srs {
        return with_srs(reader, path, draft, address, srs);
    }
    let Some(to) = draft.to else {
        reader.fault(path, "`to` is missing: expected the address instead, such as \"*@shop.example\"".into());
        return None;
    };
    let text = to.as_str();
    let (local, domain) = text.rsplit_once('@').unwrap_or_default();
    let whole = if local == "*" { format!("x@{domain}") } else { text.to_owned() };
    if whole.contains('*') || Address::parse(&whole).is_err() {
        let message = format!(
            "expected an address, such as \"printers@shop.example\", or \"*@shop.example\" to keep what is before the @, found \"{text}\""
        );
        reader.fault(&format!("{path}.to"), message);
        return None;
    }
    if !draft.envelope && !draft.header && !draft.reply_to {
        reader.fault(path, "changes nothing: expected `envelope`, `header` or `reply_to` to be true".into());
        return None;
    }
    if draft.keep_as_reply_to && (!draft.header || draft.reply_to) {
        let message = "needs `header`, and no `reply_to`: it keeps what From was";
        reader.fault(&format!("{path}.keep_as_reply_to"), message.into());
        return None;
    }
    Some(Rewrite {
        address,
        user: draft.user,
        to: Instead::Mailbox { local: (local != "*").then(|| local.to_owned()), domain: domain.to_owned() },
        envelope: draft.envelope,
        header: draft.header,
        reply_to: draft.reply_to,
        keep_as_reply_to: draft.keep_as_reply_to,
    })
}

/// One with `srs`.
fn with_srs(
    reader: &mut Reader<'_>,
    path: &str,
    draft: RewriteDraft,
    address: Pattern,
    srs: Option<&Arc<Srs>>,
) -> Option<Rewrite> {
    let fault = match () {
        () if draft.to.is_some() => "makes the new address itself: expected `srs` or `to`, not both",
        () if !draft.envelope || draft.reply_to || draft.keep_as_reply_to => {
            "is about the reverse-path alone: expected it without `envelope`, `reply_to` and `keep_as_reply_to`"
        }
        () if !reader.has("srs") => {
            "needs the table [srs]: expected its `domain` and `secret`, such as [srs] domain = \"forward.shop.example\""
        }
        () => "",
    };
    if !fault.is_empty() {
        reader.fault(&format!("{path}.srs"), fault.into());
        return None;
    }
    // Its own faults are told already.
    let to = Instead::Srs(srs?.clone());
    let RewriteDraft { user, .. } = draft;
    Some(Rewrite { address, user, to, envelope: true, header: false, reply_to: false, keep_as_reply_to: false })
}

fn address(reader: &mut Reader<'_>, path: &str, to: Option<&Pattern>) -> Option<Address> {
    let Some(to) = to else {
        reader.fault(path, "`to` is missing: expected who gets the copies, such as \"archive@shop.example\"".into());
        return None;
    };
    let address = Address::parse(to.as_str()).ok().filter(|_| !to.as_str().contains('*'));
    if address.is_none() {
        reader.fault(
            &format!("{path}.to"),
            format!("expected one address, such as \"archive@shop.example\", found \"{to}\""),
        );
    }
    address
}

/// The name as its user has it: whoever logs in may write it in another case.
fn own_name(users: &Users, name: String) -> String {
    users.find(&name).map_or(name, |user| user.name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const USERS: &str = "[[user]]\nname = 'Shop'\npassword = \
        '$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$VbXB4Tt1eT5F2bY6L2oG0H3xkq9bq0m6fJ8fVQbq1wE'\n";

    fn config(text: &str) -> Config {
        Config::parse(&format!("hostname = 'relay.example'\n{USERS}{text}"), "x").unwrap()
    }

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    #[test]
    fn the_first_that_matches_address_place_and_user_decides() {
        let config = config(
            "[[rewrite]]\naddress = '*@copy.lan'\nto = 'copier@shop.example'\nreply_to = true\nheader = false\n\
             [[rewrite]]\naddress = '*'\nuser = 'sHOP'\nto = 'web@shop.example'\nenvelope = false\n\
             [[rewrite]]\naddress = '*@m\u{fc}ller.example'\nto = '*@shop.example'\n",
        );
        for (was, place, user, is) in [
            ("a@copy.lan", Place::Envelope, "", Some("copier@shop.example")),
            ("A@COPY.LAN", Place::ReplyTo, "", Some("copier@shop.example")),
            ("a@copy.lan", Place::Header, "", None),
            ("a@copy.lan", Place::Header, "Shop", Some("web@shop.example")),
            ("a@copy.lan", Place::Header, "other", None),
            ("x@y.example", Place::Envelope, "Shop", None),
            ("Jo.X@xn--mller-kva.example", Place::Envelope, "", Some("Jo.X@shop.example")),
            ("\"a b\"@m\u{fc}ller.example", Place::Header, "", Some("\"a b\"@shop.example")),
            // It is that already.
            ("copier@shop.example", Place::Envelope, "", None),
        ] {
            let found = config.rewrites.of(&address(was), place, user, Timestamp(0)).map(|found| found.is.to_string());
            assert_eq!(found.as_deref(), is, "{was} {place:?} {user}");
        }
        let qualified = config.rewrites.in_field("root", Place::Header, "Shop", &config.names).unwrap();
        assert_eq!((qualified.was.as_str(), qualified.is.as_str()), ("root@relay.example", "web@shop.example"));
        assert_eq!(config.rewrites.in_field("no address", Place::Header, "Shop", &config.names), None);
    }

    #[test]
    fn a_sender_that_leads_back_is_made_and_led_back_by_srs() {
        let srs = |domain: &str, keys: &str| format!("[srs]\ndomain = '{domain}'\n{keys}\n");
        let rules =
            "[[rewrite]]\naddress = '*@shop.example'\nto = '*@shop.example'\n[[rewrite]]\naddress = '*'\nsrs = true\n";
        let keys = "secret = 'tops3cr3ttops3cr3t'";
        let config = config(&format!("{rules}{}", srs("Forward.shop.example", keys)));
        let now = Timestamp(1_577_836_860_000);
        let of = |was: &str, place| config.rewrites.of(&address(was), place, "", now).map(|it| it.is.to_string());
        let made = of("jo@x.example", Place::Envelope).unwrap();
        assert!(made.starts_with("SRS0=") && made.ends_with("=2W=x.example=jo@forward.shop.example"), "{made}");
        assert_eq!(config.rewrites.led_back(&address(&made), now), Some(Ok(address("jo@x.example"))));
        assert_eq!(of("a@shop.example", Place::Envelope), None);
        assert_eq!(of("jo@x.example", Place::Header), None);
        assert!(!format!("{config:?}").contains("tops3cr3t"));
        // Another secret: what the old one made still comes back, if it is named.
        for (keys, back) in [
            ("secret = 'another-secret-of-it'\nprevious = 'tops3cr3ttops3cr3t'", Ok(address("jo@x.example"))),
            ("secret = 'another-secret-of-it'", Err(SrsError::Forged)),
        ] {
            let config = self::config(&srs("forward.shop.example", keys));
            assert_eq!(config.rewrites.led_back(&address(&made), now), Some(back));
        }
    }

    #[test]
    fn a_copy_is_for_what_matches_all_its_conditions() {
        let config = config(
            "[[copy]]\nto = 'a@k.example'\nsender = '*@shop.example'\nrecipient = '*@x.example'\nuser = 'shop'\n",
        );
        let (sender, x, y) = (address("me@shop.example"), address("jo@X.example"), address("jo@y.example"));
        let copy = &config.copies[0];
        for (sender, to, user, copied) in [
            (Some(&sender), [&y, &x], "Shop", true),
            (Some(&sender), [&y, &y], "Shop", false),
            (Some(&sender), [&x, &x], "", false),
            (Some(&x), [&x, &x], "Shop", false),
            (None, [&x, &x], "Shop", false),
        ] {
            assert_eq!(copy.is_for(sender, to.into_iter(), user), copied, "{sender:?} {to:?} {user}");
        }
    }

    /// A copy looks at the sender that `[[rewrite]]` leaves.
    #[test]
    fn a_copy_of_senders_that_are_all_rewritten_is_told() {
        for (rules, sender, warned) in [
            ("address = '*@a.lan'\nto = '*@shop.example'", "*@a.lan", true),
            ("address = '*'\nto = 'web@shop.example'", "jo@a.lan", true),
            ("address = '*'\nto = 'web@shop.example'", "*@shop.example", false),
            ("address = '*'\nto = 'web@shop.example'", "<>", false),
            ("address = '*'\nto = 'web@shop.example'", "*", false),
            ("address = '*@a.lan'\nto = '*@shop.example'", "*@b.lan", false),
            ("address = '*@a.lan'\nto = '*@shop.example'\nenvelope = false", "*@a.lan", false),
            ("address = '*@a.lan'\nto = '*@shop.example'\nuser = 'shop'", "*@a.lan", false),
            // The first that matches leaves them as they are.
            (
                "address = '*@a.lan'\nto = '*@a.lan'\n[[rewrite]]\naddress = '*'\nto = 'web@shop.example'",
                "*@a.lan",
                false,
            ),
        ] {
            let text = format!(
                "hostname = 'relay.example'\n{USERS}[[rewrite]]\n{rules}\n[[copy]]\nto = 'k@k.example'\nsender = '{sender}'\n"
            );
            let loaded = crate::config::Loaded::parse(&text, "x").unwrap();
            let told =
                loaded.warnings.iter().any(|warning| warning.to_string().contains("no message has such a sender"));
            assert_eq!(told, warned, "{rules} {sender}");
        }
    }

    #[test]
    fn one_that_is_never_used_is_told() {
        for (first, second, warned) in [
            ("'*'", "'*@a.lan'", true),
            ("'*@a.lan'", "'*@a.lan'", true),
            ("'*@a.lan'", "'*@b.lan'", false),
            ("'*@a.lan'\nheader = false", "'*@a.lan'", false),
            ("'*'\nuser = 'shop'", "'*@a.lan'", false),
        ] {
            let rule = |address: &str| format!("[[rewrite]]\nto = 'x@y.example'\naddress = {address}\n");
            let text = format!("hostname = 'relay.example'\n{USERS}{}{}", rule(first), rule(second));
            let loaded = crate::config::Loaded::parse(&text, "x").unwrap();
            let told = loaded
                .warnings
                .iter()
                .any(|warning| warning.to_string().contains("is never used: an earlier [[rewrite]]"));
            assert_eq!(told, warned, "{first} {second}");
        }
    }
}
