//! Connections move between nodes without loss, and every broken rule is caught. `TRUNKLINE_FULL=1` runs a hundred
//! thousand schedules.

use std::thread;

use trunkline_simulation::{MoveMutant, MoveOutcome, run_moves};

/// Number of schedules in a normal and a full run.
const SCHEDULES: (u64, u64) = (500, 100_000);

/// Number of schedules within which a mutant must be caught. Most need a handful, the last one 234.
const MUTANT_SCHEDULES: u64 = 1_000;

#[test]
fn each_message_comes_once_and_in_order_wherever_a_connection_moves() {
    let schedules = if std::env::var_os("TRUNKLINE_FULL").is_some() { SCHEDULES.1 } else { SCHEDULES.0 };
    let outcomes = (0..schedules).map(|seed| {
        run_moves(seed, None, false)
            .unwrap_or_else(|broken| panic!("seed {seed}: {broken}; replay it with `simulate --moves --seed {seed}`"))
    });
    let outcome = outcomes.fold(MoveOutcome::default(), |sum, one| sum + one);
    println!("{schedules} schedules: {outcome:#?}");
    // A simulation with few events proves nothing.
    assert!(outcome.moved > 3 * schedules && outcome.resumed > 5 * schedules, "{outcome:?}");
    assert!(outcome.stayed > schedules / 4 && outcome.withdrawn > schedules / 4, "{outcome:?}");
    assert!(outcome.died > schedules / 8 && outcome.drained > schedules / 4, "{outcome:?}");
    assert!(outcome.down > 100 * schedules && outcome.up > 100 * schedules, "{outcome:?}");
    assert!(outcome.waited > schedules / 2, "{outcome:?}");
}

#[test]
fn every_broken_rule_of_a_move_is_caught() {
    let caught: Vec<_> = thread::scope(|scope| {
        let runs = MoveMutant::ALL.map(|mutant| {
            scope.spawn(move || {
                let run = |seed| run_moves(seed, Some(mutant), false);
                (0..MUTANT_SCHEDULES).find_map(|seed| run(seed).err().map(|broken| (seed, broken)))
            })
        });
        MoveMutant::ALL.into_iter().zip(runs).map(|(mutant, run)| (mutant, run.join().unwrap())).collect()
    });
    for (mutant, caught) in &caught {
        match caught {
            Some((seed, broken)) => println!("{mutant:?}: caught by seed {seed}: {broken}"),
            None => println!("{mutant:?}: NOT caught"),
        }
    }
    assert!(caught.iter().all(|(_, caught)| caught.is_some()), "a mutant lives: see above");
}
