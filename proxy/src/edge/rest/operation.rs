//! Operations of the REST data plane, by method and path.
//!
//! ```text
//!  /api/hubs/{hub}                       POST :send, :sendBatch, :closeConnections, :generateToken, :execute
//!        …/connections/{id}              POST :send, :invoke, :refresh · HEAD · DELETE        …/groups         DELETE
//!        …/connections/{id}/streams/{stream}  POST :send, :complete
//!        …/connections                   GET · POST :refreshAuth  ·  …/connections/claims  POST
//!        …/users, …/groups               GET
//!        …/users/{user}/connections      GET
//!        each of these lists, and those below of connections and of a user's groups  GET :count
//!        …/groups/{group}                POST :send, :closeConnections · HEAD       …/connections    GET
//!                                                                                   …/connections/{id}, …/users/{user}
//!                                                                                                    PUT · DELETE
//!        …/users/{user}                  POST :send, :closeConnections · HEAD       …/groups         GET · DELETE
//!                                                                                   …/groups/{group} HEAD · PUT · DELETE
//! ```
//!
//! `groups/{group}` and `users/{user}` also have `/history`: GET, DELETE, and POST :finish.
//!
//! In `/api/v1/hubs/…`, a `POST` without a verb sends, changes return 202, and `connections/{id}/groups/{group}` is an
//! alias. `GET` is accepted for `HEAD`, as in Azure's SDK.

use http::Method;
use percent_encoding::percent_decode_str;
use trunkline_protocol::service::{RecordAct, RecordedSet};

use super::addressee::Addressee;
use super::listed_part::ConnectionSet;
use super::rest_error::RestError;
use crate::features::inspection::ListedNames;

/// Path prefixes, newer version first.
const PREFIXES: [(&str, Shape); 2] = [("/api/hubs/", Shape::Verbs), ("/api/v1/hubs/", Shape::First)];

/// Maximum length of hub names and connection ids in characters, as in Azure's service.
const HUB_MAX_CHARS: usize = 128;
const CONNECTION_MAX_CHARS: usize = 256;

/// Maximum length of a stream id in characters; clients use counters.
const STREAM_MAX_CHARS: usize = 256;

/// Maximum length of a user id in characters.
pub(super) const USER_MAX_CHARS: usize = 1024;

/// Path format of an API version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Verbs,
    First,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operation {
    Send(Addressee),
    SendBatch,
    Close(Addressee),
    Exists(Addressee),
    GenerateToken,
    Execute,
    Invoke { connection: String },
    Refresh { connection: String },
    RefreshAuth,
    Claims,
    SendItem { connection: String, stream: String },
    CompleteStream { connection: String, stream: String },
    ListMembers { group: String },
    ListConnections(ConnectionSet),
    ListNames(ListedNames),
    CountConnections(ConnectionSet),
    CountNames(ListedNames),
    Join { group: String, connection: String },
    Leave { group: String, connection: String },
    LeaveAll { connection: String },
    UserJoin { user: String, group: String },
    UserLeave { user: String, group: String },
    UserLeaveAll { user: String },
    UserIsIn { user: String, group: String },
    Record(RecordAct, RecordedSet),
}

impl Operation {
    /// Whether the operation reads the tables of shards in steps.
    pub(super) fn is_list(&self) -> bool {
        matches!(self, Self::ListConnections(_) | Self::ListNames(_) | Self::CountConnections(_) | Self::CountNames(_))
    }

