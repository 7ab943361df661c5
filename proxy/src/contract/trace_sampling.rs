//! Sampling: traces started by a node, and propagation of incoming traces.

use tokio::sync::mpsc::Receiver;
use tokio_tungstenite::tungstenite::Message;
use trunkline_protocol::hub::HubProtocol;
use trunkline_protocol::service::OpenConnection;
use trunkline_protocol::trace_context::{TRACEPARENT_HEADER, TraceContext};

use super::app::AppLink;
use super::client::{Client, JSON_HANDSHAKE};
use super::fixture::{Fixture, paused, settings};
use super::http::{HttpConnection, request_with};
use super::hub_message::result;
use super::scene::LinkedApp;
use crate::ground::config::Settings;
use crate::ground::telemetry::{SamplingTerms, SpanKind, SpanRecord};

const CLIENTS: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Starts a node that samples this share, with an app server and its link.
async fn traced(ratio: f64, trusts_clients: bool) -> (Fixture, LinkedApp) {
    let sampling = Some(SamplingTerms { ratio, trusts_clients, spans_per_second: 1_000 });
    with(Settings { sampling, ..settings() }).await
}

async fn with(settings: Settings) -> (Fixture, LinkedApp) {
    Fixture::with(settings, 1).with_chat().await
}

fn spans_of(fixture: &Fixture) -> Receiver<Box<SpanRecord>> {
    fixture.shared.tracer.as_ref().unwrap().queue.take_receiver().unwrap()
}

