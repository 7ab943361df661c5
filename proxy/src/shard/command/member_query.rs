//! Queries for the members of a group, or the connections of a user: a page that one shard after the other fills, and
//! their number.
//!
//! ```text
//!  query ──► shard of its token ──not full──► next shard ──full──► ack with the page and the token of the rest
//! ```
//!
//! Members are listed by shard and slot. A connection keeps its slot for as long as it lives, so none is listed twice,
//! whatever comes and goes between two pages; and no sorted structure has to be kept where messages are delivered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytestring::ByteString;
use trunkline_protocol::service::{
    Ack, AckStatus, GroupMember, GroupMemberQuery, MEMBERS_PER_PAGE_MAX, MemberPage, ServiceMessage,
    UserConnectionQuery,
};

use crate::shard::connection::SetName;
use crate::shard::slot::Slot;
use crate::upstream::{Asker, HubIndex};

/// Bytes of names at which a page ends, so that a page of long user ids fills no link.
const PAGE_MAX_BYTES: usize = 256 * 1024;

/// Set whose members an app server asks for.
#[derive(Debug, Clone)]
pub(crate) enum ListedSet {
    Group(ByteString),
    User(ByteString),
}

impl ListedSet {
    pub(crate) fn name(&self) -> SetName<'_> {
        match self {
            Self::Group(name) => SetName::Group(name),
            Self::User(name) => SetName::User(name),
        }
    }
}

/// Query for the members of a set: a page of them, or their number.
#[derive(Debug)]
pub(crate) struct ListQuery {
    pub(crate) set: ListedSet,
    pub(crate) ack_id: i64,
    page_size: Option<i64>,
    top: Option<i64>,
    continuation_token: Option<ByteString>,
}

impl ListQuery {
    /// Whether the number alone is wanted.
    #[must_use]
    pub(crate) fn is_count(&self) -> bool {
        self.page_size == Some(0)
    }
}

impl From<GroupMemberQuery> for ListQuery {
    fn from(query: GroupMemberQuery) -> Self {
        let GroupMemberQuery { group, ack_id, page_size, top, continuation_token } = query;
        Self { set: ListedSet::Group(group), ack_id, page_size, top, continuation_token }
    }
}

impl From<UserConnectionQuery> for ListQuery {
    fn from(query: UserConnectionQuery) -> Self {
        let UserConnectionQuery { user_id, ack_id, page_size, continuation_token } = query;
        Self { set: ListedSet::User(user_id), ack_id, page_size, top: None, continuation_token }
    }
}

/// Page of a set's members, on its way through the shards. One that a stopping shard drops is never answered.
#[derive(Debug, Clone)]
pub(crate) struct MemberListing {
    asker: Arc<dyn Asker>,
    ack_id: i64,
    set: ListedSet,
    /// Random id of this start of the node, for the token: the slots of another one mean nothing here.
    boot: ByteString,
    next: MemberPosition,
    page: Vec<GroupMember>,
    bytes: usize,
    max: usize,
    /// The asker wants no more than this page.
    is_last: bool,
}

/// Position in the list of a set's members.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct MemberPosition {
    shard: u16,
    slot: Slot,
}

/// Number of a set's members, or of a message's receivers, added up over the shards; answered when the last one drops
/// it.
#[derive(Debug)]
pub(crate) struct MemberTally {
    asker: Arc<dyn Asker>,
    ack_id: i64,
    members: AtomicU64,
}

impl MemberListing {
    /// Begins the page that a query asks for. `None` for a token that this node did not make: it has been answered.
    #[must_use]
    pub(crate) fn begin(asker: &Arc<dyn Asker>, query: ListQuery, boot: &str) -> Option<Self> {
        let next = match &query.continuation_token {
            None => MemberPosition::default(),
            Some(token) => match MemberPosition::parse(token, boot) {
                Some(next) => next,
                None => {
                    refuse(&**asker, query.ack_id);
                    return None;
                }
            },
        };
        let wanted = |number: i64| usize::try_from(number).unwrap_or(0);
        let page_max = query.page_size.map_or(MEMBERS_PER_PAGE_MAX, |size| wanted(size).clamp(1, MEMBERS_PER_PAGE_MAX));
        let top = query.top.map_or(usize::MAX, wanted);
        Some(Self {
            asker: Arc::clone(asker),
            ack_id: query.ack_id,
            set: query.set,
            boot: boot.into(),
            next,
            page: Vec::new(),
            bytes: 0,
            max: page_max.min(top),
            is_last: top <= page_max,
        })
    }

