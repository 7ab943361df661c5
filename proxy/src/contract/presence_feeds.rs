//! Presence feeds: changes of users and group members reported to app servers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytestring::ByteString;
use tokio::time::sleep;
use trunkline_protocol::manifest::{HubManifest, PresenceScope};
use trunkline_protocol::service::*;

use super::app::{AppLink, membership};
use super::client::Client;
use super::fixture::{Fixture, paused, settings, token_of};
use super::hub_message::stopping;
use super::scene::LinkedApp;

const BOTH: PresenceScope = PresenceScope { users: true, groups: true };

type Member = (String, String);

/// State that an app server derives from updates.
#[derive(Debug, Default)]
struct Belief {
    shards: BTreeMap<i64, ShardBelief>,
}

#[derive(Debug, Default, Clone)]
struct ShardBelief {
    stream: i64,
    users: BTreeSet<String>,
    members: BTreeSet<Member>,
    app_servers: Vec<ByteString>,
    lost: Vec<ByteString>,
    is_complete: bool,
}

impl Belief {
    fn apply(&mut self, update: PresenceChanges) {
        let shard = self.shards.entry(update.shard).or_default();
        assert!(update.stream >= shard.stream, "streams go backwards");
        if update.stream > shard.stream {
            *shard = ShardBelief { stream: update.stream, ..ShardBelief::default() };
            assert!(update.app_servers.is_some(), "a stream begins with those who hear");
        }
        for user in &update.offline {
            shard.users.remove(&**user);
        }
        shard.users.extend(update.online.iter().map(ToString::to_string));
        let member = |(group, id): &(ByteString, ByteString)| (group.to_string(), id.to_string());
        for left in &update.left {
            shard.members.remove(&member(left));
        }
        let joined = |join: &GroupJoin| (join.group.to_string(), join.connection_id.to_string());
        shard.members.extend(update.joined.iter().map(joined));
        shard.is_complete |= update.phase != PresencePhase::Snapshot;
        if let Some(app_servers) = update.app_servers {
            shard.app_servers = app_servers;
        }
        shard.lost.extend(update.lost);
    }

    /// Applies updates until the condition holds.
    async fn until(&mut self, link: &mut AppLink, is_wanted: impl Fn(&Self) -> bool) {
        while !is_wanted(self) {
            self.apply(link.update().await);
        }
    }

    fn users(&self) -> BTreeSet<&str> {
        self.shards.values().flat_map(|shard| &shard.users).map(String::as_str).collect()
    }

    fn members(&self) -> BTreeSet<Member> {
        self.shards.values().flat_map(|shard| &shard.members).cloned().collect()
    }

    /// Returns whether all shards have sent a complete snapshot with these app servers.
    fn names(&self, shards: usize, app_servers: &[&str]) -> bool {
        self.shards.len() == shards
            && self.shards.values().all(|shard| shard.is_complete && shard.app_servers == app_servers)
    }
}

fn hub(presence: PresenceScope) -> HubManifest {
    HubManifest { presence, ..HubManifest::new("chat", "/chat") }
}

async fn scene(shards: u16, presence: PresenceScope) -> (Fixture, LinkedApp) {
    Fixture::with(settings(), shards).with_app(hub(presence)).await
}

async fn connect(fixture: &Fixture, link: &mut AppLink, user: &str) -> Client {
    Client::connect(fixture, link, &format!("/chat?access_token={}", token_of(user))).await
}

async fn leave(client: Client, link: &mut AppLink) {
    client.close().await;
    link.close().await;
}

#[tokio::test(crate = "paused")]
async fn a_hub_without_a_subscription_gets_no_updates() {
    let (fixture, mut link) = scene(2, PresenceScope::default()).await;
    let client = connect(&fixture, &mut link, "ann").await;
    link.join(&client.id, "red").await;
    leave(client, &mut link).await;
    // sleep: longer than the batching of changes
    sleep(Duration::from_secs(60)).await;
    assert!(!link.has_update());
}

