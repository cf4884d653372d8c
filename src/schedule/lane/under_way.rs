//! How the mail that is under way decides what else may leave: nobody's mail has all connections while the host leaves
//! it without an answer.
//!
//! What a transaction shows is *open* in those of its features of which the host has answered nothing since it began.
//!
//! - *The last connection.* Where all other connections have mail with open features in common, the last one is for
//!   mail that lacks one of those. So a burst of one sender, or of senders at one domain, that comes within a moment
//!   leaves one connection free until the first answer to any of it, and if there is none, until the end. The size of
//!   small mail does not count: nearly all mail has it. With two connections what the second one is kept from is
//!   more mail of the sender who has the first, if nothing of his was answered for [`RECENTLY`].
//! - *Late* is what waits for several times as long as usual: mail that has an open feature of it does not get the last
//!   connection, either, while all others have mail that is late or in doubt, unless several that are late show by what
//!   they have in common that it is about something else.
//! - *Silent* is what waits for far longer than usual: mail that has an open feature of it is *in doubt*: it has no more
//!   than half of the connections, but for one message at a time, a *probe*, that lacks something of what all that is
//!   silent has in common, and so shows what it is about.
//!
//! - *Unproven* is mail that has nothing in common with what the host has answered in the last ten minutes. Where all
//!   other connections have mail that is late or unproven, as many messages as half of them are silent or had no answer
//!   before, and other mail was answered in the last minute, the last one is for proven mail: what hangs need not have
//!   anything in common. A sender, or a domain of either side, that is known is enough.
//!
//! - *Overdue*: with two connections like mail has the second one when the first one has waited for [`RECENTLY`] before
//!   its body was out: else a connection that a firewall swallowed would stop all mail of a sender who is alone.
//!
//! Before anything was answered since it began nearly all mail has something in common with what waits: then only the
//! first rule holds; and before anything at all was answered in the lane, as after a start, that one decides which mail
//! leaves first, and keeps none while there is no other. Mail of domains that are new is like any other, or one sender could stop all of it.
//!
//! Bounded: one entry for a transaction. Pure.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::State;
use super::answers::Answers;
use super::unanswered::{Confined, Unanswered};
use crate::deliver::Silence;
use crate::mail::{FeatureKeys, QueueId};
use crate::schedule::Job;

/// Mail is proven whose like was answered so lately, and the last connection is kept for such mail if any was so lately.
const PROVEN: Duration = Duration::from_secs(600);
const GOES_ON: Duration = Duration::from_secs(60);
/// Whose mail was answered so lately has both of two connections.
const RECENTLY: Duration = Duration::from_secs(10);

/// A transaction, as long as somebody holds it.
#[derive(Debug)]
pub struct UnderWay {
    pub(super) message: QueueId,
    keys: FeatureKeys,
    began: Instant,
    /// Attempts before, of the recipient who has had most.
    pub(super) attempts: u32,
    standing: Standing,
}

/// How a job stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    /// The host answers its like.
    Clear,
    /// In doubt: it has half of the connections, with all other mail in doubt.
    Doubtful,
    /// In doubt or suspected, and different enough to show more.
    Probe,
    /// Suspected: as in doubt, and a message of it never more than one.
    Suspected,
}

/// Of mail that waits for too long: what it may be about.
#[derive(Debug, Default)]
pub(super) struct Open {
    /// Features of any of it, or those that all of it has, if there are such.
    any: Vec<u64>,
    /// Those that all of it has.
    common: FeatureKeys,
    /// The domain that all of its senders have, if the host never answered mail of it.
    new_senders: Option<u64>,
    /// Nothing at all was answered since the last of it began.
    untold: bool,
    /// How many transactions that are.
    count: usize,
}

/// What is under way, as seen at one moment, for any number of jobs.
pub(super) struct View<'a> {
    unanswered: &'a Unanswered,
    connections: usize,
    under_way: usize,
    /// Connections that have mail in doubt, or wait for far too long.
    used: usize,
    /// All that is under way is late or in doubt.
    all_late: bool,
    /// A probe is under way, and may be answered yet.
    probing: bool,
    late: Open,
    silent: Open,
    /// What all that is under way has in common, where one connection is left.
    common: FeatureKeys,
    /// The last connection is for mail whose like was answered lately.
    for_proven: bool,
    /// Of two connections one has waited for long for an answer that it may be given up for.
    overdue: bool,
    /// The same before anything was answered in the lane.
    at_first: FeatureKeys,
    now: Instant,
}

impl UnderWay {
    fn of(job: &Job, standing: Standing) -> UnderWay {
        UnderWay {
            message: job.message.message.id,
            keys: job.features().keys(),
            began: Instant::now(),
            attempts: job.recipients.iter().map(|held| held.attempts).max().unwrap_or_default(),
            standing,
        }
    }
}

