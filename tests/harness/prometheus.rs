//! Debian's Prometheus, which scrapes a fleet, and its promtool.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use http::StatusCode;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::harness::http_client;
use crate::harness::process::Process;
use crate::harness::scenario::{Fixture, until};
use crate::harness::sockets::free_address;

/// Scrape interval, the shortest possible.
const SCRAPE_INTERVAL: &str = "1s";

/// Token and alert rules of a Prometheus.
#[derive(Debug, Clone, Copy, Default)]
pub struct Terms<'a> {
    /// Token for all targets.
    pub token: Option<&'a str>,
    /// File with alert rules, as shipped.
    pub rules: Option<&'a Path>,
}

/// Running Prometheus, stopped on drop.
#[derive(Debug)]
pub struct Prometheus {
    /// Process that runs it.
    pub process: Process,
    address: String,
    targets: usize,
}

impl Prometheus {
    /// Starts a Prometheus that scrapes `/metrics` of these addresses as separate jobs, and waits until all are up.
    pub async fn start(fixture: &Fixture, targets: &[(&str, &str)]) -> Result<Self> {
        Self::start_with(fixture, targets, &Terms::default()).await
    }

    /// Starts a Prometheus with a token for its targets and with alert rules.
    ///
    /// # Errors
    /// If it does not start, or a target can't be scraped.
    pub async fn start_with(fixture: &Fixture, targets: &[(&str, &str)], terms: &Terms<'_>) -> Result<Self> {
        let address = free_address()?;
        let token = terms.token.map(|token| format!("    authorization: {{credentials: '{token}'}}\n"));
        let token = token.unwrap_or_default();
        let job = |(job, target): &(&str, &str)| {
            format!("  - job_name: {job}\n{token}    static_configs: [{{targets: ['{target}']}}]\n")
        };
        let jobs: String = targets.iter().map(job).collect();
        let rules = terms.rules.map(|file| format!("rule_files: ['{}']\n", file.display())).unwrap_or_default();
        let intervals = ["scrape_interval", "scrape_timeout", "evaluation_interval"];
        let intervals = intervals.map(|name| format!("{name}: {SCRAPE_INTERVAL}")).join(", ");
        let text = format!("global: {{{intervals}}}\n{rules}scrape_configs:\n{jobs}");
        let (file, data) = (fixture.folder().join("prometheus.yml"), fixture.folder().join("prometheus"));
        std::fs::write(&file, text)?;
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", data.display()));
        command.arg(format!("--web.listen-address={address}"));
        let process = Process::start(fixture, "prometheus", command)?;
        let mut prometheus = Self { process, address, targets: targets.len() };
        prometheus.up().await?;
        Ok(prometheus)
    }

    async fn up(&mut self) -> Result<()> {
        until(async || {
            ensure!(self.process.is_running(), "{}", self.process.log());
            let ready = http_client::get(&self.address, "/-/ready").await;
            Ok(ready.is_ok_and(|answer| answer.status == StatusCode::OK).then_some(()))
        })
        .await?;
        let up = self.targets as f64;
        until(async || Ok((self.query("sum(up)").await? == Some(up)).then_some(()))).await
    }

    /// Evaluates an expression with at most one value.
    pub async fn query(&self, expression: &str) -> Result<Option<f64>> {
        let expression: String = form_urlencoded::byte_serialize(expression.as_bytes()).collect();
        let answer = http_client::get(&self.address, &format!("/api/v1/query?query={expression}")).await?;
        let answer = answer.json()?;
        let found = answer.pointer("/data/result").and_then(Value::as_array).map(Vec::as_slice);
        let Some([] | [_]) = found else {
            bail!("{expression} gives {answer}");
        };
        let value = answer.pointer("/data/result/0/value/1").and_then(Value::as_str);
        value.map(|value| value.parse().context("not a number")).transpose()
    }

    /// Waits until an expression has this value; changes appear with the next scrape.
    ///
    /// # Errors
    /// If it can't be evaluated or never has this value. The error contains the values seen.
    pub async fn shows(&self, expression: &str, value: f64) -> Result<()> {
        let seen = std::cell::Cell::new(None);
        let waiting = until(async || {
            seen.set(self.query(expression).await?);
            Ok((seen.get() == Some(value)).then_some(()))
        });
        waiting.await.with_context(|| format!("{expression} should be {value}, but is {:?}", seen.get()))
    }
}

/// Checks names, units, types and texts of metrics with promtool.
pub async fn check(metrics: &str) -> Result<()> {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = command.kill_on_drop(true).spawn().context("starting promtool (tests/run installs it)")?;
    let mut stdin = promtool.stdin.take().context("the input is piped")?;
    stdin.write_all(metrics.as_bytes()).await?;
    drop(stdin);
    let output = promtool.wait_with_output().await?;
    let said = [output.stdout, output.stderr].concat();
    ensure!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
    Ok(())
}
