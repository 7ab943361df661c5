//! Version of this program, with the commit and the target that it was built for.

/// Version, commit and target, which the build script tells.
pub(super) const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("TRUNKLINE_BUILD"), ")");
