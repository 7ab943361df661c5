//! Methods that return their argument or describe how they read it.

use trunkline::value::{Binary, Timestamp, Value};
use trunkline::{Hub, HubError};

use super::gate::Gate;

async fn echo(value: Value) -> Value {
    value
}

async fn echo_unsigned(number: u64) -> u64 {
    number
}

async fn echo_signed(number: i64) -> i64 {
    number
}

async fn unsigned_in_words(number: u64) -> String {
    number.to_string()
}

/// Tests only the direction to the client. The text may be any number that a client can write.
async fn unsigned_of_words(text: String) -> Result<u64, HubError> {
    Ok(text.parse()?)
}

async fn echo_binary(bytes: Binary) -> Binary {
    bytes
}

async fn length(bytes: Binary) -> usize {
    bytes.len()
}

async fn unix_seconds(moment: Timestamp) -> i64 {
    moment.unix_seconds()
}

async fn echo_moment(moment: Timestamp) -> Timestamp {
    moment
}

async fn is_nothing(value: Option<String>) -> bool {
    value.is_none()
}

pub(crate) fn methods(hub: Hub<Gate>) -> Hub<Gate> {
    hub.method("Echo", echo)
        .method("EchoUnsigned", echo_unsigned)
        .method("EchoSigned", echo_signed)
        .method("UnsignedInWords", unsigned_in_words)
        .method("UnsignedOfWords", unsigned_of_words)
        .method("EchoBinary", echo_binary)
        .method("Length", length)
        .method("UnixSeconds", unix_seconds)
        .method("EchoMoment", echo_moment)
        .method("IsNothing", is_nothing)
}
