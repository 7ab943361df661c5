#![forbid(unsafe_code)]
//! Macros of the Trunkline SDK. Use them through the crate `trunkline` with its feature `macros`.
//!
//! # Layout
//!
//! Modules import only modules above them in this table.
//!
//! | module | purpose |
//! |---|---|
//! | `shape` | types as written: references, `Result`s, streams, states |
//! | `signature` | mistakes that are visible in the signature of a method, hook or filter |
//! | `assertion` | compile-time checks of parameters, result and future |
//! | `debug` | `#[debug_method]`, `#[debug_hook]` and `#[debug_filter]` |
//! | `extractor` | `#[derive(FromContext)]` |

mod assertion;
mod debug;
mod extractor;
mod shape;
mod signature;

use proc_macro::TokenStream;
use quote::quote;

use signature::FunctionKind;

/// Checks a hub method on its own, so that the compiler reports where a mistake is.
///
/// Without it, any mistake in a method causes one and the same error where the method is registered. With it, the error
/// appears at the wrong parameter, result or `.await`, and says what to write there. The function is unchanged.
///
/// ```
/// use trunkline::{Context, HubError, debug_method};
///
/// #[debug_method]
/// async fn say(ctx: Context, text: String) -> Result<(), HubError> {
///     ctx.clients().all().send("Said", (text,)).await?;
///     Ok(())
/// }
/// # let _ = trunkline::Hub::<()>::new("/chat").method("Say", say);
/// ```
///
/// The hub's state is taken from the only `State<T>` parameter, or `()`. If the hub has another state type, for example
/// with parts of a state, name it:
///
/// ```
/// use axum::extract::{FromRef, State};
/// use trunkline::debug_method;
///
/// #[derive(Clone)]
/// struct App { store: Store, prices: Prices }
/// # #[derive(Clone)] struct Store;
/// # #[derive(Clone)] struct Prices;
/// # impl FromRef<App> for Store { fn from_ref(app: &App) -> Self { app.store.clone() } }
/// # impl FromRef<App> for Prices { fn from_ref(app: &App) -> Self { app.prices.clone() } }
///
/// #[debug_method(state = App)]
/// async fn buy(State(store): State<Store>, State(prices): State<Prices>, seat: u32) -> u32 {
///     seat
/// }
/// # let _: trunkline::Hub = trunkline::Hub::new("/shop").method("Buy", buy).with_state(App { store: Store, prices: Prices });
/// ```
///
/// `#[debug_method(typescript)]` also checks that arguments and result have TypeScript types, for
/// `Hub::typed_method`.
///
/// The function cannot be generic or take `self`.
#[proc_macro_attribute]
pub fn debug_method(attribute: TokenStream, item: TokenStream) -> TokenStream {
    debug::expand(FunctionKind::Method, attribute.into(), item.into()).into()
}

/// Checks a hook of a hub, such as `on_connected`, as [`debug_method`] checks methods.
///
/// ```
/// use trunkline::{Context, HubError, debug_hook};
///
/// #[debug_hook]
/// async fn admit(ctx: Context) -> Result<(), HubError> {
///     ctx.user_id().map(drop).ok_or_else(|| HubError::new("log in first"))
/// }
/// # let _ = trunkline::Hub::<()>::new("/club").on_connected(admit);
/// ```
///
/// `on_leaving` returns a value, so check it with [`debug_method`].
#[proc_macro_attribute]
pub fn debug_hook(attribute: TokenStream, item: TokenStream) -> TokenStream {
    debug::expand(FunctionKind::Hook, attribute.into(), item.into()).into()
}

/// Checks a filter, as [`debug_method`] checks methods.
///
/// ```
/// use trunkline::{HubCall, HubError, Next, Reply, debug_filter};
///
/// #[debug_filter]
/// async fn pass(call: HubCall, next: Next) -> Result<Reply, HubError> {
///     next.run(call).await
/// }
/// # let _ = trunkline::Hub::<()>::new("/club").filter(pass);
/// ```
#[proc_macro_attribute]
pub fn debug_filter(attribute: TokenStream, item: TokenStream) -> TokenStream {
    debug::expand(FunctionKind::Filter, attribute.into(), item.into()).into()
}