async fn negotiate(fixture: &Fixture, headers: &[(&'static str, &str)]) -> String {
    let request = request_with("POST", "/chat/negotiate?negotiateVersion=1", headers);
    let (status, body) = HttpConnection::open(fixture).await.exchange(request).await;
    assert_eq!(status, 200, "{body}");
    let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
    answer["connectionToken"].as_str().unwrap().to_owned()
}

fn context_in(open: &OpenConnection) -> Option<TraceContext> {
    let mut named = open.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(TRACEPARENT_HEADER));
    let context = named.next().map(|(_, values)| values[0].parse().unwrap());
    assert_eq!(named.next(), None, "one context");
    context
}

/// Connects with these headers; returns the client and the trace context of its opening.
async fn connect(
    fixture: &Fixture,
    link: &mut AppLink,
    target: &str,
    headers: &[(&'static str, &str)],
) -> (Client, Option<TraceContext>) {
    let mut client = Client::upgrade_with(fixture.dial(), target, headers).await.unwrap();
    client.send(JSON_HANDSHAKE).await;
    let open = link.opening().await;
    assert_eq!(open.claims, [], "what nodes tell each other is not the app's");
    client.id = open.connection_id.to_string();
    link.data().await;
    link.write(&client.id, "{}\u{1e}").await;
    assert_eq!(client.text().await, "{}");
    (client, context_in(&open))
}

fn call(id: &str, headers: &str) -> String {
    format!("{{\"type\":1,{headers}\"invocationId\":\"{id}\",\"target\":\"Add\",\"arguments\":[1, 2.50]}}\u{1e}")
}

/// Trace context of a call as received by the app server.
fn context_of(text: &str) -> TraceContext {
    let message: serde_json::Value = serde_json::from_str(text.trim_end_matches('\u{1e}')).unwrap();
    message["headers"][TRACEPARENT_HEADER].as_str().unwrap_or_else(|| panic!("{text}")).parse().unwrap()
}

fn attribute<'a>(span: &'a SpanRecord, name: &str) -> &'a str {
    span.attributes.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
}

#[tokio::test(crate = "paused")]
async fn the_trace_of_a_negotiation_reaches_the_app_though_the_node_traces_nothing() {
    let (fixture, mut link) = with(settings()).await;
    let token = negotiate(&fixture, &[(TRACEPARENT_HEADER, CLIENTS)]).await;
    let (mut client, named) = connect(&fixture, &mut link, &format!("/chat?id={token}"), &[]).await;
    assert_eq!(named, CLIENTS.parse().ok());
    let text = call("1", "\"headers\":{\"traceparent\":\"x\"},");
    client.send(&text).await;
    assert_eq!(link.data().await.0, text, "as it came");
    let token = negotiate(&fixture, &[]).await;
    let (_client, named) = connect(&fixture, &mut link, &format!("/chat?id={token}"), &[]).await;
    assert_eq!(named, None);
}

#[tokio::test(crate = "paused")]
async fn the_trace_of_a_connect_request_overrides_its_negotiation() {
    let (fixture, mut link) = with(settings()).await;
    let token = negotiate(&fixture, &[(TRACEPARENT_HEADER, CLIENTS)]).await;
    let own = TraceContext::root();
    let headers = [(TRACEPARENT_HEADER, &*own.to_string())];
    let (_client, named) = connect(&fixture, &mut link, &format!("/chat?id={token}"), &headers).await;
    assert_eq!(named, Some(own));
}

#[tokio::test(crate = "paused")]
async fn the_steps_of_a_sampled_client_and_its_calls_are_one_trace_if_the_client_began_it() {
    let (fixture, mut link) = traced(1.0, false).await;
    let mut spans = spans_of(&fixture);
    let token = negotiate(&fixture, &[(TRACEPARENT_HEADER, CLIENTS)]).await;
    let (mut client, named) = connect(&fixture, &mut link, &format!("/chat?id={token}"), &[]).await;
    client.send(&call("7", "")).await;
    let (text, _) = link.data().await;
    let named_by_call = context_of(&text);
    assert!(text.contains("\"arguments\":[1,2.50]"), "{text}");
    link.write(&client.id, result("7", "3")).await;
    client.text().await;
    let mut seen = Vec::new();
    for name in ["negotiate", "connect", "handshake", "chat/Add"] {
        let span = spans.recv().await.unwrap();
        assert_eq!((&*span.name, &span.error), (name, &None));
        assert!(span.begun_ns > 0 && span.begun_ns <= span.ended_ns);
        seen.push(span);
    }
    let clients: TraceContext = CLIENTS.parse().unwrap();
    assert!(seen.iter().all(|span| span.context.trace_id == clients.trace_id), "{seen:?}");
    let [negotiated, connected, shaken, called] = &seen[..] else { panic!() };
    assert_eq!(negotiated.parent, Some(clients.span_id));
    assert_eq!(connected.parent, Some(negotiated.context.span_id));
    assert_eq!((shaken.parent, named), (Some(connected.context.span_id), Some(connected.context)));
    assert_eq!((called.parent, named_by_call), (Some(connected.context.span_id), called.context));
    assert_eq!((called.kind, attribute(called, "rpc.method")), (SpanKind::Client, "Add"));
    assert_eq!((attribute(called, "rpc.system"), attribute(called, "rpc.service")), ("signalr", "chat"));
    assert!(!token.is_empty() && seen.iter().all(|span| !format!("{span:?}").contains(&token)), "no secrets");
}

#[tokio::test(crate = "paused")]
async fn calls_of_a_connection_that_the_node_has_chosen_have_traces_of_their_own() {
    let (fixture, mut link) = traced(1.0, false).await;
    let (mut client, connected) = connect(&fixture, &mut link, "/chat", &[]).await;
    client.send(&format!("{}{}", call("1", ""), call("2", ""))).await;
    let (one, two) = (context_of(&link.data().await.0), context_of(&link.data().await.0));
    assert!(one.trace_id != two.trace_id && one.trace_id != connected.unwrap().trace_id);
    client.send(&call("3", "\"headers\":{\"traceparent\":\"CLIENTS\",\"k\":\"v\"},").replace("CLIENTS", CLIENTS)).await;
    let (text, _) = link.data().await;
    let clients: TraceContext = CLIENTS.parse().unwrap();
    let named = context_of(&text);
    assert!(named.trace_id == clients.trace_id && named.span_id != clients.span_id && text.contains("\"k\":\"v\""));
}

#[tokio::test(crate = "paused")]
async fn the_end_of_a_call_is_the_end_of_its_span() {
    let (fixture, mut link) = traced(1.0, false).await;
    let mut spans = spans_of(&fixture);
    let (mut client, _) = connect(&fixture, &mut link, "/chat", &[]).await;
    for _ in 0..2 {
        spans.recv().await.unwrap();
    }
    let failed = "{\"type\":3,\"invocationId\":\"1\",\"error\":\"no\"}\u{1e}";
    client.send(&call("1", "")).await;
    link.data().await;
    assert!(spans.try_recv().is_err(), "it is not over");
    link.write(&client.id, failed).await;
    assert_eq!(spans.recv().await.unwrap().error.as_deref(), Some("no"));
    client.text().await;
    client.send(&call("2", "").replace("\"invocationId\":\"2\",", "")).await;
    link.data().await;
    assert_eq!(spans.recv().await.unwrap().error, None, "nobody waits for an answer");
    client.send(&call("3", "")).await;
    link.data().await;
    link.app.retire();
    link.cut();
    let lost = spans.recv().await.unwrap();
    assert!(lost.error.unwrap().contains("app server was lost"));
    client.close().await;
}

#[tokio::test(crate = "paused")]
async fn a_call_that_its_client_does_not_wait_for_ends_with_the_connection() {
    let (fixture, mut link) = traced(1.0, false).await;
    let mut spans = spans_of(&fixture);
    let (mut client, _) = connect(&fixture, &mut link, "/chat", &[]).await;
    client.send(&call("1", "")).await;
    link.data().await;
    client.close().await;
    link.close().await;
    let last = [spans.recv().await, spans.recv().await, spans.recv().await].into_iter().flatten().last().unwrap();
    assert!(last.error.unwrap().starts_with("The connection ended"));
}

#[tokio::test(crate = "paused")]
async fn sampling_decisions_of_clients_count_only_if_the_operator_trusts_them() {
    for trusts_clients in [false, true] {
        let (fixture, mut link) = traced(0.0, trusts_clients).await;
        let (mut client, named) = connect(&fixture, &mut link, "/chat", &[]).await;
        assert_eq!(named, None);
        let of_client = call("2", "\"headers\":{\"traceparent\":\"CLIENTS\"},").replace("CLIENTS", CLIENTS);
        let unsampled = of_client.replace("-01\"", "-00\"").replace("\"2\"", "\"3\"");
        let all = [call("1", ""), of_client, unsampled, call("4", "")];
        client.send(&all.concat()).await;
        if !trusts_clients {
            assert_eq!(link.data().await.0, all.concat());
            continue;
        }
        assert_eq!(link.data().await.0, all[0]);
        assert_ne!(context_of(&link.data().await.0).to_string(), CLIENTS);
        assert_eq!(link.data().await.0, all[2..].concat(), "unsampled ones go up as they came");
    }
}

#[tokio::test(crate = "paused")]
async fn a_call_in_message_pack_names_its_span_too() {
    let (fixture, mut link) = traced(1.0, false).await;
    let mut client = Client::upgrade(&fixture, "/chat").await.unwrap();
    client.send("{\"protocol\":\"messagepack\",\"version\":1}\u{1e}").await;
    let id = link.opening().await.connection_id.to_string();
    link.data().await;
    link.write(&id, "{}\u{1e}").await;
    client.next().await;
    let body = b"\x96\x01\x80\xa11\xa3Add\x92\x01\x02\x90";
    let frame: Vec<u8> = [&[u8::try_from(body.len()).unwrap()][..], body].concat();
    client.write(Message::binary(frame)).await;
    let (_, data) = link.data().await;
    let (message, length) = (&data.payload, usize::from(data.payload[0]));
    assert_eq!(message.len(), length + 1);
    let decoded = HubProtocol::MessagePack.decode(&message.slice(1..)).unwrap().unwrap();
    let trunkline_protocol::hub::HubMessage::Invocation(call) = decoded else { panic!("{decoded:?}") };
    assert_eq!((&*call.headers[0].0, &*call.target, call.arguments.len()), (TRACEPARENT_HEADER, "Add", 2));
    call.headers[0].1.parse::<TraceContext>().unwrap();
}

#[tokio::test(crate = "paused")]
async fn messages_other_than_calls_are_forwarded_unchanged() {
    let (fixture, mut link) = traced(1.0, true).await;
    let (mut client, _) = connect(&fixture, &mut link, "/chat", &[]).await;
    let item =
        format!("{{\"type\":2,\"headers\":{{\"traceparent\":\"{CLIENTS}\"}},\"invocationId\":\"s\",\"item\":1}}\u{1e}");
    let odd = "{\"type\":1,\"headers\":7,\"target\":\"Add\",\"arguments\":[\"traceparent\"]}\u{1e}";
    client.send(&format!("{item}{odd}")).await;
    assert_eq!(link.data().await.0, format!("{item}{odd}"));
}
