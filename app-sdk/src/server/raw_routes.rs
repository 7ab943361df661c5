//! Raw endpoints of a server, beside its hubs.

use crate::raw::{RawDispatcher, RawEndpoint, RawHandler};
use crate::sync::write;

use super::Server;

impl Server {
    /// Adds a raw endpoint: clients at `path` and the handler exchange texts and bytes, without a hub protocol. For one
    /// with a state or settings of its own see [`raw_endpoint`](Self::raw_endpoint).
    ///
    /// ```
    /// use trunkline::{RawConnection, Server};
    ///
    /// async fn echo(mut connection: RawConnection) {
    ///     while let Some(message) = connection.recv().await {
    ///         if connection.send(message).await.is_err() {
    ///             return; // it has ended
    ///         }
    ///     }
    /// }
    ///
    /// let server = Server::new().raw("/echo", echo);
    /// ```
    pub fn raw<H: RawHandler<(), M>, M: 'static>(self, path: impl Into<String>, handler: H) -> Self {
        self.raw_endpoint(RawEndpoint::new(path, handler))
    }

    /// Adds a raw endpoint that has a state or settings.
    pub fn raw_endpoint(mut self, endpoint: RawEndpoint) -> Self {
        match endpoint.build() {
            Ok(endpoint) => {
                let name = endpoint.manifest.name.clone();
                if let Some(outbound) = self.register(endpoint.manifest.clone()) {
                    let dispatcher = RawDispatcher::new(outbound, endpoint, self.core.tasks.clone());
                    write(&self.core.raw).insert(name, dispatcher);
                }
            }
            Err(error) => self.error = self.error.or(Some(error)),
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use crate::{BuildError, Hub, RawConnection, RawEndpoint, Server};

    const KEY: &str = "a secret of at least 16 bytes";

    async fn nothing(_: RawConnection) {}

    fn error(server: Server) -> BuildError {
        server.access_key(KEY).into_router::<()>().unwrap_err()
    }

    #[test]
    fn hubs_and_raw_endpoints_share_names_and_paths() {
        let doubled_name = Server::new().hub(Hub::new("/a/echo")).raw("/b/echo", nothing);
        assert!(matches!(error(doubled_name), BuildError::DuplicateName(name) if name == "echo"));
        let named = RawEndpoint::new("/Echo", nothing).name("other");
        assert!(matches!(error(Server::new().raw("/echo", nothing).raw_endpoint(named)), BuildError::DuplicatePath(_)));
        assert!(matches!(error(Server::new().raw("echo", nothing)), BuildError::Path(_)));
        assert!(matches!(error(Server::new().raw("/echo/{id}", nothing)), BuildError::PathParameter(_)));
    }

    #[test]
    fn a_handle_tells_hubs_from_raw_endpoints() {
        let handle = Server::new().hub(Hub::new("/chat")).raw("/echo", nothing).handle();
        assert_eq!(handle.raw("echo").unwrap().name(), "echo");
        assert!(handle.raw("chat").is_err());
        assert!(handle.hub("echo").is_err());
    }
}
