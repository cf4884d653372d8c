//! The series of a report as an SVG picture: how full the lanes are, and what is delivered.

use std::fmt::{self, Write};

use super::{Point, Report};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 680.0;
const LEFT: f64 = 86.0;
const RIGHT: f64 = 24.0;
/// Top and height of the two panels.
const DEPTH: (f64, f64) = (104.0, 230.0);
const PACE: (f64, f64) = (400.0, 220.0);
/// Colours that colour-blind people can tell apart (Okabe and Ito), without the pale ones.
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555"];

struct Axis {
    top: f64,
    height: f64,
    /// Seconds at the right end.
    span: f64,
    /// Value at the top.
    most: f64,
}

impl Axis {
    fn x(&self, seconds: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * seconds / self.span
    }

    fn y(&self, value: f64) -> f64 {
        self.top + self.height * (1.0 - value / self.most)
    }
}

/// The picture.
pub fn svg(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = draw(report, &mut out);
    out
}

fn draw(report: &Report, out: &mut String) -> fmt::Result {
    let span = report.seconds.max(60) as f64;
    let most = |value: &dyn Fn(&Point) -> f64| {
        let points = report.groups.iter().flat_map(|g| &g.series);
        points.map(value).fold(0.0, f64::max)
    };
    let depth = Axis { top: DEPTH.0, height: DEPTH.1, span, most: ceiling(most(&|p| p.depth as f64)) };
    let paces: Vec<Vec<(f64, f64, f64)>> = report.groups.iter().map(|g| pace(&g.series)).collect();
    let tallest = (0..paces.iter().map(Vec::len).max().unwrap_or(0))
        .map(|i| paces.iter().filter_map(|p| p.get(i)).map(|bar| bar.2).sum::<f64>())
        .fold(0.0, f64::max);
    let speed = Axis { top: PACE.0, height: PACE.1, span, most: ceiling(tallest) };

    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"Helvetica, Arial, sans-serif\" font-size=\"13\" fill=\"#222\">"
    )?;
    writeln!(out, "<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>")?;
    writeln!(out, "<text x=\"{LEFT}\" y=\"24\" font-size=\"19\" font-weight=\"bold\">{}</text>", report.fates())?;
    writeln!(out, "<text x=\"{LEFT}\" y=\"43\">{}</text>", report.end())?;
    legend(report, out)?;

    frame(&depth, "Messages waiting", out)?;
    for (i, group) in report.groups.iter().enumerate() {
        let points: Vec<String> = group
            .series
            .iter()
            .map(|p| format!("{:.1},{:.1}", depth.x((p.at as f64).min(span)), depth.y(p.depth as f64)))
            .collect();
        let line = points.join(" ");
        writeln!(
            out,
            "<polyline points=\"{line}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2.5\" stroke-linejoin=\"round\"/>",
            colour(i)
        )?;
    }

    frame(&speed, "Delivered per hour", out)?;
    let mut bottoms: Vec<f64> = Vec::new();
    for (i, bars) in paces.iter().enumerate() {
        bottoms.resize(bottoms.len().max(bars.len()), 0.0);
        for ((from, to, value), bottom) in bars.iter().zip(&mut bottoms) {
            let (left, right) = (speed.x(*from), speed.x(to.min(span)));
            let (low, high) = (speed.y(*bottom), speed.y(*bottom + value));
            *bottom += value;
            let gap = ((right - left) * 0.12).min(2.0);
            writeln!(
                out,
                "<rect x=\"{:.1}\" y=\"{high:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{}\"/>",
                left + gap / 2.0,
                (right - left - gap).max(0.2),
                (low - high).max(0.0),
                colour(i)
            )?;
        }
    }
    let middle = LEFT + (WIDTH - LEFT - RIGHT) / 2.0;
    let (unit, _) = unit(span);
    writeln!(
        out,
        "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">Time since the start ({unit})</text>",
        HEIGHT - 14.0
    )?;
    writeln!(out, "</svg>")
}

/// (from, to, messages an hour) between the points.
fn pace(series: &[Point]) -> Vec<(f64, f64, f64)> {
    series
        .windows(2)
        .filter_map(|two| match two {
            [a, b] if b.at > a.at => {
                let length = (b.at - a.at) as f64;
                Some((a.at as f64, b.at as f64, b.delivered as f64 * 3600.0 / length))
            }
            _ => None,
        })
        .collect()
}

fn colour(i: usize) -> &'static str {
    COLOURS[i % COLOURS.len()]
}

