//! Sparklines of the last hour as text lines. Pure.

use trunkline_proxy::parts::{FleetTimeline, NodeTimeline};

use super::fleet_table::bytes;

/// Characters of a sparkline, lowest first.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Columns of a sparkline, one per minute.
const MINUTES: usize = 60;

const MINUTE_MS: u64 = 60_000;

struct Figure {
    name: &'static str,
    of: fn(&NodeTimeline, usize) -> Option<f64>,
    text: fn(f64) -> String,
}

const FIGURES: [Figure; 4] = [
    Figure {
        name: "clients",
        of: |node, at| number(node.clients.get(at).copied()),
        text: |value| format!("{value:.0}"),
    },
    Figure { name: "down/s", of: |node, at| node.deliveries.get(at).copied(), text: |value| format!("{value:.0}") },
    Figure { name: "cpu", of: |node, at| *node.cpu_percent.get(at)?, text: |value| format!("{value:.0}%") },
    Figure { name: "memory", of: |node, at| number(*node.memory_bytes.get(at)?), text: size },
];

/// Lines with each figure summed over all nodes; empty if no node reports its last hour.
pub(super) fn lines(timeline: &FleetTimeline) -> Vec<String> {
    let figures = FIGURES.iter().filter_map(|figure| {
        let values = by_minute(timeline, figure.of);
        let now = newest(timeline, figure.of).or_else(|| values.iter().rev().find_map(|value| *value))?;
        let most = values.iter().flatten().copied().fold(now, f64::max);
        let bars: String = values.iter().map(|value| bar(*value, most)).collect();
        let (now, most) = ((figure.text)(now), (figure.text)(most));
        Some(format!("{:<8}{bars}  {now}, at most {most}", figure.name))
    });
    let figures: Vec<_> = figures.collect();
    if figures.is_empty() {
        return figures;
    }
    [format!("{:<8}{:<MINUTES$}  now", "", "an hour ago")].into_iter().chain(figures).collect()
}

/// Newest value of a figure, summed over the nodes that reported it within a minute: new clients count in full, not as
/// a fraction.
fn newest(timeline: &FleetTimeline, of: fn(&NodeTimeline, usize) -> Option<f64>) -> Option<f64> {
    let told = timeline.nodes.iter().filter_map(|node| {
        let (at, ms) = node.at_ms.iter().enumerate().next_back()?;
        (timeline.at_ms.saturating_sub(*ms) < MINUTE_MS).then(|| of(node, at)).flatten()
    });
    told.reduce(|sum, value| sum + value)
}

/// Mean of a figure in each of the last minutes, summed over the reporting nodes; newest last.
fn by_minute(timeline: &FleetTimeline, of: fn(&NodeTimeline, usize) -> Option<f64>) -> Vec<Option<f64>> {
    let mut sums = vec![None; MINUTES];
    for node in &timeline.nodes {
        for (sum, mean) in sums.iter_mut().zip(means(node, timeline.at_ms, of)) {
            if let Some(mean) = mean {
                *sum = Some(sum.unwrap_or_default() + mean);
            }
        }
    }
    sums
}

/// Mean of one node's figure in each of the last minutes.
fn means(node: &NodeTimeline, now_ms: u64, of: fn(&NodeTimeline, usize) -> Option<f64>) -> Vec<Option<f64>> {
    let mut parts = vec![(0.0, 0.0); MINUTES];
    for (at, ms) in node.at_ms.iter().enumerate() {
        let ago = usize::try_from(now_ms.saturating_sub(*ms) / MINUTE_MS).unwrap_or(usize::MAX);
        let minute = MINUTES.checked_sub(ago + 1).and_then(|minute| parts.get_mut(minute));
        if let (Some((sum, count)), Some(value)) = (minute, of(node, at)) {
            (*sum, *count) = (*sum + value, *count + 1.0);
        }
    }
    parts.into_iter().map(|(sum, count)| (count > 0.0).then(|| sum / count)).collect()
}

/// Character for a value; a space if unknown.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of the bars")]
fn bar(value: Option<f64>, most: f64) -> char {
    let Some(value) = value else { return ' ' };
    let share = if most > 0.0 { value / most } else { 0.0 };
    let index = (share * (BARS.len() - 1) as f64).round() as usize;
    BARS.get(index).copied().unwrap_or(' ')
}

#[expect(clippy::cast_precision_loss, reason = "bars have eight heights")]
fn number(value: Option<u64>) -> Option<f64> {
    value.map(|value| value as f64)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "sizes are shown with one digit")]
fn size(value: f64) -> String {
    bytes(value as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 100 * MINUTE_MS;

    /// Node with samples from the given minutes ago, each with a number of clients.
    fn node(samples: &[(u64, u64)]) -> NodeTimeline {
        NodeTimeline {
            at_ms: samples.iter().map(|(ago, _)| NOW_MS - ago * MINUTE_MS).collect(),
            clients: samples.iter().map(|(_, clients)| *clients).collect(),
            ..NodeTimeline::default()
        }
    }

    fn fleet(nodes: Vec<NodeTimeline>) -> FleetTimeline {
        FleetTimeline { at_ms: NOW_MS, nodes, ..FleetTimeline::default() }
    }

    #[test]
    fn nodes_are_summed_by_minutes_and_unknown_minutes_are_blank() {
        let lines = lines(&fleet(vec![node(&[(59, 70), (1, 10), (0, 0)]), node(&[(1, 20), (1, 40), (0, 35)])]));
        assert_eq!(lines.len(), 2, "what nobody tells has no line: {lines:?}");
        let expected = format!("clients █{}▅▅  35, at most 70", " ".repeat(57));
        assert_eq!(lines[1], expected);
        assert_eq!(lines[0].chars().count(), 8 + 60 + 5);
    }

    #[test]
    fn samples_of_another_hour_and_an_empty_fleet_have_no_line() {
        assert!(lines(&fleet(vec![node(&[(60, 7), (99, 8)])])).is_empty());
        assert!(lines(&FleetTimeline::default()).is_empty());
        let future = NodeTimeline { at_ms: vec![NOW_MS + 5_000], clients: vec![3], ..NodeTimeline::default() };
        assert_eq!(by_minute(&fleet(vec![future]), FIGURES[0].of).last(), Some(&Some(3.0)), "clocks differ a little");
    }

    #[test]
    fn the_current_value_is_the_newest_sample_and_not_the_mean_of_its_minute() {
        let lines = lines(&fleet(vec![node(&[(1, 20), (0, 10), (0, 90)]), node(&[(2, 5)])]));
        assert!(lines[1].ends_with("  90, at most 90"), "{}", lines[1]);
    }

    #[test]
    fn a_line_of_zeros_is_flat() {
        let lines = lines(&fleet(vec![node(&[(1, 0), (0, 0)])]));
        assert!(lines[1].ends_with(" ▁▁  0, at most 0"), "{}", lines[1]);
    }
}
