//! Admission of a test client, as a proxy would decide: access token, `on_negotiate`, and whether the hub requires a
//! user.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::SystemTime;

use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use axum::routing::MethodRouter;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use tower::ServiceExt;
use trunkline_protocol::access_token::{self, AccessTokenError};
use trunkline_protocol::key::AccessKeys;
use trunkline_protocol::negotiate::Decision;
use trunkline_protocol::token::Claim;
use trunkline_protocol::unix_time::unix_seconds;

use super::call_error::ConnectError;
use crate::server::{Negotiation, ProxyVerified, User};

/// Maximum size of a refusal's body.
const BODY_MAX_BYTES: usize = 1024 * 1024;

#[derive(Debug, Default)]
pub(super) struct Credentials {
    /// User and claims that the test sets as verified.
    pub(super) user_id: Option<String>,
    pub(super) claims: Vec<Claim>,
    pub(super) access_token: Option<String>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) query: Option<String>,
    pub(super) remote: Option<SocketAddr>,
}

/// Conditions on which a hub admits a client.
#[derive(Debug)]
pub(super) struct Gate<'a> {
    pub(super) path: &'a str,
    pub(super) keys: Option<&'a AccessKeys>,
    pub(super) requires_user: bool,
    /// The hub's `on_negotiate`, if the client negotiates.
    pub(super) negotiator: Option<MethodRouter>,
}

#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) user: access_token::User,
    pub(super) headers: HeaderMap,
}

type Verified = Result<access_token::User, AccessTokenError>;

pub(super) async fn admit(gate: Gate<'_>, client: &Credentials) -> Result<Admitted, ConnectError> {
    let verified = client.verify(gate.keys);
    let (decision, headers) = match gate.negotiator {
        Some(handler) => negotiate(handler, negotiate_request(gate.path, client, &verified)?).await?,
        None => Default::default(),
    };
    let Decision { user, claims, expires_s, url, access_token } = decision;
    if let Some(url) = url {
        return Err(ConnectError::Redirected { url, access_token });
    }
    let user = match user {
        Some(id) => access_token::User { id: Some(id), claims, expires_s },
        None => {
            let mut user = verified.map_err(|error| denied(error.to_string()))?;
            user.claims.extend(claims);
            user
        }
    };
    if gate.requires_user && user.id.is_none() {
        return Err(denied(String::new()));
    }
    Ok(Admitted { user, headers })
}

fn denied(body: String) -> ConnectError {
    ConnectError::Denied { status: StatusCode::UNAUTHORIZED, body }
}

impl Credentials {
    /// User that a proxy would have verified.
    fn verify(&self, keys: Option<&AccessKeys>) -> Verified {
        let mut user = match &self.access_token {
            Some(token) => {
                let keys = keys.ok_or(AccessTokenError::Signature)?;
                access_token::verify(token, keys, unix_seconds(SystemTime::now()))?
            }
            None => access_token::User::default(),
        };
        user.id = self.user_id.clone().or(user.id);
        user.claims.extend(self.claims.iter().cloned());
        Ok(user)
    }
}

fn negotiate_request(path: &str, client: &Credentials, verified: &Verified) -> Result<Request<Body>, ConnectError> {
    let separator = if client.query.is_some() { "&" } else { "" };
    let query = client.query.as_deref().unwrap_or_default();
    let uri = format!("{path}/negotiate?{query}{separator}negotiateVersion=1");
    let known = verified.as_ref().ok().cloned().and_then(User::from_verified);
    let remote = client.remote.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let request = Request::builder().method(Method::POST).uri(uri);
    let request = request.extension(ProxyVerified(known)).extension(ConnectInfo(remote)).body(Body::empty());
    let mut request = request.map_err(|error| ConnectError::Refused(error.to_string()))?;
    for (name, value) in &client.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            request.headers_mut().append(name, value);
        }
    }
    if let Some(Ok(bearer)) = client.access_token.as_ref().map(|token| HeaderValue::try_from(format!("Bearer {token}")))
    {
        request.headers_mut().insert(AUTHORIZATION, bearer);
    }
    Ok(request)
}

async fn negotiate(handler: MethodRouter, request: Request<Body>) -> Result<(Decision, HeaderMap), ConnectError> {
    let Ok(mut answer) = handler.oneshot(request).await;
    if let Some(decision) = Negotiation::take_decision(&mut answer) {
        let mut headers = std::mem::take(answer.headers_mut());
        headers.remove(CONTENT_TYPE);
        headers.remove(CONTENT_LENGTH);
        return Ok((decision, headers));
    }
    let status = answer.status();
    let body = to_bytes(answer.into_body(), BODY_MAX_BYTES).await.unwrap_or_default();
    Err(ConnectError::Denied { status, body: String::from_utf8_lossy(&body).into_owned() })
}
