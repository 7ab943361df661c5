//! Checks one transport: it opens, the hub answers, and no intermediary delays messages.

use std::time::Duration;

use http::StatusCode;
use trunkline_protocol::manifest::Transport;

use super::finding::{Finding, excerpt, median, milliseconds_text};
use super::hub_connection::{CallSeen, HubConnection, ProbeCall};
use super::negotiate_check::{Negotiated, check_negotiate, transport_name};
use super::probe_client::{ProbeClient, ProbeError};
use super::websocket_carrier::{COMPRESSED, COMPRESSED_BY_NODE, WebSocketCarrier};

const CALLS: usize = 5;

/// Delay of an event that indicates a buffering intermediary. HAProxy without `http-no-delay` waits about 200 ms.
const DELAY_MAX: Duration = Duration::from_millis(100);

const COLLECTED: &str = "a proxy in between buffers the response: HAProxy needs `option http-no-delay`; nginx needs \
                         `proxy_buffering off`, unless it respects the nodes' `X-Accel-Buffering: no` (without \
                         `proxy_ignore_headers`); use no compression and no cache for text/event-stream";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TransportStep {
    Open,
    Handshake,
    Call,
}

#[derive(Debug, Default)]
pub(super) struct TransportSeen {
    failure: Option<(TransportStep, ProbeError)>,
    handshake: Duration,
    calls: Vec<CallSeen>,
    /// Accepted compression: [`COMPRESSED`] or [`COMPRESSED_BY_NODE`].
    compressed: Option<&'static str>,
}

impl TransportSeen {
    pub(super) fn round_trip(&self) -> Option<Duration> {
        median(self.calls.iter().map(|call| call.took))
    }

    /// Whether the server refuses this client, regardless of routing.
    pub(super) fn is_refused(&self) -> bool {
        let refusals = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
        matches!(&self.failure, Some((_, ProbeError::Status { status, .. })) if refusals.contains(status))
    }

    pub(super) fn works(&self) -> bool {
        self.failure.is_none()
    }
}

/// Negotiates, opens the transport and makes some calls. `None` if the negotiation failed.
pub(super) async fn try_transport(
    client: &ProbeClient,
    transport: Transport,
    call: &ProbeCall,
) -> Option<TransportSeen> {
    let negotiation = check_negotiate(client).await;
    let Negotiated { id, .. } = negotiation.negotiated?;
    let mut seen = TransportSeen::default();
    let failed = try_connection(&negotiation.client, &id, transport, call, &mut seen).await;
    seen.failure = failed.err();
    if transport == Transport::WebSockets && seen.failure.is_none() {
        seen.compressed = accepted_compression(client).await;
    }
    Some(seen)
}

/// Offers compression with a connection of its own. Returns by what it was accepted.
async fn accepted_compression(client: &ProbeClient) -> Option<&'static str> {
    let negotiation = check_negotiate(client).await;
    match WebSocketCarrier::open(&negotiation.client, &negotiation.negotiated?.id, true).await {
        Err(ProbeError::Upgrade(by @ (COMPRESSED | COMPRESSED_BY_NODE))) => Some(by),
        _ => None,
    }
}

async fn try_connection(
    client: &ProbeClient,
    id: &str,
    transport: Transport,
    call: &ProbeCall,
    seen: &mut TransportSeen,
) -> Result<(), (TransportStep, ProbeError)> {
    let opened = HubConnection::open(client, id, transport).await;
    let mut connection = opened.map_err(|error| (TransportStep::Open, error))?;
    seen.handshake = connection.handshake().await.map_err(|error| (TransportStep::Handshake, error))?;
    for _ in 0..CALLS {
        seen.calls.push(connection.call(call).await.map_err(|error| (TransportStep::Call, error))?);
    }
    connection.close().await;
    Ok(())
}

