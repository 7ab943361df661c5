//! Live traces: order of hops, followed clients, limits, and other nodes of a fleet.

use std::time::Duration;

use tokio::time::sleep;
use trunkline_protocol::service::{ServiceMessage, TraceReport, TracedData};

use super::app::{AppLink, broadcast, data_for};
use super::client::Client;
use super::fixture::{Fixture, paused, settings};
use super::fleet_nodes::{FleetNode, nodes};
use super::scene::LinkedApp;
use crate::edge::observer::{PayloadView, TraceLine, WatchChoice, WatchError, WatchLines};
use crate::features::watch::{MessageDirection, WatchSubject};

const SAY: &str = "{\"type\":1,\"target\":\"Say\",\"invocationId\":\"1\",\"arguments\":[\"hush\"]}\u{1e}";
const ANSWER: &str = "{\"type\":3,\"invocationId\":\"1\",\"result\":7}\u{1e}";

async fn chat() -> (Fixture, LinkedApp) {
    Fixture::with(settings(), 2).with_chat().await
}

fn choice(subject: WatchSubject) -> WatchChoice {
    WatchChoice { hub: None, subjects: vec![subject], payloads: PayloadView::Hidden, seconds: Some(30) }
}

/// Receives this many trace lines about messages and connections.
macro_rules! told {
    ($trace:expr, $count:expr) => {{
        let mut told = Vec::new();
        while told.len() < $count {
            let lines = $trace.next().await.expect("the trace is over");
            told.extend(lines.iter().filter_map(short));
        }
        told
    }};
}

/// Short form of a line, without headers and lines about participating nodes.
fn short(line: &TraceLine) -> Option<String> {
    Some(match line {
        TraceLine::Header(_) | TraceLine::End(_) => return None,
        TraceLine::Node(line) => {
            let problem = line.problem.as_deref().map(|problem| format!(": {problem}")).unwrap_or_default();
            format!("{} {:?}{problem}", line.node, line.state)
        }
        TraceLine::Connection(line) => line.change.clone(),
        TraceLine::Message(line) => {
            let way = if line.way == MessageDirection::Up { "up" } else { "down" };
            format!("{} {way} {}", line.number, line.target.as_deref().unwrap_or(&line.kind))
        }
        TraceLine::Hop(line) => {
            let hops = [
                line.hub.map(|hub| format!("hub {:?} {:?}", hub.queued_us, hub.ran_us)),
                line.answered_us.map(|us| format!("answered {us}")),
                line.written_us.map(|_| "written".into()),
            ];
            format!("{} {}", line.number, hops.into_iter().flatten().collect::<String>())
        }
        TraceLine::Lost(line) => format!("lost {}", line.messages),
    })
}

/// Receives a traced message: its mark and payload.
async fn traced(link: &mut AppLink) -> (i64, String) {
    let ServiceMessage::TracedData(TracedData { mark, body }) = link.next().await else { panic!("not traced") };
    let Ok(Some(ServiceMessage::ConnectionData(data))) = ServiceMessage::decode(&body) else { panic!("no data") };
    (mark, String::from_utf8_lossy(&data.payload).into_owned())
}

fn report(client: &Client, mark: i64, ran_us: Option<i64>) -> ServiceMessage {
    let connection_id = client.id.as_str().into();
    let report =
        TraceReport { connection_id, mark, waited_us: 3, queued_us: Some(4), ran_us, ..TraceReport::default() };
    ServiceMessage::TraceReport(report)
}

#[tokio::test(crate = "paused")]
async fn a_call_is_traced_hop_by_hop_with_the_clock_of_each_end() {
    let (fixture, mut link) = chat().await;
    let mut client = link.client().await;
    let subject = WatchSubject::Connection(client.id.clone());
    let (mut trace, _permit) = fixture.observer().trace_node(&choice(subject)).await.unwrap();
    client.send(SAY).await;
    let (mark, payload) = traced(&mut link).await;
    assert_eq!(payload, SAY);
    link.send(report(&client, mark, None)).await;
    // sleep: the method takes this long in paused time
    sleep(Duration::from_millis(40)).await;
    link.send_together([data_for(&client.id, ANSWER), report(&client, mark, Some(39_000))]).await;
    assert_eq!(client.text().await, ANSWER.trim_end_matches('\u{1e}'));
    let lines = told!(trace, 7);
    let count = |wanted: &str| lines.iter().filter(|line| *line == wanted).count();
    assert_eq!(lines[0], "present");
    assert!(lines[1].ends_with(" up Say") && lines[2].ends_with("hub Some(4) None"), "{lines:?}");
    let number = lines[1].split(' ').next().unwrap();
    // Timers have millisecond resolution.
    assert!(lines[3].starts_with(&format!("{number} answered 4")), "{lines:?}");
    assert_eq!(count(&format!("{number} hub Some(4) Some(39000)")), 1, "{lines:?}");
    assert!(lines[4..].iter().any(|line| line.ends_with("written")), "{lines:?}");
    assert!(lines[4..].iter().any(|line| line.ends_with("down completion")), "{lines:?}");
}

