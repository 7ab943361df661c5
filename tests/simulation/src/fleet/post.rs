//! Messages that enter a fleet at one node, for clients at any of them.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use trunkline_protocol::fleet::Wanted;
use trunkline_protocol::hub::HubProtocol;
use trunkline_protocol::service::{BroadcastData, GroupBroadcastData, Payloads, ServiceMessage, UserData};

use crate::random::Random;

/// Hubs of the fleet. Few names, so that memberships overlap and some nodes have no members.
pub(crate) const HUBS: [&str; 2] = ["chat", "news"];

const GROUPS: [&str; 12] = ["g0", "g1", "g2", "g3", "g4", "g5", "g6", "g7", "g8", "g9", "g10", "g11"];
const USERS: [&str; 12] = ["u0", "u1", "u2", "u3", "u4", "u5", "u6", "u7", "u8", "u9", "u10", "u11"];

/// Number of group names, and of user names.
pub(crate) const NAMES: usize = GROUPS.len();

/// Recipients of a message in its hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Recipients {
    Everyone,
    Group(usize),
    User(usize),
}

/// Message that enters at a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Post {
    /// Entry process of the message.
    pub(crate) entry: usize,
    /// Sequence number at its entry process, from 1.
    pub(crate) number: u64,
    pub(crate) hub: usize,
    pub(crate) to: Recipients,
}

impl Recipients {
    pub(crate) fn any(random: &mut Random) -> Self {
        match random.below(3) {
            0 => Self::Everyone,
            1 => Self::Group(random.index(NAMES)),
            _ => Self::User(random.index(NAMES)),
        }
    }

    pub(crate) fn wanted(self) -> Wanted<'static> {
        match self {
            Self::Everyone => Wanted::Everyone,
            Self::Group(index) => Wanted::Group(GROUPS[index]),
            Self::User(index) => Wanted::User(USERS[index]),
        }
    }

    pub(crate) fn bucket(self) -> u16 {
        self.wanted().bucket()
    }
}

impl Post {
    pub(crate) fn to_body(self, padding: usize) -> Bytes {
        let mut payload = BytesMut::new();
        payload.put_u64(self.entry as u64);
        payload.put_u64(self.number);
        payload.put_bytes(b'x', padding);
        let payloads = Payloads::single(HubProtocol::Json, payload.freeze());
        let message = match self.to {
            Recipients::Everyone => {
                ServiceMessage::BroadcastData(BroadcastData { payloads, ..BroadcastData::default() })
            }
            Recipients::Group(index) => ServiceMessage::GroupBroadcastData(GroupBroadcastData {
                group: GROUPS[index].into(),
                payloads,
                ..GroupBroadcastData::default()
            }),
            Recipients::User(index) => ServiceMessage::UserData(UserData { user_id: USERS[index].into(), payloads }),
        };
        body_of(&message)
    }

    pub(crate) fn read(hub: &str, body: &Bytes) -> Option<Self> {
        let hub = HUBS.iter().position(|name| *name == hub)?;
        let (to, payloads) = match ServiceMessage::decode(body).ok()?? {
            ServiceMessage::BroadcastData(data) => (Recipients::Everyone, data.payloads),
            ServiceMessage::GroupBroadcastData(data) => {
                (Recipients::Group(GROUPS.iter().position(|name| data.group == **name)?), data.payloads)
            }
            ServiceMessage::UserData(data) => {
                (Recipients::User(USERS.iter().position(|name| data.user_id == **name)?), data.payloads)
            }
            _ => return None,
        };
        let mut payload = payloads.get(HubProtocol::Json)?.clone();
        let entry = usize::try_from(payload.try_get_u64().ok()?).ok()?;
        Some(Self { entry, number: payload.try_get_u64().ok()?, hub, to })
    }
}

/// Frame body of a message, without its length prefix.
pub(crate) fn body_of(message: &ServiceMessage) -> Bytes {
    let mut frame = message.to_frame();
    while frame.has_remaining() && frame.get_u8() & 0x80 != 0 {}
    frame
}