#[tokio::test(crate = "paused")]
async fn only_the_first_and_the_last_connection_of_a_user_are_reported() {
    let (fixture, mut link) = scene(1, PresenceScope { users: true, groups: false }).await;
    let mut belief = Belief::default();
    belief.until(&mut link, |belief| belief.names(1, &["app-1"])).await;
    let first = connect(&fixture, &mut link, "ann").await;
    let told = link.update().await;
    assert_eq!((told.online.len(), told.joined.len()), (1, 0));
    let second = connect(&fixture, &mut link, "ann").await;
    link.join(&second.id, "red").await;
    leave(first, &mut link).await;
    // sleep: longer than the batching of changes
    sleep(Duration::from_secs(60)).await;
    assert!(!link.has_update(), "the second tab, a group and the end of the first tab are none");
    leave(second, &mut link).await;
    let told = link.update().await;
    assert_eq!((told.online.len(), told.offline), (0, vec!["ann".into()]));
}

#[tokio::test(crate = "paused")]
async fn a_user_that_comes_and_leaves_between_two_updates_is_not_reported() {
    let (fixture, mut link) = scene(1, BOTH).await;
    let client = connect(&fixture, &mut link, "ann").await;
    let mut belief = Belief::default();
    belief.until(&mut link, |belief| belief.users().contains("ann")).await;
    belief.until(&mut link, |belief| belief.names(1, &["app-1"])).await;
    let change = |group: &str| membership(&client.id, group, 0);
    let (join, leave) = (ServiceMessage::JoinGroup, ServiceMessage::LeaveGroup);
    let both = [join(change("red")), leave(change("red")), join(change("red")), leave(change("red"))];
    link.send_together(both).await;
    link.join(&client.id, "blue").await;
    let told = link.update().await;
    assert_eq!((told.joined.len(), told.left.len()), (1, 0));
    assert_eq!(told.joined[0].user_id.as_deref(), Some("ann"));
}

#[tokio::test(crate = "paused")]
async fn a_later_app_server_gets_a_snapshot_and_is_listed_after_it() {
    let (fixture, mut link) = scene(2, BOTH).await;
    let mut clients = Vec::new();
    for user in ["ann", "bob", "ann", "cid"] {
        let client = connect(&fixture, &mut link, user).await;
        link.join(&client.id, "red").await;
        clients.push(client);
    }
    let mut before = Belief::default();
    before.until(&mut link, |belief| belief.names(2, &["app-1"])).await;
    let mut later_link = fixture.server_with("app-2", hub(BOTH)).await;
    let first = later_link.update().await;
    assert_eq!(first.app_servers.as_deref(), Some(&["app-1".into()][..]));
    let mut belief = Belief::default();
    belief.apply(first);
    belief.until(&mut later_link, |belief| belief.names(2, &["app-1", "app-2"])).await;
    assert_eq!(belief.users(), BTreeSet::from(["ann", "bob", "cid"]));
    assert_eq!(belief.members().len(), 4);
    before.until(&mut link, |belief| belief.names(2, &["app-1", "app-2"])).await;
    assert_eq!(before.members(), belief.members());
}

#[tokio::test(crate = "paused")]
async fn who_came_before_an_app_server_is_a_part_of_the_snapshot_and_who_comes_with_it_a_change() {
    let (fixture, mut link) = scene(1, BOTH).await;
    let old = connect(&fixture, &mut link, "ann").await;
    // sleep: longer than clients count as new
    sleep(Duration::from_secs(5)).await;
    link.retire().await;
    let mut link = fixture.server_with("app-2", hub(BOTH)).await;
    old.accept_again(&mut link).await;
    let new = connect(&fixture, &mut link, "bob").await;
    let (mut changes, mut snapshot) = (Vec::new(), Vec::new());
    loop {
        let update = link.update().await;
        match update.phase {
            PresencePhase::Changes => changes.extend(update.online),
            PresencePhase::Snapshot => snapshot.extend(update.online),
            PresencePhase::SnapshotEnd => {
                snapshot.extend(update.online);
                break;
            }
        }
    }
    assert_eq!((changes, snapshot), (vec!["bob".into()], vec!["ann".into()]));
    drop((old, new));
}

