//! Charts as SVG: bars in groups, and lines over one axis. Readable on light and dark pages: no
//! background, and text in a grey that stands out on both.

use std::fmt::Write as _;

use super::figures::number;

const COLOURS: [&str; 8] = ["#2a78b8", "#d9822b", "#3a9a5b", "#b0436e", "#7a62b3", "#8a7a3a", "#4aa3a3", "#999999"];
const TEXT: &str = "#7d7d7d";

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// What several runs gave.
#[derive(Clone, Copy)]
pub struct Range {
    /// The median, which is how long a bar is.
    pub median: f64,
    /// The least of the runs.
    pub least: f64,
    /// The most of the runs.
    pub most: f64,
}

/// A group of bars under one heading.
pub struct Group {
    /// Heading.
    pub name: String,
    /// Names and values; a bar without a value is shown as missing.
    pub bars: Vec<(String, Option<Range>)>,
}

/// Horizontal bars, each group on its own scale from 0 to its greatest value. `unit` follows a value.
pub fn bars(title: &str, unit: &str, digits: usize, groups: &[Group]) -> String {
    const LEFT: f64 = 170.0;
    const WIDTH: f64 = 720.0;
    const ROW: f64 = 19.0;
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in groups.iter().flat_map(|group| &group.bars) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let mut body = String::new();
    let mut y = 44.0;
    for group in groups {
        let greatest = group.bars.iter().filter_map(|(_, v)| v.map(|v| v.most)).fold(0.0, f64::max).max(1e-9);
        let _ = writeln!(body, "<text x=\"8\" y=\"{y}\" font-weight=\"bold\">{}</text>", escape(&group.name));
        y += 8.0;
        for (name, value) in &group.bars {
            let colour = names.iter().position(|n| n == name).and_then(|at| COLOURS.get(at % COLOURS.len()));
            let middle = y + ROW / 2.0;
            let label = y + ROW - 5.5;
            let _ =
                writeln!(body, "<text x=\"{}\" y=\"{label}\" text-anchor=\"end\">{}</text>", LEFT - 8.0, escape(name));
            let scale = (WIDTH - LEFT - 130.0) / greatest;
            match value {
                Some(Range { median, least, most }) => {
                    let _ = writeln!(
                        body,
                        "<rect x=\"{LEFT}\" y=\"{}\" width=\"{:.1}\" height=\"{}\" fill=\"{}\"/>\
                         <path d=\"M{:.1} {middle}H{:.1}\" stroke=\"{TEXT}\" stroke-width=\"1.5\"/>\
                         <text x=\"{:.1}\" y=\"{label}\">{}{unit}</text>",
                        y + 2.0,
                        (median * scale).max(1.0),
                        ROW - 4.0,
                        colour.unwrap_or(&TEXT),
                        LEFT + least * scale,
                        LEFT + most * scale,
                        LEFT + most * scale + 8.0,
                        number(*median, digits)
                    );
                }
                None => _ = writeln!(body, "<text x=\"{LEFT}\" y=\"{label}\">not measured</text>"),
            }
            y += ROW;
        }
        y += 26.0;
    }
    frame(title, WIDTH, y, &body)
}

/// A line of points (x, y).
pub struct Line {
    /// Name.
    pub name: String,
    /// Points in the order of x.
    pub points: Vec<(f64, f64)>,
}

/// A panel of lines that share axes, both from 0.
pub struct Panel {
    /// What goes up.
    pub y_name: String,
    /// What goes to the right.
    pub x_name: String,
    /// The lines.
    pub lines: Vec<Line>,
    /// A level that must not be crossed, with its name.
    pub limit: Option<(f64, String)>,
}

/// A round distance between the marks of an axis that has about five of them.
fn step(most: f64) -> f64 {
    let rough = most / 5.0;
    let power = 10_f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= rough * 0.999).unwrap_or(10.0);
    factor * power
}

