//! Manually encoded bytes of a fan-out: the request, and the message for every client.

use clap::ValueEnum;
use serde::Serialize;
use trunkline_generator::frame_protocol::Hub;
use trunkline_generator::message_pack;
use trunkline_generator::receivers::numbered_text;

/// Recipients of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum To {
    /// All connections of the hub
    Everyone,
    /// One group of all clients
    Group,
    /// Groups of ten, in rotation
    Groups,
    /// Groups of three, two per client, and a message to every other group, alternating between two halves
    Threes,
    /// All except ten additional connections
    Except,
}

/// Hub protocols of the clients. The first one, which sends requests, always uses JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ProtocolMix {
    /// JSON for all clients
    Json,
    /// MessagePack for all except the first
    MessagePack,
    /// MessagePack for every other client
    Mixed,
}

/// Members of a group in runs with many groups.
pub(crate) const GROUP_MEMBERS: usize = 10;
/// Members of each group in runs with the maximum number of groups.
const SMALL_GROUP_MEMBERS: usize = 3;
/// Partitions of the clients into groups of three; the second one is shifted by a client.
const HALVES: [Half; 2] = [Half("a", 0), Half("b", 1)];
/// Number of excluded connections.
pub(crate) const LEFT_OUT: usize = 10;

impl To {
    pub(crate) fn name(self) -> &'static str {
        match self {
            To::Everyone => "everyone",
            To::Group => "group",
            To::Groups => "groups",
            To::Threes => "threes",
            To::Except => "except",
        }
    }

    /// Groups of the client with this number, out of `clients`.
    pub(crate) fn groups(self, number: usize, clients: usize) -> Vec<String> {
        match self {
            To::Everyone | To::Except => Vec::new(),
            To::Group => vec!["all".into()],
            To::Groups => vec![format!("ten-{}", number / GROUP_MEMBERS)],
            To::Threes => HALVES.iter().map(|half| half.group(number, clients)).collect(),
        }
    }

    /// Target groups of the message with this number: each client is in one of them.
    fn audience(self, sequence: u64, clients: usize) -> Vec<String> {
        let members = if self == To::Threes { SMALL_GROUP_MEMBERS } else { GROUP_MEMBERS };
        let half = HALVES.get(usize::from(sequence.is_multiple_of(2)));
        let group = |first| match half {
            Some(half) if self == To::Threes => Some(half.name(first / members)),
            _ => self.groups(first, clients).pop(),
        };
        (0..clients).step_by(members).filter_map(group).collect()
    }

    /// Call that requests the message with this number from the app server. Without an id, so without an answer.
    pub(crate) fn call(self, sequence: u64, payload: usize, clients: usize, left_out: &[String]) -> Vec<u8> {
        let text = numbered_text(sequence, payload);
        let with = |target, names: &[String]| invocation(target, &format!("[\"{}\"],\"{text}\"", names.join("\",\"")));
        match self {
            To::Everyone => invocation("Broadcast", &format!("\"{text}\"")),
            To::Group => invocation("SendToGroup", &format!("\"all\",\"{text}\"")),
            To::Groups | To::Threes => with("SendToGroups", &self.audience(sequence, clients)),
            To::Except => with("BroadcastExcept", left_out),
        }
    }
}

/// Partition of the clients into groups of three: its letter, and the shift in clients.
struct Half(&'static str, usize);

impl Half {
    fn group(&self, number: usize, clients: usize) -> String {
        self.name((number + self.1) % clients.max(1) / SMALL_GROUP_MEMBERS)
    }

    fn name(&self, group: usize) -> String {
        format!("three-{}-{group}", self.0)
    }
}

impl ProtocolMix {
    pub(crate) fn name(self) -> &'static str {
        match self {
            ProtocolMix::Json => "json",
            ProtocolMix::MessagePack => "message-pack",
            ProtocolMix::Mixed => "mixed",
        }
    }

    pub(crate) fn hub(self, number: usize) -> Hub {
        let is_binary = match self {
            ProtocolMix::Json => false,
            ProtocolMix::MessagePack => number > 0,
            ProtocolMix::Mixed => number % 2 == 1,
        };
        if is_binary { Hub::MessagePack } else { Hub::Json }
    }
}

/// JSON message with this number, as received by every client.
pub(crate) fn message(sequence: u64, payload: usize) -> Vec<u8> {
    invocation("Message", &format!("\"{}\"", numbered_text(sequence, payload)))
}

/// MessagePack message with this number.
pub(crate) fn binary_message(sequence: u64, payload: usize) -> Vec<u8> {
    let argument = message_pack::text(&numbered_text(sequence, payload));
    let target = message_pack::text("Message");
    message_pack::message(&[&[0x96, 1, 0x80, 0xc0][..], &target, &[0x91], &argument, &[0x90]].concat())
}

fn invocation(target: &str, arguments: &str) -> Vec<u8> {
    format!("{{\"type\":1,\"target\":\"{target}\",\"arguments\":[{arguments}]}}\x1e").into_bytes()
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use trunkline_protocol::hub::{HubMessage, HubProtocol, Invocation};

    use super::*;

    #[test]
    fn the_message_pack_by_hand_is_what_the_product_writes() {
        for payload in [16, 31, 32, 128, 255, 256, 16_384] {
            let argument = HubProtocol::MessagePack.payload(&numbered_text(7, payload)).unwrap();
            let call = Invocation { target: "Message".into(), arguments: vec![argument], ..Invocation::default() };
            let mut encoded = BytesMut::new();
            HubProtocol::MessagePack.encode(&HubMessage::Invocation(call), &mut encoded);
            assert_eq!(encoded, binary_message(7, payload));
        }
    }

    #[test]
    fn groups_of_ten_hold_every_client_once() {
        let call = String::from_utf8(To::Groups.call(1, 16, 25, &[])).unwrap();
        assert!(call.contains("[\"ten-0\",\"ten-1\",\"ten-2\"]"), "{call}");
        assert_eq!([9, 24].map(|number| To::Groups.groups(number, 25)), [["ten-0"], ["ten-2"]]);
    }

    #[test]
    fn every_client_is_in_one_of_the_groups_of_three_that_a_message_names() {
        for sequence in [1, 2] {
            let audience = To::Threes.audience(sequence, 30);
            assert_eq!(audience.len(), 10);
            for number in 0..30 {
                let of_it = To::Threes.groups(number, 30);
                assert_eq!(of_it.iter().filter(|group| audience.contains(group)).count(), 1, "{of_it:?} {audience:?}");
            }
        }
        assert_ne!(To::Threes.audience(1, 30), To::Threes.audience(2, 30));
    }
}
