//! Clients that open a new connection after losing one: who keeps their state, and who may restore it.

use tokio::time::Instant;
use trunkline_protocol::fleet::SharedRevocation;
use trunkline_protocol::key::AccessKeys;
use trunkline_protocol::manifest::HubManifest;
use trunkline_protocol::negotiate::Decision;
use trunkline_protocol::service::*;
use trunkline_protocol::token::ConnectionToken;
use trunkline_protocol::wire::{RESTORES_HEADER, USER_ID_CLAIM};

use super::app::{AppLink, membership};
use super::client::{Client, JSON_HANDSHAKE};
use super::fixture::{Fixture, KEY, paused, token_of};
use super::http::negotiate;
use super::scene::LinkedApp;
use crate::clock::unix_seconds;
use crate::metrics::RestoreOutcome;

struct Scene {
    fixture: Fixture,
    apps: Vec<LinkedApp>,
}

fn hub(name: &str, restores_clients: bool) -> HubManifest {
    HubManifest { restores_clients, ..HubManifest::new(name, &format!("/{name}")) }
}

/// Starts a node with app servers, optionally restoring clients.
async fn scene(restoring: &[bool]) -> Scene {
    let fixture = Fixture::start();
    let mut apps = Vec::new();
    for (number, restores) in (1..).zip(restoring) {
        apps.push(fixture.server_with(&format!("app-{number}"), hub("chat", *restores)).await);
    }
    Scene { fixture, apps }
}

impl Scene {
    fn link(&mut self, app: usize) -> &mut AppLink {
        &mut self.apps[app]
    }

    fn counted(&self, outcome: RestoreOutcome) -> u64 {
        self.fixture.shared.counters().iter().map(|counters| counters.restores.of(outcome).get()).sum()
    }

    /// Negotiates a new connection with the token of a lost one, and sends the hub handshake.
    async fn begin_anew(&self, lost: &str, more: &str) -> Client {
        let (_, token) = negotiate(&self.fixture, "/chat", &format!("&restore={lost}{more}")).await;
        let mut client = Client::upgrade(&self.fixture, &format!("/chat?id={token}{more}")).await.unwrap();
        client.send(JSON_HANDSHAKE).await;
        client
    }

    /// Answers an app server's next query with `is_kept`; returns the connection id of the query.
    async fn answer_query(&mut self, app: usize, is_kept: bool) -> String {
        match self.link(app).next().await {
            ServiceMessage::RestoreQuery(RestoreQuery { connection_id, query_id, .. }) => {
                self.link(app).send(ServiceMessage::RestoreAnswer(RestoreAnswer { query_id, is_kept })).await;
                connection_id.to_string()
            }
            other => panic!("{other:?} instead of a query"),
        }
    }
}

fn restored(open: &OpenConnection) -> Option<&str> {
    let (_, values) = open.headers.iter().find(|(name, _)| name == RESTORES_HEADER)?;
    Some(&values[0])
}

fn user(open: &OpenConnection) -> Option<&str> {
    open.claims.iter().find(|(name, _)| name == USER_ID_CLAIM).map(|(_, value)| &**value)
}

#[tokio::test(crate = "paused")]
async fn the_app_server_that_keeps_what_a_client_had_gets_it() {
    let mut scene = scene(&[true, false, true]).await;
    let (id, lost) = negotiate(&scene.fixture, "/chat", "").await;
    let mut clients = Vec::new();
    for number in 0..3 {
        clients.push(scene.begin_anew(&lost, "").await);
        assert_eq!([scene.answer_query(0, false).await, scene.answer_query(2, true).await], [&*id, &*id]);
        let open = scene.link(2).opening().await;
        assert_eq!(restored(&open), Some(id.as_str()), "{number}");
        assert_ne!(open.connection_id, id);
        assert_eq!(open.query, None, "the hub does not see the token");
        scene.link(2).data().await;
    }
    assert_eq!(scene.counted(RestoreOutcome::Found), 3);
    scene.link(1).fence().await;
}

#[tokio::test(crate = "paused")]
async fn a_client_without_negotiation_claims_its_connection_when_it_connects() {
    let mut scene = scene(&[true]).await;
    let (id, lost) = negotiate(&scene.fixture, "/chat", "").await;
    let mut client = Client::upgrade(&scene.fixture, &format!("/chat?restore={lost}&x=1")).await.unwrap();
    client.send(JSON_HANDSHAKE).await;
    assert_eq!(scene.answer_query(0, true).await, id);
    let open = scene.link(0).opening().await;
    assert_eq!((restored(&open), open.query.as_deref()), (Some(id.as_str()), Some("?x=1")));
}

