//! Tests of app code outside of methods: closes, queries about groups and users, items.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::{TestClient, TestServer};
use crate::{Cause, Context, HistoryError, Hub, HubHandle, Member, SendError};

fn server() -> TestServer {
    let hub = Hub::new("/test")
        .method("Join", async |ctx: Context, group: String| Ok::<_, crate::HubError>(ctx.join(group).await?))
        .method("AbortWith", async |ctx: Context, reason: String| ctx.abort_with(reason))
        .method("Count", async |ctx: Context| {
            ctx.items().get_or_insert_with(Arc::<AtomicU32>::default).fetch_add(1, Ordering::Relaxed)
        })
        .method("Nested", async |ctx: Context| {
            // The items are not locked while the value is created; otherwise this would deadlock.
            ctx.items().get_or_insert_with(|| ctx.items().get_or_insert_with(|| 7_u32).to_string())
        });
    TestServer::new(hub).unwrap()
}

async fn members(server: &TestServer, users: &[&str], group: &str) -> Vec<TestClient> {
    let mut clients = Vec::new();
    for user in users {
        let mut client = server.connect("/test").user(*user).await.unwrap();
        client.invoke::<()>("Join", (group,)).await.unwrap();
        clients.push(client);
    }
    clients
}

fn hub(server: &TestServer) -> HubHandle {
    server.handle().hub("test").unwrap()
}

#[tokio::test]
async fn a_client_with_stateful_reconnect_is_called_and_invoked_like_others() {
    let hub = Hub::new("/test").stateful_reconnect(true).method("Greet", async |ctx: Context| {
        ctx.clients().caller().send("Hello", (1,)).await?;
        Ok::<_, crate::HubError>(ctx.clients().caller().invoke::<u32>("Ask", ()).await?)
    });
    let server = TestServer::new(hub).unwrap();
    let mut client = server.connect("/test").await.unwrap();
    let greeting = client.begin("Greet", ()).await.unwrap();
    let (number,): (u32,) = client.expect("Hello").await;
    let asked = client.next().await.unwrap();
    client.answer(&asked, number + 1).await.unwrap();
    assert_eq!(greeting.result::<u32>().await.unwrap(), 2);
}

#[tokio::test]
async fn the_client_reads_why_it_was_closed() {
    let server = server();
    let mut clients = members(&server, &["ann", "bob", "cid", "dan"], "g").await;
    let all = hub(&server).clients();
    assert!(clients[0].invoke::<()>("AbortWith", ("see you",)).await.is_err());
    assert_eq!(clients[0].closed().await.as_deref(), Some("see you"));
    assert!(!all.user("ann").close("late").await.unwrap());
    assert!(all.client(clients[1].connection_id()).close("banned").await.unwrap());
    assert_eq!(clients[1].closed().await.as_deref(), Some("banned"));
    assert!(all.group_except("g", [clients[3].connection_id()]).close("closed for today").await.unwrap());
    assert_eq!(clients[2].closed().await.as_deref(), Some("closed for today"));
    assert!(clients[3].invoke::<u32>("Count", ()).await.is_ok());
    assert!(all.all().close("").await.unwrap());
    assert_eq!(clients[3].closed().await, None);
}

#[tokio::test]
async fn a_close_from_outside_ends_the_connection_with_the_cause_that_the_app_closed_it() {
    let (sender, mut ends) = tokio::sync::mpsc::unbounded_channel();
    let hub = Hub::new("/test").on_disconnected(move |ctx: Context, cause: Cause| {
        let _ = sender.send((ctx.user_id().map(str::to_owned), cause));
        async {}
    });
    let server = TestServer::new(hub).unwrap();
    let _ann = server.connect("/test").user("ann").await.unwrap();
    assert!(server.handle().hub("test").unwrap().clients().user("ann").close("bye").await.unwrap());
    assert_eq!(ends.recv().await, Some((Some("ann".into()), Cause::AppClosed)));
}

