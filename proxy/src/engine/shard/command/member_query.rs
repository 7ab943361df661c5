//! Queries for the members of a group or the connections of a user: their number, or a page filled by one shard
//! after another.
//!
//! ```text
//!  query ──► shard in its token ──not full──► next shard ──full──► ack with the page and the next token
//! ```
//!
//! Members are listed by shard and slot. An open connection keeps its slot, so none is listed twice if others change
//! between pages; no sorted structure is needed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytestring::ByteString;
use trunkline_protocol::service::{
    Ack, AckStatus, GroupMember, GroupMemberQuery, MEMBERS_PER_PAGE_MAX, MemberPage, ServiceMessage,
    UserConnectionQuery,
};

use crate::engine::shard::connection::SetName;
use crate::engine::shard::slot::Slot;
use crate::engine::upstream::{HubIndex, ReplyTo};

/// Bytes of names at which a page ends, so that long user ids don't fill the link.
const PAGE_MAX_BYTES: usize = 256 * 1024;

/// Set that an app server queries.
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

/// Query for a page of a set's members, or for their number.
#[derive(Debug)]
pub(crate) struct ListQuery {
    pub(crate) set: ListedSet,
    pub(crate) ack_id: i64,
    page_size: Option<i64>,
    top: Option<i64>,
    continuation_token: Option<ByteString>,
}

impl ListQuery {
    /// Whether only the number is requested.
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

/// Page of a set's members that shards fill in turn. A page dropped by a stopping shard is never answered.
#[derive(Debug, Clone)]
pub(crate) struct MemberListing {
    reply_to: Arc<dyn ReplyTo>,
    ack_id: i64,
    set: ListedSet,
    /// Random id of this process start, for the token, because slots of another start are meaningless.
    boot: ByteString,
    next: MemberPosition,
    page: Vec<GroupMember>,
    bytes: usize,
    max: usize,
    /// No further page was requested.
    is_last: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct MemberPosition {
    shard: u16,
    slot: Slot,
}

/// Number of a set's members or a message's receivers, summed over the shards. Answered when the last shard
/// drops it.
#[derive(Debug)]
pub(crate) struct MemberTally {
    reply_to: Arc<dyn ReplyTo>,
    ack_id: i64,
    members: AtomicU64,
}

impl MemberListing {
    /// Starts the page for a query. A token from another node is answered with an error, and returns `None`.
    #[must_use]
    pub(crate) fn begin_listing(reply_to: &Arc<dyn ReplyTo>, query: ListQuery, boot: &str) -> Option<Self> {
        let next = match &query.continuation_token {
            None => MemberPosition::default(),
            Some(token) => match MemberPosition::parse(token, boot) {
                Some(next) => next,
                None => {
                    refuse(&**reply_to, query.ack_id);
                    return None;
                }
            },
        };
        let wanted = |number: i64| usize::try_from(number).unwrap_or(0);
        let page_max = query.page_size.map_or(MEMBERS_PER_PAGE_MAX, |size| wanted(size).clamp(1, MEMBERS_PER_PAGE_MAX));
        let top = query.top.map_or(usize::MAX, wanted);
        Some(Self {
            reply_to: Arc::clone(reply_to),
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
        self.reply_to.hub()
    }

    pub(crate) fn set(&self) -> SetName<'_> {
        self.set.name()
    }

    pub(crate) fn shard(&self) -> u16 {
        self.next.shard
    }

    /// First slot not yet listed.
    pub(crate) fn slot(&self) -> Slot {
        self.next.slot
    }

    pub(crate) fn room(&self) -> usize {
        if self.bytes >= PAGE_MAX_BYTES { 0 } else { self.max - self.page.len() }
    }

    /// Adds the member in this slot, which must be after all earlier ones of the shard.
    pub(crate) fn add_member(&mut self, slot: Slot, member: GroupMember) {
        debug_assert!(slot >= self.next.slot);
        self.bytes += member.connection_id.len() + member.user_id.as_deref().map_or(0, str::len);
        self.page.push(member);
        self.next.slot = slot.saturating_add(1);
    }

    pub(crate) fn leave_shard(&mut self) {
        self.next = MemberPosition { shard: self.next.shard.saturating_add(1), slot: 0 };
    }

    /// Answers with a full page.
    pub(crate) fn answer_full(self) {
        let token = (!self.is_last).then(|| self.next.token(&self.boot));
        self.answer_with(token);
    }

    /// Answers with the last page.
    pub(crate) fn answer_last(self) {
        self.answer_with(None);
    }

    fn answer_with(self, continuation_token: Option<ByteString>) {
        let page = MemberPage { members: self.page, continuation_token, count: None };
        answer_page(&*self.reply_to, self.ack_id, &page);
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
    pub(crate) fn new(reply_to: Arc<dyn ReplyTo>, ack_id: i64) -> Arc<Self> {
        Arc::new(Self { reply_to, ack_id, members: AtomicU64::new(0) })
    }

    pub(crate) fn add_members(&self, members: usize) {
        self.members.fetch_add(members as u64, Ordering::Relaxed);
    }
}

impl Drop for MemberTally {
    fn drop(&mut self) {
        answer_page(&*self.reply_to, self.ack_id, &MemberPage::counted(*self.members.get_mut()));
    }
}

fn answer_page(reply_to: &dyn ReplyTo, ack_id: i64, page: &MemberPage) {
    let message = Some(ByteString::new());
    reply_to.answer(&ServiceMessage::Ack(Ack {
        ack_id,
        status: AckStatus::Ok,
        message,
        payload: Some(page.to_payload()),
    }));
}

fn refuse(reply_to: &dyn ReplyTo, ack_id: i64) {
    let message = Some(ByteString::from_static("the continuation token is not of this process"));
    let ack = Ack { ack_id, status: AckStatus::InternalServerError, message, payload: None };
    reply_to.answer(&ServiceMessage::Ack(ack));
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
