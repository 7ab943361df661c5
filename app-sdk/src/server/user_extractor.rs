//! Extraction of the user of an HTTP request: by its access token, or as a proxy has verified it.

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use trunkline_protocol::wire::bearer;

use super::handle::ServerHandle;
use super::user::{TokenError, User};

/// User whom a proxy has verified, in the extensions of a negotiate request; `None` for nobody.
#[derive(Debug, Clone)]
pub(crate) struct ProxyVerified(pub(crate) Option<User>);

/// Rejection of a request whose user was asked for: 401 with `WWW-Authenticate`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UserRejection {
    /// The request has no access token, or the proxy did not accept it.
    #[error("an access token is needed: `Authorization: Bearer`")]
    NoUser,
    /// The access token is not a good one.
    #[error("{0}")]
    Token(TokenError),
    /// The extractor finds no keys, which is a fault of the app: 500.
    #[error(
        "the extractor `User` finds no keys: serve by `trunkline::serve`, or add `.layer(Extension(server.handle()))`"
    )]
    NoHandle,
}

impl<S: Send + Sync> FromRequestParts<S> for User {
    type Rejection = UserRejection;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, UserRejection> {
        find(parts)?.ok_or(UserRejection::NoUser)
    }
}

impl<S: Send + Sync> OptionalFromRequestParts<S> for User {
    type Rejection = UserRejection;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Option<Self>, UserRejection> {
        find(parts)
    }
}

fn find(parts: &Parts) -> Result<Option<User>, UserRejection> {
    if let Some(ProxyVerified(user)) = parts.extensions.get() {
        return Ok(user.clone());
    }
    let handle = parts.extensions.get::<ServerHandle>().ok_or(UserRejection::NoHandle)?;
    let token = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(bearer);
    match token.map(|token| handle.verify(token)) {
        None => Ok(None),
        Some(Ok(user)) => Ok(Some(user)),
        Some(Err(TokenError::NoKeys)) => Err(UserRejection::NoHandle),
        Some(Err(error)) => Err(UserRejection::Token(error)),
    }
}

impl IntoResponse for UserRejection {
    fn into_response(self) -> Response {
        let challenge = match &self {
            Self::NoHandle => {
                tracing::error!("{self}");
                return (StatusCode::INTERNAL_SERVER_ERROR, self.to_string()).into_response();
            }
            Self::NoUser => HeaderValue::from_static("Bearer"),
            Self::Token(_) => HeaderValue::from_static("Bearer error=\"invalid_token\""),
        };
        (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, challenge)], self.to_string()).into_response()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::body::{Body, to_bytes};
    use axum::routing::get;
    use axum::{Extension, Router};
    use http::Request;
    use tower::ServiceExt;

    use super::*;
    use crate::{Hub, Server};

    const KEY: &str = "a secret of at least 16 bytes";

    fn app(is_layered: bool) -> (Router, ServerHandle) {
        let server = Server::new().access_key(KEY).hub(Hub::new("/board"));
        let handle = server.handle();
        let role = async |user: User| format!("{} {}", user.id(), user.claims().get("role").unwrap_or("-"));
        let maybe = async |user: Option<User>| user.map_or("nobody".to_owned(), |user| user.id().to_owned());
        let routes = Router::new().route("/role", get(role)).route("/maybe", get(maybe));
        let routes = if is_layered { routes.layer(Extension(handle.clone())) } else { routes };
        (routes.merge(server.into_router().unwrap()), handle)
    }

    async fn ask(app: &Router, path: &str, authorization: Option<String>) -> (u16, String, String) {
        let request = Request::get(path);
        let request = match authorization {
            Some(value) => request.header(AUTHORIZATION, value),
            None => request,
        };
        let answer = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let status = answer.status().as_u16();
        let challenge = answer.headers().get(WWW_AUTHENTICATE).map(|value| value.to_str().unwrap().to_owned());
        let body = to_bytes(answer.into_body(), 1000).await.unwrap();
        (status, challenge.unwrap_or_default(), String::from_utf8(body.into()).unwrap())
    }

    #[tokio::test]
    async fn a_token_that_the_app_has_signed_names_the_user_of_a_request() {
        let (app, handle) = app(true);
        let token = handle.token("ann").claim("role", "moderator").lifetime(Duration::from_secs(60)).sign().unwrap();
        let bearer = Some(format!("Bearer {token}"));
        assert_eq!(ask(&app, "/role", bearer.clone()).await, (200, String::new(), "ann moderator".into()));
        assert_eq!(ask(&app, "/maybe", bearer).await.2, "ann");
        assert_eq!(handle.verify(&token).unwrap().id(), "ann");
    }

    #[tokio::test]
    async fn without_a_good_token_a_request_is_401_and_says_why() {
        let (app, handle) = app(true);
        let (status, challenge, _) = ask(&app, "/role", None).await;
        assert_eq!((status, challenge.as_str()), (401, "Bearer"));
        assert_eq!(ask(&app, "/maybe", None).await.2, "nobody");
        let forged = Server::new().access_key("another secret of some length");
        let forger = forged.handle();
        let _ = forged.into_router::<()>().unwrap();
        for token in [forger.token("ann").sign().unwrap(), "rubbish".into(), handle.token("x").sign().unwrap() + "x"] {
            for path in ["/role", "/maybe"] {
                let (status, challenge, _) = ask(&app, path, Some(format!("Bearer {token}"))).await;
                assert_eq!((status, challenge.as_str()), (401, "Bearer error=\"invalid_token\""), "{token}");
            }
        }
        assert_eq!(ask(&app, "/maybe", Some("Basic eA==".into())).await.2, "nobody", "a scheme of the app's own");
    }

    #[tokio::test]
    async fn without_the_handle_the_app_is_told_what_to_add() {
        let (status, _, body) = ask(&app(false).0, "/role", None).await;
        assert_eq!(status, 500);
        assert!(body.contains(".layer(Extension(server.handle()))"), "{body}");
    }

    #[test]
    fn tokens_are_signed_when_the_server_has_its_keys() {
        let server = Server::new().access_key(KEY);
        let handle = server.handle();
        assert_eq!(handle.token("ann").sign(), Err(TokenError::NoKeys));
        let _ = server.into_router::<()>().unwrap();
        assert!(handle.token("ann").sign().is_ok());
    }
}
