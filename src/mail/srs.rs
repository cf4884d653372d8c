//! The Sender Rewriting Scheme, as libsrs2 and postsrsd write it: a sender of another domain becomes one of ours that says who
//! it was, and what comes back to that is led to them. Pure.
//!
//! ```text
//! SRS0=HASH=TT=host=local@ours          local@host
//! SRS1=HASH=first==HASH=TT=host=local@ours    SRS0=HASH=TT=host=local@first
//! ```
//!
//! HASH is the beginning of an HMAC-SHA1, in base64, over what stands behind it without the `=` between, in lower case: hosts on
//! the way change the case of addresses. TT is the day, in base32, of 1024 that begin again. SRS1 leads to the one who wrote the
//! SRS0, who alone can check that: an address does not grow with each host that forwards it.
//!
//! Invariant: nobody without a secret makes an address that leads anywhere, and none of SRS0 does after [`MAX_AGE`] days.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Address, in_ascii};
use crate::clock::Timestamp;

/// Days for which an address leads back, as elsewhere.
pub const MAX_AGE: i64 = 21;
/// Characters of a hash that is written, and that is needed at least.
const HASH: usize = 4;
/// Days until the two characters say the same again.
const DAYS: i64 = 1024;
const DAY_MS: i64 = 86_400_000;
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// Why an address that looks like one of these leads nowhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SrsError {
    /// No secret of ours has made it.
    #[error("this SRS address was not made here")]
    Forged,
    /// It is older than [`MAX_AGE`].
    #[error("this SRS address has expired")]
    Expired,
}

/// What a sender is at our `domain`; `None`: it stays as it is, since it is at that already, or would be no address.
pub fn forward(sender: &Address, domain: &str, secret: &[u8], now: Timestamp) -> Option<Address> {
    let ascii = in_ascii(sender);
    let sender = ascii.as_deref().unwrap_or(sender);
    let host = sender.domain();
    // An address literal has brackets, which no local part has.
    if host.eq_ignore_ascii_case(domain) || host.starts_with('[') {
        return None;
    }
    let (local, quoted) = unquoted(sender.local());
    let local = match tagged(local) {
        // Behind the tag, with the separator.
        Some(Tagged::Srs0(rest)) => srs1(secret, host, rest),
        Some(Tagged::Srs1(rest)) => match srs1_parts(rest) {
            Some((_, first, rest)) => srs1(secret, first, rest),
            None => srs0(secret, host, local, now),
        },
        None => srs0(secret, host, local, now),
    };
    let local = if quoted { format!("\"{local}\"") } else { local };
    Address::parse(&format!("{local}@{domain}")).ok()
}

/// Who a recipient at our `domain` stands for, by any of the secrets; `None`: it is none of these addresses.
pub fn reverse<'a>(
    recipient: &Address,
    domain: &str,
    secrets: impl IntoIterator<Item = &'a [u8]>,
    now: Timestamp,
) -> Option<Result<Address, SrsError>> {
    if !recipient.domain().eq_ignore_ascii_case(domain) {
        return None;
    }
    let (local, quoted) = unquoted(recipient.local());
    let tagged = tagged(local)?;
    Some(match led_back(tagged, secrets, now) {
        Ok((local, host)) => {
            let local = if quoted { format!("\"{local}\"") } else { local };
            Address::parse(&format!("{local}@{host}")).map_err(|_| SrsError::Forged)
        }
        Err(error) => Err(error),
    })
}

fn led_back<'a>(
    tagged: Tagged<'_>,
    secrets: impl IntoIterator<Item = &'a [u8]>,
    now: Timestamp,
) -> Result<(String, String), SrsError> {
    match tagged {
        Tagged::Srs0(rest) => {
            let mut parts = rest.get(1..).unwrap_or_default().splitn(4, '=');
            let mut next = || parts.next().filter(|part| !part.is_empty()).ok_or(SrsError::Forged);
            let (hash, day, host, local) = (next()?, next()?, next()?, next()?);
            if !is_hash(hash, secrets, &[day, host, local]) {
                return Err(SrsError::Forged);
            }
            match age(day, now) {
                Some(days) if days <= MAX_AGE => Ok((local.to_owned(), host.to_owned())),
                _ => Err(SrsError::Expired),
            }
        }
        Tagged::Srs1(rest) => {
            let (hash, first, rest) = srs1_parts(rest).ok_or(SrsError::Forged)?;
            match is_hash(hash, secrets, &[first, rest]) {
                true => Ok((format!("SRS0{rest}"), first.to_owned())),
                false => Err(SrsError::Forged),
            }
        }
    }
}

