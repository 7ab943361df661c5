//! Tests of hubs from the view of their authors: filters, extractors, policies and modules, run by the test kit.

mod derived;
mod extractors;
mod filters;
mod policies;
#[cfg(feature = "typescript")]
mod typescript;

use std::sync::{Arc, Mutex};

use trunkline::Hub;
use trunkline::testing::{TestClient, TestServer};

/// Lines written by a hub's code, in order.
#[derive(Debug, Clone, Default)]
struct Journal(Arc<Mutex<Vec<String>>>);

impl Journal {
    fn write(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// Connects a client to the hub at `/hub` with this query.
async fn client(hub: Hub, query: &str) -> (TestServer, TestClient) {
    let server = TestServer::new(hub).unwrap();
    let client = server.connect("/hub").query(query).user("ann").claim("role", "editor").await.unwrap();
    (server, client)
}

/// Error text of a call, as the client sees it.
async fn error(client: &mut TestClient, method: &str, arguments: impl trunkline::Arguments) -> String {
    client.invoke::<()>(method, arguments).await.unwrap_err().to_string()
}
