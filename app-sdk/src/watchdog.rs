//! Watchdog for threads that run app code: names code that blocks its thread, and meanwhile keeps other threads
//! working.
//!
//! ```text
//!  worker thread ──turn begins, turn ends──► its record ◄──every 5 ms── watchdog thread
//!                                                           └─ the same turn twice: spawns a task, which wakes a worker
//! ```
//!
//! If a worker that polls the system for events runs blocking code, no worker may be left to poll: the other workers
//! sleep, and timers stop. Only a thread outside the runtime can detect this.
//!
//! Hooks are supervised too: a hook that does not return is reported by name and cancelled at its deadline.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock, Weak};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::time::timeout;
use trunkline_process::{LinePermit, LogLimit};

use crate::error::HubError;
use crate::outbound::{Outbound, hold_limit};
use crate::sync::{lock, read_lock, write_lock};

const SAMPLE_INTERVAL: Duration = Duration::from_millis(5);

/// Idle time after which the watchdog sleeps until the next turn.
const PARK_TIMEOUT: Duration = Duration::from_secs(1);

/// Maximum time that app code may block its thread without a log line: a thousand times the recommended time.
const HOLD_MAX: Duration = Duration::from_secs(1);

/// Bits of [`WatchedThread::turn`] that identify the running code; 0 if none is running.
const CODE_MASK: u64 = 0xffff_ffff;

static WATCHDOG: Watchdog =
    Watchdog { threads: Mutex::new(Vec::new()), is_parked: AtomicBool::new(false), thread: OnceLock::new() };

/// IDs of methods and hooks, by hub and name.
type Names = BTreeMap<Box<str>, BTreeMap<Box<str>, CodeId>>;

static NAMES: RwLock<Names> = RwLock::new(Names::new());

thread_local! {
    static WATCHED: Arc<WatchedThread> = WATCHDOG.register();
}

/// Number of a hub's method or hook in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CodeId(u32);

/// Turn of app code on this thread, from poll to return. Ends when dropped.
#[must_use]
pub(crate) struct Turn {
    outer: u64,
    is_of_thread: PhantomData<*const ()>,
}

/// Record of a thread's turns, published for the watchdog.
#[derive(Debug)]
struct WatchedThread {
    /// Number of the turn in the upper half, its code in the lower half. Written only by its own thread.
    turn: AtomicU64,
    /// Runtime, if it has other workers.
    runtime: Option<Handle>,
}

struct Watchdog {
    threads: Mutex<Vec<Weak<WatchedThread>>>,
    is_parked: AtomicBool,
    thread: OnceLock<Option<Thread>>,
}

#[derive(Debug, Clone, Copy)]
struct Sighting {
    turn: u64,
    since: Instant,
    is_logged: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Finding {
    Idle,
    Working,
    /// The code seen in the previous check is still running.
    Blocked,
    /// It has run so long that it must be logged, with this time.
    Hung(CodeId, Duration),
}

impl CodeId {
    pub(crate) fn for_name(hub: &str, code: &str) -> Self {
        if let Some(id) = read_lock(&NAMES).get(hub).and_then(|codes| codes.get(code)) {
            return *id;
        }
        let mut names = write_lock(&NAMES);
        let next = names.values().map(BTreeMap::len).sum::<usize>() + 1;
        let next = Self(u32::try_from(next).unwrap_or(u32::MAX));
        *names.entry(hub.into()).or_default().entry(code.into()).or_insert(next)
    }

    fn names(self) -> Option<(Box<str>, Box<str>)> {
        let names = read_lock(&NAMES);
        names.iter().find_map(|(hub, codes)| {
            let (code, _) = codes.iter().find(|(_, id)| **id == self)?;
            Some((hub.clone(), code.clone()))
        })
    }
}

impl Turn {
    pub(crate) fn begin_turn(code: CodeId) -> Self {
        Self::switch(u64::from(code.0))
    }

    /// A pause within a turn, for code that is allowed to block.
    fn pause() -> Self {
        Self::switch(0)
    }

    fn switch(code: u64) -> Self {
        let outer = WATCHED.try_with(|record| record.switch(code)).unwrap_or_default();
        if WATCHDOG.is_parked.load(Ordering::SeqCst) {
            WATCHDOG.wake();
        }
        Self { outer, is_of_thread: PhantomData }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let _ = WATCHED.try_with(|record| record.switch(self.outer));
    }
}

impl WatchedThread {
    /// Begins another turn. Returns the code of the previous one.
    fn switch(&self, code: u64) -> u64 {
        let turn = self.turn.load(Ordering::Relaxed);
        let number = (turn & !CODE_MASK).wrapping_add(CODE_MASK + 1);
        // Sequentially consistent with the watchdog's flag: either the watchdog sees the turn, or the thread sees
        // that the watchdog sleeps.
        self.turn.store(number | code, Ordering::SeqCst);
        turn & CODE_MASK
    }
}

impl Watchdog {
    fn register(&'static self) -> Arc<WatchedThread> {
        let runtime = Handle::try_current().ok();
        let runtime = runtime.filter(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread);
        let record = Arc::new(WatchedThread { turn: AtomicU64::new(0), runtime });
        lock(&self.threads).push(Arc::downgrade(&record));
        self.thread.get_or_init(|| {
            let started = thread::Builder::new().name("trunkline-watch".into()).spawn(|| self.run());
            let started =
                started.inspect_err(|error| tracing::warn!(%error, "watchdog for blocking code could not be started"));
            started.ok().map(|started| started.thread().clone())
        });
        record
    }

