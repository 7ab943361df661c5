//! History of the results: one file per benchmark run, and the change of each result.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use trunkline_bench::spread::Spread;
use trunkline_generator::chart::{Chart, Line};

/// Maximum number of labels under a chart, to avoid overlaps.
const MARKS_MAX: usize = 8;
const COMMIT_LETTERS: usize = 7;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// End time in the system's format, which orders files and runs.
    pub(crate) date: String,
    pub(crate) commit: String,
    /// Minimum and maximum ratio of the floor to itself: the machine's noise in this run.
    pub(crate) noise: Option<[f64; 2]>,
    pub(crate) figures: BTreeMap<String, Figure>,
}

/// Results of one row kept in the history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// Subject divided by base, or another ratio of the row.
    pub(crate) ratio: Spread,
    /// Base units per CPU second.
    pub(crate) base: Option<Spread>,
    /// Subject units per CPU second.
    pub(crate) subject: Option<Spread>,
    /// Base divided by base: 1 except for noise.
    pub(crate) base_over_base: Option<Spread>,
}

impl Entry {
    /// Creates an entry from measured rows. Rows without a ratio are omitted.
    pub(crate) fn new<'a>(date: &str, commit: &str, rows: impl Iterator<Item = (&'a String, &'a Value)>) -> Self {
        let figures: BTreeMap<String, Figure> =
            rows.filter_map(|(name, row)| Some((name.clone(), Figure::deserialize(row).ok()?))).collect();
        let noises = || figures.values().filter_map(|figure| figure.base_over_base);
        let noise = noises()
            .map(|noise| [noise.min, noise.max])
            .reduce(|[low, high], [min, max]| [f64::min(low, min), f64::max(high, max)]);
        Self { date: date.into(), commit: commit.into(), noise, figures }
    }

    pub(crate) fn keep(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let stamp: String = self.date.chars().filter(char::is_ascii_alphanumeric).collect();
        let path = folder.join(format!("{stamp}-{}.json", self.commit));
        fs::write(&path, serde_json::to_string_pretty(self)?).with_context(|| format!("writing {}", path.display()))
    }
}

/// Reads all runs of a folder, oldest first; empty if the folder does not exist.
pub(crate) fn all(folder: &Path) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    if !folder.is_dir() {
        return Ok(entries);
    }
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            let entry: Entry = serde_json::from_str(&text).with_context(|| format!("{} is no run", path.display()))?;
            entries.push(entry);
        }
    }
    entries.sort_by(|one, other| one.date.cmp(&other.date));
    Ok(entries)
}

/// Section of the page: a table with the last change of each result, and a chart per result with several runs.
pub(crate) fn section(entries: &[Entry]) -> String {
    let names: std::collections::BTreeSet<&String> = entries.iter().flat_map(|entry| entry.figures.keys()).collect();
    let (mut rows, mut charts) = (String::new(), String::new());
    for name in names {
        let points: Vec<(usize, &Entry, &Figure)> =
            (0..).zip(entries).filter_map(|(place, entry)| Some((place, entry, entry.figures.get(name)?))).collect();
        let [.., (_, before, earlier), (_, now, figure)] = points.as_slice() else { continue };
        let step = Step::of(earlier, figure);
        // Writing to a string can't fail.
        let _ = write!(
            rows,
            "<tr><td>{name}<td>{:.3} <small>{}</small><td>{:.3} <small>{}</small><td>{:+.1} %<td>{:.1} %<td>{}</tr>",
            earlier.ratio.median,
            before.commit,
            figure.ratio.median,
            now.commit,
            step.change * 100.0,
            step.noise * 100.0,
            step.verdict()
        );
        charts += &chart(name, &points);
    }
    if rows.is_empty() {
        return String::new();
    }
    format!(
        "<h2>History</h2><p>The last two runs of each figure, and the noise of both: how far the floor was from itself. A \
         change within it says nothing. <em>Slow machine</em> runs are told by their noise, which is drawn in gray.</p>\
         <table><tr><th>figure<th>before<th>now<th>change<th>noise<th></tr>{rows}</table>{charts}"
    )
}

