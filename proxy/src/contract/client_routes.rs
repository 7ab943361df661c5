//! Route rules: the group of app servers for each client, and effects of changed rules on connected clients.

use std::time::Duration;

use ::http::Request;
use axum::body::{Body, to_bytes};

use super::app::AppLink;
use super::client::Client;
use super::fixture::{Fixture, paused, token_of};
use super::http::negotiate;
use super::hub_message::{cast, handed_over};
use crate::ground::routing::Share;

const CANARY: &str = "[groups.canary]\nupstream = \"http://canary\"\n";

fn with_canary(rules: &str) -> String {
    format!("{CANARY}{rules}")
}

async fn hand_over(link: &mut AppLink, client: &Client) {
    link.is_asked_to_hand_over(client).await;
    link.send(handed_over(&client.id, None)).await;
}

#[tokio::test(crate = "paused")]
async fn clients_go_to_the_group_that_their_route_names_and_others_to_the_default_one() {
    let route = "[[routes]]\nhub = \"/chat\"\nquery = { name = \"new\", present = true }\ngroup = \"canary\"\n";
    let fixture = Fixture::ruled(&with_canary(route));
    let (mut stable, mut canary) = (fixture.server("stable").await, fixture.server_in("canary", "canary").await);
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(stable.client().await);
        clients.push(Client::connect(&fixture, &mut canary, "/chat?new=1").await);
    }
    assert_eq!(fixture.shared.hubs.rules().routes[0].matches.get(), 3);
}

#[tokio::test(crate = "paused")]
async fn a_percentage_takes_its_part_of_clients_without_a_user_whether_they_negotiate_or_not() {
    let route = "[[routes]]\nhub = \"/chat\"\npercent = 50\ngroup = \"canary\"\n";
    let fixture = Fixture::ruled(&with_canary(route));
    let (mut stable, mut canary) = (fixture.server("stable").await, fixture.server_in("canary", "canary").await);
    let (mut clients, mut taken) = (Vec::new(), [0_u32; 2]);
    for number in 0..400 {
        let negotiates = number % 2;
        let query = match negotiates {
            0 => String::new(),
            _ => format!("?id={}", negotiate(&fixture, "/chat", "").await.1),
        };
        let mut client = Client::upgrade(&fixture, &format!("/chat{query}")).await.unwrap();
        client.send("{\"protocol\":\"json\",\"version\":1}\u{1e}").await;
        let (open, is_canary) = tokio::select! {
            open = stable.opening() => (open, false),
            open = canary.opening() => (open, true),
        };
        if is_canary {
            canary.data().await
        } else {
            stable.data().await
        };
        let place = Share::of("canary", &open.connection_id).is_in_first(0.5);
        assert_eq!(place, is_canary, "by its id, so that rules that are read anew move nobody: {open:?}");
        taken[negotiates] += u32::from(is_canary);
        clients.push(client);
    }
    // Six standard deviations for 200 coin tosses.
    assert!(taken.iter().all(|taken| (58..=142).contains(taken)), "{taken:?}");
}

#[tokio::test(crate = "paused")]
async fn a_rejection_answers_negotiate_and_connect_with_its_status_and_text() {
    let route = "[[routes]]\nhub = \"/chat\"\nuser = \"ann\"\nreject = 403\ntext = \"not you\"\n";
    let fixture = Fixture::ruled(route);
    let mut link = fixture.server("app").await;
    let query = format!("?access_token={}", token_of("ann"));
    assert_eq!(Client::upgrade(&fixture, &format!("/chat{query}")).await.err(), Some(403));
    let negotiate =
        Request::post(format!("/chat/negotiate{query}")).header("host", "node.example").body(Body::empty()).unwrap();
    let answer = fixture.answer(negotiate).await;
    assert_eq!(answer.status(), 403);
    assert_eq!(to_bytes(answer.into_body(), 1000).await.unwrap(), "not you");
    link.client_of("ben").await;
}

#[tokio::test(crate = "paused")]
async fn clients_whose_route_changes_are_handed_over_and_nothing_is_lost() {
    let fixture = Fixture::ruled(CANARY);
    let (mut stable, mut canary) = (fixture.server("stable").await, fixture.server_in("canary", "canary").await);
    let mut client = stable.client().await;
    fixture.apply(&with_canary("[[routes]]\nhub = \"/chat\"\ngroup = \"canary\"\n"));
    client.send(&cast("Meanwhile")).await;
    hand_over(&mut stable, &client).await;
    canary.takes_over(&client, "stable").await;
    assert!(canary.data().await.0.contains("Meanwhile"));
    client.fence(&canary).await;
    fixture.apply(CANARY);
    hand_over(&mut canary, &client).await;
    stable.takes_over(&client, "canary").await;
    client.fence(&stable).await;
}

