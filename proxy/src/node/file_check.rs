//! Triggers for checking files: an interval, and SIGHUP.

use std::fs::Metadata;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use tokio::time::{Interval, MissedTickBehavior, interval};

/// Runs blocking file system work on its own thread, so that a hanging mount affects no other work.
pub(super) async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down.
            Err(_) => std::future::pending().await,
        },
    }
}

pub(super) struct FileChecks {
    ticks: Interval,
    hangups: HangupSignals,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileCheck {
    Tick,
    Hangup,
}

impl FileChecks {
    /// Polls, because symbolic links swapped by deployment tools can't be watched reliably, and checks are cheap.
    pub(super) fn every(period: Duration) -> Self {
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { ticks, hangups: HangupSignals::new() }
    }

    pub(super) async fn next(&mut self) -> FileCheck {
        tokio::select! {
            () = self.hangups.next() => FileCheck::Hangup,
            _ = self.ticks.tick() => FileCheck::Tick,
        }
    }
}

/// Version of a file: path, modification time, size and identity. Copies often preserve the modification time, and keys
/// all have the same size.
pub(super) type FileVersion = (PathBuf, Option<(SystemTime, u64, FileIdentity)>);

/// Device, inode and change time, which programs can't set.
type FileIdentity = [i128; 4];

pub(super) struct FileWatch {
    checks: FileChecks,
    /// Versions of the files last loaded.
    read: Vec<FileVersion>,
    latest: Vec<FileVersion>,
}

impl FileWatch {
    pub(super) async fn new(period: Duration, files: Vec<PathBuf>) -> Self {
        let read = versions(files).await;
        Self { checks: FileChecks::every(period), latest: read.clone(), read }
    }

    /// Waits until the files should be reloaded: on an operator's request, or after a change, once all are unchanged
    /// since the last check. A file still changing may be half written, and the half may be valid.
    pub(super) async fn changed(&mut self) {
        loop {
            let is_requested = self.checks.next().await == FileCheck::Hangup;
            let now = versions(self.latest.iter().map(|(path, _)| path.clone()).collect()).await;
            let is_settled = std::mem::replace(&mut self.latest, now) == self.latest;
            if is_requested || (is_settled && self.latest != self.read) {
                self.read.clone_from(&self.latest);
                return;
            }
        }
    }

    /// Watches these files from now on. The caller then reads them, so that no change is missed.
    pub(super) async fn follow(&mut self, files: Vec<PathBuf>) {
        let known = |now: FileVersion| self.read.iter().find(|(known, _)| *known == now.0).cloned().unwrap_or(now);
        self.read = versions(files).await.into_iter().map(known).collect();
        self.latest.clone_from(&self.read);
    }
}

async fn versions(files: Vec<PathBuf>) -> Vec<FileVersion> {
    off_thread(move || files.into_iter().map(version).collect()).await
}

pub(super) fn version(path: PathBuf) -> FileVersion {
    let seen = std::fs::metadata(&path).and_then(|data| Ok((data.modified()?, data.len(), identity(&data))));
    (path, seen.ok())
}

#[cfg(unix)]
fn identity(data: &Metadata) -> FileIdentity {
    use std::os::unix::fs::MetadataExt;

    [data.dev().into(), data.ino().into(), data.ctime().into(), data.ctime_nsec().into()]
}

#[cfg(not(unix))]
fn identity(_: &Metadata) -> FileIdentity {
    FileIdentity::default()
}

/// Stream of SIGHUP signals; empty on systems other than Unix.
struct HangupSignals {
    #[cfg(unix)]
    signals: Option<tokio::signal::unix::Signal>,
}

impl HangupSignals {
    fn new() -> Self {
        Self {
            #[cfg(unix)]
            signals: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).ok(),
        }
    }

    async fn next(&mut self) {
        #[cfg(unix)]
        if let Some(signals) = &mut self.signals
            && signals.recv().await.is_some()
        {
            return;
        }
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    /// Whether files should be reloaded within this many seconds.
    async fn is_due(watch: &mut FileWatch, seconds: u64) -> bool {
        timeout(Duration::from_secs(seconds), watch.changed()).await.is_ok()
    }

    #[cfg(unix)]
    #[test]
    fn a_replaced_file_of_equal_time_and_size_is_another_version() {
        let path = |name: &str| std::env::temp_dir().join(format!("trunkline-version-{name}-{}", std::process::id()));
        let (file, next) = (path("file"), path("next"));
        let write = |path: &PathBuf, text: &str| {
            std::fs::write(path, text).unwrap();
            let data = std::fs::File::options().write(true).open(path).unwrap();
            data.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        };
        write(&file, "one");
        let first = version(file.clone());
        assert_eq!(version(file.clone()), first);
        write(&next, "two");
        std::fs::rename(&next, &file).unwrap();
        let replaced = version(file.clone());
        // sleep: the change time of a file advances with the kernel's clock
        std::thread::sleep(Duration::from_millis(20));
        write(&file, "six");
        let overwritten = version(file.clone());
        std::fs::remove_file(&file).unwrap();
        assert!(first != replaced && replaced != overwritten && version(file) != overwritten);
    }

    #[tokio::test(start_paused = true)]
    async fn changed_files_are_reloaded_once_when_they_have_settled() {
        let path = |name: &str| std::env::temp_dir().join(format!("trunkline-watch-{name}-{}", std::process::id()));
        let (one, other) = (path("one"), path("other"));
        let write = |path: &PathBuf, text: &str| std::fs::write(path, text).unwrap();
        write(&one, "1");
        let mut watch = FileWatch::new(Duration::from_secs(1), vec![one.clone()]).await;
        // From here on, checks fall half-way between two steps.
        assert!(timeout(Duration::from_millis(500), watch.changed()).await.is_err());
        assert!(!is_due(&mut watch, 10).await, "nothing has changed");
        for text in ["12", "123", "1234"] {
            write(&one, text);
            assert!(!is_due(&mut watch, 1).await, "it is being written");
        }
        assert!(is_due(&mut watch, 1).await && !is_due(&mut watch, 10).await);
        watch.follow(vec![one.clone(), other.clone()]).await;
        assert!(!is_due(&mut watch, 10).await, "the other one is not there, as before");
        write(&other, "1");
        assert!(is_due(&mut watch, 3).await && !is_due(&mut watch, 10).await);
        write(&one, "1");
        watch.follow(vec![one.clone()]).await;
        assert!(is_due(&mut watch, 3).await, "it was not read since");
        [one, other].iter().for_each(|path| std::fs::remove_file(path).unwrap());
    }
}
