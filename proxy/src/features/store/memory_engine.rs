//! Engine in memory for tests: values end with the process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::store_engine::{
    Change, Connected, Connection, Engine, EngineAnswer, EngineLogs, EngineMessages, Opened, Revised, StoreChanges,
};
use crate::ground::clock::unix_ms;

/// Published messages with their subjects.
type RecordedMessages = Arc<Mutex<Vec<(String, Bytes)>>>;

#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryEngine(Arc<Mutex<MemoryState>>);

#[derive(Debug, Default)]
struct MemoryState {
    values: BTreeMap<String, (Bytes, u64)>,
    logs: BTreeMap<String, Vec<(u64, Bytes)>>,
    revision: u64,
    watches: Vec<UnboundedSender<(String, Bytes)>>,
    subscriptions: Vec<(String, UnboundedSender<Bytes>)>,
    recorded: Option<RecordedMessages>,
    /// Number of published messages until one is lost.
    until_loss: Option<usize>,
    away: Option<String>,
    /// Whether appends are carried out without an answer.
    loses_answers: bool,
}

impl MemoryEngine {
    fn state(&self) -> MutexGuard<'_, MemoryState> {
        self.0.lock().unwrap()
    }

    fn answer<T: Send + 'static>(&self, act: impl FnOnce(&mut MemoryState) -> T) -> EngineAnswer<'static, T> {
        let mut state = self.state();
        let answer = state.away.clone().map_or_else(|| Ok(act(&mut state)), Err);
        Box::pin(async { answer })
    }

    /// Takes the engine away, or brings it back.
    pub(crate) fn set_away(&self, away: Option<&str>) {
        let mut state = self.state();
        state.away = away.map(str::to_owned);
        state.watches.clear();
        state.subscriptions.clear();
    }

    /// Writes as another client of the account does.
    pub(super) fn put(&self, key: &str, value: &[u8]) {
        self.state().put(key, Bytes::copy_from_slice(value));
    }

    pub(super) fn value(&self, key: &str) -> Bytes {
        self.state().values[key].0.clone()
    }

    pub(super) fn lose_all(&self) {
        let mut state = self.state();
        state.values.clear();
        state.watches.clear();
    }

    /// Appends a copy of the first value of each log, as another client of the account can.
    pub(crate) fn repeat_first_values(&self) {
        let mut state = self.state();
        state.revision += 1;
        let revision = state.revision;
        for log in state.logs.values_mut() {
            let copied = log.first().map(|(_, value)| (revision, value.clone()));
            log.extend(copied);
        }
    }

    pub(crate) fn lose_answers(&self, loses_answers: bool) {
        self.state().loses_answers = loses_answers;
    }

    /// Loses the published message after this number of others.
    pub(crate) fn lose_message_after(&self, count: usize) {
        self.state().until_loss = Some(count);
    }

    /// Records all messages from now on, as another client of the account can.
    pub(crate) fn record_messages(&self) -> RecordedMessages {
        self.state().recorded.get_or_insert_default().clone()
    }

    /// Publishes a copy of a message, as another client of the account can.
    pub(crate) fn publish_copy(&self, subject: &str, message: &Bytes) {
        self.state().subscriptions.retain(|(of, subscriber)| of != subject || subscriber.send(message.clone()).is_ok());
    }

    /// Number of open subscriptions.
    pub(crate) fn subscriptions(&self) -> usize {
        let mut state = self.state();
        state.subscriptions.retain(|(_, subscriber)| !subscriber.is_closed());
        state.subscriptions.len()
    }

    /// Publishes to each subject in use, as another client of the account can.
    pub(crate) fn publish_everywhere(&self, message: &Bytes) {
        self.state().subscriptions.retain(|(_, subscriber)| subscriber.send(message.clone()).is_ok());
    }

    /// Removes all values of logs, as after their time.
    pub(crate) fn expire_logs(&self) {
        self.state().logs.clear();
    }

    /// Number of values in all logs.
    pub(crate) fn logged(&self) -> usize {
        self.state().logs.values().map(Vec::len).sum()
    }

    pub(super) fn keys(&self) -> Vec<String> {
        self.state().values.keys().cloned().collect()
    }
}

impl MemoryState {
    fn put(&mut self, key: &str, value: Bytes) {
        self.revision += 1;
        self.watches.retain(|watch| watch.send((key.to_owned(), value.clone())).is_ok());
        self.values.insert(key.to_owned(), (value, self.revision));
    }
}

