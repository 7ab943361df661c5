//! Checks the negotiation: status, answer and redirects.

use http::StatusCode;
use serde::Deserialize;
use trunkline_protocol::manifest::Transport;

use super::finding::{Finding, excerpt, milliseconds_text};
use super::hub_url::HubUrl;
use super::probe_client::{AnswerSeen, ProbeClient, ProbeError};

pub(super) const NEGOTIATE: &str = "negotiate";

/// Maximum number of redirects; more indicate a loop.
const REDIRECTS_MAX: usize = 8;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Negotiated {
    /// Value of `id` in the connection's requests.
    pub(super) id: String,
    pub(super) transports: Vec<Transport>,
}

/// Result of a negotiation including redirects.
#[derive(Debug)]
pub(super) struct Negotiation {
    /// Client for further requests, at the final URL.
    pub(super) client: ProbeClient,
    pub(super) answer: Option<AnswerSeen>,
    pub(super) negotiated: Option<Negotiated>,
    pub(super) findings: Vec<Finding>,
}

#[derive(Debug, PartialEq, Eq)]
enum NegotiateMeaning {
    Connect(Negotiated, Finding),
    Redirect { url: String, access_token: Option<String> },
    Refused(Finding),
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NegotiateBody {
    error: Option<String>,
    url: Option<String>,
    access_token: Option<String>,
    connection_id: Option<String>,
    connection_token: Option<String>,
    available_transports: Vec<OfferedTransport>,
}

#[derive(Debug, Deserialize)]
struct OfferedTransport {
    transport: String,
}

pub(super) async fn check_negotiate(client: &ProbeClient) -> Negotiation {
    let mut client = client.clone();
    let mut findings = Vec::new();
    for _ in 0..=REDIRECTS_MAX {
        // A separate check covers origins.
        let answer = match client.of_page(None).negotiate().await {
            Ok(answer) => answer,
            Err(error) => {
                findings.push(judge_silence(&error));
                return Negotiation { client, answer: None, negotiated: None, findings };
            }
        };
        let meaning = judge_negotiate(&answer, client.token.is_some());
        client = client.with_cookies_of(&answer);
        match meaning {
            NegotiateMeaning::Connect(negotiated, finding) => {
                findings.push(finding);
                return Negotiation { client, answer: Some(answer), negotiated: Some(negotiated), findings };
            }
            NegotiateMeaning::Refused(finding) => {
                findings.push(finding);
                return Negotiation { client, answer: Some(answer), negotiated: None, findings };
            }
            NegotiateMeaning::Redirect { url, access_token } => match judge_redirect(&client.url, &url) {
                (finding, Some(target)) => {
                    findings.push(finding);
                    client = client.at(target, access_token);
                }
                (finding, None) => {
                    findings.push(finding);
                    return Negotiation { client, answer: Some(answer), negotiated: None, findings };
                }
            },
        }
    }
    let seen = format!("more than {REDIRECTS_MAX} redirects");
    findings.push(Finding::failed(NEGOTIATE, seen, "let `on_negotiate` return a URL that does not redirect again"));
    Negotiation { client, answer: None, negotiated: None, findings }
}

fn judge_silence(error: &ProbeError) -> Finding {
    let advice = "check that this port speaks HTTP (or needs https), and that the load balancer reaches a node";
    Finding::failed(NEGOTIATE, format!("no answer: {error}"), advice)
}

fn judge_redirect(from: &HubUrl, to: &str) -> (Finding, Option<HubUrl>) {
    match to.parse::<HubUrl>() {
        Ok(target) if from.address.is_tls() && !target.address.is_tls() => (
            Finding::failed(
                NEGOTIATE,
                format!("redirect from https to {target}, which browsers don't follow"),
                "let `on_negotiate` return an https:// URL",
            ),
            None,
        ),
        Ok(target) => (Finding::ok(NEGOTIATE, format!("redirect to {target}")), Some(target)),
        Err(problem) => {
            let seen = format!("redirect to {} which {problem}", excerpt(to.as_bytes()));
            (Finding::failed(NEGOTIATE, seen, "correct the URL in `on_negotiate`"), None)
        }
    }
}

fn judge_negotiate(answer: &AnswerSeen, has_token: bool) -> NegotiateMeaning {
    if answer.status != StatusCode::OK {
        return NegotiateMeaning::Refused(judge_status(answer, has_token));
    }
    let Ok(body) = serde_json::from_slice::<NegotiateBody>(&answer.body) else {
        return NegotiateMeaning::Refused(no_signalr(answer));
    };
    if let Some(error) = &body.error {
        let seen = format!("the server refuses: {}", excerpt(error.as_bytes()));
        return NegotiateMeaning::Refused(Finding::failed(
            NEGOTIATE,
            seen,
            "the text comes from the app or the hub: look there",
        ));
    }
    if let Some(url) = body.url {
        return NegotiateMeaning::Redirect { url, access_token: body.access_token };
    }
    let Some(id) = body.connection_token.or(body.connection_id) else {
        return NegotiateMeaning::Refused(no_signalr(answer));
    };
    let known = |name: &str| Transport::ALL.into_iter().find(|known| transport_name(*known) == name);
    let transports: Vec<_> = body.available_transports.iter().filter_map(|offer| known(&offer.transport)).collect();
    let names: Vec<_> = transports.iter().map(|transport| transport_name(*transport)).collect();
    let took = milliseconds_text(answer.took);
    let finding = match names.is_empty() {
        false => Finding::ok(NEGOTIATE, format!("answered in {took}, offers {}", names.join(", "))),
        true => Finding::failed(
            NEGOTIATE,
            "no transport is offered",
            "let the hub have transports (`Hub::transports`), and the nodes more than WebSockets without --no-forward",
        ),
    };
    NegotiateMeaning::Connect(Negotiated { id, transports }, finding)
}

pub(super) fn transport_name(transport: Transport) -> &'static str {
    match transport {
        Transport::WebSockets => "WebSockets",
        Transport::ServerSentEvents => "ServerSentEvents",
        Transport::LongPolling => "LongPolling",
    }
}

