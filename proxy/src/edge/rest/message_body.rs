//! Body of a message to clients: target and arguments in JSON, or pre-encoded for each hub protocol.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use serde_json::Value;
use trunkline_protocol::hub::{Completion, HubMessage, HubProtocol, Outcome, PayloadError, StreamItem, whole_messages};
use trunkline_protocol::json_text::JsonText;
use trunkline_protocol::service::Payloads;

use super::rest_error::RestError;

/// Maximum length of a client method name, in characters.
const TARGET_MAX_CHARS: usize = 1024;

/// Maximum number of hub protocols in a body.
const PROTOCOLS_MAX: usize = 8;

/// Media type of a pre-encoded body.
const ENCODED: &str = "application/octet-stream";

/// Members of a call, for errors.
pub(super) const CALL_MEMBERS: &str = "target, arguments";

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ClientCall {
    target: String,
    arguments: Vec<JsonText>,
}

impl ClientCall {
    /// Parses `{"target": "Say", "arguments": [1]}`. Member names are case-insensitive, as in Azure's SDK. Fails if the
    /// body has another form; the text names the member.
    pub(crate) fn from_body(body: &[u8]) -> Result<Self, RestError> {
        let members: BTreeMap<String, JsonText> = serde_json::from_slice(body).map_err(|error| {
            RestError::bad_value(
                "body",
                format!("is not JSON like {{\"target\": \"Say\", \"arguments\": []}}: {error}"),
            )
        })?;
        Self::from_members(members, CALL_MEMBERS)
    }

    pub(crate) fn from_members(members: BTreeMap<String, JsonText>, allowed: &str) -> Result<Self, RestError> {
        let (mut target, mut arguments) = (None, None);
        for (name, value) in members {
            match name.to_ascii_lowercase().as_str() {
                "target" => target = Some(value),
                "arguments" => arguments = Some(value),
                // A misspelt member would be missing.
                _ => return Err(RestError::unknown_member(&name, allowed)),
            }
        }
        let target = match target.map(JsonText::into_value) {
            Some(Value::String(target)) if (1..=TARGET_MAX_CHARS).contains(&target.chars().count()) => target,
            Some(Value::String(_)) => {
                return Err(RestError::bad_value("target", format!("must have 1 to {TARGET_MAX_CHARS} characters")));
            }
            _ => return Err(RestError::bad_value("target", "is missing: the name of the method to call at clients")),
        };
        let arguments = match arguments {
            Some(arguments) if arguments.value().is_null() => Vec::new(),
            Some(arguments) => arguments.items().ok_or_else(|| RestError::bad_value("arguments", "must be a list"))?,
            None => {
                let problem = "are missing: a list, which is [] for a method without parameters";
                return Err(RestError::bad_value("arguments", problem));
            }
        };
        Ok(Self { target, arguments })
    }

    /// Encodes the call once per hub protocol; with an id, clients must answer. Fails if a protocol can't encode an
    /// argument.
    pub(crate) fn payloads(&self, invocation_id: Option<&str>) -> Result<Payloads, RestError> {
        let payloads = Payloads::invocation(invocation_id, &self.target, &self.arguments);
        payloads.map_err(|error| RestError::bad_value("arguments", format!("can't be written: {error}")))
    }
}

/// Parses a stream item and encodes it once per hub protocol.
pub(crate) fn read_item(headers: &HeaderMap, body: &[u8], stream: &str) -> Result<Payloads, RestError> {
    is_json(headers)?;
    let item: JsonText = serde_json::from_slice(body)
        .map_err(|error| RestError::bad_value("body", format!("is not a stream item in JSON: {error}")))?;
    let message = |protocol: HubProtocol| {
        let item = protocol.payload(&item)?;
        Ok(HubMessage::StreamItem(StreamItem { headers: Vec::new(), invocation_id: stream.into(), item }))
    };
    let unwritable =
        |error: PayloadError| RestError::bad_value("body", format!("contains a value that can't be encoded: {error}"));
    Payloads::encode(message).map_err(unwritable)
}

/// Encodes the end of a stream once per hub protocol. Fails only if encoding does, which no text can cause.
pub(crate) fn end_of_stream(stream: &str, error: Option<String>) -> Result<Payloads, RestError> {
    let outcome = error.map_or(Outcome::Void, |error| Outcome::Error(error.into()));
    let completion = Completion { headers: Vec::new(), invocation_id: stream.into(), outcome };
    let payloads = Payloads::encode(|_| Ok(HubMessage::Completion(completion.clone())));
    payloads.map_err(|error| RestError::bad_value("reason", format!("can't be written: {error}")))
}

pub(crate) fn read_message(headers: &HeaderMap, body: &Bytes) -> Result<Payloads, RestError> {
    is_plain(headers)?;
    if media_type(headers).eq_ignore_ascii_case(ENCODED) {
        return read_encoded(body);
    }
    is_json(headers)?;
    ClientCall::from_body(body)?.payloads(None)
}

