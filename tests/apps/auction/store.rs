//! Bids in a file, one line of JSON each, which several processes append to under its lock.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bid {
    /// Position among all bids, from 0; assigned by the store.
    pub(crate) number: u64,
    /// Chosen by the bidder, who repeats a bid with the same id.
    pub(crate) id: String,
    pub(crate) lot: String,
    pub(crate) amount: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct BidStore {
    path: Arc<PathBuf>,
}

impl BidStore {
    /// Creates a store in this file, which need not exist.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path: Arc::new(path) }
    }

    /// Stores a bid unless one with its id exists. Returns the stored bid and whether it is new.
    pub(crate) async fn place(&self, bid: Bid) -> Result<(Bid, bool)> {
        let store = self.clone();
        spawn_blocking(move || {
            let mut file = store.open()?;
            let bids = read(&file)?;
            if let Some(placed) = bids.iter().find(|placed| placed.id == bid.id) {
                return Ok((placed.clone(), false));
            }
            let bid = Bid { number: bids.len() as u64, ..bid };
            let line = serde_json::to_string(&bid)? + "\n";
            file.write_all(line.as_bytes())?;
            Ok((bid, true))
        })
        .await?
    }

    /// All bids on a lot, in order.
    pub(crate) async fn bids_of(&self, lot: String) -> Result<Vec<Bid>> {
        let store = self.clone();
        spawn_blocking(move || Ok(read(&store.open()?)?.into_iter().filter(|bid| bid.lot == lot).collect())).await?
    }

    /// Bids that the outbox has not recorded, in order.
    pub(crate) async fn unrecorded(&self) -> Result<Vec<Bid>> {
        let store = self.clone();
        spawn_blocking(move || {
            let next = std::fs::read_to_string(store.recorded_path()).unwrap_or_default().parse().unwrap_or(0);
            Ok(read(&store.open()?)?.into_iter().filter(|bid| bid.number >= next).collect())
        })
        .await?
    }

    /// Marks a bid and all earlier ones as recorded.
    pub(crate) async fn mark_as_recorded(&self, number: u64) -> Result<()> {
        let store = self.clone();
        spawn_blocking(move || {
            // Atomically: a process killed here leaves the previous number.
            let (path, draft) = (store.recorded_path(), store.path.with_extension("draft"));
            std::fs::write(&draft, (number + 1).to_string())?;
            Ok(std::fs::rename(draft, path)?)
        })
        .await?
    }

    /// Waits for the lock of the outbox, which the file holds until it is closed. A thread of its own, which does not
    /// outlive the process: a runtime that ends waits for its blocking tasks.
    pub(crate) async fn lock_outbox(&self) -> Result<File> {
        let path = self.path.with_extension("outbox");
        let (locked, lock) = oneshot::channel();
        std::thread::spawn(move || locked.send(File::create(path).and_then(|file| file.lock().map(|()| file))));
        Ok(lock.await??)
    }

    fn recorded_path(&self) -> PathBuf {
        self.path.with_extension("recorded")
    }

    fn open(&self) -> Result<File> {
        let file = OpenOptions::new().read(true).append(true).create(true).open(&*self.path);
        let file = file.with_context(|| format!("can't open {}", self.path.display()))?;
        file.lock()?;
        Ok(file)
    }
}

/// All bids of a file. Ignores an incomplete line of a killed process.
fn read(file: &File) -> Result<Vec<Bid>> {
    let lines = BufReader::new(file).lines().collect::<std::io::Result<Vec<String>>>()?;
    Ok(lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect())
}
