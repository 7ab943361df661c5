//! Runs one test with a folder and a time limit, and shows its processes' logs on failure.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context, Result, bail};

use super::test_permit::{self, TestPermit};

/// Time limit of a scenario, far above normal durations, also of a machine that is several times slower: it only turns
/// a hang into a failure.
const GUARD: Duration = Duration::from_secs(600);

/// Time limit of the long versions, enabled by [`is_full`].
const GUARD_FULL: Duration = Duration::from_secs(1200);

/// Number of lines shown of each log after a failure.
const LOG_TAIL_LINES: usize = 40;

/// Polling interval for conditions without notification.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Largest polling interval, of a long wait.
const LOOK_AGAIN_MAX: Duration = Duration::from_millis(250);

/// Part of the time waited so far after which a condition is polled again.
const LOOKS_PER_WAIT: u32 = 20;

static FIXTURES: AtomicUsize = AtomicUsize::new(0);

/// Folder of one test, with the logs of its processes.
#[derive(Debug)]
pub struct Fixture {
    folder: PathBuf,
    files: AtomicUsize,
}

impl Fixture {
    /// Creates a folder outside of a test. The caller removes it.
    pub fn new() -> Result<Self> {
        let number = FIXTURES.fetch_add(1, Ordering::Relaxed);
        let test = thread::current().name().unwrap_or("main").replace("::", "-");
        let folder = target_folder()?.join("e2e").join(format!("{}-{number}-{test}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        Ok(Self { folder, files: AtomicUsize::new(0) })
    }

    /// The folder, which is removed if the test passes.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Path for a new log of a process with this name.
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
struct ShowLogs<'a>(&'a Fixture);

impl Drop for ShowLogs<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            show(self.0);
        } else {
            drop(fs::remove_dir_all(&self.0.folder));
        }
    }
}

/// Appends the duration of a test to the file that `tests/run` names.
struct Seconds<'a> {
    kind: &'a str,
    started: Instant,
}

impl Drop for Seconds<'_> {
    fn drop(&mut self) {
        let Some(file) = std::env::var_os("TRUNKLINE_TEST_SECONDS") else { return };
        let name = thread::current().name().unwrap_or("unnamed").to_owned();
        let line = format!("{:.1} {name} {}\n", self.started.elapsed().as_secs_f64(), self.kind);
        let file = fs::File::options().create(true).append(true).open(file);
        drop(file.and_then(|mut file| file.write_all(line.as_bytes())));
    }
}

/// Runs a test, in parallel with a few others. Its processes end when its values are dropped.
///
/// # Panics
/// If the test fails or exceeds its time limit.
pub fn run_test(body: impl AsyncFnOnce(&Fixture) -> Result<()>) {
    run_test_at(&test_permit::light(), "light", Box::new(|fixture| run_body(Box::pin(body(fixture)))));
}

/// Like [`run_test`], for a test that computes much: as many of them run in parallel as there are cores.
///
/// # Panics
/// If the test fails or exceeds its time limit.
pub fn run_heavy_test(body: impl AsyncFnOnce(&Fixture) -> Result<()>) {
    run_test_at(&test_permit::heavy(), "heavy", Box::new(|fixture| run_body(Box::pin(body(fixture)))));
}

/// Like [`run_test`], for a test that mostly waits for a documented time to pass.
///
/// # Panics
/// If the test fails or exceeds its time limit.
pub fn run_waiting_test(body: impl AsyncFnOnce(&Fixture) -> Result<()>) {
    run_test_at(&test_permit::waiting(), "waiting", Box::new(|fixture| run_body(Box::pin(body(fixture)))));
}

type TestBody<'b> = Box<dyn FnOnce(&Fixture) -> Result<()> + 'b>;

/// Not generic: otherwise the compiler would repeat it, with the runtime below, for each of several hundred tests.
fn run_test_at(_permit: &TestPermit, kind: &str, body: TestBody<'_>) {
    let _seconds = Seconds { kind, started: Instant::now() };
    let outcome = Fixture::new().and_then(|fixture| {
        let logs = ShowLogs(&fixture);
        let outcome = body(&fixture);
        if outcome.is_err() {
            show(&fixture);
            std::mem::forget(logs);
        }
        outcome
    });
    if let Err(error) = outcome {
        panic!("{}", without_foreign_frames(&format!("{error:?}")));
    }
}

/// Error with the backtrace locations in this crate.
fn without_foreign_frames(error: &str) -> String {
    let (chain, backtrace) = error.split_once("Stack backtrace:").unwrap_or((error, ""));
    let places = backtrace.lines().filter(|line| line.trim_start().starts_with("at ./")).map(str::trim_start);
    let places: String = places.map(|place| format!("\n  {place}")).collect();
    format!("{}{places}", chain.trim_end())
}

