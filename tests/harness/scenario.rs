//! Run one test: give it a folder, bound its time, and show the logs of its processes when it fails.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::places::{self, Place};

/// Time-out of a scenario, far above any need: it only turns a hang into a failure.
const GUARD: Duration = Duration::from_secs(180);

/// Time-out of the long versions, which [`is_full`] asks for.
const GUARD_FULL: Duration = Duration::from_secs(1200);

/// Lines of each log that a failed test shows.
const LOG_TAIL_LINES: usize = 40;

/// Interval of polls for conditions that nobody announces.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

static STAGES: AtomicUsize = AtomicUsize::new(0);

/// Stage of one test: a folder of its own, with the logs of its processes.
#[derive(Debug)]
pub struct Stage {
    folder: PathBuf,
    files: AtomicUsize,
}

impl Stage {
    /// A stage for something that is no test: whoever makes it removes its folder.
    ///
    /// # Errors
    /// When its folder can't be made.
    pub fn new() -> Result<Self> {
        let number = STAGES.fetch_add(1, Ordering::Relaxed);
        let test = thread::current().name().unwrap_or("main").replace("::", "-");
        let folder = target_folder()?.join("e2e").join(format!("{}-{number}-{test}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        Ok(Self { folder, files: AtomicUsize::new(0) })
    }

    /// The folder; it is removed when the test has passed.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A path for a new log of a process of this name.
    #[must_use]
    pub fn log_path(&self, name: &str) -> PathBuf {
        let number = self.files.fetch_add(1, Ordering::Relaxed);
        self.folder.join(format!("{number:02}-{name}.log"))
    }

    fn tails(&self) -> String {
        let mut logs: Vec<PathBuf> = fs::read_dir(&self.folder)
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
            .collect();
        logs.sort();
        logs.iter().map(|path| tail(path)).collect()
    }
}

/// Shows the logs if the test panics.
struct ShowLogs<'a>(&'a Stage);

impl Drop for ShowLogs<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            show(self.0);
        } else {
            drop(fs::remove_dir_all(&self.0.folder));
        }
    }
}

/// Runs a test to its end, beside a few others. Its processes end with the values it holds.
///
/// # Panics
/// When the test fails or takes longer than the guard allows.
pub fn play(body: impl AsyncFnOnce(&Stage) -> Result<()>) {
    play_at(&places::light(), body);
}

/// Runs a test like [`play`], but never beside another heavy one: two cores are enough for one of them only.
///
/// # Panics
/// When the test fails or takes longer than the guard allows.
pub fn play_heavy(body: impl AsyncFnOnce(&Stage) -> Result<()>) {
    play_at(&places::heavy(), body);
}

fn play_at(_place: &Place, body: impl AsyncFnOnce(&Stage) -> Result<()>) {
    let outcome = Stage::new().and_then(|stage| {
        let logs = ShowLogs(&stage);
        let outcome = run(&stage, body);
        if outcome.is_err() {
            show(&stage);
            std::mem::forget(logs);
        }
        outcome
    });
    if let Err(error) = outcome {
        panic!("{}", without_foreign_frames(&format!("{error:?}")));
    }
}

/// An error with the places of its backtrace that lie in this crate.
fn without_foreign_frames(error: &str) -> String {
    let (chain, backtrace) = error.split_once("Stack backtrace:").unwrap_or((error, ""));
    let places = backtrace.lines().filter(|line| line.trim_start().starts_with("at ./")).map(str::trim_start);
    let places: String = places.map(|place| format!("\n  {place}")).collect();
    format!("{}{places}", chain.trim_end())
}

fn run(stage: &Stage, body: impl AsyncFnOnce(&Stage) -> Result<()>) -> Result<()> {
    let guard = if is_full() { GUARD_FULL } else { GUARD };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let outcome = runtime.block_on(async { tokio::time::timeout(guard, body(stage)).await });
    match outcome {
        Ok(result) => result,
        Err(_) => bail!("the test hangs: it was not over after {} s", guard.as_secs()),
    }
}

/// Whether the long versions were asked for (`tests/run --full`).
#[must_use]
pub fn is_full() -> bool {
    std::env::var_os("TRUNKLINE_FULL").is_some_and(|value| value == "1")
}

/// Waits until `look` finds something. For conditions that nobody announces; the scenario's guard bounds it.
///
/// # Errors
/// When it can't look.
pub async fn until<T>(mut look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Waits for something by its name. A scenario that its guard cuts off tells the name, so that a hang has a place.
pub(crate) async fn named<T>(name: String, wait: impl Future<Output = T>) -> T {
    let waited = CutOff(Some(name));
    let outcome = wait.await;
    waited.end();
    outcome
}

/// The name of a wait that was not over when it was dropped.
struct CutOff(Option<String>);

impl CutOff {
    fn end(mut self) {
        self.0 = None;
    }
}

impl Drop for CutOff {
    #[expect(clippy::print_stderr, reason = "the test runner keeps it and shows it with a failed test")]
    fn drop(&mut self) {
        if let Some(name) = &self.0 {
            eprintln!("cut off: {name}");
        }
    }
}

/// The folder of all build results.
///
/// # Errors
/// When the running test lies somewhere unexpected.
pub fn target_folder() -> Result<PathBuf> {
    let folder = profile_folder()?;
    Ok(folder.parent().context("the build folder has no parent")?.to_owned())
}

/// The folder of the programs that were built with the running test.
///
/// # Errors
/// When the running test lies somewhere unexpected.
pub fn profile_folder() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let deps_or_profile = test.parent().context("the running program has no folder")?;
    let is_deps = deps_or_profile.file_name().is_some_and(|name| name == "deps");
    let folder = if is_deps { deps_or_profile.parent() } else { Some(deps_or_profile) };
    Ok(folder.context("the build folder has no parent")?.to_owned())
}

/// The last lines of a log, under its name.
pub(crate) fn tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let start = lines.len().saturating_sub(LOG_TAIL_LINES);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let shown: String = lines.iter().skip(start).map(|line| format!("{line}\n")).collect();
    format!("--- {name} ({} lines)\n{shown}", lines.len())
}

#[expect(clippy::print_stderr, reason = "the test runner keeps it and shows it with a failed test")]
fn show(stage: &Stage) {
    eprintln!("{}", stage.tails());
}
