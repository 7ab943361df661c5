//! Calls received by a test client, and the wait of a test for one. It fails at the line of the test.

use std::fmt;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use serde::de::DeserializeOwned;
use trunkline_protocol::hub::{HubProtocol, Invocation, Payload};

use crate::naming::{Codec, Naming};
use crate::value::Value;

/// Maximum number of characters of an argument in the text of a failed test.
const SHOWN_CHARS: usize = 200;

/// A call from the hub to a client. `Debug` shows it in JSON style: `Said("ann", 5)`.
#[derive(Clone)]
pub struct Received {
    codec: Codec,
    pub(super) invocation: Invocation,
}

/// Arguments received by a client: a tuple of deserializable values, or `()` for none.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a tuple of arguments",
    note = "write one argument as `(argument,)`, and no arguments as `()`"
)]
pub trait FromArguments: sealed::SealedFromArguments + Sized {
    #[doc(hidden)]
    fn read(codec: Codec, payloads: &[Payload]) -> Result<Self, String>;
}

mod sealed {
    pub trait SealedFromArguments {}
}

impl Received {
    pub(super) fn new(codec: Codec, invocation: Invocation) -> Self {
        Self { codec, invocation }
    }

    /// Name of the called method.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.invocation.target
    }

    /// Deserializes the arguments. Their number must match exactly.
    ///
    /// # Errors
    /// A readable description, if the arguments do not fit.
    pub fn arguments<T: FromArguments>(&self) -> Result<T, String> {
        T::read(self.codec, &self.invocation.arguments)
    }

    /// Whether the hub expects a result; see [`TestClient::answer`](super::TestClient::answer) and
    /// [`TestClient::refuse`](super::TestClient::refuse).
    #[must_use]
    pub fn wants_result(&self) -> bool {
        self.invocation.invocation_id.is_some()
    }

    /// Deserializes the arguments, or returns the text of a failed test.
    pub(super) fn read<T: FromArguments>(&self) -> Result<T, String> {
        self.arguments().map_err(|problem| format!("{self:?} was received, but its arguments differ: {problem}"))
    }
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arguments: Vec<_> = self.invocation.arguments.iter().map(|payload| shown(self.codec, payload)).collect();
        write!(f, "{}({})", self.target(), arguments.join(", "))
    }
}

fn shown(codec: Codec, payload: &Payload) -> String {
    let plain = |protocol| Codec::new(protocol, Naming::Serde);
    let json = match codec.protocol {
        HubProtocol::Json => Ok(payload.clone()),
        binary => plain(binary).value::<Value>(payload).and_then(|value| plain(HubProtocol::Json).payload(&value)),
    };
    let text =
        json.map_or_else(|error| error.to_string(), |json| String::from_utf8_lossy(json.as_bytes()).into_owned());
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

fn wrong_number(wanted: usize, payloads: &[Payload]) -> String {
    format!("{wanted} arguments expected, {} received", payloads.len())
}

fn value<T: DeserializeOwned>(codec: Codec, payload: &Payload) -> Result<T, String> {
    codec.value(payload).map_err(|error| error.to_string())
}

macro_rules! count {
    () => { 0 };
    ($first:ident $($rest:ident)*) => { 1 + count!($($rest)*) };
}

macro_rules! tuple_from_arguments {
    ($($name:ident),*) => {
        impl<$($name: DeserializeOwned),*> sealed::SealedFromArguments for ($($name,)*) {}
        impl<$($name: DeserializeOwned),*> FromArguments for ($($name,)*) {
            #[expect(non_snake_case, reason = "types and values share their names in the macro")]
            fn read(codec: Codec, payloads: &[Payload]) -> Result<Self, String> {
                let [$($name),*] = payloads else {
                    return Err(wrong_number(count!($($name)*), payloads));
                };
                Ok(($(value(codec, $name)?,)*))
            }
        }
    };
}

impl sealed::SealedFromArguments for () {}
impl FromArguments for () {
    fn read(_codec: Codec, payloads: &[Payload]) -> Result<Self, String> {
        if payloads.is_empty() { Ok(()) } else { Err(wrong_number(0, payloads)) }
    }
}
tuple_from_arguments!(A);
tuple_from_arguments!(A, B);
tuple_from_arguments!(A, B, C);
tuple_from_arguments!(A, B, C, D);
tuple_from_arguments!(A, B, C, D, E);
tuple_from_arguments!(A, B, C, D, E, F);
tuple_from_arguments!(A, B, C, D, E, F, G);
tuple_from_arguments!(A, B, C, D, E, F, G, H);
tuple_from_arguments!(A, B, C, D, E, F, G, H, I);
tuple_from_arguments!(A, B, C, D, E, F, G, H, I, J);

/// Awaits a call to a test client and returns its arguments; created by
/// [`TestClient::expect`](super::TestClient::expect) and similar methods.
#[must_use = "nothing is expected until this is awaited"]
pub struct Expected<'a, T> {
    waiting: Pin<Box<dyn Future<Output = Result<T, String>> + Send + 'a>>,
    asked_at: &'static Location<'static>,
}

impl<'a, T> Expected<'a, T> {
    #[track_caller]
    pub(super) fn new(waiting: impl Future<Output = Result<T, String>> + Send + 'a) -> Self {
        Self { waiting: Box::pin(waiting), asked_at: Location::caller() }
    }
}

impl<T> Future for Expected<'_, T> {
    type Output = T;

    // The caller is the `.await` in the test, so the test fails there.
    #[track_caller]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let problem = match ready!(self.waiting.as_mut().poll(cx)) {
            Ok(arguments) => return Poll::Ready(arguments),
            Err(problem) => problem,
        };
        // The line differs if the future is wrapped, for example by `tokio::join!`.
        match Location::caller().file() == self.asked_at.file() {
            true => panic!("{problem}"),
            false => panic!("{problem} (expected at {})", self.asked_at),
        }
    }
}

impl<T> fmt::Debug for Expected<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expected").field("asked_at", &self.asked_at).finish_non_exhaustive()
    }
}
