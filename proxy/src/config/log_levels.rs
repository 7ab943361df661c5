//! Levels of the process's log, which the admin port shows and changes.

use std::fmt;

/// Limit of the text of levels.
pub const LEVELS_MAX_BYTES: usize = 1024;

/// Levels of the log, in the hands of the program that writes it.
pub trait LogLevels: fmt::Debug + Send + Sync {
    /// Returns the name of the format of its lines.
    fn format_name(&self) -> &'static str;

    /// Returns the levels as they were given.
    fn text(&self) -> String;

    /// Changes the levels.
    ///
    /// # Errors
    /// When they can't be read, with the reason; the old levels stay.
    fn set(&self, levels: &str) -> Result<(), String>;
}
