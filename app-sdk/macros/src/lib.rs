#![forbid(unsafe_code)]
//! Macros of the Trunkline SDK; use them through the crate `trunkline`, whose feature `macros` has them.
//!
//! # Layout
//!
//! Modules import only those above them; the lowest comes first.
//!
//! | module | what it does |
//! |---|---|
//! | `shape` | types as they are written: references, `Result`s, streams, states |
//! | `signature` | mistakes that can be seen in the signature of a method, hook or filter |
//! | `assertion` | checks that the compiler makes of its parameters, its result and its future |
//! | `debug` | `#[debug_method]`, `#[debug_hook]` and `#[debug_filter]` |
//! | `extractor` | `#[derive(FromContext)]` |
//! | `typescript` | `#[derive(TS)]` |

mod assertion;
mod debug;
mod extractor;
mod shape;
mod signature;
mod typescript;

use proc_macro::TokenStream;

use signature::FunctionKind;

/// Checks a hub method by itself, so that the compiler says where its mistake is.
///
/// Without it a function that is no method is an error where it is registered, one text for all kinds of mistakes. With
/// it there is an error at the parameter, the result or the `.await` that is wrong, and what to write there. It does
/// not change the function.
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
/// The state of the hub is that of the only `State<T>` among the parameters, or `()`. Where it is another one, as with
/// parts of a state, name it:
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
/// `#[debug_method(typescript)]` also checks that its arguments and its result have types in TypeScript, for
/// `Hub::typed_method`.
///
/// The function can't be generic, and takes no `self`.
#[proc_macro_attribute]
pub fn debug_method(attribute: TokenStream, item: TokenStream) -> TokenStream {
    debug::expand(FunctionKind::Method, attribute.into(), item.into()).into()
}

/// Checks a hook of a hub by itself, such as `on_connected`, as [`debug_method`] checks methods.
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
/// `on_leaving` hands a value over, so it is checked by [`debug_method`].
#[proc_macro_attribute]
pub fn debug_hook(attribute: TokenStream, item: TokenStream) -> TokenStream {
    debug::expand(FunctionKind::Hook, attribute.into(), item.into()).into()
}

/// Checks a filter by itself, as [`debug_method`] checks methods.
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

/// Makes a struct an extractor: a parameter of methods, hooks and filters, each of whose fields says where it comes
/// from.
///
/// | field | comes from | when it is missing, clients read |
/// |---|---|---|
/// | `#[user]` | the id of the user | `log in first` |
/// | `#[claim("name")]` | the claim of this name | ``the claim `name` is missing`` |
/// | `#[header("name")]` | the header of the connect request | ``the header `name` is missing`` |
/// | `#[query("name")]` | the query of the connect request | `` `name` is missing in the query`` |
/// | `#[state]` | the hub's state, by `axum::extract::FromRef` | |
/// | `#[extract]` | another extractor | its own text |
///
/// The type of the first four is any that implements `FromStr`, an `Option` of it, or a `Vec` of all values (`Option`
/// and `Vec` by these names). A text that can't be read as this type refuses the client, too. `or` sets the refusal:
/// `#[user(or = "who are you?")]`, `#[claim("role", or = "staff only")]`.
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
/// The struct must not be `Deserialize`, or it would be an argument as well.
#[proc_macro_derive(FromContext, attributes(user, claim, header, query, state, extract))]
pub fn derive_from_context(item: TokenStream) -> TokenStream {
    extractor::expand(item.into()).into()
}

/// Gives a type its type in TypeScript, as serde writes it: use it as `trunkline::typescript::TS`.
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
/// It is the derive of the crate [`ts-rs`](https://docs.rs/ts-rs), which lists its attributes; the app needs no
/// dependency on that crate.
#[proc_macro_derive(TS, attributes(ts))]
pub fn derive_ts(item: TokenStream) -> TokenStream {
    typescript::expand(&item.into()).into()
}

/// Takes an item away: a copy that a derive has read.
#[doc(hidden)]
#[proc_macro_attribute]
pub fn without_item(_attribute: TokenStream, _item: TokenStream) -> TokenStream {
    TokenStream::new()
}
