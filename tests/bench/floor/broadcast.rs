//! The bytes of a fan-out: what asks for it, and what every client is to get, written by hand.

use clap::ValueEnum;
use serde::Serialize;
use trunkline_generator::message_pack;
use trunkline_generator::receivers::numbered_text;
use trunkline_generator::speech::Hub;

/// Audience of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum To {
    /// All connections of the hub
    Everyone,
    /// One group of all clients
    Group,
    /// Groups of ten, one after the other
    Groups,
    /// All but ten connections that are there, too
    Except,
}

/// Hub protocols of the clients. The first one, which asks, always speaks JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Speech {
    /// JSON, all of them
    Json,
    /// MessagePack, but for the first
    MessagePack,
    /// Every other one MessagePack
    Mixed,
}

/// Members of a group where there are many groups.
pub(crate) const GROUP_MEMBERS: usize = 10;
/// Connections that are left out.
pub(crate) const LEFT_OUT: usize = 10;

impl To {
    /// Name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            To::Everyone => "everyone",
            To::Group => "group",
            To::Groups => "groups",
            To::Except => "except",
        }
    }

    /// The group of the client of this number.
    pub(crate) fn group(self, number: usize) -> Option<String> {
        match self {
            To::Everyone | To::Except => None,
            To::Group => Some("all".into()),
            To::Groups => Some(format!("ten-{}", number / GROUP_MEMBERS)),
        }
    }

    /// The call that asks the app server for the message of this number. Without an id: there is no answer.
    pub(crate) fn call(self, sequence: u64, payload: usize, clients: usize, left_out: &[String]) -> Vec<u8> {
        let text = numbered_text(sequence, payload);
        let with = |target, names: &[String]| invocation(target, &format!("[\"{}\"],\"{text}\"", names.join("\",\"")));
        match self {
            To::Everyone => invocation("Broadcast", &format!("\"{text}\"")),
            To::Group => invocation("SendToGroup", &format!("\"all\",\"{text}\"")),
            To::Groups => {
                let groups = (0..clients).step_by(GROUP_MEMBERS).filter_map(|first| self.group(first));
                with("SendToGroups", &groups.collect::<Vec<_>>())
            }
            To::Except => with("BroadcastExcept", left_out),
        }
    }
}

impl Speech {
    /// Name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Speech::Json => "json",
            Speech::MessagePack => "message-pack",
            Speech::Mixed => "mixed",
        }
    }

    /// The hub protocol of the client of this number.
    pub(crate) fn hub(self, number: usize) -> Hub {
        let is_binary = match self {
            Speech::Json => false,
            Speech::MessagePack => number > 0,
            Speech::Mixed => number % 2 == 1,
        };
        if is_binary { Hub::MessagePack } else { Hub::Json }
    }
}

/// Message of this number as every client gets it, in JSON.
pub(crate) fn message(sequence: u64, payload: usize) -> Vec<u8> {
    invocation("Message", &format!("\"{}\"", numbered_text(sequence, payload)))
}

/// Message of this number in MessagePack.
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
        assert_eq!((To::Groups.group(9).unwrap().as_str(), To::Groups.group(24).unwrap().as_str()), ("ten-0", "ten-2"));
    }
}
