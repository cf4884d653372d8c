//! Reading beside the writer: a few connections of their own on blocking threads, so that a body
//! or a list never waits for a commit (a WAL reader sees the last one).

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::Semaphore;

use super::names::Names;
use super::{rows, schema, sql};
use crate::clock::Timestamp;
use crate::config::units::Pattern;
use crate::mail::{LaneName, QueueId, RecipientKey, State, TlsWish, domain_of};
use crate::queue::{Filter, Page, QueueError, Row};

/// Connections, and so reads at once.
const READERS: u32 = 4;

/// Recipients that one `inspect` looks at; a page may be short, or empty, and not the last.
pub(super) const SCAN: usize = 50_000;

/// A connection that is open as long as the store is ([`super::log::anchor`]). Whatever becomes of
/// the files' names, it reads what this process writes.
#[derive(Default)]
pub(super) struct Keeper {
    conn: Mutex<Option<Connection>>,
    closing: AtomicBool,
}

impl Keeper {
    /// The connection, unless somebody uses it.
    pub(super) fn try_take(&self) -> Option<MutexGuard<'_, Option<Connection>>> {
        self.conn.try_lock()
    }

    /// Whoever uses it should come to an end.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// Closes it, once nobody uses it.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        *self.conn.lock() = None;
    }
}

/// The pool.
pub(super) struct Readers {
    path: PathBuf,
    /// Bytes of the page cache of each.
    cache: u64,
    slots: Arc<Semaphore>,
    idle: Mutex<Vec<Connection>>,
    pub(super) keeper: Keeper,
    // After the connections: see there.
    names: Arc<Names>,
}

impl Readers {
    /// For the store at `path`, which `keeper` has open.
    pub(super) fn new(path: PathBuf, cache: u64, keeper: Option<Connection>, names: Arc<Names>) -> Readers {
        let keeper = Keeper { conn: Mutex::new(keeper), ..Keeper::default() };
        let slots = Arc::new(Semaphore::new(READERS as usize));
        Readers { path, cache, slots, idle: Mutex::new(Vec::new()), keeper, names }
    }

    /// Closes the connections that nobody uses.
    pub(super) fn close_idle(&self) {
        self.idle.lock().clear();
    }

    /// Runs `read` in a read transaction: it sees one state of the store.
    pub(super) async fn run<T: Send + 'static>(
        self: &Arc<Readers>,
        read: impl FnOnce(&Connection) -> Result<T, QueueError> + Send + 'static,
    ) -> Result<T, QueueError> {
        let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(|_| QueueError::Closed)?;
        let pool = Arc::clone(self);
        let task = tokio::task::spawn_blocking(move || {
            let result = pool.read(read);
            // Only now may `close` go on.
            drop(slot);
            result
        });
        task.await.unwrap_or_else(|e| Err(QueueError::Unavailable(format!("a read was abandoned: {e}"))))
    }

    fn read<T>(&self, read: impl FnOnce(&Connection) -> Result<T, QueueError>) -> Result<T, QueueError> {
        let _index = self.names.use_index();
        let idle = self.idle.lock().pop();
        let conn = match (idle, self.names.may_open()) {
            (Some(conn), _) => conn,
            (None, Ok(())) => schema::connect_reader(&self.path, self.cache)?,
            // By the name one would get another store, or none: that one is still open.
            (None, Err(e)) => match self.keeper.try_take().as_deref() {
                Some(Some(conn)) => return read_in_transaction(conn, read),
                _ => return Err(e),
            },
        };
        let result = read_in_transaction(&conn, read);
        if result.is_ok() {
            self.idle.lock().push(conn);
        }
        result
    }

    /// Waits for reads that are under way, refuses others, and closes the connections.
    pub(super) async fn close(&self) {
        let all = self.slots.acquire_many(READERS).await;
        self.slots.close();
        self.idle.lock().clear();
        drop(all);
    }
}

fn read_in_transaction<T>(
    conn: &Connection,
    read: impl FnOnce(&Connection) -> Result<T, QueueError>,
) -> Result<T, QueueError> {
    let tx = conn.unchecked_transaction()?;
    read(&tx)
}

/// A chunk of an accepted message.
pub(super) fn chunk(conn: &Connection, id: QueueId, index: u32) -> Result<Option<Bytes>, QueueError> {
    let data: Option<Vec<u8>> = match index {
        0 => conn.prepare_cached(sql::HEAD)?.query_row([id.0], |row| row.get(0)).optional()?,
        _ => conn.prepare_cached(sql::CHUNK)?.query_row(params![id.0, index], |row| row.get(0)).optional()?,
    };
    Ok(data.map(Bytes::from))
}

