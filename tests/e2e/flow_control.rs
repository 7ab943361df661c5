//! Flow control of calls: sequential or parallel, and a client that is faster than its methods is paused.

use anyhow::Context;
use serde_json::{Value, json};
use trunkline_tests::harness::client::{Agents, ClientAnswer, Kind};
use trunkline_tests::harness::fleet::{App, Fleet};
use trunkline_tests::harness::metrics::Metrics;
use trunkline_tests::harness::scenario::{pairs, run_test, until};
use trunkline_tests::harness::test_servers::{Setting, TestServers};

const PAUSES: &str = "trunkline_app_pauses_total";

/// Parallel calls of the app server's `/parallel`.
const PARALLEL_INVOCATIONS: u64 = 3;

/// Total size far above the limit of queued calls.
const FLOOD: u64 = 3000;
const FLOOD_PADDING_BYTES: usize = 1000;

#[test]
fn calls_of_a_client_run_one_after_the_other() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let agents = Agents::new(fixture);
        for (setting, kinds) in pairs(&Setting::ALL, &Kind::JS) {
            let test_servers = TestServers::start(&fleet, App::Calls, setting).await?;
            for (index, kind) in kinds.into_iter().enumerate() {
                let builder = agents.client(kind, &test_servers.url(index, "/calls")).subscribe(&["Began", "Ended"]);
                let mut client = builder.open().await?;
                client.flood("Work", 0, 50).await?;
                for number in 0..50 {
                    assert_eq!(client.expect("Began").await?, [json!(number)]);
                    assert_eq!(client.expect("Ended").await?, [json!(number)]);
                }
            }
        }
        Ok(())
    });
}

#[test]
fn as_many_calls_of_a_client_run_at_once_as_the_hub_allows_and_they_start_in_order() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let agents = Agents::new(fixture);
        for (setting, kinds) in pairs(&Setting::ALL, &Kind::JS) {
            let test_servers = TestServers::start(&fleet, App::Calls, setting).await?;
            for (index, kind) in kinds.into_iter().enumerate() {
                let builder = agents.client(kind, &test_servers.url(index, "/parallel")).subscribe(&["Began"]);
                let mut client = builder.open().await?;
                // Each call ends only when the maximum number of calls are running.
                let calls = PARALLEL_INVOCATIONS * 20;
                client.flood("Meet", 0, calls).await?;
                for place in 0..calls {
                    let began = client.expect("Began").await?;
                    // Answers of concurrent calls may overtake each other.
                    let number = began.first().and_then(Value::as_u64).context("a number")?;
                    assert!(place.abs_diff(number) < PARALLEL_INVOCATIONS, "{number} began in place {place}");
                }
                assert_eq!(client.invoke("MostAtOnce", json!([])).await?, PARALLEL_INVOCATIONS);
            }
        }
        Ok(())
    });
}

#[test]
fn a_client_that_floods_a_slow_method_is_paused_and_no_other_notices() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let agents = Agents::new(fixture);
        for (setting, kinds) in pairs(&Setting::ALL, &Kind::JS) {
            let test_servers = TestServers::start(&fleet, App::Calls, setting).await?;
            let pauses =
                async || anyhow::Ok(Metrics::of(test_servers.app.address()).await?.sum(PAUSES, &[("hub", "calls")]));
            for kind in kinds {
                let url = test_servers.url(0, "/calls");
                let flooding = agents.client(kind, &url).count(&["Taken"]).open().await?;
                let other = agents.client(kind, &url).open().await?;
                other.invoke("SetGate", json!([false])).await?;
                let before = pauses().await?;
                flooding.flood_padded("Take", FLOOD, FLOOD_PADDING_BYTES).await?;
                until(async || Ok((pauses().await? > before).then_some(()))).await?;
                for number in 0..100 {
                    assert_eq!(other.invoke("Echo", json!([number])).await?, number);
                }
                assert_eq!(flooding.sequence("Taken", 0).await?.received, 0);
                other.invoke("SetGate", json!([true])).await?;
                let taken = flooding.sequence("Taken", FLOOD).await?;
                assert_eq!((taken.received, taken.first, taken.broken), (FLOOD, Some(0), None), "{kind:?}");
                assert_eq!(flooding.invoke("Echo", json!(["still here"])).await?, "still here");
            }
        }
        Ok(())
    });
}

#[test]
fn a_client_that_uploads_faster_than_its_method_takes_is_paused() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let agents = Agents::new(fixture);
        for (setting, kinds) in pairs(&Setting::ALL, &Kind::JS) {
            let test_servers = TestServers::start(&fleet, App::Calls, setting).await?;
            let pauses =
                async || anyhow::Ok(Metrics::of(test_servers.app.address()).await?.sum(PAUSES, &[("hub", "calls")]));
            for kind in kinds {
                let url = test_servers.url(0, "/calls");
                let uploading = agents.client(kind, &url).count(&["Taken"]).open().await?;
                let other = agents.client(kind, &url).open().await?;
                other.invoke("SetGate", json!([false])).await?;
                let before = pauses().await?;
                let upload = uploading.upload("numbers").await?;
                let numbers: Vec<u64> = (0..FLOOD).collect();
                let (taken, ()) =
                    tokio::try_join!(uploading.invoke("TakeUpload", json!([upload.argument()])), async {
                        upload.feed(json!(numbers)).await?;
                        upload.complete().await?;
                        until(async || Ok((pauses().await? > before).then_some(()))).await?;
                        assert_eq!(other.invoke("Echo", json!([1])).await?, 1);
                        other.invoke("SetGate", json!([true])).await?;
                        Ok(())
                    })?;
                assert_eq!(taken, FLOOD);
                let sequence = uploading.sequence("Taken", FLOOD).await?;
                assert_eq!((sequence.received, sequence.broken), (FLOOD, None), "{kind:?}");
            }
        }
        Ok(())
    });
}

#[test]
fn a_flood_behind_a_question_fails_the_question_and_loses_nothing() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let agents = Agents::new(fixture);
        for (setting, kinds) in pairs(&Setting::ALL, &Kind::JS) {
            let test_servers = TestServers::start(&fleet, App::Calls, setting).await?;
            for kind in kinds {
                let url = test_servers.url(0, "/calls");
                let builder = agents.client(kind, &url).count(&["Taken"]).answer("Never", &ClientAnswer::Never);
                let flooding = builder.open().await?;
                let other = agents.client(kind, &url).open().await?;
                other.invoke("SetGate", json!([false])).await?;
                let (error, ()) = tokio::try_join!(
                    flooding.invoke_failing("AskMe", json!(["Never"])),
                    flooding.flood_padded("Take", FLOOD, FLOOD_PADDING_BYTES)
                )?;
                assert!(error.contains("Hub::waiting_inbox_max_bytes"), "{error}");
                other.invoke("SetGate", json!([true])).await?;
                let taken = flooding.sequence("Taken", FLOOD).await?;
                assert_eq!((taken.received, taken.first, taken.broken), (FLOOD, Some(0), None), "{kind:?}");
            }
        }
        Ok(())
    });
}
