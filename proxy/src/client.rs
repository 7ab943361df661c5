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

use hyper_util::rt::TokioIo;
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
    let Admission { upgrade, hub, open, is_negotiated, user } = *admission;
    let upgraded = match upgrade.await {
        Ok(upgraded) => upgraded,
        Err(error) => {
            debug!(%error, "the upgrade broke off");
            return None;
        }
    };
    let (socket, early) = match upgraded.downcast::<TokioIo<TcpStream>>() {
        Ok(parts) => (Socket::Tcp(at_home(shard, parts.io.into_inner()).ok()?), parts.read_buf),
        Err(upgraded) => (Socket::Boxed(RefCell::new(Box::new(TokioIo::new(upgraded)))), bytes::Bytes::new()),
    };
    greet::greet(shard, Rc::new(socket), early, &hub, greet::Newcomer { open, user, is_negotiated }).await
}

/// The socket, woken by this shard's runtime and no other's: a wake-up across threads costs more than a read.
fn at_home(shard: &Shard, stream: TcpStream) -> io::Result<TcpStream> {
    match shard.shared().whose_sockets {
        Sockets::Own => Ok(stream),
        Sockets::Adopted => TcpStream::from_std(stream.into_std()?),
    }
}
