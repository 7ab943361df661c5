//! Tests of queries and commands to all proxies of a hub, and of combining the replies.

use trunkline::HubProtocol::Json;
use trunkline::{AskError, GroupError, Groups};
use trunkline_protocol::service::*;

use crate::harness::{App, LinkRequest, ProxyLink};

async fn two_proxies(app: &App) -> [ProxyLink; 2] {
    [ProxyLink::open(app, "a", 0).await, ProxyLink::open(app, "b", 0).await]
}

async fn reply(link: &mut ProxyLink, ack_id: i64, status: AckStatus) {
    link.send(ServiceMessage::Ack(Ack { ack_id, status, ..Ack::default() })).await;
}

async fn query(link: &mut ProxyLink) -> GroupMemberQuery {
    match link.next().await {
        ServiceMessage::GroupMemberQuery(query) => query,
        other => panic!("{other:?}"),
    }
}

async fn answer(link: &mut ProxyLink, query: &GroupMemberQuery, page: MemberPage) {
    let payload = Some(page.to_payload());
    link.send(ServiceMessage::Ack(Ack { ack_id: query.ack_id, payload, ..Ack::default() })).await;
}

fn page(members: &[(&'static str, Option<&'static str>)], token: Option<&'static str>) -> MemberPage {
    let member = |(id, user): &(&'static str, Option<&'static str>)| GroupMember {
        connection_id: (*id).into(),
        user_id: user.map(Into::into),
    };
    MemberPage { members: members.iter().map(member).collect(), continuation_token: token.map(Into::into), count: None }
}

fn groups(app: &App) -> Groups {
    app.handle.hub("test").unwrap().groups()
}

#[tokio::test]
async fn a_user_exists_if_any_proxy_has_a_connection() {
    let app = App::start().await;
    let mut links = two_proxies(&app).await;
    for (statuses, expected) in
        [([AckStatus::NotFound, AckStatus::Ok], true), ([AckStatus::NotFound, AckStatus::NotFound], false)]
    {
        let clients = app.handle.hub("test").unwrap().clients();
        let asking = tokio::spawn(async move { clients.user_exists("ann").await });
        for (link, status) in links.iter_mut().zip(statuses) {
            let ServiceMessage::CheckUserExistenceWithAck(check) = link.next().await else { panic!() };
            assert_eq!(&*check.subject, "ann");
            reply(link, check.ack_id, status).await;
        }
        assert_eq!(asking.await.unwrap().unwrap(), expected);
    }
}

#[tokio::test]
async fn a_denial_is_no_answer_while_a_proxy_is_lost() {
    let app = App::start().await;
    let [mut a, mut b] = two_proxies(&app).await;
    let asking = tokio::spawn({
        let groups = groups(&app);
        async move { groups.contains_user("ann", "g").await }
    });
    let ServiceMessage::CheckUserInGroupWithAck(check) = a.next().await else { panic!() };
    assert_eq!((&*check.user_id, &*check.group), ("ann", "g"));
    reply(&mut a, check.ack_id, AckStatus::NotFound).await;
    assert!(matches!(b.next().await, ServiceMessage::CheckUserInGroupWithAck(_)));
    drop(b);
    assert!(matches!(asking.await.unwrap(), Err(AskError::LinkLost)));
}

#[tokio::test]
async fn without_a_proxy_queries_fail() {
    let app = App::start().await;
    let hub = app.handle.hub("test").unwrap();
    assert!(matches!(hub.clients().user_exists("ann").await, Err(AskError::NoProxy)));
    assert!(matches!(hub.groups().count("g").await, Err(AskError::NoProxy)));
    assert!(matches!(hub.groups().count("").await, Err(AskError::EmptyGroupName)));
    assert!(matches!(hub.groups().exists("").await, Err(AskError::EmptyGroupName)));
    assert!(matches!(hub.clients().all().close("").await, Err(AskError::NoProxy)));
}

