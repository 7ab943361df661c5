//! Batch of sends (`:sendBatch`): different messages, each to several targets, with a result for each message.
//!
//! A client gets a message once: the send to each target leaves out the clients of earlier targets.

use std::collections::BTreeMap;

use bytestring::ByteString;
use serde_json::{Map, Value, json};
use trunkline_protocol::json_text::JsonText;
use trunkline_protocol::service::{FILTER_MAX_BYTES, Payloads};

use super::addressee::Addressee;
use super::message_body::ClientCall;
use super::operation::{connection, group, user};
use super::rest_error::RestError;
use crate::fleet::FleetDelivery;

/// Maximum number of messages in a batch, and of targets of all its messages.
const MESSAGES_MAX: usize = 100;
const TARGETS_MAX: usize = 100;

/// Maximum size of all messages of a batch, each counted once per target and hub protocol: each target gets a copy.
const COPIES_MAX_BYTES: usize = 16 << 20;

/// Members of a message, in addition to target and arguments.
const TARGET_MEMBERS: [&str; 5] = ["all", "groups", "users", "connections", "excluded"];

const MESSAGE_MEMBERS: &str = "target, arguments, all, groups, users, connections, excluded";

/// Targets of a message, with filters.
type Targets = Vec<(Addressee, Option<String>)>;

#[derive(Debug)]
pub(super) struct BatchMessage {
    /// Targets, each with a filter that leaves out the clients of earlier targets and excluded ones.
    pub(super) targets: Targets,
    /// Excluded connections, for targets that are recorded.
    pub(super) excluded: Vec<ByteString>,
    pub(super) payloads: Payloads,
}

/// Parses the messages of a body. If one is wrong, none is sent. Fails if a message is malformed, or a limit exceeded;
/// the text identifies it.
pub(super) fn read_batch(body: &[u8]) -> Result<Vec<BatchMessage>, RestError> {
    let items: Vec<BTreeMap<String, JsonText>> = serde_json::from_slice(body).map_err(|error| {
        let example = "[{\"groups\": [\"red\"], \"users\": [\"ann\"], \"target\": \"Say\", \"arguments\": [1]}]";
        RestError::bad_value("body", format!("is not a list like {example}: {error}"))
    })?;
    if items.is_empty() || items.len() > MESSAGES_MAX {
        let problem = format!("has {} messages, but must have 1 to {MESSAGES_MAX}", items.len());
        return Err(RestError::bad_value("body", problem));
    }
    let read = |(at, item): (usize, BTreeMap<String, JsonText>)| {
        BatchMessage::from_members(item)
            .map_err(|error| RestError::bad_value("body", format!("has a wrong message {}: {error}", at + 1)))
    };
    let messages = items.into_iter().enumerate().map(read).collect::<Result<Vec<_>, _>>()?;
    let targets: usize = messages.iter().map(|message| message.targets.len()).sum();
    if targets > TARGETS_MAX {
        let problem = format!("has {targets} targets, but at most {TARGETS_MAX} are allowed: send it in parts");
        return Err(RestError::bad_value("body", problem));
    }
    let bytes: usize = messages.iter().map(BatchMessage::copies_bytes).sum();
    if bytes > COPIES_MAX_BYTES {
        let problem = format!(
            "has {bytes} bytes over all targets and hub protocols, but at most {COPIES_MAX_BYTES} are allowed: send it \
             in parts, or to a group"
        );
        return Err(RestError::bad_value("body", problem));
    }
    Ok(messages)
}

