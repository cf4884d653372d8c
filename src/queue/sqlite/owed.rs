//! Reports that are owed: stored with the fate they tell of, ended with the message that tells it.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::store::Store;
use super::{rows, sql};
use crate::clock::Timestamp;
use crate::crash;
use crate::mail::{Action, NewMessage, Owed, QueueId, RecipientKey};
use crate::queue::{Debt, Owing, QueueError};

impl Store<'_> {
    /// Stores a debt in the place of what was owed for this recipient before.
    pub(super) fn owe(&mut self, debt: &Owed) -> Result<(), QueueError> {
        let (id, index) = (debt.key.id.0, debt.key.index);
        self.tally.owed -= i64::from(self.statement(sql::DELETE_OWED)?.execute(params![id, index])? == 1);
        let (class, subject, detail) = debt.status;
        self.statement(sql::INSERT_OWED)?.execute(params![
            id,
            index,
            debt.due.0,
            debt.action as u8,
            format!("{class}.{subject}.{detail}"),
            debt.replied,
            rows::cut(&debt.text),
            debt.remote_mta.as_deref().map(rows::cut),
            debt.last_attempt.0,
            debt.will_retry_until.map(|until| until.0),
            debt.recipient.notify.to_bits(),
            debt.recipient.address.as_str(),
            debt.recipient.orcpt.as_ref().map(rows::orcpt),
        ])?;
        self.tally.owed += 1;
        Ok(())
    }

    /// Ends debts and stores the message that tells of them.
    pub(super) fn report(
        &mut self,
        told: &[(RecipientKey, Timestamp)],
        report: Option<&NewMessage>,
    ) -> Result<(), QueueError> {
        for (key, due) in told {
            // Or a report might be made twice: by whoever comes second, or by an answer that was lost.
            if self.statement(sql::DELETE_OWED_DUE)?.execute(params![key.id.0, key.index, due.0])? != 1 {
                let what = format!("nothing that is due at {due} is owed on recipient {} of {}", key.index, key.id);
                return Err(QueueError::Invalid(what));
            }
            self.tally.owed -= 1;
        }
        if let Some(report) = report {
            self.accept(report)?;
            crash::point("dsn.written");
        }
        self.drop_finished(&mut told.iter().map(|(key, _)| key.id).collect())
    }
}

/// Messages that owe a report, by due time: one seek and a walk in the index.
pub(super) fn owing(conn: &Connection, after: Option<Owing>, limit: usize) -> Result<Vec<Owing>, QueueError> {
    let (due, id) = after.map_or((i64::MIN, i64::MIN), |owing| (owing.due.0, owing.id.0));
    let mut statement = conn.prepare_cached(sql::OWING)?;
    let mut found: Vec<Owing> = Vec::new();
    for owing in statement.query_map(params![due, id, rows::signed(limit as u64)], |row| {
        Ok(Owing { due: Timestamp(row.get(0)?), id: QueueId(row.get(1)?) })
    })? {
        let owing = owing?;
        if found.last() != Some(&owing) {
            found.push(owing);
        }
    }
    Ok(found)
}

/// What a message owes.
pub(super) fn owed(conn: &Connection, id: QueueId, limit: usize) -> Result<Option<Debt>, QueueError> {
    let mut statement = conn.prepare_cached(sql::OWED)?;
    let mut found = statement.query(params![id.0, rows::signed(limit as u64)])?;
    let mut items = Vec::new();
    while let Some(row) = found.next()? {
        items.push(item(row)?);
    }
    if items.is_empty() {
        return Ok(None);
    }
    let message = conn.prepare_cached(sql::MESSAGE)?.query_row([id.0], |row| Ok(rows::message(row))).optional()?;
    let missing = || QueueError::Damaged(format!("message {id}, which owes a report, is not there"));
    Ok(Some(Debt { message: message.ok_or_else(missing)??, items }))
}

/// A row of [`sql::OWED`].
fn item(row: &Row<'_>) -> Result<Owed, QueueError> {
    let key = rows::key(row)?;
    let damaged =
        |what: &str| QueueError::Damaged(format!("the report owed on {} of {} has {what}", key.index, key.id));
    let mut numbers = rows::text(row, 4)?.split('.').map(str::parse::<u16>);
    let mut number = || numbers.next().and_then(Result::ok).ok_or_else(|| damaged("a status that cannot be read"));
    let class = u8::try_from(number()?).map_err(|_| damaged("a status of no class"))?;
    Ok(Owed {
        key,
        due: Timestamp(row.get(2)?),
        action: Action::from_number(row.get(3)?).ok_or_else(|| damaged("an action that is none"))?,
        status: (class, number()?, number()?),
        recipient: rows::recipient(row, key)?,
        replied: row.get(8)?,
        text: row.get(9)?,
        remote_mta: row.get(10)?,
        last_attempt: Timestamp(row.get(11)?),
        will_retry_until: row.get::<_, Option<i64>>(12)?.map(Timestamp),
    })
}

/// Whether a recipient of which nothing is owed is leased, or waits and is due before `until`.
pub(super) fn is_under_way(conn: &Connection, id: QueueId, until: Timestamp) -> Result<bool, QueueError> {
    Ok(conn.prepare_cached(sql::UNDER_WAY)?.query_row(params![id.0, until.0], |row| row.get(0))?)
}
