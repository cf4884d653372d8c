//! What mail has in common with other mail as far as a host may refuse it for that: its sender, the domain of that,
//! its recipient, the domain of that, and how large it is.
//!
//! Senders are one as in [`sender_key`]; a transaction to several has no recipient in common with others, and no
//! domain of recipients unless all have the same. Sizes are one when they have the same number of binary digits;
//! up to [`SMALL`] bytes all are one. That is less than what hosts that look at sizes
//! look for, a scanner of attachments, say, and more than most mail without any. Pure.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::{lowercase, sender_key};

/// Messages up to so many bytes are of one size.
const SMALL: u64 = 16 * 1024;
/// How many kinds of features there are.
pub const FEATURE_KINDS: usize = 5;
const FEATURES: usize = FEATURE_KINDS;
const SENDER: usize = 0;
const SENDER_DOMAIN: usize = 1;
const RECIPIENT: usize = 2;
/// The place of the domain of recipients among them.
pub const RECIPIENT_DOMAIN: usize = 3;
const SIZE: usize = 4;

/// The features of a transaction, as text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Features<'a> {
    sender: &'a str,
    recipient: Option<&'a str>,
    recipient_domain: Option<&'a str>,
    size: u64,
}

/// The same as numbers: whatever is compared or remembered.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct FeatureKeys([u64; FEATURES]);

/// The domain of an address; empty: it has none.
pub(crate) fn domain_of(address: &str) -> &str {
    address.rsplit_once('@').map_or("", |(_, domain)| domain)
}

/// No feature is 0, and none is one of another kind.
fn key(kind: usize, of: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (kind, of).hash(&mut hasher);
    hasher.finish().max(1)
}

/// The same of what is a number: each has a key of its own, so it needs no hash. Mixed (the finalizer of MurmurHash3),
/// so that it is like no hash by a pattern.
fn number_key(kind: usize, number: u64) -> u64 {
    let apart = number ^ (kind as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (apart ^ apart >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mixed = (mixed ^ mixed >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (mixed ^ mixed >> 33).max(1)
}

/// Binary digits of a size, less one; the same for all that is small.
fn digits(size: u64) -> u32 {
    (size.max(SMALL) - 1).ilog2()
}

impl<'a> Features<'a> {
    /// Those of a message of `size` bytes to these addresses.
    pub fn of(sender: &'a str, recipients: impl IntoIterator<Item = &'a str>, size: u64) -> Features<'a> {
        let mut recipients = recipients.into_iter();
        let first = recipients.next();
        let (mut recipient, mut recipient_domain) = (first, first.map(domain_of));
        for other in recipients {
            recipient = None;
            recipient_domain = recipient_domain.filter(|domain| domain.eq_ignore_ascii_case(domain_of(other)));
        }
        Features { sender, recipient, recipient_domain, size }
    }

    /// The domain of its sender; what there is, if that is no address.
    pub fn sender_domain(&self) -> &'a str {
        self.sender.rsplit_once('@').map_or(self.sender, |(_, domain)| domain)
    }

    /// What a host has heard of it at MAIL.
    #[must_use]
    pub fn at_mail(self) -> Features<'a> {
        Features { recipient: None, recipient_domain: None, ..self }
    }

    /// As numbers.
    pub fn keys(&self) -> FeatureKeys {
        let domain = |kind, domain: Option<&str>| domain.map_or(0, |domain| key(kind, &lowercase(domain)));
        let mut keys = [0; FEATURES];
        keys[SENDER] = number_key(SENDER, sender_key(self.sender));
        // The null sender has no domain.
        keys[SENDER_DOMAIN] = domain(SENDER_DOMAIN, Some(domain_of(self.sender)).filter(|domain| !domain.is_empty()));
        keys[RECIPIENT] = self.recipient.map_or(0, |recipient| key(RECIPIENT, recipient));
        keys[RECIPIENT_DOMAIN] = domain(RECIPIENT_DOMAIN, self.recipient_domain);
        keys[SIZE] = number_key(SIZE, digits(self.size).into());
        FeatureKeys(keys)
    }

    /// Of what mail a person is told that has `common` with this: words that follow "mail". `None`: it has nothing
    /// in common that one sender, or one recipient, has to do with.
    pub fn told(&self, common: FeatureKeys) -> Option<String> {
        let [sender, sender_domain, recipient, ..] = common.0;
        if sender > 0 {
            return Some(format!("of {}", if self.sender.is_empty() { "the null sender" } else { self.sender }));
        }
        if sender_domain > 0 {
            return Some(format!("of senders at {}", domain_of(self.sender)));
        }
        self.recipient.filter(|_| recipient > 0).map(|recipient| format!("to {recipient}"))
    }
}

impl Features<'_> {
    /// The mail that has this one of its features, in words that follow "mail".
    pub fn told_of(&self, key: u64) -> String {
        let [sender, sender_domain, recipient, recipient_domain, _] = self.keys().0;
        let narrow = if key == sender { sender } else { 0 };
        let told = self
            .told(FeatureKeys([narrow, sender_domain, recipient, 0, 0].map(|own| if own == key { own } else { 0 })));
        told.unwrap_or_else(|| match self.recipient_domain.filter(|_| key == recipient_domain) {
            Some(domain) => format!("to recipients at {domain}"),
            None if self.size <= SMALL => format!("of up to {} KiB", SMALL / 1024),
            None => format!("of {} KiB or so", self.size / 1024),
        })
    }
}

/// A small message of this sender, to whomever.
impl<'a> From<&'a str> for Features<'a> {
    fn from(sender: &'a str) -> Features<'a> {
        Features::of(sender, [], 0)
    }
}

