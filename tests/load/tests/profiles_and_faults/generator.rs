//! Process of the load tester, with its report.

use std::path::PathBuf;
use std::process::ExitStatus;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::process::Command;
use trunkline_tests::harness::fleet::{ACCESS_KEY, App, Fleet, Proxy};
use trunkline_tests::harness::process::{Process, Signal};
use trunkline_tests::harness::scenario::{Fixture, profile_folder};

/// Command that builds the programs for the tests.
const BUILD: &str = "cargo build -p trunkline-proxy --bin trunkline -p trunkline --example bench";

#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: i32,
    pub(crate) text: String,
    pub(crate) report: Value,
    pub(crate) json: PathBuf,
}

impl Outcome {
    pub(crate) fn count(&self, name: &str) -> u64 {
        self.report.pointer(&format!("/counts/{name}")).and_then(Value::as_u64).unwrap_or(u64::MAX)
    }

    pub(crate) fn is_clean(&self) {
        assert_eq!(self.status, 0, "{}", self.text);
        assert_eq!(self.report.get("is_clean"), Some(&true.into()), "{}", self.text);
        for fault in ["lost", "duplicated", "reordered", "misdelivered"] {
            assert_eq!(self.count(fault), 0, "{fault}: {}", self.text);
        }
        assert_eq!(self.count("expected"), self.count("received"));
    }
}

/// Runs the load tester with space-separated arguments.
pub(crate) async fn run(fixture: &Fixture, arguments: &str) -> Result<Outcome> {
    let (mut command, json) = command(fixture, arguments);
    let output = command.kill_on_drop(true).output().await?;
    let text = [output.stdout, output.stderr].concat();
    outcome(output.status, String::from_utf8_lossy(&text).into_owned(), json)
}

/// Runs the load tester, and sends Ctrl-C when `enough` completes.
pub(crate) async fn run_until(
    enough: impl Future<Output = Result<()>>,
    fixture: &Fixture,
    arguments: &str,
) -> Result<Outcome> {
    let (command, json) = command(fixture, arguments);
    let mut process = Process::start(fixture, "generator", command)?;
    enough.await?;
    process.signal(Signal::Interrupt).await?;
    let status = process.ended().await?;
    outcome(status, process.log(), json)
}

fn command(fixture: &Fixture, arguments: &str) -> (Command, PathBuf) {
    let json = fixture.log_path("report").with_extension("json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_trunkline-load"));
    command.args(arguments.split_whitespace()).arg("--json").arg(&json);
    (command, json)
}

fn outcome(status: ExitStatus, text: String, json: PathBuf) -> Result<Outcome> {
    let report = std::fs::read(&json).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    Ok(Outcome { status: status.code().context("killed")?, text, report, json })
}

/// Starts the app server `bench` with two proxies.
pub(crate) async fn fleet(fixture: &Fixture) -> Result<(trunkline_tests::harness::fleet::AppServer, [Proxy; 2])> {
    let folder = profile_folder()?;
    for program in [folder.join("trunkline"), folder.join("examples").join("bench")] {
        ensure!(program.is_file(), "{} is missing; this builds it: {BUILD}", program.display());
    }
    let fleet = Fleet::with_keys(fixture, ACCESS_KEY);
    let app = fleet.app(App::Bench).await?;
    let proxies = fleet.two_proxies(&app).await?;
    Ok((app, proxies))
}
