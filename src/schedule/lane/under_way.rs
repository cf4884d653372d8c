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
//! - *Unproven* is mail that nothing [proves](super::proof): what the host has answered of it lately is also in mail that
//!   hangs, or its sender is one whom it did not answer. Where all other connections have mail that is late or unproven,
//!   and as many messages as half of them hang (longer than any was answered in, or ten seconds) or had no answer in the
//!   last ten minutes, or all of them do so for a moment, and
//!   other mail was answered in the last minute, the last one is for proven mail, if any was answered in that time; else
//!   for that of known senders.
//! - *In a burst* of mail to mailboxes that are new the last of more than two connections is, until the others are late,
//!   for mail that the host knows better, unless such mail was answered since half of it began.
//!
//! - *Overdue*: with two connections like mail has the second one when the first one has waited for [`RECENTLY`] before
//!   its body was out: else a connection that a firewall swallowed would stop all mail of a sender who is alone.
//!
//! Before anything was answered since it began nearly all mail has something in common with what waits: then only the
//! first rule holds. Before anything at all was answered in the lane, as after a start, it holds as well: with two
//! connections as a matter of order, with more until the first answer, or until all that is under way has waited for
//! [`RECENTLY`] and may be given up. A domain that all mail of the lane has tells nothing.
//!
//! While some mail hangs, proven mail leaves first, then what is unlike what hangs, for as long as the last message that
//! hung had its connection.
//!
//! Bounded: one entry for a transaction. Pure.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::State;
use super::answered::Answered;
use super::answers::Answers;
use super::proof::{Hung, Proof};
use super::unanswered::{Confined, Unanswered};
use crate::deliver::Silence;
use crate::mail::{FeatureKeys, QueueId};
use crate::schedule::Job;

/// The last connection is kept for mail that is proven if any was answered so lately.
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
    /// It was proven when it left, and its mailbox had been answered.
    old: bool,
    /// By what tells it from mail that hangs, or by its mailbox.
    pub(super) shows: bool,
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

/// How a job is given out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Given {
    pub(super) standing: Standing,
    proven: bool,
    old: bool,
    shows: bool,
    some_hangs: bool,
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
    /// All of it is to mailboxes that were never answered, of senders who were.
    all_new: bool,
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
    /// What the last connection is for, where one is left.
    last_for: LastFor,
    /// What shows that mail is answered.
    proof: Proof<'a>,
    /// Of two connections one has waited for long for an answer that it may be given up for.
    overdue: bool,
    /// All that is under way is to mailboxes that the host has never answered, of senders whom it has.
    all_new: bool,
    /// Of two connections one has such mail, and nothing was answered in the lane yet.
    at_first: FeatureKeys,
    now: Instant,
}

/// Which mail may have the last connection, beside what is said of mail that is late, in doubt or alike.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum LastFor {
    #[default]
    All,
    /// Of which anything was answered lately.
    Known,
    /// Of which something was that no mail has that hangs.
    Proven,
    /// Which is better known than what is under way, as long as nothing to a new mailbox was answered since.
    Better(Known),
    /// Nothing was answered yet: what shares nothing with what is under way.
    Others,
}

impl UnderWay {
    #[cfg(test)]
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    fn of(job: &Job, Given { standing, old, shows, .. }: Given) -> UnderWay {
        UnderWay {
            message: job.message.message.id,
            keys: job.features().keys(),
            began: Instant::now(),
            attempts: job.recipients.iter().map(|held| held.attempts).max().unwrap_or_default(),
            standing,
            old,
            shows,
        }
    }

    /// As one that has no answer, of which the host has heard this.
    pub(super) fn hung(&self, keys: FeatureKeys) -> Hung {
        Hung { message: self.message, keys, began: self.began, proven: self.old }
    }
}

