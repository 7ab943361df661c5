//! Signed requests to an app server, each on a fresh connection: the first step of a manifest and of a link.

use std::io;
use std::time::Duration;

use axum::body::Body;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::body::Incoming;
use trunkline_protocol::key::AccessKeys;
use trunkline_protocol::limits::LINK_CREDENTIAL_LIFETIME_S;
use trunkline_protocol::manifest::NODE_HEADER;
use trunkline_protocol::token::LinkCredential;

use crate::clock::unix_seconds;
use crate::net::address::Address;
use crate::net::connector::Connector;
use crate::net::http_client::{HttpClient, HttpError, within};

/// An app server that accepts a connection but doesn't answer is given up after this.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Why an app server gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("can't connect to {authority}: {source}")]
    Connect { authority: String, source: io::Error },
    #[error("{authority} gives no HTTP answer: {source}")]
    Http { authority: String, source: HttpError },
    #[error("{authority} did not answer within {} s", ANSWER_TIMEOUT.as_secs())]
    Timeout { authority: String },
    #[error("the request can't be written: {0}")]
    Request(#[from] http::Error),
}

impl RequestError {
    fn new(authority: &str, error: HttpError) -> Self {
        let authority = authority.to_owned();
        match error {
            HttpError::Request(error) => Self::Request(error),
            HttpError::Connect(source) => Self::Connect { authority, source },
            HttpError::Timeout(_) => Self::Timeout { authority },
            source => Self::Http { authority, source },
        }
    }

    /// Whether nobody listens there.
    #[must_use]
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self, Self::Connect { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused)
    }
}

/// This node as app servers see it: its name, its keys, and how it connects.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller<'a> {
    /// The name of this node.
    pub node: &'a str,
    pub keys: &'a AccessKeys,
    pub connector: &'a Connector,
}

impl Caller<'_> {
    /// Sends a request over a fresh connection, with the headers that show who we are.
    ///
    /// # Errors
    /// When the app server can't be reached or doesn't answer.
    pub(super) async fn send(
        self,
        address: &Address,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, RequestError> {
        let authority = address.authority();
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_str(authority).map_err(http::Error::from)?);
        self.sign(headers)?;
        let client = HttpClient::without_pool(self.connector.clone());
        let answer = within(ANSWER_TIMEOUT, client.send(address, request)).await;
        answer.map_err(|error| RequestError::new(authority, error))
    }

    /// Writes the headers that show that a node of the fleet asks, and which.
    pub(super) fn sign(self, headers: &mut HeaderMap) -> Result<(), http::Error> {
        let credential =
            LinkCredential { node: self.node.into(), expires: unix_seconds() + LINK_CREDENTIAL_LIFETIME_S };
        let bearer = format!("Bearer {}", credential.seal(self.keys));
        headers.insert(AUTHORIZATION, HeaderValue::from_str(&bearer)?);
        headers.insert(NODE_HEADER, HeaderValue::from_str(self.node)?);
        Ok(())
    }
}
