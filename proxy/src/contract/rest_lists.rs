//! Lists and counts of the REST data plane: connections, users and groups of a hub, over one node and a fleet.

use axum::Router;
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::fixture::{Fixture, paused};
use super::fleet_nodes::{FleetNode, linked, nodes, peers};
use super::rest_data_plane::{BackEnd, alone, served};
use crate::ground::net::connector::MemoryNetwork;

/// Follows the links of a list, and returns its rows.
async fn rows(back_end: &BackEnd, path: &str) -> Vec<Value> {
    let (mut rows, mut path) = (Vec::new(), path.to_owned());
    loop {
        let page = back_end.ask("GET", &path, "").await;
        assert_eq!(page.status, 200, "{page:?}");
        let value = page.body["value"].as_array().unwrap();
        assert!(value.len() <= 2, "{page:?}");
        rows.extend(value.iter().cloned());
        match page.body["nextLink"].as_str() {
            Some(next) => path = next.strip_prefix("https://node.example").unwrap().to_owned(),
            None => return rows,
        }
    }
}

async fn count(back_end: &BackEnd, path: &str) -> Value {
    let answer = back_end.ask("GET", &format!("{path}/:count"), "").await;
    assert_eq!((answer.status, &answer.body["isEstimate"]), (200, &json!(false)), "{answer:?}");
    answer.body["count"].clone()
}

fn sorted(ids: impl Iterator<Item = String>) -> Vec<String> {
    let mut ids: Vec<_> = ids.collect();
    ids.sort();
    ids
}

#[tokio::test(crate = "paused")]
async fn connections_users_and_groups_of_a_hub_are_listed_in_pages_and_counted() {
    let (fixture, mut link) = Fixture::with(served(), 2).with_chat().await;
    let back_end = alone(&fixture);
    assert_eq!((rows(&back_end, "/users").await, count(&back_end, "/connections").await), (vec![], json!(0)));
    let clients = link.clients_of(["ann", "ben", "ann", "cid", "ann"]).await;
    for (of, group) in [(0, "blue"), (1, "blue"), (2, "red & green"), (4, "blue")] {
        link.join(&clients[of].id, group).await;
    }
    let users = rows(&back_end, "/users?maxpagesize=2").await;
    let user = |user: &str, connections: u64| json!({ "userId": user, "connections": connections });
    assert_eq!(users, [user("ann", 3), user("ben", 1), user("cid", 1)]);
    let group = |group: &str, connections: u64| json!({ "group": group, "connections": connections });
    assert_eq!(rows(&back_end, "/groups?maxpagesize=1").await, [group("blue", 3), group("red & green", 1)]);
    let connections = rows(&back_end, "/connections?maxpagesize=2").await;
    let ids = sorted(connections.iter().map(|row| row["connectionId"].as_str().unwrap().to_owned()));
    assert_eq!(ids, sorted(clients.iter().map(|client| client.id.clone())));
    assert_eq!(connections.iter().filter(|row| row["userId"] == "ann").count(), 3);
    assert_eq!(rows(&back_end, "/users/ann/connections?maxpagesize=2").await.len(), 3);
    // Memberships without connections are listed, too, because a query for such a membership is answered with yes.
    assert_eq!(back_end.status("PUT", "/users/ann/groups/later").await, 200);
    assert_eq!(back_end.status("PUT", "/users/zoe/groups/later").await, 200);
    let of_ann = rows(&back_end, "/users/ann/groups?maxpagesize=2").await;
    assert_eq!(of_ann, [group("blue", 2), group("later", 3), group("red & green", 1)]);
    assert_eq!(rows(&back_end, "/users/zoe/groups").await, [group("later", 0)]);
    for (path, expected) in [
        ("/connections", 5),
        ("/users", 3),
        ("/groups", 3),
        ("/groups/blue/connections", 3),
        ("/groups/none/connections", 0),
        ("/users/ann/connections", 3),
        ("/users/ann/groups", 3),
        ("/users/zoe/groups", 1),
    ] {
        assert_eq!(count(&back_end, path).await, json!(expected), "{path}");
    }
    let top = back_end.ask("GET", "/users?top=1", "").await.body;
    assert_eq!((top["value"].as_array().unwrap().len(), &top["nextLink"]), (1, &Value::Null));
    for path in ["/users?continuationToken=x.0.0", "/connections?continuationToken=after.ann", "/users?partial=1"] {
        assert_eq!(back_end.status("GET", path).await, 400, "{path}");
    }
}