impl Open {
    /// Of what waits so long.
    fn of<'a>(silences: impl Iterator<Item = &'a Silence>, unanswered: &Unanswered, now: Instant) -> Open {
        let answered = unanswered.known_answers();
        let (mut any, mut common, mut untold, mut count) = (Vec::new(), None::<FeatureKeys>, false, 0);
        let mut senders = None::<Option<u64>>;
        for silence in silences {
            let began = now.checked_sub(silence.lasts).unwrap_or(now);
            untold |= !answered.any_since(began);
            let of = silence.features;
            let own = of.without(|key| answered.knows_since(key, began));
            // A domain that the host never answered explains its silence, as does the size of what is not small.
            let new = |domain| !answered.knows(domain);
            let sender = Some(of.sender_domain()).filter(|domain| new(*domain));
            senders = Some(senders.map_or(sender, |senders| senders.filter(|_| senders == sender)));
            let own = match (new(of.sender_domain()), of.recipient_domain().is_some_and(new)) {
                (true, false) => own.at_mail().telling(),
                (false, true) => own.without_sender().telling(),
                _ => own,
            };
            any.extend(own.iter());
            common = Some(common.map_or(own, |common| common.common(own)));
            count += 1;
        }
        let common = common.unwrap_or_default();
        // What all of it has explains the silence, and clears the rest.
        if !common.is_empty() {
            any = common.iter().collect();
        }
        Open { any, common, new_senders: senders.flatten(), untold, count }
    }

    /// Whether it may be about such mail.
    fn is_about(&self, keys: FeatureKeys) -> bool {
        !self.untold && keys.iter().any(|key| self.any.contains(&key))
    }

    /// Whether such mail has all that it can be about.
    fn is_all_in(&self, keys: FeatureKeys) -> bool {
        self.common.is_empty() || self.common.are_all_of(keys)
    }

    /// Whether such mail is of the senders who explain all of it.
    fn is_by_senders(&self, keys: FeatureKeys) -> bool {
        self.new_senders == Some(keys.sender_domain())
    }

    /// Whether several show together what it is not about, and such mail is different.
    fn spares(&self, keys: FeatureKeys) -> bool {
        self.count > 1 && !self.is_all_in(keys)
    }
}

impl<'a> View<'a> {
    /// What is under way on `connections`, of which `answers` are waited for, but for the message `but`.
    pub(super) fn of(
        unanswered: &'a Unanswered,
        connections: u32,
        answers: &Answers,
        but: Option<QueueId>,
    ) -> View<'a> {
        let (now, connections) = (Instant::now(), connections as usize);
        let answered = unanswered.known_answers();
        let all = || unanswered.under_way.iter().filter_map(Weak::upgrade).filter(|one| Some(one.message) != but);
        let slow = answered.slow();
        let late: Vec<Silence> =
            answers.longer_than(answered.late(), now).filter(|silence| Some(silence.message) != but).collect();
        let silence = |one: &UnderWay| late.iter().find(|silence| silence.message == one.message);
        let is_silent = |one: &UnderWay| silence(one).is_some_and(|silence| silence.lasts >= slow);
        let (mut under_way, mut silent, mut used, mut all_late, mut probing) = (0, 0, 0, true, false);
        for one in all() {
            let (in_doubt, its_silent) = (one.standing != Standing::Clear, is_silent(&one));
            under_way += 1;
            silent += usize::from(its_silent);
            used += usize::from(in_doubt || its_silent);
            all_late &= in_doubt || silence(&one).is_some();
            probing |= one.standing == Standing::Probe && !its_silent;
        }
        let common = match connections {
            2.. if under_way + 1 >= connections => {
                common(all().map(|one| one.open(silence(&one), unanswered)), connections, unanswered, now)
            }
            _ => FeatureKeys::default(),
        };
        let hung = silent + unanswered.left_so_far();
        let for_proven = connections > 2
            && under_way + 1 >= connections
            && 2 * hung >= under_way
            && now.checked_sub(GOES_ON).is_some_and(|lately| answered.any_since(lately))
            && all().all(|one| {
                one.standing != Standing::Clear || silence(&one).is_some() || !is_proven(unanswered, one.keys, now)
            });
        // Where nothing was answered yet there is nothing to tell them by.
        let none = FeatureKeys::default();
        let (common, at_first) = if answered.times() > 0 { (common, none) } else { (none, common) };
        View {
            unanswered,
            connections,
            under_way,
            used,
            all_late,
            probing,
            late: Open::of(late.iter(), unanswered, now),
            silent: Open::of(late.iter().filter(|silence| silence.lasts >= slow), unanswered, now),
            common,
            for_proven,
            overdue: connections == 2
                && under_way == 1
                && late.iter().any(|silence| silence.may_end && silence.lasts >= RECENTLY),
            at_first,
            now,
        }
    }

    /// How a job stands that is given out now.
    pub(super) fn standing_of(&self, job: &Job) -> Standing {
        if self.is_idle() { Standing::Clear } else { self.standing(job.message.message.id, job.features().keys()) }
    }

    /// Whether a job waits until something else has ended.
    pub(super) fn keeps(&self, job: &Job) -> bool {
        !self.is_idle() && self.keeps_mail(job.message.message.id, job.features().keys())
    }

    /// The same of mail that would come now.
    pub(super) fn keeps_mail(&self, id: QueueId, keys: FeatureKeys) -> bool {
        // It may be the connection, one that was swallowed while it was idle, and nobody else may have mail to show it.
        // If the host hangs for this, too, one of both is given up when other mail waits.
        if self.overdue && !self.unanswered.concerns_mail(id, keys) {
            return false;
        }
        // The last one is for mail that the host may answer.
        let last = || self.connections > 1 && self.under_way + 1 >= self.connections && self.all_late;
        let full = || self.used >= Confined::of_all(self.connections) || last();
        match self.standing(id, keys) {
            Standing::Clear => {
                self.is_like_all(keys) && self.under_way + 1 >= self.connections
                    || self.for_proven && !is_proven(self.unanswered, keys, self.now)
                    || last() && self.late.is_about(keys) && !self.late.spares(keys)
            }
            Standing::Doubtful => full(),
            Standing::Probe => {
                let may_hang =
                    || !self.silent.spares(keys) || self.silent.is_by_senders(keys) || self.is_like_all(keys);
                self.probing || last() && may_hang()
            }
            Standing::Suspected => self.unanswered.rests(keys, self.now) || self.is_under_way(id) || full(),
        }
    }

    /// Whether other mail leaves before it.
    pub(super) fn goes_last(&self, job: &Job) -> bool {
        self.unanswered.left_lately(self.now) && self.unanswered.concerns(job)
    }

    /// Whether other mail is better for the last connection, though nothing was answered in the lane yet.
    pub(super) fn yields(&self, job: &Job) -> bool {
        !self.at_first.is_empty() && self.at_first.are_all_of(job.features().keys())
    }

    /// Whether any mail may be such.
    pub(super) fn is_first_burst(&self) -> bool {
        !self.at_first.is_empty()
    }

    /// Whether anything is suspected.
    pub(super) fn suspects_some(&self) -> bool {
        !self.unanswered.is_empty()
    }

    /// Whether it has all that the mail has in common that is under way on all other connections: it may be what that
    /// waits for. False where that has nothing in common.
    pub(super) fn is_like_all(&self, keys: FeatureKeys) -> bool {
        !self.common.is_empty() && self.common.are_all_of(keys)
    }

    /// Nothing keeps anything: most of the time.
    fn is_idle(&self) -> bool {
        self.unanswered.is_empty() && self.late.any.is_empty() && self.common.is_empty()
    }

    fn is_under_way(&self, id: QueueId) -> bool {
        let same = |one: Arc<UnderWay>| one.message == id && one.standing == Standing::Suspected;
        self.unanswered.under_way.iter().filter_map(Weak::upgrade).any(same)
    }

    fn standing(&self, id: QueueId, keys: FeatureKeys) -> Standing {
        if self.unanswered.concerns_mail(id, keys) {
            return if self.unanswered.is_less_likely(id, keys) { Standing::Probe } else { Standing::Suspected };
        }
        // Where nothing was answered yet there is nothing to tell them by.
        if self.silent.any.is_empty() || self.unanswered.known_answers().times() == 0 || self.connections < 2 {
            return Standing::Clear;
        }
        match (self.silent.is_about(keys), self.silent.is_all_in(keys)) {
            (false, _) => Standing::Clear,
            (true, true) => Standing::Doubtful,
            (true, false) => Standing::Probe,
        }
    }
}

