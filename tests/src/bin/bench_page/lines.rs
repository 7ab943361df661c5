//! A picture of how a figure changes with the number of clients: a line for each server. Pure: points in, SVG out.

use std::fmt::Write;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 90.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 34.0;

/// So many lines go across, from nothing to the top.
const STEPS: u32 = 4;

/// One server's figures.
#[derive(Debug)]
pub(crate) struct Line {
    /// Its name, at the end of the line; also the class that it is drawn in.
    pub(crate) name: &'static str,
    /// Number of clients and figure, by number.
    pub(crate) points: Vec<(f64, f64)>,
}

/// The picture; `what` tells people who can't see it what it shows.
pub(crate) fn picture(what: &str, lines: &[Line]) -> String {
    let all = || lines.iter().flat_map(|line| &line.points);
    let (first, last) =
        all().fold((f64::MAX, 1.0_f64), |(first, last), (clients, _)| (first.min(*clients), last.max(*clients)));
    let top = all().fold(f64::MIN_POSITIVE, |top, (_, figure)| top.max(*figure)) * 1.1;
    // Each step in the number of clients is a multiple of the one before.
    let span = (last / first).ln().max(f64::MIN_POSITIVE);
    let x = |clients: f64| LEFT + (clients / first).ln() / span * (WIDTH - LEFT - RIGHT);
    let y = |figure: f64| HEIGHT - BOTTOM - figure / top * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{what}\">");
    for step in 0..=STEPS {
        let figure = top * f64::from(step) / f64::from(STEPS);
        put(&mut svg, format_args!("<path class=\"grid\" d=\"M{LEFT} {0:.1}H{1}\"/>", y(figure), WIDTH - RIGHT));
        put(
            &mut svg,
            format_args!("<text x=\"{}\" y=\"{:.1}\" class=\"y\">{figure:.1}</text>", LEFT - 8.0, y(figure) + 4.0),
        );
    }
    for line in lines {
        let Line { name, points } = line;
        for (clients, figure) in points {
            put(
                &mut svg,
                format_args!("<circle class=\"{name}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\">", x(*clients), y(*figure)),
            );
            put(&mut svg, format_args!("<title>{name}, {clients} clients: {figure:.2}</title></circle>"));
        }
        let path: Vec<_> =
            points.iter().map(|(clients, figure)| format!("{:.1} {:.1}", x(*clients), y(*figure))).collect();
        put(&mut svg, format_args!("<path class=\"line {name}\" d=\"M{}\"/>", path.join("L")));
        if let Some((clients, figure)) = points.last() {
            put(
                &mut svg,
                format_args!("<text x=\"{:.1}\" y=\"{:.1}\">{name}</text>", x(*clients) + 10.0, y(*figure) + 4.0),
            );
        }
    }
    for (clients, _) in lines.first().map_or(&[][..], |line| &line.points) {
        put(
            &mut svg,
            format_args!("<text x=\"{:.1}\" y=\"{}\" class=\"x\">{clients}</text>", x(*clients), HEIGHT - 12.0),
        );
    }
    svg + "</svg>"
}

/// Writing to a text never fails.
fn put(svg: &mut String, what: std::fmt::Arguments<'_>) {
    let _ = svg.write_fmt(what);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_point_is_a_circle_inside_the_picture() {
        let line = |name, points: &[(f64, f64)]| Line { name, points: points.to_vec() };
        let svg = picture("µs", &[line("floor", &[(100.0, 4.0), (10_000.0, 5.0)]), line("proxy", &[(100.0, 4.5)])]);
        assert_eq!(svg.matches("<circle").count(), 3);
        assert!(svg.contains("cx=\"60.0\"") && svg.contains("cx=\"770.0\""), "{svg}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn one_number_of_clients_is_a_picture_too() {
        let svg = picture("µs", &[Line { name: "proxy", points: vec![(100.0, 0.0)] }]);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
