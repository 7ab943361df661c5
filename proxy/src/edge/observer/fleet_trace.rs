//! Live trace of the fleet: the local trace plus one channel to each other node.
//!
//! ```text
//!  own NodeTrace ────────────────┐
//!  n2: request ─► trace lines ───┼─► merged lines, with notices of nodes that take part
//!  n3: request ─► refused ───────┘
//! ```
//!
//! Nodes that join later are added. A node with a broken stream is reported as missing, then retried. Each node limits
//! its output; nothing is buffered here, so a slow reader blocks all sources.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, BoxStream, SelectAll};
use futures_util::{Stream, StreamExt};
use http::StatusCode;
use http_body_util::{BodyExt, Limited};
use serde_json::Value;
use tokio::time::{Instant, Interval, interval, timeout, timeout_at};

use super::node_trace::{NodeTrace, TRACE_SECONDS_DEFAULT};
use super::node_watch::{PayloadView, WatchChoice, WatchLines};
use super::peer::Peers;
use super::trace_line::{TraceLine, TraceNodeLine, TraceNodeState};
use crate::features::watch::WatchSubject;
use crate::fleet::{ANSWER_TIMEOUT, AddressProblem, FleetMember};
use crate::ground::net::line_stream::LineStream;

/// Interval between checks for new members.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Delay before a failed node is queried again.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// Time allowed for the nodes' last lines after the trace ends.
const LAST_LINES: Duration = Duration::from_secs(2);

/// Maximum body of a refusal.
const REFUSAL_MAX_BYTES: usize = 64 * 1024;

#[derive(Debug)]
enum SourceNews {
    Lines(Vec<TraceLine>),
    /// The stream of the node with this boot id has begun.
    Following(String),
    /// The node with this boot id does not take part, and why.
    Missing(String, MissingCause),
    /// Last lines of the local trace.
    OwnEnd(Vec<TraceLine>),
}

#[derive(Debug)]
enum MissingCause {
    /// Refused; not queried again.
    Refused(String),
    /// The response or stream broke off.
    Broken(String),
}

#[derive(Debug)]
struct AskedNode {
    name: String,
    /// Next retry. `None` while a request or stream is active, or after a refusal.
    again_at: Option<Instant>,
    told: Option<TraceNodeState>,
}

/// Running trace of the fleet. Dropping it stops the trace at all nodes.
pub(crate) struct FleetTrace {
    peers: Arc<Peers>,
    choice: WatchChoice,
    own: String,
    header: Option<TraceLine>,
    seconds: u64,
    ends_at: Instant,
    sources: SelectAll<BoxStream<'static, SourceNews>>,
    nodes: HashMap<String, AskedNode>,
    /// Configured addresses already reported as leading to no node.
    unreachable: HashSet<String>,
    check_interval: Interval,
    /// Final line, once the local trace is over.
    last: Option<TraceLine>,
    is_over: bool,
}

impl FleetTrace {
    /// Adds the traces of the other nodes to the local one.
    pub(super) fn new(peers: Arc<Peers>, mut own: NodeTrace, choice: WatchChoice) -> Self {
        let seconds = choice.seconds.unwrap_or(TRACE_SECONDS_DEFAULT);
        let (name, header) = (own.node.clone(), own.take_header());
        let mut sources = SelectAll::new();
        sources.push(own_lines(own).boxed());
        Self {
            peers,
            ends_at: Instant::now() + Duration::from_secs(seconds),
            seconds,
            choice,
            own: name,
            header,
            sources,
            nodes: HashMap::new(),
            unreachable: HashSet::new(),
            check_interval: interval(LOOK_INTERVAL),
            last: None,
            is_over: false,
        }
    }

    /// Collects remaining lines of other nodes, then the final line.
    async fn last_lines(&mut self) -> Option<Vec<TraceLine>> {
        match timeout_at(self.ends_at + LAST_LINES, self.sources.next()).await {
            Ok(Some(news)) => Some(self.take_news(news)),
            Ok(None) | Err(_) => {
                self.is_over = true;
                self.last.take().map(|line| vec![line])
            }
        }
    }

