//! Every bound, with its reason. Sizes are in bytes, times in the unit that the name says.

/// Largest message of a client, framing included, unless the hub says otherwise; the official server's default.
pub const HUB_MESSAGE_MAX_BYTES: usize = 32 * 1024;

/// Largest message of a client of a raw endpoint, unless the endpoint says otherwise; as much as the official server
/// takes in before it waits for the app.
pub const RAW_MESSAGE_MAX_BYTES: usize = 64 * 1024;

/// Largest hub handshake. A real one has some 40 bytes; the official server allows a whole message.
pub const HANDSHAKE_MAX_BYTES: usize = HUB_MESSAGE_MAX_BYTES;

/// Largest name of a group, unless app and operator say otherwise: as long as people and programs make names, and short
/// enough to be kept for each group.
pub const GROUP_NAME_MAX_BYTES: usize = 1024;

/// Deepest nesting of a JSON or MessagePack value; the official server's default.
pub const NESTING_MAX: usize = 64;

/// Largest frame of a link. Azure's limit for a message to clients is 16 MiB; headroom for the envelope.
pub const LINK_FRAME_MAX_BYTES: usize = 17 * 1024 * 1024;

/// Most names in one list of a service message (connections, users, groups, exclusions).
/// Each costs at least one byte of the frame, so this only refuses what no app would send.
pub const LIST_MAX_ITEMS: usize = 1024 * 1024;

/// How long a client may take for its hub handshake; the official server's default.
pub const HANDSHAKE_TIMEOUT_MS: u64 = 15_000;

/// Bytes that are kept for a client until it has acknowledged them, where it may come back to its connection; the
/// official server's default.
pub const STATEFUL_RECONNECT_BUFFER_BYTES: usize = 100_000;

/// How long a client may take to come back to its connection; the official server's default.
pub const STATEFUL_RECONNECT_TIMEOUT_S: u64 = 15;

/// How long an app server waits for the node to which a client moves, or for its old one to keep it: longer than a link
/// may be without a socket.
pub const MOVE_PAUSE_MAX_S: u64 = 120;

/// The proxy pings a client when it has sent it no hub message for this long, whatever the transport carries; the
/// official server's default.
pub const KEEP_ALIVE_INTERVAL_MS: u64 = 15_000;

/// A client that has pinged once is closed when no hub message and no part of one comes for this long; the official
/// server's default.
pub const CLIENT_TIMEOUT_MS: u64 = 30_000;

/// From negotiate to the first connect request; the official server's limit for inactive connections.
pub const CONNECT_TIMEOUT_S: u64 = 15;

/// Pipes of one address that a POST has made and no GET has begun to read. Official clients begin with the GET.
pub const PENDING_PIPES_PER_ADDRESS_MAX: usize = 64;

/// All such pipes of a node: at 64 KiB each they hold 64 MiB.
pub const PENDING_PIPES_MAX: usize = 1024;

/// How long such a pipe waits for its GET, which follows at once.
pub const FIRST_GET_TIMEOUT_S: u32 = 5;

/// How far the clocks of two nodes may differ before a fresh token is refused.
pub const CLOCK_SKEW_S: u64 = 5;

/// How long a forwarded request may be under way to its owner, across clocks that differ.
pub const FORWARD_MARK_LIFETIME_S: u64 = 30;

/// How long after negotiate requests of a connection are still carried to the node that owns it: longer than nodes run
/// between two releases, and no token leads anywhere for ever. At its owner a connection lives as long as it likes.
pub const CARRIED_CONNECTION_MAX_AGE_S: u64 = 30 * 24 * 3600;

/// Largest claims that a connection token carries, beside those that later requests show again; Azure's 4 KiB of URL
/// must still hold the rest.
pub const TOKEN_CLAIMS_MAX_BYTES: usize = 2 * 1024;

/// Largest sealed token that is looked at: id, node, user and claims in base64, with headroom.
pub const TOKEN_MAX_CHARS: usize = 8 * 1024;

/// Largest sealed mark of a carried request that is looked at: claims of a user in base64, with headroom.
pub const MARK_MAX_CHARS: usize = 16 * 1024;

/// Largest claims of a user in the mark of a carried request: those of an access token of 8 KiB, each with a name.
pub const MARK_CLAIMS_MAX_BYTES: usize = 10 * 1024;

/// Largest access token that is looked at: it has to fit into a request head of 32 KiB beside all else.
pub const ACCESS_TOKEN_MAX_BYTES: usize = 8 * 1024;

/// Bytes that may wait for one client's handlers in the app server before the proxy is asked to pause that client.
pub const INBOX_MAX_BYTES: usize = 64 * 1024;

/// Bytes that may wait for one client's handlers while one of them waits for that client itself (its result, its next
/// item): the answer may stand behind all of it, so this is some sixteen times as much.
pub const WAITING_INBOX_MAX_BYTES: usize = 1024 * 1024;

