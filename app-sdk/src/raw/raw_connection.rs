//! Raw connections, as used by handlers.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use futures_util::Stream;
use http::HeaderMap;
use serde::Serialize;
use trunkline_protocol::limits::LINK_FRAME_MAX_BYTES;
use trunkline_protocol::service::{MultiConnectionData, Payloads, ServiceMessage, encode_connection_data};

use super::raw_client::{ITEMS_ENCODING, RawClient};
use super::raw_message::RawMessage;
use crate::brief_debug::brief_debug;
use crate::call::Rehomed;
use crate::connection::Connection;
use crate::context::Cancellation;
use crate::context::request::{self, Claims, Query};
use crate::error::{HubError, RawSendError};
use crate::hub_core::{HubCore, NoRoom, WAITING_SENDS_MAX};

/// Connection of a raw endpoint's client: receives its messages and sends to it. Also a stream.
///
/// A client faster than its handler is paused. After the client has disconnected, its remaining messages can still be
/// received, then [`recv`](Self::recv) returns `None`. The connection is closed when the handler returns.
#[must_use = "the connection is closed when its handler returns"]
pub struct RawConnection {
    sender: RawSender,
}

/// Sending half of a [`RawConnection`], which can be cloned.
#[derive(Clone)]
pub struct RawSender {
    client: Arc<RawClient>,
}

/// Handle of a raw endpoint, to send to its clients on any proxy.
#[derive(Clone)]
pub struct RawHandle {
    pub(crate) core: Arc<HubCore>,
}

impl RawConnection {
    pub(crate) fn new(client: Arc<RawClient>) -> Self {
        Self { sender: RawSender { client } }
    }

    /// Receives the next message of the client. Returns `None` if the client has disconnected, the connection was
    /// closed, or it continues on another app server ([`is_leaving`](Self::is_leaving)). Cancel-safe.
    pub async fn recv(&mut self) -> Option<RawMessage> {
        poll_fn(|cx| self.sender.client.poll_next(cx)).await
    }

    /// Sends a message: text (`&str`, `String`), bytes (`Bytes`, `Vec<u8>`) or a received message. Waits while about
    /// 256 KiB of earlier messages are unread by the client, and while the link to its proxy is full. Sequential
    /// sends arrive in order.
    ///
    /// # Errors
    /// If the connection has closed, the message is too large for a link or for the client, or 1 024 sends to the
    /// client are already waiting.
    pub async fn send(&self, message: impl Into<RawMessage>) -> Result<(), RawSendError> {
        self.sender.send(message).await
    }

    /// Whether the connection continues on another app server when the handler returns, because this one stops: see
    /// [`RawEndpoint::movable`](crate::RawEndpoint::movable). Messages sent before can still be received.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        let connection = self.connection();
        !connection.cancellation().is_cancelled() && connection.inbox().reassignment.has_begun()
    }

    /// Cancellation that fires when the connection closes or is about to continue on another app server, for handlers
    /// that do not only wait for messages. Before it returns, such a handler must [receive](Self::recv) until it gets
    /// `None`.
    #[must_use]
    pub fn leaving(&self) -> Cancellation {
        Cancellation::new(self.sender.client.reader.scope.cancellation().clone())
    }

    /// Sets the items for the handler on the next app server, replacing earlier ones.
    ///
    /// # Errors
    /// If the items cannot be encoded as JSON, exceed 16 KiB, or the endpoint is not
    /// [movable](crate::RawEndpoint::movable).
    pub fn hand_over(&self, items: &impl Serialize) -> Result<(), HubError> {
        let reassignment = self.sender.client.reassignment.as_ref();
        let stays = || HubError::new("clients of this raw endpoint can't be handed over: see RawEndpoint::movable");
        reassignment.ok_or_else(stays)?.set_items(items)
    }

    /// Origin of the connection and the items handed over, if it was on another app server before.
    #[must_use]
    pub fn rehomed(&self) -> Option<Rehomed> {
        Rehomed::from_request(&self.connection().request, ITEMS_ENCODING)
    }

    /// Returns a sender for other tasks.
    #[must_use]
    pub fn sender(&self) -> RawSender {
        self.sender.clone()
    }

    /// Closes the connection after everything that was sent, over WebSockets with code 1000.
    pub fn close(self) {
        self.sender.close();
    }

    /// Public ID of the connection, the same for client and proxy.
    #[must_use]
    pub fn connection_id(&self) -> &str {
        self.sender.connection_id()
    }

    /// User ID of the client; `None` if it is not authenticated.
    #[must_use]
    pub fn user_id(&self) -> Option<&str> {
        self.connection().request.user_id()
    }

    /// Claims of the user. Claims, headers, query and address are parsed from the connect request on each call.
    #[must_use]
    pub fn claims(&self) -> Claims {
        Claims::from_request(&self.connection().request)
    }

    /// Headers of the connect request.
    #[must_use]
    pub fn headers(&self) -> HeaderMap {
        request::headers(&self.connection().request)
    }

    /// Query of the connect request.
    #[must_use]
    pub fn query(&self) -> Query {
        Query::new(&self.connection().request.query())
    }

    /// Client address, as seen by its proxy.
    #[must_use]
    pub fn remote_addr(&self) -> Option<SocketAddr> {
        self.connection().request.remote_addr()
    }

    /// Cancellation that fires when the connection closes, for handlers that do not only wait for messages.
    #[must_use]
    pub fn cancellation(&self) -> Cancellation {
        Cancellation::new(self.connection().cancellation().clone())
    }

    fn connection(&self) -> &Connection {
        self.sender.client.connection()
    }
}

