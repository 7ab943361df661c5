//! Interpretation of a back end's response: its effect on the client, and its metrics outcome.

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use http::StatusCode;
use trunkline_protocol::hub::{Completion, HubMessage, HubProtocol, Outcome, next_frame};

use super::connect_answer::{ConnectVerdict, read_grant, read_refusal};
use super::webhook_event::EventKind;
use crate::ground::metrics::WebhookOutcome;

/// Reply of a back end, or the reason for a missing one.
pub(super) type Reply = Result<(StatusCode, Bytes), ReplyError>;

/// Error of a request without a complete response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ReplyError {
    /// No connection, or not in time; nothing was sent.
    #[error("the server can't be reached: {0}")]
    Unreachable(String),
    #[error("the connection to the server broke: {0}")]
    Broken(String),
    #[error("the server has not answered within {0} s (--webhook-timeout)")]
    Timeout(u64),
    #[error("the server's answer is larger than {0} bytes (--webhook-answer-max-bytes)")]
    TooLarge(usize),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum WebhookAnswer {
    /// Nothing is sent to the client; the event is accepted.
    Done,
    /// The back end was not reached or has failed, so the event may be repeated later.
    Later,
    /// Framed completion of the call.
    Completion(Bytes),
    /// Whether the client may connect.
    Verdict(ConnectVerdict),
}

/// Interprets a reply: its effect, its outcome and a problem to log.
pub(super) fn read_answer(kind: &EventKind, reply: &Reply) -> (WebhookAnswer, WebhookOutcome, Option<String>) {
    match kind {
        EventKind::Message { protocol, invocation_id: Some(id) } => read_result(*protocol, id, reply),
        // The back end sends items and the end itself.
        EventKind::Stream { .. } if matches!(reply, Ok((StatusCode::ACCEPTED, _))) => {
            (WebhookAnswer::Done, WebhookOutcome::Done, None)
        }
        EventKind::Stream { protocol, invocation_id } => read_result(*protocol, invocation_id, reply),
        EventKind::Connect => {
            let (admission, outcome, problem) = read_verdict(reply);
            (WebhookAnswer::Verdict(admission), outcome, problem)
        }
        EventKind::Lost | EventKind::UserOnline | EventKind::UserOffline => {
            let (outcome, problem) = judge(reply, is_answer);
            // A request that the back end refuses would be refused again.
            let is_final = reply.as_ref().is_ok_and(|(status, _)| is_answer(status) || is_lasting(*status));
            (if is_final { WebhookAnswer::Done } else { WebhookAnswer::Later }, outcome, problem)
        }
        EventKind::Message { invocation_id: None, .. } | EventKind::Connected | EventKind::Disconnected => {
            let (outcome, problem) = judge(reply, is_answer);
            (WebhookAnswer::Done, outcome, problem)
        }
    }
}

/// Interprets the reply to `connect`. Refusals by the back end are distinguished from failures.
fn read_verdict(reply: &Reply) -> (ConnectVerdict, WebhookOutcome, Option<String>) {
    let (outcome, problem) = judge(reply, StatusCode::is_success);
    match reply {
        Ok((status, body)) if status.is_success() => match read_grant(body) {
            Ok(decision) => (ConnectVerdict::Granted(Box::new(decision)), outcome, problem),
            Err(problem) => (ConnectVerdict::Unknown(problem.clone()), WebhookOutcome::Malformed, Some(problem)),
        },
        Ok((status, body)) if status.is_client_error() => {
            let plain = || format!("Connection refused, status code {}.", status.as_u16());
            match read_refusal(body) {
                Ok(text) => (ConnectVerdict::Refused(*status, text.unwrap_or_else(plain)), outcome, problem),
                Err(unreadable) => {
                    let problem = problem.map(|problem| format!("{problem}, and {unreadable}"));
                    (ConnectVerdict::Refused(*status, plain()), outcome, problem)
                }
            }
        }
        _ => (ConnectVerdict::Unknown(problem.clone().unwrap_or_default()), outcome, problem),
    }
}

