//! Medians with ranges, and tables of them.

use std::fmt::Write as _;

/// What several runs gave for one thing.
#[derive(Clone, Debug, Default)]
pub struct Figures(pub Vec<f64>);

impl Figures {
    /// Adds a run.
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// The value below which `share` (0 to 1) of the runs are; `None` without runs.
    pub fn at(&self, share: f64) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let at = ((sorted.len().checked_sub(1)?) as f64 * share.clamp(0.0, 1.0)).round() as usize;
        sorted.get(at).copied()
    }

    /// The median: of an even number of runs the mean of the two in the middle.
    pub fn median(&self) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => None,
            n if n % 2 == 1 => sorted.get(middle).copied(),
            _ => Some((sorted.get(middle - 1)? + sorted.get(middle)?) / 2.0),
        }
    }

    /// `median (least–most)`, or `–` without runs.
    pub fn show(&self, digits: usize) -> String {
        let Some(median) = self.median() else { return "–".into() };
        let (least, most) = (self.at(0.0).unwrap_or(median), self.at(1.0).unwrap_or(median));
        let figure = number(median, digits);
        if self.0.len() < 2 {
            figure
        } else {
            format!("{figure} ({}–{})", number(least, digits), number(most, digits))
        }
    }
}

/// A number with `digits` after the point and commas between thousands.
pub fn number(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let (sign, text) = text.strip_prefix('-').map_or(("", text.as_str()), |rest| ("-", rest));
    let (whole, part) = text.split_once('.').map_or((text, None), |(whole, part)| (whole, Some(part)));
    let mut out = String::from(sign);
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    if let Some(part) = part {
        let _ = write!(out, ".{part}");
    }
    out
}

/// A table that prints itself aligned, or as Markdown.
#[derive(Clone, Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// With these columns.
    pub fn new<S: Into<String>>(columns: impl IntoIterator<Item = S>) -> Table {
        Table { rows: vec![columns.into_iter().map(Into::into).collect()] }
    }

    /// Adds a row.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// Aligned, the first column to the left.
    pub fn text(&self) -> String {
        let width = |column: usize| {
            self.rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count()).max().unwrap_or(0)
        };
        let mut out = String::new();
        for row in &self.rows {
            for (column, cell) in row.iter().enumerate() {
                let gap = width(column).saturating_sub(cell.chars().count());
                match column {
                    0 => _ = write!(out, "{cell}{}", " ".repeat(gap)),
                    _ => _ = write!(out, "  {}{cell}", " ".repeat(gap)),
                }
            }
            out.push('\n');
        }
        out
    }

    /// As Markdown.
    pub fn markdown(&self) -> String {
        let mut out = String::new();
        for (at, row) in self.rows.iter().enumerate() {
            let _ = writeln!(out, "| {} |", row.join(" | "));
            if at == 0 {
                let lines = row.iter().enumerate().map(|(i, _)| if i == 0 { " --- |" } else { " ---: |" });
                let _ = writeln!(out, "|{}", lines.collect::<String>());
            }
        }
        out
    }
}