/// Recipients that wait in a lane and are of this priority or a higher one, counted up to `most`.
pub(super) fn waiting(
    conn: &Connection,
    lane: &LaneName,
    priority: i8,
    released: Timestamp,
    most: usize,
) -> Result<usize, QueueError> {
    // Buckets are in order of priority, the highest first.
    let beyond = (9 - i64::from(priority) + 1) * rows::SLOTS;
    let mut statement = conn.prepare_cached(sql::WAITING_IN_LANE)?;
    let mut rows =
        statement.query(params![lane.as_str(), beyond, i64::try_from(most).unwrap_or(i64::MAX), released.0])?;
    let mut waiting = 0;
    while rows.next()?.is_some() {
        waiting += 1;
    }
    Ok(waiting)
}

/// The named values that start with `prefix`.
pub(super) fn recall(conn: &Connection, prefix: &str) -> Result<Vec<(String, Bytes)>, QueueError> {
    let mut statement = conn.prepare_cached(sql::MEMOS)?;
    let mut rows = statement.query([prefix])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        // In order of name, so the first that does not start with it ends the search.
        if !name.starts_with(prefix) {
            break;
        }
        found.push((name, Bytes::from(row.get::<_, Vec<u8>>(1)?)));
    }
    Ok(found)
}

/// A [`Filter`], parsed.
struct Wanted<'f> {
    id: Option<QueueId>,
    sender: Option<Pattern>,
    user: Option<&'f str>,
    recipient: Option<Pattern>,
    domain: Option<&'f str>,
    provider: Option<&'f str>,
    state: Option<State>,
    received_before: Option<i64>,
    reason: Option<Pattern>,
    reasons: Vec<Pattern>,
}

impl<'f> Wanted<'f> {
    fn parse(filter: &'f Filter) -> Result<Wanted<'f>, QueueError> {
        let pattern = |p: &Option<String>| p.as_deref().map(Pattern::new);
        let id = filter.id.as_deref().map(str::parse).transpose();
        let state = filter.state.as_deref().map(str::parse).transpose();
        Ok(Wanted {
            id: id.map_err(|e: crate::mail::id::NotAQueueId| QueueError::Invalid(e.to_string()))?,
            sender: pattern(&filter.sender),
            user: filter.user.as_deref(),
            recipient: pattern(&filter.recipient),
            domain: filter.domain.as_deref(),
            provider: filter.provider.as_deref(),
            state: state.map_err(QueueError::Invalid)?,
            received_before: filter.received_before,
            reason: pattern(&filter.reason),
            reasons: filter.reasons.iter().map(|p| Pattern::new(p)).collect(),
        })
    }

    /// What can be told from the recipient alone.
    fn fits(&self, state: State, lane: &str, address: &str, reason: &str) -> bool {
        self.state.is_none_or(|s| s == state)
            && self.provider.is_none_or(|p| p == lane || p == LaneName::base_of(lane))
            && self.domain.is_none_or(|d| d.to_lowercase() == domain_of(address).to_lowercase())
            && self.recipient.as_ref().is_none_or(|p| p.matches(address))
            && self.reason.as_ref().is_none_or(|p| p.matches(reason))
            && (self.reasons.is_empty() || self.reasons.iter().any(|p| p.matches(reason)))
    }

    fn fits_message(&self, message: &Summary) -> bool {
        let sender = || if message.sender.is_empty() { "<>" } else { &message.sender };
        self.received_before.is_none_or(|t| message.received.0 <= t)
            && self.user.is_none_or(|user| user.eq_ignore_ascii_case(&message.user))
            && self.sender.as_ref().is_none_or(|p| p.matches(sender()))
    }
}

/// What a list shows of a message, as stored: an operator must see also what a claim cannot read.
struct Summary {
    id: QueueId,
    received: Timestamp,
    sender: String,
    user: String,
    size: u64,
    priority: i8,
    requiretls: bool,
    /// A report on one of its recipients is owed.
    owes: bool,
}

impl Summary {
    fn read(conn: &Connection, id: QueueId) -> Result<Summary, QueueError> {
        let found = conn.prepare_cached(sql::MESSAGE)?.query_row([id.0], |row| {
            let (received, size) = (Timestamp(row.get(1)?), rows::unsigned(row.get(3)?));
            let names = row.get_ref(11)?.as_str_or_null().unwrap_or_default().unwrap_or_default();
            let (sender, user) = (row.get(2)?, rows::user_in(names).to_owned());
            let requiretls = TlsWish::from_bits(row.get(12)?) == TlsWish::Required;
            Ok(Summary { id, received, sender, user, size, priority: row.get(4)?, requiretls, owes: false })
        });
        // Without its message (a damaged store) a recipient can still be cancelled.
        let none = String::new;
        let nothing = || Summary {
            id,
            received: Timestamp(0),
            sender: none(),
            user: none(),
            size: 0,
            priority: 0,
            requiretls: false,
            owes: false,
        };
        let owes = conn.prepare_cached(sql::OWES)?.exists([id.0])?;
        Ok(Summary { owes, ..found.optional()?.unwrap_or_else(nothing) })
    }

