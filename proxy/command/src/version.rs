//! Version of this program, with the commit and target of its build.

/// Version, commit and target, as set by the build script.
pub(super) const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("TRUNKLINE_BUILD"), ")");