/// Fails if a body is declared as another type than JSON.
pub(crate) fn is_json(headers: &HeaderMap) -> Result<(), RestError> {
    is_plain(headers)?;
    let media_type = media_type(headers);
    if media_type.is_empty() || media_type.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let text = format!("the body has to be application/json, or {ENCODED} with a MessagePack map of hub protocols");
    Err(RestError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Error.Request.Invalid", text))
}

/// Fails if a body is declared as compressed.
fn is_plain(headers: &HeaderMap) -> Result<(), RestError> {
    if headers.get_all(CONTENT_ENCODING).iter().all(|encoding| encoding == "identity") {
        return Ok(());
    }
    let text = "the body has to come without compression, and so without Content-Encoding";
    Err(RestError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Error.Request.Invalid", text))
}

fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

fn read_encoded(body: &Bytes) -> Result<Payloads, RestError> {
    let payloads = Payloads::from_message_pack(body, PROTOCOLS_MAX)
        .map_err(|error| RestError::bad_value("body", format!("is {error}")))?;
    for (name, message) in &payloads.0 {
        // An unterminated message would merge with each client's next one.
        let is_whole = HubProtocol::from_name(name).is_none_or(|protocol| is_one_message(protocol, message));
        if !is_whole {
            return Err(RestError::bad_value(
                "body",
                format!("does not contain exactly one framed message for {name}"),
            ));
        }
    }
    Ok(payloads)
}

fn is_one_message(protocol: HubProtocol, message: &[u8]) -> bool {
    whole_messages(protocol, message).next().is_some_and(|first| first.whole.len() == message.len())
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, BytesMut};
    use serde_json::json;

    use super::*;

    fn headers(media_type: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_TYPE, media_type.parse().unwrap())])
    }

    fn text(payloads: &Payloads) -> String {
        String::from_utf8(payloads.get(HubProtocol::Json).unwrap().to_vec()).unwrap()
    }

    #[test]
    fn members_are_read_without_regard_to_case_and_encoded_for_each_protocol() {
        let expected = "{\"type\":1,\"target\":\"Say\",\"arguments\":[\"a\",1,null]}\u{1e}";
        for body in [r#"{"Target":"Say","Arguments":["a",1,null]}"#, r#"{"arguments":["a",1,null],"target":"Say"}"#] {
            let payloads = read_message(&headers("application/json; charset=utf-8"), &Bytes::from(body)).unwrap();
            assert_eq!(text(&payloads), expected);
            assert!(payloads.get(HubProtocol::MessagePack).unwrap().len() > 5);
        }
        let plain = read_message(&HeaderMap::new(), &Bytes::from(r#"{"target":"Say","arguments":null}"#)).unwrap();
        assert_eq!(text(&plain), "{\"type\":1,\"target\":\"Say\",\"arguments\":[]}\u{1e}");
    }

    #[test]
    fn numbers_keep_their_digits_and_their_form() {
        for number in ["123456789012345.123456", "79228162514264337593543950335", "9007199254740993", "1e5", "-0"] {
            let body = Bytes::from(format!("{{\"target\":\"Say\",\"arguments\":[{number},{{\"a\":[{number}]}}]}}"));
            let expected =
                format!("{{\"type\":1,\"target\":\"Say\",\"arguments\":[{number},{{\"a\":[{number}]}}]}}\u{1e}");
            assert_eq!(text(&read_message(&HeaderMap::new(), &body).unwrap()), expected);
            let item = read_item(&HeaderMap::new(), number.as_bytes(), "s").unwrap();
            let expected = format!("{{\"type\":2,\"invocationId\":\"s\",\"item\":{number}}}\u{1e}");
            assert_eq!(text(&item), expected);
        }
    }

    #[test]
    fn what_is_wrong_with_a_body_is_named() {
        let long = json!({ "target": "x".repeat(TARGET_MAX_CHARS + 1) }).to_string();
        for (body, problem) in [
            ("", "the body is not JSON"),
            ("[1]", "the body is not JSON"),
            ("{}", "the target is missing"),
            (r#"{"target":7}"#, "the target is missing"),
            (r#"{"target":""}"#, "1 to 1024"),
            (&long, "1 to 1024"),
            (r#"{"target":"Say","arguments":{}}"#, "the arguments must be a list"),
            (r#"{"target":"Say"}"#, "the arguments are missing"),
            (r#"{"target":"Say","argumnets":[1]}"#, "the body has an unknown member \"argumnets\""),
        ] {
            let told =
                read_message(&HeaderMap::new(), &Bytes::copy_from_slice(body.as_bytes())).unwrap_err().to_string();
            assert!(told.starts_with(problem) || told.contains(problem), "{body}: {told}");
        }
        let deep = "[".repeat(200_000);
        assert!(read_message(&HeaderMap::new(), &Bytes::from(deep)).is_err());
        let form = read_message(&headers("text/plain"), &Bytes::new()).unwrap_err();
        assert_eq!(form.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }

    #[test]
    fn a_compressed_body_is_refused_by_name() {
        for media_type in ["application/json", ENCODED] {
            let mut headers = headers(media_type);
            headers.insert(CONTENT_ENCODING, "gzip".parse().unwrap());
            let refused = read_message(&headers, &Bytes::from_static(b"\x1f\x8b")).unwrap_err();
            assert_eq!(refused.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
            assert!(refused.to_string().contains("Content-Encoding"), "{refused}");
        }
        let mut plain = headers("application/json");
        plain.insert(CONTENT_ENCODING, "identity".parse().unwrap());
        read_message(&plain, &Bytes::from_static(b"{\"target\":\"Said\",\"arguments\":[]}")).unwrap();
    }

    #[test]
    fn an_encoded_body_holds_whole_messages() {
        let encoded = |message: &[u8]| {
            let mut body = BytesMut::from(&[0x81, 0xa4][..]);
            body.extend_from_slice(b"json");
            body.extend_from_slice(&[0xc4, u8::try_from(message.len()).unwrap()]);
            body.put_slice(message);
            read_message(&headers(ENCODED), &body.freeze())
        };
        assert_eq!(text(&encoded(b"{\"type\":6}\x1e").unwrap()), "{\"type\":6}\u{1e}");
        for broken in [&b"{\"type\":6}"[..], b"{\"type\":6}\x1e{\"type\":6}\x1e", b""] {
            assert!(encoded(broken).unwrap_err().to_string().contains("one framed message for json"));
        }
        assert!(read_message(&headers(ENCODED), &Bytes::from_static(b"\xc1")).is_err());
    }
}
