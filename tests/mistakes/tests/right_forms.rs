#![forbid(unsafe_code)]
//! Correct counterparts of the mistakes in `rows/`: what macros must accept, and what messages advise.

use std::future::{self, Future};
use std::sync::{Arc, Mutex};

use axum::extract::{FromRef, State};
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt, stream};
use serde::{Deserialize, Serialize};
use trunkline::call::CloseReason;
use trunkline::typescript::TS;
use trunkline::{
    Cancellation, Cause, Context, FromContext, Hub, HubCall, HubError, Next, Policy, Rehomed, Reply, Server,
    UploadStream, debug_filter, debug_hook, debug_method,
};

#[derive(Clone)]
struct App {
    store: Store,
    counter: Arc<Mutex<u32>>,
}

#[derive(Clone)]
struct Store;

impl FromRef<App> for Store {
    fn from_ref(app: &App) -> Self {
        app.store.clone()
    }
}

impl FromRef<App> for Arc<Mutex<u32>> {
    fn from_ref(app: &App) -> Self {
        Arc::clone(&app.counter)
    }
}

#[derive(Deserialize)]
struct Order {
    seats: u32,
}

#[derive(Serialize)]
struct Receipt {
    total: u32,
}

#[derive(FromContext)]
struct Me {
    #[user]
    id: String,
    #[claim("level")]
    level: Option<u8>,
    #[state]
    store: Store,
    #[extract]
    ctx: Context,
}

/// Extractor as a tuple struct with one field.
#[derive(FromContext)]
struct Roles(#[claim("role")] Vec<String>);

/// Extractor for any part of the state.
#[derive(FromContext)]
struct Part<T: Send>(#[state] T);

#[derive(FromContext)]
struct Anybody;

trunkline::client_interface! {
    trait Player {
        fn roll_dice(sides: u32) -> u32 = "RollDice";
    }
}

#[debug_method]
async fn nothing() {}

#[debug_method]
async fn whoami(ctx: Context) -> String {
    ctx.connection_id().to_owned()
}

#[debug_method]
async fn book(mut order: Order, note: Option<String>, seats: Vec<u32>) -> Result<Receipt, HubError> {
    order.seats += u32::try_from(seats.len())? + u32::from(note.is_some());
    Ok(Receipt { total: order.seats })
}

/// TypeScript type, in an app that does not depend on the crate behind the derive.
#[derive(Serialize, Deserialize, TS)]
#[serde(rename_all = "camelCase")]
struct Seat {
    row_number: u32,
    #[ts(type = "`#${string}`")]
    color: String,
}

#[debug_method(typescript)]
async fn reserve(_ctx: Context, seat: Option<Seat>, _rest: UploadStream<Seat>) -> Result<Vec<Seat>, HubError> {
    Ok(seat.into_iter().collect())
}

#[debug_method]
async fn read() -> Result<String, HubError> {
    std::fs::read_to_string("note.txt").map_err(HubError::internal)
}

#[debug_method(state = App)]
async fn shared(State(_store): State<Store>, State(counter): State<Arc<Mutex<u32>>>, me: Me, roles: Roles) -> u32 {
    drop((me.id, me.level, me.store, me.ctx, roles.0));
    counter.lock().map_or(0, |counter| *counter)
}

#[debug_method(state = App)]
async fn tolerant(
    me: Option<Me>,
    roles: Result<Roles, HubError>,
    Part(_store): Part<Store>,
    _anybody: Anybody,
) -> bool {
    me.is_some() && roles.is_ok()
}

#[debug_method]
async fn inferred(State(app): State<App>, by: u32) -> Result<u32, HubError> {
    let counter = app.counter.lock().map_or(0, |counter| *counter);
    future::ready(()).await;
    Ok(counter + by)
}

#[debug_method]
async fn guarded(ctx: Context, State(counter): State<Arc<Mutex<u32>>>) -> Result<(), HubError> {
    let count = counter.lock().map_or(0, |counter| *counter);
    ctx.clients().all().send("Counted", (count,)).await?;
    Ok(())
}

#[debug_method]
async fn countdown(from: u32) -> impl Stream<Item = u32> {
    stream::iter((0..=from).rev())
}

#[debug_method]
async fn lines(cancelled: Cancellation) -> Result<impl Stream<Item = Result<String, HubError>>, HubError> {
    drop(cancelled);
    Ok(stream::iter([Ok("one".to_owned())]))
}

#[debug_method]
async fn boxed(words: UploadStream<String>) -> BoxStream<'static, Result<String, HubError>> {
    words.boxed()
}

#[debug_method]
fn later(number: u32) -> impl Future<Output = u32> + Send {
    future::ready(number)
}

#[debug_method]
#[expect(clippy::too_many_arguments, reason = "as many as a method may have")]
async fn ten(a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8, h: u8, i: u8, j: u8) -> [u8; 10] {
    [a, b, c, d, e, f, g, h, i, j]
}

#[debug_method]
async fn roll(ctx: Context, player: String) -> Result<u32, HubError> {
    let first: u32 = ctx.clients().client(&player).invoke("RollDice", (6,)).await?;
    let second = ctx.clients().client(&player).invoke::<u32>("RollDice", (6,)).await?;
    Ok(first + second + ctx.clients().client(&player).roll_dice(6).await?)
}

#[debug_hook]
async fn admit(ctx: Context, me: Option<Roles>) -> Result<(), HubError> {
    drop(me);
    ctx.user_id().map(drop).ok_or_else(|| HubError::new("who are you?"))
}

#[debug_hook]
async fn ended(State(_app): State<App>, _reason: CloseReason, _cause: Cause) {}

#[debug_hook]
async fn moved(_ctx: Context, rehomed: Rehomed) -> Result<(), HubError> {
    rehomed.items::<u32>().map(drop)
}

#[debug_filter]
async fn log(call: HubCall, next: Next) -> Result<Reply, HubError> {
    next.run(call).await
}

#[debug_filter(state = App)]
async fn count(State(_store): State<Store>, _me: Option<Me>, call: HubCall, next: Next) -> Result<Reply, HubError> {
    next.run(call).await
}

#[test]
fn right_forms_compile_and_make_a_hub() {
    let counter = Arc::new(Mutex::new(0));
    let shared_state = Hub::<App>::new("/shared")
        .filter(log)
        .filter(count)
        .on_connected(admit)
        .on_disconnected(ended)
        .on_rehomed(moved)
        .method("Shared", shared)
        .method("Tolerant", tolerant)
        .method("Inferred", inferred)
        .with_state(App { store: Store, counter: Arc::clone(&counter) });
    let plain = Hub::new("/plain")
        .method("Nothing", nothing)
        .method("WhoAmI", whoami)
        .method("Book", book)
        .method("Read", read)
        .typed_guarded("Reserve", Policy::user(), reserve)
        .method("Countdown", countdown)
        .method("Lines", lines)
        .method("Boxed", boxed)
        .method("Later", later)
        .method("Ten", ten)
        .method("Roll", roll)
        .guarded("Counted", Policy::claim("role", "admin"), guarded)
        .with_state(counter);
    assert!(Server::new().hub(shared_state).hub(plain).into_router::<()>().is_ok());
}
