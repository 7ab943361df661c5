//! The recipes of `docs/book/src/operators/routing.md` are complete files that `trunkline check` accepts.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context, Result};
use tokio::process::Command;
use trunkline_tests::harness::fleet::ACCESS_KEY;
use trunkline_tests::harness::scenario::{Fixture, profile_folder, run_test};
use trunkline_tests::harness::tls::text;

const PAGE: &str = include_str!("../../../docs/book/src/operators/routing.md");

const FOLDER: &str = "/etc/trunkline/";

/// Names and files of the recipes, in order.
fn recipes() -> Result<Vec<(&'static str, &'static str)>> {
    let (_, recipes) = PAGE.split_once("\n## Recipes\n").context("the page has recipes")?;
    let blocks = recipes.split("\n### ").skip(1).map(|recipe| {
        let (_, block) = recipe.split_once("```toml\n")?;
        Some((recipe.lines().next()?, block.split_once("```")?.0))
    });
    blocks.collect::<Option<_>>().context("each recipe has a file")
}

async fn check(file: &Path, samples: &[&str]) -> Result<String> {
    let mut check = Command::new(profile_folder()?.join("trunkline"));
    check.env_clear().env("NO_COLOR", "1").args(["check", text(file)?]);
    check.args(samples.iter().flat_map(|sample| ["--sample", sample]));
    let output = check.output().await?;
    let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && !told.contains("warning"), "{told}");
    Ok(told)
}

fn write(fixture: &Fixture, recipe: &str) -> Result<std::path::PathBuf> {
    let folder = fixture.folder();
    fs::write(folder.join("access-key"), ACCESS_KEY)?;
    fs::set_permissions(folder.join("access-key"), fs::Permissions::from_mode(0o600))?;
    fs::write(folder.join("maintenance.html"), "<p>Back at noon")?;
    let file = folder.join("trunkline.toml");
    fs::write(&file, recipe.replace(FOLDER, &format!("{}/", text(folder)?)))?;
    Ok(file)
}

#[test]
fn each_recipe_is_a_sound_file_whose_rules_are_all_of_use() {
    run_test(async |fixture| {
        let recipes = recipes()?;
        let names: Vec<_> = recipes.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["Canary", "Specialised workers", "Audit tee", "Maintenance page"]);
        for (name, recipe) in recipes {
            let told = check(&write(fixture, recipe)?, &[]).await?;
            let rules = recipe.matches("\n[").count();
            assert_eq!(told.lines().filter(|line| line.starts_with("# ")).count(), rules, "{name}: {told}");
        }
        Ok(())
    });
}

#[test]
fn the_samples_of_a_recipe_hit_the_rules_that_it_tells_of() {
    run_test(async |fixture| {
        let recipes = recipes()?;
        let file = |name: &str| -> Result<_> {
            let recipe = recipes.iter().find(|(known, _)| *known == name).context("a recipe")?.1;
            write(fixture, recipe)
        };
        let told = check(&file("Canary")?, &["hub=chat user=ann claim:role=tester"]).await?;
        assert!(told.contains("testers") && told.contains("group canary"), "{told}");
        let told = check(&file("Specialised workers")?, &["hub=chat user=ann target=SearchUsers"]).await?;
        assert!(told.contains("group search"), "{told}");
        let told = check(&file("Maintenance page")?, &["path=/", "hub=chat address=192.168.7.9"]).await?;
        assert!(told.contains("maintenance") && told.contains("503") && told.contains("operators"), "{told}");
        Ok(())
    });
}
