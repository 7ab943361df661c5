//! Route of connections and requests: conditions that all have to hold, and what happens then.

use std::net::IpAddr;
use std::sync::Arc;

use bytestring::ByteString;
use http::StatusCode;

/// Facts about a client connection, or a request, that routes judge it by.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RouteFacts<'a> {
    /// Path of the hub, with its leading slash; `None` for a request that is passed through.
    pub hub: Option<&'a str>,
    /// Path of the request; of a connection that of its hub.
    pub path: &'a str,
    /// Query of the request, with or without its question mark.
    pub query: Option<&'a str>,
    pub headers: &'a [(ByteString, Vec<ByteString>)],
    pub claims: &'a [(ByteString, ByteString)],
    pub user: Option<&'a str>,
    pub address: Option<IpAddr>,
    /// `None` before there is a connection.
    pub connection_id: Option<&'a str>,
}

/// Refusal of a connection or request by a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub status: StatusCode,
    /// Text of the answer, and its content type.
    pub body: Arc<str>,
    pub content_type: &'static str,
}

/// Action of a route whose conditions hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RouteAction {
    /// The app servers of this group take it.
    Group(Arc<str>),
    Reject(Rejection),
    /// It is counted, and the next rules are tried.
    Next,
}

/// Route of connections and requests.
#[derive(Debug, Clone)]
pub(crate) struct RouteRule {
    /// Name in metrics, logs and on the observer page.
    pub label: Arc<str>,
    pub action: RouteAction,
}
