//! Answer of a back end to `connect`: it admits a client, and may name it, or refuses it.
//!
//! Groups and data travel in a claim of the connection, sealed into its token like a decision's other claims, so any
//! node has them.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use trunkline_protocol::limits::TOKEN_CLAIMS_MAX_BYTES;
use trunkline_protocol::negotiate::{ANSWER_HEADER, DECISION, Decision, REFUSAL};
use trunkline_protocol::token::{Claim, claims_fit};
use trunkline_protocol::wire::{PRIVATE_CLAIM_PREFIX, REFUSAL_HEADER};

/// Claim with the groups and the data of a client. The last one of its name, so that a claim of an access token can't
/// replace it.
pub(super) const CONNECT_CLAIM: &str = "trunkline.connect";

/// Maximum number of groups that an answer may name.
const CONNECT_GROUPS_MAX: usize = 100;

/// Maximum length of the text for a refused client.
const REFUSAL_MAX_BYTES: usize = 1024;

/// Effect of an answer to `connect`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ConnectVerdict {
    Granted(Box<Decision>),
    /// Status and text for the client.
    Refused(StatusCode, String),
    /// There is no decision, for this reason.
    Unknown(String),
}

/// Groups and data that a back end has given a client.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Gifts {
    #[serde(rename = "g", default, skip_serializing_if = "Vec::is_empty")]
    pub(super) groups: Vec<String>,
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub(super) data: Option<String>,
}

/// Body of an answer that admits a client.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct ConnectAnswer {
    user_id: Option<String>,
    // Serializers of typed languages write `null` for members without a value.
    groups: Option<Vec<String>>,
    claims: Option<Vec<GrantedClaim>>,
    data: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GrantedClaim {
    r#type: String,
    value: String,
}

impl Gifts {
    /// Gifts in the claims of a connection.
    pub(super) fn from_claims<'c>(claims: impl DoubleEndedIterator<Item = (&'c str, &'c str)>) -> Self {
        let claim = claims.rev().find(|(name, _)| *name == CONNECT_CLAIM);
        claim.and_then(|(_, text)| serde_json::from_str(text).ok()).unwrap_or_default()
    }
}

