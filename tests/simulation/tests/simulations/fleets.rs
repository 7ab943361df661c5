//! Fleets withstand faults, and every broken rule is caught. `TRUNKLINE_FULL=1` also runs 200 nodes.

use std::thread;

use trunkline_simulation::{FleetMutant, FleetOutcome, FleetSize, run_fleet};

/// Number of schedules in a normal and a full run.
const SCHEDULES: (u64, u64) = (200, 3_000);

/// Number of schedules within which a mutant must be caught.
const MUTANT_SCHEDULES: u64 = 300;

/// Number of schedules with 200 nodes in a full run.
const LARGE_SCHEDULES: u64 = 2;

fn is_full() -> bool {
    std::env::var_os("TRUNKLINE_FULL").is_some()
}

fn hold(schedules: u64, size: FleetSize) -> FleetOutcome {
    let outcomes = (0..schedules).map(|seed| {
        run_fleet(seed, size, None, false)
            .unwrap_or_else(|broken| panic!("seed {seed}: {broken}; replay it with `simulate --fleet --seed {seed}`"))
    });
    outcomes.fold(FleetOutcome::default(), |sum, one| sum + one)
}

#[test]
fn each_client_gets_each_message_once_and_in_order_whatever_happens_to_others() {
    let schedules = if is_full() { SCHEDULES.1 } else { SCHEDULES.0 };
    let outcome = hold(schedules, FleetSize::SMALL);
    println!("{schedules} schedules: {outcome:#?}");
    // A simulation with few events proves nothing.
    assert!(outcome.queued > 500 * schedules && outcome.spared > 500 * schedules, "{outcome:?}");
    assert!(outcome.delivered > 800 * schedules && outcome.answered > 100 * schedules, "{outcome:?}");
    assert!(outcome.resumed > 5 * schedules && outcome.ended > 20 * schedules, "{outcome:?}");
    assert!(outcome.dropped > 100 * schedules && outcome.lost > 50 * schedules, "{outcome:?}");
    assert!(outcome.stale > 100 * schedules && outcome.missing > 20 * schedules, "{outcome:?}");
    assert!(outcome.promised > 100 * schedules, "{outcome:?}");
    assert!(outcome.disagreements > 2 * schedules, "{outcome:?}");
}

#[test]
fn two_hundred_nodes_find_each_other_again() {
    if is_full() {
        let outcome = hold(LARGE_SCHEDULES, FleetSize::large(200));
        println!("{LARGE_SCHEDULES} schedules: {outcome:#?}");
        assert!(outcome.queued > 10_000 * LARGE_SCHEDULES, "{outcome:?}");
    }
}

#[test]
fn every_broken_rule_of_a_fleet_is_caught() {
    let caught: Vec<_> = thread::scope(|scope| {
        let runs = FleetMutant::ALL.map(|mutant| {
            scope.spawn(move || {
                let run = |seed| run_fleet(seed, FleetSize::SMALL, Some(mutant), false);
                (0..MUTANT_SCHEDULES).find_map(|seed| run(seed).err().map(|broken| (seed, broken)))
            })
        });
        FleetMutant::ALL.into_iter().zip(runs).map(|(mutant, run)| (mutant, run.join().unwrap())).collect()
    });
    for (mutant, caught) in &caught {
        match caught {
            Some((seed, broken)) => println!("{mutant:?}: caught by seed {seed}: {broken}"),
            None => println!("{mutant:?}: NOT caught"),
        }
    }
    assert!(caught.iter().all(|(_, caught)| caught.is_some()), "a mutant lives: see above");
}
