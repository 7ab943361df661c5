//! Timeline of a node: figures of the last hour, and arrivals and departures of nodes and app servers.
//!
//! Pure and bounded: written by a sampler, read by pages and terminals.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::connection_events::ConnectionEvents;
use super::timeline_mark::TimelineMark;

/// Sampling interval in milliseconds.
pub(super) const SAMPLE_INTERVAL_MS: u64 = 10_000;

/// Maximum number of samples on a node: one hour.
const SAMPLES_MAX: usize = 360;

/// Maximum number of marks on a node, for arrivals and departures of nodes and app servers.
const MARKS_MAX: usize = 256;

/// Figures of a node at one moment. Rates cover the time since the previous sample.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct TimelineSample {
    pub(super) at_ms: u64,
    pub(super) clients: u64,
    pub(super) messages_up: f64,
    pub(super) deliveries: f64,
    pub(super) links: u64,
    pub(super) cpu_percent: Option<f64>,
    pub(super) memory_bytes: Option<u64>,
    pub(super) outbox_bytes: u64,
    pub(super) opened: f64,
    pub(super) events: ConnectionEvents,
}

/// Samples and marks of a node, oldest first.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    samples: VecDeque<TimelineSample>,
    marks: VecDeque<TimelineMark>,
}

/// Timeline of a node for pages, terminals and other nodes: one list per figure, with matching indexes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeTimeline {
    /// Name of the node.
    pub name: String,
    /// Boot id of the node.
    pub instance: String,
    /// Times of the samples, in milliseconds since 1970.
    pub at_ms: Vec<u64>,
    /// Numbers of open client connections.
    pub clients: Vec<u64>,
    /// Messages from clients, per second.
    pub messages_up: Vec<f64>,
    /// Messages to clients, per second.
    pub deliveries: Vec<f64>,
    /// Numbers of open links to app servers.
    pub links: Vec<u64>,
    /// Percentage of one core, if the system provides it.
    pub cpu_percent: Vec<Option<f64>>,
    /// Resident memory, if the system provides it.
    pub memory_bytes: Vec<Option<u64>>,
    /// Bytes in the outboxes of clients.
    pub outbox_bytes: Vec<u64>,
    /// Client connections that opened, per second.
    pub opened: Vec<f64>,
    /// Client connections that ended, per second, by cause.
    pub closed: Vec<BTreeMap<String, f64>>,
    /// Requests, sockets and client connections that were refused, per second, by cause.
    pub refused: Vec<BTreeMap<String, f64>>,
    /// Calls that their app server answered with an error, per second.
    pub call_errors: Vec<f64>,
    /// Mean round trips of links to app servers, if any was measured.
    pub round_trip_ms: Vec<Option<f64>>,
    /// Arrivals and departures of nodes and app servers, as seen by this node.
    pub marks: Vec<TimelineMark>,
}

/// Timelines of all answering nodes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FleetTimeline {
    /// Time of the answer, in milliseconds since 1970.
    pub at_ms: u64,
    /// Sampling interval in milliseconds.
    pub step_ms: u64,
    /// All answering nodes, sorted by name.
    pub nodes: Vec<NodeTimeline>,
    /// Nodes without an answer or a timeline.
    pub missing: Vec<String>,
}

impl Timeline {
    /// Adds a sample; drops the oldest at the limit.
    pub(super) fn add_sample(&mut self, sample: TimelineSample) {
        push(&mut self.samples, sample, SAMPLES_MAX);
    }

    /// Adds a mark; drops the oldest at the limit.
    pub(super) fn mark(&mut self, mark: TimelineMark) {
        push(&mut self.marks, mark, MARKS_MAX);
    }

    /// Returns entries after a time, for the node with this name and boot id.
    pub(super) fn since(&self, ms: u64, (name, instance): (&str, &str)) -> NodeTimeline {
        let mut part = NodeTimeline { name: name.into(), instance: instance.into(), ..NodeTimeline::default() };
        for sample in self.samples.iter().filter(|sample| sample.at_ms > ms) {
            part.at_ms.push(sample.at_ms);
            part.clients.push(sample.clients);
            part.messages_up.push(sample.messages_up);
            part.deliveries.push(sample.deliveries);
            part.links.push(sample.links);
            part.cpu_percent.push(sample.cpu_percent);
            part.memory_bytes.push(sample.memory_bytes);
            part.outbox_bytes.push(sample.outbox_bytes);
            part.opened.push(sample.opened);
            part.closed.push(sample.events.closed.clone());
            part.refused.push(sample.events.refused.clone());
            part.call_errors.push(sample.events.call_errors);
            part.round_trip_ms.push(sample.events.round_trip_ms);
        }
        part.marks = self.marks.iter().filter(|mark| mark.at_ms > ms).cloned().collect();
        part
    }
}

fn push<T>(queue: &mut VecDeque<T>, item: T, max: usize) {
    while queue.len() >= max {
        queue.pop_front();
    }
    queue.push_back(item);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::observer::timeline_mark::{PartyChange, TimelineParty};

    const NODE: (&str, &str) = ("a", "boot");

    fn sample(at_ms: u64) -> TimelineSample {
        TimelineSample { at_ms, clients: at_ms * 2, cpu_percent: Some(1.5), ..TimelineSample::default() }
    }

    fn mark(at_ms: u64) -> TimelineMark {
        let (id, name) = (at_ms.to_string(), "app".into());
        TimelineMark { at_ms, party: TimelineParty::App, id, name, change: PartyChange::Came }
    }

    #[test]
    fn the_last_hour_is_kept_and_no_more() {
        let mut timeline = Timeline::default();
        let all = 3 * SAMPLES_MAX as u64;
        for at_ms in 1..=all {
            timeline.add_sample(sample(at_ms));
            timeline.mark(mark(at_ms));
        }
        let kept = timeline.since(0, NODE);
        assert_eq!((kept.at_ms.len(), kept.marks.len()), (SAMPLES_MAX, MARKS_MAX));
        assert_eq!((kept.at_ms.first(), kept.at_ms.last()), (Some(&(all - SAMPLES_MAX as u64 + 1)), Some(&all)));
        assert_eq!(kept.marks.last().map(|mark| mark.at_ms), Some(all));
        assert_eq!(SAMPLE_INTERVAL_MS * SAMPLES_MAX as u64, 3_600_000, "an hour");
    }

    #[test]
    fn a_part_has_what_is_newer_and_its_lists_are_of_one_length() {
        let mut timeline = Timeline::default();
        for at_ms in [10, 20, 30] {
            timeline.add_sample(sample(at_ms));
            timeline.mark(mark(at_ms));
        }
        let part = timeline.since(10, NODE);
        assert_eq!((part.name.as_str(), part.instance.as_str()), NODE);
        assert_eq!((part.at_ms, part.clients), (vec![20, 30], vec![40, 60]));
        assert_eq!(part.marks.iter().map(|mark| mark.at_ms).collect::<Vec<_>>(), [20, 30]);
        let lengths = [
            part.messages_up.len(),
            part.deliveries.len(),
            part.links.len(),
            part.cpu_percent.len(),
            part.memory_bytes.len(),
            part.outbox_bytes.len(),
        ];
        assert_eq!(lengths, [2; 6]);
        assert!(timeline.since(30, NODE).at_ms.is_empty());
    }
}
