//! Controls a process in another language: one JSON line per command, reply and event.
//!
//! Replies carry the id of their command, events the name of their `client` or `page`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Mutex as AsyncMutex, oneshot};

use crate::harness::process::Process;
use crate::harness::scenario::{Fixture, named};

/// Outcome of a command: a result or an error text.
pub type Reply = std::result::Result<Value, String>;

/// Process in another language that executes commands.
#[derive(Debug)]
pub struct Driver {
    process: AsyncMutex<Process>,
    commands: AsyncMutex<Option<ChildStdin>>,
    next_id: AtomicU64,
    waiting: Arc<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    replies: Mutex<HashMap<u64, oneshot::Sender<Reply>>>,
    events: Mutex<HashMap<String, UnboundedSender<Value>>>,
}

impl Driver {
    /// Starts the process.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn start(fixture: &Fixture, name: &str, command: Command) -> Result<Arc<Self>> {
        let (process, stdin, stdout) = Process::start_driven(fixture, name, command)?;
        let waiting = Arc::new(Waiting::default());
        tokio::spawn(read(stdout, Arc::clone(&waiting)));
        Ok(Arc::new(Self {
            process: AsyncMutex::new(process),
            commands: AsyncMutex::new(Some(stdin)),
            next_id: AtomicU64::new(1),
            waiting,
        }))
    }

    /// Sends a command and waits for its reply.
    pub async fn command(&self, op: &str, mut options: Value) -> Result<Reply> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        if let Some(command) = options.as_object_mut() {
            command.insert("id".into(), json!(id));
            command.insert("op".into(), json!(op));
        }
        let (tell, reply) = oneshot::channel();
        lock(&self.waiting.replies).insert(id, tell);
        {
            let mut commands = self.commands.lock().await;
            let commands = commands.as_mut().context("the driven process was ended")?;
            commands.write_all(format!("{options}\n").as_bytes()).await.context("the driven process is gone")?;
        }
        let reply = named(format!("the driven process's reply to {options}"), reply).await;
        reply.with_context(|| format!("the driven process ended during `{op}`"))
    }

    /// Events about one client or page, from now on.
    #[must_use]
    pub fn events_of(&self, name: &str) -> UnboundedReceiver<Value> {
        let (tell, events) = unbounded_channel();
        lock(&self.waiting.events).insert(name.into(), tell);
        events
    }

    /// Kills the process (`kill -9`), so that its clients vanish abruptly.
    pub async fn kill(&self) -> Result<()> {
        self.process.lock().await.kill().await
    }

    /// Lets the process end and waits for it.
    pub async fn end(&self) -> Result<()> {
        drop(self.commands.lock().await.take());
        self.process.lock().await.ended().await?;
        Ok(())
    }
}

async fn read(stdout: ChildStdout, waiting: Arc<Waiting>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Ok(line) = serde_json::from_str(&line) {
            hand_over(line, &waiting);
        }
    }
    // Dropping the senders wakes all remaining waiters.
    lock(&waiting.replies).clear();
    lock(&waiting.events).clear();
}

fn hand_over(line: Value, waiting: &Waiting) {
    let text = |name| line.get(name).and_then(Value::as_str);
    if let Some(id) = line.get("id").and_then(Value::as_u64) {
        let Some(tell) = lock(&waiting.replies).remove(&id) else {
            return;
        };
        let reply = match text("error") {
            Some(error) => Err(error.to_owned()),
            None => Ok(line.get("result").cloned().unwrap_or_default()),
        };
        drop(tell.send(reply));
    } else if let Some(name) = text("client").or_else(|| text("page")) {
        let events = lock(&waiting.events);
        if let Some(tell) = events.get(name) {
            drop(tell.send(line.clone()));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
