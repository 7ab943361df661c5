#![forbid(unsafe_code)]
//! `cargo demo`: builds and runs a chat through two proxies and one app server, and prints what to open.
//!
//! ```text
//!  plan (flags, checked) ──► build ──► fleet (three processes) ──► ready: what to open
//!                              └──── a signal, or a process that ends ────┴──► stop all, wait, exit
//! ```
//!
//! Modules, lowest first; a module never imports a higher one:
//!
//! | module | contents |
//! |---|---|
//! | `plan` | flags, checked |
//! | `readiness` | HTTP requests until a process is ready |
//! | `signals` | signals, sent and received |
//! | `process` | one process: start, log, end |
//! | `build` | the build of the programs, and their paths |
//! | `fleet` | all processes: started, watched, stopped |

mod build;
mod fleet;
mod plan;
mod process;
mod readiness;
mod signals;

use std::process::ExitCode;

use clap::Parser;

use fleet::Fleet;
use plan::{Args, Plan};
use signals::StopSignals;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            process::note(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    let mut stop = StopSignals::new()?;
    let wants_build = !args.no_build;
    let plan = Plan::new(args)?;
    plan.check_ports()?;
    let programs = if wants_build {
        process::note("building in release mode; the first time takes some minutes");
        match build::release(&mut stop).await? {
            Some(programs) => programs,
            None => return Ok(()),
        }
    } else {
        build::beside_this_program()?
    };
    let mut fleet = Fleet::default();
    let outcome = tokio::select! {
        error = fleet.run(&plan, &programs) => Err(error),
        () = stop.received() => Ok(()),
    };
    // Whatever happened, no process stays behind; the first error is reported.
    let stopped = fleet.stop().await;
    outcome.and(stopped)
}
