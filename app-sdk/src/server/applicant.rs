//! Negotiating client as seen by the policies of its hub: its request, and the user to admit it as.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::AUTHORIZATION;
use trunkline_protocol::access_token::User as TokenUser;
use trunkline_protocol::negotiate::Decision;
use trunkline_protocol::service::OpenConnection;
use trunkline_protocol::wire::{
    ACCESS_TOKEN_PARAMETER, FORWARDED_FOR_HEADER, PRIVATE_CLAIM_PREFIX, PRIVATE_HEADER_PREFIX, REMOTE_HEADER,
    USER_ID_CLAIM, bearer,
};

use crate::connection::forwarded_for;
use crate::dispatch::Dispatcher;

#[derive(Debug)]
pub(super) struct Applicant {
    request: OpenConnection,
    /// User of its access token; `None` without a valid token.
    verified: Option<TokenUser>,
    shows_token: bool,
}

impl Applicant {
    /// Reads a request to the app's own port, possibly through load balancers. A client may forge the forwarding
    /// header; the service later reports the real address.
    pub(super) fn of_own_port(peer: Option<SocketAddr>, request: &Request, verified: Option<TokenUser>) -> Self {
        let forwarded = request.headers().get(FORWARDED_FOR_HEADER).and_then(|list| forwarded_for(list.to_str().ok()?));
        Self::at(forwarded.or(peer), request, verified)
    }

    /// Reads a request from a client at this address. The access token (if any) has been verified.
    pub(super) fn at(remote: Option<SocketAddr>, request: &Request, verified: Option<TokenUser>) -> Self {
        let query = request.uri().query().unwrap_or_default();
        let in_header = request.headers().get(AUTHORIZATION).and_then(|value| bearer(value.to_str().ok()?)).is_some();
        let in_query = form_urlencoded::parse(query.as_bytes()).any(|(name, _)| name == ACCESS_TOKEN_PARAMETER);
        let text = |value: &http::HeaderValue| value.to_str().map(|text| vec![text.into()]).ok();
        // Only proxies may set private headers.
        let shown = request.headers().iter().filter(|(name, _)| !name.as_str().starts_with(PRIVATE_HEADER_PREFIX));
        let headers = shown.filter_map(|(name, value)| Some((name.as_str().into(), text(value)?)));
        let remote = remote.map(|address| (REMOTE_HEADER.into(), vec![address.to_string().into()]));
        let request = OpenConnection {
            headers: headers.chain(remote).collect(),
            query: Some(query.into()),
            ..OpenConnection::default()
        };
        Self { request, verified, shows_token: in_header || in_query }
    }

    /// Refuses the client if the user of this decision does not meet the hub's policies.
    pub(super) fn refuse(self, hub: &Arc<Dispatcher>, decision: &Decision) -> Option<Response> {
        let Self { mut request, verified, shows_token } = self;
        let is_elsewhere = decision.url.is_some();
        // A client without a user is refused because of its token, by the component that verified the token.
        let has_bad_token = shows_token && verified.is_none() && decision.user.is_none();
        if is_elsewhere || has_bad_token {
            return None;
        }
        let known = match &decision.user {
            Some(id) => TokenUser { id: Some(id.clone()), ..TokenUser::default() },
            None => verified.unwrap_or_default(),
        };
        let id = known.id.map(|id| (USER_ID_CLAIM.into(), id.into()));
        let claims = known.claims.into_iter().chain(decision.claims.iter().cloned());
        let claims = claims.filter(|(name, _)| !name.starts_with(PRIVATE_CLAIM_PREFIX));
        request.claims = id.into_iter().chain(claims.map(|(name, value)| (name.into(), value.into()))).collect();
        hub.refuse(request).map(|body| (StatusCode::FORBIDDEN, body).into_response())
    }
}
