//! Calls: results and errors, with the official texts.

use serde_json::{Value, json};
use trunkline_tests::harness::client::{Agents, Kind};
use trunkline_tests::harness::fleet::{App, Fleet};
use trunkline_tests::harness::raw::RawClient;
use trunkline_tests::harness::scenario::run_test;

const EVERY_LIBRARY: [Kind; 6] = [
    Kind::JsJson,
    Kind::JsMessagePack,
    Kind::PySignalRJson,
    Kind::PySignalRMessagePack,
    Kind::SignalRCoreJson,
    Kind::SignalRCoreMessagePack,
];

#[test]
fn values_of_every_shape_come_back_as_they_went() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let proxy = fleet.proxy(&app).await?;
        let agents = Agents::new(fixture);
        let values = [
            Value::Null,
            json!(true),
            json!(-7),
            json!(9_007_199_254_740_991_i64),
            json!(0.5),
            json!(""),
            json!("ünïcödé \u{1f600} \"quoted\" \\ \n \u{1}"),
            json!([1, [2, [3]], {}]),
            json!({ "a": { "b": [null, "c"] }, "type": 3, "invocationId": "trap" }),
            json!("x".repeat(30_000)),
        ];
        for kind in EVERY_LIBRARY {
            let client = agents.client(kind, &proxy.url("/bench")).open().await?;
            for value in &values {
                assert_eq!(client.invoke("Echo", json!([value])).await?, *value, "{kind:?}");
            }
            assert_eq!(client.invoke("eCHO", json!(["any case"])).await?, "any case");
            assert_eq!(client.invoke("Join", json!(["a group"])).await?, Value::Null, "{kind:?}");
        }
        Ok(())
    });
}

#[test]
fn wrong_calls_get_the_official_texts_and_disturb_nothing() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let proxy = fleet.proxy(&app).await?;
        let agents = Agents::new(fixture);
        let unknown = "Failed to invoke 'Nope' due to an error on the server. HubException: Method does not exist.";
        let cases = [
            ("Nope", json!([]), unknown),
            ("Echo", json!([]), "Failed to invoke 'Echo' due to an error on the server."),
            ("echo", json!([1, 2]), "Failed to invoke 'echo' due to an error on the server."),
            ("SendTo", json!([["no", "string"], 1]), "Failed to invoke 'SendTo' due to an error on the server."),
            ("StartTicks", json!(["often", 8]), "Failed to invoke 'StartTicks' due to an error on the server."),
        ];
        for kind in EVERY_LIBRARY {
            let client = agents.client(kind, &proxy.url("/bench")).open().await?;
            for (target, arguments, text) in &cases {
                assert_eq!(client.invoke_failing(target, arguments.clone()).await?, *text, "{kind:?}");
            }
            assert_eq!(client.invoke("Echo", json!(["still here"])).await?, "still here");
        }
        Ok(())
    });
}

#[test]
fn errors_of_a_hub_method_reach_its_caller_only_as_far_as_the_hub_wants() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Sends).await?;
        let proxy = fleet.proxy(&app).await?;
        let agents = Agents::new(fixture);
        for kind in Kind::ALL {
            let client = agents.client(kind, &proxy.url("/sends")).open().await?;
            let told = "An unexpected error occurred invoking 'Refuse' on the server. HubException: not today";
            assert_eq!(client.invoke_failing("Refuse", json!(["not today"])).await?, told);
            let secret = "An unexpected error occurred invoking 'Break' on the server.";
            assert_eq!(client.invoke_failing("Break", json!(["secret"])).await?, secret);
            let panic = "An unexpected error occurred invoking 'Panic' on the server.";
            assert_eq!(client.invoke_failing("Panic", json!([])).await?, panic);
            assert_eq!(client.invoke("ConnectionId", json!([])).await?, client.connection_id()?);
        }
        Ok(())
    });
}

#[test]
fn a_hub_may_tell_details() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Sends).await?;
        let proxy = fleet.proxy(&app).await?;
        let agents = Agents::new(fixture);
        for kind in Kind::ALL {
            let client = agents.client(kind, &proxy.url("/detailed")).open().await?;
            let counted = "Failed to invoke 'Add' due to an error on the server. InvalidDataException: \
                           Invocation provides 1 argument(s) but target expects 2.";
            assert_eq!(client.invoke_failing("Add", json!([1])).await?, counted, "{kind:?}");
            assert_eq!(client.invoke("Add", json!([40, 2])).await?, 42);
        }
        Ok(())
    });
}

#[test]
fn a_call_without_an_id_is_never_answered() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let proxy = fleet.proxy(&app).await?;
        let mut client = RawClient::join(proxy.address(), "/bench").await?;
        for call in [
            "{\"type\":1,\"target\":\"Echo\",\"arguments\":[1]}\u{1e}",
            "{\"type\":1,\"target\":\"Nope\",\"arguments\":[]}\u{1e}",
            "{\"type\":1,\"target\":\"Echo\",\"arguments\":[1,2],\"invocationId\":null}\u{1e}",
            "{\"arguments\":[2],\"headers\":{},\"streamIds\":[],\"target\":\"Echo\",\"invocationId\":\"9\",\"type\":1}\u{1e}",
        ] {
            client.send_text(call).await?;
        }
        assert_eq!(client.next_record().await?, json!({ "type": 3, "invocationId": "9", "result": 2 }));
        Ok(())
    });
}
