//! Tests of client windows as negotiated by both sides of a link.

use futures_util::stream;
use serde_json::json;
use trunkline::HubProtocol::Json;
use trunkline_protocol::service::{Capabilities, DownMark, ServiceMessage};
use trunkline_protocol::wire::CAPABILITIES_HEADER;

use crate::harness::{App, LinkRequest, ProxyLink, json_of};

const ITEMS: usize = 40;

async fn start() -> App {
    let items = async || stream::iter(vec!["x".repeat(16_000); ITEMS]);
    App::start_hub(|hub| hub.method("Items", items)).await
}

/// Calls the stream, and reads it to its end. Returns the number of items and of marks, which are reported.
async fn read_stream(app: &App, node: &'static str, can: &'static str) -> (usize, usize) {
    let mut link = ProxyLink::open_as(app, LinkRequest { can, ..LinkRequest::of(node, 0) }).await.0;
    let client = link.client(node, Json).await;
    link.send(client.json(&json!({"type": 4, "invocationId": "1", "target": "Items", "arguments": []}))).await;
    let (mut items, mut marks) = (0, 0);
    loop {
        match link.next().await {
            ServiceMessage::ConnectionData(data) if json_of(&data)["type"] == 2 => items += 1,
            ServiceMessage::ConnectionData(_) => return (items, marks),
            ServiceMessage::DownMark(DownMark { connection_id, number }) => {
                marks += 1;
                assert!(items >= 5 * marks, "marks stand behind their data");
                link.send(ServiceMessage::DownDone(DownMark { connection_id, number })).await;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn only_a_proxy_that_reports_marks_is_sent_any() {
    let app = start().await;
    let (_, headers) = LinkRequest::of("b", 0).dial(&app).await.unwrap();
    let answer: Capabilities = headers.get(CAPABILITIES_HEADER).unwrap().to_str().unwrap().parse().unwrap();
    assert!(answer.client_message_max_bytes.is_some());
    assert_eq!(read_stream(&app, "new", "client-flow=100000").await, (ITEMS, 8));
    assert_eq!(read_stream(&app, "old", "").await, (ITEMS, 0));
}
