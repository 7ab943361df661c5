//! The official suite's cases that require HTTPS. All other cases also run over HTTPS.

use anyhow::Result;
use serde_json::json;

use super::functional_scene::{EVERY, FunctionalCase, FunctionalScene, cases};
use super::hub_connection::{close, expect};

cases!(
    EVERY:
        can_invoke_server_method_over_https_and_receive_result,
        preserves_cookies_between_requests;
);

async fn can_invoke_server_method_over_https_and_receive_result(scene: FunctionalScene<'_>) -> Result<()> {
    let client = scene.client().open().await?;
    expect(client.invoke("Echo", json!(["over TLS"])).await?, "over TLS")?;
    close(client).await
}

async fn preserves_cookies_between_requests(scene: FunctionalScene<'_>) -> Result<()> {
    let client = scene.client().open().await?;
    expect(client.invoke("GetCookie", json!(["testCookie"])).await?, "testValue")?;
    expect(client.invoke("GetCookie", json!(["testCookie2"])).await?, "testValue2")?;
    close(client).await
}
