//! Settings of webhook hubs: the tables `[webhooks.NAME]` of a configuration file, and headers of their requests.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use http::header::{ACCEPT_ENCODING, EXPECT, HOST, TRAILER};
use http::{HeaderMap, HeaderName, HeaderValue};
use trunkline_protocol::manifest::HubManifest;
use trunkline_protocol::pattern::Pattern;
use trunkline_protocol::wire::{PRIVATE_HEADER_PREFIX, SERVICE_EVENT_HEADER_PREFIX, SERVICE_HEADER_PREFIX};

use crate::ground::net::http_client::HOP_BY_HOP;

/// Table with the settings of a webhook hub, or of all hubs of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WebhookTable {
    pub(crate) hubs: Pattern,
    pub(crate) settings: Arc<WebhookHubSettings>,
    /// Keys of the table, for people.
    pub(crate) keys: String,
}

/// Settings of a webhook hub. Those that are `None` follow the flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WebhookHubSettings {
    /// Settings that a hub with app servers has in its manifest. Name, path, size and `asks_app` are not of the table.
    pub(crate) manifest: HubManifest,
    pub(crate) message_max_bytes: Option<usize>,
    pub(crate) requires_authentication: Option<bool>,
    /// Whether the back end is asked about each client before it is let in.
    pub(crate) connect: Option<bool>,
    /// Whether the back end receives events about users.
    pub(crate) presence: Option<bool>,
    pub(crate) events: WebhookEvents,
    /// Headers of each request, in addition to those of flags.
    pub(crate) headers: Vec<WebhookHeader>,
}

/// Events that a back end receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WebhookEvents {
    pub(crate) connected: bool,
    pub(crate) messages: bool,
    pub(crate) disconnected: bool,
}

impl Default for WebhookHubSettings {
    fn default() -> Self {
        Self {
            manifest: HubManifest::new("", ""),
            message_max_bytes: None,
            requires_authentication: None,
            connect: None,
            presence: None,
            events: WebhookEvents { connected: true, messages: true, disconnected: true },
            headers: Vec::new(),
        }
    }
}

impl fmt::Display for WebhookTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "webhook hub \"{}\" has its own {}", self.hubs, self.keys)
    }
}

/// Header of each request of a webhook. The value may be a secret, so no text contains it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookHeader {
    name: HeaderName,
    value: HeaderValue,
}

impl WebhookHeader {
    /// Writes headers into a request. They replace headers of the same names.
    pub(crate) fn set_all(headers: &[Self], head: &mut HeaderMap) {
        for header in headers {
            head.remove(&header.name);
        }
        for header in headers {
            head.append(&header.name, header.value.clone());
        }
    }
}

impl FromStr for WebhookHeader {
    type Err = String;

    /// Parses `Name: value`. No error text contains the value.
    fn from_str(text: &str) -> Result<Self, String> {
        let pair =
            text.split_once(':').map(|(name, value)| (name, value.trim())).filter(|(_, value)| !value.is_empty());
        let (name, value) = pair.ok_or("not `Name: value`, such as `X-Gateway-Key: …`")?;
        // The name may be a secret, too.
        let no_name = |_| "its name is not the name of a header: letters, digits and `-`";
        let name: HeaderName = name.trim().parse().map_err(no_name)?;
        if name == TRAILER || HOP_BY_HOP.contains(&name) {
            return Err(format!("{name} is about the connection to the back end, which the node manages"));
        }
        let of_node = [PRIVATE_HEADER_PREFIX, SERVICE_HEADER_PREFIX, SERVICE_EVENT_HEADER_PREFIX, "content-"];
        let is_of_node = of_node.iter().any(|prefix| name.as_str().starts_with(prefix));
        if is_of_node || [HOST, ACCEPT_ENCODING, EXPECT].contains(&name) {
            let problem = "is set by the node in each request, and a second value would contradict the first one";
            return Err(format!("{name} {problem}"));
        }
        let mut value = HeaderValue::from_str(value)
            .map_err(|_| format!("the value of {name} has control characters, which no header may have"))?;
        value.set_sensitive(true);
        Ok(Self { name, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_that_the_node_sets_or_that_is_about_the_connection_is_refused() {
        for (text, words) in [
            ("hush", "not `Name: value`"),
            ("X-Key:  ", "not `Name: value`"),
            ("hush hush: x", "its name is not the name"),
            ("X-Key: hush\u{1}", "the value of x-key has control"),
            ("X-ASRS-Hub: hush", "x-asrs-hub is set by the node"),
            ("x-trunkline-signature: hush", "is set by the node"),
            ("Content-Type: hush", "is set by the node"),
            ("Host: hush", "is set by the node"),
            ("Transfer-Encoding: hush", "is about the connection"),
            ("proxy-authorization: hush", "is about the connection"),
        ] {
            let problem = text.parse::<WebhookHeader>().unwrap_err().to_string();
            assert!(problem.contains(words) && !problem.contains("hush"), "{text}: {problem}");
        }
    }

    #[test]
    fn headers_replace_those_of_the_same_names_and_are_not_shown() {
        let header = |text: &str| text.parse::<WebhookHeader>().unwrap();
        let mut head = HeaderMap::new();
        WebhookHeader::set_all(&[header("Authorization: Basic hush"), header("X-A: 1"), header("x-a: 2")], &mut head);
        WebhookHeader::set_all(&[header("authorization: Bearer hush")], &mut head);
        assert_eq!(head["authorization"], "Bearer hush");
        assert_eq!(head.get_all("x-a").iter().count(), 2);
        assert!(!format!("{:?}", header("X-A: hush")).contains("hush"));
    }
}