#[tokio::test(crate = "paused")]
async fn a_client_for_which_nothing_is_kept_begins_with_nothing() {
    let mut scene = scene(&[true]).await;
    let (_, lost) = negotiate(&scene.fixture, "/chat", "").await;
    let _client = scene.begin_anew(&lost, "").await;
    scene.answer_query(0, false).await;
    assert_eq!(restored(&scene.link(0).opening().await), None);
    scene.link(0).data().await;

    let (_client, begun) = (scene.begin_anew(&lost, "").await, Instant::now());
    assert!(matches!(scene.link(0).next().await, ServiceMessage::RestoreQuery(_)));
    assert_eq!(restored(&scene.link(0).opening().await), None, "without an answer");
    assert_eq!(begun.elapsed().as_secs(), 1);
    assert_eq!(scene.counted(RestoreOutcome::Nothing), 2);
}

#[tokio::test(crate = "paused")]
async fn an_invalid_proof_restores_nothing_and_refuses_no_client() {
    let mut scene = scene(&[true]).await;
    let _other = scene.fixture.server_with("app-2", hub("other", true)).await;
    let (ann, bob) = (format!("&access_token={}", token_of("ann")), format!("&access_token={}", token_of("bob")));
    let (_, of_nobody) = negotiate(&scene.fixture, "/chat", "").await;
    let (_, of_ann) = negotiate(&scene.fixture, "/chat", &ann).await;
    let (_, of_other_hub) = negotiate(&scene.fixture, "/other", "").await;
    let forged = format!("{of_nobody}x");
    let bad =
        [("rubbish", ""), (&forged, ""), (&of_other_hub, ""), (&of_ann, &*bob), (&of_ann, ""), (&of_nobody, &ann)];
    let mut clients = Vec::new();
    for (number, (lost, more)) in (1..).zip(bad) {
        clients.push(scene.begin_anew(lost, more).await);
        assert_eq!(restored(&scene.link(0).opening().await), None, "{number}");
        scene.link(0).data().await;
        assert_eq!(scene.counted(RestoreOutcome::Refused), number);
    }
    let _client = scene.begin_anew(&of_ann, &ann).await;
    scene.answer_query(0, true).await;
    let open = scene.link(0).opening().await;
    assert_eq!(user(&open), Some("ann"));
    assert!(restored(&open).is_some());
}

#[tokio::test(crate = "paused")]
async fn a_user_that_the_app_had_named_is_given_back_with_the_rest() {
    let manifest = HubManifest { asks_app: true, ..hub("chat", true) };
    let (fixture, link) = Fixture::start().with_app(manifest).await;
    let decide = |decision: Decision| *link.app.dialler.decision.lock().unwrap() = Some(decision);
    let claims = vec![("role".to_owned(), "cook".to_owned())];
    decide(Decision { user: Some("ann".into()), claims, ..Decision::default() });
    let (_, lost) = negotiate(&fixture, "/chat", "").await;
    decide(Decision::default());
    let mut scene = Scene { fixture, apps: vec![link] };
    let mut clients = Vec::new();
    for is_kept in [false, true] {
        clients.push(scene.begin_anew(&lost, "").await);
        scene.answer_query(0, is_kept).await;
        let open = scene.link(0).opening().await;
        assert_eq!(user(&open), is_kept.then_some("ann"));
        let has_role = open.claims.iter().any(|(name, value)| (&**name, &**value) == ("role", "cook"));
        assert_eq!(has_role, is_kept);
        scene.link(0).data().await;
    }
    // The connection that restored its user is lost, too.
    let (_, second) = negotiate(&scene.fixture, "/chat", &format!("&restore={lost}")).await;
    clients.push(scene.begin_anew(&second, "").await);
    scene.answer_query(0, true).await;
    assert_eq!(user(&scene.link(0).opening().await), Some("ann"));
}

