//! All tests of the official suite: the cases run here, and the reasons for the others.
//!
//! Counted as the suite does in Node: a name counts once per transport and hub protocol.

use std::collections::BTreeSet;

use super::{connection, hub_connection, over_https};
use Reason::NothingToPlay;

/// Reason why a test is not run here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// The suite itself skips the test, or does nothing in Node.
    NothingToPlay,
}

/// Test name in the suite.
struct Listed {
    name: &'static str,
    /// Number of runs here.
    here: usize,
    /// Number of additional runs over HTTPS.
    over_https: usize,
    /// Reasons for the other runs, with their number.
    elsewhere: &'static [(Reason, usize)],
}

const fn here(name: &'static str, here: usize) -> Listed {
    Listed { name, here, over_https: 0, elsewhere: &[] }
}

const fn waits(name: &'static str, elsewhere: &'static [(Reason, usize)]) -> Listed {
    Listed { name, here: 0, over_https: 0, elsewhere }
}

const fn over_https(name: &'static str, over_https: usize) -> Listed {
    Listed { name, here: 0, over_https, elsewhere: &[] }
}

/// Case that runs with JSON over each transport, and with MessagePack over all except server-sent events.
const fn in_matrix(name: &'static str) -> Listed {
    here(name, 5)
}

/// Case that runs once per transport.
const fn by_transport(name: &'static str) -> Listed {
    here(name, 3)
}

const SUITE: &[Listed] = &[
    in_matrix("can_invoke_server_method_and_receive_result"),
    over_https("can_invoke_server_method_over_https_and_receive_result", 5),
    in_matrix("can_invoke_server_method_non_blocking_and_not_receive_result"),
    in_matrix("can_invoke_server_method_structural_object_and_receive_structural_result"),
    in_matrix("can_stream_server_method_and_receive_result"),
    in_matrix("can_stream_server_method_and_cancel_stream"),
    in_matrix("rethrows_an_exception_from_the_server_when_streaming"),
    in_matrix("rethrows_an_exception_from_the_server_when_invoking"),
    in_matrix("throws_an_exception_when_invoking_streaming_method_with_invoke_empty_stream"),
    in_matrix("throws_an_exception_when_invoking_streaming_method_with_invoke_stream"),
    in_matrix("throws_an_exception_when_streaming_a_non_streaming_method"),
    in_matrix("can_receive_server_calls"),
    in_matrix("can_receive_server_calls_without_rebinding_handlers_when_restarted"),
    waits("closed_with_error_if_hub_cannot_be_created", &[(NothingToPlay, 5)]),
    in_matrix("can_handle_different_types"),
    in_matrix("can_receive_different_types"),
    in_matrix("can_be_restarted"),
    in_matrix("can_stream_from_client_to_server"),
    in_matrix("can_stream_from_client_to_server_and_close_with_error"),
    in_matrix("can_return_result_to_server"),
    in_matrix("can_throw_result_to_server"),
    in_matrix("can_give_no_result_to_server"),
    by_transport("can_connect_to_hub_with_authorization"),
    by_transport("can_connect_to_hub_with_authorization_using_async_token_factory"),
    by_transport("error_message_from_unauthorized_connection"),
    here("terminates_if_no_messages_received_within_timeout_interval", 2),
    over_https("preserves_cookies_between_requests", 3),
    by_transport("expired_cookies_are_not_preserved"),
    by_transport("can_reconnect"),
    by_transport("can_change_url_in_reconnecting_state"),
    here("can_reconnect_after_negotiate_redirect", 1),
    here("can_reconnect_after_skipping_negotiation", 1),
    here("connection_id_matches_server_side_connection_id", 1),
    here("connection_id_is_always_null_if_negotiation_is_skipped", 1),
    // Only in browsers, so not counted.
    waits("allows_server_sent_events_when_negotiating_for_json_protocol", &[]),
    here("skips_server_sent_events_when_negotiating_for_message_pack_protocol", 1),
    here("transport_falls_back_from_web_sockets", 1),
    here("over_long_polling_it_sends_delete_request_and_waits_for_poll_to_terminate", 1),
    by_transport("sets_the_user_agent_header"),
    by_transport("overwrites_library_headers_with_user_headers"),
    here("can_connect_to_the_server_without_specifying_transport_explicitly", 1),
    by_transport("can_send_and_receive_messages"),
    by_transport("does_not_log_content_of_messages_sent_or_received_by_default"),
    by_transport("does_log_content_of_messages_sent_or_received_when_enabled"),
    // Only in browsers, so not counted.
    waits("honors_with_credentials_flag", &[]),
    here("follows_http_redirects", 1),
    here("contains_server_response_in_error", 1),
    here("can_be_used_to_connect_to_signalr_endpoint", 1),
    waits("can_use_client_in_web_worker", &[(NothingToPlay, 1)]),
];

fn elsewhere(of: impl Fn(Reason) -> bool) -> usize {
    SUITE.iter().flat_map(|listed| listed.elsewhere).filter(|(reason, _)| of(*reason)).map(|(_, tests)| tests).sum()
}

fn cases() -> impl Iterator<Item = &'static str> {
    hub_connection::CASES.iter().chain(connection::CASES).chain(over_https::CASES).map(|case| case.name)
}

#[test]
fn each_name_is_listed_once_and_each_is_either_a_case_here_or_waits() {
    let all: BTreeSet<&str> = SUITE.iter().map(|listed| listed.name).collect();
    assert_eq!(all.len(), SUITE.len());
    let cases: BTreeSet<&str> = cases().collect();
    assert_eq!(cases.len(), self::cases().count());
    let listed: BTreeSet<&str> =
        SUITE.iter().filter(|listed| listed.here + listed.over_https > 0).map(|listed| listed.name).collect();
    assert_eq!(cases, listed);
}

#[test]
fn the_list_has_all_tests_of_the_suite() {
    let here: usize = SUITE.iter().map(|listed| listed.here).sum();
    let over_https: usize = SUITE.iter().map(|listed| listed.over_https).sum();
    assert_eq!((here + elsewhere(|_| true), over_https), (152, 8));
    // The suite has no cases for the rest.
    assert_eq!((cases().count(), here), (45, 146));
}
