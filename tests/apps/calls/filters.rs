//! Hub with two filters and a hook, which log what they see of each connection.

use std::sync::{Arc, Mutex, PoisonError};

use trunkline::{Context, Hub, HubCall, HubError, Next, Reply};

/// Log of one connection, in order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn of(ctx: &Context) -> Self {
        ctx.items().get().unwrap_or_default()
    }

    fn add(&self, line: String) {
        self.lines(|lines| lines.push(line));
    }

    fn lines<T>(&self, act: impl FnOnce(&mut Vec<String>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn connected(ctx: Context) {
    let log = Log::default();
    log.add("connected".into());
    ctx.items().insert(log);
}

/// Outer filter: refuses calls and rewrites errors.
async fn guard(call: HubCall, next: Next) -> Result<Reply, HubError> {
    let (log, method) = (Log::of(call.context()), call.method().to_owned());
    if method == "Forbidden" {
        return Err(HubError::new("not for you"));
    }
    log.add(format!("guard before {method}"));
    let outcome = next.run(call).await.map_err(|error| HubError::new(format!("seen by guard: {}", error.message())));
    log.add(format!("guard after {method}"));
    outcome
}

/// Inner filter: answers instead of a method.
async fn stand_in(call: HubCall, next: Next) -> Result<Reply, HubError> {
    let log = Log::of(call.context());
    log.add(format!("stand-in before {} of {}", call.method(), call.argument_count()));
    if call.method() == "Absent" {
        return call.reply(&"from the stand-in");
    }
    next.run(call).await
}

async fn log(ctx: Context) -> Vec<String> {
    Log::of(&ctx).lines(|lines| lines.clone())
}

async fn note(ctx: Context, text: String) {
    Log::of(&ctx).add(text);
}

/// Filters refuse its calls or answer them.
async fn never_reached(ctx: Context) -> &'static str {
    Log::of(&ctx).add("never to be seen".into());
    "never to be seen"
}

async fn fail() -> Result<(), HubError> {
    Err(std::io::Error::other("the disk is full").into())
}

pub(crate) fn hub(path: &str) -> Hub {
    Hub::new(path)
        .on_connected(connected)
        .filter(guard)
        .filter(stand_in)
        .method("Log", log)
        .method("Note", note)
        .method("Forbidden", never_reached)
        .method("Absent", never_reached)
        .method("Fail", fail)
}
