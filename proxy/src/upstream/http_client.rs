//! One request on one connection to an app server: the first step of a manifest and of a link.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use trunkline_protocol::key::AccessKeys;
use trunkline_protocol::limits::LINK_CREDENTIAL_LIFETIME_S;
use trunkline_protocol::manifest::NODE_HEADER;
use trunkline_protocol::token::LinkCredential;

use crate::config::{Address, unix_seconds};
use crate::net::connector::{Connector, root_cause};

/// An app server that accepts a connection but doesn't answer is given up after this.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum RequestError {
    #[error("can't connect to {authority}: {source}")]
    Connect {
        /// Whom it was for.
        authority: String,
        /// What the system said.
        source: io::Error,
    },
    /// A connection, but no HTTP answer.
    #[error("{authority} gives no HTTP answer: {}", root_cause(source))]
    Http {
        /// Whom it was for.
        authority: String,
        source: hyper::Error,
    },
    /// Nothing came in time.
    #[error("{authority} did not answer within {} s", ANSWER_TIMEOUT.as_secs())]
    Timeout {
        /// Whom it was for.
        authority: String,
    },
    /// The request could not be put together.
    #[error("the request can't be written: {0}")]
    Request(#[from] http::Error),
}

impl RequestError {
    /// Whether nobody listens there.
    #[must_use]
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self, Self::Connect { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused)
    }
}

/// Who asks, and by which ways.
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
        mut request: Request<Empty<Bytes>>,
    ) -> Result<Response<Incoming>, RequestError> {
        let authority = address.authority();
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_str(authority).map_err(http::Error::from)?);
        self.sign(headers)?;
        timeout(ANSWER_TIMEOUT, exchange(self.connector, address, request))
            .await
            .unwrap_or_else(|_| Err(RequestError::Timeout { authority: authority.into() }))
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

async fn exchange(
    connector: &Connector,
    address: &Address,
    request: Request<Empty<Bytes>>,
) -> Result<Response<Incoming>, RequestError> {
    let authority = address.authority();
    let refused = |source| RequestError::Connect { authority: authority.into(), source };
    let silent = |source| RequestError::Http { authority: authority.into(), source };
    let stream = connector.connect(address).await.map_err(refused)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(silent)?;
    // It ends by itself: with the answer's body, or with the socket that an upgrade hands over.
    tokio::spawn(connection.with_upgrades());
    sender.send_request(request).await.map_err(silent)
}
