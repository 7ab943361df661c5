//! Settings of the connection between this node and app servers: links, clients without an app server, relayed
//! requests.

use std::num::NonZeroU32;
use std::time::Duration;

use trunkline_protocol::limits::{LINK_FRAME_MAX_BYTES, LINK_RING_MAX_BYTES, RESUME_WINDOW_MS};
use trunkline_protocol::service::SessionSettings;

use super::option_group::{ANY_U32, settings};

/// Default limit of requests in flight per address, if addresses identify clients. A page sends about ten in parallel,
/// so this serves an office, and it is a quarter of an app server's limit, so no address can fill an app server.
const PASS_THROUGH_PER_ADDRESS_MAX: u32 = 256;

/// Default limit of requests in flight. With 128 KiB of buffers each, they use half a gigabyte.
const PASS_THROUGH_MAX: u32 = 4096;

/// Default limit of requests in flight per app server: common among other proxies, and a typical limit of open sockets
/// per process.
const PASS_THROUGH_PER_UPSTREAM_MAX: u32 = 1024;

/// Default limit of links to app servers: some hundred apps with a few app servers and hubs each. An idle link takes
/// 5 KiB.
const NODE_LINKS_MAX: u32 = 65_536;

/// Default limit of links per address, if addresses identify app servers. A whole site may dial in through one NAT.
const LINKS_PER_ADDRESS_MAX: u32 = 16 * 1024;

/// Open files per relayed request: the client connection and the app server connection.
const FILES_PER_REQUEST: u64 = 2;

/// Divisor for the share of client files available to relayed requests, and to links. The rest is for hubs.
const FILES_PART: u64 = 2;

settings! {
    /// Settings of links to app servers.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct LinkSettings {
        /// Time for which a lost link to an app server can be resumed before its clients get another link or app
        /// server. A link resumed in time has lost nothing. 0: never resume.
        #[flag("resume-window", Seconds(0..=600))]
        pub resume_window_ms: u64 = RESUME_WINDOW_MS,

        /// Bytes that may wait for one link's socket.
        #[flag(
            "link-outbox-max-bytes",
            Bytes(4096..=u64::MAX),
            "Maximum bytes queued for one link before its clients are not read any further"
        )]
        // Some milliseconds of traffic on a busy link. A larger outbox would delay the pause of a client that the app
        // server requests.
        pub outbox_max_bytes: usize = 1024 * 1024,

        /// Bytes that may wait for one link's socket or to be acknowledged.
        #[flag(
            "link-ring-max-bytes",
            Bytes(64 * 1024..=u64::MAX),
            "Maximum bytes stored for one link until the app server acknowledges them, including queued bytes. While \
             the limit is reached, its clients are not read"
        )]
        pub ring_max_bytes: usize = LINK_RING_MAX_BYTES,

        /// Maximum number of links to app servers, dialled by either side; above it, an app server that dials in gets
        /// 503. If apps have keys, each key has a share, and so has each app server that the node dials: one alone gets
        /// a half, two a third each, and the last quarter is for those with few links. 0 for no limit [default: 65536,
        /// or as many as fit into half of the files that the process may open].
        #[flag("links-max", Count(ANY_U32))]
        pub links_max: Option<u32> = None,

        /// Maximum number of links dialled from one address, or from one /64 of IPv6; further ones get 429. Addresses
        /// of `--trust` have no limit. 0 for no limit [default: 16384 with `--trust`, else 0].
        #[flag("links-per-address-max", Count(ANY_U32))]
        pub links_per_address_max: Option<u32> = None,

        /// Messages per second that the app servers and REST callers of one app key, or of one hub without a key, may
        /// send to this node. Above one second's worth, links are read more slowly, and REST gets 429 and
        /// `Retry-After`. 0 for no limit.
        #[flag("app-messages-per-second", Count(ANY_U32))]
        pub app_messages_per_second: Option<NonZeroU32> = None,

        /// Bytes per second that the app servers and REST callers of one app key, or of one hub without a key, may send
        /// to this node, with the same effect. 0 for no limit.
        #[flag("app-bytes-per-second", Bytes(ANY_U32))]
        pub app_bytes_per_second: Option<NonZeroU32> = None,
    }
}

