//! Names on the wire: paths, query parameters, headers, claims and close codes that both ends use.
//!
//! Each is defined only here. Session data of a link travels in headers of the upgrade, because Azure's SDK can't
//! handle unknown frame fields.

// Paths and query parameters.

/// Path prefix of an app server's internal routes. A proxy never forwards client requests below it.
pub const PRIVATE_PREFIX: &str = "/.trunkline/";
/// Path for opening a channel. The paths below are reachable only inside a channel.
pub const CHANNEL_PATH: &str = "/.trunkline/channel";
/// Path of the manifest.
pub const MANIFEST_PATH: &str = "/.trunkline/manifest";
/// Path for opening links.
pub const LINK_PATH: &str = "/.trunkline/link";
/// Path of authorization requests: a proxy asks an app server to decide about a negotiating client.
pub const NEGOTIATE_PATH: &str = "/.trunkline/negotiate";
/// Path at which a node requests the id of a connection token from its owner, once. The token is in the query.
pub const RESERVE_PATH: &str = "/.trunkline/reserve";
/// Path at which a stopping node asks a connection's owner to end the GET that it forwards. The token is in the query.
/// Older owners answer 404, and the GET continues.
pub const RELEASE_PATH: &str = "/.trunkline/release";
/// Admin port path at which two nodes exchange greetings.
pub const FLEET_GREET_PATH: &str = "/.trunkline/fleet/greet";
/// Admin port path at which a node opens a node link.
pub const FLEET_LINK_PATH: &str = "/.trunkline/fleet/link";
/// Query parameter of [`LINK_PATH`] and [`NEGOTIATE_PATH`] with the name of the hub.
pub const HUB_PARAMETER: &str = "hub";
/// Suffix of a hub's path for negotiate requests.
pub const NEGOTIATE_SUFFIX: &str = "/negotiate";
/// Query parameter of a client's later requests with its connection token.
pub const CONNECTION_TOKEN_PARAMETER: &str = "id";
/// Query parameter with an access token, because browsers can't set headers for WebSockets and event streams.
pub const ACCESS_TOKEN_PARAMETER: &str = "access_token";

/// `User-Agent` of all requests from nodes, apps and commands. Some firewalls reject requests without one.
pub const AGENT: &str = concat!("trunkline/", env!("CARGO_PKG_VERSION"));

// Headers reserved for the fleet.

/// Prefix of the fleet's internal headers, in lower case. A proxy removes them from client requests.
pub const PRIVATE_HEADER_PREFIX: &str = "x-trunkline-";
/// Prefix of Azure SignalR service headers, in lower case. A proxy removes them from client requests.
pub const SERVICE_HEADER_PREFIX: &str = "asrs-";
/// Prefix of headers of webhook events and dial-in app servers, in lower case. A proxy removes them from client
/// requests.
pub const SERVICE_EVENT_HEADER_PREFIX: &str = "x-asrs-";
/// Header of a channel's upgrade and its response with a handshake message.
pub const HELLO_HEADER: &str = "x-trunkline-hello";
/// Header of a channel's upgrade: the public tag of the key that its hello was made with.
pub const KEY_TAG_HEADER: &str = "x-trunkline-key-tag";
/// Header of an authorization request with path and query of the client's request.
pub const CLIENT_URI_HEADER: &str = "x-trunkline-uri";
/// Header of an authorization request with the client's `Authorization`.
pub const CLIENT_AUTHORIZATION_HEADER: &str = "x-trunkline-authorization";
/// Header of an authorization request with the user verified by the proxy, encoded by
/// [`User::to_header`](crate::access_token::User::to_header).
pub const USER_HEADER: &str = "x-trunkline-user";
/// Header of an app server's refusals with the reason as a word such as [`REFUSED_KEY`]. A refusal without it does not
/// come from the SDK, but from something in front of it.
pub const REFUSAL_HEADER: &str = "x-trunkline-refusal";
/// Refusal of a peer without a key of this fleet.
pub const REFUSED_KEY: &str = "access-key";
/// Refusal of a peer on another machine by an app server that has only the development key.
pub const REFUSED_DEVELOPMENT_KEY: &str = "development-key";
/// Header of an authorization request and of an open frame with the client's address and port.
pub const REMOTE_HEADER: &str = "x-trunkline-remote";
/// Header of every response of a node with its name.
pub const NODE_HEADER: &str = "x-trunkline-node";
/// Header of an open frame with the client's transport.
pub const TRANSPORT_HEADER: &str = "x-trunkline-transport";
/// Header of an open frame that reassigns a connection, with the previous app server's instance.
pub const MIGRATE_FROM_HEADER: &str = "Asrs-Migrate-From";
/// Header of a close frame: the connection is reassigned to another app server and has not ended.
pub const MIGRATE_TO_HEADER: &str = "Asrs-Migrate-To";
/// Header of a close frame with an empty [`MIGRATE_TO_HEADER`]: hand the connection over only if it is idle; otherwise
/// it stays and its client is read again.
pub const IF_IDLE_HEADER: &str = "x-trunkline-if-idle";
/// Header of open and close frames with the items that the app hands over with a connection, as text.
pub const ITEMS_HEADER: &str = "x-trunkline-items";
/// Header of a close frame with its [`Cause`](crate::cause::Cause), for peers with this capability.
pub const CAUSE_HEADER: &str = "x-trunkline-cause";
/// Header of an open frame that reports an end: another app server's connection has ended for this
/// [`Cause`](crate::cause::Cause). No close frame follows.
pub const ENDED_HEADER: &str = "x-trunkline-ended";
/// Header with the error of an end, sent with [`ENDED_HEADER`].
pub const ENDED_ERROR_HEADER: &str = "x-trunkline-ended-error";
/// Header of a request forwarded between nodes with a sealed [`ForwardMark`](crate::token::ForwardMark).
pub const FORWARD_HEADER: &str = "x-trunkline-forward";
/// Header of a link's upgrade with the node's boot id, which changes on restart.
pub const BOOT_HEADER: &str = "x-trunkline-boot";
/// Header of a link's upgrade with the wanted app server instance; another one answers 409.
pub const INSTANCE_HEADER: &str = "x-trunkline-instance";
/// Header of a link's upgrade with its slot in the pool, from 0.
pub const SLOT_HEADER: &str = "x-trunkline-slot";
/// Header of a link's upgrade with its session, a number that increases in its slot.
pub const SESSION_HEADER: &str = "x-trunkline-session";
/// Header of a link's upgrade and its response with the last frame taken in the session; absent if the session was
/// never attached.
pub const RECEIVED_HEADER: &str = "x-trunkline-received";
/// Header of a link's upgrade and its response with comma-separated capabilities of this end:
/// - `resume=BYTES`: resumes sessions, with this ring size.
/// - `causes`: close frames may carry a [`CAUSE_HEADER`].
/// - `members` (proxy): answers group member queries.
/// - `presence` (proxy): reports presence, and lists a user's connections.
/// - `handovers`: a proxy keeps reading from a client on its app server's request; an app server accepts open frames
///   with an [`ENDED_HEADER`], and supports [`IF_IDLE_HEADER`].
/// - `moves`: client connections may move to another node.
/// - `client-flow=BYTES`: flow control for messages to one client, with the maximum size that this end accepts or
///   sends.
pub const CAPABILITIES_HEADER: &str = "x-trunkline-capabilities";

