//! Query parameters of a data plane request.

use form_urlencoded::parse;
use http::Uri;
use trunkline_protocol::service::{MEMBERS_PER_PAGE_MAX, RecordStart};

use super::operation::USER_MAX_CHARS;
use super::rest_error::RestError;
use crate::engine::shard::MEMBERSHIP_S;

/// Maximum length of a close reason, in characters.
pub(super) const REASON_MAX_CHARS: usize = 1024;

/// Maximum lifetime of a client token in minutes: one day.
const TOKEN_MAX_MINUTES: u64 = 24 * 60;

/// Default lifetime of a client token, in minutes.
const TOKEN_MINUTES: u64 = 60;

/// Parameters of all operations.
const PARAMETERS: [&str; 15] = [
    "after",
    "api-version",
    "application",
    "completed",
    "continuationToken",
    "excluded",
    "filter",
    "last",
    "maxpagesize",
    "minutesToExpire",
    "partial",
    "reason",
    "top",
    "ttl",
    "userId",
];

/// Length of the longest parameter.
const LONGEST_PARAMETER: usize = 17;

/// Maximum number of edits that turn a parameter into a misspelt one.
const MISSPELT_EDITS: usize = 2;

#[derive(Debug)]
pub(crate) struct RestQuery(Vec<(String, String)>);

impl RestQuery {
    pub(crate) fn from_uri(uri: &Uri) -> Self {
        Self(parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect())
    }

