//! The data plane on the command line: `trunkline token rest`, and the program `curl`.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::process::Command;
use trunkline_tests::harness::fleet::{ACCESS_KEY, App, Fleet};
use trunkline_tests::harness::raw::RawClient;
use trunkline_tests::harness::scenario::{profile_folder, run_test};
use trunkline_tests::harness::sockets::free_address;
use trunkline_tests::harness::tools::run;

/// Format of the status that `curl` prints after the body.
const STATUS: &str = "\n%{http_code}";

fn trunkline() -> Result<PathBuf> {
    Ok(profile_folder()?.join("trunkline"))
}

async fn token(arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(trunkline()?);
    command.args(["token", "rest"]).args(arguments).env("TRUNKLINE_ACCESS_KEY", ACCESS_KEY);
    Ok(run(&mut command).await?.trim().to_owned())
}

async fn curl(token: &str, arguments: &[&str]) -> Result<(u16, Value)> {
    let authorization = format!("Authorization: Bearer {token}");
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "60", "--write-out", STATUS, "--header", &authorization]);
    let printed = run(command.args(arguments)).await?;
    let (body, status) = printed.rsplit_once('\n').context("no status")?;
    let body = if body.is_empty() { Value::Null } else { serde_json::from_str(body)? };
    Ok((status.parse()?, body))
}

/// Status of a POST without a body, for responses of any format.
async fn status_of_post(token: &str, url: &str) -> Result<String> {
    let authorization = format!("Authorization: Bearer {token}");
    let mut command = Command::new("curl");
    command.args(["--silent", "--max-time", "60", "--output", "/dev/null", "--write-out", "%{http_code}"]);
    run(command.args(["--request", "POST", "--header", &authorization, url])).await
}

#[test]
fn curl_and_a_printed_token_are_all_that_it_takes() {
    run_test(async |fixture| {
        let fleet = Fleet::new(fixture);
        let app = fleet.app(App::Bench).await?;
        let node = fleet.proxy_with(&[&app], &["--rest"]).await?;
        let mut client = RawClient::join(node.address(), "/bench").await?;
        let id = client.call("WhoAmI", json!([])).await?["result"]["connectionId"].as_str().context("id")?.to_owned();
        let url = |path: &str| node.url(&format!("/api/hubs/bench{path}"));
        let (all, of_hub, of_other) =
            (token(&[]).await?, token(&["--hub", "bench"]).await?, token(&["--hub", "other"]).await?);
        let body = json!({ "target": "Notice", "arguments": ["by curl", 1] }).to_string();
        for token in [&all, &of_hub] {
            let sent = curl(token, &["--json", &body, &url("/:send")]).await?;
            ensure!(sent == (202, json!({ "nodes": 1, "clients": 1, "missing": [] })), "{sent:?}");
            let record = client.next_record().await?;
            ensure!(record["arguments"] == json!(["by curl", 1]), "{record}");
        }
        let (status, told) = curl(&of_other, &["--json", &body, &url("/:send")]).await?;
        ensure!(status == 401 && told["code"] == "Error.Token.Invalid", "{told}");
        let joined = curl(&of_hub, &["--request", "PUT", &url(&format!("/groups/red/connections/{id}"))]).await?;
        ensure!(joined == (200, Value::Null), "{joined:?}");
        let (status, page) = curl(&all, &[&url("/groups/red/connections")]).await?;
        let members = json!({ "value": [{ "connectionId": id, "userId": null }], "nextLink": null });
        ensure!((status, &page) == (200, &members), "{page}");
        // Chunked body from standard input.
        let piped = format!(
            "printf '%s' '{body}' | curl --silent --fail --header 'Authorization: Bearer {all}' \
                             --header 'Transfer-Encoding: chunked' --header 'Content-Type: application/json' \
                             --data-binary @- {}",
            url("/groups/red/:send")
        );
        run(Command::new("sh").args(["-c", &piped])).await?;
        ensure!(client.next_record().await?["target"] == "Notice");
        let closed = curl(&all, &["--request", "DELETE", &url(&format!("/connections/{id}?reason=bye"))]).await?;
        ensure!(closed == (200, Value::Null), "{closed:?}");
        ensure!(client.ending().await?.text.contains("bye"));
        Ok(())
    });
}

#[test]
fn a_token_is_signed_by_the_key_of_an_app_from_a_file_or_the_configuration() {
    run_test(async |fixture| {
        let key = "a-key-of-one-app-0123456789";
        let (line, table) = (fixture.folder().join("keys"), fixture.folder().join("node.toml"));
        std::fs::write(&line, format!("shop={key};orders\n"))?;
        std::fs::write(
            &table,
            format!("listen = \"127.0.0.1:1\"\n[app-keys.shop]\nkey = {key:?}\nhubs = [\"orders\"]\n"),
        )?;
        let file = line.to_string_lossy().into_owned();
        let arguments = ["--rest", "--app-key-file", &file];
        let mut node = Fleet::new(fixture).proxy_of(&free_address()?, &free_address()?, &[], &arguments)?;
        node.ready().await?;
        let body = json!({ "target": "Notice", "arguments": [] }).to_string();
        let config = table.to_string_lossy().into_owned();
        for source in [["--app-key-file", &*file], ["--config", &*config]] {
            for more in [&[][..], &["--app", "shop"], &["--hub", "orders"]] {
                let mut command = Command::new(trunkline()?);
                let command = command.args(["token", "rest"]).args(source).args(more);
                let token = run(command.env_remove("TRUNKLINE_ACCESS_KEY")).await?.trim().to_owned();
                for (hub, status) in [("orders", 202), ("other", 401)] {
                    let sent = curl(&token, &["--json", &body, &node.url(&format!("/api/hubs/{hub}/:send"))]).await?;
                    ensure!(sent.0 == status, "{source:?} {more:?} {hub}: {sent:?}");
                }
                let mut command = Command::new(trunkline()?);
                let of_hub = if more.contains(&"--hub") { &[][..] } else { &["--hub", "orders"] };
                let command = command.args(["token", "user", "ann"]).args(of_hub).args(source).args(more);
                let token = run(command.env_remove("TRUNKLINE_ACCESS_KEY")).await?.trim().to_owned();
                for (hub, is_refused) in [("orders", false), ("other", true)] {
                    let target = node.url(&format!("/client/negotiate?hub={hub}&negotiateVersion=1"));
                    let status = status_of_post(&token, &target).await?;
                    ensure!((status == "401") == is_refused, "{source:?} {more:?} {hub}: {status}");
                }
            }
        }
        Ok(())
    });
}
