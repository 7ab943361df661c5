//! Client filters in OData syntax, as in Azure's services: `startswith(userId, 'a') and not ('red' in groups)`.
//!
//! ```text
//!  filter     = and-terms *( "or" and-terms )
//!  and-terms  = term *( "and" term )
//!  term       = "not" term | "(" filter ")" | function | operand comparison
//!  function   = ( "startswith" | "endswith" | "contains" ) "(" operand "," operand ")"
//!  comparison = ( "eq" | "ne" | "gt" | "ge" | "lt" | "le" ) operand | "in" "groups" | "in" "(" operand *( "," operand ) ")"
//!  operand    = "userId" | "connectionId" | "null" | text | ( "tolower" | "toupper" | "trim" ) "(" operand ")"
//! ```
//!
//! The user id of an anonymous client is `null`, which equals only `null`. Orderings and functions of `null` are false.
//!
//! The parser applies functions to constants and merges equal functions, so a name is converted once for a client.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::cmp::Ordering;

/// Maximum length of a filter in bytes.
pub const FILTER_MAX_BYTES: usize = 4096;

/// Maximum depth of parentheses, functions and `not` in a filter.
const FILTER_DEPTH_MAX: usize = 16;

/// Maximum number of functions that read a whole name: different changes of names, and `contains`. Together with the
/// length of a name they limit the work for a client.
const FILTER_FUNCTIONS_MAX: usize = 32;

/// Filter of the clients of a hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFilter {
    condition: Condition,
    changes: Vec<(TextChange, Operand)>,
    /// Bytes of the text, and number of functions.
    size: (usize, usize),
}

/// Client for which a filter is evaluated.
pub trait FilterSubject {
    /// User id; `None` for an anonymous client.
    fn user_id(&self) -> Option<&str>;
    /// Id of the connection.
    fn connection_id(&self) -> &str;
    /// Whether the client is in this group.
    fn is_in_group(&self, group: &str) -> bool;
}

/// Clients that a filter selects by a single name, which needs no evaluation per client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterTarget<'a> {
    /// All connections of a user.
    User(&'a str),
    /// Connection with this id.
    Connection(&'a str),
    /// Members of a group.
    Group(&'a str),
}

/// Reason why a filter is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// The text exceeds [`FILTER_MAX_BYTES`].
    #[error("has more than {FILTER_MAX_BYTES} bytes")]
    TooLong,
    /// Parentheses, functions or `not` are nested too deeply.
    #[error("is nested deeper than {FILTER_DEPTH_MAX} levels")]
    TooDeep,
    /// Too many functions of names.
    #[error(
        "has more than {FILTER_FUNCTIONS_MAX} functions (contains, and different tolower, toupper, trim of a name): \
         send several requests"
    )]
    TooManyFunctions,
    /// A syntax error at this byte.
    #[error("is wrong at byte {at}: expected {expected}")]
    Unexpected {
        /// Offset in the text, in bytes.
        at: usize,
        /// Tokens allowed at this position.
        expected: &'static str,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    Any(Vec<Condition>),
    All(Vec<Condition>),
    Not(Box<Condition>),
    Compare(Operand, Comparison, Operand),
    InList(Operand, Vec<Operand>),
    InGroups(Operand),
    Function(TextTest, Operand, Operand),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TextTest {
    StartsWith,
    EndsWith,
    Contains,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Operand {
    UserId,
    ConnectionId,
    Null,
    Text(String),
    /// Change with this number in the filter.
    Changed(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TextChange {
    Lower,
    Upper,
    Trim,
}

impl ClientFilter {
    /// Parses a filter. Fails if the syntax is invalid or a limit is exceeded.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        if text.len() > FILTER_MAX_BYTES {
            return Err(FilterError::TooLong);
        }
        let mut parser = Parser { text, at: 0, depth: 0, changes: Vec::new(), scans: 0 };
        let condition = parser.filter()?;
        if !parser.rest().is_empty() {
            return Err(parser.expected("and, or, or the end"));
        }
        let size = (text.len(), parser.functions());
        Ok(Self { condition, changes: parser.changes, size })
    }

    /// Whether a client matches the filter.
    #[must_use]
    pub fn matches(&self, client: &impl FilterSubject) -> bool {
        self.condition.holds(&Evaluation { client, changes: &self.changes, values: Default::default() })
    }

    /// Estimated work for a client with names of this length, in bytes read.
    #[must_use]
    pub fn cost(&self, name_bytes: usize) -> usize {
        self.size.0 + (1 + self.size.1) * name_bytes
    }

    /// Returns the target of a filter that is a single comparison with a name.
    #[must_use]
    pub fn target(&self) -> Option<FilterTarget<'_>> {
        match &self.condition {
            Condition::Compare(Operand::UserId, Comparison::Equal, Operand::Text(id)) => Some(FilterTarget::User(id)),
            Condition::Compare(Operand::ConnectionId, Comparison::Equal, Operand::Text(id)) => {
                Some(FilterTarget::Connection(id))
            }
            Condition::InGroups(Operand::Text(name)) => Some(FilterTarget::Group(name)),
            _ => None,
        }
    }
}

/// Evaluation for one client. Each change of a name is made once.
struct Evaluation<'a, C> {
    client: &'a C,
    changes: &'a [(TextChange, Operand)],
    values: [OnceCell<Option<String>>; FILTER_FUNCTIONS_MAX],
}