#[tokio::test]
async fn groups_list_their_members() {
    let server = server();
    let clients = members(&server, &["ann", "bob", "ann", "cid"], "g").await;
    let (groups, all) = (hub(&server).groups(), hub(&server).clients());
    let count = groups.count("g").await.unwrap();
    assert_eq!((*count, count.is_complete(), count.proxies()), (4, true, 1));
    assert_eq!(*groups.users("g").await.unwrap(), ["ann", "bob", "cid"]);
    assert!(groups.exists("g").await.unwrap() && !groups.exists("h").await.unwrap());
    assert!(groups.contains_user("bob", "g").await.unwrap() && !groups.contains_user("eve", "g").await.unwrap());
    assert!(all.user_exists("cid").await.unwrap() && !all.user_exists("eve").await.unwrap());
    assert!(all.client(clients[0].connection_id()).exists().await.unwrap());
    assert!(!all.client("nobody").exists().await.unwrap());

    let mut list = groups.members("g").page_size(3);
    let mut listed: Vec<Member> = Vec::new();
    let mut sizes = Vec::new();
    while let Some(page) = list.next_page().await.unwrap() {
        sizes.push(page.len());
        listed.extend(page.into_value());
    }
    assert_eq!(sizes, [3, 1]);
    let mut ids: Vec<_> = listed.iter().map(|member| member.connection_id.as_str()).collect();
    let mut expected: Vec<_> = clients.iter().map(TestClient::connection_id).collect();
    ids.sort_unstable();
    expected.sort_unstable();
    assert_eq!(ids, expected);
}

#[tokio::test]
async fn users_join_and_leave_groups_with_all_their_connections() {
    let server = server();
    let _clients = members(&server, &["ann", "ann", "bob"], "g").await;
    let groups = hub(&server).groups();
    groups.add_user("ann", "h").await.unwrap();
    assert_eq!((*groups.count("h").await.unwrap(), *groups.count("g").await.unwrap()), (2, 3));
    groups.remove_user("ann", "h").await.unwrap();
    assert!(!groups.exists("h").await.unwrap());
    groups.add_user("ann", "h").await.unwrap();
    groups.remove_user_from_all("ann").await.unwrap();
    assert!(!groups.exists("h").await.unwrap());
    assert_eq!(*groups.users("g").await.unwrap(), ["bob"]);
}

#[tokio::test]
async fn items_are_made_once_and_may_use_the_items_while_they_are_made() {
    let server = server();
    let mut ann = server.connect("/test").await.unwrap();
    for expected in 0..3 {
        assert_eq!(ann.invoke::<u32>("Count", ()).await, Ok(expected));
    }
    assert_eq!(ann.invoke::<String>("Nested", ()).await, Ok("7".into()));
}

#[tokio::test]
async fn sends_to_recorded_groups_have_positions_and_ids_and_an_end() {
    let (join, hour) = (async |ctx: Context, group: String| Ok::<_, crate::HubError>(ctx.join(group).await?), 3600);
    let hour = Duration::from_secs(hour);
    let hub = Hub::new("/test").history("room-*", 100, hour).history_of_users("ann", 1, hour).method("Join", join);
    let server = TestServer::new(hub).unwrap();
    let mut ann = server.connect("/test").user("ann").await.unwrap();
    for group in ["room-1", "room-2", "plain"] {
        ann.invoke::<()>("Join", (group,)).await.unwrap();
    }
    let clients = server.handle().hub("test").unwrap().clients();
    let first = clients.group("room-1").id("a").send("Say", (1,)).await.unwrap();
    let again = clients.group("room-1").id("a").send("Say", (1,)).await.unwrap();
    let second = clients.group_except("room-1", [ann.connection_id()]).send("Say", (2,)).await.unwrap();
    assert_eq!((first.position(), first.acknowledged().await), (again.position(), Ok(1)));
    assert_ne!(first.position(), second.position());
    let to_several = clients.groups(["room-1", "plain", "room-2"]).send("Say", (3,)).await.unwrap();
    assert_eq!(to_several.positions().map(|(name, _)| name).collect::<Vec<_>>(), ["room-1", "room-2"]);
    assert!(clients.users(["ann", "bob"]).send("Say", (4,)).await.unwrap().position().is_some());
    assert!(clients.group("plain").send("Say", (5,)).await.unwrap().position().is_none());
    for number in [1, 3, 3, 3, 4, 5] {
        assert_eq!(ann.expect::<(u32,)>("Say").await, (number,));
    }
    let refused = |sent: Result<crate::Sent, SendError>| match sent {
        Err(SendError::History(error)) => error,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(clients.group("room-1").id("a").send("Say", (9,)).await), HistoryError::OtherMessage);
    assert_eq!(
        refused(clients.group("room-1").id("a".repeat(129)).send("Say", (9,)).await),
        HistoryError::IdLength(129)
    );
    assert_eq!(refused(clients.group("plain").id("a").send("Say", (9,)).await), HistoryError::NotRecorded);
    clients.history().finish("room-1").await.unwrap();
    assert_eq!(refused(clients.group("room-1").send("Say", (9,)).await), HistoryError::Finished);
    clients.history().delete("room-1").await.unwrap();
    assert_eq!(clients.history().delete("room-1").await, Err(HistoryError::NotFound));
    assert!(ann.try_next().is_none());
}
