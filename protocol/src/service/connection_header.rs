//! Headers that both ends add to frames that open and close a client connection.

use bytestring::ByteString;

use super::service_message::{CloseConnection, OpenConnection};
use crate::cause::Cause;
use crate::wire::{
    CAUSE_HEADER, ENDED_ERROR_HEADER, ENDED_HEADER, IF_IDLE_HEADER, ITEMS_HEADER, MIGRATE_FROM_HEADER,
    MIGRATE_TO_HEADER, REMOTE_HEADER,
};

/// Headers of a frame in order, each name with all its values.
pub type HeaderList = Vec<(ByteString, Vec<ByteString>)>;

/// Returns the first value of a header, ignoring case.
#[must_use]
pub fn header<'a>(headers: &'a [(ByteString, Vec<ByteString>)], wanted: &str) -> Option<&'a ByteString> {
    values(headers, wanted)?.first()
}

/// Creates a header with one value.
#[must_use]
pub fn header_of(name: &'static str, value: impl Into<ByteString>) -> (ByteString, Vec<ByteString>) {
    (ByteString::from_static(name), vec![value.into()])
}

/// Headers of an [`OpenConnection`] that describe the origin of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenHeaders<'a> {
    /// Previous app server of the connection, which is therefore already open.
    pub previous_home: Option<&'a str>,
    /// Items handed over with the connection.
    pub items: Option<&'a ByteString>,
    /// Cause of the end, if the frame only reports that a connection has ended at its previous app server.
    pub ended: Option<Cause>,
    /// Error of that end, if any.
    pub ended_error: Option<&'a ByteString>,
    /// Client address and port.
    pub remote: Option<&'a ByteString>,
}

/// Headers of a [`CloseConnection`] that give its reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloseHeaders<'a> {
    /// App server at which the connection continues. An empty name requests or performs a handover.
    pub next_home: Option<&'a str>,
    /// Whether the connection is wanted only if no call is running.
    pub is_if_idle: bool,
    /// Items handed over with the connection.
    pub items: Option<&'a ByteString>,
    /// Cause of the end, if given and known.
    pub cause: Option<Cause>,
}

impl OpenConnection {
    /// Reads the headers about the connection's origin.
    #[must_use]
    pub fn origin(&self) -> OpenHeaders<'_> {
        let headers = &*self.headers;
        let ended = text(headers, ENDED_HEADER);
        OpenHeaders {
            previous_home: text(headers, MIGRATE_FROM_HEADER),
            items: header(headers, ITEMS_HEADER),
            ended: ended.map(|label| Cause::from_label(label).unwrap_or(Cause::Unnamed)),
            ended_error: header(headers, ENDED_ERROR_HEADER),
            remote: header(headers, REMOTE_HEADER),
        }
    }
}

impl CloseConnection {
    /// Reads the headers about the reason.
    #[must_use]
    pub fn reason(&self) -> CloseHeaders<'_> {
        let headers = &*self.headers;
        CloseHeaders {
            next_home: text(headers, MIGRATE_TO_HEADER),
            is_if_idle: values(headers, IF_IDLE_HEADER).is_some(),
            items: header(headers, ITEMS_HEADER),
            cause: header(headers, CAUSE_HEADER).and_then(|label| Cause::from_label(label)),
        }
    }

    /// Whether the connection continues at another app server, so that it has not ended.
    #[must_use]
    pub fn is_reassignment(&self) -> bool {
        values(&self.headers, MIGRATE_TO_HEADER).is_some()
    }
}

fn values<'a>(headers: &'a [(ByteString, Vec<ByteString>)], wanted: &str) -> Option<&'a Vec<ByteString>> {
    headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, values)| values)
}

/// First value of a header; empty if the header has no values.
fn text<'a>(headers: &'a [(ByteString, Vec<ByteString>)], wanted: &str) -> Option<&'a str> {
    values(headers, wanted).map(|values| values.first().map_or("", |value| value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_found_in_any_case() {
        let headers = vec![("asrs-MIGRATE-to".into(), vec![]), ("X-Trunkline-Cause".into(), vec!["app_closed".into()])];
        let close = CloseConnection { headers, ..CloseConnection::default() };
        let reason = close.reason();
        assert_eq!((reason.next_home, reason.cause, reason.is_if_idle), (Some(""), Some(Cause::AppClosed), false));
        assert!(close.is_reassignment() && reason.items.is_none());
        assert!(!CloseConnection::default().is_reassignment());
    }

    #[test]
    fn an_opening_frame_has_the_origin_of_its_connection() {
        let headers = vec![
            header_of(MIGRATE_FROM_HEADER, "app-1"),
            header_of(ENDED_HEADER, "a cause of a later version"),
            header_of(ITEMS_HEADER, "items"),
        ];
        let open = OpenConnection { headers, ..OpenConnection::default() };
        let origin = open.origin();
        assert_eq!((origin.previous_home, origin.ended), (Some("app-1"), Some(Cause::Unnamed)));
        assert_eq!(origin.items.map(|items| &**items), Some("items"));
    }
}
