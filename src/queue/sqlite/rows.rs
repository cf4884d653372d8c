//! Values to columns and back.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use rusqlite::{Row, Statement, params};

use crate::clock::Timestamp;
use crate::mail::{
    Address, BodyKind, BodyTraits, Envelope, IpText, LaneName, Message, NewMessage, NewRecipient, Notify, Orcpt,
    Origin, QueueId, Recipient, RecipientKey, Ret, State, TlsWish,
};
use crate::queue::{Counts, QueueError};

/// Sender slots of a priority. A power of two; part of the schema (`recipient.bucket`).
pub(in crate::queue) const SLOTS: i64 = 64;

/// Bytes of a reason that are stored.
const REASON: usize = 1000;

/// Where a recipient stands in the order of its lane: all of a higher priority come first, and
/// within a priority the senders' slots take turns.
pub(super) fn bucket(message: &Message) -> i64 {
    let priority = i64::from(message.envelope.priority.clamp(-9, 9));
    (9 - priority) * SLOTS + slot(message.envelope.sender())
}

/// The slot of a sender. Stored, so it must never change: FNV-1a over the address in lower case,
/// without what bulk senders vary from message to message (VERP, BATV, SRS: digits, and all from
/// the first `+` or `=` of the local part), or one mailing would occupy every slot.
pub(in crate::queue) fn slot(sender: &str) -> i64 {
    (identity(sender) >> 58) as i64
}

/// Whose mail it is: senders of one slot are told apart by this.
pub(super) fn identity(sender: &str) -> u64 {
    let (local, domain) = sender.rsplit_once('@').unwrap_or((sender, ""));
    let name = local.split(['+', '=']).next().unwrap_or_default();
    let stable = name.bytes().filter(|b| !b.is_ascii_digit()).chain([b'@']).chain(domain.bytes());
    let hash = stable
        .fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b.to_ascii_lowercase())).wrapping_mul(0x0100_0000_01b3));
    // FNV leaves the last bytes in few bits: mix (the finalizer of MurmurHash3).
    let mixed = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    (mixed ^ mixed >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53)
}

/// The counts of [`super::sql::TALLY`].
pub(super) fn counts(row: &Row<'_>) -> rusqlite::Result<Counts> {
    let n = |i| row.get(i).map(unsigned);
    Ok(Counts {
        messages: n(0)?,
        queued: n(1)?,
        leased: n(2)?,
        held: n(3)?,
        failed: n(4)?,
        uncertain: n(5)?,
        owed: n(6)?,
    })
}

/// Executes [`super::sql::INSERT_MESSAGE`].
pub(super) fn insert_message(statement: &mut Statement<'_>, new: &NewMessage) -> rusqlite::Result<usize> {
    let m = &*new.message;
    let (origin, ip, helo) = match &m.origin {
        Origin::Client { ip, helo, listener, user } => {
            (0, Some(IpText::new(*ip)), Some(names_of(helo, listener, user)))
        }
        Origin::Dsn => (1, None, None),
        Origin::Local => (2, None, None),
    };
    statement.execute(params![
        m.id.0,
        m.received.0,
        m.envelope.sender(),
        signed(m.size),
        m.envelope.priority,
        m.envelope.body.to_number(),
        m.envelope.smtputf8,
        m.envelope.ret.map(|ret| ret == Ret::Full),
        m.envelope.envid,
        origin,
        ip.as_ref().map(IpText::as_str),
        helo.as_deref(),
        m.traits.to_bits() | m.envelope.tls.to_bits(),
        &new.head[..],
    ])
}

/// Between the name that a client gave, that of the listener and that of the user, in one column: no name has it.
const BETWEEN: char = '\t';

fn names_of<'a>(helo: &'a str, listener: &str, user: &str) -> Cow<'a, str> {
    match (listener, user) {
        ("", "") => helo.into(),
        (listener, "") => format!("{helo}{BETWEEN}{listener}").into(),
        (listener, user) => format!("{helo}{BETWEEN}{listener}{BETWEEN}{user}").into(),
    }
}

/// The user's name in that column.
pub(super) fn user_in(names: &str) -> &str {
    names.split(BETWEEN).nth(2).unwrap_or_default()
}

/// Executes [`super::sql::INSERT_RECIPIENT`].
pub(super) fn insert_recipient(
    statement: &mut Statement<'_>,
    message: &Message,
    bucket: i64,
    due: Timestamp,
    index: u32,
    new: &NewRecipient,
) -> rusqlite::Result<usize> {
    let recipient = &new.recipient;
    let state = new_state(new);
    statement.execute(params![
        message.id.0,
        index,
        state as u8,
        new.lane.as_str(),
        bucket,
        due.0,
        recipient.notify.to_bits() | if recipient.copy { COPY } else { 0 },
        recipient.address.as_str(),
        recipient.orcpt.as_ref().map(orcpt),
        new.held.as_deref().unwrap_or_default(),
        message.envelope.release.map(|release| release.0),
    ])
}

/// Beside the bits of NOTIFY in their column: the recipient got the message by a `[[copy]]`.
const COPY: u8 = 1 << 4;

/// Whether a column of NOTIFY says that.
pub(super) fn is_copy(bits: u8) -> bool {
    bits & COPY != 0
}

/// The state in which a new recipient is stored.
pub(super) fn new_state(new: &NewRecipient) -> State {
    match new {
        NewRecipient { held: Some(_), .. } => State::Held,
        NewRecipient { leased: true, .. } => State::Leased,
        _ => State::Queued,
    }
}

/// ORCPT as it is stored.
pub(super) fn orcpt(orcpt: &Orcpt) -> String {
    format!("{};{}", orcpt.kind, orcpt.address)
}

