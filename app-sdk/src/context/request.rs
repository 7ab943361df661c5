//! Claims, headers and query of a connect request.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::connection::ConnectRequest;

/// Claims of a user, in their original order. Names may repeat, for example for several roles.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims(Pairs);

/// Query of a connect request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    raw: String,
    pairs: Pairs,
}

type Pairs = Vec<(String, String)>;

impl Claims {
    pub(crate) fn from_request(request: &ConnectRequest) -> Self {
        Self(request.claims())
    }

    pub(crate) fn of_pairs(pairs: Vec<(String, String)>) -> Self {
        Self(pairs)
    }

    /// First value with this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.get_all(name).next()
    }

    /// All values with this name.
    pub fn get_all(&self, name: &str) -> impl Iterator<Item = &str> {
        all(&self.0, name)
    }

    /// All claims, as names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        iter(&self.0)
    }
}

impl Query {
    pub(crate) fn new(raw: &str) -> Self {
        Self { raw: raw.to_owned(), pairs: form_urlencoded::parse(raw.as_bytes()).into_owned().collect() }
    }

    /// The raw query, without the `?`.
    #[must_use]
    pub fn raw(&self) -> &str {
        &self.raw
    }

    /// First value with this name, decoded.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.get_all(name).next()
    }

    /// All values with this name, decoded.
    pub fn get_all(&self, name: &str) -> impl Iterator<Item = &str> {
        all(&self.pairs, name)
    }

    /// All names and values, decoded.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        iter(&self.pairs)
    }
}

/// Headers of a connect request. Invalid headers are omitted.
pub(crate) fn headers(request: &ConnectRequest) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, values) in request.headers() {
        let Ok(name) = HeaderName::try_from(&*name) else { continue };
        for value in values {
            if let Ok(value) = HeaderValue::try_from(&*value) {
                map.append(name.clone(), value);
            }
        }
    }
    map
}

fn iter(pairs: &Pairs) -> impl Iterator<Item = (&str, &str)> {
    pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()))
}

fn all<'a>(pairs: &'a Pairs, wanted: &str) -> impl Iterator<Item = &'a str> {
    iter(pairs).filter(move |(name, _)| *name == wanted).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded_and_names_may_repeat() {
        let query = Query::new("room=a%20b&room=c+d&flag");
        assert_eq!(query.raw(), "room=a%20b&room=c+d&flag");
        assert_eq!(query.get_all("room").collect::<Vec<_>>(), ["a b", "c d"]);
        assert_eq!(query.get("flag"), Some(""));
        assert_eq!(query.get("none"), None);
    }
}