impl UnderWay {
    /// Its features of which nothing was answered since it began; of those that the host has heard, if it waits for the
    /// answer to one of them.
    fn open(&self, silence: Option<&Silence>, unanswered: &Unanswered) -> FeatureKeys {
        let keys = silence.map_or(self.keys, |silence| silence.features);
        keys.telling().without(|key| unanswered.known_answers().knows_since(key, self.began))
    }
}

/// Whether the host has answered something of it lately: of its sender, its recipient, or a domain of theirs.
fn is_proven(unanswered: &Unanswered, keys: FeatureKeys, now: Instant) -> bool {
    let since = now.checked_sub(PROVEN).unwrap_or(now);
    keys.without_size().iter().any(|key| unanswered.known_answers().knows_since(key, since))
}

/// What all that is under way has in common.
fn common(
    open: impl Iterator<Item = FeatureKeys>,
    connections: usize,
    unanswered: &Unanswered,
    now: Instant,
) -> FeatureKeys {
    let mut common = None::<FeatureKeys>;
    for open in open {
        let so_far = common.map_or(open, |common| common.common(open));
        if so_far.is_empty() {
            return so_far;
        }
        common = Some(so_far);
    }
    let common = common.unwrap_or_default();
    // One message alone has all in common with itself.
    let since = now.checked_sub(RECENTLY).unwrap_or(now);
    let lately = |key| unanswered.known_answers().knows_since(key, since);
    if connections == 2 { common.of_sender().without(lately) } else { common }
}

impl State {
    /// A job is given out that stands so.
    pub(super) fn note_given(&mut self, job: &mut Job, standing: Standing) {
        if standing == Standing::Suspected {
            self.unanswered.note_tried(job);
        }
        let one = Arc::new(UnderWay::of(job, standing));
        self.unanswered.under_way.retain(|other| other.strong_count() > 0);
        self.unanswered.under_way.push(Arc::downgrade(&one));
        job.under_way = Some(one);
    }
}
