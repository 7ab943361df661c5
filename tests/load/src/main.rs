#![forbid(unsafe_code)]
//! Load tester with exact numbers for any SignalR server. The user guide is `README.md`.
//!
//! ```text
//!  cli ─► run ─► engine: ramp-up, work, settle, ramp-down ─► report: text, JSON, HTML
//!                  │ drives a profile: rooms, echo, idle, storm, script
//!                  └─► connect ─► connection ─► carrier: WebSocket, event stream, long polling ─► wire
//!                profile ─► ledger, tracks, stamp: expected messages      tally, generator's histogram: times
//! ```
//!
//! All connections are on one thread: no lock, channel or thread wake-up separates a socket from the clock. To use
//! several cores, start several generators and merge their reports.
//!
//! | module | contents |
//! |---|---|
//! | [`clock`] | the clock of a run |
//! | [`stamp`] | the stamp in each message |
//! | [`tracks`] | received numbers of each sender, per receiver |
//! | [`ledger`] | rooms, members, messages sent and received |
//! | [`published`] | final line of the published load tests |
//! | [`tally`] | connects, ends, failed calls, times |
//! | [`schedule`] | offsets of ramps, roles of a chat |
//! | [`target`] | the servers under load |
//! | [`cli`] | the command line |
//! | [`token`] | access tokens of clients |
//! | [`open_files`] | the limit of open files |
//! | [`wire`] | hub messages, in frames or in events |
//! | [`dial`] | sockets, and the causes of failed connects |
//! | [`ended`] | ends of connections |
//! | [`greeting`] | the hub handshake |
//! | [`exchange`] | HTTP requests of one client |
//! | [`negotiate`] | negotiation |
//! | [`carrier`] | the transports |
//! | [`connect`] | opening a client connection |
//! | [`connection`] | an open client connection |
//! | [`processes`] | memory, CPU time and link bytes |
//! | [`run`] | the state of one run |
//! | [`interrupt`] | Ctrl-C |
//! | [`progress`] | the line on the terminal |
//! | [`engine`] | ramp-up, work, settle, ramp-down |
//! | [`profile`] | work of the clients |
//! | [`report`] | text, JSON, HTML |

mod carrier;
mod cli;
mod clock;
mod connect;
mod connection;
mod dial;
mod ended;
mod engine;
mod exchange;
mod greeting;
mod interrupt;
mod ledger;
mod negotiate;
mod open_files;
mod processes;
mod profile;
mod progress;
mod published;
mod report;
mod run;
mod schedule;
mod stamp;
mod tally;
mod target;
mod token;
mod tracks;
mod wire;

use std::io::Write;
use std::process::ExitCode;
use std::rc::Rc;

use anyhow::{Context, Result};
use clap::Parser;
use tokio::task::{LocalSet, spawn_local};

use cli::{Cli, Command, Outputs, RunArguments};
use engine::{Harvest, Profile, Stage, drive};
use processes::Watch;
use profile::script_file::ScriptFile;
use profile::{echo, idle, rooms, script, storm};
use report::{Generator, Report, Settings};
use run::Run;

/// Exit status of a run with faults.
const NOT_CLEAN: u8 = 1;
/// Exit status if no run took place.
const NO_RUN: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match (cli.command, cli.run) {
        (Some(Command::Merge { files, outputs }), _) => Report::merged(&files).map(|report| (report, outputs)),
        (None, Some(arguments)) => load(arguments),
        (None, None) => Err(anyhow::anyhow!("say what to do: --help tells")),
    };
    match outcome.and_then(|(report, outputs)| publish(&report, &outputs).map(|()| report)) {
        Ok(report) if report.is_cut_short => ExitCode::from(interrupt::CUT_SHORT),
        Ok(report) if report.is_clean => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(NOT_CLEAN),
        Err(error) => {
            report_error(&format!("{error:#}"));
            ExitCode::from(NO_RUN)
        }
    }
}

fn publish(report: &Report, outputs: &Outputs) -> Result<()> {
    // The reader of the output may be gone.
    drop(writeln!(std::io::stdout(), "{}", report::text::whole(report)));
    if let Some(path) = &outputs.json {
        report.write_json(path)?;
    }
    if let Some(path) = &outputs.html {
        std::fs::write(path, report::html::page(report)).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn load(arguments: RunArguments) -> Result<(Report, Outputs)> {
    open_files::allow(arguments.servers.len() * arguments.clients as usize * arguments.transport.sockets())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outputs = arguments.outputs();
    let report = LocalSet::new().block_on(&runtime, measure(arguments))?;
    Ok((report, outputs))
}

async fn measure(arguments: RunArguments) -> Result<Report> {
    let watch = Watch::of(&arguments)?;
    let name = arguments.profile.clone();
    let run = Run::new(arguments)?;
    let settings = Settings::of(&run.arguments, &run.how);
    match name.as_str() {
        "echo" => watched(echo::Echo::new(run, echo::EchoKind::Own), "echo", settings, watch).await,
        "shared-echo" | "sharedecho" => {
            watched(echo::Echo::new(run, echo::EchoKind::Shared), "shared-echo", settings, watch).await
        }
        "broadcast" => watched(rooms::Rooms::new(run, rooms::RoomKind::Broadcast), "broadcast", settings, watch).await,
        "chat" | "chatroom" => watched(rooms::Rooms::new(run, rooms::RoomKind::Chat), "chat", settings, watch).await,
        "idle" => watched(idle::Idle::new(run), "idle", settings, watch).await,
        "storm" => watched(storm::Storm::new(run), "storm", settings, watch).await,
        path => {
            let file = ScriptFile::read(path)?;
            let name = file.name.clone();
            watched(script::Script::new(run, file), &name, settings, watch).await
        }
    }
}

/// Runs a profile with progress output, and measures the processes.
async fn watched<P: Profile>(profile: Rc<P>, name: &str, settings: Settings, watch: Watch) -> Result<Report> {
    let run: Rc<Run> = Rc::clone(profile.run());
    let progress = spawn_local(progress::show(Rc::clone(&run)));
    let listening = spawn_local(interrupt::listen(Rc::clone(&run)));
    let before = watch.read().await;
    let (notify, mut told) = tokio::sync::mpsc::unbounded_channel::<Stage>();
    let driving = drive(profile, move |stage| _ = notify.send(stage));
    let readings = async {
        let mut readings = Vec::new();
        while told.recv().await.is_some() {
            readings.push((run.clock.now_us(), watch.read().await));
        }
        readings
    };
    let (harvest, readings): (Harvest, _) = tokio::join!(driving, readings);
    progress.abort();
    listening.abort();
    progress::clear();
    let [(ready_us, ready), (done_us, done)] = readings.as_slice() else { anyhow::bail!("the run did not end") };
    let wall_s = done_us.saturating_sub(*ready_us) as f64 / 1e6;
    let generator = Generator { cpu_s: done.own_cpu_s_since(ready), wall_s, peak_bytes: done.own_peak_bytes() };
    let tally = run.counted().clone();
    let usage = watch.report([&before, ready, done], tally.opened);
    Ok(Report::new(name.to_owned(), settings, harvest, tally, generator, usage))
}

#[expect(clippy::print_stderr, reason = "the command ends with this")]
fn report_error(text: &str) {
    eprintln!("trunkline-load: {text}");
}
