//! Configuration file, the reports about it, and a node's health checks.

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
fn check_shows_what_would_be_used_and_no_secret() {
    run_test(async |fixture| {
        let settings = "upstream = \"http://127.0.0.1:5000\"\naccess-key = \"the secret of secrets\"\npool_size = 7\n";
        let file = file(fixture, settings)?;
        let mut check = trunkline(&["check", name(&file)])?;
        let output = check.env("TRUNKLINE_SHARDS", "3").env("TRUNKLINE_DRAIN_TIMEOUT", "2m").output().await?;
        let shown = text(&output);
        assert!(output.status.success(), "{shown}");
        assert!(!shown.contains("secret of secrets"), "{shown}");
        for line in [
            "upstream = [\"http://127.0.0.1:5000\"] # file",
            "access-key = [\"(secret)\"] # file",
            "pool-size = 7 # file",
            "shards = 3 # TRUNKLINE_SHARDS",
            "drain-timeout = \"2m\" # TRUNKLINE_DRAIN_TIMEOUT",
            "header-timeout = \"15s\" # default",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line} is missing in\n{shown}");
        }
        Ok(())
    });
}

#[test]
fn check_shows_the_rules_and_which_of_them_a_sample_hits() {
    run_test(async |fixture| {
        let settings = "upstream = \"http://127.0.0.1:5000\"\n\n[groups.canary]\nupstream = \
                        \"http://127.0.0.1:5001\"\n\n[[routes]]\nhub = \"/chat\"\nuser = \"ann\"\ngroup = \
                        \"canary\"\n\n[[routes]]\nhub = \"/chat\"\nuser = \"ann\"\nreject = 403\n\n[[methods]]\nhub = \
                        \"/chat\"\ndeny = [\"Debug*\"]\n";
        let file = file(fixture, settings)?;
        let output = trunkline(&["check", name(&file)])?.output().await?;
        let shown = text(&output);
        assert!(output.status.success(), "{shown}");
        for line in [
            "# route 1: hub is \"/chat\", user is \"ann\" -> group canary",
            "# method rule 1: hub is \"/chat\" -> deny \"Debug*\"",
            "warning: route 2 matches nothing: route 1 takes all its clients",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line} is missing in\n{shown}");
        }
        let samples = ["--sample", "hub=chat user=ann target=debugAll", "--sample", "hub=chat user=bob"];
        let output = trunkline(&[&["check", name(&file)][..], &samples].concat())?.output().await?;
        let shown = text(&output);
        for line in [
            "  => connection: group canary",
            "  => message: refused. The method 'debugAll' can't be called: the server's rules refuse it.",
            "  route 1 does not hold: user is \"ann\"",
            "  => connection: group default, as no route takes it",
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line} is missing in\n{shown}");
        }
        Ok(())
    });
}

#[test]
fn what_is_wrong_with_a_file_is_named() {
    run_test(async |fixture| {
        let cases = [
            ("[[routes]]\ngroup = \"canary\"", "line 2, column 9: there is no group \"canary\""),
            ("[[route]]\nreject = 403", "line 1, column 3: unknown key \"route\"; is \"routes\" meant?"),
            ("pool-size = 5\npool-sise = 7", "line 2, column 1: unknown key \"pool-sise\""),
            ("pool-sise = 7", "unknown key \"pool-sise\"; is \"pool-size\" meant?"),
            ("listen = [1]", "listen is a list, but must be a string or a number"),
            ("listen =", "invalid TOML"),
            (
                "upstream = \"http://a\"\npool-size = 1000",
                "line 2, column 1: invalid value '1000' for '--pool-size <N>'",
            ),
            ("drain-timeout = \"2h\"", "must be from 0s to 1h"),
            ("upstream = \"http://10.0.0.1\"", "trunkline token key"),
        ];
        for (settings, problem) in cases {
            let file = file(fixture, settings)?;
            for arguments in [["check", name(&file), ""], ["serve", "--config", name(&file)]] {
                let arguments: Vec<&str> = arguments.into_iter().filter(|argument| !argument.is_empty()).collect();
                let output = trunkline(&arguments)?.output().await?;
                assert!(!output.status.success(), "{arguments:?} with {settings}");
                assert!(text(&output).contains(problem), "{arguments:?} with {settings}: {}", text(&output));
                let is_told_twice =
                    problem.starts_with("line 2, column 9") && text(&output).matches(problem).count() > 1;
                assert!(!is_told_twice, "{}", text(&output));
            }
        }
        let missing = trunkline(&["serve", "--config", "/nowhere/trunkline.toml"])?.output().await?;
        assert!(text(&missing).contains("/nowhere/trunkline.toml"), "{}", text(&missing));
        Ok(())
    });
}

#[test]
fn a_file_that_init_writes_holds_the_defaults_and_a_node_takes_it() {
    run_test(async |fixture| {
        let file = fixture.folder().join("new.toml");
        let init = ["init", "--out", name(&file)];
        let output = trunkline(&init)?.output().await?;
        assert!(output.status.success(), "{}", text(&output));
        let mut check = trunkline(&["check", name(&file)])?;
        let output = check.env("TRUNKLINE_UPSTREAM", "http://127.0.0.1:5000").output().await?;
        let shown = text(&output);
        assert!(output.status.success() && shown.contains("poll-timeout = \"90s\" # default"), "{shown}");
        let written = std::fs::read_to_string(&file)?;
        let again = trunkline(&init)?.output().await?;
        assert!(!again.status.success() && text(&again).contains("exists, and was not changed"), "{}", text(&again));
        assert_eq!(std::fs::read_to_string(&file)?, written);
        Ok(())
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
fn tokens_are_signed_with_a_key_file_or_else_with_the_development_key() {
    run_test(async |fixture| {
        let (key, state) = (fixture.folder().join("access.key"), fixture.folder().join("state"));
        std::fs::write(&key, ACCESS_KEY)?;
        let token = ["token", "user", "ann", "--lifetime", "5m"];
        let output = trunkline(&[&token[..], &["--access-key-file", name(&key)]].concat())?.output().await?;
        let warning = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(warning.contains("can read the secret in --access-key-file"), "{warning}");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim().split('.').count(), 3);
        let output = trunkline(&token)?.env("XDG_STATE_HOME", &state).output().await?;
        let warning = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(warning.contains("development key") && warning.lines().count() == 1, "{warning}");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim().split('.').count(), 3);
        assert!(state.join("trunkline/development.key").exists());
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
