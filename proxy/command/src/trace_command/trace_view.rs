//! View of a trace: messages in order, each delayed briefly until its hops are known, and a summary. Pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;
use trunkline_proxy::parts::{
    TraceConnectionLine, TraceHeader, TraceHopLine, TraceLine, TraceMessageLine, TraceNodeLine, TraceNodeState,
};

use super::hop_text::{TracedHops, milliseconds};
use crate::shown_text::one_line;

/// Time that a message waits for its hops. A longer call is shown incomplete, and again after its end.
const WAIT: Duration = Duration::from_secs(1);

const AWAITED_MAX: usize = 4_096;

/// Message with hops that are not known yet.
#[derive(Debug)]
struct LateMessage {
    key: (String, u64),
    hops: TracedHops,
}

#[derive(Debug)]
struct SlowestHop {
    name: &'static str,
    us: u64,
    of: String,
}

#[derive(Debug, Default)]
pub(super) struct TraceView {
    waiting: VecDeque<(Instant, LateMessage)>,
    late: VecDeque<LateMessage>,
    up: u64,
    down: u64,
    connections: BTreeSet<(String, String)>,
    slowest: Option<SlowestHop>,
    left_out: (u64, u64, u64),
    missing: BTreeMap<String, String>,
}

impl TraceView {
    pub(super) fn take(&mut self, line: TraceLine, now: Instant) -> Vec<String> {
        let news = self.news(line, now);
        news.into_iter().map(|news| one_line(&news).into_owned()).collect()
    }

    fn news(&mut self, line: TraceLine, now: Instant) -> Vec<String> {
        match line {
            TraceLine::Header(header) => vec![begun(&header)],
            TraceLine::Node(node) => vec![self.take_node(node)],
            TraceLine::Connection(line) => self.take_connection(line),
            TraceLine::Message(message) => {
                self.take_message(*message, now);
                Vec::new()
            }
            TraceLine::Hop(hop) => {
                self.take_hop(hop);
                Vec::new()
            }
            TraceLine::Lost(loss) => {
                let (messages, hops, connections) = self.left_out;
                self.left_out = (messages + loss.messages, hops + loss.hops, connections + loss.connections);
                Vec::new()
            }
            TraceLine::End(_) => Vec::new(),
        }
    }

    fn take_node(&mut self, line: TraceNodeLine) -> String {
        match line.state {
            TraceNodeState::Following => {
                self.missing.remove(&line.node);
                format!("node {} is traced", line.node)
            }
            TraceNodeState::Missing => {
                let problem = line.problem.unwrap_or_else(|| "reason unknown".into());
                let told = format!("node {} is not traced: {problem}", line.node);
                self.missing.insert(line.node, problem);
                told
            }
        }
    }

    fn take_connection(&mut self, line: TraceConnectionLine) -> Vec<String> {
        let TraceConnectionLine { node, connection, user, hub, change, cause, detail, .. } = line;
        let mut told = format!(
            "connection {connection} of {} at hub {hub}, node {node}: {change}",
            user.as_deref().unwrap_or("nobody")
        );
        told += &cause.map(|cause| format!(", {cause}")).unwrap_or_default();
        told += &detail.map(|detail| format!(" ({detail})")).unwrap_or_default();
        self.connections.insert((hub, connection));
        vec![told]
    }

    fn take_message(&mut self, message: TraceMessageLine, now: Instant) {
        if message.is_up() {
            self.up += 1
        } else {
            self.down += 1
        }
        self.connections.insert((message.hub.clone(), message.connection.clone()));
        let key = (message.node.clone(), message.number);
        self.waiting.push_back((now, LateMessage { key, hops: TracedHops::new(message) }));
    }

