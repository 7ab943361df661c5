//! Names of disabled features, for compiler messages.

/// Trait without implementations unless the feature `embedded` is enabled.
#[diagnostic::on_unimplemented(
    message = "the crate `trunkline` has not got its feature `embedded` here",
    label = "it takes the feature `embedded`",
    note = "in `Cargo.toml`: `features = [\"embedded\"]` of `trunkline`; behind proxies an app needs no node inside"
)]
pub trait Embedded {}
