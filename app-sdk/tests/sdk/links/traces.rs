//! Tests of live traces: reports of the app server on messages that a proxy has marked, and on no others.

use trunkline::HubProtocol::Json;
use trunkline_protocol::service::*;
use trunkline_protocol::wire::CAPABILITIES_HEADER;

use crate::harness::{App, LinkRequest, ProxyLink, ScriptedClient};

/// Joins messages of a client into one traced message with this mark.
fn traced(mark: i64, messages: &[ServiceMessage]) -> ServiceMessage {
    let data = messages.iter().map(|message| match message {
        ServiceMessage::ConnectionData(data) => data.clone(),
        other => panic!("{other:?}"),
    });
    let joined =
        data.reduce(|first, next| ConnectionData { payload: [first.payload, next.payload].concat().into(), ..first });
    ServiceMessage::TracedData(TracedData { mark, body: ServiceMessage::ConnectionData(joined.unwrap()).to_body() })
}

async fn report(link: &mut ProxyLink) -> TraceReport {
    match link.next().await {
        ServiceMessage::TraceReport(report) => report,
        other => panic!("{other:?}"),
    }
}

/// Which parts of a report are known: call begun, call ended, result sent.
fn known(report: &TraceReport) -> (bool, bool, bool) {
    (report.queued_us.is_some(), report.ran_us.is_some(), report.answered_us.is_some())
}

#[tokio::test]
async fn the_capability_is_announced() {
    let app = App::start().await;
    let (_socket, headers) = LinkRequest::of("proxy", 0).dial(&app).await.unwrap();
    assert!(headers[CAPABILITIES_HEADER].to_str().unwrap().split(", ").any(|item| item == "traces"));
}

#[tokio::test]
async fn a_marked_call_is_reported_behind_its_answer_and_others_are_not() {
    let (_app, mut link, client) = App::start_with_client().await;
    let id = client.id;
    link.send(client.call(Some("0"), "Add", "[1,1]")).await;
    assert_eq!(link.json(id).await["result"], 2);
    let calls = [client.call(Some("1"), "Add", "[2,3]"), client.call(Some("2"), "Fail", "[]")];
    link.send(traced(40, &calls)).await;
    assert_eq!(link.json(id).await["result"], 5);
    let added = report(&mut link).await;
    assert_eq!(
        (&*added.connection_id, added.mark, known(&added), added.has_failed),
        (id, 40, (true, true, true), false)
    );
    assert!(link.json(id).await["error"].is_string());
    let failed = report(&mut link).await;
    assert_eq!((failed.mark, known(&failed), failed.has_failed), (41, (true, true, true), true));
    link.quiet().await;
}

#[tokio::test]
async fn a_waiting_call_is_reported_when_it_begins_and_a_send_has_no_answer_time() {
    let (_app, mut link, client) = App::start_with_client().await;
    link.send(traced(1, &[client.call(Some("1"), "WaitForEnd", "[]")])).await;
    let begun = report(&mut link).await;
    assert_eq!((begun.mark, known(&begun)), (1, (true, false, false)));
    let other = link.client("c2", Json).await;
    link.send(traced(7, &[other.call(None, "Nothing", "[]")])).await;
    let ended = report(&mut link).await;
    assert_eq!((&*ended.connection_id, ended.mark, known(&ended)), ("c2", 7, (true, true, false)));
}

#[tokio::test]
async fn a_call_of_no_method_and_a_message_that_is_no_call_are_reported_too() {
    let (_app, mut link, client) = App::start_with_client().await;
    let cancel = client.json(&serde_json::json!({ "type": 5, "invocationId": "nobody" }));
    link.send(traced(1, &[cancel, client.call(Some("1"), "NoSuchMethod", "[]")])).await;
    let taken = report(&mut link).await;
    assert_eq!((taken.mark, known(&taken), taken.has_failed), (1, (false, false, false), false));
    assert!(link.json(client.id).await["error"].is_string());
    let unbound = report(&mut link).await;
    assert_eq!((unbound.mark, known(&unbound), unbound.has_failed), (2, (true, true, true), true));
}

#[tokio::test]
async fn a_traced_frame_without_data_is_skipped() {
    let app = App::start().await;
    let (mut link, client): (ProxyLink, ScriptedClient) = ProxyLink::open_with_client(&app).await;
    let ping = ServiceMessage::Ping(Ping::default()).to_body();
    link.send(ServiceMessage::TracedData(TracedData { mark: 1, body: ping })).await;
    link.send(ServiceMessage::TracedData(TracedData { mark: 1, body: "nonsense".into() })).await;
    assert!(link.call(&client, "Add", "[1,2]").await.contains("\"result\":3"));
}
