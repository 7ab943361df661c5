//! Values of each protocol, and clients of both protocols side by side.

use anyhow::Result;
use serde_json::{Value, json};
use trunkline_tests::harness::client::{Agents, Client, Kind};
use trunkline_tests::harness::fleet::{App, Fleet};
use trunkline_tests::harness::scenario::{pairs, run_test};
use trunkline_tests::harness::test_servers::{Setting, TestServers};

/// Largest integer up to which JavaScript numbers are exact.
const SAFE: i64 = 9_007_199_254_740_991;

#[test]
fn clients_of_both_protocols_hear_each_other_in_one_group() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let agents = Agents::new(fixture);
        for setting in Setting::ALL {
            let test_servers = TestServers::start(&fleet, App::Calls, setting).await?;
            let mut members = Vec::new();
            for index in 0..2 {
                for kind in Kind::ALL {
                    let builder = agents.client(kind, &test_servers.url(index, "/calls")).subscribe(&["Announced"]);
                    let member = builder.open().await?;
                    member.invoke("Join", json!(["mixed"])).await?;
                    members.push(member);
                }
            }
            for sender in 0..members.len() {
                let text = format!("from {sender}");
                members[sender].invoke("SendToGroup", json!(["mixed", text])).await?;
                for member in &mut members {
                    assert_eq!(member.expect("Announced").await?, [text.as_str()], "{:?}", member.kind());
                }
            }
        }
        Ok(())
    });
}

#[test]
fn numbers_nothing_bytes_and_moments_stay_what_they_are() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let agents = Agents::new(fixture);
        for (setting, kinds) in pairs(&Setting::ALL, &Kind::ALL) {
            let test_servers = TestServers::start(&fleet, App::Calls, setting).await?;
            for (index, kind) in kinds.into_iter().enumerate() {
                let client = agents.client(kind, &test_servers.url(index, "/calls")).open().await?;
                numbers(&client).await?;
                nothing(&client).await?;
                if Kind::JS.contains(&kind) {
                    bytes_and_moments(&client).await?;
                }
            }
        }
        Ok(())
    });
}

async fn numbers(client: &Client) -> Result<()> {
    let kind = client.kind();
    for number in [SAFE, -SAFE, SAFE - 1, 4_294_967_296, i64::from(i32::MIN), 0] {
        assert_eq!(client.invoke("Echo", json!([number])).await?, number, "{kind:?}");
        assert_eq!(client.invoke("EchoSigned", json!([number])).await?, number, "{kind:?}");
    }
    assert_eq!(client.invoke("UnsignedInWords", json!([SAFE])).await?, SAFE.to_string(), "{kind:?}");
    // JavaScript numbers lose precision here, Python's integers don't.
    if Kind::JS.contains(&kind) {
        let rounded = client.invoke("UnsignedOfWords", json!([u64::MAX.to_string()])).await?;
        assert_eq!(rounded.as_f64(), Some(u64::MAX as f64), "{kind:?}");
        // 2^53: an integer in JSON, a float in MessagePack.
        let echoed = client.invoke("Echo", json!([SAFE + 1])).await?;
        assert_eq!(echoed.as_f64(), Some((SAFE + 1) as f64), "{kind:?}");
        return Ok(());
    }
    for number in [SAFE + 1, SAFE + 2, i64::MIN, i64::MAX] {
        assert_eq!(client.invoke("Echo", json!([number])).await?, number, "{kind:?}");
        assert_eq!(client.invoke("EchoSigned", json!([number])).await?, number, "{kind:?}");
    }
    assert_eq!(client.invoke("Echo", json!([u64::MAX])).await?, u64::MAX, "{kind:?}");
    assert_eq!(client.invoke("EchoUnsigned", json!([u64::MAX])).await?, u64::MAX, "{kind:?}");
    let words = u64::MAX.to_string();
    assert_eq!(client.invoke("UnsignedInWords", json!([u64::MAX])).await?, words, "{kind:?}");
    assert_eq!(client.invoke("UnsignedOfWords", json!([words])).await?, u64::MAX, "{kind:?}");
    Ok(())
}

async fn nothing(client: &Client) -> Result<()> {
    assert_eq!(client.invoke("Echo", json!([null])).await?, Value::Null);
    let nested = json!([null, { "a": null, "b": [null] }]);
    assert_eq!(client.invoke("Echo", json!([nested])).await?, nested, "{:?}", client.kind());
    assert_eq!(client.invoke("IsNothing", json!([null])).await?, true);
    assert_eq!(client.invoke("IsNothing", json!([""])).await?, false);
    assert_eq!(client.invoke("Recall", json!([])).await?, Value::Null);
    Ok(())
}

async fn bytes_and_moments(client: &Client) -> Result<()> {
    let (kind, text) = (client.kind(), "1969-12-31T23:59:59.125Z");
    let (bytes, moment) = match kind {
        Kind::JsJson => (json!("AP8AgA=="), json!(text)),
        _ => (json!({ "$bytes": [0, 255, 0, 128] }), json!({ "$date": text })),
    };
    assert_eq!(client.invoke("Length", json!([bytes])).await?, 4);
    assert_eq!(client.invoke("EchoBinary", json!([bytes])).await?, bytes, "{kind:?}");
    assert_eq!(client.invoke("UnixSeconds", json!([moment])).await?, -1);
    assert_eq!(client.invoke("EchoMoment", json!([moment])).await?, moment, "{kind:?}");
    let nested = json!({ "inside": [bytes, moment] });
    assert_eq!(client.invoke("Echo", json!([nested])).await?, nested, "{kind:?}");
    Ok(())
}
