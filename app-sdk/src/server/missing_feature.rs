//! Names of disabled features, for compiler messages.

/// Trait without implementations unless the feature `embedded` is enabled.
#[diagnostic::on_unimplemented(
    message = "the feature `embedded` of the crate `trunkline` is not enabled",
    label = "needs the feature `embedded`",
    note = "in `Cargo.toml`: `features = [\"embedded\"]` of `trunkline`; behind proxies an app needs no node inside"
)]
pub trait Embedded {}
