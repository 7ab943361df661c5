//! Shell scripts and programs for Node, checked by the parsers of their interpreters.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tokio::process::Command;
use trunkline_tests::harness::scenario::run_test;
use trunkline_tests::harness::tools::{DEPLOY_FOLDER, files, run, shipped};

/// Scripts without an ending.
const SCRIPTS: [&str; 4] = ["local/run", "../tests/run", "../tests/engines/run", "../.ci/run"];

fn with_ending(ending: &str) -> Result<Vec<PathBuf>> {
    let engines = Path::new(DEPLOY_FOLDER).join("../tests/engines");
    let mut all = files(&engines, ending)?;
    all.extend(files(Path::new(DEPLOY_FOLDER), ending)?);
    Ok(all)
}

#[test]
fn every_script_can_be_parsed() {
    run_test(async |fixture| {
        let scripts: Vec<PathBuf> = SCRIPTS.iter().map(|name| shipped(name)).chain(with_ending("sh")?).collect();
        for script in &scripts {
            run(Command::new("bash").arg("-n").arg(script)).await?;
        }
        let programs = with_ending("mjs")?;
        for program in &programs {
            run(Command::new("node").arg("--check").arg(program)).await?;
        }
        assert!(scripts.len() > SCRIPTS.len() && !programs.is_empty(), "{scripts:?} {programs:?}");
        // Checks that errors are detected.
        let broken = fixture.folder().join("broken.sh");
        std::fs::write(&broken, "if true; then\n")?;
        assert!(run(Command::new("bash").arg("-n").arg(&broken)).await.is_err());
        Ok(())
    });
}

#[test]
fn sourced_parts_of_the_engines_script_are_there() {
    run_test(async |_stage| {
        let folder = Path::new(DEPLOY_FOLDER).join("../tests/engines");
        let text = std::fs::read_to_string(folder.join("run"))?;
        let parts: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix(". \"$HERE/")).collect();
        assert!(parts.len() >= 5, "{parts:?}");
        for part in parts.iter().map(|part| part.trim_end_matches('"')).filter(|part| !part.contains('$')) {
            std::fs::metadata(folder.join(part)).with_context(|| part.to_owned())?;
        }
        // Each machine file defines the functions that `run` calls.
        for machines in files(&folder.join("machines"), "sh")? {
            let text = std::fs::read_to_string(&machines)?;
            for function in ["machine_build", "machine_start", "machine_kill", "on"] {
                assert!(text.contains(&format!("\n{function}() {{")), "{}: {function}", machines.display());
            }
        }
        Ok(())
    });
}
