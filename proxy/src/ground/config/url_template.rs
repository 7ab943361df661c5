//! URL templates of webhooks: `https://host/path/{hub}/{category}/{event}?code=SECRET`.
//!
//! Clients choose event names, so a value is percent-encoded, and refused if a server that decodes early would see dot
//! segments. Only the operator chooses scheme and host.

use std::fmt;
use std::str::FromStr;

use http::uri::PathAndQuery;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::ground::net::address::Address;

/// Maximum length of a template.
const TEMPLATE_MAX_BYTES: usize = 2048;

/// Escaped bytes of a value: all but the unreserved characters of RFC 3986.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Error of a template that is not a URL.
const NO_URL: &str =
    "is not a URL: a path and a query contain no spaces and only ASCII characters; escape others, as %20";

/// Error of a value that can't replace its placeholder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ExpandError {
    #[error("an empty name can't stand in a URL")]
    Empty,
    #[error("a name with `.` or `..` as a part of a path can't stand in a URL")]
    Dots,
    #[error("the URL would be too long")]
    TooLong,
}

/// URL template of a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlTemplate {
    address: Address,
    parts: Vec<TemplatePart>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum TemplatePart {
    Text(Box<str>),
    Place(Placeholder),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Placeholder {
    Hub,
    Category,
    Event,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct TemplateValues<'a> {
    pub hub: &'a str,
    pub category: &'a str,
    pub event: &'a str,
}

impl Placeholder {
    fn from_name(name: &str) -> Option<Self> {
        match name {
            "hub" => Some(Self::Hub),
            "category" => Some(Self::Category),
            "event" => Some(Self::Event),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Hub => "{hub}",
            Self::Category => "{category}",
            Self::Event => "{event}",
        }
    }

    fn value<'a>(self, values: TemplateValues<'a>) -> &'a str {
        match self {
            Self::Hub => values.hub,
            Self::Category => values.category,
            Self::Event => values.event,
        }
    }
}

impl UrlTemplate {
    /// Server of the template.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Expands the template into path and query. Fails if a value would reach beyond its placeholder.
    pub(crate) fn expand(&self, values: TemplateValues<'_>) -> Result<PathAndQuery, ExpandError> {
        let mut target = String::new();
        for part in &self.parts {
            match part {
                TemplatePart::Text(text) => target.push_str(text),
                TemplatePart::Place(place) => {
                    let value = place.value(values);
                    if value.is_empty() {
                        return Err(ExpandError::Empty);
                    }
                    target.extend(utf8_percent_encode(value, ESCAPED));
                }
            }
        }
        if self.has_dots_beyond_its_own(&target) {
            return Err(ExpandError::Dots);
        }
        target.parse().map_err(|_| ExpandError::TooLong)
    }

    /// Whether a server that decodes a path before splitting it would see more dot segments than the template has.
    fn has_dots_beyond_its_own(&self, target: &str) -> bool {
        dot_parts(target) > dot_parts(&self.text())
    }

    fn text(&self) -> String {
        let text = |part: &TemplatePart| match part {
            TemplatePart::Text(text) => text.to_string(),
            TemplatePart::Place(place) => place.name().to_owned(),
        };
        self.parts.iter().map(text).collect()
    }
}

/// Number of `.` and `..` segments in a path after decoding.
fn dot_parts(target: &str) -> usize {
    let path = target.split('?').next().unwrap_or_default();
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    decoded.split(['/', '\\']).filter(|part| matches!(*part, "." | "..")).count()
}

impl FromStr for UrlTemplate {
    type Err = String;

    /// Parses a template. The error text is worded to follow the input.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() > TEMPLATE_MAX_BYTES {
            let bytes = text.len();
            return Err(format!("has {bytes} bytes, but a URL template has at most {TEMPLATE_MAX_BYTES}"));
        }
        let host_at = text.find("://").map_or(0, |at| at + 3);
        let behind = text.get(host_at..).unwrap_or_default();
        let target_at = behind.find(['/', '?', '#']).map_or(text.len(), |at| host_at + at);
        let (server, target) = text.split_at(target_at);
        let address = server.parse()?;
        if target.contains('#') {
            return Err("has a fragment (#), which is never sent: leave it out".into());
        }
        let slash = if target.starts_with('/') { "" } else { "/" };
        let template = Self { address, parts: parts(&format!("{slash}{target}"))? };
        let sample = TemplateValues { hub: "hub", category: "connections", event: "connected" };
        template.expand(sample).map_err(|_| NO_URL)?;
        Ok(template)
    }
}

fn parts(mut rest: &str) -> Result<Vec<TemplatePart>, String> {
    let mut parts = Vec::new();
    while let Some((text, behind)) = rest.split_once('{') {
        let unknown = |name: &str| {
            let name = name.split('?').next().unwrap_or_default();
            format!("has {{{name}}}; only {{hub}}, {{category}} and {{event}} are allowed, after the host")
        };
        let (name, behind) = behind.split_once('}').ok_or_else(|| unknown(behind))?;
        let place = Placeholder::from_name(name).ok_or_else(|| unknown(name))?;
        parts.push(TemplatePart::Text(text.into()));
        parts.push(TemplatePart::Place(place));
        rest = behind;
    }
    if !rest.bytes().chain(parts.iter().flat_map(TemplatePart::bytes)).all(|byte| byte.is_ascii_graphic()) {
        return Err(NO_URL.into());
    }
    parts.push(TemplatePart::Text(rest.into()));
    Ok(parts)
}

