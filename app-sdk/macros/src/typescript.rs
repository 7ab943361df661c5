//! `#[derive(TS)]`: the derive of the crate `ts-rs`, told where the SDK has that crate.
//!
//! A derive can't add an attribute to its item, and the other one needs `#[ts(crate = …)]`. So it is run on a copy of
//! the item, which has the attribute; an attribute behind it then takes the copy away. What is left is an impl for the
//! name, which is the item's.

use proc_macro2::TokenStream;
use quote::quote;

/// Writes the copy, with both attributes.
pub(crate) fn expand(item: &TokenStream) -> TokenStream {
    quote! {
        #[derive(::trunkline::typescript::ts_rs::TS)]
        #[::trunkline::typescript::without_item]
        #[ts(crate = "::trunkline::typescript::ts_rs")]
        #item
    }
}