#[tokio::test(crate = "paused")]
async fn a_lost_app_server_is_named_and_one_that_stops_is_only_taken_off_the_list() {
    let (fixture, mut link) = scene(1, BOTH).await;
    let (mut second, mut third) = (fixture.app("app-2", vec![hub(BOTH)]), fixture.app("app-3", vec![hub(BOTH)]));
    let (_lost, mut leaving) = (second.link().await, third.link().await);
    let mut belief = Belief::default();
    belief.until(&mut link, |belief| belief.names(1, &["app-1", "app-2", "app-3"])).await;
    second.retire();
    belief.until(&mut link, |belief| belief.names(1, &["app-1", "app-3"])).await;
    assert_eq!(belief.shards[&0].lost, ["app-2"]);
    leaving.send(stopping()).await;
    belief.until(&mut link, |belief| belief.names(1, &["app-1"])).await;
    assert_eq!(belief.shards[&0].lost, ["app-2"]);
    let client = connect(&fixture, &mut link, "ann").await;
    let mut last = Belief::default();
    last.until(&mut leaving, |belief| belief.users().contains("ann")).await;
    assert!(last.names(1, &["app-1"]), "it hears on, and is not to tell");
    leave(client, &mut link).await;
}

#[tokio::test(crate = "paused")]
async fn a_lost_link_is_followed_by_a_new_stream_with_all_that_is_there() {
    let (fixture, mut link) = scene(1, BOTH).await;
    let (ann, mut belief) = (connect(&fixture, &mut link, "ann").await, Belief::default());
    link.join(&ann.id, "red").await;
    belief.until(&mut link, |belief| belief.members().len() == 1 && belief.names(1, &["app-1"])).await;
    let stream = belief.shards[&0].stream;
    let mut app = link.cut();
    let mut link = app.link().await;
    belief.until(&mut link, |belief| belief.shards[&0].stream > stream && belief.names(1, &["app-1"])).await;
    assert_eq!((belief.users(), belief.members().len()), (BTreeSet::from(["ann"]), 1));
}

#[tokio::test(crate = "paused")]
async fn an_app_server_that_does_not_read_is_told_anew_later_and_others_are_told_on() {
    let mut slow = settings();
    slow.links.outbox_max_bytes = 4096;
    slow.groups.name_max_bytes = 64 * 1024;
    let (fixture, mut link) = Fixture::with(slow, 1).with_app(hub(BOTH)).await;
    let client = connect(&fixture, &mut link, "ann").await;
    let mut other = fixture.server_with("app-2", hub(BOTH)).await;
    let (mut belief, mut late) = (Belief::default(), Belief::default());
    belief.until(&mut link, |belief| belief.names(1, &["app-1", "app-2"])).await;
    late.until(&mut other, |belief| belief.names(1, &["app-1", "app-2"])).await;
    other.set_reading(false);
    for number in 0..200 {
        link.join(&client.id, &format!("{number:0>20000}")).await;
        belief.until(&mut link, |belief| belief.members().len() > number).await;
    }
    let resyncs = fixture.shared.counters_of(0).presence_resyncs.get();
    assert!(resyncs > 0, "nothing was too much");
    other.set_reading(true);
    late.until(&mut other, |late| late.members() == belief.members()).await;
}