/// 0, `step`, … up to `most`.
fn multiples(step: f64, most: f64) -> impl Iterator<Item = f64> {
    let last = (most / step + 1e-6).floor() as u32;
    (0..=last).map(move |n| f64::from(n) * step)
}

/// Panels under one another.
pub fn lines(title: &str, panels: &[Panel]) -> String {
    const LEFT: f64 = 90.0;
    const WIDTH: f64 = 720.0;
    const HEIGHT: f64 = 190.0;
    let mut body = String::new();
    let mut top = 52.0;
    for panel in panels {
        let points = || panel.lines.iter().flat_map(|line| &line.points);
        let most_x = points().map(|p| p.0).fold(0.0, f64::max).max(1e-9);
        let limit = panel.limit.as_ref().map_or(0.0, |(level, _)| *level);
        let greatest = points().map(|p| p.1).fold(limit, f64::max).max(1e-9);
        let (step_x, step_y) = (step(most_x), step(greatest));
        let most_y = (greatest * 1.02 / step_y).ceil() * step_y;
        let x = |value: f64| LEFT + value / most_x * (WIDTH - LEFT - 30.0);
        let y = |value: f64| top + HEIGHT * (1.0 - value / most_y);
        let _ =
            writeln!(body, "<text x=\"8\" y=\"{}\" font-weight=\"bold\">{}</text>", top - 10.0, escape(&panel.y_name));
        let digits = |step: f64| (-step.log10()).ceil().max(0.0) as usize;
        for value in multiples(step_y, most_y) {
            let _ = writeln!(
                body,
                "<path d=\"M{LEFT} {0:.1}H{1}\" stroke=\"{TEXT}\" stroke-opacity=\"0.25\"/>\
                 <text x=\"{2}\" y=\"{3:.1}\" text-anchor=\"end\">{4}</text>",
                y(value),
                WIDTH - 30.0,
                LEFT - 6.0,
                y(value) + 4.0,
                number(value, digits(step_y))
            );
        }
        for value in multiples(step_x, most_x) {
            let _ = writeln!(
                body,
                "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                x(value),
                top + HEIGHT + 16.0,
                number(value, digits(step_x))
            );
        }
        if let Some((level, name)) = &panel.limit {
            let at = y(*level);
            let _ = writeln!(
                body,
                "<path d=\"M{LEFT} {at:.1}H{}\" stroke=\"#c0392b\" stroke-dasharray=\"5 4\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#c0392b\">{}</text>",
                WIDTH - 30.0,
                WIDTH - 34.0,
                at - 5.0,
                escape(name)
            );
        }
        for (at, line) in panel.lines.iter().enumerate() {
            let colour = COLOURS.get(at % COLOURS.len()).unwrap_or(&TEXT);
            let path: Vec<String> = line.points.iter().map(|p| format!("{:.1},{:.1}", x(p.0), y(p.1))).collect();
            let _ = writeln!(
                body,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                path.join(" ")
            );
            let across = LEFT + 10.0 + 180.0 * at as f64;
            let _ = writeln!(
                body,
                "<rect x=\"{across}\" y=\"{0}\" width=\"12\" height=\"3\" fill=\"{colour}\"/>\
                 <text x=\"{1}\" y=\"{2}\">{3}</text>",
                top + HEIGHT + 27.0,
                across + 17.0,
                top + HEIGHT + 33.0,
                escape(&line.name)
            );
        }
        let _ = writeln!(
            body,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            WIDTH - 30.0,
            top + HEIGHT + 33.0,
            escape(&panel.x_name)
        );
        top += HEIGHT + 78.0;
    }
    frame(title, WIDTH, top - 24.0, &body)
}

fn frame(title: &str, width: f64, height: f64, body: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\" fill=\"{TEXT}\">\n\
         <title>{0}</title>\n<text x=\"8\" y=\"18\" font-size=\"14\" font-weight=\"bold\">{0}</text>\n{body}</svg>\n",
        escape(title)
    )
}
