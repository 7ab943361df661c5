//! Ten thousand schedules pass, and every broken rule is caught. `TRUNKLINE_FULL=1` runs a hundred thousand.

use std::thread;

use trunkline_simulation::{Mutant, Outcome, run};

/// Number of schedules in a normal and a full run.
const SCHEDULES: (u64, u64) = (10_000, 100_000);

/// Number of schedules within which a mutant must be caught. Most need one or two, and all fewer than several dozen.
const MUTANT_SCHEDULES: u64 = 1_000;

fn sum(outcomes: impl Iterator<Item = Outcome>) -> Outcome {
    outcomes.fold(Outcome::default(), |sum, one| sum + one)
}

#[test]
fn no_schedule_loses_repeats_or_mixes_up_a_frame() {
    let schedules = if std::env::var_os("TRUNKLINE_FULL").is_some() { SCHEDULES.1 } else { SCHEDULES.0 };
    let outcomes = (0..schedules).map(|seed| {
        run(seed, None, false)
            .unwrap_or_else(|broken| panic!("seed {seed}: {broken}; replay it with `simulate --seed {seed}`"))
    });
    let outcome = sum(outcomes);
    println!("{schedules} schedules: {outcome:?}");
    // A simulation with few events proves nothing.
    assert!(outcome.delivered > 100 * schedules, "{outcome:?}");
    assert!(outcome.resumed > schedules, "{outcome:?}");
    assert!(outcome.window_passed > schedules / 20 && outcome.given_up > schedules / 20, "{outcome:?}");
}

#[test]
fn every_broken_rule_is_caught() {
    let caught: Vec<_> = thread::scope(|scope| {
        let runs = Mutant::ALL.map(|mutant| {
            scope.spawn(move || {
                (0..MUTANT_SCHEDULES).find_map(|seed| run(seed, Some(mutant), false).err().map(|it| (seed, it)))
            })
        });
        Mutant::ALL.into_iter().zip(runs).map(|(mutant, run)| (mutant, run.join().unwrap())).collect()
    });
    for (mutant, caught) in &caught {
        match caught {
            Some((seed, broken)) => println!("{mutant:?}: caught by seed {seed}: {broken}"),
            None => println!("{mutant:?}: NOT caught"),
        }
    }
    assert!(caught.iter().all(|(_, caught)| caught.is_some()), "a mutant lives: see above");
}
