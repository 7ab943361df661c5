//! Close reasons: why a client connection ends, and what its client and its app server are told.

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
use crate::metrics::MoveCause;
use crate::transport::websocket::{self, CLOSE_APP_FAILED, CLOSE_GOING_AWAY, CLOSE_NORMAL};
use crate::upstream::LinkHandle;

/// Text for clients after an error; details follow only where the hub wants them.
const CLOSED_WITH_ERROR: &str = "Connection closed with an error.";

/// Reason to close a client connection, and what each side is told of it.
#[derive(Debug, Clone)]
pub(crate) struct CloseReason {
    /// Cause, for counters, logs, the app server and the history.
    pub cause: Cause,
    /// Detail for people, such as the rule that was broken.
    pub detail: Option<String>,
    /// Hub close message before the end of the transport; `None` when the client has one, or reads no more.
    pub message: Option<CloseMessage>,
    /// Notice for the app server.
    pub notice: AppNotice,
    /// Close code for a client of a raw endpoint, which nothing else tells why. The transport of a hub's client always
    /// ends well: a close message came before.
    pub raw_code: u16,
}

/// Hub close message, and whether the client may reconnect.
#[derive(Debug, Clone)]
pub(crate) struct CloseMessage {
    /// Text that is shown only where the hub gives details; `None` for a close without error.
    detail: Option<String>,
    /// Text that the app gives its clients; shown as it is.
    reason: Option<String>,
    allow_reconnect: bool,
}

/// Notice of a close for the app server.
#[derive(Debug, Clone)]
pub(crate) enum AppNotice {
    /// Nothing: it knows, or can't be told.
    None,
    Clean,
    Error(String),
}

impl CloseReason {
    /// The client closed, or its socket ended: the cause tells which.
    #[must_use]
    pub(crate) fn by_client(cause: Cause) -> Self {
        Self { cause, detail: None, message: None, notice: AppNotice::Clean, raw_code: CLOSE_NORMAL }
    }

    /// The app server closed it, for this error if there is one, and has told the client of a hub. It may name a more
    /// exact cause.
    #[must_use]
    pub(crate) fn by_app(error: Option<&str>, cause: Option<Cause>) -> Self {
        let (plain, raw_code) = match error {
            Some(_) => (Cause::AppError, CLOSE_APP_FAILED),
            None => (Cause::AppClosed, CLOSE_NORMAL),
        };
        let (cause, detail) = (cause.unwrap_or(plain), error.map(Into::into));
        Self { cause, detail, message: None, notice: AppNotice::None, raw_code }
    }

    /// The app server of a side home closed it, and has told the client; its home has still to be told.
    #[must_use]
    pub(crate) fn by_side_home(error: Option<&str>, cause: Option<Cause>) -> Self {
        let notice = error.map_or(AppNotice::Clean, |error| AppNotice::Error(error.into()));
        Self { notice, ..Self::by_app(error, cause) }
    }

    /// An app server other than its own closed it as if it were its own, perhaps for an error.
    #[must_use]
    pub(crate) fn ordered(reason: Option<&str>) -> Self {
        Self::on_request(Cause::Ordered, reason)
    }

    /// An app server, its own or another, ordered its proxy to close it: the reason is meant for the client, which
    /// reads it whether or not the hub gives details, and is not told to reconnect.
    #[must_use]
    pub(crate) fn told_by_app(cause: Cause, reason: Option<&str>) -> Self {
        let detail: Option<String> = reason.filter(|reason| !reason.is_empty()).map(Into::into);
        let message = Some(CloseMessage { detail: None, reason: detail.clone(), allow_reconnect: false });
        Self { detail, message, ..Self::on_request(cause, None) }
    }

    /// An operator closed it, and may have given a reason. The client is not told to reconnect.
    #[must_use]
    pub(crate) fn by_operator(reason: Option<&str>) -> Self {
        Self::on_request(Cause::Operator, reason)
    }

    /// An operator has revoked the tokens of its user. The client is not told to reconnect.
    #[must_use]
    pub(crate) fn token_revoked() -> Self {
        Self::on_request(Cause::TokenRevoked, Some("its access token was revoked"))
    }

    fn on_request(cause: Cause, reason: Option<&str>) -> Self {
        let detail: Option<String> = reason.map(Into::into);
        let message = Some(CloseMessage { detail: detail.clone(), reason: None, allow_reconnect: false });
        Self { cause, detail, message, notice: AppNotice::Clean, raw_code: CLOSE_NORMAL }
    }

    /// The client broke a rule or a limit; `raw_code` tells a client of a raw endpoint which.
    #[must_use]
    pub(crate) fn broken_rule(cause: Cause, detail: &str, raw_code: u16) -> Self {
        Self { raw_code, ..Self::error(cause, format!("InvalidDataException: {detail}"), detail) }
    }

