//! `[sandbox]`: for a relay of which nothing may reach real people, as one for staging. What is not let out goes to one
//! address, or is held.
//!
//! Invariant: while there is a sandbox, nothing leaves to anybody else: not what clients send, not our own reports, not
//! what was in the queue before.

use std::fmt;
use std::sync::Arc;

use super::fields::Field;
use super::file::Reader;
use super::keys::{Key, Table, keys};
use super::units::Pattern;
use super::value::Kind;
use crate::mail::{Address, Forward, Spellings};

/// What the file says of it.
#[derive(Clone, Debug)]
pub(super) struct SandboxDraft {
    pub to: Option<Pattern>,
    pub allow: Vec<Pattern>,
}

impl Table for SandboxDraft {
    const NAME: &'static str = "sandbox";
    const KEYS: &'static [Key<SandboxDraft>] = keys! {
        /// Where everything goes that is not for one of `allow`, whoever it is for. Default: that is held, see
        /// `mailweir queue list --state held`.
        "to" to: Kind::MailAddress, example r#""staging@shop.example""#;
        /// Recipients whose mail leaves as it is.
        "allow" allow: Kind::MailPatterns, default "[]";
    };

    fn blank() -> SandboxDraft {
        SandboxDraft { to: None, allow: Vec::new() }
    }
}

/// See the module.
#[derive(Clone, PartialEq, Debug)]
pub struct Sandbox {
    /// Who gets everything; `None`: what is not let out is held.
    pub to: Option<Address>,
    /// Whose mail leaves as it is.
    pub allow: Vec<Pattern>,
}

impl Sandbox {
    /// What the file says; with a warning, so that nobody forgets it.
    pub(super) fn assemble(reader: &mut Reader<'_>, draft: SandboxDraft) -> Option<Arc<Sandbox>> {
        if !reader.has("sandbox") {
            return None;
        }
        if !reader.has("sandbox.to") && !reader.has("sandbox.allow") {
            let message = "who gets mail is missing: expected `to = \"staging@shop.example\"`, or `allow = […]` for those \
                           who may get theirs, or both";
            reader.fault("sandbox", message.into());
        }
        let to = draft.to.and_then(|to| match Address::parse(to.as_str()) {
            Ok(address) if !to.as_str().contains('*') => Some(address),
            _ => {
                reader.fault(
                    "sandbox.to",
                    format!("expected one address, such as \"staging@shop.example\", found \"{to}\""),
                );
                None
            }
        });
        let sandbox = Sandbox { to, allow: draft.allow };
        reader.warn("sandbox", sandbox.to_string());
        Some(Arc::new(sandbox))
    }

    /// Whether mail may leave to this recipient.
    pub fn lets_out(&self, recipient: &Address) -> bool {
        let is = |to: &Address| to.local() == recipient.local() && to.domain().eq_ignore_ascii_case(recipient.domain());
        let spellings = Spellings::of(Some(recipient));
        self.to.as_ref().is_some_and(is) || self.allow.iter().any(|pattern| pattern.matches_mailbox(&spellings))
    }

    /// Who gets what is for this recipient.
    pub fn instead_of<'a>(&'a self, recipient: &'a Address) -> &'a Address {
        self.to.as_ref().filter(|_| !self.lets_out(recipient)).unwrap_or(recipient)
    }

    /// Where a forward-path leads, the log has as the alias what it was.
    pub fn lead(&self, forward: Forward) -> Forward {
        if forward.addresses().iter().all(|address| self.instead_of(address) == address) {
            return forward;
        }
        let name = forward
            .alias()
            .map_or_else(|| forward.addresses().first().map(Address::to_string), |name| Some(name.to_owned()));
        let to = forward.addresses().iter().map(|address| self.instead_of(address).clone());
        Forward::Alias(name.unwrap_or_default(), to.collect())
    }

    /// What becomes of mail to this recipient, for people; empty: it leaves.
    pub fn told_of(&self, recipient: &Address) -> String {
        match &self.to {
            _ if self.lets_out(recipient) => String::new(),
            Some(to) => format!("it goes to {to} instead"),
            None => "it is held".to_owned(),
        }
    }

    /// Why mail to this recipient is held, if it is.
    pub fn holds(&self, recipient: &Address) -> Option<Arc<str>> {
        (!self.lets_out(recipient)).then(|| "held: [sandbox] does not let it out".into())
    }
}

/// What it does, for people.
impl fmt::Display for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let allow: Vec<&str> = self.allow.iter().map(Pattern::as_str).collect();
        match (&self.to, allow.as_slice()) {
            (Some(to), []) => write!(f, "SANDBOX: everything goes to {to}, whoever it is for"),
            (Some(to), allow) => {
                write!(f, "SANDBOX: everything goes to {to}, but for what is for {}", allow.join(", "))
            }
            (None, []) => f.write_str("SANDBOX: nothing leaves, all mail is held"),
            (None, allow) => write!(f, "SANDBOX: all mail is held, but for what is for {}", allow.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox(to: Option<&str>, allow: &[&str]) -> Sandbox {
        let to = to.map(|to| Address::parse(to).unwrap());
        Sandbox { to, allow: allow.iter().map(|pattern| Pattern::new(pattern)).collect() }
    }

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    #[test]
    fn who_is_let_out_and_who_is_not() {
        let both = sandbox(Some("dev@shop.example"), &["*@test.example"]);
        for (to, gets) in [
            ("a@test.example", "a@test.example"),
            ("A@TEST.example", "A@TEST.example"),
            ("dev@SHOP.example", "dev@SHOP.example"),
            ("customer@real.example", "dev@shop.example"),
            ("a@test.example.real.example", "dev@shop.example"),
            ("a@nottest.example", "dev@shop.example"),
        ] {
            assert_eq!(both.instead_of(&address(to)).as_str(), gets, "{to}");
            assert_eq!(both.holds(&address(to)).is_some(), to != gets, "{to}");
        }
        let holds = sandbox(None, &["*@test.example"]);
        assert_eq!(holds.instead_of(&address("c@real.example")).as_str(), "c@real.example");
        assert!(holds.holds(&address("c@real.example")).is_some() && holds.holds(&address("c@test.example")).is_none());
    }

    #[test]
    fn a_path_leads_to_the_address_and_keeps_its_name_for_the_log() {
        let all = sandbox(Some("dev@shop.example"), &["*@test.example"]);
        let led = all.lead(Forward::To(address("customer@real.example")));
        assert_eq!((led.alias(), led.addresses()), (Some("customer@real.example"), &[address("dev@shop.example")][..]));
        let let_out = Forward::To(address("a@test.example"));
        assert_eq!(all.lead(let_out.clone()), let_out);
        let alias = Forward::Alias("root".into(), vec![address("a@test.example"), address("b@real.example")].into());
        let led = all.lead(alias);
        let expected = [address("a@test.example"), address("dev@shop.example")];
        assert_eq!((led.alias(), led.addresses()), (Some("root"), &expected[..]));
        let held = Forward::To(address("customer@real.example"));
        assert_eq!(sandbox(None, &[]).lead(held.clone()), held, "it is held where it is for");
    }

    #[test]
    fn it_says_what_it_does() {
        for (sandbox, said) in [
            (sandbox(Some("dev@x.example"), &[]), "SANDBOX: everything goes to dev@x.example, whoever it is for"),
            (sandbox(None, &[]), "SANDBOX: nothing leaves, all mail is held"),
            (sandbox(None, &["*@a.b", "c@d.e"]), "SANDBOX: all mail is held, but for what is for *@a.b, c@d.e"),
        ] {
            assert_eq!(sandbox.to_string(), said);
        }
    }
}