#[tokio::test(crate = "paused")]
async fn payloads_are_hidden_unless_they_are_wanted_and_nothing_is_marked_without_a_trace() {
    let (fixture, mut link) = chat().await;
    let mut client = link.client_of("ann").await;
    client.send(SAY).await;
    assert_eq!(link.data().await.0, SAY, "plain data");
    let observer = fixture.observer();
    for (payloads, expected) in [(PayloadView::Hidden, None), (PayloadView::Shown, Some("[\"hush\"]"))] {
        let choice = WatchChoice { payloads, ..choice(WatchSubject::User("ann".into())) };
        let (mut trace, _permit) = observer.trace_node(&choice).await.unwrap();
        client.send(SAY).await;
        traced(&mut link).await;
        let payload = loop {
            let lines = trace.next().await.unwrap();
            let message = lines.into_iter().find_map(|line| match line {
                TraceLine::Message(message) => Some(message),
                _ => None,
            });
            if let Some(message) = message {
                assert_eq!((message.user.as_deref(), message.hub.as_str()), (Some("ann"), "chat"));
                break message.payload;
            }
        };
        assert_eq!(payload.as_deref(), expected);
    }
    link.fence().await;
    client.send(SAY).await;
    assert_eq!(link.data().await.0, SAY, "plain data again");
}

#[tokio::test(crate = "paused")]
async fn a_trace_follows_a_method_for_all_callers_and_a_group_while_it_has_members() {
    let (fixture, mut link) = chat().await;
    let mut ann = link.client().await;
    let mut ben = link.client().await;
    link.join(&ben.id, "room").await;
    let observer = fixture.observer();
    let (mut method, _first) = observer.trace_node(&choice(WatchSubject::Method("say".into()))).await.unwrap();
    let (mut group, _second) = observer.trace_node(&choice(WatchSubject::Group("room".into()))).await.unwrap();
    ann.send(SAY).await;
    traced(&mut link).await;
    link.write(&ann.id, ANSWER).await;
    ann.text().await;
    link.send(broadcast("{\"type\":1,\"target\":\"News\",\"arguments\":[]}")).await;
    ben.text().await;
    let lines = told!(method, 4);
    let named = |wanted: &str| lines.iter().any(|line| line.ends_with(wanted));
    assert!(named("up Say") && named("down completion") && named("written") && lines.len() == 4, "{lines:?}");
    let lines = told!(group, 3);
    assert!(lines[0] == "present" && lines[1].ends_with("down News") && lines[2].ends_with("written"), "{lines:?}");
}

#[tokio::test(crate = "paused")]
async fn a_trace_ends_with_its_time_and_unknown_hubs_and_too_many_traces_are_refused() {
    let (fixture, mut link) = chat().await;
    let observer = fixture.observer();
    let user = || WatchSubject::User("ann".into());
    let unknown = WatchChoice { hub: Some("/talk".into()), ..choice(user()) };
    assert!(matches!(observer.trace_node(&unknown).await, Err(WatchError::UnknownHub)));
    let begun = tokio::time::Instant::now();
    let (mut trace, _permit) = observer.trace(WatchChoice { seconds: Some(5), ..choice(user()) }).await.unwrap();
    let mut last = None;
    while let Some(lines) = trace.next().await {
        last = lines.into_iter().last().or(last);
    }
    assert!(matches!(last, Some(TraceLine::End(end)) if end.reason == "time"));
    assert_eq!(begun.elapsed().as_secs(), 5);
    drop(trace);
    let mut running = Vec::new();
    let refused = loop {
        match observer.trace_node(&choice(user())).await {
            Ok(trace) => running.push(trace),
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, WatchError::TooMany(text) if text.starts_with("4 traces are already running")));
    drop(running);
    link.fence().await;
    assert!(observer.trace_node(&choice(user())).await.is_ok());
}

#[tokio::test(crate = "paused")]
async fn another_node_of_the_fleet_takes_part_and_one_that_is_cut_off_is_missing() {
    let (_network, mut nodes) = nodes(2).await;
    let asked = |node: &FleetNode| node.observer();
    let subject = WatchSubject::Method("Say".into());
    let (mut trace, _permit) = asked(&nodes[0]).trace(choice(subject)).await.unwrap();
    assert_eq!(told!(trace, 2), ["n1 Following", "n2 Following"]);
    let mut client = nodes[1].client().await;
    client.send(SAY).await;
    traced(&mut nodes[1].link).await;
    let message = loop {
        let lines = trace.next().await.unwrap();
        let message = lines.into_iter().find_map(|line| match line {
            TraceLine::Message(message) => Some(message),
            _ => None,
        });
        if let Some(message) = message {
            break message;
        }
    };
    assert_eq!((message.node.as_str(), message.connection.as_str()), ("n2", client.id.as_str()));
    nodes[1].cut(true);
    let missing = loop {
        let news = told!(trace, 1);
        if let Some(missing) = news.into_iter().find(|news| news.starts_with("n2 Missing: ")) {
            break missing;
        }
    };
    assert!(!missing.contains("version"), "{missing}");
    nodes[1].cut(false);
    assert!(told!(trace, 1).contains(&"n2 Following".to_owned()), "it takes part again");
}
