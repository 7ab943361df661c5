//! Entry points of file parsers for the fuzz targets. Not part of the public API.

use std::path::Path;
use std::sync::LazyLock;

use clap::{Args, Command};

use crate::flag::ServeArgs;
use crate::settings_loader::load_text;

/// Parses a configuration file as flags of `trunkline serve`, and returns the flags that it sets.
/// Fails if it is not TOML, or contains an invalid value.
pub fn config_file(text: &str) -> Result<Vec<String>, String> {
    static COMMAND: LazyLock<Command> = LazyLock::new(|| ServeArgs::augment_args(Command::new("serve")));
    let read = load_text(COMMAND.clone(), Path::new("trunkline.toml"), text).map_err(|error| error.to_string())?;
    read.command.try_get_matches_from(["serve"]).map_err(|error| error.to_string())?;
    Ok(read.sources.0.into_keys().collect())
}
