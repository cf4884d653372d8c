//! A reply within a transaction that answers nothing: a host that says one more than it was asked for.
//!
//! What is there before a command is written is not the answer to it. A success is passed over, exactly one: hosts that say
//! everything twice get their mail, one command at a time; where the second comes a moment later, the next command
//! waits for it ([`MOMENT`], remembered in `quirks`). A refusal is the first time nobody's fate: the message goes again at
//! once on a fresh connection. The second time it is the host's word on the command before it.
//!
//! Behind a 354 more is at stake.
//!
//! What is there before the last octets of a message are written is not the answer to them. Behind the dot it would pass
//! for that: for a message that was refused as delivered, or the other way round. So:
//!
//! - Such a reply ends the connection before the dot is out, and is nobody's fate: nothing was accepted, and the message goes
//!   again at once on a fresh connection.
//! - That host is then (`quirks`, for some hours) given [`MOMENT`] between its 354 and the first octet of a message. What it says
//!   meanwhile cannot be about the message either. A success is passed over, exactly one, or several that it has said before, and the message follows; after a
//!   refusal none of it is sent, as the host may read what comes as commands: that is the first time nobody's fate, too.
//! - Where nothing comes in that moment, later messages do not wait; but on a host that has contradicted itself behind a
//!   message, which may have got a wrong fate, each waits.
//! - A refusal in the middle of a message counts the second time: hosts do refuse what is too large there.
//!
//! What comes in place of the reply to the dot, or right behind it: see `end`. Where a second one comes later, the first has
//! been acted on: a warning names the message, and the host's next words are doubted.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::time::Instant;

use super::command;
use super::fact::{Event, Reply, Stage};
use super::quirks::Haste;
use super::reply::Received;
use super::session::Connection;
use super::transaction::End;
use super::wire::Written;
use crate::mail::QueueId;

/// What a host that says too much is given to say it, before a message follows its 354.
pub(super) const MOMENT: Duration = Duration::from_secs(1);
/// Replies beyond those that were asked for that are heard out, of a host that repeats itself.
pub(super) const COPIES: usize = 8;
/// A 4yz that comes longer after the end of a message is the word of a host that tires of waiting.
const TIRED: Duration = Duration::from_secs(5);

/// The reply to the end of the last message of a connection.
#[derive(Default)]
pub(super) struct LastWord {
    /// Which, and when it came; `None`: there was none, or what followed was told.
    of: Option<(QueueId, Instant, bool)>,
    /// As told to people, at most 1,000 bytes; kept for the next one.
    reply: String,
}

impl LastWord {
    /// A transaction of this message has ended: what was said to another one before is over.
    pub(super) fn is_of(&mut self, message: QueueId) {
        self.of = self.of.filter(|(id, ..)| *id == message);
    }
}

impl Connection {
    /// The host has said something between a 354 and the end of a message: from now on it is given a moment for that.
    pub(super) fn note_interruption(&self) {
        self.note(|quirks| (quirks.haste, quirks.interrupts) = (Haste::Waits, true));
    }

    /// Behind a 354, which answered the last command: whatever comes before the body is no answer to it.
    ///
    /// # Errors
    /// The body must not follow.
    pub(super) async fn before_body(&mut self) -> Result<(), End> {
        let garbled = |why: String| Err((Stage::Data, Event::Garbled(why)));
        if self.known_quirks().haste != Haste::Waits {
            return match self.wire.has_stray() {
                true => garbled("more replies than commands".to_owned()),
                false => Ok(()),
            };
        }
        self.wire.bear(COPIES);
        if self.wire.stays_quiet(MOMENT).await {
            self.note(|quirks| {
                if !quirks.wary {
                    quirks.haste = Haste::InVain;
                }
            });
            return Ok(());
        }
        for _ in 0..COPIES {
            // The end of the connection shows in the body.
            if self.wire.is_broken() || self.wire.stray().is_some_and(|reply| reply.code == 421) {
                return Ok(());
            }
            let Received { reply: stray, again, .. } =
                self.wire.read(MOMENT).await.map_err(|event| (Stage::Data, event))?;
            // Its 354 once more is a success, too.
            if stray.code >= 400 {
                return Err(self.refused_unasked(Stage::Data, stray, again));
            }
            tracing::debug!(host = self.host(), id = %self.message.0, reply = %stray, "a reply to no command, before the message: passed over");
            if again {
                self.note(|quirks| quirks.repeats = true);
            }
            // Whoever repeats one reply may repeat others.
            if !again || self.wire.stays_quiet(MOMENT).await {
                break;
            }
        }
        match self.wire.has_stray() {
            true => garbled("more replies than commands".to_owned()),
            false => Ok(()),
        }
    }

    /// What came before the reply to the end of a message was none: from now on the host is given a moment behind its 354,
    /// which it may say twice.
    pub(super) fn note_late_go_ahead(&self) {
        self.note(|quirks| quirks.haste = quirks.haste.or_waits());
    }

    /// The moment before MAIL of a host that may answer twice. Before the permit where that is possible: behind it the next
    /// message would follow too soon.
    pub(super) async fn wait_before_mail(&mut self) {
        if self.owes_wait() {
            self.wire.stays_quiet(MOMENT).await;
            self.waited = true;
        }
    }

