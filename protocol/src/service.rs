//! Service protocol of the links between proxies and app servers.
//!
//! ```text
//!  WebSocket message ──FrameBuffer──► body ──decode──► ServiceMessage ──► Session numbers and acknowledges it
//!  ServiceMessage ──encode──► Session keeps it until it is acknowledged ──► WebSocket message of one or more frames
//! ```
//!
//! Source: the public Azure SignalR service protocol, version 1, as implemented by its open-source SDK.

mod client_filter;
mod codec;
mod connection_header;
mod data_type;
mod frame;
mod member_page;
mod message_table;
mod presence_owner;
mod purpose;
mod recorded;
mod service_message;
mod session;

pub use client_filter::{ClientFilter, FILTER_MAX_BYTES, FilterError, FilterSubject, FilterTarget};
pub(crate) use codec::write_frame;
pub use codec::{FrameHead, claims_from_payload, claims_to_payload, encode_connection_data, encode_traced_data};
pub use connection_header::{CloseHeaders, HeaderList, OpenHeaders, header, header_of};
pub use data_type::DataType;
pub use frame::{FrameBuffer, FrameError, OversizedFrame, bytes_of_frame};
pub use member_page::{GroupMember, MEMBERS_PER_PAGE_MAX, MemberPage, MemberPageError};
pub use presence_owner::{presence_owner, presence_weight};
pub use purpose::{Audience, Exclusions, MessageClass};
pub use recorded::{
    Position, PositionError, RecordAct, RecordEnd, RecordPage, RecordRefusal, RecordReply, RecordReplyError,
    RecordStart, RecordedId, RecordedMessage, RecordedSet,
};
pub use service_message::*;
pub use session::{
    ACKNOWLEDGE_KEY, Answer, Attachment, Backoff, CRASHED_NODE_KEY, Capabilities, Class, Counters, ECHO_KEY, Frames,
    HeaderError, Incoming, Load, Offer, RingFull, Role, Session, SessionEndReason, SessionError, SessionEvent,
    SessionId, SessionSettings, Transmit, UndeliveredFrames, UpgradeDecision, UpgradeRefusal, decide_upgrade,
    parse_received,
};

/// Version of the service protocol in handshakes. There is only one.
pub const SERVICE_PROTOCOL_VERSION: i64 = 1;