    fn take_news(&mut self, news: SourceNews) -> Vec<TraceLine> {
        match news {
            SourceNews::Lines(lines) => lines,
            SourceNews::Following(boot) => self.report(&boot, TraceNodeState::Following, None),
            SourceNews::Missing(boot, cause) => {
                let (problem, again_at) = match cause {
                    MissingCause::Refused(problem) => (problem, None),
                    MissingCause::Broken(problem) => (problem, Some(Instant::now() + AGAIN_AFTER)),
                };
                if let Some(node) = self.nodes.get_mut(&boot) {
                    node.again_at = again_at;
                }
                self.report(&boot, TraceNodeState::Missing, Some(problem))
            }
            SourceNews::OwnEnd(mut lines) => {
                self.last = lines.pop();
                self.ends_at = Instant::now();
                lines
            }
        }
    }

    fn report(&mut self, boot: &str, state: TraceNodeState, problem: Option<String>) -> Vec<TraceLine> {
        let Some(node) = self.nodes.get_mut(boot).filter(|node| node.told != Some(state)) else { return Vec::new() };
        node.told = Some(state);
        vec![TraceLine::Node(TraceNodeLine { node: node.name.clone(), state, problem })]
    }

    /// Queries new nodes and nodes due for a retry; reports addresses without a node.
    fn check_members(&mut self) -> Vec<TraceLine> {
        let now = Instant::now();
        for member in self.peers.fleet.members().all().iter() {
            let node = self.nodes.entry(member.boot().to_owned()).or_insert_with(|| AskedNode {
                name: member.name().to_owned(),
                again_at: Some(now),
                told: None,
            });
            if node.again_at.take_if(|at| *at <= now).is_some() {
                // Rounded up, so that it lasts as long as the local trace.
                let seconds = (self.ends_at.saturating_duration_since(now)).as_millis().div_ceil(1_000);
                let seconds = u64::try_from(seconds).unwrap_or(u64::MAX).clamp(1, self.seconds);
                let target = target(&self.choice, seconds);
                self.sources.push(lines_of(self.peers.clone(), member.clone(), target).boxed());
            }
        }
        let unreachable = self.peers.fleet.members().unreachable().into_iter();
        let new: Vec<_> = unreachable.filter(|problem| self.unreachable.insert(problem.address.clone())).collect();
        let missing = |AddressProblem { address: node, text, .. }| {
            TraceLine::Node(TraceNodeLine { node, state: TraceNodeState::Missing, problem: Some(text) })
        };
        new.into_iter().map(missing).collect()
    }
}

impl WatchLines for FleetTrace {
    type Line = TraceLine;

    async fn next(&mut self) -> Option<Vec<TraceLine>> {
        if let Some(header) = self.header.take() {
            let own = TraceNodeLine { node: self.own.clone(), state: TraceNodeState::Following, problem: None };
            return Some(vec![header, TraceLine::Node(own)]);
        }
        if self.is_over {
            return None;
        }
        if self.last.is_some() {
            return self.last_lines().await;
        }
        tokio::select! {
            biased;
            _ = self.check_interval.tick() => Some(self.check_members()),
            news = self.sources.next() => Some(news.map(|news| self.take_news(news)).unwrap_or_default()),
        }
    }
}

impl fmt::Debug for FleetTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FleetTrace").field("choice", &self.choice).field("nodes", &self.nodes).finish_non_exhaustive()
    }
}

/// Lines of the local trace; the last ones are marked.
fn own_lines(own: NodeTrace) -> impl Stream<Item = SourceNews> {
    stream::unfold(own, |mut own| async move {
        let lines = own.next().await?;
        let is_over = matches!(lines.last(), Some(TraceLine::End(_)));
        Some((if is_over { SourceNews::OwnEnd(lines) } else { SourceNews::Lines(lines) }, own))
    })
}