fn run_body(body: Pin<Box<dyn Future<Output = Result<()>> + '_>>) -> Result<()> {
    let guard = if is_full() { GUARD_FULL } else { GUARD };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let outcome = runtime.block_on(async { tokio::time::timeout(guard, body).await });
    match outcome {
        Ok(result) => result,
        Err(_) => bail!("the test hangs: it was not over after {} s", guard.as_secs()),
    }
}

/// Whether the long versions are enabled (`tests/run --full`).
#[must_use]
pub fn is_full() -> bool {
    std::env::var_os("TRUNKLINE_FULL").is_some_and(|value| value == "1")
}

/// Settings, each with the clients that meet it: each setting and each client once, in pairs that `TRUNKLINE_PAIRS`
/// shifts. With [`is_full`] all clients meet all settings.
#[must_use]
pub fn pairs<S: Copy, C: Copy>(settings: &[S], clients: &[C]) -> Vec<(S, Vec<C>)> {
    let shift = std::env::var("TRUNKLINE_PAIRS").ok().and_then(|shift| shift.parse().ok()).unwrap_or_default();
    pairs_of(settings, clients, shift, is_full())
}

/// One of these, which `TRUNKLINE_PAIRS` chooses. With [`is_full`] all of them.
#[must_use]
pub fn one_of<C: Copy>(all: &[C]) -> Vec<C> {
    pairs(all, &[()]).into_iter().filter(|(_, met)| !met.is_empty()).map(|(one, _)| one).collect()
}

fn pairs_of<S: Copy, C: Copy>(settings: &[S], clients: &[C], shift: usize, all: bool) -> Vec<(S, Vec<C>)> {
    let meets = |setting: usize, client: usize| all || (client + shift) % settings.len() == setting;
    let met = |setting| clients.iter().enumerate().filter(move |(client, _)| meets(setting, *client));
    let with_clients = |(index, setting): (usize, &S)| (*setting, met(index).map(|(_, client)| *client).collect());
    settings.iter().enumerate().map(with_clients).collect()
}

/// Polls until `look` returns a value, for conditions without notification. The scenario's time limit applies.
/// The interval grows with the wait, because each poll takes processor time from other tests.
pub async fn until<T>(mut look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        let waited = begun.elapsed() / LOOKS_PER_WAIT;
        tokio::time::sleep(waited.clamp(LOOK_AGAIN, LOOK_AGAIN_MAX)).await;
    }
}

/// Waits under a name, which is printed if the time limit ends the scenario here.
pub async fn named<T>(name: String, wait: impl Future<Output = T>) -> T {
    let waited = CutOff(Some(name));
    let outcome = wait.await;
    waited.end();
    outcome
}

/// Name of a wait that was dropped before it completed.
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

/// Folder of all build results.
pub fn target_folder() -> Result<PathBuf> {
    let folder = profile_folder()?;
    Ok(folder.parent().context("the build folder has no parent")?.to_owned())
}

/// Folder of the programs built with the running test.
pub fn profile_folder() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let deps_or_profile = test.parent().context("the running program has no folder")?;
    let is_deps = deps_or_profile.file_name().is_some_and(|name| name == "deps");
    let folder = if is_deps { deps_or_profile.parent() } else { Some(deps_or_profile) };
    Ok(folder.context("the build folder has no parent")?.to_owned())
}

/// Last lines of a log, under its name.
pub(crate) fn tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let start = lines.len().saturating_sub(LOG_TAIL_LINES);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let shown: String = lines.iter().skip(start).map(|line| format!("{line}\n")).collect();
    format!("--- {name} ({} lines)\n{shown}", lines.len())
}

#[expect(clippy::print_stderr, reason = "the test runner keeps it and shows it with a failed test")]
fn show(fixture: &Fixture) {
    eprintln!("{}", fixture.tails());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_and_each_client_comes_once_and_a_shift_makes_other_pairs() {
        assert_eq!(pairs_of(&['a', 'b'], &[1, 2, 3], 0, false), [('a', vec![1, 3]), ('b', vec![2])]);
        assert_eq!(pairs_of(&['a', 'b'], &[1, 2, 3], 1, false), [('a', vec![2]), ('b', vec![1, 3])]);
        assert_eq!(pairs_of(&['a', 'b'], &[1, 2], 7, true), [('a', vec![1, 2]), ('b', vec![1, 2])]);
    }
}
