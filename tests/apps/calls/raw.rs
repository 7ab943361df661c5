//! Raw endpoint that executes commands and echoes everything else.

use axum::extract::State;
use serde_json::json;
use trunkline::{HubError, RawConnection, RawEndpoint, RawMessage, ServerHandle};

const PATH: &str = "/raw";
const NAME: &str = "raw";

/// Commands: `who` describes the client, `tell ID TEXT` sends to another client.
async fn serve(State(server): State<ServerHandle>, mut connection: RawConnection) -> Result<(), HubError> {
    while let Some(message) = connection.recv().await {
        match message.as_text() {
            Some("who") => connection.send(who(&connection)).await?,
            Some(text) if text.starts_with("tell ") => send_to(&server, text).await?,
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

pub(crate) fn endpoint(server: ServerHandle) -> RawEndpoint {
    RawEndpoint::new(PATH, serve).name(NAME).with_state(server)
}
