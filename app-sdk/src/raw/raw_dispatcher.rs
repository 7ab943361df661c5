//! Dispatcher of one raw endpoint: opens and closes connections, and runs the handler, an async function, in a task per
//! connection.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;

use axum::extract::{FromRef, State};
use bytes::Bytes;
use bytestring::ByteString;
use futures_util::FutureExt;
use tokio_util::task::TaskTracker;
use trunkline_process::LinePermit;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::manifest::HubManifest;
use trunkline_protocol::service::{CloseConnection, ConnectionData, OpenConnection, RawKind, ServiceMessage};

use super::raw_connection::RawConnection;
use super::raw_core::{RawClient, RawCore};
use super::raw_inbox::RawMessage;
use crate::connection::{ConnectRequest, Connection, ConnectionClose, Limits, LinkId, short};
use crate::error::HubError;
use crate::handler::IntoEnd;
use crate::node::Node;
use crate::outbound::{Endpoint, ID_IN_USE, Outbound, ignore};
use crate::watchdog::{CodeId, watch};

pub(crate) type RawServe = dyn Fn(RawConnection) -> ServeFuture + Send + Sync;

pub(crate) struct BuiltRaw {
    pub(crate) manifest: HubManifest,
    pub(crate) limits: Limits,
    pub(crate) serve: Arc<RawServe>,
}

pub(crate) struct RawDispatcher {
    pub(crate) core: Arc<RawCore>,
    serve: Arc<RawServe>,
    tasks: TaskTracker,
}

impl RawDispatcher {
    pub(crate) fn new(outbound: Outbound, endpoint: BuiltRaw, tasks: TaskTracker) -> Arc<Self> {
        let BuiltRaw { manifest, limits, serve } = endpoint;
        Arc::new(Self { core: Arc::new(RawCore::new(outbound, limits, manifest.is_movable)), serve, tasks })
    }

    /// Runs the handler, and then closes the connection or hands it over.
    async fn run(self: Arc<Self>, client: Arc<RawClient>) {
        let connection = RawConnection::new(Arc::clone(&client), Arc::clone(&self.core));
        // A panic affects only this connection.
        let serving = AssertUnwindSafe(async { (self.serve)(connection).await }).catch_unwind();
        let code = CodeId::for_name(&self.core.outbound.name, "handler");
        let served = watch(&self.core.outbound, code, pin!(serving)).await;
        let served = served.unwrap_or_else(|panic| Err(HubError::from_panic(&*panic)));
        if served.is_ok()
            && let Some(reassignment) = client.due_reassignment()
        {
            return self.core.reassign(&client, reassignment).await;
        }
        let is_closed = client.cancellation.is_cancelled();
        let error = served.err().map(|error| {
            let (hub, connection) = (&*self.core.outbound.name, short(client.request.id()));
            if is_closed {
                // Usually a send that came too late.
                tracing::debug!(hub, connection, ?error, "handler failed after its connection had ended");
            } else if let Some(LinePermit { left_out }) = self.core.outbound.failure_limit.take_line() {
                tracing::error!(hub, connection, ?error, left_out, "handler failed");
            } else {
                tracing::debug!(hub, connection, ?error, "handler failed, like others a moment ago");
            }
            ByteString::from(error.to_string())
        });
        self.core.close_client(&client, error);
    }
}

impl Endpoint for Arc<RawDispatcher> {
    fn outbound(&self) -> &Outbound {
        &self.core.outbound
    }

    fn handle_open(&self, home: LinkId, node: &Arc<Node>, body: &Bytes, message: OpenConnection) {
        let (core, request) = (&self.core, ConnectRequest::new(body, &message));
        let client = Arc::new(core.client(request, Arc::clone(node), home));
        if let Some(close) = ConnectionClose::of_ended(&message) {
            if core.end_unserved(&client, &close) {
                self.tasks.spawn(Arc::clone(self).run(client));
            }
            return;
        }
        if let Err(present) = core.insert(&client) {
            if !Arc::ptr_eq(&present.node, &client.node) {
                return core.outbound.refuse(&client.node, client.request.shared_id(), Cause::IdInUse, ID_IN_USE);
            }
            // The proxy reopens an ID only after it has detected that the old connection is gone.
            core.handle_closed(&present, &ConnectionClose::new(Cause::Superseded));
            if core.insert(&client).is_err() {
                return;
            }
        }
        tracing::debug!(hub = %core.outbound.name, connection = short(client.request.id()), "connection opened");
        self.tasks.spawn(Arc::clone(self).run(client));
    }

    fn handle_data(&self, data: ConnectionData, _mark: Option<i64>) -> Option<Arc<Connection>> {
        let client = self.core.get(&data.connection_id)?;
        let message = RawMessage::new(RawKind::from_data_type(data.data_type), data.payload);
        self.core.receive(&client, message);
        None
    }

    fn handle_close(&self, _node: &Arc<Node>, close: CloseConnection) {
        let Some(client) = self.core.get(&close.connection_id) else { return };
        match close.reason().next_home {
            Some("") => self.core.begin_reassignment(&client),
            _ => self.core.handle_closed(&client, &ConnectionClose::from_frame(&close)),
        }
    }

    fn handle_link_ended(&self, link: LinkId, close: &ConnectionClose) {
        self.core.at_home(link).iter().for_each(|client| self.core.handle_closed(client, close));
        self.core.repeat_marks();
    }

    fn handle(&self, _link: LinkId, _node: &Arc<Node>, message: ServiceMessage) {
        match message {
            ServiceMessage::DownDone(report) => self.core.handle_down_done(&report),
            ServiceMessage::Ack(ack) => self.core.acks.acknowledge(ack),
            other => ignore(self.outbound(), &other),
        }
    }