/// Judges a transport. `usual` is the round trip over a WebSocket, if available.
pub(super) fn judge_transport(
    transport: Transport,
    seen: &TransportSeen,
    usual: Option<Duration>,
    call: &ProbeCall,
) -> Finding {
    let check = check_name(transport);
    if let Some((step, error)) = &seen.failure {
        let (what, advice) = match step {
            TransportStep::Open => ("the transport does not open", opening_advice(transport, error)),
            TransportStep::Handshake => ("the hub handshake fails", handshake_advice(transport, error)),
            TransportStep::Call => (
                "calls get no answer",
                "check that the app server or the back end answers (`trunkline trace`), and that no proxy in between \
                 holds messages back",
            ),
        };
        return Finding::failed(check, format!("{what}: {error}"), advice);
    }
    let took = seen.round_trip().map(milliseconds_text).unwrap_or_default();
    let text = format!(
        "opened, handshake in {}, {} calls of {} answered, half of them within {took}",
        milliseconds_text(seen.handshake),
        seen.calls.len(),
        if call.is_real() { &call.target } else { "an unknown method" },
    );
    if let Some(error) = seen.calls.iter().find_map(|call| call.error.as_ref()).filter(|_| call.is_real()) {
        let advice = "correct --invoke and --arguments, or the method";
        return Finding::failed(
            check,
            format!("{} gives the error {}", call.target, excerpt(error.as_bytes())),
            advice,
        );
    }
    let text = match seen.compressed {
        None => text,
        Some(COMPRESSED_BY_NODE) => format!("{text}, compressed by the node (--compress)"),
        Some(_) => {
            return Finding::warning(
                check,
                format!("{text}; but a proxy in between accepts permessage-deflate, not as nodes do"),
                "let the load balancer forward WebSockets unchanged: compression takes memory for each client there; \
                 nodes compress without any (--compress)",
            );
        }
    };
    match delay(seen, usual) {
        Some(delay) if transport == Transport::ServerSentEvents => {
            Finding::warning(check, format!("{text}: each event comes {} late", milliseconds_text(delay)), COLLECTED)
        }
        _ => Finding::ok(check, text),
    }
}

/// Returns how much later answers arrive than their POSTs and a WebSocket's answers, if significant.
fn delay(seen: &TransportSeen, usual: Option<Duration>) -> Option<Duration> {
    let sent = median(seen.calls.iter().map(|call| call.sent))?;
    let delay = seen.round_trip()?.saturating_sub(sent.max(usual.unwrap_or_default()));
    Some(delay).filter(|delay| *delay > DELAY_MAX)
}

pub(super) fn check_name(transport: Transport) -> &'static str {
    match transport {
        Transport::WebSockets => "websockets",
        Transport::ServerSentEvents => "server-sent-events",
        Transport::LongPolling => "long-polling",
    }
}

pub(super) fn not_offered(transport: Transport) -> Finding {
    Finding::ok(check_name(transport), format!("{} is not offered", transport_name(transport)))
}

fn opening_advice(transport: Transport, error: &ProbeError) -> &'static str {
    match (transport, error) {
        (_, ProbeError::Status { status: StatusCode::NOT_FOUND, .. }) => {
            "the id is unknown at the node: give all nodes the same --access-key, and check that they reach each other \
             (--advertise), or give them --no-forward; servers without connection tokens need stickiness in the load \
             balancer"
        }
        (_, ProbeError::Status { status: StatusCode::FORBIDDEN, .. }) => {
            "add the origin of the page to --allow-origin, or remove the refusing rule in between"
        }
        (_, ProbeError::Status { status: StatusCode::UNAUTHORIZED, .. }) => {
            "the negotiation accepted the token: let the load balancer forward the query (`access_token`) and \
             Authorization"
        }
        (Transport::WebSockets, ProbeError::Status { .. } | ProbeError::Upgrade(_)) => {
            "let the load balancer forward upgrades: nginx needs `proxy_http_version 1.1`, `proxy_set_header Upgrade \
             $http_upgrade` and `proxy_set_header Connection \"upgrade\"`; enable WebSockets in others"
        }
        (Transport::ServerSentEvents, ProbeError::Late(_)) => COLLECTED,
        (Transport::ServerSentEvents, ProbeError::ContentType(_)) => {
            "let the load balancer forward the header Accept, and the type of the response"
        }
        _ => "see the logs of the node and the load balancer, and its timeouts",
    }
}

