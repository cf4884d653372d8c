//! What tests teach a lane.

use super::{Adapt, Party, Refused, Signature};
use crate::clock::Timestamp;
use crate::deliver::{Reply, Stage};
use crate::mail::sender_key;

/// The `n`-th message, of the one sender that there is and to a recipient of its own.
pub(crate) fn nth(n: u64) -> Party {
    Party { recipient: n, sender: 7, message: n, size: 1000, again: false }
}

/// The `n`-th is refused at MAIL with a 450 in these words.
pub(crate) fn refuse(adapt: &mut Adapt, n: u64, text: &str, began: Timestamp, now: Timestamp) -> bool {
    let reply = Reply { code: 450, enhanced: None, text: text.into() };
    let sign = Signature::of(Stage::Mail, &reply, &[]);
    adapt.refused_for(
        &Refused { sign, party: nth(n), sender: "s@a.example", cells: 1, reply: &reply.to_string() },
        began,
        now,
    )
}

/// A wall after acceptances, up to `now`: a trial begins, and everything stops for a moment.
pub(crate) fn walled(adapt: &mut Adapt, text: &str, now: Timestamp) {
    for n in 0..40 {
        let at = Timestamp(now.0 - 2000 + 50 * i64::try_from(n).unwrap_or(0));
        adapt.accepted(&[nth(n)], 1, at, at);
    }
    (40..50).for_each(|n| _ = refuse(adapt, n, text, now, now));
}

/// The same, open again a moment later; then a refusal just now, by which the trial finds it to be about the
/// pace, so that everything stops for a moment.
pub(crate) fn judged(adapt: &mut Adapt, now: Timestamp) {
    walled(adapt, "slow down", Timestamp(now.0 - 10_000));
    for n in 0..20 {
        let at = Timestamp(now.0 - 9500 + 100 * i64::try_from(n).unwrap_or(0));
        adapt.accepted(&[nth(100 + n)], 1, at, at);
    }
    refuse(adapt, 150, "slow down", now, now);
}

/// Mail of many passes and that of `sender` no longer does: it is tried alone from then on, and has just been
/// stopped for a moment.
pub(crate) fn one_refused(adapt: &mut Adapt, sender: &str, now: Timestamp) {
    let own = |n: u64| Party { recipient: n, sender: sender_key(sender), message: n, size: 1000, again: false };
    let reply = Reply { code: 450, enhanced: None, text: "trop".into() };
    let at = |n: u64| Timestamp(now.0 - 2000 + 10 * i64::try_from(n).unwrap_or(0));
    adapt.accepted(&[own(5000)], 1, at(0), at(0));
    for n in 0..200 {
        adapt.accepted(&[nth(n)], 1, at(n), at(n));
        if n % 30 == 10 {
            let sign = Signature::of(Stage::Mail, &reply, &[]);
            let refused = Refused { sign, party: own(6000 + n), sender, cells: 1, reply: "450 trop" };
            adapt.refused_for(&refused, at(n), if n > 180 { now } else { at(n) });
        }
    }
}