/// Reads the body of a 2xx answer. Fails with the reason if the body is malformed.
pub(super) fn read_grant(body: &[u8]) -> Result<Decision, String> {
    let answer: ConnectAnswer = match body.trim_ascii() {
        b"" | b"null" => ConnectAnswer::default(),
        body => serde_json::from_slice(body).map_err(|error| {
            let example = "{\"userId\": \"ann\", \"groups\": [], \"claims\": [{\"type\": \"\", \"value\": \"\"}], \
                           \"data\": \"\"}, in which each member is optional";
            format!("the answer to connect is not empty and not JSON like {example}: {error}")
        })?,
    };
    let ConnectAnswer { user_id, groups, claims, data } = answer;
    let (groups, claims) = (groups.unwrap_or_default(), claims.unwrap_or_default());
    if groups.len() > CONNECT_GROUPS_MAX || groups.iter().any(String::is_empty) {
        let count = groups.len();
        return Err(format!("the answer names {count} groups: at most {CONNECT_GROUPS_MAX} are allowed, none empty"));
    }
    let is_reserved = |name: &str| name.is_empty() || name == CONNECT_CLAIM || name.starts_with(PRIVATE_CLAIM_PREFIX);
    if let Some(claim) = claims.iter().find(|claim| is_reserved(&claim.r#type)) {
        return Err(format!("the answer has a claim {:?}: this name is reserved or empty", claim.r#type));
    }
    let gifts = serde_json::to_string(&Gifts { groups, data }).unwrap_or_default();
    let claims = claims.into_iter().map(|claim| (claim.r#type, claim.value));
    let claims: Vec<Claim> = claims.chain([(CONNECT_CLAIM.to_owned(), gifts)]).collect();
    let user = user_id.filter(|id| !id.is_empty());
    let named = user.iter().map(|id| (String::new(), id.clone()));
    if !claims_fit(&claims.iter().cloned().chain(named).collect::<Vec<_>>()) {
        return Err(format!(
            "user id, groups, claims and data of the answer are larger than {TOKEN_CLAIMS_MAX_BYTES} bytes in JSON, \
             because they become a part of the connection token"
        ));
    }
    Ok(Decision { user, claims, ..Decision::default() })
}

/// Text of a refusal: the body, or the member `message` or `detail` of a JSON body. Fails if the body can't be shown to
/// a client; the text says why.
pub(super) fn read_refusal(body: &[u8]) -> Result<Option<String>, String> {
    let member = |value: Value| {
        let of = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        of("message").or_else(|| of("detail"))
    };
    let named = serde_json::from_slice::<Value>(body).ok().and_then(member);
    let text = match named {
        Some(text) => text,
        None => String::from_utf8(body.to_vec()).map_err(|_| "the text of the refusal is not UTF-8".to_owned())?,
    };
    match text.trim() {
        "" => Ok(None),
        text if text.len() > REFUSAL_MAX_BYTES => {
            Err(format!("the text of the refusal has {} bytes, at most {REFUSAL_MAX_BYTES} are shown", text.len()))
        }
        text => Ok(Some(text.to_owned())),
    }
}

impl ConnectVerdict {
    /// Answer to the node, as of any app that decides about its clients.
    #[must_use]
    pub(super) fn into_response(self) -> Response {
        let (mark, status, body) = match self {
            Self::Granted(decision) => {
                let body = serde_json::to_vec(&decision).unwrap_or_default();
                ((ANSWER_HEADER, DECISION), StatusCode::OK, body.into())
            }
            // Never as HTML, because a browser may show it.
            Self::Refused(status, text) => ((ANSWER_HEADER, REFUSAL), status, Bytes::from(text)),
            Self::Unknown(problem) => ((REFUSAL_HEADER, "webhook"), StatusCode::SERVICE_UNAVAILABLE, problem.into()),
        };
        let mut answer = Response::new(Body::from(body));
        *answer.status_mut() = status;
        let headers = answer.headers_mut();
        headers.insert(HeaderName::from_static(mark.0), HeaderValue::from_static(mark.1));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gifts(decision: &Decision) -> Gifts {
        Gifts::from_claims(decision.claims.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }

    #[test]
    fn a_back_end_names_user_groups_claims_and_data() {
        let body = br#"{"userId":"ann","groups":["red","a b"],"claims":[{"type":"role","value":"cook"}],"data":"{1}"}"#;
        let decision = read_grant(body).unwrap();
        assert_eq!((decision.user.as_deref(), &decision.claims[0]), (Some("ann"), &("role".into(), "cook".into())));
        assert_eq!(gifts(&decision), Gifts { groups: vec!["red".into(), "a b".into()], data: Some("{1}".into()) });
        for empty in [
            &b""[..],
            b" \n",
            b"{}",
            b"{\"userId\":\"\"}",
            b"{\"userId\":null,\"groups\":null,\"claims\":null,\"data\":null}",
        ] {
            let decision = read_grant(empty).unwrap();
            assert_eq!((decision.user.as_deref(), gifts(&decision)), (None, Gifts::default()));
        }
    }

    #[test]
    fn a_claim_of_a_token_is_no_gift_beside_the_back_ends_own() {
        let forged = (CONNECT_CLAIM, r#"{"g":["admins"]}"#);
        assert_eq!(Gifts::from_claims([forged, (CONNECT_CLAIM, "{}")].into_iter()), Gifts::default());
        assert!(read_grant(b"").unwrap().claims.iter().any(|(name, _)| name == CONNECT_CLAIM), "it is always there");
    }

    #[test]
    fn an_answer_that_is_wrong_is_refused_with_the_reason_and_the_limit() {
        let many = format!("{{\"groups\":[{}]}}", vec!["\"g\""; CONNECT_GROUPS_MAX + 1].join(","));
        let large = format!("{{\"data\":\"{}\"}}", "x".repeat(TOKEN_CLAIMS_MAX_BYTES));
        for (body, problem) in [
            ("ok", "is not empty and not JSON like"),
            ("{\"user\":\"ann\"}", "unknown field `user`"),
            ("{\"groups\":[\"\"]}", "none empty"),
            (&*many, "names 101 groups: at most 100"),
            ("{\"claims\":[{\"type\":\"asrs.s.uid\",\"value\":\"eve\"}]}", "reserved"),
            ("{\"claims\":[{\"type\":\"trunkline.connect\",\"value\":\"{}\"}]}", "reserved"),
            (&*large, "larger than 2048 bytes"),
        ] {
            let told = read_grant(body.as_bytes()).unwrap_err();
            assert!(told.contains(problem), "{body}: {told}");
        }
    }

    #[test]
    fn the_text_of_a_refusal_is_the_body_or_the_message_in_it() {
        for (body, text) in [
            ("banned", Some("banned")),
            ("{\"detail\":\"banned\"}", Some("banned")),
            ("{\"message\":\"banned\",\"detail\":\"x\"}", Some("banned")),
            ("", None),
        ] {
            assert_eq!(read_refusal(body.as_bytes()).unwrap().as_deref(), text, "{body}");
        }
        assert!(read_refusal(&[0xff]).unwrap_err().contains("UTF-8"));
        assert!(read_refusal("x".repeat(1025).as_bytes()).unwrap_err().contains("1025 bytes, at most 1024"));
    }
}
