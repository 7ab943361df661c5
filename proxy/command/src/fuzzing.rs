//! Entry points of file parsers for the fuzz targets. Not part of the public API.

use std::path::Path;
use std::sync::LazyLock;

use clap::{Args, Command};
use trunkline_proxy::parts::{RecordingLine, json_line};

use crate::flag::ServeArgs;
use crate::replay_command::recording_reader::RecordingReader;
use crate::settings_loader::load_text;

/// Parses a configuration file as flags of `trunkline serve`, and returns the flags that it sets.
/// Fails if it is not TOML, or contains an invalid value.
pub fn config_file(text: &str) -> Result<Vec<String>, String> {
    static COMMAND: LazyLock<Command> = LazyLock::new(|| ServeArgs::augment_args(Command::new("serve")));
    let read = load_text(COMMAND.clone(), Path::new("trunkline.toml"), text).map_err(|error| error.to_string())?;
    read.command.try_get_matches_from(["serve"]).map_err(|error| error.to_string())?;
    Ok(read.sources.0.into_keys().collect())
}

/// Reads a recording with payloads, and writes it again. Fails if it can't be replayed.
pub fn recording(bytes: &[u8]) -> Result<String, String> {
    let mut reader = RecordingReader::new(bytes).map_err(|error| error.to_string())?;
    let mut text = json_line(&RecordingLine::Header(reader.header.clone()));
    while let Some((_, line)) = reader.next().map_err(|error| error.to_string())? {
        if let RecordingLine::Up(message) | RecordingLine::Down(message) = &line {
            message.payload().map_err(|error| error.to_string())?;
        }
        text += &json_line(&line);
    }
    Ok(text)
}