settings! {
    /// Settings for clients that have lost their app server: how long they wait for another, and what is remembered.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct RehomeSettings {
        /// Time for which clients are held while no app server is available; then they are asked to reconnect. Their
        /// messages meanwhile wait in their sockets. 0: they are asked to reconnect within a second. A hub that no app
        /// server has announced for this long is removed, if there are app servers with other hubs.
        #[flag("hold-timeout", WholeSeconds(0..=86_400))]
        // Long enough for a restart of the only app server.
        pub hold_timeout_s: u32 = 60,

        /// Also hold new clients while no app server of a known hub is available; otherwise they get 503 and
        /// `Retry-After`, unless a link was lost a moment ago: then they wait for its return, as long as for a hub
        /// handshake.
        #[flag("hold-new", On)]
        pub holds_new: bool = false,

        /// Maximum number of pending calls of one client before it is not read any further: the node records them, so
        /// that each gets an error if its app server is lost.
        #[flag("pending-calls-max", Count(1..=1_000_000))]
        pub pending_calls_max: usize = 1_000,

        /// Time without a result after which a call counts as hung, for the condition `calls-hang`. Raise it if calls
        /// of an app take longer by design, such as uploads; a stream to the client may take any time. 0: calls never
        /// count as hung.
        #[flag("calls-hang-after", WholeSeconds(0..=86_400))]
        // Far above the timeouts of most callers.
        pub calls_hang_after_s: u32 = 60,

        /// Clients per second that this node reassigns, one by one and between their calls, to a new app server with
        /// less than its share, for example after a restart. 0: clients stay at their app server until it stops.
        #[flag("app-rebalance-rate", Clients(0..=100_000))]
        // Moves half of ten thousand clients within a minute. A new app server runs `on_rehomed` a hundred times a
        // second per node.
        pub app_rebalance_per_s: u32 = 100,
    }
}

settings! {
    /// Settings of requests that are relayed to app servers and to the nodes that own a connection.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct RelaySettings {
        /// Answer 404 to everything that is not a hub, instead of passing it through to an app server.
        #[flag("no-pass-through", Off)]
        pub pass_through: bool = true,

        /// Time limit for an app server to accept a connection for a passed-through request.
        #[flag("upstream-connect-timeout", Seconds(1..=600))]
        // App servers are nearby: a slower one is unlikely to accept at all.
        pub upstream_connect_timeout: Duration = Duration::from_secs(5),

        /// Time limit for an app server to begin its response to a passed-through request. An upload may take longer
        /// while it makes progress (`--body-timeout`); a response that has begun may pause without a limit.
        #[flag("upstream-answer-timeout", Seconds(1..=86_400))]
        // Default of most reverse proxies.
        pub upstream_answer_timeout: Duration = Duration::from_secs(60),

        /// Maximum number of requests in flight to all app servers, from the head to the end of both bodies, including
        /// upgraded connections. Beyond it a new request displaces the request that has waited longest for its client,
        /// if for at least a second; otherwise it gets 503 and `Retry-After`. One HTTP/2 connection gets a sixteenth of
        /// this, or of `--pass-through-per-upstream-max` if that is less. 0 for no limit [default: 4096, or as many as
        /// fit into half of the files that the process may open, with two for each].
        #[flag("pass-through-max", Count(ANY_U32))]
        pub requests_max: Option<u32> = None,

        /// Maximum number of requests in flight to one app server; further requests go to the next app server. If all
        /// are full, a new request displaces one that waits for its client, as with `--pass-through-max`, or gets 503.
        /// 0 for no limit [default: 1024, or as many as all app servers together may have by default].
        #[flag("pass-through-per-upstream-max", Count(ANY_U32))]
        pub requests_per_upstream_max: Option<u32> = None,

        /// Maximum number of requests in flight to app servers from one address, or from one /64 of IPv6; further ones
        /// get 429. Addresses of `--trust`, which serve many clients, are not limited. 0 for no limit [default: 256
        /// with `--trust`, else 0, because behind a load balancer that is not named there all clients have its
        /// address].
        #[flag("pass-through-per-address-max", Count(ANY_U32))]
        pub requests_per_address_max: Option<u32> = None,

        /// Don't relay requests to the node that owns their connection: for nodes that can't reach each other. Clients
        /// are then offered only WebSockets, because the other transports need relayed requests or a load balancer with
        /// stickiness.
        #[flag("no-forward", Off)]
        pub forward: bool = true,

        /// Time limit for the node that owns a connection to answer a relayed request; for a poll, in addition to its
        /// wait for messages.
        #[flag("hop-timeout", Seconds(1..=600))]
        // Between two nodes there is only network latency.
        pub hop_timeout: Duration = Duration::from_secs(5),
    }
}

/// Default limit of requests in flight, given the number of open files available to clients.
fn pass_through_default(files: Option<u64>) -> u32 {
    let fitting = files.map(|files| u32::try_from(files / FILES_PART / FILES_PER_REQUEST).unwrap_or(u32::MAX));
    fitting.map_or(PASS_THROUGH_MAX, |fitting| fitting.clamp(1, PASS_THROUGH_MAX))
}

impl LinkSettings {
    /// Returns whether links can resume.
    #[must_use]
    pub fn can_resume(&self) -> bool {
        self.resume_window_ms > 0
    }

    /// Sets the limit that was not configured, given the number of open files available to clients.
    #[must_use]
    pub fn by_files(mut self, files: Option<u64>) -> Self {
        let fitting = files.map(|files| u32::try_from(files / FILES_PART).unwrap_or(u32::MAX));
        self.links_max.get_or_insert(fitting.map_or(NODE_LINKS_MAX, |fitting| fitting.clamp(1, NODE_LINKS_MAX)));
        self
    }