    /// When the report on one of its recipients goes at the latest; empty if none is owed.
    fn report_due(&self, conn: &Connection, index: u32) -> Result<String, QueueError> {
        if !self.owes {
            return Ok(String::new());
        }
        let due = conn.prepare_cached(sql::REPORT_DUE)?.query_row(params![self.id.0, index], |row| row.get(0));
        Ok(due.optional()?.map(|due| Timestamp(due).to_string()).unwrap_or_default())
    }
}

/// Whether there are lanes of single sources of this provider. Their recipients are not together in
/// the order of a list, so all are looked at.
fn has_sources(conn: &Connection, provider: &str) -> Result<bool, QueueError> {
    // `A` follows `@`.
    let (from, to) = (format!("{provider}@"), format!("{provider}A"));
    Ok(conn.prepare_cached(sql::HAS_LANE_BETWEEN)?.query_row([from, to], |row| row.get(0))?)
}

/// A page of the recipients that match, in order of key.
pub(super) fn inspect(
    conn: &Connection,
    filter: &Filter,
    after: Option<RecipientKey>,
    limit: usize,
) -> Result<Page, QueueError> {
    let wanted = Wanted::parse(filter)?;
    let after = after.unwrap_or(RecipientKey { id: QueueId(i64::MIN), index: 0 });
    let from = (after.id.0, after.index);
    let text = match (&wanted.id, wanted.provider, wanted.state) {
        (Some(_), _, _) => sql::LIST_MESSAGE,
        (None, _, Some(State::Leased)) => sql::LIST_LEASED,
        (None, Some(provider), _) if has_sources(conn, provider)? => sql::LIST,
        (None, Some(_), _) => sql::LIST_LANE,
        (None, None, _) => sql::LIST,
    };
    let mut statement = conn.prepare_cached(text)?;
    let mut found = match (wanted.id, wanted.provider) {
        (Some(id), _) => statement.query(params![from.0, from.1, id.0])?,
        (None, Some(lane)) if text == sql::LIST_LANE => statement.query(params![from.0, from.1, lane])?,
        _ => statement.query(params![from.0, from.1])?,
    };
    let mut page = Page::default();
    let mut last: Option<RecipientKey> = None;
    let mut cached: Option<Summary> = None;
    let mut seen = 0;
    while let Some(row) = found.next()? {
        if seen == SCAN || page.rows.len() >= limit.max(1) {
            page.next = last;
            break;
        }
        seen += 1;
        let key = rows::key(row)?;
        last = Some(key);
        let state = rows::state(row.get(2)?)?;
        let (lane, address, reason) = (rows::text(row, 3)?, rows::text(row, 6)?, rows::text(row, 7)?);
        if !wanted.fits(state, lane, address, reason) {
            continue;
        }
        if cached.as_ref().is_none_or(|m| m.id != key.id) {
            cached = Some(Summary::read(conn, key.id)?);
        }
        let Some(message) = cached.as_ref().filter(|m| wanted.fits_message(m)) else { continue };
        let row = Row {
            id: key.id.to_string(),
            index: key.index,
            sender: message.sender.clone(),
            user: message.user.clone(),
            recipient: address.to_owned(),
            copy: rows::is_copy(row.get(9)?),
            provider: LaneName::base_of(lane).to_owned(),
            lane: lane.to_owned(),
            state: state.to_string(),
            priority: message.priority,
            attempts: row.get(4)?,
            due: Timestamp(row.get(5)?).to_string(),
            size: message.size,
            received: message.received.to_string(),
            release: row.get::<_, Option<i64>>(8)?.map(|at| Timestamp(at).to_string()).unwrap_or_default(),
            requiretls: message.requiretls,
            reason: reason.to_owned(),
            waits: String::new(),
            report_due: message.report_due(conn, key.index)?,
        };
        page.rows.push((key, state, row));
    }
    Ok(page)
}