    fn take_hop(&mut self, hop: TraceHopLine) {
        let key = (hop.node, hop.number);
        let waiting = self.waiting.iter_mut().map(|(_, message)| message).chain(&mut self.late);
        let Some(message) = waiting.into_iter().find(|message| message.key == key) else { return };
        let hops = &mut message.hops;
        hops.hub = hop.hub.or(hops.hub);
        hops.answered_us = hop.answered_us.or(hops.answered_us);
        hops.written_us = hop.written_us.or(hops.written_us);
        hops.is_lost |= hop.lost;
    }

    /// Returns complete or overdue messages, in order.
    pub(super) fn due(&mut self, now: Instant) -> Vec<String> {
        let mut told = Vec::new();
        while let Some((since, message)) = self.waiting.front() {
            if !message.hops.is_complete()
                && now.saturating_duration_since(*since) < WAIT
                && self.waiting.len() < AWAITED_MAX
            {
                break;
            }
            if let Some((_, message)) = self.waiting.pop_front() {
                told.push(message.hops.text());
                match message.hops.is_complete() {
                    true => self.measure(&message.hops),
                    false => self.late.push_back(message),
                }
            }
        }
        told.extend(self.take_late());
        told
    }

    /// Returns messages that were shown incomplete and are now complete.
    fn take_late(&mut self) -> Vec<String> {
        if self.late.len() > AWAITED_MAX {
            self.late.pop_front();
        }
        let (complete, late) =
            std::mem::take(&mut self.late).into_iter().partition(|message| message.hops.is_complete());
        self.late = late;
        let complete: VecDeque<LateMessage> = complete;
        complete.iter().for_each(|message| self.measure(&message.hops));
        complete.iter().map(|message| message.hops.text()).collect()
    }

    pub(super) fn rest(&mut self) -> Vec<String> {
        let mut told = self.take_late();
        for (_, message) in std::mem::take(&mut self.waiting) {
            self.measure(&message.hops);
            told.push(message.hops.text());
        }
        told
    }

    fn measure(&mut self, hops: &TracedHops) {
        let slowest = hops.durations().into_iter().filter(|(name, _)| *name != "total").max_by_key(|(_, us)| *us);
        if let Some((name, us)) = slowest
            && self.slowest.as_ref().is_none_or(|slowest| slowest.us < us)
        {
            let message = &hops.message;
            let what = message.target.as_deref().unwrap_or(&message.kind);
            let id = message.invocation_id.as_ref().map(|id| format!(" #{id}")).unwrap_or_default();
            let who = message.user.as_deref().unwrap_or(&message.connection);
            self.slowest = Some(SlowestHop { name, us, of: format!("{what}{id} of {who} at {}", message.node) });
        }
    }

    pub(super) fn summary(&self) -> String {
        let (up, down, connections) = (self.up, self.down, self.connections.len());
        let mut sum =
            format!("messages: {} ({up} from clients, {down} to clients), connections: {connections}", up + down);
        if let Some(SlowestHop { name, us, of }) = &self.slowest {
            sum += &format!("; slowest hop: {name} {}, {of}", milliseconds(*us));
        }
        let (messages, hops, connections) = self.left_out;
        for (count, what) in [(messages, "messages"), (hops, "hops"), (connections, "connections")] {
            if count > 0 {
                sum += &format!("; {what} left out: {count} (over the limit of a trace: follow fewer)");
            }
        }
        if !self.missing.is_empty() {
            let missing: Vec<_> = self.missing.iter().map(|(node, problem)| format!("{node} ({problem})")).collect();
            sum += &format!("; nodes missing: {}", missing.join(", "));
        }
        one_line(&sum).into_owned()
    }
}

