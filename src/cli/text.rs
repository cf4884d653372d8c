//! Text for people: aligned columns, and times with their age.

use std::io::{self, Write};
use std::time::Duration;

use super::screen::shown;
use crate::clock::Timestamp;
use crate::config::units::Span;

/// Rows with columns that line up; the last column is as long as it is.
pub struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    /// A table with a header.
    pub fn new(header: [&str; N]) -> Table<N> {
        Table { rows: vec![header.map(str::to_owned)] }
    }

    /// Adds a row. Control characters, which a reply or an address may have, are shown, also in a pipe:
    /// a line end would make a row of its own.
    pub fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|c| shown(&c)));
    }

    /// Rows without the header.
    pub fn len(&self) -> usize {
        self.rows.len().saturating_sub(1)
    }

    /// Whether there is no row but the header.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes the table.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let width = |column: usize| self.rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count()).max();
        let widths: Vec<usize> = (0..N).map(|column| width(column).unwrap_or(0)).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count()) + 2));
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// `2026-11-21T08:49:00.123Z (5m ago)`, or `(in 5m)`; a text that is no time stays as it is.
pub fn age_of(time: &str, now: Timestamp) -> String {
    let Some(at) = parse_time(time) else { return time.to_owned() };
    match (now.since(at), at.since(now)) {
        (ago, Duration::ZERO) => format!("{time} ({} ago)", rough(ago)),
        (_, ahead) => format!("{time} (in {})", rough(ahead)),
    }
}

/// A span with its greatest unit only: `26h` becomes `1d`.
fn rough(d: Duration) -> Span {
    let secs = d.as_secs();
    let unit = [86_400, 3600, 60].into_iter().find(|unit| secs >= *unit).unwrap_or(1);
    Span(Duration::from_secs(secs / unit * unit))
}

/// The inverse of how a [`Timestamp`] prints: RFC 3339 in UTC.
fn parse_time(text: &str) -> Option<Timestamp> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.splitn(3, '-').map(|n| n.parse::<i64>().ok());
    let (y, m, d) = (date.next()??, date.next()??, date.next()??);
    let mut time = time.splitn(3, ':');
    let (h, min) = (time.next()?.parse::<i64>().ok()?, time.next()?.parse::<i64>().ok()?);
    let (s, ms) = time.next()?.split_once('.')?;
    let (s, ms) = (s.parse::<i64>().ok()?, ms.parse::<i64>().ok()?);
    let in_range = (1970..10_000).contains(&y)
        && (1..=12).contains(&m)
        && (1..=31).contains(&d)
        && (0..24).contains(&h)
        && (0..60).contains(&min)
        && (0..=60).contains(&s)
        && (0..1000).contains(&ms);
    if !in_range {
        return None;
    }
    // Days since 1970 in the proleptic Gregorian calendar; a year begins in March here.
    let (y, m) = if m <= 2 { (y - 1, m + 9) } else { (y, m - 3) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + d - 1 - 719_468;
    Some(Timestamp((((days * 24 + h) * 60 + min) * 60 + s) * 1000 + ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(["A", "LONGER", "Z"]);
        table.row(["jörg".into(), "1".into(), "x\r\ny\u{202e}z".into()]);
        let mut out = Vec::new();
        table.write(&mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "A     LONGER  Z\njörg  1       x\\x0d\\x0ay\\u{202e}z\n");
        assert_eq!((table.len(), table.is_empty()), (1, false));
    }

    #[test]
    fn ages() {
        let t = Timestamp(1_795_250_940_123);
        assert_eq!(age_of(&t.to_string(), Timestamp(t.0 + 3 * 86_400_000 + 5000)), "2026-11-21T08:49:00.123Z (3d ago)");
        assert_eq!(age_of(&t.to_string(), Timestamp(t.0 - 90_000)), "2026-11-21T08:49:00.123Z (in 1m)");
        assert_eq!(age_of("never", t), "never");
    }

    proptest! {
        #[test]
        fn times_parse_as_they_print(ms in 0i64..253_402_300_799_999) {
            prop_assert_eq!(parse_time(&Timestamp(ms).to_string()), Some(Timestamp(ms)));
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,30}|[0-9]{1,20}-[0-9]{1,20}-[0-9]{1,9}T[0-9]{1,20}:[0-9]:[0-9]\\.[0-9]Z") {
            let _ = parse_time(&text);
        }
    }
}
