//! History of all rooms: an append-only file. A real app uses a database.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use trunkline::HubError;

use crate::stroke::Stroke;

/// Maximum size of the file. Further strokes are refused.
const FILE_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Maximum number of strokes shown in a room. The oldest are dropped.
const STROKES_MAX: usize = 2000;

/// Strokes of all rooms.
#[derive(Debug, Clone)]
pub(crate) struct History(Arc<PathBuf>);

/// One line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
enum Entry {
    Drawn { room: String, by: String, stroke: Stroke },
    Cleared { room: String, by: String },
}

impl History {
    pub(crate) fn new(file: impl Into<PathBuf>) -> Self {
        Self(Arc::new(file.into()))
    }

    pub(crate) async fn add(&self, room: &str, by: &str, stroke: Stroke) -> Result<(), HubError> {
        self.append(Entry::Drawn { room: room.to_owned(), by: by.to_owned(), stroke }).await
    }

    pub(crate) async fn clear(&self, room: &str, by: &str) -> Result<(), HubError> {
        self.append(Entry::Cleared { room: room.to_owned(), by: by.to_owned() }).await
    }

    /// Strokes of a room, oldest first and without duplicates.
    pub(crate) async fn strokes(&self, room: &str) -> Result<Vec<Stroke>, HubError> {
        let (mut strokes, mut known) = (Vec::new(), HashSet::new());
        for entry in self.read().await? {
            match entry {
                Entry::Drawn { room: of, stroke, .. } if of == room && known.insert(stroke.id.clone()) => {
                    strokes.push(stroke);
                }
                Entry::Cleared { room: of, .. } if of == room => strokes.clear(),
                _ => {}
            }
        }
        let oldest = strokes.len().saturating_sub(STROKES_MAX);
        Ok(strokes.split_off(oldest))
    }

    async fn append(&self, entry: Entry) -> Result<(), HubError> {
        let path = Arc::clone(&self.0);
        let writing = move || {
            let mut line = serde_json::to_vec(&entry)?;
            line.push(b'\n');
            let mut file = OpenOptions::new().append(true).create(true).open(&*path)?;
            if file.metadata()?.len() >= FILE_MAX_BYTES {
                return Err(HubError::new("the history is full: stop the app server and remove its file"));
            }
            // A single write: if the process crashes, either the whole line or nothing is written.
            file.write_all(&line)?;
            Ok(())
        };
        tokio::task::spawn_blocking(writing).await?
    }

    async fn read(&self) -> Result<Vec<Entry>, HubError> {
        let path = Arc::clone(&self.0);
        let reading = move || {
            let file = match File::open(&*path) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
                file => file?,
            };
            BufReader::new(file).lines().map(|line| Ok(serde_json::from_str(&line?)?)).collect()
        };
        tokio::task::spawn_blocking(reading).await?
    }
}
