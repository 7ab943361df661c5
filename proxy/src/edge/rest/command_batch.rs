//! Command batch (`:execute`): addressed clients, and sequential execution of the commands.
//!
//! Azure's reference lists four command types, with OData filters. A filter with a single comparison to a name is sent
//! only to nodes with such clients; others are evaluated per client, at its node.

use std::collections::BTreeMap;

use serde_json::Value;
use trunkline_protocol::json_text::JsonText;
use trunkline_protocol::service::{ClientFilter, FilterTarget};

use super::addressee::Addressee;
use super::message_body::{CALL_MEMBERS, ClientCall};
use super::operation::{connection, group, user};
use super::query::REASON_MAX_CHARS;
use super::rest_error::RestError;

/// Maximum number of commands per request.
const COMMANDS_MAX: usize = 100;

/// Command for the clients matched by a filter.
#[derive(Debug, PartialEq)]
pub(super) enum Command {
    SendMessage(ClientCall),
    JoinGroup(String),
    LeaveGroup(String),
    CloseConnection { reason: Option<String> },
}

/// Parses the commands of a body. If one is invalid, none is executed. Fails if a command is malformed; the text
/// identifies it.
pub(super) fn read_commands(body: &[u8]) -> Result<Vec<Command>, RestError> {
    let items: Vec<BTreeMap<String, JsonText>> = serde_json::from_slice(body).map_err(|error| {
        RestError::bad_value(
            "body",
            format!("is not a list like [{{\"type\": \"JoinGroup\", \"group\": \"red\"}}]: {error}"),
        )
    })?;
    if items.is_empty() || items.len() > COMMANDS_MAX {
        let problem = format!("has {} commands, but must have 1 to {COMMANDS_MAX}", items.len());
        return Err(RestError::bad_value("body", problem));
    }
    let read = |(at, item): (usize, BTreeMap<String, JsonText>)| {
        Command::from_members(item)
            .map_err(|error| RestError::bad_value("body", format!("has a wrong command {}: {error}", at + 1)))
    };
    items.into_iter().enumerate().map(read).collect()
}

impl Command {
    fn from_members(members: BTreeMap<String, JsonText>) -> Result<Self, RestError> {
        let text = |wanted: &'static str| {
            let member = members.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
            match member.map(|(_, value)| value.value()) {
                None | Some(Value::Null) => Ok(None),
                Some(Value::String(text)) => Ok(Some(text.clone())),
                Some(_) => Err(RestError::bad_value(wanted, "must be a text")),
            }
        };
        let kind = text("type")?.unwrap_or_default().to_ascii_lowercase();
        let allowed = match kind.as_str() {
            "joingroup" | "leavegroup" => "type, group",
            "closeconnection" => "type, reason",
            _ => "type, target, arguments",
        };
        let is_allowed = |name: &str| allowed.split(", ").any(|known| known.eq_ignore_ascii_case(name));
        if let Some(unknown) = members.keys().find(|name| !is_allowed(name)) {
            return Err(RestError::unknown_member(unknown, allowed));
        }
        let named = || group(&text("group")?.unwrap_or_default());
        match kind.as_str() {
            "sendmessage" => {
                let call = members.into_iter().filter(|(name, _)| !name.eq_ignore_ascii_case("type"));
                ClientCall::from_members(call.collect(), CALL_MEMBERS).map(Self::SendMessage)
            }
            "joingroup" => named().map(Self::JoinGroup),
            "leavegroup" => named().map(Self::LeaveGroup),
            "closeconnection" => match text("reason")? {
                Some(reason) if reason.chars().count() > REASON_MAX_CHARS => {
                    Err(RestError::bad_value("reason", format!("has more than {REASON_MAX_CHARS} characters")))
                }
                reason => Ok(Self::CloseConnection { reason }),
            },
            _ => Err(RestError::bad_value("type", "must be SendMessage, JoinGroup, LeaveGroup or CloseConnection")),
        }
    }
}

pub(super) fn read_filter(filter: Option<&str>) -> Result<Addressee, RestError> {
    let Some(text) = filter.map(str::trim).filter(|filter| !filter.is_empty()) else {
        return Ok(Addressee::Everyone);
    };
    let filter = ClientFilter::parse(text).map_err(|error| RestError::bad_value("filter", error))?;
    Ok(match filter.target() {
        Some(FilterTarget::User(id)) => Addressee::User(user(id)?),
        Some(FilterTarget::Connection(id)) => Addressee::Connection(connection(id)?),
        Some(FilterTarget::Group(name)) => Addressee::Group(group(name)?),
        None => Addressee::Matching(text.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_names_all_a_user_a_connection_or_a_group() {
        let read = |text: &str| read_filter(Some(text)).unwrap();
        assert_eq!(read_filter(None).unwrap(), Addressee::Everyone);
        assert_eq!(read(" "), Addressee::Everyone);
        assert_eq!(read("userId eq 'ann o''neill'"), Addressee::User("ann o'neill".into()));
        assert_eq!(read("connectionid eq 'c'"), Addressee::Connection("c".into()));
        assert_eq!(read("'in groups' in groups"), Addressee::Group("in groups".into()));
        let text = "startswith(userId, 'a') and not ('red' in groups)";
        assert_eq!(read(text), Addressee::Matching(text.into()));
        for (wrong, problem) in
            [("userId eq ann", "expected userId"), ("groups", "expected userId"), ("userId eq ''", "empty")]
        {
            let error = read_filter(Some(wrong)).unwrap_err().to_string();
            assert!(error.contains(problem), "{wrong}: {error}");
        }
    }

    #[test]
    fn commands_are_read_whole_or_not_at_all() {
        let body = br#"[{"type":"SendMessage","target":"Say","arguments":[1]},{"Type":"joinGroup","Group":"red"},
                        {"type":"LeaveGroup","group":"red"},{"type":"CloseConnection","reason":"bye"}]"#;
        let read = read_commands(body).unwrap();
        assert!(matches!(read[0], Command::SendMessage(_)));
        let reason = Some("bye".into());
        assert_eq!(
            read[1..],
            [Command::JoinGroup("red".into()), Command::LeaveGroup("red".into()), Command::CloseConnection { reason }]
        );
        let many = format!("[{}]", vec!["{\"type\":\"CloseConnection\"}"; COMMANDS_MAX + 1].join(","));
        for (body, problem) in [
            ("{}", "is not a list"),
            ("[]", "1 to 100"),
            (&many, "1 to 100"),
            (r#"[{"type":"CloseConnection"},{"type":"Dance"}]"#, "wrong command 2: the type must be SendMessage"),
            (r#"[{"type":"JoinGroup"}]"#, "wrong command 1: the group is empty"),
            (r#"[{"type":"SendMessage"}]"#, "wrong command 1: the target is missing"),
            (r#"[{"type":"JoinGroup","gruop":"a"}]"#, "wrong command 1: the body has an unknown member \"gruop\""),
            (
                r#"[{"type":"SendMessage","target":"a","arguments":[],"to":1}]"#,
                "its members are type, target, arguments",
            ),
        ] {
            let told = read_commands(body.as_bytes()).unwrap_err().to_string();
            assert!(told.contains(problem), "{body}: {told}");
        }
    }
}
