//! Settings of a hub or raw endpoint, and their validation.

use std::time::Duration;

use trunkline_protocol::hub::HubProtocol;
use trunkline_protocol::limits::{
    HISTORY_AGE_MAX, HISTORY_AGE_MIN, HISTORY_MESSAGES_MAX, HISTORY_PATTERNS_MAX, STATEFUL_RECONNECT_BUFFER_BYTES,
};
use trunkline_protocol::manifest::{Authentication, HubManifest, RecordedNames, SlowClients, Transport};
use trunkline_protocol::pattern::Pattern;

use crate::connection::Limits;
use crate::error::BuildError;
use crate::naming::Naming;

/// Default time without connections after which a user is offline. Reloading a page or reconnecting through another
/// proxy takes less.
const PRESENCE_GRACE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone)]
pub(crate) struct HubSettings {
    pub(crate) protocols: Vec<HubProtocol>,
    pub(crate) naming: Naming,
    pub(crate) transports: Vec<Transport>,
    pub(crate) sub_protocols: Vec<String>,
    pub(crate) keep_alive_interval: Duration,
    pub(crate) handshake_timeout: Duration,
    pub(crate) detailed_errors: bool,
    pub(crate) slow_clients: SlowClients,
    pub(crate) compress: bool,
    pub(crate) requires_authentication: bool,
    pub(crate) close_on_token_expiry: bool,
    pub(crate) refreshes_authentication: bool,
    pub(crate) stateful_reconnect: bool,
    pub(crate) stateful_reconnect_buffer_bytes: usize,
    /// Time without connections after which a user is offline.
    pub(crate) presence_grace: Duration,
    pub(crate) history: Vec<RecordedNames>,
    pub(crate) limits: Limits,
}

/// Validates a path, and returns the endpoint's name: `name`, or the last segment of the path.
pub(super) fn checked_name(path: &str, name: Option<&str>) -> Result<String, BuildError> {
    let segment = path.strip_prefix('/').and_then(|rest| rest.rsplit('/').next());
    let bad_path = || BuildError::Path(path.to_owned());
    let segment = segment.ok_or_else(bad_path)?;
    if path.contains(['?', '#']) || (segment.is_empty() && path != "/") {
        return Err(bad_path());
    }
    if path.contains(['{', '}']) {
        return Err(BuildError::PathParameter(path.to_owned()));
    }
    let name = name.unwrap_or(segment);
    if name.is_empty() { Err(BuildError::NoName(path.to_owned())) } else { Ok(name.to_owned()) }
}

/// Validates the sub-protocols of an endpoint: each must be an HTTP token.
pub(super) fn check_sub_protocols(endpoint: &str, names: &[String]) -> Result<(), BuildError> {
    let is_token = |name: &str| {
        let is_mark = |byte| b"!#$%&'*+-.^_`|~".contains(&byte);
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || is_mark(byte))
    };
    match names.iter().find(|name| !is_token(name)) {
        Some(name) => Err(BuildError::SubProtocol { endpoint: endpoint.to_owned(), name: name.clone() }),
        None => Ok(()),
    }
}

/// Validates the patterns of recorded names.
pub(super) fn check_history(hub: &str, history: &[RecordedNames]) -> Result<(), BuildError> {
    let invalid =
        |names: &str, problem: String| BuildError::History { hub: hub.to_owned(), names: names.to_owned(), problem };
    for RecordedNames { names, messages, age_ms, .. } in history {
        let age = Duration::from_millis(*age_ms);
        match Pattern::new(names) {
            Err(error) => return Err(invalid(names, error.to_string())),
            _ if !(1..=HISTORY_MESSAGES_MAX).contains(messages) => {
                return Err(invalid(names, format!("can't keep {messages} messages, but 1 to {HISTORY_MESSAGES_MAX}")));
            }
            _ if !(HISTORY_AGE_MIN..=HISTORY_AGE_MAX).contains(&age) => {
                return Err(invalid(names, format!("can't keep messages for {age:?}, but for 1 s to 30 days")));
            }
            Ok(_) => {}
        }
    }
    match history.get(HISTORY_PATTERNS_MAX) {
        Some(further) => Err(invalid(&further.names, format!("is one of more than {HISTORY_PATTERNS_MAX} patterns"))),
        None => Ok(()),
    }
}

impl HubSettings {
    /// Size of the buffer per client for stateful reconnect; `None` if off or without WebSockets.
    pub(crate) fn reconnect_buffer_bytes(&self) -> Option<usize> {
        let is_possible = self.stateful_reconnect && self.transports.contains(&Transport::WebSockets);
        is_possible.then_some(self.stateful_reconnect_buffer_bytes)
    }

    pub(super) fn manifest(&self, name: &str, path: &str) -> HubManifest {
        HubManifest {
            protocols: self.protocols.iter().map(|protocol| protocol.name().to_owned()).collect(),
            transports: self.transports.clone(),
            sub_protocols: self.sub_protocols.clone(),
            message_max_bytes: self.limits.message_max_bytes,
            keep_alive_interval_ms: millis(self.keep_alive_interval),
            client_timeout_ms: millis(self.limits.client_timeout),
            handshake_timeout_ms: millis(self.handshake_timeout),
            detailed_errors: self.detailed_errors,
            slow_clients: self.slow_clients,
            compress: self.compress,
            authentication: match self.requires_authentication {
                true => Authentication::Required,
                false => Authentication::Optional,
            },
            close_on_token_expiry: self.close_on_token_expiry,
            refreshes_authentication: self.refreshes_authentication,
            stateful_reconnect_buffer_bytes: self.reconnect_buffer_bytes(),
            history: self.history.clone(),
            ..HubManifest::new(name, path)
        }
    }
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Default for HubSettings {
    fn default() -> Self {
        let manifest = HubManifest::new("", "");
        Self {
            protocols: HubProtocol::ALL.to_vec(),
            naming: Naming::default(),
            transports: manifest.transports,
            sub_protocols: manifest.sub_protocols,
            keep_alive_interval: Duration::from_millis(manifest.keep_alive_interval_ms),
            handshake_timeout: Duration::from_millis(manifest.handshake_timeout_ms),
            detailed_errors: manifest.detailed_errors,
            slow_clients: manifest.slow_clients,
            compress: manifest.compress,
            requires_authentication: false,
            close_on_token_expiry: false,
            refreshes_authentication: false,
            stateful_reconnect: false,
            stateful_reconnect_buffer_bytes: STATEFUL_RECONNECT_BUFFER_BYTES,
            presence_grace: PRESENCE_GRACE,
            history: manifest.history,
            limits: Limits::default(),
        }
    }
}
