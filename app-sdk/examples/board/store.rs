//! Notes in a file to which all app servers on this machine append lines. A real app uses a database.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use trunkline::HubError;

use crate::note::{NewNote, Note};

/// Environment variable with the path of the file.
const FILE_VARIABLE: &str = "BOARD_FILE";

/// Notes of all rooms.
#[derive(Debug, Clone)]
pub(crate) struct Store(Arc<PathBuf>);

/// One line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
enum Entry {
    Added { room: String, note: Note },
    Removed { room: String, id: String },
    Cleared { room: String },
    Banned { user: String },
}

impl Store {
    pub(crate) fn new(file: impl Into<PathBuf>) -> Self {
        Self(Arc::new(file.into()))
    }

    /// Opens the file that the environment variable names, or a default file in the temporary directory.
    pub(crate) fn from_environment() -> Self {
        let file = std::env::var_os(FILE_VARIABLE).map(PathBuf::from);
        Self::new(file.unwrap_or_else(|| std::env::temp_dir().join("trunkline-board.jsonl")))
    }

    pub(crate) async fn add(&self, room: &str, author: &str, new: NewNote) -> Result<Note, HubError> {
        let NewNote { text, x, y } = new;
        let note = Note { id: unique_id()?, author: author.to_owned(), text, x, y };
        self.append(Entry::Added { room: room.to_owned(), note: note.clone() }).await?;
        Ok(note)
    }

    pub(crate) async fn remove(&self, room: &str, id: &str) -> Result<(), HubError> {
        self.append(Entry::Removed { room: room.to_owned(), id: id.to_owned() }).await
    }

    pub(crate) async fn clear(&self, room: &str) -> Result<(), HubError> {
        self.append(Entry::Cleared { room: room.to_owned() }).await
    }

    pub(crate) async fn ban(&self, user: &str) -> Result<(), HubError> {
        self.append(Entry::Banned { user: user.to_owned() }).await
    }

    pub(crate) async fn is_banned(&self, user: &str) -> Result<bool, HubError> {
        let entries = self.read().await?;
        Ok(entries.iter().any(|entry| matches!(entry, Entry::Banned { user: banned } if banned == user)))
    }

    pub(crate) async fn find(&self, room: &str, id: &str) -> Result<Option<Note>, HubError> {
        Ok(self.notes(room).await?.into_iter().find(|note| note.id == id))
    }

    /// Notes of a room, oldest first.
    pub(crate) async fn notes(&self, room: &str) -> Result<Vec<Note>, HubError> {
        let mut notes = Vec::new();
        for entry in self.read().await? {
            match entry {
                Entry::Added { room: of, note } if of == room => notes.push(note),
                Entry::Removed { room: of, id } if of == room => notes.retain(|note: &Note| note.id != id),
                Entry::Cleared { room: of } if of == room => notes.clear(),
                _ => {}
            }
        }
        Ok(notes)
    }

    async fn append(&self, entry: Entry) -> Result<(), HubError> {
        let file = Arc::clone(&self.0);
        let writing = move || {
            let mut line = serde_json::to_vec(&entry)?;
            line.push(b'\n');
            // A single write, so that lines of several app servers are not interleaved.
            OpenOptions::new().append(true).create(true).open(&*file)?.write_all(&line)?;
            Ok(())
        };
        tokio::task::spawn_blocking(writing).await?
    }

    async fn read(&self) -> Result<Vec<Entry>, HubError> {
        let file = Arc::clone(&self.0);
        let reading = move || {
            let file = match File::open(&*file) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
                file => file?,
            };
            BufReader::new(file).lines().map(|line| Ok(serde_json::from_str(&line?)?)).collect()
        };
        tokio::task::spawn_blocking(reading).await?
    }
}

/// Creates an ID that is unique among the app servers on this machine.
fn unique_id() -> Result<String, HubError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(format!("{:x}-{:x}", now.as_nanos(), std::process::id()))
}
