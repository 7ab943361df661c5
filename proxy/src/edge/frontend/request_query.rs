//! Query of a request: parsed once, during normalisation, and read by later steps.
//!
//! Strangers choose the number of pairs, and many steps look up a parameter. So pairs are decoded once, and limited for
//! requests to hubs.

use std::borrow::Cow;
use std::sync::Arc;

use bytestring::ByteString;
use http::Uri;
use trunkline_protocol::key::AccessKeys;
use trunkline_protocol::token::ConnectionToken;
use trunkline_protocol::wire::{ACCESS_TOKEN_PARAMETER, CONNECTION_TOKEN_PARAMETER};

/// Maximum number of query pairs in a request to a hub.
pub(crate) const QUERY_PAIRS_MAX: usize = 256;

const SECRET_PARAMETERS: [&str; 2] = [ACCESS_TOKEN_PARAMETER, CONNECTION_TOKEN_PARAMETER];

/// Parsed query. Clones share memory.
#[derive(Debug, Clone)]
pub(crate) enum RequestQuery {
    /// Decoded pairs: one per part between two `&`.
    Parsed(Arc<[QueryPair]>),
    /// More pairs than a hub accepts; none are parsed.
    TooManyPairs,
}

/// Name and value of a parameter; both are empty for an empty part.
#[derive(Debug, Clone, Default)]
pub(crate) struct QueryPair {
    name: Box<str>,
    value: Box<str>,
}

impl RequestQuery {
    pub(crate) fn parse(uri: &Uri) -> Self {
        let query = uri.query().unwrap_or_default();
        if query.bytes().filter(|byte| *byte == b'&').count() >= QUERY_PAIRS_MAX {
            return Self::TooManyPairs;
        }
        if query.is_empty() {
            return Self::Parsed(Arc::default());
        }
        let decoded = |part: &str| {
            let pair = form_urlencoded::parse(part.as_bytes()).next();
            pair.map_or_else(QueryPair::default, |(name, value)| QueryPair {
                name: name.into_owned().into(),
                value: value.into_owned().into(),
            })
        };
        Self::Parsed(query.split('&').map(decoded).collect())
    }

    pub(crate) fn has_too_many_pairs(&self) -> bool {
        matches!(self, Self::TooManyPairs)
    }

    fn pairs(&self) -> &[QueryPair] {
        match self {
            Self::Parsed(pairs) => pairs,
            Self::TooManyPairs => &[],
        }
    }

    /// Returns the last value of a parameter, matched case-insensitively. Client libraries append theirs to the query
    /// of the app's URL, which may contain other values.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.pairs().iter().rfind(|pair| pair.name.eq_ignore_ascii_case(name)).map(|pair| &*pair.value)
    }

    pub(crate) fn values_of_exactly(&self, name: &str) -> impl Iterator<Item = &str> {
        self.pairs().iter().filter(move |pair| &*pair.name == name).map(|pair| &*pair.value)
    }

    /// Returns the sealed connection token of a request. An empty one counts as missing, as in ASP.NET Core.
    pub(crate) fn connection_token(&self) -> Option<&str> {
        self.value(CONNECTION_TOKEN_PARAMETER).filter(|sealed| !sealed.is_empty())
    }

    /// Opens the connection token of a request, if issued by this fleet. Returns it with the id of its connection.
    pub(crate) fn open_token(&self, keys: &AccessKeys) -> Option<(ConnectionToken, String)> {
        let sealed = self.connection_token()?;
        let token = ConnectionToken::open(sealed, keys).ok()?;
        let id = token.connection_id.clone().unwrap_or_else(|| sealed.to_owned());
        Some((token, id))
    }

    /// Returns the query for the hub, with its `?`, unchanged except for removed secrets. The hub gets claims and an
    /// id; it would only keep the secrets in memory.
    pub(crate) fn for_hub(&self, uri: &Uri) -> Option<ByteString> {
        let query = uri.query()?;
        let is_secret = |name: &str| SECRET_PARAMETERS.iter().any(|secret| name.eq_ignore_ascii_case(secret));
        let mut kept = String::with_capacity(query.len() + 1);
        let mut keep = |part: &str| {
            kept.push(if kept.is_empty() { '?' } else { '&' });
            kept.push_str(part);
        };
        match self {
            Self::Parsed(pairs) => {
                let parts = query.split('&').zip(pairs.iter());
                parts.filter(|(_, pair)| !is_secret(&pair.name)).for_each(|(part, _)| keep(part));
            }
            // For passed-through requests; a rule may test the query.
            Self::TooManyPairs => query.split('&').filter(|part| !is_secret(&name_of(part))).for_each(keep),
        }
        // The app server gets no query instead of an empty one.
        (kept.len() > 1).then(|| kept.into())
    }
}

fn name_of(part: &str) -> Cow<'_, str> {
    form_urlencoded::parse(part.as_bytes()).next().map(|(name, _)| name).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(uri: &str) -> RequestQuery {
        RequestQuery::parse(&uri.parse().unwrap())
    }

    #[test]
    fn query_keys_match_without_regard_to_case_and_the_last_value_counts() {
        let query = query("/chat?id=own&ID=a%2Bb&x=1");
        assert_eq!(query.value("id"), Some("a+b"));
        assert_eq!((query.value("none"), query.values_of_exactly("X").next()), (None, None));
    }

    #[test]
    fn an_empty_connection_token_counts_as_missing() {
        let token = |uri: &str| query(uri).connection_token().map(str::to_owned);
        assert_eq!(token("/chat?id=a").as_deref(), Some("a"));
        assert_eq!((token("/chat?id="), token("/chat?id"), token("/chat")), (None, None, None));
    }

    #[test]
    fn the_hub_sees_the_query_without_secrets() {
        let seen = |uri: &str| query(uri).for_hub(&uri.parse().unwrap());
        assert_eq!(seen("/chat?ID=a%2Bb&x=%201&access_token=e.y.J&y").as_deref(), Some("?x=%201&y"));
        assert_eq!(seen("/chat?%69d=1&access%5Ftoken=e.y.J&y").as_deref(), Some("?y"));
        assert_eq!(seen("/chat?a&&b=&").as_deref(), Some("?a&&b=&"));
        assert_eq!((seen("/chat?id=1&"), seen("/chat?")), (None, None));
        assert_eq!(seen("/chat"), None);
    }

    #[test]
    fn a_query_of_more_pairs_than_a_hub_takes_is_not_parsed_and_keeps_no_secret() {
        let most = format!("/chat?id=1{}", "&a".repeat(QUERY_PAIRS_MAX - 1));
        assert_eq!(query(&most).connection_token(), Some("1"));
        let more = format!("{most}&access_token=x");
        assert!(query(&more).has_too_many_pairs() && query(&more).connection_token().is_none());
        let expected = format!("?a{}", "&a".repeat(QUERY_PAIRS_MAX - 2));
        assert_eq!(query(&more).for_hub(&more.parse().unwrap()).as_deref(), Some(expected.as_str()));
    }
}
