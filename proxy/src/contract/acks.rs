//! Questions and requests of app servers that want an acknowledgement.

use trunkline_protocol::manifest::HubManifest;
use trunkline_protocol::service::*;

use super::app::{App, AppLink, membership};
use super::client::Client;
use super::stage::{Stage, run, settings, token_of};

async fn chat() -> (Stage, App, AppLink) {
    let stage = Stage::with(settings(), 2);
    let mut app = stage.app("app-1", vec![HubManifest::new("chat", "/chat")]);
    let link = app.link().await;
    (stage, app, link)
}

fn check(subject: &str, ack_id: i64) -> Check {
    Check { subject: subject.into(), ack_id }
}

#[test]
fn existence_of_connections_users_and_groups_is_known_on_all_shards() {
    run(async {
        let (stage, _app, mut link) = chat().await;
        let target = format!("/chat?access_token={}", token_of("ann"));
        let clients =
            [Client::connect(&stage, &mut link, &target).await, Client::connect(&stage, &mut link, &target).await];
        link.join(&clients[1].id, "red").await;
        let questions = [
            (ServiceMessage::CheckConnectionExistenceWithAck(check(&clients[0].id, 1)), AckStatus::Ok),
            (ServiceMessage::CheckConnectionExistenceWithAck(check(&clients[1].id, 2)), AckStatus::Ok),
            (ServiceMessage::CheckConnectionExistenceWithAck(check("nobody", 3)), AckStatus::NotFound),
            (ServiceMessage::CheckUserExistenceWithAck(check("ann", 4)), AckStatus::Ok),
            (ServiceMessage::CheckUserExistenceWithAck(check("bob", 5)), AckStatus::NotFound),
            (ServiceMessage::CheckGroupExistenceWithAck(check("red", 6)), AckStatus::Ok),
            (ServiceMessage::CheckGroupExistenceWithAck(check("blue", 7)), AckStatus::NotFound),
        ];
        for (number, (question, status)) in (1..).zip(questions) {
            link.send(question).await;
            assert_eq!(link.ack().await, (number, status));
        }
        for (group, status) in [("red", AckStatus::Ok), ("blue", AckStatus::NotFound)] {
            let question = CheckUserInGroup { user_id: "ann".into(), group: group.into(), ack_id: 8 };
            link.send(ServiceMessage::CheckUserInGroupWithAck(question)).await;
            assert_eq!(link.ack().await, (8, status));
        }
    });
}

#[test]
fn joining_with_the_id_of_nobody_is_not_found_and_leaving_a_group_of_others_is_fine() {
    run(async {
        let (stage, _app, mut link) = chat().await;
        let client = Client::connect(&stage, &mut link, "/chat").await;
        link.send(ServiceMessage::JoinGroupWithAck(membership("nobody", "red", 1))).await;
        assert_eq!(link.ack().await, (1, AckStatus::NotFound));
        link.send(ServiceMessage::LeaveGroupWithAck(membership(&client.id, "red", 2))).await;
        assert_eq!(link.ack().await, (2, AckStatus::Ok));
    });
}

#[test]
fn closes_that_want_an_acknowledgement_close_one_many_a_user_or_a_group() {
    run(async {
        let (stage, _app, mut link) = chat().await;
        let target = format!("/chat?access_token={}", token_of("ann"));
        let kinds: [fn(CloseWithAck) -> ServiceMessage; 4] = [
            ServiceMessage::CloseConnectionWithAck,
            ServiceMessage::CloseConnectionsWithAck,
            ServiceMessage::CloseUserConnectionsWithAck,
            ServiceMessage::CloseGroupConnectionsWithAck,
        ];
        for (place, kind) in kinds.into_iter().enumerate() {
            let mut client = Client::connect(&stage, &mut link, &target).await;
            link.join(&client.id, "red").await;
            let subject = [client.id.as_str(), "", "ann", "red"][place].into();
            let reason = Some("because".into());
            link.send(kind(CloseWithAck { subject, reason, ack_id: 77, excluded: Vec::new() })).await;
            let (mut is_acknowledged, mut is_closed) = (false, false);
            while !(is_acknowledged && is_closed) {
                match link.next().await {
                    ServiceMessage::Ack(ack) => is_acknowledged = (ack.ack_id, ack.status) == (77, AckStatus::Ok),
                    ServiceMessage::CloseConnection(close) => is_closed = close.connection_id == client.id,
                    other => panic!("{other:?}"),
                }
            }
            assert!(client.text().await.starts_with("{\"type\":7"));
        }
    });
}