impl Engine for MemoryEngine {
    fn open(&self) -> EngineAnswer<'_, Opened> {
        let connection = Box::new(self.clone());
        self.answer(|_| Opened { connection, server: "memory".into(), now_ms: unix_ms() })
    }

    fn connect(&self) -> EngineAnswer<'_, Connected> {
        let messages = Box::new(self.clone());
        self.answer(|_| Connected { messages, server: "memory".into() })
    }
}

impl Connection for MemoryEngine {
    fn get<'a>(&'a self, key: &'a str) -> EngineAnswer<'a, Revised> {
        self.answer(|state| {
            let found = state.values.get(key).cloned();
            found.map_or_else(Revised::default, |(value, revision)| Revised { value: Some(value), revision })
        })
    }

    fn write<'a>(&'a self, key: &'a str, value: Bytes, revision: u64, _kept: Option<u64>) -> EngineAnswer<'a, bool> {
        self.answer(|state| {
            let is_newest = state.values.get(key).map_or(0, |(_, revision)| *revision) == revision;
            if is_newest {
                state.put(key, value);
            }
            is_newest
        })
    }

    fn changes(&self) -> EngineAnswer<'_, StoreChanges> {
        self.answer(|state| {
            let (sender, receiver) = unbounded_channel();
            state.watches.push(sender);
            let stored: Vec<_> = state.values.iter().map(|(key, (value, _))| (key.clone(), value.clone())).collect();
            let count = stored.len();
            let stored = stored.into_iter().enumerate().map(move |(at, stored)| (count - 1 - at, stored));
            let changes = stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) });
            let all = stream::iter(stored).chain(changes.map(|change| (0, change)));
            let all = all.map(|(behind, (key, value))| Ok(Change { key, value, behind: behind as u64 }));
            all.chain(stream::once(async { Err("the watch was cut".into()) })).boxed()
        })
    }

    fn check(&self) -> EngineAnswer<'_, ()> {
        self.answer(|_| ())
    }

    fn logs(&self) -> &dyn EngineLogs {
        self
    }
}

impl EngineMessages for MemoryEngine {
    fn message_max(&self) -> usize {
        16 * 1024
    }

    fn subscribe<'a>(&'a self, subject: &'a str) -> EngineAnswer<'a, BoxStream<'static, Bytes>> {
        self.answer(|state| {
            let (sender, receiver) = unbounded_channel();
            state.subscriptions.push((subject.to_owned(), sender));
            stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) }).boxed()
        })
    }

    fn flush(&self) -> EngineAnswer<'_, ()> {
        self.answer(|_| ())
    }

    fn publish(&self, subject: String, message: Bytes) -> EngineAnswer<'_, ()> {
        self.answer(|state| {
            assert!(message.len() <= self.message_max());
            if let Some(recorded) = &state.recorded {
                recorded.lock().unwrap().push((subject.clone(), message.clone()));
            }
            let is_lost = state.until_loss == Some(0);
            state.until_loss = state.until_loss.and_then(|left| left.checked_sub(1));
            if !is_lost {
                let send = |(of, subscriber): &(String, UnboundedSender<Bytes>)| {
                    *of != subject || subscriber.send(message.clone()).is_ok()
                };
                state.subscriptions.retain(send);
            }
        })
    }
}

impl EngineLogs for MemoryEngine {
    fn value_max(&self) -> usize {
        1 << 20
    }

    fn append<'a>(&'a self, log: &'a str, value: Bytes, newest: u64, _kept: u64) -> EngineAnswer<'a, Option<u64>> {
        let loses_answers = self.state().loses_answers;
        let appended = self.answer(|state| {
            let values = state.logs.entry(log.to_owned()).or_default();
            let is_newest = values.last().map_or(0, |(revision, _)| *revision) == newest;
            is_newest.then(|| {
                state.revision += 1;
                values.push((state.revision, value));
                state.revision
            })
        });
        if loses_answers { Box::pin(async { Err("no answer".into()) }) } else { appended }
    }

    fn newest<'a>(&'a self, log: &'a str) -> EngineAnswer<'a, u64> {
        self.answer(|state| state.logs.get(log).and_then(|values| values.last()).map_or(0, |(revision, _)| *revision))
    }

    fn read<'a>(&'a self, log: &'a str, newest: u64) -> EngineAnswer<'a, Vec<(u64, Bytes)>> {
        self.answer(|state| {
            let values = state.logs.get(log).into_iter().flatten();
            values.filter(|(revision, _)| *revision <= newest).cloned().collect()
        })
    }

    fn trim<'a>(&'a self, log: &'a str, before: u64) -> EngineAnswer<'a, ()> {
        self.answer(|state| {
            let values = state.logs.entry(log.to_owned()).or_default();
            values.retain(|(revision, _)| *revision >= before);
        })
    }
}
