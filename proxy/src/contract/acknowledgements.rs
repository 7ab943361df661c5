//! Requests of app servers that need an acknowledgement.

use std::collections::BTreeSet;
use std::time::Duration;

use trunkline_protocol::cause::Cause;
use trunkline_protocol::service::*;

use super::app::{AppLink, membership, to_group};
use super::app_keys::keys;
use super::client::Client;
use super::closes::cause_of;
use super::fixture::{Fixture, paused, settings};
use super::fleet_nodes::until;
use super::scene::LinkedApp;
use crate::ground::auth::AccessSettings;
use crate::ground::metrics::Limit;

async fn chat() -> (Fixture, LinkedApp) {
    Fixture::with(settings(), 2).with_chat().await
}

fn check(subject: &str, ack_id: i64) -> Check {
    Check { subject: subject.into(), ack_id }
}

#[tokio::test(crate = "paused")]
async fn existence_of_connections_users_and_groups_is_known_on_all_shards() {
    let (_, mut link) = chat().await;
    let clients = [link.client_of("ann").await, link.client_of("ann").await];
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
}

#[tokio::test(crate = "paused")]
async fn joining_with_an_unknown_id_is_not_found_and_leaving_a_group_of_others_succeeds() {
    let (_, mut link) = chat().await;
    let client = link.client().await;
    link.send(ServiceMessage::JoinGroupWithAck(membership("nobody", "red", 1))).await;
    assert_eq!(link.ack().await, (1, AckStatus::NotFound));
    link.send(ServiceMessage::LeaveGroupWithAck(membership(&client.id, "red", 2))).await;
    assert_eq!(link.ack().await, (2, AckStatus::Ok));
}

#[tokio::test(crate = "paused")]
async fn names_of_groups_have_a_sum_that_the_clients_with_most_reach_first() {
    let mut settings = settings();
    settings.groups.names_total_bytes = 1024 * 1024;
    let (fixture, mut link) = Fixture::with(settings, 2).with_chat().await;
    let clients: [Client; 4] = link.clients().await;
    let mut join = async |client: usize, number: i64| {
        let name = format!("{client}-{number:0>1000}");
        link.send(ServiceMessage::JoinGroupWithAck(membership(&clients[client].id, &name, number))).await;
        link.whole_ack().await
    };
    let mut joined = [0; 4];
    for (client, joined) in joined.iter_mut().enumerate().take(3) {
        for number in 0..1_000 {
            let ack = join(client, number).await;
            if ack.status != AckStatus::Ok {
                let text = ack.message.unwrap_or_default();
                assert!(text.contains("--group-names-total-max-bytes"), "{text}");
                break;
            }
            *joined += 1;
        }
    }
    assert!(joined[0] > 400 && joined[0] < 500 && joined[1] > 200 && joined[2] > 100, "{joined:?}");
    assert_eq!(join(3, 0).await.status, AckStatus::Ok, "a client with few groups joins one");
    assert_eq!(join(0, 5_000).await.status, AckStatus::InternalServerError);
    let names = &fixture.shared.limits.group_names;
    assert!(names.len() <= 1024 * 1024, "{}", names.len());
    assert_eq!(fixture.shared.limits.refusals.all()[0].0, "group_names");
    drop(clients);
    until(Duration::from_secs(60), "names of groups without members are returned", || names.len() == 0).await;
}

#[tokio::test(crate = "paused")]
async fn a_client_with_few_groups_joins_another_one_and_the_client_with_most_makes_room() {
    let app_keys = keys("chat=the key of the app of the hub\nnews=the key of another app");
    let access = AccessSettings { app_keys, ..AccessSettings::default() };
    let mut settings = settings();
    settings.groups.names_total_bytes = 1024 * 1024;
    let (_fixture, mut link) = Fixture::with((settings, access), 1).with_chat().await;
    let greedy: [Client; 32] = link.clients().await;
    let [mut quiet, other] = link.clients().await;
    let name = |client: &Client, number: i64| format!("{}-{number:0>1000}", client.id);
    for number in 0..100 {
        for client in &greedy {
            let join = membership(&client.id, &name(client, number), number);
            link.send(ServiceMessage::JoinGroupWithAck(join)).await;
            link.whole_ack().await;
        }
    }
    // sleep: paused time; sums of apps are older than that
    tokio::time::sleep(Duration::from_secs(1)).await;
    link.join(&quiet.id, &name(&quiet, 0)).await;
    let close = link.close().await;
    assert!(greedy.iter().any(|client| client.id == *close.connection_id), "{close:?}");
    assert_eq!(cause_of(&close).as_deref(), Some("group_names_total"));
    link.join(&other.id, "small").await;
    link.send(to_group(&name(&quiet, 0), "1")).await;
    assert_eq!(quiet.text().await, "1");
}

