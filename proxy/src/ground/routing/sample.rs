//! Sample connection, request or message for `trunkline check`, which explains the rules' effect on it.

use std::net::IpAddr;
use std::str::FromStr;

use bytestring::ByteString;
use http::header::COOKIE;

use super::route_condition::RouteFacts;
use super::rule_error::nearest;

const KEYS: [&str; 11] =
    ["hub", "path", "query", "user", "address", "target", "bytes", "connection", "header", "cookie", "claim"];

/// Keys with a name after a colon.
const NAMED_KEYS: [&str; 3] = ["header", "cookie", "claim"];

/// Sample of a connection, a request or a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleSample {
    /// Text that was parsed.
    pub text: String,
    hub: Option<String>,
    path: Option<String>,
    query: Option<String>,
    user: Option<String>,
    address: Option<IpAddr>,
    connection: Option<String>,
    headers: Vec<(ByteString, Vec<ByteString>)>,
    claims: Vec<(ByteString, ByteString)>,
    /// Method of an invocation.
    pub target: Option<String>,
    /// Size of the message in bytes.
    pub bytes: Option<usize>,
}

impl RuleSample {
    pub(crate) fn facts(&self) -> RouteFacts<'_> {
        RouteFacts {
            hub: self.hub.as_deref(),
            path: self.path.as_deref().or(self.hub.as_deref()).unwrap_or("/"),
            query: self.query.as_deref(),
            headers: &self.headers,
            claims: &self.claims,
            user: self.user.as_deref(),
            address: self.address,
            connection_id: self.connection.as_deref(),
        }
    }

    fn set(&mut self, key: &str, name: Option<&str>, value: &str) -> Result<(), String> {
        if NAMED_KEYS.contains(&key) != name.is_some() && KEYS.contains(&key) {
            return Err(format!("{key} needs a name, as in {key}:x-tenant=acme; other keys have none"));
        }
        let name = name.unwrap_or_default();
        match key {
            "hub" => once(&mut self.hub, key, rooted(value)),
            "path" => once(&mut self.path, key, rooted(value)),
            "query" => once(&mut self.query, key, value.to_owned()),
            "user" => once(&mut self.user, key, value.to_owned()),
            "connection" => once(&mut self.connection, key, value.to_owned()),
            "target" => once(&mut self.target, key, value.to_owned()),
            "address" => {
                let address = value.parse().map_err(|_| format!("address {value:?} is not an IP address"))?;
                once(&mut self.address, key, address)
            }
            "bytes" => {
                let bytes = value.parse().map_err(|_| format!("bytes is {value:?}, but must be a number"))?;
                once(&mut self.bytes, key, bytes)
            }
            "header" => {
                self.headers.push((name.into(), vec![value.into()]));
                Ok(())
            }
            "cookie" => {
                self.headers.push((COOKIE.as_str().into(), vec![format!("{name}={value}").into()]));
                Ok(())
            }
            "claim" => {
                self.claims.push((name.into(), value.into()));
                Ok(())
            }
            _ => {
                let nearest = nearest(key, KEYS.into_iter());
                let suggestion = nearest.map(|nearest| format!("; is {nearest:?} meant?")).unwrap_or_default();
                Err(format!("unknown key {key:?}{suggestion}; allowed: {}", KEYS.join(", ")))
            }
        }
    }
}

fn once<T>(field: &mut Option<T>, key: &str, value: T) -> Result<(), String> {
    match field.replace(value) {
        Some(_) => Err(format!("{key} is given twice")),
        None => Ok(()),
    }
}

/// Adds a missing leading slash to a path.
fn rooted(path: &str) -> String {
    let slash = if path.starts_with('/') { "" } else { "/" };
    format!("{slash}{path}")
}

impl FromStr for RuleSample {
    type Err = String;

    /// Parses space-separated pairs such as `hub=chat user=ann header:x-tenant=acme`.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut sample = Self { text: text.trim().to_owned(), ..Self::default() };
        for word in text.split_whitespace() {
            let (key, value) =
                word.split_once('=').ok_or_else(|| format!("{word:?} is not a pair such as user=ann"))?;
            match key.split_once(':') {
                Some((key, name)) => sample.set(key, Some(name), value)?,
                None => sample.set(key, None, value)?,
            }
        }
        match (&sample.hub, &sample.path) {
            (None, None) => Err("a sample needs a hub, or the path of a passed-through request".into()),
            (None, _) if sample.target.is_some() || sample.bytes.is_some() => {
                Err("target and bytes describe messages, which need a hub".into())
            }
            _ => Ok(sample),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_become_facts() {
        let sample: RuleSample = "hub=chat user=ann query=a=1&b address=::1 connection=id target=Say bytes=9 \
                                  header:x-tenant=acme cookie:c=1 claim:role=admin"
            .parse()
            .unwrap();
        let facts = sample.facts();
        assert_eq!((facts.hub, facts.path, facts.user), (Some("/chat"), "/chat", Some("ann")));
        assert_eq!((facts.query, facts.connection_id), (Some("a=1&b"), Some("id")));
        assert_eq!((facts.headers.len(), facts.claims.len(), facts.address), (2, 1, "::1".parse().ok()));
        assert_eq!((sample.target.as_deref(), sample.bytes), (Some("Say"), Some(9)));
        let request: RuleSample = "path=old/a".parse().unwrap();
        assert_eq!((request.facts().hub, request.facts().path), (None, "/old/a"));
    }

    #[test]
    fn texts_that_are_no_samples_are_refused_with_the_reason() {
        for (text, problem) in [
            ("hub", "\"hub\" is not a pair such as user=ann"),
            ("hub=chat usr=ann", "unknown key \"usr\"; is \"user\" meant?; allowed: hub, path, query"),
            ("hub=chat header=x", "header needs a name, as in header:x-tenant=acme"),
            ("hub:x=chat", "hub needs a name"),
            ("hub=chat hub=news", "hub is given twice"),
            ("hub=chat address=home", "address \"home\" is not an IP address"),
            ("hub=chat bytes=many", "bytes is \"many\", but must be a number"),
            ("path=/a target=Say", "target and bytes describe messages, which need a hub"),
            ("user=ann", "a sample needs a hub, or the path"),
            ("", "a sample needs a hub, or the path"),
        ] {
            let found = text.parse::<RuleSample>().unwrap_err();
            assert!(found.starts_with(problem), "{found}");
        }
    }
}
