//! Configuration file, the command's reports about itself, and a node's health checks.

use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::Result;
use serde_json::json;
use tokio::process::Command;
use trunkline_tests::harness::client::{Agents, Kind};
use trunkline_tests::harness::fleet::{ACCESS_KEY, App, Fleet};
use trunkline_tests::harness::http_client::post;
use trunkline_tests::harness::process::{Process, Signal};
use trunkline_tests::harness::scenario::{Fixture, profile_folder, run_test, until};
use trunkline_tests::harness::sockets::free_address;

/// Creates the command without the caller's environment.
fn trunkline(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(profile_folder()?.join("trunkline"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TRUNKLINE_")) {
        command.env_remove(name);
    }
    command.env("NO_COLOR", "1").args(arguments);
    Ok(command)
}

fn file(fixture: &Fixture, text: &str) -> Result<PathBuf> {
    let path = fixture.folder().join("trunkline.toml");
    std::fs::write(&path, text)?;
    Ok(path)
}

fn name(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_node_runs_by_its_file_and_tells_whether_it_is_ready() {
    run_test(async |fixture| {
        let app = Fleet::new(fixture).app(App::Bench).await?;
        let (listen, admin) = (free_address()?, free_address()?);
        let settings = format!(
            "listen = \"{listen}\"\nadmin = \"{admin}\"\nupstream = [\"http://{}\"]\naccess-key = \"{ACCESS_KEY}\"\n\
             shards = 1\nnode-name = \"from-file\"\n",
            app.address()
        );
        let file = file(fixture, &settings)?;
        let unhealthy = trunkline(&["health", "--admin", &format!("http://{admin}")])?.output().await?;
        assert!(!unhealthy.status.success() && text(&unhealthy).contains("no answer from"), "{}", text(&unhealthy));
        let mut serve = trunkline(&["serve", "--config", name(&file)])?;
        serve.env("TRUNKLINE_NODE_NAME", "from-environment");
        let mut node = Process::start(fixture, "node", serve)?;
        until(async || {
            let healthy = trunkline(&["health", "--admin", &format!("http://{admin}")])?.output().await?;
            Ok(healthy.status.success().then_some(()))
        })
        .await?;
        let answer = post(&listen, "/bench/negotiate").await?;
        assert_eq!(answer.header("x-trunkline-node"), Some("from-environment"));
        trunkline_tests::harness::fleet::stop(&mut node, Signal::Terminate).await
    });
}

#[test]
fn the_command_tells_its_build_its_manual_and_what_a_shell_completes() {
    run_test(async |_stage| {
        let output = trunkline(&["--version"])?.output().await?;
        let version = text(&output);
        let begin = concat!("trunkline ", env!("CARGO_PKG_VERSION"), " (");
        assert!(version.starts_with(begin) && version.contains(std::env::consts::ARCH), "{version}");
        for (arguments, expected) in
            [(&["completions", "bash"], "--drain-timeout"), (&["man", "serve"], ".TH trunkline-serve 1")]
        {
            let output = trunkline(arguments)?.output().await?;
            assert!(output.status.success() && text(&output).contains(expected), "{arguments:?}: {}", text(&output));
        }
        Ok(())
    });
}

#[test]
fn a_node_without_any_setting_is_a_service_for_apps_of_this_machine_by_the_printed_line() {
    run_test(async |fixture| {
        let fleet = Fleet::in_development(fixture);
        let mut node = fleet.proxy_of(&free_address()?, &free_address()?, &[], &[])?;
        node.ready().await?;
        let mut command = trunkline(&["connection-string", "--listen", node.address()])?;
        let output = command.env("XDG_STATE_HOME", fixture.folder().join("state")).output().await?;
        assert!(output.status.success() && output.stderr.is_empty(), "nothing to warn of: {}", text(&output));
        let line = String::from_utf8(output.stdout)?.trim_end().to_owned();
        assert!(line.starts_with(&format!("Endpoint=http://{};AccessKey=", node.address())), "an app reads it");
        let app = fleet.app_with(App::Bench, &["--dial", &line]).await?;
        node.linked(1).await?;
        let agents = Agents::new(fixture);
        let client = agents.client(Kind::JsJson, &format!("http://{}/bench", app.address())).open().await?;
        assert_eq!(client.invoke("Echo", json!(["here"])).await?, "here");
        Ok(())
    });
}