/// Result of one message, as JSON.
pub(super) fn result(FleetDelivery { nodes, missing, clients, positions, .. }: &FleetDelivery) -> Map<String, Value> {
    let counts = [("nodes", json!(nodes)), ("clients", json!(clients)), ("missing", json!(missing))];
    let positions = positions.iter().map(|(name, position)| (name.clone(), json!(position)));
    let positions = Some(positions.collect::<Map<_, _>>()).filter(|positions| !positions.is_empty());
    let positions = positions.map(|positions| ("positions", Value::Object(positions)));
    counts.into_iter().chain(positions).map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Sum of the deliveries to the targets of one message.
pub(super) fn total(deliveries: Vec<FleetDelivery>) -> FleetDelivery {
    let least = if deliveries.is_empty() { 0 } else { u64::MAX };
    let mut all = FleetDelivery { nodes: least, ..FleetDelivery::default() };
    for mut one in deliveries {
        all.nodes = all.nodes.min(one.nodes);
        all.clients += one.clients;
        all.missing.append(&mut one.missing);
        all.positions.append(&mut one.positions);
    }
    all.missing.sort();
    all.missing.dedup();
    all
}

impl BatchMessage {
    fn from_members(members: BTreeMap<String, JsonText>) -> Result<Self, RestError> {
        let is_target = |name: &str| TARGET_MEMBERS.iter().any(|known| name.eq_ignore_ascii_case(known));
        let (targets, call): (BTreeMap<_, _>, _) = members.into_iter().partition(|(name, _)| is_target(name));
        let payloads = ClientCall::from_members(call, MESSAGE_MEMBERS)?.payloads(None)?;
        let names = |wanted: &'static str| names(&targets, wanted);
        let mut all: Vec<Addressee> = Vec::new();
        match member(&targets, "all") {
            None | Some(Value::Null | Value::Bool(false)) => {}
            Some(Value::Bool(true)) => all.push(Addressee::Everyone),
            Some(_) => return Err(RestError::bad_value("all", "must be true or false")),
        }
        let groups = names("groups")?.iter().map(|name| group(name).map(Addressee::Group)).collect::<Vec<_>>();
        let users = names("users")?.iter().map(|id| user(id).map(Addressee::User)).collect::<Vec<_>>();
        let clients =
            names("connections")?.iter().map(|id| connection(id).map(Addressee::Connection)).collect::<Vec<_>>();
        all.extend(groups.into_iter().chain(users).chain(clients).collect::<Result<Vec<_>, _>>()?);
        let excluded = names("excluded")?.iter().map(|id| connection(id)).collect::<Result<Vec<_>, _>>()?;
        match &*all {
            [] => return Err(RestError::bad_value("message", "has no target: all, groups, users or connections")),
            [first, _, ..] if *first == Addressee::Everyone => {
                return Err(RestError::bad_value("all", "must not be true beside other targets"));
            }
            _ => {}
        }
        let kept = excluded.iter().map(|id| id.as_str().into()).collect();
        Ok(Self { targets: disjoint(all, excluded)?, excluded: kept, payloads })
    }

    fn copies_bytes(&self) -> usize {
        self.targets.len() * self.payloads.0.iter().map(|(_, bytes)| bytes.len()).sum::<usize>()
    }
}

/// Adds filters to targets, so that no client belongs to two of them.
fn disjoint(all: Vec<Addressee>, excluded: Vec<String>) -> Result<Targets, RestError> {
    let mut seen: Vec<String> =
        excluded.into_iter().map(|id| Addressee::Connection(id).filter().into_owned()).collect();
    let mut targets = Vec::new();
    for target in all {
        let filter = (!seen.is_empty()).then(|| format!("not ({})", seen.join(" or ")));
        if filter.as_ref().is_some_and(|filter| filter.len() > FILTER_MAX_BYTES) {
            let problem = format!(
                "has targets and exclusions that are longer than {FILTER_MAX_BYTES} bytes as a filter: use several \
                 messages, or a group"
            );
            return Err(RestError::bad_value("message", problem));
        }
        seen.push(target.filter().into_owned());
        targets.push((target, filter));
    }
    Ok(targets)
}

fn member<'m>(members: &'m BTreeMap<String, JsonText>, wanted: &str) -> Option<&'m Value> {
    members.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.value())
}

