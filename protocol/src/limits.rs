//! All limits, with their reasons. Sizes are in bytes, times in the unit of the name.

use std::time::Duration;

/// Default maximum size of a client message, including framing; the official server's default.
pub const HUB_MESSAGE_MAX_BYTES: usize = 32 * 1024;

/// Default maximum size of a client message at a raw endpoint; as much as the official server buffers before it waits
/// for the app.
pub const RAW_MESSAGE_MAX_BYTES: usize = 64 * 1024;

/// Maximum size of a hub handshake. Real ones have about 40 bytes; the official server allows a whole message.
pub const HANDSHAKE_MAX_BYTES: usize = HUB_MESSAGE_MAX_BYTES;

/// Default maximum length of a group name: enough for names made by people and programs, and short enough to store per
/// group.
pub const GROUP_NAME_MAX_BYTES: usize = 1024;

/// Maximum nesting depth of a JSON or MessagePack value; the official server's default.
pub const NESTING_MAX: usize = 64;

/// Maximum size of a link frame: Azure's limit of 16 MiB for messages to clients, plus headroom for the envelope.
pub const LINK_FRAME_MAX_BYTES: usize = 17 * 1024 * 1024;

/// Maximum number of names in one list of a service message (connections, users, groups, exclusions). Each takes at
/// least one byte of the frame, so no real app reaches it.
pub const LIST_MAX_ITEMS: usize = 1024 * 1024;

/// Time limit for a client's hub handshake; the official server's default.
pub const HANDSHAKE_TIMEOUT_MS: u64 = 15_000;

/// Bytes kept for a client with stateful reconnect until it acknowledges them; the official server's default.
pub const STATEFUL_RECONNECT_BUFFER_BYTES: usize = 100_000;

/// Time limit for a client to reconnect to its connection; the official server's default.
pub const STATEFUL_RECONNECT_TIMEOUT_S: u64 = 15;

/// How long an app server waits for a client to arrive at another node or to stay at its old one: longer than a link
/// may be without a socket.
pub const MOVE_PAUSE_MAX_S: u64 = 120;

/// Interval after which the proxy pings a client that it has sent no hub message, on any transport; the official
/// server's default.
pub const KEEP_ALIVE_INTERVAL_MS: u64 = 15_000;

/// A client that has pinged once is closed if no part of a hub message arrives for this long; the official server's
/// default.
pub const CLIENT_TIMEOUT_MS: u64 = 30_000;

/// Time limit from negotiate to the first connect request; the official server's limit for inactive connections.
pub const CONNECT_TIMEOUT_S: u64 = 15;

/// Maximum number of pipes per address that were created by a POST before any GET. Official clients start with the GET.
pub const PENDING_PIPES_PER_ADDRESS_MAX: usize = 64;

/// Maximum number of such pipes per node: 64 MiB at 64 KiB each.
pub const PENDING_PIPES_MAX: usize = 1024;

/// How long such a pipe waits for its GET, which normally follows immediately.
pub const FIRST_GET_TIMEOUT_S: u32 = 5;

/// Tolerated clock difference between two nodes when checking a new token.
pub const CLOCK_SKEW_S: u64 = 5;

/// Maximum age of a forwarded request at its owner, including clock differences.
pub const FORWARD_MARK_LIFETIME_S: u64 = 30;

/// Maximum age of a connection since its negotiate for which requests are still forwarded to its owner: longer than
/// nodes run between two releases, but tokens must not be valid forever. At the owner itself, connections have no age
/// limit.
pub const CARRIED_CONNECTION_MAX_AGE_S: u64 = 30 * 24 * 3600;

/// Maximum size of claims in a connection token, excluding claims that later requests repeat. The rest must still fit
/// into Azure's 4 KiB of URL.
pub const TOKEN_CLAIMS_MAX_BYTES: usize = 2 * 1024;

/// Maximum length of a sealed token: id, node, user and claims in base64, with headroom.
pub const TOKEN_MAX_CHARS: usize = 8 * 1024;

/// Maximum length of the sealed mark of a forwarded request: a user's claims in base64, with headroom.
pub const MARK_MAX_CHARS: usize = 16 * 1024;

/// Maximum size of user claims in the mark of a forwarded request: all claims of an 8 KiB access token, each with a
/// name.
pub const MARK_CLAIMS_MAX_BYTES: usize = 10 * 1024;

/// Maximum size of an access token: it has to fit into a request head of 32 KiB with everything else.
pub const ACCESS_TOKEN_MAX_BYTES: usize = 8 * 1024;

/// Bytes that may wait for one client's handlers in the app server before the proxy has to pause that client.
pub const INBOX_MAX_BYTES: usize = 64 * 1024;

/// Bytes that may wait for one client's handlers while a handler waits for the client itself (its result, its next
/// item): the answer may come after all other queued bytes, so this limit is 16 times as large.
pub const WAITING_INBOX_MAX_BYTES: usize = 1024 * 1024;

/// Items of an uploaded stream that may wait for their handler before the client is paused; the official server's
/// default.
pub const UPLOAD_MAX_ITEMS: usize = 10;