/// What stands behind the tag of an address, its separator first.
enum Tagged<'a> {
    Srs0(&'a str),
    Srs1(&'a str),
}

fn tagged(local: &str) -> Option<Tagged<'_>> {
    let (tag, rest) = local.split_at_checked(4)?;
    // Some write another character there, whatever separates the rest.
    if !rest.starts_with(['=', '+', '-']) {
        return None;
    }
    match () {
        () if tag.eq_ignore_ascii_case("SRS0") => Some(Tagged::Srs0(rest)),
        () if tag.eq_ignore_ascii_case("SRS1") => Some(Tagged::Srs1(rest)),
        () => None,
    }
}

/// Hash, host, and what stood behind `SRS0` there.
fn srs1_parts(rest: &str) -> Option<(&str, &str, &str)> {
    let (hash, rest) = rest.get(1..)?.split_once('=')?;
    let (first, rest) = rest.split_once('=')?;
    (!first.is_empty() && rest.starts_with(['=', '+', '-'])).then_some((hash, first, rest))
}

fn srs0(secret: &[u8], host: &str, local: &str, now: Timestamp) -> String {
    let day = day_of(now);
    let digit = |n: i64| char::from(BASE32[n as usize & 31]);
    let day: String = [digit(day >> 5), digit(day)].into_iter().collect();
    format!("SRS0={}={day}={host}={local}", &hash(secret, &[&day, host, local])[..HASH])
}

fn srs1(secret: &[u8], first: &str, rest: &str) -> String {
    format!("SRS1={}={first}={rest}", &hash(secret, &[first, rest])[..HASH])
}

/// In base64, which is ASCII.
fn hash(secret: &[u8], parts: &[&str]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret);
    let mut context = hmac::Context::with_key(&key);
    for part in parts {
        context.update(part.to_ascii_lowercase().as_bytes());
    }
    STANDARD.encode(context.sign().as_ref())
}

/// Whether one of the secrets has made it; hosts that write more of a hash than we do are believed the more.
fn is_hash<'a>(given: &str, secrets: impl IntoIterator<Item = &'a [u8]>, parts: &[&str]) -> bool {
    given.len() >= HASH
        && secrets
            .into_iter()
            .any(|secret| hash(secret, parts).get(..given.len()).is_some_and(|hash| hash.eq_ignore_ascii_case(given)))
}

fn day_of(now: Timestamp) -> i64 {
    now.0.div_euclid(DAY_MS).rem_euclid(DAYS)
}

/// How many days ago that day was; `None`: it is none.
fn age(day: &str, now: Timestamp) -> Option<i64> {
    let digit = |b: u8| BASE32.iter().position(|digit| *digit == b.to_ascii_uppercase()).map(|n| n as i64);
    let &[high, low] = day.as_bytes() else { return None };
    Some((day_of(now) - (digit(high)? << 5 | digit(low)?)).rem_euclid(DAYS))
}

