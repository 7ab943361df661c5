//! Streams in both directions: complete, cancelled and interrupted, without leftovers.

use anyhow::Result;
use serde_json::{Value, json};
use trunkline_tests::harness::client::{Agents, Client, Kind, Streamed};
use trunkline_tests::harness::fleet::{App, AppServer, Fleet};
use trunkline_tests::harness::metrics::Metrics;
use trunkline_tests::harness::scenario::{pairs, run_test, until};
use trunkline_tests::harness::test_servers::{Setting, TestServers};

const STREAMS_RUNNING: &str = "trunkline_app_streams_running";
const CALLS_RUNNING: &str = "trunkline_app_invocations_running";

/// Number of items, more than all queues hold.
const MANY: u64 = 5000;

fn numbers(end: u64) -> Vec<Value> {
    (1..=end).map(Value::from).collect()
}

fn run_with_each(scene: impl AsyncFn(&mut Client) -> Result<()>) {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let agents = Agents::new(fixture);
        for (setting, kinds) in pairs(&Setting::ALL, &Kind::JS) {
            let test_servers = TestServers::start(&fleet, App::Calls, setting).await?;
            for (index, kind) in kinds.into_iter().enumerate() {
                let mut client = agents.client(kind, &test_servers.url(index, "/calls")).open().await?;
                scene(&mut client).await?;
                nothing_left(&test_servers.app).await?;
            }
        }
        Ok(())
    });
}

async fn nothing_left(app: &AppServer) -> Result<()> {
    until(async || {
        let metrics = Metrics::of(app.address()).await?;
        Ok((metrics.sum(STREAMS_RUNNING, &[]) + metrics.sum(CALLS_RUNNING, &[]) < 1.0).then_some(()))
    })
    .await
}

#[test]
fn a_stream_comes_whole_and_in_order() {
    run_with_each(async |client| {
        let streamed = client.stream("CountTo", json!([MANY])).await?;
        assert_eq!(streamed, Streamed { items: numbers(MANY), error: None });
        assert_eq!(client.stream("CountTo", json!([0])).await?, Streamed { items: Vec::new(), error: None });
        Ok(())
    });
}

#[test]
fn streams_of_one_client_run_side_by_side_and_beside_its_calls() {
    run_with_each(async |client| {
        let (first, second, third, ()) = tokio::try_join!(
            client.stream("CountTo", json!([MANY])),
            client.stream("CountTo", json!([10])),
            client.stream_first(100, "CountForEver", json!([])),
            async {
                for number in 0..20 {
                    assert_eq!(client.invoke("Echo", json!([number])).await?, number);
                }
                Ok(())
            }
        )?;
        assert_eq!((first.items, second.items, third.items), (numbers(MANY), numbers(10), numbers(100)));
        Ok(())
    });
}

#[test]
fn a_stream_that_fails_tells_what_came_before_and_no_more_than_the_hub_wants() {
    run_with_each(async |client| {
        let base = "An error occurred on the server while streaming results.";
        let cases = [
            ("CountAndRefuse", json!([3, "no more"]), format!("{base} HubException: no more")),
            ("CountAndFail", json!([3, "secret"]), base.to_owned()),
            ("CountAndPanic", json!([3]), base.to_owned()),
        ];
        for (target, arguments, error) in cases {
            let expected = Streamed { items: numbers(3), error: Some(error) };
            assert_eq!(client.stream(target, arguments).await?, expected, "{target}");
        }
        assert_eq!(client.invoke("Echo", json!(["still here"])).await?, "still here");
        Ok(())
    });
}

#[test]
fn a_cancelled_stream_ends_at_the_server() {
    run_with_each(async |client| {
        for count in [0, 1, 10] {
            let streamed = client.stream_first(count, "CountForEver", json!([])).await?;
            assert_eq!(streamed.items, numbers(count as u64));
        }
        Ok(())
    });
}

