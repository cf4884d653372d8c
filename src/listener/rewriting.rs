//! The fields of a message whose addresses `[[rewrite]]` changes while it comes in.

use std::sync::Arc;

use crate::config::{Listener, Place, User};
use crate::mail::header::field_name;
use crate::mail::rewriting;

/// Longest field that is looked through, in bytes: it is held back until it is whole.
pub(super) const MAX_FIELD: usize = 64 * 1024;

/// What is changed in one message.
#[derive(Debug)]
pub(super) struct Rewriting {
    listener: Arc<Listener>,
    user: Option<Arc<User>>,
    /// The authors of the first From that has others now, as they are to be kept: a list for a Reply-To, folded.
    kept: Option<String>,
    /// There is a Reply-To that says something.
    reply_to: bool,
}

impl Rewriting {
    /// In mail of this client; `None`: nothing is.
    pub fn of(listener: &Arc<Listener>, user: Option<&Arc<User>>) -> Option<Box<Rewriting>> {
        let touches = listener.rewrites.touch_header();
        let rewriting = || Rewriting { listener: listener.clone(), user: user.cloned(), kept: None, reply_to: false };
        touches.then(|| Box::new(rewriting()))
    }

    /// What the addresses of a field are; `None`: it is not one of those that may change.
    fn place(name: &[u8]) -> Option<Place> {
        const HEADER: [&str; 4] = ["from", "sender", "resent-from", "resent-sender"];
        let is = |known: &&str| name.eq_ignore_ascii_case(known.as_bytes());
        if HEADER.iter().any(is) {
            return Some(Place::Header);
        }
        is(&"reply-to").then_some(Place::ReplyTo)
    }

    /// Whether a field of this name is looked through, when it is whole.
    pub fn wants(&self, name: &[u8]) -> bool {
        Rewriting::place(name).is_some()
    }

    /// A whole field, with its folds and its line end, as it is to be; `None`: as it is.
    pub fn field(&mut self, field: &[u8]) -> Option<Vec<u8>> {
        let name = field_name(field)?;
        let place = Rewriting::place(name)?;
        if place == Place::ReplyTo && is_empty(field) && self.listener.rewrites.keep_as_reply_to() {
            // It is no Reply-To (RFC 5322 §3.6.2), and would be one too many beside that which is added.
            return Some(Vec::new());
        }
        self.reply_to |= place == Place::ReplyTo;
        let is_from = name.eq_ignore_ascii_case(b"from");
        let Rewriting { listener, user, kept, .. } = self;
        let user = user.as_ref().map_or("", |user| &*user.name);
        let (mut authors, mut keeps) = (Vec::new(), false);
        let new = rewriting::rewrite(field, |text| {
            let rewritten = listener.rewrites.in_field(text, place, user, &listener.names);
            if is_from && kept.is_none() {
                // Those who stay are among those that answers went to.
                authors.extend(match &rewritten {
                    Some(it) if it.keep_as_reply_to => Some(format!("<{}>", it.was)),
                    Some(it) => Some(format!("<{}>", it.is)),
                    None => listener.names.qualify(text).ok().map(|author| format!("<{author}>")),
                });
                keeps |= rewritten.as_ref().is_some_and(|it| it.keep_as_reply_to);
            }
            Some(rewritten?.is.to_string())
        });
        if keeps {
            *kept = Some(authors.join(",\r\n "));
        }
        new
    }

    /// What a Reply-To that is to be added says.
    pub fn reply_to(&self) -> Option<&str> {
        self.kept.as_deref().filter(|_| !self.reply_to)
    }
}

/// Nothing but white space behind the name.
fn is_empty(field: &[u8]) -> bool {
    let behind = memchr::memchr(b':', field).and_then(|colon| field.get(colon + 1..)).unwrap_or_default();
    behind.trim_ascii().is_empty()
}

#[cfg(test)]
#[path = "rewriting_tests.rs"]
mod tests;