impl Condition {
    fn holds(&self, client: &Evaluation<'_, impl FilterSubject>) -> bool {
        match self {
            Self::Any(conditions) => conditions.iter().any(|condition| condition.holds(client)),
            Self::All(conditions) => conditions.iter().all(|condition| condition.holds(client)),
            Self::Not(condition) => !condition.holds(client),
            Self::Compare(left, comparison, right) => comparison.holds(left.value(client), right.value(client)),
            Self::InList(operand, list) => {
                let value = operand.value(client);
                list.iter().any(|item| item.value(client) == value)
            }
            Self::InGroups(operand) => operand.value(client).is_some_and(|group| client.client.is_in_group(&group)),
            Self::Function(test, text, part) => match (text.value(client), part.value(client)) {
                (Some(text), Some(part)) => test.holds(&text, &part),
                _ => false,
            },
        }
    }
}

impl Comparison {
    fn holds(self, left: Option<Cow<'_, str>>, right: Option<Cow<'_, str>>) -> bool {
        let order = || left.as_deref().zip(right.as_deref()).map(|(left, right)| left.cmp(right));
        match self {
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            Self::Greater => order() == Some(Ordering::Greater),
            Self::GreaterOrEqual => order().is_some_and(Ordering::is_ge),
            Self::Less => order() == Some(Ordering::Less),
            Self::LessOrEqual => order().is_some_and(Ordering::is_le),
        }
    }
}

impl TextTest {
    fn holds(self, text: &str, part: &str) -> bool {
        match self {
            Self::StartsWith => text.starts_with(part),
            Self::EndsWith => text.ends_with(part),
            Self::Contains => text.contains(part),
        }
    }
}

impl Operand {
    /// Value for a client; `None` is `null`.
    fn value<'a>(&'a self, of: &'a Evaluation<'_, impl FilterSubject>) -> Option<Cow<'a, str>> {
        match self {
            Self::UserId => of.client.user_id().map(Cow::Borrowed),
            Self::ConnectionId => Some(Cow::Borrowed(of.client.connection_id())),
            Self::Null => None,
            Self::Text(text) => Some(Cow::Borrowed(text)),
            Self::Changed(number) => {
                let (value, (change, operand)) = (of.values.get(*number)?, of.changes.get(*number)?);
                value.get_or_init(|| operand.value(of).map(|text| change.apply(&text))).as_deref().map(Cow::Borrowed)
            }
        }
    }
}

