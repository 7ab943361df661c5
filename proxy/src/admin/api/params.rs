//! Read what a request says, field by field: what is unknown, twice, too long or out of range is told by its name.

use std::collections::BTreeMap;
use std::str::FromStr;

use axum::http::{HeaderMap, StatusCode, Uri};
use serde_json::{Map, Value};

use super::{ApiError, is_json};

/// Whom a question is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    Fleet,
    Node,
}

/// The parameters of a query.
#[derive(Debug)]
pub(super) struct Params(BTreeMap<String, String>);

impl Params {
    pub(super) fn read(uri: &Uri) -> Result<Self, ApiError> {
        let mut all = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            if all.insert(name.clone().into_owned(), value.into_owned()).is_some() {
                return Err(ApiError::field(&name, "is given twice"));
            }
        }
        Ok(Self(all))
    }

    pub(super) fn text(&mut self, name: &str, most_chars: usize) -> Result<Option<String>, ApiError> {
        self.0.remove(name).map(|value| checked(name, value, most_chars)).transpose()
    }

    pub(super) fn number(&mut self, name: &str, least: usize, most: usize) -> Result<Option<usize>, ApiError> {
        let Some(text) = self.0.remove(name) else { return Ok(None) };
        let number = text.parse().ok().filter(|number| (least..=most).contains(number));
        number.map(Some).ok_or_else(|| ApiError::field(name, &format!("must be a number from {least} to {most}")))
    }

    pub(super) fn parsed<T: FromStr<Err = &'static str>>(&mut self, name: &str) -> Result<Option<T>, ApiError> {
        let Some(text) = self.0.remove(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|problem| ApiError::field(name, problem))
    }

    /// One of these words; the first if none is given.
    pub(super) fn word(&mut self, name: &str, words: [&'static str; 2]) -> Result<&'static str, ApiError> {
        let [first, second] = words;
        let Some(text) = self.0.remove(name) else { return Ok(first) };
        let known = words.into_iter().find(|word| *word == text);
        known.ok_or_else(|| ApiError::field(name, &format!("must be {first} or {second}")))
    }

    pub(super) fn scope(&mut self) -> Result<Scope, ApiError> {
        Ok(if self.word("scope", ["fleet", "node"])? == "node" { Scope::Node } else { Scope::Fleet })
    }

    /// There is nothing else.
    pub(super) fn end(self) -> Result<(), ApiError> {
        match self.0.into_keys().next() {
            Some(name) => Err(ApiError::field(&name, "is no parameter here")),
            None => Ok(()),
        }
    }
}

/// The fields of a body.
#[derive(Debug)]
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// Reads a body; none at all is one without fields.
    pub(super) fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, ApiError> {
        if !is_json(headers) {
            let text = "the body must be JSON, with Content-Type: application/json";
            return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
        }
        if body.is_empty() {
            return Ok(Self(Map::new()));
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(ApiError::field("body", "must be a JSON object")),
            Err(error) => Err(ApiError::field("body", &format!("is no JSON: {error}"))),
        }
    }

    pub(super) fn text(&mut self, name: &str, most_chars: usize) -> Result<Option<String>, ApiError> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => checked(name, text, most_chars).map(Some),
            Some(_) => Err(ApiError::field(name, "must be a text")),
        }
    }

    /// There is nothing else.
    pub(super) fn end(self) -> Result<(), ApiError> {
        match self.0.into_iter().next() {
            Some((name, _)) => Err(ApiError::field(&name, "is no field here")),
            None => Ok(()),
        }
    }
}

fn checked(name: &str, text: String, most_chars: usize) -> Result<String, ApiError> {
    let chars = text.chars().count();
    if chars > most_chars {
        return Err(ApiError::field(name, &format!("has {chars} characters, at most {most_chars} are taken")));
    }
    Ok(text)
}
