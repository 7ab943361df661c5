//! Close reasons of client connections, with the notices for both sides.

use bytes::Bytes;
use bytestring::ByteString;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::hub::{Close, HubMessage};
use trunkline_protocol::manifest::CAUSE_HEADER;
use trunkline_protocol::service::{CloseConnection, ServiceMessage};

use super::connection::Client;
use super::content::Content;
use super::delivery::framed::message_frame;
use super::unfinished_message::{BYTES_PER_SECOND, MESSAGE_TIMEOUT_S, PRESSED_BYTES_PER_SECOND};
use crate::engine::transport::websocket::{self, CLOSE_APP_FAILED, CLOSE_GOING_AWAY, CLOSE_NORMAL};
use crate::engine::upstream::LinkHandle;
use crate::ground::metrics::MoveCause;

/// Error text for clients. Details follow only if the hub enables them.
const CLOSED_WITH_ERROR: &str = "Connection closed with an error.";

#[derive(Debug, Clone)]
pub(crate) struct CloseReason {
    /// Cause for counters, logs, the app server and the history.
    pub cause: Cause,
    /// Detail for people, such as the violated rule.
    pub detail: Option<String>,
    /// Hub close message before the transport closes; `None` if the client has received one or has stopped
    /// reading.
    pub message: Option<CloseMessage>,
    pub notice: AppNotice,
    /// Close code for a raw client, which gets no other reason. The transport of a hub client closes normally after a
    /// close message, unless the client broke a rule of WebSockets.
    pub raw_code: u16,
}

/// Hub close message, and whether the client may reconnect.
#[derive(Debug, Clone)]
pub(crate) struct CloseMessage {
    /// Text shown only if the hub enables details; `None` for a close without error.
    detail: Option<String>,
    /// Text that the app sends to its clients, always shown unchanged.
    reason: Option<String>,
    allow_reconnect: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum AppNotice {
    /// None: already informed or unreachable.
    None,
    Clean,
    Error(String),
}

impl CloseReason {
    /// The client closed or its socket ended, depending on `cause`.
    pub(crate) fn by_client(cause: Cause) -> Self {
        Self { cause, detail: None, message: None, notice: AppNotice::Clean, raw_code: CLOSE_NORMAL }
    }

    /// The app server closed the connection and notified a hub client. It may name a more exact cause than the
    /// default.
    pub(crate) fn by_app(error: Option<&str>, cause: Option<Cause>) -> Self {
        let (plain, raw_code) = match error {
            Some(_) => (Cause::AppError, CLOSE_APP_FAILED),
            None => (Cause::AppClosed, CLOSE_NORMAL),
        };
        let (cause, detail) = (cause.unwrap_or(plain), error.map(Into::into));
        Self { cause, detail, message: None, notice: AppNotice::None, raw_code }
    }

    /// A secondary closed the connection and notified the client; the primary still has to be notified.
    pub(crate) fn by_secondary(error: Option<&str>, cause: Option<Cause>) -> Self {
        let notice = error.map_or(AppNotice::Clean, |error| AppNotice::Error(error.into()));
        Self { notice, ..Self::by_app(error, cause) }
    }

    /// Any app server requested the close. The reason is always shown to the client, which is not asked to reconnect.
    pub(crate) fn requested_by_app(cause: Cause, reason: Option<&str>) -> Self {
        let detail: Option<String> = reason.filter(|reason| !reason.is_empty()).map(Into::into);
        let message = Some(CloseMessage { detail: None, reason: detail.clone(), allow_reconnect: false });
        Self { detail, message, ..Self::on_request(cause, None) }
    }

    /// An operator, or an app server other than the client's own, closed the connection, perhaps with a reason. The
    /// client is not asked to reconnect.
    pub(crate) fn on_request(cause: Cause, reason: Option<&str>) -> Self {
        let detail: Option<String> = reason.map(Into::into);
        let message = Some(CloseMessage { detail: detail.clone(), reason: None, allow_reconnect: false });
        Self { cause, detail, message, notice: AppNotice::Clean, raw_code: CLOSE_NORMAL }
    }

    /// The client violated a rule or a limit; `raw_code` reports the violation to a raw client.
    pub(crate) fn broken_rule(cause: Cause, detail: &str, raw_code: u16) -> Self {
        Self { raw_code, ..Self::error(cause, format!("InvalidDataException: {detail}"), detail) }
    }

    pub(crate) fn app_frame_skipped(problem: &str) -> Self {
        let text = format!("A message of the server could not be delivered: {problem}.");
        Self::error(Cause::AppFrameSkipped, text.clone(), &text).shown(&text)
    }

    /// Adds a text that clients always receive, because it reveals nothing about the app.
    #[must_use]
    pub(crate) fn shown(mut self, text: &str) -> Self {
        if let Some(message) = &mut self.message {
            message.reason = Some(format!("{CLOSED_WITH_ERROR} {text}"));
        }
        self
    }

    /// The client read too slowly, without a socket or before it was open.
    pub(crate) fn slow_client() -> Self {
        Self::unread(Cause::SlowClient, "the client reads too slowly: its queue is over --outbox-max-bytes")
    }

