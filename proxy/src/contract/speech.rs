//! Hub messages as JSON texts, and the service messages that tests build or read again and again.

use bytestring::ByteString;
use trunkline_protocol::manifest::{ITEMS_HEADER, MIGRATE_TO_HEADER};
use trunkline_protocol::service::*;

/// A call whose client waits for an answer.
pub(super) fn call(id: &str, target: &str) -> String {
    format!("{{\"type\":1,\"invocationId\":\"{id}\",\"target\":\"{target}\",\"arguments\":[]}}\u{1e}")
}

/// A call whose client waits for nothing.
pub(super) fn cast(target: &str) -> String {
    format!("{{\"type\":1,\"target\":\"{target}\",\"arguments\":[]}}\u{1e}")
}

/// A value as the answer to a call.
pub(super) fn result(id: &str, value: &str) -> String {
    format!("{{\"type\":3,\"invocationId\":\"{id}\",\"result\":{value}}}\u{1e}")
}

/// A message as a client receives it: without its end.
pub(super) fn received(message: &str) -> String {
    message.trim_end_matches('\u{1e}').to_owned()
}

/// The first value of a header.
pub(super) fn header<'a>(headers: &'a [(ByteString, Vec<ByteString>)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).and_then(|(_, values)| values.first()).map(|v| &**v)
}

/// Flow control of a client; of the app server if there is no id.
pub(super) fn flow(id: &str, operation: FlowOperation) -> ServiceMessage {
    let subject = if id.is_empty() { FlowSubject::Server } else { FlowSubject::Client };
    ServiceMessage::ConnectionFlowControl(ConnectionFlowControl { connection_id: id.into(), subject, operation })
}

/// The goodbye of an app server that stops.
pub(super) fn stopping() -> ServiceMessage {
    flow("", FlowOperation::Offline)
}

/// An app server's word that a connection is to go on at another one, with these items.
pub(super) fn handed_over(id: &str, items: Option<&str>) -> ServiceMessage {
    let mut headers = vec![(MIGRATE_TO_HEADER.into(), vec!["".into()])];
    headers.extend(items.map(|items| (ITEMS_HEADER.into(), vec![items.into()])));
    ServiceMessage::CloseConnection(CloseConnection { connection_id: id.into(), error: None, headers })
}
