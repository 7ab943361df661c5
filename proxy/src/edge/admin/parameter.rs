//! Request parameters from query and body. Unknown, duplicate, oversized and out-of-range ones are rejected by name.

use std::collections::BTreeMap;
use std::str::FromStr;

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, Uri};
use bytes::Bytes;
use serde_json::Value;
use trunkline_protocol::json_text::JsonText;

use crate::edge::observer::ApiError;

/// Maximum body of a request.
pub(super) const BODY_MAX_BYTES: usize = 4 * 1024;

/// Maximum length of the name of a hub, group, user or node.
pub(super) const NAME_MAX_CHARS: usize = 1_000;

/// Nodes covered by a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    Fleet,
    Node,
}

/// Scope of a request without other parameters.
impl<S: Sync> FromRequestParts<S> for Scope {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let mut parameters = QueryParameters::from_uri(&parts.uri)?;
        let scope = parameters.scope()?;
        parameters.refuse_rest().map(|()| scope)
    }
}

#[derive(Debug)]
pub(super) struct QueryParameters(BTreeMap<String, String>);

impl QueryParameters {
    pub(super) fn from_uri(uri: &Uri) -> Result<Self, ApiError> {
        let mut all = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            if all.insert(name.clone().into_owned(), value.into_owned()).is_some() {
                return Err(ApiError::field(&name, "is given twice"));
            }
        }
        Ok(Self(all))
    }

    pub(super) fn text(&mut self, name: &str, most_chars: usize) -> Result<Option<String>, ApiError> {
        self.0.remove(name).map(|value| checked(name, value, most_chars)).transpose()
    }

    pub(super) fn number(&mut self, name: &str, least: usize, most: usize) -> Result<Option<usize>, ApiError> {
        let Some(text) = self.0.remove(name) else { return Ok(None) };
        let number = text.parse().ok().filter(|number| (least..=most).contains(number));
        number.map(Some).ok_or_else(|| ApiError::field(name, format!("must be a number from {least} to {most}")))
    }

    /// Takes a value with its own parser; the error text is worded to follow the parameter's name.
    pub(super) fn parsed<T: FromStr<Err = &'static str>>(&mut self, name: &str) -> Result<Option<T>, ApiError> {
        let Some(text) = self.0.remove(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|problem| ApiError::field(name, problem))
    }

    /// Takes one of two words; the first is the default.
    pub(super) fn word(&mut self, name: &str, words: [&'static str; 2]) -> Result<&'static str, ApiError> {
        let [first, second] = words;
        let Some(text) = self.0.remove(name) else { return Ok(first) };
        let known = words.into_iter().find(|word| *word == text);
        known.ok_or_else(|| ApiError::field(name, format!("must be {first} or {second}")))
    }

    /// Takes the scope; the fleet by default.
    pub(super) fn scope(&mut self) -> Result<Scope, ApiError> {
        Ok(if self.word("scope", ["fleet", "node"])? == "node" { Scope::Node } else { Scope::Fleet })
    }

    /// Rejects unknown parameters: all that no handler has taken.
    pub(super) fn refuse_rest(self) -> Result<(), ApiError> {
        match self.0.into_keys().next() {
            Some(name) => Err(ApiError::field(&name, "is not a parameter here")),
            None => Ok(()),
        }
    }
}

#[derive(Debug)]
pub(super) struct BodyFields(BTreeMap<String, JsonText>);

impl BodyFields {
    /// Reads the body of a request without query parameters. `max_bytes` is for the error: the route's
    /// `DefaultBodyLimit` has the same value.
    pub(super) async fn of_order(request: Request, max_bytes: usize) -> Result<Self, ApiError> {
        let (uri, headers) = (request.uri().clone(), request.headers().clone());
        // Read before any check: the audit log shows the body of a refused request, too.
        let body = Bytes::from_request(request, &()).await;
        QueryParameters::from_uri(&uri)?.refuse_rest()?;
        let body = body.map_err(|rejection| ApiError::unread_body(&rejection, max_bytes))?;
        Self::from_body(&headers, &body)
    }

    /// Parses a body; an empty body has no fields.
    pub(super) fn from_body(headers: &HeaderMap, body: &[u8]) -> Result<Self, ApiError> {
        if !is_json(headers) {
            let text = "the body must be JSON, with Content-Type: application/json";
            return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
        }
        if body.is_empty() {
            return Ok(Self(BTreeMap::new()));
        }
        match serde_json::from_slice(body) {
            Ok(fields) => Ok(Self(fields)),
            Err(error) if error.is_data() => Err(ApiError::field("body", format!("must be a JSON object: {error}"))),
            Err(error) => Err(ApiError::field("body", format!("is not valid JSON: {error}"))),
        }
    }

    pub(super) fn text(&mut self, name: &str, most_chars: usize) -> Result<Option<String>, ApiError> {
        match self.value(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => checked(name, text, most_chars).map(Some),
            Some(_) => Err(ApiError::field(name, "must be a text")),
        }
    }

    pub(super) fn required_text(&mut self, name: &str, most_chars: usize) -> Result<String, ApiError> {
        let text = self.text(name, most_chars)?.filter(|text| !text.is_empty());
        text.ok_or_else(|| ApiError::field(name, "is missing"))
    }

    /// Takes an optional non-empty name of limited length.
    pub(super) fn name(&mut self, name: &str, most_chars: usize) -> Result<Option<String>, ApiError> {
        match self.text(name, most_chars)? {
            Some(text) if text.is_empty() => Err(ApiError::field(name, "must not be empty")),
            text => Ok(text),
        }
    }

    pub(super) fn number(&mut self, name: &str, least: u64, most: u64) -> Result<Option<u64>, ApiError> {
        let Some(value) = self.value(name).filter(|value| !value.is_null()) else { return Ok(None) };
        let number = value.as_u64().filter(|number| (least..=most).contains(number));
        number.map(Some).ok_or_else(|| ApiError::field(name, format!("must be a number from {least} to {most}")))
    }

    /// Takes a boolean; `false` if missing.
    pub(super) fn flag(&mut self, name: &str) -> Result<bool, ApiError> {
        match self.value(name) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(value)) => Ok(value),
            Some(_) => Err(ApiError::field(name, "must be true or false")),
        }
    }

    pub(super) fn list(&mut self, name: &str, most: usize) -> Result<Option<Vec<JsonText>>, ApiError> {
        let Some(list) = self.0.remove(name) else { return Ok(None) };
        match list.items() {
            Some(items) if items.len() > most => {
                let count = items.len();
                Err(ApiError::field(name, format!("has {count} items, but at most {most} are allowed")))
            }
            Some(items) => Ok(Some(items)),
            None => Err(ApiError::field(name, "must be a list")),
        }
    }

    fn value(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).map(JsonText::into_value)
    }

    /// Rejects unknown fields: all that no handler has taken.
    pub(super) fn refuse_rest(self) -> Result<(), ApiError> {
        match self.0.into_iter().next() {
            Some((name, _)) => Err(ApiError::field(&name, "is not a field here")),
            None => Ok(()),
        }
    }
}