impl FeatureKeys {
    /// None.
    #[cfg(test)]
    pub const NONE: FeatureKeys = FeatureKeys([0; FEATURES]);

    /// Nothing in common.
    pub fn is_empty(self) -> bool {
        self == FeatureKeys::default()
    }

    /// What both have.
    #[must_use]
    pub fn common(self, other: FeatureKeys) -> FeatureKeys {
        self.without(|key| !other.0.contains(&key))
    }

    /// Those that are not `taken`.
    #[must_use]
    pub fn without(mut self, taken: impl Fn(u64) -> bool) -> FeatureKeys {
        self.0.iter_mut().filter(|key| taken(**key)).for_each(|key| *key = 0);
        self
    }

    /// Whether `other` has all of these.
    pub fn are_all_of(self, other: FeatureKeys) -> bool {
        self.common(other) == self
    }

    /// What a host has heard of it at MAIL.
    #[must_use]
    pub fn at_mail(mut self) -> FeatureKeys {
        (self.0[RECIPIENT], self.0[RECIPIENT_DOMAIN]) = (0, 0);
        self
    }

    /// The sender and his domain.
    #[must_use]
    pub fn of_sender(self) -> FeatureKeys {
        let [sender, domain, ..] = self.0;
        FeatureKeys([sender, domain, 0, 0, 0])
    }

    /// Without the sender and his domain.
    #[must_use]
    pub fn without_sender(mut self) -> FeatureKeys {
        (self.0[SENDER], self.0[SENDER_DOMAIN]) = (0, 0);
        self
    }

    /// Each at the place of its kind; 0: none.
    pub fn by_kind(self) -> [u64; FEATURE_KINDS] {
        self.0
    }

    /// Without the size of small messages: nearly all mail has it.
    #[must_use]
    pub fn telling(mut self) -> FeatureKeys {
        if self.0[SIZE] == number_key(SIZE, digits(SMALL).into()) {
            self.0[SIZE] = 0;
        }
        self
    }

    /// Without its size.
    #[must_use]
    pub fn without_size(mut self) -> FeatureKeys {
        self.0[SIZE] = 0;
        self
    }

    /// That of the domain of its recipients, if all have one.
    pub fn recipient_domain(self) -> Option<u64> {
        Some(self.0[RECIPIENT_DOMAIN]).filter(|key| *key > 0)
    }

    /// That of its recipient, if it has one.
    pub fn recipient(self) -> Option<u64> {
        Some(self.0[RECIPIENT]).filter(|key| *key > 0)
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = u64> {
        self.0.into_iter().filter(|key| *key > 0)
    }

    /// That of its sender.
    pub fn sender(self) -> u64 {
        self.0[SENDER]
    }

    /// That of the domain of its sender; of the null sender its own.
    pub fn sender_domain(self) -> u64 {
        if self.0[SENDER_DOMAIN] > 0 { self.0[SENDER_DOMAIN] } else { self.sender() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_mail_has_in_common_is_told_by_the_narrowest_of_it() {
        let of = |sender, to: &'static [&'static str], size| Features::of(sender, to.iter().copied(), size);
        let first = of("v1@Bad.test", &["b1@n.test"], 1000);
        let told = |other: Features| first.told(first.keys().common(other.keys()));
        assert_eq!(told(first).as_deref(), Some("of v1@Bad.test"));
        assert_eq!(told(of("v1+x@bad.test", &["c@n.test"], 1)).as_deref(), Some("of v1@Bad.test"));
        assert_eq!(told(of("v2@bad.test", &["b1@n.test"], 1)).as_deref(), Some("of senders at Bad.test"));
        assert_eq!(told(of("w@w.test", &["b1@n.test"], 1)).as_deref(), Some("to b1@n.test"));
        assert_eq!(told(of("w@w.test", &["x@n.test"], 1)), None);
        assert_eq!(Features::from("").told(Features::from("").keys()).as_deref(), Some("of the null sender"));
        // The domain of recipients and the size are left; with others nothing is.
        let left = |other: Features| first.keys().common(other.keys()).iter().count();
        assert_eq!(left(of("w@w.test", &["x@N.test", "y@n.TEST"], SMALL)), 2);
        assert_eq!(left(of("w@w.test", &["x@n.test", "y@other.test"], SMALL)), 1);
        assert_eq!(left(of("w@w.test", &["x@other.test"], 10 << 20)), 0);
        // What has an attachment is told from what has none.
        let telling = |size| of("w@w.test", &[], size).keys().telling().by_kind()[SIZE];
        assert_eq!([1, 10_000, SMALL].map(telling), [0; 3]);
        assert!(telling(SMALL + 1) > 0 && telling(65_000) > 0 && telling(SMALL + 1) != telling(65_000));
        let size = |bytes: u64| of("w@w.test", &[], bytes).told_of(of("w@w.test", &[], bytes).keys().by_kind()[SIZE]);
        assert_eq!([1, 65_536].map(size), ["of up to 16 KiB", "of 64 KiB or so"]);
        // A host that takes no large ones: those alike in size.
        let [large, larger, largest] = [9_u64 << 20, 15 << 20, 17 << 20].map(|size| of("w@w.test", &[], size).keys());
        assert!(large == larger && large != largest);
        assert!(first.keys().common(Features::from("").keys()).are_all_of(first.keys()));
    }

    #[test]
    fn numbers_of_a_kind_have_keys_of_their_own() {
        let all: Vec<u64> = (0..FEATURES).flat_map(|kind| (0..64).map(move |n| number_key(kind, n))).collect();
        let different: std::collections::HashSet<&u64> = all.iter().collect();
        assert!(different.len() == all.len() && !all.contains(&0));
    }
}
