//! Encoding of hub messages, once per hub protocol.

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use serde::Serialize;
use trunkline_protocol::hub::{
    Completion, Headers, HubMessage, HubProtocol, Invocation, Outcome, Payload, PayloadError, StreamItem,
};
use trunkline_protocol::service::Payloads;

use crate::error::SendError;
use crate::naming::{Codec, Naming};
use crate::telemetry;

/// Arguments of a client call: a tuple of serializable values, or `()` for none.
///
/// ```
/// # use trunkline::{Context, HubError};
/// # async fn f(ctx: Context) -> Result<(), HubError> {
/// let all = ctx.clients().all();
/// all.send("Tick", ()).await?;
/// all.send("Online", ("ann",)).await?; // one argument: mind the comma
/// all.send("ReceiveMessage", ("ann", "hello")).await?;
/// # Ok(()) }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a tuple of arguments",
    label = "not a tuple of values that can be serialized",
    note = "write one argument as `(argument,)`, and no arguments as `()`"
)]
pub trait Arguments: sealed::SealedArguments + Send {
    #[doc(hidden)]
    fn payloads(&self, codec: Codec) -> Result<Vec<Payload>, PayloadError>;
}

mod sealed {
    pub trait SealedArguments {}
}

macro_rules! tuple_of_arguments {
    ($($name:ident),*) => {
        impl<$($name: Serialize + Send),*> sealed::SealedArguments for ($($name,)*) {}
        impl<$($name: Serialize + Send),*> Arguments for ($($name,)*) {
            #[expect(non_snake_case, reason = "types and values share their names in the macro")]
            fn payloads(&self, codec: Codec) -> Result<Vec<Payload>, PayloadError> {
                let ($($name,)*) = self;
                Ok(vec![$(codec.payload($name)?),*])
            }
        }
    };
}

impl sealed::SealedArguments for () {}
impl Arguments for () {
    fn payloads(&self, _codec: Codec) -> Result<Vec<Payload>, PayloadError> {
        Ok(Vec::new())
    }
}
tuple_of_arguments!(A);
tuple_of_arguments!(A, B);
tuple_of_arguments!(A, B, C);
tuple_of_arguments!(A, B, C, D);
tuple_of_arguments!(A, B, C, D, E);
tuple_of_arguments!(A, B, C, D, E, F);
tuple_of_arguments!(A, B, C, D, E, F, G);
tuple_of_arguments!(A, B, C, D, E, F, G, H);
tuple_of_arguments!(A, B, C, D, E, F, G, H, I);
tuple_of_arguments!(A, B, C, D, E, F, G, H, I, J);

/// Encodes an invocation in each of the protocols, with an ID if a result is requested.
pub(crate) fn invocation(
    method: &str,
    arguments: &impl Arguments,
    naming: Naming,
    protocols: &[HubProtocol],
    invocation_id: Option<&ByteString>,
) -> Result<Payloads, SendError> {
    let (target, headers) = (ByteString::from(method), telemetry::current_headers());
    let mut payloads = Vec::with_capacity(protocols.len());
    for &protocol in protocols {
        let arguments = arguments.payloads(Codec::new(protocol, naming)).map_err(SendError::Encode)?;
        let (headers, target, invocation_id) = (headers.clone(), target.clone(), invocation_id.cloned());
        let invocation = Invocation { headers, invocation_id, target, arguments, stream_ids: Vec::new() };
        let bytes = message(protocol, &HubMessage::Invocation(invocation));
        payloads.push((ByteString::from_static(protocol.name()), bytes));
    }
    Ok(Payloads(payloads))
}

pub(crate) fn item(protocol: HubProtocol, invocation_id: ByteString, item: Payload) -> Bytes {
    message(protocol, &HubMessage::StreamItem(StreamItem { headers: Vec::new(), invocation_id, item }))
}

pub(crate) fn completion(
    protocol: HubProtocol,
    headers: Headers,
    invocation_id: ByteString,
    outcome: Outcome,
) -> Bytes {
    message(protocol, &HubMessage::Completion(Completion { headers, invocation_id, outcome }))
}

pub(crate) fn message(protocol: HubProtocol, message: &HubMessage) -> Bytes {
    let mut out = BytesMut::new();
    protocol.encode(message, &mut out);
    out.freeze()
}
