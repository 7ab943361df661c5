//! Headers that both ends add to the frames which open and close a client connection.

use bytestring::ByteString;

use super::service_message::{CloseConnection, OpenConnection};
use crate::cause::Cause;
use crate::wire::{
    CAUSE_HEADER, ENDED_ERROR_HEADER, ENDED_HEADER, IF_IDLE_HEADER, ITEMS_HEADER, MIGRATE_FROM_HEADER,
    MIGRATE_TO_HEADER, REMOTE_HEADER, RESTORES_HEADER,
};

/// Headers of a frame in their order, each name with all its values.
pub type HeaderList = Vec<(ByteString, Vec<ByteString>)>;

/// Returns the first value of a header, whatever the case of its name.
#[must_use]
pub fn header<'a>(headers: &'a [(ByteString, Vec<ByteString>)], wanted: &str) -> Option<&'a ByteString> {
    values(headers, wanted)?.first()
}

/// Makes a header with one value.
#[must_use]
pub fn header_of(name: &'static str, value: impl Into<ByteString>) -> (ByteString, Vec<ByteString>) {
    (ByteString::from_static(name), vec![value.into()])
}

/// Headers of an [`OpenConnection`] that say where its connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenHeaders<'a> {
    /// App server that had the connection, which so is open already.
    pub previous_home: Option<&'a str>,
    /// Items that were handed over with the connection.
    pub items: Option<&'a ByteString>,
    /// End of the connection, which was another app server's: the frame only reports it.
    pub ended: Option<Cause>,
    /// Error of that end, if it was one.
    pub ended_error: Option<&'a ByteString>,
    /// Lost connection whose groups and items this one gets.
    pub restores: Option<&'a str>,
    /// Address and port of the client.
    pub remote: Option<&'a ByteString>,
}

/// Headers of a [`CloseConnection`] that say why it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloseHeaders<'a> {
    /// App server at which the connection goes on; an empty name asks to hand it over, or does.
    pub next_home: Option<&'a str>,
    /// Whether the connection is wanted only if nothing of it runs.
    pub is_if_idle: bool,
    /// Items that are handed over with the connection.
    pub items: Option<&'a ByteString>,
    /// Cause of the end, if it is named and known here.
    pub cause: Option<Cause>,
}

impl OpenConnection {
    /// Reads the headers that say where the connection comes from.
    #[must_use]
    pub fn origin(&self) -> OpenHeaders<'_> {
        let headers = &*self.headers;
        let ended = text(headers, ENDED_HEADER);
        OpenHeaders {
            previous_home: text(headers, MIGRATE_FROM_HEADER),
            items: header(headers, ITEMS_HEADER),
            ended: ended.map(|label| Cause::from_label(label).unwrap_or(Cause::Unnamed)),
            ended_error: header(headers, ENDED_ERROR_HEADER),
            restores: text(headers, RESTORES_HEADER),
            remote: header(headers, REMOTE_HEADER),
        }
    }
}

impl CloseConnection {
    /// Reads the headers that say why the frame is sent.
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

    /// Whether the connection goes on at another app server, and so has not ended.
    #[must_use]
    pub fn is_reassignment(&self) -> bool {
        values(&self.headers, MIGRATE_TO_HEADER).is_some()
    }
}

fn values<'a>(headers: &'a [(ByteString, Vec<ByteString>)], wanted: &str) -> Option<&'a Vec<ByteString>> {
    headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, values)| values)
}

/// First value of a header that is there; empty if it has none.
fn text<'a>(headers: &'a [(ByteString, Vec<ByteString>)], wanted: &str) -> Option<&'a str> {
    values(headers, wanted).map(|values| values.first().map_or("", |value| value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_found_whatever_the_case_of_their_names() {
        let headers = vec![("asrs-MIGRATE-to".into(), vec![]), ("X-Trunkline-Cause".into(), vec!["app_closed".into()])];
        let close = CloseConnection { headers, ..CloseConnection::default() };
        let reason = close.reason();
        assert_eq!((reason.next_home, reason.cause, reason.is_if_idle), (Some(""), Some(Cause::AppClosed), false));
        assert!(close.is_reassignment() && reason.items.is_none());
        assert!(!CloseConnection::default().is_reassignment());
    }

    #[test]
    fn an_opening_frame_says_where_its_connection_comes_from() {
        let headers = vec![
            header_of(MIGRATE_FROM_HEADER, "app-1"),
            header_of(ENDED_HEADER, "a cause of a later version"),
            header_of(ITEMS_HEADER, "items"),
        ];
        let open = OpenConnection { headers, ..OpenConnection::default() };
        let origin = open.origin();
        assert_eq!((origin.previous_home, origin.ended), (Some("app-1"), Some(Cause::Unnamed)));
        assert_eq!((origin.items.map(|items| &**items), origin.restores), (Some("items"), None));
    }
}
