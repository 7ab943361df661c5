#![forbid(unsafe_code)]
//! Runs millions of simulation schedules, or replays one with a trace.

use std::fmt::Debug;
use std::ops::{Add, Range};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use trunkline_simulation::{
    FleetMutant, FleetOutcome, FleetSize, MoveMutant, Mutant, Violation, run, run_fleet, run_moves,
};

/// Number of seeds that a thread takes per block.
const BLOCK: u64 = 1_000;

const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// Simulates links that are cut, delayed, frozen and restarted; with --fleet nodes that link each other, with --moves
/// client connections that move between nodes
///
/// Each schedule depends only on its seed. The first one that breaks a rule is printed, and the command fails; replay
/// it with --seed. A long run can be split: each part ends by printing the seed to continue from.
#[derive(Debug, Parser)]
#[command(name = "simulate", version)]
struct Arguments {
    /// Number of schedules to run
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    schedules: u64,
    /// Seed of the first schedule
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    from: u64,
    /// Stop after this many seconds, and print the seed to continue from
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
    /// Number of threads [default: one per core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Run only this schedule, and print its events
    #[arg(long, value_name = "SEED", conflicts_with_all = ["schedules", "from", "seconds", "threads"])]
    seed: Option<u64>,
    /// Break every rule in turn, each until it is caught within --schedules schedules
    #[arg(long, conflicts_with_all = ["seed", "seconds", "threads"])]
    mutants: bool,
    /// Simulate a fleet of nodes, on one thread
    #[arg(long, conflicts_with_all = ["seconds", "threads"])]
    fleet: bool,
    /// Simulate client connections that move between nodes
    #[arg(long, conflicts_with = "fleet")]
    moves: bool,
    /// Number of nodes in the fleet [default: a few]
    #[arg(long, value_name = "N", requires = "fleet")]
    nodes: Option<usize>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let seeds = arguments.from..arguments.from.saturating_add(arguments.schedules);
    let size = arguments.nodes.map_or(FleetSize::SMALL, FleetSize::large);
    let is_right = match arguments.seed {
        Some(seed) if arguments.fleet => report_result(seed, run_fleet(seed, size, None, true)),
        Some(seed) if arguments.moves => report_result(seed, run_moves(seed, None, true)),
        Some(seed) => report_result(seed, run(seed, None, true)),
        None if arguments.fleet && arguments.mutants => {
            catch_mutants(seeds, &FleetMutant::ALL, |seed, mutant| run_fleet(seed, size, Some(mutant), false).err())
        }
        None if arguments.fleet => run_fleets(seeds, size),
        None if arguments.moves && arguments.mutants => {
            catch_mutants(seeds, &MoveMutant::ALL, |seed, mutant| run_moves(seed, Some(mutant), false).err())
        }
        None if arguments.mutants => {
            catch_mutants(seeds, &Mutant::ALL, |seed, mutant| run(seed, Some(mutant), false).err())
        }
        None if arguments.moves => run_all(&arguments, |seed| run_moves(seed, None, false)),
        None => run_all(&arguments, |seed| run(seed, None, false)),
    };
    if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[expect(clippy::print_stdout, reason = "the result of the command")]
fn report_result(seed: u64, result: Result<impl Debug, Violation>) -> bool {
    match &result {
        Ok(outcome) => println!("seed {seed} holds: {outcome:?}"),
        Err(broken) => println!("seed {seed}: {broken}"),
    }
    result.is_ok()
}

#[expect(clippy::print_stdout, reason = "the result of the command")]
fn catch_mutants<M: Copy + Debug>(
    seeds: Range<u64>,
    mutants: &[M],
    broken_by: impl Fn(u64, M) -> Option<Violation>,
) -> bool {
    let mut living = 0;
    for &mutant in mutants {
        match seeds.clone().find_map(|seed| broken_by(seed, mutant).map(|broken| (seed, broken))) {
            Some((seed, broken)) => println!("{mutant:?}: caught by seed {seed}: {broken}"),
            None => {
                println!("{mutant:?}: NOT caught in {} schedules", seeds.end - seeds.start);
                living += 1;
            }
        }
    }
    living == 0
}

fn run_fleets(seeds: Range<u64>, size: FleetSize) -> bool {
    let (from, mut sum) = (seeds.start, FleetOutcome::default());
    for seed in seeds {
        match run_fleet(seed, size, None, false) {
            Ok(outcome) => sum = sum + outcome,
            Err(broken) => return report_result(seed, Err::<FleetOutcome, _>(broken)),
        }
    }
    report_result(from, Ok(sum))
}

struct Work<O, F> {
    run: F,
    started: Instant,
    /// No block is started after this.
    ends: Option<Instant>,
    to: u64,
    next: AtomicU64,
    failed: AtomicBool,
    outcome: Mutex<O>,
    broken: Mutex<Option<(u64, Violation)>>,
}

#[expect(clippy::print_stdout, reason = "the result of the command")]
fn run_all<O>(arguments: &Arguments, run: impl Fn(u64) -> Result<O, Violation> + Sync) -> bool
where
    O: Copy + Default + Debug + Add<Output = O> + Send,
{
    let started = now();
    let work = Work {
        run,
        started,
        ends: arguments.seconds.map(|seconds| started + Duration::from_secs(seconds)),
        to: arguments.from.saturating_add(arguments.schedules),
        next: AtomicU64::new(arguments.from),
        failed: AtomicBool::new(false),
        outcome: Mutex::default(),
        broken: Mutex::default(),
    };
    let threads = arguments.threads.or_else(|| thread::available_parallelism().ok().map(usize::from)).unwrap_or(1);
    thread::scope(|scope| {
        for index in 0..threads.max(1) {
            let work = &work;
            scope.spawn(move || work.run_blocks(index == 0));
        }
    });
    if let Some((seed, broken)) = lock(&work.broken).take() {
        let kind = if arguments.moves { " --moves" } else { "" };
        println!("seed {seed}: {broken}\nreplay it with: simulate{kind} --seed {seed}");
        return false;
    }
    let next = work.next.load(Ordering::Relaxed).min(work.to);
    println!("seeds {} to {} hold: {:?}", arguments.from, next.saturating_sub(1), *lock(&work.outcome));
    if next < work.to {
        let kind = if arguments.moves { " --moves" } else { "" };
        println!("go on with: simulate{kind} --from {next} --schedules {}", work.to - next);
    }
    true
}

impl<O, F> Work<O, F>
where
    O: Copy + Default + Add<Output = O>,
    F: Fn(u64) -> Result<O, Violation>,
{
    /// Runs blocks until none are left. With `tells`, the thread also prints progress.
    fn run_blocks(&self, tells: bool) {
        let mut told = self.started;
        while !self.failed.load(Ordering::Relaxed) && self.ends.is_none_or(|ends| now() < ends) {
            let from = self.next.fetch_add(BLOCK, Ordering::Relaxed);
            if from >= self.to {
                break;
            }
            self.run_block(from, from.saturating_add(BLOCK).min(self.to));
            if tells && told.elapsed() >= PROGRESS_INTERVAL {
                told = now();
                self.report();
            }
        }
    }

    fn run_block(&self, from: u64, to: u64) {
        let mut sum = O::default();
        for seed in from..to {
            match (self.run)(seed) {
                Ok(outcome) => sum = sum + outcome,
                Err(broken) => {
                    self.failed.store(true, Ordering::Relaxed);
                    // Report the lowest failing seed, not the first one found.
                    let mut first = lock(&self.broken);
                    if first.as_ref().is_none_or(|(lowest, _)| seed < *lowest) {
                        *first = Some((seed, broken));
                    }
                    return;
                }
            }
        }
        let mut outcome = lock(&self.outcome);
        *outcome = *outcome + sum;
    }

    #[expect(clippy::print_stderr, reason = "the progress of the command")]
    fn report(&self) {
        let next = self.next.load(Ordering::Relaxed).min(self.to);
        eprintln!("{:>5} s  seed {next} of {}", self.started.elapsed().as_secs(), self.to);
    }
}

fn now() -> Instant {
    Instant::now()
}

// A panicked thread ends the command anyway.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