#[tokio::test(crate = "paused")]
async fn lists_cover_all_nodes_count_each_user_once_and_name_the_nodes_without_an_answer() {
    let (_network, mut nodes) = nodes(3).await;
    let mut clients = Vec::new();
    for (node, user) in [(0, "ann"), (1, "ann"), (1, "ben"), (2, "cid"), (2, "ann")] {
        let node = &mut nodes[node];
        clients.push(node.link.client_of(user).await);
    }
    nodes[2].link.join(&clients[4].id, "red").await;
    linked(&nodes).await;
    let back_end = BackEnd::of(&nodes[0].fixture, nodes[0].fleet.clone());
    let user = |user: &str, connections: u64| json!({ "userId": user, "connections": connections });
    assert_eq!(rows(&back_end, "/users?maxpagesize=2").await, [user("ann", 3), user("ben", 1), user("cid", 1)]);
    for pages in ["/connections?maxpagesize=1", "/connections?maxpagesize=2"] {
        let ids = rows(&back_end, pages).await;
        let ids = sorted(ids.iter().map(|row| row["connectionId"].as_str().unwrap().to_owned()));
        assert_eq!(ids, sorted(clients.iter().map(|client| client.id.clone())), "{pages}");
    }
    assert_eq!((count(&back_end, "/users").await, count(&back_end, "/connections").await), (json!(3), json!(5)));
    assert_eq!(rows(&back_end, "/users/ann/groups").await, [json!({ "group": "red", "connections": 1 })]);
    nodes[2].cut(true);
    for path in ["/users", "/connections", "/users/:count", "/connections/:count", "/users/ann/groups"] {
        let refused = back_end.ask("GET", path, "").await;
        let expected = (503, "Error.Fleet.Incomplete", "n3");
        assert_eq!((refused.status, &*refused.code, &*refused.missing), expected, "{path}");
        let partly = back_end.ask("GET", &format!("{path}?partial=true"), "").await;
        assert_eq!((partly.status, &*partly.missing), (200, "n3"), "{path}");
    }
    let partly = back_end.ask("GET", "/users?partial=true", "").await.body;
    assert_eq!(partly["value"], json!([user("ann", 2), user("ben", 1)]));
}

#[tokio::test(crate = "paused")]
async fn a_node_that_can_not_list_is_named_instead_of_left_out() {
    let network = MemoryNetwork::default();
    let asked = FleetNode::start(&network, 1, peers(&[1, 2])).await;
    let mut other = FleetNode::start_with(&network, 2, peers(&[1, 2]), |_| Router::new()).await;
    let _ann = other.link.client_of("ann").await;
    let nodes = [asked, other];
    linked(&nodes).await;
    let back_end = BackEnd::of(&nodes[0].fixture, nodes[0].fleet.clone());
    for path in ["/users", "/connections", "/users/:count"] {
        let refused = back_end.ask("GET", path, "").await;
        assert_eq!((refused.status, &*refused.missing), (503, "n2"), "{path}");
    }
}

#[tokio::test(crate = "paused")]
async fn lists_in_progress_have_a_limit() {
    let (_network, mut nodes) = nodes(2).await;
    let node = &mut nodes[1];
    let _ann = node.link.client_of("ann").await;
    linked(&nodes).await;
    let back_end = BackEnd::of(&nodes[0].fixture, nodes[0].fleet.clone());
    nodes[1].cut(true);
    let lists = join_all((0..20).map(|_| back_end.ask("GET", "/users", ""))).await;
    let (late, busy): (Vec<_>, Vec<_>) = lists.into_iter().partition(|list| list.code == "Error.Fleet.Incomplete");
    assert_eq!((late.len(), busy.len()), (16, 4));
    assert!(busy.iter().all(|list| (list.status, &*list.code) == (503, "Error.Node.Busy")), "{busy:?}");
    assert_eq!(back_end.status("GET", "/users?partial=true").await, 200, "their permits are back");
}