#[tokio::test(crate = "paused")]
async fn a_client_stays_until_its_new_group_can_be_reached() {
    let fixture = Fixture::ruled(CANARY);
    let mut stable = fixture.server("stable").await;
    let mut client = stable.client().await;
    fixture.apply(&with_canary("[[routes]]\nhub = \"/chat\"\ngroup = \"canary\"\n"));
    stable.fence().await;
    client.fence(&stable).await;
    let mut canary = fixture.server_in("canary", "canary").await;
    hand_over(&mut stable, &client).await;
    canary.takes_over(&client, "stable").await;
    client.fence(&canary).await;
}

#[tokio::test(crate = "paused")]
async fn a_client_whose_route_is_gone_goes_back_once_the_default_group_can_be_reached() {
    let fixture = Fixture::ruled(&with_canary("[[routes]]\nhub = \"/chat\"\ngroup = \"canary\"\n"));
    let mut canary = fixture.server_in("canary", "canary").await;
    let mut client = canary.client().await;
    fixture.apply(CANARY);
    canary.fence().await;
    client.fence(&canary).await;
    let mut stable = fixture.server("stable").await;
    hand_over(&mut canary, &client).await;
    stable.takes_over(&client, "canary").await;
    client.fence(&stable).await;
}

#[tokio::test(crate = "paused")]
async fn a_lost_app_server_is_replaced_by_one_of_the_same_group_alone() {
    let fixture = Fixture::ruled(&with_canary("[[routes]]\nhub = \"/chat\"\ngroup = \"canary\"\n"));
    let (mut stable, mut first) = (fixture.server("stable").await, fixture.server_in("canary", "one").await);
    let mut client = first.client().await;
    first.retire().await;
    assert_eq!(Client::upgrade(&fixture, "/chat").await.err(), Some(503));
    client.send(&cast("Waits")).await;
    let mut second = fixture.server_in("canary", "two").await;
    second.takes_over(&client, "one").await;
    assert!(second.data().await.0.contains("Waits"));
    stable.fence().await;
}

#[tokio::test(crate = "paused")]
async fn a_client_whose_app_server_is_lost_goes_where_the_routes_lead_on_at_once() {
    let route = "[[routes]]\nhub = \"/chat\"\ngroup = \"canary\"\non-down = \"next\"\n";
    let fixture = Fixture::ruled(&with_canary(route));
    let (mut stable, mut canary) = (fixture.server("stable").await, fixture.server_in("canary", "canary").await);
    let mut client = canary.client().await;
    // sleep: paused time. Routes are checked in the second after a link opens, so wait for longer.
    tokio::time::sleep(Duration::from_secs(3)).await;
    canary.retire().await;
    stable.takes_over(&client, "canary").await;
    client.fence(&stable).await;
    stable.client().await;
}

#[tokio::test(crate = "paused")]
async fn a_later_rejection_ends_no_client() {
    let fixture = Fixture::start();
    let mut link = fixture.server("app").await;
    let mut client = link.client().await;
    fixture.apply("[[routes]]\nhub = \"/chat\"\nreject = 503\n");
    link.fence().await;
    client.fence(&link).await;
    assert_eq!(Client::upgrade(&fixture, "/chat").await.err(), Some(503));
}

#[tokio::test(crate = "paused")]
async fn clients_that_are_rejected_by_now_stay_in_their_group_and_leave_one_that_is_gone() {
    let to_canary = "[[routes]]\nhub = \"/chat\"\ngroup = \"canary\"\n";
    let fixture = Fixture::ruled(&with_canary(to_canary));
    let (mut stable, mut canary) = (fixture.server("stable").await, fixture.server_in("canary", "canary").await);
    let mut client = canary.client().await;
    fixture.apply(&with_canary("[[routes]]\nreject = 503\n"));
    canary.fence().await;
    client.fence(&canary).await;
    fixture.apply("[[routes]]\nreject = 503\n");
    hand_over(&mut canary, &client).await;
    stable.takes_over(&client, "canary").await;
    client.fence(&stable).await;
}

#[tokio::test(crate = "paused")]
async fn weights_are_shares_of_new_connections() {
    let fixture = Fixture::ruled(CANARY);
    let _apps = (fixture.server("one").await, fixture.server("two").await);
    let hub = fixture.shared.hubs.find("/chat").unwrap();
    let homes: Vec<_> = (0..4).map(|_| hub.choose_home_in("default").unwrap().app).collect();
    assert!(homes[0] != homes[1] && homes[..2] == homes[2..]);
}
