//! Tests of handlers that extract the user.

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
async fn without_a_valid_token_a_request_gets_401_with_the_reason() {
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
async fn without_the_handle_the_error_names_the_missing_layer() {
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
