//! Recipients that match, page by page, with what those wait for that are due.

use std::io;

use super::requests::{Done, Failure, PAGE, Reply, Sink, check};
use super::{Controls, Due};
use crate::clock::{Clock, Timestamp, When};
use crate::mail::{LaneName, RecipientKey, State, domain_of, send_at};
use crate::queue::{Filter, Page, Row};

/// Rows that match, at most `limit`, each with what it waits for.
pub(super) async fn list(
    controls: &dyn Controls,
    clock: Clock,
    filter: &Filter,
    limit: u64,
    sink: &mut dyn Sink,
) -> io::Result<Result<Done, Failure>> {
    let mut done = Done::default();
    if let Err(failure) = check(filter) {
        return Ok(Err(failure));
    }
    let queue = controls.queue();
    let mut after = None;
    loop {
        let left = limit.saturating_sub(done.matched);
        let page = usize::try_from(left).unwrap_or(PAGE).min(PAGE);
        if page == 0 {
            // One more tells whether the limit cut something off.
            let more = queue.inspect(filter, after, 1).await;
            done.more = more.is_ok_and(|p| !p.rows.is_empty());
            return Ok(Ok(done));
        }
        let Page { rows, next } = match queue.inspect(filter, after, page).await {
            Ok(page) => page,
            Err(e) => return Ok(Err(Failure::of_queue(e, done))),
        };
        let now = clock.now();
        let mut waits = controls.waits(&due(&rows, now));
        for (key, state, mut row) in rows.into_iter().take(page) {
            done.matched += 1;
            row.waits = waits.remove(&key).unwrap_or_default();
            if state == State::Held && row.reason.is_empty() {
                row.waits = controls.kept_in(&row.recipient).unwrap_or_default();
            }
            if row.waits_for_its_time(now) {
                row.waits = its_time(&row.release, now);
            }
            sink.put(Reply::Row(Box::new(row)), &[]).await?;
        }
        match next {
            Some(key) if after.is_none_or(|a| key > a) => after = Some(key),
            _ => return Ok(Ok(done)),
        }
    }
}

/// The words for what waits for its time.
fn its_time(release: &str, now: Timestamp) -> String {
    match send_at::parse(release) {
        Some(at) => format!("its time, {}", When { at, now }),
        None => format!("its time, {release}"),
    }
}

/// Those that would leave now if nothing held them, or are on their way.
fn due(rows: &[(RecipientKey, State, Row)], now: Timestamp) -> Vec<Due> {
    let now = now.to_string();
    // As text they have the order of time.
    let waits = |(_, state, row): &&(RecipientKey, State, Row)| match state {
        State::Queued | State::Uncertain => row.due <= now,
        state => *state == State::Leased,
    };
    let due = |(key, state, row): &(RecipientKey, State, Row)| Due {
        key: *key,
        lane: LaneName::from(row.lane.as_str()),
        state: *state,
        domain: domain_of(&row.recipient).to_ascii_lowercase(),
    };
    rows.iter().filter(waits).map(due).collect()
}
