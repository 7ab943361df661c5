//! Identification: requests of a connection must authenticate as its user, in addition to the connection token.

use ::http::StatusCode;
use trunkline_protocol::manifest::{HubManifest, USER_ID_CLAIM};
use trunkline_protocol::negotiate::Decision;

use super::client::{Client, JSON_HANDSHAKE};
use super::fixture::{Fixture, paused, token_of, token_of_roles, token_until};
use super::http::{HttpConnection, exchange, negotiate, request_with};
use crate::ground::clock::unix_seconds;

/// Hubs with and without a negotiate handler. Neither requires authentication.
fn hubs() -> [HubManifest; 2] {
    [HubManifest::new("chat", "/chat"), HubManifest { asks_app: true, ..HubManifest::new("asked", "/asked") }]
}

#[tokio::test(crate = "paused")]
async fn each_request_of_a_connection_shows_the_user_of_its_access_token() {
    let fixture = Fixture::start();
    let (_app, _links) = fixture.app_of(hubs()).await;
    let (ann, bob, ended) = (token_of("ann"), token_of("bob"), token_until("ann", unix_seconds() - 60));
    for hub in ["/chat", "/asked"] {
        let (_, token) = negotiate(&fixture, hub, &format!("&access_token={ann}")).await;
        let bare = format!("{hub}?id={token}");
        let (of_bob, of_ended) = (format!("{bare}&access_token={bob}"), format!("{bare}&access_token={ended}"));
        let refused = async |when: &str| {
            for method in ["GET", "POST", "DELETE"] {
                for (target, said) in
                    [(&bare, "with each request"), (&of_bob, "not of the user"), (&of_ended, "expired")]
                {
                    let (status, body) = exchange(&fixture, method, target, "x").await;
                    assert_eq!(status, StatusCode::UNAUTHORIZED, "{when} {method} {said}: {body}");
                    assert!(body.contains(said), "{body}");
                }
            }
            for target in [&bare, &of_bob, &of_ended] {
                assert_eq!(Client::upgrade(&fixture, target).await.err(), Some(401), "{when}");
            }
        };
        refused("before the first poll").await;
        // Any valid token of the user is accepted, in the header or the query.
        let again = token_until("ann", unix_seconds() + 60);
        let poll = request_with("GET", &bare, &[("authorization", &format!("Bearer {again}"))]);
        assert_eq!(HttpConnection::open(&fixture).await.exchange(poll).await.0, StatusCode::OK);
        refused("while it lives").await;
        let good = format!("{bare}&access_token={ann}");
        assert_eq!(exchange(&fixture, "POST", &good, JSON_HANDSHAKE).await.0, StatusCode::OK);
        assert_eq!(exchange(&fixture, "DELETE", &good, "").await.0, StatusCode::ACCEPTED);
    }
}

#[tokio::test(crate = "paused")]
async fn a_token_with_many_claims_negotiates_and_each_transport_brings_all_of_them() {
    let fixture = Fixture::start();
    let (app, mut links) = fixture.app_of(hubs()).await;
    let added = Decision { claims: vec![("added".into(), "by the app".into())], ..Decision::default() };
    *app.dialler.decision.lock().unwrap() = Some(added);
    for (index, hub, roles) in [(0, "/chat", 10), (0, "/chat", 300), (1, "/asked", 10), (1, "/asked", 300)] {
        let ann = token_of_roles("ann", roles);
        let (_, token) = negotiate(&fixture, hub, &format!("&access_token={ann}")).await;
        let (_, of_socket) = negotiate(&fixture, hub, &format!("&access_token={ann}")).await;
        assert!(token.len() < 4_000, "{}", token.len());
        let target = format!("{hub}?id={token}&access_token={ann}");
        assert_eq!(exchange(&fixture, "GET", &target, "").await.0, StatusCode::OK);
        assert_eq!(exchange(&fixture, "POST", &target, JSON_HANDSHAKE).await.0, StatusCode::OK);
        let by_poll = links[index].opening().await;
        links[index].data().await;
        assert_eq!(exchange(&fixture, "DELETE", &target, "").await.0, StatusCode::ACCEPTED);
        links[index].close().await;
        let target = format!("{hub}?id={of_socket}&access_token={ann}");
        let mut client = Client::upgrade(&fixture, &target).await.unwrap();
        client.send(JSON_HANDSHAKE).await;
        let by_socket = links[index].opening().await;
        links[index].data().await;
        client.close().await;
        links[index].close().await;
        for open in [by_poll, by_socket] {
            let count = |wanted: &str| open.claims.iter().filter(|(name, _)| name == wanted).count();
            assert_eq!((count("role"), count("added")), (roles, index), "{hub} {roles}");
        }
    }
    let many = (0..200).map(|number| ("added".to_owned(), format!("number {number:010}"))).collect();
    *app.dialler.decision.lock().unwrap() = Some(Decision { claims: many, ..Decision::default() });
    let (status, body) = exchange(&fixture, "POST", "/asked/negotiate?negotiateVersion=1", "").await;
    assert!(status == StatusCode::OK && body.contains("that the app names"), "{body}");
}

#[tokio::test(crate = "paused")]
async fn a_user_that_the_app_has_named_and_nobody_at_all_are_bound_by_the_connection_token() {
    let fixture = Fixture::start();
    let (app, mut links) = fixture.app_of(hubs()).await;
    app.decide(Some("bob"));
    // The app admits Ann under another name: her own token is then up to the app.
    let ann = format!("&access_token={}", token_of("ann"));
    for (index, hub, query) in [(1, "/asked", ""), (1, "/asked", ann.as_str()), (0, "/chat", "")] {
        let (id, token) = negotiate(&fixture, hub, query).await;
        let target = format!("{hub}?id={token}");
        assert_eq!(exchange(&fixture, "GET", &target, "").await.0, StatusCode::OK);
        assert_eq!(exchange(&fixture, "POST", &target, JSON_HANDSHAKE).await.0, StatusCode::OK);
        let open = links[index].opening().await;
        assert_eq!((open.connection_id.as_ref(), links[index].data().await.0.as_str()), (&*id, JSON_HANDSHAKE));
        let user = open.claims.iter().find(|(name, _)| name == USER_ID_CLAIM).map(|(_, user)| user.to_string());
        assert_eq!(user.as_deref(), (index == 1).then_some("bob"));
    }
}

#[tokio::test(crate = "paused")]
async fn requests_of_methods_and_pages_that_may_not_connect_are_refused_whatever_the_transport() {
    let fixture = Fixture::start();
    let (_app, _links) = fixture.app_of(hubs()).await;
    let (_, token) = negotiate(&fixture, "/chat", "").await;
    let target = format!("/chat?id={token}");
    for method in ["PUT", "PATCH", "HEAD"] {
        assert_eq!(exchange(&fixture, method, &target, "").await.0, StatusCode::METHOD_NOT_ALLOWED, "{method}");
    }
    for method in ["GET", "POST", "DELETE"] {
        let foreign = request_with(method, &target, &[("origin", "https://evil.example")]);
        let answer = HttpConnection::open(&fixture).await.exchange(foreign).await;
        assert_eq!(answer.0, StatusCode::FORBIDDEN, "{method}");
    }
    assert_eq!(exchange(&fixture, "GET", &target, "").await.0, StatusCode::OK);
}