#[tokio::test]
async fn counts_are_added_up_and_a_proxy_that_lists_none_is_missing() {
    let app = App::start().await;
    let mut links = two_proxies(&app).await;
    let mut old = ProxyLink::open_as(&app, LinkRequest { lists_members: false, ..LinkRequest::of("old", 0) }).await.0;
    old.fence().await;
    let groups = groups(&app);
    let counting = tokio::spawn(async move { groups.count("g").await });
    for (link, count) in links.iter_mut().zip([2, 40]) {
        let query = query(link).await;
        assert_eq!((&*query.group, query.page_size), ("g", Some(0)));
        answer(link, &query, MemberPage::counted(count)).await;
    }
    let count = counting.await.unwrap().unwrap();
    assert_eq!((*count, count.proxies(), count.proxies_missing()), (42, 2, 1));
    assert!(!count.is_complete());
    old.quiet().await;
}

#[tokio::test]
async fn members_are_listed_proxy_by_proxy_and_page_by_page() {
    let app = App::start().await;
    let [mut a, mut b] = two_proxies(&app).await;
    let mut list = groups(&app).members("g").page_size(3);
    let listing = tokio::spawn(async move { (list.next_page().await, list) });
    let first = query(&mut a).await;
    assert_eq!((&*first.group, first.page_size, &first.continuation_token), ("g", Some(3), &None));
    answer(&mut a, &first, page(&[("1", Some("ann")), ("2", None)], Some("t"))).await;
    let second = query(&mut a).await;
    assert_eq!((second.page_size, second.continuation_token.as_deref()), (Some(1), Some("t")));
    answer(&mut a, &second, page(&[("3", Some("bob"))], None)).await;
    let (listed, list) = listing.await.unwrap();
    let listed = listed.unwrap().unwrap();
    let ids: Vec<_> = listed.iter().map(|member| (member.connection_id.as_str(), member.user_id.as_deref())).collect();
    assert_eq!(ids, [("1", Some("ann")), ("2", None), ("3", Some("bob"))]);

    let token = list.continuation_token().unwrap();
    let mut list = groups(&app).members("g").resume(&token).unwrap();
    let listing = tokio::spawn(async move { (list.next_page().await, list.next_page().await, list) });
    let third = query(&mut b).await;
    assert_eq!((third.page_size, third.continuation_token.as_deref()), (Some(100), None));
    answer(&mut b, &third, page(&[("4", None)], None)).await;
    let (last, none, list) = listing.await.unwrap();
    assert_eq!(last.unwrap().unwrap().len(), 1);
    assert!(none.unwrap().is_none());
    assert_eq!(list.continuation_token(), None);
    assert!(matches!(groups(&app).members("g").resume("rubbish"), Err(AskError::Token)));
}

#[tokio::test]
async fn users_of_a_group_are_listed_once_and_a_lost_proxy_is_missing() {
    let app = App::start().await;
    let [mut a, mut b] = two_proxies(&app).await;
    let groups = groups(&app);
    let asking = tokio::spawn(async move { groups.users("g").await });
    let first = query(&mut a).await;
    answer(&mut a, &first, page(&[("1", Some("bob")), ("2", Some("ann")), ("3", Some("bob")), ("4", None)], None))
        .await;
    query(&mut b).await;
    drop(b);
    let users = asking.await.unwrap().unwrap();
    assert_eq!((users.as_slice(), users.proxies(), users.proxies_missing()), (&["ann".into(), "bob".into()][..], 1, 1));
}

