//! Tables and chart of a contest.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::contest::{CASES, NONE, Peer};
use crate::support::chart::{self, Group, Range};
use crate::support::figures::{Figures, Table, number};
use crate::support::measure::Metrics;

/// Relay, case, name of the figure.
type Key = (String, &'static str, &'static str);

/// All runs, each with its round.
#[derive(Default)]
pub struct Results {
    values: HashMap<Key, Vec<(u32, f64)>>,
}

impl Results {
    /// Adds a run.
    pub fn add(&mut self, relay: &str, case: &'static str, run: u32, metrics: &Metrics) {
        for (name, value) in metrics {
            self.values.entry((relay.to_owned(), case, name)).or_default().push((run, *value));
        }
    }

    fn runs(&self, relay: &str, case: &'static str, name: &'static str) -> &[(u32, f64)] {
        self.values.get(&(relay.to_owned(), case, name)).map_or(&[], Vec::as_slice)
    }

    fn figures(&self, relay: &str, case: &'static str, name: &'static str) -> Figures {
        Figures(self.runs(relay, case, name).iter().map(|(_, value)| *value).collect())
    }

    /// mailweir against a relay, round by round.
    fn ratios(&self, relay: &str, case: &'static str, name: &'static str) -> Figures {
        let theirs: HashMap<u32, f64> = self.runs(relay, case, name).iter().copied().collect();
        let ours = self.runs("mailweir", case, name).iter();
        Figures(ours.filter_map(|(run, value)| Some(value / theirs.get(run)?)).filter(|r| r.is_finite()).collect())
    }

    /// A rate; marked if not everything arrived in time.
    fn rate(&self, relay: &str, case: &'static str) -> String {
        let shown = self.figures(relay, case, "per_second").show(0);
        let left = self.figures(relay, case, "left").at(1.0).unwrap_or(0.0);
        if left > 0.0 { format!("{shown} *") } else { shown }
    }

    /// All tables as Markdown.
    pub fn tables(&self, peers: &[Peer]) -> String {
        let flows = CASES.iter().filter(|case| case.key != "latency");
        let mut columns = vec!["messages/s, end to end".to_owned(), "durable".to_owned()];
        columns.extend(flows.clone().map(|case| case.name.to_owned()));
        let mut rates = Table::new(columns);
        for peer in peers {
            let mut row = vec![peer.version.clone(), peer.durable.clone()];
            row.extend(flows.clone().map(|case| self.rate(&peer.name, case.key)));
            rates.row(row);
        }
        let mut ratios = Table::new(
            ["mailweir, as a multiple of".to_owned()].into_iter().chain(flows.clone().map(|case| case.name.to_owned())),
        );
        for peer in peers.iter().filter(|peer| peer.name != "mailweir" && peer.name != NONE) {
            let mut row = vec![peer.version.clone()];
            row.extend(flows.clone().map(|case| self.ratios(&peer.name, case.key, "per_second").show(1)));
            ratios.row(row);
        }
        let mut cost = Table::new([
            "what it costs (2 KB, sessions kept)",
            "CPU s per 1,000",
            "peak PSS, MB",
            "processes",
            "final dot to receipt when idle, ms",
            "250 to receipt, ms",
            "machine used by others, most",
        ]);
        for peer in peers {
            let figure = |case, name, digits| self.figures(&peer.name, case, name).show(digits);
            let all = CASES.iter().flat_map(|case| self.figures(&peer.name, case.key, "others").0);
            let others = all.fold(0.0, f64::max);
            cost.row([
                peer.version.clone(),
                figure("2k-kept", "cpu_per_1000", 2),
                figure("2k-kept", "peak_pss_mb", 0),
                figure("2k-kept", "processes", 0),
                figure("latency", "dot_ms", 2),
                figure("latency", "reply_ms", 2),
                format!("{} %", number(others * 100.0, 0)),
            ]);
        }
        let note = if self.values.iter().any(|((_, _, name), runs)| *name == "left" && runs.iter().any(|r| r.1 > 0.0)) {
            "\n\\* Not everything had arrived half a minute after the last `250`; the rate is of what had.\n"
        } else {
            ""
        };
        let lost = self.lost(peers);
        format!(
            "{}{note}\n{}\n{}\nWhere others did better:\n\n{lost}",
            rates.markdown(),
            ratios.markdown(),
            cost.markdown()
        )
    }

    /// Where a relay does better than mailweir, in medians.
    fn lost(&self, peers: &[Peer]) -> String {
        let compared = [
            ("per_second", "messages/s", true),
            ("cpu_per_1000", "CPU s per 1,000", false),
            ("peak_pss_mb", "MB at the peak", false),
            ("dot_ms", "ms from final dot to receipt", false),
        ];
        let mut text = String::new();
        for (case, (name, unit, more_is_better)) in CASES.iter().flat_map(|case| compared.map(|row| (case, row))) {
            let Some(ours) = self.figures("mailweir", case.key, name).median() else { continue };
            for peer in peers.iter().filter(|peer| peer.name != "mailweir" && peer.name != NONE) {
                let theirs = self.figures(&peer.name, case.key, name).median();
                let Some(theirs) = theirs.filter(|theirs| (*theirs > ours) == more_is_better) else { continue };
                let (theirs, ours) = (number(theirs, 2), number(ours, 2));
                let _ = writeln!(text, "- {}, {}: {theirs} {unit}, mailweir {ours}", case.name, peer.version);
            }
        }
        if text.is_empty() { "Nowhere in this run.\n".into() } else { text }
    }

    /// Rates as bars.
    pub fn chart(&self, peers: &[Peer]) -> String {
        let groups: Vec<Group> = CASES
            .iter()
            .filter(|case| case.key != "latency")
            .map(|case| Group {
                name: case.name.to_owned(),
                bars: peers
                    .iter()
                    .filter(|peer| case.key != "wan" || peer.name != NONE)
                    .map(|peer| {
                        let figures = self.figures(&peer.name, case.key, "per_second");
                        let name = if peer.name == NONE { "no relay (ceiling)" } else { &peer.version };
                        let range = || {
                            let (least, most) = (figures.at(0.0)?, figures.at(1.0)?);
                            Some(Range { median: figures.median()?, least, most })
                        };
                        (name.to_owned(), range())
                    })
                    .collect(),
            })
            .collect();
        chart::bars("Messages a second, end to end", "/s", 0, &groups)
    }
}
