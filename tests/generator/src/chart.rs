//! Charts as inline SVG: lines over time or over quantiles. Pure: points in, text out.

use std::borrow::Cow;
use std::fmt::Write;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 30.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 30.0;
const GRID_LINES: u32 = 4;

/// Maximum number of points per line, limited by the visible pixels.
const POINTS_MAX: usize = 600;

/// Line of a chart.
#[derive(Debug)]
pub struct Line {
    /// Name in the legend.
    pub name: &'static str,
    /// CSS class, which defines the colour in light and dark.
    pub class: &'static str,
    /// Points with positions and values.
    pub points: Vec<(f64, f64)>,
}

/// Chart with a grid, axis labels and a legend.
#[derive(Debug)]
pub struct Chart {
    /// Caption of the chart.
    pub title: Cow<'static, str>,
    /// Unit of the values.
    pub unit: &'static str,
    /// Labels of the axis: position and text.
    pub marks: Vec<(f64, String)>,
    /// Lines, each with a legend entry.
    pub lines: Vec<Line>,
}

impl Chart {
    /// The chart as an HTML figure; empty without points.
    #[must_use]
    pub fn figure(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let (Some(&(first, _)), true) = (points().next(), points().count() > 1) else { return String::new() };
        let left = points().map(|point| point.0).fold(first, f64::min);
        let right = points().map(|point| point.0).fold(first, f64::max).max(left + f64::EPSILON);
        let top = round_up(points().map(|point| point.1).fold(0.0, f64::max));
        let place_x = |x: f64| LEFT + (x - left) / (right - left) * (WIDTH - LEFT - RIGHT);
        let place_y = |y: f64| HEIGHT - BOTTOM - y / top * (HEIGHT - TOP - BOTTOM);
        let mut svg = String::new();
        for number in 0..=GRID_LINES {
            let value = top * f64::from(number) / f64::from(GRID_LINES);
            let y = place_y(value);
            put(
                &mut svg,
                format_args!(
                    "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                    WIDTH - RIGHT,
                    LEFT - 8.0,
                    y + 4.0,
                    short(value)
                ),
            );
        }
        for (x, text) in self.marks.iter().filter(|mark| (left..=right).contains(&mark.0)) {
            let (x, y) = (place_x(*x), HEIGHT - 10.0);
            put(&mut svg, format_args!("<text class=\"middle\" x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>"));
        }
        for line in &self.lines {
            let places: String =
                thinned(&line.points).map(|(x, y)| format!("{:.1},{:.1} ", place_x(x), place_y(y))).collect();
            put(&mut svg, format_args!("<polyline class=\"{}\" points=\"{}\"/>", line.class, places.trim_end()));
        }
        self.framed(&svg)
    }

    fn framed(&self, svg: &str) -> String {
        let Self { title, unit, lines, .. } = self;
        let legend: String =
            lines.iter().map(|line| format!("<span class=\"key {}\">{}</span>", line.class, line.name)).collect();
        format!(
            "<figure><figcaption>{title} <small>{unit}</small>{legend}</figcaption>\
             <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">{svg}</svg></figure>"
        )
    }
}

/// Reduces the number of points, keeping the maximum of each interval, so that peaks remain.
fn thinned(points: &[(f64, f64)]) -> impl Iterator<Item = (f64, f64)> {
    let stretch = points.len().div_ceil(POINTS_MAX).max(1);
    points.chunks(stretch).filter_map(|chunk| chunk.iter().copied().max_by(|one, other| one.1.total_cmp(&other.1)))
}

/// Rounds up to 1, 2 or 5 times a power of ten.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    steps.into_iter().map(|step| step * power).find(|top| *top >= value * 0.999_999).unwrap_or(value)
}

fn short(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{}M", value / 1e6),
        value if value >= 1e4 => format!("{}k", value / 1e3),
        value => format!("{}", (value * 1e4).round() / 1e4),
    }
}

fn put(text: &mut String, part: std::fmt::Arguments<'_>) {
    // Writing to a string can't fail.
    let _ = write!(text, "{part}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_ends_at_a_round_number() {
        for (value, top) in [(0.0, 1.0), (0.7, 1.0), (1.0, 1.0), (1.1, 2.0), (4_321.0, 5_000.0), (77.0, 100.0)] {
            assert!((round_up(value) - top).abs() < 1e-9, "{value}");
        }
    }

    #[test]
    fn a_line_has_its_points_within_the_chart() {
        let line = Line { name: "open", class: "a", points: vec![(0.0, 0.0), (1.0, 10.0)] };
        let chart =
            Chart { title: "Clients".into(), unit: "count", marks: vec![(0.0, "0 s".into())], lines: vec![line] };
        let figure = chart.figure();
        assert!(figure.contains("points=\"62.0,190.0 610.0,12.0\""), "{figure}");
        assert!(figure.contains(">0 s</text>"));
    }

    #[test]
    fn of_many_points_the_peaks_stay() {
        let mut points: Vec<(f64, f64)> = (0..10_000).map(|number| (f64::from(number), 1.0)).collect();
        points[5_003].1 = 9.0;
        let thin: Vec<_> = thinned(&points).collect();
        assert!(thin.len() <= POINTS_MAX);
        assert!(thin.contains(&(5_003.0, 9.0)));
    }

    #[test]
    fn without_points_there_is_no_chart() {
        let chart = Chart { title: "x".into(), unit: "", marks: Vec::new(), lines: Vec::new() };
        assert_eq!(chart.figure(), "");
    }
}