    /// Whether the host was heard to answer twice only after this connection was made ready: it is to be made ready again, before
    /// any permit. To wait behind one would let what it permits leave a moment late, right before the next.
    pub fn owes_wait(&self) -> bool {
        !self.waited && self.known_quirks().doubles
    }

    /// Before a command, without PIPELINING: what lies there answers the command of `stage`, the last one, once more.
    ///
    /// # Errors
    /// It says something else than that reply, or there are several.
    pub(super) async fn before_command(&mut self, stage: Stage) -> Result<(), End> {
        match stage {
            Stage::Idle => self.wait_before_mail().await,
            _ if self.known_quirks().doubles => drop(self.wire.stays_quiet(MOMENT).await),
            _ => {}
        }
        self.waited = false;
        let Some(stray) = self.wire.take_stray() else { return Ok(()) };
        let success = (200..300).contains(&self.last_code);
        if success && !stray.is_positive() {
            let copy = self.wire.has_said(&stray);
            return Err(self.refused_unasked(stage, stray, copy));
        }
        // A success behind a refusal, or the other way round: which of them is about what was asked last, nobody knows.
        if success != stray.is_positive() || !success && stray.code != self.last_code || self.wire.has_stray() {
            return Err((stage, Event::Garbled("more replies than commands".to_owned())));
        }
        tracing::debug!(host = self.host(), id = %self.message.0, reply = %stray, "a reply to no command: passed over");
        Ok(())
    }

    /// Before the first command of a connection, a host may still have said something twice while it was set up.
    pub(super) fn before_first(&mut self) {
        if self.wire.has_stray() {
            self.wire.pass_over();
            (self.pipelining, self.chunking) = (false, false);
        }
    }

    /// A refusal that no command asked for, behind the reply to that of `stage`; `copy`: the host has said that before.
    fn refused_unasked(&mut self, stage: Stage, refusal: Reply, copy: bool) -> End {
        // On a connection that was opened before, it may be about one of several recipients; on one that was used, about
        // another message; and what was said before is a copy.
        if self.known_quirks().unasked && self.caps.limits.recipients == Some(1) && self.sent <= 1 && !copy {
            return (stage, Event::Reply(refusal));
        }
        tracing::debug!(host = self.host(), id = %self.message.0, reply = %refusal, "a refusal that answers nothing: it counts the next time");
        self.note(|quirks| {
            quirks.unasked = true;
            quirks.repeats |= copy;
        });
        (Stage::Idle, Event::LeftOut("the refusal came before anything was asked"))
    }

    /// The reply to the end of a message is known, and acted on from now on.
    pub(super) fn heard_end(&mut self, reply: &Reply) {
        let word = &mut self.last_word;
        word.of = Some((self.message.0, Instant::now(), reply.is_positive()));
        word.reply.clear();
        let _ = write!(word.reply, "{reply}");
    }

    /// Remembers a host that answers one command twice, which showed while nothing was asked: that could give a message
    /// the fate of another. What it says when it tires of waiting is no such answer.
    pub(super) fn note_stray(&mut self) {
        if let Some(stray) = self.wire.stray().cloned() {
            self.tell_stray(&stray);
        }
    }

    /// Tells of a reply that came behind the one to the end of the last message, if there was any.
    pub(super) fn tell_stray(&mut self, stray: &Reply) {
        let Some((id, since, taken)) = self.last_word.of.take() else {
            if stray.is_positive() {
                self.note(|quirks| (quirks.once, quirks.repeats) = (true, true));
            }
            return;
        };
        if stray.code == 421 || stray.is_transient() && since.elapsed() > TIRED {
            return;
        }
        let (host, reply) = (self.host(), &*self.last_word.reply);
        if taken == stray.is_positive() {
            tracing::warn!(host, %id, reply, then = %stray, "the host answers the end of a message twice");
        } else {
            tracing::warn!(
                host, %id, reply, then = %stray,
                "the host answers the end of a message twice and contradicts itself: the message has the fate of the first reply, which may be the answer to something else"
            );
        }
        let contradiction = taken != stray.is_positive();
        let surplus = stray.is_positive() || stray.is_permanent() && !self.wire.is_broken();
        self.note(|quirks| {
            quirks.once |= surplus;
            quirks.repeats |= surplus;
            if contradiction {
                (quirks.haste, quirks.wary) = (Haste::Waits, true);
            } else if surplus {
                quirks.haste = quirks.haste.or_waits();
            }
        });
    }

    /// QUIT, and the reply to it: a host that says something else first has answered the last message once more.
    pub(super) async fn say_good_bye(&mut self) {
        command::print(&mut self.wire.out, lettre::transport::smtp::commands::Quit);
        let limit = self.timeouts.quit;
        let _ = tokio::time::timeout(limit, async {
            if self.wire.write(&[], 1, usize::MAX, limit).await != Written::All {
                return;
            }
            let Ok(first) = self.wire.read(limit).await else { return };
            // Some know no QUIT, or have another code for it: those are not waited for as long.
            if first.reply.code != 221
                && self.last_word.of.is_some()
                && let Ok(second) = self.wire.read(MOMENT).await
                && second.reply.code == 221
            {
                self.tell_stray(&first.reply);
            }
        })
        .await;
    }
}

impl Haste {
    /// Something came too late to know whether waiting helps: it is found out once.
    pub(super) fn or_waits(self) -> Haste {
        match self {
            Haste::Fine => Haste::Waits,
            known => known,
        }
    }
}
