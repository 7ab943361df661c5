#![forbid(unsafe_code)]
//! `cargo demo`: builds and runs an example app behind two proxies, and prints what to open.
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
//! | `app` | the example apps with a page |
//! | `http_request` | a request with a small response |
//! | `readiness` | polling until a process is ready |
//! | `signals` | sending and receiving signals |
//! | `process` | one process: start, log, end |
//! | `hub_client` | client of a hub |
//! | `plan` | checked flags |
//! | `build` | building and locating the programs |
//! | `traffic` | simulated clients |
//! | `fleet` | all processes: start, watch, stop |

mod app;
mod build;
mod fleet;
mod http_request;
mod hub_client;
mod plan;
mod process;
mod readiness;
mod signals;
mod traffic;

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
            process::print_note(&format!("error: {error:#}"));
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
        match build::build(plan.app, &mut stop).await? {
            Some(programs) => programs,
            None => return Ok(()),
        }
    } else {
        build::beside_this_program(plan.app)?
    };
    let mut fleet = Fleet::default();
    let outcome = tokio::select! {
        error = fleet.run(&plan, &programs) => Err(error),
        () = stop.received() => Ok(()),
    };
    // Stop all processes in any case, and report the first error.
    let stopped = fleet.stop().await;
    outcome.and(stopped)
}
