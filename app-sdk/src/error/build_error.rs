//! Errors of the server builder.

use std::error::Error as StdError;
use std::fmt;
use std::path::PathBuf;

use trunkline_protocol::development_key::DevelopmentKeyError;
use trunkline_protocol::dial_in::ConnectionStringError;
use trunkline_protocol::key::AccessKeyError;

/// Error of the server builder. `Debug` shows the text with all causes, for a `main` that returns it.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A path that no client could connect to.
    #[error("path '{0}' must begin with '/', not end with it, and have no query")]
    Path(String),
    /// A path with parameters, like a router's route.
    #[error("path '{0}' has braces: a hub or raw endpoint has one fixed path; put variable parts into the query")]
    PathParameter(String),
    /// A pattern of recorded names, or how much is kept of their records, is invalid.
    #[error("hub '{hub}': the pattern '{names}' of recorded names {problem}")]
    History {
        /// Name of the hub.
        hub: String,
        /// Invalid pattern, or pattern of invalid limits.
        names: String,
        /// Problem, and the allowed values.
        problem: String,
    },
    /// A hub with records has a method of the name that belongs to the nodes there.
    #[error("hub '{0}' has records, so nodes answer calls of its method 'Follow': give the method another name")]
    FollowMethod(String),
    /// A ping interval below 1 ms.
    #[error(
        "hub or raw endpoint '{0}': keep_alive_interval must be at least 1 ms; for few pings choose a long interval"
    )]
    KeepAliveInterval(String),
    /// No name can be derived from the path.
    #[error("hub or raw endpoint at '{0}' needs a name: call `name`")]
    NoName(String),
    /// The app's registry does not accept the server's metrics.
    #[error("the server's metrics can't be registered, perhaps because another server uses the registry: {0}")]
    Metrics(#[source] prometheus::Error),
    /// Two hubs or raw endpoints have the same name.
    #[error(
        "two hubs or raw endpoints are named '{0}' (the default is the last part of the path): give one of them \
         another name by `.name(\"…\")`"
    )]
    DuplicateName(String),
    /// Two hubs or raw endpoints have the same path, ignoring case.
    #[error("two hubs or raw endpoints have the path '{0}'")]
    DuplicatePath(String),
    /// Two methods of a hub have the same name, ignoring case.
    #[error("hub '{hub}' has two methods named '{method}' (case does not count)")]
    DuplicateMethod {
        /// Name of the hub.
        hub: String,
        /// Name of the method.
        method: String,
    },
    /// A hub without hub protocols.
    #[error("hub '{0}' has no hub protocol")]
    NoProtocol(String),
    /// A hub without transports.
    #[error("hub '{0}' has no transport")]
    NoTransport(String),
    /// Invalid name of a WebSocket sub-protocol.
    #[error("'{endpoint}': the sub-protocol {name:?} has to consist of letters, digits and !#$%&'*+-.^_`|~")]
    SubProtocol {
        /// Name of the hub or raw endpoint.
        endpoint: String,
        /// The name that was given.
        name: String,
    },
    /// An access key is invalid.
    #[error("the access key can't be used: {0}")]
    AccessKey(AccessKeyError),
    /// The file of an access key cannot be read.
    #[error("the access key file {path} (TRUNKLINE_ACCESS_KEY_FILE) can't be read")]
    AccessKeyFile {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        #[source]
        source: std::io::Error,
    },
    /// Invalid host for proxies to dial.
    #[error("Server::dialled_as (TRUNKLINE_DIALLED_AS): {host:?} {problem}")]
    DialledAs {
        /// The host that was given.
        host: String,
        /// Reason why it is invalid.
        problem: &'static str,
    },
    /// No access key was given, and this machine's development key is not available.
    #[error(
        "no access key was given (TRUNKLINE_ACCESS_KEY, TRUNKLINE_ACCESS_KEY_FILE), and there is no development key"
    )]
    DevelopmentKey(#[source] DevelopmentKeyError),
    /// An allowed origin is malformed.
    #[cfg(feature = "embedded")]
    #[error("allow_origin: '{origin}' {problem}")]
    Origin {
        /// The origin that was given.
        origin: String,
        /// Reason why it is malformed.
        problem: String,
    },
    /// A service's connection string is invalid.
    #[error("Server::dial: {0}")]
    ConnectionString(#[source] ConnectionStringError),
    /// Two services are identical.
    #[error("Server::dial: the service at {0} is dialled twice")]
    DuplicateService(String),
    /// TLS for a service is not available.
    #[error("Server::dial: {0}")]
    Tls(String),
    /// A path that cannot be a route of the app's router.
    #[error(
        "Server::dial: the path '{0}' has braces, or a segment that begins with ':' or '*', which routers don't accept"
    )]
    DialledPath(String),
    /// Clients cannot be both served here and redirected to a service.
    #[cfg(feature = "embedded")]
    #[error("`embedded` and `dial` exclude each other, because both answer negotiations: choose one")]
    EmbeddedAndDialled,
    /// The admin port cannot be opened.
    #[cfg(feature = "embedded")]
    #[error("Server::admin: the address can't be listened on")]
    Admin(#[source] std::io::Error),
    /// The admin token is invalid.
    #[cfg(feature = "embedded")]
    #[error("Server::admin_token: the token {0}")]
    AdminToken(&'static str),
    /// The admin port requires an embedded node.
    #[cfg(feature = "embedded")]
    #[error(
        "`admin` opens the admin port of an embedded node: call `embedded`, too; a separate proxy has its own admin \
         port"
    )]
    AdminWithoutNode,
    /// Embedded or dialled hubs need a runtime.
    #[error("`embedded` and `dial` need the Tokio runtime of the hubs: call `into_router` inside it")]
    NoRuntime,
    /// The system cannot start the thread that serves clients without a proxy.
    #[cfg(feature = "embedded")]
    #[error("a thread can't be started")]
    Thread(#[source] std::io::Error),
}

impl fmt::Debug for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut text, mut cause) = (self.to_string(), self.source());
        while let Some(error) = cause {
            let said = error.to_string();
            // Some texts already contain the text of their cause.
            if !text.contains(&said) {
                text = text + ": " + &said;
            }
            cause = error.source();
        }
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_main_that_returns_the_error_shows_its_text_with_each_cause_once() {
        let main: Result<(), Box<dyn StdError>> = Err(BuildError::DuplicatePath("/chat".into()).into());
        assert_eq!(format!("{main:?}"), "Err(two hubs or raw endpoints have the path '/chat')");
        let said = BuildError::Metrics(prometheus::Error::AlreadyReg);
        assert_eq!(format!("{said:?}"), said.to_string());
        let source = std::io::Error::other("no such file");
        let unsaid = BuildError::AccessKeyFile { path: "key".into(), source };
        assert!(format!("{unsaid:?}").ends_with("can't be read: no such file"), "{unsaid:?}");
    }
}
