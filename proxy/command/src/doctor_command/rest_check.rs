//! Checks the REST data plane: whether this address serves it, and accepts the token.

use std::time::Duration;

use axum::body::Body;
use http::header::AUTHORIZATION;
use http::{Request, StatusCode};
use serde::Deserialize;
use trunkline_protocol::manifest::NODE_HEADER;
use trunkline_proxy::parts::{Connector, HttpClient, HttpError};

use super::finding::{Finding, excerpt};
use super::hub_url::HubUrl;
use super::probe_client::ANSWER_MAX_BYTES;

const REST: &str = "rest";

/// User that is looked up. A response that there is none is a success.
const PROBED_USER: &str = "trunkline-doctor";

const START_REST: &str = "start the nodes with --rest, or give the port of --rest-listen by --rest URL";

/// Error of the data plane. An app behind a node without REST answers otherwise.
#[derive(Debug, Default, Deserialize)]
struct RestAnswer {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// Data plane to check, and the token for it.
#[derive(Debug)]
pub(super) struct RestTarget {
    /// URL of the server, with the path above `/api/`.
    pub(super) base: HubUrl,
    pub(super) hub: String,
    pub(super) token: Option<String>,
    /// Named by `--rest`. The URL of the client may be an app's.
    pub(super) is_given: bool,
}

/// Requests the health of the data plane, and with a token a user of the hub. Changes nothing.
pub(super) async fn check_rest(target: &RestTarget, connector: Connector, deadline: Duration) -> Finding {
    let client = HttpClient::without_pool(connector);
    let get = async |path: &str, token: Option<&str>| {
        let mut request = Request::get(target.base.below(path));
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Body::empty()).map_err(HttpError::from)?;
        let answer = client.fetch(&target.base.address, request, ANSWER_MAX_BYTES, deadline).await?;
        let is_node = answer.headers().contains_key(NODE_HEADER);
        Ok((answer.status(), answer.into_body().to_vec(), is_node))
    };
    let health = get("/api/health", None).await;
    // An app must not get the token.
    let is_of_app = matches!(health, Ok((StatusCode::OK, _, is_node)) if !is_node && !target.is_given);
    let of_answer = |(status, body, _)| (status, body);
    match target.token.as_deref() {
        _ if is_of_app => {
            let seen = format!("{} does not serve it: an app answers /api/health", target.base);
            Finding::failed(REST, seen, START_REST)
        }
        Some(token) if matches!(health, Ok((StatusCode::OK, ..))) => {
            let hub: String = form_urlencoded::byte_serialize(target.hub.as_bytes()).collect();
            let user = format!("/api/hubs/{}/users/{PROBED_USER}", hub.replace('+', "%20"));
            judge_token(target, get(&user, Some(token)).await.map(of_answer))
        }
        _ => judge_health(target, health.map(of_answer)),
    }
}

type Answered = Result<(StatusCode, Vec<u8>), HttpError>;

fn judge_health(RestTarget { base, .. }: &RestTarget, health: Answered) -> Finding {
    match health {
        Ok((StatusCode::OK, _)) => Finding::ok(REST, format!("{base} serves it; --rest-token also checks a token")),
        Ok((StatusCode::SERVICE_UNAVAILABLE, _)) => {
            Finding::warning(REST, format!("the node at {base} is stopping"), "try again")
        }
        Ok((status, body)) => {
            let seen = format!("{base} does not serve it: /api/health is {status} with {}", excerpt(&body));
            Finding::failed(REST, seen, START_REST)
        }
        Err(problem) => Finding::failed(REST, format!("no answer from {base}: {problem}"), START_REST),
    }
}

fn judge_token(RestTarget { base, hub, .. }: &RestTarget, looked_up: Answered) -> Finding {
    let (status, body) = match looked_up {
        Ok(answer) => answer,
        Err(problem) => {
            let (base, hub) = (base.clone(), hub.clone());
            return judge_health(&RestTarget { base, hub, token: None, is_given: false }, Err(problem));
        }
    };
    let answer: RestAnswer = serde_json::from_slice(&body).unwrap_or_default();
    let RestAnswer { code, message } = &answer;
    match status {
        StatusCode::OK => Finding::ok(REST, format!("{base} accepts the token for the hub {hub}")),
        StatusCode::NOT_FOUND if code.ends_with(".User.NotExisted") => {
            Finding::ok(REST, format!("{base} accepts the token for the hub {hub}"))
        }
        StatusCode::NOT_FOUND if code == "Error.Hub.NotExisted" => Finding::failed(
            REST,
            format!("404: {message}"),
            "use the name of the hub, or its path without the first slash; an app server or --upstream-webhook has to \
             serve it",
        ),
        StatusCode::UNAUTHORIZED => Finding::failed(
            REST,
            format!("401: {message}"),
            format!(
                "make the token with a key of the nodes: `trunkline token rest --hub {hub}` with their --access-key, \
                 --app-key or --config, and with their --rest-audience"
            ),
        ),
        _ if code.is_empty() => {
            let seen = format!("an app answers {status} with {}", excerpt(&body));
            Finding::failed(REST, seen, START_REST)
        }
        _ => Finding::warning(REST, format!("{status}: {message}"), "try again, and follow the reason in the response"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    fn target() -> RestTarget {
        let base = "http://node:8080".parse().unwrap();
        RestTarget { base, hub: "chat".into(), token: Some("t".into()), is_given: true }
    }

    fn judged(status: u16, body: &str) -> (Verdict, String) {
        let answer = Ok((StatusCode::from_u16(status).unwrap(), body.into()));
        let finding = judge_token(&target(), answer);
        (finding.verdict, format!("{} -> {}", finding.seen, finding.advice.unwrap_or_default()))
    }

    #[test]
    fn an_accepted_token_a_refused_one_and_an_unknown_hub_are_told_apart() {
        let error = |code: &str| format!("{{\"code\":\"{code}\",\"message\":\"the reason\"}}");
        for (status, body, verdict, words) in [
            (200, String::new(), Verdict::Ok, "accepts the token for the hub chat"),
            (404, error("Warning.User.NotExisted"), Verdict::Ok, "accepts the token"),
            (404, error("Error.Hub.NotExisted"), Verdict::Failed, "--upstream-webhook"),
            (401, error("Error.Token.Invalid"), Verdict::Failed, "401: the reason -> make the token"),
            (404, "<html>".into(), Verdict::Failed, "an app answers 404 Not Found with \"<html>\""),
            (503, error("Error.Node.Busy"), Verdict::Warning, "the reason"),
        ] {
            let (seen, text) = judged(status, &body);
            assert!(seen == verdict && text.contains(words), "{status} {body}: {seen:?} {text}");
        }
    }

    #[test]
    fn a_node_without_rest_is_found_by_its_health() {
        let of = |status: u16| judge_health(&target(), Ok((StatusCode::from_u16(status).unwrap(), Vec::new())));
        assert_eq!(
            (of(200).verdict, of(404).verdict, of(503).verdict),
            (Verdict::Ok, Verdict::Failed, Verdict::Warning)
        );
        assert!(of(404).advice.unwrap().contains("--rest"));
    }
}
