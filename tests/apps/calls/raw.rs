//! Raw endpoint that executes commands and echoes everything else.

use axum::extract::State;
use serde_json::json;
use trunkline::{HubError, RawConnection, RawEndpoint, RawMessage, ServerHandle};

use super::gate::Gate;

const PATH: &str = "/raw";
const NAME: &str = "raw";

#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) gate: Gate,
    pub(crate) server: ServerHandle,
}

/// Commands: `who` describes the client, `wait` waits for the gate, `tell ID TEXT` sends to another client, `bye` ends
/// the connection, `fail` ends it with an error.
async fn serve(State(shared): State<Shared>, mut connection: RawConnection) -> Result<(), HubError> {
    while let Some(message) = connection.recv().await {
        match message.as_text() {
            Some("who") => connection.send(who(&connection)).await?,
            Some("wait") => shared.gate.pass().await,
            Some("bye") => return Ok(()),
            Some("fail") => return Err(HubError::new("as asked")),
            Some(text) if text.starts_with("tell ") => send_to(&shared.server, text).await?,
            _ => connection.send(message).await?,
        }
    }
    Ok(())
}

fn who(connection: &RawConnection) -> RawMessage {
    let agent = connection.headers().get("x-agent").and_then(|agent| agent.to_str().ok()).map(str::to_owned);
    let known = json!({
        "connectionId": connection.connection_id(),
        "user": connection.user_id(),
        "role": connection.claims().get("role"),
        "room": connection.query().get("room"),
        "agent": agent,
        "hasAddress": connection.remote_addr().is_some(),
    });
    known.to_string().into()
}

async fn send_to(server: &ServerHandle, text: &str) -> Result<(), HubError> {
    let mut words = text.splitn(3, ' ').skip(1);
    let (Some(id), Some(text)) = (words.next(), words.next()) else { return Err(HubError::new("tell whom what?")) };
    Ok(server.raw(NAME)?.send(id, text).await?)
}

pub(crate) fn endpoint(shared: Shared) -> RawEndpoint {
    RawEndpoint::new(PATH, serve).name(NAME).with_state(shared)
}