#[tokio::test(crate = "paused")]
async fn groups_of_a_client_are_bounded_in_number_and_name_and_the_app_learns_why() {
    let mut settings = settings();
    settings.groups.per_client = 100;
    let (fixture, mut link) = Fixture::with(settings, 2).with_chat().await;
    let client = link.client_of("ann").await;
    let (mut refused, mut text) = (0, String::new());
    for number in 0..3_000 {
        let name = format!("{number:0>32000}");
        link.send(ServiceMessage::JoinGroupWithAck(membership(&client.id, &name, number))).await;
        let ack = link.whole_ack().await;
        refused += u32::from(ack.status == AckStatus::InternalServerError);
        text = ack.message.unwrap_or_default().to_string();
    }
    assert_eq!(refused, 3_000);
    assert!(text.contains("32000 bytes") && text.contains("--group-name-max-bytes"), "{text}");
    for number in 0..1_000 {
        let name = format!("{number:0>1024}");
        link.send(ServiceMessage::JoinGroupWithAck(membership(&client.id, &name, number))).await;
        let ack = link.whole_ack().await;
        let expected = if number < 100 { AckStatus::Ok } else { AckStatus::InternalServerError };
        assert_eq!(ack.status, expected, "{number}: {:?}", ack.message);
        text = ack.message.unwrap_or_default().to_string();
    }
    assert!(text.contains("100 groups") && text.contains("--groups-per-client-max"), "{text}");
    let count = |limit| fixture.shared.counters().iter().map(|counters| counters.limit(limit).get()).sum::<u64>();
    assert_eq!((count(Limit::GroupName), count(Limit::Groups)), (3_000, 900));
    // The client may rejoin a group, and leaving one frees a slot. Joins by user have the same limit.
    link.join(&client.id, &format!("{:0>1024}", 5)).await;
    let join = |group: &str| {
        let (user_id, group) = ("ann".into(), Some(group.into()));
        ServiceMessage::UserJoinGroupWithAck(UserGroupChange { user_id, group, ack_id: 7, ttl_s: None })
    };
    link.send(join("by user")).await;
    assert_eq!(link.ack().await, (7, AckStatus::InternalServerError));
    let leave = membership(&client.id, &format!("{:0>1024}", 5), 8);
    link.send(ServiceMessage::LeaveGroupWithAck(leave)).await;
    assert_eq!(link.ack().await, (8, AckStatus::Ok));
    link.send(join("by user")).await;
    assert_eq!(link.ack().await, (7, AckStatus::Ok));
}

