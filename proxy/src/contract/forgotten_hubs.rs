//! Hubs without app servers: they don't displace other hubs, and are evicted after the hold timeout.

use std::sync::Arc;
use std::time::Duration;

use ::http::StatusCode;
use tokio::task::spawn_local;
use tokio::time::sleep;
use trunkline_protocol::manifest::HubManifest;

use super::app::{App, AppLink};
use super::client::{Client, Received};
use super::http::exchange;
use super::stage::{Stage, run, settings};
use crate::auth::Signer;
use crate::limits::SignerShare;
use crate::node::hub_sweep;
use crate::observer::{Readiness, UpstreamProblems};
use crate::upstream::{APP_SERVERS_MAX, DIAL_IN_HUBS_MAX, HubOrigin};

/// Starts a node that evicts hubs.
fn stage() -> Stage {
    forgetting(Stage::start())
}

fn forgetting(stage: Stage) -> Stage {
    spawn_local(hub_sweep::run(stage.shared.clone()));
    stage
}

/// Starts an app server with these hubs, and one link for each.
async fn app(stage: &Stage, instance: &str, hubs: &[&str]) -> (App, Vec<AppLink>) {
    let named = |name: &&str| HubManifest::new(name, &format!("/{name}"));
    let mut app = stage.app(instance, hubs.iter().map(named).collect());
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

fn readiness(stage: &Stage) -> Readiness {
    Readiness::new(stage.shared.clone(), Arc::new(UpstreamProblems::default()))
}

async fn status(stage: &Stage, hub: &str) -> StatusCode {
    exchange(stage, "POST", &format!("/{hub}/negotiate?negotiateVersion=1"), "").await.0
}

/// Waits for the hold timeout and the next sweep.
async fn hold(stage: &Stage) {
    let seconds = u64::from(stage.shared.settings.rehoming.hold_timeout_s);
    // sleep: the tests advance paused time
    sleep(Duration::from_secs(seconds + 2)).await;
}

#[test]
fn a_release_that_drops_a_hub_leaves_nodes_ready_and_the_hub_is_removed() {
    run(async {
        let (stage, warning) = (stage(), "no app server serves these hubs: a");
        let old = app(&stage, "old", &["a", "auction"]).await;
        let _new = app(&stage, "new", &["auction"]).await;
        let readiness = readiness(&stage);
        assert_eq!((readiness.reasons_not_ready(), readiness.warnings()), (vec![], vec![]));
        assert_eq!(status(&stage, "a").await, StatusCode::OK);
        leave(old).await;
        assert_eq!((readiness.reasons_not_ready(), readiness.warnings()), (vec![], vec![warning.to_owned()]));
        assert_eq!(status(&stage, "a").await, StatusCode::SERVICE_UNAVAILABLE, "it may be back in a moment");
        hold(&stage).await;
        assert_eq!((readiness.reasons_not_ready(), readiness.warnings()), (vec![], vec![]));
        assert_eq!(status(&stage, "a").await, StatusCode::NOT_FOUND);
        assert_eq!(status(&stage, "auction").await, StatusCode::OK);
    });
}

#[test]
fn a_hub_that_returns_after_its_removal_works_as_a_new_one() {
    run(async {
        let stage = stage();
        let _other = app(&stage, "new", &["auction"]).await;
        leave(app(&stage, "old", &["a"]).await).await;
        hold(&stage).await;
        assert_eq!(status(&stage, "a").await, StatusCode::NOT_FOUND);
        let (_app, mut links) = app(&stage, "rolled back", &["a"]).await;
        let mut client = Client::connect(&stage, &mut links[0], "/a").await;
        client.fence(&links[0]).await;
        hold(&stage).await;
        assert_eq!(status(&stage, "a").await, StatusCode::OK);
    });
}

#[test]
fn clients_of_an_unnamed_hub_are_held_and_then_asked_to_reconnect() {
    run(async {
        let stage = stage();
        let _other = app(&stage, "new", &["auction"]).await;
        let (old, mut links) = app(&stage, "old", &["a"]).await;
        let mut client = Client::connect(&stage, &mut links[0], "/a").await;
        leave((old, links)).await;
        assert_eq!(client.text().await, "{\"type\":7,\"allowReconnect\":true}");
        assert_eq!(client.next().await, Received::End(Some(1000)));
        hold(&stage).await;
        assert_eq!(status(&stage, "a").await, StatusCode::NOT_FOUND);
    });
}

#[test]
fn the_only_hub_of_a_node_is_waited_for_however_long_its_app_servers_are_away() {
    run(async {
        let stage = stage();
        leave(app(&stage, "app", &["a"]).await).await;
        for _ in 0..10 {
            hold(&stage).await;
        }
        assert_eq!(readiness(&stage).reasons_not_ready(), ["waiting for links of hubs: a"]);
        assert_eq!(status(&stage, "a").await, StatusCode::SERVICE_UNAVAILABLE);
        let _app = app(&stage, "app again", &["a"]).await;
        assert_eq!(readiness(&stage).reasons_not_ready(), Vec::<String>::new());
    });
}

#[test]
fn a_link_that_returns_within_the_time_keeps_its_hub() {
    run(async {
        let stage = stage();
        let _other = app(&stage, "new", &["auction"]).await;
        let (mut app, mut links) = app(&stage, "old", &["a"]).await;
        for _ in 0..5 {
            links.remove(0).cut();
            // sleep: the test advances paused time
            sleep(Duration::from_secs(30)).await;
            links.push(app.link_anew().await);
            assert_eq!(status(&stage, "a").await, StatusCode::OK);
        }
    });
}

#[test]
fn an_app_server_that_was_away_for_long_brings_its_hub_back_with_its_link() {
    run(async {
        let stage = stage();
        let _other = app(&stage, "new", &["auction"]).await;
        let (mut app, mut links) = app(&stage, "cut off", &["a"]).await;
        links.remove(0).cut();
        hold(&stage).await;
        hold(&stage).await;
        assert_eq!(status(&stage, "a").await, StatusCode::NOT_FOUND, "its pool tries again and again");
        let _link = app.link_anew().await;
        assert_eq!(status(&stage, "a").await, StatusCode::OK);
    });
}

#[test]
fn a_hub_of_the_default_group_is_not_removed_while_only_another_group_is_linked() {
    run(async {
        let stage = forgetting(Stage::ruled("[groups.canary]\nupstream = \"http://canary\"\n"));
        leave(app(&stage, "stable", &["a"]).await).await;
        let mut canary = App::start_in(&stage.shared, "canary", "canary", vec![HubManifest::new("b", "/b")]);
        let _link = canary.link().await;
        hold(&stage).await;
        hold(&stage).await;
        assert_eq!(status(&stage, "a").await, StatusCode::SERVICE_UNAVAILABLE, "all of its group may start again");
        let _stable = app(&stage, "stable again", &["c"]).await;
        hold(&stage).await;
        assert_eq!(status(&stage, "a").await, StatusCode::NOT_FOUND);
    });
}

#[test]
fn of_two_hubs_with_one_path_clients_get_the_served_one() {
    run(async {
        let stage = stage();
        let old = app(&stage, "old", &["a"]).await;
        let mut new = stage.app("new", vec![HubManifest::new("renamed", "/a")]);
        let mut link = new.link().await;
        leave(old).await;
        let mut client = Client::connect(&stage, &mut link, "/a").await;
        client.fence(&link).await;
    });
}

/// Share of access keys when no app has a key.
const ALONE: SignerShare = SignerShare::new(Signer::Fleet, false);

#[test]
fn unused_dial_in_hubs_are_removed_and_their_indices_reused() {
    run(async {
        let stage = forgetting(Stage::with(settings(), 2));
        let hubs = &stage.shared.hubs;
        let learn = |name: String| {
            let settings = HubManifest::new(&name, "/client");
            hubs.register_as(HubOrigin::DialIn, settings, &ALONE).ok().map(|hub| hub.index())
        };
        for round in 0..3 {
            let all: Vec<_> = (0..DIAL_IN_HUBS_MAX).map(|number| learn(format!("{round}-{number}"))).collect();
            assert!(all.iter().flatten().all(|index| index.get() < DIAL_IN_HUBS_MAX), "{round}");
            assert_eq!((all.iter().flatten().count(), learn("one more".into())), (DIAL_IN_HUBS_MAX, None), "{round}");
            hold(&stage).await;
            hold(&stage).await;
        }
        assert_eq!((hubs.all().len(), hubs.living().len()), (DIAL_IN_HUBS_MAX, 0));
    });
}

#[test]
fn idle_hubs_of_a_full_table_make_room_and_those_with_a_link_or_a_client_stay() {
    run(async {
        let stage = forgetting(Stage::with(settings(), 2));
        let hubs = &stage.shared.hubs;
        let learn = |origin, name: &str| hubs.register_as(origin, HubManifest::new(name, &format!("/{name}")), &ALONE);
        let kept = learn(HubOrigin::DialIn, "kept").unwrap();
        let mut apps = App::start(&stage.shared, "kept", vec![HubManifest::new("dialled", "/dialled")]);
        let mut link = apps.link().await;
        let mut client = Client::connect(&stage, &mut link, "/dialled").await;
        kept.add_pool(hubs.keyed("dialled").unwrap().pools()[0].clone());
        for number in 0..3 * DIAL_IN_HUBS_MAX / 2 {
            // Half of the table is replaced within ten seconds.
            let origin = if number % 2 == 0 { HubOrigin::DialIn } else { HubOrigin::WebhookPattern };
            let name = format!("hub-{number}");
            assert!(learn(origin, &name).is_ok(), "{number}");
            // sleep: the test advances paused time
            sleep(Duration::from_millis(20)).await;
        }
        assert!(!kept.is_removed() && hubs.living().len() <= DIAL_IN_HUBS_MAX + 1);
        assert!(hubs.all().len() < 2 * DIAL_IN_HUBS_MAX, "places are used again");
        client.fence(&link).await;
    });
}

#[test]
fn app_servers_without_links_and_clients_are_removed() {
    run(async {
        let stage = forgetting(Stage::with(settings(), 2));
        let (kept, mut links) = app(&stage, "kept", &["a"]).await;
        let mut client = Client::connect(&stage, &mut links[0], "/a").await;
        let hubs = &stage.shared.hubs;
        let number = hubs.number("kept");
        let has_room = |instance: &str| hubs.app_servers().check_room(instance, &ALONE).is_ok();
        for round in 0..3 {
            // Each restart of an app server dials in with a new id.
            let starts = (0..APP_SERVERS_MAX).map(|start| format!("{round}-{start}"));
            let taken = starts.filter(|start| has_room(start) && hubs.number(start) != number).count();
            assert!((APP_SERVERS_MAX - 2..APP_SERVERS_MAX).contains(&taken), "{taken} in round {round}");
            assert!(!has_room("one more") && has_room("kept"));
            hold(&stage).await;
            hold(&stage).await;
            assert!(has_room("one more") && hubs.number("kept") == number);
        }
        client.fence(&links[0]).await;
        drop(kept);
    });
}
