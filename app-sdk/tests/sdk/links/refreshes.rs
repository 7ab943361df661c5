//! Tests of refreshed authentication of open connections: claims and `on_refreshed`.

use trunkline::HubProtocol::Json;
use trunkline::{Context, Hub, HubError};
use trunkline_protocol::service::*;

use crate::harness::{App, ProxyLink};

async fn role(ctx: Context) -> Option<String> {
    ctx.claims().get("role").map(str::to_owned)
}

async fn refreshed(ctx: Context) -> Result<(), HubError> {
    match role(ctx.clone()).await {
        Some(role) => Ok(ctx.clients().caller().send("Refreshed", (role,)).await.map(drop)?),
        None => Err(HubError::new("you have no role any more")),
    }
}

fn newer(id: &str, claims: &[(&str, &str)]) -> ServiceMessage {
    let claims = claims.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    ServiceMessage::UpdateConnectionClaims(ConnectionClaims { connection_id: id.into(), claims })
}

#[tokio::test]
async fn a_method_sees_the_claims_of_the_newest_log_in_and_the_hook_may_refuse_it() {
    let hub = |hub: Hub| hub.method("Role", role).on_refreshed(refreshed).authentication_refresh();
    let app = App::start_hub(hub).await;
    let mut link = ProxyLink::open(&app, "a", 0).await;
    let client = link.client("c1", Json).await;
    assert!(link.call(&client, "Role", "[]").await.contains("\"result\":null"));
    link.send(newer("nobody", &[("role", "cook")])).await;
    link.send(newer("c1", &[("asrs.s.uid", "ann"), ("role", "cook")])).await;
    assert_eq!(link.called("c1").await.target, "Refreshed");
    assert!(link.call(&client, "Role", "[]").await.contains("\"result\":\"cook\""));
    link.send(newer("c1", &[("asrs.s.uid", "ann")])).await;
    let close = link.json("c1").await;
    assert_eq!((&close["type"], &close["allowReconnect"]), (&7.into(), &true.into()));
}