    /// A frame of its app server for it was skipped.
    #[must_use]
    pub(crate) fn app_frame_skipped(problem: &str) -> Self {
        let text = format!("A message of the server could not be delivered: {problem}.");
        // Shown whether or not the hub gives details: it is no secret of the app.
        let reason = Some(format!("{CLOSED_WITH_ERROR} {text}"));
        let message = Some(CloseMessage { detail: None, reason, allow_reconnect: true });
        Self { message, ..Self::error(Cause::AppFrameSkipped, text.clone(), &text) }
    }

    /// The client read too slowly: without a socket, or before it was open.
    #[must_use]
    pub(crate) fn slow_client() -> Self {
        // No close message: it would stand behind everything that the client doesn't read.
        let notice = AppNotice::Error("the client reads too slowly: its queue is over --outbox-max-bytes".into());
        Self { cause: Cause::SlowClient, detail: None, message: None, notice, raw_code: CLOSE_GOING_AWAY }
    }

    /// The client took nothing for too long while something waited for it.
    #[must_use]
    pub(crate) fn stalled_client() -> Self {
        let text = "the client reads too slowly: it took nothing for --slow-client-timeout while messages waited";
        Self { notice: AppNotice::Error(text.into()), ..Self::slow_client() }
    }

    /// The client read slowly, and all outboxes of the node together were over their budget.
    #[must_use]
    pub(crate) fn outbox_total() -> Self {
        let text = "the client reads too slowly: all queues of its node together are over --outbox-total-max-bytes";
        Self { cause: Cause::OutboxTotal, notice: AppNotice::Error(text.into()), ..Self::slow_client() }
    }

    /// A message of the client began, and its rest came too slowly.
    #[must_use]
    pub(crate) fn message_timeout() -> Self {
        let [pace, pressed] = [BYTES_PER_SECOND, PRESSED_BYTES_PER_SECOND].map(|bytes| bytes / 1024);
        let text = format!(
            "A message that begins has to end within {MESSAGE_TIMEOUT_S} s, or to come at {pace} KiB/s: at {pressed} \
             KiB/s while the unfinished messages of all clients take more than half of --unfinished-total-max-bytes."
        );
        Self::error(Cause::MessageTimeout, text.clone(), &text)
    }

    /// The unfinished messages of all clients of the node were over their budget, and this client had the most of them.
    #[must_use]
    pub(crate) fn unfinished_total() -> Self {
        let text = "The unfinished messages of all clients of this node are over --unfinished-total-max-bytes, and this \
                    client has one of the largest.";
        Self::error(Cause::UnfinishedTotal, text.into(), text)
    }

    /// The client was silent for too long. Text of the official server.
    #[must_use]
    pub(crate) fn timed_out() -> Self {
        let text = "Client hasn't sent a message/ping within the configured ClientTimeoutInterval.";
        Self::error(Cause::KeepAliveTimeout, format!("OperationCanceledException: {text}"), text)
    }

    /// The app server took a connection but never answered its hub handshake.
    #[must_use]
    pub(crate) fn not_opened() -> Self {
        let notice = AppNotice::Error("the hub handshake was not answered in time".into());
        Self { cause: Cause::AppHandshakeTimeout, detail: None, message: None, notice, raw_code: CLOSE_GOING_AWAY }
    }

    /// Its home link is lost, or has gone with its app server, and it can't be given another one.
    #[must_use]
    pub(crate) fn home_lost(cause: Cause) -> Self {
        Self::reconnect(cause, AppNotice::None)
    }

    /// Its app server has two connections under its id, of which only one can be used.
    #[must_use]
    pub(crate) fn had_twice() -> Self {
        Self::reconnect(Cause::LinkLost, AppNotice::Clean)
    }

    /// It waited for an app server in vain.
    #[must_use]
    pub(crate) fn no_app_server() -> Self {
        Self::reconnect(Cause::NoAppServer, AppNotice::Clean)
    }

    #[must_use]
    pub(crate) fn drained() -> Self {
        Self::reconnect(Cause::Drained, AppNotice::Clean)
    }

    /// Reason to close a client that has to reconnect for this cause.
    pub(super) fn of_move(cause: MoveCause) -> Self {
        match cause {
            MoveCause::Rebalance => Self::rebalanced(),
            _ => Self::drained(),
        }
    }

    /// Its node has more clients than others, and a rebalance evens them out.
    #[must_use]
    pub(crate) fn rebalanced() -> Self {
        Self::reconnect(Cause::Rebalanced, AppNotice::Clean)
    }

    fn reconnect(cause: Cause, notice: AppNotice) -> Self {
        let message = CloseMessage { detail: None, reason: None, allow_reconnect: true };
        Self { cause, detail: None, message: Some(message), notice, raw_code: CLOSE_GOING_AWAY }
    }

    /// Its access token has expired. As with the official server, the client is told to reconnect.
    #[must_use]
    pub(crate) fn token_expired() -> Self {
        Self::reconnect(Cause::TokenExpired, AppNotice::Clean)
    }