/// A row of [`super::sql::MESSAGE`].
pub(super) fn message(row: &Row<'_>) -> Result<Message, QueueError> {
    let id = QueueId(row.get(0)?);
    let damaged = |what: &str| QueueError::Damaged(format!("message {id} has {what} that cannot be read"));
    let sender: &str = text(row, 2)?;
    let reverse_path = match sender {
        "" => None,
        address => Some(Address::parse(address).map_err(|_| damaged("a sender"))?),
    };
    let envelope = Envelope {
        reverse_path,
        priority: row.get(4)?,
        body: BodyKind::from_number(row.get(5)?).ok_or_else(|| damaged("a kind of body"))?,
        smtputf8: row.get(6)?,
        ret: row.get::<_, Option<bool>>(7)?.map(|full| if full { Ret::Full } else { Ret::Headers }),
        envid: row.get(8)?,
        // It is kept with each recipient.
        release: None,
        tls: TlsWish::from_bits(row.get(12)?),
    };
    let origin = match row.get(9)? {
        0 => {
            let names = text(row, 11)?;
            let mut names = names.split(BETWEEN);
            let mut name = || names.next().unwrap_or_default();
            let (helo, listener, user) = (name(), name(), name());
            let ip = text(row, 10)?.parse::<IpAddr>().map_err(|_| damaged("a client address"))?;
            Origin::Client { ip, helo: helo.into(), listener: listener.into(), user: user.into() }
        }
        1 => Origin::Dsn,
        2 => Origin::Local,
        _ => return Err(damaged("an origin")),
    };
    Ok(Message {
        id,
        received: Timestamp(row.get(1)?),
        envelope,
        origin,
        size: unsigned(row.get(3)?),
        traits: BodyTraits::from_bits(row.get(12)?),
    })
}

/// A queued recipient as [`super::sql::DUE_IN_BUCKET`] gives it. The recipient itself may be
/// unreadable in a damaged store: then it is the caller's to put aside.
pub(super) struct Ready {
    pub(super) key: RecipientKey,
    pub(super) state: State,
    pub(super) due: Timestamp,
    pub(super) attempts: u32,
    pub(super) warned: bool,
    pub(super) release: Option<Timestamp>,
    pub(super) recipient: Result<Recipient, QueueError>,
}

/// A row of [`super::sql::DUE_IN_BUCKET`].
pub(super) fn ready(row: &Row<'_>) -> Result<Ready, QueueError> {
    let key = key(row)?;
    Ok(Ready {
        key,
        state: state(row.get(2)?)?,
        due: Timestamp(row.get(8)?),
        release: row.get::<_, Option<i64>>(9)?.map(Timestamp),
        attempts: row.get(3)?,
        warned: row.get(4)?,
        recipient: recipient(row, key),
    })
}

/// Columns 5 to 7: notify, address and orcpt.
pub(super) fn recipient(row: &Row<'_>, key: RecipientKey) -> Result<Recipient, QueueError> {
    let unreadable = |_| QueueError::Damaged(format!("recipient {} of {} cannot be read", key.index, key.id));
    let orcpt: Option<String> = row.get(7)?;
    Ok(Recipient {
        address: Address::parse(text(row, 6)?).map_err(unreadable)?,
        notify: Notify::from_bits(row.get(5)?),
        copy: is_copy(row.get(5)?),
        orcpt: orcpt.map(|o| match o.split_once(';') {
            Some((kind, address)) => Orcpt { kind: kind.to_owned(), address: address.to_owned() },
            None => Orcpt { kind: String::new(), address: o },
        }),
    })
}

/// The first two columns: message and idx.
pub(super) fn key(row: &Row<'_>) -> rusqlite::Result<RecipientKey> {
    Ok(RecipientKey { id: QueueId(row.get(0)?), index: row.get(1)? })
}

/// A stored state.
pub(super) fn state(number: u8) -> Result<State, QueueError> {
    State::from_number(number).ok_or_else(|| QueueError::Damaged(format!("{number} is not a state")))
}

/// A lane name column.
pub(super) fn lane(row: &Row<'_>, column: usize) -> rusqlite::Result<LaneName> {
    let name: Arc<str> = row.get(column)?;
    Ok(LaneName::from(&*name))
}

/// A text column without a copy.
pub(super) fn text<'r>(row: &'r Row<'_>, column: usize) -> Result<&'r str, QueueError> {
    row.get_ref(column)?.as_str().map_err(|e| QueueError::Damaged(e.to_string()))
}

/// What is stored of a reason: at most [`REASON`] bytes, cut between characters.
pub(super) fn cut(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(REASON)]
}

/// SQLite has no unsigned integers; no size comes near the sign bit.
pub(super) fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// The inverse of [`signed`].
pub(super) fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_senders_slot_is_stored_and_never_changes() {
        for (sender, expected) in [("", 63), ("news@shop.example", 22), ("alerts@shop.example", 27)] {
            assert_eq!(slot(sender), expected, "{sender}");
        }
        assert!((0..2000).all(|n| (0..SLOTS).contains(&slot(&format!("user@{n}.example")))));
    }

    #[test]
    fn a_mailing_with_an_address_per_message_has_one_slot() {
        let expected = slot("bounce@shop.example");
        for variant in ["bounce+12-a=x.example@shop.example", "Bounce17@shop.example", "bounce=a@Shop.example"] {
            assert_eq!(slot(variant), expected, "{variant}");
        }
    }

    #[test]
    fn a_reason_is_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        let long = format!("{}é", "x".repeat(REASON - 1));
        assert_eq!(cut(&long).len(), REASON - 1);
    }
}
