//! Nonblocking client: a socket, its message format, and its transport.

use std::io::Write;
use std::net::TcpStream;

use anyhow::{Context, Result};
use rustls::ClientConnection;

use crate::carrier::Carrier;
use crate::crowd::{Crowd, read_ready};
use crate::frame;
use crate::frame_protocol::{FrameProtocol, Heard};
use crate::stream::Stream;

/// State of an open connection in addition to its socket.
#[derive(Debug)]
pub struct Opened {
    /// Transport, including bytes that were read early.
    pub carrier: Carrier,
    /// TLS session of the socket, if any.
    pub tls: Option<Box<ClientConnection>>,
}

impl<T: Into<Carrier>> From<T> for Opened {
    fn from(carrier: T) -> Self {
        Self { carrier: carrier.into(), tls: None }
    }
}

/// Client with an open connection.
#[derive(Debug)]
pub struct Client<S> {
    socket: Stream,
    frame_protocol: S,
    carrier: Carrier,
}

impl<S: FrameProtocol> Client<S> {
    /// Takes over a nonblocking socket. Bytes received after a WebSocket's handshake can serve as the transport.
    #[must_use]
    pub fn new(socket: Stream, frame_protocol: S, carrier: impl Into<Carrier>) -> Self {
        Self { socket, frame_protocol, carrier: carrier.into() }
    }

    /// Creates a crowd of clients. `connect` opens the connection for each number and returns its transport, or the
    /// bytes read early.
    pub fn gather<C, T: Into<Opened>>(
        count: usize,
        mut connect: impl FnMut(usize) -> Result<(TcpStream, S, T)>,
        mut client: impl FnMut(Self) -> C,
    ) -> Result<Crowd<C>> {
        let connect =
            |number| connect(number).map(|(socket, frame_protocol, opened)| (socket, (frame_protocol, opened)));
        Crowd::gather(count, connect, |socket, (frame_protocol, opened)| {
            let Opened { carrier, tls } = opened.into();
            client(Self::new(Stream::new(socket, tls), frame_protocol, carrier))
        })
    }

    /// Message format of this client.
    pub fn frame_protocol(&self) -> S {
        self.frame_protocol
    }

    /// Socket of this client.
    pub fn socket(&mut self) -> &mut Stream {
        &mut self.socket
    }

    /// Sends bytes over the connection.
    ///
    /// # Errors
    /// If the socket does not accept all of them: messages are small, so the server has stopped reading.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.socket.write_all(bytes).context("the server takes no more")
    }

    /// Reads available data and passes each message on. Returns the number of keep-alives.
    pub fn read(&mut self, scratch: &mut [u8], mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<u64> {
        let Self { socket, frame_protocol, carrier } = self;
        let (mut keep_alives, mut question) = (0, None);
        read_ready(socket, scratch, |bytes| {
            carrier.take(bytes, |frame| match frame_protocol.receive(frame)? {
                Heard::Message(message) => each(message),
                Heard::KeepAlive => {
                    keep_alives += 1;
                    Ok(())
                }
                Heard::Question(answer) => {
                    question = Some(answer);
                    Ok(())
                }
            })
        })?;
        if let Some(poll) = carrier.poll()? {
            socket.write_all(poll).context("the server takes no more")?;
        }
        if let Some(answer) = question {
            self.send(&frame::from_client(answer))?;
        }
        Ok(keep_alives)
    }
}