/// Makes a struct an extractor: a parameter of methods, hooks and filters. Each field names its source.
///
/// | field | source | error for the client if missing |
/// |---|---|---|
/// | `#[user]` | user ID | `log in first` |
/// | `#[claim("name")]` | claim with this name | ``the claim `name` is missing`` |
/// | `#[header("name")]` | header of the connect request | ``the header `name` is missing`` |
/// | `#[query("name")]` | query of the connect request | `` `name` is missing in the query`` |
/// | `#[state]` | the hub's state, with `axum::extract::FromRef` | |
/// | `#[extract]` | another extractor | the extractor's error |
///
/// The first four accept any type that implements `FromStr`, an `Option` of it, or a `Vec` of all values (`Option`
/// and `Vec` must be written with these names). The client is also refused if the text cannot be parsed. `or` sets
/// the error text: `#[user(or = "who are you?")]`, `#[claim("role", or = "staff only")]`.
///
/// ```
/// use axum::extract::FromRef;
/// use trunkline::{Context, FromContext, Hub, HubError};
///
/// #[derive(Clone)]
/// struct Store;
///
/// #[derive(FromContext)]
/// struct Me {
///     #[user(or = "who are you?")]
///     id: String,
///     #[claim("role")]
///     roles: Vec<String>,
///     #[header("user-agent")]
///     agent: Option<String>,
///     #[query("room")]
///     room: u32,
///     #[state]
///     store: Store,
///     #[extract]
///     ctx: Context,
/// }
///
/// async fn whisper(me: Me, to: String, text: String) -> Result<(), HubError> {
///     me.ctx.clients().user(to).send("Whisper", (me.id, me.room, text)).await?;
///     Ok(())
/// }
///
/// async fn peek(me: Option<Me>) -> bool {
///     me.is_some()
/// }
///
/// let hub: Hub = Hub::new("/club").method("Whisper", whisper).method("Peek", peek).with_state(Store);
/// ```
///
/// The struct must not be `Deserialize`, because it would also be an argument.
#[proc_macro_derive(FromContext, attributes(user, claim, header, query, state, extract))]
pub fn derive_from_context(item: TokenStream) -> TokenStream {
    extractor::expand(item.into()).into()
}

/// Derives the TypeScript type of a type, as serde serializes it. Use it as `trunkline::typescript::TS`.
///
/// ```
/// use serde::Serialize;
/// use trunkline::typescript::TS;
///
/// #[derive(Serialize, TS)]
/// #[serde(rename_all = "camelCase")]
/// struct Note {
///     done_by: Option<String>,
///     #[ts(type = "`#${string}`")]
///     color: String,
/// }
/// ```
///
/// This is the derive of the crate [`ts-rs`](https://docs.rs/ts-rs), which documents its attributes. The app need not
/// depend on it.
#[proc_macro_derive(TS, attributes(ts))]
pub fn derive_ts(item: TokenStream) -> TokenStream {
    // A derive cannot add attributes to its item, but the `ts-rs` derive needs `#[ts(crate = …)]`. So it runs on a copy
    // of the item with this attribute, which another attribute then removes. Only the generated impl remains; it refers
    // to the original item by name.
    let item = proc_macro2::TokenStream::from(item);
    quote! {
        #[derive(::trunkline::typescript::ts_rs::TS)]
        #[::trunkline::typescript::without_item]
        #[ts(crate = "::trunkline::typescript::ts_rs")]
        #item
    }
    .into()
}

/// Removes an item: the copy that a derive has processed.
#[doc(hidden)]
#[proc_macro_attribute]
pub fn without_item(_attribute: TokenStream, _item: TokenStream) -> TokenStream {
    TokenStream::new()
}