impl TemplatePart {
    fn bytes(&self) -> impl Iterator<Item = u8> {
        match self {
            Self::Text(text) => text.bytes(),
            Self::Place(place) => place.name().bytes(),
        }
    }
}

impl fmt::Display for UrlTemplate {
    /// Formats the template without its query, which may hold a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.text();
        let path = text.split('?').next().unwrap_or_default();
        write!(f, "{}{path}", self.address)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn template(text: &str) -> UrlTemplate {
        text.parse().unwrap()
    }

    fn expanded(text: &str, event: &str) -> Result<String, ExpandError> {
        let values = TemplateValues { hub: "chat", category: "messages", event };
        template(text).expand(values).map(|target| target.to_string())
    }

    #[test]
    fn values_fill_their_places_and_are_escaped() {
        let all = "http://app:5000/hooks/{hub}/{category}/{event}?code=a%20b&e={event}";
        assert_eq!(expanded(all, "Say").unwrap(), "/hooks/chat/messages/Say?code=a%20b&e=Say");
        assert_eq!(expanded("http://app/{event}", "a/b?c#d&e=f g%").unwrap(), "/a%2Fb%3Fc%23d%26e%3Df%20g%25");
        assert_eq!(expanded("http://app/x-{event}", "Grüße").unwrap(), "/x-Gr%C3%BC%C3%9Fe");
        assert_eq!(expanded("http://app", "Say").unwrap(), "/");
        assert_eq!(expanded("http://app?e={event}", "Say").unwrap(), "/?e=Say");
        assert_eq!(expanded("http://app/a/../{event}", "Say").unwrap(), "/a/../Say", "the operator's own dots stay");
    }

    #[test]
    fn a_value_that_would_leave_its_place_is_refused() {
        for event in [".", "..", "../x", "x/..", "a/../b", "a\\..\\b", "./"] {
            assert_eq!(expanded("http://app/hooks/{event}", event), Err(ExpandError::Dots), "{event}");
        }
        assert_eq!(expanded("http://app/hooks/.{event}", "."), Err(ExpandError::Dots));
        assert_eq!(expanded("http://app/{event}", ""), Err(ExpandError::Empty));
        assert_eq!(expanded("http://app/{event}", &"x".repeat(70_000)), Err(ExpandError::TooLong));
        assert_eq!(expanded("http://app/hooks/{event}", "...").unwrap(), "/hooks/...");
        assert_eq!(expanded("http://app/hooks/{event}", "a..b").unwrap(), "/hooks/a..b");
    }

    #[test]
    fn a_text_that_is_no_template_is_refused_with_the_reason() {
        for (text, reason) in [
            ("app/{event}", "is not a URL"),
            ("ftp://app/", "is not a URL"),
            ("http://{hub}.example/", "is not a URL"),
            ("http://me@app/", "has a user name"),
            ("http://app/#x", "has a fragment"),
            ("http://app/{method}", "has {method}; only {hub}, {category} and {event} are allowed"),
            ("http://app/{event", "has {event"),
            ("http://app/a b", "is not a URL"),
            ("http://app/ü", "is not a URL"),
        ] {
            let problem = text.parse::<UrlTemplate>();
            assert!(problem.as_ref().is_err_and(|problem| problem.starts_with(reason)), "{text}: {problem:?}");
        }
    }

    #[test]
    fn what_is_shown_holds_no_query() {
        assert_eq!(template("https://app.example/{event}?code=secret").to_string(), "https://app.example:443/{event}");
    }

    proptest! {
        #[test]
        fn no_value_changes_the_shape_of_a_url(event in ".{0,40}", prefix in "[a-z.]{0,3}") {
            let text = format!("http://app/hooks/{prefix}{{event}}/end?code=x&e={{event}}");
            let values = TemplateValues { hub: "chat", category: "messages", event: &event };
            if let Ok(target) = template(&text).expand(values) {
                let (path, query) = (target.path(), target.query().unwrap());
                let segments: Vec<_> = path.split('/').collect();
                prop_assert_eq!(segments.len(), 4);
                prop_assert!(segments[1] == "hooks" && segments[3] == "end");
                let decoded = percent_decode_str(segments[2]).decode_utf8().unwrap();
                prop_assert_eq!(&*decoded, format!("{prefix}{event}"));
                prop_assert!(decoded.split(['/', '\\']).all(|part| part != "." && part != ".."));
                let pairs: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
                prop_assert_eq!(pairs, [("code".into(), "x".into()), ("e".into(), event.as_str().into())]);
            }
        }

        #[test]
        fn no_text_makes_a_template_panic(text in ".{0,60}") {
            drop(text.parse::<UrlTemplate>());
            drop(format!("http://app/{text}").parse::<UrlTemplate>());
        }
    }
}
