//! Messages between a client and its side homes: which app server gets a message, and what comes down from there.

use std::sync::Arc;

use trunkline_protocol::hub::{CallScan, HandshakeResponse};
use trunkline_protocol::service::FlowOperation;

use super::close_reason::CloseReason;
use super::command::ConnectionCommand;
use super::connection::{PauseReason, SideHome, SideStage};
use super::content::Content;
use super::delivery::BatchMode;
use super::framed::frame_for;
use super::slot::Slot;
use super::state::ShardState;
use crate::upstream::AppServerId;

/// Limit of the answer of an app server to a hub handshake.
const HANDSHAKE_MAX_BYTES: usize = 16 * 1024;

impl ShardState {
    /// Group of the side home that a client has at an app server.
    pub(super) fn side_group_at(&self, slot: Slot, app: AppServerId) -> Option<Arc<str>> {
        let side = self.connections.get(slot)?.cold.sides.as_ref()?.at_app(app)?;
        Some(side.group.clone())
    }

    /// Applies a command that the app server of a side home sends.
    pub(super) fn apply_from_side(
        &mut self,
        slot: Slot,
        (app, group): (AppServerId, &str),
        command: ConnectionCommand,
        mode: BatchMode,
    ) {
        match command {
            ConnectionCommand::Data { payload, .. } => self.apply_side_data(slot, group, &payload, mode),
            ConnectionCommand::Close { error, cause, .. } => {
                let error = error.as_deref().filter(|error| !error.is_empty());
                // It has ended it: only the others are told.
                if let Some(sides) = self.connections.live_mut(slot).and_then(|client| client.cold.sides.as_mut()) {
                    drop(sides.remove(group));
                }
                self.close(slot, &CloseReason::by_side_home(error, cause));
            }
            ConnectionCommand::HandOver { headers } => self.hand_side_over(slot, group, &headers),
            ConnectionCommand::Invoke { asker, request, origin } => {
                if let Some(side) = self.side_mut(slot, group) {
                    side.ask(&request.invocation_id);
                }
                // The answer goes to it, so the home need not know.
                self.apply_invoke(slot, true, asker, request, (origin, mode));
            }
            ConnectionCommand::Flow { operation, .. } => self.apply_side_flow(slot, group, operation),
            other @ (ConnectionCommand::Group { .. }
            | ConnectionCommand::Refresh { .. }
            | ConnectionCommand::Moved { .. }
            | ConnectionCommand::Traced(_)
            | ConnectionCommand::Mirrored { .. }
            | ConnectionCommand::Mirror(_)) => {
                self.apply_to_connection(slot, (app, false), other, mode);
            }
        }
    }

    /// Delivers bytes of a side home; the answer to the hub handshake is not for the client, who has one.
    fn apply_side_data(&mut self, slot: Slot, group: &str, payload: &[u8], mode: BatchMode) {
        let calls_max = self.context.shared.settings.rehoming.pending_calls_max;
        let Some(side) = self.side_mut(slot, group) else { return };
        let payload = match side.answer_handshake(payload) {
            Ok(rest) => rest,
            Err(error) => return self.side_refused(slot, group, &error),
        };
        self.compare_down(slot, payload);
        let Some(client) = self.connections.live_mut(slot) else { return };
        let Content::Hub(protocol) = client.content else { return };
        let Some(side) = client.cold.sides.as_mut().and_then(|sides| sides.of_group(group)) else { return };
        let payload = side.calls.filter(protocol, payload);
        let frame = (!payload.is_empty()).then(|| frame_for(protocol, &payload));
        if !client.has_too_many_calls(calls_max) {
            client.resume(PauseReason::PendingCalls, mode.now);
        }
        if let Some(frame) = frame {
            self.delivery.put_counted(slot, client, &frame, mode);
        }
        self.leave_behind_answer(slot);
    }

    fn apply_side_flow(&mut self, slot: Slot, group: &str, operation: FlowOperation) {
        let Some(side) = self.side_mut(slot, group) else { return };
        match operation {
            FlowOperation::Pause => side.is_paused = true,
            FlowOperation::Resume => side.is_paused = false,
            FlowOperation::ReadOn => side.holds_input = false,
            FlowOperation::EndInput if side.is_leaving => return self.ask_to_hand_over(slot, group),
            FlowOperation::EndInput | FlowOperation::PauseAck | FlowOperation::Offline => return,
        }
        self.refresh_pauses(slot);
    }

    /// Takes note of a call that goes to a side home; `false` if the client has too many open uploads there.
    pub(super) fn begin_side_call(&mut self, slot: Slot, group: &str, call: &CallScan<'_>) -> bool {
        let calls_max = self.context.shared.settings.rehoming.pending_calls_max;
        let Some(client) = self.connections.live_mut(slot) else { return true };
        let Some(side) = client.cold.sides.as_mut().and_then(|sides| sides.of_group(group)) else { return true };
        let has_room = side.begin(call);
        if client.has_too_many_calls(calls_max) {
            client.pause(PauseReason::PendingCalls);
        }
        has_room
    }
}

impl SideHome {
    /// Takes the answer to the hub handshake off the front, if it is due, and returns what is behind it.
    ///
    /// # Errors
    /// When the app server refuses the connection, or answers nonsense.
    fn answer_handshake<'a>(&mut self, payload: &'a [u8]) -> Result<&'a [u8], String> {
        if self.stage != SideStage::Opening {
            return Ok(payload);
        }
        match HandshakeResponse::read(payload, HANDSHAKE_MAX_BYTES) {
            Ok(Some((HandshakeResponse { error: None }, used))) => {
                self.stage = SideStage::Open;
                Ok(payload.get(used..).unwrap_or_default())
            }
            Ok(Some((HandshakeResponse { error: Some(error) }, _))) => Err(error),
            Ok(None) => Err("the answer to the hub handshake is not whole".into()),
            Err(error) => Err(error.to_string()),
        }
    }
}
