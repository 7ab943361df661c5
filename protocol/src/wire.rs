//! Names on the wire: paths, query parameters, headers, claims and close codes that both ends use.
//!
//! Each has its one definition here. Everything that a link's session needs travels in headers of the upgrade,
//! because Azure's SDK stumbles over unknown frame parts.

// Paths and query parameters.

/// Path prefix of an app server's own routes for the fleet; a proxy never passes requests below it through.
pub const PRIVATE_PREFIX: &str = "/.trunkline/";
/// Path at which a peer of the fleet opens a channel; the paths below are reached inside one alone.
pub const CHANNEL_PATH: &str = "/.trunkline/channel";
/// Path of the manifest.
pub const MANIFEST_PATH: &str = "/.trunkline/manifest";
/// Path at which links are opened.
pub const LINK_PATH: &str = "/.trunkline/link";
/// Path of the authorization request: a proxy asks an app server about a client that negotiates.
pub const NEGOTIATE_PATH: &str = "/.trunkline/negotiate";
/// Path at which a node asks the owner of a connection token for its id, once; the token stands in the query.
pub const RESERVE_PATH: &str = "/.trunkline/reserve";
/// Path at which a node that stops asks the owner of a connection to end the GET that it carries; the token stands in
/// the query. An owner that does not know the path answers 404, and the GET goes on.
pub const RELEASE_PATH: &str = "/.trunkline/release";
/// Path at which two nodes of a fleet greet each other, at the admin port.
pub const FLEET_GREET_PATH: &str = "/.trunkline/fleet/greet";
/// Path at which a node opens a node link to another one, at the admin port.
pub const FLEET_LINK_PATH: &str = "/.trunkline/fleet/link";
/// Query parameter of [`LINK_PATH`] and [`NEGOTIATE_PATH`]: the name of the hub.
pub const HUB_PARAMETER: &str = "hub";
/// Suffix of a hub's path at which clients negotiate.
pub const NEGOTIATE_SUFFIX: &str = "/negotiate";
/// Query parameter of a client's negotiate request: the highest version that it speaks.
pub const NEGOTIATE_VERSION_PARAMETER: &str = "negotiateVersion";
/// Query parameter of a client's later requests: its connection token.
pub const CONNECTION_TOKEN_PARAMETER: &str = "id";
/// Query parameter with an access token, for browsers, which can't set headers on WebSockets and event streams.
pub const ACCESS_TOKEN_PARAMETER: &str = "access_token";
/// Query parameter of a request that begins a connection: the connection token of a lost one that is to be restored.
pub const RESTORE_PARAMETER: &str = "restore";

/// `User-Agent` of all requests of nodes, apps and commands: some firewalls refuse requests without one.
pub const AGENT: &str = concat!("trunkline/", env!("CARGO_PKG_VERSION"));

// Headers that only the fleet may set.