// Headers of load balancers.

/// Load balancer header with the addresses that a request passed through, the client's first.
pub const FORWARDED_FOR_HEADER: &str = "x-forwarded-for";
/// Load balancer header with the client's scheme, `http` or `https`.
pub const FORWARDED_PROTO_HEADER: &str = "x-forwarded-proto";
/// Load balancer header with the host requested by the client.
pub const FORWARDED_HOST_HEADER: &str = "x-forwarded-host";
/// Load balancer header with the port requested by the client.
pub const FORWARDED_PORT_HEADER: &str = "x-forwarded-port";
/// Load balancer header with the path prefix that was removed.
pub const FORWARDED_PREFIX_HEADER: &str = "x-forwarded-prefix";

// Claims of an open frame.

/// Claim of an open frame with the user id, as in Azure's service.
pub const USER_ID_CLAIM: &str = "asrs.s.uid";
/// Prefix of claims that only the service sets, as in Azure's service. Hidden from apps.
pub const PRIVATE_CLAIM_PREFIX: &str = "asrs.s.";

/// Claim with the time at which REST set the claims of a connection, in seconds since 1970.
pub const SET_AT_CLAIM: &str = "asrs.s.iat";
/// Claim of a connection token with the connection's trace. The prefix hides it from apps.
pub const TRACE_CLAIM: &str = "asrs.s.trace";

// Close codes of a link.

/// WebSocket close code (RFC 6455, going away) of a link after the end of its session. After any other code the session
/// is resumed.
pub const SESSION_OVER_CODE: u16 = 1001;
/// Reason in the close frame of a link after the end of its session.
pub const SESSION_OVER_REASON: &str = "the session is over";

/// Extracts the token from an `Authorization` header with the `Bearer` scheme.
#[must_use]
pub fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_token_is_found_for_any_case_of_its_scheme() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bEARER  abc "), Some("abc"));
    }

    #[test]
    fn another_scheme_has_no_bearer_token() {
        assert_eq!(bearer("Basic eA=="), None);
        assert_eq!(bearer("Bearer"), None);
        assert_eq!(bearer(""), None);
    }

    #[test]
    fn private_names_begin_with_their_prefix() {
        for path in [CHANNEL_PATH, MANIFEST_PATH, LINK_PATH, NEGOTIATE_PATH, FLEET_GREET_PATH, FLEET_LINK_PATH] {
            assert!(path.starts_with(PRIVATE_PREFIX), "{path}");
        }
        for header in [
            REMOTE_HEADER,
            TRANSPORT_HEADER,
            USER_HEADER,
            REFUSAL_HEADER,
            FORWARD_HEADER,
            ITEMS_HEADER,
            IF_IDLE_HEADER,
            CAUSE_HEADER,
            ENDED_HEADER,
            BOOT_HEADER,
        ] {
            assert!(header.starts_with(PRIVATE_HEADER_PREFIX), "{header}");
        }
        for header in [MIGRATE_FROM_HEADER, MIGRATE_TO_HEADER] {
            assert!(header.to_ascii_lowercase().starts_with(SERVICE_HEADER_PREFIX), "{header}");
        }
        assert!(USER_ID_CLAIM.starts_with(PRIVATE_CLAIM_PREFIX));
    }
}
