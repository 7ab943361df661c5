//! Processes that host clients in other languages.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, bail};
use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::harness::driver::Driver;
use crate::harness::scenario::{Fixture, target_folder};

use super::kind::{Host, Kind};

/// Folder of the programs that drive client libraries.
pub const CLIENTS_FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients");

/// Client host processes, one per language, started on demand.
#[derive(Debug)]
pub struct Agents<'a> {
    pub(super) fixture: &'a Fixture,
    trusted: Option<PathBuf>,
    node: OnceCell<Arc<Driver>>,
    python: OnceCell<Arc<Driver>>,
    java: OnceCell<Arc<Driver>>,
    go: OnceCell<Arc<Driver>>,
    clients: AtomicUsize,
}

impl<'a> Agents<'a> {
    /// Creates the agents without starting any.
    #[must_use]
    pub fn new(fixture: &'a Fixture) -> Self {
        Self {
            fixture,
            trusted: None,
            node: OnceCell::new(),
            python: OnceCell::new(),
            java: OnceCell::new(),
            go: OnceCell::new(),
            clients: AtomicUsize::new(0),
        }
    }

    /// Creates the agents without starting any. They trust the certificates in this file.
    #[must_use]
    pub fn trusting(fixture: &'a Fixture, certificates: &Path) -> Self {
        Self { trusted: Some(certificates.into()), ..Self::new(fixture) }
    }

    /// Kills the process that hosts this kind's clients (`kill -9`).
    pub async fn kill(&self, kind: Kind) -> Result<()> {
        self.driver(kind).await?.kill().await
    }

    pub(super) fn next_name(&self) -> String {
        format!("client-{}", self.clients.fetch_add(1, Ordering::Relaxed))
    }

    pub(super) async fn driver(&self, kind: Kind) -> Result<&Arc<Driver>> {
        match kind.host() {
            Host::Node => self.node.get_or_try_init(async || start_node(self.fixture, self.trusted.as_deref())).await,
            Host::Python => {
                self.python.get_or_try_init(async || start_python(self.fixture, self.trusted.as_deref())).await
            }
            Host::Java => self.java.get_or_try_init(async || start_java(self.fixture)).await,
            Host::Go => self.go.get_or_try_init(async || start_go(self.fixture)).await,
            Host::DotNet => bail!("{kind:?} has a process of its own"),
        }
    }
}

fn start_node(fixture: &Fixture, trusted: Option<&Path>) -> Result<Arc<Driver>> {
    let mut command = Command::new("node");
    command.envs(trusted.map(|file| ("NODE_EXTRA_CA_CERTS", file)));
    command.arg(Path::new(CLIENTS_FOLDER).join("js/agent.mjs"));
    Driver::start(fixture, "agent-js", command)
}

fn start_python(fixture: &Fixture, trusted: Option<&Path>) -> Result<Arc<Driver>> {
    let mut command = Command::new(target_folder()?.join("python/bin/python"));
    command.envs(trusted.map(|file| ("SSL_CERT_FILE", file)));
    command.arg("-B").arg(Path::new(CLIENTS_FOLDER).join("python/agent.py"));
    Driver::start(fixture, "agent-python", command)
}

fn start_java(fixture: &Fixture) -> Result<Arc<Driver>> {
    let folder = target_folder()?.join("java");
    let class_path = std::env::join_paths([folder.join("classes"), folder.join("libraries/*")])?;
    let mut command = Command::new("java");
    // The process is short-lived: a second compiler would only compete with the processes under test.
    command.arg("-XX:TieredStopAtLevel=1").arg("-cp").arg(class_path).arg("Agent");
    Driver::start(fixture, "agent-java", command)
}

fn start_go(fixture: &Fixture) -> Result<Arc<Driver>> {
    Driver::start(fixture, "agent-go", Command::new(target_folder()?.join("go/agent")))
}