    /// Fails for a misspelt parameter, because an operation without its filter or exclusions reaches other clients.
    /// Parameters of others, such as proxies on the way, are ignored.
    pub(crate) fn check(&self) -> Result<(), RestError> {
        for (name, _) in self.0.iter().filter(|(name, _)| name.len() <= LONGEST_PARAMETER + MISSPELT_EDITS) {
            let edits = |known: &str| strsim::damerau_levenshtein(&name.to_lowercase(), &known.to_lowercase());
            let nearest = PARAMETERS.into_iter().map(|known| (edits(known), known)).min();
            if let Some((1..=MISSPELT_EDITS, known)) = nearest.filter(|(edits, _)| edits * 3 <= name.len()) {
                return Err(RestError::bad_value("query", format!("has the parameter {name:?}; is {known:?} meant?")));
            }
        }
        Ok(())
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn number(&self, name: &'static str, least: u64, most: u64) -> Result<Option<u64>, RestError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let number = text.parse().ok().filter(|number| (least..=most).contains(number));
        let problem = || RestError::bad_value(name, format!("must be a whole number from {least} to {most}"));
        number.ok_or_else(problem).map(Some)
    }

    /// Connection ids excluded from a send.
    pub(crate) fn excluded(&self) -> impl Iterator<Item = &str> {
        let named = self.0.iter().filter(|(name, _)| name.eq_ignore_ascii_case("excluded"));
        named.map(|(_, id)| id.as_str())
    }

    /// App that owns the hub. Hubs of named apps are private to them.
    pub(crate) fn application(&self) -> Option<&str> {
        self.text("application").filter(|name| !name.is_empty())
    }

    /// Reason sent to closed clients.
    pub(crate) fn reason(&self) -> Result<Option<String>, RestError> {
        let reason = self.text("reason").filter(|reason| !reason.is_empty());
        if reason.is_some_and(|reason| reason.chars().count() > REASON_MAX_CHARS) {
            return Err(RestError::bad_value("reason", format!("has more than {REASON_MAX_CHARS} characters")));
        }
        Ok(reason.map(str::to_owned))
    }

    pub(crate) fn filter(&self) -> Option<&str> {
        self.text("filter")
    }

    /// Whether an item is the last of its stream.
    pub(crate) fn is_completed(&self) -> Result<bool, RestError> {
        self.is("completed")
    }

    /// Whether an answer of some nodes will do. Fails if the value is neither `true` nor `false`.
    pub(crate) fn is_partial(&self) -> Result<bool, RestError> {
        self.is("partial")
    }

    /// Start of a read of a record. Without parameters all that is kept.
    pub(crate) fn record_start(&self) -> Result<RecordStart, RestError> {
        let (after, last) = (self.text("after"), self.number("last", 1, u32::MAX.into())?);
        let start = RecordStart::from_options(if last.is_none() { after.or(Some("0")) } else { after }, last);
        start.map_err(|(name, problem)| RestError::bad_value(name, problem))
    }

    fn is(&self, name: &'static str) -> Result<bool, RestError> {
        match self.text(name).unwrap_or_default().to_ascii_lowercase().as_str() {
            "" | "false" => Ok(false),
            "true" => Ok(true),
            _ => Err(RestError::bad_value(name, "must be true or false")),
        }
    }

    /// Lifetime of a user's membership in seconds; 0 applies to current connections only.
    pub(crate) fn membership_s(&self) -> Result<i64, RestError> {
        let given = self.number("ttl", 0, MEMBERSHIP_S.unsigned_abs())?;
        Ok(given.and_then(|seconds| seconds.try_into().ok()).unwrap_or(MEMBERSHIP_S))
    }

    /// User of a client token.
    pub(crate) fn user(&self) -> Result<Option<&str>, RestError> {
        let user = self.text("userId").filter(|user| !user.is_empty());
        if user.is_some_and(|user| user.chars().count() > USER_MAX_CHARS) {
            return Err(RestError::bad_value("userId", format!("has more than {USER_MAX_CHARS} characters")));
        }
        Ok(user)
    }

    /// Lifetime of a client token, in minutes.
    pub(crate) fn token_minutes(&self) -> Result<u64, RestError> {
        Ok(self.number("minutesToExpire", 1, TOKEN_MAX_MINUTES)?.unwrap_or(TOKEN_MINUTES))
    }

    /// Maximum number of members per page.
    pub(crate) fn page_size(&self) -> Result<Option<i64>, RestError> {
        let most = u64::try_from(MEMBERS_PER_PAGE_MAX).unwrap_or(u64::MAX);
        Ok(self.number("maxpagesize", 1, most)?.and_then(|size| size.try_into().ok()))
    }

    /// Maximum number of members over all pages.
    pub(crate) fn top(&self) -> Result<Option<u64>, RestError> {
        self.number("top", 1, u32::MAX.into())
    }

    pub(crate) fn continuation_token(&self) -> Option<&str> {
        self.text("continuationToken").filter(|token| !token.is_empty())
    }

    /// Query of the next page: this one with a new token and the remaining total.
    pub(crate) fn of_next_page(&self, token: &str, top: Option<u64>) -> String {
        let mut next = form_urlencoded::Serializer::new(String::new());
        let replaced = ["continuationToken", "top"];
        for (name, value) in &self.0 {
            if !replaced.iter().any(|known| name.eq_ignore_ascii_case(known)) {
                next.append_pair(name, value);
            }
        }
        if let Some(top) = top {
            next.append_pair("top", &top.to_string());
        }
        next.append_pair("continuationToken", token).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> RestQuery {
        RestQuery::from_uri(&format!("/api/hubs/chat/:send?{text}").parse().unwrap())
    }

    #[test]
    fn parameters_are_read_and_case_does_not_count_in_their_names() {
        let read = query("api-version=2022-06-01&excluded=a&Excluded=b%20c&TTL=30&userid=ann&minutesToExpire=5&top=7");
        assert_eq!(read.excluded().collect::<Vec<_>>(), ["a", "b c"]);
        assert_eq!(
            (read.membership_s().unwrap(), read.user().unwrap(), read.token_minutes().unwrap()),
            (30, Some("ann"), 5)
        );
        assert_eq!((read.top().unwrap(), read.page_size().unwrap(), read.reason().unwrap()), (Some(7), None, None));
        let none = query("");
        assert_eq!((none.membership_s().unwrap(), none.token_minutes().unwrap()), (MEMBERSHIP_S, 60));
    }

    #[test]
    fn a_misspelt_parameter_is_refused_and_one_of_others_is_not() {
        for (text, meant) in [("filters=userId", "filter"), ("exclude=a", "excluded"), ("maxpagsize=3", "maxpagesize")]
        {
            let problem = query(text).check().unwrap_err().to_string();
            assert!(problem.contains(&format!("is \"{meant}\" meant?")), "{problem}");
        }
        let good = PARAMETERS.map(|name| format!("{name}=1")).join("&");
        for text in [&*good, "", "TTL=1&api-Version=2", "traceparent=00-1&utm_source=x&to=1&_=5&groupname=a"] {
            assert!(query(text).check().is_ok(), "{text}");
        }
    }

    #[test]
    fn a_number_out_of_range_is_named_with_its_range() {
        for (text, problem) in [
            ("ttl=-1", "ttl must be a whole number from 0 to 31536000"),
            ("ttl=x", "ttl must be"),
            ("minutesToExpire=0", "from 1 to 1440"),
            ("maxpagesize=1001", "from 1 to 1000"),
            ("top=0", "top must be"),
        ] {
            let read = query(text);
            let told =
                [read.membership_s().err(), read.token_minutes().err(), read.page_size().err(), read.top().err()];
            let told: Vec<_> = told.into_iter().flatten().map(|error| error.to_string()).collect();
            assert!(matches!(&*told, [one] if one.contains(problem)), "{text}: {told:?}");
        }
        let long = "x".repeat(1025);
        assert!(query(&format!("reason={long}")).reason().unwrap_err().to_string().contains("1024"));
        assert!(query(&format!("userId={long}")).user().unwrap_err().to_string().contains("1024"));
    }

    #[test]
    fn the_next_page_keeps_all_but_the_token_and_the_rest() {
        let next = query("api-version=1&top=9&continuationToken=old&maxpagesize=4").of_next_page("a.0.4", Some(5));
        assert_eq!(next, "api-version=1&maxpagesize=4&top=5&continuationToken=a.0.4");
    }
}