    /// The client read nothing for too long while data was waiting.
    pub(crate) fn stalled_client() -> Self {
        let text = "the client reads too slowly: it took nothing for --slow-client-timeout while messages waited";
        Self::unread(Cause::SlowClient, text)
    }

    /// The client read slowly while the total of all outboxes exceeded the node's budget.
    pub(crate) fn outbox_total() -> Self {
        let text = "the client reads too slowly: all queues of its node together are over --outbox-total-max-bytes";
        Self::unread(Cause::OutboxTotal, text)
    }

    /// The app server accepted a connection but never answered its hub handshake.
    pub(crate) fn not_opened() -> Self {
        Self::unread(Cause::AppHandshakeTimeout, "the hub handshake was not answered in time")
    }

    /// Closes without a close message, which would queue behind data that the client doesn't read.
    fn unread(cause: Cause, notice: &str) -> Self {
        let notice = AppNotice::Error(notice.into());
        Self { cause, detail: None, message: None, notice, raw_code: CLOSE_GOING_AWAY }
    }

    /// The rest of a client message arrived too slowly.
    pub(crate) fn message_timeout() -> Self {
        let [pace, pressed] = [BYTES_PER_SECOND, PRESSED_BYTES_PER_SECOND].map(|bytes| bytes / 1024);
        let text = format!(
            "A message that begins has to end within {MESSAGE_TIMEOUT_S} s, or to come at {pace} KiB/s: at {pressed} \
             KiB/s while the unfinished messages of all clients take more than half of --unfinished-total-max-bytes."
        );
        Self::error(Cause::MessageTimeout, text.clone(), &text)
    }

    /// Unfinished messages exceeded the node's budget, and this client had the most.
    pub(crate) fn unfinished_total() -> Self {
        let text = "The unfinished messages of all clients of this node are over --unfinished-total-max-bytes, and this \
                    client has one of the largest.";
        Self::error(Cause::UnfinishedTotal, text.into(), text)
    }

    /// The heads of all clients exceeded the node's budget, and this client's app or address had the most.
    pub(crate) fn heads_total() -> Self {
        let text = "The request heads of all clients of this node exceed --heads-total-max-bytes, and this client's app or \
                    address has the most.";
        Self::error(Cause::HeadsTotal, text.into(), text)
    }

    /// Names of groups exceeded the node's budget, and this client had the most of its hub.
    pub(crate) fn group_names_total() -> Self {
        let text = "The names of all groups of this node exceed --group-names-total-max-bytes, and this client's groups \
                    have the most of its hub.";
        Self::error(Cause::GroupNamesTotal, text.into(), text)
    }

    /// The client was silent for too long. Text of the official server.
    pub(crate) fn timed_out() -> Self {
        let text = "Client hasn't sent a message/ping within the configured ClientTimeoutInterval.";
        Self::error(Cause::KeepAliveTimeout, format!("OperationCanceledException: {text}"), text)
    }

    /// The primary link or its app server is lost, and the client can't be reassigned.
    pub(crate) fn home_lost(cause: Cause) -> Self {
        Self { notice: AppNotice::None, ..Self::reconnect(cause) }
    }

    /// The client has to reconnect, to another node or app server, or with another token.
    pub(crate) fn reconnect(cause: Cause) -> Self {
        let message = Some(CloseMessage { detail: None, reason: None, allow_reconnect: true });
        Self { cause, detail: None, message, notice: AppNotice::Clean, raw_code: CLOSE_GOING_AWAY }
    }

    /// The client has to move to another node.
    pub(super) fn of_move(cause: MoveCause) -> Self {
        Self::reconnect(if matches!(cause, MoveCause::Rebalance) { Cause::Rebalanced } else { Cause::Drained })
    }

    fn error(cause: Cause, detail: String, notice: &str) -> Self {
        let message = Some(CloseMessage { detail: Some(detail), reason: None, allow_reconnect: true });
        let (detail, notice) = (Some(notice.into()), AppNotice::Error(notice.into()));
        Self { cause, detail, message, notice, raw_code: CLOSE_GOING_AWAY }
    }
}

impl CloseReason {
    /// Whether the client gets no further frames, because it does not read those already queued.
    pub(super) fn is_slow_client(&self) -> bool {
        matches!(self.cause, Cause::SlowClient | Cause::OutboxTotal)
    }

    /// Whether the socket has already ended. Writing a close then would only cause a reset.
    pub(super) fn is_end_of_socket(&self) -> bool {
        matches!(self.cause, Cause::SocketEnded | Cause::SocketReset)
    }

    /// Final frames for the client: the close message of its hub protocol, if any, and the transport's close.
    pub(super) fn frames(&self, content: Content, with_details: bool) -> impl Iterator<Item = Bytes> + use<> {
        let (message, code) = match content {
            Content::Raw => (None, self.raw_code),
            Content::Hub(protocol) => {
                let message = self.message.as_ref().map(|message| message.to_hub_message(with_details));
                let is_of_transport = self.cause == Cause::WebsocketProtocol;
                let code = if is_of_transport { self.raw_code } else { CLOSE_NORMAL };
                (message.map(|message| message_frame(protocol, &message)), code)
            }
        };
        message.into_iter().chain([websocket::close_frame(code)])
    }

