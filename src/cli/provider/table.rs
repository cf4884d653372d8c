//! The table of `provider list`: what is in trouble first; the state of a lane in words.

use std::io::{self, Write};

use super::Row;
use crate::admin::{FeedbackStatus, LaneStatus, QuotaStatus};
use crate::cli::text::Table;
use crate::clock::grouped;

/// Somebody wrote something of it, or something is there.
pub(super) fn is_of_interest(row: &Row) -> bool {
    let lane = &row.lane;
    let configured = !lane.former && row.from != "built-in" && row.from != "default";
    configured
        || lane.waiting + lane.stored + lane.in_flight > 0
        || is_troubled(lane)
        || lane.feedback != FeedbackStatus::default()
}

/// Somebody should look at it.
fn is_troubled(lane: &LaneStatus) -> bool {
    lane.paused || !lane.stopped.is_empty() || !lane.last_error.is_empty()
}

pub(super) fn write_list(out: &mut impl Write, mut rows: Vec<Row>) -> io::Result<()> {
    let rank = |lane: &LaneStatus| match (lane.paused || !lane.stopped.is_empty(), lane.last_error.is_empty()) {
        (true, _) => 0,
        (false, false) => 1,
        (false, true) if lane.waiting + lane.stored + lane.in_flight > 0 => 2,
        (false, true) => 3,
    };
    // By name among those alike.
    rows.sort_by_key(|row| rank(&row.lane));
    let mut table = Table::new([
        "NAME",
        "WAITING",
        "IN FLIGHT",
        "CONNECTIONS",
        "RATE",
        "PER CONNECTION",
        "QUOTA",
        "FROM",
        "STATE",
        "LAST ERROR",
    ]);
    for row in rows {
        let lane = row.lane;
        let now = |shown: String| if row.running { shown } else { "-".into() };
        table.row([
            lane.name.clone(),
            now(grouped(lane.waiting + lane.stored)),
            now(lane.in_flight.to_string()),
            connections(&lane, row.running),
            lane.rate.join(" "),
            row.messages_per_connection.to_string(),
            quota(&lane, &row.quota),
            row.from,
            if row.running { state(&lane) } else { state_at_rest(&lane) },
            lane.last_error.clone(),
        ]);
    }
    table.write(out)
}

/// Those that are open, of so many, and those that are being opened.
pub(super) fn connections(lane: &LaneStatus, running: bool) -> String {
    if running { lane.connections_told("/") } else { format!("-/{}", lane.max_connections) }
}

/// What is used of the quotas; where that is not known, as they are configured.
fn quota(lane: &LaneStatus, configured: &[String]) -> String {
    if lane.quotas.is_empty() {
        return configured.join(" ");
    }
    let told = |quota: &QuotaStatus| quota.told.strip_prefix("quota ").unwrap_or(&quota.told).to_owned();
    lane.quotas.iter().map(told).collect::<Vec<_>>().join("; ")
}

/// `open`, `paused …` or `stopped: …`, with what makes an open one slow. A lane is stopped only by what
/// lets nothing leave.
pub(super) fn state(lane: &LaneStatus) -> String {
    if lane.former {
        return "not configured any more: its mail goes where the configuration leads".into();
    }
    if lane.paused {
        return "paused by an operator".into();
    }
    if !lane.stopped.is_empty() {
        return format!("stopped: {}", lane.stopped);
    }
    let mut state = String::from("open");
    let learned = lane.feedback.summary();
    if !learned.is_empty() {
        state.push_str(&format!(", {learned}"));
    }
    if let Some(hold) = lane.holds.first() {
        state.push_str(&format!("; {}", hold.told));
    }
    state
}

pub(super) fn state_at_rest(lane: &LaneStatus) -> String {
    match lane.feedback.summary().as_str() {
        "" => "not running".into(),
        learned => format!("not running, {learned}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::HoldStatus;

    fn row(name: &str, change: impl FnOnce(&mut LaneStatus)) -> Row {
        let mut lane =
            LaneStatus { name: name.into(), max_connections: 5, rate: vec!["10/s".into()], ..LaneStatus::default() };
        change(&mut lane);
        Row {
            lane,
            running: true,
            messages_per_connection: 100,
            recipients_per_message: 100,
            quota: vec!["10000/d".into()],
            connection_rate: Vec::new(),
            adaptive: true,
            rules: 0,
            from: "built-in".into(),
        }
    }

    fn hold(by: &str, stops: bool, told: &str) -> Vec<HoldStatus> {
        vec![HoldStatus { by: by.into(), stops, told: told.into(), until: String::new() }]
    }

    #[test]
    fn rates_of_connections_are_told_alike_wherever_they_are_written() {
        let mut provider = crate::config::sample::provider("p");
        provider.rate = vec!["10/s".parse().expect("a rate"), "5/s connections".parse().expect("a rate")];
        provider.connection_rate = vec!["6/h".parse().expect("a rate")];
        let lane = LaneStatus::idle(&crate::mail::LaneName::from("p"), &provider);
        let mut out = Vec::new();
        write_list(&mut out, vec![Row { lane, ..row("p", |_| ()) }]).expect("written");
        let text = String::from_utf8(out).expect("UTF-8");
        assert!(text.contains("10/s 5/s connections 6/h connections"), "{text}");
    }

    #[test]
    fn a_provider_that_is_gone_is_told_as_gone() {
        let gone = row("old", |lane| (lane.former, lane.stored) = (true, 7));
        assert!(is_of_interest(&gone) && state(&gone.lane).starts_with("not configured any more"));
        assert!(!is_of_interest(&row("old", |lane| lane.former = true)));
    }

    #[test]
    fn trouble_comes_first_and_only_what_stops_all_is_called_a_stop() {
        let used = "quota 10000/d: 4,321 of 10,000, free again from 14:10:00Z (in 22 min)";
        let rows = vec![
            row("a", |_| ()),
            row("b", |lane| {
                (lane.waiting, lane.stored) = (3, 1200);
                lane.quotas = vec![QuotaStatus { told: used.into(), ..QuotaStatus::default() }];
                lane.holds = hold("limit", false, "limit *@x: rate 1/h: 3 waiting, next one at 14:10:00Z (in 22 min)");
            }),
            row("c", |lane| lane.last_error = "14:08:00Z (2 min ago): 451 later".into()),
            row("d", |lane| {
                lane.stopped = "quota 3/d used up".into();
                lane.holds = hold("quota", true, "quota 3/d used up");
            }),
            row("e", |lane| lane.paused = true),
        ];
        let of_interest: Vec<&str> =
            rows.iter().filter(|row| is_of_interest(row)).map(|row| row.lane.name.as_str()).collect();
        assert_eq!(of_interest, ["b", "c", "d", "e"]);
        let mut out = Vec::new();
        write_list(&mut out, rows).expect("written");
        let text = String::from_utf8(out).expect("UTF-8");
        let lines: Vec<&str> = text.lines().collect();
        let names: Vec<&str> = lines.iter().skip(1).filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(names, ["d", "e", "c", "b", "a"], "{text}");
        assert!(
            lines[1].contains("stopped: quota 3/d used up") && lines[2].contains("paused by an operator"),
            "{text}"
        );
        assert!(lines[4].contains("1,203") && lines[4].contains("10000/d: 4,321 of 10,000, free again from"), "{text}");
        assert!(lines[4].contains("open; limit *@x: rate 1/h: 3 waiting") && !lines[4].contains("stopped"), "{text}");
    }
}