impl Open {
    /// Of what waits so long.
    fn of<'a>(silences: impl Iterator<Item = &'a Silence>, unanswered: &Unanswered, now: Instant) -> Open {
        let answered = unanswered.known_answers();
        let (mut any, mut common, mut untold, mut count) = (Vec::new(), None::<FeatureKeys>, false, 0);
        let (mut senders, mut all_new) = (None::<Option<u64>>, true);
        for silence in silences {
            let began = now.checked_sub(silence.lasts).unwrap_or(now);
            untold |= !answered.any_since(began);
            let of = silence.features;
            all_new &= Known::of(of, answered) == Known::Sender;
            let own = of.without(|key| Some(key) == answered.only_domain() || answered.knows_since(key, began));
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
        Open { any, common, new_senders: senders.flatten(), untold, all_new, count }
    }

    /// Whether it may be about such mail.
    fn is_about(&self, keys: FeatureKeys) -> bool {
        !self.untold && keys.iter().any(|key| self.any.contains(&key))
    }

    /// Whether such mail has all that it can be about.
    fn is_all_in(&self, keys: FeatureKeys, answered: &Answered) -> bool {
        // That their mailboxes are new explains it as well.
        let differs = self.all_new && self.count > 1 && Known::of(keys, answered) == Known::Mailbox;
        !differs && (self.common.is_empty() || self.common.are_all_of(keys))
    }

    /// Whether such mail is of the senders who explain all of it.
    fn is_by_senders(&self, keys: FeatureKeys) -> bool {
        self.new_senders == Some(keys.sender_domain())
    }

    /// Whether several show together what it is not about, and such mail is different.
    fn spares(&self, keys: FeatureKeys, answered: &Answered) -> bool {
        self.count > 1 && !self.is_all_in(keys, answered)
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
        let (mut under_way, mut used, mut all_late, mut probing) = (0, 0, true, false);
        for one in all() {
            let (in_doubt, its_silent) = (one.standing != Standing::Clear, is_silent(&one));
            under_way += 1;
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
        // With two, it is a matter of order before the first answer.
        let none = FeatureKeys::default();
        let at_first = connections == 2 && answered.times() == 0;
        let (common, at_first) = if at_first { (none, common) } else { (common, none) };
        // Before the first answer one of them may be given up for other mail, in the end.
        let may_end = |silence: &Silence| silence.may_end && silence.lasts >= RECENTLY;
        let gives_way = answered.times() == 0 && late.len() >= under_way && late.iter().all(may_end);
        let common = if gives_way { none } else { common };
        // What waits no longer than other mail did that was answered is late, and does not hang.
        let longest = answered.longest_lately(now).min(RECENTLY);
        let hangs = |one: &UnderWay| silence(one).filter(|silence| silence.lasts > longest);
        // Of what hangs for a moment only it is not known yet that it is no proof.
        let of_late = |one: Arc<UnderWay>| {
            let silence = hangs(&one)?;
            let hung = one.hung(silence.features);
            Some(Hung { proven: hung.proven && silence.lasts >= slow.max(RECENTLY), ..hung })
        };
        let hung: Vec<Hung> = all().filter_map(of_late).chain(unanswered.lately.all(now)).collect();
        let proof = Proof::of(answered, hung.iter().copied(), now);
        let long = all().filter(|one| is_silent(one) && hangs(one).is_some()).count();
        let last_for = match connections {
            2.. if under_way > 0 && under_way + 1 >= connections => {
                let waits: Vec<(Arc<UnderWay>, bool)> = all()
                    .map(|one| {
                        let late = one.standing != Standing::Clear || hangs(&one).is_some();
                        (one, late)
                    })
                    .collect();
                LastFor::of(&waits, long + unanswered.lately.all(now).count(), &proof, unanswered, connections, now)
            }
            _ => LastFor::All,
        };
        let all_new = all().all(|one| Known::of(one.keys, answered) == Known::Sender);
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
            last_for,
            proof,
            overdue: connections == 2
                && under_way == 1
                && late.iter().any(|silence| silence.may_end && silence.lasts >= RECENTLY),
            all_new,
            at_first,
            now,
        }
    }

    /// How a job stands that is given out now.
    pub(super) fn given(&self, job: &Job) -> Given {
        let keys = job.features().keys();
        let standing = if self.is_idle() { Standing::Clear } else { self.standing(job.message.message.id, keys) };
        let (proven, old) = (self.proof.has(keys), Known::of(keys, self.answered()) == Known::Mailbox);
        let shows = proven && (old || !self.proof.is_of_all());
        Given { standing, proven, old: proven && old, shows, some_hangs: !self.proof.is_of_all() }
    }

    /// Whether a job waits until something else has ended.
    pub(super) fn keeps(&self, job: &Job) -> bool {
        !self.is_idle() && self.keeps_mail(job.message.message.id, job.features().keys())
    }

    /// The same of mail that would come now.
    pub(super) fn keeps_mail(&self, id: QueueId, keys: FeatureKeys) -> bool {
        // It may be the connection, one that was swallowed while it was idle, and nobody else may have mail to show it.
        // If the host hangs for this, too, one of both is given up when other mail waits.
        if self.overdue && !self.unanswered.concerns_mail(id, keys) && !self.is_left_to_others(keys) {
            return false;
        }
        // The last one is for mail that the host may answer.
        let last = || self.connections > 1 && self.under_way + 1 >= self.connections && self.all_late;
        // With one connection, what hangs has it for as long as other mail.
        let rests = || {
            let goes_on = || self.now.checked_sub(GOES_ON).is_some_and(|at| self.answered().any_since(at));
            self.connections == 1 && self.unanswered.rests_all(self.now) && goes_on()
        };
        let full = || self.used >= Confined::of_all(self.connections) || last();
        match self.standing(id, keys) {
            Standing::Clear => {
                self.is_like_all(keys) && self.under_way + 1 >= self.connections
                    || self.is_left_to_others(keys)
                    || last() && self.late.is_about(keys) && !self.late.spares(keys, self.answered())
            }
            Standing::Doubtful => full(),
            Standing::Probe => {
                let may_hang = || {
                    !self.silent.spares(keys, self.answered())
                        || self.silent.is_by_senders(keys)
                        || self.is_like_all(keys)
                };
                self.probing || last() && may_hang() || rests()
            }
            Standing::Suspected => self.unanswered.rests(keys, self.now) || self.is_under_way(id) || full() || rests(),
        }
    }

    /// Whether other mail leaves before it; of what nothing proves, with `unlike` that which is like mail that hangs.
    pub(super) fn goes_last(&self, job: &Job, unlike: bool) -> bool {
        let (id, keys) = (job.message.message.id, job.features().keys());
        if !self.at_first.is_empty() && self.at_first.are_all_of(keys) {
            return true;
        }
        let unproven = || self.some_hangs() && !self.proof.has(keys) && (!unlike || self.proof.is_like(keys));
        self.rests() && (self.unanswered.concerns_mail(id, keys) || unproven())
    }

    /// Whether some mail leaves before other mail: what was answered before what may hang.
    pub(super) fn prefers_some(&self) -> bool {
        !self.at_first.is_empty() || self.rests() && (self.some_hangs() || !self.unanswered.is_empty())
    }

    /// Whether any mail hangs, or had no answer lately.
    pub(super) fn some_hangs(&self) -> bool {
        !self.proof.is_of_all()
    }

    /// Whether what may hang has had its turn.
    fn rests(&self) -> bool {
        self.unanswered.left_lately(self.now) || self.unanswered.rests_all(self.now)
    }

    fn answered(&self) -> &Answered {
        self.unanswered.known_answers()
    }

    /// Whether the last connection is for other mail.
    fn is_left_to_others(&self, keys: FeatureKeys) -> bool {
        match self.last_for {
            LastFor::All => false,
            LastFor::Known => !self.proof.knows(keys),
            LastFor::Proven => !self.proof.has(keys),
            LastFor::Better(than) => Known::of(keys, self.answered()) <= than,
            LastFor::Others => self.shares_some(keys),
        }
    }

    /// Whether it has anything in common with what is under way.
    fn shares_some(&self, keys: FeatureKeys) -> bool {
        let only = self.answered().only_domain();
        let telling = keys.telling().without(|key| Some(key) == only);
        let mut all = self.unanswered.under_way.iter().filter_map(Weak::upgrade);
        all.any(|one| !one.keys.common(telling).is_empty())
    }

    /// Whether nothing is gained for it where one of those ends that are under way.
    /// `in_vain`: one has ended for other mail, and nothing was answered since.
    pub(super) fn gains_nothing(&self, keys: FeatureKeys, in_vain: bool) -> bool {
        // Where all of that goes to mailboxes that are new it may be about these.
        !self.all_new && (self.is_like_all(keys) || in_vain && self.shares_some(keys))
    }

    /// Whether it has all that the mail has in common that is under way on all other connections: it may be what that
    /// waits for. False where that has nothing in common.
    pub(super) fn is_like_all(&self, keys: FeatureKeys) -> bool {
        let differs = self.all_new && Known::of(keys, self.answered()) == Known::Mailbox;
        !differs && !self.common.is_empty() && self.common.are_all_of(keys)
    }

    /// Nothing keeps anything: most of the time.
    fn is_idle(&self) -> bool {
        let all = self.last_for == LastFor::All;
        all && self.unanswered.is_empty() && self.late.any.is_empty() && self.common.is_empty()
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
        match (self.silent.is_about(keys), self.silent.is_all_in(keys, self.answered())) {
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
        let only = unanswered.known_answers().only_domain();
        keys.telling().without(|key| Some(key) == only || unanswered.known_answers().knows_since(key, self.began))
    }
}

impl LastFor {
    /// Where these are under way, late or not, and so many have waited for far too long or had no answer lately.
    fn of(
        under_way: &[(Arc<UnderWay>, bool)],
        hung: usize,
        proof: &Proof<'_>,
        unanswered: &Unanswered,
        connections: usize,
        now: Instant,
    ) -> LastFor {
        let answered = unanswered.known_answers();
        let mut began: Vec<Instant> = under_way.iter().map(|(one, _)| one.began).collect();
        began.sort_unstable();
        let (middle, youngest) = (began.get(began.len().saturating_sub(1) / 2), began.last());
        let burst = began.first().is_some_and(|at| now.saturating_duration_since(*at) < answered.late());
        let at_once = |within| youngest.is_some_and(|at| now.saturating_duration_since(*at) < within);
        if answered.times() == 0 {
            let others = connections > 2 && at_once(answered.slow());
            return if others { LastFor::Others } else { LastFor::All };
        }
        let ago = |time| now.checked_sub(time).unwrap_or(now);
        let all_late = under_way.iter().all(|(_, late)| *late);
        let is_open = |(one, late): &(Arc<UnderWay>, bool)| *late || !proof.has(one.keys);
        let hang = 2 * hung >= under_way.len();
        if (all_late || hang) && answered.any_since(ago(GOES_ON)) && under_way.iter().all(is_open) {
            let proves = unanswered.proved.is_some_and(|at| at > ago(GOES_ON));
            return if proves && (hang || connections > 2) { LastFor::Proven } else { LastFor::Known };
        }
        // Of two connections one has a message alone, which is no burst.
        let best = under_way.iter().map(|(one, _)| Known::of(one.keys, answered)).max();
        match best.filter(|best| connections > 2 && *best < Known::Mailbox && at_once(answered.late())) {
            Some(Known::Stranger) if middle.is_some_and(|at| answered.new_sender_since(*at)) => LastFor::All,
            // Where it was busy before, some of it is older.
            Some(Known::Sender) if !burst => LastFor::All,
            Some(Known::Sender) if middle.is_some_and(|at| answered.new_mailbox_since(*at)) => LastFor::All,
            Some(best) => LastFor::Better(best),
            None => LastFor::All,
        }
    }
}

/// How well a host knows mail: whether it ever answered anything of its sender, or of its mailbox.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Known {
    Stranger,
    /// Its sender, or his domain.
    Sender,
    Mailbox,
}

impl Known {
    fn of(keys: FeatureKeys, answered: &Answered) -> Known {
        if keys.recipient().is_some_and(|mailbox| answered.knows_mailbox(mailbox, None)) {
            return Known::Mailbox;
        }
        let sender = answered.knows(keys.sender()) || answered.knows(keys.sender_domain());
        if sender { Known::Sender } else { Known::Stranger }
    }
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
    pub(super) fn note_given(&mut self, job: &mut Job, given: Given) {
        match given.standing {
            Standing::Suspected => self.unanswered.note_tried(job),
            _ if given.some_hangs && !given.proven => self.unanswered.note_unproven(),
            _ => {}
        }
        let one = Arc::new(UnderWay::of(job, given));
        self.unanswered.under_way.retain(|other| other.strong_count() > 0);
        self.unanswered.under_way.push(Arc::downgrade(&one));
        job.under_way = Some(one);
    }
}