/// Lines of another node, starting with the request.
fn lines_of(peers: Arc<Peers>, member: Arc<FleetMember>, target: String) -> impl Stream<Item = SourceNews> {
    enum Stage {
        Asking(Arc<Peers>, Arc<FleetMember>, String),
        Reading(String, LineStream),
        Over,
    }
    stream::unfold(Stage::Asking(peers, member, target), |stage| async move {
        match stage {
            Stage::Over => None,
            Stage::Asking(peers, member, target) => {
                let boot = member.boot().to_owned();
                match ask(&peers, &member, &target).await {
                    Ok(lines) => Some((SourceNews::Lines(Vec::new()), Stage::Reading(boot, lines))),
                    Err(cause) => Some((SourceNews::Missing(boot, cause), Stage::Over)),
                }
            }
            Stage::Reading(boot, mut lines) => match lines.next().await {
                Ok(Some(line)) => match serde_json::from_slice(&line) {
                    Ok(TraceLine::Header(_)) => {
                        Some((SourceNews::Following(boot.clone()), Stage::Reading(boot, lines)))
                    }
                    // The local trace reports its end.
                    Ok(TraceLine::End(end)) if end.reason == "time" => None,
                    Ok(line) => Some((SourceNews::Lines(vec![line]), Stage::Reading(boot, lines))),
                    // An empty line, or a line of a newer version.
                    Err(_) => Some((SourceNews::Lines(Vec::new()), Stage::Reading(boot, lines))),
                },
                Ok(None) => {
                    let cause = MissingCause::Broken("its trace has ended, because the node stops".into());
                    Some((SourceNews::Missing(boot, cause), Stage::Over))
                }
                Err(error) => Some((SourceNews::Missing(boot, MissingCause::Broken(error.to_string())), Stage::Over)),
            },
        }
    })
}

async fn ask(peers: &Peers, member: &FleetMember, target: &str) -> Result<LineStream, MissingCause> {
    let answer = timeout(ANSWER_TIMEOUT, peers.open_stream(member, target)).await;
    let silent = || format!("no answer within {} s", ANSWER_TIMEOUT.as_secs());
    let answer = answer.unwrap_or_else(|_| Err(silent())).map_err(MissingCause::Broken)?;
    let (head, body) = answer.into_parts();
    if head.status == StatusCode::OK {
        return Ok(LineStream::new(body));
    }
    let body = timeout(ANSWER_TIMEOUT, Limited::new(body, REFUSAL_MAX_BYTES).collect()).await;
    let body = body.ok().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default();
    let told = serde_json::from_slice::<Value>(&body).ok();
    let told = told.as_ref().and_then(|told| told.get("error")?.as_str());
    let problem = match (head.status, told) {
        (StatusCode::NOT_FOUND, Some(told)) if told.contains("/api/trace") => {
            format!("its version {} does not support traces", member.version())
        }
        (_, Some(told)) => told.to_owned(),
        (status, None) => format!("it answers {status}"),
    };
    Err(MissingCause::Refused(problem))
}

/// Builds the target of another node's own trace.
fn target(choice: &WatchChoice, seconds: u64) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("scope", "node").append_pair("seconds", &seconds.to_string());
    query.extend_pairs(choice.subjects.iter().map(|subject| match subject {
        WatchSubject::Connection(id) => ("connection", id),
        WatchSubject::User(user) => ("user", user),
        WatchSubject::Group(group) => ("group", group),
        WatchSubject::Method(method) => ("method", method),
    }));
    query.extend_pairs(choice.hub.iter().map(|hub| ("hub", hub)));
    if choice.payloads == PayloadView::Shown {
        query.append_pair("payloads", "shown");
    }
    format!("/api/trace?{}", query.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_node_is_asked_for_its_own_part_with_every_value_encoded() {
        let choice = WatchChoice {
            hub: Some("/chat".into()),
            subjects: vec![WatchSubject::User("a&b".into())],
            payloads: PayloadView::Shown,
            seconds: None,
        };
        assert_eq!(target(&choice, 7), "/api/trace?scope=node&seconds=7&user=a%26b&hub=%2Fchat&payloads=shown");
        let choice = WatchChoice { hub: None, payloads: PayloadView::Hidden, ..choice };
        assert_eq!(target(&choice, 7), "/api/trace?scope=node&seconds=7&user=a%26b");
    }
}
