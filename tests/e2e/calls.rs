//! Calls: results and errors, with the official texts.

use serde_json::{Value, json};
use trunkline_tests::harness::client::{Agents, Kind};
use trunkline_tests::harness::fleet::{App, Fleet};
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
fn calls_of_each_library_return_values_of_every_shape_and_the_official_texts() {
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
        let unknown = "Failed to invoke 'Nope' due to an error on the server. HubException: Method does not exist.";
        let wrong = [
            ("Nope", json!([]), unknown),
            ("Echo", json!([]), "Failed to invoke 'Echo' due to an error on the server."),
            ("echo", json!([1, 2]), "Failed to invoke 'echo' due to an error on the server."),
            ("SendTo", json!([["no", "string"], 1]), "Failed to invoke 'SendTo' due to an error on the server."),
            ("StartTicks", json!(["often", 8]), "Failed to invoke 'StartTicks' due to an error on the server."),
        ];
        for kind in EVERY_LIBRARY {
            let client = agents.client(kind, &proxy.url("/bench")).open().await?;
            for (target, arguments, text) in &wrong {
                assert_eq!(client.invoke_failing(target, arguments.clone()).await?, *text, "{kind:?}");
            }
            for value in &values {
                assert_eq!(client.invoke("Echo", json!([value])).await?, *value, "{kind:?}");
            }
            assert_eq!(client.invoke("eCHO", json!(["any case"])).await?, "any case");
            assert_eq!(client.invoke("Join", json!(["a group"])).await?, Value::Null, "{kind:?}");
        }
        Ok(())
    });
}