fn handshake_advice(transport: Transport, error: &ProbeError) -> &'static str {
    match (transport, error) {
        (Transport::ServerSentEvents, ProbeError::Late(_)) => COLLECTED,
        (Transport::ServerSentEvents | Transport::LongPolling, ProbeError::Status { .. }) => {
            "the POST did not reach the node of its connection: check that nodes reach each other (--advertise), or \
             give them --no-forward; let the load balancer forward POST"
        }
        (_, ProbeError::Refused(_) | ProbeError::Closed(_)) => {
            "see the logs of the node and of the app server or back end"
        }
        _ => {
            "check that a hub is served at this path (a raw endpoint has no handshake), and look at proxies in \
              between"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    const EVENTS: Transport = Transport::ServerSentEvents;

    fn seen(took_ms: u64, sent_ms: u64, error: Option<&str>) -> TransportSeen {
        let [took, sent] = [took_ms, sent_ms].map(Duration::from_millis);
        let call = CallSeen { took, sent, error: error.map(str::to_owned) };
        TransportSeen { calls: vec![call; CALLS], ..TransportSeen::default() }
    }

    fn judged(transport: Transport, seen: &TransportSeen, usual_ms: u64) -> Finding {
        judge_transport(transport, seen, Some(Duration::from_millis(usual_ms)), &ProbeCall::of_no_method())
    }

    #[test]
    fn delayed_events_are_distinguished_from_network_latency() {
        let late = judged(EVENTS, &seen(205, 2, None), 3);
        assert_eq!(late.verdict, Verdict::Warning);
        assert!(late.seen.ends_with("each event comes 202 ms late") && late.advice.unwrap().contains("http-no-delay"));
        assert_eq!(judged(EVENTS, &seen(250, 200, None), 200).verdict, Verdict::Ok, "a long way");
        assert_eq!(judged(EVENTS, &seen(900, 2, None), 890).verdict, Verdict::Ok, "a slow method");
    }

    #[test]
    fn the_error_of_no_method_is_an_answer_and_that_of_a_method_a_failure() {
        let unknown = seen(2, 1, Some("Unknown hub method 'TrunklineDoctor'"));
        assert_eq!(judged(Transport::WebSockets, &unknown, 2).verdict, Verdict::Ok);
        let call = ProbeCall::of("Echo", &[serde_json::from_str("1").unwrap()]);
        let finding = judge_transport(Transport::WebSockets, &seen(2, 1, Some("no")), None, &call);
        assert_eq!((finding.verdict, finding.seen.as_str()), (Verdict::Failed, "Echo gives the error \"no\""));
    }

    #[test]
    fn a_failure_is_reported_with_its_step_and_advice() {
        let failed = |transport, step, error| {
            let seen = TransportSeen { failure: Some((step, error)), ..TransportSeen::default() };
            let finding = judged(transport, &seen, 1);
            (finding.seen, finding.advice.unwrap())
        };
        let status = |status| ProbeError::Status { status, excerpt: "nothing".into() };
        let (seen, advice) = failed(Transport::WebSockets, TransportStep::Open, status(StatusCode::OK));
        assert!(seen.starts_with("the transport does not open: the response is 200"), "{seen}");
        assert!(advice.contains("proxy_set_header Upgrade"));
        let (_, advice) = failed(Transport::LongPolling, TransportStep::Open, status(StatusCode::NOT_FOUND));
        assert!(advice.contains("--advertise"));
        let (_, advice) = failed(EVENTS, TransportStep::Open, status(StatusCode::FORBIDDEN));
        assert!(advice.contains("--allow-origin"));
        let (seen, advice) = failed(EVENTS, TransportStep::Handshake, ProbeError::Late(Duration::from_secs(10)));
        assert!(seen.ends_with("nothing received within 10s") && advice.contains("proxy_buffering"), "{seen}");
    }

    #[test]
    fn compression_by_a_balancer_is_a_warning_and_by_a_node_it_is_shown() {
        let packed = |by| TransportSeen { compressed: Some(by), ..seen(1, 1, None) };
        assert_eq!(judged(Transport::WebSockets, &packed(COMPRESSED), 1).verdict, Verdict::Warning);
        let by_node = judged(Transport::WebSockets, &packed(COMPRESSED_BY_NODE), 1);
        assert_eq!(by_node.verdict, Verdict::Ok);
        assert!(by_node.seen.contains("--compress"), "{}", by_node.seen);
    }
}