    /// Sets the limit per address if it was not configured and the node `knows_balancers` in front of it, or has none.
    #[must_use]
    pub fn by_address(mut self, knows_balancers: bool) -> Self {
        if knows_balancers {
            self.links_per_address_max.get_or_insert(LINKS_PER_ADDRESS_MAX);
        }
        self
    }

    /// Returns the settings of a link session.
    #[must_use]
    pub fn session(&self) -> SessionSettings {
        let client_message_max_bytes = Some(LINK_FRAME_MAX_BYTES);
        SessionSettings { client_message_max_bytes, ..SessionSettings::new(self.ring_max_bytes, self.resume_window_ms) }
    }
}

impl RehomeSettings {
    /// Returns how long a new client waits for a lost link: the hub handshake timeout, which is also how long the hub
    /// would wait for the client, but at most the hold timeout.
    #[must_use]
    pub fn link_wait(&self, handshake_timeout_ms: u64) -> Duration {
        Duration::from_secs(self.hold_timeout_s.into()).min(Duration::from_millis(handshake_timeout_ms))
    }
}

impl RelaySettings {
    /// Returns the settings of a node embedded in an app, which has no other app server. Its tokens contain no address,
    /// so no request is forwarded to it.
    #[must_use]
    pub fn embedded() -> Self {
        Self {
            pass_through: false,
            upstream_connect_timeout: Duration::ZERO,
            upstream_answer_timeout: Duration::ZERO,
            hop_timeout: Duration::ZERO,
            ..Self::DEFAULT
        }
    }

    /// Sets the limits that were not configured, given the number of open files available to clients.
    #[must_use]
    pub fn by_files(mut self, files: Option<u64>) -> Self {
        let fitting = pass_through_default(files);
        self.requests_max.get_or_insert(fitting);
        self.requests_per_upstream_max.get_or_insert(PASS_THROUGH_PER_UPSTREAM_MAX.min(fitting));
        self
    }

    /// Describes a limit that is below its default because of the system's limit of open files. Call before the
    /// defaults are set.
    #[must_use]
    pub fn note_of_files(&self, files: Option<u64>) -> Option<String> {
        let fitting = pass_through_default(files);
        let is_fitted = self.pass_through && self.requests_max.is_none() && fitting < PASS_THROUGH_MAX;
        is_fitted.then(|| {
            format!(
                "--pass-through-max is {fitting} instead of {PASS_THROUGH_MAX}, because only {} open files are left \
                 for clients: raise the limit of open files of this process",
                files.unwrap_or_default()
            )
        })
    }

    /// Sets the limit per address if it was not configured and the node `knows_balancers` in front of it, or has none.
    #[must_use]
    pub fn by_address(mut self, knows_balancers: bool) -> Self {
        if knows_balancers {
            self.requests_per_address_max.get_or_insert(PASS_THROUGH_PER_ADDRESS_MAX);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_are_passed_through_get_half_of_the_files_at_most() {
        let limits = |files| {
            let settings = RelaySettings::DEFAULT.by_files(files);
            (settings.requests_max, settings.requests_per_upstream_max)
        };
        assert_eq!(limits(None), (Some(4096), Some(1024)));
        assert_eq!(limits(Some(1_000_000)), (Some(4096), Some(1024)));
        assert_eq!(limits(Some(896)), (Some(224), Some(224)), "of 1024 open files 128 are kept back");
        assert_eq!(limits(Some(1)).0, Some(1), "0 would be no limit");
        let given = RelaySettings { requests_max: Some(0), ..RelaySettings::DEFAULT };
        assert_eq!(given.clone().by_files(Some(896)).requests_max, Some(0));
        assert_eq!(given.note_of_files(Some(896)), None);
        let note = RelaySettings::DEFAULT.note_of_files(Some(896)).unwrap();
        assert!(note.starts_with("--pass-through-max is 224") && note.contains("896 open files"), "{note}");
    }

    #[test]
    fn links_get_half_of_the_files_at_most() {
        let most = |files| LinkSettings::DEFAULT.by_files(files).links_max;
        assert_eq!([most(None), most(Some(1_000_000)), most(Some(896))], [Some(65_536), Some(65_536), Some(448)]);
        assert_eq!(most(Some(1)), Some(1), "0 would be no limit");
        let given = LinkSettings { links_max: Some(0), ..LinkSettings::DEFAULT };
        assert_eq!(given.by_files(Some(896)).links_max, Some(0));
        let of_address = |given: LinkSettings, knows| given.by_address(knows).links_per_address_max;
        assert_eq!([true, false].map(|knows| of_address(LinkSettings::DEFAULT, knows)), [Some(16_384), None]);
    }

    #[test]
    fn a_window_of_zero_turns_resuming_off() {
        assert!(LinkSettings::default().can_resume());
        assert!(!LinkSettings { resume_window_ms: 0, ..LinkSettings::default() }.can_resume());
    }
}