    fn error(cause: Cause, detail: String, notice: &str) -> Self {
        let message = Some(CloseMessage { detail: Some(detail), reason: None, allow_reconnect: true });
        let (detail, notice) = (Some(notice.into()), AppNotice::Error(notice.into()));
        Self { cause, detail, message, notice, raw_code: CLOSE_GOING_AWAY }
    }
}

impl CloseReason {
    /// Whether the client gets no frame any more: it does not read what waits already.
    #[must_use]
    pub(super) fn is_slow_client(&self) -> bool {
        matches!(self.cause, Cause::SlowClient | Cause::OutboxTotal)
    }

    /// Whether the socket has ended by itself: nobody would read a goodbye, and writing one brings a reset.
    #[must_use]
    pub(super) fn is_end_of_socket(&self) -> bool {
        matches!(self.cause, Cause::SocketEnded | Cause::SocketReset)
    }

    /// Last frames for the client: the close message of its hub protocol if there is one, and the transport's close.
    pub(super) fn frames(&self, content: Content, with_details: bool) -> impl Iterator<Item = Bytes> + use<> {
        let (message, code) = match content {
            Content::Raw => (None, self.raw_code),
            Content::Hub(protocol) => {
                let message = self.message.as_ref().map(|message| message.to_hub_message(with_details));
                (message.map(|message| message_frame(protocol, &message)), CLOSE_NORMAL)
            }
        };
        message.into_iter().chain([websocket::close(code)])
    }

    /// Error that the app server is told of.
    pub(super) fn error_for_app(&self) -> Option<ByteString> {
        match &self.notice {
            AppNotice::None | AppNotice::Clean => None,
            AppNotice::Error(text) => Some(ByteString::from(text.as_str())),
        }
    }

    /// Notice for the app server of a client; `None` if it knows already, or can't be told.
    pub(super) fn notice_to_app(&self, client: &Client) -> Option<ServiceMessage> {
        if matches!(self.notice, AppNotice::None) {
            return None;
        }
        Some(self.notice_for(client.home(), client.id()))
    }

    /// Notice for an app server at the end of this link.
    pub(super) fn notice_for(&self, link: &LinkHandle, id: &str) -> ServiceMessage {
        let (connection_id, error) = (ByteString::from(id), self.error_for_app());
        let cause = link.knows_causes().then(|| (CAUSE_HEADER.into(), vec![self.cause.label().into()]));
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
    use crate::net::socket::Socket;
    use crate::upstream::{AppServerId, HubIdentity, LinkHandle};

    const JSON: Content = Content::Hub(HubProtocol::Json);

    fn frames(reason: &CloseReason, content: Content, with_details: bool) -> Vec<Bytes> {
        reason.frames(content, with_details).collect()
    }

    #[test]
    fn a_hub_client_is_told_why_and_whether_to_reconnect_before_its_transport_ends_well() {
        let reason = CloseReason::broken_rule(Cause::HubProtocol, "no message", 1002);
        let told = String::from_utf8_lossy(&frames(&reason, JSON, true)[0]).into_owned();
        assert!(told.contains("InvalidDataException: no message") && told.contains("allowReconnect"), "{told}");
        let told = String::from_utf8_lossy(&frames(&reason, JSON, false)[0]).into_owned();
        assert!(told.contains(CLOSED_WITH_ERROR) && !told.contains("no message"), "{told}");
        assert_eq!(frames(&reason, JSON, true)[1], websocket::close(CLOSE_NORMAL));
    }

    #[test]
    fn the_reason_of_an_ordered_close_is_meant_for_the_client() {
        let reason = CloseReason::told_by_app(Cause::AppClosed, Some("banned"));
        for with_details in [false, true] {
            let told = String::from_utf8_lossy(&frames(&reason, JSON, with_details)[0]).into_owned();
            assert!(told.contains(r#"{"type":7,"error":"banned"}"#), "{told}");
        }
        let plain = CloseReason::told_by_app(Cause::Ordered, Some(""));
        assert!(String::from_utf8_lossy(&frames(&plain, JSON, true)[0]).contains(r#"{"type":7}"#));
        let told = String::from_utf8_lossy(&frames(&CloseReason::ordered(Some("secret")), JSON, false)[0]).into_owned();
        assert!(!told.contains("secret"), "an error of another app server is no reason for the client: {told}");
    }

    #[test]
    fn a_raw_client_gets_the_close_code_alone() {
        let reason = CloseReason::broken_rule(Cause::TextInvalid, "a text is not UTF-8", 1007);
        assert_eq!(frames(&reason, Content::Raw, true), [websocket::close(1007)]);
        assert_eq!(frames(&CloseReason::drained(), Content::Raw, true), [websocket::close(CLOSE_GOING_AWAY)]);
    }

    #[test]
    fn the_app_server_is_told_of_a_close_unless_it_closed_itself() {
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
