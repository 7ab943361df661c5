//! Hubs without app servers: they don't displace other hubs, and are evicted after the hold timeout. Addresses in the
//! tables of limits are evicted as well.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ::http::StatusCode;
use tokio::task::spawn_local;
use tokio::time::sleep;
use trunkline_protocol::manifest::HubManifest;

use super::app::{App, AppLink};
use super::client::{Client, Received};
use super::fixture::{Fixture, paused, settings};
use super::http::exchange;
use crate::edge::observer::{Readiness, UpstreamProblems};
use crate::engine::upstream::{APP_SERVERS_MAX, AppServer, AppTarget, DIAL_IN_HUBS_MAX, HubOrigin, LinkHandle, Pool};
use crate::ground::auth::Signer;
use crate::ground::limits::SignerShare;
use crate::node::hub_sweep;

/// Starts a node that evicts hubs.
fn fixture() -> Fixture {
    forgetting(Fixture::start())
}

fn forgetting(fixture: Fixture) -> Fixture {
    spawn_local(hub_sweep::run(fixture.shared.clone(), fixture.webhooks.clone()));
    fixture
}

/// Starts an app server with these hubs, and one link for each.
async fn app(fixture: &Fixture, instance: &str, hubs: &[&str]) -> (App, Vec<AppLink>) {
    let named = |name: &&str| HubManifest::new(name, &format!("/{name}"));
    let mut app = fixture.app(instance, hubs.iter().map(named).collect());
    let mut links = Vec::new();
    for _ in hubs {
        links.push(app.link().await);
    }
    (app, links)
}

async fn leave((app, links): (App, Vec<AppLink>)) {
    app.retire();
    for mut link in links {
        link.ended().await;
    }
}

fn readiness(fixture: &Fixture) -> Readiness {
    Readiness::new(fixture.shared.clone(), Arc::new(UpstreamProblems::default()))
}

async fn status(fixture: &Fixture, hub: &str) -> StatusCode {
    exchange(fixture, "POST", &format!("/{hub}/negotiate?negotiateVersion=1"), "").await.0
}

/// Waits for the hold timeout and the next sweep.
async fn hold(fixture: &Fixture) {
    let seconds = u64::from(fixture.shared.settings.rehoming.hold_timeout_s);
    // sleep: the tests advance paused time
    sleep(Duration::from_secs(seconds + 2)).await;
}

#[tokio::test(crate = "paused")]
async fn a_release_that_drops_a_hub_leaves_nodes_ready_and_the_hub_is_removed() {
    let (fixture, warning) = (fixture(), "no app server serves these hubs: a");
    let old = app(&fixture, "old", &["a", "auction"]).await;
    let _new = app(&fixture, "new", &["auction"]).await;
    let readiness = readiness(&fixture);
    assert_eq!((readiness.reasons_not_ready(), readiness.warnings()), (vec![], vec![]));
    assert_eq!(status(&fixture, "a").await, StatusCode::OK);
    leave(old).await;
    assert_eq!((readiness.reasons_not_ready(), readiness.warnings()), (vec![], vec![warning.to_owned()]));
    assert_eq!(status(&fixture, "a").await, StatusCode::SERVICE_UNAVAILABLE, "it may be back in a moment");
    hold(&fixture).await;
    assert_eq!((readiness.reasons_not_ready(), readiness.warnings()), (vec![], vec![]));
    assert_eq!(status(&fixture, "a").await, StatusCode::NOT_FOUND);
    assert_eq!(status(&fixture, "auction").await, StatusCode::OK);
}

#[tokio::test(crate = "paused")]
async fn a_hub_that_returns_after_its_removal_works_as_a_new_one() {
    let fixture = fixture();
    let _other = app(&fixture, "new", &["auction"]).await;
    leave(app(&fixture, "old", &["a"]).await).await;
    hold(&fixture).await;
    assert_eq!(status(&fixture, "a").await, StatusCode::NOT_FOUND);
    let (_app, mut links) = app(&fixture, "rolled back", &["a"]).await;
    let mut client = Client::connect(&fixture, &mut links[0], "/a").await;
    client.fence(&links[0]).await;
    hold(&fixture).await;
    assert_eq!(status(&fixture, "a").await, StatusCode::OK);
}

#[tokio::test(crate = "paused")]
async fn clients_of_an_unnamed_hub_are_held_and_then_asked_to_reconnect() {
    let fixture = fixture();
    let _other = app(&fixture, "new", &["auction"]).await;
    let (old, mut links) = app(&fixture, "old", &["a"]).await;
    let mut client = Client::connect(&fixture, &mut links[0], "/a").await;
    leave((old, links)).await;
    assert_eq!(client.text().await, "{\"type\":7,\"allowReconnect\":true}");
    assert_eq!(client.next().await, Received::End(Some(1000)));
    hold(&fixture).await;
    assert_eq!(status(&fixture, "a").await, StatusCode::NOT_FOUND);
}