impl Stream for RawConnection {
    type Item = RawMessage;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<RawMessage>> {
        self.sender.client.poll_next(cx)
    }
}

impl Drop for RawConnection {
    fn drop(&mut self) {
        drop(self.sender.client.reader.close_upload());
    }
}

impl RawSender {
    /// Sends a message like [`RawConnection::send`].
    ///
    /// # Errors
    /// The errors of [`RawConnection::send`].
    pub async fn send(&self, message: impl Into<RawMessage>) -> Result<(), RawSendError> {
        let (message, client) = (message.into(), &self.client);
        let (core, connection) = (&client.reader.core, client.connection());
        let max_bytes = connection.home.client_message_max_bytes().unwrap_or(LINK_FRAME_MAX_BYTES);
        check(message.as_bytes().len(), max_bytes)?;
        let mut frame = BytesMut::new();
        encode_connection_data(self.connection_id(), message.as_bytes(), message.kind().data_type(), &mut frame);
        check(frame.len(), LINK_FRAME_MAX_BYTES)?;
        let frame = frame.freeze();
        // First, because a reassignment must not wait for a client.
        let room = core.to(connection).room(frame.len(), WAITING_SENDS_MAX).await.map_err(|reason| match reason {
            NoRoom::Closed => RawSendError::Closed,
            NoRoom::TooManyWaiting => RawSendError::TooManyWaiting(WAITING_SENDS_MAX),
        })?;
        let _way = match &client.reassignment {
            Some(reassignment) => Some(reassignment.send().await),
            None => None,
        };
        let is_open = !connection.cancellation().is_cancelled();
        if !is_open || !core.outbound.send(&connection.node(), &frame).await {
            return Err(RawSendError::Closed);
        }
        room.note_queued();
        Ok(())
    }

    /// Closes the connection like [`RawConnection::close`]. The handler runs until it returns.
    pub fn close(&self) {
        self.client.close_client(None);
    }

    /// Public ID of the connection.
    #[must_use]
    pub fn connection_id(&self) -> &str {
        self.client.connection().id()
    }
}

impl RawHandle {
    /// Sends a message to the connection with this ID, on any app server, without waiting for its client. An unknown
    /// ID is not an error.
    ///
    /// # Errors
    /// If the message is too large for a link.
    pub async fn send(&self, connection_id: &str, message: impl Into<RawMessage>) -> Result<(), RawSendError> {
        let message = message.into();
        let payloads = Payloads::raw(message.kind(), Bytes::copy_from_slice(message.as_bytes()));
        let data = MultiConnectionData { connection_ids: vec![ByteString::from(connection_id)], payloads };
        let frame = ServiceMessage::MultiConnectionData(data).to_frame();
        check(frame.len(), LINK_FRAME_MAX_BYTES)?;
        self.core.outbound.send_to_all(&frame).await;
        Ok(())
    }

    /// Name of the raw endpoint.
    #[must_use]
    pub fn name(&self) -> &str {
        self.core.name()
    }
}

fn check(length: usize, limit: usize) -> Result<(), RawSendError> {
    if length > limit { Err(RawSendError::TooLarge { length, limit }) } else { Ok(()) }
}

brief_debug!(RawConnection, |it| "RawConnection({})", it.connection_id());

brief_debug!(RawSender, |it| "RawSender({})", it.connection_id());

brief_debug!(RawHandle, |it| "RawHandle({})", it.name());
