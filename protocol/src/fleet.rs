//! Protocol between the nodes of a fleet: greetings, node messages, interest and views.
//!
//! ```text
//!  node A ── greeting: identity, visible members ────► node B      once, before the link
//!         ◄── greeting ───────────────────────────────
//!         ── node link: state, interest, relays … ───►             a link session, as between proxy and app server
//!         ◄── answers, responses ─────────────────────
//! ```
//!
//! Each node dials every other one; each link carries its dialler's requests and the replies to them. Messages are sent
//! only to nodes that may have recipients, according to [`PeerInterest`].

mod ack_tracker;
mod beat;
mod client_home;
mod client_window;
mod greeting;
mod hub_interest;
mod interest;
mod moving;
mod node_message;
mod ownership;
mod presence;
mod send_epoch;
mod view;

pub use ack_tracker::{AckTracker, Awaited};
pub use beat::{BEAT_INTERVAL_MS, BeatPing, Beats, LATE_AFTER_MS, OVERDUE_AFTER_MS};
pub use client_home::{ClientHome, HomeLoss, ResumeOutcome, Route};
pub use client_window::{CLIENT_WINDOW_MAX_BYTES, ClientWindow, SenderLine};
pub use greeting::{Greeting, GreetingError, WireVersions};
pub use hub_interest::HubInterest;
pub use interest::{INTEREST_BUCKETS, InterestMap, InterestMapError, InterestUpdate, PeerInterest, Wanted};
pub use moving::{CountedFrame, MovedFollow, MovedState, MovingConnection, MovingError, RefreshedLogIn};
pub use node_message::{
    MoveStep, NodeMessage, NodeMessageError, NodePhase, NodeState, RequestMethod, SharedMembership, SharedRevocation,
    encode_ask, encode_relay,
};
pub use ownership::{Absence, Ownership, Placement, SendOrigin};
pub use presence::{PeerPresence, PresenceUpdate, PresentAppServer};
pub use send_epoch::SendEpoch;
pub use view::{Agreement, view_of};