fn checked(name: &str, text: String, most_chars: usize) -> Result<String, ApiError> {
    let chars = text.chars().count();
    if chars > most_chars {
        return Err(ApiError::field(name, format!("has {chars} characters, but at most {most_chars} are allowed")));
    }
    Ok(text)
}

/// Whether a body is declared as JSON, which a cross-site form can't do.
fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use axum::body::Body;
    use http_body_util::{BodyExt, Full};

    use super::*;

    #[tokio::test]
    async fn the_body_of_an_order_with_an_unknown_parameter_is_read_before_the_refusal() {
        let is_read = Arc::new(AtomicBool::new(false));
        let read = is_read.clone();
        let body = Full::new(Bytes::from_static(b"{}")).inspect_frame(move |_| read.store(true, Ordering::Relaxed));
        let request = Request::post("/?scop=node").header(CONTENT_TYPE, "application/json").body(Body::new(body));
        let refused = BodyFields::of_order(request.unwrap(), 100).await.err().unwrap();
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
        assert!(is_read.load(Ordering::Relaxed), "the audit log shows what was ordered");
    }

    fn query(text: &'static str) -> Result<QueryParameters, ApiError> {
        QueryParameters::from_uri(&Uri::from_static(text))
    }

    fn body(kind: &'static str, text: &str) -> Result<BodyFields, u16> {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, kind.parse().unwrap())]);
        BodyFields::from_body(&headers, text.as_bytes()).map_err(|error| error.status().as_u16())
    }

    #[test]
    fn a_query_gives_its_parameters_once() {
        let mut parameters = query("/?limit=5&hub=a%20b&scope=node").unwrap();
        assert_eq!(parameters.scope().unwrap(), Scope::Node);
        assert_eq!(parameters.text("hub", 10).unwrap().as_deref(), Some("a b"));
        assert_eq!(parameters.number("limit", 1, 5).unwrap(), Some(5));
        assert_eq!(parameters.word("payloads", ["hidden", "shown"]).unwrap(), "hidden");
        parameters.refuse_rest().unwrap();
        assert!(query("/?a=1&a=2").is_err());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(query("/?hub=abc").unwrap().text("hub", 2).is_err());
        assert!(query("/?limit=6").unwrap().number("limit", 1, 5).is_err());
        assert!(query("/?scope=all").unwrap().scope().is_err());
        assert!(query("/?other=1").unwrap().refuse_rest().is_err());
    }

    #[test]
    fn a_body_is_an_object_in_json_or_nothing() {
        let mut fields = body("application/json; charset=utf-8", r#"{"reason":"tidy","other":null}"#).unwrap();
        assert_eq!(fields.text("reason", 10).unwrap().as_deref(), Some("tidy"));
        assert_eq!(fields.text("other", 10).unwrap(), None);
        fields.refuse_rest().unwrap();
        body("application/json", "").unwrap().refuse_rest().unwrap();
        assert_eq!(body("text/plain", "{}").unwrap_err(), 415);
        assert_eq!(body("application/json", "[]").unwrap_err(), 400);
        assert!(body("application/json", r#"{"x":1}"#).unwrap().refuse_rest().is_err());
    }
}
