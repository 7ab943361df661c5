//! Client results: a hub invokes a client of any app server at any node, and gets an error for each kind of failure.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use trunkline_tests::harness::client::{Agents, Client, ClientAnswer, ClientBuilder, Kind};
use trunkline_tests::harness::fleet::{App, AppServer, Fleet, Proxy};
use trunkline_tests::harness::metrics::Metrics;
use trunkline_tests::harness::scenario::{run_test, until};

const WAITING: &str = "trunkline_app_client_results_waiting";

/// Maximum attempts until both app servers have been chosen by the proxy.
const ATTEMPTS: usize = 40;

fn failed(target: &str, text: &str) -> String {
    format!("An unexpected error occurred invoking '{target}' on the server. HubException: {text}")
}

/// Client with a handler for each kind of answer.
fn answering(builder: ClientBuilder<'_>) -> ClientBuilder<'_> {
    builder
        .answer("Value", &ClientAnswer::Value(json!({ "a": [1, null] })))
        .answer("Null", &ClientAnswer::Value(Value::Null))
        .answer("Word", &ClientAnswer::Value(json!("forty-two")))
        .answer("Throw", &ClientAnswer::Error("not now".into()))
        .answer("Nothing", &ClientAnswer::Nothing)
        .answer("Twice", &ClientAnswer::Several(vec![json!(1), json!(2)]))
        .answer("Never", &ClientAnswer::Never)
}

/// Requests each kind of result that completes.
async fn assert_all_answers(asker: &Client, asked: &str) -> Result<()> {
    assert_eq!(asker.invoke("Ask", json!([asked, "Value"])).await?, json!({ "a": [1, null] }));
    assert_eq!(asker.invoke("Ask", json!([asked, "Null"])).await?, Value::Null);
    let texts = [
        ("Throw", "Error: not now"),
        ("Nothing", "Client didn't provide a result."),
        ("NoHandler", "Client didn't provide a result."),
        ("Twice", "Client provided multiple results."),
    ];
    for (method, text) in texts {
        let error = asker.invoke_failing("Ask", json!([asked, method])).await?;
        assert_eq!(error, failed("Ask", text), "{method}");
    }
    let error = asker.invoke_failing("AskForNumber", json!([asked, "Word"])).await?;
    assert!(error.starts_with(&failed("AskForNumber", "Error trying to deserialize result to u32. ")), "{error}");
    Ok(())
}

async fn nobody_waits(apps: &[&AppServer]) -> Result<()> {
    until(async || {
        let mut waiting = 0.0;
        for app in apps {
            waiting += Metrics::of(app.address()).await?.sum(WAITING, &[]);
        }
        Ok((waiting < 1.0).then_some(()))
    })
    .await
}

/// Opens clients until one is assigned to this app server.
async fn held_by<'a>(app: &str, open: impl Fn() -> ClientBuilder<'a>) -> Result<Client> {
    for _ in 0..ATTEMPTS {
        let mut client = open().open().await?;
        if client.invoke("Instance", json!([])).await? == app {
            return Ok(client);
        }
        client.close().await?;
    }
    anyhow::bail!("no client came to this app server")
}

/// Random instance ids of both app servers.
async fn instances(agents: &Agents<'_>, proxy: &Proxy) -> Result<[String; 2]> {
    let url = proxy.url("/calls");
    let mut found: Vec<String> = Vec::new();
    for _ in 0..ATTEMPTS {
        let client = agents.client(Kind::JsJson, &url).open().await?;
        let instance = client.invoke("Instance", json!([])).await?;
        let instance = instance.as_str().context("an id")?.to_owned();
        if !found.contains(&instance) {
            found.push(instance);
        }
        if let [first, second] = &found[..] {
            return Ok([first.clone(), second.clone()]);
        }
    }
    anyhow::bail!("all clients came to one app server")
}

#[test]
fn a_client_of_another_app_server_and_another_proxy_answers() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let apps = [fleet.app(App::Calls).await?, fleet.app(App::Calls).await?];
        let apps = [&apps[0], &apps[1]];
        let proxies = [fleet.proxy_with(&apps, &[]).await?, fleet.proxy_with(&apps, &[]).await?];
        let agents = Agents::new(fixture);
        let instances = instances(&agents, &proxies[0]).await?;
        let url = |proxy: &Proxy| proxy.url("/calls");
        for kind in Kind::JS {
            let asker = held_by(&instances[0], || agents.client(kind, &url(&proxies[0]))).await?;
            let error = asker.invoke_failing("Ask", json!(["nobody", "Value"])).await?;
            assert_eq!(error, failed("Ask", "Connection 'nobody' does not exist."));
            for (proxy, instance) in proxies.iter().flat_map(|proxy| instances.iter().map(move |id| (proxy, id))) {
                for asked_kind in Kind::JS {
                    let mut asked = held_by(instance, || answering(agents.client(asked_kind, &url(proxy)))).await?;
                    let id = asked.connection_id()?.to_owned();
                    assert_all_answers(&asker, &id).await?;
                    let ((), error) = tokio::try_join!(
                        async {
                            while asked.next().await?.target != "Never" {}
                            asked.close().await
                        },
                        asker.invoke_failing("Ask", json!([id, "Never"]))
                    )?;
                    assert_eq!(error, failed("Ask", &format!("Connection '{id}' disconnected.")));
                }
            }
        }
        nobody_waits(&apps).await
    });
}
