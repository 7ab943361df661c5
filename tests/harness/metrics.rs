//! Reads `/metrics` in the Prometheus text format.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use crate::harness::http_client;

/// Snapshot of all metrics of a process.
#[derive(Debug, Clone, PartialEq)]
pub struct Metrics {
    samples: Vec<Sample>,
}

#[derive(Debug, Clone, PartialEq)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Metrics {
    /// Reads the metrics of the process at `host:port`.
    pub async fn of(address: &str) -> Result<Self> {
        let answer = http_client::get(address, "/metrics").await?;
        anyhow::ensure!(answer.status.is_success(), "/metrics answers {}", answer.status);
        Self::parse(&answer.body)
    }

    fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let samples = lines.map(|line| sample(line).with_context(|| format!("not a sample: {line}")));
        Ok(Self { samples: samples.collect::<Result<_>>()? })
    }

    /// Sum of all samples with this name and labels, or 0.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let carries = |sample: &&Sample| {
            sample.name == name
                && labels.iter().all(|(label, value)| sample.labels.get(*label).is_some_and(|found| found == value))
        };
        self.samples.iter().filter(carries).map(|sample| sample.value).sum()
    }

    /// Number of distinct values of a label among nonzero samples with this name and labels.
    #[must_use]
    pub fn distinct(&self, name: &str, label: &str, labels: &[(&str, &str)]) -> usize {
        let carries = |sample: &&Sample| {
            sample.name == name
                && sample.value != 0.0
                && labels.iter().all(|(label, value)| sample.labels.get(*label).is_some_and(|found| found == value))
        };
        let values = self.samples.iter().filter(carries).filter_map(|sample| sample.labels.get(label));
        values.collect::<std::collections::BTreeSet<_>>().len()
    }

    /// Whether there is a sample with this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.samples.iter().any(|sample| sample.name == name)
    }
}

fn sample(line: &str) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}')?),
        None => (series, ""),
    };
    // The label values read here contain no quotes or commas.
    let labels = labels.split(',').filter(|label| !label.is_empty()).map(|label| {
        let (name, value) = label.split_once('=')?;
        Some((name.to_owned(), value.trim_matches('"').to_owned()))
    });
    Some(Sample { name: name.into(), labels: labels.collect::<Option<_>>()?, value: value.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_over_the_labels_that_were_not_asked_for() {
        let text = "# HELP frames Frames.\nframes{direction=\"up\",kind=\"ping\"} 3\n\
                    frames{direction=\"down\",kind=\"ping\"} 4\nplain 1.5\n";
        let metrics = Metrics::parse(text).unwrap();
        assert_eq!(metrics.sum("frames", &[("kind", "ping")]), 7.0);
        assert_eq!(metrics.sum("frames", &[("direction", "up")]), 3.0);
        assert_eq!(metrics.sum("plain", &[]), 1.5);
        assert_eq!(metrics.distinct("frames", "direction", &[("kind", "ping")]), 2);
        assert!(!metrics.has("nothing"));
    }
}