/// Items of one uploaded stream that wait for their handler before the client is paused; the official server's default.
pub const UPLOAD_MAX_ITEMS: usize = 10;

/// How many calls of one client run at once; the official server's default.
pub const PARALLEL_INVOCATIONS: usize = 1;

/// Streaming calls of one client that run at once; as many as the proxy lets be pending.
pub const STREAMS_MAX: usize = 1_000;

/// How long a client result may take; people have to answer some of these requests.
pub const CLIENT_RESULT_TIMEOUT_MS: u64 = 30_000;

/// Client results that one app server waits for in one hub; each costs less than a kilobyte.
pub const CLIENT_RESULTS_MAX: usize = 64 * 1024;

/// How long a client result request of another app server is remembered; Azure's service forgets them as late.
pub const FOREIGN_QUESTION_TIMEOUT_MS: u64 = 10 * 60 * 1000;

/// Shortest access key: 128 bits, if each byte holds eight.
pub const ACCESS_KEY_MIN_BYTES: usize = 16;

/// Links ping when they have sent nothing for this long; Azure's cadence.
pub const LINK_PING_INTERVAL_MS: u64 = 5_000;

/// A link that brings nothing for this long is dead; Azure's SDK uses the same.
pub const LINK_TIMEOUT_MS: u64 = 30_000;

/// How long the ends of a fresh link may take for their handshake; Azure's limit.
pub const LINK_HANDSHAKE_TIMEOUT_MS: u64 = 15_000;

/// An acknowledgement rides at the latest this long after the frame that it is for.
pub const ACKNOWLEDGE_DELAY_MS: u64 = 100;

/// How long a cut link may be resumed, unless the operator says otherwise: long enough for a proxy's load balancer, a
/// router or a switch to come back, short enough for people to wait.
pub const RESUME_WINDOW_MS: u64 = 10_000;

/// Bytes that may wait in a session to be sent or acknowledged. Acknowledgements come after a quarter of it at the
/// latest, so it carries a gigabyte a second over a round trip of a millisecond, and holds what some hundred busy
/// clients send in a window.
pub const LINK_RING_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Frames are gathered up to this size before they leave: large enough to save system calls, small enough to start
/// early and to be dropped early once they are acknowledged. Each link keeps buffers of this size when a storm is over.
pub const LINK_CHUNK_BYTES: usize = 16 * 1024;

/// Pings that a peer wants back and that wait for its socket; who asks for more isn't measuring.
pub const LINK_ECHOES_MAX: usize = 16;

/// First and last wait between two attempts to dial.
pub const LINK_BACKOFF_MS: (u64, u64) = (50, 2_000);

/// How long the app server waits for a group change to be acknowledged; Azure's SDK uses the same.
pub const ACK_TIMEOUT_MS: u64 = 10_000;

/// Largest greeting of a node that is looked at: all its addresses at their longest, with room for JSON.
pub const GREETING_MAX_BYTES: usize = 512 * 1024;

/// Longest name, boot id or version in a greeting. People and programs write some 40 bytes.
pub const GREETING_TEXT_MAX_BYTES: usize = 256;

/// Longest address in a greeting: a host name of 253 bytes, a scheme, a port and a path.
pub const GREETING_ADDRESS_MAX_BYTES: usize = 1024;

/// Most members that a greeting tells of; a mesh of more nodes than this is not what the fleet is made for.
pub const GREETING_MEMBERS_MAX: usize = 256;

/// Most hubs whose interest is kept for one node; what is for any other hub is sent to it.
pub const INTEREST_HUBS_MAX: usize = 1024;

/// A node whose interest was confirmed longer ago than this is sent everything; two beats. An answer about a new member
/// waits that long for a node that does not hear of it.
pub const INTEREST_STALE_MS: u64 = 2_000;

/// Most app servers of one hub that a node tells another of, each once for every endpoint.
pub const PRESENCE_SERVERS_MAX: usize = 1024;

/// Longest instance id and longest endpoint of an app server that dials in.
pub const PRESENCE_TEXT_MAX_BYTES: usize = 256;

/// Nodes may see different members for this long before anybody is told: a node that comes or goes is seen by some
/// first.
pub const AGREEMENT_GRACE_MS: u64 = 5_000;

const _: () = assert!(HUB_MESSAGE_MAX_BYTES < LINK_FRAME_MAX_BYTES);
const _: () = assert!(LINK_PING_INTERVAL_MS * 2 < LINK_TIMEOUT_MS);

/// Maximum number of exclusive tasks of one hub.
pub const EXCLUSIVE_TASKS_MAX: usize = 32;

/// Maximum bytes of the name of an exclusive task.
pub const EXCLUSIVE_TASK_NAME_MAX_BYTES: usize = 128;