/// Difference between two runs of a result.
#[derive(Debug, PartialEq)]
struct Step {
    /// Relative change of the median.
    change: f64,
    /// Maximum noise of either run.
    noise: f64,
}

impl Step {
    fn of(earlier: &Figure, later: &Figure) -> Self {
        let noise = |figure: &Figure| {
            figure.base_over_base.map_or(0.0, |noise| f64::max((1.0 - noise.min).abs(), (noise.max - 1.0).abs()))
        };
        Self { change: later.ratio.median / earlier.ratio.median - 1.0, noise: f64::max(noise(earlier), noise(later)) }
    }

    fn verdict(&self) -> &'static str {
        match self.change {
            change if change < -self.noise => "<strong>worse</strong>",
            change if change > self.noise => "better",
            _ => "within noise",
        }
    }
}

fn chart(name: &str, points: &[(usize, &Entry, &Figure)]) -> String {
    let line = |name, class, value: &dyn Fn(&Figure) -> Option<f64>| Line {
        name,
        class,
        points: points.iter().filter_map(|(place, _, figure)| Some((*place as f64, value(figure)?))).collect(),
    };
    let lines = vec![
        line("ratio", "proxy", &|figure| Some(figure.ratio.median)),
        line("floor / floor, least", "floor", &|figure| Some(figure.base_over_base?.min)),
        line("floor / floor, most", "floor", &|figure| Some(figure.base_over_base?.max)),
    ];
    let every = points.len().div_ceil(MARKS_MAX).max(1);
    let mark = |(place, entry, _): &(usize, &Entry, &Figure)| {
        (*place as f64, entry.commit.chars().take(COMMIT_LETTERS).collect::<String>())
    };
    let marks = points.iter().step_by(every).map(mark).collect();
    Chart { title: name.to_owned().into(), unit: "ratio, by run", marks, lines }.figure()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(date: &str, ratio: f64, noise: f64) -> Entry {
        let same = |value: f64| json!({ "median": value, "min": value, "max": value });
        let noise = json!({ "median": 1.0, "min": 1.0 - noise, "max": 1.0 + noise });
        let row = json!({ "ratio": same(ratio), "base": same(2e5), "subject": same(1e5), "base_over_base": noise });
        let rows = BTreeMap::from([("calls-64".to_owned(), row), ("members-10".to_owned(), json!({ "us": 1 }))]);
        Entry::new(date, "0123456789", rows.iter())
    }

    #[test]
    fn a_run_keeps_rows_with_a_ratio_and_the_noise_of_all() {
        let entry = run("2026-01-01T00:00:00Z", 0.5, 0.25);
        assert_eq!(entry.figures.keys().collect::<Vec<_>>(), ["calls-64"]);
        assert_eq!(entry.noise, Some([0.75, 1.25]));
    }

    #[test]
    fn what_is_kept_is_read_again_in_the_order_of_time() {
        let folder = std::env::temp_dir().join(format!("trunkline-history-{}", std::process::id()));
        let [late, early] = [run("2026-01-02T00:00:00Z", 0.6, 0.0), run("2026-01-01T00:00:00Z", 0.5, 0.0)];
        late.keep(&folder).unwrap();
        early.keep(&folder).unwrap();
        let all = all(&folder).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(all, [early, late]);
        assert_eq!(super::all(&folder).unwrap(), []);
    }

    #[test]
    fn a_change_beyond_the_noise_of_both_runs_is_told_and_drawn() {
        let page = |noise| section(&[run("1", 1.0, 0.0), run("2", 0.9, noise)]);
        assert!(page(0.05).contains("<strong>worse</strong>"), "{}", page(0.05));
        assert!(page(0.2).contains("within noise"));
        assert_eq!(page(0.2).matches("<polyline").count(), 3);
        assert!(section(&[run("1", 0.9, 0.0), run("2", 1.0, 0.0)]).contains("<td>better</tr>"));
        assert_eq!(section(&[run("1", 1.0, 0.0)]), "");
    }
}
