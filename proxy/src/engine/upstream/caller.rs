//! Requests to an app server through a channel, each on a new connection: the first step of a manifest and of a link.

use std::io;
use std::time::Duration;

use axum::body::Body;
use http::header::{HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::body::Incoming;
use trunkline_channel::{OpenChannelError, RefusedUpgrade};
use trunkline_protocol::manifest::NODE_HEADER;
use trunkline_protocol::wire::AGENT;

use crate::ground::net::address::Address;
use crate::ground::net::connector::Connector;
use crate::ground::net::http_exchange::{HttpError, open, to_origin_form, within};

/// Timeout for a response after the connection was accepted.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("can't connect to {authority}: {source}")]
    Connect { authority: String, source: io::Error },
    #[error("{authority} gave no HTTP response: {source}")]
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

    /// Response of a peer that refused the channel, if that is the cause.
    pub(crate) fn refused_channel(&self) -> Option<&RefusedUpgrade> {
        let Self::Connect { source, .. } = self else { return None };
        match source.get_ref()?.downcast_ref()? {
            OpenChannelError::Refused(refused) => Some(refused),
            _ => None,
        }
    }

    pub(crate) fn is_refused(&self) -> bool {
        matches!(self, Self::Connect { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused)
    }
}

/// This node as seen by app servers: its name and connector.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller<'a> {
    pub node: &'a str,
    /// Connector with channels to app servers of this fleet.
    pub connector: &'a Connector,
}

impl Caller<'_> {
    /// Sends a request over a new connection, with a header naming this node. Fails if the app server is unreachable,
    /// does not belong to this fleet, or does not respond.
    pub(crate) async fn send(
        self,
        address: &Address,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, RequestError> {
        let authority = address.authority();
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_str(authority).map_err(http::Error::from)?);
        self.introduce(headers)?;
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        let exchange = async {
            to_origin_form(address, &mut request)?;
            let stream = Box::pin(self.connector.connect(address)).await.map_err(HttpError::Connect)?;
            open(stream).await?.send_request(request).await.map_err(HttpError::Broken)
        };
        within(ANSWER_TIMEOUT, exchange).await.map_err(|error| RequestError::new(authority, error))
    }

    /// Adds the header that names this node.
    pub(crate) fn introduce(self, headers: &mut HeaderMap) -> Result<(), http::Error> {
        headers.insert(NODE_HEADER, HeaderValue::from_str(self.node)?);
        Ok(())
    }
}