#[tokio::test(crate = "paused")]
async fn a_node_whose_only_app_server_returns_with_another_hub_is_ready_and_removes_the_first() {
    let fixture = fixture();
    leave(app(&fixture, "app", &["a"]).await).await;
    assert!(!readiness(&fixture).reasons_not_ready().is_empty());
    let _app = app(&fixture, "app again", &["b"]).await;
    hold(&fixture).await;
    assert_eq!(readiness(&fixture).reasons_not_ready(), Vec::<String>::new());
    assert_eq!(status(&fixture, "a").await, StatusCode::NOT_FOUND);
    assert_eq!(status(&fixture, "b").await, StatusCode::OK);
}

#[tokio::test(crate = "paused")]
async fn the_only_hub_of_a_node_is_waited_for_however_long_its_app_servers_are_away() {
    let fixture = fixture();
    leave(app(&fixture, "app", &["a"]).await).await;
    for _ in 0..10 {
        hold(&fixture).await;
    }
    assert_eq!(readiness(&fixture).reasons_not_ready(), ["waiting for links of hubs: a"]);
    assert_eq!(status(&fixture, "a").await, StatusCode::SERVICE_UNAVAILABLE);
    let _app = app(&fixture, "app again", &["a"]).await;
    assert_eq!(readiness(&fixture).reasons_not_ready(), Vec::<String>::new());
}

#[tokio::test(crate = "paused")]
async fn a_link_that_returns_within_the_time_keeps_its_hub() {
    let fixture = fixture();
    let _other = app(&fixture, "new", &["auction"]).await;
    let (mut app, mut links) = app(&fixture, "old", &["a"]).await;
    for _ in 0..5 {
        links.remove(0).cut();
        // sleep: the test advances paused time
        sleep(Duration::from_secs(30)).await;
        links.push(app.link_anew().await);
        assert_eq!(status(&fixture, "a").await, StatusCode::OK);
    }
}

#[tokio::test(crate = "paused")]
async fn an_app_server_that_was_away_for_long_brings_its_hub_back_with_its_link() {
    let fixture = fixture();
    let _other = app(&fixture, "new", &["auction"]).await;
    let (mut app, mut links) = app(&fixture, "cut off", &["a"]).await;
    links.remove(0).cut();
    hold(&fixture).await;
    hold(&fixture).await;
    assert_eq!(status(&fixture, "a").await, StatusCode::NOT_FOUND, "its pool tries again and again");
    let _link = app.link_anew().await;
    assert_eq!(status(&fixture, "a").await, StatusCode::OK);
}

#[tokio::test(crate = "paused")]
async fn a_hub_of_the_default_group_is_not_removed_while_only_another_group_is_linked() {
    let fixture = forgetting(Fixture::ruled("[groups.canary]\nupstream = \"http://canary\"\n"));
    leave(app(&fixture, "stable", &["a"]).await).await;
    let mut canary = App::start_in(&fixture.shared, "canary", "canary", vec![HubManifest::new("b", "/b")]);
    let _link = canary.link().await;
    hold(&fixture).await;
    hold(&fixture).await;
    assert_eq!(status(&fixture, "a").await, StatusCode::SERVICE_UNAVAILABLE, "all of its group may start again");
    let _stable = app(&fixture, "stable again", &["c"]).await;
    hold(&fixture).await;
    assert_eq!(status(&fixture, "a").await, StatusCode::NOT_FOUND);
}

#[tokio::test(crate = "paused")]
async fn of_two_hubs_with_one_path_clients_get_the_served_one() {
    let fixture = fixture();
    let old = app(&fixture, "old", &["a"]).await;
    let mut new = fixture.app("new", vec![HubManifest::new("renamed", "/a")]);
    let mut link = new.link().await;
    leave(old).await;
    let mut client = Client::connect(&fixture, &mut link, "/a").await;
    client.fence(&link).await;
}

/// Share of access keys when no app has a key.
const ALONE: SignerShare = SignerShare::new(Signer::Fleet, false);

#[tokio::test(crate = "paused")]
async fn unused_dial_in_hubs_are_removed_and_their_indices_reused() {
    let fixture = forgetting(Fixture::with(settings(), 2));
    let hubs = &fixture.shared.hubs;
    let register = |name: String| {
        let settings = HubManifest::new(&name, "/client");
        hubs.register_as(HubOrigin::DialIn, settings, &ALONE).ok().map(|hub| hub.index())
    };
    for round in 0..3 {
        let all: Vec<_> = (0..DIAL_IN_HUBS_MAX).map(|number| register(format!("{round}-{number}"))).collect();
        assert!(all.iter().flatten().all(|index| index.get() < DIAL_IN_HUBS_MAX), "{round}");
        assert_eq!((all.iter().flatten().count(), register("one more".into())), (DIAL_IN_HUBS_MAX, None), "{round}");
        hold(&fixture).await;
        hold(&fixture).await;
    }
    assert_eq!((hubs.all().len(), hubs.living().len()), (DIAL_IN_HUBS_MAX, 0));
}

