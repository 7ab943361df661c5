//! Relay between clients and a server that injects faults into event streams and poll responses.
//!
//! Each client connection has its own connection to the server, so that messages stay in order. A message held for
//! swapping waits for the next one.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use anyhow::Result;
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};

use crate::fault::{Fault, Plan, Spoiler};

/// Running relay. Its tasks end with the runtime.
#[derive(Debug)]
pub(crate) struct HttpRelay {
    address: String,
    plan: Arc<Plan>,
}

/// Client connection with its server connection.
struct Link {
    server: SendRequest<Incoming>,
    spoiler: Spoiler,
}

/// Body of an event stream, written by the task that reads the server's.
struct Events(mpsc::UnboundedReceiver<Bytes>);

type Answer = Response<Either<Full<Bytes>, Events>>;

impl HttpRelay {
    pub(crate) async fn start(server: &str, fault: Fault, every: u64) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let plan = Plan::new(fault, every);
        let (server, shared) = (server.to_owned(), Arc::clone(&plan));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(relay(client, server.clone(), Spoiler::new(&shared)));
            }
        });
        Ok(Self { address, plan })
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn made(&self) -> u64 {
        self.plan.made()
    }
}

async fn relay(client: TcpStream, server: String, spoiler: Spoiler) -> Result<()> {
    let server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(server)).await?;
    tokio::spawn(connection);
    let link = Arc::new(Mutex::new(Link { server: sender, spoiler }));
    let service = service_fn(|request| {
        let link = Arc::clone(&link);
        async move { link.lock().await.pass(request).await }
    });
    Ok(Builder::new().serve_connection(TokioIo::new(client), service).await?)
}

impl Link {
    async fn pass(&mut self, request: Request<Incoming>) -> Result<Answer> {
        self.server.ready().await?;
        let (mut head, body) = self.server.send_request(request).await?.into_parts();
        let content_type = head.headers.get(header::CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
        if content_type.starts_with(b"text/event-stream") {
            let (tell, told) = mpsc::unbounded_channel();
            tokio::spawn(events(body, self.spoiler.fresh(), tell));
            return Ok(Response::from_parts(head, Either::Right(Events(told))));
        }
        let body = body.collect().await?.to_bytes();
        let spoilt: Vec<u8> = if head.status == StatusCode::OK && body.ends_with(&[0x1e]) {
            messages(&body).flat_map(|message| self.spoiler.pass(message)).flatten().collect()
        } else {
            body.into()
        };
        head.headers.remove(header::CONTENT_LENGTH);
        Ok(Response::from_parts(head, Either::Left(spoilt.into())))
    }
}

/// Forwards events, one message in each.
async fn events(mut body: Incoming, mut spoiler: Spoiler, tell: mpsc::UnboundedSender<Bytes>) -> Result<()> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        bytes.extend_from_slice(frame?.data_ref().map_or(&[], |data| data));
        while let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let event: Vec<u8> = bytes.drain(..end + 4).take(end).collect();
            // A comment may precede the first event.
            let start = event.windows(6).position(|window| window == b"data: ").map_or(event.len(), |at| at + 6);
            for message in messages(event.get(start..).unwrap_or_default()) {
                for message in spoiler.pass(message) {
                    tell.send([b"data: ", &message[..], b"\r\n\r\n"].concat().into())?;
                }
            }
        }
    }
    Ok(())
}

fn messages(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split_inclusive(|&byte| byte == 0x1e)
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}
