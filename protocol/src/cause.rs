//! Causes of ended and refused client connections, shared by metrics, logs, hooks and the admin port at both ends.
//!
//! Labels are stable. Texts are for people and may change.

use std::fmt;

/// Whether a cause ends connections, refuses new ones, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Closes,
    Refuses,
    Both,
}

macro_rules! causes {
    ($($name:ident $label:literal $stage:ident $text:literal)*) => {
        /// Cause of a client connection that ended or was refused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Cause {
            $(#[doc = concat!("`", $label, "`: ", $text, ".")] $name,)*
        }

        const TABLE: &[(Cause, &str, Stage, &str)] = &[$((Cause::$name, $label, Stage::$stage, $text),)*];
    };
}

causes! {
    ClientClosed "client_closed" Both "the client closed the connection"
    SocketEnded "socket_ended" Both "the client's socket was closed without a close message"
    SocketReset "socket_reset" Both "the client's socket was reset or failed"
    TlsFailed "tls_failed" Both "TLS with the client failed"
    PollsStopped "polls_stopped" Both "the client stopped polling: see --disconnect-timeout"
    WebsocketProtocol "websocket_protocol" Both "the client violated the WebSocket protocol"
    HubProtocol "hub_protocol" Closes "the client sent an invalid message of its hub protocol"
    MessageTooLarge "message_too_large" Closes "a message of the client exceeded the limit of its hub or --message-max-bytes"
    MessageTimeout "message_timeout" Closes "a message of the client was incomplete for 30 s, or arrived too slowly"
    UnfinishedTotal "unfinished_total" Closes "incomplete messages of all clients used too much memory, and this client's was among the largest: see --unfinished-total-max-bytes"
    HeadsTotal "heads_total" Both "the request heads of all clients used too much memory, and this client's app or address had the most: see --heads-total-max-bytes"
    GroupNamesTotal "group_names_total" Closes "the names of all groups used too much memory, and this client's groups had the most of its hub: see --group-names-total-max-bytes"
    TextInvalid "text_invalid" Closes "the client sent text that is not UTF-8"
    KeepAliveTimeout "keep_alive_timeout" Closes "the client sent no message or ping within the timeout of its hub"
    SlowClient "slow_client" Closes "the client read too slowly: see --outbox-max-bytes and --slow-client-timeout"
    OutboxTotal "outbox_total" Closes "the outboxes of all clients were over their total limit, and this client's was among the largest: see --outbox-total-max-bytes"
    TokenExpired "token_expired" Closes "the client's access token has expired"
    AppClosed "app_closed" Closes "the app closed the connection"
    AppError "app_error" Closes "the app failed: a hook or a handler returned an error, or panicked"
    PolicyRefused "policy_refused" Closes "a policy of the hub refused the user"
    AppHandshakeTimeout "app_handshake_timeout" Closes "the app server did not answer the hub handshake in time"
    AppHandshakeRefused "app_handshake_refused" Closes "the app server refused the hub handshake"
    AppFrameSkipped "app_frame_skipped" Closes "a message for the client could not be forwarded: malformed, or over the limit of 17 MiB for a link"
    AppStopped "app_stopped" Closes "the app server stopped"
    Ordered "ordered" Closes "another app server closed the connection"
    IdInUse "id_in_use" Closes "the connection id is in use at another node"
    LinkLost "link_lost" Closes "the link between proxy and app server was lost for too long"
    NoAppServer "no_app_server" Both "no app server was available: see --hold-timeout"
    Drained "drained" Both "the node stopped"
    NodeStarting "node_starting" Refuses "the node had not read its store yet: see --nats"
    Operator "operator" Closes "an operator closed the connection through the admin port"
    Unnamed "unnamed" Closes "the proxy gave no reason"
    Superseded "superseded" Closes "a newer connection has the same id"
    Rebalanced "rebalanced" Closes "a rebalance made the client leave its node"
    HandshakeTimeout "handshake_timeout" Refuses "the client sent no hub handshake in time"
    HandshakeInvalid "handshake_invalid" Refuses "the client's first message is not a hub handshake"
    HandshakeTooLarge "handshake_too_large" Refuses "the client's hub handshake is too large"
    HandshakeUnsupported "handshake_unsupported" Refuses "the client requested a hub protocol that the hub or the transport does not support"
    ProxyHeaderInvalid "proxy_header_invalid" Refuses "the PROXY protocol header was missing, late or invalid"
    HeadTimeout "head_timeout" Refuses "the head of the request took too long: see --header-timeout"
    HeadTooLarge "head_too_large" Refuses "the head of the request was too large: see --head-max-bytes and --heads-total-max-bytes"
    BodyTooLarge "body_too_large" Refuses "the body of the request was too large: see --body-max-bytes"
    BodyTimeout "body_timeout" Refuses "the body of the request stalled or arrived too slowly: see --body-timeout"
    RequestInvalid "request_invalid" Refuses "the request was malformed, or of a kind that is not served there"
    LimitConnections "limit_connections" Refuses "the node had reached its limit of connections: see --connections-max"
    LimitAddress "limit_address" Refuses "the address had reached its limit of connections: see --connections-per-address-max"
    LimitConnects "limit_connects" Refuses "too many clients connected within a second: see --connects-per-second"
    LimitPending "limit_pending" Refuses "too many negotiations of the address were not followed by a connection: see --pending-per-address-max"
    LimitPipes "limit_pipes" Refuses "too many connections were opened by a POST and waited for their first GET"
    LimitPassThrough "limit_pass_through" Refuses "too many requests to the app were in flight: see --pass-through-max, --pass-through-per-address-max and --pass-through-per-upstream-max"
    LimitResets "limit_resets" Refuses "the client reset too many HTTP/2 requests"
    LimitDescriptors "limit_descriptors" Refuses "the process had no file descriptor left: raise its limit of open files"
    TokenRefused "token_refused" Refuses "the access token was missing or invalid"
    TokenRevoked "token_revoked" Both "an operator has revoked the access token, or all tokens of its user: see `trunkline revoke`"
    OriginRefused "origin_refused" Refuses "the origin of the page is not allowed: see --allow-origin"
    RouteRefused "route_refused" Refuses "a route of the configuration file rejects the client"
    AppRefused "app_refused" Refuses "the app refused the client at negotiate"
    AppUnreachable "app_unreachable" Refuses "the app could not be reached, or gave no answer"
    NodeUnreachable "node_unreachable" Refuses "the node that has the connection is up, but could not be reached"
    PathUnknown "path_unknown" Refuses "no hub is served at that path"
    IdUnknown "id_unknown" Refuses "the connection token is invalid here, or its connection has ended"
    IdUsed "id_used" Refuses "the connection token was used before"
    TransportRefused "transport_refused" Refuses "the hub does not offer the transport, or the connection uses another one"
}