/// The local part without its quotes, and whether it had some.
fn unquoted(local: &str) -> (&str, bool) {
    match local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) => (inner, true),
        None => (local, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 2020-01-01T00:01:00Z, of the tests of postsrsd.
    const NOW: Timestamp = Timestamp(1_577_836_860_000);
    const SECRET: &[u8] = b"tops3cr3t";

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    fn forwarded(sender: &str) -> String {
        forward(&address(sender), "example.com", SECRET, NOW).map_or("-".to_owned(), |it| it.to_string())
    }

    fn returned(recipient: &str, now: Timestamp) -> String {
        match reverse(&address(recipient), "example.com", [b"another".as_slice(), SECRET], now) {
            None => "-".to_owned(),
            Some(Ok(address)) => address.to_string(),
            Some(Err(error)) => error.to_string(),
        }
    }

    /// Vectors of postsrsd 2.
    #[test]
    fn addresses_are_those_that_postsrsd_makes() {
        for (sender, srs) in [
            ("test@otherdomain.com", "SRS0=vmyz=2W=otherdomain.com=test@example.com"),
            ("SRS0=opaque+string@otherdomain.com", "SRS1=chaI=otherdomain.com==opaque+string@example.com"),
            ("test@Example.COM", "-"),
            ("test@[192.0.2.1]", "-"),
        ] {
            assert_eq!(forwarded(sender), srs);
        }
        assert_eq!(returned("SRS0=vmyz=2W=otherdomain.com=test@example.com", NOW), "test@otherdomain.com");
        assert_eq!(
            returned("SRS1=chaI=otherdomain.com==opaque+string@example.com", NOW),
            "SRS0=opaque+string@otherdomain.com"
        );
    }

    #[test]
    fn an_srs1_of_another_host_is_signed_anew_and_does_not_grow() {
        let first = forwarded("SRS0=abcd=2W=a.example=jo@first.example");
        let second = forward(&address(&first), "second.example", SECRET, NOW).expect("an address");
        assert_eq!(second.local(), address(&first).local(), "the same hash of the same");
        assert!(second.as_str().ends_with("=first.example==abcd=2W=a.example=jo@second.example"), "{second}");
    }

    #[test]
    fn what_was_not_made_here_or_long_ago_leads_nowhere() {
        let good = forwarded("jo=x@a.example");
        assert!(good.ends_with("=2W=a.example=jo=x@example.com"), "{good}");
        assert_eq!(returned(&good, NOW), "jo=x@a.example");
        let days = |n: i64| Timestamp(NOW.0 + n * DAY_MS);
        assert_eq!(returned(&good, days(MAX_AGE)), "jo=x@a.example");
        for now in [days(MAX_AGE + 1), days(-1), days(512)] {
            assert_eq!(returned(&good, now), "this SRS address has expired");
        }
        // Case is not kept everywhere.
        assert_eq!(returned(&good.to_lowercase(), NOW), "jo=x@a.example");
        assert_eq!(returned(&good.replacen("SRS0=", "srs0+", 1), NOW), "jo=x@a.example");
        for forged in [
            good.replace("jo=x", "ceo"),
            good.replace("a.example", "b.example"),
            good.replace("=2W=", "=2X="),
            good.replacen(&good[5..9], "AAAA", 1),
            good.replacen(&good[5..9], &good[5..8], 1),
            good.replacen(&good[5..9], "", 1),
            "SRS0=x@example.com".to_owned(),
            "SRS0===jo@example.com".to_owned(),
            "SRS1=abcd=a.example=jo@example.com".to_owned(),
            "SRS1=abcd=a.example==jo@example.com".to_owned(),
        ] {
            assert_eq!(returned(&forged, NOW), "this SRS address was not made here", "{forged}");
        }
        for other in ["SRS0@example.com", "SRS0x=y@example.com", "jo@example.com", "SRS0=vmyz=2W=a=b@other.example"] {
            assert_eq!(returned(other, NOW), "-");
        }
    }

    #[test]
    fn quotes_stand_around_the_whole() {
        let quoted = forwarded("\"a b\"@a.example");
        assert!(quoted.starts_with("\"SRS0=") && quoted.ends_with("=2W=a.example=a b\"@example.com"), "{quoted}");
        assert_eq!(returned(&quoted, NOW), "\"a b\"@a.example");
        // A domain has its form for everybody.
        assert!(forwarded("jo@m\u{fc}ller.example").contains("=xn--mller-kva.example=jo@"));
    }

    proptest! {
        #[test]
        fn every_sender_comes_back(local in "[a-zA-Z0-9=+._-]{1,30}", host in "[a-z0-9]{1,9}\\.example", days in 0..=MAX_AGE) {
            prop_assume!(Address::parse(&format!("{local}@{host}")).is_ok());
            let sender = address(&format!("{local}@{host}"));
            prop_assume!(tagged(sender.local()).is_none());
            let there = forward(&sender, "example.com", SECRET, NOW).expect("an address");
            let back = reverse(&there, "example.com", [SECRET], Timestamp(NOW.0 + days * DAY_MS));
            prop_assert_eq!(back, Some(Ok(sender)));
        }

        #[test]
        fn whatever_comes_back_has_an_answer(local in "[sS][rR][sS][01][=+-][a-zA-Z2-7=+/.\u{e9}-]{0,40}") {
            if let Ok(recipient) = Address::parse(&format!("{local}@example.com")) {
                let found = reverse(&recipient, "example.com", [SECRET], NOW);
                prop_assert!(!matches!(found, Some(Ok(_)) | None));
            }
        }
    }
}