#[tokio::test(crate = "paused")]
async fn closes_that_want_an_acknowledgement_close_one_many_a_user_or_a_group() {
    let (_, mut link) = chat().await;
    let kinds: [fn(CloseWithAck) -> ServiceMessage; 4] = [
        ServiceMessage::CloseConnectionWithAck,
        ServiceMessage::CloseConnectionsWithAck,
        ServiceMessage::CloseUserConnectionsWithAck,
        ServiceMessage::CloseGroupConnectionsWithAck,
    ];
    for (place, kind) in kinds.into_iter().enumerate() {
        let mut client = link.client_of("ann").await;
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
}

fn query(page_size: i64, token: Option<&str>) -> GroupMemberQuery {
    let continuation_token = token.map(Into::into);
    GroupMemberQuery { group: "red".into(), ack_id: 9, page_size: Some(page_size), top: None, continuation_token }
}

async fn answer(link: &mut AppLink, query: GroupMemberQuery) -> Ack {
    link.send(ServiceMessage::GroupMemberQuery(query)).await;
    match link.next().await {
        ServiceMessage::Ack(ack) => ack,
        other => panic!("{other:?}"),
    }
}

async fn page(link: &mut AppLink, query: GroupMemberQuery) -> MemberPage {
    let ack = answer(link, query).await;
    assert_eq!((ack.ack_id, ack.status), (9, AckStatus::Ok));
    MemberPage::from_payload(&ack.payload.unwrap()).unwrap()
}

/// Lists all pages: the number of members on each, and all members.
async fn pages(link: &mut AppLink, page_size: i64) -> (Vec<usize>, Vec<GroupMember>) {
    let (mut sizes, mut members, mut token) = (Vec::new(), Vec::new(), None);
    loop {
        let page = page(link, query(page_size, token.as_deref())).await;
        sizes.push(page.members.len());
        members.extend(page.members);
        match page.continuation_token {
            Some(next) => token = Some(next.to_string()),
            None => return (sizes, members),
        }
    }
}

#[tokio::test(crate = "paused")]
async fn members_of_a_group_are_counted_and_listed_a_page_at_a_time_over_all_shards() {
    let (_, mut link) = chat().await;
    assert_eq!(page(&mut link, query(0, None)).await, MemberPage::counted(0));
    assert_eq!(page(&mut link, query(10, None)).await, MemberPage::default());
    let mut clients = Vec::new();
    for number in 0..7 {
        let user = format!("user-{}", number % 2);
        let client = if number == 6 { link.client().await } else { link.client_of(&user).await };
        link.join(&client.id, "red").await;
        clients.push(client);
    }
    let _outsider = link.client().await;
    assert_eq!(page(&mut link, query(0, None)).await, MemberPage::counted(7));
    let expected: BTreeSet<_> = clients.iter().map(|client| client.id.clone()).collect();
    for (page_size, sizes) in [(100, vec![7]), (3, vec![3, 3, 1])] {
        let (listed, members) = pages(&mut link, page_size).await;
        assert_eq!(listed, sizes);
        assert_eq!(members.iter().map(|member| member.connection_id.to_string()).collect::<BTreeSet<_>>(), expected);
    }
    let (_, members) = pages(&mut link, 2).await;
    let users = |wanted: Option<&str>| members.iter().filter(|member| member.user_id.as_deref() == wanted).count();
    assert_eq!([users(Some("user-0")), users(Some("user-1")), users(None)], [3, 3, 1]);
}

#[tokio::test(crate = "paused")]
async fn no_member_is_listed_twice_while_members_join_and_leave_between_two_pages() {
    let (_, mut link) = chat().await;
    let clients: [Client; 8] = link.clients().await;
    link.join_all(&clients, "red").await;
    let first = page(&mut link, query(3, None)).await;
    // The member list is dense: the last member fills the gap of a leaving one, so paging has already passed its
    // position.
    let left = first.members[0].connection_id.to_string();
    link.send(ServiceMessage::LeaveGroupWithAck(membership(&left, "red", 5))).await;
    assert_eq!(link.ack().await, (5, AckStatus::Ok));
    link.join(&left, "red").await;
    let second = page(&mut link, query(100, first.continuation_token.as_deref())).await;
    let listed: Vec<_> = first.members.iter().chain(&second.members).map(|member| &member.connection_id).collect();
    assert_eq!(listed.iter().collect::<BTreeSet<_>>().len(), listed.len(), "{listed:?}");
    assert_eq!(listed.len(), clients.len());
    assert_eq!(second.continuation_token, None);
}

#[tokio::test(crate = "paused")]
async fn the_later_layout_of_a_member_query_ends_with_as_many_as_are_wanted() {
    let (_, mut link) = chat().await;
    let clients: [Client; 4] = link.clients().await;
    link.join_all(&clients, "red").await;
    let listed = page(&mut link, GroupMemberQuery { top: Some(2), ..query(100, None) }).await;
    assert_eq!((listed.members.len(), listed.continuation_token), (2, None));
    let listed = page(&mut link, GroupMemberQuery { page_size: None, ..query(1, None) }).await;
    assert_eq!((listed.members.len(), listed.continuation_token), (4, None));
    let listed = page(&mut link, GroupMemberQuery { top: Some(3), ..query(2, None) }).await;
    assert_eq!((listed.members.len(), listed.continuation_token.is_some()), (2, true));
}

#[tokio::test(crate = "paused")]
async fn a_token_of_another_process_is_refused_and_one_behind_the_end_has_no_members() {
    let (fixture, mut link) = chat().await;
    for token in ["", "rubbish", "other.0.0"] {
        let ack = answer(&mut link, query(1, Some(token))).await;
        assert_eq!((ack.ack_id, ack.status, ack.payload), (9, AckStatus::InternalServerError, None), "{token}");
    }
    let behind = format!("{}.77.0", fixture.shared.boot);
    assert_eq!(page(&mut link, query(1, Some(&behind))).await, MemberPage::default());
}

#[tokio::test(crate = "paused")]
async fn a_close_by_the_own_app_server_has_its_cause_and_the_client_reads_the_reason() {
    let (_, mut link, mut client) = Fixture::with(settings(), 2).with_client().await;
    let reason = Some("banned".into());
    let close = CloseWithAck { subject: client.id.as_str().into(), reason, ack_id: 7, excluded: Vec::new() };
    link.send(ServiceMessage::CloseConnectionWithAck(close)).await;
    assert_eq!(client.text().await, "{\"type\":7,\"error\":\"banned\"}");
    let notice = link.close().await;
    let cause = cause_of(&notice);
    assert!(cause.is_none_or(|cause| cause == Cause::AppClosed.label()), "{:?}", notice.headers);
    assert_eq!(link.ack().await, (7, AckStatus::Ok));
}
