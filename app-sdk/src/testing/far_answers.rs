//! Closes from outside and questions about clients, as the far end of links does and answers them.

use bytestring::ByteString;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::hub::{Close, HubMessage};
use trunkline_protocol::service::{
    Ack, AckStatus, CloseConnection, CloseWithAck, GroupMember, GroupMemberQuery, MEMBERS_PER_PAGE_MAX, MemberPage,
    ServiceMessage, UserConnectionQuery,
};
use trunkline_protocol::wire::CAUSE_HEADER;

use super::far_clients::{FarClient, FarClients, ack};
use crate::encode;

/// Closed connections by the places of their app servers, and the answer to who closed them.
type Closed = (Vec<(usize, ByteString)>, Option<ServiceMessage>);

impl FarClients {
    /// Does what a proxy does with a frame, and returns the connections that it closed for it, and its answer.
    pub(super) fn answer(&mut self, message: ServiceMessage) -> Closed {
        let answer = match message {
            ServiceMessage::CloseConnectionWithAck(close) => {
                let id = close.subject.clone();
                return self.close(close, |other, _| *other == id);
            }
            ServiceMessage::CloseConnectionsWithAck(close) => return self.close(close, |_, _| true),
            ServiceMessage::CloseUserConnectionsWithAck(close) => {
                let user = close.subject.clone();
                return self.close(close, |_, client| client.is_user(&user));
            }
            ServiceMessage::CloseGroupConnectionsWithAck(close) => {
                let group = close.subject.clone();
                return self.close(close, |_, client| client.groups.contains(&group));
            }
            ServiceMessage::CheckConnectionExistenceWithAck(check) => {
                self.check(check.ack_id, |id, _| *id == check.subject)
            }
            ServiceMessage::CheckUserExistenceWithAck(check) => {
                self.check(check.ack_id, |_, client| client.is_user(&check.subject))
            }
            ServiceMessage::CheckGroupExistenceWithAck(check) => {
                self.check(check.ack_id, |_, client| client.groups.contains(&check.subject))
            }
            ServiceMessage::CheckUserInGroupWithAck(check) => self.check(check.ack_id, |_, client| {
                client.is_user(&check.user_id) && client.groups.contains(&check.group)
            }),
            ServiceMessage::GroupMemberQuery(query) => {
                let GroupMemberQuery { group, ack_id, page_size, continuation_token, .. } = query;
                Some(self.list(|client| client.groups.contains(&group), ack_id, page_size, continuation_token))
            }
            ServiceMessage::UserConnectionQuery(query) => {
                let UserConnectionQuery { user_id, ack_id, page_size, continuation_token } = query;
                Some(self.list(|client| client.is_user(&user_id), ack_id, page_size, continuation_token))
            }
            other => self.handle(other),
        };
        (Vec::new(), answer)
    }

    /// Closes connections with a close message.
    fn close(&mut self, close: CloseWithAck, is_meant: impl Fn(&ByteString, &FarClient) -> bool) -> Closed {
        let message = HubMessage::Close(Close { error: close.reason, allow_reconnect: false });
        let is_meant = |id: &ByteString, client: &FarClient| is_meant(id, client) && !close.excluded.contains(id);
        let ids: Vec<_> =
            self.all.iter().filter(|(id, client)| is_meant(id, client)).map(|(id, _)| id.clone()).collect();
        let mut closed = Vec::new();
        for id in ids {
            if let Some(client) = self.all.get(&id) {
                client.give(&encode::message(client.protocol, &message));
                closed.push((client.home, id.clone()));
            }
            self.remove(&id);
        }
        let status = if closed.is_empty() { AckStatus::NotFound } else { AckStatus::Ok };
        (closed, ack(close.ack_id, status))
    }

    fn check(&self, ack_id: i64, is_meant: impl Fn(&ByteString, &FarClient) -> bool) -> Option<ServiceMessage> {
        let is_found = self.all.iter().any(|(id, client)| is_meant(id, client));
        ack(ack_id, if is_found { AckStatus::Ok } else { AckStatus::NotFound })
    }

    /// Lists clients by their ids; the token is the last one of the page before.
    fn list(
        &self,
        is_listed: impl Fn(&FarClient) -> bool,
        ack_id: i64,
        page_size: Option<i64>,
        continuation_token: Option<ByteString>,
    ) -> ServiceMessage {
        let members: Vec<_> = self.all.iter().filter(|(_, client)| is_listed(client)).collect();
        let page_size = page_size.and_then(|size| usize::try_from(size).ok()).unwrap_or(MEMBERS_PER_PAGE_MAX);
        let page = if page_size == 0 {
            MemberPage::counted(members.len() as u64)
        } else {
            let is_next = |id: &ByteString| continuation_token.as_ref().is_none_or(|last| id > last);
            let rest: Vec<_> = members.into_iter().filter(|(id, _)| is_next(id)).collect();
            let page = rest.iter().take(page_size.min(MEMBERS_PER_PAGE_MAX));
            let members: Vec<_> = page
                .map(|(id, client)| GroupMember { connection_id: (*id).clone(), user_id: client.user.clone() })
                .collect();
            let last = members.last().filter(|_| members.len() < rest.len());
            let continuation_token = last.map(|member| member.connection_id.clone());
            MemberPage { members, continuation_token, count: None }
        };
        let payload = Some(page.to_payload());
        ServiceMessage::Ack(Ack { ack_id, status: AckStatus::Ok, message: None, payload })
    }
}

/// Notice to the hub that a connection was closed as it ordered.
pub(super) fn close_notice(connection_id: ByteString) -> ServiceMessage {
    let cause = (CAUSE_HEADER.into(), vec![Cause::AppClosed.label().into()]);
    ServiceMessage::CloseConnection(CloseConnection { connection_id, error: None, headers: vec![cause] })
}
