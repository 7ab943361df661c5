//! Copy of a client connection for a mirror, with its link and state.

use trunkline_protocol::cause::Cause;
use trunkline_protocol::hub::{HubProtocol, whole_messages};
use trunkline_protocol::manifest::{CAUSE_HEADER, MIGRATE_FROM_HEADER};
use trunkline_protocol::service::{CloseConnection, DataType, FlowOperation, OpenConnection, ServiceMessage};

use crate::engine::shard::{Content, CopyOrder, UpwardMessages, open_over};
use crate::engine::upstream::{AppServerId, HomeLink};
use crate::ground::routing::MirrorRule;

#[derive(Debug)]
pub(super) struct MirrorCopy {
    pub(super) rule: MirrorRule,
    /// Link of the app server that has the copy.
    link: Option<HomeLink>,
    /// Set while the app server has paused the copy.
    is_paused: bool,
    /// Closed by the app server, not to be restarted.
    is_over: bool,
    /// Tick of the last attempt to find an app server.
    tried: Option<u32>,
}

impl MirrorCopy {
    pub(super) fn new(rule: MirrorRule) -> Self {
        Self { rule, link: None, is_paused: false, is_over: false, tried: None }
    }

    pub(super) fn group(&self) -> &str {
        &self.rule.group
    }

    pub(super) fn is_at(&self, app: AppServerId) -> bool {
        self.link.as_ref().is_some_and(|link| link.app == app)
    }

    /// Whether the copy needs an app server.
    pub(super) fn is_lost(&self) -> bool {
        !self.is_over && self.link.as_ref().is_none_or(|link| link.is_closed())
    }

    /// Records an attempt at this tick. Returns `false` if it is not the first one in this tick.
    pub(super) fn try_again(&mut self, now: u32) -> bool {
        self.lose();
        self.tried.replace(now) != Some(now)
    }

    pub(super) fn lose(&mut self) {
        (self.link, self.is_paused) = (None, false);
    }

    /// Opens the copy over a link. `from` is the primary app server of a connection that is already open.
    pub(super) fn open_copy(
        &mut self,
        link: HomeLink,
        (id, content): (&str, Content),
        mut open: OpenConnection,
        from: Option<&str>,
    ) {
        open.headers.extend(from.map(|from| (MIGRATE_FROM_HEADER.into(), vec![from.into()])));
        self.link = open_over(&link, open, (id, content)).then_some(link);
    }

    /// Sends the client's messages, or drops them if the app server can't accept them immediately.
    pub(super) fn send(&self, id: &str, messages: &UpwardMessages<'_>) {
        let &UpwardMessages { bytes, count, data_type, .. } = messages;
        let link = self.link.as_ref().filter(|link| !self.is_paused && link.is_open() && !link.is_full());
        let Some(link) = link else {
            self.rule.counters.dropped.add(count);
            return;
        };
        link.send_data(id, bytes, data_type);
        self.rule.counters.sent.add(count);
    }

    /// Sends the calls among messages to the client to its mirror, if enabled, as if the client had made them.
    pub(super) fn send_down(&self, id: &str, protocol: HubProtocol, messages: &[u8]) {
        if !self.rule.copies_down {
            return;
        }
        let (mut calls, mut count) = (Vec::new(), 0);
        for message in whole_messages(protocol, messages) {
            if protocol.scan(message.body).is_ok_and(|scan| scan.kind.is_call()) {
                calls.extend_from_slice(message.whole);
                count += 1;
            }
        }
        let link = self.link.as_ref().filter(|link| !self.is_paused && link.is_open() && !link.is_full());
        match link {
            _ if count == 0 => {}
            Some(link) => {
                link.send_data(id, &calls, DataType::Other.number());
                self.rule.counters.sent.add(count);
            }
            None => self.rule.counters.dropped.add(count),
        }
    }

    pub(super) fn obey(&mut self, order: &CopyOrder) {
        match order {
            CopyOrder::Flow(FlowOperation::Pause) => self.is_paused = true,
            CopyOrder::Flow(FlowOperation::Resume) => self.is_paused = false,
            CopyOrder::Flow(_) | CopyOrder::Data { .. } => {}
            CopyOrder::Close => (self.link, self.is_over) = (None, true),
        }
    }

    pub(super) fn end_copy(&self, id: &str, cause: Cause) {
        let headers = vec![(CAUSE_HEADER.into(), vec![cause.label().into()])];
        let close = CloseConnection { connection_id: id.into(), error: None, headers };
        self.link.iter().for_each(|link| link.send(&ServiceMessage::CloseConnection(close.clone())));
    }
}
