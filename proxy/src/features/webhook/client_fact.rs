//! Facts about a client sent with each of its events as header values: user, claims and query.

use bytestring::ByteString;
use http::HeaderValue;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use trunkline_protocol::service::OpenConnection;
use trunkline_protocol::wire::{PRIVATE_CLAIM_PREFIX, USER_ID_CLAIM};

use super::connect_answer::CONNECT_CLAIM;

/// Escaped characters of a text with a blank at an end.
const ESCAPED: &AsciiSet = &CONTROLS.add(b' ').add(b'%');

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ClientFacts {
    pub(super) user: Option<HeaderValue>,
    /// Claims of the user as `type: value, type: value` in one header, because servers limit the number of headers.
    pub(super) claims: Option<HeaderValue>,
    pub(super) query: Option<HeaderValue>,
    /// Data that the back end gave the client when it connected.
    pub(super) data: Option<HeaderValue>,
}

impl ClientFacts {
    pub(super) fn from_opening(open: &OpenConnection) -> Self {
        let user = open.claims.iter().find(|(name, _)| *name == USER_ID_CLAIM);
        Self {
            user: user.map(|(_, id)| header_text(id)),
            claims: claims_line(&open.claims),
            query: open.query.as_deref().map(header_text),
            data: None,
        }
    }

    #[must_use]
    pub(super) fn with_data(self, data: Option<&str>) -> Self {
        Self { data: data.map(header_text), ..self }
    }

    /// Copy with the claims of a refreshed sign-in.
    pub(super) fn refreshed(&self, claims: &[(ByteString, ByteString)]) -> Self {
        Self {
            user: self.user.clone(),
            claims: claims_line(claims),
            query: self.query.clone(),
            data: self.data.clone(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let texts = [&self.user, &self.claims, &self.query, &self.data].into_iter().flatten();
        texts.map(|text| size_of::<HeaderValue>() + text.len()).sum()
    }
}

/// Claims in one line, without the service's private claims.
fn claims_line(claims: &[(ByteString, ByteString)]) -> Option<HeaderValue> {
    let is_users =
        |(name, _): &&(ByteString, ByteString)| !name.starts_with(PRIVATE_CLAIM_PREFIX) && *name != CONNECT_CLAIM;
    let claims = claims.iter().filter(is_users).map(|(name, value)| claim_text(name, value));
    let claims: Vec<_> = claims.map(|text| header_value(&text).unwrap_or_else(|| escaped(&text, CONTROLS))).collect();
    let line = claims.iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(b", ".as_slice());
    HeaderValue::from_bytes(line.trim_ascii()).ok().filter(|line| !line.is_empty())
}

/// Writes a claim as Azure's service does, but escapes a comma where the rest would read as another claim. Azure's
/// readers split at commas, then at `: `; others may split at `:`.
fn claim_text(name: &str, value: &str) -> String {
    let text = format!("{name}: {value}");
    let is_forged = text.split_once(',').is_some_and(|(_, rest)| rest.contains(':'));
    if is_forged { text.replace(',', "%2C") } else { text }
}

/// Converts a client's text to a header value. A text with control characters, which could start another header, or
/// with a blank at an end, which servers remove, is escaped. Otherwise UTF-8 is unchanged.
pub(super) fn header_text(text: &str) -> HeaderValue {
    let is_whole = text.trim_ascii() == text;
    match header_value(text).filter(|_| is_whole) {
        Some(plain) => plain,
        None => escaped(text, if is_whole { CONTROLS } else { ESCAPED }),
    }
}

fn header_value(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_bytes(text.as_bytes()).ok()
}

fn escaped(text: &str, characters: &'static AsciiSet) -> HeaderValue {
    let escaped = utf8_percent_encode(text, characters).to_string();
    HeaderValue::from_str(&escaped).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_of_the_service_stay_here_and_the_user_is_named_apart() {
        let claims = [("asrs.s.uid", "ann"), ("role", "cook"), ("role", "grüß")];
        let claims = claims.map(|(name, value)| (name.into(), value.into())).into();
        let open = OpenConnection { claims, query: Some("?a=1".into()), ..OpenConnection::default() };
        let facts = ClientFacts::from_opening(&open);
        assert_eq!(facts.claims.unwrap(), "role: cook, role: grüß");
        assert_eq!((facts.user.unwrap(), facts.query.unwrap()), ("ann".parse().unwrap(), "?a=1".parse().unwrap()));
    }

    #[test]
    fn no_claim_begins_another_one_and_all_others_are_written_as_they_are() {
        let claims = [
            ("name", "Doe, John"),
            ("city", "X, role: chef"),
            ("town", "X,role:chef"),
            ("a,b", "c"),
            ("at", "10: 30"),
            ("text", "a\nb"),
        ];
        let claims = claims.map(|(name, value)| (name.into(), value.into())).into();
        let facts = ClientFacts::from_opening(&OpenConnection { claims, ..OpenConnection::default() });
        let expected = "name: Doe, John, city: X%2C role: chef, town: X%2Crole:chef, a%2Cb: c, at: 10: 30, text: a%0Ab";
        assert_eq!(facts.claims.unwrap(), expected);
        assert_eq!(ClientFacts::from_opening(&OpenConnection::default()), ClientFacts::default());
    }

    /// Claims as a reader splits a line: at commas, then into exactly two. Azure's Functions split at `: `, others at
    /// `:`.
    fn claims_of_reader<'l>(line: &'l str, separator: &str) -> Vec<(&'l str, &'l str)> {
        let pairs = line.split(',').map(|pair| pair.split(separator).collect::<Vec<_>>());
        let pairs = pairs.filter_map(|pair| if let [name, value] = *pair { Some((name, value)) } else { None });
        pairs.map(|(name, value)| (name.trim(), value.trim())).collect()
    }

    #[test]
    fn no_reader_finds_a_claim_that_a_user_has_written_into_another_one() {
        let forgeries = ["x, role: admin", "x,role: admin", "x, role: admin, y", ",role: admin", "x: y, role: admin"];
        for forged in forgeries.into_iter().chain(["x,role:admin", "x, role:admin"]) {
            for (name, value) in [("nickname", forged), (forged, "x")] {
                let claims = vec![(name.into(), value.into()), ("sex".into(), "f".into())];
                let facts = ClientFacts::from_opening(&OpenConnection { claims, ..OpenConnection::default() });
                let line = facts.claims.unwrap();
                for separator in [": ", ":"] {
                    let read = claims_of_reader(line.to_str().unwrap(), separator);
                    assert!(read.iter().all(|(name, _)| *name != "role"), "{line:?}: {read:?}");
                    assert!(read.contains(&("sex", "f")), "{read:?}");
                }
            }
        }
    }

    #[test]
    fn no_text_of_a_client_begins_another_header() {
        assert_eq!(header_text("a\r\nX-Evil: 1"), "a%0D%0AX-Evil: 1");
        assert_eq!(header_text("\u{7f}\0"), "%7F%00");
        // Servers remove blanks at the ends, so another user would be named, and the signature would not match.
        assert_eq!([" ann", "ann ", "a b", "\tx%"].map(header_text), ["%20ann", "ann%20", "a b", "%09x%25"]);
    }
}