fn legend(report: &Report, out: &mut String) -> fmt::Result {
    let mut x = LEFT;
    for (i, group) in report.groups.iter().enumerate() {
        let mut text = format!("{}: {}", group.name, grouped(group.messages as f64));
        let told = [(group.throttled, "throttled"), (group.expired, "expired"), (group.bounced, "bounced")];
        let told = told.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{} {what}", grouped(*n as f64)));
        let told: Vec<String> = told.collect();
        if !told.is_empty() {
            let _ = write!(text, " ({})", told.join(", "));
        }
        // Letters are about 7 wide; what does not fit would only be in the way.
        let width = 30.0 + 7.0 * text.chars().count() as f64;
        if x + width > WIDTH {
            return writeln!(out, "<text x=\"{x:.1}\" y=\"62\">…</text>");
        }
        writeln!(out, "<rect x=\"{x:.1}\" y=\"51\" width=\"13\" height=\"13\" rx=\"2\" fill=\"{}\"/>", colour(i))?;
        writeln!(out, "<text x=\"{:.1}\" y=\"62\">{}</text>", x + 19.0, escaped(&text))?;
        x += width;
    }
    Ok(())
}

/// Title, grid and numbers of a panel.
fn frame(axis: &Axis, title: &str, out: &mut String) -> fmt::Result {
    let (right, bottom) = (WIDTH - RIGHT, axis.top + axis.height);
    writeln!(out, "<text x=\"{LEFT}\" y=\"{}\" font-size=\"14\" font-weight=\"bold\">{title}</text>", axis.top - 10.0)?;
    let step = step(axis.most, 5.0);
    let mut value = 0.0;
    while value <= axis.most * 1.0001 {
        let y = axis.y(value);
        let stroke = if value == 0.0 { "#444" } else { "#ddd" };
        writeln!(out, "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\" stroke=\"{stroke}\"/>")?;
        writeln!(
            out,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#555\">{}</text>",
            LEFT - 8.0,
            y + 4.5,
            grouped(value)
        )?;
        value += step;
    }
    let (_, seconds) = unit(axis.span);
    let step = time_step(axis.span / seconds);
    let mut at = 0.0;
    while at * seconds <= axis.span {
        let x = axis.x(at * seconds);
        writeln!(out, "<line x1=\"{x:.1}\" y1=\"{bottom}\" x2=\"{x:.1}\" y2=\"{}\" stroke=\"#444\"/>", bottom + 5.0)?;
        writeln!(
            out,
            "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\" fill=\"#555\">{}</text>",
            bottom + 20.0,
            trimmed(at)
        )?;
        at += step;
    }
    Ok(())
}

/// The unit of the time axis and its length in seconds.
fn unit(span: f64) -> (&'static str, f64) {
    match span {
        s if s < 2.5 * 3600.0 => ("minutes", 60.0),
        s if s < 72.0 * 3600.0 => ("hours", 3600.0),
        _ => ("days", 86_400.0),
    }
}

/// At most a dozen marks, at numbers that clocks like.
fn time_step(units: f64) -> f64 {
    let nice = [0.5, 1.0, 2.0, 5.0, 6.0, 10.0, 12.0, 15.0, 24.0];
    nice.into_iter().find(|step| units / step <= 12.0).unwrap_or(24.0)
}

/// 1, 2 or 5 times a power of ten, so that about `marks` marks fit under `most`.
fn step(most: f64, marks: f64) -> f64 {
    let rough = (most / marks).max(1e-9);
    let power = 10f64.powf(rough.log10().floor());
    let times = [1.0, 2.0, 5.0, 10.0].into_iter().find(|t| t * power >= rough * 0.999).unwrap_or(10.0);
    (times * power).max(1.0)
}

/// The end of an axis that shows `most`: a whole number of steps.
fn ceiling(most: f64) -> f64 {
    let most = most.max(1.0);
    let step = step(most, 5.0);
    (most / step).ceil() * step
}

fn trimmed(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

/// 1234567 as `1,234,567`.
pub(super) fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// `1 d 2 h`, `3 h 20 min`, `4 min 5 s`.
pub fn clock(seconds: f64) -> String {
    let s = seconds.max(0.0) as u64;
    let two = |great: u64, unit: &str, small: u64, part: &str| match small {
        0 => format!("{great} {unit}"),
        _ => format!("{great} {unit} {small} {part}"),
    };
    match s {
        86_400.. => two(s / 86_400, "d", s / 3600 % 24, "h"),
        3600.. => two(s / 3600, "h", s / 60 % 60, "min"),
        60.. => two(s / 60, "min", s % 60, "s"),
        _ => format!("{s} s"),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!((grouped(1_234_567.0).as_str(), grouped(12.0).as_str()), ("1,234,567", "12"));
        assert_eq!(
            (clock(93_600.0), clock(12_000.0), clock(245.0)),
            ("1 d 2 h".into(), "3 h 20 min".into(), "4 min 5 s".into())
        );
        assert_eq!((ceiling(73_211.0), ceiling(0.0)), (80_000.0, 1.0));
        assert_eq!((time_step(24.0), time_step(8.0), time_step(50.0)), (2.0, 1.0, 5.0));
    }
}
