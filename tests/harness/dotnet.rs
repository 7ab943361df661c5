//! Real ASP.NET Core app servers and .NET clients on Azure's SDK, from an archive with its own runtime.
//!
//! The archive is not part of the repository. It is searched in the folder given by `TRUNKLINE_AZURE_SDK`, or else in
//! `../shared/azure-sdk` beside the repository. Without it, dependent tests are skipped.

mod app;
mod field;
mod management;
mod net_client;
mod programs;

use anyhow::Result;

use crate::harness::scenario::{Fixture, run_heavy_test, run_test};

pub use app::{APP, AspNetApp, AspNetAppBuilder};
pub use management::ServiceTransport;
pub use net_client::{NetClient, NetClientBuilder};
pub(crate) use programs::found;
pub use programs::{DotNet, azure_sdk_folder};

/// Runs a test with real .NET programs, or skips it with a note.
///
/// # Panics
/// If the test fails or exceeds its time limit.
pub fn run_dotnet_test(body: impl AsyncFnOnce(&Fixture, &DotNet) -> Result<()>) {
    if let Some(dotnet) = found() {
        run_test(async |fixture| body(fixture, &dotnet).await);
    }
}

/// Runs a test with .NET 11 programs, or skips it with a note.
///
/// # Panics
/// If the test fails or exceeds its time limit.
pub fn run_dotnet_11_test(body: impl AsyncFnOnce(&Fixture, &DotNet) -> Result<()>) {
    if let Some(dotnet) = programs::Archive::Net11.found() {
        run_test(async |fixture| body(fixture, &dotnet).await);
    }
}

/// Runs a test with the Management SDK, or skips it with a note.
///
/// # Panics
/// If the test fails or exceeds its time limit.
pub fn run_management_test(body: impl AsyncFnOnce(&Fixture, &DotNet) -> Result<()>) {
    if let Some(dotnet) = found()
        && dotnet.has(management::PROGRAM)
    {
        run_test(async |fixture| body(fixture, &dotnet).await);
    }
}

/// Like [`run_dotnet_test`], but never in parallel with another heavy test.
///
/// # Panics
/// If the test fails or exceeds its time limit.
pub fn run_heavy_dotnet_test(body: impl AsyncFnOnce(&Fixture, &DotNet) -> Result<()>) {
    if let Some(dotnet) = found() {
        run_heavy_test(async |fixture| body(fixture, &dotnet).await);
    }
}