    fn wake(&self) {
        if self.is_parked.swap(false, Ordering::SeqCst)
            && let Some(Some(thread)) = self.thread.get()
        {
            thread.unpark();
        }
    }

    fn run(&self) {
        let limit = hold_limit();
        let mut seen: Vec<(Weak<WatchedThread>, Sighting)> = Vec::new();
        let mut active_at = Instant::now();
        loop {
            if self.check(&mut seen, &limit) {
                active_at = Instant::now();
                self.is_parked.store(false, Ordering::SeqCst);
            } else if self.is_parked.load(Ordering::SeqCst) {
                thread::park();
                active_at = Instant::now();
            } else if active_at.elapsed() > PARK_TIMEOUT {
                // One more check: a turn that began before this has not woken the watchdog.
                self.is_parked.store(true, Ordering::SeqCst);
                continue;
            }
            thread::sleep(SAMPLE_INTERVAL);
        }
    }

    fn check(&self, seen: &mut Vec<(Weak<WatchedThread>, Sighting)>, limit: &LogLimit) -> bool {
        let now = Instant::now();
        let arrived = lock(&self.threads).drain(..).collect::<Vec<_>>();
        seen.extend(arrived.into_iter().map(|record| (record, Sighting { turn: 0, since: now, is_logged: false })));
        let mut is_active = false;
        seen.retain_mut(|(record, sighting)| {
            let Some(record) = record.upgrade() else { return false };
            let found = sighting.check(record.turn.load(Ordering::SeqCst), now);
            is_active |= found != Finding::Idle;
            if let Finding::Hung(code, blocked) = found {
                log_hung(code, blocked, limit);
            }
            if let (Finding::Blocked | Finding::Hung(..), Some(runtime)) = (found, &record.runtime) {
                drop(runtime.spawn(std::future::ready(())));
            }
            true
        });
        is_active
    }
}

impl Sighting {
    fn check(&mut self, turn: u64, now: Instant) -> Finding {
        let code = turn & CODE_MASK;
        if turn != self.turn {
            *self = Self { turn, since: now, is_logged: false };
            return Finding::Working;
        }
        if code == 0 {
            return Finding::Idle;
        }
        let blocked = now.saturating_duration_since(self.since);
        if blocked < HOLD_MAX || std::mem::replace(&mut self.is_logged, true) {
            return Finding::Blocked;
        }
        Finding::Hung(CodeId(u32::try_from(code).unwrap_or_default()), blocked)
    }
}

fn log_hung(code: CodeId, blocked: Duration, limit: &LogLimit) {
    if let (Some((hub, method)), Some(LinePermit { left_out })) = (code.names(), limit.take_line()) {
        let seconds = blocked.as_secs();
        tracing::warn!(hub = &*hub, method = &*method, seconds, left_out, "method is blocking its thread; {REMEDY}");
    }
}

const REMEDY: &str = "run blocking code in tokio::task::spawn_blocking or trunkline::block_in_place";

/// Runs app code under the watchdog, and logs a poll that blocked its thread.
pub(crate) async fn watch<F: Future + Unpin>(outbound: &Outbound, code: CodeId, mut running: F) -> F::Output {
    std::future::poll_fn(|context| {
        let since = Instant::now();
        let turn = Turn::begin_turn(code);
        let polled = running.poll_unpin(context);
        drop(turn);
        note_turn(outbound, code, since.elapsed());
        polled
    })
    .await
}

/// Logs a method or hook that has run too long without yielding.
pub(crate) fn note_turn(outbound: &Outbound, code: CodeId, took: Duration) {
    if took < HOLD_MAX {
        return;
    }
    let (hub, seconds) = (&*outbound.name, took.as_secs_f64());
    if let (Some((_, method)), Some(LinePermit { left_out })) = (code.names(), outbound.hold_limit.take_line()) {
        tracing::warn!(hub, method = &*method, seconds, left_out, "method has blocked its thread; {REMEDY}");
    }
}

/// Runs blocking code, such as a calculation or file access, inside a method or hook. Other workers of the runtime
/// take over this thread's other tasks meanwhile; on a single-threaded runtime everything else waits.
///
/// The method itself waits for the code. Slow work without an urgent result belongs in
/// [`tokio::task::spawn_blocking`].
///
/// ```
/// use trunkline::Hub;
///
/// async fn checksum(text: String) -> u64 {
///     trunkline::block_in_place(|| text.bytes().map(u64::from).sum())
/// }
///
/// let hub: Hub = Hub::new("/files").method("Checksum", checksum);
/// # let _ = hub;
/// ```
pub fn block_in_place<T>(code: impl FnOnce() -> T) -> T {
    let _pause = Turn::pause();
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(code),
        _ => code(),
    }
}