/// Whether the status is a valid answer. Azure's service counts all others as failures.
fn is_answer(status: &StatusCode) -> bool {
    matches!(*status, StatusCode::OK | StatusCode::NO_CONTENT)
}

/// Whether the back end has no use for the event, now or later. A wrong secret may be replaced.
fn is_lasting(status: StatusCode) -> bool {
    let is_passing = matches!(
        status,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
    );
    status.is_client_error() && !is_passing
}

/// Outcome of a reply regardless of its body, and its problem, if any.
fn judge(reply: &Reply, is_good: impl Fn(&StatusCode) -> bool) -> (WebhookOutcome, Option<String>) {
    match reply {
        Ok((status, _)) if is_good(status) => (WebhookOutcome::Done, None),
        Ok((status, _)) if status.is_redirection() => {
            (WebhookOutcome::Redirect, Some(format!("status code {}: redirects are not followed", status.as_u16())))
        }
        Ok((status, _)) => (WebhookOutcome::Status, Some(format!("status code {}", status.as_u16()))),
        Err(error) => {
            let outcome = match error {
                ReplyError::Unreachable(_) => WebhookOutcome::Unreachable,
                ReplyError::Broken(_) => WebhookOutcome::Broken,
                ReplyError::Timeout(_) => WebhookOutcome::Timeout,
                ReplyError::TooLarge(_) => WebhookOutcome::TooLarge,
            };
            (outcome, Some(error.to_string()))
        }
    }
}

/// Interprets the reply to a call with a waiting client.
fn read_result(
    protocol: HubProtocol,
    id: &ByteString,
    reply: &Reply,
) -> (WebhookAnswer, WebhookOutcome, Option<String>) {
    let complete = |outcome| WebhookAnswer::Completion(completion(protocol, id, outcome));
    let (outcome, problem) = judge(reply, is_answer);
    if let Some(problem) = problem {
        let text = match reply {
            Ok(_) => format!("Invocation failed, {problem}."),
            Err(error) => format!("Invocation failed: {}.", error.for_client()),
        };
        return (complete(Outcome::Error(text.into())), outcome, Some(problem));
    }
    let body = reply.as_ref().map(|(_, body)| body.clone()).unwrap_or_default();
    if body.is_empty() {
        return (complete(Outcome::Void), outcome, None);
    }
    match read_completion(protocol, id, &body) {
        Some(result) => (complete(result), outcome, None),
        None => {
            let problem = "the server's answer is not a completion of this invocation in the protocol of its client";
            let error = Outcome::Error(format!("Invocation failed: {problem}.").into());
            (complete(error), WebhookOutcome::Malformed, Some(problem.into()))
        }
    }
}

impl ReplyError {
    /// Text for the client, without operator details such as addresses.
    fn for_client(&self) -> String {
        match self {
            Self::Unreachable(_) => "the server can't be reached".into(),
            Self::Broken(_) => "the connection to the server broke".into(),
            Self::Timeout(seconds) => format!("the server has not answered within {seconds} s"),
            Self::TooLarge(bytes) => format!("the server's answer is larger than {bytes} bytes"),
        }
    }
}

/// Parses a completion of this call, with or without framing.
fn read_completion(protocol: HubProtocol, id: &ByteString, body: &Bytes) -> Option<Outcome> {
    let body = match protocol {
        HubProtocol::Json => body.slice(..body.trim_ascii_end().len()),
        HubProtocol::MessagePack | HubProtocol::BlazorPack => body.clone(),
    };
    let framed = next_frame(protocol, &body, body.len().saturating_add(1)).ok().flatten();
    let framed = framed.filter(|frame| frame.length == body.len());
    let body = framed.map_or_else(|| body.clone(), |frame| body.slice(frame.body));
    match protocol.decode(&body) {
        Ok(Some(HubMessage::Completion(completion))) if completion.invocation_id == *id => Some(completion.outcome),
        _ => None,
    }
}

