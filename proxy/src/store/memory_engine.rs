//! Engine in memory: values end with the process.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::engine::{Change, Connection, Opened, Revised};
use crate::clock::unix_ms;

#[derive(Debug, Clone, Default)]
pub(super) struct MemoryEngine(Arc<Mutex<MemoryState>>);

#[derive(Debug, Default)]
struct MemoryState {
    values: BTreeMap<String, (Bytes, u64)>,
    revision: u64,
    watches: Vec<UnboundedSender<(String, Bytes)>>,
    /// Set by a test while the engine is away.
    away: Option<String>,
}

pub(super) struct MemoryChanges {
    stored: VecDeque<(String, Bytes)>,
    is_complete: bool,
    changes: UnboundedReceiver<(String, Bytes)>,
}

impl MemoryEngine {
    pub(super) fn open(&self) -> Result<Opened, String> {
        self.check()?;
        Ok(Opened { connection: Connection::Memory(self.clone()), server: "memory".into(), now_ms: unix_ms() })
    }

    pub(super) fn check(&self) -> Result<(), String> {
        self.state().away.clone().map_or(Ok(()), Err)
    }

    pub(super) fn get(&self, key: &str) -> Result<Revised, String> {
        self.check()?;
        let state = self.state();
        let found = state.values.get(key).cloned();
        Ok(found.map_or_else(Revised::default, |(value, revision)| Revised { value: Some(value), revision }))
    }

    pub(super) fn write(&self, key: &str, value: Bytes, revision: u64, _kept: Option<u64>) -> Result<bool, String> {
        self.check()?;
        let mut state = self.state();
        if state.values.get(key).map_or(0, |(_, revision)| *revision) != revision {
            return Ok(false);
        }
        state.put(key, value);
        Ok(true)
    }

    pub(super) fn changes(&self) -> MemoryChanges {
        let (mut state, (sender, changes)) = (self.state(), unbounded_channel());
        state.watches.push(sender);
        let stored = state.values.iter().map(|(key, (value, _))| (key.clone(), value.clone())).collect();
        MemoryChanges { stored, is_complete: false, changes }
    }

    fn state(&self) -> MutexGuard<'_, MemoryState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryState {
    fn put(&mut self, key: &str, value: Bytes) {
        self.revision += 1;
        self.watches.retain(|watch| watch.send((key.to_owned(), value.clone())).is_ok());
        self.values.insert(key.to_owned(), (value, self.revision));
    }
}

impl MemoryChanges {
    pub(super) async fn next(&mut self) -> Result<Change, String> {
        if let Some((key, value)) = self.stored.pop_front() {
            return Ok(Change::Value { key, value, behind: 0 });
        }
        if !self.is_complete {
            self.is_complete = true;
            return Ok(Change::Complete);
        }
        let (key, value) = self.changes.recv().await.ok_or("the watch was cut")?;
        Ok(Change::Value { key, value, behind: 0 })
    }
}

#[cfg(test)]
impl MemoryEngine {
    /// Takes the engine away, or brings it back.
    pub(super) fn set_away(&self, away: Option<&str>) {
        let mut state = self.state();
        state.away = away.map(str::to_owned);
        state.watches.clear();
    }

    /// Writes as another client of the account does.
    pub(super) fn put(&self, key: &str, value: &[u8]) {
        self.state().put(key, Bytes::copy_from_slice(value));
    }

    pub(super) fn lose_all(&self) {
        let mut state = self.state();
        state.values.clear();
        state.watches.clear();
    }

    pub(super) fn keys(&self) -> Vec<String> {
        self.state().values.keys().cloned().collect()
    }
}