#[tokio::test(crate = "paused")]
async fn a_user_whose_log_ins_were_revoked_is_not_given_back() {
    let manifest = HubManifest { asks_app: true, ..hub("chat", true) };
    let (fixture, link) = Fixture::start().with_app(manifest).await;
    link.app.decide(Some("ann"));
    let (_, lost) = negotiate(&fixture, "/chat", "").await;
    link.app.decide(None);
    let (_, claimed_before) = negotiate(&fixture, "/chat", &format!("&restore={lost}")).await;
    let now_s = unix_seconds();
    let (user, kept_until_s) = (Some("ann".into()), now_s + 60);
    let told =
        SharedRevocation { user, audience: None, app: None, issued_before_s: now_s + 1, kept_until_s, closed_ms: 0 };
    fixture.admission.revocations.revoke(&told, now_s).unwrap();
    assert_eq!(Client::upgrade(&fixture, &format!("/chat?id={claimed_before}")).await.err(), Some(401));
    let (_, token) = negotiate(&fixture, "/chat", &format!("&restore={lost}")).await;
    let keys = AccessKeys::new(vec![trunkline_protocol::key::AccessKey::new(KEY).unwrap()]).unwrap();
    assert_eq!(ConnectionToken::open(&token, &keys).unwrap().restores, None);
}

#[tokio::test(crate = "paused")]
async fn a_claim_stands_in_the_token_only_where_it_was_proved() {
    let scene = scene(&[true]).await;
    let keys = AccessKeys::new(vec![trunkline_protocol::key::AccessKey::new(KEY).unwrap()]).unwrap();
    let (id, lost) = negotiate(&scene.fixture, "/chat", "").await;
    for (query, claimed) in [(format!("&restore={lost}"), Some(id)), ("&restore=".into(), None)] {
        let (_, token) = negotiate(&scene.fixture, "/chat", &query).await;
        let claim = ConnectionToken::open(&token, &keys).unwrap().restores;
        assert_eq!(claim.map(|claim| claim.connection_id), claimed);
    }
}

#[tokio::test(crate = "paused")]
async fn an_app_server_is_notified_of_groups_that_others_add_its_clients_to() {
    let mut scene = scene(&[true]).await;
    let client = scene.apps[0].client_of("ann").await;
    let mut other_link = scene.fixture.server_with("app-2", hub("chat", true)).await;
    scene.link(0).join(&client.id, "own").await;
    other_link.join(&client.id, "red").await;
    assert_eq!(scene.link(0).next().await, ServiceMessage::JoinGroup(membership(&client.id, "red", 0)));
    let of_user = |group: Option<&str>, ack_id| UserGroupChange {
        user_id: "ann".into(),
        group: group.map(Into::into),
        ack_id,
        ttl_s: None,
    };
    scene.link(0).send(ServiceMessage::UserJoinGroupWithAck(of_user(Some("blue"), 1))).await;
    assert_eq!(scene.link(0).next().await, ServiceMessage::JoinGroup(membership(&client.id, "blue", 0)));
    assert_eq!(scene.link(0).ack().await.0, 1);
    other_link.send(ServiceMessage::UserLeaveGroupWithAck(of_user(None, 2))).await;
    assert_eq!(other_link.ack().await.0, 2);
    let all = GroupChange { connection_id: client.id.as_str().into(), group: None, ack_id: 0 };
    assert_eq!(scene.link(0).next().await, ServiceMessage::LeaveGroupWithAck(all));
    other_link.join(&client.id, "green").await;
    assert_eq!(scene.link(0).next().await, ServiceMessage::JoinGroup(membership(&client.id, "green", 0)));
    scene.apps[0].app.retire();
    other_link.takes_over(&client, "app-1").await;
    assert_eq!(other_link.next().await, ServiceMessage::JoinGroup(membership(&client.id, "green", 0)));
}

#[tokio::test(crate = "paused")]
async fn clients_whose_connection_is_gone_learn_that_one_after_the_other() {
    let fixture = Fixture::start();
    let manifest = HubManifest { stateful_reconnect_buffer_bytes: Some(1000), ..hub("chat", false) };
    let mut link = fixture.server_with("app-1", manifest).await;
    let (_, stateful) = negotiate(&fixture, "/chat", "&useStatefulReconnect=true").await;
    let (_, plain) = negotiate(&fixture, "/chat", "").await;
    for token in [&stateful, &plain] {
        let client = Client::connect(&fixture, &mut link, &format!("/chat?id={token}")).await;
        client.close().await;
        link.close().await;
    }
    let refused = |token: String| {
        let fixture = &fixture;
        async move {
            let begun = Instant::now();
            assert_eq!(Client::upgrade(fixture, &format!("/chat?id={token}")).await.err(), Some(404));
            begun.elapsed()
        }
    };
    let waits = futures_util::future::join_all((0..3000).map(|_| refused(stateful.clone()))).await;
    assert_eq!(waits.iter().filter(|wait| wait.is_zero()).count(), 1000);
    assert_eq!(waits.iter().max().unwrap().as_millis(), 2000);
    assert!(refused(plain).await.is_zero(), "who can't come back does not wait");
}
