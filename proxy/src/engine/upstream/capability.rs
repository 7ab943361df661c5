//! Capabilities of links and hubs, chosen by the constructor of a link and the origin of a hub.
//!
//! | link | dialled | dialled in | in memory |
//! |---|---|---|---|
//! | `confirms_hand_over` | yes | | yes |
//! | `names_callers` | yes | | yes |
//! | `sends_to_all_nodes` | yes | | yes |
//! | `closes_clients_on_stop` | | yes | |
//! | `ends_clients_with_link` | | yes | |
//! | `may_send_early` | | yes | |
//! | `measures_silence` | | yes | |
//! | `moves_between_links` | | yes | |
//! | `takes_reconnects` | | yes | |
//!
//! An in-memory link leads to the app that embeds this node, or to a webhook.
//!
//! | hub | of a manifest | of dial-in | with a webhook |
//! |---|---|---|---|
//! | `confirms_hand_over` | yes | | |
//! | `has_server_groups` | yes | | |
//! | `names_callers` | yes | | |
//! | `sends_to_all_nodes` | yes | | |
//! | `takes_crash_notices` | yes | | |
//! | `takes_private_headers` | yes | | |
//! | `takes_user_tokens` | yes | | |
//! | `announces_links` | | yes | yes |
//! | `takes_blazor_pack` | | yes | yes |
//! | `tokens_hold_terms` | | yes | yes |
//! | `takes_service_claims` | | yes | |
//!
//! Capabilities negotiated when a link opens, such as moves and traces, are in its [`LinkHandle`](super::LinkHandle).

/// Capabilities of the app server at the other end of a link.
#[derive(Debug)]
pub(crate) struct LinkCapabilities {
    /// Answers a request to hand a client over. Otherwise the node watches the client's calls.
    pub confirms_hand_over: bool,
    /// Client results name the app server that invoked the client. Otherwise the node keeps the caller.
    pub names_callers: bool,
    /// Sends to all nodes and stamps its sends with epochs. Otherwise nodes relay and stamp them.
    pub sends_to_all_nodes: bool,
    /// Sends each client a close message when it stops, which the node replaces by another app server.
    pub closes_clients_on_stop: bool,
    /// Ends the clients of a lost link.
    pub ends_clients_with_link: bool,
    /// Its sends to a client may arrive before its answer to the client's hub handshake.
    pub may_send_early: bool,
    /// Measures the silence of clients, and needs their pings.
    pub measures_silence: bool,
    /// Clients may continue on another link of the same app server, after a pause and a resume.
    pub moves_between_links: bool,
    /// Stops sending results and stream items to a client that is paused. Other app servers wait for marks instead.
    pub pauses_output: bool,
    /// Drops a partial message of a client when the client reconnects.
    pub takes_reconnects: bool,
}

impl LinkCapabilities {
    /// Link that the node has dialled, over a network or in memory.
    pub(super) const DIALLED: Self = Self {
        confirms_hand_over: true,
        names_callers: true,
        sends_to_all_nodes: true,
        closes_clients_on_stop: false,
        ends_clients_with_link: false,
        may_send_early: false,
        measures_silence: false,
        moves_between_links: false,
        pauses_output: false,
        takes_reconnects: false,
    };

    /// Link that the app server has dialled.
    pub(super) const DIALLED_IN: Self = Self {
        confirms_hand_over: false,
        names_callers: false,
        sends_to_all_nodes: false,
        closes_clients_on_stop: true,
        ends_clients_with_link: true,
        may_send_early: true,
        measures_silence: true,
        moves_between_links: true,
        pauses_output: true,
        takes_reconnects: true,
    };
}

/// Capabilities of a hub. Its app servers are all of one kind.
#[derive(Debug)]
pub(crate) struct HubCapabilities {
    /// A stopping app server is asked to hand its clients over, and answers for each.
    pub confirms_hand_over: bool,
    /// App servers belong to groups, and routes choose among them.
    pub has_server_groups: bool,
    pub names_callers: bool,
    pub sends_to_all_nodes: bool,
    /// App servers are notified of crashed nodes.
    pub takes_crash_notices: bool,
    /// App servers receive the headers of Trunkline.
    pub takes_private_headers: bool,
    /// Clients use access tokens of the app. Otherwise they use tokens for the service.
    pub takes_user_tokens: bool,
    /// Nodes announce the links of its app servers to each other.
    pub announces_links: bool,
    /// Clients may speak the hub protocol of Blazor circuits.
    pub takes_blazor_pack: bool,
    /// Client tokens contain terms: transports, timeouts, error details.
    pub tokens_hold_terms: bool,
    /// App servers read the service's claims in a client's token.
    pub takes_service_claims: bool,
}

impl HubCapabilities {
    /// Hub of a manifest.
    pub(super) const MANIFEST: Self = Self {
        confirms_hand_over: true,
        has_server_groups: true,
        names_callers: true,
        sends_to_all_nodes: true,
        takes_crash_notices: true,
        takes_private_headers: true,
        takes_user_tokens: true,
        announces_links: false,
        takes_blazor_pack: false,
        tokens_hold_terms: false,
        takes_service_claims: false,
    };

    /// Hub with app servers that dial in.
    pub(super) const DIAL_IN: Self = Self { takes_service_claims: true, ..Self::WEBHOOK };

    /// Hub with a webhook in place of app servers.
    pub(super) const WEBHOOK: Self = Self {
        confirms_hand_over: false,
        has_server_groups: false,
        names_callers: false,
        sends_to_all_nodes: false,
        takes_crash_notices: false,
        takes_private_headers: false,
        takes_user_tokens: false,
        announces_links: true,
        takes_blazor_pack: true,
        tokens_hold_terms: true,
        takes_service_claims: false,
    };
}