/// Maximum number of concurrent calls per client; the official server's default.
pub const PARALLEL_INVOCATIONS: usize = 1;

/// Maximum number of concurrent streaming calls per client; equals the proxy's limit of pending calls.
pub const STREAMS_MAX: usize = 1_000;

/// Time limit for a client result; some requests need an answer from a person.
pub const CLIENT_RESULT_TIMEOUT_MS: u64 = 30_000;

/// Maximum number of pending client results of one app server in one hub; each takes less than a kilobyte.
pub const CLIENT_RESULTS_MAX: usize = 64 * 1024;

/// How long a client result request of another app server is kept. Azure's service also removes them this late.
pub const FOREIGN_QUESTION_TIMEOUT_MS: u64 = 10 * 60 * 1000;

/// Minimum length of an access key: 128 bits, if each byte holds eight.
pub const ACCESS_KEY_MIN_BYTES: usize = 16;

/// Interval after which a link pings if it has sent nothing else; Azure's interval.
pub const LINK_PING_INTERVAL_MS: u64 = 5_000;

/// A link that receives nothing for this long is dead; as in Azure's SDK.
pub const LINK_TIMEOUT_MS: u64 = 30_000;

/// Time limit for the handshake of a new link; Azure's limit.
pub const LINK_HANDSHAKE_TIMEOUT_MS: u64 = 15_000;

/// Maximum delay of an acknowledgement after its frame.
pub const ACKNOWLEDGE_DELAY_MS: u64 = 100;

/// Default time for resuming a broken link: long enough for a load balancer, router or switch to recover, short enough
/// for people to wait.
pub const RESUME_WINDOW_MS: u64 = 10_000;

/// Maximum bytes of a session that wait to be sent or acknowledged. Acknowledgements come at the latest after a quarter
/// of it, so it carries a gigabyte per second at a round trip of a millisecond, and holds the sends of about a hundred
/// busy clients within a window.
pub const LINK_RING_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Frames are collected up to this size before they are sent: large enough to save system calls, small enough to start
/// early and to be freed soon after they are acknowledged. Each link keeps buffers of this size after a burst.
pub const LINK_CHUNK_BYTES: usize = 16 * 1024;

/// Maximum number of pending ping replies while their socket is busy. A peer with more isn't measuring.
pub const LINK_ECHOES_MAX: usize = 16;

/// Minimum and maximum wait between dial attempts.
pub const LINK_BACKOFF_MS: (u64, u64) = (50, 2_000);

/// How long the app server waits for the acknowledgement of a group change; as in Azure's SDK.
pub const ACK_TIMEOUT_MS: u64 = 10_000;

/// Maximum size of a node's greeting: all addresses at maximum length, plus JSON overhead.
pub const GREETING_MAX_BYTES: usize = 512 * 1024;

/// Maximum length of a name, boot id or version in a greeting. Real ones have about 40 bytes.
pub const GREETING_TEXT_MAX_BYTES: usize = 256;

/// Maximum length of an address in a greeting: a host name of 253 bytes, a scheme, a port and a path.
pub const GREETING_ADDRESS_MAX_BYTES: usize = 1024;

/// Maximum number of members in a greeting. Larger fleets are not supported.
pub const GREETING_MEMBERS_MAX: usize = 256;

/// Maximum number of hubs with stored interest per node. Messages for other hubs are always sent to the node.
pub const INTEREST_HUBS_MAX: usize = 1024;

/// Age after which a node's interest is stale, so that it is sent everything; two beats. Answers about a new member
/// wait at most this long for an unresponsive node.
pub const INTEREST_STALE_MS: u64 = 2_000;

/// Maximum number of app servers of one hub that a node reports to another, counted once per endpoint.
pub const PRESENCE_SERVERS_MAX: usize = 1024;

/// Maximum length of the instance id and of the endpoint of a dial-in app server.
pub const PRESENCE_TEXT_MAX_BYTES: usize = 256;

/// How long the nodes' views of members may differ before it is reported: some nodes notice a start or stop earlier.
pub const AGREEMENT_GRACE_MS: u64 = 5_000;

/// Default number of kept messages of a record.
pub const HISTORY_MESSAGES: u32 = 1000;
/// Maximum number of kept messages of a record; more belong into a database.
pub const HISTORY_MESSAGES_MAX: u32 = 1_000_000;

/// Default time for which a message of a record is kept: an hour.
pub const HISTORY_AGE_MS: u64 = 3600 * 1000;

/// Shortest time for which a message of a record is kept.
pub const HISTORY_AGE_MIN: Duration = Duration::from_secs(1);
/// Longest time for which a message of a record is kept; archives are no task of a node.
pub const HISTORY_AGE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Maximum length of the id of a send to a recorded group or user: a UUID with a prefix.
pub const SEND_ID_MAX_BYTES: usize = 128;

/// Maximum number of patterns of recorded groups and users of a hub, each tried for a send.
pub const HISTORY_PATTERNS_MAX: usize = 256;

const _: () = assert!(HUB_MESSAGE_MAX_BYTES < LINK_FRAME_MAX_BYTES);
const _: () = assert!(LINK_PING_INTERVAL_MS * 2 < LINK_TIMEOUT_MS);