fn begun(header: &TraceHeader) -> String {
    let payloads = if header.payloads { ", with payloads" } else { "" };
    format!("tracing for {} s through node {}{payloads}; Ctrl-C stops it", header.seconds, header.node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shown_text::is_steering;

    fn line(text: &str) -> TraceLine {
        serde_json::from_str(text).unwrap()
    }

    fn message(number: u64, more: &str) -> TraceLine {
        line(&format!(
            r#"{{"event":"message","node":"n1","number":{number},"atUs":1,"connection":"c","hub":"chat","bytes":5,"kind":"invocation",{more}}}"#
        ))
    }

    fn hop(number: u64, more: &str) -> TraceLine {
        line(&format!(r#"{{"event":"hop","node":"n1","number":{number},{more}}}"#))
    }

    #[tokio::test(start_paused = true)]
    async fn messages_are_shown_in_order_once_their_hops_are_known() {
        let (mut view, now) = (TraceView::default(), Instant::now());
        view.take(message(1, r#""way":"up","target":"Say","open":true,"marked":true"#), now);
        view.take(message(2, r#""way":"down","target":"Said","open":true"#), now);
        view.take(hop(2, r#""writtenUs":7000"#), now);
        assert!(view.due(now).is_empty(), "the first is not complete");
        view.take(hop(1, r#""hub":{"waitedUs":1,"queuedUs":2,"ranUs":3}"#), now);
        let told = view.due(now);
        assert!(told.len() == 2 && told[0].contains("Say") && told[1].contains("Said"), "{told:?}");
        let sum =
            "messages: 2 (1 from clients, 1 to clients), connections: 1; slowest hop: written 7.00 ms, Said of c at n1";
        assert_eq!(view.summary(), sum);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_call_is_shown_incomplete_and_again_after_its_end() {
        let (mut view, now) = (TraceView::default(), Instant::now());
        view.take(message(1, r#""way":"up","target":"Slow","open":true,"marked":true"#), now);
        view.take(hop(1, r#""hub":{"waitedUs":1,"queuedUs":2}"#), now);
        assert!(view.due(now).is_empty());
        let told = view.due(now + WAIT);
        assert!(told.len() == 1 && told[0].ends_with("still running"), "{told:?}");
        view.take(hop(1, r#""hub":{"waitedUs":1,"queuedUs":2,"ranUs":5000000}"#), now);
        let told = view.due(now + WAIT);
        assert!(told.len() == 1 && told[0].ends_with("ran 5000 ms"), "{told:?}");
        assert!(view.rest().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn texts_of_clients_and_nodes_are_one_line_without_control_characters() {
        let forged = r"\u001b]0;owned\u0007\r\n12:00:00.000 n1 \u202eadmin\u009b2J";
        let (mut view, now) = (TraceView::default(), Instant::now());
        let mut told = view.take(message(1, &format!(r#""way":"up","target":"{forged}","payload":"{forged}""#)), now);
        for text in [
            r#"{"event":"node","node":"FORGED","state":"missing","problem":"FORGED"}"#,
            r#"{"event":"connection","node":"FORGED","atUs":1,"connection":"FORGED","user":"FORGED","hub":"FORGED","change":"FORGED","cause":"FORGED","detail":"FORGED"}"#,
        ] {
            told.extend(view.take(line(&text.replace("FORGED", forged)), now));
        }
        told.extend(view.due(now));
        told.push(view.summary());
        assert_eq!(told.len(), 4, "{told:?}");
        for line in told {
            assert!(line.contains("owned") && !line.contains(is_steering), "{line:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn losses_and_nodes_that_take_no_part_are_in_the_sum() {
        let (mut view, now) = (TraceView::default(), Instant::now());
        for text in [
            r#"{"event":"node","node":"n2","state":"missing","problem":"no answer"}"#,
            r#"{"event":"node","node":"n3","state":"missing","problem":"no answer"}"#,
            r#"{"event":"node","node":"n2","state":"following"}"#,
            r#"{"event":"lost","node":"n1","messages":3,"hops":0,"connections":0}"#,
            r#"{"event":"lost","node":"n2","messages":4,"hops":0,"connections":0}"#,
        ] {
            view.take(line(text), now);
        }
        let sum = view.summary();
        assert!(sum.contains("; messages left out: 7 ") && sum.ends_with("; nodes missing: n3 (no answer)"), "{sum}");
    }
}
