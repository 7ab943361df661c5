//! Pages of a group's members: the payload of acks to group member queries.
//!
//! ```text
//!  [ [ [connectionId, userId/nil], … ], continuationToken/nil ]            a page, as read by Azure's SDK
//!  [ [], nil, number ]                                                     only a number, between Trunkline's ends
//! ```

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;

use crate::fields::{Field, FieldError, FieldResult, Fields, record};
use crate::message_pack::Writer;

/// Maximum number of members per page. Azure's SDK requests fewer.
pub const MEMBERS_PER_PAGE_MAX: usize = 1000;

/// Member of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupMember {
    /// Public connection id of the member.
    pub connection_id: ByteString,
    /// User of the connection, if authenticated.
    pub user_id: Option<ByteString>,
}

record!(GroupMember [connection_id "connectionId", user_id "userId"]);

/// Page of a group's members.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemberPage {
    /// Members of the page. May be empty before the last page, too.
    pub members: Vec<GroupMember>,
    /// Token for the next page; `None` on the last one.
    pub continuation_token: Option<ByteString>,
    /// Number of members of the group, if only that was requested.
    pub count: Option<u64>,
}

/// Error decoding a page of members.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a page of members: {0}")]
pub struct MemberPageError(String);

impl MemberPage {
    /// Creates the answer to a query for only the number.
    #[must_use]
    pub fn counted(count: u64) -> Self {
        Self { count: Some(count), ..Self::default() }
    }

    /// Encodes the payload of an ack.
    #[must_use]
    pub fn to_payload(&self) -> Bytes {
        let mut out = BytesMut::new();
        let mut writer = Writer(&mut out);
        writer.array_len(if self.count.is_some() { 3 } else { 2 });
        self.members.write(&mut writer);
        self.continuation_token.write(&mut writer);
        if let Some(count) = self.count {
            writer.integer(i64::try_from(count).unwrap_or(i64::MAX));
        }
        out.freeze()
    }

    /// Decodes the payload of an ack, sharing its memory. Longer lists are accepted. Fails if a field is missing or has
    /// another type.
    pub fn from_payload(payload: &Bytes) -> Result<Self, MemberPageError> {
        let mut fields = Fields::new(payload).map_err(|error| MemberPageError(error.to_string()))?;
        Self::read(&mut fields).map_err(|error| MemberPageError(error.to_string()))
    }

    fn read(fields: &mut Fields) -> FieldResult<Self> {
        let (members, continuation_token) = (fields.value("members")?, fields.value("continuationToken")?);
        let count = if fields.has(3) { Some(read_count(fields)?) } else { None };
        Ok(Self { members, continuation_token, count })
    }
}

fn read_count(fields: &mut Fields) -> FieldResult<u64> {
    let count: i64 = fields.value("count")?;
    u64::try_from(count).map_err(|_| FieldError::value("count", format!("{count} is not a valid number of members")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> MemberPage {
        let ann = GroupMember { connection_id: "c1".into(), user_id: Some("ann".into()) };
        let stranger = GroupMember { connection_id: "c2".into(), user_id: None };
        MemberPage { members: vec![ann, stranger], continuation_token: Some("t".into()), count: None }
    }

    #[test]
    fn a_page_is_written_as_azures_sdk_reads_it() {
        let payload = b"\x92\x92\x92\xa2c1\xa3ann\x92\xa2c2\xc0\xa1t";
        assert_eq!(page().to_payload(), payload[..]);
        assert_eq!(MemberPage::from_payload(&Bytes::from_static(payload)), Ok(page()));
    }

    #[test]
    fn a_number_alone_and_an_empty_page_are_read_back() {
        for page in [MemberPage::counted(70_000), MemberPage::counted(0), MemberPage::default()] {
            assert_eq!(MemberPage::from_payload(&page.to_payload()), Ok(page));
        }
    }

    #[test]
    fn additions_of_later_versions_to_a_member_are_skipped() {
        let payload = Bytes::from_static(b"\x92\x91\x93\xa2c1\xc0\x91\x05\xc0");
        let member = GroupMember { connection_id: "c1".into(), user_id: None };
        assert_eq!(MemberPage::from_payload(&payload).map(|page| page.members), Ok(vec![member]));
    }

    #[test]
    fn payloads_that_are_no_page_are_refused() {
        for bad in [
            &b""[..],
            b"\x90",
            b"\x92\xc0\xc0",
            b"\x92\x91\x91\xa1c\xc0",
            b"\x92\xdd\xff\xff\xff\xff",
            b"\x93\x90\xc0\xff",
        ] {
            assert!(MemberPage::from_payload(&Bytes::copy_from_slice(bad)).is_err(), "{bad:x?}");
        }
    }
}