    pub(super) fn error_for_app(&self) -> Option<ByteString> {
        match &self.notice {
            AppNotice::None | AppNotice::Clean => None,
            AppNotice::Error(text) => Some(ByteString::from(text.as_str())),
        }
    }

    /// Notice for a client's app server; `None` if already informed or unreachable.
    pub(super) fn notice_to_app(&self, client: &Client) -> Option<ServiceMessage> {
        if matches!(self.notice, AppNotice::None) {
            return None;
        }
        Some(self.notice_for(client.home(), &client.id))
    }

    pub(super) fn notice_for(&self, link: &LinkHandle, id: &str) -> ServiceMessage {
        let (connection_id, error) = (ByteString::from(id), self.error_for_app());
        let cause = link.supports_causes().then(|| (CAUSE_HEADER.into(), vec![self.cause.label().into()]));
        let headers = cause.into_iter().collect();
        ServiceMessage::CloseConnection(CloseConnection { connection_id, error, headers })
    }
}

impl CloseMessage {
    fn to_hub_message(&self, with_details: bool) -> HubMessage {
        let detailed = self.detail.as_ref().map(|detail| match with_details {
            true => format!("{CLOSED_WITH_ERROR} {detail}"),
            false => CLOSED_WITH_ERROR.into(),
        });
        let error = self.reason.clone().or(detailed).map(ByteString::from);
        HubMessage::Close(Close { error, allow_reconnect: self.allow_reconnect })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use trunkline_protocol::hub::HubProtocol;

    use super::*;
    use crate::engine::upstream::{AppServerId, HubIdentity, LinkHandle};
    use crate::ground::net::socket::Socket;

    const JSON: Content = Content::Hub(HubProtocol::Json);

    fn frames(reason: &CloseReason, content: Content, with_details: bool) -> Vec<Bytes> {
        reason.frames(content, with_details).collect()
    }

    #[test]
    fn a_hub_client_gets_the_reason_and_whether_to_reconnect_before_a_normal_transport_close() {
        let reason = CloseReason::broken_rule(Cause::HubProtocol, "no message", 1002);
        let told = String::from_utf8_lossy(&frames(&reason, JSON, true)[0]).into_owned();
        assert!(told.contains("InvalidDataException: no message") && told.contains("allowReconnect"), "{told}");
        let told = String::from_utf8_lossy(&frames(&reason, JSON, false)[0]).into_owned();
        assert!(told.contains(CLOSED_WITH_ERROR) && !told.contains("no message"), "{told}");
        assert_eq!(frames(&reason, JSON, true)[1], websocket::close_frame(CLOSE_NORMAL));
    }

    #[test]
    fn the_reason_of_an_ordered_close_is_meant_for_the_client() {
        let reason = CloseReason::requested_by_app(Cause::AppClosed, Some("banned"));
        for with_details in [false, true] {
            let told = String::from_utf8_lossy(&frames(&reason, JSON, with_details)[0]).into_owned();
            assert!(told.contains(r#"{"type":7,"error":"banned"}"#), "{told}");
        }
        let plain = CloseReason::requested_by_app(Cause::Ordered, Some(""));
        assert!(String::from_utf8_lossy(&frames(&plain, JSON, true)[0]).contains(r#"{"type":7}"#));
        let told =
            String::from_utf8_lossy(&frames(&CloseReason::on_request(Cause::Ordered, Some("secret")), JSON, false)[0])
                .into_owned();
        assert!(!told.contains("secret"), "an error of another app server is no reason for the client: {told}");
    }

    #[test]
    fn a_raw_client_gets_the_close_code_alone() {
        let reason = CloseReason::broken_rule(Cause::TextInvalid, "a text is not UTF-8", 1007);
        assert_eq!(frames(&reason, Content::Raw, true), [websocket::close_frame(1007)]);
        assert_eq!(
            frames(&CloseReason::reconnect(Cause::Drained), Content::Raw, true),
            [websocket::close_frame(CLOSE_GOING_AWAY)]
        );
    }

    #[test]
    fn the_app_server_is_notified_of_a_close_unless_it_requested_it() {
        let home = Arc::new(LinkHandle::opened(&HubIdentity::detached(), AppServerId::from(0)));
        let client = Client::new("id".into(), 0, home, JSON, Socket::boxed(tokio::io::empty()));
        assert_eq!(CloseReason::by_app(None, None).notice_to_app(&client), None);
        let Some(ServiceMessage::CloseConnection(close)) = CloseReason::timed_out().notice_to_app(&client) else {
            panic!("no notice");
        };
        assert_eq!(&*close.connection_id, "id");
        assert!(close.error.is_some_and(|error| error.contains("ClientTimeoutInterval")));
    }
}
