//! Runs the hooks of a hub within its filters.

use std::sync::Arc;

use tracing::Instrument;
use trunkline_protocol::cause::Cause;
use trunkline_protocol::hub::{Close, Headers};

use super::app_code::{call_span, in_order_of, log_failure, run_in_order};
use super::connection_ends::ConnectionEnds;
use crate::call::CallInput;
use crate::call::rehomed::{self, ITEMS_MAX_BYTES};
use crate::connection::{Connection, ConnectionClose, short};
use crate::context::Context;
use crate::error::{CallStage, HubError};
use crate::handler::filter::HubCall;
use crate::handler::{HubCallKind, ReplyBody, ReplyFuture};
use crate::hub::MethodTable;
use crate::hub_core::HubCore;
use crate::supervision::supervise;
use crate::telemetry;
use crate::watchdog::{CodeId, Turn};

pub(super) struct HookRunner {
    core: Arc<HubCore>,
    methods: Arc<MethodTable>,
    ends: Arc<ConnectionEnds>,
}

impl HookRunner {
    pub(super) fn new(core: Arc<HubCore>, methods: Arc<MethodTable>, ends: Arc<ConnectionEnds>) -> Self {
        Self { core, methods, ends }
    }

    pub(super) fn has_policies(&self) -> bool {
        !self.methods.policies.is_empty()
    }

    /// Checks the hub's policies for a client that is not connected yet. Logs a refusal.
    pub(super) fn check_policies(&self, connection: &Connection, context: &Context) -> Result<(), HubError> {
        self.policies(context).inspect_err(|error| log_failure(&self.core, connection, "negotiate", error))
    }

    fn policies(&self, context: &Context) -> Result<(), HubError> {
        let _turn = Turn::begin(CodeId::of(self.core.name(), "policy"));
        self.methods.policies.check(context)
    }

    /// Runs `on_connected`. A refused client is closed.
    pub(super) async fn connected(&self, connection: &Arc<Connection>, context: Context) {
        let ran = match self.policies(&context) {
            Ok(()) => self.run(HubCallKind::Connected, connection, context, None).await,
            Err(error) => Err(error),
        };
        let Err(error) = ran else {
            return connection.inbox().set_connected();
        };
        log_failure(&self.core, connection, "on_connected", &error);
        let is_refused = error.stage() == CallStage::Authorizing;
        let cause = if is_refused { Cause::PolicyRefused } else { Cause::AppError };
        let close = Close { error: Some(self.ends.close_text(&error)), allow_reconnect: false };
        self.ends.close(connection, close, ConnectionClose::with_error(cause, error.to_string()));
    }

    pub(super) async fn disconnected(&self, connection: &Connection, context: Context, close: ConnectionClose) {
        if let Err(error) = self.run(HubCallKind::Disconnected, connection, context, Some(close)).await {
            log_failure(&self.core, connection, "on_disconnected", &error);
        }
    }

    /// Runs `on_rehomed`. For the client the connection is already open: its handshake was answered before.
    pub(super) async fn rehomed(&self, connection: &Arc<Connection>, context: Context) {
        let taken = self.run(HubCallKind::Rehomed, connection, context, None).await;
        // `on_connected` has succeeded on another app server.
        connection.inbox().set_connected();
        self.core.metrics().rehomed.inc();
        let is_kept = taken.is_ok();
        if let Err(error) = taken {
            self.close_failed(connection, "on_rehomed", &error);
        }
        self.core.taken_over.announce(connection, is_kept);
    }

    pub(super) fn follows_refreshes(&self) -> bool {
        self.methods.hooks(HubCallKind::Refreshed).next().is_some()
    }

    /// Runs `on_refreshed`. An error closes the client.
    pub(super) async fn refreshed(&self, connection: &Arc<Connection>, context: Context) {
        if let Err(error) = self.run(HubCallKind::Refreshed, connection, context, None).await {
            self.close_failed(connection, "on_refreshed", &error);
        }
    }

    /// Runs `on_leaving` for a connection that is about to be reassigned. Returns its encoded items.
    pub(super) async fn leaving(&self, connection: &Connection, context: impl FnOnce() -> Context) -> Option<String> {
        let is_connected = connection.inbox().is_connected();
        let hook = self.methods.on_leaving.as_ref().filter(|_| is_connected)?;
        let context = context();
        let input = CallInput { context: context.clone(), arguments: Vec::new(), stream_ids: Vec::new(), close: None };
        let span = call_span(&context, connection, &hook.name, &Vec::new());
        let filters = &self.methods.filters;
        let running = match filters.is_empty() {
            true => hook.call(input),
            false => filters.wrap(HubCall::of_hook(HubCallKind::Leaving, context, None), hook.call(input)),
        };
        let ran = self.supervised("on_leaving", connection, running.instrument(span)).await;
        let wrapped = ran.and_then(|reply| match reply.0 {
            ReplyBody::Value(items) => rehomed::wrap(&items)
                .ok_or_else(|| HubError::new(format!("items dropped: over {ITEMS_MAX_BYTES} bytes"))),
            ReplyBody::Stream(_) | ReplyBody::Nothing => {
                Err(HubError::new("items dropped: only a value can be handed over"))
            }
        });
        wrapped.map_err(|error| log_failure(&self.core, connection, "on_leaving", &error)).ok()
    }

    /// Runs a hook until it returns or times out. A panic becomes an error.
    async fn supervised<T>(
        &self,
        hook: &str,
        connection: &Connection,
        running: impl Future<Output = Result<T, HubError>>,
    ) -> Result<T, HubError> {
        supervise(&self.core.outbound, (hook, short(connection.id())), self.core.limits.hook_timeout, running).await
    }

    /// Closes a client after its hook has failed. The client may reconnect.
    fn close_failed(&self, connection: &Arc<Connection>, hook: &str, error: &HubError) {
        log_failure(&self.core, connection, hook, error);
        let close = Close { error: Some(self.ends.close_text(error)), allow_reconnect: true };
        self.ends.close(connection, close, ConnectionClose::with_error(Cause::AppError, error.to_string()));
    }

    /// Runs the hooks of one kind within the hub's filters. A panic becomes an error of this connection.
    async fn run(
        &self,
        kind: HubCallKind,
        connection: &Connection,
        context: Context,
        close: Option<ConnectionClose>,
    ) -> Result<(), HubError> {
        let span = call_span(&context, connection, kind.hook_name(), &Headers::new());
        let hooks = run_in_order(kind, self.methods.hooks(kind), &context, close.as_ref());
        let filters = &self.methods.filters;
        let running: ReplyFuture = match filters.is_empty() {
            true => hooks,
            false => filters.wrap(HubCall::of_hook(kind, context, close), hooks),
        };
        let running = in_order_of(connection, running).instrument(span.clone());
        let ran = self.supervised(kind.hook_name(), connection, running).await;
        ran.map(drop).inspect_err(|error| telemetry::fail(&span, error.message()))
    }
}
