//! Files for Docker and for GitHub, by the schemas that these publish.

use std::path::{Path, PathBuf};

use anyhow::Result;
use trunkline_tests::scenario::play;
use trunkline_tests::tools::{DEPLOY_FOLDER, files, python, run, shipped};

async fn validate(schema: &str, paths: &[PathBuf]) -> Result<String> {
    run(python("check-jsonschema")?.args(["--builtin-schema", schema]).args(paths)).await
}

#[test]
fn compose_and_stack_are_what_the_compose_specification_says() {
    play(async |stage| {
        let paths = [shipped("compose.yaml"), shipped("swarm/stack.yml")];
        validate("vendor.compose-spec", &paths).await?;
        for path in paths {
            let wrong = std::fs::read_to_string(&path)?.replace("stop_grace_period", "stop_grace_time");
            let place = stage.folder().join("wrong.yaml");
            std::fs::write(&place, wrong)?;
            assert!(validate("vendor.compose-spec", &[place]).await.is_err(), "{}: nothing is found", path.display());
        }
        Ok(())
    });
}

#[test]
fn workflows_are_what_github_says() {
    play(async |_stage| {
        let folder = Path::new(DEPLOY_FOLDER).join("../.github/workflows");
        let workflows = files(&folder, "yml")?;
        assert!(workflows.len() >= 2, "{workflows:?}");
        validate("vendor.github-workflows", &workflows).await?;
        validate("custom.github-workflows-require-timeout", &workflows).await?;
        Ok(())
    });
}
