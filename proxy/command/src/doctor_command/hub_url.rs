//! URL of a hub as given to a client, and the request targets that a client derives from it.

use std::fmt;
use std::str::FromStr;

use http::Uri;
use trunkline_proxy::parts::Address;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HubUrl {
    pub(super) address: Address,
    path: String,
    query: Option<String>,
}

impl HubUrl {
    /// Target of the negotiation, as written by the official client.
    pub(super) fn negotiate_target(&self) -> String {
        let slash = if self.path.ends_with('/') { "" } else { "/" };
        self.target(&format!("{}{slash}negotiate", self.path), "negotiateVersion=1")
    }

    /// Target of a connection's later requests. `access_token` is for transports for which pages can't set headers.
    pub(super) fn connect_target(&self, id: &str, access_token: Option<&str>) -> String {
        let mut pairs = form_urlencoded::Serializer::new(String::new());
        pairs.append_pair("id", id);
        if let Some(token) = access_token {
            pairs.append_pair("access_token", token);
        }
        self.target(&self.path, &pairs.finish())
    }

    /// Target below this URL, without its query.
    pub(super) fn below(&self, path: &str) -> String {
        format!("{}{path}", self.path.trim_end_matches('/'))
    }

    pub(super) fn root(&self) -> Self {
        Self { address: self.address.clone(), path: String::new(), query: None }
    }

    /// Name of the hub in REST: from the query of a dial-in path, or the path without its first slash.
    pub(super) fn hub(&self) -> String {
        let named = self.query.as_deref().filter(|_| self.path.trim_matches('/') == "client");
        let pairs = named.map(|query| form_urlencoded::parse(query.as_bytes()));
        let named = pairs.into_iter().flatten().find_map(|(name, hub)| (name == "hub").then(|| hub.into_owned()));
        named.unwrap_or_else(|| self.path.trim_matches('/').to_owned())
    }

    fn target(&self, path: &str, more: &str) -> String {
        match &self.query {
            Some(query) => format!("{path}?{query}&{more}"),
            None => format!("{path}?{more}"),
        }
    }
}

impl FromStr for HubUrl {
    type Err = String;

    /// Parses an HTTP or WebSocket URL. The error text continues a sentence that begins with the input.
    fn from_str(text: &str) -> Result<Self, String> {
        let example = || "is not a URL of a hub, such as https://chat.example/chat".to_owned();
        let text = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("ws") => format!("http://{rest}"),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("wss") => format!("https://{rest}"),
            _ => text.to_owned(),
        };
        let uri: Uri = text.parse().map_err(|_| example())?;
        if uri.path().trim_end_matches('/').ends_with("/negotiate") {
            return Err("ends in /negotiate, which clients add themselves: give the path of the hub".into());
        }
        let address = Address::try_from(&uri).map_err(|problem| match uri.scheme() {
            Some(_) if problem.starts_with("has") => problem.to_owned(),
            _ => example(),
        })?;
        let query = uri.query().filter(|query| !query.is_empty()).map(str::to_owned);
        Ok(Self { address, path: uri.path().to_owned(), query })
    }
}

/// Formats the URL without its query, which may contain a secret.
impl fmt::Display for HubUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.address, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> HubUrl {
        text.parse().unwrap()
    }

    #[test]
    fn targets_are_those_of_the_official_client() {
        assert_eq!(url("https://x/chat").negotiate_target(), "/chat/negotiate?negotiateVersion=1");
        assert_eq!(url("https://x/chat/?a=b").negotiate_target(), "/chat/negotiate?a=b&negotiateVersion=1");
        assert_eq!(url("wss://x/chat?a=b").connect_target("i+d", Some("t/")), "/chat?a=b&id=i%2Bd&access_token=t%2F");
        assert_eq!(url("http://x").connect_target("id", None), "/?id=id");
    }

    #[test]
    fn the_hub_of_rest_is_the_path_or_named_in_the_query() {
        for (text, hub) in [
            ("http://x/chat?room=1", "chat"),
            ("http://x/client/?hub=a%20b", "a b"),
            ("http://x/live/chat/", "live/chat"),
        ] {
            assert_eq!(url(text).hub(), hub, "{text}");
        }
        assert_eq!(url("http://x/chat?a=b").root().below("/api/health"), "/api/health");
        assert_eq!(url("http://x/live/").below("/api/health"), "/live/api/health");
    }

    #[test]
    fn a_url_is_shown_without_its_query() {
        assert_eq!(url("wss://x/chat?access_token=hush").to_string(), "https://x:443/chat");
    }

    #[test]
    fn an_invalid_hub_url_is_refused_with_the_reason() {
        for text in ["chat.example/chat", "ftp://x/chat", "", "a b"] {
            assert!(text.parse::<HubUrl>().unwrap_err().starts_with("is not a URL of a hub"), "{text}");
        }
        assert!("http://me@x/chat".parse::<HubUrl>().unwrap_err().starts_with("has a user name"));
        assert!("http://x/chat/negotiate".parse::<HubUrl>().unwrap_err().contains("clients add themselves"));
    }
}