fn names(members: &BTreeMap<String, JsonText>, wanted: &'static str) -> Result<Vec<String>, RestError> {
    let wrong = || RestError::bad_value(wanted, "must be a list of 1 to 100 different texts");
    let list = match member(members, wanted) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) if (1..=TARGETS_MAX).contains(&list.len()) => list,
        Some(_) => return Err(wrong()),
    };
    let mut names = Vec::with_capacity(list.len());
    for name in list {
        match name {
            Value::String(name) if !names.contains(name) => names.push(name.clone()),
            _ => return Err(wrong()),
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Vec<Targets>, String> {
        let read = read_batch(body.as_bytes()).map_err(|error| error.to_string())?;
        Ok(read.into_iter().map(|one| one.targets).collect())
    }

    #[test]
    fn each_target_leaves_out_the_clients_of_the_ones_before_it() {
        let body = r#"[{"groups":["a","b'"],"Users":["u"],"excluded":["x"],"target":"Say","arguments":[]},
                       {"all":true,"target":"Say","arguments":[]}]"#;
        let read = read(body).unwrap();
        let filter = |text: &str| Some(text.to_owned());
        assert_eq!(
            read[0][..],
            [
                (Addressee::Group("a".into()), filter("not (connectionId eq 'x')")),
                (Addressee::Group("b'".into()), filter("not (connectionId eq 'x' or 'a' in groups)")),
                (Addressee::User("u".into()), filter("not (connectionId eq 'x' or 'a' in groups or 'b''' in groups)")),
            ]
        );
        assert_eq!(read[1][..], [(Addressee::Everyone, None)]);
    }

    #[test]
    fn a_wrong_message_is_named_with_the_reason() {
        let names: Vec<_> = (0..6).map(|number| format!("\"{number}{}\"", "x".repeat(1000))).collect();
        let long = format!("{{\"groups\":[{}],\"target\":\"a\",\"arguments\":[]}}", names.join(","));
        for (message, problem) in [
            (r#"{"target":"Say","arguments":[]}"#, "has no target: all, groups, users or connections"),
            (r#"{"groups":[],"target":"Say","arguments":[]}"#, "the groups must be a list of 1 to 100"),
            (r#"{"groups":["a","a"],"target":"Say","arguments":[]}"#, "different"),
            (r#"{"all":true,"users":["u"],"target":"Say","arguments":[]}"#, "beside other targets"),
            (r#"{"all":1,"target":"Say","arguments":[]}"#, "true or false"),
            (r#"{"user":["u"],"target":"Say","arguments":[]}"#, "unknown member \"user\""),
            (r#"{"users":["u"],"arguments":[]}"#, "the target is missing"),
            (&*long, "longer than 4096 bytes"),
        ] {
            let told = read(&format!("[{{\"all\":true,\"target\":\"Say\",\"arguments\":[]}},{message}]")).unwrap_err();
            assert!(told.contains("wrong message 2: ") && told.contains(problem), "{message}: {told}");
        }
    }

    #[test]
    fn a_batch_above_a_limit_is_refused_whole() {
        let message = r#"{"groups":["a","b"],"target":"Say","arguments":[]}"#;
        let users: Vec<_> = (0..40).map(|number| format!("\"{number}\"")).collect();
        let argument = "x".repeat(COPIES_MAX_BYTES / 80);
        let copied = format!("{{\"users\":[{}],\"target\":\"Say\",\"arguments\":[\"{argument}\"]}}", users.join(","));
        for (body, problem) in [
            ("{}".to_owned(), "is not a list like"),
            ("[]".to_owned(), "has 0 messages, but must have 1 to 100"),
            (format!("[{}]", vec![message; 101].join(",")), "has 101 messages"),
            (format!("[{}]", vec![message; 51].join(",")), "has 102 targets, but at most 100"),
            (format!("[{copied}]"), "over all targets and hub protocols, but at most 16777216 are allowed"),
        ] {
            let told = read_batch(body.as_bytes()).unwrap_err().to_string();
            assert!(told.contains(problem), "{told}");
        }
    }

    #[test]
    fn the_result_of_a_message_adds_up_its_targets() {
        let one = |nodes, clients, missing: &[&str]| {
            let missing = missing.iter().map(|name| (*name).to_owned()).collect();
            FleetDelivery { nodes, clients, missing, is_known: true, positions: Vec::new() }
        };
        let sum = total(vec![one(2, 3, &[]), one(1, 4, &["b", "a"]), one(1, 0, &["a"])]);
        assert_eq!(Value::Object(result(&sum)), json!({ "nodes": 1, "clients": 7, "missing": ["a", "b"] }));
    }
}
