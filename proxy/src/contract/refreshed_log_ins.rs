//! Refreshed logins of open connections: for clients of app servers that dial in, from any node, and for clients that
//! send a newer token to the node.

use bytestring::ByteString;
use trunkline_protocol::access_token;
use trunkline_protocol::fleet::SharedRevocation;
use trunkline_protocol::key::AccessKey;
use trunkline_protocol::manifest::HubManifest;
use trunkline_protocol::service::*;

use super::client::{Client, Received};
use super::fixture::{Fixture, KEY, paused, token_of, token_until};
use super::http::{exchange, negotiate};
use super::inbound_links::{DialInLink, ONE, settle, token};
use super::inbound_moves::DialInScene;
use crate::ground::clock::unix_seconds;

const ROLE: &str = "http://schemas.microsoft.com/ws/2008/06/identity/claims/role";

type LogInClaims = Vec<(ByteString, ByteString)>;

fn claims(list: &[(&str, &str)]) -> LogInClaims {
    list.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

fn of_ann(role: &str) -> LogInClaims {
    claims(&[("sub", "ann"), ("role", role), ("role", "guest")])
}

fn connection_token(target: &str) -> ByteString {
    target.rsplit_once("&id=").unwrap().1.into()
}

/// Sends a refreshed login over a link and returns the acknowledgement.
async fn refresh(link: &mut DialInLink, connection: &str, claims: &LogInClaims, expires_s: u64) -> Ack {
    let (connection, claims, expires_s) = (connection.into(), claims.clone(), expires_s.cast_signed());
    link.send(ServiceMessage::RefreshAuth(RefreshAuth { connection, claims, expires_s, ack_id: 41 }));
    link.ack().await
}

async fn claims_at(link: &mut DialInLink, connection: &str) -> LogInClaims {
    link.send(ServiceMessage::GetConnectionClaims(Check { subject: connection.into(), ack_id: 42 }));
    let ack = link.ack().await;
    assert_eq!((ack.ack_id, ack.status), (42, AckStatus::Ok));
    claims_from_payload(&ack.payload.unwrap()).unwrap()
}

fn roles(claims: &LogInClaims) -> Vec<&str> {
    claims.iter().filter(|(name, _)| name == ROLE).map(|(_, value)| &**value).collect()
}

fn in_an_hour() -> u64 {
    unix_seconds() + 3600
}

#[tokio::test(crate = "paused")]
async fn a_newer_log_in_of_the_same_user_is_taken_at_any_node() {
    let mut scene = DialInScene::open().await;
    let (client, target) = scene.connect().await;
    let name = connection_token(&target);
    for (node, role) in ["cook", "waiter", "owner"].into_iter().enumerate() {
        let ack = refresh(&mut scene.senders[node], &name, &of_ann(role), in_an_hour()).await;
        assert_eq!((ack.ack_id, ack.status), (41, AckStatus::Ok));
        assert_eq!(claims_from_payload(&ack.payload.unwrap()), Some(of_ann(role)), "as the app server has named them");
        let connection_id = client.id.as_str().into();
        let update = ConnectionClaims { connection_id, claims: of_ann(role) };
        assert_eq!(scene.homes[0].next().await, ServiceMessage::UpdateConnectionClaims(update));
        let known = claims_at(&mut scene.senders[2 - node], &name).await;
        assert_eq!(roles(&known), [role, "guest"]);
    }
}

#[tokio::test(crate = "paused")]
async fn a_log_in_of_another_user_one_too_large_and_one_without_the_connection_token_change_nothing() {
    let mut scene = DialInScene::open().await;
    let (client, target) = scene.connect().await;
    let name = connection_token(&target);
    let before = claims_at(&mut scene.senders[0], &name).await;
    let large = claims(&[("sub", "ann"), ("role", &"x".repeat(100_000))]);
    for (claims, status, reason) in [
        (claims(&[("sub", "ben")]), AckStatus::Forbidden, "another user"),
        (claims(&[("asrs.s.uid", "ben"), ("sub", "ann")]), AckStatus::Forbidden, "another user"),
        (claims(&[("role", "cook")]), AckStatus::Forbidden, "another user"),
        (large, AckStatus::InternalServerError, "--jwt-max-bytes"),
    ] {
        for node in [0, 1] {
            let ack = refresh(&mut scene.senders[node], &name, &claims, in_an_hour()).await;
            assert_eq!((ack.status, ack.payload), (status, None));
            assert!(ack.message.unwrap().contains(reason));
        }
    }
    for nobody in [client.id.as_str(), "", "x"] {
        let ack = refresh(&mut scene.senders[0], nobody, &of_ann("cook"), in_an_hour()).await;
        assert_eq!(ack.status, AckStatus::NotFound, "{nobody}");
    }
    assert_eq!(claims_at(&mut scene.senders[0], &name).await, before);
}

#[tokio::test(crate = "paused")]
async fn a_revoked_log_in_is_refused_and_a_newer_one_is_taken() {
    let mut scene = DialInScene::open().await;
    let (_client, target) = scene.connect().await;
    let (name, now_s) = (connection_token(&target), unix_seconds());
    let (user, kept_until_s) = (Some("ann".into()), now_s + 3600);
    let told = SharedRevocation { user, audience: None, app: None, issued_before_s: now_s, kept_until_s, closed_ms: 0 };
    scene.nodes[0].fixture.admission.revocations.revoke(&told, now_s).unwrap();
    for (issued_s, status) in [(now_s - 5, AckStatus::Forbidden), (now_s + 1, AckStatus::Ok)] {
        let log_in = claims(&[("sub", "ann"), ("asrs.u.iat", &issued_s.to_string())]);
        let ack = refresh(&mut scene.senders[0], &name, &log_in, in_an_hour()).await;
        assert_eq!(ack.status, status);
    }
}

#[tokio::test(crate = "paused")]
async fn an_older_log_in_undoes_neither_a_newer_one_nor_claims_of_rest() {
    let mut scene = DialInScene::open().await;
    let (_client, target) = scene.connect().await;
    let (name, now_s) = (connection_token(&target), unix_seconds());
    let rest = ("asrs.s.iat", now_s);
    for (claim, status) in [
        (("iat", now_s - 20), AckStatus::Ok),
        (("iat", now_s - 30), AckStatus::Forbidden),
        (rest, AckStatus::Ok),
        (("iat", now_s - 20), AckStatus::Forbidden),
        (("role", 1), AckStatus::Forbidden),
        (rest, AckStatus::Ok),
        (("iat", now_s + 1), AckStatus::Ok),
    ] {
        let log_in = claims(&[("sub", "ann"), (claim.0, &claim.1.to_string())]);
        let ack = refresh(&mut scene.senders[1], &name, &log_in, in_an_hour()).await;
        assert_eq!(ack.status, status, "{claim:?}");
        assert_eq!(ack.message.is_some_and(|text| text.contains("issued before")), status == AckStatus::Forbidden);
    }
}

#[tokio::test(crate = "paused")]
async fn a_client_that_closes_with_its_log_in_closes_at_the_end_of_the_newest_one() {
    let mut scene = DialInScene::open().await;
    let audience = ("aud".to_owned(), "http://any.example/client/?hub=bench".to_owned());
    let claims_of_token = [audience, ("asrs.s.coae".into(), "true".into())];
    let key = AccessKey::new(KEY).unwrap();
    let access_token = access_token::sign(&key, "ann", &claims_of_token, in_an_hour());
    let (mut client, target) = scene.connect_with(&access_token).await;
    let name = connection_token(&target);
    // .NET's maximum time leaves the expiry unchanged.
    for end in [in_an_hour() + 3600, 253_402_300_799] {
        assert_eq!(refresh(&mut scene.senders[1], &name, &of_ann("cook"), end).await.status, AckStatus::Ok);
        settle().await;
    }
    drop(scene.homes[0].next().await);
    drop(scene.homes[0].next().await);
    scene.homes[0].fence(&mut client).await;
    assert_eq!(refresh(&mut scene.senders[1], &name, &of_ann("cook"), 1).await.status, AckStatus::Ok);
    let Received::Text(close) = client.next().await else { panic!("no close message") };
    assert!(close.starts_with("{\"type\":7"), "{close}");
    assert!(matches!(scene.homes[0].next().await, ServiceMessage::UpdateConnectionClaims(_)));
    assert!(matches!(scene.homes[0].next().await, ServiceMessage::CloseConnection(_)));
    // A connection that does not close on expiry stays open.
    let (mut other, target) = scene.connect_with(&token("client", "ann")).await;
    let ack = refresh(&mut scene.senders[1], &connection_token(&target), &of_ann("cook"), 1).await;
    assert_eq!(ack.status, AckStatus::Ok);
    settle().await;
    drop(scene.homes[0].next().await);
    scene.homes[0].fence(&mut other).await;
}

#[tokio::test(crate = "paused")]
async fn a_newer_log_in_goes_with_a_client_that_moves_and_to_the_next_app_server() {
    for before_the_move in [true, false] {
        let mut scene = DialInScene::open().await;
        let (client, target) = scene.connect().await;
        let (name, id) = (connection_token(&target), client.id.clone());
        drop(client);
        if before_the_move {
            assert_eq!(
                refresh(&mut scene.senders[2], &name, &of_ann("cook"), in_an_hour()).await.status,
                AckStatus::Ok
            );
            drop(scene.homes[0].next().await);
        }
        let coming = scene.begin_move(&id, &target).await;
        if !before_the_move {
            assert_eq!(
                refresh(&mut scene.senders[2], &name, &of_ann("cook"), in_an_hour()).await.status,
                AckStatus::Ok
            );
            drop(scene.homes[0].next().await);
        }
        let _client = scene.end_move(coming, &id).await;
        assert_eq!(roles(&claims_at(&mut scene.senders[2], &name).await), ["cook", "guest"]);
        let mut next = DialInLink::open(&scene.nodes[1], "home_2", ONE).await;
        drop(scene.homes.remove(1));
        let ServiceMessage::OpenConnection(open) = next.next().await else { panic!("no opening") };
        assert_eq!((&*open.connection_id, roles(&open.claims)), (id.as_str(), vec!["cook", "guest"]));
    }
}

fn refreshing() -> HubManifest {
    HubManifest { close_on_token_expiry: true, refreshes_authentication: true, ..HubManifest::new("chat", "/chat") }
}

#[tokio::test(crate = "paused")]
async fn a_client_shows_a_newer_token_to_the_node_and_its_app_server_gets_the_claims() {
    let (fixture, mut link) = Fixture::start().with_app(refreshing()).await;
    let target = format!("/chat/negotiate?negotiateVersion=1&access_token={}", token_of("ann"));
    let answer: serde_json::Value = serde_json::from_str(&exchange(&fixture, "POST", &target, "").await.1).unwrap();
    assert!((3590..=3600).contains(&answer["tokenLifetimeSeconds"].as_u64().unwrap()), "{answer}");
    let id = answer["connectionToken"].as_str().unwrap();
    let mut client =
        Client::connect(&fixture, &mut link, &format!("/chat?id={id}&access_token={}", token_of("ann"))).await;
    let refresh = async |token: &str| exchange(&fixture, "POST", &format!("/chat/refresh?id={id}{token}"), "").await;
    let newer = format!("&access_token={}", token_until("ann", unix_seconds() + 7200));
    let (status, body) = refresh(&newer).await;
    assert!(status == 200 && body.starts_with("{\"tokenLifetimeSeconds\":7"), "{body}");
    let ServiceMessage::UpdateConnectionClaims(update) = link.next().await else { panic!("the claims come") };
    assert_eq!((update.connection_id.as_ref(), user_in(&update.claims)), (client.id.as_str(), Some("ann")));
    for (token, expected, error) in [
        (format!("&access_token={}", token_of("ben")), 403, "permission_change_rejected"),
        (String::new(), 401, "invalid_token"),
        ("&access_token=x".into(), 401, ""),
    ] {
        let (status, body) = refresh(&token).await;
        assert!(status == expected && body.contains(error), "{status} {body}");
    }
    // Within the tolerated clock skew the token is valid, and the connection ends when it expires.
    let ended = format!("&access_token={}", token_until("ann", unix_seconds() - 1));
    assert_eq!(refresh(&ended).await.0, 200);
    assert!(client.text().await.starts_with("{\"type\":7"));
    assert!(matches!(link.next().await, ServiceMessage::UpdateConnectionClaims(_)));
    link.close().await;
    assert_eq!(refresh(&newer).await.0, 404);
}

#[tokio::test(crate = "paused")]
async fn a_refresh_names_a_connection_of_its_hub_and_only_hubs_that_offer_it_take_one() {
    let hubs = vec![refreshing(), HubManifest::new("plain", "/plain")];
    let fixture = Fixture::start();
    let mut app = fixture.app("app-1", hubs);
    let _links = (app.link().await, app.link().await);
    let newer = format!("access_token={}", token_of("ann"));
    let (_, foreign) = negotiate(&fixture, "/plain", "").await;
    for (method, target, expected) in [
        ("POST", format!("/chat/refresh?{newer}"), 400),
        ("POST", format!("/chat/refresh?id=x&{newer}"), 404),
        ("POST", format!("/chat/refresh?id={foreign}&{newer}"), 404),
        ("GET", format!("/chat/refresh?id={foreign}&{newer}"), 405),
        ("POST", format!("/plain/refresh?id={foreign}&{newer}"), 404),
    ] {
        let (status, body) = exchange(&fixture, method, &target, "").await;
        assert_eq!(status, expected, "{method} {target}: {body}");
    }
    let (_, body) = exchange(&fixture, "POST", &format!("/plain/negotiate?{newer}"), "").await;
    assert!(!body.contains("tokenLifetimeSeconds"), "{body}");
}

fn user_in(claims: &LogInClaims) -> Option<&str> {
    claims.iter().find(|(name, _)| name == "asrs.s.uid").map(|(_, user)| &**user)
}