    fn handle_node_lost(&self, node: &Arc<Node>) {
        self.core.acks.fail_node(node);
    }
}

pub(crate) type ServeFuture = Pin<Box<dyn Future<Output = Result<(), HubError>> + Send>>;

/// An async function that can handle raw connections: up to four [`State`] parameters, and [`RawConnection`] last.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't serve raw connections",
    label = "not an async function of `State<T>`… and `RawConnection`",
    note = "parameters: `State<T>`, at most four of them, and `RawConnection` last",
    note = "result: `()` or `Result<(), trunkline::HubError>`",
    note = "the future must be `Send`: nothing like `Rc` may live across an `.await`"
)]
pub trait RawHandler<S, M>: Clone + Send + Sync + Sized + 'static {
    /// Handles one connection until it ends.
    #[doc(hidden)]
    fn call(self, state: S, connection: RawConnection) -> ServeFuture;
}

macro_rules! function_as_raw_handler {
    ($($state:ident),*) => {
        impl<S, F, Fut, R, $($state,)*> RawHandler<S, (R, $($state,)*)> for F
        where
            F: Fn($(State<$state>,)* RawConnection) -> Fut + Clone + Send + Sync + 'static,
            Fut: Future<Output = R> + Send + 'static,
            R: IntoEnd + 'static,
            S: Send + 'static,
            $($state: FromRef<S> + 'static,)*
        {
            fn call(self, state: S, connection: RawConnection) -> ServeFuture {
                // The impl without state parameters does not use it.
                let _ = &state;
                let serving = self($(State($state::from_ref(&state)),)* connection);
                Box::pin(async move { serving.await.into_end() })
            }
        }
    };
}

function_as_raw_handler!();
function_as_raw_handler!(T1);
function_as_raw_handler!(T1, T2);
function_as_raw_handler!(T1, T2, T3);
function_as_raw_handler!(T1, T2, T3, T4);

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::sync::mpsc;
    use trunkline_protocol::service::{Capabilities, FrameBuffer};

    use super::*;
    use crate::error::RawSendError;
    use crate::metrics::Metrics;
    use crate::node::{NodeName, next_piece, open_outbox};

    #[tokio::test(start_paused = true)]
    async fn a_raw_message_waits_for_its_client_and_a_reassignment_does_not() {
        let (senders, mut opened) = mpsc::unbounded_channel();
        let serve: Arc<RawServe> = Arc::new(move |mut client| {
            senders.send(client.sender()).unwrap();
            Box::pin(async move {
                while client.recv().await.is_some() {}
                Ok(())
            })
        });
        let manifest = HubManifest { is_movable: true, ..HubManifest::raw("raw", "/raw") };
        let endpoint = BuiltRaw { manifest, limits: Limits::default(), serve };
        let outbound = Outbound::new("raw", Metrics::new().hub("raw"));
        let hub = RawDispatcher::new(outbound, endpoint, TaskTracker::new());
        let (outbox, socket) = open_outbox(10_000_000);
        let outbox = Arc::new(outbox);
        let capabilities = Capabilities { client_message_max_bytes: Some(1_000_000), ..Capabilities::plain() };
        let node = hub.core.outbound.begin_session(NodeName::proxy("a", "boot"), capabilities, 0, Arc::clone(&outbox));
        let open = OpenConnection { connection_id: "c1".into(), ..OpenConnection::default() };
        let body = ServiceMessage::OpenConnection(open).to_body();
        let Ok(Some(ServiceMessage::OpenConnection(open))) = ServiceMessage::decode(&body) else { panic!("{body:?}") };
        hub.handle_open(LinkId(1), &node, &body, open);
        let sender = opened.recv().await.unwrap();
        let received = || {
            let mut frames = FrameBuffer::default();
            std::iter::from_fn(|| next_piece(&outbox, socket)).for_each(|piece| frames.push(piece.bytes));
            let bodies = std::iter::from_fn(|| frames.next_body().unwrap());
            bodies.map(|body| ServiceMessage::decode(&body).unwrap().unwrap()).collect::<Vec<_>>()
        };
        let sent = (0..100).take_while(|_| sender.send(vec![0; 50_000]).now_or_never().is_some()).count();
        let frames = received();
        assert_eq!((sent, frames.len()), (5, 7), "five messages, and a mark behind each second");
        let refused = sender.send(vec![0; 1_000_001]).await;
        assert_eq!(refused, Err(RawSendError::TooLarge { length: 1_000_001, limit: 1_000_000 }));
        let mut sending = Box::pin(sender.send(vec![0; 50_000]));
        assert!((&mut sending).now_or_never().is_none());
        let [.., ServiceMessage::DownMark(mark), _] = &frames[..] else { panic!("{frames:?}") };
        hub.handle(LinkId(1), &node, ServiceMessage::DownDone(mark.clone()));
        sending.await.unwrap();
        assert!(matches!(&received()[..], [ServiceMessage::ConnectionData(_), ServiceMessage::DownMark(_)]));
        let mut sending = Box::pin(sender.send(vec![0; 900_000]));
        assert!((&mut sending).now_or_never().is_none());
        let headers = vec![("Asrs-Migrate-To".into(), vec!["".into()])];
        hub.handle_close(&node, CloseConnection { connection_id: "c1".into(), error: None, headers });
        assert_eq!(sending.await, Err(RawSendError::Closed));
        assert!(matches!(&received()[..], [ServiceMessage::CloseConnection(_)]));
    }
}