/// Prefix of the fleet's own headers, in lower case; a proxy drops them from requests of clients.
pub const PRIVATE_HEADER_PREFIX: &str = "x-trunkline-";
/// Prefix of the headers of the Azure SignalR service, in lower case; a proxy drops them from requests of clients.
pub const SERVICE_HEADER_PREFIX: &str = "asrs-";
/// Prefix of the headers of webhook events and of app servers that dial in, in lower case; a proxy drops them from
/// requests of clients.
pub const SERVICE_EVENT_HEADER_PREFIX: &str = "x-asrs-";
/// Header of a channel's upgrade and of its answer: a message of the handshake.
pub const HELLO_HEADER: &str = "x-trunkline-hello";
/// Header of an authorization request: path and query of the client's request.
pub const CLIENT_URI_HEADER: &str = "x-trunkline-uri";
/// Header of an authorization request: the client's `Authorization`.
pub const CLIENT_AUTHORIZATION_HEADER: &str = "x-trunkline-authorization";
/// Header of an authorization request: the user that the proxy has verified, encoded by
/// [`User::to_header`](crate::access_token::User::to_header).
pub const USER_HEADER: &str = "x-trunkline-user";
/// Header of an app server's refusals: that it is the SDK that refuses, and why, in a word such as [`REFUSED_KEY`]. A
/// refusal without it comes from something before the SDK.
pub const REFUSAL_HEADER: &str = "x-trunkline-refusal";
/// Refusal of a peer that has no key of this fleet.
pub const REFUSED_KEY: &str = "access-key";
/// Refusal of a peer on another machine, by an app server that has only the development key.
pub const REFUSED_DEVELOPMENT_KEY: &str = "development-key";
/// Header of an authorization request and of an open frame: the client's address and port.
pub const REMOTE_HEADER: &str = "x-trunkline-remote";
/// Header of every answer of a node: its name.
pub const NODE_HEADER: &str = "x-trunkline-node";
/// Header of an open frame: the client's transport.
pub const TRANSPORT_HEADER: &str = "x-trunkline-transport";
/// Header of an open frame that reassigns a connection: the instance of the app server that had it.
pub const MIGRATE_FROM_HEADER: &str = "Asrs-Migrate-From";
/// Header of a close frame: the connection is reassigned to another app server, so it has not ended.
pub const MIGRATE_TO_HEADER: &str = "Asrs-Migrate-To";
/// Header of a close frame with an empty [`MIGRATE_TO_HEADER`]: the connection is to be handed over only if nothing of
/// it runs; otherwise its client is to be read on, and stays.
pub const IF_IDLE_HEADER: &str = "x-trunkline-if-idle";
/// Header of a close frame and of an open frame: the items that the app hands over with a connection, as a text.
pub const ITEMS_HEADER: &str = "x-trunkline-items";
/// Header of a close frame: its [`Cause`](crate::cause::Cause), for peers that know causes.
pub const CAUSE_HEADER: &str = "x-trunkline-cause";
/// Header of an open frame that tells of an end: the connection was another app server's, and has ended since, for this
/// [`Cause`](crate::cause::Cause). No close frame follows.
pub const ENDED_HEADER: &str = "x-trunkline-ended";
/// Header of an open frame: the lost connection whose groups and items the new one gets. Only the app server that has
/// said that it keeps them sees it.
pub const RESTORES_HEADER: &str = "x-trunkline-restores";
/// Header beside [`ENDED_HEADER`]: the error of the end, if it was one.
pub const ENDED_ERROR_HEADER: &str = "x-trunkline-ended-error";
/// Header of a request that one node forwards to another: a sealed [`ForwardMark`](crate::token::ForwardMark).
pub const FORWARD_HEADER: &str = "x-trunkline-forward";
/// Header of a link's upgrade: the boot id of the node, so that a restarted one is known as new.
pub const BOOT_HEADER: &str = "x-trunkline-boot";
/// Header of a link's upgrade: the app server instance that is wanted; another one answers 409.
pub const INSTANCE_HEADER: &str = "x-trunkline-instance";
/// Header of a link's upgrade: the link's slot in its pool, from 0.
pub const SLOT_HEADER: &str = "x-trunkline-slot";
/// Header of a link's upgrade: the session that the link carries, a number that counts up in its slot.
pub const SESSION_HEADER: &str = "x-trunkline-session";
/// Header of a link's upgrade and of its answer: the last frame taken in that session; the upgrade of a session that
/// was never attached has none.
pub const RECEIVED_HEADER: &str = "x-trunkline-received";
/// Header of a link's upgrade and of its answer: the capabilities of this end, separated by commas. `resume=BYTES` says
/// that it resumes sessions, and the size of its ring; `causes` that close frames may carry a [`CAUSE_HEADER`];
/// `members`, of a proxy, that it answers queries for the members of a group; `presence`, of a proxy, that it tells who
/// comes and goes, and lists the connections of a user; `handovers` that a proxy reads a client on while its app server
/// asks for it, and that an app server takes open frames with an [`ENDED_HEADER`]; `moves` that client connections may
/// move to another node; `idle-handovers`, of an app server, that it knows an [`IF_IDLE_HEADER`]; `client-flow=BYTES`
/// that messages to one client wait for that client, and the largest that this end takes or sends.
pub const CAPABILITIES_HEADER: &str = "x-trunkline-capabilities";

// Headers of load balancers.

/// Header of load balancers: the addresses that a request came through, the client's first.
pub const FORWARDED_FOR_HEADER: &str = "x-forwarded-for";
/// Header of load balancers: `http` or `https`, as the client has it.
pub const FORWARDED_PROTO_HEADER: &str = "x-forwarded-proto";
/// Header of load balancers: the host that the client asked for.
pub const FORWARDED_HOST_HEADER: &str = "x-forwarded-host";
/// Header of load balancers: the port that the client asked for.
pub const FORWARDED_PORT_HEADER: &str = "x-forwarded-port";
/// Header of load balancers: the path prefix that they removed.
pub const FORWARDED_PREFIX_HEADER: &str = "x-forwarded-prefix";

// Claims of an open frame.

/// Claim of an open frame that holds the user id, as Azure's service has it.
pub const USER_ID_CLAIM: &str = "asrs.s.uid";
/// Prefix of the claims that only the service sets, as Azure's service has it; an app never sees them as claims.
pub const PRIVATE_CLAIM_PREFIX: &str = "asrs.s.";
/// Claim of a connection token: the trace that the connection belongs to. Its prefix hides it from apps, at older
/// nodes, too.
pub const TRACE_CLAIM: &str = "asrs.s.trace";

// Close codes of a link.

/// WebSocket close code (RFC 6455, going away) of a link whose session is over; after any other the session is resumed.
pub const SESSION_OVER_CODE: u16 = 1001;
/// Reason in the close frame of a link whose session is over.
pub const SESSION_OVER_REASON: &str = "the session is over";

/// Extracts the token from the value of an `Authorization` header with the scheme `Bearer`.
#[must_use]
pub fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_token_is_found_whatever_the_case_of_its_scheme() {
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
            RESTORES_HEADER,
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
