//! Hub messages as JSON texts, and service messages that many tests use.

use bytestring::ByteString;
use trunkline_protocol::manifest::{ITEMS_HEADER, MIGRATE_TO_HEADER};
use trunkline_protocol::service::*;

/// Call that expects a response.
pub(super) fn call(id: &str, target: &str) -> String {
    format!("{{\"type\":1,\"invocationId\":\"{id}\",\"target\":\"{target}\",\"arguments\":[]}}\u{1e}")
}

/// Call without a response.
pub(super) fn cast(target: &str) -> String {
    format!("{{\"type\":1,\"target\":\"{target}\",\"arguments\":[]}}\u{1e}")
}

pub(super) fn result(id: &str, value: &str) -> String {
    format!("{{\"type\":3,\"invocationId\":\"{id}\",\"result\":{value}}}\u{1e}")
}

/// Message as received by a client, without its record separator.
pub(super) fn received(message: &str) -> String {
    message.trim_end_matches('\u{1e}').to_owned()
}

pub(super) fn header<'a>(headers: &'a [(ByteString, Vec<ByteString>)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).and_then(|(_, values)| values.first()).map(|v| &**v)
}

/// Flow control of a client, or of the app server if the id is empty.
pub(super) fn flow(id: &str, operation: FlowOperation) -> ServiceMessage {
    let subject = if id.is_empty() { FlowSubject::Server } else { FlowSubject::Client };
    ServiceMessage::ConnectionFlowControl(ConnectionFlowControl { connection_id: id.into(), subject, operation })
}

/// Goodbye of a stopping app server.
pub(super) fn stopping() -> ServiceMessage {
    flow("", FlowOperation::Offline)
}

/// App server's request to continue a connection at another app server, with these items.
pub(super) fn handed_over(id: &str, items: Option<&str>) -> ServiceMessage {
    let mut headers = vec![(MIGRATE_TO_HEADER.into(), vec!["".into()])];
    headers.extend(items.map(|items| (ITEMS_HEADER.into(), vec![items.into()])));
    ServiceMessage::CloseConnection(CloseConnection { connection_id: id.into(), error: None, headers })
}
