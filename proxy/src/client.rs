//! The life of one client connection: greet it, read it, see it off.
//!
//! ```text
//!  Admission ──socket───► greet (hub handshake) ──► open at the app server ──► read until the socket ends
//! ```
//!
//! One task per connection. While it is idle the task holds no buffer and waits for one thing: the socket.

mod greet;
mod inbound;
mod raw;
mod read;

use std::io;
use std::rc::Rc;

use bytes::Bytes;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;
#[cfg(feature = "tls")]
use tokio_rustls::server::TlsStream;
use tracing::debug;

use crate::net::socket::{Socket, StallGuard};
use crate::shard::{Admission, Arrival, Shard, Sockets};

/// Serves a client from its arrival to its end.
pub(crate) async fn serve(shard: Rc<Shard>, mut admission: Box<Admission>) {
    let _seat = admission.seat.take();
    let id: Rc<str> = Rc::from(&*admission.open.connection_id);
    let is_negotiated = admission.is_negotiated;
    shard.shared().socket_began();
    // Greeting needs buffers and timers that an idle connection must not pay for: they go with this future.
    let greeted = Box::pin(greet_arrived(&shard, admission)).await;
    match greeted {
        Some(reading) => {
            // The reader holds it too.
            drop(id);
            read::until_the_end(&shard, reading).await;
        }
        // Nobody was told of it, so nobody has to be told of its end; its token is used up all the same.
        None => shard.end_id(&id, is_negotiated),
    }
    shard.shared().socket_ended();
}

async fn greet_arrived(shard: &Rc<Shard>, admission: Box<Admission>) -> Option<Box<read::Reading>> {
    let Admission { arrival, transport, hub, open, is_negotiated, user, expires_s, .. } = *admission;
    let (socket, early) = match arrival {
        Arrival::Pipe(pipe) => (Socket::boxed(pipe), Bytes::new()),
        Arrival::Upgrade(upgrade) => upgraded(shard, upgrade).await?,
    };
    greet::greet(shard, socket, early, &hub, greet::Newcomer { open, user, is_negotiated, transport, expires_s }).await
}

/// The socket of a WebSocket, and what was read of it already.
async fn upgraded(shard: &Shard, upgrade: OnUpgrade) -> Option<(Socket, Bytes)> {
    let upgraded = match upgrade.await {
        Ok(upgraded) => upgraded,
        Err(error) => {
            debug!(%error, "the upgrade broke off");
            return None;
        }
    };
    Some(match into_tcp(upgraded) {
        Ok((stream, early)) => (Socket::Tcp(at_home(shard, stream).ok()?), early),
        Err(other) => boxed(other),
    })
}

/// The TCP socket below, with what was read of it already: our own server's, or that of `axum::serve` around an app.
fn into_tcp(upgraded: Upgraded) -> Result<(TcpStream, Bytes), Upgraded> {
    let upgraded = match upgraded.downcast::<TokioIo<StallGuard>>() {
        Ok(parts) => return Ok((parts.io.into_inner().into_inner(), parts.read_buf)),
        Err(other) => other,
    };
    auto::upgrade::downcast::<TokioIo<TcpStream>>(upgraded).map(|parts| (parts.io.into_inner(), parts.read_buf))
}

/// A socket that is no plain TCP: its writes are queued.
fn boxed(upgraded: Upgraded) -> (Socket, Bytes) {
    #[cfg(feature = "tls")]
    let upgraded = match upgraded.downcast::<TokioIo<TlsStream<StallGuard>>>() {
        Ok(parts) => return (Socket::boxed(parts.io.into_inner()), parts.read_buf),
        Err(other) => other,
    };
    (Socket::boxed(TokioIo::new(upgraded)), Bytes::new())
}

/// The socket, woken by this shard's runtime and no other's: a wake-up across threads costs more than a read.
fn at_home(shard: &Shard, stream: TcpStream) -> io::Result<TcpStream> {
    match shard.shared().whose_sockets {
        Sockets::Own => Ok(stream),
        Sockets::Adopted => TcpStream::from_std(stream.into_std()?),
    }
}
