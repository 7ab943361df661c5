//! `#[derive(TS)]`: the derive of `ts-rs`, configured with the SDK's path of that crate.
//!
//! A derive cannot add attributes to its item, but the `ts-rs` derive needs `#[ts(crate = …)]`. So it runs on a copy of
//! the item with this attribute, which another attribute then removes. Only the generated impl remains; it refers to
//! the original item by name.

use proc_macro2::TokenStream;
use quote::quote;

pub(crate) fn expand(item: &TokenStream) -> TokenStream {
    quote! {
        #[derive(::trunkline::typescript::ts_rs::TS)]
        #[::trunkline::typescript::without_item]
        #[ts(crate = "::trunkline::typescript::ts_rs")]
        #item
    }
}
