//! Client tokens, for back ends without an SDK. A token is valid for one hub and signed with the back end's own key.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::json;
use trunkline_protocol::access_token::{self, TokenTimes};
use trunkline_protocol::dial_in::{CLIENT_PATH, ClientTicket, escaped, sign_client_token};

use super::query::RestQuery;
use super::rest_error::RestError;
use crate::engine::shard::Shared;
use crate::fleet::NamedHub;
use crate::ground::auth::{TokenPolicy, TokenSigner};
use crate::ground::clock::unix_seconds;

pub(super) fn answer_token(
    (shared, policy): (&Shared, &TokenPolicy),
    (query, caller): (&RestQuery, &RestCaller),
    (hub, name): (&NamedHub, &str),
) -> Result<Response, RestError> {
    let RestCaller { signer: TokenSigner { key, .. }, origin } = caller;
    let (now_s, minutes) = (unix_seconds(), query.token_minutes()?);
    let times = TokenTimes::from_now(now_s, minutes * 60);
    let manifest = hub.here().filter(|hub| hub.capabilities().takes_user_tokens);
    let (url, token) = match manifest {
        Some(hub) => {
            let user = query.user()?.ok_or_else(|| {
                RestError::bad_value("userId", "is missing: clients of this hub without a user need no token")
            })?;
            let of_hub = client_url(origin, hub.name());
            let audiences = policy.audiences.iter().chain([&of_hub]);
            let audiences = audiences.map(|one| ("aud".to_owned(), one.clone()));
            let issuer = policy.issuer.as_ref().map(|one| ("iss".to_owned(), one.clone()));
            let names = policy.user_claims.first().filter(|name| *name != "nameid");
            let named = names.map(|name| (name.clone(), user.to_owned()));
            let claims: Vec<_> = audiences.chain(issuer).chain(named).collect();
            let token = access_token::sign(key, user, &claims, times);
            (format!("{origin}{}", hub.settings().path), token)
        }
        None if !shared.settings.accepts_dial_in => {
            let text = "no app server has announced this hub yet, so its clients are unknown";
            return Err(RestError::new(StatusCode::NOT_FOUND, "Error.Hub.NotExisted", text));
        }
        None => {
            let url = client_url(origin, name);
            let ticket = ClientTicket { user: query.user()?.map(str::to_owned), ..ClientTicket::default() };
            let token = sign_client_token(key, &url, &ticket, now_s, times.expires_s);
            (url, token)
        }
    };
    Ok(Json(json!({ "token": token, "url": url })).into_response())
}

/// Client URL of a hub in dial-in mode, which is the audience of its tokens regardless of where clients connect.
fn client_url(origin: &str, hub: &str) -> String {
    format!("{origin}{CLIENT_PATH}?hub={}", escaped(&hub.to_ascii_lowercase()))
}

/// Caller of the data plane, from its request and token.
pub(super) struct RestCaller {
    pub(super) signer: TokenSigner,
    /// Origin used to reach this node, such as `https://node.example`.
    pub(super) origin: String,
}
