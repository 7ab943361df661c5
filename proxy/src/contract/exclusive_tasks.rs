//! Exclusive tasks: candidate lists sent to app servers.

use trunkline_protocol::manifest::{ExclusiveTasks, HubManifest};
use trunkline_protocol::service::*;

use super::app::AppLink;
use super::fixture::{Fixture, paused, settings};
use super::hub_message::stopping;
use crate::config::Settings;

fn hub(since_ms: i64, names: &[&str]) -> HubManifest {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    HubManifest { exclusive_tasks: Some(ExclusiveTasks { since_ms, names }), ..HubManifest::new("chat", "/chat") }
}

/// Receives the next list of candidates.
async fn listed(link: &mut AppLink) -> Vec<(String, String, i64)> {
    match link.next().await {
        ServiceMessage::TaskCandidates(told) => {
            let words = |it: TaskCandidate| (it.task.to_string(), it.instance.to_string(), it.since_ms);
            told.candidates.into_iter().map(words).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn entry(task: &str, instance: &str, since_ms: i64) -> (String, String, i64) {
    (task.to_owned(), instance.to_owned(), since_ms)
}

#[tokio::test(crate = "paused")]
async fn app_servers_get_the_candidates_of_a_task_from_the_first_link_to_the_last() {
    let fixture = Fixture::with(Settings { pool_size: 2, ..settings() }, 2);
    let mut first = fixture.app("app-1", vec![hub(7, &["clock", "sweep"])]);
    let mut told = first.link().await;
    let own = [entry("clock", "app-1", 7), entry("sweep", "app-1", 7)];
    assert_eq!(listed(&mut told).await, own);
    let mut other = first.link().await;
    let mut without = fixture.app("app-0", vec![HubManifest::new("chat", "/chat")]);
    let (mut mute, _mute_too) = (without.link().await, without.link().await);
    let mut second = fixture.app("app-2", vec![hub(9, &["clock"])]);
    let (mut later, _later_too) = (second.link().await, second.link().await);
    let both = [own[0].clone(), own[1].clone(), entry("clock", "app-2", 9)];
    assert_eq!((listed(&mut told).await, listed(&mut later).await), (both.to_vec(), both.to_vec()));
    told.cut();
    assert_eq!(listed(&mut other).await, both, "over its other link");
    assert_eq!(listed(&mut later).await, both, "it has a link still");
    first.retire();
    assert_eq!(listed(&mut later).await, [entry("clock", "app-2", 9)]);
    mute.fence().await;
}

#[tokio::test(crate = "paused")]
async fn a_stopping_app_server_is_removed_from_the_list_immediately() {
    let fixture = Fixture::with(settings(), 1);
    let link = fixture.server_with("app-1", hub(7, &["clock"])).await;
    let mut later = fixture.server_with("app-2", hub(9, &["clock"])).await;
    assert_eq!(listed(&mut later).await.len(), 2);
    link.send(stopping()).await;
    assert_eq!(listed(&mut later).await, [entry("clock", "app-2", 9)]);
}