#[tokio::test(crate = "paused")]
async fn a_snapshot_that_fills_its_link_continues_where_it_stopped() {
    for are_new in [false, true] {
        let mut narrow = settings();
        narrow.links.outbox_max_bytes = 64 * 1024;
        narrow.groups.name_max_bytes = 64 * 1024;
        let fixture = Fixture::with(narrow, 1);
        let mut app = fixture.app("app-1", vec![hub(BOTH)]);
        let (mut link, mut clients) = (app.link().await, Vec::new());
        for number in 0..60 {
            let client = connect(&fixture, &mut link, &format!("u{number}")).await;
            link.join(&client.id, &format!("{number:0>20000}")).await;
            clients.push(client);
        }
        if !are_new {
            // sleep: longer than clients count as new
            sleep(Duration::from_secs(5)).await;
        }
        let mut later_link = fixture.server_with("app-2", hub(BOTH)).await;
        later_link.set_reading(false);
        // sleep: time for the snapshot to fill the link
        sleep(Duration::from_secs(5)).await;
        later_link.set_reading(true);
        let mut belief = Belief::default();
        belief.apply(later_link.update().await);
        let stream = belief.shards[&0].stream;
        let is_reported = |belief: &Belief| {
            assert_eq!(belief.shards[&0].stream, stream, "it has begun again");
            belief.names(1, &["app-1", "app-2"])
        };
        belief.until(&mut later_link, is_reported).await;
        assert_eq!((belief.users().len(), belief.members().len()), (60, 60));
        assert_eq!(fixture.shared.counters_of(0).presence_resyncs.get(), 0);
    }
}

#[tokio::test(crate = "paused")]
async fn the_connections_of_a_user_are_listed_and_counted_on_all_shards() {
    let (fixture, mut link) = scene(2, PresenceScope::default()).await;
    let mut ids = BTreeSet::new();
    let mut clients = Vec::new();
    for user in ["ann", "bob", "ann", "ann"] {
        let client = connect(&fixture, &mut link, user).await;
        if user == "ann" {
            ids.insert(client.id.clone());
        }
        clients.push(client);
    }
    let query = |page_size, continuation_token| {
        let (user_id, page_size) = ("ann".into(), Some(page_size));
        ServiceMessage::UserConnectionQuery(UserConnectionQuery { user_id, ack_id: 7, page_size, continuation_token })
    };
    let (mut listed, mut token) = (BTreeSet::new(), None);
    loop {
        link.send(query(2, token.take())).await;
        let page = MemberPage::from_payload(&link.whole_ack().await.payload.unwrap()).unwrap();
        assert!(page.members.iter().all(|member| member.user_id.as_deref() == Some("ann")));
        listed.extend(page.members.iter().map(|member| member.connection_id.to_string()));
        token = page.continuation_token;
        if token.is_none() {
            break;
        }
    }
    assert_eq!(listed, ids);
    link.send(query(0, None)).await;
    let page = MemberPage::from_payload(&link.whole_ack().await.payload.unwrap()).unwrap();
    assert_eq!(page.count, Some(3));
}

/// Compares random joins and leaves on two shards, with cut links, against plain sets.
#[tokio::test(crate = "paused")]
async fn an_app_server_has_the_actual_state_after_random_changes() {
    let fixture = Fixture::with(settings(), 2);
    let mut app = fixture.app("app-1", vec![hub(BOTH)]);
    let mut link = app.link().await;
    let mut clients = Vec::new();
    for number in 0..12 {
        clients.push(connect(&fixture, &mut link, &format!("u{}", number % 5)).await);
    }
    let (mut belief, mut members) = (Belief::default(), BTreeSet::<Member>::new());
    let mut seed = 11_u64;
    for step in 0..2_000 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let client = &clients[usize::try_from((seed >> 33) % 12).unwrap()];
        let (group, id) = (format!("g{}", (seed >> 40) % 7), client.id.clone());
        let change = membership(&id, &group, 0);
        if (seed >> 50).is_multiple_of(2) {
            link.send(ServiceMessage::JoinGroup(change)).await;
            members.insert((group, id));
        } else {
            link.send(ServiceMessage::LeaveGroup(change)).await;
            members.remove(&(group, id));
        }
        if step % 500 == 499 {
            link.fence().await;
            link.cut();
            link = app.link().await;
            for _ in 0..2 * clients.len() {
                // The app server gets each client again: an opening and a hub handshake.
                link.next().await;
            }
        }
        if step % 50 == 49 {
            link.fence().await;
            belief.until(&mut link, |belief| belief.members() == members).await;
            assert_eq!(belief.users().len(), 5);
        }
    }
}
