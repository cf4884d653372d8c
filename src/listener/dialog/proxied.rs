//! XCLIENT and XFORWARD: a proxy or a filter in front tells whose client it speaks for. Only those that
//! `xclient_from` names may, whoever they speak for at the moment.

use std::net::Ipv4Addr;

use super::Dialog;
use crate::config::canonical;
use crate::mail::Caller;
use crate::smtp::Reply;
use crate::smtp::command::proxied::{Known, Proxied};

/// What XFORWARD has told is replaced, not added to, when it is as long as this, in bytes.
const MAX_FORWARDED: usize = 1024;

const NO_PROXY: Reply = Reply::new(550, "5.7.0", "Not a proxy of this server (xclient_from)");
const IN_TRANSACTION: Reply = Reply::new(503, "5.5.1", "Mail transaction in progress");

impl Dialog {
    /// Whether it may be told whose client this is.
    pub(super) fn may_be_told(&self) -> Result<(), Reply> {
        match () {
            () if !self.shared.policy.may_proxy(self.connected.ip()) => {
                tracing::info!(client = %self.client.caller, reply = %NO_PROXY, "XCLIENT or XFORWARD refused");
                Err(NO_PROXY)
            }
            () if self.transaction.is_some() => Err(IN_TRANSACTION),
            () => Ok(()),
        }
    }

    /// What is told may come in several commands, but not without end.
    pub(super) fn forwarded(&mut self, told: &Proxied) {
        let before = self.client.forwarded.take().filter(|text| text.len() < MAX_FORWARDED);
        let text = before.map(|before| format!("{before} ")).unwrap_or_default() + &shown(told);
        self.client.forwarded = Some(text.trim_end().into());
    }

    /// From here on the client is the one that the proxy has told, and the session begins anew.
    pub(super) fn speak_for(&mut self, told: Proxied) {
        match told.address {
            Some(Known::Is(ip)) => self.client.caller = Caller::Ip(canonical(ip)),
            // Nobody who may relay.
            Some(Known::Unavailable) => self.client.caller = Caller::Ip(Ipv4Addr::UNSPECIFIED.into()),
            None => {}
        }
        let text = shown(&told);
        self.client.helo = "".into();
        self.greeted = false;
        self.log_out();
        self.reset();
        if let Some(Known::Is(name)) = &told.helo {
            self.hello(name, told.esmtp.unwrap_or(false));
        }
        tracing::info!(proxy = %self.connected, client = %self.client.caller, told = text, "a proxy speaks for its client");
    }
}

/// What was told, for the log.
fn shown(told: &Proxied) -> String {
    fn word<T: std::fmt::Display>(name: &str, value: &Option<Known<T>>) -> Option<String> {
        match value {
            Some(Known::Is(value)) => Some(format!("{name}={value}")),
            _ => None,
        }
    }
    let words = [
        word("addr", &told.address),
        word("name", &told.name),
        word("helo", &told.helo),
        word("login", &told.login),
        word("ident", &told.ident),
    ];
    words.into_iter().flatten().collect::<Vec<_>>().join(" ")
}
