//! Parts of a connection, for `#[derive(FromContext)]`.

use std::fmt::{self, Display};
use std::str::FromStr;

pub use axum::extract::FromRef;
use serde::de::DeserializeOwned;

use crate::context::Context;
use crate::error::HubError;

/// Conflicts with the derived impl if the struct is `Deserialize`, because it would be both an argument and an
/// extractor. The compiler prints this name.
pub trait AnExtractorMustNotBeDeserialize {}

impl<T: DeserializeOwned> AnExtractorMustNotBeDeserialize for T {}

/// Source of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The ID of the user.
    User,
    /// A claim of the user.
    Claim(&'static str),
    /// A header of the connect request.
    Header(&'static str),
    /// A query parameter of the connect request.
    Query(&'static str),
}

/// A value that can be parsed from text: every type that implements [`FromStr`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be read from a text",
    label = "does not implement `std::str::FromStr`",
    note = "a `#[user]`, `#[claim]`, `#[header]` or `#[query]` is a `String`, another type that implements `FromStr`, \
            or an `Option` or `Vec` of such a type",
    note = "use `#[state]` for a field of the hub's state, and `#[extract]` for a field with an extractor of its own"
)]
pub trait FromText: Sized {
    /// Parses the value. The error describes the problem with the text.
    #[doc(hidden)]
    fn from_text(text: &str) -> Result<Self, String>;
}

#[diagnostic::do_not_recommend]
impl<T: FromStr<Err: Display>> FromText for T {
    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|error: T::Err| error.to_string())
    }
}

impl Part {
    /// Returns the first value. Fails without a value (the client sees `refusal`), or if it cannot be parsed.
    pub fn one<T: FromText>(self, ctx: &Context, refusal: Option<&str>) -> Result<T, HubError> {
        let value = self.maybe(ctx, refusal)?;
        value.ok_or_else(|| HubError::new(refusal.map_or_else(|| self.missing(), str::to_owned)))
    }

    /// Returns the first value, if any. Fails if the value cannot be parsed.
    pub fn maybe<T: FromText>(self, ctx: &Context, refusal: Option<&str>) -> Result<Option<T>, HubError> {
        self.texts(ctx).first().map(|text| self.parse_text(text, refusal)).transpose()
    }

    /// Returns all values in their order. Fails if a value cannot be parsed.
    pub fn all<T: FromText>(self, ctx: &Context, refusal: Option<&str>) -> Result<Vec<T>, HubError> {
        self.texts(ctx).iter().map(|text| self.parse_text(text, refusal)).collect()
    }

    fn parse_text<T: FromText>(self, text: &str, refusal: Option<&str>) -> Result<T, HubError> {
        let unfit = |error| format!("{self} is invalid: {error}");
        T::from_text(text).map_err(|error| HubError::new(refusal.map_or_else(|| unfit(error), str::to_owned)))
    }

    fn texts(self, ctx: &Context) -> Vec<String> {
        match self {
            Self::User => ctx.user_id().map(str::to_owned).into_iter().collect(),
            Self::Claim(name) => ctx.claims().get_all(name).map(str::to_owned).collect(),
            Self::Query(name) => ctx.query().get_all(name).map(str::to_owned).collect(),
            Self::Header(name) => {
                let headers = ctx.headers();
                let values = headers.get_all(name).iter();
                values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
            }
        }
    }

    fn missing(self) -> String {
        match self {
            Self::User => "log in first".to_owned(),
            Self::Claim(_) | Self::Header(_) => format!("{self} is missing"),
            Self::Query(name) => format!("`{name}` is missing in the query"),
        }
    }
}

impl Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User => f.write_str("the user id"),
            Self::Claim(name) => write!(f, "the claim `{name}`"),
            Self::Header(name) => write!(f, "the header `{name}`"),
            Self::Query(name) => write!(f, "`{name}` in the query"),
        }
    }
}