#[tokio::test]
async fn closes_go_to_every_proxy_that_may_have_the_connections() {
    let app = App::start().await;
    let mut links = two_proxies(&app).await;
    let clients = app.handle.hub("test").unwrap().clients();
    let closing = tokio::spawn({
        let receivers = clients.group_except("g", ["x"]);
        async move { receivers.close("over").await }
    });
    for (link, status) in links.iter_mut().zip([AckStatus::NotFound, AckStatus::Ok]) {
        let ServiceMessage::CloseGroupConnectionsWithAck(close) = link.next().await else { panic!() };
        assert_eq!((&*close.subject, close.reason.as_deref()), ("g", Some("over")));
        assert_eq!(close.excluded, ["x"]);
        reply(link, close.ack_id, status).await;
    }
    assert!(closing.await.unwrap().unwrap());

    let users = clients.users(["ann", "bob"]);
    let closing = tokio::spawn(async move { users.close("").await });
    for link in &mut links {
        for user in ["ann", "bob"] {
            let ServiceMessage::CloseUserConnectionsWithAck(close) = link.next().await else { panic!() };
            assert_eq!((&*close.subject, close.reason), (user, None));
            reply(link, close.ack_id, AckStatus::NotFound).await;
        }
    }
    assert!(!closing.await.unwrap().unwrap());
}

#[tokio::test]
async fn a_known_connection_is_closed_at_its_proxy_and_is_known_to_exist() {
    let app = App::start().await;
    let [mut a, mut b] = two_proxies(&app).await;
    let known = a.client("c1", Json).await;
    let client = app.handle.hub("test").unwrap().clients().client(known.id);
    assert!(client.exists().await.unwrap());
    let closing = tokio::spawn(async move { client.close("bye").await });
    let ServiceMessage::CloseConnectionWithAck(close) = a.next().await else { panic!() };
    reply(&mut a, close.ack_id, AckStatus::Ok).await;
    assert!(closing.await.unwrap().unwrap());
    b.quiet().await;
}

#[tokio::test]
async fn a_change_of_a_user_is_done_when_all_proxies_have_made_it() {
    let app = App::start().await;
    let [mut a, mut b] = two_proxies(&app).await;
    let adding = tokio::spawn({
        let groups = groups(&app);
        async move { groups.add_user("ann", "g").await }
    });
    for link in [&mut a, &mut b] {
        let ServiceMessage::UserJoinGroupWithAck(join) = link.next().await else { panic!() };
        assert_eq!((&*join.user_id, join.group.as_deref(), join.ttl_s), ("ann", Some("g"), None));
        reply(link, join.ack_id, AckStatus::NotFound).await;
    }
    adding.await.unwrap().unwrap();

    let groups = groups(&app);
    let removing = tokio::spawn(async move { groups.remove_user_from_all("ann").await });
    let ServiceMessage::UserLeaveGroupWithAck(leave) = a.next().await else { panic!() };
    assert_eq!(leave.group, None);
    reply(&mut a, leave.ack_id, AckStatus::Ok).await;
    assert!(matches!(b.next().await, ServiceMessage::UserLeaveGroupWithAck(_)));
    drop(b);
    assert!(matches!(removing.await.unwrap(), Err(GroupError::LinkLost)), "one proxy may have them still");
}

#[tokio::test]
async fn an_empty_name_is_no_group() {
    let app = App::start().await;
    let groups = groups(&app);
    assert!(matches!(groups.add_user("ann", "").await, Err(GroupError::EmptyGroupName)));
    assert!(matches!(groups.remove_user("ann", "").await, Err(GroupError::EmptyGroupName)));
    assert!(matches!(groups.members("").next_page().await, Err(AskError::EmptyGroupName)));
    assert!(groups.remove_from_all("stranger").await.is_ok());
}

#[tokio::test]
async fn a_name_that_is_too_long_is_no_group_to_join() {
    let app = App::start().await;
    let groups = groups(&app);
    let long = "x".repeat(1025);
    let refused = groups.add("stranger", &long).await;
    assert!(matches!(refused, Err(GroupError::NameTooLong { length: 1025, limit: 1024 })), "{refused:?}");
    assert!(matches!(groups.add_user("ann", &long).await, Err(GroupError::NameTooLong { .. })));
    // The group has no members; leaving and querying it still work.
    assert!(groups.remove("stranger", &long).await.is_ok());
}
