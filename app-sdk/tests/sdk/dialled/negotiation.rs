//! Tests of negotiation at the app: redirects to the service, users, refusals.

use std::net::SocketAddr;

use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use axum::http::header::AUTHORIZATION;
use axum::http::{Request, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tower::ServiceExt;
use trunkline::{Context, Negotiation, Policy, User};

use super::service::{Service, Welcome};
use super::{App, service_and_app};

async fn ask(app: &App, target: &str, token: Option<&str>) -> (StatusCode, Value) {
    let mut request = Request::post(target);
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    let answer = app.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let status = answer.status();
    let body = to_bytes(answer.into_body(), 100_000).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or_else(|_| json!(String::from_utf8_lossy(&body))))
}

fn claims(answer: &Value) -> Value {
    let token = answer["accessToken"].as_str().unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

#[tokio::test]
async fn a_client_is_led_to_the_service_as_the_user_of_its_token() {
    let (service, app, [mut first, ..]) = service_and_app().await;
    first.fence().await;
    let token = app.handle.token("ann").claim("role", "cook").claim("role", "admin").sign().unwrap();
    let (status, answer) = ask(&app, "/Test/negotiate?negotiateVersion=1&room=7", Some(&token)).await;
    assert_eq!(status, StatusCode::OK);
    let url = answer["url"].as_str().unwrap();
    let expected = format!(
        "http://{}/client/?hub=test&asrs.op=%2FTest&negotiateVersion=1&room=7&asrs_request_id=",
        service.address
    );
    assert!(url.starts_with(&expected), "{url}");
    assert_eq!(answer["availableTransports"], json!([]));
    let claims = claims(&answer);
    assert_eq!((&claims["asrs.s.uid"], &claims["role"]), (&json!("ann"), &json!(["cook", "admin"])));
    assert_eq!(claims["aud"], json!("http://127.0.0.1/client/?hub=test"));
    assert_eq!(claims["iss"], json!("azure-signalr"));
    let (status, nobody) = ask(&app, "/Test/negotiate", None).await;
    assert_eq!((status, &self::claims(&nobody)["asrs.s.uid"]), (StatusCode::OK, &Value::Null));
}

#[tokio::test]
async fn a_client_that_does_not_meet_a_policy_is_not_redirected() {
    let mut service = Service::start().await;
    let app = App::start_with(&service, |hub| hub.require_claim("role", "admin"));
    let mut connection = service.next().await;
    connection.fence().await;
    let token = |role| app.handle.token("ann").claim("role", role).sign().unwrap();
    assert_eq!(ask(&app, "/Test/negotiate", Some(&token("admin"))).await.0, StatusCode::OK);
    assert_eq!(ask(&app, "/Test/negotiate", Some(&token("guest"))).await.0, StatusCode::FORBIDDEN);
    assert_eq!(ask(&app, "/Test/negotiate", None).await.0, StatusCode::FORBIDDEN);
    assert_eq!(ask(&app, "/Test/negotiate", Some("nonsense")).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_policy_about_addresses_judges_the_client_and_not_the_balancer_in_between() {
    let mut service = Service::start().await;
    let office =
        |ctx: &Context| ctx.remote_addr().is_some_and(|address| address.ip().to_string().starts_with("192.0.2."));
    let app = App::start_with(&service, |hub| hub.require(Policy::new("from the office", office)));
    service.next().await.fence().await;
    let from = async |name: &str, addresses: &str| {
        let request = Request::post("/Test/negotiate?negotiateVersion=1").header(name, addresses);
        let request = request.extension(ConnectInfo(SocketAddr::from(([10, 0, 0, 1], 9)))).body(Body::empty()).unwrap();
        app.router.clone().oneshot(request).await.unwrap().status()
    };
    assert_eq!(from("x-forwarded-for", "192.0.2.7, 10.0.0.2").await, StatusCode::OK);
    assert_eq!(from("x-forwarded-for", "198.51.100.7").await, StatusCode::FORBIDDEN);
    assert_eq!(from("x-trunkline-remote", "192.0.2.7:1").await, StatusCode::FORBIDDEN, "a header of proxies");
}

#[tokio::test]
async fn a_refused_client_gets_the_reason() {
    let mut service = Service::start().await;
    let app = App::start_with(&service, |hub| hub.require_authentication());
    let mut connection = service.next().await;
    connection.fence().await;
    let (status, why) = ask(&app, "/Test/negotiate", None).await;
    assert_eq!((status, why), (StatusCode::UNAUTHORIZED, json!("an access token is needed: `Authorization: Bearer`")));
    let (status, why) = ask(&app, "/Test/negotiate", Some("rubbish")).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(why.as_str().unwrap().contains("not a JWT"), "{why}");
    let token = app.handle.token("ann").claim("story", "x".repeat(4000)).sign().unwrap();
    let (status, why) = ask(&app, "/Test/negotiate", Some(&token)).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(why.as_str().unwrap().contains("a service accepts at most 4096"), "{why}");
}

#[tokio::test]
async fn the_apps_own_handler_decides() {
    let mut service = Service::start().await;
    let decide = async |user: Option<User>, request: axum::extract::Request| match request.uri().query() {
        Some("elsewhere") => Ok(Negotiation::redirect("https://eu.example/chat").access_token("t")),
        Some("bob") => Ok(Negotiation::user("bob").claim("role", "guest")),
        Some("banned") => Err((StatusCode::FORBIDDEN, "not you")),
        _ => Ok(user.map_or(Negotiation::new(), |user| Negotiation::user(format!("{}!", user.id())))),
    };
    let app = App::start_with(&service, |hub| hub.on_negotiate(decide));
    let mut connection = service.next().await;
    connection.fence().await;
    let token = app.handle.token("ann").sign().unwrap();
    assert_eq!(claims(&ask(&app, "/Test/negotiate", Some(&token)).await.1)["asrs.s.uid"], json!("ann!"));
    let bob = claims(&ask(&app, "/Test/negotiate?bob", Some("rubbish")).await.1);
    assert_eq!((&bob["asrs.s.uid"], &bob["role"]), (&json!("bob"), &json!("guest")));
    let (_, elsewhere) = ask(&app, "/Test/negotiate?elsewhere", None).await;
    assert_eq!(
        (elsewhere["url"].as_str(), elsewhere["accessToken"].as_str()),
        (Some("https://eu.example/chat"), Some("t"))
    );
    assert_eq!(ask(&app, "/Test/negotiate?banned", None).await, (StatusCode::FORBIDDEN, json!("not you")));
}

#[tokio::test]
async fn without_a_service_clients_get_503() {
    let mut service = Service::start().await;
    service.set_welcome(Welcome::Refuse("not yet"));
    let app = App::start(&service);
    service.next_refused().await;
    let (status, why) = ask(&app, "/Test/negotiate", None).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(why.as_str().unwrap().contains("no connection to the service yet"), "{why}");
}