impl Cause {
    /// Number of causes, an upper bound of [`index`](Self::index).
    pub const COUNT: usize = TABLE.len();

    /// All causes. The order is stable within a build.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|(cause, ..)| *cause)
    }

    /// Index among all causes.
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }

    /// Name in metrics, logs and answers.
    #[must_use]
    pub fn label(self) -> &'static str {
        self.row().map_or("unknown", |(_, label, ..)| label)
    }

    /// Human-readable meaning of the cause.
    #[must_use]
    pub fn text(self) -> &'static str {
        self.row().map_or("", |(.., text)| text)
    }

    /// Looks up a cause by label. Returns `None` for labels of newer versions.
    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        TABLE.iter().find(|(_, known, ..)| *known == label).map(|(cause, ..)| *cause)
    }

    /// Whether the cause ends open connections.
    #[must_use]
    pub fn closes(self) -> bool {
        self.row().is_some_and(|(_, _, stage, _)| *stage != Stage::Refuses)
    }

    /// Whether the cause prevents connections from opening.
    #[must_use]
    pub fn refuses(self) -> bool {
        self.row().is_some_and(|(_, _, stage, _)| *stage != Stage::Closes)
    }

    /// Whether the default log shows the cause, because it concerns the fleet or an app. Not routine connects,
    /// disconnects and rule violations, with which outsiders could flood the log.
    #[must_use]
    pub fn is_notable(self) -> bool {
        use Cause as C;
        matches!(
            self,
            C::SlowClient
                | C::OutboxTotal
                | C::UnfinishedTotal
                | C::HeadsTotal
                | C::GroupNamesTotal
                | C::AppError
                | C::AppHandshakeTimeout
                | C::AppHandshakeRefused
                | C::IdInUse
                | C::Operator
        )
    }

    /// Whether the default log shows some occurrences, within a separate budget: mistakes that client developers look
    /// for, but outsiders can trigger.
    #[must_use]
    pub fn is_mistake(self) -> bool {
        matches!(self, Self::MessageTooLarge)
    }

    fn row(self) -> Option<&'static (Self, &'static str, Stage, &'static str)> {
        TABLE.get(self.index())
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// Lets a socket report why it ended.
impl std::error::Error for Cause {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_cause_has_a_unique_label() {
        let labels: BTreeSet<_> = Cause::all().map(Cause::label).collect();
        assert_eq!(labels.len(), Cause::COUNT);
        for cause in Cause::all() {
            assert_eq!(Cause::from_label(cause.label()), Some(cause));
            assert!(cause.label().chars().all(|char| char.is_ascii_lowercase() || char == '_'), "{cause}");
            assert!(cause.closes() || cause.refuses());
        }
        assert_eq!(Cause::from_label("a newer one"), None);
    }

    #[test]
    fn some_causes_only_end_and_some_only_refuse() {
        assert!(Cause::SlowClient.closes() && !Cause::SlowClient.refuses());
        assert!(Cause::OriginRefused.refuses() && !Cause::OriginRefused.closes());
        assert!(Cause::Drained.refuses() && Cause::Drained.closes());
    }
}