impl TextChange {
    fn apply(self, text: &str) -> String {
        match self {
            Self::Lower => text.to_lowercase(),
            Self::Upper => text.to_uppercase(),
            Self::Trim => text.trim().to_owned(),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    changes: Vec<(TextChange, Operand)>,
    /// Number of `contains` functions so far.
    scans: usize,
}

impl<'a> Parser<'a> {
    fn functions(&self) -> usize {
        self.changes.len() + self.scans
    }

    /// Changed operand. A change of a constant is made here; equal changes share a number, and repeating one has no
    /// effect.
    fn changed(&mut self, change: TextChange, inner: Operand) -> Operand {
        match inner {
            Operand::Null => Operand::Null,
            Operand::Text(text) => Operand::Text(change.apply(&text)),
            Operand::Changed(number) if self.changes.get(number).is_some_and(|(last, _)| *last == change) => inner,
            inner => {
                let made = (change, inner);
                Operand::Changed(self.changes.iter().position(|known| *known == made).unwrap_or_else(|| {
                    self.changes.push(made);
                    self.changes.len() - 1
                }))
            }
        }
    }

    fn check_functions(&self) -> Result<(), FilterError> {
        if self.functions() > FILTER_FUNCTIONS_MAX { Err(FilterError::TooManyFunctions) } else { Ok(()) }
    }

    /// Text from the next non-space character.
    fn rest(&mut self) -> &'a str {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let trimmed = rest.trim_start();
        self.at += rest.len() - trimmed.len();
        trimmed
    }

    fn expected(&self, expected: &'static str) -> FilterError {
        FilterError::Unexpected { at: self.at, expected }
    }

    fn takes(&mut self, mark: char) -> bool {
        let is_next = self.rest().starts_with(mark);
        self.at += if is_next { mark.len_utf8() } else { 0 };
        is_next
    }

    fn demand(&mut self, mark: char, name: &'static str) -> Result<(), FilterError> {
        if self.takes(mark) { Ok(()) } else { Err(self.expected(name)) }
    }

    fn word(&mut self) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        rest.get(..end).unwrap_or_default()
    }

    /// Consumes the next word if it is in the list, ignoring case.
    fn takes_word<T: Copy>(&mut self, words: &[(&str, T)]) -> Option<T> {
        let word = self.word();
        let found = words.iter().find(|(name, _)| name.eq_ignore_ascii_case(word))?;
        self.at += word.len();
        Some(found.1)
    }

    fn takes_keyword(&mut self, keyword: &str) -> bool {
        self.takes_word(&[(keyword, ())]).is_some()
    }