/// Time after which a running hook is reported.
const REPORT_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
#[error("{hook} did not return within {timeout:?} and was ended; the time can be configured by Hub::hook_timeout")]
struct HookTimeout {
    hook: String,
    timeout: Duration,
}

/// Runs a hook for a connection, user or group (`subject`) until it returns or its deadline passes; then the hook is
/// dropped. A panic becomes an error.
pub(crate) async fn supervise<T>(
    outbound: &Outbound,
    (hook, subject): (&str, &str),
    hook_timeout: Duration,
    running: impl Future<Output = Result<T, HubError>>,
) -> Result<T, HubError> {
    let running = pin!(AssertUnwindSafe(running).catch_unwind());
    let mut running = pin!(watch(outbound, CodeId::for_name(&outbound.name, hook), running));
    let mut ran = timeout(hook_timeout.min(REPORT_TIMEOUT), &mut running).await;
    if let Some(left) = hook_timeout.checked_sub(REPORT_TIMEOUT).filter(|left| ran.is_err() && !left.is_zero()) {
        if let Some(LinePermit { left_out }) = outbound.failure_limit.take_line() {
            let (hub, seconds) = (&*outbound.name, REPORT_TIMEOUT.as_secs());
            tracing::warn!(hub, hook, subject, seconds, left_out, "hook has not returned yet");
        }
        ran = timeout(left, &mut running).await;
    }
    match ran {
        Ok(ran) => ran.unwrap_or_else(|panic| Err(HubError::from_panic(&*panic))),
        Err(_) => Err(HookTimeout { hook: hook.to_owned(), timeout: hook_timeout }.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::sync::mpsc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn a_continuing_turn_is_blocked_and_logged_once() {
        let now = Instant::now();
        let mut sighting = Sighting { turn: 0, since: now, is_logged: false };
        let turn = |number: u64, code: u64| (number << 32) | code;
        let mut check = |turn, ms| sighting.check(turn, now + Duration::from_millis(ms));
        assert_eq!(check(0, 5), Finding::Idle);
        assert_eq!(check(turn(1, 7), 10), Finding::Working);
        assert_eq!(check(turn(3, 7), 15), Finding::Working, "the same method, called again");
        assert_eq!(check(turn(3, 7), 20), Finding::Blocked);
        assert_eq!(check(turn(3, 7), 1_020), Finding::Hung(CodeId(7), Duration::from_millis(1_005)));
        assert_eq!(check(turn(3, 7), 2_000), Finding::Blocked, "logged already");
        assert_eq!(check(turn(4, 0), 2_005), Finding::Working);
        assert_eq!(check(turn(4, 0), 2_010), Finding::Idle);
    }

    #[test]
    fn code_of_one_name_has_one_id_and_a_turn_within_a_turn_gives_it_back() {
        let (outer, inner) = (CodeId::for_name("/watched", "Outer"), CodeId::for_name("/watched", "Inner"));
        assert_eq!(CodeId::for_name("/watched", "Outer"), outer);
        assert_ne!(outer, inner);
        assert_eq!(inner.names(), Some(("/watched".into(), "Inner".into())));
        let code = || WATCHED.with(|record| record.turn.load(Ordering::Relaxed) & CODE_MASK);
        let turn = Turn::begin_turn(outer);
        assert_eq!(code(), u64::from(outer.0));
        let within = Turn::begin_turn(inner);
        assert_eq!(code(), u64::from(inner.0));
        assert_eq!(block_in_place(code), 0, "what may block is not watched");
        assert_eq!(code(), u64::from(inner.0));
        drop(within);
        assert_eq!(code(), u64::from(outer.0));
        drop(turn);
        assert_eq!(code(), 0);
    }

    /// Two connections to a runtime with two workers: each byte on the first blocks a worker until `release` gets a
    /// message, while the second one echoes.
    #[test]
    fn a_worker_that_blocks_leaves_another_one_to_read_events() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (release, released) = mpsc::channel::<()>();
        runtime.spawn(async move {
            let (mut blocking, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let code = CodeId::for_name("/watched", "Block");
                while blocking.read_u8().await.is_ok() {
                    let _turn = Turn::begin_turn(code);
                    released.recv().unwrap();
                }
            });
            let (mut echo, _) = listener.accept().await.unwrap();
            while let Ok(byte) = echo.read_u8().await {
                echo.write_u8(byte).await.unwrap();
            }
        });
        let (mut blocking, mut echo) = (TcpStream::connect(address).unwrap(), TcpStream::connect(address).unwrap());
        echo.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        for round in 0..20 {
            echo.write_all(&[round]).unwrap();
            echo.read_exact(&mut [0]).unwrap();
            blocking.write_all(&[round]).unwrap();
            for byte in 0..20 {
                echo.write_all(&[byte]).unwrap();
                let mut read = [0xff];
                echo.read_exact(&mut read).unwrap();
                assert_eq!(read, [byte]);
            }
            release.send(()).unwrap();
        }
    }
}
