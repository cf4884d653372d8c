//! How long a window is that fills at once and stays full: an hour, say. Pure.
//!
//! A server that refuses everything for a while has either filled a window or is in trouble, and the first
//! time nobody can tell. So it is noted how much passed since it last opened, and how long it took from
//! there until it opened again. When it happens a second time after about the same amount, it is a window.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

/// How far two amounts may be apart, as a factor.
const ALIKE: f64 = 1.25;

/// Windows that people choose, in seconds: a measured length that is shorter by up to this part is taken for
/// one of them, as the server may have opened before it was asked; and one that is longer by as much less.
const USUAL: [f64; 7] = [60.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 86_400.0];
const SHORTER: f64 = 0.85;
const LONGER: f64 = 1.05;

/// The length that was meant.
fn usual(seconds: f64) -> f64 {
    let fits = |usual: &f64| seconds >= usual * SHORTER && seconds <= usual * LONGER;
    USUAL.into_iter().find(fits).unwrap_or(seconds)
}

/// A window that was seen twice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Window {
    /// Cells in one.
    pub(super) cells: f64,
    /// Its length in seconds.
    pub(super) seconds: f64,
}

/// Whether two amounts may be the contents of one window.
pub(super) fn alike(one: f64, other: f64) -> bool {
    one < other * ALIKE && other < one * ALIKE
}

/// What passed since the server last opened, and what the opening before took.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Openings {
    /// The first acceptance since.
    #[serde(default)]
    first: Option<Timestamp>,
    #[serde(default)]
    cells: f64,
    /// Cells of the last one that was closed for long.
    #[serde(default)]
    before: Option<f64>,
}

impl Openings {
    pub(super) fn passed(&mut self, cells: f64, now: Timestamp) {
        self.first.get_or_insert(now);
        self.cells += cells;
    }

    /// It has opened again, at some time between `refused` (the last refusal) and `now`: the window, if it is
    /// the second time.
    pub(super) fn reopened(&mut self, refused: Timestamp, now: Timestamp) -> Option<Window> {
        let opened = Timestamp(refused.0.midpoint(now.0));
        let first = self.first.replace(opened)?;
        let cells = std::mem::take(&mut self.cells);
        let seconds = opened.since(first).as_secs_f64().max(1.0);
        let alike = self.before.replace(cells).filter(|before| alike(cells, *before));
        alike.map(|before| Window { cells: cells.max(before), seconds: usual(seconds) })
    }

    /// The clock was set back by that much.
    pub(super) fn go_back(&mut self, back: Duration) {
        self.first = self.first.map(|first| first.before(back));
    }
}
