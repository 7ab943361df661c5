//! Dial-in: connection strings of dialling app servers and the tokens they sign, as in Azure SignalR.
//!
//! ```text
//!  connection string ──► app server ── GET /server/?hub=H, server token ──────────► service: a proxy, or Azure's
//!                            └── redirect with a client token ──► client ── POST /client/negotiate?hub=H ──┘
//! ```
//!
//! Plain values without I/O.

mod claim_name;
mod connection_string;
mod service_token;
mod service_url;

pub use claim_name::{app_claim, is_reserved_claim, long_claim, long_claims};
pub use connection_string::{ConnectionString, ConnectionStringError};
pub use service_token::{
    CLIENT_TOKEN_MAX_CHARS, ClientTicket, client_audience, escaped, server_audience, sign_client_token,
    sign_rest_token, sign_rest_token_for, sign_server_token,
};
pub use service_url::{ServiceScheme, ServiceUrl, ServiceUrlError};

/// Path for server connections of app servers. The hub is in the query.
pub const SERVER_PATH: &str = "/server/";
/// Path for clients redirected by an app server. The hub is in the query.
pub const CLIENT_PATH: &str = "/client/";
/// Query parameter with the id of a server connection, unique per upgrade.
pub const SERVER_CONNECTION_PARAMETER: &str = "cid";
/// Query parameter with the service instance that requested the server connection.
pub const TARGET_PARAMETER: &str = "target";
/// Query parameter with the hub's path at the app server, for a redirected client.
pub const ORIGINAL_PATH_PARAMETER: &str = "asrs.op";
/// Query parameter with the id of a redirected client's negotiate request at the app server.
pub const REQUEST_ID_PARAMETER: &str = "asrs_request_id";
/// Header of a server connection's upgrade: app server id, shared by all its connections.
pub const SERVER_ID_HEADER: &str = "x-asrs-server-id";
/// Header of an open frame: service instance that holds the client.
pub const INSTANCE_ID_HEADER: &str = "asrs-instance-id";
/// Header of a server connection's upgrade: product, version and platform of the SDK.
pub const SDK_HEADER: &str = "asrs-user-agent";

/// Key of the ping that requests one more server connection. The value is the service instance.
pub const TARGET_PING: &str = "target";
/// Key of the ping that queries the service status with `1`. The answer states whether it has clients.
pub const STATUS_PING: &str = "status";
/// Key of the pings for an app server's graceful shutdown.
pub const SHUTDOWN_PING: &str = "shutdown";
/// Value of [`SHUTDOWN_PING`]: the app server shuts down and its clients migrate to others.
pub const FIN_MIGRATE: &str = "fin:1";
/// Value of [`SHUTDOWN_PING`]: the service acknowledges the shutdown.
pub const FIN_ACK: &str = "finack";
/// Key of the ping that reports the loss of a service instance. The value is the instance.
pub const INSTANCE_LOST_PING: &str = "offline";
/// Key of the ping that reports the number of an app server's clients in the hub.
pub const CLIENTS_IN_HUB_PING: &str = "#clientInHub";
/// Key of the ping that reports the number of clients on this server connection.
pub const CLIENTS_PING: &str = "#client";
