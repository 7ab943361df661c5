//! Connections that move: here from elsewhere, from here to elsewhere, and from one link to another.
//!
//! The client notices nothing of it, so neither `on_connected` nor `on_disconnected` runs.

use std::mem;
use std::sync::Arc;

use bytestring::ByteString;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::hub::Close;
use trunkline_protocol::manifest::ITEMS_HEADER;
use trunkline_protocol::service::CloseConnection;

use super::{HubAtWork, caught};
use crate::call::{Given, Rejection};
use crate::connection::{Connection, End, Errand};
use crate::error::HubError;
use crate::handler::Kind;
use crate::rehomed::{self, ITEMS_MAX_BYTES};
use crate::text;

impl HubAtWork {
    /// Takes a connection over that its client knows to be open: its handshake has been answered long ago.
    pub(super) async fn take_over(&self, connection: &Arc<Connection>) {
        let context = self.context(connection, Errand::Greeting);
        let mut taken = Ok(());
        for hook in &self.methods.on_rehomed {
            taken = self.run_hook(hook, &context, None).await;
            if taken.is_err() {
                break;
            }
        }
        // Somewhere on_connected has succeeded.
        connection.inbox().set_connected();
        self.down.metrics.rehomed.inc();
        if let Err(error) = taken {
            self.log(connection, "on_rehomed", &error);
            let text = error.describe(text::CLOSED_WITH_ERROR, self.settings.detailed_errors);
            let close = Close { error: Some(text.into()), allow_reconnect: true };
            self.down.close(connection, close, End::by(Cause::AppError, error.to_string()));
        }
    }

    /// The same client over another link of the same proxy: the calls of the old connection are cancelled, what the app
    /// remembers of it goes over.
    pub(super) fn supersede(&self, present: &Arc<Connection>, next: &Arc<Connection>) {
        *next.items() = mem::take(&mut *present.items());
        if self.down.leave_quietly(present) {
            self.down.give_up_calls(present);
        }
    }

    /// The connection is to go on at another app server, once its calls have ended.
    pub(super) fn begin_leaving(&self, connection: &Arc<Connection>) {
        let start = connection.inbox().finish_by_moving();
        self.down.start_if(start, connection);
    }

    /// The calls of a connection have ended, or have no more time: the proxy may give it to another app server.
    pub(super) async fn hand_over(&self, connection: &Arc<Connection>) {
        let is_connected = connection.inbox().is_connected();
        let items = if is_connected { self.items_of(connection).await } else { None };
        if !self.down.leave_quietly(connection) {
            return;
        }
        let mut close = CloseConnection { connection_id: connection.shared_id(), ..CloseConnection::default() };
        close.headers.extend(items.map(|items| (ByteString::from_static(ITEMS_HEADER), vec![items.into()])));
        self.down.hand_over(connection.node(), close);
        self.down.give_up_calls(connection);
    }

    /// The time for calls is over: hands over whom their calls still keep here.
    pub(crate) async fn hand_over_the_rest(&self) {
        for connection in self.down.roster.all() {
            if connection.inbox().is_moving() {
                self.hand_over(&connection).await;
            }
        }
    }

    /// How many connections are here, and how many of them are about to move.
    pub(crate) fn count_moving(&self) -> (usize, usize) {
        let all = self.down.roster.all();
        (all.len(), all.iter().filter(|connection| connection.inbox().is_moving()).count())
    }

    async fn items_of(&self, connection: &Arc<Connection>) -> Option<String> {
        let hook = self.methods.on_leaving.as_ref()?;
        let context = self.context(connection, Errand::Farewell);
        let given = Given { context, arguments: Vec::new(), stream_ids: Vec::new(), end: None };
        let ran = caught(async { hook.call(given).map_err(Rejection::into_error)?.await }).await;
        let wrapped = ran.and_then(|reply| match reply.0 {
            Kind::Value(items) => rehomed::wrap(&items)
                .ok_or_else(|| HubError::new(format!("items are over {ITEMS_MAX_BYTES} bytes and stay behind"))),
            Kind::Stream(_) => Err(HubError::new("a stream can't be handed over")),
        });
        wrapped.map_err(|error| self.log(connection, "on_leaving", &error)).ok()
    }
}