    /// Parses the content of parentheses, a function or a `not`.
    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T, FilterError>) -> Result<T, FilterError> {
        if self.depth == FILTER_DEPTH_MAX {
            return Err(FilterError::TooDeep);
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    fn filter(&mut self) -> Result<Condition, FilterError> {
        self.chain("or", |parser| parser.chain("and", Self::term, Condition::All), Condition::Any)
    }

    fn chain(
        &mut self,
        keyword: &str,
        part: impl Fn(&mut Self) -> Result<Condition, FilterError>,
        combine: impl FnOnce(Vec<Condition>) -> Condition,
    ) -> Result<Condition, FilterError> {
        let first = part(self)?;
        if !self.takes_keyword(keyword) {
            return Ok(first);
        }
        let mut parts = vec![first, part(self)?];
        while self.takes_keyword(keyword) {
            parts.push(part(self)?);
        }
        Ok(combine(parts))
    }

    fn term(&mut self) -> Result<Condition, FilterError> {
        if self.takes_keyword("not") {
            return self.nested(|parser| Ok(Condition::Not(Box::new(parser.term()?))));
        }
        if self.takes('(') {
            let inner = self.nested(Self::filter)?;
            self.demand(')', ")")?;
            return Ok(inner);
        }
        let tests =
            [("startswith", TextTest::StartsWith), ("endswith", TextTest::EndsWith), ("contains", TextTest::Contains)];
        if let Some(test) = self.takes_word(&tests) {
            self.demand('(', "(")?;
            let text = self.operand()?;
            self.demand(',', "a comma")?;
            let part = self.operand()?;
            self.demand(')', ")")?;
            self.scans += usize::from(test == TextTest::Contains);
            self.check_functions()?;
            return Ok(Condition::Function(test, text, part));
        }
        let operand = self.operand()?;
        self.comparison(operand)
    }

    fn comparison(&mut self, left: Operand) -> Result<Condition, FilterError> {
        if self.takes_keyword("in") {
            if self.takes_keyword("groups") {
                return Ok(Condition::InGroups(left));
            }
            self.demand('(', "groups or a list in parentheses")?;
            let mut list = vec![self.operand()?];
            while self.takes(',') {
                list.push(self.operand()?);
            }
            self.demand(')', "a comma or )")?;
            return Ok(Condition::InList(left, list));
        }
        let comparisons = [
            ("eq", Comparison::Equal),
            ("ne", Comparison::NotEqual),
            ("gt", Comparison::Greater),
            ("ge", Comparison::GreaterOrEqual),
            ("lt", Comparison::Less),
            ("le", Comparison::LessOrEqual),
        ];
        let comparison = self.takes_word(&comparisons).ok_or_else(|| self.expected("eq, ne, gt, ge, lt, le or in"))?;
        Ok(Condition::Compare(left, comparison, self.operand()?))
    }

    fn operand(&mut self) -> Result<Operand, FilterError> {
        if self.rest().starts_with('\'') {
            return self.quoted().map(Operand::Text);
        }
        let changes = [("tolower", TextChange::Lower), ("toupper", TextChange::Upper), ("trim", TextChange::Trim)];
        if let Some(change) = self.takes_word(&changes) {
            self.demand('(', "(")?;
            let inner = self.nested(Self::operand)?;
            self.demand(')', ")")?;
            let operand = self.changed(change, inner);
            return self.check_functions().map(|()| operand);
        }
        if self.takes_keyword("userId") {
            Ok(Operand::UserId)
        } else if self.takes_keyword("connectionId") {
            Ok(Operand::ConnectionId)
        } else if self.takes_keyword("null") {
            Ok(Operand::Null)
        } else {
            Err(self.expected("userId, connectionId, null, a text in single quotes or a function"))
        }
    }

    /// Parses a text in single quotes; a doubled quote is an escape.
    fn quoted(&mut self) -> Result<String, FilterError> {
        let mut text = String::new();
        self.at += 1;
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            let end = rest.find('\'').ok_or_else(|| self.expected("a closing quote"))?;
            text.push_str(rest.get(..end).unwrap_or_default());
            self.at += end + 1;
            if !rest.get(end + 1..).is_some_and(|rest| rest.starts_with('\'')) {
                return Ok(text);
            }
            text.push('\'');
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Client(Option<&'static str>, &'static str, &'static [&'static str]);

    impl FilterSubject for Client {
        fn user_id(&self) -> Option<&str> {
            self.0
        }
        fn connection_id(&self) -> &str {
            self.1
        }
        fn is_in_group(&self, group: &str) -> bool {
            self.2.contains(&group)
        }
    }

    const CLIENTS: [Client; 3] =
        [Client(Some("Ann"), "c1", &["red", "it's"]), Client(Some("ben"), "c2", &["red"]), Client(None, "c3", &[])];

    /// Ids of the clients that match a filter.
    fn included(filter: &str) -> Vec<&'static str> {
        let filter = ClientFilter::parse(filter).unwrap();
        CLIENTS.iter().filter(|client| filter.matches(*client)).map(|client| client.1).collect()
    }

    #[test]
    fn a_filter_selects_clients_by_user_connection_and_group() {
        for (filter, clients) in [
            ("userId eq 'Ann'", vec!["c1"]),
            ("userId ne 'Ann'", vec!["c2", "c3"]),
            ("userId eq null", vec!["c3"]),
            ("null ne userId", vec!["c1", "c2"]),
            ("USERID EQ 'ben'", vec!["c2"]),
            ("connectionId in ('c3', 'c1')", vec!["c1", "c3"]),
            ("userId in ('ben', null)", vec!["c2", "c3"]),
            ("'red' in groups", vec!["c1", "c2"]),
            ("'it''s' in groups", vec!["c1"]),
            ("userId in groups", vec![]),
            ("userId gt 'a'", vec!["c2"]),
            ("userId le 'ben'", vec!["c1", "c2"]),
            ("connectionId ge 'c2' and connectionId lt 'c3'", vec!["c2"]),
            ("startswith(userId, 'A')", vec!["c1"]),
            ("startswith(tolower(userId), 'a') or endswith(connectionId,'3')", vec!["c1", "c3"]),
            ("contains(toupper(userId), 'E')", vec!["c2"]),
            ("userId eq trim('  ben ')", vec!["c2"]),
        ] {
            assert_eq!(included(filter), clients, "{filter}");
        }
    }

    #[test]
    fn and_binds_closer_than_or_and_not_closer_than_both() {
        assert_eq!(included("userId eq null or 'red' in groups and connectionId eq 'c1'"), ["c1", "c3"]);
        assert_eq!(included("(userId eq null or 'red' in groups) and connectionId eq 'c1'"), ["c1"]);
        assert_eq!(included("not userId eq 'ben' and 'red' in groups"), ["c1"]);
        assert_eq!(included("not (userId eq 'ben' and 'red' in groups)"), ["c1", "c3"]);
        assert_eq!(included("not not ( ( userId eq 'ben' ) )"), ["c2"]);
    }

    #[test]
    fn a_single_comparison_with_a_name_has_a_target() {
        let target = |text: &str| ClientFilter::parse(text).unwrap();
        assert_eq!(target("userId eq 'ann o''neill'").target(), Some(FilterTarget::User("ann o'neill")));
        assert_eq!(target(" (connectionid eq 'c') ").target(), Some(FilterTarget::Connection("c")));
        assert_eq!(target("'in groups' in groups").target(), Some(FilterTarget::Group("in groups")));
        for other in ["userId ne 'a'", "userId eq null", "not userId eq 'a'", "userId eq 'a' or userId eq 'b'"] {
            assert_eq!(target(other).target(), None, "{other}");
        }
    }

    #[test]
    fn an_error_has_the_position_and_the_expected_tokens() {
        for (filter, expected) in [
            ("", "wrong at byte 0: expected userId"),
            ("userId eq ann", "wrong at byte 10: expected userId"),
            ("userId like 'a'", "wrong at byte 7: expected eq, ne"),
            ("userId eq 'a", "expected a closing quote"),
            ("userId eq 'a' nor", "wrong at byte 14: expected and, or"),
            ("(userId eq 'a'", "wrong at byte 14: expected )"),
            ("startswith(userId 'a')", "wrong at byte 18: expected a comma"),
            ("'a' in group", "expected groups or a list"),
            ("age eq '1'", "wrong at byte 0"),
        ] {
            let error = ClientFilter::parse(filter).unwrap_err().to_string();
            assert!(error.contains(expected), "{filter}: {error}");
        }
        let nested = |levels: usize| format!("{}userId eq 'a'{}", "(".repeat(levels), ")".repeat(levels));
        assert!(ClientFilter::parse(&nested(FILTER_DEPTH_MAX)).is_ok());
        for deep in [nested(FILTER_DEPTH_MAX + 1), format!("{} userId eq 'a'", "not ".repeat(FILTER_DEPTH_MAX + 1))] {
            assert_eq!(ClientFilter::parse(&deep), Err(FilterError::TooDeep));
        }
        let long = format!("userId eq '{}'", "a".repeat(FILTER_MAX_BYTES));
        assert_eq!(ClientFilter::parse(&long), Err(FilterError::TooLong));
    }

    #[test]
    fn a_name_is_converted_once_however_often_a_filter_names_the_function() {
        let many = vec!["tolower(userId) eq 'a'"; 150].join(" or ");
        let deep = format!("{}userId{} eq 'a'", "tolower(".repeat(15), ")".repeat(15));
        for text in [many, vec![deep; 25].join(" or ")] {
            let filter = ClientFilter::parse(&text).unwrap();
            assert_eq!(filter.changes, [(TextChange::Lower, Operand::UserId)]);
            assert_eq!(filter.cost(1_000), text.len() + 2 * 1_000);
        }
        let constant = ClientFilter::parse("userId eq toupper(trim(' ben '))").unwrap();
        assert_eq!(constant.target(), Some(FilterTarget::User("BEN")));
        assert_eq!(included("toupper(tolower(userId)) eq 'BEN' or tolower(trim(userId)) eq 'ann'"), ["c1", "c2"]);
    }

    #[test]
    fn too_many_functions_are_refused_with_the_limit() {
        let contains = |count: usize| vec!["contains(userId,'a')"; count].join(" or ");
        assert!(ClientFilter::parse(&contains(FILTER_FUNCTIONS_MAX)).is_ok());
        let error = ClientFilter::parse(&contains(FILTER_FUNCTIONS_MAX + 1)).unwrap_err();
        assert_eq!(error, FilterError::TooManyFunctions);
        assert!(error.to_string().starts_with("has more than 32 functions"), "{error}");
    }
}