    pub(crate) fn hub(&self) -> HubIndex {
        self.asker.hub()
    }

    pub(crate) fn set(&self) -> SetName<'_> {
        self.set.name()
    }

    /// The shard whose members are next.
    pub(crate) fn shard(&self) -> u16 {
        self.next.shard
    }

    /// The first slot whose client is not listed yet.
    pub(crate) fn slot(&self) -> Slot {
        self.next.slot
    }

    /// Number of members that the page still takes.
    #[must_use]
    pub(crate) fn room(&self) -> usize {
        if self.bytes >= PAGE_MAX_BYTES { 0 } else { self.max - self.page.len() }
    }

    /// Adds the member in this slot, which must be behind all others of its shard.
    pub(crate) fn add(&mut self, slot: Slot, member: GroupMember) {
        debug_assert!(slot >= self.next.slot);
        self.bytes += member.connection_id.len() + member.user_id.as_deref().map_or(0, str::len);
        self.page.push(member);
        self.next.slot = slot.saturating_add(1);
    }

    /// Goes on to the next shard.
    pub(crate) fn leave_shard(&mut self) {
        self.next = MemberPosition { shard: self.next.shard.saturating_add(1), slot: 0 };
    }

    /// Answers with a page that is full.
    pub(crate) fn answer(self) {
        let token = (!self.is_last).then(|| self.next.token(&self.boot));
        self.answer_with(token);
    }

    /// Answers with the page behind which there are no members.
    pub(crate) fn answer_last(self) {
        self.answer_with(None);
    }

    fn answer_with(self, continuation_token: Option<ByteString>) {
        let page = MemberPage { members: self.page, continuation_token, count: None };
        answer(&*self.asker, self.ack_id, &page);
    }
}

impl MemberPosition {
    fn token(self, boot: &str) -> ByteString {
        format!("{boot}.{}.{}", self.shard, self.slot).into()
    }

    fn parse(token: &str, boot: &str) -> Option<Self> {
        let (shard, slot) = token.strip_prefix(boot)?.strip_prefix('.')?.split_once('.')?;
        Some(Self { shard: shard.parse().ok()?, slot: slot.parse().ok()? })
    }
}

impl MemberTally {
    #[must_use]
    pub(crate) fn new(asker: Arc<dyn Asker>, ack_id: i64) -> Arc<Self> {
        Arc::new(Self { asker, ack_id, members: AtomicU64::new(0) })
    }

    /// Adds the members that one shard has.
    pub(crate) fn add(&self, members: usize) {
        self.members.fetch_add(members as u64, Ordering::Relaxed);
    }
}

impl Drop for MemberTally {
    fn drop(&mut self) {
        answer(&*self.asker, self.ack_id, &MemberPage::counted(*self.members.get_mut()));
    }
}

fn answer(asker: &dyn Asker, ack_id: i64, page: &MemberPage) {
    let message = Some(ByteString::new());
    asker.answer(&ServiceMessage::Ack(Ack {
        ack_id,
        status: AckStatus::Ok,
        message,
        payload: Some(page.to_payload()),
    }));
}

fn refuse(asker: &dyn Asker, ack_id: i64) {
    let message = Some(ByteString::from_static("the continuation token is not of this process"));
    let ack = Ack { ack_id, status: AckStatus::InternalServerError, message, payload: None };
    asker.answer(&ServiceMessage::Ack(ack));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_back_by_the_process_that_made_it_alone() {
        let position = MemberPosition { shard: 3, slot: 70_000 };
        let token = position.token("boot");
        assert_eq!(MemberPosition::parse(&token, "boot"), Some(position));
        assert_eq!(MemberPosition::parse(&token, "other"), None);
        for bad in ["", "boot", "boot.", "boot.1", "boot.1.", "boot.1.2.3", "boot.-1.2", "boot.1.4294967296", "boot1.2"]
        {
            assert_eq!(MemberPosition::parse(bad, "boot"), None, "{bad}");
        }
    }
}
