//! Audiences of access tokens that name a part of the service, in Azure SignalR's form `http://HOST/client/?hub=H`.
//!
//! Host, port and path prefix are ignored, because a node behind a load balancer can't verify them.

use percent_encoding::percent_decode_str;

const SERVER: &str = "/server";
const CLIENT: &str = "/client";

/// Path prefix of the REST data plane.
const DATA_PLANE: &str = "/api";

/// Part of the service named by an audience.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServicePart {
    /// Links of app servers.
    Server,
    /// Clients of a hub. The name is empty if the audience names no hub or several.
    Client(String),
    /// The REST data plane, or a part of it.
    DataPlane,
}

impl ServicePart {
    /// Parses an audience. Returns `None` for an app's own audience.
    #[must_use]
    pub fn of(audience: &str) -> Option<Self> {
        let (_, rest) = audience.split_once("://")?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = place.get(place.find('/')?..)?.trim_end_matches('/').to_ascii_lowercase();
        if path.ends_with(SERVER) {
            Some(Self::Server)
        } else if path.ends_with(CLIENT) {
            Some(Self::Client(hub(query).unwrap_or_default()))
        } else if path.ends_with(DATA_PLANE) || path.contains("/api/") {
            Some(Self::DataPlane)
        } else {
            None
        }
    }
}

fn hub(query: &str) -> Option<String> {
    let mut hubs = query.split('&').filter_map(|pair| pair.strip_prefix("hub="));
    // With several `hub=`, one may be part of an unescaped name.
    let (Some(hub), None) = (hubs.next(), hubs.next()) else { return None };
    let plain = hub.replace('+', " ");
    percent_decode_str(&plain).decode_utf8().ok().map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_the_service_are_recognized_below_any_host_and_prefix() {
        let client = |hub: &str| Some(ServicePart::Client(hub.into()));
        for (audience, part) in [
            ("http://a/server/?hub=chat", Some(ServicePart::Server)),
            ("https://a.example:1/x/Server?hub=chat", Some(ServicePart::Server)),
            ("http://a/client/?hub=chat", client("chat")),
            ("http://a/client?x=1&hub=Shop_Chat", client("Shop_Chat")),
            ("http://a/live/client/?hub=a%26b+c", client("a&b c")),
            ("http://a/client/", client("")),
            ("http://a/client/?hub=a&hub=b", client("")),
            ("http://a/api/", Some(ServicePart::DataPlane)),
            ("http://a/api", Some(ServicePart::DataPlane)),
            ("http://a/live/api/hubs/chat/", Some(ServicePart::DataPlane)),
            ("http://a/", None),
            ("http://a", None),
            ("http://a?/api/", None),
            ("https://a/clients/", None),
            ("https://a/apis/", None),
            ("/client/?hub=chat", None),
            ("chat", None),
            ("", None),
        ] {
            assert_eq!(ServicePart::of(audience), part, "{audience}");
        }
    }
}