pub(super) fn completion(protocol: HubProtocol, id: &ByteString, outcome: Outcome) -> Bytes {
    let mut out = BytesMut::new();
    let completion = Completion { headers: Vec::new(), invocation_id: id.clone(), outcome };
    protocol.encode(&HubMessage::Completion(completion), &mut out);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OK: StatusCode = StatusCode::OK;

    fn call(protocol: HubProtocol) -> EventKind {
        EventKind::Message { protocol, invocation_id: Some("7".into()) }
    }

    fn answered(status: StatusCode, body: &'static [u8]) -> (String, WebhookOutcome) {
        match read_answer(&call(HubProtocol::Json), &Ok((status, Bytes::from_static(body)))) {
            (WebhookAnswer::Completion(text), outcome, _) => (String::from_utf8(text.to_vec()).unwrap(), outcome),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_completion_passes_with_and_without_its_separator() {
        let expected = ("{\"type\":3,\"invocationId\":\"7\",\"result\":[1, 2]}\u{1e}".to_owned(), WebhookOutcome::Done);
        for body in [
            b"{\"type\":3,\"invocationId\":\"7\",\"result\":[1, 2]}\x1e".as_slice(),
            b"{\"result\":[1, 2], \"invocationId\":\"7\", \"type\": 3}",
            b"{\"result\":[1, 2], \"invocationId\":\"7\", \"type\": 3}\n",
        ] {
            assert_eq!(answered(OK, body), expected, "{body:?}");
        }
        let packed = completion(HubProtocol::MessagePack, &"7".into(), Outcome::Error("no".into()));
        for body in [packed.clone(), packed.slice(1..)] {
            let read = read_answer(&call(HubProtocol::MessagePack), &Ok((OK, body)));
            assert_eq!(read, (WebhookAnswer::Completion(packed.clone()), WebhookOutcome::Done, None));
        }
    }

    #[test]
    fn an_empty_answer_completes_without_a_result() {
        let void = ("{\"type\":3,\"invocationId\":\"7\"}\u{1e}".to_owned(), WebhookOutcome::Done);
        assert_eq!([answered(OK, b""), answered(StatusCode::NO_CONTENT, b"")], [void.clone(), void]);
    }

    #[test]
    fn a_stream_is_left_to_the_server_where_it_has_accepted_it() {
        let stream = EventKind::Stream { protocol: HubProtocol::Json, invocation_id: "7".into() };
        let read = |status: u16| read_answer(&stream, &Ok((StatusCode::from_u16(status).unwrap(), Bytes::new())));
        assert_eq!(read(202), (WebhookAnswer::Done, WebhookOutcome::Done, None));
        assert!(matches!(read(204), (WebhookAnswer::Completion(_), WebhookOutcome::Done, None)), "an empty stream");
        assert!(matches!(read(500), (WebhookAnswer::Completion(_), WebhookOutcome::Status, Some(_))));
    }

    #[test]
    fn other_statuses_and_garbage_are_errors_that_name_them() {
        let error = |text: &str| format!("{{\"type\":3,\"invocationId\":\"7\",\"error\":\"{text}\"}}\u{1e}");
        for (status, outcome, text) in [
            (500, WebhookOutcome::Status, "Invocation failed, status code 500."),
            (201, WebhookOutcome::Status, "Invocation failed, status code 201."),
            (302, WebhookOutcome::Redirect, "Invocation failed, status code 302: redirects are not followed."),
        ] {
            assert_eq!(answered(StatusCode::from_u16(status).unwrap(), b"x"), (error(text), outcome));
        }
        let text = "Invocation failed: the server's answer is not a completion of this invocation in the protocol of \
                    its client.";
        let garbage: [&[u8]; 4] = [
            b"<html>",
            b"{\"type\":3,\"invocationId\":\"8\"}",
            b"{\"type\":7}",
            b"{\"type\":3,\"invocationId\":\"7\"}\x1e{}",
        ];
        for body in garbage {
            assert_eq!(answered(OK, body), (error(text), WebhookOutcome::Malformed));
        }
    }

    #[test]
    fn a_client_gets_a_failure_text_without_addresses() {
        let reply = Err(ReplyError::Unreachable("10.0.0.1 refused".into()));
        let (answer, outcome, problem) = read_answer(&call(HubProtocol::Json), &reply);
        let text =
            "{\"type\":3,\"invocationId\":\"7\",\"error\":\"Invocation failed: the server can't be reached.\"}\u{1e}";
        assert_eq!((answer, outcome), (WebhookAnswer::Completion(text.into()), WebhookOutcome::Unreachable));
        assert_eq!(problem.unwrap(), "the server can't be reached: 10.0.0.1 refused");
    }

    #[test]
    fn events_without_a_result_ignore_the_body() {
        let silent = EventKind::Message { protocol: HubProtocol::Json, invocation_id: None };
        let bad = Ok((StatusCode::BAD_REQUEST, Bytes::from_static(b"x")));
        let (answer, outcome, problem) = read_answer(&silent, &bad);
        assert_eq!(
            (answer, outcome, problem.as_deref()),
            (WebhookAnswer::Done, WebhookOutcome::Status, Some("status code 400"))
        );
    }

    #[test]
    fn an_event_of_a_user_is_repeated_unless_the_back_end_has_no_use_for_it() {
        let again = |reply: &Reply| read_answer(&EventKind::UserOffline, reply).0 == WebhookAnswer::Later;
        let answered = |status: u16| again(&Ok((StatusCode::from_u16(status).unwrap(), Bytes::new())));
        assert_eq!([200, 204, 404, 410].map(answered), [false; 4]);
        assert_eq!([302, 401, 403, 408, 429, 500, 503].map(answered), [true; 7]);
        assert!(again(&Err(ReplyError::Timeout(1))) && again(&Err(ReplyError::Unreachable(String::new()))));
    }

    #[test]
    fn a_client_is_admitted_by_any_success_and_refused_with_status_and_text() {
        let admission = |reply: &Reply| match read_answer(&EventKind::Connect, reply) {
            (WebhookAnswer::Verdict(admission), outcome, _) => (admission, outcome),
            other => panic!("{other:?}"),
        };
        let answered = |status: u16, body: &'static str| {
            admission(&Ok((StatusCode::from_u16(status).unwrap(), Bytes::from_static(body.as_bytes()))))
        };
        assert!(matches!(answered(201, ""), (ConnectVerdict::Granted(_), WebhookOutcome::Done)));
        for (body, text) in [("banned", "banned"), ("", "Connection refused, status code 403.")] {
            let refused = ConnectVerdict::Refused(StatusCode::FORBIDDEN, text.into());
            assert_eq!(answered(403, body), (refused, WebhookOutcome::Status));
        }
        assert!(matches!(answered(200, "ok"), (ConnectVerdict::Unknown(_), WebhookOutcome::Malformed)));
        assert!(matches!(answered(302, ""), (ConnectVerdict::Unknown(_), WebhookOutcome::Redirect)));
        let late = admission(&Err(ReplyError::Timeout(1)));
        assert!(matches!(late, (ConnectVerdict::Unknown(_), WebhookOutcome::Timeout)));
    }

    proptest! {
        #[test]
        fn no_answer_of_a_back_end_panics_and_each_call_gets_one_completion(
            body in proptest::collection::vec(any::<u8>(), 0..60), status in 100u16..600, packed in any::<bool>(),
        ) {
            let protocol = if packed { HubProtocol::MessagePack } else { HubProtocol::Json };
            let reply = Ok((StatusCode::from_u16(status).unwrap(), Bytes::from(body)));
            let (answer, ..) = read_answer(&call(protocol), &reply);
            let WebhookAnswer::Completion(text) = answer else { panic!("{answer:?}") };
            let frame = next_frame(protocol, &text, usize::MAX).unwrap().unwrap();
            prop_assert_eq!(frame.length, text.len());
        }
    }
}