#[tokio::test(crate = "paused")]
async fn idle_hubs_of_a_full_table_make_room_and_those_with_a_link_or_a_client_stay() {
    let fixture = forgetting(Fixture::with(settings(), 2));
    let hubs = &fixture.shared.hubs;
    let register = |origin, name: &str| hubs.register_as(origin, HubManifest::new(name, &format!("/{name}")), &ALONE);
    let kept = register(HubOrigin::DialIn, "kept").unwrap();
    let mut apps = App::start(&fixture.shared, "kept", vec![HubManifest::new("dialled", "/dialled")]);
    let mut link = apps.link().await;
    let mut client = Client::connect(&fixture, &mut link, "/dialled").await;
    kept.add_pool(hubs.keyed("dialled").unwrap().pools()[0].clone());
    for number in 0..3 * DIAL_IN_HUBS_MAX / 2 {
        // Half of the table is replaced within ten seconds.
        let origin = if number % 2 == 0 { HubOrigin::DialIn } else { HubOrigin::WebhookPattern };
        let name = format!("hub-{number}");
        assert!(register(origin, &name).is_ok(), "{number}");
        // sleep: the test advances paused time
        sleep(Duration::from_millis(20)).await;
    }
    assert!(!kept.is_removed() && hubs.living().len() <= DIAL_IN_HUBS_MAX + 1);
    assert!(hubs.all().len() < 2 * DIAL_IN_HUBS_MAX, "places are used again");
    client.fence(&link).await;
}

#[tokio::test(crate = "paused")]
async fn hubs_of_app_servers_that_have_left_make_room_sooner_than_hubs_that_wait_for_one() {
    let fixture = forgetting(Fixture::with(settings(), 2));
    let hubs = &fixture.shared.hubs;
    let register = |name: &str| hubs.register_as(HubOrigin::DialIn, HubManifest::new(name, "/client"), &ALONE);
    for number in 0..3 * DIAL_IN_HUBS_MAX / 2 {
        let name = format!("hub-{number}");
        let hub = register(&name).unwrap_or_else(|full| panic!("{number}: {full:?}"));
        let id = hubs.number(&name);
        let target = AppTarget::DialsIn(None);
        let app = AppServer { id, instance: name.as_str().into(), name, target, group: Arc::default() };
        let pool = Arc::new(Pool::new(hub.identity.clone(), Arc::new(app), 1, Arc::default()));
        hub.add_pool(pool.clone());
        pool.opened(0, Arc::new(LinkHandle::opened(&hub.identity, id)));
        hub.remove_pool(&pool);
        if number % 50 == 0 {
            // sleep: paused time; 500 app servers come and go in a second
            sleep(Duration::from_millis(100)).await;
        }
    }
    let waiting = (0..DIAL_IN_HUBS_MAX).filter(|number| register(&format!("waiting-{number}")).is_ok()).count();
    assert!(waiting > 0 && hubs.keyed("?hub=waiting-0").is_some() && register("one more").is_err(), "{waiting}");
    // sleep: paused time; an app server may still be about to link
    sleep(Duration::from_secs(1)).await;
    assert!(hubs.keyed("?hub=waiting-0").is_some());
}

#[tokio::test(crate = "paused")]
async fn app_servers_without_links_and_clients_are_removed() {
    let fixture = forgetting(Fixture::with(settings(), 2));
    let (kept, mut links) = app(&fixture, "kept", &["a"]).await;
    let mut client = Client::connect(&fixture, &mut links[0], "/a").await;
    let hubs = &fixture.shared.hubs;
    let number = hubs.number("kept");
    let has_room = |instance: &str| hubs.app_servers.check_room(instance, &ALONE).is_ok();
    for round in 0..3 {
        // Each restart of an app server dials in with a new id.
        let starts = (0..APP_SERVERS_MAX).map(|start| format!("{round}-{start}"));
        let taken = starts.filter(|start| has_room(start) && hubs.number(start) != number).count();
        assert!((APP_SERVERS_MAX - 2..APP_SERVERS_MAX).contains(&taken), "{taken} in round {round}");
        assert!(!has_room("one more") && has_room("kept"));
        hold(&fixture).await;
        hold(&fixture).await;
        assert!(has_room("one more") && hubs.number("kept") == number);
    }
    client.fence(&links[0]).await;
    drop(kept);
}

#[tokio::test(crate = "paused")]
async fn addresses_that_sent_wrong_tokens_are_dropped_without_any_further_request() {
    let fixture = fixture();
    let limits = &fixture.shared.limits;
    for number in 0..100_u32 {
        let stranger = Some(IpAddr::V4(number.into()));
        for throttle in [&limits.failed_hellos, &*limits.wrong_tokens] {
            throttle.note_wrong(stranger, "x", fixture.shared.uptime());
        }
    }
    assert_eq!((limits.failed_hellos.kept(), limits.wrong_tokens.kept()), (100, 100));
    // sleep: the tests advance paused time
    sleep(Duration::from_secs(122)).await;
    assert_eq!((limits.failed_hellos.kept(), limits.wrong_tokens.kept()), (0, 0));
}