#[test]
fn streams_and_uploads_end_with_their_connection() {
    run_with_each(async |client| {
        let upload = client.upload("endless").await?;
        let (streamed, sum, ()) = tokio::try_join!(
            client.stream_named("numbers", "CountForEver", json!([])),
            client.call("AddUp", json!([upload.argument(), 0])),
            async {
                upload.feed(json!([1, 2, 3])).await?;
                client.begin_close().await
            }
        )?;
        assert!(streamed.error.is_some() && sum.is_err(), "{:?} {sum:?}", streamed.error);
        Ok(())
    });
}

#[test]
fn uploads_come_whole_beside_plain_arguments_and_each_other() {
    run_with_each(async |client| {
        let numbers: Vec<u64> = (1..=MANY).collect();
        let upload = client.upload("numbers").await?;
        let (sum, ()) = tokio::try_join!(client.invoke("AddUp", json!([upload.argument(), -1])), async {
            upload.feed(json!(numbers)).await?;
            upload.complete().await
        })?;
        assert_eq!(sum, MANY * (MANY + 1) / 2 - 1);

        // Of two concurrent uploads, the JavaScript library reads only the first.
        let (left, right) = (client.upload("left").await?, client.upload("right").await?);
        let (pairs, ()) =
            tokio::try_join!(client.invoke("Zip", json!([left.argument(), "-", right.argument()])), async {
                left.feed(json!(["a", "b", "c"])).await?;
                left.complete().await?;
                // Calls overtake open uploads.
                assert_eq!(client.invoke("Echo", json!([1])).await?, 1);
                right.feed(json!(["1", "2", "3"])).await?;
                right.complete().await
            })?;
        assert_eq!(pairs, json!(["a-1", "b-2", "c-3"]));
        Ok(())
    });
}

#[test]
fn an_upload_and_a_stream_run_through_one_call() {
    run_with_each(async |client| {
        let upload = client.upload("numbers").await?;
        let (streamed, ()) = tokio::try_join!(client.stream("Double", json!([upload.argument()])), async {
            upload.feed(json!([1, 2, 3])).await?;
            upload.complete().await
        })?;
        assert_eq!(streamed, Streamed { items: vec![json!(2), json!(4), json!(6)], error: None });

        let upload = client.upload("broken").await?;
        let (streamed, ()) = tokio::try_join!(client.stream("Double", json!([upload.argument()])), async {
            upload.feed(json!([1])).await?;
            upload.fail("out of numbers").await
        })?;
        let error = "An error occurred on the server while streaming results. HubException: out of numbers";
        assert_eq!(streamed, Streamed { items: vec![json!(2)], error: Some(error.into()) });
        Ok(())
    });
}

#[test]
fn wrong_uploads_fail_their_call_and_nothing_else() {
    run_with_each(async |client| {
        let upload = client.upload("unasked").await?;
        let counted = "An unexpected error occurred invoking 'Echo' on the server. \
                       HubException: Client sent 1 stream(s), Hub method expects 0.";
        assert_eq!(client.invoke_failing("Echo", json!([1, upload.argument()])).await?, counted);
        let missing = "An unexpected error occurred invoking 'AddUp' on the server. \
                       HubException: Client sent 0 stream(s), Hub method expects 1.";
        assert_eq!(client.invoke_failing("AddUp", json!([1])).await?, missing);

        let upload = client.upload("words").await?;
        let (error, ()) = tokio::try_join!(
            client.invoke_failing("AddUp", json!([upload.argument(), 0])),
            upload.feed(json!([1, "two", 3]))
        )?;
        let unfit = "An unexpected error occurred invoking 'AddUp' on the server. \
                     HubException: Failed to bind Stream message.";
        assert_eq!(error, unfit);
        assert_eq!(client.invoke("Echo", json!(["still here"])).await?, "still here");
        Ok(())
    });
}

#[test]
fn what_a_method_leaves_of_an_upload_is_dropped() {
    run_with_each(async |client| {
        let upload = client.upload("numbers").await?;
        let (first, ()) =
            tokio::try_join!(client.invoke("FirstOf", json!([upload.argument()])), upload.feed(json!([7, 8, 9])))?;
        assert_eq!(first, 7);
        // No end reads these items.
        upload.feed(json!(vec![1; 1000])).await?;
        upload.complete().await?;
        assert_eq!(client.invoke("Echo", json!(["still here"])).await?, "still here");
        Ok(())
    });
}
