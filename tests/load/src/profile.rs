//! Profiles: one file per kind of work.

pub(crate) mod echo;
pub(crate) mod idle;
pub(crate) mod rooms;
pub(crate) mod script;
pub(crate) mod script_file;
pub(crate) mod storm;
