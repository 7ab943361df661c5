//! Picture: bars up to the median, and a thin line from minimum to maximum. Pure: results in, SVG out.

use std::fmt::Write;

use trunkline_bench::spread::Spread;

use crate::figures::{Figures, Work};
use crate::table::thousands;

const WIDTH: f64 = 920.0;
const BARS_LEFT: f64 = 320.0;
const BARS_WIDTH: f64 = 500.0;
const ROW: f64 = 24.0;
const BAR: f64 = 14.0;
const PANEL_HEAD: f64 = 44.0;
const MARGIN: f64 = 16.0;

/// Style for light and dark.
const STYLE: &str = "
text { font: 13px system-ui, sans-serif; fill: #222; }
.head { font-weight: 600; font-size: 15px; }
.value { fill: #555; }
.track { fill: #f0f0f0; }
.bar { fill: #9aa5b5; }
.ours { fill: #2f6fde; }
.range { stroke: #111; stroke-width: 1.5; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6e6e6; }
  .value { fill: #b5b5b5; }
  .track { fill: #30343a; }
  .bar { fill: #6b7686; }
  .ours { fill: #6ea0ff; }
  .range { stroke: #fff; }
}
";

/// Row of a panel: its title, whether it is our product, and its result, if any.
struct Bar<'a> {
    title: &'a str,
    is_ours: bool,
    spread: Option<Spread>,
}

pub(crate) fn picture(all: &[Figures]) -> String {
    let mut y = MARGIN;
    let mut panels = String::new();
    for work in Work::ALL {
        let heading = format!("{} per second of CPU time", work.name());
        let bars = bars(
            all,
            |figures| figures.work(work).map(|done| done.per_cpu_second),
            |figures| figures.work(work).and_then(|done| done.per_cpu_second_alone),
        );
        // Few peers resume sessions, so empty rows are omitted.
        let bars = bars.into_iter().filter(|bar| work != Work::Resumed || bar.spread.is_some()).collect::<Vec<_>>();
        if !bars.is_empty() {
            panel(&mut panels, &mut y, &heading, &bars);
        }
    }
    let bars = bars(
        all,
        |figures| Some(figures.idle_bytes),
        |figures| figures.idle_bytes_of.get(figures.peer.alone()?.0).copied(),
    );
    panel(&mut panels, &mut y, "bytes per idle connection (less is better)", &bars);
    let height = y + MARGIN;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         role=\"img\"><title>Trunkline beside other servers</title><style>{STYLE}</style>\n{panels}</svg>\n"
    )
}

/// One bar per peer, plus separately counted processes.
fn bars<'a>(
    all: &'a [Figures],
    spread: impl Fn(&Figures) -> Option<Spread>,
    spread_alone: impl Fn(&Figures) -> Option<Spread>,
) -> Vec<Bar<'a>> {
    let mut bars = Vec::new();
    for figures in all {
        let peer = figures.peer;
        bars.push(Bar { title: peer.title(), is_ours: peer.is_ours(), spread: spread(figures) });
        if let Some((_, title)) = peer.alone() {
            bars.push(Bar { title, is_ours: false, spread: spread_alone(figures) });
        }
    }
    bars
}

fn panel(panels: &mut String, y: &mut f64, heading: &str, bars: &[Bar]) {
    let largest = bars.iter().filter_map(|bar| bar.spread).map(|spread| spread.max).fold(f64::MIN_POSITIVE, f64::max);
    // Writing to a string can't fail.
    let _ = writeln!(panels, "<text class=\"head\" x=\"{MARGIN}\" y=\"{}\">{heading}</text>", *y + 20.0);
    *y += PANEL_HEAD - MARGIN;
    for bar in bars {
        let _ = writeln!(panels, "{}", line(bar, *y, largest));
        *y += ROW;
    }
    *y += MARGIN;
}

fn line(bar: &Bar, y: f64, largest: f64) -> String {
    let (middle, top) = (y + ROW / 2.0, y + (ROW - BAR) / 2.0);
    let title = format!("<text x=\"{MARGIN}\" y=\"{:.1}\">{}</text>", middle + 4.5, bar.title);
    let value_at = |value: &str| {
        let x = BARS_LEFT + BARS_WIDTH + 10.0;
        format!("<text class=\"value\" x=\"{x}\" y=\"{:.1}\">{value}</text>", middle + 4.5)
    };
    let Some(Spread { median, min, max }) = bar.spread else { return title + &value_at("–") };
    let length = |value: f64| (value / largest * BARS_WIDTH).clamp(0.0, BARS_WIDTH);
    let class = if bar.is_ours { "ours" } else { "bar" };
    let (from, to) = (BARS_LEFT + length(min), BARS_LEFT + length(max));
    format!(
        "{title}<rect class=\"track\" x=\"{BARS_LEFT}\" y=\"{top:.1}\" width=\"{BARS_WIDTH}\" height=\"{BAR}\"/>\
         <rect class=\"{class}\" x=\"{BARS_LEFT}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{BAR}\"/>\
         <line class=\"range\" x1=\"{from:.1}\" x2=\"{to:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\"/>{}",
        length(median),
        value_at(&thousands(median))
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::tests::slice;
    use crate::peer::Peer;

    #[test]
    fn there_is_a_bar_for_each_figure_and_none_for_what_a_peer_does_not_do() {
        let slices = [
            slice(Peer::Trunkline, 1, &[("app", 100)]),
            slice(Peer::Haproxy, 1, &[("haproxy", 100), ("axum", 300)]),
            slice(Peer::Nchan, 1, &[("worker-1", 100)]),
        ];
        let svg = picture(&Figures::of_all(&slices).unwrap());
        assert_eq!(svg.matches("class=\"ours\"").count(), 4);
        assert_eq!(svg.matches("class=\"bar\"").count(), 4 * 3 - 1);
        assert_eq!(svg.matches(">–</text>").count(), 1);
    }

    #[test]
    fn a_bar_never_leaves_its_track() {
        let spread = Some(Spread { median: 3.0, min: -1.0, max: 9.0 });
        let line = line(&Bar { title: "", is_ours: true, spread }, 0.0, 2.0);
        let bar = format!("class=\"ours\" x=\"{BARS_LEFT}\" y=\"5.0\" width=\"{BARS_WIDTH:.1}\"");
        assert!(line.contains(&bar), "{line}");
    }
}