fn no_signalr(answer: &AnswerSeen) -> Finding {
    let kind = answer.header("content-type").unwrap_or("no type");
    Finding::failed(
        NEGOTIATE,
        format!("not a SignalR response: 200, {kind}, {}", excerpt(&answer.body)),
        "give the path of a hub, and let the load balancer forward that path and /negotiate below it to the nodes",
    )
}

fn judge_status(answer: &AnswerSeen, has_token: bool) -> Finding {
    let advice = match (answer.status.as_u16(), has_token) {
        (300..=399, _) => "give clients the target URL: they don't follow HTTP redirects",
        (400, _) => "compare Host and path with the forwarded request: nodes refuse ambiguous request heads",
        (401, false) => "give an access token by --token-file; `trunkline token user ID` makes one",
        (401, true) => {
            "the token is refused: check its expiry and audience, that the nodes have the --access-key or the issuer's \
             keys (--jwt-*) that signed it, and that the load balancer forwards Authorization; the back end of a webhook may \
             have refused the client itself, or the nodes' --webhook-secret"
        }
        (403, _) => {
            "the origin or the user is refused: check --allow-origin, rules with `reject`, the app's `on_negotiate` \
             or the back end's answer to `connect`, and firewalls in between"
        }
        (404, _) => {
            "no hub is served at this path: give the URL of a hub, such as http://127.0.0.1:8080/chat; compare its \
             path with the app's (see the page of the admin port), with --path-prefix, and with the load balancer's \
             changes of paths"
        }
        (405, _) => "let the load balancer forward POST to the nodes: this looks like a static file server",
        (408 | 504, _) => {
            "the app server, the back end of the webhook or the node does not answer: check `trunkline health`, and \
             timeouts of the load balancer"
        }
        (413 | 431, _) => {
            "the request head is too large for a proxy in between: shorten token and cookies, or raise the limit there"
        }
        (429, _) => {
            "this address has too many connections: see --pending-per-address-max and --connections-per-address-max, \
             and add the load balancer to --trust"
        }
        (502, _) => {
            "the load balancer reaches no node: see its health checks, and check whether it sends plain HTTP to a port \
             with TLS"
        }
        (503, _) => {
            "no app server is linked, the node is draining, or a limit is reached: see `trunkline health`; --upstream \
             names app servers, --upstream-webhook the URL of a back end; HAProxy answers 503 if all its servers are \
             down"
        }
        _ => "see the logs of the node and of proxies in between",
    };
    let location = answer.header("location").map(|to| format!(" to {to}")).unwrap_or_default();
    let seen = format!("the response is {}{location} with {}", answer.status, excerpt(&answer.body));
    Finding::failed(NEGOTIATE, seen, advice)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use http::HeaderMap;

    use super::*;

    fn answer(status: u16, body: &'static str) -> AnswerSeen {
        let status = StatusCode::from_u16(status).unwrap();
        let took = Duration::from_millis(1);
        AnswerSeen { status, headers: HeaderMap::new(), body: Bytes::from_static(body.as_bytes()), took }
    }

    fn refused(status: u16, body: &'static str, has_token: bool) -> Finding {
        match judge_negotiate(&answer(status, body), has_token) {
            NegotiateMeaning::Refused(finding) => finding,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn ids_of_both_versions_and_the_transports_are_taken() {
        let body = r#"{"connectionId":"a","connectionToken":"b","availableTransports":[{"transport":"WebSockets"},{"transport":"New"}]}"#;
        let NegotiateMeaning::Connect(negotiated, _) = judge_negotiate(&answer(200, body), false) else { panic!() };
        assert_eq!(negotiated, Negotiated { id: "b".into(), transports: vec![Transport::WebSockets] });
        let body = r#"{"connectionId":"a","availableTransports":[{"transport":"LongPolling"}]}"#;
        let NegotiateMeaning::Connect(negotiated, _) = judge_negotiate(&answer(200, body), false) else { panic!() };
        assert_eq!(negotiated.id, "a");
    }

    #[test]
    fn an_answer_that_is_not_signalr_is_recognized() {
        for body in ["<html>", "{}", "[]", ""] {
            assert!(refused(200, body, false).seen.starts_with("not a SignalR response"), "{body}");
        }
        assert!(refused(200, r#"{"error":"no"}"#, false).seen.contains("\"no\""));
    }

    #[test]
    fn each_status_has_its_own_advice() {
        let advice = |status, has_token| refused(status, "", has_token).advice.unwrap();
        assert!(advice(401, false).contains("--token-file") && advice(401, true).contains("--access-key"));
        assert!(advice(403, true).contains("--allow-origin") && advice(404, true).contains("--path-prefix"));
        assert!(advice(503, true).contains("--upstream") && advice(502, true).contains("balancer"));
    }

    #[test]
    fn a_redirect_is_followed_unless_pages_would_refuse_it() {
        let body = r#"{"url":"https://other/chat","accessToken":"t"}"#;
        let expected = NegotiateMeaning::Redirect { url: "https://other/chat".into(), access_token: Some("t".into()) };
        assert_eq!(judge_negotiate(&answer(200, body), false), expected);
        let from: HubUrl = "https://x/chat".parse().unwrap();
        assert!(judge_redirect(&from, "https://other/chat").1.is_some());
        assert!(judge_redirect(&from, "http://other/chat").1.is_none());
        assert!(judge_redirect(&from, "/chat").1.is_none());
    }
}
