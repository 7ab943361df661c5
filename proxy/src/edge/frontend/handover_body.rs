//! Response body that only starts the response; the socket is then handed over.
//!
//! ```text
//!  hyper: head, first part ─► written ─► body fails ─► connection given up ─► socket ─► receiver
//! ```
//!
//! hyper can't release a socket during a response otherwise. The
//! [socket](crate::ground::net::socket::RequestSocket), not hyper, reports completed writes.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::ground::net::socket::SocketHandover;

/// Body that fails after the server has written its only part.
pub(crate) struct HandoverBody {
    first: Option<Bytes>,
    handover: SocketHandover,
    taker: Option<oneshot::Sender<TcpStream>>,
}

/// Error that makes the server give up its connection.
#[derive(Debug, thiserror::Error)]
#[error("the rest of the answer is written on the socket itself")]
pub(crate) struct HandsOver;

impl HandoverBody {
    pub(crate) fn new(first: Bytes, handover: SocketHandover, taker: oneshot::Sender<TcpStream>) -> Self {
        Self { first: Some(first), handover, taker: Some(taker) }
    }
}

impl Body for HandoverBody {
    type Data = Bytes;
    type Error = HandsOver;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HandsOver>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        match self.taker.take() {
            Some(taker) => self.handover.begin(taker),
            None if self.handover.is_due() => return Poll::Ready(Some(Err(HandsOver))),
            None => {}
        }
        // The socket wakes the task once everything is sent.
        Poll::Pending
    }
}
