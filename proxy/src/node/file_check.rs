//! Moments at which files may have to be read anew: at an interval, and on SIGHUP.

use std::fs::Metadata;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use tokio::time::{Interval, MissedTickBehavior, interval};

/// Runs work that may wait for a file system, on a thread of its own: a mount that hangs must hold nothing else.
pub(super) async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Checks of files, each begun by the clock or by an operator.
pub(super) struct FileChecks {
    ticks: Interval,
    hangups: HangupSignals,
}

/// Cause of a check of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileCheck {
    Tick,
    Hangup,
}

impl FileChecks {
    /// Symbolic links that a deployment tool swaps can't be watched reliably, and checking is cheap.
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

/// Version of a file: its path, time of change, size and identity. Copies often have the time of their original, and
/// keys are all of one size.
pub(super) type FileVersion = (PathBuf, Option<(SystemTime, u64, FileIdentity)>);

/// Device, number, and time of change of the entry, which no program can set.
type FileIdentity = [i128; 4];

/// Watch of files that are read anew when they change.
pub(super) struct FileWatch {
    checks: FileChecks,
    /// Versions that were read last.
    read: Vec<FileVersion>,
    /// Versions at the last check.
    latest: Vec<FileVersion>,
}

impl FileWatch {
    /// Watches files that were read a moment ago.
    pub(super) async fn new(period: Duration, files: Vec<PathBuf>) -> Self {
        let read = versions(files).await;
        Self { checks: FileChecks::every(period), latest: read.clone(), read }
    }

    /// Waits until the files are to be read anew: an operator asks for it, or one of them has changed and none has
    /// changed since the last check. A file that changes still may be half written, and a half of it can be sound.
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

    /// Watches these files from now on. The caller reads them after this, so that no change is missed.
    pub(super) async fn follow(&mut self, files: Vec<PathBuf>) {
        let known = |now: FileVersion| self.read.iter().find(|(known, _)| *known == now.0).cloned().unwrap_or(now);
        self.read = versions(files).await.into_iter().map(known).collect();
        self.latest.clone_from(&self.read);
    }
}

async fn versions(files: Vec<PathBuf>) -> Vec<FileVersion> {
    off_thread(move || files.into_iter().map(version).collect()).await
}

/// Returns the version of a file that is there now.
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

/// Stream of SIGHUP signals; on other systems than Unix it never yields.
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

    /// Whether files are to be read anew within this many seconds.
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
    async fn files_are_read_anew_once_when_they_have_changed_and_change_no_more() {
        let path = |name: &str| std::env::temp_dir().join(format!("trunkline-watch-{name}-{}", std::process::id()));
        let (one, other) = (path("one"), path("other"));
        let write = |path: &PathBuf, text: &str| std::fs::write(path, text).unwrap();
        write(&one, "1");
        let mut watch = FileWatch::new(Duration::from_secs(1), vec![one.clone()]).await;
        // From here on checks are half-way between two steps.
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
