//! The life of one client connection: greet it, read it, see it off.
//!
//! ```text
//!  Admission ──upgrade──► greet (hub handshake) ──► open at the app server ──► read until the socket ends
//! ```
//!
//! One task per connection. While it is idle the task holds no buffer and waits for one thing: the socket.

mod greet;
mod inbound;
mod read;

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;
use tracing::debug;

use crate::shard::{Admission, Shard, Sockets};
use crate::socket::Socket;

/// Serves a socket from its upgrade to its end.
pub async fn serve(shard: Rc<Shard>, admission: Box<Admission>) {
    let id: Rc<str> = Rc::from(&*admission.open.connection_id);
    let is_negotiated = admission.is_negotiated;
    shard.shared().socket_began();
    // Greeting needs buffers and timers that an idle connection must not pay for: they go with this future.
    let greeted = Box::pin(greet_upgraded(&shard, admission)).await;
    match greeted {
        Some(reading) => read::until_the_end(&shard, reading).await,
        // Nobody was told of it, so nobody has to be told of its end; its token is used up all the same.
        None => {
            shard.end_id(&id, is_negotiated);
        }
    }
    shard.shared().socket_ended();
}

async fn greet_upgraded(shard: &Rc<Shard>, admission: Box<Admission>) -> Option<read::Reading> {
    let Admission { upgrade, hub, open, is_negotiated, user, expires_s } = *admission;
    let upgraded = match upgrade.await {
        Ok(upgraded) => upgraded,
        Err(error) => {
            debug!(%error, "the upgrade broke off");
            return None;
        }
    };
    let (socket, early) = match into_tcp(upgraded) {
        Ok((stream, early)) => (Socket::Tcp(at_home(shard, stream).ok()?), early),
        Err(other) => {
            debug!("a client's socket is no plain TCP: its writes are queued");
            (Socket::Boxed(RefCell::new(Box::new(TokioIo::new(other)))), Bytes::new())
        }
    };
    greet::greet(shard, socket, early, &hub, greet::Newcomer { open, user, is_negotiated, expires_s }).await
}

/// The TCP socket below, with what was read of it already: our own server's, or that of `axum::serve` around an app.
fn into_tcp(upgraded: Upgraded) -> Result<(TcpStream, Bytes), Upgraded> {
    let upgraded = match upgraded.downcast::<TokioIo<TcpStream>>() {
        Ok(parts) => return Ok((parts.io.into_inner(), parts.read_buf)),
        Err(other) => other,
    };
    auto::upgrade::downcast::<TokioIo<TcpStream>>(upgraded).map(|parts| (parts.io.into_inner(), parts.read_buf))
}

/// The socket, woken by this shard's runtime and no other's: a wake-up across threads costs more than a read.
fn at_home(shard: &Shard, stream: TcpStream) -> io::Result<TcpStream> {
    match shard.shared().whose_sockets {
        Sockets::Own => Ok(stream),
        Sockets::Adopted => TcpStream::from_std(stream.into_std()?),
    }
}
