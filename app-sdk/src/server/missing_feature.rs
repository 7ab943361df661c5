//! Names of features that are off, for the compiler's texts.

/// Without the feature `embedded` nothing is this.
#[diagnostic::on_unimplemented(
    message = "the crate `trunkline` has not got its feature `embedded` here",
    label = "it takes the feature `embedded`",
    note = "in `Cargo.toml`: `features = [\"embedded\"]` of `trunkline`; behind proxies an app needs no node inside"
)]
pub trait Embedded {}