    /// Group of the operation. The length limit of joins applies to its name.
    pub(super) fn group(&self) -> Option<&str> {
        match self {
            Self::Send(Addressee::Group(group))
            | Self::Close(Addressee::Group(group))
            | Self::Exists(Addressee::Group(group))
            | Self::ListMembers { group }
            | Self::CountConnections(ConnectionSet::Group(group))
            | Self::Join { group, .. }
            | Self::Leave { group, .. }
            | Self::UserJoin { group, .. }
            | Self::UserLeave { group, .. }
            | Self::UserIsIn { group, .. } => Some(group),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HubOperation {
    /// Set for changes in the first API version, which always return 202.
    pub(crate) is_only_accepted: bool,
    pub(crate) hub: String,
    pub(crate) operation: Operation,
}

pub(crate) fn is_of_data_plane(path: &str) -> bool {
    PREFIXES.iter().any(|(prefix, _)| path.starts_with(prefix))
}

/// Path without its version prefix; `None` for other paths.
fn split_path(path: &str) -> Option<(Shape, &str)> {
    PREFIXES.iter().find_map(|(prefix, shape)| Some((*shape, path.strip_prefix(prefix)?)))
}

impl HubOperation {
    /// Parses the operation of a request. Fails if the path is unknown, requires another method or contains an invalid
    /// name.
    pub(crate) fn from_request(method: &Method, path: &str) -> Result<Self, RestError> {
        let (shape, rest) = split_path(path).ok_or_else(RestError::no_such_path)?;
        let mut raw: Vec<&str> = rest.split('/').collect();
        // Allows a trailing slash after a complete path; after a path keyword it means an empty name.
        let is_whole = raw.len().is_multiple_of(2);
        raw.pop_if(|last| is_whole && last.is_empty());
        let verb = raw.pop_if(|last| last.starts_with(':') && rest.contains('/')).map(|verb| &verb[1..]);
        let names = raw.into_iter().map(decoded).collect::<Result<Vec<_>, _>>()?;
        let mut names = names.iter().map(String::as_str);
        let hub = checked("hub", names.next().unwrap_or_default(), HUB_MAX_CHARS)?;
        let mut names: Vec<&str> = names.collect();
        if let (Shape::First, ["connections", id, "groups", group]) = (shape, &*names) {
            names = vec!["groups", group, "connections", id];
        }
        let verb = match (verb, shape) {
            (None, Shape::First) if method == Method::POST => Some("send"),
            (verb, _) => verb,
        };
        let operation = match verb {
            Some("count") => match method == Method::GET {
                true => count_of(&names)?,
                false => return count_of(&names).and(Err(RestError::not_allowed("GET"))),
            },
            Some(verb) => {
                let operation = of_verb(verb, &names)?;
                if method == Method::POST { Some(operation) } else { None }
                    .ok_or_else(|| RestError::not_allowed("POST"))?
            }
            None => of_method(method, &names)?,
        };
        let is_change = matches!(*method, Method::PUT | Method::DELETE);
        Ok(Self { is_only_accepted: is_change && shape == Shape::First, hub, operation })
    }
}

/// Count of a list.
fn count_of(names: &[&str]) -> Result<Operation, RestError> {
    match names {
        ["connections"] => Ok(Operation::CountConnections(ConnectionSet::Hub)),
        ["groups", name, "connections"] => Ok(Operation::CountConnections(ConnectionSet::Group(group(name)?))),
        ["users", id, "connections"] => Ok(Operation::CountConnections(ConnectionSet::User(user(id)?))),
        ["users"] => Ok(Operation::CountNames(ListedNames::Users)),
        ["groups"] => Ok(Operation::CountNames(ListedNames::Groups)),
        ["users", id, "groups"] => Ok(Operation::CountNames(ListedNames::GroupsOf(user(id)?))),
        _ => Err(RestError::no_such_path()),
    }
}

/// Operation of a `POST` with a verb.
fn of_verb(verb: &str, names: &[&str]) -> Result<Operation, RestError> {
    let to = match names {
        ["connections", id, "streams", stream] => {
            let (connection, stream) = (connection(id)?, checked("stream id", stream, STREAM_MAX_CHARS)?);
            return match verb {
                "send" => Ok(Operation::SendItem { connection, stream }),
                "complete" => Ok(Operation::CompleteStream { connection, stream }),
                _ => Err(RestError::no_such_path()),
            };
        }
        ["groups" | "users", _, "history"] => {
            let set = recorded_set(names)?;
            return match verb {
                "finish" => Ok(Operation::Record(RecordAct::Finish, set)),
                _ => Err(RestError::no_such_path()),
            };
        }
        ["connections"] if verb == "refreshAuth" => return Ok(Operation::RefreshAuth),
        [] => Addressee::Everyone,
        ["connections", id] => Addressee::Connection(connection(id)?),
        ["groups", name] => Addressee::Group(group(name)?),
        ["users", id] => Addressee::User(user(id)?),
        _ => return Err(RestError::no_such_path()),
    };
    match (verb, to) {
        ("send", to) => Ok(Operation::Send(to)),
        ("closeConnections", to) if !matches!(to, Addressee::Connection(_)) => Ok(Operation::Close(to)),
        ("generateToken", Addressee::Everyone) => Ok(Operation::GenerateToken),
        ("execute", Addressee::Everyone) => Ok(Operation::Execute),
        ("sendBatch", Addressee::Everyone) => Ok(Operation::SendBatch),
        ("invoke", Addressee::Connection(connection)) => Ok(Operation::Invoke { connection }),
        ("refresh", Addressee::Connection(connection)) => Ok(Operation::Refresh { connection }),
        _ => Err(RestError::no_such_path()),
    }
}

/// Operation of a path without a verb.
fn of_method(method: &Method, names: &[&str]) -> Result<Operation, RestError> {
    use Operation as O;
    let (is_get, is_read) = (method == Method::GET, method == Method::HEAD || method == Method::GET);
    let (is_put, is_delete) = (method == Method::PUT, method == Method::DELETE);
    let allowed = match names {
        ["connections", "claims"] if method == Method::POST => return Ok(O::Claims),
        ["connections", id] if is_read => return Ok(O::Exists(Addressee::Connection(connection(id)?))),
        ["connections", id] if is_delete => return Ok(O::Close(Addressee::Connection(connection(id)?))),
        ["connections"] if is_get => return Ok(O::ListConnections(ConnectionSet::Hub)),
        ["connections"] => "GET, or POST with :refreshAuth behind it",
        ["users"] if is_get => return Ok(O::ListNames(ListedNames::Users)),
        ["groups"] if is_get => return Ok(O::ListNames(ListedNames::Groups)),
        ["users" | "groups"] => "GET",
        ["users", id, "connections"] if is_get => return Ok(O::ListConnections(ConnectionSet::User(user(id)?))),
        ["users", id, "groups"] if is_get => return Ok(O::ListNames(ListedNames::GroupsOf(user(id)?))),
        ["users", _, "groups"] if !is_delete => "GET, DELETE",
        ["connections", _] => "HEAD, GET, DELETE, or POST with :send, :invoke or :refresh behind the id",
        ["connections", id, "groups"] if is_delete => return Ok(O::LeaveAll { connection: connection(id)? }),
        ["connections", _, "groups"] => "DELETE",
        ["groups", name] if is_read => return Ok(O::Exists(Addressee::Group(group(name)?))),
        ["groups", _] => "HEAD, GET, or POST with :send or :closeConnections behind the name",
        ["groups", name, "connections"] if is_get => return Ok(O::ListMembers { group: group(name)? }),
        ["groups" | "users", _, "connections"] => "GET",
        ["groups" | "users", _, "history"] if is_get => return Ok(O::Record(RecordAct::Read, recorded_set(names)?)),
        ["groups" | "users", _, "history"] if is_delete => {
            return Ok(O::Record(RecordAct::Delete, recorded_set(names)?));
        }
        ["groups" | "users", _, "history"] => "GET, DELETE, or POST with :finish behind it",
        ["groups", name, "connections", id] if is_put => {
            return Ok(O::Join { group: group(name)?, connection: connection(id)? });
        }
        ["groups", name, "connections", id] if is_delete => {
            return Ok(O::Leave { group: group(name)?, connection: connection(id)? });
        }
        ["groups", _, "connections", _] => "PUT, DELETE",
        ["users", id] if is_read => return Ok(O::Exists(Addressee::User(user(id)?))),
        ["users", _] => "HEAD, GET, or POST with :send or :closeConnections behind the id",
        ["users", id, "groups"] => return Ok(O::UserLeaveAll { user: user(id)? }),
        ["users", id, "groups", name] | ["groups", name, "users", id] => {
            let (user, group) = (user(id)?, group(name)?);
            match () {
                () if is_read => return Ok(O::UserIsIn { user, group }),
                () if is_put => return Ok(O::UserJoin { user, group }),
                () if is_delete => return Ok(O::UserLeave { user, group }),
                () => "HEAD, GET, PUT, DELETE",
            }
        }
        ["connections", _, "streams", _] => "POST with :send or :complete behind the stream",
        [] => "POST with :send, :sendBatch, :closeConnections, :execute or :generateToken behind the hub",
        _ => return Err(RestError::no_such_path()),
    };
    Err(RestError::not_allowed(allowed))
}

/// Set of a path that begins with `groups/{group}` or `users/{user}`.
fn recorded_set(names: &[&str]) -> Result<RecordedSet, RestError> {
    match names {
        ["users", id, ..] => user(id).map(RecordedSet::user),
        [_, name, ..] => group(name).map(RecordedSet::group),
        _ => Err(RestError::no_such_path()),
    }
}

fn decoded(segment: &str) -> Result<String, RestError> {
    let text = percent_decode_str(segment).decode_utf8();
    text.map(Into::into).map_err(|_| RestError::bad_value("path", "has percent-encoded bytes that are not UTF-8"))
}

pub(super) fn connection(id: &str) -> Result<String, RestError> {
    checked("connection id", id, CONNECTION_MAX_CHARS)
}

pub(super) fn group(name: &str) -> Result<String, RestError> {
    checked("group", name, usize::MAX)
}

pub(super) fn user(id: &str) -> Result<String, RestError> {
    checked("user id", id, USER_MAX_CHARS)
}

fn checked(what: &'static str, name: &str, max_chars: usize) -> Result<String, RestError> {
    let chars = name.chars().take(max_chars.saturating_add(1)).count();
    match chars {
        0 => Err(RestError::bad_value(what, "is empty")),
        _ if chars > max_chars => Err(RestError::bad_value(what, format!("has more than {max_chars} characters"))),
        _ => Ok(name.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    fn read(method: &str, path: &str) -> Result<HubOperation, RestError> {
        HubOperation::from_request(&method.parse().unwrap(), path)
    }

    fn operation(method: &str, path: &str) -> Operation {
        let read = read(method, &format!("/api/hubs/chat{path}")).unwrap_or_else(|error| panic!("{path}: {error:?}"));
        assert_eq!(read.hub, "chat");
        read.operation
    }

    #[test]
    fn each_path_of_the_reference_is_an_operation() {
        use Operation as O;
        let to = |name: &str| Addressee::Group(name.into());
        let (user, group, connection) = (|| "u".to_owned(), || "g".to_owned(), || "c".to_owned());
        for (method, path, expected) in [
            ("POST", "/:send", O::Send(Addressee::Everyone)),
            ("POST", "/:sendBatch", O::SendBatch),
            ("POST", "/:closeConnections", O::Close(Addressee::Everyone)),
            ("POST", "/:generateToken", O::GenerateToken),
            ("POST", "/:execute", O::Execute),
            ("POST", "/connections/c/streams/s/:send", O::SendItem { connection: connection(), stream: "s".into() }),
            (
                "POST",
                "/connections/c/streams/s/:complete",
                O::CompleteStream { connection: connection(), stream: "s".into() },
            ),
            ("POST", "/connections/c/:send", O::Send(Addressee::Connection(connection()))),
            ("POST", "/connections/c/:invoke", O::Invoke { connection: connection() }),
            ("POST", "/connections/c/:refresh", O::Refresh { connection: connection() }),
            ("POST", "/connections/:refreshAuth", O::RefreshAuth),
            ("POST", "/connections/claims", O::Claims),
            ("HEAD", "/connections/c", O::Exists(Addressee::Connection(connection()))),
            ("DELETE", "/connections/c", O::Close(Addressee::Connection(connection()))),
            ("DELETE", "/connections/c/groups", O::LeaveAll { connection: connection() }),
            ("HEAD", "/groups/g", O::Exists(to("g"))),
            ("POST", "/groups/g/:send", O::Send(to("g"))),
            ("POST", "/groups/g/:closeConnections", O::Close(to("g"))),
            ("GET", "/groups/g/connections", O::ListMembers { group: group() }),
            ("GET", "/connections", O::ListConnections(ConnectionSet::Hub)),
            ("GET", "/groups/g/history", O::Record(RecordAct::Read, RecordedSet::group("g"))),
            ("DELETE", "/users/u/history", O::Record(RecordAct::Delete, RecordedSet::user("u"))),
            ("POST", "/users/u/history/:finish", O::Record(RecordAct::Finish, RecordedSet::user("u"))),
            ("GET", "/users/u/connections", O::ListConnections(ConnectionSet::User(user()))),
            ("GET", "/users", O::ListNames(ListedNames::Users)),
            ("GET", "/groups", O::ListNames(ListedNames::Groups)),
            ("GET", "/users/u/groups", O::ListNames(ListedNames::GroupsOf(user()))),
            ("GET", "/connections/:count", O::CountConnections(ConnectionSet::Hub)),
            ("GET", "/groups/g/connections/:count", O::CountConnections(ConnectionSet::Group(group()))),
            ("GET", "/users/u/connections/:count", O::CountConnections(ConnectionSet::User(user()))),
            ("GET", "/users/:count", O::CountNames(ListedNames::Users)),
            ("GET", "/groups/:count", O::CountNames(ListedNames::Groups)),
            ("GET", "/users/u/groups/:count", O::CountNames(ListedNames::GroupsOf(user()))),
            ("PUT", "/groups/g/connections/c", O::Join { group: group(), connection: connection() }),
            ("DELETE", "/groups/g/connections/c", O::Leave { group: group(), connection: connection() }),
            ("HEAD", "/users/u", O::Exists(Addressee::User(user()))),
            ("POST", "/users/u/:send", O::Send(Addressee::User(user()))),
            ("POST", "/users/u/:closeConnections", O::Close(Addressee::User(user()))),
            ("DELETE", "/users/u/groups", O::UserLeaveAll { user: user() }),
            ("GET", "/users/u/groups/g", O::UserIsIn { user: user(), group: group() }),
            ("PUT", "/users/u/groups/g", O::UserJoin { user: user(), group: group() }),
            ("PUT", "/groups/g/users/u", O::UserJoin { user: user(), group: group() }),
            ("DELETE", "/users/u/groups/g", O::UserLeave { user: user(), group: group() }),
        ] {
            assert_eq!(operation(method, path), expected, "{method} {path}");
        }
    }

    #[test]
    fn the_description_names_what_is_served_and_nothing_else() {
        let description: serde_json::Value = serde_json::from_str(include_str!("openapi.json")).unwrap();
        let is_operation = |method: &str, path: &str| {
            let path = path.replace(['{', '}'], "");
            HubOperation::from_request(&method.to_ascii_uppercase().parse().unwrap(), &path).is_ok()
        };
        let mut described = 0;
        for (path, methods) in
            description["paths"].as_object().unwrap().iter().filter(|(path, _)| is_of_data_plane(path))
        {
            for method in ["get", "head", "put", "post", "delete", "patch"] {
                // For other methods, it is the connection with that id.
                if path.ends_with("/connections/claims") && method != "post" {
                    continue;
                }
                let is_described = methods.get(method).is_some();
                assert_eq!(is_described, is_operation(method, path), "{method} {path}");
                described += usize::from(is_described);
            }
        }
        assert_eq!(described, 53);
    }

    #[test]
    fn the_first_version_sends_without_a_verb() {
        for (path, to) in [
            ("", Addressee::Everyone),
            ("/users/u", Addressee::User("u".into())),
            ("/groups/g", Addressee::Group("g".into())),
        ] {
            let sent = read("POST", &format!("/api/v1/hubs/chat{path}")).unwrap();
            assert_eq!(sent.operation, Operation::Send(to), "{path}");
            assert_eq!(
                read("POST", &format!("/api/hubs/chat{path}")).unwrap_err().status(),
                StatusCode::METHOD_NOT_ALLOWED
            );
        }
    }

    #[test]
    fn changes_of_the_first_version_are_only_accepted_and_take_the_group_behind_the_connection() {
        let of_version = |prefix: &str, method: &str, path: &str| {
            let read = read(method, &format!("{prefix}/hubs/chat{path}")).unwrap();
            (read.is_only_accepted, read.operation)
        };
        for (method, path, is_change) in [
            ("PUT", "/groups/g/connections/c", true),
            ("DELETE", "/groups/g/connections/c", true),
            ("DELETE", "/connections/c/groups", true),
            ("PUT", "/groups/g/users/u", true),
            ("PUT", "/users/u/groups/g", true),
            ("DELETE", "/users/u/groups/g", true),
            ("DELETE", "/users/u/groups", true),
            ("DELETE", "/connections/c", true),
            ("HEAD", "/connections/c", false),
            ("GET", "/users/u/groups/g", false),
            ("POST", "/:closeConnections", false),
        ] {
            let (first, newer) = (of_version("/api/v1", method, path), of_version("/api", method, path));
            assert_eq!((first.0, newer.0, first.1), (is_change, false, newer.1), "{method} {path}");
        }
        for method in ["PUT", "DELETE"] {
            let (alias, usual) = ("/connections/c/groups/g", "/groups/g/connections/c");
            assert_eq!(of_version("/api/v1", method, alias), of_version("/api/v1", method, usual));
            let newer = read(method, &format!("/api/hubs/chat{alias}")).unwrap_err();
            assert_eq!(newer.status(), StatusCode::NOT_FOUND);
        }
    }

    #[test]
    fn names_are_decoded_once_and_slashes_in_them_separate_nothing() {
        assert_eq!(
            operation("POST", "/groups/red%20%26%20blue%2F%C3%A5%3F/:send"),
            Operation::Send(Addressee::Group("red & blue/å?".into()))
        );
        assert_eq!(operation("HEAD", "/users/%2525"), Operation::Exists(Addressee::User("%25".into())));
        assert_eq!(operation("POST", "/groups/:send/:send"), Operation::Send(Addressee::Group(":send".into())));
        let hub = read("POST", "/api/hubs/rooms%2Fchat/:send").unwrap().hub;
        assert_eq!(hub, "rooms/chat");
    }

    #[test]
    fn a_slash_at_the_end_of_a_whole_path_does_not_count() {
        assert_eq!(operation("HEAD", "/users/ann/"), Operation::Exists(Addressee::User("ann".into())));
        let in_group = Operation::UserIsIn { user: "ann".into(), group: "red".into() };
        assert_eq!(operation("GET", "/users/ann/groups/red/"), in_group);
        let empty = read("DELETE", "/api/hubs/chat/users/ann/groups/").unwrap_err();
        assert!(empty.to_string().contains("group is empty"), "it leaves no other group: {empty}");
    }

    #[test]
    fn the_problem_of_a_path_is_reported() {
        let long = "x".repeat(USER_MAX_CHARS + 1);
        for (method, path, status, text) in [
            ("POST", "/api/hubs/", StatusCode::BAD_REQUEST, "hub is empty"),
            ("POST", "/api/hubs/chat/:nothing", StatusCode::NOT_FOUND, "openapi.json"),
            ("POST", "/api/hubs/chat/rooms/a/:send", StatusCode::NOT_FOUND, "openapi.json"),
            ("POST", "/api/hubs/chat/connections/c/:closeConnections", StatusCode::NOT_FOUND, "openapi.json"),
            ("HEAD", "/api/hubs/chat/users/%FF", StatusCode::BAD_REQUEST, "UTF-8"),
            ("HEAD", "/api/hubs/chat/users/", StatusCode::BAD_REQUEST, "user id is empty"),
            ("HEAD", &format!("/api/hubs/chat/users/{long}"), StatusCode::BAD_REQUEST, "1024"),
            ("GET", "/api/hubs/chat/:send", StatusCode::METHOD_NOT_ALLOWED, "POST"),
            ("PUT", "/api/hubs/chat/users/u", StatusCode::METHOD_NOT_ALLOWED, "HEAD"),
            ("GET", "/api/hubs/chat", StatusCode::METHOD_NOT_ALLOWED, ":send"),
            ("POST", "/api/hubs/chat/users/:count", StatusCode::METHOD_NOT_ALLOWED, "GET"),
            ("GET", "/api/hubs/chat/users/u/:count", StatusCode::NOT_FOUND, "openapi.json"),
        ] {
            let error = read(method, path).unwrap_err();
            assert_eq!(error.status(), status, "{method} {path}");
            assert!(error.to_string().contains(text), "{method} {path}: {error}");
        }
    }
}
