//! Error texts for clients, identical to the official server's.

use trunkline_protocol::hub::HubProtocol;
use trunkline_protocol::limits::STREAMS_MAX;

use crate::error::{CallStage, HubError, InvokeError, UploadCutOff};

pub(crate) fn call_failed(target: &str, error: &HubError, detailed: bool) -> String {
    match error.stage() {
        CallStage::Invoking => invoking_failed(target, error, detailed),
        CallStage::Binding => binding_failed(target, error, detailed),
        CallStage::Authorizing => format!("Failed to invoke '{target}' because user is unauthorized"),
        CallStage::Refusing => error.message().to_owned(),
    }
}

pub(crate) fn invoking_failed(target: &str, error: &HubError, detailed: bool) -> String {
    error.describe(&format!("An unexpected error occurred invoking '{target}' on the server."), detailed)
}

/// With detailed errors, names the argument and the problem, unlike the official server.
fn binding_failed(target: &str, error: &HubError, detailed: bool) -> String {
    let text = error.describe(&format!("Failed to invoke '{target}' due to an error on the server."), detailed);
    match error.source() {
        Some(reason) if detailed => format!("{text} ({reason})"),
        _ => text,
    }
}

pub(crate) fn no_such_method() -> HubError {
    HubError::new("Method does not exist.").at(CallStage::Binding)
}

pub(crate) fn argument_count(provided: usize, expected: usize) -> HubError {
    HubError::invalid_data(format!("Invocation provides {provided} argument(s) but target expects {expected}."))
        .at(CallStage::Binding)
}

pub(crate) fn stream_count(provided: usize, expected: usize) -> HubError {
    HubError::new(format!("Client sent {provided} stream(s), Hub method expects {expected}."))
}

pub(crate) fn unauthorized(policy: &str) -> HubError {
    HubError::named("UnauthorizedException", format!("the policy is: {policy}")).at(CallStage::Authorizing)
}

pub(crate) fn unfit_argument(protocol: HubProtocol, argument: usize) -> HubError {
    const ADVICE: &str =
        "Make sure that the types of the provided values match the types of the hub method being invoked.";
    // The official server names the argument only with MessagePack.
    let text = match protocol {
        HubProtocol::Json => format!("Error binding arguments. {ADVICE}"),
        HubProtocol::MessagePack | HubProtocol::BlazorPack => format!("Error binding argument {argument}. {ADVICE}"),
    };
    HubError::invalid_data(text).at(CallStage::Binding)
}

pub(crate) fn not_streaming(target: &str) -> String {
    format!("The client attempted to invoke the non-streaming '{target}' method with a streaming invocation.")
}

pub(crate) fn streaming(target: &str) -> String {
    format!("The client attempted to invoke the streaming '{target}' method with a non-streaming invocation.")
}

pub(crate) fn streaming_failed(error: &HubError, detailed: bool) -> String {
    error.describe("An error occurred on the server while streaming results.", detailed)
}

pub(crate) fn no_stream(target: &str) -> String {
    format!("The value returned by the streaming method '{target}' is not a ChannelReader<> or IAsyncEnumerable<>.")
}

pub(crate) fn id_in_use(id: &str) -> String {
    format!("Invocation ID '{id}' is already in use.")
}

/// Text for a call with more streams than a client may have.
pub(crate) fn too_many_streams(provided: usize) -> String {
    format!("Client sent {provided} stream(s), at most {STREAMS_MAX} are allowed.")
}

pub(crate) fn item_not_bound() -> HubError {
    HubError::new("Failed to bind Stream message.")
}

pub(crate) fn upload_cut_off() -> HubError {
    HubError::named("OperationCanceledException", UploadCutOff.to_string()).because(UploadCutOff)
}

/// Text for a client if a policy of the hub refuses its user, modelled on the text for methods.
pub(crate) const CLOSED_UNAUTHORIZED: &str = "Connection closed because user is unauthorized.";

pub(crate) fn does_not_exist(connection_id: &str) -> String {
    InvokeError::DoesNotExist(connection_id.to_owned()).to_string()
}

/// Text for clients of a stopping app server.
pub(crate) fn leaving() -> String {
    InvokeError::Leaving.to_string()
}

pub(crate) fn disconnected(connection_id: &str) -> String {
    InvokeError::Disconnected(connection_id.to_owned()).to_string()
}

pub(crate) fn message_too_large(limit: usize) -> HubError {
    HubError::invalid_data(format!(
        "The maximum message size of {limit}B was exceeded. The message size can be configured by Hub::message_max_bytes."
    ))
}

#[cfg(test)]
mod tests {
    use trunkline_protocol::hub::CLOSED_WITH_ERROR;

    use super::*;

    #[test]
    fn the_text_of_a_failed_call_depends_on_the_failed_step() {
        let told = |error: HubError| call_failed("Add", &error, false);
        assert_eq!(
            told(HubError::new("no")),
            "An unexpected error occurred invoking 'Add' on the server. HubException: no"
        );
        assert_eq!(told(argument_count(1, 2)), "Failed to invoke 'Add' due to an error on the server.");
        assert_eq!(told(unauthorized("a user")), "Failed to invoke 'Add' because user is unauthorized");
        assert_eq!(told(HubError::refusal(streaming("Add"))), streaming("Add"));
    }

    #[test]
    fn texts_equal_the_official_ones() {
        assert_eq!(
            binding_failed("Nope", &no_such_method(), false),
            "Failed to invoke 'Nope' due to an error on the server. HubException: Method does not exist."
        );
        assert_eq!(
            binding_failed("Add", &argument_count(1, 2), false),
            "Failed to invoke 'Add' due to an error on the server."
        );
        assert_eq!(
            binding_failed("Add", &argument_count(1, 2), true),
            "Failed to invoke 'Add' due to an error on the server. InvalidDataException: Invocation provides 1 argument(s) but target expects 2."
        );
        assert_eq!(
            invoking_failed("Add", &stream_count(1, 0), false),
            "An unexpected error occurred invoking 'Add' on the server. HubException: Client sent 1 stream(s), Hub method expects 0."
        );
        assert_eq!(
            not_streaming("Add"),
            "The client attempted to invoke the non-streaming 'Add' method with a streaming invocation."
        );
        assert_eq!(
            streaming("Count"),
            "The client attempted to invoke the streaming 'Count' method with a non-streaming invocation."
        );
        assert_eq!(
            streaming_failed(&HubError::named("TimeoutException", "late"), false),
            "An error occurred on the server while streaming results."
        );
        assert_eq!(
            streaming_failed(&HubError::new("late"), false),
            "An error occurred on the server while streaming results. HubException: late"
        );
        assert_eq!(id_in_use("7"), "Invocation ID '7' is already in use.");
        assert_eq!(does_not_exist("c1"), "Connection 'c1' does not exist.");
        assert_eq!(disconnected("c1"), "Connection 'c1' disconnected.");
        assert_eq!(
            message_too_large(32768).describe(CLOSED_WITH_ERROR, true),
            "Connection closed with an error. InvalidDataException: The maximum message size of 32768B was exceeded. The message size can be configured by Hub::message_max_bytes."
        );
    }
}
