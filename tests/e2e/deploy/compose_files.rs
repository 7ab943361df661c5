//! Files for Docker and GitHub, checked with their published schemas.

use std::path::{Path, PathBuf};

use anyhow::Result;
use tokio::process::Command;
use trunkline_tests::harness::scenario::run_test;
use trunkline_tests::harness::tools::{DEPLOY_FOLDER, files, python, run, shipped};

async fn validate(schema: &str, paths: &[PathBuf]) -> Result<String> {
    run(python("check-jsonschema")?.args(["--builtin-schema", schema]).args(paths)).await
}

#[test]
fn compose_and_stack_are_what_the_compose_specification_says() {
    run_test(async |fixture| {
        let paths = [
            "compose.yaml",
            "swarm/stack.yml",
            "swarm/admin.yml",
            "swarm/app-keys.yml",
            "swarm/nats.yml",
            "compose/app-keys.yaml",
            "compose/nats.yaml",
            "compose/tls.yaml",
        ];
        let paths = paths.map(shipped);
        validate("vendor.compose-spec", &paths).await?;
        for path in &paths[..2] {
            let wrong = std::fs::read_to_string(path)?.replace("stop_grace_period", "stop_grace_time");
            let place = fixture.folder().join("wrong.yaml");
            std::fs::write(&place, wrong)?;
            assert!(validate("vendor.compose-spec", &[place]).await.is_err(), "{}: nothing is found", path.display());
        }
        Ok(())
    });
}

#[test]
fn haproxy_takes_the_variant_that_finds_nodes_by_name() {
    run_test(async |_stage| {
        run(Command::new("/usr/sbin/haproxy").arg("-c").arg("-f").arg(shipped("compose/haproxy.cfg"))).await?;
        // Otherwise equal, so that client addresses, timeouts and checks are those of the load balancer tests.
        let read = |path: &str| std::fs::read_to_string(shipped(path));
        let (own, common) = (read("compose/haproxy.cfg")?, read("haproxy/haproxy.cfg")?);
        // A `#` without a space is before a setting that may be activated.
        let settings = |text: &str| -> Vec<String> {
            let lines = text.lines().map(str::trim);
            let lines = lines.filter(|line| !["", "#"].contains(line) && !line.starts_with("# "));
            let places =
                ["server ", "server-template ", "bind 127.0.0.1:8404", "bind :8404", "resolvers ", "parse-", "hold "];
            let differs =
                |line: &str| line.starts_with("#cookie ") || places.iter().any(|start| line.starts_with(start));
            lines.filter(|line| !differs(line)).map(str::to_owned).collect()
        };
        assert_eq!(settings(&own), settings(&common));
        Ok(())
    });
}

#[test]
fn workflows_are_what_github_says() {
    run_test(async |_stage| {
        let folder = Path::new(DEPLOY_FOLDER).join("../.github/workflows");
        let workflows = files(&folder, "yml")?;
        assert!(workflows.len() >= 2, "{workflows:?}");
        validate("vendor.github-workflows", &workflows).await?;
        validate("custom.github-workflows-require-timeout", &workflows).await?;
        Ok(())
    });
}

#[test]
fn workflows_name_actions_by_their_commits() -> Result<()> {
    for workflow in files(&Path::new(DEPLOY_FOLDER).join("../.github/workflows"), "yml")? {
        let text = std::fs::read_to_string(&workflow)?;
        let steps = text.lines().map(|line| line.trim().trim_start_matches("- "));
        for action in steps.filter_map(|line| line.strip_prefix("uses: ")) {
            let commit = action.split_once('@').and_then(|(_, rest)| rest.split(' ').next()).unwrap_or_default();
            let is_commit = commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
            assert!(is_commit, "{action} in {}: tags can move", workflow.display());
        }
    }
    Ok(())
}
