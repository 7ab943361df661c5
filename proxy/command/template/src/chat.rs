//! Hub of the app: a chat with rooms.

use trunkline::{Context, FromContext, Hub, HubError};

/// Maximum length of a message.
const TEXT_MAX_CHARS: usize = 500;

/// Caller, identified by the URL of its connection: `/chat?room=kitchen&name=ann`.
///
/// Every app server receives the URL, also after a takeover from another app server.
#[derive(Debug, FromContext)]
struct Visitor {
    #[query("room")]
    room: String,
    #[query("name")]
    name: String,
}

/// Builds the hub with its hooks and methods.
pub(crate) fn hub() -> Hub {
    let hub = Hub::new("/chat").on_connected(enter).on_disconnected(leave).method("Say", say);
    // Developers need error details in their pages; strangers should not see them.
    if cfg!(debug_assertions) { hub.detailed_errors() } else { hub }
}

async fn enter(ctx: Context, visitor: Visitor) -> Result<(), HubError> {
    ctx.join(&visitor.room).await?;
    ctx.clients().others_in_group(&visitor.room).send("Entered", (&visitor.name,)).await?;
    Ok(())
}

async fn leave(ctx: Context, visitor: Visitor) -> Result<(), HubError> {
    ctx.clients().group(&visitor.room).send("Left", (&visitor.name,)).await?;
    Ok(())
}

/// Sends a message to everyone in the room at all proxies, including the caller.
async fn say(ctx: Context, visitor: Visitor, text: String) -> Result<(), HubError> {
    if text.trim().is_empty() || text.chars().count() > TEXT_MAX_CHARS {
        return Err(HubError::new(format!("a message has 1 to {TEXT_MAX_CHARS} characters")));
    }
    ctx.clients().group(&visitor.room).send("Said", (&visitor.name, text)).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use trunkline::testing::{TestClient, TestServer};

    use super::*;

    async fn enter(server: &TestServer, query: &str) -> TestClient {
        server.connect("/chat").query(query).await.unwrap()
    }

    #[tokio::test]
    async fn a_message_reaches_only_its_room() {
        let server = TestServer::new(hub()).unwrap();
        let mut ann = enter(&server, "room=kitchen&name=ann").await;
        let mut bob = enter(&server, "room=kitchen&name=bob").await;
        let mut eve = enter(&server, "room=garden&name=eve").await;
        assert_eq!(ann.expect::<(String,)>("Entered").await.0, "bob");

        bob.invoke::<()>("Say", ("hello",)).await.unwrap();
        eve.invoke::<()>("Say", ("alone",)).await.unwrap();
        let said = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        assert_eq!(ann.expect::<(String, String)>("Said").await, said("bob", "hello"));
        assert_eq!(eve.expect::<(String, String)>("Said").await, said("eve", "alone"));

        bob.disconnect().await;
        assert_eq!(ann.expect::<(String,)>("Left").await.0, "bob");
    }

    #[tokio::test]
    async fn an_empty_or_too_long_message_is_refused_with_the_limit() {
        let server = TestServer::new(hub()).unwrap();
        let mut ann = enter(&server, "room=kitchen&name=ann").await;
        for text in [" ".to_owned(), "x".repeat(TEXT_MAX_CHARS + 1)] {
            let error = ann.invoke::<()>("Say", (text,)).await.unwrap_err();
            assert_eq!(error.message(), Some("a message has 1 to 500 characters"));
        }
        ann.invoke::<()>("Say", ("x".repeat(TEXT_MAX_CHARS),)).await.unwrap();
    }
}
